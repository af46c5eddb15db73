"""Checks of conduct (CHECKS 15, 16, 18, 19, 20, 21 and 34), each with what goes wrong in those that have it."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.conduct import RUN_MAX, TALLIES_MAX, Closed, losing_streak
from engine.control import Control, Resumed, Scope, TradingState
from engine.decide import decide
from engine.limits import Limit, LimitError, LimitMode, check_rows, limit_set_from
from engine.measures import MEASURES
from engine.order import Action, OrderType, Reason, TimeInForce
from engine.records import AnyRecord, Decided, ExecutionKind, SessionOpened, decode, encode
from engine.utilisation import limit_uses
from tests.engine.builders import (
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
    terms,
)
from tests.engine.judging import FLAT_MODEL, MARKS, SECOND_US, TWO, check, judged


def told(state: AccountState, name: str, kind: str, time_us: int = NOW_US) -> None:
    """Of an open order, without a fill."""
    state.apply(msgspec.structs.replace(report(state, name, kind), time_us=time_us))


def tried(state: AccountState, name: str, *rows: Limit, now_us: int = NOW_US, **fields: Any) -> Decided:
    """Decided and folded, as a gateway does."""
    asked = order(client_order_id=name, quantity=1, **fields)
    record = decide(state, terms(TWO, limits(*rows), FLAT_MODEL), asked, now_us)
    state.apply(record)
    return record


def lifted(epoch: int) -> Control:
    return Control(epoch=epoch, resumes=(Resumed(Scope(), epoch, NOW_US, "ops", "looked into it"),))


# --- 15: rates ------------------------------------------------------------------------------------------------------


def test_a_rate_refuses_at_its_first_threshold_and_halts_at_its_second_by_attempts_that_were_refused() -> None:
    rows = row("order_rate", 2, window_s=1.0), row("order_rate", 4, action="halt", window_s=1.0)
    state = account(TWO, MARKS)

    found = [tried(state, f"o{at}", *rows).action for at in range(5)]

    assert found == [Action.ALLOW, Action.ALLOW, Action.REJECT, Action.REJECT, Action.HALT]


def test_a_window_slides_and_does_not_burst_at_its_border() -> None:
    state, rows = account(TWO, MARKS), (row("order_rate", 2, window_s=1.0),)
    for name, at_ms in (("a", 900), ("b", 950)):
        assert tried(state, name, *rows, now_us=NOW_US + at_ms * 1_000).action is Action.ALLOW

    assert tried(state, "c", *rows, now_us=NOW_US + 1_100_000).action is Action.REJECT


RATES = ("order_rate", "cancel_rate", "venue_rejects", "loss_streak", "session_orders", "session_trades")


@pytest.mark.parametrize("measure", [*RATES, "order_to_trade", "self_match"])
def test_no_count_traps_a_true_reduction(measure: str) -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    for name in ("a", "b", "c"):
        reserve(state, name, "BBB", 1)
    told(state, "a", ExecutionKind.CANCEL_REQUESTED)
    reserve(state, "loser", "BBB", 1)
    fill(state, "loser", 1, 50.0)
    reserve(state, "exit", "BBB", -1)
    fill(state, "exit", 1, 40.0)
    told(state, "b", ExecutionKind.REJECTED)
    reserve(state, "bid", "AAA", 1, limit_price=100.0)

    opening = judged(sell(quantity=11, limit_price=99.0), row(measure, 0), state=state)
    closing = judged(sell(quantity=10, limit_price=99.0), row(measure, 0), state=state)

    assert opening.action is Action.REJECT and opening.reason is MEASURES[measure].reason
    assert closing.action is Action.ALLOW
    assert check(closing, measure).reduction


# --- 16: cancels and replacements -----------------------------------------------------------------------------------


def cancels(state: AccountState) -> float | None:
    return check(judged(order(), row("cancel_rate", 100), state=state), "cancel_rate").before


def test_a_cancel_counts_once_by_its_request_or_by_its_own_coming() -> None:
    state = account(TWO, MARKS)
    reserve(state, "asked", "AAA", 1)
    reserve(state, "unasked", "AAA", 1)
    told(state, "asked", ExecutionKind.CANCEL_REQUESTED)
    told(state, "asked", ExecutionKind.CANCELLED)
    told(state, "unasked", ExecutionKind.CANCELLED)

    assert cancels(state) == 2
    assert judged(order(), row("cancel_rate", 2), state=state).action is Action.ALLOW
    assert judged(order(), row("cancel_rate", 1), state=state).action is Action.REJECT


@pytest.mark.parametrize("lapsing", [TimeInForce.IOC, TimeInForce.FOK])
def test_what_lapses_by_itself_is_no_cancel(lapsing: TimeInForce) -> None:
    state = account(TWO, MARKS)
    reserve(state, "now", "AAA", 1, time_in_force=lapsing)
    told(state, "now", ExecutionKind.CANCELLED)

    assert cancels(state) == 0


def test_an_order_that_gives_way_to_its_replacement_is_no_cancel() -> None:
    state = account(TWO, MARKS)
    reserve(state, "old", "AAA", 1)
    reserve(state, "new", "AAA", 2, replaces_client_order_id="old")
    told(state, "old", ExecutionKind.CANCELLED)

    assert cancels(state) == 0


def test_cancels_leave_the_window_and_stay_in_the_sessions_ratio() -> None:
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 1)
    told(state, "one", ExecutionKind.CANCEL_REQUESTED)
    rows = row("cancel_rate", 100), row("order_to_trade", 100)

    later = judged(order(), *rows, state=state, now_us=NOW_US + SECOND_US)

    assert check(later, "cancel_rate").before == 0
    assert (check(later, "order_to_trade").before, check(later, "order_to_trade").after) == (2, 3)


def test_a_replacement_that_was_refused_counts_and_a_new_order_is_not_held_up_by_replacements() -> None:
    state = account(TWO, MARKS)
    reserve(state, "old", "AAA", 5)
    rows = row("modify_rate", 1), row("order_quantity", 8, "symbol")
    refused = tried(state, "r1", *rows, replaces_client_order_id="gone")

    second = judged(order(quantity=6, replaces_client_order_id="old"), *rows, state=state)
    fresh = judged(order(), *rows, state=state)

    assert refused.reason is Reason.REPLACED_ORDER_UNKNOWN
    assert (second.action, second.reason) == (Action.REJECT, Reason.MODIFY_RATE)
    assert fresh.action is Action.ALLOW


# --- 18: a session's counts -----------------------------------------------------------------------------------------


def test_a_sessions_counts_roll_with_its_record_and_with_nothing_else() -> None:
    state, rows = account(TWO, MARKS), (row("session_orders", 1), row("session_trades", 1))
    reserve(state, "one", "AAA", 1)
    fill(state, "one", 1)
    a_day_us = 24 * 3600 * SECOND_US

    same = judged(order(), *rows, state=state, now_us=NOW_US + SECOND_US)
    assert (check(same, "session_orders").after, check(same, "session_trades").after) == (2, 2)

    state.apply(SessionOpened(time_us=NOW_US + a_day_us, date="2023-11-15"))
    rolled = judged(order(), *rows, state=state)
    assert (check(rolled, "session_orders").after, check(rolled, "session_trades").after) == (1, 1)


# --- 19: executions that nobody looked at ---------------------------------------------------------------------------


def test_executions_halt_their_strategy_until_a_person_resumes_and_then_count_anew() -> None:
    state, limit = account(TWO, MARKS), row("unattended_executions", 2, "strategy", "halt")
    for name in ("a", "b"):
        reserve(state, name, "AAA", 2, "rl")
        fill(state, name, 1)
        fill(state, name, 1)  # two fills of one order are one execution

    halted = tried(state, "c", limit, strategy="rl")
    still = tried(state, "d", limit, strategy="rl")
    other = tried(state, "e", limit, strategy="mm")
    resumed = decide(state, terms(TWO, limits(limit), FLAT_MODEL, lifted(9)), order(strategy="rl"), NOW_US)

    assert (halted.action, halted.reason) == (Action.HALT, Reason.UNATTENDED_EXECUTIONS)
    assert check(halted, "unattended_executions").before == 2
    assert halted.latches[0].scope == Scope("ALPHA", strategy="rl")
    assert (still.action, still.reason) == (Action.HALT, Reason.REDUCE_ONLY)
    assert other.action is Action.ALLOW
    assert resumed.action is Action.ALLOW
    assert check(resumed, "unattended_executions").before == 0


def test_a_shadow_of_it_counts_on() -> None:
    state, limit = account(TWO, MARKS), row("unattended_executions", 0, action="halt", mode=LimitMode.SHADOW)
    reserve(state, "a", "AAA", 1)
    fill(state, "a", 1)

    halted = tried(state, "b", limit, row("order_rate", 0, action="halt"))

    assert halted.reason is Reason.ORDER_RATE and halted.latches
    assert state.tally("").executed == 1


def test_what_only_a_person_ends_takes_no_action_that_would_end_by_itself() -> None:
    table = {"measure": "unattended_executions", "scope": "strategy", "limit": 5.0, "action": "reject"}

    with pytest.raises(LimitError, match=r"limit\[0\]\.action: .*Resume"):
        check_rows(limit_set_from([table]), MEASURES)


# --- 20: refusals of the venue --------------------------------------------------------------------------------------


def rejected(state: AccountState, name: str, time_us: int = NOW_US) -> None:
    reserve(state, name, "AAA", 1)
    told(state, name, ExecutionKind.REJECTED, time_us)


def test_refusals_in_a_row_halt_within_their_window_and_the_account_can_be_resumed() -> None:
    state, limit = account(TWO, MARKS), row("venue_rejects", 2, action="halt", window_s=60.0)
    for name in ("a", "b", "c"):
        rejected(state, name)

    halted = tried(state, "d", limit)
    resumed = decide(state, terms(TWO, limits(limit), FLAT_MODEL, lifted(9)), order(), NOW_US)

    assert (halted.action, halted.reason) == (Action.HALT, Reason.VENUE_REJECTS)
    assert resumed.action is Action.ALLOW


@pytest.mark.parametrize("taken", [ExecutionKind.WORKING, ExecutionKind.FILL])
def test_an_order_that_the_venue_takes_ends_the_run(taken: str) -> None:
    state = account(TWO, MARKS)
    rejected(state, "a")
    reserve(state, "good", "AAA", 1)
    state.apply(report(state, "good", taken, 1 if taken == ExecutionKind.FILL else 0))
    rejected(state, "b")

    assert check(judged(order(), row("venue_rejects", 5), state=state), "venue_rejects").after == 1


def test_a_refusal_before_the_window_counts_no_more() -> None:
    state = account(TWO, MARKS)
    rejected(state, "a")

    later = judged(order(), row("venue_rejects", 0, window_s=1.0), state=state, now_us=NOW_US + SECOND_US)

    assert judged(order(), row("venue_rejects", 1), state=state).action is Action.ALLOW
    assert later.action is Action.ALLOW


# --- 21: self-match -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side_price", "resting", "meets"),
    [
        ({"limit_price": 99.99}, {"limit_price": 100.0}, False),
        ({"limit_price": 100.0}, {"limit_price": 100.0}, True),
        ({"limit_price": 100.01}, {"limit_price": 100.0}, True),
        ({}, {"limit_price": 150.0}, True),  # a market order reaches any price
        ({"limit_price": 1.0}, {}, True),  # so does a resting market order, and one whose price nobody told
        ({"stop_price": 110.0, "order_type": OrderType.STOP}, {"limit_price": 120.0}, True),
        ({"limit_price": 130.0}, {"stop_price": 90.0, "order_type": OrderType.STOP}, False),  # not in the book yet
    ],
)
def test_a_buy_meets_an_own_sell_at_its_price_or_above(
    side_price: dict[str, Any], resting: dict[str, Any], meets: bool
) -> None:
    state = account(TWO, MARKS)
    reserve(state, "resting", "AAA", -5, "mm", **resting)

    found = judged(order(strategy="rl", **side_price), row("self_match", 0), state=state)

    assert (found.action is Action.REJECT) is meets
    assert not meets or "resting" in found.message


def test_a_sell_meets_an_own_bid_at_its_price_or_below_and_only_in_its_symbol() -> None:
    state = account(TWO, MARKS)
    reserve(state, "bid", "AAA", 5, limit_price=100.0)
    limit = row("self_match", 0)

    assert judged(sell(limit_price=100.0), limit, state=state).reason is Reason.SELF_MATCH
    assert judged(sell(limit_price=100.01), limit, state=state).action is Action.ALLOW
    assert judged(sell("BBB", limit_price=49.0), limit, state=state).action is Action.ALLOW
    assert judged(order(limit_price=100.0), limit, state=state).action is Action.ALLOW


def test_an_order_that_the_venue_is_done_with_is_met_by_none() -> None:
    state = account(TWO, MARKS)
    reserve(state, "gone", "AAA", -5, limit_price=100.0)
    state.apply(report(state, "gone", ExecutionKind.CANCELLED, cumulative_lots=2))  # two fills are still to be told

    assert judged(order(limit_price=100.0), row("self_match", 0), state=state).action is Action.ALLOW


# --- 34: losing streaks ---------------------------------------------------------------------------------------------


def traded(state: AccountState, name: str, price: float, symbol: str = "AAA", strategy: str = "") -> None:
    """In at 100 and out at `price`, in two parts each."""
    for side, lots, at in (("in", 4, 100.0), ("out", -4, price)):
        reserve(state, f"{name}-{side}", symbol, lots, strategy)
        fill(state, f"{name}-{side}", 2, at)
        fill(state, f"{name}-{side}", 2, at)


def streak(state: AccountState, now_us: int = NOW_US, limit: float = 3.0) -> float | None:
    rows = row("loss_streak", limit, window_s=60.0), row("mark_age", 1e6)
    return check(judged(order(), *rows, state=state, now_us=now_us), "loss_streak").after


def test_a_trade_counts_when_it_is_closed_and_not_by_its_parts() -> None:
    state = account(TWO, MARKS)
    reserve(state, "in", "AAA", 4)
    fill(state, "in", 4, 100.0)
    reserve(state, "out", "AAA", -4)
    fill(state, "out", 3, 90.0)
    assert streak(state) == 0

    fill(state, "out", 1, 125.0)  # −30 + 25: lost
    assert streak(state) == 1
    assert judged(order(), row("loss_streak", 1), state=state).action is Action.ALLOW
    assert judged(order(), row("loss_streak", 0), state=state).action is Action.REJECT


def test_a_trade_that_goes_through_zero_is_closed() -> None:
    state = account(TWO, MARKS)
    reserve(state, "in", "AAA", 4)
    fill(state, "in", 4, 100.0)
    reserve(state, "turn", "AAA", -10)
    fill(state, "turn", 10, 99.0)
    reserve(state, "cover", "AAA", 6)
    fill(state, "cover", 6, 98.0)  # the short gained what is not the long's

    assert [one.lost for one in state.tally("").closed] == [True, False]


def test_a_gain_ends_the_streak() -> None:
    state = account(TWO, MARKS)
    for at, price in enumerate((99.0, 99.0, 101.0, 99.0)):
        traded(state, str(at), price)

    assert streak(state) == 1


def test_the_lock_lasts_as_long_as_the_window_and_a_gain_while_it_does_neither_ends_nor_renews_it() -> None:
    """Freqtrade #7170: a winning close locks again, on the losses before it."""
    second = SECOND_US
    losses = [Closed(at * second, True) for at in (0, 10, 20, 30)]  # the fourth of at most three locks until 90
    won = [*losses, Closed(40 * second, False), Closed(80 * second, True)]

    def at(moment_s: int, closed: Sequence[Closed] = won) -> int:
        return losing_streak(closed, 3, 60 * second, moment_s * second)

    assert [at(31), at(41), at(89)] == [4, 4, 4]
    assert [at(90), at(91)] == [0, 0]
    assert losing_streak([*won, Closed(95 * second, True)], 3, 60 * second, 95 * second) == 1


