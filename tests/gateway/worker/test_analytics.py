"""The analyst on a real account: beside the loop, within a deadline, a bounded number at a time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date

import pytest

from engine.facts import Quote, StatedPosition
from engine.risk.case import Assumptions
from engine.risk.inquiry import GreeksInquiry, ReplayInquiry, StressInquiry, Unanswerable, VarInquiry, Whose
from engine.risk.level import Level
from engine.risk.portfolio_answers import BENCHMARK
from engine.risk.scenarios import SIX_SCENARIOS
from gateway.errors import DeadlinePassed, Overloaded, UnknownAccount
from gateway.log.memory import MemoryLog
from gateway.rpc.convert import analytics
from gateway.rpc.convert.analytics import var_response
from gateway.worker.analytics import Analyst
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from gateway.worker.worker import Worker
from riskgateway.v1 import order_pb2, risk_analytics_pb2
from tests.gateway.worker.running import model_of, prices, report_of, working
from tests.gateway.world import ACCOUNT, SESSION, STRATEGY, Gateway, World, buy, world_on

MINE = Whose(ACCOUNT)
LONG_US = 20_000_000


@pytest.fixture
async def world(memory_log: MemoryLog) -> AsyncIterator[World]:
    async with world_on(memory_log) as running:
        yield running


@pytest.fixture
async def gateway(world: World) -> Gateway:
    """Holding 50 AAA at 100, cash of a million."""
    return await world.open(StatedPosition(symbol="AAA", quantity=50.0, strategy=STRATEGY, average_cost=100.0))


@pytest.fixture
async def worker(world: World, gateway: Gateway) -> AsyncIterator[Worker]:
    """Has published a model, and reported."""
    async with working(world) as running:
        await model_of(gateway, SESSION)
        await report_of(gateway, lambda report: report.var_99 is not None)
        yield running


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


@pytest.fixture
def analyst(worker: Worker, executor: ThreadPoolExecutor) -> Analyst:
    return Analyst(worker.accounts, executor, lambda: Assumptions(SIX_SCENARIOS, prices=prices()))


async def test_a_figure_is_of_the_account_as_it_is_now_and_says_how_old_it_is(
    analyst: Analyst, gateway: Gateway
) -> None:
    before = await analyst.value_at_risk(VarInquiry(MINE), LONG_US)
    await gateway.check(buy("more", 50.0))
    after = await analyst.value_at_risk(VarInquiry(MINE), LONG_US)
    without = await analyst.value_at_risk(VarInquiry(Whose(ACCOUNT, open_orders=False)), LONG_US)

    assert after.answered[1].estimate.var == pytest.approx(2.0 * before.answered[1].estimate.var)
    assert without.answered[1].estimate.var == pytest.approx(before.answered[1].estimate.var)
    assert after.stamp.seq > before.stamp.seq
    assert after.stamp.marks_oldest_us > 0 and after.stamp.model_built_us > 0
    assert after.stamp.last_price_date < SESSION


async def test_the_last_report_is_judged_with_gains_and_positions_beside_it(analyst: Analyst) -> None:
    answer = await analyst.report(ACCOUNT, LONG_US)

    assert answer.verdict.level is Level.LOW
    assert answer.pnl.session.total == 0.0
    assert answer.heat is not None and answer.heat.rows == ("AAA",)
    assert answer.heat.measures[:4] == ("market_value", "var_99_component", "worst_stress", "session_pnl")
    assert answer.heat.cells[0][0].value == 5_000.0
    (position,) = [
        cell for cell, name in zip(answer.heat.cells[0], answer.heat.measures, strict=True) if name == "position"
    ]
    assert (position.value, position.limit, position.share) == (50.0, 100.0, 0.5)
    assert {trend.figure for trend in answer.trends} >= {"equity", "var_99"}


async def test_over_an_ultra_short_limit_the_answer_and_the_report_say_what_would_go_first(
    worker: Worker, executor: ThreadPoolExecutor
) -> None:
    """Of 50 AAA, held at 100, with next to nothing that may be lost: all 50 are sold."""
    strict = Assumptions(SIX_SCENARIOS, prices=prices(), ultra_short_limits={1: 1e-9, 5: 1e-9})
    analyst = Analyst(worker.accounts, executor, lambda: strict)

    message = var_response(await analyst.value_at_risk(VarInquiry(MINE, ultra_short=True), LONG_US)).ultra_short
    report = await analyst.report(ACCOUNT, LONG_US)

    assert message.status == risk_analytics_pb2.ULTRA_SHORT_STATUS_BREACHED
    assert [one.horizon_days for one in message.limits] == [1, 5]
    assert message.limits[0].limit == pytest.approx(1e-9 * (report.stamp.equity or 0.0))
    assert message.excess == pytest.approx(-message.var_5d - message.limits[1].limit)
    (one,) = message.reductions
    assert (one.strategy, one.symbol, one.side, one.quantity) == (STRATEGY, "AAA", order_pb2.SIDE_SELL, 50.0)
    assert (one.excess_left, message.excess_left) == (0.0, 0.0)
    (warning,) = [one for one in report.stamp.warnings if "ultra-short VaR is over its limit" in one]
    assert warning.endswith(f"to be reduced first: sell 50 AAA ({STRATEGY})")


async def test_a_report_looks_at_the_portfolio_as_one(
    world: World, gateway: Gateway, executor: ThreadPoolExecutor
) -> None:
    """The index is BBB, and AAA, of which 5,000 are held beside a million, moves twice as much."""
    made = prices()
    history = replace(made, indices={BENCHMARK: made.closes[:, 1]})
    last_close = float(history.closes[history.dates.index(date.fromisoformat(SESSION)) - 1, 1])
    builder = ModelBuilder(history, ModelSettings(lookback_days=260, unmapped="zero"))
    async with working(world, builder=builder) as worker:
        await model_of(gateway, SESSION)
        await report_of(gateway, lambda report: report.var_99 is not None)
        now_us = worker.accounts.clock.now_us()
        worker.accounts.quotes.offer(Quote(BENCHMARK, 1.01 * last_close, None, None, now_us), now_us)
        analyst = Analyst(worker.accounts, executor, lambda: Assumptions(SIX_SCENARIOS, prices=history))
        found = analytics.report_response(await analyst.report(ACCOUNT, LONG_US))

    assert found.book_returns.observations == 260
    assert found.book_returns.beta == pytest.approx(2.0 * 5_000.0 / 1_005_000.0, rel=0.02)
    assert found.book_returns.r_squared == pytest.approx(1.0, abs=0.01)
    assert found.account_returns.observations == 0  # the first session is still open
    assert "statistics need 20" in found.account_returns.warnings[0]
    assert "two series" in found.asset_correlation.warnings[0]  # AAA is all that is held
    (factor,) = found.factor_attribution.factors
    assert factor.move == pytest.approx(0.01)
    assert factor.gain == pytest.approx(100.0, rel=0.02)
    assert found.factor_attribution.total == 0.0  # the mark of AAA has not moved
    assert found.factor_attribution.specific == pytest.approx(-factor.gain)


async def test_windows_scenarios_and_greeks_are_answered_from_the_workers_own(analyst: Analyst) -> None:
    stressed = await analyst.stress(StressInquiry(MINE), LONG_US)
    replayed = await analyst.replay(ReplayInquiry(MINE, "2020"), LONG_US)
    greeks = await analyst.greeks(GreeksInquiry(MINE), LONG_US)

    assert [one.name for one in stressed.losses] == [scenario.name for scenario in SIX_SCENARIOS]
    assert replayed.replay.status == "no data"  # the made history begins later
    assert greeks.total.dollar_delta == 5_000.0


async def test_an_account_that_nobody_opened_is_unknown(analyst: Analyst) -> None:
    with pytest.raises(UnknownAccount):
        await analyst.value_at_risk(VarInquiry(Whose("nobody")), LONG_US)


async def test_before_the_first_report_and_model_the_answer_says_what_is_missing(
    world: World, gateway: Gateway, executor: ThreadPoolExecutor
) -> None:
    early = Analyst(gateway.accounts, executor)

    with pytest.raises(Unanswerable, match="no report on alpha yet"):
        await early.report(ACCOUNT, LONG_US)
    with pytest.raises(Unanswerable, match="no risk model yet"):
        await early.value_at_risk(VarInquiry(MINE), LONG_US)
    with pytest.raises(Unanswerable, match="no price history"):
        await early.replay(ReplayInquiry(MINE, "2020"), LONG_US)


async def test_while_a_figure_is_computed_the_worker_reports_and_others_wait_or_are_refused(
    worker: Worker, gateway: Gateway, executor: ThreadPoolExecutor
) -> None:
    analyst = Analyst(worker.accounts, executor, waiting_max=1)
    release = threading.Event()
    executor.submit(release.wait)  # the one thread is taken: a figure that never ends

    asking = asyncio.create_task(analyst.value_at_risk(VarInquiry(MINE), LONG_US))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 questions are waiting"):
        await analyst.value_at_risk(VarInquiry(MINE), LONG_US)
    await gateway.check(buy("more", 30.0))
    reported = await report_of(gateway, lambda report: report.gross == 8_000.0)
    assert not asking.done()
    release.set()
    answer = await asking

    assert reported.var_99 is not None
    assert answer.answered


async def test_a_figure_that_takes_longer_than_its_caller_has_is_a_passed_deadline(
    worker: Worker, executor: ThreadPoolExecutor
) -> None:
    release = threading.Event()
    executor.submit(release.wait)
    try:
        with pytest.raises(DeadlinePassed, match="longer one"):
            await Analyst(worker.accounts, executor).value_at_risk(VarInquiry(MINE), 100_000)
    finally:
        release.set()
