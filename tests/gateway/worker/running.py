"""A worker that runs with the test, over a small made history of prices, and what a gateway hears of it.

Only builders and the running of workers live here. Everything is ended with the test.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date, timedelta
from types import MappingProxyType

import numpy as np

from engine.report import RiskReport, decode_report
from engine.risk.history import PriceHistory
from gateway.log.account_log import AccountLog
from gateway.market.daily import DailyHistory
from gateway.tasks import ended
from gateway.worker.instructor import JUDGE_S
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from gateway.worker.worker import Analyses, SessionRoll, Worker
from tests.gateway.world import ACCOUNT, SESSION, Gateway, World

DAYS = 320


def prices() -> PriceHistory:
    """Closes of AAA and BBB on the weekdays up to the session, AAA moving twice as much."""
    last = date.fromisoformat(SESSION)
    days = [last - timedelta(days=back) for back in range(3 * DAYS, 0, -1)]
    days = [day for day in days if day.weekday() < 5][-DAYS:] + [last + timedelta(days=i) for i in range(3)]
    moves = np.random.default_rng(7).normal(0.0, 0.01, (len(days), 1)) * np.array([2.0, 1.0])
    return PriceHistory(tuple(days), ("AAA", "BBB"), 100.0 * np.exp(np.cumsum(moves, axis=0)))


@contextlib.asynccontextmanager
async def working(
    world: World,
    roll: SessionRoll | None = None,
    refresh_s: float = 3600.0,
    builder: ModelBuilder | None = None,
    judge_s: float = JUDGE_S,
    log: AccountLog | None = None,
    daily: DailyHistory | None = None,
    analyses: Analyses | None = None,
    rolls: Mapping[str, SessionRoll] = MappingProxyType({}),
) -> AsyncIterator[Worker]:
    """Ends with an error if the worker did before. `log`: a connection of its own."""
    builder = builder or ModelBuilder(prices(), ModelSettings(lookback_days=260, unmapped="zero"))
    worker = Worker(
        log or world.log,
        await world.clock(),
        builder,
        refresh_s,
        roll,
        judge_s,
        daily=daily,
        analyses=analyses,
        rolls=rolls,
    )
    running = asyncio.create_task(worker.run())
    try:
        yield worker
        assert not running.done()
    finally:
        await ended([running])
        await worker.aclose()


async def model_of(gateway: Gateway, session_date: str) -> None:
    """Until the gateway decides with the model of a session."""
    with gateway.accounts.subscribe(()) as subscription:
        async with asyncio.timeout(20):
            while (model := gateway.accounts.model) is None or model.session_date.isoformat() != session_date:
                await subscription.next(1.0)


async def report_of(gateway: Gateway, fits: Callable[[RiskReport], bool]) -> RiskReport:
    """The first report on the account that fits."""
    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        async with asyncio.timeout(20):
            while True:
                encoded = gateway.accounts.report(ACCOUNT)
                if encoded is not None and fits(found := decode_report(encoded)):
                    return found
                await subscription.next(1.0)
