"""The part of a report on the portfolio as a whole: its returns, who moves with whom, what the market made of it.

Put together from portfolio.py, correlation.py and attribution.py. Two series of returns: what the account earned in its
closed sessions, and what today's positions would have earned over the model's days. A figure that can't be computed is
None and its part says why; never is one zero for want of data. By strategy, sector and symbol the session's P&L is in
engine/pnl.py. Slow to import, so only the worker may (scikit-learn, scipy).
"""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.account import Session
from engine.facts import Quote
from engine.pnl import PositionPnl, ProfitAndLoss
from engine.risk.attribution import FactorAttribution, attribute_factors
from engine.risk.case import NAMED_MAX, Case
from engine.risk.correlation import CorrelationMatrix, correlation_matrix
from engine.risk.history import PriceHistory
from engine.risk.holdings import Holdings
from engine.risk.inquiry import Unanswerable, Whose
from engine.risk.model import RiskModel
from engine.risk.portfolio import BenchmarkFit, PortfolioStatistics, benchmark_fit, portfolio_statistics

Floats = NDArray[np.float64]
Dates = tuple[datetime.date, ...]
T = TypeVar("T")

BENCHMARK = "SP500"
"""What market returns are: the index of the shipped class default (factors.py)."""

ASSETS_MAX = 20
"""Of the correlation matrix, by size: 190 pairs are as many as anybody reads."""

DAYS_MIN = 20
"""Of statistics and benchmark: below, even a volatility is off by more than 16 % (1/√(2·19)) at one standard error."""


