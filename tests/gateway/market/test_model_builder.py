"""The worker's model builder: one model per session and instrument set, built with the settings it was given.

Prices are the sample's.
"""

from datetime import date

import pytest

from engine.risk.closes import Carried
from engine.risk.history import PriceHistory
from engine.risk.model import decode, encode
from engine.risk.scenarios import Scenario
from gateway.market.prices import sample_us_stocks
from gateway.market.sample import sample_instruments
from gateway.worker.model_builder import (
    MODELS_KEPT_MAX,
    OPTIONS_AGED_US,
    RENEWED_AFTER_US,
    ModelBuilder,
    ModelSettings,
)
from tests.engine.risk.builders import option

THURSDAY, FRIDAY = date(2022, 12, 22), date(2022, 12, 23)
BUILT_US = 1_671_710_400_000_000
"""Noon of Thursday, UTC."""


@pytest.fixture(scope="module")
def prices() -> PriceHistory:
    return sample_us_stocks()


def test_asking_again_gives_the_same_model(prices: PriceHistory) -> None:
    builder = ModelBuilder(prices)

    first = builder.build(sample_instruments(), "set", THURSDAY, built_time_us=1)

    assert builder.build(sample_instruments(), "set", THURSDAY, built_time_us=2) is first
    assert first.built_time_us == 1


def test_another_session_or_instrument_set_is_another_model(prices: PriceHistory) -> None:
    builder = ModelBuilder(prices)
    instruments = sample_instruments()
    one = {"AAPL": instruments["AAPL"]}

    models = [
        builder.build(instruments, "twenty", THURSDAY, 1),
        builder.build(instruments, "twenty", FRIDAY, 1),
        builder.build(one, "one", FRIDAY, 1),
    ]

    assert [model.last_price_date for model in models] == [date(2022, 12, 21), THURSDAY, THURSDAY]
    assert [len(model.symbols) for model in models] == [20, 20, 1]
    assert len({model.hash for model in models}) == 3


def test_the_settings_reach_the_model(prices: PriceHistory) -> None:
    settings = ModelSettings(lookback_days=300, scenarios=(Scenario("Mine", {"KO": -0.1}),), unmapped="zero")

    model = ModelBuilder(prices, settings).build(sample_instruments(), "set", THURSDAY, 1)

    assert (model.lookback_days, model.n_days, model.scenario_names) == (300, 300, ("Mine",))
    assert model.has_factor.all() and model.unaffected.sum() == 19


def test_only_the_latest_models_are_kept(prices: PriceHistory) -> None:
    builder = ModelBuilder(prices)
    instruments = {"KO": sample_instruments()["KO"]}
    oldest = builder.build(instruments, "0", THURSDAY, 1)

    for number in range(1, MODELS_KEPT_MAX + 1):
        builder.build(instruments, str(number), THURSDAY, 1)

    assert builder.build(instruments, "0", THURSDAY, 2) is not oldest


def test_a_model_is_built_again_when_it_is_old(prices: PriceHistory) -> None:
    builder = ModelBuilder(prices)
    instruments = {"KO": sample_instruments()["KO"]}
    first = builder.build(instruments, "set", THURSDAY, 1)

    young = builder.build(instruments, "set", THURSDAY, RENEWED_AFTER_US)
    old = builder.build(instruments, "set", THURSDAY, 1 + RENEWED_AFTER_US)

    assert young is first
    assert (old.built_time_us, old.last_price_date) == (1 + RENEWED_AFTER_US, first.last_price_date)
    assert old.hash != first.hash


# -- what changes a model within its session


def test_what_is_to_be_known_of_the_closes_is_in_every_model(prices: PriceHistory) -> None:
    instruments = {"KO": sample_instruments()["KO"]}
    carried = Carried(prices, ("price history: session 2022-12-29 left out: no mark of SP500",))

    model = ModelBuilder(prices).with_closes(carried).build(instruments, "set", THURSDAY, 1)

    assert model.warnings[0] == carried.warnings[0]
    assert decode(encode(model), model.hash).warnings == model.warnings


@pytest.mark.parametrize(
    ("marks", "later_us", "stale"),
    [
        ({"KO": 63.0}, 0, False),
        ({"KO": 63.6}, 0, False),
        ({"KO": 64.0}, 0, True),
        ({"KO": 62.0}, 0, True),
        ({"KO": float("nan")}, 0, True),
        ({"PEP": 1.0}, 0, False),
        ({}, OPTIONS_AGED_US, True),
    ],
)
def test_options_are_valued_anew_when_their_underlying_has_moved_or_time_has_passed(
    prices: PriceHistory, marks: dict[str, float], later_us: int, stale: bool
) -> None:
    put = option("KO-P60", 60.0, "put", "KO", date(2023, 6, 16), volatility=0.2)
    instruments = {"KO": sample_instruments()["KO"], "KO-P60": put}
    builder = ModelBuilder(prices)

    model = builder.build(instruments, "set", THURSDAY, BUILT_US, {"KO": 63.0})

    assert model.options.spot.tolist() == [63.0]
    assert builder.is_stale(model, marks, BUILT_US + later_us) is stale


def test_a_model_without_options_does_not_mind_the_marks(prices: PriceHistory) -> None:
    builder = ModelBuilder(prices)
    model = builder.build({"KO": sample_instruments()["KO"]}, "set", THURSDAY, BUILT_US, {"KO": 63.0})

    assert not builder.is_stale(model, {"KO": 90.0}, BUILT_US + OPTIONS_AGED_US)
