"""Buying power: what is required of what there is, with hand-written numbers, and released by nothing but the fold.

The trap (CHECKS 30): several currencies, fees, a close-first exemption that sees open closes, and releases that happen
exactly once. Equity is 1,000,000 unless a story says otherwise; the limit is all of it.
"""

import datetime
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import decide
from engine.headroom import headroom
from engine.instrument import AssetClass, Instrument, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.limits import LimitError, check_rows
from engine.measures import MEASURES
from engine.measures.margin import written_option_margin
from engine.order import Action, Order, OrderType, Reason, Side
from engine.records import CashFlowed, Decided, ExecutionKind
from engine.risk import model as risk_model
from engine.risk.model import OPTION_ARRAYS, RiskModel, option_columns
from engine.utilisation import limit_uses
from tests.engine.builders import (
    NOW_US,
    account,
    fill,
    future,
    limits,
    model,
    order,
    quoted,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)

CALL_TERMS = OptionTerms(110.0, OptionRight.CALL, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON)
UNIVERSE = universe(
    stock("AAA"),
    stock("EUX", currency="EUR"),
    future("FUT", initial_margin=1_000.0),
    future("RAW"),
    Instrument(
        "CALL",
        AssetClass.OPTION,
        "USD",
        1.0,
        0.01,
        100.0,
        underlying="AAA",
        expiry=datetime.date(2030, 1, 18),
        option=CALL_TERMS,
    ),
)
MARKS = {"AAA": 100.0, "EUX": 50.0, "FUT": 4000.0, "RAW": 4000.0, "CALL": 5.0}
FX = {"EUR": 2.0}
HALF = {"equity": 0.5}


def risk() -> RiskModel:
    plain = model({symbol: [0.0] * 25 for symbol in MARKS})
    values = dict.fromkeys(OPTION_ARRAYS, (0.0,)) | {"reference": (100.0,), "spot": (100.0,), "price": (5.0,)}
    columns = option_columns(np.array([4]), np.array([values[name] for name in OPTION_ARRAYS]))
    return risk_model.decode(risk_model.encode(replace(plain, options=columns)))


RISK = risk()


def held(positions: Mapping[str, int] | None = None, cash: float | Mapping[str, float] = 1_000_000.0) -> AccountState:
    return account(UNIVERSE, MARKS, positions=positions, cash=cash, fx=FX)


def judged(state: AccountState, asked: Order, limit: float = 1.0, action: str = "reject", **policy: Any) -> Decided:
    armed = limits(row("margin", limit, action=action), **policy)
    return decide(state, terms(UNIVERSE, armed, RISK), asked, NOW_US)


def money(state: AccountState, asked: Order, **policy: Any) -> tuple[float | None, float | None]:
    """Required before and after, base currency."""
    armed = limits(row("margin", 1e15, unit="money"), **policy)
    record = decide(state, terms(UNIVERSE, armed, RISK), asked, NOW_US)
    found = next(check for check in record.checks if check.measure == "margin")
    return found.before, found.after


def at_limit(symbol: str = "AAA", quantity: float = 1.0, price: float = 100.0, **fields: Any) -> Order:
    return order(symbol, quantity=quantity, limit_price=price, **fields)


# --- what a lot requires ------------------------------------------------------------------------------------------


def test_what_is_not_named_is_paid_in_full() -> None:
    """1,000,000 of cash buy 10,000 shares at 100 and not one more."""
    assert judged(held(), at_limit(quantity=10_000)).action is Action.ALLOW
    assert judged(held(), at_limit(quantity=10_001)).reason is Reason.MARGIN


def test_a_rate_of_a_half_buys_twice_as_much_long_or_short() -> None:
    assert money(held(), at_limit(quantity=20), margin_rates=HALF) == (0.0, 1_000.0)
    assert money(held(), order("AAA", Side.SELL_SHORT, 20, limit_price=100.0), margin_rates=HALF) == (0.0, 1_000.0)
    assert judged(held(), at_limit(quantity=20_000), margin_rates=HALF).action is Action.ALLOW
    assert judged(held(), at_limit(quantity=20_001), margin_rates=HALF).reason is Reason.MARGIN


