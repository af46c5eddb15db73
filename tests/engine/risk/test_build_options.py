"""Options as columns of the risk model: every row against a revaluation by hand, the grid, the flags, the encoding.

The slow reference prices each cell by itself with QuantLib's Black calculator.
"""

import math
from datetime import date
from typing import Any

import numpy as np
import pytest
import QuantLib as ql

from engine.instrument import AssetClass, Instrument
from engine.risk.build import VOLATILITY_SHOCKS, build_model, refined
from engine.risk.factors import GRID_SHOCKS
from engine.risk.model import RiskModel, decode, encode
from engine.risk.options import book_of
from engine.risk.scenarios import Scenario
from tests.engine.risk.builders import SESSION, book, history, instrument, levels, option, stock, walk

DAYS = 260
MOVES = walk(DAYS, seed=1)
CRASH = Scenario("Crash", {"A": -0.3, "VOL": 0.2, "F": -0.1})
CALM = Scenario("Calm", {"B": 0.1})
SPOTS = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
YEARS = 182.875 / 365  # from midnight of SESSION to 21:00 UTC of 2024-07-02


def built(*instruments: Instrument, indices: dict[str, Any] | None = None, **settings: Any) -> RiskModel:
    series = {"SP500": levels(walk(DAYS, seed=9))} | (indices or {})
    prices = history({"A": levels(MOVES), "B": levels(walk(DAYS, seed=2))}, series)
    given: dict[str, Any] = {"scenarios": (CRASH, CALM), "marks": {"A": 100.0}} | settings
    return build_model(book(stock("A"), stock("B"), *instruments), "s", prices, SESSION, 0, DAYS, **given)


def black(spot: float, strike: float, volatility: float, sign: float, carry: float = 0.03) -> float:
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if sign > 0 else ql.Option.Put, strike)
    forward, discount = spot * math.exp(carry * YEARS), math.exp(-0.03 * YEARS)
    return float(ql.BlackCalculator(payoff, forward, volatility * math.sqrt(YEARS), discount).value())


def column(model: RiskModel, symbol: str) -> Any:
    """P&L per unit in base currency, row by row."""
    place = model.column[symbol]
    return model.returns[:, place] * model.reference[place]


def test_each_row_is_the_option_revalued_in_full() -> None:
    model = built(option("C", 105.0, volatility=0.2), option("P", 95.0, "put", volatility=0.3))

    for symbol, strike, volatility, sign in (("C", 105.0, 0.2, 1.0), ("P", 95.0, 0.3, -1.0)):
        now = black(100.0, strike, volatility, sign)
        days = [black(100.0 * (1 + move), strike, volatility, sign) - now for move in MOVES]
        crash = black(70.0, strike, volatility + 0.2, sign) - now
        np.testing.assert_allclose(column(model, symbol), [*days, crash, 0.0], atol=1e-9)
    assert model.reference[model.column["C"]] == model.spot[model.column["C"]] == 100.0
    assert model.has_history.all() and model.has_factor.all() and not model.unaffected.any()
    assert "A: volatility of its options unchanged on historical days: no series VOL_A or VOL" in str(model.warnings)


def test_the_volatility_follows_its_series_day_by_day() -> None:
    index = 20.0 + 5.0 * np.sin(np.arange(DAYS + 1))
    model = built(option("C", 105.0, volatility=0.2), indices={"VOL_A": index})

    changes = np.diff(index) / 100
    now = black(100.0, 105.0, 0.2, 1.0)
    days = [
        black(100.0 * (1 + move), 105.0, 0.2 + change, 1.0) - now for move, change in zip(MOVES, changes, strict=True)
    ]
    np.testing.assert_allclose(column(model, "C")[:DAYS], days, atol=1e-9)
    assert "unchanged" not in str(model.warnings)


def test_a_series_of_volatility_with_a_hole_leaves_no_history() -> None:
    index = np.full(DAYS + 1, 20.0)
    index[7] = np.nan
    model = built(option("C", 105.0, volatility=0.2), indices={"VOL": index})

    assert not model.has_history[model.column["C"]] and np.isnan(model.returns[:DAYS, model.column["C"]]).all()
    assert model.has_history[model.column["A"]] and model.has_factor[model.column["C"]]
    assert "A: its options have no history: VOL: days without a level" in model.warnings


