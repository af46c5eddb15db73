"""What happens to positions without an order: splits, dividends, exercise, assignment, expiry, fills taken back.

Pure, like `facts`: what is told and the state give the records to append, and none where the event's id is known. All
rounding is here, in exact integers, so that records carry whole lots: a part of a lot is paid in cash or refused by
name, never dropped. What the account's own books contradict raises FactError: a reconciliation settles that. Nothing
here decides on orders, and nothing is folded here (`engine.account`).
"""

import math
from dataclasses import dataclass

from engine.account import AccountState, BookedFill
from engine.facts import FactError, listings
from engine.instrument import Instrument, InstrumentSet, OptionRight, whole_multiple
from engine.records import (
    AnyRecord,
    Dividend,
    DividendSettled,
    DividendShare,
    Executed,
    ExecutionKind,
    FillReversed,
    PositionMove,
    Settled,
    SettlementKind,
    Split,
    SplitPosition,
)

RATIO_MAX = 1_000_000
"""Of a split, either side: beyond it lots would leave the integers that the fold counts in."""

ACCRUALS_MAX = 1_000
"""Dividends owed at one time: each is in the state, and in every equity."""

CORRECTED = "corrected"
"""Flag of a fill that stands in place of one that was taken back."""


@dataclass(frozen=True, slots=True)
class SplitTold:
    """`new_units` for `old_units`: 2 for 1 doubles the position, 1 for 10 is a reverse split, 21 for 20 a stock
    dividend of 5 %. `in_lieu_price`: after the split, in the symbol's currency; None: its mark."""

    symbol: str
    new_units: int
    old_units: int
    in_lieu_price: float | None = None


@dataclass(frozen=True, slots=True)
class DividendTold:
    """`amount` in the instrument's currency per unit of quantity, > 0, net of what is withheld."""

    symbol: str
    amount: float
    accrued: bool = False


@dataclass(frozen=True, slots=True)
class DividendPaidTold:
    """The accrued dividend of that event id was paid."""

    accrual_event_id: str


@dataclass(frozen=True, slots=True)
class SettlementTold:
    """`settlement_price`: of the underlying of an option, or of the future itself: settled in cash at it. None:
    delivered, or of an expiry: worthless. `quantity` 0: all that is held; of an expiry always."""

    kind: SettlementKind
    symbol: str
    strategy: str = ""
    quantity: float = 0.0
    settlement_price: float | None = None


@dataclass(frozen=True, slots=True)
class CorrectedFill:
    """What stands in place of a fill: units of the instrument, its currency. The side and the fee stay."""

    execution_id: str
    quantity: float
    price: float


@dataclass(frozen=True, slots=True)
class ReversalTold:
    """The venue took a fill back; `corrected` None: it is bust."""

    execution_id: str
    corrected: CorrectedFill | None = None


PositionEvent = SplitTold | DividendTold | DividendPaidTold | SettlementTold | ReversalTold


def position_event(
    state: AccountState, instruments: InstrumentSet, event_id: str, told: PositionEvent, now_us: int, epoch: int
) -> list[AnyRecord]:
    """The records of an event; none where its id is known. Raises FactError, field by its name in the contract."""
    if event_id in state.events:
        return []
    stamp = _Stamp(event_id, now_us, epoch)
    match told:
        case SplitTold():
            return [_split(state, told, stamp)]
        case DividendTold():
            return [_dividend(state, told, stamp)]
        case DividendPaidTold():
            return [_dividend_paid(state, told, stamp)]
        case SettlementTold():
            return _settlement(state, instruments, told, stamp)
        case ReversalTold():
            return _reversal(state, told, stamp)


@dataclass(frozen=True, slots=True)
class _Stamp:
    event_id: str
    now_us: int
    epoch: int


# --- splits -----------------------------------------------------------------------------------------------------------


