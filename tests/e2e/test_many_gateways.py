"""Several gateways on one account: what all of their clients were told, and when, agrees with the one log (the witness
check of CONSISTENCY.md), while gateways are frozen, killed and restarted and an operator stops and resumes.
"""

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc
import msgspec

from engine.control import Scope, TradingState
from engine.order import Action, Reason
from engine.records import Decided
from gateway.committer import Answer
from gateway.rpc.convert import requests
from riskgateway.v1 import decision_pb2, order_pb2, risk_gateway_pb2
from tests.e2e.desk import BUY, SELL, Desk, Verdict, desk
from tests.e2e.ledger import read_encoded
from tests.e2e.machine import Machine
from tests.simulation.checker import Checked, History, Stopped, objections

AGENTS = 12
ORDERS_EACH = 25
BOUND_LOTS = 500
"""The position limit of the tests' configuration: the crowd wants far more."""

SEED = 20200316
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(slots=True)
class Crowd:
    """Agents that trade one symbol of one account through whichever gateway answers."""

    desks: Sequence[Desk]
    history: History = field(default_factory=History)
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    allowed: int = 0

    async def agent(self, number: int) -> None:
        for _ in range(ORDERS_EACH):
            side = BUY if self.chance.random() < 0.6 else SELL
            mine = self.desks[number % len(self.desks)]
            order = mine.order("KO", side, self.chance.randint(5, 90), strategy=f"agent-{number}")
            verdict = await self.ask(order, number)
            if verdict.allowed:
                self.allowed += 1
                await self._insist(number, self._end(order, verdict))

    async def ask(self, order: order_pb2.Order, number: int) -> Verdict:
        request = risk_gateway_pb2.CheckOrderRequest(order=order)
        checked = self.history.invoke(requests.order_of(request))
        while True:
            mine = self.desks[number % len(self.desks)]
            try:
                verdict: Verdict = await mine.gateway.CheckOrder(request, timeout=2.0)
            except grpc.aio.AioRpcError as error:
                assert error.code() in RETRIED, error
                number += 1  # the other gateway, the same id
                continue
            self.history.answered(checked, answer_of(checked, verdict))
            self.answered.set()
            return verdict

    def _end(self, order: order_pb2.Order, verdict: Verdict) -> "_End":
        whole = self.chance.random() < 0.5
        return _End(order, verdict.allowed_quantity if whole else 0.0)

    async def _insist(self, number: int, end: "_End") -> None:
        """Report until somebody has recorded it. A report has an id, so that twice is once."""
        while True:
            mine = self.desks[number % len(self.desks)]
            try:
                if end.filled:
                    await mine.fill(end.order, end.filled)
                else:
                    await mine.cancel(end.order.client_order_id)
                return
            except grpc.aio.AioRpcError as error:
                assert error.code() in RETRIED, error
                number += 1

    async def goes_on(self, answers: int) -> None:
        """Returns when so many more have been answered."""
        goal = len([c for c in self.history.checked if c.answer]) + answers
        while len([c for c in self.history.checked if c.answer]) < goal:
            self.answered.clear()
            await asyncio.wait_for(self.answered.wait(), 30.0)


@dataclass(frozen=True, slots=True)
class _End:
    order: order_pb2.Order
    filled: float


def answer_of(checked: Checked, verdict: Verdict) -> Answer:
    """What the checker reads of an answer, from what the wire said."""
    decided = Decided(
        time_us=0,
        order=checked.order,
        digest=checked.order.digest,
        action=Action[decision_pb2.Action.Name(verdict.action).removeprefix("ACTION_")],
        reason=Reason(verdict.reason),
        message=verdict.message,
        lots=0,
        allowed_lots=int(verdict.allowed_quantity),
        limit_set="",
        instrument_set="",
        risk_model="",
    )
    return Answer(decided, verdict.sequence, verdict.replayed)


async def test_what_clients_were_told_agrees_with_the_log(machine: Machine) -> None:
    others = [await asyncio.to_thread(machine.add_gateway) for _ in range(2)]
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(desk(machine, "WITNESS", at)) for at in (None, *others)]
        await desks[0].open()
        for one in desks:
            await one.await_model()
        crowd = Crowd(desks)
        agents = asyncio.gather(*(crowd.agent(number) for number in range(AGENTS)))
        try:
            await _trouble(machine, crowd, desks[0])
            await agents
        finally:
            agents.cancel()

        told = len([c for c in crowd.history.checked if c.answer is not None])
        assert told == AGENTS * ORDERS_EACH and crowd.allowed > AGENTS
        encoded, head = await read_encoded(machine, "WITNESS")
        assert objections(encoded, head, crowd.history, BOUND_LOTS) == []
        wrong = msgspec.structs.replace(crowd.history.checked[0].order, client_order_id="never")
        crowd.history.checked[0].order = wrong
        assert objections(encoded, head, crowd.history, BOUND_LOTS), "the check can't fail"


async def _trouble(machine: Machine, crowd: Crowd, operator: Desk) -> None:
    """A gateway frozen and thawed, a stop and a resume, a gateway killed: each while orders are in flight."""
    await crowd.goes_on(2 * AGENTS)
    frozen = machine.send("gateway", signal.SIGSTOP)
    await crowd.goes_on(AGENTS)
    machine.send("gateway", signal.SIGCONT)

    await crowd.goes_on(AGENTS)
    await operator.stop()
    stopped = Stopped(Scope("WITNESS"), TradingState.HALTED, crowd.history.tick())
    crowd.history.stopped.append(stopped)
    await crowd.goes_on(AGENTS)
    stopped.resume_invoked = crowd.history.tick()
    await operator.resume()

    await crowd.goes_on(AGENTS)
    machine.kill("gateway")
    await asyncio.to_thread(machine.await_successor, "gateway", frozen)
    await crowd.goes_on(AGENTS)
