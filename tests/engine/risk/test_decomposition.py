"""Decomposition of VaR and ES: hand numbers, finite differences and a slow reference, Euler's sum as a property.

Covariances are shrinkage.py's factors over drawn or real returns; references form the n × n matrix and walk the days.
"""

import itertools
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf

from engine.risk.decomposition import (
    NO_AVERAGE,
    NO_RISK,
    Decomposition,
    Measure,
    Positions,
    given_contributions,
    historical_decomposition,
    parametric_decomposition,
)
from engine.risk.shrinkage import ShrunkFactors, shrunk_factors
from engine.risk.var import Quantile, expected_shortfall, value_at_risk
from gateway.market.prices import sample_us_stocks

MEASURES = st.sampled_from(["var", "es"])
SEEDS = st.integers(0, 10_000)
EXACT = 1e-10
"""Relative to what the positions have at stake apart."""

Floats = NDArray[np.float64]


def market(n_days: int, n_columns: int, seed: int = 1) -> Floats:
    """Returns with one common factor and fat tails, column-major as the risk model keeps them."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_t(4, (n_days, 1)), rng.standard_t(4, (n_days, n_columns))
    return np.asfortranarray(0.006 * common + 0.008 * own)


def book(n_positions: int, n_columns: int, seed: int = 1, open_orders: bool = True) -> Positions:
    """Long and short, several positions in one instrument."""
    rng = np.random.default_rng(seed)
    held = rng.normal(0.0, 1e5, n_positions)
    sells, buys = rng.uniform(0.0, 2e4, (2, n_positions)) * open_orders
    columns = rng.integers(0, n_columns, n_positions)
    return Positions.of(names(n_positions), held, held - sells, held + buys, columns)


def names(count: int) -> list[str]:
    return [f"P{place}" for place in range(count)]


def two_assets(variance: Floats | list[float], covariance: float) -> ShrunkFactors:
    """Factors whose covariance is exactly the 2 × 2 matrix given."""
    matrix = np.array([[variance[0], covariance], [covariance, variance[1]]])
    return ShrunkFactors(loadings=np.linalg.cholesky(matrix).T, noise=np.zeros(2), intensity=0.0)


def reference_sigma(covariance: Floats, positions: Positions) -> float:
    """σ(w) + Σ|q|σ on the full matrix."""
    held = positions.by_column(len(covariance))
    deviations = np.sqrt(np.diagonal(covariance))[positions.columns]
    return float(np.sqrt(held @ covariance @ held) + (positions.high - positions.low) @ deviations)


def without(positions: Positions, rows: NDArray[np.bool_]) -> Positions:
    kept = [place for place in range(len(positions)) if not rows[place]]
    return Positions.of(
        [positions.labels[place] for place in kept],
        positions.held[kept],
        positions.low[kept],
        positions.high[kept],
        positions.columns[kept],
    )


def alone(positions: Positions, rows: NDArray[np.bool_]) -> Positions:
    return without(positions, ~rows)


def row(place: int, count: int) -> NDArray[np.bool_]:
    return np.asarray(np.arange(count) == place)


def losses_of(positions: Positions, returns: Floats) -> list[float]:
    """Day by day and position by position, the worse end of each."""
    return [
        sum(
            -min(low * day[column], high * day[column])
            for low, high, column in zip(positions.low, positions.high, positions.columns, strict=True)
        )
        for day in returns
    ]


def historical_total(
    positions: Positions, returns: Floats, confidence: float, measure: Measure, quantile: Quantile = "order_statistic"
) -> float:
    losses = losses_of(positions, returns)
    return expected_shortfall(losses, confidence) if measure == "es" else value_at_risk(losses, confidence, quantile)


def test_two_positions_by_hand() -> None:
    """σ 2 % and 1 %, correlation 0.5: variance of 100 and 200 is 4 + 4 + 2·0.5·2·2 = 12."""
    covariance = two_assets([0.0004, 0.0001], 0.0001)

    parts = parametric_decomposition(Positions.of(["A", "B"], [100.0, 200.0]), covariance, 0.99)

    z = 2.3263478740408408
    assert parts.total == pytest.approx(z * 12**0.5)
    assert parts.component == pytest.approx([z * 6 / 12**0.5, z * 6 / 12**0.5])
    assert parts.shares == pytest.approx([0.5, 0.5])
    assert parts.marginal == pytest.approx([z * 0.06 / 12**0.5, z * 0.03 / 12**0.5])
    assert parts.standalone == pytest.approx([z * 2.0, z * 2.0])
    assert parts.incremental == pytest.approx([z * (12**0.5 - 2.0)] * 2)


def test_es_by_hand_is_var_times_the_mean_beyond_the_quantile() -> None:
    covariance = two_assets([0.0004, 0.0001], 0.0001)

    parts = parametric_decomposition(Positions.of(["A", "B"], [100.0, 200.0]), covariance, 0.95, "es")

    assert parts.total == pytest.approx(2.0627128075 * 12**0.5)
    assert parts.total == pytest.approx(norm.expect(lambda x: x, lb=norm.ppf(0.95), conditional=True) * 12**0.5)


def test_a_hedge_contributes_less_than_nothing() -> None:
    covariance = two_assets([0.0004, 0.0001], 0.00018)

    parts = parametric_decomposition(Positions.of(["A", "hedge"], [100.0, -50.0]), covariance, 0.99)

    assert parts.component[1] < 0.0 < parts.component[0]
    assert parts.incremental[1] < 0.0
    assert parts.standalone[1] > 0.0


def test_open_orders_add_their_own_risk_each() -> None:
    covariance = two_assets([0.0004, 0.0001], 0.0)

    parts = parametric_decomposition(
        Positions.of(["A", "B"], [100.0, 0.0], [80.0, 0.0], [110.0, 40.0]), covariance, 0.99
    )

    z = 2.3263478740408408
    assert parts.component == pytest.approx([z * (2.0 + 30 * 0.02), z * 40 * 0.01])
    assert parts.standalone == pytest.approx(parts.component)
    assert parts.incremental == pytest.approx(parts.component)
    assert parts.total == pytest.approx(z * 3.0)


@given(SEEDS, MEASURES, st.sampled_from([0.9, 0.95, 0.99]))
def test_parametric_components_sum_to_the_total_on_the_shrunk_matrix(
    seed: int, measure: Measure, confidence: float
) -> None:
    returns, positions = market(120, 6, seed), book(9, 6, seed)
    matrix, intensity = ledoit_wolf(returns)

    parts = parametric_decomposition(positions, shrunk_factors(returns), confidence, measure)

    z = norm.ppf(confidence)
    multiplier = z if measure == "var" else norm.pdf(z) / (1 - confidence)
    assert parts.total == pytest.approx(multiplier * reference_sigma(matrix, positions), rel=EXACT)
    assert parts.component.sum() == pytest.approx(parts.total, rel=EXACT)
    assert parts.shares is not None and parts.shares.sum() == pytest.approx(1.0, rel=EXACT)
    assert parts.intensity == pytest.approx(intensity)
    assert parts.n_observations == 120


@given(SEEDS)
def test_parametric_marginal_is_the_slope_of_the_total(seed: int) -> None:
    returns, positions = market(120, 6, seed), book(6, 6, seed)
    covariance = shrunk_factors(returns)

    parts = parametric_decomposition(positions, covariance, 0.99)

    for place in range(len(positions)):
        bump = 10.0 * row(place, len(positions))
        up, down = (
            parametric_decomposition(
                Positions.of(
                    positions.labels,
                    positions.held + step,
                    positions.low + step,
                    positions.high + step,
                    positions.columns,
                ),
                covariance,
                0.99,
            ).total
            for step in (bump, -bump)
        )
        assert (up - down) / 20.0 == pytest.approx(parts.marginal[place], abs=1e-6)


@given(SEEDS, MEASURES)
def test_parametric_parts_equal_books_with_and_without_them(seed: int, measure: Measure) -> None:
    returns, positions = market(90, 5, seed), book(8, 5, seed)
    sectors = ["x", "y", "x", "z", "y", "x", "z", "z"]
    covariance = shrunk_factors(returns)

    def total(some: Positions) -> float:
        return parametric_decomposition(some, covariance, 0.95, measure).total

    parts = parametric_decomposition(positions, covariance, 0.95, measure, {"sector": sectors})

    check_parts(parts, positions, sectors, total)


@given(SEEDS, MEASURES)
def test_historical_parts_equal_books_with_and_without_them(seed: int, measure: Measure) -> None:
    returns, positions = market(110, 5, seed), book(8, 5, seed)
    sectors = ["x", "y", "x", "z", "y", "x", "z", "z"]

    def total(some: Positions) -> float:
        return historical_total(some, returns, 0.95, measure)

    parts = historical_decomposition(positions, returns, 0.95, measure, groupings={"sector": sectors})

    check_parts(parts, positions, sectors, total)


def check_parts(
    parts: Decomposition, positions: Positions, sectors: list[str], total: Callable[[Positions], float]
) -> None:
    at_stake = float(parts.standalone.sum())
    near: dict[str, Any] = {"rel": 1e-8, "abs": EXACT * at_stake}
    assert parts.total == pytest.approx(total(positions), **near)
    for place in range(len(positions)):
        one = row(place, len(positions))
        assert parts.standalone[place] == pytest.approx(total(alone(positions, one)), **near)
        assert parts.incremental[place] == pytest.approx(parts.total - total(without(positions, one)), **near)
    groups = parts.groups["sector"]
    assert {group.label: group.n_positions for group in groups} == {"x": 3, "y": 2, "z": 3}
    assert sum(group.component for group in groups) == pytest.approx(parts.total, **near)
    assert [group.component for group in groups] == sorted((group.component for group in groups), reverse=True)
    for group in groups:
        members = np.array([sector == group.label for sector in sectors])
        assert group.component == pytest.approx(parts.component[members].sum(), **near)
        assert group.standalone == pytest.approx(total(alone(positions, members)), **near)
        assert group.incremental == pytest.approx(parts.total - total(without(positions, members)), **near)
        assert group.share == (pytest.approx(group.component / parts.total) if parts.total > 0 else None)


@given(SEEDS, MEASURES, st.sampled_from(["order_statistic", "linear"]), st.sampled_from([0.9, 0.95, 0.975]))
def test_historical_components_sum_to_var_and_es_of_the_losses(
    seed: int, measure: Measure, quantile: Quantile, confidence: float
) -> None:
    returns, positions = market(107, 6, seed), book(9, 6, seed)

    parts = historical_decomposition(positions, returns, confidence, measure, quantile)

    assert parts.total == pytest.approx(historical_total(positions, returns, confidence, measure, quantile), rel=1e-9)
    assert parts.component.sum() == pytest.approx(parts.total, abs=EXACT * parts.standalone.sum())


def test_historical_components_are_the_losses_of_the_tail_by_hand() -> None:
    """25 days at 90 %: 2.5 of them are the tail; the third counts half."""
    returns = np.zeros((25, 2))
    returns[[3, 11, 20]] = [[-0.10, 0.02], [-0.03, -0.05], [0.01, -0.07]]
    positions = Positions.of(["A", "B"], [100.0, 100.0])  # losses 8, 8, 6, and 0 on all other days

    var = historical_decomposition(positions, returns, 0.9)
    es = historical_decomposition(positions, returns, 0.9, "es")

    assert var.total == pytest.approx(6.0)
    assert es.total == pytest.approx((8 + 8 + 3) / 2.5)
    assert var.component == pytest.approx([-1.0, 7.0])
    assert es.component == pytest.approx([(10 + 3 - 0.5) / 2.5, (-2 + 5 + 3.5) / 2.5])
    assert es.marginal == pytest.approx(es.component / 100.0)


def test_days_with_the_very_loss_of_the_var_share_its_weight() -> None:
    returns = np.zeros((20, 2))
    returns[[2, 5]] = [[-0.06, 0.0], [0.0, -0.06]]

    for measure in ("var", "es"):
        parts = historical_decomposition(Positions.of(["A", "B"], [100.0, 100.0]), returns, 0.95, measure)
        assert parts.component == pytest.approx([3.0, 3.0])


def test_open_orders_are_at_their_worse_end_each_day() -> None:
    returns = np.zeros((20, 2))
    returns[4] = [-0.10, 0.10]
    positions = Positions.of(["A", "B"], [100.0, 100.0], [100.0, -50.0], [150.0, 120.0])

    parts = historical_decomposition(positions, returns, 0.95, "es")

    assert parts.component == pytest.approx([15.0, 5.0])


def test_the_linear_quantile_weighs_its_two_days() -> None:
    """100 days at 95 %: place 94.05 of 0 to 99 from below, 95 % of the loss of 95 and 5 % of that of 96."""
    losses = np.arange(1.0, 101.0)
    positions = Positions.of(["A"], [100.0])

    parts = historical_decomposition(positions, -losses[:, None] / 100.0, 0.95, quantile="linear")

    assert parts.total == pytest.approx(95.05)
    assert parts.component == pytest.approx([95.05])


def test_neighbours_average_over_the_days_about_the_var_and_still_sum_to_it() -> None:
    """Ranks 4, 5, 6 of 100 at 95 % lose 97.8, 96, 95 in all, weights ¼, ½, ¼: 96.2. A has all of the middle one."""
    losses = np.arange(100.0, 0.0, -1.0)
    losses[3] = 97.8
    in_a = np.where(losses == 96.0, losses, 0.0)
    returns = -np.column_stack((in_a, losses - in_a)) / 100.0
    positions = Positions.of(["A", "B"], [100.0, 100.0])

    one_day = historical_decomposition(positions, returns, 0.95)
    averaged = historical_decomposition(positions, returns, 0.95, neighbours=1)

    assert one_day.component == pytest.approx([96.0, 0.0])
    assert averaged.component == pytest.approx([48.0 * 96 / 96.2, 48.2 * 96 / 96.2])
    assert averaged.total == pytest.approx(96.0)
    assert (averaged.neighbours, averaged.warnings) == (1, ())


def test_where_the_average_has_another_sign_than_the_var_its_one_day_counts() -> None:
    returns = np.full((20, 1), 0.05)
    returns[3] = -0.01

    parts = historical_decomposition(Positions.of(["A"], [100.0]), returns, 0.95, neighbours=2)

    assert parts.total == pytest.approx(1.0)
    assert parts.component == pytest.approx([1.0])
    assert (parts.neighbours, parts.warnings) == (0, (NO_AVERAGE,))


def test_a_tail_of_gains_has_components_and_no_shares() -> None:
    parts = historical_decomposition(Positions.of(["A"], [100.0]), np.full((20, 1), 0.01), 0.95)

    assert parts.component == pytest.approx([-1.0])
    assert parts.shares is None


@given(SEEDS, MEASURES, st.floats(0.1, 50.0))
def test_a_book_of_another_size_has_parts_of_that_size(seed: int, measure: Measure, size: float) -> None:
    returns, small = market(100, 4, seed), book(5, 4, seed)
    large = Positions.of(small.labels, small.held * size, small.low * size, small.high * size, small.columns)
    covariance = shrunk_factors(returns)

    for of_small, of_large in (
        (
            parametric_decomposition(small, covariance, 0.95, measure),
            parametric_decomposition(large, covariance, 0.95, measure),
        ),
        (
            historical_decomposition(small, returns, 0.95, measure),
            historical_decomposition(large, returns, 0.95, measure),
        ),
    ):
        close = EXACT * size * of_small.standalone.sum()
        assert of_large.component == pytest.approx(of_small.component * size, abs=close)
        assert of_large.incremental == pytest.approx(of_small.incremental * size, abs=close * 100)
        assert of_large.marginal == pytest.approx(of_small.marginal, abs=1e-9)


@given(SEEDS)
def test_es_of_the_parts_together_is_no_more_than_of_each_alone(seed: int) -> None:
    returns, positions = market(100, 5, seed), book(7, 5, seed)

    parts = historical_decomposition(positions, returns, 0.95, "es")

    assert parts.total <= parts.standalone.sum() * (1 + EXACT)
    assert (parts.component <= parts.standalone * (1 + EXACT) + EXACT * parts.standalone.sum()).all()
    assert (parts.incremental <= parts.standalone + EXACT * parts.standalone.sum()).all()


def test_two_strategies_in_one_instrument_are_one_risk() -> None:
    """The covariance has one column for it, so that shrinkage can't take it for two assets."""
    returns = market(300, 3)
    covariance = shrunk_factors(returns)
    split = Positions.of(["a/X", "b/X", "b/Y"], [300.0, -100.0, 50.0], columns=[0, 0, 1])
    netted = Positions.of(["X", "Y"], [200.0, 50.0], columns=[0, 1])

    by_strategy = parametric_decomposition(split, covariance, 0.99)
    by_symbol = parametric_decomposition(netted, covariance, 0.99)

    assert by_strategy.total == pytest.approx(by_symbol.total)
    assert by_strategy.component[:2].sum() == pytest.approx(by_symbol.component[0])


