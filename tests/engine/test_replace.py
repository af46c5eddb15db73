"""Orders that replace one another: what is held, from approval to the last report, whatever the venue does.

A venue is played in full beside the account: it accepts, refuses, fills and ends; its reports arrive late, twice and in
any order. After each step the account must count all that the venue can still fill, and once everything is told exactly
that. Stories with numbers by hand come first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.account import ENDED_MAX, AccountState
from engine.control import Control, Scope, Stop, TradingState
from engine.decide import Terms, decide
from engine.facts import Execution, StatedOrder, StatedPosition, executed, reconciled
from engine.instrument import InstrumentSet
from engine.order import Action, Order, Reason
from engine.records import Decided, ExecutionKind
from engine.risk.model import RiskModel
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    account,
    fill,
    limits,
    model,
    order,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)

STEPWISE = universe(stock("AAA"), stock("BBB"))
ATOMIC = universe(stock("AAA", replaces_atomically=True), stock("BBB", replaces_atomically=True))
MARKS = {"AAA": 100.0, "BBB": 50.0}


def approve(state: AccountState, under: Terms, asked: Order) -> Decided:
    record = decide(state, under, asked, NOW_US)
    state.apply(record)
    return record


def amend(state: AccountState, total: float, of: str = "old", name: str = "new", under: Terms | None = None) -> Decided:
    """Buy `total` in all in place of `of`, at a venue that replaces in one step unless the terms say otherwise."""
    asked = order("AAA", quantity=total, client_order_id=name, replaces_client_order_id=of)
    return approve(state, under or terms(ATOMIC), asked)


def open_buys(state: AccountState) -> int:
    return int(state.book.buys[state.slots["AAA"]])


def opened(lots: int = 100, filled: int = 0) -> AccountState:
    state = account(ATOMIC, MARKS)
    reserve(state, "old", "AAA", lots)
    if filled:
        fill(state, "old", filled)
    return state


# --- what is held -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("venue", "total", "held"),
    [
        (ATOMIC, 150, 120),  # the new one can still fill 150 − 30
        (ATOMIC, 60, 70),  # the old one can still fill 100 − 30
        (STEPWISE, 150, 190),
        (STEPWISE, 60, 100),
    ],
)
def test_a_replace_holds_the_larger_of_the_two_or_their_sum_until_it_is_confirmed(
    venue: InstrumentSet, total: int, held: int
) -> None:
    state = opened(filled=30)

    record = amend(state, total, under=terms(venue))

    assert (record.action, record.allowed_lots, record.filled_lots) == (Action.ALLOW, total, 30)
    assert open_buys(state) == held
    state.apply(report(state, "old", ExecutionKind.CANCELLED))
    assert open_buys(state) == total - 30


@pytest.mark.parametrize("total", [150, 60])
def test_a_refused_replace_falls_back_to_what_the_old_order_can_fill(total: int) -> None:
    state = opened(filled=30)
    amend(state, total)

    state.apply(report(state, "new", ExecutionKind.REJECTED, cumulative_lots=0))

    assert (list(state.orders), open_buys(state)) == (["old"], 70)
    state.apply(report(state, "old", ExecutionKind.CANCELLED))
    assert (open_buys(state), state.chains, state.chain_of_ended) == (0, {}, {})


def test_fills_of_either_lower_what_both_can_fill() -> None:
    state = opened(filled=30)
    amend(state, 150)

    fill(state, "old", 10)
    assert open_buys(state) == 110
    fill(state, "new", 20)  # its total has 60 now: the venue has replaced, and was quicker than its report
    assert open_buys(state) == 90
    state.apply(report(state, "old", ExecutionKind.CANCELLED, cumulative_lots=40))
    fill(state, "new", 90)

    assert (open_buys(state), int(state.book.lots[0]), state.orders) == (0, 150, {})


def test_the_last_fills_of_a_replaced_order_may_come_after_its_end() -> None:
    state = opened(filled=30)
    amend(state, 150)
    state.apply(report(state, "old", ExecutionKind.CANCELLED, cumulative_lots=0))  # not told: 5 more were filled
    late = Execution(
        account=ACCOUNT, execution_id="late", client_order_id="old", kind="fill", last_quantity=5.0, last_price=100.0
    )

    (record,) = executed(state, ATOMIC, late, NOW_US, 0)
    state.apply(record)

    assert (record.flags, record.latches) == ((), ())  # type: ignore[union-attr]
    assert (open_buys(state), state.orders["new"].filled) == (115, 35)


def test_more_than_any_of_the_live_ones_can_fill_is_an_overfill() -> None:
    state = opened(filled=30)
    amend(state, 150)
    state.apply(report(state, "old", ExecutionKind.CANCELLED))
    late = Execution(
        account=ACCOUNT, execution_id="late", client_order_id="old", kind="fill", last_quantity=121.0, last_price=100.0
    )

    (record,) = executed(state, ATOMIC, late, NOW_US, 0)

    assert record.flags == ("overfill",)  # type: ignore[union-attr]


def test_a_chain_of_replaces_holds_the_most_that_one_of_them_can_fill() -> None:
    state = opened()
    amend(state, 150, name="second")
    amend(state, 40, of="second", name="third")
    assert open_buys(state) == 150

    state.apply(report(state, "old", ExecutionKind.CANCELLED))
    assert open_buys(state) == 150
    state.apply(report(state, "second", ExecutionKind.CANCELLED))
    assert (open_buys(state), state.orders["third"].leaves) == (40, 40)


def test_an_order_amended_all_day_remembers_only_the_latest_of_its_ids() -> None:
    state = opened()
    for at in range(3 * ENDED_MAX):
        amend(state, 100, of="old" if at == 0 else f"a{at - 1}", name=f"a{at}")
        state.apply(report(state, "old" if at == 0 else f"a{at - 1}", ExecutionKind.CANCELLED))

    assert len(state.chain_of_ended) == ENDED_MAX
    state.apply(report(state, f"a{3 * ENDED_MAX - 1}", ExecutionKind.CANCELLED))
    assert (state.chains, state.chain_of_ended, open_buys(state)) == ({}, {}, 0)


def test_a_stepwise_replace_of_a_replace_counts_what_all_of_them_filled() -> None:
    state, under = opened(filled=30), terms(STEPWISE)
    amend(state, 150, name="second", under=under)
    state.apply(report(state, "old", ExecutionKind.CANCELLED))
    fill(state, "second", 20)

    record = amend(state, 80, of="second", name="third", under=under)

    assert (record.filled_lots, state.orders["third"].leaves) == (50, 30)
    assert open_buys(state) == 100 + 30


def test_what_the_broker_says_is_left_of_one_was_filled_for_both() -> None:
    state = opened()
    amend(state, 150)
    broker = [StatedOrder(client_order_id="old", leaves_quantity=60.0)]
    positions = [StatedPosition(symbol="AAA", quantity=40.0, average_cost=100.0)]

    for record in reconciled(state, ATOMIC, positions, None, broker, NOW_US + 1, "test", NOW_US + 1, 0):
        state.apply(record)

    assert (state.orders["new"].leaves, open_buys(state), int(state.book.lots[0])) == (110, 110, 40)


# --- what is judged -----------------------------------------------------------------------------------------------


def test_an_order_by_itself_is_judged_whole_and_the_rest_by_what_it_adds() -> None:
    state = opened(filled=30)
    under = terms(ATOMIC, limits(row("order_quantity", 1000, "symbol"), row("position", 1000, "symbol")))

    record = amend(state, 150, under=under)

    size, position = (next(c for c in record.checks if c.measure == name) for name in ("order_quantity", "position"))
    assert size.after == 150
    assert (position.before, position.after) == (100, 150)


def test_reduce_finds_the_largest_total_that_fits() -> None:
    state = opened(filled=30)

    record = amend(state, 300, under=terms(ATOMIC, limits(row("position", 120, "symbol", "reduce"))))

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 120)
    assert open_buys(state) == 90


def test_reduce_in_steps_leaves_room_for_the_old_order() -> None:
    state = opened(filled=30)

    record = amend(state, 300, under=terms(STEPWISE, limits(row("position", 120, "symbol", "reduce"))))

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 50)  # 30 filled, 70 open, 20 more
    assert open_buys(state) == 90


def test_no_room_in_steps_is_a_refusal_and_not_an_order_for_what_is_filled() -> None:
    state = opened(filled=30)

    record = amend(state, 300, under=terms(STEPWISE, limits(row("position", 100, "symbol", "reduce"))))

    assert (record.action, record.allowed_lots, open_buys(state)) == (Action.REJECT, 0, 70)


def test_a_replace_that_adds_nothing_passes_a_limit_that_is_over() -> None:
    over = terms(ATOMIC, limits(row("gross_exposure", 5_000), row("var_95", 0.0)), flat_model())

    assert amend(opened(), 80, under=over).action is Action.ALLOW
    assert amend(opened(), 101, under=over).action is Action.REJECT


def flat_model() -> RiskModel:
    return model({"AAA": [-0.1] * 20, "BBB": [0.0] * 20})


def test_a_replace_that_adds_nothing_still_needs_inputs_and_counts_for_the_rate() -> None:
    state, rated = opened(), terms(ATOMIC, limits(row("order_rate", 1)))

    assert amend(state, 80, under=rated).reason is Reason.ORDER_RATE
    missing = amend(opened(), 80, under=terms(ATOMIC, limits(row("var_95", 0.1))))
    assert missing.reason is Reason.MODEL_MISSING


def test_the_price_of_an_exit_may_be_changed_while_only_reductions_pass() -> None:
    state = account(ATOMIC, MARKS, positions={"AAA": 100})
    reserve(state, "exit", "AAA", -100)
    state.apply(valued({"AAA": 100.0}, time_us=NOW_US - 3_600_000_000))
    control = Control(2, (Stop(Scope(ACCOUNT), TradingState.REDUCE_ONLY, 2, NOW_US, "ops"),))
    amended = sell("AAA", 100.0, client_order_id="again", replaces_client_order_id="exit", limit_price=99.0)
    larger = sell("AAA", 101.0, client_order_id="more", replaces_client_order_id="again", all_or_none=True)

    assert approve(state, terms(ATOMIC, control=control), amended).action is Action.ALLOW
    assert int(state.book.sells[0]) == 100
    assert approve(state, terms(ATOMIC, control=control), larger).action is Action.REJECT
    assert approve(state, terms(STEPWISE, control=control), larger).allowed_lots == 0


def test_only_reductions_means_no_new_life_for_an_order_that_opens() -> None:
    control = Control(2, (Stop(Scope(ACCOUNT), TradingState.REDUCE_ONLY, 2, NOW_US, "ops"),))

    assert amend(opened(), 50, under=terms(ATOMIC, control=control)).reason is Reason.REDUCE_ONLY


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (order("AAA", quantity=30.0, replaces_client_order_id="old"), Reason.REPLACED_ORDER_FILLED),
        (order("AAA", quantity=50.0, replaces_client_order_id="gone"), Reason.REPLACED_ORDER_UNKNOWN),
        (order("BBB", quantity=50.0, replaces_client_order_id="old"), Reason.REPLACED_ORDER_UNKNOWN),
        (sell("AAA", 50.0, replaces_client_order_id="old"), Reason.REPLACED_ORDER_UNKNOWN),
        (order("AAA", quantity=50.0, strategy="rl", replaces_client_order_id="old"), Reason.REPLACED_ORDER_UNKNOWN),
    ],
)
def test_what_can_be_replaced(asked: Order, reason: Reason) -> None:
    record = decide(opened(filled=30), terms(ATOMIC), msgspec.structs.replace(asked, client_order_id="new"), NOW_US)

    assert (record.action, record.reason) == (Action.REJECT, reason)


def test_an_order_that_has_ended_at_the_venue_is_not_replaced() -> None:
    state = opened()
    state.apply(report(state, "old", ExecutionKind.CANCELLED, cumulative_lots=10))

    assert amend(state, 50).reason is Reason.REPLACED_ORDER_UNKNOWN


# --- a venue beside the account -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """A report on its way, with the time at which the venue did it."""

    execution: Execution
    fills: int = 0


@dataclass
class AtVenue:
    """An order as the venue has it. `total` and `filled` are counted as the venue counts them."""

    name: str
    total: int
    filled: int = 0


@dataclass
class Asked:
    """A request on its way to the venue."""

    name: str
    total: int
    replaces: str = ""


@dataclass
class Venue:
    """A venue and the line to it; the line keeps the order of requests, and of reports nothing."""

    atomic: bool
    now_us: int = NOW_US
    working: dict[str, AtVenue] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    reports: list[Told] = field(default_factory=list)
    position: int = 0
    count: int = 0

    def tell(self, name: str, kind: str, lots: int = 0, cumulative: int = 0) -> None:
        self.count, self.now_us = self.count + 1, self.now_us + 1
        execution = Execution(
            account=ACCOUNT,
            execution_id=f"x{self.count}",
            client_order_id=name,
            kind=kind,
            last_quantity=float(lots),
            last_price=100.0 if lots else 0.0,
            cumulative_quantity=float(cumulative),
            time_us=self.now_us,
        )
        self.reports.append(Told(execution, lots))

    def take(self, place: int) -> None:
        """One request reaches the venue."""
        asked = self.requests.pop(place)
        old = self.working.get(asked.replaces)
        if not asked.replaces or not self.atomic:
            self.working[asked.name] = AtVenue(asked.name, asked.total)
            self.tell(asked.name, ExecutionKind.WORKING)
        elif old is None or asked.total <= old.filled:
            self.tell(asked.name, ExecutionKind.REJECTED)
        else:
            del self.working[old.name]
            self.working[asked.name] = replace(old, name=asked.name, total=asked.total)
            self.tell(old.name, ExecutionKind.CANCELLED, cumulative=old.filled)
            self.tell(asked.name, ExecutionKind.WORKING)

    def fill(self, name: str, lots: int) -> None:
        one = self.working[name]
        one.filled += lots
        self.position += lots
        self.tell(name, ExecutionKind.FILL, lots, one.filled)
        if one.filled == one.total:
            del self.working[name]

    def cancel(self, name: str) -> None:
        one = self.working.pop(name)
        self.tell(name, ExecutionKind.CANCELLED, cumulative=one.filled)

    def reachable(self) -> int:
        """The highest position that fills can still lead to: requests may be taken in any order, or never."""
        alone = [one.total for one in self.requests if not (one.replaces and self.atomic)]
        chains = [most(one.name, one.total, self.requests) - one.filled for one in self.working.values()]
        unsent = [most(one.name, one.total, self.requests) for one in self.requests if not one.replaces]
        if not self.atomic:
            return self.position + sum(alone) + sum(one.total - one.filled for one in self.working.values())
        return self.position + sum(chains) + sum(unsent)


def most(name: str, total: int, requests: list[Asked]) -> int:
    """The largest total that a line of replaces which begins at an order can come to."""
    return max([total, *(most(one.name, one.total, requests) for one in requests if one.replaces == name)])


class Replacing(RuleBasedStateMachine):
    @initialize(atomic=st.booleans())
    def open(self, atomic: bool) -> None:
        self.instruments = ATOMIC if atomic else STEPWISE
        self.venue, self.state = Venue(atomic), account(self.instruments, MARKS)
        self.names = 0

    def approve(self, lots: int, replaces: str = "") -> None:
        self.names += 1
        name = f"o{self.names}"
        asked = order("AAA", quantity=float(lots), client_order_id=name, replaces_client_order_id=replaces)
        record = decide(self.state, terms(self.instruments), asked, self.venue.now_us)
        self.state.apply(record)
        if record.allowed_lots:
            sent = record.allowed_lots if self.venue.atomic else record.allowed_lots - record.filled_lots
            self.venue.requests.append(Asked(name, sent, replaces))
        else:
            assert record.reason in (Reason.REPLACED_ORDER_FILLED, Reason.REPLACED_ORDER_UNKNOWN, Reason.REDUCE_ONLY)

    @precondition(lambda self: self.names < 12)
    @rule(lots=st.integers(1, 20))
    def order_anew(self, lots: int) -> None:
        self.approve(lots)

    @precondition(lambda self: self.state.orders)
    @rule(data=st.data(), lots=st.integers(1, 40))
    def replace_one(self, data: st.DataObject, lots: int) -> None:
        self.approve(lots, data.draw(st.sampled_from(sorted(self.state.orders))))

    @precondition(lambda self: self.venue.requests)
    @rule(data=st.data())
    def reach_the_venue(self, data: st.DataObject) -> None:
        self.venue.take(data.draw(st.integers(0, len(self.venue.requests) - 1)))

    @precondition(lambda self: self.venue.working)
    @rule(data=st.data(), whole=st.booleans())
    def trade(self, data: st.DataObject, whole: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.venue.working)))
        left = self.venue.working[name].total - self.venue.working[name].filled
        self.venue.fill(name, left if whole else data.draw(st.integers(1, left)))

    @precondition(lambda self: self.venue.working)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.venue.cancel(data.draw(st.sampled_from(sorted(self.venue.working))))

    @precondition(lambda self: self.venue.reports)
    @rule(data=st.data(), again=st.booleans())
    def hear(self, data: st.DataObject, again: bool) -> None:
        place = data.draw(st.integers(0, len(self.venue.reports) - 1))
        told = self.venue.reports[place] if again else self.venue.reports.pop(place)
        self.fold(told)

    def fold(self, told: Told) -> None:
        for record in executed(self.state, self.instruments, told.execution, self.venue.now_us, 0):
            self.state.apply(record)

    @rule()
    def hear_everything(self) -> None:
        while self.venue.reports:
            self.fold(self.venue.reports.pop(0))

    @rule()
    def reconcile(self) -> None:
        """The broker's snapshot of this moment: reports of before are still on their way."""
        venue = self.venue
        venue.now_us += 1
        working = [
            StatedOrder(client_order_id=o.name, leaves_quantity=float(o.total - o.filled), symbol="AAA", sign=1)
            for o in venue.working.values()
        ]
        positions = [StatedPosition(symbol="AAA", quantity=float(venue.position), average_cost=100.0)]
        records = reconciled(
            self.state, self.instruments, positions, None, working, venue.now_us, "test", venue.now_us, 0
        )
        for record in records:
            self.state.apply(record)
        venue.now_us += 1

    @invariant()
    def all_that_can_fill_is_counted(self) -> None:
        if not hasattr(self, "state"):
            return
        low, high = self.state.book.interval(self.state.slots["AAA"])
        assert high >= self.venue.reachable()
        assert low <= self.venue.position
        assert sum(one.counted for one in self.state.orders.values()) == open_buys(self.state)
        assert all(one.leaves >= 1 and one.counted >= 0 for one in self.state.orders.values())
        live = [name for chain in self.state.chains.values() for name in chain.live]
        assert sorted(live) == sorted(name for name, one in self.state.orders.items() if one.chain)
        assert set(self.state.chain_of_ended.values()) <= set(self.state.chains)

    @invariant()
    def once_all_is_told_nothing_else_is_counted(self) -> None:
        if not hasattr(self, "state") or self.venue.reports or self.venue.requests:
            return
        assert self.state.book.interval(self.state.slots["AAA"]) == (self.venue.position, self.venue.reachable())

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        for step in self.ending():
            step()
            self.all_that_can_fill_is_counted()
        assert (self.state.orders, self.state.chains, open_buys(self.state)) == ({}, {}, 0)
        assert int(self.state.book.lots[0]) == self.venue.position

    def ending(self) -> Iterator[Callable[[], None]]:
        while self.venue.requests:
            yield lambda: self.venue.take(0)
        while self.venue.working:
            yield lambda: self.venue.cancel(min(self.venue.working))
        while self.venue.reports:
            yield lambda: self.fold(self.venue.reports.pop())


TestReplacing = Replacing.TestCase
TestReplacing.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