def test_in_the_grid_every_spot_meets_every_volatility() -> None:
    model = built(option("P", 95.0, "put", volatility=0.3))

    assert model.grid_volatilities == VOLATILITY_SHOCKS == (-0.10, 0.0, 0.25)
    now = black(100.0, 95.0, 0.3, -1.0)
    by_hand = [
        black(100.0 * (1 + spot), 95.0, 0.3 + volatility, -1.0) - now
        for spot in SPOTS
        for volatility in (-0.1, 0, 0.25)
    ]
    np.testing.assert_allclose(100.0 * model.grid[model.column["P"]], by_hand, atol=1e-9)
    np.testing.assert_allclose(model.grid[model.column["A"]], np.repeat(SPOTS, 3))


def test_the_grid_is_refined_alike_for_every_class() -> None:
    assert refined(GRID_SHOCKS)[AssetClass.EQUITY].shocks == pytest.approx(SPOTS)
    assert {len(row.shocks) for row in refined(GRID_SHOCKS).values()} == {9}


def test_without_options_a_model_is_as_before() -> None:
    model = built()

    assert model.grid.shape == (2, 4) and model.grid_volatilities == (0.0,) and len(model.options) == 0
    assert np.isnan(model.reference).all() and model.delta.tolist() == [1.0, 1.0] and not model.gamma.any()


def test_linear_columns_do_not_change_beside_an_option() -> None:
    alone, beside = built(), built(option("C", 105.0, volatility=0.2), option("X", 1.0))

    for symbol in ("A", "B"):
        np.testing.assert_array_equal(alone.returns[:, alone.column[symbol]], beside.returns[:, beside.column[symbol]])
        assert alone.betas[alone.column[symbol]] == beside.betas[beside.column[symbol]]


def test_greeks_stand_in_the_columns_of_options() -> None:
    model = built(option("C", 100.0, volatility=0.2))
    place = model.column["C"]

    payoff = ql.PlainVanillaPayoff(ql.Option.Call, 100.0)
    exact = ql.BlackCalculator(payoff, 100 * math.exp(0.03 * YEARS), 0.2 * YEARS**0.5, math.exp(-0.03 * YEARS))
    assert model.delta[place] == pytest.approx(exact.delta(100.0)) and model.delta[model.column["A"]] == 1.0
    assert model.gamma[place] == pytest.approx(exact.gamma(100.0))
    assert model.vega[place] == pytest.approx(exact.vega(YEARS) / 100)
    assert model.rho[place] == pytest.approx(exact.rho(YEARS) / 100)
    assert model.theta[place] == pytest.approx(exact.theta(100.0, YEARS) / 365, rel=1e-6)
    assert model.volatility[place] == 0.2 and np.isnan(model.volatility[model.column["A"]])


def test_an_option_that_cannot_be_valued_is_unevaluable_and_says_why() -> None:
    model = built(option("C", 100.0), option("D", 110.0), option("E", 110.0, volatility=0.2))
    place = model.column["C"]

    assert not model.has_history[place] and not model.has_factor[place]
    assert np.isnan(model.returns[:, place]).all() and np.isnan(model.delta[place])
    assert model.has_factor[model.column["E"]]
    assert "C and 1 more: can't be valued: no price of it" in str(model.warnings)


def test_closes_value_what_no_marks_do() -> None:
    """The last close of A is the spot then; the option's own closes would be needed for an implied volatility."""
    model = built(option("C", 100.0, volatility=0.2), marks={})

    assert model.spot[model.column["C"]] == levels(MOVES)[-1]


def test_an_underlying_without_history_takes_its_options_along() -> None:
    new = option("C", 100.0, underlying="NEW", volatility=0.2)
    model = built(stock("NEW", factors={"A": 1.0}), new, marks={"NEW": 100.0})

    assert not model.has_history[model.column["C"]] and model.has_factor[model.column["C"]]
    assert column(model, "C")[-2] == pytest.approx(black(70.0, 100.0, 0.4, 1.0) - black(100.0, 100.0, 0.2, 1.0))
    assert "NEW: its options have no history: no closes in the price history" in model.warnings


