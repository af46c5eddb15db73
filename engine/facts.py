"""Records of what happened: executions, account events, reconciliations, observed prices.

Pure, like `decide`: a reported fact and the state give the records to append. Facts are never refused for what they
say of the world; FactError is for a report that contradicts itself or names what nobody registered.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from engine.account import AccountState, Prices
from engine.control import Scope, TradingState
from engine.instrument import GRID_SLACK, Instrument, InstrumentSet, MarketPhase, whole_multiple
from engine.records import (
    IN_SNAPSHOT,
    AccountOpened,
    AdoptedOrder,
    AnyRecord,
    CashFlowed,
    Executed,
    ExecutionKind,
    FeeCharged,
    Latch,
    Listed,
    OpeningPosition,
    Quoted,
    Rate,
    Reconciled,
    ReconciledPosition,
    SessionOpened,
    Valued,
)

AHEAD_MAX_US = 1_000_000
"""A mark from further in the future than this has a wrong clock behind it."""


class FactError(ValueError):
    """A report that can't be recorded; `field` names what is wrong with it, `known` that a rule of order is broken."""

    def __init__(self, field: str, problem: str, precondition: bool = False) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem, self.precondition = field, problem, precondition


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution engine reports of one order. Quantities in units of the instrument, prices in its currency."""

    account: str
    execution_id: str
    client_order_id: str
    kind: str
    strategy: str = ""
    symbol: str = ""
    sign: int = 0
    last_quantity: float = 0.0
    last_price: float = 0.0
    cumulative_quantity: float = 0.0
    fee: float = 0.0
    fee_currency: str = ""
    time_us: int = 0
    """When the venue executed it; 0: not told."""


class StatedPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position as a broker states it."""

    symbol: str
    quantity: float
    strategy: str = ""
    average_cost: float | None = None


class StatedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An open order as a broker states it. `sign` 0: the side was not told."""

    client_order_id: str
    leaves_quantity: float
    strategy: str = ""
    symbol: str = ""
    sign: int = 0


@dataclass(frozen=True, slots=True)
class Quote:
    """A symbol's latest prices, or a currency pair's. `time_us` is the older of event and arrival time."""

    symbol: str
    mark: float
    bid: float | None
    ask: float | None
    time_us: int
    phase: MarketPhase = MarketPhase.UNKNOWN


def listing(state: AccountState, instrument: Instrument, now_us: int, epoch: int) -> Listed | None:
    """The record that brings a symbol into the account, or None where it is in it."""
    if instrument.symbol in state.slots:
        return None
    return Listed(
        time_us=now_us,
        epoch=epoch,
        symbol=instrument.symbol,
        unit=instrument.unit,
        lot_size=instrument.lot_size,
        tick_size=instrument.tick_size,
        currency=instrument.currency,
        settles_variation=instrument.asset_class == "future",
        underlying=instrument.underlying if instrument.option is not None else "",
    )


def listings(
    state: AccountState, instruments: InstrumentSet, instrument: Instrument, now_us: int, epoch: int
) -> list[Listed]:
    """The records that bring a symbol into the account, and what it is an option on; none where they are in it. What is
    no instrument has no mark, so that options on it can't be valued."""
    written_on = instruments.get(instrument.underlying) if instrument.option is not None else None
    found = (listing(state, one, now_us, epoch) for one in (written_on, instrument) if one is not None)
    return [record for record in found if record is not None]


def observation(
    state: AccountState, quotes: Mapping[str, Quote], tracked: Iterable[str], now_us: int, epoch: int
) -> Valued | None:
    """The marks and rates of the tracked symbols that changed since the fold last saw them, or None.

    `quotes` holds marks by symbol and rates by pair: base + currency ("USDBRL") or currency + base ("EURUSD").
    """
    marks: dict[str, Quoted] = {}
    prices = state.prices
    currencies = {currency for currency, amount in state.cash.items() if amount}
    for symbol in tracked:
        slot = state.slots[symbol]
        currencies.add(state.listed[symbol].currency)
        quote = quotes.get(symbol)
        split_us = state.adjusted_us.get(symbol, 0) if state.adjusted_us else 0
        if quote is not None and quote.time_us > split_us and _is_newer(quote, prices, slot, now_us):
            marks[symbol] = Quoted(quote.mark, quote.bid, quote.ask, quote.time_us, int(quote.phase))
    currencies.discard(state.base_currency)
    fx = {currency: rate for currency in sorted(currencies) if (rate := _new_rate(state, quotes, currency)) is not None}
    if not marks and not fx:
        return None
    return Valued(time_us=now_us, epoch=epoch, marks=marks, fx=fx)


