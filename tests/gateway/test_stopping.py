"""P2: once StopAll has returned, no gateway approves in its scope, replays included, until a covering Resume.

Over memory, over memory where every other append conflicts, and over the private Valkey.
"""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from engine.control import Scope, TradingState, decode_control
from engine.facts import StatedPosition
from engine.limits import Limit, LimitAction, ScopeKind
from engine.order import Action, Order, Reason
from gateway.committer import Answer
from gateway.embedded import EmbeddedStore, FileLock
from gateway.errors import StoreUnavailable
from gateway.log.account_log import PARTITIONS, AccountLog, ControlHead, partition_of
from gateway.log.account_log import Control as StoredControl
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog
from gateway.main import stop_directly
from gateway.pending_stops import PendingStops
from gateway.stopping import StopIncomplete, StopOutcome, Stopper
from tests.gateway.faults import AwayInPart, CutOff, Deaf, PausedStops, SlowBlobs, lose_control
from tests.gateway.log.conflicting import EveryKthConflicts
from tests.gateway.world import (
    ACCOUNT,
    EVERYTHING,
    Gateway,
    World,
    buy,
    limits,
    monotonic_us,
    opening,
    report,
    sell,
    world_on,
)

PARTITION = partition_of(ACCOUNT)


@pytest.fixture(params=["memory", "conflicting", "valkey"])
def log(request: pytest.FixtureRequest) -> AccountLog:
    if request.param == "valkey":
        return cast(AccountLog, request.getfixturevalue("valkey_log"))
    memory = request.getfixturevalue("memory_log")
    return EveryKthConflicts(memory, 2) if request.param == "conflicting" else cast(AccountLog, memory)


@pytest.fixture
async def world(log: AccountLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(log, monotonic_us if isinstance(log, RedisLog) else lambda: store_clock[0]) as world:
        yield world


@pytest.fixture
async def memory_world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        yield world


async def test_nothing_is_approved_on_any_gateway_once_a_stop_has_returned(world: World) -> None:
    gateways = [await world.open(), await world.gateway()]
    await world.arm(limits(position=1e6))
    stopped = asyncio.Event()
    late: list[Answer] = []

    async def trade(name: int, gateway: Gateway) -> int:
        for i in range(1_000_000):
            after_stop = stopped.is_set()
            answer = await gateway.check(buy(f"g{name}-{i}"))
            if after_stop:
                late.append(answer)
                if len(late) > 20:
                    return i
        return 0

    async def stop() -> None:
        for gateway in gateways:
            await gateway.check(buy(f"before {gateway}"))
        await world.stop()
        stopped.set()

    *traded, _ = await asyncio.gather(*(trade(i, g) for i, g in enumerate(gateways)), stop())

    assert all(traded)
    assert {(answer.decided.action, answer.decided.reason) for answer in late} == {(Action.HALT, Reason.TRADING_HALTED)}


async def test_a_stop_dominates_the_replay_of_an_approval(world: World) -> None:
    gateways = [await world.open(), await world.gateway()]
    approved = await gateways[0].check(buy("one", 60))
    await world.stop()

    again = [await gateway.check(buy("one", 60)) for gateway in gateways]

    for answer in again:
        assert (answer.decided.action, answer.decided.reason) == (Action.HALT, Reason.SUPERSEDED_BY_STOP)
        assert answer.decided.allowed_lots == 0
        assert answer.prior is not None and (answer.prior.seq, answer.prior.allowed_lots) == (approved.seq, 60)
    assert (await gateways[0].read()).state.book.buys.tolist() == [60]


async def test_a_resume_does_not_revive_what_the_stop_voided(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 60))
    await world.stop()
    await world.resume()

    voided, new = await gateway.check(buy("one", 60)), await gateway.check(buy("two", 40))
    revived = await gateway.check(buy("two", 40))

    assert voided.decided.reason is Reason.SUPERSEDED_BY_STOP
    assert (new.decided.action, revived.decided, revived.replayed) == (Action.ALLOW, new.decided, True)


async def test_a_replay_hears_of_a_stop_that_its_gateway_has_not_heard_of(memory_world: World) -> None:
    await memory_world.open()
    deaf = await memory_world.gateway(Deaf(memory_world.log))
    await deaf.check(buy("one", 60))
    await memory_world.stop()

    assert (await deaf.check(buy("one", 60))).decided.reason is Reason.SUPERSEDED_BY_STOP
    assert (await deaf.check(buy("two", 1))).decided.reason is Reason.TRADING_HALTED


