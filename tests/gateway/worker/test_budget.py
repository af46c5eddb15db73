"""GetBudget from a real worker's model: the figures add up, and are those that its VaR is made of."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.facts import StatedPosition
from engine.risk.budget_answers import BudgetInquiry
from engine.risk.inquiry import VarInquiry, Whose
from gateway.log.memory import MemoryLog
from gateway.worker.analytics import Analyst
from tests.gateway.worker.running import model_of, report_of, working
from tests.gateway.world import ACCOUNT, SESSION, STRATEGY, World, world_on

LONG_US = 20_000_000


@pytest.fixture
async def world(memory_log: MemoryLog) -> AsyncIterator[World]:
    async with world_on(memory_log) as running:
        yield running


async def test_components_add_up_to_the_var_that_the_worker_tells(world: World) -> None:
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=50.0, strategy=STRATEGY, average_cost=100.0))
    async with working(world) as worker:
        await model_of(gateway, SESSION)
        await report_of(gateway, lambda report: report.var_99 is not None)
        with ThreadPoolExecutor(1) as executor:
            analyst = Analyst(worker.accounts, executor)
            answer = await analyst.budget(BudgetInquiry(ACCOUNT), LONG_US)
            var = await analyst.value_at_risk(VarInquiry(Whose(ACCOUNT), confidences=(0.95,)), LONG_US)

    (strategy,), (position,) = answer.strategies, answer.positions
    assert answer.account.component == pytest.approx(var.answered[0].estimate.var)
    assert (strategy.name, position.name) == (STRATEGY, "AAA")
    assert strategy.component == pytest.approx(answer.account.component) == pytest.approx(position.component)
    assert answer.account.allocated == pytest.approx(max(0.0, answer.account.component) / answer.var_limit)
    assert answer.var_limit == pytest.approx(0.05 * (answer.stamp.equity or 0.0))
