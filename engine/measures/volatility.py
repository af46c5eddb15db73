"""The measures of how much a book moves, and of how much two strategies move alike (CHECKS 37).

Both are read off the risk model's days with the order and all open orders in: P&L of a day = value × return, exactly as
for VaR, but as a deviation. The worst case of a deviation is not that of a loss: whichever open orders fill, it is
largest where each of them has filled or has not, so that these corners are looked at, and no row by row minimum.
"""

import math
from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import numpy as np

from engine.account import STRATEGIES_MAX, AccountState, Ends, Floats
from engine.limits import Limit, ScopeKind, Unit
from engine.lot_values import LotValues
from engine.measures.exposure import scoped_views
from engine.measures.measure import (
    Armed,
    Case,
    Family,
    Measure,
    Reading,
    Survey,
    Unevaluable,
    matches,
    scope_label,
)
from engine.order import Reason
from engine.view import Columns, View

DAYS_A_YEAR = 252

DEVIATION_DAYS_MIN = 30
"""With fewer a correlation of 0 is estimated to ±0.36, and a deviation to a quarter of itself."""

CORNERS_OPEN_MAX = 8
"""Up to so many symbols with open orders, all 2^n ends are tried; beyond, an upper bound is taken: σ of the middles and
of each half width by itself (triangle inequality), which is never below any of them."""

_ROUNDING = 1e-12
"""Of the terms of a sum."""

_SQUARE_ROUNDING = 1e-14
"""Of the terms of a sum of squares: what is left of positions that cancel to seven digits is no position."""

_SIGNS = {n: np.array(list(product((-1.0, 1.0), repeat=n))).reshape(2**n, n) for n in range(CORNERS_OPEN_MAX + 1)}


def _need_days(survey: Survey, view: View, columns: Columns) -> None:
    """Raises Unevaluable where days are missing, of all or of something at stake."""
    survey.need_history(view, columns)
    if columns.days < DEVIATION_DAYS_MIN:
        note = f"the risk model has {columns.days} days, a deviation needs {DEVIATION_DAYS_MIN}"
        raise Unevaluable(Reason.HISTORY_MISSING, note)


def _need_own_days(case: Case, columns: Columns) -> None:
    if columns.no_history is not None and columns.no_history[case.slot]:
        note = f"{case.instrument.symbol} has too little price history and no proxy"
        raise Unevaluable(Reason.HISTORY_MISSING, note)


def _centred(rows: Floats) -> Floats:
    """(..., days) less their means: sums of squares of them over days − 1 are sample variances."""
    centred: Floats = rows - rows.mean(axis=-1, keepdims=True)
    return centred


# --- volatility ---------------------------------------------------------------------------------------------------


class _Box(NamedTuple):
    """The books that open orders can lead to, as their daily P&L: days as sums about their means, base currency."""

    settled: Floats
    """(days,) of the book in the middle."""
    spread: Floats
    """(k, days) of half the width of each symbol with an open order: any book is the middle and −1 to 1 of each."""
    places: tuple[int, ...]
    """(k,) their slots."""


def worst_deviation(low: Floats, high: Floats, returns: Floats) -> float:
    """The largest standard deviation a day (ddof 1) of the P&L of any book whose values (n,) lie from `low` to `high`,
    under `returns` (n, days), base currency.

    σ is convex in the values, so that it is largest at a corner of the box. With more than CORNERS_OPEN_MAX values that
    are not settled, the upper bound named there. Never falls as the box grows.
    """
    return _deviation(_box(low, high, _centred(returns)))


def _box(low: Floats, high: Floats, centred: Floats) -> _Box:
    half = (high - low) * 0.5
    (unsettled,) = half.nonzero()
    return _Box((low + half).dot(centred), half[unsettled, None] * centred[unsettled], tuple(unsettled.tolist()))


def _deviation(box: _Box) -> float:
    settled, spread, count, freedom = box.settled, box.spread, len(box.spread), len(box.settled) - 1
    alone = float(settled.dot(settled))
    if not count:
        return math.sqrt(alone / freedom)
    if count > CORNERS_OPEN_MAX:
        widths = np.sqrt(np.einsum("it,it->i", spread, spread))
        return (math.sqrt(alone) + float(widths.sum())) / math.sqrt(freedom)
    signs = _SIGNS[count]
    squares = ((signs.dot(spread.dot(spread.T))) * signs).sum(axis=1) + 2.0 * signs.dot(spread.dot(settled)) + alone
    largest: float = squares.item(squares.argmax())  # NaN where one is, which max below keeps
    return math.sqrt(max(largest, 0.0) / freedom)