def _is_newer(quote: Quote, prices: Prices, slot: int, now_us: int) -> bool:
    """A gateway that has heard less than the one before it must not write an older mark over a newer one. A mark from
    the future is from before the store's clock was set back, and gives way to any."""
    time_us = prices.time_us[slot]
    known = prices.mark[slot], prices.bid[slot], prices.ask[slot], prices.phase[slot]
    differs = (quote.mark, quote.bid or 0.0, quote.ask or 0.0, quote.phase) != known
    newer = quote.time_us > time_us or (quote.time_us == time_us and differs)
    return bool(newer or (time_us > now_us + AHEAD_MAX_US and differs))


def _new_rate(state: AccountState, quotes: Mapping[str, Quote], currency: str) -> Rate | None:
    rate = rate_from(quotes, currency, state.base_currency)
    known = state.rates.get(currency)
    if rate is None or known is None:
        return rate
    newer = rate.time_us > known.time_us or (rate.time_us == known.time_us and rate.rate != known.rate)
    return rate if newer else None


def rate_from(quotes: Mapping[str, Quote], currency: str, base: str) -> Rate | None:
    """Base currency per unit of `currency`, from whichever pair is quoted."""
    direct = quotes.get(currency + base)
    if direct is not None:
        return Rate(direct.mark, direct.time_us)
    inverse = quotes.get(base + currency)
    return Rate(1.0 / inverse.mark, inverse.time_us) if inverse is not None else None


def tracked_symbols(state: AccountState) -> list[str]:
    """The symbols that are held or open, and what the options among them are written on: those whose marks matter."""
    book = state.book
    active = (book.lots != 0) | (book.buys != 0) | (book.sells != 0)
    tracked = [symbol for symbol, slot in state.slots.items() if active[slot]]
    written_on = (state.underlyings[symbol] for symbol in tracked if symbol in state.underlyings)
    return list(dict.fromkeys((*tracked, *(symbol for symbol in written_on if symbol in state.slots))))


def executed(
    state: AccountState, instruments: InstrumentSet, report: Execution, now_us: int, epoch: int
) -> list[AnyRecord]:
    """The records of one execution report; none where its id is known already. Raises FactError."""
    if report.execution_id in state.executions:
        return []
    order = state.orders.get(report.client_order_id) or state.memo(report.client_order_id, now_us)
    strategy, symbol, sign = (
        (order.strategy, order.symbol, order.sign)
        if order is not None
        else (report.strategy, report.symbol, report.sign)
    )
    if not symbol:
        problem = f"{report.client_order_id!r} is no order of {state.account}, and no symbol is given"
        raise FactError("client_order_id", problem)
    records: list[AnyRecord] = []
    filled = _Filled(0, 0)
    if report.kind == ExecutionKind.FILL or report.cumulative_quantity:
        lot_size, listed = _lot_size(state, instruments, report, symbol, sign, now_us, epoch)
        records += listed
        filled = _filled(state, report, lot_size, _held(state, symbol) * sign)
    lots = filled.lots
    flags = _flags(state, report, lots)
    if lots and 0 < report.time_us <= state.adjusted_us.get(symbol, 0):
        flags = (*flags, "before_split")
    stray = bool(flags)
    if filled.off_lot:
        flags = (*flags, "off_lot")
    if lots and 0 < report.time_us <= state.reconciled_us:
        lots, stray, flags = 0, False, (IN_SNAPSHOT,)
    records.append(
        Executed(
            time_us=now_us,
            epoch=epoch,
            execution_id=report.execution_id,
            client_order_id=report.client_order_id,
            kind=report.kind,
            strategy=strategy,
            symbol=symbol,
            sign=sign,
            lots=lots,
            price=report.last_price if lots else 0.0,
            cumulative_lots=filled.cumulative_lots,
            fee=report.fee,
            fee_currency=report.fee_currency,
            latches=(_stray_fill(state, report, flags, epoch),) if stray and (lots or filled.off_lot) else (),
            flags=flags,
        )
    )
    return records


