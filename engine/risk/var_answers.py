"""Answers on value at risk: estimates by every method asked for, what contributes, the ultra-short figures.

Put together from estimate.py, decomposition.py and horizon.py. All figures of an answer are of one basis: the same
days, the same columns, the same shrunk covariance, so that components sum to the parametric estimate beside them. Slow
to import, so only the worker may (scikit-learn, arch).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, Instrument
from engine.risk.case import NAMED_MAX, Case
from engine.risk.decomposition import (
    Decomposition,
    Measure,
    Positions,
    historical_decomposition,
    parametric_decomposition,
)
from engine.risk.estimate import Ask, Basis, Book, VarEstimate, asks, estimates
from engine.risk.gap import GapLoss, gap_loss
from engine.risk.holdings import Floats, Holdings, Missing
from engine.risk.horizon import (
    UVAR_CONFIDENCE,
    UVAR_HORIZONS_DAYS,
    UltraShortVar,
    overlapping_returns,
    ultra_short_var,
)
from engine.risk.inquiry import Stamp, Unanswerable, VarInquiry, Whose
from engine.risk.model import RiskModel
from engine.risk.options import OptionBook
from engine.risk.reductions import Lots, Reduction, planned_reductions
from engine.risk.revaluation import path_revaluation
from engine.risk.var import value_at_risk

CALENDAR_DAYS, TRADING_DAYS = 365, 252
"""A year, in the days that options age by and in those that horizons are counted in."""

Place = tuple[str, str]
"""A strategy and a symbol."""

Ranking = Callable[[Iterable[Place]], list[Place]]
"""Places in the order in which they are closed."""

NO_ULTRA_SHORT = "no ultra-short figures"

NO_GAPS = "gap loss: no calendar of events is followed, so that none is known to reach the book"


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """An estimate beside the method that was asked for: too little history answers by another one."""

    asked: Ask
    estimate: VarEstimate


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What the rows of `holdings` contribute. `main` is parametric, but historical where options are held: their P&L is
    no multiple of a return that has a covariance."""

    holdings: Holdings
    main: Decomposition
    main_shortfall: Decomposition
    historical: Decomposition | None
    """None where history is too short for the confidence; a warning says so."""
    historical_shortfall: Decomposition | None


@dataclass(frozen=True, slots=True, eq=False)
class VarAnswer:
    """Estimates in the order of methods, ways to the horizon and confidences."""

    stamp: Stamp
    answered: tuple[Answered, ...]
    contributions: Contributions | None
    unified: float | None
    """max(historical VaR at 99 % over the horizon, gap loss); None where it can't be computed."""
    ultra_short: UltraShortVar | None
    session_pnl: float | None
    gap: GapLoss | None = None
    """The worst gap through an event to come; None where none reaches the book, or a warning says why."""
    reductions: "Reductions | None" = None
    """Where the ultra-short figures are over a limit; None: they are not."""


@dataclass(frozen=True, slots=True, eq=False)
class Reductions:
    """Which rows of `holdings` would be closed first, and the excess in money that this leaves. Advice alone."""

    holdings: Holdings
    planned: tuple[Reduction, ...]
    quantities: tuple[float, ...]
    """Of each, in units of the instrument, above 0."""
    excess_left: float


def var_answer(case: Case, inquiry: VarInquiry, ranking: Ranking | None = None) -> VarAnswer:
    """`ranking`: by which positions are reduced over an ultra-short limit; None: the largest first.

    Raises InquiryError on an unknown strategy, Unanswerable where a mark, a rate, history or the model is missing or
    no method can answer."""
    holdings, model = case.over_days(inquiry.whose)
    if not inquiry.whose.open_orders:
        holdings = replace(holdings, low=holdings.held, high=holdings.held)
    every = _columns(case, model)
    basis, columns = _basis(case, every, model, inquiry), every.of(holdings)
    book = _book(holdings, columns, basis.n_columns)
    asked = _asked(inquiry)
    try:
        found = estimates(basis, book, asked)
    except ValueError as error:
        raise Unanswerable(str(error)) from error
    warnings: list[str] = list(model.warnings)
    contributions = _contributions(holdings, columns, basis, inquiry, warnings) if inquiry.components else None
    gap = _gap(case, every, basis, book, warnings)
    unified = _unified(basis, book, inquiry, gap, warnings)
    ultra_short, reductions = None, None
    if inquiry.ultra_short:
        ultra_short = _ultra_short(case, basis, book, inquiry, gap, warnings)
    if ultra_short is not None and ultra_short.status == "BREACHED":
        reductions = _reductions(case, every, basis, holdings, inquiry, ranking or _largest_first(holdings))
    if ultra_short is not None:
        warnings += limit_warnings(ultra_short, reductions, case.stamp.base_currency)
    warnings += case.notes(holdings, Missing.CASH)
    return VarAnswer(
        stamp=replace(case.stamp, warnings=tuple(dict.fromkeys((*case.stamp.warnings, *warnings)))),
        answered=tuple(Answered(ask, one) for ask, one in zip(asked, found, strict=True)),
        contributions=contributions,
        unified=unified,
        ultra_short=ultra_short,
        session_pnl=case.session_pnl,
        gap=gap,
        reductions=reductions,
    )


