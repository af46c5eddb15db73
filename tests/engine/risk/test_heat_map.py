"""The heat map as a value: each cell by hand, its order, and that it survives the wire as JSON."""

import math
from typing import Any

import msgspec
import pytest

from engine.risk.heat_map import Cell, Column, HeatMap, heat_map, hottest_first
from engine.risk.level import Level, Thresholds


def only_cell(value: float | None, limit: float | None, two_sided: bool = False) -> Cell:
    table = heat_map(["A"], [Column("var_99", "USD", (value,), (limit,), two_sided, "no mark")])
    return table.cells[0][0]


@pytest.mark.parametrize(
    ("value", "share", "level"),
    [
        (0.0, 0.0, Level.LOW),
        (59.9, 0.599, Level.LOW),
        (60.0, 0.6, Level.MODERATE),
        (80.0, 0.8, Level.HIGH),
        (99.9, 0.999, Level.HIGH),
        (100.0, 1.0, Level.CRITICAL),
        (250.0, 2.5, Level.CRITICAL),
        (-500.0, 0.0, Level.LOW),
    ],
)
def test_a_cell_is_as_hot_as_its_share_of_the_limit(value: float, share: float, level: Level) -> None:
    cell = only_cell(value, 100.0)

    assert cell.share == pytest.approx(share)
    assert (cell.value, cell.limit, cell.level) == (value, 100.0, level)


def test_a_limit_on_the_size_binds_both_signs() -> None:
    cell = only_cell(-90.0, 100.0, two_sided=True)

    assert (cell.share, cell.level) == (0.9, Level.HIGH)


def test_what_is_not_known_has_no_level_and_says_why() -> None:
    assert only_cell(None, 100.0) == Cell(None, 100.0, None, 0.0, None, "no mark")


def test_without_a_limit_there_is_only_the_size_beside_the_others() -> None:
    table = heat_map(["A", "B", "C"], [Column("component", "USD", (50.0, -200.0, 0.0))])

    assert [row[0].intensity for row in table.cells] == [0.25, 1.0, 0.0]
    assert [(row[0].share, row[0].level) for row in table.cells] == [(None, None)] * 3


def test_anything_under_a_limit_of_nothing_is_critical() -> None:
    assert (only_cell(1.0, 0.0).share, only_cell(1.0, 0.0).level) == (None, Level.CRITICAL)
    assert (only_cell(0.0, 0.0).share, only_cell(0.0, 0.0).level) == (0.0, Level.LOW)


def test_the_table_keeps_rows_and_measures_as_given() -> None:
    table = heat_map(["A", "B"], [Column("gross", "USD", (1.0, 2.0)), Column("delta", "lots", (3.0, None))])

    assert (table.rows, table.measures, table.units) == (("A", "B"), ("gross", "delta"), ("USD", "lots"))
    assert [[cell.value for cell in row] for row in table.cells] == [[1.0, 3.0], [2.0, None]]


def test_thresholds_are_the_callers_and_travel_along() -> None:
    table = heat_map(["A"], [Column("gross", "USD", (30.0,), (100.0,))], Thresholds(0.1, 0.2, 0.3))

    assert table.cells[0][0].level is Level.CRITICAL
    assert table.thresholds == Thresholds(0.1, 0.2, 0.3)


def test_the_hottest_row_comes_first_and_what_is_unknown_before_it() -> None:
    values = (10.0, 95.0, None, 90.0, 5.0, 5.0, 1.0)
    others = (1.0, 1.0, 1.0, 1.0, 9.0, 2.0, 1.0)
    rows = ["cool", "hot", "unknown", "warm", "large", "small", "forbidden"]
    limits = (*[100.0] * 6, 0.0)

    table = hottest_first(heat_map(rows, [Column("var_99", "USD", values, limits), Column("gross", "USD", others)]))

    assert table.rows == ("unknown", "forbidden", "hot", "warm", "cool", "large", "small")
    assert [row[0].value for row in table.cells] == [None, 1.0, 95.0, 90.0, 10.0, 5.0, 5.0]


def test_a_table_without_rows_is_empty() -> None:
    assert heat_map([], [Column("gross", "USD", ())]).cells == ()


def test_a_table_survives_the_wire() -> None:
    table = heat_map(["A", "B"], [Column("var_99", "USD", (1.0, None), (0.0, 100.0))])

    assert msgspec.json.decode(msgspec.json.encode(table), type=HeatMap) == table


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["A", "A"], [], "rows: expected each once"),
        (["A"], [Column("m", "USD", (1.0,)), Column("m", "USD", (2.0,))], "measures: expected each once"),
        (["A"], [Column("m", "USD", (1.0, 2.0))], "m: expected 1, one each row, got 2 values"),
        (["A", "B"], [Column("m", "USD", (1.0, 2.0), (1.0,))], "1 limits"),
        (["A"], [Column("m", "USD", (math.nan,))], "m: expected finite"),
        (["A"], [Column("m", "USD", (1.0,), (math.inf,))], "m: expected finite"),
        (["A"], [Column("m", "USD", (1.0,), (-1.0,))], "limits of 0 or more"),
    ],
)
def test_what_is_no_table_is_refused(rows: list[str], columns: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heat_map(rows, columns)
