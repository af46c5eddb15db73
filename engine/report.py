"""The risk report on one account: what the worker refreshes and everybody reads.

Pure: the state, the terms and the time give the report. Figures that can't be computed are None, and `warnings` says
why; none is ever a silent zero.
"""

import math

import msgspec
import numpy as np

from engine.account import AccountState
from engine.decide import Terms
from engine.events import EventOutlook
from engine.measures.measure import Survey, Unevaluable
from engine.records import Tightened
from engine.tightening import in_force
from engine.utilisation import LimitUse, limit_uses
from engine.view import View


class StressLoss(msgspec.Struct, frozen=True):
    """Loss in base currency under one scenario, open orders at worst case; positive = loss."""

    name: str
    loss: float


class ModelVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What testing a VaR method against the account's own closed sessions said (engine/model_validation.py). Figures
    are None where there were too few sessions."""

    method: str
    confidence: float
    verdict: str
    """UNTESTED, PASS, WARN or FAIL."""
    reasons: tuple[str, ...]
    n: int
    """Sessions with a forecast and something at risk."""
    exceptions: int
    """Sessions in which the positions of the forecast lost more than its VaR; what the verdict is of."""
    actual_exceptions: int
    """Those in which the account did, its trading of the day and its fees included."""
    expected: float
    kupiec_p_value: float | None = None
    independence_p_value: float | None = None
    coverage_p_value: float | None = None
    zone: str = ""
    """Basel's: green, yellow or red; empty: none."""
    multiplier: float | None = None
    z2: float | None = None
    """Acerbi and Székely's test of ES."""
    z2_p_value: float | None = None


class AnalysisSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The gist of the newest whole analysis (engine/risk/analysis.py), which may be some seconds older than the report.
    Money in base currency, positive is a loss; figures are None where they were refused (`refused` says why) or would
    leave a position out."""

    seq: int
    time_us: int
    model: str
    var_99: dict[str, float] = {}
    """By method: historical, parametric, monte_carlo."""
    es_99: dict[str, float] = {}
    worst_scenario: StressLoss | None = None
    reverse_multiplier: float | None = None
    """At which the worst scenario costs a tenth of equity; None: nowhere in its range."""
    worst_replay: StressLoss | None = None
    """The worst cumulative point of all windows."""
    dollar_delta: float | None = None
    gamma_1pct: float | None = None
    vega: float | None = None
    theta: float | None = None
    refused: dict[str, str] = {}
    problem: str = ""
    """Why there is no newer analysis, if the last one failed."""


class RiskReport(msgspec.Struct, frozen=True, kw_only=True):
    """As of record `seq` and the marks of `time_us`. Money in base currency; VaR and ES are one-day, historical."""

    account: str
    seq: int
    time_us: int
    equity: float | None
    nav: float | None
    drawdown: float | None
    session_pnl: float | None
    gross: float | None = None
    net: float | None = None
    var_95: float | None = None
    var_99: float | None = None
    es_95: float | None = None
    es_99: float | None = None
    stress: tuple[StressLoss, ...] = ()
    worst_stress: StressLoss | None = None
    n_observations: int = 0
    method: str = "historical"
    quantile: str = "order_statistic"
    model: str = ""
    model_session: str = ""
    model_time_us: int = 0
    unaffected_positions: int = 0
    limits: tuple[LimitUse, ...] = ()
    active_breaches: int = 0
    passive_breaches: int = 0
    validation: tuple[ModelVerdict, ...] = ()
    """Of the worker, from the account's closed sessions; empty: none of them can be tested."""
    tightenings: tuple[Tightened, ...] = ()
    """Those in force for the account: bounds in `limits` have them applied."""
    analysis: AnalysisSummary | None = None
    """None: the worker has made none yet."""
    events: EventOutlook | None = None
    """None: no calendar of events is followed."""
    warnings: tuple[str, ...] = ()


def risk_report(
    state: AccountState, terms: Terms, now_us: int, active_breaches: int = 0, passive_breaches: int = 0
) -> RiskReport:
    """The report on `state` as it is, with every armed limit's use."""
    base = RiskReport(
        account=state.account,
        seq=state.seq,
        time_us=now_us,
        equity=_known(state.equity()),
        nav=_known(state.nav()),
        drawdown=_known(state.drawdown()),
        session_pnl=_known(state.session_pnl()),
        limits=limit_uses(state, terms, now_us),
        tightenings=in_force(state.tightenings, now_us),
        active_breaches=active_breaches,
        passive_breaches=passive_breaches,
    )
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    try:
        view = survey.view("", None)
    except Unevaluable as missing:
        return msgspec.structs.replace(base, warnings=(missing.note,))
    net = float(np.dot(state.book.lots, survey.values.delta))
    with_exposure = msgspec.structs.replace(base, gross=view.gross, net=net)
    return _with_risk(with_exposure, survey, view)


def exposures(state: AccountState, terms: Terms, now_us: int) -> tuple[float, float] | None:
    """Gross, open orders at worst case, and net of what is held, as limits count them; None where a mark, or what an
    option is valued with, is missing."""
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    try:
        view = survey.view("", None)
    except Unevaluable:
        return None
    return view.gross, float(np.dot(state.book.lots, survey.values.delta))


def _with_risk(report: RiskReport, survey: Survey, view: View) -> RiskReport:
    warnings: list[str] = []
    try:
        columns, model = survey.columns(), survey.usable_model()
    except Unevaluable as missing:
        return msgspec.structs.replace(report, warnings=(missing.note,))
    warnings += model.warnings
    changes: dict[str, object] = {
        "n_observations": model.n_days,
        "model": model.hash,
        "model_session": model.session_date.isoformat(),
        "model_time_us": model.built_time_us,
        "unaffected_positions": _unaffected(survey, view),
    }
    try:
        survey.need_history(view, columns)
        tail = view.tail(columns, model.n_days)
        for name, confidence in (("95", 0.95), ("99", 0.99)):
            changes[f"var_{name}"], changes[f"es_{name}"] = tail.var(confidence), tail.es(confidence)
    except Unevaluable as missing:
        warnings.append(missing.note)
    losses = view.losses(columns)[model.n_days :]
    stress = [StressLoss(name, float(loss)) for name, loss in zip(model.scenario_names, losses, strict=True)]
    grids, underlyings = view.grid_losses(columns, survey.underlyings()), survey.underlyings()
    if len(grids) and float(grids.max()) > 0:
        worst = int(grids.argmax())
        stress.append(StressLoss(f"spot grid {underlyings.names[worst]}", float(grids[worst])))
    changes["stress"] = tuple(stress)
    changes["worst_stress"] = max(stress, key=lambda entry: entry.loss, default=None)
    return msgspec.structs.replace(report, warnings=tuple(dict.fromkeys(warnings)), **changes)


def _unaffected(survey: Survey, view: View) -> int:
    """Symbols with something at stake that no stress factor reaches."""
    model = survey.model
    if model is None:
        return 0
    at_stake = (s for s, slot in survey.state.slots.items() if view.exposure[slot])
    return sum(1 for s in at_stake if s not in model.column or bool(model.unaffected[model.column[s]]))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def encode_report(report: RiskReport) -> bytes:
    return msgspec.json.encode(report)


def decode_report(data: bytes) -> RiskReport:
    return msgspec.json.decode(data, type=RiskReport)
