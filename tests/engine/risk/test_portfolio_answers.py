"""The portfolio's part of a report on small books: figures counted by hand or with numpy alone, and what is missing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.account import Session
from engine.facts import Quote
from engine.instrument import InstrumentSet
from engine.pnl import AccountPnl, Gains, PositionPnl, ProfitAndLoss
from engine.risk.build import build_model
from engine.risk.case import Assumptions, Case
from engine.risk.holdings import Holdings
from engine.risk.inquiry import Stamp
from engine.risk.portfolio_answers import BENCHMARK, PortfolioMeasures, portfolio_measures, session_figures
from engine.risk.scenarios import Scenario
from tests.engine.risk.builders import SESSION, book, history, levels, stock, walk, weekdays

DAYS = 300
INDEX = walk(DAYS, 1)
MANY = {f"S{number:02}": walk(DAYS, 10 + number) for number in range(21)}
RETURNS = {"AAA": 2.0 * INDEX, "BBB": walk(DAYS, 2), "FLAT": np.zeros(DAYS), **MANY}
MONEY = {("one", "AAA"): 3_000.0, ("one", "FLAT"): 500.0, ("two", "BBB"): -2_000.0, ("", "AAA"): 1_000.0}
OPEN = Session(SESSION.isoformat(), 10_000.0, 0.0, opened_us=1_000)


def case(money: dict[tuple[str, str], float] = MONEY, equity: float | None = 10_000.0, indexed: bool = True) -> Case:
    prices = history(
        {symbol: levels(moves) for symbol, moves in RETURNS.items()}, {BENCHMARK: levels(INDEX)} if indexed else {}
    )
    instruments = book(*(stock(symbol) for symbol in (*RETURNS, "NEW")))
    scenarios = (Scenario("fall", {BENCHMARK: -0.2}),)
    model = build_model(instruments, "set", prices, SESSION, 1, DAYS, scenarios, unmapped="zero")
    held = np.array(list(money.values()))
    symbols = tuple(symbol for _, symbol in money)
    columns = np.array([model.column[symbol] for symbol in symbols], dtype=np.intp)
    lots = held.astype(np.int64)
    holdings = Holdings(
        account="A",
        seq=7,
        base_currency="USD",
        strategies=tuple(strategy for strategy, _ in money),
        symbols=symbols,
        lots=lots,
        low_lots=lots,
        high_lots=lots,
        values=held,
        held=held,
        low=held,
        high=held,
        columns=columns,
        has_history=model.has_history[columns],
        has_factor=model.has_factor[columns],
        asset_classes=("equity",) * len(symbols),
        sectors=("",) * len(symbols),
        issuers=symbols,
        underlyings=symbols,
        marks_oldest_us=1.0,
        gaps=(),
    )
    strategies = tuple(dict.fromkeys(strategy for strategy, _ in money))
    return Case(
        stamp=Stamp("A", None, 7, 1, "USD", equity),
        account=holdings,
        strategies=(*strategies, "gone"),
        model=model,
        instruments=InstrumentSet(instruments),
        assumptions=Assumptions(scenarios, prices=prices),
        quantities=held,
        marks={},
        rates={"USD": 1.0},
    )


def gained(*rows: tuple[str, float, float | None]) -> ProfitAndLoss:
    """Positions of strategy one: symbol, value now, gain of the session."""
    positions = tuple(
        PositionPnl("one", symbol, "equity", "", 1.0, 0.0, value, None, Gains(0.0, gain), Gains(0.0, gain))
        for symbol, value, gain in rows
    )
    none: Any = AccountPnl(None, Gains(None, None), None, None)
    drawdowns: Any = None
    return ProfitAndLoss("A", "USD", "", none, none, positions, (), (), (), (), drawdowns, ())


def measures(of: Case | None = None, pnl: ProfitAndLoss | None = None, index: Quote | None = None) -> PortfolioMeasures:
    return portfolio_measures(of or case(), (), OPEN, pnl or gained(), index)


def sessions(returns: Sequence[float] | NDArray[np.float64], dates: Sequence[date] | None = None) -> list[Session]:
    days = dates or weekdays(len(returns))
    return [
        Session(day.isoformat(), 1.0, 0.0, nav_open=2.0, nav_close=2.0 * (1.0 + one))
        for day, one in zip(days, returns, strict=True)
    ]


def test_the_positions_of_now_are_seen_over_the_days_of_the_model() -> None:
    daily = 0.4 * RETURNS["AAA"] - 0.2 * RETURNS["BBB"]

    found = measures().book

    assert found.statistics is not None and found.fit is not None
    assert len(found.dates) == DAYS == found.statistics.n_observations == found.fit.n_observations
    assert found.statistics.volatility == pytest.approx(daily.std(ddof=1) * math.sqrt(252))
    assert found.statistics.worst[0].loss == pytest.approx(-daily.min())
    assert found.fit.beta == pytest.approx(np.cov(daily, INDEX)[0, 1] / INDEX.var(ddof=1))
    assert found.warnings == ()


def test_a_book_of_the_market_alone_has_its_beta_no_alpha_and_is_explained_in_full() -> None:
    fit = measures(case({("one", "AAA"): 5_000.0})).book.fit

    assert fit is not None
    assert [fit.beta, fit.alpha, fit.r_squared] == pytest.approx([1.0, 0.0, 1.0], abs=1e-9)


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (case({("one", "NEW"): 1.0}), "NEW"),
        (case({}), "nothing is held"),
        (case(equity=-1.0), "no positive equity"),
        (case(equity=None), "no positive equity"),
        (replace(case(), model=None), "no risk model yet"),
    ],
)
def test_what_keeps_the_book_from_being_seen_over_days_is_said(of: Case, why: str) -> None:
    found = measures(of).book

    assert (found.statistics, found.fit) == (None, None)
    assert why in found.warnings[0]


def test_without_the_index_only_the_benchmark_figures_are_missing() -> None:
    found = measures(case(indexed=False)).book

    assert found.statistics is not None and found.fit is None
    assert found.warnings == ("no benchmark: SP500 is known on 0 of the days, 20 are needed",)


def test_a_loss_of_more_than_everything_in_a_day_has_no_statistics_and_says_why() -> None:
    found = measures(case(equity=20.0)).book

    assert found.statistics is None and "expected decimals of -1 or more" in found.warnings[0]


def test_closed_sessions_are_returns_of_the_nav() -> None:
    """Ten times up 1 % and down 2 %."""
    found = session_figures(sessions([0.01, -0.02] * 10), None)

    assert found.statistics is not None
    assert found.statistics.mean == pytest.approx(-0.005)
    assert found.statistics.volatility == pytest.approx(0.015 * math.sqrt(20 / 19 * 252))
    assert found.statistics.downside_deviation == pytest.approx(0.02 * math.sqrt(0.5 * 252))
    assert found.statistics.worst[0].loss == pytest.approx(0.02)
    assert found.statistics.worst[1].loss == pytest.approx(1.0 - 0.98**3 * 1.01**2)
    assert found.fit is None and "SP500 is known on 0" in found.warnings[0]


def test_sessions_meet_the_index_by_date() -> None:
    """The account earned three times the index; the first 40 sessions are older than what is known of it."""
    days = weekdays(DAYS + 40)
    prices = case().assumptions.prices

    found = session_figures(sessions(np.concatenate((np.zeros(40), 3.0 * INDEX)), days), prices)

    assert found.fit is not None
    assert found.fit.n_observations == DAYS
    assert found.fit.beta == pytest.approx(3.0)
    assert found.warnings == ("SP500 is known on 300 of 340 days: benchmark figures are of those",)


def test_too_few_sessions_give_no_figure() -> None:
    found = session_figures(sessions([0.01] * 19), None)

    assert (found.statistics, found.fit) == (None, None)
    assert found.warnings == ("19 days of returns, statistics need 20",)


def test_a_session_run_anew_counts_once_and_one_without_a_nav_not_at_all() -> None:
    blind = Session(SESSION.isoformat(), 1.0, 0.0)
    twice = sessions([0.5, 0.5], [SESSION - timedelta(days=2), SESSION - timedelta(days=1)])
    again = sessions([0.01], [SESSION - timedelta(days=1)])

    found = session_figures([*twice, *again, blind], None)

    assert found.dates == (SESSION - timedelta(days=2), SESSION - timedelta(days=1))
    assert found.warnings[0] == "1 sessions without a NAV are left out"


def test_assets_are_correlated_once_each_the_largest_first_and_one_that_never_moves_is_named() -> None:
    found = measures().assets

    assert found.matrix is not None
    assert (found.matrix.names, found.matrix.constant) == (("AAA", "BBB"), ("FLAT",))
    expected = np.corrcoef(RETURNS["AAA"], RETURNS["BBB"])[0, 1]  # of the assets, though BBB is short
    assert found.matrix.of("AAA", "BBB") == pytest.approx(expected)
    assert "never moved: FLAT" in found.warnings[0]


def test_strategies_are_correlated_by_what_their_positions_would_have_made() -> None:
    found = measures().strategies

    assert found.matrix is not None and found.matrix.names == ("one", "two", "")
    assert found.matrix.of("one", "") == pytest.approx(1.0)
    expected = -np.corrcoef(RETURNS["AAA"], RETURNS["BBB"])[0, 1]  # two is short
    assert found.matrix.of("one", "two") == pytest.approx(expected)


def test_what_has_no_history_is_left_out_of_correlations_by_name() -> None:
    found = measures(case({**MONEY, ("two", "NEW"): 9_000.0}))

    assert found.assets.matrix is not None and found.assets.matrix.names == ("AAA", "BBB")
    assert "left out, no mark, rate or history: NEW" in found.assets.warnings
    assert found.strategies.matrix is not None and found.strategies.matrix.names == ("one", "")
    assert "left out, no mark, rate or history: two" in found.strategies.warnings


def test_of_more_than_twenty_assets_the_largest_are_shown_and_that_is_said() -> None:
    """Every second one is short; S00 is the smallest."""
    found = measures(case({("one", name): (-1.0) ** place * (place + 1) for place, name in enumerate(MANY)})).assets

    assert found.matrix is not None
    assert found.matrix.names == tuple(reversed(MANY))[:20]
    assert found.warnings == ("the 20 largest of 21 assets by value",)


def test_one_asset_correlates_with_nothing() -> None:
    found = measures(case({("one", "AAA"): 1.0}))

    assert found.assets.matrix is None and found.strategies.matrix is None
    assert found.assets.warnings == ("a correlation needs two series with history, 1 there",)


def test_the_sessions_gain_is_split_into_the_index_and_the_rest() -> None:
    """3,000 of AAA at a beta of 2 as the index rises 1 %: 60 of the 100 that it gained. BBB has no part in it."""
    close = levels(INDEX)[-1]
    found = measures(pnl=gained(("AAA", 3_100.0, 100.0), ("NEW", 50.0, -7.0)), index=quote(1.01 * close)).factors

    assert found.attribution is not None
    assert found.moves[BENCHMARK] == pytest.approx(0.01)
    assert [one.pnl for one in found.attribution.factors] == pytest.approx([60.0])
    assert found.attribution.specific == pytest.approx(33.0)
    assert found.attribution.total == pytest.approx(93.0)
    assert found.warnings == ("no beta to SP500, all P&L is specific: NEW",)


def quote(mark: float, time_us: int = 2_000) -> Quote:
    return Quote(BENCHMARK, mark, None, None, time_us)


@pytest.mark.parametrize(
    ("gain", "index", "why"),
    [
        (1.0, None, "no mark of SP500 since the session was opened"),
        (1.0, quote(100.0, 999), "no mark of SP500 since the session was opened"),
        (None, quote(100.0), "P&L of the session is not known of AAA"),
    ],
)
def test_without_a_mark_of_today_or_a_gain_there_is_no_attribution(
    gain: float | None, index: Quote | None, why: str
) -> None:
    found = measures(pnl=gained(("AAA", 1.0, gain)), index=index).factors

    assert found.attribution is None and why in found.warnings[0]
