"""Measures of the order by itself: its size, its value, and how many there are."""

from collections.abc import Iterable

from engine.conduct import Attempts
from engine.limits import IDENTITY_SCOPES, Limit, ScopeKind, Unit
from engine.measures.measure import MICROS, Armed, Case, Family, Measure, Reading, Survey, matches, scope_label
from engine.order import Reason

ANY_SCOPE = frozenset(ScopeKind)


def _quantity(case: Case, armed: Armed) -> Reading:
    """CHECKS 8, fat finger: q ≤ Qmax in units of the instrument."""
    return 0.0, case.lots * case.instrument.lot_size, 0


def _quantity_fit(case: Case, armed: Armed, bound: float) -> int:
    return int(bound / case.instrument.lot_size + 1e-9)


def _value(case: Case, armed: Armed) -> Reading:
    """CHECKS 9 and 12: q·px·m·fx at the highest price the order can fill at."""
    per = case.equity() if armed.of_equity else 1.0
    return 0.0, _order_value(case, case.lots) / per, case.mark_age_us


def _order_value(case: Case, lots: int) -> float:
    """Of so many lots. An option is worth its premium or its part of the underlying, whichever is more: what it closes
    and what it buys by its delta, what it writes in full."""
    value = lots * _value_per_lot(case)
    if case.instrument.option is None:
        return value
    long, short = case.end_values()
    written = 0 if case.sign > 0 else max(0, lots - max(0, case.state.book.interval(case.slot)[0]))
    return max(value, (lots - written) * long + written * short)


def _value_per_lot(case: Case) -> float:
    fx: float = case.state.prices.fx.item(case.slot)
    if fx <= 0.0:
        case.unit_value()
    return case.worst_price() * case.instrument.unit * fx


def _value_fit(case: Case, armed: Armed, bound: float) -> int:
    limit = bound * case.denominator(armed.unit)
    lots = int(limit / _value_per_lot(case) + 1e-9)
    if case.instrument.option is None or _order_value(case, lots) <= limit:
        return lots
    long, short = case.end_values()
    held = 0 if case.sign > 0 else max(0, case.state.book.interval(case.slot)[0])
    bought = case.sign > 0 or held * long >= limit
    return int(limit / long + 1e-9) if bought else held + int((limit - held * long) / short + 1e-9)


def _rate(case: Case, armed: Armed) -> Reading:
    """CHECKS 15: orders tried in the sliding window, refusals included, this one too. The window is shared by all
    gateways because the attempts are records."""
    key = armed.conduct_key if armed.row.scope in IDENTITY_SCOPES else armed.strategy
    count = _attempts(case, key, armed.row.window_s)
    return float(count), float(count + 1), 0


def _attempts(survey: Survey, strategy: str, window_s: float) -> int:
    attempts: Attempts | None = survey.state.attempts.get(strategy)
    return attempts.since(survey.now_us - int(window_s * MICROS)) if attempts is not None else 0


def _rate_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    if row.scope is ScopeKind.ACCOUNT:
        yield scope_label(row.scope, account, "", None), float(_attempts(survey, "", row.window_s))
    if row.scope is not ScopeKind.STRATEGY:
        return
    for name in survey.state.books:
        if matches(row, name):
            yield scope_label(row.scope, account, name, None), float(_attempts(survey, name, row.window_s))


ORDER_RATE = Measure(
    "order_rate",
    Reason.ORDER_RATE,
    Family.INPUT,
    (Unit.ORDERS,),
    IDENTITY_SCOPES | {ScopeKind.ACCOUNT, ScopeKind.STRATEGY},
    _rate,
    now=_rate_now,
)
ORDER_QUANTITY = Measure(
    "order_quantity",
    Reason.ORDER_QUANTITY,
    Family.FAT_FINGER,
    (Unit.QUANTITY,),
    ANY_SCOPE - {ScopeKind.FIRM},
    _quantity,
    _quantity_fit,
    guards="size",
)
ORDER_VALUE = Measure(
    "order_value",
    Reason.ORDER_VALUE,
    Family.FAT_FINGER,
    (Unit.MONEY, Unit.EQUITY),
    ANY_SCOPE - {ScopeKind.FIRM},
    _value,
    _value_fit,
    guards="value",
)
