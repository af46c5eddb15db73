"""Requests to engine values: any message is either usable or Invalid, and nothing that is not finite gets through."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from engine.control import Scope, TradingState
from engine.facts import Quote
from engine.instrument import AssetClass, MarketPhase, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.order import Action, Order, OrderType, Reason, Side
from gateway.rpc.convert import requests, responses
from gateway.rpc.convert.form import Invalid
from riskgateway.v1 import (
    control_pb2,
    decision_pb2,
    execution_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
)
from tests.gateway.rpc.serving import order

NOW_US = 1_700_000_000_000_000
doubles = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1.0, 100.0, 0.1, 5e-324, 1e308])
names = st.sampled_from(["ALPHA", "", "*", " x", "a\nb", "é", "x" * 65]) | st.text(max_size=8)
numbers = st.integers(-2, 9)
durations = st.builds(Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
timestamps = st.builds(Timestamp, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))


@st.composite
def orders(draw: st.DrawFn) -> order_pb2.Order:
    return order_pb2.Order(
        account=draw(names),
        strategy=draw(names),
        client_order_id=draw(names),
        symbol=draw(names),
        side=draw(numbers),  # type: ignore[arg-type]  # enums are open on the wire
        quantity=draw(doubles),
        order_type=draw(numbers),  # type: ignore[arg-type]
        limit_price=draw(st.none() | doubles),
        stop_price=draw(st.none() | doubles),
        time_in_force=draw(numbers),  # type: ignore[arg-type]
        replaces_client_order_id=draw(names),
        valid_for=draw(st.none() | durations),
    )


@given(orders())
def test_any_order_is_usable_or_invalid(message: order_pb2.Order) -> None:
    try:
        made = requests.order_of(risk_gateway_pb2.CheckOrderRequest(order=message))
    except Invalid as error:
        assert error.violations
        return
    assert_usable(made)


def assert_usable(made: Order) -> None:
    for value in (made.quantity, made.limit_price, made.stop_price):
        assert value is None or (math.isfinite(value) and value > 0)
    assert (made.limit_price is not None) == (made.order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT))
    assert (made.stop_price is not None) == (made.order_type in (OrderType.STOP, OrderType.STOP_LIMIT))
    assert made.account and made.client_order_id and made.symbol
    assert made.valid_for_us is None or made.valid_for_us > 0


@given(st.binary(max_size=200))
def test_any_bytes_that_parse_are_usable_or_invalid(data: bytes) -> None:
    request = risk_admin_pb2.ReconcilePositionsRequest()
    try:
        request.ParseFromString(data)
    except Exception as error:  # noqa: BLE001  - which of protobuf's runtimes parses decides its type
        assert type(error).__name__ == "DecodeError"
        return
    with pytest.raises(Invalid):
        requests.reconciliation_of(request, NOW_US)
        raise Invalid([("none", "it was usable")])


@given(
    st.builds(
        execution_pb2.Execution,
        account=names,
        execution_id=names,
        client_order_id=names,
        kind=numbers,
        symbol=names,
        side=numbers,
        last_quantity=doubles,
        last_price=doubles,
        cumulative_quantity=doubles,
        leaves_quantity=doubles,
        fee=doubles,
        fee_currency=names,
        execution_time=timestamps,
    )
)
def test_any_execution_is_usable_or_invalid(message: execution_pb2.Execution) -> None:
    try:
        (made,) = requests.executions_of(risk_gateway_pb2.ReportExecutionRequest(executions=[message]))
    except Invalid:
        return
    assert all(map(math.isfinite, (made.last_quantity, made.last_price, made.cumulative_quantity, made.fee)))
    assert made.kind != "fill" or (made.last_quantity > 0 and made.last_price > 0)


@given(
    st.builds(
        instrument_pb2.Mark,
        symbol=names,
        bid=st.none() | doubles,
        ask=st.none() | doubles,
        last=st.none() | doubles,
        mark_time=st.none() | timestamps,
    )
)
def test_any_mark_is_a_quote_or_a_refusal(message: instrument_pb2.Mark) -> None:
    made = requests.quote_of(message, NOW_US)

    if isinstance(made, Quote):
        assert made.mark > 0 and math.isfinite(made.mark) and math.isfinite(1.0 / made.mark)


@given(
    st.builds(
        instrument_pb2.Instrument,
        symbol=names,
        asset_class=numbers,
        currency=st.sampled_from(["USD", "usd", "", "U$D"]),
        lot_size=doubles,
        tick_size=doubles,
        multiplier=st.none() | doubles,
        duration=doubles,
        factors=st.dictionaries(names, doubles, max_size=2),
        expiry_date=st.sampled_from(["", "2026-12-18", "20261218", "2026-02-30", "x"]),
        quantity_min=doubles,
        underlying=names,
        option=st.none()
        | st.builds(
            instrument_pb2.OptionTerms,
            strike=doubles,
            right=numbers,
            style=numbers,
            model=numbers,
            dividend_yield=doubles,
            rate=st.none() | doubles,
            volatility=st.none() | doubles,
        ),
    )
)
def test_any_instrument_is_usable_or_invalid(message: instrument_pb2.Instrument) -> None:
    try:
        (made,) = requests.instruments_of(risk_admin_pb2.RegisterInstrumentsRequest(instruments=[message]))
    except Invalid:
        return
    positive = (made.lot_size, made.tick_size, made.multiplier)
    assert all(value > 0 and math.isfinite(value) for value in positive)
    assert (made.option is not None) == (made.asset_class is AssetClass.OPTION)
    assert all(map(math.isfinite, (made.duration, made.quantity_min, *made.factors.values())))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"account": ""}, "account"),
        ({"account": "x" * 65}, "account"),
        ({"account": "*"}, "account"),
        ({"strategy": "a\tb"}, "strategy"),
        ({"client_order_id": "x" * 129}, "client_order_id"),
        ({"symbol": " AAPL"}, "symbol"),
        ({"side": 0}, "side"),
        ({"side": 9}, "side"),
        ({"quantity": 0.0}, "quantity"),
        ({"quantity": -1.0}, "quantity"),
        ({"quantity": float("nan")}, "quantity"),
        ({"quantity": float("inf")}, "quantity"),
        ({"quantity": 1e16}, "quantity"),
        ({"order_type": 0}, "order_type"),
        ({"limit_price": None}, "limit_price"),
        ({"limit_price": float("nan")}, "limit_price"),
        ({"order_type": order_pb2.ORDER_TYPE_MARKET}, "limit_price"),
        ({"stop_price": 90.0}, "stop_price"),
        ({"order_type": order_pb2.ORDER_TYPE_STOP_LIMIT}, "stop_price"),
        ({"time_in_force": 0}, "time_in_force"),
        ({"valid_for": Duration()}, "valid_for"),
        ({"valid_for": Duration(seconds=-1)}, "valid_for"),
        ({"valid_for": Duration(seconds=1, nanos=-1)}, "valid_for"),
        ({"valid_for": Duration(seconds=367 * 86_400)}, "valid_for"),
        ({"replaces_client_order_id": "A"}, "replaces_client_order_id"),
    ],
)
def test_each_bad_field_is_named_alone(change: dict[str, object], field: str) -> None:
    message = order("A")
    for name, value in change.items():
        message.ClearField(name)  # type: ignore[arg-type]
        if isinstance(value, Duration):
            message.valid_for.CopyFrom(value)
        elif value is not None:
            setattr(message, name, value)

    with pytest.raises(Invalid) as refused:
        requests.orders_of(risk_gateway_pb2.CheckOrdersRequest(orders=[order("B"), message]))

    assert [violation[0] for violation in refused.value.violations] == [f"orders[1].{field}"]


def test_an_order_is_read_as_it_was_given() -> None:
    made = requests.order_of(risk_gateway_pb2.CheckOrderRequest(order=order("A", 0.3), all_or_none=True))

    assert (made.quantity, made.side, made.limit_price, made.all_or_none) == (0.3, Side.BUY, 100.0, True)
    assert made.valid_for_us is None


def test_a_basket_is_of_one_account_and_repeats_no_id() -> None:
    request = risk_gateway_pb2.CheckOrdersRequest(
        orders=[order("A"), order("A"), order("B", account="BETA")], all_or_none=True
    )

    with pytest.raises(Invalid) as refused:
        requests.orders_of(request)

    assert [v[0] for v in refused.value.violations] == ["orders[1].client_order_id", "orders[2].account"]


def test_an_empty_request_names_its_order() -> None:
    with pytest.raises(Invalid) as refused:
        requests.order_of(risk_gateway_pb2.CheckOrderRequest())

    assert refused.value.violations[0][0] == "order"


def test_a_stop_is_never_refused_for_its_reason() -> None:
    scope, state, reason = requests.stop_of(risk_gateway_pb2.StopAllRequest(symbol="AAPL", reason="a\nb" * 1_000))

    assert (scope, state) == (Scope(symbol="AAPL"), TradingState.HALTED)
    assert len(reason) == 1_000 and reason.startswith("a ba b")


def test_a_stop_of_a_trader_flattens_nothing_because_positions_are_not_kept_by_trader() -> None:
    named: dict[str, Any] = {"algo": "vwap", "trader": "jane", "desk": "rates"}
    scope, _, _ = requests.stop_of(risk_gateway_pb2.StopAllRequest(**named))

    assert scope == Scope(algo="vwap", trader="jane", desk="rates")
    assert requests.resume_of(risk_gateway_pb2.ResumeRequest(**named, reason="over"))[0] == scope
    assert responses.scope(scope) == control_pb2.Scope(**named)
    with pytest.raises(Invalid, match="flatten"):
        requests.stop_of(risk_gateway_pb2.StopAllRequest(desk="rates", flatten=True))


def test_a_stop_to_active_and_a_resume_without_a_reason_are_invalid() -> None:
    with pytest.raises(Invalid, match="mode"):
        requests.stop_of(risk_gateway_pb2.StopAllRequest(mode=1))  # type: ignore[arg-type]  # ACTIVE
    with pytest.raises(Invalid, match="reason"):
        requests.resume_of(risk_gateway_pb2.ResumeRequest(reason="  "))


def test_a_mark_is_the_mid_else_the_last_else_the_one_side() -> None:
    time = responses.timestamp(NOW_US - 5)
    made = [
        requests.quote_of(instrument_pb2.Mark(symbol="A", bid=1.0, ask=2.0, last=9.0, mark_time=time), NOW_US),
        requests.quote_of(instrument_pb2.Mark(symbol="A", ask=2.0, last=9.0, mark_time=time), NOW_US),
        requests.quote_of(instrument_pb2.Mark(symbol="A", ask=2.0, mark_time=time), NOW_US),
    ]

    assert [quote.mark for quote in made if isinstance(quote, Quote)] == [1.5, 9.0, 2.0]


@pytest.mark.parametrize(
    ("number", "phase"), [(0, MarketPhase.UNKNOWN), (3, MarketPhase.CONTINUOUS), (6, MarketPhase.CLOSED)]
)
def test_a_mark_carries_the_phase_of_its_market(number: int, phase: MarketPhase) -> None:
    mark = instrument_pb2.Mark(symbol="A", last=1.0, mark_time=responses.timestamp(NOW_US))
    mark.phase = number  # type: ignore[assignment]

    quote = requests.quote_of(mark, NOW_US)

    assert isinstance(quote, Quote) and quote.phase is phase


def test_a_phase_of_a_newer_contract_is_refused_and_not_guessed() -> None:
    mark = instrument_pb2.Mark(symbol="A", last=1.0, mark_time=responses.timestamp(NOW_US))
    mark.phase = 7  # type: ignore[assignment]

    assert requests.quote_of(mark, NOW_US) == "phase: expected one of the enum's named values, got unknown value 7"


def test_a_quote_is_no_younger_than_its_arrival() -> None:
    ahead = responses.timestamp(NOW_US + 500_000)

    quote = requests.quote_of(instrument_pb2.Mark(symbol="A", last=1.0, mark_time=ahead), NOW_US)

    assert isinstance(quote, Quote) and quote.time_us == NOW_US


def test_enums_of_the_engine_and_of_the_contract_agree() -> None:
    assert {f"REASON_{r.name}": r.value for r in Reason} == {
        name: number for name, number in decision_pb2.Reason.items() if number
    }
    assert [name for name, number in decision_pb2.Reason.items() if number] == [f"REASON_{r.name}" for r in Reason]
    phases = {phase.name.replace("UNKNOWN", "UNSPECIFIED"): phase.value for phase in MarketPhase}
    assert {f"MARKET_PHASE_{name}": value for name, value in phases.items()} == dict(instrument_pb2.MarketPhase.items())
    assert {f"ACTION_{a.name}": a.value for a in Action} == {
        name: number for name, number in decision_pb2.Action.items() if number
    }


def option_message() -> instrument_pb2.Instrument:
    return instrument_pb2.Instrument(
        symbol="SPY_P400",
        asset_class=instrument_pb2.ASSET_CLASS_OPTION,
        currency="USD",
        lot_size=1.0,
        tick_size=0.01,
        multiplier=100.0,
        underlying="SPY",
        expiry_date="2026-12-18",
        option=instrument_pb2.OptionTerms(
            strike=400.0,
            right=instrument_pb2.OPTION_RIGHT_PUT,
            style=instrument_pb2.OPTION_STYLE_AMERICAN,
            model=instrument_pb2.OPTION_MODEL_BLACK_SCHOLES_MERTON,
            dividend_yield=0.013,
            rate=0.0,
        ),
    )


def test_an_option_is_read_as_it_was_given() -> None:
    """A rate of 0 is a rate; a volatility that was not given is none."""
    request = risk_admin_pb2.RegisterInstrumentsRequest(instruments=[option_message()])
    (made,) = requests.instruments_of(request)

    assert made.option == OptionTerms(
        400.0, OptionRight.PUT, OptionStyle.AMERICAN, OptionModel.BLACK_SCHOLES_MERTON, 0.013, 0.0, None
    )
    assert (made.underlying, made.multiplier) == ("SPY", 100.0)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("option.strike", 0.0, "option.strike"),
        ("option.right", 0, "option.right"),
        ("option.style", 9, "option.style"),
        ("option.model", 0, "option.model"),
        ("option.rate", 5.0, "option.rate"),
        ("option.volatility", 20.0, "option.volatility"),
        ("underlying", "", "underlying"),
        ("expiry_date", "", "expiry_date"),
        ("proxy", "SPY", "proxy"),
        ("option", None, "option"),
    ],
)
def test_what_an_option_lacks_is_named(field: str, value: object, named: str) -> None:
    message = option_message()
    parent, _, name = field.rpartition(".")
    if value is None:
        message.ClearField("option")
    else:
        setattr(message.option if parent else message, name, value)

    with pytest.raises(Invalid) as refused:
        requests.instruments_of(risk_admin_pb2.RegisterInstrumentsRequest(instruments=[message]))
    assert refused.value.violations[0][0] == f"instruments[0].{named}"
    assert len(refused.value.violations) == 1


def test_an_initial_margin_is_read_and_is_not_below_0() -> None:
    message = option_message()
    message.initial_margin = 1_250.0
    (made,) = requests.instruments_of(risk_admin_pb2.RegisterInstrumentsRequest(instruments=[message]))
    message.initial_margin = -1.0
    with pytest.raises(Invalid) as refused:
        requests.instruments_of(risk_admin_pb2.RegisterInstrumentsRequest(instruments=[message]))

    assert made.initial_margin == 1_250.0
    assert [field for field, _ in refused.value.violations] == ["instruments[0].initial_margin"]


def test_times_survive_the_wire() -> None:
    assert responses.timestamp(NOW_US + 7).ToMicroseconds() == NOW_US + 7
    assert responses.duration(1_500_000).ToTimedelta().total_seconds() == 1.5
