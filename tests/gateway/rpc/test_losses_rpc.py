"""GetLossHistory over real servers: the sessions, newest first, and how the account stands against its loss limits."""

from pathlib import Path

import grpc
import grpc.aio
import msgspec
import pytest

from engine.limits import Breaker, Limit, LimitAction, LimitSet, ScopeKind
from gateway.registry import arm_limits
from gateway.rpc.backend import Backend
from gateway.rpc.convert.form import Invalid
from gateway.rpc.convert.losses import loss_request
from riskgateway.v1 import (
    account_pb2,
    decision_pb2,
    limit_pb2,
    risk_admin_pb2,
    risk_analytics_pb2,
    risk_gateway_pb2,
)
from tests.gateway.rpc.analysing import analysing
from tests.gateway.rpc.serving import ACCOUNT, LIMITS, Served

ROWS = (
    Limit("daily_loss", ScopeKind.ACCOUNT, 0.02, action=LimitAction.HALT),
    Limit("weekly_loss", ScopeKind.ACCOUNT, 0.05),
)


async def test_the_open_session_is_told_with_the_status(backend: Backend, gateway: Served, folder: Path) -> None:
    await arm_limits(backend.log, LimitSet((*LIMITS.rows, *ROWS), LIMITS.policy))
    async with analysing(backend, folder):
        answer = await gateway.analytics.GetLossHistory(risk_analytics_pb2.GetLossHistoryRequest(account=ACCOUNT))

    assert answer.status == limit_pb2.LOSS_STATUS_OK
    assert [use.measure for use in answer.limits] == ["daily_loss", "weekly_loss"]
    (session,) = answer.sessions
    assert session.open and session.pnl == pytest.approx(0.0) and session.open_equity > 0
    assert [session.daily_loss, session.weekly_loss] == pytest.approx([0.0, 0.0])


async def test_the_risk_state_tells_the_status_and_the_breaker(backend: Backend, gateway: Served) -> None:
    before = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    armed = msgspec.structs.replace(LIMITS.policy, breaker=Breaker())
    await arm_limits(backend.log, LimitSet((*LIMITS.rows, *ROWS), armed))
    after = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))

    assert (before.loss_status, before.HasField("breaker")) == (limit_pb2.LOSS_STATUS_UNSPECIFIED, False)
    assert after.loss_status == limit_pb2.LOSS_STATUS_OK
    assert (after.breaker.stage, after.breaker.scale) == (account_pb2.BREAKER_STAGE_NORMAL, 1.0)
    assert "drawdown_breaker" in [use.measure for use in after.limits]


async def test_drawdown_rows_beside_a_breaker_in_force_are_refused(backend: Backend, control: Served) -> None:
    armed = msgspec.structs.replace(LIMITS.policy, breaker=Breaker())
    await arm_limits(backend.log, LimitSet(LIMITS.rows, armed))
    told = await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest())
    request = risk_admin_pb2.UpdateLimitsRequest(
        limits=told.limits, expected_limit_set=told.limit_set, reason="sent back"
    )
    back = await control.admin.UpdateLimits(request)
    request.limits.add(measure="drawdown", scope="account", limit=0.1, unit="fraction")
    request.limits[-1].action = decision_pb2.ACTION_REJECT

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.UpdateLimits(request)

    assert back.limit_set == told.limit_set
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "got both" in (refused.value.details() or "")


def test_requests_are_read_and_refused_by_field() -> None:
    assert loss_request(risk_analytics_pb2.GetLossHistoryRequest(account="A")) == ("A", 30)
    with pytest.raises(Invalid) as refused:
        loss_request(risk_analytics_pb2.GetLossHistoryRequest(sessions=521))
    assert [field for field, _ in refused.value.violations] == ["account", "sessions"]
