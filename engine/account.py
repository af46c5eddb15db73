"""The state of one account: what its records add up to.

`AccountState.apply` folds one record in; it never decides, never fails on a record that this release can read, and
does the same on every gateway. A batch is decided on a `fork()`, which costs a copy of the small parts and shares the
long memories (decisions, executions, attempts); the fork either `settle()`s and becomes the state, or is dropped.
Quantities are integer lots, money is float64 in the account's base currency.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, takewhile
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.conduct import (
    ATTEMPTS_HORIZON_US,
    NOTHING,
    REST,
    RESTARTING,
    TALLIES_MAX,
    Attempts,
    Closed,
    Tally,
    identity_keys,
    kind_key,
    scope_key,
)
from engine.control import NOBODY, Control, Scope, Sender, TradingState
from engine.loss_memory import (
    CONFIRMATIONS_MAX,
    PEAK_CONFIRMATIONS,
    WEEK_SESSIONS,
    BreakerState,
    Gains,
    LossBase,
    no_past,
    pushed,
    pushed_rates,
    with_base,
)
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import (
    CLOSING_KINDS,
    IN_SNAPSHOT,
    AccountOpened,
    AdoptedOrder,
    AnyRecord,
    BreakerMoved,
    BudgetLent,
    CalendarPlanned,
    CashFlowed,
    Decided,
    Dividend,
    DividendSettled,
    Escalated,
    Executed,
    ExecutionKind,
    FeeCharged,
    FillReversed,
    Forecast,
    Heartbeat,
    Instructed,
    InstructionAnswered,
    InstructionKind,
    InstructionStatus,
    Latch,
    Latched,
    Listed,
    Rate,
    Reconciled,
    Released,
    ReleaseDelaySet,
    SessionOpened,
    Settled,
    Split,
    Tightened,
    Valued,
)

FOLD_VERSION = 3
"""Raised when the same records would add up to another state: older snapshots are then folded anew."""

MEMORY_MAX = 1_000_000
"""Closed ids remembered per account; an id costs about 200 bytes."""

MEMORY_HORIZON_US = 24 * 3600 * 1_000_000
"""How long a closed id is remembered: the idempotency horizon that replies carry."""

FORGET_MAX = 128
"""Ids looked at for forgetting after each append: more than a batch adds, so that the memory shrinks."""

APPROVALS_MAX = 100_000
"""Different orders whose approvals are kept to tell duplicates by; one costs about 300 bytes."""

APPROVALS_ALIKE_MAX = 100
"""Approvals kept of orders that say the same: more than any limit on duplicates that makes sense."""

VIEWS_MAX = 1_000
"""Views kept from one batch to the next: names of strategies are free text, and a view is some arrays."""

STRATEGIES_MAX = 1_000
"""Strategies whose attempts are kept before those that have been silent for long are dropped."""

NAMELESS = "\0"
"""The key of the book of orders without a strategy; no strategy can have this name."""

SESSIONS_MAX = 520
"""Closed sessions kept for loss history and for testing the VaR model: two years, of which Basel looks at one."""

RECENT_MAX = 20
"""Decisions kept for people to look at; all of them are in the log."""

ENDED_MAX = 16
"""Ended orders remembered per chain of replaces: more than a venue has under way at once."""

ESCALATIONS_MAX = 32
"""Escalations kept for people to look at; all of them are counted and in the log."""

FILLS_MAX = 100_000
"""Fills kept so that a venue can take them back; one costs about 300 bytes."""

EPOCH_PEAKS_MAX = 64
"""Control epochs whose highest NAV is kept apart: a drawdown since a Resume reads those from its own on."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def book_key(strategy: str) -> str:
    """Under what a strategy's book and attempts are kept; "" stands for the account's own."""
    return strategy or NAMELESS


K = TypeVar("K")
V = TypeVar("V")


class Memory(Generic[K, V]):
    """A long insertion-ordered dict that forks in O(1): a fork writes into its own layer until it settles."""

    __slots__ = ("_base", "_layer")

    def __init__(self, base: "dict[K, V] | Memory[K, V] | None" = None) -> None:
        self._base: dict[K, V] | Memory[K, V] | None = base
        self._layer: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        found = self._layer.get(key)
        if found is None and self._base is not None:
            return self._base.get(key)
        return found

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def put(self, key: K, value: V) -> None:
        self._layer[key] = value

    def fork(self) -> "Memory[K, V]":
        return Memory(self)

    def settled(self, renewed: bool = False) -> "Memory[K, V]":
        """This layer's entries in the memory below, which then stands for both. `renewed`: a key that is written again
        counts as new; else it keeps its place."""
        base = self._base
        if not isinstance(base, Memory):
            return self
        if renewed:
            base.forget(self._layer)
        base._layer.update(self._layer)
        return base

    def forget(self, keys: Iterable[K]) -> None:
        for key in keys:
            self._layer.pop(key, None)

    def items(self) -> Iterator[tuple[K, V]]:
        """Of a settled memory, oldest first."""
        return iter(self._layer.items())

    def __len__(self) -> int:
        return len(self._layer) + (len(self._base) if self._base is not None else 0)


OrderContent = tuple[str, str, Side, float, OrderType, float | None, float | None, str]
"""What makes two orders the same but for their ids."""


def content_of(order: Order) -> OrderContent:
    """A replacement says the same as another replacement of the same order, not as the order itself."""
    return (
        order.strategy,
        order.symbol,
        order.side,
        order.quantity,
        order.order_type,
        order.limit_price,
        order.stop_price,
        order.replaces_client_order_id,
    )


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a decision, so that a retry gets the same answer."""

    seq: int
    digest: str
    action: Action
    reason: Reason
    allowed_lots: int
    epoch: int
    time_us: int
    expires_us: int | None
    strategy: str
    symbol: str
    sign: int
    closed_us: int
    """When nothing of it was open any more; 0 while something is."""

    def forgotten(self, now_us: int) -> bool:
        """Whether it is past the idempotency horizon. By time alone, so that every process forgets alike."""
        return 0 < self.closed_us < now_us - MEMORY_HORIZON_US


class RecentDecision(msgspec.Struct, frozen=True):
    """A decision as a line of history: its checks are in the log, at `seq`."""

    seq: int
    order: Order
    action: Action
    reason: Reason
    message: str
    allowed_lots: int
    epoch: int
    time_us: int


class OpenOrder(msgspec.Struct, frozen=True):
    """An approval that may still fill. `leaves` lots of it are counted at worst case."""

    client_order_id: str
    strategy: str
    symbol: str
    sign: int
    held: int
    """Lots reserved at approval."""
    leaves: int
    filled: int
    reported: int
    """Most lots that the venue has said are filled; more than `filled` means that a fill report is still missing."""
    order_type: OrderType
    limit_price: float | None
    seq: int
    epoch: int
    time_us: int
    expires_us: int | None
    working: bool = False
    cancel_requested: bool = False
    closing: bool = False
    """The venue is done with it; only fills that it already has may still arrive."""
    own: bool = False
    """The gateway's own, to flatten or cut a position: a halt does not ask to cancel it."""
    instruction_id: str = ""
    """The instruction that is out about it; it ends with the order."""
    carried: int = 0
    """What the orders that it replaced, one beside the other, had filled of the same total: not in `filled`."""
    chain: int = 0
    """Of the orders that replace one another in one step, of which only one can be at the venue: all of them count each
    other's fills. 0: it is in none."""
    covered: int = 0
    """Of its leaves, those that an earlier order of its chain counts."""
    for_session: bool = False
    """It lives no longer than the session in which it is sent."""
    lapsed_us: int | None = None
    """When the next session opened without a word of it, if it is for one."""
    sender: Sender = NOBODY
    identities: tuple[str, ...] = ()
    """The keys (engine.conduct) of whoever stands behind it."""
    immediate: bool = False
    """What it does not fill at once lapses by itself (IOC, FOK): that is no cancel."""
    replaced: bool = False
    """Another order was approved in its place: when it goes, that is no cancel."""

    @property
    def counted(self) -> int:
        """Lots of it that stand in the books."""
        return self.leaves - self.covered

    @property
    def filled_in_all(self) -> int:
        """Filled of its total, whichever of the orders that it replaced was filled."""
        return self.carried + self.filled

    def suspect(self, now_us: int) -> bool:
        """Approved, never reported, and past its validity or session: still counted, until somebody says what became
        of it."""
        if self.working or self.closing or self.cancel_requested:
            return False
        return any(end_us is not None and now_us > end_us for end_us in (self.expires_us, self.lapsed_us))


class Chain(msgspec.Struct, frozen=True):
    """Orders that replace one another in one step: what can still fill is the most that any live one can, not their
    sum."""

    live: tuple[str, ...]
    """Client order ids, oldest first."""
    ended: tuple[str, ...] = ()
    """The latest that ended, at most ENDED_MAX: their last fills may be told late, and count for the live ones."""


class Instruction(msgspec.Struct, frozen=True):
    """Something that the execution engine has to do and that is not over: a cancel until its order has ended, an order
    of the gateway's own until it was sent or can't be."""

    instruction_id: str
    kind: InstructionKind
    client_order_id: str
    reason: Reason
    message: str
    order: Order | None
    lots: int
    seq: int
    epoch: int
    time_us: int
    deadline_us: int
    status: InstructionStatus = InstructionStatus.UNANSWERED
    escalated_seq: int = 0
    """Of the record that escalated it; 0: it was not."""


class Escalation(msgspec.Struct, frozen=True):
    """An escalated instruction as a line of history."""

    instruction_id: str
    message: str
    seq: int
    time_us: int


