"""The columns of options in a risk model, by full revaluation: history, scenarios, spot × volatility grid.

An option follows its underlying's local return in every row, and with it its volatility: on days by the changes of the
series "VOL_<underlying>" or "VOL" where the price history has one (in points, as the VIX is quoted), else not at all;
in scenarios by the factor of that name; in the grid every spot shock meets every volatility shock. All at once: no row
ages an option, since one that was sold would else pay part of its own risk by its decay. Valuation is options.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument
from engine.risk.columns import Columns, Floats, Series, local_source, local_stress
from engine.risk.factors import FactorMap, GridShocks, SensitivityMissingError, fx_factor, grid_returns
from engine.risk.history import PriceHistory
from engine.risk.options import (
    VOLATILITY_FACTOR,
    OptionBook,
    OptionMarket,
    columns_of,
    underlying_of,
    valuation_us,
    value_options,
    volatility_changes,
    volatility_factor,
    volatility_shock,
)
from engine.risk.scenarios import Scenario

Cell = TypeVar("Cell", np.float64, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """How one underlying, its volatility and its currency move in k rows; arrays have shape (k,)."""

    spot: Floats
    """In its own currency."""
    fx: Floats
    volatility: Floats | None = None
    """Absolute; None: it stays."""


@dataclass(frozen=True, slots=True, eq=False)
class OptionRows:
    """What build.py knows when it comes to the options; `joined` adds their columns to the linear ones."""

    instruments: Mapping[str, Instrument]
    ordered: Sequence[Instrument]
    window: PriceHistory
    series: Series
    fx_days: Mapping[str, Floats | None]
    fx_stress: Mapping[str, Floats | None]
    scenarios: Sequence[Scenario]
    factor_map: FactorMap
    grid: Mapping[AssetClass, GridShocks]
    unmapped_stays: bool
    """What no factor reaches stays where it is; else it has no stress."""
    base_currency: str
    marks: Mapping[str, float]
    rates: Mapping[str, float]
    volatility_shocks: tuple[float, ...]
    session_date: date
    built_time_us: int

    def joined(self, linear: Columns, warnings: list[str]) -> Columns:
        """All columns in symbol order; adds to `warnings`. Raises ValueError on volatility shocks that are none."""
        if not self.volatility_shocks or not np.isfinite(self.volatility_shocks).all():
            raise ValueError(f"volatility_shocks: expected one or more finite fractions, got {self.volatility_shocks}")
        is_option = np.array([one.asset_class is AssetClass.OPTION for one in self.ordered], dtype=np.bool_)
        places = np.flatnonzero(is_option)
        book, found, exchange = self._valued([self.ordered[place] for place in places.tolist()], warnings)
        columns = places[found]
        names, of = _numbered(book.underlyings)
        underlyings = [self._underlying(columns.item(int(np.argmax(of == at)))) for at in range(len(names))]
        betas = _spread(linear.betas, is_option, np.nan)
        beta_of = {one.symbol: float(betas[at]) for at, one in enumerate(self.ordered)}

        rows = _spread(linear.rows, is_option, np.nan)
        grid = _spread(np.repeat(linear.grid, len(self.volatility_shocks), axis=1), is_option, np.nan)
        has_history, has_factor, unaffected = (
            _spread(flags, is_option, False) for flags in (linear.has_history, linear.has_factor, linear.unaffected)
        )
        n_days = max(0, len(self.window.dates) - 1)
        days = [self._days(one, n_days, warnings) for one in underlyings]
        stress = [self._stress(one, beta_of.get(one.symbol, np.nan), warnings) for one in underlyings]
        points = [self._points(one) for one in underlyings]
        has_history[columns] = _fill(rows[:, :n_days], columns, book, of, days)
        has_factor[columns] = _fill(rows[:, n_days:], columns, book, of, [moves for moves, _ in stress])
        unaffected[columns] = [not stress[at][1] for at in of.tolist()]
        _fill(grid, columns, book, of, points)
        return Columns(
            rows=rows,
            grid=grid,
            has_history=has_history,
            has_factor=has_factor,
            unaffected=unaffected,
            betas=betas,
            grid_volatilities=self.volatility_shocks,
            options=columns_of(book, places, found, exchange),
        )

    def _valued(self, options: list[Instrument], warnings: list[str]) -> tuple[OptionBook, NDArray[np.intp], Floats]:
        """The options that could be valued, which of `options` they are, and their currencies' rates to the base."""
        dates = self.window.dates
        closes = {name: levels[-1] for name, levels in self.window.indices.items()} if dates else {}
        if dates:
            closes |= dict(zip(self.window.symbols, self.window.closes[-1].tolist(), strict=True))
        market = OptionMarket(
            now_us=valuation_us(self.session_date, self.built_time_us),
            marks=self.marks,
            closes=closes,
            closes_date=dates[-1] if dates else self.session_date,
            rates=self.rates,
        )
        exchange = {currency: self._exchange(currency, closes) for currency in {one.currency for one in options}}
        faults = {
            one.symbol: f"no exchange rate {self.base_currency}{one.currency} or {one.currency}{self.base_currency}"
            for one in options
            if exchange[one.currency] is None
        }
        valued = value_options([one for one in options if one.symbol not in faults], self.instruments, market)
        warnings.extend(_fault_warnings(options, faults | dict(valued.faults)))
        warnings.extend(valued.warnings)
        place = {one.symbol: at for at, one in enumerate(options)}
        found = np.array([place[symbol] for symbol in valued.book.symbols], dtype=np.intp)
        rates = [exchange[options[at].currency] or 1.0 for at in found.tolist()]
        return valued.book, found, np.array(rates, dtype=np.float64)

    def _exchange(self, currency: str, closes: Mapping[str, float]) -> float | None:
        """What one unit of a currency is worth in the base now: by its mark, else by its last close."""
        if currency == self.base_currency:
            return 1.0
        for source in (self.marks, closes):
            pair = fx_factor(source, self.base_currency, currency)
            if pair is not None and np.isfinite(source[pair]) and source[pair] > 0:
                return 1.0 / source[pair] if pair == self.base_currency + currency else float(source[pair])
        return None

    def _underlying(self, column: int) -> Instrument:
        return underlying_of(self.ordered[column], self.instruments)

    def _days(self, underlying: Instrument, n_days: int, warnings: list[str]) -> _Moves | None:
        name = underlying.symbol
        local, fx = local_source(underlying, self.series), self.fx_days[underlying.currency]
        if local is None or fx is None:
            why = self.series.fault(name) if local is None else f"no exchange rate of {underlying.currency}"
            warnings.append(f"{name}: its options have no history: {why}")
            return None
        followed = volatility_factor(name, self.window.indices)
        if followed is None:
            warnings.append(
                f"{name}: volatility of its options unchanged on historical days: no series {VOLATILITY_FACTOR}_{name} "
                f"or {VOLATILITY_FACTOR} in the price history"
            )
            return _Moves(local, fx)
        changes = volatility_changes(self.window.indices[followed])
        if isinstance(changes, str):
            warnings.append(f"{name}: its options have no history: {followed}: {changes}")
            return None
        return _Moves(local, fx, changes)

    def _stress(self, underlying: Instrument, beta: float, warnings: list[str]) -> tuple[_Moves | None, bool]:
        """And whether any factor reaches it; one whose sensitivity is missing is a fault, and no lack of coverage."""
        name, count = underlying.symbol, len(self.scenarios)
        try:
            local = local_stress(underlying, self.scenarios, self.factor_map, beta, fx_moves=False)
        except SensitivityMissingError as missing:
            warnings.append(f"{name}: its options have no factor: {missing}")
            return None, True
        shocks = [volatility_shock(name, scenario.shocks) for scenario in self.scenarios]
        reached = local is not None or any(shock is not None for shock in shocks)
        if not reached:
            warnings.append(f"{name}: no factor of any scenario reaches its options")
        if not reached and not self.unmapped_stays:
            return None, False
        fx = self.fx_stress[underlying.currency]
        moves = _Moves(
            np.zeros(count) if local is None else local,
            np.zeros(count) if fx is None else fx,
            np.array([0.0 if shock is None else shock for shock in shocks]),
        )
        return moves, reached

    def _points(self, underlying: Instrument) -> _Moves:
        """The grid: every spot shock with every volatility shock, the latter changing fastest."""
        base, shocks = self.base_currency, np.array(self.volatility_shocks)
        local = np.array(grid_returns(msgspec.structs.replace(underlying, currency=base), self.grid, base))
        quotes_base = underlying.symbol == base + underlying.currency
        fx = 1.0 / (1.0 + local) - 1.0 if quotes_base else np.zeros_like(local)
        return _Moves(np.repeat(local, len(shocks)), np.repeat(fx, len(shocks)), np.tile(shocks, len(local)))


