"""The fold: what records add up to, by hand numbers; forks that leave no trace; replay that ends where it began."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import facts
from engine.account import (
    APPROVALS_MAX,
    MEMORY_HORIZON_US,
    STRATEGIES_MAX,
    VIEWS_MAX,
    AccountState,
    Memory,
    book_key,
    content_of,
)
from engine.conduct import ATTEMPTS_HORIZON_US, ATTEMPTS_MAX, Attempts
from engine.control import Control, Resumed, Scope, TradingState
from engine.decide import RESOLVED_MAX, decide
from engine.facts import Execution, FactError, StatedOrder, StatedPosition, executed
from engine.order import Action, Reason, Side
from engine.records import (
    AnyRecord,
    CashFlowed,
    Executed,
    ExecutionKind,
    FeeCharged,
    Latch,
    Latched,
    PoisonRecord,
    Reconciled,
    ReconciledPosition,
    SessionOpened,
    decode,
    encode,
)
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    account,
    approval,
    fill,
    future,
    limits,
    order,
    quoted,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)

TWO = universe(stock("AAA"), stock("BBB"))
MARKS = {"AAA": 100.0, "BBB": 50.0}


def flat(**fields: Any) -> AccountState:
    return account(TWO, MARKS, **fields)


def interval(state: AccountState, symbol: str = "AAA", strategy: str = "") -> tuple[int, int]:
    return state.book_of(strategy).interval(state.slots[symbol])


def snapshot(state: AccountState) -> dict[str, Any]:
    """Everything that decides or reports read, as plain values."""
    return {
        "seq": state.seq,
        "books": {
            name: {s: (*book.interval(at), int(book.lots[at])) for s, at in state.slots.items()}
            for name, book in {"": state.book, **state.books}.items()
        },
        "prices": [array.tolist() for array in (state.prices.mark, state.prices.bid, state.prices.open_mark)],
        "rates": dict(state.rates),
        "cash": dict(state.cash),
        "holdings": dict(state.holdings),
        "orders": dict(state.orders),
        "counts": dict(state.open_counts),
        "turnovers": {name: (one.lots.tolist(), one.paid.tolist()) for name, one in state.turnovers.items()},
        "approvals": [
            state.approved_alike(order(s, side, 9.0), 0) for s in state.slots for side in (Side.BUY, Side.SELL)
        ],
        "memos": {f"o{at}": state.memos.get(f"o{at}") for at in range(12)},
        "executions": [f"x{at}" in state.executions for at in range(40)],
        "events": [f"e{at}" in state.events for at in range(40)],
        "attempts": {name: attempts.recent() for name, attempts in state.attempts.items()},
        "latches": dict(state.latches),
        "units": (state.units, state.nav_peak, state.fees_total, state.flows_total),
        "session": (state.session, state.sessions),
        "actions": dict(state.decisions_by_action),
        "shadow": dict(state.shadow_by_action),
        "recent": state.recent,
        "equity": state.equity(),
        "reconciled": state.reconciled_seq,
    }


# --- forks and replay ----------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn, state: AccountState | None = None) -> list[AnyRecord]:
    """Records that could follow the opening of an account, in the order of a log."""
    trial = state if state is not None else flat()
    records: list[AnyRecord] = []

    def add(record: AnyRecord) -> None:
        records.append(record)
        trial.apply(record)

    for at in range(draw(st.integers(0, 12))):
        kind = draw(
            st.sampled_from(["order", "refusal", "fill", "cancel", "mark", "flow", "fee", "session", "latch", "rec"])
        )
        if kind in ("order", "refusal"):
            lots = draw(st.integers(1, 9)) if kind == "order" else 0
            side, name = draw(st.sampled_from([Side.BUY, Side.SELL])), f"o{at}"
            strategy = draw(st.sampled_from(["", "rl"]))
            asked = order(draw(st.sampled_from(["AAA", "BBB"])), side, 9.0, client_order_id=name, strategy=strategy)
            add(approval(asked, lots))
        elif kind in ("fill", "cancel") and trial.orders:
            name = draw(st.sampled_from(sorted(trial.orders)))
            filled = draw(st.integers(1, trial.orders[name].leaves)) if kind == "fill" else 0
            price = draw(st.sampled_from([90.0, 100.0, 110.0]))
            add(report(trial, name, kind if kind == "fill" else ExecutionKind.CANCELLED, filled, price))
        elif kind == "mark":
            add(valued({"AAA": draw(st.sampled_from([95.0, 100.0, 120.0]))}))
        elif kind == "flow":
            add(
                CashFlowed(
                    time_us=NOW_US, event_id=f"e{at}", amount=draw(st.sampled_from([-500.0, 900.0])), currency="USD"
                )
            )
        elif kind == "fee":
            add(FeeCharged(time_us=NOW_US, event_id=f"e{at}", amount=3.0, currency="USD"))
        elif kind == "session":
            add(SessionOpened(time_us=NOW_US, date=f"2024-01-{at + 1:02}"))
        elif kind == "latch":
            add(Latched(time_us=NOW_US, latch=Latch(Scope(ACCOUNT), TradingState.REDUCE_ONLY, at, "test")))
        elif kind == "rec":
            held = ReconciledPosition("rl", "AAA", draw(st.integers(-5, 5)))
            add(Reconciled(time_us=NOW_US, reason="eod", positions=(held,)))
    return records


@settings(max_examples=100, deadline=None)
@given(histories())
def test_replaying_the_bytes_of_a_log_ends_in_the_same_state(records: list[AnyRecord]) -> None:
    direct, replayed = flat(), flat()
    for record in records:
        direct.apply(record)
        replayed.apply(decode(encode(record)))

    assert snapshot(replayed) == snapshot(direct)


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(1, 4))
def test_a_fork_that_settles_is_the_state_that_folding_directly_gives(records: list[AnyRecord], batch: int) -> None:
    direct, forked = flat(), flat()
    for start in range(0, len(records), batch):
        fork = forked.fork()
        for record in records[start : start + batch]:
            direct.apply(record)
            fork.apply(record)
        forked = fork.settle()

    assert snapshot(forked) == snapshot(direct)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_dropped_fork_leaves_no_trace(data: st.DataObject) -> None:
    history = data.draw(histories())
    state, twin = flat(), flat()
    for record in history:
        state.apply(record)
        twin.apply(record)
    before = snapshot(state)

    dropped = state.fork()
    nested = dropped.fork()
    for record in data.draw(histories(dropped.fork())):
        dropped.apply(record)
        nested.apply(record)

    assert snapshot(state) == before
    for record in data.draw(histories(twin.fork())):
        state.apply(record)
        twin.apply(record)
    assert snapshot(state) == snapshot(twin)


def test_a_record_of_another_release_is_poison_and_not_a_guess() -> None:
    for data in (b'{"k":"teleported","time_us":1}', b"{", b'{"k":"fee_charged","time_us":1}', b"null"):
        with pytest.raises(PoisonRecord):
            decode(data)


# --- reservations --------------------------------------------------------------------------------------------------


def test_an_approval_reserves_its_side_until_it_is_done() -> None:
    state = flat(strategies={("rl", "AAA"): 3})
    reserve(state, "buy", "AAA", 10, "rl")
    reserve(state, "sell", "AAA", -4)

    assert interval(state) == (-1, 13)
    assert interval(state, strategy="rl") == (3, 13)


def test_a_partial_fill_moves_leaves_to_the_position() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    fill(state, "o1", 4)

    assert interval(state) == (4, 10)
    assert (state.orders["o1"].leaves, state.orders["o1"].filled, state.orders["o1"].working) == (6, 4, True)
    fill(state, "o1", 6)
    assert interval(state) == (10, 10)
    assert not state.orders


def test_a_cancel_request_releases_nothing_and_a_confirmed_cancel_the_rest() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    fill(state, "o1", 4)
    state.apply(report(state, "o1", ExecutionKind.CANCEL_REQUESTED))

    assert interval(state) == (4, 10)
    assert state.orders["o1"].cancel_requested
    state.apply(report(state, "o1", ExecutionKind.CANCELLED))
    assert interval(state) == (4, 4)


@pytest.mark.parametrize("kind", [ExecutionKind.REJECTED, ExecutionKind.EXPIRED, ExecutionKind.NOT_SENT])
def test_what_the_venue_never_had_is_released_once(kind: str) -> None:
    state = flat()
    reserve(state, "o1", "AAA", -10)
    ended = report(state, "o1", kind)
    state.apply(ended)
    state.apply(ended)

    assert interval(state) == (0, 0)


def test_a_cancel_that_overtook_a_fill_keeps_the_leaves_of_the_missing_fill() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    fill(state, "o1", 2)
    state.apply(report(state, "o1", ExecutionKind.CANCELLED, cumulative_lots=7))

    assert interval(state) == (2, 7)
    assert state.orders["o1"].closing
    fill(state, "o1", 5)
    assert interval(state) == (7, 7)
    assert not state.orders


def test_fills_out_of_order_end_in_the_same_place() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    fill(state, "o1", 3, cumulative_lots=10)
    fill(state, "o1", 7, cumulative_lots=7)

    assert interval(state) == (10, 10)
    assert not state.orders


def told(state: AccountState, name: str, quantity: float, **fields: Any) -> Sequence[AnyRecord]:
    """An execution engine's report of a fill, as records, folded in."""
    defaults: dict[str, Any] = {
        "execution_id": f"told{state.seq}",
        "symbol": "AAA",
        "sign": 1,
        "kind": ExecutionKind.FILL,
    }
    said = Execution(
        account=ACCOUNT, client_order_id=name, last_quantity=quantity, last_price=100.0, **(defaults | fields)
    )
    records = executed(state, TWO, said, NOW_US, 0)
    for record in records:
        state.apply(record)
    return records


