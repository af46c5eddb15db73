"""Builds a risk model from instruments, closes and scenarios. Point in time: only closes before the session count.

Nothing is filled in: an instrument without a full, faultless history (or a declared proxy with one) has no history,
one whose factor or sensitivity is missing has no factor, and each of them says why in `warnings`. Order-time arithmetic
belongs to the measures, VaR of a loss vector to var.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument
from engine.risk.factors import (
    GRID_SHOCKS,
    FactorMap,
    GridShocks,
    SensitivityMissingError,
    check_grid,
    fx_return,
    grid_returns,
    is_cash,
    joint_return,
    local_return,
    match_factor,
)
from engine.risk.history import PriceHistory
from engine.risk.model import RiskModel, content_hash, encode
from engine.risk.scenarios import SIX_SCENARIOS, Scenario, check_scenarios

Unmapped = Literal["unevaluable", "zero"]
"""What an instrument that no factor reaches does to stress: reject while a limit is armed, or count as unmoved.
One that a factor does reach, but whose beta, duration or spread is missing, is a fault and unevaluable either way."""

LOOKBACK_DAYS = 756
"""Three years of 252 days."""

HISTORY_DAYS_MIN = 250
"""A Basel year; with fewer days the 99 % tail would hold less than three observations."""

JUMP_MIN = 0.50
"""A daily move beyond this is reported: more often an unadjusted split than a market (RRC on 1990-04-10)."""

UNCHANGED_SHARE_MAX = 0.20
"""More days without any move than this are reported: the closes are stale or coarsely rounded, the VaR too low."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Series:
    """Every price series of the window, instruments' and indices' alike; returns of the faultless ones."""

    returns: Mapping[str, Floats]
    faults: Mapping[str, str]

    def fault(self, name: str) -> str:
        return self.faults.get(name, "no closes in the price history")


def build_model(
    instruments: Mapping[str, Instrument],
    instrument_set: str,
    prices: PriceHistory,
    session_date: date,
    built_time_us: int,
    lookback_days: int = LOOKBACK_DAYS,
    scenarios: Sequence[Scenario] = SIX_SCENARIOS,
    factor_map: FactorMap | None = None,
    grid: Mapping[AssetClass, GridShocks] = GRID_SHOCKS,
    unmapped: Unmapped = "unevaluable",
    base_currency: str = "USD",
) -> RiskModel:
    """The model for `session_date`, hash included: a column per instrument, symbols in order.

    `lookback_days` returns need one close more. Raises ValueError on arguments that no model could be built from;
    faults of single instruments are flags and warnings of the model.
    """
    if lookback_days < 1:
        raise ValueError(f"lookback_days: expected 1 or more, got {lookback_days}")
    check_scenarios(scenarios)
    factor_map = factor_map or FactorMap()
    ordered = [instruments[symbol] for symbol in sorted(instruments)]
    window = prices.window(session_date, lookback_days + 1)
    n_days = max(0, len(window.dates) - 1)
    warnings = _length_warnings(n_days, lookback_days)
    series = _returns(window)

    days, has_history = _day_rows(ordered, series, n_days, base_currency, warnings)
    betas = _betas(ordered, series, has_history, factor_map, warnings)
    stress, has_factor, unaffected = _stress_rows(
        ordered, scenarios, factor_map, betas, unmapped, base_currency, warnings
    )
    returns = np.concatenate((days, stress), axis=1).T
    model = RiskModel(
        hash="",
        session_date=session_date,
        last_price_date=window.dates[-1] if window.dates else date.min,
        built_time_us=built_time_us,
        base_currency=base_currency,
        instrument_set=instrument_set,
        symbols=tuple(instrument.symbol for instrument in ordered),
        column={instrument.symbol: place for place, instrument in enumerate(ordered)},
        returns=returns,
        n_days=n_days,
        dates=window.dates[1:],
        scenario_names=tuple(scenario.name for scenario in scenarios),
        has_history=has_history,
        has_factor=has_factor,
        unaffected=unaffected,
        grid=_grid(ordered, instruments, grid, base_currency),
        betas=betas,
        lookback_days=lookback_days,
        warnings=tuple(warnings),
    )
    for array in (model.returns, has_history, has_factor, unaffected, model.grid, betas):
        array.flags.writeable = False
    return replace(model, hash=content_hash(encode(model)))


def _length_warnings(n_days: int, lookback_days: int) -> list[str]:
    warnings = []
    if n_days < lookback_days:
        warnings.append(f"price history: {n_days} days of {lookback_days} asked for")
    if n_days < HISTORY_DAYS_MIN:
        warnings.append(f"price history: fewer than {HISTORY_DAYS_MIN} days, no VaR or ES from them")
    return warnings


