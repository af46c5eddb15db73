"""The whole analysis: each figure is that of the module that computes it alone, at first and after marks and fills.

A made history of 12 instruments over 16 years with their index; the account holds them in three strategies, with open
orders. What can't be computed is refused by name.
"""

import datetime
import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from engine.account import AccountState
from engine.instrument import InstrumentSet
from engine.risk.analysis import CHANGED_MAX, MENDED_MAX, Analysis, Bench, BenchSettings, Subject
from engine.risk.build import build_model
from engine.risk.decomposition import Positions, parametric_decomposition
from engine.risk.estimate import Basis, Book, VarEstimate, asks, estimates
from engine.risk.history import PriceHistory
from engine.risk.holdings import holdings_of
from engine.risk.model import RiskModel
from engine.risk.replay import SHIPPED_WINDOWS, replay
from engine.risk.reverse_stress import reverse_stress, target_loss
from engine.risk.scenarios import SIX_SCENARIOS
from engine.risk.stress import spot_volatility_grid, stress
from engine.risk.stress_book import book_of_holdings
from tests.engine.builders import NOW_US, SESSION, account, reserve, stock, universe, valued

SYMBOLS = tuple(f"S{at:02}" for at in range(12))
SETTINGS = BenchSettings(n_paths=2_000)


def weekdays(first: datetime.date, last: datetime.date) -> list[datetime.date]:
    days = [first + datetime.timedelta(at) for at in range((last - first).days)]
    return [day for day in days if day.weekday() < 5]


@pytest.fixture(scope="module")
def prices() -> PriceHistory:
    random = np.random.default_rng(5)
    days = weekdays(datetime.date(2007, 6, 1), SESSION)
    moves = random.standard_t(5, (len(days), len(SYMBOLS) + 1)) * 0.006
    moves[:, :-1] += moves[:, [-1]]
    levels = 100.0 * np.exp(np.cumsum(moves, axis=0))
    return PriceHistory(tuple(days), SYMBOLS, levels[:, :-1], {"SP500": levels[:, -1]})


@pytest.fixture(scope="module")
def instruments() -> InstrumentSet:
    return universe(*(stock(symbol, sector=("Tech", "Banks")[at % 2]) for at, symbol in enumerate(SYMBOLS)))


@pytest.fixture(scope="module")
def model(instruments: InstrumentSet, prices: PriceHistory) -> RiskModel:
    return build_model(instruments.instruments, instruments.hash, prices, SESSION, NOW_US)


@pytest.fixture
def state(instruments: InstrumentSet) -> AccountState:
    lots = {(f"st{at % 3}", symbol): 10 * (at + 1) * (-1 if at % 4 == 3 else 1) for at, symbol in enumerate(SYMBOLS)}
    state = account(instruments, dict.fromkeys(SYMBOLS, 100.0), cash=20_000.0, strategies=lots)
    reserve(state, "o1", "S01", 15, strategy="st1")
    reserve(state, "o2", "S04", -40, strategy="st1")
    return state


def subject_of(state: AccountState, instruments: InstrumentSet, model: RiskModel | None) -> Subject:
    marks = dict(zip(state.slots, state.prices.mark.tolist(), strict=True))
    holdings = holdings_of(state, instruments, model)
    return Subject(holdings, NOW_US, state.equity(), marks, {"USD": 1.0})


def bench_of(model: RiskModel, instruments: InstrumentSet, prices: PriceHistory) -> Bench:
    return Bench(model, instruments, prices, SETTINGS)


