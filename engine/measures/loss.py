"""Measures of what was lost: the session's loss, the week's, the drawdown, the breaker, and a bound on profit (CHECKS
31 to 33).

No order changes any of them, so that before is after, and none stops a true reduction. What they are stands in
`engine.losses`, which also halts by them when nobody sends an order.
"""

from collections.abc import Callable, Iterable

from engine import losses
from engine.account import NAMELESS
from engine.breaker import measured_stage
from engine.limits import Limit, ScopeKind, Unit
from engine.losses import WHOLE, Part
from engine.measures.measure import Armed, Case, Family, Measure, Now, Read, Reading, Survey, Unevaluable, scope_label
from engine.order import Reason

_Value = Callable[[Survey, Limit, Part, Unit], float]


def _part(armed: Armed) -> Part:
    if armed.group is not None:
        return Part(group=armed.group)
    if armed.row.scope is ScopeKind.STRATEGY:
        return Part("" if armed.strategy == NAMELESS else armed.strategy)
    return WHOLE


def _read(value: _Value) -> Read:
    def read(case: Case, armed: Armed) -> Reading:
        if armed.row.scope is ScopeKind.FIRM and armed.bound == 0.0:  # even where it has lost nothing yet
            note = f"account {case.state.account} has no share of what the firm may lose"
            raise Unevaluable(armed.measure.reason, note)
        lost = value(case, armed.row, _part(armed), armed.unit)
        return lost, lost, case.marks_age_us()

    return read


def _now(value: _Value, default: Unit) -> Now:
    def now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
        for label, part in losses.parts(survey, row):
            yield label, value(survey, row, part, row.unit or default)

    return now


def _breaker(case: Case, armed: Armed) -> Reading:
    """1 where the breaker opens nothing."""
    closed = float(measured_stage(case).opens_nothing)
    return closed, closed, case.marks_age_us()


def _breaker_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    yield scope_label(row.scope, account, "", None), float(measured_stage(survey).opens_nothing)


def _say(case: Case) -> str:
    """What the breaker waits for."""
    stage = measured_stage(case)
    return (
        f"the breaker is at {stage.name}: positions may be reduced, and a Resume after the cooldown starts to recover"
    )


_MONEY = (Unit.EQUITY, Unit.MONEY)
"""EQUITY is a share of the equity that each session opened with."""

_PARTS = frozenset(
    {ScopeKind.FIRM, ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL}
)

_WHOLE = frozenset({ScopeKind.ACCOUNT})


def _of_parts(name: str, reason: Reason, value: _Value, scopes: frozenset[ScopeKind] = _PARTS) -> Measure:
    return Measure(name, reason, Family.INPUT, _MONEY, scopes, _read(value), now=_now(value, Unit.EQUITY))


DAILY_LOSS = _of_parts("daily_loss", Reason.DAILY_LOSS, losses.daily_loss)
WEEKLY_LOSS = _of_parts("weekly_loss", Reason.WEEKLY_LOSS, losses.weekly_loss)
PROFIT = _of_parts("profit", Reason.PROFIT, losses.profit, _PARTS - {ScopeKind.FIRM})
DRAWDOWN = Measure(
    "drawdown",
    Reason.DRAWDOWN,
    Family.INPUT,
    (Unit.FRACTION,),
    _WHOLE,
    _read(losses.drawdown),
    now=_now(losses.drawdown, Unit.FRACTION),
)
DRAWDOWN_BREAKER = Measure(
    "drawdown_breaker",
    Reason.DRAWDOWN_BREAKER,
    Family.INPUT,
    (Unit.RULE,),
    _WHOLE,
    _breaker,
    now=_breaker_now,
    say=_say,
)