def test_a_duplicate_report_gives_no_record() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)

    first, again = told(state, "o1", 4, execution_id="x"), told(state, "o1", 4, execution_id="x")

    assert (len(first), len(again)) == (1, 0)
    assert interval(state) == (4, 10)


@pytest.mark.parametrize(("name", "flag"), [("never", "unknown_order"), ("gone", "late"), ("open", "overfill")])
def test_a_fill_that_nothing_covers_is_taken_flagged_and_latches_reduce_only(name: str, flag: str) -> None:
    state = flat()
    reserve(state, "open", "AAA", 5)
    reserve(state, "gone", "AAA", 5)
    state.apply(report(state, "gone", ExecutionKind.CANCELLED))

    (record,) = told(state, name, 8)

    assert isinstance(record, Executed) and record.flags == (flag,)
    assert int(state.book.lots[state.slots["AAA"]]) == 8
    assert state.latched_state(Control(), "", "BBB") is TradingState.REDUCE_ONLY
    assert interval(state) == ((8, 8) if name == "open" else (8, 13))


def test_an_approval_past_its_validity_is_suspect_and_still_counted() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10, valid_for_us=1000)

    (one,) = state.orders.values()
    assert (one.suspect(NOW_US + 1000), one.suspect(NOW_US + 1001)) == (False, True)
    assert interval(state) == (0, 10)
    state.apply(report(state, "o1", ExecutionKind.WORKING))
    assert not state.orders["o1"].suspect(NOW_US + 1001)


