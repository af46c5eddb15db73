"""Replays of history: the S&P 500's known falls, hand numbers on short windows, gaps that show, options revalued.

Prices are a few closes written out; the real windows run on the stocks of the skfolio wheel.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike

from engine.risk.history import PriceHistory
from engine.risk.replay import SHIPPED_WINDOWS, Replay, ReplayStatus, Window, days_window, replay
from engine.risk.stress_book import Floats, LeftOut, Options, StressBook
from gateway.market.prices import sample_us_stocks
from tests.engine.risk.builders import instrument, stock

MONDAY = date(2024, 3, 4)
NAN = float("nan")


def day(place: int) -> date:
    """The weekdays from MONDAY on; 0 is MONDAY itself."""
    return MONDAY + timedelta(days=place // 5 * 7 + place % 5)


def prices(closes: Mapping[str, ArrayLike], indices: Mapping[str, ArrayLike] | None = None) -> PriceHistory:
    columns = [np.asarray(series, dtype=np.float64) for series in closes.values()]
    return PriceHistory(
        tuple(day(place) for place in range(len(columns[0]))),
        tuple(closes),
        np.column_stack(columns),
        {name: np.asarray(series, dtype=np.float64) for name, series in (indices or {}).items()},
    )


def window(last: int, first: int = 0) -> Window:
    return Window("week", day(first), day(last))


def held(*rows: Any, money: Sequence[float]) -> StressBook:
    return StressBook.of(rows, money)


SAMPLE = sample_us_stocks()
INDEX = held(stock("SP500"), money=[1e6])
BY_NAME = {one.name: one for one in SHIPPED_WINDOWS}


@pytest.mark.parametrize(("name", "fall"), [("2008", -0.5678), ("2011", -0.1939), ("2020", -0.3392), ("2022", -0.2543)])
def test_the_index_falls_as_is_known_and_its_low_ends_the_window(name: str, fall: float) -> None:
    found = replay(INDEX, SAMPLE, BY_NAME[name])

    assert found.status is ReplayStatus.COMPLETE and found.warnings == () and found.covered_share == 1.0
    assert found.worst is not None and found.worst.date == BY_NAME[name].end
    assert found.worst.cumulative_pnl / 1e6 == pytest.approx(fall, abs=5e-5)
    assert found.max_drawdown == pytest.approx(-found.worst.cumulative_pnl)


def test_the_worst_day_of_2020_is_the_16th_of_march() -> None:
    found = replay(INDEX, SAMPLE, BY_NAME["2020"])

    before = 1e6 + np.concatenate(([0.0], found.cumulative_pnl[:-1]))
    returns = found.daily_pnl / before
    assert found.dates[int(returns.argmin())] == date(2020, 3, 16)
    assert returns.min() == pytest.approx(-0.1198, abs=5e-5)


def test_every_window_starts_at_a_peak_that_its_source_names() -> None:
    closes = dict(zip(SAMPLE.dates, SAMPLE.indices["SP500"].tolist(), strict=True))

    for name in ("2008", "2011", "2020", "2022"):
        one = BY_NAME[name]
        assert f"{closes[one.start]:.2f}" in one.source and f"{closes[one.end]:.2f}" in one.source
    taper = replay(INDEX, SAMPLE, BY_NAME["2013"])
    assert taper.worst is not None and taper.worst.date == date(2013, 6, 24)


def test_a_book_of_stocks_is_bought_and_held() -> None:
    """The oracle: plain arithmetic on the closes, one symbol at a time."""
    money = {"AAPL": 100.0, "XOM": -40.0, "JNJ": 60.0}

    found = replay(held(*(stock(name) for name in money), money=list(money.values())), SAMPLE, BY_NAME["2020"])

    start, end = SAMPLE.dates.index(date(2020, 2, 19)), SAMPLE.dates.index(date(2020, 3, 23))
    paths = {name: SAMPLE.closes[:, SAMPLE.symbols.index(name)].tolist() for name in money}
    totals = [
        sum(money[name] * (path[row] / path[start] - 1.0) for name, path in paths.items())
        for row in range(start + 1, end + 1)
    ]
    assert found.cumulative_pnl == pytest.approx(totals, rel=1e-12)
    assert found.worst is not None and found.worst.cumulative_pnl == pytest.approx(min(totals))
    assert found.position_pnl.sum() == pytest.approx(min(totals))


def test_quantities_are_constant_so_a_day_counts_from_the_value_it_began_with() -> None:
    """100 falls to 80 and rises to 100: −20, then +20 and not +25 of the start's 100."""
    found = replay(held(stock("A"), money=[500.0]), prices({"A": [100, 80, 100]}), window(2))

    assert found.daily_pnl == pytest.approx([-100.0, 100.0]) and found.cumulative_pnl == pytest.approx([-100.0, 0.0])
    assert found.dates == (day(1), day(2)) and found.start == day(0)
    assert found.worst is not None and found.worst.date == day(1)
    assert [found.worst.pnl, found.worst.cumulative_pnl] == pytest.approx([-100.0, -100.0])


