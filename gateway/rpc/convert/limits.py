"""Limit sets to and from the contract: rows, shares, policy, and what one set changes in another.

Both directions stand here, so that a set that goes out and comes back is the same set (`engine.limit_changes.normal`).
What is wrong with rows that come in is told all at once, each with its path in the request: first what is malformed,
then what the engine would not arm. Pure: nothing is armed or compared here.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from engine.limit_changes import LimitChange
from engine.limits import (
    EVERY,
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
from engine.order import OrderType, TimeInForce
from gateway.rpc.convert.form import EVERY as ALL
from gateway.rpc.convert.form import Form
from riskgateway.v1 import control_pb2, decision_pb2, limit_pb2, order_pb2, risk_admin_pb2

ROWS_MAX = 10_000
SHARES_MAX = 10_000
MICROS = 1_000_000
NO_HALT = control_pb2.TRADING_STATE_UNSPECIFIED

_ACTIONS = {action: decision_pb2.Action.Value(f"ACTION_{action.name}") for action in LimitAction}
_ACTIONS_READ: dict[int, LimitAction] = {number: action for action, number in _ACTIONS.items()}
_HALT_STATES = {state: control_pb2.TradingState.Value(f"TRADING_STATE_{state.name}") for state in HaltState}
_HALT_STATES_READ: dict[int, HaltState] = {number: state for state, number in _HALT_STATES.items()}
_MODES = {mode: limit_pb2.LimitMode.Value(f"LIMIT_MODE_{mode.name}") for mode in LimitMode}
_MODES_READ: dict[int, LimitMode] = {
    limit_pb2.LIMIT_MODE_UNSPECIFIED: LimitMode.ENFORCED,
    **{number: mode for mode, number in _MODES.items()},
}
_REGIME_METHODS = {
    RegimeMethod.OFF: limit_pb2.REGIME_METHOD_UNSPECIFIED,
    RegimeMethod.EWMA: limit_pb2.REGIME_METHOD_EWMA,
    RegimeMethod.GARCH: limit_pb2.REGIME_METHOD_GARCH,
    RegimeMethod.MARKOV: limit_pb2.REGIME_METHOD_MARKOV,
}
_REGIME_METHODS_READ: dict[int, RegimeMethod] = {number: method for method, number in _REGIME_METHODS.items()}
_UNITS = {unit: "seconds" if unit is Unit.SECONDS else unit.value for unit in Unit}
_UNITS_READ = {name: unit for unit, name in _UNITS.items()}
_ORDER_TYPES = {kind: order_pb2.OrderType.Value(f"ORDER_TYPE_{kind.name}") for kind in OrderType}
_ORDER_TYPES_READ = {int(number): kind for kind, number in _ORDER_TYPES.items()}
_TIMES_IN_FORCE = {kind: order_pb2.TimeInForce.Value(f"TIME_IN_FORCE_{kind.name}") for kind in TimeInForce}
_TIMES_IN_FORCE_READ = {int(number): kind for kind, number in _TIMES_IN_FORCE.items()}
_CONTRACT_FIELDS = {"window_s": "window", "open_orders": "open_orders_excluded"}

_Name = TypeVar("_Name", bound=enum.StrEnum)


# --- out ----------------------------------------------------------------------------------------------------------


def limits_response(
    limits: LimitSet, account: str, epoch: int, shadow_limit_set: str
) -> risk_admin_pb2.GetLimitsResponse:
    """The rows that hold for `account`, or all; with the shares in the limits of the firm."""
    rows = limits.rows_for(account) if account else limits.armed_rows
    return risk_admin_pb2.GetLimitsResponse(
        limit_set=limits.hash,
        limits=[limit(row) for row in rows],
        stop_epoch=epoch,
        allocations=[share for share in allocations(rows) if account in ("", share.account)],
        policy=policy(limits.policy),
        shadow_limit_set=shadow_limit_set,
    )


def limit(row: Limit) -> limit_pb2.Limit:
    unit = row.unit or MEASURES[row.measure].units[0]
    return limit_pb2.Limit(
        measure=row.measure,
        scope=row.scope.value,
        match=row.match,
        account=row.account,
        limit=None if row.only_warns else row.limit,
        warn=row.warn,
        unit=_UNITS[unit],
        action=_ACTIONS[row.action],
        window=_duration(row.window_s) if unit is Unit.ORDERS else None,
        halt_state=_HALT_STATES[row.halt_state] if row.action is LimitAction.HALT else NO_HALT,
        mode=_MODES[row.mode],
        open_orders_excluded=not row.open_orders,
        note=row.note,
    )


def allocations(rows: Iterable[Limit]) -> list[limit_pb2.Allocation]:
    """The shares of each measure that the firm has a limit on; they are the same in all firm rows of a measure."""
    shares = {row.measure: row.allocation for row in rows if row.scope is ScopeKind.FIRM}
    return [
        limit_pb2.Allocation(measure=measure, account=account, share=share)
        for measure, by_account in shares.items()
        for account, share in sorted(by_account.items())
    ]


def policy(value: Policy) -> limit_pb2.LimitPolicy:
    valid_for_s = value.valid_for_default_s
    return limit_pb2.LimitPolicy(
        order_types=[_ORDER_TYPES[kind] for kind in value.order_types],
        times_in_force=[_TIMES_IN_FORCE[kind] for kind in value.times_in_force],
        market_slippage=value.market_slippage,
        mark_age_max=_duration(value.mark_age_max_s),
        valid_for_default=None if valid_for_s is None else _duration(valid_for_s),
        model_age_max=_duration(value.model_age_max_s),
        model_price_lag_days_max=value.model_price_lag_days_max,
        model_lag_sessions_max=value.model_lag_sessions_max,
        order_value_min=value.order_value_min,
        grades=value.grades,
        short_sales_marked=value.short_sales_marked,
        underlying_move_max=value.underlying_move_max,
        identities_required=value.identities_required,
        loss_confirmations=value.loss_confirmations,
        breaker=None if value.breaker is None else _breaker(value.breaker),
        volatility_target=value.volatility_target,
        volatility_scale_min=value.volatility_scale_min,
        volatility_regime=_REGIME_METHODS[value.volatility_regime],
        regime_factors=value.regime_factors,
        cluster_correlation=value.cluster_correlation,
        margin_rates=value.margin_rates,
        fee_rates=value.fee_rates,
        cash_haircut=value.cash_haircut,
        budget_var_limit=value.budget_var_limit,
        budget_confidence=value.budget_confidence,
        budget_headroom_min=value.budget_headroom_min,
        greeks_cut_at=value.greeks_cut_at,
        flatten_volume_share=value.flatten_volume_share,
        flatten_spread_max=value.flatten_spread_max,
        flatten_interval=_duration(value.flatten_interval_s),
    )


def _breaker(value: Breaker) -> limit_pb2.BreakerPolicy:
    return limit_pb2.BreakerPolicy(
        levels=value.levels,
        cuts=value.cuts,
        releases=value.releases,
        cooldown_sessions=value.cooldown_sessions,
        recovering_sessions=value.recovering_sessions,
        recovery_drawdown=value.recovery_drawdown,
    )


def limit_changes(changes: Iterable[LimitChange]) -> list[risk_admin_pb2.LimitChange]:
    return [
        risk_admin_pb2.LimitChange(
            previous=None if change.previous is None else limit(change.previous),
            limit=None if change.limit is None else limit(change.limit),
            loosened=change.loosened,
            previous_allocations=[] if change.previous is None else allocations([change.previous]),
            allocations=[] if change.limit is None else allocations([change.limit]),
        )
        for change in changes
    ]


def _duration(seconds: float) -> Duration:
    micros = round(seconds * MICROS)
    return Duration(seconds=micros // MICROS, nanos=micros % MICROS * 1_000)


# --- in -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LimitsUpdate:
    """A set of rows that could be armed, and the set that it was made from."""

    rows: tuple[Limit, ...]
    expected: str
    reason: str
    validate_only: bool


def update_of(request: risk_admin_pb2.UpdateLimitsRequest) -> LimitsUpdate:
    """Raises Invalid naming every field at fault."""
    form = Form()
    form.count("limits", len(request.limits), 1, ROWS_MAX)
    form.count("allocations", len(request.allocations), 0, SHARES_MAX)
    expected = form.name("expected_limit_set", request.expected_limit_set)
    reason = form.text("reason", request.reason, required=True)
    form.done()
    rows = _rows(form, request.limits, request.allocations)
    form.done()
    for fault in faults_of(LimitSet(rows), MEASURES):
        form.wrong(_contract_path(fault.path), fault.problem)
    form.done()
    return LimitsUpdate(rows, expected, reason, request.validate_only)


@dataclass(frozen=True, slots=True)
class LimitsProposal:
    """A set to put forward; `policy` None: that of the set in force."""

    rows: tuple[Limit, ...]
    policy: Policy | None
    expected: str
    reason: str


def proposal_of(request: risk_admin_pb2.ProposeLimitsRequest) -> LimitsProposal:
    """Raises Invalid naming every field at fault."""
    form = Form()
    form.count("limits", len(request.limits), 1, ROWS_MAX)
    form.count("allocations", len(request.allocations), 0, SHARES_MAX)
    expected = form.name("expected_limit_set", request.expected_limit_set)
    reason = form.text("reason", request.reason, required=True)
    form.done()
    rows = _rows(form, request.limits, request.allocations)
    policy_told = _policy(form.at("policy"), request.policy) if request.HasField("policy") else None
    form.done()
    for fault in faults_of(LimitSet(rows, policy_told or Policy()), MEASURES):
        form.wrong(_contract_path(fault.path), fault.problem)
    form.done()
    return LimitsProposal(rows, policy_told, expected, reason)


def limit_set_of(response: risk_admin_pb2.GetLimitsResponse) -> LimitSet:
    """The set that a gateway told of, implied rows said. Raises Invalid where another release wrote what this one can't
    read."""
    form = Form()
    rows = _rows(form, response.limits, response.allocations)
    told = _policy(form.at("policy"), response.policy) if response.HasField("policy") else Policy()
    form.done()
    return LimitSet(rows, told)


def changes_of(messages: Iterable[risk_admin_pb2.LimitChange]) -> tuple[LimitChange, ...]:
    """What an answer to UpdateLimits says. Raises Invalid, as `limit_set_of`."""
    form = Form()
    changes = []
    for index, message in enumerate(messages):
        at = form.at("changes", index)
        was = _rows(at, [message.previous], message.previous_allocations) if message.HasField("previous") else (None,)
        now = _rows(at, [message.limit], message.allocations) if message.HasField("limit") else (None,)
        changes.append(LimitChange(was[0], now[0], message.loosened))
    form.done()
    return tuple(changes)


def _rows(form: Form, messages: Sequence[limit_pb2.Limit], shared: Sequence[limit_pb2.Allocation]) -> tuple[Limit, ...]:
    shares = _shares(form, shared, {one.measure for one in messages if one.scope == ScopeKind.FIRM})
    return tuple(_row(form.at("limits", index), message, shares) for index, message in enumerate(messages))


def _shares(form: Form, messages: Sequence[limit_pb2.Allocation], of_firm: set[str]) -> dict[str, dict[str, float]]:
    """By measure and account."""
    shares: dict[str, dict[str, float]] = {}
    for index, message in enumerate(messages):
        entry = form.at("allocations", index)
        if message.measure not in of_firm:
            entry.wrong("measure", f"expected the measure of a limit of scope firm, got {message.measure[:64]!r}")
        of_measure = shares.setdefault(message.measure, {})
        account = entry.name("account", message.account)
        if account in of_measure:
            entry.wrong("account", "expected another than those before it of the same measure")
        if not 0.0 <= message.share <= 1.0:
            entry.wrong("share", f"expected a share from 0 to 1, got {message.share:g}")
        of_measure[account] = message.share
    return shares


def _row(form: Form, message: limit_pb2.Limit, shares: Mapping[str, Mapping[str, float]]) -> Limit:
    action = form.choice("action", message.action, _ACTIONS_READ, LimitAction.REJECT)
    scope = _named(form, "scope", message.scope, {kind.value: kind for kind in ScopeKind}, ScopeKind.ACCOUNT)
    warn = form.not_negative("warn", message.warn) if message.HasField("warn") else None
    return Limit(
        measure=form.name("measure", message.measure),
        scope=scope,
        limit=_bound(form, message, warn, action),
        match=_match(form, "match", message.match),
        account=_match(form, "account", message.account),
        warn=warn,
        unit=_named(form, "unit", message.unit, _UNITS_READ, Unit.MONEY) if message.unit else None,
        action=action,
        window_s=_window_s(form, message),
        halt_state=_halt_state(form, message),
        open_orders=not message.open_orders_excluded,
        allocation=dict(shares.get(message.measure, {})) if scope is ScopeKind.FIRM else {},
        mode=form.choice("mode", message.mode, _MODES_READ, LimitMode.ENFORCED),
        note=form.text("note", message.note),
    )


def _bound(form: Form, message: limit_pb2.Limit, warn: float | None, action: LimitAction) -> float:
    if message.HasField("limit"):
        return form.not_negative("limit", message.limit)
    if warn is None:
        form.wrong("limit", "required: expected the bound, or a warning level in `warn`")
    elif action is not LimitAction.WARN:
        form.wrong("limit", f"required for {action.name}; only a row with action WARN does without")
    return warn or 0.0


def _match(form: Form, field: str, value: str) -> str:
    return EVERY if value in ("", ALL) else form.name(field, value)


def _named(form: Form, field: str, value: str, known: Mapping[str, _Name], default: _Name) -> _Name:
    found = known.get(value)
    if found is None:
        form.wrong(field, f"expected one of {', '.join(known)}, got {value[:64]!r}")
    return found or default


def _window_s(form: Form, message: limit_pb2.Limit) -> float:
    measure = MEASURES.get(message.measure)
    is_rate = measure is not None and Unit.ORDERS in measure.units
    if message.HasField("window"):
        if measure is not None and not is_rate:
            form.wrong("window", f"expected none: {message.measure} is no rate")
        return form.span("window", message.window) / MICROS
    if is_rate:
        form.wrong("window", f"required for {message.measure}: over how long orders are counted")
    return 1.0


def _halt_state(form: Form, message: limit_pb2.Limit) -> HaltState:
    if message.halt_state == NO_HALT:
        return HaltState.REDUCE_ONLY
    if message.action != decision_pb2.ACTION_HALT:
        form.wrong("halt_state", "expected none: only action HALT latches a state")
    return form.choice("halt_state", message.halt_state, _HALT_STATES_READ, HaltState.REDUCE_ONLY)


def _policy(form: Form, message: limit_pb2.LimitPolicy) -> Policy:
    lasting = message.HasField("valid_for_default")
    return Policy(
        order_types=tuple(
            form.choice(f"order_types[{index}]", kind, _ORDER_TYPES_READ, OrderType.MARKET)
            for index, kind in enumerate(message.order_types)
        ),
        times_in_force=tuple(
            form.choice(f"times_in_force[{index}]", kind, _TIMES_IN_FORCE_READ, TimeInForce.DAY)
            for index, kind in enumerate(message.times_in_force)
        ),
        market_slippage=form.not_negative("market_slippage", message.market_slippage),
        mark_age_max_s=_seconds(message.mark_age_max),
        valid_for_default_s=_seconds(message.valid_for_default) if lasting else None,
        model_age_max_s=_seconds(message.model_age_max),
        model_price_lag_days_max=message.model_price_lag_days_max,
        model_lag_sessions_max=message.model_lag_sessions_max,
        order_value_min=form.not_negative("order_value_min", message.order_value_min),
        short_sales_marked=message.short_sales_marked,
        identities_required=tuple(message.identities_required),
        underlying_move_max=form.not_negative("underlying_move_max", message.underlying_move_max)
        if message.HasField("underlying_move_max")
        else Policy().underlying_move_max,
        grades=tuple(form.positive(f"grades[{index}]", grade) for index, grade in enumerate(message.grades)),
        loss_confirmations=message.loss_confirmations or Policy().loss_confirmations,
        breaker=_breaker_read(form.at("breaker"), message.breaker) if message.HasField("breaker") else None,
        volatility_target=form.positive("volatility_target", message.volatility_target)
        if message.HasField("volatility_target")
        else None,
        volatility_scale_min=form.positive("volatility_scale_min", message.volatility_scale_min)
        if message.HasField("volatility_scale_min")
        else Policy().volatility_scale_min,
        volatility_regime=form.choice(
            "volatility_regime", message.volatility_regime, _REGIME_METHODS_READ, RegimeMethod.OFF
        ),
        regime_factors=tuple(
            form.positive(f"regime_factors[{index}]", factor) for index, factor in enumerate(message.regime_factors)
        )
        or Policy().regime_factors,
        cluster_correlation=form.positive("cluster_correlation", message.cluster_correlation)
        if message.HasField("cluster_correlation")
        else Policy().cluster_correlation,
        margin_rates=_rates(form, "margin_rates", message.margin_rates),
        fee_rates=_rates(form, "fee_rates", message.fee_rates),
        cash_haircut=form.not_negative("cash_haircut", message.cash_haircut),
        budget_var_limit=form.positive("budget_var_limit", message.budget_var_limit)
        if message.HasField("budget_var_limit")
        else Policy().budget_var_limit,
        budget_confidence=form.positive("budget_confidence", message.budget_confidence)
        if message.HasField("budget_confidence")
        else Policy().budget_confidence,
        budget_headroom_min=form.not_negative("budget_headroom_min", message.budget_headroom_min)
        if message.HasField("budget_headroom_min")
        else Policy().budget_headroom_min,
        greeks_cut_at=form.positive("greeks_cut_at", message.greeks_cut_at)
        if message.HasField("greeks_cut_at")
        else None,
        flatten_volume_share=form.positive("flatten_volume_share", message.flatten_volume_share)
        if message.HasField("flatten_volume_share")
        else Policy().flatten_volume_share,
        flatten_spread_max=form.positive("flatten_spread_max", message.flatten_spread_max)
        if message.HasField("flatten_spread_max")
        else Policy().flatten_spread_max,
        flatten_interval_s=_seconds(message.flatten_interval)
        if message.HasField("flatten_interval")
        else Policy().flatten_interval_s,
    )


def _rates(form: Form, field: str, told: Mapping[str, float]) -> dict[str, float]:
    return {form.name(field, name): form.not_negative(f"{field}.{name[:64]}", told[name]) for name in sorted(told)}


def _breaker_read(form: Form, message: limit_pb2.BreakerPolicy) -> Breaker:
    """What its numbers may be is the engine's to say, where the set is checked."""
    known = Breaker()
    levels, cuts, releases = tuple(message.levels), tuple(message.cuts), tuple(message.releases)
    for field, told in (("levels", levels), ("cuts", cuts), ("releases", releases)):
        expected = len(getattr(known, field))
        if told and len(told) != expected:
            form.wrong(field, f"expected {expected} numbers or none, got {len(told)}")
    return Breaker(
        levels=(levels[0], levels[1], levels[2]) if len(levels) == 3 else known.levels,
        cuts=(cuts[0], cuts[1]) if len(cuts) == 2 else known.cuts,
        releases=(releases[0], releases[1]) if len(releases) == 2 else known.releases,
        cooldown_sessions=message.cooldown_sessions
        if message.HasField("cooldown_sessions")
        else known.cooldown_sessions,
        recovering_sessions=message.recovering_sessions
        if message.HasField("recovering_sessions")
        else known.recovering_sessions,
        recovery_drawdown=message.recovery_drawdown
        if message.HasField("recovery_drawdown")
        else known.recovery_drawdown,
    )


def _seconds(message: Duration) -> float:
    return (message.seconds * MICROS + message.nanos // 1_000) / MICROS


def _contract_path(path: str) -> str:
    """Where a field of the engine's row stands in the request: limit[3].window_s is limits[3].window."""
    place, _, field = path.replace("limit[", "limits[", 1).partition(".")
    if field.startswith("allocation"):
        return "allocations"
    return f"{place}.{_CONTRACT_FIELDS.get(field, field)}" if field else place
