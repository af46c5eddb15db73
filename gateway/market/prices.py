"""Loads daily closes from files into a PriceHistory.

Reads a wide table (a date column, then one column per symbol) or a folder with one per symbol, named after it: CSV,
plain or gzipped, and Parquet (parquet.py); and the 20 US stocks inside the skfolio wheel. Bad input raises
PriceFileError with file, line, column and what was expected. An empty cell is a missing close and stays NaN: nothing is
filled in or dropped here. No pandas: it would cost every start of the gateway 1.7 s.
"""

import csv
import gzip
import importlib.util
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from engine.risk.history import PriceHistory
from gateway.market.parquet import is_parquet, read_parquet
from gateway.market.table import PriceFileError as PriceFileError
from gateway.market.table import Table, check_names, check_positive, close_column

MISSING_CELLS = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""How files spell a missing close, in lower case."""

KINDS = ".csv, .csv.gz or .parquet"

SAMPLE_INDEX = "SP500"


def load_prices(path: Path, indices: Collection[str] = ()) -> PriceHistory:
    """Closes from a wide file (.csv, .csv.gz, .parquet) or from a folder of per-symbol ones.

    Columns (or files) named in `indices` become series of their own: indices such as SP500, exchange rates such as
    USDBRL. Raises PriceFileError.
    """
    if path.is_dir():
        return load_price_folder(path, indices)
    if not _is_closes(path):
        raise PriceFileError(f"{path}: expected a {KINDS} file or a folder of them")
    return load_price_file(path, indices)


def load_price_file(path: Path, indices: Collection[str] = ()) -> PriceHistory:
    """Closes from one wide file: the first column holds ISO dates, each further one is named after its symbol."""
    table = _table(path)
    return _history(path, table.dates, table.names, table.values, indices)


def load_price_folder(folder: Path, indices: Collection[str] = ()) -> PriceHistory:
    """Closes from a folder: SYMBOL.csv, SYMBOL.csv.gz or SYMBOL.parquet, each with a date and a close column.

    Dates are the union of all files'; a file without one of them lacks that close.
    """
    columns: dict[str, tuple[tuple[date, ...], NDArray[np.float64]]] = {}
    for path in price_files(folder):
        symbol = path.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".parquet")
        if symbol in columns:
            raise PriceFileError(f"{path}: expected one file for {symbol}, got a second")
        table = _table(path, only_close=True)
        columns[symbol] = table.dates, table.values[:, 0]
    if not columns:
        raise PriceFileError(f"{folder}: expected {KINDS} files, one per symbol, got none")
    dates = tuple(sorted({day for days, _ in columns.values() for day in days}))
    row = {day: place for place, day in enumerate(dates)}
    closes = np.full((len(dates), len(columns)), np.nan)
    for place, (days, values) in enumerate(columns.values()):
        closes[[row[day] for day in days], place] = values
    return _history(folder, dates, tuple(columns), closes, indices)


def sample_us_stocks() -> PriceHistory:
    """20 US stocks, adjusted closes 1990-01-02 to 2022-12-28, and the index SP500, out of the skfolio wheel.

    Reads the wheel's files by path, since importing it would need scikit-learn, pandas and a solver. Adjusted prices
    are no share counts: fit for returns, not for what a share cost. Raises PriceFileError where it is not installed.
    """
    found = importlib.util.find_spec("skfolio")
    if found is None or not found.submodule_search_locations:
        raise PriceFileError("sample prices: expected the skfolio wheel (a demo dependency), found none installed")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    stocks = _read_table(folder / "sp500_dataset.csv.gz")
    index = _read_table(folder / "sp500_index.csv.gz")
    if stocks.dates != index.dates:
        raise PriceFileError(f"{folder}: expected stocks and index on the same dates")
    return PriceHistory(stocks.dates, stocks.names, stocks.values, {SAMPLE_INDEX: index.values[:, 0]})


def price_files(path: Path) -> tuple[Path, ...]:
    """The files that `load_prices` reads: those of a folder, in order, or the file itself. Raises PriceFileError."""
    try:
        return tuple(sorted(one for one in path.iterdir() if _is_closes(one))) if path.is_dir() else (path,)
    except OSError as error:
        raise PriceFileError(f"{path}: expected a readable folder, got: {error}") from error


def _history(
    source: Path,
    dates: tuple[date, ...],
    names: tuple[str, ...],
    values: NDArray[np.float64],
    indices: Collection[str],
) -> PriceHistory:
    absent = sorted(set(indices) - set(names))
    if absent:
        raise PriceFileError(f"{source}: expected a column or file for each index, got none for {', '.join(absent)}")
    own = [place for place, name in enumerate(names) if name not in indices]
    return PriceHistory(
        dates=dates,
        symbols=tuple(names[place] for place in own),
        closes=values[:, own],
        indices={name: values[:, names.index(name)] for name in sorted(indices)},
    )


def _is_closes(path: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz")) or is_parquet(path)


def _table(path: Path, *, only_close: bool = False) -> Table:
    return read_parquet(path, only_close) if is_parquet(path) else _read_table(path, only_close=only_close)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file as text, a byte order mark dropped; what reading it can raise becomes PriceFileError."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix.lower() == ".gz"
            else path.open(encoding="utf-8-sig", newline="")
        ) as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise PriceFileError(f"{path}: expected a readable CSV file, got: {error}") from error


def _read_table(path: Path, *, only_close: bool = False) -> Table:
    """All columns, or (`only_close`) the date and the best close column. Rows are checked in the order of the file."""
    dates: list[date] = []
    rows: list[list[float]] = []
    lines: list[int] = []
    with _opened(path) as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        kept = [close_column(f"{path}, line 1", header)] if only_close else list(range(1, len(header)))
        names = tuple(header[place] for place in kept)
        for cells in reader:
            if not cells:
                continue
            line = reader.line_num
            if len(cells) != len(header):
                raise PriceFileError(f"{path}, line {line}: expected {len(header)} columns, got {len(cells)}")
            dates.append(_date(path, line, header[0], cells[0], dates))
            rows.append(_numbers(path, line, names, [cells[place] for place in kept]))
            lines.append(line)
    if not rows:
        raise PriceFileError(f"{path}: expected at least one row of closes below the header, got none")
    values = np.array(rows, dtype=np.float64)
    check_positive(path, names, lambda row: f"line {lines[row]}", values)
    return Table(tuple(dates), names, values)


def _check_header(path: Path, header: Sequence[str]) -> None:
    if len(header) < 2:
        raise PriceFileError(f"{path}, line 1: expected a date column and at least one of closes, got {len(header)}")
    if "date" not in header[0].lower():
        raise PriceFileError(f"{path}, line 1, column 1: expected the header 'date', got {header[0]!r}")
    check_names(f"{path}, line 1", header)


def _date(path: Path, line: int, column: str, cell: str, earlier: Sequence[date]) -> date:
    where = f"{path}, line {line}, column {column}"
    try:
        day = date.fromisoformat(cell.strip())
    except ValueError as error:
        raise PriceFileError(f"{where}: expected a date like 2024-12-31, got {cell!r}") from error
    if earlier and day == earlier[-1]:
        raise PriceFileError(f"{where}: expected each date once, got {day} twice")
    if earlier and day < earlier[-1]:
        raise PriceFileError(f"{where}: expected dates that rise, got {day} after {earlier[-1]}")
    return day


def _numbers(path: Path, line: int, names: Sequence[str], cells: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]  # the common case; a missing or bad cell takes the slow road
    except ValueError:
        return [_number(path, line, name, cell) for name, cell in zip(names, cells, strict=True)]


def _number(path: Path, line: int, name: str, cell: str) -> float:
    if cell.strip().lower() in MISSING_CELLS:
        return math.nan
    try:
        return float(cell)
    except ValueError as error:
        raise PriceFileError(
            f"{path}, line {line}, column {name}: expected a number (1234.56) or an empty cell, got {cell!r}"
        ) from error
