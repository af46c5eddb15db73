"""PublishMarks: latest prices, for as long as a feed's stream lives. Served on the gateway's port and on control's."""

from collections.abc import AsyncIterator

from gateway.rpc.backend import Backend, Context
from gateway.rpc.convert import requests
from riskgateway.v1 import instrument_pb2, risk_admin_pb2, risk_admin_pb2_grpc

REFUSED_TOLD_MAX = 1_000


class Marks(risk_admin_pb2_grpc.RiskAdminServicer):
    """RiskAdmin as the gateway's port serves it: the feed of marks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def PublishMarks(
        self, request_iterator: AsyncIterator[risk_admin_pb2.PublishMarksRequest], context: Context
    ) -> risk_admin_pb2.PublishMarksResponse:
        self._backend.admit(context, "feed")
        response = risk_admin_pb2.PublishMarksResponse()
        async for request in request_iterator:
            requests.need_marks(request)
            for mark in request.marks:
                self._offer(mark, response)
        quotes = self._backend.accounts.quotes
        await self._backend.kept(quotes.flush(), self._backend.deadlines.allowed_us(context))
        return response

    def _offer(self, mark: instrument_pb2.Mark, response: risk_admin_pb2.PublishMarksResponse) -> None:
        now_us = self._backend.accounts.clock.now_us()
        quote = requests.quote_of(mark, now_us)
        problem = quote if isinstance(quote, str) else self._backend.accounts.quotes.offer(quote, now_us)
        if problem is None:
            response.accepted += 1
            return
        response.refused_count += 1
        if len(response.refused) < REFUSED_TOLD_MAX:
            response.refused.append(risk_admin_pb2.RefusedMark(symbol=mark.symbol[:64], message=problem))
