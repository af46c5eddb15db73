"""How a shock of a risk factor becomes the return of an instrument.

Sensitivities that the instrument declares win. Else, in each scenario for itself, the factor is looked up: the exact
name, then the longest prefix ("DI_PRE_365" finds "DI_PRE"), of the symbol and then of its underlying; last the default
of the asset class. Here also: how a move of the exchange rate joins, and the ±spot grid of every underlying.
Estimation (betas) and arrays over all instruments belong to build.py.
"""

import enum
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument

Returns = TypeVar("Returns", float, NDArray[np.float64])


class FactorKind(enum.StrEnum):
    """What a shock is a change of, and so what return it brings, per unit of sensitivity (1 where none is given)."""

    PRICE = "price"
    """Return = shock."""
    YIELD = "yield"
    """Shock in absolute yield (0.01 = 100 bp). Return = -duration·shock."""
    RELATIVE_SPREAD = "relative_spread"
    """Shock as a fraction of the spread. Return = -spread_duration·spread·shock."""


@dataclass(frozen=True, slots=True)
class ClassDefault:
    """The factor of an asset class in one currency, for instruments that no name reaches."""

    asset_class: AssetClass
    currency: str
    factor: str
    sensitivity: float | None = None
    """None: the beta of the instrument to the factor's own price history."""


SHIPPED_KINDS: Mapping[str, FactorKind] = {
    "DI_PRE": FactorKind.YIELD,
    "UST_NOM": FactorKind.YIELD,
    "CDS_BR": FactorKind.RELATIVE_SPREAD,
}
SHIPPED_CLASS_DEFAULTS = (ClassDefault(AssetClass.EQUITY, "USD", "SP500"),)


class SensitivityMissingError(ValueError):
    """A factor reaches the instrument, but the field or history that its sensitivity comes from is missing."""


@dataclass(frozen=True, slots=True)
class FactorMap:
    """The kinds of factors (by name or prefix; PRICE where none matches) and the defaults of asset classes."""

    kinds: Mapping[str, FactorKind] = field(default_factory=lambda: SHIPPED_KINDS)
    class_defaults: tuple[ClassDefault, ...] = SHIPPED_CLASS_DEFAULTS

    def kind(self, factor: str) -> FactorKind:
        match = match_factor(factor, self.kinds)
        return FactorKind.PRICE if match is None else self.kinds[match]

    def class_default(self, instrument: Instrument) -> ClassDefault | None:
        for default in self.class_defaults:
            if (default.asset_class, default.currency) == (instrument.asset_class, instrument.currency):
                return default
        return None


def match_factor(name: str, factors: Container[str]) -> str | None:
    """The factor called `name`, else the longest that is a prefix of it up to an underscore, else None."""
    while name not in factors:
        name, boundary, _ = name.rpartition("_")
        if not boundary:
            return None
    return name


def local_return(
    instrument: Instrument, shocks: Mapping[str, float], factor_map: FactorMap, beta: float
) -> float | None:
    """The return of `instrument` in its own currency under one scenario; None where no shock reaches it.

    `beta`: to the factor of its class default, NaN where unknown. Linear and not floored at -1: a beta of 3 in a fall
    of 35 % loses 105 %. Raises SensitivityMissingError where a shock reaches it through a sensitivity that is missing;
    an assumed one would be a guess.
    """
    loadings = local_loadings(instrument, shocks, factor_map, beta)
    total = 0.0
    for factor, sensitivity in loadings:
        total += sensitivity * shocks[factor]  # sum() compensates from Python 3.12 on: other bytes in the model
    return total if loadings else None


def local_loadings(
    instrument: Instrument, factors: Container[str], factor_map: FactorMap, beta: float
) -> tuple[tuple[str, float], ...]:
    """Which of `factors` reach `instrument`, and its return in its own currency per unit of each one's shock.

    Empty where none does; a factor stands twice where two declared names find it. Raises as `local_return` does.
    """
    if instrument.factors:
        return _declared_loadings(instrument, factors, factor_map)
    for name in (instrument.symbol, instrument.underlying):
        factor = match_factor(name, factors)
        if factor is not None:
            return ((factor, _sensitivity(instrument, factor_map.kind(factor), factor)),)
    default = factor_map.class_default(instrument)
    if default is None or default.factor not in factors:
        return ()
    sensitivity = beta if default.sensitivity is None else default.sensitivity
    if np.isnan(sensitivity):
        raise SensitivityMissingError(f"no beta to {default.factor} could be estimated")
    return ((default.factor, sensitivity * _sensitivity(instrument, factor_map.kind(default.factor), default.factor)),)


def _declared_loadings(
    instrument: Instrument, factors: Container[str], factor_map: FactorMap
) -> tuple[tuple[str, float], ...]:
    loadings = []
    for name, sensitivity in instrument.factors.items():
        factor = match_factor(name, factors)
        if factor is not None:
            loadings.append((factor, sensitivity * _sensitivity(instrument, factor_map.kind(factor), factor)))
    return tuple(loadings)


