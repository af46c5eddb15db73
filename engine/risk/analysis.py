"""The whole analysis of an account's book in one value, and the bench that keeps what depends on no quantity.

A `Bench` is of one model, one instrument set and one price history. The first book of some rows pays for what they
need (covariance, fitted marginals, simulated paths, the return of every row in every scenario and replayed day); after
a mark or a fill only the money has changed, and every figure is a product with it. Each is that of the module that
computes it alone (estimate, decomposition, stress, reverse_stress, replay, greeks), which tests hold. What can't be
computed is refused by name: `Analysis.refused`. Slow to import (scikit-learn), so only the worker may.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.instrument import AssetClass, InstrumentSet
from engine.risk.decomposition import Decomposition, Positions, historical_decomposition, parametric_decomposition
from engine.risk.estimate import KEPT_NUMBERS_MAX, Basis, Book, RevalueAfter, VarEstimate, asks, estimates
from engine.risk.factors import FactorMap
from engine.risk.greeks import LINES, GreekLine, Unvalued, book_greeks
from engine.risk.history import PriceHistory
from engine.risk.holdings import Holdings
from engine.risk.model import RiskModel
from engine.risk.monte_carlo import PATHS, Paths
from engine.risk.options import OptionBook, book_of
from engine.risk.replay import SHIPPED_WINDOWS, Window, WindowPaths, window_paths
from engine.risk.revaluation import path_revaluation
from engine.risk.reverse_stress import SCAN_POINTS, ReverseStress, reverse_stress, target_loss
from engine.risk.scenarios import SIX_SCENARIOS, Scenario
from engine.risk.stress import stress
from engine.risk.stress_book import LeftOut, Reach, StressBook, book_of_holdings, reach_of
from engine.risk.var import expected_shortfall, value_at_risk

Floats = NDArray[np.float64]
T = TypeVar("T")

SHAPES_MAX = 4
"""Sets of rows that a bench remembers: 500 symbols' paths take 20 MB."""

CHANGED_MAX = 0.125
"""Up to this share of changed rows a sum is mended rather than made anew."""

MENDED_MAX = 200
"""Mendings in a row before a sum is made anew: rounding must not add up."""

GRIDS_MAX = 20
"""Underlyings whose grid is in an analysis: a table for people; stress answers have all."""

REVERSE_POINTS = 101
"""Multipliers scanned for a linear book: its loss rises with the multiplier, so that a coarse bracket finds the one."""


@dataclass(frozen=True, slots=True, eq=False)
class BenchSettings:
    """What is computed, the same for every account."""

    scenarios: tuple[Scenario, ...] = SIX_SCENARIOS
    factor_map: FactorMap = field(default_factory=FactorMap)
    windows: tuple[Window, ...] = SHIPPED_WINDOWS
    confidences: tuple[float, ...] = (0.95, 0.99)
    n_paths: int = PATHS
    seed: int = 0
    lookback_days: int = 756


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What of an account is analysed, as of one moment."""

    holdings: Holdings
    time_us: int
    equity: float | None
    marks: Mapping[str, float]
    """By symbol, in the symbol's currency; underlyings of options too."""
    rates: Mapping[str, float]
    """Base currency per unit of each currency; the base's own is 1."""


@dataclass(frozen=True, slots=True)
class ScenarioFigure:
    """The loss in one scenario, base currency, positive is a loss; what `left_out` names is not in it."""

    name: str
    loss: float
    positions: int
    unaffected: int
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class GridFigure:
    """The worst point of an underlying's grid, all its rows together, base currency, positive is a loss."""

    underlying: str
    loss: float


@dataclass(frozen=True, slots=True)
class ReplayFigure:
    """The positions, held unchanged, through a window; base currency, negative P&L is a loss."""

    name: str
    days: int
    """0: no prices of the book there, and no figure."""
    worst_date: date | None
    worst_pnl: float | None
    """The lowest cumulative P&L, even where it is a gain."""
    final_pnl: float | None
    max_drawdown: float | None
    covered_share: float | None
    """Of the book's gross money, the part with prices there."""
    missing: tuple[str, ...]
    """Symbols held without prices there: none of them is counted."""


