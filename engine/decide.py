"""The decision on an order. Pure: everything it looks at is in its arguments.

The guards stand in the order of the reasons they give. Then every armed limit that reaches the order is read, and this
module alone knows what follows: the strictest action wins, true reductions pass, REDUCE finds the largest quantity that
fits every limit, a limit that can't be evaluated refuses. The result is the record that is appended to the log.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from engine.account import AccountState, book_key
from engine.control import NOBODY, Control, Scope, Sender, TradingState
from engine.instrument import LOTS_MAX, AssetClass, Instrument, InstrumentSet
from engine.limits import IDENTITY_SCOPES, Limit, LimitAction, LimitSet, Policy, ScopeKind, reaches
from engine.measures import MEASURES
from engine.measures.measure import (
    MICROS,
    NOTHING_REPLACED,
    Armed,
    Case,
    Family,
    Reading,
    Replaced,
    Unevaluable,
)
from engine.minima import least_of
from engine.order import Action, Order, Reason, Side, TimeInForce
from engine.records import Check, Decided, Latch, Tightened
from engine.risk.model import RiskModel
from engine.tightening import changes_us, factor_on
from engine.view import View, largest

GUARDED = ("size", "value", "position")
"""Where no limit of one of these kinds reaches an instrument, nothing trades in it (FIA: no limit means blocked)."""

RESOLVED_MAX = 4_096
"""Pairs of strategy and symbol whose limits are remembered per account: names of strategies are free text."""

REDUCE_TRIES_MAX = 4
"""The closed forms are exact up to rounding: a lot more or less mends that, more tries would hide a wrong formula."""

_ACTIONS = {
    LimitAction.WARN: Action.WARN,
    LimitAction.REDUCE: Action.REDUCE,
    LimitAction.REJECT: Action.REJECT,
    LimitAction.HALT: Action.HALT,
}

_ALLOW, _NONE = Action.ALLOW, Reason.NONE
"""Looked up once: every check reads them."""

_UNTOLD: Mapping[str, str] = MappingProxyType({})
"""Who stands behind an order, where no limit asks."""

_STATE_REASONS = {
    TradingState.HALTED: Reason.TRADING_HALTED,
    TradingState.CANCEL_ONLY: Reason.CANCEL_ONLY,
    TradingState.REDUCE_ONLY: Reason.REDUCE_ONLY,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order is decided under, beside the account's state: each named by its hash in the record."""

    control: Control
    limits: LimitSet
    instruments: InstrumentSet
    model: RiskModel | None
    shadow: LimitSet | None = None
    """A whole set that is evaluated beside `limits` and changes no decision."""


class Verdict(msgspec.Struct, frozen=True):
    """What the limits say of one size of an order."""

    action: Action
    reason: Reason
    message: str
    checks: tuple[Check, ...]
    fit: int
    """The most lots that every breached REDUCE limit allows; the asked lots where none is breached."""
    breached: tuple[tuple[Armed, Check], ...]


@dataclass(frozen=True, slots=True)
class _Refusal:
    action: Action
    reason: Reason
    message: str


def decide(state: AccountState, terms: Terms, order: Order, now_us: int) -> Decided:
    """The verdict on `order` in `state`, which must list its symbol if the instrument is known.

    Nothing is changed: the caller appends the record and folds it. The same arguments give the same record.
    """
    instrument = terms.instruments.get(order.symbol)
    blocked = trading_state(state, terms.control, order.strategy, order.symbol, order.sender)
    if blocked >= TradingState.CANCEL_ONLY:
        return _refused(terms, order, now_us, _stopped(state, terms.control, order, blocked), instrument)
    if instrument is None:
        return _refused(terms, order, now_us, _unknown(order), instrument)
    resolved = _resolved(state, terms, order, instrument, now_us)
    lots = instrument.lots(order.quantity) or 0
    refusal = _guard(state, terms, order, instrument, lots, resolved)
    if refusal is not None:
        return _refused(terms, order, now_us, refusal, instrument)
    replaced = _replaced(state, order, instrument) if order.replaces_client_order_id else NOTHING_REPLACED
    cap = reduce_only_cap(state, terms.control, order, lots, blocked, replaced)
    if isinstance(cap, _Refusal):
        return _refused(terms, order, now_us, cap, instrument)
    case = Case(state, terms.instruments, terms.model, terms.limits.policy, now_us, order, instrument, cap, replaced)
    case.control = terms.control
    verdict, allowed = judge(case, resolved.limits), cap
    if verdict.action > Action.WARN:
        verdict, allowed = _cut(case, resolved.limits, verdict)
    if cap < lots or verdict.action is Action.REDUCE:
        verdict, allowed = _part(case, verdict, lots, allowed)
    return _decided(terms, case, verdict, lots, allowed)


