"""Builds the risk model of a session from the loaded closes, once for each session and instrument set.

Glue only: the numbers are engine/risk/build.py's, loading is gateway/market's, publishing the caller's.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from types import MappingProxyType

from engine.instrument import AssetClass, Instrument
from engine.risk.build import LOOKBACK_DAYS, Unmapped, build_model
from engine.risk.closes import Carried
from engine.risk.factors import GRID_SHOCKS, FactorMap, GridShocks
from engine.risk.history import PriceHistory
from engine.risk.model import RiskModel, content_hash, encode
from engine.risk.scenarios import SIX_SCENARIOS, Scenario

MODELS_KEPT_MAX = 4
"""Today's and the next session's, each before and after a change of instruments; a model of 500 symbols takes 3 MB."""


RENEWED_AFTER_US = 6 * 3600 * 1_000_000
"""A model this old is built again for the same session: one of over 26 h decides nothing, and a session that spans a
weekend lasts longer."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a model is built with; the same names and defaults as build_model."""

    lookback_days: int = LOOKBACK_DAYS
    scenarios: tuple[Scenario, ...] = SIX_SCENARIOS
    factor_map: FactorMap = field(default_factory=FactorMap)
    grid: Mapping[AssetClass, GridShocks] = field(default_factory=lambda: GRID_SHOCKS)
    unmapped: Unmapped = "unevaluable"
    base_currency: str = "USD"
    rates: Mapping[str, float] = field(default_factory=dict)
    """Risk-free rate by currency for options, continuously compounded, a fraction a year."""


SPOT_MOVE_MAX = 0.01
"""Options are revalued once an underlying has moved this far from the spot that they were valued at."""

OPTIONS_AGED_US = 15 * 60 * 1_000_000
"""And this often in any case: their volatilities move while the spot stands still."""

NO_MARKS: Mapping[str, float] = MappingProxyType({})


def valued_spots(model: RiskModel, instruments: Mapping[str, Instrument]) -> dict[str, float]:
    """What the model's options were valued at, by underlying; those that could not be say nothing."""
    options = model.options
    valued = zip(options.places[options.valued].tolist(), options.spot[options.valued].tolist(), strict=True)
    known = ((instruments.get(model.symbols[place]), spot) for place, spot in valued)
    return {option.underlying: spot for option, spot in known if option is not None}


def needs_renewal(built_time_us: int, now_us: int) -> bool:
    """Also of one from the future: the store's clock was set back, and its age would be wrong for long."""
    return abs(now_us - built_time_us) >= RENEWED_AFTER_US


class ModelBuilder:
    """One set of closes and settings; new closes make a new builder. `warnings`: what is to be known of the closes;
    every model carries them."""

    def __init__(
        self, prices: PriceHistory, settings: ModelSettings | None = None, warnings: tuple[str, ...] = ()
    ) -> None:
        self.history, self._warnings = prices, warnings
        self._settings = settings or ModelSettings()
        self._models: OrderedDict[tuple[date, str], RiskModel] = OrderedDict()
        self._spots: dict[tuple[date, str], dict[str, float]] = {}

    def with_closes(self, carried: Carried) -> "ModelBuilder":
        """A builder with the same settings of other closes."""
        return ModelBuilder(carried.history, self._settings, carried.warnings)

    def is_stale(self, model: RiskModel, marks: Mapping[str, float], now_us: int) -> bool:
        """Whether a model of this builder is to be built again: it is old, or its options need a new valuation."""
        if needs_renewal(model.built_time_us, now_us):
            return True
        spots = self._spots.get((model.session_date, model.instrument_set), {})
        if not spots:
            return False
        if abs(now_us - model.built_time_us) >= OPTIONS_AGED_US:
            return True
        return any(not abs(marks.get(name, spot) / spot - 1.0) <= SPOT_MOVE_MAX for name, spot in spots.items())

    def build(
        self,
        instruments: Mapping[str, Instrument],
        instrument_set: str,
        session_date: date,
        built_time_us: int,
        marks: Mapping[str, float] = NO_MARKS,
    ) -> RiskModel:
        """The model of this session and instrument set; the one built before where it was asked for less than
        RENEWED_AFTER_US ago and its options need no new valuation, so its `built_time_us` and hash do not change by
        asking again. `marks`: prices now by symbol or currency pair. Raises ValueError like build_model."""
        key = (session_date, instrument_set)
        known = self._models.get(key)
        if known is not None and not self.is_stale(known, marks, built_time_us):
            return known
        settings = self._settings
        model = build_model(
            instruments,
            instrument_set,
            self.history,
            session_date,
            built_time_us,
            lookback_days=settings.lookback_days,
            scenarios=settings.scenarios,
            factor_map=settings.factor_map,
            grid=settings.grid,
            unmapped=settings.unmapped,
            base_currency=settings.base_currency,
            marks=marks,
            rates=settings.rates,
        )
        if self._warnings:
            warned = replace(model, warnings=(*self._warnings, *model.warnings))
            model = replace(warned, hash=content_hash(encode(warned)))
        self._models[key] = model
        self._spots = {name: self._spots[name] for name in self._spots if name in self._models}
        self._spots[key] = valued_spots(model, instruments)
        if len(self._models) > MODELS_KEPT_MAX:
            self._models.popitem(last=False)
        return model
