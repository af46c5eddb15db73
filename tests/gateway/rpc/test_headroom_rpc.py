"""GetHeadroom over a real server: what CheckOrder would then answer, of any symbol, and no record is left of it."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from engine.limits import Limit, LimitSet, ScopeKind
from gateway.log.account_log import partition_of
from gateway.log.memory import MemoryLog
from gateway.registry import arm_limits
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import decision_pb2, execution_pb2, instrument_pb2, order_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.faults import AwayInPart
from tests.gateway.rpc.serving import ACCOUNT, LIMITS, Served, backend_over, instrument, open_for_trading, order, served


def asking(*symbols: str, strategy: str = "momentum", account: str = ACCOUNT) -> risk_gateway_pb2.GetHeadroomRequest:
    return risk_gateway_pb2.GetHeadroomRequest(account=account, strategy=strategy, symbols=symbols)


def market(client_order_id: str, symbol: str, side: order_pb2.Side.ValueType, quantity: float) -> order_pb2.Order:
    asked = order(client_order_id, quantity, symbol)
    asked.side, asked.order_type = side, order_pb2.ORDER_TYPE_MARKET
    asked.ClearField("limit_price")
    return asked


async def verdict(gateway: Served, asked: order_pb2.Order) -> risk_gateway_pb2.CheckOrderResponse:
    return await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=asked, dry_run=True))


async def hold(gateway: Served, symbol: str, quantity: float) -> None:
    """Buy, or sell where below 0, at 100."""
    side = order_pb2.SIDE_BUY if quantity > 0 else order_pb2.SIDE_SELL
    asked = market(f"hold-{symbol}-{quantity}", symbol, side, abs(quantity))
    assert (await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=asked))).allowed
    fill = execution_pb2.Execution(
        account=ACCOUNT,
        execution_id=f"fill-{symbol}-{quantity}",
        client_order_id=asked.client_order_id,
        kind=execution_pb2.EXECUTION_KIND_FILL,
        last_quantity=abs(quantity),
        last_price=100.0,
    )
    await gateway.gateway.ReportExecution(risk_gateway_pb2.ReportExecutionRequest(executions=[fill]))


async def trade_also(gateway: Served, control: Served, *symbols: str, lot_size: float = 1.0) -> None:
    """Register more symbols, at a mark of 100."""
    instruments = [instrument(symbol, lot_size) for symbol in symbols]
    await control.admin.RegisterInstruments(risk_admin_pb2.RegisterInstrumentsRequest(instruments=instruments))
    now = timestamp(gateway.backend.accounts.clock.now_us())
    marks = [instrument_pb2.Mark(symbol=symbol, last=100.0, mark_time=now) for symbol in symbols]
    await gateway.admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=marks)]))


async def test_the_most_is_told_for_both_sides_with_what_binds(gateway: Served) -> None:
    await hold(gateway, "AAPL", 120.0)

    answer = await gateway.gateway.GetHeadroom(asking("MSFT", "AAPL"))

    msft, aapl = answer.headrooms
    assert (msft.symbol, msft.max_buy_quantity, msft.max_sell_quantity) == ("MSFT", 500.0, 500.0)
    assert (aapl.symbol, aapl.max_buy_quantity, aapl.max_sell_quantity) == ("AAPL", 380.0, 620.0)
    assert (aapl.binding_measure, aapl.binding_sell_measure) == ("position@symbol:AAPL", "position@symbol:AAPL")
    assert (aapl.buy_reason, aapl.sell_reason) == (decision_pb2.REASON_POSITION, decision_pb2.REASON_POSITION)


async def test_it_is_stamped_and_leaves_no_record(gateway: Served) -> None:
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))

    answer = await gateway.gateway.GetHeadroom(asking("AAPL", "MSFT"))

    after = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert (answer.account, answer.sequence, answer.stop_epoch) == (ACCOUNT, state.sequence, state.stop_epoch)
    assert after.sequence == state.sequence
    assert answer.state_time == timestamp(gateway.backend.accounts.clock.now_us())
    committer = gateway.backend.accounts.latest(ACCOUNT)
    assert committer is not None and "AAPL" not in committer.state.slots


async def test_without_symbols_it_is_of_what_is_held_or_open(gateway: Served, control: Served) -> None:
    await trade_also(gateway, control, "IBM")
    nothing = await gateway.gateway.GetHeadroom(asking())
    await hold(gateway, "MSFT", -20.0)
    await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order("open", 30.0, "AAPL")))
    await hold(gateway, "IBM", 10.0)
    await hold(gateway, "IBM", -10.0)

    answer = await gateway.gateway.GetHeadroom(asking())

    assert list(nothing.headrooms) == []
    assert {one.symbol: one.max_buy_quantity for one in answer.headrooms} == {"MSFT": 520.0, "AAPL": 470.0}


async def test_a_symbol_that_nobody_registered_has_none(gateway: Served) -> None:
    (found,) = (await gateway.gateway.GetHeadroom(asking("NOPE"))).headrooms

    assert (found.max_buy_quantity, found.max_sell_quantity, found.binding_measure) == (0.0, 0.0, "")
    assert (found.buy_reason, found.sell_reason) == (decision_pb2.REASON_INSTRUMENT_UNKNOWN,) * 2


async def test_a_price_that_no_record_has_yet_counts(gateway: Served) -> None:
    """At 100 the position limit of 500 binds; at 10,000 the order's value, a million, at the ask and 1 % above it."""
    mark = instrument_pb2.Mark(
        symbol="AAPL", bid=10_000.0, ask=10_000.0, mark_time=timestamp(gateway.backend.accounts.clock.now_us())
    )
    await gateway.admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=[mark])]))

    (found,) = (await gateway.gateway.GetHeadroom(asking("AAPL"))).headrooms

    assert (found.max_buy_quantity, found.max_sell_quantity) == (99.0, 100.0)
    assert found.binding_measure == "order_value@account:ALPHA"


