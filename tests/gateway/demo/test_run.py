"""The demo on real servers over a real store: four sessions around the worst day, the operator's stop among them."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path

import pytest
from rich.console import Console

from gateway.accounts import Accounts
from gateway.clock import StoreClock
from gateway.config import load
from gateway.demo.agents import AGENTS, MakeAgent
from gateway.demo.broker import Report, ReportKind
from gateway.demo.client import REPORTS_MAX, DemoError
from gateway.demo.recount import recount
from gateway.demo.run import DemoPlan, connected, run_demo
from gateway.demo.summary import Summary
from gateway.log.redis import RedisLog
from gateway.machine import configured_limits
from gateway.market.prices import sample_us_stocks
from gateway.market.sample import sample_instruments
from gateway.registry import arm_limits
from gateway.rpc.server import build_control, build_gateway
from gateway.stopping import Stopper
from gateway.worker.model_builder import ModelBuilder
from gateway.worker.worker import Worker

AROUND_THE_CRASH = DemoPlan(first=date(2020, 3, 12), last=date(2020, 3, 17))
KEY = b"0" * 32


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def wall_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Targets:
    gateway: str
    control: str


@asynccontextmanager
async def served(log: RedisLog, sockets: Path) -> AsyncIterator[Targets]:
    """Gateway, control and worker as in the demo, each with its own view of the log, on unix sockets."""
    with resources.as_file(resources.files("gateway.demo") / "demo.toml") as path:
        settings = load(path, {})
    configured = configured_limits(settings)
    await arm_limits(log, configured.limits, configured.hash)
    clock, stopper = StoreClock(monotonic_us, await log.now_us()), Stopper(log)
    seen = [Accounts(log, clock), Accounts(log, clock)]
    for accounts in seen:
        await accounts.start()
    servers = [
        build(accounts, stopper, settings, KEY, {})
        for build, accounts in zip((build_gateway, build_control), seen, strict=True)
    ]
    worker = Worker(log, clock, ModelBuilder(sample_us_stocks()), settings.worker.refresh_s, None)
    working = asyncio.create_task(worker.run())
    targets = Targets(f"unix:{sockets / 'gateway'}", f"unix:{sockets / 'control'}")
    try:
        await servers[0].start(targets.gateway)
        await servers[1].start(targets.control)
        yield targets
    finally:
        for server in servers:
            await server.drain(grace_s=0.0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await worker.aclose()
        await stopper.aclose()
        for accounts in seen:
            await accounts.aclose()


async def played(
    log: RedisLog,
    targets: Targets,
    console: Console,
    run_id: str,
    agents: Sequence[MakeAgent] = tuple(AGENTS.values()),
) -> Summary:
    async def active(accounts: Sequence[str]) -> int:
        return len((await recount(log, list(accounts))).active)

    return await run_demo(
        targets.gateway,
        targets.control,
        console,
        plan=AROUND_THE_CRASH,
        run_id=run_id,
        now_us=wall_us,
        recount=active,
        agents=agents,
    )


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_the_demo_trades_is_stopped_resumes_and_keeps_its_books(valkey_log: RedisLog, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160)

    async with served(valkey_log, tmp_path) as targets:
        summary = await played(valkey_log, targets, console, "first")
        summary.print(console)

    assert summary.sessions == 4
    assert summary.sound
    assert summary.accounts == ("DEMO-first-MOMENTUM", "DEMO-first-REVERSION", "DEMO-first-LONGSHORT")
    by_action = summary.tally.by_action()
    assert all(by_action[action] > 0 for action in ("ALLOW", "WARN", "REDUCE", "REJECT"))
    assert summary.stop is not None
    assert by_action["HALT"] == len(summary.stop.refused) == 3
    assert summary.stop.open_orders == summary.stop.cancelled > 0
    assert summary.stop.differences == 0
    assert summary.stop.resume_epoch > summary.stop.stop_epoch
    assert summary.agreement.compared > 0 and summary.agreement.largest_gap < 1e-9
    assert summary.together.controlled.days_over_limit == 0 < summary.together.free.days_over_limit
    for shown in ("STOP ALL", "RESUME", "4/4 sessions", "0 recomputed from the log: none", "daily closes only"):
        assert shown in text_of(console)


async def test_a_second_run_on_the_same_store_opens_new_accounts_and_decides_the_same(
    valkey_log: RedisLog, tmp_path: Path
) -> None:
    async with served(valkey_log, tmp_path) as targets:
        first = await played(valkey_log, targets, Console(file=io.StringIO()), "one")
        second = await played(valkey_log, targets, Console(file=io.StringIO()), "two")

    assert not set(first.accounts) & set(second.accounts)
    assert first.tally == second.tally
    assert first.together == second.together


async def test_more_reports_than_one_call_takes_are_told_in_several(valkey_log: RedisLog, tmp_path: Path) -> None:
    reports = [Report(f"r{n}", f"o{n}", "AAPL", 1, ReportKind.CANCELLED, 0, 0) for n in range(2 * REPORTS_MAX + 1)]

    async with served(valkey_log, tmp_path) as targets, connected(targets.gateway, targets.control, wall_us) as client:
        await client.register([sample_instruments()["AAPL"]])
        await client.open_account("BUSY", 1_000.0)
        before = (await valkey_log.heads(["BUSY"]))["BUSY"].seq
        await client.report("BUSY", "s", reports)
        after = (await valkey_log.heads(["BUSY"]))["BUSY"].seq

    assert after - before >= len(reports)


async def test_a_name_that_is_taken_breaks_off_with_the_servers_reason(valkey_log: RedisLog, tmp_path: Path) -> None:
    async with served(valkey_log, tmp_path) as targets:
        async with connected(targets.gateway, targets.control, wall_us) as client:
            await client.open_account("DEMO-same-LONGSHORT", 1_000.0)

        with pytest.raises(DemoError, match="FAILED_PRECONDITION"):
            await played(valkey_log, targets, Console(file=io.StringIO()), "same")
