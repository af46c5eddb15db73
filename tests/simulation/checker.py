"""The linear checker: what a history of calls on one account and the log that it left must agree on.

The log's order is the linearization, so one pass is enough. Nothing here knows of committers or stores: records in,
operations in, objections out. Reservations are counted here by themselves, not by the engine's fold.

Rules: (1) the chain is whole, ids are unique, and the worst case stays within the bound after every record; (2) each
acknowledged answer equals the record at its place; (3) what was invoked after an answer stands behind it in the log;
(4) nothing is approved that was invoked between a stop's return and a resume's invocation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.control import Scope, TradingState
from engine.order import Order
from engine.records import CLOSING_KINDS, AnyRecord, Decided, Executed, decode
from gateway.committer import Answer
from gateway.log.account_log import GENESIS, Head


@dataclass(slots=True)
class Checked:
    """One CheckOrder. Times are steps of a counter that all share; without an answer the outcome is unknown."""

    order: Order
    invoked: int
    returned: int | None = None
    answer: Answer | None = None


@dataclass(slots=True)
class Stopped:
    """One StopAll that returned, and the resume that lifted it, if any."""

    scope: Scope
    state: TradingState
    returned: int
    resume_invoked: int | None = None

    def forbids(self, checked: Checked) -> bool:
        order, end = checked.order, self.resume_invoked
        return (
            self.state >= TradingState.CANCEL_ONLY
            and self.scope.reaches(order.account, order.strategy, order.symbol)
            and checked.invoked > self.returned
            and (end is None or checked.returned is None or checked.returned < end)
        )


@dataclass(slots=True)
class History:
    """What the clients saw."""

    checked: list[Checked] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    step: int = 0

    def tick(self) -> int:
        self.step += 1
        return self.step

    def invoke(self, order: Order) -> Checked:
        checked = Checked(order, self.tick())
        self.checked.append(checked)
        return checked

    def answered(self, checked: Checked, answer: Answer) -> None:
        checked.answer, checked.returned = answer, self.tick()


def objections(encoded: Sequence[bytes], head: Head, history: History, bound_lots: int, kept: int = 0) -> list[str]:
    """All that is wrong. `kept`: after a known loss of the log's tail, answers above this place are not looked for."""
    records = [decode(record) for record in encoded]
    return [
        *_broken_chain(encoded, head),
        *_bad_records(records, bound_lots),
        *_false_answers(records, history, kept),
        *_out_of_order(history),
        *_approved_while_stopped(history),
    ]


def _broken_chain(encoded: Sequence[bytes], head: Head) -> Iterator[str]:
    if GENESIS.extend(encoded) != head:
        yield f"the chain of {len(encoded)} records does not lead to {head}"


def _bad_records(records: Sequence[AnyRecord], bound_lots: int) -> Iterator[str]:
    position: dict[str, int] = {}
    leaves: dict[str, tuple[str, int, int]] = {}
    seen: set[tuple[str, str]] = set()
    for seq, record in enumerate(records, 1):
        if isinstance(record, Decided):
            name = record.order.client_order_id
            if ("order", name) in seen:
                yield f"order {name} is decided again at {seq}"
            seen.add(("order", name))
            leaves[name] = (record.order.symbol, record.order.side.sign, record.allowed_lots)
        elif isinstance(record, Executed):
            if ("execution", record.execution_id) in seen:
                yield f"execution {record.execution_id} is recorded again at {seq}"
            seen.add(("execution", record.execution_id))
            position[record.symbol] = position.get(record.symbol, 0) + record.sign * record.lots
            symbol, sign, open_lots = leaves.get(record.client_order_id, (record.symbol, record.sign, 0))
            closed = record.kind in CLOSING_KINDS
            leaves[record.client_order_id] = (symbol, sign, 0 if closed else max(0, open_lots - record.lots))
        yield from _beyond_bound(seq, position, leaves, bound_lots)


def _beyond_bound(
    seq: int, position: dict[str, int], leaves: dict[str, tuple[str, int, int]], bound_lots: int
) -> Iterator[str]:
    for symbol in {symbol for symbol, _, _ in leaves.values()}:
        sides = [sum(lots for of, sign, lots in leaves.values() if (of, sign) == (symbol, side)) for side in (1, -1)]
        low, high = position.get(symbol, 0) - sides[1], position.get(symbol, 0) + sides[0]
        if max(abs(low), abs(high)) > bound_lots:
            yield f"{symbol} could end anywhere from {low} to {high} after record {seq}"


def _false_answers(records: Sequence[AnyRecord], history: History, kept: int) -> Iterator[str]:
    for checked in history.checked:
        answer = checked.answer
        if answer is None or (kept and answer.seq > kept):
            continue
        name = checked.order.client_order_id
        record = records[answer.seq - 1] if answer.seq <= len(records) else None
        if not isinstance(record, Decided) or record.order != checked.order:
            yield f"the answer to {name} is not at its place {answer.seq}"
        elif answer.prior is None and (answer.decided.action, answer.decided.allowed_lots) != (
            record.action,
            record.allowed_lots,
        ):
            yield f"the answer to {name} differs from its record {answer.seq}"
        elif answer.prior is not None and answer.decided.allowed_lots:
            yield f"the voided {name} is allowed"


def _out_of_order(history: History) -> Iterator[str]:
    fresh = [c for c in history.checked if c.answer is not None and not c.answer.replayed]
    by_return = sorted(fresh, key=lambda checked: checked.returned or 0)
    returned, newest = 0, 0
    for checked in sorted(fresh, key=lambda checked: checked.invoked):
        while (by_return[returned].returned or 0) < checked.invoked:
            earlier = by_return[returned].answer
            newest = max(newest, earlier.seq if earlier is not None else 0)
            returned += 1
        if checked.answer is not None and checked.answer.seq <= newest:
            yield f"{checked.order.client_order_id} at {checked.answer.seq} was invoked after an answer at {newest}"


def _approved_while_stopped(history: History) -> Iterator[str]:
    for checked in history.checked:
        if checked.answer is None or not checked.answer.decided.action.allows:
            continue
        for stopped in history.stopped:
            if stopped.forbids(checked):
                yield f"{checked.order.client_order_id} was approved after a stop of {stopped.scope} had returned"
