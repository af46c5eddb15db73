"""What the execution engine is told to do, and what is made of its answers: records, from the state and the terms.

Pure. A halt asks to cancel what works in its scope, a limit that is over asks to cancel what no longer fits it
(`engine.misfits`), a stop that flattens brings positions to zero with the gateway's own orders. An instruction is out
until its order has ended; nothing is asked twice meanwhile, whoever runs this, because it looks at the fold alone. What
is not answered or not done in time is escalated to a person, once.
"""

from collections.abc import Iterable, Iterator

import msgspec

from engine.account import AccountState, Instruction, OpenOrder, book_key
from engine.control import Control, Stop, TradingState
from engine.decide import Terms, reduction_room, trading_state
from engine.limits import Unit
from engine.misfits import Misfit, misfits
from engine.order import Order, OrderType, Reason, Side, TimeInForce
from engine.records import (
    AnyRecord,
    Escalated,
    Instructed,
    InstructionAnswered,
    InstructionKind,
    InstructionStatus,
)
from engine.suspects import releases

RECORDS_MAX = 1_000
"""Of one append: so many take about 5 ms in the store. Whoever gets as many asks again at once."""

ANSWER_US = 5_000_000
"""Within this an execution engine says that it has heard: longer than it takes to reconnect."""

EFFECT_US = 10_000_000
"""Within this of its answer it has done what it was told, and for a cancel the venue has confirmed."""

RETRY_US = 5_000_000
"""A venue that did not fill an order of the gateway's own gets the next one no sooner."""

_REASONS = {
    TradingState.HALTED: Reason.TRADING_HALTED,
    TradingState.CANCEL_ONLY: Reason.CANCEL_ONLY,
    TradingState.REDUCE_ONLY: Reason.REDUCE_ONLY,
}
_RANKS = {
    InstructionStatus.UNANSWERED: 0,
    InstructionStatus.RECEIVED: 1,
    InstructionStatus.DONE: 2,
    InstructionStatus.FAILED: 3,
}
"""An answer moves an instruction on, and never back."""


class Outcome(msgspec.Struct, frozen=True):
    """What an execution engine said of an instruction."""

    instruction_id: str
    status: InstructionStatus
    text: str = ""


