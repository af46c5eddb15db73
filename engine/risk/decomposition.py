"""Where a book's VaR and ES come from: marginal, component, standalone and incremental figures, by position and group.

Components are Euler's: they sum to the total, parametric on the shrunk covariance (Gaussian, mean zero), historical as
conditional expectation over the tail. Open orders count at their worst case. Contributions that a caller brings are
checked here too. The totals themselves are var.py's conventions; no n × n matrix is formed. Estimating a covariance
belongs to shrinkage.py, sizing budgets to whoever reads this.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.risk.shrinkage import ShrunkFactors
from engine.risk.var import Quantile, expected_shortfall, tail_count, value_at_risk

Measure = Literal["var", "es"]
Method = Literal["parametric", "historical"]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]

GAP_MAX = 0.02
"""Of the total: a larger gap to the sample covariance, or to a caller's contributions, is a warning (NUMERICS.md)."""

CANCELLATION_MAX = 1e-6
"""Of the variance: what is left without a position is computed anew below this, since the closed form has lost half
of its digits there."""

ROUNDING = 1e-12
"""Of what positions have at stake apart: less than this together is no risk, they cancel."""

BLOCK_ROWS = 512
"""Positions at a time where each needs its whole history: 512 × 756 float64 are 3 MB, which a cache still holds."""

NO_AVERAGE = "the losses about the VaR average to another sign than its own: components are those of its one day"
NO_RISK = "the book has no risk as it is: marginal figures are those of a first position"

NAMES_MAX = 5
"""Positions named in one warning; the rest is a number."""


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """What is decomposed, one row each: money in base currency that the returns multiply, positive = long."""

    labels: tuple[str, ...]
    held: Floats
    """(p,) the position alone."""
    low: Floats
    """(p,) where it ends with all open sells filled; `high`: with all open buys."""
    high: Floats
    columns: Places
    """(p,) its instrument's place in the returns or the covariance; several positions may share one."""

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        held: ArrayLike,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        columns: ArrayLike | None = None,
    ) -> "Positions":
        """Positions without open orders where no ends are given, and in the order of the columns where none are.

        Raises ValueError where shapes disagree, money is not finite, or not low <= held <= high.
        """
        money = {
            "held": _vector("held", held, len(labels)),
            "low": _vector("low", held if low is None else low, len(labels)),
            "high": _vector("high", held if high is None else high, len(labels)),
        }
        outside = np.flatnonzero((money["low"] > money["held"]) | (money["high"] < money["held"]))
        if outside.size:
            raise ValueError(f"low, high: expected low <= held <= high, not so for {labels[outside[0]]}")
        places = np.arange(len(labels)) if columns is None else np.asarray(columns)
        if places.shape != (len(labels),) or not np.issubdtype(places.dtype, np.integer):
            raise ValueError(f"columns: expected {len(labels)} places, got {places.dtype} of shape {places.shape}")
        return cls(tuple(labels), columns=places.astype(np.intp), **money)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def at_stake(self) -> NDArray[np.bool_]:
        """(p,) whether anything is held or open."""
        return np.asarray((self.held != 0.0) | (self.low != 0.0) | (self.high != 0.0))

    def by_column(self, n_columns: int) -> Floats:
        """(n_columns,) the money held in each instrument."""
        return np.bincount(self.columns, weights=self.held, minlength=n_columns).astype(np.float64)


