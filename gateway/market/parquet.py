"""Reads closes from Parquet: a wide table or a symbol's own, with a date column or pandas' index of dates.

The same table and the same faults as of a CSV, rows counted from 1. A null is a missing close. pyarrow is imported when
a Parquet file is read and not before: nobody else's start should pay its 0.2 s.
"""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gateway.market.table import PriceFileError, Table, check_names, check_positive, close_column

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_NAME = "__index_level_0__"
"""What pandas calls an index without a name."""


def is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def read_parquet(path: Path, only_close: bool = False) -> Table:
    """All columns, or (`only_close`) the date and the best close column. Raises PriceFileError."""
    table = _opened(path)
    place = _date_column(path, table.schema.names)
    header = ["date", *(name for at, name in enumerate(table.schema.names) if at != place)]
    if len(header) < 2:
        raise PriceFileError(f"{path}: expected a date column and at least one of closes, got {len(header)}")
    check_names(str(path), header)
    dates = _dates(path, table.schema.names[place], _days(table.column(place)))
    if not dates:
        raise PriceFileError(f"{path}: expected at least one row of closes, got none")
    names = (header[close_column(str(path), header)],) if only_close else tuple(header[1:])
    values = np.column_stack([_numbers(path, name, table.column(name)) for name in names])
    check_positive(path, names, lambda row: f"row {row + 1}", values)
    return Table(dates, names, values)


def _opened(path: Path) -> "pa.Table":
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise PriceFileError(f"{path}: expected pyarrow to be installed, which reads .parquet: {error}") from error
    try:
        return parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise PriceFileError(f"{path}: expected a readable Parquet file, got: {error}") from error


def _date_column(path: Path, names: Sequence[str]) -> int:
    """The one called date, in any case; else the index that pandas left without a name."""
    found = [place for place, name in enumerate(names) if name.strip().lower() in ("date", "datetime", INDEX_NAME)]
    if len(found) != 1:
        raise PriceFileError(f"{path}: expected one column named 'date' (or an index of dates), got {len(found)}")
    return found[0]


def _days(column: "pa.ChunkedArray") -> list[Any]:
    """Python's dates and times; nanoseconds cut off, since pyarrow would import pandas for them."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    found: list[Any] = column.to_pylist()
    return found


def _dates(path: Path, name: str, cells: Sequence[Any]) -> tuple[date, ...]:
    """Rising dates. A time with a zone is of the day that it was in its zone."""
    dates: list[date] = []
    for at, cell in enumerate(cells):
        where = f"{path}, row {at + 1}, column {name}"
        day = _date(where, cell)
        if dates and day == dates[-1]:
            raise PriceFileError(f"{where}: expected each date once, got {day} twice")
        if dates and day < dates[-1]:
            raise PriceFileError(f"{where}: expected dates that rise, got {day} after {dates[-1]}")
        dates.append(day)
    return tuple(dates)


def _date(where: str, cell: Any) -> date:
    if isinstance(cell, datetime):
        return cell.date()
    if isinstance(cell, date):
        return cell
    try:
        return date.fromisoformat(cell)
    except (TypeError, ValueError) as error:
        raise PriceFileError(f"{where}: expected a date like 2024-12-31, got {cell!r}") from error


def _numbers(path: Path, name: str, column: "pa.ChunkedArray") -> NDArray[np.float64]:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise PriceFileError(f"{path}, column {name}: expected numbers, got {kind}")
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
