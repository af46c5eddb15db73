"""A crowd of clients in a process of its own, so that what is measured beside it does not share its event loop.

`python -m tests.benchmarks.load GATEWAY ACCOUNT IN_FLIGHT COUNT` checks COUNT orders (0: until stdin closes), so many
at a time; without an account it calls the health service instead. Prints a line when well under way, and at the end one
of JSON: seconds taken, latencies in microseconds, answers by action. What was approved is reported as not sent, after
COUNT orders or, without one, again and again, so that the account's open orders stay few. It runs at a lower priority:
it stands for other machines, and must not take the cores from what is measured.
"""

import asyncio
import itertools
import json
import os
import sys
import time
import uuid
from collections import Counter
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from riskgateway.v1 import decision_pb2, execution_pb2, risk_gateway_pb2
from tests.e2e.desk import BUY, SELL, TIMEOUT_S, Desk

RELEASED_TOGETHER = 64


class Crowd:
    """So many agents, each with one order at a time."""

    def __init__(self, desk: Desk, count: int) -> None:
        self._desk = desk
        self._releases = not count
        self._numbers = iter(range(count)) if count else itertools.count()
        self._unsent: list[str] = []
        self.ending = False
        self.latencies_us: list[int] = []
        self.actions: Counter[str] = Counter()

    async def agent(self) -> None:
        for number in self._numbers:
            order = self._desk.order("XOM", SELL if number % 2 else BUY, 1.0)
            asked_ns = time.perf_counter_ns()
            verdict = await self._desk.check(order)
            if len(self.latencies_us) == RELEASED_TOGETHER:
                print("under way", flush=True)
            self.latencies_us.append((time.perf_counter_ns() - asked_ns) // 1_000)
            self.actions[decision_pb2.Action.Name(verdict.action)] += 1
            if verdict.allowed:
                self._unsent.append(order.client_order_id)
            if self._releases and len(self._unsent) >= RELEASED_TOGETHER:
                await self.release()
            if self.ending:
                return

    async def caller(self, health: Any) -> None:
        """The same with calls that do nothing."""
        for _ in self._numbers:
            asked_ns = time.perf_counter_ns()
            await health.Check(health_pb2.HealthCheckRequest())
            self.latencies_us.append((time.perf_counter_ns() - asked_ns) // 1_000)

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    async def release(self) -> None:
        unsent, self._unsent = self._unsent[:RELEASED_TOGETHER], self._unsent[RELEASED_TOGETHER:]
        reports = [
            execution_pb2.Execution(
                account=self._desk.account,
                execution_id=uuid.uuid4().hex,
                client_order_id=client_order_id,
                kind=execution_pb2.EXECUTION_KIND_NOT_SENT,
            )
            for client_order_id in unsent
        ]
        if reports:
            request = risk_gateway_pb2.ReportExecutionRequest(executions=reports)
            await self._desk.gateway.ReportExecution(request, timeout=TIMEOUT_S)


async def main(gateway: str, account: str, in_flight: int, count: int) -> None:
    async with grpc.aio.insecure_channel(gateway) as channel:
        crowd = Crowd(Desk(account, channel, channel), count)
        started_s = time.perf_counter()
        health = health_pb2_grpc.HealthStub(channel)
        agents = asyncio.gather(*(crowd.agent() if account else crowd.caller(health) for _ in range(in_flight)))
        if not count:
            await asyncio.to_thread(sys.stdin.read)
            crowd.ending = True
        await agents
        took_s = time.perf_counter() - started_s
        while crowd.unsent:
            await crowd.release()
        print(json.dumps({"took_s": took_s, "latencies_us": crowd.latencies_us, "actions": crowd.actions}))


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
