"""VaR and ES from a mean, a standard deviation and the shape of the tail: Gaussian, Student-t, Cornish-Fisher.

The shape says how many standard deviations beyond the mean VaR and ES lie (`Tail`); mean and deviation come from
values and a covariance, open orders counted at their worst, or from a vector of losses. Nothing here estimates a
covariance (shrinkage.py) or takes a quantile of observations (var.py). Losses are positive.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri, stdtrit

from engine.risk.var import check_confidence

Family = Literal["gaussian", "student_t", "cornish_fisher"]

Mean = Literal["zero", "sample"]
"""What mean return is assumed: none, or that of the observations."""

DEGREES_MIN = 2.5
"""Of freedom, where they are fitted: at 2 the variance ends, and just above it a unit variance is all tail and says
nothing of the 99 % any more."""

DEGREES_MAX = 100.0
"""Above this a Student-t is a normal but for 0.6 % of its 99 % quantile."""

OBSERVATIONS_MIN = 30
"""With fewer the standard deviation itself is uncertain by more than 13 % (1 / sqrt(2·29))."""

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_GOLDEN_STEPS = 20
"""Narrow ln(100 / 2.5) = 3.7 to 0.0003, a thousandth of the estimate's own standard error on 756 days."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tail:
    """The tail of a distribution of mean 0 and variance 1: VaR and ES at one confidence, in standard deviations."""

    family: Family
    confidence: float
    var: float
    es: float
    degrees_of_freedom: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TailLoss:
    """VaR and ES of a book in money, positive = loss, and the shape they were read from."""

    var: float
    es: float
    tail: Tail


def gaussian_tail(confidence: float) -> Tail:
    """z and φ(z) / (1 - confidence): 2.326 and 2.665 at 0.99. Raises ValueError on a confidence outside (0, 1)."""
    check_confidence(confidence)
    z = float(ndtri(confidence))
    return Tail("gaussian", confidence, var=z, es=_normal_density(z) / (1.0 - confidence))


def student_t_tail(confidence: float, degrees_of_freedom: float) -> Tail:
    """Of a Student-t scaled to variance 1: q·sqrt((ν-2)/ν), and ES by the density at q.

    McNeil, Frey and Embrechts, "Quantitative Risk Management" (2015), example 2.15: ES = f(q)/(1-c) · (ν+q²)/(ν-1).
    Raises ValueError where `degrees_of_freedom` is not finite and above 2 (no variance), or on the confidence.
    """
    check_confidence(confidence)
    nu = degrees_of_freedom
    if not (math.isfinite(nu) and nu > 2.0):
        raise ValueError(f"degrees_of_freedom: expected a number above 2, where the variance is finite, got {nu}")
    scale = math.sqrt((nu - 2.0) / nu)
    q = float(stdtrit(nu, confidence))
    log_density = (
        gammaln((nu + 1.0) / 2.0)
        - gammaln(nu / 2.0)
        - 0.5 * math.log(nu * math.pi)
        - (nu + 1.0) / 2.0 * math.log1p(q * q / nu)
    )
    es = math.exp(log_density) / (1.0 - confidence) * (nu + q * q) / (nu - 1.0)
    return Tail("student_t", confidence, var=scale * q, es=scale * es, degrees_of_freedom=nu)


def cornish_fisher_tail(confidence: float, skewness: float, excess_kurtosis: float) -> Tail:
    """The normal quantile corrected for the skewness S and excess kurtosis K of a P&L (negative S = long loss tail).

    With z the normal quantile of the losses, whose skewness is -S: w(z) = z - (z²-1)S/6 + (z³-3z)K/24 - (2z³-5z)S²/36;
    ES is the mean of w beyond z, in closed form, since the tail mean of a Hermite polynomial is the one a degree lower
    times φ(z)/(1-c). It is a quantile function only where w rises everywhere (Maillard 2012, "A user's guide to the
    Cornish Fisher expansion"): S²/9 ≤ 4(K/8 - S²/6)(1 - K/8 + 5S²/36). Outside, the figure carries a warning.
    Raises ValueError on parameters that are not finite or that no distribution has (K < S² - 2).
    """
    check_confidence(confidence)
    if not (math.isfinite(skewness) and math.isfinite(excess_kurtosis)):
        raise ValueError(f"skewness, excess_kurtosis: expected finite numbers, got {skewness}, {excess_kurtosis}")
    if excess_kurtosis < skewness**2 - 2.0:
        raise ValueError(f"excess_kurtosis: expected at least skewness² - 2, got {excess_kurtosis} for {skewness}")
    s, k = -skewness, excess_kurtosis
    z = float(ndtri(confidence))
    var = z + (z**2 - 1.0) * s / 6.0 + (z**3 - 3.0 * z) * k / 24.0 - (2.0 * z**3 - 5.0 * z) * s**2 / 36.0
    slope = 1.0 + z * s / 6.0 + (z**2 - 1.0) * k / 24.0 - (2.0 * z**2 - 1.0) * s**2 / 36.0
    return Tail(
        "cornish_fisher",
        confidence,
        var=var,
        es=slope * _normal_density(z) / (1.0 - confidence),
        warnings=() if cornish_fisher_is_valid(skewness, excess_kurtosis) else (_invalid(skewness, excess_kurtosis),),
    )


