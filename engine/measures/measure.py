"""What a measure is, and what it is given.

A measure is a row of functions: its value before and after the order, the largest quantity that keeps a bound, its
value if the order were filled, and its values now. It knows nothing of actions, reductions or tightening: that is
`engine.decide`, once for all measures. An input that is missing is raised as Unevaluable, never replaced by a number.
"""

import datetime
import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np

from engine.account import AccountState, Book, Floats
from engine.instrument import Instrument, InstrumentSet
from engine.limits import EVERY, Limit, Policy, ScopeKind, Unit, share_of
from engine.order import Order, OrderType, Reason
from engine.risk.model import RiskModel
from engine.view import Columns, Grouping, Mask, Tail, View, columns_of, grouping_of, mask_of, view_of

MICROS = 1_000_000


class Unevaluable(Exception):
    """A measure's input is missing, stale or senseless."""

    def __init__(self, reason: Reason, note: str) -> None:
        super().__init__(note)
        self.reason, self.note = reason, note


class Reading(NamedTuple):
    """A measure's value without and with the order, in the row's unit, and the age of its oldest input."""

    before: float
    after: float
    input_age_us: int = 0


class Family(enum.Enum):
    """What a true reduction is excused from (DESIGN.md, true reduction)."""

    FAT_FINGER = "fat finger"
    """Holds for reductions too, where it can be evaluated."""
    INPUT = "input"
    """Prices and rates: never stops a reduction."""
    PORTFOLIO = "portfolio"
    """Over its bound, it lets a reduction pass that lowers it."""


class Armed:
    """A limit row resolved for an account and an order's strategy and instrument."""

    __slots__ = ("bound", "group", "label", "measure", "row", "strategy", "unit", "view_name", "warn")

    def __init__(self, row: Limit, measure: "Measure", account: str, strategy: str, instrument: Instrument) -> None:
        self.row, self.measure = row, measure
        share = share_of(row, account)
        self.bound = row.limit * share
        self.warn = None if row.warn is None else row.warn * share
        self.unit = row.unit or measure.units[0]
        self.strategy = strategy if row.scope is ScopeKind.STRATEGY else ""
        self.group: tuple[ScopeKind, str] | None = None
        if row.scope in (ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL):
            self.group = (row.scope, group_name(row.scope, instrument))
        self.label = scope_label(row.scope, account, strategy, self.group)
        self.view_name = f"{self.strategy}|{self.group}|{row.open_orders}"


def group_name(scope: ScopeKind, instrument: Instrument) -> str:
    if scope is ScopeKind.ASSET_CLASS:
        return str(instrument.asset_class)
    return instrument.sector if scope is ScopeKind.SECTOR else instrument.symbol


def scope_label(scope: ScopeKind, account: str, strategy: str, group: tuple[ScopeKind, str] | None) -> str:
    """How a verdict names a scope: "account:ALPHA", "sector:Energy"; a firm limit names the account with a share."""
    if group is not None:
        return f"{scope.value}:{group[1]}"
    return f"{scope.value}:{strategy if scope is ScopeKind.STRATEGY else account}"