def _returns(window: PriceHistory) -> _Series:
    """Simple returns of each series that has a close above 0 in every row; the fault of each other one."""
    names = (*window.symbols, *window.indices)
    levels = np.column_stack((window.closes, *window.indices.values())) if names else np.empty((0, 0))
    if len(window.dates) - 1 < HISTORY_DAYS_MIN:
        return _Series({}, dict.fromkeys(names, f"fewer than {HISTORY_DAYS_MIN} days"))
    priced = np.isfinite(levels) & (levels > 0.0)
    whole = np.asarray(priced.all(axis=0))
    clean = np.asfortranarray(levels[:, whole])
    moves = clean[1:] / clean[:-1] - 1.0
    whole_names = [name for name, ok in zip(names, whole, strict=True) if ok]
    return _Series(
        returns={name: moves[:, place] for place, name in enumerate(whole_names)},
        faults={
            name: _fault(levels[:, place], ~priced[:, place], window.dates)
            for place, name in enumerate(names)
            if not whole[place]
        },
    )


def _fault(levels: Floats, unpriced: NDArray[np.bool_], dates: tuple[date, ...]) -> str:
    rows = np.flatnonzero(unpriced)
    first = levels[rows[0]]
    what = "no close" if np.isnan(first) else f"close {first:g} is not a price"
    more = f" (and {rows.size - 1} more days)" if rows.size > 1 else ""
    return f"{what} on {dates[rows[0]]}{more}"


