"""What goes into the client and what comes out, as plain values: orders and reports, verdicts and states.

Frozen dataclasses with the contract's words, enums by their names without the prefix ("VAR", "BUY"). What came over the
wire is in `raw`, whole. Quantities are in units of the instrument, prices in its currency, spans in seconds; numbers
that are None could not be computed, and are not zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypedDict

from riskgateway.v1 import account_pb2, control_pb2, decision_pb2, risk_gateway_pb2

Side = Literal["buy", "sell", "sell_short"]
TimeInForce = Literal["day", "gtc", "ioc", "fok", "gtd", "at_open", "at_close"]
StopMode = Literal["reduce_only", "cancel_only", "halted"]
ReportKind = Literal["working", "fill", "cancel_requested", "cancelled", "rejected", "expired", "not_sent"]
InstructionStatus = Literal["received", "done", "failed"]

DROPPED = "DROPPED"
"""Action and reason of an approval that the client dropped."""


# --- orders and verdicts ---------------------------------------------------------------------------------------------


class Terms(TypedDict, total=False):
    """What may be said of an order beside side, symbol and quantity. A limit price makes it a limit order, a stop price
    a stop order, neither a market order."""

    limit_price: float
    stop_price: float
    time_in_force: TimeInForce
    reduce_only: bool
    replaces: str
    valid_for_s: float
    account: str
    strategy: str
    client_order_id: str
    algo_id: str
    trader_id: str
    desk_id: str
    client_id: str
    venue: str


@dataclass(frozen=True, slots=True)
class Order:
    """An order under an id of its own: asking about it twice is asking about the same order. `RiskClient.order` makes
    one with the client's account and a new id."""

    side: Side
    symbol: str
    quantity: float
    account: str
    client_order_id: str
    strategy: str = ""
    limit_price: float | None = None
    stop_price: float | None = None
    time_in_force: TimeInForce = "day"
    reduce_only: bool = False
    replaces: str = ""
    """Client order id of the open order that this one replaces; empty: none."""
    valid_for_s: float | None = None
    """How long the approval may be acted on; None: the gateway's default, or for ever."""
    algo_id: str = ""
    trader_id: str = ""
    desk_id: str = ""
    client_id: str = ""
    venue: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What one armed limit said."""

    measure: str
    scope: str
    """As kind:name, e.g. "symbol:AAPL"."""
    action: str
    reason: str
    before: float | None
    after: float | None
    warn: float | None
    limit: float | None
    unit: str
    utilization: float | None
    """after / limit, 1 at the limit."""
    input_age_s: float | None
    message: str
    raw: decision_pb2.CheckResult = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Prior:
    """What had been decided of the same id before."""

    approved: bool
    """A reservation exists until a report ends it."""
    sequence: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to an order. True where the order may be sent: for `quantity`, which may be less than asked."""

    order: Order
    allowed: bool
    quantity: float
    """What may be sent and is reserved; 0 when refused or dropped."""
    action: str
    """ALLOW, WARN, REDUCE, REJECT or HALT, as the gateway decided; DROPPED where the client dropped its approval."""
    reason: str
    """The first violated rule by its name, e.g. "VAR"; "NONE" when allowed as asked; DROPPED as above."""
    message: str
    dropped_because: str
    """Why the client dropped the gateway's approval; empty: it did not. What was approved stays reserved until
    `report_not_sent` releases it."""
    checks: tuple[Check, ...]
    sequence: int
    """Place of the decision in the account's log; 0 for a dry run."""
    epoch: int
    """Control epoch it was decided under."""
    decide_time: datetime
    valid_until: datetime | None
    """On the store's clock; None: never expires, or refused."""
    approval: bytes
    """The signed token, for adapters that refuse what was not approved; empty when refused, dropped or dry."""
    replayed: bool
    prior: Prior | None
    asked_s: float = field(repr=False)
    """When the call began, on the client's monotonic clock."""
    raw: risk_gateway_pb2.CheckOrderResponse = field(repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def client_order_id(self) -> str:
        return self.order.client_order_id


@dataclass(frozen=True, slots=True)
class Basket:
    """The answers to several orders, in their order. True where every order may be sent in full."""

    verdicts: tuple[Verdict, ...]

    def __bool__(self) -> bool:
        return all(verdict.allowed and verdict.quantity == verdict.order.quantity for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Headroom:
    """The most that may be bought and sold of a symbol now. Advisory: it reserves nothing."""

    symbol: str
    max_buy: float
    max_sell: float
    binding_buy: str
    """The limit that refuses a buy of one lot more, as measure@kind:name; empty: a rule does (`buy_reason`)."""
    binding_sell: str
    buy_reason: str
    """Why one lot more is refused or cut down, also where there is headroom."""
    sell_reason: str
    sequence: int
    epoch: int
    raw: risk_gateway_pb2.Headroom = field(repr=False, compare=False)


# --- reports ---------------------------------------------------------------------------------------------------------


class ReportTerms(TypedDict, total=False):
    """What may be said of a report beside what happened to which order."""

    execution_id: str
    cumulative_quantity: float
    leaves_quantity: float
    fee: float
    fee_currency: str
    execution_time: datetime
    venue_order_id: str
    text: str
    account: str
    strategy: str
    symbol: str
    side: Side


@dataclass(frozen=True, slots=True)
class Report:
    """What the venue did with an order, once: the same `execution_id` again changes nothing."""

    kind: ReportKind
    account: str
    client_order_id: str
    execution_id: str
    quantity: float = 0.0
    """Of this fill; for fills only."""
    price: float = 0.0
    """Of this fill; for fills only."""
    cumulative_quantity: float = 0.0
    """Filled in total; 0: not told."""
    leaves_quantity: float | None = None
    fee: float = 0.0
    fee_currency: str = ""
    execution_time: datetime | None = None
    """With a time zone."""
    venue_order_id: str = ""
    text: str = ""
    strategy: str = ""
    """Strategy, symbol and side are read where the gateway has no such open order: tell them, so that it can book."""
    symbol: str = ""
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a report."""

    execution_id: str
    account: str
    sequence: int
    duplicate: bool
    flags: tuple[str, ...]
    """What is odd about it, e.g. "OVERFILL"; a fill with a flag latches REDUCE_ONLY."""
    message: str
    raw: risk_gateway_pb2.ExecutionResult = field(repr=False, compare=False)


# --- states ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Position:
    strategy: str
    symbol: str
    quantity: float
    """Signed, negative is short."""
    average_cost: float
    mark: float | None
    market_value: float | None
    open_buy_quantity: float
    open_sell_quantity: float
    unrealised_pnl: float | None


@dataclass(frozen=True, slots=True)
class OpenOrder:
    account: str
    strategy: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: float
    leaves_quantity: float
    limit_price: float | None
    state: str
    """APPROVED, WORKING, PARTIAL, CANCEL_REQUESTED or SUSPECT."""
    sequence: int
    epoch: int


@dataclass(frozen=True, slots=True)
class LimitUse:
    measure: str
    scope: str
    value: float | None
    warn: float | None
    limit: float | None
    unit: str
    utilization: float | None
    headroom: float | None
    status: str
    """OK, WARNED, BREACHED or UNEVALUABLE."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why trading is restricted in a scope; empty fields of the scope mean all."""

    account: str
    strategy: str
    symbol: str
    trading_state: str
    origin: str
    """STOP, LIMIT, INTEGRITY or START."""
    reason: str
    actor: str
    epoch: int
    algo: str = ""
    trader: str = ""
    desk: str = ""


@dataclass(frozen=True, slots=True)
class RiskState:
    """An account, whole, at one place in its log. Money in the account's base currency."""

    account: str
    sequence: int
    epoch: int
    state_time: datetime
    trading_state: str
    """ACTIVE, REDUCE_ONLY, CANCEL_ONLY or HALTED: the strictest that reaches the whole account."""
    causes: tuple[Cause, ...]
    base_currency: str
    equity: float | None
    drawdown: float | None
    session_date: str
    session_pnl: float | None
    gross_exposure: float | None
    net_exposure: float | None
    positions: tuple[Position, ...]
    open_orders: tuple[OpenOrder, ...]
    limits: tuple[LimitUse, ...]
    raw: account_pb2.RiskState = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class StateChange:
    """A trading state that just changed."""

    account: str
    """Empty: every account in the scope."""
    strategy: str
    """Empty: all of them; `symbol` likewise."""
    symbol: str
    previous: str
    trading_state: str
    epoch: int
    reason: str
    actor: str
    raw: control_pb2.TradingStateChange = field(repr=False, compare=False)
    algo: str = ""
    trader: str = ""
    desk: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should know."""

    kind: str
    severity: str
    """NOTICE, WARNING or CRITICAL."""
    account: str
    scope: str
    message: str
    raw: risk_gateway_pb2.Alert = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing new, and the stream is alive."""

    store_available: bool
    """False: states are as of before the store went away, and no order is approved."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream broke and is being dialled again: from here to the next state nothing is known."""

    problem: str
    tries: int
    """Dialled in vain since the last news, 1 or more."""


Update = RiskState | StateChange | Alert | Heartbeat | Disconnected


# --- stops and instructions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlattenOrder:
    """An order of the gateway's own: send it, and report its executions under its id."""

    order: Order
    sequence: int
    approval: bytes


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stop is in force on every gateway."""

    epoch: int
    trading_state: str
    open_orders: tuple[OpenOrder, ...]
    """Approved before it and may still fill: cancel them. At most 1,000; the stream has them all."""
    flatten_orders: tuple[FlattenOrder, ...]
    warnings: tuple[str, ...]
    raw: risk_gateway_pb2.StopAllResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Resumed:
    epoch: int
    trading_state: str
    """The strictest still in force over the whole scope."""
    causes: tuple[Cause, ...]
    """What still restricts trading in the scope."""
    raw: risk_gateway_pb2.ResumeResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Instruction:
    """Something that the execution engine has to do, once."""

    instruction_id: str
    account: str
    sequence: int
    kind: str
    """CANCEL: cancel the order `client_order_id`. FLATTEN, CUT: send `flatten_order`."""
    client_order_id: str
    venue_order_id: str
    flatten_order: FlattenOrder | None
    reason: str
    message: str
    epoch: int
    deadline_time: datetime | None
    """When it is escalated unless answered, on the store's clock."""
    repeats: int
    raw: risk_gateway_pb2.Instruction = field(repr=False, compare=False)