def test_a_rate_of_a_symbol_wins_over_that_of_its_class() -> None:
    assert money(held(), at_limit(quantity=20), margin_rates=HALF | {"AAA": 0.25}) == (0.0, 500.0)


def test_a_future_requires_its_margin_a_lot_and_not_its_value() -> None:
    """3 × 1,000 against 3 × 4,000 × 50; without one of its own it is paid in full."""
    assert money(held(), at_limit("FUT", 3, 4000.0)) == (0.0, 3_000.0)
    assert money(held(), at_limit("RAW", 3, 4000.0)) == (0.0, 600_000.0)


def test_a_bought_option_requires_its_premium() -> None:
    assert money(held(), at_limit("CALL", 2, 5.0)) == (0.0, 1_000.0)


def test_a_written_option_requires_a_part_of_its_underlying() -> None:
    """20 % of 100 less the 10 that it is out of the money, and no less than 10 % of 100: 10 × 100 a lot."""
    assert money(held(), order("CALL", Side.SELL_SHORT, 2, limit_price=5.0)) == (0.0, 2_000.0)


@pytest.mark.parametrize(
    ("right", "strike", "expected"),
    [
        (OptionRight.CALL, 100.0, 20.0),
        (OptionRight.CALL, 105.0, 15.0),
        (OptionRight.CALL, 150.0, 10.0),
        (OptionRight.CALL, 80.0, 20.0),
        (OptionRight.PUT, 95.0, 15.0),
        (OptionRight.PUT, 50.0, 5.0),
    ],
)
def test_written_options_by_hand(right: OptionRight, strike: float, expected: float) -> None:
    contract = OptionTerms(strike, right, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON)

    assert written_option_margin(contract, 100.0) == pytest.approx(expected)


# --- currencies, fees, prices -------------------------------------------------------------------------------------


def test_foreign_cash_counts_less_by_its_haircut_and_debts_more() -> None:
    """50,000 EUR are 100,000 USD and count 90,000; owed, they weigh 110,000."""
    rich, poor = held(cash={"USD": 0.0, "EUR": 50_000.0}), held(cash={"USD": 200_000.0, "EUR": -50_000.0})

    for state in (rich, poor):
        assert judged(state, at_limit(quantity=900), cash_haircut=0.1).action is Action.ALLOW
        assert judged(state, at_limit(quantity=901), cash_haircut=0.1).reason is Reason.MARGIN


def test_a_position_in_another_currency_requires_at_its_rate() -> None:
    assert money(held(), at_limit("EUX", 10, 50.0)) == (0.0, 1_000.0)


def test_fees_of_this_order_and_of_the_open_ones_are_required_too() -> None:
    state = held()
    reserve(state, "open", "AAA", 10, limit_price=100.0)

    assert money(state, at_limit(quantity=20), fee_rates={"equity": 0.001}) == (1_001.0, 3_003.0)


def test_what_an_order_pays_beyond_the_mark_is_required_too() -> None:
    """A limit of 110 pays 10 more; a market order buys at the ask of 102 with a slippage of 1 %: 103.02."""
    state = account(UNIVERSE, MARKS | {"AAA": quoted(100.0, 98.0, 102.0)}, fx=FX)

    assert money(state, at_limit(price=110.0)) == (0.0, 110.0)
    assert money(state, order()) == pytest.approx((0.0, 103.02))
    assert money(state, order("AAA", Side.SELL_SHORT)) == pytest.approx((0.0, 102.98))
    assert money(state, order("AAA", Side.SELL_SHORT, 1, limit_price=120.0)) == (0.0, 100.0)


# --- what is open, and what ends ----------------------------------------------------------------------------------


