"""What the execution engine is told to do, and what is made of its answers: records, from the state and the terms.

Pure. A halt asks to cancel what works in its scope, a limit that is over asks to cancel what no longer fits it
(`engine.misfits`), a stop that flattens brings positions to zero with the gateway's own orders, and a cut that somebody
began brings them down (`engine.liquidation`: in slices, largest risk first). An instruction is out
until its order has ended; nothing is asked twice meanwhile, whoever runs this, because it looks at the fold alone. What
is not answered or not done in time is escalated to a person, once.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from engine.account import AccountState, Instruction, OpenOrder, book_key
from engine.control import Control, Sender, Stop, TradingState
from engine.decide import Terms, reduction_room, side_reduces, trading_state
from engine.greek_cuts import greek_cuts
from engine.limits import Unit
from engine.liquidation import Place, cut_lots, next_lots, ranked, slice_lots, unfinished_cuts, waits
from engine.misfits import Misfit, misfits
from engine.order import Order, OrderType, Reason, Side, TimeInForce
from engine.records import (
    AnyRecord,
    BreakerStage,
    Escalated,
    Instructed,
    InstructionAnswered,
    InstructionKind,
    InstructionStatus,
)
from engine.silence import fallen_silent
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
    made += _on_breaker(make, state, terms, {one.client_order_id for one in made if isinstance(one, Instructed)})
    if not made:  # ids of cuts would be those of the orders above
        made += _on_greeks(state, terms, now_us)
    made += fallen_silent(state, terms, now_us)
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
    flattened = [make.flatten(*wanted) for wanted in _unflat(state, terms, now_us)]
    return [*cancels, *flattened, *_unfinished(make, state, terms, now_us)]


def _on_limits(make: "_Maker", state: AccountState, terms: Terms, now_us: int) -> list[Instructed]:
    """Cancels of the open orders that no longer fit; what a halt takes away anyway is not counted, nor what is asked to
    be cancelled already, unless the execution engine said that it can't be."""
    if not any(_is_standing(state, order) for order in state.orders.values()):
        return []
    halted = [order for order, _ in _halted(state, terms.control)]
    asked = [order for order in state.orders.values() if _is_going(state, order)]
    found = misfits(state, terms, now_us, (*halted, *asked))
    return [make.cancel(misfit.order, (misfit.reason, _told(misfit))) for misfit in found]


def _on_breaker(make: "_Maker", state: AccountState, terms: Terms, going: set[str]) -> list[Instructed]:
    """Cancels where the drawdown breaker lets nothing be opened: while it closes, of whatever works, because it would
    close beside the gateway's own orders; while it cools down, of what does more than reduce."""
    stage = state.breaker.stage
    if terms.limits.policy.breaker is None or not stage.opens_nothing:
        return []
    closing, cause = stage is BreakerStage.L3, (Reason.DRAWDOWN_BREAKER, f"the drawdown breaker is at {stage.name}")
    return [
        make.cancel(order, cause)
        for order in state.orders.values()
        if order.client_order_id not in going
        and _is_standing(state, order)
        and (closing or not side_reduces(state, book_key(order.strategy), state.slots[order.symbol], order.sign))
    ]


def _on_greeks(state: AccountState, terms: Terms, now_us: int) -> list[Instructed]:
    """The first orders of a cut of what carries a Greek far past its cap, but where trading is stopped anyway."""
    cuts, cause = greek_cuts(state, terms, now_us)
    open_to_all = {place: lots for place, lots in cuts.items() if _trades(state, terms, place)}
    return planned_cuts(state, terms, open_to_all, cause, now_us) if open_to_all else []


def _trades(state: AccountState, terms: Terms, place: Place) -> bool:
    return trading_state(state, terms.control, *place) <= TradingState.REDUCE_ONLY


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
    scopes: dict[tuple[str, str, Sender], str] = {}
    for order in state.orders.values():
        if order.own or order.closing or order.instruction_id:
            continue
        scope = order.strategy, order.symbol, order.sender
        if scope not in scopes:
            scopes[scope] = _halt(state, control, *scope)
        if scopes[scope]:
            yield order, (Reason.TRADING_HALTED, scopes[scope])


def _halt(state: AccountState, control: Control, strategy: str, symbol: str, sender: Sender) -> str:
    """What halts such orders, in words; empty: nothing does."""
    if trading_state(state, control, strategy, symbol, sender) is not TradingState.HALTED:
        return ""
    for stop in control.stops_at(state.account, strategy, symbol, sender):
        if stop.state is TradingState.HALTED:
            return _why(stop)
    causes = [
        latch.cause
        for latch, seq in state.latches.values()
        if latch.state is TradingState.HALTED
        and latch.scope.reaches(state.account, strategy, symbol, sender)
        and state.latch_holds(latch, seq, control)
    ]
    return f"HALTED: {causes[0]}"


def _why(stop: Stop) -> str:
    reason = f": {stop.reason}" if stop.reason else ""
    return f"{stop.state.name} for {stop.scope} by {stop.actor} at epoch {stop.epoch}{reason}"