def ultra_short_warnings(case: Case, ranking: Ranking | None = None) -> tuple[str, ...]:
    """What a report says of the account's ultra-short limits: nothing where there are none, or all are kept."""
    if not case.assumptions.ultra_short_limits:
        return ()
    inquiry = VarInquiry(Whose(case.stamp.account), ("historical",), (UVAR_CONFIDENCE,), ultra_short=True)
    try:
        answer = var_answer(case, inquiry, ranking)
    except Unanswerable as missing:
        return (f"ultra-short limits can't be judged: {missing}",)
    if answer.ultra_short is None:
        return tuple(warning for warning in answer.stamp.warnings if warning.startswith(NO_ULTRA_SHORT))
    return limit_warnings(answer.ultra_short, answer.reductions, case.stamp.base_currency)


def limit_warnings(found: UltraShortVar, reductions: Reductions | None, currency: str) -> tuple[str, ...]:
    """One warning where a limit is near or passed, with each horizon's figure, and what would be closed first."""
    if found.status == "OK":
        return ()
    losses = {1: -found.var_1d, 3: -found.var_3d, 5: -found.var_5d}
    told = ", ".join(
        f"{days} d {losses[days]:,.0f} of {limit:,.0f} {currency}" for days, limit in sorted(found.limits.items())
    )
    if found.status == "WARNING" or reductions is None:
        return (f"ultra-short VaR is near its limit: {told}",)
    held = reductions.holdings
    first = [
        f"{'buy' if one.lots > 0 else 'sell'} {quantity:,.12g} {held.symbols[one.row]}"
        + (f" ({held.strategies[one.row]})" if held.strategies[one.row] else "")
        for one, quantity in list(zip(reductions.planned, reductions.quantities, strict=True))[:NAMED_MAX]
    ]
    more = f" and {len(reductions.planned) - NAMED_MAX} more" if len(reductions.planned) > NAMED_MAX else ""
    plan = f"to be reduced first: {', '.join(first)}{more}" if first else "closing positions does not free it"
    left = f"; {reductions.excess_left:,.0f} {currency} over the limit remain" if reductions.excess_left > 0.0 else ""
    return (f"ultra-short VaR is over its limit: {told}; {plan}{left}",)


def _asked(inquiry: VarInquiry) -> tuple[Ask, ...]:
    like = Ask(
        quantile=inquiry.quantile,
        mean=inquiry.mean,
        family=inquiry.family,
        degrees_of_freedom=inquiry.degrees_of_freedom,
        filter=inquiry.filter,
    )
    return asks(inquiry.methods, inquiry.confidences, (inquiry.horizon_days,), inquiry.horizon_methods, like)


@dataclass(frozen=True, slots=True)
class _Columns:
    """What a basis is of: the account's symbols, then underlyings of its options that it does not hold, which are
    simulated with them."""

    symbols: tuple[str, ...]
    is_option: NDArray[np.bool_]

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(symbol for symbol, option in zip(self.symbols, self.is_option, strict=True) if option)

    @property
    def linear(self) -> tuple[str, ...]:
        return tuple(symbol for symbol, option in zip(self.symbols, self.is_option, strict=True) if not option)

    def of(self, holdings: Holdings) -> NDArray[np.intp]:
        """(n,) the column of each row."""
        places = {symbol: place for place, symbol in enumerate(self.symbols)}
        return np.array([places[symbol] for symbol in holdings.symbols], dtype=np.intp)


