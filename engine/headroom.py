"""Headroom: the most of a symbol that may be bought and sold now, and what refuses one lot more.

For each side the largest market order of the day that `decide` would allow in full, every smaller one too: not another
reading of the rules, but a search with `decide` as the judge. Each limit says by its closed form where it should end;
that is tried with the limit itself, and the whole with `decide`, before it is believed. Nothing is reserved or changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from engine.account import AccountState
from engine.control import TradingState
from engine.decide import (
    Terms,
    armed_limits,
    decide,
    guard_short,
    judge,
    reduce_only_cap,
    reduction_room,
    trading_state,
)
from engine.instrument import LOTS_MAX, Instrument
from engine.measures.measure import Armed, Case, Family, Unevaluable
from engine.minima import least_of
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import Decided
from engine.risk.var import tail_count

_VAR_CONFIDENCES = {"var_95": 0.95, "var_99": 0.99}
"""VaR is the one measure that is not convex in the lots: a reduction of 9 may pass where one of 5 does not."""


@dataclass(frozen=True, slots=True)
class Room:
    """What may be traded on one side."""

    lots: int
    """The largest order that is allowed in full, as is every smaller one that is not below a minimum."""
    reason: Reason
    """Why one lot more is refused, or cut down; never NONE."""
    binding: str
    """The limit that refuses it, as measure@kind:name, first by precedence; empty: a rule that comes before limits."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """What may be traded of a symbol."""

    symbol: str
    buy: Room
    sell: Room


def headroom(state: AccountState, terms: Terms, strategy: str, symbol: str, now_us: int) -> Headroom:
    """The headroom of a strategy ("" is the one without a name) in a symbol, which `state` must list if it is known.

    Exact for `state`, `terms` and `now_us`, and for nothing later: it reserves nothing. As with `decide`, the state is
    only read, but for what it caches."""
    buy, sell = (
        Asked(state, terms, _order(state, strategy, symbol, side), terms.instruments.get(symbol), now_us).room()
        for side in (Side.BUY, Side.SELL)
    )
    return Headroom(symbol, buy, sell)


def _order(state: AccountState, strategy: str, symbol: str, side: Side) -> Order:
    return Order(state.account, "", symbol, side, 1.0, OrderType.MARKET, TimeInForce.DAY, strategy)


@dataclass(frozen=True, slots=True)
class Asked:
    """An order of one side that is asked about at several sizes; each size is decided once."""

    state: AccountState
    terms: Terms
    order: Order
    instrument: Instrument | None
    now_us: int
    sizes: dict[int, Decided] = field(default_factory=dict)
    """What was decided so far, by lots."""

    def room(self) -> Room:
        least = self._least()
        if self.instrument is None or not self.allowed(least):
            return self._room_below(least)
        most = _most_at_all(self, self.instrument)
        lots = _most_by_limits(self, self.instrument, most)
        return self.refusing(_last_passing(self.allowed, lots, most + 1, least) + 1)

    def _least(self) -> int:
        """The fewest lots that are worth asking about: what is smaller may be sent only if it reduces."""
        if self.instrument is None:
            return 1
        try:
            least = least_of(self.state, self.terms.limits.policy, self.order, self.instrument)
        except Unevaluable:
            return 1
        return 1 if least is None else min(least.lots, LOTS_MAX)

    def _room_below(self, least: int) -> Room:
        """Where the least is refused: what reduces may still be sent, and is smaller."""
        if least == 1 or not self.allowed(1):
            return replace(self.refusing(least), lots=0)
        return self.refusing(_last_passing(self.allowed, 1, least) + 1)

    def decided(self, lots: int) -> Decided:
        found = self.sizes.get(lots)
        if found is None:
            size = self.instrument.lot_size if self.instrument is not None else 1.0
            sized = msgspec.structs.replace(self.order, quantity=lots * size)
            found = self.sizes[lots] = decide(self.state, self.terms, sized, self.now_us)
        return found

    def allowed(self, lots: int) -> bool:
        """Whether that many are allowed in full."""
        return self.decided(lots).action <= Action.WARN

    def refusing(self, lots: int) -> Room:
        """One lot less, and why it is not more: `lots` are refused."""
        refused = self.decided(lots)
        binding = (c for c in refused.checks if c.action > Action.WARN and c.reason is refused.reason and not c.shadow)
        return Room(lots - 1, refused.reason, next((f"{c.measure}@{c.scope}" for c in binding), ""))


def _most_at_all(asked: Asked, instrument: Instrument) -> int:
    """The most lots whatever the limits: in reduce-only what reduces the position, where short sales have to be marked
    what is left of it, else the largest order there is."""
    state, control, order = asked.state, asked.terms.control, asked.order
    most = LOTS_MAX
    if guard_short(state, asked.terms.limits.policy, order, instrument, most) is not None:
        most = max(1, state.book.interval(state.slots[order.symbol])[0])
    blocked = trading_state(state, control, order.strategy, order.symbol, order.sender)
    if blocked is TradingState.ACTIVE:
        return most
    cap = reduce_only_cap(state, control, order, most, blocked)
    assert isinstance(cap, int), "some lots were allowed"
    return cap


def _most_by_limits(asked: Asked, instrument: Instrument, most: int) -> int:
    """Where the armed limits end. Each is asked for no more than those before it leave: the first ones bound the size
    of an order, so that the others are not read at sizes that nobody trades."""
    state, terms, order = asked.state, asked.terms, asked.order
    policy = terms.limits.policy
    case = Case(state, terms.instruments, terms.model, policy, asked.now_us, order, instrument, most)
    case.control = terms.control
    for armed in armed_limits(state, terms, order, instrument, asked.now_us):
        lots = _most_by(case, armed)
        if lots < case.lots:
            case = case.resized(max(1, lots))
    return case.lots


def _most_by(case: Case, armed: Armed) -> int:
    """The most lots up to the case's that a limit lets pass, with every smaller number; one lot does.

    Within its bound a measure rises with the lots, since an order joins its side at worst case. Over it, those pass
    that truly reduce, and they too are the smallest ones."""

    def passes(lots: int) -> bool:
        return judge(case.resized(lots), (armed,)).action <= Action.WARN

    verdict = judge(case, (armed,))
    (check,) = verdict.checks
    passing = verdict.action <= Action.WARN
    if passing and not check.reduction:
        return case.lots
    room = reduction_room(case.state, armed.strategy, case.slot, case.sign)
    if check.after is None:
        return min(case.lots, room)
    end = max(_most_within(case, armed), _most_reducing(case, armed, min(case.lots, room)))
    return case.lots if passing and end >= case.lots else _last_passing(passes, end, case.lots)


def _most_within(case: Case, armed: Armed) -> int:
    fit = armed.measure.fit
    return 0 if fit is None else fit(case, armed, armed.bound)


def _most_reducing(case: Case, armed: Armed, room: int) -> int:
    """The most lots, of the `room` that reduce in the limit's scope, that pass over its bound with every smaller
    number; for a convex measure that is all of them or found by trying."""
    if armed.measure.family is Family.FAT_FINGER:
        return 0
    return _var_falls(case, armed, room) if room and armed.name in _VAR_CONFIDENCES else room


def _var_falls(case: Case, armed: Armed, room: int) -> int:
    """The most lots up to `room` for which VaR, once filled, is below what it is now, and for every smaller number.

    VaR falls as long as fewer than k days lose what it is now or more. Filled lots move each day's loss in proportion,
    so that a day joins these or leaves them once: their number can only rise where one joins, and there it is counted.
    """
    view, columns = case.of(armed), case.columns()
    days, confidence = columns.days, _VAR_CONFIDENCES[armed.name]
    losses = view.losses(columns)[:days]
    now, worst = view.tail(columns, days).var(confidence), tail_count(days, confidence)
    harm = -case.sign * case.scenario_value() * columns.returns[case.slot][:days]
    rises, falls = harm > 0, (harm < 0) & (losses >= now)
    joins = np.sort((now - losses[rises]) / harm[rises])
    leaves = np.sort((now - losses[falls]) / harm[falls])
    unmoved = np.count_nonzero((harm == 0) & (losses >= now))
    at = np.unique(np.append(np.ceil(joins), 1.0))
    at = at[(at >= 1) & (at <= room)]
    members = unmoved + np.searchsorted(joins, at, "right") + len(leaves) - np.searchsorted(leaves, at, "left")
    over = np.flatnonzero(members >= worst)
    return int(at[over[0]]) - 1 if len(over) else room


def _last_passing(passes: Callable[[int], bool], guess: int, failing: int, passing: int = 1) -> int:
    """The largest number that passes; `passing` does, `failing` does not, and the guess is as a rule right, for then it
    takes two tries. Steps that double lead from a wrong one to the right one, and halves close in on it."""
    step = 1
    guess = max(passing, min(guess, failing - 1))
    upwards = guess == passing or passes(guess)
    passing, failing = (guess, failing) if upwards else (passing, guess)
    while failing - passing > 1:
        middle = (passing + failing) // 2
        tried = min(passing + step, middle) if upwards else max(failing - step, middle)
        passing, failing = (tried, failing) if passes(tried) else (passing, tried)
        step *= 2
    return passing