def test_strategies_that_cancel_have_no_risk_together_and_say_so() -> None:
    returns = market(100, 1)
    positions = Positions.of(["a/X", "b/X"], [0.1 + 0.2, -0.3], columns=[0, 0])

    parametric = parametric_decomposition(positions, shrunk_factors(returns), 0.99)
    historical = historical_decomposition(positions, returns, 0.99)

    for parts in (parametric, historical):
        assert parts.total == pytest.approx(0.0, abs=1e-12)
        assert abs(parts.component.sum()) < 1e-12
        assert NO_RISK in parts.warnings
        assert parts.shares is None
    assert parametric.marginal == pytest.approx(np.full(2, norm.ppf(0.99) * returns.std()))
    assert historical.marginal == pytest.approx(np.full(2, value_at_risk(-returns[:, 0], 0.99)))


def test_a_position_that_is_all_of_the_risk_leaves_none_when_it_goes() -> None:
    returns = market(100, 2)
    positions = Positions.of(["A", "flat"], [1e6, 0.0])

    parts = parametric_decomposition(positions, shrunk_factors(returns), 0.99)

    assert parts.incremental == pytest.approx([parts.total, 0.0])


def test_what_a_vast_position_leaves_is_not_lost_in_its_rounding() -> None:
    """Without it a variance of 1e-16 of the book's is left, of another strategy's unit of the same instrument."""
    returns = market(100, 1)

    parts = parametric_decomposition(
        Positions.of(["a/X", "b/X"], [1e8, 1.0], columns=[0, 0]), shrunk_factors(returns), 0.99
    )

    assert parts.total - parts.incremental[0] == pytest.approx(parts.standalone[1], rel=1e-6)


