"""The tape: which prices a session knows, and which sessions can be played."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from gateway.demo.run import DemoPlan
from gateway.demo.tape import TapeError, tape_of
from gateway.market.prices import sample_us_stocks
from gateway.market.sample import SECTORS
from tests.gateway.demo.builders import HISTORY_DAYS, SYMBOLS, prices, tape


def test_a_session_opens_on_the_closes_of_the_day_before() -> None:
    history = prices()
    played = tape(history)
    session = played.sessions[2]

    assert session.date == history.dates[HISTORY_DAYS + 3]
    assert played.known(session).shape == (HISTORY_DAYS + 3, 20)
    assert played.opening(session)["S00"] == history.closes[HISTORY_DAYS + 2, 0]
    assert played.closing(session)["S00"] == history.closes[HISTORY_DAYS + 3, 0]


@pytest.mark.parametrize(("first_row", "problem"), [(HISTORY_DAYS, "expected 301"), (HISTORY_DAYS + 100, "no session")])
def test_sessions_without_prices_or_history_are_refused(first_row: int, problem: str) -> None:
    history = prices()
    first = date.fromordinal(history.dates[0].toordinal() + first_row)

    with pytest.raises(TapeError, match=problem):
        tape_of(history, first, date(2021, 12, 31), HISTORY_DAYS)


def test_a_missing_close_is_refused() -> None:
    history = prices()
    closes = history.closes.copy()
    closes[-1, 4] = np.nan

    with pytest.raises(TapeError, match="a close is missing"):
        tape(replace(history, closes=closes))


def test_the_plan_plays_real_prices_through_the_crash() -> None:
    plan = DemoPlan()

    played = tape_of(sample_us_stocks(), plan.first, plan.last, plan.lookback_days)

    assert set(played.symbols) == set(SECTORS) and len(SYMBOLS) == len(SECTORS)
    assert 90 <= len(played.sessions) <= 130
    (worst,) = [session for session in played.sessions if session.date == plan.stop_on]
    fall = np.mean([played.closing(worst)[s] / played.opening(worst)[s] - 1.0 for s in played.symbols])
    assert fall < -0.10  # the S&P 500 fell 11.98 % that day