def due(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """Everything that has to be instructed, escalated or let go now, at most RECORDS_MAX records; none where all is
    out."""
    if not state.opened:
        return []
    make = _Maker(state, terms.control.epoch, now_us)
    made: list[AnyRecord] = [*_on_stops(make, state, terms, now_us), *_on_limits(make, state, terms, now_us)]
    made += [*overdue(state, terms.control.epoch, now_us), *releases(state, now_us, terms.control.epoch)]
    return made[:RECORDS_MAX]


def due_on_stops(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """The part of `due` that the stops and latches in force ask for: no limit is read."""
    if not state.opened:
        return []
    made: list[AnyRecord] = [*_on_stops(_Maker(state, terms.control.epoch, now_us), state, terms, now_us)]
    return made[:RECORDS_MAX]


def _on_stops(make: "_Maker", state: AccountState, terms: Terms, now_us: int) -> list[Instructed]:
    """Cancels under a halt, and the orders that flatten."""
    cancels = [make.cancel(*halted) for halted in _halted(state, terms.control)]
    return [*cancels, *(make.flatten(*wanted) for wanted in _unflat(state, terms.control, now_us))]


def _on_limits(make: "_Maker", state: AccountState, terms: Terms, now_us: int) -> list[Instructed]:
    """Cancels of the open orders that no longer fit; what a halt takes away anyway is not counted, nor what is asked to
    be cancelled already, unless the execution engine said that it can't be."""
    if not any(_is_standing(state, order) for order in state.orders.values()):
        return []
    halted = [order for order, _ in _halted(state, terms.control)]
    asked = [order for order in state.orders.values() if _is_going(state, order)]
    found = misfits(state, terms, now_us, (*halted, *asked))
    return [make.cancel(misfit.order, (misfit.reason, _told(misfit))) for misfit in found]


def _is_standing(state: AccountState, order: OpenOrder) -> bool:
    return not (order.own or order.closing or order.instruction_id)


def _is_going(state: AccountState, order: OpenOrder) -> bool:
    found = state.instructions.get(order.instruction_id)
    is_cancel = found is not None and found.kind is InstructionKind.CANCEL
    return is_cancel and found is not None and found.status is not InstructionStatus.FAILED


def _told(misfit: Misfit) -> str:
    use = misfit.use
    value, limit = _amount(use.value or 0.0, use.unit), _amount(use.limit, use.unit)
    return f"{use.measure} of {use.scope} is {value}, limit {limit}, open orders at worst case: this one adds to it"


def _amount(value: float, unit: str) -> str:
    if unit == Unit.EQUITY:
        return f"{value:.2%} of equity"
    return f"{value:g}" if unit == Unit.QUANTITY else f"{value:,.2f}"


# --- stops ------------------------------------------------------------------------------------------------------------


def _halted(state: AccountState, control: Control) -> Iterator[tuple[OpenOrder, tuple[Reason, str]]]:
    """The open orders that a halt reaches and that nobody was asked to cancel yet, with why."""
    scopes: dict[tuple[str, str], str] = {}
    for order in state.orders.values():
        if order.own or order.closing or order.instruction_id:
            continue
        scope = order.strategy, order.symbol
        if scope not in scopes:
            scopes[scope] = _halt(state, control, *scope)
        if scopes[scope]:
            yield order, (Reason.TRADING_HALTED, scopes[scope])


def _halt(state: AccountState, control: Control, strategy: str, symbol: str) -> str:
    """What halts such orders, in words; empty: nothing does."""
    if trading_state(state, control, strategy, symbol) is not TradingState.HALTED:
        return ""
    for stop in control.stops_at(state.account, strategy, symbol):
        if stop.state is TradingState.HALTED:
            return _why(stop)
    causes = [
        latch.cause
        for latch, seq in state.latches.values()
        if latch.state is TradingState.HALTED
        and latch.scope.reaches(state.account, strategy, symbol)
        and state.latch_holds(latch, seq, control)
    ]
    return f"HALTED: {causes[0]}"


def _why(stop: Stop) -> str:
    reason = f": {stop.reason}" if stop.reason else ""
    return f"{stop.state.name} for {stop.scope} by {stop.actor} at epoch {stop.epoch}{reason}"


def _unflat(state: AccountState, control: Control, now_us: int) -> Iterator[tuple[str, str, int, Stop]]:
    """(strategy, symbol, signed lots to trade, the stop) of each position that a stop flattens and that no open order
    closes yet. One that the venue has just not filled waits."""
    stops = [stop for stop in control.stops if stop.flatten]
    if not stops:
        return
    for (strategy, symbol), holding in sorted(state.holdings.items()):
        reached = [stop for stop in stops if stop.scope.reaches(state.account, strategy, symbol)]
        unfilled_us = state.unfilled_us.get((strategy, symbol))
        waits = unfilled_us is not None and unfilled_us <= now_us < unfilled_us + RETRY_US
        if not holding.lots or not reached or waits:
            continue
        sign = -1 if holding.lots > 0 else 1
        lots = reduction_room(state, book_key(strategy), state.slots[symbol], sign)
        if lots:
            yield strategy, symbol, sign * lots, reached[0]


class _Maker:
    """Makes instructions with ids that no other record of the account has."""

    def __init__(self, state: AccountState, epoch: int, now_us: int) -> None:
        self._state, self._epoch, self._now_us = state, epoch, now_us
        self._number = state.seq

    def _id(self, kind: InstructionKind) -> str:
        """By a position in the log that nobody has used: another process that makes the same from the same state gives
        it the same id, and only one of the two is appended."""
        self._number += 1
        return f"{kind}-{self._state.account}-{self._number}"  # as `account_of` reads it

    def cancel(self, order: OpenOrder, cause: tuple[Reason, str]) -> Instructed:
        reason, message = cause
        return Instructed(
            time_us=self._now_us,
            epoch=self._epoch,
            instruction_id=self._id(InstructionKind.CANCEL),
            kind=InstructionKind.CANCEL,
            client_order_id=order.client_order_id,
            reason=reason,
            message=message,
            deadline_us=self._now_us + ANSWER_US,
        )

    def flatten(self, strategy: str, symbol: str, lots: int, stop: Stop) -> Instructed:
        """`lots` > 0 buys. A market order for the day, whatever order types the limits permit to others."""
        name = plain = self._id(InstructionKind.FLATTEN)
        tries = 0
        while name in self._state.memos:  # somebody's order has that name
            tries += 1
            name = f"{plain}.{tries}"
        order = Order(
            account=self._state.account,
            client_order_id=name,
            symbol=symbol,
            side=Side.BUY if lots > 0 else Side.SELL,
            quantity=abs(lots) * self._state.listed[symbol].lot_size,
            order_type=OrderType.MARKET,
            time_in_force=TimeInForce.DAY,
            strategy=strategy,
            reduce_only=True,
        )
        return Instructed(
            time_us=self._now_us,
            epoch=self._epoch,
            instruction_id=name,
            kind=InstructionKind.FLATTEN,
            client_order_id=name,
            reason=_REASONS[stop.state],
            message=_why(stop),
            deadline_us=self._now_us + ANSWER_US,
            order=order,
            lots=abs(lots),
        )


def account_of(instruction_id: str) -> str:
    """The account whose instruction that would be; empty for an id that nothing here makes."""
    return instruction_id.partition("-")[2].rpartition("-")[0]


# --- answers and escalation -------------------------------------------------------------------------------------------


def answered(state: AccountState, outcomes: Iterable[Outcome], epoch: int, now_us: int) -> list[AnyRecord]:
    """The records of what an execution engine said, in the order in which it did. None of an instruction that is over,
    or that has been said already: repeating it is harmless. One that can't be done is escalated at once."""
    trial = state.fork()
    records: list[AnyRecord] = []
    for outcome in outcomes:
        found = trial.instructions.get(outcome.instruction_id)
        if found is None or _RANKS[outcome.status] <= _RANKS[found.status]:
            continue
        made: list[AnyRecord] = []
        if outcome.status is InstructionStatus.FAILED and not found.escalated_seq:
            made.append(_escalated(found, f"can't be done: {outcome.text or 'no reason was given'}", epoch, now_us))
        made.append(
            InstructionAnswered(
                time_us=now_us,
                epoch=epoch,
                instruction_id=outcome.instruction_id,
                status=outcome.status,
                deadline_us=now_us + EFFECT_US,
                text=outcome.text,
            )
        )
        for record in made:
            trial.apply(record)
        records += made
    return records


def overdue(state: AccountState, epoch: int, now_us: int) -> list[Escalated]:
    """Escalations of what is past its deadline, each once."""
    late = (i for i in state.instructions.values() if i.deadline_us < now_us and not i.escalated_seq)
    return [_escalated(instruction, _lateness(instruction), epoch, now_us) for instruction in late]


def _lateness(instruction: Instruction) -> str:
    if instruction.status is InstructionStatus.UNANSWERED:
        return "was answered by no execution engine in time"
    return f"was answered ({instruction.status}) and has had no effect in time"


def _escalated(instruction: Instruction, what: str, epoch: int, now_us: int) -> Escalated:
    told = f"{instruction.kind} of order {instruction.client_order_id} {what}; it was asked for because: "
    return Escalated(
        time_us=now_us,
        epoch=epoch,
        instruction_id=instruction.instruction_id,
        message=f"{told}{instruction.message}",
    )