def test_the_worst_point_may_be_a_gain_and_the_drawdown_counts_from_the_start() -> None:
    rising = replay(held(stock("A"), money=[100.0]), prices({"A": [100, 110, 130, 120]}), window(3))
    falling = replay(held(stock("A"), money=[100.0]), prices({"A": [100, 90, 130, 120]}), window(3))

    assert rising.worst is not None and rising.worst.cumulative_pnl == pytest.approx(10.0)
    assert rising.max_drawdown == pytest.approx(10.0)
    assert falling.worst is not None and falling.worst.cumulative_pnl == pytest.approx(-10.0)
    assert falling.max_drawdown == pytest.approx(10.0)
    assert replay(held(stock("A"), money=[1.0]), prices({"A": [1, 1, 2]}), window(2)).max_drawdown == 0.0


def test_a_fall_right_after_the_start_is_a_drawdown() -> None:
    found = replay(held(stock("A"), money=[100.0]), prices({"A": [100, 70, 90]}), window(2))

    assert found.max_drawdown == pytest.approx(30.0)


def test_each_position_at_the_worst_point_of_the_book() -> None:
    book = held(stock("A"), stock("B"), stock("FLAT"), money=[100.0, -200.0, 0.0])

    found = replay(book, prices({"A": [10, 9, 12], "B": [50, 55, 45], "FLAT": [1, 2, 3]}), window(2))

    assert found.position_pnl == pytest.approx([-10.0, -20.0, 0.0])
    assert found.worst is not None and found.worst.cumulative_pnl == pytest.approx(-30.0)


def test_a_symbol_without_prices_is_listed_and_left_out() -> None:
    book = StressBook.of([stock("A"), stock("NEW"), stock("GONE")], [100.0, 300.0, -100.0], strategies=["x", "y", "z"])

    found = replay(book, prices({"A": [10, 9, 8], "GONE": [NAN] * 3}), window(2))

    assert found.status is ReplayStatus.PARTIAL and found.cumulative_pnl == pytest.approx([-10.0, -20.0])
    assert found.missing == (
        LeftOut("y", "NEW", "NEW: not in the price history"),
        LeftOut("z", "GONE", "GONE: no closes in the window"),
    )
    assert found.covered_share == pytest.approx(0.2)
    assert np.isnan(found.position_pnl).tolist() == [False, True, True]
    assert found.warnings == ("week: counts no NEW, GONE: NEW: not in the price history",)


def test_a_symbol_that_stops_trading_is_left_out_and_not_frozen() -> None:
    closes = [100.0, 90.0, *[NAN] * 8]

    found = replay(held(stock("A"), stock("B"), money=[1.0, 1.0]), prices({"A": [1] * 10, "B": closes}), window(9))

    assert found.missing == (LeftOut("", "B", f"B: no close on {day(7)} (and 2 more days)"),)


