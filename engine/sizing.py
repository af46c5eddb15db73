"""How large a position should be: Kelly, volatility, stop and risk-budget sizing, as shares of equity.

Pure formulas over numbers: no account, no limits, no model. A share of equity is what the position is worth at the mark
over the equity, negative = short. Whoever asks bounds the result by the limits (engine/risk/sizing_answers.py). No edge
gives 0, a negative one 0 too unless shorting is allowed; an input that makes no sense raises ValueError by its name.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONDITION_MAX = 1e10
"""Beyond it the inverse of a covariance is rounding, and so are weights made of it."""

_SWEEPS_MAX = 100_000
_SWEEP_TOLERANCE = 1e-12
"""Of the largest weight: what a sweep of the long-only solver may still change."""


def kelly(expected_return: float, riskless_rate: float, volatility: float, short_allowed: bool = False) -> float:
    """(μ − r)/σ²: the share of equity that grows fastest, of one position with normal returns; no bound.

    All three per year as decimals, σ above 0. Merton (1969), Thorp (2006). Raises ValueError.
    """
    _need_finite("expected_return", expected_return)
    _need_finite("riskless_rate", riskless_rate)
    _need_positive("volatility", volatility)
    return _edge((expected_return - riskless_rate) / volatility**2, short_allowed)


def kelly_binary(win_probability: float, win_ratio: float, loss_ratio: float, short_allowed: bool = False) -> float:
    """p/a − q/b: the share of equity to stake where b of the stake is gained with probability p, else a is lost.

    Kelly (1956) in the form for partial losses. The other side of the bet gains a with probability q and loses b: its
    share is the same with the sign turned. Raises ValueError unless p is in [0, 1], a and b above 0.
    """
    if not 0.0 <= win_probability <= 1.0:
        raise ValueError(f"win_probability: expected a number from 0 to 1, got {win_probability}")
    _need_positive("win_ratio", win_ratio)
    _need_positive("loss_ratio", loss_ratio)
    return _edge(win_probability / loss_ratio - (1.0 - win_probability) / win_ratio, short_allowed)


def kelly_portfolio(excess_returns: Floats, covariance: Floats, short_allowed: bool = False) -> Floats:
    """Σ⁻¹(μ − r), shape (n,): the shares of equity that grow fastest together; no bound.

    `excess_returns` (n,) and `covariance` (n, n) per year. Without shorting it is the best of the portfolios that have
    no short position, not the unbounded one with its short positions cut off: the maximum of w·m − w·Σw/2 over w ≥ 0,
    by coordinate ascent (convex, so that it is the one). Merton (1971). Raises ValueError on NaN, a wrong shape, or a
    covariance that is not symmetric and safely positive definite.
    """
    n = len(excess_returns)
    if excess_returns.shape != (n,) or n == 0 or not np.isfinite(excess_returns).all():
        raise ValueError(f"excess_returns: expected (n,) finite numbers, got shape {excess_returns.shape}")
    _need_invertible(covariance, n)
    if short_allowed:
        return np.asarray(np.linalg.solve(covariance, excess_returns), dtype=np.float64)
    return _long_only(excess_returns, covariance)


def _long_only(excess_returns: Floats, covariance: Floats) -> Floats:
    weights = np.zeros(len(excess_returns))
    slack = excess_returns.copy()  # m − Σw
    for _ in range(_SWEEPS_MAX):
        largest_change = 0.0
        for at in range(len(weights)):
            wanted = max(0.0, weights[at] + slack[at] / covariance[at, at])
            change = wanted - weights[at]
            if change:
                weights[at] = wanted
                slack -= covariance[at] * change
                largest_change = max(largest_change, abs(change))
        if largest_change <= _SWEEP_TOLERANCE * max(1.0, float(weights.max())):
            return weights
    raise ValueError("covariance: the long-only optimum was not found; it is close to singular")


def volatility_target(target_volatility: float, volatility: float) -> float:
    """target/σ: the share of equity at which the position's own volatility is the target. Both per year, above 0."""
    _need_positive("target_volatility", target_volatility)
    _need_positive("volatility", volatility)
    return target_volatility / volatility


