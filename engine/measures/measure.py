"""What a measure is, and what it is given.

A measure is a row of functions: its value before and after the order, the largest quantity that keeps a bound, its
value if the order were filled, and its values now. It knows nothing of actions, reductions or tightening: that is
`engine.decide`, once for all measures. An input that is missing is raised as Unevaluable, never replaced by a number.
"""

import datetime
import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, NoReturn

import numpy as np

from engine.account import NAMELESS, AccountState, Book, Ends, Floats, Session, book_key
from engine.conduct import scope_key
from engine.control import Control
from engine.instrument import Instrument, InstrumentSet
from engine.limits import EVERY, IDENTITY_SCOPES, Limit, Policy, ScopeKind, Unit, share_of
from engine.lot_values import LotValues, lot_values
from engine.order import Order, OrderType, Reason
from engine.risk.model import RiskModel
from engine.view import (
    Columns,
    Grouping,
    Mask,
    Tail,
    View,
    columns_of,
    grouping_of,
    largest,
    mask_of,
    view_key,
    view_of,
)

MICROS = 1_000_000

TAIL_DAYS_MIN = 20
"""Below this a 95 % tail has no day in it. A model flags instruments with less than a year as without history itself;
this is for one that has next to no days at all."""


class _Usable(NamedTuple):
    """A risk model that was found fit to decide by, and what that holds for."""

    model: RiskModel
    policy: Policy
    session_date: str
    closed: tuple[Session, ...]
    until_us: int


class Unevaluable(Exception):
    """A measure's input is missing, stale or senseless."""

    def __init__(self, reason: Reason, note: str) -> None:
        super().__init__(note)
        self.reason, self.note = reason, note


Reading = tuple[float, float, int]
"""(before, after, age): a measure's value without and with the order, in the row's unit, and the age of its oldest
input in microseconds, 0 where it has none. A plain tuple, because each limit of each order makes one."""


class Family(enum.Enum):
    """What a true reduction is excused from (DESIGN.md, true reduction)."""

    FAT_FINGER = "fat finger"
    """Holds for reductions too, where it can be evaluated."""
    INPUT = "input"
    """Prices, rates and permissions: never stops a reduction."""
    QUOTA = "quota"
    """Used up by open orders and fills, and lowered by no reduction: never stops one."""
    PORTFOLIO = "portfolio"
    """Over its bound, it lets a reduction pass that lowers it."""