@dataclass(frozen=True, slots=True, eq=False)
class GreekTable:
    """The Greeks of the positions; columns are greeks.LINES: delta, dollar delta, gamma per 1 %, vega, theta, rho."""

    symbols: tuple[str, ...]
    by_symbol: Floats
    """(symbols, 6); NaN where a symbol is in `left_out`."""
    underlyings: tuple[str, ...]
    by_underlying: Floats
    """(underlyings, 6), without what is left out."""
    net: Floats
    """(6,)"""
    left_out: tuple[Unvalued, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A figure that could not be computed, and why."""

    figure: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """See the module. As of record `seq` and the marks of `time_us`; base currency, open orders at their worst case but
    in replays and Greeks, which are of the positions."""

    account: str
    seq: int
    time_us: int
    base_currency: str
    equity: float | None
    model: str
    labels: tuple[str, ...]
    """Of the rows, "strategy/symbol"."""
    estimates: tuple[VarEstimate, ...]
    """Historical, parametric and Monte Carlo, one day, at each confidence; empty where refused."""
    decomposition: Decomposition | None
    """Of VaR at the highest confidence, by row: parametric, or historical where options are held."""
    groups: Mapping[str, Mapping[str, float]]
    """By "strategy", "asset_class" and "sector": the components of the decomposition, added up."""
    scenarios: tuple[ScenarioFigure, ...]
    scenario_losses: Floats
    """(rows, scenarios) what each row loses in each; they sum to the losses."""
    grids: tuple[GridFigure, ...]
    """Of the GRIDS_MAX underlyings that can cost most, greatest loss first."""
    reverse: ReverseStress | None
    """Of the scenario that costs most."""
    replays: tuple[ReplayFigure, ...]
    greeks: GreekTable | None
    refused: tuple[Refused, ...]
    warnings: tuple[str, ...]

    @property
    def worst_scenario(self) -> ScenarioFigure | None:
        return max(self.scenarios, key=lambda one: one.loss, default=None)


class Bench:
    """See the module. Not for use from several threads at once."""

    def __init__(
        self,
        model: RiskModel,
        instruments: InstrumentSet,
        prices: PriceHistory,
        settings: BenchSettings | None = None,
    ) -> None:
        self.model, self._instruments, self._prices = model, instruments, prices
        self._settings = settings or BenchSettings()
        self._options = book_of(model, instruments.instruments)
        self._shapes: dict[object, _Shape] = {}

    def analyse(self, subject: Subject) -> Analysis:
        """The whole analysis. Raises ValueError where the holdings are of another model."""
        holdings, whole = subject.holdings, subject.holdings.by_symbol()
        shape = self._shape(holdings, whole)
        refused: list[Refused] = []
        warnings: list[str] = list(self.model.warnings)
        figures = _guarded(refused, "value at risk", lambda: shape.estimated(whole))
        decomposition = _guarded(refused, "decomposition", lambda: shape.decomposed(holdings))
        scenarios, losses = shape.stressed(holdings)
        reverse = _guarded(refused, "reverse stress", lambda: shape.reversed(holdings, subject.equity, scenarios))
        greeks = _guarded(refused, "greeks", lambda: shape.greeks(subject, whole))
        for part in (figures or (), () if decomposition is None else (decomposition,), (reverse,) if reverse else ()):
            warnings += [warning for one in part for warning in one.warnings]
        return Analysis(
            account=holdings.account,
            seq=holdings.seq,
            time_us=subject.time_us,
            base_currency=holdings.base_currency,
            equity=subject.equity,
            model=self.model.hash,
            labels=holdings.labels,
            estimates=figures or (),
            decomposition=decomposition,
            groups={} if decomposition is None else shape.grouped(holdings, decomposition.component),
            scenarios=scenarios,
            scenario_losses=losses,
            grids=shape.gridded(whole),
            reverse=reverse,
            replays=shape.replayed(holdings),
            greeks=greeks,
            refused=tuple(refused),
            warnings=tuple(dict.fromkeys((*warnings, *shape.warnings, *(gap.note for gap in holdings.gaps)))),
        )

    def _shape(self, holdings: Holdings, whole: Holdings) -> "_Shape":
        finite = np.isfinite(holdings.held)
        key = (holdings.strategies, holdings.symbols, finite.tobytes())
        shape = self._shapes.pop(key, None)
        if shape is None:
            shape = _Shape(self, holdings, whole)
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.pop(next(iter(self._shapes)))
        self._shapes[key] = shape
        return shape

    # --- what a shape asks for -------------------------------------------------------------------------------------

    @property
    def settings(self) -> BenchSettings:
        return self._settings

    @property
    def instruments(self) -> InstrumentSet:
        return self._instruments

    def stress_book(self, holdings: Holdings) -> StressBook:
        return book_of_holdings(holdings, self._instruments, self.model)

    def paths_of(self, book: StressBook, window: Window) -> WindowPaths | None:
        return window_paths(book, self._prices, window)

    @property
    def options(self) -> OptionBook:
        return self._options


class _Shape:
    """What one set of rows needs of a bench, whatever is held of them."""

    def __init__(self, bench: Bench, holdings: Holdings, whole: Holdings) -> None:
        self._bench = bench
        place_of = {symbol: place for place, symbol in enumerate(whole.symbols)}
        self._places = np.array([place_of[symbol] for symbol in holdings.symbols], dtype=np.intp)
        self._uncounted = _uncounted(whole)
        self._book = bench.stress_book(holdings)
        left_out = {(row.strategy, row.symbol) for row in self._book.left_out}
        rows = zip(holdings.strategies, holdings.symbols, strict=True)
        self._kept = np.array([at for at, row in enumerate(rows) if row not in left_out], dtype=np.intp)
        settings = bench.settings
        self._templates = stress(self._book, settings.scenarios, factor_map=settings.factor_map)
        self._returns = np.empty((len(self._book), len(self._templates)))
        for place, one in enumerate(self._templates):
            self._returns[:, place] = one.returns
        self._gridded = np.flatnonzero(np.isfinite(whole.held) & (whole.columns >= 0))
        self._grid = bench.model.grid[whole.columns[self._gridded]]
        self._underlyings, self._group = _grouped([whole.underlyings[place] for place in self._gridded.tolist()])
        found = [(window, bench.paths_of(self._book, window)) for window in settings.windows]
        self._windows = tuple(_ReplayedWindow(window, paths, self._book) for window, paths in found)
        warnings = [warning for one in self._templates for warning in one.warnings]
        warnings += [warning for _, paths in found if paths is not None for warning in paths.warnings]
        self.warnings = tuple(warnings)
        self._reaches: dict[str, Reach] = {}
        self._greeks = _Greeks(bench, whole)
        self._estimator = None if self._uncounted or not len(whole) else _Estimator(bench, whole)

    def estimated(self, whole: Holdings) -> tuple[VarEstimate, ...]:
        """Raises ValueError where a row can't be counted: a figure of the others would pass for the whole."""
        return self._counting().estimated(whole)

    def decomposed(self, holdings: Holdings) -> Decomposition:
        return self._counting().decomposed(holdings, self._places)

    def grouped(self, holdings: Holdings, components: Floats) -> dict[str, dict[str, float]]:
        labels = {
            "strategy": holdings.strategies,
            "asset_class": holdings.asset_classes,
            "sector": holdings.sectors,
        }
        found = {}
        for name, own in labels.items():
            groups, index = _grouped(own)
            sums = np.bincount(index, weights=components, minlength=len(groups)).tolist()
            found[name] = dict(zip(groups, sums, strict=True))
        return found

    def greeks(self, subject: Subject, whole: Holdings) -> GreekTable:
        return self._greeks.table(subject, whole)

    def _counting(self) -> "_Estimator":
        if self._uncounted:
            raise ValueError(self._uncounted)
        if self._estimator is None:
            raise ValueError("nothing is held or open")
        return self._estimator

    def stressed(self, holdings: Holdings) -> tuple[tuple[ScenarioFigure, ...], Floats]:
        """The figures, and (rows, scenarios) what each row of `holdings` loses; 0 where it is left out."""
        book = self._now(holdings)
        losses = np.zeros((len(holdings), len(self._templates)))
        losses[self._kept] = np.nan_to_num(book.losses(self._returns), nan=0.0)
        figures = tuple(
            ScenarioFigure(one.name, math.fsum(column), one.positions, one.unaffected, one.left_out)
            for one, column in zip(self._templates, losses.T.tolist(), strict=True)
        )
        return figures, losses

    def gridded(self, whole: Holdings) -> tuple[GridFigure, ...]:
        low, high = whole.low[self._gridded, None], whole.high[self._gridded, None]
        points = -np.minimum(low * self._grid, high * self._grid)
        summed = np.zeros((len(self._underlyings), points.shape[1]))
        np.add.at(summed, self._group, points)
        worst = summed.max(axis=1, initial=-math.inf)
        return tuple(
            GridFigure(self._underlyings[place], float(worst[place]))
            for place in np.argsort(-worst, kind="stable")[:GRIDS_MAX].tolist()
        )

    def reversed(
        self, holdings: Holdings, equity: float | None, figures: tuple[ScenarioFigure, ...]
    ) -> ReverseStress | None:
        """Raises ValueError where equity is not above 0. None without scenarios."""
        if not figures:
            return None
        if equity is None or not equity > 0.0:
            raise ValueError("equity is not above 0, so that no share of it can be lost")
        book, settings = self._now(holdings), self._bench.settings
        worst = max(zip(figures, settings.scenarios, strict=True), key=lambda pair: pair[0].loss)[1]
        points = SCAN_POINTS if book.options is not None else REVERSE_POINTS
        reach = self._reaches.get(worst.name)
        if reach is None:
            reach = self._reaches[worst.name] = reach_of(self._book, tuple(sorted(worst.shocks)), settings.factor_map)
        return reverse_stress(
            book, worst, target_loss(equity), factor_map=settings.factor_map, scan_points=points, reach=reach
        )

    def replayed(self, holdings: Holdings) -> tuple[ReplayFigure, ...]:
        held = holdings.held[self._kept]
        return tuple(window.figure(held) for window in self._windows)

    def _now(self, holdings: Holdings) -> StressBook:
        kept = self._kept
        return replace(self._book, held=holdings.held[kept], low=holdings.low[kept], high=holdings.high[kept])


def _uncounted(whole: Holdings) -> str:
    """Why figures over days can't count every row; "" where they can."""
    missing = [symbol for symbol, known in zip(whole.symbols, whole.over_days, strict=True) if not known]
    notes = {gap.symbol: gap.note for gap in reversed(whole.gaps)}
    return "; ".join(notes.get(symbol, f"{symbol} can't be valued or has no history") for symbol in missing)


def _grouped(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    places: dict[str, int] = {}
    index = [places.setdefault(name, len(places)) for name in names]
    return tuple(places), np.array(index, dtype=np.intp)


class _Estimator:
    """VaR, ES and what contributes to them, of books of these symbols."""

    def __init__(self, bench: Bench, whole: Holdings) -> None:
        """`whole`: every row with a history, by symbol. Options get columns of their underlyings beside them."""
        model, settings = bench.model, bench.settings
        self._n, self._settings = len(whole), settings
        is_option = np.array([one == AssetClass.OPTION for one in whole.asset_classes], dtype=np.bool_)
        added = sorted({*np.array(whole.underlyings)[is_option].tolist()} - {*whole.symbols})
        beside = [model.column[symbol] for symbol in added if symbol in model.column]
        returns = np.concatenate((whole.day_returns(model), model.returns[: model.n_days, beside]), axis=1)
        symbols = (*whole.symbols, *(model.symbols[place] for place in beside))
        options = np.concatenate((is_option, np.zeros(len(beside), dtype=np.bool_)))
        revalue = None
        if is_option.any():
            linear = [symbol for symbol, option in zip(symbols, options, strict=True) if not option]
            held = [symbol for symbol, option in zip(symbols, options, strict=True) if option]
            known = bench.instruments.instruments
            revalue = _deferred(lambda: path_revaluation(held, linear, bench.options, known, whole.base_currency))
        self._is_option = is_option
        self._basis = Basis(
            returns,
            lookback_days=settings.lookback_days,
            symbols=symbols,
            options=options if is_option.any() else None,
            revalue=revalue,
            seed=settings.seed,
            n_paths=settings.n_paths,
        )
        self._simulated: _Mended | None = None
        self._last: tuple[bytes, tuple[VarEstimate, ...]] | None = None

    def estimated(self, whole: Holdings) -> tuple[VarEstimate, ...]:
        """As `estimates` would have it. The simulated losses are kept, and mended where few rows have changed."""
        basis, settings = self._basis, self._settings
        book = self._book(whole)
        stake = book.at_stake.tobytes()
        if self._last is None or self._last[0] != stake or self._simulated is None:
            found = estimates(basis, book, asks(confidences=settings.confidences))
            self._last = stake, found
            self._simulated = self._keeping(found)
            return found
        fresh = iter(estimates(basis, book, asks(("historical", "parametric"), settings.confidences)))
        losses = -self._simulated.pnl(book.low, book.high)
        found = tuple(_simulated(one, losses) if one.method == "monte_carlo" else next(fresh) for one in self._last[1])
        self._last = stake, found
        return found

    def _keeping(self, found: tuple[VarEstimate, ...]) -> "_Mended | None":
        """The paths, where they are few enough to be kept and read by a product alone."""
        simulated = [one for one in found if one.method == "monte_carlo"]
        if self._is_option.any() or not simulated or not all(one.n_paths for one in simulated):
            return None
        if self._basis.n_columns * (self._settings.n_paths // 2) > KEPT_NUMBERS_MAX:
            return None
        paths = self._basis.over(1).paths
        return _Mended(lambda rows, low, high: Paths(paths.returns[rows], paths.mean[rows]).pnl(low, high))

    def decomposed(self, holdings: Holdings, places: NDArray[np.intp]) -> Decomposition:
        positions = Positions.of(holdings.labels, holdings.held, holdings.low, holdings.high, places)
        confidence = max(self._settings.confidences)
        if self._is_option.any():
            return historical_decomposition(positions, self._basis.daily, confidence)
        return parametric_decomposition(positions, self._basis.over(1).factors, confidence)

    def _book(self, whole: Holdings) -> Book:
        beside = np.zeros(self._basis.n_columns - self._n)
        return Book(*(np.concatenate((money, beside)) for money in (whole.held, whole.low, whole.high)))


def _deferred(make: Callable[[], RevalueAfter]) -> RevalueAfter:
    """Made when it is first asked for: what it lacks concerns the figures that ask."""
    return lambda paths, horizon_days: make()(paths, horizon_days)


def _simulated(last: VarEstimate, losses: Floats) -> VarEstimate:
    """The same figure of other losses."""
    var = value_at_risk(losses, last.confidence)
    return replace(last, var=var, es=expected_shortfall(losses, last.confidence))


class _Greeks:
    """The Greeks of any positions in these symbols: an option is valued anew when its underlying's mark moves."""

    def __init__(self, bench: Bench, whole: Holdings) -> None:
        known = bench.instruments.instruments
        self._bench, self._whole = bench, whole
        self._instruments = [known.get(symbol) for symbol in whole.symbols]
        options = [one is not None and one.asset_class is AssetClass.OPTION for one in self._instruments]
        is_option, is_known = (
            np.array(options, np.bool_),
            np.array([one is not None for one in self._instruments], np.bool_),
        )
        self._options, self._linear = np.flatnonzero(is_option), is_known & ~is_option
        self._underlyings, self._group = _grouped(whole.underlyings)
        self._per_unit: dict[str, tuple[tuple[float | None, float | None], Floats | str]] = {}

    def table(self, subject: Subject, whole: Holdings) -> GreekTable:
        units = np.array(
            [
                math.nan if one is None else one.unit * lots
                for one, lots in zip(self._instruments, whole.lots.tolist(), strict=True)
            ]
        )
        table = np.full((len(whole), len(LINES)), math.nan)
        table[self._linear] = 0.0
        table[self._linear, 0] = units[self._linear]
        table[self._linear, 1] = whole.values[self._linear]
        reasons: dict[int, str] = {}
        for row in self._options.tolist():
            line = self._option_line(whole.symbols[row], subject)
            if isinstance(line, str):
                reasons[row] = line
            else:
                table[row] = whole.lots[row] * line
        held = whole.lots != 0
        table[~held] = 0.0
        out = np.flatnonzero(~np.isfinite(table).all(axis=1))
        table[out] = math.nan
        left_out = tuple(
            Unvalued(whole.symbols[row], reasons.get(row, "no mark, rate or instrument")) for row in out.tolist()
        )
        counted = np.nan_to_num(table, nan=0.0)
        sums = np.zeros((len(self._underlyings), len(LINES)))
        np.add.at(sums, self._group, counted)
        return GreekTable(whole.symbols, table, self._underlyings, sums, counted.sum(axis=0), left_out)

    def _option_line(self, symbol: str, subject: Subject) -> Floats | str:
        """(6,) of one lot, or why there is none."""
        instrument = self._bench.instruments.instruments[symbol]
        key = subject.marks.get(instrument.underlying), subject.rates.get(instrument.currency)
        kept = self._per_unit.get(symbol)
        if kept is None or kept[0] != key:
            found = book_greeks(
                {symbol: instrument.lot_size},
                self._bench.instruments.instruments,
                self._bench.options,
                subject.marks,
                subject.rates,
            )
            line: Floats | str = found.left_out[0].reason if found.left_out else _numbers(found.by_position[0])
            kept = self._per_unit[symbol] = key, line
        return kept[1]


def _numbers(line: GreekLine) -> Floats:
    return np.array([getattr(line, name) for name in LINES])


class _Mended:
    """A P&L vector that is a sum over rows, kept from one book to the next."""

    def __init__(self, compute: Callable[[NDArray[np.intp] | slice, Floats, Floats], Floats]) -> None:
        """`compute`: the P&L of these rows at the worse of their ends `low` and `high`, by path."""
        self._compute = compute
        self._kept: tuple[Floats, Floats, Floats] | None = None
        self._mendings = 0

    def pnl(self, low: Floats, high: Floats) -> Floats:
        """(paths,) of all rows, as `compute` would have it but for rounding. Not to be changed."""
        if self._kept is not None and self._mendings < MENDED_MAX:
            old_low, old_high, kept = self._kept
            (rows,) = np.nonzero((low != old_low) | (high != old_high))
            if rows.size <= CHANGED_MAX * low.size:
                if rows.size:
                    gone = self._compute(rows, old_low[rows], old_high[rows])
                    kept = kept + (self._compute(rows, low[rows], high[rows]) - gone)
                    self._kept, self._mendings = (low, high, kept), self._mendings + 1
                return kept
        pnl = self._compute(slice(None), low, high)
        self._kept, self._mendings = (low, high, pnl), 0
        return pnl


class _ReplayedWindow:
    """One window as it is for any positions in a book's rows."""

    def __init__(self, window: Window, paths: WindowPaths | None, book: StressBook) -> None:
        self._name, self._paths = window.name, paths
        self._left_out = tuple(row.symbol for row in book.left_out)
        self._symbols = tuple(one.symbol for one in book.instruments)
        if paths is not None:
            self._counted = np.ones(len(book), dtype=np.bool_)
            self._counted[list(paths.faults)] = False
            self._returns = np.where(self._counted[:, None], paths.returns, 0.0)

    def figure(self, held: Floats) -> ReplayFigure:
        """Of (rows,) money held."""
        paths, gross = self._paths, float(np.abs(held).sum())
        if paths is None:
            return self._nothing(gross, (*self._left_out, *self._held(held != 0.0)))
        missing = (*self._left_out, *self._held((held != 0.0) & ~self._counted))
        covered = float(np.abs(held[self._counted]).sum())
        if missing and covered == 0.0:
            return self._nothing(gross, missing)
        path = held @ self._returns
        worst = 1 + int(path[1:].argmin())
        return ReplayFigure(
            name=self._name,
            days=len(path) - 1,
            worst_date=paths.dates[worst],
            worst_pnl=float(path[worst]),
            final_pnl=float(path[-1]),
            max_drawdown=float((np.maximum.accumulate(path) - path).max()),
            covered_share=covered / gross if gross > 0.0 else None,
            missing=missing,
        )

    def _nothing(self, gross: float, missing: tuple[str, ...]) -> ReplayFigure:
        return ReplayFigure(self._name, 0, None, None, None, None, 0.0 if gross > 0.0 else None, missing)

    def _held(self, rows: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._symbols[row] for row in np.flatnonzero(rows).tolist()))


def _guarded(refused: list[Refused], figure: str, compute: Callable[[], T]) -> T | None:
    """A figure that can't be computed is refused by name; the others are computed all the same."""
    try:
        return compute()
    except ValueError as error:
        refused.append(Refused(figure, str(error)))
        return None