def _day_rows(
    ordered: Sequence[Instrument], series: _Series, n_days: int, base_currency: str, warnings: list[str]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Shape (n_symbols, n_days), symbol by symbol as the model keeps them, and which symbols have a history."""
    days = np.full((len(ordered), n_days), np.nan)
    has_history = np.zeros(len(ordered), dtype=np.bool_)
    if n_days < HISTORY_DAYS_MIN:
        return days, has_history
    rates = _fx_histories({instrument.currency for instrument in ordered}, series, n_days, base_currency)
    for place, instrument in enumerate(ordered):
        local = _local_history(instrument, series, n_days, warnings)
        fx = rates[instrument.currency]
        if local is not None and fx is None:
            currency = instrument.currency
            warnings.append(
                f"{instrument.symbol}: no history: no faultless exchange rate {base_currency}{currency} or "
                f"{currency}{base_currency}"
            )
        if local is not None and fx is not None:
            days[place] = joint_return(instrument, local, fx)
            has_history[place] = True
    return days, has_history


def _fx_histories(
    currencies: set[str], series: _Series, n_days: int, base_currency: str
) -> Mapping[str, Floats | None]:
    """The daily return of each currency seen from the base."""
    rates: dict[str, Floats | None] = {}
    for currency in currencies:
        quoted = series.returns.get(base_currency + currency)
        if currency == base_currency:
            rates[currency] = np.zeros(n_days)
        elif quoted is not None:
            rates[currency] = 1.0 / (1.0 + quoted) - 1.0
        else:
            rates[currency] = series.returns.get(currency + base_currency)
    return rates


def _local_history(instrument: Instrument, series: _Series, n_days: int, warnings: list[str]) -> Floats | None:
    """Its own returns, else its proxy's, else None with the reason among the warnings."""
    symbol, proxy = instrument.symbol, instrument.proxy
    if is_cash(instrument):
        return np.zeros(n_days)
    own = series.returns.get(symbol)
    if own is not None:
        warnings.extend(f"{symbol}: {oddity}" for oddity in _oddities(own))
        return own
    stand_in = series.returns.get(proxy)
    if stand_in is not None:
        warnings.append(f"{symbol}: history of its proxy {proxy}: {series.fault(symbol)}")
        return stand_in
    proxy_fault = f"; proxy {proxy}: {series.fault(proxy)}" if proxy else ""
    warnings.append(f"{symbol}: no history: {series.fault(symbol)}{proxy_fault}")
    return None


def _oddities(returns: Floats) -> list[str]:
    oddities = []
    worst = returns[np.abs(returns).argmax()]
    if abs(worst) > JUMP_MIN:
        oddities.append(f"a day of {worst:+.1%}: expected adjusted closes, is it a split?")
    unchanged = float((returns == 0.0).mean())
    if unchanged > UNCHANGED_SHARE_MAX:
        oddities.append(f"close unchanged on {unchanged:.0%} of the days: its VaR is too low")
    return oddities


def _betas(
    ordered: Sequence[Instrument],
    series: _Series,
    has_history: NDArray[np.bool_],
    factor_map: FactorMap,
    warnings: list[str],
) -> Floats:
    """Slope of each instrument's local returns on those of its class default's index, over the same days (OLS)."""
    betas = np.full(len(ordered), np.nan)
    members: dict[str, list[int]] = {}
    for place, instrument in enumerate(ordered):
        default = factor_map.class_default(instrument)
        if default is not None and default.sensitivity is None and has_history[place]:
            members.setdefault(default.factor, []).append(place)
    for factor, places in members.items():
        index = series.returns.get(factor)
        if index is None or not index.any():
            reason = series.fault(factor) if index is None else "it never moves"
            warnings.append(f"{factor}: no betas to it: {reason}")
            continue
        own = np.array([_local_source(ordered[place], series) for place in places])
        betas[places] = slopes(own, index)
    return betas


def _local_source(instrument: Instrument, series: _Series) -> Floats:
    own = series.returns.get(instrument.symbol)
    return series.returns[instrument.proxy] if own is None else own


def slopes(returns: Floats, index: Floats) -> Floats:
    """OLS betas of `returns` (n_symbols, n_days) on `index` (n_days,): covariance over variance, both with ddof = 1,
    which cancels."""
    centred = index - index.mean()
    slope: Floats = (returns @ centred) / (centred @ centred)
    return slope


def _stress_rows(
    ordered: Sequence[Instrument],
    scenarios: Sequence[Scenario],
    factor_map: FactorMap,
    betas: Floats,
    unmapped: Unmapped,
    base_currency: str,
    warnings: list[str],
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Shape (n_symbols, n_scenarios), which symbols can be evaluated, and which no factor reaches."""
    stress = np.full((len(ordered), len(scenarios)), np.nan)
    has_factor = np.zeros(len(ordered), dtype=np.bool_)
    unaffected = np.zeros(len(ordered), dtype=np.bool_)
    rates = _fx_stress({instrument.currency for instrument in ordered}, scenarios, base_currency, warnings)
    known = {factor for scenario in scenarios for factor in scenario.shocks}
    for place, instrument in enumerate(ordered):
        warnings.extend(
            f"{instrument.symbol}: declares factor {factor}, which no scenario shocks"
            for factor in instrument.factors
            if match_factor(factor, known) is None
        )
        fx = rates[instrument.currency]
        try:
            local = _local_stress(instrument, scenarios, factor_map, float(betas[place]), fx is not None)
        except SensitivityMissingError as missing:
            warnings.append(f"{instrument.symbol}: no factor: {missing}")
            continue
        unaffected[place] = local is None
        if local is None:
            warnings.append(f"{instrument.symbol}: no factor of any scenario reaches it ({unmapped})")
            local = np.zeros(len(scenarios)) if unmapped == "zero" else None
        if local is not None:
            stress[place] = joint_return(instrument, local, np.zeros(len(scenarios)) if fx is None else fx)
            has_factor[place] = True
    return stress, has_factor, unaffected


def _local_stress(
    instrument: Instrument, scenarios: Sequence[Scenario], factor_map: FactorMap, beta: float, fx_moves: bool
) -> Floats | None:
    """Its return in its own currency in each scenario, 0 where one leaves it alone; None where all of them do."""
    if is_cash(instrument):
        return np.zeros(len(scenarios)) if fx_moves else None
    found = [local_return(instrument, scenario.shocks, factor_map, beta) for scenario in scenarios]
    if all(local is None for local in found):
        return None
    return np.array([0.0 if local is None else local for local in found])


def _fx_stress(
    currencies: set[str], scenarios: Sequence[Scenario], base_currency: str, warnings: list[str]
) -> Mapping[str, Floats | None]:
    """The return of each currency in each scenario, 0 where one leaves it alone; None where all of them do."""
    rates: dict[str, Floats | None] = {}
    for currency in sorted(currencies):
        found = [fx_return(scenario.shocks, base_currency, currency) for scenario in scenarios]
        moved = any(fx is not None for fx in found)
        rates[currency] = np.array([0.0 if fx is None else fx for fx in found]) if moved else None
        if not moved:
            warnings.append(f"{currency}: no scenario moves its exchange rate to {base_currency}")
    return rates


def _grid(
    ordered: Sequence[Instrument],
    instruments: Mapping[str, Instrument],
    grid: Mapping[AssetClass, GridShocks],
    base_currency: str,
) -> Floats:
    """Shape (n_symbols, n_grid). What has another underlying moves as that one does."""
    n_grid = check_grid(grid)
    rows = [
        grid_returns(instruments.get(instrument.underlying, instrument), grid, base_currency) for instrument in ordered
    ]
    return np.array(rows, dtype=np.float64).reshape(len(ordered), n_grid)
