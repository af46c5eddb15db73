"""What an account holds and has open, as the vectors that risk figures are computed from.

A row for each strategy and symbol with something at stake, in lots and in money at the marks; `by_symbol` adds the
strategies up. What can't be valued or has no returns is a `Gap`, as data: a figure over rows with gaps is refused or
says which rows it leaves out; nothing becomes a zero here. No VaR and no stress: those read these values.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.account import NAMELESS, AccountState, Book
from engine.instrument import Instrument, InstrumentSet
from engine.risk.model import RiskModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

ALL_STRATEGIES = "*"
"""The strategy of a row that adds all of them up; no strategy's name (`*` matches every one in a limit)."""


class Missing(enum.StrEnum):
    """What keeps a row out of a figure."""

    MARK = "mark"
    RATE = "rate"
    INSTRUMENT = "instrument"
    """The instrument set in force does not know the symbol: no class, no sector."""
    COLUMN = "column"
    """The risk model has no column for it: neither VaR nor stress."""
    HISTORY = "history"
    """No VaR, ES or any other figure over days."""
    FACTOR = "factor"
    """No stress loss."""
    CASH = "cash"
    """Cash in a currency other than the base: its exchange rate risk is in no row."""


class Gap(msgspec.Struct, frozen=True):
    """Why a symbol (or a currency) is missing from figures, and what an operator does about it."""

    symbol: str
    missing: Missing
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Holdings:
    """Rows of n (strategy, symbol) pairs, ordered by strategy, then in the order in which the account listed symbols.

    Money is in base currency, positive = long. `low` and `high` are the two ends that the open orders can lead to,
    `held` is the position alone: P&L of a scenario row = returns @ held, its worst case the worse end symbol by symbol.
    For linear instruments `held` equals `values`; an option's `returns` are P&L per unit of a reference and not of its
    price, and `held` is then the money that they multiply. NaN where a mark, a rate or a column is missing.
    """

    account: str
    seq: int
    """Of the record that the state ends with."""
    base_currency: str
    strategies: tuple[str, ...]
    """"" for orders without one."""
    symbols: tuple[str, ...]
    lots: Ints
    low_lots: Ints
    high_lots: Ints
    values: Floats
    """(n,) value of the position at the mark."""
    held: Floats
    low: Floats
    high: Floats
    columns: NDArray[np.intp]
    """(n,) place in the risk model; -1 where it has none."""
    has_history: Mask
    has_factor: Mask
    asset_classes: tuple[str, ...]
    sectors: tuple[str, ...]
    issuers: tuple[str, ...]
    """The symbol itself where the instrument names none; the same for underlyings."""
    underlyings: tuple[str, ...]
    marks_oldest_us: float
    """Time of the oldest mark or rate used; infinite where nothing is held or open."""
    gaps: tuple[Gap, ...]

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def labels(self) -> tuple[str, ...]:
        """How a row is called in a table: "strategy/symbol", the symbol alone where there is no strategy."""
        named = zip(self.strategies, self.symbols, strict=True)
        return tuple(
            symbol if strategy in ("", ALL_STRATEGIES) else f"{strategy}/{symbol}" for strategy, symbol in named
        )

    @property
    def priced(self) -> Mask:
        """(n,) whether the row has a mark and a rate."""
        return np.isfinite(self.values)

    @property
    def over_days(self) -> Mask:
        """(n,) whether figures over historical days can count the row."""
        return np.isfinite(self.held) & self.has_history

    @property
    def under_stress(self) -> Mask:
        """(n,) whether stress figures can count the row."""
        return np.isfinite(self.held) & self.has_factor

    def taken(self, rows: Mask | NDArray[np.intp]) -> "Holdings":
        """These rows alone, all gaps kept."""
        places = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        changes: dict[str, Any] = {name: getattr(self, name)[places] for name in _ARRAYS}
        changes |= {name: tuple(getattr(self, name)[place] for place in places.tolist()) for name in _NAMES}
        return replace(self, **changes)

    def of_strategy(self, strategy: str) -> "Holdings":
        return self.taken(np.array([name == strategy for name in self.strategies], dtype=np.bool_))

    def by_symbol(self) -> "Holdings":
        """A row for each symbol, the strategies added up: what the account as a whole has at stake."""
        first: dict[str, int] = {}
        for place, symbol in enumerate(self.symbols):
            first.setdefault(symbol, place)
        group = {symbol: at for at, symbol in enumerate(first)}
        index = np.array([group[symbol] for symbol in self.symbols], dtype=np.intp)
        kept = self.taken(np.array(list(first.values()), dtype=np.intp))
        changes: dict[str, Any] = {name: _summed(getattr(self, name), index, len(first)) for name in _ADDED}
        return replace(kept, strategies=(ALL_STRATEGIES,) * len(first), **changes)

    def day_returns(self, model: RiskModel) -> Floats:
        """(n_days, n) daily returns in base currency, oldest first, NaN for a row without history; column-major.

        `model`: the one that the holdings were made with.
        """
        return self._rows(model, slice(0, model.n_days))

    def stress_returns(self, model: RiskModel) -> Floats:
        """(n_scenarios, n) returns under the model's scenarios, NaN for a row that no factor reaches."""
        return self._rows(model, slice(model.n_days, model.n_rows))

    def _rows(self, model: RiskModel, rows: slice) -> Floats:
        returns = np.full((len(self), rows.stop - rows.start), np.nan)
        known = np.flatnonzero(self.columns >= 0)
        returns[known] = model.returns.T[self.columns[known], rows]
        return returns.T


