"""Dialling the gateway, and what its errors mean to a person.

The one place of the command line that makes channels and stubs, sends the token, and translates gRPC errors into
`Failure`s: one sentence, the fields at fault, what to do. Imported inside commands only, since grpc is slow to load.
"""

from __future__ import annotations  # grpc's callables are generic for type checkers only

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from gateway.cli.exits import ExitCode, Failure
from gateway.cli.screen import note
from riskgateway.v1 import (
    risk_admin_pb2_grpc,
    risk_analytics_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
)

CALL_TIMEOUT_S = 5.0
"""Well over the server's own default of 1 s, so that its answer, and not our patience, says what went wrong."""
STOP_TIMEOUT_S = 10.0
"""The longest deadline a gateway accepts by default: a stop that waits is worth waiting for."""

CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy set for the web would swallow even loopback
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # a risk state may list thousands of orders
)

STREAM_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
"""A new channel then really connects anew, at once, and not when the back-off of an earlier one ends."""
SILENCE_S = 5.0

EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.MALFORMED,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.MALFORMED,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.MALFORMED,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.MALFORMED,
    grpc.StatusCode.ABORTED: ExitCode.TRY_AGAIN,
    grpc.StatusCode.NOT_FOUND: ExitCode.UNKNOWN_ACCOUNT,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.TRY_AGAIN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.TRY_AGAIN,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.NOT_PERMITTED,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.NOT_PERMITTED,
}
"""Every other code is ExitCode.DEFECT."""
OUTCOME_UNKNOWN = (ExitCode.UNAVAILABLE, ExitCode.TRY_AGAIN, ExitCode.DEFECT)

HINTS = {
    grpc.StatusCode.ALREADY_EXISTS: "An id stands for one order for ever: choose another with --id.",
    grpc.StatusCode.NOT_FOUND: "Open it with: risk-gateway open-account NAME --cash 1000000",
    grpc.StatusCode.ABORTED: "Somebody else changed it meanwhile. Look at it again: risk-gateway limits show.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "The outcome is unknown. Repeat it with the same ids to find out.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "Repeat it in a moment, with the same ids.",
    grpc.StatusCode.UNAUTHENTICATED: "Put the caller's token in RISK_GATEWAY_TOKEN.",
    grpc.StatusCode.PERMISSION_DENIED: "Use the token of a caller with that role, in RISK_GATEWAY_TOKEN.",
    grpc.StatusCode.UNIMPLEMENTED: "Is it the other port, or a gateway of another release, that answers there?",
}
NOBODY_LISTENS = "failed to connect to all addresses"  # how gRPC's core says so; no code or field tells it apart


class FailedCall(Protocol):
    """What a failed call tells of itself; grpc.RpcError, which it is raised as, declares nothing."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """An open channel to one port. Calls need `metadata=connection.metadata` and a timeout."""

    address: str
    metadata: tuple[tuple[str, str], ...]
    gateway: risk_gateway_pb2_grpc.RiskGatewayStub
    admin: risk_admin_pb2_grpc.RiskAdminStub
    analytics: risk_analytics_pb2_grpc.RiskAnalyticsStub
    health: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


@contextmanager
def connected(address: str, token: str) -> Iterator[Connection]:
    """A connection to HOST:PORT or unix:PATH. Failed calls within leave it as Failure."""
    _check_address(address)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            yield Connection(
                address,
                metadata,
                risk_gateway_pb2_grpc.RiskGatewayStub(channel),
                risk_admin_pb2_grpc.RiskAdminStub(channel),
                risk_analytics_pb2_grpc.RiskAnalyticsStub(channel),
                channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    health_pb2.HealthCheckRequest.SerializeToString,
                    health_pb2.HealthCheckResponse.FromString,
                ),
            )
        except grpc.RpcError as error:
            raise failure_of(error, address) from error


async def risk_state_updates(
    address: str, token: str, accounts: Sequence[str]
) -> AsyncGenerator[risk_gateway_pb2.RiskStateUpdate, None]:
    """What StreamRiskState sends, on a channel of its own, until the server ends it. Close it when done.

    Raises Failure where the stream breaks, and where nothing is heard of it for SILENCE_S: it has a heartbeat each
    second, so a connection that is silent longer is dead, whatever it looks like.
    """
    _check_address(address)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with grpc.aio.insecure_channel(address, options=STREAM_OPTIONS) as channel:
        stub: risk_gateway_pb2_grpc.RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(channel)
        request = risk_gateway_pb2.StreamRiskStateRequest(accounts=accounts)
        call = stub.StreamRiskState(request, metadata=metadata)
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    update = await call.read()
                if not isinstance(update, risk_gateway_pb2.RiskStateUpdate):
                    return  # the end of the stream
                yield update
        except grpc.RpcError as error:
            raise failure_of(error, address) from error
        except TimeoutError as error:
            raise Failure(f"{address} fell silent for {SILENCE_S:g} s", ExitCode.UNAVAILABLE) from error
        finally:
            call.cancel()


def serving_status(address: str, token: str) -> str:
    """SERVING, or whatever else the port says of its health. Raises Failure when nobody answers."""
    with connected(address, token) as connection:
        request = health_pb2.HealthCheckRequest()
        response = connection.health(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Tells the made-up id of a request whose outcome is unknown, so that it can be sent again and not twice."""
    try:
        yield
    except (Failure, KeyboardInterrupt) as ending:
        if isinstance(ending, KeyboardInterrupt) or ending.exit_code in OUTCOME_UNKNOWN:
            note(f"sent with {what}")
        raise


def failure_of(error: grpc.RpcError, address: str) -> Failure:
    """What a failed call means, with the fields that its google.rpc details name."""
    call = cast(FailedCall, error)
    code, said = call.code(), call.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and said.startswith(NOBODY_LISTENS):
        return Failure(
            f"nobody answers at {address}",
            ExitCode.UNAVAILABLE,
            hint="Start a gateway with risk-gateway serve, or tell where it is: --address or RISK_GATEWAY_ADDRESS"
            " (control port: --control or RISK_GATEWAY_CONTROL).",
        )
    exit_code = EXIT_CODES.get(code, ExitCode.DEFECT)
    violations = tuple(violation for violation in _violations(error) if violation != said)
    return Failure(_sentence(code, said, address), exit_code, violations, HINTS.get(code, ""))


def _sentence(code: grpc.StatusCode, said: str, address: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"{address} can't serve now: {said}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{address} did not answer in time"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{address} doesn't know this call: {said}"
    return said or f"{address} answered {code.name} without saying why"


def _violations(error: grpc.RpcError) -> tuple[str, ...]:
    """Each field with what is wrong with it, from the BadRequest in the details; nothing where there is none."""
    status = rpc_status.from_call(cast(grpc.Call, error))
    found: list[str] = []
    for detail in status.details if status is not None else ():
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            found += [f"{violation.field}: {violation.description}" for violation in bad_request.field_violations]
    return tuple(found)


def _check_address(address: str) -> None:
    port = address.rpartition(":")[2]
    if not (port.isdecimal() or address.startswith("unix:")):
        raise Failure(f"{address!r} is no address; expected HOST:PORT", ExitCode.USAGE)
