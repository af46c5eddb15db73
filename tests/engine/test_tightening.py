"""A tightening scales a bound for one account: at order time, in the report, and for what is working already.

10,000 in cash, AAA at 100 and BBB at 50; leverage stands for any measure, since which are named is the record's.
"""

import math

import pytest

from engine.account import AccountState
from engine.decide import decide
from engine.misfits import misfits
from engine.order import Action, Reason
from engine.records import AnyRecord, SessionOpened, Tightened
from engine.report import decode_report, encode_report, risk_report
from engine.tightening import factor_on, tightened
from engine.utilisation import limit_uses
from tests.engine.builders import NOW_US, account, limits, order, reserve, row, stock, terms, universe

TWO = universe(stock("AAA"), stock("BBB"))
MARKS = {"AAA": 100.0, "BBB": 50.0}
UNDER = terms(TWO, limits(row("leverage", 2.0, warn=1.5)))


def flat() -> AccountState:
    return account(TWO, MARKS, cash=10_000.0)


def tighten(
    state: AccountState, factor: float, name: str = "t", measures: tuple[str, ...] = ("leverage",), until: str = ""
) -> None:
    for record in tightened(state, name, measures, factor, "why", NOW_US, 0, until):
        state.apply(record)


def decided(state: AccountState, quantity: float) -> tuple[Action, Reason, float, float | None]:
    record = decide(state, UNDER, order("AAA", quantity=quantity), NOW_US)
    (check,) = [one for one in record.checks if one.measure == "leverage"]
    return record.action, record.reason, check.limit, check.warn


def test_a_bound_and_its_warning_level_shrink_by_the_factor() -> None:
    state = flat()
    assert decided(state, 140)[0] is Action.ALLOW

    tighten(state, 0.6)

    action, reason, bound, warn = decided(state, 110)
    assert (action, reason) == (Action.WARN, Reason.LEVERAGE)
    assert [bound, warn] == pytest.approx([1.2, 0.9])
    assert decided(state, 140)[:2] == (Action.REJECT, Reason.LEVERAGE)


def test_other_measures_keep_their_bounds() -> None:
    state = flat()
    tighten(state, 0.1, measures=("var_99",))

    assert decided(state, 140) == (Action.ALLOW, Reason.NONE, 2.0, 1.5)


def test_the_least_factor_counts_and_lifting_one_leaves_the_other() -> None:
    state = flat()
    tighten(state, 0.9, "a")
    tighten(state, 0.5, "b")
    assert (factor_on(state.tightenings, "leverage"), decided(state, 10)[2]) == (0.5, 1.0)

    tighten(state, 1.0, "b")
    assert [factor_on(state.tightenings, "leverage"), decided(state, 10)[2]] == pytest.approx([0.9, 1.8])

    tighten(state, 1.0, "a")
    assert (state.tightenings, decided(state, 10)[2]) == ((), 2.0)


def test_one_of_the_same_id_takes_the_others_place() -> None:
    state = flat()
    tighten(state, 0.5)
    tighten(state, 0.8)

    assert [one.factor for one in state.tightenings] == [0.8]


def test_what_changes_nothing_is_no_record() -> None:
    state = flat()
    assert tightened(state, "t", ("leverage",), 1.0, "why", NOW_US, 0) == []

    tighten(state, 0.5)
    assert tightened(state, "t", ("leverage",), 0.5, "another reason", NOW_US, 0) == []
    assert len(tightened(state, "t", ("leverage", "var_99"), 0.5, "why", NOW_US, 0)) == 1


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.1, math.nan, math.inf])
def test_nothing_loosens_a_limit(factor: float) -> None:
    with pytest.raises(ValueError, match="factor: expected a number above 0, at most 1"):
        tightened(flat(), "t", ("leverage",), factor, "why", NOW_US, 0)


def test_one_with_an_end_holds_through_that_session() -> None:
    state = flat()
    tighten(state, 0.5, until="2023-11-15")
    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))
    assert decided(state, 10)[2] == 1.0

    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-16"))
    assert decided(state, 10)[2] == 2.0


def test_the_report_shows_the_bound_in_force_and_why() -> None:
    state = flat()
    tighten(state, 0.5)

    report = decode_report(encode_report(risk_report(state, UNDER, NOW_US)))

    (use,) = [one for one in report.limits if one.measure == "leverage"]
    assert (use.limit, use.warn) == (1.0, 0.75)
    assert [(one.tightening_id, one.factor, one.reason) for one in report.tightenings] == [("t", 0.5, "why")]


def test_working_orders_that_no_longer_fit_are_found() -> None:
    state = flat()
    for name, lots in (("first", 90), ("second", 50)):
        reserve(state, name, "AAA", lots)
    assert misfits(state, UNDER, NOW_US, ()) == []

    tighten(state, 0.5)

    assert [one.order.client_order_id for one in misfits(state, UNDER, NOW_US, ())] == ["second"]
    assert [one.limit for one in limit_uses(state, UNDER, NOW_US) if one.measure == "leverage"] == [1.0]


def test_a_fork_that_is_dropped_tightens_nothing() -> None:
    """Which limits reach an order is remembered by all forks together: a trial's must not stay."""
    state = flat()
    trial = state.fork()
    record: AnyRecord = Tightened(time_us=NOW_US, tightening_id="t", measures=("leverage",), factor=0.5, reason="trial")
    trial.apply(record)

    assert decided(trial, 10)[2] == 1.0
    assert decided(state, 10)[2] == 2.0
