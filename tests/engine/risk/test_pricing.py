"""Prices and Greeks of European options: published examples, QuantLib as oracle, identities, and the ends of time.

Only pricing.py is exercised. Contracts are drawn so that the total volatility lies between 0.5 % and 250 %.
"""

import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.pricing import greeks, price, years_to

CALL, PUT = 1.0, -1.0


@st.composite
def contracts(draw: st.DrawFn) -> dict[str, float]:
    spot = draw(st.floats(1.0, 1e4))
    return {
        "spot": spot,
        "strike": spot * draw(st.floats(0.5, 2.0)),
        "years": draw(st.floats(0.01, 5.0)),
        "volatility": draw(st.floats(0.05, 1.0)),
        "rate": draw(st.floats(-0.02, 0.15)),
        "carry": draw(st.floats(-0.10, 0.15)),
        "sign": draw(st.sampled_from([CALL, PUT])),
    }


def oracle(spot: float, strike: float, years: float, volatility: float, rate: float, carry: float, sign: float) -> Any:
    """QuantLib's Black calculator on the forward."""
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if sign > 0 else ql.Option.Put, strike)
    forward = spot * math.exp(carry * years)
    return ql.BlackCalculator(payoff, forward, volatility * math.sqrt(years), math.exp(-rate * years))


def test_published_examples() -> None:
    """Haug, "The Complete Guide to Option Pricing Formulas" (2007): sections 1.1.1, 1.1.2, 1.1.4 and 1.1.5."""
    assert price(60, 65, 0.25, 0.30, 0.08, 0.08, CALL) == pytest.approx(2.1334, abs=5e-5)
    assert price(100, 95, 0.5, 0.20, 0.10, 0.05, PUT) == pytest.approx(2.4648, abs=5e-5)
    assert price(19, 19, 0.75, 0.28, 0.10, 0.0, CALL) == pytest.approx(1.7011, abs=5e-5)
    assert price(1.56, 1.60, 0.5, 0.12, 0.06, 0.06 - 0.08, CALL) == pytest.approx(0.0291, abs=5e-5)


@given(contracts())
def test_prices_and_greeks_are_quantlibs(contract: dict[str, float]) -> None:
    ours, theirs = greeks(**contract, on_future=False), oracle(**contract)
    spot, years = contract["spot"], contract["years"]

    assert ours.price == pytest.approx(theirs.value(), abs=1e-12 * spot, rel=1e-10)
    assert ours.delta == pytest.approx(theirs.delta(spot), abs=1e-12, rel=1e-10)
    assert ours.gamma == pytest.approx(theirs.gamma(spot), abs=1e-12 / spot, rel=1e-9)
    assert ours.vega == pytest.approx(theirs.vega(years) / 100, abs=1e-12 * spot, rel=1e-10)
    assert ours.rho == pytest.approx(theirs.rho(years) / 100, abs=1e-12 * spot, rel=1e-10)


@given(contracts())
def test_theta_and_the_rho_of_a_future_are_slopes_of_the_price(contract: dict[str, float]) -> None:
    later, sooner = (contract | {"years": contract["years"] + step} for step in (-1e-5, 1e-5))
    dearer, cheaper = (contract | {"rate": contract["rate"] + step} for step in (1e-5, -1e-5))
    found = greeks(**contract, on_future=True)

    slope = (price(**later) - price(**sooner)) / 2e-5 / 365
    assert found.theta == pytest.approx(float(slope), rel=1e-4, abs=1e-7 * contract["spot"])
    slope = (price(**dearer) - price(**cheaper)) / 2e-5 / 100
    assert found.rho == pytest.approx(float(slope), rel=1e-5, abs=1e-8 * contract["spot"])


@given(contracts())
def test_a_call_less_a_put_is_the_forward(contract: dict[str, float]) -> None:
    call, put = price(**contract | {"sign": CALL}), price(**contract | {"sign": PUT})
    spot, strike, years = contract["spot"], contract["strike"], contract["years"]
    rate, carry = contract["rate"], contract["carry"]

    forward = spot * math.exp((carry - rate) * years) - strike * math.exp(-rate * years)
    assert call - put == pytest.approx(forward, abs=1e-12 * (spot + strike))


