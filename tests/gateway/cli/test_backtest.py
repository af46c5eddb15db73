"""`backtest-var` over the sample stocks, over a file, and over an account's own log: table, remarks, picture, CSV.

The command runs whole; what it prints and writes is read. Figures of the tests have tests of their own.
"""

import asyncio
import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.account import Session
from engine.facts import StatedPosition
from engine.records import AnyRecord, Forecast, Quoted, SessionOpened, Valued
from gateway.cli.app import run
from gateway.cli.backtest_subject import of_sessions
from gateway.cli.exits import ExitCode, Failure
from gateway.embedded import EmbeddedStore
from gateway.log.redis import RedisLog
from tests.gateway.world import ACCOUNT, opening, world_on

QUICK = ("--days", "150", "--lookback", "120", "--method", "historical")


def ran(*argv: str) -> int:
    try:
        return run(("backtest-var", *argv))
    except SystemExit as ending:
        return int(ending.code or 0)


def closes(path: Path, *columns: str, days: int = 300, gap: str = "") -> Path:
    """A wide CSV of random walks on the weekdays up to the end of 2022; `gap`: a symbol whose 290th is missing."""
    random = np.random.default_rng(4)
    dates = np.busday_offset("2022-12-30", np.arange(-days + 1, 1), roll="backward").astype(str)
    walks = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, (days, len(columns))), axis=0))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("date", *columns))
        for row, day in enumerate(dates):
            cells = [f"{close:.4f}" for close in walks[row]]
            writer.writerow(
                (day, *("" if name == gap and row == 290 else cell for name, cell in zip(columns, cells, strict=True)))
            )
    return path


def test_the_sample_stocks_are_tested_drawn_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        ran(*QUICK, "--until", "2020-06-30", "--plot", str(tmp_path / "p.png"), "--csv", str(tmp_path / "d.csv")) == 0
    )

    said = capsys.readouterr()
    assert "20 symbols of the sample stocks, equally weighted" in said.out and "to 2020-06-30" in said.out
    assert "FAIL historical at 0.99: VaR is too low" in said.err and "limits on VaR and ES × 0.75" in said.err
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "d.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 150
    assert {line["exception"] for line in lines if float(line["return"]) < -float(line["var"])} == {"1"}
    assert {line["exception"] for line in lines if float(line["return"]) >= -float(line["var"])} == {"0"}


def test_a_book_over_ones_own_file_as_svg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices, picture = closes(tmp_path / "closes.csv", "AAA", "BBB"), tmp_path / "p.svg"

    code = ran(*QUICK, "--prices", str(prices), "-p", "AAA=5000", "-p", "BBB=-2000", "--plot", str(picture))

    assert code == 0
    assert "AAA +5,000, BBB -2,000 at prices of" in capsys.readouterr().out
    assert "<svg" in picture.read_text()


def test_the_configurations_prices_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closes(tmp_path / "closes.csv", "AAA", "SPX")
    config = tmp_path / "gateway.toml"
    config.write_text('[worker]\nprices = "closes.csv"\nindices = ["SPX"]\n')

    assert ran(*QUICK, "--config", str(config), "--no-plot") == 0
    assert "1 symbol of" in capsys.readouterr().out


def test_a_symbol_with_a_gap_is_left_out_and_named_unless_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = str(closes(tmp_path / "closes.csv", "AAA", "BBB", gap="BBB"))

    assert ran(*QUICK, "--prices", prices, "--no-plot") == 0
    assert "left out, they lack closes in these days: BBB" in capsys.readouterr().err
    assert ran(*QUICK, "--prices", prices, "-p", "BBB=1", "--no-plot") == ExitCode.USAGE
    assert "BBB has no close on 1 of the 271 days, first" in capsys.readouterr().err


