"""RiskAnalytics as gateway and control serve it: each call is the worker's to answer, and is passed on to it.

The caller is admitted here and named to the worker; the deadline goes along, and an error comes back as the worker gave
it, details included. Who waits for a worker holds up nobody: a bounded number of calls waits, and orders never do.
"""

from functools import partial
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from gateway.errors import AnalyticsAway, DeadlinePassed, Overloaded
from gateway.rpc.analysts import HEADER, Analysts, Lines, passed_caller
from gateway.rpc.backend import Backend, Context
from riskgateway.v1 import risk_analytics_pb2, risk_analytics_pb2_grpc

WAITING_MAX = 64
"""Calls that wait for a worker at once: it answers few at a time, and what waits holds memory here."""

ANSWER_BYTES_MAX = 32 * 1024 * 1024
SLACK_S = 0.05
"""Of the caller's deadline, for telling it in our words that it has passed."""

LINE_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy set for the web would swallow even loopback
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
)
START_ONE = "start one with risk-gateway serve, or serve --role worker"


class Answered(Exception):
    """The worker has answered with an error. `status` is what the caller gets."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class _Unreachable(Exception):
    """Nobody there, or the connection broke: the next worker may be asked."""


METHODS = tuple(method.name for method in risk_analytics_pb2.DESCRIPTOR.services_by_name["RiskAnalytics"].methods)
"""All of the service, unary each: which of them the worker has is its own to say."""


class Forwarding(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    """See the module. `aclose` at the end."""

    def __init__(self, backend: Backend, waiting_max: int = WAITING_MAX) -> None:
        self._backend = backend
        self._analysts = Analysts(backend.log.bulletin, backend.accounts.clock, backend.approvals)
        self._lines = Lines(LINE_OPTIONS)
        self._waiting, self._waiting_max = 0, waiting_max
        for method in METHODS:
            setattr(self, method, partial(self.forward, method))

    async def forward(self, method: str, request: Message, context: Context) -> Any:
        """The worker's answer. Raises Answered, AnalyticsAway, DeadlinePassed, Overloaded, Unauthenticated."""
        caller = self._backend.admit(context)
        if self._waiting >= self._waiting_max:
            raise Overloaded(f"{self._waiting} calls wait for the worker already; ask again in a moment")
        clock = self._backend.accounts.clock
        until_us = clock.now_us() + self._allowed_us(context)
        metadata = ((HEADER, passed_caller(caller, method, clock.now_us(), self._backend.approvals)),)
        self._waiting += 1
        try:
            return await self._ask_each(method, request, metadata, until_us)
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        await self._lines.aclose()

    def _allowed_us(self, context: Context) -> int:
        """Without a deadline the longest: a figure is not an order."""
        deadlines = self._backend.deadlines
        return deadlines.max_us if context.time_remaining() is None else deadlines.allowed_us(context)

    async def _ask_each(
        self, method: str, request: Message, metadata: tuple[tuple[str, bytes], ...], until_us: int
    ) -> Any:
        """The worker heard of last first; where it can't be reached, the others, and whoever has come up since.
        Nothing is changed by asking twice."""
        tried: set[str] = set()
        for anew in (False, True):
            known = await self._analysts.addresses(anew)
            for address in [address for address in known if address not in tried]:
                tried.add(address)
                channel = await self._lines.to(address, known)
                try:
                    return await self._ask(channel, method, request, metadata, until_us)
                except _Unreachable:
                    continue
        raise AnalyticsAway(self._why_away(len(tried)))

    def _why_away(self, tried: int) -> str:
        if tried:
            return f"no worker answers, {tried} tried: it is restarting or ended; ask again, or {START_ONE}"
        if self._analysts.strangers:
            return "the worker seals with another approval key: give gateways and workers the same approval.key_file"
        return f"no worker answers questions: one that has just started does in some seconds, else {START_ONE}"

    async def _ask(
        self,
        channel: grpc.aio.Channel,
        method: str,
        request: Message,
        metadata: tuple[tuple[str, bytes], ...],
        until_us: int,
    ) -> Any:
        remaining_s = (until_us - self._backend.accounts.clock.now_us()) / 1e6 - SLACK_S
        if remaining_s <= 0:
            raise DeadlinePassed("no time was left to ask the worker; ask again with a longer deadline")
        call = getattr(risk_analytics_pb2_grpc.RiskAnalyticsStub(channel), method)
        try:
            return await call(request, timeout=remaining_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error


def _translated(error: grpc.aio.AioRpcError) -> Exception:
    status = _status_in(error)
    if status is not None:
        return Answered(status)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return _Unreachable(error.details())
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlinePassed("the worker has not answered by the deadline; ask again with a longer one")
    return Answered(status_pb2.Status(code=error.code().value[0], message=error.details() or ""))


def _status_in(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """What the worker gave; None where gRPC itself ended the call."""
    try:
        return rpc_status.from_call(cast(grpc.Call, error))
    except (ValueError, DecodeError):
        return None
