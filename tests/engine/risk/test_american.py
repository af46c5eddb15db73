"""American options: a slow tree and published figures as references, symmetry, and the surface's stated error."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.risk.american import (
    EarlyExerciseError,
    american_greeks,
    american_price,
    exercises_early,
    implied_american,
    premium_surface,
)
from engine.risk.implied import ImpliedFailure
from engine.risk.pricing import greeks, price

CALL, PUT = 1.0, -1.0


def tree(
    spot: float, strike: float, years: float, volatility: float, rate: float, carry: float, sign: float, steps: int
) -> float:
    """Cox, Ross and Rubinstein (1979), backwards step by step."""
    dt = years / steps
    up = math.exp(volatility * math.sqrt(dt))
    p = (math.exp(carry * dt) - 1 / up) / (up - 1 / up)
    values = [max(sign * (spot * up ** (2 * j - steps) - strike), 0.0) for j in range(steps + 1)]
    for step in range(steps - 1, -1, -1):
        values = [
            max(
                math.exp(-rate * dt) * (p * values[j + 1] + (1 - p) * values[j]),
                sign * (spot * up ** (2 * j - step) - strike),
            )
            for j in range(step + 1)
        ]
    return values[0]


def test_published_puts() -> None:
    """Longstaff and Schwartz, "Valuing American options by simulation" (2001), table 1: finite differences."""
    strikes = american_price([36, 38, 40, 42, 44], 40.0, 1.0, 0.2, 0.06, 0.06, PUT)

    np.testing.assert_allclose(strikes, [4.478, 3.250, 2.314, 1.617, 1.110], atol=0.009)


@pytest.mark.parametrize(
    ("spot", "years", "volatility", "rate", "carry", "sign"),
    [
        (90.0, 0.5, 0.25, 0.05, 0.05, PUT),
        (105.0, 1.0, 0.30, 0.03, -0.02, CALL),
        (100.0, 0.25, 0.20, 0.04, 0.0, PUT),
        (100.0, 2.0, 0.15, 0.0, -0.05, CALL),
    ],
)
def test_prices_are_those_of_a_tree(
    spot: float, years: float, volatility: float, rate: float, carry: float, sign: float
) -> None:
    contract = (spot, 100.0, years, volatility, rate, carry, sign)
    smooth = 0.5 * (tree(*contract, steps=300) + tree(*contract, steps=301))

    assert american_price(*contract) == pytest.approx(smooth, abs=0.01)


@settings(max_examples=40)
@given(
    st.floats(0.5, 2.0),
    st.floats(0.01, 3.0),
    st.floats(0.05, 1.0),
    st.floats(0.0, 0.1),
    st.floats(0.0, 0.1),
    st.sampled_from([CALL, PUT]),
)
def test_it_is_worth_no_less_than_now_or_than_waiting_and_symmetric(
    ratio: float, years: float, volatility: float, rate: float, dividend: float, sign: float
) -> None:
    value = american_price(ratio, 1.0, years, volatility, rate, rate - dividend, sign)

    assert value >= price(ratio, 1.0, years, volatility, rate, rate - dividend, sign)
    assert value >= max(sign * (ratio - 1.0), 0.0)
    # McDonald and Schroder (1998): spot and strike change places, and so do rate and dividend yield.
    mirrored = american_price(1.0, ratio, years, volatility, dividend, dividend - rate, -sign)
    assert value == pytest.approx(float(mirrored), abs=2e-6)


@pytest.mark.parametrize(("rate", "carry", "sign"), [(0.05, 0.05, CALL), (0.05, 0.07, CALL), (0.0, -0.03, PUT)])
def test_where_waiting_costs_nothing_it_is_a_european_option(rate: float, carry: float, sign: float) -> None:
    spots = np.array([80.0, 100.0, 125.0])
    european = price(spots, 100.0, 1.0, 0.25, rate, carry, sign)

    assert not exercises_early(rate, carry, sign)
    np.testing.assert_allclose(american_price(spots, 100.0, 1.0, 0.25, rate, carry, sign), european, atol=2e-5)
    surface = premium_surface(1.0, rate, carry, sign, spots / 100.0, np.array([0.25]))
    volatility = np.full(3, 0.25)
    assert surface.error == 0.0
    np.testing.assert_array_equal(surface.price(spots, np.full(3, 100.0), volatility, european), european)


def test_at_the_end_it_is_worth_its_exercise() -> None:
    assert american_price([90.0, 110.0], 100.0, 0.0, 0.3, 0.05, 0.05, PUT).tolist() == [pytest.approx(10.0), 0.0]
    found = american_greeks([90.0, 110.0, 100.0], 100.0, 0.0, 0.3, 0.05, 0.05, PUT, False)
    assert found.delta.tolist() == [-1.0, 0.0, -0.5]
    assert not any(getattr(found, name).any() for name in ("gamma", "vega", "theta", "rho"))


def test_two_exercise_boundaries_are_refused() -> None:
    with pytest.raises(EarlyExerciseError, match="double-boundary"):
        american_price(100.0, 100.0, 1.0, 0.2, -0.01, 0.01, PUT)
    with pytest.raises(EarlyExerciseError, match="double-boundary"):
        american_price(100.0, 100.0, 1.0, 0.2, -0.02, -0.01, CALL)


@pytest.mark.parametrize(
    ("years", "rate", "carry", "sign"),
    [
        (0.02, 0.05, 0.05, PUT),
        (0.5, 0.05, 0.02, PUT),
        (1.0, 0.05, 0.02, CALL),
        (1.0, 0.03, 0.0, CALL),
        (1.5, 0.0, -0.06, CALL),
    ],
)
def test_a_surface_prices_any_strike_to_the_error_it_states(
    years: float, rate: float, carry: float, sign: float
) -> None:
    surface = premium_surface(years, rate, carry, sign, np.array([0.9, 1.1]), np.array([0.2, 0.4]))
    random = np.random.default_rng(3)
    strike = random.uniform(20.0, 500.0, 150)
    spot = strike * random.uniform(0.46, 1.75, 150)
    spot[:100] = strike[:100] * np.exp(random.normal(0.0, 0.6 * math.sqrt(years), 100)).clip(0.46, 1.75)
    volatility = random.uniform(0.07, 0.8, 150)

    found = surface.price(spot, strike, volatility, price(spot, strike, years, volatility, rate, carry, sign))

    exact = american_price(spot, strike, years, volatility, rate, carry, sign)
    assert 0.0 < surface.error < 5e-4
    assert (np.abs(found - exact) / strike).max() <= 2.0 * surface.error


def test_what_a_surface_does_not_cover_is_priced_one_by_one() -> None:
    surface = premium_surface(1.0, 0.05, 0.05, PUT, np.array([1.0]), np.array([0.2]))
    spot, volatility, strike = np.array([30.0, 250.0, 100.0, 0.0]), np.array([0.2, 0.2, 1.5, 0.2]), np.full(4, 100.0)

    found = surface.price(spot, strike, volatility, price(spot, strike, 1.0, volatility, 0.05, 0.05, PUT))

    np.testing.assert_array_equal(found, american_price(spot, strike, 1.0, volatility, 0.05, 0.05, PUT))
    assert found[3] == 100.0


def test_a_surface_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="years: expected"):
        premium_surface(0.0, 0.05, 0.05, PUT, np.array([1.0]), np.array([0.2]))


@pytest.mark.parametrize(("rate", "carry", "sign"), [(0.05, 0.05, CALL), (-0.02, -0.02, PUT)])
def test_greeks_of_what_is_never_exercised_early_are_the_formulas(rate: float, carry: float, sign: float) -> None:
    spots = np.array([85.0, 100.0, 115.0])
    ours = american_greeks(spots, 100.0, 0.5, 0.3, rate, carry, sign, False)
    exact = greeks(spots, 100.0, 0.5, 0.3, rate, carry, sign, False)

    for name in ("price", "delta", "gamma", "vega", "theta", "rho"):
        wanted = getattr(exact, name)
        np.testing.assert_allclose(getattr(ours, name), wanted, atol=1e-3 * np.abs(wanted).max(), err_msg=name)


def test_the_rho_of_a_future_leaves_the_carry_alone() -> None:
    """A hundredth of the price for a point less, over half a year: the option is too far out to be exercised early."""
    found = american_greeks(100.0, 140.0, 0.5, 0.2, 0.05, 0.0, CALL, True)

    assert found.rho == pytest.approx(-0.5 * float(found.price) / 100, rel=0.05)


def test_greeks_follow_the_equation_that_prices_solve() -> None:
    """Black, Scholes and Merton: theta = r·V − b·S·Δ − ½σ²S²·Γ wherever it is better to wait."""
    spots = np.array([95.0, 100.0, 110.0])
    found = american_greeks(spots, 100.0, 0.5, 0.3, 0.06, 0.04, PUT, False)

    yearly = 0.06 * found.price - 0.04 * spots * found.delta - 0.5 * 0.09 * spots**2 * found.gamma
    np.testing.assert_allclose(found.theta * 365, yearly, atol=0.03)


def test_the_implied_volatility_is_the_one_that_made_the_price() -> None:
    strikes = np.array([90.0, 100.0, 110.0])
    paid = american_price(100.0, strikes, 0.5, [0.3, 0.25, 0.2], 0.05, 0.05, PUT)

    np.testing.assert_allclose(
        implied_american(paid, 100.0, strikes, 0.5, 0.05, 0.05, PUT).volatility, [0.3, 0.25, 0.2], atol=1e-7
    )


@pytest.mark.parametrize(
    ("paid", "years", "failure"),
    [
        (math.nan, 1.0, ImpliedFailure.NOT_A_PRICE),
        (20.0, 0.0, ImpliedFailure.EXPIRED),
        (20.0, 1.0, ImpliedFailure.NO_TIME_VALUE),
        (100.0, 1.0, ImpliedFailure.ABOVE_BOUND),
    ],
)
def test_a_price_that_no_volatility_explains_says_why(paid: float, years: float, failure: ImpliedFailure) -> None:
    found = implied_american([paid, 25.0], 80.0, 100.0, [years, 1.0], 0.05, 0.05, PUT)

    assert found.failure.tolist() == [failure, ImpliedFailure.NONE]
    assert np.isnan(found.volatility[0]) and found.volatility[1] > 0.3
