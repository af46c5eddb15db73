"""A book as scenarios see it, and the return of each of its rows when risk factors move by any number of paths.

Shared by stress.py, reverse_stress.py and replay.py: rows with the money that their returns multiply, options behind an
injected revaluation, the factors that reach each row. The rules by which a factor reaches an instrument are those of
factors.py. No option formula, no price history and no choice of scenario here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.instrument import AssetClass, Instrument, InstrumentSet
from engine.risk.factors import (
    FactorMap,
    SensitivityMissingError,
    fx_factor,
    is_cash,
    joint_return,
    local_loadings,
    pair_return,
)
from engine.risk.holdings import Holdings, Missing
from engine.risk.model import RiskModel
from engine.risk.options import book_of, underlying_of, volatility_factor

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

REVALUATION_FAILED = "its revaluation gave no finite P&L"

Revalue = Callable[[Floats, Floats], Floats]
"""(underlying returns (m, k), changes of implied volatility (m, k)) -> P&L per unit (m, k) by full revaluation.

A row for each option of the book, in their order, a column for each path. Returns are simple and above -1, in the
underlying's currency. A change of 0.01 is one point; it may ask for less than no volatility: the callable floors it.
P&L is in base currency at today's exchange rate, for one of the units that `references` and `prices` are given for.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """The m rows of a book that are revalued in full, and what that needs. Arrays have shape (m,)."""

    rows: NDArray[np.intp]
    """Places in the book, rising."""
    revalue: Revalue
    references: Floats
    """Base currency that the ends of the book count a unit as (the underlying's spot, as the risk model has it), above
    0."""
    prices: Floats
    """Value of a unit in base currency today, 0 or more."""
    underlyings: tuple[Instrument, ...]
    betas: Floats
    """Of the underlyings, NaN where not known."""

    def __post_init__(self) -> None:
        size = len(self.rows)
        for name in ("references", "prices", "betas"):
            if getattr(self, name).shape != (size,):
                raise ValueError(f"options.{name}: expected shape {(size,)}, got {getattr(self, name).shape}")
        if len(self.underlyings) != size:
            raise ValueError(f"options.underlyings: expected {size}, got {len(self.underlyings)}")
        if not (np.isfinite(self.references) & (self.references > 0.0)).all():
            raise ValueError("options.references: expected finite numbers above 0 (the underlying's spot)")
        if not (np.isfinite(self.prices) & (self.prices >= 0.0)).all():
            raise ValueError("options.prices: expected finite numbers, 0 or more")
        if (np.diff(self.rows) <= 0).any():
            raise ValueError("options.rows: expected rising places, each once")
        for underlying in self.underlyings:
            if underlying.asset_class is AssetClass.OPTION:
                raise ValueError(f"options.underlyings: expected no option, got {underlying.symbol}")

    def returns(self, moves: Floats, volatilities: Floats, fx: Floats) -> Floats:
        """(m, k) P&L in base currency per unit of reference; `fx` (m, k) is what each option's own currency returns.

        Raises ValueError where the revaluation answers in another shape. What it can't value stays NaN.
        """
        pnl = np.asarray(self.revalue(moves, volatilities), dtype=np.float64)
        if pnl.shape != moves.shape:
            raise ValueError(f"revalue: expected P&L of shape {moves.shape}, got {pnl.shape}")
        in_base: Floats = pnl * (1.0 + fx) + self.prices[:, None] * fx
        return in_base / self.references[:, None]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that no figure counts, and why."""

    strategy: str
    symbol: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class StressBook:
    """n rows of a book in base currency: P&L of a row = its return × money, at the end of `low` and `high` that loses
    more where open orders count.

    The money is the signed value at the mark; of an option, units × reference. Raises ValueError where shapes disagree
    or money is not finite: what can't be valued belongs into `left_out`.
    """

    instruments: tuple[Instrument, ...]
    strategies: tuple[str, ...]
    held: Floats
    """(n,) the position, no open order counted."""
    low: Floats
    high: Floats
    betas: Floats
    """(n,) to the factor of the class default, NaN where not known."""
    base_currency: str = "USD"
    options: Options | None = None
    underlyings: Mapping[str, Instrument] = field(default_factory=dict)
    """Instruments by symbol that the spot grid looks the rows' underlyings up in."""
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.instruments)
        if len(self.strategies) != n:
            raise ValueError(f"strategies: expected {n}, one a row, got {len(self.strategies)}")
        for name in ("held", "low", "high", "betas"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name}: expected shape {(n,)}, got {getattr(self, name).shape}")
        for name in ("held", "low", "high"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name}: expected finite money in base currency, got NaN or infinity")
        if (self.low > self.high).any():
            raise ValueError("low: expected no end above `high`")
        rows = np.zeros(0) if self.options is None else self.options.rows
        if ((rows < 0) | (rows >= n)).any():
            raise ValueError(f"options.rows: expected places from 0 to {n - 1}")

    @staticmethod
    def of(
        instruments: Sequence[Instrument],
        held: ArrayLike,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        strategies: Sequence[str] | None = None,
        betas: ArrayLike | None = None,
        base_currency: str = "USD",
        options: Options | None = None,
        underlyings: Mapping[str, Instrument] | None = None,
    ) -> "StressBook":
        """A book of rows; both ends are the position where no open orders are given, betas unknown where none are."""
        position = np.asarray(held, dtype=np.float64)
        return StressBook(
            instruments=tuple(instruments),
            strategies=tuple(strategies or ("",) * len(instruments)),
            held=position,
            low=position if low is None else np.asarray(low, dtype=np.float64),
            high=position if high is None else np.asarray(high, dtype=np.float64),
            betas=np.full(len(instruments), np.nan) if betas is None else np.asarray(betas, dtype=np.float64),
            base_currency=base_currency,
            options=options,
            underlyings=underlyings or {},
        )

    def __len__(self) -> int:
        return len(self.instruments)

    @property
    def at_stake(self) -> Mask:
        """(n,) whether the row holds or may come to hold anything."""
        return np.asarray((self.low != 0.0) | (self.high != 0.0))

    @property
    def linear(self) -> Mask:
        """(n,) whether P&L is the row's return times its money at every size of move."""
        linear = np.ones(len(self), dtype=np.bool_)
        if self.options is not None:
            linear[self.options.rows] = False
        return linear

    def losses(self, returns: Floats) -> Floats:
        """(n, k) loss of each row at the worse of its ends, under `returns` (n, k)."""
        if (self.low == self.high).all():
            exact: Floats = -self.low[:, None] * returns
            return exact
        worse: Floats = -np.minimum(self.low[:, None] * returns, self.high[:, None] * returns)
        return worse

    def without_orders(self) -> "StressBook":
        """The positions alone."""
        return replace(self, low=self.held, high=self.held)

    def leaves_out(self, row: int, reason: str) -> LeftOut:
        return LeftOut(self.strategies[row], self.instruments[row].symbol, reason)


