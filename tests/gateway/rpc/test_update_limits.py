"""UpdateLimits over a real server: armed everywhere or not at all, by those who may, from the set that they saw."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from engine.control import decode_control
from engine.limits import Limit, LimitSet, ScopeKind
from gateway.log.account_log import PARTITIONS, partition_of
from gateway.log.memory import MemoryLog
from gateway.registry import arm_limits
from gateway.rpc.caller import known
from riskgateway.v1 import decision_pb2, limit_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.faults import AwayInPart
from tests.gateway.rpc.serving import ACCOUNT, LIMITS, Served, backend_over, open_for_trading, order, served


async def told(control: Served) -> risk_admin_pb2.GetLimitsResponse:
    return await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest())


async def with_position(
    control: Served, position: float, expected: str = "", **fields: Any
) -> risk_admin_pb2.UpdateLimitsRequest:
    """The set in force, with another bound on positions."""
    in_force = await told(control)
    for row in in_force.limits:
        if row.measure == "position":
            row.limit = position
    return risk_admin_pb2.UpdateLimitsRequest(
        limits=in_force.limits, expected_limit_set=expected or in_force.limit_set, reason="desk asked", **fields
    )


async def position_check(gateway: Served, client_order_id: str, quantity: float) -> bool:
    request = risk_gateway_pb2.CheckOrderRequest(order=order(client_order_id, quantity))
    return (await gateway.gateway.CheckOrder(request)).allowed


async def armed_in(served_by: Served) -> list[str]:
    return [decode_control(stored.state).limit_set for stored in await served_by.backend.log.read_controls()]


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """How a call ends. Asserted on where servers have ended: one that a failure leaves behind would hang the test."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_new_set_is_in_force_on_every_gateway_when_it_is_answered(gateway: Served, control: Served) -> None:
    before = await told(control)
    allowed_before = await position_check(gateway, "A", 400.0)

    answer = await control.admin.UpdateLimits(await with_position(control, 450.0))

    assert allowed_before and not await position_check(gateway, "B", 60.0)
    assert await position_check(gateway, "C", 50.0)
    assert answer.previous_limit_set == before.limit_set != answer.limit_set
    assert await armed_in(control) == [answer.limit_set] * PARTITIONS
    assert (answer.acknowledged_partitions, answer.stop_epoch) == (PARTITIONS, before.stop_epoch + 1)
    (change,) = answer.changes
    assert (change.previous.limit, change.limit.limit, change.loosened) == (500.0, 450.0, False)


async def test_a_higher_bound_is_told_as_loosened(gateway: Served, control: Served) -> None:
    (change,) = (await control.admin.UpdateLimits(await with_position(control, 501.0))).changes

    assert change.loosened


async def test_what_the_set_says_beside_its_rows_stays(gateway: Served, control: Served) -> None:
    policy = msgspec.structs.replace(LIMITS.policy, market_slippage=0.25)
    shadow = LimitSet((Limit("leverage", ScopeKind.ACCOUNT, 1.0),))
    await arm_limits(control.backend.log, LimitSet(LIMITS.rows, policy), "the file", shadow)

    await control.admin.UpdateLimits(await with_position(control, 450.0))

    state = decode_control((await control.backend.log.read_control(3)).state)
    assert (state.armed_file, state.shadow_limit_set) == ("the file", shadow.hash)
    after = await told(control)
    assert (after.policy.market_slippage, after.shadow_limit_set) == (0.25, shadow.hash)


async def test_what_was_told_and_is_sent_back_changes_nothing(gateway: Served, control: Served) -> None:
    """Also the row that is implied, and whatever set was expected."""
    before = await told(control)

    answer = await control.admin.UpdateLimits(await with_position(control, 500.0, expected="another"))

    assert (answer.limit_set, list(answer.changes)) == (before.limit_set, [])
    assert (await told(control)).stop_epoch == before.stop_epoch


async def test_validating_only_tells_the_changes_and_makes_none(gateway: Served, control: Served) -> None:
    before = await told(control)

    answer = await control.admin.UpdateLimits(await with_position(control, 450.0, validate_only=True))

    assert (len(answer.changes), answer.stop_epoch, answer.acknowledged_partitions) == (1, 0, 0)
    assert await told(control) == before


