"""What a series of daily returns looks like: volatility, downside, shape, worst stretches, and against a benchmark.

Returns are simple, daily, net of flows, as shares of the NAV, oldest first. Standard deviations have ddof 1 and are
annualised by the root of 252. A moment that the series can't give is None, and a warning says why. Drawdowns are in
drawdown.py, VaR in var.py, figures from one session to the next in trend.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TRADING_DAYS = 252
"""A year, for volatility and alpha."""

WORST_DAYS = (1, 5, 10)

ROUNDING = 1e-12
"""Of the largest return: less than this from the lowest to the highest is no move."""

CONSTANT = "returns: they never move, so skewness, kurtosis and R² are undefined"


@dataclass(frozen=True, slots=True)
class WorstStretch:
    """The worst stretch of some days: compounded loss, positive = loss, and its first and last row."""

    days: int
    loss: float
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class PortfolioStatistics:
    """Of daily returns; all figures as decimals."""

    n_observations: int
    mean: float
    """A day."""
    volatility: float
    """A year: standard deviation (ddof 1) × √252."""
    downside_deviation: float
    """A year: root of the mean squared shortfall below the target over all days (divisor n; Sortino) × √252."""
    skewness: float | None
    """Adjusted Fisher-Pearson G1 (Joanes and Gill 1998; what pandas and spreadsheets give); needs 3 days."""
    kurtosis: float | None
    """Excess kurtosis G2 (the same source), 0 for a normal distribution; needs 4 days."""
    worst: tuple[WorstStretch, ...]
    """Of 1, 5 and 10 days, as far as the series reaches."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchmarkFit:
    """Least squares of the book's returns on the benchmark's, no risk-free rate taken off."""

    n_observations: int
    beta: float
    alpha: float
    """A year: the daily intercept × 252."""
    r_squared: float | None
    """0 to 1; None where the book's returns never move."""
    residual_volatility: float | None
    """A year: standard deviation of what the benchmark does not explain (ddof 2); None below 3 days."""
    warnings: tuple[str, ...] = ()


def portfolio_statistics(
    returns: ArrayLike, target: float = 0.0, stretches: Sequence[int] = WORST_DAYS
) -> PortfolioStatistics:
    """The statistics of `returns` (T,). `target`: the daily return that downside is measured from.

    Raises ValueError on fewer than 2 days, on NaN or infinity, on a return below -1, or a stretch below 1 day.
    """
    series = _returns("returns", returns)
    skewness, kurtosis = _shape(series)
    return PortfolioStatistics(
        n_observations=series.size,
        mean=float(series.mean()),
        volatility=float(series.std(ddof=1)) * math.sqrt(TRADING_DAYS),
        downside_deviation=_downside(series, target) * math.sqrt(TRADING_DAYS),
        skewness=skewness,
        kurtosis=kurtosis,
        worst=tuple(worst_stretch(series, days) for days in stretches if days <= series.size),
        warnings=tuple(_statistics_warnings(series, stretches)),
    )


def worst_stretch(returns: ArrayLike, days: int) -> WorstStretch:
    """The `days` in a row of `returns` (T,) that lost most, compounded; the first of equals. A gain is a negative loss.

    Raises ValueError like `portfolio_statistics`, and where the series is shorter than the stretch.
    """
    series = _returns("returns", returns)
    if not 1 <= days <= series.size:
        raise ValueError(f"days: expected 1 to {series.size}, got {days}")
    windows = np.lib.stride_tricks.sliding_window_view(1.0 + series, days)
    losses = 1.0 - windows.prod(axis=1)
    first = int(np.argmax(losses))
    return WorstStretch(days, float(losses[first]), first, first + days - 1)


def benchmark_fit(returns: ArrayLike, benchmark: ArrayLike) -> BenchmarkFit:
    """Beta, alpha and R² of `returns` (T,) against `benchmark` (T,), daily returns of the same days.

    beta = cov/var, alpha = mean - beta·mean of the benchmark, R² = correlation². Raises ValueError like
    `portfolio_statistics`, where the lengths differ, and where the benchmark never moves.
    """
    series, index = _returns("returns", returns), _returns("benchmark", benchmark)
    if series.size != index.size:
        raise ValueError(f"benchmark: expected the {series.size} days of the returns, got {index.size}")
    if _is_constant(index):
        raise ValueError("benchmark: expected returns that move, got a constant")
    deviations, moves = series - series.mean(), index - index.mean()
    variance = float(moves @ moves)
    beta = 0.0 if _is_constant(series) else float(deviations @ moves) / variance
    residuals = deviations - beta * moves
    unexplained, explained = float(residuals @ residuals), beta * beta * variance
    return BenchmarkFit(
        n_observations=series.size,
        beta=beta,
        alpha=(float(series.mean()) - beta * float(index.mean())) * TRADING_DAYS,
        r_squared=None if _is_constant(series) else explained / (explained + unexplained),
        residual_volatility=math.sqrt(unexplained / (series.size - 2) * TRADING_DAYS) if series.size > 2 else None,
        warnings=(CONSTANT,) if _is_constant(series) else (),
    )


def _shape(series: Floats) -> tuple[float | None, float | None]:
    """G1 and G2."""
    n = series.size
    if _is_constant(series):
        return None, None
    deviations = series - series.mean()
    m2 = float(np.mean(deviations**2))
    g1 = float(np.mean(deviations**3)) / m2**1.5
    g2 = float(np.mean(deviations**4)) / m2**2 - 3.0
    skewness = g1 * math.sqrt(n * (n - 1)) / (n - 2) if n >= 3 else None
    kurtosis = ((n + 1) * g2 + 6.0) * (n - 1) / ((n - 2) * (n - 3)) if n >= 4 else None
    return skewness, kurtosis


def _downside(series: Floats, target: float) -> float:
    if not math.isfinite(target):
        raise ValueError(f"target: expected a finite daily return, got {target}")
    return float(np.sqrt(np.mean(np.minimum(series - target, 0.0) ** 2)))


def _statistics_warnings(series: Floats, stretches: Sequence[int]) -> list[str]:
    warnings = [CONSTANT] if _is_constant(series) else []
    if series.size < 4:
        warnings.append(f"returns: {series.size} days, skewness needs 3 and kurtosis 4")
    too_long = [days for days in stretches if days > series.size]
    if too_long:
        warnings.append(f"returns: {series.size} days, too few for the worst stretch of {too_long[0]} days and more")
    return warnings


def _is_constant(series: Floats) -> bool:
    """Or moves by no more than rounding."""
    return bool(np.ptp(series) <= ROUNDING * np.abs(series).max())


def _returns(name: str, returns: ArrayLike) -> Floats:
    series = np.asarray(returns, dtype=np.float64)
    if series.ndim != 1 or series.size < 2:
        raise ValueError(f"{name}: expected one dimension of 2 days or more, got shape {series.shape}")
    if not np.isfinite(series).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if series.min() < -1.0:
        raise ValueError(f"{name}: expected decimals of -1 or more (-0.02 for -2 %), got {series.min():g}")
    return series
