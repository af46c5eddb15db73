"""The measure of what is sold short: how far below zero the open sells can lead a symbol (CHECKS 6).

Its bound is the locate. Every open sell uses it up, marked short or not, because whichever sells fill may do so first.
Judged for the account as a whole; what a policy wants marked as a short sale is a guard of `engine.decide`.
"""

from collections.abc import Iterable

from engine.limits import Limit, ScopeKind, Unit
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, matches
from engine.order import Reason
from engine.view import grouping_of


def _short(case: Case, armed: Armed) -> Reading:
    """−(P − S − q) where it is above 0, in units; a buy sells nothing short, whatever stands open."""
    if case.sign > 0:
        return 0.0, 0.0, 0
    before = -case.state.book.interval(case.slot)[0]
    after, size = before + case.joining, case.instrument.lot_size
    return max(0, before) * size, max(0, after) * size, 0


def _short_fit(case: Case, armed: Armed, bound: float) -> int:
    if case.sign > 0:
        return case.joining
    return int(bound / case.instrument.lot_size + 1e-9) + case.state.book.interval(case.slot)[0]


def _short_filled(case: Case, armed: Armed) -> float:
    return max(0, -case.ends_filled(case.state.book)[0]) * case.instrument.lot_size


def _short_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    state = survey.state
    grouping = grouping_of(state, survey.instruments, row.scope.value)
    for symbol, slot in state.slots.items():
        if matches(row, grouping.names[grouping.index[slot]]):
            yield f"symbol:{symbol}", max(0, -state.book.interval(slot)[0]) * state.listed[symbol].lot_size


SHORT_POSITION = Measure(
    "short_position",
    Reason.SHORT_POSITION,
    Family.QUOTA,
    (Unit.QUANTITY,),
    frozenset({ScopeKind.SYMBOL, ScopeKind.SECTOR, ScopeKind.ASSET_CLASS}),
    _short,
    _short_fit,
    _short_filled,
    _short_now,
)
