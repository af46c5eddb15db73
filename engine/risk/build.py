"""Builds a risk model from instruments, closes and scenarios. Point in time: only closes before the session count.

Nothing is filled in: an instrument without a full, faultless history (or a declared proxy with one) has no history,
one whose factor or sensitivity is missing has no factor, and each of them says why in `warnings`. Options move as their
underlyings do, by full revaluation (option_rows.py, imported where there are any). Order-time arithmetic belongs to the
measures, VaR of a loss vector to var.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument
from engine.risk.columns import Columns, Series, local_source, local_stress
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

VOLATILITY_SHOCKS = (-0.10, 0.0, 0.25)
"""Of the grid, where there are options: ten points down, and the leap of a crash (the VIX in March 2020: 40 to 83)."""

Floats = NDArray[np.float64]
NOTHING: Mapping[str, float] = MappingProxyType({})


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
    marks: Mapping[str, float] = NOTHING,
    rates: Mapping[str, float] = NOTHING,
    volatility_shocks: tuple[float, ...] = VOLATILITY_SHOCKS,
) -> RiskModel:
    """The model for `session_date`, hash included: a column per instrument, symbols in order.

    `lookback_days` returns need one close more. For options: `marks`, prices now by symbol or currency pair (else the
    last close), `rates`, risk-free by currency, continuously compounded, a fraction a year, and the `volatility_shocks`
    of the grid, absolute. Raises ValueError on arguments that no model could be built from; faults of single
    instruments are flags and warnings of the model.
    """
    if lookback_days < 1:
        raise ValueError(f"lookback_days: expected 1 or more, got {lookback_days}")
    check_scenarios(scenarios)
    factor_map = factor_map or FactorMap()
    ordered = [instruments[symbol] for symbol in sorted(instruments)]
    linear = [instrument for instrument in ordered if instrument.asset_class is not AssetClass.OPTION]
    window = prices.window(session_date, lookback_days + 1)
    n_days = max(0, len(window.dates) - 1)
    warnings = _length_warnings(n_days, lookback_days)
    series = _returns(window)

    days, has_history = _day_rows(linear, series, n_days, base_currency, warnings)
    betas = _betas(linear, series, has_history, factor_map, warnings)
    fx_stress = _fx_stress({one.currency for one in ordered}, scenarios, base_currency, warnings)
    stress, has_factor, unaffected = _stress_rows(linear, scenarios, factor_map, betas, unmapped, fx_stress, warnings)
    spot_grid = grid if len(linear) == len(ordered) else refined(grid)
    columns = Columns(
        rows=np.concatenate((days, stress), axis=1),
        grid=_grid(linear, instruments, spot_grid, base_currency),
        has_history=has_history,
        has_factor=has_factor,
        unaffected=unaffected,
        betas=betas,
    )
    if len(linear) < len(ordered):
        from engine.risk.option_rows import OptionRows

        columns = OptionRows(
            instruments=instruments,
            ordered=ordered,
            window=window,
            series=series,
            fx_days=_fx_histories({one.currency for one in ordered}, series, n_days, base_currency),
            fx_stress=fx_stress,
            scenarios=scenarios,
            factor_map=factor_map,
            grid=spot_grid,
            unmapped_stays=unmapped == "zero",
            base_currency=base_currency,
            marks=marks,
            rates=rates,
            volatility_shocks=volatility_shocks,
            session_date=session_date,
            built_time_us=built_time_us,
        ).joined(columns, warnings)
    model = RiskModel(
        hash="",
        session_date=session_date,
        last_price_date=window.dates[-1] if window.dates else date.min,
        built_time_us=built_time_us,
        base_currency=base_currency,
        instrument_set=instrument_set,
        symbols=tuple(instrument.symbol for instrument in ordered),
        column={instrument.symbol: place for place, instrument in enumerate(ordered)},
        returns=columns.rows.T,
        n_days=n_days,
        dates=window.dates[1:],
        scenario_names=tuple(scenario.name for scenario in scenarios),
        has_history=columns.has_history,
        has_factor=columns.has_factor,
        unaffected=columns.unaffected,
        grid=columns.grid,
        betas=columns.betas,
        lookback_days=lookback_days,
        warnings=tuple(warnings),
        grid_volatilities=columns.grid_volatilities,
        options=columns.options,
    )
    for array in (model.returns, model.has_history, model.has_factor, model.unaffected, model.grid, model.betas):
        array.flags.writeable = False
    return replace(model, hash=content_hash(encode(model)))


def _length_warnings(n_days: int, lookback_days: int) -> list[str]:
    warnings = []
    if n_days < lookback_days:
        warnings.append(f"price history: {n_days} days of {lookback_days} asked for")
    if n_days < HISTORY_DAYS_MIN:
        warnings.append(f"price history: fewer than {HISTORY_DAYS_MIN} days, no VaR or ES from them")
    return warnings


def _returns(window: PriceHistory) -> Series:
    """Simple returns of each series that has a close above 0 in every row; the fault of each other one."""
    names = (*window.symbols, *window.indices)
    levels = np.column_stack((window.closes, *window.indices.values())) if names else np.empty((0, 0))
    if len(window.dates) - 1 < HISTORY_DAYS_MIN:
        return Series({}, dict.fromkeys(names, f"fewer than {HISTORY_DAYS_MIN} days"))
    priced = np.isfinite(levels) & (levels > 0.0)
    whole = np.asarray(priced.all(axis=0))
    clean = np.asfortranarray(levels[:, whole])
    moves = clean[1:] / clean[:-1] - 1.0
    whole_names = [name for name, ok in zip(names, whole, strict=True) if ok]
    return Series(
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
    ordered: Sequence[Instrument], series: Series, n_days: int, base_currency: str, warnings: list[str]
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


def _fx_histories(currencies: set[str], series: Series, n_days: int, base_currency: str) -> Mapping[str, Floats | None]:
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


def _local_history(instrument: Instrument, series: Series, n_days: int, warnings: list[str]) -> Floats | None:
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
    series: Series,
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
        own = np.array([local_source(ordered[place], series) for place in places])
        betas[places] = slopes(own, index)
    return betas


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
    rates: Mapping[str, Floats | None],
    warnings: list[str],
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Shape (n_symbols, n_scenarios), which symbols can be evaluated, and which no factor reaches."""
    stress = np.full((len(ordered), len(scenarios)), np.nan)
    has_factor = np.zeros(len(ordered), dtype=np.bool_)
    unaffected = np.zeros(len(ordered), dtype=np.bool_)
    known = {factor for scenario in scenarios for factor in scenario.shocks}
    for place, instrument in enumerate(ordered):
        warnings.extend(
            f"{instrument.symbol}: declares factor {factor}, which no scenario shocks"
            for factor in instrument.factors
            if match_factor(factor, known) is None
        )
        fx = rates[instrument.currency]
        try:
            local = local_stress(instrument, scenarios, factor_map, float(betas[place]), fx is not None)
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
    rows = [grid_returns(_grid_underlying(instrument, instruments), grid, base_currency) for instrument in ordered]
    return np.array(rows, dtype=np.float64).reshape(len(ordered), n_grid)


def _grid_underlying(instrument: Instrument, instruments: Mapping[str, Instrument]) -> Instrument:
    """Whose shocks move it: an option has none of its own, so that what names one as its underlying moves by itself."""
    named = instruments.get(instrument.underlying, instrument)
    return instrument if named.asset_class is AssetClass.OPTION else named


def refined(grid: Mapping[AssetClass, GridShocks]) -> Mapping[AssetClass, GridShocks]:
    """The shocks, none at all, and the middles between neighbours: what is straight between two points is no worse
    between them, but an option's loss can be."""
    return {asset_class: replace(row, shocks=_with_middles((*row.shocks, 0.0))) for asset_class, row in grid.items()}


def _with_middles(shocks: tuple[float, ...]) -> tuple[float, ...]:
    rising = sorted(shocks)
    middles = [0.5 * (low + high) for low, high in pairwise(rising)]
    return tuple(sorted((*rising, *middles)))