@dataclass(frozen=True, slots=True)
class GroupContribution:
    """One strategy, sector or asset class: what its positions contribute together, in base currency."""

    label: str
    n_positions: int
    component: float
    share: float | None
    """Of the total; None where the total is not above 0."""
    standalone: float
    incremental: float


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """The total and its parts, one day ahead, in base currency; positive adds risk, negative hedges."""

    method: Method
    """Parametric: Gaussian with mean zero on the shrunk covariance. Historical: every day as it was."""
    measure: Measure
    confidence: float
    total: float
    labels: tuple[str, ...]
    component: Floats
    """(p,) sums to the total."""
    marginal: Floats
    """(p,) change of the total for one more unit of base currency in the position."""
    standalone: Floats
    """(p,) the measure of the position alone, its open orders counted."""
    incremental: Floats
    """(p,) the total less the total without the position and its open orders."""
    n_observations: int
    quantile: Quantile | None = None
    """Historical VaR only."""
    neighbours: int = 0
    """Historical VaR only: how many order statistics to each side its components are averaged over."""
    intensity: float | None = None
    """Of the shrinkage, 0 to 1; parametric only."""
    sample_total: float | None = None
    """The parametric total on the sample covariance (ddof 1); None where it can't be had."""
    groups: Mapping[str, tuple[GroupContribution, ...]] = field(default_factory=dict)
    """By grouping as asked for, each with its greatest component first; each grouping sums to the total."""
    warnings: tuple[str, ...] = ()

    @property
    def shares(self) -> Floats | None:
        """(p,) percentage contributions as decimals, sum 1; None where the total is not above 0."""
        return self.component / self.total if self.total > 0.0 else None

    @property
    def sample_gap(self) -> float | None:
        """The total on the sample covariance less this one, in base currency."""
        return None if self.sample_total is None else self.sample_total - self.total


@dataclass(frozen=True, slots=True)
class GivenContributions:
    """Contributions as a caller sees them, checked, beside the total that they should explain; in base currency."""

    components: Mapping[str, float]
    total: float
    gap: float
    """Their sum less the total."""
    warnings: tuple[str, ...] = ()


def parametric_decomposition(
    positions: Positions,
    covariance: ShrunkFactors,
    confidence: float,
    measure: Measure = "var",
    groupings: Mapping[str, Sequence[str]] | None = None,
) -> Decomposition:
    """Euler's decomposition of m·(σ(w) + Σ_j |q_j|·σ_j): held money w by instrument, open orders q at worst case.

    m is the Gaussian quantile z for VaR and φ(z)/(1 - confidence) for ES; component_i = m·(w_i·(Σw)_i/σ + |q_i|·σ_i).
    Source: Tasche, "Capital allocation to business units and sub-portfolios: the Euler principle" (2008); open orders:
    NUMERICS.md. `covariance`: of the instruments that `positions.columns` point to. `groupings`: for each grouping's
    name the label of every position. In a book without variance, marginal is what a first position would add. Raises
    ValueError on a confidence that is not above 0.5 and below 1, an unknown measure, columns outside the covariance,
    labels that are not one for each position.
    """
    multiplier = _gaussian_multiplier(confidence, measure)
    n_days, n_columns = covariance.loadings.shape
    _check_columns(positions, n_columns)
    held = positions.by_column(n_columns)
    slopes = covariance.covariance_with(held)
    deviations = np.sqrt(covariance.variances())[positions.columns]
    sigma = _sigma(positions, deviations, float(held @ slopes))
    open_sigma = (positions.high - positions.low) * deviations
    slope = slopes[positions.columns] / sigma if sigma > 0.0 else np.zeros(len(positions))
    component = multiplier * (positions.held * slope + open_sigma)
    total = multiplier * (sigma + float(open_sigma.sum()))
    sample_total = _sample_total(multiplier, positions, covariance, held)

    def of_groups(grouping: _Grouping) -> tuple[Floats, Floats]:
        alone, without = _group_sigmas(grouping, positions, covariance, held)
        open_group = grouping.sums(open_sigma)
        return multiplier * (alone + open_group), multiplier * (sigma - without + open_group)

    return Decomposition(
        method="parametric",
        measure=measure,
        confidence=confidence,
        total=total,
        labels=positions.labels,
        component=component,
        marginal=multiplier * (slope if sigma > 0.0 else deviations),
        standalone=multiplier * (np.abs(positions.held) * deviations + open_sigma),
        incremental=multiplier * (sigma - _sigmas_without(positions, covariance, held, slopes) + open_sigma),
        n_observations=n_days,
        intensity=covariance.intensity,
        sample_total=sample_total,
        groups=_groups(groupings, component, total, of_groups),
        warnings=(*_variance_warnings(positions, deviations, sigma), *_sample_warnings(total, sample_total)),
    )


