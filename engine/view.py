"""A book at its marks, with every open order at its worst: what measures read.

A `Stake` is one book (the account's or a strategy's), whole or cut to a group of its symbols, in lots: it lives as long
as no lot changes. A `View` is a stake at the marks, in base currency: it lives as long as the state's version. Both are
cached with the state, so that all limits of one order share them, and neither is ever updated in place.
Rows of scenario P&L take the worse end of each symbol row by row (DESIGN.md, worst case): no subset of the open
orders' fills loses more in any scenario.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.account import AccountState, Book, Ends, Floats
from engine.instrument import Instrument, InstrumentSet
from engine.lot_values import LotValues
from engine.risk.model import RiskModel
from engine.risk.var import tail_count

Mask = Floats
"""1.0 for the slots in a group, 0.0 for the others."""

GATHERED_MAX = 0.25
"""Up to this part of the slots with open orders, only their rows are multiplied: a copy of more costs what it saves."""


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """How an account's symbols fall into groups of one kind (sectors, issuers, underlyings…)."""

    names: tuple[str, ...]
    index: NDArray[np.intp]
    """Group of each slot."""
    alone: bool
    """Every symbol is a group of its own."""

    def mask(self, group: int) -> Mask:
        mask: Mask = (self.index == group).astype(np.float64)
        return mask

    def summed(self, rows: Floats) -> Floats:
        """(groups, n): `rows` (slots, n) added up by group."""
        if self.alone:
            return rows
        summed = np.zeros((len(self.names), rows.shape[1]))
        np.add.at(summed, self.index, rows)
        return summed


class Cut(NamedTuple):
    """Where the tails of a number of days begin, and what each of their losses weighs in the expected shortfall."""

    start: int
    """Of the tail at 95 %, once partitioned."""
    edge: int
    """Of the tail at 99 % within it."""
    places: NDArray[np.intp]
    """Of the first day of each tail."""
    weights: Floats
    """(days in the tail at 95 %, 2): ES at 95 and 99 % are the losses times these."""


@functools.lru_cache(maxsize=256)
def cut_of(days: int) -> Cut:
    wide, narrow = tail_count(days, 0.95), tail_count(days, 0.99)
    weights, edge = np.zeros((2, wide)), wide - narrow
    mass_95, mass_99 = (1.0 - 0.95) * days, (1.0 - 0.99) * days
    weights[0, 0], weights[0, 1:] = (mass_95 - (wide - 1)) / mass_95, 1.0 / mass_95
    weights[1, edge], weights[1, edge + 1 :] = (mass_99 - (narrow - 1)) / mass_99, 1.0 / mass_99
    return Cut(days - wide, edge, np.array([days - wide, days - narrow]), weights.T.copy())


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A risk model's columns for an account's symbols, in slot order. Unknown symbols: zeros, and missing."""

    days: int
    """How many of the rows are historical days."""
    returns: Floats
    """(slots, rows): historical days, then stress scenarios."""
    falls: Floats
    """min(returns, 0)."""
    stress: Floats
    """(slots, scenarios): the stress scenarios of `returns` by themselves."""
    stress_falls: Floats
    grid: Floats
    """(slots, points) of the ±spot grid."""
    grid_falls: Floats
    grid_low: Floats
    """(slots,) the lowest point of each grid: a loss that is linear in the move is worst there or at the highest."""
    grid_high: Floats
    cut: Cut
    zeros: Floats
    """(rows,)"""
    scratch: Floats
    """(2, days) to select tails in: a state is decided on by one thread at a time."""
    no_history: Mask | None
    """1.0 where VaR can't be computed; None where it can for all."""
    no_factor: Mask | None
    """1.0 where no stress factor reaches; None where one does for all."""


class Tail(msgspec.Struct, frozen=True, gc=False):
    """VaR and ES at 95 and 99 % of equally likely days.

    VaR: order statistic, the ceil(a·n)-th worst loss. ES (Rockafellar-Uryasev): the average over exactly the mass a of
    the worst losses, the ceil(a·n)-th in part.
    """

    var_95: float
    var_99: float
    es_95: float
    es_99: float

    def var(self, confidence: float) -> float:
        """At 0.95 or 0.99. Raises KeyError at another."""
        return {0.95: self.var_95, 0.99: self.var_99}[confidence]

    def es(self, confidence: float) -> float:
        """At 0.95 or 0.99. Raises KeyError at another."""
        return {0.95: self.es_95, 0.99: self.es_99}[confidence]