def _cut(case: Case, limits: Sequence[Armed], verdict: Verdict) -> tuple[Verdict, int]:
    """What a verdict that does not let the order pass whole leaves of it: some lots where REDUCE finds any that may be
    sent, else none."""
    if verdict.action is not Action.REDUCE:
        return verdict, 0
    allowed = _largest(case, limits, verdict)
    too_small = _guard_minima(case.state, case.policy, case.order, case.instrument, allowed) if allowed else None
    if too_small is not None:
        allowed = _largest_exit(case, limits)
    if allowed == 0:
        left = f"{verdict.message}; of what is left, {too_small.message}" if too_small else verdict.message
        verdict = msgspec.structs.replace(verdict, action=Action.REJECT, message=left)
    return verdict, allowed


def _part(case: Case, verdict: Verdict, lots: int, allowed: int) -> tuple[Verdict, int]:
    """The verdict where not all of the `lots` asked for are allowed: those that do more than reduce were not judged
    (`case.lots` were), or a limit allows fewer. Nothing at all where the order takes no part of itself."""
    action, reason, message = verdict.action, verdict.reason, verdict.message
    if case.lots < lots and action.allows:
        action = Action.REDUCE
        if allowed == case.lots:
            reason = Reason.REDUCE_ONLY_ORDER if case.order.reduce_only else Reason.REDUCE_ONLY
        message = (
            f"only {_quantity(case.instrument, case.lots)} of {_quantity(case.instrument, lots)} reduce the position"
        )
    if action is Action.REDUCE and case.order.all_or_none:
        action, allowed = Action.REJECT, 0
        message = f"{message}; all_or_none refuses a smaller order"
    elif action is Action.REDUCE:
        message = f"{message}; allowed: {_quantity(case.instrument, allowed)}"
    return msgspec.structs.replace(verdict, action=action, reason=reason, message=message), allowed


def _decided(terms: Terms, case: Case, verdict: Verdict, lots: int, allowed: int) -> Decided:
    """The record of a verdict on `lots` asked for, of which `allowed` may be sent."""
    order, control = case.order, terms.control
    return Decided(
        time_us=case.now_us,
        epoch=control.epoch,
        order=order,
        digest=order.digest,
        action=verdict.action,
        reason=verdict.reason,
        message=verdict.message,
        lots=lots,
        allowed_lots=allowed,
        limit_set=terms.limits.hash,
        instrument_set=terms.instruments.hash,
        risk_model=terms.model.hash if terms.model is not None else "",
        shadow_set=terms.shadow.hash if terms.shadow is not None else "",
        checks=verdict.checks,
        latches=_latches(case.state, terms, order, verdict) if verdict.action is Action.HALT else (),
        expires_us=_expiry(order, terms, case.now_us),
        limit_price=order.limit_price,
        filled_lots=case.replaced.filled if allowed else 0,
        atomic=allowed > 0 and bool(order.replaces_client_order_id) and case.instrument.replaces_atomically,
    )


def _expiry(order: Order, terms: Terms, now_us: int) -> int | None:
    default_s = terms.limits.policy.valid_for_default_s
    if order.valid_for_us is not None:
        return now_us + order.valid_for_us
    return None if default_s is None else now_us + int(default_s * MICROS)


def decide_basket(state: AccountState, terms: Terms, orders: Sequence[Order], now_us: int) -> list[Decided]:
    """All of `orders` or none, in one step: each sees the reservations of those before it. If a leg is refused or
    would be reduced, every leg is refused; that leg says why, the others name it. It binds approval, not fills."""
    trial = state.fork()
    decided: list[Decided] = []
    for order in orders:
        record = decide(trial, terms, order, now_us)
        decided.append(record)
        trial.apply(record)
    failed = next((r for r in decided if not r.action.allows or r.allowed_lots < r.lots), None)
    if failed is None:
        return decided
    return [record if record.allowed_lots == 0 else _basket_refusal(record, failed) for record in decided]