class Armed:
    """A limit row resolved for an account and an order's strategy and instrument: what doesn't change from one order
    to the next is looked up here, once."""

    __slots__ = (
        "bound",
        "conduct_key",
        "group",
        "label",
        "measure",
        "name",
        "of_equity",
        "open_orders",
        "quiet",
        "read",
        "row",
        "shadow",
        "strategy",
        "unit",
        "unit_name",
        "view_key",
        "warn",
    )

    def __init__(
        self,
        row: Limit,
        measure: "Measure",
        account: str,
        strategy: str,
        instrument: Instrument,
        shadow: bool = False,
        factor: float = 1.0,
        identities: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`shadow`: of a set in shadow; a row may be one by itself. `factor`: of the tightenings in force.
        `identities`: who stands behind the order, by kind of scope."""
        self.row, self.measure = row, measure
        self.name, self.read = measure.name, measure.read
        share = share_of(row, account) * factor
        self.bound = row.limit * share
        self.warn = None if row.warn is None else row.warn * share
        self.shadow, self.open_orders = shadow or row.is_shadow, row.open_orders
        self.quiet = self.warn if self.warn is not None else math.nextafter(self.bound, math.inf)
        """Below this nothing is to be said: within the bound, not warned, and no shadow."""
        if self.shadow:
            self.quiet = -math.inf
        self.unit = row.unit or measure.units[0]
        self.unit_name = self.unit.value
        self.of_equity = self.unit is Unit.EQUITY
        self.strategy = book_key(strategy) if row.scope is ScopeKind.STRATEGY else ""
        self.group: tuple[str, str] | None = None
        if row.scope in (ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL):
            self.group = (row.scope.value, group_name(row.scope, instrument))
        self.label = scope_label(row.scope, account, strategy, self.group)
        self.conduct_key = scope_key(row.scope.value, book_key(strategy), instrument.symbol, identities)
        """Under what the fold counts for this limit (engine.conduct)."""
        if row.scope in IDENTITY_SCOPES:
            self.label = f"{row.scope.value}:{identities.get(row.scope.value, '')}"
        self.view_key = view_key(self.strategy, self.group, row.open_orders)


def group_name(scope: ScopeKind, instrument: Instrument) -> str:
    if scope is ScopeKind.ASSET_CLASS:
        return str(instrument.asset_class)
    return instrument.sector if scope is ScopeKind.SECTOR else instrument.symbol


def scope_label(scope: ScopeKind, account: str, strategy: str, group: tuple[str, str] | None) -> str:
    """How a verdict names a scope: "account:ALPHA", "sector:Energy"; a firm limit names the account with a share."""
    if group is not None:
        return f"{scope.value}:{group[1]}"
    return f"{scope.value}:{strategy_name(strategy) if scope is ScopeKind.STRATEGY else account}"


def strategy_name(key: str) -> str:
    """How a strategy is called in a label, by its name or by the key of its book."""
    return key if key not in ("", NAMELESS) else "(none)"


class Survey:
    """An account's state with what it is read under: the common ground of an order and of a report."""

    __slots__ = (  # with a case's own they are more than CPython 3.11 keeps without a dictionary for each instance
        "_at_marks",
        "_columns",
        "_equity",
        "_marks_age_us",
        "_priced",
        "_underlyings",
        "_usable_model",
        "control",
        "instruments",
        "model",
        "now_us",
        "policy",
        "state",
        "values",
    )

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
        self._at_marks = marked = state.at_marks()
        self.values: LotValues = lot_values(state, instruments, model, policy) if state.underlyings else marked
        self.control: Control | None = None
        """Set where it is known: a limit that has halted counts from the Resume that lifted it; without it, all."""
        self._columns: Columns | None = None
        self._usable_model: RiskModel | None = None
        self._underlyings: Grouping | None = None
        self._equity = 0.0
        self._priced = False
        self._marks_age_us = -1

    def view(self, strategy: str, group: tuple[str, str] | None, open_orders: bool = True) -> View:
        self.need_marks()
        key = view_key(strategy, group, open_orders)
        view = view_of(self.state, self.instruments, self.values, key, strategy, group, open_orders)
        self.need_options(view)
        return view

    def need_options(self, view: View) -> None:
        """Raises Unevaluable where an option that is at stake can't be valued."""
        for slot, fault in self.values.faults.items():
            if view.stake.largest.item(slot):
                raise Unevaluable(*fault)

    def underlyings(self) -> Grouping:
        if self._underlyings is None:
            self._underlyings = grouping_of(self.state, self.instruments, "underlying")
        return self._underlyings

    def issuers(self) -> Grouping:
        return grouping_of(self.state, self.instruments, "issuer")

    def issuer_mask(self, issuer: str) -> Mask:
        return mask_of(self.state, self.instruments, "issuer", issuer)

    def need_marks(self) -> None:
        if self._priced or self._at_marks.priced:
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
            if not math.isfinite(equity):
                if math.isnan(self.state.cash_value()):
                    raise Unevaluable(Reason.FX_MISSING, f"no rate to {self.state.base_currency} for cash held")
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
            derived, state = self.state.derived, self.state
            cached: _Usable | None = derived.get("usable_model")
            if (
                cached is None
                or cached.model is not self.model
                or self.now_us > cached.until_us
                or cached.policy is not self.policy
                or cached.closed is not state.sessions
                or state.session is None
                or cached.session_date != state.session.date
            ):
                cached = derived["usable_model"] = self._fresh_model()
            self._usable_model = cached.model
        return self._usable_model

    def _fresh_model(self) -> _Usable:
        model, session = self.model, self.state.session
        if model is None:
            raise Unevaluable(Reason.MODEL_MISSING, "no risk model is published; is the worker running?")
        if model.base_currency != self.state.base_currency:
            note = f"the risk model is in {model.base_currency}, the account in {self.state.base_currency}"
            raise Unevaluable(Reason.MODEL_MISSING, note)
        if session is None:
            raise Unevaluable(Reason.SESSION_MISSING, "no session was opened for this account")
        age_s = (self.now_us - model.built_time_us) / MICROS
        if age_s > self.policy.model_age_max_s:
            note = f"the risk model is {age_s:.0f} s old, allowed are {self.policy.model_age_max_s:.0f} s"
            raise Unevaluable(Reason.MODEL_STALE, note)
        price_lag_days = (datetime.date.fromisoformat(session.date) - model.last_price_date).days
        if price_lag_days > self.policy.model_price_lag_days_max:
            note = f"the newest close in the risk model is of {model.last_price_date}, the session is {session.date}"
            raise Unevaluable(Reason.MODEL_STALE, note)
        lag_sessions = self._sessions_after(model)
        if lag_sessions > self.policy.model_lag_sessions_max:
            note = f"the risk model is of session {model.session_date}, the account is in {session.date}"
            raise Unevaluable(Reason.MODEL_STALE, note)
        until_us = model.built_time_us + int(self.policy.model_age_max_s * MICROS)
        return _Usable(model, self.policy, session.date, self.state.sessions, until_us)

    def _sessions_after(self, model: RiskModel) -> int:
        of_model = model.session_date.isoformat()
        current = self.state.session
        if current is None or current.date <= of_model:
            return 0
        return 1 + sum(1 for session in self.state.sessions if session.date > of_model)

    def need_history(self, view: View, columns: Columns) -> None:
        if columns.days < TAIL_DAYS_MIN:
            note = f"the risk model has {columns.days} days, a tail needs {TAIL_DAYS_MIN}"
            raise Unevaluable(Reason.HISTORY_MISSING, note)
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
        if self._marks_age_us < 0:
            oldest_us = self.state.oldest_price_us()
            self._marks_age_us = max(0, int(self.now_us - oldest_us)) if math.isfinite(oldest_us) else 0
        return self._marks_age_us


def refuse_missing_price(state: AccountState, symbol: str) -> NoReturn:
    slot = state.slots[symbol]
    if state.prices.mark[slot] <= 0.0:
        raise Unevaluable(Reason.MARK_MISSING, f"no mark for {symbol}; publish one with PublishMarks")
    currency = state.listed[symbol].currency
    raise Unevaluable(Reason.FX_MISSING, f"no rate from {currency} to {state.base_currency} for {symbol}")


class Replaced(NamedTuple):
    """What an order finds that replaces another, in lots of its own total."""

    filled: int = 0
    """Filled of the total already: it is in the position."""
    covered: int = 0
    """Counted on its side already, of which this order takes the place: where the venue replaces in one step, what the
    replaced order may still fill; nothing where the two may both be there."""


NOTHING_REPLACED = Replaced()


class Case(Survey):
    """One order on a survey: its lots may be tried at several sizes.

    `lots` is the order as it was asked for, `joining` what it adds to its side: less where it replaces another."""

    __slots__ = (
        "_added",
        "_added_grid",
        "_added_stress",
        "_grids",
        "_growths",
        "_scenario_value",
        "_unit_value",
        "_views",
        "instrument",
        "joining",
        "lots",
        "mark_age_us",
        "model_age_us",
        "order",
        "own_age_us",
        "replaced",
        "sign",
        "slot",
        "tails",
    )

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
        replaced: Replaced = NOTHING_REPLACED,
    ) -> None:
        super().__init__(state, instruments, model, policy, now_us)
        self.order, self.instrument, self.lots = order, instrument, lots
        self.replaced, self.joining = replaced, lots
        if replaced is not NOTHING_REPLACED:
            self.joining = max(0, lots - self.spared)
        self.sign = order.side.sign
        self.slot = state.slots[instrument.symbol]
        self.own_age_us = int(now_us - state.prices.oldest_us.item(self.slot))
        """Age of the order's own mark and rate, of an option also of what it is written on."""
        if state.underlyings:
            self.own_age_us = max(self.own_age_us, self._underlying_age_us())
        marks_age_us = self.marks_age_us()
        self.mark_age_us = max(marks_age_us, self.own_age_us)
        """Age of the oldest mark and rate at stake, the order's own among them."""
        self.model_age_us = 0 if model is None else max(0, now_us - model.built_time_us, marks_age_us)
        """Age of the risk model and of what it is applied to."""
        self.tails: dict[str, tuple[Tail, Tail]] = {}
        """Without and with the order; kept by engine.measures.tail."""
        self._views: dict[str, View] = {}
        self._growths: dict[Ends, float] = {}
        self._grids: dict[Ends | View, float] = {}
        self._added: Floats | None = None
        self._added_stress: Floats | None = None
        self._added_grid: Floats | None = None
        self._unit_value = self._scenario_value = 0.0

    def _underlying_age_us(self) -> int:
        """0 where the order is of no option, or its underlying has no mark: that is told by name, not by age."""
        state = self.state
        slot = state.slots.get(state.underlyings.get(self.instrument.symbol, ""))
        if slot is None or state.prices.mark[slot] <= 0.0:
            return 0
        return int(self.now_us - state.prices.oldest_us.item(slot))

    @property
    def spared(self) -> int:
        """Lots of the order that add nothing to its side."""
        return self.replaced.filled + self.replaced.covered

    def resized(self, lots: int) -> "Case":
        case = Case(
            self.state,
            self.instruments,
            self.model,
            self.policy,
            self.now_us,
            self.order,
            self.instrument,
            lots,
            self.replaced,
        )
        case.control = self.control
        return case

    def of(self, armed: Armed) -> View:
        """The view that the limit reads, as it is without the order. Raises Unevaluable where a price in it is no
        number: none of what is computed from it would be."""
        return self._views.get(armed.view_key) or self._read(armed)

    def _read(self, armed: Armed) -> View:
        if not self._at_marks.priced:
            self.need_marks()
        view = view_of(
            self.state,
            self.instruments,
            self.values,
            armed.view_key,
            armed.strategy,
            armed.group,
            armed.open_orders,
        )
        if not self.values.linear:
            self.need_options(view)
        if not math.isfinite(view.gross):
            raise Unevaluable(Reason.MEASURE_NOT_FINITE, f"the gross exposure of {armed.label} is {view.gross}")
        self._views[armed.view_key] = view
        return view

    def unit_value(self) -> float:
        """Base currency per lot of the order's symbol at the mark."""
        if not self._unit_value:
            value: float = self._at_marks.unit_values.item(self.slot)
            if value <= 0.0:
                refuse_missing_price(self.state, self.instrument.symbol)
            self._unit_value = value
        return self._unit_value

    def scenario_value(self) -> float:
        """Base currency per lot of the order's symbol that the risk model's returns multiply."""
        if not self._scenario_value:
            values = self.values
            self._scenario_value = self.unit_value() if values.linear else self._own(values.scenario)
        return self._scenario_value

    def delta_value(self) -> float:
        """Base currency that a lot of the order's symbol adds to net exposure, signed."""
        values = self.values
        return self.unit_value() if values.linear else self._own(values.delta)

    def _own(self, values: Floats) -> float:
        """Of the order's symbol. Raises Unevaluable where it is an option that can't be valued."""
        self.unit_value()
        if self.slot in self.values.faults:
            raise Unevaluable(*self.values.faults[self.slot])
        value: float = values.item(self.slot)
        return value

    def end_values(self) -> tuple[float, float]:
        """Exposure in base currency of a lot of the order's symbol, held and sold short."""
        values = self.values
        if values.linear:
            return (self.unit_value(),) * 2
        return self._own(values.long), self._own(values.short)

    def exposed(self, low: int, high: int) -> float:
        """Exposure of the order's symbol where its position ends in [low, high], base currency."""
        long, short = self.end_values()
        return max(high * long, -low * short)

    def ends(self, book: Book, open_orders: bool = True) -> tuple[int, int]:
        """The lowest and highest position in lots once the order has joined its side."""
        low, high = book.interval(self.slot) if open_orders else (book.lots.item(self.slot),) * 2
        return (low, high + self.joining) if self.sign > 0 else (low - self.joining, high)

    def ends_filled(self, book: Book) -> tuple[int, int]:
        """The same if the order were filled and the other open orders unchanged."""
        low, high = book.interval(self.slot)
        return low + self.sign * self.joining, high + self.sign * self.joining

    def growth(self, view: View) -> float:
        """By how much the order raises its symbol's exposure in a view's book, base currency."""
        ends = view.stake.ends
        growth = self._growths.get(ends)
        if growth is None:
            low, high = self.ends(view.book, view.open_orders)
            if self.values.linear:
                growth = (max(abs(low), abs(high)) - ends.largest.item(self.slot)) * self.unit_value()
            else:
                growth = self.exposed(low, high) - self.exposed(int(ends.low[self.slot]), int(ends.high[self.slot]))
            self._growths[ends] = growth
        return growth

    def worst_price(self) -> float:
        """The price at which the order's value is judged, in the instrument's currency: the highest that it can fill
        at (CHECKS 9 and 12). Raises Unevaluable where it needs a quote and there is none."""
        order, prices, slot = self.order, self.state.prices, self.slot
        mark: float = prices.mark.item(slot)
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
        if mark <= 0.0:
            refuse_missing_price(self.state, self.instrument.symbol)

    def harm(self, columns: Columns) -> Floats:
        """(rows,) by how much one more lot of the order raises the worst-case loss: a buy hurts where the price falls,
        a sell where it rises, because the other rows are worst without it."""
        value, slot = self.scenario_value(), self.slot
        harm: Floats = np.maximum(columns.returns[slot] * (-value if self.sign > 0 else value), 0.0)
        return harm

    def added(self, columns: Columns) -> Floats:
        """(rows,) by how much the order raises the worst-case loss in each scenario; never below 0."""
        if self._added is None:
            value = self.joining * self.scenario_value()
            hurt = columns.returns[self.slot] * (-value if self.sign > 0 else value)
            self._added = np.maximum(hurt, columns.zeros)  # an array: turning 0.0 into one costs more than the maximum
        return self._added

    def stress_after(self, view: View, columns: Columns) -> float:
        """The worst stress loss once the order has joined its side."""
        if self._added_stress is None:
            self._added_stress = self.added(columns)[columns.days :]
        rows = view.stress(columns) + self._added_stress
        worst: float = rows.item(rows.argmax()) if len(rows) else -math.inf
        return worst

    def grid_after(self, view: View, columns: Columns) -> float:
        """The worst loss over the grid of the order's underlying in a view, once the order has joined its side."""
        underlyings = self.underlyings()
        key = view.stake.ends if underlyings.alone else view
        worst = self._grids.get(key)
        if worst is None:
            if underlyings.alone:
                worst = self._own_grid_after(view, columns)
            else:
                worst = largest(view.grid_of(columns, underlyings, self.slot) + self.added_grid(columns))
            self._grids[key] = worst
        return worst

    def _own_grid_after(self, view: View, columns: Columns) -> float:
        """The same where the order's symbol is alone on its underlying: each end is worst at an end of the grid."""
        low, high = self.ends(view.book, view.open_orders)
        down, up = columns.grid_low.item(self.slot), columns.grid_high.item(self.slot)
        return max(-low * down, -low * up, -high * down, -high * up) * self.scenario_value()

    def added_grid(self, columns: Columns) -> Floats:
        """(points,) what the order adds to the worst-case loss, at each point of the grid of its own underlying."""
        if self._added_grid is None:
            self._added_grid = self.joining * self.harm_grid(columns)
        return self._added_grid

    def harm_grid(self, columns: Columns) -> Floats:
        """(points,) the same as `harm`, at each point of the grid of its own underlying."""
        value, fallen = self.scenario_value(), columns.grid_falls[self.slot]
        harm: Floats = fallen * -value if self.sign > 0 else (columns.grid[self.slot] - fallen) * value
        return harm

    def losses_filled(self, view: View, columns: Columns) -> Floats:
        """(rows,) losses if the order were filled: both ends of its symbol move together."""
        moved = self.sign * self.joining * self.scenario_value()
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
    say: Callable[[Case], str] | None = None
    """What a breach is, in words, where the value alone tells nobody."""
    guards: str = ""
    """"size", "value" or "position": the three kinds of which one each must reach an instrument before it trades."""
    halts: bool = False
    """Only a person ends a breach of it: its rows halt, or warn."""
    is_sum: bool = False
    """Over positions, signed: an order that would leave it exactly as it is has no part in it."""
    window_max_s: float = 3600.0
    """The longest window that a row of it may have."""


def matches(row: Limit, name: str) -> bool:
    return row.match in (EVERY, name)
