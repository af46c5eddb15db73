"""The paper account of the drills: two shares, a call, a risk model made up by hand, and a log in memory.

AAA at 100 moves -2 % and +1 % from day to day, BBB at 50 by half of that and against it; a call on AAA is at 5. Time
stands still unless a play moves it. Every state is built from records that a log could hold; no verdict is given here.
"""

import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from engine.account import AccountState
from engine.control import Control
from engine.decide import Terms, decide
from engine.facts import Execution, executed, listing
from engine.instrument import AssetClass, Instrument, InstrumentSet, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.limits import Limit, LimitAction, LimitSet, Policy, ScopeKind, Unit
from engine.order import Order, OrderType, Side, TimeInForce
from engine.records import (
    AccountOpened,
    AnyRecord,
    Decided,
    ExecutionKind,
    OpeningPosition,
    Quoted,
    SessionOpened,
    Valued,
)
from engine.risk import model as risk_model
from engine.risk.model import OPTION_ARRAYS, RiskModel, option_columns
from gateway.accounts import Accounts
from gateway.clock import StoreClock
from gateway.committer import Answer, Build, Reading, Recorded
from gateway.log.memory import MemoryLog
from gateway.registry import arm_limits, register
from gateway.stopping import Stopper

ACCOUNT = "drill"
SESSION = datetime.date(2023, 11, 14)
NOW_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
CASH = 1_000_000.0
PATIENCE_US = 10 * SECOND_US
WIDE = 1e15
"""A bound that never binds."""

MARKS: Mapping[str, float] = {"AAA": 100.0, "BBB": 50.0}


def share(symbol: str, **fields: Any) -> Instrument:
    return msgspec.structs.replace(Instrument(symbol, AssetClass.EQUITY, "USD", 1.0, 0.01), **fields)


def universe(*instruments: Instrument) -> InstrumentSet:
    return InstrumentSet({one.symbol: one for one in instruments})


_CONTRACT = OptionTerms(100.0, OptionRight.CALL, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON, volatility=0.2)
CALL = Instrument(
    "CALL",
    AssetClass.OPTION,
    "USD",
    1.0,
    0.01,
    100.0,
    underlying="AAA",
    expiry=datetime.date(2030, 1, 18),
    option=_CONTRACT,
)
SHARES = universe(share("AAA"), share("BBB"))
WITH_CALL = universe(share("AAA"), share("BBB"), CALL)
CALL_MARKS: Mapping[str, float] = {**MARKS, "CALL": 5.0}


def risk(
    returns: Mapping[str, Sequence[float]],
    *,
    calls: Mapping[str, float] | None = None,
    built_time_us: int = NOW_US,
) -> RiskModel:
    """A model of these daily returns, oldest first, one scenario in which each falls by 30 %, and a grid of ±20 %.
    `calls`: what a unit of the last symbol, a call, is valued at and moves by (engine.risk.model.OptionColumns)."""
    symbols = tuple(returns)
    days = len(returns[symbols[0]])
    table = np.array([returns[symbol] for symbol in symbols]).T
    options = risk_model.NO_OPTIONS
    if calls is not None:
        values = np.array([[calls.get(name, 0.0)] for name in OPTION_ARRAYS])
        options = option_columns(np.array([len(symbols) - 1]), values)
    built = RiskModel(
        hash="",
        session_date=SESSION,
        last_price_date=SESSION - datetime.timedelta(days=1),
        built_time_us=built_time_us,
        base_currency="USD",
        instrument_set="",
        symbols=symbols,
        column={symbol: place for place, symbol in enumerate(symbols)},
        returns=np.asfortranarray(np.vstack((table, np.full((1, len(symbols)), -0.3)))),
        n_days=days,
        dates=tuple(SESSION - datetime.timedelta(days=days - at) for at in range(days)),
        scenario_names=("fall",),
        has_history=np.ones(len(symbols), dtype=np.bool_),
        has_factor=np.ones(len(symbols), dtype=np.bool_),
        unaffected=np.zeros(len(symbols), dtype=np.bool_),
        grid=np.tile(np.array((-0.2, 0.2)), (len(symbols), 1)),
        betas=np.full(len(symbols), np.nan),
        lookback_days=days,
        warnings=(),
        options=options,
    )
    return risk_model.decode(risk_model.encode(built))


RETURNS: Mapping[str, Sequence[float]] = {"AAA": [-0.02, 0.01] * 50, "BBB": [0.01, -0.01] * 50}
CALL_VALUES: Mapping[str, float] = {
    "reference": 100.0,
    "spot": 100.0,
    "price": 5.0,
    "delta": 0.5,
    "gamma": 0.02,
    "theta": -0.05,
    "vega": 0.3,
}


def row(measure: str, limit: float, scope: str = "account", action: str = "reject", **fields: Any) -> Limit:
    if isinstance(unit := fields.get("unit"), str):
        fields["unit"] = Unit(unit)
    return Limit(measure, ScopeKind(scope), limit, action=LimitAction(action), **fields)


GUARDS = (row("order_quantity", WIDE, "symbol"), row("order_value", WIDE), row("position", WIDE, "symbol"))
"""Without a limit of each of these kinds nothing trades; these never bind."""


def limits(*rows: Limit, policy: Policy | None = None) -> LimitSet:
    """The rows and the guards."""
    return LimitSet((*rows, *GUARDS), policy if policy is not None else Policy())


