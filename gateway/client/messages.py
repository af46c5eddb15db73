"""The only bridge between the client's values and the contract's messages: one function a message, both ways.

Nothing is judged here, and nothing is lost: a value of an enum that this release does not know keeps its number as
name, and counts as nothing else.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.client import values
from gateway.client.errors import RiskError
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    execution_pb2,
    limit_pb2,
    order_pb2,
    risk_gateway_pb2,
)

_SIDES: dict[values.Side, order_pb2.Side.ValueType] = {
    "buy": order_pb2.SIDE_BUY,
    "sell": order_pb2.SIDE_SELL,
    "sell_short": order_pb2.SIDE_SELL_SHORT,
}
_SIDE_NAMES = {number: name for name, number in _SIDES.items()}
_TIMES_IN_FORCE: dict[values.TimeInForce, order_pb2.TimeInForce.ValueType] = {
    "day": order_pb2.TIME_IN_FORCE_DAY,
    "gtc": order_pb2.TIME_IN_FORCE_GTC,
    "ioc": order_pb2.TIME_IN_FORCE_IOC,
    "fok": order_pb2.TIME_IN_FORCE_FOK,
    "gtd": order_pb2.TIME_IN_FORCE_GTD,
    "at_open": order_pb2.TIME_IN_FORCE_AT_OPEN,
    "at_close": order_pb2.TIME_IN_FORCE_AT_CLOSE,
}
_TIME_IN_FORCE_NAMES = {number: name for name, number in _TIMES_IN_FORCE.items()}
_KINDS: dict[values.ReportKind, execution_pb2.ExecutionKind.ValueType] = {
    "working": execution_pb2.EXECUTION_KIND_WORKING,
    "fill": execution_pb2.EXECUTION_KIND_FILL,
    "cancel_requested": execution_pb2.EXECUTION_KIND_CANCEL_REQUESTED,
    "cancelled": execution_pb2.EXECUTION_KIND_CANCELLED,
    "rejected": execution_pb2.EXECUTION_KIND_REJECTED,
    "expired": execution_pb2.EXECUTION_KIND_EXPIRED,
    "not_sent": execution_pb2.EXECUTION_KIND_NOT_SENT,
}
_MODES: dict[values.StopMode, control_pb2.TradingState.ValueType] = {
    "reduce_only": control_pb2.TRADING_STATE_REDUCE_ONLY,
    "cancel_only": control_pb2.TRADING_STATE_CANCEL_ONLY,
    "halted": control_pb2.TRADING_STATE_HALTED,
}
_STATUSES: dict[values.InstructionStatus, risk_gateway_pb2.InstructionStatus.ValueType] = {
    "received": risk_gateway_pb2.INSTRUCTION_STATUS_RECEIVED,
    "done": risk_gateway_pb2.INSTRUCTION_STATUS_DONE,
    "failed": risk_gateway_pb2.INSTRUCTION_STATUS_FAILED,
}
_ORDER_TYPES = {
    # (has a limit price, has a stop price)
    (False, False): order_pb2.ORDER_TYPE_MARKET,
    (True, False): order_pb2.ORDER_TYPE_LIMIT,
    (False, True): order_pb2.ORDER_TYPE_STOP,
    (True, True): order_pb2.ORDER_TYPE_STOP_LIMIT,
}


# --- out -------------------------------------------------------------------------------------------------------------


def order(asked: values.Order) -> order_pb2.Order:
    """Raises ValueError for a side or time in force that is none."""
    return order_pb2.Order(
        account=asked.account,
        strategy=asked.strategy,
        client_order_id=asked.client_order_id,
        symbol=asked.symbol,
        side=one_of(_SIDES, asked.side, "side"),
        quantity=asked.quantity,
        order_type=_ORDER_TYPES[asked.limit_price is not None, asked.stop_price is not None],
        limit_price=asked.limit_price,
        stop_price=asked.stop_price,
        time_in_force=one_of(_TIMES_IN_FORCE, asked.time_in_force, "time_in_force"),
        reduce_only=asked.reduce_only,
        replaces_client_order_id=asked.replaces,
        valid_for=None if asked.valid_for_s is None else duration(asked.valid_for_s),
        algo_id=asked.algo_id,
        trader_id=asked.trader_id,
        desk_id=asked.desk_id,
        client_id=asked.client_id,
        venue=asked.venue,
    )


def execution(report: values.Report) -> execution_pb2.Execution:
    """Raises ValueError for a kind or side that is none."""
    return execution_pb2.Execution(
        account=report.account,
        execution_id=report.execution_id,
        client_order_id=report.client_order_id,
        kind=one_of(_KINDS, report.kind, "kind"),
        strategy=report.strategy,
        symbol=report.symbol,
        side=order_pb2.SIDE_UNSPECIFIED if report.side is None else one_of(_SIDES, report.side, "side"),
        last_quantity=report.quantity,
        last_price=report.price,
        cumulative_quantity=report.cumulative_quantity,
        leaves_quantity=report.leaves_quantity,
        fee=report.fee,
        fee_currency=report.fee_currency,
        execution_time=None if report.execution_time is None else timestamp(report.execution_time),
        venue_order_id=report.venue_order_id,
        text=report.text,
    )


def mode(name: values.StopMode) -> control_pb2.TradingState.ValueType:
    """Raises ValueError for a mode that is none."""
    number: control_pb2.TradingState.ValueType = one_of(_MODES, name, "mode")
    return number


def outcome(instruction_id: str, status: values.InstructionStatus, text: str) -> risk_gateway_pb2.InstructionOutcome:
    """Raises ValueError for a status that is none."""
    return risk_gateway_pb2.InstructionOutcome(
        instruction_id=instruction_id, status=one_of(_STATUSES, status, "status"), text=text
    )


def one_of(numbers: dict[Any, Any], name: str, field: str) -> Any:
    if name not in numbers:
        raise ValueError(f"{field}: expected one of {', '.join(map(str, numbers))}, got {name!r}")
    return numbers[name]


def duration(seconds: float) -> Duration:
    """Raises ValueError where it is not finite."""
    if not abs(seconds) < 1e12:
        raise ValueError(f"valid_for_s: expected a number of seconds, got {seconds}")
    span = Duration()
    span.FromMicroseconds(round(seconds * 1e6))
    return span


def timestamp(moment: datetime) -> Timestamp:
    """Raises ValueError where it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"execution_time: expected a datetime with a time zone, got {moment.isoformat()}")
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return stamp


