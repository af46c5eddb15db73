"""Files of prices and splits that change under a worker: what is read again, and what keeps the old history."""

import os
from datetime import date
from pathlib import Path

import pytest

from engine.risk.closes import Split
from gateway.market.history_files import HistoryFiles, load_splits
from gateway.market.table import PriceFileError

TWO = "date,A\n2024-01-02,10\n2024-01-03,11\n"
THREE = TWO + "2024-01-04,12\n"


def written(path: Path, text: str) -> Path:
    """As a new file in its place, so that its inode tells even where its time does not."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)
    return path


def settle(files: HistoryFiles) -> bool:
    """The second look finds the file as it was at the first."""
    return files.look() | files.look()


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    files = HistoryFiles(str(written(tmp_path / "closes.csv", TWO)))
    before = files.loaded

    assert not settle(files)
    assert files.loaded is before


def test_a_new_row_is_read_once_the_file_lies_still(tmp_path: Path) -> None:
    path = written(tmp_path / "closes.csv", TWO)
    files = HistoryFiles(str(path))

    written(path, THREE)

    assert not files.look()
    assert files.look()
    assert files.loaded.history.dates[-1] == date(2024, 1, 4)


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "closes.csv", TWO)
    files = HistoryFiles(str(path))
    for text in (TWO + "2024-01-04,1", TWO + "2024-01-04,12\n"):
        written(path, text)
        assert not files.look()

    assert files.look()
    assert files.loaded.history.closes[-1, 0] == 12.0


def test_a_broken_file_keeps_the_old_history_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "closes.csv", TWO)
    files = HistoryFiles(str(path))

    written(path, TWO + "2024-01-04,-12\n")

    assert settle(files)
    assert "line 4, column A: expected a finite close above 0, got -12" in files.problem
    assert files.loaded.history.dates[-1] == date(2024, 1, 3)
    assert not settle(files)
    written(path, THREE)
    assert settle(files)
    assert files.problem == ""
    assert len(files.loaded.history.dates) == 3


def test_a_file_that_is_gone_keeps_the_old_history_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "closes.csv", TWO)
    files = HistoryFiles(str(path))

    path.unlink()

    assert settle(files)
    assert "closes.csv" in files.problem
    assert len(files.loaded.history.dates) == 2


def test_touching_a_file_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "closes.csv", TWO)
    files = HistoryFiles(str(path))

    os.utime(path, ns=(1, 1))

    assert not settle(files)


def test_a_new_file_in_the_folder_is_a_new_symbol(tmp_path: Path) -> None:
    written(tmp_path / "A.csv", "date,close\n2024-01-02,10\n")
    files = HistoryFiles(str(tmp_path))

    written(tmp_path / "B.csv", "date,close\n2024-01-02,20\n")

    assert settle(files)
    assert files.loaded.history.symbols == ("A", "B")


def test_splits_are_followed_too(tmp_path: Path) -> None:
    splits = written(tmp_path / "splits.csv", "symbol,date,ratio\n")
    files = HistoryFiles(str(written(tmp_path / "closes.csv", TWO)), splits=splits)

    written(splits, "symbol,date,ratio\nA,2024-01-03,4\n")

    assert settle(files)
    assert files.loaded.splits == (Split("A", date(2024, 1, 3), 4.0),)


def test_a_service_does_not_start_without_its_history(tmp_path: Path) -> None:
    with pytest.raises(PriceFileError, match=r"nowhere.csv"):
        HistoryFiles(str(tmp_path / "nowhere.csv"))


def test_marks_alone_are_an_empty_history() -> None:
    files = HistoryFiles("marks", ["SP500"])

    assert (files.loaded.history.dates, list(files.loaded.history.indices)) == ((), ["SP500"])
    assert not settle(files)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,ratio\nA,4\n", r"splits.csv, line 1: expected the columns symbol, date, ratio"),
        ("symbol,date,ratio\nA,today,4\n", "line 2, column date: expected a date like 2024-12-31, got 'today'"),
        ("symbol,date,ratio\nA,2024-01-03,four\n", "line 2, column ratio: expected a ratio such as 4 or 0.1"),
        ("symbol,date,ratio\nA,2024-01-03,0\n", "line 2, column ratio: split of A"),
        ("symbol,date,ratio\nA,2024-01-03\n", "line 2, column ratio: expected a ratio"),
        ("symbol,date,ratio\n,2024-01-03,4\n", "line 2, column symbol: expected a symbol, got ''"),
        ("symbol,date,ratio\nA,2024-01-03,4,5\n", "line 2: expected 3 columns, got more"),
        ("symbol,date,ratio\nA,2024-01-03,4\nA,2024-01-03,2\n", "line 3: expected one split of A on 2024-01-03"),
    ],
)
def test_a_bad_file_of_splits_is_told_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PriceFileError, match=message):
        load_splits(written(tmp_path / "splits.csv", text))


def test_columns_of_splits_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path / "splits.csv", "Date,Ratio,Symbol\n2024-01-03,0.1,A\n")

    assert load_splits(path) == (Split("A", date(2024, 1, 3), 0.1),)