async def test_a_set_made_from_one_that_is_no_longer_in_force_is_aborted(gateway: Served, control: Served) -> None:
    stale, mine = await with_position(control, 450.0), await with_position(control, 460.0)
    await control.admin.UpdateLimits(mine)

    for validate_only in (True, False):
        stale.validate_only = validate_only
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await control.admin.UpdateLimits(stale)
        assert refused.value.code() is grpc.StatusCode.ABORTED

    assert len(set(await armed_in(control))) == 1
    assert [row.limit for row in (await told(control)).limits if row.measure == "position"] == [460.0]


async def test_a_bad_row_is_named_and_the_old_set_stays(gateway: Served, control: Served) -> None:
    update = await with_position(control, 450.0)
    update.limits[0].warn = update.limits[0].limit + 1
    before = await told(control)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.UpdateLimits(update)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "limits[0].warn" in (refused.value.details() or "")
    assert await told(control) == before


async def test_only_operators_may_and_the_history_says_who_and_why(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    callers = [known("olga", ["operator"], "token-o"), known("tom", ["trader", "viewer"], "token-t")]
    async with (
        backend_over(memory_log, store_clock, callers) as backend,
        served(backend, folder, control=True) as control,
    ):
        await open_for_trading(control.admin, backend)
        update = await with_position(control, 450.0)
        refused = await code_of(control.admin.UpdateLimits(update, metadata=[("authorization", "Bearer token-t")]))
        answer = await control.admin.UpdateLimits(update, metadata=[("authorization", "Bearer token-o")])

    assert refused is grpc.StatusCode.PERMISSION_DENIED
    history = await memory_log.control_history(partition_of(ACCOUNT), 0, 100)
    last = msgspec.json.decode(history[-1][1])
    assert (last["actor"], last["reason"], last["time_us"]) == ("olga", "desk asked", store_clock[0])
    assert (last["limit_set"], last["previous_limit_set"]) == (answer.limit_set, answer.previous_limit_set)


async def test_a_partition_that_is_away_is_armed_by_repeating_it(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    in_part = AwayInPart(memory_log)
    async with backend_over(in_part, store_clock) as backend, served(backend, folder, control=True) as control:
        await open_for_trading(control.admin, backend)
        update = await with_position(control, 450.0)
        in_part.away = {7, 8}
        refused = await code_of(control.admin.UpdateLimits(update))
        in_part.away = set()

        answer = await control.admin.UpdateLimits(update)
        armed = await armed_in(control)

    assert refused is grpc.StatusCode.UNAVAILABLE
    assert armed == [answer.limit_set] * PARTITIONS


async def test_a_row_in_shadow_is_armed_beside_the_one_that_acts(gateway: Served, control: Served) -> None:
    update = await with_position(control, 500.0)
    trial = limit_pb2.Limit(
        measure="position",
        scope="symbol",
        limit=10.0,
        action=decision_pb2.ACTION_REJECT,
        mode=limit_pb2.LIMIT_MODE_SHADOW,
        note="what if",
    )
    update.limits.append(trial)

    (change,) = (await control.admin.UpdateLimits(update)).changes
    answer = await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order("A", 100.0)))

    assert (change.HasField("previous"), change.loosened, change.limit.note) == (False, False, "what if")
    assert answer.allowed
    (shadowed,) = [check for check in answer.checks if check.shadow]
    assert (shadowed.limit, shadowed.action) == (10.0, decision_pb2.ACTION_REJECT)
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    (count,) = state.shadow_by_action
    assert (count.measure, count.action, count.checks) == ("position", decision_pb2.ACTION_REJECT, 1)
    assert [use.mode for use in state.limits if use.limit == 10.0] == [limit_pb2.LIMIT_MODE_SHADOW]


async def test_the_set_in_shadow_is_told_when_asked_for(gateway: Served, control: Served) -> None:
    none = await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest(shadow=True))
    shadow = LimitSet((Limit("leverage", ScopeKind.ACCOUNT, 1.0), Limit("mark_age", ScopeKind.ACCOUNT, 9.0)))
    await arm_limits(control.backend.log, LIMITS, "", shadow)

    one = await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest(shadow=True))

    assert (none.limit_set, list(none.limits)) == ("", [])
    assert one.limit_set == one.shadow_limit_set == shadow.hash
    assert [row.measure for row in one.limits] == ["leverage", "mark_age"]
    assert (await told(control)).limit_set == LIMITS.hash