# --- in --------------------------------------------------------------------------------------------------------------


def name_of(enum: Any, number: int, prefix: str) -> str:
    """Its name without the prefix; the number where this release does not know it."""
    known = enum.values_by_number.get(number)
    return str(number) if known is None else known.name.removeprefix(prefix)


def action_name(number: int) -> str:
    return name_of(decision_pb2.Action.DESCRIPTOR, number, "ACTION_")


def reason_name(number: int) -> str:
    return name_of(decision_pb2.Reason.DESCRIPTOR, number, "REASON_")


def state_name(number: int) -> str:
    return name_of(control_pb2.TradingState.DESCRIPTOR, number, "TRADING_STATE_")


def side_name(number: order_pb2.Side.ValueType) -> values.Side:
    """Raises RiskError for a side that this release does not know: none may be taken for another."""
    if number not in _SIDE_NAMES:
        raise RiskError(f"the gateway named side {number}, which this release of the client does not know")
    return _SIDE_NAMES[number]


def time_in_force_name(number: order_pb2.TimeInForce.ValueType) -> values.TimeInForce:
    """Raises RiskError for one that this release does not know."""
    if number not in _TIME_IN_FORCE_NAMES:
        raise RiskError(f"the gateway named time in force {number}, which this release of the client does not know")
    return _TIME_IN_FORCE_NAMES[number]


