"""The worker's own gRPC server: RiskAnalytics alone, for gateways that forward to it and for whoever asks directly.

Health and reflection as on every port. It listens before it is announced, and stops being announced before it ends.
"""

import asyncio
import uuid
from collections.abc import Mapping

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # ships none

from gateway.clock import StoreClock
from gateway.config import Settings
from gateway.log.bulletin import Bulletin
from gateway.rpc.analysts import Announcer, Asked
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Deadlines, Pace
from gateway.rpc.caller import Callers, known
from gateway.rpc.risk_analytics import Analyst, RiskAnalytics
from gateway.rpc.server import LAME_DUCK_S, OPTIONS
from gateway.rpc.status import Guard
from riskgateway.v1 import risk_analytics_pb2_grpc

SERVICE = "riskgateway.v1.RiskAnalytics"
CONCURRENT_RPCS_MAX = 256
"""Calls at once, most of them waiting; beyond it gRPC answers RESOURCE_EXHAUSTED by itself."""

GRACE_S = 2.0


class AnalyticsServer:
    """See the module. `start` once, `drain` at the end."""

    def __init__(
        self, analyst: Analyst, asked: Asked, deadlines: Deadlines, announcer: Announcer, pace: Pace | None = None
    ) -> None:
        guard = Guard(lambda: uuid.uuid4().hex[:12], (pace or Pace()).reader_timeout_s)
        self._announcer = announcer
        self._server = grpc.aio.server(
            interceptors=[guard], options=OPTIONS, maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX
        )
        self._health = health.aio.HealthServicer()
        service = RiskAnalytics(analyst, asked, deadlines)
        risk_analytics_pb2_grpc.add_RiskAnalyticsServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, host: str, port: int, reached_at: str) -> int:
        """Listen on host:port, 0 for any, and be found at `reached_at` with that port; the port. Raises OSError."""
        bound = await self.listen(f"{host}:{port}")
        self._announcer.start(f"{reached_at}:{bound}")
        return bound

    async def listen(self, address: str) -> int:
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}: {error}") from error
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def drain(self, grace_s: float = GRACE_S) -> None:
        await self._announcer.aclose()
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(min(LAME_DUCK_S, grace_s))
        await self._server.stop(grace_s)


def build_analytics(
    analyst: Analyst,
    bulletin: Bulletin,
    clock: StoreClock,
    settings: Settings,
    approval_key: bytes,
    environment: Mapping[str, str],
) -> AnalyticsServer:
    """Raises ConfigError where a caller's token is missing."""
    approvals = Approvals(approval_key)
    callers = [known(caller.name, caller.roles, caller.token(environment)) for caller in settings.callers]
    asked = Asked(Callers(callers, local_operator=settings.mode != "live"), clock, approvals)
    server = settings.server
    deadlines = Deadlines(server.deadline_default_ms * 1_000, server.deadline_max_ms * 1_000)
    return AnalyticsServer(analyst, asked, deadlines, Announcer(bulletin, clock, approvals))