def _basket_refusal(record: Decided, failed: Decided) -> Decided:
    if record is failed:
        message = f"{record.message}; an all-or-none basket takes no smaller leg"
        return msgspec.structs.replace(record, action=Action.REJECT, allowed_lots=0, message=message)
    return msgspec.structs.replace(
        record,
        action=Action.REJECT,
        reason=Reason.BASKET_LEG_REFUSED,
        allowed_lots=0,
        message=f"leg {failed.order.client_order_id} of the all-or-none basket was refused: {failed.message}",
    )


# --- guards, in order of precedence -------------------------------------------------------------------------------


def trading_state(
    state: AccountState, control: Control, strategy: str, symbol: str, sender: Sender = NOBODY
) -> TradingState:
    """The strictest of the stops and the account's own latches that reach such an order."""
    stopped = control.state_at(state.account, strategy, symbol, sender)
    return max(stopped, state.latched_state(control, strategy, symbol, sender)) if state.latches else stopped


def superseded(state: AccountState, control: Control, order: Order, approved_seq: int, approved_epoch: int) -> bool:
    """Whether a stop, in force or lifted, came after an approval: it is then no approval any more (CONSISTENCY, stop
    dominates replay)."""
    place = order.strategy, order.symbol, order.sender
    return control.stopped_since(approved_epoch, order.account, *place) or state.latched_after(approved_seq, *place)


def _stopped(state: AccountState, control: Control, order: Order, blocked: TradingState) -> _Refusal:
    return _Refusal(Action.HALT, _STATE_REASONS[blocked], _why_blocked(state, control, order, blocked))


def _guard(
    state: AccountState, terms: Terms, order: Order, instrument: Instrument, lots: int, resolved: "_Resolved"
) -> _Refusal | None:
    """The first rule that the order violates before any limit is read."""
    return (
        _guard_instrument(state, instrument)
        or _guard_terms(terms.limits.policy, order, instrument, lots)
        or _guard_replaced(state, order, lots)
        or _guard_identity(terms.limits.policy, order)
        or guard_short(state, terms.limits.policy, order, instrument, lots)
        or _guard_limits(instrument, resolved)
        or _guard_minima(state, terms.limits.policy, order, instrument, lots)
    )


def _unknown(order: Order) -> _Refusal:
    message = f"symbol {order.symbol!r} is not registered; operators add it with RegisterInstruments"
    return _Refusal(Action.REJECT, Reason.INSTRUMENT_UNKNOWN, message)


def _guard_instrument(state: AccountState, instrument: Instrument) -> _Refusal | None:
    if not instrument.tradeable:
        message = f"{instrument.symbol} is registered as not tradeable"
        return _Refusal(Action.REJECT, Reason.INSTRUMENT_NOT_PERMITTED, message)
    if (
        instrument.expiry is not None
        and state.session is not None
        and state.session.date > instrument.expiry.isoformat()
    ):
        message = f"{instrument.symbol} expired on {instrument.expiry}; the session is {state.session.date}"
        return _Refusal(Action.REJECT, Reason.INSTRUMENT_EXPIRED, message)
    return None


def _guard_terms(policy: Policy, order: Order, instrument: Instrument, lots: int) -> _Refusal | None:
    if not 1 <= lots <= LOTS_MAX:
        message = f"quantity {order.quantity:g} is not a whole number of lots of {instrument.lot_size:g}"
        return _Refusal(Action.REJECT, Reason.LOT_SIZE, message)
    for price in (order.limit_price, order.stop_price):
        if price is not None and (instrument.ticks(price) or 0) < 1:
            name = "limit_price" if price is order.limit_price else "stop_price"
            message = f"{name} {price:g} is not a whole number of ticks of {instrument.tick_size:g}, one at least"
            return _Refusal(Action.REJECT, Reason.TICK_SIZE, message)
    if order.order_type not in policy.order_types:
        message = f"order type {order.order_type.name} is not permitted by the limit set"
        return _Refusal(Action.REJECT, Reason.ORDER_TYPE_NOT_PERMITTED, message)
    if order.time_in_force not in policy.times_in_force:
        message = f"time in force {order.time_in_force.name} is not permitted by the limit set"
        return _Refusal(Action.REJECT, Reason.TIME_IN_FORCE_NOT_PERMITTED, message)
    if order.time_in_force is TimeInForce.GTD and order.valid_for_us is None:
        message = "time in force GTD needs valid_for"
        return _Refusal(Action.REJECT, Reason.TIME_IN_FORCE_NOT_PERMITTED, message)
    return None


