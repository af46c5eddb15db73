"""A flattening goes on by itself, slice by slice, whoever runs it and whatever fills, until nothing is held."""

from collections.abc import AsyncIterator

import pytest

from engine.account import AccountState
from engine.control import TradingState
from engine.facts import StatedPosition
from engine.records import ExecutionKind, Instructed, InstructionKind
from gateway.log.memory import MemoryLog
from gateway.registry import register
from gateway.worker.instructor import JUDGE_S
from tests.gateway.worker.running import working
from tests.gateway.worker.test_instructor import state_of
from tests.gateway.world import EVERYTHING, Gateway, World, records_of, report, stock, world_on

AT_ONCE = 0.0
MINUTE_US = 60_000_000


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await register(world.log, [stock("AAA", average_daily_quantity=1_000.0)])
        yield world


async def flattening(world: World) -> None:
    await world.stopper().stop(EVERYTHING, TradingState.HALTED, "enough", "operator", 1, flatten=True)


async def one_more(gateway: Gateway, sent: int) -> str:
    """The id of the order that is out, once so many were sent in all."""

    def is_out(state: AccountState) -> bool:
        progress = state.liquidations.get(("", "AAA"))
        return progress is not None and progress.sent == sent and len(state.orders) == 1

    return next(iter((await state_of(gateway, is_out)).orders))


async def test_two_workers_flatten_in_slices_each_minute_until_flat(world: World, store_clock: list[int]) -> None:
    """1 % of 1,000 a day are 10 a minute; the second fills 4 of 10 and is cancelled, and is planned anew."""
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=25.0, average_cost=100.0))
    async with working(world, judge_s=AT_ONCE), working(world, judge_s=AT_ONCE):
        await flattening(world)
        for turn, (sent, filled) in enumerate(((10, 10), (20, 4), (30, 10), (31, 1))):
            name = await one_more(gateway, sent)
            await gateway.report(report(f"x{turn}", name, ExecutionKind.FILL, float(filled)))
            if filled == 4:
                await gateway.report(report("c", name, ExecutionKind.CANCELLED))
            store_clock[0] += MINUTE_US
            await world.mark("AAA", 100.0)
        final = await state_of(gateway, lambda state: not state.orders and not state.book.lots.any())

    progress = final.liquidations["", "AAA"]
    assert (progress.planned, progress.sent, progress.filled) == (25, 31, 25)
    made = [record for record in await records_of(gateway.accounts.log) if isinstance(record, Instructed)]
    assert [(record.kind, record.lots) for record in made] == [(InstructionKind.FLATTEN, n) for n in (10, 10, 10, 1)]
    assert JUDGE_S == 1.0, "how soon a worker looks again is within the interval of the slices"


async def test_a_gateway_that_starts_anew_knows_how_far_it_has_got(world: World, store_clock: list[int]) -> None:
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=25.0, average_cost=100.0))
    async with working(world, judge_s=AT_ONCE):
        await flattening(world)
        name = await one_more(gateway, 10)
        await gateway.report(report("x", name, ExecutionKind.FILL, 6.0))
    await world.crash(gateway)

    again = (await (await world.gateway()).read()).state

    progress = again.liquidations["", "AAA"]
    assert (progress.planned, progress.sent, progress.filled) == (25, 10, 6)
    assert again.fills.get("x") is not None and again.orders[name].leaves == 4
