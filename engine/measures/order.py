"""Measures of the order by itself: its size, its value, and how many there are."""

from collections.abc import Iterable

from engine.account import Attempts
from engine.limits import Limit, ScopeKind, Unit
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
    return 0.0, case.lots * _value_per_lot(case) / per, case.mark_age_us


def _value_per_lot(case: Case) -> float:
    fx: float = case.state.prices.fx.item(case.slot)
    if fx <= 0.0:
        case.unit_value()
    return case.worst_price() * case.instrument.unit * fx


def _value_fit(case: Case, armed: Armed, bound: float) -> int:
    return int(bound * case.denominator(armed.unit) / _value_per_lot(case) + 1e-9)


def _rate(case: Case, armed: Armed) -> Reading:
    """CHECKS 15: orders tried in the sliding window, refusals included, this one too. The window is shared by all
    gateways because the attempts are records."""
    count = _attempts(case, armed.strategy, armed.row.window_s)
    return float(count), float(count + 1), 0


def _attempts(survey: Survey, strategy: str, window_s: float) -> int:
    attempts: Attempts | None = survey.state.attempts.get(strategy)
    return attempts.since(survey.now_us - int(window_s * MICROS)) if attempts is not None else 0


def _rate_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    if row.scope is ScopeKind.ACCOUNT:
        yield scope_label(row.scope, account, "", None), float(_attempts(survey, "", row.window_s))
        return
    for name in survey.state.books:
        if matches(row, name):
            yield scope_label(row.scope, account, name, None), float(_attempts(survey, name, row.window_s))


ORDER_RATE = Measure(
    "order_rate",
    Reason.ORDER_RATE,
    Family.INPUT,
    (Unit.ORDERS,),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.STRATEGY}),
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
