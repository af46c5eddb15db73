"""The demo's calls to the gateway and the control process: the contract's messages out of the demo's values.

Everything is sent with ids of its own, so that what got no answer is simply sent again: the servers answer repeats from
their logs. What no repeat can mend becomes a DemoError that says which call failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from engine.instrument import AssetClass, Instrument
from gateway.demo.broker import PaperBroker, Report, ReportKind
from gateway.demo.desk import Asked
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    execution_pb2,
    instrument_pb2,
    limit_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_admin_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
)

CALL_TIMEOUT_S = 5.0
RETRY_WAITS_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
"""A process that was killed is back within these; after them the run gives up."""

RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)
"""The outcome is unknown or the server busy: the same request again, under the same id, finds out."""

CURRENCY = "USD"
REPORTS_MAX = 500
"""What one call of ReportExecution takes."""

_KINDS = {
    ReportKind.WORKING: execution_pb2.EXECUTION_KIND_WORKING,
    ReportKind.FILL: execution_pb2.EXECUTION_KIND_FILL,
    ReportKind.CANCEL_REQUESTED: execution_pb2.EXECUTION_KIND_CANCEL_REQUESTED,
    ReportKind.CANCELLED: execution_pb2.EXECUTION_KIND_CANCELLED,
    ReportKind.EXPIRED: execution_pb2.EXECUTION_KIND_EXPIRED,
}

_ASSET_CLASSES = {
    AssetClass.EQUITY: instrument_pb2.ASSET_CLASS_EQUITY,
    AssetClass.FUTURE: instrument_pb2.ASSET_CLASS_FUTURE,
    AssetClass.FX: instrument_pb2.ASSET_CLASS_FX,
    AssetClass.CRYPTO: instrument_pb2.ASSET_CLASS_CRYPTO,
    AssetClass.BOND: instrument_pb2.ASSET_CLASS_BOND,
    AssetClass.CREDIT: instrument_pb2.ASSET_CLASS_CREDIT,
}

RequestT = TypeVar("RequestT", contravariant=True)
ResponseT = TypeVar("ResponseT", covariant=True)
Answer = TypeVar("Answer")


class DemoError(Exception):
    """The run can't go on; the message says at which step and what the server said."""


class NotAnOrder(DemoError):
    """The gateway makes no sense of an order: nothing was decided, and sent again it would be the same."""


class Method(Protocol[RequestT, ResponseT]):
    def __call__(
        self, request: RequestT, *, timeout: float | None = None, wait_for_ready: bool | None = None
    ) -> Awaitable[ResponseT]: ...