class Survey:
    """An account's state with what it is read under: the common ground of an order and of a report."""

    def __init__(
        self,
        state: AccountState,
        instruments: InstrumentSet,
        model: RiskModel | None,
        policy: Policy,
        now_us: int,
    ) -> None:
        self.state, self.instruments, self.model = state, instruments, model
        self.policy, self.now_us = policy, now_us
        self._columns: Columns | None = None
        self._usable_model: RiskModel | None = None
        self._underlyings: Grouping | None = None
        self._equity = 0.0
        self._priced = False
        self._oldest_us: float | None = None

    def view(self, strategy: str, group: tuple[ScopeKind, str] | None, open_orders: bool = True) -> View:
        self.need_marks()
        mask = None if group is None else mask_of(self.state, self.instruments, group[0].value, group[1])
        return view_of(self.state, strategy, group, mask, open_orders)

    def underlyings(self) -> Grouping:
        if self._underlyings is None:
            self._underlyings = grouping_of(self.state, self.instruments, "underlying")
        return self._underlyings

    def issuer_mask(self, issuer: str) -> Mask:
        return mask_of(self.state, self.instruments, "issuer", issuer)

    def need_marks(self) -> None:
        if self._priced:
            return
        symbol = self.state.missing_price()
        if symbol is not None:
            refuse_missing_price(self.state, symbol)
        self._priced = True

    def equity(self) -> float:
        """Equity in base currency. Raises Unevaluable where it can't be known or is not above 0."""
        if not self._equity:
            self.need_marks()
            equity = self.state.equity()
            if math.isnan(self.state.cash_value()):
                raise Unevaluable(Reason.FX_MISSING, f"no rate to {self.state.base_currency} for cash held")
            if not math.isfinite(equity):
                raise Unevaluable(Reason.MEASURE_NOT_FINITE, f"equity is {equity}")
            if equity <= 0:
                raise Unevaluable(Reason.EQUITY_NOT_POSITIVE, f"equity is {equity:.2f} {self.state.base_currency}")
            self._equity = equity
        return self._equity

    def denominator(self, unit: Unit) -> float:
        """What a value in base currency is divided by to be in the row's unit."""
        return self.equity() if unit is Unit.EQUITY else 1.0

    def columns(self) -> Columns:
        """The model's columns. Raises Unevaluable where no model, or none that is fresh, can be used."""
        if self._columns is None:
            self._columns = columns_of(self.state, self.usable_model())
        return self._columns

    def usable_model(self) -> RiskModel:
        if self._usable_model is None:
            self._usable_model = self._fresh_model()
        return self._usable_model

    def _fresh_model(self) -> RiskModel:
        model, state = self.model, self.state
        if model is None:
            raise Unevaluable(Reason.MODEL_MISSING, "no risk model is published; is the worker running?")
        if model.base_currency != state.base_currency:
            note = f"the risk model is in {model.base_currency}, the account in {state.base_currency}"
            raise Unevaluable(Reason.MODEL_MISSING, note)
        if state.session is None:
            raise Unevaluable(Reason.SESSION_MISSING, "no session was opened for this account")
        age_s = (self.now_us - model.built_time_us) / MICROS
        if age_s > self.policy.model_age_max_s:
            note = f"the risk model is {age_s:.0f} s old, allowed are {self.policy.model_age_max_s:.0f} s"
            raise Unevaluable(Reason.MODEL_STALE, note)
        price_lag_days = (datetime.date.fromisoformat(state.session.date) - model.last_price_date).days
        if price_lag_days > self.policy.model_price_lag_days_max:
            note = (
                f"the newest close in the risk model is of {model.last_price_date}, the session is {state.session.date}"
            )
            raise Unevaluable(Reason.MODEL_STALE, note)
        lag = self._sessions_after(model)
        if lag > self.policy.model_lag_sessions_max:
            note = f"the risk model is of session {model.session_date}, the account is in {state.session.date}"
            raise Unevaluable(Reason.MODEL_STALE, note)
        return model

    def _sessions_after(self, model: RiskModel) -> int:
        of_model = model.session_date.isoformat()
        current = self.state.session
        if current is None or current.date <= of_model:
            return 0
        return 1 + sum(1 for session in self.state.sessions if session.date > of_model)

    def need_history(self, view: View, columns: Columns) -> None:
        slot = view.lacks(columns.no_history)
        if slot is not None:
            symbol = self.state.symbol_at(slot)
            raise Unevaluable(Reason.HISTORY_MISSING, f"{symbol} has too little price history and no proxy")

    def need_factor(self, view: View, columns: Columns) -> None:
        slot = view.lacks(columns.no_factor)
        if slot is not None:
            symbol = self.state.symbol_at(slot)
            raise Unevaluable(Reason.FACTOR_MISSING, f"no stress factor reaches {symbol}")

    def marks_age_us(self) -> int:
        """Age of the oldest mark or rate that a held or open symbol is valued at."""
        if self._oldest_us is None:
            self._oldest_us = self._oldest()
        return max(0, int(self.now_us - self._oldest_us)) if math.isfinite(self._oldest_us) else 0

    def _oldest(self) -> float:
        state = self.state
        cached: tuple[int, float] | None = state.derived.get("oldest")
        if cached is not None and cached[0] == state.version:
            return cached[1]
        active = (state.book.lots != 0) | (state.book.buys != 0) | (state.book.sells != 0)
        prices = state.prices
        times = np.minimum(prices.time_us, prices.fx_time_us)[active]
        oldest = float(times.min(initial=math.inf))
        state.derived["oldest"] = (state.version, oldest)
        return oldest

    def model_age_us(self) -> int:
        model = self.model
        return 0 if model is None else max(0, self.now_us - model.built_time_us, self.marks_age_us())


def refuse_missing_price(state: AccountState, symbol: str) -> NoReturn:
    slot = state.slots[symbol]
    if state.prices.mark[slot] == 0.0:
        raise Unevaluable(Reason.MARK_MISSING, f"no mark for {symbol}; publish one with PublishMarks")
    currency = state.listed[symbol].currency
    raise Unevaluable(Reason.FX_MISSING, f"no rate from {currency} to {state.base_currency} for {symbol}")


