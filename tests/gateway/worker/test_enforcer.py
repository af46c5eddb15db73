"""The worker halts by a loss, and moves the drawdown breaker, without an order, once, whoever else does."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from engine.account import AccountState
from engine.control import Scope
from engine.facts import StatedPosition
from engine.limits import Breaker, Limit, LimitAction, LimitSet, ScopeKind
from engine.order import Reason
from engine.records import AnyRecord, BreakerMoved, BreakerStage, Instructed, InstructionKind, Latched, Tightened
from gateway.log.memory import MemoryLog
from tests.gateway.worker.running import working
from tests.gateway.world import ACCOUNT, Gateway, World, buy, limits, opening, records_of, sell, session, world_on

HALT = Limit("daily_loss", ScopeKind.ACCOUNT, 0.02, action=LimitAction.HALT)
HELD = StatedPosition(symbol="AAA", quantity=100.0, average_cost=100.0)


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        yield world


async def opened(world: World) -> Gateway:
    """100 AAA at 100 and no cash."""
    gateway = await world.gateway()
    await gateway.record(opening(HELD, cash=0.0), opens=True)
    await gateway.record(session())
    await gateway.check(buy("first", 1, all_or_none=True))  # brings the first marks along
    return gateway


def with_breaker(armed: LimitSet) -> LimitSet:
    return LimitSet(armed.rows, msgspec.structs.replace(armed.policy, breaker=Breaker()))


async def until(gateway: Gateway, fits: Callable[[AccountState], bool]) -> AccountState:
    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        async with asyncio.timeout(20):
            while True:
                committer = gateway.accounts.latest(ACCOUNT)
                if committer is not None and fits(committer.state):
                    return committer.state
                await subscription.next(0.2)


async def fell(world: World, gateway: Gateway, clock: list[int], *prices: float) -> None:
    """Marks, each once the last is in the log; the newest of a falling account gets there without an order."""
    for price in prices:
        clock[0] += 2_000_000
        await world.mark("AAA", price)
        await until(gateway, lambda state, price=price: float(state.prices.mark[0]) == price)  # type: ignore[misc]


async def of(world: World, kind: type) -> list[AnyRecord]:
    return [record for record in await records_of(world.log) if isinstance(record, kind)]


async def test_two_workers_halt_once_and_a_resume_holds(world: World, store_clock: list[int]) -> None:
    await world.arm(limits(HALT, position=500.0))
    gateway = await opened(world)
    async with working(world, judge_s=0.0), working(world, judge_s=0.0):
        await fell(world, gateway, store_clock, 97.0, 96.9)
        assert not (await of(world, Latched))
        await fell(world, gateway, store_clock, 97.1)
        await until(gateway, lambda state: bool(state.latches))

        refused = (await gateway.check(buy("more", 1))).decided
        exit_ = (await gateway.check(sell("exit", 1, strategy=""))).decided
        await world.resume()
        again = (await gateway.check(buy("after", 1))).decided

    (latched,) = await of(world, Latched)
    assert isinstance(latched, Latched) and latched.latch.scope == Scope(ACCOUNT)
    assert (refused.reason, exit_.action.allows) == (Reason.REDUCE_ONLY, True)
    assert again.action.allows


async def test_the_breaker_moves_scales_and_cuts_once_with_two_workers(world: World, store_clock: list[int]) -> None:
    await world.arm(with_breaker(limits(position=500.0)))
    gateway = await opened(world)
    async with working(world, judge_s=0.0), working(world, judge_s=0.0):
        await fell(world, gateway, store_clock, 97.0, 96.9, 96.8)
        state = await until(gateway, lambda state: state.breaker.stage is BreakerStage.L1 and bool(state.instructions))

    assert [one.stage for one in state.breaker.moves] == [BreakerStage.L1]
    assert [len(await of(world, kind)) for kind in (BreakerMoved, Tightened)] == [1, 1]
    (cut,) = await of(world, Instructed)
    assert isinstance(cut, Instructed) and (cut.kind, cut.lots) == (InstructionKind.CUT, 25)


async def test_a_restart_of_everything_forgets_no_stage_and_no_peak(world: World, store_clock: list[int]) -> None:
    await world.arm(with_breaker(limits(position=500.0)))
    gateway = await opened(world)
    async with working(world, judge_s=0.0):
        await fell(world, gateway, store_clock, 94.0, 93.9, 94.1)
        before = await until(gateway, lambda state: state.breaker.stage is BreakerStage.L2)
    breaker, peak, past = before.breaker, before.peak_confirmed, before.past_marks.tolist()
    await world.crash(gateway)

    read = await (await world.gateway()).read()

    assert (read.state.breaker.stage, read.state.breaker.peak) == (breaker.stage, breaker.peak)
    assert (read.state.peak_confirmed, read.state.past_marks.tolist()) == (peak, past)
