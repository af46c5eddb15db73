"""The whole analysis of a book with options: simulated paths revalue them in full, and nothing passes for linear.

A share at about 100, a call and a put on it half a year out, valued by a model with real closes behind it. References:
the pricing formula called path by path, Greeks by differences of it.
"""

from datetime import datetime

import numpy as np
import pytest

from engine.account import AccountState
from engine.instrument import InstrumentSet
from engine.risk.analysis import Analysis, Bench, BenchSettings, Subject
from engine.risk.build import build_model
from engine.risk.estimate import Basis, Book, asks, estimates
from engine.risk.history import PriceHistory
from engine.risk.holdings import holdings_of
from engine.risk.model import RiskModel
from engine.risk.options import book_of
from engine.risk.pricing import price
from engine.risk.revaluation import path_revaluation
from tests.engine import builders as engine_builders
from tests.engine.risk.builders import SESSION, history, levels, option, stock, walk

DAYS = 800
CALL, PUT = option("A-C105", 105.0, volatility=0.30), option("A-P95", 95.0, "put", volatility=0.25)
SHARE, OTHER = stock("A", factors={"SP500": 1.0}), stock("B")
KNOWN = InstrumentSet({one.symbol: one for one in (SHARE, OTHER, CALL, PUT)})
BUILT_US = int(datetime.fromisoformat(f"{SESSION}T12:00:00+00:00").timestamp()) * 1_000_000
SETTINGS = BenchSettings(n_paths=400)


@pytest.fixture(scope="module")
def prices() -> PriceHistory:
    closes = {"A": levels(walk(DAYS, 1), 100.0), "B": levels(walk(DAYS, 2), 50.0)}
    return history(closes, {"SP500": levels(walk(DAYS, 3), 4000.0)})


@pytest.fixture(scope="module")
def model(prices: PriceHistory) -> RiskModel:
    return build_model(KNOWN.instruments, KNOWN.hash, prices, SESSION, BUILT_US, marks={"A": 100.0, "B": 50.0})


def state_of(positions: dict[str, int]) -> AccountState:
    marks = {"A": 100.0, "B": 50.0, "A-C105": 7.0, "A-P95": 4.0}
    return engine_builders.account(KNOWN, marks, cash=10_000.0, positions=positions, session=SESSION.isoformat())


def subject_of(positions: dict[str, int], model: RiskModel, spot: float = 100.0) -> Subject:
    state = state_of(positions)
    marks = dict(zip(state.slots, state.prices.mark.tolist(), strict=True)) | {"A": spot}
    return Subject(holdings_of(state, KNOWN, model), BUILT_US, state.equity(), marks, {"USD": 1.0})


def analysed(positions: dict[str, int], model: RiskModel, prices: PriceHistory) -> Analysis:
    return Bench(model, KNOWN, prices, SETTINGS).analyse(subject_of(positions, model))


def test_paths_revalue_each_option_by_the_formula(model: RiskModel) -> None:
    book = book_of(model, KNOWN.instruments)
    place = book.symbols.index("A-P95")
    moves = np.array([[-0.30, 0.01], [0.0, 0.0], [0.20, -0.05]])

    found = path_revaluation(["A-P95"], ["A", "B"], book, KNOWN.instruments, "USD")(moves, 1)

    def put(spot: float) -> float:
        terms = (
            book.strike[place],
            book.years[place],
            book.volatility[place],
            book.rate[place],
            book.carry[place],
            -1.0,
        )
        return float(price(spot, *terms))

    spot = float(book.spot[place])
    expected = [(put(spot * (1 + move)) - put(spot)) / spot for move in (-0.30, 0.0, 0.20)]
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_paths_without_the_underlying_are_refused(model: RiskModel) -> None:
    book = book_of(model, KNOWN.instruments)

    with pytest.raises(ValueError, match="A-P95: its underlying A has no returns to simulate"):
        path_revaluation(["A-P95"], ["B"], book, KNOWN.instruments, "USD")
    with pytest.raises(ValueError, match="A-P95: expected an option in EUR, got USD"):
        path_revaluation(["A-P95"], ["A"], book, KNOWN.instruments, "EUR")


def test_options_alone_are_simulated_on_their_underlying_which_is_not_held(
    model: RiskModel, prices: PriceHistory
) -> None:
    found = analysed({"A-P95": 20, "B": 3}, model, prices)

    whole = holdings_of(state_of({"A-P95": 20, "B": 3}), KNOWN, model).by_symbol()
    columns = [model.column[symbol] for symbol in (*whole.symbols, "A")]
    symbols = (*whole.symbols, "A")
    revalue = path_revaluation(["A-P95"], ["B", "A"], book_of(model, KNOWN.instruments), KNOWN.instruments, "USD")
    is_option = np.array([symbol == "A-P95" for symbol in symbols])
    basis = Basis(
        model.returns[: model.n_days, columns], symbols=symbols, options=is_option, revalue=revalue, n_paths=400
    )
    money = np.append(whole.held, 0.0)
    expected = estimates(basis, Book(money, money, money), asks())
    assert found.refused == ()
    assert [one.var for one in found.estimates] == pytest.approx([one.var for one in expected])
    assert [one.method for one in found.estimates][-1] == "monte_carlo"


def test_a_sold_put_loses_more_in_a_crash_than_its_delta_says(model: RiskModel, prices: PriceHistory) -> None:
    sold = analysed({"A-P95": -20}, model, prices)
    assert sold.greeks is not None
    delta = float(sold.greeks.net[0])
    linear = analysed({"A": round(delta)}, model, prices)

    assert delta > 0
    assert sold.worst_scenario is not None and linear.worst_scenario is not None
    assert sold.worst_scenario.loss > 1.5 * linear.worst_scenario.loss
    assert sold.decomposition is not None and sold.decomposition.method == "historical"


def test_greeks_are_at_the_mark_of_the_underlying_now(model: RiskModel, prices: PriceHistory) -> None:
    book = book_of(model, KNOWN.instruments)
    place = book.symbols.index("A-C105")

    bench = Bench(model, KNOWN, prices, SETTINGS)
    bench.analyse(subject_of({"A-C105": 10, "A": 5}, model))
    found = bench.analyse(subject_of({"A-C105": 10, "A": 5}, model, spot=110.0)).greeks

    def call(spot: float) -> float:
        terms = (
            book.strike[place],
            book.years[place],
            book.volatility[place],
            book.rate[place],
            book.carry[place],
            1.0,
        )
        return float(price(spot, *terms))

    assert found is not None
    slope = (call(110.01) - call(109.99)) / 0.02
    rows = dict(zip(found.symbols, found.by_symbol.tolist(), strict=True))
    assert rows["A-C105"][0] == pytest.approx(10 * slope, rel=1e-6)
    assert found.underlyings == ("A",)
    assert found.net[0] == pytest.approx(10 * slope + 5, rel=1e-6)
