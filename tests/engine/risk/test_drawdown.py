"""Drawdowns by hand and against a walk through the series day by day; a NAV's first row is the capital."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.drawdown import Fall, drawdown_series, drawdowns, max_drawdown, nav_series

NAVS = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=40)


def walked(navs: list[float]) -> list[float]:
    """Fall from the peak so far, one row after the other."""
    falls, peak = [], navs[0]
    for nav in navs:
        peak = max(peak, nav)
        falls.append((peak - nav) / peak)
    return falls


def test_a_book_that_only_loses_has_fallen_from_its_starting_capital() -> None:
    navs = nav_series(1000.0, [-100.0, -50.0])

    assert navs == pytest.approx([1000.0, 900.0, 850.0])
    assert drawdown_series(navs) == pytest.approx([0.0, 0.1, 0.15])
    assert max_drawdown([1000.0, 900.0, 750.0]) == Fall(0.25, peak=0, trough=2, recovery=None)


def test_four_heights_to_have_fallen_from() -> None:
    """Peak 2.0 in row 1, reset in row 2 at 1.0, session from row 3 at 1.2 with its peak of 1.6, now 0.8."""
    fallen = drawdowns([1.0, 2.0, 1.0, 1.2, 1.6, 0.8], session_start=3, reset=2)

    assert fallen.from_peak == pytest.approx(0.6)
    assert fallen.from_session_peak == pytest.approx(0.5)
    assert fallen.from_session_start == pytest.approx(1 / 3)
    assert fallen.since_reset == pytest.approx(0.5)


def test_above_the_sessions_start_there_is_no_fall_from_it() -> None:
    fallen = drawdowns([1.0, 1.0, 1.3, 1.2], session_start=1)

    assert fallen.from_session_start == 0.0
    assert fallen.from_session_peak == pytest.approx(0.1 / 1.3)


def test_a_reset_forgets_the_height_before_it() -> None:
    assert drawdowns([1.0, 2.0, 1.0], session_start=2, reset=2).since_reset == 0.0


def test_the_worst_fall_lies_between_the_last_day_at_its_peak_and_the_recovery() -> None:
    fall = max_drawdown([1.0, 2.0, 2.0, 1.0, 1.5, 2.0, 1.9])

    assert fall == Fall(0.5, peak=2, trough=3, recovery=5)


def test_of_equal_falls_the_first_counts() -> None:
    assert max_drawdown([1.0, 0.5, 1.0, 0.5]) == Fall(0.5, peak=0, trough=1, recovery=2)


def test_what_never_fell_has_no_fall() -> None:
    assert max_drawdown([1.0, 1.0, 1.5]) == Fall(0.0, 0, 0, 0)


def test_below_nothing_the_fall_is_more_than_all() -> None:
    assert max_drawdown([1.0, -0.5]).depth == pytest.approx(1.5)


@given(NAVS)
def test_the_series_equals_a_walk_through_it(navs: list[float]) -> None:
    falls = walked(navs)

    assert drawdown_series(navs) == pytest.approx(falls)
    assert max_drawdown(navs).depth == pytest.approx(max(falls))
    assert drawdowns(navs, 0).from_peak == pytest.approx(falls[-1])


@given(NAVS)
def test_a_fall_is_between_its_rows(navs: list[float]) -> None:
    fall = max_drawdown(navs)

    assert fall.depth == pytest.approx(1.0 - navs[fall.trough] / navs[fall.peak])
    assert max(navs[fall.peak : fall.trough + 1]) == navs[fall.peak]
    if fall.recovery is not None:
        assert navs[fall.recovery] >= navs[fall.peak]
        assert all(nav < navs[fall.peak] for nav in navs[fall.trough : fall.recovery])
    else:
        assert all(nav < navs[fall.peak] for nav in navs[fall.trough :])


@given(NAVS, st.floats(0.01, 100.0))
def test_the_unit_of_the_nav_does_not_matter(navs: list[float], size: float) -> None:
    assert drawdown_series(np.array(navs) * size) == pytest.approx(drawdown_series(navs), abs=1e-12)


@pytest.mark.parametrize(
    ("navs", "message"),
    [([], "one dimension"), ([[1.0]], "one dimension"), ([1.0, float("nan")], "NaN"), ([0.0, 1.0], "above 0, got 0")],
)
def test_a_series_without_a_height_is_refused(navs: Any, message: str) -> None:
    for figure in (drawdown_series, max_drawdown, lambda series: drawdowns(series, 0)):
        with pytest.raises(ValueError, match=message):
            figure(navs)


@pytest.mark.parametrize(
    ("navs", "rows", "message"),
    [
        ([1.0, 2.0], {"session_start": 2}, "session_start: expected a row from 0 to 1"),
        ([1.0, 2.0], {"session_start": 0, "reset": -1}, "reset: expected a row"),
        ([1.0, -2.0, 1.0], {"session_start": 1}, "session_start: expected a NAV above 0"),
        ([1.0, 0.0, 1.0], {"session_start": 2, "reset": 1}, "reset: expected a NAV above 0"),
    ],
)
def test_rows_that_are_no_height_are_refused(navs: list[float], rows: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawdowns(navs, **rows)


@pytest.mark.parametrize(("capital", "pnl"), [(0.0, [1.0]), (1.0, [float("nan")]), (float("nan"), [1.0])])
def test_a_nav_without_capital_or_with_unknown_pnl_is_refused(capital: float, pnl: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        nav_series(capital, pnl)