def _columns(case: Case, model: RiskModel) -> _Columns:
    """Of the whole account, so that a strategy's figures have the account's covariance; of an account with nothing at
    stake some column of the model, in which it holds nothing."""
    whole = case.account.by_symbol()
    options = [one == AssetClass.OPTION for one in whole.asset_classes]
    bare = [one for one, option in zip(whole.underlyings, options, strict=True) if option]
    bare = [one for one in dict.fromkeys(bare) if one not in whole.symbols and one in model.column]
    symbols = (*whole.symbols, *bare) or model.symbols[:1]
    if not symbols:
        raise Unanswerable("the risk model knows no instruments: RegisterInstruments")
    return _Columns(symbols, np.array([*options, *(False for _ in symbols[len(options) :])], dtype=np.bool_))


def _basis(case: Case, columns: _Columns, model: RiskModel, inquiry: VarInquiry) -> Basis:
    places = [model.column.get(symbol, -1) for symbol in columns.symbols]
    returns = np.array(
        [model.returns[: model.n_days, at] if at >= 0 else np.full(model.n_days, np.nan) for at in places]
    ).T
    valued, known = case.options() if columns.options else None, case.instruments.instruments
    revalue, aged = None, {}
    try:
        if valued is not None:
            base = case.stamp.base_currency
            revalue = path_revaluation(columns.options, columns.linear, valued, known, base)
            horizons = {inquiry.horizon_days, *(UVAR_HORIZONS_DAYS if inquiry.ultra_short else ())} - {1}
            aged = {days: _aged(columns, returns, valued, known, days) for days in horizons}
        return Basis(
            returns,
            lookback_days=inquiry.lookback_days or model.lookback_days,
            symbols=columns.symbols,
            options=columns.is_option,
            aged=aged,
            revalue=revalue,
            seed=case.stamp.seq if inquiry.seed is None else inquiry.seed,
            n_paths=inquiry.n_paths,
            copula=inquiry.copula,
            copula_degrees_of_freedom=inquiry.degrees_of_freedom if inquiry.copula == "student_t" else None,
        )
    except ValueError as error:
        raise Unanswerable(str(error)) from error


def _aged(
    columns: _Columns, returns: Floats, book: OptionBook, known: Mapping[str, Instrument], horizon_days: int
) -> Floats:
    """(T - h + 1, m) P&L per unit of reference over windows of h days, the options h trading days older at the end of
    each; the volatility stays with the strike. Theirs is the base currency (path_revaluation refuses others)."""
    place_of = {symbol: place for place, symbol in enumerate(book.symbols)}
    own = book.taken(np.array([place_of[symbol] for symbol in columns.options], dtype=np.intp))
    underlyings = [columns.symbols.index(known[symbol].underlying) for symbol in columns.options]
    moves = np.maximum(overlapping_returns(returns[:, underlyings], horizon_days).T, -1.0)
    pnl = own.aged(horizon_days * CALENDAR_DAYS / TRADING_DAYS).values(moves) - own.prices()[:, None]
    per_reference: Floats = (pnl / own.spot[:, None]).T
    return per_reference


def _book(holdings: Holdings, columns: NDArray[np.intp], n_columns: int) -> Book:
    def by_column(money: Floats) -> Floats:
        return np.bincount(columns, weights=money, minlength=n_columns).astype(np.float64)

    return Book(by_column(holdings.held), by_column(holdings.low), by_column(holdings.high))


def _contributions(
    holdings: Holdings, columns: NDArray[np.intp], basis: Basis, inquiry: VarInquiry, warnings: list[str]
) -> Contributions | None:
    if not len(holdings):
        warnings.append("contributions: nothing is held or open")
        return None
    confidence = max(inquiry.confidences)
    positions = Positions.of(holdings.labels, holdings.held, holdings.low, holdings.high, columns)
    groupings = {
        "strategy": holdings.strategies,
        "asset_class": holdings.asset_classes,
        "sector": holdings.sectors,
    }

    def historical(measure: Measure) -> Decomposition | None:
        try:
            return historical_decomposition(
                positions, basis.daily, confidence, measure, inquiry.quantile, groupings=groupings
            )
        except ValueError as error:
            warnings.append(f"no historical contributions: {error}")
            return None

    def parametric(measure: Measure) -> Decomposition | None:
        try:
            return parametric_decomposition(positions, basis.over(1).factors, confidence, measure, groupings)
        except ValueError as error:
            warnings.append(f"no parametric contributions: {error}")
            return None

    of_var, of_es = historical("var"), historical("es")
    has_options = bool(basis.is_option[columns].any())
    main, main_es = (of_var, of_es) if has_options else (parametric("var"), parametric("es"))
    if main is None or main_es is None:
        return None
    if has_options:
        warnings.append("contributions are historical: options are held, whose P&L has no covariance with returns")
    warnings += [*main.warnings, *(of_var.warnings if of_var is not None else ())]
    return Contributions(holdings, main, main_es, of_var, of_es)