# --- money ---------------------------------------------------------------------------------------------------------


def trade(state: AccountState, lots: int, price: float, symbol: str = "AAA") -> None:
    name = f"t{state.seq}"
    reserve(state, name, symbol, lots)
    fill(state, name, abs(lots), price)


def test_average_cost_and_realised_gain_by_hand() -> None:
    state = flat()

    trade(state, 10, 100.0)
    trade(state, 10, 110.0)
    assert (state.holding("", "AAA").average_cost, state.holding("", "AAA").realised) == (105.0, 0.0)
    trade(state, -5, 120.0)
    assert (state.holding("", "AAA").average_cost, state.holding("", "AAA").realised) == (105.0, 75.0)
    trade(state, -25, 95.0)
    assert (state.holding("", "AAA").lots, state.holding("", "AAA").average_cost) == (-10, 95.0)
    assert state.holding("", "AAA").realised == 75.0 - 150.0
    trade(state, 10, 90.0)
    assert state.holding("", "AAA").lots == 0
    assert state.holding("", "AAA").realised == 75.0 - 150.0 + 50.0
    assert state.cash["USD"] == 1_000_000.0 - 25.0
    assert state.equity() == 1_000_000.0 - 25.0


def test_a_future_settles_gains_only() -> None:
    instruments = universe(future("FUT"))
    state = account(instruments, {"FUT": 4000.0}, cash=100_000.0)
    trade(state, 2, 4000.0, "FUT")

    assert (state.cash["USD"], state.equity()) == (100_000.0, 100_000.0)
    state.apply(valued({"FUT": 4010.0}))
    assert state.equity() == 100_000.0 + 2 * 50 * 10.0
    trade(state, -1, 4010.0, "FUT")
    assert (state.cash["USD"], state.equity()) == (100_500.0, 101_000.0)
    trade(state, -3, 4010.0, "FUT")
    assert (state.cash["USD"], state.holding("", "FUT").lots, state.equity()) == (101_000.0, -2, 101_000.0)
    state.apply(valued({"FUT": 4000.0}))
    assert state.equity() == 102_000.0


