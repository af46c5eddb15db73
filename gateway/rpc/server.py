"""A gRPC server of the gateway or of control: built, started, drained.

Health and reflection are on every port. Draining tells health first, then ends the endless streams, then lets running
calls finish. Which RPC is served where stands here and nowhere else.
"""

import asyncio
import uuid
from collections.abc import Mapping

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # ships none

from gateway.accounts import Accounts
from gateway.config import Settings
from gateway.market.events.sources import ranks_of
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Backend, Calendars, Deadlines
from gateway.rpc.caller import Callers, known
from gateway.rpc.forwarding import Forwarding
from gateway.rpc.marks import Marks
from gateway.rpc.risk_admin import RiskAdmin
from gateway.rpc.risk_gateway import RiskGateway
from gateway.rpc.status import Guard
from gateway.rpc.stops import Stops
from gateway.stopping import Stopper
from riskgateway.v1 import risk_admin_pb2_grpc, risk_analytics_pb2_grpc, risk_gateway_pb2_grpc

SERVICES = ("riskgateway.v1.RiskGateway", "riskgateway.v1.RiskAdmin", "riskgateway.v1.RiskAnalytics")
CONCURRENT_RPCS_MAX = 2_048
"""Calls and streams at once; beyond it gRPC answers RESOURCE_EXHAUSTED by itself."""

GRACE_S = 5.0
"""How long running calls may take to finish when the server drains: most have a deadline of a second."""

LAME_DUCK_S = 0.2
"""Calls are still taken for so long after health has said NOT_SERVING: what is on its way when gRPC stops is answered
CANCELLED by it, unseen by any handler."""

MIB = 1024 * 1024
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 4 * MIB),  # 5,000 instruments with all their fields are about 1 MiB
    ("grpc.max_send_message_length", 32 * MIB),  # a state with 100,000 open orders
    ("grpc.so_reuseport", 0),  # it spreads connections, not accounts, and hides that a port is taken
    ("grpc.keepalive_time_ms", 30_000),  # a stream's reader that vanished is noticed within 40 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients may ping as often before they are cut off
)


class Server:
    """See the module. Not to be started twice."""

    def __init__(
        self,
        backend: Backend,
        risk_gateway: risk_gateway_pb2_grpc.RiskGatewayServicer,
        risk_admin: risk_admin_pb2_grpc.RiskAdminServicer,
    ) -> None:
        guard = Guard(lambda: uuid.uuid4().hex[:12], backend.pace.reader_timeout_s)
        self._backend = backend
        self._server = grpc.aio.server(
            interceptors=[guard], options=OPTIONS, maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX
        )
        self._health = health.aio.HealthServicer()
        risk_gateway_pb2_grpc.add_RiskGatewayServicer_to_server(risk_gateway, self._server)
        risk_admin_pb2_grpc.add_RiskAdminServicer_to_server(risk_admin, self._server)
        self._forwarding = Forwarding(backend)  # type: ignore[abstract]  # it gives itself every method of the service
        risk_analytics_pb2_grpc.add_RiskAnalyticsServicer_to_server(self._forwarding, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str) -> int:
        """Listen on "host:port" or "unix:path"; the port. Raises OSError where the address is taken or not ours."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}: {error}") from error
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def drain(self, grace_s: float = GRACE_S) -> None:
        """Say NOT_SERVING, end the streams, answer what is on its way, take no new calls, let what runs finish."""
        await self._health.enter_graceful_shutdown()
        self._backend.draining.set()
        await asyncio.sleep(LAME_DUCK_S)
        await self._server.stop(grace_s)
        await self._forwarding.aclose()


def build_gateway(
    accounts: Accounts, stopper: Stopper, settings: Settings, approval_key: bytes, environment: Mapping[str, str]
) -> Server:
    """RiskGateway, and of RiskAdmin the feed of marks. Raises ConfigError where a caller's token is missing."""
    return gateway_server(backend_of(accounts, stopper, settings, approval_key, environment))


def build_control(
    accounts: Accounts, stopper: Stopper, settings: Settings, approval_key: bytes, environment: Mapping[str, str]
) -> Server:
    """StopAll, Resume and RiskAdmin. Raises ConfigError where a caller's token is missing."""
    return control_server(backend_of(accounts, stopper, settings, approval_key, environment))


def gateway_server(backend: Backend) -> Server:
    return Server(backend, RiskGateway(backend), Marks(backend))  # type: ignore[abstract]  # the base: UNIMPLEMENTED


def control_server(backend: Backend) -> Server:
    return Server(backend, Stops(backend), RiskAdmin(backend))  # type: ignore[abstract]  # the base: UNIMPLEMENTED


def backend_of(
    accounts: Accounts, stopper: Stopper, settings: Settings, approval_key: bytes, environment: Mapping[str, str]
) -> Backend:
    server = settings.server
    callers = [known(caller.name, caller.roles, caller.token(environment)) for caller in settings.callers]
    return Backend(
        log=accounts.log,
        accounts=accounts,
        stopper=stopper,
        callers=Callers(callers, local_operator=settings.mode != "live"),
        approvals=Approvals(approval_key),
        deadlines=Deadlines(server.deadline_default_ms * 1_000, server.deadline_max_ms * 1_000),
        calendars=Calendars(settings.events.policy, ranks_of(settings.events)),
        two_person=settings.limits.two_person,
    )
