"""Losses, profits and drawdowns of an account as its limits count them, and what they halt without an order.

Pure, read from the fold. Each is confirmed: today's lots and cash are valued at each symbol's newest mark, at the one
before it, and so on over `loss_confirmations` marks, and the least counts, so that one bad mark halts nobody. P&L is
realised plus unrealised, net of flows; over the account also of fees (DESIGN.md, equity). A limit that has halted
counts from the first valuation under the Resume that lifted it, and from nothing else. What is missing raises
Unevaluable.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.account import AccountState, Baseline, Floats, book_key
from engine.control import Control, Scope
from engine.instrument import InstrumentSet
from engine.limits import Limit, LimitAction, ScopeKind, Unit
from engine.loss_memory import WEEK_SESSIONS, Gains, LossBase
from engine.measures.measure import Survey, Unevaluable, matches, refuse_missing_price, scope_label, strategy_name
from engine.order import Reason
from engine.view import grouping_of, mask_of


class Part(NamedTuple):
    """Of what a loss is told: of one strategy's positions, of a group's, or, with neither, of the whole account."""

    strategy: str | None = None
    group: tuple[str, str] | None = None

    def label(self, account: str) -> str:
        if self.group is not None:
            return f"{self.group[0]}:{self.group[1]}"
        return f"account:{account}" if self.strategy is None else f"strategy:{strategy_name(book_key(self.strategy))}"

    def scope(self, account: str) -> Scope:
        """What a halt of it reaches: a group has no trading state of its own, but a symbol has."""
        if self.strategy is not None:
            return Scope(account, strategy=self.strategy)
        return Scope(account, symbol=self.group[1]) if self.group and self.group[0] == "symbol" else Scope(account)


WHOLE = Part()

RATIO_DIGITS = 12
"""A share is told to so many digits: a loss of 0.02 in the last bit more than 0.02 is one of 0.02."""

HALTING_MEASURES = ("daily_loss", "weekly_loss", "drawdown", "profit")
"""What follows from no order, and halts without one."""


def parts(survey: Survey, row: Limit) -> Iterator[tuple[str, Part]]:
    """(label, part) of each part of an account that a row reaches now."""
    account = survey.state.account
    if row.scope in (ScopeKind.FIRM, ScopeKind.ACCOUNT):
        yield scope_label(row.scope, account, "", None), WHOLE
    elif row.scope is ScopeKind.STRATEGY:
        for strategy in sorted({strategy for strategy, _ in survey.state.holdings}):
            if matches(row, strategy):
                yield scope_label(row.scope, account, strategy, None), Part(strategy)
    else:
        for name in grouping_of(survey.state, survey.instruments, row.scope.value).names:
            if matches(row, name):
                group = row.scope.value, name
                yield scope_label(row.scope, account, "", group), Part(group=group)


# --- from where a halt's row counts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Since:
    """A row that halted was resumed: it counts from `base`, None while nothing was valued under that Resume."""

    epoch: int
    base: LossBase | None


def since_resume(state: AccountState, control: Control | None, row: Limit, scope: Scope) -> Since | None:
    """From where a halting row counts; None: from where others do, because no loss halted its scope that was resumed.
    Which of these measures has halted it is no matter: whoever resumes has seen them all."""
    if row.action is not LimitAction.HALT or control is None or not state.halted_by:
        return None
    halts = [epoch for (measure, of), epoch in state.halted_by.items() if of == scope and measure in HALTING_MEASURES]
    if not halts:
        return None
    halted = max(halts)
    lifting = [one.epoch for one in control.resumes if one.epoch > halted and one.scope.covers(scope)]
    if not lifting:
        return None
    epoch = max(lifting)
    return Since(epoch, next((base for base in state.loss_bases if base.epoch >= epoch), None))


# --- P&L of the session, mark by mark ---------------------------------------------------------------------------------


class _Table:
    """Positions and what they had gained when the session began: a value, until one of them changes."""

    def __init__(self, state: AccountState, base: Baseline) -> None:
        self.base, self.held = base, state.book.ends(open_orders=False)
        self.strategies = [strategy for strategy, _ in state.holdings]
        self.slots: NDArray[np.intp] = np.array([state.slots[symbol] for _, symbol in state.holdings], dtype=np.intp)
        held = state.holdings.values()
        self._lots = np.array([one.lots for one in held], dtype=np.float64)
        self._cost = np.array([one.average_cost for one in held])
        then = [base.gains.get(key) for key in state.holdings]
        known = np.array([0.0 if one is None else one.realised + one.unrealised for one in then])
        self._realised = np.array([one.realised for one in held]) - known

    def row(self, state: AccountState, back: int) -> Floats:
        """(positions,) gain of the session at the marks `back` before the newest; NaN where a mark is missing."""
        mark, fx = state.marks_back(back)[self.slots], state.fx_back(back)[self.slots]
        gain = self._lots * state.unit[self.slots] * (mark - self._cost) * fx
        unknown = (self._lots != 0) & ((mark <= 0.0) | (fx <= 0.0))
        row: Floats = np.where(unknown, math.nan, np.where(self._lots != 0, gain, 0.0)) + self._realised
        return row


def _gain_rows(state: AccountState, table: _Table, count: int) -> list[Floats]:
    """`count` rows of a table, kept with the state's version: forks share what a state derives, not what they add."""
    cached: tuple[int, _Table, list[Floats]] | None = state.derived.get("loss_rows")
    if cached is None or cached[0] != state.version or cached[1] is not table or len(cached[2]) < count:
        rows = [table.row(state, back) for back in range(count)]
        cached = state.derived["loss_rows"] = (state.version, table, rows)
    return cached[2][:count]


