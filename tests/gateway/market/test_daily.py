"""The history rolls forward: the last marks of a session become its closes, once, whoever notes them and how often.

On the memory log and on a real server alike. Times are microseconds; the sessions are of Thursday and Friday.
"""

from datetime import date
from pathlib import Path
from typing import cast

import pytest

from engine.facts import Quote
from gateway.log.account_log import AccountLog
from gateway.log.bulletin import CLOSES_KEPT_MAX
from gateway.market.daily import DailyHistory
from gateway.market.history_files import HistoryFiles
from tests.conftest import SERVERS

THURSDAY, FRIDAY = "2024-01-04", "2024-01-05"
OPENED_US, CLOSED_US = 1_000_000_000, 2_000_000_000
CLOSES = "date,AAA,BBB\n2024-01-02,10,20\n2024-01-03,11,21\n"


@pytest.fixture(params=["memory", *SERVERS])
def log(request: pytest.FixtureRequest) -> AccountLog:
    return cast(AccountLog, request.getfixturevalue(f"{request.param}_log"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "closes.csv"
    path.write_text(CLOSES)
    return path


def marks(time_us: int = CLOSED_US - 5, **prices: float) -> dict[str, Quote]:
    return {symbol: Quote(symbol, price, None, None, time_us) for symbol, price in prices.items()}


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


async def daily_of(log: AccountLog, path: Path) -> DailyHistory:
    daily = DailyHistory(HistoryFiles(str(path)), log.bulletin)
    await daily.reload()
    return daily


def last_row(daily: DailyHistory) -> tuple[date, list[float]]:
    history = daily.carried(["AAA", "BBB"]).history
    return history.dates[-1], history.closes[-1].tolist()


async def test_the_last_marks_of_a_session_are_its_closes(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=12.0, BBB=22.0))

    assert last_row(daily) == (date(2024, 1, 4), [12.0, 22.0])


async def test_another_worker_and_a_restart_note_nothing_twice(log: AccountLog, path: Path) -> None:
    first, second = await daily_of(log, path), await daily_of(log, path)
    await first.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=12.0, BBB=22.0))
    await second.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=99.0, BBB=99.0))
    again = await daily_of(log, path)
    await again.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=77.0, BBB=77.0))

    for daily in (second, again):
        assert last_row(daily) == (date(2024, 1, 4), [12.0, 22.0])
        assert len(daily.carried(["AAA", "BBB"]).history.dates) == 3


async def test_what_one_worker_missed_another_adds(log: AccountLog, path: Path) -> None:
    first, second = await daily_of(log, path), await daily_of(log, path)
    await first.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=12.0))
    await second.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=99.0, BBB=22.0))

    assert last_row(second) == (date(2024, 1, 4), [12.0, 22.0])


async def test_a_mark_from_before_the_session_is_no_close(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    held = marks(AAA=12.0) | marks(OPENED_US - 1, BBB=22.0)
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, held)

    found = daily.carried(["AAA", "BBB"])

    assert found.history.closes[-1].tolist()[0] == 12.0
    assert found.warnings == ("price history: no mark of BBB in session 2024-01-04",)


async def test_a_mark_of_the_next_session_does_not_hide_the_last_of_this_one(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    daily.remember(marks(CLOSED_US - 9, AAA=12.0, BBB=22.0), CLOSED_US - 8)
    daily.remember(marks(CLOSED_US + 9, AAA=15.0, BBB=22.5), CLOSED_US + 1_000_000)
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, marks(CLOSED_US + 9, AAA=15.0, BBB=22.5))

    assert last_row(daily)[1] == [12.0, 22.0]


async def test_a_session_without_marks_is_known_of_and_said(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, {})

    found = daily.carried(["AAA", "BBB"])

    assert found.history.dates[-1] == date(2024, 1, 3)
    assert "session 2024-01-04 left out: 0 of 2 instruments were marked" in found.warnings[0]


async def test_a_row_of_the_file_takes_the_place_of_the_marks(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=12.0, BBB=22.0))
    await daily.close(FRIDAY, OPENED_US, CLOSED_US, marks(AAA=13.0, BBB=23.0))

    rewrite(path, CLOSES + "2024-01-04,12.5,22.5\n")
    for now_us in (10_000_000, 20_000_000):
        await daily.look(now_us)

    history = daily.carried(["AAA", "BBB"]).history
    assert history.closes[-2:].tolist() == [[12.5, 22.5], [13.0, 23.0]]


async def test_a_broken_file_is_a_warning_of_every_model(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    rewrite(path, "nonsense")
    for now_us in (10_000_000, 20_000_000):
        await daily.look(now_us)

    found = daily.carried(["AAA", "BBB"])

    assert "price files changed and can't be read, older closes are used" in found.warnings[0]
    assert found.history.dates[-1] == date(2024, 1, 3)


async def test_the_same_value_while_nothing_has_changed(log: AccountLog, path: Path) -> None:
    daily = await daily_of(log, path)
    first = daily.carried(["AAA", "BBB"])

    assert daily.carried(["BBB", "AAA"]) is first
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=12.0, BBB=22.0))
    assert daily.carried(["AAA", "BBB"]) is not first


async def test_splits_reach_the_closes_that_were_marked(log: AccountLog, path: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.csv"
    splits.write_text("symbol,date,ratio\nAAA,2024-01-05,4\n")
    daily = DailyHistory(HistoryFiles(str(path), splits=splits), log.bulletin)
    await daily.close(THURSDAY, OPENED_US, CLOSED_US, marks(AAA=12.0, BBB=22.0))
    await daily.close(FRIDAY, OPENED_US, CLOSED_US, marks(AAA=3.0, BBB=22.0))

    assert daily.carried(["AAA", "BBB"]).history.closes[:, 0].tolist() == [2.5, 2.75, 3.0, 3.0]


async def test_only_the_last_sessions_are_kept(log: AccountLog) -> None:
    days = [date.fromordinal(date(2020, 1, 1).toordinal() + day).isoformat() for day in range(CLOSES_KEPT_MAX + 2)]
    for day in days:
        await log.bulletin.keep_closes(day, {"AAA": b"1"})

    kept = await log.bulletin.closes("")

    assert list(kept) == days[2:]
    assert list(await log.bulletin.closes(days[-2])) == [days[-1]]