def test_foreign_positions_cash_and_fees_count_at_their_rate() -> None:
    instruments = universe(stock("EUX", currency="EUR"))
    state = account(instruments, {"EUX": 10.0}, cash={"USD": 1000.0, "EUR": 100.0}, fx={"EUR": 1.2})
    assert state.equity() == pytest.approx(1120.0)

    reserve(state, "o1", "EUX", 10)
    fill(state, "o1", 10, 10.0, fee=1.0, fee_currency="EUR")
    assert state.cash["EUR"] == pytest.approx(-1.0)
    assert state.equity() == pytest.approx(1120.0 - 1.2)
    state.apply(valued({}, {"EUR": 1.5}))
    assert state.equity() == pytest.approx(1000.0 + 1.5 * (100.0 - 1.0))
    assert state.fees_total == pytest.approx(1.2)


def test_equity_is_unknown_where_a_rate_or_a_mark_is() -> None:
    instruments = universe(stock("AAA"), stock("EUX", currency="EUR"))

    assert math.isnan(account(instruments, {"AAA": 1.0, "EUX": 1.0}, positions={"EUX": 1}).equity())
    assert math.isnan(account(instruments, {"EUX": 1.0}, positions={"AAA": 1}).equity())
    assert math.isnan(account(instruments, {}, cash={"EUR": 1.0}).equity())
    assert account(instruments, {}).equity() == 1_000_000.0


def test_deposits_and_withdrawals_move_neither_nav_nor_drawdown_nor_the_sessions_result() -> None:
    state = flat(cash=1000.0, positions={"AAA": 10})
    assert (state.equity(), state.nav()) == (2000.0, 1.0)

    state.apply(valued({"AAA": 150.0}))
    assert (state.nav(), state.nav_peak) == (1.25, 1.25)
    state.apply(CashFlowed(time_us=NOW_US, event_id="e1", amount=2500.0, currency="USD"))
    assert (state.equity(), state.nav(), state.session_pnl()) == (5000.0, 1.25, 500.0)
    state.apply(valued({"AAA": 50.0}))
    assert state.nav() == pytest.approx(1.0)
    assert state.drawdown() == pytest.approx(0.2)
    state.apply(CashFlowed(time_us=NOW_US, event_id="e2", amount=-2000.0, currency="USD"))
    assert state.drawdown() == pytest.approx(0.2)
    assert state.session_pnl() == pytest.approx(-500.0)
    assert state.nav_peak == 1.25


def test_a_fee_lowers_the_nav() -> None:
    state = flat(cash=1000.0)
    state.apply(FeeCharged(time_us=NOW_US, event_id="e1", amount=10.0, currency="USD"))

    assert (state.nav(), state.session_pnl()) == (0.99, -10.0)
    assert state.drawdown() == pytest.approx(0.01)


