"""A book at its marks, with every open order at its worst: what measures read.

A `View` is one book (the account's or a strategy's), whole or cut to a group of its symbols, valued in base currency.
It is derived from the state and cached there under the state's version, so that all limits of one order share it.
Rows of scenario P&L take the worse end of each symbol row by row (DESIGN.md, worst case): no subset of the open
orders' fills loses more in any scenario.
"""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.account import AccountState, Book, Floats
from engine.instrument import InstrumentSet
from engine.limits import ScopeKind
from engine.risk.model import RiskModel
from engine.risk.var import tail_count

Mask = Floats
"""1.0 for the slots in a group, 0.0 for the others."""

T = TypeVar("T")

_tail_count = functools.lru_cache(maxsize=256)(tail_count)


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


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A risk model's columns for an account's symbols, in slot order. Unknown symbols: zeros, and missing."""

    returns: Floats
    """(slots, rows): historical days, then stress scenarios."""
    falls: Floats
    """min(returns, 0)."""
    grid: Floats
    """(slots, points) of the ±spot grid."""
    grid_falls: Floats
    no_history: Mask | None
    """1.0 where VaR can't be computed; None where it can for all."""
    no_factor: Mask | None
    """1.0 where no stress factor reaches; None where one does for all."""


class Tail:
    """The worst losses of a vector of equally likely days, from one partial selection."""

    __slots__ = ("_count", "_sorted")

    def __init__(self, losses: Floats) -> None:
        """`losses`: (days,), positive = loss."""
        self._count = len(losses)
        days = self._count
        kept = (days - _tail_count(days, 0.95), days - _tail_count(days, 0.99))
        self._sorted = np.partition(losses, kept)

    def var(self, confidence: float) -> float:
        """Order statistic: the ceil(a·n)-th worst loss."""
        return float(self._sorted[self._count - _tail_count(self._count, confidence)])

    def es(self, confidence: float) -> float:
        """Rockafellar-Uryasev: the average over exactly the mass a of the worst losses."""
        worst = _tail_count(self._count, confidence)
        mass = (1.0 - confidence) * self._count
        cut = self._count - worst
        beyond = float(np.add.reduce(self._sorted[cut + 1 :]))
        return (beyond + (mass - (worst - 1)) * float(self._sorted[cut])) / mass


class View:
    """One book, whole or cut to `mask`, at worst case and at the marks."""

    __slots__ = ("_memo", "book", "exposure", "gross", "high", "low", "mask", "unit_values")

    def __init__(self, book: Book, unit_values: Floats, mask: Mask | None, open_orders: bool) -> None:
        self.book, self.unit_values, self.mask = book, unit_values, mask
        low: Floats
        high: Floats
        if open_orders:
            low, high = (book.lots - book.sells) * unit_values, (book.lots + book.buys) * unit_values
        else:
            low = high = book.lots * unit_values
        if mask is not None:
            low, high = low * mask, high * mask
        self.low, self.high = low, high
        self.exposure = np.maximum(np.abs(low), np.abs(high))
        self.gross = float(np.add.reduce(self.exposure))
        self._memo: dict[str, tuple[tuple[object, ...], Any]] = {}

    def once(self, name: str, inputs: tuple[object, ...], compute: Callable[[], T]) -> T:
        """`compute()`, remembered as long as it is asked for with the same `inputs` (by identity)."""
        found = self._memo.get(name)
        if found is not None and all(map(operator.is_, found[0], inputs)):
            return found[1]  # type: ignore[no-any-return]
        value = compute()
        self._memo[name] = (inputs, value)
        return value

    def exposure_of(self, mask: Mask) -> float:
        return float(np.dot(self.exposure, mask))

    def losses(self, columns: Columns) -> Floats:
        """(rows,) the worst-case loss in each scenario, base currency, positive = loss."""
        return self.once("losses", (columns,), lambda: self._losses(columns))

    def _losses(self, columns: Columns) -> Floats:
        gains = self.low @ columns.returns
        spread = self.high - self.low
        if spread.any():
            gains += spread @ columns.falls
        return np.negative(gains, out=gains)

    def tail(self, columns: Columns, days: int) -> Tail:
        return self.once("tail", (columns,), lambda: Tail(self.losses(columns)[:days]))

    def stress_worst(self, columns: Columns, days: int) -> float:
        """The worst loss over the stress scenarios, without the spot grid."""
        return self.once("stress", (columns,), lambda: float(self.losses(columns)[days:].max(initial=-np.inf)))

    def grid_gains(self, columns: Columns) -> Floats:
        """(slots, points) worst-case P&L of each symbol at each point of its underlying's grid."""
        return self.once(
            "grid",
            (columns,),
            lambda: self.low[:, None] * columns.grid + (self.high - self.low)[:, None] * columns.grid_falls,
        )

    def grid_losses(self, columns: Columns, underlyings: Grouping) -> Floats:
        """(underlyings,) the worst loss over each underlying's grid."""
        return self.once("grid_losses", (columns, underlyings), lambda: self._grid_losses(columns, underlyings))

    def _grid_losses(self, columns: Columns, underlyings: Grouping) -> Floats:
        gains = self.grid_gains(columns)
        if not underlyings.alone:
            summed = np.zeros((len(underlyings.names), gains.shape[1]))
            np.add.at(summed, underlyings.index, gains)
            gains = summed
        losses: Floats = -gains.min(axis=1, initial=np.inf)
        return losses

    def lacks(self, missing: Mask | None) -> int | None:
        """A slot that has something at stake and is in `missing`, if any."""
        if missing is None:
            return None
        slots = np.flatnonzero(self.exposure * missing)
        return int(slots[0]) if len(slots) else None