def test_an_account_without_positions_has_no_risk_and_no_parts() -> None:
    returns = market(100, 2)
    nothing = Positions.of([], [])

    parametric = parametric_decomposition(nothing, shrunk_factors(returns), 0.99, groupings={"sector": []})
    historical = historical_decomposition(nothing, returns, 0.99, groupings={"sector": []})

    for parts in (parametric, historical):
        assert (parts.total, parts.labels, parts.groups, parts.warnings) == (0.0, (), {"sector": ()}, ())


def test_what_never_moved_is_named() -> None:
    returns = market(100, 2)
    returns[:, 1] = 0.0

    parts = parametric_decomposition(Positions.of(["A", "cash"], [1e3, 1e6]), shrunk_factors(returns), 0.99)

    assert parts.component[1] == 0.0
    assert any("no move" in warning and "cash" in warning for warning in parts.warnings)


def test_the_gap_to_the_sample_covariance_is_reported() -> None:
    returns, positions = market(60, 8), book(8, 8)

    parts = parametric_decomposition(positions, shrunk_factors(returns), 0.99)

    sample = norm.ppf(0.99) * reference_sigma(np.cov(returns, rowvar=False), positions)
    assert parts.sample_total == pytest.approx(sample)
    assert parts.sample_gap == pytest.approx(sample - parts.total)


