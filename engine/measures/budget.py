"""The measure of risk budgets: what the positions of a scope contribute to the account's VaR, of the VaR that is shared
out (CHECKS 38).

allocated = Σ over the scope's positions of max(0, component VaR) / (Policy.budget_var_limit × equity), on the exact
order-time vectors of the whole account: open orders at worst case, the order joined. A component is a conditional
expectation over the days next to the VaR (engine.budgets.day_weights). Of a strategy, what it has borrowed counts for
it and what it has lent against it, so that its row's bound stays what the limit set says. Positions are kept by account
and strategy: an agent that has a budget of its own trades under a strategy of its own.
"""

from collections.abc import Iterable

import numpy as np

from engine.account import NAMELESS, Floats
from engine.budgets import MEASURE, borrowed, day_weights
from engine.limits import Limit, ScopeKind, Unit
from engine.measures.exposure import scoped_views
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, Unevaluable
from engine.order import Reason
from engine.view import Columns, View

_AtStake = tuple[View, Columns]
"""The whole account, and the model's columns."""


def components(view: View, columns: Columns, weights: Floats) -> Floats:
    """(slots,) each symbol's part of weights @ losses of a view's book, base currency; `weights` (days,)."""
    (days,) = weights.nonzero()
    counted, stake, values = weights[days], view.stake, view.values.scenario
    found: Floats = stake.owed * values * columns.returns[:, days].dot(counted)
    if len(stake.spread):
        opened = stake.opened
        found[opened] -= stake.spread * values[opened] * columns.falls[opened][:, days].dot(counted)
    return found


def budget_money(survey: Survey) -> float:
    """The VaR that is shared out, base currency."""
    return survey.policy.budget_var_limit * survey.equity()


def account_weights(survey: Survey, open_orders: bool = True) -> tuple[View, Columns, Floats]:
    """The whole account, the model's columns, and what each day counts for without any further order. Raises
    Unevaluable where an input is missing."""
    view, columns = _account(survey, open_orders)
    losses = view.losses(columns)[: columns.days]
    return view, columns, _weights(survey, (view, columns), losses, "budget_before")


def _account(survey: Survey, open_orders: bool) -> _AtStake:
    view, columns = survey.view("", None, open_orders), survey.columns()
    survey.need_history(view, columns)
    return view, columns


def _weights(survey: Survey, at_stake: _AtStake, losses: Floats, kept: str) -> Floats:
    """Kept for all rows that an order is judged by, without it and with it apart."""
    view, columns = at_stake
    confidence = survey.policy.budget_confidence
    cached: tuple[View, Columns, float, Floats, Floats] | None = survey.state.derived.get(kept)
    if (
        cached is not None
        and cached[0] is view
        and cached[1] is columns
        and cached[2] == confidence
        and np.array_equal(cached[3], losses)
    ):
        return cached[4]
    if not np.isfinite(losses).all():
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, "a loss in the risk model's days is no number")
    weights = day_weights(losses, confidence)
    survey.state.derived[kept] = (view, columns, confidence, losses.copy(), weights)
    return weights


def _at_stake(case: Case, armed: Armed) -> _AtStake:
    view, columns = _account(case, armed.open_orders)
    if columns.no_history is not None and columns.no_history[case.slot]:
        note = f"{case.instrument.symbol} has too little price history and no proxy"
        raise Unevaluable(Reason.HISTORY_MISSING, note)
    return view, columns


def _allocated(case: Case, armed: Armed, at_stake: _AtStake, own: Floats | None) -> float:
    """In the limit's scope; `own` (days,): the loss that the order adds on each day, None without it."""
    whole, columns = at_stake
    losses = whole.losses(columns)[: columns.days]
    if own is not None:
        losses = losses + own
    weights = _weights(case, at_stake, losses, "budget_before" if own is None else "budget_after")
    found = components(case.of(armed), columns, weights)
    if own is not None:
        found[case.slot] += float(weights @ own)
    return float(np.maximum(found, 0.0).sum()) / budget_money(case) - _borrowed(case, armed)


def _borrowed(case: Case, armed: Armed) -> float:
    loans = case.state.loans
    if not loans or armed.row.scope is not ScopeKind.STRATEGY:
        return 0.0
    return borrowed(loans, case.order.strategy, case.now_us)


def _own(case: Case, columns: Columns) -> Floats:
    """(days,) what the order adds to the worst-case loss once it has joined its side."""
    own = case.added(columns)[: columns.days]
    return own


def _budget(case: Case, armed: Armed) -> Reading:
    at_stake = _at_stake(case, armed)
    before = _allocated(case, armed, at_stake, None)
    return before, _allocated(case, armed, at_stake, _own(case, at_stake[1])), case.model_age_us


def _budget_fit(case: Case, armed: Armed, bound: float) -> int:
    """Lots that keep the bound, halved towards: a component need not rise with them, so that what is found keeps it and
    is not surely the most."""
    at_stake = _at_stake(case, armed)
    own = _own(case, at_stake[1])
    within, beyond = 0, case.joining + 1
    tried = case.joining
    while beyond - within > 1:
        if _allocated(case, armed, at_stake, own * (tried / max(1, case.joining))) <= bound:
            within = tried
        else:
            beyond = tried
        tried = (within + beyond) // 2
    return within


def _budget_filled(case: Case, armed: Armed) -> float:
    at_stake = _at_stake(case, armed)
    columns = at_stake[1]
    moved = case.sign * case.joining * case.scenario_value()
    return _allocated(case, armed, at_stake, -moved * columns.returns[case.slot, : columns.days])


def _budget_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    _, columns, weights = account_weights(survey, row.open_orders)
    money = budget_money(survey)
    for label, view in scoped_views(survey, row, account):
        if not view.stake.largest.any() and row.scope is ScopeKind.SYMBOL:
            continue
        used = float(np.maximum(components(view, columns, weights), 0.0).sum()) / money
        if row.scope is ScopeKind.STRATEGY:
            name = _strategy_of(survey, view)
            used -= borrowed(survey.state.loans, name, survey.now_us)
        yield label, used


def _strategy_of(survey: Survey, view: View) -> str:
    key = next(key for key, book in survey.state.books.items() if book is view.book)
    return "" if key == NAMELESS else key


RISK_BUDGET = Measure(
    MEASURE,
    Reason.RISK_BUDGET,
    Family.PORTFOLIO,
    (Unit.FRACTION,),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL}),
    _budget,
    _budget_fit,
    _budget_filled,
    _budget_now,
)
