"""An execution engine on asyncio: sends what was allowed, and does what the gateway instructs.

    python async_engine.py 127.0.0.1:50051 ALPHA KO 63.50

Buys some at the market and rests two more buys, then waits. Stop the account from another shell,

    risk-gateway stop --account ALPHA --flatten

and the gateway instructs: cancel what works, sell what is held. The engine obeys, reports, and ends once the account is
halted and flat. The venue is made of paper; put yours in its place.
"""

import asyncio
import sys
import uuid
from contextlib import aclosing

from gateway.client import AsyncRiskClient, Instruction, Instructions, Order, RiskState, StateChange


class Venue:
    """Fills orders without a limit price at the last price; the others rest until they are cancelled."""

    def __init__(self, last_price: float) -> None:
        self.last_price = last_price
        self.resting: dict[str, float] = {}

    def send(self, order: Order, quantity: float) -> list[tuple[str, float, float]]:
        """The fills: (the venue's id of it, quantity, price)."""
        if order.limit_price is not None:
            self.resting[order.client_order_id] = quantity
            return []
        return [(uuid.uuid4().hex, quantity, self.last_price)]

    def cancel(self, client_order_id: str) -> bool:
        return self.resting.pop(client_order_id, None) is not None


class Engine:
    def __init__(self, risk: AsyncRiskClient, venue: Venue) -> None:
        self._risk, self._venue = risk, venue

    async def trade(self, order: Order) -> None:
        verdict = await self._risk.check(order)
        if verdict:
            await self._send(order, verdict.quantity)
        elif verdict.dropped_because:
            await self._risk.report_not_sent(verdict)

    async def obey(self) -> None:
        async with self._risk.instructions() as instructions:
            async for instruction in instructions:
                print(f"instructed: {instruction.kind}: {instruction.message}", flush=True)
                await instructions.received(instruction)
                await self._do(instruction, instructions)

    async def _do(self, instruction: Instruction, instructions: Instructions) -> None:
        if instruction.flatten_order is not None:
            order = instruction.flatten_order.order
            await self._send(order, order.quantity)
        elif self._venue.cancel(instruction.client_order_id):
            await self._risk.report_cancelled(instruction.client_order_id)
        else:
            await instructions.failed(instruction, "no such order rests at the venue")
            return
        await instructions.done(instruction)

    async def _send(self, order: Order, quantity: float) -> None:
        fills = self._venue.send(order, quantity)
        await self._risk.report_working(order)
        for execution_id, filled, price in fills:
            await self._risk.report_fill(order, filled, price, execution_id=execution_id)

    async def until_halted_and_flat(self) -> None:
        async with aclosing(self._risk.follow()) as updates:
            async for update in updates:
                match update:
                    case StateChange():
                        print(f"trading is {update.trading_state}: {update.reason}", flush=True)
                    case RiskState(trading_state="HALTED", open_orders=()):
                        if not any(position.quantity for position in update.positions):
                            return


async def main(address: str, account: str, symbol: str, price: float) -> None:
    async with AsyncRiskClient(address, account=account, strategy="engine") as risk, asyncio.TaskGroup() as tasks:
        engine = Engine(risk, Venue(price))
        obeying = tasks.create_task(engine.obey())
        await engine.trade(risk.order("buy", symbol, 10))
        for below in (0.50, 1.00):
            await engine.trade(risk.order("buy", symbol, 20, limit_price=round(price - below, 2)))
        print("two orders rest; waiting to be stopped", flush=True)
        await engine.until_halted_and_flat()
        print("halted and flat", flush=True)
        obeying.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