def historical_decomposition(
    positions: Positions,
    returns: Floats,
    confidence: float,
    measure: Measure = "var",
    quantile: Quantile = "order_statistic",
    neighbours: int = 0,
    groupings: Mapping[str, Sequence[str]] | None = None,
) -> Decomposition:
    """Components as conditional expectations of the positions' losses, over `returns` (T, n), simple and daily.

    A position's loss on a day is -min(low·r, high·r): open orders at worst case. ES: the mean of its losses in the
    tail, weighed as Rockafellar and Uryasev do, so that components sum exactly. VaR: its loss on the day that is the
    order statistic (Hallerbach 1999, E[L_i | L = VaR]); days with that very loss share the weight. One day says
    little of a position: `neighbours` h averages over h order statistics to each side, triangular weights, scaled so
    that they still sum to the VaR. `linear` weighs its two days. Every grouping as in `parametric_decomposition`.
    Raises ValueError on returns that are not finite where a position needs them, too few days for the confidence, an
    unknown measure or quantile, negative neighbours or neighbours with `linear`.
    """
    _check_measure(measure)
    if returns.ndim != 2:
        raise ValueError(f"returns: expected shape (days, instruments), got {returns.shape}")
    _check_columns(positions, returns.shape[1])
    by_position = returns.T[positions.columns]
    _check_finite(positions, by_position)
    position_losses = -np.minimum(positions.low[:, None] * by_position, positions.high[:, None] * by_position)
    losses = _summed(position_losses)
    weights, neighbours_used = _day_weights(losses, confidence, measure, quantile, neighbours)
    warnings = [NO_AVERAGE] if measure == "var" and neighbours_used < neighbours else []
    days = np.flatnonzero(weights)
    component = position_losses[:, days] @ weights[days]
    total = value_at_risk(losses, confidence, quantile) if measure == "var" else expected_shortfall(losses, confidence)
    alone = _tail_risks(position_losses, confidence, measure, quantile)
    marginal = -(by_position[:, days] @ weights[days])
    if not losses.any() and len(positions):
        marginal = _tail_risks(-by_position, confidence, measure, quantile)
        warnings.append(NO_RISK)

    def of_groups(grouping: _Grouping) -> tuple[Floats, Floats]:
        group_losses = grouping.sums(position_losses)
        without = _tail_risks(group_losses, confidence, measure, quantile, less_from=losses)
        return _tail_risks(group_losses, confidence, measure, quantile), total - without

    return Decomposition(
        method="historical",
        measure=measure,
        confidence=confidence,
        total=total,
        labels=positions.labels,
        component=component,
        marginal=marginal,
        standalone=alone,
        incremental=total - _tail_risks(position_losses, confidence, measure, quantile, less_from=losses),
        n_observations=len(losses),
        quantile=quantile if measure == "var" else None,
        neighbours=neighbours_used,
        groups=_groups(groupings, component, total, of_groups),
        warnings=tuple(warnings),
    )


def given_contributions(contributions: Iterable[tuple[str, float]], total: float) -> GivenContributions:
    """A caller's own contributions by name, in base currency, beside `total`; "" names the strategy without a name.

    Warns where their sum is more than 2 % off the total. Raises ValueError on none at all, a name twice or blank, a
    contribution or total that is not finite.
    """
    components: dict[str, float] = {}
    for name, component in contributions:
        if name in components or (name and not name.strip()):
            raise ValueError(f"contributions: expected each name once and not blank, got {name!r}")
        if not np.isfinite(component):
            raise ValueError(f"contributions: expected a finite number for {name!r}, got {component}")
        components[name] = float(component)
    if not components:
        raise ValueError("contributions: expected at least one, got none")
    if not np.isfinite(total):
        raise ValueError(f"total: expected a finite number, got {total}")
    gap = sum(components.values()) - total
    return GivenContributions(components, total, gap, tuple(_gap_warnings("contributions given", gap, total)))