def test_a_session_rolls_the_days_figures_and_keeps_the_last_ones() -> None:
    state = flat(cash=1000.0, positions={"AAA": 10})
    state.apply(valued({"AAA": 90.0}))
    state.apply(CashFlowed(time_us=NOW_US, event_id="e1", amount=50.0, currency="USD"))
    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))

    assert [(one.date, one.pnl) for one in state.sessions] == [("2023-11-14", -100.0)]
    assert state.session is not None
    assert (state.session.equity_open, state.session_pnl()) == (1950.0, 0.0)
    assert state.prices.open_mark[state.slots["AAA"]] == 90.0
    assert state.nav_peak == 1.0


def test_a_session_that_opens_before_the_marks_starts_with_the_first_equity_known() -> None:
    state = account(TWO, {}, positions={"AAA": 1}, cash=0.0)
    assert math.isnan(state.session_pnl())

    state.apply(valued({"AAA": 100.0}))
    state.apply(valued({"AAA": 103.0}))
    assert state.session_pnl() == 3.0


# --- reconciliation ------------------------------------------------------------------------------------------------


def reconciled(*held: ReconciledPosition, **fields: Any) -> Reconciled:
    return Reconciled(time_us=NOW_US, reason="broker", positions=held, **fields)


def test_a_reconciliation_replaces_positions_and_realises_nothing() -> None:
    state = flat(strategies={("rl", "AAA"): 5, ("mm", "BBB"): 2})
    state.apply(reconciled(ReconciledPosition("rl", "AAA", 7, 98.0), cash={"USD": 10.0}))

    assert interval(state) == (7, 7)
    assert interval(state, strategy="rl") == (7, 7)
    assert interval(state, "BBB", "mm") == (0, 0)
    assert state.holding("rl", "AAA").average_cost == 98.0
    assert (state.holding("rl", "AAA").realised, state.equity()) == (0.0, 710.0)


def test_a_reconciliation_releases_what_the_broker_no_longer_has_but_not_what_may_be_on_its_way() -> None:
    state = flat()
    for name in ("working", "half", "unsent", "later"):
        reserve(state, name, "AAA", 10)
    for name in ("working", "half"):
        state.apply(report(state, name, ExecutionKind.WORKING))
    asked = order(quantity=10, client_order_id="newest")
    state.apply(approval(asked, 10, time_us=NOW_US + 2))

    state.apply(reconciled(open_orders={"half": 4, "later": 10}, snapshot_us=NOW_US + 1))

    assert {name: one.leaves for name, one in state.orders.items()} == {
        "half": 4,
        "unsent": 10,
        "later": 10,
        "newest": 10,
    }
    assert interval(state) == (0, 34)


def test_a_report_after_a_reconciliation_does_not_bring_back_what_it_released() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    fill(state, "o1", 2)
    state.apply(reconciled(ReconciledPosition("", "AAA", 6), open_orders={"o1": 4}, snapshot_us=NOW_US + 1))
    assert interval(state) == (6, 10)

    state.apply(report(state, "o1", ExecutionKind.WORKING))
    assert interval(state) == (6, 10)
    fill(state, "o1", 1)
    assert interval(state) == (7, 10)


def stated(state: AccountState, *orders: StatedOrder, snapshot_us: int = NOW_US + 1) -> list[AnyRecord]:
    return facts.reconciled(state, TWO, (), None, orders, snapshot_us, "broker", NOW_US + 2, 0)


def test_an_order_that_only_the_broker_knows_is_counted_from_then_on() -> None:
    state = flat()
    for record in stated(state, StatedOrder(client_order_id="stray", leaves_quantity=7, symbol="AAA", sign=-1)):
        state.apply(record)
    assert interval(state) == (-7, 0)

    fill(state, "stray", 2)

    assert interval(state) == (-7, -2)


