"""What it takes to lose a given amount: how far a scenario has to be scaled, and which joint shock likeliest does it.

`reverse_stress` scans multipliers of one scenario and brackets the smallest that costs the target; "not reachable" is
an answer, since the loss of an option book need not rise with the multiplier. `most_likely_shock` leaves the direction
open: of all joint shocks that cost the target, the nearest by Mahalanobis distance. Losses are positive, in base
currency. The arithmetic of scenarios is stress_book.py's; what a covariance is estimated from is the caller's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import chdtrc, ndtr

from engine.risk.factors import FactorKind, FactorMap
from engine.risk.options import VOLATILITY_FACTOR
from engine.risk.scenarios import Scenario
from engine.risk.stress_book import (
    REVALUATION_FAILED,
    Floats,
    LeftOut,
    Mask,
    Reach,
    StressBook,
    left_out_warnings,
    reach_of,
    unrevalued,
)

MULTIPLIERS = (0.01, 5.0)
"""Smallest and largest multiplier looked at: beyond five times a crisis a scenario says nothing of the next one."""

SCAN_POINTS = 500
"""A hundredth of a multiplier apart over MULTIPLIERS; what happens between two of them is sought where it peaks."""

TARGET_RATIO = 0.10
"""Loss to reach as a share of equity, unless another is asked for."""

PRICE_SHOCK_MIN = -0.99
"""A scaled shock of a price or a spread stops here: at -1 nothing is left to lose, and a rate quoted against the base
would be worth infinitely much."""

DISTANCE_MAX = 10.0
"""Standard deviations up to which a non-linear book is searched; beyond it no covariance means anything."""

RAY_POINTS = 101
"""Distances looked at along a direction, a tenth of a standard deviation apart."""

DIFFERENCE_STEP = 1e-5
"""Of the gradient, in standard deviations: large against rounding, small against how fast an option's delta changes."""

LOSS_SLACK = 1e-6
"""How far short of the target, relatively, a solver's point still counts as costing it."""

PEAKS_MAX = 20
"""Peaks of the scan that are looked into; a book with more would have to be long and short many strikes in turn."""

STARTS_MAX = 12
"""Directions that the search for a non-linear book's shock starts from."""

DIMENSIONS_MANY = 40
STARTS_OF_MANY_MAX = 3
"""Beyond so many dimensions a start costs a tenth of a second and more, and fewer are tried."""


def target_loss(equity: float, ratio: float = TARGET_RATIO) -> float:
    """The loss, in base currency, that is `ratio` of `equity`. Raises ValueError where either is not above 0."""
    if not (math.isfinite(equity) and equity > 0.0):
        raise ValueError(f"equity: expected a finite number above 0, got {equity}")
    if not (math.isfinite(ratio) and ratio > 0.0):
        raise ValueError(f"ratio: expected a finite number above 0 (0.1 for 10 %), got {ratio}")
    return ratio * equity


@dataclass(frozen=True, slots=True)
class Capped:
    """A factor that reaches the book and whose scaled shock is stopped at PRICE_SHOCK_MIN within the bounds."""

    factor: str
    from_multiplier: float
    """The multiplier from which on it stands still."""


@dataclass(frozen=True, slots=True, eq=False)
class ReverseStress:
    """How far a scenario has to be scaled to cost a loss."""

    scenario: str
    target_loss: float
    reachable: bool
    """Between the bounds; that it is not is an answer, and `loss_max` says how far it goes."""
    multiplier: float | None
    """The smallest within the bounds that costs the target; None where it is not reachable."""
    loss: float | None
    """At the multiplier: the target, but for the solver's tolerance, or where the lower bound costs more already."""
    at_lower_bound: bool
    """The lower bound costs the target already: so may a smaller multiplier."""
    loss_max: float
    """The greatest loss found, also where it is a gain."""
    loss_max_multiplier: float
    multipliers: Floats
    """Of the scan, rising."""
    losses: Floats
    """Of the scan, shape of `multipliers`; a loss need not rise with the multiplier."""
    capped: tuple[Capped, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]


