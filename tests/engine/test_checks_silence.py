"""The dead man's switch (CHECKS 42): who falls silent while orders work is halted, and they are to be cancelled."""

import msgspec

from engine.account import AccountState
from engine.control import Control, Resumed, Scope, TradingState
from engine.decide import Terms
from engine.instructions import due
from engine.limits import HaltState
from engine.order import Action, Reason
from engine.records import AnyRecord, ExecutionKind, Heartbeat, Instructed, Latched
from engine.silence import heartbeat, watched
from tests.engine.builders import ACCOUNT, NOW_US, account, approval, limits, order, report, reserve, row, sell, terms
from tests.engine.judging import FLAT_MODEL, MARKS, SECOND_US, TWO, judged

LIMIT = row("agent_silence", 10, "strategy", "halt", halt_state=HaltState.HALTED)
FRESH = row("mark_age", 1e6)


def under(control: Control | None = None) -> Terms:
    return terms(TWO, limits(LIMIT, FRESH), FLAT_MODEL, control)


def working(strategy: str = "rl") -> AccountState:
    state = account(TWO, MARKS)
    reserve(state, "works", "AAA", 5, strategy)
    return state


def after(seconds: float) -> int:
    return NOW_US + int(seconds * SECOND_US)


def judge(state: AccountState, seconds: float, control: Control | None = None) -> list[AnyRecord]:
    """What the worker does, once."""
    made = due(state, under(control), after(seconds))
    for record in made:
        state.apply(record)
    return made


def test_silence_halts_the_strategy_and_then_its_orders_are_asked_to_be_cancelled() -> None:
    state = working()

    assert judge(state, 10) == []
    (latched,) = judge(state, 10.001)
    (cancel,) = judge(state, 11)

    assert isinstance(latched, Latched) and isinstance(cancel, Instructed)
    assert (latched.latch.scope, latched.latch.state) == (Scope(ACCOUNT, "rl"), TradingState.HALTED)
    assert "rl" in latched.latch.cause
    assert cancel.client_order_id == "works"
    assert judge(state, 12) == []


def test_a_heartbeat_or_an_order_is_a_sign_of_life_and_a_report_is_none() -> None:
    state = working()
    for record in heartbeat(state, "rl", after(8), 0):
        state.apply(record)
    assert state.heard_us("rl") == after(8)

    working_now = report(state, "works", ExecutionKind.WORKING)
    state.apply(msgspec.structs.replace(working_now, time_us=after(15)))
    assert judge(state, 18) == []
    assert judge(state, 18.001)

    fresh = working()
    refused = judged(order(strategy="rl", client_order_id="r", quantity=0.5), state=fresh, now_us=after(9))
    fresh.apply(refused)
    assert not refused.action.allows
    assert judge(fresh, 19) == []


def test_who_has_nothing_at_the_venue_may_be_silent_and_leaves_no_records() -> None:
    state = working()
    state.apply(report(state, "works", ExecutionKind.CANCELLED))

    assert judge(state, 3600) == []
    assert heartbeat(state, "rl", after(3600), 0) == []


def test_heartbeats_close_to_one_another_are_recorded_once() -> None:
    state = working()

    assert heartbeat(state, "rl", after(0.999), 0) == []
    (record,) = heartbeat(state, "rl", after(1), 3)
    assert record == Heartbeat(time_us=after(1), epoch=3, strategy="rl")


def test_one_strategys_life_is_no_other_ones() -> None:
    state = working()
    reserve(state, "other", "BBB", 1, "mm")
    state.apply(Heartbeat(time_us=after(9), strategy="mm"))
    state.apply(approval(order("BBB", client_order_id="later", strategy="mm"), 1, after(9)))

    (latched,) = judge(state, 11)

    assert isinstance(latched, Latched) and latched.latch.scope == Scope(ACCOUNT, "rl")


def test_who_comes_back_late_before_the_worker_has_looked_opens_nothing() -> None:
    state = working()
    armed = limits(LIMIT, FRESH)

    late = judged(order(strategy="rl", client_order_id="late"), state=state, armed=armed, now_us=after(11))
    state.apply(late)
    next_ = judged(order(strategy="rl", client_order_id="next"), state=state, armed=armed, now_us=after(11))

    assert (late.action, late.reason) == (Action.HALT, Reason.AGENT_SILENCE)
    assert late.latches[0].scope == Scope(ACCOUNT, "rl")
    assert next_.reason is Reason.TRADING_HALTED


def test_silence_traps_no_exit_before_it_is_latched() -> None:
    state = account(TWO, MARKS, strategies={("rl", "AAA"): 5})
    reserve(state, "works", "BBB", 5, "rl")

    exit_ = judged(sell(quantity=5, strategy="rl"), state=state, armed=limits(LIMIT, FRESH), now_us=after(60))

    assert exit_.action is Action.ALLOW


def test_after_a_resume_whoever_is_still_silent_is_halted_again() -> None:
    state = working()
    judge(state, 11)
    resumed = Control(epoch=5, resumes=(Resumed(Scope(), 5, NOW_US, "ops", "ok"),))

    (again,) = judge(state, 12, resumed)
    assert isinstance(again, Latched) and again.latch.epoch == 5

    alive = working()
    judge(alive, 11)
    alive.apply(Heartbeat(time_us=after(11.5), strategy="rl"))
    assert judge(alive, 12, resumed) == []


def test_orders_of_no_strategy_can_only_be_stopped_with_their_account() -> None:
    (latched,) = judge(working(""), 11)

    assert isinstance(latched, Latched) and latched.latch.scope == Scope(ACCOUNT)


def test_a_strategy_called_as_the_nameless_one_is_labelled_shields_it_not() -> None:
    state = working("")
    reserve(state, "other", "AAA", 5, "(none)")

    made = judge(state, 10.001)

    assert Scope(ACCOUNT) in [one.latch.scope for one in made if isinstance(one, Latched)]


def test_without_such_a_limit_nothing_is_watched() -> None:
    state, plain = working(), terms(TWO, limits(FRESH), FLAT_MODEL)

    assert not watched(plain, ACCOUNT) and watched(under(), ACCOUNT)
    assert due(state, plain, after(3600)) == []
