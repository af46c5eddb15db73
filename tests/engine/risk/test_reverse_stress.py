"""Reverse stress: multipliers by hand, an option book that is not monotone, a slow scan, and the nearest joint shock.

The closed form is checked against scipy's general solver, the search against brute force over directions.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from engine.risk.reverse_stress import (
    MULTIPLIERS,
    NonLinear,
    most_likely_book_shock,
    most_likely_shock,
    reverse_stress,
    smallest_multiplier,
    target_loss,
)
from engine.risk.scenarios import Scenario
from engine.risk.stress import stress
from engine.risk.stress_book import Floats, LeftOut, Options, StressBook
from tests.engine.risk.builders import instrument, stock

CRASH = Scenario("crash", {"SP500": -0.30})


def index_fund(symbol: str = "SPY", **fields: Any) -> Any:
    return stock(symbol, factors={"SP500": 1.0}, **fields)


def with_option(
    revalue: Callable[[Floats, Floats], Floats], units: float, shares: float = 0.0, underlying: str = "SPY"
) -> StressBook:
    """`units` options on a share of 100, and money in the share itself."""
    rows = [instrument("OPT", "option", underlying=underlying), index_fund(underlying)]
    one = np.ones(1)
    options = Options(
        np.array([0], dtype=np.intp), revalue, 100.0 * one, 4.0 * one, (index_fund(underlying),), np.nan * one
    )
    return StressBook.of(rows, [100.0 * units, shares], options=options)


def short_put(moves: Floats, _: Floats) -> Floats:
    """P&L of a put at 89 on a share of 100, at expiry and without its premium, short or long."""
    return np.maximum(89.0 - 100.0 * (1.0 + moves), 0.0)


def test_the_target_is_a_share_of_equity() -> None:
    assert target_loss(250_000.0) == pytest.approx(25_000.0)
    assert target_loss(1000.0, 0.25) == 250.0
    for equity, ratio in ((0.0, 0.1), (-1.0, 0.1), (math.nan, 0.1), (100.0, 0.0), (100.0, math.inf)):
        with pytest.raises(ValueError, match="above 0"):
            target_loss(equity, ratio)


def test_a_linear_book_loses_in_proportion_to_the_multiplier() -> None:
    found = reverse_stress(StressBook.of([index_fund()], [1000.0]), CRASH, target=100.0)

    assert found.reachable and found.multiplier == pytest.approx(1 / 3, rel=1e-9)
    assert found.loss == pytest.approx(100.0) and not found.at_lower_bound
    assert (found.multipliers[0], found.multipliers[-1], len(found.multipliers)) == (0.01, 5.0, 500)
    assert found.losses == pytest.approx(np.minimum(300.0 * found.multipliers, 990.0))


def test_a_book_that_gains_cannot_reach_the_loss_and_says_how_far_it_goes() -> None:
    found = reverse_stress(StressBook.of([index_fund()], [-1000.0]), CRASH, target=100.0)

    assert not found.reachable and found.multiplier is None and found.loss is None
    assert found.loss_max == pytest.approx(-3.0) and found.loss_max_multiplier == 0.01


def test_an_option_book_gains_first_and_then_loses_faster_than_the_market_falls() -> None:
    """3 shares short, 62 puts at 89 short: +9 at 0.1 (97 a share), −734 at 0.8 (76: 72 − 62·13).
    Loss of 100: 62·(30m − 11) − 90m = 100 at m = 782/1770."""
    held = with_option(short_put, units=-62.0, shares=-300.0)

    found = reverse_stress(held, CRASH, target=100.0)

    at = {round(m, 2): -loss for m, loss in zip(found.multipliers.tolist(), found.losses.tolist(), strict=True)}
    assert [at[0.10], at[0.80]] == pytest.approx([9.0, -734.0])
    assert found.multiplier == pytest.approx(782 / 1770, rel=1e-9)


def test_the_smallest_multiplier_counts_where_a_loss_comes_and_goes() -> None:
    """Short a call spread's worth of hump: loss 100 at 1, none at 2, and again from 3 on."""

    def hump(multipliers: Floats) -> Floats:
        return 100.0 * np.maximum(1.0 - np.abs(multipliers - 1.0), multipliers - 2.0)

    assert smallest_multiplier(hump, 60.0).multiplier == pytest.approx(0.6)
    assert smallest_multiplier(hump, 250.0).multiplier == pytest.approx(4.5)
    beyond = smallest_multiplier(hump, 301.0)
    assert beyond.multiplier is None and beyond.loss_max == pytest.approx(300.0)


