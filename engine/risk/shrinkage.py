"""The shrunk covariance of returns: Ledoit and Wolf's, towards the scaled identity, and what is derived from it.

A covariance as a matrix (up to some thousand instruments), as factors (any number: no n × n matrix is formed), its
correlation, and a Cholesky factor behind a floor of the eigenvalues. What never moved carries no risk: it is left out
of the estimate and has zero variance, since the identity target would invent one for it. No VaR here. Imports
scikit-learn, so only the worker may import this.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

EIGENVALUE_MIN = 1e-8
"""Of a correlation matrix. Far below any that a market shows, far above the rounding of a Cholesky factor of 5,000."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ShrunkFactors:
    """The shrunk covariance as loadings.T @ loadings + diag(noise): variances per day of simple returns.

    `loadings` (T, n) are the centred returns × sqrt((1 - intensity) / T); `noise` (n,) is intensity × the mean
    variance, 0 for what never moved. Exactly the matrix of `shrunk_covariance`, in T·n numbers rather than n².
    """

    loadings: Floats
    noise: Floats
    intensity: float
    """Share of the target, 0 to 1."""

    def variances(self) -> Floats:
        """Per instrument, shape (n,), per day."""
        return np.asarray(np.einsum("ti,ti->i", self.loadings, self.loadings) + self.noise)

    def variance_of(self, values: Floats) -> float:
        """Of the P&L of `values` (n,), money at the mark: money² per day."""
        exposure = self.loadings @ values
        return float(exposure @ exposure + self.noise @ (values * values))

    def covariance_with(self, values: Floats) -> Floats:
        """Covariance of each instrument's return with the P&L of `values` (n,): shape (n,), money per day."""
        return self.loadings.T @ (self.loadings @ values) + self.noise * values


def shrunk_covariance(returns: Floats) -> tuple[Floats, float]:
    """The covariance (n, n) of `returns` (T, n), simple and daily, and the intensity of the shrinkage (0 to 1).

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004): divisor T, about
    the sample mean, target = mean variance × identity. Columns that never move have zero rows and columns and take no
    part. Raises ValueError on NaN, fewer than two rows, or where no column moves.
    """
    moving = _moving(returns)
    shrunk, intensity = ledoit_wolf(returns if moving.all() else returns[:, moving])
    if moving.all():
        return shrunk, float(intensity)
    covariance = np.zeros((moving.size, moving.size))
    covariance[np.ix_(moving, moving)] = shrunk
    return covariance, float(intensity)


def shrunk_factors(returns: Floats) -> ShrunkFactors:
    """The same estimate as factors, for books of any size. Raises ValueError like `shrunk_covariance`.

    Time min(T, n)·T·n: the intensity needs the Frobenius norm of the sample covariance alone, which its Gram matrix
    has as well, and the sum over all i, j of the products of squares is a sum of squared rows.
    """
    moving = _moving(returns)
    n_days, n_moving = returns.shape[0], int(moving.sum())
    centred = np.where(moving, returns - returns.mean(axis=0), 0.0)
    gram = (centred @ centred.T if n_days < n_moving else centred.T @ centred) / n_days
    mean_variance = float(np.trace(gram)) / n_moving
    norm = float((gram * gram).sum())
    spread = norm - n_moving * mean_variance**2
    squares = np.einsum("ti,ti->t", centred, centred)
    error = (float(squares @ squares) / n_days - norm) / n_days
    intensity = min(max(error, 0.0), spread) / spread if spread > 0.0 and n_moving > 1 else 0.0
    return ShrunkFactors(
        loadings=centred * np.sqrt((1.0 - intensity) / n_days),
        noise=np.where(moving, intensity * mean_variance, 0.0),
        intensity=intensity,
    )


def correlation_of(covariance: Floats) -> Floats:
    """The correlation (n, n) of a covariance (n, n): ones on its diagonal, zeros beside it for what has no variance.

    Raises ValueError where the matrix is not square, symmetric and finite, or has a negative variance.
    """
    check_covariance(covariance)
    deviations = np.sqrt(np.diagonal(covariance))
    scale = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=deviations > 0.0)
    correlation: Floats = covariance * scale * scale[:, None]
    np.fill_diagonal(correlation, 1.0)
    return correlation


def floored_cholesky(correlation: Floats, eigenvalue_min: float = EIGENVALUE_MIN) -> tuple[Floats, bool]:
    """The lower Cholesky factor (n, n) of `correlation` (n, n), and whether its eigenvalues had to be raised.

    Where the smallest eigenvalue is below `eigenvalue_min`, those below are raised to it and the diagonal is scaled
    back to 1 (Rebonato and Jäckel 1999, the spectral method). Whether that is needed is told by a Cholesky factor of
    the matrix less the floor, at a tenth of the price of the eigenvalues. Raises ValueError like `correlation_of`.
    """
    check_covariance(correlation)
    if not eigenvalue_min > 0.0:
        raise ValueError(f"eigenvalue_min: expected a number above 0, got {eigenvalue_min}")
    if _is_positive_definite(correlation - eigenvalue_min * np.eye(len(correlation))):
        return _cholesky(correlation), False
    eigenvalues, vectors = np.linalg.eigh(correlation)
    raised = (vectors * np.maximum(eigenvalues, eigenvalue_min)) @ vectors.T
    return _cholesky(correlation_of((raised + raised.T) / 2.0)), True


def check_covariance(covariance: Floats) -> None:
    """Raise ValueError unless `covariance` is square, finite, symmetric, with variances of 0 or more."""
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance: expected a square matrix, got shape {covariance.shape}")
    if not np.isfinite(covariance).all():
        raise ValueError("covariance: expected finite numbers, got NaN or infinity")
    diagonal = np.diagonal(covariance)
    if (diagonal < 0.0).any():
        raise ValueError(f"covariance: expected variances of 0 or more, got {diagonal.min():g}")
    if np.abs(covariance - covariance.T).max(initial=0.0) > 1e-9 * max(float(diagonal.max(initial=0.0)), 1e-300):
        raise ValueError("covariance: expected a symmetric matrix")


def check_returns(returns: Floats, days_min: int = 2) -> None:
    """Raise ValueError unless `returns` is a finite matrix (T, n) of at least `days_min` rows and one column."""
    if returns.ndim != 2 or returns.shape[1] == 0:
        raise ValueError(f"returns: expected shape (days, instruments), got {returns.shape}")
    if returns.shape[0] < days_min:
        raise ValueError(f"returns: expected at least {days_min} days, got {returns.shape[0]}")
    if not np.isfinite(returns).all():
        faulty = np.flatnonzero(~np.isfinite(returns).all(axis=0))
        raise ValueError(f"returns: expected finite numbers, got NaN or infinity in column {faulty[0]}")


def moving_columns(returns: Floats) -> NDArray[np.bool_]:
    """Which columns of `returns` (T, n) ever change: cash in the base currency does not, nor does a stale price."""
    return np.asarray(returns.min(axis=0) < returns.max(axis=0))


def _moving(returns: Floats) -> NDArray[np.bool_]:
    check_returns(returns)
    moving = moving_columns(returns)
    if not moving.any():
        raise ValueError("returns: expected at least one column that moves, got constants")
    return moving


def _cholesky(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)


def _is_positive_definite(matrix: Floats) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
