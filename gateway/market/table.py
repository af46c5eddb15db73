"""A table of closes as read from one file, and what every kind of file is checked for alike.

What a fault is called (file, line or row, column, what was expected) is decided here, once. No file is opened here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLOSE_COLUMNS = ("adj close", "adj_close", "adjusted_close", "close", "price")
"""Names of the column to take from a per-symbol file, best first: adjusted closes carry no splits."""


class PriceFileError(ValueError):
    """A price file is missing or cannot be read as closes. The message names file, line, column and expectation."""


@dataclass(frozen=True, slots=True)
class Table:
    """Closes by date and column, NaN where there is none. Dates rise."""

    dates: tuple[date, ...]
    names: tuple[str, ...]
    values: NDArray[np.float64]
    """(dates, names)"""


def check_names(where: str, header: Sequence[str]) -> None:
    """Raise PriceFileError where a column has no name or another's. `where`: file and line of the header."""
    for place, name in enumerate(header):
        if not name:
            raise PriceFileError(f"{where}, column {place + 1}: expected a symbol, got an empty name")
        if name in header[:place]:
            raise PriceFileError(f"{where}, column {place + 1}: expected each symbol once, got {name} again")


def close_column(where: str, header: Sequence[str]) -> int:
    """The place of the column to take from a per-symbol file whose first column is the date."""
    if len(header) == 2:
        return 1
    lowered = [name.lower() for name in header]
    for name in CLOSE_COLUMNS:
        if name in lowered:
            return lowered.index(name)
    raise PriceFileError(f"{where}: expected a column named one of {', '.join(CLOSE_COLUMNS)}, got none")


def check_positive(
    path: Path, names: Sequence[str], row_name: Callable[[int], str], values: NDArray[np.float64]
) -> None:
    """Raise PriceFileError at the first close that is infinite or not above 0. `row_name`: how a row is called."""
    bad = np.argwhere(np.isinf(values) | (values <= 0.0))
    if bad.size:
        row, column = int(bad[0][0]), int(bad[0][1])
        raise PriceFileError(
            f"{path}, {row_name(row)}, column {names[column]}: expected a finite close above 0, "
            f"got {values[row, column]:g}"
        )
