"""What is armed everywhere: registering instruments and arming limits, also while others do the same."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.control import decode_control
from engine.instrument import InstrumentError, InstrumentSet
from engine.order import Action, Reason
from gateway.errors import StoreUnavailable
from gateway.log.account_log import PARTITIONS, AccountLog
from gateway.log.memory import MemoryLog
from gateway.registry import arm_limits, armed_files, register
from tests.gateway.faults import AwayInPart, Wrapped
from tests.gateway.world import World, buy, limits, stock, world_on


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        yield world


async def armed(log: AccountLog) -> list[str]:
    return [decode_control(stored.state).instrument_set for stored in await log.read_controls()]


async def test_registering_says_what_it_changed_and_reaches_every_partition(memory_log: MemoryLog) -> None:
    await register(memory_log, [stock("AAA"), stock("BBB")])

    second = await register(memory_log, [stock("AAA"), stock("BBB", sector="Energy"), stock("CCC")])

    assert (second.added, second.changed, second.unchanged) == (("CCC",), ("BBB",), ("AAA",))
    assert await armed(memory_log) == [second.instrument_set] * PARTITIONS
    blob = await memory_log.get_blob(second.instrument_set)
    assert blob is not None and sorted(InstrumentSet.decode(blob).instruments) == ["AAA", "BBB", "CCC"]


async def test_registering_the_same_again_changes_nothing(memory_log: MemoryLog) -> None:
    first = await register(memory_log, [stock("AAA")])
    epochs = [stored.head.epoch for stored in await memory_log.read_controls()]

    again = await register(memory_log, [stock("AAA")])

    assert (again.instrument_set, again.unchanged) == (first.instrument_set, ("AAA",))
    assert [stored.head.epoch for stored in await memory_log.read_controls()] == epochs


async def test_a_lot_size_never_changes(memory_log: MemoryLog) -> None:
    first = await register(memory_log, [stock("AAA")])

    with pytest.raises(InstrumentError, match="lot_size"):
        await register(memory_log, [stock("AAA", lot_size=10.0)])

    assert await armed(memory_log) == [first.instrument_set] * PARTITIONS


class Interrupted(Wrapped):
    """Lets another registration through right before the first change of control."""

    def __init__(self, log: AccountLog) -> None:
        super().__init__(log)
        self.interrupted = False

    async def advance_controls(self, *arguments: Any) -> Any:
        if not self.interrupted:
            self.interrupted = True
            await register(self._log, [stock("THEIRS")])
        return await self._log.advance_controls(*arguments)


async def test_two_operators_at_once_lose_no_instrument(memory_log: MemoryLog) -> None:
    await register(memory_log, [stock("AAA")])

    registered = await register(Interrupted(memory_log), [stock("OURS")])

    blob = await memory_log.get_blob(registered.instrument_set)
    assert blob is not None and sorted(InstrumentSet.decode(blob).instruments) == ["AAA", "OURS", "THEIRS"]
    assert await armed(memory_log) == [registered.instrument_set] * PARTITIONS


async def test_an_interrupted_registration_is_completed_by_the_next(memory_log: MemoryLog) -> None:
    await register(memory_log, [stock("AAA", sector="Old")])
    in_part = AwayInPart(memory_log, range(0, 64, 2))
    with pytest.raises(StoreUnavailable):
        await register(in_part, [stock("AAA", sector="New")])

    registered = await register(memory_log, [stock("BBB")])

    blob = await memory_log.get_blob(registered.instrument_set)
    assert blob is not None and InstrumentSet.decode(blob).instruments["AAA"].sector == "New"
    assert await armed(memory_log) == [registered.instrument_set] * PARTITIONS


async def test_limits_are_armed_for_the_next_order(world: World) -> None:
    gateway = await world.open()
    before = await gateway.check(buy("one", 60))

    await arm_limits(world.log, limits(position=70.0), armed_file="abc")
    after = await gateway.check(buy("two", 11))

    assert (before.decided.action, after.decided.reason) == (Action.ALLOW, Reason.POSITION)
    assert await armed_files(world.log) == {"abc"}


async def test_where_no_limits_are_armed_nothing_trades(memory_log: MemoryLog, store_clock: list[int]) -> None:
    world = World(memory_log, lambda: store_clock[0])
    await register(memory_log, [stock("AAA")])
    await world.mark("AAA", 100.0)
    gateway = await world.open()

    assert (await gateway.check(buy("one"))).decided.reason is Reason.LIMIT_MISSING
    await world.aclose()


async def test_an_order_right_after_registering_is_decided_on_any_gateway(world: World) -> None:
    gateways = [await world.open(), await world.gateway()]
    unknown = await gateways[0].check(buy("early", symbol="CCC"))

    await asyncio.gather(register(world.log, [stock("CCC")]), world.mark("CCC", 10.0))
    answers = [await gateway.check(buy(f"late {gateway}", symbol="CCC")) for gateway in gateways]

    assert unknown.decided.reason is Reason.INSTRUMENT_UNKNOWN
    assert {answer.decided.action for answer in answers} == {Action.ALLOW}
