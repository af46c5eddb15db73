"""Closed forms of VaR and ES against scipy, quadrature and arch; identities of the worst case as properties."""

import math

import numpy as np
import pytest
from arch.univariate import StudentsT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import integrate, stats
from scipy.optimize import minimize_scalar

from engine.risk.parametric import (
    Family,
    Tail,
    book_tail_loss,
    cornish_fisher_is_valid,
    cornish_fisher_tail,
    deviation_of,
    fit_degrees_of_freedom,
    gaussian_tail,
    losses_tail_loss,
    skewness_and_excess_kurtosis,
    student_t_tail,
    tail_loss,
    tail_of,
    worst_case_deviation,
    worst_case_mean,
)

Floats = NDArray[np.float64]
CONFIDENCES = st.sampled_from([0.9, 0.95, 0.975, 0.99, 0.999])
VALUES = arrays(np.float64, 3, elements=st.floats(-1e6, 1e6).map(lambda value: round(value, 2)))
ORDERS = arrays(np.float64, 3, elements=st.floats(0, 1e6).map(lambda value: round(value, 2)))
COVARIANCE = np.array([[4.0, 1.0, -2.0], [1.0, 9.0, 3.0], [-2.0, 3.0, 16.0]]) * 1e-4


def t_sample(nu: float, days: int, columns: int = 1, seed: int = 3) -> Floats:
    return np.random.default_rng(seed).standard_t(nu, (days, columns)) * 0.01


def test_gaussian_tail_factors_are_the_well_known_ones() -> None:
    assert gaussian_tail(0.95).var == pytest.approx(1.644854, abs=1e-6)
    assert gaussian_tail(0.99).var == pytest.approx(2.326348, abs=1e-6)
    assert gaussian_tail(0.95).es == pytest.approx(2.062713, abs=1e-6)
    assert gaussian_tail(0.99).es == pytest.approx(2.665214, abs=1e-6)


def test_a_student_t_of_four_degrees_is_scaled_to_variance_one() -> None:
    tail = student_t_tail(0.99, 4.0)

    assert tail.var == pytest.approx(3.746947 / math.sqrt(2.0), abs=1e-6)  # unscaled it would be 41 % more
    assert tail.degrees_of_freedom == 4.0


@pytest.mark.parametrize("confidence", [0.95, 0.99, 0.999])
@pytest.mark.parametrize("nu", [2.5, 3.0, 4.0, 8.0, 50.0])
def test_student_t_equals_scipys_quantile_and_tail_mean(confidence: float, nu: float) -> None:
    unit = stats.t(nu, scale=math.sqrt((nu - 2.0) / nu))
    tail = student_t_tail(confidence, nu)

    assert tail.var == pytest.approx(unit.ppf(confidence), rel=1e-10)
    assert tail.es == pytest.approx(unit.expect(lb=unit.ppf(confidence), conditional=True), rel=1e-6)


@given(CONFIDENCES)
def test_a_student_t_of_many_degrees_is_the_normal(confidence: float) -> None:
    assert student_t_tail(confidence, 1e6).var == pytest.approx(gaussian_tail(confidence).var, rel=1e-4)
    assert student_t_tail(confidence, 1e6).es == pytest.approx(gaussian_tail(confidence).es, rel=1e-4)


def test_cornish_fisher_by_hand() -> None:
    """Skewness -0.5 and excess kurtosis 1 at 99 %: z = 2.326348; z²-1 = 4.411895, z³-3z = 5.610896, 2z³-5z = 13.548140;
    2.326348 + 4.411895·0.5/6 + 5.610896/24 - 13.548140·0.25/36."""
    tail = cornish_fisher_tail(0.99, -0.5, 1.0)

    assert tail.var == pytest.approx(2.326348 + 0.367658 + 0.233787 - 0.094084, abs=2e-6)
    assert tail.warnings == ()


@given(CONFIDENCES, st.floats(-0.6, 0.6), st.floats(0.6, 3.0))
def test_cornish_fisher_es_is_the_mean_of_its_quantiles_beyond_the_confidence(
    confidence: float, skewness: float, kurtosis: float
) -> None:
    area, _ = integrate.quad(
        lambda z: cornish_fisher_tail(float(stats.norm.cdf(z)), skewness, kurtosis).var * stats.norm.pdf(z),
        stats.norm.ppf(confidence),
        8.0,
    )

    assert cornish_fisher_tail(confidence, skewness, kurtosis).es == pytest.approx(area / (1 - confidence), rel=1e-5)