def tails_of(losses: Floats, cut: Cut) -> list[Tail]:
    """The tail of each row of `losses` (k, days), positive = loss, from one partial selection; they are put in another
    order. `cut`: that of so many days."""
    losses.partition(cut.places, axis=1)
    worst, edge = losses[:, cut.start :], cut.edge
    shortfalls = worst.dot(cut.weights).tolist()
    return [
        Tail(worst.item(row, 0), worst.item(row, edge), es_95, es_99) for row, (es_95, es_99) in enumerate(shortfalls)
    ]


class Stake:
    """What is at stake in a book, whole or cut to `mask`, in lots by slot, and its worst case per unit of value."""

    __slots__ = (
        "_columns",
        "_grid",
        "_grid_worst",
        "ends",
        "high",
        "instruments",
        "largest",
        "low",
        "mask",
        "opened",
        "owed",
        "spread",
    )

    def __init__(self, ends: Ends, mask: Mask | None, instruments: InstrumentSet) -> None:
        """`instruments`: the set that the mask was taken from."""
        self.ends, self.mask, self.instruments = ends, mask, instruments
        self.low, self.high, self.largest = ends.low, ends.high, ends.largest
        if mask is not None:
            self.low, self.high, self.largest = self.low * mask, self.high * mask, self.largest * mask
        spread = self.high - self.low
        self.owed = -self.low
        """What the low end loses per unit of return: losses are counted positive."""
        (opened,) = spread.nonzero()
        few = len(opened) <= GATHERED_MAX * len(spread)
        self.opened: NDArray[np.intp] | slice = opened if few else slice(None)
        self.spread = spread[self.opened]
        """high − low, of the slots in `opened`."""
        self._columns: Columns | None = None
        self._grid: Floats | None = None
        self._grid_worst: Floats | None = None

    def losses(self, unit_values: Floats, returns: Floats, falls: Floats) -> Floats:
        """(rows,) the worst-case loss in each row of `returns` (slots, rows), whose negative part is `falls`."""
        losses: Floats = (self.owed * unit_values).dot(returns)
        if len(self.spread):
            losses -= (self.spread * unit_values[self.opened]).dot(falls[self.opened])
        return losses

    def grid(self, columns: Columns) -> Floats:
        """(slots, points) worst-case loss at each point of each symbol's grid, per unit of its value."""
        if self._columns is not columns:
            self._read_under(columns)
        if self._grid is None:
            self._grid = self.owed[:, None] * columns.grid
            if len(self.spread):
                self._grid[self.opened] -= self.spread[:, None] * columns.grid_falls[self.opened]
        return self._grid

    def grid_worst(self, columns: Columns) -> Floats:
        """(slots,) the largest of each symbol's row in `grid`."""
        if self._columns is not columns:
            self._read_under(columns)
        if self._grid_worst is None:
            low, high, down, up = self.owed, -self.high, columns.grid_low, columns.grid_high
            self._grid_worst = np.maximum(np.maximum(low * up, low * down), np.maximum(high * up, high * down))
        return self._grid_worst

    def _read_under(self, columns: Columns) -> None:
        self._columns = columns
        self._grid = self._grid_worst = None


