"""Measures of what could be lost: VaR, expected shortfall, stress loss, exactly at order time (CHECKS 35 and 36).

The model gives each instrument's return under every scenario; the account's worst-case P&L is one vector, an order
changes it by lots × column (NUMERICS.md, formulas at order time). Nothing is read from a cached figure.
"""

import math
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NoReturn

import numpy as np

from engine.account import Floats
from engine.limits import Limit, ScopeKind, Unit
from engine.measures.exposure import scoped_views
from engine.measures.measure import TAIL_DAYS_MIN, Armed, Case, Family, Measure, Reading, Survey, Unevaluable
from engine.order import Reason
from engine.risk.var import tail_count
from engine.view import Columns, Tail, View, largest, tails_of

_Of = Callable[[Tail], float]
_NEWTON_STEPS_MAX = 60
"""ES is piecewise linear in the quantity with at most one piece per day; it took 2 to 6 steps on every case tried."""


def _tail_read(of: _Of) -> Callable[[Case, Armed], Reading]:
    def read(case: Case, armed: Armed) -> Reading:
        tails = case.tails.get(armed.view_key)
        if tails is None:
            tails = case.tails[armed.view_key] = _tails(case, armed)
        per = case.equity() if armed.of_equity else 1.0
        return of(tails[0]) / per, of(tails[1]) / per, case.model_age_us

    return read


def _tails(case: Case, armed: Armed) -> tuple[Tail, Tail]:
    """The tails without and with the order: all measures of one scope read the same two."""
    view, columns, _ = _history(case, armed)
    view.losses(columns)  # first: it has every column at hand, the order's own among them
    return view.tails(columns, case.added(columns))


def _history(case: Case, armed: Armed) -> tuple[View, Columns, int]:
    """The view, the model's columns and the number of days, all inputs known, the order's own symbol included."""
    view, columns = case.of(armed), case.columns()
    if columns.days < TAIL_DAYS_MIN or columns.no_history is not None:
        case.need_history(view, columns)
        if columns.no_history is not None and columns.no_history[case.slot]:
            _refuse_symbol(case, Reason.HISTORY_MISSING, "has too little price history and no proxy")
    return view, columns, columns.days


def _refuse_symbol(case: Case, reason: Reason, what: str) -> NoReturn:
    raise Unevaluable(reason, f"{case.instrument.symbol} {what}")


def _tail_filled(case: Case, armed: Armed, of: _Of) -> float:
    view, columns, days = _history(case, armed)
    (tail,) = tails_of(case.losses_filled(view, columns)[None, :days], columns.cut)
    return of(tail) / case.denominator(armed.unit)


def _tail_now(of: _Of) -> Callable[[Survey, Limit, str, str], Iterable[tuple[str, float]]]:
    def now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
        columns, days = survey.columns(), survey.usable_model().n_days
        per = survey.denominator(row.unit or Unit.EQUITY)
        for label, view in scoped_views(survey, row, account):
            survey.need_history(view, columns)
            yield label, of(view.tail(columns, days)) / per

    return now


def _var_fit(confidence: float) -> Callable[[Case, Armed, float], int]:
    def fit(case: Case, armed: Armed, bound: float) -> int:
        """VaR ≤ L holds if and only if fewer than k losses exceed L, so the most lots are the k-th smallest of
        (L − loss) / harm over the days; days that the order does not harm count only where they exceed L already."""
        view, columns, days = _history(case, armed)
        room = bound * case.denominator(armed.unit) - view.losses(columns)[:days]
        harm = case.harm(columns)[:days]
        lots = np.where(room < 0, -math.inf, math.inf)
        np.divide(room, harm, out=lots, where=harm > 0)
        worst = tail_count(days, confidence)
        return _whole(float(np.partition(lots, worst - 1)[worst - 1]), case.joining)

    return fit


def _es_fit(confidence: float) -> Callable[[Case, Armed, float], int]:
    def fit(case: Case, armed: Armed, bound: float) -> int:
        """ES is convex and piecewise linear in the lots: Newton from the right never passes below the root."""
        view, columns, days = _history(case, armed)
        target = bound * case.denominator(armed.unit)
        losses, harm = view.losses(columns)[:days], case.harm(columns)[:days]
        lots = float(case.joining)
        for _ in range(_NEWTON_STEPS_MAX):
            value, slope = _es_and_slope(losses + lots * harm, harm, confidence)
            excess = value - target
            if excess <= 0:
                break
            if slope <= 0:  # over the bound without the order: no number of lots mends it
                return 0
            lots -= excess / slope
            if lots <= 0:
                return 0
        return _whole(lots, case.joining)

    return fit