async def test_a_stop_leaves_nothing_and_reduce_only_the_way_out(gateway: Served, control: Served) -> None:
    await hold(gateway, "AAPL", 120.0)
    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(symbol="MSFT"))
    reduce_only = risk_gateway_pb2.StopAllRequest(account=ACCOUNT, mode="TRADING_STATE_REDUCE_ONLY")  # type: ignore[arg-type]
    stopped = await control.gateway.StopAll(reduce_only)

    answer = await gateway.gateway.GetHeadroom(asking("AAPL", "MSFT"))

    aapl, msft = answer.headrooms
    assert answer.stop_epoch == stopped.stop_epoch
    assert (aapl.max_buy_quantity, aapl.max_sell_quantity) == (0.0, 120.0)
    assert aapl.sell_reason == decision_pb2.REASON_REDUCE_ONLY
    assert (msft.max_buy_quantity, msft.max_sell_quantity) == (0.0, 0.0)
    assert msft.buy_reason == decision_pb2.REASON_TRADING_HALTED


async def test_lots_are_told_as_quantities_that_an_order_may_have(gateway: Served, control: Served) -> None:
    await trade_also(gateway, control, "TINY", lot_size=0.001)

    (found,) = (await gateway.gateway.GetHeadroom(asking("TINY"))).headrooms

    assert found.max_buy_quantity == 500.0
    assert (await verdict(gateway, market("q", "TINY", order_pb2.SIDE_BUY, found.max_buy_quantity))).allowed


@pytest.mark.parametrize("held", [0.0, 120.0, -77.0])
@pytest.mark.parametrize("working", [0.0, 60.0])
async def test_it_is_what_check_order_would_then_answer(gateway: Served, held: float, working: float) -> None:
    if held:
        await hold(gateway, "AAPL", held)
    if working:
        await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order("open", working)))
    (found,) = (await gateway.gateway.GetHeadroom(asking("AAPL"))).headrooms

    for side, most, reason in (
        (order_pb2.SIDE_BUY, found.max_buy_quantity, found.buy_reason),
        (order_pb2.SIDE_SELL, found.max_sell_quantity, found.sell_reason),
    ):
        whole = await verdict(gateway, market("whole", "AAPL", side, most))
        more = await verdict(gateway, market("more", "AAPL", side, most + 1))
        assert (whole.allowed, whole.allowed_quantity) == (True, most)
        assert (more.allowed, more.reason) == (False, reason)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (asking("AAPL", account=""), "account"),
        (asking("AAPL", ""), "symbols[1]"),
        (asking("AAPL", strategy=" x"), "strategy"),
        (asking(*["AAPL"] * 501), "symbols"),
    ],
)
async def test_a_malformed_question_names_its_fields(
    gateway: Served, request_: risk_gateway_pb2.GetHeadroomRequest, fields: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.gateway.GetHeadroom(request_)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(f"{fields}: ")


async def test_an_unknown_account_is_not_found(gateway: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await gateway.gateway.GetHeadroom(asking("AAPL", account="NOBODY"))

    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_while_a_stop_is_being_carried_out_here_none_is_told(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    in_part = AwayInPart(memory_log)
    async with (
        backend_over(in_part, store_clock) as backend,
        served(backend, folder, control=True) as control,
        served(backend, folder) as gateway,
    ):
        await open_for_trading(control.admin, backend)
        in_part.away = {partition_of(ACCOUNT)}
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=ACCOUNT))

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.gateway.GetHeadroom(asking("AAPL"))
        in_part.away = set()
        await asyncio.wait_for(in_part.complete.wait(), 10)

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_it_is_of_the_strategy_that_asks(gateway: Served) -> None:
    by_strategy = Limit("position", ScopeKind.STRATEGY, 50.0)
    await arm_limits(gateway.backend.log, LimitSet((*LIMITS.rows, by_strategy)))
    await hold(gateway, "AAPL", 20.0)

    mine, other = [
        (await gateway.gateway.GetHeadroom(asking("AAPL", strategy=s))).headrooms[0] for s in ("momentum", "")
    ]

    assert (mine.max_buy_quantity, mine.binding_measure) == (30.0, "position@strategy:momentum")
    assert (other.max_buy_quantity, other.binding_measure) == (50.0, "position@strategy:(none)")


@pytest.mark.parametrize("symbols", [[f"S{at:03d}" for at in range(500)], ["AAPL"] * 500], ids=["new", "known"])
async def test_five_hundred_symbols_let_others_have_their_turn(
    gateway: Served, control: Served, symbols: list[str]
) -> None:
    """Bringing symbols in and computing their headroom are both done in slices, and orders pass between them."""
    await trade_also(gateway, control, *dict.fromkeys(symbols))

    asked = asyncio.ensure_future(gateway.gateway.GetHeadroom(asking(*symbols)))
    passed = 0
    while not asked.done():
        answer = await gateway.gateway.CheckOrder(
            risk_gateway_pb2.CheckOrderRequest(order=order(f"o{passed}", 1.0, "MSFT"))
        )
        assert answer.allowed
        passed += 1

    found = (await asked).headrooms
    assert [one.symbol for one in found] == symbols
    assert {one.max_buy_quantity for one in found} == {500.0}
    assert passed > 10
