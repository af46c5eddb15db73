"""The answer on a report: the worker's latest, judged, with profit and loss, trends and the heat map of the positions.

Put together from verdict.py, pnl.py, trend.py and heat_map.py. A column of the heat map that can't be computed is there
without values and says why.
"""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.account import AccountState, Session
from engine.pnl import ProfitAndLoss
from engine.report import RiskReport
from engine.risk.case import Case
from engine.risk.heat_map import THRESHOLDS, Column, HeatMap, heat_map, hottest_first
from engine.risk.inquiry import Stamp, Unanswerable, VarInquiry, Whose
from engine.risk.level import Gauge, LevelPolicy
from engine.risk.portfolio_answers import PortfolioMeasures
from engine.risk.stress import stress
from engine.risk.stress_answers import stress_book
from engine.risk.trend import SESSIONS, Trend, trends
from engine.risk.var_answers import var_answer
from engine.risk.verdict import Verdict
from engine.utilisation import LimitUse

SYMBOL_SCOPE = "symbol:"


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """`policy`: by which it was judged. `heat`: None where nothing is held or open."""

    report: RiskReport
    stamp: Stamp
    verdict: Verdict
    policy: LevelPolicy
    pnl: ProfitAndLoss
    trends: tuple[Trend, ...]
    heat: HeatMap | None
    portfolio: PortfolioMeasures


def session_trends(state: AccountState, report: RiskReport) -> tuple[Trend, ...]:
    """Over the last sessions of the account, the open one as reported last. Nothing without a session."""
    closed = [(datetime.date.fromisoformat(one.date), _closed_figures(one)) for one in state.sessions]
    if state.session is not None:
        closed.append((datetime.date.fromisoformat(state.session.date), _open_figures(report)))
    rising: list[tuple[datetime.date, dict[str, float | None]]] = []
    for date, figures in closed:  # a replayed past may open a session anew: its last run counts
        while rising and rising[-1][0] >= date:
            rising.pop()
        rising.append((date, figures))
    return trends(rising, SESSIONS)


def _closed_figures(session: Session) -> dict[str, float | None]:
    made = session.forecast
    figures = {"equity": session.equity_close, "session_pnl": session.pnl, "drawdown": session.drawdown_max}
    forecast = {} if made is None else {name: getattr(made, name) for name in _FORECAST}
    return {name: value if math.isfinite(value) else None for name, value in (figures | forecast).items()}


def _open_figures(report: RiskReport) -> dict[str, float | None]:
    named = {"equity": report.equity, "session_pnl": report.session_pnl, "drawdown": report.drawdown}
    return named | {name: getattr(report, name) for name in _FORECAST}


_FORECAST = ("var_95", "var_99", "es_95", "es_99")


def heat_of(case: Case, report: RiskReport, pnl: ProfitAndLoss, policy: LevelPolicy) -> HeatMap | None:
    """Symbols by measures: value, contribution to VaR, loss in the worst scenario, P&L of the session, and the limits
    that are on single symbols, judged as the limits of the report are. None where nothing is held or open."""
    symbols = case.account.by_symbol().symbols
    if not symbols:
        return None
    money = case.stamp.base_currency
    values = case.account.by_symbol().values.tolist()
    known = [value if math.isfinite(value) else None for value in values]
    columns = [
        Column("market_value", money, tuple(known), note="no mark or no rate"),
        _contributions(case, symbols, money),
        _worst_scenario(case, symbols, money),
        _session_pnl(pnl, symbols, money),
        *_limited(report.limits, symbols, money),
    ]
    return hottest_first(heat_map(symbols, columns, policy.thresholds.get(Gauge.LIMIT, THRESHOLDS)))


def _contributions(case: Case, symbols: Sequence[str], money: str) -> Column:
    """To one-day VaR at 99 %."""
    inquiry = VarInquiry(Whose(case.stamp.account), ("parametric",), (0.99,), components=True)
    try:
        found = var_answer(case, inquiry).contributions
    except Unanswerable as missing:
        return Column("var_99_component", money, (None,) * len(symbols), note=str(missing))
    if found is None:
        return Column("var_99_component", money, (None,) * len(symbols), note="no contributions can be computed")
    added = dict.fromkeys(symbols, 0.0)
    for symbol, component in zip(found.holdings.symbols, found.main.component.tolist(), strict=True):
        added[symbol] += component
    return Column("var_99_component", money, tuple(added[symbol] for symbol in symbols))


def _worst_scenario(case: Case, symbols: Sequence[str], money: str) -> Column:
    """The loss of each symbol in the scenario that costs the account most."""
    book = stress_book(case, Whose(case.stamp.account))
    losses = stress(book, case.assumptions.scenarios, factor_map=case.assumptions.factor_map)
    evaluated = [one for one in losses if one.evaluated]
    if not evaluated:
        return Column("worst_stress", money, (None,) * len(symbols), note="no scenario can be evaluated")
    worst = max(evaluated, key=lambda one: one.loss)
    added: dict[str, float] = {}
    for part in worst.contributions():
        added[part.symbol] = added.get(part.symbol, 0.0) + part.loss
    left_out = {row.symbol: row.reason for row in worst.left_out}
    values = tuple(None if symbol in left_out else added.get(symbol, 0.0) for symbol in symbols)
    return Column("worst_stress", money, values, note="; ".join(dict.fromkeys(left_out.values())))


def _session_pnl(pnl: ProfitAndLoss, symbols: Sequence[str], money: str) -> Column:
    gains = {group.name: group.session.total for group in pnl.by_symbol}
    values = tuple(gains.get(symbol) for symbol in symbols)
    return Column("session_pnl", money, values, note="no session, or no mark or rate")


def _limited(uses: Sequence[LimitUse], symbols: Sequence[str], money: str) -> list[Column]:
    """A column for each measure with limits on single symbols, the tightest of several."""
    by_measure: dict[tuple[str, str], dict[str, LimitUse]] = {}
    for use in uses:
        symbol = use.scope.removeprefix(SYMBOL_SCOPE)
        if not use.scope.startswith(SYMBOL_SCOPE) or symbol not in symbols or use.shadow or use.limit < 0.0:
            continue
        column = by_measure.setdefault((use.measure, use.unit), {})
        if symbol not in column or use.limit < column[symbol].limit:
            column[symbol] = use
    return [
        Column(
            measure=measure,
            unit=money if unit == "money" else unit,
            values=tuple(_value(column.get(symbol)) for symbol in symbols),
            limits=tuple(column[symbol].limit if symbol in column else None for symbol in symbols),
            note="not evaluable, or no limit on it",
        )
        for (measure, unit), column in by_measure.items()
    ]


def _value(use: LimitUse | None) -> float | None:
    return None if use is None or use.value is None or not math.isfinite(use.value) else use.value
