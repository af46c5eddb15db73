"""What a volatile market, or a volatile book, does to the limits: factors on bounds, with hysteresis, as records.

Two tightenings (engine.tightening), each armed by the limit set's policy. `volatility_target`: bounds on exposure are
meant for a book that moves so much at leverage 1; a composition that moves more has them scaled by target / volatility.
`volatility_regime`: a market that is more volatile than it mostly was tightens exposures and tails by fixed factors.
How the regime is read stands in engine/risk/regime.py, which is slow to import; here everything is light.
"""

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.account import AccountState
from engine.decide import Terms
from engine.limits import RegimeMethod
from engine.measures.measure import Survey, Unevaluable
from engine.measures.volatility import DAYS_A_YEAR
from engine.order import Reason
from engine.records import AnyRecord
from engine.risk.model import RiskModel
from engine.tightening import TAIL_MEASURES, tightened

Floats = NDArray[np.float64]

VOLATILITY_TARGET = "volatility_target"
VOLATILITY_REGIME = "volatility_regime"
"""Ids of the tightenings."""

EXPOSURES = ("gross_exposure", "net_exposure", "beta_exposure", "leverage", "cluster_exposure")
"""What a scale multiplies: how much is held, not how little of it may be lost."""

EWMA_DECAY = 0.94
"""RiskMetrics (1996) for daily data; as in engine/risk/filtered.py, whose forecast this is."""

EWMA_WARM_UP_DAYS = 30
EWMA_DAYS_MIN = 60

STEP = 0.05
"""Scales are whole steps of it, rounded down: a record for each change of the fourth digit would drown the log."""

LOOSENED_FROM = 0.10
"""A scale rises only where it would by so much, and falls at once."""

_ROUNDING = 1e-9


class Regime(enum.IntEnum):
    NORMAL = 0
    ELEVATED = 1
    HIGH = 2


ENTERED_FROM = {Regime.ELEVATED: 0.80, Regime.HIGH: 0.95}
HELD_FROM = {Regime.ELEVATED: 0.70, Regime.HIGH: 0.85}
"""Scores (0 to 1, engine/risk/regime.py) from which a regime is entered, and down to which it is held."""


@dataclass(frozen=True, slots=True)
class RegimeReading:
    """How volatile a market is, by one method, of one risk model."""

    method: RegimeMethod
    """The one that was used: EWMA where a fit failed."""
    score: float | None
    """0 to 1: the share of earlier days with a lower forecast, or the probability of the volatile state. None: it could
    not be told."""
    volatility: float | None
    """Forecast for the coming day × √252."""
    note: str = ""
    """Why there is no score, or why another method was used."""


def ewma_volatility(returns: Floats) -> float:
    """The EWMA forecast (λ 0.94, zero mean) for the day after `returns` (T,), simple and daily, × √252.

    The recursion of engine/risk/filtered.py written out: the first 30 days start it. Raises ValueError on fewer than 60
    days or NaN.
    """
    if returns.ndim != 1 or returns.size < EWMA_DAYS_MIN:
        raise ValueError(f"returns: expected (T,) of at least {EWMA_DAYS_MIN} days, got shape {returns.shape}")
    if not np.isfinite(returns).all():
        raise ValueError("returns: expected finite numbers, got NaN or infinity")
    squares = returns**2
    later = squares[EWMA_WARM_UP_DAYS:]
    weights = (1.0 - EWMA_DECAY) * EWMA_DECAY ** np.arange(later.size - 1, -1, -1)
    variance = EWMA_DECAY**later.size * squares[:EWMA_WARM_UP_DAYS].mean() + weights.dot(later)
    return float(math.sqrt(variance * DAYS_A_YEAR))


def market_returns(model: RiskModel) -> Floats:
    """(days,) the mean daily return of everything in the model that has a history and is no option: the market as this
    desk trades it, each instrument alike. Raises ValueError where there is none."""
    wanted = model.has_history.copy()
    wanted[model.options.places] = False
    if not wanted.any() or not model.n_days:
        raise ValueError("the risk model has no instrument with a history")
    returns: Floats = model.returns[: model.n_days, wanted].mean(axis=1)
    return returns


# --- regime -------------------------------------------------------------------------------------------------------


def regime_of(before: Regime, score: float) -> Regime:
    """The regime at a score: the highest that is entered there, or that is held from before. Raises ValueError on a
    score outside 0 to 1."""
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score: expected a number from 0 to 1, got {score}")
    entered = (regime for regime, from_score in ENTERED_FROM.items() if score >= from_score)
    held = (regime for regime, from_score in HELD_FROM.items() if regime <= before and score >= from_score)
    return max((Regime.NORMAL, *entered, *held))


