"""Windows by hand, the fact of March 2020, the worked rules of UVaR and its comparators."""

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.risk.horizon import (
    overlapping_returns,
    overlapping_sums,
    square_root_of_time,
    thin_tail_warning,
    ultra_short_var,
)
from engine.risk.var import value_at_risk
from gateway.market.prices import sample_us_stocks

Floats = NDArray[np.float64]


def flat_pnl(loss_1d: float, loss_3d: float, loss_5d: float) -> dict[int, Floats]:
    """Histories in which every window loses the same."""
    return {1: np.full(756, -loss_1d), 3: np.full(754, -loss_3d), 5: np.full(752, -loss_5d)}


def test_two_days_down_ten_percent_are_nineteen() -> None:
    returns = np.array([[-0.1], [-0.1], [0.5]])

    np.testing.assert_allclose(overlapping_returns(returns, 2), [[-0.19], [0.35]])
    np.testing.assert_allclose(overlapping_returns(returns, 3), [[0.215]])
    np.testing.assert_allclose(overlapping_sums(returns[:, 0], 2), [-0.2, 0.4])


@given(st.integers(1, 20))
def test_a_window_is_the_ratio_of_its_closes(horizon_days: int) -> None:
    closes = 100.0 * np.exp(np.random.default_rng(2).normal(0, 0.02, (41, 3)).cumsum(axis=0))
    windows = overlapping_returns(closes[1:] / closes[:-1] - 1.0, horizon_days)

    np.testing.assert_allclose(windows, closes[horizon_days:] / closes[:-horizon_days] - 1.0, atol=1e-12)


def test_one_day_is_left_alone() -> None:
    returns = np.array([[0.1], [-0.2]])

    np.testing.assert_array_equal(overlapping_returns(returns, 1), returns)
    assert square_root_of_time(3.0, 1) == 3.0
    assert square_root_of_time(3.0, 4) == 6.0


def test_the_square_root_of_time_missed_march_2020() -> None:
    prices = sample_us_stocks()
    index = prices.series("SP500")
    assert index is not None
    closes = index[: prices.dates.index(date(2020, 3, 31)) + 1][-757:]
    returns = (closes[1:] / closes[:-1] - 1.0)[:, None]

    assert value_at_risk(-overlapping_returns(returns, 5)[:, 0], 0.99) == pytest.approx(0.115, abs=0.0005)
    assert square_root_of_time(value_at_risk(-returns[:, 0], 0.99), 5) == pytest.approx(0.092, abs=0.0005)


def test_a_tail_thinner_than_one_window_says_so() -> None:
    assert thin_tail_warning(756, 1, 0.99) is None
    assert thin_tail_warning(756, 5, 0.99) is None
    assert "76 windows of 10 days" in str(thin_tail_warning(756, 10, 0.99))
    assert thin_tail_warning(756, 10, 0.95) is None


@pytest.mark.parametrize("horizon_days", [0, -1, 21])
def test_it_refuses_horizons_out_of_range(horizon_days: int) -> None:
    for scale in (
        lambda: overlapping_returns(np.zeros((30, 1)), horizon_days),
        lambda: overlapping_sums(np.zeros(30), horizon_days),
        lambda: square_root_of_time(1.0, horizon_days),
    ):
        with pytest.raises(ValueError, match="horizon_days: expected 1 to 20"):
            scale()


def test_it_refuses_histories_shorter_than_the_horizon() -> None:
    with pytest.raises(ValueError, match="at least 5 days, got 4"):
        overlapping_returns(np.zeros((4, 2)), 5)


def test_uvar_gives_pnl_and_not_losses() -> None:
    uvar = ultra_short_var(flat_pnl(100.0, 180.0, 230.0), session_pnl=-25.0)

    assert uvar.figures() == {
        "var_1d": -100.0,
        "var_3d": -180.0,
        "var_5d": -230.0,
        "confidence": 0.99,
        "current_exposure": -25.0,
        "status": "OK",
    }
    assert uvar.gap_horizons_days == ()
    assert uvar.n_observations == {1: 756, 3: 754, 5: 752}


def test_a_gap_stands_beside_the_quantile_and_raises_what_is_below_it() -> None:
    uvar = ultra_short_var(flat_pnl(100.0, 180.0, 230.0), session_pnl=0.0, gap_loss=200.0)

    assert (uvar.var_1d, uvar.var_3d, uvar.var_5d) == (-200.0, -200.0, -230.0)
    assert uvar.gap_horizons_days == (1, 3)


def test_uvar_is_the_eighth_worst_window() -> None:
    pnl = {days: -np.arange(1.0, 757.0 - days + 1.0) for days in (1, 3, 5)}

    assert ultra_short_var(pnl, session_pnl=0.0).var_1d == -749.0


@pytest.mark.parametrize(
    ("limit", "status", "excess"),
    [
        (230.0, "WARNING", 0.0),
        (229.0, "BREACHED", 1.0),
        (287.5, "WARNING", 0.0),
        (288.0, "OK", 0.0),
    ],
)
def test_a_limit_is_breached_above_it_and_warns_from_four_fifths_on(limit: float, status: str, excess: float) -> None:
    uvar = ultra_short_var(flat_pnl(100.0, 180.0, 230.0), session_pnl=0.0, limits={5: limit})

    assert (uvar.status, uvar.excess) == (status, excess)


def test_the_worst_of_the_limits_decides() -> None:
    uvar = ultra_short_var(flat_pnl(100.0, 180.0, 230.0), 0.0, limits={1: 90.0, 3: 150.0, 5: 1000.0})

    assert (uvar.status, uvar.excess) == ("BREACHED", 30.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pnl": {1: np.zeros(756)}}, "horizons 1, 3 and 5"),
        ({"session_pnl": math.nan}, "session_pnl"),
        ({"gap_loss": math.nan}, "gap_loss"),
        ({"limits": {2: 10.0}}, "limits"),
        ({"limits": {1: 0.0}}, "limits"),
        ({"warn_share": 0.0}, "warn_share"),
        ({"pnl": {1: np.zeros(50), 3: np.zeros(50), 5: np.zeros(50)}}, "at least 100"),
    ],
)
def test_it_refuses_what_makes_no_uvar(changed: dict[str, object], said: str) -> None:
    whole: dict[str, object] = {"pnl": flat_pnl(1.0, 2.0, 3.0), "session_pnl": 0.0}
    with pytest.raises(ValueError, match=said):
        ultra_short_var(**(whole | changed))  # type: ignore[arg-type]