def test_losses_long_apart_are_no_streak() -> None:
    spread = [Closed(at * 61 * SECOND_US, True) for at in range(10)]

    assert losing_streak(spread, 3, 60 * SECOND_US, 9 * 61 * SECOND_US) == 1


def test_a_gain_that_is_no_number_counts_as_a_loss() -> None:
    state = account(TWO, MARKS)
    traded(state, "x", math.nan)

    assert streak(state) == 1


closes = st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=12)


@settings(max_examples=200, deadline=None)
@given(closes, st.integers(0, 3), st.integers(1, 60), st.integers(0, 60))
def test_a_streak_is_over_its_limit_only_while_a_loss_locks(
    steps: list[tuple[int, bool]], most: int, window: int, later: int
) -> None:
    now, closed = 0, []
    for step, lost in steps:
        now += step
        closed.append(Closed(now, lost))

    over = losing_streak(closed, most, window, now + later) > most
    recent = any(one.lost and one.time_us > now + later - window for one in closed)

    assert not over or (recent and sum(one.lost for one in closed) > most)


def test_the_streak_of_a_strategy_is_its_own() -> None:
    state = account(TWO, MARKS)
    traded(state, "a", 90.0, strategy="rl")
    limit = row("loss_streak", 0, "strategy")

    assert judged(order(strategy="rl"), limit, state=state).reason is Reason.LOSS_STREAK
    assert judged(order(strategy="mm"), limit, state=state).action is Action.ALLOW