def _table(state: AccountState) -> _Table:
    base = state.session_base
    if base is None:
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, "the session was not valued yet, so that no loss in it is known")
    cached: _Table | None = state.derived.get("loss_table")
    if cached is None or cached.base is not base or cached.held is not state.book.ends(open_orders=False):
        cached = state.derived["loss_table"] = _Table(state, base)
    return cached


def session_pnl_rows(survey: Survey, part: Part) -> list[float]:
    """P&L of the open session at the newest marks, then at each one before, as many as confirm a loss, in base
    currency. Raises Unevaluable where a mark, a rate, the session or its first valuation is missing."""
    state, count = survey.state, survey.policy.loss_confirmations
    session = state.session
    if session is None:
        raise Unevaluable(Reason.SESSION_MISSING, "no session was opened for this account")
    _need_prices(survey)
    if part == WHOLE:
        rows = [float(equity) - session.equity_open - session.flows for equity in state.equities_back()[:count]]
    else:
        table = _table(state)
        chosen = _members(survey, table, part)
        rows = [float(np.where(chosen > 0.0, row, 0.0).sum()) for row in _gain_rows(state, table, count)]
    if not all(map(math.isfinite, rows)):
        note = f"the session {session.date} was not valued yet, or P&L in it is no number"
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, note)
    return rows


def _members(survey: Survey, table: _Table, part: Part) -> Floats:
    if part.group is not None:
        chosen: Floats = mask_of(survey.state, survey.instruments, *part.group)[table.slots]
        return chosen
    return np.array([float(strategy == part.strategy) for strategy in table.strategies])


def _need_prices(survey: Survey) -> None:
    """Of what is held: a loss does not depend on what is only open."""
    state = survey.state
    if math.isfinite(state.equity()):
        return
    values = state.unit_values()
    for symbol, slot in state.slots.items():
        if state.book.lots[slot] and values[slot] <= 0.0:
            refuse_missing_price(state, symbol)
    if math.isnan(state.cash_value()):
        raise Unevaluable(Reason.FX_MISSING, f"no rate to {state.base_currency} for cash held")
    raise Unevaluable(Reason.MEASURE_NOT_FINITE, f"equity is {state.equity()}")


def _base_pnl(survey: Survey, base: LossBase, part: Part) -> float:
    """A part's P&L in its session when a base was made."""
    return base.pnl if part == WHOLE else _sum(survey, base.gains, part)


def _sum(survey: Survey, gains: Mapping[tuple[str, str], float], part: Part) -> float:
    if part.group is None:
        return math.fsum(gain for (strategy, _), gain in gains.items() if strategy == part.strategy)
    state = survey.state
    mask = mask_of(state, survey.instruments, *part.group)
    return math.fsum(gain for (_, symbol), gain in gains.items() if mask[state.slots[symbol]])


def _opening(equity_open: float, unit: Unit, date: str) -> float:
    """What P&L of a session is divided by. Raises Unevaluable where there was no equity to lose."""
    if unit is not Unit.EQUITY:
        return 1.0
    if not equity_open > 0.0:
        note = f"equity was {equity_open:.2f} when session {date} opened, so that no share of it can be lost"
        raise Unevaluable(Reason.EQUITY_NOT_POSITIVE, note)
    return equity_open


# --- what the limits count --------------------------------------------------------------------------------------------


def daily_loss(survey: Survey, row: Limit, part: Part, unit: Unit) -> float:
    """(E_open + flows − E) / E_open of the open session, 0 where it gained."""
    return _loss(max(_daily(survey, row, part, unit)))


def profit(survey: Survey, row: Limit, part: Part, unit: Unit) -> float:
    """The session's gain, 0 where it lost: the least that the marks agree on."""
    return _loss(-min(_daily(survey, row, part, unit)))


