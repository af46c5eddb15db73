"""Reading closes: what the sample data must say, the shapes of files, and the message for each kind of bad one.

Files are real ones in a temporary folder; the sample is the wheel's.
"""

import gzip
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from engine.instrument import check_instrument
from engine.risk.build import build_model
from engine.risk.history import PriceHistory
from gateway.market.prices import PriceFileError, load_prices, sample_us_stocks
from gateway.market.sample import sample_instruments

WIDE = "date,A,B\n2024-01-02,10,20.5\n2024-01-03,11,21\n"


@pytest.fixture(scope="module")
def sample() -> PriceHistory:
    return sample_us_stocks()


def change(history: PriceHistory, name: str, start: date, end: date) -> float:
    series = history.series(name)
    assert series is not None
    return float(series[history.dates.index(end)] / series[history.dates.index(start)] - 1)


def written(folder: Path, text: str, name: str = "closes.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sample_is_20_stocks_over_33_years(sample: PriceHistory) -> None:
    assert sample.closes.shape == (8313, 20)
    assert (sample.dates[0], sample.dates[-1]) == (date(1990, 1, 2), date(2022, 12, 28))
    assert sample.symbols == tuple(sample_instruments())
    assert np.isfinite(sample.closes).all() and list(sample.indices) == ["SP500"]


@pytest.mark.parametrize(
    ("start", "end", "fall"),
    [
        (date(2007, 10, 9), date(2009, 3, 9), -0.5678),
        (date(2020, 2, 19), date(2020, 3, 23), -0.3392),
        (date(2022, 1, 3), date(2022, 10, 12), -0.2543),
    ],
)
def test_the_index_fell_as_history_says(sample: PriceHistory, start: date, end: date, fall: float) -> None:
    assert change(sample, "SP500", start, end) == pytest.approx(fall, abs=0.00005)


def test_the_worst_day_of_the_index_is_in_march_2020(sample: PriceHistory) -> None:
    index = sample.indices["SP500"]
    returns = index[1:] / index[:-1] - 1

    assert sample.dates[1 + int(returns.argmin())] == date(2020, 3, 16)
    assert returns.min() == pytest.approx(-0.1198, abs=0.00005)


def test_the_known_fault_of_rrc_is_there_and_the_model_reports_it(sample: PriceHistory) -> None:
    assert change(sample, "RRC", date(1990, 4, 9), date(1990, 4, 10)) == pytest.approx(-0.667, abs=0.0005)

    model = build_model(sample_instruments(), "s", sample, date(1993, 1, 4), 0)

    assert "RRC: a day of -66.7%: expected adjusted closes, is it a split?" in model.warnings
    assert "RRC: close unchanged on 84% of the days: its VaR is too low" in model.warnings


def test_the_sample_makes_a_whole_model(sample: PriceHistory) -> None:
    instruments = sample_instruments()

    model = build_model(instruments, "s", sample, date(2022, 12, 29), 0)

    assert model.n_days == 756 and model.warnings == ()
    assert model.has_history.all() and model.has_factor.all() and np.isfinite(model.returns).all()
    assert ((model.betas > 0.4) & (model.betas < 1.6)).all()
    assert len({instrument.sector for instrument in instruments.values()}) == 7
    for instrument in instruments.values():
        check_instrument(instrument)


def test_the_sample_loads_in_half_a_second_and_brings_no_heavy_import() -> None:
    start_s = time.perf_counter()
    sample_us_stocks()
    elapsed_s = time.perf_counter() - start_s

    script = (
        "import sys; from gateway.market.prices import sample_us_stocks; sample_us_stocks();"
        "print([name for name in ('skfolio', 'pandas', 'scipy', 'sklearn') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )

    assert elapsed_s < 0.5
    assert loaded.stdout.strip() == "[]"


def test_a_wide_file_has_a_column_per_symbol(tmp_path: Path) -> None:
    history = load_prices(written(tmp_path, WIDE))

    assert history.symbols == ("A", "B")
    assert history.dates == (date(2024, 1, 2), date(2024, 1, 3))
    assert history.closes.tolist() == [[10.0, 20.5], [11.0, 21.0]]


def test_a_file_from_a_spreadsheet_reads_the_same(tmp_path: Path) -> None:
    text = "\ufeffDate, A ,B\r\n2024-01-02,10,20.5\r\n\r\n2024-01-03,11,21\r\n"

    assert load_prices(written(tmp_path, text)).closes.tolist() == [[10.0, 20.5], [11.0, 21.0]]


def test_a_gzipped_file_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "closes.csv.gz"
    path.write_bytes(gzip.compress(WIDE.encode()))

    assert load_prices(path).closes.tolist() == [[10.0, 20.5], [11.0, 21.0]]


@pytest.mark.parametrize("cell", ["", " ", "NaN", "NA", "null", "n/a", "None"])
def test_a_missing_close_stays_missing(tmp_path: Path, cell: str) -> None:
    history = load_prices(written(tmp_path, f"date,A,B\n2024-01-02,10,{cell}\n"))

    assert history.closes[0, 0] == 10.0 and np.isnan(history.closes[0, 1])


def test_columns_named_as_indices_are_no_instruments(tmp_path: Path) -> None:
    history = load_prices(written(tmp_path, WIDE.replace("B", "USDBRL")), indices=["USDBRL"])

    assert history.symbols == ("A",) and history.closes.tolist() == [[10.0], [11.0]]
    assert history.indices["USDBRL"].tolist() == [20.5, 21.0]


def test_a_folder_has_a_file_per_symbol_and_the_union_of_their_dates(tmp_path: Path) -> None:
    written(tmp_path, "Date,Open,Close,Adj Close\n2024-01-02,1,10,5\n2024-01-03,1,11,5.5\n", "A.csv")
    written(tmp_path, "date,price\n2024-01-03,7\n2024-01-04,8\n", "B.csv")
    written(tmp_path, "not prices", "README.txt")

    history = load_prices(tmp_path)

    assert history.symbols == ("A", "B")
    assert [day.day for day in history.dates] == [2, 3, 4]
    np.testing.assert_array_equal(history.closes, [[5.0, np.nan], [5.5, 7.0], [np.nan, 8.0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,A\n2024-01-02,x\n", "line 2, column A: expected a number (1234.56) or an empty cell, got 'x'"),
        ('date,A\n2024-01-02,"1,234"\n', "line 2, column A: expected a number"),
        ("date,A,B\n2024-01-02,1,2\n2024-01-03,1,-2\n", "line 3, column B: expected a finite close above 0, got -2"),
        ("date,A\n2024-01-02,0\n", "line 2, column A: expected a finite close above 0, got 0"),
        ("date,A\n2024-01-02,inf\n", "line 2, column A: expected a finite close above 0, got inf"),
        ("date,A\n2024-01-02,1\n2024-01-02,1\n", "line 3, column date: expected each date once, got 2024-01-02 twice"),
        ("date,A\n2024-01-03,1\n2024-01-02,1\n", "line 3, column date: expected dates that rise, got 2024-01-02 after"),
        ("date,A\n02/01/2024,1\n", "line 2, column date: expected a date like 2024-12-31, got '02/01/2024'"),
        ("date,A,B\n2024-01-02,1\n", "line 2: expected 3 columns, got 2"),
        ("date,A,A\n2024-01-02,1,2\n", "line 1, column 3: expected each symbol once, got A again"),
        ("date,A,\n2024-01-02,1,2\n", "line 1, column 3: expected a symbol, got an empty name"),
        ("A,B\n1,2\n", "line 1, column 1: expected the header 'date', got 'A'"),
        ("date\n2024-01-02\n", "line 1: expected a date column and at least one of closes"),
        ("date,A\n", "expected at least one row of closes below the header, got none"),
        ("", "line 1: expected a date column"),
    ],
)
def test_a_bad_file_is_named_with_line_column_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(PriceFileError) as refused:
        load_prices(path)

    assert str(refused.value).startswith(str(path)) and message in str(refused.value)


def test_a_folder_names_the_file_that_is_wrong(tmp_path: Path) -> None:
    written(tmp_path, "date,price\n2024-01-03,7\n", "A.csv")
    bad = written(tmp_path, "date,open,high\n2024-01-03,7,8\n", "B.csv")

    with pytest.raises(PriceFileError, match="expected a column named one of adj close") as refused:
        load_prices(tmp_path)

    assert str(bad) in str(refused.value)


def test_what_is_no_price_file_is_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(WIDE.encode())[:-12])
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"date,A\n\xff\xfe\n")
    twice = tmp_path / "twice"
    twice.mkdir()
    written(twice, WIDE.replace(",B", "").replace(",20.5", "").replace(",21", ""), "A.csv")
    (twice / "A.csv.gz").write_bytes(gzip.compress(b"date,A\n2024-01-02,1\n"))
    (tmp_path / "empty").mkdir()

    for path, message in [
        (tmp_path / "absent.csv", "expected a readable CSV file"),
        (cut, "expected a readable CSV file"),
        (binary, "expected a readable CSV file"),
        (tmp_path / "closes.xlsx", "expected a .csv, .csv.gz or .parquet file or a folder"),
        (tmp_path / "empty", "one per symbol, got none"),
        (twice, "expected one file for A, got a second"),
    ]:
        with pytest.raises(PriceFileError, match=message):
            load_prices(path)


def test_an_index_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PriceFileError, match="got none for SP500"):
        load_prices(written(tmp_path, WIDE), indices=["SP500"])