# --- of all of them -------------------------------------------------------------------------------------------------


class Recording(AccountState):
    """An account as `account` opens it, and the records that it folded since."""

    def __init__(self) -> None:
        super().__init__("ALPHA")
        self.__dict__.update(account(TWO, MARKS).__dict__)
        self.log: list[AnyRecord] = []

    def apply(self, record: AnyRecord) -> None:
        self.log.append(record)
        super().apply(record)


def test_the_counts_survive_a_restart_because_they_are_a_fold_of_the_log() -> None:
    live, again = Recording(), account(TWO, MARKS)
    traded(live, "x", 90.0)
    rejected(live, "r")
    reserve(live, "c", "AAA", 1, trader_id="jane")
    told(live, "c", ExecutionKind.CANCEL_REQUESTED)
    for record in live.log:
        again.apply(decode(encode(record)))

    def counts(state: AccountState) -> list[object]:
        return [
            (key, t.orders, t.cancels, t.trades, t.executed, t.rejects, t.closed)
            for key, t in sorted(state.tallies.items())
        ]

    assert counts(again) == counts(live)
    assert again.tally("").cancels == 1 and again.tally("").rejects


def test_a_fork_that_is_dropped_leaves_the_counts_as_they_were() -> None:
    state = account(TWO, MARKS)
    for at in range(3):
        trial = state.fork()
        reserve(trial, f"t{at}", "AAA", 1)
        told(trial, f"t{at}", ExecutionKind.CANCEL_REQUESTED)
    reserve(state, "real", "AAA", 1)
    told(state, "real", ExecutionKind.CANCEL_REQUESTED)

    assert (state.tally("").orders, state.tally("").cancels) == (1, 1)
    assert cancels(state) == 1


