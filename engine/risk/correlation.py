"""Correlation of instruments or of strategies, and who belongs together: by threshold and by average linkage.

From daily returns or from daily P&L (a strategy is its P&L series). A series that never moves has no correlation: it is
named in `constant` and in no matrix and no cluster. Correlated is what moves the same way: -1 is as far apart as can
be. What is done with a cluster (a limit, a page) is decided elsewhere. Worker only: it imports scikit-learn and scipy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from engine.risk.shrinkage import check_returns, correlation_of, moving_columns, shrunk_covariance

Estimator = Literal["sample", "shrunk"]
Floats = NDArray[np.float64]

THRESHOLD_DAYS_MIN = 30
"""Below, a correlation of 0 is estimated to ±0.36 (1.96/√29): the matrix comes with a warning."""


@dataclass(frozen=True, slots=True, eq=False)
class CorrelationMatrix:
    """Of the series that move, in the order given."""

    names: tuple[str, ...]
    matrix: Floats
    """(n, n) symmetric, 1 on the diagonal, in [-1, 1]."""
    estimator: Estimator
    intensity: float
    """Of the shrinkage, 0 to 1; 0 for the sample."""
    n_observations: int
    constant: tuple[str, ...]
    """Series that never move."""
    warnings: tuple[str, ...] = ()

    def of(self, one: str, other: str) -> float:
        """Their correlation. Raises KeyError for a name that has none."""
        for name in (one, other):
            if name not in self.names:
                raise KeyError(name)
        return float(self.matrix[self.names.index(one), self.names.index(other)])

    @property
    def mean(self) -> float | None:
        """Of all pairs; None with fewer than two series."""
        n = len(self.names)
        return float(self.matrix.sum() - n) / (n * (n - 1)) if n > 1 else None


@dataclass(frozen=True, slots=True)
class Clusters:
    """Names that belong together, the largest first, each in the matrix's order; every name that moves is in one."""

    members: tuple[tuple[str, ...], ...]
    threshold: float
    unclustered: tuple[str, ...]
    """Names without any correlation: they never moved."""


def correlation_matrix(series: Floats, names: Sequence[str], estimator: Estimator = "sample") -> CorrelationMatrix:
    """The correlation of the columns of `series` (T, n): daily returns, or daily P&L in one currency.

    `sample`: Pearson's. `shrunk`: of Ledoit and Wolf's shrunk covariance (shrinkage.py), whose target pulls every
    correlation towards 0, most of all those of series that vary little beside the others. For P&L of strategies of
    different size take the sample. Raises ValueError on fewer than 3 days, NaN, names that are not one for each column
    and each once, an unknown estimator, or where nothing moves.
    """
    check_returns(series, days_min=3)
    if len(names) != series.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"names: expected {series.shape[1]}, each once, got {len(names)}")
    moving = moving_columns(series)
    if not moving.any():
        raise ValueError("series: expected at least one that moves, got constants")
    covariance, intensity = _covariance(series[:, moving], estimator)
    matrix = np.clip(correlation_of(covariance), -1.0, 1.0)
    constant = tuple(name for name, moves in zip(names, moving, strict=True) if not moves)
    return CorrelationMatrix(
        names=tuple(name for name, moves in zip(names, moving, strict=True) if moves),
        matrix=matrix,
        estimator=estimator,
        intensity=intensity,
        n_observations=series.shape[0],
        constant=constant,
        warnings=tuple(_warnings(series.shape[0], constant)),
    )


def threshold_clusters(correlation: CorrelationMatrix, threshold: float) -> Clusters:
    """Connected components of the graph in which a correlation of `threshold` or more is an edge (single linkage).

    A chain joins its ends, however little they have in common: the cautious choice for a limit. Raises ValueError on a
    threshold outside [-1, 1].
    """
    _check_threshold(threshold)
    _, labels = connected_components(correlation.matrix >= threshold, directed=False)
    return _clusters(correlation, labels, threshold)


def linkage_clusters(correlation: CorrelationMatrix, threshold: float) -> Clusters:
    """Average linkage (UPGMA) on the distance 1 - correlation, cut where clusters average less than `threshold`.

    Sokal and Michener (1958). Members need to be correlated with the cluster on average, so that no chain holds it
    together. Raises ValueError on a threshold outside [-1, 1].
    """
    _check_threshold(threshold)
    if len(correlation.names) == 1:
        return _clusters(correlation, np.zeros(1, dtype=np.intp), threshold)
    distance = squareform(1.0 - correlation.matrix, checks=False)
    labels = fcluster(linkage(distance, method="average"), t=1.0 - threshold, criterion="distance")
    return _clusters(correlation, labels, threshold)


def _covariance(series: Floats, estimator: Estimator) -> tuple[Floats, float]:
    if estimator == "shrunk":
        return shrunk_covariance(series)
    if estimator != "sample":
        raise ValueError(f"estimator: expected sample or shrunk, got {estimator!r}")
    return np.atleast_2d(np.cov(series, rowvar=False)), 0.0


def _clusters(correlation: CorrelationMatrix, labels: NDArray[np.integer], threshold: float) -> Clusters:
    members: dict[int, list[str]] = {}
    for name, label in zip(correlation.names, labels.tolist(), strict=True):
        members.setdefault(label, []).append(name)
    largest_first = sorted(members.values(), key=len, reverse=True)
    return Clusters(tuple(tuple(names) for names in largest_first), threshold, correlation.constant)


def _warnings(n_days: int, constant: Sequence[str]) -> list[str]:
    warnings = []
    if constant:
        warnings.append(f"no correlation, since they never moved: {', '.join(constant)}")
    if n_days < THRESHOLD_DAYS_MIN:
        warnings.append(f"correlation over {n_days} days: below {THRESHOLD_DAYS_MIN} it is mostly chance")
    return warnings


def _check_threshold(threshold: float) -> None:
    if not -1.0 <= threshold <= 1.0:
        raise ValueError(f"threshold: expected a correlation from -1 to 1, got {threshold}")
