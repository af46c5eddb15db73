"""A price history carried on: closed sessions added at its end, earlier closes divided by later splits.

Pure: histories in, histories out, and with each what a reader has to know of it. A file's own rows always win over
what was added; nothing is interpolated, repeated or filled in. What a model makes of a gap is build.py's to say.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from engine.risk.history import PriceHistory

COVERED_MIN = 0.5
"""A session joins where at least this part of the symbols that are wanted and closed before it has a close: one halted
stock must not stop the history, and a feed that marked a few must not take the history of all others away."""

NAMED_MAX = 5
"""Symbols that a warning names; it says how many more there are."""

SPLIT_RATIO_MAX = 10_000.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SessionCloses:
    """The closes of one session, each above 0: of symbols in their currency, of indices, of exchange rates."""

    date: date
    closes: Mapping[str, float]

    def __post_init__(self) -> None:
        for symbol, close in self.closes.items():
            if not (math.isfinite(close) and close > 0.0):
                raise ValueError(f"closes of {self.date}: {symbol}: expected a finite close above 0, got {close}")


@dataclass(frozen=True, slots=True)
class Split:
    """From `date` on one share of before is `ratio` shares: 4.0 for four for one, 0.1 for one for ten.

    Raises ValueError where the ratio is not above 0, is 1, or is beyond SPLIT_RATIO_MAX either way."""

    symbol: str
    date: date
    ratio: float

    def __post_init__(self) -> None:
        ratio = self.ratio
        if not (math.isfinite(ratio) and 1.0 / SPLIT_RATIO_MAX <= ratio <= SPLIT_RATIO_MAX) or ratio == 1.0:
            raise ValueError(f"split of {self.symbol} on {self.date}: expected a ratio such as 4 or 0.1, got {ratio}")


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """A history and what was done to it, in words that belong into a model's warnings."""

    history: PriceHistory
    warnings: tuple[str, ...] = ()


def carried_on(history: PriceHistory, sessions: Sequence[SessionCloses], wanted: Collection[str]) -> Carried:
    """`history` with the sessions after its last date as further rows, oldest first.

    Sessions up to that date are the history's own and change nothing. A session is left out, and named in a warning,
    where a series of `history.indices` that had a close in the row before lacks one (every beta and every converted
    return would be lost), or where fewer than COVERED_MIN of the `wanted` symbols that had one have one. In a row
    that joins, a symbol without a close is NaN. A history without any row takes all symbols of the sessions.
    """
    later = sorted((one for one in sessions if not history.dates or one.date > history.dates[-1]), key=lambda s: s.date)
    if not history.dates:
        names = tuple(sorted({symbol for one in later for symbol in one.closes}))
        history = PriceHistory((), names, np.empty((0, len(names))), {name: np.empty(0) for name in history.indices})
    columns = (*history.symbols, *history.indices)
    levels = np.column_stack((history.closes, *history.indices.values()))
    last = levels[-1] if len(levels) else None
    joined: list[tuple[date, Floats]] = []
    warnings: list[str] = []
    left_out: dict[str, list[date]] = {}
    for one in later:
        row = np.array([one.closes.get(name, math.nan) for name in columns])
        due = np.full(len(row), True) if last is None else np.isfinite(last)
        unmarked = due & np.isnan(row)
        reason = _left_out(history, due, unmarked, wanted)
        if reason is not None:
            left_out.setdefault(reason, []).append(one.date)
            continue
        missing = [name for name, lacks in zip(history.symbols, unmarked, strict=False) if lacks and name in wanted]
        if missing:
            warnings.append(f"price history: no mark of {_named(missing)} in session {one.date}")
        joined.append((one.date, row))
        last = row
    warnings += [f"price history: {_sessions(days)} left out: {reason}" for reason, days in left_out.items()]
    return Carried(_with_rows(history, joined), tuple(warnings))


def _sessions(days: Sequence[date]) -> str:
    return f"session {days[0]}" if len(days) == 1 else f"{len(days)} sessions from {days[0]} to {days[-1]}"


def _left_out(
    history: PriceHistory, due: NDArray[np.bool_], unmarked: NDArray[np.bool_], wanted: Collection[str]
) -> str | None:
    """Why a session can't join. The arrays: each symbol and then each index, whether it should have a close in the
    session, and whether it should and has none."""
    width = len(history.symbols)
    missing = [name for name, lacks in zip(history.indices, unmarked[width:], strict=True) if lacks]
    if missing:
        return (
            f"no mark of {_named(missing)} in it; publish marks of indices and rates too, or bring the file up to date"
        )
    asked = np.array([symbol in wanted for symbol in history.symbols], dtype=np.bool_) & due[:width]
    closed, of = int((asked & ~unmarked[:width]).sum()), int(asked.sum())
    if not closed or closed < COVERED_MIN * of:
        return f"{closed} of {of} instruments were marked; bring the file up to date"
    return None


def _with_rows(history: PriceHistory, rows: Sequence[tuple[date, Floats]]) -> PriceHistory:
    if not rows:
        return history
    added, width = np.array([row for _, row in rows]), len(history.symbols)
    return PriceHistory(
        dates=(*history.dates, *(day for day, _ in rows)),
        symbols=history.symbols,
        closes=np.vstack((history.closes, added[:, :width])),
        indices={
            name: np.concatenate((series, added[:, width + place]))
            for place, (name, series) in enumerate(history.indices.items())
        },
    )


def _named(symbols: Sequence[str]) -> str:
    more = len(symbols) - NAMED_MAX
    return ", ".join(symbols[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def split_adjusted(history: PriceHistory, splits: Sequence[Split]) -> Carried:
    """`history` with the closes before each split divided by its ratio, so that returns across it are returns.

    A split that the closes do not show is not applied and named in a warning: closes that are adjusted already would be
    adjusted twice. They show it where the move from the last close before the date to the first on or after it, in
    logarithms, is nearer to 0 with the split taken out than as it stands. A split with no close on either side changes
    no return and is passed over; one of a symbol that is not in the history too.
    """
    closes = history.closes.copy()
    places = {symbol: place for place, symbol in enumerate(history.symbols)}
    warnings: list[str] = []
    for split in sorted(splits, key=lambda one: (one.date, one.symbol), reverse=True):
        place = places.get(split.symbol)
        first = next((row for row, day in enumerate(history.dates) if day >= split.date), len(history.dates))
        if place is None or first == len(history.dates):
            continue
        before, after = closes[:first, place], closes[first:, place]
        before_known, after_known = before[np.isfinite(before)], after[np.isfinite(after)]
        if not len(before_known) or not len(after_known):
            continue
        move = math.log(after_known[0] / before_known[-1])
        if abs(move + math.log(split.ratio)) < abs(move):
            before /= split.ratio
        else:
            warnings.append(
                f"{split.symbol}: split of {split.ratio:g} on {split.date} not applied: the closes around it move by "
                f"{math.expm1(move):+.1%}, they look adjusted already"
            )
    return Carried(replace(history, closes=closes), tuple(reversed(warnings)))
