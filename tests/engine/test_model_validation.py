"""The VaR model against an account's sessions: what is forecast, which sessions count, what a failing model tightens.

The model has 100 days: 99 calm ones and one of -10 % for AAA, so that VaR at 99 % of 10 AAA at 100 is 100.
"""

import math

import msgspec
import pytest

from engine.account import AccountState, Session
from engine.model_validation import (
    forecast,
    histories_of,
    validation_tightening,
    validations_of,
    verdicts_of,
)
from engine.records import Forecast, Tightened
from engine.risk.backtest import BASEL_RULE, TighteningRule, Verdict
from tests.engine.builders import NOW_US, account, model, reserve, stock, terms, universe

TWO = universe(stock("AAA"), stock("BBB"))
MODEL = model({"AAA": [0.001] * 99 + [-0.1], "BBB": [0.0] * 100})
UNDER = terms(TWO, risk=MODEL)


def holding(lots: int = 10) -> AccountState:
    return account(TWO, {"AAA": 100.0, "BBB": 50.0}, positions={"AAA": lots})


def made(state: AccountState) -> Forecast:
    (record,) = forecast(state, UNDER, NOW_US)
    assert isinstance(record, Forecast)
    return record


def closed(pnls: list[float], var: float = 100.0, **fields: object) -> tuple[Session, ...]:
    """Sessions in which the positions of the forecast gained so much against the same VaR; ES 1.2 times it."""
    promise = Forecast(
        time_us=NOW_US,
        session="2024-01-01",
        var_95=var,
        var_99=var,
        es_95=1.2 * var,
        es_99=1.2 * var,
        method="historical",
        model="m",
    )
    session = Session("2024-01-01", 1000.0, 0.0, forecast=promise)
    return tuple(msgspec.structs.replace(session, held_pnl=pnl, pnl=pnl, **fields) for pnl in pnls)


def with_sessions(sessions: tuple[Session, ...]) -> AccountState:
    state = holding()
    state.sessions = sessions
    return state


def test_a_forecast_is_of_what_is_held_and_not_of_what_is_open() -> None:
    state = holding()
    reserve(state, "open", "AAA", 1000)

    record = made(state)
    assert (record.session, record.method, record.n_observations) == ("2023-11-14", "historical", 100)
    assert [record.var_99, record.es_99] == pytest.approx([100.0, 100.0])
    assert [record.var_95, record.es_95] == pytest.approx([-1.0, (100.0 - 4 * 1.0) / 5])


def test_a_session_gets_one_forecast() -> None:
    state = holding()
    state.apply(made(state))

    assert forecast(state, UNDER, NOW_US) == []


@pytest.mark.parametrize(
    "state",
    [
        account(TWO, {"AAA": 100.0}, positions={"AAA": 1, "BBB": 1}),
        account(TWO, {"AAA": 100.0, "BBB": 50.0}, positions={"AAA": 1}, session=None),
        account(TWO, {"AAA": 100.0, "BBB": 50.0}, positions={"AAA": 1}, session="2023-12-14"),
    ],
    ids=["a mark is missing", "no session", "the model is of an older session"],
)
def test_what_cannot_be_evaluated_is_not_forecast(state: AccountState) -> None:
    assert forecast(state, UNDER, NOW_US) == []


def test_sessions_without_a_forecast_a_close_or_a_risk_are_left_out() -> None:
    good = closed([1.0, 2.0])
    without = tuple(msgspec.structs.replace(one, forecast=None) for one in closed([5.0]))
    unpriced, flat = closed([math.nan]), closed([0.0], var=0.0)

    (history,) = histories_of((*without, *good, *unpriced, *flat))
    assert (history.method, history.held_pnl.tolist()) == ("historical", [1.0, 2.0])
    assert histories_of((*without, *unpriced, *flat)) == ()


def test_each_method_is_tested_by_itself() -> None:
    (one,) = closed([1.0])
    assert one.forecast is not None
    other = msgspec.structs.replace(one, forecast=msgspec.structs.replace(one.forecast, method="filtered"))

    assert [history.method for history in histories_of((one, other))] == ["filtered", "historical"]


def test_a_young_account_is_untested_and_tightens_nothing() -> None:
    state = with_sessions(closed([0.0] * 15 + [-200.0] * 4))
    tested = validations_of(state.sessions)

    assert [one.verdict for _, one in tested] == [Verdict.UNTESTED, Verdict.UNTESTED]
    assert validation_tightening(state, [one for _, one in tested], BASEL_RULE, NOW_US, 0) == []


def test_the_verdict_is_of_what_was_held_and_the_actual_exceptions_stand_beside_it() -> None:
    """Held: none of 100 lost more than VaR. Traded: 3 did."""
    sessions = (*closed([0.0] * 97), *(msgspec.structs.replace(one, pnl=-150.0) for one in closed([0.0] * 3)))

    narrow = next(one for one in verdicts_of(validations_of(sessions)) if one.confidence == 0.99)
    assert (narrow.n, narrow.exceptions, narrow.actual_exceptions) == (100, 0, 3)
    assert narrow.verdict == "PASS"


def tightening(state: AccountState, rule: TighteningRule | None = BASEL_RULE) -> list[Tightened]:
    validations = [one for _, one in validations_of(state.sessions)]
    records = validation_tightening(state, validations, rule, NOW_US, 0)
    return [record for record in records if isinstance(record, Tightened)]


def test_a_failing_model_tightens_var_and_es_until_it_passes_again() -> None:
    """250 sessions with 15 losses beyond VaR, spread out: Basel red at 99 %, and 0.75; then 250 with 2."""
    failing = closed([-110.0 if day % 16 == 15 else 0.0 for day in range(250)])
    passing = closed([-110.0 if day in (60, 180) else 0.0 for day in range(250)])
    state = with_sessions(failing)

    (record,) = tightening(state)
    assert (record.factor, record.measures) == (0.75, ("var_95", "var_99", "es_95", "es_99"))
    assert record.reason.startswith("historical VaR at 99%: FAIL, VaR is too low: 15 exceptions where 2.5 were")
    state.apply(record)
    assert tightening(state) == []

    state.sessions = passing
    (record,) = tightening(state)
    assert (record.factor, record.reason) == (1.0, "the model passes")
    state.apply(record)
    assert (state.tightenings, tightening(state)) == ((), [])


def test_without_a_rule_a_failing_model_is_flagged_alone_and_what_was_tightened_is_lifted() -> None:
    state = with_sessions(closed([-110.0 if day % 16 == 15 else 0.0 for day in range(250)]))
    assert tightening(state, None) == []

    (record,) = tightening(state)
    state.apply(record)
    assert [one.factor for one in tightening(state, None)] == [1.0]
