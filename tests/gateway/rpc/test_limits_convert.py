"""Limit sets over the wire: whatever goes out comes back the same, and what comes in wrong is named, all at once."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.limit_changes import changes, normal
from engine.limits import (
    NO_STOP_SCOPES,
    Breaker,
    HaltState,
    Limit,
    LimitAction,
    LimitMode,
    LimitSet,
    Policy,
    RegimeMethod,
    ScopeKind,
    Unit,
    faults_of,
)
from engine.measures import MEASURES
from engine.order import IDENTITIES, OrderType, TimeInForce
from gateway.rpc.convert import limits as convert
from gateway.rpc.convert.form import Invalid
from riskgateway.v1 import control_pb2, decision_pb2, limit_pb2, risk_admin_pb2

bounds = st.floats(0.0, 1e12, allow_nan=False)
seconds = st.integers(1, 3_600_000_000).map(lambda micros: micros / 1_000_000)


@st.composite
def rows(draw: st.DrawFn, shares: dict[str, float]) -> Limit:
    measure = draw(st.sampled_from(sorted(MEASURES.values(), key=lambda one: one.name)))
    scope = draw(st.sampled_from(sorted(measure.scopes)))
    actions = [one for one in LimitAction if one is not LimitAction.REDUCE or measure.fit is not None]
    if measure.halts:
        actions = [LimitAction.WARN, LimitAction.HALT]
    if scope in NO_STOP_SCOPES:
        actions.remove(LimitAction.HALT)
    is_rule = measure.units[0] is Unit.RULE
    action, limit = draw(st.sampled_from(actions)), 0.0 if is_rule else draw(bounds)
    matches = ["*"] if scope in (ScopeKind.FIRM, ScopeKind.ACCOUNT, ScopeKind.ASSET_CLASS) else ["*", "Oil & gas"]
    return Limit(
        measure.name,
        scope,
        limit,
        match=draw(st.sampled_from(matches)),
        account=draw(st.sampled_from(["*", "ALPHA", "BETA"])),
        warn=None if is_rule else draw(st.none() | st.floats(0.0, limit)),
        unit=draw(st.none() | st.sampled_from(measure.units)),
        action=action,
        window_s=draw(seconds),
        halt_state=draw(st.sampled_from(HaltState)),
        open_orders=action is not LimitAction.WARN or draw(st.booleans()),
        allocation=shares if scope is ScopeKind.FIRM else {},
        mode=draw(st.sampled_from(LimitMode)),
        note=draw(st.sampled_from(["", "since March"])),
    )


POLICY: dict[str, st.SearchStrategy[Any]] = {
    "order_types": st.sets(st.sampled_from(OrderType)).map(tuple),
    "times_in_force": st.sets(st.sampled_from(TimeInForce)).map(tuple),
    "market_slippage": st.floats(0.0, 1.0),
    "mark_age_max_s": seconds,
    "valid_for_default_s": st.none() | seconds,
    "model_age_max_s": seconds,
    "model_price_lag_days_max": st.integers(0, 100),
    "model_lag_sessions_max": st.integers(0, 100),
    "underlying_move_max": st.floats(0.0, 1.0),
    "order_value_min": bounds,
    "short_sales_marked": st.booleans(),
    "identities_required": st.sets(st.sampled_from(IDENTITIES)).map(tuple),
    "grades": st.sampled_from([(), (0.7, 0.8), (1.0,)]),
    "volatility_target": st.none() | st.floats(0.01, 2.0),
    "volatility_scale_min": st.floats(0.01, 1.0),
    "volatility_regime": st.sampled_from(RegimeMethod),
    "regime_factors": st.sampled_from([(0.75, 0.5), (0.9, 0.9)]),
    "cluster_correlation": st.floats(0.01, 1.0),
    "loss_confirmations": st.integers(1, 5),
    "breaker": st.sampled_from([None, Breaker(), Breaker((0.1, 0.2, 0.3), (0.1, 0.9), (0.05, 0.1), 1, 0, 0.1)]),
    "margin_rates": st.sampled_from([{}, {"equity": 0.5, "future": 1.0}]),
    "fee_rates": st.sampled_from([{}, {"AAPL": 0.001}]),
    "cash_haircut": st.floats(0.0, 1.0),
    "budget_var_limit": st.floats(0.001, 2.0),
    "budget_confidence": st.floats(0.51, 0.99),
    "budget_headroom_min": st.floats(0.0, 1.0),
    "greeks_cut_at": st.none() | st.floats(1.0, 10.0),
    "flatten_volume_share": st.floats(0.001, 1.0),
    "flatten_spread_max": st.floats(0.001, 1.0),
    "flatten_interval_s": seconds,
}
policies = st.builds(Policy, **POLICY)


@st.composite
def limit_sets(draw: st.DrawFn) -> LimitSet:
    shares = draw(st.sampled_from([{"ALPHA": 0.6, "BETA": 0.4}, {"GAMMA": 0.0, "ALPHA": 0.1}]))
    drawn = {row.key: row for row in draw(st.lists(rows(shares), max_size=6))}
    limit_set = LimitSet(tuple(drawn.values()), draw(policies))
    across_rows = ("expected at least the sum", "expected drawdown rows or")
    across = (fault.problem for fault in faults_of(limit_set, MEASURES))
    assume(not any(problem.startswith(across_rows) or problem.endswith("comes first") for problem in across))
    assert not list(faults_of(limit_set, MEASURES))
    return limit_set


def test_every_field_of_the_policy_is_tried() -> None:
    assert set(POLICY) == set(Policy.__struct_fields__)


@given(limit_sets())
def test_a_set_that_goes_out_comes_back(limit_set: LimitSet) -> None:
    told = convert.limits_response(limit_set, "", 7, "")

    back = convert.limit_set_of(risk_admin_pb2.GetLimitsResponse.FromString(told.SerializeToString()))

    assert normal(back, MEASURES) == normal(LimitSet(limit_set.armed_rows, limit_set.policy), MEASURES)


@given(limit_sets(), limit_sets())
def test_changes_that_go_out_come_back(before: LimitSet, after: LimitSet) -> None:
    made = changes(before, after, MEASURES).rows

    assert convert.changes_of(convert.limit_changes(made)) == made


@given(limit_sets().filter(lambda limit_set: limit_set.rows))
def test_what_is_told_can_be_sent_back(limit_set: LimitSet) -> None:
    told = convert.limits_response(limit_set, "", 7, "")

    update = convert.update_of(
        risk_admin_pb2.UpdateLimitsRequest(
            limits=told.limits, allocations=told.allocations, expected_limit_set=told.limit_set, reason="again"
        )
    )

    assert not changes(limit_set, LimitSet(update.rows, limit_set.policy), MEASURES)


def test_a_window_loses_no_microsecond() -> None:
    row = Limit("order_rate", ScopeKind.ACCOUNT, 5.0, window_s=1.001)

    assert convert.limit(row).window.ToMicroseconds() == 1_001_000


def test_only_the_shares_of_an_account_are_told_to_it() -> None:
    row = Limit("es_95", ScopeKind.FIRM, 0.1, allocation={"ALPHA": 0.6, "BETA": 0.4})

    told = convert.limits_response(LimitSet((row,)), "BETA", 1, "")

    assert [(share.measure, share.account, share.share) for share in told.allocations] == [("es_95", "BETA", 0.4)]


GOOD: dict[str, Any] = {
    "measure": "position",
    "scope": "symbol",
    "limit": 10.0,
    "action": decision_pb2.ACTION_REJECT,
}
FIRM = GOOD | {"measure": "es_95", "scope": "firm", "limit": 0.1}
RATE = GOOD | {"measure": "order_rate", "scope": "account"}


def request(*limits: dict[str, Any], **fields: Any) -> risk_admin_pb2.UpdateLimitsRequest:
    given = {"expected_limit_set": "ab", "reason": "why", **fields}
    return risk_admin_pb2.UpdateLimitsRequest(limits=[limit_pb2.Limit(**one) for one in limits], **given)


def share(account: str, value: float, measure: str = "es_95") -> limit_pb2.Allocation:
    return limit_pb2.Allocation(measure=measure, account=account, share=value)


WRONG: list[tuple[risk_admin_pb2.UpdateLimitsRequest, str]] = [
    (request(), "limits"),
    (request(GOOD, reason=" "), "reason"),
    (request(GOOD, expected_limit_set=""), "expected_limit_set"),
    (request(GOOD, GOOD | {"measure": "postion"}), "limits[1].measure"),
    (request(GOOD, GOOD | {"scope": "galaxy"}), "limits[1].scope"),
    (request(GOOD, GOOD | {"scope": "account"}), "limits[1].scope"),
    (request(GOOD, GOOD | {"match": "a\nb"}), "limits[1].match"),
    (request(GOOD, GOOD | {"account": "x" * 65}), "limits[1].account"),
    (request(GOOD, GOOD | {"limit": float("nan"), "match": "A"}), "limits[1].limit"),
    (request(GOOD, GOOD | {"limit": -1.0, "match": "A"}), "limits[1].limit"),
    (request(GOOD, {key: GOOD[key] for key in ("measure", "scope", "action")}), "limits[1].limit"),
    (request(GOOD, {key: GOOD[key] for key in ("measure", "scope", "action")} | {"warn": 1.0}), "limits[1].limit"),
    (request(GOOD, GOOD | {"warn": 11.0, "match": "A"}), "limits[1].warn"),
    (request(GOOD, GOOD | {"unit": "money", "match": "A"}), "limits[1].unit"),
    (request(GOOD, GOOD | {"unit": "s", "match": "A"}), "limits[1].unit"),
    (request(GOOD | {"action": decision_pb2.ACTION_UNSPECIFIED}), "limits[0].action"),
    (request(GOOD | {"action": decision_pb2.ACTION_ALLOW}), "limits[0].action"),
    (request(GOOD | {"mode": 7}), "limits[0].mode"),
    (request(GOOD | {"halt_state": control_pb2.TRADING_STATE_HALTED}), "limits[0].halt_state"),
    (
        request(GOOD | {"action": decision_pb2.ACTION_HALT, "halt_state": control_pb2.TRADING_STATE_ACTIVE}),
        "limits[0].halt_state",
    ),
    (request(GOOD | {"window": Duration(seconds=1)}), "limits[0].window"),
    (request(RATE), "limits[0].window"),
    (request(RATE | {"window": Duration(seconds=3601)}), "limits[0].window"),
    (request(RATE | {"window": Duration()}), "limits[0].window"),
    (request(GOOD | {"open_orders_excluded": True}), "limits[0].open_orders_excluded"),
    (request(GOOD | {"note": "x" * 1001}), "limits[0].note"),
    (request(GOOD, GOOD), "limits[1]"),
    (request(FIRM), "allocations"),
    (request(FIRM, allocations=[share("A", 0.7), share("B", 0.4)]), "allocations"),
    (request(FIRM, allocations=[share("A", 0.7), share("A", 0.2)]), "allocations[1].account"),
    (request(FIRM, allocations=[share("A", float("nan"))]), "allocations[0].share"),
    (request(FIRM, allocations=[share("A", 1.0), share("A", 1.0, "stress_loss")]), "allocations[1].measure"),
]


@pytest.mark.parametrize(("message", "field"), WRONG, ids=[f"{at}-{field}" for at, (_, field) in enumerate(WRONG)])
def test_a_wrong_field_is_named(message: risk_admin_pb2.UpdateLimitsRequest, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        convert.update_of(message)

    assert [violation[0] for violation in refused.value.violations] == [field]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        convert.update_of(request(GOOD | {"unit": "money"}, GOOD | {"warn": 11.0, "match": "A"}))

    assert [violation[0] for violation in refused.value.violations] == ["limits[0].unit", "limits[1].warn"]


def test_a_row_without_a_bound_only_warns_and_is_told_so() -> None:
    warns = {"measure": "leverage", "scope": "account", "warn": 1.5, "action": decision_pb2.ACTION_WARN}

    (row,) = convert.update_of(request(warns)).rows

    assert (row.limit, row.warn, row.action) == (1.5, 1.5, LimitAction.WARN)
    assert not convert.limit(row).HasField("limit") and convert.limit(row).warn == 1.5


def test_what_is_left_out_of_a_row_means_what_the_contract_says() -> None:
    (row,) = convert.update_of(request(GOOD)).rows

    assert (row.match, row.account, row.unit, row.mode) == ("*", "*", None, LimitMode.ENFORCED)
    assert normal(LimitSet((row,)), MEASURES).rows[0].unit is Unit.QUANTITY
