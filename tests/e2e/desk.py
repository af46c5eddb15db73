"""A trading desk on the wire: what an agent, an execution engine, a feed and an operator send, in a line each.

Generated stubs and numbers only; nothing of the server is imported. Calls raise grpc.RpcError as they come.
"""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    execution_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_admin_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
)
from tests.e2e.machine import CHANNEL_OPTIONS, Machine

TIMEOUT_S = 8.0  # of calls that are expected to be answered: only a busy machine needs more than milliseconds
BUY, SELL = order_pb2.SIDE_BUY, order_pb2.SIDE_SELL
LIMIT, MARKET = order_pb2.ORDER_TYPE_LIMIT, order_pb2.ORDER_TYPE_MARKET
HALTED, REDUCE_ONLY = control_pb2.TRADING_STATE_HALTED, control_pb2.TRADING_STATE_REDUCE_ONLY
ACTIVE = control_pb2.TRADING_STATE_ACTIVE

Verdict = risk_gateway_pb2.CheckOrderResponse
State = account_pb2.RiskState

SECTORS = {
    "AAPL": "Information Technology",
    "MSFT": "Information Technology",
    "KO": "Consumer Staples",
    "XOM": "Energy",
}
"""Symbols of the sample prices, so that the worker's model reaches them."""

PRICES = {"AAPL": 126.0, "MSFT": 234.5, "KO": 63.5, "XOM": 108.4}
SESSION = "2022-12-28"
"""The sample prices end on this day."""


def instrument(symbol: str) -> instrument_pb2.Instrument:
    return instrument_pb2.Instrument(
        symbol=symbol,
        asset_class=instrument_pb2.ASSET_CLASS_EQUITY,
        currency="USD",
        lot_size=1.0,
        tick_size=0.01,
        sector=SECTORS[symbol],
        issuer=symbol,
    )


