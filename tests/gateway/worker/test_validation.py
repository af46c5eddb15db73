"""The worker has each session's VaR forecast recorded once, and its verdict on the model travels in the report."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from engine.account import AccountState
from engine.decide import Terms
from engine.facts import StatedPosition
from engine.limits import Limit, ScopeKind
from engine.records import AnyRecord, Forecast, Quoted, SessionOpened, Tightened, Valued, decode
from engine.report import RiskReport
from gateway.log.account_log import Page
from gateway.log.memory import MemoryLog
from gateway.tasks import ended
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from gateway.worker.validator import Validator
from gateway.worker.worker import Worker
from tests.gateway.worker.running import model_of, report_of, working
from tests.gateway.worker.running import prices as made_prices
from tests.gateway.world import ACCOUNT, SESSION, Gateway, World, buy, limits, opening, report, session, world_on

VAR = Limit("var_95", ScopeKind.ACCOUNT, 0.5)
DAYS = 120


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits(VAR))
        yield world


async def recorded(world: World) -> list[AnyRecord]:
    page = await world.log.read(ACCOUNT, 0, 10_000)
    assert isinstance(page, Page) and not page.more
    return [decode(raw) for raw in page.records]


async def until_forecast(gateway: Gateway, session_date: str) -> None:
    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        async with asyncio.timeout(20):
            while True:
                committer = gateway.accounts.latest(ACCOUNT)
                current = committer.state.session if committer is not None else None
                if current is not None and current.date == session_date and current.forecast is not None:
                    return
                await subscription.next(1.0)


def history_of_losses(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """DAYS sessions up to SESSION, each forecast to lose at most 1, of which every tenth lost 10 on 10 AAA."""
    last, records = date.fromisoformat(SESSION), list[AnyRecord]()
    for day in range(DAYS):
        session_date = (last - timedelta(days=DAYS - day)).isoformat()
        records.append(SessionOpened(time_us=now_us, date=session_date))
        records.append(_promise(session_date, now_us))
        mark = 99.0 if day % 10 == 9 else 100.0
        records.append(Valued(time_us=now_us, marks={"AAA": Quoted(mark, mark, mark, now_us)}))
    return [*records, SessionOpened(time_us=now_us, date=SESSION)]


def _promise(session_date: str, now_us: int) -> Forecast:
    return Forecast(
        time_us=now_us,
        session=session_date,
        var_95=1.0,
        var_99=1.0,
        es_95=1.5,
        es_99=1.5,
        method="historical",
        model="an older one",
    )


async def test_two_workers_record_one_forecast_a_session_of_what_is_held(world: World) -> None:
    gateway = await world.open()
    async with working(world, refresh_s=0.05), working(world, refresh_s=0.05):
        await until_forecast(gateway, SESSION)
        await gateway.check(buy("one", 10))
        await gateway.report(report("x1", "one", "fill", 10))
        await gateway.record(session("2023-11-15"))
        await until_forecast(gateway, "2023-11-15")
        shown = await report_of(gateway, lambda one: one.model_session == "2023-11-15" and one.var_99 is not None)

    found = [record for record in await recorded(world) if isinstance(record, Forecast)]
    assert [one.session for one in found] == [SESSION, "2023-11-15"]
    assert found[0].var_99 == 0.0  # nothing was held
    assert found[1].var_99 == pytest.approx(shown.var_99) and found[1].var_99 > 0
    assert (found[1].model, found[1].n_observations) == (shown.model, shown.n_observations)


async def test_a_failing_model_is_in_the_report_and_tightens_once(world: World) -> None:
    gateway = await world.gateway()
    await gateway.record(opening(StatedPosition(symbol="AAA", quantity=10.0, average_cost=100.0)), opens=True)
    await gateway.record(history_of_losses)

    def is_tightened(one: RiskReport) -> bool:
        return bool(one.tightenings) and one.var_99 is not None

    async with working(world, refresh_s=0.05), working(world, refresh_s=0.05):
        shown = await report_of(gateway, is_tightened)
        bound = (await gateway.check(buy("one"))).decided

    narrow = next(one for one in shown.validation if one.confidence == 0.99)
    assert (narrow.n, narrow.exceptions, narrow.verdict, narrow.zone) == (DAYS, 12, "FAIL", "red")
    (tightened,) = [record for record in await recorded(world) if isinstance(record, Tightened)]
    assert (tightened.factor, tightened.tightening_id) == (0.75, "model_validation")
    assert [use.limit for use in shown.limits if use.measure == "var_95"] == [0.375]
    assert [check.limit for check in bound.checks if check.measure == "var_95"] == [0.375]


async def test_told_not_to_the_worker_flags_a_failing_model_alone(world: World) -> None:
    gateway = await world.gateway()
    await gateway.record(opening(StatedPosition(symbol="AAA", quantity=10.0, average_cost=100.0)), opens=True)
    await gateway.record(history_of_losses)
    builder = ModelBuilder(made_prices(), ModelSettings(lookback_days=260, unmapped="zero"))
    worker = Worker(world.log, await world.clock(), builder, 0.05, None, tighten=None)
    running = asyncio.create_task(worker.run())

    await until_forecast(gateway, SESSION)
    shown = await report_of(gateway, lambda one: bool(one.validation) and one.var_99 is not None)
    await ended([running])
    await worker.aclose()

    assert [one.verdict for one in shown.validation if one.confidence == 0.99] == ["FAIL"]
    assert shown.tightenings == ()
    assert not [record for record in await recorded(world) if isinstance(record, Tightened)]


async def test_a_verdict_is_of_the_sessions_that_are_closed_by_then(world: World) -> None:
    gateway = await world.gateway()
    await gateway.record(opening(StatedPosition(symbol="AAA", quantity=10.0, average_cost=100.0)), opens=True)
    validator = Validator(gateway.accounts)
    before = validator.verdicts((await gateway.read()).state)
    await gateway.record(history_of_losses)

    after = validator.verdicts((await gateway.read()).state)

    assert before == ()
    assert [one.n for one in after] == [DAYS, DAYS]


async def test_a_log_without_forecasts_folds_and_reports_no_verdict(world: World) -> None:
    gateway = await world.open()
    for day in ("2023-11-15", "2023-11-16"):
        await gateway.record(session(day))

    async with working(world, refresh_s=0.05):
        await model_of(gateway, "2023-11-16")
        shown = await report_of(gateway, lambda one: one.var_99 is not None)

    assert shown.validation == ()
