"""CheckOrders: a basket of one account in one step, and orders of several accounts, each decided by its own."""

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rich

from riskgateway.v1 import decision_pb2, order_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT, Served, opening, order

BETA = "BETA"


@pytest.fixture
async def both(gateway: Served, control: Served) -> Served:
    """The gateway, with a second account open."""
    await control.admin.ReportAccountEvent(opening(BETA))
    await control.admin.ReportAccountEvent(
        risk_admin_pb2.ReportAccountEventRequest(
            account=BETA, event_id="session", session_opened=risk_admin_pb2.SessionOpened(session_date="2023-11-15")
        )
    )
    return gateway


def asking(*orders: order_pb2.Order, all_or_none: bool = False) -> risk_gateway_pb2.CheckOrdersRequest:
    return risk_gateway_pb2.CheckOrdersRequest(orders=orders, all_or_none=all_or_none)


async def open_orders(gateway: Served, account: str) -> list[str]:
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=account))
    return sorted(open_order.client_order_id for open_order in state.open_orders)


async def test_orders_of_several_accounts_are_each_decided_by_their_own(both: Served) -> None:
    """300 and 300 are too many for ALPHA's 500; BETA has 500 of its own, and its own name for an order "A"."""
    orders = [order("A", 300.0), order("A", 300.0, account=BETA), order("B", 300.0), order("C", 100.0, account=BETA)]

    answer = await both.gateway.CheckOrders(asking(*orders))

    assert [one.client_order_id for one in answer.responses] == ["A", "A", "B", "C"]
    assert [one.allowed for one in answer.responses] == [True, True, False, True]
    assert not answer.all_allowed
    assert (await open_orders(both, ACCOUNT), await open_orders(both, BETA)) == (["A"], ["A", "C"])


async def test_an_unknown_account_among_them_is_named_and_nothing_is_decided(both: Served) -> None:
    call = both.gateway.CheckOrders(asking(order("A"), order("B", account="NOBODY"), order("C", account=BETA)))
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await call

    status, info = await rich.from_call(call), error_details_pb2.ErrorInfo()
    assert status is not None and any(detail.Unpack(info) for detail in status.details)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert dict(info.metadata) == {"account": "NOBODY"}
    assert (await open_orders(both, ACCOUNT), await open_orders(both, BETA)) == ([], [])


async def test_an_id_that_is_taken_in_one_account_decides_nothing_in_the_others(both: Served) -> None:
    await both.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order("A", 1.0, account=BETA)))

    with pytest.raises(grpc.aio.AioRpcError) as taken:
        await both.gateway.CheckOrders(asking(order("B"), order("A", 2.0, account=BETA)))

    assert taken.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert await open_orders(both, ACCOUNT) == []


async def test_an_order_that_is_malformed_decides_nothing_and_is_named(both: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as malformed:
        await both.gateway.CheckOrders(asking(order("A"), order("B", -1.0, account=BETA)))

    assert malformed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "orders[1].quantity" in (malformed.value.details() or "")
    assert await open_orders(both, ACCOUNT) == []


async def test_all_or_none_is_of_one_account(both: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await both.gateway.CheckOrders(asking(order("A"), order("B", account=BETA), all_or_none=True))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "orders[1].account" in (refused.value.details() or "")


async def test_a_stop_of_one_account_is_answered_and_the_other_trades_on(both: Served, control: Served) -> None:
    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=BETA))

    answer = await both.gateway.CheckOrders(asking(order("A"), order("B", account=BETA)))

    alpha, beta = answer.responses
    assert (alpha.allowed, beta.allowed) == (True, False)
    assert beta.reason == decision_pb2.REASON_TRADING_HALTED


async def test_the_same_call_again_gets_the_same_answers(both: Served) -> None:
    request = asking(order("A", 300.0), order("A", 300.0, account=BETA), order("B", 300.0))

    first, again = [await both.gateway.CheckOrders(request) for _ in range(2)]

    assert [one.replayed for one in again.responses] == [True, True, True]
    assert [one.sequence for one in again.responses] == [one.sequence for one in first.responses]
    assert [one.allowed for one in again.responses] == [True, True, False]
