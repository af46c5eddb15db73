"""The other processes that take stops, and telling them of one without the store.

Each announces its address in the bulletin every second and remembers who else did, so that one which is cut off from
the store still knows where the others are. A stop is passed on as a StopAll with a header that a holder of the approval
key has sealed: no caller's token leaves this process, and what was passed on is never passed on again.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import cast

import grpc.aio
import msgspec
import structlog
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.control import Scope, TradingState
from gateway.clock import StoreClock
from gateway.config import ServerSettings
from gateway.errors import StoreError
from gateway.log.bulletin import Bulletin
from gateway.pending_stops import PendingStop
from gateway.rpc.approval import Approvals
from gateway.rpc.caller import Unauthenticated
from gateway.rpc.convert import requests, responses
from gateway.stopping import partitions_of
from gateway.tasks import ended
from riskgateway.v1 import risk_gateway_pb2, risk_gateway_pb2_grpc

LOGGER = structlog.get_logger()
HEADER = "x-risk-forwarded-stop-bin"
PURPOSE = b"forwarded stop"

ANNOUNCE_S = 1.0
FORGOTTEN_US = 30_000_000
"""Who was not heard of for so long is told no more: it ended, or it can't approve anything either."""

TELL_S = 5.0
"""A gateway that is starting again meanwhile is told too."""
ANSWER_S = 0.4
"""So long the caller of an incomplete stop waits to hear how many were told: with the store's time-outs before it, less
than the default deadline."""

WILDCARDS = ("", "0.0.0.0", "::", "[::]")
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy set for the web would swallow even loopback
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class _Passed(msgspec.Struct, frozen=True):
    """The header: what a StopAll does not say of a stop, and the seal over all of it."""

    id: str
    actor: str
    rank: int
    time_us: int
    since_epoch: int
    seal: bytes


def pass_on(stop: PendingStop, approvals: Approvals) -> tuple[risk_gateway_pb2.StopAllRequest, bytes]:
    """(the request, the header's value) that tell another gateway of a stop."""
    request = risk_gateway_pb2.StopAllRequest(
        account=stop.scope.account,
        strategy=stop.scope.strategy,
        symbol=stop.scope.symbol,
        algo=stop.scope.algo,
        trader=stop.scope.trader,
        desk=stop.scope.desk,
        mode=responses.trading_state(stop.state),
        reason=stop.reason,
        flatten=stop.flatten,
    )
    whole = _whole(stop, *requests.stop_of(request), request.flatten)
    seal = approvals.seal(PURPOSE, msgspec.json.encode(whole))
    passed = _Passed(stop.id, stop.actor, stop.rank, stop.time_us, stop.since_epoch, seal)
    return request, msgspec.json.encode(passed)


def forwarded(
    request: risk_gateway_pb2.StopAllRequest, metadata: Iterable[tuple[str, str | bytes]], approvals: Approvals
) -> PendingStop | None:
    """The stop that another gateway passed on; None where a client asks for one. Raises Unauthenticated."""
    header = dict(metadata).get(HEADER)
    if header is None:
        return None
    try:
        passed = msgspec.json.decode(header, type=_Passed)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Unauthenticated(f"the header {HEADER} is for gateways among themselves: leave it out") from error
    whole = _whole(passed, *requests.stop_of(request), request.flatten)
    if not approvals.sealed(PURPOSE, msgspec.json.encode(whole), passed.seal):
        raise Unauthenticated("a stop was passed on by a gateway with another approval key: give all the same key_file")
    return whole


def _whole(stop: PendingStop | _Passed, scope: Scope, state: TradingState, reason: str, flatten: bool) -> PendingStop:
    missing = partitions_of(scope)
    return PendingStop(
        stop.id, scope, state, reason, stop.actor, stop.rank, missing, stop.time_us, stop.since_epoch, flatten
    )


def reachable_host(server: ServerSettings) -> str:
    """Where other machines reach this one; empty where it listens everywhere and nobody said by which name."""
    return server.advertised_host or ("" if server.host in WILDCARDS else server.host)


def others(server: ServerSettings, is_supervised: bool) -> frozenset[str]:
    """The addresses that the configuration tells of: the peers, and both ports of a supervised machine."""
    host = reachable_host(server) or "127.0.0.1"
    own = (server.gateway_port, server.control_port) if is_supervised else ()
    return frozenset({*server.peers, *(f"{host}:{port}" for port in own)})


class Peers:
    """See the module. `start` once it is known where this process is reached, `aclose` at the end."""

    def __init__(self, bulletin: Bulletin, clock: StoreClock, approvals: Approvals) -> None:
        self._bulletin, self._clock, self._approvals = bulletin, clock, approvals
        self._own = ""
        self._configured: frozenset[str] = frozenset()
        self._announced: frozenset[str] = frozenset()
        self._announcing: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[bool]] = set()

    @property
    def known(self) -> frozenset[str]:
        """Every other process that takes stops, as last heard."""
        return (self._configured | self._announced) - {self._own}

    def start(self, host: str, port: int, configured: Iterable[str] = ()) -> None:
        """Be found at host:port; without a host, only find the others."""
        self._own, self._configured = f"{host or '127.0.0.1'}:{port}", frozenset(configured)
        if not host:
            LOGGER.warning("other machines can't tell this process of stops directly: set server.advertised_host")
        self._announcing.add(asyncio.create_task(self._announce(self._own if host else None)))

    async def _announce(self, address: str | None) -> None:
        while True:
            now_us = self._clock.now_us()
            with contextlib.suppress(StoreError):  # those last heard of stay known; others say that the store is away
                self._announced = await self._bulletin.announce(address, now_us, now_us - FORGOTTEN_US)
            await asyncio.sleep(ANNOUNCE_S)

    async def tell(self, stop: PendingStop) -> str:
        """Pass a stop on to all of them; says how many have taken it on by now. The others go on being told."""
        known = self.known
        if not known:
            return "no other gateway is known"
        request, header = pass_on(stop, self._approvals)
        calls = {asyncio.create_task(self._tell(address, request, header)) for address in known}
        self._telling |= calls
        for call in calls:
            call.add_done_callback(self._telling.discard)
        done, _ = await asyncio.wait(calls, timeout=ANSWER_S)
        taken_on = sum(call.result() for call in done if not call.cancelled())
        return f"told {taken_on} of {len(known)} other gateways directly"

    async def _tell(self, address: str, request: risk_gateway_pb2.StopAllRequest, header: bytes) -> bool:
        """Whether the process there approves nothing from now on until the stop is complete."""
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            gateway: risk_gateway_pb2_grpc.RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(channel)
            try:
                await gateway.StopAll(request, timeout=TELL_S, metadata=((HEADER, header),), wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if _reason(error) == "STOP_INCOMPLETE":
                    return True
                LOGGER.warning("a gateway could not be told of a stop", address=address, problem=error.details())
                return False
        return True

    async def aclose(self) -> None:
        await ended([*self._announcing, *self._telling])


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in a status of ours; empty if it is none: who is at that address now may be anybody."""
    info = error_details_pb2.ErrorInfo()
    try:
        status = rpc_status.from_call(cast(grpc.Call, error))
        found = status is not None and any(detail.Unpack(info) for detail in status.details)
    except (ValueError, DecodeError):
        return ""
    return str(info.reason) if found else ""
