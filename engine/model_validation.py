"""The VaR model held against an account's own sessions: forecasts as records, verdicts, and the tightening they cause.

One forecast a session, of the positions held then, against what those positions gained until the session closed: the
model is tested, not the trading of the day. Only the worker and tools import this; the report carries the verdicts as
`ModelVerdict`, and the hot path reads `Tightened` from the fold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from engine.account import AccountState, Session
from engine.decide import Terms
from engine.measures.measure import Survey, Unevaluable
from engine.records import AnyRecord, Forecast
from engine.report import ModelVerdict
from engine.risk.backtest import (
    TighteningRule,
    Validation,
    Verdict,
    exceptions,
    tightening_factor,
    validate,
)
from engine.tightening import MODEL_VALIDATION, TAIL_MEASURES, tightened

CONFIDENCES = (0.95, 0.99)
METHOD = "historical"
"""How engine.view reads VaR and ES from the model's days."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SessionHistory:
    """Closed sessions with a forecast by one method and something at risk, oldest first; money in base currency."""

    method: str
    dates: tuple[date, ...]
    held_pnl: Floats
    """What the positions of the forecast gained."""
    actual_pnl: Floats
    """What the account gained, its trading of the day and its fees included; NaN where that is not known."""
    var: dict[float, Floats]
    """By confidence, 0.95 and 0.99, positive = loss."""
    es: dict[float, Floats]


def forecast(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """The record of what the risk model expects of the open session, for the positions held at the marks of `state`.
    Nothing where there is one already, or where VaR can't be evaluated."""
    session = state.session
    if session is None or session.forecast is not None:
        return []
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    try:
        view = survey.view("", None, open_orders=False)
        columns, model = survey.columns(), survey.usable_model()
        survey.need_history(view, columns)
    except Unevaluable:
        return []
    tail = view.tail(columns, model.n_days)
    record = Forecast(
        time_us=now_us,
        epoch=terms.control.epoch,
        session=session.date,
        var_95=tail.var_95,
        var_99=tail.var_99,
        es_95=tail.es_95,
        es_99=tail.es_99,
        method=METHOD,
        model=model.hash,
        n_observations=model.n_days,
    )
    return [record]


def histories_of(sessions: Iterable[Session]) -> tuple[SessionHistory, ...]:
    """What can be tested, by method. Left out: sessions without a forecast, with nothing at risk (ES not above 0), and
    those at whose close a mark was missing."""
    by_method: dict[str, list[tuple[Session, Forecast]]] = {}
    for session in sessions:
        made = session.forecast
        if made is not None and np.isfinite(session.held_pnl) and made.es_95 > 0.0 and made.es_99 > 0.0:
            by_method.setdefault(made.method, []).append((session, made))
    return tuple(_history(method, entries) for method, entries in sorted(by_method.items()))


def _history(method: str, entries: Sequence[tuple[Session, Forecast]]) -> SessionHistory:
    made = [one for _, one in entries]
    return SessionHistory(
        method=method,
        dates=tuple(date.fromisoformat(session.date) for session, _ in entries),
        held_pnl=np.array([session.held_pnl for session, _ in entries]),
        actual_pnl=np.array([session.pnl for session, _ in entries]),
        var={0.95: np.array([one.var_95 for one in made]), 0.99: np.array([one.var_99 for one in made])},
        es={0.95: np.array([one.es_95 for one in made]), 0.99: np.array([one.es_99 for one in made])},
    )


def validations_of(sessions: Iterable[Session]) -> tuple[tuple[SessionHistory, Validation], ...]:
    """Every method at 95 and 99 % against the account's closed sessions; nothing where none can be tested."""
    return tuple(
        (history, validate(history.held_pnl, history.var[at], history.es[at], at, history.method))
        for history in histories_of(sessions)
        for at in CONFIDENCES
    )


def verdicts_of(validations: Iterable[tuple[SessionHistory, Validation]]) -> tuple[ModelVerdict, ...]:
    """The same in the words of a report."""
    return tuple(_verdict(history, validation) for history, validation in validations)


def validation_tightening(
    state: AccountState,
    validations: Iterable[Validation],
    rule: TighteningRule | None,
    now_us: int,
    epoch: int,
) -> list[AnyRecord]:
    """The record that makes the account's limits on VaR and ES as tight as these tests ask for, by the least of their
    factors, or lifts that again; nothing where they are. `rule` None: no model is tightened for."""
    tested = list(validations) if rule is not None else []
    factor = tightening_factor(tested, rule) if rule is not None else 1.0
    failing = [one for one in tested if one.verdict in (Verdict.WARN, Verdict.FAIL)]
    reason = "; ".join(f"{one.model} VaR at {one.confidence:.0%}: {one.verdict}, {one.reasons[0]}" for one in failing)
    lifted = "the model passes" if rule is not None else "models are not tightened for"
    return tightened(state, MODEL_VALIDATION, TAIL_MEASURES, factor, reason if factor < 1.0 else lifted, now_us, epoch)


def _verdict(history: SessionHistory, validation: Validation) -> ModelVerdict:
    at = validation.confidence
    known = np.isfinite(history.actual_pnl)
    actual = exceptions(history.actual_pnl[known], history.var[at][known]).sum() if known.any() else 0
    kupiec, alone, both = validation.kupiec, validation.independence, validation.coverage
    light, shortfall = validation.light, validation.shortfall
    return ModelVerdict(
        method=validation.model,
        confidence=at,
        verdict=str(validation.verdict),
        reasons=validation.reasons,
        n=validation.n,
        exceptions=validation.exceptions,
        actual_exceptions=int(actual),
        expected=validation.expected,
        kupiec_p_value=None if kupiec is None else kupiec.p_value,
        independence_p_value=None if alone is None else alone.p_value,
        coverage_p_value=None if both is None else both.p_value,
        zone="" if light is None or light.zone is None else str(light.zone),
        multiplier=None if light is None else light.multiplier,
        z2=None if shortfall is None else shortfall.statistic,
        z2_p_value=None if shortfall is None else shortfall.p_value,
    )
