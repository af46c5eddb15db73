"""What the fold keeps of each session: its figures, the forecast made for it, and what the positions of it then gained.

Marks of 100 and 50, 1,000,000 in cash unless told; the small model of the builders.
"""

import math

import pytest

from engine.account import SESSIONS_MAX, AccountState
from engine.facts import listing
from engine.records import AnyRecord, CashFlowed, Forecast, SessionOpened, Tightened, decode, encode
from tests.engine.builders import NOW_US, account, future, report, reserve, stock, universe, valued

TWO = universe(stock("AAA"), stock("BBB"))


def opened(date: str) -> SessionOpened:
    return SessionOpened(time_us=NOW_US, date=date)


def promised(session: str, var_95: float = 10.0) -> Forecast:
    return Forecast(
        time_us=NOW_US,
        session=session,
        var_95=var_95,
        var_99=2 * var_95,
        es_95=1.5 * var_95,
        es_99=2.5 * var_95,
        method="historical",
        model="m",
    )


def held(cash: float = 0.0) -> AccountState:
    """10 AAA at 100 and the cash, in session 2023-11-14."""
    return account(TWO, {"AAA": 100.0, "BBB": 50.0}, cash=cash, positions={"AAA": 10})


def test_a_closed_session_keeps_its_equity_nav_peak_and_worst_fall() -> None:
    state = held()
    for mark in (110.0, 88.0, 99.0):
        state.apply(valued({"AAA": mark}))
    state.apply(CashFlowed(time_us=NOW_US, event_id="e", amount=90.0, currency="USD"))
    state.apply(opened("2023-11-15"))

    (closed,) = state.sessions
    assert (closed.date, closed.equity_open, closed.equity_close, closed.flows) == ("2023-11-14", 1000.0, 1080.0, 90.0)
    assert closed.pnl == -10.0
    assert [closed.nav_open, closed.nav_close, closed.nav_peak] == pytest.approx([1.0, 0.99, 1.1])
    assert closed.drawdown_max == pytest.approx(0.2)
    assert state.session is not None and state.session.nav_open == pytest.approx(0.99)


def test_a_fall_in_one_session_is_not_told_of_the_next() -> None:
    state = held()
    state.apply(valued({"AAA": 80.0}))
    state.apply(opened("2023-11-15"))
    state.apply(valued({"AAA": 82.0}))
    state.apply(opened("2023-11-16"))

    assert [one.drawdown_max for one in state.sessions] == [pytest.approx(0.2), pytest.approx(0.0)]


def test_an_account_that_lost_all_fell_by_all() -> None:
    state = account(TWO, {"AAA": 100.0}, cash=-900.0, positions={"AAA": 10})
    state.apply(valued({"AAA": 90.0}))
    state.apply(opened("2023-11-15"))

    assert state.sessions[0].drawdown_max == 1.0


def test_a_session_before_the_first_mark_knows_nothing_and_says_so() -> None:
    state = account(TWO, {}, positions={"AAA": 1})
    state.apply(opened("2023-11-15"))

    (closed,) = state.sessions
    assert all(math.isnan(x) for x in (closed.nav_open, closed.nav_close, closed.drawdown_max, closed.held_pnl))
    assert closed.forecast is None


def test_no_more_sessions_are_kept_than_are_looked_at() -> None:
    state = held()
    for day in range(SESSIONS_MAX + 5):
        state.apply(opened(f"2024-{day:05}"))

    assert len(state.sessions) == SESSIONS_MAX
    assert state.sessions[-1].date == f"2024-{SESSIONS_MAX + 3:05}"


# --- forecasts -----------------------------------------------------------------------------------------------------


def test_a_forecast_is_kept_with_its_session_and_the_first_one_counts() -> None:
    state = held()
    state.apply(promised("2023-11-14", 10.0))
    state.apply(promised("2023-11-14", 99.0))
    state.apply(promised("2023-11-13", 99.0))
    state.apply(opened("2023-11-15"))

    forecast = state.sessions[0].forecast
    assert forecast is not None and forecast.var_95 == 10.0
    assert state.session is not None and state.session.forecast is None


def test_what_the_positions_of_the_forecast_gained_is_not_what_trading_gained() -> None:
    """10 AAA were held at 100; 5 were sold at 104, the rest is worth 90."""
    state = held()
    state.apply(promised("2023-11-14"))
    reserve(state, "out", "AAA", -5)
    state.apply(report(state, "out", "fill", 5, 104.0))
    state.apply(valued({"AAA": 90.0}))
    state.apply(opened("2023-11-15"))

    (closed,) = state.sessions
    assert (closed.held_pnl, closed.pnl) == (-100.0, 5 * 4.0 - 5 * 10.0)


def test_gains_count_from_the_forecast_and_not_from_the_opening() -> None:
    state = held()
    state.apply(valued({"AAA": 95.0}))
    state.apply(promised("2023-11-14"))
    state.apply(valued({"AAA": 97.0}))
    state.apply(opened("2023-11-15"))

    assert (state.sessions[0].held_pnl, state.sessions[0].pnl) == (20.0, -30.0)


def test_of_a_foreign_future_the_gain_alone_is_money() -> None:
    """A stock and a future in EUR, one unit each at 100 when EUR is 1.00; then 110 at 1.20: the stock gains 132 - 100,
    the future 10 at 1.20."""
    instruments = universe(stock("SSS", currency="EUR"), future("FFF", currency="EUR", multiplier=1.0))
    gained = []
    for symbol in ("SSS", "FFF"):
        state = account(instruments, {"SSS": 100.0, "FFF": 100.0}, positions={symbol: 1}, fx={"EUR": 1.0})
        state.apply(promised("2023-11-14"))
        state.apply(valued({"SSS": 110.0, "FFF": 110.0}, {"EUR": 1.2}))
        state.apply(opened("2023-11-15"))
        gained.append(state.sessions[0].held_pnl)

    assert gained == [pytest.approx(32.0), pytest.approx(12.0)]


def test_a_symbol_that_came_after_the_forecast_is_not_in_it() -> None:
    state = held()
    state.apply(promised("2023-11-14"))
    state.apply(encode_and_back(_listed("CCC")))
    state.apply(valued({"CCC": 10.0, "AAA": 101.0}))
    state.apply(opened("2023-11-15"))

    assert state.sessions[0].held_pnl == 10.0


def test_the_history_survives_a_fork_and_the_wire() -> None:
    """Folded from the stored bytes, by way of forks, it is the same."""
    records: list[AnyRecord] = [
        promised("2023-11-14"),
        valued({"AAA": 90.0}),
        Tightened(time_us=NOW_US, tightening_id="t", measures=("var_99",), factor=0.5, reason="why"),
        opened("2023-11-15"),
    ]
    direct, forked = held(), held()
    for record in records:
        direct.apply(record)
        trial = forked.fork()
        trial.apply(encode_and_back(record))
        forked = trial.settle()

    assert forked.sessions == direct.sessions
    assert forked.tightenings == direct.tightenings
    assert forked.sessions[0].held_pnl == -100.0


def encode_and_back(record: AnyRecord) -> AnyRecord:
    return decode(encode(record))


def _listed(symbol: str) -> AnyRecord:
    record = listing(held(), stock(symbol), NOW_US, 0)
    assert record is not None
    return record