class _Filled(NamedTuple):
    """What a report says was filled, in lots."""

    lots: int
    cumulative_lots: int
    off_lot: bool = False


def _lot_size(
    state: AccountState,
    instruments: InstrumentSet,
    report: Execution,
    symbol: str,
    sign: int,
    now_us: int,
    epoch: int,
) -> tuple[float, list[Listed]]:
    """The lot size of what was filled, and the records that bring its symbol into the account where it needs some."""
    known, instrument = state.listed.get(symbol), instruments.get(symbol)
    if known is None and instrument is None:
        raise FactError("symbol", f"{symbol!r} is not registered; register it, then report the fill again")
    if sign == 0:
        raise FactError("side", "expected SIDE_BUY or SIDE_SELL: the order is not known, so its side must be given")
    lot_size = known.lot_size if known is not None else instrument.lot_size if instrument is not None else 1.0
    filled = report.kind == ExecutionKind.FILL
    return lot_size, listings(
        state, instruments, instrument, now_us, epoch
    ) if instrument is not None and filled else []


def _filled(state: AccountState, report: Execution, lot_size: float, held: int) -> _Filled:
    """What was filled, in whole lots. `held`: the account's position, above 0 where the fill adds to it.

    A fill off the grid is a fact all the same: it is counted as the whole lots that leave the larger position behind,
    so that a fill that closes counts down. Where the cumulative quantity follows on what was counted so far, it is that
    which is counted: the parts of a lot don't add up."""
    told = report.cumulative_quantity / lot_size
    order = state.orders.get(report.client_order_id)
    before = order.filled if order is not None else 0
    if report.kind != ExecutionKind.FILL:
        return _Filled(0, before if abs(told - before) < 1 else _to_lots(report.cumulative_quantity, lot_size))
    lots = whole_multiple(report.last_quantity, lot_size)
    if lots is not None:
        return _Filled(lots, _told(told, before + lots))
    size = report.last_quantity / lot_size
    if order is not None and told and abs(told - size - before) < 1:
        size = max(0.0, told - before)
    lots = _on_grid(size, held)
    return _Filled(lots, _told(told, before + lots), off_lot=True)


def _held(state: AccountState, symbol: str) -> int:
    slot = state.slots.get(symbol)
    return 0 if slot is None else int(state.book.lots[slot])


def _on_grid(size: float, held: int) -> int:
    """The whole lots for a fill of `size` that leave the larger position behind, up where both leave the same."""
    nearest = round(size)
    if abs(size - nearest) <= GRID_SLACK * max(1.0, size):
        return nearest
    return max(math.ceil(size), math.floor(size), key=lambda lots: abs(held + lots))


def _told(cumulative: float, counted: int) -> int:
    """A cumulative quantity in whole lots: what was counted, where the two differ by parts of a lot only."""
    return counted if abs(cumulative - counted) < 1 else _to_lots(cumulative, 1.0)


def _to_lots(quantity: float, lot_size: float) -> int:
    """Whole lots, counted up where it is off the grid, so that nothing is missed."""
    lots = quantity / lot_size
    nearest = round(lots)
    return nearest if abs(lots - nearest) <= GRID_SLACK * max(1.0, abs(nearest)) else math.ceil(lots)


def _flags(state: AccountState, report: Execution, lots: int) -> tuple[str, ...]:
    if report.kind != ExecutionKind.FILL:
        return ()
    order = state.orders.get(report.client_order_id)
    chain = state.chains.get(state.chain_of_ended.get(report.client_order_id, 0))
    if order is None and chain is not None:
        most = max(state.orders[name].leaves for name in chain.live)
        return ("overfill",) if lots > most else ()
    if order is None:
        return ("unknown_order",) if state.memos.get(report.client_order_id) is None else ("late",)
    return ("overfill",) if lots > order.leaves else ()


