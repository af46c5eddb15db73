"""What happens to orders outside the happy path, told over gRPC, with kill -9 in between: nothing of it is forgotten.

Fills that no reservation covers are booked, flagged and latch REDUCE_ONLY; a replace holds what either order can fill.
"""

import asyncio

import pytest

from riskgateway.v1 import decision_pb2, execution_pb2, order_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.e2e.conftest import MakeMachine, account_of
from tests.e2e.desk import REDUCE_ONLY, SELL, TIMEOUT_S, Desk, desk, instrument
from tests.e2e.machine import ROLES, STORE, SUPERVISOR, Machine

FLAGS = {
    "unknown": risk_gateway_pb2.EXECUTION_FLAG_ORDER_UNKNOWN,
    "late": risk_gateway_pb2.EXECUTION_FLAG_LATE,
    "overfill": risk_gateway_pb2.EXECUTION_FLAG_OVERFILL,
}
KILLED: dict[str, tuple[str, ...]] = {"unknown": ("gateway",), "late": (STORE,), "overfill": ("gateway", STORE)}
"""Few: five deaths within a minute end a machine."""


async def told(mine: Desk, execution_id: str, client_order_id: str, **said: object) -> risk_gateway_pb2.ExecutionResult:
    """A report under an id of its own; a fill of KO unless told otherwise."""
    fill = {"kind": execution_pb2.EXECUTION_KIND_FILL, "last_price": 63.5, "symbol": "KO", "side": order_pb2.SIDE_BUY}
    execution = execution_pb2.Execution(
        account=mine.account,
        execution_id=execution_id,
        client_order_id=client_order_id,
        **{**fill, **said},  # type: ignore[arg-type]
    )
    request = risk_gateway_pb2.ReportExecutionRequest(executions=[execution])
    reply = await mine.gateway.ReportExecution(request, timeout=TIMEOUT_S, wait_for_ready=True)
    (result,) = reply.results
    return result


async def restart(machine: Machine, *victims: str) -> None:
    """kill -9, and wait for what takes their place."""
    killed = machine.kill(*victims)
    for name, pid in zip(victims, killed, strict=True):
        await asyncio.to_thread(machine.await_successor, name, pid)
    await asyncio.to_thread(machine.await_ready)


async def position(mine: Desk) -> tuple[float, float, float]:
    """Of KO: held, open to buy, open to sell."""
    held = [p for p in (await mine.state()).positions if p.symbol == "KO"]
    return (held[0].quantity, held[0].open_buy_quantity, held[0].open_sell_quantity) if held else (0.0, 0.0, 0.0)


@pytest.mark.parametrize("stray", FLAGS)
async def test_a_fill_that_nothing_covers_is_booked_flagged_and_latched_for_good(machine: Machine, stray: str) -> None:
    async with desk(machine, account_of(f"::stray-{stray}")) as mine:
        await mine.open()
        await mine.await_model()
        assert not (await mine.check(mine.order("KO", quantity=5000))).allowed  # and now it has heard of KO
        order = mine.order("KO", quantity=100)
        if stray != "unknown":
            assert (await mine.check(order)).allowed
        if stray == "late":
            await mine.cancel(order.client_order_id)

        booked = await told(mine, "stray", order.client_order_id, last_quantity=120.0)
        await restart(machine, *KILLED[stray])
        again = await told(mine, "stray", order.client_order_id, last_quantity=120.0)

        assert (list(booked.flags), booked.duplicate) == ([FLAGS[stray]], False)
        assert again.duplicate
        assert await position(mine) == (120.0, 0.0, 0.0)
        state = await mine.state()
        assert state.trading_state == REDUCE_ONLY and "stray" in state.causes[0].reason
        await mine.mark(KO=63.5)
        assert (await mine.check(mine.order("KO", quantity=1))).reason == decision_pb2.REASON_REDUCE_ONLY
        assert (await mine.check(mine.order("KO", SELL, quantity=120))).allowed
        await mine.resume()
        assert (await mine.check(mine.order("KO", quantity=1))).reason == decision_pb2.REASON_NONE


@pytest.mark.parametrize(("atomic", "held"), [(True, 120.0), (False, 190.0)])
async def test_a_replace_is_held_through_the_death_of_everything(
    make_machine: MakeMachine, atomic: bool, held: float
) -> None:
    machine = make_machine()
    async with desk(machine, "REPLACING") as mine:
        await mine.open()
        told_of = instrument("KO")
        told_of.replaces_atomically = atomic
        request = risk_admin_pb2.RegisterInstrumentsRequest(instruments=[told_of])
        await mine.admin.RegisterInstruments(request, timeout=TIMEOUT_S)
        old = mine.order("KO", quantity=100)
        new = mine.order("KO", quantity=150, replaces_client_order_id=old.client_order_id)
        await mine.await_model()
        assert (await mine.check(old)).allowed
        await told(mine, "part", old.client_order_id, last_quantity=30.0, cumulative_quantity=30.0)
        assert (await mine.check(new)).allowed_quantity == 150.0
        assert await position(mine) == (30.0, held, 0.0)

        machine.kill(SUPERVISOR, STORE, *ROLES)
        await asyncio.to_thread(machine.await_end)
        await asyncio.to_thread(machine.start)

        assert await position(mine) == (30.0, held, 0.0)
        await told(mine, "gone", old.client_order_id, kind=execution_pb2.EXECUTION_KIND_CANCELLED)
        assert await position(mine) == (30.0, 120.0, 0.0)
        (left,) = (await mine.state()).open_orders
        assert (left.client_order_id, left.leaves_quantity) == (new.client_order_id, 120.0)
        cumulative = 150.0 if atomic else 120.0
        await told(mine, "rest", new.client_order_id, last_quantity=120.0, cumulative_quantity=cumulative)
        assert await position(mine) == (150.0, 0.0, 0.0)