def test_open_orders_are_required_once_and_released_once() -> None:
    """10 open: 1,000. 4 filled at the mark: still 1,000. The rest cancelled: 400. Told again: 400."""
    state = held()
    reserve(state, "open", "AAA", 10, limit_price=100.0)
    required = [money(state, at_limit())[0]]
    fill(state, "open", 4)
    required.append(money(state, at_limit())[0])
    cancelled = report(state, "open", ExecutionKind.CANCELLED, cumulative_lots=4)
    state.apply(cancelled)
    required.append(money(state, at_limit())[0])
    state.apply(cancelled)
    required.append(money(state, at_limit())[0])

    assert required == [1_000.0, 1_000.0, 400.0, 400.0]


def test_a_rejected_order_requires_nothing_any_more() -> None:
    state = held()
    reserve(state, "open", "AAA", 10, limit_price=100.0)
    state.apply(report(state, "open", ExecutionKind.REJECTED))

    assert money(state, at_limit())[0] == 0.0


def test_buys_and_sells_are_not_netted_and_the_worse_end_counts() -> None:
    """Long 10, 5 open sells: 1,000 is required until they fill; 20 open sells could be short 10 and require no more."""
    state = held({"AAA": 10})
    reserve(state, "open", "AAA", -20, limit_price=100.0)

    assert money(state, at_limit())[0] == 1_000.0


def test_out_of_buying_power_what_closes_passes_but_not_twice() -> None:
    """2,000 required of 1,500: the close passes, and with it open another has nothing left to close."""
    state = held({"AAA": 20}, cash=-500.0)

    first = judged(state, sell(quantity=20, limit_price=100.0))
    reserve(state, "close", "AAA", -20, limit_price=100.0)
    second = judged(state, sell(quantity=20, client_order_id="o2", limit_price=100.0))

    assert first.action is Action.ALLOW
    assert second.reason is Reason.MARGIN


def test_it_cuts_an_order_to_what_can_be_paid() -> None:
    record = judged(held({"AAA": 10}, cash=900.0), at_limit(quantity=20, price=110.0), action="reduce")

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 8)  # 1,000 and 8 × 110 of 1,900


@given(st.integers(-30, 30), st.integers(-30, 30), st.sampled_from([0.5, 1.0]), st.sampled_from([0.0, 0.003]))
def test_headroom_is_what_decide_allows(position: int, opened: int, rate: float, fee: float) -> None:
    state = held({"AAA": position}, cash=2_500.0 - 100.0 * position)
    if opened:
        reserve(state, "open", "AAA", opened, limit_price=100.0)
    armed = terms(UNIVERSE, limits(row("margin", 1.0), margin_rates={"AAA": rate}, fee_rates={"AAA": fee}), RISK)

    room = headroom(state, armed, "", "AAA", NOW_US)

    for side, most in ((Side.BUY, room.buy.lots), (Side.SELL, room.sell.lots)):
        if most:
            assert decide(state, armed, order("AAA", side, most), NOW_US).action is Action.ALLOW
        assert decide(state, armed, order("AAA", side, most + 1), NOW_US).action is not Action.ALLOW


# --- what can't be known ------------------------------------------------------------------------------------------


def test_without_equity_nothing_opens_and_what_closes_does() -> None:
    state = held({"AAA": 10}, cash=-2_000.0)

    assert judged(state, at_limit()).reason is Reason.EQUITY_NOT_POSITIVE
    assert judged(state, sell(quantity=10, limit_price=100.0)).action is Action.ALLOW


def test_a_haircut_that_eats_all_there_is_refuses() -> None:
    state = held(cash={"EUR": 50_000.0})

    assert judged(state, at_limit(), cash_haircut=1.0).reason is Reason.EQUITY_NOT_POSITIVE


def test_cash_without_a_rate_refuses() -> None:
    state = held()
    state.apply(CashFlowed(time_us=NOW_US, event_id="f", amount=1.0, currency="JPY"))

    assert judged(state, at_limit()).reason is Reason.FX_MISSING


