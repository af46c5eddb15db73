"""Builders for the tests of what decides over a log: a store with limits, instruments and marks, and gateways on it.

A `World` is one log and as many gateways (Accounts) on it as a story needs; all are ended with the story. Orders are
lots of one of AAA and BBB at a mark of 100; the position limit is 100 lots unless a story arms another. No assertions.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from engine.control import Scope, TradingState
from engine.facts import Execution, Quote, StatedPosition, account_opened, executed, reconciled, session_opened
from engine.instrument import AssetClass, Instrument
from engine.limits import Limit, LimitSet, Policy, ScopeKind
from engine.order import Order, OrderType, Side, TimeInForce
from engine.records import AnyRecord, Decided, decode
from gateway.accounts import LOADED_MAX, Accounts
from gateway.clock import StoreClock
from gateway.committer import Answer, Build, Reading, Recorded
from gateway.log.account_log import AccountLog, Page
from gateway.market.quotes import Quotes
from gateway.pending_stops import PendingStops
from gateway.registry import arm_limits, register
from gateway.stopping import ResumeOutcome, StopOutcome, Stopper

ACCOUNT = "alpha"
STRATEGY = "s1"
SESSION = "2023-11-14"
POSITION_MAX = 100.0
PATIENCE_US = 10_000_000
EVERYTHING = Scope()
POLICY = Policy(mark_age_max_s=3600.0)


def stock(symbol: str, **fields: Any) -> Instrument:
    return msgspec.structs.replace(Instrument(symbol, AssetClass.EQUITY, "USD", 1.0, 0.01), **fields)


def limits(*more: Limit, position: float = POSITION_MAX) -> LimitSet:
    """Size, value and position, without which nothing trades, and `more`."""
    rows = (
        Limit("order_quantity", ScopeKind.ACCOUNT, 1_000.0),
        Limit("order_value", ScopeKind.ACCOUNT, 1e9),
        Limit("position", ScopeKind.SYMBOL, position),
    )
    return LimitSet((*rows, *more), POLICY)


def buy(client_order_id: str, quantity: float = 1.0, account: str = ACCOUNT, **fields: Any) -> Order:
    """A market order of the day for AAA."""
    order = Order(account, client_order_id, "AAA", Side.BUY, quantity, OrderType.MARKET, TimeInForce.DAY, STRATEGY)
    return msgspec.structs.replace(order, **fields)


def sell(client_order_id: str, quantity: float = 1.0, account: str = ACCOUNT, **fields: Any) -> Order:
    return buy(client_order_id, quantity, account, side=Side.SELL, **fields)


def report(execution_id: str, client_order_id: str, kind: str, quantity: float = 0.0, **fields: Any) -> Execution:
    """What an execution engine says of an order; a fill is at 100."""
    price = 100.0 if quantity else 0.0
    execution = Execution(
        account=ACCOUNT,
        execution_id=execution_id,
        client_order_id=client_order_id,
        kind=kind,
        last_quantity=quantity,
        last_price=price,
    )
    return msgspec.structs.replace(execution, **fields)


def opening(*positions: StatedPosition, cash: float = 1_000_000.0) -> Build:
    return lambda state, terms, now_us: account_opened(
        state, terms.instruments, "open", "USD", {"USD": cash}, positions, now_us, terms.control.epoch
    )


def session(date: str = SESSION) -> Build:
    return lambda state, terms, now_us: session_opened(state, f"session-{date}", date, now_us, terms.control.epoch)


def reported(execution: Execution) -> Build:
    return lambda state, terms, now_us: executed(state, terms.instruments, execution, now_us, terms.control.epoch)


def reconciling(*positions: StatedPosition) -> Build:
    return lambda state, terms, now_us: reconciled(
        state, terms.instruments, positions, None, None, 0, "statement", now_us, terms.control.epoch
    )


class Gateway:
    """A gateway on a log, in the words of the stories. `accounts` is the real thing."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts

    def in_us(self, wait_us: int) -> int:
        return self.accounts.clock.now_us() + wait_us

    async def check(self, order: Order, *, dry_run: bool = False, wait_us: int = PATIENCE_US) -> Answer:
        answers = await self.accounts.check([order], dry_run=dry_run, basket=False, deadline_us=self.in_us(wait_us))
        return answers[0]

    async def check_all(self, *orders: Order, basket: bool = False) -> list[Answer]:
        return await self.accounts.check(orders, dry_run=False, basket=basket, deadline_us=self.in_us(PATIENCE_US))

    async def record(
        self, build: Build, account: str = ACCOUNT, *, opens: bool = False, wait_us: int = PATIENCE_US
    ) -> Recorded:
        return await self.accounts.record(account, build, self.in_us(wait_us), opens=opens)

    async def report(self, *executions: Execution) -> None:
        for execution in executions:
            await self.record(reported(execution), execution.account)

    async def read(self, account: str = ACCOUNT) -> Reading:
        return await self.accounts.read(account, self.in_us(PATIENCE_US))


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class World:
    """One log, armed, and what is started on it."""

    def __init__(self, log: AccountLog, monotonic: Callable[[], int]) -> None:
        self.log = log
        self._monotonic = monotonic
        self._gateways: list[Accounts] = []
        self._stoppers: list[Stopper] = []

    async def clock(self, log: AccountLog | None = None) -> StoreClock:
        return StoreClock(self._monotonic, await (log or self.log).now_us())

    async def arm(self, limit_set: LimitSet) -> None:
        await arm_limits(self.log, limit_set)

    async def mark(self, symbol: str, price: float) -> None:
        """Post a mark, as a feed's process would."""
        quotes, now_us = Quotes(self.log.bulletin), await self.log.now_us()
        quotes.offer(Quote(symbol, price, price, price, now_us), now_us)
        await quotes.flush()
        await quotes.aclose()

    async def gateway(
        self, log: AccountLog | None = None, loaded_max: int = LOADED_MAX, ahead: bool = False
    ) -> Gateway:
        """A gateway that has started, with a connection of its own where `log` is given."""
        accounts = Accounts(log or self.log, await self.clock(), loaded_max=loaded_max, ahead=ahead)
        self._gateways.append(accounts)
        await accounts.start()
        return Gateway(accounts)

    async def open(self, *positions: StatedPosition, account: str = ACCOUNT) -> Gateway:
        """A gateway that has opened the account and its session."""
        gateway = await self.gateway()
        await gateway.record(opening(*positions), account, opens=True)
        await gateway.record(session(), account)
        return gateway

    async def crash(self, gateway: Gateway) -> None:
        self._gateways.remove(gateway.accounts)
        await gateway.accounts.aclose()

    async def stop(
        self, state: TradingState = TradingState.HALTED, scope: Scope = EVERYTHING, rank: int = 1, reason: str = ""
    ) -> StopOutcome:
        return await self.stopper().stop(scope, state, reason, "operator", rank)

    async def resume(self, scope: Scope = EVERYTHING, rank: int = 1) -> ResumeOutcome:
        return await self.stopper().resume(scope, "all is well", "operator", rank)

    def stopper(self, log: AccountLog | None = None, data_dir: Path | None = None) -> Stopper:
        """What a process stops with; to be started where what is written down in `data_dir` shall be carried out."""
        stopper = Stopper(log or self.log, files=PendingStops(data_dir) if data_dir is not None else None)
        self._stoppers.append(stopper)
        return stopper

    async def aclose(self) -> None:
        for accounts in self._gateways:
            await accounts.aclose()
        for stopper in self._stoppers:
            await stopper.aclose()


@asynccontextmanager
async def world_on(log: AccountLog, monotonic: Callable[[], int] = monotonic_us) -> AsyncIterator[World]:
    """A world on an empty log: AAA and BBB registered at 100, size, value and position limits armed."""
    world = World(log, monotonic)
    try:
        await register(log, [stock("AAA"), stock("BBB")])
        await world.arm(limits())
        for symbol in ("AAA", "BBB"):
            await world.mark(symbol, 100.0)
        yield world
    finally:
        await world.aclose()


async def records_of(log: AccountLog, account: str = ACCOUNT) -> list[AnyRecord]:
    page = await log.read(account, 0, 1_000_000)
    return [decode(record) for record in page.records] if isinstance(page, Page) else []


async def decisions_of(log: AccountLog, account: str = ACCOUNT) -> list[Decided]:
    return [record for record in await records_of(log, account) if isinstance(record, Decided)]


def leaves(state_orders: dict[str, Any]) -> dict[str, int]:
    """Open lots by client order id."""
    return {name: order.leaves for name, order in state_orders.items()}


def ids(orders: Sequence[Order]) -> list[str]:
    return [order.client_order_id for order in orders]
