"""Carrying a price history on: sessions at its end, splits before them, and what is left out said in words."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.closes import SessionCloses, Split, carried_on, split_adjusted
from engine.risk.history import PriceHistory

TUE, WED, THU, FRI = date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4), date(2024, 1, 5)


def two_days(indices: dict[str, list[float]] | None = None) -> PriceHistory:
    levels = {name: np.array(series) for name, series in (indices or {}).items()}
    return PriceHistory((TUE, WED), ("AAA", "BBB"), np.array([[10.0, 20.0], [11.0, 21.0]]), levels)


def test_a_closed_session_becomes_the_next_row() -> None:
    found = carried_on(two_days(), [SessionCloses(THU, {"AAA": 12.0, "BBB": 22.0, "ZZZ": 1.0})], {"AAA", "BBB"})

    assert found.history.dates == (TUE, WED, THU)
    assert found.history.closes[-1].tolist() == [12.0, 22.0]
    assert found.warnings == ()


def test_the_files_row_wins_over_what_was_marked() -> None:
    found = carried_on(two_days(), [SessionCloses(WED, {"AAA": 99.0, "BBB": 99.0})], {"AAA"})

    assert found.history.closes.tolist() == two_days().closes.tolist()


def test_a_date_that_the_file_skipped_stays_skipped() -> None:
    gap = PriceHistory((TUE, THU), ("AAA",), np.array([[10.0], [11.0]]))

    assert carried_on(gap, [SessionCloses(WED, {"AAA": 99.0})], {"AAA"}).history.dates == (TUE, THU)


def test_sessions_join_in_the_order_of_their_dates() -> None:
    later = [SessionCloses(FRI, {"AAA": 13.0, "BBB": 23.0}), SessionCloses(THU, {"AAA": 12.0, "BBB": 22.0})]

    found = carried_on(two_days(), later, {"AAA", "BBB"})

    assert found.history.closes[2:, 0].tolist() == [12.0, 13.0]


def test_a_symbol_without_a_mark_has_a_gap_that_is_named() -> None:
    found = carried_on(two_days(), [SessionCloses(THU, {"AAA": 12.0})], {"AAA", "BBB"})

    assert np.isnan(found.history.closes[-1]).tolist() == [False, True]
    assert found.warnings == ("price history: no mark of BBB in session 2024-01-04",)


def test_a_session_in_which_few_were_marked_is_left_out_and_said() -> None:
    wide = PriceHistory((WED,), ("A", "B", "C"), np.array([[1.0, 2.0, 3.0]]))

    found = carried_on(wide, [SessionCloses(THU, {"A": 1.1})], {"A", "B", "C"})

    assert found.history.dates == (WED,)
    assert found.warnings == (
        "price history: session 2024-01-04 left out: 1 of 3 instruments were marked; bring the file up to date",
    )


def test_sessions_left_out_for_one_reason_are_one_warning() -> None:
    later = [SessionCloses(THU, {}), SessionCloses(FRI, {})]

    (warning,) = carried_on(two_days(), later, {"AAA", "BBB"}).warnings

    assert warning.startswith("price history: 2 sessions from 2024-01-04 to 2024-01-05 left out: 0 of 2")


def test_symbols_that_nobody_trades_need_no_mark() -> None:
    wide = PriceHistory((WED,), ("A", "B", "C"), np.array([[1.0, 2.0, 3.0]]))

    assert carried_on(wide, [SessionCloses(THU, {"A": 1.1})], {"A"}).history.dates == (WED, THU)


def test_a_session_without_its_index_is_left_out() -> None:
    """Its betas would all be lost with it."""
    found = carried_on(two_days({"SP500": [4000.0, 4010.0]}), [SessionCloses(THU, {"AAA": 12.0, "BBB": 22.0})], {"AAA"})

    assert found.history.dates == (TUE, WED)
    assert "no mark of SP500" in found.warnings[0]


def test_an_index_is_carried_on_with_the_rest() -> None:
    marks = {"AAA": 12.0, "BBB": 22.0, "SP500": 4020.0}

    found = carried_on(two_days({"SP500": [4000.0, 4010.0]}), [SessionCloses(THU, marks)], {"AAA"})

    assert found.history.indices["SP500"].tolist() == [4000.0, 4010.0, 4020.0]


def test_a_history_of_marks_alone() -> None:
    nothing = PriceHistory((), (), np.empty((0, 0)))
    days = [SessionCloses(TUE, {"AAA": 1.0}), SessionCloses(WED, {"AAA": 1.1, "BBB": 2.0})]

    found = carried_on(nothing, days, {"AAA", "BBB"}).history

    assert (found.dates, found.symbols) == ((TUE, WED), ("AAA", "BBB"))
    assert np.isnan(found.closes[0, 1]) and found.closes[1].tolist() == [1.1, 2.0]


@pytest.mark.parametrize("close", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_close_is_refused(close: float) -> None:
    with pytest.raises(ValueError, match="AAA: expected a finite close above 0"):
        SessionCloses(THU, {"AAA": close})


def test_closes_before_a_split_are_divided_by_it() -> None:
    """Four for one on Thursday: 400 becomes 100, and the day's return is +1 %."""
    unadjusted = PriceHistory((TUE, WED, THU), ("AAA",), np.array([[396.0], [400.0], [101.0]]))

    found = split_adjusted(unadjusted, [Split("AAA", THU, 4.0)])

    assert found.history.closes[:, 0].tolist() == [99.0, 100.0, 101.0]
    assert found.warnings == ()
    assert unadjusted.closes[0, 0] == 396.0