def book_of_holdings(
    holdings: Holdings,
    instruments: InstrumentSet,
    model: RiskModel | None,
    spots: Mapping[str, float] | None = None,
) -> StressBook:
    """The book of an account's holdings; rows that can't be valued are in `left_out`.

    Options are revalued as the model valued them, at `spots` of their underlyings where given (each volatility stays
    with its strike), else at the model's. `model`: the one that the holdings were made with.
    """
    known = [instruments.get(symbol) for symbol in holdings.symbols]
    priced = np.isfinite(holdings.held) & np.isfinite(holdings.low) & np.isfinite(holdings.high)
    kept = np.array([at for at, one in enumerate(known) if one is not None and priced[at]], dtype=np.intp)
    rows = [one for at in kept.tolist() if (one := known[at]) is not None]
    betas = np.full(len(kept), np.nan)
    if model is not None:
        columns = holdings.columns[kept]
        betas[columns >= 0] = model.betas[columns[columns >= 0]]
    kept_set = set(kept.tolist())
    return StressBook(
        instruments=tuple(rows),
        strategies=tuple(holdings.strategies[at] for at in kept.tolist()),
        held=holdings.held[kept],
        low=holdings.low[kept],
        high=holdings.high[kept],
        betas=betas,
        base_currency=holdings.base_currency,
        options=None if model is None else options_of_model(rows, instruments.instruments, model, spots or {}),
        underlyings=instruments.instruments,
        left_out=tuple(
            LeftOut(holdings.strategies[at], symbol, _why_unvalued(holdings, symbol))
            for at, symbol in enumerate(holdings.symbols)
            if at not in kept_set
        ),
    )