def _guard_replaced(state: AccountState, order: Order, lots: int) -> _Refusal | None:
    if not order.replaces_client_order_id:
        return None
    replaced = state.orders.get(order.replaces_client_order_id)
    reason = Reason.REPLACED_ORDER_UNKNOWN
    if replaced is None or replaced.closing:
        what = "is not open"
    elif (replaced.strategy, replaced.symbol, replaced.sign) != (order.strategy, order.symbol, order.side.sign):
        what = "is of another strategy, symbol or side"
    elif replaced.own:
        what = "is the gateway's own"
    elif lots <= replaced.filled_in_all:
        reason = Reason.REPLACED_ORDER_FILLED
        what = "has filled as much as this one wants in total; cancel it instead"
    else:
        return None
    return _Refusal(Action.REJECT, reason, f"order {order.replaces_client_order_id!r}, which this one replaces, {what}")


def _guard_identity(policy: Policy, order: Order) -> _Refusal | None:
    if not policy.identities_required or not order.client_order_id:  # only asked about
        return None
    named = order.identities
    missing = [kind for kind in policy.identities_required if not named[kind]]
    if not missing:
        return None
    message = f"the limit set requires the order's {', '.join(missing)}; name it with the order"
    return _Refusal(Action.REJECT, Reason.IDENTITY_MISSING, message)


def _replaced(state: AccountState, order: Order, instrument: Instrument) -> Replaced:
    replaced = state.orders[order.replaces_client_order_id]
    if not instrument.replaces_atomically:
        return Replaced(replaced.filled_in_all)
    chain = state.chains.get(replaced.chain)
    live = (state.orders[name] for name in chain.live) if chain is not None else (replaced,)
    return Replaced(replaced.filled_in_all, max(one.leaves for one in live))


def guard_short(
    state: AccountState, policy: Policy, order: Order, instrument: Instrument, lots: int
) -> _Refusal | None:
    """Long is what is left once every open sell has filled, not the position alone."""
    if order.side is not Side.SELL or not policy.short_sales_marked or instrument.asset_class is not AssetClass.EQUITY:
        return None
    spared = sum(_replaced(state, order, instrument)) if order.replaces_client_order_id else 0
    low = state.book.interval(state.slots[order.symbol])[0]
    if low - max(0, lots - spared) >= 0:
        return None
    message = (
        f"a sell of {_quantity(instrument, lots)} could lead {order.symbol} below zero: {_quantity(instrument, low)} "
        "are left of it once the open sells have filled; send it as SIDE_SELL_SHORT"
    )
    return _Refusal(Action.REJECT, Reason.SHORT_SALE_UNMARKED, message)


def _guard_limits(instrument: Instrument, resolved: "_Resolved") -> _Refusal | None:
    if not resolved.missing:
        return None
    missing = " and no ".join(resolved.missing)
    message = f"no {missing} limit reaches {instrument.symbol}: where none does, nothing trades"
    return _Refusal(Action.REJECT, Reason.LIMIT_MISSING, message)


def _guard_minima(
    state: AccountState, policy: Policy, order: Order, instrument: Instrument, lots: int
) -> _Refusal | None:
    if not (instrument.quantity_min or policy.order_value_min) or lots <= exit_room(state, order, instrument):
        return None
    try:
        least = least_of(state, policy, order, instrument)
    except Unevaluable as missing:
        return _Refusal(Action.REJECT, missing.reason, f"the least value of an order can't be told: {missing.note}")
    if least is None or lots >= least.lots:
        return None
    message = f"{_quantity(instrument, lots)} is below {least.rule}; only what reduces the position may be smaller"
    return _Refusal(Action.REJECT, least.reason, message)


def exit_room(state: AccountState, order: Order, instrument: Instrument) -> int:
    """The most lots of an order that close a position, the account's or the strategy's: no minimum stops them."""
    replaced = _replaced(state, order, instrument) if order.replaces_client_order_id else NOTHING_REPLACED
    return max(_room(state, order, book, replaced) for book in ("", book_key(order.strategy)))