async def test_a_refusal_replays_through_a_stop(world: World) -> None:
    gateway = await world.open()
    refused = await gateway.check(buy("big", 101))
    await world.stop()

    again = await gateway.check(buy("big", 101))

    assert (again.decided, again.replayed, again.prior) == (refused.decided, True, None)


async def test_reduce_only_lets_true_reductions_through(world: World) -> None:
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=10.0, strategy="s1", average_cost=100.0))
    await world.stop(TradingState.REDUCE_ONLY)

    more, less, cut, none_left = [
        await gateway.check(order) for order in (buy("more"), sell("less", 6), sell("cut", 6), sell("none left"))
    ]

    assert (more.decided.action, more.decided.reason) == (Action.HALT, Reason.REDUCE_ONLY)
    assert (less.decided.action, less.decided.allowed_lots) == (Action.ALLOW, 6)
    assert (cut.decided.action, cut.decided.allowed_lots) == (Action.REDUCE, 4)
    assert none_left.decided.reason is Reason.REDUCE_ONLY


@pytest.mark.parametrize(
    ("state", "reason"),
    [(TradingState.HALTED, Reason.TRADING_HALTED), (TradingState.CANCEL_ONLY, Reason.CANCEL_ONLY)],
)
async def test_halted_and_cancel_only_let_no_order_through_and_every_report(
    world: World, state: TradingState, reason: Reason
) -> None:
    gateway = await world.open(StatedPosition(symbol="AAA", quantity=10.0, strategy="s1", average_cost=100.0))
    await gateway.check(buy("one", 5))
    await world.stop(state)

    refused = await gateway.check(sell("less", 6))
    await gateway.report(report("x1", "one", "cancelled"))

    assert (refused.decided.action, refused.decided.reason) == (Action.HALT, reason)
    assert (await gateway.read()).state.orders == {}


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        (Scope(ACCOUNT), buy("in"), buy("out", account="beta")),
        (Scope(strategy="s1"), buy("in", account="beta"), buy("out", strategy="s2")),
        (Scope(symbol="AAA"), buy("in", account="beta", strategy="s2"), buy("out", symbol="BBB")),
        (Scope(ACCOUNT, "s1", "AAA"), buy("in"), buy("out", symbol="BBB")),
    ],
)
async def test_a_stop_reaches_its_scope_and_nothing_else(
    world: World, scope: Scope, inside: Order, outside: Order
) -> None:
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)

    await world.stop(scope=scope)

    assert (await gateway.check(inside)).decided.action is Action.HALT
    assert (await gateway.check(outside)).decided.action is Action.ALLOW


async def test_neither_a_lower_rank_nor_a_narrower_scope_lifts_a_stop(world: World) -> None:
    gateway = await world.open()
    await world.stop(rank=2)

    lesser = await world.resume(rank=1)
    narrower = await world.resume(Scope(ACCOUNT), rank=2)
    still = await gateway.check(buy("still"))
    lifted = await world.resume(rank=2)

    assert (lesser.lifted, narrower.lifted) == ((), ())
    assert [stop.scope for stop in lesser.refused] == [stop.scope for stop in narrower.refused] == [EVERYTHING]
    assert still.decided.reason is Reason.TRADING_HALTED
    assert [stop.scope for stop in lifted.lifted] == [EVERYTHING]
    assert (await gateway.check(buy("again"))).decided.action is Action.ALLOW


async def test_of_two_stops_each_needs_its_own_resume(world: World) -> None:
    gateway = await world.open()
    await world.stop()
    await world.stop(scope=Scope(ACCOUNT, symbol="AAA"))

    await world.resume(Scope(ACCOUNT))

    assert (await gateway.check(buy("one"))).decided.reason is Reason.TRADING_HALTED


