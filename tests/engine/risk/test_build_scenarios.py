"""The scenario rows and the grid of a risk model, with every column computed by hand.

Histories are short on purpose (no betas) unless a test is about betas.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engine.instrument import AssetClass, Instrument
from engine.risk.build import build_model
from engine.risk.factors import GRID_SHOCKS, ClassDefault, FactorKind, FactorMap, GridShocks, match_factor
from engine.risk.history import PriceHistory
from engine.risk.model import RiskModel
from engine.risk.scenarios import SIX_SCENARIOS, Scenario
from tests.engine.risk.builders import SESSION, book, history, instrument, levels, stock, walk

TAPER, BR_2015, COVID, RATES_2022, FISCAL, RISK_OFF = range(6)


def model_of(*instruments: Instrument, **settings: Any) -> RiskModel:
    nothing = PriceHistory((), (), np.empty((0, 0)))
    return build_model(book(*instruments), "s", nothing, SESSION, 0, **settings)


def stress(model: RiskModel, symbol: str) -> list[float]:
    column: list[float] = model.returns[model.n_days :, model.column[symbol]].tolist()
    return column


def test_the_shipped_scenarios_in_their_order() -> None:
    assert [scenario.name for scenario in SIX_SCENARIOS] == [
        "Taper Tantrum 2013",
        "BR Crisis 2015",
        "COVID 2020",
        "Rate Shock 2022",
        "BR Fiscal Crisis",
        "Global Risk-Off",
    ]
    assert model_of().scenario_names == tuple(scenario.name for scenario in SIX_SCENARIOS)


@pytest.mark.parametrize(
    ("factor", "shocks"),
    [
        ("USDBRL", [0.15, 0.30, 0.20, 0.25, 0.25, 0.20]),
        ("DI_PRE", [0.02, 0.04, 0.02, 0.05, 0.035, 0.015]),
        ("NTN_B_REAL", [-0.08, -0.15, None, -0.12, -0.10, None]),
        ("IBOVESPA", [-0.15, -0.25, -0.35, None, -0.18, -0.30]),
        ("UST_NOM", [0.01, None, None, None, None, -0.005]),
        ("SP500", [None, None, -0.30, None, None, -0.25]),
        ("OIL", [None, None, -0.50, None, None, -0.40]),
        ("CDS_BR", [None, None, None, None, 0.40, 0.30]),
    ],
)
def test_the_shipped_shocks_by_factor(factor: str, shocks: list[float | None]) -> None:
    assert [scenario.shocks.get(factor) for scenario in SIX_SCENARIOS] == shocks


def test_a_factor_by_its_exact_name_moves_as_shocked() -> None:
    model = model_of(instrument("IBOVESPA", "future"), instrument("NTN_B_REAL", "bond"))

    assert stress(model, "IBOVESPA") == [-0.15, -0.25, -0.35, 0.0, -0.18, -0.30]
    assert stress(model, "NTN_B_REAL") == [-0.08, -0.15, 0.0, -0.12, -0.10, 0.0]


def test_di_pre_365_takes_the_yield_shock_of_di_pre_times_its_duration() -> None:
    model = model_of(instrument("DI_PRE_365", "bond", duration=0.9))

    assert stress(model, "DI_PRE_365") == pytest.approx([-0.018, -0.036, -0.018, -0.045, -0.0315, -0.0135])


def test_a_treasury_gains_when_its_yield_falls() -> None:
    model = model_of(instrument("UST_NOM_10Y", "bond", duration=8.0))

    assert stress(model, "UST_NOM_10Y") == pytest.approx([-0.08, 0, 0, 0, 0, 0.04])


def test_a_credit_spread_widens_by_a_share_of_itself() -> None:
    model = model_of(instrument("CDS_BR_5Y", "credit", spread_duration=4.5, spread=0.02))

    # 40 % wider than 200 bp is 80 bp; 4.5 years of them are 3.6 %
    assert stress(model, "CDS_BR_5Y") == pytest.approx([0, 0, 0, 0, -0.036, -0.027])


def test_a_us_stock_follows_the_index_by_its_beta() -> None:
    index = walk(300, seed=1)
    prices = history({"A": levels(1.5 * index)}, {"SP500": levels(index)})

    model = build_model(book(stock("A")), "s", prices, SESSION, 0, lookback_days=300)

    assert stress(model, "A") == pytest.approx([0, 0, -0.45, 0, 0, -0.375])
    assert model.has_factor.all() and not model.unaffected.any()


@pytest.mark.parametrize("missing", ["index", "history", "movement"])
def test_without_an_estimable_beta_there_is_no_factor_and_not_a_beta_of_one(missing: str) -> None:
    index = np.full(301, 4000.0) if missing == "movement" else levels(walk(300, seed=1))
    own = np.full(301, np.nan) if missing == "history" else levels(walk(300, seed=2))
    indices = {} if missing == "index" else {"SP500": index}
    prices = history({"A": own, "B": levels(walk(300, seed=3))}, indices)

    model = build_model(book(stock("A")), "s", prices, SESSION, 0, lookback_days=300, unmapped="zero")

    assert not model.has_factor[0] and not model.unaffected[0]
    assert all(math.isnan(value) for value in stress(model, "A"))
    assert "A: no factor: no beta to SP500 could be estimated" in model.warnings


def test_declared_sensitivities_win_over_the_name_and_add_up() -> None:
    model = model_of(instrument("IBOVESPA_FUND", factors={"SP500": 0.5, "OIL": 0.2, "IBOVESPA": 0.0}))

    assert stress(model, "IBOVESPA_FUND") == pytest.approx([0, 0, -0.25, 0, 0, -0.205])


def test_a_declared_yield_factor_scales_the_duration() -> None:
    model = model_of(instrument("CORP", "bond", duration=5.0, factors={"UST_NOM_5Y": 1.2}))

    assert stress(model, "CORP") == pytest.approx([-0.06, 0, 0, 0, 0, 0.03])


def test_the_underlyings_name_is_looked_up_after_ones_own() -> None:
    model = model_of(instrument("WDOF24", "future", underlying="IBOVESPA"))

    assert stress(model, "WDOF24") == [-0.15, -0.25, -0.35, 0.0, -0.18, -0.30]


def test_each_scenario_is_looked_up_for_itself() -> None:
    """A scenario that names a tenor does not cut that tenor off from those that only know the curve."""
    tenor = Scenario("Front end", {"DI_PRE_365": 0.10, "DI_PRE": 0.01})
    model = model_of(instrument("DI_PRE_365", "bond", duration=1.0), scenarios=(*SIX_SCENARIOS, tenor))

    assert stress(model, "DI_PRE_365")[-1] == pytest.approx(-0.10)
    assert stress(model, "DI_PRE_365")[TAPER] == pytest.approx(-0.02)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("A_B", "A_B"),
        ("A_B_C", "A_B_C"),
        ("A_B_C_D", "A_B_C"),
        ("A_B_X", "A_B"),
        ("A_BX", None),
        ("A", None),
        ("", None),
    ],
)
def test_the_longest_prefix_up_to_an_underscore_matches(name: str, factor: str | None) -> None:
    assert match_factor(name, {"A_B", "A_B_C"}) == factor


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"symbol": "DI_PRE_365", "asset_class": "bond"}, "DI_PRE reaches it, but no duration is given"),
        (
            {"symbol": "CDS_BR", "asset_class": "credit", "spread_duration": 4.0},
            "CDS_BR reaches it, but no spread_duration and spread are given",
        ),
    ],
)
def test_a_missing_sensitivity_is_a_fault_even_where_the_unmapped_count_as_zero(
    fields: Mapping[str, Any], reason: str
) -> None:
    model = model_of(instrument(**fields), unmapped="zero")

    assert not model.has_factor[0]
    assert any(reason in warning for warning in model.warnings)


def test_what_no_factor_reaches_is_unaffected_and_unevaluable() -> None:
    model = model_of(instrument("BTC", "crypto"), instrument("VALE3", currency="BRL"))

    assert model.unaffected.tolist() == [True, True] and model.has_factor.tolist() == [False, False]
    assert np.isnan(model.returns).all()
    assert "BTC: no factor of any scenario reaches it (unevaluable)" in model.warnings


def test_unmapped_zero_leaves_only_the_currency_to_move() -> None:
    model = model_of(instrument("BTC", "crypto"), instrument("VALE3", currency="BRL"), unmapped="zero")

    assert model.unaffected.tolist() == [True, True] and model.has_factor.tolist() == [True, True]
    assert stress(model, "BTC") == [0.0] * 6
    assert stress(model, "VALE3")[TAPER] == pytest.approx(1 / 1.15 - 1)


def test_a_declared_factor_that_no_scenario_knows_is_reported() -> None:
    model = model_of(instrument("X", factors={"SP50O": 1.0}))

    assert not model.has_factor[0] and model.unaffected[0]
    assert "X: declares factor SP50O, which no scenario shocks" in model.warnings


def test_price_and_currency_are_shocked_together() -> None:
    model = model_of(
        instrument("BOVA11", currency="BRL", factors={"IBOVESPA": 1.0}),
        instrument("IND_FUT", "future", "BRL", factors={"IBOVESPA": 1.0}),
        instrument("USDBRL", "fx", "BRL"),
        instrument("BRL", "fx", "BRL"),
    )

    assert stress(model, "BOVA11")[COVID] == pytest.approx(0.65 / 1.20 - 1)  # -45.8 %, not -35 % - 16.7 %
    assert stress(model, "IND_FUT")[COVID] == pytest.approx(-0.35 / 1.20)
    assert stress(model, "USDBRL")[COVID] == pytest.approx(0.20 / 1.20)  # gains 0.20·S reais, worth 1/1.20 each
    assert stress(model, "BRL")[COVID] == pytest.approx(1 / 1.20 - 1)
    assert model.has_factor.all()


def test_seen_from_brazil_the_dollar_rises() -> None:
    model = model_of(instrument("SPY", factors={"SP500": 1.0}), instrument("USDBRL", "fx", "BRL"), base_currency="BRL")

    assert stress(model, "SPY")[COVID] == pytest.approx(0.70 * 1.20 - 1)
    assert stress(model, "USDBRL") == [0.15, 0.30, 0.20, 0.25, 0.25, 0.20]


def test_a_currency_that_no_scenario_moves_is_reported() -> None:
    model = model_of(instrument("SAP", currency="EUR", factors={"SP500": 1.1}), instrument("EUR", "fx", "EUR"))

    assert stress(model, "SAP")[COVID] == pytest.approx(-0.33)
    assert "EUR: no scenario moves its exchange rate to USD" in model.warnings
    assert not model.has_factor[model.column["EUR"]]


def test_ones_own_scenarios_kinds_and_class_defaults() -> None:
    factor_map = FactorMap(
        kinds={"BUND": FactorKind.YIELD},
        class_defaults=(ClassDefault(AssetClass.CRYPTO, "USD", "BTC", sensitivity=1.4),),
    )
    mine = Scenario("Mine", {"BUND": 0.01, "BTC": -0.5})

    model = model_of(
        instrument("BUND_10Y", "bond", duration=8.5),
        instrument("ETH", "crypto"),
        scenarios=(mine,),
        factor_map=factor_map,
    )

    assert stress(model, "BUND_10Y") == pytest.approx([-0.085])
    assert stress(model, "ETH") == pytest.approx([-0.7])


@pytest.mark.parametrize(
    ("name", "shocks"),
    [("", {"A": 0.1}), ("x", {}), ("x", {"A": math.nan}), ("x", {"A": math.inf}), ("x", {"A": -1.0})],
)
def test_a_scenario_that_means_nothing_is_refused(name: str, shocks: Mapping[str, float]) -> None:
    with pytest.raises(ValueError, match="scenario"):
        Scenario(name, shocks)


def test_two_scenarios_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'COVID 2020': expected each name once"):
        model_of(scenarios=(*SIX_SCENARIOS, Scenario("COVID 2020", {"SP500": -0.4})))


def test_a_symbol_is_its_own_factor_before_its_class_default() -> None:
    model = model_of(stock("OIL"))

    assert stress(model, "OIL") == [0.0, 0.0, -0.50, 0.0, 0.0, -0.40]


def test_the_grid_moves_each_asset_class_by_its_own_shocks() -> None:
    model = model_of(
        stock("A"),
        instrument("B", "crypto"),
        instrument("C", "bond", duration=4.0),
        instrument("D", "credit", spread_duration=5.0, spread=0.04),
        instrument("E", "future"),
        instrument("F", "fx"),
    )

    np.testing.assert_allclose(
        model.grid,
        [
            [-0.20, -0.10, 0.10, 0.20],
            [-0.40, -0.20, 0.20, 0.40],
            [0.08, 0.04, -0.04, -0.08],
            [0.10, 0.05, -0.05, -0.10],
            [-0.20, -0.10, 0.10, 0.20],
            [-0.10, -0.05, 0.05, 0.10],
        ],
    )


def test_what_has_another_underlying_moves_as_that_one() -> None:
    model = model_of(
        instrument("BTC", "crypto"),
        instrument("BTC_PERP", "future", underlying="BTC"),
        instrument("ES", "future", underlying="SPX"),
    )

    assert model.grid[model.column["BTC_PERP"]].tolist() == [-0.40, -0.20, 0.20, 0.40]
    assert model.grid[model.column["ES"]].tolist() == [-0.20, -0.10, 0.10, 0.20]


def test_a_bond_without_duration_still_has_a_loss_on_either_side() -> None:
    model = model_of(instrument("X", "bond"), instrument("Y", "credit"))

    assert (model.grid.min(axis=1) == -0.20).all() and (model.grid.max(axis=1) == 0.20).all()


def test_a_pair_quoted_abroad_gains_in_money_that_its_own_move_changes() -> None:
    model = model_of(instrument("USDBRL", "fx", "BRL"))

    np.testing.assert_allclose(model.grid[0], [-0.10 / 0.90, -0.05 / 0.95, 0.05 / 1.05, 0.10 / 1.10])


def test_ones_own_grid() -> None:
    grid = {asset_class: GridShocks(FactorKind.PRICE, (-0.3, 0.3)) for asset_class in AssetClass}

    assert model_of(stock("A"), grid=grid).grid.tolist() == [[-0.3, 0.3]]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({AssetClass.EQUITY: GRID_SHOCKS[AssetClass.EQUITY]}, "none for future, fx"),
        ({**GRID_SHOCKS, AssetClass.FX: GridShocks(FactorKind.PRICE, (0.1,))}, "equally many"),
        (dict.fromkeys(AssetClass, GridShocks(FactorKind.PRICE, ())), "equally many"),
        (dict.fromkeys(AssetClass, GridShocks(FactorKind.PRICE, (-1.0, 1.0))), "above -1"),
    ],
)
def test_a_grid_that_fits_not_every_class_is_refused(grid: Mapping[AssetClass, GridShocks], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(stock("A"), grid=grid)
