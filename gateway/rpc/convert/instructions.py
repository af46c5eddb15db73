"""Instructions: what an execution engine sends of them, and what it is sent. Shapes only, nothing is decided here."""

from collections.abc import Iterable
from itertools import islice

from engine.account import AccountState, Instruction
from engine.control import Scope
from engine.instructions import Outcome
from engine.order import Order, OrderType, Reason, TimeInForce
from engine.records import InstructionKind, InstructionStatus
from gateway.rpc.approval import Approval, Approvals
from gateway.rpc.convert.form import Form, Invalid
from gateway.rpc.convert.requests import STREAM_ACCOUNTS_MAX
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import account_pb2, decision_pb2, order_pb2, risk_gateway_pb2

ID_CHARS_MAX = 200
OUTSTANDING_MAX = 100
"""In an account's state; the stream carries all."""

_STATUSES: dict[int, InstructionStatus] = {
    risk_gateway_pb2.INSTRUCTION_STATUS_RECEIVED: InstructionStatus.RECEIVED,
    risk_gateway_pb2.INSTRUCTION_STATUS_DONE: InstructionStatus.DONE,
    risk_gateway_pb2.INSTRUCTION_STATUS_FAILED: InstructionStatus.FAILED,
}
_KINDS = {
    InstructionKind.CANCEL: risk_gateway_pb2.INSTRUCTION_KIND_CANCEL,
    InstructionKind.FLATTEN: risk_gateway_pb2.INSTRUCTION_KIND_FLATTEN,
    InstructionKind.CUT: risk_gateway_pb2.INSTRUCTION_KIND_CUT,
}
_REASONS = {reason: decision_pb2.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
_ORDER_TYPES = {kind: order_pb2.OrderType.Value(f"ORDER_TYPE_{kind.name}") for kind in OrderType}
_TIMES_IN_FORCE = {kind: order_pb2.TimeInForce.Value(f"TIME_IN_FORCE_{kind.name}") for kind in TimeInForce}


def subscription_of(message: risk_gateway_pb2.InstructionAck) -> tuple[str, ...]:
    """The accounts to follow, each once; none: all. Raises Invalid unless the message subscribes."""
    form = Form()
    if message.WhichOneof("message") != "subscription":
        form.wrong("subscription", "expected as the first message of the stream, and only there")
        raise Invalid(form.violations)
    accounts = message.subscription.accounts
    inner = form.at("subscription")
    inner.count("accounts", len(accounts), 0, STREAM_ACCOUNTS_MAX)
    for i, account in enumerate(accounts[:STREAM_ACCOUNTS_MAX]):
        inner.name(f"accounts[{i}]", account)
    form.done()
    return tuple(dict.fromkeys(accounts))


def outcome_of(message: risk_gateway_pb2.InstructionAck) -> Outcome:
    """What became of an instruction. Raises Invalid for anything else."""
    form = Form()
    if message.WhichOneof("message") != "outcome":
        form.wrong("outcome", "expected in every message after the first")
        raise Invalid(form.violations)
    inner, told = form.at("outcome"), message.outcome
    outcome = Outcome(
        inner.name("instruction_id", told.instruction_id, chars_max=ID_CHARS_MAX),
        inner.choice("status", told.status, _STATUSES, InstructionStatus.RECEIVED),
        inner.text("text", told.text),
    )
    form.done()
    return outcome


def instruction(
    state: AccountState, found: Instruction, repeats: int, approvals: Approvals
) -> risk_gateway_pb2.Instruction:
    """`repeats`: how often it was sent before."""
    order = found.order
    message = risk_gateway_pb2.Instruction(
        instruction_id=found.instruction_id,
        account=state.account,
        sequence=found.seq,
        kind=_KINDS[found.kind],
        reason=_REASONS[found.reason],
        message=found.message,
        stop_epoch=found.epoch,
        instruct_time=timestamp(found.time_us),
        deadline_time=timestamp(found.deadline_us),
        repeats=repeats,
    )
    if order is None:
        message.client_order_id = found.client_order_id
    else:
        message.flatten_order.CopyFrom(_flatten_order(found, order, approvals))
    return message


def flatten_orders(
    state: AccountState, scope: Scope, approvals: Approvals, most: int
) -> list[risk_gateway_pb2.FlattenOrder]:
    """The gateway's own orders in scope that are not answered yet, oldest first, at most `most`."""
    wanted = (
        (found, found.order)
        for found in state.instructions.values()
        if found.order is not None
        and found.status is InstructionStatus.UNANSWERED
        and scope.reaches(state.account, found.order.strategy, found.order.symbol)
    )
    return [_flatten_order(found, order, approvals) for found, order in islice(wanted, most)]


def _flatten_order(found: Instruction, order: Order, approvals: Approvals) -> risk_gateway_pb2.FlattenOrder:
    return risk_gateway_pb2.FlattenOrder(
        order=order_message(order),
        sequence=found.seq,
        approval=approvals.sign(Approval(order.digest, found.lots, found.epoch, None)),
    )


def order_message(order: Order) -> order_pb2.Order:
    """One of the gateway's own orders: they have no validity and nobody's ids."""
    return order_pb2.Order(
        account=order.account,
        strategy=order.strategy,
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order_pb2.Side.Value(f"SIDE_{order.side.name}"),
        quantity=order.quantity,
        order_type=_ORDER_TYPES[order.order_type],
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        time_in_force=_TIMES_IN_FORCE[order.time_in_force],
        reduce_only=order.reduce_only,
    )


def outstanding(state: AccountState) -> Iterable[account_pb2.OutstandingInstruction]:
    """The oldest of what is not over, as lines to be read."""
    for found in islice(state.instructions.values(), OUTSTANDING_MAX):
        yield account_pb2.OutstandingInstruction(
            instruction_id=found.instruction_id,
            sequence=found.seq,
            kind=str(found.kind),
            client_order_id=found.client_order_id,
            status=str(found.status),
            escalated=bool(found.escalated_seq),
            reason=_REASONS[found.reason],
            message=found.message,
            instruct_time=timestamp(found.time_us),
            deadline_time=timestamp(found.deadline_us),
        )