def test_names_without_end_are_counted_together_once_there_are_too_many() -> None:
    state, limit = account(TWO, MARKS), row("session_orders", 1, "strategy")
    for at in range(TALLIES_MAX):
        state.apply(approval(order(client_order_id=f"o{at}", strategy=f"s{at}"), 0))

    assert len(state.tallies) <= TALLIES_MAX + 1
    assert judged(order(strategy="never seen"), limit, state=state).reason is Reason.SESSION_ORDERS


def test_a_halt_among_too_many_names_starts_anew_what_they_share() -> None:
    state, halting = account(TWO, MARKS), row("unattended_executions", 0, "strategy", action="halt")
    for at in range(TALLIES_MAX):
        state.apply(approval(order(client_order_id=f"o{at}", strategy=f"s{at}"), 0))
    reserve(state, "one", "AAA", 2, "late")
    told(state, "one", ExecutionKind.CANCEL_REQUESTED)
    fill(state, "one", 1)
    state.apply(judged(order(strategy="late"), halting, state=state))
    for name, strategy in (("two", "later"), ("three", "latest")):
        reserve(state, name, "AAA", 1, strategy)
        told(state, name, ExecutionKind.CANCEL_REQUESTED)

    shared = state.tally("latest")
    assert shared is state.tally("late")
    assert (shared.executed, shared.cancels) == (0, 3)


