"""Value at risk and expected shortfall of a vector of losses.

The one place that fixes the quantile: order statistic ceil(a·n) of the losses, a = 1 - confidence, and expected
shortfall as Rockafellar and Uryasev define it (exactly mass a of the tail, the last observation in part).
Losses are positive, gains negative; a negative VaR (even the tail gains) stays negative. No scaling to other horizons,
no scenario building here. Stress and gap rows must not be in the losses given to these functions.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Quantile = Literal["order_statistic", "linear"]
"""`order_statistic`: the ceil(a·n)-th worst loss. `linear`: numpy's percentile, between two of them."""

TAIL_SLACK = 1e-9
"""1 - 0.95 is 0.050000000000000044: without slack the tail of 100 days at 95 % would hold 6 of them, not 5."""


def tail_count(n: int, confidence: float) -> int:
    """How many of `n` observations make the tail: ceil((1 - confidence)·n), at least 1.

    38 of 756 at 0.95, 8 of 756 at 0.99. Raises ValueError where `confidence` is outside (0, 1) or `n` below 1.
    """
    check_confidence(confidence)
    if n < 1:
        raise ValueError(f"observations: expected at least 1, got {n}")
    return max(1, math.ceil((1.0 - confidence) * n - TAIL_SLACK))


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless `confidence` is above 0 and below 1: 0.99 for 99 %."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a number above 0 and below 1 (0.99 for 99 %), got {confidence}")


def value_at_risk(losses: ArrayLike, confidence: float, quantile: Quantile = "order_statistic") -> float:
    """The loss not exceeded with `confidence`, in the unit of `losses` (shape (n,), positive = loss).

    `order_statistic` equals -numpy.quantile(-losses, 1 - confidence, method="inverted_cdf"). Raises ValueError on
    NaN or infinite losses, and where n is too small to hold one observation of the tail (n < 1 / (1 - confidence)).
    """
    observed = _observations(losses, confidence)
    if quantile == "linear":
        return float(np.quantile(observed, confidence, method="linear"))
    if quantile != "order_statistic":
        raise ValueError(f"quantile: expected order_statistic or linear, got {quantile!r}")
    place = observed.size - tail_count(observed.size, confidence)
    return float(np.partition(observed, place)[place])


def expected_shortfall(losses: ArrayLike, confidence: float) -> float:
    """The mean of exactly the worst share 1 - confidence of `losses` (shape (n,), positive = loss), in their unit.

    Rockafellar and Uryasev, "Conditional value-at-risk for general loss distributions" (2002), proposition 8: with t
    = a·n and k = ceil(t), (sum of the k - 1 worst + (t - (k - 1))·the k-th worst) / t. Subadditive and never below the
    order-statistic VaR. Raises ValueError like `value_at_risk`.
    """
    observed = _observations(losses, confidence)
    mass = (1.0 - confidence) * observed.size
    count = tail_count(observed.size, confidence)
    place = observed.size - count
    tail = np.partition(observed, place)[place:]
    last = float(tail[0])
    # Excess over the k-th worst: the fractional weight of that one observation falls out, and ES >= VaR holds exactly.
    return last + float(np.maximum(tail - last, 0.0).sum()) / max(mass, 1.0)


def _observations(losses: ArrayLike, confidence: float) -> NDArray[np.float64]:
    observed = np.asarray(losses, dtype=np.float64)
    if observed.ndim != 1:
        raise ValueError(f"losses: expected one dimension, got shape {observed.shape}")
    tail_count(observed.size, confidence)
    if observed.size * (1.0 - confidence) < 1.0 - TAIL_SLACK:
        needed = math.ceil(1.0 / (1.0 - confidence) - TAIL_SLACK)
        raise ValueError(f"observations: expected at least {needed} for confidence {confidence}, got {observed.size}")
    if not np.isfinite(observed).all():
        raise ValueError("losses: expected finite numbers, got NaN or infinity")
    return observed
