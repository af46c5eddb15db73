"""Volatility regimes: made markets whose regime is known, independent libraries as oracles, and what a score does."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import Terms, decide
from engine.limits import LimitError, RegimeMethod, faults_of
from engine.measures import MEASURES
from engine.order import Action, Reason
from engine.records import Tightened
from engine.risk.filtered import ewma_filtered
from engine.risk.model import OPTION_ARRAYS, option_columns
from engine.risk.regime import regime_reading
from engine.risk.volatility import (
    EXPOSURES,
    VOLATILITY_REGIME,
    VOLATILITY_TARGET,
    Floats,
    Regime,
    RegimeReading,
    ewma_volatility,
    market_returns,
    regime_of,
    regime_tightening,
    target_tightening,
    volatility_scale,
)
from engine.tightening import TAIL_MEASURES
from tests.engine.builders import NOW_US, account, limits, model, order, row, stock, terms, universe

CALM, WILD = 0.005, 0.03
TWO = universe(stock("AAA"), stock("BBB"))
MARKS = {"AAA": 100.0, "BBB": 50.0}


def market(*stretches: tuple[int, float], seed: int = 5) -> Floats:
    """Days of normal returns of these deviations, one stretch after the other."""
    chance = np.random.default_rng(seed)
    return np.concatenate([chance.normal(0.0, deviation, days) for days, deviation in stretches])


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [RegimeMethod.EWMA, RegimeMethod.GARCH, RegimeMethod.MARKOV])
def test_a_market_that_has_become_wild_is_told_from_one_that_has_calmed_down(method: RegimeMethod) -> None:
    wild = regime_reading(market((500, CALM), (100, WILD), (300, CALM), (40, WILD)), method)
    calm = regime_reading(market((500, CALM), (100, WILD), (300, CALM)), method)

    assert wild.method is calm.method is method
    assert wild.score is not None and calm.score is not None
    assert wild.score > 0.9 and calm.score < 0.7
    assert wild.volatility is not None and calm.volatility is not None
    assert wild.volatility > 2.0 * calm.volatility


def test_the_rank_is_the_share_of_lower_forecasts() -> None:
    """70 days: 30 start the recursion, so that 41 forecasts are known. The last move is by far the largest, and after
    it nothing: the next forecast is below one alone."""
    returns = np.array([0.01, -0.01] * 34 + [0.2, 0.0])

    reading = regime_reading(returns, RegimeMethod.EWMA)

    assert reading.score == pytest.approx(39 / 40)


def test_the_forecast_is_that_of_the_filter() -> None:
    returns = market((300, CALM), (20, WILD))

    assert ewma_volatility(returns) == pytest.approx(ewma_filtered(returns).deviation * math.sqrt(252), rel=1e-12)
    reading = regime_reading(returns, RegimeMethod.EWMA)
    assert reading.volatility == pytest.approx(ewma_volatility(returns), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_where_there_is_one_state_only_two_are_not_made_up(seed: int) -> None:
    reading = regime_reading(market((260, CALM), seed=seed), RegimeMethod.MARKOV)

    assert reading.method is RegimeMethod.EWMA
    assert "EWMA instead" in reading.note


@pytest.mark.parametrize(
    ("returns", "method", "said"),
    [
        (market((59, CALM)), RegimeMethod.EWMA, "59 days are known, ewma needs 60"),
        (market((249, CALM)), RegimeMethod.GARCH, "249 days are known, garch needs 250"),
        (market((249, CALM)), RegimeMethod.MARKOV, "249 days are known, markov needs 250"),
        (np.zeros(300), RegimeMethod.EWMA, "never moved"),
    ],
)
def test_what_can_not_be_told_has_no_score(returns: Floats, method: RegimeMethod, said: str) -> None:
    reading = regime_reading(returns, method)

    assert reading.score is None
    assert said in reading.note


def test_senseless_input_is_refused() -> None:
    with pytest.raises(ValueError, match="returns"):
        regime_reading(np.full(300, np.nan), RegimeMethod.EWMA)
    with pytest.raises(ValueError, match="method"):
        regime_reading(market((300, CALM)), RegimeMethod.OFF)
    with pytest.raises(ValueError, match="at least 60 days"):
        ewma_volatility(np.zeros(59))


def test_the_market_is_everything_with_a_history_each_alike_but_for_options() -> None:
    risk = model({"AAA": [0.02, 0.0], "BBB": [0.0, -0.04], "CCC": []})

    assert market_returns(risk).tolist() == [0.01, -0.02]
    rows = np.ones((len(OPTION_ARRAYS), 1))
    with_option = replace(risk, options=option_columns(np.array([0], dtype=np.intp), rows))
    assert market_returns(with_option).tolist() == [0.0, -0.04]
    with pytest.raises(ValueError, match="no instrument with a history"):
        market_returns(model({"CCC": []}))


# --- regimes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "score", "after"),
    [
        (Regime.NORMAL, 0.79, Regime.NORMAL),
        (Regime.NORMAL, 0.80, Regime.ELEVATED),
        (Regime.NORMAL, 0.95, Regime.HIGH),
        (Regime.ELEVATED, 0.70, Regime.ELEVATED),
        (Regime.ELEVATED, 0.69, Regime.NORMAL),
        (Regime.HIGH, 0.85, Regime.HIGH),
        (Regime.HIGH, 0.84, Regime.ELEVATED),
        (Regime.HIGH, 0.70, Regime.ELEVATED),
        (Regime.HIGH, 0.10, Regime.NORMAL),
        (Regime.ELEVATED, 0.94, Regime.ELEVATED),
    ],
)
def test_regimes_are_entered_high_and_left_low(before: Regime, score: float, after: Regime) -> None:
    assert regime_of(before, score) is after


@given(st.sampled_from(Regime), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_score_is_never_a_lower_regime_and_a_regime_stays_at_its_score(
    before: Regime, one: float, other: float
) -> None:
    low, high = sorted((one, other))

    assert regime_of(before, low) <= regime_of(before, high)
    assert regime_of(regime_of(before, one), one) is regime_of(before, one)


@pytest.mark.parametrize("score", [math.nan, -0.1, 1.1])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="score"):
        regime_of(Regime.NORMAL, score)


def under(risk_days: int = 300, **policy: object) -> Terms:
    rows = (row("gross_exposure", 10_000.0),)
    days = market((risk_days, 0.01)).tolist()
    return terms(TWO, limits(*rows, **policy), model({"AAA": days, "BBB": [0.0] * risk_days}))


def told(state: AccountState, records: list[object]) -> Tightened | None:
    """The one record, if there is one, once it is in the log."""
    assert len(records) <= 1
    for record in records:
        assert isinstance(record, Tightened)
        state.apply(record)
        return record
    return None


def read(score: float | None) -> RegimeReading:
    return RegimeReading(RegimeMethod.EWMA, score, 0.2, "" if score is not None else "too few days")


EWMA: dict[str, Any] = {"volatility_regime": RegimeMethod.EWMA}


def test_a_regime_is_recorded_once_and_left_with_hysteresis_by_whoever_reads_the_log() -> None:
    state, armed = account(TWO, MARKS), under(**EWMA)

    entered = told(state, list(regime_tightening(state, armed, read(0.96), NOW_US)))
    assert entered is not None
    assert (entered.tightening_id, entered.factor) == (VOLATILITY_REGIME, 0.5)
    assert entered.measures == (*EXPOSURES, *TAIL_MEASURES)
    assert regime_tightening(state, armed, read(0.86), NOW_US) == []
    lower = told(state, list(regime_tightening(state, armed, read(0.84), NOW_US)))
    assert lower is not None and lower.factor == 0.75
    lifted = told(state, list(regime_tightening(state, armed, read(0.5), NOW_US)))
    assert lifted is not None and lifted.factor == 1.0
    assert state.tightenings == ()


def test_a_market_that_can_not_be_told_is_the_most_volatile_and_no_reading_changes_nothing() -> None:
    state, armed = account(TWO, MARKS), under(**EWMA)

    assert regime_tightening(state, armed, None, NOW_US) == []
    blind = told(state, list(regime_tightening(state, armed, read(None), NOW_US)))
    assert blind is not None and blind.factor == 0.5
    assert "can't be told: too few days" in blind.reason
    assert regime_tightening(state, armed, None, NOW_US) == []


def test_a_policy_that_reads_no_regime_lifts_it() -> None:
    state = account(TWO, MARKS)
    told(state, list(regime_tightening(state, under(**EWMA), read(0.99), NOW_US)))

    lifted = told(state, list(regime_tightening(state, under(), None, NOW_US)))

    assert lifted is not None and lifted.factor == 1.0


def test_an_order_is_judged_at_the_tightened_bound() -> None:
    state, armed = account(TWO, MARKS), under(**EWMA)
    assert decide(state, armed, order(quantity=60), NOW_US).action is Action.ALLOW

    told(state, list(regime_tightening(state, armed, read(0.99), NOW_US)))

    refused = decide(state, armed, order(quantity=60), NOW_US)
    assert refused.reason is Reason.GROSS_EXPOSURE
    assert next(c.limit for c in refused.checks if c.measure == "gross_exposure") == 5_000.0


# --- target -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "current", "before", "scale"),
    [
        (0.10, 0.20, 1.0, 0.50),
        (0.10, 0.05, 1.0, 1.0),
        (0.10, 0.19, 1.0, 0.50),  # 0.526, down to a step
        (0.10, 1.00, 1.0, 0.25),  # the least
        (0.10, 0.17, 0.50, 0.50),  # 0.588: less than 0.1 more
        (0.10, 0.16, 0.50, 0.60),  # 0.625
        (0.10, 0.25, 0.50, 0.40),  # falls at once
        (0.10, 0.10, 0.95, 0.95),
        (0.10, 0.09, 0.95, 1.0),
    ],
)
def test_a_scale_falls_at_once_and_rises_by_steps(target: float, current: float, before: float, scale: float) -> None:
    assert volatility_scale(target, current, 0.25, before) == pytest.approx(scale)


@given(st.floats(0.01, 2.0), st.floats(0.001, 5.0), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_scale_never_widens_a_bound_and_stands_once_it_is_taken(
    target: float, current: float, least: float, before: float
) -> None:
    scale = volatility_scale(target, current, least, before)

    assert least - 1e-12 <= scale <= 1.0 or scale == before
    assert volatility_scale(target, current, least, scale) == scale


@pytest.mark.parametrize(("target", "current"), [(0.1, 0.0), (0.1, math.nan), (0.0, 0.1), (math.inf, 0.1)])
def test_a_scale_of_nonsense_is_refused(target: float, current: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number above 0"):
        volatility_scale(target, current, 0.25)


def test_a_book_is_scaled_by_its_composition_and_not_by_its_size() -> None:
    """AAA moves 16 % a year or so, BBB not at all: half of each moves half as much."""
    armed = under(volatility_target=0.05)
    days = market((300, 0.01))
    yearly = ewma_volatility(days)

    for lots in (10, 1_000):
        alone, halved = account(TWO, MARKS, positions={"AAA": lots}), account(TWO, MARKS, positions={"AAA": -lots})
        halved = account(TWO, MARKS, positions={"AAA": -lots, "BBB": 2 * lots})
        (one,), (other,) = target_tightening(alone, armed, NOW_US), target_tightening(halved, armed, NOW_US)
        assert isinstance(one, Tightened) and isinstance(other, Tightened)
        assert (one.tightening_id, one.measures) == (VOLATILITY_TARGET, EXPOSURES)
        assert one.factor == volatility_scale(0.05, yearly, 0.25)
        assert other.factor == volatility_scale(0.05, yearly / 2.0, 0.25)
        assert one.factor < other.factor < 1.0


def test_a_target_that_is_gone_or_a_book_that_holds_nothing_lifts_the_scale() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    assert told(state, list(target_tightening(state, under(volatility_target=0.05), NOW_US))) is not None

    lifted = target_tightening(state, under(), NOW_US)

    assert [record.factor for record in lifted if isinstance(record, Tightened)] == [1.0]
    assert target_tightening(account(TWO, MARKS), under(volatility_target=0.05), NOW_US) == []


def test_too_few_days_are_the_least_scale_and_a_missing_mark_or_model_changes_nothing() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    short = under(50, volatility_target=0.05, volatility_scale_min=0.4)
    blind = terms(TWO, limits(volatility_target=0.05))

    (record,) = target_tightening(state, short, NOW_US)
    assert isinstance(record, Tightened) and record.factor == 0.4
    assert target_tightening(state, blind, NOW_US) == []
    unmarked = account(TWO, {"BBB": 50.0}, positions={"AAA": 10})
    assert target_tightening(unmarked, under(volatility_target=0.05), NOW_US) == []


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        ({"volatility_target": 0.0}, "volatility_target"),
        ({"volatility_target": math.nan}, "volatility_target"),
        ({"volatility_scale_min": 1.5}, "volatility_scale_min"),
        ({"cluster_correlation": 0.0}, "cluster_correlation"),
        ({"cluster_correlation": math.nan}, "cluster_correlation"),
        ({"regime_factors": (0.5,)}, "regime_factors"),
        ({"regime_factors": (0.5, 0.6)}, "regime_factors"),
        ({"regime_factors": (0.5, 0.0)}, "regime_factors"),
    ],
)
def test_a_policy_that_would_widen_or_say_nothing_is_refused(policy: dict[str, object], path: str) -> None:
    (fault,) = faults_of(limits(**policy), MEASURES)

    assert isinstance(fault, LimitError)
    assert fault.path == f"limits.{path}"
