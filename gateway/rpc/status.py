"""The one table from exceptions to gRPC codes, and the guard that applies it to every handler.

A gRPC error means that no decision was made (or that its outcome is unknown, which UNAVAILABLE, DEADLINE_EXCEEDED and
INTERNAL say); a refusal of an order is an OK answer and never comes here. What nobody foresaw reaches the client as
INTERNAL with an id that is in the log, never as its text.
"""

from __future__ import annotations  # grpc's stubs are generic where its classes are not

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from engine.facts import FactError
from engine.instrument import InstrumentError
from engine.proposals import Fault, ProposalRefused
from engine.records import PoisonRecord
from engine.risk.inquiry import InquiryError, Unanswerable
from gateway.errors import (
    AnalyticsAway,
    DeadlinePassed,
    Draining,
    IdReused,
    Overloaded,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    UnknownAccount,
)
from gateway.registry import LimitSetMoved
from gateway.rpc.caller import Denied, Unauthenticated
from gateway.rpc.convert.form import Invalid, Violation
from gateway.rpc.forwarding import Answered
from gateway.stopping import StopIncomplete, StopUnderWay

LOGGER = structlog.get_logger()
DOMAIN = "riskgateway"
OURS = "/riskgateway.v1."
"""Methods that are guarded; health and reflection bring their own errors."""

RETRY_SOON_S = 0.1
"""For what passes by itself: a store that restarts, a queue that drains."""

_TRequest = TypeVar("_TRequest")
_TResponse = TypeVar("_TResponse")
NewId = Callable[[], str]


