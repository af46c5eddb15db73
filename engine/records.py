"""The records of an account's log: what was decided, and what happened.

A record carries outcomes in integers (lots, verdicts, hashes of what it was decided from), never inputs to be decided
again: folding them is addition, so releases with different rules can share a log. Encoded as JSON with the tag `k`,
so that an operator can read the log with any Redis client. Adding a field with a default is compatible; changing the
meaning of one is not, and needs a new tag.
"""

import enum
import math
from collections.abc import Sequence
from typing import Annotated

import msgspec

from engine.control import Scope, TradingState
from engine.order import Action, Order, Reason

Micros = int
"""Microseconds since the epoch on the store's clock."""


class Check(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One armed limit's word on one order. `before` and `after` are None where it could not be evaluated."""

    measure: str
    scope: str
    before: float | None
    after: float | None
    """With the quantity that was asked for."""
    warn: float | None
    limit: float
    unit: str
    action: Action
    reason: Reason
    input_age_us: int
    upper_bound: bool = False
    reduction: bool = False
    """It passed because the order is a true reduction in the limit's scope."""
    note: str = ""
    """Why it could not be evaluated, naming the input; of a rule that is violated, in what."""
    shadow: bool = False
    """`action` is what the limit would have done: it changed nothing."""


class Latch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A halt that a limit or an integrity fault put on a scope of this account, until a covering Resume."""

    scope: Scope
    state: TradingState
    epoch: int
    cause: str
    needs_reconciliation: bool = False
    """Integrity faults: a Resume lifts it only after a ReconcilePositions."""
    measure: str = ""
    """Of the limit that put it on; empty: none did."""


class Record(msgspec.Struct, frozen=True, tag_field="k", omit_defaults=True, kw_only=True):
    """What all records have: the store's time, and the control epoch they were appended under."""

    time_us: Micros
    epoch: int = 0


class OpeningPosition(msgspec.Struct, frozen=True):
    strategy: str
    symbol: str
    lots: int
    average_cost: float


class Listed(Record, frozen=True, tag="listed"):
    """A symbol enters the account: the parts of the instrument that never change, so that the fold needs no others."""

    symbol: str
    unit: float
    """Money in `currency` per lot and unit of price."""
    lot_size: float
    tick_size: float
    currency: str
    settles_variation: bool = False
    """Futures: no cash changes hands for the notional, only for gains."""
    underlying: str = ""
    """Of an option: the symbol that it is written on."""


class AccountOpened(Record, frozen=True, tag="account_opened"):
    """An account's first record."""

    event_id: str
    base_currency: str
    cash: dict[str, float]
    listed: tuple[Listed, ...] = ()
    """The symbols of `positions`."""
    positions: tuple[OpeningPosition, ...] = ()


class Quoted(msgspec.Struct, frozen=True, array_like=True):
    """A symbol's prices at one time, in its currency; `mark` values positions."""

    mark: float
    bid: float | None
    ask: float | None
    time_us: Micros
    phase: int = 0
    """engine.instrument.MarketPhase; 0: not told."""


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """Base currency per unit of a currency."""

    rate: float
    time_us: Micros


class Valued(Record, frozen=True, tag="valued"):
    """Marks and rates that changed since the last valuation, for the symbols held, open or about to be ordered."""

    marks: dict[str, Quoted] = {}
    fx: dict[str, Rate] = {}


class SessionOpened(Record, frozen=True, tag="session_opened"):
    """A new session: daily counters, losses and histories roll here and nowhere else. `date` is ISO."""

    date: str
    event_id: str = ""


class Decided(Record, frozen=True, tag="decided"):
    """A verdict, refusals included. If it allows, `allowed_lots` are reserved from here on."""

    order: Order
    digest: str
    action: Action
    reason: Reason
    message: str
    lots: int
    """What was asked for; 0 where the quantity is off the lot grid."""
    allowed_lots: int
    limit_set: str
    instrument_set: str
    risk_model: str
    shadow_set: str = ""
    """The set whose limits are in `checks` as shadows; empty: none."""
    checks: tuple[Check, ...] = ()
    latches: tuple[Latch, ...] = ()
    expires_us: Micros | None = None
    limit_price: float | None = None
    """On the tick grid."""
    filled_lots: int = 0
    """Of `allowed_lots`, those that the orders it replaces have filled already: the rest is reserved."""
    atomic: bool = False
    """It replaces another in one step: what both can fill is reserved once, not one beside the other."""


class Fill(msgspec.Struct, frozen=True):
    lots: int
    price: float


class ExecutionKind(msgspec.Struct):
    """Namespace of the kinds an execution report can have."""

    WORKING = "working"
    FILL = "fill"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    NOT_SENT = "not_sent"


CLOSING_KINDS = frozenset(
    {ExecutionKind.CANCELLED, ExecutionKind.REJECTED, ExecutionKind.EXPIRED, ExecutionKind.NOT_SENT}
)
"""After these the venue fills nothing more, but what its cumulative quantity says it already has."""


IN_SNAPSHOT = "in_snapshot"
"""Flag of a fill that was executed before a broker's snapshot that is folded in: the positions hold it already."""


class Executed(Record, frozen=True, tag="executed"):
    """What the execution engine reported of one order. Facts: never refused, folded once by `execution_id`."""

    execution_id: str
    client_order_id: str
    kind: str
    strategy: str
    symbol: str
    sign: int
    """+1 buy, -1 sell: of the order, or as reported where the order is unknown."""
    lots: int = 0
    """Filled by this report."""
    price: float = 0.0
    cumulative_lots: int = 0
    """Filled so far by the venue's account, 0 where it does not say."""
    fee: float = 0.0
    fee_currency: str = ""
    latches: tuple[Latch, ...] = ()
    flags: tuple[str, ...] = ()
    """`unknown_order`, `overfill`, `late`, `in_snapshot`, `off_lot`, `before_split`, `corrected`: accepted all the
    same."""


class CashFlowed(Record, frozen=True, tag="cash_flowed"):
    """A deposit (> 0) or withdrawal (< 0): moves equity, not the unit NAV."""

    event_id: str
    amount: float
    currency: str


class FeeCharged(Record, frozen=True, tag="fee_charged"):
    """A fee (> 0 is paid): lowers equity and the unit NAV."""

    event_id: str
    amount: float
    currency: str
    strategy: str = ""


class ReconciledPosition(msgspec.Struct, frozen=True):
    strategy: str
    symbol: str
    lots: int
    average_cost: float | None = None


class AdoptedOrder(msgspec.Struct, frozen=True):
    """An order that works at the broker and that this log knows nothing of: counted from here on."""

    client_order_id: str
    strategy: str
    symbol: str
    sign: int
    lots: int


class Reconciled(Record, frozen=True, tag="reconciled"):
    """The broker's own positions (whole, replacing ours), cash and open orders where given."""

    reason: str
    positions: tuple[ReconciledPosition, ...]
    cash: dict[str, float] | None = None
    open_orders: dict[str, int] | None = None
    """Leaves in lots by client order id; orders decided before `snapshot_us` and not in it are released."""
    adopted: tuple[AdoptedOrder, ...] = ()
    snapshot_us: Micros = 0
    differences: tuple[str, ...] = ()


class Latched(Record, frozen=True, tag="latched"):
    """A halt that no order caused: a log that went backwards, a limit crossed by prices."""

    latch: Latch


class ReleaseDelaySet(Record, frozen=True, tag="release_delay_set"):
    """How long after it became suspect an approval that nobody reported is let go; None: never."""

    event_id: str
    delay_us: int | None = None


class Released(Record, frozen=True, tag="released"):
    """Suspect approvals that are counted no more: the account's release delay has passed."""

    client_order_ids: tuple[str, ...]


class Forecast(Record, frozen=True, tag="forecast"):
    """What a risk model expected of a session, for the positions held when it was made and no open order: one day's VaR
    and ES in base currency, positive = loss. The first of a session counts; what it made or lost is held against it."""

    session: str
    """ISO date."""
    var_95: float
    var_99: float
    es_95: float
    es_99: float
    method: str
    model: str
    """Hash of the risk model."""
    quantile: str = "order_statistic"
    n_observations: int = 0


class Tightened(Record, frozen=True, tag="tightened"):
    """From here on the bounds and warning levels of some measures are multiplied by `factor` for this account. One of
    the same id takes its place; of several the least factor counts."""

    tightening_id: str
    """For instance `model_validation`."""
    measures: tuple[str, ...]
    factor: float
    """Above 0, at most 1; 1 lifts it."""
    reason: str
    until: str = ""
    """Last session that it holds in, ISO date; empty: until another takes its place."""
    from_us: Micros = 0
    """It holds from this instant on, included; 0: from its own record on."""
    until_us: Micros = 0
    """It holds up to this instant, excluded; 0: as `until` says."""
    symbols: tuple[str, ...] = ()
    """It reaches orders in these, in options written on them and in what they issued; with `sectors` empty too: all."""
    sectors: tuple[str, ...] = ()


class CalendarPlanned(Record, frozen=True, tag="calendar_planned"):
    """The tightenings of all events up to `until_us` are in this log, as far as events were known then."""

    until_us: Micros
    missing: tuple[str, ...] = ()
    """Sources of events that were never read: what they would say is not in it."""


class BreakerStage(enum.StrEnum):
    """Where the drawdown breaker stands (engine.breaker)."""

    NORMAL = "normal"
    RECOVERING = "recovering"
    L1 = "l1"
    L2 = "l2"
    COOLDOWN = "cooldown"
    L3 = "l3"

    @property
    def strictness(self) -> int:
        """0 is the mildest."""
        return list(BreakerStage).index(self)

    @property
    def opens_nothing(self) -> bool:
        return self in (BreakerStage.L3, BreakerStage.COOLDOWN)


class BreakerPosition(msgspec.Struct, frozen=True, array_like=True):
    """A strategy's position in a symbol, in lots, and its value at the mark in base currency."""

    strategy: str
    symbol: str
    lots: int
    value: float


class BreakerCut(msgspec.Struct, frozen=True, array_like=True):
    """To how many lots, signed as the position is, a strategy's position comes down."""

    strategy: str
    symbol: str
    target: int


class BreakerMoved(Record, frozen=True, tag="breaker_moved"):
    """The drawdown breaker went from one stage to another, and what the account looked like then. Money in base
    currency."""

    before: BreakerStage
    stage: BreakerStage
    drawdown: float
    """Confirmed, from `peak`: 0.05 is five per cent below it."""
    peak: float
    nav: float
    equity: float
    session_pnl: float | None
    """None: no session, or it was not valued."""
    reason: str
    positions: tuple[BreakerPosition, ...] = ()
    cuts: tuple[BreakerCut, ...] = ()
    rebases: bool = False
    """The breaker's drawdown counts from `nav` from here on."""


class Heartbeat(Record, frozen=True, tag="heartbeat"):
    """A sign of life of whoever trades for a strategy."""

    strategy: str = ""


class BudgetLent(Record, frozen=True, tag="budget_lent"):
    """A strategy lends another part of its risk budget. One of the same id takes its place; share 0 ends it."""

    loan_id: str
    giver: str
    taker: str
    share: float
    """Of the account's budget, 0 to 1."""
    until_us: Micros = 0
    """It counts up to this instant, excluded; 0: until it is ended."""
    actor: str = ""
    reason: str = ""


class InstructionKind(enum.StrEnum):
    """What the execution engine has to do."""

    CANCEL = "cancel"
    FLATTEN = "flatten"
    CUT = "cut"


class InstructionStatus(enum.StrEnum):
    """How far the execution engine has said to be. DONE: sent to the venue, whose reports tell the rest."""

    UNANSWERED = "unanswered"
    RECEIVED = "received"
    DONE = "done"
    FAILED = "failed"


class Instructed(Record, frozen=True, tag="instructed"):
    """Something that the execution engine has to do about one order, which is counted until it has ended."""

    instruction_id: str
    kind: InstructionKind
    client_order_id: str
    """The order to cancel, or the gateway's own order to send."""
    reason: Reason
    message: str
    deadline_us: Micros
    """Escalated unless answered by then."""
    order: Order | None = None
    """FLATTEN and CUT: the gateway's own order. `lots` of it are reserved from here on, as by an approval."""
    lots: int = 0
    planned_lots: int = 0
    """CUT: what is to be cut of the position in all; 0: these lots."""


class InstructionAnswered(Record, frozen=True, tag="instruction_answered"):
    """What the execution engine said of an instruction."""

    instruction_id: str
    status: InstructionStatus
    deadline_us: Micros
    """Escalated unless its effect is there by then."""
    text: str = ""


class Escalated(Record, frozen=True, tag="escalated"):
    """An instruction that nobody answered or carried out in time, or that the engine said can't be done: a person is
    called, once."""

    instruction_id: str
    message: str


class SplitPosition(msgspec.Struct, frozen=True):
    """A strategy's position after a split, in whole lots, and what its part of a lot was paid for."""

    strategy: str
    lots: int
    cash: float = 0.0
    """In lieu of the part of a lot, in the symbol's currency: > 0 received."""


class Split(Record, frozen=True, tag="split"):
    """`new_units` of a symbol stand where `old_units` were; prices move the other way, so that equity stays."""

    event_id: str
    symbol: str
    new_units: int
    old_units: int
    positions: tuple[SplitPosition, ...] = ()
    open_orders: dict[str, int] = {}
    """Leaves in lots by client order id, counted up to whole lots."""


class DividendShare(msgspec.Struct, frozen=True):
    strategy: str
    amount: float
    """In the symbol's currency: > 0 received, < 0 paid by a short position."""


class Dividend(Record, frozen=True, tag="dividend"):
    """A distribution on what is held: cash at once, or owed until a DividendSettled."""

    event_id: str
    symbol: str
    currency: str
    shares: tuple[DividendShare, ...]
    accrued: bool = False


class DividendSettled(Record, frozen=True, tag="dividend_settled"):
    """What was owed by the accrued dividend `accrual_event_id` has become cash: moves no equity."""

    event_id: str
    accrual_event_id: str


class SettlementKind(enum.StrEnum):
    """What ends an option, or a future."""

    EXERCISE = "exercise"
    ASSIGNMENT = "assignment"
    EXPIRY = "expiry"


class PositionMove(msgspec.Struct, frozen=True):
    """Lots that change hands at a price, > 0 bought, without a trade in the market."""

    strategy: str
    symbol: str
    lots: int
    price: float


class Settled(Record, frozen=True, tag="settled"):
    """Options exercised, assigned or expired, futures expired: what left the account and what was delivered for it."""

    event_id: str
    kind: SettlementKind
    symbol: str
    moves: tuple[PositionMove, ...] = ()
    ended_orders: tuple[str, ...] = ()
    """Client order ids: what has expired fills no more."""


class FillReversed(Record, frozen=True, tag="fill_reversed"):
    """A fill that the venue has taken back, whole: bust, or corrected by the Executed that follows."""

    event_id: str
    execution_id: str
    client_order_id: str
    strategy: str
    symbol: str
    lots: int
    """As it was booked: > 0 bought."""
    price: float
    gain: float = 0.0
    """What it realised, in price times lots."""
    realised: float = 0.0
    """The same in base currency, at the rate of then."""
    fee: float = 0.0
    fee_currency: str = ""
    in_session: bool = False
    """Booked in the session that is open: it no longer counts as traded."""


AnyRecord = Annotated[
    AccountOpened
    | Listed
    | Valued
    | SessionOpened
    | Decided
    | Executed
    | CashFlowed
    | FeeCharged
    | Reconciled
    | Latched
    | Instructed
    | InstructionAnswered
    | Escalated
    | ReleaseDelaySet
    | Released
    | Forecast
    | Heartbeat
    | CalendarPlanned
    | BudgetLent
    | Tightened
    | BreakerMoved
    | Split
    | Dividend
    | DividendSettled
    | Settled
    | FillReversed,
    "every record a log can hold",
]

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)


class PoisonRecord(ValueError):
    """A record that this release can't read: it must stop serving the account, not guess."""


def encode(record: AnyRecord) -> bytes:
    return _ENCODER.encode(record)


def decode(data: bytes) -> AnyRecord:
    """The record in `data`. Raises PoisonRecord where this release does not know it."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise PoisonRecord(f"unreadable record {data[:200]!r}: {error}") from error


def finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
