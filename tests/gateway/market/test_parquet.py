"""Closes from Parquet: the same history as from a CSV, and a message for each kind of bad file.

Files are written by pyarrow and by pandas, as users would.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.market.prices import PriceFileError, load_prices

DAYS = [date(2024, 1, 2), date(2024, 1, 3)]


def written(folder: Path, columns: dict[str, Any], name: str = "closes.parquet") -> Path:
    path = folder / name
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_wide_table_is_the_same_history_as_its_csv(tmp_path: Path) -> None:
    path = written(tmp_path, {"date": DAYS, "A": [10.0, 11.0], "B": [20.5, None], "SP500": [4000, 4010]})
    (tmp_path / "closes.csv").write_text("date,A,B,SP500\n2024-01-02,10,20.5,4000\n2024-01-03,11,,4010\n")

    found, same = load_prices(path, ["SP500"]), load_prices(tmp_path / "closes.csv", ["SP500"])

    assert (found.dates, found.symbols) == (same.dates, same.symbols)
    np.testing.assert_array_equal(found.closes, same.closes)
    np.testing.assert_array_equal(found.indices["SP500"], same.indices["SP500"])


@pytest.mark.parametrize("name", [None, "Date"])
def test_a_frame_of_pandas_with_its_dates_as_index(tmp_path: Path, name: str | None) -> None:
    index = pd.DatetimeIndex(["2024-01-02", "2024-01-03"], tz="America/New_York", name=name)
    pd.DataFrame({"A": [10.0, np.nan]}, index=index).to_parquet(tmp_path / "a.parquet")

    found = load_prices(tmp_path / "a.parquet")

    assert found.dates == tuple(DAYS)
    assert found.symbols == ("A",)
    np.testing.assert_array_equal(found.closes[:, 0], [10.0, np.nan])


def test_a_day_is_that_of_the_times_own_zone(tmp_path: Path) -> None:
    """Midnight in New York is 05:00 in London: the day must not move."""
    tokyo = datetime(2024, 1, 2, 0, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    path = written(tmp_path, {"date": pa.array([tokyo], pa.timestamp("ns", "Asia/Tokyo")), "A": [1.0]})

    assert load_prices(path).dates == (date(2024, 1, 2),)


def test_a_folder_of_both_kinds(tmp_path: Path) -> None:
    written(tmp_path, {"date": DAYS, "open": [9.0, 9.0], "close": [10.0, 11.0], "adj close": [5.0, 5.5]}, "A.parquet")
    (tmp_path / "B.csv").write_text("date,close\n2024-01-03,21\n")

    found = load_prices(tmp_path)

    assert found.symbols == ("A", "B")
    np.testing.assert_array_equal(found.closes, [[5.0, np.nan], [5.5, 21.0]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"date": DAYS, "A": [10.0, -1.0]},
            r"closes.parquet, row 2, column A: expected a finite close above 0, got -1",
        ),
        ({"date": DAYS, "A": [float("inf"), 1.0]}, "row 1, column A: expected a finite close above 0, got inf"),
        ({"date": DAYS, "A": ["10", "11"]}, "column A: expected numbers, got string"),
        ({"date": DAYS[::-1], "A": [1.0, 1.0]}, "row 2, column date: expected dates that rise, got 2024-01-02 after"),
        ({"date": DAYS[:1] * 2, "A": [1.0, 1.0]}, "row 2, column date: expected each date once, got 2024-01-02 twice"),
        ({"date": ["2024-01-02", "soon"], "A": [1.0, 1.0]}, "row 2, column date: expected a date like .*, got 'soon'"),
        ({"date": [DAYS[0], None], "A": [1.0, 1.0]}, "row 2, column date: expected a date like .*, got None"),
        ({"day": DAYS, "A": [1.0, 1.0]}, "expected one column named 'date'"),
        ({"date": DAYS}, "expected a date column and at least one of closes"),
        ({"date": pa.array([], pa.date32()), "A": pa.array([], pa.float64())}, "expected at least one row of closes"),
    ],
)
def test_a_bad_table_is_told_by_row_and_column(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(PriceFileError, match=message):
        load_prices(written(tmp_path, columns))


def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "closes.parquet").write_text("date,A\n")

    with pytest.raises(PriceFileError, match=r"closes.parquet: expected a readable Parquet file, got"):
        load_prices(tmp_path / "closes.parquet")
