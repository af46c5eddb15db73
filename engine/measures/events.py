"""The measure of whether an event's window lets positions be opened (CHECKS 39).

Which windows there are stands in the account's log (engine.records.Tightened of this measure's name), how far ahead
they were looked up too (CalendarPlanned): where nobody looked, or a source of events was never read, nobody knows that
there is none. No size mends it. True reductions pass.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from engine.account import AccountState
from engine.instrument import Instrument
from engine.limits import Limit, ScopeKind, Unit
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, Unevaluable, scope_label
from engine.order import Reason
from engine.records import Tightened
from engine.tightening import EVENT_BLACKOUT as NAME
from engine.tightening import holds, selects
from engine.view import grouping_of


def _windows(state: AccountState, instrument: Instrument | None, now_us: int) -> list[Tightened]:
    """Those that are open on an instrument; None: on everything."""
    named = (one for one in state.tightenings if NAME in one.measures)
    return [one for one in named if holds(one, now_us) and selects(one, instrument)]


def _need_calendar(state: AccountState, now_us: int) -> None:
    plan = state.calendar
    if plan is None:
        note = "no calendar of events was ever read for this account; configure [events] and see that the worker runs"
        raise Unevaluable(Reason.EVENTS_UNKNOWN, note)
    if plan.missing:
        raise Unevaluable(Reason.EVENTS_UNKNOWN, f"events of {', '.join(plan.missing)} were never read")
    if plan.until_us <= now_us:
        until = datetime.fromtimestamp(plan.until_us / 1e6, UTC)
        raise Unevaluable(Reason.EVENTS_UNKNOWN, f"events are known up to {until:%Y-%m-%d %H:%M} UTC only")


def _read(case: Case, armed: Armed) -> Reading:
    """1 in a window. An order neither opens nor ends one: before is after."""
    _need_calendar(case.state, case.now_us)
    closed = 1.0 if _windows(case.state, case.instrument, case.now_us) else 0.0
    return closed, closed, 0


def _say(case: Case) -> str:
    windows = _windows(case.state, case.instrument, case.now_us)
    last_us = max((one.until_us for one in windows), default=0)
    until = f" until {datetime.fromtimestamp(last_us / 1e6, UTC):%Y-%m-%d %H:%M} UTC" if last_us else ""
    return f"{case.instrument.symbol} opens nothing{until}: {'; '.join(one.reason for one in windows)}"


def _now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    """Of an account: whether it may open nothing at all; of a symbol that it lists: whether nothing in it."""
    state = survey.state
    _need_calendar(state, survey.now_us)
    if row.scope is ScopeKind.ACCOUNT:
        closed = bool(_windows(state, None, survey.now_us))
        yield scope_label(row.scope, account, "", None), float(closed)
        return
    grouping = grouping_of(state, survey.instruments, row.scope.value)
    for symbol, slot in state.slots.items():
        name = grouping.names[grouping.index[slot]]
        if row.match in ("*", name):
            closed = bool(_windows(state, survey.instruments.get(symbol), survey.now_us))
            yield f"{row.scope.value}:{name} symbol:{symbol}" if name != symbol else f"symbol:{symbol}", float(closed)


EVENT_BLACKOUT = Measure(
    NAME,
    Reason.EVENT_BLACKOUT,
    Family.INPUT,
    (Unit.RULE,),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL}),
    _read,
    now=_now,
    say=_say,
)