def test_a_peak_between_two_points_of_the_scan_is_found() -> None:
    def narrow(multipliers: Floats) -> Floats:
        return 100.0 - 1000.0 * (multipliers - 0.7243) ** 2 + 0.0 * multipliers

    found = smallest_multiplier(narrow, 99.9999, (0.01, 5.0), scan_points=100)

    assert found.losses.max() < 99.9999
    assert found.multiplier == pytest.approx(0.7243 - math.sqrt(0.0001 / 1000.0), abs=1e-9)
    assert smallest_multiplier(narrow, 100.0001, scan_points=100).loss_max == pytest.approx(100.0)


@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(0.1, 5.0))
def test_fast_equals_a_slow_scan(slope: float, bend: float, target: float) -> None:
    def loss(multipliers: Floats) -> Floats:
        return slope * multipliers + bend * np.sin(2.0 * multipliers)

    found = smallest_multiplier(loss, target)
    fine = np.linspace(*MULTIPLIERS, 100_001)
    slow = fine[loss(fine) >= target]

    if slow.size:
        assert found.multiplier is not None and slow[0] - 1e-4 <= found.multiplier <= slow[0] + 1e-9
    if found.multiplier is not None and found.multiplier > MULTIPLIERS[0]:
        assert found.loss == pytest.approx(target, abs=1e-6)
    assert found.loss_max >= loss(found.multipliers).max()


def test_a_loss_that_the_lower_bound_exceeds_already_is_said_to_be_there() -> None:
    found = reverse_stress(StressBook.of([index_fund()], [1e6]), CRASH, target=10.0)

    assert found.at_lower_bound and found.multiplier == 0.01 and found.loss == pytest.approx(3000.0)


@pytest.mark.parametrize("seed", range(20))
def test_a_target_that_a_point_of_the_scan_just_costs_is_found_there(seed: int) -> None:
    """Summed among 500 multipliers or alone, the same loss may differ in its last bit."""
    money = np.random.default_rng(seed).normal(size=61) * 1e5 + 3e4
    betas = np.random.default_rng(seed + 100).uniform(0.3, 1.9, size=61)
    held = StressBook.of([stock(f"S{place}") for place in range(61)], money, betas=betas)
    losses = reverse_stress(held, CRASH, target=1.0).losses

    found = reverse_stress(held, CRASH, target=float(losses[99]))

    assert found.multiplier == pytest.approx(1.0) and found.loss == pytest.approx(losses[99])


def test_ones_own_bounds() -> None:
    held = StressBook.of([index_fund()], [1000.0])

    assert not reverse_stress(held, CRASH, 100.0, bounds=(0.01, 0.3)).reachable
    assert reverse_stress(held, CRASH, 100.0, bounds=(0.2, 0.5)).multiplier == pytest.approx(1 / 3)


def test_a_price_shock_stops_short_of_everything_and_says_so() -> None:
    held = StressBook.of([stock("OIL"), stock("SPY", factors={"SP500": 0.1})], [1000.0, 10.0])

    found = reverse_stress(held, Scenario("oil", {"OIL": -0.50, "IBOVESPA": -0.90, "SP500": -0.1}), target=992.0)

    assert [one.factor for one in found.capped] == ["OIL"]
    assert found.capped[0].from_multiplier == pytest.approx(1.98)
    assert not found.reachable and found.loss_max == pytest.approx(990.0 + 10.0 * 0.1 * 0.5)
    assert found.warnings[0] == "OIL: its shock stops at -99% from multiplier 1.98 on"


def test_a_yield_has_no_floor_and_a_rate_is_capped() -> None:
    bond = StressBook.of([instrument("UST_NOM_10Y", "bond", duration=2.0)], [-1000.0])
    rates = reverse_stress(bond, Scenario("cut", {"UST_NOM": -0.40}), target=3900.0)
    pair = StressBook.of([instrument("BRL", "fx", "BRL")], [-1000.0])
    real = reverse_stress(pair, Scenario("real", {"USDBRL": -0.50}), target=1e9)

    assert rates.multiplier == pytest.approx(4.875) and not rates.capped
    assert real.loss_max == pytest.approx(1000.0 * 99.0) and real.capped[0].factor == "USDBRL"


def test_volatility_is_scaled_too_and_has_no_floor() -> None:
    held = with_option(lambda _, change: 100.0 * change, units=1.0)

    found = reverse_stress(held, Scenario("calm", {"VOL": -0.50}), target=200.0)

    assert found.multiplier == pytest.approx(4.0) and not found.capped