@dataclass(frozen=True, slots=True, eq=False)
class _Grouping:
    """Labels of groups, and the group of each position."""

    labels: tuple[str, ...]
    index: Places

    @classmethod
    def of(cls, name: str, labels: Sequence[str], n_positions: int) -> "_Grouping":
        if len(labels) != n_positions:
            raise ValueError(f"groupings.{name}: expected {n_positions} labels, one each position, got {len(labels)}")
        places: dict[str, int] = {}
        index = [places.setdefault(label, len(places)) for label in labels]
        return cls(tuple(places), np.array(index, dtype=np.intp))

    def sums(self, rows: Floats) -> Floats:
        """(p, …) to (g, …): rows of one group added up."""
        order = np.argsort(self.index, kind="stable")
        starts = np.searchsorted(self.index[order], np.arange(len(self.labels)))
        return np.add.reduceat(rows[order], starts, axis=0)


def _groups(
    groupings: Mapping[str, Sequence[str]] | None,
    component: Floats,
    total: float,
    of_groups: Callable[[_Grouping], tuple[Floats, Floats]],
) -> dict[str, tuple[GroupContribution, ...]]:
    """`of_groups` gives standalone and incremental figures, each (g,)."""
    made = {}
    for name, labels in (groupings or {}).items():
        grouping = _Grouping.of(name, labels, len(component))
        standalone, incremental = of_groups(grouping)
        made[name] = _contributions(grouping, component, total, standalone, incremental)
    return made


def _contributions(
    grouping: _Grouping, component: Floats, total: float, standalone: Floats, incremental: Floats
) -> tuple[GroupContribution, ...]:
    components = grouping.sums(component)
    counts = np.bincount(grouping.index, minlength=len(grouping.labels))
    return tuple(
        GroupContribution(
            label=grouping.labels[place],
            n_positions=int(counts[place]),
            component=float(components[place]),
            share=float(components[place]) / total if total > 0.0 else None,
            standalone=float(standalone[place]),
            incremental=float(incremental[place]),
        )
        for place in np.argsort(-components, kind="stable").tolist()
    )


def _gaussian_multiplier(confidence: float, measure: Measure) -> float:
    _check_measure(measure)
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence: expected a number above 0.5 and below 1 (0.99 for 99 %), got {confidence}")
    normal = NormalDist()
    quantile = normal.inv_cdf(confidence)
    return quantile if measure == "var" else normal.pdf(quantile) / (1.0 - confidence)


def _sigma(positions: Positions, deviations: Floats, variance: float) -> float:
    """Of the book; 0 where what is left of its positions is rounding."""
    sigma = float(np.sqrt(max(variance, 0.0)))
    return sigma if sigma > ROUNDING * float(np.abs(positions.held) @ deviations) else 0.0


def _sigmas_without(positions: Positions, covariance: ShrunkFactors, held: Floats, slopes: Floats) -> Floats:
    """(p,) the standard deviation of the book without each position: σ² - 2·w_i·(Σw)_i + w_i²·Σ_ii."""
    variance = float(held @ slopes)
    own = covariance.variances()[positions.columns]
    left = variance - 2.0 * positions.held * slopes[positions.columns] + positions.held**2 * own
    for place in np.flatnonzero(left < CANCELLATION_MAX * variance).tolist():
        rest = held.copy()
        rest[positions.columns[place]] -= positions.held[place]
        left[place] = covariance.variance_of(rest)
    return np.sqrt(np.maximum(left, 0.0))