@pytest.mark.parametrize(("pair", "low", "high"), [(("AAPL", "MSFT"), 0.09, 0.11), (("XOM", "CVX"), 0.09, 0.12)])
def test_a_long_short_pair_of_real_stocks_is_off_the_sample_by_more_than_the_warning(
    pair: tuple[str, str], low: float, high: float
) -> None:
    """NUMERICS.md: 9 to 15 %. Twenty stocks, 756 days to 2020-03-31."""
    window = sample_us_stocks().window(date(2020, 4, 1), 757)
    covariance = shrunk_factors(window.closes[1:] / window.closes[:-1] - 1.0)
    columns = [window.symbols.index(symbol) for symbol in pair]

    parts = parametric_decomposition(Positions.of(pair, [1e6, -1e6], columns=columns), covariance, 0.99)

    assert parts.sample_gap is not None
    assert low < -parts.sample_gap / parts.total < high
    assert len(parts.warnings) == 1 and "sample covariance" in parts.warnings[0]


def test_a_gap_of_two_percent_is_no_warning_yet() -> None:
    assert given_contributions([("a", 60.0), ("b", 42.0)], 100.0).warnings == ()
    assert len(given_contributions([("a", 60.0), ("b", 42.1)], 100.0).warnings) == 1
    assert len(given_contributions([("a", 60.0), ("b", 37.9)], 100.0).warnings) == 1


