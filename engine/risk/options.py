"""Options valued with what the market says now, and revalued in full when spot and volatility move together.

`value_options` turns instruments and prices into an `OptionBook` (implied volatilities, Greeks, faults by name); a book
answers what its options are worth after any moves, aged or not. Volatility stays with the strike: a move of the spot
leaves each option's alone, a change of volatility shifts it in absolute terms. Formulas are those of pricing.py,
implied.py and american.py (imported only where an American option is there: it is slow to load); a model's rows are
chosen by build.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.instrument import (
    AssetClass,
    Instrument,
    OptionModel,
    OptionRight,
    OptionStyle,
    OptionTerms,
)
from engine.risk.factors import match_factor
from engine.risk.implied import ImpliedFailure, implied_volatility
from engine.risk.model import OPTION_ARRAYS, OptionColumns, RiskModel, option_columns
from engine.risk.pricing import DAYS_A_YEAR, Floats, Greeks, expiry_us, greeks, price_of_checked, years_to

if TYPE_CHECKING:
    from engine.risk.american import PremiumSurface

Mask = NDArray[np.bool_]

VOLATILITY_FLOOR = 0.01
"""No change takes a volatility below one point (or below itself, where it is less already): the formulas need some."""

VOLATILITY_CHANGE_MAX = 2.0
"""A shock beyond 200 points is taken for one in points (25 for 25): shocks are fractions."""

VOLATILITY_FACTOR = "VOL"
"""The factor, and the series of the price history, that volatilities follow; of one underlying "VOL_<underlying>"."""

BLOCK_ELEMENTS = 32_768
"""Options × rows priced at once: the dozen arrays of a block stay in a core's cache."""

