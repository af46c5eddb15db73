"""The files that the price history comes from, followed while they change.

`look` reads them again once they have changed and lain still from one look to the next, so that a file that is being
written is not read half. What can't be read changes nothing: the history held stays, and the problem is told until a
file that can be read takes its place. Reading a table is prices.py's; carrying a history on is daily.py's.
"""

import csv
import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.risk.closes import Split
from engine.risk.history import PriceHistory
from gateway.market.prices import load_prices, price_files, sample_us_stocks
from gateway.market.table import PriceFileError

SAMPLE, MARKS = "sample", "marks"
"""Sources that are no path: the demo's stocks, and nothing but what PublishMarks brought."""

SPLIT_COLUMNS = ("symbol", "date", "ratio")

BEYOND = ""
"""Under which csv keeps the cells that no column is named for."""

T = TypeVar("T")

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, time of the last change in ns, size and inode of each file."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What the files say, named by the hash of their content."""

    history: PriceHistory
    splits: tuple[Split, ...]
    digest: str


class HistoryFiles:
    """The history of `prices` (a path, SAMPLE or MARKS) and the splits of a file beside it. Raises PriceFileError where
    they can't be read at first: a service that starts without its history would only seem to work."""

    def __init__(self, prices: str, indices: Collection[str] = (), splits: Path | None = None) -> None:
        self._prices, self._indices, self._splits = prices, indices, splits
        self._seen = self._read_signature = self._signature()
        self.loaded = self._read()
        self.problem = ""
        """Why the files as they are now can't be used, and are not; empty where they are."""

    def look(self) -> bool:
        """Whether anything has changed, `loaded` or `problem`. Blocks while it reads."""
        try:
            signature = self._signature()
        except (OSError, PriceFileError) as error:
            return self._now_problem(str(error))
        settled, self._seen = signature == self._seen, signature
        if signature == self._read_signature or not settled:
            return False
        self._read_signature = signature
        try:
            loaded = self._read()
        except PriceFileError as error:
            return self._now_problem(str(error))
        changed = loaded.digest != self.loaded.digest
        self.loaded = loaded
        return self._now_problem("") or changed

    def _now_problem(self, problem: str) -> bool:
        changed, self.problem = problem != self.problem, problem
        return changed

    def _read(self) -> Loaded:
        history = self._history()
        splits = () if self._splits is None else load_splits(self._splits)
        return Loaded(history, splits, _digest(history, splits))

    def _history(self) -> PriceHistory:
        if self._prices == SAMPLE:
            return sample_us_stocks()
        if self._prices == MARKS:
            return PriceHistory((), (), np.empty((0, 0)), {name: np.empty(0) for name in self._indices})
        return load_prices(Path(self._prices), self._indices)

    def _signature(self) -> Signature:
        paths = [] if self._prices in (SAMPLE, MARKS) else list(price_files(Path(self._prices)))
        if self._splits is not None:
            paths.append(self._splits)
        return tuple(_signed(path) for path in paths)


def _signed(path: Path) -> tuple[str, int, int, int]:
    """A file that is not there signs too: reading it says so."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return str(path), 0, 0, 0
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


def _digest(history: PriceHistory, splits: tuple[Split, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    names = (history.dates, history.symbols, tuple(history.indices), splits)
    digest.update(repr(names).encode())
    for array in (history.closes, *history.indices.values()):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load_splits(path: Path) -> tuple[Split, ...]:
    """The splits in a CSV with the columns symbol, date and ratio (4 for four for one, 0.1 for one for ten), in the
    order of the file. Raises PriceFileError, which names line and column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey=BEYOND)
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            if sorted(header) != sorted(SPLIT_COLUMNS):
                raise PriceFileError(f"{path}, line 1: expected the columns {', '.join(SPLIT_COLUMNS)}, got {header}")
            reader.fieldnames = header
            return _each_once(path, [(reader.line_num, _split(path, reader.line_num, row)) for row in reader])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PriceFileError(f"{path}: expected a readable CSV file, got: {error}") from error


def _split(path: Path, line: int, row: dict[str, str]) -> Split:
    if BEYOND in row:
        raise PriceFileError(f"{path}, line {line}: expected {len(SPLIT_COLUMNS)} columns, got more")
    day = _cell(path, line, row, "date", date.fromisoformat, "a date like 2024-12-31")
    ratio = _cell(path, line, row, "ratio", float, "a ratio such as 4 or 0.1")
    symbol = _cell(path, line, row, "symbol", str, "a symbol")
    try:
        return Split(symbol, day, ratio)
    except ValueError as error:
        raise PriceFileError(f"{path}, line {line}, column ratio: {error}") from error


def _cell(path: Path, line: int, row: dict[str, str], column: str, read: Callable[[str], T], expected: str) -> T:
    cell = (row[column] or "").strip()
    try:
        if not cell:
            raise ValueError("empty")
        return read(cell)
    except ValueError as error:
        raise PriceFileError(f"{path}, line {line}, column {column}: expected {expected}, got {cell!r}") from error


def _each_once(path: Path, found: list[tuple[int, Split]]) -> tuple[Split, ...]:
    seen: set[tuple[str, date]] = set()
    for line, split in found:
        if (split.symbol, split.date) in seen:
            raise PriceFileError(f"{path}, line {line}: expected one split of {split.symbol} on {split.date}, got two")
        seen.add((split.symbol, split.date))
    return tuple(split for _, split in found)