def cornish_fisher_is_valid(skewness: float, excess_kurtosis: float) -> bool:
    """Whether the expansion rises everywhere, so that a higher confidence is a higher VaR (Maillard 2012)."""
    s2, k = skewness**2, excess_kurtosis
    leading, constant = k / 8.0 - s2 / 6.0, 1.0 - k / 8.0 + 5.0 * s2 / 36.0
    return leading >= 0.0 and constant >= 0.0 and s2 / 9.0 <= 4.0 * leading * constant


def tail_of(family: Family, confidence: float, pnl: Floats, degrees_of_freedom: float | None = None) -> Tail:
    """The tail of `family` with the shape that `pnl` (T,) has: ν fitted unless given, or skewness and kurtosis.

    Raises ValueError on fewer than 30 observations, on constants, on NaN, on an unknown family.
    """
    if family == "gaussian":
        return gaussian_tail(confidence)
    if family == "student_t":
        if degrees_of_freedom is not None:
            return student_t_tail(confidence, degrees_of_freedom)
        fitted = float(fit_degrees_of_freedom(pnl[:, None])[0])
        return _with_bound_warning(student_t_tail(confidence, fitted))
    if family == "cornish_fisher":
        return cornish_fisher_tail(confidence, *skewness_and_excess_kurtosis(pnl))
    raise ValueError(f"family: expected gaussian, student_t or cornish_fisher, got {family!r}")


def tail_loss(mean_pnl: float, deviation: float, tail: Tail) -> TailLoss:
    """VaR and ES in money of a P&L with this mean and standard deviation (money). Raises ValueError on NaN or < 0."""
    if not math.isfinite(mean_pnl):
        raise ValueError(f"mean_pnl: expected a finite number, got {mean_pnl}")
    if not (math.isfinite(deviation) and deviation >= 0.0):
        raise ValueError(f"deviation: expected a finite number of 0 or more, got {deviation}")
    return TailLoss(var=deviation * tail.var - mean_pnl, es=deviation * tail.es - mean_pnl, tail=tail)


def book_tail_loss(
    values: Floats, covariance: Floats, tail: Tail, mean: Floats | None = None, orders: Floats | None = None
) -> TailLoss:
    """VaR and ES of positions `values` (n,), money, under `covariance` (n, n) and `mean` (n,) of daily returns.

    `orders` (n,) is the gross value of open orders per instrument, buys and sells added up; whichever of them fill,
    the loss is at most this (NUMERICS: z·(σ(w) + Σ|q_j|·σ_j)), and a mean counts against each of them likewise.
    Raises ValueError on shapes, NaN, negative orders or a covariance that gives the book a negative variance.
    """
    deviation = worst_case_deviation(values, covariance, orders)
    return tail_loss(0.0 if mean is None else worst_case_mean(values, mean, orders), deviation, tail)


def losses_tail_loss(
    losses: Floats,
    confidence: float,
    family: Family = "gaussian",
    mean: Mean = "zero",
    degrees_of_freedom: float | None = None,
) -> TailLoss:
    """VaR and ES of the family fitted to `losses` (T,), money, positive = loss: standard deviation with ddof = 1.

    For books whose P&L is known by day alone, such as options by full revaluation. Raises ValueError like `tail_of`.
    """
    check_observations("losses", losses)
    tail = tail_of(family, confidence, -losses, degrees_of_freedom)
    return tail_loss(-float(losses.mean()) if mean == "sample" else 0.0, float(losses.std(ddof=1)), tail)


def deviation_of(values: Floats, covariance: Floats) -> float:
    """Standard deviation of the P&L of `values` (n,), money per day. Raises ValueError on shapes, NaN, variance < 0."""
    if values.ndim != 1 or covariance.shape != (values.size, values.size):
        raise ValueError(f"covariance: expected shape {(values.size, values.size)}, got {covariance.shape}")
    if not (np.isfinite(values).all() and np.isfinite(covariance).all()):
        raise ValueError("values, covariance: expected finite numbers, got NaN or infinity")
    variance = float(values @ covariance @ values)
    rounding = 1e-12 * float(np.abs(values) @ np.abs(covariance) @ np.abs(values))
    if variance < -rounding:
        raise ValueError(f"covariance: expected a positive semi-definite matrix, got a variance of {variance:g}")
    return math.sqrt(max(variance, 0.0))


