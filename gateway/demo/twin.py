"""The same agents, broker and prices without a gateway: what the run is compared with. Pure, in process.

The broker's draws are keyed by agent, order and session, so an order that both arms send meets the same liquidity.
"""

from dataclasses import dataclass, field

from gateway.demo.agents import Agent, name_of
from gateway.demo.backtest import book_var
from gateway.demo.broker import PaperBroker
from gateway.demo.desk import Desk, taken_by_any_broker
from gateway.demo.tape import Session, Tape


@dataclass(slots=True)
class Watch:
    """A desk's VaR at each session's opening as a share of its equity, at one confidence."""

    confidence: float
    lookback_days: int
    ratios: list[float] = field(default_factory=list)

    def take(self, desk: Desk, tape: Tape, session: Session) -> float:
        """The VaR of what the desk holds, in base currency; open orders are not counted."""
        var = book_var(tape.known(session), tape.symbols, desk.broker.positions, self.confidence, self.lookback_days)
        equity = desk.broker.equity(tape.opening(session))
        self.ratios.append(var / equity if equity > 0 else float("inf"))
        return var

    def days_over(self, bound: float | None) -> int:
        """Sessions that opened with more than `bound`; the bound's rounding is not a breach."""
        return 0 if bound is None else sum(ratio > bound + 1e-9 for ratio in self.ratios)


def run_without_gateway(
    agent: Agent, tape: Tape, cash: float, seed: int, confidence: float, lookback_days: int
) -> tuple[Desk, Watch]:
    """Play every session with each order sent to the broker in full, but for those that no broker would take. Raises
    AgentError."""
    desk = Desk(agent, PaperBroker(name_of(agent), cash, seed))
    watch = Watch(confidence, lookback_days)
    for session in tape.sessions:
        watch.take(desk, tape, session)
        for client_order_id in desk.stale_orders(session):
            desk.broker.request_cancel(client_order_id)
        for asked in desk.asks(tape, session):
            if taken_by_any_broker(asked.order, tape.symbols):
                desk.broker.enter(asked.ticket(asked.order.shares), session.number)
        desk.close(tape, session)
    return desk, watch
