"""Measures of how much is at stake: position, gross exposure, concentration, leverage (CHECKS 22, 24, 26 to 28).

Worst case everywhere: the position of a symbol ends in [P − S, P + B], buys and sells are never netted, and an order
joins its side before it is judged. Exposures are at marks.
"""

from collections.abc import Iterable

from engine.limits import BOOK_SCOPES, Limit, ScopeKind, Unit
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, matches, scope_label, strategy_name
from engine.order import Reason
from engine.view import View, grouping_of, issuer_of

_FIT_SLACK = 1e-9
"""Lots: a room of 6.9999999999 lots is 7; decide tries the result again and gives up a lot where it is not."""


def _position(case: Case, armed: Armed) -> Reading:
    """Each side by itself: a buy can lead to P + B + q long, a sell to −P + S + q short."""
    low, high = case.state.book_of(armed.strategy).interval(case.slot)
    before = high if case.sign > 0 else -low
    after, size = before + case.joining, case.instrument.lot_size
    return before * size if before > 0 else 0.0, after * size if after > 0 else 0.0, 0


def _position_fit(case: Case, armed: Armed, bound: float) -> int:
    low, high = case.state.book_of(armed.strategy).interval(case.slot)
    return int(bound / case.instrument.lot_size + _FIT_SLACK) - (high if case.sign > 0 else -low)


def _position_filled(case: Case, armed: Armed) -> float:
    low, high = case.ends_filled(case.state.book_of(armed.strategy))
    return max(abs(low), abs(high)) * case.instrument.lot_size


def _position_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    state = survey.state
    books = {"": state.book} if row.scope is not ScopeKind.STRATEGY else state.books
    for name, book in books.items():
        if row.scope is ScopeKind.STRATEGY and not matches(row, name):
            continue
        for symbol, slot in state.slots.items():
            if _symbol_is_reached(survey, row, symbol):
                low, high = book.interval(slot)
                label = f"strategy:{strategy_name(name)} symbol:{symbol}" if name else f"symbol:{symbol}"
                yield label, max(abs(low), abs(high)) * state.listed[symbol].lot_size


def _symbol_is_reached(survey: Survey, row: Limit, symbol: str) -> bool:
    if row.scope in (ScopeKind.FIRM, ScopeKind.STRATEGY):
        return True
    grouping = grouping_of(survey.state, survey.instruments, row.scope.value)
    return matches(row, grouping.names[grouping.index[survey.state.slots[symbol]]])


def _gross(case: Case, armed: Armed) -> Reading:
    """Σ max(|P+B|, |P−S|)·px·m·fx over the scope, the order having joined B or S."""
    view = case.of(armed)
    per = case.equity() if armed.of_equity else 1.0
    before = view.gross
    return before / per, (before + case.growth(view)) / per, case.mark_age_us


def _gross_fit(case: Case, armed: Armed, bound: float) -> int:
    view = case.of(armed)
    others = view.gross - float(view.exposure[case.slot])
    return _fit_end(case, view, bound * case.denominator(armed.unit) - others)


def _gross_filled(case: Case, armed: Armed) -> float:
    view = case.of(armed)
    others = view.gross - float(view.exposure[case.slot])
    return (others + _exposure_filled(case, view)) / case.denominator(armed.unit)


def _exposure_filled(case: Case, view: View) -> float:
    """The symbol's exposure if the order were filled."""
    return case.exposed(*case.ends_filled(view.book))


def _fit_end(case: Case, view: View, room: float) -> int:
    """The most lots that keep the symbol's exposure within `room` (base currency): the order moves one end only."""
    if room <= 0:
        return 0
    low, high = view.book.interval(case.slot)
    long, short = case.end_values()
    moved, value, other = (high, long, -low * short) if case.sign > 0 else (-low, short, high * long)
    return int(room / value + _FIT_SLACK) - moved if other <= room * (1.0 + _FIT_SLACK) else 0


def _issued(case: Case, view: View) -> float:
    """Exposure to the order's issuer, all its symbols together."""
    if case.issuers().alone and case.values.linear:
        return view.stake.largest.item(case.slot) * case.unit_value()
    return view.exposure_of(case.issuer_mask(issuer_of(case.instruments, case.instrument)))


def _concentration(case: Case, armed: Armed) -> Reading:
    view = case.of(armed)
    per = case.equity() if armed.of_equity else 1.0
    before = _issued(case, view)
    return before / per, (before + case.growth(view)) / per, case.mark_age_us


def _concentration_fit(case: Case, armed: Armed, bound: float) -> int:
    view = case.of(armed)
    others = _issued(case, view) - float(view.exposure[case.slot])
    return _fit_end(case, view, bound * case.denominator(armed.unit) - others)


def _concentration_filled(case: Case, armed: Armed) -> float:
    view = case.of(armed)
    others = _issued(case, view) - float(view.exposure[case.slot])
    return (others + _exposure_filled(case, view)) / case.denominator(armed.unit)


def _concentration_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    issuers = grouping_of(survey.state, survey.instruments, "issuer")
    per = survey.denominator(row.unit or Unit.EQUITY)
    for label, view in scoped_views(survey, row, account):
        for group, name in enumerate(issuers.names):
            exposure = float(view.exposure[issuers.index == group].sum())
            if exposure:
                yield f"{label} issuer:{name}", exposure / per


def _gross_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    unit = row.unit or (Unit.EQUITY if row.measure == "leverage" else Unit.MONEY)
    per = survey.denominator(unit)
    for label, view in scoped_views(survey, row, account):
        yield label, view.gross / per


def scoped_views(survey: Survey, row: Limit, account: str) -> Iterable[tuple[str, View]]:
    """The views that a row reaches now: one, or one for each strategy or group with something in it."""
    scope, state = row.scope, survey.state
    if scope in (ScopeKind.FIRM, ScopeKind.ACCOUNT):
        yield scope_label(scope, account, "", None), survey.view("", None, row.open_orders)
    elif scope is ScopeKind.STRATEGY:
        for name in state.books:
            if matches(row, name):
                yield scope_label(scope, account, name, None), survey.view(name, None, row.open_orders)
    else:
        for name in grouping_of(state, survey.instruments, scope.value).names:
            if matches(row, name):
                group = scope.value, name
                yield scope_label(scope, account, "", group), survey.view("", group, row.open_orders)


_ALL = BOOK_SCOPES

POSITION = Measure(
    "position",
    Reason.POSITION,
    Family.PORTFOLIO,
    (Unit.QUANTITY,),
    _ALL - {ScopeKind.ACCOUNT},
    _position,
    _position_fit,
    _position_filled,
    _position_now,
    guards="position",
)
GROSS_EXPOSURE = Measure(
    "gross_exposure",
    Reason.GROSS_EXPOSURE,
    Family.PORTFOLIO,
    (Unit.MONEY, Unit.EQUITY),
    _ALL,
    _gross,
    _gross_fit,
    _gross_filled,
    _gross_now,
)
CONCENTRATION = Measure(
    "concentration",
    Reason.CONCENTRATION,
    Family.PORTFOLIO,
    (Unit.EQUITY, Unit.MONEY),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.FIRM}),
    _concentration,
    _concentration_fit,
    _concentration_filled,
    _concentration_now,
)
LEVERAGE = Measure(
    "leverage",
    Reason.LEVERAGE,
    Family.PORTFOLIO,
    (Unit.EQUITY,),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.STRATEGY}),
    _gross,
    _gross_fit,
    _gross_filled,
    _gross_now,
)
