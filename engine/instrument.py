"""What can be traded: an instrument, its grid of lots and ticks, and the sets they come in.

An instrument set is an immutable value, named by the hash of its content; decisions name the set they were made
under. Lot, tick, multiplier and currency of a symbol never change (the log holds integer lots of them); everything
else (sector, issuer, duration, factors, tradeable) may differ from one set to the next.
"""

import datetime
import enum
import hashlib
import math
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

GRID_SLACK = 1e-9
"""How far from a whole number of lots or ticks, relative to the count, still counts as whole (doubles on the wire)."""

LOTS_MAX = 10**12
"""More lots than this in one order or position are refused: sums of them must stay exact in int64 and float64."""

YEARLY_RATE_MAX = 1.0
"""Rates and dividend yields beyond 100 % a year are taken for percentages written as numbers (5 for 5 %)."""

VOLATILITY_MAX = 10.0
"""A volatility beyond 1,000 % is taken for one in percent (20 for 20 %)."""


class AssetClass(enum.StrEnum):
    """The kind of an instrument; it decides how cash settles and which risk factor is its default."""

    EQUITY = "equity"
    FUTURE = "future"
    FX = "fx"
    CRYPTO = "crypto"
    BOND = "bond"
    CREDIT = "credit"
    OPTION = "option"


class OptionRight(enum.StrEnum):
    """What the holder may do with the underlying at the strike."""

    CALL = "call"
    """Buy it."""
    PUT = "put"
    """Sell it."""


class OptionStyle(enum.StrEnum):
    """When the holder may exercise."""

    EUROPEAN = "european"
    """At the expiry alone."""
    AMERICAN = "american"
    """At any time until the expiry."""


class OptionModel(enum.StrEnum):
    """What the underlying costs to carry until the expiry, and so which formula prices the option."""

    BLACK_SCHOLES_MERTON = "black_scholes_merton"
    """A spot (share, index, currency pair, coin): carry = rate - dividend yield."""
    BLACK_76 = "black_76"
    """A future: no carry, the premium is paid at once and discounted."""


class MarketPhase(enum.IntEnum):
    """What a market does with orders in an instrument now. Numbers are those of the contract."""

    UNKNOWN = 0
    """Not told."""
    PRE_OPEN = 1
    OPENING_AUCTION = 2
    CONTINUOUS = 3
    CLOSING_AUCTION = 4
    HALTED = 5
    CLOSED = 6


class InstrumentError(ValueError):
    """An instrument's field is missing or contradictory; `field` names it."""

    def __init__(self, symbol: str, field: str, expected: str) -> None:
        super().__init__(f"instrument {symbol!r}: {field}: {expected}")
        self.symbol, self.field, self.expected = symbol, field, expected


class OptionTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The contract of an option, and what pricing it needs besides prices. The expiry is the instrument's."""

    strike: float
    """In the instrument's currency, per unit of the underlying, > 0."""
    right: OptionRight
    style: OptionStyle
    model: OptionModel
    dividend_yield: float = 0.0
    """Continuously compounded, a fraction a year; of a currency pair the foreign rate. 0: pays none."""
    rate: float | None = None
    """Risk-free rate to the expiry, continuously compounded, a fraction a year; None: that of its currency."""
    volatility: float | None = None
    """A fraction a year, used where prices imply none; None: without implied volatility it can't be valued."""