def _why_unvalued(holdings: Holdings, symbol: str) -> str:
    valuing = (Missing.MARK, Missing.RATE, Missing.INSTRUMENT)
    notes = [gap.note for gap in holdings.gaps if gap.symbol == symbol and gap.missing in valuing]
    return notes[0] if notes else "the risk model could not value it"


def options_of_model(
    rows: Sequence[Instrument], instruments: Mapping[str, Instrument], model: RiskModel, spots: Mapping[str, float]
) -> Options | None:
    """The options among the `rows` of a book that `model` has valued; None where there are none.

    A unit is one of quantity, multiplier 1; `references` are the model's. `spots` by underlying: now, above 0.
    """
    valued = np.flatnonzero(model.options.valued)
    place_of = {model.symbols[model.options.places[at]]: at for at in valued.tolist()}
    held = [(row, one) for row, one in enumerate(rows) if one.symbol in place_of]
    if not held:
        return None
    chosen = np.array([place_of[one.symbol] for _, one in held], dtype=np.intp)
    option_book = book_of(model, instruments)
    option_book = option_book.taken(np.searchsorted(valued, chosen))
    option_book = option_book.at({name: spots[name] for name in set(option_book.underlyings) & set(spots)})
    references = model.options.reference[chosen]
    rates = references / model.options.spot[chosen]
    underlyings = tuple(underlying_of(one, instruments) for _, one in held)

    def revalue(moves: Floats, volatility_changes: Floats) -> Floats:
        pnl: Floats = option_book.pnl(moves, volatility_changes) * rates[:, None]
        return pnl

    columns = [model.column.get(underlying.symbol) for underlying in underlyings]
    return Options(
        rows=np.array([row for row, _ in held], dtype=np.intp),
        revalue=revalue,
        references=references,
        prices=np.maximum(option_book.prices(), 0.0) * rates,
        underlyings=underlyings,
        betas=np.array([np.nan if column is None else model.betas[column] for column in columns], dtype=np.float64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """How the factors of one set reach the rows of a book: found once, then any number of paths is arithmetic."""

    factors: tuple[str, ...]
    loadings: Floats
    """(n, f) return in the row's own currency (of an option: of its underlying) per unit of each factor's shock."""
    volatility: NDArray[np.intp]
    """(n,) place of the factor that moves the option's volatility, -1 where none does."""
    pairs: Mapping[str, str]
    """The factor that quotes a foreign currency, for the currencies that one does."""
    names: tuple[tuple[str, ...], ...]
    """(n) the factors that move the row's price (or volatility); empty: none does, only its currency may."""
    unevaluable: Mapping[int, str]
    """Rows that a factor reaches through something that is missing, and what."""

    def returns(self, book: StressBook, shocks: Floats) -> Floats:
        """(n, k) returns in base currency under `shocks` (f, k); NaN in rows that can't be evaluated."""
        local = self.loadings @ shocks
        rates = {
            currency: pair_return(pair, shocks[self.factors.index(pair)], book.base_currency, currency)
            for currency, pair in self.pairs.items()
        }
        returns = joint(book, local, rates)
        if book.options is not None:
            self._revalue(book, book.options, local, shocks, rates, returns)
        returns[list(self.unevaluable)] = np.nan
        return returns

    def _revalue(
        self,
        book: StressBook,
        options: Options,
        local: Floats,
        shocks: Floats,
        rates: Mapping[str, Floats],
        returns: Floats,
    ) -> None:
        paths = shocks.shape[1]
        source = self.volatility[options.rows]
        changes = np.where(source[:, None] >= 0, shocks[source], 0.0)
        returns[options.rows] = options.returns(local[options.rows], changes, fx_rows(book, options.rows, rates, paths))


def joint(book: StressBook, local: Floats, rates: Mapping[str, Floats]) -> Floats:
    """(n, k) returns in base currency, of `local` ones (n, k) and of each currency's rate (k,); a currency that is not
    in `rates` stands still. Linear rows only: those of options are to be overwritten."""
    joined = local.copy()
    for row, instrument in enumerate(book.instruments):
        if instrument.currency in rates:
            joined[row] = joint_return(instrument, local[row], rates[instrument.currency])
    return joined


def fx_rows(book: StressBook, rows: NDArray[np.intp], rates: Mapping[str, Floats], paths: int) -> Floats:
    """(m, k) what the currency of each of these rows returns; 0 where its rate stands still."""
    still = np.zeros(paths)
    found = [rates.get(book.instruments[row].currency, still) for row in rows.tolist()]
    return np.array(found).reshape(len(found), paths)


def reach_of(book: StressBook, factors: Sequence[str], factor_map: FactorMap) -> Reach:
    """Which of `factors` reach which rows of `book`. O(rows); it depends on the names alone, not on the shocks."""
    place = {factor: at for at, factor in enumerate(factors)}
    currencies = {instrument.currency for instrument in book.instruments} - {book.base_currency}
    pairs = {
        currency: pair
        for currency in sorted(currencies)
        if (pair := fx_factor(place, book.base_currency, currency)) is not None
    }
    loadings = np.zeros((len(book), len(factors)))
    volatility = np.full(len(book), -1, dtype=np.intp)
    names: list[tuple[str, ...]] = []
    unevaluable: dict[int, str] = {}
    shocked, betas = _shocked(book)
    for row, instrument in enumerate(shocked):
        if is_cash(instrument):
            names.append((pairs[instrument.currency],) if instrument.currency in pairs else ())
            continue
        try:
            found = local_loadings(instrument, place, factor_map, float(betas[row]))
        except SensitivityMissingError as missing:
            unevaluable[row], found = str(missing), ()
        for factor, loading in found:
            loadings[row, place[factor]] += loading
        names.append(tuple(dict.fromkeys(factor for factor, _ in found)))
    if book.options is not None:
        _reach_volatility(book.options, place, volatility, names)
    unevaluable |= unrevalued(book)
    return Reach(tuple(factors), loadings, volatility, pairs, tuple(names), unevaluable)


def _shocked(book: StressBook) -> tuple[list[Instrument], Floats]:
    """What a price factor moves in each row: an option's underlying, else the instrument itself; and its beta."""
    shocked, betas = list(book.instruments), book.betas
    if book.options is not None:
        betas = betas.copy()
        betas[book.options.rows] = book.options.betas
        for row, underlying in zip(book.options.rows.tolist(), book.options.underlyings, strict=True):
            shocked[row] = underlying
    return shocked, betas


def _reach_volatility(
    options: Options, place: Mapping[str, int], volatility: NDArray[np.intp], names: list[tuple[str, ...]]
) -> None:
    for row, underlying in zip(options.rows.tolist(), options.underlyings, strict=True):
        factor = volatility_factor(underlying.symbol, place)
        if factor is not None:
            volatility[row] = place[factor]
            names[row] = (*names[row], factor)


def unrevalued(book: StressBook) -> dict[int, str]:
    """Options that nobody can revalue: linear in nothing, so no figure is made up for them."""
    linear = book.linear
    return {
        row: "an option, and no revaluation of it is given"
        for row, instrument in enumerate(book.instruments)
        if linear[row] and instrument.asset_class is AssetClass.OPTION
    }


def left_out_warnings(figure: str, left_out: Sequence[LeftOut]) -> list[str]:
    """One warning that names the symbols which `figure` does not count, with the reason of the first; none for none."""
    if not left_out:
        return []
    symbols = ", ".join(dict.fromkeys(row.symbol for row in left_out))
    return [f"{figure}: counts no {symbols}: {left_out[0].reason}"]
