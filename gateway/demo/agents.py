"""What an agent of the demo is, and the three that come with it.

An agent is asked for orders as each session opens, from the closes up to the day before and what it holds; it knows
nothing of limits and never sees the future. The three are plain, published rules with round parameters that were not
optimised for return: the demo is about the control of risk and not about finding an edge. Nothing is sent from here.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from numbers import Real
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TRADING_DAYS = 252

TRADE_MIN = 0.015
"""Smaller changes than this share of equity are left: they would cost more than they bring."""

RESTING_OFFSET = 0.003
"""How far from the last close a limit order waits."""

TICK = 0.01


@dataclass(frozen=True, slots=True)
class Order:
    """What an agent wants to trade: whole shares, more than 0 to buy, less to sell; selling more than is held is short.

    Without a limit price it is a market order of this session. With one, in dollars and whole cents, it rests until it
    is filled, at most three sessions. Nothing is checked here but that these are a text and numbers: the gateway says
    what is wrong with the rest.
    """

    symbol: str
    quantity: float
    limit_price: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.symbol, str):
            raise TypeError(f"symbol: expected a text such as 'AAPL', got {self.symbol!r}")
        object.__setattr__(self, "quantity", _number("quantity", self.quantity))
        if self.limit_price is not None:
            object.__setattr__(self, "limit_price", _number("limit_price", self.limit_price))

    @property
    def sign(self) -> int:
        """1 buys, -1 sells."""
        return -1 if self.quantity < 0 else 1

    @property
    def shares(self) -> float:
        """How many, without the sign."""
        return abs(self.quantity)


@dataclass(frozen=True, slots=True, eq=False)
class Morning:
    """All that an agent is shown when a session opens. Values to be read; orders are what changes things."""

    date: date
    """The session that opens."""
    number: int
    """Counted from 0 at the first session played."""
    symbols: tuple[str, ...]
    """What can be traded, in the order of the columns of `closes`."""
    closes: Floats
    """Daily closes in dollars, adjusted for splits and dividends, of shape (days, symbols): the last row is the day
    before this session, and at least three years lie before it."""
    positions: Mapping[str, int]
    """Signed shares held, by symbol, without zeros: below 0 is short."""
    open_shares: Mapping[str, int]
    """Signed shares that resting orders may still trade, by symbol, without zeros."""
    cash: float
    """In dollars; what short sales brought is in it."""
    equity: float
    """Cash and positions at the last closes, in dollars."""

    def price(self, symbol: str) -> float:
        """The last close. KeyError for what can't be traded."""
        if symbol not in self.symbols:
            raise KeyError(symbol)
        return float(self.closes[-1, self.symbols.index(symbol)])


class Agent(Protocol):
    """A strategy: one method. Any class that has it can be played with `risk-gateway demo --agents module:Class`.

    An instance is made without arguments for each run: one with the gateway, and one without, to compare. Each has an
    account and a million dollars of its own. Its name is its attribute `name`, if it has one, else that of its class.
    """

    def orders(self, morning: Morning) -> Iterable[Order]:
        """The orders for this session, in the order in which they are sent; none to leave the book as it is.

        Called once a session. Each order is asked of the gateway first and goes out for what that allows; the agent
        sees what came of it in the positions of the next morning.
        """
        ...


MakeAgent = Callable[[], Agent]


def name_of(agent: Agent) -> str:
    """Names its account, its strategy and its rows in the tables."""
    return str(getattr(agent, "name", type(agent).__name__))


def toward(morning: Morning, weights: Floats | None, *, resting: bool = False) -> list[Order]:
    """The orders that lead from what is held and open to these weights, those that reduce a position first.

    `weights`: signed fractions of equity, shape (symbols,); None leaves all as it is, and so do changes under
    TRADE_MIN of equity. `resting`: limit orders a little better than the last close, and not market orders. A weight
    that is no number becomes an order that is none.
    """
    if weights is None or morning.equity <= 0:
        return []
    orders = []
    for symbol, weight, price in zip(morning.symbols, weights.tolist(), morning.closes[-1].tolist(), strict=True):
        held = morning.positions.get(symbol, 0) + morning.open_shares.get(symbol, 0)
        wanted = weight * morning.equity / price
        change = float(math.trunc(wanted) - held) if math.isfinite(wanted) else math.nan
        if not abs(change) * price < TRADE_MIN * morning.equity:
            sign = -1 if change < 0 else 1
            orders.append(Order(symbol, change, _on_tick(price * (1 - sign * RESTING_OFFSET)) if resting else None))
    return sorted(orders, key=lambda order: morning.positions.get(order.symbol, 0) * order.sign >= 0)


@dataclass(frozen=True, slots=True)
class Momentum:
    """Holds the strongest stocks of the last half year, the latest week left out, by inverse volatility; long only.

    Jegadeesh and Titman, "Returns to buying winners and selling losers" (1993). Trades once a week.
    """

    name: str = "momentum"
    lookback_days: int = 126
    skip_days: int = 5
    holdings: int = 6
    gross: float = 1.4
    every_sessions: int = 5

    def orders(self, morning: Morning) -> list[Order]:
        return toward(morning, self.weights(morning.closes, morning.number))

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
    average_days: int = 20
    deadband: float = 1.0
    weight_per_sigma: float = 0.06
    weight_max: float = 0.18

    def orders(self, morning: Morning) -> list[Order]:
        return toward(morning, self.weights(morning.closes), resting=True)

    def weights(self, closes: Floats) -> Floats:
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
    lookback_days: int = 63
    legs: int = 5
    volatility_days: int = 40
    volatility_target: float = 0.30
    gross_max: float = 2.4
    every_sessions: int = 2

    def orders(self, morning: Morning) -> list[Order]:
        return toward(morning, self.weights(morning.closes, morning.number))

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


AGENTS: Mapping[str, MakeAgent] = {"momentum": Momentum, "reversion": MeanReversion, "longshort": LongShort}
"""By name, in the order in which they are shown."""


def _number(field: str, value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{field}: expected a number, got {value!r}")
    return float(value)


def _on_tick(price: float) -> float:
    return round(max(1, round(price / TICK)) * TICK, 2)


def _returns(closes: Floats, days: int) -> Floats:
    window = closes[-days - 1 :]
    moves: Floats = window[1:] / window[:-1] - 1.0
    return moves


def _volatility(closes: Floats, days: int) -> Floats:
    """Per day, ddof = 1, shape (symbols,)."""
    return np.asarray(_returns(closes, days).std(axis=0, ddof=1))