class Instrument(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One tradeable thing. Value of a position in `currency` = lots × lot_size × multiplier × price."""

    symbol: str
    asset_class: AssetClass
    currency: str
    lot_size: float
    """Units of quantity in one lot, > 0."""
    tick_size: float
    """Price step in `currency`, > 0."""
    multiplier: float = 1.0
    """Money in `currency` per unit of quantity and unit of price, > 0."""
    sector: str = "unassigned"
    issuer: str = ""
    """Whom a single-name limit adds up; empty: the symbol itself."""
    underlying: str = ""
    """Whose spot moves it in the spot grid; empty: the symbol itself. Of an option what it is written on, required: an
    instrument's symbol or the name of a series in the price history."""
    duration: float = 0.0
    """Modified duration in years; bonds."""
    spread_duration: float = 0.0
    """Spread duration in years; credit."""
    spread: float = 0.0
    """Credit spread as a fraction (0.02 = 200 bp); credit."""
    factors: dict[str, float] = {}
    """Declared sensitivities by risk factor; they win over the lookup by name."""
    proxy: str = ""
    """A symbol whose price history stands in where this one's is too short."""
    tradeable: bool = True
    expiry: datetime.date | None = None
    """Last session in which it trades."""
    quantity_min: float = 0.0
    """Least quantity of an order; true reductions are exempt."""
    average_daily_quantity: float = 0.0
    """What is traded on a day, in units; 0: not known."""
    beta: float | None = None
    """To the index that beta exposure is counted in; None: the risk model's."""
    replaces_atomically: bool = False
    """Its venue replaces an order in one step, so that the old and the new one are never both there."""
    option: OptionTerms | None = None
    """Of options, required there."""
    initial_margin: float = 0.0
    """What a lot requires, held or sold short, in `currency`; 0: the policy's rate of its value. Futures."""

    @property
    def unit(self) -> float:
        """Money in `currency` per lot and unit of price."""
        return self.lot_size * self.multiplier

    def lots(self, quantity: float) -> int | None:
        """The whole lots in `quantity` (> 0), or None where it is off the lot grid."""
        return whole_multiple(quantity, self.lot_size)

    def ticks(self, price: float) -> int | None:
        """The whole ticks in `price` (> 0), or None where it is off the tick grid."""
        return whole_multiple(price, self.tick_size)


def whole_multiple(value: float, step: float) -> int | None:
    """`value / step` as an integer where it is one within GRID_SLACK, else None. No float modulo: 0.3 % 0.1 is 0.1."""
    count = value / step
    if not math.isfinite(count):
        return None
    nearest = round(count)
    if nearest == count:
        return nearest
    return nearest if abs(count - nearest) <= GRID_SLACK * max(1.0, abs(nearest)) else None


def check_instrument(instrument: Instrument) -> None:
    """Raise InstrumentError naming the first field that no trading could be built on."""
    for field in ("symbol", "currency"):
        if not getattr(instrument, field).strip():
            raise InstrumentError(instrument.symbol, field, "expected a name, got none")
    for field in ("lot_size", "tick_size", "multiplier"):
        value = getattr(instrument, field)
        if not (math.isfinite(value) and value > 0):
            raise InstrumentError(instrument.symbol, field, f"expected a finite number above 0, got {value}")
    for field in ("duration", "spread_duration", "spread", "quantity_min", "average_daily_quantity", "initial_margin"):
        value = getattr(instrument, field)
        if not (math.isfinite(value) and value >= 0):
            raise InstrumentError(instrument.symbol, field, f"expected a finite number, 0 or above, got {value}")
    if instrument.beta is not None and not math.isfinite(instrument.beta):
        raise InstrumentError(instrument.symbol, "beta", f"expected a finite number, got {instrument.beta}")
    for factor, sensitivity in instrument.factors.items():
        if not math.isfinite(sensitivity):
            raise InstrumentError(
                instrument.symbol, f"factors.{factor}", f"expected a finite number, got {sensitivity}"
            )
    _check_option(instrument)


def _check_option(instrument: Instrument) -> None:
    symbol, terms = instrument.symbol, instrument.option
    if instrument.asset_class is not AssetClass.OPTION:
        if terms is not None:
            raise InstrumentError(symbol, "option", f"expected none, since its class is {instrument.asset_class}")
        return
    if terms is None:
        raise InstrumentError(symbol, "option", "expected strike, right, style and model of the option, got none")
    if not instrument.underlying.strip() or instrument.underlying == symbol:
        raise InstrumentError(symbol, "underlying", "expected what the option is written on, got none or itself")
    if instrument.expiry is None:
        raise InstrumentError(symbol, "expiry", "expected the date on which the option expires, got none")
    for field in ("factors", "proxy"):
        if getattr(instrument, field):
            raise InstrumentError(symbol, field, "expected none for an option: it moves as its underlying does")
    for field, value in (("strike", terms.strike), ("volatility", terms.volatility)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InstrumentError(symbol, f"option.{field}", f"expected a finite number above 0, got {value}")
    for field, value in (("dividend_yield", terms.dividend_yield), ("rate", terms.rate)):
        if value is not None and not abs(value) <= YEARLY_RATE_MAX:
            raise InstrumentError(
                symbol, f"option.{field}", f"expected a fraction a year (0.05 for 5 %), at most 1 in size, got {value}"
            )
    if terms.volatility is not None and terms.volatility > VOLATILITY_MAX:
        raise InstrumentError(
            symbol,
            "option.volatility",
            f"expected a fraction a year (0.2 for 20 %), at most {VOLATILITY_MAX:g}, got {terms.volatility}",
        )
    if terms.model is OptionModel.BLACK_76 and terms.dividend_yield != 0.0:
        raise InstrumentError(symbol, "option.dividend_yield", "expected 0: a future pays no dividend")


FROZEN_FIELDS = ("asset_class", "currency", "lot_size", "tick_size", "multiplier")
"""What may not change once a symbol is registered: logs hold integer lots of it."""

FROZEN_OPTION_FIELDS = ("underlying", "expiry")
"""What, of an option, may not change besides: another contract is another symbol."""

FROZEN_TERMS = ("strike", "right", "style", "model")
"""What of an option's terms may not change; rate, dividend yield and volatility may."""


class InstrumentSet(msgspec.Struct, frozen=True, dict=True):
    """All instruments at one moment, by symbol. Named by `hash`."""

    instruments: dict[str, Instrument] = {}

    def get(self, symbol: str) -> Instrument | None:
        return self.instruments.get(symbol)

    @cached_property
    def hash(self) -> str:
        """blake2b-16 of the canonical encoding, in hex."""
        return hashlib.blake2b(self.encode(), digest_size=16).hexdigest()

    def encode(self) -> bytes:
        return msgspec.json.encode(dict(sorted(self.instruments.items())), order="sorted")

    @staticmethod
    def decode(blob: bytes) -> "InstrumentSet":
        return InstrumentSet(msgspec.json.decode(blob, type=dict[str, Instrument]))

    def with_added(self, added: Iterable[Instrument]) -> "InstrumentSet":
        """This set with `added` in it. Raises InstrumentError where a frozen field of a known symbol would change."""
        merged: dict[str, Instrument] = dict(self.instruments)
        for instrument in added:
            check_instrument(instrument)
            known = merged.get(instrument.symbol)
            if known is not None:
                _refuse_frozen_change(known, instrument)
            merged[instrument.symbol] = instrument
        return InstrumentSet(merged)


def _refuse_frozen_change(known: Instrument, new: Instrument) -> None:
    for field in FROZEN_FIELDS:
        _refuse_change(new.symbol, field, getattr(known, field), getattr(new, field))
    if known.option is not None and new.option is not None:
        for field in FROZEN_OPTION_FIELDS:
            _refuse_change(new.symbol, field, getattr(known, field), getattr(new, field))
        for field in FROZEN_TERMS:
            _refuse_change(new.symbol, f"option.{field}", getattr(known.option, field), getattr(new.option, field))


def _refuse_change(symbol: str, field: str, known: object, new: object) -> None:
    if known != new:
        raise InstrumentError(
            symbol,
            field,
            f"is {known} and cannot become {new}: logs hold lots of it; "
            "register the changed instrument under a new symbol",
        )


def by_symbol(instruments: Iterable[Instrument]) -> Mapping[str, Instrument]:
    return {instrument.symbol: instrument for instrument in instruments}
