"""Monte Carlo: daily returns simulated with a fitted Student-t for each instrument under a Gaussian or t copula.

First the model of the returns is fitted (`fit_path_model`: it depends on no book and may be kept), then paths are
drawn from it with the caller's generator, then a book's P&L is read off them; options go through their caller's
revaluation. For a linear book the parametric methods give nearly the same without the noise: this one is for options
and for tails that differ between instruments. No quantile is taken here. Each path has its mirror image, which halves
the draws. Imports scikit-learn by way of shrinkage.py, so only the worker may import this.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import gammaln, ndtr, ndtri, stdtr, stdtrit

from engine.risk.parametric import DEGREES_MAX, DEGREES_MIN, Mean, check_observations, fit_degrees_of_freedom
from engine.risk.shrinkage import (
    check_returns,
    correlation_of,
    floored_cholesky,
    moving_columns,
    shrunk_covariance,
    shrunk_factors,
)

Copula = Literal["gaussian", "student_t"]

PATHS = 10_000
"""The 99 % quantile of a normal P&L is then within 1.6 % of the truth, one standard error."""

BLOCK_PAIRS = 500
"""Paths and mirror images drawn at a time: 20 MB for 5,000 instruments, and small enough for the cache at 500."""

KNOTS = 512
"""Of each instrument's table from 0 to its end; between them the line is within a thousandth of it."""

DEGREES_STEP = 0.02
"""Marginals' degrees of freedom are rounded to steps of 2 %, a tenth of their standard error, to share their tables."""

TAIL_PROBABILITY_MIN = 1e-15
"""Where the tables end: one draw in 10^15 would lie beyond and is held there."""

COPULA_DEGREES = (2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 35.0, 70.0)
"""What a t copula's degrees of freedom are chosen from: likelihoods of neighbours differ by less than their noise."""

Floats = NDArray[np.float64]

Revalue = Callable[[Floats], Floats]
"""Path returns (paths, n) to the P&L of one unit of each of m options, (paths, m), in base currency."""


