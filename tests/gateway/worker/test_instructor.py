"""Open orders are judged again when something moves: what no longer fits is asked to go once, whoever judges it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from engine.account import AccountState
from engine.control import Scope, TradingState
from engine.facts import StatedPosition
from engine.instructions import ANSWER_US, RECORDS_MAX
from engine.limits import HaltState, Limit, LimitAction, LimitSet, ScopeKind
from engine.order import Reason
from engine.records import Escalated, Instructed, InstructionKind, Latched
from engine.risk.model import RiskModel
from gateway.log.account_log import AccountLog
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog
from gateway.worker.instructor import JUDGE_S, Instructor
from gateway.worker.model_builder import ModelBuilder
from tests.gateway.log.conflicting import EveryKthConflicts
from tests.gateway.worker.running import prices, report_of, working
from tests.gateway.world import ACCOUNT, STRATEGY, Gateway, World, buy, limits, records_of, report, world_on

AT_ONCE = 0.0
GROSS = Limit("gross_exposure", ScopeKind.ACCOUNT, 10_000.0)


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits(GROSS))
        yield world


async def state_of(gateway: Gateway, fits: Callable[[AccountState], bool]) -> AccountState:
    """The account's state as a gateway folded it, once that fits."""
    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        async with asyncio.timeout(20):
            while True:
                committer = gateway.accounts.latest(ACCOUNT)
                if committer is not None and fits(committer.state):
                    return committer.state
                await subscription.next(0.2)


async def instructed(gateway: Gateway, count: int = 1) -> list[Instructed]:
    """What is in the log, once there is something."""
    await state_of(gateway, lambda state: len(state.instructions) >= count)
    records = await records_of(gateway.accounts.log)
    return [record for record in records if isinstance(record, Instructed)]


async def test_a_limit_that_is_tightened_asks_to_cancel_and_is_a_passive_breach(world: World) -> None:
    gateway = await world.open()
    async with working(world, judge_s=AT_ONCE):
        await gateway.check_all(buy("old", 40), buy("new", 40))
        await report_of(gateway, lambda r: r.gross == 8_000.0)

        await world.arm(limits(GROSS, position=50.0))
        (cancel,) = await instructed(gateway)
        found = await report_of(gateway, lambda r: bool(r.passive_breaches))

    assert (cancel.kind, cancel.client_order_id, cancel.reason) == (InstructionKind.CANCEL, "new", Reason.POSITION)
    assert (found.active_breaches, found.passive_breaches) == (0, 1)


async def test_a_price_that_moves_asks_to_cancel_and_is_a_passive_breach(world: World) -> None:
    gateway = await world.open()
    async with working(world, judge_s=AT_ONCE):
        await gateway.check_all(buy("old", 40), buy("new", 40))
        await report_of(gateway, lambda r: r.gross == 8_000.0)

        await world.mark("AAA", 150.0)
        (cancel,) = await instructed(gateway)
        found = await report_of(gateway, lambda r: bool(r.passive_breaches))

    assert (cancel.client_order_id, cancel.reason) == ("new", Reason.GROSS_EXPOSURE)
    assert "gross_exposure of account:alpha is 12,000.00, limit 10,000.00" in cancel.message
    assert (found.active_breaches, found.passive_breaches) == (0, 1)


class Slow(ModelBuilder):
    """A model that takes long, as one of thousands of instruments does."""

    def __init__(self) -> None:
        super().__init__(prices())
        self.asked, self.ready = threading.Event(), threading.Event()

    def build(self, *arguments: Any) -> RiskModel:
        self.asked.set()
        self.ready.wait(20)
        return super().build(*arguments)


async def test_while_a_model_is_built_nobody_waits_for_a_cancel(world: World) -> None:
    gateway, builder = await world.open(), Slow()
    await gateway.check(buy("one", 40))
    async with working(world, builder=builder, judge_s=AT_ONCE):
        try:
            await asyncio.to_thread(builder.asked.wait, 20)
            await world.stop()
            (cancel,) = await instructed(gateway)
        finally:
            builder.ready.set()

    assert cancel.client_order_id == "one"


