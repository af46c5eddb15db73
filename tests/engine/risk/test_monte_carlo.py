"""Simulated P&L against closed forms (multivariate t, normal), its fitted parts against scipy, and its bookkeeping.

Tolerances are multiples of the quantile's standard error at the number of paths; every seed is fixed.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from engine.risk.monte_carlo import (
    Copula,
    PathModel,
    Revaluation,
    fit_path_model,
    path_blocks,
    simulate,
    simulated_pnl,
    worst_pnl,
)
from engine.risk.parametric import gaussian_tail, student_t_tail
from engine.risk.shrinkage import correlation_of, shrunk_covariance
from engine.risk.var import expected_shortfall, value_at_risk

Floats = NDArray[np.float64]
NAN = float("nan")
CORRELATION = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]])
DEVIATIONS = np.array([0.01, 0.02, 0.03])
VALUES = np.array([3e5, -1e5, 2e5])


def path_model(
    nu: float, copula_nu: float | None = None, mean: Floats | None = None, correlation: Floats = CORRELATION
) -> PathModel:
    return PathModel(
        mean=np.zeros(3) if mean is None else mean,
        deviations=DEVIATIONS,
        degrees_of_freedom=np.full(3, nu),
        mix=np.asarray(np.linalg.cholesky(correlation), dtype=np.float64),
        own=None,
        copula="gaussian" if copula_nu is None else "student_t",
        copula_degrees_of_freedom=copula_nu,
        n_observations=756,
    )


def market(days: int, n: int, seed: int = 1, common_nu: float | None = None) -> Floats:
    rng = np.random.default_rng(seed)
    shocks = rng.standard_normal((days, 1)) + rng.standard_normal((days, n))
    scale = 1.0 if common_nu is None else np.sqrt(common_nu / rng.chisquare(common_nu, (days, 1)))
    return np.asarray(0.01 * shocks * scale * np.linspace(0.5, 2.0, n))


def deviation() -> float:
    exposure = VALUES * DEVIATIONS
    return math.sqrt(exposure @ CORRELATION @ exposure)


def draw(model: PathModel, n_paths: int = 200_000, seed: int = 5) -> Floats:
    return simulated_pnl(model, VALUES, VALUES, np.random.default_rng(seed), n_paths)


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_equal_degrees_in_marginals_and_copula_are_the_multivariate_t(confidence: float) -> None:
    pnl = draw(path_model(4.0, copula_nu=4.0))
    exact = student_t_tail(confidence, 4.0)

    assert value_at_risk(-pnl, confidence) == pytest.approx(exact.var * deviation(), rel=0.015)
    assert expected_shortfall(-pnl, confidence) == pytest.approx(exact.es * deviation(), rel=0.03)


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_many_degrees_are_the_normal(confidence: float) -> None:
    pnl = draw(path_model(1e5))
    exact = gaussian_tail(confidence)

    assert value_at_risk(-pnl, confidence) == pytest.approx(exact.var * deviation(), rel=0.01)
    assert expected_shortfall(-pnl, confidence) == pytest.approx(exact.es * deviation(), rel=0.01)


@pytest.mark.parametrize("copula_nu", [None, 3.0, 10.0])
@pytest.mark.parametrize("nu", [2.5, 4.0, 30.0])
def test_each_marginal_is_its_student_t(nu: float, copula_nu: float | None) -> None:
    """Kolmogorov-Smirnov on the drawn half: their mirror images are no independent observations."""
    paths = simulate(path_model(nu, copula_nu), np.random.default_rng(2), 20_000)
    unit = stats.t(nu, scale=math.sqrt((nu - 2.0) / nu))
    for place in range(3):
        assert stats.kstest(paths.returns[place] / DEVIATIONS[place], unit.cdf).pvalue > 0.001


@pytest.mark.parametrize("copula_nu", [None, 3.0])
@pytest.mark.parametrize("nu", [2.5, 4.0, 30.0])
def test_the_tables_are_the_exact_quantiles_but_for_a_thousandth(nu: float, copula_nu: float | None) -> None:
    """The same draws, taken to the Student-t by scipy's distribution functions one by one."""
    rng = np.random.default_rng(7)
    draws = rng.standard_normal((3, 500))
    probabilities = stats.norm.cdf(draws)
    if copula_nu is not None:
        probabilities = stats.t.cdf(draws * np.sqrt(copula_nu / rng.chisquare(copula_nu, 500)), copula_nu)
    exact = DEVIATIONS[:, None] * math.sqrt((nu - 2.0) / nu) * stats.t.ppf(probabilities, nu)
    paths = simulate(path_model(nu, copula_nu, correlation=np.eye(3)), np.random.default_rng(7), 1_000)

    np.testing.assert_allclose(paths.returns, exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("copula_nu", [None, 4.0])
def test_ranks_correlate_as_the_copula_says(copula_nu: float | None) -> None:
    """Kendall's tau of every elliptical copula is 2/π·arcsin ρ, whatever the marginals are."""
    paths = simulate(path_model(5.0, copula_nu), np.random.default_rng(3), 20_000)

    for one, other in ((0, 1), (0, 2), (1, 2)):
        tau = stats.kendalltau(paths.returns[one], paths.returns[other]).statistic
        assert tau == pytest.approx(2.0 / math.pi * math.asin(CORRELATION[one, other]), abs=0.025)


def test_a_t_copula_falls_together_and_a_gaussian_one_does_not() -> None:
    independent = np.eye(3)

    def joint_falls(copula_nu: float | None) -> float:
        returns = simulate(
            path_model(5.0, copula_nu, correlation=independent), np.random.default_rng(4), 100_000
        ).returns
        low = returns < np.quantile(returns, 0.01, axis=1)[:, None]
        return float((low[0] & low[1]).mean())

    assert joint_falls(None) == pytest.approx(0.0001, abs=0.00015)
    assert joint_falls(3.0) > 0.0007


def test_each_path_has_its_mirror_image_about_the_mean() -> None:
    mean = np.array([0.001, -0.002, 0.0])
    paths = simulate(path_model(4.0, mean=mean), np.random.default_rng(1), 400)
    whole = paths.matrix()

    assert paths.n_paths == 400 and whole.shape == (400, 3)
    np.testing.assert_allclose(whole.mean(axis=0), mean, atol=1e-15)
    np.testing.assert_allclose(whole[200:], 2.0 * mean - whole[:200])
    np.testing.assert_allclose(paths.pnl(VALUES, VALUES), whole @ VALUES, atol=1e-6)


@pytest.mark.parametrize("copula_nu", [None, 4.0])
def test_the_same_seed_gives_the_same_paths_kept_or_streamed(copula_nu: float | None) -> None:
    model = path_model(4.0, copula_nu)
    kept = simulate(model, np.random.default_rng(9), 2_400).pnl(VALUES, VALUES)
    streamed = simulated_pnl(model, VALUES, VALUES, np.random.default_rng(9), 2_400)
    other = simulated_pnl(model, VALUES, VALUES, np.random.default_rng(10), 2_400)

    np.testing.assert_allclose(np.sort(kept), np.sort(streamed))
    assert not np.allclose(np.sort(kept), np.sort(other))


@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(0.0, 1e5)), min_size=3, max_size=3))
def test_open_orders_lose_at_the_worse_end_path_by_path(ends: list[tuple[float, float]]) -> None:
    low = np.array([end for end, _ in ends])
    high = low + np.array([more for _, more in ends])
    returns = np.random.default_rng(1).normal(0.0, 0.02, (3, 50))
    slow = [
        sum(min(move * low[place], move * high[place]) for place, move in enumerate(path))
        for path in returns.T.tolist()
    ]

    np.testing.assert_allclose(worst_pnl(returns, low, high), slow, atol=1e-6)


