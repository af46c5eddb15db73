"""The committer: check and reserve, group commit, conflicts, facts, deadlines, and a store that misbehaves.

Over memory, over memory where every other append conflicts, and over the private Valkey. What a story needs of a
faulty store is a log that wraps the real one.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import cast

import pytest

from engine.account import AccountState
from engine.control import Scope, TradingState
from engine.decide import Terms
from engine.facts import FactError, StatedPosition
from engine.order import Action, Reason
from engine.records import AnyRecord, Latch, Latched, encode
from gateway.committer import BATCH_MAX, QUEUE_MAX, Answer, Recorded
from gateway.errors import DeadlinePassed, IdReused, Overloaded, StoreUnavailable, UnknownAccount
from gateway.log.account_log import (
    AccountLog,
    Appended,
    Head,
)
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog
from gateway.registry import register
from tests.gateway.faults import Away, Counting, Deaf, LosingReplies, LosingRequests, Overtaken, Yielding, lose_records
from tests.gateway.log.conflicting import EveryKthConflicts
from tests.gateway.world import (
    ACCOUNT,
    Gateway,
    World,
    buy,
    decisions_of,
    leaves,
    monotonic_us,
    opening,
    reconciling,
    records_of,
    report,
    reported,
    sell,
    session,
    stock,
    world_on,
)


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


async def state_of(world: World, account: str = ACCOUNT) -> AccountState:
    state = AccountState(account)
    for record in await records_of(world.log, account):
        state.apply(record)
    return state


async def head_of(world: World, account: str) -> Head:
    return (await world.log.heads([account]))[account]


def memory_of(world: World) -> MemoryLog:
    assert isinstance(world.log, MemoryLog)
    return world.log


# -- check and reserve


async def test_an_approval_reserves_and_a_refusal_does_not(world: World) -> None:
    gateway = await world.open()

    allowed, refused = await gateway.check(buy("one", 60)), await gateway.check(buy("two", 41))

    assert (allowed.decided.action, allowed.decided.allowed_lots) == (Action.ALLOW, 60)
    assert (refused.decided.action, refused.decided.reason) == (Action.REJECT, Reason.POSITION)
    assert leaves((await gateway.read()).state.orders) == {"one": 60}


async def test_each_order_of_a_batch_sees_those_before_it(world: World) -> None:
    gateway = await world.open()

    answers = await asyncio.gather(*(gateway.check(buy(f"o{i}", 10)) for i in range(12)))

    assert [answer.decided.action for answer in answers] == [Action.ALLOW] * 10 + [Action.REJECT] * 2
    assert (await gateway.read()).state.book.buys.tolist() == [100]


async def test_requests_that_wait_together_are_appended_together(memory_world: World) -> None:
    counting = Counting(memory_world.log)
    await memory_world.open()
    gateway = await memory_world.gateway(counting)
    await gateway.read()
    counting.appended.clear()

    await asyncio.gather(*(gateway.check(buy(f"o{i}", 1)) for i in range(64)))

    assert counting.appended == [64 + 2]  # the symbol's listing and its first price come before them


async def test_every_acknowledged_answer_is_the_record_at_its_place(world: World) -> None:
    gateway = await world.open()
    answers = await asyncio.gather(*(gateway.check(buy(f"o{i}", 1)) for i in range(100)))

    records = await records_of(world.log)

    assert all(records[answer.seq - 1] == answer.decided for answer in answers)
    assert len({answer.seq for answer in answers}) == 100


@pytest.mark.parametrize("gateways", [2, 3])
async def test_gateways_that_compete_for_an_account_never_pass_its_limit(world: World, gateways: int) -> None:
    several = [await world.open() if i == 0 else await world.gateway() for i in range(gateways)]

    async def trade(name: int, gateway: Gateway) -> list[Answer]:
        return [await gateway.check(buy(f"g{name}-{i}", 3)) for i in range(20)]

    answers = [a for part in await asyncio.gather(*(trade(i, g) for i, g in enumerate(several))) for a in part]

    assert sum(answer.decided.allowed_lots for answer in answers) == 99
    states = [(await gateway.read()).state for gateway in several]
    refolded = await state_of(world)
    assert all(leaves(state.orders) == leaves(refolded.orders) for state in states)
    assert all(state.book.buys.tolist() == [99] for state in states)
    assert {state.seq for state in states} == {refolded.seq}


async def test_who_only_reads_waits_for_no_race_to_be_won(memory_world: World) -> None:
    rival = await memory_world.open()
    names = itertools.count()
    slow = await memory_world.gateway(Overtaken(memory_world.log, lambda: rival.check(buy(f"r{next(names)}", 1))))

    reading = await slow.read()

    assert reading.head == await head_of(memory_world, ACCOUNT)
    assert leaves(reading.state.orders) == {"r0": 1}


async def test_a_basket_is_all_or_none(world: World) -> None:
    gateway = await world.open()

    refused = await gateway.check_all(buy("a", 60), buy("b", 60), basket=True)
    allowed = await gateway.check_all(buy("c", 60), buy("d", 40), basket=True)

    assert [a.decided.reason for a in refused] == [Reason.BASKET_LEG_REFUSED, Reason.POSITION]
    assert [a.decided.allowed_lots for a in allowed] == [60, 40]
    assert leaves((await gateway.read()).state.orders) == {"c": 60, "d": 40}


async def test_a_dry_run_leaves_no_trace(world: World) -> None:
    gateway = await world.open()

    wished = await gateway.check(buy("one", 100), dry_run=True)
    real = await gateway.check(buy("one", 99))

    assert (wished.decided.action, wished.seq) == (Action.ALLOW, 0)
    assert (real.decided.allowed_lots, real.replayed) == (99, False)
    assert len(await decisions_of(world.log)) == 1


async def test_orders_of_several_accounts_are_answered_in_the_order_asked(world: World) -> None:
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)

    answers = await gateway.check_all(buy("1", 1), buy("1", 2, "beta"), buy("2", 101))

    assert [(a.decided.order.account, a.decided.allowed_lots) for a in answers] == [
        (ACCOUNT, 1),
        ("beta", 2),
        (ACCOUNT, 0),
    ]


# -- idempotency


async def test_the_same_order_again_gets_the_same_answer_on_any_gateway(world: World) -> None:
    gateway = await world.open()
    other = await world.gateway()
    first = await gateway.check(buy("one", 60))

    again = [await g.check(buy("one", 60)) for g in (gateway, other, await world.gateway())]

    assert [(a.decided, a.seq, a.replayed) for a in again] == [(first.decided, first.seq, True)] * 3
    assert (await other.read()).state.book.buys.tolist() == [60]


async def test_a_refusal_replays_too_even_when_it_would_fit_now(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("big", 100))
    refused = await gateway.check(buy("late", 1))
    await gateway.report(report("x1", "big", "cancelled"))

    again = await gateway.check(buy("late", 1))

    assert (again.decided, again.replayed) == (refused.decided, True)
    assert again.decided.action is Action.REJECT


async def test_the_same_id_with_other_contents_is_refused(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 1))

    with pytest.raises(IdReused):
        await gateway.check(buy("one", 2))


async def test_one_request_can_not_use_an_id_for_two_orders(world: World) -> None:
    gateway = await world.open()

    with pytest.raises(IdReused):
        await gateway.check_all(buy("one", 1), buy("one", 2))
    with pytest.raises(IdReused):
        await gateway.check_all(buy("one", 1), buy("one", 1), basket=True)

    assert await decisions_of(world.log) == []


async def test_an_order_twice_in_one_request_is_one_reservation(world: World) -> None:
    gateway = await world.open()

    first, second = await gateway.check_all(buy("one", 1), buy("one", 1))

    assert (second.replayed, second.seq) == (True, first.seq)
    assert (await gateway.read()).state.book.buys.tolist() == [1]


async def test_a_basket_can_not_be_extended_under_its_ids(world: World) -> None:
    gateway = await world.open()
    await gateway.check_all(buy("a", 60), buy("b", 60), basket=True)

    with pytest.raises(IdReused):
        await gateway.check_all(buy("a", 60), buy("c", 1), basket=True)

    assert [a.replayed for a in await gateway.check_all(buy("a", 60), buy("b", 60), basket=True)] == [True, True]
    assert leaves((await gateway.read()).state.orders) == {}


# -- facts


async def test_a_fill_is_recorded_on_a_gateway_that_never_saw_the_order(world: World) -> None:
    gateway = await world.open()
    other = await world.gateway(Deaf(world.log))
    await other.read()
    await gateway.check(buy("one", 5))

    await other.report(report("x1", "one", "fill", 2))

    state = (await gateway.read()).state
    assert (state.book.lots.tolist(), leaves(state.orders)) == ([2], {"one": 3})


async def test_a_report_twice_counts_once(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 5))

    first = await gateway.record(reported(report("x1", "one", "fill", 2)))
    second = await gateway.record(reported(report("x1", "one", "fill", 2)))

    assert (len(first.records), second.records) == (1, ())
    assert (await gateway.read()).state.book.lots.tolist() == [2]


async def test_facts_are_recorded_while_everything_is_stopped(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 5))
    await world.stop()

    await gateway.report(report("x1", "one", "fill", 2), report("x2", "one", "cancelled"))

    state = (await gateway.read()).state
    assert (state.book.lots.tolist(), leaves(state.orders)) == ([2], {})


async def test_a_cancel_request_releases_nothing(world: World) -> None:
    gateway = await world.open()
    await gateway.check(buy("one", 100))

    await gateway.report(report("x1", "one", "cancel_requested"))

    assert (await gateway.check(buy("two", 1))).decided.reason is Reason.POSITION


async def test_a_report_that_makes_no_sense_reaches_only_its_own_caller(world: World) -> None:
    gateway = await world.open()

    nonsense, fact, check = await asyncio.gather(
        gateway.record(reported(report("x1", "nobody", "fill", 1))),
        gateway.record(session("2023-11-15")),
        gateway.check(buy("one", 5)),
        return_exceptions=True,
    )

    assert isinstance(nonsense, FactError)
    assert isinstance(fact, Recorded) and len(fact.records) == 1
    assert isinstance(check, Answer) and check.decided.allowed_lots == 5


async def test_a_fill_of_what_was_registered_just_now_is_booked(world: World) -> None:
    """By a process that has not heard of the new instruments: a fact brings no such news back from the store."""
    await world.open()
    deaf = await world.gateway(Deaf(world.log))
    await deaf.read()

    await register(world.log, [stock("CCC")])
    fill = report("x1", "stray", "fill", 5, symbol="CCC", sign=1, strategy="rl")
    await deaf.record(reported(fill))

    assert (await deaf.read()).state.book_of("").lots.sum() == 5


async def test_a_stray_fill_leaves_only_reductions(world: World) -> None:
    gateway = await world.open()

    await gateway.report(report("x1", "stray", "fill", 10, symbol="AAA", sign=1))

    assert (await gateway.check(buy("more", 1))).decided.reason is Reason.REDUCE_ONLY
    assert (await gateway.check(sell("less", 10))).decided.allowed_lots == 10


async def test_a_resume_that_came_before_a_latch_was_heard_of_does_not_lift_it(memory_world: World) -> None:
    gateway = await memory_world.open()
    other = await memory_world.gateway(Deaf(memory_world.log))
    await other.read()
    await memory_world.stop()
    await memory_world.resume()

    await other.report(report("x1", "stray", "fill", 10, symbol="AAA", sign=1))

    assert (await gateway.check(buy("more", 1))).decided.reason is Reason.REDUCE_ONLY


async def test_a_resume_that_came_before_a_loss_halted_was_heard_of_does_not_lift_it(memory_world: World) -> None:
    """Else the loss would count from that Resume on, as if a person had seen it."""
    gateway = await memory_world.open()
    worker = await memory_world.gateway(Deaf(memory_world.log))
    await worker.read()
    await memory_world.stop()
    await memory_world.resume()

    await worker.record(halted)

    assert (await gateway.check(buy("more", 1))).decided.reason is Reason.REDUCE_ONLY


async def test_a_session_that_opens_after_an_unheard_resume_is_of_its_epoch(memory_world: World) -> None:
    """A breaker's cooldown ends with a session: a Resume from before it is no leave to trade after it."""
    gateway = await memory_world.open()
    other = await memory_world.gateway(Deaf(memory_world.log))
    await other.read()
    await memory_world.stop()
    await memory_world.resume()

    await other.record(session("2023-11-16"))

    reading = await gateway.read()
    assert reading.state.epoch == reading.terms.control.epoch > 0