def test_where_shrinkage_leaves_nothing_of_the_sample_there_is_no_total_to_compare_with() -> None:
    covariance = ShrunkFactors(loadings=np.zeros((5, 2)), noise=np.full(2, 0.0001), intensity=1.0)

    parts = parametric_decomposition(Positions.of(["A", "B"], [3.0, 4.0]), covariance, 0.99)

    assert parts.total == pytest.approx(norm.ppf(0.99) * 0.05)
    assert (parts.sample_total, parts.sample_gap) == (None, None)
    assert "shrunk onto its target" in parts.warnings[0]


def test_a_callers_contributions_stand_beside_the_total() -> None:
    given = given_contributions([("momentum", 70.0), ("carry", -20.0), ("", 40.0)], 100.0)

    assert given.components == {"momentum": 70.0, "carry": -20.0, "": 40.0}
    assert given.gap == pytest.approx(-10.0)
    assert "-10.0%" in given.warnings[0]


@pytest.mark.parametrize(
    ("contributions", "total", "message"),
    [
        ([], 1.0, "at least one"),
        ([("a", 1.0), ("a", 2.0)], 1.0, "once and not blank, got 'a'"),
        ([("  ", 1.0)], 1.0, "not blank"),
        ([("a", float("nan"))], 1.0, "finite number for 'a'"),
        ([("a", float("inf"))], 1.0, "finite number for 'a'"),
        ([("a", 1.0)], float("nan"), "total"),
    ],
)
def test_contributions_that_say_nothing_are_refused(
    contributions: list[tuple[str, float]], total: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        given_contributions(contributions, total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"held": [1.0]}, "held: expected shape"),
        ({"held": [1.0, float("nan")]}, "held: expected finite"),
        ({"held": [1.0, 1.0], "low": [0.0, 2.0]}, "low <= held <= high, not so for B"),
        ({"held": [1.0, 1.0], "high": [0.0, 2.0]}, "low <= held <= high, not so for A"),
        ({"held": [1.0, 1.0], "columns": [0]}, "columns"),
        ({"held": [1.0, 1.0], "columns": [0.0, 1.0]}, "columns"),
    ],
)
def test_positions_that_contradict_themselves_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Positions.of(["A", "B"], **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": 99.0}, "0.99 for 99 %"),
        ({"confidence": float("nan")}, "confidence"),
        ({"measure": "cvar"}, "var or es"),
        ({"groupings": {"sector": ["x"]}}, "groupings.sector: expected 2 labels"),
        ({"positions": Positions.of(["A", "B"], [1.0, 1.0], columns=[0, 2])}, "expected 0 to 1, got 2 for B"),
        ({"positions": Positions.of(["A", "B"], [1.0, 1.0], columns=[-1, 0])}, "got -1 for A"),
    ],
)
def test_what_has_no_decomposition_is_refused(changes: dict[str, Any], message: str) -> None:
    returns = market(200, 2)
    arguments = {"positions": Positions.of(["A", "B"], [1.0, 1.0]), "confidence": 0.99, **changes}

    with pytest.raises(ValueError, match=message):
        parametric_decomposition(covariance=shrunk_factors(returns), **arguments)
    with pytest.raises(ValueError, match=message):
        historical_decomposition(returns=returns, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns": np.full((200, 2), np.nan)}, "NaN or infinity for A, B"),
        ({"returns": np.zeros((99, 2))}, "at least 100"),
        ({"returns": np.zeros(200)}, "days, instruments"),
        ({"quantile": "nearest"}, "order_statistic or linear"),
        ({"neighbours": -1}, "neighbours"),
        ({"neighbours": 1, "quantile": "linear"}, "neighbours"),
    ],
)
def test_what_has_no_historical_decomposition_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"positions": Positions.of(["A", "B"], [1.0, 1.0]), "returns": market(200, 2), **changes}

    with pytest.raises(ValueError, match=message):
        historical_decomposition(confidence=0.99, **arguments)


