"""Filtered historical simulation against arch and a plain loop; its causality and scaling as properties."""

import numpy as np
import pytest
from arch import arch_model
from arch.univariate import EWMAVariance, ZeroMean
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.risk.filtered import Filter, ewma_filtered, ewma_variances, filtered, garch_filtered
from engine.risk.var import value_at_risk

Floats = NDArray[np.float64]


def clustered(days: int = 756, seed: int = 1) -> Floats:
    """A GARCH(1,1) series: omega 0.05, alpha 0.08, beta 0.9."""
    rng = np.random.default_rng(seed)
    variance, pnl = 2.5, np.empty(days)
    for day in range(days):
        pnl[day] = np.sqrt(variance) * rng.standard_normal()
        variance = 0.05 + 0.08 * pnl[day] ** 2 + 0.9 * variance
    return pnl


def test_the_ewma_forecast_by_hand() -> None:
    """Thirty days of ±2 start it at 4; a day of 10 makes 0.94·4 + 0.06·100 = 9.76."""
    pnl = np.concatenate((np.tile([2.0, -2.0], 15), [10.0], np.tile([1.0, -1.0], 15)))
    variances = ewma_variances(pnl)

    assert variances[0] == pytest.approx(4.0)
    assert variances[1] == pytest.approx(9.76)
    assert ewma_filtered(pnl).residuals[0] == pytest.approx(10.0 / 2.0)
    assert variances.size == 32


def test_ewma_is_archs() -> None:
    pnl = clustered()
    model = ZeroMean(pnl, volatility=EWMAVariance(0.94), rescale=False).fit(disp="off")
    forecast = model.forecast(horizon=1).variance.to_numpy()[-1, 0]

    assert ewma_filtered(pnl).deviation ** 2 == pytest.approx(forecast, rel=1e-9)


@given(st.integers(31, 99))
def test_a_forecast_knows_only_the_days_before(day: int) -> None:
    pnl = clustered(100)
    changed = pnl.copy()
    changed[day:] *= 7.0

    np.testing.assert_array_equal(ewma_variances(changed)[: day - 29], ewma_variances(pnl)[: day - 29])
    np.testing.assert_array_equal(
        ewma_filtered(changed).residuals[: day - 30], ewma_filtered(pnl).residuals[: day - 30]
    )


def test_a_calm_history_and_a_wild_present_raise_var_above_the_historical_one() -> None:
    calm = np.random.default_rng(3).standard_normal(700)
    wild = 5.0 * np.random.default_rng(4).standard_normal(56)
    pnl = np.concatenate((calm, wild))
    losses = ewma_filtered(pnl).losses()

    assert value_at_risk(losses, 0.99) > 1.3 * value_at_risk(-pnl, 0.99)
    assert value_at_risk(losses, 0.99) == pytest.approx(2.33 * 5.0, rel=0.25)


def test_garch_parameters_and_forecast_are_archs() -> None:
    pnl = clustered() * 1e4
    fit = arch_model(pnl / 1e4, mean="Zero", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off")
    ours = garch_filtered(pnl)

    assert ours.alpha == pytest.approx(fit.params["alpha[1]"], abs=1e-3)
    assert ours.beta == pytest.approx(fit.params["beta[1]"], abs=1e-3)
    assert ours.omega == pytest.approx(fit.params["omega"] * 1e8, rel=0.02)
    assert ours.deviation == pytest.approx(np.sqrt(fit.forecast(horizon=1).variance.to_numpy()[-1, 0]) * 1e4, rel=1e-3)
    np.testing.assert_allclose(ours.residuals, pnl / 1e4 / fit.conditional_volatility, rtol=2e-3)


def test_garch_finds_the_parameters_that_made_the_series() -> None:
    ours = garch_filtered(clustered(8000, seed=9))

    assert (ours.alpha, ours.beta) == pytest.approx((0.08, 0.9), abs=0.02)
    assert ours.residuals.std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("by", ["ewma", "garch"])
def test_several_days_follow_the_recursion(by: Filter) -> None:
    series = filtered(clustered(400), by)
    for start in (0, 17):
        variance, total = series.deviation**2, 0.0
        for residual in series.residuals[start : start + 5]:
            pnl = variance**0.5 * residual
            total += pnl
            variance = series.omega + series.alpha * pnl**2 + series.beta * variance
        assert series.losses(5)[start] == pytest.approx(-total)
    assert series.losses(5).size == series.residuals.size - 4


@pytest.mark.parametrize("by", ["ewma", "garch"])
@pytest.mark.parametrize("size", [2.0**-14, 2.0**20])
def test_a_book_of_another_size_has_risk_in_proportion(by: Filter, size: float) -> None:
    pnl = clustered(500)

    np.testing.assert_allclose(filtered(size * pnl, by).losses(3), size * filtered(pnl, by).losses(3), rtol=1e-9)


@pytest.mark.parametrize("by", ["ewma", "garch"])
def test_it_is_deterministic(by: Filter) -> None:
    np.testing.assert_array_equal(filtered(clustered(300), by).losses(2), filtered(clustered(300), by).losses(2))


def test_garch_that_explodes_is_answered_by_ewma_and_says_so() -> None:
    """Deviations that grow without end have a persistence of 1."""
    pnl = np.random.default_rng(5).standard_normal(400) * np.exp(np.arange(400) / 40.0)
    series = garch_filtered(pnl)

    assert series.filter == "ewma"
    assert "EWMA 0.94 instead" in series.warnings[0]
    assert series.deviation == ewma_filtered(pnl).deviation


@pytest.mark.parametrize(
    ("pnl", "by", "said"),
    [
        (np.ones(59), "ewma", "at least 60 days, got 59"),
        (np.ones(249), "garch", "at least 250 days, got 249"),
        (np.append(np.ones(300), np.nan), "ewma", "finite"),
        (np.zeros(300), "ewma", "moves in the first 30 days"),
        (np.full(300, 5.0), "garch", "constant"),
        (np.ones((300, 2)), "garch", "one dimension"),
        (np.ones(300), "riskmetrics", "ewma or garch"),
    ],
)
def test_it_refuses_what_it_cannot_filter(pnl: Floats, by: Filter, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        filtered(pnl, by)


def test_it_refuses_a_decay_that_forgets_nothing() -> None:
    with pytest.raises(ValueError, match="decay"):
        ewma_filtered(clustered(), decay=1.0)