def test_a_reverse_split_and_a_second_one() -> None:
    unadjusted = PriceHistory((TUE, WED, THU), ("AAA",), np.array([[200.0], [100.0], [1000.0]]))

    found = split_adjusted(unadjusted, [Split("AAA", WED, 2.0), Split("AAA", THU, 0.1)])

    assert found.history.closes[:, 0].tolist() == [1000.0, 1000.0, 1000.0]


def test_closes_that_are_adjusted_already_are_left_alone_and_it_is_said() -> None:
    found = split_adjusted(two_days(), [Split("AAA", WED, 4.0)])

    assert found.history.closes.tolist() == two_days().closes.tolist()
    assert found.warnings == (
        "AAA: split of 4 on 2024-01-03 not applied: the closes around it move by +10.0%, they look adjusted already",
    )


def test_a_gap_around_the_split_is_looked_across() -> None:
    gap = PriceHistory((TUE, WED, THU), ("AAA",), np.array([[400.0], [np.nan], [101.0]]))

    assert split_adjusted(gap, [Split("AAA", WED, 4.0)]).history.closes[0, 0] == 100.0


def test_a_split_after_the_last_close_changes_nothing_yet() -> None:
    found = split_adjusted(two_days(), [Split("AAA", THU, 4.0), Split("ZZZ", WED, 2.0)])

    assert found.history.closes.tolist() == two_days().closes.tolist()
    assert found.warnings == ()


@pytest.mark.parametrize("ratio", [0.0, -2.0, 1.0, float("nan"), 1e6])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="split of AAA on 2024-01-03: expected a ratio"):
        Split("AAA", WED, ratio)


@given(
    st.lists(st.floats(-0.1, 0.1), min_size=4, max_size=20),
    st.sampled_from([0.1, 0.2, 0.5, 2.0, 3.0, 20.0]),
    st.integers(1, 4),
)
def test_splitting_shares_and_adjusting_gives_the_closes_back(returns: list[float], ratio: float, at: int) -> None:
    days = tuple(date.fromordinal(TUE.toordinal() + place) for place in range(len(returns) + 1))
    moves = np.array([100.0, *(1.0 + move for move in returns)], dtype=np.float64)
    whole = np.asarray(np.cumprod(moves), dtype=np.float64)
    raw = whole.copy()
    raw[:at] *= ratio

    found = split_adjusted(PriceHistory(days, ("AAA",), raw[:, None]), [Split("AAA", days[at], ratio)])

    assert found.history.closes[:, 0] == pytest.approx(whole, rel=1e-12)