class BookedFill(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A fill as it was booked, so that it can be taken back."""

    seq: int
    time_us: int
    client_order_id: str
    strategy: str
    symbol: str
    lots: int
    """> 0 bought."""
    price: float
    gain: float
    """What it realised, in price times lots."""
    realised: float
    """The same in base currency, at the rate of then."""
    fee: float
    fee_currency: str
    is_reversed: bool = False


class Liquidation(msgspec.Struct, frozen=True):
    """How far the gateway's own orders have got in a strategy's position in a symbol. All in lots, 0 or more."""

    cause: str
    """Another one begins another liquidation."""
    is_cut: bool
    planned: int
    """What is to be closed: of a flattening what is filled and what is left, as its last order was made."""
    sent: int
    filled: int
    start_us: int
    last_us: int
    """When its last order was made."""
    epoch: int
    """Of its first order."""


class Accrual(msgspec.Struct, frozen=True):
    """A dividend that is owed to the account, or by it where below 0, and counts as equity."""

    symbol: str
    currency: str
    amount: float
    time_us: int


class Holding(msgspec.Struct, frozen=True):
    """A strategy's position in a symbol."""

    lots: int = 0
    average_cost: float = 0.0
    realised: float = 0.0
    """Realised P&L in base currency at the rates of its fills, fees not included."""


class Session(msgspec.Struct, frozen=True):
    """A trading session's opening figures; a closed one has its P&L. NaN stands for what is not known."""

    date: str
    equity_open: float
    flows: float
    pnl: float = math.nan
    nav_peak: float = math.nan
    opened_us: int = 0
    equity_close: float = math.nan
    nav_open: float = math.nan
    nav_close: float = math.nan
    drawdown_max: float = math.nan
    """Deepest fall of the NAV below its peak of the session so far, of that peak; of a closed session."""
    forecast: Forecast | None = None
    held_pnl: float = math.nan
    """What the positions that the forecast was made for gained since then, had nobody traded: the forecast is of that.
    Of a closed session that has one."""


class Held(msgspec.Struct, frozen=True, eq=False):
    """Positions, marks and rates by slot as a forecast was made."""

    lots: Ints
    mark: Floats
    fx: Floats


class Gain(msgspec.Struct, frozen=True):
    """Realised and unrealised P&L of a strategy's position, in base currency, at one moment."""

    realised: float = 0.0
    unrealised: float = 0.0


class Baseline(msgspec.Struct, frozen=True):
    """What had been gained at a moment from which P&L is counted: of each position, and what fees had cost."""

    gains: dict[tuple[str, str], Gain] = {}
    """By strategy and symbol; a position that is not there had none."""
    fees: float = 0.0
    equity: float = math.nan


class Ends:
    """Between what positions the open orders can lead, in lots by slot: exact in float64 up to LOTS_MAX. A value."""

    __slots__ = ("_active", "high", "largest", "low")

    def __init__(self, low: Floats, high: Floats) -> None:
        self.low, self.high = low, high
        self.largest: Floats = np.maximum(-low, high)
        """The larger of the two ends' sizes; 0 where nothing is held or open."""
        self._active: NDArray[np.intp] | None = None

    @property
    def active(self) -> NDArray[np.intp]:
        """The slots in which something is held or open."""
        if self._active is None:
            (self._active,) = self.largest.nonzero()
        return self._active


class Book:
    """Lots by slot: position, open buys and open sells, kept apart. The account has one, each strategy another.

    Changed through `move` and `open` only, so that what is derived from the lots lives exactly as long as they do.
    """

    __slots__ = ("_ends", "_held", "buys", "lots", "sells")

    def __init__(self, lots: Ints, buys: Ints, sells: Ints) -> None:
        self.lots, self.buys, self.sells = lots, buys, sells
        self._ends: Ends | None = None
        self._held: Ends | None = None

    def move(self, slot: int, lots: int) -> None:
        """Change a position by `lots`."""
        self.lots[slot] += lots
        self._ends = self._held = None

    def open(self, slot: int, sign: int, lots: int) -> None:
        """Change the open lots of a side by `lots`."""
        (self.buys if sign > 0 else self.sells)[slot] += lots
        self._ends = None

    def ends(self, open_orders: bool = True) -> Ends:
        """Where the open orders can lead; without them, both ends are the position."""
        if not open_orders:
            if self._held is None:
                held = self.lots.astype(np.float64)
                self._held = Ends(held, held)
            return self._held
        if self._ends is None:
            low, high = self.lots - self.sells, self.lots + self.buys
            self._ends = Ends(low.astype(np.float64), high.astype(np.float64))
        return self._ends

    @staticmethod
    def flat(slots: int) -> "Book":
        return Book(np.zeros(slots, np.int64), np.zeros(slots, np.int64), np.zeros(slots, np.int64))

    def copy(self) -> "Book":
        copy = Book(self.lots.copy(), self.buys.copy(), self.sells.copy())
        copy._ends, copy._held = self._ends, self._held
        return copy

    def widened(self, slots: int) -> "Book":
        more = slots - len(self.lots)
        return Book(*(np.append(a, np.zeros(more, np.int64)) for a in (self.lots, self.buys, self.sells)))

    def interval(self, slot: int) -> tuple[int, int]:
        """The lowest and the highest position that the open orders can lead to."""
        position: int = self.lots.item(slot)
        return position - self.sells.item(slot), position + self.buys.item(slot)


class Prices:
    """Marks, rates and market phases by slot. Zero stands for what is not known."""

    __slots__ = ("ask", "bid", "fx", "fx_time_us", "mark", "oldest_us", "open_mark", "phase", "time_us")

    def __init__(self, arrays: Iterable[Floats]) -> None:
        self.mark, self.bid, self.ask, self.time_us, self.fx, self.fx_time_us, *rest = arrays
        self.open_mark, self.oldest_us, self.phase = rest

    def date(self) -> None:
        """Take note of new times: `oldest_us` is the older of a symbol's mark and its rate."""
        np.minimum(self.time_us, self.fx_time_us, out=self.oldest_us)

    @staticmethod
    def none(slots: int) -> "Prices":
        return Prices(np.zeros(slots) for _ in range(9))

    def _arrays(self) -> tuple[Floats, ...]:
        return (
            self.mark,
            self.bid,
            self.ask,
            self.time_us,
            self.fx,
            self.fx_time_us,
            self.open_mark,
            self.oldest_us,
            self.phase,
        )

    def copy(self) -> "Prices":
        return Prices(a.copy() for a in self._arrays())

    def widened(self, slots: int) -> "Prices":
        return Prices(np.append(a, np.zeros(slots - len(a))) for a in self._arrays())


class Turnover:
    """What was traded in a session, by slot, of the account or of one strategy. A value: a fill makes another."""

    __slots__ = ("lots", "paid")

    def __init__(self, lots: Floats, paid: Floats) -> None:
        self.lots = lots
        """Filled, buys and sells added up."""
        self.paid = paid
        """Σ |lots| × price, in the symbol's currency before its unit: rates may be missing when a fill comes."""

    @staticmethod
    def none(slots: int) -> "Turnover":
        return Turnover(np.zeros(slots), np.zeros(slots))

    def with_fill(self, slot: int, lots: int, price: float) -> "Turnover":
        more = Turnover(self.lots.copy(), self.paid.copy())
        more.lots[slot] += lots
        more.paid[slot] += lots * price
        return more

    def widened(self, slots: int) -> "Turnover":
        return Turnover(*(np.append(a, np.zeros(slots - len(a))) for a in (self.lots, self.paid)))


_NO_FAULTS: Mapping[int, Any] = MappingProxyType({})


class AtMarks:
    """What the marks and rates of a state make of one lot of each symbol: lives until one of them changes. Without
    options it is also what a lot counts (engine.lot_values): in exposures, in scenarios and in direction the same."""

    __slots__ = ("delta", "faults", "linear", "long", "price_version", "priced", "scenario", "short", "unit_values")

    def __init__(self, state: "AccountState") -> None:
        prices, self.price_version = state.prices, state.price_version
        self.unit_values: Floats = prices.mark * state.unit
        self.unit_values *= prices.fx
        self.priced = not len(self.unit_values) or self.unit_values.item(self.unit_values.argmin()) > 0.0
        """Whether every listed symbol has a mark and a rate above 0."""
        self.scenario = self.long = self.short = self.delta = self.unit_values
        self.linear: bool = True
        self.faults: Mapping[int, Any] = _NO_FAULTS


class AccountState:
    """The fold of one account's log up to `seq`. See the module's docstring for how it is used."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.seq = 0
        self.base_currency = ""
        self.listed: dict[str, Listed] = {}
        self.slots: dict[str, int] = {}
        self.underlyings: dict[str, str] = {}
        """Of the options among the listed symbols."""
        self.unit: Floats = np.zeros(0)
        self.basis: Floats = np.zeros(0)
        """Σ lots × average cost, of symbols that settle variation only; 0 for the others."""
        self.book = Book.flat(0)
        self.books: dict[str, Book] = {}
        self._own_books: set[str] = set()
        """Those of `books` that no fork shares: another is copied before it is changed, so that a fork costs the same
        whether it has one strategy or thousands."""
        self.prices = Prices.none(0)
        self.rates: dict[str, Rate] = {}
        self.cash: dict[str, float] = {}
        self.holdings: dict[tuple[str, str], Holding] = {}
        self.orders: dict[str, OpenOrder] = {}
        self.release_delay_us: int | None = None
        """How long after it became suspect an approval is let go; None: never."""
        self.chains: dict[int, Chain] = {}
        self.chain_of_ended: dict[str, int] = {}
        """By client order id, the `ended` of all chains."""
        self.open_counts: dict[tuple[str, str], int] = {}
        """How many of `orders` are of a strategy and symbol."""
        self.turnovers: dict[str, Turnover] = {}
        """Of this session, by `book_key`, "" for the account's own; a book without fills has none."""
        self.approvals: Memory[OrderContent, tuple[int, ...]] = Memory()
        """Times of the latest approvals of orders that say the same, oldest first."""
        self.instructions: dict[str, Instruction] = {}
        """By id, those that are not over, oldest first."""
        self.escalations: tuple[Escalation, ...] = ()
        """The latest, oldest first, at most ESCALATIONS_MAX."""
        self.escalated_count = 0
        self.unfilled_us: dict[tuple[str, str], int] = {}
        """By strategy and symbol: when an order of the gateway's own last ended with lots that nobody filled."""
        self.liquidations: dict[tuple[str, str], Liquidation] = {}
        """By strategy and symbol, the latest each."""
        self.memos: Memory[str, Memo] = Memory()
        self.executions: Memory[str, int] = Memory()
        self.fills: Memory[str, BookedFill] = Memory()
        """By execution id, those of the idempotency horizon, at most FILLS_MAX."""
        self.accruals: dict[str, Accrual] = {}
        """Dividends owed, by the id of their event."""
        self.adjusted_us: dict[str, int] = {}
        """By symbol, when its last split was booked: prices and fills from before are of another unit."""
        self.events: Memory[str, int] = Memory()
        """Ids folded, with the time of their record."""
        self.tallies: dict[str, Tally] = {}
        """What engine.conduct counts, by key, at most TALLIES_MAX and one for the rest."""
        self.heartbeats: dict[str, int] = {}
        """When the latest Heartbeat of a strategy was, by `book_key`, of those with open orders."""
        self.trip_base: dict[tuple[str, str], float] = {}
        """By strategy and symbol, what had been realised when the position was last closed."""
        self.attempts: dict[str, Attempts] = {}
        self.attempts_max = STRATEGIES_MAX
        """Names in `attempts` at which the silent ones are looked for: so rarely that no decision waits for it."""
        self.latches: dict[tuple[Scope, TradingState], tuple[Latch, int]] = {}
        """By scope and state: the newest latch and the sequence number of its record. A weaker one never replaces a
        stricter one: each is lifted by itself."""
        self.reconciled_seq = 0
        self.reconciled_epoch = 0
        self.reconciled_us = 0
        """When the broker took the newest snapshot that was folded in."""
        self.units = 0.0
        self.last_fill_us = 0
        self.nav_peak = 0.0
        self.epoch = 0
        """The highest control epoch of a record so far."""
        self.epoch_peak = 0.0
        """Highest NAV since that of `epoch_peaks` that is newest; 0: nothing was valued since."""
        self.epoch_peaks: tuple[tuple[int, float], ...] = ()
        """Highest NAV by control epoch, of those before, at most EPOCH_PEAKS_MAX."""
        self._peak_epoch = 0
        self.flows_total = 0.0
        self.fees_total = 0.0
        self.session: Session | None = None
        self.sessions: tuple[Session, ...] = ()
        """Closed ones, oldest first, at most SESSIONS_MAX."""
        self.session_drawdown_max = 0.0
        """As `Session.drawdown_max`, of the session that is open."""
        self.held: Held | None = None
        """What the open session's forecast was made for."""
        self.opening_base: Baseline | None = None
        """At the first equity that was known, its deposits left out: P&L since opening counts from there."""
        self.session_base: Baseline | None = None
        """At the open session's first known equity."""
        self.tightenings: tuple[Tightened, ...] = ()
        """Those in force and those that are to come, one an id."""
        self.loans: tuple[BudgetLent, ...] = ()
        """Of risk budgets, one an id, at most engine.budgets.LOANS_MAX; those that have ended go with the next."""
        self.calendar: CalendarPlanned | None = None
        """How far ahead the windows of events are among them; None: nobody ever told."""
        self.decisions_by_action: dict[Action, int] = {}
        self.shadow_by_action: dict[tuple[str, Action], int] = {}
        """How often a limit in shadow, by its measure, would have done more than allow."""
        self.recent: tuple[RecentDecision, ...] = ()
        """The latest decisions, oldest first, at most RECENT_MAX."""
        self.past_marks: Floats = no_past(0)
        """The marks before the newest by slot (engine.loss_memory.pushed): never written to, forks share it."""
        self.past_rates: dict[str, tuple[float, ...]] = {}
        """The rates before the newest by currency, newest first."""
        self.session_gains: tuple[Gains, ...] = ()
        """Of the latest of `sessions`, oldest first, as many as a weekly loss looks back at."""
        self.peak_confirmed = 0.0
        """The high-water mark that limits count from: the highest NAV that several marks agreed on."""
        self.loss_bases: tuple[LossBase, ...] = ()
        """By control epoch, oldest first."""
        self.base_peak = 0.0
        """The highest confirmed NAV since the newest of `loss_bases`."""
        self.halted_by: dict[tuple[str, Scope], int] = {}
        """By measure and scope, the control epoch of its limit's newest halt."""
        self.breaker = BreakerState()
        self.last_time_us = 0
        self.version = 0
        """Grows with every change of lots, prices or slots: what is derived from them is cached under it."""
        self.price_version = 0
        """The same for prices and slots alone: an approval changes lots and leaves it."""
        self._equity = 0.0
        """As of the last record that moved cash, positions or prices."""
        self.derived: dict[Any, Any] = {}
        self.views: dict[str, Any] = {}
        """Of engine.view, by key: as many as there are strategies with limits of their own, and more."""
        self.resolved: dict[tuple[str, ...], Any] = {}
        """Which limits reach the orders of a strategy in a symbol, and of whoever stands behind them; kept by
        engine.decide, and by all forks together."""

    # --- forks -----------------------------------------------------------------------------------------------------

    def fork(self) -> "AccountState":
        """A copy to decide on. At most one fork of a state may live at a time: forks share the long memories."""
        copy = AccountState.__new__(AccountState)
        copy.__dict__.update(self.__dict__)
        copy.listed = self.listed.copy()
        copy.slots = self.slots.copy()
        copy.basis = self.basis.copy()
        copy.book = self.book.copy()
        copy.books = self.books.copy()
        copy._own_books, self._own_books = set(), set()
        copy.prices = self.prices.copy()
        copy.rates = self.rates.copy()
        copy.cash = self.cash.copy()
        copy.holdings = self.holdings.copy()
        copy.orders = self.orders.copy()
        copy.chains = self.chains.copy()
        copy.chain_of_ended = self.chain_of_ended.copy()
        copy.open_counts = self.open_counts.copy()
        copy.turnovers = self.turnovers.copy()
        copy.approvals = self.approvals.fork()
        copy.instructions = self.instructions.copy()
        copy.unfilled_us = self.unfilled_us.copy()
        copy.liquidations = self.liquidations.copy()
        copy.memos = self.memos.fork()
        copy.executions = self.executions.fork()
        copy.fills = self.fills.fork()
        copy.accruals = self.accruals.copy()
        copy.adjusted_us = self.adjusted_us.copy()
        copy.events = self.events.fork()
        copy.tallies = self.tallies.copy()
        copy.heartbeats = self.heartbeats.copy()
        copy.trip_base = self.trip_base.copy()
        copy.attempts = self.attempts.copy()
        copy.latches = self.latches.copy()
        copy.decisions_by_action = self.decisions_by_action.copy()
        copy.shadow_by_action = self.shadow_by_action.copy()
        copy.derived = self.derived.copy()
        copy.views = self.views.copy() if len(self.views) <= VIEWS_MAX else {}
        return copy

    def settle(self) -> "AccountState":
        """This fork as the new state: its layer of each long memory sinks into the one below."""
        self.memos = self.memos.settled()
        self.executions = self.executions.settled()
        self.fills = self.fills.settled()
        self.events = self.events.settled()
        self.approvals = self.approvals.settled(renewed=True)
        self._forget_old()
        self._forget_approvals()
        return self

    def _forget_old(self) -> None:
        """Free the ids that `memo` and `known` no longer give, a few at a time, oldest first."""
        crowded = len(self.memos) > MEMORY_MAX
        for client_order_id, memo in list(islice(self.memos.items(), FORGET_MAX)):
            if client_order_id in self.orders:
                self.memos.forget([client_order_id])
                self.memos.put(client_order_id, memo)
            elif crowded or memo.forgotten(self.last_time_us):
                self.memos.forget([client_order_id])
        before_us = self.last_time_us - MEMORY_HORIZON_US
        old = takewhile(lambda entry: entry[1] < before_us, islice(self.executions.items(), FORGET_MAX))
        self.executions.forget([key for key, _ in list(old)])
        many = len(self.fills) > FILLS_MAX
        gone = takewhile(lambda entry: many or entry[1].time_us < before_us, islice(self.fills.items(), FORGET_MAX))
        self.fills.forget([key for key, _ in list(gone)])

    def _forget_approvals(self) -> None:
        """The same for what duplicates are told by, of which the latest repeated is the newest."""
        crowded = len(self.approvals) > APPROVALS_MAX
        before_us = self.last_time_us - ATTEMPTS_HORIZON_US
        old = takewhile(lambda entry: crowded or entry[1][-1] < before_us, islice(self.approvals.items(), FORGET_MAX))
        self.approvals.forget([content for content, _ in list(old)])

    def approved_alike(self, order: Order, after_us: int) -> int:
        """How many orders that say the same were approved after a time, APPROVALS_ALIKE_MAX at most; none for an order
        without an id, which nobody sends."""
        if not order.client_order_id:  # only asked about
            return 0
        times = self.approvals.get(content_of(order)) or ()
        return sum(1 for time_us in times if time_us > after_us)

    def memo(self, client_order_id: str, now_us: int) -> Memo | None:
        """What is remembered of a decision; None for an id that was never used, or so long ago that it is free."""
        memo = self.memos.get(client_order_id)
        return None if memo is None or memo.forgotten(now_us) else memo

    def _close(self, client_order_id: str, time_us: int, filled: int) -> None:
        """An order has nothing open any more: from here on its id grows old."""
        order = self.orders.pop(client_order_id)
        self._count_open(order, -1)
        self.instructions.pop(order.instruction_id, None)
        if order.own and filled < order.held:
            self.unfilled_us[order.strategy, order.symbol] = time_us
        if order.chain:
            self._leave_chain(order)
        memo = self.memos.get(client_order_id)
        if memo is not None:
            self.memos.put(client_order_id, msgspec.structs.replace(memo, closed_us=time_us))

    # --- readings --------------------------------------------------------------------------------------------------

    @property
    def opened(self) -> bool:
        return bool(self.base_currency)

    def at_marks(self) -> "AtMarks":
        """What the marks make of one lot of each symbol."""
        cached: AtMarks | None = self.derived.get("at_marks")
        if cached is None or cached.price_version != self.price_version:
            cached = self.derived["at_marks"] = AtMarks(self)
        return cached

    def unit_values(self) -> Floats:
        """Base currency per lot by slot at the marks; 0 where mark or rate is missing."""
        return self.at_marks().unit_values

    def missing_price(self) -> str | None:
        """A symbol that is held or open and has no mark or rate above 0, if any."""
        if self.at_marks().priced:
            return None
        active = self.book.ends().active
        missing = active[self.unit_values()[active] <= 0.0]
        return self.symbol_at(int(missing[0])) if len(missing) else None

    def oldest_price_us(self) -> float:
        """Time of the oldest mark or rate that a held or open symbol is valued at; infinite where none is needed."""
        cached: tuple[int, float] | None = self.derived.get("oldest_price_us")
        if cached is None or cached[0] != self.version:
            cached = self.derived["oldest_price_us"] = (self.version, self._oldest_price_us())
        return cached[1]

    def _oldest_price_us(self) -> float:
        active, times = self.book.ends().active, self.prices.oldest_us
        if self.underlyings:
            active = self._with_underlyings(active)
        if len(active) < len(times):
            times = times[active]
        oldest_us: float = times.item(times.argmin()) if len(times) else math.inf
        for currency, amount in self.cash.items():
            if amount and currency != self.base_currency and (rate := self.rates.get(currency)) is not None:
                oldest_us = min(oldest_us, rate.time_us)
        return oldest_us

    def _with_underlyings(self, active: NDArray[np.intp]) -> NDArray[np.intp]:
        """With the slots of what the options among them are written on: an option is valued at both marks."""
        at_stake = set(active.tolist())
        found = [self.slots.get(one) for symbol, one in self.underlyings.items() if self.slots[symbol] in at_stake]
        return np.array(sorted(at_stake.union(slot for slot in found if slot is not None)), dtype=np.intp)

    def symbol_at(self, slot: int) -> str:
        return next(symbol for symbol, index in self.slots.items() if index == slot)

    def cash_value(self) -> float:
        """Cash of all currencies in base currency; NaN where a rate is missing."""
        total = 0.0
        for currency, amount in self.cash.items():
            if amount:
                total += amount * self.rate_of(currency)
        return total

    def rate_of(self, currency: str) -> float:
        if currency == self.base_currency:
            return 1.0
        rate = self.rates.get(currency)
        return rate.rate if rate is not None else math.nan

    def equity(self) -> float:
        """Cash plus positions at the marks, in base currency; NaN where a mark or a rate that it needs is missing."""
        return self._equity

    def _equity_now(self) -> float:
        if not self._held_are_priced():
            return math.nan
        held = float(np.dot(self.book.lots, self.unit_values()))
        settled = float(np.dot(self.basis, self.unit * self.prices.fx)) if self.basis.any() else 0.0
        return self.cash_value() + held - settled + (self.accrued_value() if self.accruals else 0.0)

    def accrued_value(self) -> float:
        """Dividends owed to the account less those that it owes, in base currency; NaN where a rate is missing."""
        return math.fsum(one.amount * self.rate_of(one.currency) for one in self.accruals.values())

    def _held_are_priced(self) -> bool:
        return self.at_marks().priced or not bool(((self.book.lots != 0) & (self.unit_values() <= 0.0)).any())

    def equities_back(self) -> Floats:
        """(CONFIRMATIONS_MAX,) what equity would be, with the lots and cash of now, at the newest mark and rate of each
        symbol, at the ones before, and so on; NaN as `equity`."""
        cached: tuple[int, Floats] | None = self.derived.get("equities_back")
        if cached is None or cached[0] != self.version:
            cached = self.derived["equities_back"] = (self.version, self._equities_back())
        return cached[1]

    def _equities_back(self) -> Floats:
        equities = np.full(CONFIRMATIONS_MAX, self._equity)
        if math.isnan(self._equity):
            return equities
        if self.past_rates:
            equities[1:] = [self._equity_back(back) for back in range(1, CONFIRMATIONS_MAX)]
            return equities
        fx = self.prices.fx
        settled = float(np.dot(self.basis, self.unit * fx)) if self.basis.any() else 0.0
        fixed = self.cash_value() - settled + (self.accrued_value() if self.accruals else 0.0)
        equities[1:] = self.past_marks.dot(self.book.lots * self.unit * fx) + fixed
        return equities

    def _equity_back(self, back: int) -> float:
        """The same `back` marks and rates before the newest, where rates have moved."""
        fx = self.fx_back(back)
        held = float(np.dot(self.book.lots, self.marks_back(back) * self.unit * fx))
        settled = float(np.dot(self.basis, self.unit * fx))
        owned = [*self.cash.items(), *((one.currency, one.amount) for one in self.accruals.values())]
        cash = sum(amount * self._rate_back(currency, back) for currency, amount in owned if amount)
        return cash + held - settled

    def marks_back(self, back: int) -> Floats:
        """(slots,) each symbol's mark `back` marks before its newest, its first where it had fewer; 0: it has none."""
        return self.past_marks[back - 1] if back else self.prices.mark

    def fx_back(self, back: int) -> Floats:
        """The same of the rate to base currency that each symbol is valued at."""
        if not self.past_rates:
            return self.prices.fx
        fx = self.prices.fx.copy()
        for symbol, listed in self.listed.items():
            if listed.currency in self.past_rates:
                fx[self.slots[symbol]] = self._rate_back(listed.currency, back)
        return fx

    def _rate_back(self, currency: str, back: int) -> float:
        past = self.past_rates.get(currency)
        return past[min(back, len(past)) - 1] if past and back else self.rate_of(currency)

    def session_gains_now(self) -> Gains:
        """What each position has gained in the open session, at the newest marks; empty before it was valued."""
        base = self.session_base
        if base is None:
            return {}
        now = {key: of.realised + self.unrealised(*key) for key, of in self.holdings.items()}
        before = {key: one.realised + one.unrealised for key, one in base.gains.items()}
        return {key: gain - before.get(key, 0.0) for key, gain in now.items()}

    def nav(self) -> float:
        """Equity per unit; deposits and withdrawals change the units, not the NAV."""
        return self.equity() / self.units if self.units > 0 else math.nan

    def drawdown(self) -> float:
        """1 − NAV / high-water mark: 0.1 is ten per cent below the peak."""
        return 1.0 - self.nav() / self.nav_peak if self.nav_peak > 0 else math.nan

    def nav_peak_since(self, epoch: int) -> float:
        """Highest NAV under control epochs from `epoch` on, a Resume's for instance; the NAV now where nothing was
        valued under them. 0 where the account never was."""
        peaks = [peak for at, peak in (*self.epoch_peaks, (self._peak_epoch, self.epoch_peak)) if at >= epoch]
        nav = self.nav()
        return max(peaks) if peaks else nav if math.isfinite(nav) else 0.0

    def session_pnl(self) -> float:
        """Since the session opened, net of deposits and withdrawals, in base currency."""
        if self.session is None:
            return math.nan
        return self.equity() - self.session.equity_open - self.session.flows

    def holding(self, strategy: str, symbol: str) -> Holding:
        return self.holdings.get((strategy, symbol), _FLAT)

    def unrealised(self, strategy: str, symbol: str) -> float:
        """Gain of a position over its average cost at the mark, in base currency at today's rate; NaN where it is held
        and mark or rate is missing."""
        holding, slot = self.holding(strategy, symbol), self.slots[symbol]
        if holding.lots == 0:
            return 0.0
        mark, fx = self.prices.mark.item(slot), self.prices.fx.item(slot)
        if mark <= 0.0 or fx <= 0.0:
            return math.nan
        gain: float = holding.lots * self.unit.item(slot) * (mark - holding.average_cost) * fx
        return gain

    def book_of(self, key: str) -> Book:
        """The book of a strategy by its `book_key`; with "" the account's. A strategy without one is flat."""
        if not key:
            return self.book
        book = self.books.get(key)
        return book if book is not None else Book.flat(len(self.slots))

    def has_open(self, strategy: str) -> bool:
        """Whether an order of a strategy, and not the gateway's own, may still fill."""
        return any(one.strategy == strategy and not one.own for one in self.orders.values())

    def heard_us(self, strategy: str) -> int:
        """When whoever trades for a strategy last gave a sign of life: a heartbeat, an order tried, or the newest of
        those that are open."""
        key = book_key(strategy)
        tried = self.attempts.get(key)
        opened = (one.time_us for one in self.orders.values() if one.strategy == strategy)
        return max(self.heartbeats.get(key, 0), tried.latest_us if tried is not None else 0, *opened, 0)

    def tally(self, key: str) -> Tally:
        """What was counted under a key of engine.conduct."""
        found = self.tallies.get(key)
        if found is None and len(self.tallies) >= TALLIES_MAX:
            found = self.tallies.get(REST)
        return found if found is not None else NOTHING

    def latched_state(self, control: Control, strategy: str, symbol: str, sender: Sender = NOBODY) -> TradingState:
        """The strictest latch of this account in force for such an order."""
        strictest = TradingState.ACTIVE
        for latch, seq in self.latches.values():
            if (
                latch.state > strictest
                and latch.scope.reaches(self.account, strategy, symbol, sender)
                and self.latch_holds(latch, seq, control)
            ):
                strictest = latch.state
        return strictest

    def latch_holds(self, latch: Latch, seq: int, control: Control) -> bool:
        """Whether no Resume has lifted a latch yet; where it needs a reconciliation, no Resume that came after one."""
        if not latch.needs_reconciliation:
            return not control.lifts(latch.scope, latch.epoch)
        if self.reconciled_seq < seq:
            return True
        return not control.lifts(latch.scope, max(latch.epoch, self.reconciled_epoch))

    def latched_after(self, seq: int, strategy: str, symbol: str, sender: Sender = NOBODY) -> bool:
        """Whether a latch, in force or lifted, reached such an order after record `seq`."""
        return any(
            at > seq and latch.scope.reaches(self.account, strategy, symbol, sender)
            for latch, at in self.latches.values()
        )

    # --- the fold --------------------------------------------------------------------------------------------------

    def apply(self, record: AnyRecord) -> None:
        """Fold the next record in."""
        self.seq += 1
        self.last_time_us = max(self.last_time_us, record.time_us)
        self.epoch = max(self.epoch, record.epoch)
        _FOLDS[type(record)](self, record)

    def _opened(self, record: AccountOpened) -> None:
        self.base_currency = record.base_currency
        self.cash = dict(record.cash)
        for listed in record.listed:
            self._listed(listed)
        for position in record.positions:
            self._move(position.strategy, position.symbol, position.lots, position.average_cost)
        self.events.put(record.event_id, record.time_us)
        self._revalued()

    def _listed(self, record: Listed) -> None:
        if record.symbol in self.slots:
            return
        self.listed[record.symbol] = record
        self.slots[record.symbol] = slot = len(self.slots)
        if record.underlying:
            self.underlyings = {**self.underlyings, record.symbol: record.underlying}
        count = slot + 1
        self.unit = np.append(self.unit, record.unit)
        self.basis = np.append(self.basis, 0.0)
        self.book = self.book.widened(count)
        self.books = {name: book.widened(count) for name, book in self.books.items()}
        self.turnovers = {name: turnover.widened(count) for name, turnover in self.turnovers.items()}
        self.prices = self.prices.widened(count)
        self.past_marks = np.column_stack((self.past_marks, no_past(1)))
        if record.currency == self.base_currency:
            self.prices.fx[slot] = 1.0
            self.prices.fx_time_us[slot] = math.inf
        elif (rate := self.rates.get(record.currency)) is not None:
            self.prices.fx[slot], self.prices.fx_time_us[slot] = rate.rate, rate.time_us
        self.prices.date()
        self.version += 1
        self.price_version += 1

    def _valued(self, record: Valued) -> None:
        prices, slots = self.prices, self.slots
        indices = [slots[symbol] for symbol in record.marks]
        quotes = record.marks.values()
        if indices:
            self.past_marks = pushed(self.past_marks, indices, prices.mark, [quote.mark for quote in quotes])
        prices.mark[indices] = [quote.mark for quote in quotes]
        prices.bid[indices] = [quote.bid or 0.0 for quote in quotes]
        prices.ask[indices] = [quote.ask or 0.0 for quote in quotes]
        prices.time_us[indices] = [quote.time_us for quote in quotes]
        prices.phase[indices] = [quote.phase for quote in quotes]
        unopened = prices.open_mark == 0.0
        if unopened.any():
            prices.open_mark[unopened] = prices.mark[unopened]
        if replaced := {name: self.rates[name] for name in record.fx if name in self.rates}:
            self.past_rates = pushed_rates(self.past_rates, replaced)
        for currency, rate in record.fx.items():
            self.rates[currency] = rate
            for symbol, listed in self.listed.items():
                if listed.currency == currency:
                    prices.fx[slots[symbol]], prices.fx_time_us[slots[symbol]] = rate.rate, rate.time_us
        prices.date()
        self.price_version += 1
        self._revalued()

    def _session_opened(self, record: SessionOpened) -> None:
        if self.session is not None:
            self.sessions = (*self.sessions, self._closed(self.session))[-SESSIONS_MAX:]
            self.session_gains = (*self.session_gains, self.session_gains_now())[-WEEK_SESSIONS + 1 :]
            self._lapse(record.time_us)
        nav = self.nav()
        self.session = Session(record.date, self.equity(), 0.0, nav_peak=nav, opened_us=record.time_us, nav_open=nav)
        self.session_drawdown_max, self.held = 0.0, None
        self.session_base = self._baseline() if math.isfinite(self.equity()) else None
        self.tightenings = tuple(one for one in self.tightenings if not _is_over(one, record.date, record.time_us))
        self.breaker = self.breaker.rolled(self.epoch)
        self.prices.open_mark[:] = self.prices.mark
        self.turnovers = {}
        self.tallies = {key: rolled for key, one in self.tallies.items() if (rolled := one.rolled()) != NOTHING}
        if record.event_id:
            self.events.put(record.event_id, record.time_us)

    def _closed(self, session: Session) -> Session:
        """The session that ends now, with what came of it."""
        nav = self.nav()
        drawdown = 1.0 - nav / session.nav_peak if session.nav_peak > 0 else math.nan
        return msgspec.structs.replace(
            session,
            pnl=self.session_pnl(),
            equity_close=self.equity(),
            nav_close=nav,
            drawdown_max=drawdown if math.isnan(drawdown) else max(self.session_drawdown_max, drawdown),
            held_pnl=self._held_pnl(),
        )

    def _held_pnl(self) -> float:
        """What `held` has gained since; a future settles its gain at today's rate, the rest is worth money itself."""
        held = self.held
        if held is None:
            return math.nan
        count = len(held.lots)
        mark, fx = self.prices.mark[:count], self.prices.fx[:count]
        gain = (mark - held.mark) * fx
        for symbol, listed in self.listed.items():
            slot = self.slots[symbol]
            if slot < count and not listed.settles_variation:
                gain[slot] = mark[slot] * fx[slot] - held.mark[slot] * held.fx[slot]
        return float(np.dot(held.lots, self.unit[:count] * gain))

    def _baseline(self) -> Baseline | None:
        """None before every position of every strategy has a mark: two that cancel out in the account need none for its
        equity."""
        gains = {key: Gain(of.realised, self.unrealised(*key)) for key, of in self.holdings.items()}
        if any(math.isnan(gain.unrealised) for gain in gains.values()):
            return None
        return Baseline(gains, self.fees_total, self.equity())

    def _forecast(self, record: Forecast) -> None:
        session = self.session
        if session is None or session.date != record.session or session.forecast is not None:
            return
        self.session = msgspec.structs.replace(session, forecast=record)
        self.held = Held(self.book.lots.copy(), self.prices.mark.copy(), self.prices.fx.copy())

    def _tightened(self, record: Tightened) -> None:
        others = (one for one in self.tightenings if one.tightening_id != record.tightening_id)
        kept = tuple(one for one in others if not _is_over(one, "", record.time_us))
        self.tightenings = (*kept, record) if record.factor < 1.0 else kept

    def _budget_lent(self, record: BudgetLent) -> None:
        others = (one for one in self.loans if one.loan_id != record.loan_id)
        kept = tuple(one for one in others if not 0 < one.until_us <= record.time_us)
        self.loans = (*kept, record) if record.share > 0.0 else kept

    def _calendar_planned(self, record: CalendarPlanned) -> None:
        self.calendar = record

    def _breaker_moved(self, record: BreakerMoved) -> None:
        self.breaker = self.breaker.moved(record)

    def _heard(self, record: Heartbeat) -> None:
        open_keys = {book_key(strategy) for strategy, _ in self.open_counts}
        self.heartbeats = {key: at for key, at in self.heartbeats.items() if key in open_keys}
        self.heartbeats[book_key(record.strategy)] = record.time_us

    def _lapse(self, time_us: int) -> None:
        """The session is over that unreported orders for one were approved in."""
        for name, order in self.orders.items():
            if order.for_session and order.lapsed_us is None and not order.working:
                self.orders[name] = msgspec.structs.replace(order, lapsed_us=time_us)

    def _release_delay_set(self, record: ReleaseDelaySet) -> None:
        self.events.put(record.event_id, record.time_us)
        self.release_delay_us = record.delay_us

    def _released(self, record: Released) -> None:
        for name in record.client_order_ids:
            order = self.orders.get(name)
            if order is None or order.working:
                continue
            self._keep(order, msgspec.structs.replace(order, leaves=0), record.time_us)
            if order.chain:
                self._recount(order.chain)

    def _decided(self, record: Decided) -> None:
        order, action = record.order, record.action
        memo = Memo(
            seq=self.seq,
            digest=record.digest,
            action=action,
            reason=record.reason,
            allowed_lots=record.allowed_lots,
            epoch=record.epoch,
            time_us=record.time_us,
            expires_us=record.expires_us,
            strategy=order.strategy,
            symbol=order.symbol,
            sign=order.side.sign,
            closed_us=0 if record.allowed_lots else record.time_us,
        )
        self.memos.put(order.client_order_id, memo)
        self.decisions_by_action[action] = self.decisions_by_action.get(action, 0) + 1
        for check in record.checks:
            if check.shadow and check.action is not Action.ALLOW:
                shadowed = check.measure, check.action
                self.shadow_by_action[shadowed] = self.shadow_by_action.get(shadowed, 0) + 1
        self._keep_recent(record)
        identities = identity_keys(order)
        for name in ("", book_key(order.strategy), *identities):
            tried = self.attempts.get(name)
            self.attempts[name] = (tried if tried is not None else Attempts()).with_one(record.time_us)
        for key in self._tallied(order.strategy, order.symbol, identities):
            self.tallies[key] = self.tally(key).tried(record.time_us, bool(order.replaces_client_order_id))
        if len(self.attempts) > self.attempts_max:
            self._forget_attempts(record.time_us)
        if record.allowed_lots:
            self._reserve(record)
            self._note_approval(order, record.time_us)
        for latch in record.latches:
            self._latch(latch)
        if record.latches:
            self._restart_tallies(record)

    def _tallied(self, strategy: str, symbol: str, identities: tuple[str, ...]) -> Iterator[str]:
        """The keys under which something of an order is counted."""
        known, crowded = self.tallies, len(self.tallies) >= TALLIES_MAX
        for key in ("", book_key(strategy), kind_key("symbol", symbol), *identities):
            yield REST if crowded and key not in known else key

    def _restart_tallies(self, record: Decided) -> None:
        """A halt that a person has to lift: what led to it counts from here on."""
        order = record.order
        for check in record.checks:
            if check.action is not Action.HALT or check.shadow or check.measure not in RESTARTING:
                continue
            kind = check.scope.partition(":")[0]
            key = scope_key(kind, book_key(order.strategy), order.symbol, order.identities)
            if key not in self.tallies and len(self.tallies) >= TALLIES_MAX:
                key = REST
            self.tallies[key] = self.tally(key).restarted(check.measure)

    def _keep_recent(self, record: Decided) -> None:
        recent = RecentDecision(
            seq=self.seq,
            order=record.order,
            action=record.action,
            reason=record.reason,
            message=record.message,
            allowed_lots=record.allowed_lots,
            epoch=record.epoch,
            time_us=record.time_us,
        )
        self.recent = (*self.recent[-RECENT_MAX + 1 :], recent)

    def _note_approval(self, order: Order, time_us: int) -> None:
        content = content_of(order)
        times = self.approvals.get(content) or ()
        self.approvals.forget([content])  # a key that is put again would keep its place in the line
        self.approvals.put(content, (*times[-APPROVALS_ALIKE_MAX + 1 :], time_us))

    def _admit(self, order: OpenOrder) -> None:
        """An order is open from here on."""
        known = self.orders.get(order.client_order_id)
        if known is not None:
            self._count_open(known, -1)
        self.orders[order.client_order_id] = order
        self._count_open(order, 1)

    def _count_open(self, order: OpenOrder, more: int) -> None:
        key = order.strategy, order.symbol
        count = self.open_counts.pop(key, 0) + more
        if count:
            self.open_counts[key] = count

    def _forget_attempts(self, now_us: int) -> None:
        """Names of strategies are free text: those that no rate limit can count any more are dropped."""
        before_us = now_us - ATTEMPTS_HORIZON_US
        self.attempts = {name: tried for name, tried in self.attempts.items() if tried.since(before_us)}
        self.attempts_max = max(STRATEGIES_MAX, 2 * len(self.attempts))

    def _reserve(self, record: Decided) -> None:
        """Count an approval. One that replaces another is of a total: what is filled of it already is not reserved
        again, and where the venue replaces in one step, the two are one order there."""
        order, filled = record.order, record.filled_lots
        if (old := self.orders.get(order.replaces_client_order_id)) is not None:
            self.orders[old.client_order_id] = msgspec.structs.replace(old, replaced=True)
        replaced = self.orders.get(order.replaces_client_order_id) if record.atomic else None
        carried = replaced.carried if replaced is not None else filled
        opened = OpenOrder(
            client_order_id=order.client_order_id,
            strategy=order.strategy,
            symbol=order.symbol,
            sign=order.side.sign,
            held=record.allowed_lots - carried,
            leaves=record.allowed_lots - filled,
            filled=filled - carried,
            reported=filled - carried,
            order_type=order.order_type,
            limit_price=record.limit_price,
            seq=self.seq,
            epoch=record.epoch,
            time_us=record.time_us,
            expires_us=record.expires_us,
            carried=carried,
            for_session=_for_session(order),
            sender=order.sender,
            identities=identity_keys(order),
            immediate=order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK),
        )
        self._admit(opened)
        self._open(order.strategy, order.symbol, order.side.sign, opened.leaves)
        if replaced is not None:
            self._chain(replaced, opened)

    def _executed(self, record: Executed) -> None:
        self.executions.put(record.execution_id, record.time_us)
        order = self.orders.get(record.client_order_id)
        chain = self.chain_of_ended.get(record.client_order_id, 0)
        self._tally_report(record, order)
        if record.lots:
            self._fill(record)
            place = record.strategy, record.symbol
            if order is not None and order.own and (progress := self.liquidations.get(place)) is not None:
                filled = progress.filled + record.lots
                self.liquidations[place] = msgspec.structs.replace(progress, filled=filled)
        if record.fee:
            self._pay_fee(record.fee, record.fee_currency)
        if order is not None:
            self._follow(order, record)
        elif chain:
            self._follow_chain(chain, record)
        for latch in record.latches:
            self._latch(latch)

    def _follow(self, order: OpenOrder, record: Executed) -> None:
        """Move an open order on, and with it those of its chain."""
        if order.chain:
            self._follow_chain(order.chain, record)
        else:
            self._keep(order, _moved(order, record), record.time_us)

    def _keep(self, order: OpenOrder, moved: OpenOrder, time_us: int) -> None:
        """An open order as it has become; with no leaves it ends."""
        self._open(order.strategy, order.symbol, order.sign, (moved.counted if moved.leaves else 0) - order.counted)
        if moved.leaves == 0:
            self._close(order.client_order_id, time_us, moved.filled)
            return
        if moved.closing and moved.instruction_id:
            self.instructions.pop(moved.instruction_id, None)
            moved = msgspec.structs.replace(moved, instruction_id="")
        self.orders[order.client_order_id] = moved

    # --- orders that replace one another in one step ---------------------------------------------------------------

    def _chain(self, replaced: OpenOrder, opened: OpenOrder) -> None:
        chain = replaced.chain or self.seq
        known = self.chains.get(chain)
        live = known.live if known is not None else (replaced.client_order_id,)
        ended = known.ended if known is not None else ()
        self.chains[chain] = Chain((*live, opened.client_order_id), ended)
        for order in (replaced, opened):
            self.orders[order.client_order_id] = msgspec.structs.replace(order, chain=chain)
        self._recount(chain)

    def _follow_chain(self, chain: int, record: Executed) -> None:
        """A fill of one of them leaves less to fill for all."""
        told = self.orders.get(record.client_order_id)
        lots = record.lots if told is None else _filled_by(told, record)
        for name in self.chains[chain].live:
            order = self.orders[name]
            self._keep(order, _moved(order, record) if order is told else _moved_by(order, lots), record.time_us)
        self._recount(chain)

    def _recount(self, chain: int) -> None:
        """Share what can still fill out among the live ones: each counts what those before it don't."""
        known = self.chains.get(chain)
        most = 0
        for name in known.live if known is not None else ():
            order = self.orders[name]
            covered = min(order.leaves, most)
            most = max(most, order.leaves)
            if covered != order.covered:
                self._open(order.strategy, order.symbol, order.sign, order.covered - covered)
                self.orders[name] = msgspec.structs.replace(order, covered=covered)

    def _leave_chain(self, order: OpenOrder) -> None:
        known = self.chains[order.chain]
        live = tuple(name for name in known.live if name != order.client_order_id)
        ended = (*known.ended, order.client_order_id)
        if live:
            self.chain_of_ended[order.client_order_id] = order.chain
            self.chains[order.chain] = Chain(live, ended[-ENDED_MAX:])
            forgotten = ended[:-ENDED_MAX]
        else:
            del self.chains[order.chain]
            forgotten = ended
        for name in forgotten:
            self.chain_of_ended.pop(name, None)

    def _fill(self, record: Executed) -> None:
        self.last_fill_us = record.time_us
        signed = record.sign * record.lots
        slot = self.slots[record.symbol]
        for key in ("", book_key(record.strategy)):
            turnover = self.turnovers.get(key) or Turnover.none(len(self.slots))
            self.turnovers[key] = turnover.with_fill(slot, record.lots, record.price)
        before = self.holding(record.strategy, record.symbol)
        held = before.lots
        gain = self._trade(record.strategy, record.symbol, signed, record.price)
        after = self.holding(record.strategy, record.symbol)
        if held and held * (held + signed) <= 0:
            self._note_closed(record)
        self._book(record, signed, gain, after.realised - before.realised)
        self._revalued()

    def _book(self, record: Executed, lots: int, gain: float, realised: float) -> None:
        """Remember a fill, so that it can be taken back."""
        booked = BookedFill(
            seq=self.seq,
            time_us=record.time_us,
            client_order_id=record.client_order_id,
            strategy=record.strategy,
            symbol=record.symbol,
            lots=lots,
            price=record.price,
            gain=gain,
            realised=realised,
            fee=record.fee,
            fee_currency=record.fee_currency,
        )
        self.fills.put(record.execution_id, booked)

    def _trade(self, strategy: str, symbol: str, lots: int, price: float) -> float:
        """Change a position and the cash that it is paid with; the realised gain in price × lots."""
        listed = self.listed[symbol]
        gain = self._move(strategy, symbol, lots, price)
        paid = gain * listed.unit if listed.settles_variation else -lots * listed.unit * price
        self.cash[listed.currency] = self.cash.get(listed.currency, 0.0) + paid
        return gain

    def _tally_report(self, record: Executed, order: OpenOrder | None) -> None:
        """Count what a report says of how orders are conducted; what the gateway itself sent is nobody's conduct."""
        if order is not None and order.own:
            return
        identities = order.identities if order is not None else ()
        for key in self._tallied(record.strategy, record.symbol, identities):
            tally = self.tally(key)
            if record.lots:
                tally = tally.with_fill(order is None or order.filled == 0)
            elif record.kind == ExecutionKind.WORKING:
                tally = tally.taken()
            elif record.kind == ExecutionKind.REJECTED:
                tally = tally.with_reject(record.time_us)
            elif order is not None and _is_cancel(order, record.kind):
                tally = tally.with_cancel(record.time_us)
            self.tallies[key] = tally

    def _note_closed(self, record: Executed) -> None:
        """A position went to zero, or through it: what it realised since it was opened is a gain or a loss."""
        place = record.strategy, record.symbol
        realised = self.holdings[place].realised
        gained = realised - self.trip_base.get(place, 0.0)
        self.trip_base[place] = realised
        closed = Closed(record.time_us, not gained >= 0.0)
        order = self.orders.get(record.client_order_id)
        for key in self._tallied(*place, order.identities if order is not None else ()):
            self.tallies[key] = self.tally(key).with_closed(closed)

    def _move(self, strategy: str, symbol: str, lots: int, price: float) -> float:
        """Change a position by `lots` at `price`; the realised gain in price × lots (before unit and fx)."""
        slot, listed = self.slots[symbol], self.listed[symbol]
        old = self.holding(strategy, symbol)
        total = old.lots + lots
        gain, cost = _averaged(old, lots, price)
        rate = self.rate_of(listed.currency)
        realised = old.realised + (gain * listed.unit * rate if gain else 0.0)
        self.holdings[strategy, symbol] = Holding(total, cost, realised)
        if listed.settles_variation:
            self.basis[slot] += total * cost - old.lots * old.average_cost
        self._move_books(strategy, slot, lots)
        self.version += 1
        return gain

    def _move_books(self, strategy: str, slot: int, lots: int) -> None:
        self.book.move(slot, lots)
        self._strategy_book(strategy).move(slot, lots)

    def _open(self, strategy: str, symbol: str, sign: int, lots: int) -> None:
        slot = self.slots[symbol]
        for book in (self.book, self._strategy_book(strategy)):
            book.open(slot, sign, lots)
        self.version += 1

    def _strategy_book(self, strategy: str) -> Book:
        """The strategy's book, to be changed."""
        key = book_key(strategy)
        book = self.books.get(key)
        if book is None or key not in self._own_books:
            book = self.books[key] = Book.flat(len(self.slots)) if book is None else book.copy()
            self._own_books.add(key)
        return book

    def _pay_fee(self, amount: float, currency: str) -> None:
        paid_in = currency or self.base_currency
        self.cash[paid_in] = self.cash.get(paid_in, 0.0) - amount
        value = amount * self.rate_of(paid_in)
        self.fees_total += value if math.isfinite(value) else 0.0
        self._revalued()

    def _cash_flowed(self, record: CashFlowed) -> None:
        self.events.put(record.event_id, record.time_us)
        value = record.amount * self.rate_of(record.currency)
        nav = self.nav()
        self.cash[record.currency] = self.cash.get(record.currency, 0.0) + record.amount
        self.version += 1
        if math.isfinite(value):
            self.flows_total += value
            if nav > 0:
                self.units = max(0.0, self.units + value / nav)
            if self.session is not None:
                self.session = msgspec.structs.replace(self.session, flows=self.session.flows + value)
        self._revalued()

    def _fee_charged(self, record: FeeCharged) -> None:
        self.events.put(record.event_id, record.time_us)
        self._pay_fee(record.amount, record.currency)

    # --- what happens to positions without a trade ------------------------------------------------------------------

    def _split(self, record: Split) -> None:
        """New lots at prices that move the other way; parts of a lot become cash."""
        self.events.put(record.event_id, record.time_us)
        symbol, slot, listed = record.symbol, self.slots[record.symbol], self.listed[record.symbol]
        many, per = record.new_units, record.old_units
        for position in record.positions:
            old = self.holding(position.strategy, symbol)
            cost, rate = old.average_cost * per / many, self.rate_of(listed.currency)
            part = (old.lots * many - position.lots * per) / per
            gain = position.cash if listed.settles_variation else position.cash - part * listed.unit * cost
            realised = old.realised + (gain * rate if gain else 0.0)
            if listed.settles_variation:
                self.basis[slot] += position.lots * cost - old.lots * old.average_cost
            self._move_books(position.strategy, slot, position.lots - old.lots)
            self.holdings[position.strategy, symbol] = Holding(position.lots, cost if position.lots else 0.0, realised)
            if position.cash:
                self.cash[listed.currency] = self.cash.get(listed.currency, 0.0) + position.cash
        for prices in (self.prices.mark, self.prices.bid, self.prices.ask, self.prices.open_mark):
            prices[slot] *= per / many
        self.past_marks = self.past_marks.copy()
        self.past_marks[:, slot] *= per / many
        self.breaker = self.breaker.split(symbol, many, per)
        self._split_orders(record)
        for place, one in self.liquidations.items():
            if place[1] == symbol:
                counts = {name: getattr(one, name) * many // per for name in ("planned", "sent", "filled")}
                self.liquidations[place] = msgspec.structs.replace(one, **counts)
        for key, turnover in self.turnovers.items():
            lots = turnover.lots.copy()
            lots[slot] *= many / per
            self.turnovers[key] = Turnover(lots, turnover.paid)
        if self.held is not None and slot < len(self.held.lots):
            lots_held, mark_held = self.held.lots.copy(), self.held.mark.copy()
            lots_held[slot], mark_held[slot] = round(int(lots_held[slot]) * many / per), mark_held[slot] * per / many
            self.held = msgspec.structs.replace(self.held, lots=lots_held, mark=mark_held)
        self.adjusted_us[symbol] = record.time_us
        self.price_version += 1
        self._revalued()

    def _split_orders(self, record: Split) -> None:
        many, per = record.new_units, record.old_units
        chains = set()
        for name, leaves in record.open_orders.items():
            order = self.orders.get(name)
            if order is None:
                continue
            filled = order.filled * many // per
            self._open(order.strategy, order.symbol, order.sign, leaves - order.counted)
            self.orders[name] = msgspec.structs.replace(
                order,
                held=filled + leaves if not order.closing else max(filled + leaves, order.held * many // per),
                leaves=leaves,
                filled=filled,
                reported=filled + -((order.filled - order.reported) * many // per),
                carried=order.carried * many // per,
                limit_price=None if order.limit_price is None else order.limit_price * per / many,
                covered=0,
            )
            if order.chain:
                chains.add(order.chain)
        for chain in sorted(chains):
            self._recount(chain)

    def _dividend(self, record: Dividend) -> None:
        """Income of the positions: it moves equity and NAV, as the fall of the mark does the other way."""
        self.events.put(record.event_id, record.time_us)
        rate, total = self.rate_of(record.currency), math.fsum(share.amount for share in record.shares)
        for share in record.shares:
            old = self.holding(share.strategy, record.symbol)
            realised = old.realised + share.amount * rate
            self.holdings[share.strategy, record.symbol] = msgspec.structs.replace(old, realised=realised)
        self.book.move(self.slots[record.symbol], 0)  # no lot moved, but what positions have gained did
        if record.accrued:
            self.accruals[record.event_id] = Accrual(record.symbol, record.currency, total, record.time_us)
        else:
            self.cash[record.currency] = self.cash.get(record.currency, 0.0) + total
        self._revalued()

    def _dividend_settled(self, record: DividendSettled) -> None:
        self.events.put(record.event_id, record.time_us)
        owed = self.accruals.pop(record.accrual_event_id, None)
        if owed is not None:
            self.cash[owed.currency] = self.cash.get(owed.currency, 0.0) + owed.amount
        self._revalued()

    def _settled(self, record: Settled) -> None:
        """No trade: it counts in no turnover, and takes no fill's place."""
        self.events.put(record.event_id, record.time_us)
        for move in record.moves:
            self._trade(move.strategy, move.symbol, move.lots, move.price)
        for name in record.ended_orders:
            order = self.orders.get(name)
            if order is not None:
                self._keep(order, msgspec.structs.replace(order, leaves=0), record.time_us)
        self._revalued()

    def _fill_reversed(self, record: FillReversed) -> None:
        """As if it had not been: lots, cost, cash, fee, and the leaves of an order that is still open. The cost is
        that of the lots without it where that makes a price; else they cost what it did, and the rest is realised."""
        self.events.put(record.event_id, record.time_us)
        booked = self.fills.get(record.execution_id)
        if booked is not None:
            self.fills.put(record.execution_id, msgspec.structs.replace(booked, is_reversed=True))
        self._take_back(record)
        if record.fee:
            self._pay_fee(-record.fee, record.fee_currency)
        if record.in_session:
            self._untrade(record)
        order = self.orders.get(record.client_order_id)
        chain = order.chain if order is not None else self.chain_of_ended.get(record.client_order_id, 0)
        place = record.strategy, record.symbol
        if order is not None and order.own and (progress := self.liquidations.get(place)) is not None:
            filled = max(0, progress.filled - abs(record.lots))
            self.liquidations[place] = msgspec.structs.replace(progress, filled=filled)
        for name in self.chains[chain].live if chain else () if order is None else (order.client_order_id,):
            self._unfill(self.orders[name], abs(record.lots))
        if chain:
            self._recount(chain)
        self._revalued()

    def _take_back(self, record: FillReversed) -> None:
        slot, listed = self.slots[record.symbol], self.listed[record.symbol]
        old = self.holding(record.strategy, record.symbol)
        lots = old.lots - record.lots
        paid = old.lots * old.average_cost - record.lots * record.price - record.gain
        without = paid / lots if lots else 0.0
        cost = without if without > 0.0 else record.price if lots else 0.0
        left = lots * cost - paid
        extra = left * listed.unit * self.rate_of(listed.currency) if left else 0.0
        realised = old.realised - record.realised + extra
        if listed.settles_variation:
            self.basis[slot] += lots * cost - old.lots * old.average_cost
        self.holdings[record.strategy, record.symbol] = Holding(lots, cost, realised)
        self._move_books(record.strategy, slot, -record.lots)
        back = left - record.gain if listed.settles_variation else record.lots * record.price
        self.cash[listed.currency] = self.cash.get(listed.currency, 0.0) + back * listed.unit

    def _untrade(self, record: FillReversed) -> None:
        slot = self.slots[record.symbol]
        for key in ("", book_key(record.strategy)):
            turnover = self.turnovers.get(key)
            if turnover is not None:
                self.turnovers[key] = turnover.with_fill(slot, -abs(record.lots), record.price)

    def _unfill(self, order: OpenOrder, lots: int) -> None:
        """An open order of which a fill was taken back may fill again."""
        filled = max(0, order.filled - lots)
        reported = max(filled, order.reported - lots)
        leaves = max(0, (min(reported, order.held) if order.closing else order.held) - filled)
        moved = msgspec.structs.replace(order, filled=filled, reported=reported, leaves=leaves)
        self._keep(order, moved, self.last_time_us)

    def _reconciled(self, record: Reconciled) -> None:
        targets = {(p.strategy, p.symbol): p for p in record.positions}
        for strategy, symbol in sorted(self.holdings.keys() | targets.keys()):
            target = targets.get((strategy, symbol))
            self._set_position(strategy, symbol, target.lots if target else 0, target.average_cost if target else None)
        if record.cash is not None:
            self.cash = dict(record.cash)
        if record.open_orders is not None:
            self._keep_open(record.open_orders, record.snapshot_us, record.time_us)
        for adopted in record.adopted:
            self._adopt(adopted, record)
        self.reconciled_seq, self.reconciled_epoch = self.seq, record.epoch
        self.reconciled_us = max(self.reconciled_us, record.snapshot_us)
        self.version += 1
        self._revalued()

    def _set_position(self, strategy: str, symbol: str, lots: int, average_cost: float | None) -> None:
        """A position as the broker corrects it: no gain is realised. Without a cost of the broker's, lots that are new
        here have cost the mark: an old cost would book a gain, and equity, that nobody made."""
        old = self.holding(strategy, symbol)
        if old.lots == lots and average_cost in (None, old.average_cost):
            return
        slot, listed = self.slots[symbol], self.listed[symbol]
        cost = average_cost if average_cost is not None else _cost_at(old, lots, float(self.prices.mark[slot]))
        if listed.settles_variation:
            self.basis[slot] += lots * cost - old.lots * old.average_cost
        self._move_books(strategy, slot, lots - old.lots)
        self.holdings[strategy, symbol] = Holding(lots, cost if lots else 0.0, old.realised)

    def _keep_open(self, leaves_by_id: dict[str, int], snapshot_us: int, time_us: int) -> None:
        """Release what the broker, asked at `snapshot_us`, does not have. An approval that was decided later, or that
        may still be on its way there, stays counted."""
        for order in list(self.orders.values()):
            told = leaves_by_id.get(order.client_order_id)
            if told is None and order.time_us >= snapshot_us:
                continue
            if told is None and not order.working and (order.expires_us is None or snapshot_us <= order.expires_us):
                continue
            self._keep(order, _as_told(order, told or 0), time_us)
        for chain in list(self.chains):
            self._level(chain, leaves_by_id, time_us)

    def _level(self, chain: int, leaves_by_id: dict[str, int], time_us: int) -> None:
        """What the broker's leaves say was filled of one order of a chain was filled for all of them."""
        live = self.chains[chain].live
        filled = max(self.orders[name].filled for name in live)
        for name in live:
            order = self.orders[name]
            lots = filled - order.filled
            if lots and leaves_by_id.get(name):
                self.orders[name] = msgspec.structs.replace(
                    order, filled=filled, held=order.held + lots, reported=max(order.reported, filled)
                )
            elif lots:
                self._keep(order, _moved_by(order, lots), time_us)
        self._recount(chain)

    def _adopt(self, adopted: AdoptedOrder, record: Reconciled) -> None:
        """Count an order that only the broker knew, as one whose terms are unknown."""
        self._take_in(
            OpenOrder(
                client_order_id=adopted.client_order_id,
                strategy=adopted.strategy,
                symbol=adopted.symbol,
                sign=adopted.sign,
                held=adopted.lots,
                leaves=adopted.lots,
                filled=0,
                reported=0,
                order_type=OrderType.LIMIT,
                limit_price=None,
                seq=self.seq,
                epoch=record.epoch,
                time_us=record.time_us,
                expires_us=None,
                working=True,
            ),
            "adopted",  # of no order: the id is taken, whatever a new one says
        )

    def _keep_epoch_peak(self) -> None:
        """What comes is under another control epoch: the peak so far is of the one before."""
        peaks = self.epoch_peaks
        if self.epoch_peak:
            peaks = (*peaks, (self._peak_epoch, self.epoch_peak))
        if len(peaks) > EPOCH_PEAKS_MAX:
            peaks = (_merged(peaks[0], peaks[1]), *peaks[2:])
        self.epoch_peaks, self.epoch_peak, self._peak_epoch = peaks, 0.0, self.epoch

    def _latched(self, record: Latched) -> None:
        self._latch(record.latch)

    def _instructed(self, record: Instructed) -> None:
        """One instruction an order: a second one is nobody's, and so is one about an order that has ended."""
        if record.order is not None:
            if self.memos.get(record.client_order_id) is not None:
                return
            self._reserve_own(record, record.order)
        order = self.orders.get(record.client_order_id)
        if order is None or order.instruction_id:
            return
        self.orders[record.client_order_id] = msgspec.structs.replace(order, instruction_id=record.instruction_id)
        self.instructions[record.instruction_id] = Instruction(
            instruction_id=record.instruction_id,
            kind=record.kind,
            client_order_id=record.client_order_id,
            reason=record.reason,
            message=record.message,
            order=record.order,
            lots=record.lots,
            seq=self.seq,
            epoch=record.epoch,
            time_us=record.time_us,
            deadline_us=record.deadline_us,
        )

    def _take_in(self, order: OpenOrder, digest: str) -> None:
        """Count an order that was never asked for by a CheckOrder, and take its id."""
        self._admit(order)
        self._open(order.strategy, order.symbol, order.sign, order.leaves)
        memo = Memo(
            seq=order.seq,
            digest=digest,
            action=Action.ALLOW,
            reason=Reason.NONE,
            allowed_lots=order.held,
            epoch=order.epoch,
            time_us=order.time_us,
            expires_us=None,
            strategy=order.strategy,
            symbol=order.symbol,
            sign=order.sign,
            closed_us=0,
        )
        self.memos.put(order.client_order_id, memo)

    def _reserve_own(self, record: Instructed, order: Order) -> None:
        """Count an order of the gateway's own, and take its id."""
        self._take_in(
            OpenOrder(
                client_order_id=order.client_order_id,
                strategy=order.strategy,
                symbol=order.symbol,
                sign=order.side.sign,
                held=record.lots,
                leaves=record.lots,
                filled=0,
                reported=0,
                order_type=order.order_type,
                limit_price=order.limit_price,
                seq=self.seq,
                epoch=record.epoch,
                time_us=record.time_us,
                expires_us=None,
                own=True,
                for_session=_for_session(order),
            ),
            "own",  # of no order: whoever asks for one under its id was not allowed it
        )

        self._note_sent(record, order)

    def _note_sent(self, record: Instructed, order: Order) -> None:
        place, is_cut = (order.strategy, order.symbol), record.kind is InstructionKind.CUT
        known = self.liquidations.get(place)
        if known is None or known.cause != record.message or known.is_cut != is_cut or known.filled >= known.planned:
            known = Liquidation(record.message, is_cut, 0, 0, 0, record.time_us, record.time_us, record.epoch)
        if is_cut:
            planned = max(known.planned, record.planned_lots, known.sent + record.lots if not known.planned else 0)
        else:
            planned = known.filled + abs(self.holding(*place).lots)
        self.liquidations[place] = msgspec.structs.replace(
            known, planned=planned, sent=known.sent + record.lots, last_us=record.time_us
        )

    def _answered(self, record: InstructionAnswered) -> None:
        found = self.instructions.get(record.instruction_id)
        if found is None:
            return
        over = record.status in (InstructionStatus.DONE, InstructionStatus.FAILED)
        if over and found.kind is not InstructionKind.CANCEL:
            del self.instructions[record.instruction_id]
            return
        self.instructions[record.instruction_id] = msgspec.structs.replace(
            found, status=record.status, deadline_us=record.deadline_us
        )

    def _escalated(self, record: Escalated) -> None:
        found = self.instructions.get(record.instruction_id)
        if found is None or found.escalated_seq:
            return
        self.instructions[record.instruction_id] = msgspec.structs.replace(found, escalated_seq=self.seq)
        escalation = Escalation(record.instruction_id, record.message, self.seq, record.time_us)
        self.escalations = (*self.escalations[-ESCALATIONS_MAX + 1 :], escalation)
        self.escalated_count += 1

    def release(self, strategy: str, symbol: str, sign: int, lots: int) -> None:
        """Count open lots of a side less, on a fork that is asked what if an order were cancelled; no record does."""
        self._open(strategy, symbol, sign, -lots)

    def _latch(self, latch: Latch) -> None:
        known = self.latches.get((latch.scope, latch.state))
        if known is not None and known[0].needs_reconciliation and self.reconciled_seq < known[1]:
            latch = msgspec.structs.replace(latch, needs_reconciliation=True)
        self.latches[latch.scope, latch.state] = (latch, self.seq)
        if latch.measure:
            self.halted_by = {**self.halted_by, (latch.measure, latch.scope): latch.epoch}

    def _revalued(self) -> None:
        """Move the high-water mark, and give a new account its units (NAV starts at 1)."""
        self.version += 1
        self._equity = equity = self._equity_now()
        if self.breaker.cuts:
            self.breaker = self.breaker.without_reached({key: of.lots for key, of in self.holdings.items()})
        if not (math.isfinite(equity) and equity > 0):
            return
        if self.units == 0.0:
            self.units = equity
        if self.opening_base is None and (base := self._baseline()) is not None:
            self.opening_base = msgspec.structs.replace(base, equity=equity - self.flows_total)
        nav = equity / self.units
        self.nav_peak = max(self.nav_peak, nav)
        if self.epoch != self._peak_epoch:
            self._keep_epoch_peak()
        self.epoch_peak = max(self.epoch_peak, nav)
        self._value_session(equity, nav)
        self._keep_losses(nav)

    def _value_session(self, equity: float, nav: float) -> None:
        """Give the open session its opening figures if it has none, and move its peak and its fall."""
        session = self.session
        if session is None:
            return
        if math.isnan(session.equity_open):
            self.session = msgspec.structs.replace(session, equity_open=equity, flows=0.0, nav_peak=nav, nav_open=nav)
        elif not nav <= session.nav_peak:
            self.session = msgspec.structs.replace(session, nav_peak=nav)
        else:
            self.session_drawdown_max = max(self.session_drawdown_max, 1.0 - nav / session.nav_peak)
        if self.session_base is None:
            self.session_base = self._baseline()

    def _keep_losses(self, nav: float) -> None:
        """Raise the peaks that limits count from, and note where P&L stands as a control epoch begins."""
        begins = not self.loss_bases or self.loss_bases[-1].epoch < self.epoch
        if not begins and nav <= min(self.peak_confirmed, self.base_peak, self.breaker.peak):
            return
        peak = float(self.equities_back()[:PEAK_CONFIRMATIONS].min()) / self.units
        if begins:
            if self.loss_bases:
                ended = msgspec.structs.replace(self.loss_bases[-1], peak=self.base_peak)
                self.loss_bases = (*self.loss_bases[:-1], ended)
            date = self.session.date if self.session is not None else ""
            base = LossBase(self.epoch, date, self.session_pnl(), self.session_gains_now(), peak)
            self.loss_bases, self.base_peak = with_base(self.loss_bases, base), peak
        self.base_peak = max(self.base_peak, peak)
        self.peak_confirmed = max(self.peak_confirmed, peak)
        self.breaker = self.breaker.raised(peak)


def _merged(first: tuple[int, float], second: tuple[int, float]) -> tuple[int, float]:
    """Two neighbouring epochs as one: whoever asks since the second hears of the first's peak too, never of less."""
    return second[0], max(first[1], second[1])


def _is_over(one: Tightened, date: str, time_us: int) -> bool:
    """Whether a tightening holds no more in a session ("": not asked) or at a time."""
    return bool(one.until and date > one.until) or 0 < one.until_us <= time_us


def _is_cancel(order: OpenOrder, kind: str) -> bool:
    """Whether a report is of a cancel that somebody wanted: not of what lapses by itself, gives way to a replacement,
    or goes because the gateway said so."""
    if kind == ExecutionKind.CANCEL_REQUESTED:
        wanted = True
    else:
        wanted = kind == ExecutionKind.CANCELLED and not order.cancel_requested
    return wanted and not (order.immediate or order.replaced or order.instruction_id)


def _for_session(order: Order) -> bool:
    return order.time_in_force not in (TimeInForce.GTC, TimeInForce.GTD)


def _filled_by(order: OpenOrder, record: Executed) -> int:
    """Lots that a report takes from an order's leaves. What a snapshot's positions hold already is not booked again,
    but it is filled: up to its cumulative quantity, of which the snapshot's open orders may have told some."""
    return max(0, record.cumulative_lots - order.filled) if IN_SNAPSHOT in record.flags else record.lots


def _moved(order: OpenOrder, record: Executed) -> OpenOrder:
    """An open order after a report on it."""
    return msgspec.structs.replace(
        _moved_by(order, _filled_by(order, record), record.cumulative_lots, record.kind in CLOSING_KINDS),
        working=order.working or record.kind in (ExecutionKind.WORKING, ExecutionKind.FILL),
        cancel_requested=order.cancel_requested or record.kind == ExecutionKind.CANCEL_REQUESTED,
    )


def _moved_by(order: OpenOrder, lots: int, cumulative_lots: int = 0, ends: bool = False) -> OpenOrder:
    """An open order after a fill. Leaves = held − filled while the venue works it; once it is done, only the fills
    that it says it has and that were not reported yet."""
    filled = order.filled + lots
    reported = max(order.reported, cumulative_lots, filled)
    closing = order.closing or ends
    leaves = max(0, (min(reported, order.held) if closing else order.held) - filled)
    return msgspec.structs.replace(order, leaves=leaves, filled=filled, reported=reported, closing=closing)


def _as_told(order: OpenOrder, leaves: int) -> OpenOrder:
    """An open order of which the broker has `leaves`. What is missing from its total was filled, and is in the broker's
    positions: the venue's cumulative quantity counts it."""
    filled = max(order.filled, order.held - leaves) if leaves else order.filled
    return msgspec.structs.replace(
        order,
        held=filled + leaves,
        filled=filled,
        reported=max(order.reported, filled),
        leaves=leaves,
        working=True,
        closing=False,
    )


def _averaged(old: Holding, lots: int, price: float) -> tuple[float, float]:
    """(gain in price × lots, new average cost) of adding `lots` at `price` to `old`, by average cost."""
    total = old.lots + lots
    if old.lots == 0 or (old.lots > 0) == (lots > 0):
        return 0.0, (old.lots * old.average_cost + lots * price) / total if total else 0.0
    closed = min(abs(lots), abs(old.lots)) * (1 if old.lots > 0 else -1)
    gain = closed * (price - old.average_cost)
    if total == 0:
        return gain, 0.0
    return gain, old.average_cost if (total > 0) == (old.lots > 0) else price


def _cost_at(old: Holding, lots: int, mark: float) -> float:
    """The average cost of `lots` where what `old` does not hold of them was bought at `mark`."""
    kept = min(abs(old.lots), abs(lots)) if old.lots * lots > 0 else 0
    return (kept * old.average_cost + (abs(lots) - kept) * mark) / abs(lots) if lots else 0.0


_FLAT = Holding()
_FOLDS: dict[type, Any] = {
    AccountOpened: AccountState._opened,
    Listed: AccountState._listed,
    Valued: AccountState._valued,
    SessionOpened: AccountState._session_opened,
    Decided: AccountState._decided,
    Executed: AccountState._executed,
    CashFlowed: AccountState._cash_flowed,
    FeeCharged: AccountState._fee_charged,
    Reconciled: AccountState._reconciled,
    Latched: AccountState._latched,
    Instructed: AccountState._instructed,
    InstructionAnswered: AccountState._answered,
    Escalated: AccountState._escalated,
    ReleaseDelaySet: AccountState._release_delay_set,
    Released: AccountState._released,
    Forecast: AccountState._forecast,
    Heartbeat: AccountState._heard,
    Tightened: AccountState._tightened,
    Split: AccountState._split,
    Dividend: AccountState._dividend,
    DividendSettled: AccountState._dividend_settled,
    Settled: AccountState._settled,
    FillReversed: AccountState._fill_reversed,
    CalendarPlanned: AccountState._calendar_planned,
    BudgetLent: AccountState._budget_lent,
    BreakerMoved: AccountState._breaker_moved,
}
