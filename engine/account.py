"""The state of one account: what its records add up to.

`AccountState.apply` folds one record in; it never decides, never fails on a record that this release can read, and
does the same on every gateway. A batch is decided on a `fork()`, which costs a copy of the small parts and shares the
long memories (decisions, executions, attempts); the fork either `settle()`s and becomes the state, or is dropped.
Quantities are integer lots, money is float64 in the account's base currency.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.control import Control, Scope, TradingState
from engine.order import Action, OrderType, Reason
from engine.records import (
    CLOSING_KINDS,
    AccountOpened,
    AdoptedOrder,
    AnyRecord,
    CashFlowed,
    Decided,
    Executed,
    ExecutionKind,
    FeeCharged,
    Latch,
    Latched,
    Listed,
    Rate,
    Reconciled,
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

STRATEGIES_MAX = 1_000
"""Strategies whose attempts are kept before those that have been silent for long are dropped."""

NAMELESS = "\0"
"""The key of the book of orders without a strategy; no strategy can have this name."""

SESSIONS_MAX = 30
"""Closed sessions kept for loss history."""

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

    def settled(self) -> "Memory[K, V]":
        """This layer's entries in the memory below, which then stands for both."""
        base = self._base
        if not isinstance(base, Memory):
            return self
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
    """Times of the orders tried, shared between forks: a fork knows how many are its own and cuts what another left."""

    __slots__ = ("_count", "_times")

    def __init__(self, times: list[int] | None = None) -> None:
        self._times: list[int] = times if times is not None else []
        self._count = len(self._times)

    def fork(self) -> "Attempts":
        copy = Attempts(self._times)
        copy._count = self._count
        return copy

    def add(self, time_us: int) -> None:
        if len(self._times) > self._count:
            del self._times[self._count :]
        self._times.append(time_us)
        self._count += 1
        if self._count > 2 * ATTEMPTS_MAX:
            self._times = self._times[self._count - ATTEMPTS_MAX : self._count]
            self._count = len(self._times)

    def since(self, time_us: int) -> int:
        """How many lie strictly after `time_us`."""
        return self._count - bisect_right(self._times, time_us, 0, self._count)

    def recent(self) -> list[int]:
        return self._times[max(0, self._count - ATTEMPTS_MAX) : self._count]


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

    def suspect(self, now_us: int) -> bool:
        """Approved, never reported, and past its validity: still counted, until somebody says what became of it."""
        return not self.working and self.filled == 0 and self.expires_us is not None and now_us > self.expires_us


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

    def __init__(self, low: Floats, high: Floats) -> None:
        self.low, self.high = low, high

    @cached_property
    def largest(self) -> Floats:
        """The larger of the two ends' sizes; 0 where nothing is held or open."""
        largest: Floats = np.maximum(np.abs(self.low), np.abs(self.high))
        return largest

    @cached_property
    def active(self) -> NDArray[np.intp]:
        """The slots in which something is held or open."""
        return np.flatnonzero(self.largest)


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
    """Marks and rates by slot. Zero and a listing in `missing` stand for what is not known."""

    __slots__ = ("ask", "bid", "fx", "fx_time_us", "mark", "open_mark", "time_us")

    def __init__(self, arrays: Iterable[Floats]) -> None:
        self.mark, self.bid, self.ask, self.time_us, self.fx, self.fx_time_us, self.open_mark = arrays

    @staticmethod
    def none(slots: int) -> "Prices":
        return Prices(np.zeros(slots) for _ in range(7))

    def _arrays(self) -> tuple[Floats, ...]:
        return self.mark, self.bid, self.ask, self.time_us, self.fx, self.fx_time_us, self.open_mark

    def copy(self) -> "Prices":
        return Prices(a.copy() for a in self._arrays())

    def widened(self, slots: int) -> "Prices":
        return Prices(np.append(a, np.zeros(slots - len(a))) for a in self._arrays())


