"""Engine values to answers: decisions, orders, stops, differences. A value that can't be known is left absent,
never sent as zero.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from engine.account import MEMORY_HORIZON_US, AccountState, Escalation, OpenOrder, RecentDecision
from engine.control import Resumed, Scope, Stop, TradingState
from engine.decide import describe
from engine.events import SourceState, UpcomingEvent
from engine.facts import StatedOrder
from engine.headroom import Headroom
from engine.instrument import Instrument
from engine.limits import Unit
from engine.order import Action, Order, OrderType, Reason
from engine.records import Check, Decided, Executed, Latch
from engine.report import RiskReport
from engine.utilisation import LimitUse, UseStatus
from gateway.committer import Answer
from gateway.rpc.approval import Approval, Approvals
from gateway.rpc.convert.form import NUMBER_MAX
from gateway.rpc.convert.requests import Reconciliation
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    limit_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
)

CASH_SLACK = 1e-9
"""Relative: the same payments added up in another order are no difference."""

_ORDER_TYPES = {kind: order_pb2.OrderType.Value(f"ORDER_TYPE_{kind.name}") for kind in OrderType}
_ACTIONS = {
    Action.ALLOW: decision_pb2.ACTION_ALLOW,
    Action.WARN: decision_pb2.ACTION_WARN,
    Action.REDUCE: decision_pb2.ACTION_REDUCE,
    Action.REJECT: decision_pb2.ACTION_REJECT,
    Action.HALT: decision_pb2.ACTION_HALT,
}
_REASONS = {reason: decision_pb2.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
_STATES = {
    TradingState.ACTIVE: control_pb2.TRADING_STATE_ACTIVE,
    TradingState.REDUCE_ONLY: control_pb2.TRADING_STATE_REDUCE_ONLY,
    TradingState.CANCEL_ONLY: control_pb2.TRADING_STATE_CANCEL_ONLY,
    TradingState.HALTED: control_pb2.TRADING_STATE_HALTED,
}
_FLAGS = {
    "unknown_order": risk_gateway_pb2.EXECUTION_FLAG_ORDER_UNKNOWN,
    "overfill": risk_gateway_pb2.EXECUTION_FLAG_OVERFILL,
    "late": risk_gateway_pb2.EXECUTION_FLAG_LATE,
    "in_snapshot": risk_gateway_pb2.EXECUTION_FLAG_IN_SNAPSHOT,
    "off_lot": risk_gateway_pb2.EXECUTION_FLAG_OFF_LOT,
}
_FLAG_WORDS = {
    "unknown_order": "no order of this id was ever decided here",
    "overfill": "more was filled than is reserved for the order",
    "late": "the order had already ended",
    "in_snapshot": "the positions of a later snapshot hold it already; not booked again",
    "off_lot": "it is no whole number of lots: counted as the whole lots that leave the larger position behind",
}
_UNITS = {
    Unit.EQUITY: "ratio",
    Unit.FRACTION: "ratio",
    Unit.QUANTITY: "quantity",
    Unit.SECONDS: "seconds",
    Unit.ORDERS: "orders",
    Unit.COUNT: "count",
    Unit.RULE: "rule",
}


# --- small ones ------------------------------------------------------------------------------------------------------


def timestamp(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def duration(micros: int) -> Duration:
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def known(value: float | None) -> float | None:
    """The value, or None where it is none or not finite."""
    return value if value is not None and math.isfinite(value) else None


def unit_name(unit: str, base_currency: str) -> str:
    """The contract's name of an engine unit; money is named by its currency."""
    return _UNITS.get(Unit(unit), base_currency)


def trading_state(state: TradingState) -> "control_pb2.TradingState.ValueType":
    return _STATES[state]


def scope(value: Scope) -> control_pb2.Scope:
    return control_pb2.Scope(**{name: getattr(value, name) for name in value.__struct_fields__})


# --- decisions -------------------------------------------------------------------------------------------------------