DAY_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class OptionBook:
    """n options that could be valued. Arrays have shape (n,); prices are in the option's currency, per unit of
    quantity, multiplier 1."""

    symbols: tuple[str, ...]
    underlyings: tuple[str, ...]
    spot: Floats
    strike: Floats
    sign: Floats
    """+1 call, -1 put."""
    years: Floats
    rate: Floats
    carry: Floats
    volatility: Floats
    on_future: Mask
    american: Mask
    surfaces: "tuple[tuple[NDArray[np.intp], PremiumSurface], ...]" = ()
    """Which American options (places in the book) each surface prices."""

    def __len__(self) -> int:
        return len(self.symbols)

    def prices(self) -> Floats:
        """(n,) as they are."""
        return self.values(np.zeros((len(self), 1)))[:, 0]

    def values(
        self, moves: Floats, volatility_changes: Floats | None = None, of: NDArray[np.intp] | None = None
    ) -> Floats:
        """(n, k) prices after each of k joint moves, at once.

        `moves` (m, k): simple returns of the underlyings; below -1 counts as -1, what is held can't be worth less than
        nothing. `volatility_changes` (m, k): absolute, 0.01 is a point; none: unchanged. `of` (n,): which of the m
        rows an option follows; none: m = n, each its own. Raises ValueError on shapes that disagree and on moves that
        are not finite.
        """
        n = len(self)
        rows = np.arange(n) if of is None else of
        if moves.ndim != 2 or rows.shape != (n,) or (of is None and len(moves) != n):
            raise ValueError(f"moves: expected shape (n, k) with n = {n} options, got {moves.shape}")
        if volatility_changes is not None and volatility_changes.shape != moves.shape:
            raise ValueError(f"volatility_changes: expected shape {moves.shape}, got {volatility_changes.shape}")
        for name, given in (("moves", moves), ("volatility_changes", volatility_changes)):
            if given is not None and not np.isfinite(given).all():
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        worth = np.empty((n, moves.shape[1]))
        factors = np.maximum(1.0 + moves, 0.0)
        size = max(1, BLOCK_ELEMENTS // max(1, moves.shape[1]))
        for start in range(0, n, size):
            block = slice(start, start + size)
            spot = factors[rows[block]] * self.spot[block, None]
            changes = None if volatility_changes is None else volatility_changes[rows[block]]
            worth[block] = price_of_checked(
                spot,
                self.strike[block, None],
                self.years[block, None],
                self._volatility(block, changes),
                self.rate[block, None],
                self.carry[block, None],
                self.sign[block, None],
            )
        for places, surface in self.surfaces:
            changes = None if volatility_changes is None else volatility_changes[rows[places]]
            spot = factors[rows[places]] * self.spot[places, None]
            volatility = np.broadcast_to(self._volatility(places, changes), spot.shape)
            strike = np.broadcast_to(self.strike[places, None], spot.shape)
            worth[places] = surface.price(spot, strike, volatility, worth[places])
        return worth

    def pnl(
        self, moves: Floats, volatility_changes: Floats | None = None, of: NDArray[np.intp] | None = None
    ) -> Floats:
        """(n, k) change of `prices` under each move; arguments and errors as of `values`."""
        return self.values(moves, volatility_changes, of) - self.prices()[:, None]

    def greeks(self) -> Greeks:
        """(n,) per unit; prices and sensitivities of American options by american.american_greeks."""
        found = greeks(
            self.spot, self.strike, self.years, self.volatility, self.rate, self.carry, self.sign, self.on_future
        )
        places = np.flatnonzero(self.american)
        if not places.size:
            return found
        from engine.risk.american import american_greeks

        exact = american_greeks(*(getattr(self, name)[places] for name in (*_FORMULA, "on_future")))
        for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
            getattr(found, name)[places] = getattr(exact, name)
        return found

    def at(self, spots: Mapping[str, float]) -> "OptionBook":
        """The same options at other spots by underlying (above 0), each volatility staying with its strike; those of
        underlyings that are not named keep theirs."""
        moved = [spots.get(name, float(now)) for name, now in zip(self.underlyings, self.spot, strict=True)]
        spot = np.array(moved, dtype=np.float64)
        if not (np.isfinite(spot) & (spot > 0)).all():
            raise ValueError("spots: expected finite prices above 0")
        return replace(self, spot=spot)

    def aged(self, days: float) -> "OptionBook":
        """The same options so many calendar days later, ended where that is past their expiry. Raises ValueError where
        days is not 0 or more."""
        if not (np.isfinite(days) and days >= 0):
            raise ValueError(f"days: expected a finite number, 0 or above, got {days}")
        return _with_surfaces(replace(self, years=np.maximum(self.years - days / DAYS_A_YEAR, 0.0), surfaces=()))

    def taken(self, places: NDArray[np.intp]) -> "OptionBook":
        """These options alone, in the order given; American ones keep their surfaces."""
        kept = {place: at for at, place in enumerate(places.tolist())}
        surfaces = []
        for members, surface in self.surfaces:
            moved = [kept[place] for place in members.tolist() if place in kept]
            if moved:
                surfaces.append((np.array(moved, dtype=np.intp), surface))
        return OptionBook(
            symbols=tuple(self.symbols[place] for place in places.tolist()),
            underlyings=tuple(self.underlyings[place] for place in places.tolist()),
            **{name: getattr(self, name)[places] for name in (*_FORMULA, "on_future", "american")},
            surfaces=tuple(surfaces),
        )

    @property
    def interpolation_error(self) -> float:
        """The largest stated error of the surfaces, as a fraction of the strike; 0 without American options."""
        return max((surface.error for _, surface in self.surfaces), default=0.0)

    def _volatility(self, places: "NDArray[np.intp] | slice", changes: Floats | None) -> Floats:
        volatility: Floats = self.volatility[places, None]
        if changes is None:
            return volatility
        return np.maximum(volatility + changes, np.minimum(volatility, VOLATILITY_FLOOR))


_FORMULA = ("spot", "strike", "years", "volatility", "rate", "carry", "sign")
"""The arguments of pricing.price, in its order."""


@dataclass(frozen=True, slots=True, eq=False)
class OptionMarket:
    """What options are valued with. Prices by symbol, in the symbol's currency."""

    now_us: int
    """The time of the marks and of the valuation."""
    marks: Mapping[str, float]
    closes: Mapping[str, float]
    """The last close of every instrument and series."""
    closes_date: date
    """Whose closes they are; prices imply a volatility as of the end of that date."""
    rates: Mapping[str, float]
    """Risk-free rate by currency, continuously compounded, a fraction a year."""


@dataclass(frozen=True, slots=True, eq=False)
class ValuedOptions:
    """The options that could be valued, why the others couldn't, and what a reader should know."""

    book: OptionBook
    faults: Mapping[str, str]
    """By symbol; none of these is in the book."""
    warnings: tuple[str, ...]


def valuation_us(session_date: date, built_time_us: int) -> int:
    """The instant at which a session's model values its options: the build, held within the session's date (UTC).

    A session can outlive its date (a weekend) or be long past (a simulation); its options are those of its date.
    """
    start = int(datetime(session_date.year, session_date.month, session_date.day, tzinfo=UTC).timestamp()) * 1_000_000
    return min(max(built_time_us, start), start + DAY_US)


def underlying_of(option: Instrument, instruments: Mapping[str, Instrument]) -> Instrument:
    """The instrument an option is written on; a series of the price history stands as one of the option's currency."""
    known = instruments.get(option.underlying)
    if known is not None:
        return known
    on_future = option.option is not None and option.option.model is OptionModel.BLACK_76
    asset_class = AssetClass.FUTURE if on_future else AssetClass.EQUITY
    return Instrument(option.underlying, asset_class, option.currency, lot_size=1.0, tick_size=0.01)


def value_options(
    options: Sequence[Instrument], instruments: Mapping[str, Instrument], market: OptionMarket
) -> ValuedOptions:
    """Value every option that can be. `instruments`: all of them, underlyings included.

    The volatility is implied by the option's price and its underlying's, both marks or both closes of one date, never
    one of each; else it is that of the option of the other right at the same strike and expiry (put-call parity); else
    the option's own `volatility`. Without any, or without spot or rate, the option is a fault.
    """
    faults: dict[str, str] = {}
    quotes: list[_Quote] = []
    for option in options:
        quote = _quote(option, instruments, market)
        if isinstance(quote, str):
            faults[option.symbol] = quote
        else:
            quotes.append(quote)
    volatility, why = _volatilities(quotes)
    warnings = _fallback_warnings(quotes, volatility)
    for place, quote in enumerate(quotes):
        if np.isnan(volatility[place]):
            volatility[place] = quote.fallback
    faults |= {q.symbol: why[at] for at, q in enumerate(quotes) if np.isnan(volatility[at])}
    kept = np.flatnonzero(np.isfinite(volatility))
    book = _with_surfaces(_book([quotes[place] for place in kept.tolist()], volatility[kept]))
    return ValuedOptions(book, faults, (*warnings, *_american_warnings(book)))


@dataclass(frozen=True, slots=True)
class _Quote:
    """One option and the prices that may tell its volatility, NaN where there are none."""

    symbol: str
    underlying: str
    expiry: date
    terms: OptionTerms
    tick_size: float
    spot: float
    years: float
    rate: float
    carry: float
    seen_price: float
    seen_spot: float
    seen_years: float

    @property
    def sign(self) -> float:
        return 1.0 if self.terms.right is OptionRight.CALL else -1.0

    @property
    def american(self) -> bool:
        return self.terms.style is OptionStyle.AMERICAN

    @property
    def fallback(self) -> float:
        """What it is valued with where prices say nothing; once it has ended, no volatility matters."""
        if self.years <= 0.0:
            return 0.0
        return float("nan") if self.terms.volatility is None else self.terms.volatility


def _quote(option: Instrument, instruments: Mapping[str, Instrument], market: OptionMarket) -> _Quote | str:
    """The option with its inputs, or which of them is missing."""
    terms, expiry = option.option, option.expiry
    if terms is None or expiry is None:
        return "it has no option terms or no expiry"
    underlying = underlying_of(option, instruments)
    contradiction = _contradiction(option, terms, underlying)
    if contradiction:
        return contradiction
    spot = _price(option.underlying, market.marks, market.closes)
    if spot is None:
        return f"neither a mark nor a last close of its underlying {option.underlying}"
    rate = terms.rate if terms.rate is not None else market.rates.get(option.currency)
    if rate is None:
        return f"no rate: it declares none, and none is configured for {option.currency}"
    years = years_to(expiry, market.now_us)
    if expiry < _day(market.now_us - 1):
        return f"it expired on {expiry}"
    carry = 0.0 if terms.model is OptionModel.BLACK_76 else rate - terms.dividend_yield
    if terms.style is OptionStyle.AMERICAN and _two_boundaries(rate, rate - carry, terms.right):
        return f"American at a rate of {rate:g} and a dividend yield of {rate - carry:g}: no method prices it"
    seen = _seen(option.symbol, option.underlying, expiry, market)
    return _Quote(
        symbol=option.symbol,
        underlying=option.underlying,
        expiry=expiry,
        terms=terms,
        tick_size=option.tick_size,
        spot=spot,
        years=max(years, 0.0),
        rate=rate,
        carry=carry,
        seen_price=seen[0],
        seen_spot=seen[1],
        seen_years=seen[2],
    )


def _two_boundaries(rate: float, dividend_yield: float, right: OptionRight) -> bool:
    """Whether exercise pays only between two boundaries (american.EarlyExerciseError)."""
    if right is OptionRight.CALL:
        return rate < dividend_yield < 0.0
    return dividend_yield < rate < 0.0


_SPOT_CLASSES = frozenset({AssetClass.EQUITY, AssetClass.FX, AssetClass.CRYPTO})


def _contradiction(option: Instrument, terms: OptionTerms, underlying: Instrument) -> str:
    classes = frozenset({AssetClass.FUTURE}) if terms.model is OptionModel.BLACK_76 else _SPOT_CLASSES
    if underlying.asset_class not in classes:
        return (
            f"{terms.model} does not price options on {underlying.symbol}, which is of class {underlying.asset_class}"
        )
    if underlying.currency != option.currency:
        return f"priced in {option.currency}, its underlying {underlying.symbol} in {underlying.currency}"
    return ""


def _price(symbol: str, *sources: Mapping[str, float]) -> float | None:
    for source in sources:
        price = source.get(symbol)
        if price is not None and np.isfinite(price) and price > 0:
            return float(price)
    return None


def _day(time_us: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).date()


def _seen(symbol: str, underlying: str, expiry: date, market: OptionMarket) -> tuple[float, float, float]:
    """Prices of option and underlying from one source, and the time to expiry as of then."""
    for source, time_us in ((market.marks, market.now_us), (market.closes, expiry_us(market.closes_date))):
        price, spot = _price(symbol, source), _price(underlying, source)
        if price is not None and spot is not None:
            return price, spot, years_to(expiry, time_us)
    return (float("nan"),) * 3


def _volatilities(quotes: Sequence[_Quote]) -> tuple[Floats, list[str]]:
    """(n,) implied ones, NaN where there is none, and why there is none."""
    volatility = np.full(len(quotes), np.nan)
    why = ["no price of it with one of its underlying, and it declares no volatility"] * len(quotes)
    for american in (False, True):
        places = [at for at, q in enumerate(quotes) if q.american is american and np.isfinite(q.seen_price)]
        if not places:
            continue
        chosen = [quotes[at] for at in places]
        volatility[places], failures = _implied(chosen, american)
        for at, failure in zip(places, failures.tolist(), strict=True):
            if failure:
                said = ImpliedFailure(failure).name.lower().replace("_", " ")
                why[at] = f"its price {quotes[at].seen_price:g} implies no volatility ({said}), and it declares none"
    _take_from_twins(quotes, volatility)
    return volatility, why


def _implied(quotes: Sequence[_Quote], american: bool) -> tuple[Floats, NDArray[np.uint8]]:
    arguments = [
        np.array([getattr(q, name) for q in quotes], dtype=np.float64)
        for name in ("seen_price", "seen_spot", "seen_years", "rate", "carry", "sign", "tick_size")
    ]
    price, spot, years, rate, carry, sign, tick = arguments
    strike = np.array([q.terms.strike for q in quotes], dtype=np.float64)
    if not american:
        found = implied_volatility(price, spot, strike, years, rate, carry, sign, price_slack=0.5 * tick)
        return found.volatility, found.failure
    from engine.risk.american import implied_american

    found = implied_american(price, spot, strike, years, rate, carry, sign, price_slack=0.5 * tick)
    return found.volatility, found.failure


def _take_from_twins(quotes: Sequence[_Quote], volatility: Floats) -> None:
    """Deep in the money a price says nothing, but the other right at that strike is out of the money then."""
    implied = {
        (q.underlying, q.expiry, q.terms.strike, q.terms.style, q.terms.model, q.sign): volatility[at]
        for at, q in enumerate(quotes)
        if np.isfinite(volatility[at])
    }
    for at, q in enumerate(quotes):
        if np.isnan(volatility[at]) and q.years > 0:
            twin = (q.underlying, q.expiry, q.terms.strike, q.terms.style, q.terms.model, -q.sign)
            volatility[at] = implied.get(twin, np.nan)


def _fallback_warnings(quotes: Sequence[_Quote], volatility: Floats) -> list[str]:
    """One for each underlying, however many strikes."""
    all_of: dict[str, int] = {}
    declared: dict[str, int] = {}
    for at, q in enumerate(quotes):
        all_of[q.underlying] = all_of.get(q.underlying, 0) + 1
        if np.isnan(volatility[at]) and np.isfinite(q.fallback) and q.years > 0:
            declared[q.underlying] = declared.get(q.underlying, 0) + 1
    return [
        f"{name}: {count} of {all_of[name]} options at their declared volatility: no prices imply one"
        for name, count in declared.items()
    ]


def _american_warnings(book: OptionBook) -> list[str]:
    errors: dict[str, float] = {}
    for places, surface in book.surfaces:
        for place in places.tolist():
            name = book.underlyings[place]
            errors[name] = max(errors.get(name, 0.0), surface.error)
    return [
        f"{name}: American options by interpolation, to {error:.1e} of the strike" for name, error in errors.items()
    ]


def _book(quotes: Sequence[_Quote], volatility: Floats) -> OptionBook:
    def column(values: Iterable[float]) -> Floats:
        return np.fromiter(values, dtype=np.float64, count=len(quotes))

    return OptionBook(
        symbols=tuple(q.symbol for q in quotes),
        underlyings=tuple(q.underlying for q in quotes),
        spot=column(q.spot for q in quotes),
        strike=column(q.terms.strike for q in quotes),
        sign=column(q.sign for q in quotes),
        years=column(q.years for q in quotes),
        rate=column(q.rate for q in quotes),
        carry=column(q.carry for q in quotes),
        volatility=volatility,
        on_future=np.array([q.terms.model is OptionModel.BLACK_76 for q in quotes], dtype=np.bool_),
        american=np.array([q.american for q in quotes], dtype=np.bool_),
    )


def _groups(book: OptionBook) -> dict[tuple[float, float, float, float], list[int]]:
    """The American options that are still alive, by what they share a surface for: time, rate, carry and right."""
    groups: dict[tuple[float, float, float, float], list[int]] = {}
    for place in np.flatnonzero(book.american & (book.years > 0)).tolist():
        key = (book.years.item(place), book.rate.item(place), book.carry.item(place), book.sign.item(place))
        groups.setdefault(key, []).append(place)
    return groups


def _with_surfaces(book: OptionBook) -> OptionBook:
    groups = _groups(book)
    if not groups:
        return book
    from engine.risk.american import premium_surface

    surfaces = [
        (places, premium_surface(*key, book.spot[places] / book.strike[places], book.volatility[places]))
        for key, members in groups.items()
        for places in (np.array(members, dtype=np.intp),)
    ]
    return replace(book, surfaces=tuple(surfaces))


def columns_of(book: OptionBook, places: NDArray[np.intp], found: NDArray[np.intp], rates: Floats) -> OptionColumns:
    """What a model keeps of its options: `places` (n_options,) their columns, `found` (n,) which of them the book
    holds, `rates` (n,) base currency per unit of each one's own."""
    rows = np.full((len(OPTION_ARRAYS), len(places)), np.nan)
    if len(book):
        sensitivities = book.greeks()
        values = {name: getattr(sensitivities, name) for name in ("delta", "gamma", "vega", "theta", "rho")}
        values |= {name: getattr(book, name) for name in ("spot", "years", "rate", "carry", "volatility")}
        values |= {"reference": book.spot * rates, "price": book.prices()}
        rows[:, found] = [values[name] for name in OPTION_ARRAYS]
    return option_columns(places, rows)


def book_of(model: RiskModel, instruments: Mapping[str, Instrument]) -> OptionBook:
    """The options of a model as it valued them, to be revalued under any moves, aged, or taken to other spots.

    `instruments`: at least the options among those the model was built for. Raises ValueError where one of them is
    missing or no option.
    """
    valued = np.flatnonzero(model.options.valued)
    symbols = [model.symbols[place] for place in model.options.places[valued].tolist()]
    known: list[tuple[Instrument, OptionTerms]] = []
    for symbol in symbols:
        instrument = instruments.get(symbol)
        if instrument is None or instrument.option is None:
            raise ValueError(f"instruments: expected the option {symbol}, which the model has valued")
        known.append((instrument, instrument.option))
    book = OptionBook(
        symbols=tuple(symbols),
        underlyings=tuple(instrument.underlying for instrument, _ in known),
        strike=np.array([terms.strike for _, terms in known], dtype=np.float64),
        sign=np.array([1.0 if terms.right is OptionRight.CALL else -1.0 for _, terms in known], dtype=np.float64),
        on_future=np.array([terms.model is OptionModel.BLACK_76 for _, terms in known], dtype=np.bool_),
        american=np.array([terms.style is OptionStyle.AMERICAN for _, terms in known], dtype=np.bool_),
        **{name: getattr(model.options, name)[valued] for name in ("spot", "years", "rate", "carry", "volatility")},
    )
    return _with_surfaces(book)


def volatility_factor(underlying: str, names: Iterable[str]) -> str | None:
    """Which of `names` says how the volatility of an underlying moves: "VOL_<underlying>", else "VOL", else None."""
    return match_factor(f"{VOLATILITY_FACTOR}_{underlying}", frozenset(names))


def volatility_shock(underlying: str, shocks: Mapping[str, float]) -> float | None:
    """The change of volatility of an underlying in a stress scenario, absolute (0.10: ten points up); None where none.

    Raises ValueError beyond VOLATILITY_CHANGE_MAX.
    """
    factor = volatility_factor(underlying, shocks)
    if factor is None:
        return None
    if abs(shocks[factor]) > VOLATILITY_CHANGE_MAX:
        raise ValueError(
            f"{factor}: expected a change of volatility as a fraction (0.1: ten points), got {shocks[factor]}"
        )
    return shocks[factor]


def volatility_changes(levels: Floats) -> Floats | str:
    """(T,) daily changes as fractions from (T+1,) levels of an index in points, as the VIX is quoted (20 = 20 %),
    oldest first; else what is wrong with them."""
    if not np.isfinite(levels).all():
        return "days without a level"
    if (levels < 1.0).any():
        return f"expected volatility points as the VIX is quoted (20 = 20 %), got {float(levels.min()):g}"
    return np.diff(levels) / 100.0
