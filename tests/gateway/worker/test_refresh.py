"""Whole analyses in other processes: every account gets its own, none waits for a slow one, and the light report is on
time whatever they do.

What is slow waits for a gate that the test opens: a named pipe, read by the process that computes.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.report import RiskReport, decode_report
from engine.risk.analysis import Analysis, Bench, BenchSettings
from gateway.log.memory import MemoryLog
from gateway.worker.pool import Pool
from gateway.worker.refresh import Analyses, MakeSolver, Question, subject_of, summary_of
from gateway.worker.worker import Worker
from tests.gateway.worker.analysis_solvers import MakeGated, make_failing_for_alpha
from tests.gateway.worker.running import model_of, prices, working
from tests.gateway.world import ACCOUNT, SESSION, Gateway, World, buy, limits, opening, report, session, world_on

SETTINGS = BenchSettings(n_paths=200, lookback_days=260)


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits())
        yield world


@asynccontextmanager
async def analysing(
    world: World, make: Callable[[], Callable[[Question], Analysis]], size: int = 2
) -> AsyncIterator[tuple[Worker, Analyses]]:
    pool: Pool[Question, Analysis] = Pool(make, size, patience_s=60.0)
    analyses = Analyses(pool, pause_s=0.0, pause_after_failure_s=0.1)
    try:
        async with working(world, refresh_s=0.05, analyses=analyses) as worker:
            yield worker, analyses
    finally:
        await analyses.aclose()
        await pool.aclose()


async def hold(gateway: Gateway, account: str, lots: int) -> None:
    """A position of so many lots of AAA."""
    await gateway.check(buy(f"{account}-one", lots, account))
    await gateway.report(report(f"{account}-x1", f"{account}-one", "fill", lots, account=account))


async def open_second(gateway: Gateway, account: str) -> None:
    await gateway.record(opening(), account, opens=True)
    await gateway.record(session(), account)


async def posted(
    gateway: Gateway, account: str, fits: Callable[[RiskReport], bool], store_clock: list[int]
) -> RiskReport:
    """The first posted report on an account that fits. The store's clock goes on meanwhile: reports are due by it."""
    async with asyncio.timeout(30):
        with gateway.accounts.subscribe([account]) as subscription:
            while True:
                stored = await gateway.accounts.log.bulletin.report(account)
                if stored is not None and fits(found := decode_report(stored)):
                    return found
                store_clock[0] += 100_000
                await subscription.next(0.1)


async def test_the_gist_of_the_analysis_is_in_the_next_report(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    async with analysing(world, MakeSolver(SETTINGS)) as (_, analyses):
        await model_of(gateway, SESSION)
        await hold(gateway, ACCOUNT, 10)

        found = await posted(
            gateway, ACCOUNT, lambda r: r.analysis is not None and bool(r.analysis.dollar_delta), store_clock
        )

    gist, whole = found.analysis, analyses.latest(ACCOUNT)
    assert gist is not None and whole is not None
    assert gist.dollar_delta == 1_000.0
    assert gist.var_99["historical"] == found.var_99
    assert set(gist.var_99) == {"historical", "parametric", "monte_carlo"}
    assert gist.worst_replay is not None and gist.worst_replay.name == "2022"
    assert gist.problem == ""
    assert whole.labels == ("s1/AAA",)


async def test_a_slow_account_delays_neither_reports_nor_the_other_analyses(
    world: World, tmp_path: Path, store_clock: list[int]
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    gateway = await world.open()
    await open_second(gateway, "slow")
    await open_second(gateway, "quick")
    async with analysing(world, MakeGated(gate)) as (_, analyses):
        await model_of(gateway, SESSION)
        await hold(gateway, "slow", 10)
        await hold(gateway, "quick", 20)
        await posted(gateway, "quick", lambda r: r.analysis is not None and bool(r.analysis.dollar_delta), store_clock)

        later_us = store_clock[0] + 5_000_000
        for account in ("slow", "quick", ACCOUNT):
            await posted(gateway, account, lambda r: r.time_us >= later_us, store_clock)
        newer = await posted(
            gateway, "quick", lambda r: r.analysis is not None and r.analysis.time_us >= later_us, store_clock
        )

        assert newer.analysis is not None
        assert analyses.latest("slow") is None
        opened = asyncio.create_task(asyncio.to_thread(open_gate, gate))
        at_last = await posted(
            gateway, "slow", lambda r: r.analysis is not None and bool(r.analysis.dollar_delta), store_clock
        )
        await opened

    assert at_last.analysis is not None and at_last.analysis.dollar_delta == 1_000.0


def open_gate(gate: Path) -> None:
    """Writing ends with the reader; another is let through for whoever comes later. One that has gone meanwhile was let
    through by the write before."""
    for _ in range(3):
        with contextlib.suppress(BrokenPipeError), gate.open("w") as pipe:
            pipe.write("on")


async def test_an_account_whose_analysis_fails_says_so_and_the_others_go_on(
    world: World, store_clock: list[int]
) -> None:
    gateway = await world.open()
    async with analysing(world, make_failing_for_alpha, size=1):
        await model_of(gateway, SESSION)
        await hold(gateway, ACCOUNT, 10)
        failed = await posted(gateway, ACCOUNT, lambda r: r.analysis is not None, store_clock)
        await open_second(gateway, "beta")
        await hold(gateway, "beta", 10)
        await posted(gateway, "beta", lambda r: r.analysis is not None and bool(r.analysis.dollar_delta), store_clock)

    assert failed.analysis is not None
    assert failed.analysis.problem == "ValueError: of alpha nothing can be said"
    assert failed.var_99 is not None


async def test_a_model_is_sent_to_a_process_once(world: World) -> None:
    """And again to the process that takes the place of one that died."""
    gateway = await world.open()
    reading = await gateway.read()
    pool = Pool(MakeSolver(SETTINGS), 1, patience_s=60.0)
    analyses = Analyses(pool)
    async with working(world):
        await model_of(gateway, SESSION)
        terms = (await gateway.read()).terms
    analyses.offer(reading.state, terms, {}, prices(), 1)
    subject, kit = analyses._waiting[ACCOUNT]

    first, second, other = (analyses._asked(subject, kit, process) for process in ((0, 1), (0, 1), (0, 2)))

    assert (first.kit is kit, second.kit, other.kit is kit) == (True, None, True)
    await analyses.aclose()
    await pool.aclose()


async def test_the_gist_has_no_figure_that_leaves_a_position_out(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 10))
    await gateway.report(report("x1", "one", "fill", 10))
    async with working(world):
        await model_of(gateway, SESSION)
        terms = (await gateway.read()).terms
    state = (await gateway.read()).state.fork()
    state.prices.mark[:] = 0.0
    state.price_version += 1
    assert terms.model is not None

    subject = subject_of(state, terms, {}, 1)
    gist = summary_of(Bench(terms.model, terms.instruments, prices(), SETTINGS).analyse(subject))

    assert (gist.worst_scenario, gist.worst_replay, gist.dollar_delta) == (None, None, None)
    assert "no mark for AAA" in gist.refused["value at risk"]