class Client:
    """One connection to the gateway and one to the control process. Times are stamped with `now_us`."""

    def __init__(self, gateway: grpc.aio.Channel, control: grpc.aio.Channel, now_us: Callable[[], int]) -> None:
        self.gateway: risk_gateway_pb2_grpc.RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(gateway)
        self._feed: risk_admin_pb2_grpc.RiskAdminAsyncStub = risk_admin_pb2_grpc.RiskAdminStub(gateway)
        self._control: risk_gateway_pb2_grpc.RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(control)
        self._admin: risk_admin_pb2_grpc.RiskAdminAsyncStub = risk_admin_pb2_grpc.RiskAdminStub(control)
        self._now_us = now_us

    async def register(self, instruments: Iterable[Instrument]) -> None:
        request = risk_admin_pb2.RegisterInstrumentsRequest(instruments=[_instrument(i) for i in instruments])
        await _asked("RegisterInstruments", self._admin.RegisterInstruments, request)

    async def limits(self) -> list[limit_pb2.Limit]:
        answer = await _asked("GetLimits", self._admin.GetLimits, risk_admin_pb2.GetLimitsRequest())
        return list(answer.limits)

    async def open_account(self, account: str, cash: float) -> None:
        """Raises DemoError where the account is there already: each run has its own."""
        opened = risk_admin_pb2.AccountOpened(
            base_currency=CURRENCY, cash=[account_pb2.CashBalance(currency=CURRENCY, amount=cash)]
        )
        await self._event(account, f"opening-{self._now_us()}", account_opened=opened)

    async def open_session(self, account: str, session_date: str) -> int:
        """The place of the session's record in the account's log."""
        opened = risk_admin_pb2.SessionOpened(session_date=session_date)
        return (await self._event(account, f"session-{session_date}", session_opened=opened)).sequence

    async def _event(
        self,
        account: str,
        event_id: str,
        account_opened: risk_admin_pb2.AccountOpened | None = None,
        session_opened: risk_admin_pb2.SessionOpened | None = None,
    ) -> risk_admin_pb2.ReportAccountEventResponse:
        request = risk_admin_pb2.ReportAccountEventRequest(
            account=account, event_id=event_id, account_opened=account_opened, session_opened=session_opened
        )
        return await _asked("ReportAccountEvent", self._admin.ReportAccountEvent, request)

    async def publish(self, prices: Mapping[str, float]) -> None:
        """The latest prices, as of now. Raises DemoError where one is refused."""

        async def send(
            request: risk_admin_pb2.PublishMarksRequest,
            *,
            timeout: float | None = None,
            wait_for_ready: bool | None = None,
        ) -> risk_admin_pb2.PublishMarksResponse:
            return await self._feed.PublishMarks(iter([request]), timeout=timeout, wait_for_ready=wait_for_ready)

        stamp = _timestamp(self._now_us())
        marks = [instrument_pb2.Mark(symbol=s, last=price, mark_time=stamp) for s, price in prices.items()]
        answer = await _asked("PublishMarks", send, risk_admin_pb2.PublishMarksRequest(marks=marks))
        if answer.refused_count:
            raise DemoError(f"PublishMarks: {answer.refused[0].symbol} refused: {answer.refused[0].message}")

    async def check(
        self, account: str, strategy: str, asked: Asked, *, short: bool, probe: bool = False
    ) -> risk_gateway_pb2.CheckOrderResponse:
        """Ask before trading. `probe`: only look, exactly, and reserve nothing. Raises NotAnOrder for what is none."""
        request = risk_gateway_pb2.CheckOrderRequest(
            order=_order(account, strategy, asked, short),
            dry_run=probe,
            explain=probe,
            checks=decision_pb2.CHECKS_ALL if probe else decision_pb2.CHECKS_BINDING,
        )
        return await _asked("CheckOrder", self.gateway.CheckOrder, request)

    async def report(self, account: str, strategy: str, reports: Sequence[Report]) -> None:
        """Report after trading, in the order given, in as many calls as it takes."""
        executions = [_execution(account, strategy, report) for report in reports]
        for start in range(0, len(executions), REPORTS_MAX):
            request = risk_gateway_pb2.ReportExecutionRequest(executions=executions[start : start + REPORTS_MAX])
            await _asked("ReportExecution", self.gateway.ReportExecution, request)

    async def stop_all(self, reason: str) -> risk_gateway_pb2.StopAllResponse:
        request = risk_gateway_pb2.StopAllRequest(mode=control_pb2.TRADING_STATE_HALTED, reason=reason)
        return await _asked("StopAll", self._control.StopAll, request)

    async def resume(self, reason: str) -> risk_gateway_pb2.ResumeResponse:
        return await _asked("Resume", self._control.Resume, risk_gateway_pb2.ResumeRequest(reason=reason))

    async def reconcile(
        self, account: str, strategy: str, broker: PaperBroker, reason: str
    ) -> risk_admin_pb2.ReconcilePositionsResponse:
        """Set the account to what the broker has; the answer says what differed."""
        request = risk_admin_pb2.ReconcilePositionsRequest(
            account=account,
            positions=[
                account_pb2.PositionQuantity(strategy=strategy, symbol=symbol, quantity=shares)
                for symbol, shares in broker.positions.items()
            ],
            open_orders=[
                risk_admin_pb2.ReportedOrder(
                    client_order_id=order.ticket.client_order_id,
                    leaves_quantity=order.leaves,
                    strategy=strategy,
                    symbol=order.ticket.symbol,
                    side=_side(order.ticket.sign, short=False),
                )
                for order in broker.open.values()
            ],
            has_open_orders=True,
            cash=[account_pb2.CashBalance(currency=CURRENCY, amount=broker.cash)],
            snapshot_time=_timestamp(self._now_us()),
            reason=reason,
        )
        return await _asked("ReconcilePositions", self._admin.ReconcilePositions, request)


async def _asked(name: str, method: Method[RequestT, Answer], request: RequestT) -> Answer:
    """The answer, asked for again while the server may only be busy or coming back. Raises DemoError."""
    for wait_s in (*RETRY_WAITS_S, None):
        try:
            return await method(request, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise NotAnOrder(f"{name}: {error.code().name}: {error.details()}") from error
            if wait_s is None or error.code() not in RETRIED:
                raise DemoError(f"{name}: {error.code().name}: {error.details()}") from error
        await asyncio.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _timestamp(time_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp


def _side(sign: int, *, short: bool) -> order_pb2.Side.ValueType:
    if sign > 0:
        return order_pb2.SIDE_BUY
    return order_pb2.SIDE_SELL_SHORT if short else order_pb2.SIDE_SELL


def _order(account: str, strategy: str, asked: Asked, short: bool) -> order_pb2.Order:
    order = asked.order
    resting = order.limit_price is not None
    return order_pb2.Order(
        account=account,
        strategy=strategy,
        client_order_id=asked.client_order_id,
        symbol=order.symbol,
        side=_side(order.sign, short=short),
        quantity=order.shares,
        order_type=order_pb2.ORDER_TYPE_LIMIT if resting else order_pb2.ORDER_TYPE_MARKET,
        limit_price=order.limit_price,
        time_in_force=order_pb2.TIME_IN_FORCE_GTC if resting else order_pb2.TIME_IN_FORCE_DAY,
        algo_id=strategy,
    )


def _execution(account: str, strategy: str, report: Report) -> execution_pb2.Execution:
    return execution_pb2.Execution(
        account=account,
        execution_id=report.report_id,
        client_order_id=report.client_order_id,
        kind=_KINDS[report.kind],
        strategy=strategy,
        symbol=report.symbol,
        side=_side(report.sign, short=False),
        last_quantity=report.quantity,
        last_price=report.price,
        cumulative_quantity=report.cumulative,
        leaves_quantity=report.leaves,
        fee=report.fee,
        fee_currency=CURRENCY if report.fee else "",
    )


def _instrument(instrument: Instrument) -> instrument_pb2.Instrument:
    return instrument_pb2.Instrument(
        symbol=instrument.symbol,
        asset_class=_ASSET_CLASSES[instrument.asset_class],
        currency=instrument.currency,
        lot_size=instrument.lot_size,
        tick_size=instrument.tick_size,
        sector=instrument.sector,
        issuer=instrument.issuer,
    )