class SlowReader(Exception):
    """A stream's reader did not take what was sent to it."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"the reader took nothing for {waited_s:g} s and was dropped; subscribe again")


class Unimplemented(Exception):
    """The method is in the contract and has nothing behind it yet."""


_RULES: tuple[tuple[type[Exception], int, str, bool], ...] = (
    # The first that fits: subclasses stand before what they derive from. Last column: trying again soon may help.
    (Invalid, code_pb2.INVALID_ARGUMENT, "MALFORMED", False),
    (FactError, code_pb2.INVALID_ARGUMENT, "FACT_UNUSABLE", False),
    (InquiryError, code_pb2.INVALID_ARGUMENT, "ARGUMENT_UNKNOWN", False),
    (Unanswerable, code_pb2.FAILED_PRECONDITION, "FIGURE_UNEVALUABLE", False),
    (InstrumentError, code_pb2.FAILED_PRECONDITION, "INSTRUMENT_FROZEN", False),
    (ProposalRefused, code_pb2.FAILED_PRECONDITION, "PROPOSAL_REFUSED", False),
    (LimitSetMoved, code_pb2.ABORTED, "LIMIT_SET_MOVED", False),
    (Unauthenticated, code_pb2.UNAUTHENTICATED, "TOKEN_INVALID", False),
    (Denied, code_pb2.PERMISSION_DENIED, "ROLE_MISSING", False),
    (UnknownAccount, code_pb2.NOT_FOUND, "ACCOUNT_UNKNOWN", False),
    (IdReused, code_pb2.ALREADY_EXISTS, "ORDER_ID_REUSED", False),
    (DeadlinePassed, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_PASSED", False),
    (Overloaded, code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL", True),
    (SlowReader, code_pb2.RESOURCE_EXHAUSTED, "READER_SLOW", False),
    (Draining, code_pb2.UNAVAILABLE, "DRAINING", True),
    (AnalyticsAway, code_pb2.UNAVAILABLE, "ANALYTICS_AWAY", True),
    (StopIncomplete, code_pb2.UNAVAILABLE, "STOP_INCOMPLETE", True),
    (StopUnderWay, code_pb2.UNAVAILABLE, "STOP_UNDER_WAY", True),
    (StoreUnavailable, code_pb2.UNAVAILABLE, "STORE_UNAVAILABLE", True),
    (StoreRefused, code_pb2.FAILED_PRECONDITION, "STORE_REFUSED", False),
    (StoreError, code_pb2.UNAVAILABLE, "STORE_UNAVAILABLE", True),
    (PoisonRecord, code_pb2.FAILED_PRECONDITION, "RECORD_UNREADABLE", False),
    (Unimplemented, code_pb2.UNIMPLEMENTED, "UNIMPLEMENTED", False),
)

_PROPOSALS: dict[Fault, tuple[int, str]] = {
    Fault.TWO_PEOPLE: (code_pb2.FAILED_PRECONDITION, "TWO_PEOPLE_NEEDED"),
    Fault.UNNAMED: (code_pb2.PERMISSION_DENIED, "TOKEN_NEEDED"),
    Fault.UNKNOWN: (code_pb2.NOT_FOUND, "PROPOSAL_UNKNOWN"),
    Fault.DECIDED: (code_pb2.FAILED_PRECONDITION, "PROPOSAL_DECIDED"),
    Fault.SAME_PERSON: (code_pb2.PERMISSION_DENIED, "SAME_PERSON"),
    Fault.UNCHANGED: (code_pb2.FAILED_PRECONDITION, "LIMITS_UNCHANGED"),
    Fault.TOO_MANY: (code_pb2.RESOURCE_EXHAUSTED, "PROPOSALS_WAIT"),
}

_WORDS: dict[type[Exception], str] = {
    # Where the exception's own text is for operators: it may name hosts, paths or the contents of a log.
    StoreUnavailable: "the store does not answer; the outcome may be unknown: repeat with the same ids to find out",
    StoreRefused: "the store can't be built on as it is; the gateway's log says why",
    StoreError: "the store does not serve; the outcome may be unknown: repeat with the same ids to find out",
    PoisonRecord: "the account's log holds a record that this release can't read; it serves the account no more",
}


def status_of(error: Exception, new_id: NewId) -> status_pb2.Status:
    """The status that a client gets for an exception. Unforeseen ones are logged under a new id."""
    if isinstance(error, Answered):
        return error.status
    for kind, code, reason, again in _RULES:
        if isinstance(error, kind):
            if isinstance(error, FactError) and error.precondition:
                code, reason = code_pb2.FAILED_PRECONDITION, "FACT_OUT_OF_ORDER"
            if isinstance(error, ProposalRefused):
                code, reason = _PROPOSALS[error.fault]
            if kind in _WORDS:
                LOGGER.warning("request failed", reason=reason, problem=str(error))
            return _status(code, _WORDS.get(kind, str(error)), _details(error, reason, again))
    incident = new_id()
    LOGGER.error("unforeseen failure", incident=incident, exc_info=error)
    message = (
        f"internal error {incident}; the outcome is unknown: ask again with the same id; "
        "the gateway's log names the incident"
    )
    return _status(code_pb2.INTERNAL, message, [_info("INTERNAL", {"incident": incident})])


def _details(error: Exception, reason: str, again: bool) -> list[Message]:
    details: list[Message] = [_info(reason, _metadata(error))]
    violations = _violations(error)
    if violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=problem)
            for field, problem in violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if again:
        delay = Duration()
        delay.FromMilliseconds(int(RETRY_SOON_S * 1_000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _violations(error: Exception) -> tuple[Violation, ...]:
    if isinstance(error, Invalid):
        return error.violations
    if isinstance(error, FactError | InquiryError):
        return ((error.field, error.problem),)
    if isinstance(error, InstrumentError):
        return ((f"instruments.{error.field}", f"{error.symbol}: {error.expected}"),)
    return ()


def _metadata(error: Exception) -> dict[str, str]:
    if isinstance(error, UnknownAccount):
        return {"account": error.account}
    if isinstance(error, IdReused):
        return {"client_order_id": error.client_order_id}
    if isinstance(error, LimitSetMoved):
        return {"limit_set": error.found}
    if isinstance(error, Denied):
        return {"roles": ",".join(sorted(error.needed))}
    if isinstance(error, StopIncomplete):
        return {"partitions": ",".join(map(str, error.missing))}
    return {}


def _info(reason: str, metadata: dict[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


DETAILS_BYTES_MAX = 2_500
MESSAGE_BYTES_MAX = 600
"""Statuses travel in trailers, base64 and per cent encoded, and gRPC limits them to 8 KiB: of many violations the first
are told."""


def _status(code: int, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=_cut(message))
    for detail in details:
        if isinstance(detail, error_details_pb2.BadRequest):
            _shorten(detail)
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return text
    return encoded[:MESSAGE_BYTES_MAX].decode(errors="ignore") + "…"


def _shorten(request: error_details_pb2.BadRequest) -> None:
    while request.ByteSize() > DETAILS_BYTES_MAX and len(request.field_violations) > 1:
        del request.field_violations[len(request.field_violations) // 2 :]


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler of ours. `new_id`: where the ids of incidents come from. `reader_timeout_s`: a stream's
    reader that takes nothing for so long is dropped."""

    def __init__(self, new_id: NewId, reader_timeout_s: float) -> None:
        self._new_id, self._reader_timeout_s = new_id, reader_timeout_s

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_TRequest, _TResponse] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_TRequest, _TResponse] | None:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OURS):
            return handler
        guarded: grpc.RpcMethodHandler[_TRequest, _TResponse] = self._guarded(handler, handler_call_details.method)
        return guarded

    def _guarded(self, handler: Any, method: str) -> Any:
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, method), **serializers)
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, method), **serializers)
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(self._unary(behavior, method), **serializers)

    def _unary(self, behavior: Any, method: str) -> Any:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await _called(behavior, method, request, context)
            except Exception as error:  # noqa: BLE001  - outermost: logged, and answered without its text
                await self._end(error, context)

        return guarded

    def _stream(self, behavior: Any, method: str) -> Any:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            try:
                responses: AsyncGenerator[Any, None] = _called(behavior, method, request, context)
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        await self._write(response, context)
            except Exception as error:  # noqa: BLE001  - outermost: logged, and answered without its text
                await self._end(error, context)

        return guarded

    async def _write(self, response: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """`write` returns before the peer has read, until the windows are full: then it waits, and so does the handler,
        which conflates meanwhile."""
        try:
            await asyncio.wait_for(context.write(response), self._reader_timeout_s)
        except TimeoutError:
            raise SlowReader(self._reader_timeout_s) from None

    async def _end(self, error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """CancelledError is no Exception, so it passes by the guard and on to gRPC, as it must."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if context.done():
            raise asyncio.CancelledError from error
        await context.abort_with_status(rpc_status.to_status(status_of(error, self._new_id)))


def _called(behavior: Any, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The generated base classes raise NotImplementedError where nothing is implemented."""
    try:
        return behavior(request, context)
    except NotImplementedError as error:
        raise Unimplemented(f"{method.rpartition('/')[2]} is not served on this port by this release") from error
