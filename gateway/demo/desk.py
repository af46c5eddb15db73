"""A desk: one agent with its account at the broker. Asks it for orders, names them, and keeps the equity curve.

The same desk trades in both arms of the demo, with the gateway and without: whoever runs it decides how much of each
order reaches the broker. No clock, no network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gateway.demo.agents import Agent, Morning, Order, name_of
from gateway.demo.broker import PaperBroker, Report, Ticket
from gateway.demo.own import ask
from gateway.demo.tape import Session, Tape

RESTING_SESSIONS_MAX = 3
"""A limit order that has not filled by then is cancelled."""

ID_CHARS = 100
"""Short enough for the contract with what makes a second order in a symbol differ."""

SHARES_MAX = 1e12
"""No broker takes an order for more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An agent's order under the id that it is asked, sent and reported by."""

    client_order_id: str
    order: Order

    def ticket(self, shares: float) -> Ticket:
        """What goes to the broker when so many shares of it may be sent, 1 or more."""
        order = self.order
        return Ticket(self.client_order_id, order.symbol, order.sign, round(shares), order.limit_price)


@dataclass(slots=True)
class Desk:
    """One agent's trading. `curve` is its equity after each session's close, the starting cash first."""

    agent: Agent
    broker: PaperBroker
    curve: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.curve.append(self.broker.cash)

    @property
    def name(self) -> str:
        return name_of(self.agent)

    def stale_orders(self, session: Session) -> list[str]:
        """Open orders that have waited long enough."""
        return [
            client_order_id
            for client_order_id, order in self.broker.open.items()
            if session.number - order.entered_number >= RESTING_SESSIONS_MAX and not order.cancel_requested
        ]

    def morning(self, tape: Tape, session: Session) -> Morning:
        """What the agent is shown when the session opens."""
        closes = tape.known(session).view()
        closes.flags.writeable = False  # the other arm plays the same prices
        broker = self.broker
        open_shares = {symbol: broker.open_shares(symbol) for symbol in tape.symbols}
        return Morning(
            date=session.date,
            number=session.number,
            symbols=tape.symbols,
            closes=closes,
            positions=MappingProxyType(dict(broker.positions)),
            open_shares=MappingProxyType({symbol: shares for symbol, shares in open_shares.items() if shares}),
            cash=broker.cash,
            equity=broker.equity(tape.opening(session)),
        )

    def asks(self, tape: Tape, session: Session) -> list[Asked]:
        """What the agent wants of this session, each under an id of its own. Raises AgentError."""
        asked: dict[str, Asked] = {}
        for order in ask(self.agent, self.morning(tape, session)):
            base = client_order_id = f"{session.date}-{order.symbol}"[:ID_CHARS]
            again = 1
            while client_order_id in asked:
                again += 1
                client_order_id = f"{base}-{again}"
            asked[client_order_id] = Asked(client_order_id, order)
        return list(asked.values())

    def sells_short(self, order: Order) -> bool:
        """Whether a sell leads below zero, open orders counted."""
        held = self.broker.positions.get(order.symbol, 0)
        return order.sign < 0 and held - self.broker.open_sells(order.symbol) - order.shares < 0

    def close(self, tape: Tape, session: Session) -> list[Report]:
        """Run the session's close at the broker and mark the account at it."""
        reports = self.broker.close_session(session.date, tape.closing(session), tape.opening(session))
        self.curve.append(self.broker.equity(tape.closing(session)))
        return reports

    def held_pnl(self, opening: Mapping[str, float], closing: Mapping[str, float]) -> float:
        """What the positions as they stand now would make from one set of prices to the other."""
        return sum(shares * (closing[s] - opening[s]) for s, shares in self.broker.positions.items())


def taken_by_any_broker(order: Order, symbols: tuple[str, ...]) -> bool:
    """Whether it is an order at all: whole shares of something that is traded, at a price."""
    whole = 1 <= order.shares <= SHARES_MAX and order.shares == math.floor(order.shares)
    priced = order.limit_price is None or 0 < order.limit_price < math.inf
    return whole and priced and order.symbol in symbols