def test_a_confidence_of_a_half_has_no_worst_case_of_open_orders() -> None:
    with pytest.raises(ValueError, match=r"above 0\.5"):
        parametric_decomposition(Positions.of(["A"], [1.0]), shrunk_factors(market(50, 1)), 0.5)


def test_returns_that_no_position_is_in_may_be_missing() -> None:
    returns = market(100, 2)
    returns[:, 1] = np.nan

    parts = historical_decomposition(Positions.of(["A"], [100.0]), returns, 0.99)

    assert parts.total == pytest.approx(value_at_risk(-100.0 * returns[:, 0], 0.99))


@pytest.mark.parametrize("n_positions", [50, 700])
def test_large_books_decompose_in_blocks_as_one_position_would(n_positions: int) -> None:
    """700 positions are more than one block of rows, and more than there are days."""
    returns, positions = market(120, n_positions), book(n_positions, n_positions)
    symbols = [f"S{column}" for column in positions.columns]

    es = historical_decomposition(positions, returns, 0.95, "es", groupings={"symbol": symbols})
    var = parametric_decomposition(positions, shrunk_factors(returns), 0.95, groupings={"symbol": symbols})

    for parts, place in itertools.product((es, var), (0, n_positions - 1)):
        one = row(place, n_positions)
        rest = without(positions, one)
        left = (
            historical_decomposition(rest, returns, 0.95, "es")
            if parts is es
            else parametric_decomposition(rest, shrunk_factors(returns), 0.95)
        )
        assert parts.incremental[place] == pytest.approx(parts.total - left.total, rel=1e-8, abs=1e-6)
        assert sum(group.component for group in parts.groups["symbol"]) == pytest.approx(parts.total)