async def test_whoever_falls_silent_is_halted_and_what_works_is_asked_to_be_cancelled(
    world: World, store_clock: list[int]
) -> None:
    """Nothing else happens in the account: time alone makes it due."""
    silence = Limit("agent_silence", ScopeKind.STRATEGY, 30.0, action=LimitAction.HALT, halt_state=HaltState.HALTED)
    await world.arm(limits(silence))
    gateway = await world.open()
    async with working(world, judge_s=AT_ONCE):
        await gateway.check(buy("works", 1))
        store_clock[0] += 31_000_000
        (cancel,) = await instructed(gateway)

    (latched,) = [record for record in await records_of(world.log) if isinstance(record, Latched)]
    assert latched.latch.scope == Scope(ACCOUNT, STRATEGY)
    assert (cancel.client_order_id, cancel.reason) == ("works", Reason.TRADING_HALTED)
    assert "silent" in cancel.message


async def test_positions_far_past_a_cap_are_cut_though_no_order_works(world: World) -> None:
    """40 at 100 of a delta of 1,000 at most: 30 go."""
    armed = limits(Limit("delta_net", ScopeKind.ACCOUNT, 1_000.0))
    await world.arm(LimitSet(armed.rows, msgspec.structs.replace(armed.policy, greeks_cut_at=2.0)))
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=40.0, strategy=STRATEGY, average_cost=100.0))
    async with working(world, judge_s=AT_ONCE):
        (cut,) = await instructed(gateway)

    assert (cut.kind, cut.reason, cut.lots) == (InstructionKind.CUT, Reason.DELTA, 30)


async def test_what_fits_is_left_alone(world: World) -> None:
    gateway = await world.open()
    async with working(world, judge_s=AT_ONCE):
        await gateway.check_all(buy("old", 40), buy("new", 40))
        await world.mark("AAA", 120.0)
        await report_of(gateway, lambda r: r.gross == 9_600.0)
        await gateway.check(buy("another"))
        await report_of(gateway, lambda r: r.gross == 9_720.0)

    assert not [record for record in await records_of(world.log) if isinstance(record, Instructed)]


@pytest.mark.parametrize("conflicting", [False, True])
async def test_two_workers_instruct_once(memory_log: MemoryLog, store_clock: list[int], conflicting: bool) -> None:
    log: AccountLog = EveryKthConflicts(memory_log, 2) if conflicting else memory_log
    async with world_on(log, lambda: store_clock[0]) as world:
        gateway = await world.open(StatedPosition(symbol="BBB", quantity=5.0, average_cost=100.0))
        names = [f"o{i}" for i in range(20)]
        await gateway.check_all(*(buy(name) for name in names))
        async with working(world, judge_s=AT_ONCE), working(world, judge_s=AT_ONCE):
            await world.stopper().stop(Scope(), TradingState.HALTED, "drill", "operator", 1, True)
            made = await instructed(gateway, 21)
            await gateway.report(*(report(f"x{name}", name, "cancelled") for name in names))
            await state_of(gateway, lambda state: len(state.orders) == 1)

    assert sorted(r.client_order_id for r in made if r.kind is InstructionKind.CANCEL) == sorted(names)
    (flatten,) = (r for r in made if r.kind is InstructionKind.FLATTEN)
    assert flatten.order is not None and (flatten.order.symbol, flatten.lots) == ("BBB", 5)
    assert len([r for r in await records_of(memory_log) if isinstance(r, Instructed)]) == 21


async def test_over_a_real_store_two_workers_instruct_once(valkey_log: RedisLog) -> None:
    async with world_on(valkey_log) as world:
        gateway = await world.open()
        names = [f"o{i}" for i in range(20)]
        await gateway.check_all(*(buy(name) for name in names))
        async with working(world, judge_s=AT_ONCE), working(world, judge_s=AT_ONCE):
            await world.stop()
            made = await instructed(gateway, 20)

    assert [record.client_order_id for record in made] == names