def test_runs_are_kept_to_their_latest() -> None:
    state = account(TWO, MARKS)
    for at in range(RUN_MAX + 5):
        rejected(state, f"r{at}", NOW_US + at)

    assert len(state.tally("").rejects) == RUN_MAX
    assert state.tally("").rejects[-1] == NOW_US + RUN_MAX + 4


def test_a_halt_lets_cancels_and_exits_through() -> None:
    state, limit = account(TWO, MARKS, positions={"AAA": 10}), row("venue_rejects", 0, action="halt")
    rejected(state, "r")
    halted = tried(state, "h", limit)

    exit_ = decide(state, terms(TWO, limits(limit), FLAT_MODEL), sell(quantity=10), NOW_US)

    assert halted.latches[0].state is TradingState.REDUCE_ONLY
    assert exit_.action is Action.ALLOW


def test_the_report_tells_each_count_of_each_that_a_row_reaches() -> None:
    state = account(TWO, MARKS)
    traded(state, "x", 90.0, strategy="rl")
    rejected(state, "r")
    reserve(state, "c", "BBB", 1, trader_id="jane")
    told(state, "c", ExecutionKind.CANCEL_REQUESTED)
    reserve(state, "c2", "BBB", 2, trader_id="jane", replaces_client_order_id="c")
    armed = terms(
        TWO,
        limits(
            row("cancel_rate", 9, "trader"),
            row("session_orders", 9, "symbol", match="BBB"),
            row("session_orders", 9, "strategy"),
            row("session_trades", 9),
            row("order_to_trade", 9),
            row("unattended_executions", 9, "strategy", "halt", match="rl"),
            row("venue_rejects", 9),
            row("loss_streak", 9, "strategy"),
        ),
    )

    found = {(use.measure, use.scope): use.value for use in limit_uses(state, armed, NOW_US)}

    counted = {key: value for key, value in found.items() if key[0] in ALL_COUNTS}
    assert counted == {
        ("cancel_rate", "trader:jane"): 1,
        ("session_orders", "symbol:BBB"): 2,
        ("session_orders", "strategy:rl"): 2,
        ("session_orders", "strategy:(none)"): 3,
        ("session_trades", "account:ALPHA"): 4,
        ("order_to_trade", "account:ALPHA"): 6 / 4,
        ("unattended_executions", "strategy:rl"): 2,
        ("venue_rejects", "account:ALPHA"): 1,
        ("loss_streak", "strategy:rl"): 1,
        ("loss_streak", "strategy:(none)"): 0,
    }


ALL_COUNTS = {*RATES, "order_to_trade", "unattended_executions"} - {"order_rate"}
