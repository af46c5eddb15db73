"""VaR and ES of a book by every method, each as one value that says how it was computed.

`Basis` holds what depends on the returns alone (window, covariance, fitted paths), computed when first needed and kept
for all books of a model; `estimates` dispatches. A figure bears the name of the method that computed it: where a
method cannot be had, another answers under its own name and a warning says so. The mathematics stand in var.py,
parametric.py, monte_carlo.py, filtered.py and horizon.py. Only the worker may import this (scikit-learn, arch).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.risk.filtered import EWMA_DAYS_MIN, EWMA_WARM_UP_DAYS, GARCH_DAYS_MIN, Filter, filtered
from engine.risk.horizon import (
    HorizonMethod,
    check_horizon,
    overlapping_returns,
    square_root_of_time,
    thin_tail_warning,
)
from engine.risk.monte_carlo import (
    PATHS,
    Copula,
    PathModel,
    Paths,
    Revaluation,
    check_ends,
    fit_path_model,
    simulate,
    simulated_pnl,
    worst_pnl,
)
from engine.risk.parametric import (
    OBSERVATIONS_MIN,
    Family,
    Mean,
    Tail,
    check_observations,
    tail_loss,
    tail_of,
    worst_case_mean,
)
from engine.risk.shrinkage import ShrunkFactors, moving_columns, shrunk_factors
from engine.risk.var import TAIL_SLACK, Quantile, check_confidence, expected_shortfall, value_at_risk

LOOKBACK_DAYS = 756

ZERO_MEAN_DAYS_MAX = 5
"""Up to here a mean is noise beside the deviation; beyond, the sample's is taken unless its caller says otherwise."""

KEPT_NUMBERS_MAX = 5_000_000
"""Of simulated returns kept in memory for further books (40 MB); more are drawn anew for each."""

NAMED_MAX = 5

Method = Literal["historical", "parametric", "monte_carlo", "filtered"]

Model = Literal[
    "empirical", "gaussian", "student_t", "cornish_fisher", "gaussian_copula", "student_t_copula", "ewma", "garch"
]
"""What the method made of the observations."""

METHODS: tuple[Method, ...] = ("historical", "parametric", "monte_carlo")

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RevalueAfter = Callable[[Floats, int], Floats]
"""Path returns (paths, n_linear) of the linear columns over so many days, to the option columns' P&L (paths, m)."""


@dataclass(frozen=True, slots=True)
class VarEstimate:
    """A value at risk and its expected shortfall: money in base currency, positive = loss."""

    method: Method
    """Which computed it, and not which was asked for."""
    model: Model
    confidence: float
    horizon_days: int
    horizon_method: HorizonMethod
    quantile: Quantile | Literal["closed_form"]
    mean: Mean
    """`sample` where observations are taken as they are."""
    var: float
    es: float
    n_observations: int
    """Days, or windows of the horizon, behind it; for filtered: residuals."""
    n_paths: int = 0
    """Simulated, mirror images counted; 0 where none are."""
    seed: int | None = None
    """Of the simulation; None where there is none."""
    degrees_of_freedom: float | None = None
    """Of the Student-t, or of the t copula."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """What is held and could be: money by column of the basis, in base currency, positive = long.

    `values` (n,) are the positions, `low` and `high` (n,) the two ends that open orders can lead to; both None: no
    order is open. Raises ValueError on shapes, NaN, low above high, or positions outside their ends.
    """

    values: Floats
    low: Floats
    high: Floats

    @staticmethod
    def of(values: Floats, low: Floats | None = None, high: Floats | None = None) -> "Book":
        return Book(values, values if low is None else low, values if high is None else high)

    def __post_init__(self) -> None:
        check_ends(self.low, self.high, self.values.size)
        slack = 1e-9 * (np.abs(self.low) + np.abs(self.high))
        if not ((self.values >= self.low - slack) & (self.values <= self.high + slack)).all():
            raise ValueError("values: expected each between its low and its high end, and finite")

    @property
    def at_stake(self) -> Mask:
        """(n,) what is held or could be."""
        return np.asarray((self.low != 0.0) | (self.high != 0.0))

    @property
    def orders(self) -> Floats:
        """(n,) gross value of the open orders, buys and sells added up."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Ask:
    """One figure. `mean` None: of closed forms and simulations zero up to 5 days, the sample's beyond; of the methods
    that take observations as they are, the sample's ("zero" takes it out of the linear columns)."""

    method: Method = "historical"
    confidence: float = 0.99
    horizon_days: int = 1
    horizon_method: HorizonMethod = "overlapping"
    quantile: Quantile = "order_statistic"
    mean: Mean | None = None
    family: Family = "gaussian"
    """Of the parametric method."""
    degrees_of_freedom: float | None = None
    """Of family student_t; None: fitted."""
    filter: Filter = "ewma"
    """Of the filtered method."""

    @property
    def assumed_mean(self) -> Mean:
        if self.mean is not None:
            return self.mean
        as_they_are = self.method in ("historical", "filtered") or self.horizon_days > ZERO_MEAN_DAYS_MAX
        return "sample" if as_they_are else "zero"


