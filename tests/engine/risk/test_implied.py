"""Implied volatility: there and back, QuantLib as oracle, and a name for each price that implies none."""

import math

import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.implied import ImpliedFailure, implied_volatility
from engine.risk.pricing import price


@given(
    st.floats(0.5, 2.0),
    st.floats(0.02, 3.0),
    st.floats(0.05, 2.0),
    st.floats(-0.02, 0.10),
    st.floats(-0.10, 0.10),
    st.sampled_from([1.0, -1.0]),
)
def test_the_implied_volatility_is_the_one_that_made_the_price(
    moneyness: float, years: float, volatility: float, rate: float, carry: float, sign: float
) -> None:
    made = price(100 * moneyness, 100.0, years, volatility, rate, carry, sign)
    found = implied_volatility(made, 100 * moneyness, 100.0, years, rate, carry, sign)

    if found.failure == ImpliedFailure.NONE:
        again = price(100 * moneyness, 100.0, years, found.volatility, rate, carry, sign)
        assert again == pytest.approx(float(made), abs=1e-11)
    else:
        assert found.failure == (ImpliedFailure.NO_TIME_VALUE if made > 0 else ImpliedFailure.NOT_A_PRICE)
        assert np.isnan(found.volatility)
        assert abs(price(100 * moneyness, 100.0, years, 1e-6, rate, carry, sign) - made) < 1e-9


def test_near_the_money_it_is_exact_and_quantlibs() -> None:
    strikes = np.array([90.0, 100.0, 110.0])
    paid = price(100.0, strikes, 0.5, [0.35, 0.2, 0.25], 0.03, 0.01, 1.0)
    found = implied_volatility(paid, 100.0, strikes, 0.5, 0.03, 0.01, 1.0)

    np.testing.assert_allclose(found.volatility, [0.35, 0.2, 0.25], rtol=1e-12)
    for strike, value, volatility in zip(strikes, paid, found.volatility, strict=True):
        forward, discount = 100 * math.exp(0.005), math.exp(-0.015)
        deviation = ql.blackFormulaImpliedStdDev(ql.Option.Call, strike, forward, value, discount, 0.0, 0.1, 1e-14)
        assert volatility == pytest.approx(deviation / math.sqrt(0.5), rel=1e-7)


@pytest.mark.parametrize(
    ("paid", "years", "sign", "failure"),
    [
        (math.nan, 1.0, 1.0, ImpliedFailure.NOT_A_PRICE),
        (0.0, 1.0, 1.0, ImpliedFailure.NOT_A_PRICE),
        (-1.0, 1.0, 1.0, ImpliedFailure.NOT_A_PRICE),
        (5.0, 0.0, 1.0, ImpliedFailure.EXPIRED),
        (20.0, 1.0, 1.0, ImpliedFailure.NO_TIME_VALUE),
        (19.0, 1.0, 1.0, ImpliedFailure.NO_TIME_VALUE),
        (120.0, 1.0, 1.0, ImpliedFailure.ABOVE_BOUND),
        (100.0, 1.0, -1.0, ImpliedFailure.ABOVE_BOUND),
        (119.9999999, 0.01, 1.0, ImpliedFailure.OUT_OF_RANGE),
    ],
)
def test_a_price_that_no_volatility_explains_says_why(
    paid: float, years: float, sign: float, failure: ImpliedFailure
) -> None:
    """A call (or put) at 100 on a spot of 120, no rates: between 20 (or 0) and 120 (or 100)."""
    found = implied_volatility(paid, 120.0, 100.0, years, 0.0, 0.0, sign)

    assert found.failure == failure and np.isnan(found.volatility)


def test_one_bad_price_spoils_no_other() -> None:
    found = implied_volatility([8.0, math.nan, 8.0], 100.0, 100.0, 1.0, 0.0, 0.0, [1.0, 1.0, -1.0])

    assert found.failure.tolist() == [0, ImpliedFailure.NOT_A_PRICE, 0]
    assert found.volatility[0] == pytest.approx(found.volatility[2], rel=1e-12)


def test_a_time_value_within_the_slack_counts_as_none() -> None:
    found = implied_volatility([20.004, 20.006], 120.0, 100.0, 0.1, 0.0, 0.0, 1.0, price_slack=0.005)

    assert found.failure.tolist() == [ImpliedFailure.NO_TIME_VALUE, ImpliedFailure.NONE]
