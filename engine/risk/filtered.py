"""Filtered historical simulation: each day's P&L over the volatility forecast for it, times the forecast for today.

The filter runs on the P&L series of today's book, not on each instrument: one fit rather than n, the dependence between
positions stays as each day had it, and options by full revaluation go in as they are. Deterministic: several days are
consecutive residuals led through the volatility's recursion, never drawn. No mean is taken out. Imports arch, so only
the worker may import this.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from arch import arch_model
from numpy.typing import NDArray

from engine.risk.horizon import check_horizon

Filter = Literal["ewma", "garch"]

EWMA_DECAY = 0.94
"""RiskMetrics (1996) for daily data."""

EWMA_WARM_UP_DAYS = 30
"""The first forecast is the mean square of these days, which give no residual themselves: looking ahead for a start
value would let a residual know its own future."""

EWMA_DAYS_MIN = 2 * EWMA_WARM_UP_DAYS

GARCH_DAYS_MIN = 250
"""With less than a year the persistence is hardly told from 1."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """A P&L series, filtered: residuals, and the recursion σ²' = omega + alpha·pnl² + beta·σ² that made them."""

    filter: Filter
    residuals: Floats
    """P&L over the deviation forecast for its day from the days before, oldest first, shape (n,), no unit."""
    deviation: float
    """The forecast for the coming day, money per day."""
    omega: float
    """Money² per day; 0 for EWMA."""
    alpha: float
    beta: float
    warnings: tuple[str, ...] = ()

    def losses(self, horizon_days: int = 1) -> Floats:
        """Losses over h days from today's volatility, one per window of h residuals: shape (n - h + 1,), money.

        Barone-Adesi, Giannopoulos and Vosper (1999), with consecutive residuals where they draw: the deviation of each
        further day follows from the simulated P&L before it. Raises ValueError on h outside 1 to 20 or above n.
        """
        check_horizon(horizon_days)
        n_windows = self.residuals.size - horizon_days + 1
        if n_windows < 1:
            raise ValueError(f"residuals: expected at least {horizon_days}, got {self.residuals.size}")
        variance = np.full(n_windows, self.deviation**2)
        total = np.zeros(n_windows)
        for day in range(horizon_days):
            pnl = np.sqrt(variance) * self.residuals[day : day + n_windows]
            total += pnl
            variance = self.omega + self.alpha * pnl**2 + self.beta * variance
        return -total


def ewma_filtered(pnl: Floats, decay: float = EWMA_DECAY) -> Filtered:
    """`pnl` (T,), money per day, oldest first, filtered by σ²(t+1) = λσ²(t) + (1-λ)pnl²(t), zero mean.

    The first 30 days start the recursion. Raises ValueError on fewer than 60 days, NaN, λ outside (0, 1), or where a
    forecast is 0 (nothing moved before).
    """
    _check_series(pnl, EWMA_DAYS_MIN)
    if not 0.0 < decay < 1.0:
        raise ValueError(f"decay: expected a number above 0 and below 1, got {decay}")
    variances = ewma_variances(pnl, decay)
    if not (variances > 0.0).all():
        raise ValueError(f"pnl: expected moves in the first {EWMA_WARM_UP_DAYS} days, got none")
    return Filtered(
        filter="ewma",
        residuals=pnl[EWMA_WARM_UP_DAYS:] / np.sqrt(variances[:-1]),
        deviation=math.sqrt(variances[-1]),
        omega=0.0,
        alpha=1.0 - decay,
        beta=decay,
    )


def ewma_variances(pnl: Floats, decay: float = EWMA_DECAY) -> Floats:
    """Forecasts for day 31 to T + 1, each from the days before: shape (T - 29,), money² per day."""
    variance = float((pnl[:EWMA_WARM_UP_DAYS] ** 2).mean())
    variances = [variance]
    for square in (pnl[EWMA_WARM_UP_DAYS:] ** 2).tolist():
        variance = decay * variance + (1.0 - decay) * square
        variances.append(variance)
    return np.array(variances)


def garch_filtered(pnl: Floats) -> Filtered:
    """`pnl` (T,), money per day, oldest first, filtered by a GARCH(1,1) without mean, fitted by arch.

    Normal quasi-maximum likelihood, consistent whatever the residuals' distribution is (Bollerslev and Wooldridge
    1992). The parameters, and arch's start value, know the whole series; each forecast only the days before it. A fit
    that did not converge or whose persistence reaches 1 is answered by EWMA, by that name and with a warning. Raises
    ValueError on fewer than 250 days, NaN or a constant series.
    """
    _check_series(pnl, GARCH_DAYS_MIN)
    unit = float(pnl.std())
    if unit <= 0.0:
        raise ValueError("pnl: expected a variance above 0, got a constant series")
    fit = arch_model(pnl * (_FIT_DEVIATION / unit), mean="Zero", vol="GARCH", p=1, q=1, rescale=False).fit(
        disp="off", show_warning=False
    )
    omega, alpha, beta = (float(fit.params[name]) for name in ("omega", "alpha[1]", "beta[1]"))
    if fit.convergence_flag != 0 or not (math.isfinite(omega) and alpha + beta < 1.0):
        return _in_place_of_garch(ewma_filtered(pnl), alpha + beta, int(fit.convergence_flag))
    deviations = np.asarray(fit.conditional_volatility, dtype=np.float64) * (unit / _FIT_DEVIATION)
    omega *= (unit / _FIT_DEVIATION) ** 2
    variance = omega + alpha * float(pnl[-1]) ** 2 + beta * float(deviations[-1]) ** 2
    return Filtered("garch", pnl / deviations, math.sqrt(variance), omega, alpha, beta)


_FIT_DEVIATION = 10.0
"""arch's optimiser wants a variance between 1 and 1,000."""


def filtered(pnl: Floats, by: Filter = "ewma") -> Filtered:
    """The series filtered `by` EWMA (λ 0.94) or GARCH(1,1). Raises ValueError like either."""
    if by == "ewma":
        return ewma_filtered(pnl)
    if by == "garch":
        return garch_filtered(pnl)
    raise ValueError(f"by: expected ewma or garch, got {by!r}")


def _in_place_of_garch(ewma: Filtered, persistence: float, flag: int) -> Filtered:
    why = f"did not converge (code {flag})" if flag != 0 else f"has a persistence of {persistence:.4f}, not below 1"
    return Filtered(
        ewma.filter,
        ewma.residuals,
        ewma.deviation,
        ewma.omega,
        ewma.alpha,
        ewma.beta,
        warnings=(f"filtered: GARCH(1,1) {why}: EWMA {EWMA_DECAY} instead",),
    )


def _check_series(pnl: Floats, days_min: int) -> None:
    if pnl.ndim != 1:
        raise ValueError(f"pnl: expected one dimension, got shape {pnl.shape}")
    if pnl.size < days_min:
        raise ValueError(f"pnl: expected at least {days_min} days, got {pnl.size}")
    if not np.isfinite(pnl).all():
        raise ValueError("pnl: expected finite numbers, got NaN or infinity")