@dataclass(frozen=True, eq=False)
class Basis:
    """Daily returns (T, n) in base currency, oldest first, and what follows from them for any book.

    A column may hold NaN where no book has anything at stake in it. Options are columns too (`options` (n,) True): P&L
    by full revaluation, per unit of the money in their row of a book. They need `aged[h]` (T - h + 1, m) for windows of
    h > 1 days, h days older at each, and `revalue` for Monte Carlo; a parametric figure takes them from the book's own
    P&L. Shrinkage is over all linear columns given: figures to be compared need the same columns. Raises ValueError
    on shapes, a lookback below 1, or an odd number of paths.
    """

    returns: Floats
    lookback_days: int = LOOKBACK_DAYS
    symbols: Sequence[str] = ()
    """Of the columns, for messages; none: numbers."""
    options: Mask | None = None
    aged: Mapping[int, Floats] = field(default_factory=dict)
    revalue: RevalueAfter | None = None
    seed: int = 0
    n_paths: int = PATHS
    copula: Copula = "gaussian"
    copula_degrees_of_freedom: float | None = None
    _windows: dict[int, "Window"] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.returns.ndim != 2 or 0 in self.returns.shape:
            raise ValueError(f"returns: expected shape (days, instruments), got {self.returns.shape}")
        if self.lookback_days < 1:
            raise ValueError(f"lookback_days: expected 1 or more, got {self.lookback_days}")
        if self.options is not None and self.options.shape != (self.n_columns,):
            raise ValueError(f"options: expected shape {(self.n_columns,)}, got {self.options.shape}")
        if self.symbols and len(self.symbols) != self.n_columns:
            raise ValueError(f"symbols: expected {self.n_columns}, got {len(self.symbols)}")
        if self.n_paths < 2 or self.n_paths % 2:
            raise ValueError(f"n_paths: expected an even number of 2 or more, got {self.n_paths}")

    @property
    def n_columns(self) -> int:
        return int(self.returns.shape[1])

    @property
    def n_days(self) -> int:
        """Of the lookback that there are."""
        return min(self.lookback_days, int(self.returns.shape[0]))

    @cached_property
    def is_option(self) -> Mask:
        return np.zeros(self.n_columns, dtype=np.bool_) if self.options is None else self.options

    @cached_property
    def usable(self) -> Mask:
        """(n,) columns without NaN in the lookback."""
        return np.asarray(np.isfinite(self.returns[-self.n_days :]).all(axis=0))

    @cached_property
    def daily(self) -> Floats:
        """(T, n) the lookback, 0 in columns that hold NaN: `check_book` keeps books out of them."""
        return np.where(self.usable, self.returns[-self.n_days :], 0.0)

    @cached_property
    def moving(self) -> Mask:
        """(n,) columns that ever change in the lookback."""
        return moving_columns(self.daily)

    def over(self, horizon_days: int) -> "Window":
        """The returns over windows of h days. Raises ValueError on h outside 1 to 20 or over the days there are."""
        if horizon_days not in self._windows:
            check_horizon(horizon_days)
            self._windows[horizon_days] = Window(self, horizon_days)
        return self._windows[horizon_days]

    def check_book(self, book: Book) -> None:
        """Raise ValueError where the book is of other columns, or has something at stake in one that holds NaN."""
        if book.values.size != self.n_columns:
            raise ValueError(f"values: expected {self.n_columns} columns, got {book.values.size}")
        unusable = np.flatnonzero(book.at_stake & ~self.usable)
        if unusable.size:
            raise ValueError(f"returns: expected finite numbers, got NaN or infinity in {self._names(unusable)}")

    def riskless_warnings(self, book: Book) -> tuple[str, ...]:
        still = np.flatnonzero(book.at_stake & ~self.moving)
        if not still.size:
            return ()
        return (f"never moved in {self.n_days} days, counted as riskless: {self._names(still)}",)

    def _names(self, columns: NDArray[np.intp]) -> str:
        shown = columns[:NAMED_MAX].tolist()
        named = ", ".join(self.symbols[place] if self.symbols else f"column {place}" for place in shown)
        return named + (f" and {columns.size - NAMED_MAX} more" if columns.size > NAMED_MAX else "")


