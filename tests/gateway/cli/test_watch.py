"""`watch` against a real gateway: what it hears, what it does when the gateway goes and comes, and how it ends."""

import asyncio
import contextlib
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.cli.exits import ExitCode, Failure
from gateway.cli.watch import Watcher
from gateway.rpc.backend import Backend
from riskgateway.v1 import decision_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT, Served, opening, order, served

PATIENCE_S = 20.0
LEAVE_ALTERNATE_SCREEN, SHOW_CURSOR = b"\x1b[?1049l", b"\x1b[?25h"


async def until(watcher: Watcher, there: Callable[[], bool]) -> None:
    """Returns when the board is there; it is looked at whenever something changed."""
    async with asyncio.timeout(PATIENCE_S):
        while not there():
            await watcher.woken.wait()
            watcher.woken.clear()


@contextlib.asynccontextmanager
async def watching(address: str, *accounts: str) -> AsyncIterator[Watcher]:
    watcher = Watcher(address, "", accounts)
    following = asyncio.create_task(watcher.follow())
    try:
        yield watcher
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def checked(gateway: Served, name: str, quantity: float = 100.0) -> None:
    await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order(name, quantity)))


def latest(watcher: Watcher) -> list[str]:
    state = watcher.board.states.get(ACCOUNT)
    return [recent.client_order_id for recent in state.recent_decisions] if state is not None else []


async def test_a_decision_shows_as_it_is_made_refusals_with_their_reason(gateway: Served) -> None:
    async with watching(gateway.address, ACCOUNT) as watcher:
        await until(watcher, lambda: ACCOUNT in watcher.board.states)
        await checked(gateway, "small")
        await checked(gateway, "huge", 5_000.0)
        await until(watcher, lambda: latest(watcher) == ["small", "huge"])

    small, huge = watcher.board.states[ACCOUNT].recent_decisions
    assert (small.action, small.allowed_quantity) == (decision_pb2.ACTION_ALLOW, 100.0)
    assert (huge.action, huge.reason, huge.allowed_quantity) == (
        decision_pb2.ACTION_REJECT,
        decision_pb2.REASON_ORDER_QUANTITY,
        0.0,
    )
    assert (huge.strategy, huge.quantity, huge.limit_price) == ("momentum", 5_000.0, 100.0)


async def test_it_follows_a_gateway_that_goes_and_comes_back(gateway: Served, backend: Backend, folder: Path) -> None:
    async with watching(gateway.address, ACCOUNT) as watcher:
        await until(watcher, lambda: ACCOUNT in watcher.board.states)
        await gateway.server.drain(0.0)
        await until(watcher, lambda: watcher.board.problem != "")
        backend.draining.clear()
        async with served(backend, folder) as again:
            await until(watcher, lambda: watcher.board.problem == "")
            await checked(again, "after")
            await until(watcher, lambda: latest(watcher) == ["after"])


async def test_an_account_that_nobody_opened_ends_it(gateway: Served) -> None:
    watcher = Watcher(gateway.address, "", ("NOBODY",))

    with pytest.raises(Failure) as refused:
        await watcher.follow()

    assert refused.value.exit_code is ExitCode.UNKNOWN_ACCOUNT


@pytest.mark.parametrize("accounts", [(), (ACCOUNT,)], ids=["all", "named"])
async def test_one_screen_is_complete_when_each_account_was_heard_of(
    gateway: Served, accounts: tuple[str, ...]
) -> None:
    watcher = Watcher(gateway.address, "", accounts)

    await watcher.first_states()

    assert set(watcher.board.states) == {ACCOUNT}


async def test_one_screen_has_the_accounts_that_come_after_an_alert_and_the_alert(
    gateway: Served, backend: Backend, folder: Path, store_clock: list[int]
) -> None:
    async with served(backend, folder, control=True) as control:
        await control.admin.ReportAccountEvent(opening("BETA"))
    backend.draining.clear()
    short = order("forgotten", 100.0)
    short.valid_for.FromSeconds(1)
    await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=short))
    store_clock[0] += 2_000_000
    everything, named = Watcher(gateway.address, "", ()), Watcher(gateway.address, "", (ACCOUNT, "NOBODY"))

    await everything.first_states()
    with pytest.raises(Failure, match="'NOBODY' is not open"):
        await named.first_states()

    assert set(everything.board.states) == {ACCOUNT, "BETA"}
    assert [alert.kind for alert in everything.board.alerts] == ["order_suspect"]


async def test_once_prints_the_screen_and_ends_well(gateway: Served) -> None:
    await checked(gateway, "small")

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "watch", ACCOUNT, "--once", "--address", gateway.address),
        stdout=asyncio.subprocess.PIPE,
    )
    printed = (await asyncio.wait_for(process.communicate(), PATIENCE_S))[0].decode()

    assert process.returncode == 0
    assert "✔ ACTIVE  ALPHA" in printed
    assert "✔ ALLOW  BUY 100 AAPL limit 100 for momentum" in printed
    assert "Open orders: 1" in printed


def test_once_says_that_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "--once", "--address", "unix:/nowhere/at/all"]) == ExitCode.UNAVAILABLE
    assert "unix:/nowhere/at/all" in capsys.readouterr().err


async def started(address: str, output: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "watch", ACCOUNT, "--address", address),
        stdin=output,
        stdout=output,
        stderr=output,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    )


async def read_until(stream: asyncio.StreamReader, words: bytes) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        seen = b""
        while words not in seen:
            more = await stream.read(65_536)
            assert more, seen
            seen += more
        return seen


@contextlib.asynccontextmanager
async def terminal() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """What a program writes to a terminal of its own, and that terminal."""
    ours, theirs = pty.openpty()
    stream = asyncio.StreamReader()
    reading, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        yield stream, theirs
    finally:
        reading.close()
        os.close(theirs)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_and_gives_the_terminal_back(gateway: Served, number: signal.Signals, code: int) -> None:
    async with terminal() as (stream, theirs):
        process = await started(gateway.address, theirs)
        try:
            await read_until(stream, ACCOUNT.encode())
            await checked(gateway, "small")
            await read_until(stream, b"BUY 100 AAPL")
            process.send_signal(number)
            last = await read_until(stream, LEAVE_ALTERNATE_SCREEN)
            if SHOW_CURSOR not in last:
                await read_until(stream, SHOW_CURSOR)
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == code
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def test_in_a_pipe_each_change_is_a_line(gateway: Served) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "watch", "--address", gateway.address), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        seen = await read_until(process.stdout, b"open orders\n")
        await checked(gateway, "huge", 5_000.0)
        seen += await read_until(process.stdout, b"limit 1000\n")
        process.send_signal(signal.SIGINT)
        seen += await process.stdout.read()
        code = await asyncio.wait_for(process.wait(), PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    lines = seen.decode().splitlines()
    assert lines[0] == f"✔ connected to {gateway.address}"
    assert "ALPHA  ✔ ACTIVE  session 2023-11-15 · equity 1,000,000 USD" in lines[1]
    assert "✖ REJECT  BUY 5,000 AAPL limit 100 for ALPHA/momentum · ORDER_QUANTITY" in lines[2]
    assert b"\x1b" not in seen
    assert code == 0
