"""Holdings of an account: rows by strategy and symbol, both ends of open orders, and what is missing as data."""

import pickle

import numpy as np
import pytest

from engine.risk.holdings import ALL_STRATEGIES, Holdings, Missing, holdings_of
from tests.engine.builders import account, future, model, reserve, stock, universe, valued

UNIVERSE = universe(
    stock("AAA", sector="Energy"), stock("BBB", currency="EUR", issuer="Bee"), future("ESZ", underlying="SPX")
)
MODEL = model({"AAA": [0.01, -0.02], "BBB": [0.03, 0.04], "ESZ": [-0.01, 0.02]}, {"crash": {"AAA": -0.1, "ESZ": -0.3}})


def held() -> Holdings:
    state = account(
        UNIVERSE,
        {"AAA": 10.0, "BBB": 20.0, "ESZ": 4000.0},
        strategies={("mm", "AAA"): 100, ("trend", "AAA"): -30, ("trend", "BBB"): 5, ("", "ESZ"): 2},
        fx={"EUR": 1.5},
    )
    reserve(state, "o1", "AAA", 7, strategy="mm")
    reserve(state, "o2", "AAA", -4, strategy="trend")
    return holdings_of(state, UNIVERSE, MODEL)


def test_a_row_is_a_strategy_and_a_symbol_with_its_money_and_labels() -> None:
    found = held()

    assert list(zip(found.strategies, found.symbols, strict=True)) == [
        ("", "ESZ"),
        ("mm", "AAA"),
        ("trend", "AAA"),
        ("trend", "BBB"),
    ]
    assert found.lots.tolist() == [2, 100, -30, 5]
    assert found.values.tolist() == [2 * 50 * 4000.0, 1000.0, -300.0, 5 * 20 * 1.5]
    assert found.held.tolist() == found.values.tolist()
    assert found.sectors == ("unassigned", "Energy", "Energy", "unassigned")
    assert found.issuers == ("ESZ", "AAA", "AAA", "Bee")
    assert found.underlyings == ("SPX", "AAA", "AAA", "BBB")
    assert found.asset_classes == ("future", "equity", "equity", "equity")
    assert found.labels == ("ESZ", "mm/AAA", "trend/AAA", "trend/BBB")


def test_open_orders_widen_the_two_ends_and_leave_the_position() -> None:
    found = held()

    assert found.low.tolist() == [400_000.0, 1000.0, -340.0, 150.0]
    assert found.high.tolist() == [400_000.0, 1070.0, -300.0, 150.0]


def test_by_symbol_adds_the_strategies_up() -> None:
    whole = held().by_symbol()

    assert whole.symbols == ("ESZ", "AAA", "BBB")
    assert whole.strategies == (ALL_STRATEGIES,) * 3
    assert whole.values.tolist() == [400_000.0, 700.0, 150.0]
    assert whole.low.tolist() == [400_000.0, 660.0, 150.0]
    assert whole.high.tolist() == [400_000.0, 770.0, 150.0]


def test_returns_are_the_models_columns_in_row_order() -> None:
    found = held()

    assert found.day_returns(MODEL).tolist() == [[-0.01, 0.01, 0.01, 0.03], [0.02, -0.02, -0.02, 0.04]]
    assert found.stress_returns(MODEL)[0, :3].tolist() == [-0.3, -0.1, -0.1]
    assert np.isnan(found.stress_returns(MODEL)[0, 3])


def test_a_strategy_alone() -> None:
    trend = held().of_strategy("trend")

    assert trend.symbols == ("AAA", "BBB")
    assert trend.high.tolist() == [-300.0, 150.0]


def test_what_is_missing_is_named_and_never_a_zero() -> None:
    partial = model({"AAA": [0.01, -0.02], "BBB": []})
    state = account(UNIVERSE, {"AAA": 10.0, "BBB": 20.0}, positions={"AAA": 1, "BBB": 1, "ESZ": 1})

    found = holdings_of(state, universe(stock("AAA"), future("ESZ")), partial)

    missing = {(gap.symbol, gap.missing) for gap in found.gaps}
    assert missing >= {
        ("BBB", Missing.RATE),
        ("BBB", Missing.INSTRUMENT),
        ("BBB", Missing.HISTORY),
        ("ESZ", Missing.MARK),
        ("ESZ", Missing.COLUMN),
    }
    assert not any(gap.symbol == "AAA" and gap.missing is not Missing.FACTOR for gap in found.gaps)
    assert np.isnan(found.values).tolist() == [False, True, True]
    assert found.over_days.tolist() == [True, False, False]


def test_a_symbol_without_a_column_has_none_of_the_models_flags() -> None:
    partial = model({"AAA": [0.01, -0.02]}, {"crash": {"AAA": -0.1}})
    state = account(UNIVERSE, {"AAA": 10.0, "ESZ": 4000.0}, positions={"AAA": 1, "ESZ": 1})

    found = holdings_of(state, UNIVERSE, partial)

    assert found.over_days.tolist() == found.under_stress.tolist() == [True, False]
    assert np.isnan(found.day_returns(partial)).tolist() == [[False, True]] * 2


def test_cash_in_another_currency_is_a_gap() -> None:
    state = account(UNIVERSE, {"AAA": 10.0}, cash={"USD": 1.0, "EUR": 250.0}, positions={"AAA": 1}, fx={"EUR": 1.5})

    (gap,) = [gap for gap in holdings_of(state, UNIVERSE, MODEL).gaps if gap.missing is Missing.CASH]

    assert gap.symbol == "EUR"
    assert "250.00" in gap.note


def test_without_a_model_there_are_values_and_no_returns() -> None:
    found = holdings_of(account(UNIVERSE, {"AAA": 10.0}, positions={"AAA": 3}), UNIVERSE, None)

    assert found.values.tolist() == [30.0]
    assert not found.over_days.any()
    assert not found.under_stress.any()


def test_an_account_without_positions_has_no_rows() -> None:
    found = holdings_of(account(UNIVERSE, {"AAA": 10.0}), UNIVERSE, MODEL)

    assert len(found) == 0
    assert found.day_returns(MODEL).shape == (2, 0)
    assert len(found.by_symbol()) == 0


def test_a_new_mark_moves_the_money() -> None:
    state = account(UNIVERSE, {"AAA": 10.0}, positions={"AAA": 3})
    state.apply(valued({"AAA": 12.0}))

    assert holdings_of(state, UNIVERSE, MODEL).values.tolist() == [36.0]


def test_holdings_go_to_another_process_and_back() -> None:
    found = pickle.loads(pickle.dumps(held()))  # noqa: S301 - own bytes

    assert found.values == pytest.approx(held().values)
    assert found.symbols == held().symbols