def test_a_few_missing_closes_are_carried_and_said_to_be() -> None:
    closes = prices({"A": [1, 1, 1, 1], "B": [100, NAN, NAN, 80]})

    found = replay(held(stock("A"), stock("B"), money=[0.0, 100.0]), closes, window(3))

    assert found.cumulative_pnl == pytest.approx([0.0, 0.0, -20.0]) and found.missing == ()
    assert found.warnings == ("B: 2 missing closes carried forward from the day before",)


def test_carrying_can_be_forbidden() -> None:
    book, closes = held(stock("A"), stock("B"), money=[1.0, 1.0]), prices({"A": [1, 1, 1], "B": [100, NAN, 80]})

    assert replay(book, closes, window(2), carried_days_max=0).missing[0].reason == f"B: no close on {day(1)}"
    with pytest.raises(ValueError, match="carried_days_max"):
        replay(book, closes, window(2), carried_days_max=-1)


def test_the_first_close_may_be_carried_from_before_the_window() -> None:
    closes = prices({"A": [10, 10, 10, 10], "B": [100, NAN, 90, 80]})

    found = replay(held(stock("A"), stock("B"), money=[1.0, 100.0]), closes, window(3, first=1))

    assert found.cumulative_pnl == pytest.approx([-10.0, -20.0])


@pytest.mark.parametrize("bad", [0.0, -5.0, float("inf")])
def test_what_is_no_price_is_a_missing_one(bad: float) -> None:
    found = replay(held(stock("A"), stock("B"), money=[1.0, 1.0]), prices({"A": [1, 1], "B": [bad, 5]}), window(1))

    assert [one.symbol for one in found.missing] == ["B"]


def test_a_proxy_stands_in_and_is_named() -> None:
    found = replay(held(stock("NEW", proxy="OLD"), money=[100.0]), prices({"OLD": [10, 8]}), window(1))

    assert found.cumulative_pnl == pytest.approx([-20.0]) and found.status is ReplayStatus.COMPLETE
    assert found.warnings == ("NEW: replayed by its proxy OLD: not in the price history",)


def test_foreign_rows_move_with_their_exchange_rate() -> None:
    """BRL from 5 to 6.25 a dollar is worth 0.8; a share down 10 % is worth 0.72, a future's loss of 10 % only 0.08."""
    book = held(
        stock("VALE3", currency="BRL"),
        instrument("IND", "future", "BRL"),
        instrument("BRL", "fx", "BRL"),
        stock("SAP", currency="EUR"),
        money=[100.0, 100.0, 100.0, 100.0],
    )
    closes = {"VALE3": [50, 45], "IND": [1000, 900], "SAP": [10, 10]}

    found = replay(book, prices(closes, {"USDBRL": [5, 6.25], "EURUSD": [1.0, 1.1]}), window(1))

    assert found.position_pnl == pytest.approx([-28.0, -8.0, -20.0, 10.0])


def test_without_an_exchange_rate_a_foreign_row_is_left_out() -> None:
    book = held(stock("VALE3", currency="BRL"), stock("A"), money=[100.0, 100.0])

    found = replay(book, prices({"VALE3": [50, 45], "A": [1, 2]}), window(1))

    assert found.missing == (LeftOut("", "VALE3", "no exchange rate of BRL to USD"),)


def test_a_faulty_exchange_rate_is_none() -> None:
    book = held(stock("VALE3", currency="BRL"), stock("A"), money=[100.0, 100.0])
    closes = {"VALE3": [50, 45], "A": [1, 2]}

    found = replay(book, prices(closes, {"USDBRL": [NAN, 5.0]}), window(1))

    assert found.missing == (LeftOut("", "VALE3", "no exchange rate of BRL to USD"),)


