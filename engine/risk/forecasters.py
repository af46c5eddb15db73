"""The VaR methods as forecasters of the next day, by name: what a rolling backtest compares.

Each is one `Ask` to estimate.py and nothing else, so that what is tested is what the worker computes. Where a method
could not be had on a day and another answered, the forecast says so. Slow to import (scikit-learn, arch): for the
worker and for tools only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.risk.estimate import Ask, Basis, Book, estimates
from engine.risk.rolling import DayForecast, Floats, Forecaster

ASKS: Mapping[str, Ask] = {
    "historical": Ask("historical"),
    "gaussian": Ask("parametric"),
    "student_t": Ask("parametric", family="student_t"),
    "cornish_fisher": Ask("parametric", family="cornish_fisher"),
    "filtered_ewma": Ask("filtered", filter="ewma"),
    "filtered_garch": Ask("filtered", filter="garch"),
    "monte_carlo": Ask("monte_carlo"),
}
"""By name: gaussian, student_t and cornish_fisher are the parametric method, on the shrunk covariance."""


def forecaster(name: str, seed: int = 0) -> Forecaster:
    """The forecaster of a method of `ASKS`; `seed` is that of the simulation. Raises ValueError on another name."""
    ask = ASKS.get(name)
    if ask is None:
        raise ValueError(f"method: expected one of {', '.join(ASKS)}, got {name!r}")

    def forecast(window: Floats, values: Floats, confidences: Sequence[float]) -> list[DayForecast]:
        basis = Basis(window, lookback_days=window.shape[0], seed=seed)
        found = estimates(basis, Book.of(values), [replace(ask, confidence=at) for at in confidences])
        return [DayForecast(one.var, one.es, one.warnings) for one in found]

    return forecast