def _group_sigmas(
    grouping: _Grouping, positions: Positions, covariance: ShrunkFactors, held: Floats
) -> tuple[Floats, Floats]:
    """(g,) the standard deviations of each group's held money, and of the book's without it."""
    pnl = grouping.sums(covariance.loadings.T[positions.columns] * positions.held[:, None])
    rest = covariance.loadings @ held - pnl
    cells, cell_of = np.unique(positions.columns * len(grouping.labels) + grouping.index, return_inverse=True)
    columns, groups = np.divmod(cells, max(1, len(grouping.labels)))
    money = np.bincount(cell_of, weights=positions.held, minlength=len(cells))
    own_noise = covariance.noise[columns] * money**2
    shared_noise = covariance.noise[columns] * held[columns] * money
    noise = np.bincount(groups, weights=own_noise, minlength=len(grouping.labels))
    noise_left = covariance.noise @ (held * held) + np.bincount(
        groups, weights=own_noise - 2.0 * shared_noise, minlength=len(grouping.labels)
    )
    return np.sqrt(_squares(pnl) + noise), np.sqrt(_squares(rest) + np.maximum(noise_left, 0.0))


def _squares(rows: Floats) -> Floats:
    """(g, T) to (g,)."""
    return np.asarray(np.einsum("gt,gt->g", rows, rows))


def _sample_total(multiplier: float, positions: Positions, covariance: ShrunkFactors, held: Floats) -> float | None:
    """The total on the sample covariance with ddof 1, which the loadings hold, scaled; None where nothing is left."""
    n_days = covariance.loadings.shape[0]
    kept = (1.0 - covariance.intensity) * (n_days - 1) / n_days
    if kept <= 0.0:
        return None
    pnl = covariance.loadings @ held
    variances = np.einsum("ti,ti->i", covariance.loadings, covariance.loadings)[positions.columns]
    open_sigma = float((positions.high - positions.low) @ np.sqrt(variances))
    return multiplier * (float(np.sqrt(pnl @ pnl)) + open_sigma) / float(np.sqrt(kept))


def _variance_warnings(positions: Positions, deviations: Floats, sigma: float) -> Iterable[str]:
    still = positions.at_stake & (deviations <= 0.0)
    if still.any():
        yield f"no move in the whole history, so no risk in these figures: {_named(positions, still)}"
    if sigma <= 0.0 and len(positions):
        yield NO_RISK


def _sample_warnings(total: float, sample_total: float | None) -> Iterable[str]:
    if sample_total is None:
        return ("covariance shrunk onto its target entirely: no sample total to compare with",)
    return _gap_warnings("parametric total on the sample covariance", sample_total - total, total)


def _gap_warnings(what: str, gap: float, total: float) -> Iterable[str]:
    if abs(gap) > GAP_MAX * abs(total):
        share = f"{gap / abs(total):+.1%} of it" if total else "of a total of 0"
        yield f"{what}: {gap:+,.2f} off the total of the decomposition, {share} (warned above {GAP_MAX:.0%})"


def _summed(position_losses: Floats) -> Floats:
    """(p, T) to (T,); what is left of positions that cancel is 0, not rounding."""
    losses = position_losses.sum(axis=0)
    return np.where(np.abs(losses) > ROUNDING * np.abs(position_losses).sum(axis=0), losses, 0.0)


def _day_weights(
    losses: Floats, confidence: float, measure: Measure, quantile: Quantile, neighbours: int
) -> tuple[Floats, int]:
    """(T,) what each day counts for, so that weights @ losses is the measure; and the neighbours that were counted."""
    if neighbours < 0 or (neighbours and quantile == "linear"):
        raise ValueError(f"neighbours: expected 0 or more, with quantile order_statistic, got {neighbours}")
    var = value_at_risk(losses, confidence, "order_statistic" if measure == "es" else quantile)
    if measure == "es":
        return _shortfall_weights(losses, confidence, var), 0
    if quantile == "linear":
        return _linear_weights(losses, confidence), 0
    at = losses == var
    if neighbours == 0:
        return at / at.sum(), 0
    weights = _neighbour_weights(losses, confidence, neighbours)
    mean = float(weights @ losses)
    if mean * var <= 0.0:
        return at / at.sum(), 0
    return weights * (var / mean), neighbours


