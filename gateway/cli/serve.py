"""`serve`: the whole gateway on one machine, or one role of it.

Options are settings of the environment with another spelling, so that the processes that a supervisor starts see them
too. What is run is put together in `machine` and `main`; only what a person reads is made here.
"""

import enum
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.supervisor import Notice

DATA_DIR = Path("risk-gateway-data")
"""In the folder where one stands: easier to find, to look into and to delete than one below the home directory."""


class Role(enum.StrEnum):
    GATEWAY = "gateway"
    CONTROL = "control"
    WORKER = "worker"


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration; see risk-gateway config init.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help=f"Store, logs and keys.  [default: ./{DATA_DIR}]")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Use this Redis or Valkey instead of a private one; needs --tier.")
    ] = None,
    tier: Annotated[
        str | None, typer.Option(help="What that store may promise: single, replicated or sentinel.")
    ] = None,
    role: Annotated[Role | None, typer.Option(help="Run this part only, in this process.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    gateway_port: Annotated[int | None, typer.Option(help="Port for orders; 0: any free one.")] = None,
    control_port: Annotated[int | None, typer.Option(help="Port for stops and limits; 0: any free one.")] = None,
    runtime_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the private store's socket; a short path.")
    ] = None,
) -> None:
    """Start the gateway and all it needs. Private store, control, worker and gateway run until Ctrl-C."""
    given = {
        "RISK_GATEWAY_STORE__REDIS_URL": redis_url,
        "RISK_GATEWAY_STORE__TIER": tier,
        "RISK_GATEWAY_SERVER__HOST": host,
        "RISK_GATEWAY_SERVER__GATEWAY_PORT": gateway_port,
        "RISK_GATEWAY_SERVER__CONTROL_PORT": control_port,
    }
    environment = {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}}
    if role is not None:
        raise typer.Exit(_run_role(role, config, data_dir, environment))
    raise typer.Exit(_run_supervised(config, data_dir or DATA_DIR, runtime_dir, environment))


def _run_role(role: Role, config: Path | None, data_dir: Path | None, environment: Mapping[str, str]) -> int:
    from gateway.config import ConfigError
    from gateway.errors import StoreError
    from gateway.machine import STORE_URL
    from gateway.main import run_role

    settings = loaded(config, environment)
    store_url = environment.get(STORE_URL) or settings.store.redis_url
    if store_url is None:
        raise Failure(f"the {role} alone has no store to work on", ExitCode.CONFIG, hint="Give --redis-url and --tier.")
    try:
        return run_role(role, settings, data_dir, store_url, environment, config)
    except ConfigError as error:
        raise unusable(error) from error
    except StoreError as error:
        raise Failure(str(error), ExitCode.UNAVAILABLE) from error


def _run_supervised(
    config: Path | None, data_dir: Path, runtime_dir: Path | None, environment: Mapping[str, str]
) -> int:
    from gateway.cli.banner import banner, notice_line
    from gateway.cli.screen import note, show
    from gateway.config import ConfigError
    from gateway.errors import StoreError
    from gateway.lifeline import announce_ready, watch_parent
    from gateway.machine import run_supervised
    from gateway.supervisor import NoticeKind

    settings = with_free_ports(loaded(config, environment))

    def tell(notice: "Notice") -> None:
        if notice.kind is NoticeKind.ALL_READY:
            show(banner(settings, data_dir, config))
            announce_ready(environment)
        else:
            note(notice_line(notice))

    watch_parent(environment, on_death=_drain_this_process)
    try:
        return run_supervised(settings, config, data_dir, tell, environment, runtime_dir)
    except ConfigError as error:
        raise unusable(error) from error
    except (StoreError, OSError) as error:
        raise Failure(f"not started: {error}", ExitCode.UNAVAILABLE) from error


def loaded(config: Path | None, environment: Mapping[str, str]) -> "Settings":
    """The settings of a file under an environment. Raises Failure with every problem."""
    from gateway.config import ConfigError, load

    try:
        return load(config, environment)
    except ConfigError as error:
        raise unusable(error) from error


def unusable(error: Exception) -> Failure:
    """A ConfigError as a Failure: each problem on its own line."""
    from gateway.config import ConfigError

    assert isinstance(error, ConfigError)
    count = len(error.problems)
    return Failure(
        f"{error.source}: {count} problem{'s' if count > 1 else ''}",
        ExitCode.CONFIG,
        error.problems,
        "risk-gateway config schema describes every key, risk-gateway config validate FILE checks a file.",
    )


def with_free_ports(settings: "Settings") -> "Settings":
    """The settings with ports that can be listened on: 0 becomes one. Raises Failure for a taken one."""
    from gateway.cli.ports import PortTaken, free_port

    server = settings.server
    try:
        ports = {name: free_port(server.host, getattr(server, name)) for name in ("gateway_port", "control_port")}
    except PortTaken as error:
        option = "--gateway-port" if error.port == server.gateway_port else "--control-port"
        raise Failure(
            str(error), ExitCode.UNAVAILABLE, hint=f"Another one: {option} PORT, 0 for any free one."
        ) from error
    except OSError as error:
        raise Failure(f"can't listen on {server.host}: {error.strerror}", ExitCode.CONFIG) from error
    return settings.model_copy(update={"server": server.model_copy(update=ports)})


def _drain_this_process() -> None:
    """Whoever started this process is gone: end as if it had said so."""
    os.kill(os.getpid(), signal.SIGTERM)