def view_of(
    state: AccountState, strategy: str, mask_key: tuple[ScopeKind, str] | None, mask: Mask | None, open_orders: bool
) -> View:
    """The cached view of a book of `state`. `mask_key` names `mask`."""
    key = ("view", strategy, mask_key, open_orders)
    cached: tuple[int, View] | None = state.derived.get(key)
    if cached is not None and cached[0] == state.version and cached[1].mask is mask:
        return cached[1]
    view = View(state.book_of(strategy), state.unit_values(), mask, open_orders)
    state.derived[key] = (state.version, view)
    return view


GROUPINGS: dict[str, Callable[..., str]] = {
    "issuer": lambda instrument: instrument.issuer or instrument.symbol,
    "underlying": lambda instrument: instrument.underlying or instrument.symbol,
    "sector": lambda instrument: instrument.sector,
    "asset_class": lambda instrument: str(instrument.asset_class),
    "symbol": lambda instrument: instrument.symbol,
}


def grouping_of(state: AccountState, instruments: InstrumentSet, kind: str) -> Grouping:
    """The groups of one kind that the account's symbols fall into under an instrument set. A symbol that the set has
    lost is a group of its own, named after itself."""
    key = ("grouping", kind)
    stamp = (len(state.slots), instruments.hash)
    cached: tuple[object, Grouping] | None = state.derived.get(key)
    if cached is not None and cached[0] == stamp:
        return cached[1]
    name_of = GROUPINGS[kind]
    names = [name_of(found) if (found := instruments.get(s)) is not None else s for s in state.slots]
    distinct = tuple(dict.fromkeys(names))
    position = {name: at for at, name in enumerate(distinct)}
    index = np.array([position[name] for name in names], dtype=np.intp)
    grouping = Grouping(distinct, index, len(distinct) == len(names))
    state.derived[key] = (stamp, grouping)
    return grouping


def mask_of(state: AccountState, instruments: InstrumentSet, kind: str, name: str) -> Mask:
    """1.0 for the account's slots in the group `name` of a kind."""
    key = ("mask", kind, name)
    stamp = (len(state.slots), instruments.hash)
    cached: tuple[object, Mask] | None = state.derived.get(key)
    if cached is not None and cached[0] == stamp:
        return cached[1]
    grouping = grouping_of(state, instruments, kind)
    mask = grouping.mask(grouping.names.index(name)) if name in grouping.names else np.zeros(len(state.slots))
    state.derived[key] = (stamp, mask)
    return mask


def columns_of(state: AccountState, model: RiskModel) -> Columns:
    """The model's columns for the account's symbols."""
    stamp = (len(state.slots), model.hash)
    cached: tuple[object, Columns] | None = state.derived.get("columns")
    if cached is not None and cached[0] == stamp:
        return cached[1]
    columns = _gather(list(state.slots), model)
    state.derived["columns"] = (stamp, columns)
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
    return Columns(
        returns=returns,
        falls=np.minimum(returns, 0.0),
        grid=grid,
        grid_falls=np.minimum(grid, 0.0),
        no_history=None if history.all() else 1.0 - history,
        no_factor=None if factor.all() else 1.0 - factor,
    )
