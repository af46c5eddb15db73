"""Options at order time: by delta in exposures, by full revaluation in scenarios, and by nothing once their underlying
has left the price that they were valued at.

One stock at 100, a call and a put on it with a multiplier of 100, a lot being 10,000 of the stock; numbers by hand.
"""

import datetime
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from engine.account import AccountState
from engine.decide import Terms, decide
from engine.facts import listings, tracked_symbols
from engine.instrument import AssetClass, Instrument, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.limits import Limit
from engine.order import Action, Order, Reason, Side
from engine.records import Check, Decided
from engine.risk import model as risk_model
from engine.risk.model import OPTION_ARRAYS, RiskModel, option_columns
from tests.engine.builders import NOW_US, account, limits, model, order, row, sell, stock, terms, universe, valued

DAYS = 100


def option(symbol: str, right: OptionRight) -> Instrument:
    contract = OptionTerms(100.0, right, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON, volatility=0.2)
    return Instrument(
        symbol,
        AssetClass.OPTION,
        "USD",
        1.0,
        0.01,
        multiplier=100.0,
        underlying="AAA",
        expiry=datetime.date(2030, 1, 18),
        option=contract,
    )


UNIVERSE = universe(stock("AAA"), stock("BBB"), option("CALL", OptionRight.CALL), option("PUT", OptionRight.PUT))
MARKS = {"AAA": 100.0, "BBB": 50.0, "CALL": 5.0, "PUT": 4.0}
GRID = {"AAA": (-0.2, 0.2), "BBB": (-0.2, 0.2), "CALL": (-0.05, 0.18), "PUT": (0.16, -0.04)}


def risk(call_delta: float = 0.5, put_delta: float = -0.4, **shocks: Mapping[str, float]) -> RiskModel:
    """Valued with the stock at 100; the options' returns are of a reference of 100."""
    day = {"AAA": -0.02, "BBB": 0.0, "CALL": -0.01, "PUT": 0.008}
    scenarios = {"crash": {"AAA": -0.3, "BBB": -0.3, "CALL": -0.05, "PUT": 0.26}, **shocks}
    plain = model({symbol: [day[symbol]] * DAYS for symbol in MARKS}, scenarios)
    values = dict.fromkeys(OPTION_ARRAYS, (0.0, 0.0))
    values |= {"reference": (100.0, 100.0), "spot": (100.0, 100.0), "price": (5.0, 4.0)}
    values |= {"delta": (call_delta, put_delta), "volatility": (0.2, 0.2), "years": (1.0, 1.0)}
    columns = option_columns(np.array([2, 3]), np.array([values[name] for name in OPTION_ARRAYS]))
    grid = np.array([GRID[symbol] for symbol in plain.symbols])
    return risk_model.decode(risk_model.encode(replace(plain, options=columns, grid=grid)))


def held(positions: Mapping[str, int] | None = None, **marks: float) -> AccountState:
    return account(UNIVERSE, MARKS | marks, positions=positions)


def armed(*rows: Limit, built: RiskModel | None = None) -> Terms:
    return terms(UNIVERSE, limits(*rows), risk() if built is None else built)


def asked(state: AccountState, of: Order, *rows: Limit, built: RiskModel | None = None) -> Decided:
    return decide(state, armed(*rows, built=built), of, NOW_US)


def read(decided: Decided, measure: str) -> tuple[float | None, float | None]:
    found = next(check for check in decided.checks if check.measure == measure)
    return found.before, found.after


def check_of(decided: Decided, measure: str) -> Check:
    return next(check for check in decided.checks if check.measure == measure)


GROSS = row("gross_exposure", 1e9)


def test_a_bought_option_counts_by_its_delta_and_a_written_one_in_full() -> None:
    bought = asked(held(), order("CALL", quantity=10), GROSS)
    written = asked(held(), order("CALL", Side.SELL_SHORT, 10), GROSS)

    assert read(bought, "gross_exposure") == pytest.approx((0.0, 50_000))
    assert read(written, "gross_exposure") == pytest.approx((0.0, 100_000))


def test_an_option_far_out_of_the_money_counts_a_tenth_of_its_underlying() -> None:
    decided = asked(held(), order("CALL", quantity=10), GROSS, built=risk(call_delta=0.01))

    assert read(decided, "gross_exposure") == pytest.approx((0.0, 10_000))


def test_exposure_follows_the_underlying_at_its_mark_now() -> None:
    decided = asked(held({"CALL": 2}, AAA=102.0), order("CALL", quantity=10), GROSS)

    assert read(decided, "gross_exposure") == pytest.approx((10_200, 61_200))


def test_a_put_is_a_short_in_the_net() -> None:
    decided = asked(held({"AAA": 300}), order("PUT", quantity=10), row("net_exposure", 1e9))

    assert read(decided, "net_exposure") == pytest.approx((30_000, 30_000))
    assert read(asked(held(), order("PUT", quantity=10), row("net_exposure", 1e9)), "net_exposure")[1] == pytest.approx(
        40_000
    )


def test_the_issuer_of_the_stock_is_that_of_its_options() -> None:
    decided = asked(held({"AAA": 300}), order("CALL", quantity=1), row("concentration", 1e9, unit="money"))

    assert read(decided, "concentration") == pytest.approx((30_000, 35_000))


