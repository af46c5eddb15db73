"""Measures of how much is going on: open orders, positions, a session's turnover, a share of a day's (CHECKS 14, 17, 23
and 29).

Everything counts from its approval on, whatever the venue has said of it. No reduction lowers what is used up, so none
is stopped by it. A session's figures begin anew with the SessionOpened record, and with nothing else.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from engine.account import Book, Floats, Turnover, book_key
from engine.limits import BOOK_SCOPES, IDENTITY_SCOPES, Limit, ScopeKind, Unit
from engine.measures.measure import (
    Armed,
    Case,
    Family,
    Measure,
    Reading,
    Survey,
    Unevaluable,
    matches,
    refuse_missing_price,
    scope_label,
)
from engine.order import Reason
from engine.view import grouping_of, mask_of

_FIT_SLACK = 1e-9
"""Lots: a room of 6.9999999999 lots is 7; decide tries the result again and gives up a lot where it is not."""

_Group = tuple[str, str] | None


def _places(survey: Survey, row: Limit, account: str) -> Iterator[tuple[str, str, _Group]]:
    """(label, book, group) of each place that a row reaches now."""
    scope = row.scope
    if scope in (ScopeKind.FIRM, ScopeKind.ACCOUNT):
        yield scope_label(scope, account, "", None), "", None
    elif scope is ScopeKind.STRATEGY:
        for name in survey.state.books:
            if matches(row, name):
                yield scope_label(scope, account, name, None), name, None
    else:
        for name in grouping_of(survey.state, survey.instruments, scope.value).names:
            if matches(row, name):
                yield scope_label(scope, account, "", (scope.value, name)), "", (scope.value, name)


def _masked(survey: Survey, values: Floats, group: _Group) -> Floats:
    return values if group is None else values * mask_of(survey.state, survey.instruments, *group)


# --- open orders --------------------------------------------------------------------------------------------------


def _open_orders(case: Case, armed: Armed) -> Reading:
    """CHECKS 17, this one included. Suspect approvals and orders that the venue is done with, but for fills that were
    not reported yet, are open; a replacement and what it replaces are two until one of them has ended."""
    if armed.row.scope in IDENTITY_SCOPES:
        before = sum(1 for one in case.state.orders.values() if armed.conduct_key in one.identities)
    else:
        before = _count_orders(case, armed.strategy, armed.group)
    return float(before), float(before + 1), 0


def _count_orders(survey: Survey, book: str, group: _Group) -> int:
    state = survey.state
    if group is None and not book:
        return len(state.orders)
    if group is None:
        return sum(count for (name, _), count in state.open_counts.items() if book_key(name) == book)
    mask = mask_of(state, survey.instruments, *group)
    return sum(count for (_, symbol), count in state.open_counts.items() if mask[state.slots[symbol]])


def _open_orders_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    if row.scope in IDENTITY_SCOPES:
        return
    for label, book, group in _places(survey, row, account):
        yield label, float(_count_orders(survey, book, group))


# --- open positions -----------------------------------------------------------------------------------------------


def _open_positions(case: Case, armed: Armed) -> Reading:
    """CHECKS 29: symbols with a position or an open order, pending opens counted."""
    book = case.state.book_of(armed.strategy)
    before = _count_positions(case, book, armed.group, armed.open_orders)
    is_open = book.ends(armed.open_orders).largest.item(case.slot) > 0
    return float(before), float(before if is_open else before + 1), 0


def _count_positions(survey: Survey, book: Book, group: _Group, open_orders: bool) -> int:
    return int(np.count_nonzero(_masked(survey, book.ends(open_orders).largest, group)))


def _open_positions_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    for label, name, group in _places(survey, row, account):
        yield label, float(_count_positions(survey, survey.state.book_of(name), group, row.open_orders))


# --- the session's turnover ---------------------------------------------------------------------------------------


def _turnover(survey: Survey, book: str) -> Turnover:
    return survey.state.turnovers.get(book) or Turnover.none(len(survey.state.slots))


def _used_lots(survey: Survey, name: str, slot: int, open_orders: bool) -> float:
    """Traded in the session, and open on both sides."""
    traded: float = _turnover(survey, name).lots.item(slot)
    book = survey.state.book_of(name)
    return traded + (book.buys.item(slot) + book.sells.item(slot) if open_orders else 0)


def _traded_quantity(case: Case, armed: Armed) -> Reading:
    """CHECKS 23 of the order's symbol, in the row's book: quantities of different instruments don't add up."""
    used, size = _used_lots(case, armed.strategy, case.slot, armed.open_orders), case.instrument.lot_size
    return used * size, (used + case.joining) * size, 0