class View:
    """One book, whole or cut to a group, at worst case and at the marks. Losses are positive, in base currency."""

    _exposure: Floats | None = None
    _columns: Columns | None = None
    _losses: Floats | None = None
    _stress: Floats | None = None
    _stress_worst: float | None = None
    _tail: Tail | None = None
    _grids: Floats | None = None

    def __init__(self, book: Book, stake: Stake, values: LotValues, version: int, open_orders: bool) -> None:
        self.book, self.stake, self.values = book, stake, values
        self.version, self.open_orders = version, open_orders
        self.gross = float(stake.largest.dot(values.long) if values.linear else self.exposure.sum())
        """Σ exposure."""

    @property
    def low(self) -> Floats:
        """(slots,) value of the low end."""
        low: Floats = self.stake.low * self.values.scenario
        return low

    @property
    def high(self) -> Floats:
        """(slots,) value of the high end."""
        high: Floats = self.stake.high * self.values.scenario
        return high

    @property
    def exposure(self) -> Floats:
        """(slots,) the larger end's size in money."""
        if self._exposure is None:
            stake, values = self.stake, self.values
            self._exposure = (
                stake.largest * values.long
                if values.linear
                else np.maximum(stake.high * values.long, -stake.low * values.short)
            )
        return self._exposure

    def exposure_of(self, mask: Mask) -> float:
        value: float = self.exposure.dot(mask).item()
        return value

    def _read_under(self, columns: Columns) -> None:
        """Forget what was computed under other columns."""
        self._columns = columns
        self._losses = self._stress = self._stress_worst = self._tail = self._grids = None

    def losses(self, columns: Columns) -> Floats:
        """(rows,) the worst-case loss in each scenario."""
        if self._columns is not columns:
            self._read_under(columns)
        if self._losses is None:
            self._losses = self.stake.losses(self.values.scenario, columns.returns, columns.falls)
        return self._losses

    def tail(self, columns: Columns, days: int) -> Tail:
        """VaR and ES as it is."""
        if self._columns is not columns:
            self._read_under(columns)
        if self._tail is None:
            (self._tail,) = tails_of(self.losses(columns)[None, :days].copy(), columns.cut)
        return self._tail

    def tails(self, columns: Columns, added: Floats) -> tuple[Tail, Tail]:
        """VaR and ES as it is, and once an order has added (rows,) to the losses: both from one selection."""
        days = columns.days
        losses, added = self.losses(columns)[:days], added[:days]
        if self._tail is not None:
            (after,) = tails_of((losses + added)[None, :], columns.cut)
            return self._tail, after
        both = columns.scratch
        both[0] = losses
        np.add(losses, added, both[1])
        self._tail, after = tails_of(both, columns.cut)
        return self._tail, after

    def stress(self, columns: Columns) -> Floats:
        """(scenarios,) the stress rows of `losses`; computed by themselves where nobody asked for the days."""
        if self._columns is not columns:
            self._read_under(columns)
        if self._stress is None:
            if self._losses is not None:
                self._stress = self._losses[columns.days :]
            else:
                self._stress = self.stake.losses(self.values.scenario, columns.stress, columns.stress_falls)
        return self._stress

    def stress_worst(self, columns: Columns, underlyings: Grouping) -> float:
        """The worst of `stress` and of `grid_losses`: over all scenarios, and over the grid of each underlying."""
        if self._columns is not columns:
            self._read_under(columns)
        if self._stress_worst is None:
            worst = largest(self.grid_losses(columns, underlyings))
            self._stress_worst = max(largest(self.stress(columns)), worst)
        return self._stress_worst

    def grid_losses(self, columns: Columns, underlyings: Grouping) -> Floats:
        """(underlyings,) the worst loss over each underlying's grid."""
        if underlyings.alone:
            worst: Floats = self.stake.grid_worst(columns) * self.values.scenario
        else:
            worst = self._group_grids(columns, underlyings).max(axis=1, initial=-np.inf)
        return worst

    def other_grids_worst(self, columns: Columns, underlyings: Grouping, slot: int) -> float:
        """The worst loss over the grids of all underlyings but the symbol's."""
        losses = self.grid_losses(columns, underlyings).copy()
        losses[underlyings.index[slot]] = -math.inf
        return float(losses.max())

    def grid_of(self, columns: Columns, underlyings: Grouping, slot: int) -> Floats:
        """(points,) the loss of the whole group of a symbol's underlying at each point of its grid."""
        if underlyings.alone:
            alone: Floats = self.stake.grid(columns)[slot] * self.values.scenario.item(slot)
            return alone
        group: Floats = self._group_grids(columns, underlyings)[underlyings.index[slot]]
        return group

    def _group_grids(self, columns: Columns, underlyings: Grouping) -> Floats:
        if self._columns is not columns:
            self._read_under(columns)
        if self._grids is None:
            self._grids = underlyings.summed(self.stake.grid(columns) * self.values.scenario[:, None])
        return self._grids

    def lacks(self, missing: Mask | None) -> int | None:
        """A slot that has something at stake and is in `missing`, if any."""
        if missing is None:
            return None
        slots = np.flatnonzero(self.stake.largest * missing)
        return int(slots[0]) if len(slots) else None


def largest(values: Floats) -> float:
    """The largest of (n,) numbers, NaN where one is; -inf where there is none. For few, quicker than a reduction."""
    found: float = values.item(values.argmax()) if len(values) else -math.inf
    return found


def view_key(strategy: str, group: tuple[str, str] | None, open_orders: bool) -> str:
    """Names a view of an account: one string, because a string knows its hash."""
    kind, name = group or ("", "")
    return "\0".join(("view", strategy, kind, name, str(open_orders)))


def view_of(
    state: AccountState,
    instruments: InstrumentSet,
    values: LotValues,
    key: str,
    strategy: str,
    group: tuple[str, str] | None,
    open_orders: bool,
) -> View:
    """The view that `key` names, cached with the state: group = (kind, name), or None for the whole book.

    `values`: of all its symbols."""
    cached: View | None = state.views.get(key)
    is_same = cached is not None and cached.values is values and cached.stake.instruments is instruments
    if cached is not None and is_same and cached.version == state.version:
        return cached
    book = state.book_of(strategy) if strategy else state.book
    ends = book.ends(open_orders)
    if cached is not None and cached.stake.ends is ends and cached.stake.instruments is instruments:
        stake = cached.stake
    else:
        mask = None if group is None else mask_of(state, instruments, *group)
        stake = Stake(ends, mask, instruments)
    view = View(book, stake, values, state.version, open_orders)
    state.views[key] = view
    return view


