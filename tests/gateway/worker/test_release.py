"""Approvals that nobody reports are let go by the worker, on the store's clock, in accounts that have said so."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from engine.account import AccountState
from engine.decide import Terms
from engine.records import AnyRecord, Released
from engine.suspects import release_delay_set
from gateway.log.memory import MemoryLog
from gateway.worker.instructor import Instructor
from tests.gateway.worker.running import working
from tests.gateway.world import ACCOUNT, Gateway, World, buy, limits, records_of, world_on

SECOND_US = 1_000_000


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits())
        yield world


async def set_delay(gateway: Gateway, delay_us: int) -> None:
    def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        return release_delay_set(state, "delay", delay_us, now_us, terms.control.epoch)

    await gateway.accounts.record(ACCOUNT, build, gateway.accounts.clock.now_us() + SECOND_US)


async def open_orders(gateway: Gateway, now_us: int) -> list[str]:
    reading = await gateway.accounts.read(ACCOUNT, now_us + 60 * SECOND_US)
    return list(reading.state.orders)


async def test_what_nobody_reports_is_let_go_by_the_clock_alone_and_once(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    await set_delay(gateway, 5 * SECOND_US)
    await gateway.check(msgspec.structs.replace(buy("short-lived", 10), valid_for_us=SECOND_US))
    await gateway.check(buy("lasting", 10))

    async with working(world, judge_s=0.0), working(world, judge_s=0.0):
        store_clock[0] += 6 * SECOND_US + 1
        with gateway.accounts.subscribe([ACCOUNT]) as subscription:
            while await open_orders(gateway, store_clock[0]) != ["lasting"]:
                await subscription.next(0.2)

    released = [record for record in await records_of(world.log) if isinstance(record, Released)]
    assert [record.client_order_ids for record in released] == [("short-lived",)]


async def test_time_alone_makes_a_release_due(world: World, store_clock: list[int]) -> None:
    """Judged before, and nothing in the account has moved since."""
    gateway = await world.open()
    await set_delay(gateway, 5 * SECOND_US)
    await gateway.check(msgspec.structs.replace(buy("short-lived", 10), valid_for_us=SECOND_US))
    instructor = Instructor(gateway.accounts, gateway.accounts.clock, interval_s=0.0)
    await instructor.judge(ACCOUNT)
    assert await open_orders(gateway, store_clock[0]) == ["short-lived"]

    store_clock[0] += 6 * SECOND_US + 1
    await instructor.judge(ACCOUNT)

    assert await open_orders(gateway, store_clock[0]) == []


async def test_without_a_delay_the_worker_lets_nothing_go(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    await gateway.check(msgspec.structs.replace(buy("short-lived", 10), valid_for_us=SECOND_US))
    store_clock[0] += 3600 * SECOND_US

    async with working(world, judge_s=0.0):
        await world.stop()
        while not (await gateway.accounts.read(ACCOUNT, store_clock[0] + 60 * SECOND_US)).state.instructions:
            with gateway.accounts.subscribe([ACCOUNT]) as subscription:
                await subscription.next(0.2)

    assert await open_orders(gateway, store_clock[0]) == ["short-lived"]
