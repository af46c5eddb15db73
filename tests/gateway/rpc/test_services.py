"""The services over a real gRPC server, a real committer and the memory log: an order's way from the wire and back."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rich

from gateway.log.account_log import partition_of
from gateway.log.memory import MemoryLog
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    execution_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
)
from tests.gateway.faults import AwayInPart
from tests.gateway.rpc.serving import (
    ACCOUNT,
    Served,
    backend_over,
    instrument,
    open_for_trading,
    opening,
    order,
    served,
)


def asked(asked_order: order_pb2.Order, dry_run: bool = False) -> risk_gateway_pb2.CheckOrderRequest:
    return risk_gateway_pb2.CheckOrderRequest(order=asked_order, dry_run=dry_run)


def fill(execution_id: str, client_order_id: str, quantity: float) -> execution_pb2.Execution:
    return execution_pb2.Execution(
        account=ACCOUNT,
        execution_id=execution_id,
        client_order_id=client_order_id,
        kind=execution_pb2.EXECUTION_KIND_FILL,
        last_quantity=quantity,
        last_price=100.0,
        fee=1.5,
    )


async def test_an_order_within_its_limits_is_allowed_and_reserved(gateway: Served) -> None:
    answer = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))

    assert (answer.action, answer.allowed, answer.allowed_quantity) == (decision_pb2.ACTION_ALLOW, True, 100.0)
    assert answer.reason == decision_pb2.REASON_NONE
    assert answer.sequence == answer.account_version + 1
    assert answer.session_date == "2023-11-15"
    assert {check.measure for check in answer.checks} == {"mark_age", "order_quantity", "order_value", "position"}
    assert next(check for check in answer.checks if check.measure == "order_value").unit == "USD"
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert [(o.client_order_id, o.leaves_quantity) for o in state.open_orders] == [("A", 100.0)]
    assert state.positions[0].open_buy_quantity == 100.0
    assert state.equity == 1_000_000.0


async def test_a_refusal_is_an_ok_answer_that_names_the_rule(gateway: Served) -> None:
    answer = await gateway.gateway.CheckOrder(asked(order("A", 600.0)))

    assert (answer.action, answer.reason) == (decision_pb2.ACTION_REJECT, decision_pb2.REASON_POSITION)
    assert (answer.allowed, answer.allowed_quantity, answer.approval) == (False, 0.0, b"")
    assert answer.sequence > 0


async def test_only_binding_checks_are_sent_when_asked_for(gateway: Served) -> None:
    request = risk_gateway_pb2.CheckOrderRequest(order=order("A", 400.0), checks=decision_pb2.CHECKS_BINDING)

    answer = await gateway.gateway.CheckOrder(request)

    assert answer.action == decision_pb2.ACTION_WARN
    assert [check.measure for check in answer.checks] == ["position"]


async def test_a_retry_gets_the_same_decision_and_other_contents_are_refused(gateway: Served) -> None:
    first = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))

    again = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.gateway.CheckOrder(asked(order("A", 200.0)))

    assert again.replayed and not first.replayed
    assert (again.sequence, again.approval, again.allowed_quantity) == (first.sequence, first.approval, 100.0)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_the_approval_token_holds_for_this_order_only(gateway: Served) -> None:
    answer = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))

    approval = gateway.backend.approvals.read(answer.approval)

    assert approval is not None
    assert (approval.lots, approval.epoch, approval.expires_us) == (100, answer.stop_epoch, None)


async def test_a_dry_run_records_nothing(gateway: Served) -> None:
    answer = await gateway.gateway.CheckOrder(asked(order("A", 100.0), dry_run=True))

    assert (answer.allowed, answer.sequence, answer.approval) == (True, 0, b"")
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert list(state.open_orders) == []


async def test_one_refused_leg_refuses_an_all_or_none_basket(gateway: Served) -> None:
    request = risk_gateway_pb2.CheckOrdersRequest(
        orders=[order("A", 100.0), order("B", 600.0, "MSFT")], all_or_none=True
    )

    answer = await gateway.gateway.CheckOrders(request)

    assert not answer.all_allowed
    assert [r.reason for r in answer.responses] == [
        decision_pb2.REASON_BASKET_LEG_REFUSED,
        decision_pb2.REASON_POSITION,
    ]


async def test_fills_become_a_position_once(gateway: Served) -> None:
    await gateway.gateway.CheckOrder(asked(order("A", 100.0)))
    reports = risk_gateway_pb2.ReportExecutionRequest(executions=[fill("1", "A", 40.0), fill("2", "A", 25.0)])

    first = await gateway.gateway.ReportExecution(reports)
    again = await gateway.gateway.ReportExecution(reports)

    assert [(r.duplicate, list(r.flags)) for r in first.results] == [(False, []), (False, [])]
    assert first.results[1].sequence == first.results[0].sequence + 1
    assert [r.duplicate for r in again.results] == [True, True]
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert (state.positions[0].quantity, state.positions[0].open_buy_quantity) == (65.0, 35.0)
    assert state.cash[0].amount == 1_000_000.0 - 6_500.0 - 3.0


async def test_a_fill_repeated_within_one_call_is_booked_once(gateway: Served) -> None:
    await gateway.gateway.CheckOrder(asked(order("A", 100.0)))
    reports = risk_gateway_pb2.ReportExecutionRequest(executions=[fill("1", "A", 40.0), fill("1", "A", 40.0)])

    answer = await gateway.gateway.ReportExecution(reports)

    assert [r.duplicate for r in answer.results] == [False, True]


async def test_a_report_that_cannot_be_booked_names_its_place(gateway: Served) -> None:
    stray = fill("2", "UNHEARD-OF", 10.0)
    stray.symbol = "NOPE"

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.gateway.ReportExecution(
            risk_gateway_pb2.ReportExecutionRequest(executions=[fill("1", "ALSO-UNHEARD-OF", 1.0), stray])
        )

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "executions[0].client_order_id" in (refused.value.details() or "")


async def test_lots_beyond_what_can_be_counted_are_refused_and_the_account_lives_on(gateway: Served) -> None:
    await gateway.gateway.CheckOrder(asked(order("A", 100.0)))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.gateway.ReportExecution(
            risk_gateway_pb2.ReportExecutionRequest(executions=[fill("1", "A", 1e14)])
        )

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await gateway.gateway.CheckOrder(asked(order("B", 1.0)))).allowed


async def test_all_violations_are_named_with_their_fields(gateway: Served) -> None:
    bad = order("A", float("nan"))
    bad.side, bad.limit_price, bad.account = order_pb2.SIDE_UNSPECIFIED, -1.0, ""

    call = gateway.gateway.CheckOrder(asked(bad))
    with pytest.raises(grpc.aio.AioRpcError):
        await call

    status = await rich.from_call(call)
    assert status is not None
    bad_request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert any(detail.Unpack(info) for detail in status.details)
    fields = {violation.field for violation in bad_request.field_violations}
    assert fields == {"order.account", "order.side", "order.quantity", "order.limit_price"}
    assert (info.domain, info.reason) == ("riskgateway", "MALFORMED")


async def test_an_unknown_account_is_not_found(gateway: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await gateway.gateway.CheckOrder(asked(order("A", account="NOBODY")))

    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stop_halts_lists_what_may_still_fill_and_a_resume_lifts_it(gateway: Served, control: Served) -> None:
    approved = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))

    stop = await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(reason="drill\n", flatten=True))
    refused = await gateway.gateway.CheckOrder(asked(order("B", 100.0)))
    again = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))
    resumed = await control.gateway.Resume(risk_gateway_pb2.ResumeRequest(reason="over"))
    allowed = await gateway.gateway.CheckOrder(asked(order("C", 100.0)))

    assert (stop.acknowledged_partitions, stop.trading_state) == (64, control_pb2.TRADING_STATE_HALTED)
    assert [o.client_order_id for o in stop.open_orders] == ["A"]
    assert (list(stop.flatten_orders), list(stop.warnings)) == ([], [])
    assert (refused.action, refused.reason) == (decision_pb2.ACTION_HALT, decision_pb2.REASON_TRADING_HALTED)
    assert again.reason == decision_pb2.REASON_SUPERSEDED_BY_STOP
    assert (again.prior.approved, again.prior.sequence) == (True, approved.sequence)
    assert (resumed.trading_state, list(resumed.causes)) == (control_pb2.TRADING_STATE_ACTIVE, [])
    assert allowed.allowed


async def test_a_stop_of_one_account_shows_in_its_state(gateway: Served, control: Served) -> None:
    request = risk_gateway_pb2.StopAllRequest(account=ACCOUNT, mode=control_pb2.TRADING_STATE_REDUCE_ONLY, reason="why")

    stop = await gateway.gateway.StopAll(request)

    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert (stop.acknowledged_partitions, state.stop_epoch) == (1, stop.stop_epoch)
    assert state.trading_state == control_pb2.TRADING_STATE_REDUCE_ONLY
    assert [(c.reason, c.origin) for c in state.causes] == [("why", control_pb2.TRADING_STATE_ORIGIN_STOP)]


async def test_a_stop_of_a_trader_lists_and_halts_what_is_of_that_trader(gateway: Served, control: Served) -> None:
    def of(name: str, trader: str) -> risk_gateway_pb2.CheckOrderRequest:
        sent = asked(order(name, 100.0))
        sent.order.trader_id = trader
        return sent

    await gateway.gateway.CheckOrder(of("hers", "jane"))
    await gateway.gateway.CheckOrder(of("his", "joe"))

    stop = await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(trader="jane"))
    refused = await gateway.gateway.CheckOrder(of("B", "jane"))
    allowed = await gateway.gateway.CheckOrder(of("C", "joe"))
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    resumed = await control.gateway.Resume(risk_gateway_pb2.ResumeRequest(trader="jane", reason="over"))
    again = await gateway.gateway.CheckOrder(of("D", "jane"))

    assert [o.client_order_id for o in stop.open_orders] == ["hers"]
    assert refused.reason == decision_pb2.REASON_TRADING_HALTED and "trader jane" in refused.message
    assert allowed.allowed and again.allowed
    assert [cause.scope for cause in state.causes] == [control_pb2.Scope(trader="jane")]
    assert resumed.trading_state == control_pb2.TRADING_STATE_ACTIVE


async def test_a_heartbeat_is_recorded_where_orders_work_and_tells_the_state(
    gateway: Served, control: Served, store_clock: list[int]
) -> None:
    beat = risk_gateway_pb2.HeartbeatRequest(account=ACCOUNT)
    idle = await gateway.gateway.Heartbeat(beat)
    approved = await gateway.gateway.CheckOrder(asked(order("A", 100.0)))
    store_clock[0] += 2_000_000

    heard = await gateway.gateway.Heartbeat(beat)
    await gateway.gateway.Heartbeat(beat)
    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=ACCOUNT))
    stopped = await gateway.gateway.Heartbeat(beat)
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))

    assert (idle.trading_state, heard.trading_state) == (control_pb2.TRADING_STATE_ACTIVE,) * 2
    assert stopped.trading_state == control_pb2.TRADING_STATE_HALTED and stopped.stop_epoch > heard.stop_epoch
    assert heard.heard_time.ToMicroseconds() > idle.heard_time.ToMicroseconds()
    assert state.sequence >= approved.sequence + 1


async def test_a_heartbeat_of_an_unknown_account_is_not_found(gateway: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await gateway.gateway.Heartbeat(risk_gateway_pb2.HeartbeatRequest(account="NOBODY"))

    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_narrower_resume_tells_what_still_stands(control: Served, gateway: Served) -> None:
    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(reason="all"))

    resumed = await control.gateway.Resume(risk_gateway_pb2.ResumeRequest(account=ACCOUNT, reason="try"))

    assert resumed.trading_state == control_pb2.TRADING_STATE_HALTED
    assert [cause.reason for cause in resumed.causes] == ["all"]


async def test_a_stream_sends_a_snapshot_then_changes_then_heartbeats(gateway: Served, control: Served) -> None:
    call = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT]))
    updates = call.__aiter__()

    snapshot = await anext(updates)
    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(reason="drill"))
    kinds = []
    while "trading_state_change" not in kinds:
        update = await anext(updates)
        kinds.append(update.WhichOneof("update"))
    change = update.trading_state_change
    while kinds[-1] != "heartbeat":
        kinds.append((await anext(updates)).WhichOneof("update"))
    call.cancel()

    assert snapshot.risk_state.account == ACCOUNT
    assert (change.trading_state, change.reason) == (control_pb2.TRADING_STATE_HALTED, "drill")
    assert "risk_state" in kinds


async def test_a_stream_over_all_accounts_hears_of_later_ones(gateway: Served, control: Served) -> None:
    call = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest())
    seen = set()

    await control.admin.ReportAccountEvent(opening("BETA"))
    async for update in call:
        seen.add(update.risk_state.account)
        if {ACCOUNT, "BETA"} <= seen:
            break
    call.cancel()

    assert {ACCOUNT, "BETA"} <= seen


async def test_draining_ends_streams_with_unavailable(gateway: Served) -> None:
    call = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT]))
    updates = call.__aiter__()
    await anext(updates)
    draining = asyncio.create_task(gateway.server.drain(5.0))

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for _ in updates:
            pass

    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    await draining


async def test_a_reconciliation_tells_the_differences_once(gateway: Served, control: Served) -> None:
    await gateway.gateway.CheckOrder(asked(order("A", 100.0)))
    request = risk_admin_pb2.ReconcilePositionsRequest(
        account=ACCOUNT,
        positions=[account_pb2.PositionQuantity(strategy="momentum", symbol="AAPL", quantity=30.0)],
        cash=[account_pb2.CashBalance(currency="USD", amount=997_000.0)],
        snapshot_time=timestamp(gateway.backend.accounts.clock.now_us()),
    )

    first = await control.admin.ReconcilePositions(request)
    again = await control.admin.ReconcilePositions(request)

    told = [(d.kind, d.symbol, d.recorded, d.reported) for d in first.differences]
    assert told == [
        (risk_admin_pb2.DIFFERENCE_KIND_POSITION, "AAPL", 0.0, 30.0),
        (risk_admin_pb2.DIFFERENCE_KIND_CASH, "USD", 1_000_000.0, 997_000.0),
    ]
    assert list(again.differences) == []


async def test_an_order_of_the_brokers_beyond_what_can_be_counted_is_refused(gateway: Served, control: Served) -> None:
    """One that the gateway does not know: it would be counted from here on."""
    found = risk_admin_pb2.ReportedOrder(
        client_order_id="theirs", leaves_quantity=1e14, symbol="AAPL", side=order_pb2.SIDE_BUY
    )
    request = risk_admin_pb2.ReconcilePositionsRequest(
        account=ACCOUNT,
        open_orders=[found],
        has_open_orders=True,
        snapshot_time=timestamp(gateway.backend.accounts.clock.now_us()),
    )

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.ReconcilePositions(request)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "open_orders.leaves_quantity" in (refused.value.details() or "")


async def test_account_events_are_recorded_once(gateway: Served, control: Served) -> None:
    deposit = risk_admin_pb2.ReportAccountEventRequest(
        account=ACCOUNT, event_id="d1", cash_flow=risk_admin_pb2.CashFlow(currency="USD", amount=500.0)
    )

    first = await control.admin.ReportAccountEvent(deposit)
    again = await control.admin.ReportAccountEvent(deposit)

    assert (first.duplicate, again.duplicate) == (False, True)
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert state.equity == 1_000_500.0


@pytest.mark.parametrize(
    ("event_id", "event", "code"),
    [
        ("other", opening(ACCOUNT).account_opened, grpc.StatusCode.FAILED_PRECONDITION),
        ("s0", risk_admin_pb2.SessionOpened(session_date="2023-11-14"), grpc.StatusCode.FAILED_PRECONDITION),
        ("s1", risk_admin_pb2.SessionOpened(session_date="2023-1-14"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_events_out_of_order_are_refused(
    gateway: Served,
    control: Served,
    event_id: str,
    event: risk_admin_pb2.AccountOpened | risk_admin_pb2.SessionOpened,
    code: grpc.StatusCode,
) -> None:
    request = risk_admin_pb2.ReportAccountEventRequest(account=ACCOUNT, event_id=event_id)
    if isinstance(event, risk_admin_pb2.AccountOpened):
        request.account_opened.CopyFrom(event)
    else:
        request.session_opened.CopyFrom(event)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.ReportAccountEvent(request)

    assert refused.value.code() is code


async def test_a_registered_lot_size_never_changes(gateway: Served, control: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control.admin.RegisterInstruments(
            risk_admin_pb2.RegisterInstrumentsRequest(instruments=[instrument("AAPL", lot_size=10.0)])
        )

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_refused_marks_are_named_and_end_nothing(gateway: Served) -> None:
    now = timestamp(gateway.backend.accounts.clock.now_us())
    marks = [
        instrument_pb2.Mark(symbol="AAPL", last=101.0, mark_time=now),
        instrument_pb2.Mark(symbol="NAN", last=float("nan"), mark_time=now),
        instrument_pb2.Mark(symbol="TINY", last=5e-324, mark_time=now),
        instrument_pb2.Mark(symbol="BARE", mark_time=now),
        instrument_pb2.Mark(symbol="CROSSED", bid=2.0, ask=1.0, mark_time=now),
        instrument_pb2.Mark(symbol="TIMELESS", last=1.0),
    ]

    answer = await gateway.admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=marks)]))

    assert (answer.accepted, answer.refused_count) == (1, 5)
    assert [refused.symbol for refused in answer.refused] == ["NAN", "TINY", "BARE", "CROSSED", "TIMELESS"]


async def test_the_limits_in_force_are_told(gateway: Served, control: Served) -> None:
    every = await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest())
    own = await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest(account=ACCOUNT))

    assert [limit.measure for limit in every.limits] == ["order_quantity", "order_value", "position", "mark_age"]
    assert own.limit_set == every.limit_set != ""
    position = own.limits[2]
    assert (position.scope, position.unit, position.limit, position.warn) == ("symbol", "quantity", 500.0, 300.0)
    assert position.action == decision_pb2.ACTION_REJECT


async def test_a_process_that_is_still_stopping_checks_nothing(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    """Its own stop has not reached the partition of another scope yet; what it was told must hold here at once."""
    in_part = AwayInPart(memory_log)
    async with (
        backend_over(in_part, store_clock) as backend,
        served(backend, folder, control=True) as control,
        served(backend, folder) as gateway,
    ):
        await open_for_trading(control.admin, backend)
        in_part.away = {partition_of(ACCOUNT)}
        with pytest.raises(grpc.aio.AioRpcError) as incomplete:
            await gateway.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=ACCOUNT))

        with pytest.raises(grpc.aio.AioRpcError) as one:
            await gateway.gateway.CheckOrder(asked(order("A")))
        with pytest.raises(grpc.aio.AioRpcError) as many:
            await gateway.gateway.CheckOrders(risk_gateway_pb2.CheckOrdersRequest(orders=[order("B")]))
        in_part.away = set()
        await asyncio.wait_for(in_part.complete.wait(), 10)

    assert incomplete.value.code() is grpc.StatusCode.UNAVAILABLE
    assert {one.value.code(), many.value.code()} == {grpc.StatusCode.UNAVAILABLE}
    assert "a stop is being carried out" in (one.value.details() or "")


async def test_a_report_of_another_release_hides_no_state(gateway: Served) -> None:
    await gateway.backend.log.bulletin.post_report(ACCOUNT, b"from the future")

    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))

    assert state.equity == 1_000_000.0
