"""Statistics of return series: hand numbers, and scipy as oracle."""

import math
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from engine.risk.portfolio import (
    CONSTANT,
    WorstStretch,
    benchmark_fit,
    portfolio_statistics,
    worst_stretch,
)
from gateway.market.prices import sample_us_stocks

SEEDS = st.integers(0, 10_000)


def drawn(days: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_t(5, days) * 0.01


def test_three_days_by_hand() -> None:
    """-2, 0 and +2 %: deviation 2 %, one shortfall of three days."""
    statistics = portfolio_statistics([-0.02, 0.0, 0.02])

    assert statistics.mean == pytest.approx(0.0)
    assert statistics.volatility == pytest.approx(0.02 * math.sqrt(252))
    assert statistics.downside_deviation == pytest.approx(0.02 / math.sqrt(3) * math.sqrt(252))
    assert statistics.skewness == pytest.approx(0.0)
    assert statistics.kurtosis is None
    assert [(stretch.days, stretch.first, stretch.last) for stretch in statistics.worst] == [(1, 0, 0)]
    assert len(statistics.warnings) == 2


def test_downside_is_measured_from_the_target() -> None:
    statistics = portfolio_statistics([0.01, 0.03], target=0.02)

    assert statistics.downside_deviation == pytest.approx(math.sqrt(0.0001 / 2 * 252))


@given(SEEDS, st.integers(4, 300))
def test_the_shape_is_scipys_without_bias(seed: int, days: int) -> None:
    returns = drawn(days, seed)

    statistics = portfolio_statistics(returns)

    assert statistics.skewness == pytest.approx(stats.skew(returns, bias=False), rel=1e-9, abs=1e-12)
    assert statistics.kurtosis == pytest.approx(stats.kurtosis(returns, bias=False), rel=1e-9, abs=1e-9)
    assert statistics.volatility == pytest.approx(stats.tstd(returns) * math.sqrt(252))


def test_the_worst_stretch_compounds_and_says_where_it_lies() -> None:
    returns = [0.01, -0.10, -0.10, 0.05, -0.12, 0.0]

    worst = [worst_stretch(returns, days) for days in (1, 2, 4)]
    assert [stretch.loss for stretch in worst] == pytest.approx([0.12, 1 - 0.9 * 0.9, 1 - 0.9 * 0.9 * 1.05 * 0.88])
    assert [(stretch.days, stretch.first, stretch.last) for stretch in worst] == [(1, 4, 4), (2, 1, 2), (4, 1, 4)]


def test_a_stretch_of_gains_is_a_negative_loss() -> None:
    assert worst_stretch([0.5, 0.25], 1) == WorstStretch(1, -0.25, 1, 1)


def test_of_equal_stretches_the_first_counts() -> None:
    assert worst_stretch([-0.5, 1.0, -0.5], 1).first == 0


def test_the_worst_day_of_the_sp500() -> None:
    """NUMERICS.md: -11.98 % on 2020-03-16."""
    prices = sample_us_stocks()
    levels = prices.indices["SP500"]

    worst = portfolio_statistics(levels[1:] / levels[:-1] - 1.0).worst

    assert worst[0].loss == pytest.approx(0.1198, abs=0.00005)
    assert prices.dates[worst[0].last + 1] == date(2020, 3, 16)
    assert [stretch.days for stretch in worst] == [1, 5, 10]
    assert worst[0].loss < worst[1].loss < worst[2].loss


@given(SEEDS, st.integers(3, 200))
def test_the_benchmark_fit_is_ordinary_least_squares(seed: int, days: int) -> None:
    benchmark, noise = drawn(days, seed), drawn(days, seed + 1)
    returns = 0.0002 + 0.7 * benchmark + 0.5 * noise

    fit = benchmark_fit(returns, benchmark)
    oracle = stats.linregress(benchmark, returns)

    assert fit.beta == pytest.approx(oracle.slope)
    assert fit.alpha == pytest.approx(oracle.intercept * 252)
    assert fit.r_squared == pytest.approx(oracle.rvalue**2)
    assert fit.residual_volatility == pytest.approx(
        oracle.stderr * math.sqrt(252 * ((benchmark - benchmark.mean()) ** 2).sum())
    )
    assert fit.n_observations == days


def test_twice_the_benchmark_and_a_sure_gain_by_hand() -> None:
    fit = benchmark_fit([0.03, -0.01, 0.05], [0.01, -0.01, 0.02])

    assert fit.beta == pytest.approx(2.0)
    assert fit.alpha == pytest.approx(0.01 * 252)
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.residual_volatility == pytest.approx(0.0, abs=1e-7)


def test_what_never_moves_has_no_shape_and_says_so() -> None:
    statistics = portfolio_statistics([0.001] * 20)
    fit = benchmark_fit([0.001] * 3, [0.01, 0.0, 0.02])

    assert (statistics.skewness, statistics.kurtosis, statistics.warnings) == (None, None, (CONSTANT,))
    assert (fit.beta, fit.r_squared, fit.warnings) == (0.0, None, (CONSTANT,))
    assert fit.alpha == pytest.approx(0.252)


def test_a_move_that_is_rounding_is_none() -> None:
    returns = [0.0001, np.nextafter(0.0001, 1.0)]

    assert portfolio_statistics(returns * 3).skewness is None
    assert benchmark_fit(returns * 3, drawn(6)).r_squared is None


def test_two_days_are_fitted_without_a_residual() -> None:
    assert benchmark_fit([0.01, 0.02], [0.01, 0.03]).residual_volatility is None


def test_a_stretch_longer_than_the_series_is_told() -> None:
    statistics = portfolio_statistics([0.01, -0.01, 0.02, -0.01, 0.005])

    assert [stretch.days for stretch in statistics.worst] == [1, 5]
    assert "10 days" in statistics.warnings[0]


@pytest.mark.parametrize("figure", [portfolio_statistics, lambda series: worst_stretch(series, 1)])
@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ([0.01], "2 days or more"),
        ([], "2 days or more"),
        ([[0.01, 0.02]], "2 days or more"),
        ([0.01, float("nan")], "NaN"),
        ([0.01, float("inf")], "infinity"),
        ([0.01, -2.0], "-0.02 for -2 %"),
    ],
)
def test_returns_that_are_none_are_refused(figure: Callable[[Any], object], returns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure(returns)


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [([0.01, 0.01, 0.01], "constant"), ([0.01, 0.02], "the 3 days"), ([0.01, float("nan"), 0.0], "benchmark: .*NaN")],
)
def test_a_benchmark_that_is_none_is_refused(benchmark: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark_fit([0.01, 0.02, 0.0], benchmark)


@pytest.mark.parametrize("days", [0, -1, 4])
def test_a_stretch_that_does_not_fit_is_refused(days: int) -> None:
    with pytest.raises(ValueError, match="days: expected 1 to 3"):
        worst_stretch([0.01, 0.02, 0.0], days)


def test_a_target_that_is_no_return_is_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        portfolio_statistics([0.01, 0.02], target=float("nan"))
