"""One seeded run: k gateways on one simulated log, clients that retry, a venue, and an operator who stops and resumes.

The log below is the memory log; between it and each gateway lies a network that delays, loses and repeats. Everything
random comes from one seed. The run returns the history that its clients saw; judging it is the checker's part.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from engine.control import Scope, TradingState
from engine.order import Order, Side
from engine.records import ExecutionKind
from gateway.accounts import Accounts
from gateway.errors import DeadlinePassed, StoreUnavailable
from gateway.log.account_log import AccountLog, AppendResult, Head, Page
from gateway.log.memory import MemoryLog
from tests.gateway.faults import DeafBulletin, Wrapped
from tests.gateway.world import ACCOUNT, EVERYTHING, Gateway, World, buy, report, world_on
from tests.simulation.checker import History, Stopped, objections
from tests.simulation.virtual import VirtualLoop

T = TypeVar("T")
BOUND_LOTS = 100
TIMEOUT_S = 0.25


@dataclass(frozen=True, slots=True)
class Settings:
    """How much happens, and how often it goes wrong (probabilities of one call)."""

    gateways: int = 3
    orders_each: int = 12
    lost_request: float = 0.03
    lost_reply: float = 0.05
    duplicate: float = 0.05
    pause: float = 0.02
    """A process that stands still between deciding and appending, longer than a decision may age."""
    make_log: Callable[[AccountLog], AccountLog] = field(default=lambda log: log)
    """Mutants of the log go here."""
    make_accounts: type[Accounts] = Accounts
    """Mutants of the gateway go here."""


class Network(Wrapped):
    """One gateway's way to the store."""

    def __init__(self, log: AccountLog, chance: random.Random, settings: Settings) -> None:
        super().__init__(log)
        self._chance, self._settings = chance, settings

    @property
    def bulletin(self) -> Any:
        return DeafBulletin(self._log)

    async def append(self, *arguments: Any) -> AppendResult:
        if self._chance.random() < self._settings.pause:
            await asyncio.sleep(self._chance.uniform(0.5, 3.0))
        return await self._trip(lambda: self._log.append(*arguments))

    async def read(self, *arguments: Any) -> Any:
        return await self._trip(lambda: self._log.read(*arguments))

    async def read_control(self, partition: int) -> Any:
        return await self._trip(lambda: self._log.read_control(partition))

    async def read_controls(self) -> Any:
        return await self._trip(self._log.read_controls)

    async def _trip(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._delay()
        if self._chance.random() < self._settings.lost_request:
            await asyncio.sleep(TIMEOUT_S)
            raise StoreUnavailable("the request was lost")
        result = await call()
        if self._chance.random() < self._settings.duplicate:
            await call()
        if self._chance.random() < self._settings.lost_reply:
            await asyncio.sleep(TIMEOUT_S)
            raise StoreUnavailable("the reply was lost")
        await self._delay()
        return result

    async def _delay(self) -> None:
        await asyncio.sleep(self._chance.expovariate(1 / 0.002))


@dataclass(slots=True)
class Outcome:
    history: History
    records: tuple[bytes, ...]
    head: Head

    def objections(self) -> list[str]:
        return objections(self.records, self.head, self.history, BOUND_LOTS)


def simulate(seed: int, settings: Settings) -> Outcome:
    """The run of a seed; the same each time."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            return runner.run(_run(random.Random(seed), settings, loop))
    finally:
        structlog.reset_defaults()


async def _run(chance: random.Random, settings: Settings, loop: VirtualLoop) -> Outcome:
    log = MemoryLog(loop.time_us)
    history = History()
    async with world_on(log, loop.time_us) as world:
        await world.crash(await world.open())
        gateways = [await _gateway(world, chance, settings) for _ in range(settings.gateways)]
        clients = [_trade(name, gateways, history, chance, settings) for name in range(settings.gateways)]
        operator = asyncio.create_task(_operate(world, history, chance))
        await asyncio.gather(*clients)
        operator.cancel()
        await asyncio.gather(operator, return_exceptions=True)
        for gateway in gateways:
            await gateway.accounts.aclose()
        page = await log.read(ACCOUNT, 0, 1_000_000)
        assert isinstance(page, Page)
        return Outcome(history, page.records, page.head)


async def _gateway(world: World, chance: random.Random, settings: Settings) -> Gateway:
    log = Network(settings.make_log(world.log), chance, settings)
    accounts = settings.make_accounts(log, await world.clock())
    await accounts.start()
    return Gateway(accounts)


async def _trade(
    name: int, gateways: list[Gateway], history: History, chance: random.Random, settings: Settings
) -> None:
    """A client: orders one after the other, each asked until it is answered, some asked again later."""
    asked: list[Order] = []
    for i in range(settings.orders_each):
        order = buy(f"c{name}-{i}", chance.randint(1, 40), side=chance.choice([Side.BUY, Side.SELL]))
        asked.append(order)
        allowed = await _ask(chance.choice(gateways), order, history, chance)
        if chance.random() < 0.4:
            await _ask(chance.choice(gateways), chance.choice(asked), history, chance)
        if allowed:
            await _work(order, allowed, gateways, chance)
        await asyncio.sleep(chance.expovariate(1 / 0.05))


async def _ask(gateway: Gateway, order: Order, history: History, chance: random.Random) -> int:
    while True:
        checked = history.invoke(order)
        try:
            answer = await gateway.check(order, wait_us=chance.randint(20_000, 2_000_000))
        except (StoreUnavailable, DeadlinePassed):
            continue
        history.answered(checked, answer)
        return answer.decided.allowed_lots


async def _work(order: Order, lots: int, gateways: list[Gateway], chance: random.Random) -> None:
    """What the venue makes of an order. A cancel that was asked for may come too late, or never."""
    name, filled = order.client_order_id, 0
    kinds = [chance.choice(["working", "fill", "cancel_requested", "cancelled"]) for _ in range(chance.randint(0, 3))]
    for i, kind in enumerate(kinds):
        quantity = chance.randint(1, lots - filled) if kind == ExecutionKind.FILL and filled < lots else 0
        if kind == ExecutionKind.FILL and not quantity:
            continue
        filled += quantity
        known = {"symbol": order.symbol, "sign": order.side.sign, "cumulative_quantity": float(filled)}
        execution = report(f"{name}-{i}", name, kind, quantity, **known)
        while True:
            try:
                await chance.choice(gateways).report(execution)
                break
            except (StoreUnavailable, DeadlinePassed):
                continue
        if kind == ExecutionKind.CANCELLED:
            return


async def _operate(world: World, history: History, chance: random.Random) -> None:
    """Stops, and resumes later."""
    while True:
        await asyncio.sleep(chance.expovariate(1 / 0.3))
        scope = chance.choice([EVERYTHING, Scope(ACCOUNT), Scope(symbol="AAA"), Scope(strategy="s1")])
        state = chance.choice([TradingState.HALTED, TradingState.CANCEL_ONLY, TradingState.REDUCE_ONLY])
        await world.stop(state, scope)
        stopped = Stopped(scope, state, history.tick())
        history.stopped.append(stopped)
        await asyncio.sleep(chance.expovariate(1 / 0.2))
        stopped.resume_invoked = history.tick()
        await world.resume(EVERYTHING)
