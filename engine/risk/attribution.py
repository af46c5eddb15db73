"""Where a period's P&L came from: by strategy, sector or symbol, and by factor. Every cut sums to the same total.

Money in base currency, a gain is positive. What positions don't explain of an account's P&L (fees, interest, trades of
the day) is a line of its own, and what factors don't explain of a position's is its specific P&L: nothing is spread
over the others. The P&L itself is made in engine/pnl.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a cut."""

    label: str
    pnl: float
    share: float | None
    """Of the total, signed; None where the total is 0."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """P&L of a period in every cut asked for."""

    total: float
    other: float
    """Of the total, what no position explains: part of no cut, and each cut and it sum to the total."""
    cuts: Mapping[str, tuple[Part, ...]]
    """By grouping, the greatest gain first."""


@dataclass(frozen=True, slots=True, eq=False)
class FactorAttribution:
    """P&L of a period by factor; factors and specific P&L sum to the total."""

    total: float
    factors: tuple[Part, ...]
    """The greatest gain first."""
    specific: float
    position_factors: Floats
    """(n, f) P&L of each position through each factor."""
    position_specific: Floats
    """(n,)"""


def attribute(pnl: ArrayLike, groupings: Mapping[str, Sequence[str]], total: float | None = None) -> Attribution:
    """P&L of positions, `pnl` (n,), summed by each of `groupings` (for each name the label of every position).

    `total`: the account's P&L of the period, where it is more than its positions'; None: their sum. Raises ValueError
    on P&L that is not finite and on labels that are not one for each position.
    """
    by_position = _finite("pnl", pnl, 1)
    for name, labels in groupings.items():
        if len(labels) != by_position.size:
            raise ValueError(f"groupings.{name}: expected {by_position.size} labels, got {len(labels)}")
    explained = math.fsum(by_position.tolist())
    whole = explained if total is None else float(_finite("total", total, 0))
    return Attribution(
        total=whole,
        other=whole - explained,
        cuts={name: _parts(_by_label(labels, by_position), whole) for name, labels in groupings.items()},
    )


def attribute_factors(
    values: ArrayLike, sensitivities: ArrayLike, moves: ArrayLike, pnl: ArrayLike, factors: Sequence[str]
) -> FactorAttribution:
    """P&L through factors = value × sensitivity × move, summed over the period; what is left is specific.

    `values` (T, n): money at each day's start; `sensitivities` (n, f): return for one unit of the factor's move (a
    beta, minus a duration), 0 where the factor does not reach the position; `moves` (T, f); `pnl` (T, n). A single
    period may leave T out of each. Arithmetic (Brinson and Fachler 1985 in its additive form): days add up, since
    money does. Raises ValueError on shapes that disagree, figures that are not finite, factors that are not named once.
    """
    held, by_position = _by_day("values", values), _by_day("pnl", pnl)
    shifts, betas = _by_day("moves", moves), _finite("sensitivities", sensitivities, 2)
    _check_shapes(held, betas, shifts, by_position, factors)
    through = (held.T @ shifts) * betas
    specific = by_position.sum(axis=0) - through.sum(axis=1)
    total = math.fsum(by_position.ravel().tolist())
    by_factor = {name: math.fsum(through[:, place].tolist()) for place, name in enumerate(factors)}
    return FactorAttribution(
        total=total,
        factors=_parts(by_factor, total),
        specific=math.fsum(specific.tolist()),
        position_factors=through,
        position_specific=specific,
    )


def _by_label(labels: Sequence[str], by_position: Floats) -> dict[str, float]:
    members: dict[str, list[float]] = {}
    for label, pnl in zip(labels, by_position.tolist(), strict=True):
        members.setdefault(label, []).append(pnl)
    return {label: math.fsum(pnls) for label, pnls in members.items()}


def _parts(by_label: Mapping[str, float], total: float) -> tuple[Part, ...]:
    greatest_first = sorted(by_label.items(), key=lambda entry: -entry[1])
    return tuple(Part(label, pnl, pnl / total if total else None) for label, pnl in greatest_first)


def _by_day(name: str, rows: ArrayLike) -> Floats:
    return _finite(name, np.atleast_2d(np.asarray(rows, dtype=np.float64)), 2)


def _finite(name: str, numbers: ArrayLike, dimensions: int) -> Floats:
    array = np.asarray(numbers, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{name}: expected {dimensions} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return array


def _check_shapes(held: Floats, betas: Floats, shifts: Floats, by_position: Floats, factors: Sequence[str]) -> None:
    n_days, n_positions = held.shape
    for name, array, expected in (
        ("sensitivities", betas, (n_positions, len(factors))),
        ("moves", shifts, (n_days, len(factors))),
        ("pnl", by_position, (n_days, n_positions)),
    ):
        if array.shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
    if len(set(factors)) != len(factors):
        raise ValueError("factors: expected each name once, got duplicates")