def test_an_open_order_whose_quote_is_no_number_refuses() -> None:
    both = universe(stock("AAA"), stock("BBB"))
    state = account(both, {"AAA": 100.0, "BBB": 50.0}, cash=1_000_000.0)
    reserve(state, "open", "AAA", 100, order_type=OrderType.MARKET)
    state.apply(valued({"AAA": quoted(100.0, 99.0, math.nan)}))

    record = decide(state, terms(both, limits(row("margin", 1.0))), order("BBB"), NOW_US)

    assert record.reason is Reason.MEASURE_NOT_FINITE


def test_a_short_option_without_its_underlying_refuses() -> None:
    marks = {name: mark for name, mark in MARKS.items() if name != "AAA"}
    state = account(UNIVERSE, marks, fx=FX)

    assert judged(state, order("CALL", Side.SELL_SHORT, 1, limit_price=5.0)).reason is Reason.MARK_MISSING


@pytest.mark.parametrize(
    "policy", [{"margin_rates": {"equity": math.nan}}, {"fee_rates": {"AAA": -0.1}}, {"cash_haircut": 1.5}]
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(LimitError, match=next(iter(policy))):
        check_rows(limits(row("margin", 1.0), **policy), MEASURES)


def test_the_report_tells_how_much_of_it_is_used() -> None:
    state = held({"AAA": 1_000}, cash=900_000.0)
    reserve(state, "open", "AAA", 1_000, limit_price=100.0)

    (use,) = (
        one
        for one in limit_uses(state, terms(UNIVERSE, limits(row("margin", 1.0)), RISK), NOW_US)
        if one.measure == "margin"
    )

    assert use.value == pytest.approx(0.2)


def test_nothing_is_remembered_from_another_policy_or_before_an_order() -> None:
    """The same state, asked again: at a half, in full, and once 10 more are open."""
    state = held({"AAA": 10})
    half, full = (
        terms(UNIVERSE, limits(row("margin", 1e15, unit="money"), margin_rates=rates, fee_rates={"AAA": 0.01}), RISK)
        for rates in (HALF, {})
    )

    read = []
    for opened, armed in ((0, half), (0, full), (10, full)):
        if opened:
            reserve(state, "open", "AAA", opened, limit_price=100.0)
        read.append(decide(state, armed, at_limit(), NOW_US).checks)

    found = [next(check.before for check in checks if check.measure == "margin") for checks in read]
    assert found == [500.0, 1_000.0, 2_010.0]


@given(
    st.dictionaries(st.sampled_from(["AAA", "FUT", "EUX"]), st.integers(-20, 20)),
    st.lists(st.tuples(st.sampled_from(["AAA", "FUT", "EUX"]), st.integers(-20, 20).filter(bool)), max_size=5),
)
def test_no_fills_of_the_open_orders_require_more(positions: dict[str, int], opened: list[tuple[str, int]]) -> None:
    """The slow reference: what every subset of fills requires, added up by hand."""
    state = held(positions)
    for at, (symbol, count) in enumerate(opened):
        reserve(state, f"open{at}", symbol, count, limit_price=MARKS[symbol])
    armed = terms(UNIVERSE, limits(row("margin", 1e15, unit="money"), margin_rates=HALF), RISK)
    found = next(use.value for use in limit_uses(state, armed, NOW_US) if use.measure == "margin")

    per_lot = {"AAA": 50.0, "FUT": 1_000.0, "EUX": 50.0}
    worst = 0.0
    for fills in range(2 ** len(opened)):
        book = dict(positions)
        for at, (symbol, count) in enumerate(opened):
            if fills >> at & 1:
                book[symbol] = book.get(symbol, 0) + count
        worst = max(worst, sum(abs(count) * per_lot[symbol] for symbol, count in book.items()))

    assert found == pytest.approx(worst)
