"""Sizing formulas: hand-written numbers, what holds for all of them, and scipy as the oracle for several assets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from engine import sizing
from engine.account import Floats

rates = st.floats(-0.5, 0.5)
above = st.floats(0.01, 5.0)
parts = st.floats(0.01, 1.0)


def test_kelly_is_the_edge_over_the_variance() -> None:
    assert sizing.kelly(0.12, 0.04, 0.2) == pytest.approx(2.0)  # 0.08 / 0.04


def test_no_edge_is_no_position_and_a_negative_one_is_short_only_where_that_is_allowed() -> None:
    assert sizing.kelly(0.04, 0.04, 0.2, short_allowed=True) == 0.0
    assert sizing.kelly(0.0, 0.04, 0.2) == 0.0
    assert sizing.kelly(0.0, 0.04, 0.2, short_allowed=True) == pytest.approx(-1.0)


def test_kelly_of_a_bet_at_even_money_is_the_edge_and_a_partial_loss_allows_more() -> None:
    assert sizing.kelly_binary(0.6, 1.0, 1.0) == pytest.approx(0.2)
    assert sizing.kelly_binary(0.6, 2.0, 1.0) == pytest.approx(0.4)  # (bp − q)/b = (1.2 − 0.4)/2
    assert sizing.kelly_binary(0.5, 0.25, 0.2) == pytest.approx(0.5)  # 2.5 − 2
    assert sizing.kelly_binary(0.4, 1.0, 1.0) == 0.0


@given(parts, above, above)
def test_the_share_of_a_bet_grows_fastest(p: float, b: float, a: float) -> None:
    """p·ln(1 + fb) + q·ln(1 − fa) has no slope at f."""
    f = sizing.kelly_binary(p, b, a, short_allowed=True)
    if p < 0.99 and 1 + f * b > 1e-6 and 1 - f * a > 1e-6:
        assert p * b / (1 + f * b) - (1 - p) * a / (1 - f * a) == pytest.approx(0.0, abs=1e-6 * (a + b))


@given(st.floats(0.0, 1.0), above, above)
def test_the_other_side_of_a_bet_is_the_same_size(p: float, b: float, a: float) -> None:
    here, there = sizing.kelly_binary(p, b, a, True), sizing.kelly_binary(1.0 - p, a, b, True)

    assert here == pytest.approx(-there, rel=1e-9, abs=1e-9)


def covariance_of(seed: int, n: int) -> Floats:
    spread = np.random.default_rng(seed).normal(0.0, 0.2, (n, n + 5))
    return np.asarray(spread @ spread.T / (n + 5) + 0.005 * np.eye(n))


def test_uncorrelated_assets_are_sized_each_by_itself() -> None:
    found = sizing.kelly_portfolio(np.array([0.08, -0.02]), np.diag([0.04, 0.01]), short_allowed=True)

    assert found == pytest.approx([2.0, -2.0])
    assert sizing.kelly_portfolio(np.array([0.08, -0.02]), np.diag([0.04, 0.01])) == pytest.approx([2.0, 0.0])


def test_a_correlated_asset_without_shorting_is_left_out_and_not_cut_off() -> None:
    """ρ 0.9: with shorting the weaker one hedges the stronger; without it, the stronger stands as if alone."""
    covariance = np.array([[0.04, 0.036], [0.036, 0.04]])
    edges = np.array([0.08, 0.04])

    free, long_only = sizing.kelly_portfolio(edges, covariance, True), sizing.kelly_portfolio(edges, covariance)

    assert free == pytest.approx([5.789473684, -4.210526316])
    assert long_only == pytest.approx([2.0, 0.0])


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_several_assets_solve_the_equations_and_scipy_finds_the_same_without_shorting(n: int, seed: int) -> None:
    covariance, edges = covariance_of(seed, n), np.random.default_rng(seed + 1).normal(0.0, 0.1, n)
    root = np.linalg.cholesky(covariance)

    assert covariance @ sizing.kelly_portfolio(edges, covariance, True) == pytest.approx(edges, abs=1e-9)
    oracle, _ = nnls(root.T, np.linalg.solve(root, edges))
    assert sizing.kelly_portfolio(edges, covariance) == pytest.approx(oracle, rel=1e-6, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10.0))
def test_twice_the_edge_is_twice_the_size(seed: int, times: float) -> None:
    covariance, edges = covariance_of(seed, 4), np.random.default_rng(seed).normal(0.0, 0.1, 4)

    once = sizing.kelly_portfolio(edges, covariance)
    assert sizing.kelly_portfolio(edges * times, covariance) == pytest.approx(once * times, rel=1e-6, abs=1e-8)


def test_volatility_stop_and_budget_by_hand() -> None:
    assert sizing.volatility_target(0.1, 0.25) == pytest.approx(0.4)
    assert sizing.scaled(sizing.fixed_risk(0.05), 0.01, 1.0, 1.0) == pytest.approx(0.2)  # 5 % off costs 1 %
    assert sizing.stop_distance(2.5, 2.0, 100.0) == pytest.approx(0.05)
    assert sizing.risk_budget(0.01, 0.04) == pytest.approx(0.25)


def test_fraction_and_confidence_multiply_and_the_cap_comes_last() -> None:
    assert sizing.scaled(2.0, 0.5, 0.8, 1.0) == pytest.approx(0.8)
    assert sizing.scaled(-4.0, 0.5, 0.8, 1.0) == -1.0
    assert sizing.scaled(2.0, 0.5, 0.0, 1.0) == 0.0


def test_several_are_scaled_down_together_and_keep_their_proportions() -> None:
    assert sizing.scaled_together(np.array([3.0, -1.0]), 0.5, 1.0, 1.0) == pytest.approx([0.75, -0.25])
    assert sizing.scaled_together(np.array([0.6, 0.2]), 0.5, 1.0, 1.0) == pytest.approx([0.3, 0.1])


def test_lots_are_whole_and_never_more_than_the_share() -> None:
    assert sizing.whole_lots(0.25, 1_000.0, 99.0) == 2
    assert sizing.whole_lots(-0.25, 1_000.0, 99.0) == -2
    assert sizing.whole_lots(0.3, 1_000.0, 100.0) == 3  # 0.3 × 1000 is 299.99999999999994


@given(st.floats(-3.0, 3.0), st.floats(1.0, 1e6), st.floats(0.5, 1e4))
def test_what_whole_lots_are_worth_is_within_the_share(ratio: float, equity: float, lot: float) -> None:
    lots = sizing.whole_lots(ratio, equity, lot)

    assert abs(lots) * lot <= abs(ratio) * equity * (1 + 1e-6) + lot * 1e-6
    assert (abs(lots) + 1) * lot > abs(ratio) * equity * (1 - 1e-6)
    assert lots * ratio >= 0


@pytest.mark.parametrize(
    ("target", "low", "high", "expected"),
    [(10, 0, 0, 10), (10, 0, 4, 6), (10, 0, 12, 0), (-5, 0, 0, -5), (-5, -3, 2, -2), (3, 3, 3, 0), (0, 2, 5, -2)],
)
def test_the_order_counts_what_is_on_its_way(target: int, low: int, high: int, expected: int) -> None:
    assert sizing.order_lots(target, low, high) == expected


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: sizing.kelly(math.nan, 0.0, 0.2), "expected_return"),
        (lambda: sizing.kelly(0.1, 0.0, 0.0), "volatility"),
        (lambda: sizing.kelly_binary(1.1, 1.0, 1.0), "win_probability"),
        (lambda: sizing.kelly_binary(math.nan, 1.0, 1.0), "win_probability"),
        (lambda: sizing.kelly_binary(0.5, 0.0, 1.0), "win_ratio"),
        (lambda: sizing.kelly_binary(0.5, 1.0, -1.0), "loss_ratio"),
        (lambda: sizing.volatility_target(0.1, 0.0), "volatility"),
        (lambda: sizing.fixed_risk(0.0), "loss_given_stop"),
        (lambda: sizing.stop_distance(1.0, 2.0, 0.0), "price"),
        (lambda: sizing.risk_budget(0.01, -0.1), "unit_risk"),
        (lambda: sizing.scaled(1.0, 0.0, 1.0, 1.0), "fraction"),
        (lambda: sizing.scaled(1.0, 0.5, 1.1, 1.0), "confidence"),
        (lambda: sizing.scaled(1.0, 0.5, 1.0, math.inf), "cap"),
        (lambda: sizing.whole_lots(math.nan, 1.0, 1.0), "ratio"),
        (lambda: sizing.whole_lots(1.0, 0.0, 1.0), "equity"),
        (lambda: sizing.kelly_portfolio(np.array([0.1, math.nan]), np.eye(2)), "excess_returns"),
        (lambda: sizing.kelly_portfolio(np.array([0.1]), np.eye(2)), "covariance"),
        (lambda: sizing.kelly_portfolio(np.array([0.1, 0.1]), np.ones((2, 2))), "positive definite"),
        (lambda: sizing.kelly_portfolio(np.array([0.1, 0.1]), np.array([[1.0, 0.5], [0.4, 1.0]])), "symmetric"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(call: object, named: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=named):
        call()
