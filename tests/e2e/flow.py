"""Order flow: many agents at once that ask, trade what they are allowed, and ask again when nobody answers.

A client's view only. What was answered is kept, so that a test can hold it against the log afterwards.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Self

import grpc

from riskgateway.v1 import execution_pb2, order_pb2, risk_gateway_pb2
from tests.e2e.desk import BUY, SELL, Desk, Verdict

PROGRESS_S = 40.0  # through a death and a start of everything


class OrderFlow:
    """`async with`: agents that trade one lot of XOM at a time, to and fro, in a strategy of their own."""

    def __init__(self, desk: Desk, agents: int = 16) -> None:
        self._desk = desk
        self._agents = agents
        self._ids = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False
        self._progress = asyncio.Condition()
        self.answers: list[tuple[order_pb2.Order, Verdict]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._trade(agent)) for agent in range(self._agents)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Ends when each agent has the answer that it is waiting for."""
        self._ending = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    async def answered(self, more: int) -> None:
        """Returns when so many more answers have come. Raises what an agent failed with."""
        goal = len(self.answers) + more
        reached = asyncio.create_task(self._reach(goal))
        try:
            done, _ = await asyncio.wait(
                {reached, *self._tasks}, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED
            )
            assert done, f"no {more} answers in {PROGRESS_S:g} s"
            for task in done:
                task.result()
        finally:
            reached.cancel()

    async def _reach(self, goal: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.answers) >= goal)

    async def _trade(self, agent: int) -> None:
        side = BUY if agent % 2 else SELL
        while not self._ending:
            order = self._desk.order(
                "XOM", side, 1.0, client_order_id=f"flow-{next(self._ids)}", strategy=f"agent-{agent}"
            )
            verdict = await self._desk.insist(order)
            async with self._progress:
                self.answers.append((order, verdict))
                self._progress.notify_all()
            if verdict.allowed:
                await self._report(order, agent)
                side = SELL if side == BUY else BUY

    async def _report(self, order: order_pb2.Order, agent: int) -> None:
        """Every third order is cancelled unfilled, the others fill."""
        fills = agent % 3 > 0
        execution = execution_pb2.Execution(
            account=order.account,
            execution_id=f"x-{order.client_order_id}",
            client_order_id=order.client_order_id,
            kind=execution_pb2.EXECUTION_KIND_FILL if fills else execution_pb2.EXECUTION_KIND_CANCELLED,
            last_quantity=1.0 if fills else 0.0,
            last_price=order.limit_price if fills else 0.0,
            cumulative_quantity=1.0 if fills else 0.0,
        )
        request = risk_gateway_pb2.ReportExecutionRequest(executions=[execution])
        while True:
            try:
                await self._desk.gateway.ReportExecution(request, timeout=2.0, wait_for_ready=True)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
