"""Who stands behind an order as a scope of limits and of stops: algorithm, trader, desk, client and venue."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control import Control, Scope, Sender, Stop, TradingState, decode_control, resumed, stopped
from engine.control import Resumed as Resume
from engine.decide import decide, superseded
from engine.instructions import due
from engine.limits import LimitError, check_rows, limit_set_from
from engine.measures import MEASURES
from engine.order import Action, Order, Reason
from engine.records import Instructed
from tests.engine.builders import ACCOUNT, NOW_US, account, limits, order, reserve, row, sell, terms
from tests.engine.judging import FLAT_MODEL, MARKS, TWO, check, judged

KINDS = {"algo": "algo_id", "trader": "trader_id", "desk": "desk_id", "client": "client_id", "venue": "venue"}


def halted(scope: Scope, state: TradingState = TradingState.HALTED) -> Control:
    return Control(epoch=1, stops=(Stop(scope, state, 1, NOW_US, "ops", "drill"),))


def of(field: str, name: str, symbol: str = "AAA") -> Order:
    named: dict[str, Any] = {field: name}
    return order(symbol, **named)


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "field"), KINDS.items())
def test_a_rate_is_counted_by_whoever_stands_behind_the_order(kind: str, field: str) -> None:
    state, limit = account(TWO, MARKS), row("order_rate", 1, kind)
    reserve(state, "one", "AAA", 1, **{field: "jane"})

    again = judged(of(field, "jane", "BBB"), limit, state=state)
    other = judged(of(field, "joe", "BBB"), limit, state=state)
    nobody = judged(order("BBB"), limit, state=state)

    assert (again.reason, check(again, "order_rate").scope) == (Reason.ORDER_RATE, f"{kind}:jane")
    assert other.action is Action.ALLOW and check(other, "order_rate").after == 1
    assert nobody.action is Action.ALLOW and not [one for one in nobody.checks if one.measure == "order_rate"]


def test_a_row_of_one_trader_leaves_the_others_alone_and_is_not_kept_for_the_next_order() -> None:
    armed = limits(row("order_quantity", 5, "trader", match="jane"), row("order_quantity", 9, "symbol"))
    state = account(TWO, MARKS)

    found = [judged(order(quantity=6, trader_id=name), armed=armed, state=state) for name in ("jane", "joe", "jane")]

    assert [one.reason for one in found] == [Reason.ORDER_QUANTITY, Reason.NONE, Reason.ORDER_QUANTITY]


@pytest.mark.parametrize("measure", ["open_orders", "session_orders", "session_trades", "order_value", "cancel_rate"])
def test_what_is_counted_order_by_order_has_traders(measure: str) -> None:
    check_rows(limit_set_from([{"measure": measure, "scope": "trader", "limit": 5.0}]), MEASURES)


def test_open_orders_of_a_desk_are_its_own() -> None:
    state, limit = account(TWO, MARKS), row("open_orders", 1, "desk")
    reserve(state, "theirs", "AAA", 1, desk_id="rates")
    reserve(state, "unsaid", "AAA", 1)

    assert judged(order(desk_id="rates"), limit, state=state).reason is Reason.OPEN_ORDERS
    assert check(judged(order(desk_id="fx"), limit, state=state), "open_orders").after == 1


@pytest.mark.parametrize("measure", ["position", "gross_exposure", "var_95", "traded_value", "open_positions"])
def test_what_needs_positions_says_that_none_are_kept_by_trader(measure: str) -> None:
    with pytest.raises(LimitError, match=r"limit\[0\]\.scope: .*positions are not kept by trader"):
        check_rows(limit_set_from([{"measure": measure, "scope": "trader", "limit": 5.0}]), MEASURES)


@pytest.mark.parametrize("kind", ["client", "venue"])
def test_no_halt_has_a_scope_that_no_stop_has(kind: str) -> None:
    with pytest.raises(LimitError, match=r"limit\[0\]\.action: no stop has scope"):
        check_rows(limit_set_from([{"measure": "order_rate", "scope": kind, "limit": 5.0, "action": "halt"}]), MEASURES)


def test_a_halt_latches_its_trader_and_nobody_else() -> None:
    state, limit = account(TWO, MARKS), row("order_rate", 0, "trader", "halt")
    asked = order(trader_id="jane", client_order_id="first")
    record = decide(state, terms(TWO, limits(limit), FLAT_MODEL), asked, NOW_US)
    state.apply(record)

    assert record.latches[0].scope == Scope(ACCOUNT, trader="jane")
    assert judged(order(trader_id="jane"), state=state).reason is Reason.REDUCE_ONLY
    assert judged(order(trader_id="joe"), state=state).action is Action.ALLOW


def test_an_order_that_names_nobody_is_refused_where_names_are_required_exits_too() -> None:
    armed = limits(identities_required=("trader", "desk"))
    state = account(TWO, MARKS, positions={"AAA": 5})

    half = judged(order(trader_id="jane"), armed=armed, state=state)
    exit_ = judged(sell(quantity=5), armed=armed, state=state)
    whole = judged(order(trader_id="jane", desk_id="rates"), armed=armed, state=state)

    assert (half.reason, "desk" in half.message, "trader" in half.message) == (Reason.IDENTITY_MISSING, True, False)
    assert exit_.reason is Reason.IDENTITY_MISSING
    assert whole.action is Action.ALLOW


# --- stops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["algo", "trader", "desk"])
def test_a_stop_reaches_the_orders_of_its_trader_alone(kind: str) -> None:
    control = halted(Scope(**{kind: "jane"}))

    assert judged(of(KINDS[kind], "jane"), control=control).reason is Reason.TRADING_HALTED
    assert judged(of(KINDS[kind], "joe"), control=control).action is Action.ALLOW
    assert judged(order(), control=control).action is Action.ALLOW


def test_a_stop_of_a_trader_asks_to_cancel_what_works_of_that_trader() -> None:
    state = account(TWO, MARKS)
    reserve(state, "hers", "AAA", 1, trader_id="jane")
    reserve(state, "his", "AAA", 1, trader_id="joe")

    made = due(state, terms(TWO, limits(), FLAT_MODEL, halted(Scope(trader="jane"))), NOW_US)

    assert [one.client_order_id for one in made if isinstance(one, Instructed)] == ["hers"]


def test_a_stop_of_a_trader_supersedes_what_was_approved_before_it_and_stays_so() -> None:
    state, control = account(TWO, MARKS), halted(Scope(trader="jane"))
    hers, his = order(trader_id="jane"), order(trader_id="joe")
    after, _, _ = resumed(control, Resume(Scope(trader="jane"), 2, NOW_US, "ops", "ok"))

    assert superseded(state, control, hers, 1, 0) and superseded(state, after, hers, 1, 0)
    assert not superseded(state, control, his, 1, 0)


def test_in_reduce_only_a_trader_may_reduce_the_account() -> None:
    state = account(TWO, MARKS, positions={"AAA": 5})
    control = halted(Scope(trader="jane"), TradingState.REDUCE_ONLY)

    assert judged(sell(quantity=5, trader_id="jane"), state=state, control=control).action is Action.ALLOW
    assert judged(order(trader_id="jane"), state=state, control=control).reason is Reason.REDUCE_ONLY


def test_a_control_state_written_before_there_were_traders_is_read_as_it_was_meant() -> None:
    told = b'{"epoch":3,"stops":[{"scope":{"account":"A"},"state":4,"epoch":3,"time_us":1,"actor":"ops"}]}'

    assert decode_control(told).stops[0].scope == Scope("A")


NAMES = st.sampled_from(["", "x", "y"])
SCOPES = st.builds(Scope, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES)


def subjects() -> list[tuple[str, str, str, Sender]]:
    """Every order that there can be of two names for each part, and of none."""
    parts = itertools.product(("", "x", "y"), repeat=6)
    return [(account, strategy, symbol, Sender(*rest)) for account, strategy, symbol, *rest in parts]


SUBJECTS = subjects()


@settings(max_examples=300, deadline=None)
@given(SCOPES, SCOPES)
def test_a_scope_covers_another_if_and_only_if_it_reaches_all_that_the_other_reaches(one: Scope, other: Scope) -> None:
    reached = all(one.reaches(*subject) for subject in SUBJECTS if other.reaches(*subject))

    assert one.covers(other) is reached


@settings(max_examples=200, deadline=None)
@given(SCOPES, st.lists(SCOPES, max_size=6))
def test_only_a_resume_that_covers_a_stop_lifts_it(scope: Scope, resumes: list[Scope]) -> None:
    control = stopped(Control(), Stop(scope, TradingState.HALTED, 1, NOW_US, "ops"))
    for epoch, one in enumerate(resumes, 2):
        control, _, _ = resumed(control, Resume(one, epoch, NOW_US, "ops", "ok"))

    subject = (scope.account or "x", scope.strategy or "x", scope.symbol or "x", scope.sender)
    lifted = any(one.covers(scope) for one in resumes)
    assert (control.state_at(*subject) is TradingState.HALTED) is not lifted
