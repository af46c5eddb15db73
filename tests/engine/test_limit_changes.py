"""What one limit set changes in another: which rows belong together, and whether somebody may do more than before."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.limit_changes import LimitChange, changes, in_words, normal
from engine.limits import (
    EVERY,
    Limit,
    LimitAction,
    LimitMode,
    LimitSet,
    Policy,
    ScopeKind,
    Unit,
    check_rows,
    faults_of,
    share_of,
)
from engine.measures import MEASURES
from engine.order import OrderType
from tests.engine.builders import row

BASE = row("position", 100.0, "symbol")


def changed(before: LimitSet | list[Limit], after: LimitSet | list[Limit]) -> tuple[LimitChange, ...]:
    sets = [one if isinstance(one, LimitSet) else LimitSet(tuple(one)) for one in (before, after)]
    return changes(sets[0], sets[1], MEASURES).rows


def test_sets_that_say_the_same_in_other_words_do_not_differ() -> None:
    said = row("position", 100.0, "symbol", unit=Unit.QUANTITY, window_s=7.0)
    implied = row("mark_age", 5.0)

    assert not changes(LimitSet((BASE,)), LimitSet((said, implied)), MEASURES)


def test_a_row_is_paired_with_what_it_was_and_its_fields_are_told() -> None:
    (change,) = changed(
        [BASE, row("leverage", 2.0)], [row("leverage", 2.0), row("position", 1200.0, "symbol", warn=9.0)]
    )

    assert change.previous is not None and change.previous.limit == 100.0
    assert [(field.field, field.before, field.after) for field in change.fields] == [
        ("limit", "100", "1,200"),
        ("warn", "none", "9"),
    ]
    assert in_words(change) == "limit 100 → 1,200, warn none → 9"


def test_another_action_is_a_change_of_the_row_and_not_a_row_gone_and_a_new_one() -> None:
    (change,) = changed([BASE], [row("position", 100.0, "symbol", "halt")])

    assert [field.field for field in change.fields] == ["action"]
    assert not change.loosened


def test_a_row_in_shadow_beside_the_one_that_acts_is_new() -> None:
    trial = row("position", 50.0, "symbol", mode=LimitMode.SHADOW)

    (change,) = changed([BASE], [BASE, trial])

    assert (change.previous, change.limit and change.limit.limit, change.loosened) == (None, 50.0, False)


def test_a_shadow_that_takes_its_rows_place_tightens_it_and_is_gone() -> None:
    before = [BASE, row("position", 50.0, "symbol", mode=LimitMode.SHADOW)]

    tightened, gone = changed(before, [row("position", 50.0, "symbol")])

    assert (tightened.previous and tightened.previous.limit, tightened.loosened) == (100.0, False)
    assert (gone.limit, gone.loosened) == (None, False)
    assert in_words(gone) == "gone: limit 50, unit quantity, action reject"


FIRM = row("es_95", 0.1, "firm", allocation={"A": 0.6, "B": 0.4})
HALT = row("leverage", 2.0, action="halt", halt_state="halted")
RATE = row("order_rate", 10.0, window_s=2.0)

LOOSENED: list[tuple[str, list[Limit], list[Limit], bool]] = [
    ("higher bound", [BASE], [row("position", 101.0, "symbol")], True),
    ("lower bound", [BASE], [row("position", 99.0, "symbol")], False),
    ("gone", [BASE], [], True),
    ("gone, only warned", [row("position", 1.0, "symbol", "warn")], [], False),
    (
        "gone, a stricter one stays",
        [BASE, row("position", 50.0, "symbol", "halt")],
        [row("position", 50.0, "symbol", "halt")],
        False,
    ),
    ("new", [], [BASE], False),
    ("milder action", [BASE], [row("position", 100.0, "symbol", "reduce")], True),
    ("warns only", [BASE], [row("position", 100.0, "symbol", "warn")], True),
    ("into shadow", [BASE], [row("position", 100.0, "symbol", mode=LimitMode.SHADOW)], True),
    ("out of shadow", [row("position", 100.0, "symbol", mode=LimitMode.SHADOW)], [BASE], False),
    ("in another unit", [row("order_value", 5.0)], [row("order_value", 5.0, unit=Unit.EQUITY)], True),
    ("other warning", [row("position", 100.0, "symbol", warn=50.0)], [BASE], False),
    ("milder halt", [HALT], [row("leverage", 2.0, action="halt")], True),
    ("shorter window", [RATE], [row("order_rate", 10.0, window_s=1.0)], True),
    ("longer window", [RATE], [row("order_rate", 10.0, window_s=3.0)], False),
    ("own row allows more", [BASE], [BASE, row("position", 150.0, "symbol", account="A")], True),
    ("own row allows less", [BASE], [BASE, row("position", 50.0, "symbol", account="A")], False),
    ("own row in shadow", [BASE], [BASE, row("position", 150.0, "symbol", account="A", mode=LimitMode.SHADOW)], False),
    ("own row gone", [BASE, row("position", 50.0, "symbol", account="A")], [BASE], True),
    ("own row gone, was wider", [BASE, row("position", 150.0, "symbol", account="A")], [BASE], False),
    ("implied mark age replaced", [], [row("mark_age", 60.0)], True),
    ("implied mark age replaced by a halt", [], [row("mark_age", 60.0, action="halt")], True),
    ("implied mark age replaced for one", [], [row("mark_age", 60.0, account="A", action="halt")], True),
    ("implied mark age tightened", [], [row("mark_age", 2.0)], False),
    ("larger share", [FIRM], [row("es_95", 0.1, "firm", allocation={"A": 0.7, "B": 0.3})], True),
    ("smaller share of more", [FIRM], [row("es_95", 0.2, "firm", allocation={"A": 0.3, "B": 0.2})], False),
    ("a share for another", [FIRM], [row("es_95", 0.05, "firm", allocation={"A": 0.6, "C": 0.4})], True),
]


@pytest.mark.parametrize(
    ("before", "after", "loosened"), [case[1:] for case in LOOSENED], ids=[case[0] for case in LOOSENED]
)
def test_what_allows_more_is_told(before: list[Limit], after: list[Limit], loosened: bool) -> None:
    found = changed(before, after)

    assert found and any(change.loosened for change in found) is loosened


def test_only_the_row_that_allows_more_is_told_so() -> None:
    tightened, wider = changed([BASE], [row("position", 40.0, "symbol"), row("position", 60.0, "symbol", account="A")])
    lower, other = changed([BASE, RATE], [row("position", 40.0, "symbol"), row("order_rate", 20.0, window_s=2.0)])

    assert (tightened.loosened, wider.loosened) == (False, False)
    assert (lower.loosened, other.loosened) == (False, True)


def test_a_tightening_that_spares_an_account_is_told_where_it_is_spared() -> None:
    star, own = changed([BASE], [row("position", 40.0, "symbol"), row("position", 150.0, "symbol", account="A")])

    assert (star.loosened, own.loosened) == (False, True)


def test_an_account_that_is_let_off_a_tightening_may_not_do_more() -> None:
    star, own = changed([BASE], [row("position", 40.0, "symbol"), row("position", 100.0, "symbol", account="A")])

    assert (star.loosened, own.loosened) == (False, False)


POLICIES = [
    ({"market_slippage": 0.001}, "market_slippage 0.01 → 0.001", True),
    ({"market_slippage": 0.02}, "market_slippage 0.01 → 0.02", False),
    ({"order_types": (OrderType.LIMIT,)}, "order_types market limit stop stop_limit → limit", False),
    ({"model_age_max_s": 100_000.0}, "model_age_max_s 93,600 → 100,000", True),
    ({"valid_for_default_s": 30.0}, "valid_for_default_s none → 30", False),
    ({"identities_required": ("trader",)}, "identities_required none → trader", False),
]


@pytest.mark.parametrize(("fields", "said", "loosened"), POLICIES)
def test_the_policy_is_compared_too(fields: dict[str, object], said: str, loosened: bool) -> None:
    found = changes(LimitSet((BASE,)), LimitSet((BASE,), Policy(**fields)), MEASURES)  # type: ignore[arg-type]

    ((field, loose),) = [(one.change, one.loosened) for one in found.policy]
    assert (f"{field.field} {field.before} → {field.after}", loose, found.rows) == (said, loosened, ())


# --- for all sets -------------------------------------------------------------------------------------------------

ACCOUNTS = ["A", "B", EVERY]
KINDS = [("position", "symbol"), ("leverage", "account"), ("mark_age", "account"), ("es_95", "firm")]
SHARES = st.fixed_dictionaries({"A": st.sampled_from([0.0, 0.25, 0.5]), "B": st.sampled_from([0.25, 0.5])})


@st.composite
def limit_sets(draw: st.DrawFn) -> LimitSet:
    shares = draw(SHARES)
    drawn = draw(
        st.lists(
            st.builds(
                lambda kind, limit, account, action, mode: Limit(
                    kind[0],
                    ScopeKind(kind[1]),
                    limit,
                    account=account,
                    action=action,
                    mode=mode,
                    allocation=shares if kind[1] == "firm" else {},
                ),
                st.sampled_from(KINDS),
                st.sampled_from([1.0, 2.0, 3.0, 7.0]),
                st.sampled_from(ACCOUNTS),
                st.sampled_from([LimitAction.WARN, LimitAction.REJECT, LimitAction.HALT]),
                st.sampled_from(LimitMode),
            ),
            max_size=8,
        )
    )
    limit_set = LimitSet(tuple({one.key: one for one in drawn}.values()))
    assume(not any(fault.problem.endswith("comes first") for fault in faults_of(limit_set, MEASURES)))
    check_rows(limit_set, MEASURES)
    return limit_set


def refuses(limit_set: LimitSet, account: str, kind: tuple[str, str], value: float) -> list[LimitAction]:
    """The actions, but warnings, that an account's value meets."""
    holding = [one for one in limit_set.rows_for(account) if (one.measure, one.scope.value) == kind and one.is_hard]
    return [one.action for one in holding if value > one.limit * share_of(one, account)]


@given(limit_sets(), limit_sets(), st.sampled_from(["A", "B", "C"]), st.sampled_from(KINDS))
def test_where_nothing_is_loosened_nobody_may_do_more(
    before: LimitSet, after: LimitSet, account: str, kind: tuple[str, str]
) -> None:
    order = list(LimitAction)
    if changes(before, after, MEASURES).loosened:
        return
    for value in (0.3, 0.6, 1.2, 1.6, 2.5, 5.0, 6.0, 9.0):
        was, now = refuses(before, account, kind, value), refuses(after, account, kind, value)
        assert max(map(order.index, was), default=-1) <= max(map(order.index, now), default=-1)


@given(limit_sets(), limit_sets())
def test_the_changes_are_all_that_differs(before: LimitSet, after: LimitSet) -> None:
    found = changed(before, after)

    gone = [change.previous.key for change in found if change.previous is not None]
    came = [change.limit for change in found if change.limit is not None]
    old, new = (normal(LimitSet(one.armed_rows, one.policy), MEASURES).rows for one in (before, after))
    left = [one for one in old if one.key not in gone]
    assert sorted(map(str, [*left, *came])) == sorted(map(str, new))
    assert not changed(after, after)