def reduce_only_cap(
    state: AccountState,
    control: Control,
    order: Order,
    lots: int,
    blocked: TradingState,
    replaced: Replaced = NOTHING_REPLACED,
) -> int | _Refusal:
    """The most lots that may be judged: all of them, or in reduce-only no more than reduce the position."""
    in_force = blocked is TradingState.REDUCE_ONLY
    if not in_force and not order.reduce_only:
        return lots
    caps = [lots]
    if in_force:
        caps += [_room(state, order, book, replaced) for book in _reduce_only_books(state, control, order)]
    if order.reduce_only:
        caps += [_room(state, order, book, replaced) for book in ("", book_key(order.strategy))]
    cap = min(caps)
    if cap > replaced.filled:
        return cap
    position = int(state.book_of(book_key(order.strategy)).lots[state.slots[order.symbol]])
    what = f"a {order.side.name.lower()} of {order.symbol} reduces nothing: the position is {position} lots"
    if in_force:
        why = _why_blocked(state, control, order, TradingState.REDUCE_ONLY)
        return _Refusal(Action.HALT, Reason.REDUCE_ONLY, f"{why}; {what}, less what is already open to close it")
    return _Refusal(
        Action.REJECT, Reason.REDUCE_ONLY_ORDER, f"reduce_only: {what}, less what is already open to close it"
    )


def _reduce_only_books(state: AccountState, control: Control, order: Order) -> set[str]:
    """Books in whose scope the order must reduce: the strategy's for a stop of that strategy, else the account's."""
    place = state.account, order.strategy, order.symbol, order.sender
    scopes = [stop.scope for stop in control.stops_at(*place)]
    scopes += [
        latch.scope
        for latch, seq in state.latches.values()
        if latch.scope.reaches(*place) and state.latch_holds(latch, seq, control)
    ]
    return {order.strategy if scope.strategy else "" for scope in scopes}


def _room(state: AccountState, order: Order, strategy: str, replaced: Replaced) -> int:
    """The most lots in total of which nothing does more than reduce."""
    slot, sign = state.slots[order.symbol], order.side.sign
    if replaced is not NOTHING_REPLACED and not side_reduces(state, strategy, slot, sign):
        return 0
    return replaced.filled + replaced.covered + reduction_room(state, strategy, slot, sign)


def reduction_room(state: AccountState, strategy: str, slot: int, sign: int) -> int:
    """The most lots of a side that truly reduce a book: |P| less the leaves on that side, if it opposes P."""
    book = state.book_of(strategy)
    position = int(book.lots[slot])
    if position * sign >= 0:
        return 0
    leaves = int((book.buys if sign > 0 else book.sells)[slot])
    return max(0, abs(position) - leaves)


def side_reduces(state: AccountState, strategy: str, slot: int, sign: int) -> bool:
    """Whether everything that is open on a side of a book truly reduces it: it opposes P, and is at most |P|."""
    book = state.book_of(strategy)
    position = int(book.lots[slot])
    return position * sign < 0 and int((book.buys if sign > 0 else book.sells)[slot]) <= abs(position)


def _why_blocked(state: AccountState, control: Control, order: Order, blocked: TradingState) -> str:
    place = state.account, order.strategy, order.symbol, order.sender
    for stop in control.stops_at(*place):
        if stop.state is blocked:
            reason = f": {stop.reason}" if stop.reason else ""
            return f"{blocked.name} for {stop.scope} by {stop.actor} at epoch {stop.epoch}{reason}"
    for latch, _ in state.latches.values():
        if latch.state is blocked and latch.scope.reaches(*place):
            return f"{blocked.name} for {latch.scope} since epoch {latch.epoch}: {latch.cause}"
    return blocked.name


# --- limits -------------------------------------------------------------------------------------------------------


class _Resolved(msgspec.Struct, frozen=True):
    """What a limit set says of the orders of a strategy in an instrument."""

    limit_set: LimitSet
    shadow_set: LimitSet | None
    instrument_set: InstrumentSet
    tightenings: tuple[Tightened, ...]
    from_us: int
    until_us: int
    """As long as time is from `from_us`, included, to `until_us`, excluded, the same tightenings hold."""
    limits: tuple[Armed, ...]
    """Those of the set in force, then those of the set in shadow, which change nothing."""
    missing: tuple[str, ...]
    """Kinds of guard that none of `limits` is."""


def armed_limits(
    state: AccountState, terms: Terms, order: Order, instrument: Instrument, now_us: int
) -> tuple[Armed, ...]:
    """The limits that reach an order, in the precedence of their reasons."""
    return _resolved(state, terms, order, instrument, now_us).limits


