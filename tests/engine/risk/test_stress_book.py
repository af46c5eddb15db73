"""The book that scenarios see: its checks, and the way from an account's holdings and a model's options to it.

The oracle of a revalued option is the model's own column, computed by build.py.
"""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from engine.account import AccountState
from engine.instrument import Instrument, InstrumentSet, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.risk.build import build_model
from engine.risk.factors import FactorMap
from engine.risk.history import PriceHistory
from engine.risk.holdings import holdings_of
from engine.risk.scenarios import Scenario
from engine.risk.stress import spot_volatility_grid, stress
from engine.risk.stress_book import Options, StressBook, book_of_holdings, options_of_model, reach_of
from tests.engine.builders import account, model, reserve, universe
from tests.engine.builders import stock as listed
from tests.engine.risk.builders import instrument, stock

ONE = np.ones(1)


def option_rows(**changes: Any) -> Options:
    fields: dict[str, Any] = {
        "rows": np.array([0], dtype=np.intp),
        "revalue": lambda moves, _: moves,
        "references": 100.0 * ONE,
        "prices": ONE,
        "underlyings": (stock("SPY"),),
        "betas": ONE,
    }
    return Options(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": 0.0 * ONE}, "references"),
        ({"references": np.nan * ONE}, "references"),
        ({"references": np.ones(2)}, "references: expected shape"),
        ({"prices": -ONE}, "prices"),
        ({"betas": np.ones(2)}, "betas"),
        ({"underlyings": ()}, "underlyings: expected 1"),
        ({"underlyings": (instrument("C", "option"),)}, "expected no option, got C"),
    ],
)
def test_options_that_cannot_be_revalued_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        option_rows(**changes)


def test_rows_of_options_are_places_in_the_book_once_each() -> None:
    with pytest.raises(ValueError, match="rising"):
        option_rows(
            rows=np.array([0, 0], dtype=np.intp),
            references=np.ones(2),
            prices=np.ones(2),
            betas=np.ones(2),
            underlyings=(stock("SPY"), stock("SPY")),
        )
    with pytest.raises(ValueError, match="places from 0 to 0"):
        StressBook.of([stock("A")], [1.0], options=option_rows(rows=np.array([1], dtype=np.intp)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held": [1.0, 2.0]}, "held: expected shape"),
        ({"held": [np.nan]}, "held: expected finite money"),
        ({"low": [3.0], "high": [2.0]}, "low: expected no end above"),
        ({"high": [np.inf]}, "high: expected finite money"),
        ({"strategies": ["a", "b"]}, "strategies: expected 1"),
        ({"betas": [1.0, 1.0]}, "betas: expected shape"),
    ],
)
def test_a_book_without_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StressBook.of(**{"instruments": [stock("A")], "held": [1.0], **changes})


def test_a_revaluation_of_another_shape_is_refused() -> None:
    rows = [instrument("C", "option", underlying="SPY")]
    held = StressBook.of(rows, [1.0], options=option_rows(revalue=lambda moves, _: moves[:, 0]))

    with pytest.raises(ValueError, match="revalue: expected P&L of shape"):
        stress(held, [Scenario("fall", {"SP500": -0.1})])


def test_factors_reach_any_number_of_paths_at_once() -> None:
    rows = [stock("OIL"), stock("VALE3", currency="BRL", factors={"OIL": 0.5, "IBOVESPA": 1.0})]
    held = StressBook.of(rows, [1.0, 1.0])

    reach = reach_of(held, ("IBOVESPA", "OIL", "USDBRL"), FactorMap())

    returns = reach.returns(held, np.array([[0.0, -0.2], [0.1, 0.1], [0.0, 0.25]]))
    np.testing.assert_allclose(returns, [[0.1, 0.1], [0.05, 0.85 * 0.8 - 1.0]])
    assert reach.names == (("OIL",), ("OIL", "IBOVESPA"))


UNIVERSE = universe(listed("AAA", factors={"SP500": 1.0}), listed("BBB", currency="EUR"))
MODEL = replace(model({"AAA": [0.01, -0.02], "BBB": [0.03, 0.04]}), betas=np.array([1.2, 0.7]))


def trading(**marks: float) -> AccountState:
    strategies = {("mm", "AAA"): 100, ("trend", "AAA"): -30, ("trend", "BBB"): 5}
    return account(UNIVERSE, marks, strategies=strategies, fx={"EUR": 1.5})


def test_the_book_of_an_accounts_holdings() -> None:
    state = trading(AAA=10.0, BBB=20.0)
    reserve(state, "o1", "AAA", 7, strategy="mm")

    held = book_of_holdings(holdings_of(state, UNIVERSE, MODEL), UNIVERSE, MODEL)

    assert [one.symbol for one in held.instruments] == ["AAA", "AAA", "BBB"]
    assert held.strategies == ("mm", "trend", "trend")
    assert held.held.tolist() == [1000.0, -300.0, 150.0] and held.high.tolist() == [1070.0, -300.0, 150.0]
    assert held.betas.tolist() == [1.2, 1.2, 0.7] and held.options is None and held.left_out == ()