def halted(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """What a worker records of a loss over its limit."""
    epoch = terms.control.epoch
    latch = Latch(Scope(ACCOUNT), TradingState.REDUCE_ONLY, epoch, "daily_loss", measure="daily_loss")
    return [Latched(time_us=now_us, epoch=epoch, latch=latch)]


async def test_an_account_that_nobody_opened_is_unknown(world: World) -> None:
    gateway = await world.gateway()

    for attempt in (gateway.check(buy("one")), gateway.read(), gateway.record(reported(report("x", "one", "working")))):
        with pytest.raises(UnknownAccount):
            await attempt

    assert await records_of(world.log) == []
    assert gateway.accounts.loaded == ()


async def test_an_account_opened_elsewhere_is_known_at_once(world: World) -> None:
    gateway, other = await world.gateway(), await world.gateway()
    with pytest.raises(UnknownAccount):
        await other.check(buy("one"))

    await gateway.record(opening(), opens=True)

    assert (await other.read()).state.opened


async def test_asking_for_an_unopened_account_does_not_disturb_its_opening(world: World) -> None:
    gateway = await world.gateway(Yielding(world.log))

    *early, opened = await asyncio.gather(
        *(gateway.read() for _ in range(BATCH_MAX)), gateway.record(opening(), opens=True), return_exceptions=True
    )

    assert {type(outcome) for outcome in early} == {UnknownAccount}
    assert isinstance(opened, Recorded)
    assert (await gateway.read()).state.opened


async def test_an_order_that_waits_with_the_opening_of_its_account_is_decided_after_it(world: World) -> None:
    gateway = await world.gateway(Yielding(world.log))

    *_, answer = await asyncio.gather(
        *(gateway.record(session()) for _ in range(BATCH_MAX)),
        gateway.record(opening(), opens=True),
        gateway.check(buy("early", 5)),
        return_exceptions=True,
    )

    assert isinstance(answer, Answer)
    assert answer.decided.allowed_lots == 5


# -- deadlines and queues


async def test_what_is_too_late_is_not_decided(world: World) -> None:
    gateway = await world.open()

    with pytest.raises(DeadlinePassed):
        await gateway.check(buy("late"), wait_us=0)

    assert await decisions_of(world.log) == []


async def test_a_full_queue_refuses_at_once(memory_world: World) -> None:
    gateway = await memory_world.open()
    waiting = [asyncio.ensure_future(gateway.check(buy(f"o{i}"))) for i in range(QUEUE_MAX + 1)]

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(o) for o in outcomes if isinstance(o, BaseException)] == [Overloaded]
    assert len(await decisions_of(memory_world.log)) == QUEUE_MAX


