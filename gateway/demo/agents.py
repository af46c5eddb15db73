"""Three agents, each a pure function from the closes it may see to the portfolio it wants.

Weights are signed fractions of the account's equity by symbol; an agent knows nothing of limits, orders or fills. The
rules are plain, published ones with round parameters that were not optimised for return: the demo is about the control
of risk and not about finding an edge.
"""

import enum
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TRADING_DAYS = 252


class Style(enum.Enum):
    """How an agent's wishes become orders."""

    MARKET = "market"
    """Day orders at the market."""
    RESTING = "resting"
    """Limit orders away from the last close, good till cancelled."""


class Agent(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def style(self) -> Style: ...

    def weights(self, closes: Floats, session_number: int) -> Floats | None:
        """Wanted weights, shape (symbols,), from closes of shape (days, symbols), latest last; None: leave as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Momentum:
    """Holds the strongest stocks of the last half year, the latest week left out, by inverse volatility; long only.

    Jegadeesh and Titman, "Returns to buying winners and selling losers" (1993). Trades once a week.
    """

    name: str = "momentum"
    style: Style = Style.MARKET
    lookback_days: int = 126
    skip_days: int = 5
    holdings: int = 6
    gross: float = 1.4
    every_sessions: int = 5

    def weights(self, closes: Floats, session_number: int) -> Floats | None:
        if session_number % self.every_sessions:
            return None
        past = closes[-1 - self.skip_days] / closes[-1 - self.lookback_days] - 1.0
        chosen = np.argsort(past, kind="stable")[-self.holdings :]
        inverse = 1.0 / _volatility(closes, 60)
        wanted = np.zeros(closes.shape[1])
        wanted[chosen] = self.gross * inverse[chosen] / inverse[chosen].sum()
        return wanted


@dataclass(frozen=True, slots=True)
class MeanReversion:
    """Buys what has fallen and sells what has risen against its average, in proportion, with resting limit orders.

    Short-term reversal: Lehmann, "Fads, martingales, and market efficiency" (1990). Within `deadband` standard
    deviations it wants nothing.
    """

    name: str = "reversion"
    style: Style = Style.RESTING
    average_days: int = 20
    deadband: float = 1.0
    weight_per_sigma: float = 0.06
    weight_max: float = 0.18

    def weights(self, closes: Floats, session_number: int) -> Floats | None:
        window = closes[-self.average_days :]
        spread = window.std(axis=0, ddof=1)
        score = (closes[-1] - window.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
        beyond = np.sign(score) * np.maximum(np.abs(score) - self.deadband, 0.0)
        wanted: Floats = np.clip(-self.weight_per_sigma * beyond, -self.weight_max, self.weight_max)
        return wanted


@dataclass(frozen=True, slots=True)
class LongShort:
    """Long the strongest, short the weakest, in equal parts, scaled to a volatility it wants the book to have.

    Moskowitz, Ooi and Pedersen, "Time series momentum" (2012), for the scaling. The estimate looks back, so the book is
    largest after quiet weeks: what a crash punishes.
    """

    name: str = "longshort"
    style: Style = Style.MARKET
    lookback_days: int = 63
    legs: int = 5
    volatility_days: int = 40
    volatility_target: float = 0.30
    gross_max: float = 2.4
    every_sessions: int = 2

    def weights(self, closes: Floats, session_number: int) -> Floats | None:
        if session_number % self.every_sessions:
            return None
        past = closes[-1] / closes[-1 - self.lookback_days] - 1.0
        order = np.argsort(past, kind="stable")
        unscaled = np.zeros(closes.shape[1])
        unscaled[order[-self.legs :]] = 0.5 / self.legs
        unscaled[order[: self.legs]] = -0.5 / self.legs
        realised = float((_returns(closes, self.volatility_days) @ unscaled).std(ddof=1)) * TRADING_DAYS**0.5
        scale = min(self.volatility_target / realised, self.gross_max) if realised > 0 else 0.0
        return unscaled * scale


AGENTS: tuple[Agent, ...] = (Momentum(), MeanReversion(), LongShort())


def _returns(closes: Floats, days: int) -> Floats:
    window = closes[-days - 1 :]
    moves: Floats = window[1:] / window[:-1] - 1.0
    return moves


def _volatility(closes: Floats, days: int) -> Floats:
    """Per day, ddof = 1, shape (symbols,)."""
    return np.asarray(_returns(closes, days).std(axis=0, ddof=1))
