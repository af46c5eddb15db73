"""The state of one account: what its records add up to.

`AccountState.apply` folds one record in; it never decides, never fails on a record that this release can read, and
does the same on every gateway. A batch is decided on a `fork()`, which costs a copy of the small parts and shares the
long memories (decisions, executions, attempts); the fork either `settle()`s and becomes the state, or is dropped.
Quantities are integer lots, money is float64 in the account's base currency.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.control import Control, Scope, TradingState
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import (
    CLOSING_KINDS,
    IN_SNAPSHOT,
    AccountOpened,
    AdoptedOrder,
    AnyRecord,
    CashFlowed,
    Decided,
    Escalated,
    Executed,
    ExecutionKind,
    FeeCharged,
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
    Valued,
)

FOLD_VERSION = 1
"""Raised when the same records would add up to another state: older snapshots are then folded anew."""

MEMORY_MAX = 1_000_000
"""Closed ids remembered per account; an id costs about 200 bytes."""

MEMORY_HORIZON_US = 24 * 3600 * 1_000_000
"""How long a closed id is remembered: the idempotency horizon that replies carry."""

FORGET_MAX = 128
"""Ids looked at for forgetting after each append: more than a batch adds, so that the memory shrinks."""

ATTEMPTS_MAX = 100_000
"""Attempts kept for rate limits, per account and per strategy: no rate limit may count further back."""

ATTEMPTS_HORIZON_US = 3600 * 1_000_000
"""The longest window of a rate limit."""

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

SESSIONS_MAX = 30
"""Closed sessions kept for loss history."""

RECENT_MAX = 20
"""Decisions kept for people to look at; all of them are in the log."""

ENDED_MAX = 16
"""Ended orders remembered per chain of replaces: more than a venue has under way at once."""

ESCALATIONS_MAX = 32
"""Escalations kept for people to look at; all of them are counted and in the log."""

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


class Attempts:
    """Times of the orders tried. A value: one more makes another, which shares the list of times, knows how many are
    its own and cuts what a dropped fork left."""

    __slots__ = ("_count", "_times")

    def __init__(self, times: list[int] | None = None) -> None:
        self._times: list[int] = times if times is not None else []
        self._count = len(self._times)

    def with_one(self, time_us: int) -> "Attempts":
        times, count = self._times, self._count
        if len(times) > count:
            del times[count:]
        if count >= 2 * ATTEMPTS_MAX:
            times = times[count - ATTEMPTS_MAX :]
        times.append(time_us)
        return Attempts(times)

    def since(self, time_us: int) -> int:
        """How many lie strictly after `time_us`."""
        return self._count - bisect_right(self._times, time_us, 0, self._count)

    def recent(self) -> list[int]:
        return self._times[max(0, self._count - ATTEMPTS_MAX) : self._count]


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


class Holding(msgspec.Struct, frozen=True):
    """A strategy's position in a symbol."""

    lots: int = 0
    average_cost: float = 0.0
    realised: float = 0.0
    """Realised P&L in base currency at the rates of its fills, fees not included."""


class Session(msgspec.Struct, frozen=True):
    """A trading session's opening figures; a closed one has its P&L."""

    date: str
    equity_open: float
    flows: float
    pnl: float = math.nan
    nav_peak: float = math.nan
    opened_us: int = 0


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


class AtMarks:
    """What the marks and rates of a state make of one lot of each symbol: lives until one of them changes."""

    __slots__ = ("price_version", "priced", "unit_values")

    def __init__(self, state: "AccountState") -> None:
        prices, self.price_version = state.prices, state.price_version
        self.unit_values: Floats = prices.mark * state.unit
        self.unit_values *= prices.fx
        self.priced = not len(self.unit_values) or self.unit_values.item(self.unit_values.argmin()) > 0.0
        """Whether every listed symbol has a mark and a rate above 0."""


