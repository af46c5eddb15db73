"""Small markets for the demo's tests: closes from a seed, long enough for every agent's lookback."""

from datetime import date, timedelta

import numpy as np

from engine.risk.history import PriceHistory
from gateway.demo.tape import Tape, tape_of

SYMBOLS = tuple(f"S{number:02d}" for number in range(20))
HISTORY_DAYS = 300


def prices(sessions: int = 12, seed: int = 3) -> PriceHistory:
    """A random walk of 20 symbols over `HISTORY_DAYS` + 1 + `sessions` consecutive days."""
    rows = HISTORY_DAYS + 1 + sessions
    moves = np.random.default_rng(seed).normal(0.0, 0.02, (rows, len(SYMBOLS)))
    dates = tuple(date(2020, 1, 1) + timedelta(days=row) for row in range(rows))
    closes = np.asarray(50.0 * np.cumprod(1.0 + moves, axis=0), dtype=np.float64)
    return PriceHistory(dates, SYMBOLS, closes)


def tape(history: PriceHistory) -> Tape:
    """All that follows the first `HISTORY_DAYS` + 1 days is played."""
    return tape_of(history, history.dates[HISTORY_DAYS + 1], history.dates[-1], HISTORY_DAYS)
