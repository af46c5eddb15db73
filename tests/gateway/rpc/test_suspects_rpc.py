"""An approval that nobody reports, as StreamRiskState tells of it, and the event by which an account lets such go."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gateway.log.account_log import GENESIS
from gateway.log.memory import MemoryLog
from riskgateway.v1 import order_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT, UNHURRIED, Served, backend_over, busy, opening, order, served

PATIENCE_S = 20.0
SECOND_US = 1_000_000
Updates = AsyncIterator[risk_gateway_pb2.RiskStateUpdate]


def short_lived(name: str) -> risk_gateway_pb2.CheckOrderRequest:
    asked = order(name)
    asked.valid_for.CopyFrom(Duration(seconds=1))
    return risk_gateway_pb2.CheckOrderRequest(order=asked)


def updates_of(gateway: Served) -> Updates:
    request = risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT])
    return gateway.gateway.StreamRiskState(request).__aiter__()


async def next_alert(updates: Updates) -> risk_gateway_pb2.Alert:
    async with asyncio.timeout(PATIENCE_S):
        async for update in updates:
            if update.WhichOneof("update") == "alert":
                return update.alert
    raise AssertionError("the stream has ended")


async def test_time_alone_makes_an_approval_suspect_and_that_is_told_once(
    gateway: Served, store_clock: list[int]
) -> None:
    await gateway.gateway.CheckOrder(short_lived("first"))
    updates = updates_of(gateway)
    await anext(updates)

    store_clock[0] += SECOND_US + 1
    first = await next_alert(updates)
    await gateway.gateway.CheckOrder(short_lived("second"))
    store_clock[0] += SECOND_US + 1
    second = await next_alert(updates)

    assert (first.kind, first.account, first.scope) == ("order_suspect", ACCOUNT, "symbol:AAPL")
    assert first.message.startswith("first, approved to buy 100 AAPL, was never reported")
    assert (first.alert_id, second.alert_id) == (f"suspect {ACCOUNT} first", f"suspect {ACCOUNT} second")
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert {o.state for o in state.open_orders} == {order_pb2.OPEN_ORDER_STATE_SUSPECT}


async def test_a_new_reader_hears_of_the_approvals_that_are_suspect(gateway: Served, store_clock: list[int]) -> None:
    await gateway.gateway.CheckOrder(short_lived("first"))
    store_clock[0] += SECOND_US + 1

    assert (await next_alert(updates_of(gateway))).alert_id == f"suspect {ACCOUNT} first"


async def test_time_makes_an_approval_suspect_however_busy_other_accounts_are(
    memory_log: MemoryLog, gateway: Served, control: Served, store_clock: list[int], tmp_path: Path
) -> None:
    await control.admin.ReportAccountEvent(opening("BETA"))
    asked = short_lived("quiet")
    asked.order.account = "BETA"
    await gateway.gateway.CheckOrder(asked)

    async with (
        backend_over(memory_log, store_clock, pace=UNHURRIED) as backend,
        served(backend, tmp_path) as here,
        busy(here),
    ):
        updates = here.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest()).__aiter__()
        for _ in range(20):  # also what was news of both when they were loaded
            await anext(updates)
        store_clock[0] += SECOND_US + 1
        alert = await next_alert(updates)

    assert (alert.kind, alert.account) == ("order_suspect", "BETA")


async def test_an_account_that_can_not_be_read_takes_no_state_from_the_others(
    memory_log: MemoryLog, gateway: Served
) -> None:
    await memory_log.append("A BROKEN ONE", GENESIS, None, [b"?"], 0, 0)
    updates = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest()).__aiter__()

    assert (await anext(updates)).risk_state.account == ACCOUNT
    async with asyncio.timeout(PATIENCE_S):
        assert [(await anext(updates)).WhichOneof("update") for _ in range(3)] == ["heartbeat"] * 3


def event(event_id: str, delay: Duration | None) -> risk_admin_pb2.ReportAccountEventRequest:
    told = risk_admin_pb2.ReleaseDelay(delay=delay)
    return risk_admin_pb2.ReportAccountEventRequest(account=ACCOUNT, event_id=event_id, release_delay=told)


async def delay_of(gateway: Served) -> int | None:
    accounts = gateway.backend.accounts
    return (await accounts.read(ACCOUNT, accounts.clock.now_us() + SECOND_US)).state.release_delay_us


async def test_a_release_delay_is_an_account_event(gateway: Served, control: Served) -> None:
    first = await control.admin.ReportAccountEvent(event("set", Duration(seconds=90)))
    again = await control.admin.ReportAccountEvent(event("set", Duration(seconds=5)))

    assert (first.duplicate, again.duplicate, await delay_of(gateway)) == (False, True, 90 * SECOND_US)
    await control.admin.ReportAccountEvent(event("unset", None))
    assert await delay_of(gateway) is None


@pytest.mark.parametrize("delay", [Duration(), Duration(seconds=-1), Duration(seconds=367 * 86_400)])
async def test_a_release_delay_that_is_no_span_is_refused_by_name(control: Served, delay: Duration) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.ReportAccountEvent(event("set", delay))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "release_delay.delay" in (refused.value.details() or "")
