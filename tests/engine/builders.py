"""Builders for the tests of the engine: an account, its terms and an order in a line each.

Everything here goes through the public records and the fold, so that what a test builds is what a log could hold.
No assertions here. Defaults: one lot is one unit, USD is the base, marks are fresh, the model is of today's session.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from engine.account import AccountState
from engine.control import Control
from engine.decide import Terms
from engine.facts import listing
from engine.instrument import AssetClass, Instrument, InstrumentSet
from engine.limits import Limit, LimitAction, LimitSet, Policy, ScopeKind, Unit
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import (
    AccountOpened,
    Decided,
    Executed,
    ExecutionKind,
    OpeningPosition,
    Quoted,
    Rate,
    SessionOpened,
    Valued,
)
from engine.risk import model as risk_model
from engine.risk.model import RiskModel

NOW_US = 1_700_000_000_000_000
SESSION = date(2023, 11, 14)
ACCOUNT = "ALPHA"


def stock(symbol: str, **fields: Any) -> Instrument:
    return msgspec.structs.replace(Instrument(symbol, AssetClass.EQUITY, "USD", 1.0, 0.01), **fields)


def future(symbol: str, **fields: Any) -> Instrument:
    return msgspec.structs.replace(Instrument(symbol, AssetClass.FUTURE, "USD", 1.0, 0.25, 50.0), **fields)


def universe(*instruments: Instrument) -> InstrumentSet:
    return InstrumentSet({one.symbol: one for one in instruments})


def quoted(mark: float, bid: float | None = None, ask: float | None = None, time_us: int = NOW_US) -> Quoted:
    return Quoted(mark, bid, ask, time_us)


def valued(marks: Mapping[str, float | Quoted], fx: Mapping[str, float] | None = None, time_us: int = NOW_US) -> Valued:
    quotes = {name: mark if isinstance(mark, Quoted) else quoted(mark, time_us=time_us) for name, mark in marks.items()}
    return Valued(time_us=time_us, marks=quotes, fx={name: Rate(rate, time_us) for name, rate in (fx or {}).items()})


def account(
    instruments: InstrumentSet,
    marks: Mapping[str, float | Quoted],
    *,
    cash: float | Mapping[str, float] = 1_000_000.0,
    positions: Mapping[str, int] | None = None,
    strategies: Mapping[tuple[str, str], int] | None = None,
    fx: Mapping[str, float] | None = None,
    session: str | None = SESSION.isoformat(),
) -> AccountState:
    """An opened account that lists the whole universe. `positions` are of no strategy; cost is the mark or 100."""
    state = AccountState(ACCOUNT)
    held = {("", symbol): lots for symbol, lots in (positions or {}).items()} | dict(strategies or {})
    listed = tuple(
        record for one in instruments.instruments.values() if (record := listing(state, one, NOW_US, 0)) is not None
    )
    opening = tuple(
        OpeningPosition(strategy, symbol, lots, _cost(marks.get(symbol))) for (strategy, symbol), lots in held.items()
    )
    balances = {"USD": cash} if isinstance(cash, int | float) else dict(cash)
    state.apply(
        AccountOpened(
            time_us=NOW_US, event_id="open", base_currency="USD", cash=balances, listed=listed, positions=opening
        )
    )
    state.apply(valued(marks, fx))
    if session is not None:
        state.apply(SessionOpened(time_us=NOW_US, date=session))
    return state


def _cost(mark: float | Quoted | None) -> float:
    return 100.0 if mark is None else mark.mark if isinstance(mark, Quoted) else mark


def order(symbol: str = "AAA", side: Side = Side.BUY, quantity: float = 1.0, **fields: Any) -> Order:
    """A market order of the day, unless a limit price is given."""
    kind = OrderType.LIMIT if "limit_price" in fields else OrderType.MARKET
    defaults: dict[str, Any] = {"client_order_id": "o1", "order_type": kind, "time_in_force": TimeInForce.DAY}
    return Order(account=ACCOUNT, symbol=symbol, side=side, quantity=quantity, **(defaults | fields))


def sell(symbol: str = "AAA", quantity: float = 1.0, **fields: Any) -> Order:
    return order(symbol, Side.SELL, quantity, **fields)


def approval(asked: Order, lots: int, time_us: int = NOW_US, epoch: int = 0) -> Decided:
    """The record of an order that was allowed in full."""
    return Decided(
        time_us=time_us,
        epoch=epoch,
        order=asked,
        digest=asked.digest,
        action=Action.ALLOW,
        reason=Reason.NONE,
        message="",
        lots=lots,
        allowed_lots=lots,
        limit_set="",
        instrument_set="",
        risk_model="",
        expires_us=None if asked.valid_for_us is None else time_us + asked.valid_for_us,
        limit_price=asked.limit_price,
    )


def reserve(state: AccountState, name: str, symbol: str, lots: int, strategy: str = "", **fields: Any) -> None:
    """An open order of `lots`: bought where above 0, sold where below."""
    side = Side.BUY if lots > 0 else Side.SELL
    asked = order(symbol, side, float(abs(lots)), client_order_id=name, strategy=strategy, **fields)
    state.apply(approval(asked, abs(lots)))


def report(state: AccountState, name: str, kind: str, lots: int = 0, price: float = 100.0, **fields: Any) -> Executed:
    """An execution report on an open order."""
    known = state.orders[name]
    defaults: dict[str, Any] = {"execution_id": f"x{state.seq + 1}", "cumulative_lots": known.filled + lots}
    return Executed(
        time_us=NOW_US,
        client_order_id=name,
        kind=kind,
        strategy=known.strategy,
        symbol=known.symbol,
        sign=known.sign,
        lots=lots,
        price=price if lots else 0.0,
        **(defaults | fields),
    )


def fill(state: AccountState, name: str, lots: int, price: float = 100.0, **fields: Any) -> None:
    state.apply(report(state, name, ExecutionKind.FILL, lots, price, **fields))


def row(measure: str, limit: float, scope: str = "account", action: str = "reject", **fields: Any) -> Limit:
    if isinstance(unit := fields.get("unit"), str):
        fields["unit"] = Unit(unit)
    return Limit(measure, ScopeKind(scope), limit, action=LimitAction(action), **fields)


WIDE = 1e15
GUARDS = (
    row("order_quantity", WIDE, "symbol"),
    row("order_value", WIDE),
    row("position", WIDE, "symbol"),
)
"""So wide that they never bind; without them nothing trades."""


def limits(*rows: Limit, **policy: Any) -> LimitSet:
    """The rows, and a wide limit of each guarded kind that they lack."""
    given = {one.measure for one in rows}
    return LimitSet((*rows, *(guard for guard in GUARDS if guard.measure not in given)), Policy(**policy))


def model(
    returns: Mapping[str, Sequence[float]],
    scenarios: Mapping[str, Mapping[str, float]] | None = None,
    grid: Sequence[float] = (-0.2, 0.2),
    betas: Mapping[str, float] = MappingProxyType({}),
    **fields: Any,
) -> RiskModel:
    """A model with a column for each symbol in `returns`; an empty sequence is a symbol without history, a scenario
    that leaves a symbol out leaves it without a factor."""
    symbols = tuple(returns)
    stressed = dict(scenarios if scenarios is not None else {"flat": dict.fromkeys(symbols, 0.0)})
    days = max((len(column) for column in returns.values()), default=0)
    table = np.full((days + len(stressed), len(symbols)), np.nan)
    for place, symbol in enumerate(symbols):
        if returns[symbol]:
            table[:days, place] = returns[symbol]
        for at, shocks in enumerate(stressed.values()):
            table[days + at, place] = shocks.get(symbol, np.nan)
    known = np.array([bool(returns[symbol]) for symbol in symbols], dtype=np.bool_)
    reached = np.array([all(symbol in shocks for shocks in stressed.values()) for symbol in symbols], dtype=np.bool_)
    built = RiskModel(
        hash="",
        session_date=fields.pop("session_date", SESSION),
        last_price_date=SESSION - timedelta(days=1),
        built_time_us=fields.pop("built_time_us", NOW_US),
        base_currency=fields.pop("base_currency", "USD"),
        instrument_set="",
        symbols=symbols,
        column={symbol: place for place, symbol in enumerate(symbols)},
        returns=table,
        n_days=days,
        dates=tuple(SESSION - timedelta(days=days - at) for at in range(days)),
        scenario_names=tuple(stressed),
        has_history=known,
        has_factor=reached,
        unaffected=np.zeros(len(symbols), dtype=np.bool_),
        grid=np.tile(np.array(grid, dtype=np.float64), (len(symbols), 1)),
        betas=np.array([betas.get(symbol, np.nan) for symbol in symbols]),
        lookback_days=days,
        warnings=(),
    )
    return risk_model.decode(risk_model.encode(built))


def terms(
    instruments: InstrumentSet,
    armed: LimitSet | None = None,
    risk: RiskModel | None = None,
    control: Control | None = None,
) -> Terms:
    return Terms(control if control is not None else Control(), armed or limits(), instruments, risk)