def _stray_fill(state: AccountState, report: Execution, flags: tuple[str, ...], epoch: int) -> Latch:
    """A fill that no reservation covers means that our picture of the venue is wrong: only reductions from here on."""
    cause = f"fill {report.execution_id} of {report.client_order_id} that no reservation covers ({', '.join(flags)})"
    return Latch(Scope(state.account), TradingState.REDUCE_ONLY, epoch, cause)


def account_opened(
    state: AccountState,
    instruments: InstrumentSet,
    event_id: str,
    base_currency: str,
    cash: Mapping[str, float],
    positions: Iterable[StatedPosition],
    now_us: int,
    epoch: int,
) -> list[AnyRecord]:
    """An account's first record; nothing where this event opened it already. Raises FactError."""
    if state.opened:
        if event_id in state.events:
            return []
        raise FactError("account", f"{state.account} is open already", precondition=True)
    listed: dict[str, Listed] = {}
    opening: list[OpeningPosition] = []
    for position in positions:
        instrument, lots = _stated(instruments, position)
        for record in listings(state, instruments, instrument, now_us, epoch):
            listed.setdefault(record.symbol, record)
        if position.average_cost is None:
            problem = f"needed for {position.symbol}: without it the opening position would count as a gain"
            raise FactError("account_opened.positions.average_cost", problem)
        opening.append(OpeningPosition(position.strategy, position.symbol, lots, position.average_cost))
    return [
        AccountOpened(
            time_us=now_us,
            epoch=epoch,
            event_id=event_id,
            base_currency=base_currency,
            cash=dict(cash),
            listed=tuple(listed.values()),
            positions=tuple(opening),
        )
    ]


def _stated(instruments: InstrumentSet, position: StatedPosition) -> tuple[Instrument, int]:
    instrument = instruments.get(position.symbol)
    if instrument is None:
        raise FactError("positions.symbol", f"{position.symbol!r} is not registered")
    lots = 0 if position.quantity == 0 else instrument.lots(position.quantity)
    if lots is None:
        problem = f"{position.quantity:g} of {position.symbol} is not a whole number of lots of {instrument.lot_size:g}"
        raise FactError("positions.quantity", problem)
    return instrument, lots


def session_opened(state: AccountState, event_id: str, date: str, now_us: int, epoch: int) -> list[AnyRecord]:
    """A new session; nothing where it is the one that is open. Raises FactError for one that is over."""
    if event_id and event_id in state.events:
        return []
    if state.session is not None:
        if state.session.date == date:
            return []
        if state.session.date > date:
            problem = f"{date} is before the open session {state.session.date}"
            raise FactError("session_opened.date", problem, precondition=True)
    return [SessionOpened(time_us=now_us, epoch=epoch, date=date, event_id=event_id)]


def cash_flowed(
    state: AccountState, event_id: str, amount: float, currency: str, now_us: int, epoch: int
) -> list[AnyRecord]:
    if event_id in state.events:
        return []
    return [CashFlowed(time_us=now_us, epoch=epoch, event_id=event_id, amount=amount, currency=currency)]


def fee_charged(
    state: AccountState, event_id: str, amount: float, currency: str, strategy: str, now_us: int, epoch: int
) -> list[AnyRecord]:
    if event_id in state.events:
        return []
    fee = FeeCharged(
        time_us=now_us, epoch=epoch, event_id=event_id, amount=amount, currency=currency, strategy=strategy
    )
    return [fee]