def _daily(survey: Survey, row: Limit, part: Part, unit: Unit) -> list[float]:
    """P&L of the session mark by mark, since the Resume of this row's halt if that was in it."""
    state, rows = survey.state, session_pnl_rows(survey, part)
    since = since_resume(state, survey.control, row, part.scope(state.account))
    if since is not None:
        rows = _counted_from(survey, since.base, part, rows)
    session = state.session
    assert session is not None, "P&L of it was told"
    per = _opening(session.equity_open, unit, session.date)
    return [pnl / per for pnl in rows]


def _counted_from(survey: Survey, base: LossBase | None, part: Part, rows: list[float]) -> list[float]:
    session = survey.state.session
    if base is None:
        return [0.0] * len(rows)
    if session is None or base.session_date != session.date:
        return rows
    pnl = _base_pnl(survey, base, part)
    if not math.isfinite(pnl):
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, f"P&L as of the Resume at epoch {base.epoch} is not known")
    return [one - pnl for one in rows]


def weekly_loss(survey: Survey, row: Limit, part: Part, unit: Unit) -> float:
    """Daily losses of the last five sessions added up, the open one's included, gains deducted; 0 where they gained."""
    state = survey.state
    since = since_resume(state, survey.control, row, part.scope(state.account))
    today = max(_daily(survey, row, part, unit))
    if since is not None and since.base is None:
        return _loss(today)
    return _loss(today + _before_today(survey, part, unit, since.base if since is not None else None))


def _before_today(survey: Survey, part: Part, unit: Unit, base: LossBase | None) -> float:
    """What the sessions before made, since `base` if it is given."""
    state, total = survey.state, 0.0
    sessions = state.sessions[-WEEK_SESSIONS + 1 :]
    known = state.session_gains[len(state.session_gains) - len(sessions) :]
    valued = (
        any(math.isfinite(one.equity_open) for one in state.sessions[: -len(sessions) or None]) if sessions else True
    )
    for session, gains in zip(sessions, known, strict=True):
        if not valued and not math.isfinite(session.equity_open):
            continue  # before the account was valued at all, nothing was at stake that could be lost
        valued = True
        if base is not None and session.date < base.session_date:
            continue
        pnl = session.pnl if part == WHOLE else _sum(survey, gains, part)
        if base is not None and session.date == base.session_date:
            pnl -= _base_pnl(survey, base, part)
        if not math.isfinite(pnl):
            note = f"what session {session.date} lost is not known: a mark or a rate was missing when it ended"
            raise Unevaluable(Reason.MEASURE_NOT_FINITE, note)
        total += pnl / _opening(session.equity_open, unit, session.date)
    return total


def drawdown(survey: Survey, row: Limit, part: Part, unit: Unit) -> float:
    """1 − NAV / high-water mark, the least that the marks agree on, of an account as a whole (CHECKS 32). That mark is
    confirmed too; deposits and withdrawals move neither."""
    state = survey.state
    since = since_resume(state, survey.control, row, part.scope(state.account))
    return fall_from(survey, state.peak_confirmed if since is None else _peak_since(state, since))


def _peak_since(state: AccountState, since: Since) -> float:
    """The NAV of now where nothing was valued under the Resume."""
    peaks = [base.peak for base in state.loss_bases[:-1] if base.epoch >= since.epoch]
    if since.base is not None:
        peaks.append(state.base_peak)
    return max(peaks, default=state.nav())


def fall_from(survey: Survey, peak: float) -> float:
    """How far the NAV is below a peak, as a share of it, 0 where it is above: the least over the marks that confirm it.
    Raises Unevaluable where equity is not known, or the account was never valued."""
    _need_prices(survey)
    state = survey.state
    if not (peak > 0.0 and state.units > 0.0):
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, "the account was never valued, so that it has no high-water mark")
    highest = float(state.equities_back()[: survey.policy.loss_confirmations].max()) / state.units
    fall = round(1.0 - highest / peak, RATIO_DIGITS)
    if not math.isfinite(fall):
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, f"the drawdown is {fall}")
    return max(0.0, fall)


def gains_of(state: AccountState, instruments: InstrumentSet, gains: Gains, kind: str) -> dict[str, float]:
    """P&L by strategy (kind "strategy") or by group of a kind, added up."""
    groups = None if kind == "strategy" else grouping_of(state, instruments, kind)
    totals: dict[str, list[float]] = {}
    for (strategy, symbol), gain in gains.items():
        name = strategy if groups is None else groups.names[groups.index[state.slots[symbol]]]
        totals.setdefault(name, []).append(gain)
    return {name: math.fsum(some) for name, some in sorted(totals.items())}


def _loss(pnl: float) -> float:
    """The loss in P&L, 0 where it is a gain."""
    return max(0.0, round(-pnl, RATIO_DIGITS))
