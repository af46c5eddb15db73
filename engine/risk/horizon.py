"""From one day to several: overlapping windows, the square root of time, and the ultra-short VaR (UVaR).

A window compounds each instrument's daily returns (the book is bought and held, not traded back to its values each
day): that is what makes the S&P's 5 days at 99 % 11.5 % in March 2020, against 9.2 % by the square root of time.
Options are no such column: their caller revalues them under the moves of h days, h days older. No estimation here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.risk.var import Quantile, value_at_risk

HorizonMethod = Literal["overlapping", "square_root"]

Status = Literal["OK", "WARNING", "BREACHED"]

HORIZON_DAYS_MAX = 20
"""Of 756 days only 37 windows of 20 are apart from each other: beyond a month nothing is left to count."""

UVAR_HORIZONS_DAYS = (1, 3, 5)

UVAR_CONFIDENCE = 0.99

WARN_SHARE = 0.80
"""Of the limit, from which on UVaR warns unless its caller says otherwise."""

Floats = NDArray[np.float64]


def check_horizon(horizon_days: int) -> None:
    """Raise ValueError unless `horizon_days` is 1 to 20."""
    if not 1 <= horizon_days <= HORIZON_DAYS_MAX:
        raise ValueError(f"horizon_days: expected 1 to {HORIZON_DAYS_MAX}, got {horizon_days}")


def overlapping_returns(returns: Floats, horizon_days: int) -> Floats:
    """Compounded simple returns over each window of h days: (T, n) daily ones, oldest first, to (T - h + 1, n).

    Row s covers the days s to s + h - 1. Raises ValueError on h outside 1 to 20 or fewer than h rows.
    """
    check_horizon(horizon_days)
    n_windows = returns.shape[0] - horizon_days + 1
    if n_windows < 1:
        raise ValueError(f"returns: expected at least {horizon_days} days, got {returns.shape[0]}")
    if horizon_days == 1:
        return returns
    growth: Floats = 1.0 + returns[:n_windows]
    for day in range(1, horizon_days):
        growth *= 1.0 + returns[day : day + n_windows]
    growth -= 1.0
    return growth


def overlapping_sums(pnl: Floats, horizon_days: int) -> Floats:
    """P&L over each window of h days of a book that is traded back to its values each evening: (T,) to (T - h + 1,).

    Exact for futures of constant contracts and for P&L histories; for holdings use `overlapping_returns`.
    """
    check_horizon(horizon_days)
    if pnl.ndim != 1 or pnl.size < horizon_days:
        raise ValueError(f"pnl: expected one dimension of at least {horizon_days} days, got shape {pnl.shape}")
    sums: Floats = np.lib.stride_tricks.sliding_window_view(pnl, horizon_days).sum(axis=1)
    return sums


def square_root_of_time(one_day: float, horizon_days: int) -> float:
    """A one-day VaR or ES times sqrt(h): right where days are independent and the mean is 0. Raises on h."""
    check_horizon(horizon_days)
    return one_day * math.sqrt(horizon_days)


def thin_tail_warning(n_days: int, horizon_days: int, confidence: float) -> str | None:
    """What to say where the tail holds less than one window that does not overlap another; None where it holds one."""
    apart = n_days / horizon_days
    if horizon_days == 1 or apart * (1.0 - confidence) >= 1.0 - 1e-9:
        return None
    return (
        f"horizon: {n_days} days hold {apart:.0f} windows of {horizon_days} days apart from each other: less than one "
        f"of them lies beyond {confidence:.4g}"
    )


@dataclass(frozen=True, slots=True)
class UltraShortVar:
    """What could be lost in the next days, gaps through events included. P&L figures in money: negative = loss."""

    var_1d: float
    var_3d: float
    var_5d: float
    confidence: float
    current_exposure: float
    """P&L of the session so far."""
    status: Status
    excess: float
    """The largest amount by which a horizon's loss is over its limit, money; 0 within all: what reductions free."""
    gap_horizons_days: tuple[int, ...]
    """The horizons whose figure is the gap loss, and not history's."""
    n_observations: Mapping[int, int] = field(default_factory=dict)
    """Windows behind each horizon's historical VaR."""
    limits: Mapping[int, float] = field(default_factory=dict)
    """By horizon in days, a loss in money; empty: none."""
    warnings: tuple[str, ...] = ()

    def figures(self) -> dict[str, float | str]:
        """The six figures by the names that its users specified."""
        return {
            "var_1d": self.var_1d,
            "var_3d": self.var_3d,
            "var_5d": self.var_5d,
            "confidence": self.confidence,
            "current_exposure": self.current_exposure,
            "status": self.status,
        }