def test_more_than_all_of_a_position_lost_is_a_warning() -> None:
    held = StressBook.of([stock("HIGH", factors={"SP500": 2.0})], [1000.0])

    found = reverse_stress(held, CRASH, target=1500.0)

    assert found.multiplier == pytest.approx(2.5)
    assert found.warnings[-1] == "at multiplier 2.5 more than all of HIGH would be lost: linear beyond its reach"


def test_what_cannot_be_evaluated_is_left_out_and_said_so() -> None:
    held = StressBook.of([stock("NOBETA"), index_fund()], [1e6, 1000.0])

    found = reverse_stress(held, CRASH, target=100.0)

    assert found.multiplier == pytest.approx(1 / 3)
    assert found.left_out[0] == LeftOut("", "NOBETA", "no beta to SP500 could be estimated")
    assert found.warnings == ("crash: counts no NOBETA: no beta to SP500 could be estimated",)


@given(st.floats(0.02, 4.9))
def test_the_scenario_times_its_multiplier_costs_the_target(multiplier: float) -> None:
    rows = [index_fund(), stock("X", currency="BRL", factors={"IBOVESPA": 1.0})]
    held = StressBook.of(rows, [400.0, 600.0], low=[300.0, 500.0], high=[400.0, 600.0])
    small = Scenario("small", {"SP500": -0.15, "IBOVESPA": -0.1, "USDBRL": 0.2})
    scaled = Scenario("scaled", {factor: shock * multiplier for factor, shock in small.shocks.items()})

    (there,) = stress(held, [scaled])

    assert reverse_stress(held, small, there.loss).multiplier == pytest.approx(multiplier, rel=1e-6)


@pytest.mark.parametrize(
    ("target", "bounds", "points", "message"),
    [
        (0.0, (0.01, 5.0), 500, "target"),
        (-5.0, (0.01, 5.0), 500, "target"),
        (math.nan, (0.01, 5.0), 500, "target"),
        (1.0, (0.0, 5.0), 500, "bounds"),
        (1.0, (2.0, 1.0), 500, "bounds"),
        (1.0, (0.1, math.inf), 500, "bounds"),
        (1.0, (0.1, 1.0), 1, "scan_points"),
    ],
)
def test_a_question_without_sense_is_refused(
    target: float, bounds: tuple[float, float], points: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reverse_stress(StressBook.of([index_fund()], [1.0]), CRASH, target, bounds, scan_points=points)


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="expected finite numbers, got nan at multiplier"):
        smallest_multiplier(lambda multipliers: np.full(multipliers.shape, np.nan), 1.0)


def covariance(size: int, seed: int = 3) -> Floats:
    draws = np.random.default_rng(seed).normal(size=(400, size)) * 0.01
    common = np.random.default_rng(seed + 1).normal(size=(400, 1)) * 0.01
    return np.cov((draws + common).T)


def test_the_likeliest_shock_of_a_linear_book_by_hand() -> None:
    """Σ = diag(0.04, 0.01), w = (100, 100): Σw = (4, 1), variance 500, so x = −50·(4, 1)/500 at 50/√500."""
    found = most_likely_shock(["A", "B"], [100.0, 100.0], np.diag([0.04, 0.01]), target=50.0)

    assert found.shocks == pytest.approx([-0.4, -0.1]) and found.loss == pytest.approx(50.0)
    assert found.contributions == pytest.approx([40.0, 10.0])
    assert found.distance == pytest.approx(50.0 / math.sqrt(500.0))
    assert found.plausibility == pytest.approx(math.exp(-5.0 / 2.0))  # chi-square with two degrees of freedom
    assert found.tail_probability == pytest.approx(stats.norm.sf(50.0 / math.sqrt(500.0)))
    assert found.feasible and found.method == "closed_form" and found.starts == 0


