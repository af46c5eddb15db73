"""A relay between a client and a real gateway that can be told to fail: a gRPC server of its own on a unix socket.

It passes bytes on and knows no message. Unary calls take the next of the faults that were set for their method;
streams can be cut, and be made to say nothing.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from riskgateway.v1 import risk_gateway_pb2

PREFIX = "/riskgateway.v1.RiskGateway/"
DETAILS = "grpc-status-details-bin"
METHODS = risk_gateway_pb2.DESCRIPTOR.services_by_name["RiskGateway"].methods_by_name


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers with an error and asks nobody."""

    code: grpc.StatusCode
    reason: str = ""
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LoseReply:
    """Passes the call on and answers with an error in place of the reply: what the client asked for has happened."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Hold:
    """Passes the call on and keeps the reply until released."""

    replied: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Hang:
    """Asks nobody and never answers."""


Fault = Refuse | LoseReply | Hold | Hang


class Relay:
    """See the module. Made by `relaying`."""

    def __init__(self, target: grpc.aio.Channel, address: str) -> None:
        self._target, self.address = target, address
        self._faults: dict[str, deque[Fault]] = {}
        self._streams: set[Any] = set()
        self._cut: set[Any] = set()
        self.calls: list[tuple[str, bytes, float]] = []
        """(method, request, when it came on the loop's clock) of every unary call that came."""
        self.allowed_s: list[float] = []
        """How long the client gave each of them."""
        self.dialled: list[str] = []
        """The method of every stream that came."""
        self.metadata: list[dict[str, str | bytes]] = []
        self.mute = False
        """Streams dialled from now on say nothing."""

    def fail(self, method: str, *faults: Fault) -> None:
        """The next calls of the method meet these, one each."""
        self._faults.setdefault(method, deque()).extend(faults)

    def heal(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

    def requests(self, method: str) -> list[bytes]:
        return [request for name, request, _ in self.calls if name == method]

    def cut(self) -> None:
        """Ends every stream that is open, as a gateway that dies does."""
        for call in list(self._streams):
            self._cut.add(call)
            call.cancel()

    def handler(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        if not details.method.startswith(PREFIX):
            return None
        name = details.method.removeprefix(PREFIX)
        if not METHODS[name].server_streaming:
            return grpc.unary_unary_rpc_method_handler(partial(self._unary, name))
        if METHODS[name].client_streaming:
            return grpc.stream_stream_rpc_method_handler(partial(self._both, name))
        return grpc.unary_stream_rpc_method_handler(partial(self._down, name))

    async def _unary(self, name: str, request: bytes, context: Any) -> bytes:
        self.calls.append((name, request, asyncio.get_running_loop().time()))
        self.allowed_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        faults = self._faults.get(name)
        fault = faults.popleft() if faults else None
        if isinstance(fault, Refuse):
            await _refuse(fault, context)
        if isinstance(fault, Hang):
            await asyncio.Event().wait()
        try:
            ask: Any = self._target.unary_unary(PREFIX + name)
            reply: bytes = await ask(request, timeout=8.0)
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)
        if isinstance(fault, LoseReply):
            await context.abort(fault.code, "the reply was lost")
        if isinstance(fault, Hold):
            fault.replied.set()
            await fault.release.wait()
        return reply

    async def _down(self, name: str, request: bytes, context: Any) -> AsyncIterator[bytes]:
        open_to: Any = self._target.unary_stream(PREFIX + name)
        async for message in self._passed(name, open_to(request), context):
            yield message

    async def _both(self, name: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        open_to: Any = self._target.stream_stream(PREFIX + name)
        async for message in self._passed(name, open_to(requests), context):
            yield message

    async def _passed(self, name: str, call: Any, context: Any) -> AsyncIterator[bytes]:
        self.dialled.append(name)
        faults = self._faults.get(name)
        fault = faults.popleft() if faults else None
        if isinstance(fault, Refuse):
            await _refuse(fault, context)
        self._streams.add(call)
        muted = self.mute
        try:
            async for message in call:
                if not muted:
                    yield message
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)
        except asyncio.CancelledError:
            if call not in self._cut:
                raise
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was cut")
        finally:
            self._streams.discard(call)
            call.cancel()


async def _pass_on(error: grpc.aio.AioRpcError, context: Any) -> None:
    trailer = tuple(entry for entry in error.trailing_metadata() or () if entry[0] == DETAILS)
    await context.abort(error.code(), error.details() or "", trailer)


async def _refuse(fault: Refuse, context: Any) -> None:
    status = status_of(fault.code.value[0], "refused by the relay", fault.reason, fault.retry_ms)
    await context.abort(fault.code, "refused by the relay", ((DETAILS, status.SerializeToString()),))


def status_of(
    code: int, message: str, reason: str = "", retry_ms: int | None = None, fields: tuple[tuple[str, str], ...] = ()
) -> status_pb2.Status:
    """A status with details as the gateway packs them."""
    status = status_pb2.Status(code=code, message=message)
    for detail in _details(reason, retry_ms, fields):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(reason: str, retry_ms: int | None, fields: tuple[tuple[str, str], ...]) -> Iterator[Any]:
    if reason:
        yield error_details_pb2.ErrorInfo(reason=reason, domain="riskgateway")
    if fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        yield error_details_pb2.BadRequest(field_violations=[violation(field=f, description=d) for f, d in fields])
    if retry_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(retry_ms)
        yield error_details_pb2.RetryInfo(retry_delay=delay)


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        return self._relay.handler(handler_call_details)


@contextlib.asynccontextmanager
async def relaying(target: grpc.aio.Channel, folder: Path) -> AsyncIterator[Relay]:
    """A relay to whatever `target` connects to."""
    relay = Relay(target, f"unix:{folder / 'relay'}")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Everything(relay),))
    server.add_insecure_port(relay.address)
    await server.start()
    yield relay
    await server.stop(0.0)