@pytest.mark.parametrize(("unmapped", "evaluable"), [("unevaluable", False), ("zero", True)])
def test_an_underlying_that_no_factor_reaches_takes_its_options_along(unmapped: Any, evaluable: bool) -> None:
    coin = instrument("COIN", "crypto")
    held = option("C", 100.0, underlying="COIN", volatility=0.2)
    model = built(coin, held, marks={"COIN": 100.0}, scenarios=(CALM,), unmapped=unmapped)
    place = model.column["C"]

    assert model.unaffected[place] and model.has_factor[place] == evaluable
    if evaluable:
        assert model.returns[-1, place] == 0.0
    hit = built(coin, held, marks={"COIN": 100.0})
    assert not hit.unaffected[hit.column["C"]] and hit.has_factor[hit.column["C"]]  # VOL does reach it


def test_an_index_that_nobody_trades_can_be_written_on() -> None:
    crash = Scenario("Crash", {"SP500": -0.25})
    model = built(option("SPX", 100.0, "put", underlying="SP500", volatility=0.2), scenarios=(crash,), marks={})
    spot = levels(walk(DAYS, seed=9))[-1]

    assert model.spot[model.column["SPX"]] == spot
    assert column(model, "SPX")[-1] == pytest.approx(black(0.75 * spot, 100.0, 0.2, -1) - black(spot, 100.0, 0.2, -1))


def test_an_option_on_a_future_discounts_and_has_no_carry() -> None:
    on_future = option("C", 100.0, underlying="F", model="black_76", volatility=0.2)
    model = built(instrument("F", "future"), on_future, marks={"F": 100.0})

    now = black(100.0, 100.0, 0.2, 1.0, carry=0.0)
    assert column(model, "C")[-2] == pytest.approx(black(90.0, 100.0, 0.4, 1.0, carry=0.0) - now)


def test_a_foreign_option_is_worth_foreign_money() -> None:
    """Spot 100 BRL at 5 BRL a dollar: the crash takes 30 % of the spot and makes the real 1/1.25 of its worth."""
    crash = Scenario("Crash", {"PETR4": -0.3, "USDBRL": 0.25})
    rate = levels(walk(DAYS, seed=4), start=5.0)
    prices = history({"PETR4": levels(MOVES)}, {"USDBRL": rate})
    call = option("C", 100.0, underlying="PETR4", currency="BRL", volatility=0.2)
    instruments = book(instrument("PETR4", currency="BRL"), call)
    marks = {"PETR4": 100.0, "USDBRL": 5.0}
    model = build_model(instruments, "s", prices, SESSION, 0, DAYS, scenarios=(crash,), marks=marks)

    now = black(100.0, 100.0, 0.2, 1.0)
    assert model.reference[model.column["C"]] == 20.0
    assert column(model, "C")[-1] == pytest.approx((black(70.0, 100.0, 0.2, 1.0) / 1.25 - now) / 5.0)
    fx = 1.0 / (rate[1] / rate[0]) - 1.0
    first = black(100.0 * (1 + MOVES[0]), 100.0, 0.2, 1.0) * (1 + fx) - now
    assert column(model, "C")[0] == pytest.approx(first / 5.0)
    by_close = build_model(instruments, "s", prices, SESSION, 0, DAYS, scenarios=(crash,), marks={"PETR4": 100.0})
    assert by_close.reference[by_close.column["C"]] == pytest.approx(100.0 / rate[-1])


def test_an_option_on_the_pair_that_quotes_the_base_feels_its_move_twice() -> None:
    """Dollars dearer by 5 % in reals: the call gains in reals, each of them worth 1/1.05."""
    prices = history({"A": levels(MOVES)}, {"USDBRL": levels(MOVES, start=5.0)})
    call = option("C", 5.0, underlying="USDBRL", currency="BRL", volatility=0.2)
    instruments = book(stock("A"), instrument("USDBRL", "fx", "BRL"), call)
    model = build_model(
        instruments, "s", prices, SESSION, 0, DAYS, scenarios=(CRASH,), marks={"USDBRL": 5.0}, volatility_shocks=(0.0,)
    )

    now, then = black(5.0, 5.0, 0.2, 1.0), black(5.25, 5.0, 0.2, 1.0)
    moved = refined(GRID_SHOCKS)[AssetClass.FX].shocks.index(0.05)
    assert model.grid[model.column["C"], moved] == pytest.approx((then / 1.05 - now) / 5.0)
    assert model.has_history[model.column["C"]]


