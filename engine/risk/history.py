"""Daily closes as a value: one row per date, one column per symbol, NaN where there is no close.

Beside the closes stand series that are nobody's instrument: indices that factors are estimated against ("SP500") and
exchange rates ("USDBRL": BRL for one USD). Reading files belongs to gateway/market; returns belong to build.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PriceHistory:
    """Closes in each symbol's currency. Raises ValueError where shapes disagree or dates do not strictly rise."""

    dates: tuple[date, ...]
    symbols: tuple[str, ...]
    closes: NDArray[np.float64]
    """Shape (len(dates), len(symbols))."""
    indices: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Index levels and exchange rates by name, each of shape (len(dates),)."""

    def __post_init__(self) -> None:
        if self.closes.shape != (len(self.dates), len(self.symbols)):
            raise ValueError(
                f"closes: expected shape {(len(self.dates), len(self.symbols))} (dates, symbols), "
                f"got {self.closes.shape}"
            )
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("symbols: expected each once, got duplicates")
        for name, series in self.indices.items():
            if series.shape != (len(self.dates),):
                raise ValueError(f"indices.{name}: expected shape {(len(self.dates),)}, got {series.shape}")
        for earlier, later in zip(self.dates, self.dates[1:], strict=False):
            if earlier >= later:
                raise ValueError(f"dates: expected each once and rising, got {later} after {earlier}")

    def series(self, name: str) -> NDArray[np.float64] | None:
        """The closes of symbol or index `name`, shape (len(dates),); None where it is unknown."""
        if name in self.symbols:
            return np.asarray(self.closes[:, self.symbols.index(name)])
        return self.indices.get(name)

    def window(self, before: date, rows: int) -> "PriceHistory":
        """The last `rows` trading rows strictly before `before`: weekdays on which any symbol has a close.

        A row stays even where most symbols lack it, so that a gap shows as a gap. Saturdays and Sundays go: only
        crypto and some exchange rates trade then.
        """
        n_past = sum(1 for day in self.dates if day < before)
        days = np.array(self.dates[:n_past], dtype="datetime64[D]")
        traded = ~np.isnan(self.closes[:n_past]).all(axis=1) & np.asarray(np.is_busday(days))
        kept = np.flatnonzero(traded)[-rows:] if rows > 0 else np.array([], dtype=np.intp)
        return PriceHistory(
            dates=tuple(self.dates[row] for row in kept),
            symbols=self.symbols,
            closes=self.closes[kept],
            indices={name: series[kept] for name, series in self.indices.items()},
        )
