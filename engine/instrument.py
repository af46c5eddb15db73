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


class AssetClass(enum.StrEnum):
    """The kind of an instrument; it decides how cash settles and which risk factor is its default."""

    EQUITY = "equity"
    FUTURE = "future"
    FX = "fx"
    CRYPTO = "crypto"
    BOND = "bond"
    CREDIT = "credit"


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
    """Whose spot moves it in the spot grid; empty: the symbol itself."""
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
    for field in ("duration", "spread_duration", "spread", "quantity_min", "average_daily_quantity"):
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


FROZEN_FIELDS = ("asset_class", "currency", "lot_size", "tick_size", "multiplier")
"""What may not change once a symbol is registered: logs hold integer lots of it."""


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
        if getattr(known, field) != getattr(new, field):
            raise InstrumentError(
                new.symbol,
                field,
                f"is {getattr(known, field)} and cannot become {getattr(new, field)}: logs hold lots of it; "
                "register the changed instrument under a new symbol",
            )


def by_symbol(instruments: Iterable[Instrument]) -> Mapping[str, Instrument]:
    return {instrument.symbol: instrument for instrument in instruments}