def _joined(box: _Box, slot: int, moved: Floats) -> _Box:
    """The box once an order has joined its side: `moved` (days,) is its P&L, were it filled."""
    half = moved * 0.5
    settled = box.settled + half
    if slot not in box.places:
        return _Box(settled, np.vstack((box.spread, half)), (*box.places, slot))
    spread = box.spread.copy()
    at = box.places.index(slot)
    spread[at] += half if float(spread[at].dot(half)) >= 0.0 else -half
    return _Box(settled, spread, box.places)


_YEARLY = math.sqrt(DAYS_A_YEAR)


def _days(survey: Survey, columns: Columns) -> Floats:
    """(slots, days) the model's days about their means; kept with the columns."""
    derived = survey.state.derived
    cached: tuple[Columns, Floats] | None = derived.get("centred days")
    if cached is None or cached[0] is not columns:
        cached = derived["centred days"] = (columns, _centred(columns.returns[:, : columns.days]))
    return cached[1]


def _read_box(case: Case, armed: Armed) -> tuple[_Box, Floats]:
    """The box without the order, and what a lot of the order gains a day; all inputs known."""
    view, columns = case.of(armed), case.columns()
    _need_days(case, view, columns)
    _need_own_days(case, columns)
    days = _days(case, columns)
    return _box(view.low, view.high, days), days[case.slot] * (case.sign * case.scenario_value())


def _volatility(case: Case, armed: Armed) -> Reading:
    box, per_lot = _read_box(case, armed)
    scale = _YEARLY / (case.equity() if armed.of_equity else 1.0)
    after = _deviation(_joined(box, case.slot, per_lot * case.joining))
    return _deviation(box) * scale, after * scale, case.model_age_us


def _volatility_fit(case: Case, armed: Armed, bound: float) -> int:
    """The most lots within the bound, halved towards: the deviation never falls as an order joins its side."""
    box, per_lot = _read_box(case, armed)
    limit = bound * case.denominator(armed.unit) / _YEARLY
    within, beyond = 0, case.joining + 1
    while beyond - within > 1:
        tried = (within + beyond) // 2
        if _deviation(_joined(box, case.slot, per_lot * tried)) <= limit:
            within = tried
        else:
            beyond = tried
    return within


def _volatility_filled(case: Case, armed: Armed) -> float:
    box, per_lot = _read_box(case, armed)
    filled = box._replace(settled=box.settled + per_lot * case.joining)
    return _deviation(filled) * _YEARLY / case.denominator(armed.unit)


def _volatility_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    columns = survey.columns()
    per = survey.denominator(row.unit or Unit.EQUITY)
    for label, view in scoped_views(survey, row, account):
        _need_days(survey, view, columns)
        yield label, _deviation(_box(view.low, view.high, _days(survey, columns))) * _YEARLY / per


# --- strategy correlation -----------------------------------------------------------------------------------------


def correlation(one: Floats, other: Floats) -> float:
    """Of two centred series (days,); 0 where either never moves: what has nothing at risk moves like nobody."""
    squares = float(one.dot(one)) * float(other.dot(other))
    return float(one.dot(other)) / math.sqrt(squares) if squares > 0.0 else 0.0 if squares == 0.0 else math.nan


def _largest_on_the_way(one: Floats, moved: Floats, other: Floats) -> float:
    """The largest correlation of `one` + t × `moved` with `other`, t from 0 to 1: whatever part of an order fills. It
    is at an end, or where the derivative of (p + qt)/√(a + 2bt + ct²) is 0."""
    p, q = float(one.dot(other)), float(moved.dot(other))
    a, b, c = float(one.dot(one)), float(one.dot(moved)), float(moved.dot(moved))
    size, slope = math.sqrt(float(other.dot(other))), p * c - q * b
    peak = (q * a - p * b) / slope if slope else 0.0

    def at(t: float) -> float:
        square = a + t * (2.0 * b + t * c)
        if not size or square <= _SQUARE_ROUNDING * (a + t * t * c):
            return 0.0
        return (p + q * t) / (math.sqrt(square) * size)

    return _most(map(at, (0.0, 1.0, peak) if 0.0 < peak < 1.0 else (0.0, 1.0)))