def issuer_of(instruments: InstrumentSet, instrument: Instrument) -> str:
    """Whom a single-name limit adds up: of an option that names none, the issuer of what it is written on."""
    if instrument.issuer or instrument.option is None:
        return instrument.issuer or instrument.symbol
    written_on = instruments.get(instrument.underlying)
    return (written_on.issuer if written_on is not None else "") or instrument.underlying


GROUPINGS: dict[str, Callable[[InstrumentSet, Instrument], str]] = {
    "issuer": issuer_of,
    "underlying": lambda instruments, instrument: instrument.underlying or instrument.symbol,
    "sector": lambda instruments, instrument: instrument.sector,
    "asset_class": lambda instruments, instrument: str(instrument.asset_class),
    "symbol": lambda instruments, instrument: instrument.symbol,
}


def grouping_of(state: AccountState, instruments: InstrumentSet, kind: str) -> Grouping:
    """The groups of one kind that the account's symbols fall into under an instrument set. A symbol that the set has
    lost is a group of its own, named after itself."""
    key = ("grouping", kind)
    cached: tuple[InstrumentSet, int, Grouping] | None = state.derived.get(key)
    if cached is not None and cached[0] is instruments and cached[1] == len(state.slots):
        return cached[2]
    name_of = GROUPINGS[kind]
    names = [name_of(instruments, found) if (found := instruments.get(s)) is not None else s for s in state.slots]
    distinct = tuple(dict.fromkeys(names))
    position = {name: at for at, name in enumerate(distinct)}
    index = np.array([position[name] for name in names], dtype=np.intp)
    grouping = Grouping(distinct, index, len(distinct) == len(names))
    state.derived[key] = (instruments, len(state.slots), grouping)
    return grouping


def mask_of(state: AccountState, instruments: InstrumentSet, kind: str, name: str) -> Mask:
    """1.0 for the account's slots in the group `name` of a kind."""
    key = ("mask", kind, name)
    cached: tuple[InstrumentSet, int, Mask] | None = state.derived.get(key)
    if cached is not None and cached[0] is instruments and cached[1] == len(state.slots):
        return cached[2]
    grouping = grouping_of(state, instruments, kind)
    mask = grouping.mask(grouping.names.index(name)) if name in grouping.names else np.zeros(len(state.slots))
    state.derived[key] = (instruments, len(state.slots), mask)
    return mask


def columns_of(state: AccountState, model: RiskModel) -> Columns:
    """The model's columns for the account's symbols."""
    cached: tuple[RiskModel, int, Columns] | None = state.derived.get("columns")
    if cached is not None and cached[0] is model and cached[1] == len(state.slots):
        return cached[2]
    columns = _gather(list(state.slots), model)
    state.derived["columns"] = (model, len(state.slots), columns)
    return columns


def _gather(symbols: list[str], model: RiskModel) -> Columns:
    found = np.array([model.column.get(symbol, -1) for symbol in symbols], dtype=np.intp)
    known = found >= 0
    history, factor = np.zeros(len(symbols)), np.zeros(len(symbols))
    history[known], factor[known] = model.has_history[found[known]], model.has_factor[found[known]]
    returns = np.zeros((len(symbols), model.returns.shape[0]))
    returns[known] = np.nan_to_num(model.returns[:, found[known]].T, nan=0.0)
    grid = np.zeros((len(symbols), model.grid.shape[1]))
    grid[known] = np.nan_to_num(model.grid[found[known]], nan=0.0)
    stress = np.ascontiguousarray(returns[:, model.n_days :])
    return Columns(
        days=model.n_days,
        returns=returns,
        falls=np.minimum(returns, 0.0),
        stress=stress,
        stress_falls=np.minimum(stress, 0.0),
        grid=grid,
        grid_falls=np.minimum(grid, 0.0),
        grid_low=grid.min(axis=1),
        grid_high=grid.max(axis=1),
        cut=cut_of(max(1, model.n_days)),  # without days nothing reads it
        zeros=np.zeros(returns.shape[1]),
        scratch=np.empty((2, model.n_days)),
        no_history=None if history.all() else 1.0 - history,
        no_factor=None if factor.all() else 1.0 - factor,
    )