def buy(symbol: str = "AAA", quantity: float = 1.0, name: str = "asked", **fields: Any) -> Order:
    """A market order of the day, unless a limit price is given."""
    kind = OrderType.LIMIT if "limit_price" in fields else OrderType.MARKET
    order = Order(ACCOUNT, name, symbol, Side.BUY, float(quantity), kind, TimeInForce.DAY, "")
    return msgspec.structs.replace(order, **fields)


def sell(symbol: str = "AAA", quantity: float = 1.0, name: str = "asked", **fields: Any) -> Order:
    return buy(symbol, quantity, name, side=Side.SELL, **fields)


def valued(marks: Mapping[str, float | Quoted], time_us: int = NOW_US) -> Valued:
    quotes = {
        symbol: mark if isinstance(mark, Quoted) else Quoted(mark, None, None, time_us)
        for symbol, mark in marks.items()
    }
    return Valued(time_us=time_us, marks=quotes)


def account(
    instruments: InstrumentSet = SHARES,
    marks: Mapping[str, float | Quoted] = MARKS,
    *,
    cash: float = CASH,
    positions: Mapping[str, int] | None = None,
    strategy: str = "",
) -> AccountState:
    """Opened with its session, in US dollars; `positions` in lots, bought at 100, are of one strategy."""
    state = AccountState(ACCOUNT)
    held = tuple(OpeningPosition(strategy, symbol, lots, 100.0) for symbol, lots in (positions or {}).items())
    state.apply(_opening(state, instruments, cash, held))
    state.apply(valued(marks))
    state.apply(SessionOpened(time_us=NOW_US, date=SESSION.isoformat()))
    return state


def sent(state: AccountState, order: Order, instruments: InstrumentSet = SHARES) -> Decided:
    """An order that wide limits let through, folded in: it is open afterwards."""
    record = decide(state, Terms(Control(), limits(), instruments, None), order, NOW_US)
    assert record.allowed_lots, f"{order.client_order_id}: {record.message}"
    state.apply(record)
    return record


def told(
    state: AccountState,
    name: str,
    kind: str = ExecutionKind.FILL,
    quantity: float = 0.0,
    price: float = 100.0,
    instruments: InstrumentSet = SHARES,
) -> None:
    """What a venue says of an open order, folded in."""
    for record in executed(state, instruments, execution(name, kind, quantity, price), NOW_US, 0):
        state.apply(record)


def execution(name: str, kind: str = ExecutionKind.FILL, quantity: float = 0.0, price: float = 100.0) -> Execution:
    return Execution(
        account=ACCOUNT,
        execution_id=f"{name}-{kind}",
        client_order_id=name,
        kind=kind,
        last_quantity=quantity,
        last_price=price if quantity else 0.0,
    )


class Desk:
    """The paper account behind the committer that serves orders, on a log in memory. `now_us` is its time."""

    def __init__(self) -> None:
        self.now_us = NOW_US
        self.log = MemoryLog(lambda: self.now_us)
        self.accounts = self._started_on_log()
        self.stopper = Stopper(self.log)

    def _started_on_log(self) -> Accounts:
        return Accounts(self.log, StoreClock(lambda: self.now_us, self.now_us))

    async def check(self, order: Order) -> Answer:
        until_us = self.now_us + PATIENCE_US
        return (await self.accounts.check([order], dry_run=False, basket=False, deadline_us=until_us))[0]

    async def record(self, build: Build, *, opens: bool = False) -> Recorded:
        return await self.accounts.record(ACCOUNT, build, self.now_us + PATIENCE_US, opens=opens)

    async def note(self, *records: AnyRecord) -> None:
        await self.record(lambda state, terms, now_us: list(records))

    async def report(self, told: Execution) -> None:
        await self.record(
            lambda state, terms, now_us: executed(state, terms.instruments, told, now_us, terms.control.epoch)
        )

    async def read(self) -> Reading:
        return await self.accounts.read(ACCOUNT, self.now_us + PATIENCE_US)

    async def restart(self) -> None:
        """A new process on the same log: it knows what the log holds and nothing else."""
        await self.accounts.aclose()
        self.accounts = self._started_on_log()
        await self.accounts.start()

    async def aclose(self) -> None:
        await self.accounts.aclose()
        await self.stopper.aclose()


@asynccontextmanager
async def desk(armed: LimitSet | None = None, positions: Mapping[str, int] | None = None) -> AsyncIterator[Desk]:
    """Open for trading in AAA and BBB, under wide limits unless others are armed. `positions`: lots bought at 100."""
    opened = Desk()
    try:
        await register(opened.log, SHARES.instruments.values())
        await arm_limits(opened.log, armed or limits())
        await opened.accounts.start()
        held = tuple(OpeningPosition("", symbol, lots, 100.0) for symbol, lots in (positions or {}).items())
        await opened.record(lambda state, terms, now_us: [_opening(state, terms.instruments, CASH, held)], opens=True)
        await opened.note(valued(MARKS), SessionOpened(time_us=NOW_US, date=SESSION.isoformat(), event_id="session"))
        yield opened
    finally:
        await opened.aclose()


def _opening(
    state: AccountState, instruments: InstrumentSet, cash: float, held: tuple[OpeningPosition, ...]
) -> AccountOpened:
    listed = tuple(
        record for one in instruments.instruments.values() if (record := listing(state, one, NOW_US, 0)) is not None
    )
    return AccountOpened(
        time_us=NOW_US, event_id="open", base_currency="USD", cash={"USD": cash}, listed=listed, positions=held
    )
