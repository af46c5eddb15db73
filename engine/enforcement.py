"""What losses and drawdowns do to an account when nobody sends an order: halts and moves of the breaker, as records.

Pure: whoever runs this on the same state and terms makes the same records, and on a state that has them makes none. A
limit that can't be evaluated halts nothing here; it refuses orders.
"""

from collections.abc import Iterator

import msgspec

from engine.account import AccountState
from engine.breaker import breaker_due, cuts_wanted
from engine.control import Scope
from engine.decide import Terms
from engine.instructions import planned_cuts
from engine.limits import Limit, LimitAction, share_of
from engine.losses import HALTING_MEASURES, Part, daily_loss, drawdown, fall_from, parts, profit, weekly_loss
from engine.measures import MEASURES
from engine.measures.measure import Survey, Unevaluable
from engine.order import Reason
from engine.records import AnyRecord, Latch, Latched
from engine.tightening import factor_on, in_force

_VALUES = {"daily_loss": daily_loss, "weekly_loss": weekly_loss, "drawdown": drawdown, "profit": profit}
"""Measures of an account as it stands: what they say follows from no order."""

assert tuple(_VALUES) == HALTING_MEASURES, "each of them has its function"


def enforcement_due(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """The halts that breached rows with action HALT put on their scopes, then what the breaker does; none where all of
    it is in the log."""
    if not state.opened:
        return []
    survey = _survey(state, terms, now_us)
    halts: list[AnyRecord] = []
    seen: set[tuple[Scope, int]] = set()
    for row, label, part, value, bound in _breached(survey, terms):
        wanted, scope = row.halt_state.trading_state, part.scope(state.account)
        if row.action is not LimitAction.HALT or (scope, wanted) in seen or _holds(state, terms, scope, wanted):
            continue
        seen.add((scope, wanted))
        cause = f"{row.measure} of {label} is {value:.6g}, limit {bound:.6g}"
        latch = Latch(scope, wanted, terms.control.epoch, cause, measure=row.measure)
        halts.append(Latched(time_us=now_us, epoch=terms.control.epoch, latch=latch))
    moved = breaker_due(survey, terms.control)
    trial = state.fork()
    for record in (*halts, *moved):
        trial.apply(record)
    return [*halts, *moved, *_cuts_due(trial, terms, now_us)]


def _cuts_due(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """The breaker's cuts; those that are under way go on by themselves (engine.instructions). What other orders left no
    room for the first time is cut once these are gone."""
    wanted, cause = cuts_wanted(state, terms.control, terms.limits.policy)
    begun = {place: one for place in wanted if (one := state.liquidations.get(place)) and one.cause.startswith(cause)}
    made: list[AnyRecord] = []
    first = {place: lots for place, lots in wanted.items() if place not in begun}
    left = {place: wanted[place] for place, one in begun.items() if one.filled >= one.planned}
    for some, why in ((first, cause), (left, f"{cause}; what was left at record {state.seq}")):
        cuts = planned_cuts(state, terms, some, (Reason.DRAWDOWN_BREAKER, why), now_us) if some else []
        for cut in cuts:
            state.apply(cut)
        made += cuts
    return made


def wants_marks(state: AccountState, terms: Terms, now_us: int) -> bool:
    """Whether the marks of now belong into the log although nobody trades: one alone would breach what has to be
    confirmed by more, or nothing was valued yet under a Resume from which a limit counts."""
    if not state.opened:
        return False
    at_once = msgspec.structs.replace(terms.limits.policy, loss_confirmations=1)
    survey = _survey(state, terms, now_us)
    survey.policy = at_once
    return _resumed_unvalued(state, terms) or any(_breached(survey, terms)) or _breaker_reached(survey)


def _survey(state: AccountState, terms: Terms, now_us: int) -> Survey:
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    survey.control = terms.control
    return survey


def _breached(survey: Survey, terms: Terms) -> Iterator[tuple[Limit, str, Part, float, float]]:
    """(row, label, part, value, bound) of each part that a row in force finds over its bound."""
    state = survey.state
    held = in_force(state.tightenings, survey.now_us)
    for row in terms.limits.rows_for(state.account):
        value_of = _VALUES.get(row.measure)
        if value_of is None or row.is_shadow:
            continue
        bound = row.limit * share_of(row, state.account) * factor_on(held, row.measure)
        unit = row.unit or MEASURES[row.measure].units[0]
        for label, part in parts(survey, row):
            try:
                value = value_of(survey, row, part, unit)
            except Unevaluable:
                continue
            if value > bound:
                yield row, label, part, value, bound


def _holds(state: AccountState, terms: Terms, scope: Scope, wanted: int) -> bool:
    """Whether such a halt is on, a Resume that came after it not counted."""
    return any(
        latch.scope == scope and latch.state == wanted and state.latch_holds(latch, seq, terms.control)
        for latch, seq in state.latches.values()
    )


def _resumed_unvalued(state: AccountState, terms: Terms) -> bool:
    newest = state.loss_bases[-1].epoch if state.loss_bases else 0
    scopes = [scope for _, scope in state.halted_by]
    return any(one.epoch > newest and one.scope.covers(scope) for one in terms.control.resumes for scope in scopes)


def _breaker_reached(survey: Survey) -> bool:
    rule, breaker = survey.policy.breaker, survey.state.breaker
    if rule is None:
        return False
    try:
        return fall_from(survey, breaker.peak) >= rule.levels[0]
    except Unevaluable:
        return False
