"""Which open orders no longer fit the limits, now that a bound, a mark or a position has moved.

Pure. Limit by limit, at worst case as it stands: where one is over its bound, the newest of the open orders that add to
it go, until it fits or only the positions are left. Taking open orders away never raises a measure (the interval of
each symbol shrinks), so that what has to go is found by halving, and not one order at a time. A true reduction in the
limit's scope never goes, and a limit that can't be evaluated takes none away.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from engine.account import AccountState, OpenOrder, book_key
from engine.decide import Terms
from engine.limits import Limit, ScopeKind, reaches
from engine.measures import MEASURES
from engine.measures.measure import Family, Survey
from engine.order import Reason
from engine.utilisation import LimitUse, UseStatus, uses_of

TRIES_MAX = 2_000
"""Readings of one limit. Some thirty do for an account with 10,000 open orders; more are needed where hundreds of
symbols are over at once. When they are used up, an order too many goes rather than one too few."""

SLACK = 1e-12
"""Relative: a value that positions alone hold over the bound is the same value, added up in another order."""

_Line = Sequence[tuple["_Pile", OpenOrder]]


@dataclass(frozen=True, slots=True)
class Misfit:
    """An open order that has to go, and the limit that it takes too much of."""

    order: OpenOrder
    use: LimitUse
    reason: Reason


@dataclass(slots=True, eq=False)
class _Pile:
    """Open orders of one strategy, symbol and side, newest first: the first `taken` are tried without."""

    orders: list[OpenOrder]
    lots: list[int] = field(default_factory=list)
    """Counted lots of the first n."""
    taken: int = 0
    cause: str = ""
    """The scope of a limit that does not fit while this pile stands."""


def misfits(state: AccountState, terms: Terms, now_us: int, going: Iterable[OpenOrder]) -> list[Misfit]:
    """The open orders that no longer fit, for whoever asks to cancel them. `going`: orders that are asked to go anyway;
    their lots count no more here. `state` is left as it is."""
    trial = state.fork()
    gone: set[str] = set()
    for order in going:
        _take(trial, order, order.counted, gone)
    found: list[Misfit] = []
    for row in _judged(terms, state.account):
        for order, use in _Weighing(trial, terms, now_us, row).misfits(gone):
            found.append(Misfit(order, use, MEASURES[row.measure].reason))
            gone.add(order.client_order_id)
    return found


def _judged(terms: Terms, account: str) -> list[Limit]:
    """The rows that an open order can break, in the precedence of their reasons."""
    rows = [row for row in terms.limits.rows_for(account) if row.is_hard]
    standing = [row for row in rows if MEASURES[row.measure].family in (Family.PORTFOLIO, Family.QUOTA)]
    return sorted(standing, key=lambda row: MEASURES[row.measure].reason.rank)


def _take(trial: AccountState, order: OpenOrder, lots: int, gone: set[str]) -> None:
    gone.add(order.client_order_id)
    trial.release(order.strategy, order.symbol, order.sign, lots)


class _Weighing:
    """One limit on a trial state, from which orders are taken and to which they are given back."""

    def __init__(self, trial: AccountState, terms: Terms, now_us: int, row: Limit) -> None:
        self._trial, self._terms, self._now_us, self._row = trial, terms, now_us, row
        self._targets: dict[str, float] = {}
        self._tries = TRIES_MAX

    def misfits(self, gone: set[str]) -> list[tuple[OpenOrder, LimitUse]]:
        """What has to go for this limit; the trial state is then without it."""
        over = {use.scope: use for use in self._uses() if use.status is UseStatus.BREACHED}
        if not over:
            return []
        piles = self._piles(gone)
        line = sorted(((pile, order) for pile in piles for order in pile.orders), key=lambda entry: -entry[1].seq)
        self._aim(over, piles)
        self._shorten(line)
        self._spare(sorted((pile for pile in piles if pile.taken), key=lambda pile: pile.orders[pile.taken - 1].seq))
        first = next(iter(over.values()))
        return [(order, over.get(pile.cause, first)) for pile in piles for order in pile.orders[: pile.taken]]

    def _uses(self) -> list[LimitUse]:
        survey = Survey(
            self._trial, self._terms.instruments, self._terms.model, self._terms.limits.policy, self._now_us
        )
        return list(uses_of(survey, self._row, self._trial.account))

    def _piles(self, gone: set[str]) -> list[_Pile]:
        """What may have to go: in the limit's scope, still at the venue, no true reduction, not the gateway's own, and
        not what the execution engine could not cancel."""
        piles: dict[tuple[str, str, int], _Pile] = {}
        kept = self._reductions(gone)
        for order in sorted(self._trial.orders.values(), key=lambda order: -order.seq):
            if order.client_order_id in gone or order.client_order_id in kept:
                continue
            if self._is_reached(order) and not (order.own or order.closing or order.instruction_id):
                piles.setdefault((order.strategy, order.symbol, order.sign), _Pile([])).orders.append(order)
        for pile in piles.values():
            pile.lots = [0, *accumulate(order.counted for order in pile.orders)]
        return list(piles.values())

    def _is_reached(self, order: OpenOrder) -> bool:
        instrument = self._terms.instruments.get(order.symbol)
        return instrument is None or reaches(self._row, order.strategy, instrument)

    def _reductions(self, gone: set[str]) -> set[str]:
        """The open orders that, oldest first, close no more than is held in the limit's scope, and those that count for
        nothing: what they replace counts."""
        by_strategy = self._row.scope is ScopeKind.STRATEGY
        room: dict[tuple[str, str, int], int] = {}
        kept: set[str] = set()
        for order in sorted(self._trial.orders.values(), key=lambda order: (not order.closing, order.seq)):
            if order.client_order_id in gone:
                continue
            book = book_key(order.strategy) if by_strategy else ""
            side = (book, order.symbol, order.sign)
            if side not in room:
                position: int = self._trial.book_of(book).lots.item(self._trial.slots[order.symbol])
                room[side] = max(0, -position * order.sign)
            if order.counted <= room[side]:
                room[side] -= order.counted
                kept.add(order.client_order_id)
        return kept

    # --- halving -----------------------------------------------------------------------------------------------------

    def _set(self, pile: _Pile, taken: int) -> None:
        """Try without the first `taken` orders of a pile."""
        order = pile.orders[0]
        self._trial.release(order.strategy, order.symbol, order.sign, pile.lots[taken] - pile.lots[pile.taken])
        pile.taken = taken

    def _aim(self, over: dict[str, LimitUse], piles: Iterable[_Pile]) -> None:
        """Take everything away, and see what can be had: the bound, or what positions alone amount to."""
        for pile in piles:
            self._set(pile, len(pile.orders))
        least = {use.scope: use.value or 0.0 for use in self._uses()}
        for scope, use in over.items():
            value = least.get(scope, 0.0)
            self._targets[scope] = use.limit if value <= use.limit else value * (1.0 + SLACK)

    def _too_much(self) -> str | None:
        """A scope that does not fit as the piles are now, if any."""
        self._tries -= 1
        uses = self._uses()
        values = {use.scope: use.value for use in uses}
        blind = any(use.status is UseStatus.UNEVALUABLE for use in uses)
        for scope, target in self._targets.items():
            value = values.get(scope)
            if (value is None and blind) or (value is not None and value > target):
                return scope
        return None

    def _shorten(self, line: _Line) -> None:
        """From everything taken away to the fewest of the newest that will do."""
        least, most = 0, len(line)
        taken = most
        while least < most:
            middle = (least + most) // 2
            self._move(line, taken, middle)
            taken = middle
            if self._too_much() is None:
                most = middle
            else:
                least = middle + 1
        self._move(line, taken, most)

    def _move(self, line: _Line, taken: int, wanted: int) -> None:
        """From the first `taken` of the line to the first `wanted`."""
        counts: dict[_Pile, int] = {}
        step = 1 if wanted > taken else -1
        for pile, _ in line[min(taken, wanted) : max(taken, wanted)]:
            counts[pile] = counts.get(pile, 0) + step
        for pile, count in counts.items():
            self._set(pile, pile.taken + count)

    def _spare(self, piles: Sequence[_Pile]) -> None:
        """Give back what need not go: whole piles that add nothing to what is over, half of them at a time, and of
        the others the oldest orders. First those whose orders are the oldest."""
        if not piles or self._tries <= 0:
            return
        before = [pile.taken for pile in piles]
        for pile in piles:
            self._set(pile, 0)
        cause = self._too_much()
        if cause is None:
            return
        for pile, taken in zip(piles, before, strict=True):
            self._set(pile, taken)
        if len(piles) > 1:
            middle = len(piles) // 2
            self._spare(piles[:middle])
            self._spare(piles[middle:])
            return
        piles[0].cause = cause
        self._trim(piles[0])

    def _trim(self, pile: _Pile) -> None:
        least, most = 1, pile.taken
        while least < most and self._tries > 0:
            middle = (least + most) // 2
            self._set(pile, middle)
            if self._too_much() is None:
                most = middle
            else:
                least = middle + 1
        self._set(pile, most)