def check(
    found: Analysis, subject: Subject, model: RiskModel, instruments: InstrumentSet, prices: PriceHistory
) -> None:
    """Against the modules by themselves, nothing of them kept."""
    holdings = subject.holdings
    whole = holdings.by_symbol()
    basis = Basis(whole.day_returns(model), symbols=whole.symbols, n_paths=SETTINGS.n_paths)
    expected = estimates(basis, Book(whole.held, whole.low, whole.high), asks())
    assert figures(found.estimates) == pytest.approx(figures(expected), rel=1e-9)
    assert [one.method for one in found.estimates] == [one.method for one in expected]

    places = np.array([whole.symbols.index(symbol) for symbol in holdings.symbols])
    positions = Positions.of(holdings.labels, holdings.held, holdings.low, holdings.high, places)
    parts = parametric_decomposition(positions, basis.over(1).factors, 0.99)
    assert found.decomposition is not None
    np.testing.assert_allclose(found.decomposition.component, parts.component, rtol=1e-9)
    for groups in found.groups.values():
        assert sum(groups.values()) == pytest.approx(parts.total, rel=1e-9)

    book = book_of_holdings(holdings, instruments, model)
    losses = stress(book, SIX_SCENARIOS)
    assert [one.loss for one in found.scenarios] == pytest.approx([one.loss for one in losses], rel=1e-9)
    np.testing.assert_allclose(found.scenario_losses, np.array([one.position_losses for one in losses]).T, rtol=1e-9)
    grids = {one.underlying: one.worst.loss for one in spot_volatility_grid(book)}
    assert {one.underlying: one.loss for one in found.grids} == pytest.approx(grids, rel=1e-9)

    assert found.reverse is not None and subject.equity is not None
    worst = max(losses, key=lambda one: one.loss).name
    (scenario,) = [one for one in SIX_SCENARIOS if one.name == worst]
    reverse = reverse_stress(book, scenario, target_loss(subject.equity))
    assert (found.reverse.scenario, found.reverse.reachable) == (worst, reverse.reachable)
    assert reverse.multiplier is not None
    assert found.reverse.multiplier == pytest.approx(reverse.multiplier, rel=1e-6)

    for replayed, window in zip(found.replays, SHIPPED_WINDOWS, strict=True):
        alone = replay(book, prices, window)
        assert alone.worst is not None
        assert (replayed.days, replayed.worst_date) == (len(alone.dates), alone.worst.date)
        assert replayed.worst_pnl == pytest.approx(alone.worst.cumulative_pnl, rel=1e-9)
        assert replayed.max_drawdown == pytest.approx(alone.max_drawdown, rel=1e-9)
        assert replayed.covered_share == alone.covered_share == 1.0

    assert found.greeks is not None
    assert found.greeks.net[:2].tolist() == pytest.approx([whole.lots.sum(), whole.values.sum()])
    assert found.refused == ()


def figures(found: Sequence[VarEstimate]) -> list[float]:
    return [value for one in found for value in (one.var, one.es)]