class Desk:
    """One account, seen through a gateway port and a control port. Made by `desk`."""

    def __init__(self, account: str, gateway: grpc.aio.Channel, control: grpc.aio.Channel) -> None:
        self.account = account
        self.gateway = risk_gateway_pb2_grpc.RiskGatewayStub(gateway)
        self.control = risk_gateway_pb2_grpc.RiskGatewayStub(control)
        self.admin = risk_admin_pb2_grpc.RiskAdminStub(control)
        self.feed = risk_admin_pb2_grpc.RiskAdminStub(gateway)

    # --- set-up ----------------------------------------------------------------------------------------------------

    async def open(self, cash: float = 1_000_000.0, session: str = SESSION) -> None:
        """Instruments, account, session and prices: from here on orders can be checked."""
        await self.admin.RegisterInstruments(
            risk_admin_pb2.RegisterInstrumentsRequest(instruments=map(instrument, SECTORS)), timeout=TIMEOUT_S
        )
        opened = risk_admin_pb2.AccountOpened(
            base_currency="USD", cash=[account_pb2.CashBalance(currency="USD", amount=cash)]
        )
        await self._event("opening", account_opened=opened)
        await self.open_session(session)
        await self.mark(**PRICES)

    async def open_session(self, date: str) -> None:
        await self._event(f"session-{date}", session_opened=risk_admin_pb2.SessionOpened(session_date=date))

    async def _event(self, event_id: str, **event: Any) -> None:
        time = Timestamp()
        time.GetCurrentTime()
        request = risk_admin_pb2.ReportAccountEventRequest(
            account=self.account, event_id=event_id, event_time=time, **event
        )
        await self.admin.ReportAccountEvent(request, timeout=TIMEOUT_S, wait_for_ready=True)

    async def mark(self, **prices: float) -> None:
        """Publish prices as of now, a bid and an ask of one cent around each."""
        time = Timestamp()
        time.GetCurrentTime()
        marks = [
            instrument_pb2.Mark(symbol=symbol, bid=price - 0.01, ask=price + 0.01, last=price, mark_time=time)
            for symbol, price in prices.items()
        ]

        def batches() -> Iterator[risk_admin_pb2.PublishMarksRequest]:
            yield risk_admin_pb2.PublishMarksRequest(marks=marks)

        reply = await self.feed.PublishMarks(batches(), timeout=TIMEOUT_S, wait_for_ready=True)
        assert reply.accepted == len(marks), reply

    # --- orders ----------------------------------------------------------------------------------------------------

    def order(
        self, symbol: str = "KO", side: order_pb2.Side.ValueType = BUY, quantity: float = 10.0, **terms: Any
    ) -> order_pb2.Order:
        """A day limit order at the symbol's price of PRICES, under a new id."""
        standard = {
            "client_order_id": uuid.uuid4().hex,
            "order_type": LIMIT,
            "limit_price": PRICES.get(symbol, 100.0),
            "time_in_force": order_pb2.TIME_IN_FORCE_DAY,
        }
        return order_pb2.Order(
            account=self.account, symbol=symbol, side=side, quantity=quantity, **{**standard, **terms}
        )

    async def check(self, order: order_pb2.Order, timeout_s: float = TIMEOUT_S, **options: Any) -> Verdict:
        request = risk_gateway_pb2.CheckOrderRequest(order=order, **options)
        verdict: Verdict = await self.gateway.CheckOrder(request, timeout=timeout_s)
        return verdict

    async def insist(self, order: order_pb2.Order) -> Verdict:
        """Ask until there is an answer, as a client does whose gateway went away: with the same id each time."""
        while True:
            try:
                request = risk_gateway_pb2.CheckOrderRequest(order=order)
                verdict: Verdict = await self.gateway.CheckOrder(request, timeout=2.0, wait_for_ready=True)
                return verdict
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error

    async def fill(self, order: order_pb2.Order, quantity: float, price: float | None = None) -> None:
        """Report a whole or partial fill of an approved order."""
        execution = execution_pb2.Execution(
            account=self.account,
            execution_id=uuid.uuid4().hex,
            client_order_id=order.client_order_id,
            kind=execution_pb2.EXECUTION_KIND_FILL,
            last_quantity=quantity,
            last_price=price or order.limit_price,
            cumulative_quantity=quantity,
        )
        request = risk_gateway_pb2.ReportExecutionRequest(executions=[execution])
        await self.gateway.ReportExecution(request, timeout=TIMEOUT_S)

    async def cancel(self, client_order_id: str) -> None:
        """Report that the venue confirmed a cancel."""
        execution = execution_pb2.Execution(
            account=self.account,
            execution_id=uuid.uuid4().hex,
            client_order_id=client_order_id,
            kind=execution_pb2.EXECUTION_KIND_CANCELLED,
        )
        request = risk_gateway_pb2.ReportExecutionRequest(executions=[execution])
        await self.gateway.ReportExecution(request, timeout=TIMEOUT_S)

    async def buy(self, symbol: str, quantity: float) -> order_pb2.Order:
        """A buy that was approved and filled."""
        order = self.order(symbol, BUY, quantity)
        verdict = await self.check(order)
        assert verdict.allowed and verdict.allowed_quantity == quantity, verdict.message
        await self.fill(order, quantity)
        return order

    # --- operating -------------------------------------------------------------------------------------------------

    async def stop(self, **scope: Any) -> risk_gateway_pb2.StopAllResponse:
        """Stop this account, or whatever scope is given; `account=""` is everything."""
        request = risk_gateway_pb2.StopAllRequest(**{"account": self.account, "reason": "test", **scope})
        reply: risk_gateway_pb2.StopAllResponse = await self.control.StopAll(request, timeout=TIMEOUT_S)
        return reply

    async def resume(self, **scope: Any) -> risk_gateway_pb2.ResumeResponse:
        request = risk_gateway_pb2.ResumeRequest(**{"account": self.account, "reason": "test", **scope})
        reply: risk_gateway_pb2.ResumeResponse = await self.control.Resume(request, timeout=TIMEOUT_S)
        return reply

    async def state(self) -> State:
        request = risk_gateway_pb2.GetRiskStateRequest(account=self.account)
        state: State = await self.gateway.GetRiskState(request, timeout=TIMEOUT_S, wait_for_ready=True)
        return state

    async def updates(self) -> AsyncGenerator[risk_gateway_pb2.RiskStateUpdate]:
        """What the stream tells of this account, from now on. To be closed."""
        request = risk_gateway_pb2.StreamRiskStateRequest(accounts=[self.account])
        call = self.gateway.StreamRiskState(request, timeout=3 * TIMEOUT_S, wait_for_ready=True)
        try:
            async for update in call:
                yield update
        finally:
            call.cancel()

    async def await_state(self, condition: Callable[[State], bool]) -> State:
        """The first state on the stream for which the condition holds."""
        async with aclosing(self.updates()) as updates:
            async for update in updates:
                if update.WhichOneof("update") == "risk_state" and condition(update.risk_state):
                    return update.risk_state
        raise AssertionError("the stream ended")

    async def await_model(self, session: str = SESSION) -> State:
        """Returns once orders are judged by the risk model of this session."""
        return await self.await_state(lambda state: state.model_session_date == session)


@asynccontextmanager
async def desk(machine: Machine, account: str, gateway: str | None = None) -> AsyncIterator[Desk]:
    """A desk for one account; `gateway`: through another gateway than the machine's own."""
    async with (
        grpc.aio.insecure_channel(gateway or machine.gateway, options=CHANNEL_OPTIONS) as to_gateway,
        grpc.aio.insecure_channel(machine.control, options=CHANNEL_OPTIONS) as to_control,
    ):
        yield Desk(account, to_gateway, to_control)