def _shortfall_weights(losses: Floats, confidence: float, var: float) -> Floats:
    mass = max((1.0 - confidence) * losses.size, 1.0)
    beyond, at = losses > var, losses == var
    weights: Floats = beyond / mass + at * ((mass - beyond.sum()) / mass / at.sum())
    return weights


def _linear_weights(losses: Floats, confidence: float) -> Floats:
    place = confidence * (losses.size - 1)
    below, above = int(np.floor(place)), int(np.ceil(place))
    ordered = np.partition(losses, (below, above))
    at_below, at_above = losses == ordered[below], losses == ordered[above]
    part = place - below
    weights: Floats = (1.0 - part) * at_below / at_below.sum() + part * at_above / at_above.sum()
    return weights


def _neighbour_weights(losses: Floats, confidence: float, neighbours: int) -> Floats:
    ranks = np.empty(losses.size, dtype=np.intp)
    ranks[np.argsort(-losses, kind="stable")] = np.arange(1, losses.size + 1)
    distance = np.abs(ranks - tail_count(losses.size, confidence))
    weights = np.maximum(neighbours + 1.0 - distance, 0.0)
    return np.asarray(weights / weights.sum())


def _tail_risks(
    losses: Floats, confidence: float, measure: Measure, quantile: Quantile, less_from: Floats | None = None
) -> Floats:
    """(p,) the measure of each row of `losses` (p, T); with `less_from` (T,), of it less each row."""
    risks = np.empty(len(losses))
    for start in range(0, len(losses), BLOCK_ROWS):
        block = losses[start : start + BLOCK_ROWS]
        rest = block if less_from is None else less_from - block
        risks[start : start + BLOCK_ROWS] = _block_risks(rest, confidence, measure, quantile)
    return risks


def _block_risks(losses: Floats, confidence: float, measure: Measure, quantile: Quantile) -> Floats:
    """The formulas of var.py, row by row at once."""
    n_days = losses.shape[1]
    count = tail_count(n_days, confidence)
    if measure == "var" and quantile == "linear":
        return np.asarray(np.quantile(losses, confidence, axis=1, method="linear"))
    tail = np.partition(losses, n_days - count, axis=1)[:, n_days - count :]
    var = tail[:, 0]
    if measure == "var":
        return var
    mass = max((1.0 - confidence) * n_days, 1.0)
    shortfall: Floats = var + np.maximum(tail - var[:, None], 0.0).sum(axis=1) / mass
    return shortfall


def _vector(name: str, money: ArrayLike, n_positions: int) -> Floats:
    vector = np.asarray(money, dtype=np.float64)
    if vector.shape != (n_positions,):
        raise ValueError(f"{name}: expected shape ({n_positions},), one each label, got {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name}: expected finite money, got NaN or infinity")
    return vector


def _check_measure(measure: Measure) -> None:
    if measure not in ("var", "es"):
        raise ValueError(f"measure: expected var or es, got {measure!r}")


def _check_columns(positions: Positions, n_columns: int) -> None:
    outside = np.flatnonzero((positions.columns < 0) | (positions.columns >= n_columns))
    if outside.size:
        label, column = positions.labels[outside[0]], positions.columns[outside[0]]
        raise ValueError(f"columns: expected 0 to {n_columns - 1}, got {column} for {label}")


def _check_finite(positions: Positions, by_position: Floats) -> None:
    faulty = np.asarray(~np.isfinite(by_position).all(axis=1))
    if faulty.any():
        raise ValueError(f"returns: expected finite numbers, got NaN or infinity for {_named(positions, faulty)}")


def _named(positions: Positions, rows: NDArray[np.bool_]) -> str:
    names = [positions.labels[place] for place in np.flatnonzero(rows).tolist()]
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