def reverse_stress(
    book: StressBook,
    scenario: Scenario,
    target: float,
    bounds: tuple[float, float] = MULTIPLIERS,
    factor_map: FactorMap | None = None,
    scan_points: int = SCAN_POINTS,
    reach: Reach | None = None,
) -> ReverseStress:
    """The smallest multiplier of all shocks of `scenario` in `bounds` at which `book` loses `target` (base currency).

    Every shock is scaled, volatility's too; one of a price or spread stops at PRICE_SHOCK_MIN, and `capped` says so.
    `reach`: of the scenario's factors, in order, on these rows, where the caller kept it from another call. Raises
    ValueError where the target is not above 0, the bounds are not 0 < low < high, or fewer than 2 points.
    """
    _check_question(target, bounds, scan_points)
    scaling = _scaling(book, scenario, factor_map or FactorMap(), reach)
    sample = scaling.returns(np.array(bounds))
    unknown = book.at_stake & ~np.isfinite(sample).all(axis=1)
    counted = book.at_stake & ~unknown

    def loss_at(multipliers: Floats) -> Floats:
        losses: Floats = book.losses(scaling.returns(multipliers))[counted].sum(axis=0)
        return losses

    found = smallest_multiplier(loss_at, target, bounds, scan_points)
    last = bounds[1] if found.multiplier is None else found.multiplier
    left_out = book.left_out + scaling.left_out(unknown)
    capped = scaling.capped(bounds[1])
    warnings = [
        f"{one.factor}: its shock stops at {PRICE_SHOCK_MIN:.0%} from multiplier {one.from_multiplier:.4g} on"
        for one in capped
        if one.from_multiplier <= last
    ]
    warnings += _overshoot_warnings(book, scaling.returns(np.array([last]))[:, 0], last)
    warnings += left_out_warnings(scenario.name, left_out)
    return ReverseStress(
        scenario=scenario.name,
        target_loss=target,
        reachable=found.multiplier is not None,
        multiplier=found.multiplier,
        loss=found.loss,
        at_lower_bound=found.multiplier == bounds[0],
        loss_max=found.loss_max,
        loss_max_multiplier=found.loss_max_multiplier,
        multipliers=found.multipliers,
        losses=found.losses,
        capped=capped,
        left_out=left_out,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Scaling:
    """One scenario, times any number of multipliers."""

    book: StressBook
    reach: Reach
    shocks: Floats
    """(f, 1), in the order of the reach's factors."""
    floors: Floats
    """(f, 1) how low each shock may go."""

    def returns(self, multipliers: Floats) -> Floats:
        """(n, k) of each row, in base currency, at (k,) multipliers."""
        return self.reach.returns(self.book, np.maximum(self.shocks * multipliers, self.floors))

    def capped(self, multiplier_max: float) -> tuple[Capped, ...]:
        lows = zip(self.reach.factors, self.shocks[:, 0].tolist(), self.floors[:, 0].tolist(), strict=True)
        reaching = {name for names in self.reach.names for name in names} | set(self.reach.pairs.values())
        return tuple(
            Capped(factor, floor / shock)
            for factor, shock, floor in lows
            if factor in reaching and shock * multiplier_max < floor
        )

    def left_out(self, unknown: Mask) -> tuple[LeftOut, ...]:
        return tuple(
            self.book.leaves_out(row, self.reach.unevaluable.get(row, REVALUATION_FAILED))
            for row in np.flatnonzero(unknown).tolist()
        )


def _scaling(book: StressBook, scenario: Scenario, factor_map: FactorMap, reach: Reach | None = None) -> _Scaling:
    factors = tuple(sorted(scenario.shocks))
    return _Scaling(
        book=book,
        reach=reach or reach_of(book, factors, factor_map),
        shocks=np.array([[scenario.shocks[factor]] for factor in factors]),
        floors=np.array([[_floor(factor, factor_map)] for factor in factors]),
    )


def _floor(factor: str, factor_map: FactorMap) -> float:
    """How low its shock may go: a yield's and a volatility's are absolute changes and have no floor here."""
    volatility = factor == VOLATILITY_FACTOR or factor.startswith(f"{VOLATILITY_FACTOR}_")
    return -math.inf if volatility or factor_map.kind(factor) is FactorKind.YIELD else PRICE_SHOCK_MIN


def _overshoot_warnings(book: StressBook, returns: Floats, multiplier: float) -> list[str]:
    """Linear rows that would lose more than all of themselves: betas and durations do not hold that far."""
    beyond = np.flatnonzero(book.linear & book.at_stake & (returns < -1.0)).tolist()
    if not beyond:
        return []
    symbols = ", ".join(dict.fromkeys(book.instruments[row].symbol for row in beyond[:5]))
    more = f" and {len(beyond) - 5} more" if len(beyond) > 5 else ""
    return [f"at multiplier {multiplier:.4g} more than all of {symbols}{more} would be lost: linear beyond its reach"]


@dataclass(frozen=True, slots=True, eq=False)
class MultiplierScan:
    """What a scan of a loss over multipliers found; fields as those of ReverseStress."""

    multiplier: float | None
    loss: float | None
    loss_max: float
    loss_max_multiplier: float
    multipliers: Floats
    losses: Floats


def smallest_multiplier(
    loss_at: Callable[[Floats], Floats],
    target: float,
    bounds: tuple[float, float] = MULTIPLIERS,
    scan_points: int = SCAN_POINTS,
) -> MultiplierScan:
    """The smallest multiplier in `bounds` at which `loss_at` reaches `target`: scan, then bracket (Brent).

    `loss_at` takes (k,) multipliers and gives (k,) losses, continuous in between. Where the scan peaks below the
    target, the peak between its neighbours is sought too; one narrower than the scan's step may be missed. Raises
    ValueError as `reverse_stress` does, and where a loss is not finite.
    """
    _check_question(target, bounds, scan_points)
    multipliers = np.linspace(*bounds, scan_points)
    losses = loss_at(multipliers)
    if not np.isfinite(losses).all():
        place = int(np.flatnonzero(~np.isfinite(losses))[0])
        raise ValueError(f"losses: expected finite numbers, got {losses[place]} at multiplier {multipliers[place]:.4g}")

    def excess(multiplier: float) -> float:
        return float(loss_at(np.array([multiplier]))[0]) - target

    reached = losses >= target
    first = int(reached.argmax()) if reached.any() else scan_points
    peaks = _peaks(excess, multipliers, losses, first)
    peak = next(((at, place) for at, place, height in peaks if height >= 0.0), None)
    if peak is not None:
        at, place = peak
        multiplier = _crossing(excess, float(multipliers[max(place - 1, 0)]), at)
    elif first == 0:
        multiplier = bounds[0]
    elif first < scan_points:
        multiplier = _crossing(excess, float(multipliers[first - 1]), float(multipliers[first]))
    else:
        multiplier = None
    tops = [(float(losses.max()), float(multipliers[losses.argmax()]))]
    tops += [(height + target, at) for at, _, height in peaks]
    loss_max, loss_max_multiplier = max(tops, key=lambda top: top[0])
    return MultiplierScan(
        multiplier=multiplier,
        loss=None if multiplier is None else excess(multiplier) + target,
        loss_max=loss_max,
        loss_max_multiplier=loss_max_multiplier,
        multipliers=multipliers,
        losses=losses,
    )


def _crossing(excess: Callable[[float], float], below: float, beyond: float) -> float:
    """Where the loss reaches the target. Alone, a point may round to the other side of it than among the scan's."""
    if excess(beyond) <= 0.0:
        return beyond
    return below if excess(below) >= 0.0 else float(brentq(excess, below, beyond, xtol=1e-12))


def _check_question(target: float, bounds: tuple[float, float], scan_points: int) -> None:
    low, high = bounds
    if not (math.isfinite(target) and target > 0.0):
        raise ValueError(f"target: expected a finite loss above 0, got {target}")
    if not (math.isfinite(high) and 0.0 < low < high):
        raise ValueError(f"bounds: expected 0 < low < high, got {bounds}")
    if scan_points < 2:
        raise ValueError(f"scan_points: expected 2 or more, got {scan_points}")


def _peaks(
    excess: Callable[[float], float], multipliers: Floats, losses: Floats, before: int
) -> list[tuple[float, int, float]]:
    """(multiplier, place, excess) of the loss's maxima about local maxima of the scan, rising, up to the first that
    reaches the target; only of places before `before`."""
    last = len(losses) - 1
    left, right = np.concatenate((losses[:1], losses[:-1])), np.concatenate((losses[1:], losses[-1:]))
    tops = (losses >= left) & (losses >= right) & ((losses > left) | (losses > right))
    places = np.flatnonzero(tops)
    found: list[tuple[float, int, float]] = []
    for place in places[places < before].tolist()[:PEAKS_MAX]:
        around = (float(multipliers[max(place - 1, 0)]), float(multipliers[min(place + 1, last)]))
        best = minimize_scalar(lambda at: -excess(at), bounds=around, method="bounded", options={"xatol": 1e-9})
        found.append((float(best.x), place, float(-best.fun)))
        if found[-1][2] >= 0.0:
            break
    return found


@dataclass(frozen=True, slots=True, eq=False)
class JointShock:
    """The joint shock nearest to no move at all, by Mahalanobis distance, that costs the target."""

    names: tuple[str, ...]
    target_loss: float
    reachable: bool
    """A book without open orders or options reaches every loss; another was searched up to DISTANCE_MAX."""
    shocks: Floats | None
    """(m,) simple returns in base currency, by name; None where the target is not reachable."""
    loss: float | None
    """At the shocks: the target, but for the solver's tolerance."""
    contributions: Floats | None
    """(m,) loss of what hangs on each name; they sum to `loss`."""
    distance: float | None
    """Mahalanobis: the number of standard deviations that the shock is away, all correlations counted."""
    plausibility: float | None
    """Chi-square tail with as many degrees of freedom as the covariance has rank: the probability of any joint move at
    least so far out, were moves normal. With many names far ones are common; compare shocks over the same names."""
    tail_probability: float | None
    """Φ(-distance), that of losing the target or more, were moves normal and the book linear about the shock."""
    infeasible: tuple[str, ...]
    """Names that would have to lose all of their price or more: a normal model's shock that no market can make."""
    loss_max: float
    """The greatest loss found; of a linear book that at the shocks."""
    method: str
    """"closed_form" or "slsqp"."""
    starts: int
    """From how many directions a solver began; 0 for the closed form."""
    warnings: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        return self.reachable and not self.infeasible


@dataclass(frozen=True, slots=True, eq=False)
class NonLinear:
    """The part of a book's P&L that is not linear in the shocks: options, and open orders at their worse end."""

    places: NDArray[np.intp]
    """(u,) of the names that it hangs on, rising."""
    pnl: Callable[[Floats], Floats]
    """Shocks (k, u) of those names, all at or above PRICE_SHOCK_MIN -> P&L (k, u), what hangs on each name alone."""


def most_likely_shock(
    names: Sequence[str],
    values: ArrayLike,
    covariance: ArrayLike,
    target: float,
    non_linear: NonLinear | None = None,
) -> JointShock:
    """Of all joint shocks x of `names` that lose `target`, the one with the least x'Σ⁻¹x.

    P&L = `values`·x (m,) + that of `non_linear`; `covariance` Σ (m, m) is that of simple returns in base currency over
    the horizon meant. Linear: x = -L·Σw/(w'Σw) at distance L/√(w'Σw) (Lagrange; Breuer, Jandacka, Rheinberger and
    Summer 2009, "How to find plausible, severe, and useful stress scenarios"). Else SLSQP from several directions, in
    the few dimensions that matter: the linear part enters as one. That is a local search: what it finds is a shock that
    costs the target, and no proof that none is nearer. Raises ValueError on shapes that disagree, on what is not
    finite, on a covariance that is not symmetric and positive semi-definite, on a target not above 0, and where the
    linear book does not move at all.
    """
    weights, sigma = _checked(names, values, covariance)
    if not (math.isfinite(target) and target > 0.0):
        raise ValueError(f"target: expected a finite loss above 0, got {target}")
    if non_linear is None or not len(non_linear.places):
        return _linear_shock(tuple(names), weights, sigma, target)
    return _searched_shock(tuple(names), weights, sigma, target, non_linear)


def _checked(names: Sequence[str], values: ArrayLike, covariance: ArrayLike) -> tuple[Floats, Floats]:
    m = len(names)
    weights, sigma = np.asarray(values, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    if not m or weights.shape != (m,):
        raise ValueError(f"values: expected shape {(m,)}, one a name and at least one, got {weights.shape}")
    if sigma.shape != (m, m):
        raise ValueError(f"covariance: expected shape {(m, m)}, got {sigma.shape}")
    if not (np.isfinite(weights).all() and np.isfinite(sigma).all()):
        raise ValueError("values and covariance: expected finite numbers, got NaN or infinity")
    if not np.allclose(sigma, sigma.T, rtol=1e-8, atol=1e-14) or (np.diag(sigma) < 0.0).any():
        raise ValueError("covariance: expected a symmetric matrix without a negative variance")
    return weights, sigma


def _rank(sigma: Floats) -> int:
    """Of a covariance. Raises ValueError where it is not positive semi-definite, but for rounding."""
    eigenvalues = np.linalg.eigvalsh(sigma)
    slack = 1e-10 * max(float(eigenvalues[-1]), 0.0)
    if eigenvalues[0] < -slack:
        raise ValueError(f"covariance: expected none of its eigenvalues below 0, got {eigenvalues[0]:.3g}")
    return int((eigenvalues > slack).sum())


def _linear_shock(names: tuple[str, ...], weights: Floats, sigma: Floats, target: float) -> JointShock:
    rank = _rank(sigma)
    slopes = sigma @ weights
    variance = float(weights @ slopes)
    if not variance > 0.0:
        raise ValueError(f"values: expected a book with some variance under the covariance, got {variance:.3g}")
    shocks: Floats = slopes * (-target / variance)
    return _joint_shock(names, target, shocks, -weights * shocks, target / math.sqrt(variance), rank, "closed_form", 0)


def _joint_shock(
    names: tuple[str, ...],
    target: float,
    shocks: Floats,
    contributions: Floats,
    distance: float,
    rank: int,
    method: str,
    starts: int,
    warnings: tuple[str, ...] = (),
) -> JointShock:
    loss = math.fsum(contributions.tolist())
    infeasible = tuple(name for name, shock in zip(names, shocks.tolist(), strict=True) if shock <= -1.0)
    return JointShock(
        names=names,
        target_loss=target,
        reachable=True,
        shocks=shocks,
        loss=loss,
        contributions=contributions,
        distance=distance,
        plausibility=float(chdtrc(rank, distance * distance)),
        tail_probability=float(ndtr(-distance)),
        infeasible=infeasible,
        loss_max=loss,
        method=method,
        starts=starts,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Reduced:
    """The search in d dimensions: of x only v = B'x matters, the linear P&L (where there is any) and the non-linear
    names, each scaled to unit variance. v = root @ z; |z| is the Mahalanobis distance of the likeliest x with that v.
    """

    basis: Floats
    """B (m, p)."""
    scales: Floats
    """(p,) what one standard deviation of each is, in money or as a return."""
    root: Floats
    """(p, d), of full rank."""
    has_linear: bool
    pnl: Callable[[Floats], Floats]

    def losses(self, points: Floats) -> Floats:
        """(k,) at `points` (k, d). Raises ValueError where P&L is not finite."""
        moved = points @ self.root.T * self.scales
        linear = moved[:, 0] if self.has_linear else np.zeros(len(points))
        shocks = np.maximum(moved[:, 1:] if self.has_linear else moved, PRICE_SHOCK_MIN)
        losses: Floats = -(linear + self.pnl(shocks).sum(axis=1))
        if not np.isfinite(losses).all():
            raise ValueError("non_linear: expected finite P&L at every shock, got NaN or infinity")
        return losses

    def slope(self, point: Floats) -> Floats:
        """(d,) gradient of the loss, by central differences."""
        steps = np.eye(len(point)) * DIFFERENCE_STEP
        gradient: Floats = (self.losses(point + steps) - self.losses(point - steps)) / (2.0 * DIFFERENCE_STEP)
        return gradient

    def likeliest(self, point: Floats, sigma: Floats) -> Floats:
        """(m,) the shock of least Mahalanobis distance that is seen as `point` here: ΣB(B'ΣB)⁺v."""
        shocks: Floats = sigma @ self.basis @ (np.linalg.pinv(self.root.T) @ point)
        return shocks


def _reduced(weights: Floats, sigma: Floats, non_linear: NonLinear) -> _Reduced:
    chosen = np.zeros((len(weights), len(non_linear.places)))
    chosen[non_linear.places, np.arange(len(non_linear.places))] = 1.0
    has_linear = bool(weights.any())
    basis = np.column_stack((weights, chosen)) if has_linear else chosen
    deviations = np.sqrt(np.maximum(np.einsum("ip,ip->p", basis, sigma @ basis), 0.0))
    scales = np.where(deviations > 0.0, deviations, 1.0)
    basis = basis / scales
    eigenvalues, vectors = np.linalg.eigh(basis.T @ sigma @ basis)
    kept = eigenvalues > 1e-10 * max(float(eigenvalues[-1]), 0.0)
    if not kept.any():
        raise ValueError("values: expected a book with some variance under the covariance, got none")
    root = vectors[:, kept] * np.sqrt(eigenvalues[kept])
    return _Reduced(basis, scales, root, has_linear, non_linear.pnl)


def _searched_shock(
    names: tuple[str, ...], weights: Floats, sigma: Floats, target: float, non_linear: NonLinear
) -> JointShock:
    rank = _rank(sigma)
    reduced = _reduced(weights, sigma, non_linear)
    starts, loss_max = _starts(reduced, target)
    found = [ended for start in starts if (ended := _nearest(reduced, target, start)) is not None]
    if not found:
        return _unreachable(names, target, loss_max, len(starts))
    best, converged = min(found, key=lambda ended: float(ended[0] @ ended[0]))
    shocks = reduced.likeliest(best, sigma)
    contributions = -weights * shocks
    moved = np.maximum(shocks[non_linear.places], PRICE_SHOCK_MIN)
    contributions[non_linear.places] -= non_linear.pnl(moved[None, :])[0]
    distance = float(np.linalg.norm(best))
    warnings = () if converged else ("the solver did not converge: the shock costs the target, a nearer one may too",)
    return _joint_shock(names, target, shocks, contributions, distance, rank, "slsqp", len(starts), warnings)


def _starts(reduced: _Reduced, target: float) -> tuple[list[Floats], float]:
    """Points to search from, and the greatest loss seen: along ± the steepest loss and ± the likeliest move of each
    dimension, where the target is reached first; where none reaches it, those that lose most."""
    d = reduced.root.shape[1]
    steepest = reduced.slope(np.zeros(d))
    directions = np.vstack((steepest[None, :], reduced.root))
    lengths = np.linalg.norm(directions, axis=1)
    directions = directions[lengths > 0.0] / lengths[lengths > 0.0, None]
    directions = np.vstack((directions, -directions))
    distances = np.linspace(0.0, DISTANCE_MAX, RAY_POINTS)
    rays = directions[:, None, :] * distances[:, None]
    losses = reduced.losses(rays.reshape(-1, d)).reshape(len(directions), RAY_POINTS)
    starts_max = STARTS_MAX if d <= DIMENSIONS_MANY else STARTS_OF_MANY_MAX
    reached = losses >= target
    reaching = np.flatnonzero(reached.any(axis=1))
    if len(reaching):
        first = reached[reaching].argmax(axis=1)
        order = np.argsort(first, kind="stable")[:starts_max]
        return [rays[reaching[at], first[at]] for at in order.tolist()], float(losses.max())
    tops = losses.argmax(axis=1)
    order = np.argsort(-losses.max(axis=1), kind="stable")[:starts_max]
    return [rays[at, tops[at]] for at in order.tolist()], float(losses.max())


def _nearest(reduced: _Reduced, target: float, start: Floats) -> tuple[Floats, bool] | None:
    """The nearest point to 0 about `start` that costs the target, and whether the solver converged there; the start
    itself where it did not; None where neither costs it within DISTANCE_MAX."""
    solved = minimize(
        lambda point: 0.5 * float(point @ point),
        start,
        jac=lambda point: point,
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda point: float(reduced.losses(point[None, :])[0]) / target - 1.0,
            "jac": lambda point: reduced.slope(point) / target,
        },
        options={"maxiter": 200, "ftol": 1e-12},
    )
    for point, converged in ((solved.x, bool(solved.success)), (start, False)):
        costs = float(reduced.losses(point[None, :])[0]) >= target * (1.0 - LOSS_SLACK)
        if costs and np.linalg.norm(point) <= DISTANCE_MAX * (1.0 + LOSS_SLACK):
            return point, converged
    return None


def _unreachable(names: tuple[str, ...], target: float, loss_max: float, starts: int) -> JointShock:
    return JointShock(
        names=names,
        target_loss=target,
        reachable=False,
        shocks=None,
        loss=None,
        contributions=None,
        distance=None,
        plausibility=None,
        tail_probability=None,
        infeasible=(),
        loss_max=loss_max,
        method="slsqp",
        starts=starts,
        warnings=(f"no shock within {DISTANCE_MAX:g} standard deviations that costs the target was found",),
    )


@dataclass(frozen=True, slots=True, eq=False)
class BookShock:
    """The most likely joint shock of a book, and the rows that it could not count."""

    shock: JointShock
    left_out: tuple[LeftOut, ...]


def most_likely_book_shock(book: StressBook, names: Sequence[str], covariance: ArrayLike, target: float) -> BookShock:
    """`most_likely_shock` of `book`, open orders at their worse end, options by revaluation at unchanged volatility.

    `names` (m) are symbols; a linear row hangs on its own, an option on its underlying's, which the shock moves with
    exchange rates unchanged. Rows of other symbols are left out visibly. Raises ValueError as `most_likely_shock`, and
    where no row at stake hangs on any name.
    """
    place = {name: at for at, name in enumerate(names)}
    hangs_on = _hangs_on(book, place)
    faults = unrevalued(book)
    at_stake = np.flatnonzero(book.at_stake).tolist()
    reasons = {row: faults.get(row, "not among the names shocked") for row in at_stake}
    unknown = {row for row in at_stake if row in faults or hangs_on[row] < 0}
    counted = [row for row in at_stake if row not in unknown]
    if not counted:
        raise ValueError("book: expected a row at stake among the names shocked, got none")
    left_out = book.left_out + tuple(book.leaves_out(row, reasons[row]) for row in sorted(unknown))
    fixed = book.linear & (book.low == book.high)
    weights = np.zeros(len(names))
    linear = [row for row in counted if fixed[row]]
    np.add.at(weights, hangs_on[linear], book.low[linear])
    bent = np.array([row for row in counted if not fixed[row]], dtype=np.intp)
    shock = most_likely_shock(names, weights, covariance, target, _non_linear(book, bent, hangs_on))
    return BookShock(shock, left_out)


def _hangs_on(book: StressBook, place: Mapping[str, int]) -> NDArray[np.intp]:
    """(n,) the place of the name that moves each row, -1 where none does."""
    symbols = [instrument.symbol for instrument in book.instruments]
    if book.options is not None:
        for row, underlying in zip(book.options.rows.tolist(), book.options.underlyings, strict=True):
            symbols[row] = underlying.symbol
    return np.array([place.get(symbol, -1) for symbol in symbols], dtype=np.intp)


def _non_linear(book: StressBook, bent: NDArray[np.intp], hangs_on: NDArray[np.intp]) -> NonLinear | None:
    if not len(bent):
        return None
    places, column = np.unique(hangs_on[bent], return_inverse=True)
    low, high = book.low[bent, None], book.high[bent, None]
    rows = np.zeros((len(bent), len(places)))
    rows[np.arange(len(bent)), column] = 1.0
    options = book.options
    if options is not None:
        revalued = np.isin(options.rows, bent)
        column_of = dict(zip(bent.tolist(), column.tolist(), strict=True))
        option_columns = np.array([column_of.get(row, 0) for row in options.rows.tolist()], dtype=np.intp)
        option_places = np.searchsorted(bent, options.rows[revalued])

    def pnl(shocks: Floats) -> Floats:
        returns = shocks.T[column]
        if options is not None and len(options.rows):
            moves = np.where(revalued[:, None], shocks.T[option_columns], 0.0)
            still = np.zeros_like(moves)
            returns[option_places] = options.returns(moves, still, still)[revalued]
        worse = np.minimum(low * returns, high * returns)
        by_name: Floats = worse.T @ rows
        return by_name

    return NonLinear(places.astype(np.intp), pnl)
