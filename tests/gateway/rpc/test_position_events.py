"""ReportAccountEvent for what happens to positions without an order: over the wire, once, and refused by name."""

import math
from typing import Any

import grpc
import pytest

from engine.account_events import (
    CorrectedFill,
    DividendPaidTold,
    DividendTold,
    PositionEvent,
    ReversalTold,
    SettlementTold,
    SplitTold,
)
from engine.records import SettlementKind
from gateway.rpc.convert.form import Invalid
from gateway.rpc.convert.requests import account_event_of
from riskgateway.v1 import account_pb2, execution_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT, Served, order

Event = risk_admin_pb2.ReportAccountEventRequest
NAN = math.nan


def told(**event: Any) -> Event:
    return Event(account=ACCOUNT, event_id="e1", **event)


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (
            {"split": risk_admin_pb2.Split(symbol="AAPL", new_units=2, old_units=1)},
            SplitTold("AAPL", 2, 1),
        ),
        (
            {"split": risk_admin_pb2.Split(symbol="AAPL", new_units=1, old_units=10, in_lieu_price=9.5)},
            SplitTold("AAPL", 1, 10, 9.5),
        ),
        (
            {"dividend": risk_admin_pb2.Dividend(symbol="AAPL", amount=0.5, accrued=True)},
            DividendTold("AAPL", 0.5, True),
        ),
        ({"dividend_paid": risk_admin_pb2.DividendPaid(accrual_event_id="d")}, DividendPaidTold("d")),
        (
            {
                "settlement": risk_admin_pb2.Settlement(
                    kind=risk_admin_pb2.SETTLEMENT_KIND_ASSIGNMENT, symbol="C", strategy="mm", quantity=3
                )
            },
            SettlementTold(SettlementKind.ASSIGNMENT, "C", "mm", 3.0),
        ),
        (
            {
                "settlement": risk_admin_pb2.Settlement(
                    kind=risk_admin_pb2.SETTLEMENT_KIND_EXPIRY, symbol="C", settlement_price=0.0
                )
            },
            SettlementTold(SettlementKind.EXPIRY, "C", settlement_price=0.0),
        ),
        ({"fill_reversal": risk_admin_pb2.FillReversal(execution_id="x")}, ReversalTold("x")),
        (
            {
                "fill_reversal": risk_admin_pb2.FillReversal(
                    execution_id="x", corrected=risk_admin_pb2.CorrectedFill(execution_id="y", quantity=2, price=9)
                )
            },
            ReversalTold("x", CorrectedFill("y", 2.0, 9.0)),
        ),
    ],
)
def test_an_event_arrives_as_it_was_told(event: dict[str, Any], found: PositionEvent) -> None:
    assert account_event_of(told(**event)) == (ACCOUNT, "e1", found)


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        ({"split": risk_admin_pb2.Split(symbol="", in_lieu_price=NAN)}, {"split.symbol", "split.in_lieu_price"}),
        ({"dividend": risk_admin_pb2.Dividend(symbol="A", amount=NAN)}, {"dividend.amount"}),
        ({"dividend": risk_admin_pb2.Dividend(symbol="A", amount=-1.0)}, {"dividend.amount"}),
        ({"dividend_paid": risk_admin_pb2.DividendPaid()}, {"dividend_paid.accrual_event_id"}),
        ({"settlement": risk_admin_pb2.Settlement(symbol="C")}, {"settlement.kind"}),
        (
            {
                "settlement": risk_admin_pb2.Settlement(
                    kind=risk_admin_pb2.SETTLEMENT_KIND_EXPIRY, symbol="C", quantity=-1.0, settlement_price=NAN
                )
            },
            {"settlement.quantity", "settlement.settlement_price"},
        ),
        (
            {
                "fill_reversal": risk_admin_pb2.FillReversal(
                    execution_id="x", corrected=risk_admin_pb2.CorrectedFill(quantity=NAN)
                )
            },
            {
                "fill_reversal.corrected.execution_id",
                "fill_reversal.corrected.quantity",
                "fill_reversal.corrected.price",
            },
        ),
        ({}, {"event"}),
    ],
)
def test_all_that_is_wrong_is_named_at_once(event: dict[str, Any], wrong: set[str]) -> None:
    with pytest.raises(Invalid) as refused:
        account_event_of(told(**event))

    assert {field for field, _ in refused.value.violations} == wrong


async def bought(gateway: Served, quantity: float = 25.0) -> None:
    asked = risk_gateway_pb2.CheckOrderRequest(order=order("o1", quantity))
    response = await gateway.gateway.CheckOrder(asked)
    assert response.allowed
    fill = execution_pb2.Execution(
        account=ACCOUNT,
        execution_id="x1",
        client_order_id="o1",
        kind=execution_pb2.EXECUTION_KIND_FILL,
        last_quantity=quantity,
        last_price=100.0,
        cumulative_quantity=quantity,
    )
    await gateway.gateway.ReportExecution(risk_gateway_pb2.ReportExecutionRequest(executions=[fill]))


async def state_of(gateway: Served) -> account_pb2.RiskState:
    return await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))


async def test_a_split_and_an_accrued_dividend_are_recorded_once(gateway: Served, control: Served) -> None:
    await bought(gateway)
    split = told(split=risk_admin_pb2.Split(symbol="AAPL", new_units=1, old_units=10))
    owed = Event(
        account=ACCOUNT, event_id="d1", dividend=risk_admin_pb2.Dividend(symbol="AAPL", amount=3.0, accrued=True)
    )

    first, again = await control.admin.ReportAccountEvent(split), await control.admin.ReportAccountEvent(split)
    await control.admin.ReportAccountEvent(owed)

    assert (first.duplicate, again.duplicate) == (False, True)
    state = await state_of(gateway)
    (position,) = state.positions
    assert (position.quantity, state.accrued_dividends) == (2.0, 6.0)
    assert state.equity == pytest.approx(1_000_000.0 + 6.0)
    assert [cash.amount for cash in state.cash] == pytest.approx([1_000_000.0 - 2_500.0 + 500.0])


async def test_a_bust_takes_the_fill_back(gateway: Served, control: Served) -> None:
    await bought(gateway)

    await control.admin.ReportAccountEvent(told(fill_reversal=risk_admin_pb2.FillReversal(execution_id="x1")))

    state = await state_of(gateway)
    assert [cash.amount for cash in state.cash] == [1_000_000.0]
    assert state.equity == 1_000_000.0


@pytest.mark.parametrize(
    ("event", "code", "named"),
    [
        (
            {"fill_reversal": risk_admin_pb2.FillReversal(execution_id="never")},
            grpc.StatusCode.FAILED_PRECONDITION,
            "fill_reversal.execution_id",
        ),
        (
            {"split": risk_admin_pb2.Split(symbol="AAPL", new_units=0, old_units=1)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "split.new_units",
        ),
        (
            {"split": risk_admin_pb2.Split(symbol="MSFT", new_units=2, old_units=1)},
            grpc.StatusCode.FAILED_PRECONDITION,
            "split.symbol",
        ),
    ],
)
async def test_what_the_books_contradict_is_refused_by_name(
    gateway: Served, control: Served, event: dict[str, Any], code: grpc.StatusCode, named: str
) -> None:
    await bought(gateway)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.ReportAccountEvent(told(**event))

    assert refused.value.code() is code
    assert named in (refused.value.details() or "")
