"""Today's book held unchanged through a real stretch of history: what it would have cost, day by day.

Quantities are constant, so P&L at a day is today's value times what price and exchange rate have done since the first
close of the window (NUMERICS.md: the worst cumulative point, even where that is a gain). A symbol without prices there
is listed and left out, never counted as unmoved. Single days as scenarios of the book belong to the risk model, reading
files to gateway/market.
"""

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np

from engine.instrument import Instrument
from engine.risk.factors import fx_factor, is_cash, pair_return
from engine.risk.history import PriceHistory
from engine.risk.options import volatility_changes, volatility_factor
from engine.risk.stress_book import (
    REVALUATION_FAILED,
    Floats,
    LeftOut,
    Mask,
    Options,
    StressBook,
    fx_rows,
    joint,
    left_out_warnings,
    unrevalued,
)

CARRIED_DAYS_MAX = 5
"""Closes in a row that a symbol may lack (a holiday of its own market) before it counts as without prices there."""

EDGE_DAYS_MAX = 7
"""Calendar days that the first and the last close may lie off the window: a weekend and holidays."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of history: the book is held from the close of `start` to that of `end`, so that the first return is
    the day's after `start`. Raises ValueError where it has no name or no day."""

    name: str
    start: date
    end: date
    source: str = ""
    """Why these dates."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("window: expected a name, got none")
        if self.start >= self.end:
            raise ValueError(f"window {self.name!r}: expected an end after {self.start}, got {self.end}")


SHIPPED_WINDOWS = (
    Window("2008", date(2007, 10, 9), date(2009, 3, 9), "S&P 500 from its peak, 1565.15, to its low, 676.53"),
    Window("2011", date(2011, 4, 29), date(2011, 10, 3), "S&P 500 from its peak, 1363.61, to its low, 1099.23"),
    Window(
        "2013",
        date(2013, 5, 21),
        date(2013, 9, 5),
        "from the close before the Fed chairman's testimony of 22 May on tapering to the peak of the 10-year Treasury "
        "yield, 2.98 % (Federal Reserve H.15)",
    ),
    Window("2020", date(2020, 2, 19), date(2020, 3, 23), "S&P 500 from its peak, 3386.15, to its low, 2237.40"),
    Window("2022", date(2022, 1, 3), date(2022, 10, 12), "S&P 500 from its peak, 4796.56, to its low, 3577.03"),
)


def days_window(name: str, first_day: date, last_day: date, prices: PriceHistory) -> Window:
    """The window whose first return is that of `first_day` (or the next day with a close): from the close before it.

    Without an earlier close it starts at `first_day` itself. Raises ValueError where `last_day` is before it.
    """
    if last_day < first_day:
        raise ValueError(f"last_day: expected {first_day} or later, got {last_day}")
    kept = _traded_rows(prices, bisect_left(prices.dates, first_day - timedelta(EDGE_DAYS_MAX)), len(prices.dates))
    before = [prices.dates[row] for row in kept if prices.dates[row] < first_day]
    start = before[-1] if before else first_day
    return Window(name, start, max(last_day, start + timedelta(1)))


class ReplayStatus(enum.StrEnum):
    """How much of the window and of the book a replay covers."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    """The prices reach only a part of the window, or of the symbols; `warnings` and `missing` say which."""
    NO_DATA = "no data"
    """No price of the book there: no figure at all."""


@dataclass(frozen=True, slots=True)
class ReplayPoint:
    """One day of a replay, in base currency; negative is a loss."""

    date: date
    pnl: float
    cumulative_pnl: float


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A book through one window. T days after the first close; empty and None with status NO_DATA."""

    window: Window
    status: ReplayStatus
    start: date | None
    """Of the close that the book is held from."""
    dates: tuple[date, ...]
    daily_pnl: Floats
    """(T,) in base currency; negative is a loss."""
    cumulative_pnl: Floats
    """(T,) its running sum."""
    worst: ReplayPoint | None
    """The lowest cumulative point, even where that is a gain; the first of equals."""
    max_drawdown: float | None
    """The greatest fall from a cumulative peak, the start included; 0 or more, base currency."""
    position_pnl: Floats
    """(n,) by row of the book at the worst point; NaN where the row is in `missing`."""
    missing: tuple[LeftOut, ...]
    """Rows of positions without prices there, and why."""
    covered_share: float | None
    """Of the book's gross money, the part that is replayed; None where the book holds nothing."""
    warnings: tuple[str, ...]