def fixed_risk(loss_given_stop: float) -> float:
    """1/stop: the share of equity of which a move by `loss_given_stop`, a share of the price, costs all of the equity;
    times the fraction of equity that is risked (van Tharp's fixed fractional sizing). Raises ValueError unless above 0.
    """
    _need_positive("loss_given_stop", loss_given_stop)
    return 1.0 / loss_given_stop


def stop_distance(average_true_range: float, multiple: float, price: float) -> float:
    """multiple × ATR / price: a stop so many average true ranges away, as a share of the price (Wilder 1978)."""
    _need_positive("average_true_range", average_true_range)
    _need_positive("stop_multiple", multiple)
    _need_positive("price", price)
    return average_true_range * multiple / price


def risk_budget(budget: float, unit_risk: float) -> float:
    """budget/risk: the share of equity at which the position's own risk is `budget`, a share of equity above 0, where a
    position worth all of the equity has a risk of `unit_risk`, for instance its one-day VaR at 99 %, above 0."""
    _need_positive("risk_budget", budget)
    _need_positive("unit_risk", unit_risk)
    return budget / unit_risk


def scaled(full_ratio: float, fraction: float, confidence: float, cap: float) -> float:
    """full × fraction × confidence, its size at most `cap`. Raises ValueError unless fraction is in (0, 1], confidence
    in [0, 1], and cap above 0."""
    return _clipped(full_ratio * _part(fraction, confidence), cap)


def scaled_together(full_ratios: Floats, fraction: float, confidence: float, cap: float) -> Floats:
    """The same for shares (n,) that were found together: where their sizes add up to more than `cap`, all of them are
    scaled down by one factor, which keeps their proportions."""
    _need_positive("cap", cap)
    ratios: Floats = full_ratios * _part(fraction, confidence)
    gross = float(np.abs(ratios).sum())
    return ratios if gross <= cap else ratios * (cap / gross)


def whole_lots(ratio: float, equity: float, lot_value: float) -> int:
    """The most whole lots, signed, whose value at the mark is no larger than `ratio` × `equity` in size. Equity and the
    value of a lot in one currency, both above 0."""
    _need_finite("ratio", ratio)
    _need_positive("equity", equity)
    _need_positive("lot_value", lot_value)
    return int(math.copysign(math.floor(abs(ratio) * equity / lot_value + 1e-9), ratio))


def order_lots(target: int, low: int, high: int) -> int:
    """The signed lots of the order that leads to `target` where what is open may leave the position anywhere from `low`
    to `high`: open orders on its side are on their way already. 0: none is needed, or none yet."""
    if target > high:
        return target - high
    return target - low if target < low else 0


def _edge(ratio: float, short_allowed: bool) -> float:
    return ratio if short_allowed else max(0.0, ratio)


def _part(fraction: float, confidence: float) -> float:
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction: expected a number above 0, at most 1, got {fraction}")
    if not 0.0 <= confidence <= 1.0:
        raise ValueError(f"confidence: expected a number from 0 to 1, got {confidence}")
    return fraction * confidence


def _clipped(ratio: float, cap: float) -> float:
    _need_positive("cap", cap)
    _need_finite("ratio", ratio)
    return max(-cap, min(cap, ratio))


def _need_invertible(covariance: Floats, n: int) -> None:
    if covariance.shape != (n, n) or not np.isfinite(covariance).all():
        raise ValueError(f"covariance: expected {(n, n)} finite numbers, got shape {covariance.shape}")
    if not np.allclose(covariance, covariance.T, rtol=1e-9, atol=0.0):
        raise ValueError("covariance: expected a symmetric matrix")
    eigenvalues = np.linalg.eigvalsh(covariance)
    if not eigenvalues[0] > eigenvalues[-1] / CONDITION_MAX:
        raise ValueError(f"covariance: expected a positive definite matrix, its least eigenvalue is {eigenvalues[0]:g}")


def _need_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")


def _need_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