async def test_a_limit_that_halts_is_in_force_until_a_resume_of_its_scope(world: World) -> None:
    gateways = [await world.open(), await world.gateway()]
    await world.arm(limits(Limit("gross_exposure", ScopeKind.ACCOUNT, 5_000.0, action=LimitAction.HALT)))

    halted = await gateways[0].check(buy("big", 60))
    small = await gateways[1].check(buy("small", 1))
    await world.resume(Scope("beta"))
    still = await gateways[1].check(buy("still", 1))
    await world.resume(Scope(ACCOUNT))
    again = await gateways[1].check(buy("again", 1))

    assert halted.decided.action is Action.HALT
    assert (small.decided.reason, still.decided.reason) == (Reason.REDUCE_ONLY, Reason.REDUCE_ONLY)
    assert again.decided.action is Action.ALLOW


async def test_a_stop_that_comes_while_terms_are_being_loaded_is_not_missed(memory_world: World) -> None:
    await memory_world.open()
    slow = SlowBlobs(memory_world.log)
    gateway = await memory_world.gateway(slow)
    await gateway.check(buy("before"))
    slow.ready.clear()
    slow.asked.clear()
    await memory_world.arm(limits(position=90.0))
    asking = asyncio.ensure_future(gateway.check(buy("during")))
    await slow.asked.wait()

    await memory_world.stop()
    await gateway.accounts.shelf.refresh()
    slow.ready.set()

    assert (await asking).decided.action is Action.HALT
    assert (await gateway.check(buy("after"))).decided.action is Action.HALT


# -- a store that is away in part


async def test_an_incomplete_stop_names_what_is_missing_and_goes_on_trying(memory_world: World) -> None:
    gateway = await memory_world.open()
    in_part = AwayInPart(memory_world.log, {PARTITION, 63})
    stopper = memory_world.stopper(in_part)

    with pytest.raises(StopIncomplete) as incomplete:
        await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "operator", 1)
    with pytest.raises(StoreUnavailable, match="not yet acknowledged"):
        await stopper.resume(EVERYTHING, "too early", "operator", 1)
    in_part.away.clear()
    await asyncio.wait_for(in_part.complete.wait(), 10)

    assert incomplete.value.missing == tuple(sorted({PARTITION, 63}))
    controls = [decode_control(stored.state) for stored in await memory_world.log.read_controls()]
    assert all([stop.reason for stop in control.stops] == ["fire"] for control in controls)
    assert (await gateway.check(buy("one"))).decided.reason is Reason.TRADING_HALTED


# -- a store that lost a control state


async def test_a_stop_that_the_store_has_lost_is_put_back_by_who_remembers_it(memory_world: World) -> None:
    log = memory_world.log
    assert isinstance(log, MemoryLog)
    gateway = await memory_world.open()
    before = await log.read_control(PARTITION)
    await memory_world.stop()
    halted = await gateway.check(buy("one"))

    lose_control(log, PARTITION, before)
    after = await gateway.check(buy("two"))

    assert (halted.decided.reason, after.decided.reason) == (Reason.TRADING_HALTED,) * 2
    stranger = await memory_world.gateway()
    assert (await stranger.check(buy("three"))).decided.reason is Reason.TRADING_HALTED


async def test_of_two_control_states_of_one_epoch_the_stopped_one_wins(memory_world: World) -> None:
    log = memory_world.log
    assert isinstance(log, MemoryLog)
    gateway = await memory_world.open()
    before = await log.read_control(PARTITION)
    await memory_world.stop()
    await gateway.check(buy("one"))

    lose_control(log, PARTITION, before)
    await memory_world.arm(limits(position=50.0))

    assert (await gateway.check(buy("two"))).decided.reason is Reason.TRADING_HALTED
    await memory_world.resume()
    assert (await gateway.check(buy("three"))).decided.action is Action.ALLOW


@pytest.mark.parametrize("changes", [2, 3])
async def test_a_lost_stop_is_put_back_however_much_was_changed_after_it_was_lost(
    memory_world: World, changes: int
) -> None:
    log = memory_world.log
    assert isinstance(log, MemoryLog)
    gateway = await memory_world.open()
    before = list(await log.read_controls())
    await memory_world.stop()
    await gateway.check(buy("one"))

    for partition, control in enumerate(before):
        lose_control(log, partition, control)
    for change in range(changes):
        await memory_world.arm(limits(position=90.0 + change))

    assert (await gateway.check(buy("two"))).decided.reason is Reason.TRADING_HALTED
    assert decode_control((await log.read_control(PARTITION)).state).limit_set == limits(position=89.0 + changes).hash
    await memory_world.resume()
    assert (await gateway.check(buy("three"))).decided.action is Action.ALLOW