@given(st.integers(-300, 300).map(lambda n: n / 100), st.integers(-100, 900).map(lambda n: n / 100))
def test_cornish_fisher_is_valid_where_its_quantiles_rise(skewness: float, kurtosis: float) -> None:
    z = np.concatenate((-np.geomspace(1e-3, 1e6, 20000), [0.0], np.geomspace(1e-3, 1e6, 20000)))
    hermite = np.poly1d([1, 0]), np.poly1d([1, 0, -1]), np.poly1d([1, 0, -3, 0]), np.poly1d([2, 0, -5, 0])
    weights = (1.0, -skewness / 6, kurtosis / 24, -(skewness**2) / 36)
    slopes = np.array([weight * one.deriv()(z) for weight, one in zip(weights, hermite, strict=True)])
    slowest = slopes.sum(axis=0).min()

    if abs(slowest) > 1e-3:
        assert cornish_fisher_is_valid(skewness, kurtosis) == (slowest > 0.0)


def test_cornish_fisher_outside_its_domain_warns() -> None:
    (warning,) = cornish_fisher_tail(0.99, -0.5, 12.0).warnings

    assert "outside the domain" in warning and "12.00" in warning


def test_a_normal_shape_leaves_cornish_fisher_at_the_normal_quantile() -> None:
    tail = cornish_fisher_tail(0.975, 0.0, 0.0)

    assert (tail.var, tail.es) == pytest.approx((gaussian_tail(0.975).var, gaussian_tail(0.975).es))
    assert tail.warnings == ()


def test_a_book_of_two_by_hand() -> None:
    covariance = np.array([[0.0004, 0.0001], [0.0001, 0.0009]])
    figure = book_tail_loss(np.array([100.0, -50.0]), covariance, gaussian_tail(0.99), mean=np.array([0.001, 0.002]))

    assert figure.var == pytest.approx(2.326348 * math.sqrt(4.0 + 2.25 - 1.0) - (0.1 - 0.1), abs=1e-5)


def test_open_orders_add_their_own_deviation() -> None:
    """z·(σ(w) + Σ|q|σ): 100 at 2 % and an order of 50 at 3 %, whatever their correlation: 2 + 1.5."""
    covariance = np.array([[0.0004, -0.0006], [-0.0006, 0.0009]])
    worst = worst_case_deviation(np.array([100.0, 0.0]), covariance, np.array([0.0, 50.0]))

    assert worst == pytest.approx(3.5)


def test_a_mean_counts_against_each_open_order() -> None:
    """100 at +0.1 % a day, less what 50 bought or sold at -0.2 % could cost: nothing is left of the mean."""
    worst = worst_case_mean(np.array([100.0, 0.0]), np.array([0.001, -0.002]), np.array([0.0, 50.0]))

    assert worst == pytest.approx(0.0)


@given(VALUES, ORDERS, arrays(np.float64, 3, elements=st.floats(-1, 1)), CONFIDENCES)
def test_no_fill_takes_the_loss_beyond_the_worst_case(
    values: Floats, orders: Floats, filled: Floats, confidence: float
) -> None:
    mean, tail = np.array([0.001, -0.002, 0.0]), gaussian_tail(confidence)
    worst = book_tail_loss(values, COVARIANCE, tail, mean, orders)
    after = book_tail_loss(values + filled * orders, COVARIANCE, tail, mean)

    assert after.var <= worst.var + 1e-6
    assert after.es <= worst.es + 1e-6


@given(VALUES, VALUES, st.floats(0.0, 50.0), CONFIDENCES)
def test_parametric_risk_is_homogeneous_and_subadditive(
    one: Floats, other: Floats, size: float, confidence: float
) -> None:
    tail = student_t_tail(confidence, 4.0)
    alone = book_tail_loss(one, COVARIANCE, tail)
    together = book_tail_loss(one + other, COVARIANCE, tail)

    assert book_tail_loss(size * one, COVARIANCE, tail).es == pytest.approx(size * alone.es, abs=1e-4)
    assert together.es <= alone.es + book_tail_loss(other, COVARIANCE, tail).es + 1e-6
    assert together.var <= alone.var + book_tail_loss(other, COVARIANCE, tail).var + 1e-6


@pytest.mark.parametrize("family", ["gaussian", "student_t", "cornish_fisher"])
@given(sure=st.floats(-100.0, 100.0))
def test_a_sure_loss_adds_itself(family: Family, sure: float) -> None:
    losses = np.random.default_rng(5).standard_t(6, 300)
    before = losses_tail_loss(losses, 0.99, family, mean="sample")
    after = losses_tail_loss(losses + sure, 0.99, family, mean="sample")

    assert after.var == pytest.approx(before.var + sure, abs=1e-3)
    assert after.es == pytest.approx(before.es + sure, abs=1e-3)