def test_an_order_with_more_left_at_the_broker_than_here_is_counted_as_the_broker_says() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    for record in stated(state, StatedOrder(client_order_id="o1", leaves_quantity=15)):
        state.apply(record)

    assert interval(state) == (0, 15)


def test_an_unknown_open_order_needs_a_symbol_and_a_side_to_be_counted() -> None:
    with pytest.raises(FactError, match="'stray' is not open here"):
        stated(flat(), StatedOrder(client_order_id="stray", leaves_quantity=7, symbol="AAA"))


def test_a_snapshot_older_than_a_fill_that_is_booked_is_refused() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    fill(state, "o1", 2)

    with pytest.raises(FactError, match="snapshot_time: a fill was booked after"):
        stated(state, snapshot_us=NOW_US - 1)


def test_a_late_fill_of_a_closed_order_needs_no_symbol() -> None:
    state = flat()
    state.apply(approval(sell(quantity=2), 2))
    state.apply(report(state, "o1", ExecutionKind.CANCELLED))
    late = Execution(
        account=ACCOUNT, execution_id="x9", client_order_id="o1", kind="fill", last_quantity=2, last_price=9.0
    )

    (record,) = executed(state, TWO, late, NOW_US, 0)

    assert isinstance(record, Executed)
    assert (record.symbol, record.sign, record.lots, record.flags) == ("AAA", -1, 2, ("late",))


# --- latches -------------------------------------------------------------------------------------------------------


def latched(state: AccountState, halt: TradingState, epoch: int, **fields: Any) -> None:
    state.apply(Latched(time_us=NOW_US, epoch=epoch, latch=Latch(Scope(ACCOUNT), halt, epoch, "test", **fields)))


def lifted(epoch: int) -> Control:
    return Control(epoch=epoch, resumes=(Resumed(Scope(), epoch, NOW_US, "ops", "ok"),))


def test_a_weaker_latch_never_weakens_a_stricter_one() -> None:
    state = flat()
    latched(state, TradingState.HALTED, 3)
    latched(state, TradingState.REDUCE_ONLY, 5)

    assert state.latched_state(Control(epoch=5), "rl", "AAA") is TradingState.HALTED
    assert state.latched_state(lifted(4), "rl", "AAA") is TradingState.REDUCE_ONLY
    assert state.latched_state(lifted(6), "rl", "AAA") is TradingState.ACTIVE


def test_an_integrity_latch_needs_a_reconciliation_before_a_resume_lifts_it() -> None:
    state = flat()
    latched(state, TradingState.HALTED, 3, needs_reconciliation=True)
    latched(state, TradingState.HALTED, 4)

    assert state.latched_state(lifted(9), "", "AAA") is TradingState.HALTED
    state.apply(reconciled(epoch=9))
    assert state.latched_state(Control(epoch=9), "", "AAA") is TradingState.HALTED
    assert state.latched_state(lifted(9), "", "AAA") is TradingState.HALTED  # that resume came before it
    assert state.latched_state(lifted(10), "", "AAA") is TradingState.ACTIVE


def test_a_latch_supersedes_the_approvals_before_it_for_good() -> None:
    state = flat()
    latched(state, TradingState.REDUCE_ONLY, 3)

    assert state.latched_after(state.seq - 1, "rl", "AAA")
    assert not state.latched_after(state.seq, "rl", "AAA")


# --- memories ------------------------------------------------------------------------------------------------------


def test_a_decision_is_remembered_after_its_order_is_gone() -> None:
    state = flat()
    state.apply(approval(sell(quantity=2), 2))
    state.apply(report(state, "o1", ExecutionKind.REJECTED))

    memo = state.memos.get("o1")
    assert memo is not None
    assert (memo.action, memo.reason, memo.allowed_lots) == (Action.ALLOW, Reason.NONE, 2)


def test_a_fork_of_a_memory_sees_what_is_below_and_writes_above() -> None:
    below: Memory[str, int] = Memory()
    below.put("a", 1)
    above = below.fork()
    above.put("b", 2)

    assert (above.get("a"), above.get("b"), "b" in below) == (1, 2, False)
    assert above.settled() is below
    assert dict(below.items()) == {"a": 1, "b": 2}
    below.forget(["a", "never"])
    assert ("a" in below, len(below)) == (False, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50)).map(sorted), st.integers(-1, 51))