class AccountState:
    """The fold of one account's log up to `seq`. See the module's docstring for how it is used."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.seq = 0
        self.base_currency = ""
        self.listed: dict[str, Listed] = {}
        self.slots: dict[str, int] = {}
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
        self.memos: Memory[str, Memo] = Memory()
        self.executions: Memory[str, int] = Memory()
        self.events: Memory[str, int] = Memory()
        """Ids folded, with the time of their record."""
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
        self.nav_peak_since_reset = 0.0
        self.flows_total = 0.0
        self.fees_total = 0.0
        self.session: Session | None = None
        self.sessions: tuple[Session, ...] = ()
        self.decisions_by_action: dict[Action, int] = {}
        self.shadow_by_action: dict[tuple[str, Action], int] = {}
        """How often a limit in shadow, by its measure, would have done more than allow."""
        self.recent: tuple[RecentDecision, ...] = ()
        """The latest decisions, oldest first, at most RECENT_MAX."""
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
        self.resolved: dict[tuple[str, str], Any] = {}
        """Which limits reach the orders of a strategy in a symbol; kept by engine.decide, and by all forks together."""

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
        copy.memos = self.memos.fork()
        copy.executions = self.executions.fork()
        copy.events = self.events.fork()
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
        if len(active) < len(times):
            times = times[active]
        oldest_us: float = times.item(times.argmin()) if len(times) else math.inf
        for currency, amount in self.cash.items():
            if amount and currency != self.base_currency and (rate := self.rates.get(currency)) is not None:
                oldest_us = min(oldest_us, rate.time_us)
        return oldest_us

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
        return self.cash_value() + held - settled

    def _held_are_priced(self) -> bool:
        return self.at_marks().priced or not bool(((self.book.lots != 0) & (self.unit_values() <= 0.0)).any())

    def nav(self) -> float:
        """Equity per unit; deposits and withdrawals change the units, not the NAV."""
        return self.equity() / self.units if self.units > 0 else math.nan

    def drawdown(self) -> float:
        """1 − NAV / high-water mark: 0.1 is ten per cent below the peak."""
        return 1.0 - self.nav() / self.nav_peak if self.nav_peak > 0 else math.nan

    def session_pnl(self) -> float:
        """Since the session opened, net of deposits and withdrawals, in base currency."""
        if self.session is None:
            return math.nan
        return self.equity() - self.session.equity_open - self.session.flows

    def holding(self, strategy: str, symbol: str) -> Holding:
        return self.holdings.get((strategy, symbol), _FLAT)

    def book_of(self, key: str) -> Book:
        """The book of a strategy by its `book_key`; with "" the account's. A strategy without one is flat."""
        if not key:
            return self.book
        book = self.books.get(key)
        return book if book is not None else Book.flat(len(self.slots))

    def latched_state(self, control: Control, strategy: str, symbol: str) -> TradingState:
        """The strictest latch of this account in force for such an order."""
        strictest = TradingState.ACTIVE
        for latch, seq in self.latches.values():
            if (
                latch.state > strictest
                and latch.scope.reaches(self.account, strategy, symbol)
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

    def latched_after(self, seq: int, strategy: str, symbol: str) -> bool:
        """Whether a latch, in force or lifted, reached such an order after record `seq`."""
        return any(
            at > seq and latch.scope.reaches(self.account, strategy, symbol) for latch, at in self.latches.values()
        )

    # --- the fold --------------------------------------------------------------------------------------------------

    def apply(self, record: AnyRecord) -> None:
        """Fold the next record in."""
        self.seq += 1
        self.last_time_us = max(self.last_time_us, record.time_us)
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
        count = slot + 1
        self.unit = np.append(self.unit, record.unit)
        self.basis = np.append(self.basis, 0.0)
        self.book = self.book.widened(count)
        self.books = {name: book.widened(count) for name, book in self.books.items()}
        self.turnovers = {name: turnover.widened(count) for name, turnover in self.turnovers.items()}
        self.prices = self.prices.widened(count)
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
        prices.mark[indices] = [quote.mark for quote in quotes]
        prices.bid[indices] = [quote.bid or 0.0 for quote in quotes]
        prices.ask[indices] = [quote.ask or 0.0 for quote in quotes]
        prices.time_us[indices] = [quote.time_us for quote in quotes]
        prices.phase[indices] = [quote.phase for quote in quotes]
        unopened = prices.open_mark == 0.0
        if unopened.any():
            prices.open_mark[unopened] = prices.mark[unopened]
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
            closed = msgspec.structs.replace(self.session, pnl=self.session_pnl())
            self.sessions = (*self.sessions, closed)[-SESSIONS_MAX:]
            self._lapse(record.time_us)
        self.session = Session(record.date, self.equity(), 0.0, nav_peak=self.nav(), opened_us=record.time_us)
        self.prices.open_mark[:] = self.prices.mark
        self.turnovers = {}
        if record.event_id:
            self.events.put(record.event_id, record.time_us)

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
        for name in ("", book_key(order.strategy)):
            tried = self.attempts.get(name)
            self.attempts[name] = (tried if tried is not None else Attempts()).with_one(record.time_us)
        if len(self.attempts) > self.attempts_max:
            self._forget_attempts(record.time_us)
        if record.allowed_lots:
            self._reserve(record)
            self._note_approval(order, record.time_us)
        for latch in record.latches:
            self._latch(latch)

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
        )
        self._admit(opened)
        self._open(order.strategy, order.symbol, order.side.sign, opened.leaves)
        if replaced is not None:
            self._chain(replaced, opened)

    def _executed(self, record: Executed) -> None:
        self.executions.put(record.execution_id, record.time_us)
        order = self.orders.get(record.client_order_id)
        chain = self.chain_of_ended.get(record.client_order_id, 0)
        if record.lots:
            self._fill(record)
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
        listed = self.listed[record.symbol]
        signed = record.sign * record.lots
        slot = self.slots[record.symbol]
        for key in ("", book_key(record.strategy)):
            turnover = self.turnovers.get(key) or Turnover.none(len(self.slots))
            self.turnovers[key] = turnover.with_fill(slot, record.lots, record.price)
        realised = self._move(record.strategy, record.symbol, signed, record.price)
        paid = realised * listed.unit if listed.settles_variation else -signed * listed.unit * record.price
        self.cash[listed.currency] = self.cash.get(listed.currency, 0.0) + paid
        self._revalued()

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

    def _revalued(self) -> None:
        """Move the high-water mark, and give a new account its units (NAV starts at 1)."""
        self.version += 1
        self._equity = equity = self._equity_now()
        if not (math.isfinite(equity) and equity > 0):
            return
        if self.units == 0.0:
            self.units = equity
        nav = equity / self.units
        self.nav_peak = max(self.nav_peak, nav)
        self.nav_peak_since_reset = max(self.nav_peak_since_reset, nav)
        session = self.session
        if session is None:
            return
        if math.isnan(session.equity_open):
            self.session = msgspec.structs.replace(session, equity_open=equity, flows=0.0, nav_peak=nav)
        elif nav > session.nav_peak:
            self.session = msgspec.structs.replace(session, nav_peak=nav)


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
}