async def test_what_was_resumed_or_stopped_anew_is_not_taken_for_lost(memory_world: World) -> None:
    gateway = await memory_world.open()
    await memory_world.stop()
    await gateway.check(buy("one"))
    deaf = await memory_world.gateway(Deaf(memory_world.log))
    await deaf.read()

    await memory_world.resume()
    await memory_world.stop(TradingState.REDUCE_ONLY)
    epoch = (await memory_world.log.read_control(PARTITION)).head.epoch

    assert (await deaf.check(buy("two"))).decided.reason is Reason.REDUCE_ONLY
    assert (await memory_world.log.read_control(PARTITION)).head.epoch == epoch


# -- epochs


async def test_a_stop_of_everything_and_its_resume_have_one_epoch_each(world: World) -> None:
    """Whoever drops approvals below the newest epoch seen must not drop those after the resume."""
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)
    for _ in range(3):
        await world.stop(scope=Scope("beta"))
        await world.resume(Scope("beta"))

    stop = await world.stop()
    stopped_at = {stored.head.epoch for stored in await world.log.read_controls()}
    await world.stop(scope=Scope("beta"))
    resume = await world.resume()
    resumed_at = {stored.head.epoch for stored in await world.log.read_controls()}

    assert (stopped_at, resumed_at) == ({stop.epoch}, {resume.epoch})
    assert (await gateway.check(buy("one"))).decided.epoch == resume.epoch > stop.epoch


async def test_a_stop_into_the_store_says_that_nothing_goes_on_trying(tmp_path: Path) -> None:
    def stop() -> StopOutcome:
        return stop_directly(f"unix://{tmp_path / 'nobody'}", None, EVERYTHING, TradingState.HALTED, "fire")

    with pytest.raises(StoreUnavailable, match="nothing goes on trying") as refused:
        await asyncio.to_thread(stop)

    assert "it goes on trying" not in str(refused.value)


# -- a stop that outlives its process


def written(data_dir: Path) -> list[str]:
    return sorted(path.suffix for path in data_dir.glob("stops/*"))


async def stop_unheard(world: World, data_dir: Path, reason: str = "fire") -> None:
    """A process that is cut off from the store is told to stop everything, and dies."""
    cut_off = CutOff(world.log)
    cut_off.away = True
    stopper = world.stopper(cut_off, data_dir)
    with pytest.raises(StopIncomplete, match="outlives a restart"):
        await stopper.stop(EVERYTHING, TradingState.HALTED, reason, "ann", 2)
    assert stopper.unfinished
    await stopper.aclose()


async def until_complete(stopper: Stopper) -> None:
    async with asyncio.timeout(10):
        while stopper.unfinished:  # noqa: ASYNC110  - it tells nobody when it is complete
            await asyncio.sleep(0)


async def test_a_stop_that_nobody_heard_is_carried_out_by_the_next_process(world: World, tmp_path: Path) -> None:
    gateway = await world.open()
    await stop_unheard(world, tmp_path)
    assert (await gateway.check(buy("before"))).decided.action is Action.ALLOW

    successor = world.stopper(data_dir=tmp_path)
    await successor.start()
    assert successor.unfinished
    await until_complete(successor)

    assert (await gateway.check(buy("after"))).decided.reason is Reason.TRADING_HALTED
    controls = [decode_control(stored.state) for stored in await world.log.read_controls()]
    assert {(s.reason, s.actor, s.rank, s.state) for c in controls for s in c.stops} == {
        ("fire", "ann", 2, TradingState.HALTED)
    }
    assert all(stop.time_us > 0 for control in controls for stop in control.stops)
    assert written(tmp_path) == []


async def test_a_complete_stop_leaves_no_file(world: World, tmp_path: Path) -> None:
    stopper = world.stopper(data_dir=tmp_path)
    await stopper.start()

    await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "ann", 1)

    assert not stopper.unfinished
    assert written(tmp_path) == []


async def test_the_file_of_a_stop_goes_when_the_store_is_back(memory_world: World, tmp_path: Path) -> None:
    cut_off = CutOff(memory_world.log)
    stopper = memory_world.stopper(cut_off, tmp_path)
    cut_off.away = True
    with pytest.raises(StopIncomplete):
        await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "ann", 1)
    before = written(tmp_path)

    cut_off.away = False
    await until_complete(stopper)

    assert (before, written(tmp_path)) == ([".json"], [])