def _unflat(state: AccountState, terms: Terms, now_us: int) -> list[tuple[str, str, int, Stop]]:
    """(strategy, symbol, signed lots to trade, the stop) of each position that a stop flattens and that no open order
    closes yet, the largest risk first. One that the venue has just not filled waits, and so does the next slice."""
    stops = [stop for stop in terms.control.stops if stop.flatten]
    wanted: dict[Place, tuple[int, Stop]] = {}
    for place, holding in state.holdings.items() if stops else ():
        reached = [stop for stop in stops if stop.scope.reaches(state.account, *place)]
        lots = _closable(state, terms, place, abs(holding.lots), now_us) if reached else 0
        if lots:
            wanted[place] = lots, reached[0]
    first = ranked(state, terms.instruments, terms.model, terms.limits.policy, sorted(wanted), now_us)
    return [(*place, *wanted[place]) for place in first]


def _closable(state: AccountState, terms: Terms, place: Place, lots: int, now_us: int) -> int:
    """Of `lots` to close of a position, the signed lots of the order that is due now; 0: none is."""
    held, policy = state.holding(*place).lots, terms.limits.policy
    unfilled_us = state.unfilled_us.get(place)
    is_early = unfilled_us is not None and unfilled_us <= now_us < unfilled_us + RETRY_US
    if not held or is_early or waits(state, terms.instruments, policy, place, now_us):
        return 0
    sign = -1 if held > 0 else 1
    room = min(lots, reduction_room(state, book_key(place[0]), state.slots[place[1]], sign))
    return sign * next_lots(state, terms.instruments, policy, place, room) if room else 0


def _unfinished(make: "_Maker", state: AccountState, terms: Terms, now_us: int) -> list[Instructed]:
    """The next orders of the cuts that are under way, but where a stop flattens anyway."""
    flattening = [stop for stop in terms.control.stops if stop.flatten]
    made = []
    for place, left in unfinished_cuts(state, terms.control):
        if any(stop.scope.reaches(state.account, *place) for stop in flattening):
            continue
        lots, progress = _closable(state, terms, place, left, now_us), state.liquidations[place]
        if lots:
            made.append(make.cut(place, lots, progress.planned, (Reason.NONE, progress.cause)))
    return made


def planned_cuts(
    state: AccountState, terms: Terms, cuts: float | Mapping[Place, int], cause: tuple[Reason, str], now_us: int
) -> list[Instructed]:
    """The first orders of cuts, the largest risk first; `due` makes those that follow, until all is filled, a Resume
    covers it or the position is gone.

    `cuts`: the part of every position to cut, above 0 and at most 1, in whole lots counted up; or lots > 0 by strategy
    and symbol. `cause`: why, and its words name the cut: another cause begins another one, the same one goes on. What
    the position or the orders that close it already leave no room for is not cut. Raises ValueError on a fraction out
    of range or on lots below 1."""
    if isinstance(cuts, Mapping):
        wanted = dict(cuts)
    else:
        wanted = {place: cut_lots(holding.lots, cuts) for place, holding in state.holdings.items() if holding.lots}
    for (strategy, symbol), lots in wanted.items():
        if lots < 1:
            raise ValueError(f"cuts: expected 1 lot or more of {symbol} of strategy {strategy!r}, got {lots}")
    make = _Maker(state, terms.control.epoch, now_us)
    made = []
    for place in ranked(state, terms.instruments, terms.model, terms.limits.policy, sorted(wanted), now_us):
        held = state.holding(*place).lots
        sign = -1 if held > 0 else 1
        room = reduction_room(state, book_key(place[0]), state.slots[place[1]], sign) if held else 0
        planned = min(wanted[place], room)
        progress = state.liquidations.get(place)
        if not planned or (progress is not None and progress.is_cut and progress.cause == cause[1]):
            continue
        lots = slice_lots(state, terms.instruments, terms.limits.policy, place[1], planned)
        made.append(make.cut(place, sign * lots, planned, cause))
    return made


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
        """`lots` > 0 buys."""
        return self._own(InstructionKind.FLATTEN, (strategy, symbol), lots, (_REASONS[stop.state], _why(stop)))

    def cut(self, place: Place, lots: int, planned: int, cause: tuple[Reason, str]) -> Instructed:
        """`lots` > 0 buys; `planned`: of the whole cut."""
        return self._own(InstructionKind.CUT, place, lots, cause, planned)

    def _own(
        self, kind: InstructionKind, place: Place, lots: int, cause: tuple[Reason, str], planned: int = 0
    ) -> Instructed:
        """A market order for the day, whatever order types the limits permit to others."""
        strategy, symbol = place
        name = plain = self._id(kind)
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
            kind=kind,
            client_order_id=name,
            reason=cause[0],
            message=cause[1],
            deadline_us=self._now_us + ANSWER_US,
            order=order,
            lots=abs(lots),
            planned_lots=planned,
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
