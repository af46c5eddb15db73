"""Options valued from prices and revalued in full: where the volatility comes from, what is a fault, what a move does.

Prices of the tests are made by pricing.price (proven against QuantLib in test_pricing.py).
"""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from engine.instrument import Instrument
from engine.risk.american import american_price
from engine.risk.options import (
    OptionMarket,
    ValuedOptions,
    valuation_us,
    value_options,
    volatility_changes,
    volatility_factor,
    volatility_shock,
)
from engine.risk.pricing import price, years_to
from tests.engine.risk.builders import SESSION, book, instrument, option, stock

MORNING_US = int(datetime(2024, 1, 2, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000
CLOSED_US = int(datetime(2023, 12, 29, 21, tzinfo=UTC).timestamp()) * 1_000_000
EXPIRY = date(2024, 7, 2)
YEARS = years_to(EXPIRY, MORNING_US)


def worth(strike: float, volatility: float, spot: float = 100.0, years: float = YEARS, sign: float = 1.0) -> float:
    return float(price(spot, strike, years, volatility, 0.03, 0.03, sign))


def valued(*options: Instrument, **market: Any) -> ValuedOptions:
    given: dict[str, Any] = {"marks": {"A": 100.0}, "closes": {}, "rates": {}} | market
    sources = OptionMarket(now_us=MORNING_US, closes_date=date(2023, 12, 29), **given)
    return value_options(options, book(stock("A"), *options), sources)


def test_the_volatility_is_implied_by_the_marks() -> None:
    found = valued(option("C", 100.0), marks={"A": 100.0, "C": worth(100.0, 0.27)}, closes={"A": 90.0, "C": 1.0})

    assert found.book.volatility == pytest.approx([0.27], rel=1e-9)
    assert found.book.prices() == pytest.approx([worth(100.0, 0.27)], rel=1e-9)
    assert not found.faults and not found.warnings


def test_a_mark_never_meets_a_close() -> None:
    """A live option beside yesterday's spot would imply any volatility: the closes of one date do, as of that date."""
    closed = worth(100.0, 0.31, spot=80.0, years=years_to(EXPIRY, CLOSED_US))
    found = valued(option("C", 100.0), marks={"A": 100.0}, closes={"A": 80.0, "C": closed})

    assert found.book.volatility == pytest.approx([0.31], rel=1e-9)
    assert found.book.spot.tolist() == [100.0] and found.book.years == pytest.approx([YEARS])
    assert "implies no volatility" not in str(found.warnings)
    alone = valued(option("C", 100.0), marks={"C": worth(100.0, 0.27)}, closes={"A": 80.0})
    assert "no price of it with one of its underlying" in alone.faults["C"]


def test_deep_in_the_money_the_other_right_tells_the_volatility() -> None:
    put = worth(50.0, 0.45, sign=-1.0)
    found = valued(option("C", 50.0), option("P", 50.0, "put"), marks={"A": 100.0, "C": 50.0, "P": put})

    assert found.book.volatility == pytest.approx([0.45, 0.45], rel=1e-6)
    without = valued(option("C", 50.0), option("P", 55.0, "put"), marks={"A": 100.0, "C": 50.0, "P": put})
    assert "implies no volatility (no time value)" in without.faults["C"]


def test_without_prices_the_declared_volatility_counts_and_says_so() -> None:
    found = valued(option("C", 100.0, volatility=0.4), option("D", 110.0))

    assert found.book.symbols == ("C",) and found.book.volatility.tolist() == [0.4]
    assert found.warnings == ("A: 1 of 2 options at their declared volatility: no prices imply one",)
    assert set(found.faults) == {"D"}


@pytest.mark.parametrize(
    ("wrong", "market", "why"),
    [
        (option("C", 100.0), {"marks": {}}, "neither a mark nor a last close of its underlying A"),
        (option("C", 100.0, rate=None), {}, "no rate"),
        (option("C", 100.0, expiry=date(2023, 12, 29)), {}, "it expired on 2023-12-29"),
        (option("C", 100.0, model="black_76"), {}, "does not price options on A, which is of class equity"),
        (option("C", 100.0, currency="EUR"), {}, "priced in EUR, its underlying A in USD"),
        (option("C", 100.0, "put", style="american", rate=-0.01, dividend_yield=-0.02), {}, "no method prices it"),
    ],
)
def test_what_cannot_be_valued_says_why(wrong: Instrument, market: dict[str, Any], why: str) -> None:
    found = valued(wrong, **market)

    assert why in found.faults["C"] and len(found.book) == 0


def test_a_configured_rate_stands_in_for_a_declared_one() -> None:
    found = valued(option("C", 100.0, rate=None, volatility=0.2, dividend_yield=0.01), rates={"USD": 0.05})

    assert found.book.rate.tolist() == [0.05] and found.book.carry == pytest.approx([0.04])


def test_an_option_on_a_future_has_no_carry() -> None:
    on_future = option("C", 100.0, underlying="F", model="black_76", volatility=0.2)
    sources = OptionMarket(MORNING_US, {"F": 100.0}, {}, date(2023, 12, 29), {})
    found = value_options([on_future], book(instrument("F", "future"), on_future), sources)

    assert found.book.carry.tolist() == [0.0] and found.book.on_future.tolist() == [True]
    assert found.book.prices() == pytest.approx([float(price(100.0, 100.0, YEARS, 0.2, 0.03, 0.0, 1.0))])


def test_spot_and_volatility_move_together() -> None:
    found = valued(option("C", 100.0, volatility=0.2), option("P", 90.0, "put", volatility=0.3)).book
    moves, changes = np.array([[-0.10, 0.05]]), np.array([[0.15, -0.02]])

    pnl = found.pnl(moves, changes, of=np.array([0, 0]))

    by_hand = [
        [worth(100.0, 0.35, 90.0) - worth(100.0, 0.2), worth(100.0, 0.18, 105.0) - worth(100.0, 0.2)],
        [
            worth(90.0, 0.45, 90.0, sign=-1.0) - worth(90.0, 0.3, sign=-1.0),
            worth(90.0, 0.28, 105.0, sign=-1.0) - worth(90.0, 0.3, sign=-1.0),
        ],
    ]
    np.testing.assert_allclose(pnl, by_hand, rtol=1e-12)


def test_no_volatility_falls_below_a_point_and_no_spot_below_nothing() -> None:
    found = valued(option("P", 100.0, "put", volatility=0.2)).book

    lowest = found.values(np.zeros((1, 1)), np.array([[-0.9]]))
    assert lowest[0, 0] == pytest.approx(worth(100.0, 0.01, sign=-1.0))
    assert found.values(np.array([[-1.3]]))[0, 0] == pytest.approx(worth(100.0, 0.2, spot=0.0, sign=-1.0))


def test_blocks_make_no_difference() -> None:
    options = [option(f"C{at}", 60.0 + at, volatility=0.2 + at / 500) for at in range(90)]
    found = valued(*options).book
    moves = np.random.default_rng(1).normal(0.0, 0.05, (1, 1_000))

    worth_of_all = found.values(moves, of=np.zeros(90, dtype=np.intp))

    each = [found.taken(np.array([at])).values(moves)[0] for at in range(90)]
    np.testing.assert_array_equal(worth_of_all, each)


def test_an_aged_option_has_lost_the_time() -> None:
    found = valued(option("C", 100.0, volatility=0.2)).book

    assert found.aged(10).prices()[0] == pytest.approx(worth(100.0, 0.2, years=YEARS - 10 / 365))
    assert found.at({"A": 130.0}).aged(1_000).prices()[0] == pytest.approx(30.0)
    with pytest.raises(ValueError, match="days: expected"):
        found.aged(-1)


def test_american_options_are_revalued_to_the_stated_error() -> None:
    options = [option(f"P{k}", float(k), "put", style="american", volatility=0.25) for k in (90, 100, 110)]
    found = valued(*options)
    moves = np.random.default_rng(2).normal(0.0, 0.08, (1, 40))

    worth_of_all = found.book.values(moves, of=np.zeros(3, dtype=np.intp))

    strikes = np.array([[90.0], [100.0], [110.0]])
    exact = american_price(100.0 * (1 + moves), strikes, YEARS, 0.25, 0.03, 0.03, -1.0)
    error = found.book.interpolation_error
    assert 0 < error < 1e-4 and np.abs(worth_of_all - exact).max() <= 2 * error * 110
    assert f"A: American options by interpolation, to {error:.1e} of the strike" in found.warnings
    taken = found.book.taken(np.array([2, 0]))
    np.testing.assert_array_equal(taken.values(moves, of=np.zeros(2, dtype=np.intp)), worth_of_all[[2, 0]])


def test_the_volatility_of_an_american_option_is_implied_as_one() -> None:
    paid = float(american_price(100.0, 105.0, YEARS, 0.25, 0.03, 0.03, -1.0))
    found = valued(option("P", 105.0, "put", style="american"), marks={"A": 100.0, "P": paid})

    assert found.book.volatility == pytest.approx([0.25], abs=1e-6)


@pytest.mark.parametrize(
    ("moves", "changes", "message"),
    [
        (np.zeros(3), None, "moves: expected shape"),
        (np.zeros((2, 3)), None, "moves: expected shape"),
        (np.full((1, 3), np.nan), None, "moves: expected finite"),
        (np.zeros((1, 3)), np.zeros((1, 2)), "volatility_changes: expected shape"),
        (np.zeros((1, 3)), np.full((1, 3), np.inf), "volatility_changes: expected finite"),
    ],
)
def test_moves_of_no_use_are_refused(moves: Any, changes: Any, message: str) -> None:
    found = valued(option("C", 100.0, volatility=0.2)).book

    with pytest.raises(ValueError, match=message):
        found.values(moves, changes)
    with pytest.raises(ValueError, match="spots: expected"):
        found.at({"A": 0.0})


def test_the_valuation_stays_within_the_session() -> None:
    midnight = int(datetime(2024, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000

    assert valuation_us(SESSION, MORNING_US) == MORNING_US
    assert valuation_us(SESSION, 0) == midnight
    assert valuation_us(SESSION, MORNING_US + 10**13) == midnight + 24 * 3600 * 1_000_000


def test_on_its_last_day_an_option_lives_until_the_close_and_is_then_worth_its_exercise() -> None:
    last = option("C", 90.0, expiry=SESSION, volatility=0.2)
    sources = OptionMarket(MORNING_US, {"A": 100.0}, {}, date(2023, 12, 29), {})
    alive = value_options([last], book(stock("A"), last), sources).book
    ended = value_options(
        [last], book(stock("A"), last), OptionMarket(MORNING_US + 7 * 3600 * 10**6, {"A": 100.0}, {}, SESSION, {})
    ).book

    assert alive.years == pytest.approx([6.5 / 24 / 365])
    assert ended.years.tolist() == [0.0] and ended.prices().tolist() == [10.0]


def test_the_series_and_factor_of_a_volatility_go_by_name() -> None:
    assert volatility_factor("SPY", ["VOL", "VOL_SPY", "SPY"]) == "VOL_SPY"
    assert volatility_factor("QQQ", ["VOL", "VOL_SPY", "QQQ"]) == "VOL"
    assert volatility_factor("QQQ", ["VOL_SPY", "QQQ"]) is None
    assert volatility_shock("SPY", {"VOL": 0.2, "VOL_SPY": 0.1}) == 0.1
    assert volatility_shock("SPY", {"SPY": -0.2}) is None
    with pytest.raises(ValueError, match="VOL: expected a change of volatility as a fraction"):
        volatility_shock("SPY", {"VOL": 25.0})


def test_levels_of_volatility_are_points() -> None:
    changes = volatility_changes(np.array([20.0, 35.0, 30.0]))

    assert isinstance(changes, np.ndarray) and changes == pytest.approx([0.15, -0.05])
    assert "as the VIX is quoted" in str(volatility_changes(np.array([0.2, 0.35])))
    assert volatility_changes(np.array([20.0, np.nan])) == "days without a level"