@dataclass(frozen=True, slots=True)
class ReturnFigures:
    """Of one series of daily returns. `dates`: its rows, that the stretches in `statistics.worst` count."""

    dates: Dates
    statistics: PortfolioStatistics | None
    fit: BenchmarkFit | None
    benchmark: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Correlations:
    """`matrix`: None where fewer than two series move, or days are too few."""

    matrix: CorrelationMatrix | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FactorGains:
    """The session's P&L of all positions by factor. `moves`: of each factor, as a decimal."""

    attribution: FactorAttribution | None
    moves: Mapping[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PortfolioMeasures:
    """`account`: of its closed sessions; `book`: of the positions held now."""

    account: ReturnFigures
    book: ReturnFigures
    assets: Correlations
    strategies: Correlations
    factors: FactorGains


def portfolio_measures(
    case: Case, sessions: Sequence[Session], session: Session | None, pnl: ProfitAndLoss, index: Quote | None
) -> PortfolioMeasures:
    """`sessions`: closed, oldest first; `session`: the open one; `index`: the benchmark as last heard. Never fails for
    what is missing."""
    return PortfolioMeasures(
        account=session_figures(sessions, case.assumptions.prices),
        book=_book_figures(case),
        assets=_asset_correlations(case),
        strategies=_strategy_correlations(case),
        factors=_factor_gains(case, session, pnl, index),
    )


# --- returns ----------------------------------------------------------------------------------------------------------


def session_figures(sessions: Sequence[Session], prices: PriceHistory | None) -> ReturnFigures:
    """Of the unit NAV from the opening of each session to its close, so flows are no returns."""
    returns: dict[datetime.date, float] = {}
    for one in _in_order(sessions):
        if one.nav_open > 0.0 and math.isfinite(one.nav_close):
            returns[datetime.date.fromisoformat(one.date)] = one.nav_close / one.nav_open - 1.0
    missing = len(_in_order(sessions)) - len(returns)
    warnings = [f"{missing} sessions without a NAV are left out"] if missing else []
    moves = {} if prices is None else _index_moves(prices.window(datetime.date.max, len(prices.dates)))
    return _figures(tuple(returns), np.array(list(returns.values())), moves, warnings)


def _in_order(sessions: Sequence[Session]) -> list[Session]:
    """A replayed past may open a session anew: its last run counts, as in trends."""
    rising: list[Session] = []
    for one in sessions:
        while rising and rising[-1].date >= one.date:
            rising.pop()
        rising.append(one)
    return rising


def _book_figures(case: Case) -> ReturnFigures:
    equity, prices = case.stamp.equity_positive, case.assumptions.prices
    try:
        holdings, model = case.over_days(Whose(case.stamp.account))
        if not holdings.lots.any():
            raise Unanswerable("nothing is held")
        if equity is None:
            raise Unanswerable("there is no positive equity for returns to be a share of")
    except Unanswerable as missing:
        return ReturnFigures((), None, None, BENCHMARK, (str(missing),))
    moves = {} if prices is None else _index_moves(prices.window(model.session_date, model.n_days + 1))
    return _figures(model.dates, holdings.day_returns(model) @ holdings.held / equity, moves, [])


def _figures(dates: Dates, returns: Floats, moves: Mapping[datetime.date, float], warnings: list[str]) -> ReturnFigures:
    if len(dates) < DAYS_MIN:
        warnings.append(f"{len(dates)} days of returns, statistics need {DAYS_MIN}")
        return ReturnFigures(dates, None, None, BENCHMARK, tuple(warnings))
    statistics = _computed(lambda: portfolio_statistics(returns), warnings)
    if statistics is not None:
        warnings += statistics.warnings
    fit = _benchmark(dates, returns, moves, warnings)
    return ReturnFigures(dates, statistics, fit, BENCHMARK, tuple(dict.fromkeys(warnings)))


def _benchmark(
    dates: Dates, returns: Floats, moves: Mapping[datetime.date, float], warnings: list[str]
) -> BenchmarkFit | None:
    """On the days that the index has too."""
    common = [row for row, day in enumerate(dates) if day in moves]
    if len(common) < DAYS_MIN:
        warnings.append(f"no benchmark: {BENCHMARK} is known on {len(common)} of the days, {DAYS_MIN} are needed")
        return None
    if len(common) < len(dates):
        warnings.append(f"{BENCHMARK} is known on {len(common)} of {len(dates)} days: benchmark figures are of those")
    index = np.array([moves[dates[row]] for row in common])
    fit = _computed(lambda: benchmark_fit(returns[common], index), warnings)
    if fit is not None:
        warnings += fit.warnings
    return fit


def _index_moves(window: PriceHistory) -> Mapping[datetime.date, float]:
    """The benchmark's return by date; a day without its level, or after one, has none."""
    levels = window.series(BENCHMARK)
    if levels is None:
        return {}
    priced = np.isfinite(levels) & (levels > 0.0)
    return {
        window.dates[row]: float(levels[row] / levels[row - 1] - 1.0)
        for row in range(1, len(levels))
        if priced[row] and priced[row - 1]
    }


# --- correlation ------------------------------------------------------------------------------------------------------


def _asset_correlations(case: Case) -> Correlations:
    """Of the largest assets held, whatever their side: returns of the instrument, not of the position."""
    try:
        model = case.need_model()
    except Unanswerable as missing:
        return Correlations(None, (str(missing),))
    held = case.account.by_symbol()
    held = held.taken(held.lots != 0)
    warnings = _left_out(held.taken(~held.over_days).symbols)
    known = held.taken(held.over_days)
    largest = np.argsort(-np.abs(known.values), kind="stable")[:ASSETS_MAX]
    if len(known) > ASSETS_MAX:
        warnings.append(f"the {ASSETS_MAX} largest of {len(known)} assets by value")
    shown = known.taken(largest)
    return _correlations(shown.day_returns(model), shown.symbols, warnings)


def _strategy_correlations(case: Case) -> Correlations:
    """Of the P&L that each strategy's positions would have made."""
    try:
        model = case.need_model()
    except Unanswerable as missing:
        return Correlations(None, (str(missing),))
    books = {name: _held(case.account.of_strategy(name)) for name in case.strategies}
    books = {name: book for name, book in books.items() if len(book)}
    known = {name: book for name, book in books.items() if book.over_days.all()}
    warnings = _left_out([name or "(none)" for name in books if name not in known])
    pnl = [book.day_returns(model) @ book.held for book in known.values()]
    return _correlations(np.array(pnl).T.reshape(model.n_days, len(pnl)), tuple(known), warnings)


def _held(book: Holdings) -> Holdings:
    return book.taken(book.lots != 0)


def _correlations(series: Floats, names: Sequence[str], warnings: list[str]) -> Correlations:
    if len(names) < 2:
        return Correlations(None, (*warnings, f"a correlation needs two series with history, {len(names)} there"))
    matrix = _computed(lambda: correlation_matrix(series, names), warnings)
    return Correlations(matrix, (*warnings, *(() if matrix is None else matrix.warnings)))


def _left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" (and {len(names) - NAMED_MAX} more)" if len(names) > NAMED_MAX else ""
    return [f"left out, no mark, rate or history: {', '.join(names[:NAMED_MAX])}{more}"]


# --- attribution ------------------------------------------------------------------------------------------------------


def _factor_gains(case: Case, session: Session | None, pnl: ProfitAndLoss, index: Quote | None) -> FactorGains:
    try:
        model, move = case.need_model(), _index_move(case, session, index)
        positions = _gained(pnl)
    except Unanswerable as missing:
        return FactorGains(None, {}, (str(missing),))
    gains = [one.session.total or 0.0 for one in positions]
    values = [(one.value or 0.0) - gain for one, gain in zip(positions, gains, strict=True)]
    betas = np.array([_beta(case, model, one.symbol) for one in positions])
    known = np.isfinite(betas)
    unreached = tuple(dict.fromkeys(one.symbol for one, has in zip(positions, known, strict=True) if not has))
    warnings = [f"no beta to {BENCHMARK}, all P&L is specific: {', '.join(unreached[:NAMED_MAX])}"] if unreached else []
    if len(unreached) > NAMED_MAX:
        warnings[0] += f" (and {len(unreached) - NAMED_MAX} more)"
    sensitivities = np.where(known, betas, 0.0).reshape(-1, 1)
    found = _computed(lambda: attribute_factors(values, sensitivities, [move], gains, (BENCHMARK,)), warnings)
    return FactorGains(found, {BENCHMARK: move}, tuple(warnings))


def _gained(pnl: ProfitAndLoss) -> list[PositionPnl]:
    """Positions with something held or gained. Raises Unanswerable where the gain or value of one is not known."""
    positions = [one for one in pnl.positions if one.quantity or one.session.total != 0.0]
    unknown = [one.symbol for one in positions if one.session.total is None or (one.quantity and one.value is None)]
    if unknown:
        raise Unanswerable(f"P&L of the session is not known of {', '.join(dict.fromkeys(unknown[:NAMED_MAX]))}")
    if not positions:
        raise Unanswerable("nothing was held in the session")
    return positions


def _beta(case: Case, model: RiskModel, symbol: str) -> float:
    """To the benchmark; NaN where the model has none to it: an option's value is no multiple of the index either."""
    place, instrument = model.column.get(symbol, -1), case.instruments.get(symbol)
    default = None if instrument is None else case.assumptions.factor_map.class_default(instrument)
    if place < 0 or place in model.options.places or default is None or default.factor != BENCHMARK:
        return math.nan
    return float(model.betas[place])


def _index_move(case: Case, session: Session | None, index: Quote | None) -> float:
    """From the last close before the session to the latest mark. Raises Unanswerable where one is missing or older."""
    prices = case.assumptions.prices
    if session is None:
        raise Unanswerable("no session is open")
    if index is None or index.time_us < session.opened_us or not index.mark > 0.0:
        raise Unanswerable(f"no mark of {BENCHMARK} since the session was opened: publish one to attribute by factor")
    opened = datetime.date.fromisoformat(session.date)
    window = None if prices is None else prices.window(opened, 1)
    levels = None if window is None else window.series(BENCHMARK)
    if levels is None or not levels.size or not levels[-1] > 0.0:
        raise Unanswerable(f"no close of {BENCHMARK} just before {session.date} in the price history")
    return index.mark / float(levels[-1]) - 1.0


def _computed(compute: Callable[[], T], warnings: list[str]) -> T | None:
    """None, and why among the warnings, where the input can't be used."""
    try:
        return compute()
    except ValueError as error:
        warnings.append(str(error))
        return None