def _split(state: AccountState, told: SplitTold, stamp: _Stamp) -> Split:
    symbol, many, per = told.symbol, told.new_units, told.old_units
    _need_listed(state, "split.symbol", symbol)
    _need_ratio(many, per)
    _need_no_options(state, symbol)
    _need_no_own_order(state, symbol)
    return Split(
        time_us=stamp.now_us,
        epoch=stamp.epoch,
        event_id=stamp.event_id,
        symbol=symbol,
        new_units=many,
        old_units=per,
        positions=_split_positions(state, told),
        open_orders={
            order.client_order_id: -(-order.leaves * many // per)
            for order in state.orders.values()
            if order.symbol == symbol
        },
    )


def _need_ratio(many: int, per: int) -> None:
    for field, units in (("split.new_units", many), ("split.old_units", per)):
        if not 0 < units <= RATIO_MAX:
            raise FactError(field, f"expected 1 to {RATIO_MAX:,}, got {units}")
    if many == per:
        raise FactError("split.new_units", f"expected another number than old_units, got {many} for {per}")


def _need_no_options(state: AccountState, symbol: str) -> None:
    """An option's terms never change here: the adjusted contract is another symbol, which the broker's snapshot has."""
    ends = state.book.ends()
    held = [one for one, on in state.underlyings.items() if on == symbol and ends.largest.item(state.slots[one])]
    if held:
        problem = (
            f"options on {symbol} are held or open ({', '.join(sorted(held)[:5])}), whose contracts the split adjusts: "
            "register the adjusted contracts and reconcile them in place of these first"
        )
        raise FactError("split.symbol", problem, precondition=True)


def _need_no_own_order(state: AccountState, symbol: str) -> None:
    """It may be sent at the old quantity after the split."""
    own = [order.client_order_id for order in state.orders.values() if order.own and order.symbol == symbol]
    if own:
        problem = f"the gateway's own order {own[0]} is open in {symbol}: report what became of it first"
        raise FactError("split.symbol", problem, precondition=True)


def _split_positions(state: AccountState, told: SplitTold) -> tuple[SplitPosition, ...]:
    """The account's whole lots are those of its broker, who sees one position; they go to the strategies by largest
    remainder. What a strategy gets more or less than its share, it pays or is paid at the price in lieu."""
    many, per = told.new_units, told.old_units
    held = sorted((key[0], one.lots) for key, one in state.holdings.items() if key[1] == told.symbol and one.lots)
    total = sum(lots for _, lots in held) * many
    whole = total // per if total >= 0 else -(-total // per)
    given = {strategy: lots * many // per for strategy, lots in held}
    extra = whole - sum(given.values())
    by_remainder = sorted(held, key=lambda one: (-(one[1] * many % per), one[0]))
    for strategy, _ in by_remainder[:extra]:
        given[strategy] += 1
    parts = {strategy: lots * many - given[strategy] * per for strategy, lots in held}
    if not any(parts.values()):
        return tuple(SplitPosition(strategy, given[strategy]) for strategy, _ in held)
    price, unit = _in_lieu_price(state, told), float(state.unit[state.slots[told.symbol]])
    return tuple(
        SplitPosition(strategy, given[strategy], _in_lieu(state, told, strategy, parts[strategy] / per * unit, price))
        for strategy, _ in held
    )


def _in_lieu(state: AccountState, told: SplitTold, strategy: str, units: float, price: float) -> float:
    """Money for `units` (lots × unit): of a future, what they have gained."""
    if not units or not state.listed[told.symbol].settles_variation:
        return units * price
    return units * (price - state.holding(strategy, told.symbol).average_cost * told.old_units / told.new_units)


def _in_lieu_price(state: AccountState, told: SplitTold) -> float:
    mark = float(state.prices.mark[state.slots[told.symbol]]) * told.old_units / told.new_units
    price = told.in_lieu_price if told.in_lieu_price is not None else mark
    if not (math.isfinite(price) and price > 0.0):
        problem = f"needed: the split leaves parts of a lot of {told.symbol}, and there is no mark to pay them at"
        raise FactError("split.in_lieu_price", problem, precondition=True)
    return price


# --- dividends --------------------------------------------------------------------------------------------------------


def _dividend(state: AccountState, told: DividendTold, stamp: _Stamp) -> Dividend:
    _need_listed(state, "dividend.symbol", told.symbol)
    listed = state.listed[told.symbol]
    if listed.settles_variation or listed.underlying:
        raise FactError("dividend.symbol", f"{told.symbol} is an option or a future: it pays no dividend")
    if not (math.isfinite(told.amount) and told.amount > 0.0):
        raise FactError("dividend.amount", f"expected a finite number above 0, got {told.amount}")
    if not math.isfinite(state.rate_of(listed.currency)):
        problem = f"no exchange rate of {listed.currency} is known, so that nobody could say what it gained"
        raise FactError("dividend.symbol", problem, precondition=True)
    if told.accrued and len(state.accruals) >= ACCRUALS_MAX:
        raise FactError("dividend.accrued", f"{ACCRUALS_MAX} dividends are owed already", precondition=True)
    shares = tuple(
        DividendShare(strategy, holding.lots * listed.lot_size * told.amount)
        for (strategy, symbol), holding in sorted(state.holdings.items())
        if symbol == told.symbol and holding.lots
    )
    if not shares:
        raise FactError("dividend.symbol", f"{state.account} holds no {told.symbol}", precondition=True)
    return Dividend(
        time_us=stamp.now_us,
        epoch=stamp.epoch,
        event_id=stamp.event_id,
        symbol=told.symbol,
        currency=listed.currency,
        shares=shares,
        accrued=told.accrued,
    )


def _dividend_paid(state: AccountState, told: DividendPaidTold, stamp: _Stamp) -> DividendSettled:
    if told.accrual_event_id not in state.accruals:
        problem = f"{told.accrual_event_id!r} is no accrued dividend that is still owed"
        raise FactError("dividend_paid.accrual_event_id", problem, precondition=True)
    return DividendSettled(
        time_us=stamp.now_us,
        epoch=stamp.epoch,
        event_id=stamp.event_id,
        accrual_event_id=told.accrual_event_id,
    )


# --- exercise, assignment, expiry -------------------------------------------------------------------------------------


def _settlement(
    state: AccountState, instruments: InstrumentSet, told: SettlementTold, stamp: _Stamp
) -> list[AnyRecord]:
    _need_listed(state, "settlement.symbol", told.symbol)
    instrument = instruments.get(told.symbol)
    if instrument is None:
        raise FactError("settlement.symbol", f"{told.symbol!r} is not registered")
    price = told.settlement_price
    if price is not None and not (math.isfinite(price) and price >= 0.0):
        raise FactError("settlement.settlement_price", f"expected a finite number, 0 or above, got {price}")
    if told.kind is SettlementKind.EXPIRY:
        return [_expiry(state, instrument, told, stamp)]
    if instrument.option is None:
        raise FactError("settlement.symbol", f"{told.symbol} is no option, so that it can't be exercised")
    lots = _settled_lots(state, instrument, told)
    closing = PositionMove(told.strategy, told.symbol, -lots, _intrinsic(instrument, price))
    if price is not None:
        return [_settled(told, (closing,), (), stamp)]
    underlying, delivered = _delivered(instruments, instrument, lots)
    listed = listings(state, instruments, underlying, stamp.now_us, stamp.epoch)
    receipt = PositionMove(told.strategy, underlying.symbol, delivered, instrument.option.strike)
    return [*listed, _settled(told, (closing, receipt), (), stamp)]


def _settled_lots(state: AccountState, instrument: Instrument, told: SettlementTold) -> int:
    """Signed lots that are exercised (> 0) or assigned (< 0), at most those held."""
    held = state.holding(told.strategy, told.symbol).lots
    sign = 1 if told.kind is SettlementKind.EXERCISE else -1
    side = "long" if sign > 0 else "short"
    if held * sign <= 0:
        problem = f"strategy {told.strategy or '(none)'} is not {side} {told.symbol}: it holds {held} lots"
        raise FactError("settlement.strategy", problem, precondition=True)
    lots = abs(held) if told.quantity == 0 else instrument.lots(told.quantity)
    if lots is None or lots <= 0:
        problem = f"{told.quantity:g} is no whole number of lots of {instrument.lot_size:g}"
        raise FactError("settlement.quantity", problem)
    if lots > abs(held):
        problem = f"{lots} lots are more than the {abs(held)} that are {side}; reconcile with the broker first"
        raise FactError("settlement.quantity", problem, precondition=True)
    return sign * lots


def _delivered(instruments: InstrumentSet, option: Instrument, lots: int) -> tuple[Instrument, int]:
    """The underlying, and the signed lots of it that exercising `lots` > 0 delivers; < 0: that being assigned does."""
    underlying = instruments.get(option.underlying)
    if underlying is None or underlying.currency != option.currency:
        problem = (
            f"{option.underlying} is no instrument in {option.currency}, so that it can't be delivered: "
            "give the price that it is settled at in cash"
        )
        raise FactError("settlement.settlement_price", problem, precondition=True)
    whole = whole_multiple(option.unit / underlying.multiplier * abs(lots), underlying.lot_size)
    if not whole:
        problem = (
            f"{abs(lots)} lots of {option.symbol} deliver no whole number of lots of {underlying.symbol}: "
            "give the price that they are settled at in cash"
        )
        raise FactError("settlement.quantity", problem, precondition=True)
    call = option.option is not None and option.option.right is OptionRight.CALL
    return underlying, whole * (1 if (lots > 0) == call else -1)


def _intrinsic(instrument: Instrument, price: float | None) -> float:
    """What a unit is worth at a settlement price: of a future the price itself; without one nothing."""
    if price is None:
        return 0.0
    if instrument.option is None:
        return price
    sign = 1.0 if instrument.option.right is OptionRight.CALL else -1.0
    return max(0.0, sign * (price - instrument.option.strike))


def _expiry(state: AccountState, instrument: Instrument, told: SettlementTold, stamp: _Stamp) -> Settled:
    """All of it, whoever holds it. What is in the money doesn't go worthless unseen."""
    _need_expirable(state, instrument, told)
    price = _intrinsic(instrument, told.settlement_price)
    moves = tuple(
        PositionMove(strategy, symbol, -holding.lots, price)
        for (strategy, symbol), holding in sorted(state.holdings.items())
        if symbol == told.symbol and holding.lots
    )
    ended = tuple(order.client_order_id for order in state.orders.values() if order.symbol == told.symbol)
    return _settled(told, moves, ended, stamp)


def _need_expirable(state: AccountState, instrument: Instrument, told: SettlementTold) -> None:
    symbol = instrument.symbol
    if instrument.expiry is None:
        raise FactError("settlement.symbol", f"{symbol} has no expiry")
    if told.quantity or told.strategy:
        raise FactError("settlement.quantity", "an expiry is of all that is held: give neither quantity nor strategy")
    if state.session is not None and state.session.date < instrument.expiry.isoformat():
        problem = f"{symbol} expires on {instrument.expiry}, the session is {state.session.date}"
        raise FactError("settlement.symbol", problem, precondition=True)
    held = bool(state.book.lots[state.slots[symbol]]) or any(
        one.lots for (_, held), one in state.holdings.items() if held == symbol
    )
    if not held or told.settlement_price is not None:
        return
    if instrument.option is None:
        raise FactError("settlement.settlement_price", f"needed: {symbol} is settled at it")
    slot = state.slots.get(instrument.underlying)
    spot = 0.0 if slot is None else float(state.prices.mark[slot])
    if spot <= 0.0:
        problem = f"needed: there is no mark of {instrument.underlying} to tell whether {symbol} is worth nothing"
        raise FactError("settlement.settlement_price", problem, precondition=True)
    worth = _intrinsic(instrument, spot)
    if worth > 0.0:
        problem = (
            f"{symbol} is {worth:g} in the money at {instrument.underlying} {spot:g}: report what was exercised or "
            "assigned first, or give the price that it is settled at in cash"
        )
        raise FactError("settlement.settlement_price", problem, precondition=True)


def _settled(told: SettlementTold, moves: tuple[PositionMove, ...], ended: tuple[str, ...], stamp: _Stamp) -> Settled:
    return Settled(
        time_us=stamp.now_us,
        epoch=stamp.epoch,
        event_id=stamp.event_id,
        kind=told.kind,
        symbol=told.symbol,
        moves=moves,
        ended_orders=ended,
    )


# --- fills taken back -------------------------------------------------------------------------------------------------


def _reversal(state: AccountState, told: ReversalTold, stamp: _Stamp) -> list[AnyRecord]:
    booked = _booked(state, told.execution_id)
    session = state.session
    undone = FillReversed(
        time_us=stamp.now_us,
        epoch=stamp.epoch,
        event_id=stamp.event_id,
        execution_id=told.execution_id,
        client_order_id=booked.client_order_id,
        strategy=booked.strategy,
        symbol=booked.symbol,
        lots=booked.lots,
        price=booked.price,
        gain=booked.gain,
        realised=booked.realised,
        fee=booked.fee,
        fee_currency=booked.fee_currency,
        in_session=session is None or booked.time_us >= session.opened_us,
    )
    if told.corrected is None:
        return [undone]
    return [undone, _corrected(state, booked, told.corrected, stamp)]


def _booked(state: AccountState, execution_id: str) -> BookedFill:
    """The fill, if it can be taken back as it was booked."""
    field, booked = "fill_reversal.execution_id", state.fills.get(execution_id)
    if booked is None:
        problem = f"{execution_id!r} is no fill booked here within the last day; reconcile with the broker instead"
        raise FactError(field, problem, precondition=True)
    if booked.is_reversed:
        raise FactError(field, f"{execution_id!r} was taken back already", precondition=True)
    if state.reconciled_seq > booked.seq:
        problem = (
            f"the positions were reconciled after {execution_id!r} was booked: only the broker can say whether they "
            "hold it; reconcile again"
        )
        raise FactError(field, problem, precondition=True)
    if state.adjusted_us.get(booked.symbol, -1) >= booked.time_us:
        problem = f"{booked.symbol} was split after {execution_id!r} was booked; reconcile with the broker instead"
        raise FactError(field, problem, precondition=True)
    return booked


def _corrected(state: AccountState, booked: BookedFill, told: CorrectedFill, stamp: _Stamp) -> Executed:
    if told.execution_id in state.executions:
        problem = f"{told.execution_id!r} was reported before; the corrected fill needs an id of its own"
        raise FactError("fill_reversal.corrected.execution_id", problem, precondition=True)
    lots = whole_multiple(told.quantity, state.listed[booked.symbol].lot_size)
    if not lots or lots < 0:
        problem = f"{told.quantity:g} of {booked.symbol} is no whole number of lots, 1 or more"
        raise FactError("fill_reversal.corrected.quantity", problem)
    if not (math.isfinite(told.price) and told.price > 0.0):
        raise FactError("fill_reversal.corrected.price", f"expected a finite number above 0, got {told.price}")
    order = state.orders.get(booked.client_order_id)
    return Executed(
        time_us=stamp.now_us,
        epoch=stamp.epoch,
        execution_id=told.execution_id,
        client_order_id=booked.client_order_id,
        kind=ExecutionKind.FILL,
        strategy=booked.strategy,
        symbol=booked.symbol,
        sign=1 if booked.lots > 0 else -1,
        lots=lots,
        price=told.price,
        cumulative_lots=0 if order is None else max(0, order.filled - abs(booked.lots)) + lots,
        fee=booked.fee,
        fee_currency=booked.fee_currency,
        flags=(CORRECTED,),
    )


def _need_listed(state: AccountState, field: str, symbol: str) -> None:
    if symbol not in state.slots:
        raise FactError(field, f"{state.account} never held or ordered {symbol!r}", precondition=True)