def _resolved(state: AccountState, terms: Terms, order: Order, instrument: Instrument, now_us: int) -> _Resolved:
    """Resolved once, and cached as long as the sets are the same and the same tightenings hold."""
    strategy = order.strategy
    key: tuple[str, ...] = (strategy, instrument.symbol)
    identities = _UNTOLD
    if terms.limits.by_identity or (terms.shadow is not None and terms.shadow.by_identity):
        key, identities = (*key, *order.identity), order.identities
    cached: _Resolved | None = state.resolved.get(key)
    if (
        cached is not None
        and cached.limit_set is terms.limits
        and cached.instrument_set is terms.instruments
        and cached.shadow_set is terms.shadow
        and cached.tightenings is state.tightenings
        and cached.from_us <= now_us < cached.until_us
    ):
        return cached
    limits = _reaching(terms.limits, state, strategy, instrument, now_us, identities)
    shadows = (
        _reaching(terms.shadow, state, strategy, instrument, now_us, identities, True)
        if terms.shadow is not None
        else ()
    )
    guarding = {one.measure.guards for one in limits if one.row.is_hard}
    missing = tuple(kind for kind in GUARDED if kind not in guarding)
    if len(state.resolved) >= RESOLVED_MAX:
        state.resolved.clear()
    resolved = state.resolved[key] = _Resolved(
        terms.limits,
        terms.shadow,
        terms.instruments,
        state.tightenings,
        now_us,
        changes_us(state.tightenings, now_us),
        (*limits, *shadows),
        missing,
    )
    return resolved


def _reaching(
    limit_set: LimitSet,
    state: AccountState,
    strategy: str,
    instrument: Instrument,
    now_us: int,
    identities: Mapping[str, str],
    shadow: bool = False,
) -> tuple[Armed, ...]:
    """The rows of a set that reach such an order, in the precedence of their reasons."""
    rows = [row for row in limit_set.rows_for(state.account) if reaches(row, strategy, instrument, identities)]
    rows.sort(key=lambda row: MEASURES[row.measure].reason.rank)
    factors = [factor_on(state.tightenings, row.measure, instrument, now_us) for row in rows]
    return tuple(
        Armed(row, MEASURES[row.measure], state.account, strategy, instrument, shadow, factor, identities)
        for row, factor in zip(rows, factors, strict=True)
    )


def judge(case: Case, limits: Sequence[Armed]) -> Verdict:
    """Read every limit for this size of the order."""
    checks: list[Check] = []
    breached: list[tuple[Armed, Check]] = []
    action, reason, message, fit = Action.ALLOW, Reason.NONE, "within all limits", case.lots
    for armed in limits:
        try:
            reading = armed.read(case, armed)
        except Unevaluable as missing:
            check = _unevaluable(case, armed, missing)
        else:
            before, after, age_us = reading
            change = after - before
            if change - change == 0.0 and after < armed.quiet:  # both are finite
                checks.append(
                    Check(
                        armed.name,
                        armed.label,
                        before,
                        after,
                        armed.warn,
                        armed.bound,
                        armed.unit_name,
                        _ALLOW,
                        _NONE,
                        age_us,
                    )
                )
                continue
            check = _check(case, armed, reading)
        checks.append(check)
        if check.action is _ALLOW or armed.shadow:
            continue
        if check.action > Action.WARN:
            breached.append((armed, check))
            if check.action is Action.REDUCE:
                fit = min(fit, _fit(case, armed))
        if check.action > action:
            action, reason, message = check.action, check.reason, describe(check)
    if action > Action.WARN:
        first = breached[0][1]
        reason, message = first.reason, describe(first)
    return Verdict(action, reason, message, tuple(checks), max(0, fit), tuple(breached))


def _check(case: Case, armed: Armed, reading: Reading) -> Check:
    before, after, age_us = reading
    if not (math.isfinite(before) and math.isfinite(after)):
        note = f"{armed.name} is {before} before and {after} after the order"
        return _unevaluable(case, armed, Unevaluable(Reason.MEASURE_NOT_FINITE, note))
    action, reason, reduction, note = _ALLOW, _NONE, False, ""
    if after > armed.bound:
        reduction = _passes_as_reduction(case, armed, reading)
        if case.joining == 0 and not reduction and armed.measure.family in (Family.PORTFOLIO, Family.QUOTA):
            note = "it adds nothing to the order that it replaces"
        elif not reduction:
            action, reason = _ACTIONS[armed.row.action], armed.measure.reason
        if armed.measure.say is not None:
            note = armed.measure.say(case)
    if action is _ALLOW and armed.warn is not None and after >= armed.warn:
        action, reason = Action.WARN, armed.measure.reason
    return Check(
        armed.name,
        armed.label,
        before,
        after,
        armed.warn,
        armed.bound,
        armed.unit_name,
        action,
        reason,
        age_us,
        False,
        reduction,
        note,
        armed.shadow,
    )


