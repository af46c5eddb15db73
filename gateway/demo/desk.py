"""A desk: one agent with its account at the broker. Turns wanted weights into orders, and keeps the equity curve.

The same desk trades in both arms of the demo, with the gateway and without: whoever runs it decides how much of each
ticket reaches the broker. No clock, no network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.demo.agents import Agent, Style
from gateway.demo.broker import PaperBroker, Report, Ticket
from gateway.demo.tape import Session, Tape

TRADE_MIN = 0.015
"""Smaller changes than this share of equity are left: they would cost more than they bring."""

RESTING_SESSIONS_MAX = 3
"""A limit order that has not filled by then is cancelled."""

RESTING_OFFSET = 0.003
"""How far from the last close a limit order waits."""

TICK = 0.01


@dataclass(slots=True)
class Desk:
    """One agent's trading. `curve` is its equity after each session's close, the starting cash first."""

    agent: Agent
    broker: PaperBroker
    curve: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.curve.append(self.broker.cash)

    def stale_orders(self, session: Session) -> list[str]:
        """Open orders that have waited long enough."""
        return [
            client_order_id
            for client_order_id, order in self.broker.open.items()
            if session.number - order.entered_number >= RESTING_SESSIONS_MAX and not order.cancel_requested
        ]

    def tickets(self, tape: Tape, session: Session) -> list[Ticket]:
        """The orders that lead from what is held and open to what the agent wants, those that reduce first."""
        wanted = self.agent.weights(tape.known(session), session.number)
        if wanted is None:
            return []
        prices = tape.opening(session)
        equity = self.broker.equity(prices)
        if equity <= 0:
            return []
        tickets = []
        for symbol, weight in zip(tape.symbols, wanted.tolist(), strict=True):
            held = self.broker.positions.get(symbol, 0) + self.broker.open_shares(symbol)
            change = int(weight * equity / prices[symbol]) - held
            if abs(change) * prices[symbol] >= TRADE_MIN * equity:
                tickets.append(self._ticket(session, symbol, change, prices[symbol]))
        return sorted(tickets, key=lambda ticket: not self.reduces(ticket))

    def _ticket(self, session: Session, symbol: str, change: int, price: float) -> Ticket:
        """A symbol is ordered at most once a session, which makes the id unique in its account."""
        sign = 1 if change > 0 else -1
        ticket = Ticket(f"{session.date}-{symbol}", symbol, sign, abs(change))
        if self.agent.style is Style.MARKET:
            return ticket
        return replace(ticket, limit_price=_on_tick(price * (1 - sign * RESTING_OFFSET)))

    def reduces(self, ticket: Ticket) -> bool:
        return self.broker.positions.get(ticket.symbol, 0) * ticket.sign < 0

    def sells_short(self, ticket: Ticket) -> bool:
        """Whether a sell leads below zero, open orders counted."""
        held = self.broker.positions.get(ticket.symbol, 0)
        return ticket.sign < 0 and held - self.broker.open_sells(ticket.symbol) - ticket.quantity < 0

    def close(self, tape: Tape, session: Session) -> list[Report]:
        """Run the session's close at the broker and mark the account at it."""
        reports = self.broker.close_session(session.date, tape.closing(session), tape.opening(session))
        self.curve.append(self.broker.equity(tape.closing(session)))
        return reports

    def held_pnl(self, opening: Mapping[str, float], closing: Mapping[str, float]) -> float:
        """What the positions as they stand now would make from one set of prices to the other."""
        return sum(shares * (closing[s] - opening[s]) for s, shares in self.broker.positions.items())


def _on_tick(price: float) -> float:
    return round(max(1, round(price / TICK)) * TICK, 2)