def check_response(
    answer: Answer,
    state: AccountState,
    checks: "decision_pb2.Checks.ValueType",
    approvals: Approvals | None,
    dry_run: bool,
) -> risk_gateway_pb2.CheckOrderResponse:
    """The answer to one order. `state`: its account's, for what never changes of it and for the session. Without
    `approvals` nothing is signed: who only reads of an approval may not send on it."""
    decided = answer.decided
    allowed = decided.action.allows
    response = risk_gateway_pb2.CheckOrderResponse(
        client_order_id=decided.order.client_order_id,
        action=_ACTIONS[decided.action],
        allowed=allowed,
        allowed_quantity=_quantity(decided, state),
        reason=_REASONS[decided.reason],
        message=decided.message,
        checks=[
            check_result(check, state.base_currency)
            for check in decided.checks
            if checks != decision_pb2.CHECKS_BINDING or check.action is not Action.ALLOW
        ],
        account_version=max(0, answer.seq - 1),
        stop_epoch=decided.epoch,
        replayed=answer.replayed,
        decide_time=timestamp(decided.time_us),
        sequence=answer.seq,
        limit_set=decided.limit_set,
        instrument_set=decided.instrument_set,
        risk_model=decided.risk_model,
        session_date=state.session.date if state.session is not None else "",
        idempotency_horizon=duration(MEMORY_HORIZON_US),
        true_reduction=any(check.reduction and not check.shadow for check in decided.checks),
    )
    if answer.prior is not None:
        prior = decision_pb2.PriorDecision(approved=answer.prior.action.allows, sequence=answer.prior.seq)
        response.prior.CopyFrom(prior)
    if allowed and decided.expires_us is not None:
        response.valid_until.CopyFrom(timestamp(decided.expires_us))
    if allowed and not dry_run and approvals is not None:
        response.approval = approvals.sign(
            Approval(decided.digest, decided.allowed_lots, decided.epoch, decided.expires_us)
        )
    return response


def allowed_in_full(decided: Decided) -> bool:
    return decided.action in (Action.ALLOW, Action.WARN)


def _quantity(decided: Decided, state: AccountState) -> float:
    """What is reserved, in units. The asked quantity as it was given, so that no digit of it changes on the way."""
    if not decided.allowed_lots:
        return 0.0
    if allowed_in_full(decided):
        return decided.order.quantity
    listed = state.listed.get(decided.order.symbol)
    lot_size = listed.lot_size if listed is not None else decided.order.quantity / decided.lots
    return decided.allowed_lots * lot_size


def check_result(check: Check, base_currency: str) -> decision_pb2.CheckResult:
    after = known(check.after)
    speaks = check.action is not Action.ALLOW or check.reduction
    return decision_pb2.CheckResult(
        measure=check.measure,
        scope=check.scope,
        before=known(check.before),
        after=after,
        warn=check.warn,
        limit=check.limit,
        unit=unit_name(check.unit, base_currency),
        utilization=None if after is None or check.limit == 0 else after / check.limit,
        action=_ACTIONS[check.action],
        reason=_REASONS[check.reason],
        input_age=duration(check.input_age_us) if check.input_age_us > 0 else None,
        upper_bound=check.upper_bound,
        unevaluable=after is None,
        true_reduction=check.reduction,
        message=describe(check) if speaks else "",
        shadow=check.shadow,
    )


def headroom(found: Headroom, instrument: Instrument | None) -> risk_gateway_pb2.Headroom:
    """`instrument`: None where the symbol is not registered."""
    return risk_gateway_pb2.Headroom(
        symbol=found.symbol,
        max_buy_quantity=_sendable(found.buy.lots, instrument),
        max_sell_quantity=_sendable(found.sell.lots, instrument),
        binding_measure=found.buy.binding,
        binding_sell_measure=found.sell.binding,
        buy_reason=_REASONS[found.buy.reason],
        sell_reason=_REASONS[found.sell.reason],
    )


