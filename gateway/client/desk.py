"""What is asked and how the answers are read, for both clients: every call as a value, no channel.

Requests are built here with their ids, answers are checked against what was asked, every epoch in them is noted, and an
approval that must not be acted on is dropped here and nowhere else.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Unpack

from gateway.client import messages
from gateway.client.attempts import Asked, Call, Patience, World
from gateway.client.errors import RiskError
from gateway.client.freshness import Freshness, dropped
from gateway.client.values import (
    Basket,
    Headroom,
    OpenOrder,
    Order,
    Report,
    Reported,
    ReportKind,
    ReportTerms,
    Resumed,
    RiskState,
    Side,
    StateChange,
    StopMode,
    Stopped,
    Terms,
    Update,
    Verdict,
)
from riskgateway.v1 import account_pb2, decision_pb2, risk_gateway_pb2

Detail = Literal["all", "binding"]
"""How much of a verdict is sent back: every armed check, or those that bind."""
Reportable = Verdict | Order | OpenOrder | str
"""Whose execution is reported: an order, its verdict, or its client order id."""
T = TypeVar("T")

_DETAILS = {"all": decision_pb2.CHECKS_ALL, "binding": decision_pb2.CHECKS_BINDING}
RESERVED = "The reservation may exist"
RECORDED = "The reports may be recorded"
STOPPING = "The stop may be in force in part, and the gateway goes on trying: call it again"
RESUMING = (
    "The resume may be in force in part: look at the trading state before you ask again, since that would lift a stop"
    " made meanwhile too"
)


class Reached(NamedTuple):
    """Whom a stop or a resume reaches: the orders that match all that is named."""

    account: str
    strategy: str
    symbol: str
    algo: str
    trader: str
    desk: str


class Desk:
    """One account's (and strategy's) side of the counter. `id_prefix` is set before every id made here."""

    def __init__(self, account: str, strategy: str, id_prefix: str, patience: Patience, world: World) -> None:
        self.account, self.strategy = account, strategy
        self.patience, self.world = patience, world
        self.freshness = Freshness(world)
        self._id_prefix = id_prefix

    # --- orders ------------------------------------------------------------------------------------------------------

    def order(self, side: Side, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Order:
        given: dict[str, Any] = {
            "account": self.account,
            "strategy": self.strategy,
            "client_order_id": self._new_id(),
            **terms,
        }
        return Order(side=side, symbol=symbol, quantity=quantity, **given)

    def check_request(
        self, order: Order, dry_run: bool, all_or_none: bool, explain: bool, detail: Detail
    ) -> risk_gateway_pb2.CheckOrderRequest:
        return risk_gateway_pb2.CheckOrderRequest(
            order=messages.order(order),
            dry_run=dry_run,
            all_or_none=all_or_none,
            explain=explain,
            checks=messages.one_of(_DETAILS, detail, "detail"),
        )

    def check(self, order: Order, dry_run: bool, all_or_none: bool, explain: bool, detail: Detail) -> Call[Verdict]:
        def read(response: risk_gateway_pb2.CheckOrderResponse, asked: Asked) -> Verdict:
            return self.verdict(order, response, asked)

        request = self.check_request(order, dry_run, all_or_none, explain, detail)
        return Call("CheckOrder", request, read, (order.client_order_id,), "" if dry_run else RESERVED)

    def check_orders(
        self, orders: Sequence[Order], dry_run: bool, all_or_none: bool, explain: bool, detail: Detail
    ) -> Call[Basket]:
        def read(response: risk_gateway_pb2.CheckOrdersResponse, asked: Asked) -> Basket:
            if len(response.responses) != len(orders):
                raise RiskError(f"asked about {len(orders)} orders, got {len(response.responses)} answers")
            verdicts = [self.verdict(o, r, asked) for o, r in zip(orders, response.responses, strict=True)]
            return Basket(_together(verdicts) if all_or_none else tuple(verdicts))

        request = risk_gateway_pb2.CheckOrdersRequest(
            orders=map(messages.order, orders),
            dry_run=dry_run,
            all_or_none=all_or_none,
            explain=explain,
            checks=messages.one_of(_DETAILS, detail, "detail"),
        )
        ids = tuple(order.client_order_id for order in orders)
        splits = len({order.account for order in orders}) > 1
        return Call("CheckOrders", request, read, ids, "" if dry_run else RESERVED, splits)

    def verdict(self, order: Order, response: risk_gateway_pb2.CheckOrderResponse, asked: Asked) -> Verdict:
        """What the answer means now. Raises RiskError where it is the answer to something else."""
        if response.client_order_id != order.client_order_id:
            raise RiskError(
                f"asked about order {order.client_order_id!r}, got an answer about {response.client_order_id!r}"
            )
        self.freshness.saw(order.account, response.stop_epoch)
        verdict = Verdict(
            order=order,
            allowed=response.allowed,
            quantity=response.allowed_quantity if response.allowed else 0.0,
            action=messages.action_name(response.action),
            reason=messages.reason_name(response.reason),
            message=response.message,
            dropped_because="",
            checks=tuple(map(messages.check, response.checks)),
            sequence=response.sequence,
            epoch=response.stop_epoch,
            decide_time=messages.time_of(response.decide_time),
            valid_until=messages.time_in(response, "valid_until"),
            approval=response.approval,
            replayed=response.replayed,
            prior=messages.prior(response),
            asked_s=asked.begun_s,
            raw=response,
        )
        if verdict.allowed and not _is_part_of(verdict.quantity, order.quantity):
            return dropped(verdict, f"{verdict.quantity} was allowed where {order.quantity} was asked for")
        return self.freshness.as_of_now(verdict)

    def headroom(self, symbols: Sequence[str], account: str | None, strategy: str | None) -> Call[tuple[Headroom, ...]]:
        of = self.account if account is None else account

        def read(response: risk_gateway_pb2.GetHeadroomResponse, asked: Asked) -> tuple[Headroom, ...]:
            self.freshness.saw(of, response.stop_epoch)
            return messages.headrooms(response)

        request = risk_gateway_pb2.GetHeadroomRequest(
            account=of, strategy=self.strategy if strategy is None else strategy, symbols=symbols
        )
        return Call("GetHeadroom", request, read)

    def heartbeat(self, account: str | None, strategy: str | None) -> Call[str]:
        of = self.account if account is None else account

        def read(response: risk_gateway_pb2.HeartbeatResponse, asked: Asked) -> str:
            self.freshness.saw(of, response.stop_epoch)
            return messages.state_name(response.trading_state)

        request = risk_gateway_pb2.HeartbeatRequest(
            account=of, strategy=self.strategy if strategy is None else strategy
        )
        return Call("Heartbeat", request, read)

    # --- reports -----------------------------------------------------------------------------------------------------

    def report_of(
        self,
        kind: ReportKind,
        order: Reportable,
        quantity: float = 0.0,
        price: float = 0.0,
        **terms: Unpack[ReportTerms],
    ) -> Report:
        known: dict[str, Any] = {"account": self.account, "strategy": self.strategy, "execution_id": self._new_id()}
        if isinstance(order, Verdict):
            order = order.order
        if isinstance(order, str):
            known |= {"client_order_id": order}
        else:
            named = ("account", "strategy", "client_order_id", "symbol", "side")
            known |= {name: getattr(order, name) for name in named}
        return Report(kind=kind, quantity=quantity, price=price, **{**known, **terms})

    def report(self, reports: Sequence[Report]) -> Call[tuple[Reported, ...]]:
        def read(response: risk_gateway_pb2.ReportExecutionResponse, asked: Asked) -> tuple[Reported, ...]:
            if len(response.results) != len(reports):
                raise RiskError(f"sent {len(reports)} reports, got {len(response.results)} results")
            return tuple(map(messages.reported, response.results))

        request = risk_gateway_pb2.ReportExecutionRequest(executions=map(messages.execution, reports))
        ids = tuple(report.execution_id for report in reports)
        splits = len({report.account for report in reports}) > 1
        return Call("ReportExecution", request, read, ids, RECORDED, splits)

    # --- states and stops --------------------------------------------------------------------------------------------

    def risk_state(self, account: str | None) -> Call[RiskState]:
        def read(response: account_pb2.RiskState, asked: Asked) -> RiskState:
            self.freshness.saw(response.account, response.stop_epoch)
            return messages.risk_state(response)

        request = risk_gateway_pb2.GetRiskStateRequest(account=self.account if account is None else account)
        return Call("GetRiskState", request, read)

    def stop_all(self, reason: str, scope: Reached, mode: StopMode, flatten: bool) -> Call[Stopped]:
        def read(response: risk_gateway_pb2.StopAllResponse, asked: Asked) -> Stopped:
            self._changed(scope.account, response.stop_epoch)
            return messages.stopped(response)

        named = scope._asdict()
        request = risk_gateway_pb2.StopAllRequest(**named, mode=messages.mode(mode), reason=reason, flatten=flatten)
        return self._control_call("StopAll", request, read, STOPPING)

    def resume(self, reason: str, scope: Reached) -> Call[Resumed]:
        def read(response: risk_gateway_pb2.ResumeResponse, asked: Asked) -> Resumed:
            self._changed(scope.account, response.stop_epoch)
            return messages.resumed(response)

        request = risk_gateway_pb2.ResumeRequest(**scope._asdict(), reason=reason)
        return self._control_call("Resume", request, read, RESUMING, repeatable=False)

    def heard(self, update: Update) -> None:
        """Notes the epoch of an update; those without one say nothing of it."""
        if isinstance(update, RiskState | StateChange):
            self._changed(update.account, update.epoch)

    def accounts(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        """Whose streams: those asked for, else the desk's own; all that may be seen where it has none."""
        if asked is not None:
            return tuple(asked)
        return (self.account,) if self.account else ()

    def _changed(self, account: str, epoch: int) -> None:
        if account:
            self.freshness.saw(account, epoch)
        else:
            self.freshness.saw_of_all(epoch)

    def _control_call(
        self, method: str, request: Any, read: Callable[[Any, Asked], T], leaves: str, *, repeatable: bool = True
    ) -> Call[T]:
        deadline_s = self.patience.stop_deadline_s
        return Call(method, request, read, leaves=leaves, control=True, deadline_s=deadline_s, repeatable=repeatable)

    def _new_id(self) -> str:
        return self._id_prefix + self.world.new_id()


def _is_part_of(quantity: float, asked: float) -> bool:
    """More than nothing, and no more than was asked for; not a number is neither."""
    return math.isfinite(quantity) and 0.0 < quantity <= asked * (1.0 + 1e-9)


def _together(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """All or none: a leg whose approval had to be dropped takes the others with it."""
    gone = next((verdict for verdict in verdicts if verdict.dropped_because), None)
    if gone is None:
        return tuple(verdicts)
    why = f"leg {gone.client_order_id} of the basket was dropped: {gone.dropped_because}"
    return tuple(dropped(verdict, why) if verdict.allowed else verdict for verdict in verdicts)
