"""Greeks of a book: net, by underlying and by position, over tickers, expiries, strikes and linear instruments alike.

Delta in units of the underlying and in money, gamma for a move of 1 %, theta for a calendar day, vega for a volatility
point, rho for a percentage point. All are additive: a group is the sum of its positions. What can't be valued is named,
never counted as zero. Formulas belong to pricing.py and american.py, valuation to options.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument
from engine.risk.options import OptionBook
from engine.risk.pricing import Floats

LINES = ("delta", "dollar_delta", "gamma_1pct", "vega", "theta", "rho")


@dataclass(frozen=True, slots=True)
class GreekLine:
    """Greeks of a position, of an underlying or of the book. Money is in base currency; signs are the book's own."""

    name: str
    """Symbol, underlying, or "" for the whole book."""
    delta: float
    """Units of the underlying; over several underlyings a plain sum of their units."""
    dollar_delta: float
    """What a rise of the spot by its own size would bring, to first order: delta × spot."""
    gamma_1pct: float
    """Change of the dollar delta when the spot rises by 1 %: 0.01·Γ·S²·multiplier·quantity."""
    vega: float
    """For a rise of the volatility by one point."""
    theta: float
    """For one calendar day, nothing else moving."""
    rho: float
    """For a rise of the rate by one percentage point; of linear instruments 0: their duration is stressed instead."""


@dataclass(frozen=True, slots=True)
class Unvalued:
    """A position that no figure counts, and why."""

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class BookGreeks:
    net: GreekLine
    by_underlying: tuple[GreekLine, ...]
    """Ordered by name."""
    by_position: tuple[GreekLine, ...]
    """In the order given."""
    left_out: tuple[Unvalued, ...]
    """None of them is in any line: a book with one has Greeks that are incomplete."""


def book_greeks(
    quantities: Mapping[str, float],
    instruments: Mapping[str, Instrument],
    book: OptionBook,
    marks: Mapping[str, float],
    rates: Mapping[str, float],
) -> BookGreeks:
    """The Greeks of positions: `quantities` signed, in units of quantity by symbol (lots × lot size).

    `book`: the options, valued; it is taken to the marks of its underlyings, volatilities staying with their strikes.
    `marks`: prices now by symbol, in the symbol's currency. `rates`: base currency per unit of each currency, the
    base's own being 1. Delta of a linear instrument is 1 per unit, in its own spot; its line joins its underlying's.
    Raises ValueError where a quantity is not finite. O(n), no revaluation but of the options held.
    """
    for symbol, quantity in quantities.items():
        if not np.isfinite(quantity):
            raise ValueError(f"quantities.{symbol}: expected a finite number, got {quantity}")
    place = {symbol: at for at, symbol in enumerate(book.symbols)}
    places = np.array([place[symbol] for symbol in quantities if symbol in place], dtype=np.intp)
    held = _now(book.taken(places), marks)
    at = {symbol: row for row, symbol in enumerate(held.symbols)}
    table = _per_unit(held)
    lines: list[GreekLine] = []
    owners: list[str] = []
    left_out: list[Unvalued] = []
    for symbol, quantity in quantities.items():
        found = _units(symbol, quantity, instruments, rates)
        if isinstance(found, str):
            left_out.append(Unvalued(symbol, found))
            continue
        instrument, units, rate = found
        if instrument.asset_class is AssetClass.OPTION:
            line = _option_line(symbol, units, rate, table, at)
        else:
            line = _linear_line(symbol, units, rate, marks.get(symbol))
        if isinstance(line, str):
            left_out.append(Unvalued(symbol, line))
            continue
        lines.append(line)
        owners.append(instrument.underlying or symbol)
    groups: dict[str, list[GreekLine]] = {}
    for owner, line in zip(owners, lines, strict=True):
        groups.setdefault(owner, []).append(line)
    return BookGreeks(
        net=_summed("", lines),
        by_underlying=tuple(_summed(name, groups[name]) for name in sorted(groups)),
        by_position=tuple(lines),
        left_out=tuple(left_out),
    )


def _now(book: OptionBook, marks: Mapping[str, float]) -> OptionBook:
    fresh = {name: marks[name] for name in book.underlyings if name in marks and _is_price(marks[name])}
    return book.at(fresh) if len(book) else book


def _is_price(price: float | None) -> bool:
    return price is not None and bool(np.isfinite(price)) and price > 0


def _per_unit(book: OptionBook) -> Floats:
    """(n, 6): LINES per unit of quantity × multiplier, in the option's currency."""
    if not len(book):
        return np.empty((0, len(LINES)))
    found, spot = book.greeks(), book.spot
    columns: tuple[NDArray[np.float64], ...] = (
        found.delta,
        found.delta * spot,
        0.01 * found.gamma * spot * spot,
        found.vega,
        found.theta,
        found.rho,
    )
    return np.column_stack(columns)


def _units(
    symbol: str, quantity: float, instruments: Mapping[str, Instrument], rates: Mapping[str, float]
) -> tuple[Instrument, float, float] | str:
    """The instrument, its quantity × multiplier, and what its currency is worth; or what is missing."""
    instrument = instruments.get(symbol)
    if instrument is None:
        return "not in the instrument set"
    rate = rates.get(instrument.currency)
    if rate is None or not _is_price(rate):
        return f"no exchange rate of {instrument.currency}"
    return instrument, quantity * instrument.multiplier, rate


def _option_line(symbol: str, units: float, rate: float, table: Floats, at: Mapping[str, int]) -> GreekLine | str:
    row = at.get(symbol)
    if row is None:
        return "the option could not be valued; the model's warnings say why"
    delta, *money = (units * table[row]).tolist()
    return GreekLine(symbol, delta, *(rate * value for value in money))


def _linear_line(symbol: str, units: float, rate: float, mark: float | None) -> GreekLine | str:
    if mark is None or not _is_price(mark):
        return "no mark"
    return GreekLine(symbol, units, units * mark * rate, 0.0, 0.0, 0.0, 0.0)


def _summed(name: str, lines: Iterable[GreekLine]) -> GreekLine:
    table = np.array([[getattr(line, key) for key in LINES] for line in lines]).reshape(-1, len(LINES))
    return GreekLine(name, *table.sum(axis=0).tolist())