def _sensitivity(instrument: Instrument, kind: FactorKind, factor: str) -> float:
    """Return per unit of shock. A duration of 0 means not given: a bond that no yield can move is a fault."""
    match kind:
        case FactorKind.PRICE:
            return 1.0
        case FactorKind.YIELD:
            if instrument.duration == 0.0:
                raise SensitivityMissingError(f"{factor} reaches it, but no duration is given")
            return -instrument.duration
        case FactorKind.RELATIVE_SPREAD:
            if instrument.spread_duration * instrument.spread == 0.0:
                raise SensitivityMissingError(f"{factor} reaches it, but no spread_duration and spread are given")
            return -instrument.spread_duration * instrument.spread


def is_cash(instrument: Instrument) -> bool:
    """Foreign cash as an instrument: asset class fx, and the symbol is the currency itself ("BRL")."""
    return instrument.asset_class is AssetClass.FX and instrument.symbol == instrument.currency


def fx_return(shocks: Mapping[str, float], base_currency: str, currency: str) -> float | None:
    """The return of `currency` seen from the base under one scenario; None where no shock moves it.

    USDBRL +15 % seen from USD makes the real worth 1/1.15 - 1 = -13.04 %.
    """
    if currency == base_currency:
        return 0.0
    pair = fx_factor(shocks, base_currency, currency)
    return None if pair is None else pair_return(pair, shocks[pair], base_currency, currency)


def fx_factor(factors: Container[str], base_currency: str, currency: str) -> str | None:
    """Which of `factors` (or price series) quotes `currency` against the base: USDBRL, else BRLUSD, else None."""
    for pair in (base_currency + currency, currency + base_currency):
        if pair in factors:
            return pair
    return None


def pair_return(pair: str, shock: Returns, base_currency: str, currency: str) -> Returns:
    """The return of `currency` seen from the base when the pair that quotes it moves by `shock` (above -1)."""
    return 1.0 / (1.0 + shock) - 1.0 if pair == base_currency + currency else shock


def joint_return(instrument: Instrument, local: Returns, fx: Returns) -> Returns:
    """The return in the base currency on the value at today's rate, of a local and an exchange-rate return together.

    A funded position (equity, bond, credit, crypto, cash) is itself worth foreign money: (1 + r)(1 + fx) - 1.
    A future and a currency pair only settle their gain in it: r·(1 + fx).
    """
    if instrument.asset_class is AssetClass.FUTURE or (
        instrument.asset_class is AssetClass.FX and not is_cash(instrument)
    ):
        return local * (1.0 + fx)
    return local + fx + local * fx  # the product, less 1, and exactly `local` where the rate stands still


@dataclass(frozen=True, slots=True)
class GridShocks:
    """The moves of an underlying of one asset class; all classes have equally many."""

    kind: FactorKind
    shocks: tuple[float, ...]


_STOCK_GRID = GridShocks(FactorKind.PRICE, (-0.20, -0.10, 0.10, 0.20))
GRID_SHOCKS: Mapping[AssetClass, GridShocks] = {
    AssetClass.EQUITY: _STOCK_GRID,
    AssetClass.FUTURE: _STOCK_GRID,
    AssetClass.FX: GridShocks(FactorKind.PRICE, (-0.10, -0.05, 0.05, 0.10)),
    AssetClass.CRYPTO: GridShocks(FactorKind.PRICE, (-0.40, -0.20, 0.20, 0.40)),
    AssetClass.BOND: GridShocks(FactorKind.YIELD, (-0.02, -0.01, 0.01, 0.02)),
    AssetClass.CREDIT: GridShocks(FactorKind.RELATIVE_SPREAD, (-0.50, -0.25, 0.25, 0.50)),
}


def check_grid(grid: Mapping[AssetClass, GridShocks]) -> int:
    """The number of shocks, the same for every class. Raises ValueError where a class is missing or differs. Options
    need none: they move by their underlying's."""
    priced = [asset_class for asset_class in AssetClass if asset_class is not AssetClass.OPTION]
    missing = [asset_class.value for asset_class in priced if asset_class not in grid]
    if missing:
        raise ValueError(f"grid: expected shocks for every asset class, got none for {', '.join(missing)}")
    sizes = {len(row.shocks) for row in grid.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"grid: expected equally many shocks for every asset class, got {sorted(sizes)}")
    if not all(np.isfinite(shock) and shock > -1.0 for row in grid.values() for shock in row.shocks):
        raise ValueError("grid: expected finite shocks above -1 (-0.2 for -20 %)")
    return sizes.pop()


def grid_row(underlying: Instrument, grid: Mapping[AssetClass, GridShocks]) -> tuple[float, GridShocks]:
    """The shocks that move `underlying`, and its return per unit of them: those of its class, else a stock's."""
    row = grid[underlying.asset_class]
    try:
        return _sensitivity(underlying, row.kind, "grid"), row
    except SensitivityMissingError:
        return 1.0, grid[AssetClass.EQUITY]


def grid_returns(
    underlying: Instrument, grid: Mapping[AssetClass, GridShocks], base_currency: str
) -> tuple[float, ...]:
    """The returns of `underlying` in the base currency at each of its grid shocks, other exchange rates unchanged.

    A bond without duration, or credit without spread, moves like a stock: coarse, but a loss for either side.
    """
    unit, row = grid_row(underlying, grid)
    if underlying.symbol != base_currency + underlying.currency:
        return tuple(unit * shock for shock in row.shocks)
    # The pair that quotes the base in this currency: when it moves, so does what its gain is worth.
    return tuple(joint_return(underlying, unit * shock, 1.0 / (1.0 + shock) - 1.0) for shock in row.shocks)
