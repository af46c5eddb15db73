"""A strategy as a plain loop: ask, send what was allowed, report what became of it.

    python plain_loop.py 127.0.0.1:50051 ALPHA KO 63.50

Moves the account's position in one symbol through a few targets. The venue is made of paper and fills at once, in two
parts; put your broker in its place. A thread follows the account, so that a stop by somebody else is known in time.
"""

import sys
import threading
import uuid
from collections.abc import Iterator

from gateway.client import Order, OutcomeUnknown, RiskClient, Side, StateChange, Verdict

STRATEGY = "plain-loop"
TARGETS = (100, 40, 700, 10_000, 0)


def main(address: str, account: str, symbol: str, price: float) -> None:
    with RiskClient(address, account=account, strategy=STRATEGY) as risk:
        threading.Thread(target=watch, args=(risk,), daemon=True).start()
        for target in TARGETS:
            missing = target - position(risk, symbol)
            if missing:
                side: Side = "buy" if missing > 0 else "sell"
                trade(risk, risk.order(side, symbol, abs(missing), limit_price=price, valid_for_s=30))
            print(f"target {target}, position {position(risk, symbol):g}", flush=True)


def trade(risk: RiskClient, order: Order) -> None:
    verdict = insist(risk, order)
    if not verdict:
        print(f"not sent: {verdict.action} {verdict.reason}: {verdict.message}")
        if verdict.dropped_because:
            risk.report_not_sent(verdict)  # it was approved, and is reserved until somebody says what became of it
        return
    if verdict.quantity < order.quantity:
        print(f"cut to {verdict.quantity:g}: {verdict.reason}: {verdict.message}")
    for execution_id, quantity, price in send(verdict):
        risk.report_fill(verdict, quantity, price, execution_id=execution_id)


def insist(risk: RiskClient, order: Order) -> Verdict:
    """The same order again, under the same id, until somebody says what was decided."""
    while True:
        try:
            return risk.check(order)
        except OutcomeUnknown as unknown:
            print(unknown, file=sys.stderr)


def send(verdict: Verdict) -> Iterator[tuple[str, float, float]]:
    """A venue of paper: (its id of the fill, quantity, price) of each."""
    price = verdict.order.limit_price or 0.0
    part = verdict.quantity // 2
    for quantity in (part, verdict.quantity - part):
        if quantity:
            yield uuid.uuid4().hex, quantity, price


def position(risk: RiskClient, symbol: str) -> float:
    held = risk.risk_state().positions
    return sum(place.quantity for place in held if (place.strategy, place.symbol) == (STRATEGY, symbol))


def watch(risk: RiskClient) -> None:
    for update in risk.follow():
        if isinstance(update, StateChange):
            print(f"trading is {update.trading_state}: {update.reason}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