async def test_a_caller_that_gives_up_finds_its_order_again(world: World) -> None:
    gateway = await world.open()
    asking = asyncio.ensure_future(gateway.check(buy("one", 60)))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    answer = await gateway.check(buy("one", 60))

    assert answer.decided.allowed_lots == 60
    assert (await gateway.read()).state.book.buys.tolist() == [60]


# -- a store that misbehaves


async def test_a_store_that_is_away_approves_nothing_and_is_found_again(memory_world: World) -> None:
    await memory_world.open()
    away = Away(memory_world.log)
    gateway = await memory_world.gateway(away)
    await gateway.read()
    away.away = True

    with pytest.raises(StoreUnavailable):
        await gateway.check(buy("one"), wait_us=5_000)
    away.away = False

    assert await decisions_of(memory_world.log) == []
    assert (await gateway.check(buy("one"))).replayed is False


@pytest.mark.parametrize("losses", [1, 3])
async def test_an_append_whose_reply_was_lost_is_found_and_reserves_once(memory_world: World, losses: int) -> None:
    await memory_world.open()
    losing = LosingReplies(memory_world.log)
    gateway = await memory_world.gateway(losing)
    await gateway.check(buy("before", 1))
    losing.losses = losses

    answer = await gateway.check(buy("one", 60))
    fill = report("x1", "one", "fill", 10)
    losing.losses = losses
    await gateway.report(fill, fill)

    assert (answer.decided.allowed_lots, answer.replayed) == (60, True)
    state = (await gateway.read()).state
    assert (state.book.lots.tolist(), leaves(state.orders)) == ([10], {"before": 1, "one": 50})