@dataclass(frozen=True, slots=True, eq=False)
class Revaluation:
    """Options whose P&L is no multiple of a return. `low` and `high` (m,): the two ends of their quantities."""

    revalue: Revalue
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PathModel:
    """The fitted model of n instruments' returns over one period.

    Correlated normals are `mix` @ u, plus `own` × e where there are more instruments than days (no n × n matrix is
    formed then); divided, for a t copula, by sqrt(W/ν) with one chi-square W a path; then each instrument's table takes
    them to its Student-t of variance 1. What never moved has a deviation of 0.
    """

    mean: Floats
    """(n,) per period."""
    deviations: Floats
    """(n,) per period, ddof = 1."""
    degrees_of_freedom: Floats
    """(n,), NaN for what never moved."""
    mix: Floats
    """(k, r) of the k instruments that move: the Cholesky factor of their correlation, or loadings over deviations."""
    own: Floats | None
    """(k,) deviation of what each has for itself beside the loadings; None with a Cholesky factor."""
    copula: Copula
    copula_degrees_of_freedom: float | None
    n_observations: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Simulated returns over one period: `returns` (n, pairs), instrument by instrument; each pair also stands for its
    mirror image, 2·mean - returns."""

    returns: Floats
    mean: Floats

    @property
    def n_paths(self) -> int:
        return 2 * int(self.returns.shape[1])

    def matrix(self) -> Floats:
        """All paths, shape (2·pairs, n): the drawn ones, then their mirror images in the same order."""
        return np.concatenate((self.returns, 2.0 * self.mean[:, None] - self.returns), axis=1).T

    def pnl(self, low: Floats, high: Floats, options: Revaluation | None = None) -> Floats:
        """P&L by path, shape (2·pairs,), money, each symbol at the worse of its ends `low` and `high` (n,), money."""
        line, apart = low @ self.returns, np.flatnonzero(low != high)
        drawn, mirrored = line, 2.0 * float(self.mean @ low) - line
        if apart.size:
            between, open_returns = (high - low)[apart], self.returns[apart]
            drawn = drawn + between @ np.minimum(open_returns, 0.0)
            mirrored = mirrored + between @ np.minimum(2.0 * self.mean[apart, None] - open_returns, 0.0)
        if options is not None:
            drawn = drawn + _option_pnl(self.returns, options)
            mirrored = mirrored + _option_pnl(2.0 * self.mean[:, None] - self.returns, options)
        return np.concatenate((drawn, mirrored))


def fit_path_model(
    returns: Floats,
    copula: Copula = "gaussian",
    copula_degrees_of_freedom: float | None = None,
    mean: Mean = "zero",
) -> PathModel:
    """Fits marginals and dependence to `returns` (T, n), simple, one row per period, oldest first.

    Marginals: standard deviation (ddof = 1) and ν by maximum likelihood between 2.5 and 100, in steps of 2 %.
    Dependence: the correlation of the Ledoit-Wolf covariance, taken as the copula's parameter. A t copula's ν is given
    or chosen by the pseudo-likelihood of the ranks (Demarta and McNeil 2005, "The t copula and related copulas"); with
    more instruments than rows it must be given. Raises ValueError on NaN, fewer than 30 rows, nothing that moves.
    """
    check_returns(returns)
    moving = moving_columns(returns)
    if not moving.any():
        raise ValueError("returns: expected at least one column that moves, got constants")
    moved = returns[:, moving]
    check_observations("returns", moved)
    degrees = _rounded(fit_degrees_of_freedom(moved))
    warnings = _bound_warnings(degrees)
    n_days, k = moved.shape
    if k > n_days:
        mix, own = _loadings(moved)
    else:
        mix, raised = floored_cholesky(correlation_of(shrunk_covariance(moved)[0]))
        own = None
        warnings += ("correlation: eigenvalues raised to their floor",) if raised else ()
    return PathModel(
        mean=returns.mean(axis=0) if mean == "sample" else np.zeros(moving.size),
        deviations=_spread_out(moved.std(axis=0, ddof=1), moving, 0.0),
        degrees_of_freedom=_spread_out(degrees, moving, np.nan),
        mix=mix,
        own=own,
        copula=copula,
        copula_degrees_of_freedom=_copula_degrees(copula, copula_degrees_of_freedom, moved, mix, own),
        n_observations=n_days,
        warnings=warnings,
    )


def simulate(model: PathModel, rng: np.random.Generator, n_paths: int = PATHS) -> Paths:
    """`n_paths` paths (an even number), all in memory: n × n_paths / 2 numbers, to be kept for many books.

    The same draws in the same order as `simulated_pnl`. Raises ValueError where `n_paths` is odd or below 2.
    """
    blocks = [block.returns for block in path_blocks(model, rng, n_paths)]
    return Paths(np.concatenate(blocks, axis=1), model.mean)


def simulated_pnl(
    model: PathModel,
    low: Floats,
    high: Floats,
    rng: np.random.Generator,
    n_paths: int = PATHS,
    options: Revaluation | None = None,
) -> Floats:
    """P&L of one book on `n_paths` paths, shape (n_paths,), money, a block of paths at a time in memory.

    `low` and `high` (n,): values in money at the two ends of the open orders, equal where there are none. Raises
    ValueError on shapes, NaN, low above high, or where the revaluation returns another shape or no number.
    """
    check_ends(low, high, model.mean.size)
    if options is not None:
        check_ends(options.low, options.high, options.low.size)
    return np.concatenate([block.pnl(low, high, options) for block in path_blocks(model, rng, n_paths)])


def path_blocks(model: PathModel, rng: np.random.Generator, n_paths: int) -> Iterator[Paths]:
    """The paths in blocks of at most 1,000 (500 drawn, 500 mirrored). Raises ValueError like `simulate`."""
    if n_paths < 2 or n_paths % 2:
        raise ValueError(f"n_paths: expected an even number of 2 or more, got {n_paths}")
    tables = _tables(model)
    moving = np.flatnonzero(model.deviations > 0.0)
    for start in range(0, n_paths // 2, BLOCK_PAIRS):
        pairs = min(BLOCK_PAIRS, n_paths // 2 - start)
        returns = np.repeat(model.mean[:, None], pairs, axis=1)
        for row, draws in zip(moving.tolist(), _dependent_draws(model, rng, pairs), strict=True):
            returns[row] += model.deviations[row] * tables.at(draws, model.degrees_of_freedom[row])
        yield Paths(returns, model.mean)


def worst_pnl(returns: Floats, low: Floats, high: Floats) -> Floats:
    """P&L of each column of `returns` (n, paths), each instrument at the worse of its ends: shape (paths,)."""
    pnl: Floats = low @ returns
    apart = np.flatnonzero(low != high)
    if apart.size:
        pnl = pnl + (high - low)[apart] @ np.minimum(returns[apart], 0.0)
    return pnl


def check_ends(low: Floats, high: Floats, n: int) -> None:
    """Raise ValueError unless `low` and `high` hold `n` finite numbers each, low nowhere above high."""
    if low.shape != (n,) or high.shape != (n,):
        raise ValueError(f"low, high: expected shape {(n,)}, got {low.shape} and {high.shape}")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("low, high: expected finite numbers, got NaN or infinity")
    if (low > high).any():
        raise ValueError("low, high: expected low nowhere above high")


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Quantiles of the unit-variance Student-t's, at equidistant knots of the draw: of a normal, or of arcsinh(t)."""

    of_degrees: Mapping[float, Floats]
    """Shape (2·KNOTS + 1,) each, from the lowest knot to the highest."""
    knots_per_unit: float

    def at(self, draws: Floats, degrees_of_freedom: float) -> Floats:
        """Linear between the knots, at `draws` (pairs,); what lies beyond the ends is held there."""
        table = self.of_degrees[degrees_of_freedom]
        place = draws * self.knots_per_unit + KNOTS
        np.minimum(np.maximum(place, 0.0, out=place), 2.0 * KNOTS - 1e-9, out=place)
        left = place.astype(np.int64)
        place -= left
        low = table.take(left)
        place *= table.take(left + 1) - low
        place += low
        return place


