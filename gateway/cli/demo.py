"""`demo`: the whole thing on sample prices, then left running to be tried.

The gateway runs in a process of its own, as `serve` would start it, tied to this one by a lifeline: whatever happens
here, it drains or ends. What is played stands in `gateway.demo`.
"""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gateway.cli.arguments import CONTROL_ADDRESS, GATEWAY_ADDRESS
from gateway.cli.exits import ExitCode, Failure
from gateway.cli.serve import DATA_DIR
from gateway.lifeline import LIFELINE_FD, READY_FD, READY_LINE

if TYPE_CHECKING:
    from gateway.demo.agents import MakeAgent
    from gateway.demo.own import AgentError
    from gateway.demo.summary import Summary

HOST = "127.0.0.1"
GATEWAY_PORT, CONTROL_PORT = (int(address.rpartition(":")[2]) for address in (GATEWAY_ADDRESS, CONTROL_ADDRESS))
READY_WAIT_S = 90.0
"""Longer than the supervisor's own patience with a process, which knows better what went wrong."""
STORE_TIMEOUT_S = 5.0
"""The recount reads whole logs while two cores are busy; nothing waits for it."""
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Addresses:
    gateway: str
    control: str

    def commands(self, account: str, data_dir: Path) -> list[str]:
        """What to try, each naming the ports it needs where they are not the usual ones."""
        gateway = "" if self.gateway == GATEWAY_ADDRESS else f" --address {self.gateway}"
        control = "" if self.control == CONTROL_ADDRESS else f" --control {self.control}"
        return [
            f"check AAPL buy 10 --account {account} --explain{gateway}",
            f"check AAPL buy 5000 --account {account}{gateway}",
            f"watch{gateway}",
            f"log tail {account} --data-dir {data_dir}",
            f"stop --reason 'trying it'{control}{gateway}",
            f"resume --reason 'tried it'{control}",
        ]


def demo(
    agents: Annotated[
        str,
        typer.Option(
            "--agents",
            metavar="MODULE:CLASS[,…]",
            help="Your own instead; with momentum, reversion, longshort beside them. See docs/your-own-agent.md.",
            show_default=False,
        ),
    ] = "",
    exit_after: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End so long after the summary; without: Ctrl-C.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the paper broker's chances.")] = 7,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Kept; each run opens new accounts in it.")] = DATA_DIR
    / "demo",
    gateway_port: Annotated[int, typer.Option(help="Port for orders; 0: any free one.")] = GATEWAY_PORT,
    control_port: Annotated[int, typer.Option(help="Port for stops and limits; 0: any free one.")] = CONTROL_PORT,
) -> None:
    """Play three agents, or your own, through the crash of 2020. Each order is checked; it stays up to be tried."""
    from gateway.cli.screen import console, note

    played = _agents(agents)
    signal.signal(signal.SIGTERM, _end_on_signal)
    gateway, control = (_port(wanted) for wanted in (gateway_port, control_port))
    addresses = Addresses(f"{HOST}:{gateway}", f"{HOST}:{control}")
    note(f"Starting a private store, control, worker and gateway on {data_dir}; logs in {data_dir / 'logs'}.")
    with _serving(data_dir, gateway, control):
        summary = _played(addresses, data_dir, seed, played)
        summary.print(console())
        if exit_after != 0:
            _stay(addresses, data_dir, summary, exit_after)
    raise typer.Exit(ExitCode.OK if summary.sound else ExitCode.DEFECT)