def _unevaluable(case: Case, armed: Armed, missing: Unevaluable) -> Check:
    reduction = _is_reduction(case, armed)
    warns_only = armed.row.action is LimitAction.WARN
    action = Action.ALLOW if reduction else Action.WARN if warns_only else Action.REJECT
    return Check(
        armed.name,
        armed.label,
        None,
        None,
        armed.warn,
        armed.bound,
        armed.unit_name,
        action,
        Reason.NONE if reduction else missing.reason,
        0,
        False,
        reduction,
        missing.note,
        armed.shadow,
    )


def _is_reduction(case: Case, armed: Armed) -> bool:
    """A true reduction in the limit's scope, judged from lots (DESIGN.md)."""
    if case.joining == 0:
        return side_reduces(case.state, armed.strategy, case.slot, case.sign)
    return case.joining <= reduction_room(case.state, armed.strategy, case.slot, case.sign)


def _passes_as_reduction(case: Case, armed: Armed, reading: Reading) -> bool:
    """Whether a breached limit lets the order pass because it truly reduces. Fat-finger limits never do; a portfolio
    measure does where the order, if filled, lowers it (or, of a sum, has no part in it: stock has no vega) and the grid
    loss of its underlying's group does not rise."""
    measure = armed.measure
    if measure.family is Family.FAT_FINGER or not _is_reduction(case, armed):
        return False
    if measure.family is Family.INPUT or measure.filled is None:
        return True
    try:
        filled, standing = measure.filled(case, armed), _standing(case, armed, reading)
        is_untouched = measure.is_sum and filled == standing == reading[1]
        return (filled < standing or is_untouched) and not _group_grid_rises(case)
    except Unevaluable:
        return True


def _standing(case: Case, armed: Armed, reading: Reading) -> float:
    """The measure without the order. A position limit reads one side only; what a reduction lowers is the larger."""
    if armed.measure.name != "position":
        return reading[0]
    low, high = case.state.book_of(armed.strategy).interval(case.slot)
    return max(abs(low), abs(high)) * case.instrument.lot_size


def _group_grid_rises(case: Case) -> bool:
    """Whether filling the order raises the worst loss over a ±spot move of its underlying's group.

    For linear instruments that loss is proportional to max(Σ high, −Σ low) over the group, which needs no model; where
    options are among the symbols it is read off the grid. Raises Unevaluable there.
    """
    underlyings = case.underlyings()
    if underlyings.alone:
        return False
    view = case.view("", None)
    if not case.values.linear:
        return _grid_rises(case, view)
    members = underlyings.index == underlyings.index[case.slot]
    low, high = float(view.low[members].sum()), float(view.high[members].sum())
    moved = case.sign * case.joining * case.unit_value()
    now, then = max(high, -low), max(high + moved, -(low + moved))
    return then > now * (1 + 1e-12)


def _grid_rises(case: Case, view: View) -> bool:
    columns, slot = case.columns(), case.slot
    now = view.grid_of(columns, case.underlyings(), slot)
    moved = case.sign * case.joining * case.scenario_value()
    then, worst = largest(now - moved * columns.grid[slot]), largest(now)
    return then > max(worst, 0.0) + 1e-12 * abs(worst)


def _fit(case: Case, armed: Armed) -> int:
    """The most lots of the order that the limit lets pass: within its bound, or as a true reduction if that is more."""
    fit = armed.measure.fit(case, armed, armed.bound) if armed.measure.fit is not None else 0
    if armed.measure.family is Family.FAT_FINGER:
        return max(0, min(case.lots, fit))
    room = min(case.joining, reduction_room(case.state, armed.strategy, case.slot, case.sign))
    joining = max(0, min(case.joining, fit), _reducing(case, armed, room) if room > fit else 0)
    return min(case.lots, case.spared + joining)


