"""The heat map as a value: positions by measures, each cell with its value, its share of a limit, and how hot it is.

Page, terminal and report draw the same table. A cell's level is that of its share of its limit (level.py); without a
value or a limit it has none, and shows its size beside the others of its column at most. No measure is computed here
and no colour chosen.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from engine.risk.level import DEFAULT_THRESHOLDS, Gauge, Level, Thresholds

THRESHOLDS = DEFAULT_THRESHOLDS[Gauge.LIMIT]


class Column(msgspec.Struct, frozen=True):
    """One measure: a value for each row, and the limits that they stand under."""

    measure: str
    unit: str
    """The name that the figures bear: "USD", "ratio", "lots"."""
    values: tuple[float | None, ...]
    limits: tuple[float | None, ...] = ()
    """One for each row, or none at all."""
    two_sided: bool = False
    """Whether the limit binds the size and not the sign (net exposure, delta); else only what is above 0 uses it."""
    note: str = ""
    """Why values are missing."""


class Cell(msgspec.Struct, frozen=True):
    """One position in one measure."""

    value: float | None
    limit: float | None
    share: float | None
    """Of the limit, 0 or more; None without a value or a limit, and for more than 0 under a limit of 0."""
    intensity: float
    """Size beside the largest of the column, 0 to 1; 0 without a value."""
    level: Level | None
    """Of the share; None without a value or a limit."""
    note: str = ""
    """Why there is no value."""


class HeatMap(msgspec.Struct, frozen=True):
    """Rows × columns of cells."""

    rows: tuple[str, ...]
    measures: tuple[str, ...]
    units: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    """By row, then by measure."""
    thresholds: Thresholds = THRESHOLDS


def heat_map(rows: Sequence[str], columns: Sequence[Column], thresholds: Thresholds = THRESHOLDS) -> HeatMap:
    """The table of `rows` (n labels) and `columns` (n values each), in the order given; `hottest_first` sorts it.

    `thresholds`: shares of the limit from which on a cell is at a level.

    Raises ValueError on a row or measure named twice, values or limits that are not one for each row, and on NaN or
    infinity: what can't be had is None. A limit is 0 or more.
    """
    for name, names in (("rows", rows), ("measures", [column.measure for column in columns])):
        if len(set(names)) != len(names):
            raise ValueError(f"{name}: expected each once, got duplicates")
    by_column = [_cells(column, len(rows), thresholds) for column in columns]
    return HeatMap(
        rows=tuple(rows),
        measures=tuple(column.measure for column in columns),
        units=tuple(column.unit for column in columns),
        cells=tuple(tuple(cells[place] for cells in by_column) for place in range(len(rows))),
        thresholds=thresholds,
    )


def hottest_first(table: HeatMap) -> HeatMap:
    """The rows sorted by their hottest cell: with an unknown value first, then by level, share and size."""
    order = sorted(range(len(table.rows)), key=lambda place: _coolness(table.cells[place]))
    return msgspec.structs.replace(
        table,
        rows=tuple(table.rows[place] for place in order),
        cells=tuple(table.cells[place] for place in order),
    )


def _cells(column: Column, n_rows: int, thresholds: Thresholds) -> list[Cell]:
    limits = column.limits or (None,) * n_rows
    if len(column.values) != n_rows or len(limits) != n_rows:
        expected = f"expected {n_rows}, one each row"
        raise ValueError(f"{column.measure}: {expected}, got {len(column.values)} values, {len(limits)} limits")
    _check_figures(column.measure, (*column.values, *limits))
    if any(limit is not None and limit < 0.0 for limit in limits):
        raise ValueError(f"{column.measure}: expected limits of 0 or more")
    largest = max((abs(value) for value in column.values if value is not None), default=0.0)
    return [
        _cell(column, value, limit, largest, thresholds) for value, limit in zip(column.values, limits, strict=True)
    ]


def _cell(column: Column, value: float | None, limit: float | None, largest: float, thresholds: Thresholds) -> Cell:
    if value is None:
        return Cell(None, limit, None, 0.0, None, column.note)
    used = abs(value) if column.two_sided else max(value, 0.0)
    share = None if limit is None else _share(used, limit)
    return Cell(
        value=value,
        limit=limit,
        share=share if share is not None and math.isfinite(share) else None,
        intensity=abs(value) / largest if largest else 0.0,
        level=None if share is None else thresholds.level(share),
    )


def _share(used: float, limit: float) -> float:
    """Infinite for anything under a limit of 0."""
    if limit == 0.0:
        return math.inf if used > 0.0 else 0.0
    return used / limit


def _coolness(cells: Iterable[Cell]) -> tuple[bool, float, float, float]:
    """Sorts the hottest row first."""
    row = list(cells)
    level = max((cell.level for cell in row if cell.level is not None), default=-1)
    share = max((cell.share for cell in row if cell.share is not None), default=0.0)
    all_known = all(cell.value is not None for cell in row)
    return all_known, -level, -share, -max((cell.intensity for cell in row), default=0.0)


def _check_figures(measure: str, figures: Iterable[float | None]) -> None:
    for figure in figures:
        if figure is not None and not math.isfinite(figure):
            raise ValueError(f"{measure}: expected finite numbers or None, got {figure}")
