"""Builders for the tests of engine/risk: instruments and price histories in a line. No assertions here."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.risk.history import PriceHistory

SESSION = date(2024, 1, 2)


def instrument(symbol: str, asset_class: str = "equity", currency: str = "USD", **fields: Any) -> Instrument:
    return Instrument(
        symbol=symbol,
        asset_class=AssetClass(asset_class),
        currency=currency,
        lot_size=1.0,
        tick_size=0.01,
        **fields,
    )


def stock(symbol: str, **fields: Any) -> Instrument:
    return instrument(symbol, **fields)


def option(
    symbol: str,
    strike: float,
    right: str = "call",
    underlying: str = "A",
    expiry: date = date(2024, 7, 2),
    style: str = "european",
    model: str = "black_scholes_merton",
    currency: str = "USD",
    **terms: Any,
) -> Instrument:
    """On "A", half a year from SESSION on, at a rate of 3 %; `terms`: dividend_yield, rate, volatility."""
    declared = {"rate": 0.03} | terms
    contract = OptionTerms(strike, OptionRight(right), OptionStyle(style), OptionModel(model), **declared)
    return instrument(symbol, "option", currency, underlying=underlying, expiry=expiry, option=contract)


def book(*instruments: Instrument) -> dict[str, Instrument]:
    return {one.symbol: one for one in instruments}


def weekdays(count: int, before: date = SESSION) -> tuple[date, ...]:
    """The last `count` weekdays before a date, oldest first."""
    days: list[date] = []
    day = before
    while len(days) < count:
        day -= timedelta(days=1)
        if day.weekday() < 5:
            days.append(day)
    return tuple(reversed(days))


def walk(days: int, seed: int) -> NDArray[np.float64]:
    """Returns of a random walk, 1 % a day."""
    return np.random.default_rng(seed).normal(0.0, 0.01, days)


def levels(returns: NDArray[np.float64], start: float = 100.0) -> NDArray[np.float64]:
    """One close more than there are returns."""
    return start * np.concatenate(([1.0], np.cumprod(1.0 + returns)))


def history(
    closes: Mapping[str, NDArray[np.float64]],
    indices: Mapping[str, NDArray[np.float64]] | None = None,
    dates: tuple[date, ...] | None = None,
) -> PriceHistory:
    """Closes on the weekdays just before SESSION."""
    rows = len(next(iter(closes.values())))
    return PriceHistory(
        dates=dates or weekdays(rows),
        symbols=tuple(closes),
        closes=np.column_stack(list(closes.values())),
        indices=indices or {},
    )