def test_attempts_since_a_time_are_those_strictly_after_it(times: list[int], since: int) -> None:
    attempts = Attempts()
    for time_us in times:
        attempts = attempts.with_one(time_us)

    assert attempts.since(since) == sum(1 for time_us in times if time_us > since)


def test_attempts_of_a_dropped_fork_are_cut_off_by_the_next() -> None:
    attempts = Attempts([1, 2])
    attempts.with_one(3)
    kept = attempts.with_one(4)

    assert (attempts.since(0), kept.since(0), kept.recent()) == (2, 3, [1, 2, 4])


def test_attempts_are_bounded_and_the_newest_are_kept() -> None:
    attempts = Attempts(list(range(2 * ATTEMPTS_MAX)))
    before = attempts.recent()
    attempts = attempts.with_one(2 * ATTEMPTS_MAX)

    assert len(attempts.recent()) == len(before) == ATTEMPTS_MAX
    assert attempts.recent()[:-1] == before[1:]
    assert attempts.recent()[-1] == 2 * ATTEMPTS_MAX


# --- what duplicates are told by -----------------------------------------------------------------------------------


def test_of_too_many_approvals_those_that_were_repeated_last_are_kept() -> None:
    state = flat()
    again, others = order(quantity=7.0), [order(quantity=100.0 + at) for at in range(APPROVALS_MAX)]
    state.apply(approval(msgspec.structs.replace(again, client_order_id="first"), 1))
    for at, other in enumerate(others):
        state.approvals.put(content_of(other), (NOW_US + at,))

    fork = state.fork()
    fork.apply(approval(msgspec.structs.replace(again, client_order_id="again"), 1))
    settled = fork.settle()

    assert settled.approved_alike(again, 0) == 2
    assert len(settled.approvals) < APPROVALS_MAX


# --- strategies, whose names are free text -------------------------------------------------------------------------


def test_a_fork_shares_the_books_that_it_does_not_change() -> None:
    state = flat(strategies={(f"s{at}", "AAA"): at for at in range(50)})
    before = snapshot(state)

    fork = state.fork()
    reserve(fork, "o1", "AAA", 10, "s3")

    assert [name for name in state.books if fork.books[name] is not state.books[name]] == ["s3"]
    assert (interval(fork, strategy="s3"), interval(state, strategy="s3")) == ((3, 13), (3, 3))
    assert snapshot(state) == before


def test_a_state_that_goes_on_leaves_its_fork_as_it_was() -> None:
    state = flat(strategies={("mm", "AAA"): 5})
    reserve(state, "o1", "AAA", 1, "mm")
    fork = state.fork()

    reserve(state, "o2", "AAA", 10, "mm")

    assert (interval(state, strategy="mm"), interval(fork, strategy="mm")) == ((5, 16), (5, 6))


def test_strategies_that_were_silent_for_long_are_forgotten_and_the_others_are_not() -> None:
    state, later_us = flat(), NOW_US + ATTEMPTS_HORIZON_US
    for at in range(STRATEGIES_MAX - 1):
        state.apply(approval(order(client_order_id=f"o{at}", strategy=f"s{at}"), 1))
    kept = state.fork()
    for at, strategy in enumerate(("s7", "new")):
        state.apply(approval(order(client_order_id=f"n{at}", strategy=strategy), 1, time_us=later_us))

    assert len(kept.attempts) == STRATEGIES_MAX
    assert sorted(state.attempts) == ["", "new", "s7"]
    assert state.attempts["s7"].since(later_us - 1) == 1


def test_what_is_cached_by_strategy_does_not_grow_with_the_names_that_were_used() -> None:
    armed, state = limits(row("gross_exposure", 1e9, "strategy")), flat()
    for at in range(RESOLVED_MAX + 1):
        decide(state, terms(TWO, armed), order(strategy=f"s{at}"), NOW_US)
    later = state.fork()

    assert len(later.resolved) <= RESOLVED_MAX
    assert len(later.views) <= VIEWS_MAX
    assert len(later.derived) < 20


