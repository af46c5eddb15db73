"""PlanLiquidation over the wire, and how a flattening goes on slice by slice until the account is flat."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.liquidation import Plan, PlanAnswer, PlanInquiry, Slice
from engine.records import ExecutionKind
from engine.risk.inquiry import InquiryError, Stamp
from gateway.log.memory import MemoryLog
from gateway.rpc.convert.form import Invalid
from gateway.rpc.convert.liquidation import plan_inquiry, plan_response
from gateway.worker.analytics import Analyst
from riskgateway.v1 import execution_pb2, order_pb2, risk_admin_pb2, risk_analytics_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT as WIRE_ACCOUNT
from tests.gateway.rpc.serving import Served, instrument, order
from tests.gateway.rpc.test_position_events import bought, state_of
from tests.gateway.worker.running import model_of, working
from tests.gateway.world import ACCOUNT, SESSION, World, buy, limits, report, world_on

Request = risk_analytics_pb2.PlanLiquidationRequest


def test_a_request_is_of_all_of_everything_unless_it_says_otherwise() -> None:
    assert plan_inquiry(Request(account="ALPHA")) == PlanInquiry("ALPHA", "", "", 1.0)
    assert plan_inquiry(Request(account="A", strategy="mm", symbol="X", fraction=0.5)) == PlanInquiry(
        "A", "mm", "X", 0.5
    )


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_part_is_above_none_and_at_most_all(fraction: float) -> None:
    with pytest.raises(Invalid) as refused:
        plan_inquiry(Request(account="ALPHA", fraction=fraction))

    assert [field for field, _ in refused.value.violations] == ["fraction"]


def test_an_answer_leaves_out_what_is_not_known() -> None:
    slices = (
        Slice("mm", "AAPL", -3, 0, 1.5, 2.5, 10.0, 20.0),
        Slice("", "AAPL", 2, 60_000_000, None, None, None, None),
    )
    stamp = Stamp(account="ALPHA", strategy=None, seq=7, time_us=1, base_currency="USD", equity=1e6)
    plan = Plan(slices, 500.0, 30.0, None, ())

    message = plan_response(PlanAnswer(stamp, plan, {"AAPL": 0.5}))

    first, second = message.slices
    assert (first.side, first.quantity, first.spread_cost) == (order_pb2.SIDE_SELL, 1.5, 1.5)
    assert (second.side, second.quantity, second.after.seconds) == (order_pb2.SIDE_BUY, 1.0, 60)
    assert not any(second.HasField(field) for field in ("spread_cost", "impact_cost", "var_99", "stress_loss"))
    assert (message.value, message.var_99) == (500.0, 30.0)
    assert not message.HasField("expected_cost") and not message.HasField("stress_loss")


@pytest.fixture
async def world(memory_log: MemoryLog) -> AsyncIterator[World]:
    async with world_on(memory_log) as running:
        await running.arm(limits())
        yield running


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


async def test_a_worker_plans_what_the_account_holds_and_sends_nothing(
    world: World, executor: ThreadPoolExecutor
) -> None:
    gateway = await world.open()
    async with working(world) as worker:
        await model_of(gateway, SESSION)
        await gateway.check(buy("first", 40.0))
        await gateway.report(report("x1", "first", ExecutionKind.FILL, 40.0))
        analyst = Analyst(worker.accounts, executor)

        found = await analyst.liquidation(PlanInquiry(ACCOUNT, fraction=0.5), 20_000_000)
        with pytest.raises(InquiryError, match="never held"):
            await analyst.liquidation(PlanInquiry(ACCOUNT, symbol="ZZZ"), 20_000_000)
        with pytest.raises(InquiryError, match="no position of strategy"):
            await analyst.liquidation(PlanInquiry(ACCOUNT, strategy="zzz"), 20_000_000)

    assert [(one.symbol, one.lots) for one in found.plan.slices] == [("AAA", -20)]
    assert found.plan.var_99 is not None and found.plan.var_99 > (found.plan.slices[0].var_99 or 0.0) > 0.0
    assert found.stamp.model and found.stamp.seq


async def test_risk_state_tells_how_far_a_flattening_has_got(gateway: Served, control: Served) -> None:
    """1 % of 1,000 a day is a slice of 10, half as much where the spread is twice the 0.5 % that it may be. Without a
    model the impact is not known, and so the cost."""
    liquid = instrument("AAPL")
    liquid.average_daily_quantity = 1_000.0
    await control.admin.RegisterInstruments(risk_admin_pb2.RegisterInstrumentsRequest(instruments=[liquid]))
    await bought(gateway, 20.0)

    stopped = await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=WIRE_ACCOUNT, flatten=True))
    again = await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=WIRE_ACCOUNT, flatten=True))
    refused = await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order("theirs", 1.0)))

    (sent,) = stopped.flatten_orders
    assert (sent.order.quantity, len(again.flatten_orders), refused.allowed) == (5.0, 1, False)
    fill = execution_pb2.Execution(
        account=WIRE_ACCOUNT,
        execution_id="own",
        client_order_id=sent.order.client_order_id,
        kind=execution_pb2.EXECUTION_KIND_FILL,
        last_quantity=3.0,
        last_price=99.5,
    )
    await gateway.gateway.ReportExecution(risk_gateway_pb2.ReportExecutionRequest(executions=[fill]))
    (progress,) = (await state_of(gateway)).liquidations
    assert (progress.symbol, progress.planned_quantity, progress.sent_quantity) == ("AAPL", 20.0, 5.0)
    assert (progress.filled_quantity, progress.left_quantity) == (3.0, 17.0)
    assert progress.active and not progress.HasField("expected_cost")
    await control.gateway.Resume(risk_gateway_pb2.ResumeRequest(account=WIRE_ACCOUNT, reason="over"))
    assert [one.active for one in (await state_of(gateway)).liquidations] == [False]