@dataclass(frozen=True, eq=False)
class Window:
    """A basis over windows of h days, overlapping for h > 1. What it computes is kept."""

    basis: Basis
    horizon_days: int

    @cached_property
    def returns(self) -> Floats:
        """(T - h + 1, n), compounded; of options, the aged P&L."""
        basis = self.basis
        compounded = overlapping_returns(basis.daily, self.horizon_days)
        if self.horizon_days == 1 or not basis.is_option.any():
            return compounded
        aged = basis.aged.get(self.horizon_days)
        expected = (compounded.shape[0], int(basis.is_option.sum()))
        if aged is None:
            raise ValueError(f"aged: expected the options' P&L over {self.horizon_days} days, got none")
        if aged.shape != expected or not np.isfinite(aged).all():
            raise ValueError(f"aged: expected {expected} finite P&Ls over {self.horizon_days} days, got {aged.shape}")
        compounded[:, basis.is_option] = aged
        return compounded

    @cached_property
    def factors(self) -> ShrunkFactors:
        """The shrunk covariance of the linear columns; zeros for options."""
        return shrunk_factors(np.where(self.basis.is_option, 0.0, self.returns))

    @cached_property
    def mean(self) -> Floats:
        """(n,) of the windows, 0 for options: theirs is no drift of a market."""
        return np.where(self.basis.is_option, 0.0, self.returns.mean(axis=0))

    @cached_property
    def path_model(self) -> PathModel:
        """Fitted to the linear columns, in their order, without a mean."""
        basis = self.basis
        return fit_path_model(self.returns[:, ~basis.is_option], basis.copula, basis.copula_degrees_of_freedom)

    @cached_property
    def paths(self) -> Paths:
        return simulate(self.path_model, np.random.default_rng(self.basis.seed), self.basis.n_paths)

    def losses(self, book: Book, mean: Mean) -> Floats:
        """(T - h + 1,) losses of today's book in each window, money, each symbol at its worse end."""
        returns = self.returns if mean == "sample" else self.returns - self.mean
        return -worst_pnl(returns.T, book.low, book.high)

    def simulated_losses(self, book: Book, mean: Mean) -> Floats:
        """(n_paths,) from the seed, the same paths for every book: books differ by what they hold alone."""
        basis, linear = self.basis, ~self.basis.is_option
        low, high, options = book.low[linear], book.high[linear], self._revaluation(book)
        drift = self.mean[linear] if mean == "sample" else np.zeros(low.size)
        if low.size * (basis.n_paths // 2) > KEPT_NUMBERS_MAX:
            model = replace(self.path_model, mean=drift)
            return -simulated_pnl(model, low, high, np.random.default_rng(basis.seed), basis.n_paths, options)
        paths = self.paths if mean == "zero" else Paths(self.paths.returns + drift[:, None], drift)
        return -paths.pnl(low, high, options)

    def _revaluation(self, book: Book) -> Revaluation | None:
        held = self.basis.is_option
        if not (book.at_stake & held).any():
            return None
        revalue = self.basis.revalue
        if revalue is None:
            raise ValueError("revalue: expected a revaluation of the options on simulated paths, got none")
        return Revaluation(lambda paths: revalue(paths, self.horizon_days), book.low[held], book.high[held])


def estimate(basis: Basis, book: Book, ask: Ask = Ask()) -> VarEstimate:
    """One figure. Raises ValueError on what no method can answer: see `estimates`."""
    return estimates(basis, book, (ask,))[0]


def estimates(basis: Basis, book: Book, asks: Iterable[Ask]) -> tuple[VarEstimate, ...]:
    """A figure for each of `asks`, in their order; what differs in confidence or quantile alone is distributed once.

    Historical and filtered figures with fewer days than the lookback, or than their confidence or filter needs, are
    answered by the parametric method (Gaussian), under its name and with a warning. Raises ValueError on a book of
    other columns, on NaN where something is at stake, on fewer than 30 days, on a confidence or horizon out of range.
    """
    basis.check_book(book)
    noted = basis.riskless_warnings(book)
    kept: dict[Ask, _Distribution] = {}
    answers = []
    for ask in asks:
        check_confidence(ask.confidence)
        check_horizon(ask.horizon_days)
        feasible, why = _feasible(basis, ask)
        shape = replace(feasible, confidence=0.5, quantile="order_statistic")
        if shape not in kept:
            kept[shape] = _distribution(basis, book, feasible)
        answer = _answer(basis, kept[shape], feasible)
        answers.append(replace(answer, warnings=why + answer.warnings + noted))
    return tuple(answers)


def asks(
    methods: Iterable[Method] = METHODS,
    confidences: Iterable[float] = (0.95, 0.99),
    horizons_days: Iterable[int] = (1,),
    horizon_methods: Iterable[HorizonMethod] = ("overlapping", "square_root"),
    like: Ask = Ask(),
) -> tuple[Ask, ...]:
    """Every combination, `like` in all else. Over one day both ways to the horizon are one figure."""
    ways = tuple(horizon_methods)
    return tuple(
        replace(like, method=method, confidence=confidence, horizon_days=days, horizon_method=way)
        for method, days, way, confidence in product(methods, horizons_days, ways, confidences)
        if days > 1 or way == ways[0]
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Distribution:
    """Losses by observation, or the mean and deviation of a closed form; over h days, or over one for sqrt(h)."""

    model: Model
    n_observations: int
    losses: Floats | None = None
    mean_pnl: float = 0.0
    deviation: float = 0.0
    tail: Callable[[float], Tail] | None = None
    n_paths: int = 0
    seed: int | None = None
    degrees_of_freedom: float | None = None
    warnings: tuple[str, ...] = ()


def _feasible(basis: Basis, ask: Ask) -> tuple[Ask, tuple[str, ...]]:
    """The ask itself, or the parametric one in its place; and why."""
    days = basis.n_days
    if days < OBSERVATIONS_MIN:
        raise ValueError(f"returns: expected at least {OBSERVATIONS_MIN} days, got {days}")
    short = f"{days} days of {basis.lookback_days} asked for" if days < basis.lookback_days else ""
    if ask.method in ("parametric", "monte_carlo"):
        return ask, (f"{ask.method}: {short}",) if short else ()
    windows = days - (ask.horizon_days - 1 if ask.horizon_method == "overlapping" else 0)
    if ask.method == "filtered":
        needed = GARCH_DAYS_MIN if ask.filter == "garch" else EWMA_DAYS_MIN
        windows -= EWMA_WARM_UP_DAYS if ask.filter == "ewma" else 0
        short = short or (f"{days} days of {needed} that {ask.filter} needs" if days < needed else "")
    if not short and windows * (1.0 - ask.confidence) < 1.0 - TAIL_SLACK:
        short = f"{windows} observations hold none beyond {ask.confidence:.6g}"
    if not short:
        return ask, ()
    stand_in = replace(ask, method="parametric", family="gaussian", mean=ask.mean)
    return stand_in, (f"{ask.method}: {short}: parametric (gaussian) instead",)


def _distribution(basis: Basis, book: Book, ask: Ask) -> _Distribution:
    window = basis.over(ask.horizon_days if ask.horizon_method == "overlapping" else 1)
    n_windows = window.returns.shape[0]
    if not (book.at_stake & basis.moving).any():
        return _riskless(window, book, ask)
    if ask.method == "historical":
        return _Distribution("empirical", n_windows, window.losses(book, ask.assumed_mean))
    if ask.method == "monte_carlo":
        return _simulated(window, book, ask)
    if ask.method == "filtered":
        return _filtered(basis, book, ask)
    if ask.method == "parametric":
        return _parametric(window, book, ask)
    raise ValueError(f"method: expected historical, parametric, monte_carlo or filtered, got {ask.method!r}")


def _riskless(window: Window, book: Book, ask: Ask) -> _Distribution:
    """Of a book that nothing moves: its loss is sure, and every method says the same."""
    models: dict[Method, Model] = {
        "historical": "empirical",
        "parametric": ask.family,
        "monte_carlo": _COPULA_MODELS[window.basis.copula],
        "filtered": ask.filter,
    }
    mean = worst_case_mean(book.values, window.mean, book.orders) if ask.assumed_mean == "sample" else 0.0
    why = "nothing held or open: nothing to lose" if not book.at_stake.any() else "nothing that moves is held or open"
    return _Distribution(
        models[ask.method],
        window.returns.shape[0],
        mean_pnl=mean,
        tail=lambda confidence: Tail("gaussian", confidence, 0.0, 0.0),
        warnings=(why,),
    )


_COPULA_MODELS: dict[Copula, Model] = {"gaussian": "gaussian_copula", "student_t": "student_t_copula"}


def _simulated(window: Window, book: Book, ask: Ask) -> _Distribution:
    model, basis = window.path_model, window.basis
    return _Distribution(
        _COPULA_MODELS[model.copula],
        model.n_observations,
        window.simulated_losses(book, ask.assumed_mean),
        n_paths=basis.n_paths,
        seed=basis.seed,
        degrees_of_freedom=model.copula_degrees_of_freedom,
        warnings=model.warnings,
    )


def _filtered(basis: Basis, book: Book, ask: Ask) -> _Distribution:
    """Over h days by the recursion of the volatility, from daily P&L: no window of returns is compounded."""
    series = filtered(-basis.over(1).losses(book, ask.assumed_mean), ask.filter)
    losses = series.losses(ask.horizon_days if ask.horizon_method == "overlapping" else 1)
    return _Distribution(series.filter, losses.size, losses, warnings=series.warnings)


def _parametric(window: Window, book: Book, ask: Ask) -> _Distribution:
    """From the shrunk covariance, open orders by z·(σ(w) + Σ|q_j|·σ_j); with options from the book's own P&L."""
    losses = window.losses(book, "sample")
    check_observations("losses", losses)
    warnings: tuple[str, ...] = ()
    if (book.at_stake & window.basis.is_option).any():
        deviation = float(losses.std(ddof=1))
        mean_pnl = -float(losses.mean())
        warnings = (
            "parametric: options by the deviation of the book's own P&L, no shrinkage: no convexity in its tail",
        )
    else:
        factors = window.factors
        deviation = math.sqrt(factors.variance_of(book.values)) + float(book.orders @ np.sqrt(factors.variances()))
        mean_pnl = worst_case_mean(book.values, window.mean, book.orders)
    return _Distribution(
        ask.family,
        losses.size,
        mean_pnl=mean_pnl if ask.assumed_mean == "sample" else 0.0,
        deviation=deviation,
        tail=lambda confidence: tail_of(ask.family, confidence, -losses, ask.degrees_of_freedom),
        warnings=warnings,
    )


def _answer(basis: Basis, distribution: _Distribution, ask: Ask) -> VarEstimate:
    warnings = distribution.warnings
    degrees = distribution.degrees_of_freedom
    if distribution.tail is not None:
        quantile: Quantile | Literal["closed_form"] = "closed_form"
        figure = tail_loss(distribution.mean_pnl, distribution.deviation, distribution.tail(ask.confidence))
        var, es, degrees = figure.var, figure.es, figure.tail.degrees_of_freedom
        warnings += figure.tail.warnings
    else:
        assert distribution.losses is not None
        quantile = ask.quantile
        var = value_at_risk(distribution.losses, ask.confidence, ask.quantile)
        es = expected_shortfall(distribution.losses, ask.confidence)
    if ask.horizon_method == "square_root":
        var, es = square_root_of_time(var, ask.horizon_days), square_root_of_time(es, ask.horizon_days)
    elif (thin := thin_tail_warning(basis.n_days, ask.horizon_days, ask.confidence)) is not None:
        warnings += (thin,)
    return VarEstimate(
        method=ask.method,
        model=distribution.model,
        confidence=ask.confidence,
        horizon_days=ask.horizon_days,
        horizon_method=ask.horizon_method,
        quantile=quantile,
        mean=ask.assumed_mean,
        var=var,
        es=es,
        n_observations=distribution.n_observations,
        n_paths=distribution.n_paths,
        seed=distribution.seed,
        degrees_of_freedom=degrees,
        warnings=warnings,
    )