def _reducing(case: Case, armed: Armed, room: int) -> int:
    """The most lots up to `room` that pass as a true reduction. Bisected: the more lots, the later a measure stops
    falling, for it is convex in them (but VaR, of which a quantity that passes is found, not surely the largest)."""
    reading = armed.measure.read(case, armed)
    passing, failing = 0, room + 1
    tried = room
    while failing - passing > 1:
        if _passes_as_reduction(case.resized(case.spared + tried), armed, reading):
            passing = tried
        else:
            failing = tried
        tried = (passing + failing) // 2
    return passing


def _largest(case: Case, limits: Sequence[Armed], verdict: Verdict) -> int:
    """The largest quantity that every limit allows, or 0. Each closed form is tried before it is believed, from one
    lot above it down, because it is exact only up to rounding."""
    lots = case.lots
    for _ in range(REDUCE_TRIES_MAX):
        lots = min(lots - 1, verdict.fit + 1)
        if lots <= case.replaced.filled:
            return 0
        verdict = judge(case.resized(lots), limits)
        if verdict.action <= Action.WARN:
            return lots
    return 0


def _largest_exit(case: Case, limits: Sequence[Armed]) -> int:
    """The part that closes a position, where the limits allow it whole: what else they leave is too small to send."""
    room = min(case.lots, exit_room(case.state, case.order, case.instrument))
    if room <= case.replaced.filled or judge(case.resized(room), limits).action > Action.WARN:
        return 0
    return room


def describe(check: Check) -> str:
    """A check in one sentence, for someone whose trading just stopped."""
    if check.after is None:
        return f"{check.measure} of {check.scope} can't be evaluated: {check.note}"
    if check.note:
        over = ", but the order truly reduces" if check.reduction else ""
        return f"{check.measure} of {check.scope}: {check.note}{over}"
    value, limit = _amount(check.after, check.unit), _amount(check.limit, check.unit)
    if check.after <= check.limit and check.warn is not None:
        warn = _amount(check.warn, check.unit)
        return f"{check.measure} of {check.scope} would be {value}, warned from {warn}, limit {limit}"
    over = ", but the order truly reduces" if check.reduction else ""
    return f"{check.measure} of {check.scope} would be {value}, limit {limit}{over}"


def _amount(value: float, unit: str) -> str:
    if unit == "equity":
        return f"{value:.2%} of equity"
    if unit in ("quantity", "count"):
        return f"{value:g}"
    if unit == "fraction":
        return f"{value:.2%}"
    return f"{value:,.2f}" if unit == "money" else f"{value:,.2f} {unit}"


def _quantity(instrument: Instrument, lots: int) -> str:
    return f"{lots * instrument.lot_size:g}"


# --- the record ---------------------------------------------------------------------------------------------------


def _latches(state: AccountState, terms: Terms, order: Order, verdict: Verdict) -> tuple[Latch, ...]:
    """A limit whose action is HALT latches its own scope."""
    latches = []
    for armed, check in verdict.breached:
        if check.action is Action.HALT:
            scope = _latch_scope(armed.row, state.account, order)
            state_wanted, cause = armed.row.halt_state.trading_state, describe(check)
            latches.append(Latch(scope, state_wanted, terms.control.epoch, cause, measure=armed.name))
    return tuple(latches)


def _latch_scope(row: Limit, account: str, order: Order) -> Scope:
    if row.scope is ScopeKind.STRATEGY:
        return Scope(account, strategy=order.strategy)
    if row.scope is ScopeKind.SYMBOL:
        return Scope(account, symbol=order.symbol)
    if row.scope in IDENTITY_SCOPES:
        sender = order.sender._asdict()
        kind = row.scope.value
        return Scope(account, **{kind: sender[kind]})
    return Scope(account)


def _refused(terms: Terms, order: Order, now_us: int, refusal: _Refusal, instrument: Instrument | None) -> Decided:
    lots = (instrument.lots(order.quantity) or 0) if instrument is not None else 0
    return Decided(
        time_us=now_us,
        epoch=terms.control.epoch,
        order=order,
        digest=order.digest,
        action=refusal.action,
        reason=refusal.reason,
        message=refusal.message,
        lots=lots if 0 < lots <= LOTS_MAX else 0,
        allowed_lots=0,
        limit_set=terms.limits.hash,
        instrument_set=terms.instruments.hash,
        risk_model=terms.model.hash if terms.model is not None else "",
    )
