"""What is armed everywhere: registering instruments and arming limits, also while others do the same."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.control import Scope, decode_control
from engine.instrument import InstrumentError, InstrumentSet
from engine.limits import LimitSet
from engine.order import Action, Reason
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.log.account_log import PARTITIONS, AccountLog
from gateway.log.memory import MemoryLog
from gateway.main import limits_armed
from gateway.registry import arm_limits, armed_files, register
from tests.gateway.faults import AwayInPart, Wrapped
from tests.gateway.world import ACCOUNT, Gateway, World, buy, limits, stock, world_on


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


async def test_arming_gives_every_partition_one_epoch(memory_log: MemoryLog, store_clock: list[int]) -> None:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.stop(scope=Scope("beta"))

        await arm_limits(memory_log, limits(position=70.0))

    assert len({stored.head.epoch for stored in await memory_log.read_controls()}) == 1


class Undecodable(LimitSet, frozen=True):
    """The limit set of a later release."""

    def encode(self) -> bytes:
        return b'{"rows":[{"measure":"position","scope":"symbol","limit":5.0,"shadow":true}]}'


async def heard_of(gateway: Gateway, limit_set: str) -> None:
    """Until the gateway has followed the store to a limit set, without being asked for anything."""
    with gateway.accounts.subscribe(()) as subscription:
        async with asyncio.timeout(10):
            while gateway.accounts.control(ACCOUNT).limit_set != limit_set:
                await subscription.next(0.05)


async def test_a_limit_set_of_another_release_closes_the_gateway_until_one_that_it_can_read(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("before"))

    unreadable = await arm_limits(world.log, Undecodable(()))
    await heard_of(gateway, unreadable)
    with pytest.raises(StoreRefused, match="can't read the limit set"):
        await gateway.check(buy("closed"))
    readable = await arm_limits(world.log, limits(position=7.0))
    await heard_of(gateway, readable)

    assert (await gateway.check(buy("too much", 8.0))).decided.reason is Reason.POSITION


async def test_a_gateway_waits_until_control_has_armed_the_limits(memory_log: MemoryLog) -> None:
    waiting = asyncio.ensure_future(limits_armed(memory_log, "abc", 20.0))
    await asyncio.sleep(0)
    waited = not waiting.done()

    await arm_limits(memory_log, limits(), armed_file="abc")
    await waiting

    assert waited
    with pytest.raises(StoreUnavailable, match="not armed"):
        await limits_armed(memory_log, "another", 0.0)