def _sendable(lots: int, instrument: Instrument | None) -> float:
    """Lots as a quantity that an order may have on the wire."""
    if instrument is None:
        return 0.0
    return min(lots, int(NUMBER_MAX // instrument.lot_size)) * instrument.lot_size


# --- orders and executions -------------------------------------------------------------------------------------------


def open_order(state: AccountState, order: OpenOrder, now_us: int) -> order_pb2.OpenOrder:
    lot_size = state.listed[order.symbol].lot_size
    message = order_pb2.OpenOrder(
        account=state.account,
        strategy=order.strategy,
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order_pb2.SIDE_BUY if order.sign > 0 else order_pb2.SIDE_SELL,
        quantity=order.held * lot_size,
        leaves_quantity=order.leaves * lot_size,
        limit_price=order.limit_price,
        state=_order_state(order, now_us),
        sequence=order.seq,
        stop_epoch=order.epoch,
        approve_time=timestamp(order.time_us),
        order_type=_ORDER_TYPES[order.order_type],
    )
    if order.expires_us is not None:
        message.valid_until.CopyFrom(timestamp(order.expires_us))
    return message


def _order_state(order: OpenOrder, now_us: int) -> "order_pb2.OpenOrderState.ValueType":
    if order.cancel_requested:
        return order_pb2.OPEN_ORDER_STATE_CANCEL_REQUESTED
    if order.filled and order.working:
        return order_pb2.OPEN_ORDER_STATE_PARTIAL
    if order.working:
        return order_pb2.OPEN_ORDER_STATE_WORKING
    suspect = order.suspect(now_us)
    return order_pb2.OPEN_ORDER_STATE_SUSPECT if suspect else order_pb2.OPEN_ORDER_STATE_APPROVED


def execution_result(
    account: str, execution_id: str, seq: int, record: Executed | None
) -> risk_gateway_pb2.ExecutionResult:
    """`record`: what was appended for the report; None for a duplicate."""
    flags = record.flags if record is not None else ()
    return risk_gateway_pb2.ExecutionResult(
        execution_id=execution_id,
        account=account,
        sequence=seq,
        duplicate=record is None,
        flags=[_FLAGS[flag] for flag in flags],
        message="; ".join(_FLAG_WORDS[flag] for flag in flags),
    )


# --- trading states --------------------------------------------------------------------------------------------------


def stop_cause(stop: Stop) -> control_pb2.TradingStateCause:
    return control_pb2.TradingStateCause(
        scope=scope(stop.scope),
        state=_STATES[stop.state],
        origin=control_pb2.TRADING_STATE_ORIGIN_STOP,
        reason=stop.reason,
        actor=stop.actor,
        stop_epoch=stop.epoch,
        set_time=timestamp(stop.time_us),
    )


def latch_cause(latch: Latch, seq: int) -> control_pb2.TradingStateCause:
    integrity = latch.needs_reconciliation
    return control_pb2.TradingStateCause(
        scope=scope(latch.scope),
        state=_STATES[latch.state],
        origin=control_pb2.TRADING_STATE_ORIGIN_INTEGRITY if integrity else control_pb2.TRADING_STATE_ORIGIN_LIMIT,
        reason=latch.cause,
        actor="gateway",
        stop_epoch=latch.epoch,
        sequence=seq,
    )


def state_change(
    account: str, change: Stop | Resumed, previous: TradingState, now: TradingState
) -> control_pb2.TradingStateChange:
    return control_pb2.TradingStateChange(
        account=account,
        scope=scope(change.scope),
        previous_state=_STATES[previous],
        trading_state=_STATES[now],
        stop_epoch=change.epoch,
        reason=change.reason,
        actor=change.actor,
        change_time=timestamp(change.time_us),
    )


def latch_change(
    account: str, latch: Latch, previous: TradingState, epoch: int, time_us: int
) -> control_pb2.TradingStateChange:
    return control_pb2.TradingStateChange(
        account=account,
        scope=scope(latch.scope),
        previous_state=_STATES[previous],
        trading_state=_STATES[latch.state],
        stop_epoch=epoch,
        reason=latch.cause,
        actor="gateway",
        change_time=timestamp(time_us),
    )


# --- reconciliation --------------------------------------------------------------------------------------------------


def differences(
    state: AccountState, told: Reconciliation, lot_sizes: Mapping[str, float]
) -> Iterable[risk_admin_pb2.Difference]:
    """Where `state`, as it was, and the broker differ. `lot_sizes`: of the symbols that the state does not list."""
    yield from _position_differences(state, told, lot_sizes)
    if told.open_orders is not None:
        yield from _order_differences(state, told.open_orders, told.snapshot_us)
    for currency, amount in sorted((told.cash or {}).items()):
        recorded = state.cash.get(currency, 0.0)
        if abs(recorded - amount) > CASH_SLACK * max(1.0, abs(amount)):
            yield risk_admin_pb2.Difference(
                kind=risk_admin_pb2.DIFFERENCE_KIND_CASH, symbol=currency, recorded=recorded, reported=amount
            )


def _position_differences(
    state: AccountState, told: Reconciliation, lot_sizes: Mapping[str, float]
) -> Iterable[risk_admin_pb2.Difference]:
    stated = {(position.strategy, position.symbol): position.quantity for position in told.positions}
    for strategy, symbol in sorted(state.holdings.keys() | stated.keys()):
        listed = state.listed.get(symbol)
        lot_size = listed.lot_size if listed is not None else lot_sizes[symbol]
        recorded, reported = state.holding(strategy, symbol).lots * lot_size, stated.get((strategy, symbol), 0.0)
        if abs(recorded - reported) > lot_size / 2:
            yield risk_admin_pb2.Difference(
                kind=risk_admin_pb2.DIFFERENCE_KIND_POSITION,
                strategy=strategy,
                symbol=symbol,
                recorded=recorded,
                reported=reported,
            )


def _order_differences(
    state: AccountState, open_orders: Sequence[StatedOrder], snapshot_us: int
) -> Iterable[risk_admin_pb2.Difference]:
    told = {stated.client_order_id: stated for stated in open_orders}
    for client_order_id in sorted(state.orders.keys() | told.keys()):
        order, stated = state.orders.get(client_order_id), told.get(client_order_id)
        reported = stated.leaves_quantity if stated is not None else 0.0
        lot_size = state.listed[order.symbol].lot_size if order is not None else 0.0
        recorded = order.leaves * lot_size if order is not None else 0.0
        if abs(recorded - reported) <= lot_size / 2:
            continue
        if order is not None and stated is None and order.time_us >= snapshot_us:
            continue  # decided after the broker was asked: no difference, it could not know
        known = order or stated
        assert known is not None, "an id is open here or at the broker"
        yield risk_admin_pb2.Difference(
            kind=risk_admin_pb2.DIFFERENCE_KIND_OPEN_ORDER,
            strategy=known.strategy,
            symbol=known.symbol,
            client_order_id=client_order_id,
            recorded=recorded,
            reported=reported,
        )


# --- what was decided, to be read ------------------------------------------------------------------------------------


def recent_decision(state: AccountState, recent: RecentDecision) -> account_pb2.RecentDecision:
    """A decision as a line of history, in units of the instrument."""
    order, allowed = recent.order, 0.0
    if recent.allowed_lots:
        reduced = recent.action is Action.REDUCE
        allowed = recent.allowed_lots * state.listed[order.symbol].lot_size if reduced else order.quantity
    return account_pb2.RecentDecision(
        sequence=recent.seq,
        decide_time=timestamp(recent.time_us),
        client_order_id=order.client_order_id,
        strategy=order.strategy,
        symbol=order.symbol,
        side=order_pb2.Side.Value(f"SIDE_{order.side.name}"),
        quantity=order.quantity,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        action=_ACTIONS[recent.action],
        allowed_quantity=allowed,
        reason=_REASONS[recent.reason],
        message=recent.message,
        stop_epoch=recent.epoch,
    )


def asked_order(order: Order) -> order_pb2.Order:
    """An order as it was asked for."""
    message = order_pb2.Order(
        account=order.account,
        strategy=order.strategy,
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order_pb2.Side.Value(f"SIDE_{order.side.name}"),
        quantity=order.quantity,
        order_type=_ORDER_TYPES[order.order_type],
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        time_in_force=order_pb2.TimeInForce.Value(f"TIME_IN_FORCE_{order.time_in_force.name}"),
        reduce_only=order.reduce_only,
        replaces_client_order_id=order.replaces_client_order_id,
        algo_id=order.algo_id,
        trader_id=order.trader_id,
        desk_id=order.desk_id,
        client_id=order.client_id,
        venue=order.venue,
    )
    if order.valid_for_us is not None:
        message.valid_for.CopyFrom(duration(order.valid_for_us))
    return message


# --- alerts ----------------------------------------------------------------------------------------------------------


def escalation_alert(account: str, escalation: Escalation) -> risk_gateway_pb2.Alert:
    """An instruction that nobody answered or carried out in time, or that can't be done."""
    return risk_gateway_pb2.Alert(
        alert_id=f"escalated {escalation.instruction_id}",
        kind="instruction_unanswered",
        severity=risk_gateway_pb2.SEVERITY_CRITICAL,
        account=account,
        message=escalation.message,
        sequence=escalation.seq,
        alert_time=timestamp(escalation.time_us),
    )


_LOUD = {"FLATTEN": risk_gateway_pb2.SEVERITY_CRITICAL, "ALERT": risk_gateway_pb2.SEVERITY_NOTICE}


def event_alert(report: RiskReport, event: UpcomingEvent) -> risk_gateway_pb2.Alert:
    """A window of an event that has opened."""
    return risk_gateway_pb2.Alert(
        alert_id=f"event {report.account} {event.event_id} {event.symbol} {event.from_us}",
        kind="event_window",
        severity=_LOUD.get(event.action, risk_gateway_pb2.SEVERITY_WARNING),
        account=report.account,
        scope="" if event.symbol == "*" else f"symbol:{event.symbol}",
        message=f"{event.name} of {event.date}: its window is open, {event.action.lower().replace('_', ' ')}",
        sequence=report.seq,
        alert_time=timestamp(report.time_us),
    )


def calendar_alert(report: RiskReport, source: SourceState) -> risk_gateway_pb2.Alert:
    """A calendar of events that is stale, or was never read."""
    return risk_gateway_pb2.Alert(
        alert_id=f"calendar {report.account} {source.source}",
        kind="event_source",
        severity=risk_gateway_pb2.SEVERITY_WARNING,
        account=report.account,
        message=f"the calendar {source.source} is stale, its last good events stay in force: "
        f"{source.message or 'it was not read for long'}",
        sequence=report.seq,
        alert_time=timestamp(report.time_us),
    )


def grade_alert(report: RiskReport, use: LimitUse) -> risk_gateway_pb2.Alert:
    """A limit whose use has climbed to a grade of its bound."""
    past = use.status is UseStatus.BREACHED
    value = "not known now" if use.value is None else f"{use.value:,.6g} {use.unit}"
    return risk_gateway_pb2.Alert(
        alert_id=f"grade {report.account} {use.measure} {use.scope} {use.limit:g} {use.grade:g}",
        kind="limit_grade",
        severity=risk_gateway_pb2.SEVERITY_CRITICAL if past and use.hard else risk_gateway_pb2.SEVERITY_WARNING,
        account=report.account,
        scope=use.scope,
        message=f"{use.measure} of {use.scope} has reached {use.grade:.0%} of its limit {use.limit:,.6g}: "
        f"it is {value}",
        sequence=report.seq,
        alert_time=timestamp(report.time_us),
    )


def suspect_alert(account: str, order: OpenOrder, lot_size: float, now_us: int) -> risk_gateway_pb2.Alert:
    """An approval that nobody reported, past its validity or its session."""
    side = "buy" if order.sign > 0 else "sell"
    return risk_gateway_pb2.Alert(
        alert_id=f"suspect {account} {order.client_order_id}",
        kind="order_suspect",
        severity=risk_gateway_pb2.SEVERITY_WARNING,
        account=account,
        scope=f"symbol:{order.symbol}",
        message=f"{order.client_order_id}, approved to {side} {order.leaves * lot_size:g} {order.symbol}, was never "
        "reported and is past its time; it stays counted until it is reported, as NOT_SENT if it never left",
        sequence=order.seq,
        alert_time=timestamp(now_us),
    )


def unevaluable_alert(state: account_pb2.RiskState, use: limit_pb2.LimitUse) -> risk_gateway_pb2.Alert:
    """A limit that can't be judged while orders work."""
    return risk_gateway_pb2.Alert(
        alert_id=f"unevaluable {state.account} {use.measure} {use.scope}",
        kind="limit_unevaluable",
        severity=risk_gateway_pb2.SEVERITY_WARNING,
        account=state.account,
        scope=use.scope,
        message=f"{use.measure} of {use.scope} can't be evaluated while orders work, none is cancelled for it: "
        f"{use.message}",
        sequence=state.sequence,
        alert_time=state.state_time,
    )


def shadow_counts(state: AccountState) -> list[account_pb2.ShadowCount]:
    """What limits in shadow would have done."""
    return [
        account_pb2.ShadowCount(measure=measure, action=_ACTIONS[action], checks=checks)
        for (measure, action), checks in sorted(state.shadow_by_action.items())
    ]