def _numbered(names: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """Each name once, in order of appearance, and which of them stands where."""
    number = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return list(number), np.array([number[name] for name in names], dtype=np.intp)


def _spread(linear: NDArray[Cell], is_option: NDArray[np.bool_], otherwise: float | bool) -> NDArray[Cell]:
    """What is known of the instruments that are no options, in the places of all."""
    spread = np.full((len(is_option), *linear.shape[1:]), otherwise, dtype=linear.dtype)
    spread[~is_option] = linear
    return spread


def _fill(
    target: Floats,
    columns: NDArray[np.intp],
    book: OptionBook,
    of: NDArray[np.intp],
    moves: Sequence[_Moves | None],
) -> NDArray[np.bool_]:
    """Write P&L per unit over the underlying's spot into `target` (n_symbols, k), option by option, in the base
    currency at today's rate: ((1 + fx)·V' - V) / S. Returns (n,) which options of the book had moves to follow."""
    known = np.array([moves[at] is not None for at in of.tolist()], dtype=np.bool_)
    chosen = np.flatnonzero(known)
    given = [one for one in moves if one is not None]
    if not chosen.size or not target.shape[1]:
        return known
    number = np.cumsum([one is not None for one in moves]) - 1
    followed, part = number[of[chosen]], book if known.all() else book.taken(chosen)
    worth = part.values(np.array([one.spot for one in given]), _volatility_rows(given), followed)
    fx = np.array([one.fx for one in given])
    if fx.any():
        worth *= 1.0 + fx[followed]
    worth -= part.prices()[:, None]
    worth /= part.spot[:, None]
    target[columns[chosen]] = worth
    return known


def _volatility_rows(given: Sequence[_Moves]) -> Floats | None:
    """(m, k), or None where every volatility stays: pricing is a third faster then."""
    if all(one.volatility is None or not one.volatility.any() for one in given):
        return None
    return np.array([np.zeros_like(one.spot) if one.volatility is None else one.volatility for one in given])


def _fault_warnings(options: Sequence[Instrument], faults: Mapping[str, str]) -> list[str]:
    """One for each underlying and reason, however many strikes."""
    together: dict[tuple[str, str], list[str]] = {}
    for one in options:
        if one.symbol in faults:
            together.setdefault((one.underlying, faults[one.symbol]), []).append(one.symbol)
    return [
        f"{symbols[0]}{f' and {len(symbols) - 1} more' if len(symbols) > 1 else ''}: can't be valued: {reason}"
        for (_, reason), symbols in together.items()
    ]
