"""Forecasts day after day: made from the days before alone, right where the model is right, wrong where not."""

from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from engine.risk.backtest import Verdict
from engine.risk.forecasters import ASKS, forecaster
from engine.risk.rolling import DayForecast, Forecaster, RollingBacktest, rolling_backtest
from engine.risk.var import expected_shortfall, value_at_risk
from gateway.market.prices import sample_us_stocks

Floats = NDArray[np.float64]


def normal_days(count: int, seed: int = 3, sigma: float = 0.01) -> Floats:
    return np.random.default_rng(seed).normal(0.0, sigma, (count, 1))


def gaussian(window: Floats, values: Floats, confidences: Sequence[float]) -> list[DayForecast]:
    """Normal, mean 0, the book's own deviation: what is right of `normal_days`."""
    deviation = float((window @ values).std(ddof=1))
    quantiles = [float(stats.norm.ppf(at)) for at in confidences]
    tails = zip(quantiles, confidences, strict=True)
    return [DayForecast(deviation * z, deviation * float(stats.norm.pdf(z)) / (1 - at)) for z, at in tails]


def rolled(returns: Floats, days: int, forecasts: Forecaster = gaussian, confidence: float = 0.95) -> RollingBacktest:
    (found,) = rolling_backtest(returns, [1.0], "a method", forecasts, [confidence], lookback_days=days)
    return found


def test_a_forecast_sees_the_days_before_and_no_other() -> None:
    """The loop written out, for a book of two."""
    returns, values = np.random.default_rng(1).normal(0.0, 0.01, (130, 2)), np.array([3.0, -1.0])
    made, days = returns @ values, range(100, 130)

    wide, narrow = rolling_backtest(returns, values, "historical", forecaster("historical"), [0.95, 0.99], 100)

    assert wide.var.tolist() == pytest.approx([value_at_risk(-made[d - 100 : d], 0.95) for d in days])
    assert wide.es.tolist() == pytest.approx([expected_shortfall(-made[d - 100 : d], 0.95) for d in days])
    assert narrow.var.tolist() == pytest.approx([value_at_risk(-made[d - 100 : d], 0.99) for d in days])
    assert wide.returns.tolist() == pytest.approx(made[100:].tolist())
    assert wide.hits.tolist() == [bool(made[100 + i] < -wide.var[i]) for i in range(30)]


@pytest.mark.parametrize("method", list(ASKS))
def test_what_comes_later_changes_no_earlier_forecast(method: str) -> None:
    returns = normal_days(263)
    crashed = returns.copy()
    crashed[256:] -= 0.02

    calm, crash = (rolled(one, 252, forecaster(method)) for one in (returns, crashed))

    assert calm.var[:5].tolist() == crash.var[:5].tolist()
    assert calm.var[5:].tolist() != crash.var[5:].tolist()


def test_a_right_model_passes_on_its_own_days() -> None:
    found = rolled(normal_days(3000), 500, confidence=0.99).validation

    assert (found.n, found.verdict) == (2500, Verdict.PASS)
    assert 15 <= found.exceptions <= 35


def test_a_model_of_half_the_deviation_fails_on_them() -> None:
    def half(window: Floats, values: Floats, confidences: Sequence[float]) -> list[DayForecast]:
        return [DayForecast(one.var / 2, one.es / 2) for one in gaussian(window, values, confidences)]

    assert rolled(normal_days(1000), 500, half).validation.verdict is Verdict.FAIL


def test_the_normal_model_fails_at_99_percent_on_twenty_real_stocks() -> None:
    """2016 to 2022, equal weights: real days have fatter tails, most of all in March 2020."""
    prices = sample_us_stocks()
    rows = [row for row, day in enumerate(prices.dates) if day >= date(2016, 1, 1)]
    closes = prices.closes[rows]
    returns, dates = closes[1:] / closes[:-1] - 1.0, [prices.dates[row] for row in rows[1:]]
    found = {
        method: rolling_backtest(returns, np.full(20, 0.05), method, forecaster(method), [0.99], 756, dates)[0]
        for method in ("gaussian", "filtered_ewma")
    }

    normal, filtered = found["gaussian"].validation, found["filtered_ewma"].validation
    crash = [day for day, hit in zip(found["gaussian"].dates, found["gaussian"].hits, strict=True) if hit]

    assert normal.verdict is Verdict.FAIL and normal.exceptions > 2 * normal.expected
    assert filtered.exceptions < normal.exceptions
    assert {date(2020, 3, 9), date(2020, 3, 12), date(2020, 3, 16)} <= set(crash)
    assert found["gaussian"].dates[0] == dates[756]


def test_another_methods_answer_is_told_with_on_how_many_days() -> None:
    found = rolled(normal_days(62), 60, forecaster("historical"), confidence=0.99)

    assert found.warnings == (
        "on 2 days: historical: 60 observations hold none beyond 0.99: parametric (gaussian) instead",
    )


def test_a_forecaster_may_be_anybodys() -> None:
    def flat(window: Floats, values: Floats, confidences: Sequence[float]) -> list[DayForecast]:
        return [DayForecast(1.0, 2.0) for _ in confidences]

    found = rolled(normal_days(60), 30, flat)

    assert found.var.tolist() == [1.0] * 30
    assert found.validation.model == "a method"


def broken(window: Floats, values: Floats, confidences: Sequence[float]) -> list[DayForecast]:
    return [DayForecast(float("nan"), 1.0) for _ in confidences]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: rolled(normal_days(100), 100), "returns: expected more than 100 days, got 100"),
        (lambda: rolling_backtest(normal_days(100), [1.0, 2.0], "x", gaussian, [0.95], 50), "values: expected one a"),
        (lambda: rolling_backtest(normal_days(100), [0.0], "x", gaussian, [0.95], 50), "values: expected a book"),
        (lambda: rolled(normal_days(100) * np.nan, 50), "returns: expected finite"),
        (lambda: rolled(normal_days(100), 1), "lookback_days: expected 2 or more"),
        (lambda: rolled(normal_days(100), 50, broken), "forecaster: expected finite VaR and ES above 0 from a method"),
        (lambda: rolling_backtest(normal_days(60), [1.0], "x", gaussian, [0.95], 50, [date.min]), "dates: expected"),
        (lambda: forecaster("guessed"), "method: expected one of historical, gaussian"),
    ],
)
def test_what_no_backtest_can_be_made_of_is_refused_by_name(change: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        change()
