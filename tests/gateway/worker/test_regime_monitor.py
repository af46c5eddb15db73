"""Workers keep bounds as tight as the market and the book ask for: recorded once, by any number of them."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from engine.facts import StatedPosition
from engine.limits import LimitSet, RegimeMethod
from engine.records import AnyRecord, Tightened, decode
from engine.risk.model import RiskModel
from engine.risk.volatility import VOLATILITY_REGIME, VOLATILITY_TARGET, ewma_volatility, volatility_scale
from gateway.log.account_log import Page
from gateway.log.memory import MemoryLog
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from tests.gateway.worker.running import prices, report_of, working
from tests.gateway.world import ACCOUNT, Gateway, World, limits, session, world_on


@pytest.fixture
async def world(memory_log: MemoryLog) -> AsyncIterator[World]:
    async with world_on(memory_log) as running:
        yield running


@pytest.fixture
async def gateway(world: World) -> Gateway:
    """Holding 50 AAA at 100."""
    return await world.open(StatedPosition(symbol="AAA", quantity=50.0, average_cost=100.0))


def with_policy(**changes: object) -> LimitSet:
    armed = limits()
    return LimitSet(armed.rows, msgspec.structs.replace(armed.policy, **changes))


async def tightened(world: World) -> list[Tightened]:
    page = await world.log.read(ACCOUNT, 0, 10_000)
    assert isinstance(page, Page) and not page.more
    records: list[AnyRecord] = [decode(raw) for raw in page.records]
    return [record for record in records if isinstance(record, Tightened)]


async def test_two_workers_scale_to_the_target_once_and_lift_when_it_is_gone(world: World, gateway: Gateway) -> None:
    """AAA moves some 30 % a year: 5 % is aimed at."""
    await world.arm(with_policy(volatility_target=0.05, volatility_scale_min=0.1))

    async with working(world, refresh_s=0.05), working(world, refresh_s=0.05):
        await report_of(gateway, lambda report: bool(report.tightenings))
        await world.arm(with_policy())
        await report_of(gateway, lambda report: report.var_99 is not None and not report.tightenings)

    scaled, lifted = await tightened(world)
    assert (scaled.tightening_id, lifted.tightening_id) == (VOLATILITY_TARGET, VOLATILITY_TARGET)
    assert 0.1 <= scaled.factor < 0.5
    assert lifted.factor == 1.0


async def test_the_factor_is_that_of_the_held_days(world: World, gateway: Gateway) -> None:
    await world.arm(with_policy(volatility_target=0.05, volatility_scale_min=0.1))

    async with working(world, refresh_s=0.05) as worker:
        await report_of(gateway, lambda report: bool(report.tightenings))
        model = worker.accounts.model

    (scaled,) = await tightened(world)
    assert isinstance(model, RiskModel)
    days = model.returns[: model.n_days, model.column["AAA"]]
    assert scaled.factor == volatility_scale(0.05, ewma_volatility(days), 0.1)


async def test_a_market_without_history_is_the_most_volatile(world: World, gateway: Gateway) -> None:
    """100 days are no history to a risk model."""
    await world.arm(with_policy(volatility_regime=RegimeMethod.GARCH))
    short = ModelBuilder(prices(), ModelSettings(lookback_days=100, unmapped="zero"))

    async with working(world, refresh_s=0.05, builder=short):
        report = await report_of(gateway, lambda report: bool(report.tightenings))

    (record,) = await tightened(world)
    assert (record.tightening_id, record.factor) == (VOLATILITY_REGIME, 0.5)
    assert "no instrument with a history" in record.reason
    assert report.tightenings == (record,)


@pytest.mark.parametrize("method", [RegimeMethod.EWMA, RegimeMethod.GARCH, RegimeMethod.MARKOV])
async def test_a_market_like_it_always_was_tightens_nothing(
    world: World, gateway: Gateway, method: RegimeMethod
) -> None:
    """The made history is one regime, and its last forecasts are among the lower ones."""
    await world.arm(with_policy(volatility_regime=method))

    async with working(world, refresh_s=0.05) as worker:
        await report_of(gateway, lambda report: report.var_99 is not None)
        await gateway.record(session("2023-11-15"))
        report = await report_of(gateway, lambda report: report.model_session == "2023-11-15")
        assert worker.accounts.model is not None

    assert await tightened(world) == []
    assert report.tightenings == ()
