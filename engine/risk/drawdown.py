"""How far a net asset value has fallen: from its peak, in the session, since the baseline was reset; its worst fall.

Series of unit NAV whose first row is the starting capital: a book that only ever lost has fallen from that. Falls are
shares of the height fallen from, 0 or more, 0.1 = ten per cent (above 1 only where the NAV is below 0). The account's
own high-water mark is folded in engine/account.py; here are figures over a history.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawdowns:
    """The last NAV against four heights, as shares of them."""

    from_peak: float
    """The highest NAV of the whole series."""
    from_session_peak: float
    """The highest since the session opened, its opening included."""
    from_session_start: float
    """The NAV at the session's opening; 0 where it stands above."""
    since_reset: float
    """The highest since the baseline was reset, that row included."""


@dataclass(frozen=True, slots=True)
class Fall:
    """The deepest drawdown of a series, and the rows it lies between."""

    depth: float
    """Share of the peak, 0 where the series never fell."""
    peak: int
    """The last row at the height fallen from; all three are 0 where it never fell."""
    trough: int
    recovery: int | None
    """The first row after the trough that is back at the peak; None: not yet."""


def nav_series(starting_capital: float, pnl: ArrayLike) -> Floats:
    """(T + 1,) NAV in money: the starting capital, then after each P&L of `pnl` (T,), same currency, oldest first.

    Raises ValueError where the capital is not above 0 or a P&L is not finite.
    """
    steps = np.asarray(pnl, dtype=np.float64)
    if steps.ndim != 1 or not np.isfinite(steps).all():
        raise ValueError(f"pnl: expected one dimension of finite numbers, got shape {steps.shape}")
    return _navs(starting_capital + np.concatenate(([0.0], np.cumsum(steps))))


def drawdown_series(navs: ArrayLike) -> Floats:
    """(n,) the fall of each row of `navs` (n,) from the highest row up to it, as a share; oldest first.

    Raises ValueError on no rows, NaN or infinity, or a starting capital (row 0) that is not above 0.
    """
    series = _navs(navs)
    peaks: Floats = np.maximum.accumulate(series)
    return 1.0 - series / peaks


def drawdowns(navs: ArrayLike, session_start: int, reset: int = 0) -> Drawdowns:
    """The last row of `navs` (n,) against the peak, the session and the reset baseline.

    `session_start`, `reset`: rows of the session's opening and of the last reset; 0 where there was none. Raises
    ValueError like `drawdown_series`, on rows outside the series, and where the NAV was not above 0 at one of them.
    """
    series = _navs(navs)
    for name, row in (("session_start", session_start), ("reset", reset)):
        if not 0 <= row < series.size:
            raise ValueError(f"{name}: expected a row from 0 to {series.size - 1}, got {row}")
        if series[row] <= 0.0:
            raise ValueError(f"{name}: expected a NAV above 0 there, got {series[row]:g}")
    last = float(series[-1])
    return Drawdowns(
        from_peak=1.0 - last / float(series.max()),
        from_session_peak=1.0 - last / float(series[session_start:].max()),
        from_session_start=max(0.0, 1.0 - last / float(series[session_start])),
        since_reset=1.0 - last / float(series[reset:].max()),
    )


def max_drawdown(navs: ArrayLike) -> Fall:
    """The deepest fall of `navs` (n,), the first of equals, with its rows. Raises ValueError like `drawdown_series`."""
    series = _navs(navs)
    falls = drawdown_series(series)
    trough = int(np.argmax(falls))
    height = series[: trough + 1].max()
    peak = int(np.flatnonzero(series[: trough + 1] == height)[-1])
    back = np.flatnonzero(series[trough:] >= height)
    return Fall(float(falls[trough]), peak, trough, trough + int(back[0]) if back.size else None)


def _navs(navs: ArrayLike) -> Floats:
    series = np.asarray(navs, dtype=np.float64)
    if series.ndim != 1 or series.size == 0:
        raise ValueError(f"navs: expected one dimension with the starting capital first, got shape {series.shape}")
    if not np.isfinite(series).all():
        raise ValueError("navs: expected finite numbers, got NaN or infinity")
    if series[0] <= 0.0:
        raise ValueError(f"navs: expected a starting capital above 0, got {series[0]:g}")
    return series