def replay(book: StressBook, prices: PriceHistory, window: Window, carried_days_max: int = CARRIED_DAYS_MAX) -> Replay:
    """The positions of `book` (open orders not counted) through `window`.

    Of the rows of `prices` in the window count weekdays with any close. A symbol that lacks at most `carried_days_max`
    closes in a row keeps its last one, with a warning; lacking more, its proxy stands in, else it is left out. A
    foreign row moves with its exchange rate (factors.joint_return of both cumulative returns: what a future gains
    stays in its currency). An option is revalued at its underlying's cumulative return, and at the change of the
    series VOL_<underlying> or VOL (in points, as the VIX is quoted) where there is one; it does not age. Raises
    ValueError on a negative `carried_days_max`.
    """
    if carried_days_max < 0:
        raise ValueError(f"carried_days_max: expected 0 or more, got {carried_days_max}")
    stretch = _stretch(prices, window, carried_days_max)
    if stretch is None:
        return _no_data(book, window, f"{window.name}: no prices between {window.start} and {window.end}")
    pnl, faults, warnings = _position_pnl(book, stretch)
    held = book.held != 0.0
    missing = book.left_out + tuple(book.leaves_out(row, why) for row, why in sorted(faults.items()) if held[row])
    if held.any() and all(row in faults for row in np.flatnonzero(held).tolist()):
        return _no_data(book, window, f"{window.name}: no prices of anything in the book", missing)
    counted = held.copy()
    counted[list(faults)] = False
    daily, cumulative = _summed(pnl[counted])
    worst = int(cumulative.argmin())
    dates = stretch.dates[1:]
    position_pnl = np.where(counted, pnl[:, worst + 1], 0.0)
    position_pnl[list(faults)] = np.nan
    warnings = [*_edge_warnings(window, stretch), *warnings, *left_out_warnings(window.name, missing)]
    return Replay(
        window=window,
        status=ReplayStatus.PARTIAL if missing or stretch.cut else ReplayStatus.COMPLETE,
        start=stretch.dates[0],
        dates=dates,
        daily_pnl=daily,
        cumulative_pnl=cumulative,
        worst=ReplayPoint(dates[worst], float(daily[worst]), float(cumulative[worst])),
        max_drawdown=_drawdown(cumulative),
        position_pnl=position_pnl,
        missing=missing,
        covered_share=_share(book.held, counted),
        warnings=tuple(warnings),
    )


def _summed(pnl: Floats) -> tuple[Floats, Floats]:
    """(T,) P&L by day and from the start, of (rows, T + 1) cumulative P&L by row."""
    cumulative = pnl.sum(axis=0)
    return np.diff(cumulative), cumulative[1:]


def _drawdown(cumulative: Floats) -> float:
    path = np.concatenate(([0.0], cumulative))
    return float((np.maximum.accumulate(path) - path).max())


def _share(held: Floats, counted: Mask) -> float | None:
    gross = float(np.abs(held).sum())
    return float(np.abs(held[counted]).sum()) / gross if gross > 0.0 else None


