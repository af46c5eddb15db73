"""Builds the risk model of a session from the loaded closes, once for each session and instrument set.

Glue only: the numbers are engine/risk/build.py's, loading is gateway/market's, publishing the caller's.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from engine.instrument import AssetClass, Instrument
from engine.risk.build import LOOKBACK_DAYS, Unmapped, build_model
from engine.risk.factors import GRID_SHOCKS, FactorMap, GridShocks
from engine.risk.history import PriceHistory
from engine.risk.model import RiskModel
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


def needs_renewal(built_time_us: int, now_us: int) -> bool:
    """Also of one from the future: the store's clock was set back, and its age would be wrong for long."""
    return abs(now_us - built_time_us) >= RENEWED_AFTER_US


class ModelBuilder:
    """One set of closes and settings; new closes make a new builder."""

    def __init__(self, prices: PriceHistory, settings: ModelSettings | None = None) -> None:
        self._prices = prices
        self._settings = settings or ModelSettings()
        self._models: OrderedDict[tuple[date, str], RiskModel] = OrderedDict()

    def build(
        self, instruments: Mapping[str, Instrument], instrument_set: str, session_date: date, built_time_us: int
    ) -> RiskModel:
        """The model of this session and instrument set; the one built before where it was asked for less than
        RENEWED_AFTER_US ago, so its `built_time_us` and hash do not change by asking again. Raises ValueError like
        build_model."""
        key = (session_date, instrument_set)
        known = self._models.get(key)
        if known is not None and not needs_renewal(known.built_time_us, built_time_us):
            return known
        settings = self._settings
        model = build_model(
            instruments,
            instrument_set,
            self._prices,
            session_date,
            built_time_us,
            lookback_days=settings.lookback_days,
            scenarios=settings.scenarios,
            factor_map=settings.factor_map,
            grid=settings.grid,
            unmapped=settings.unmapped,
            base_currency=settings.base_currency,
        )
        self._models[key] = model
        if len(self._models) > MODELS_KEPT_MAX:
            self._models.popitem(last=False)
        return model