def test_a_currency_without_a_rate_leaves_its_options_unvalued() -> None:
    swiss = option("C", 100.0, underlying="NESN", currency="CHF", volatility=0.2)
    model = built(stock("NESN", currency="CHF"), swiss, marks={"NESN": 100.0})

    assert np.isnan(model.reference[model.column["C"]])
    assert "C: can't be valued: no exchange rate USDCHF or CHFUSD" in model.warnings


def test_each_option_follows_its_own_underlying() -> None:
    """NEW has no history, and stands before the others in the book."""
    calls = {name: option(f"{name}_C", 100.0, underlying=name, volatility=0.2) for name in ("NEW", "B", "A")}
    model = built(stock("NEW"), *calls.values(), marks={"A": 100.0, "B": 100.0, "NEW": 100.0})

    now = black(100.0, 100.0, 0.2, 1.0)
    for name, moves in (("A", MOVES), ("B", walk(DAYS, seed=2))):
        days = [black(100.0 * (1 + move), 100.0, 0.2, 1.0) - now for move in moves]
        np.testing.assert_allclose(column(model, f"{name}_C")[:DAYS], days, atol=1e-9)
    assert not model.has_history[model.column["NEW_C"]]


def test_what_names_an_option_as_its_underlying_moves_by_itself() -> None:
    model = built(stock("Z", underlying="C"), option("C", 100.0, volatility=0.2))

    np.testing.assert_allclose(model.grid[model.column["Z"]], np.repeat(SPOTS, 3))


def test_the_same_options_make_the_same_bytes_and_come_back() -> None:
    options = (
        option("C", 105.0, volatility=0.2),
        option("P", 95.0, "put", style="american", volatility=0.3),
        option("X", 1.0),
    )
    model = built(*options)
    back = decode(encode(model), expected_hash=model.hash)

    assert encode(built(*options)) == encode(model)
    for name in ("reference", "spot", "volatility", "delta", "gamma", "vega", "theta", "rho", "grid", "returns"):
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    assert back.options.places.tolist() == [2, 3, 4] and back.grid_volatilities == model.grid_volatilities
    assert back.options.valued.tolist() == [True, True, False]
    for one in (model, back):
        with pytest.raises(ValueError, match="read-only"):
            one.options.delta[0] = 1.0


def test_a_model_gives_its_options_back_to_be_revalued() -> None:
    options = (option("C", 105.0, volatility=0.2), option("P", 95.0, "put", style="american", volatility=0.3))
    model = built(*options, option("X", 1.0))
    found = book_of(model, book(*options))

    assert found.symbols == ("C", "P")
    pnl = found.pnl(np.array([[-0.3]]), np.array([[0.2]]), of=np.zeros(2, dtype=np.intp))[:, 0]
    np.testing.assert_allclose(pnl, [column(model, "C")[-2], column(model, "P")[-2]], rtol=1e-12)
    with pytest.raises(ValueError, match="expected the option P"):
        book_of(model, book(options[0]))


def test_a_session_prices_its_options_as_of_itself() -> None:
    early, late = built(option("C", 105.0, volatility=0.2)), built(option("C", 105.0, expiry=date(2023, 12, 29)))

    assert early.options.years == pytest.approx([YEARS])
    assert "it expired on 2023-12-29" in str(late.warnings)


@pytest.mark.parametrize("shocks", [(), (math.nan,)])
def test_volatility_shocks_that_are_none_are_refused(shocks: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="volatility_shocks: expected"):
        built(option("C", 105.0, volatility=0.2), volatility_shocks=shocks)


def test_a_volatility_shock_in_points_is_refused() -> None:
    with pytest.raises(ValueError, match="VOL: expected a change of volatility as a fraction"):
        built(option("C", 105.0, volatility=0.2), scenarios=(Scenario("Crash", {"VOL": 25.0}),))
