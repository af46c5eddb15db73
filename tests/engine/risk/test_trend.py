"""Trends of report figures over sessions: hand numbers, and numpy's least squares as oracle."""

import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.trend import Session, trends

FIRST = date(2024, 1, 1)


def sessions(*figures: dict[str, float | None]) -> list[Session]:
    return [(FIRST + timedelta(days=place), figure) for place, figure in enumerate(figures)]


def of(*values: float | None) -> list[Session]:
    return sessions(*({"var_99": value} for value in values))


def test_a_figure_that_grows_by_two_a_session() -> None:
    (trend,) = trends(of(10.0, 12.0, 14.0, 16.0))

    assert (trend.figure, trend.n_sessions, trend.n_missing) == ("var_99", 4, 0)
    assert (trend.first, trend.last, trend.lowest, trend.highest) == (10.0, 16.0, 10.0, 16.0)
    assert (trend.change, trend.change_session, trend.percentile) == (6.0, 2.0, 1.0)
    assert trend.slope == pytest.approx(2.0)
    assert trend.last_session == date(2024, 1, 4)


def test_only_the_last_thirty_sessions_count() -> None:
    (trend,) = trends(of(1000.0, *(float(place) for place in range(30))))

    assert (trend.n_sessions, trend.first, trend.highest) == (30, 0.0, 29.0)


def test_a_gap_keeps_its_place_and_is_counted() -> None:
    """0, 1, unknown, 3: still one a session."""
    (trend,) = trends(of(0.0, 1.0, None, 3.0))

    assert trend.slope == pytest.approx(1.0)
    assert (trend.n_sessions, trend.n_missing) == (3, 1)
    assert (trend.change, trend.change_session) == (3.0, None)


def test_a_figure_missing_at_the_end_says_when_it_was_last_known() -> None:
    (trend,) = trends(of(5.0, 7.0, None))

    assert (trend.last, trend.last_session, trend.change_session) == (7.0, date(2024, 1, 2), None)


def test_equals_count_half_towards_the_percentile() -> None:
    (trend,) = trends(of(1.0, 5.0, 9.0, 5.0))

    assert trend.percentile == pytest.approx(0.5)


def test_one_session_is_no_trend_yet() -> None:
    (trend,) = trends(of(5.0))

    assert (trend.change, trend.change_session, trend.slope, trend.percentile) == (0.0, None, None, None)


def test_figures_come_in_the_order_of_their_mention_and_unknown_ones_not_at_all() -> None:
    made = trends(sessions({"b": 1.0, "never": None}, {"a": 2.0, "b": 3.0}))

    assert [(trend.figure, trend.n_missing) for trend in made] == [("b", 0), ("a", 1)]


def test_no_sessions_have_no_trend() -> None:
    assert trends([]) == ()


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_the_slope_is_numpys_least_squares(values: list[float | None]) -> None:
    known = [(place, value) for place, value in enumerate(values) if value is not None]

    made = trends(of(*values))

    if len(known) >= 2:
        places, figures = zip(*known, strict=True)
        slope = np.polynomial.Polynomial.fit(places, figures, 1).convert().coef
        assert made[0].slope == pytest.approx(slope[1] if len(slope) > 1 else 0.0, rel=1e-6, abs=1e-4)
        below = sum(0.5 * (value == figures[-1]) + (value < figures[-1]) for value in figures[:-1])
        assert made[0].percentile == pytest.approx(below / (len(figures) - 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="var_99: expected a finite number or None on 2024-01-02"):
        trends(of(1.0, value))


def test_sessions_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="rising, got 2024-01-01 after 2024-01-02"):
        trends([*reversed(of(1.0, 2.0))])
    with pytest.raises(ValueError, match="rising"):
        trends([*of(1.0), *of(2.0)])


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        trends(of(1.0), window=0)