async def test_a_worker_that_was_away_instructs_what_is_due_when_it_is_back(world: World) -> None:
    """The stop came from a command line: nobody else instructs anything."""
    gateway = await world.open()
    await gateway.check(buy("one", 10))
    await world.stop(scope=Scope(ACCOUNT))

    async with working(world):
        (cancel,) = await instructed(gateway)

    assert (cancel.client_order_id, cancel.reason) == ("one", Reason.TRADING_HALTED)


async def test_more_than_an_append_holds_is_instructed_at_once(world: World) -> None:
    await world.arm(limits(position=1e6))
    gateway = await world.open()
    for start in range(0, RECORDS_MAX + 100, 100):
        await gateway.check_all(*(buy(f"o{i}") for i in range(start, start + 100)))
    await world.stop()

    async with working(world, judge_s=3600.0):
        made = await instructed(gateway, RECORDS_MAX + 100)

    assert len(made) == RECORDS_MAX + 100


async def test_what_nobody_answers_is_escalated_by_the_clock(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 10))
    async with working(world, judge_s=AT_ONCE), working(world, judge_s=AT_ONCE):
        await world.stop()
        await instructed(gateway)

        store_clock[0] += ANSWER_US + 1
        state = await state_of(gateway, lambda state: state.escalated_count > 0)

    assert state.escalated_count == 1
    assert len([record for record in await records_of(world.log) if isinstance(record, Escalated)]) == 1


async def test_an_account_is_judged_once_in_a_while(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    instructor = Instructor(gateway.accounts, await world.clock())
    await instructor.judge(ACCOUNT)
    await gateway.check(buy("one", 10))
    await world.stop()
    await gateway.read()

    await instructor.judge(ACCOUNT)
    too_soon = len((await gateway.read()).state.instructions)
    store_clock[0] += int(JUDGE_S * 1e6)
    await instructor.judge(ACCOUNT)

    assert (too_soon, len((await gateway.read()).state.instructions)) == (0, 1)


async def test_an_instruction_is_not_appended_under_a_stop_that_was_lifted_meanwhile(
    memory_log: MemoryLog, world: World
) -> None:
    """The gateway has not heard of the resume yet: the store tells it."""
    gateway = await world.open()
    await gateway.check(buy("one", 10))
    await world.stop(scope=Scope(ACCOUNT))
    await gateway.read()
    instructor = Instructor(gateway.accounts, await world.clock())

    await world.resume(scope=Scope(ACCOUNT))
    await instructor.judge(ACCOUNT)

    assert not [record for record in await records_of(memory_log) if isinstance(record, Instructed)]


async def test_time_alone_makes_a_deadline_pass(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    instructor = Instructor(gateway.accounts, await world.clock(), AT_ONCE)
    await gateway.check(buy("one", 10))
    await world.stop()
    await gateway.read()
    for _ in range(2):
        await instructor.judge(ACCOUNT)

    store_clock[0] += ANSWER_US + 1
    await instructor.judge(ACCOUNT)

    assert (await gateway.read()).state.escalated_count == 1


async def test_time_alone_makes_a_refused_flatten_order_due_again(world: World, store_clock: list[int]) -> None:
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=5.0, strategy=STRATEGY, average_cost=100.0))
    instructor = Instructor(gateway.accounts, await world.clock(), AT_ONCE)
    await world.stopper().stop(Scope(), TradingState.HALTED, "drill", "operator", 1, True)
    await gateway.read()
    await instructor.judge(ACCOUNT)
    (first,) = (await gateway.read()).state.instructions
    await gateway.report(report("x1", first, "rejected"))
    for _ in range(2):
        await instructor.judge(ACCOUNT)
    too_soon = dict((await gateway.read()).state.orders)

    store_clock[0] += 5_000_001
    await instructor.judge(ACCOUNT)

    assert too_soon == {}
    assert [order.leaves for order in (await gateway.read()).state.orders.values()] == [5]
