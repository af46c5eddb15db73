"""What is armed everywhere: registering instruments and arming limits, also while others do the same."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from engine.control import Control, Scope, decode_control, encode_control
from engine.instrument import InstrumentError, InstrumentSet
from engine.limits import LimitSet
from engine.order import Action, Reason
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.log.account_log import PARTITIONS, AccountLog, ControlChange, partition_of
from gateway.log.account_log import Control as StoredControl
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog
from gateway.main import limits_armed
from gateway.registry import (
    LimitsArmed,
    LimitSetMoved,
    Why,
    arm_limits,
    armed_files,
    complete_arming,
    register,
    update_limits,
)
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


def why(reason: str = "") -> Why:
    return Why("olga", reason)


async def all_controls(log: AccountLog) -> list[Control]:
    return [decode_control(stored.state) for stored in await log.read_controls()]


async def limit_sets(log: AccountLog) -> set[str]:
    return {control.limit_set for control in await all_controls(log)}


async def test_of_several_at_once_one_is_armed_everywhere_and_the_others_are_told(valkey_log: RedisLog) -> None:
    before = await arm_limits(valkey_log, limits())
    sets = [limits(position=10.0 + index) for index in range(8)]

    outcomes = await asyncio.gather(
        *(update_limits(valkey_log, one.rows, before, why()) for one in sets), return_exceptions=True
    )

    armed = [outcome.limit_set for outcome in outcomes if isinstance(outcome, LimitsArmed)]
    assert [type(outcome) for outcome in outcomes if not isinstance(outcome, LimitsArmed)] == [LimitSetMoved] * 7
    assert await limit_sets(valkey_log) == set(armed) and len(armed) == 1


async def test_armings_that_overlap_leave_one_set_everywhere(valkey_log: RedisLog) -> None:
    """Each wins in the partition in which the order is settled, one after the other; the last holds everywhere."""
    await asyncio.gather(*(arm_limits(valkey_log, limits(position=10.0 + index)) for index in range(8)))

    controls = await all_controls(valkey_log)
    assert len({(control.limit_set, control.limits_epoch) for control in controls}) == 1


class Overtaken(Wrapped):
    """Lets a later arming through between the settling of the first one and the rest of it."""

    def __init__(self, log: AccountLog, later: LimitSet) -> None:
        super().__init__(log)
        self._later, self._changes = later, 0

    async def advance_controls(self, *arguments: Any) -> Any:
        self._changes += 1
        if self._changes == 2:
            await arm_limits(self._log, self._later)
        return await self._log.advance_controls(*arguments)


async def test_an_arming_that_was_overtaken_takes_nothing_back(memory_log: MemoryLog) -> None:
    later = limits(position=20.0)

    await arm_limits(Overtaken(memory_log, later), limits(position=10.0))

    assert await limit_sets(memory_log) == {later.hash}


async def test_an_interrupted_arming_is_completed_with_the_newest(memory_log: MemoryLog) -> None:
    await arm_limits(memory_log, limits())
    newer = limits(position=20.0)
    with pytest.raises(StoreUnavailable):
        await arm_limits(AwayInPart(memory_log, range(1, 64, 2)), newer, "file", limits(position=30.0))
    left = await limit_sets(memory_log)

    assert await complete_arming(memory_log)
    assert not await complete_arming(memory_log)

    assert len(left) == 2
    assert {(c.limit_set, c.armed_file) for c in await all_controls(memory_log)} == {(newer.hash, "file")}
    assert {c.shadow_limit_set for c in await all_controls(memory_log)} == {limits(position=30.0).hash}


async def test_what_was_interrupted_is_completed_before_it_is_changed(memory_log: MemoryLog) -> None:
    await arm_limits(memory_log, limits())
    newer = limits(position=20.0)
    with pytest.raises(StoreUnavailable):
        await arm_limits(AwayInPart(memory_log, range(1, 64, 2)), newer)

    again = await update_limits(memory_log, newer.rows, "whatever", why())

    assert (again.limit_set, again.changes) == (newer.hash, ())
    assert await limit_sets(memory_log) == {newer.hash}


async def test_a_partition_in_which_the_store_lost_the_last_arming_is_not_asked_what_is_in_force(
    memory_log: MemoryLog,
) -> None:
    """Not even the one in which armings are settled."""
    await arm_limits(memory_log, limits())
    old = decode_control((await memory_log.read_control(0)).state)
    newer = await arm_limits(memory_log, limits(position=20.0))

    def lose(stored: StoredControl) -> ControlChange:
        epoch = stored.head.epoch + 1
        return ControlChange(epoch, encode_control(msgspec.structs.replace(old, epoch=epoch)), b"{}")

    await memory_log.advance_control(0, lose)
    updated = await update_limits(memory_log, limits(position=30.0).rows, newer, why())

    assert await limit_sets(memory_log) == {updated.limit_set}


async def test_the_row_that_is_implied_is_not_armed_twice(memory_log: MemoryLog) -> None:
    before = await arm_limits(memory_log, limits())

    updated = await update_limits(memory_log, limits().armed_rows, before, why())

    assert (updated.limit_set, updated.changes) == (before, ())


async def test_each_partition_remembers_who_armed_what_and_why(memory_log: MemoryLog, store_clock: list[int]) -> None:
    before = await arm_limits(memory_log, limits(), "file")

    updated = await update_limits(memory_log, limits(position=7.0).rows, before, why("a lower one"))

    for partition in (0, 1, 63):
        history = await memory_log.control_history(partition, 0, 10)
        last = msgspec.json.decode(history[-1][1])
        assert last == {
            "limit_set": updated.limit_set,
            "previous_limit_set": before,
            "shadow_limit_set": "",
            "armed_file": "file",
            "actor": "olga",
            "reason": "a lower one",
            "time_us": store_clock[0],
        }


async def test_a_shadow_set_that_cant_be_read_keeps_no_order_from_its_answer(world: World) -> None:
    gateway = await world.open()

    await arm_limits(world.log, limits(), "", Undecodable(()))

    assert (await gateway.check(buy("one"))).decided.action is Action.ALLOW


async def test_the_set_in_shadow_is_at_hand_where_orders_are_decided(world: World) -> None:
    gateway = await world.open()
    shadow = limits(position=3.0)

    await arm_limits(world.log, limits(), "", shadow)
    await gateway.check(buy("one"))

    _, terms = await gateway.accounts.shelf.in_force(partition_of(ACCOUNT))
    assert (terms.limits, terms.shadow) == (limits(), shadow)


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
        return b'{"rows":[{"measure":"position","scope":"symbol","limit":5.0,"from":"tomorrow"}]}'


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
