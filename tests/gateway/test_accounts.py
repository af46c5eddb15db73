"""All accounts of a process: what wakes them, what they forget, what a crash must not forget (P3), retries (P4).

Restarts are new Accounts on the same log; the store is killed for real.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.control import Scope
from engine.facts import Quote, StatedPosition
from engine.limits import Limit, LimitAction, ScopeKind
from engine.order import Action, Order, Reason
from engine.records import Decided
from gateway.committer import Answer, Reading
from gateway.embedded import EmbeddedStore
from gateway.errors import IdReused, StoreUnavailable, UnknownAccount
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog
from tests.gateway.faults import LosingReplies, Wrapped, lose_records
from tests.gateway.world import (
    ACCOUNT,
    World,
    buy,
    decisions_of,
    leaves,
    limits,
    monotonic_us,
    opening,
    report,
    sell,
    session,
    world_on,
)

T = TypeVar("T")


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        yield world


# -- how many accounts a process holds


async def test_the_longest_unused_account_makes_room_and_is_read_again_when_asked_for(world: World) -> None:
    gateway = await world.gateway(loaded_max=2)
    for name in ("A", "B", "C"):
        await gateway.record(opening(), name, opens=True)
        await gateway.record(session(), name)
        await gateway.check(buy(f"first-{name}", 5, name))

    assert gateway.accounts.loaded == ("B", "C")
    again = await gateway.check(buy("first-A", 5, "A"))
    second = await gateway.check(buy("second-A", 10, "A"))

    assert gateway.accounts.loaded == ("C", "A")
    assert again.replayed and again.decided.allowed_lots == 5
    assert leaves((await gateway.read("A")).state.orders) == {"first-A": 5, "second-A": second.decided.allowed_lots}


async def test_an_account_that_somebody_follows_is_not_dropped(world: World) -> None:
    gateway = await world.gateway(loaded_max=1)
    await gateway.record(opening(), "A", opens=True)

    with gateway.accounts.subscribe(["A"]):
        await gateway.record(opening(), "B", opens=True)

        assert gateway.accounts.loaded == ("A", "B")


@pytest.mark.parametrize("forked", [False, True])
async def test_a_log_that_went_back_while_its_account_was_not_loaded_is_found_out(
    world: World, memory_log: MemoryLog, forked: bool
) -> None:
    gateway = await world.gateway(loaded_max=1)
    await gateway.record(opening(), "A", opens=True)
    await gateway.record(session(), "A")
    await gateway.check(buy("lost", 5, "A"))
    await gateway.record(opening(), "B", opens=True)

    page = await memory_log.read("A", 0, 1_000)
    kept = len(page.records) - 1  # type: ignore[union-attr]
    lose_records(memory_log, "A", kept, [page.records[0]] * 3 if forked else ())  # type: ignore[union-attr]
    after = await gateway.check(buy("next", 5, "A"))

    assert after.decided.reason is Reason.TRADING_HALTED and "lost" in after.decided.message


# -- what wakes a process


async def test_a_subscriber_hears_of_what_another_gateway_appends(world: World) -> None:
    gateway, other = await world.open(), await world.gateway()
    await other.read()

    with other.accounts.subscribe([ACCOUNT]) as subscription:
        await subscription.next(0.0)
        await gateway.check(buy("one", 5))
        changed = await subscription.next(5.0)

    assert changed == {ACCOUNT}
    follower = other.accounts.latest(ACCOUNT)
    assert follower is not None and "one" in follower.state.orders


async def test_a_subscriber_hears_of_a_stop_in_its_partition(world: World) -> None:
    gateway = await world.open()

    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        await subscription.next(0.0)
        await world.stop(scope=Scope(ACCOUNT))
        changed = await subscription.next(5.0)

    assert changed == {ACCOUNT}
    assert [stop.scope for stop in gateway.accounts.control(ACCOUNT).stops] == [Scope(ACCOUNT)]


async def test_a_subscriber_is_not_told_of_other_accounts(world: World) -> None:
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)

    with gateway.accounts.subscribe(["beta"]) as subscription:
        await gateway.check(buy("one"))
        await gateway.check(buy("one", account="beta"))

        assert await subscription.next(5.0) == {"beta"}
        assert await subscription.next(0.0) == set()


async def test_a_mark_posted_by_another_process_is_decided_on(world: World) -> None:
    gateway = await world.open()
    await world.arm(limits(Limit("gross_exposure", ScopeKind.ACCOUNT, 1_000.0)))
    await gateway.check(buy("one", 10))

    await world.mark("AAA", 50.0)
    while gateway.accounts.quotes["AAA"].mark != 50.0:  # noqa: ASYNC110 - nothing tells of a quote; a yield is enough
        await asyncio.sleep(0)

    assert (await gateway.check(buy("two", 10))).decided.action is Action.ALLOW
    assert (await gateway.check(buy("three", 1))).decided.reason is Reason.GROSS_EXPOSURE


async def test_a_report_of_the_worker_reaches_who_has_loaded_the_account(world: World) -> None:
    gateway = await world.open()

    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        await subscription.next(0.0)
        await world.log.bulletin.post_report(ACCOUNT, b"report")
        await subscription.next(5.0)

    assert gateway.accounts.report(ACCOUNT) == b"report"


async def test_requests_of_a_process_that_ends_are_answered(world: World) -> None:
    gateway = await world.open()
    asking = [asyncio.ensure_future(gateway.check(buy(f"o{i}"))) for i in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    await world.crash(gateway)
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} <= {Answer, StoreUnavailable}


# -- P3: nothing that was acknowledged is forgotten


async def test_kill_9_of_store_and_gateways_forgets_nothing(tmp_path: Path) -> None:
    """No reservation, halt, stop, session, counter of the rate limit, idempotency, or high-water mark."""
    store = EmbeddedStore.start(tmp_path)
    try:
        async with world_on(RedisLog(store.socket_path, socket_timeout_s=5.0), monotonic_us) as world:
            before = await _busy_day(world)
            os.kill(store.pid, signal.SIGKILL)
            await world.log.aclose()
        store.stop()
        store = EmbeddedStore.start(tmp_path)
        log = RedisLog(store.socket_path, socket_timeout_s=5.0)
        restarted = World(log, monotonic_us)
        gateway = await restarted.gateway()

        after = await gateway.read()
        voided, replayed = await gateway.check(buy("approved", 10)), await gateway.check(buy("too big", 1_000))
        stopped = await gateway.check(buy("new", 1))
        await restarted.aclose()
        await log.aclose()
    finally:
        store.stop()

    assert after.head == before.head
    assert leaves(after.state.orders) == {"approved": 10, "part": 3}
    assert after.state.nav_peak == before.state.nav_peak > 1.0
    assert after.state.session == before.state.session
    assert after.state.attempts[""].since(0) == before.state.attempts[""].since(0) == 4
    assert [latch.cause for latch, _ in after.state.latches.values()] == [
        latch.cause for latch, _ in before.state.latches.values()
    ]
    assert len(after.state.latches) == 1
    assert (voided.decided.reason, replayed.replayed) == (Reason.SUPERSEDED_BY_STOP, True)
    assert stopped.decided.reason is Reason.TRADING_HALTED


async def _busy_day(world: World) -> Reading:
    gateway = await world.open(StatedPosition(symbol="BBB", quantity=10.0, average_cost=100.0))
    await world.arm(limits(Limit("order_quantity", ScopeKind.SYMBOL, 500.0, action=LimitAction.HALT)))
    await gateway.check(buy("approved", 10))
    await gateway.check(buy("part", 5))
    await gateway.report(report("x1", "part", "fill", 2))
    now_us = gateway.accounts.clock.now_us()
    gateway.accounts.quotes.offer(Quote("BBB", 120.0, 120.0, 120.0, now_us), now_us)
    await gateway.accounts.quotes.flush()
    await gateway.check(sell("dear", 1, symbol="BBB", reduce_only=True))
    await gateway.report(report("x2", "dear", "not_sent"))
    await gateway.check(buy("too big", 1_000))
    await world.stop()
    return await gateway.read()


# -- P4: retries


class Retries(RuleBasedStateMachine):
    """Two gateways on one log, restarts, lost replies, stops and resumes; every id asked again and again.

    The model: by id, what was first answered, and whether a stop came since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.memory = MemoryLog(lambda: 1_700_000_000_000_000)
        self.losing = [LosingReplies(self.memory), LosingReplies(self.memory)]
        self.decisions: dict[str, tuple[Order, Decided]] = {}
        self.voided: set[str] = set()
        self.stopped = False
        self.context = world_on(self.memory, lambda: 1_700_000_000_000_000)
        self.world = self.run(self.context.__aenter__())
        self.run(self.world.open())
        self.gateways = [self.run(self.world.gateway(log)) for log in self.losing]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    @rule(name=st.integers(0, 9), quantity=st.integers(1, 60), at=st.integers(0, 1), losses=st.integers(0, 2))
    def ask(self, name: int, quantity: int, at: int, losses: int) -> None:
        order = buy(f"o{name}", quantity)
        known = self.decisions.get(order.client_order_id)
        self.losing[at].losses = losses
        if known is not None and known[0] != order:
            with pytest.raises(IdReused):
                self.run(self.gateways[at].check(order))
            return
        self.judge(order, self.run(self.gateways[at].check(order)))

    @precondition(lambda self: self.decisions)
    @rule(pick=st.randoms(use_true_random=False), at=st.integers(0, 1))
    def ask_again(self, pick: Any, at: int) -> None:
        order, _ = self.decisions[pick.choice(sorted(self.decisions))]
        self.judge(order, self.run(self.gateways[at].check(order)))

    def judge(self, order: Order, answer: Answer) -> None:
        name = order.client_order_id
        if name not in self.decisions:
            assert not (self.stopped and answer.decided.action.allows)
            self.decisions[name] = (order, answer.decided)
        elif name in self.voided:
            assert answer.decided.reason is Reason.SUPERSEDED_BY_STOP
            assert answer.prior is not None
            assert answer.prior.allowed_lots == self.decisions[name][1].allowed_lots
        else:
            assert (answer.decided, answer.replayed, answer.prior) == (self.decisions[name][1], True, None)

    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        self.run(self.world.crash(self.gateways[at]))
        self.gateways[at] = self.run(self.world.gateway(self.losing[at]))

    @rule()
    def stop(self) -> None:
        self.run(self.world.stop())
        self.stopped = True
        self.voided |= {name for name, (_, decided) in self.decisions.items() if decided.action.allows}

    @rule()
    def resume(self) -> None:
        self.run(self.world.resume())
        self.stopped = False

    @invariant()
    def one_record_and_one_reservation_an_id(self) -> None:
        decided = self.run(decisions_of(self.memory))
        assert [d.order.client_order_id for d in decided] == list(self.decisions)
        reading = self.run(self.gateways[0].read())
        allowed = {d.order.client_order_id: d.allowed_lots for d in decided if d.allowed_lots}
        assert leaves(reading.state.orders) == allowed
        assert sum(allowed.values()) <= 100


