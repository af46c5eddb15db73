"""Measures of the prices that an order is judged at: too old, too wide, too far from where they were (CHECKS 13)."""

from collections.abc import Iterable

from engine.limits import Limit, ScopeKind, Unit
from engine.measures.measure import MICROS, Armed, Case, Family, Measure, Reading, Survey, Unevaluable, scope_label
from engine.order import Reason


def _mark_age(case: Case, armed: Armed) -> Reading:
    """Age in seconds of the order's mark; at account scope also of every mark and rate that is at stake."""
    case.unit_value()
    if armed.group is None:
        case.need_marks()
    age_us = case.mark_age_us if armed.group is None else case.own_age_us
    return age_us / MICROS, age_us / MICROS, age_us


def _mark_age_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    if row.scope is ScopeKind.ACCOUNT:
        survey.need_marks()
        yield scope_label(row.scope, account, "", None), survey.marks_age_us() / MICROS


def _spread(case: Case, armed: Armed) -> Reading:
    """(ask − bid) / mark. A symbol that is quoted on one side only has no spread to judge, and an armed limit on it
    refuses."""
    prices, slot = case.state.prices, case.slot
    case.unit_value()
    bid, ask = prices.bid.item(slot), prices.ask.item(slot)
    if not (bid and ask):
        raise Unevaluable(Reason.MARK_UNREASONABLE, f"{case.instrument.symbol} has no bid and ask to take a spread of")
    spread = (ask - bid) / prices.mark.item(slot)
    return spread, spread, case.own_age_us


def _move(case: Case, armed: Armed) -> Reading:
    """|mark / mark at the session's open − 1|: a price that can't be right."""
    prices, slot = case.state.prices, case.slot
    case.unit_value()
    move = abs(prices.mark.item(slot) / prices.open_mark.item(slot) - 1.0)
    return move, move, case.own_age_us


_SYMBOLS = frozenset({ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL})

MARK_AGE = Measure(
    "mark_age",
    Reason.MARK_STALE,
    Family.INPUT,
    (Unit.SECONDS,),
    _SYMBOLS | {ScopeKind.ACCOUNT},
    _mark_age,
    now=_mark_age_now,
)
MARK_SPREAD = Measure("mark_spread", Reason.MARK_UNREASONABLE, Family.INPUT, (Unit.FRACTION,), _SYMBOLS, _spread)
MARK_MOVE = Measure("mark_move", Reason.MARK_UNREASONABLE, Family.INPUT, (Unit.FRACTION,), _SYMBOLS, _move)