async def test_a_stop_that_was_carried_out_and_lifted_meanwhile_is_not_repeated(
    memory_world: World, tmp_path: Path
) -> None:
    """Its writer died between the last acknowledgement and the removal of the file, and an operator resumed."""
    gateway = await memory_world.open()
    await stop_unheard(memory_world, tmp_path)
    (path,) = (tmp_path / "stops").iterdir()
    contents = path.read_bytes()
    first = memory_world.stopper(data_dir=tmp_path)
    await first.start()
    await until_complete(first)
    await memory_world.resume(rank=2)

    path.write_bytes(contents)
    second = memory_world.stopper(data_dir=tmp_path)
    await second.start()
    await until_complete(second)

    assert (await gateway.check(buy("one"))).decided.action is Action.ALLOW
    assert written(tmp_path) == []


async def test_of_a_stop_that_was_acknowledged_in_part_the_rest_is_carried_out(
    memory_world: World, tmp_path: Path
) -> None:
    """The successor is told of all partitions, as another gateway is, and repeats none that had acknowledged."""
    in_part = AwayInPart(memory_world.log, {PARTITION, 63})
    stopper = memory_world.stopper(in_part, tmp_path)
    with pytest.raises(StopIncomplete):
        await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "ann", 1)
    epochs = [stored.head.epoch for stored in await memory_world.log.read_controls()]
    await stopper.aclose()
    (pending,) = PendingStops(tmp_path).read()
    assert pending.missing == tuple(sorted({PARTITION, 63}))

    other = memory_world.stopper()
    outcome = await other.take_on(msgspec.structs.replace(pending, missing=tuple(range(PARTITIONS))), 10.0)

    after = [stored.head.epoch for stored in await memory_world.log.read_controls()]
    assert outcome.partitions == PARTITIONS
    assert [p for p in range(PARTITIONS) if after[p] != epochs[p]] == sorted({PARTITION, 63})


async def test_a_damaged_file_stops_everything(
    memory_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = await memory_world.open()
    (tmp_path / "stops").mkdir()
    (tmp_path / "stops" / "f1.json").write_bytes(b"\x00" * 64)
    cut_off = CutOff(memory_world.log)
    cut_off.away = True
    stopper = memory_world.stopper(cut_off, tmp_path)

    await stopper.start()
    assert stopper.unfinished
    cut_off.away = False
    await until_complete(stopper)

    refused = await gateway.check(buy("one"))
    assert refused.decided.reason is Reason.TRADING_HALTED
    assert "can't be read: EVERYTHING is stopped" in capsys.readouterr().out
    assert written(tmp_path) == [".damaged"]


async def test_what_another_process_wrote_down_is_taken_up(memory_world: World, tmp_path: Path) -> None:
    gateway = await memory_world.open()
    running = memory_world.stopper(data_dir=tmp_path)
    await running.start()

    await stop_unheard(memory_world, tmp_path)
    async with asyncio.timeout(10):
        while written(tmp_path):  # noqa: ASYNC110  - it is another process' business, so nobody tells
            await asyncio.sleep(0.01)

    assert (await gateway.check(buy("one"))).decided.reason is Reason.TRADING_HALTED


async def test_a_stop_that_is_repeated_during_an_outage_is_tried_once(memory_world: World, tmp_path: Path) -> None:
    cut_off = CutOff(memory_world.log)
    cut_off.away = True
    stopper = memory_world.stopper(cut_off, tmp_path)

    for state in (TradingState.HALTED, TradingState.HALTED, TradingState.REDUCE_ONLY):
        with pytest.raises(StopIncomplete):
            await stopper.stop(EVERYTHING, state, "fire", "ann", 1)
    assert written(tmp_path) == [".json"]
    with pytest.raises(StopIncomplete):
        await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "bob", 2)
    with pytest.raises(StopIncomplete):
        await stopper.stop(Scope(ACCOUNT), TradingState.HALTED, "fire", "ann", 1)

    assert written(tmp_path) == [".json"] * 3


