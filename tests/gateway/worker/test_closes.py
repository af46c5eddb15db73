"""A worker rolls the history forward: the last marks before SessionOpened are closes in the next session's model, and a
changed file gives another model without a restart.

The store is the memory log, its clock turned by hand.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from engine.facts import Quote
from engine.risk.history import PriceHistory
from gateway.log.memory import MemoryLog
from gateway.market.daily import DailyHistory
from gateway.market.history_files import HistoryFiles
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from tests.gateway.worker.running import model_of, prices, working
from tests.gateway.world import SESSION, Gateway, World, buy, limits, session, world_on

NEXT, THIRD = "2023-11-15", "2023-11-16"
SETTINGS = ModelSettings(lookback_days=260, unmapped="zero")


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits())
        yield world


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Closes up to the day before the session."""
    write(tmp_path / "closes.csv", until=SESSION)
    return tmp_path / "closes.csv"


def write(path: Path, until: str, scale: float = 1.0) -> None:
    whole = prices()
    rows = [row for row, day in enumerate(whole.dates) if day.isoformat() < until]
    lines = [f"{whole.dates[row]},{','.join(f'{scale * close:.6f}' for close in whole.closes[row])}" for row in rows]
    path.write_text("\n".join([f"date,{','.join(whole.symbols)}", *lines, ""]))


def daily_of(world: World, path: Path) -> tuple[DailyHistory, ModelBuilder]:
    files = HistoryFiles(str(path))
    return DailyHistory(files, world.log.bulletin), ModelBuilder(files.loaded.history, SETTINGS)


async def roll(gateway: Gateway, store_clock: list[int], to: str) -> None:
    store_clock[0] += 1_000_000
    await gateway.record(session(to))
    await model_of(gateway, to)


async def test_the_marks_of_a_session_are_closes_of_the_next_model(
    world: World, store_clock: list[int], path: Path
) -> None:
    gateway = await world.open()
    daily, builder = daily_of(world, path)
    async with working(world, refresh_s=0.01, builder=builder, daily=daily) as worker:
        await model_of(gateway, SESSION)
        store_clock[0] += 1_000_000
        for symbol, mark in (("AAA", 123.0), ("BBB", 77.0)):
            worker.accounts.quotes.offer(Quote(symbol, mark, None, None, store_clock[0]), store_clock[0])
        await roll(gateway, store_clock, NEXT)
        history = worker.history

    model = gateway.accounts.model
    assert model is not None and model.last_price_date == date.fromisoformat(SESSION)
    assert (history.dates[-1], history.closes[-1].tolist()) == (date.fromisoformat(SESSION), [123.0, 77.0])
    assert model.returns[model.n_days - 1].tolist() == pytest.approx(last_returns(history))


def last_returns(history: PriceHistory) -> list[float]:
    returns: list[float] = (history.closes[-1] / history.closes[-2] - 1.0).tolist()
    return returns


async def test_a_worker_that_starts_later_finds_the_same_closes(
    world: World, store_clock: list[int], path: Path
) -> None:
    gateway = await world.open()
    daily, builder = daily_of(world, path)
    async with working(world, refresh_s=0.01, builder=builder, daily=daily) as worker:
        await model_of(gateway, SESSION)
        await roll(gateway, store_clock, NEXT)
        before = worker.history

    daily, builder = daily_of(world, path)
    async with working(world, refresh_s=0.01, builder=builder, daily=daily) as worker:
        await roll(gateway, store_clock, THIRD)
        after = worker.history

    assert before.dates[-1] == date.fromisoformat(SESSION)
    assert after.dates[: len(before.dates)] == before.dates
    np.testing.assert_array_equal(after.closes[: len(before.dates)], before.closes)


async def test_a_changed_file_gives_another_model_without_a_restart(
    world: World, store_clock: list[int], path: Path
) -> None:
    gateway = await world.open()
    daily, builder = daily_of(world, path)
    async with working(world, refresh_s=0.01, builder=builder, daily=daily):
        await model_of(gateway, SESSION)
        first = gateway.accounts.model
        await asyncio.to_thread(write, path, SESSION, 2.0)
        await asyncio.to_thread(path.write_text, await asyncio.to_thread(spliced, path))
        with gateway.accounts.subscribe(()) as subscription:
            async with asyncio.timeout(20):
                while gateway.accounts.model is first:
                    store_clock[0] += 2_100_000
                    await gateway.check(buy(f"nudge {store_clock[0]}"), dry_run=True)
                    await subscription.next(0.05)

    second = gateway.accounts.model
    assert first is not None and second is not None
    assert second.session_date == first.session_date
    assert second.returns[second.n_days - 1, 0] == pytest.approx(-0.5)


def spliced(path: Path) -> str:
    """The file with AAA halved on its last day."""
    *head, last = path.read_text().rstrip("\n").split("\n")
    previous, day = head[-1].split(","), last.split(",")
    return "\n".join([*head, f"{day[0]},{float(previous[1]) / 2:.6f},{day[2]}", ""])