def _tables(model: PathModel) -> _Tables:
    copula_nu = model.copula_degrees_of_freedom
    if copula_nu is None:
        end = -float(ndtri(TAIL_PROBABILITY_MIN))
        probabilities = ndtr(-np.linspace(0.0, end, KNOTS + 1))
    else:
        end = math.asinh(-float(stdtrit(copula_nu, TAIL_PROBABILITY_MIN)))
        probabilities = stdtr(copula_nu, -np.sinh(np.linspace(0.0, end, KNOTS + 1)))
    distinct = np.unique(model.degrees_of_freedom[model.deviations > 0.0])
    below = np.sqrt((distinct - 2.0) / distinct)[:, None] * stdtrit(distinct[:, None], probabilities)
    below[:, 0] = 0.0
    whole = np.concatenate((below[:, :0:-1], -below), axis=1)
    return _Tables(dict(zip(distinct.tolist(), whole, strict=True)), KNOTS / end)


def _dependent_draws(model: PathModel, rng: np.random.Generator, pairs: int) -> Floats:
    """Draws with the copula's dependence, shape (k, pairs): normals, or arcsinh of Student-t variates."""
    draws: Floats = model.mix @ rng.standard_normal((model.mix.shape[1], pairs))
    if model.own is not None:
        draws += model.own[:, None] * rng.standard_normal((model.own.size, pairs))
    nu = model.copula_degrees_of_freedom
    if nu is not None:
        draws *= np.sqrt(nu / rng.chisquare(nu, pairs))
        np.arcsinh(draws, out=draws)
    return draws


def _rounded(degrees: Floats) -> Floats:
    rounded = np.exp(np.round(np.log(degrees) / DEGREES_STEP) * DEGREES_STEP)
    return np.clip(rounded, DEGREES_MIN, DEGREES_MAX)


def _loadings(moved: Floats) -> tuple[Floats, Floats]:
    """The correlation of the shrunk covariance as mix (k, T) and own (k,): mix @ mix.T + diag(own²)."""
    factors = shrunk_factors(moved)
    deviations = np.sqrt(factors.variances())
    return np.ascontiguousarray((factors.loadings / deviations).T), np.sqrt(factors.noise) / deviations


def _copula_degrees(
    copula: Copula, given: float | None, moved: Floats, mix: Floats, own: Floats | None
) -> float | None:
    if copula == "gaussian":
        if given is not None:
            raise ValueError("copula_degrees_of_freedom: expected none for a gaussian copula")
        return None
    if copula != "student_t":
        raise ValueError(f"copula: expected gaussian or student_t, got {copula!r}")
    if given is not None:
        if not (math.isfinite(given) and given > 2.0):
            raise ValueError(f"copula_degrees_of_freedom: expected a number above 2, got {given}")
        return given
    if own is not None:
        raise ValueError("copula_degrees_of_freedom: expected to be given for more instruments than days")
    return fit_copula_degrees(moved, mix)


def fit_copula_degrees(returns: Floats, cholesky: Floats) -> float:
    """The ν of COPULA_DEGREES under which the ranks of `returns` (T, n) are likeliest, at a correlation of L @ L.T.

    The pseudo-log-likelihood of a t copula is that of the multivariate t less those of its marginals; what does not
    depend on ν is left out.
    """
    n_days, n = returns.shape
    if n == 1:
        return COPULA_DEGREES[-1]
    ranks = returns.argsort(axis=0).argsort(axis=0)
    steps = np.arange(1, n_days + 1) / (n_days + 1.0)

    def likelihood(nu: float) -> float:
        quantiles = stdtrit(nu, steps)
        whitened = solve_triangular(cholesky, quantiles[ranks].T, lower=True)
        joint = gammaln((nu + n) / 2.0) + (n - 1) * gammaln(nu / 2.0) - n * gammaln((nu + 1.0) / 2.0)
        distance = np.log1p(np.einsum("it,it->t", whitened, whitened) / nu)
        alone = n * np.log1p(quantiles**2 / nu)
        return float(n_days * joint - (nu + n) / 2.0 * distance.sum() + (nu + 1.0) / 2.0 * alone.sum())

    return max(COPULA_DEGREES, key=likelihood)


def _option_pnl(returns: Floats, options: Revaluation) -> Floats:
    units = np.asarray(options.revalue(returns.T), dtype=np.float64)
    expected = (returns.shape[1], options.low.size)
    if units.shape != expected or not np.isfinite(units).all():
        raise ValueError(f"revalue: expected {expected} finite P&Ls (paths, options), got shape {units.shape}")
    pnl: Floats = np.minimum(units * options.low, units * options.high).sum(axis=1)
    return pnl


def _spread_out(values: Floats, moving: NDArray[np.bool_], elsewhere: float) -> Floats:
    whole = np.full(moving.size, elsewhere)
    whole[moving] = values
    return whole


def _bound_warnings(degrees: Floats) -> tuple[str, ...]:
    n_bound = int((degrees < DEGREES_MIN * 1.001).sum())
    if not n_bound:
        return ()
    return (f"monte_carlo: {n_bound} instruments with degrees of freedom at the lower bound of {DEGREES_MIN}",)