def test_losses_are_taken_with_the_sample_deviation_and_a_zero_mean_unless_asked() -> None:
    losses = np.tile([1.0, 3.0], 20)
    deviation = math.sqrt(40 / 39)

    assert losses_tail_loss(losses, 0.95).var == pytest.approx(1.644854 * deviation, abs=1e-5)
    assert losses_tail_loss(losses, 0.95, mean="sample").var == pytest.approx(2.0 + 1.644854 * deviation, abs=1e-5)


def test_a_long_tail_of_losses_raises_cornish_fisher_above_the_normal() -> None:
    losses = np.random.default_rng(2).gumbel(size=2000)
    mirrored = 2.0 * losses.mean() - losses

    assert losses_tail_loss(losses, 0.99, "cornish_fisher").var > losses_tail_loss(losses, 0.99).var
    assert losses_tail_loss(mirrored, 0.99, "cornish_fisher").var < losses_tail_loss(losses, 0.99).var


@pytest.mark.parametrize("nu", [3.0, 5.0, 12.0])
def test_degrees_of_freedom_are_the_likeliest_by_arch(nu: float) -> None:
    """arch's StudentsT has the same unit variance: its likelihood, maximised over ν alone by scipy, is the oracle."""
    observed = t_sample(nu, 2000, columns=3, seed=int(nu))
    fitted = fit_degrees_of_freedom(observed)
    for place, series in enumerate(observed.T):
        standardised = (series - series.mean()) / series.std(ddof=1)
        best = minimize_scalar(
            lambda guess, data=standardised: -StudentsT().loglikelihood(np.array([guess]), data, np.ones_like(data)),
            bounds=(2.5, 100.0),
            method="bounded",
            options={"xatol": 1e-6},
        )
        assert fitted[place] == pytest.approx(best.x, rel=1e-3)


def test_fitting_many_series_is_fitting_each() -> None:
    observed = t_sample(4.0, 300, columns=5)

    alone = [fit_degrees_of_freedom(series[:, None])[0] for series in observed.T]
    np.testing.assert_allclose(fit_degrees_of_freedom(observed), alone)


def test_normal_observations_have_many_degrees_of_freedom_and_wild_ones_warn() -> None:
    normal = np.random.default_rng(1).standard_normal(5000)
    wild = np.random.default_rng(1).standard_t(1.2, 2000)

    assert tail_of("student_t", 0.99, normal).degrees_of_freedom == pytest.approx(100.0, rel=0.5)
    assert tail_of("student_t", 0.99, normal).warnings == ()
    (warning,) = tail_of("student_t", 0.99, wild).warnings
    assert "lower bound of 2.5" in warning


def test_skewness_and_kurtosis_are_scipys() -> None:
    pnl = np.random.default_rng(4).gumbel(size=500)

    assert skewness_and_excess_kurtosis(pnl) == pytest.approx((stats.skew(pnl), stats.kurtosis(pnl)))


@pytest.mark.parametrize(
    ("nu", "confidence", "said"),
    [(2.0, 0.99, "degrees_of_freedom"), (math.nan, 0.99, "degrees_of_freedom"), (4.0, 1.0, "confidence")],
)
def test_it_refuses_a_tail_without_a_variance(nu: float, confidence: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        student_t_tail(confidence, nu)


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (np.arange(29.0), "at least 30 observations, got 29"),
        (np.ones(50), "constant series"),
        (np.append(np.arange(50.0), np.nan), "finite"),
    ],
)
def test_it_refuses_losses_that_say_nothing(observed: Floats, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        losses_tail_loss(observed, 0.99)
    with pytest.raises(ValueError, match=said):
        fit_degrees_of_freedom(observed[:, None])


def test_it_refuses_moments_that_no_distribution_has() -> None:
    with pytest.raises(ValueError, match="excess_kurtosis"):
        cornish_fisher_tail(0.99, 2.0, 1.0)


def test_it_refuses_a_book_that_does_not_fit_its_covariance() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(2, 2\), got \(3, 3\)"):
        deviation_of(np.ones(2), np.eye(3))
    with pytest.raises(ValueError, match="positive semi-definite"):
        deviation_of(np.array([1.0, -1.0]), np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="orders"):
        worst_case_deviation(np.ones(2), np.eye(2), np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="mean"):
        book_tail_loss(np.ones(2), np.eye(2), gaussian_tail(0.99), mean=np.array([0.0, math.nan]))
    with pytest.raises(ValueError, match="deviation"):
        tail_loss(0.0, math.nan, Tail("gaussian", 0.99, 1.0, 1.0))
