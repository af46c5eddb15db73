"""A model's options on simulated paths, as estimate.py takes a revaluation.

An adapter alone, from the one valuation (options.py). No formula here; scenarios and replays take theirs from
stress_book.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.instrument import Instrument
from engine.risk.estimate import RevalueAfter
from engine.risk.options import OptionBook

Floats = NDArray[np.float64]


def path_revaluation(
    symbols: Sequence[str],
    linear: Sequence[str],
    book: OptionBook,
    instruments: Mapping[str, Instrument],
    base_currency: str,
) -> RevalueAfter:
    """For Monte Carlo: the options `symbols`, given paths of the instruments `linear`, per unit of reference.

    Volatility stays with the strike, and the options do not age. Raises ValueError where an option was not valued,
    its underlying is not among `linear`, or it is not in the base currency: paths are returns in that.
    """
    place_of = {symbol: place for place, symbol in enumerate(book.symbols)}
    column_of = {symbol: place for place, symbol in enumerate(linear)}
    for symbol in symbols:
        if symbol not in place_of:
            raise ValueError(f"{symbol}: the model could not value it")
        if instruments[symbol].currency != base_currency:
            raise ValueError(f"{symbol}: expected an option in {base_currency}, got {instruments[symbol].currency}")
        if instruments[symbol].underlying not in column_of:
            raise ValueError(f"{symbol}: its underlying {instruments[symbol].underlying} has no returns to simulate")
    own = book.taken(np.array([place_of[symbol] for symbol in symbols], dtype=np.intp))
    columns = np.array([column_of[instruments[symbol].underlying] for symbol in symbols], dtype=np.intp)

    def revalue(paths: Floats, horizon_days: int) -> Floats:
        if horizon_days != 1:
            raise ValueError(f"horizon_days: expected 1, options are not aged on simulated paths, got {horizon_days}")
        moves = np.maximum(paths[:, columns].T, -1.0)
        pnl: Floats = own.pnl(moves) / own.spot[:, None]
        return pnl.T

    return revalue
