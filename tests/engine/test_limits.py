"""A limit set that can't be armed says which row and which field; one that can is named by its content."""

from typing import Any

import pytest

from engine.control import TradingState
from engine.limits import (
    Breaker,
    HaltState,
    LimitAction,
    LimitError,
    LimitMode,
    LimitSet,
    Policy,
    ScopeKind,
    Unit,
    check_rows,
    faults_of,
    limit_set_from,
)
from engine.measures import MEASURES
from engine.order import OrderType, TimeInForce
from tests.engine.builders import row, stock

GOOD: dict[str, Any] = {"measure": "position", "scope": "symbol", "limit": 10.0}
FIRM: dict[str, Any] = {
    "measure": "es_95",
    "scope": "firm",
    "match": "*",
    "limit": 0.1,
    "allocation": {"A": 0.6, "B": 0.4},
}

BAD_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("measure", {"measure": "positon"}),
    ("limit", {"limit": -1.0}),
    ("limit", {"limit": float("nan")}),
    ("limit", {"limit": float("inf")}),
    ("limit", {"limit": "ten"}),
    ("warn", {"warn": 11.0}),
    ("warn", {"warn": -1.0}),
    ("warn", {"warn": float("nan")}),
    ("scope", {"scope": "account"}),
    ("scope", {"scope": "galaxy"}),
    ("unit", {"unit": "money"}),
    ("unit", {"unit": "euros"}),
    ("action", {"action": "explode"}),
    ("action", {"measure": "mark_age", "action": "reduce"}),
    ("halt_state", {"halt_state": "active"}),
    ("open_orders", {"open_orders": False}),
    ("limit", {"measure": "restricted", "limit": 1.0}),
    ("warn", {"measure": "market_phase", "limit": 0.0, "warn": 0.0}),
    ("action", {"measure": "restricted", "limit": 0.0, "action": "reduce"}),
    ("window_s", {"window_s": 0.0}),
    ("window_s", {"window_s": 3601.0}),
    ("window_s", {"window_s": float("nan")}),
    ("match", {"scope": "asset_class", "match": "equities"}),
    ("match", {"measure": "leverage", "scope": "account", "match": "ALPHA"}),
    ("match", {"match": " "}),
    ("account", {"account": ""}),
    ("allocation", {"allocation": {"A": 0.5}}),
    ("allocation", FIRM | {"allocation": {}}),
    ("allocation", FIRM | {"allocation": {"A": 0.7, "B": 0.4}}),
    ("allocation.A", FIRM | {"allocation": {"A": -0.1}}),
    ("allocation.A", FIRM | {"allocation": {"A": 1.1}}),
    ("allocation.A", FIRM | {"allocation": {"A": float("nan")}}),
    ("scope", FIRM | {"measure": "var_95"}),
    ("lmit", {"lmit": 5}),
)


@pytest.mark.parametrize(("field", "change"), BAD_ROWS, ids=[f"{f}-{at}" for at, (f, _) in enumerate(BAD_ROWS)])
def test_a_bad_row_is_named_with_its_field(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(LimitError) as refused:
        check_rows(limit_set_from([GOOD, GOOD | {"match": "AAA"} | change]), MEASURES)

    assert refused.value.path.startswith("limit[1]")
    assert field in str(refused.value)


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(LimitError) as refused:
        limit_set_from([{"measure": "position", "scope": "symbol", "limit": 1.0, "action": "REJECT"}])

    assert str(refused.value) == (
        "limit[0].action: invalid enum value 'REJECT', expected one of warn, reduce, reject, halt"
    )


@pytest.mark.parametrize("missing", ["measure", "scope", "limit"])
def test_a_row_without_a_required_field_is_named(missing: str) -> None:
    table = {name: value for name, value in GOOD.items() if name != missing}

    with pytest.raises(LimitError, match=rf"limit\[0\].*{missing}"):
        limit_set_from([table])


def test_two_rows_alike_are_refused_naming_both() -> None:
    with pytest.raises(LimitError, match=r"limit\[2\].*limit\[0\]"):
        check_rows(limit_set_from([GOOD, GOOD | {"match": "AAA"}, GOOD | {"limit": 5.0}]), MEASURES)


BAD_POLICIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("market_slippage", {"market_slippage": -0.1}),
    ("mark_age_max_s", {"mark_age_max_s": float("nan")}),
    ("model_age_max_s", {"model_age_max_s": float("inf")}),
    ("model_lag_sessions_max", {"model_lag_sessions_max": -1}),
    ("model_lag_sessions_max", {"model_lag_sessions_max": "one"}),
    ("order_types", {"order_types": ["limit", "iceberg"]}),
    ("times_in_force", {"times_in_force": ["someday"]}),
    ("order_value_min", {"order_value_min": -1.0}),
    ("identities_required", {"identities_required": ["butcher"]}),
    ("grades", {"grades": [0.8, 0.7]}),
    ("grades", {"grades": [0.0, 1.0]}),
    ("grades", {"grades": [0.9, float("nan")]}),
    ("slippage", {"slippage": 0.1}),
)


@pytest.mark.parametrize(("field", "policy"), BAD_POLICIES)
def test_a_bad_policy_is_named_with_its_field(field: str, policy: dict[str, Any]) -> None:
    with pytest.raises(LimitError, match=rf"limits.*{field}"):
        check_rows(limit_set_from([GOOD], policy), MEASURES)


