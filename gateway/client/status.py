"""What a failed call tells of itself: its code, its sentence, and the google.rpc details in its trailer.

The details are read with protobuf alone: their messages are described here, in a pool of their own, because the package
that holds them is not among what the client installs. Details that can't be read are left out, never an error.
"""

from __future__ import annotations  # grpc's callables are generic for type checkers only

from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

DETAILS_KEY = "grpc-status-details-bin"
NOBODY_LISTENS = "failed to connect to all addresses"
NO_SUCH_HOST = ("errors resolving ", "DNS resolution failed for ")
"""How gRPC's core says that nothing was sent; no code or field tells it apart."""
CLIENT_CLOSED = "CLIENT_CLOSED"
"""Reason of a failure that is our own: there was no channel left to send anything on."""

_PACKAGE = "google.rpc"
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    # Field name, number, type: a trailing * is repeated. As in google/rpc/status.proto and error_details.proto, with
    # google.protobuf.Any and Duration by their wire shapes.
    "Packed": (("type_url", 1, "string"), ("value", 2, "bytes")),
    "Span": (("seconds", 1, "int64"), ("nanos", 2, "int32")),
    "Violation": (("field", 1, "string"), ("description", 2, "string")),
    "Status": (("code", 1, "int32"), ("message", 2, "string"), ("details", 3, "Packed*")),
    "BadRequest": (("field_violations", 1, "Violation*"),),
    "ErrorInfo": (("reason", 1, "string"), ("domain", 2, "string")),
    "RetryInfo": (("retry_delay", 1, "Span"),),
}
_SCALARS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt at a call."""

    code: grpc.StatusCode
    said: str
    reason: str = ""
    """The gateway's word for it; empty: it did not come from the gateway's own code."""
    fields: tuple[tuple[str, str], ...] = ()
    retry_s: float | None = None
    """How long the gateway asks to wait; None: it does not say."""

    @property
    def never_sent(self) -> bool:
        """Nobody was there to send it to."""
        if self.reason == CLIENT_CLOSED:
            return True
        return self.code is grpc.StatusCode.UNAVAILABLE and self.said.startswith((NOBODY_LISTENS, *NO_SUCH_HOST))


CLOSED = Failure(grpc.StatusCode.FAILED_PRECONDITION, "the client is closed", CLIENT_CLOSED)


class FailedCall(Protocol):
    """What both of gRPC's kinds of error have; grpc.RpcError itself declares nothing."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Any: ...


def failure_of(error: grpc.RpcError) -> Failure:
    call = cast(FailedCall, error)
    trailer = dict(call.trailing_metadata() or ())
    return read_details(call.code(), call.details() or "", trailer.get(DETAILS_KEY, b""))


def read_details(code: grpc.StatusCode, said: str, packed: bytes) -> Failure:
    """`packed`: a google.rpc.Status as it travels; what can't be read of it is left out."""
    try:
        found = {_name(detail): detail.value for detail in _TYPES["Status"].FromString(packed).details}
        bad = _TYPES["BadRequest"].FromString(found.get("BadRequest", b""))
        info = _TYPES["ErrorInfo"].FromString(found.get("ErrorInfo", b""))
        retry = _TYPES["RetryInfo"].FromString(found["RetryInfo"]) if "RetryInfo" in found else None
    except DecodeError:
        return Failure(code, said)
    return Failure(
        code,
        said,
        info.reason,
        tuple((violation.field, violation.description) for violation in bad.field_violations),
        retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if retry is not None else None,
    )


def _name(detail: Any) -> str:
    return str(detail.type_url).rpartition(f"/{_PACKAGE}.")[2]


def _types() -> dict[str, Any]:
    file = FileDescriptorProto(name="riskgateway/client/details.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            singular = kind.removesuffix("*")
            repeated = singular != kind
            label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            described = message.field.add(name=field, number=number, label=label)
            if singular in _SCALARS:
                described.type = _SCALARS[singular]
            else:
                described.type = FieldDescriptorProto.TYPE_MESSAGE
                described.type_name = f".{_PACKAGE}.{singular}"
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_TYPES = _types()