def test_a_book_with_open_orders_is_read_off_all_paths() -> None:
    model, low, high = path_model(4.0, mean=np.full(3, 0.001)), VALUES - 1e5, VALUES + 5e4
    paths = simulate(model, np.random.default_rng(6), 600)
    slow = np.minimum(paths.matrix() * low, paths.matrix() * high).sum(axis=1)

    np.testing.assert_allclose(paths.pnl(low, high), slow, atol=1e-6)


def test_options_that_are_linear_are_worth_what_the_line_is() -> None:
    model, nothing = path_model(4.0, mean=np.full(3, 0.001)), np.zeros(3)
    revaluation = Revaluation(
        lambda returns: returns[:, :2] * 100.0, low=np.array([1.0, -4.0]), high=np.array([3.0, -4.0])
    )
    as_options = simulated_pnl(model, nothing, nothing, np.random.default_rng(1), 1_400, revaluation)
    as_lines = simulated_pnl(
        model, np.array([100.0, -400.0, 0.0]), np.array([300.0, -400.0, 0.0]), np.random.default_rng(1), 1_400
    )

    np.testing.assert_allclose(as_options, as_lines, atol=1e-9)


def test_a_short_straddle_loses_on_both_sides() -> None:
    revaluation = Revaluation(lambda returns: np.abs(returns[:, :1]) * 1e6, low=np.array([-1.0]), high=np.array([-1.0]))
    model = path_model(1e5)
    pnl = simulated_pnl(model, np.zeros(3), np.zeros(3), np.random.default_rng(1), 100_000, revaluation)

    assert value_at_risk(-pnl, 0.95) == pytest.approx(1e6 * 0.01 * stats.norm.ppf(0.975), rel=0.02)


def test_fitting_takes_the_deviation_and_the_shrunk_correlation() -> None:
    returns = market(756, 6)
    model = fit_path_model(returns)

    np.testing.assert_allclose(model.deviations, returns.std(axis=0, ddof=1))
    np.testing.assert_allclose(model.mix @ model.mix.T, correlation_of(shrunk_covariance(returns)[0]), atol=1e-12)
    assert (model.mean == 0.0).all() and model.n_observations == 756
    np.testing.assert_allclose(fit_path_model(returns, mean="sample").mean, returns.mean(axis=0))


