"""The risk model: the return of every instrument under every scenario, as the hot path reads it.

An immutable value, built by build.py, encoded here into a deterministic container (JSON header, then raw little-endian
arrays) and named by the hash of those bytes. Of an option the columns hold P&L per unit, by full revaluation, divided
by a constant reference; what it was valued with stands in `OptionColumns`, which costs a model without options nothing.
No estimation here, and no pickle: a blob comes from the store.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

MAGIC = b"RGMODEL2"
HASH_BYTES = 16


Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class OptionColumns:
    """The options of a model, in column order, and what each was valued with. Every array has shape (n_options,).

    Prices are in the option's currency, per unit of quantity, multiplier 1. NaN in all of them for an option that could
    not be valued; the model's flags and warnings say so. Read-only.
    """

    places: NDArray[np.intp]
    """Their columns in the model, rising."""
    reference: Floats
    """What `returns` and `grid` are to be multiplied by for the P&L per unit in base currency: the underlying's spot
    times the exchange rate, both at the build. Above 0; a constant, so that the columns stay linear in the quantity."""
    spot: Floats
    """Of the underlying."""
    years: Floats
    """To the expiry, ACT/365F; 0 where it is over."""
    rate: Floats
    """Continuously compounded, a fraction a year."""
    carry: Floats
    """rate - dividend yield on a spot, 0 on a future."""
    volatility: Floats
    """A fraction a year."""
    price: Floats
    """At spot and volatility: what P&L is counted from."""
    delta: Floats
    """Units of the underlying per unit."""
    gamma: Floats
    """Change of delta per 1 of the underlying's price."""
    vega: Floats
    """Change of price per volatility point (0.01)."""
    theta: Floats
    """Change of price per calendar day."""
    rho: Floats
    """Change of price per percentage point of the rate (0.01)."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def valued(self) -> NDArray[np.bool_]:
        return np.isfinite(self.price)


OPTION_ARRAYS = tuple(field.name for field in fields(OptionColumns) if field.name != "places")


def option_columns(places: NDArray[np.intp], rows: Floats) -> OptionColumns:
    """From `rows`, shape (len(OPTION_ARRAYS), n_options), in that order."""
    rows.flags.writeable = places.flags.writeable = False
    return OptionColumns(places, **dict(zip(OPTION_ARRAYS, rows, strict=True)))


NO_OPTIONS = option_columns(np.empty(0, dtype=np.intp), np.empty((len(OPTION_ARRAYS), 0)))


@dataclass(frozen=True, slots=True, eq=False)
class RiskModel:
    """Returns and flags per instrument; a column per symbol, a row per scenario.

    `returns` has shape (n_rows, n_symbols): the first `n_days` rows are historical days, oldest first, then one row for
    each of `scenario_names`. Simple returns in the base currency, so P&L of a row = returns @ values at the mark. It is
    column-major (a symbol's returns lie together): use `gather` to take the columns of a book. Arrays are read-only.
    A column holds NaN in the day rows where `has_history` is False, in the scenario rows where `has_factor` is False.
    An option's column is P&L per unit divided by its `reference`: P&L of a row = lots × unit × reference × return, at
    any mark of its own, as long as the underlying is near the `spot` that the column was computed at.
    """

    hash: str
    """blake2b-16 of the encoded bytes, in hex; "" only before encoding."""
    session_date: date
    """Built for this session, from closes strictly before it."""
    last_price_date: date
    """Date of the newest close used; date.min where there was none."""
    built_time_us: int
    base_currency: str
    instrument_set: str
    """Hash of the instrument set it was built for."""
    symbols: tuple[str, ...]
    column: Mapping[str, int]
    returns: NDArray[np.float64]
    n_days: int
    dates: tuple[date, ...]
    """Of the day rows: the date of the later close of each return."""
    scenario_names: tuple[str, ...]
    has_history: NDArray[np.bool_]
    """Shape (n_symbols,). False: VaR and ES of a book that holds it cannot be evaluated."""
    has_factor: NDArray[np.bool_]
    """Shape (n_symbols,). False: stress loss of a book that holds it cannot be evaluated."""
    unaffected: NDArray[np.bool_]
    """Shape (n_symbols,). No factor of any scenario reaches it; has_factor then says whether that was declared fine."""
    grid: NDArray[np.float64]
    """Shape (n_symbols, n_grid): return when its own underlying moves by each grid shock; finite but for an option that
    could not be valued. Where there are options, every spot shock is followed through all `grid_volatilities`: point p
    is spot shock p // k and volatility shock p % k, k their number."""
    betas: NDArray[np.float64]
    """Shape (n_symbols,): beta to the index of its class default, NaN where there is none or it was not estimable."""
    lookback_days: int
    """Days asked for; n_days says how many there were."""
    warnings: tuple[str, ...]
    grid_volatilities: tuple[float, ...] = (0.0,)
    """Changes of the volatility in the grid, a fraction (0.05: five points up)."""
    options: OptionColumns = NO_OPTIONS

    @property
    def n_rows(self) -> int:
        return self.n_days + len(self.scenario_names)

    @property
    def reference(self) -> Floats:
        """(n_symbols,) of `OptionColumns`, NaN for what is no option; the same for `spot` and `volatility`."""
        return self._of_options(self.options.reference, np.nan)

    @property
    def spot(self) -> Floats:
        return self._of_options(self.options.spot, np.nan)

    @property
    def volatility(self) -> Floats:
        return self._of_options(self.options.volatility, np.nan)

    @property
    def delta(self) -> Floats:
        """(n_symbols,) of `OptionColumns`, 1 for what is no option."""
        return self._of_options(self.options.delta, 1.0)

    @property
    def gamma(self) -> Floats:
        """(n_symbols,) of `OptionColumns`, 0 for what is no option; the same for `vega`, `theta` and `rho`."""
        return self._of_options(self.options.gamma, 0.0)

    @property
    def vega(self) -> Floats:
        return self._of_options(self.options.vega, 0.0)

    @property
    def theta(self) -> Floats:
        return self._of_options(self.options.theta, 0.0)

    @property
    def rho(self) -> Floats:
        return self._of_options(self.options.rho, 0.0)

    def _of_options(self, values: Floats, otherwise: float) -> Floats:
        spread = np.full(len(self.symbols), otherwise)
        spread[self.options.places] = values
        return spread

    def gather(self, columns: NDArray[np.intp] | list[int]) -> NDArray[np.float64]:
        """The returns of these columns, shape (n_rows, len(columns)), column-major: four times faster than indexing a
        row-major matrix, and as fast to multiply."""
        return self.returns.T.take(columns, axis=0).T


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session_date: date
    last_price_date: date
    built_time_us: int
    base_currency: str
    instrument_set: str
    symbols: tuple[str, ...]
    dates: tuple[date, ...]
    scenario_names: tuple[str, ...]
    n_grid: int
    grid_volatilities: tuple[float, ...]
    option_places: tuple[int, ...]
    lookback_days: int
    warnings: tuple[str, ...]


def content_hash(encoded: bytes) -> str:
    """The name of a model: blake2b-16 of its encoded bytes, in hex."""
    return hashlib.blake2b(encoded, digest_size=HASH_BYTES).hexdigest()


def encode(model: RiskModel) -> bytes:
    """The same bytes for the same model, on every machine. `model.hash` is not part of them: it is their hash."""
    header = msgspec.json.encode(
        _Header(
            session_date=model.session_date,
            last_price_date=model.last_price_date,
            built_time_us=model.built_time_us,
            base_currency=model.base_currency,
            instrument_set=model.instrument_set,
            symbols=model.symbols,
            dates=model.dates,
            scenario_names=model.scenario_names,
            n_grid=model.grid.shape[1],
            grid_volatilities=model.grid_volatilities,
            option_places=tuple(model.options.places.tolist()),
            lookback_days=model.lookback_days,
            warnings=model.warnings,
        )
    )
    header += b" " * (-(len(MAGIC) + 4 + len(header)) % 8)  # arrays start aligned, so that decoding need not copy
    of_options = [getattr(model.options, name) for name in OPTION_ARRAYS]
    floats = (model.returns.T, model.grid, model.betas, *of_options)
    flags = (model.has_history, model.has_factor, model.unaffected)
    return b"".join(
        (
            MAGIC,
            struct.pack("<I", len(header)),
            header,
            *(_float_bytes(array) for array in floats),
            *(np.ascontiguousarray(array, dtype=np.uint8).tobytes() for array in flags),
        )
    )


def decode(data: bytes, expected_hash: str = "") -> RiskModel:
    """The model in `data`, its hash set; its arrays are read-only views of `data`.

    Raises ValueError on bytes that are no model, are cut short or too long, or, where `expected_hash` is given, do not
    have that hash (a flipped bit inside an array shows only there).
    """
    digest = content_hash(data)
    if expected_hash and digest != expected_hash:
        raise ValueError(f"risk model: expected bytes with hash {expected_hash}, got {digest}")
    header, start = _read_header(data)
    n_symbols, n_days = len(header.symbols), len(header.dates)
    n_rows = n_days + len(header.scenario_names)
    n_options = len(header.option_places)
    counts = (n_symbols * n_rows, n_symbols * header.n_grid, n_symbols, n_options * len(OPTION_ARRAYS))
    expected_bytes = start + 8 * sum(counts) + 3 * n_symbols
    if len(data) != expected_bytes:
        raise ValueError(f"risk model: expected {expected_bytes} bytes, got {len(data)}")
    returns, grid, betas, of_options = _float_arrays(data, start, counts)
    flags = np.frombuffer(data, dtype=np.uint8, offset=start + 8 * sum(counts)).reshape(3, n_symbols)
    if flags.size and flags.max() > 1:
        raise ValueError("risk model: expected flags of 0 or 1")
    return RiskModel(
        hash=digest,
        session_date=header.session_date,
        last_price_date=header.last_price_date,
        built_time_us=header.built_time_us,
        base_currency=header.base_currency,
        instrument_set=header.instrument_set,
        symbols=header.symbols,
        column={symbol: place for place, symbol in enumerate(header.symbols)},
        returns=returns.reshape(n_symbols, n_rows).T,
        n_days=n_days,
        dates=header.dates,
        scenario_names=header.scenario_names,
        has_history=flags[0].view(np.bool_),
        has_factor=flags[1].view(np.bool_),
        unaffected=flags[2].view(np.bool_),
        grid=grid.reshape(n_symbols, header.n_grid),
        betas=betas,
        lookback_days=header.lookback_days,
        warnings=header.warnings,
        grid_volatilities=header.grid_volatilities,
        options=option_columns(
            np.array(header.option_places, dtype=np.intp), of_options.reshape(len(OPTION_ARRAYS), n_options)
        ),
    )


def _read_header(data: bytes) -> tuple[_Header, int]:
    """The header and where the arrays start."""
    prefix = len(MAGIC) + 4
    if len(data) < prefix or not data.startswith(MAGIC):
        raise ValueError("risk model: expected bytes that start with the model's magic, got something else")
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    if prefix + length > len(data):
        raise ValueError(f"risk model: expected a header of {length} bytes, got {len(data) - prefix}")
    try:
        header = msgspec.json.decode(data[prefix : prefix + length], type=_Header)
    except msgspec.DecodeError as error:
        raise ValueError(f"risk model: damaged header: {error}") from error
    if header.n_grid < 1 or len(set(header.symbols)) != len(header.symbols):
        raise ValueError("risk model: damaged header: expected n_grid of 1 or more and each symbol once")
    if not header.grid_volatilities or header.n_grid % len(header.grid_volatilities):
        raise ValueError("risk model: damaged header: expected as many grid points for each of grid_volatilities")
    bounded = (-1, *header.option_places, len(header.symbols))
    if any(left >= right for left, right in pairwise(bounded)):
        raise ValueError("risk model: damaged header: expected option_places that rise, below the number of symbols")
    return header, prefix + length


def _float_bytes(array: Floats) -> bytes:
    """Little-endian bytes in row-major order; every NaN becomes the same one, since its sign bit depends on the CPU."""
    canonical = np.where(np.isnan(array), np.nan, array)
    return np.ascontiguousarray(canonical, dtype="<f8").tobytes()


def _float_arrays(data: bytes, start: int, counts: tuple[int, ...]) -> list[Floats]:
    arrays = []
    for count in counts:
        arrays.append(np.frombuffer(data, dtype="<f8", count=count, offset=start))
        start += 8 * count
    return arrays