class AtMarks:
    """What the marks make of one version of a state: figures that several readers share, each computed once."""

    __slots__ = ("equity", "oldest_us", "priced", "unit_values", "version")

    def __init__(self, state: "AccountState") -> None:
        prices, self.version = state.prices, state.version
        self.unit_values: Floats = prices.mark * state.unit
        self.unit_values *= prices.fx
        self.priced = not len(self.unit_values) or bool(np.minimum.reduce(self.unit_values) > 0.0)
        """Whether every listed symbol has a mark and a rate above 0."""
        self.equity: float | None = None
        self.oldest_us: float | None = None


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
        self.prices = Prices.none(0)
        self.rates: dict[str, Rate] = {}
        self.cash: dict[str, float] = {}
        self.holdings: dict[tuple[str, str], Holding] = {}
        self.orders: dict[str, OpenOrder] = {}
        self.memos: Memory[str, Memo] = Memory()
        self.executions: Memory[str, int] = Memory()
        self.events: Memory[str, int] = Memory()
        """Ids folded, with the time of their record."""
        self.attempts: dict[str, Attempts] = {}
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
        self.last_time_us = 0
        self.version = 0
        """Grows with every change of lots, prices or slots: what is derived from them is cached under it."""
        self.derived: dict[Any, Any] = {}

    # --- forks -----------------------------------------------------------------------------------------------------

    def fork(self) -> "AccountState":
        """A copy to decide on. At most one fork of a state may live at a time: forks share the long memories."""
        copy = AccountState.__new__(AccountState)
        copy.__dict__.update(self.__dict__)
        copy.listed = self.listed.copy()
        copy.slots = self.slots.copy()
        copy.basis = self.basis.copy()
        copy.book = self.book.copy()
        copy.books = {name: book.copy() for name, book in self.books.items()}
        copy.prices = self.prices.copy()
        copy.rates = self.rates.copy()
        copy.cash = self.cash.copy()
        copy.holdings = self.holdings.copy()
        copy.orders = self.orders.copy()
        copy.memos = self.memos.fork()
        copy.executions = self.executions.fork()
        copy.events = self.events.fork()
        copy.attempts = {name: attempts.fork() for name, attempts in self.attempts.items()}
        copy.latches = self.latches.copy()
        copy.decisions_by_action = self.decisions_by_action.copy()
        copy.derived = self.derived.copy()
        return copy

    def settle(self) -> "AccountState":
        """This fork as the new state: its layer of each long memory sinks into the one below."""
        self.memos = self.memos.settled()
        self.executions = self.executions.settled()
        self.events = self.events.settled()
        self._forget_old()
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

    def memo(self, client_order_id: str, now_us: int) -> Memo | None:
        """What is remembered of a decision; None for an id that was never used, or so long ago that it is free."""
        memo = self.memos.get(client_order_id)
        return None if memo is None or memo.forgotten(now_us) else memo

    def _close(self, client_order_id: str, time_us: int) -> None:
        """An order has nothing open any more: from here on its id grows old."""
        del self.orders[client_order_id]
        memo = self.memos.get(client_order_id)
        if memo is not None:
            self.memos.put(client_order_id, msgspec.structs.replace(memo, closed_us=time_us))

    # --- readings --------------------------------------------------------------------------------------------------

    @property
    def opened(self) -> bool:
        return bool(self.base_currency)

    def at_marks(self) -> "AtMarks":
        """What the marks make of this version of the state."""
        cached: AtMarks | None = self.derived.get("at_marks")
        if cached is None or cached.version != self.version:
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
        at_marks = self.at_marks()
        if at_marks.oldest_us is None:
            active = self.book.ends().active
            times = np.minimum(self.prices.time_us, self.prices.fx_time_us)
            if len(active) < len(times):
                times = times[active]
            oldest_us = float(np.minimum.reduce(times)) if len(times) else math.inf
            at_marks.oldest_us = min(oldest_us, self._oldest_cash_rate_us())
        return at_marks.oldest_us

    def _oldest_cash_rate_us(self) -> float:
        held = (currency for currency, amount in self.cash.items() if amount and currency != self.base_currency)
        return min((self.rates[c].time_us for c in held if c in self.rates), default=math.inf)

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
        at_marks = self.at_marks()
        if at_marks.equity is None:
            at_marks.equity = self._equity()
        return at_marks.equity

    def _equity(self) -> float:
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
        self.prices = self.prices.widened(count)
        if record.currency == self.base_currency:
            self.prices.fx[slot] = 1.0
            self.prices.fx_time_us[slot] = math.inf
        elif (rate := self.rates.get(record.currency)) is not None:
            self.prices.fx[slot], self.prices.fx_time_us[slot] = rate.rate, rate.time_us
        self.version += 1

    def _valued(self, record: Valued) -> None:
        prices, slots = self.prices, self.slots
        indices = [slots[symbol] for symbol in record.marks]
        quotes = record.marks.values()
        prices.mark[indices] = [quote.mark for quote in quotes]
        prices.bid[indices] = [quote.bid or 0.0 for quote in quotes]
        prices.ask[indices] = [quote.ask or 0.0 for quote in quotes]
        prices.time_us[indices] = [quote.time_us for quote in quotes]
        unopened = prices.open_mark == 0.0
        if unopened.any():
            prices.open_mark[unopened] = prices.mark[unopened]
        for currency, rate in record.fx.items():
            self.rates[currency] = rate
            for symbol, listed in self.listed.items():
                if listed.currency == currency:
                    prices.fx[slots[symbol]], prices.fx_time_us[slots[symbol]] = rate.rate, rate.time_us
        self._revalued()

    def _session_opened(self, record: SessionOpened) -> None:
        if self.session is not None:
            closed = msgspec.structs.replace(self.session, pnl=self.session_pnl())
            self.sessions = (*self.sessions, closed)[-SESSIONS_MAX:]
        self.session = Session(record.date, self.equity(), 0.0, nav_peak=self.nav(), opened_us=record.time_us)
        self.prices.open_mark[:] = self.prices.mark
        if record.event_id:
            self.events.put(record.event_id, record.time_us)

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
        for name in ("", book_key(order.strategy)):
            self.attempts.setdefault(name, Attempts()).add(record.time_us)
        if len(self.attempts) > STRATEGIES_MAX:
            self._forget_attempts(record.time_us)
        if record.allowed_lots:
            self._reserve(record)
        for latch in record.latches:
            self._latch(latch)

    def _forget_attempts(self, now_us: int) -> None:
        """Names of strategies are free text: those that no rate limit can count any more are dropped."""
        before_us = now_us - ATTEMPTS_HORIZON_US
        self.attempts = {name: tried for name, tried in self.attempts.items() if tried.since(before_us)}

    def _reserve(self, record: Decided) -> None:
        order = record.order
        self.orders[order.client_order_id] = OpenOrder(
            client_order_id=order.client_order_id,
            strategy=order.strategy,
            symbol=order.symbol,
            sign=order.side.sign,
            held=record.allowed_lots,
            leaves=record.allowed_lots,
            filled=0,
            reported=0,
            order_type=order.order_type,
            limit_price=record.limit_price,
            seq=self.seq,
            epoch=record.epoch,
            time_us=record.time_us,
            expires_us=record.expires_us,
        )
        self._open(order.strategy, order.symbol, order.side.sign, record.allowed_lots)

    def _executed(self, record: Executed) -> None:
        self.executions.put(record.execution_id, record.time_us)
        order = self.orders.get(record.client_order_id)
        if record.lots:
            self._fill(record)
        if record.fee:
            self._pay_fee(record.fee, record.fee_currency)
        if order is not None:
            self._follow(order, record)
        for latch in record.latches:
            self._latch(latch)

    def _follow(self, order: OpenOrder, record: Executed) -> None:
        """Move an open order on. Leaves = held − filled while the venue works it; once it is done, only the fills
        that it says it has and that were not reported yet."""
        filled = order.filled + record.lots
        reported = max(order.reported, record.cumulative_lots, filled)
        closing = order.closing or record.kind in CLOSING_KINDS
        leaves = max(0, (min(reported, order.held) if closing else order.held) - filled)
        self._open(order.strategy, order.symbol, order.sign, leaves - order.leaves)
        if leaves == 0:
            self._close(order.client_order_id, record.time_us)
            return
        self.orders[order.client_order_id] = msgspec.structs.replace(
            order,
            leaves=leaves,
            filled=filled,
            reported=reported,
            closing=closing,
            working=order.working or record.kind in (ExecutionKind.WORKING, ExecutionKind.FILL),
            cancel_requested=order.cancel_requested or record.kind == ExecutionKind.CANCEL_REQUESTED,
        )

    def _fill(self, record: Executed) -> None:
        self.last_fill_us = record.time_us
        listed = self.listed[record.symbol]
        signed = record.sign * record.lots
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
        key = book_key(strategy)
        book = self.books.get(key)
        if book is None:
            book = self.books[key] = Book.flat(len(self.slots))
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
            leaves = told or 0
            self._open(order.strategy, order.symbol, order.sign, leaves - order.leaves)
            if leaves:
                held = order.filled + leaves  # or the next report would bring back what the broker no longer has
                self.orders[order.client_order_id] = msgspec.structs.replace(
                    order, held=held, leaves=leaves, working=True, closing=False
                )
            else:
                self._close(order.client_order_id, time_us)

    def _adopt(self, adopted: AdoptedOrder, record: Reconciled) -> None:
        """Count an order that only the broker knew, as one whose terms are unknown."""
        self.orders[adopted.client_order_id] = OpenOrder(
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
        )
        self._open(adopted.strategy, adopted.symbol, adopted.sign, adopted.lots)
        self.memos.put(
            adopted.client_order_id,
            Memo(
                seq=self.seq,
                digest="adopted",  # of no order: the id is taken, whatever a new one says
                action=Action.ALLOW,
                reason=Reason.NONE,
                allowed_lots=adopted.lots,
                epoch=record.epoch,
                time_us=record.time_us,
                expires_us=None,
                strategy=adopted.strategy,
                symbol=adopted.symbol,
                sign=adopted.sign,
                closed_us=0,
            ),
        )

    def _latched(self, record: Latched) -> None:
        self._latch(record.latch)

    def _latch(self, latch: Latch) -> None:
        known = self.latches.get((latch.scope, latch.state))
        if known is not None and known[0].needs_reconciliation and self.reconciled_seq < known[1]:
            latch = msgspec.structs.replace(latch, needs_reconciliation=True)
        self.latches[latch.scope, latch.state] = (latch, self.seq)

    def _revalued(self) -> None:
        """Move the high-water mark, and give a new account its units (NAV starts at 1)."""
        self.version += 1
        equity = self.equity()
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
}
