"""What `serve` and `demo` say of themselves: where they listen, where their data are, how to check, look and stop.

Pure: settings and notices in, text out. No wire types, since the supervisor's process does without them.
"""

from pathlib import Path
from urllib.parse import urlsplit

from rich.text import Text

from gateway.cli.arguments import CONTROL_ADDRESS, GATEWAY_ADDRESS
from gateway.config import Settings
from gateway.supervisor import Notice

MODES = {
    "demo": ("DEMO", "bold yellow", "sample data, nothing here is real"),
    "paper": ("PAPER", "bold cyan", "no real money"),
    "live": ("LIVE", "bold white on red", "real money"),
}


def banner(settings: Settings, data_dir: Path, config_path: Path | None) -> Text:
    """All that somebody needs who has just started it."""
    name, style, meaning = MODES[settings.mode]
    server = settings.server
    gateway, control = f"{server.host}:{server.gateway_port}", f"{server.host}:{server.control_port}"
    at_gateway = "" if gateway == GATEWAY_ADDRESS else f" --address {gateway}"
    at_control = "" if control == CONTROL_ADDRESS else f" --control {control}"
    text = Text("\nrisk-gateway is ready  ")
    text.append(f" {name} ", style=style)
    text.append(f" {meaning}\n")
    for key, value in (
        ("orders", f"{gateway}  (gRPC, reflection on)"),
        ("control", f"{control}  (stop, resume, limits)"),
        ("limits", _limits(settings, config_path)),
        ("store", _store(settings)),
        ("data", f"{data_dir.absolute()}  (logs in logs/)"),
        ("check", f"risk-gateway check SYMBOL buy QUANTITY --account NAME --explain{at_gateway}"),
        ("status", f"risk-gateway status --account NAME{at_gateway}"),
        ("stop all", f"risk-gateway stop{at_control}{at_gateway}"),
        ("end", "Ctrl-C drains; what was decided stays in the data directory"),
    ):
        text.append(f"  {key:<9}", style="bold")
        text.append(f"{value}\n")
    return text


def notice_line(notice: Notice) -> str:
    """One line for what happened to a process; more where a dying one left last words."""
    pid = f" (pid {notice.pid})" if notice.pid is not None else ""
    detail = f": {notice.detail}" if notice.detail else ""
    return f"{notice.name or 'risk-gateway'} {notice.kind}{pid}{detail}"


def _limits(settings: Settings, config_path: Path | None) -> str:
    count = len(settings.limit_rows)
    if count == 0:
        return "none armed, so nothing trades: risk-gateway config init writes a set to start from"
    return f"{count} rows from {config_path.absolute() if config_path else 'the environment'}"


def _store(settings: Settings) -> str:
    url = settings.store.redis_url
    if url is None:
        return "private, in the data directory"
    parts = urlsplit(url)  # without user and password, which nobody should read over a shoulder
    host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return f"{parts.scheme}://{host}{parts.path}  (tier {settings.store.tier})"
