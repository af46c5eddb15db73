"""What a book could lose, recomputed beside the gateway, and whether losses kept to what was promised.

The same definition as the gateway's (engine.risk.var: order statistic over the historical days), computed from the
closes directly, so that the arm without a gateway has a VaR too and the gateway's own can be compared with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.risk.var import value_at_risk
from gateway.demo.tape import Floats


def book_var(
    closes: Floats, symbols: tuple[str, ...], positions: Mapping[str, int], confidence: float, lookback_days: int
) -> float:
    """One-day historical VaR in base currency of `positions` (shares by symbol) valued at the last row of `closes`."""
    window = closes[-lookback_days - 1 :]
    held = np.array([positions.get(symbol, 0) for symbol in symbols], dtype=np.float64)
    returns = window[1:] / window[:-1] - 1.0
    return value_at_risk(-(returns @ (held * window[-1])), confidence)


@dataclass(frozen=True, slots=True)
class Promise:
    """A VaR as of a session's opening, and what the same book then did until the close, both in base currency."""

    value_at_risk: float
    pnl: float

    @property
    def broken(self) -> bool:
        """An exception: the loss was over the VaR, strictly."""
        return -self.pnl > self.value_at_risk


@dataclass(frozen=True, slots=True)
class ExceptionCount:
    """Exceptions of a VaR against what its confidence promises."""

    confidence: float
    days: int
    seen: int

    @property
    def expected(self) -> float:
        return self.days * (1.0 - self.confidence)

    @property
    def p_value(self) -> float:
        """Chance of a count at least as unlikely if the promise held: Kupiec (1995), unconditional coverage, χ²(1)."""
        return math.erfc(math.sqrt(max(0.0, kupiec_ratio(self.seen, self.days, 1.0 - self.confidence)) / 2.0))


def kupiec_ratio(seen: int, days: int, rate: float) -> float:
    """LR_pof = −2 ln[(1−p)^(n−x) p^x / ((1−x/n)^(n−x) (x/n)^x)]; 0 days give 0, 0·ln 0 is 0."""
    if days == 0:
        return 0.0
    promised = (days - seen) * math.log1p(-rate) + seen * math.log(rate)
    share = seen / days
    observed = _weighted_log(days - seen, 1.0 - share) + _weighted_log(seen, share)
    return 2.0 * (observed - promised)


def _weighted_log(count: int, probability: float) -> float:
    return count * math.log(probability) if count else 0.0


def count_exceptions(promises: list[Promise], confidence: float) -> ExceptionCount:
    return ExceptionCount(confidence, len(promises), sum(promise.broken for promise in promises))
