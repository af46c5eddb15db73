"""What people type: durations, positions, dates, and the order type that prices imply."""

from datetime import timedelta

import pytest
import typer

from gateway.cli.arguments import (
    OrderTypeName,
    ReportKind,
    SideName,
    TimeInForceName,
    TypedPosition,
    duration,
    order_type,
    position,
    session_date,
    wire_name,
)
from riskgateway.v1 import execution_pb2, order_pb2


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5h", timedelta(minutes=90)),
        (" 5M ", timedelta(minutes=5)),
        ("2d", timedelta(days=2)),
        ("45", timedelta(seconds=45)),
    ],
)
def test_durations_read_as_people_write_them(text: str, span: timedelta) -> None:
    assert duration(text) == span


@pytest.mark.parametrize("text", ["", "-5s", "5 apples", "1h30m", "s", "inf"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected something like 30s"):
        duration(text)


def test_positions_may_name_a_strategy_and_a_cost() -> None:
    assert position("AAPL=100") == TypedPosition("", "AAPL", 100.0, None)
    assert position("AAPL=-100@187.25") == TypedPosition("", "AAPL", -100.0, 187.25)
    assert position("MOMENTUM/BRK.B=5@410") == TypedPosition("MOMENTUM", "BRK.B", 5.0, 410.0)


@pytest.mark.parametrize("text", ["AAPL", "=5", "AAPL=", "AAPL=many", "AAPL=5@", "AAPL=5@cheap"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        position(text)


def test_a_date_is_a_date() -> None:
    assert session_date("2020-03-16") == "2020-03-16"
    with pytest.raises(typer.BadParameter, match="YYYY-MM-DD"):
        session_date("16.3.2020")


def test_the_prices_given_imply_the_order_type() -> None:
    assert order_type(None, None) is OrderTypeName.MARKET
    assert order_type(10.0, None) is OrderTypeName.LIMIT
    assert order_type(None, 9.0) is OrderTypeName.STOP
    assert order_type(10.0, 9.0) is OrderTypeName.STOP_LIMIT


def test_every_choice_has_its_name_in_the_contract() -> None:
    assert {wire_name("SIDE", side) for side in SideName} < set(order_pb2.Side.keys())
    assert {wire_name("ORDER_TYPE", kind) for kind in OrderTypeName} < set(order_pb2.OrderType.keys())
    assert {wire_name("TIME_IN_FORCE", tif) for tif in TimeInForceName} < set(order_pb2.TimeInForce.keys())
    assert {wire_name("EXECUTION_KIND", kind) for kind in ReportKind} < set(execution_pb2.ExecutionKind.keys())