class Case(Survey):
    """One order on a survey: its lots may be tried at several sizes."""

    def __init__(
        self,
        state: AccountState,
        instruments: InstrumentSet,
        model: RiskModel | None,
        policy: Policy,
        now_us: int,
        order: Order,
        instrument: Instrument,
        lots: int,
    ) -> None:
        super().__init__(state, instruments, model, policy, now_us)
        self.order, self.instrument, self.lots = order, instrument, lots
        self.sign = order.side.sign
        self.slot = state.slots[instrument.symbol]
        self._after: dict[tuple[object, str], object] = {}
        self._views: dict[str, View] = {}
        self._unit_value = 0.0
        self._mark_age_us = -1

    def resized(self, lots: int) -> "Case":
        return Case(
            self.state, self.instruments, self.model, self.policy, self.now_us, self.order, self.instrument, lots
        )

    def of(self, armed: Armed) -> View:
        """The view that the limit reads, as it is without the order."""
        view = self._views.get(armed.view_name)
        if view is None:
            view = self._views[armed.view_name] = self.view(armed.strategy, armed.group, armed.row.open_orders)
        return view

    def unit_value(self) -> float:
        """Base currency per lot of the order's symbol at the mark."""
        if not self._unit_value:
            value = float(self.state.unit_values()[self.slot])
            if value == 0.0:
                refuse_missing_price(self.state, self.instrument.symbol)
            self._unit_value = value
        return self._unit_value

    def mark_age_us(self) -> int:
        """Age of the order's own mark and of the oldest that is at stake."""
        if self._mark_age_us < 0:
            own = float(min(self.state.prices.time_us[self.slot], self.state.prices.fx_time_us[self.slot]))
            self._mark_age_us = max(self.marks_age_us(), int(self.now_us - own))
        return self._mark_age_us

    def ends(self, book: Book, open_orders: bool = True) -> tuple[int, int]:
        """The lowest and highest position in lots once the order has joined its side."""
        low, high = book.interval(self.slot) if open_orders else (int(book.lots[self.slot]),) * 2
        return (low, high + self.lots) if self.sign > 0 else (low - self.lots, high)

    def ends_filled(self, book: Book) -> tuple[int, int]:
        """The same if the order were filled and the other open orders unchanged."""
        low, high = book.interval(self.slot)
        return low + self.sign * self.lots, high + self.sign * self.lots

    def reduction_room(self, book: Book) -> int:
        """The most lots of this side that are a true reduction in a book: |P| less the leaves on this side."""
        position = int(book.lots[self.slot])
        if position * self.sign >= 0:
            return 0
        leaves = int((book.buys if self.sign > 0 else book.sells)[self.slot])
        return max(0, abs(position) - leaves)

    def worst_price(self) -> float:
        """The price at which the order's value is judged, in the instrument's currency: the highest that it can fill
        at (CHECKS 9 and 12). Raises Unevaluable where it needs a quote and there is none."""
        order, prices, slot = self.order, self.state.prices, self.slot
        mark = float(prices.mark[slot])
        slippage = 1.0 + self.policy.market_slippage
        stop = order.stop_price or 0.0
        if self.sign > 0:
            if order.order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT) and order.limit_price is not None:
                return order.limit_price
            self._need_mark(mark)
            return max(float(prices.ask[slot]) or mark, stop) * slippage
        self._need_mark(mark)
        bid = float(prices.bid[slot]) or mark
        return max(order.limit_price or 0.0, bid, stop) if math.isfinite(bid) else bid

    def _need_mark(self, mark: float) -> None:
        if mark == 0.0:
            refuse_missing_price(self.state, self.instrument.symbol)

    def losses_after(self, armed: Armed, view: View, columns: Columns) -> Floats:
        """(rows,) worst-case losses once the order has joined its side."""
        key = (view, "losses")
        found = self._after.get(key)
        if found is None:
            found = self._after[key] = view.losses(columns) + self.lots * self.harm(columns)
        return found  # type: ignore[return-value]

    def harm(self, columns: Columns) -> Floats:
        """(rows,) by how much one more lot of the order raises the worst-case loss: a buy hurts where the price falls,
        a sell where it rises, because the other rows are worst without it."""
        key = (columns, "harm")
        found = self._after.get(key)
        if found is None:
            falls = columns.falls[self.slot]
            rows = -falls if self.sign > 0 else columns.returns[self.slot] - falls
            found = self._after[key] = self.unit_value() * rows
        return found  # type: ignore[return-value]

    def tail_after(self, armed: Armed, view: View, columns: Columns, days: int) -> Tail:
        key = (view, "tail")
        found = self._after.get(key)
        if found is None:
            found = self._after[key] = Tail(self.losses_after(armed, view, columns)[:days])
        return found  # type: ignore[return-value]

    def losses_filled(self, view: View, columns: Columns) -> Floats:
        """(rows,) losses if the order were filled: both ends of its symbol move together."""
        moved = self.sign * self.lots * self.unit_value()
        losses: Floats = view.losses(columns) - moved * columns.returns[self.slot]
        return losses


Read = Callable[[Case, Armed], Reading]
Fit = Callable[[Case, Armed, float], int]
Filled = Callable[[Case, Armed], float]
Now = Callable[[Survey, Limit, str, str], Iterable[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table of measures (engine.measures.MEASURES)."""

    name: str
    reason: Reason
    family: Family
    units: tuple[Unit, ...]
    """The first is the default."""
    scopes: frozenset[ScopeKind]
    read: Read
    fit: Fit | None = None
    """(case, armed, bound in the row's unit) → the most lots of the order that keep it; None: size can't mend it."""
    filled: Filled | None = None
    """Portfolio measures: the value if the order were filled."""
    now: Now | None = None
    """(survey, row, account, strategy) → (scope label, value) of each group reached. None: no standing value."""
    guards: str = ""
    """"size", "value" or "position": the three kinds of which one each must reach an instrument before it trades."""


def matches(row: Limit, name: str) -> bool:
    return row.match in (EVERY, name)
