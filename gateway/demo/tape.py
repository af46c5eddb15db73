"""The market of the demo: real daily closes, shown one session at a time.

The data set has closes only, no opens and no volumes. So a session is played like this: when it opens, the last known
prices are the closes of the session before; orders are decided on those; what is filled is filled around this
session's close, the one price after the decision that is real. Nothing here invents a price.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from engine.risk.history import PriceHistory

Floats = NDArray[np.float64]


class TapeError(ValueError):
    """The prices can't carry the sessions asked for; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day. `row` is its place among the closes, `number` counts from 0 at the first session played."""

    date: date
    row: int
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """Closes in base currency, shape (days, symbols), and the sessions to be played over them."""

    symbols: tuple[str, ...]
    closes: Floats
    sessions: tuple[Session, ...]

    def known(self, session: Session) -> Floats:
        """What an agent may see when the session opens, shape (row, symbols): the closes before it, latest last."""
        return self.closes[: session.row]

    def opening(self, session: Session) -> dict[str, float]:
        """Last known prices when the session opens: the closes of the day before."""
        return self._prices(session.row - 1)

    def closing(self, session: Session) -> dict[str, float]:
        return self._prices(session.row)

    def _prices(self, row: int) -> dict[str, float]:
        return dict(zip(self.symbols, self.closes[row].tolist(), strict=True))


def tape_of(prices: PriceHistory, first: date, last: date, history_days: int) -> Tape:
    """The sessions from `first` to `last`, both included, each with `history_days` returns before it.

    Raises TapeError where there are no such sessions, or a close or the history is missing.
    """
    rows = [row for row, day in enumerate(prices.dates) if first <= day <= last]
    if not rows:
        raise TapeError(f"no session from {first} to {last}; prices reach from {prices.dates[0]} to {prices.dates[-1]}")
    start = rows[0] - history_days - 1
    if start < 0:
        raise TapeError(f"{first} has {rows[0]} closes before it; expected {history_days + 1}")
    if not np.isfinite(prices.closes[start : rows[-1] + 1]).all():
        raise TapeError(f"a close is missing between {prices.dates[start]} and {prices.dates[rows[-1]]}")
    sessions = tuple(Session(prices.dates[row], row, number) for number, row in enumerate(rows))
    return Tape(prices.symbols, prices.closes, sessions)
