"""A stop that the store did not hear: it outlives the processes that were told, and reaches those that were not.

On a whole machine: the store frozen, everything killed, a control process behind a wire that is cut, a damaged file.
"""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from engine.control import decode_control
from gateway.log.redis import RedisLog
from riskgateway.v1 import decision_pb2, risk_gateway_pb2, risk_gateway_pb2_grpc
from tests.e2e.conftest import MakeMachine
from tests.e2e.desk import HALTED, TIMEOUT_S, Desk, desk
from tests.e2e.machine import CHANNEL_OPTIONS, ROLES, STORE, SUPERVISOR, Machine
from tests.e2e.wire import Wire, wire

if TYPE_CHECKING:
    from riskgateway.v1.risk_gateway_pb2_grpc import RiskGatewayAsyncStub

LEFT_BEHIND_S = 5.0


def pending(machine: Machine) -> list[str]:
    return sorted(path.suffix for path in machine.data_dir.glob("stops/*"))


async def gone(machine: Machine) -> None:
    """Returns when no stop is written down any more."""
    async with asyncio.timeout(LEFT_BEHIND_S):
        while pending(machine):  # noqa: ASYNC110  - another process removes it and tells nobody
            await asyncio.sleep(0.02)


async def unheard(mine: Desk) -> str:
    """Stop everything, and what the answer says of it."""
    with pytest.raises(grpc.aio.AioRpcError) as unconfirmed:
        await mine.stop(account="", reason="nobody hears")
    assert unconfirmed.value.code() is grpc.StatusCode.UNAVAILABLE
    return unconfirmed.value.details() or ""


async def assert_stopped(mine: Desk, reason: str) -> None:
    verdict = await mine.insist(mine.order())
    assert verdict.reason == decision_pb2.REASON_TRADING_HALTED
    state = await mine.state()
    assert state.trading_state == HALTED
    assert reason in state.causes[0].reason


@pytest.mark.parametrize("victims", [("control",), (SUPERVISOR, STORE, *ROLES)], ids=["control", "everything"])
async def test_a_stop_that_the_store_did_not_hear_survives_the_death_of_who_was_told(
    make_machine: MakeMachine, victims: tuple[str, ...]
) -> None:
    machine = make_machine()
    async with desk(machine, "UNHEARD") as mine:
        await mine.open()
        await mine.await_model()
        assert (await mine.check(mine.order())).allowed

        machine.send(STORE, signal.SIGSTOP)
        said = await unheard(mine)
        assert pending(machine) == [".json"]
        killed = machine.kill(*victims)
        if victims == ("control",):
            with pytest.raises(grpc.aio.AioRpcError):
                await mine.check(mine.order(), timeout_s=0.5)
            machine.send(STORE, signal.SIGCONT)
            await asyncio.to_thread(machine.await_successor, "control", *killed)
            await asyncio.to_thread(machine.await_ready)
        else:
            await asyncio.to_thread(machine.await_end)
            assert pending(machine) == [".json"]
            await asyncio.to_thread(machine.start)

        await assert_stopped(mine, "nobody hears")
        await gone(machine)
        await mine.resume(account="")
        assert (await mine.insist(mine.order())).allowed
    assert "told 1 of 1 other gateways directly; it is written down" in said


async def test_a_damaged_file_approves_nothing_and_says_what_to_do(make_machine: MakeMachine) -> None:
    machine = make_machine()
    async with desk(machine, "DAMAGED") as mine:
        await mine.open()
        await mine.await_model()
        assert (await mine.check(mine.order())).allowed
        machine.ask_to_end()
        await asyncio.to_thread(machine.await_end)

        damaged = machine.data_dir / "stops" / "0123.json"
        await asyncio.to_thread(damaged.parent.mkdir)
        await asyncio.to_thread(damaged.write_bytes, b'{"id":"0123","sco')
        await asyncio.to_thread(machine.start)

        await assert_stopped(mine, f"{damaged} can't be read")
        await gone_but_kept(machine)
        assert "EVERYTHING is stopped instead. Say again with StopAll" in machine.logs()
        assert str(damaged) in machine.logs()


async def gone_but_kept(machine: Machine) -> None:
    async with asyncio.timeout(LEFT_BEHIND_S):
        while pending(machine) != [".damaged"]:  # noqa: ASYNC110  - another process renames it and tells nobody
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def control_behind_a_wire(machine: Machine) -> AsyncIterator["tuple[Wire, RiskGatewayAsyncStub]"]:
    """A second control process, as on another machine: a data directory of its own and a wire to the store."""
    own = machine.data_dir.parent / "elsewhere"
    await asyncio.to_thread(own.mkdir)
    await asyncio.to_thread(shutil.copy, machine.data_dir / "approval.key", own)
    socket = machine.runtime_dir / "wire.sock"
    async with wire(machine.socket_path, socket) as between:
        address = await asyncio.to_thread(machine.add_control, own, socket)
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            stub: RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(channel)
            yield between, stub


async def test_a_control_process_cut_off_from_the_store_still_stops_those_that_are_not(
    make_machine: MakeMachine,
) -> None:
    machine = make_machine()
    async with desk(machine, "TOLD") as mine, control_behind_a_wire(machine) as (between, elsewhere):
        await mine.open()
        await mine.await_model()
        assert (await mine.check(mine.order())).allowed
        between.cut()

        with pytest.raises(grpc.aio.AioRpcError) as unconfirmed:
            request = risk_gateway_pb2.StopAllRequest(reason="cut off")
            await elsewhere.StopAll(request, timeout=TIMEOUT_S)
        refused = await mine.insist(mine.order())

        assert refused.reason == decision_pb2.REASON_TRADING_HALTED
        assert "told 2 of 2 other gateways directly" in (unconfirmed.value.details() or "")
        assert await stops_in(machine.socket_path) == {"cut off"}
        between.mend()
        await mine.resume(account="")
        await gone_from(machine.data_dir.parent / "elsewhere")
        assert (await mine.insist(mine.order())).allowed


async def gone_from(data_dir: Path) -> None:
    async with asyncio.timeout(LEFT_BEHIND_S):
        while list(data_dir.glob("stops/*")):  # noqa: ASYNC110, ASYNC240  - another process removes it, and tells nobody
            await asyncio.sleep(0.02)


async def stops_in(socket: Path) -> set[str]:
    """The reasons of the stops that the store has in force in every partition."""
    log = RedisLog(socket, socket_timeout_s=5.0)
    try:
        controls = [decode_control(stored.state) for stored in await log.read_controls()]
    finally:
        await log.aclose()
    return set.intersection(*({stop.reason for stop in control.stops} for control in controls))


async def test_a_stop_into_a_frozen_store_is_carried_out_by_what_serves(make_machine: MakeMachine) -> None:
    machine = make_machine()
    async with desk(machine, "FROZEN") as mine:
        await mine.open()
        await mine.await_model()
        assert (await mine.check(mine.order())).allowed

        machine.send(STORE, signal.SIGSTOP)
        said = await asyncio.to_thread(machine.run, "stop", "--data-dir", str(machine.data_dir), "--reason", "by hand")
        machine.send(STORE, signal.SIGCONT)
        await gone(machine)

        assert said.returncode == 69
        assert "approves nothing until it has carried it out" in " ".join(said.stderr.split())
        await assert_stopped(mine, "by hand")