def test_scenarios_are_full_revaluations_of_the_reference() -> None:
    """A lot loses 1 % of 10,000 a day and gains 4 % of it in the grid's fall; its premium of 500 plays no part."""
    rows = row("var_99", 1e9, unit="money"), row("stress_loss", 1e9, unit="money")

    decided = asked(held({"CALL": 1}), order("CALL", quantity=9), *rows)

    assert read(decided, "var_99") == pytest.approx((100, 1_000))
    assert read(decided, "stress_loss") == pytest.approx((500, 5_000))


def test_a_hedge_counts_in_the_same_rows() -> None:
    """100 shares lose 2 % of 10,000, a put gains 0.8 % of it."""
    decided = asked(held({"AAA": 100, "PUT": 1}), order("BBB", quantity=1), row("var_99", 1e9, unit="money"))

    assert read(decided, "var_99") == pytest.approx((120, 120))


def test_the_largest_quantity_that_fits_is_told() -> None:
    gross = asked(held(), order("CALL", quantity=100), row("gross_exposure", 123_000, action="reduce"))
    tail = asked(held(), order("CALL", quantity=100), row("var_99", 2_550, unit="money", action="reduce"))
    short = asked(held({"CALL": 3}), sell("CALL", 100), row("gross_exposure", 45_000, action="reduce"))

    assert (gross.action, gross.allowed_lots) == (Action.REDUCE, 24)
    assert (tail.action, tail.allowed_lots) == (Action.REDUCE, 25)
    assert (short.action, short.allowed_lots) == (Action.REDUCE, 7)


@pytest.mark.parametrize(
    ("state", "of", "value"),
    [
        (held(), order("CALL", quantity=10, limit_price=2.0), 50_000),
        (held(), order("CALL", quantity=10, limit_price=70.0), 70_000),
        (held(), order("CALL", Side.SELL_SHORT, 10, limit_price=2.0), 100_000),
        (held({"CALL": 10}), sell("CALL", 10, limit_price=2.0), 50_000),
        (held({"CALL": 4}), sell("CALL", 10, limit_price=2.0), 80_000),
    ],
)
def test_an_order_is_worth_its_premium_or_its_part_of_the_underlying(
    state: AccountState, of: Order, value: float
) -> None:
    assert read(asked(state, of, row("order_value", 1e9)), "order_value")[1] == pytest.approx(value)


def test_an_underlying_that_moved_on_opens_no_position_and_traps_none() -> None:
    state = held({"CALL": 10}, AAA=104.0)

    opening = asked(state, order("CALL", quantity=1), GROSS)
    closing = asked(state, sell("CALL", 10), GROSS)
    other = asked(held(AAA=104.0), order("BBB", quantity=1), GROSS)

    assert (opening.action, opening.reason) == (Action.REJECT, Reason.MODEL_STALE)
    assert "AAA has moved 4.0%" in opening.message
    assert closing.action is Action.ALLOW
    assert other.action is Action.ALLOW


def test_without_a_mark_of_the_underlying_there_is_no_option_to_buy() -> None:
    state = account(UNIVERSE, {"CALL": 5.0, "PUT": 4.0, "BBB": 50.0})

    decided = asked(state, order("CALL", quantity=1), GROSS)

    assert (decided.action, decided.reason) == (Action.REJECT, Reason.MARK_MISSING)
    assert "AAA, which CALL is written on" in decided.message


def test_an_option_that_the_model_could_not_value_is_no_zero() -> None:
    built = risk(call_delta=float("nan"))
    unpriced = replace(built, options=replace(built.options, price=np.array([np.nan, 4.0])))

    decided = asked(held(), order("CALL", quantity=1), GROSS, built=unpriced)

    assert (decided.action, decided.reason) == (Action.REJECT, Reason.MODEL_MISSING)


def test_an_option_needs_the_age_of_both_marks() -> None:
    state = held()
    state.apply(valued({"CALL": 5.0}, time_us=NOW_US + 9_000_000))

    decided = decide(state, armed(), order("CALL", quantity=1), NOW_US + 9_000_000)

    assert (decided.action, decided.reason) == (Action.REJECT, Reason.MARK_STALE)
    assert check_of(decided, "mark_age").after == pytest.approx(9.0)


def test_selling_the_stock_that_covers_a_written_call_is_no_reduction() -> None:
    """The fall costs 3,000 on the stock, so that selling it lowers the stress loss; the written call's rise costs 1,800
    that the stock had covered, more than the 1,500 that both lose in the grid's fall."""
    tight = row("stress_loss", 100.0, unit="money")
    covered, bare = held({"AAA": 100, "CALL": -1}), held({"AAA": 100})

    assert asked(bare, sell("AAA", 100), tight).action is Action.ALLOW
    assert asked(covered, sell("AAA", 100), tight).action is Action.REJECT
    assert asked(covered, order("CALL", quantity=1), tight).action is Action.REJECT


def test_what_an_option_is_written_on_enters_the_account_with_it() -> None:
    state = account(universe(), {})

    records = listings(state, UNIVERSE, UNIVERSE.instruments["CALL"], NOW_US, 0)
    for record in records:
        state.apply(record)
    state.apply(valued({"AAA": 100.0, "CALL": 5.0}))
    again = listings(state, UNIVERSE, UNIVERSE.instruments["CALL"], NOW_US, 0)

    assert [(record.symbol, record.underlying) for record in records] == [("AAA", ""), ("CALL", "AAA")]
    assert again == []
    assert tracked_symbols(held({"CALL": 1})) == ["CALL", "AAA"]
    assert msgspec.json.decode(msgspec.json.encode(records[1]))["underlying"] == "AAA"