def worst_case_deviation(values: Floats, covariance: Floats, orders: Floats | None = None) -> float:
    """σ(w) + Σ|q_j|·σ_j in money per day: no fill of `orders` (n,), gross, takes σ beyond it (triangle inequality)."""
    deviation = deviation_of(values, covariance)
    if orders is None:
        return deviation
    check_orders(orders, values.size)
    return deviation + float(orders @ np.sqrt(np.diagonal(covariance)))


def worst_case_mean(values: Floats, mean: Floats, orders: Floats | None = None) -> float:
    """Mean P&L per day of `values` (n,) under mean returns (n,), less what the fills of `orders` (n,) could cost."""
    if mean.shape != values.shape or not np.isfinite(mean).all():
        raise ValueError(f"mean: expected {values.size} finite numbers, got shape {mean.shape}")
    held = float(values @ mean)
    if orders is None:
        return held
    check_orders(orders, values.size)
    return held - float(orders @ np.abs(mean))


def fit_degrees_of_freedom(observations: Floats) -> Floats:
    """ν of the unit-variance Student-t of each column of `observations` (T, n): shape (n,), between 2.5 and 100.

    Maximum likelihood of ν alone, on the columns less their mean over their standard deviation (ddof = 1): Bollerslev
    (1987), equation 1, with the variance fixed. Golden section over ln ν, all columns at once. Raises ValueError on
    NaN, fewer than 30 rows, or a column that never moves.
    """
    if observations.ndim != 2:
        raise ValueError(f"observations: expected shape (days, series), got {observations.shape}")
    check_observations("observations", observations)
    centred = observations - observations.mean(axis=0)
    squares = centred * centred
    squares /= squares.sum(axis=0) / (len(observations) - 1)
    scratch = np.empty_like(squares)

    def likelihood(log_nu: Floats) -> Floats:
        nu = np.exp(log_nu)
        spread = np.log(np.add(squares, nu - 2.0, out=scratch), out=scratch).mean(axis=0) - np.log(nu - 2.0)
        fit: Floats = gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * np.log(nu - 2.0) - (nu + 1.0) / 2.0 * spread
        return fit

    low = np.full(observations.shape[1], math.log(DEGREES_MIN))
    high = np.full(observations.shape[1], math.log(DEGREES_MAX))
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = likelihood(left), likelihood(right)
    for _ in range(_GOLDEN_STEPS):
        leftward = at_left > at_right
        low, high = np.where(leftward, low, left), np.where(leftward, right, high)
        probe = np.where(leftward, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_probe = likelihood(probe)
        left, right = np.where(leftward, probe, right), np.where(leftward, left, probe)
        at_left, at_right = np.where(leftward, at_probe, at_right), np.where(leftward, at_left, at_probe)
    return np.asarray(np.exp((low + high) / 2.0))


def skewness_and_excess_kurtosis(pnl: Floats) -> tuple[float, float]:
    """m₃/m₂^1.5 and m₄/m₂² - 3 of `pnl` (T,), with divisor T. Raises ValueError like `fit_degrees_of_freedom`."""
    check_observations("pnl", pnl)
    centred = pnl - pnl.mean()
    variance = float((centred**2).mean())
    return float((centred**3).mean()) / variance**1.5, float((centred**4).mean()) / variance**2 - 3.0


def check_observations(name: str, observed: Floats) -> None:
    """Raise ValueError unless `observed` (T, …) is finite, holds at least 30 rows, and no series in it is constant."""
    if observed.shape[0] < OBSERVATIONS_MIN:
        raise ValueError(f"{name}: expected at least {OBSERVATIONS_MIN} observations, got {observed.shape[0]}")
    if not np.isfinite(observed).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if (observed.min(axis=0) == observed.max(axis=0)).any():
        raise ValueError(f"{name}: expected a variance above 0, got a constant series")


def check_orders(orders: Floats, n: int) -> None:
    """Raise ValueError unless `orders` holds `n` finite gross values of 0 or more."""
    if orders.shape != (n,) or not (np.isfinite(orders).all() and (orders >= 0.0).all()):
        raise ValueError(f"orders: expected {n} finite gross values of 0 or more, got shape {orders.shape}")


def _normal_density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _invalid(skewness: float, excess_kurtosis: float) -> str:
    return (
        f"cornish_fisher: skewness {skewness:.2f} and excess kurtosis {excess_kurtosis:.2f} lie outside the domain "
        "where the expansion is a quantile function (Maillard 2012): the figure may fall as the confidence rises"
    )


def _with_bound_warning(tail: Tail) -> Tail:
    nu = tail.degrees_of_freedom
    if nu is None or nu > DEGREES_MIN * 1.001:
        return tail
    warning = f"student_t: fitted degrees of freedom at their lower bound of {DEGREES_MIN}: the tail may be heavier"
    return Tail(tail.family, tail.confidence, tail.var, tail.es, nu, (*tail.warnings, warning))