def test_a_window_outside_the_data_is_no_data() -> None:
    found = replay(INDEX, SAMPLE, Window("1987", date(1987, 10, 13), date(1987, 10, 19)))

    assert found.status is ReplayStatus.NO_DATA and found.worst is None and found.max_drawdown is None
    assert found.dates == () and found.cumulative_pnl.size == 0 and found.covered_share == 0.0
    assert found.warnings == ("1987: no prices between 1987-10-13 and 1987-10-19",)
    assert [one.symbol for one in found.missing] == ["SP500"] and np.isnan(found.position_pnl).all()


def test_a_book_without_any_prices_there_is_no_data() -> None:
    found = replay(held(stock("X"), money=[1.0]), prices({"A": [1, 2]}), window(1))

    assert found.status is ReplayStatus.NO_DATA and found.missing == (LeftOut("", "X", "X: not in the price history"),)
    assert found.warnings == ("week: no prices of anything in the book",)


def test_a_window_that_the_data_reach_in_part_says_so() -> None:
    closes = prices({"A": [10, 9, 8]})

    late = replay(held(stock("A"), money=[100.0]), closes, Window("long", date(2024, 1, 2), day(2)))
    early = replay(held(stock("A"), money=[100.0]), closes, Window("long", day(0), date(2024, 6, 3)))

    assert late.status is early.status is ReplayStatus.PARTIAL
    assert late.warnings == ("long: prices reach 2024-03-04 to 2024-03-06 alone, of 2024-01-02 to 2024-03-06",)
    assert early.warnings == ("long: prices reach 2024-03-04 to 2024-03-06 alone, of 2024-03-04 to 2024-06-03",)


def test_a_close_of_long_before_the_window_does_not_start_it() -> None:
    closes = prices({"A": [100, *[NAN] * 11, 50, 40]})

    found = replay(held(stock("A"), money=[100.0]), closes, Window("gap", day(11), day(13)))

    assert found.start == day(12) and found.cumulative_pnl == pytest.approx([-20.0])
    assert found.status is ReplayStatus.PARTIAL


def test_a_window_from_a_weekend_starts_at_the_close_before_it() -> None:
    closes = prices({"A": [100, 100, 100, 100, 50, 40, 30]})

    found = replay(held(stock("A"), money=[100.0]), closes, Window("w", day(5) - timedelta(1), day(6)))

    assert found.start == day(4) and found.cumulative_pnl == pytest.approx([-20.0, -40.0])
    assert found.status is ReplayStatus.COMPLETE


def test_a_window_given_by_its_days_has_the_first_ones_return() -> None:
    closes = prices({"A": [100, 90, 80, 70]})

    own = days_window("own", day(1), day(2), closes)

    assert own == Window("own", day(0), day(2))
    assert replay(held(stock("A"), money=[100.0]), closes, own).cumulative_pnl == pytest.approx([-10.0, -20.0])
    assert days_window("one", day(2), day(2), closes) == Window("one", day(1), day(2))
    assert days_window("start", day(0), day(1), closes).start == day(0)
    with pytest.raises(ValueError, match="last_day"):
        days_window("own", day(2), day(1), closes)


def test_a_window_without_name_or_days_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        Window(" ", day(0), day(1))
    with pytest.raises(ValueError, match="end after"):
        Window("none", day(1), day(1))


def put_book(revalue: Any, money: float = 100.0) -> StressBook:
    one = np.ones(1)
    options = Options(np.array([0], dtype=np.intp), revalue, 100.0 * one, 2.0 * one, (stock("SPY"),), np.nan * one)
    return StressBook.of([instrument("PUT", "option", underlying="SPY")], [money], options=options)