def test_marginals_get_their_own_degrees_of_freedom() -> None:
    rng = np.random.default_rng(8)
    returns = np.column_stack((rng.standard_t(3, 4000), rng.standard_t(8, 4000), rng.standard_normal(4000)))
    degrees = fit_path_model(returns).degrees_of_freedom

    assert degrees[0] == pytest.approx(3.0, rel=0.1)
    assert degrees[1] == pytest.approx(8.0, rel=0.25)
    assert degrees[2] > 30.0


@pytest.mark.parametrize("nu", [3.0, 6.0, 14.0])
def test_the_copulas_degrees_of_freedom_are_found(nu: float) -> None:
    fitted = fit_path_model(market(3000, 8, seed=int(nu), common_nu=nu), "student_t").copula_degrees_of_freedom

    assert fitted is not None
    assert nu / 1.5 <= fitted <= nu * 1.5
    assert (fit_path_model(market(3000, 8), "student_t").copula_degrees_of_freedom or 0.0) >= 35.0


def test_more_instruments_than_days_are_drawn_from_the_same_shrunk_correlation() -> None:
    returns = market(60, 90)
    model = fit_path_model(returns)
    correlation = correlation_of(shrunk_covariance(returns)[0])

    assert model.own is not None and model.mix.shape == (90, 60)
    np.testing.assert_allclose(model.mix @ model.mix.T + np.diag(model.own**2), correlation, atol=1e-9)
    own_risk = np.random.default_rng(1).standard_normal((60, 90)) @ (np.eye(90) + 0.03)
    spread_out = fit_path_model(own_risk)
    drawn = simulate(spread_out, np.random.default_rng(2), 4_000).returns.std(axis=1) / spread_out.deviations
    assert drawn.mean() == pytest.approx(1.0, abs=0.02)
    values = np.linspace(-1e5, 2e5, 90)
    pnl = simulated_pnl(model, values, values, np.random.default_rng(1), 20_000)
    exposure = values * model.deviations
    assert pnl.std() == pytest.approx(math.sqrt(exposure @ correlation @ exposure), rel=0.05)


def test_what_never_moves_stays_put() -> None:
    returns = np.insert(market(300, 2), 1, 0.0, axis=1)
    model = fit_path_model(returns)
    paths = simulate(model, np.random.default_rng(1), 1_000)

    assert (paths.returns[1] == 0.0).all()
    assert np.isnan(model.degrees_of_freedom[1]) and model.deviations[1] == 0.0
    assert paths.returns[2].std() == pytest.approx(model.deviations[2], rel=0.15)


def test_blocks_are_bounded() -> None:
    sizes = [block.n_paths for block in path_blocks(path_model(4.0), np.random.default_rng(1), 2_400)]

    assert sizes == [1000, 1000, 400]


@pytest.mark.parametrize(
    ("returns", "copula", "given_nu", "said"),
    [
        (market(29, 2), "gaussian", None, "at least 30 observations, got 29"),
        (np.zeros((50, 2)), "gaussian", None, "at least one column that moves"),
        (np.full((50, 2), NAN), "gaussian", None, "finite"),
        (market(50, 2), "gaussian", 4.0, "expected none for a gaussian copula"),
        (market(50, 2), "student_t", 2.0, "above 2"),
        (market(50, 60), "student_t", None, "more instruments than days"),
        (market(50, 2), "clayton", None, "gaussian or student_t"),
    ],
)
def test_it_refuses_to_fit(returns: Floats, copula: Copula, given_nu: float | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_path_model(returns, copula, given_nu)


@pytest.mark.parametrize(
    ("low", "high", "n_paths", "said"),
    [
        (VALUES, VALUES, 1_001, "even number"),
        (VALUES, VALUES, 0, "even number"),
        (VALUES[:2], VALUES, 1_000, "shape"),
        (VALUES, VALUES - 1.0, 1_000, "low nowhere above high"),
        (VALUES * NAN, VALUES, 1_000, "finite"),
    ],
)
def test_it_refuses_to_simulate(low: Floats, high: Floats, n_paths: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        simulated_pnl(path_model(4.0), low, high, np.random.default_rng(1), n_paths)


@pytest.mark.parametrize("wrong", [np.zeros((5, 1)), np.full((200, 1), NAN), np.zeros((200, 2))])
def test_it_refuses_a_revaluation_that_is_no_pnl(wrong: Floats) -> None:
    revaluation = Revaluation(lambda returns: wrong, low=np.ones(1), high=np.ones(1))
    with pytest.raises(ValueError, match=r"revalue: expected \(200, 1\) finite"):
        simulated_pnl(path_model(4.0), VALUES, VALUES, np.random.default_rng(1), 400, revaluation)
