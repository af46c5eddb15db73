"""How much of each limit is used now, without any order: the standing values of every armed row.

The same measures as at order time, read by their `now`. Measures of an order by itself (its quantity, its value) have
no standing value and no row here.
"""

import enum
from collections.abc import Iterable, Sequence

import msgspec

from engine.account import AccountState
from engine.decide import Terms
from engine.limits import Limit, share_of
from engine.measures import MEASURES
from engine.measures.measure import Survey, Unevaluable
from engine.records import Tightened
from engine.tightening import factor_on, in_force


class UseStatus(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    BREACHED = "breached"
    UNEVALUABLE = "unevaluable"


UseKey = tuple[str, str, float]
"""Measure, scope and bound: what a limit's use is told by from one report to the next."""


class LimitUse(msgspec.Struct, frozen=True):
    """One limit on one group: value against bound, in the row's unit. `value` is None where it can't be evaluated."""

    measure: str
    scope: str
    value: float | None
    warn: float | None
    limit: float
    unit: str
    hard: bool
    """Whether a breach does more than warn."""
    status: UseStatus
    note: str = ""
    shadow: bool = False
    """Evaluated and listed, and without effect: never hard."""
    grade: float = 0.0
    """The highest grade of the bound that was reached (engine.grades); 0: none, or not graded."""

    @property
    def key(self) -> UseKey:
        return self.measure, self.scope, self.limit


def limit_uses(state: AccountState, terms: Terms, now_us: int) -> tuple[LimitUse, ...]:
    """Every armed limit's use, in the order of the set."""
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    survey.control = terms.control
    return tuple(use for row in terms.limits.rows_for(state.account) for use in uses_of(survey, row, state.account))


def uses_of(survey: Survey, row: Limit, account: str) -> Iterable[LimitUse]:
    """One row's use, on each group that it reaches; one that says why where it can't be evaluated."""
    measure = MEASURES[row.measure]
    if measure.now is None:
        return
    held = in_force(survey.state.tightenings, survey.now_us)
    bound, warn = _bounds(row, share_of(row, account) * factor_on(held, row.measure))
    unit = str(row.unit or measure.units[0])
    hard, shadow = row.is_hard, row.is_shadow
    try:
        for label, value in measure.now(survey, row, account, ""):
            if any(one.symbols or one.sectors for one in held):
                bound, warn = _bounds(row, share_of(row, account) * _factor_at(survey, held, row.measure, label))
            status = _status(value, warn, bound)
            yield LimitUse(measure.name, label, value, warn, bound, unit, hard, status, shadow=shadow)
    except Unevaluable as missing:
        label = f"{row.scope.value}:{row.match}"
        yield LimitUse(measure.name, label, None, warn, bound, unit, hard, UseStatus.UNEVALUABLE, missing.note, shadow)


def _bounds(row: Limit, share: float) -> tuple[float, float | None]:
    return row.limit * share, None if row.warn is None else row.warn * share


def _factor_at(survey: Survey, held: Sequence[Tightened], measure: str, label: str) -> float:
    """Of the tightenings on the one symbol or sector that a label is of; one on some symbols leaves what they are added
    up with as it is."""
    _, of_symbol, symbol = label.rpartition("symbol:")
    instrument = survey.instruments.get(symbol) if of_symbol else None
    sector = label.removeprefix("sector:") if label.startswith("sector:") else ""
    return factor_on(held, measure, instrument, sector=sector)


def _status(value: float, warn: float | None, bound: float) -> UseStatus:
    if value > bound:
        return UseStatus.BREACHED
    return UseStatus.WARNING if warn is not None and value >= warn else UseStatus.OK
