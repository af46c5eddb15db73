"""Several currencies in one account, over the wire: a stock in euros, its rate, a fee that nobody has a rate for."""

import pytest

from engine.limits import Limit, LimitSet, ScopeKind
from gateway.registry import arm_limits
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import decision_pb2, execution_pb2, instrument_pb2, order_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT, LIMITS, Served, instrument, order

MINUTE_US = 60_000_000


@pytest.fixture
async def euros(gateway: Served, control: Served) -> Served:
    """SAP, in euros, marked at 200, and no rate yet; a limit that needs equity is armed."""
    await arm_limits(gateway.backend.log, LimitSet((*LIMITS.rows, Limit("leverage", ScopeKind.ACCOUNT, 2.0))))
    sap = instrument("SAP")
    sap.currency = "EUR"
    await control.admin.RegisterInstruments(risk_admin_pb2.RegisterInstrumentsRequest(instruments=[sap]))
    await publish(gateway, SAP=200.0)
    return gateway


async def publish(gateway: Served, **prices: float) -> None:
    now = timestamp(gateway.backend.accounts.clock.now_us())
    marks = [instrument_pb2.Mark(symbol=name, last=price, mark_time=now) for name, price in prices.items()]
    reply = await gateway.admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=marks)]))
    assert reply.accepted == len(marks), reply


async def asked(gateway: Served, name: str, **fields: object) -> risk_gateway_pb2.CheckOrderResponse:
    checked = order(name, quantity=10.0, symbol="SAP")
    checked.limit_price = 200.0
    for field, value in fields.items():
        setattr(checked, field, value)
    return await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=checked))


async def filled(gateway: Served, name: str, fee: float = 0.0, fee_currency: str = "") -> None:
    execution = execution_pb2.Execution(
        account=ACCOUNT,
        execution_id=f"fill-{name}",
        client_order_id=name,
        kind=execution_pb2.EXECUTION_KIND_FILL,
        last_quantity=10.0,
        last_price=200.0,
        cumulative_quantity=10.0,
        fee=fee,
        fee_currency=fee_currency,
    )
    await gateway.gateway.ReportExecution(risk_gateway_pb2.ReportExecutionRequest(executions=[execution]))


async def equity(gateway: Served) -> float | None:
    request = risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT)
    state = await gateway.gateway.GetRiskState(request)
    return state.equity if state.HasField("equity") else None


async def test_a_foreign_stock_needs_a_rate_and_is_valued_at_it(euros: Served) -> None:
    without = await asked(euros, "without")
    await publish(euros, EURUSD=1.1)
    allowed = await asked(euros, "allowed")
    await filled(euros, "allowed")
    await publish(euros, EURUSD=1.2, SAP=210.0)
    later = await asked(euros, "later")

    assert (without.reason, without.allowed) == (decision_pb2.REASON_FX_MISSING, False)
    (value,) = (check for check in allowed.checks if check.measure == "order_value")
    assert value.after == pytest.approx(10 * 200 * 1.1)
    assert later.allowed
    assert await equity(euros) == pytest.approx(1_000_000 + 10 * (210 - 200) * 1.2)


async def test_a_rate_that_has_grown_old_refuses_what_opens(euros: Served, store_clock: list[int]) -> None:
    await publish(euros, EURUSD=1.1)
    assert (await asked(euros, "allowed")).allowed

    store_clock[0] += MINUTE_US
    await publish(euros, SAP=200.0, AAPL=100.0, MSFT=100.0)

    assert (await asked(euros, "opening")).reason == decision_pb2.REASON_MARK_STALE
    await filled(euros, "allowed")
    assert (await asked(euros, "closing", side=order_pb2.SIDE_SELL)).allowed


async def test_a_fee_that_nobody_has_a_rate_for_refuses_what_opens_until_one_is_published(euros: Served) -> None:
    await publish(euros, EURUSD=1.1)
    await asked(euros, "allowed")
    await filled(euros, "allowed", fee=5.0, fee_currency="CHF")

    unknown = await equity(euros)
    opening = await asked(euros, "opening")
    closing = await asked(euros, "closing", side=order_pb2.SIDE_SELL, quantity=4.0)
    await publish(euros, CHFUSD=1.25)
    again = await asked(euros, "again")

    assert (unknown, opening.reason, opening.allowed) == (None, decision_pb2.REASON_FX_MISSING, False)
    assert closing.allowed
    assert again.allowed
    assert await equity(euros) == pytest.approx(1_000_000 - 5 * 1.25)
