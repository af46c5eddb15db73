"""The worker's process: the model builder, the monitors, the analyses and the answers, put together and run until it is
told to stop. What is computed stands in `gateway.worker`; `gateway.main` imports this for the worker alone.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog

from engine.risk.backtest import BASEL_RULE
from engine.risk.case import Assumptions
from engine.risk.scenarios import SIX_SCENARIOS, Scenario
from gateway.config import ConfigError, WorkerSettings
from gateway.machine import approval_key
from gateway.market.daily import DailyHistory
from gateway.market.events.sources import Sources, ranks_of
from gateway.market.history_files import HistoryFiles
from gateway.process import Process
from gateway.rpc.peers import reachable_host
from gateway.tasks import ended
from gateway.worker.event_monitor import EventMonitor
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from gateway.worker.worker import SessionRoll, Worker

if TYPE_CHECKING:
    from engine.risk.analysis import Analysis
    from gateway.rpc.analytics_server import AnalyticsServer
    from gateway.worker.analytics import Analyst
    from gateway.worker.pool import Pool
    from gateway.worker.refresh import Analyses, Question

LOGGER = structlog.get_logger()


async def work(process: Process) -> None:
    settings = process.settings.worker
    splits = Path(settings.splits) if settings.splits else None
    files = await asyncio.to_thread(HistoryFiles, settings.prices, settings.indices, splits)
    own = tuple(Scenario(scenario.name, scenario.shocks) for scenario in process.settings.scenario)
    model_settings = ModelSettings(
        lookback_days=settings.lookback_days,
        scenarios=(*SIX_SCENARIOS, *own),
        unmapped=settings.unmapped,
        base_currency=settings.base_currency,
        rates=settings.rates,
    )
    by_clock = settings.sessions == "daily"
    roll = SessionRoll(settings.session_open_time, ZoneInfo(settings.session_zone)) if by_clock else None
    rolls = await asyncio.to_thread(_account_rolls, settings, process.clock.now_us())
    builder = ModelBuilder(files.loaded.history, model_settings)
    daily = DailyHistory(files, process.log.bulletin)
    rule = BASEL_RULE if settings.failing_model == "tighten" else None
    worker = Worker(
        process.log,
        process.clock,
        builder,
        settings.refresh_s,
        roll,
        tighten=rule,
        daily=daily,
        events=_event_monitor(process),
        rolls=rolls,
    )

    def assumptions() -> Assumptions:
        gaps = worker.events.gaps() if worker.events is not None else None
        limits = process.settings.report.ultra_short_limits
        return Assumptions(model_settings.scenarios, model_settings.factor_map, worker.history, gaps, limits)

    running, stopping = asyncio.create_task(worker.run()), asyncio.create_task(process.stop.wait())
    beside = [asyncio.create_task(_answer_questions(process, worker, assumptions))]
    if settings.analysis_processes:
        beside.append(asyncio.create_task(_analyse(process, worker, model_settings)))
    process.ready()
    await asyncio.wait({running, stopping, *beside}, return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in (running, *beside) if task.done()]
    process.stop.set()
    await asyncio.wait(beside)
    await ended([running])
    await worker.aclose()
    for task in failed:
        task.result()


def _event_monitor(process: Process) -> EventMonitor:
    events = process.settings.events
    sources = Sources(events, process.environment)
    return EventMonitor(
        process.log.bulletin, process.clock, events.policy, ranks_of(events), sources.open, events.refresh_s
    )


def _account_rolls(settings: WorkerSettings, now_us: int) -> dict[str, SessionRoll]:
    """Sessions of the accounts that have hours of their own. Raises ConfigError where a calendar is not to be had."""
    return {
        account: SessionRoll(one.open_time, ZoneInfo(one.zone), _holidays(account, one.calendar, now_us))
        for account, one in settings.account_sessions.items()
    }


def _holidays(account: str, calendar: str, now_us: int) -> frozenset[date]:
    """Weekdays without a session of an exchange, from weeks before now to a year ahead. A calendar is slow to import:
    only a worker that is told of one does so."""
    if not calendar:
        return frozenset()
    from gateway.market.events.hours import exchange

    place = f"worker.account_sessions.{account}.calendar"
    try:
        days = [day for day, _, _ in exchange(datetime.fromtimestamp(now_us / 1e6, UTC).date(), calendar).sessions]
    except ModuleNotFoundError as error:
        raise ConfigError(place, ["needs exchange-calendars, which is not installed"]) from error
    except ValueError as error:
        raise ConfigError(place, [str(error)]) from error
    every = (days[0] + timedelta(days=ahead) for ahead in range((days[-1] - days[0]).days))
    return frozenset(day for day in every if day.weekday() < 5) - frozenset(days)


async def _analyse(process: Process, worker: Worker, model_settings: ModelSettings) -> None:
    """Full analyses beside the reports, until the process ends. What they compute with is slow to import: the first
    model and the first reports wait for none of it."""
    analyses, pool = await asyncio.to_thread(_analyses, process.settings.worker, model_settings)
    worker.analyses = analyses
    try:
        await process.stop.wait()
    finally:
        worker.analyses = None
        await analyses.aclose()
        await pool.aclose()


def _analyses(settings: WorkerSettings, model_settings: ModelSettings) -> "tuple[Analyses, Pool[Question, Analysis]]":
    from engine.risk.analysis import BenchSettings
    from gateway.worker.pool import Pool
    from gateway.worker.refresh import Analyses, MakeSolver

    bench = BenchSettings(
        scenarios=model_settings.scenarios,
        factor_map=model_settings.factor_map,
        lookback_days=model_settings.lookback_days,
    )
    pool = Pool(MakeSolver(bench), settings.analysis_processes, settings.analysis_patience_s)
    return Analyses(pool), pool


async def _answer_questions(process: Process, worker: Worker, assumptions: Callable[[], Assumptions]) -> None:
    """RiskAnalytics, until the process ends. What it computes with is slow to import: only the worker does so, beside
    its first reports."""
    build_analytics, analyst_of = await asyncio.to_thread(_import_analytics)
    settings = process.settings
    key = approval_key(settings, process.data_dir)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="analyst")
    analyst = analyst_of(worker.accounts, executor, assumptions, settings.report.policy)
    server = build_analytics(analyst, process.log.bulletin, process.clock, settings, key, process.environment)
    host = settings.server.host
    port = await server.start(host, settings.worker.analytics_port, reachable_host(settings.server) or "127.0.0.1")
    LOGGER.info("answering questions", host=host, port=port)
    await process.stop.wait()
    await server.drain()
    executor.shutdown(wait=False, cancel_futures=True)


def _import_analytics() -> "tuple[Callable[..., AnalyticsServer], type[Analyst]]":
    from gateway.rpc.analytics_server import build_analytics
    from gateway.worker.analytics import Analyst

    return build_analytics, Analyst
