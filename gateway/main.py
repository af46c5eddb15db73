"""The composition root: what each process is made of.

`run_role` is one process of a service: a gateway, the control process or the worker. Clock, randomness, environment,
log and callers are built here and handed down; nothing else reads them.
"""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from engine.control import Scope, TradingState
from gateway.accounts import Accounts
from gateway.arming import ConfigFile
from gateway.clock import StoreClock
from gateway.config import Settings
from gateway.embedded import DataDirLock, EmbeddedStore, running_socket
from gateway.errors import StoreError, StoreUnavailable
from gateway.lifeline import LIFELINE_FD, watch_parent
from gateway.log.account_log import AccountLog
from gateway.log.redis import RedisLog
from gateway.log.tier import Tier
from gateway.machine import STORE_URL, approval_key, configured_limits
from gateway.pending_stops import PendingStop, PendingStops
from gateway.process import Process
from gateway.registry import armed_files
from gateway.rpc.approval import Approvals
from gateway.rpc.peers import Peers, others, reachable_host
from gateway.rpc.server import Server, build_control, build_gateway
from gateway.stopping import StopIncomplete, StopOutcome, Stopper, partitions_of
from gateway.tasks import ended

LOGGER = structlog.get_logger()

STORE_WAIT_S = 30.0
"""How long a process waits at its start for a store that is still loading its log."""

STORE_RETRY_S = 0.1
OPERATOR_RANK = 1

NICENESS = {"control": 0, "gateway": 5, "worker": 10}
"""Where cores are short, a stop goes before an order and an order before a report."""


def run_role(
    role: str,
    settings: Settings,
    data_dir: Path | None,
    store_url: str,
    environment: Mapping[str, str],
    config_path: Path | None = None,
) -> int:
    """Run "gateway", "control" or "worker" until SIGTERM or SIGINT; the exit status. Raises StoreError, ConfigError.
    `config_path`: where `settings` come from; control follows it."""
    watch_parent(environment)
    os.nice(NICENESS[role])
    _log_to_stderr(role)
    return asyncio.run(_run_role(role, settings, data_dir, store_url, environment, config_path))


async def _run_role(
    role: str,
    settings: Settings,
    data_dir: Path | None,
    store_url: str,
    environment: Mapping[str, str],
    config_path: Path | None,
) -> int:
    stop, reread = _set_by(signal.SIGTERM, signal.SIGINT), _set_by(signal.SIGHUP)
    store = settings.store
    log = RedisLog(store_url, socket_timeout_s=store.socket_timeout_ms / 1000, wait_replicas=store.wait_replicas)
    try:
        clock = StoreClock(_monotonic_us, await _when_store_answers(log.now_us))
        await log.check_settings(Tier(store.tier))
        await _ROLES[role](Process(settings, data_dir, environment, log, clock, stop, reread, config_path))
    finally:
        await log.aclose()
    return 0


def _set_by(*signals: signal.Signals) -> asyncio.Event:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, event.set)
    return event


async def _when_store_answers(ask: Callable[[], Awaitable[int]]) -> int:
    until_s = time.monotonic() + STORE_WAIT_S
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            if time.monotonic() >= until_s:
                raise
            await asyncio.sleep(STORE_RETRY_S)


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


async def _gateway(process: Process) -> None:
    if STORE_URL in process.environment:
        await limits_armed(process.log, configured_limits(process.settings).hash, STORE_WAIT_S)
    await _serve(process, build_gateway, process.settings.server.gateway_port)


async def limits_armed(log: AccountLog, file_hash: str, patience_s: float) -> None:
    """Returns once control has armed the limits of this configuration in every partition: who started both together
    expects no order to be decided under older ones. Raises StoreUnavailable when the time is up."""
    until_s = time.monotonic() + patience_s
    while await armed_files(log) != {file_hash}:
        if time.monotonic() >= until_s:
            raise StoreUnavailable(f"control has not armed the limits of this configuration within {patience_s:g} s")
        await asyncio.sleep(STORE_RETRY_S)


async def _control(process: Process) -> None:
    """Only control reads the limits of the configuration. It arms them where they differ from the last ones armed, so
    that what UpdateLimits changed since survives a restart with an unchanged file, and goes on following the file."""
    file = ConfigFile(process.log, process.config_path, process.settings, process.environment)
    await file.arm_at_start()
    following = asyncio.create_task(file.follow(process.reread))
    following.add_done_callback(lambda _: process.stop.set())  # it ends by a defect only: better a new control process
    try:
        await _serve(process, build_control, process.settings.server.control_port)
    finally:
        await ended([following])
    if not following.cancelled():
        following.result()


