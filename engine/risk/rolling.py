"""Forecasts of VaR and ES made day after day over a price history, each from the days before it alone.

A forecaster is a function of the window before a day; `rolling_backtest` walks it over the history and has the
forecasts tested (backtest.py). The book is held at constant values: it is brought back to them each day, as a book
whose VaR is asked for each morning is. No estimation here: forecasters.py has the methods; no prices, no files.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.risk.backtest import Validation, exceptions, validate

LOOKBACK_DAYS = 756

FIGURE = re.compile(r"-?\d+(\.\d+)?")

Floats = NDArray[np.float64]


class DayForecast(NamedTuple):
    """Of one day: positive = loss, in the unit of the book's values."""

    var: float
    es: float
    warnings: tuple[str, ...] = ()
    """What is to be known of it, for instance that another method answered."""


Forecaster = Callable[[Floats, Floats, Sequence[float]], Sequence[DayForecast]]
"""(window of returns (w, n), values (n,), confidences) -> the next day's forecast at each. The window is oldest first
and ends the day before."""


@dataclass(frozen=True, slots=True, eq=False)
class RollingBacktest:
    """One method at one confidence over the days that had a full window before them, oldest first."""

    method: str
    confidence: float
    lookback_days: int
    dates: tuple[date, ...]
    """Of the returns; empty where the caller gave none."""
    returns: Floats
    """(n,) what the book made on each day, in the unit of its values."""
    var: Floats
    es: Floats
    hits: NDArray[np.bool_]
    validation: Validation
    warnings: tuple[str, ...]
    """Of the forecasts, each once, with on how many days; its figures are of the first of them."""


def rolling_backtest(
    returns: ArrayLike,
    values: ArrayLike,
    method: str,
    forecaster: Forecaster,
    confidences: Sequence[float],
    lookback_days: int = LOOKBACK_DAYS,
    dates: Sequence[date] = (),
) -> tuple[RollingBacktest, ...]:
    """Forecasts for every day that has `lookback_days` before it, and all tests of them, at each confidence.

    `returns` (T, n) simple daily returns in base currency, oldest first; `values` (n,) signed, constant; `dates` (T,)
    of the returns, or none. Raises ValueError on shapes that disagree, numbers that are not finite, fewer than
    `lookback_days` + 1 rows, a book without any value, and a forecast that is not finite or whose ES is not above 0.
    """
    history, held = np.asarray(returns, dtype=np.float64), np.asarray(values, dtype=np.float64)
    _check(history, held, lookback_days, dates)
    days = range(lookback_days, history.shape[0])
    forecasts = [forecaster(history[day - lookback_days : day], held, confidences) for day in days]
    made = history[lookback_days:] @ held
    return tuple(
        _tested(made, [one[place] for one in forecasts], method, confidence, lookback_days, dates)
        for place, confidence in enumerate(confidences)
    )


def _tested(
    made: Floats,
    forecasts: Sequence[DayForecast],
    method: str,
    confidence: float,
    lookback_days: int,
    dates: Sequence[date],
) -> RollingBacktest:
    var, es = np.array([one.var for one in forecasts]), np.array([one.es for one in forecasts])
    usable = np.isfinite(var) & np.isfinite(es) & (es > 0.0)
    if not usable.all():
        day = int(np.flatnonzero(~usable)[0])
        problem = f"got {var[day]} and {es[day]} for day {lookback_days + day}"
        raise ValueError(f"forecaster: expected finite VaR and ES above 0 from {method}, {problem}")
    return RollingBacktest(
        method=method,
        confidence=confidence,
        lookback_days=lookback_days,
        dates=tuple(dates[lookback_days:]),
        returns=made,
        var=var,
        es=es,
        hits=exceptions(made, var),
        validation=validate(made, var, es, confidence, method),
        warnings=_counted(forecasts),
    )


def _counted(forecasts: Sequence[DayForecast]) -> tuple[str, ...]:
    """What the days' warnings say, the commonest first. Those that differ in their figures alone are one."""
    first: dict[str, str] = {}
    days: Counter[str] = Counter()
    for one in forecasts:
        alike = {FIGURE.sub("", warning): warning for warning in one.warnings}
        days.update(alike.keys())
        first = alike | first
    return tuple(f"on {count} days: {first[kind]}" for kind, count in days.most_common())


def _check(history: Floats, held: Floats, lookback_days: int, dates: Sequence[date]) -> None:
    if history.ndim != 2 or held.shape != history.shape[1:]:
        raise ValueError(f"values: expected one a column of returns {history.shape}, got shape {held.shape}")
    if lookback_days < 2:
        raise ValueError(f"lookback_days: expected 2 or more, got {lookback_days}")
    if history.shape[0] <= lookback_days:
        raise ValueError(f"returns: expected more than {lookback_days} days, got {history.shape[0]}")
    if dates and len(dates) != history.shape[0]:
        raise ValueError(f"dates: expected one a row of returns, {history.shape[0]}, got {len(dates)}")
    for name, numbers in (("returns", history), ("values", held)):
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if not held.any():
        raise ValueError("values: expected a book, got nothing but zeros")
