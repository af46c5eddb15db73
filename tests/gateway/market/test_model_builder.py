"""The worker's model builder: one model per session and instrument set, built with the settings it was given.

Prices are the sample's.
"""

from datetime import date

import pytest

from engine.risk.history import PriceHistory
from engine.risk.scenarios import Scenario
from gateway.market.prices import sample_us_stocks
from gateway.market.sample import sample_instruments
from gateway.worker.model_builder import MODELS_KEPT_MAX, RENEWED_AFTER_US, ModelBuilder, ModelSettings

THURSDAY, FRIDAY = date(2022, 12, 22), date(2022, 12, 23)


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
