"""How a run went: returns, drawdowns, and what a control cost or saved against the same run without it.

Curves are equity after each session's close with the starting capital first, so a curve has one point more than there
are days. Losses and drawdowns are positive numbers, P&L is negative for a loss. Arithmetic only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of days, both ends included, and what it made."""

    first: date
    last: date
    amount: float


@dataclass(frozen=True, slots=True)
class Day:
    date: date
    amount: float


def daily_pnl(curve: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(curve)]


def total_return(curve: Sequence[float]) -> float:
    return curve[-1] / curve[0] - 1.0


def worst_drawdown(curve: Sequence[float]) -> float:
    """The greatest fall from a peak as a share of it, starting capital included; 0 where the curve never falls."""
    peak, worst = curve[0], 0.0
    for equity in curve:
        peak = max(peak, equity)
        worst = max(worst, 1.0 - equity / peak)
    return worst


def worst_day(curve: Sequence[float], dates: Sequence[date]) -> Day:
    """The day of the lowest P&L, as a return on the equity before it."""
    returns = [after / before - 1.0 for before, after in pairwise(curve)]
    place = min(range(len(returns)), key=returns.__getitem__)
    return Day(dates[place], returns[place])


def forgone_and_avoided(controlled: Sequence[float], free: Sequence[float]) -> tuple[float, float]:
    """(profit forgone, loss avoided) in money: the days on which the free run did better, and those on which it did
    worse, summed apart. Their difference is what the control cost in all."""
    gaps = [b - a for a, b in zip(daily_pnl(controlled), daily_pnl(free), strict=True)]
    return sum(gap for gap in gaps if gap > 0), -sum(gap for gap in gaps if gap < 0)


def worst_stretch(gains: Sequence[float], dates: Sequence[date]) -> Stretch | None:
    """The run of days with the lowest sum (Kadane), or None where no day is below 0."""
    worst: Stretch | None = None
    running, start = 0.0, 0
    for place, gain in enumerate(gains):
        if running >= 0.0:
            running, start = 0.0, place
        running += gain
        if running < 0.0 and (worst is None or running < worst.amount):
            worst = Stretch(dates[start], dates[place], running)
    return worst


def months_of(gains: Sequence[float], dates: Sequence[date]) -> list[tuple[str, float]]:
    """Sums by calendar month ("2020-03"), in order."""
    sums: dict[str, float] = {}
    for day, gain in zip(dates, gains, strict=True):
        month = f"{day:%Y-%m}"
        sums[month] = sums.get(month, 0.0) + gain
    return list(sums.items())
