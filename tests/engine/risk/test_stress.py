"""Stress losses, the spot × volatility grid and run_all: hand numbers, the model's rows as an oracle, exact sums.

Options are revalued by formulas short enough to check by hand; those of pricing.py meet the book in test_stress_book.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.instrument import AssetClass
from engine.risk.build import build_model
from engine.risk.factors import GRID_SHOCKS, FactorKind, GridShocks
from engine.risk.history import PriceHistory
from engine.risk.replay import Window
from engine.risk.scenarios import SIX_SCENARIOS, Scenario
from engine.risk.stress import WorstCase, run_all, spot_volatility_grid, stress, worst_case
from engine.risk.stress_book import Floats, LeftOut, Options, Revalue, StressBook
from tests.engine.risk.builders import SESSION, book, history, instrument, levels, stock, walk

INDEX_FALL = Scenario("fall", {"SP500": -0.20})
NO_PRICES = PriceHistory((), (), np.empty((0, 0)))


def index_fund(symbol: str = "SPY", **fields: Any) -> Any:
    return stock(symbol, factors={"SP500": 1.0}, **fields)


def options(rows: list[int], revalue: Revalue, underlyings: list[Any], **fields: Any) -> Options:
    size = len(rows)
    return Options(
        rows=np.array(rows, dtype=np.intp),
        revalue=revalue,
        references=np.full(size, 100.0),
        prices=fields.get("prices", np.full(size, 4.0)),
        underlyings=tuple(underlyings),
        betas=fields.get("betas", np.full(size, np.nan)),
    )


def option(symbol: str, underlying: str = "SPY", **fields: Any) -> Any:
    return instrument(symbol, "option", underlying=underlying, **fields)


def test_a_loss_is_the_sum_of_what_its_positions_lose_greatest_first() -> None:
    held = StressBook.of([index_fund(), stock("HEDGE", factors={"SP500": -0.5})], [1000.0, 600.0])

    (fall,) = stress(held, [INDEX_FALL])

    assert fall.loss == pytest.approx(200.0 - 60.0)
    fund, hedge = fall.contributions()
    assert (fund.symbol, hedge.symbol) == ("SPY", "HEDGE") and fund.factors == hedge.factors == ("SP500",)
    assert [fund.loss, hedge.loss] == pytest.approx([200.0, -60.0])
    assert [fund.instrument_return, hedge.instrument_return] == [-0.20, pytest.approx(0.10)]


def test_a_short_position_loses_when_the_factor_rises() -> None:
    (rise,) = stress(StressBook.of([index_fund()], [-1000.0]), [Scenario("rise", {"SP500": 0.07})])

    assert rise.loss == pytest.approx(70.0)


def test_an_open_order_counts_at_the_end_that_loses_more_row_by_row() -> None:
    held = StressBook.of([index_fund()], held=[100.0], low=[-300.0], high=[200.0])

    fall, rise = stress(held, [INDEX_FALL, Scenario("rise", {"SP500": 0.10})])

    assert [fall.loss, rise.loss] == pytest.approx([40.0, 30.0])
    assert [one.loss for one in stress(held.without_orders(), [INDEX_FALL])] == [pytest.approx(20.0)]


def test_the_figures_are_those_of_the_risk_models_rows() -> None:
    """The oracle: build_model's scenario rows, which the gateway decides by, times the ends."""
    prices = history({"A": levels(walk(300, 2)), "B": levels(walk(300, 3))}, {"SP500": levels(walk(300, 1))})
    rows = [
        stock("A"),
        stock("B"),
        instrument("DI_PRE_365", "bond", "BRL", duration=0.9),
        instrument("CDS_BR", "credit", spread_duration=4.0, spread=0.02),
        instrument("IND", "future", "BRL", factors={"IBOVESPA": 1.1, "OIL": 0.1}),
        instrument("USDBRL", "fx", "BRL"),
        instrument("BRL", "fx", "BRL"),
        stock("EWZ", underlying="IBOVESPA"),
    ]
    model = build_model(book(*rows), "s", prices, SESSION, 0, lookback_days=300)
    columns = [model.column[one.symbol] for one in rows]
    low = np.array([-50.0, 10.0, 20.0, -70.0, 5.0, 8.0, -3.0, 1.0])
    high = low + np.array([90.0, 0.0, 40.0, 80.0, 0.0, 3.0, 6.0, 7.0])

    found = stress(StressBook.of(rows, high, low, high, betas=model.betas[columns]))

    returns = model.returns[model.n_days :][:, columns]
    expected = np.maximum(-low * returns, -high * returns)
    assert [one.name for one in found] == list(model.scenario_names)
    np.testing.assert_allclose([one.position_losses for one in found], expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose([one.returns for one in found], returns, rtol=1e-13, atol=1e-15)


MONEY = arrays(np.float64, 6, elements=st.floats(-1e6, 1e6, allow_subnormal=False))


@given(MONEY, MONEY)
def test_contributions_sum_exactly_to_the_loss(one: Floats, other: Floats) -> None:
    names = [index_fund(f"S{place}") for place in range(6)]
    strategies = ["a", "b", "a", "", "b", "c"]
    held = StressBook.of(names, one, np.minimum(one, other), np.maximum(one, other), strategies)

    (fall,) = stress(held, [INDEX_FALL])

    assert math.fsum(row.loss for row in fall.contributions()) == fall.loss
    assert math.fsum(fall.by_strategy().values()) == pytest.approx(fall.loss, abs=1e-6)
    assert fall.loss == pytest.approx(np.maximum(0.2 * one, 0.2 * other).sum(), abs=1e-6)


@given(MONEY, st.floats(0.0, 50.0))
def test_a_book_of_another_size_has_losses_of_that_size(money: Floats, size: float) -> None:
    names = [index_fund(f"S{place}") for place in range(6)]

    losses = [stress(StressBook.of(names, held), [INDEX_FALL])[0].loss for held in (money, size * money)]

    assert losses[1] == pytest.approx(size * losses[0], rel=1e-9, abs=1e-6)


def test_losses_by_strategy() -> None:
    held = StressBook.of(
        [index_fund("A"), index_fund("A"), index_fund("B")], [100.0, -40.0, 10.0], strategies=["x", "y", "x"]
    )

    (fall,) = stress(held, [INDEX_FALL])

    assert fall.by_strategy() == {"x": pytest.approx(22.0), "y": pytest.approx(-8.0)}


def test_more_than_half_of_the_positions_unaffected_is_a_warning() -> None:
    rows = [index_fund("A"), stock("B", factors={"OIL": 1.0}), stock("C", factors={"OIL": 1.0}), stock("D")]
    held = StressBook.of(rows, [1.0, 1.0, 1.0, 0.0], betas=[1.0] * 4)

    fall, oil = stress(held, [INDEX_FALL, Scenario("oil", {"OIL": -0.3})])

    assert (fall.positions, fall.unaffected, oil.unaffected) == (3, 2, 1)
    assert fall.warnings == ("fall: 2 of 3 positions are unaffected: it says little of this book",)
    assert oil.warnings == ()


def test_exactly_half_unaffected_is_no_warning() -> None:
    held = StressBook.of([index_fund("A"), stock("B", factors={"OIL": 1.0})], [1.0, 1.0])

    assert stress(held, [INDEX_FALL])[0].warnings == ()


def test_a_row_that_only_its_currency_moves_is_unaffected_and_still_loses() -> None:
    held = StressBook.of([stock("VALE3", currency="BRL"), index_fund()], [1150.0, 1.0])

    (real,) = stress(held, [Scenario("real", {"USDBRL": 0.15, "SP500": 0.0})])

    assert real.loss == pytest.approx(150.0)
    assert real.unaffected == 1 and real.contributions()[0].factors == ()


def test_foreign_cash_is_reached_by_its_pair() -> None:
    (real,) = stress(StressBook.of([instrument("BRL", "fx", "BRL")], [1150.0]), [Scenario("real", {"USDBRL": 0.15})])

    assert real.unaffected == 0 and real.contributions()[0].factors == ("USDBRL",)


def test_what_lacks_its_sensitivity_is_left_out_and_said_so() -> None:
    held = StressBook.of([stock("NOBETA"), index_fund()], [500.0, 100.0])

    (fall,) = stress(held, [INDEX_FALL])

    assert fall.loss == pytest.approx(20.0) and fall.evaluated
    assert fall.left_out == (LeftOut("", "NOBETA", "no beta to SP500 could be estimated"),)
    assert fall.warnings == ("fall: counts no NOBETA: no beta to SP500 could be estimated",)
    assert math.isnan(fall.returns[0]) and [one.symbol for one in fall.contributions()] == ["SPY"]


def test_an_option_is_revalued_with_spot_and_volatility_moving_together() -> None:
    """Ten calls' worth of P&L = 60·r + 200·r² + 30·dv a unit; 5 units short, reference 100."""

    def revalue(moves: Floats, volatilities: Floats) -> Floats:
        return 60 * moves + 200 * moves**2 + 30 * volatilities

    rows = [option("CALL"), index_fund()]
    held = StressBook.of(rows, [-500.0, 1000.0], options=options([0], revalue, [index_fund()]))

    (crash,) = stress(held, [Scenario("crash", {"SP500": -0.20, "VOL": 0.25})])

    # a unit: -12 + 8 + 7.5 = 3.5, so 5 short lose 17.5; the fund loses 200
    assert crash.loss == pytest.approx(217.5)
    call = crash.contributions()[1]
    assert call.loss == pytest.approx(17.5) and call.factors == ("SP500", "VOL")
    assert call.instrument_return == pytest.approx(3.5 / 4.0)


def test_volatility_of_one_underlying_wins_over_that_of_all() -> None:
    rows = [option("A", "SPY"), option("B", "QQQ")]
    underlyings = [index_fund("SPY"), index_fund("QQQ")]
    held = StressBook.of(rows, [100.0, 100.0], options=options([0, 1], lambda _, change: 10 * change, underlyings))

    (shock,) = stress(held, [Scenario("vol", {"VOL": -0.10, "VOL_QQQ": -0.30})])

    assert shock.position_losses == pytest.approx([1.0, 3.0])


def test_a_foreign_option_loses_with_its_currency_too() -> None:
    """P&L of 10 at today's rate, worth 4 before: 14 at 1/1.25 of the rate is 11.2, a gain of 7.2 a unit."""
    rows = [option("CALL", "IBOV", currency="BRL")]
    underlying = stock("IBOV", currency="BRL", factors={"IBOVESPA": 1.0})
    held = StressBook.of(rows, [100.0], options=options([0], lambda moves, _: 100 * moves, [underlying]))

    (both,) = stress(held, [Scenario("both", {"IBOVESPA": 0.10, "USDBRL": 0.25})])

    assert both.loss == pytest.approx(-7.2)


def test_an_option_that_nobody_can_revalue_is_left_out_and_never_linear() -> None:
    held = StressBook.of([option("CALL", factors={"SP500": 1.0}), index_fund()], [500.0, 100.0])

    (fall,) = stress(held, [INDEX_FALL])

    assert fall.loss == pytest.approx(20.0)
    assert fall.left_out[0].symbol == "CALL" and "no revaluation" in fall.left_out[0].reason


def test_a_revaluation_that_fails_is_left_out_and_said_so() -> None:
    held = StressBook.of(
        [option("CALL"), index_fund()],
        [500.0, 100.0],
        options=options([0], lambda moves, _: moves * np.nan, [index_fund()]),
    )

    (fall,) = stress(held, [INDEX_FALL])

    assert fall.loss == pytest.approx(20.0)
    assert fall.warnings == ("fall: counts no CALL: its revaluation gave no finite P&L",)
    assert spot_volatility_grid(held)[0].left_out[0].symbol == "CALL"


def test_an_option_worth_nothing_has_no_return_on_its_price() -> None:
    priceless = options([0], lambda moves, _: -100 * moves, [index_fund()], prices=np.zeros(1))
    held = StressBook.of([option("PUT")], [100.0], options=priceless)

    (one,) = stress(held, [INDEX_FALL])[0].contributions()

    assert one.instrument_return is None and one.loss == pytest.approx(-20.0)


def test_a_hundred_scenarios_of_ones_own_come_after_the_models_and_no_more() -> None:
    held = StressBook.of([index_fund()], [100.0])
    own = [Scenario(f"own {place}", {"SP500": -place / 1000}) for place in range(100)]

    found = stress(held, SIX_SCENARIOS, own)

    assert len(found) == 106 and found[-1].name == "own 99" and found[-1].loss == pytest.approx(9.9)
    with pytest.raises(ValueError, match="at most 100"):
        stress(held, SIX_SCENARIOS, [*own, INDEX_FALL])
    with pytest.raises(ValueError, match="once"):
        stress(held, SIX_SCENARIOS, [Scenario("COVID 2020", {"SP500": -0.1})])


def test_a_change_of_volatility_in_points_is_refused() -> None:
    held = StressBook.of([option("C")], [1.0], options=options([0], lambda moves, _: moves, [index_fund()]))

    with pytest.raises(ValueError, match="as a fraction"):
        stress(held, [Scenario("vol", {"VOL": 25.0})])


def test_the_grid_sums_each_underlyings_rows_and_reports_the_worst_point() -> None:
    """A share against two short calls that gain 0.8·r + 3·max(r, 0) a unit of reference, and 0.5 a point of vol."""

    def revalue(moves: Floats, volatilities: Floats) -> Floats:
        return 100 * (0.4 * moves + 2.0 * np.maximum(moves, 0.0) + 0.5 * volatilities)

    rows = [index_fund("X"), option("CALL", "X"), index_fund("Y")]
    held = StressBook.of(rows, [1000.0, -1000.0, 50.0], options=options([1], revalue, [index_fund("X")]))

    x, y = spot_volatility_grid(held, volatility_changes=(0.1, 0.0))

    assert x.underlying == "X" and x.volatility_changes == (0.0, 0.1)
    assert x.spot_shocks == pytest.approx([-0.20, -0.15, -0.10, -0.05, 0.0, 0.05, 0.10, 0.15, 0.20])
    # a fall of 20 %: 200 on the share less 80 on the calls; a rise of 20 % with 10 points: -200 + 480 + 50
    np.testing.assert_allclose(
        x.losses[::2], [[120.0, 170.0], [60.0, 110.0], [0.0, 50.0], [140.0, 190.0], [280.0, 330.0]], atol=1e-9
    )
    assert [x.worst.spot_shock, x.worst.volatility_change, x.worst.loss] == pytest.approx([0.20, 0.1, 330.0])
    assert [y.worst.spot_shock, y.worst.volatility_change, y.worst.loss] == pytest.approx([-0.20, 0.0, 10.0])


def test_a_loss_between_two_shocks_of_the_grid_is_looked_for_where_options_are() -> None:
    def trough(moves: Floats, _: Floats) -> Floats:
        return -1000.0 * np.maximum(0.04 - np.abs(moves + 0.15), 0.0)

    (grid,) = spot_volatility_grid(
        StressBook.of([option("FLY")], [100.0], options=options([0], trough, [index_fund()]))
    )

    assert [grid.worst.spot_shock, grid.worst.loss] == pytest.approx([-0.15, 40.0])


def test_the_grid_of_linear_rows_is_the_models() -> None:
    rows = [
        stock("A"),
        instrument("C", "bond", duration=4.0),
        instrument("X", "bond"),
        instrument("USDBRL", "fx", "BRL"),
        instrument("PERP", "future", underlying="BTC"),
        instrument("BTC", "crypto"),
    ]
    model = build_model(book(*rows), "s", NO_PRICES, SESSION, 0)
    held = StressBook.of(rows, [10.0, 20.0, 30.0, -40.0, 50.0, -70.0], underlyings=book(*rows))

    grids = {one.underlying: one for one in spot_volatility_grid(held)}

    columns = [model.column[one.symbol] for one in rows]
    expected = -held.held[:, None] * model.grid[columns]
    for place, name in enumerate(["A", "C", "X", "USDBRL"]):
        np.testing.assert_allclose(np.sort(grids[name].losses[[0, 1, 3, 4], 0]), np.sort(expected[place]))
    np.testing.assert_allclose(grids["BTC"].losses[[0, 1, 3, 4], 0], expected[4] + expected[5])
    assert grids["C"].kind is FactorKind.YIELD and grids["X"].kind is FactorKind.PRICE
    assert (grids["A"].losses[2] == 0.0).all()


@pytest.mark.parametrize("changes", [(), (0.1, 0.1), (math.nan,)])
def test_a_grid_without_sense_is_refused(changes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="volatility_changes"):
        spot_volatility_grid(StressBook.of([stock("A")], [1.0]), volatility_changes=changes)


def test_a_grid_that_misses_a_class_is_refused() -> None:
    grid = {AssetClass.EQUITY: GridShocks(FactorKind.PRICE, (-0.1, 0.1))}

    with pytest.raises(ValueError, match="none for future"):
        spot_volatility_grid(StressBook.of([stock("A")], [1.0]), grid)
    assert len(GRID_SHOCKS[AssetClass.EQUITY].shocks) == 4


def test_everything_at_once_and_the_worst_of_it() -> None:
    prices = history({"SPY": levels(walk(300, 1))})
    held = StressBook.of([index_fund()], [1000.0])

    report = run_all(held, prices)

    assert [one.name for one in report.scenarios] == [scenario.name for scenario in SIX_SCENARIOS]
    assert [one.window.name for one in report.replays] == ["2008", "2011", "2013", "2020", "2022"]
    assert report.worst == WorstCase("scenario", "COVID 2020", 300.0)
    assert "2008: no prices between 2007-10-09 and 2009-03-09" in report.warnings


def test_the_worst_case_may_be_a_replay_at_its_worst_point() -> None:
    prices = history({"SPY": np.array([100.0, 60.0, 40.0, 70.0])})
    own = Window("own", prices.dates[0], prices.dates[-1])

    report = run_all(StressBook.of([index_fund()], [1000.0]), prices, windows=[own])

    assert report.worst == WorstCase("replay", "own", 600.0)


def test_the_worst_case_may_be_a_grid_or_nothing() -> None:
    held = StressBook.of([index_fund()], [-1000.0])

    grids = spot_volatility_grid(held)

    assert worst_case(stress(held), grids) == WorstCase("grid", "SPY", 200.0)
    assert worst_case(stress(StressBook.of([stock("NOBETA")], [1.0]), [INDEX_FALL])) is None


def test_an_empty_book_loses_nothing() -> None:
    report = run_all(StressBook.of([], []), NO_PRICES)

    assert {one.loss for one in report.scenarios} == {0.0} and report.grid == ()
