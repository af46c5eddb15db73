"""How volatile the market is now, beside how it mostly was: a score from 0 to 1 by one of three methods.

By rank: the forecast for the coming day, EWMA's or a fitted GARCH(1,1)'s, among the forecasts of the lookback. By
state: the probability, from the days so far alone, of the more volatile of two fitted states (Hamilton 1989). A fit
that fails is answered by EWMA, by that name. What a score does to limits stands in engine/risk/volatility.py. Imports
arch and statsmodels, so only the worker may import this.
"""

import math
import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from statsmodels.tsa.regime_switching.markov_regression import (
    MarkovRegression,
)

from engine.limits import RegimeMethod
from engine.measures.volatility import DAYS_A_YEAR
from engine.risk.filtered import EWMA_DAYS_MIN, GARCH_DAYS_MIN, ewma_variances, garch_filtered
from engine.risk.volatility import RegimeReading

MARKOV_DAYS_MIN = 250
"""Two states and their ways of changing are not to be told apart in less than a year."""

PARAMETERS_MORE = 3
"""Of two states (two variances, two probabilities of staying) than of one."""

Floats = NDArray[np.float64]


def regime_reading(returns: Floats, method: RegimeMethod) -> RegimeReading:
    """The reading of `returns` (T,), simple and daily, oldest first. Where too few days are there, or nothing moves, it
    has no score and says why. Raises ValueError on a method that reads nothing, or NaN."""
    if method is RegimeMethod.OFF:
        raise ValueError("method: expected ewma, garch or markov, got off")
    if returns.ndim != 1 or not np.isfinite(returns).all():
        raise ValueError(f"returns: expected (T,) finite numbers, got shape {returns.shape}")
    needed = EWMA_DAYS_MIN if method is RegimeMethod.EWMA else max(GARCH_DAYS_MIN, MARKOV_DAYS_MIN)
    if returns.size < needed:
        return RegimeReading(method, None, None, f"{returns.size} days are known, {method} needs {needed}")
    if not returns.std() > 0.0:
        return RegimeReading(method, None, None, "the market never moved")
    by_rank = _ranked(RegimeMethod.EWMA, ewma_variances(returns))
    if method is RegimeMethod.GARCH:
        return _by_garch(returns, by_rank)
    return _by_state(returns, by_rank) if method is RegimeMethod.MARKOV else by_rank


def _ranked(method: RegimeMethod, variances: Floats) -> RegimeReading:
    """`variances`: forecasts, the coming day's last."""
    score = float((variances[:-1] <= variances[-1]).mean())
    return RegimeReading(method, score, math.sqrt(float(variances[-1]) * DAYS_A_YEAR))


def _by_garch(returns: Floats, otherwise: RegimeReading) -> RegimeReading:
    fit = garch_filtered(returns)
    if fit.filter != "garch":
        return replace(otherwise, note="; ".join(fit.warnings))
    variance, variances = float((returns**2).mean()), []
    for square in (returns**2).tolist():
        variances.append(variance)
        variance = fit.omega + fit.alpha * square + fit.beta * variance
    return _ranked(RegimeMethod.GARCH, np.array([*variances, variance]))


def _by_state(returns: Floats, otherwise: RegimeReading) -> RegimeReading:
    """Zero mean, a variance for each state, by maximum likelihood from statsmodels' own start: nothing is drawn."""
    unit = float(returns.std())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they tell of is judged below
        fit = MarkovRegression(returns / unit, k_regimes=2, trend="n", switching_variance=True).fit(disp=False)
    variances = np.array(
        [value for name, value in zip(fit.model.param_names, fit.params, strict=True) if "sigma2" in name]
    )
    probabilities = np.asarray(fit.filtered_marginal_probabilities, dtype=np.float64)[-1]
    if not (fit.mle_retvals["converged"] and np.isfinite(variances).all() and np.isfinite(probabilities).all()):
        return replace(otherwise, note="the two states could not be fitted: EWMA instead")
    if not _are_two(returns / unit, float(fit.llf)):
        return replace(otherwise, note="there are no two states to be told apart: EWMA instead")
    score = min(1.0, max(0.0, float(probabilities[variances.argmax()])))
    return RegimeReading(RegimeMethod.MARKOV, score, otherwise.volatility)


def _are_two(scaled: Floats, log_likelihood: float) -> bool:
    """Whether two states explain the days better than one does, for the parameters that they take: the Bayesian
    information criterion (Schwarz 1978). Days of one deviation can be split in two as well, only not for a reason."""
    n = scaled.size
    alone = -0.5 * n * (math.log(2.0 * math.pi * float((scaled**2).mean())) + 1.0)
    return 2.0 * (log_likelihood - alone) > PARAMETERS_MORE * math.log(n)
