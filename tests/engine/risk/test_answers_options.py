"""The analyst's answers on a book of options alone, against the formula written out here once more."""

import datetime
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from engine.instrument import (
    AssetClass,
    Instrument,
    InstrumentSet,
    OptionModel,
    OptionRight,
    OptionStyle,
    OptionTerms,
)
from engine.risk.case import Case
from engine.risk.greeks_answers import greeks_answer
from engine.risk.inquiry import GreeksInquiry, ReverseInquiry, StressInquiry, VarInquiry
from engine.risk.model import RiskModel
from engine.risk.stress_answers import reverse_answer, stress_answer
from engine.risk.var_answers import var_answer
from tests.engine.risk.test_answers import ACCOUNT, INSTRUMENTS, SESSION, case, prices, returns

UNITS, STRIKE, VOLATILITY = 10.0, 100.0, 0.30
BUILT_US = int(datetime.datetime(SESSION.year, SESSION.month, SESSION.day, 12, tzinfo=datetime.UTC).timestamp()) * 10**6
TERMS = OptionTerms(
    STRIKE, OptionRight.CALL, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON, rate=0.0, volatility=VOLATILITY
)
CALL = msgspec.structs.replace(
    Instrument("CALL", AssetClass.OPTION, "USD", 1.0, 0.01),
    underlying="AAA",
    expiry=datetime.date(2022, 6, 30),
    option=TERMS,
)
WITH_CALL = InstrumentSet({**INSTRUMENTS.instruments, "CALL": CALL})
SPOT = float(prices().closes[-1, 0])


def long_calls() -> Case:
    """Ten calls on AAA and nothing else; the model's reference is the spot."""
    found = case({("one", "CALL"): UNITS * SPOT}, instruments=WITH_CALL, built_us=BUILT_US)
    return replace(found, quantities=np.array([UNITS]), marks={"AAA": SPOT})


def model_of(found: Case) -> RiskModel:
    assert found.model is not None
    return found.model


def worth(spot: NDArray[np.float64] | float, years: float) -> NDArray[np.float64]:
    """Of a call, no rate, no dividends: S·N(d1) - K·N(d2)."""
    deviation = VOLATILITY * math.sqrt(years)
    d1 = np.log(np.asarray(spot) / STRIKE) / deviation + deviation / 2.0
    value: NDArray[np.float64] = np.asarray(spot) * ndtr(d1) - STRIKE * ndtr(d1 - deviation)
    return value


def years_of(found: Case) -> float:
    return float(model_of(found).options.years[0])


def test_the_underlying_is_in_the_basis_though_nobody_holds_it() -> None:
    found = long_calls()
    premium = UNITS * float(worth(SPOT, years_of(found)))

    answer = var_answer(found, VarInquiry(ACCOUNT, ("monte_carlo", "parametric"), (0.99,), n_paths=4_000))

    simulated, parametric = (one.estimate for one in answer.answered)
    assert 0.0 < simulated.var < simulated.es < premium  # all that a long call can lose
    assert any("no convexity" in warning for warning in parametric.warnings)


def test_a_simulated_loss_of_a_call_is_the_formulas_at_the_simulated_loss_of_its_underlying() -> None:
    """A call only rises with the spot: its 99 % loss is its worth here less that at the spot's own 99 % loss."""
    found = long_calls()
    asked = VarInquiry(ACCOUNT, ("monte_carlo",), (0.99,), n_paths=4_000, seed=5)
    (stock,) = var_answer(case({("one", "AAA"): 1.0}), asked).answered
    years = years_of(found)

    (call,) = var_answer(found, asked).answered
    (past,) = var_answer(found, replace(asked, methods=("historical",))).answered

    expected = UNITS * float(worth(SPOT, years) - worth(SPOT * (1.0 - stock.estimate.var), years))
    assert (call.estimate.method, call.estimate.horizon_days, call.estimate.n_paths) == ("monte_carlo", 1, 4_000)
    assert call.estimate.var == pytest.approx(expected, rel=1e-9)
    assert call.estimate.var == pytest.approx(past.estimate.var, rel=0.25)


def test_one_day_is_a_full_revaluation_of_each_day() -> None:
    found = long_calls()
    years = years_of(found)
    losses = UNITS * (worth(SPOT, years) - worth(SPOT * (1.0 + returns()[:, 0]), years))

    (one,) = var_answer(found, VarInquiry(ACCOUNT, confidences=(0.99,))).answered

    assert one.estimate.var == pytest.approx(np.sort(losses)[-3], rel=1e-9)


def test_over_five_days_the_option_is_older_by_them() -> None:
    found = long_calls()
    years = years_of(found)
    growth = np.cumprod(np.concatenate(([1.0], 1.0 + returns()[:, 0])))
    older = years - 5.0 * 365.0 / 252.0 / 365.0
    losses = UNITS * (worth(SPOT, years) - worth(SPOT * growth[5:] / growth[:-5], older))

    answer = var_answer(
        found,
        VarInquiry(ACCOUNT, confidences=(0.99,), horizon_days=5, horizon_methods=("overlapping",), ultra_short=True),
    )

    (one,) = answer.answered
    assert one.estimate.var == pytest.approx(np.sort(losses)[-3], rel=1e-9)  # of 296 windows
    assert answer.ultra_short is not None
    assert answer.ultra_short.var_5d == pytest.approx(-one.estimate.var)


def test_contributions_of_options_are_historical_and_say_so() -> None:
    answer = var_answer(long_calls(), VarInquiry(ACCOUNT, confidences=(0.99,), components=True))

    assert answer.contributions is not None
    assert answer.contributions.main.method == "historical"
    assert answer.contributions.main.component.sum() == pytest.approx(answer.answered[0].estimate.var)
    assert any("contributions are historical" in warning for warning in answer.stamp.warnings)


def test_half_of_the_spot_costs_what_the_formula_says() -> None:
    found = long_calls()
    years = years_of(found)
    lost = UNITS * float(worth(SPOT, years) - worth(SPOT * 0.5, years))

    (crash,) = stress_answer(found, StressInquiry(ACCOUNT, ("crash",))).losses
    reverse = reverse_answer(found, ReverseInquiry(ACCOUNT, "crash", loss=lost / 2.0))

    assert crash.loss == pytest.approx(lost, rel=1e-9)
    at = reverse.found.multiplier
    assert at is not None
    assert UNITS * float(worth(SPOT, years) - worth(SPOT * (1.0 - 0.5 * at), years)) == pytest.approx(lost / 2.0)
    assert reverse.likeliest is None
    assert any("options are held" in warning for warning in reverse.stamp.warnings)


def test_delta_and_gamma_are_those_of_the_formula() -> None:
    found = long_calls()
    deviation = VOLATILITY * math.sqrt(years_of(found))
    d1 = math.log(SPOT / STRIKE) / deviation + deviation / 2.0
    gamma = math.exp(-d1 * d1 / 2.0) / math.sqrt(2.0 * math.pi) / (SPOT * deviation)

    answer = greeks_answer(found, GreeksInquiry(ACCOUNT))

    (line,) = answer.underlyings
    assert line.name == "AAA"
    assert line.delta == pytest.approx(UNITS * float(ndtr(d1)))
    assert line.gamma_1pct == pytest.approx(0.01 * gamma * SPOT * SPOT * UNITS)
    assert line.theta < 0.0 < line.vega