def _gap(case: Case, columns: _Columns, basis: Basis, book: Book, warnings: list[str]) -> GapLoss | None:
    revalue, gaps = basis.revalue, case.assumptions.gaps
    if not gaps:
        return None
    one_day = None if revalue is None else lambda rows: revalue(rows, 1)
    try:
        return gap_loss(gaps, columns.symbols, book.low, book.high, columns.is_option, one_day)
    except ValueError as error:
        warnings.append(f"no gap loss: {error}")
        return None


def _unified(basis: Basis, book: Book, inquiry: VarInquiry, gap: GapLoss | None, warnings: list[str]) -> float | None:
    try:
        losses = basis.over(inquiry.horizon_days).losses(book, "sample")
        historical = value_at_risk(losses, UVAR_CONFIDENCE, inquiry.quantile) + 0.0  # 0 of an empty book, and not -0
        return historical if gap is None else max(historical, gap.loss)
    except ValueError as error:
        warnings.append(f"no unified value at risk: {error}")
        return None


def _ultra_short(
    case: Case, basis: Basis, book: Book, inquiry: VarInquiry, gap: GapLoss | None, warnings: list[str]
) -> UltraShortVar | None:
    try:
        limits = _limits(case, inquiry, warnings)
        found = _ultra_short_of(case, basis, book, inquiry, gap, limits)
    except ValueError as error:
        warnings.append(f"{NO_ULTRA_SHORT}: {error}")
        return None
    warnings += [*((NO_GAPS,) if case.assumptions.gaps is None else ()), *found.warnings]
    return found


def _ultra_short_of(
    case: Case, basis: Basis, book: Book, inquiry: VarInquiry, gap: GapLoss | None, limits: Mapping[int, float]
) -> UltraShortVar:
    pnl = {days: -basis.over(days).losses(book, "sample") for days in UVAR_HORIZONS_DAYS}
    loss = None if gap is None else gap.loss
    return ultra_short_var(pnl, case.session_pnl or 0.0, loss, limits, quantile=inquiry.quantile)


def _limits(case: Case, inquiry: VarInquiry, warnings: list[str]) -> dict[int, float]:
    """In money. Raises ValueError where equity is not above 0: no status would be true."""
    shares, equity = case.assumptions.ultra_short_limits, case.stamp.equity
    if not shares:
        return {}
    if inquiry.whose.strategy is not None:
        warnings.append("ultra-short limits are the account's: the figures of a strategy are not judged by them")
        return {}
    if equity is None or equity <= 0.0:
        raise ValueError(f"their limits are shares of equity: expected one above 0, got {equity}")
    return {days: share * equity for days, share in shares.items()}


def _reductions(
    case: Case, columns: _Columns, basis: Basis, holdings: Holdings, inquiry: VarInquiry, ranking: Ranking
) -> Reductions:
    """With each position closed its share of the row's ends goes too; what its open orders may add stays."""
    limits, unheard = _limits(case, inquiry, []), list[str]()
    lots, places = holdings.lots, columns.of(holdings)
    held_lots = np.where(lots == 0, 1, lots)

    def excess_of(kept: Lots) -> float:
        closed = holdings.held * (lots - kept) / held_lots
        left = replace(holdings, held=holdings.held - closed, low=holdings.low - closed, high=holdings.high - closed)
        book = _book(left, places, basis.n_columns)
        gap = _gap(case, columns, basis, book, unheard)
        return _ultra_short_of(case, basis, book, inquiry, gap, limits).excess

    row_of = {place: row for row, place in enumerate(zip(holdings.strategies, holdings.symbols, strict=True))}
    order = (row_of[place] for place in ranking([place for place, row in row_of.items() if lots[row]]))
    planned, excess_left = planned_reductions(lots, order, excess_of)
    known = case.instruments.instruments
    quantities = tuple(abs(one.lots) * known[holdings.symbols[one.row]].lot_size for one in planned)
    return Reductions(holdings, planned, quantities, excess_left)


def _largest_first(holdings: Holdings) -> Ranking:
    sizes = {
        place: abs(held)
        for place, held in zip(
            zip(holdings.strategies, holdings.symbols, strict=True), holdings.held.tolist(), strict=True
        )
    }
    return lambda places: sorted(places, key=lambda place: (-sizes[place], place))