def test_what_has_no_mark_or_no_instrument_is_left_out_with_its_reason() -> None:
    found = holdings_of(trading(AAA=10.0), UNIVERSE, MODEL)

    held = book_of_holdings(found, UNIVERSE, MODEL)
    without_model = book_of_holdings(found, InstrumentSet({"BBB": UNIVERSE.instruments["BBB"]}), None)

    assert [one.symbol for one in held.instruments] == ["AAA", "AAA"]
    assert held.left_out[0].symbol == "BBB" and "no mark for BBB" in held.left_out[0].reason
    assert [one.symbol for one in without_model.left_out] == ["AAA", "AAA", "BBB"]


def option(
    symbol: str, right: OptionRight, strike: float, underlying: str = "SPY", currency: str = "USD"
) -> Instrument:
    return instrument(
        symbol,
        "option",
        currency,
        underlying=underlying,
        expiry=date(2024, 6, 21),
        multiplier=100.0,
        option=OptionTerms(
            strike=strike,
            right=right,
            style=OptionStyle.EUROPEAN,
            model=OptionModel.BLACK_SCHOLES_MERTON,
            rate=0.04,
            volatility=0.25,
        ),
    )


CRASH = Scenario("crash", {"SP500": -0.20, "VOL": 0.15, "USDBRL": 0.10})
OPTIONS = [
    stock("SPY", factors={"SP500": 1.0}),
    option("PUT", OptionRight.PUT, 450.0),
    option("CALL", OptionRight.CALL, 500.0),
    stock("BOVA", currency="BRL", factors={"SP500": 0.8}),
    option("BPUT", OptionRight.PUT, 100.0, "BOVA", "BRL"),
]


def priced_model() -> Any:
    prices = PriceHistory(
        (date(2023, 12, 28), date(2023, 12, 29)),
        ("SPY", "BOVA"),
        np.array([[470.0, 100.0], [475.0, 110.0]]),
        {"USDBRL": np.array([4.8, 4.9])},
    )
    instruments = {one.symbol: one for one in OPTIONS}
    # noon of the session's day: what the model values its options at
    return build_model(instruments, "s", prices, date(2024, 1, 2), 1_704_196_800_000_000, scenarios=(CRASH,))


def book_of_options(spots: dict[str, float] | None = None) -> tuple[StressBook, Any]:
    """Ten units of each row: an option's money is units × the model's reference."""
    priced = priced_model()
    columns = [priced.column[one.symbol] for one in OPTIONS]
    references = priced.reference[columns]
    money = 10.0 * np.where(np.isnan(references), 100.0, references)
    known = {one.symbol: one for one in OPTIONS}
    options = options_of_model(OPTIONS, known, priced, spots or {})
    return StressBook.of(OPTIONS, money, options=options, underlyings=known), priced


def test_a_models_options_are_revalued_to_the_models_own_columns() -> None:
    held, priced = book_of_options()
    columns = [priced.column[one.symbol] for one in OPTIONS]

    (crash,) = stress(held, [CRASH])

    expected = -held.held * priced.returns[priced.n_days, columns]
    assert priced.has_factor.all() and (expected != 0.0).all() and crash.left_out == ()
    np.testing.assert_allclose(crash.position_losses, expected, rtol=1e-9)
    assert crash.position_losses[1] < 0.0 < crash.position_losses[2]  # the put gains, the call loses
    put = next(one for one in crash.contributions() if one.symbol == "PUT")
    assert put.factors == ("SP500", "VOL")
    price = priced.options.price[priced.options.places.tolist().index(priced.column["PUT"])]
    assert put.instrument_return == pytest.approx(-crash.position_losses[1] / 10.0 / price, rel=1e-9)


def test_the_grid_of_a_models_options_is_the_models() -> None:
    held, priced = book_of_options()
    changes = priced.grid_volatilities

    spy = next(one for one in spot_volatility_grid(held, volatility_changes=changes) if one.underlying == "SPY")

    rows = [0, 1, 2]
    columns = [priced.column[OPTIONS[row].symbol] for row in rows]
    grid = -(held.held[rows, None] * priced.grid[columns]).sum(axis=0).reshape(-1, len(changes))
    np.testing.assert_allclose(spy.losses, grid, rtol=1e-9, atol=1e-9)


def test_options_at_other_spots_are_revalued_from_there() -> None:
    there, _ = book_of_options({"SPY": 380.0})  # where the crash would have taken it
    here, _ = book_of_options()

    down = [stress(book, [Scenario("down", {"SP500": -0.01})])[0].position_losses[1] for book in (there, here)]

    # 1 % is 38 on ten units at 380 and 47.5 at 475, times deltas of about 0.8 and 0.3
    assert -down[0] == pytest.approx(38.0 * 0.8, rel=0.1) and -down[1] == pytest.approx(47.5 * 0.3, rel=0.2)
    assert there.options is not None and here.options is not None
    assert there.options.prices[0] > here.options.prices[0]
    assert there.options.references.tolist() == here.options.references.tolist()


def test_options_that_the_model_could_not_value_are_none_to_revalue() -> None:
    assert options_of_model([OPTIONS[0]], {one.symbol: one for one in OPTIONS}, priced_model(), {}) is None
    assert options_of_model(OPTIONS[:1], {}, MODEL, {}) is None