Retries.TestCase.settings = settings(
    max_examples=int(os.environ.get("RETRIES_EXAMPLES", "25")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRetries = Retries.TestCase


# -- sessions


async def test_sessions_opened_by_two_processes_at_once_are_one(world: World) -> None:
    gateway, other = await world.open(), await world.gateway()

    await asyncio.gather(gateway.record(session("2023-11-15")), other.record(session("2023-11-15")))

    state = (await gateway.read()).state
    assert state.session is not None and state.session.date == "2023-11-15"
    assert [closed.date for closed in state.sessions] == ["2023-11-14"]


async def test_who_answers_for_all_accounts_has_them_before_anybody_asks(world: World) -> None:
    gateway = await world.open()
    control, bystander = await world.gateway(ahead=True), await world.gateway()
    approved = await gateway.check(buy("one"))

    with control.accounts.subscribe([ACCOUNT]) as changes:
        while (found := control.accounts.latest(ACCOUNT)) is None or found.head.seq < approved.seq:
            assert await changes.next(10.0)

    assert "one" in found.state.orders
    assert bystander.accounts.loaded == ()


# -- several accounts in one call


async def test_where_one_account_is_unknown_no_order_of_the_call_is_decided(world: World) -> None:
    gateway = await world.open()

    with pytest.raises(UnknownAccount):
        await gateway.check_all(buy("one", 10), buy("two", 10, account="nobody"))

    assert await decisions_of(world.log) == []
    assert gateway.accounts.loaded == (ACCOUNT,)


@pytest.mark.parametrize("loaded", [True, False])
async def test_where_an_id_of_one_account_is_taken_no_order_of_the_call_is_decided(world: World, loaded: bool) -> None:
    opener = await world.open()
    await opener.record(opening(), "beta", opens=True)
    await opener.record(session(), "beta")
    await opener.check(buy("taken", 10, account="beta"))
    gateway = opener if loaded else await world.gateway()

    with pytest.raises(IdReused):
        await gateway.check_all(buy("one", 10), buy("taken", 20, account="beta"))

    assert await decisions_of(world.log) == []


async def test_accounts_that_are_not_loaded_yet_are_decided_together(world: World) -> None:
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)
    await gateway.record(session(), "beta")
    other = await world.gateway()

    answers = await other.check_all(buy("one"), buy("two", account="beta"))

    assert [answer.decided.action for answer in answers] == [Action.ALLOW, Action.ALLOW]


# -- a store that lost records, or its clock


class FailingOver(Wrapped):
    """Answers `reads` more reads, then none until it is told otherwise."""

    reads: int | None = None

    async def read(self, account: str, after_seq: int, n: int) -> Any:
        if self.reads == 0:
            raise StoreUnavailable("failing over")
        if self.reads is not None:
            self.reads -= 1
        return await self._log.read(account, after_seq, n)


async def test_a_loss_is_not_forgotten_while_the_store_fails_over(world: World, memory_log: MemoryLog) -> None:
    opener = await world.open()
    failing = FailingOver(memory_log)
    gateway = await world.gateway(failing)
    approved = await gateway.check(buy("one", 60))
    await world.crash(opener)

    lose_records(memory_log, ACCOUNT, keep=approved.seq - 1)
    failing.reads = 1
    with pytest.raises(StoreUnavailable):
        await gateway.check(buy("two"), wait_us=200_000)
    failing.reads = None

    assert (await gateway.check(buy("three", 60))).decided.reason is Reason.TRADING_HALTED


async def test_quotes_are_taken_after_the_store_s_clock_was_set_back(world: World) -> None:
    gateway = await world.open()
    quotes, now_us = gateway.accounts.quotes, gateway.accounts.clock.now_us()
    back_us = now_us - 120_000_000

    older = Quote("AAA", 90.0, 90.0, 90.0, now_us - 1_000)
    newer = Quote("AAA", 200.0, 200.0, 200.0, back_us)
    quotes.offer(older, now_us)
    held = quotes["AAA"].mark
    quotes.offer(newer, back_us)

    assert held == 100.0
    assert quotes["AAA"] == newer
