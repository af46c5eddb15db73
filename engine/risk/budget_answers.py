"""The answer on risk budgets: what the account, its strategies, asset classes and positions use, and what is left.

The same figures as the measure `risk_budget` reads at order time (engine.measures.budget), told with shares, loans and
stops. A caller may give contributions by strategy in place of the components of the account's VaR.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.account import NAMELESS, AccountState
from engine.budgets import MEASURE, borrowed
from engine.budgets import in_force as loans_in_force
from engine.control import TradingState
from engine.decide import Terms
from engine.limits import EVERY, ScopeKind
from engine.measures.budget import account_weights, budget_money, components
from engine.measures.measure import Survey, Unevaluable
from engine.records import BudgetLent
from engine.risk.inquiry import InquiryError, Stamp, Unanswerable
from engine.tightening import factor_on, in_force
from engine.view import grouping_of

TOTAL = 1.0
"""The account's share where no row says another."""


@dataclass(frozen=True, slots=True)
class BudgetInquiry:
    """`given`: the caller's own contributions by strategy, base currency; None: the components of the account's VaR."""

    account: str
    given: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """What one scope uses. Shares are of the budget: 1 is all of it."""

    kind: ScopeKind
    name: str
    component: float
    """Of VaR, base currency; below 0 it hedges."""
    allocated: float
    """Σ over its positions of max(0, component) / budget."""
    share: float | None
    """Bound of its row, tightenings applied; None: no row holds it."""
    borrowed: float = 0.0
    """Of other strategies, less what they have borrowed of it."""
    paused: bool = False
    """A stop or a halt lets it only reduce, or less."""
    can_add_risk: bool = False
    """Not paused, and it and the account have more than the least headroom left."""

    @property
    def available(self) -> float | None:
        return None if self.share is None else max(0.0, self.share + self.borrowed - self.allocated)

    @property
    def utilisation(self) -> float | None:
        """1: all of it is used; None where nothing is given to use."""
        has = 0.0 if self.share is None else self.share + self.borrowed
        return self.allocated / has if has > 0.0 else None


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    stamp: Stamp
    var_limit: float
    """What is shared out, base currency."""
    confidence: float
    headroom_min: float
    account: BudgetLine
    strategies: tuple[BudgetLine, ...]
    asset_classes: tuple[BudgetLine, ...]
    """And positions: none where contributions were given, which tell only of strategies."""
    positions: tuple[BudgetLine, ...]
    loans: tuple[BudgetLent, ...]


def budget_answer(state: AccountState, terms: Terms, stamp: Stamp, inquiry: BudgetInquiry, now_us: int) -> BudgetAnswer:
    """Raises Unanswerable where a mark, a rate, history, equity or the model is missing, InquiryError where a
    contribution is of a strategy that the account never had."""
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    try:
        desk = _Desk(survey, terms, inquiry)
    except Unevaluable as missing:
        raise Unanswerable(missing.note) from missing
    policy = terms.limits.policy
    return BudgetAnswer(
        stamp=stamp,
        var_limit=desk.money,
        confidence=policy.budget_confidence,
        headroom_min=policy.budget_headroom_min,
        account=desk.account,
        strategies=_greatest_first(desk.strategies()),
        asset_classes=_greatest_first(desk.groups(ScopeKind.ASSET_CLASS)),
        positions=_greatest_first(desk.groups(ScopeKind.SYMBOL)),
        loans=loans_in_force(state.loans, now_us),
    )


def _greatest_first(lines: Iterable[BudgetLine]) -> tuple[BudgetLine, ...]:
    return tuple(sorted(lines, key=lambda line: (-line.allocated, line.name)))


class _Desk:
    """An account's components, read once."""

    def __init__(self, survey: Survey, terms: Terms, inquiry: BudgetInquiry) -> None:
        self._survey, self._terms, self._state = survey, terms, survey.state
        self.money, self._given = budget_money(survey), inquiry.given
        self._view, self._columns, self._weights = account_weights(survey)
        if self._given is not None:
            self._need_known(self._given)
        self.account = self._line(ScopeKind.ACCOUNT, self._state.account, *self._totals())

    def _need_known(self, given: Mapping[str, float]) -> None:
        for strategy in given:
            if (strategy or NAMELESS) not in self._state.books:
                raise InquiryError("contributions", f"{strategy!r} never had an order or a position here")

    def _totals(self) -> tuple[float, float]:
        if self._given is not None:
            return sum(self._given.values()), sum(max(0.0, one) for one in self._given.values()) / self.money
        found = components(self._view, self._columns, self._weights)
        return float(found.sum()), float(np.maximum(found, 0.0).sum()) / self.money

    def strategies(self) -> Iterable[BudgetLine]:
        for key in self._state.books:
            name = "" if key == NAMELESS else key
            if self._given is not None:
                component = self._given.get(name, 0.0)
                yield self._line(ScopeKind.STRATEGY, name, component, max(0.0, component) / self.money)
                continue
            found = components(self._survey.view(key, None), self._columns, self._weights)
            allocated = float(np.maximum(found, 0.0).sum()) / self.money
            yield self._line(ScopeKind.STRATEGY, name, float(found.sum()), allocated)

    def groups(self, kind: ScopeKind) -> Iterable[BudgetLine]:
        if self._given is not None:
            return
        found = components(self._view, self._columns, self._weights)
        grouping = grouping_of(self._state, self._terms.instruments, kind.value)
        for at, name in enumerate(grouping.names):
            members = grouping.index == at
            if self._view.stake.largest[members].any():
                own = found[members]
                yield self._line(kind, name, float(own.sum()), float(np.maximum(own, 0.0).sum()) / self.money)

    def _line(self, kind: ScopeKind, name: str, component: float, allocated: float) -> BudgetLine:
        is_strategy = kind is ScopeKind.STRATEGY
        line = BudgetLine(
            kind=kind,
            name=name,
            component=component + 0.0,
            allocated=allocated,
            share=self._share(kind, name),
            borrowed=borrowed(self._state.loans, name, self._survey.now_us) if is_strategy else 0.0,
            paused=self._paused(kind, name),
        )
        return replace(line, can_add_risk=self._can_add(line))

    def _share(self, kind: ScopeKind, name: str) -> float | None:
        """The least bound of the rows that hold it, tightened; of the account all where no row says less."""
        rows = self._terms.limits.rows_for(self._state.account)
        bounds = [
            row.limit
            for row in rows
            if row.measure == MEASURE and row.scope is kind and row.is_hard and row.match in (EVERY, name)
        ]
        if kind is ScopeKind.ACCOUNT:
            bounds.append(TOTAL)
        instrument = self._terms.instruments.get(name) if kind is ScopeKind.SYMBOL else None
        factor = factor_on(in_force(self._state.tightenings, self._survey.now_us), MEASURE, instrument)
        return min(bounds) * factor if bounds else None

    def _paused(self, kind: ScopeKind, name: str) -> bool:
        """Whether whatever it would open is stopped."""
        strategy = name if kind is ScopeKind.STRATEGY else ""
        symbol = name if kind is ScopeKind.SYMBOL else ""
        control, state = self._terms.control, self._state
        stopped = control.state_at(state.account, strategy, symbol)
        return max(stopped, state.latched_state(control, strategy, symbol)) > TradingState.ACTIVE

    def _can_add(self, line: BudgetLine) -> bool:
        least = self._survey.policy.budget_headroom_min
        spare = line.share is None or (line.utilisation is not None and 1.0 - line.utilisation > least)
        parent = line.kind is ScopeKind.ACCOUNT or self.account.can_add_risk
        return spare and parent and not line.paused
