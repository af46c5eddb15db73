"""A real server of each kind on a unix socket over the memory log, with an account that may trade, for tests.

Only builders and the running of servers live here. Everything is ended with the test.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from engine.limits import Limit, LimitSet, ScopeKind
from gateway.accounts import Accounts
from gateway.clock import StoreClock
from gateway.log.account_log import AccountLog
from gateway.registry import arm_limits
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Backend, Deadlines, Pace
from gateway.rpc.caller import Callers, Known
from gateway.rpc.convert.responses import timestamp
from gateway.rpc.server import Server, control_server, gateway_server
from gateway.stopping import Stopper
from gateway.tasks import ended
from riskgateway.v1 import (
    account_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_admin_pb2_grpc,
    risk_analytics_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
)

ACCOUNT = "ALPHA"
KEY = b"k" * 32
QUICK = Pace(heartbeat_s=0.05, interval_s=0.0)
UNHURRIED = Pace(heartbeat_s=0.5, interval_s=0.0)
"""A busy account leaves no gap as long as its heartbeat."""
LIMITS = LimitSet(
    (
        Limit("order_quantity", ScopeKind.SYMBOL, 1_000.0),
        Limit("order_value", ScopeKind.ACCOUNT, 1_000_000.0),
        Limit("position", ScopeKind.SYMBOL, 500.0, warn=300.0),
    )
)


@dataclass(frozen=True, slots=True)
class Served:
    """A running server and stubs of its services."""

    backend: Backend
    server: Server
    address: str
    channel: grpc.aio.Channel
    gateway: "risk_gateway_pb2_grpc.RiskGatewayAsyncStub"
    admin: "risk_admin_pb2_grpc.RiskAdminAsyncStub"
    analytics: "risk_analytics_pb2_grpc.RiskAnalyticsAsyncStub"


@contextlib.asynccontextmanager
async def backend_over(
    log: AccountLog,
    store_clock: list[int],
    known: Iterable[Known] = (),
    local_operator: bool = True,
    pace: Pace = QUICK,
) -> AsyncIterator[Backend]:
    accounts, stopper = Accounts(log, StoreClock(lambda: store_clock[0], store_clock[0])), Stopper(log)
    await accounts.start()
    callers = Callers(list(known), local_operator)
    yield Backend(log, accounts, stopper, callers, Approvals(KEY), Deadlines(), pace)
    await stopper.aclose()
    await accounts.aclose()


@contextlib.asynccontextmanager
async def served(backend: Backend, folder: Path, control: bool = False) -> AsyncIterator[Served]:
    """The gateway's or control's server on a unix socket, and a channel to it."""
    server = control_server(backend) if control else gateway_server(backend)
    address = f"unix:{folder / ('control' if control else 'gateway')}"
    await server.start(address)
    async with grpc.aio.insecure_channel(address) as channel:
        gateway: risk_gateway_pb2_grpc.RiskGatewayAsyncStub = risk_gateway_pb2_grpc.RiskGatewayStub(channel)
        admin: risk_admin_pb2_grpc.RiskAdminAsyncStub = risk_admin_pb2_grpc.RiskAdminStub(channel)
        analytics: risk_analytics_pb2_grpc.RiskAnalyticsAsyncStub = risk_analytics_pb2_grpc.RiskAnalyticsStub(channel)
        yield Served(backend, server, address, channel, gateway, admin, analytics)
    await server.drain(0.0)


async def open_for_trading(admin: "risk_admin_pb2_grpc.RiskAdminAsyncStub", backend: Backend) -> None:
    """Limits armed, AAPL and MSFT registered and marked at 100, ACCOUNT open with a million dollars."""
    await arm_limits(backend.log, LIMITS)
    await admin.RegisterInstruments(
        risk_admin_pb2.RegisterInstrumentsRequest(instruments=[instrument("AAPL"), instrument("MSFT")])
    )
    await admin.ReportAccountEvent(opening(ACCOUNT))
    await admin.ReportAccountEvent(
        risk_admin_pb2.ReportAccountEventRequest(
            account=ACCOUNT,
            event_id="session",
            session_opened=risk_admin_pb2.SessionOpened(session_date="2023-11-15"),
        )
    )
    now = timestamp(backend.accounts.clock.now_us())
    marks = [instrument_pb2.Mark(symbol=s, bid=99.5, ask=100.5, mark_time=now) for s in ("AAPL", "MSFT")]
    await admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=marks)]))


def opening(account: str) -> risk_admin_pb2.ReportAccountEventRequest:
    opened = risk_admin_pb2.AccountOpened(
        base_currency="USD", cash=[account_pb2.CashBalance(currency="USD", amount=1_000_000.0)]
    )
    return risk_admin_pb2.ReportAccountEventRequest(account=account, event_id="opening", account_opened=opened)


@contextlib.asynccontextmanager
async def busy(gateway: Served) -> AsyncIterator[None]:
    """ACCOUNT changes all the time: there is no second without news."""

    async def trade() -> None:
        for number in itertools.count():
            await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order(f"busy {number}", 1e6)))

    trading = asyncio.create_task(trade())
    try:
        yield
    finally:
        await ended([trading])


def instrument(symbol: str, lot_size: float = 1.0) -> instrument_pb2.Instrument:
    return instrument_pb2.Instrument(
        symbol=symbol,
        asset_class=instrument_pb2.ASSET_CLASS_EQUITY,
        currency="USD",
        lot_size=lot_size,
        tick_size=0.01,
    )


def order(
    client_order_id: str, quantity: float = 100.0, symbol: str = "AAPL", account: str = ACCOUNT
) -> order_pb2.Order:
    return order_pb2.Order(
        account=account,
        strategy="momentum",
        client_order_id=client_order_id,
        symbol=symbol,
        side=order_pb2.SIDE_BUY,
        quantity=quantity,
        order_type=order_pb2.ORDER_TYPE_LIMIT,
        limit_price=100.0,
        time_in_force=order_pb2.TIME_IN_FORCE_DAY,
    )