def time_of(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def time_in(message: Any, field: str) -> datetime | None:
    """The time in a field; None where it is absent."""
    return time_of(getattr(message, field)) if message.HasField(field) else None


def number_in(message: Any, field: str) -> float | None:
    """The number in an optional field; None where it is absent."""
    return float(getattr(message, field)) if message.HasField(field) else None


def check(result: decision_pb2.CheckResult) -> values.Check:
    return values.Check(
        measure=result.measure,
        scope=result.scope,
        action=action_name(result.action),
        reason=reason_name(result.reason),
        before=number_in(result, "before"),
        after=number_in(result, "after"),
        warn=number_in(result, "warn"),
        limit=number_in(result, "limit"),
        unit=result.unit,
        utilization=number_in(result, "utilization"),
        input_age_s=result.input_age.ToMicroseconds() / 1e6 if result.HasField("input_age") else None,
        message=result.message,
        raw=result,
    )


def prior(response: risk_gateway_pb2.CheckOrderResponse) -> values.Prior | None:
    if not response.HasField("prior"):
        return None
    return values.Prior(response.prior.approved, response.prior.sequence)


def headrooms(response: risk_gateway_pb2.GetHeadroomResponse) -> tuple[values.Headroom, ...]:
    return tuple(
        values.Headroom(
            symbol=row.symbol,
            max_buy=row.max_buy_quantity,
            max_sell=row.max_sell_quantity,
            binding_buy=row.binding_measure,
            binding_sell=row.binding_sell_measure,
            buy_reason=reason_name(row.buy_reason),
            sell_reason=reason_name(row.sell_reason),
            sequence=response.sequence,
            epoch=response.stop_epoch,
            raw=row,
        )
        for row in response.headrooms
    )


def reported(result: risk_gateway_pb2.ExecutionResult) -> values.Reported:
    flags = risk_gateway_pb2.ExecutionFlag.DESCRIPTOR
    return values.Reported(
        execution_id=result.execution_id,
        account=result.account,
        sequence=result.sequence,
        duplicate=result.duplicate,
        flags=tuple(name_of(flags, flag, "EXECUTION_FLAG_") for flag in result.flags),
        message=result.message,
        raw=result,
    )


def open_order(entry: order_pb2.OpenOrder) -> values.OpenOrder:
    return values.OpenOrder(
        account=entry.account,
        strategy=entry.strategy,
        client_order_id=entry.client_order_id,
        symbol=entry.symbol,
        side=side_name(entry.side),
        quantity=entry.quantity,
        leaves_quantity=entry.leaves_quantity,
        limit_price=number_in(entry, "limit_price"),
        state=name_of(order_pb2.OpenOrderState.DESCRIPTOR, entry.state, "OPEN_ORDER_STATE_"),
        sequence=entry.sequence,
        epoch=entry.stop_epoch,
    )


def position(entry: account_pb2.Position) -> values.Position:
    return values.Position(
        strategy=entry.strategy,
        symbol=entry.symbol,
        quantity=entry.quantity,
        average_cost=entry.average_cost,
        mark=number_in(entry, "mark"),
        market_value=number_in(entry, "market_value"),
        open_buy_quantity=entry.open_buy_quantity,
        open_sell_quantity=entry.open_sell_quantity,
        unrealised_pnl=number_in(entry, "unrealised_pnl"),
    )


def limit_use(row: limit_pb2.LimitUse) -> values.LimitUse:
    return values.LimitUse(
        measure=row.measure,
        scope=row.scope,
        value=number_in(row, "value"),
        warn=number_in(row, "warn"),
        limit=number_in(row, "limit"),
        unit=row.unit,
        utilization=number_in(row, "utilization"),
        headroom=number_in(row, "headroom"),
        status=name_of(limit_pb2.LimitStatus.DESCRIPTOR, row.status, "LIMIT_STATUS_"),
    )


def cause(message: control_pb2.TradingStateCause) -> values.Cause:
    return values.Cause(
        account=message.scope.account,
        strategy=message.scope.strategy,
        symbol=message.scope.symbol,
        algo=message.scope.algo,
        trader=message.scope.trader,
        desk=message.scope.desk,
        trading_state=state_name(message.state),
        origin=name_of(control_pb2.TradingStateOrigin.DESCRIPTOR, message.origin, "TRADING_STATE_ORIGIN_"),
        reason=message.reason,
        actor=message.actor,
        epoch=message.stop_epoch,
    )


def risk_state(state: account_pb2.RiskState) -> values.RiskState:
    return values.RiskState(
        account=state.account,
        sequence=state.sequence,
        epoch=state.stop_epoch,
        state_time=time_of(state.state_time),
        trading_state=state_name(state.trading_state),
        causes=tuple(map(cause, state.causes)),
        base_currency=state.base_currency,
        equity=number_in(state, "equity"),
        drawdown=number_in(state, "drawdown"),
        session_date=state.session_date,
        session_pnl=number_in(state, "session_pnl"),
        gross_exposure=number_in(state, "gross_exposure"),
        net_exposure=number_in(state, "net_exposure"),
        positions=tuple(map(position, state.positions)),
        open_orders=tuple(map(open_order, state.open_orders)),
        limits=tuple(map(limit_use, state.limits)),
        raw=state,
    )


def state_change(change: control_pb2.TradingStateChange) -> values.StateChange:
    return values.StateChange(
        account=change.account or change.scope.account,
        strategy=change.scope.strategy,
        symbol=change.scope.symbol,
        algo=change.scope.algo,
        trader=change.scope.trader,
        desk=change.scope.desk,
        previous=state_name(change.previous_state),
        trading_state=state_name(change.trading_state),
        epoch=change.stop_epoch,
        reason=change.reason,
        actor=change.actor,
        raw=change,
    )


def alert(message: risk_gateway_pb2.Alert) -> values.Alert:
    return values.Alert(
        kind=message.kind,
        severity=name_of(risk_gateway_pb2.Severity.DESCRIPTOR, message.severity, "SEVERITY_"),
        account=message.account,
        scope=message.scope,
        message=message.message,
        raw=message,
    )


def update(message: risk_gateway_pb2.RiskStateUpdate) -> values.Update | None:
    """None for news of a kind that this release does not know."""
    match message.WhichOneof("update"):
        case "risk_state":
            return risk_state(message.risk_state)
        case "trading_state_change":
            return state_change(message.trading_state_change)
        case "alert":
            return alert(message.alert)
        case "heartbeat":
            return values.Heartbeat(message.heartbeat.store_available)
    return None


def flatten_order(message: risk_gateway_pb2.FlattenOrder) -> values.FlattenOrder:
    sent = message.order
    own = values.Order(
        side=side_name(sent.side),
        symbol=sent.symbol,
        quantity=sent.quantity,
        account=sent.account,
        client_order_id=sent.client_order_id,
        strategy=sent.strategy,
        limit_price=number_in(sent, "limit_price"),
        stop_price=number_in(sent, "stop_price"),
        time_in_force=time_in_force_name(sent.time_in_force),
        reduce_only=sent.reduce_only,
    )
    return values.FlattenOrder(own, message.sequence, message.approval)


def stopped(response: risk_gateway_pb2.StopAllResponse) -> values.Stopped:
    return values.Stopped(
        epoch=response.stop_epoch,
        trading_state=state_name(response.trading_state),
        open_orders=tuple(map(open_order, response.open_orders)),
        flatten_orders=tuple(map(flatten_order, response.flatten_orders)),
        warnings=tuple(response.warnings),
        raw=response,
    )


def resumed(response: risk_gateway_pb2.ResumeResponse) -> values.Resumed:
    return values.Resumed(
        epoch=response.stop_epoch,
        trading_state=state_name(response.trading_state),
        causes=tuple(map(cause, response.causes)),
        raw=response,
    )


def instruction(message: risk_gateway_pb2.Instruction) -> values.Instruction:
    return values.Instruction(
        instruction_id=message.instruction_id,
        account=message.account,
        sequence=message.sequence,
        kind=name_of(risk_gateway_pb2.InstructionKind.DESCRIPTOR, message.kind, "INSTRUCTION_KIND_"),
        client_order_id=message.client_order_id,
        venue_order_id=message.venue_order_id,
        flatten_order=flatten_order(message.flatten_order) if message.HasField("flatten_order") else None,
        reason=reason_name(message.reason),
        message=message.message,
        epoch=message.stop_epoch,
        deadline_time=time_in(message, "deadline_time"),
        repeats=message.repeats,
        raw=message,
    )
