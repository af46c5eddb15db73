"""Random books for properties: an account with positions and open orders of several strategies, and its slow twin.

Small on purpose: five symbols that share sectors, issuers, underlyings and currencies, twenty-five days, two scenarios.
Twenty-five days make the tail at 95 % a whole and a quarter day: the fractional mass of ES is always exercised.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import Terms
from engine.instrument import AssetClass
from engine.limits import LimitSet
from engine.order import Order, OrderType, Side, TimeInForce
from engine.risk.model import RiskModel
from tests.engine.builders import ACCOUNT, account, future, model, reserve, stock, terms, universe
from tests.engine.reference import Slow

UNIVERSE = universe(
    stock("AAA", sector="Tech", issuer="A Corp", beta=1.2, average_daily_quantity=900.0),
    stock("AA2", sector="Tech", issuer="A Corp", underlying="AAA", lot_size=0.1, average_daily_quantity=77.7),
    stock("BBB", sector="Energy", lot_size=10.0, average_daily_quantity=5_000.0),
    stock("EUX", sector="Energy", currency="EUR", asset_class=AssetClass.CRYPTO, beta=-0.5, average_daily_quantity=1.0),
    future("FUT", sector="Index", average_daily_quantity=1_000.0),
)
BETAS = {"AA2": 0.8, "BBB": -0.3, "FUT": 1.0, "EUX": 9.0}
"""The risk model's; what an instrument says of itself wins over it."""
MARKS = {"AAA": 101.0, "AA2": 47.0, "BBB": 13.0, "EUX": 70.0, "FUT": 20.25}
FX = {"EUR": 1.1}
SYMBOLS = tuple(UNIVERSE.instruments)
STRATEGIES = ("", "mm", "rl")
DAYS = 25

a_return = st.floats(-0.2, 0.2).map(lambda value: round(value, 4))
symbols = st.sampled_from(SYMBOLS)
names = st.sampled_from(STRATEGIES)
lots = st.integers(-60, 60)
senders: st.SearchStrategy[dict[str, Any]] = st.sampled_from(("x", "y")).map(
    lambda name: dict.fromkeys(("algo_id", "trader_id", "desk_id", "client_id", "venue"), name)
)
"""All of one name: who stands behind an order."""


@st.composite
def models(draw: st.DrawFn) -> RiskModel:
    seed = draw(st.integers(0, 10_000))
    drawn = np.random.default_rng(seed).integers(-200, 200, (len(SYMBOLS), DAYS)) / 1000
    columns = {s: drawn[at].tolist() for at, s in enumerate(SYMBOLS)}
    shocks = {name: {s: draw(a_return) for s in SYMBOLS} for name in ("crash", "spike")}
    return model(columns, shocks, grid=(-0.2, -0.1, 0.1, 0.2), betas=BETAS)


@st.composite
def states(draw: st.DrawFn, open_orders_max: int = 6) -> AccountState:
    held = draw(st.dictionaries(st.tuples(names, symbols), lots, max_size=6))
    state = account(UNIVERSE, MARKS, strategies=held, fx=FX, cash={"USD": 5_000_000.0, "EUR": 1000.0})
    opened = draw(st.lists(st.tuples(names, symbols, lots.filter(bool)), max_size=open_orders_max))
    for at, (strategy, symbol, count) in enumerate(opened):
        reserve(state, f"open{at}", symbol, count, strategy, **draw(senders))
    return state


@st.composite
def orders(draw: st.DrawFn, lots_max: int = 80, among: tuple[str, ...] = SYMBOLS) -> Order:
    symbol, side = draw(st.sampled_from(among)), draw(st.sampled_from([Side.BUY, Side.SELL, Side.SELL_SHORT]))
    limit = draw(st.sampled_from([None, MARKS[symbol]]))
    return Order(
        account=ACCOUNT,
        client_order_id="new",
        symbol=symbol,
        side=side,
        quantity=draw(st.integers(1, lots_max)) * UNIVERSE.instruments[symbol].lot_size,
        order_type=OrderType.MARKET if limit is None else OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        strategy=draw(names),
        limit_price=limit,
        **draw(senders),
    )


def lots_of(order: Order) -> int:
    return round(order.quantity / UNIVERSE.instruments[order.symbol].lot_size)


@dataclass(frozen=True)
class Bench:
    """A state, the risk model and its slow twin."""

    state: AccountState
    risk: RiskModel = field(repr=False)

    def terms(self, armed: LimitSet) -> Terms:
        return terms(UNIVERSE, armed, self.risk)

    @property
    def slow(self) -> Slow:
        return Slow(self.state, UNIVERSE, MARKS, FX, self.risk)


benches = st.builds(Bench, states(), models())