async def test_who_was_paused_before_it_stopped_puts_back_nothing_that_was_lifted_meanwhile(
    memory_world: World, tmp_path: Path
) -> None:
    gateway = await memory_world.open()
    await stop_unheard(memory_world, tmp_path)
    paused = PausedStops(memory_world.log)
    slow, quick = memory_world.stopper(paused, tmp_path), memory_world.stopper(data_dir=tmp_path)
    await slow.start()
    await paused.asked.wait()
    await quick.start()
    await until_complete(quick)
    await memory_world.resume(rank=2)

    paused.ready.set()
    await until_complete(slow)

    assert (await gateway.check(buy("one"))).decided.action is Action.ALLOW


async def test_a_process_without_descriptors_approves_nothing_and_stops_nobody_else(
    memory_world: World, tmp_path: Path
) -> None:
    """That it can't look for written stops says nothing of what is written."""
    stopper = memory_world.stopper(data_dir=tmp_path)
    await stop_unheard(memory_world, tmp_path)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        await stopper.start()
        unfinished = stopper.unfinished
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert unfinished
    assert not any(decode_control(stored.state).stops for stored in await memory_world.log.read_controls())
    await until_complete(stopper)
    stops = [stop for stored in await memory_world.log.read_controls() for stop in decode_control(stored.state).stops]
    assert {stop.actor for stop in stops} == {"ann"}


async def test_a_repetition_that_asks_to_flatten_too_is_not_taken_for_the_same(
    memory_world: World, tmp_path: Path
) -> None:
    cut_off = CutOff(memory_world.log)
    cut_off.away = True
    stopper = memory_world.stopper(cut_off, tmp_path)
    for flatten in (False, True):
        with pytest.raises(StopIncomplete):
            await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "ann", 1, flatten)

    cut_off.away = False
    await until_complete(stopper)

    controls = [decode_control(stored.state) for stored in await memory_world.log.read_controls()]
    assert all([stop.flatten for stop in control.stops] == [True] for control in controls)


async def test_a_stop_that_can_not_be_written_down_says_so_and_goes_on(memory_world: World, tmp_path: Path) -> None:
    (tmp_path / "stops").write_text("in the way")
    cut_off = CutOff(memory_world.log)
    cut_off.away = True
    stopper = memory_world.stopper(cut_off, tmp_path)

    with pytest.raises(StopIncomplete, match="could not be written down and ends with this process"):
        await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "ann", 1)
    cut_off.away = False
    await until_complete(stopper)

    controls = [decode_control(stored.state) for stored in await memory_world.log.read_controls()]
    assert all(control.stops for control in controls)


async def test_a_partition_that_can_not_be_read_keeps_no_other_from_stopping(memory_world: World) -> None:
    log = memory_world.log
    assert isinstance(log, MemoryLog)
    gateway = await memory_world.open()
    foreign = 1 if PARTITION != 1 else 2
    lose_control(log, foreign, StoredControl(ControlHead(9, "00" * 16), b'{"epoch":"nine"}'))
    stopper = memory_world.stopper()

    with pytest.raises(StopIncomplete) as incomplete:
        await stopper.stop(EVERYTHING, TradingState.HALTED, "fire", "ann", 1)

    assert incomplete.value.missing == (foreign,)
    assert stopper.unfinished
    assert (await gateway.check(buy("one"))).decided.reason is Reason.TRADING_HALTED


def test_a_stop_into_a_store_that_can_not_be_started_is_left_for_the_next_serve(tmp_path: Path) -> None:
    EmbeddedStore.start(tmp_path).stop()
    held = FileLock.take(tmp_path / "valkey" / "lock")
    assert held is not None

    with pytest.raises(StoreUnavailable, match="approves nothing until it has carried it out") as refused:
        stop_directly(None, tmp_path, Scope(ACCOUNT), TradingState.HALTED, "fire")
    held.close()

    (stop,) = PendingStops(tmp_path).read()
    assert str(PendingStops(tmp_path).path(stop.id)) in str(refused.value)
    assert (stop.scope, stop.state, stop.reason, stop.missing) == (
        Scope(ACCOUNT),
        TradingState.HALTED,
        "fire",
        (PARTITION,),
    )


def test_a_stop_into_a_store_that_is_in_force_leaves_nothing(tmp_path: Path) -> None:
    EmbeddedStore.start(tmp_path).stop()

    outcome = stop_directly(None, tmp_path, EVERYTHING, TradingState.HALTED, "fire")

    assert outcome.partitions == PARTITIONS
    assert not (tmp_path / "stops").exists()
