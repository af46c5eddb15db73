"""What a port serves: which methods answer UNIMPLEMENTED, and which role each of the others asks for."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # ships none
    reflection_pb2,
    reflection_pb2_grpc,
)

from gateway.log.memory import MemoryLog
from gateway.rpc.backend import Pace
from gateway.rpc.caller import known
from gateway.rpc.server import SERVICES
from riskgateway.v1 import risk_admin_pb2, risk_analytics_pb2, risk_gateway_pb2, risk_gateway_pb2_grpc
from tests.gateway.rpc.serving import Served, backend_over, served

if TYPE_CHECKING:
    from riskgateway.v1.risk_gateway_pb2_grpc import RiskGatewayAsyncStub

SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))  # else megabytes are read ahead
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (risk_gateway_pb2, risk_admin_pb2, risk_analytics_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ANALYTICS = {path for path in METHODS if "RiskAnalytics" in path}
"""Passed on to the worker by both ports; here none runs."""

CONTROLS = {path for path in METHODS if "RiskAdmin" in path} | {
    "/riskgateway.v1.RiskGateway/StopAll",
    "/riskgateway.v1.RiskGateway/Resume",
}


async def status_of(channel: grpc.aio.Channel, path: str, token: str = "") -> grpc.StatusCode:
    """What an empty request to a method is answered with."""
    method = METHODS[path]
    kinds: dict[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    request = GetMessageClass(method.input_type)()
    answer_type = GetMessageClass(method.output_type)
    made = kinds[method.client_streaming, method.server_streaming](
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer_type.FromString,
    )
    metadata = [("authorization", f"Bearer {token}")] if token else []
    call = made(iter([request]) if method.client_streaming else request, timeout=5.0, metadata=metadata)
    try:
        if method.server_streaming:
            await call.read()
            call.cancel()
            return grpc.StatusCode.OK
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  - the backend is no place for an event that only a test waits for
        await asyncio.sleep(0)


async def unimplemented(running: Served) -> set[str]:
    return {path for path in METHODS if await status_of(running.channel, path) is grpc.StatusCode.UNIMPLEMENTED}


async def test_every_method_is_served_on_a_port(gateway: Served, control: Served) -> None:
    assert await unimplemented(gateway) & await unimplemented(control) == set()


async def test_the_control_port_serves_control_and_the_gateways_port_orders(gateway: Served, control: Served) -> None:
    orders = {path for path in METHODS if "/riskgateway.v1.RiskGateway/" in path}
    feed = {"/riskgateway.v1.RiskAdmin/PublishMarks"}

    assert set(METHODS) - await unimplemented(control) == CONTROLS | ANALYTICS
    assert set(METHODS) - await unimplemented(gateway) == orders | feed | ANALYTICS


ALLOWED = {
    "/riskgateway.v1.RiskGateway/CheckOrder": {"trader"},
    "/riskgateway.v1.RiskGateway/CheckOrders": {"trader"},
    "/riskgateway.v1.RiskGateway/CheckOrderStream": {"trader"},
    "/riskgateway.v1.RiskGateway/GetHeadroom": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskGateway/ReportExecution": {"execution"},
    "/riskgateway.v1.RiskGateway/Heartbeat": {"trader"},
    "/riskgateway.v1.RiskGateway/StopAll": {"operator"},
    "/riskgateway.v1.RiskGateway/Resume": {"operator"},
    "/riskgateway.v1.RiskGateway/GetRiskState": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskGateway/StreamRiskState": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskGateway/StreamInstructions": {"execution"},
    "/riskgateway.v1.RiskAdmin/PublishMarks": {"feed"},
    "/riskgateway.v1.RiskAdmin/GetLimits": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskAdmin/UpdateLimits": {"operator"},
    "/riskgateway.v1.RiskAdmin/ProposeLimits": {"operator"},
    "/riskgateway.v1.RiskAdmin/ApproveLimits": {"operator"},
    "/riskgateway.v1.RiskAdmin/RejectLimits": {"operator"},
    "/riskgateway.v1.RiskAdmin/ListProposals": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskAdmin/ListLimitSets": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskAdmin/ReconcilePositions": {"operator"},
    "/riskgateway.v1.RiskAdmin/ListEvents": {"trader", "execution", "feed", "operator", "viewer"},
    "/riskgateway.v1.RiskAdmin/UpsertEvent": {"operator"},
    "/riskgateway.v1.RiskAdmin/RegisterInstruments": {"operator"},
    "/riskgateway.v1.RiskAdmin/ReportAccountEvent": {"operator"},
    "/riskgateway.v1.RiskAdmin/AdjustBudget": {"operator"},
}


@pytest.mark.parametrize("role", ["trader", "execution", "feed", "operator", "viewer"])
async def test_each_method_asks_for_its_role(memory_log: MemoryLog, store_clock: list[int], role: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="rpc") as name:
        caller = known("someone", [role], "secret")
        async with (
            backend_over(memory_log, store_clock, [caller], local_operator=False) as backend,
            served(backend, Path(name)) as gateway,
            served(backend, Path(name), control=True) as control,
        ):
            denied = set()
            for path in METHODS:
                channel = control.channel if path in CONTROLS else gateway.channel
                assert await status_of(channel, path) is grpc.StatusCode.UNAUTHENTICATED
                assert await status_of(channel, path, "wrong") is grpc.StatusCode.UNAUTHENTICATED
                if await status_of(channel, path, "secret") is grpc.StatusCode.PERMISSION_DENIED:
                    denied.add(path)

    assert denied == {path for path, roles in ALLOWED.items() if role not in roles}


async def test_health_and_reflection_are_on(gateway: Served) -> None:
    health: Any = health_pb2_grpc.HealthStub(gateway.channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)

    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICES[0]))
    call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    listed = {service.name async for reply in call for service in reply.list_services_response.service}

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert set(SERVICES) <= listed


async def test_a_reader_that_takes_nothing_is_dropped(memory_log: MemoryLog, store_clock: list[int]) -> None:
    pace = Pace(heartbeat_s=0.0, interval_s=0.0, reader_timeout_s=0.2)
    with tempfile.TemporaryDirectory(prefix="rpc") as name:
        async with (
            backend_over(memory_log, store_clock, pace=pace) as backend,
            served(backend, Path(name)) as gateway,
            grpc.aio.insecure_channel(gateway.address, options=SMALL_WINDOW) as channel,
        ):
            stub: RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(channel)
            call = stub.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest())
            await until(lambda: bool(backend.streams))
            await until(lambda: not backend.streams)

            with pytest.raises(grpc.aio.AioRpcError) as dropped:
                async for _ in call:
                    pass

    assert dropped.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