def test_an_option_is_revalued_along_its_underlyings_path() -> None:
    """A put at 95 on a share of 100: worth nothing at 96, 5 at 90."""
    book = put_book(lambda moves, _: np.maximum(95.0 - 100.0 * (1.0 + moves), 0.0), money=-300.0)

    found = replay(book, prices({"SPY": [50, 48, 45, 51]}), window(3))

    assert found.cumulative_pnl == pytest.approx([0.0, -15.0, 0.0])


def test_its_volatility_follows_an_index_in_points_and_else_stays() -> None:
    def vega(_: Floats, changes: Floats) -> Floats:
        return 100.0 * changes

    closes = {"SPY": [50, 48, 45]}

    market = replay(put_book(vega), prices(closes, {"VOL": [20, 25, 60]}), window(2))
    assert market.cumulative_pnl == pytest.approx([5, 40])
    own = replay(put_book(vega), prices(closes, {"VOL": [20, 25, 60], "VOL_SPY": [10, 10, 13]}), window(2))
    assert own.cumulative_pnl == pytest.approx([0, 3])
    assert replay(put_book(vega), prices(closes), window(2)).cumulative_pnl == pytest.approx([0, 0])
    fraction = replay(put_book(vega), prices(closes, {"VOL": [0.2, 0.25, 0.6]}), window(2))
    assert fraction.cumulative_pnl == pytest.approx([0, 0])
    assert fraction.warnings[0].startswith("VOL: volatility of SPY counts as unchanged: expected volatility points")


def test_an_option_without_revaluation_or_underlying_prices_is_left_out() -> None:
    linear = held(instrument("CALL", "option", underlying="SPY"), stock("A"), money=[1.0, 1.0])
    book = put_book(lambda moves, _: moves)

    assert replay(linear, prices({"CALL": [1, 2], "A": [1, 2]}), window(1)).missing[0].symbol == "CALL"
    assert replay(book, prices({"A": [1, 2]}), window(1)).missing[0].reason == "SPY: not in the price history"
    broken = put_book(lambda moves, _: moves * np.nan)
    assert replay(broken, prices({"SPY": [1, 2]}), window(1)).missing[0].reason == "its revaluation gave no finite P&L"


def test_a_book_that_holds_nothing_has_no_pnl_and_no_share() -> None:
    found = replay(held(stock("A"), money=[0.0]), prices({"A": [10, 9]}), window(1))

    assert found.cumulative_pnl.tolist() == [0.0] and found.covered_share is None
    assert found.status is ReplayStatus.COMPLETE


def test_open_orders_are_not_counted() -> None:
    book = StressBook.of([stock("A")], [100.0], low=[-900.0], high=[900.0])

    assert replay(book, prices({"A": [10, 9]}), window(1)).cumulative_pnl == pytest.approx([-10.0])


PATHS = arrays(np.float64, (6, 3), elements=st.floats(1.0, 1000.0))
MONEY = arrays(np.float64, 3, elements=st.floats(-1e5, 1e5, allow_subnormal=False))


@given(PATHS, MONEY)
def test_days_sum_to_the_path_and_positions_to_its_worst_point(closes: Floats, money: Floats) -> None:
    names = ["A", "B", "C"]

    found: Replay = replay(
        held(*(stock(name) for name in names), money=money.tolist()),
        prices({name: closes[:, place] for place, name in enumerate(names)}),
        window(5),
    )

    assert found.worst is not None and found.max_drawdown is not None
    assert np.cumsum(found.daily_pnl) == pytest.approx(found.cumulative_pnl, rel=1e-9, abs=1e-4)
    assert found.position_pnl.sum() == pytest.approx(found.worst.cumulative_pnl, rel=1e-9, abs=1e-4)
    assert found.worst.cumulative_pnl == found.cumulative_pnl.min()
    assert found.max_drawdown >= max(0.0, -found.worst.cumulative_pnl) - 1e-6
    expected = (money * (closes / closes[0] - 1.0)).sum(axis=1)[1:]
    assert found.cumulative_pnl == pytest.approx(expected, rel=1e-9, abs=1e-4)