def _end_on_signal(_: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(ExitCode.TERMINATED)


def _agents(text: str) -> "Sequence[MakeAgent]":
    """The agents to be played; own ones are found from the current folder on, as `python` finds modules."""
    from gateway.demo.agents import AGENTS
    from gateway.demo.own import AgentError, agents_named

    if not text:
        return tuple(AGENTS.values())
    sys.path.insert(0, os.getcwd())
    try:
        return agents_named(text)
    except AgentError as error:
        raise _unplayable(error) from error


def _unplayable(error: "AgentError") -> Failure:
    return Failure(str(error), ExitCode.USAGE, error.trace, hint="How an agent looks: docs/your-own-agent.md")


def _port(wanted: int) -> int:
    from gateway.cli.ports import ANY_FREE, PortTaken, free_port
    from gateway.cli.screen import note

    try:
        return free_port(HOST, wanted)
    except PortTaken as taken:
        port = free_port(HOST, ANY_FREE)
        note(f"⚠ {taken}; this run takes {port} instead")
        return port


# The gateway's process


@contextmanager
def _serving(data_dir: Path, gateway_port: int, control_port: int) -> Iterator[None]:
    """`serve` in a session of its own, so that a Ctrl-C is for this process, which then drains it."""
    logs = data_dir / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    held_fd, lifeline_fd = os.pipe()
    ready_fd, announce_fd = os.pipe()
    log_path = logs / "serve.log"
    with resources.as_file(resources.files("gateway.demo") / "demo.toml") as config, log_path.open("wb") as log:
        argv = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--data-dir", str(data_dir)]
        server = subprocess.Popen(
            [*argv, "--host", HOST, "--gateway-port", str(gateway_port), "--control-port", str(control_port)],
            env={**clean(os.environ), LIFELINE_FD: str(held_fd), READY_FD: str(announce_fd)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(held_fd, announce_fd),
            start_new_session=True,
        )
        os.close(held_fd)
        os.close(announce_fd)
        try:
            _await_ready(ready_fd, log_path)
            yield
        finally:
            _drain(server)
            os.close(lifeline_fd)
            os.close(ready_fd)


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Without settings of ours: a store or a mode that is set for real work is not for a demo."""
    from gateway.config import ENVIRONMENT_PREFIX

    return {name: value for name, value in environment.items() if not name.startswith(ENVIRONMENT_PREFIX)}


def _await_ready(ready_fd: int, log_path: Path) -> None:
    readable, _, _ = select.select([ready_fd], [], [], READY_WAIT_S)
    if readable and os.read(ready_fd, len(READY_LINE)) == READY_LINE:
        return
    words = "did not start" if readable else f"was not ready in {READY_WAIT_S:g} s"
    last_lines = log_path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    raise Failure(f"the gateway {words}; its last words", ExitCode.UNAVAILABLE, tuple(last_lines))


def _drain(server: subprocess.Popen[bytes]) -> None:
    """Returns when it has ended. Ctrl-C meanwhile kills its processes at once; every promise is in the store."""
    while server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait()
        except KeyboardInterrupt:
            continue


# What is played on it


def _played(addresses: Addresses, data_dir: Path, seed: int, agents: "Sequence[MakeAgent]") -> "Summary":
    from gateway.cli.screen import console
    from gateway.demo.client import DemoError
    from gateway.demo.own import AgentError
    from gateway.demo.recount import recount
    from gateway.demo.run import DemoPlan, run_demo
    from gateway.embedded import running_socket
    from gateway.log.redis import RedisLog

    async def active_breaches(accounts: Sequence[str]) -> int:
        socket_path = running_socket(data_dir)
        if socket_path is None:
            raise DemoError("the store is gone")
        log = RedisLog(socket_path, socket_timeout_s=STORE_TIMEOUT_S)
        try:
            return len((await recount(log, list(accounts))).active)
        finally:
            await log.aclose()

    playing = run_demo(
        addresses.gateway,
        addresses.control,
        console(),
        plan=DemoPlan(seed=seed),
        run_id=f"{datetime.now():%m%d-%H%M%S}",
        now_us=_now_us,
        recount=active_breaches,
        agents=agents,
    )
    try:
        return asyncio.run(playing)
    except AgentError as error:
        raise _unplayable(error) from error
    except DemoError as error:
        raise Failure(f"the demo broke off: {error}", ExitCode.DEFECT, hint=f"Logs: {data_dir / 'logs'}") from error


def _stay(addresses: Addresses, data_dir: Path, summary: "Summary", exit_after_s: float | None) -> None:
    """Until Ctrl-C, which ends it well, or until the time is up. Marks are kept fresh meanwhile."""
    from gateway.cli.screen import note
    from gateway.demo.client import DemoError
    from gateway.demo.run import DemoPlan, keep_market_open

    note(f"\nThe gateway stays up: orders {addresses.gateway}, control {addresses.control}. From another shell:")
    for command in addresses.commands(summary.accounts[0], data_dir):
        note(f"  risk-gateway {command}")
    note("Ctrl-C ends it." if exit_after_s is None else f"It ends in {exit_after_s:g} s, or by Ctrl-C.")

    async def keep_open() -> None:
        async with asyncio.timeout(exit_after_s):
            await keep_market_open(addresses.gateway, addresses.control, plan=DemoPlan(), now_us=_now_us)

    try:
        asyncio.run(keep_open())
    except (KeyboardInterrupt, TimeoutError):
        note("Draining.")
    except DemoError as error:
        raise Failure(f"the gateway is gone: {error}", ExitCode.UNAVAILABLE) from error


def _now_us() -> int:
    return time.time_ns() // 1_000