# --- the horizon of ids ----------------------------------------------------------------------------------------------


def test_an_id_is_remembered_a_horizon_from_its_close_on_and_not_from_its_decision() -> None:
    state = flat()
    reserve(state, "old", "AAA", 10)
    long_after = NOW_US + 10 * MEMORY_HORIZON_US
    assert state.memo("old", long_after) is not None  # open: for ever

    cancelled = report(state, "old", ExecutionKind.CANCELLED)
    state.apply(msgspec.structs.replace(cancelled, time_us=long_after))

    assert state.memo("old", long_after + MEMORY_HORIZON_US) is not None
    assert state.memo("old", long_after + MEMORY_HORIZON_US + 1) is None


def test_an_adopted_orders_id_is_taken() -> None:
    state = flat()
    for record in stated(state, StatedOrder(client_order_id="stray", leaves_quantity=7, symbol="AAA", sign=-1)):
        state.apply(record)

    memo = state.memo("stray", NOW_US)

    assert memo is not None and memo.digest not in ("", sell(quantity=7, client_order_id="stray").digest)


def test_lots_that_a_reconciliation_adds_without_a_cost_have_cost_the_mark() -> None:
    state = flat(strategies={("rl", "AAA"): 5})
    before = state.holding("rl", "AAA").average_cost
    state.apply(valued({"AAA": 130.0}, time_us=NOW_US + 1))

    state.apply(reconciled(ReconciledPosition("rl", "AAA", 10)))

    assert state.holding("rl", "AAA").average_cost == (before + 130.0) / 2


def test_a_fill_from_before_the_snapshot_is_recorded_and_not_booked_again() -> None:
    state = flat()
    reserve(state, "o1", "AAA", 10)
    for record in stated(state, StatedOrder(client_order_id="o1", leaves_quantity=6), snapshot_us=NOW_US + 5):
        state.apply(record)
    late = Execution(
        account=ACCOUNT,
        execution_id="x1",
        client_order_id="o1",
        kind="fill",
        last_quantity=4,
        last_price=9.0,
        time_us=NOW_US + 4,
    )

    (record,) = executed(state, TWO, late, NOW_US + 9, 0)

    assert isinstance(record, Executed)
    assert (record.lots, record.flags, record.latches) == (0, ("in_snapshot",), ())


def test_orders_without_a_strategy_have_a_book_of_their_own() -> None:
    state = flat(strategies={("", "AAA"): 100, ("s1", "AAA"): -100})

    assert interval(state) == (0, 0)
    assert interval(state, strategy=book_key("")) == (100, 100)


def test_an_opening_position_needs_its_cost() -> None:
    with pytest.raises(FactError, match="average_cost"):
        facts.account_opened(
            AccountState("NEW"), TWO, "e1", "USD", {}, [StatedPosition(symbol="AAA", quantity=5)], NOW_US, 0
        )


def test_the_oldest_price_counts_the_rate_of_foreign_cash() -> None:
    state = flat(cash={"USD": 1.0, "EUR": 1e6})
    state.apply(valued({}, {"EUR": 1.1}, time_us=NOW_US - 5))

    assert state.oldest_price_us() == NOW_US - 5


def test_a_spread_that_widens_around_the_same_mark_at_the_same_time_is_news() -> None:
    state = account(TWO, {"AAA": quoted(100.0, 99.0, 101.0), "BBB": 50.0})
    wider = {"AAA": facts.Quote("AAA", 100.0, 90.0, 110.0, NOW_US)}

    record = facts.observation(state, wider, ["AAA"], NOW_US, 0)

    assert record is not None
    state.apply(record)
    slot = state.slots["AAA"]
    assert (state.prices.bid[slot], state.prices.ask[slot]) == (90.0, 110.0)
    assert facts.observation(state, wider, ["AAA"], NOW_US, 0) is None