def test_a_method_that_cannot_answer_keeps_nobody_else_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 25 days the parametric method has too few, and so has whatever falls back on it."""
    prices = str(closes(tmp_path / "closes.csv", "AAA"))

    code = ran(
        "--prices", prices, "--lookback", "25", "--days", "60", "-m", "historical", "-m", "gaussian", "--no-plot"
    )

    assert code == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "no method can be tested on these days" in said and "gaussian can't be tested: returns: expected" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("-p", "AAPL"), "'AAPL' is no position; expected SYMBOL=VALUE"),
        (("-p", "AAPL=nan"), "'AAPL=nan' is no position"),
        (("-p", "AAPL=0"), "'AAPL=0' is no position"),
        (("-p", "NOPE=5"), "no closes of 'NOPE'; there are AAPL"),
        (("-p", "KO=5", "-p", "KO=6"), "each symbol once"),
        (("-m", "guess"), "unknown 'guess'; known: historical"),
        (("--confidence", "1.5"), "1.5 is none; expected above 0.5 and below 1"),
        (("--until", "2022-13-01"), "is no date"),
        (("--plot", "x.gif"), "x.gif is no .png or .svg file"),
        (("--account", "A", "--sample"), "give one of --account, --sample"),
        (("--account", "A", "-m", "historical"), "--account tests the forecasts in its log"),
        (("--store", "redis://nowhere"), "--store and --data-dir say where the log of --account is"),
    ],
)
def test_arguments_that_make_no_sense_say_what_was_expected(
    argv: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(*argv) == ExitCode.USAGE
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("--until", "1991-01-01"), ExitCode.USAGE, "253 closes there; 756 days before the first one tested need 758"),
        (("--prices", "/nowhere/closes.csv"), ExitCode.CONFIG, "prices can't be used: /nowhere/closes.csv"),
        (("--account", "A", "--data-dir", "/nowhere"), ExitCode.USAGE, "/nowhere holds no store"),
    ],
)
def test_what_is_not_there_is_said(
    argv: tuple[str, ...], code: ExitCode, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(*argv) == code
    assert says in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(*QUICK, "--plot", str(tmp_path / "nowhere" / "p.png")) == ExitCode.USAGE
    assert "p.png can't be written: No such file or directory" in capsys.readouterr().err


# --- an account's own sessions -------------------------------------------------------------------------------------


def sessions(now_us: int) -> list[AnyRecord]:
    """60 closed sessions with 10 AAA, each forecast to lose at most 15; every fifteenth lost 20."""
    records: list[AnyRecord] = []
    for day in range(61):
        date = str(np.datetime64("2023-01-02") + day)
        records.append(SessionOpened(time_us=now_us, date=date))
        records.append(Valued(time_us=now_us, marks={"AAA": Quoted(100.0, 100.0, 100.0, now_us)}))
        records.append(promise(date, now_us))
        mark = 98.0 if day % 15 == 7 else 100.0
        records.append(Valued(time_us=now_us, marks={"AAA": Quoted(mark, mark, mark, now_us)}))
    return records


def promise(session: str, now_us: int = 0) -> Forecast:
    return Forecast(
        time_us=now_us,
        session=session,
        var_95=15.0,
        var_99=18.0,
        es_95=20.0,
        es_99=25.0,
        method="historical",
        model="m",
    )


async def test_an_accounts_own_sessions_are_read_from_its_log(
    valkey: EmbeddedStore, valkey_log: RedisLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world_on(valkey_log) as world:
        gateway = await world.gateway()
        await gateway.record(opening(StatedPosition(symbol="AAA", quantity=10.0, average_cost=100.0)), opens=True)
        await gateway.record(lambda state, terms, now_us: sessions(now_us))
    url = f"unix://{valkey.socket_path}"

    code = await asyncio.to_thread(ran, "--account", ACCOUNT, "--store", url, "--plot", str(tmp_path / "p.png"))

    said = capsys.readouterr()
    assert code == 0
    assert f"{ACCOUNT}: what it held as each session began · 60 sessions · 2023-01-02 to 2023-03-02" in said.out
    (wide,) = [line.split() for line in said.out.splitlines() if " 0.95 " in line]
    assert wide[:5] == ["historical", "0.95", "60", "3.0", "4"]
    assert "UNTESTED historical: 60 days are too few to test 0.99: 100 are needed" in said.err
    assert (tmp_path / "p.png").exists()


async def test_an_account_that_does_not_exist_is_said(
    valkey: EmbeddedStore, valkey_log: RedisLog, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await asyncio.to_thread(ran, "--account", "nobody", "--store", f"unix://{valkey.socket_path}")

    assert code == ExitCode.UNKNOWN_ACCOUNT
    assert "no account nobody in this store" in capsys.readouterr().err


def test_sessions_that_cannot_be_tested_are_counted_and_said() -> None:
    closed = Session("2023-01-02", 1000.0, 0.0, pnl=1.0)
    tested = msgspec.structs.replace(closed, forecast=promise("2023-01-02"), held_pnl=2.0)

    with pytest.raises(
        Failure, match="A has no closed session that can be tested: 1 closed, 0 of them with a forecast"
    ):
        of_sessions("A", "USD", (closed,))
    outcome = of_sessions("A", "USD", (closed, tested))
    assert outcome.notes == ("1 closed sessions without a forecast, or with nothing at risk, are left out",)
    assert [one.returns.tolist() for one in outcome.backtests] == [[2.0], [2.0]]