def ultra_short_var(
    pnl: Mapping[int, Floats],
    session_pnl: float,
    gap_loss: float | None = None,
    limits: Mapping[int, float] | None = None,
    warn_share: float = WARN_SHARE,
    confidence: float = UVAR_CONFIDENCE,
    quantile: Quantile = "order_statistic",
) -> UltraShortVar:
    """max(historical h-day VaR, gap loss) for 1, 3 and 5 days, against `limits` by horizon.

    `pnl` holds the book's P&L in money by window for each horizon of 1, 3, 5 days, shape (n_windows,), open orders at
    their worst row by row and options revalued h days older. `gap_loss`: the largest loss of a gap through a coming
    event, positive = loss, None where no event reaches the book; it stands beside the quantile and never in it. A limit
    is a loss in money: BREACHED above it, WARNING from `warn_share` of it on, OK else (and where there are no limits).
    Raises ValueError on missing horizons, NaN, too few windows, a limit or share that is not above 0.
    """
    if set(pnl) != set(UVAR_HORIZONS_DAYS):
        raise ValueError(f"pnl: expected the horizons 1, 3 and 5, got {sorted(pnl)}")
    if not math.isfinite(session_pnl):
        raise ValueError(f"session_pnl: expected a finite number, got {session_pnl}")
    if gap_loss is not None and not math.isfinite(gap_loss):
        raise ValueError(f"gap_loss: expected a finite number or None, got {gap_loss}")
    limits = limits or {}
    _check_limits(limits, warn_share)
    historical = {days: value_at_risk(-pnl[days], confidence, quantile) for days in UVAR_HORIZONS_DAYS}
    losses = {days: var if gap_loss is None else max(var, gap_loss) for days, var in historical.items()}
    thin = (thin_tail_warning(pnl[days].size + days - 1, days, confidence) for days in UVAR_HORIZONS_DAYS)
    return UltraShortVar(
        var_1d=-losses[1],
        var_3d=-losses[3],
        var_5d=-losses[5],
        confidence=confidence,
        current_exposure=session_pnl,
        status=_status(losses, limits, warn_share),
        excess=max((losses[days] - limit for days, limit in limits.items() if losses[days] > limit), default=0.0),
        gap_horizons_days=tuple(days for days in UVAR_HORIZONS_DAYS if losses[days] > historical[days]),
        n_observations={days: pnl[days].size for days in UVAR_HORIZONS_DAYS},
        limits=limits,
        warnings=tuple(warning for warning in thin if warning is not None),
    )


def _check_limits(limits: Mapping[int, float], warn_share: float) -> None:
    unknown = sorted(set(limits) - set(UVAR_HORIZONS_DAYS))
    if unknown:
        raise ValueError(f"limits: expected the horizons 1, 3 and 5, got {unknown[0]}")
    for days, limit in limits.items():
        if not (math.isfinite(limit) and limit > 0.0):
            raise ValueError(f"limits: {days} days: expected a loss above 0, got {limit}")
    if not 0.0 < warn_share <= 1.0:
        raise ValueError(f"warn_share: expected above 0 and at most 1, got {warn_share}")


def _status(losses: Mapping[int, float], limits: Mapping[int, float], warn_share: float) -> Status:
    if any(losses[days] > limit for days, limit in limits.items()):
        return "BREACHED"
    if any(losses[days] >= warn_share * limit for days, limit in limits.items()):
        return "WARNING"
    return "OK"