def test_each_figure_is_that_of_its_own_module(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    subject = subject_of(state, instruments, model)

    found = bench_of(model, instruments, prices).analyse(subject)

    check(found, subject, model, instruments, prices)
    assert found.labels[0] == "st0/S00"


def test_after_a_mark_and_a_fill_the_figures_are_those_of_a_fresh_bench(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    bench = bench_of(model, instruments, prices)
    bench.analyse(subject_of(state, instruments, model))
    state.apply(valued({"S03": 120.0}))
    bench.analyse(subject_of(state, instruments, model))
    reserve(state, "o3", "S00", 25, strategy="st0")

    subject = subject_of(state, instruments, model)
    check(bench.analyse(subject), subject, model, instruments, prices)


def test_after_all_marks_moved_too(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    bench = bench_of(model, instruments, prices)
    bench.analyse(subject_of(state, instruments, model))
    state.apply(valued({symbol: 90.0 + at for at, symbol in enumerate(SYMBOLS)}))

    subject = subject_of(state, instruments, model)
    check(bench.analyse(subject), subject, model, instruments, prices)


def test_rounding_does_not_add_up_over_many_marks(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    assert CHANGED_MAX * len(SYMBOLS) >= 1
    bench = bench_of(model, instruments, prices)
    for at in range(MENDED_MAX + 3):
        state.apply(valued({SYMBOLS[at % 12]: 1e13 if at == 5 else 80.0 + at / 7}))
        found = bench.analyse(subject_of(state, instruments, model))

    fresh = bench_of(model, instruments, prices).analyse(subject_of(state, instruments, model))
    assert figures(found.estimates) == pytest.approx(figures(fresh.estimates), rel=1e-9)


def test_a_closed_position_gets_the_rows_of_its_own(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    bench = bench_of(model, instruments, prices)
    bench.analyse(subject_of(state, instruments, model))
    small = account(instruments, dict.fromkeys(SYMBOLS, 100.0), cash=1e3, positions={"S02": 5})

    subject = subject_of(small, instruments, model)
    check(bench.analyse(subject), subject, model, instruments, prices)


def test_an_account_without_positions_has_nothing_to_lose_and_says_so(
    instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    empty = account(instruments, dict.fromkeys(SYMBOLS, 100.0))

    found = bench_of(model, instruments, prices).analyse(subject_of(empty, instruments, model))

    assert {one.figure: one.reason for one in found.refused}["value at risk"] == "nothing is held or open"
    assert [one.loss for one in found.scenarios] == [0.0] * 6
    assert found.greeks is not None and found.greeks.net.tolist() == [0.0] * 6


def test_a_row_without_history_refuses_what_needs_days_and_nothing_else(
    instruments: InstrumentSet, prices: PriceHistory
) -> None:
    more = instruments.with_added([stock("NEW")])
    model = build_model(more.instruments, more.hash, prices, SESSION, NOW_US)
    state = account(more, {**dict.fromkeys(SYMBOLS, 100.0), "NEW": 50.0}, positions={"S02": 5, "NEW": 7})

    found = Bench(model, more, prices, SETTINGS).analyse(subject_of(state, more, model))

    reasons = {one.figure: one.reason for one in found.refused}
    assert reasons["value at risk"] == "NEW has too little price history and no proxy"
    assert reasons["decomposition"] == reasons["value at risk"]
    assert found.estimates == ()
    assert all("NEW" in one.missing for one in found.replays)
    assert found.replays[0].covered_share == pytest.approx(500 / 850)
    assert found.greeks is not None and found.greeks.net[1] == 850.0


def test_a_row_without_a_mark_is_left_out_by_name(
    instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    state = account(instruments, {"S02": 100.0}, positions={"S02": 5, "S03": 7})

    found = bench_of(model, instruments, prices).analyse(subject_of(state, instruments, model))

    assert {one.figure for one in found.refused} >= {"value at risk", "decomposition", "reverse stress"}
    assert [row.symbol for row in found.scenarios[0].left_out] == ["S03"]
    assert found.greeks is not None and [one.symbol for one in found.greeks.left_out] == ["S03"]
    assert found.greeks.net[1] == 500.0
    assert np.isnan(found.greeks.by_symbol).all(axis=1).tolist() == [False, True]


def test_a_replay_of_nothing_that_has_a_mark_is_no_figure(
    instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    state = account(instruments, {}, positions={"S02": 5})

    found = bench_of(model, instruments, prices).analyse(subject_of(state, instruments, model))

    assert [(one.days, one.worst_pnl, one.missing) for one in found.replays] == [(0, None, ("S02",))] * 5


def test_without_equity_no_share_of_it_is_lost(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    subject = subject_of(state, instruments, model)
    poor = Subject(subject.holdings, NOW_US, -5.0, subject.marks, subject.rates)

    found = bench_of(model, instruments, prices).analyse(poor)

    assert [one.figure for one in found.refused] == ["reverse stress"]


def test_an_analysis_goes_from_one_process_to_another(
    state: AccountState, instruments: InstrumentSet, model: RiskModel, prices: PriceHistory
) -> None:
    found = bench_of(model, instruments, prices).analyse(subject_of(state, instruments, model))

    copy = pickle.loads(pickle.dumps(found))  # noqa: S301 - own bytes

    assert figures(copy.estimates) == figures(found.estimates)
    assert len(pickle.dumps(found)) < 100_000