_ADDED = ("lots", "low_lots", "high_lots", "values", "held", "low", "high")
_ARRAYS = (*_ADDED, "columns", "has_history", "has_factor")
_NAMES = ("strategies", "symbols", "asset_classes", "sectors", "issuers", "underlyings")


def _summed(rows: NDArray[np.generic], index: NDArray[np.intp], groups: int) -> NDArray[np.generic]:
    summed = np.zeros(groups, dtype=rows.dtype)
    np.add.at(summed, index, rows)
    return summed


def holdings_of(state: AccountState, instruments: InstrumentSet, model: RiskModel | None) -> Holdings:
    """The holdings of `state` at its marks, with the model's columns and flags. Never fails for what is missing: that
    is in `gaps`."""
    keys = sorted(state.books, key=lambda key: "" if key == NAMELESS else key)
    at_stake = [(key, state.books[key].ends().active) for key in keys]
    slots = np.concatenate([active for _, active in at_stake]) if at_stake else np.zeros(0, np.intp)
    symbol_of = tuple(state.slots)
    symbols = tuple(symbol_of[slot] for slot in slots.tolist())
    strategies = tuple("" if key == NAMELESS else key for key, active in at_stake for _ in range(len(active)))
    lots, low_lots, high_lots = _lots(at_stake, state.books)
    unit_values = state.unit_values()[slots]
    unit_values = np.where(unit_values > 0.0, unit_values, np.nan)
    columns = np.array([-1 if model is None else model.column.get(one, -1) for one in symbols], dtype=np.intp)
    moved_values = _moved_values(state.unit[slots], unit_values, columns, model)
    known = [instruments.get(symbol) for symbol in symbols]
    return Holdings(
        account=state.account,
        seq=state.seq,
        base_currency=state.base_currency,
        strategies=strategies,
        symbols=symbols,
        lots=lots,
        low_lots=low_lots,
        high_lots=high_lots,
        values=_money(lots, unit_values),
        held=_money(lots, moved_values),
        low=_money(low_lots, moved_values),
        high=_money(high_lots, moved_values),
        columns=columns,
        has_history=_flags(columns, None if model is None else model.has_history),
        has_factor=_flags(columns, None if model is None else model.has_factor),
        asset_classes=tuple("unassigned" if one is None else str(one.asset_class) for one in known),
        sectors=tuple("unassigned" if one is None else one.sector for one in known),
        issuers=tuple(
            symbol if one is None else one.issuer or symbol for one, symbol in zip(known, symbols, strict=True)
        ),
        underlyings=tuple(
            symbol if one is None else one.underlying or symbol for one, symbol in zip(known, symbols, strict=True)
        ),
        marks_oldest_us=state.oldest_price_us(),
        gaps=tuple(_gaps(state, dict(zip(symbols, known, strict=True)), model)),
    )


def _moved_values(units: Floats, unit_values: Floats, columns: NDArray[np.intp], model: RiskModel | None) -> Floats:
    """(n,) money per lot that the model's returns multiply: the value at the mark, an option's reference otherwise."""
    if model is None or not len(model.options) or not len(columns):
        return unit_values
    is_option = np.isin(columns, model.options.places)
    moved: Floats = np.where(is_option, units * model.reference[columns], unit_values)
    return moved


def _lots(at_stake: Iterable[tuple[str, NDArray[np.intp]]], books: dict[str, Book]) -> tuple[Ints, Ints, Ints]:
    """(n,) lots, and the lowest and the highest that the open orders can lead to, book by book."""
    parts = [(books[key].lots[active], books[key].sells[active], books[key].buys[active]) for key, active in at_stake]
    if not parts:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    lots, sells, buys = (np.concatenate(part) for part in zip(*parts, strict=True))
    return lots, lots - sells, lots + buys


def _money(lots: Ints, unit_values: Floats) -> Floats:
    money: Floats = lots * unit_values
    return money


def _flags(columns: NDArray[np.intp], flags: Mask | None) -> Mask:
    if flags is None or not len(flags):
        return np.zeros(len(columns), dtype=np.bool_)
    return flags[columns] & (columns >= 0)


def _gaps(state: AccountState, held: dict[str, Instrument | None], model: RiskModel | None) -> Iterable[Gap]:
    for symbol, instrument in held.items():
        slot = state.slots[symbol]
        if state.prices.mark[slot] <= 0.0:
            yield Gap(symbol, Missing.MARK, f"no mark for {symbol}; publish one with PublishMarks")
        if state.prices.fx[slot] <= 0.0:
            currency = state.listed[symbol].currency
            yield Gap(symbol, Missing.RATE, f"no rate from {currency} to {state.base_currency} for {symbol}")
        if instrument is None:
            yield Gap(symbol, Missing.INSTRUMENT, f"{symbol} is in no instrument set in force; RegisterInstruments")
        if model is not None:
            yield from _model_gaps(symbol, model)
    for currency, amount in state.cash.items():
        if amount and currency != state.base_currency:
            note = f"{amount:,.2f} {currency} in cash: its exchange rate risk is not counted"
            yield Gap(currency, Missing.CASH, note)


def _model_gaps(symbol: str, model: RiskModel) -> Iterable[Gap]:
    place = model.column.get(symbol)
    if place is None:
        yield Gap(symbol, Missing.COLUMN, f"{symbol} is not in the risk model of session {model.session_date}")
        return
    if not model.has_history[place]:
        yield Gap(symbol, Missing.HISTORY, f"{symbol} has too little price history and no proxy")
    if not model.has_factor[place]:
        yield Gap(symbol, Missing.FACTOR, f"no stress factor reaches {symbol}")