Build = Callable[[Accounts, Stopper, Settings, bytes, Mapping[str, str]], Server]


async def _serve(process: Process, build: Build, port: int) -> None:
    accounts = Accounts(process.log, process.clock, ahead=build is build_control)
    key = approval_key(process.settings, process.data_dir)
    files = PendingStops(process.data_dir) if process.data_dir is not None else None
    peers = Peers(process.log.bulletin, process.clock, Approvals(key))
    stopper = Stopper(process.log, accounts.shelf, files, peers.tell)
    await stopper.start()
    await accounts.start()
    server = build(accounts, stopper, process.settings, key, process.environment)
    port = await server.start(f"{process.settings.server.host}:{port}")
    is_supervised = LIFELINE_FD in process.environment
    peers.start(reachable_host(process.settings.server), port, others(process.settings.server, is_supervised))
    LOGGER.info("serving", host=process.settings.server.host, port=port)
    process.ready()
    await process.stop.wait()
    LOGGER.info("draining")
    await server.drain()
    await peers.aclose()
    await stopper.aclose()
    await accounts.aclose()


async def _worker(process: Process) -> None:
    from gateway.worker_process import work  # what it computes with is slow to import: the others go without

    await work(process)


_ROLES: dict[str, Callable[[Process], Awaitable[None]]] = {
    "gateway": _gateway,
    "control": _control,
    "worker": _worker,
}


def _log_to_stderr(role: str) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(role=role)


# --- a stop with every process dead -------------------------------------------------------------------------------


def stop_directly(
    store_url: str | None, data_dir: Path | None, scope: Scope, state: TradingState, reason: str
) -> StopOutcome:
    """Advance the control heads without any gateway: through `store_url`, or through the store of `data_dir`, which is
    started for it if it is dead. Raises StoreError. With a data directory an incomplete stop is left there, and whoever
    serves from it, now or when next started, carries it out and approves nothing before."""
    stop = PendingStop(
        uuid.uuid4().hex, scope, state, reason, "command line", OPERATOR_RANK, missing=partitions_of(scope)
    )
    if store_url is not None:
        return _stop_without_trying_on(store_url, stop)
    assert data_dir is not None, "a stop needs a store URL or a data directory"
    try:
        return _stop_in(data_dir, stop)
    except StoreError as error:
        problem = error.state_of_affairs if isinstance(error, StopIncomplete) else error
        raise StoreUnavailable(f"{problem}; {_left_behind(data_dir, stop)}") from error


def _stop_without_trying_on(store_url: str, stop: PendingStop) -> StopOutcome:
    try:
        return asyncio.run(_stop_at(store_url, stop))
    except StopIncomplete as incomplete:
        raise StoreUnavailable(
            f"{incomplete.state_of_affairs}; the others are stopped, nothing goes on trying: repeat the command"
        ) from incomplete


def _stop_in(data_dir: Path, stop: PendingStop) -> StopOutcome:
    socket = running_socket(data_dir)
    if socket is not None:
        return asyncio.run(_stop_at(f"unix://{socket}", stop))
    with DataDirLock(data_dir):
        store = EmbeddedStore.start(data_dir)
        try:
            return asyncio.run(_stop_at(f"unix://{store.socket_path}", stop))
        finally:
            store.stop()


def _left_behind(data_dir: Path, stop: PendingStop) -> str:
    try:
        path = PendingStops(data_dir).write(stop)
    except OSError as error:
        return f"and it could not be written down ({error}), so nothing goes on trying: repeat the command"
    return (
        f"it is written down in {path}: what serves from {data_dir}, now or when it is next started, approves nothing "
        "until it has carried it out"
    )


async def _stop_at(store_url: str, stop: PendingStop) -> StopOutcome:
    log = RedisLog(store_url, socket_timeout_s=2.0)
    stopper = Stopper(log, new_id=lambda: stop.id)
    try:
        return await stopper.stop(stop.scope, stop.state, stop.reason, stop.actor, stop.rank)
    finally:
        await stopper.aclose()
        await log.aclose()
