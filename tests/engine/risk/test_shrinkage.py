"""The shrunk covariance: the paper's own formula in slow loops, scikit-learn, and the identities of its factors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from engine.risk.shrinkage import correlation_of, floored_cholesky, shrunk_covariance, shrunk_factors

Floats = NDArray[np.float64]


def market(days: int, n: int, seed: int = 1) -> Floats:
    rng = np.random.default_rng(seed)
    return 0.01 * (rng.standard_normal((days, 1)) + rng.standard_t(5, (days, n)) * rng.uniform(0.5, 2.0, n))


def reference(returns: Floats) -> tuple[Floats, float]:
    """Ledoit and Wolf 2004, section 3.2, term by term: m, d², b̄² and b² with the norm ||A||² = tr(AAᵀ)/n."""
    days, n = returns.shape
    centred = returns - returns.mean(axis=0)
    sample = centred.T @ centred / days
    m = np.trace(sample) / n
    d2 = ((sample - m * np.eye(n)) ** 2).sum() / n
    b2 = sum(((np.outer(day, day) - sample) ** 2).sum() / n for day in centred) / days**2
    intensity = min(b2, d2) / d2
    return intensity * m * np.eye(n) + (1 - intensity) * sample, intensity


@pytest.mark.parametrize(("days", "n"), [(50, 3), (250, 12), (20, 40)])
def test_it_is_the_papers_formula(days: int, n: int) -> None:
    returns = market(days, n)
    covariance, intensity = shrunk_covariance(returns)
    by_hand, intensity_by_hand = reference(returns)

    assert intensity == pytest.approx(intensity_by_hand, rel=1e-10)
    np.testing.assert_allclose(covariance, by_hand, rtol=1e-9, atol=1e-16)
    np.testing.assert_allclose(covariance, LedoitWolf().fit(returns).covariance_, rtol=1e-9, atol=1e-16)


@given(st.integers(2, 40), st.integers(1, 30), st.integers(0, 9))
def test_the_factors_are_the_same_matrix(days: int, n: int, seed: int) -> None:
    returns = market(days, n, seed)
    covariance, intensity = shrunk_covariance(returns)
    factors = shrunk_factors(returns)
    values = np.random.default_rng(seed).normal(0, 1e5, n)

    assert factors.intensity == pytest.approx(intensity, abs=1e-9)
    np.testing.assert_allclose(
        factors.loadings.T @ factors.loadings + np.diag(factors.noise), covariance, rtol=1e-7, atol=1e-13
    )
    np.testing.assert_allclose(factors.variances(), np.diagonal(covariance), rtol=1e-9)
    np.testing.assert_allclose(factors.covariance_with(values), covariance @ values, rtol=1e-6, atol=1e-6)
    assert factors.variance_of(values) == pytest.approx(values @ covariance @ values, rel=1e-6)


def test_what_never_moves_has_no_risk_and_changes_nothing_else() -> None:
    returns = market(100, 4)
    with_cash = np.insert(returns, 2, 0.0001, axis=1)
    covariance, intensity = shrunk_covariance(with_cash)
    alone, intensity_alone = shrunk_covariance(returns)

    assert intensity == pytest.approx(intensity_alone)
    assert (covariance[2] == 0.0).all() and (covariance[:, 2] == 0.0).all()
    np.testing.assert_allclose(np.delete(np.delete(covariance, 2, 0), 2, 1), alone)
    assert shrunk_factors(with_cash).variances()[2] == pytest.approx(0.0, abs=1e-30)


def test_one_series_is_its_own_variance_with_divisor_t() -> None:
    covariance, intensity = shrunk_covariance(np.array([[0.01], [0.03]]))

    assert covariance[0, 0] == pytest.approx(0.0001)
    assert intensity == 0.0


def test_a_correlation_has_ones_where_it_should() -> None:
    covariance = np.array([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])

    np.testing.assert_allclose(correlation_of(covariance), [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])


def test_a_sound_correlation_is_factored_as_it_is() -> None:
    correlation = correlation_of(shrunk_covariance(market(300, 8))[0])
    factor, raised = floored_cholesky(correlation)

    assert not raised
    np.testing.assert_allclose(factor @ factor.T, correlation, atol=1e-14)


def test_eigenvalues_below_the_floor_are_raised_to_it() -> None:
    """Eigenvalues 1.9, 1.9 and -0.8, the last of (1, -1, 1)/√3: raising it to 0.01 adds 0.27 everywhere, signed."""
    impossible = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    factor, raised = floored_cholesky(impossible, eigenvalue_min=0.01)
    repaired = factor @ factor.T

    assert raised
    np.testing.assert_allclose(np.diagonal(repaired), 1.0)
    assert np.linalg.eigvalsh(repaired).min() > 0.005
    assert repaired[0, 1] == pytest.approx((0.9 - 0.27) / 1.27)


def test_two_series_that_are_one_are_factored_too() -> None:
    factor, raised = floored_cholesky(np.ones((2, 2)))

    assert raised
    np.testing.assert_allclose(factor @ factor.T, np.ones((2, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (np.full((1, 3), 0.1), "at least 2 days, got 1"),
        (np.array([[0.1, np.nan], [0.1, 0.2]]), "column 1"),
        (np.zeros((5, 2)), "at least one column that moves"),
        (np.zeros(5), "expected shape"),
    ],
)
def test_it_refuses_what_has_no_covariance(returns: Floats, said: str) -> None:
    for estimate in (shrunk_covariance, shrunk_factors):
        with pytest.raises(ValueError, match=said):
            estimate(returns)


@pytest.mark.parametrize(
    ("covariance", "said"),
    [
        (np.ones((2, 3)), "square"),
        (np.array([[1.0, 0.5], [0.2, 1.0]]), "symmetric"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "finite"),
        (np.diag([1.0, -1.0]), "variances of 0 or more, got -1"),
    ],
)
def test_it_refuses_what_is_no_covariance(covariance: Floats, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        correlation_of(covariance)