def regime_in_force(state: AccountState, factors: tuple[float, ...]) -> Regime:
    """What the account's log says, by the factor in force."""
    factor = _factor_in_force(state, VOLATILITY_REGIME)
    if factor is None:
        return Regime.NORMAL
    return Regime.HIGH if factor <= factors[1] + _ROUNDING else Regime.ELEVATED


def regime_tightening(state: AccountState, terms: Terms, reading: RegimeReading | None, now_us: int) -> list[AnyRecord]:
    """The record that makes the account's bounds as tight as the regime asks for; nothing where they are, or where
    nothing was read yet. A market that can't be told counts as the most volatile; a policy that reads none lifts."""
    policy, epoch = terms.limits.policy, terms.control.epoch
    measures = (*EXPOSURES, *TAIL_MEASURES)
    if policy.volatility_regime is RegimeMethod.OFF:
        return tightened(state, VOLATILITY_REGIME, measures, 1.0, "no regime is read", now_us, epoch)
    if reading is None:
        return []
    if reading.score is None:
        said, regime = f"the regime can't be told: {reading.note}", Regime.HIGH
    else:
        regime = regime_of(regime_in_force(state, policy.regime_factors), reading.score)
        said = f"{regime.name} by {reading.method}: {reading.score:.0%}, volatility {reading.volatility or 0.0:.1%}"
    factor = (1.0, *policy.regime_factors)[regime]
    return tightened(state, VOLATILITY_REGIME, measures, factor, said, now_us, epoch)


# --- target -------------------------------------------------------------------------------------------------------


def volatility_scale(target: float, current: float, least: float, before: float = 1.0) -> float:
    """target / current as a factor on bounds: at most 1, at least `least`, in whole steps. Above `before` only where it
    rises by LOOSENED_FROM. Raises ValueError unless target and current are finite and above 0."""
    for name, value in (("target", target), ("current", current)):
        if not (math.isfinite(value) and value > 0.0):
            raise ValueError(f"{name}: expected a finite number above 0, got {value}")
    wanted = target / current
    stepped = min(1.0, max(least, math.floor(wanted / STEP + _ROUNDING) * STEP))
    if stepped > before and wanted < before + LOOSENED_FROM - _ROUNDING:
        return before
    return stepped


def composition_volatility(state: AccountState, terms: Terms, now_us: int) -> float | None:
    """The EWMA volatility a year of a book composed like the account's positions, as large as its equity: of their
    P&L over their gross value, so that a book that shrinks in proportion keeps it. None: nothing is held, or it never
    moves. Raises Unevaluable where an input is missing."""
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    view = survey.view("", None, open_orders=False)
    columns = survey.columns()
    survey.need_history(view, columns)
    if columns.days < EWMA_DAYS_MIN:
        note = f"the risk model has {columns.days} days, a volatility forecast needs {EWMA_DAYS_MIN}"
        raise Unevaluable(Reason.HISTORY_MISSING, note)
    if not view.gross > 0.0:
        return None
    return ewma_volatility(-view.losses(columns)[: columns.days] / view.gross) or None


def target_tightening(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """The record that scales the account's bounds on exposure to the target, or lifts that; nothing where they are.
    Where days are missing the least scale holds; where a mark or the model is missing, what is in force."""
    policy, epoch = terms.limits.policy, terms.control.epoch
    if policy.volatility_target is None:
        return tightened(state, VOLATILITY_TARGET, EXPOSURES, 1.0, "no volatility is aimed at", now_us, epoch)
    before = _factor_in_force(state, VOLATILITY_TARGET) or 1.0
    try:
        current = composition_volatility(state, terms, now_us)
    except Unevaluable as missing:
        if missing.reason is not Reason.HISTORY_MISSING:
            return []
        said = f"the volatility can't be told: {missing.note}"
        return tightened(state, VOLATILITY_TARGET, EXPOSURES, policy.volatility_scale_min, said, now_us, epoch)
    if current is None:
        return tightened(state, VOLATILITY_TARGET, EXPOSURES, 1.0, "nothing is held that moves", now_us, epoch)
    scale = volatility_scale(policy.volatility_target, current, policy.volatility_scale_min, before)
    said = f"at leverage 1 the book moves {current:.1%} a year, the target is {policy.volatility_target:.1%}"
    return tightened(state, VOLATILITY_TARGET, EXPOSURES, scale, said, now_us, epoch)


def _factor_in_force(state: AccountState, tightening_id: str) -> float | None:
    return next((one.factor for one in state.tightenings if one.tightening_id == tightening_id), None)