async def test_a_reply_lost_for_good_is_unavailable_and_the_retry_finds_the_decision(memory_world: World) -> None:
    await memory_world.open()
    losing = LosingReplies(memory_world.log)
    gateway = await memory_world.gateway(losing)
    await gateway.read()
    losing.losses = 1

    with pytest.raises(StoreUnavailable):
        await gateway.check(buy("one", 60), wait_us=5_000)
    again = await gateway.check(buy("one", 60))

    assert (again.decided.allowed_lots, again.replayed) == (60, True)
    assert len(await decisions_of(memory_world.log)) == 1


async def test_a_decision_that_aged_is_made_again(memory_world: World, store_clock: list[int]) -> None:
    gateway = await memory_world.open()
    fast = 0

    def monotonic() -> int:
        return store_clock[0] + fast

    world = World(memory_world.log, monotonic)
    ahead = await world.gateway()
    fast = 3_000_000  # this process' clock runs away from the store's

    assert (await ahead.check(buy("one", 1))).decided.time_us == store_clock[0]
    assert (await gateway.check(buy("two", 1))).decided.allowed_lots == 1
    await world.aclose()


async def test_a_record_that_nobody_can_read_closes_its_account_only(world: World) -> None:
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)
    poison = b'{"k":"from the future"}'
    while not isinstance(await world.log.append("beta", await head_of(world, "beta"), None, [poison], 0, 0), Appended):
        pass

    for _ in range(3):
        with pytest.raises(ValueError, match="from the future"):
            await gateway.check(buy("one", account="beta"))

    assert (await gateway.check(buy("one"))).decided.action is Action.ALLOW


