"""What a model is assembled from: the price series of its window, and the columns of its instruments.

Shared by build.py (instruments that are linear in a price) and option_rows.py; here are the values that pass between
them, and how one instrument answers its series and a scenario. Nothing here decides what a missing piece means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.instrument import Instrument
from engine.risk.factors import FactorMap, is_cash, local_return
from engine.risk.model import NO_OPTIONS, OptionColumns
from engine.risk.scenarios import Scenario

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """Every price series of the window, instruments' and indices' alike; returns of the faultless ones."""

    returns: Mapping[str, Floats]
    faults: Mapping[str, str]

    def fault(self, name: str) -> str:
        return self.faults.get(name, "no closes in the price history")


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What a model says of each instrument, in symbol order."""

    rows: Floats
    """Shape (n_symbols, n_rows), symbol by symbol as the model keeps them."""
    grid: Floats
    has_history: NDArray[np.bool_]
    has_factor: NDArray[np.bool_]
    unaffected: NDArray[np.bool_]
    betas: Floats
    grid_volatilities: tuple[float, ...] = (0.0,)
    options: OptionColumns = NO_OPTIONS


def local_source(instrument: Instrument, series: Series) -> Floats | None:
    """Its own returns, else its proxy's."""
    own = series.returns.get(instrument.symbol)
    return series.returns.get(instrument.proxy) if own is None else own


def local_stress(
    instrument: Instrument, scenarios: Sequence[Scenario], factor_map: FactorMap, beta: float, fx_moves: bool
) -> Floats | None:
    """Its return in its own currency in each scenario, 0 where one leaves it alone; None where all of them do."""
    if is_cash(instrument):
        return np.zeros(len(scenarios)) if fx_moves else None
    found = [local_return(instrument, scenario.shocks, factor_map, beta) for scenario in scenarios]
    if all(local is None for local in found):
        return None
    return np.array([0.0 if local is None else local for local in found])
