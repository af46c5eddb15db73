"""Where the figures of the report are going: each over the last sessions, as slope, change and place among them.

A session is a date and its figures by name; a figure that was not known then is None or absent, is left out and
counted. Sessions keep their places: a gap is not closed up. No figures are computed here.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

SESSIONS = 30

Session = tuple[date, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True)
class Trend:
    """One figure over the window, in its own unit."""

    figure: str
    n_sessions: int
    """Sessions in the window at which it was known, 1 or more."""
    n_missing: int
    first: float
    last: float
    last_session: date
    """Of the last value known: older than the window's end where it is missing there."""
    change: float
    """Last less first."""
    change_session: float | None
    """Last less the session before it; None where either of the window's last two sessions lacks it."""
    slope: float | None
    """A session, by least squares over those known; None below two."""
    percentile: float | None
    """Share of the other sessions that were below the last, equals counting half, 0 to 1; None below two."""
    lowest: float
    highest: float


def trends(sessions: Sequence[Session], window: int = SESSIONS) -> tuple[Trend, ...]:
    """A trend of each figure known in the last `window` sessions, oldest first, figures in the order of their mention.

    Raises ValueError on a window below 1, dates that do not strictly rise, and figures that are NaN or infinite.
    """
    if window < 1:
        raise ValueError(f"window: expected 1 session or more, got {window}")
    for (earlier, _), (later, _) in itertools.pairwise(sessions):
        if earlier >= later:
            raise ValueError(f"sessions: expected dates each once and rising, got {later} after {earlier}")
    recent = sessions[-window:]
    names = dict.fromkeys(name for _, figures in recent for name in figures)
    return tuple(trend for name in names if (trend := _trend(name, recent)) is not None)


def _trend(name: str, recent: Sequence[Session]) -> Trend | None:
    """None where no session knows it."""
    known = [(place, value) for place, (_, figures) in enumerate(recent) if (value := figures.get(name)) is not None]
    for place, value in known:
        if not math.isfinite(value):
            raise ValueError(f"sessions: {name}: expected a finite number or None on {recent[place][0]}, got {value}")
    if not known:
        return None
    values = [value for _, value in known]
    return Trend(
        figure=name,
        n_sessions=len(known),
        n_missing=len(recent) - len(known),
        first=values[0],
        last=values[-1],
        last_session=recent[known[-1][0]][0],
        change=values[-1] - values[0],
        change_session=_last_change(known, len(recent)),
        slope=_slope(known),
        percentile=_percentile(values),
        lowest=min(values),
        highest=max(values),
    )


def _last_change(known: Sequence[tuple[int, float]], n_sessions: int) -> float | None:
    if len(known) < 2 or known[-2][0] != n_sessions - 2:
        return None
    return known[-1][1] - known[-2][1]


def _slope(known: Sequence[tuple[int, float]]) -> float | None:
    if len(known) < 2:
        return None
    mean_place = math.fsum(place for place, _ in known) / len(known)
    mean = math.fsum(value for _, value in known) / len(known)
    spread = math.fsum((place - mean_place) ** 2 for place, _ in known)
    return math.fsum((place - mean_place) * (value - mean) for place, value in known) / spread


def _percentile(values: Sequence[float]) -> float | None:
    others, last = values[:-1], values[-1]
    if not others:
        return None
    return sum(1.0 if value < last else 0.5 if value == last else 0.0 for value in others) / len(others)
