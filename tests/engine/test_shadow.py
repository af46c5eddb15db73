"""Limits in shadow: whatever they say, the order gets the decision it would have got without them; they are counted."""

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import decide
from engine.limits import Limit, LimitAction, LimitMode, LimitSet
from engine.order import Action, Reason, Side
from engine.records import Decided
from tests.engine.builders import GUARDS, NOW_US, account, limits, order, reserve, row, stock, terms, universe

ONE = universe(stock("AAA"))
MARKS = {"AAA": 100.0}
KINDS = [("position", "symbol"), ("order_quantity", "symbol"), ("gross_exposure", "account"), ("order_rate", "account")]


def shadow(measure: str, limit: float, scope: str, action: str = "reject") -> Limit:
    return row(measure, limit, scope, action, mode=LimitMode.SHADOW)


def holding(lots: int) -> AccountState:
    state = account(ONE, MARKS)
    if lots:
        reserve(state, "held", "AAA", lots)
    return state


def judged(state: AccountState, quantity: float, armed: LimitSet, side: Side = Side.BUY) -> Decided:
    return decide(state, terms(ONE, armed), order("AAA", side, quantity), NOW_US)


limited = st.tuples(st.sampled_from(KINDS), st.sampled_from([0.0, 5.0, 50.0, 2_000.0]), st.sampled_from(LimitAction))


def rows(drawn: list[tuple[tuple[str, str], float, LimitAction]], mode: LimitMode) -> list[Limit]:
    usable = [one for one in drawn if one[0][0] != "order_rate" or one[2] is not LimitAction.REDUCE]
    return [row(kind[0], limit, kind[1], action.value, mode=mode) for kind, limit, action in usable]


@given(st.lists(limited, max_size=3), st.lists(limited, max_size=3), st.integers(1, 80), st.sampled_from([0, 40]))
def test_a_shadow_changes_no_decision(
    acting: list[tuple[tuple[str, str], float, LimitAction]],
    shadows: list[tuple[tuple[str, str], float, LimitAction]],
    quantity: int,
    held: int,
) -> None:
    enforced = rows(acting, LimitMode.ENFORCED)
    alone = judged(holding(held), quantity, limits(*GUARDS, *enforced))
    beside = judged(holding(held), quantity, limits(*GUARDS, *enforced, *rows(shadows, LimitMode.SHADOW)))

    told = tuple(check for check in beside.checks if not check.shadow)
    as_alone = msgspec.structs.replace(beside, checks=told, limit_set=alone.limit_set)
    assert as_alone == alone
    assert len(beside.checks) - len(told) == len(rows(shadows, LimitMode.SHADOW))


ACTIONS = [("warn", Action.WARN), ("reduce", Action.REDUCE), ("reject", Action.REJECT), ("halt", Action.HALT)]


@pytest.mark.parametrize(("action", "listed"), ACTIONS)
def test_a_shadow_lists_what_it_would_have_done(action: str, listed: Action) -> None:
    decided = judged(holding(0), 20, limits(*GUARDS, shadow("position", 10.0, "symbol", action)))

    (check,) = [check for check in decided.checks if check.shadow]
    assert (decided.action, decided.allowed_lots, decided.latches) == (Action.ALLOW, 20, ())
    assert (check.action, check.reason, check.after) == (listed, Reason.POSITION, 20.0)


def test_limits_in_shadow_let_nothing_trade() -> None:
    guards = [shadow(one.measure, one.limit, one.scope.value) for one in GUARDS]

    assert judged(holding(0), 1, LimitSet(tuple(guards))).reason is Reason.LIMIT_MISSING


def test_what_a_shadow_would_have_done_is_counted_by_measure_and_action() -> None:
    state = holding(0)
    shadows = shadow("position", 10.0, "symbol"), shadow("order_quantity", 15.0, "symbol", "reduce")
    armed = limits(*GUARDS, *shadows, row("position", 1.0, "symbol", "warn"))

    for at, quantity in enumerate((5, 12, 20)):
        asked = order("AAA", Side.BUY, quantity, client_order_id=f"o{at}")
        state.apply(decide(state, terms(ONE, armed), asked, NOW_US))

    assert state.shadow_by_action == {("position", Action.REJECT): 2, ("order_quantity", Action.REDUCE): 1}


def test_a_fork_that_is_dropped_counts_nothing() -> None:
    state = holding(0)
    decided = judged(state, 20, limits(*GUARDS, shadow("position", 10.0, "symbol")))

    fork = state.fork()
    fork.apply(decided)

    assert (state.shadow_by_action, len(fork.shadow_by_action)) == ({}, 1)


@given(st.lists(limited, max_size=3), st.lists(limited, max_size=3), st.integers(1, 80), st.sampled_from([0, 40]))
def test_a_whole_set_in_shadow_changes_no_decision_and_is_listed(
    acting: list[tuple[tuple[str, str], float, LimitAction]],
    next_rows: list[tuple[tuple[str, str], float, LimitAction]],
    quantity: int,
    held: int,
) -> None:
    armed = limits(*GUARDS, *rows(acting, LimitMode.ENFORCED))
    next_set = LimitSet(tuple(rows(next_rows, LimitMode.ENFORCED)))
    under = dataclasses.replace(terms(ONE, armed), shadow=next_set)
    alone = judged(holding(held), quantity, armed)
    state = holding(held)
    beside = decide(state, under, order("AAA", Side.BUY, quantity), NOW_US)

    told = tuple(check for check in beside.checks if not check.shadow)
    assert msgspec.structs.replace(beside, checks=told, shadow_set="") == alone
    assert beside.shadow_set == next_set.hash
    assert len(beside.checks) - len(told) == len(next_set.rows_for(state.account))


def test_a_set_in_shadow_that_is_replaced_is_no_longer_listed() -> None:
    state, armed = holding(0), limits(*GUARDS)
    asked = order("AAA", Side.BUY, 1)

    for bound in (10.0, 20.0):
        next_set = LimitSet((row("position", bound, "symbol"),))
        decided = decide(state, dataclasses.replace(terms(ONE, armed), shadow=next_set), asked, NOW_US)
        assert [check.limit for check in decided.checks if check.shadow and check.measure == "position"] == [bound]

    assert not any(check.shadow for check in decide(state, terms(ONE, armed), asked, NOW_US).checks)