def _traded_quantity_fit(case: Case, armed: Armed, bound: float) -> int:
    used = _used_lots(case, armed.strategy, case.slot, armed.open_orders)
    return int(bound / case.instrument.lot_size - used + _FIT_SLACK)


def _traded_quantity_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    state = survey.state
    for label, name, group in _places(survey, row, account):
        mask = None if group is None else mask_of(state, survey.instruments, *group)
        for symbol, slot in state.slots.items():
            used = _used_lots(survey, name, slot, row.open_orders)
            if used and (mask is None or mask[slot]):
                symbols = label if row.scope is ScopeKind.SYMBOL else f"{label} symbol:{symbol}"
                yield symbols, used * state.listed[symbol].lot_size


def _used_value(survey: Survey, name: str, group: _Group, open_orders: bool) -> float:
    """Base currency: fills at their prices, open orders at the marks, both at the rates as they are."""
    state, traded = survey.state, _turnover(survey, name)
    fx = state.prices.fx
    unknown = np.flatnonzero(_masked(survey, traded.paid, group) * (fx <= 0.0))
    if len(unknown):
        refuse_missing_price(state, state.symbol_at(int(unknown[0])))
    value = float((_masked(survey, traded.paid, group) * state.unit).dot(fx))
    if open_orders:
        survey.need_marks()
        book = state.book_of(name)
        value += float(_masked(survey, (book.buys + book.sells).astype(np.float64), group).dot(state.unit_values()))
    return value


def _traded_value(case: Case, armed: Armed) -> Reading:
    """CHECKS 23: Σ |fills| of the session, and what is open, this order joined."""
    per = case.equity() if armed.of_equity else 1.0
    used = _used_value(case, armed.strategy, armed.group, armed.open_orders)
    return used / per, (used + case.joining * case.unit_value()) / per, case.mark_age_us


def _traded_value_fit(case: Case, armed: Armed, bound: float) -> int:
    used = _used_value(case, armed.strategy, armed.group, armed.open_orders)
    return int((bound * case.denominator(armed.unit) - used) / case.unit_value() + _FIT_SLACK)


def _traded_value_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    per = survey.denominator(row.unit or Unit.MONEY)
    for label, name, group in _places(survey, row, account):
        yield label, _used_value(survey, name, group, row.open_orders) / per


# --- a share of the day's -----------------------------------------------------------------------------------------


def _adv_share(case: Case, armed: Armed) -> Reading:
    """CHECKS 14: the order's quantity / the instrument's average daily quantity."""
    return 0.0, case.lots * case.instrument.lot_size / _average(case), 0


def _average(case: Case) -> float:
    average = case.instrument.average_daily_quantity
    if not average > 0.0:
        note = f"{case.instrument.symbol} has no average_daily_quantity; register it with one"
        raise Unevaluable(Reason.AVERAGE_DAILY_QUANTITY_MISSING, note)
    return average


def _adv_share_fit(case: Case, armed: Armed, bound: float) -> int:
    return int(bound * _average(case) / case.instrument.lot_size + _FIT_SLACK) - case.spared


_EACH = BOOK_SCOPES
"""The firm's, too: what is counted or added up over accounts is the sum of their shares."""

OPEN_ORDERS = Measure(
    "open_orders",
    Reason.OPEN_ORDERS,
    Family.INPUT,
    (Unit.COUNT,),
    _EACH | IDENTITY_SCOPES,
    _open_orders,
    now=_open_orders_now,
)
OPEN_POSITIONS = Measure(
    "open_positions",
    Reason.OPEN_POSITIONS,
    Family.QUOTA,
    (Unit.COUNT,),
    _EACH - {ScopeKind.SYMBOL},
    _open_positions,
    now=_open_positions_now,
)
TRADED_QUANTITY = Measure(
    "traded_quantity",
    Reason.TRADED_QUANTITY,
    Family.QUOTA,
    (Unit.QUANTITY,),
    _EACH,
    _traded_quantity,
    _traded_quantity_fit,
    now=_traded_quantity_now,
)
TRADED_VALUE = Measure(
    "traded_value",
    Reason.TRADED_VALUE,
    Family.QUOTA,
    (Unit.MONEY, Unit.EQUITY),
    _EACH,
    _traded_value,
    _traded_value_fit,
    now=_traded_value_now,
)
ADV_SHARE = Measure(
    "adv_share",
    Reason.ADV_SHARE,
    Family.INPUT,
    (Unit.FRACTION,),
    (_EACH | IDENTITY_SCOPES) - {ScopeKind.FIRM},
    _adv_share,
    _adv_share_fit,
)
