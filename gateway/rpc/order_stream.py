"""CheckOrderStream: orders in, decisions out in the same order, many of them under way at once.

A reader submits each order as it comes, and stops reading while IN_FLIGHT_MAX of them are unanswered: what a client
sends too much then waits in its own windows. The stream ends when the client has nothing more to ask, at the first
request that fails, or when the server drains; in each case after the answers to what came before. A client that goes
away ends the waiting only: what was submitted is decided and recorded all the same.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any

from gateway.errors import Draining
from gateway.rpc.backend import Backend
from gateway.tasks import ended
from riskgateway.v1 import risk_gateway_pb2

IN_FLIGHT_MAX = 256
"""Orders of one stream that are read and not answered: four full batches of an account. More would only wait longer."""

Requests = AsyncIterable[risk_gateway_pb2.CheckOrderRequest]
Answering = Coroutine[Any, Any, risk_gateway_pb2.CheckOrderResponse]
Submit = Callable[[risk_gateway_pb2.CheckOrderRequest, int], Answering]
"""(request, its index) → the decision on its way. Raises where the request is not to be decided."""


class OrderStream:
    """One client's stream."""

    def __init__(self, backend: Backend, submit: Submit) -> None:
        self._backend, self._submit = backend, submit
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._in_flight: set[asyncio.Task[risk_gateway_pb2.CheckOrderResponse]] = set()
        self._in_order: asyncio.Queue[asyncio.Task[risk_gateway_pb2.CheckOrderResponse] | None] = asyncio.Queue()
        """Those in flight as they were asked for; None comes last, when the reader has ended."""

    async def answers(self, requests: Requests) -> AsyncGenerator[risk_gateway_pb2.CheckOrderResponse, None]:
        """Raises Draining when the server drains, and whatever the first request that fails raised."""
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._in_order.put_nowait(None))
        drained = asyncio.create_task(self._backend.draining.wait())
        drained.add_done_callback(lambda _: reader.cancel())
        self._backend.streams.add(self)
        try:
            while (deciding := await self._in_order.get()) is not None:
                yield await deciding
                self._in_flight.discard(deciding)
                self._room.release()
            if reader.cancelled():
                raise Draining("the server is shutting down; send what was not answered to another, with the same ids")
            reader.result()
        finally:
            self._backend.streams.discard(self)
            await ended({reader, drained, *self._in_flight})

    @property
    def in_flight(self) -> int:
        """How many orders are submitted and not answered."""
        return len(self._in_flight)

    async def _read(self, requests: Requests) -> None:
        index = 0
        async for request in requests:
            await self._room.acquire()
            deciding = asyncio.create_task(self._submit(request, index))
            self._in_flight.add(deciding)
            self._in_order.put_nowait(deciding)
            index += 1