# -- a log that lost what it had acknowledged


@pytest.mark.parametrize("fork", [False, True])
async def test_a_log_that_lost_records_halts_until_it_is_reconciled_and_resumed(
    memory_world: World, fork: bool
) -> None:
    gateway = await memory_world.open()
    await gateway.check(buy("one", 60))
    lost = await gateway.check(buy("two", 40))
    foreign = [encode(a.decided) for a in [await gateway.check(buy("three", 101))]] if fork else []
    lose_records(memory_of(memory_world), ACCOUNT, lost.seq - 1, foreign)

    after = await gateway.check(sell("after", 1))
    await memory_world.resume()
    not_yet = await gateway.check(sell("not yet", 1))
    await gateway.record(reconciling(StatedPosition(symbol="AAA", quantity=60.0)))
    await memory_world.resume()
    at_last = await gateway.check(sell("at last", 1))

    assert (after.decided.reason, not_yet.decided.reason) == (Reason.TRADING_HALTED,) * 2
    assert at_last.decided.action is Action.ALLOW
    assert "acknowledged are lost" in after.decided.message


async def test_a_log_that_vanished_is_no_empty_account(memory_world: World) -> None:
    gateway = await memory_world.open()
    await gateway.check(buy("one", 60))
    lose_records(memory_of(memory_world), ACCOUNT, 0)

    with pytest.raises(UnknownAccount):
        await gateway.check(buy("two", 60))
    await gateway.record(opening(), opens=True)

    assert (await gateway.check(buy("three", 1))).decided.reason is Reason.TRADING_HALTED


async def test_the_halt_for_a_loss_is_not_lost_with_the_store_or_to_another_writer(memory_world: World) -> None:
    away = LosingRequests(memory_world.log)
    await memory_world.crash(await memory_world.open())
    gateway = await memory_world.gateway(away)
    await gateway.check(buy("one", 60))
    seq = (await gateway.check(buy("two", 1))).seq
    lose_records(memory_of(memory_world), ACCOUNT, seq - 1)
    away.losses = 2
    stranger = await memory_world.gateway()

    with pytest.raises(StoreUnavailable):
        await gateway.check(buy("three", 1), wait_us=5_000)
    await stranger.check(buy("unaware", 1))
    after = await gateway.check(buy("four", 1))

    assert after.decided.reason is Reason.TRADING_HALTED
    assert [type(r) for r in await records_of(memory_world.log)].count(Latched) == 1
    assert (await stranger.check(buy("five", 1))).decided.reason is Reason.TRADING_HALTED