def _no_data(book: StressBook, window: Window, reason: str, missing: tuple[LeftOut, ...] | None = None) -> Replay:
    held = np.flatnonzero(book.held).tolist()
    if missing is None:
        missing = book.left_out + tuple(book.leaves_out(row, "no prices in the window") for row in held)
    return Replay(
        window=window,
        status=ReplayStatus.NO_DATA,
        start=None,
        dates=(),
        daily_pnl=np.empty(0),
        cumulative_pnl=np.empty(0),
        worst=None,
        max_drawdown=None,
        position_pnl=np.full(len(book), np.nan),
        missing=missing,
        covered_share=0.0 if held else None,
        warnings=(reason,),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """Price levels of a window: `lead` rows before its first close, from which a missing one may be carried."""

    prices: PriceHistory
    rows: Sequence[int]
    lead: int
    carried_days_max: int
    cut: bool
    """The prices do not reach both ends of the window."""

    @property
    def dates(self) -> tuple[date, ...]:
        return tuple(self.prices.dates[row] for row in self.rows[self.lead :])

    def levels(self, names: Sequence[str]) -> Floats:
        """(names, lead + T + 1) closes; NaN where there is none above 0."""
        column = {symbol: place for place, symbol in enumerate(self.prices.symbols)}
        found = np.full((len(names), len(self.rows)), np.nan)
        rows = np.asarray(self.rows, dtype=np.intp)
        listed = [place for place, name in enumerate(names) if name in column]
        if listed:
            columns = np.array([column[names[place]] for place in listed], dtype=np.intp)
            found[listed] = self.prices.closes[np.ix_(rows, columns)].T
        for place, name in enumerate(names):
            if name not in column and name in self.prices.indices:
                found[place] = self.prices.indices[name][rows]
        return np.where(np.isfinite(found) & (found > 0.0), found, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class _Paths:
    """Cumulative returns since the first close, by series; of the faultless ones, and what is wrong with the others."""

    place: Mapping[str, int]
    levels: Floats
    faults: Mapping[str, str]
    carried: Mapping[str, int]
    """Closes that were carried forward, by series."""

    def moves(self, name: str) -> Floats:
        levels = self.levels[self.place[name]]
        moves: Floats = levels / levels[0] - 1.0
        return moves


def _stretch(prices: PriceHistory, window: Window, carried_days_max: int) -> _Stretch | None:
    """The rows of the window, from the last one at or before its start; None where there are not two."""
    earliest = window.start - timedelta(EDGE_DAYS_MAX + 2 * carried_days_max)
    rows = _traded_rows(prices, bisect_left(prices.dates, earliest), bisect_right(prices.dates, window.end))
    dates = [prices.dates[row] for row in rows]
    first = bisect_right(dates, window.start) - 1
    reached = first >= 0 and (window.start - dates[first]).days <= EDGE_DAYS_MAX
    first = first if reached else first + 1
    if len(rows) - first < 2:
        return None
    ended = prices.dates[-1] >= window.end or (window.end - dates[-1]).days <= EDGE_DAYS_MAX
    lead = min(first, carried_days_max)
    return _Stretch(prices, rows[first - lead :], lead, carried_days_max, cut=not (reached and ended))


def _traded_rows(prices: PriceHistory, start: int, stop: int) -> list[int]:
    """The weekdays from row `start` to before `stop` on which any symbol has a close (as PriceHistory.window has it);
    any index, where there are no symbols."""
    closes = prices.closes[start:stop]
    if not prices.symbols and prices.indices:
        closes = np.column_stack([levels[start:stop] for levels in prices.indices.values()])
    traded = np.flatnonzero(~np.isnan(closes).all(axis=1)) + start
    return [row for row in traded.tolist() if prices.dates[row].weekday() < 5]


def _paths(stretch: _Stretch, names: Sequence[str]) -> _Paths:
    levels = stretch.levels(names)
    filled = _carried(levels, stretch.carried_days_max)[:, stretch.lead :]
    own = levels[:, stretch.lead :]
    gaps = np.isnan(filled)
    known = {*stretch.prices.symbols, *stretch.prices.indices}
    faults = {
        names[place]: _fault(names[place] in known, gaps[place], stretch.dates)
        for place in np.flatnonzero(gaps.any(axis=1)).tolist()
    }
    missing = np.isnan(own).sum(axis=1)
    carried = {name: count for name, count in zip(names, missing.tolist(), strict=True) if count and name not in faults}
    return _Paths({name: place for place, name in enumerate(names)}, filled, faults, carried)


def _carried(levels: Floats, days_max: int) -> Floats:
    """`levels` (series, days), each gap of at most `days_max` days filled with the close before it."""
    days = np.arange(levels.shape[1])
    last = np.maximum.accumulate(np.where(np.isnan(levels), -1, days), axis=1)
    carried: Floats = np.take_along_axis(levels, np.maximum(last, 0), axis=1)
    return np.where((last >= 0) & (days - last <= days_max), carried, np.nan)


def _fault(known: bool, gaps: Mask, dates: Sequence[date]) -> str:
    if not known:
        return "not in the price history"
    places = np.flatnonzero(gaps)
    if len(places) == len(dates):
        return "no closes in the window"
    more = f" (and {len(places) - 1} more days)" if len(places) > 1 else ""
    return f"no close on {dates[places[0]]}{more}"


def _position_pnl(book: StressBook, stretch: _Stretch) -> tuple[Floats, dict[int, str], list[str]]:
    """(n, T + 1) cumulative P&L of each row from 0 at the first close; rows at fault and why, and warnings."""
    held = np.flatnonzero(book.held).tolist()
    pairs = _pairs(book, held, stretch.prices)
    sources = _sources(book)
    paths = _paths(stretch, _series_names(book, [sources[row] for row in held], pairs.values(), stretch.prices))
    rates = {
        currency: pair_return(pair, paths.moves(pair), book.base_currency, currency)
        for currency, pair in pairs.items()
        if pair not in paths.faults
    }
    faults = {row: why for row, why in unrevalued(book).items() if book.held[row] != 0.0}
    local, proxies = np.zeros((len(book), paths.levels.shape[1])), []
    for row in held:
        found = _usable(sources[row], paths)
        if _lacks_rate(book, row, rates):
            faults.setdefault(row, f"no exchange rate of {book.instruments[row].currency} to {book.base_currency}")
        elif found is None:
            faults.setdefault(row, f"{sources[row].symbol}: {paths.faults[sources[row].symbol]}")
        elif found:
            local[row] = paths.moves(found)
            proxies += [(sources[row].symbol, found)] if found != sources[row].symbol else []
    warnings = [f"{symbol}: replayed by its proxy {name}: {paths.faults[symbol]}" for symbol, name in proxies]
    warnings += _carried_warnings(paths)
    returns = joint(book, local, rates)
    if book.options is not None:
        warnings += _revalue(book, book.options, local, rates, paths, returns)
    unknown = np.flatnonzero((book.held != 0.0) & ~np.isfinite(returns).all(axis=1)).tolist()
    pnl: Floats = book.held[:, None] * returns
    return pnl, {**dict.fromkeys(unknown, REVALUATION_FAILED), **faults}, list(dict.fromkeys(warnings))


def _revalue(
    book: StressBook, options: Options, local: Floats, rates: Mapping[str, Floats], paths: _Paths, returns: Floats
) -> list[str]:
    """Put the returns of options in their rows; what is to be known of their volatilities."""
    volatilities, warnings = _volatilities(options, paths)
    fx = fx_rows(book, options.rows, rates, local.shape[1])
    returns[options.rows] = options.returns(local[options.rows], volatilities, fx)
    return warnings


def _pairs(book: StressBook, held: Sequence[int], prices: PriceHistory) -> Mapping[str, str]:
    """The series that quotes each foreign currency of the positions, where there is one."""
    known = {*prices.symbols, *prices.indices}
    currencies = {book.instruments[row].currency for row in held} - {book.base_currency}
    found = {currency: fx_factor(known, book.base_currency, currency) for currency in sorted(currencies)}
    return {currency: pair for currency, pair in found.items() if pair is not None}


def _sources(book: StressBook) -> list[Instrument]:
    """Whose price moves each row: the underlying's of an option, else its own."""
    sources = list(book.instruments)
    if book.options is not None:
        for row, underlying in zip(book.options.rows.tolist(), book.options.underlyings, strict=True):
            sources[row] = underlying
    return sources


def _series_names(
    book: StressBook, sources: Sequence[Instrument], pairs: Iterable[str], prices: PriceHistory
) -> list[str]:
    names = [name for one in sources if not is_cash(one) for name in (one.symbol, one.proxy) if name]
    if book.options is not None:
        known = frozenset((*prices.symbols, *prices.indices))
        factors = [volatility_factor(one.symbol, known) for one in book.options.underlyings]
        names += [factor for factor in factors if factor is not None]
    return list(dict.fromkeys((*names, *pairs)))


def _usable(source: Instrument, paths: _Paths) -> str | None:
    """The series that moves `source`: its own, else its proxy's; "" for cash, which has none; None where neither is."""
    if is_cash(source):
        return ""
    return next((name for name in (source.symbol, source.proxy) if name and name not in paths.faults), None)


def _lacks_rate(book: StressBook, row: int, rates: Mapping[str, Floats]) -> bool:
    currency = book.instruments[row].currency
    return currency != book.base_currency and currency not in rates


def _volatilities(options: Options, paths: _Paths) -> tuple[Floats, list[str]]:
    """(m, T + 1) absolute changes since the first close; 0 where no faultless series tells, and why a known one does
    not. A series is in points, as the VIX is quoted."""
    changes = np.zeros((len(options.rows), paths.levels.shape[1]))
    faults: list[str] = []
    for place, underlying in enumerate(options.underlyings):
        name = volatility_factor(underlying.symbol, paths.place)
        if name is None:
            continue
        found = paths.faults[name] if name in paths.faults else volatility_changes(paths.levels[paths.place[name]])
        if isinstance(found, str):
            faults.append(f"{name}: volatility of {underlying.symbol} counts as unchanged: {found}")
        else:
            changes[place, 1:] = found.cumsum()
    return changes, list(dict.fromkeys(faults))


def _carried_warnings(paths: _Paths) -> list[str]:
    return [
        f"{name}: {count} missing close{'s' if count > 1 else ''} carried forward from the day before"
        for name, count in paths.carried.items()
    ]


def _edge_warnings(window: Window, stretch: _Stretch) -> list[str]:
    if not stretch.cut:
        return []
    dates = stretch.dates
    return [f"{window.name}: prices reach {dates[0]} to {dates[-1]} alone, of {window.start} to {window.end}"]


@dataclass(frozen=True, slots=True, eq=False)
class WindowPaths:
    """What one unit of base currency in each row of a book would have made through a window: computed once, it replays
    a book of these rows whatever it holds of them."""

    window: Window
    dates: tuple[date, ...]
    """T + 1, of the first close and each day after it."""
    returns: Floats
    """(n, T + 1) cumulative, 0 at the first close; NaN in rows of `faults`."""
    faults: Mapping[int, str]
    """Rows without prices there, and why."""
    warnings: tuple[str, ...]
    cut: bool
    """The prices do not reach both ends of the window."""


def window_paths(
    book: StressBook, prices: PriceHistory, window: Window, carried_days_max: int = CARRIED_DAYS_MAX
) -> WindowPaths | None:
    """By row what `replay` multiplies the positions of a book with; None where there are no prices in the window."""
    stretch = _stretch(prices, window, carried_days_max)
    if stretch is None:
        return None
    ones = np.ones(len(book))
    returns, faults, warnings = _position_pnl(replace(book, held=ones, low=ones, high=ones), stretch)
    returns[list(faults)] = np.nan
    edge = _edge_warnings(window, stretch)
    return WindowPaths(window, tuple(stretch.dates), returns, faults, (*edge, *warnings), stretch.cut)