def _es_and_slope(losses: Floats, harm: Floats, confidence: float) -> tuple[float, float]:
    """ES at these losses, and by how much it grows per lot."""
    days = len(losses)
    worst = tail_count(days, confidence)
    mass = (1.0 - confidence) * days
    order = np.argpartition(losses, days - worst)[days - worst :]
    edge = order[np.argmin(losses[order])]
    beyond = order[order != edge]
    weight = mass - (worst - 1)
    value = (losses[beyond].sum() + weight * losses[edge]) / mass
    slope = (harm[beyond].sum() + weight * harm[edge]) / mass
    return float(value), float(slope)


def _whole(lots: float, asked: int) -> int:
    if not lots > 0:
        return 0
    return asked if lots >= asked else int(lots + 1e-9)


def _stress_inputs(case: Case, armed: Armed) -> tuple[View, Columns]:
    view, columns = case.of(armed), case.columns()
    if columns.no_factor is not None:
        case.need_factor(view, columns)
        if columns.no_factor[case.slot]:
            _refuse_symbol(case, Reason.FACTOR_MISSING, "is reached by no stress factor")
    return view, columns


def _stress(case: Case, armed: Armed) -> Reading:
    """The worst loss over the stress scenarios and over the ±spot grid of each underlying. An order that joins its
    side lowers no row, so that only the scenarios and its own underlying's grid can pass the worst one before it."""
    view, columns = _stress_inputs(case, armed)
    per = case.equity() if armed.of_equity else 1.0
    before = view.stress_worst(columns, case.underlyings())
    after = max(before, case.stress_after(view, columns), case.grid_after(view, columns))
    return before / per, after / per, case.model_age_us


def _stress_fit(case: Case, armed: Armed, bound: float) -> int:
    """min over scenarios and grid points of (L − loss) / harm: each row is linear in the lots of one side."""
    view, columns = _stress_inputs(case, armed)
    limit, underlyings = bound * case.denominator(armed.unit), case.underlyings()
    if view.other_grids_worst(columns, case.underlyings(), case.slot) > limit:
        return 0
    room, harm = limit - view.stress(columns), case.harm(columns)[columns.days :]
    grid_room = limit - view.grid_of(columns, underlyings, case.slot)
    grid_harm = case.harm_grid(columns)
    return _whole(min(_least(room, harm), _least(grid_room, grid_harm)), case.joining)


def _least(room: Floats, harm: Floats) -> float:
    if (room < 0).any():
        return 0.0
    hurt = harm > 0
    return float((room[hurt] / harm[hurt]).min(initial=math.inf))


def _stress_filled(case: Case, armed: Armed) -> float:
    view, columns = _stress_inputs(case, armed)
    moved, slot = case.sign * case.joining * case.scenario_value(), case.slot
    scenarios = view.stress(columns) - moved * columns.stress[slot]
    grid = view.grid_of(columns, case.underlyings(), slot) - moved * columns.grid[slot]
    worst = max(largest(scenarios), largest(grid), view.other_grids_worst(columns, case.underlyings(), case.slot))
    return worst / case.denominator(armed.unit)


def _stress_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    columns = survey.columns()
    per = survey.denominator(row.unit or Unit.EQUITY)
    for label, view in scoped_views(survey, row, account):
        survey.need_factor(view, columns)
        yield label, view.stress_worst(columns, survey.underlyings()) / per


def _tail_measure(name: str, reason: Reason, of: _Of, fit: Callable[[Case, Armed, float], int], firm: bool) -> Measure:
    scopes = {ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR}
    return Measure(
        name,
        reason,
        Family.PORTFOLIO,
        (Unit.EQUITY, Unit.MONEY),
        frozenset(scopes | {ScopeKind.FIRM} if firm else scopes),
        _tail_read(of),
        fit,
        lambda case, armed: _tail_filled(case, armed, of),
        _tail_now(of),
    )


VAR_95 = _tail_measure("var_95", Reason.VAR, attrgetter("var_95"), _var_fit(0.95), firm=False)
VAR_99 = _tail_measure("var_99", Reason.VAR, attrgetter("var_99"), _var_fit(0.99), firm=False)
ES_95 = _tail_measure("es_95", Reason.EXPECTED_SHORTFALL, attrgetter("es_95"), _es_fit(0.95), firm=True)
ES_99 = _tail_measure("es_99", Reason.EXPECTED_SHORTFALL, attrgetter("es_99"), _es_fit(0.99), firm=True)
"""Firm limits are shares of ES and not of VaR: ES is subadditive, so shares that hold add up to a firm that holds."""

STRESS_LOSS = Measure(
    "stress_loss",
    Reason.STRESS_LOSS,
    Family.PORTFOLIO,
    (Unit.EQUITY, Unit.MONEY),
    frozenset({ScopeKind.FIRM, ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR}),
    _stress,
    _stress_fit,
    _stress_filled,
    _stress_now,
)