def test_a_good_set_keeps_what_its_tables_say() -> None:
    policy = {"order_types": ["limit"], "times_in_force": ["day", "ioc"], "market_slippage": 0.02}
    tables = [GOOD | {"action": "halt", "halt_state": "cancel_only", "warn": 10.0}, FIRM]

    found = limit_set_from(tables, policy)
    check_rows(found, MEASURES)

    assert found.rows[0].action is LimitAction.HALT
    assert found.rows[0].halt_state.trading_state is TradingState.CANCEL_ONLY
    assert found.policy.order_types == (OrderType.LIMIT,)
    assert found.policy.times_in_force == (TimeInForce.DAY, TimeInForce.IOC)


def test_every_measure_can_be_armed_in_each_scope_that_it_names() -> None:
    for measure in MEASURES.values():
        for scope in measure.scopes:
            shares = {"A": 1.0} if scope is ScopeKind.FIRM else {}
            bound = 0.0 if measure.units[0] is Unit.RULE else 1.0
            action = "halt" if measure.halts else "reject"
            policy = Policy(breaker=Breaker() if measure.name == "drawdown_breaker" else None)
            check_rows(LimitSet((row(measure.name, bound, scope.value, action, allocation=shares),), policy), MEASURES)


@pytest.mark.parametrize(
    ("reject", "halt", "fault"), [(0.15, 0.20, ""), (0.15, 0.15, ""), (0.20, 0.15, "limit[1].limit")]
)
def test_what_halts_comes_after_what_rejects(reject: float, halt: float, fault: str) -> None:
    rows = row("drawdown", reject, warn=0.10), row("drawdown", halt, action="halt")

    assert [one.path for one in faults_of(LimitSet(rows), MEASURES)] == ([fault] if fault else [])


def test_a_set_is_named_by_its_content() -> None:
    one, same, other = (limit_set_from([GOOD | {"limit": limit}]) for limit in (10.0, 10.0, 11.0))

    assert one.hash == same.hash != other.hash
    assert LimitSet.decode(one.encode()) == one


def test_a_row_without_a_bound_only_warns() -> None:
    (found,) = limit_set_from([{"measure": "leverage", "scope": "account", "warn": 1.5}]).rows

    assert (found.limit, found.warn, found.action, found.only_warns) == (1.5, 1.5, LimitAction.WARN, True)
    with pytest.raises(LimitError, match=r"limit\[0\]\.limit: required"):
        limit_set_from([{"measure": "leverage", "scope": "account", "warn": 1.5, "action": "reject"}])


def test_a_row_in_shadow_stands_beside_the_one_that_acts_and_takes_the_place_of_none() -> None:
    acts, shadow = row("leverage", 2.0), row("leverage", 1.0, account="A", mode=LimitMode.SHADOW)
    stale = row("mark_age", 60.0, mode=LimitMode.SHADOW)
    armed = LimitSet((acts, shadow, stale))
    check_rows(armed, MEASURES)

    assert armed.rows_for("A") == (acts, shadow, stale, armed.implied)
    assert armed.rows_for("B") == (acts, stale, armed.implied)
    assert (acts.is_hard, shadow.is_hard) == (True, False)


def test_the_firm_rows_of_a_measure_have_the_same_shares() -> None:
    other = FIRM | {"action": "warn", "allocation": {"A": 0.5, "B": 0.4}}

    with pytest.raises(LimitError, match=r"limit\[1\]\.allocation: expected the shares of limit\[0\]"):
        check_rows(limit_set_from([FIRM, other]), MEASURES)


def test_every_row_at_fault_is_told() -> None:
    bad = limit_set_from([GOOD | {"limit": -1.0}, GOOD | {"match": "A"}, GOOD | {"warn": 11.0, "match": "B"}])

    assert [fault.path for fault in faults_of(bad, MEASURES)] == ["limit[0].limit", "limit[2].warn"]


def test_a_set_of_before_shadow_keeps_its_name() -> None:
    """The hash is what decisions are recomputed by: new fields may not show where they are not used."""
    assert b"mode" not in LimitSet((row("leverage", 2.0),)).encode()


def test_without_a_mark_age_row_one_is_implied() -> None:
    implied, named = LimitSet((row("position", 1, "symbol"),)), LimitSet((row("mark_age", 60.0, "symbol"),))

    assert [(one.measure, one.limit) for one in implied.rows_for("A")] == [("position", 1), ("mark_age", 5.0)]
    assert [(one.measure, one.limit) for one in named.rows_for("A")] == [("mark_age", 60.0), ("mark_age", 5.0)]


@pytest.mark.parametrize("fields", [{"account": "B"}, {"action": "warn"}])
def test_a_mark_age_row_of_another_account_or_that_only_warns_leaves_the_implied_one_armed(
    fields: dict[str, str],
) -> None:
    limit_set = LimitSet((row("mark_age", 60.0, **fields),))

    assert 5.0 in [one.limit for one in limit_set.rows_for("A") if one.measure == "mark_age"]
    assert [one.limit for one in limit_set.armed_rows] == [60.0, 5.0]


def test_a_mark_age_row_of_the_account_itself_takes_the_implied_ones_place() -> None:
    assert [one.limit for one in LimitSet((row("mark_age", 60.0),)).rows_for("A")] == [60.0]


def test_a_row_that_names_an_account_replaces_only_the_one_like_it() -> None:
    rows = (
        row("leverage", 1.0),
        row("leverage", 2.0, action="halt"),
        row("leverage", 3.0, account="A"),
        row("mark_age", 5.0),
    )
    armed = LimitSet(rows)

    assert [one.limit for one in armed.rows_for("A")] == [2.0, 3.0, 5.0]
    assert [one.limit for one in armed.rows_for("B")] == [1.0, 2.0, 5.0]


def test_halt_states_are_the_trading_states_but_active() -> None:
    assert {one.trading_state for one in HaltState} == set(TradingState) - {TradingState.ACTIVE}
    assert stock("AAA").sector == "unassigned"