def _settled(gains: Floats, scale: Floats) -> Floats:
    """`gains` (days,), or zeros where they are the rounding of sums of terms as large as `scale`: two legs that cancel
    have nothing at risk, and no correlation either."""
    return np.zeros_like(gains) if np.abs(gains).max() <= _ROUNDING * scale.max() else gains


def _most(found: Iterable[float]) -> float:
    """The largest, at least 0; NaN where one is."""
    known = list(found)
    return math.nan if any(map(math.isnan, known)) else max((0.0, *known))


_Gains = tuple[Floats, ...]
"""Centred daily P&L of a strategy's book as it is held and, where anything is open, as it is once all of it has filled:
(days,) each."""


def _gains(survey: Survey, strategy: str, columns: Columns) -> _Gains:
    """In base currency; kept until the book, a mark or the model changes."""
    view = survey.view(strategy, None)
    _need_days(survey, view, columns)
    kept: dict[str, tuple[Ends, LotValues, Columns, _Gains]] = survey.state.derived.setdefault("strategy gains", {})
    cached = kept.get(strategy)
    ends = view.stake.ends
    if cached is not None and cached[0] is ends and cached[1] is view.values and cached[2] is columns:
        return cached[3]
    if len(kept) >= STRATEGIES_MAX:
        kept.clear()
    book, scenario, days = view.book, view.values.scenario, _days(survey, columns)
    ways = [book.lots] if not (book.buys.any() or book.sells.any()) else [book.lots, book.lots + book.buys - book.sells]
    gains = tuple(_gains_of(lots * scenario, days) for lots in ways)
    kept[strategy] = ends, view.values, columns, gains
    return gains


def _gains_of(values: Floats, days: Floats) -> Floats:
    """Of a book of `values` (slots,) on `days` (slots, days) about their means."""
    return _settled(values.dot(days), np.abs(values).dot(np.abs(days)))


def _others(survey: Survey, strategy: str, columns: Columns) -> list[Floats]:
    return [way for name in _strategies(survey.state) if name != strategy for way in _gains(survey, name, columns)]


def _strategies(state: AccountState) -> list[str]:
    """Books with something held or open."""
    return [name for name, book in state.books.items() if book.ends().largest.any()]


def _strategy_correlation(case: Case, armed: Armed) -> Reading:
    """The order's strategy beside the one that it moves most like, whatever part of the order fills; the other open
    orders all filled or none."""
    columns = case.columns()
    own = _gains(case, armed.strategy, columns)
    _need_own_days(case, columns)
    others = _others(case, armed.strategy, columns)
    moved = _days(case, columns)[case.slot] * (case.sign * case.joining * case.scenario_value())
    pairs = list(product(own, others))
    before = _most(correlation(one, other) for one, other in pairs)
    return before, _most(_largest_on_the_way(one, moved, other) for one, other in pairs), case.model_age_us


def _strategy_correlation_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    columns = survey.columns()
    for name in _strategies(survey.state):
        if matches(row, name):
            pairs = product(_gains(survey, name, columns), _others(survey, name, columns))
            label = scope_label(row.scope, account, name, None)
            yield label, _most(correlation(one, other) for one, other in pairs)


VOLATILITY = Measure(
    "volatility",
    Reason.VOLATILITY,
    Family.PORTFOLIO,
    (Unit.EQUITY, Unit.MONEY),
    frozenset({ScopeKind.FIRM, ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR}),
    _volatility,
    _volatility_fit,
    _volatility_filled,
    _volatility_now,
)
"""The firm's too: the deviation of a sum is at most the sum of the deviations."""

STRATEGY_CORRELATION = Measure(
    "strategy_correlation",
    Reason.STRATEGY_CORRELATION,
    Family.INPUT,
    (Unit.FRACTION,),
    frozenset({ScopeKind.STRATEGY}),
    _strategy_correlation,
    now=_strategy_correlation_now,
)
"""Of INPUT, since no reduction may be stopped by it: selling half of a book leaves its correlation as it was."""