def test_the_closed_form_is_what_a_general_solver_finds() -> None:
    sigma, values = covariance(6), np.array([3.0, -1.0, 2.0, 0.0, 5.0, -4.0]) * 1e4
    inverse = np.linalg.inv(sigma)

    found = most_likely_shock(list("ABCDEF"), values, sigma, target=2000.0)

    solved = minimize(
        lambda x: x @ inverse @ x,
        np.full(6, -0.01),
        jac=lambda x: 2.0 * inverse @ x,
        constraints={"type": "eq", "fun": lambda x: values @ x + 2000.0, "jac": lambda x: values},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.shocks == pytest.approx(solved.x, rel=1e-4, abs=1e-7)
    assert found.distance == pytest.approx(math.sqrt(solved.fun), rel=1e-6)
    assert found.shocks is not None and found.distance == pytest.approx(
        math.sqrt(found.shocks @ inverse @ found.shocks), rel=1e-9
    )
    assert found.plausibility == pytest.approx(stats.chi2.sf(solved.fun, 6), rel=1e-4)


@given(st.integers(0, 1000), st.floats(0.1, 10.0))
def test_no_other_shock_that_costs_as_much_is_nearer(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    sigma, values = covariance(4), rng.normal(size=4) * 100.0
    found = most_likely_shock(list("ABCD"), values, sigma, target)
    other = rng.normal(size=4) * 0.02
    loss = -float(values @ other)

    assert found.distance is not None
    if loss > 1e-6:
        other *= target / loss
        assert other @ np.linalg.inv(sigma) @ other >= found.distance**2 * (1 - 1e-9)


def test_a_singular_covariance_still_has_a_likeliest_shock() -> None:
    sigma = np.array([[0.04, 0.04], [0.04, 0.04]])

    found = most_likely_shock(["A", "B"], [100.0, 0.0], sigma, target=40.0)

    assert found.shocks == pytest.approx([-0.4, -0.4]) and found.distance == pytest.approx(2.0)
    assert found.plausibility == pytest.approx(stats.chi2.sf(4.0, 1))


def test_a_shock_that_no_market_can_make_is_infeasible() -> None:
    found = most_likely_shock(["A", "B"], [100.0, 1.0], np.diag([0.04, 0.01]), target=150.0)

    assert found.reachable and not found.feasible and found.infeasible == ("A",)


def test_a_search_of_a_linear_part_alone_finds_the_closed_form() -> None:
    """What does not bend given as if it did: one dimension for the linear part, two for the names."""
    sigma, values = covariance(5), np.array([2.0, -1.0, 3.0, 1.0, -2.0]) * 1e4
    closed = most_likely_shock(list("ABCDE"), values, sigma, 1500.0)
    places = np.array([1, 4], dtype=np.intp)
    linear = values.copy()
    linear[places] = 0.0

    found = most_likely_shock(
        list("ABCDE"), linear, sigma, 1500.0, NonLinear(places, lambda shocks: shocks * values[places])
    )

    assert found.method == "slsqp" and found.shocks == pytest.approx(closed.shocks, rel=1e-4, abs=1e-7)
    assert found.distance == pytest.approx(closed.distance, rel=1e-6)
    assert found.contributions == pytest.approx(closed.contributions, rel=1e-4, abs=1e-2)


def nearest_by_brute_force(losses: Callable[[Floats], Floats], root: Floats, target: float) -> float:
    """The least distance at which any of 20,000 directions loses the target, two dimensions."""
    angles = np.linspace(0.0, 2.0 * np.pi, 20_001)[:-1]
    directions = np.column_stack((np.cos(angles), np.sin(angles)))
    for distance in np.linspace(0.0, 10.0, 2001):
        if (losses(distance * directions @ root.T) >= target).any():
            return float(distance)
    return math.inf


def test_a_short_straddle_is_lost_on_either_side_and_the_nearer_one_is_found() -> None:
    """Both gammas short, A's delta a little long: a fall of A is the nearest way."""
    sigma = np.array([[0.0004, 0.0001], [0.0001, 0.0009]])

    def pnl(shocks: Floats) -> Floats:
        return np.array([300.0, 0.0]) * shocks - np.array([20_000.0, 15_000.0]) * shocks**2

    found = most_likely_shock(["A", "B"], [0.0, 0.0], sigma, 60.0, NonLinear(np.array([0, 1], dtype=np.intp), pnl))

    brute = nearest_by_brute_force(lambda shocks: -pnl(shocks).sum(axis=1), np.linalg.cholesky(sigma), 60.0)
    assert found.distance == pytest.approx(brute, abs=0.01)
    assert found.loss == pytest.approx(60.0, rel=1e-5) and found.method == "slsqp" and found.starts > 1
    assert found.shocks is not None and found.distance == pytest.approx(
        math.sqrt(found.shocks @ np.linalg.inv(sigma) @ found.shocks), rel=1e-6
    )


def test_a_loss_that_no_shock_within_reach_costs() -> None:
    capped = NonLinear(np.array([0], dtype=np.intp), lambda shocks: -np.minimum(np.abs(shocks), 0.05) * 1000.0)

    found = most_likely_shock(["A"], [0.0], [[0.0001]], 60.0, capped)

    assert not found.reachable and not found.feasible and found.shocks is None and found.distance is None
    assert found.loss_max == pytest.approx(50.0) and "10 standard deviations" in found.warnings[0]


def test_the_likeliest_shock_of_a_book_counts_options_open_orders_and_names_the_rest() -> None:
    """Short 10 puts at 89 on SPY: the fall of 14 % that costs 30 is 1.4 standard deviations of 10 %."""
    held = with_option(short_put, units=-10.0)

    found = most_likely_book_shock(held, ["SPY"], [[0.01]], target=30.0)

    assert found.shock.shocks == pytest.approx([-0.14], rel=1e-6)
    assert found.shock.distance == pytest.approx(1.4, rel=1e-6) and found.left_out == ()


def test_an_open_order_counts_at_its_worse_end_in_the_likeliest_shock() -> None:
    rows = [index_fund("A"), index_fund("B"), index_fund("C")]
    held = StressBook.of(rows, [100.0, 0.0, 5.0], low=[100.0, -300.0, 5.0], high=[100.0, 200.0, 5.0])

    found = most_likely_book_shock(held, ["A", "B"], np.diag([0.01, 0.01]), target=30.0)

    # w = (100, −300): 30·(100, −300)/100,000 the wrong way round
    assert found.shock.shocks == pytest.approx([-0.03, 0.09], rel=1e-5)
    assert found.left_out == (LeftOut("", "C", "not among the names shocked"),)


def test_a_linear_book_of_two_strategies_has_the_closed_form() -> None:
    rows = [index_fund("A"), index_fund("A"), index_fund("B")]

    found = most_likely_book_shock(StressBook.of(rows, [150.0, -50.0, 100.0]), ["A", "B"], np.diag([0.04, 0.01]), 50.0)

    assert found.shock.method == "closed_form" and found.shock.shocks == pytest.approx([-0.4, -0.1])


def test_ten_names_with_options_among_five_hundred_shares_reach_the_target() -> None:
    size, names = 60, [f"S{place}" for place in range(60)]
    values, sigma = np.random.default_rng(5).normal(size=size) * 1e4, covariance(60)
    bent = np.arange(10, dtype=np.intp)

    found = most_likely_shock(names, values, sigma, 5000.0, NonLinear(bent, lambda shocks: -3e5 * shocks**2))

    assert found.reachable and found.shocks is not None and found.distance is not None
    assert -values @ found.shocks + 3e5 * (found.shocks[:10] ** 2).sum() == pytest.approx(5000.0, rel=1e-5)
    assert found.loss == pytest.approx(5000.0, rel=1e-5)  # contributions, of names that bend and are held too
    assert found.distance < (most_likely_shock(names, values, sigma, 5000.0).distance or 0.0)
    gradient = values.copy()
    gradient[:10] -= 6e5 * found.shocks[:10]
    nearest = sigma @ gradient  # Lagrange: at the optimum x is a multiple of Σ∇
    assert found.shocks == pytest.approx(nearest * (found.shocks @ nearest) / (nearest @ nearest), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "sigma", "target", "message"),
    [
        ([1.0], np.eye(2), 1.0, "values: expected shape"),
        ([1.0, 1.0], np.eye(3), 1.0, "covariance: expected shape"),
        ([1.0, math.nan], np.eye(2), 1.0, "finite"),
        ([1.0, 1.0], [[1.0, math.nan], [0.0, 1.0]], 1.0, "finite"),
        ([1.0, 1.0], [[1.0, 0.5], [0.1, 1.0]], 1.0, "symmetric"),
        ([1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]], 1.0, "eigenvalues"),
        ([0.0, 0.0], np.eye(2), 1.0, "variance"),
        ([1.0, 1.0], np.zeros((2, 2)), 1.0, "variance"),
        ([1.0, 1.0], np.eye(2), 0.0, "target"),
    ],
)
def test_a_joint_shock_without_sense_is_refused(values: Any, sigma: Any, target: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        most_likely_shock(["A", "B"], values, sigma, target)


def test_a_book_that_hangs_on_none_of_the_names_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a row at stake"):
        most_likely_book_shock(StressBook.of([index_fund("A")], [1.0]), ["B"], [[0.01]], 1.0)