def reconciled(
    state: AccountState,
    instruments: InstrumentSet,
    positions: Iterable[StatedPosition],
    cash: Mapping[str, float] | None,
    open_orders: Iterable[StatedOrder] | None,
    snapshot_us: int,
    reason: str,
    now_us: int,
    epoch: int,
) -> list[AnyRecord]:
    """The broker's positions in place of ours, with what differed. A position that it does not name is flat; an open
    order that only it knows is counted from here on. Raises FactError, also for a snapshot that is older than a fill
    booked here: its positions would take that fill back."""
    if snapshot_us < state.last_fill_us:
        problem = "a fill was booked after the snapshot was taken; take a new one"
        raise FactError("snapshot_time", problem, precondition=True)
    listed: dict[str, Listed] = {}
    stated: dict[tuple[str, str], ReconciledPosition] = {}
    for position in positions:
        instrument, lots = _stated(instruments, position)
        for record in listings(state, instruments, instrument, now_us, epoch):
            listed.setdefault(record.symbol, record)
        key = (position.strategy, position.symbol)
        _need_cost(state, position, lots)
        stated[key] = ReconciledPosition(position.strategy, position.symbol, lots, position.average_cost)
    orders = None if open_orders is None else list(open_orders)
    adopted = tuple(_adopted(state, instruments, order) for order in orders or () if _is_new(state, order, snapshot_us))
    for symbol in dict.fromkeys(order.symbol for order in adopted):
        for record in listings(state, instruments, instruments.instruments[symbol], now_us, epoch):
            listed.setdefault(record.symbol, record)
    open_lots = None if orders is None else _open_lots(state, orders)
    merged = None if cash is None else {**state.cash, **cash}
    differences = (*_position_differences(state, stated), *_order_differences(adopted))
    booked = Reconciled(
        time_us=now_us,
        epoch=epoch,
        reason=reason,
        positions=tuple(stated.values()),
        cash=merged,
        open_orders=open_lots,
        adopted=adopted,
        snapshot_us=snapshot_us,
        differences=differences,
    )
    return [*listed.values(), booked]


def _need_cost(state: AccountState, position: StatedPosition, lots: int) -> None:
    """Lots that are new here need a cost: the broker's, or the mark."""
    slot = state.slots.get(position.symbol)
    marked = slot is not None and state.prices.mark[slot] > 0
    if position.average_cost is None and not marked and lots != state.holding(position.strategy, position.symbol).lots:
        raise FactError("positions.average_cost", f"needed for {position.symbol}: there is no mark to take instead")


def _is_new(state: AccountState, order: StatedOrder, snapshot_us: int) -> bool:
    """Whether the broker has an order open that is not open here, and was not closed here after it was asked."""
    memo = state.memos.get(order.client_order_id)
    closed_since = memo is not None and memo.closed_us >= snapshot_us
    return order.client_order_id not in state.orders and order.leaves_quantity > 0 and not closed_since


def _adopted(state: AccountState, instruments: InstrumentSet, order: StatedOrder) -> AdoptedOrder:
    """An order that works at the broker and is not open here. Its symbol and side must be told, unless it was once."""
    known = state.memos.get(order.client_order_id)
    strategy, symbol, sign = (
        (known.strategy, known.symbol, known.sign) if known is not None else (order.strategy, order.symbol, order.sign)
    )
    instrument = instruments.get(symbol)
    if instrument is None or sign == 0:
        problem = f"{order.client_order_id!r} is not open here: its registered symbol and its side are needed"
        raise FactError("open_orders", problem)
    lots = _to_lots(order.leaves_quantity, instrument.lot_size)
    return AdoptedOrder(order.client_order_id, strategy, symbol, sign, lots)


def _open_lots(state: AccountState, orders: Iterable[StatedOrder]) -> dict[str, int]:
    """Leaves in lots of the orders that are open here too."""
    return {
        stated.client_order_id: _to_lots(stated.leaves_quantity, state.listed[order.symbol].lot_size)
        for stated in orders
        if (order := state.orders.get(stated.client_order_id)) is not None
    }


def _position_differences(state: AccountState, stated: Mapping[tuple[str, str], ReconciledPosition]) -> Iterable[str]:
    for key in sorted(state.holdings.keys() | stated.keys()):
        ours = state.holding(*key).lots
        theirs = stated[key].lots if key in stated else 0
        if ours != theirs:
            yield f"{key[1]} of strategy {key[0] or '(none)'}: {ours} lots here, {theirs} at the broker"


def _order_differences(adopted: Iterable[AdoptedOrder]) -> Iterable[str]:
    for order in adopted:
        yield f"order {order.client_order_id}: {order.lots} lots open at the broker, not here; counted from now on"