@given(contracts(), st.floats(0.01, 100.0))
def test_prices_are_homogeneous_in_spot_and_strike(contract: dict[str, float], scale: float) -> None:
    scaled = contract | {"spot": scale * contract["spot"], "strike": scale * contract["strike"]}

    assert price(**scaled) == pytest.approx(scale * float(price(**contract)), rel=1e-9, abs=1e-12 * scaled["spot"])


@pytest.mark.parametrize(("sign", "worth", "delta"), [(CALL, 20.0, 1.0), (PUT, 0.0, 0.0)])
def test_at_the_end_the_price_is_intrinsic_and_nothing_curves(sign: float, worth: float, delta: float) -> None:
    found = greeks(120.0, 100.0, 0.0, 0.2, 0.05, 0.03, sign, on_future=False)

    assert [found.price.item(), found.delta.item()] == [worth, delta]
    assert not any(greek.any() for greek in (found.gamma, found.vega, found.theta, found.rho))


def test_on_the_strike_at_the_end_the_delta_is_half() -> None:
    found = greeks(100.0, 100.0, 0.0, 0.2, 0.05, 0.0, [CALL, PUT], on_future=True)

    assert found.delta.tolist() == [0.5, -0.5] and found.gamma.tolist() == [0.0, 0.0]
    assert found.price.tolist() == [0.0, 0.0]


def test_without_volatility_the_forward_is_discounted() -> None:
    assert price(100, 90, 2.0, 0.0, 0.05, 0.03, CALL) == pytest.approx(
        100 * math.exp(-0.04) - 90 * math.exp(-0.10), rel=1e-12
    )
    assert greeks(100, 90, 2.0, 0.0, 0.05, 0.03, CALL, on_future=False).gamma == 0.0


def test_an_underlying_worth_nothing_leaves_the_put_its_strike() -> None:
    assert price(0.0, 50.0, 1.0, 0.4, 0.1, 0.1, [CALL, PUT]).tolist() == [0.0, pytest.approx(50 * math.exp(-0.1))]
    assert np.isfinite(greeks(0.0, 50.0, 1.0, 0.4, 0.1, 0.1, [CALL, PUT], on_future=False).gamma).all()


def test_arguments_broadcast() -> None:
    spots, strikes = np.array([[90.0], [110.0]]), np.array([95.0, 100.0, 105.0])
    table = price(spots, strikes, 0.5, 0.2, 0.03, 0.01, PUT)

    assert table.shape == (2, 3)
    assert table[1, 2] == price(110.0, 105.0, 0.5, 0.2, 0.03, 0.01, PUT)
    assert greeks(100.0, 100.0, 0.5, 0.2, [0.01, 0.02], 0.0, CALL, on_future=True).rho.shape == (2,)


@pytest.mark.parametrize(
    ("name", "value"),
    [("spot", -1.0), ("strike", 0.0), ("years", -0.1), ("volatility", -0.2), ("rate", math.nan), ("carry", math.inf)],
)
def test_what_no_option_has_is_refused_by_name(name: str, value: float) -> None:
    sound = {"spot": 100.0, "strike": 100.0, "years": 1.0, "volatility": 0.2, "rate": 0.0, "carry": 0.0, "sign": CALL}

    with pytest.raises(ValueError, match=f"^{name}: expected"):
        price(**sound | {name: value})
    with pytest.raises(ValueError, match="sign: expected"):
        price(**sound | {"sign": 0.5})


def test_years_run_to_the_close_of_the_expiry_over_365_days() -> None:
    noon = int(datetime(2024, 1, 2, 12, tzinfo=UTC).timestamp()) * 1_000_000

    assert years_to(date(2024, 1, 2), noon) == pytest.approx(9 / 24 / 365)
    assert years_to(date(2025, 1, 2), noon) == pytest.approx((366 + 9 / 24) / 365)
    assert years_to(date(2024, 1, 1), noon) < 0
