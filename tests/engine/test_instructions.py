"""What is instructed, once, until when it is out, and when a person is called."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.control import Control, Resumed, Scope, Stop, TradingState, resumed, stopped
from engine.decide import Terms, decide
from engine.instructions import (
    ANSWER_US,
    EFFECT_US,
    RECORDS_MAX,
    RETRY_US,
    Outcome,
    account_of,
    answered,
    due,
    due_on_stops,
)
from engine.limits import Limit
from engine.order import Action, Reason, Side
from engine.records import (
    AnyRecord,
    Escalated,
    ExecutionKind,
    Instructed,
    InstructionAnswered,
    InstructionKind,
    InstructionStatus,
    Latch,
    Latched,
    Reconciled,
    ReconciledPosition,
    SessionOpened,
    decode,
    encode,
)
from engine.suspects import release_delay_set, suspects
from tests.engine.books import SYMBOLS, UNIVERSE, Bench, benches
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    account,
    approval,
    fill,
    limits,
    order,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
)

TWO = universe(stock("AAA"), stock("BBB", lot_size=10.0))
MARKS = {"AAA": 100.0, "BBB": 10.0}
EVERYTHING = Scope()
RECEIVED, DONE, FAILED = InstructionStatus.RECEIVED, InstructionStatus.DONE, InstructionStatus.FAILED


def stop(
    state: TradingState = TradingState.HALTED, scope: Scope = EVERYTHING, epoch: int = 5, flatten: bool = False
) -> Control:
    return stopped(Control(), Stop(scope, state, epoch, NOW_US, "ann", "fire", 1, flatten))


def under(control: Control | None = None, *rows: Limit) -> Terms:
    return terms(TWO, limits(*rows), control=control)


def instruct(state: AccountState, armed: Terms, now_us: int = NOW_US) -> list[AnyRecord]:
    """Fold in what is due, as it comes back from the log."""
    made = due(state, armed, now_us)
    for record in made:
        state.apply(decode(encode(record)))
    return made


def answer(
    state: AccountState, instruction_id: str, status: InstructionStatus, now_us: int = NOW_US
) -> list[AnyRecord]:
    made = answered(state, [Outcome(instruction_id, status, "text")], 5, now_us)
    for record in made:
        state.apply(record)
    return made


def asked(records: list[AnyRecord]) -> list[str]:
    return [record.client_order_id for record in records if isinstance(record, Instructed)]


def one(records: list[AnyRecord]) -> Instructed:
    (record,) = records
    assert isinstance(record, Instructed)
    return record


# -- stops


def test_a_halt_asks_once_to_cancel_everything_in_its_scope_exits_too() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    for name, symbol, lots in (("more", "AAA", 10), ("exit", "AAA", -10), ("other", "BBB", 10)):
        reserve(state, name, symbol, lots)
    armed = under(stop(scope=Scope(ACCOUNT, symbol="AAA")))

    first, second = instruct(state, armed), instruct(state, armed)

    assert (asked(first), second) == (["more", "exit"], [])
    record = first[0]
    assert isinstance(record, Instructed)
    assert (record.kind, record.reason, record.epoch) == (InstructionKind.CANCEL, Reason.TRADING_HALTED, 5)
    assert record.deadline_us == NOW_US + ANSWER_US
    assert record.message == "HALTED for account ALPHA, symbol AAA by ann at epoch 5: fire"
    assert len({i.instruction_id for i in state.instructions.values()}) == 2


@pytest.mark.parametrize("mild", [TradingState.CANCEL_ONLY, TradingState.REDUCE_ONLY])
def test_milder_stops_leave_what_works(mild: TradingState) -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)

    assert instruct(state, under(stop(mild))) == []


def test_a_halt_that_the_log_holds_cancels_like_a_stop() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    latch = Latch(Scope(ACCOUNT), TradingState.HALTED, 0, "the log went backwards")
    state.apply(Latched(time_us=NOW_US, latch=latch))

    record = one(instruct(state, under()))

    assert record.message == "HALTED: the log went backwards"


def test_an_order_that_the_broker_alone_knew_is_cancelled_under_a_halt() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    (adopted,) = state.orders.values()
    state.orders["one"] = msgspec.structs.replace(adopted, epoch=9)

    assert asked(instruct(state, under(stop(epoch=5)))) == ["one"]


def test_many_instructions_come_an_append_at_a_time() -> None:
    state = account(TWO, MARKS)
    for at in range(RECORDS_MAX + 1):
        reserve(state, f"o{at}", "AAA", 1)
    armed = under(stop())

    made = [len(instruct(state, armed)) for _ in range(3)]

    assert made == [RECORDS_MAX, 1, 0]
    assert len(state.instructions) == RECORDS_MAX + 1


# -- limits


def test_a_tightened_limit_asks_to_cancel_what_no_longer_fits_and_says_why() -> None:
    state = account(TWO, MARKS)
    for name in ("old", "new"):
        reserve(state, name, "AAA", 60)
    armed = under(None, row("position", 100, "symbol"))

    record = one(instruct(state, armed))

    assert (record.client_order_id, record.reason) == ("new", Reason.POSITION)
    assert "position of symbol:AAA is 120, limit 100" in record.message
    assert instruct(state, armed) == []


def test_stops_and_limits_number_their_instructions_apart() -> None:
    state = account(TWO, MARKS)
    reserve(state, "halted", "AAA", 60, "mm")
    reserve(state, "unfit", "BBB", 60, "rl")
    armed = under(stop(scope=Scope(strategy="mm")), row("position", 100, "symbol"))

    made = instruct(state, armed)

    assert asked(made) == ["halted", "unfit"]
    assert len(state.instructions) == 2


def test_another_order_goes_where_the_first_cannot_be_cancelled() -> None:
    state = account(TWO, MARKS)
    for name in ("old", "new"):
        reserve(state, name, "AAA", 60)
    armed = under(None, row("position", 100, "symbol"))
    record = one(instruct(state, armed))

    answer(state, record.instruction_id, FAILED)

    assert asked(instruct(state, armed)) == ["old"]


@settings(max_examples=100, deadline=None)
@given(benches, st.floats(0.0, 1.0), st.booleans())
def test_two_that_run_on_the_same_state_instruct_once(bench: Bench, part: float, halt: bool) -> None:
    """What was built before the first was folded in changes nothing. Built after it, there is none: but for what the
    flatten orders, once they are counted, take of the limits."""
    rows = (row("gross_exposure", part * 20_000), row("position", part * 60, "symbol"))
    control = stop(scope=Scope(strategy="mm"), flatten=True) if halt else Control()
    armed = Terms(control, limits(*rows), UNIVERSE, bench.risk)
    state = bench.state
    made = due(state, armed, NOW_US)
    for record in made:
        state.apply(record)
    held = {name: book.copy() for name, book in state.books.items()}
    orders, instructions = dict(state.orders), dict(state.instructions)

    again = due(state, armed, NOW_US)
    for record in made:
        state.apply(record)

    assert again == [] or any(isinstance(record, Instructed) and record.order is not None for record in made)
    assert not set(asked(again)) & set(asked(made))
    assert (state.orders, state.instructions) == (orders, instructions)
    assert all((state.books[name].buys == book.buys).all() for name, book in held.items())


# -- flatten


def test_a_stop_that_flattens_closes_each_strategys_position_by_what_no_order_closes_yet() -> None:
    state = account(TWO, MARKS, strategies={("mm", "AAA"): 100, ("rl", "AAA"): -30, ("rl", "BBB"): 7, ("", "BBB"): 2})
    reserve(state, "closing", "AAA", -40, "mm")
    reserve(state, "opening", "AAA", 5, "mm")
    armed = under(stop(TradingState.REDUCE_ONLY, flatten=True))

    made = instruct(state, armed)

    sent = {
        (r.order.strategy, r.order.symbol): (r.order.side, r.order.quantity)
        for r in made
        if isinstance(r, Instructed) and r.order is not None
    }
    assert sent == {
        ("mm", "AAA"): (Side.SELL, 60.0),
        ("rl", "AAA"): (Side.BUY, 30.0),
        ("rl", "BBB"): (Side.SELL, 70.0),
        ("", "BBB"): (Side.SELL, 20.0),
    }
    assert {r.reason for r in made if isinstance(r, Instructed)} == {Reason.REDUCE_ONLY}
    assert instruct(state, armed) == []
    assert state.book_of("mm").interval(state.slots["AAA"]) == (0, 105)


def test_flatten_orders_pass_a_halt_and_are_not_cancelled_by_it() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    reserve(state, "exit", "AAA", -40)
    armed = under(stop(flatten=True))
    made = instruct(state, armed)
    own = made[1]
    assert isinstance(own, Instructed) and own.order is not None

    state.apply(report(state, "exit", ExecutionKind.CANCELLED))
    more = one(instruct(state, armed))

    assert asked(made) == ["exit", own.client_order_id]
    assert more.order is not None
    assert (own.order.quantity, more.order.quantity, more.order.reduce_only) == (60.0, 40.0, True)
    fill(state, own.client_order_id, 60)
    fill(state, more.client_order_id, 40)
    assert state.holding("", "AAA").lots == 0
    assert (state.orders, state.instructions, instruct(state, armed)) == ({}, {}, [])


def test_a_flatten_order_that_the_broker_brings_back_is_not_cancelled_by_the_halt() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    armed = under(stop(flatten=True))
    name = one(instruct(state, armed)).client_order_id
    state.apply(report(state, name, ExecutionKind.CANCELLED, cumulative_lots=40))

    held = (ReconciledPosition("", "AAA", 100),)
    state.apply(Reconciled(time_us=NOW_US, reason="", positions=held, open_orders={name: 100}, snapshot_us=NOW_US + 1))

    assert state.orders[name].leaves == 100
    assert instruct(state, armed) == []


def test_a_flatten_order_that_the_venue_refused_is_made_again_after_a_while() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    armed = under(stop(flatten=True))
    first = one(instruct(state, armed))
    state.apply(report(state, first.client_order_id, ExecutionKind.REJECTED))

    assert instruct(state, armed, NOW_US + RETRY_US - 1) == []
    again = one(instruct(state, armed, NOW_US + RETRY_US))

    assert again.client_order_id != first.client_order_id and again.lots == 100


def test_a_clock_that_was_set_back_delays_no_flatten_order() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    armed = under(stop(flatten=True))
    state.apply(report(state, one(instruct(state, armed)).client_order_id, ExecutionKind.REJECTED))

    assert one(instruct(state, armed, NOW_US - 3_600_000_000)).lots == 100


def test_a_flatten_order_that_filled_whole_makes_nobody_wait() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    armed = under(stop(flatten=True))
    fill(state, one(instruct(state, armed)).client_order_id, 100)
    reserve(state, "late", "AAA", 10)
    fill(state, "late", 10)

    assert one(instruct(state, armed)).lots == 10


def test_a_flatten_order_never_takes_an_id_that_somebody_used() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    taken = f"flatten-{ACCOUNT}-{state.seq + 2}"
    state.apply(approval(order("BBB", quantity=10, client_order_id=taken), 1))

    made = instruct(state, under(stop(TradingState.REDUCE_ONLY, flatten=True)))

    assert asked(made)[0] != taken
    assert state.orders[taken].symbol == "BBB"


def test_no_instruction_has_anothers_id_whatever_orders_are_called() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    state.apply(approval(order("BBB", quantity=10, client_order_id=f"flatten-{ACCOUNT}-{state.seq + 3}"), 1))
    reserve(state, "one", "BBB", 10)
    control = stop(TradingState.REDUCE_ONLY, flatten=True)

    made = instruct(state, under(control, row("position", 50.0, "symbol")))
    made += instruct(state, under(control, row("position", 5.0, "symbol")))

    found = [record.instruction_id for record in made if isinstance(record, Instructed)]
    assert (len(found), len(set(found))) == (3, 3)
    assert {account_of(name) for name in found} == {ACCOUNT}


def test_a_flatten_order_that_nobody_reports_is_suspect_in_the_next_session_and_made_again_once_let_go() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    for record in release_delay_set(state, "delay", 0, NOW_US, 0):
        state.apply(record)
    armed = under(stop(flatten=True))
    first = one(instruct(state, armed))
    answer(state, first.instruction_id, DONE)
    before = suspects(state, NOW_US + 1)

    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-16"))
    after = [order.client_order_id for order in suspects(state, NOW_US + 1)]
    instruct(state, armed, NOW_US + 1)
    again = one(instruct(state, armed, NOW_US + 1 + RETRY_US))

    assert (before, after, again.lots) == ([], [first.client_order_id], 100)


def test_nothing_is_flattened_after_the_resume_nor_by_a_stop_that_does_not_say_so() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    control, _, _ = resumed(stop(flatten=True), Resumed(EVERYTHING, 6, NOW_US, "ann", "over", 1))

    assert instruct(state, under(control)) == []
    assert instruct(state, under(stop())) == []


def test_a_second_stop_of_the_scope_does_not_take_the_flattening_back() -> None:
    control = stopped(stop(flatten=True), Stop(EVERYTHING, TradingState.HALTED, 6, NOW_US, "bob"))

    assert control.stops[0].flatten


def test_orders_are_judged_with_flatten_orders_counted() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    instruct(state, under(stop(TradingState.REDUCE_ONLY, flatten=True)))

    refused = decide(state, under(stop(TradingState.REDUCE_ONLY)), sell(quantity=1, client_order_id="exit"), NOW_US)

    assert refused.action is Action.HALT


# -- answers


def test_a_cancel_is_out_until_its_order_has_ended_whatever_is_answered() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    name = one(instruct(state, under(stop()))).instruction_id

    for at, status in enumerate((RECEIVED, DONE)):
        answer(state, name, status, NOW_US + at)
    out = state.instructions[name]
    state.apply(report(state, "one", ExecutionKind.CANCELLED))

    assert (out.status, out.deadline_us) == (DONE, NOW_US + 1 + EFFECT_US)
    assert state.instructions == {}


@pytest.mark.parametrize("kind", [ExecutionKind.FILL, ExecutionKind.REJECTED, ExecutionKind.NOT_SENT])
def test_a_cancel_is_over_however_its_order_ends(kind: str) -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    instruct(state, under(stop()))

    state.apply(report(state, "one", kind, 10 if kind == ExecutionKind.FILL else 0))

    assert state.instructions == {}


def test_a_cancel_that_the_venue_confirmed_is_over_though_a_fill_is_still_missing() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    armed = under(stop())
    instruct(state, armed)

    state.apply(report(state, "one", ExecutionKind.CANCELLED, cumulative_lots=4))

    assert (state.orders["one"].leaves, state.instructions) == (4, {})
    assert instruct(state, armed) == []


def test_a_cancel_is_over_when_the_broker_no_longer_has_the_order() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    state.apply(report(state, "one", ExecutionKind.WORKING))
    instruct(state, under(stop()))

    state.apply(Reconciled(time_us=NOW_US, reason="", positions=(), open_orders={}, snapshot_us=NOW_US + 1))

    assert (state.orders, state.instructions) == ({}, {})


@pytest.mark.parametrize("status", [DONE, FAILED])
def test_a_flatten_order_is_no_instruction_any_more_once_it_was_sent_or_cannot_be(status: InstructionStatus) -> None:
    """It is counted all the same, until a report ends it."""
    state = account(TWO, MARKS, positions={"AAA": 100})
    armed = under(stop(flatten=True))
    name = one(instruct(state, armed)).instruction_id

    answer(state, name, status)

    assert (state.instructions, list(state.orders)) == ({}, [name])
    assert instruct(state, armed) == []


def test_what_was_said_already_and_what_is_over_changes_nothing() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    name = one(instruct(state, under(stop()))).instruction_id
    answer(state, name, DONE)

    repeated = [*answer(state, name, RECEIVED), *answer(state, name, DONE), *answer(state, "unheard of", DONE)]
    state.apply(report(state, "one", ExecutionKind.CANCELLED))

    assert (repeated, answer(state, name, FAILED)) == ([], [])


def test_answers_that_come_together_are_recorded_in_their_order_and_each_once() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    name = one(instruct(state, under(stop()))).instruction_id

    made = answered(state, [Outcome(name, RECEIVED), Outcome(name, RECEIVED), Outcome(name, DONE)], 5, NOW_US)

    assert [r.status for r in made if isinstance(r, InstructionAnswered)] == [RECEIVED, DONE]
    assert state.instructions[name].status is InstructionStatus.UNANSWERED


# -- escalation


def escalations(records: list[AnyRecord]) -> list[str]:
    return [record.message for record in records if isinstance(record, Escalated)]


def test_what_nobody_answers_is_escalated_once() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    armed = under(stop())
    instruct(state, armed)

    early = instruct(state, armed, NOW_US + ANSWER_US)
    late = instruct(state, armed, NOW_US + ANSWER_US + 1)
    later = instruct(state, armed, NOW_US + 100 * ANSWER_US)

    assert (early, later) == ([], [])
    (message,) = escalations(late)
    assert message.startswith("cancel of order one was answered by no execution engine in time; it was asked for")
    assert (state.escalated_count, len(state.escalations)) == (1, 1)
    assert state.escalations[0].seq == state.seq


def test_what_was_received_and_has_no_effect_is_escalated_later() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    armed = under(stop())
    name = one(instruct(state, armed)).instruction_id
    answer(state, name, RECEIVED, NOW_US + ANSWER_US)

    early = instruct(state, armed, NOW_US + ANSWER_US + EFFECT_US)
    late = instruct(state, armed, NOW_US + ANSWER_US + EFFECT_US + 1)

    assert early == []
    assert "answered (received) and has had no effect in time" in escalations(late)[0]


def test_what_cannot_be_done_is_escalated_at_once_and_not_again() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 10)
    armed = under(stop())
    name = one(instruct(state, armed)).instruction_id

    made = answer(state, name, FAILED)

    assert "can't be done: text" in escalations(made)[0]
    assert instruct(state, armed, NOW_US + 100 * EFFECT_US) == []
    assert state.escalated_count == 1


def test_an_account_that_is_not_open_is_told_nothing() -> None:
    state = AccountState(ACCOUNT)

    assert due(state, under(stop(flatten=True)), NOW_US) == []
    assert due_on_stops(state, under(stop(flatten=True)), NOW_US) == []


def test_a_dropped_fork_leaves_no_instruction_behind() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    reserve(state, "one", "AAA", 10)
    fork = state.fork()

    instruct(fork, under(stop(flatten=True)))

    assert len(fork.instructions) == 2
    assert (state.instructions, list(state.orders), state.unfilled_us) == ({}, ["one"], {})
    assert state.orders["one"].instruction_id == ""


@settings(max_examples=60, deadline=None)
@given(benches)
def test_flattening_ends_flat_whatever_works_and_fills(bench: Bench) -> None:
    """Each client order is cancelled, each of the gateway's own fills: a few rounds later nothing is held or open."""
    wide = limits(flatten_volume_share=1e6)
    state, armed = bench.state, Terms(stop(flatten=True), wide, UNIVERSE, bench.risk)
    for minute in range(4):
        instruct(state, armed, NOW_US + minute * 60_000_000)
        for open_order in list(state.orders.values()):
            kind = ExecutionKind.FILL if open_order.own else ExecutionKind.CANCELLED
            state.apply(report(state, open_order.client_order_id, kind, open_order.leaves if open_order.own else 0))

    assert all(state.book.lots[state.slots[symbol]] == 0 for symbol in SYMBOLS)
    assert (state.orders, state.instructions) == ({}, {})
    assert instruct(state, armed) == []
