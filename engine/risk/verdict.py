"""The overall level of a report, and which figure decided it.

The level of a report is the highest of its gauges (level.py). A gauge without a value is no low one: it counts as the
policy says, and its note says why. Nothing is estimated here: the figures come from the report.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from engine.report import RiskReport
from engine.risk.level import Gauge, Level, LevelPolicy, Thresholds
from engine.utilisation import LimitUse, UseStatus


@dataclass(frozen=True, slots=True)
class Reading:
    """One gauge, judged."""

    gauge: Gauge
    value: float | None
    """None: cannot be computed; `note` says why."""
    level: Level
    thresholds: Thresholds
    note: str = ""
    """Which limit or scenario it is, or why there is no value."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The level of a report. `decided_by`: the gauges at that level, in the order of the policy; none where it is
    LOW."""

    level: Level
    decided_by: tuple[Gauge, ...]
    readings: tuple[Reading, ...]


def verdict_on(report: RiskReport, policy: LevelPolicy | None = None) -> Verdict:
    """The level of a report, the worst of its gauges."""
    policy = policy or LevelPolicy()
    readings = tuple(_reading(gauge, thresholds, report, policy) for gauge, thresholds in policy.thresholds.items())
    level = max(reading.level for reading in readings)
    decided_by = tuple(reading.gauge for reading in readings if reading.level is level and level is not Level.LOW)
    return Verdict(level, decided_by, readings)


def _reading(gauge: Gauge, thresholds: Thresholds, report: RiskReport, policy: LevelPolicy) -> Reading:
    value, note = _MEASURED[gauge](report)
    if value is None:
        return Reading(gauge, None, policy.unevaluable, thresholds, note)
    return Reading(gauge, value, thresholds.level(value), thresholds, note)


ACTIVITY = frozenset({"mark_age", "order_rate", "open_orders", "open_positions", "traded_quantity", "traded_value"})
"""Measures of what is going on, not of what may be lost."""

_Measured = tuple[float | None, str]
NOT_COMPUTED = "not computed; the report's warnings say why"


def _utilised(report: RiskReport) -> _Measured:
    """Of what is at stake: shadow limits bind nobody, and how busy an account is says nothing of its risk."""
    armed = [use for use in report.limits if not use.shadow and use.measure not in ACTIVITY]
    unevaluable = [use for use in armed if use.status is UseStatus.UNEVALUABLE]
    uses = [(_share(use), use) for use in armed if use.status is not UseStatus.UNEVALUABLE]
    worst = max(uses, key=lambda entry: entry[0], default=None)
    if worst is not None and (worst[0] >= 1.0 or not unevaluable):
        return worst[0], _name(worst[1])
    if unevaluable:
        return None, f"{_names(unevaluable)} can't be evaluated"
    return 0.0, "no limit is armed"


def _share(use: LimitUse) -> float:
    """Utilisation; a breached limit is at 1 whatever its sign. Bounds of 0 and below have no share of them in use."""
    value = 0.0 if use.value is None else use.value
    share = max(0.0, value / use.limit) if use.limit > 0.0 else 0.0
    return max(share, 1.0) if use.status is UseStatus.BREACHED else share


def _name(use: LimitUse) -> str:
    return f"{use.measure}@{use.scope}"


def _names(uses: Iterable[LimitUse]) -> str:
    names = [_name(use) for use in uses]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _var_99(report: RiskReport) -> _Measured:
    return _of_equity(report, report.var_99)


def _stress(report: RiskReport) -> _Measured:
    worst = report.worst_stress
    value, note = _of_equity(report, None if worst is None else worst.loss)
    return value, note if value is None or worst is None else worst.name


def _leverage(report: RiskReport) -> _Measured:
    return _of_equity(report, report.gross)


def _session_loss(report: RiskReport) -> _Measured:
    if report.session_pnl is None:
        return None, "no session is open, or its opening equity is not known"
    return _of_equity(report, -report.session_pnl)


def _drawdown(report: RiskReport) -> _Measured:
    return (None, NOT_COMPUTED) if report.drawdown is None else (max(0.0, report.drawdown), "")


def _of_equity(report: RiskReport, amount: float | None) -> _Measured:
    """A loss as a share of equity, gains as 0; a loss without positive equity to bear it is infinite."""
    if report.gross == 0.0 and amount is None:
        return 0.0, "nothing is at stake"
    if amount is None:
        return None, NOT_COMPUTED
    if amount <= 0.0:
        return 0.0, ""
    if report.equity is None:
        return None, "equity can't be computed"
    return (amount / report.equity, "") if report.equity > 0.0 else (math.inf, "equity is not positive")


_MEASURED = {
    Gauge.LIMIT: _utilised,
    Gauge.VAR_99: _var_99,
    Gauge.STRESS: _stress,
    Gauge.DRAWDOWN: _drawdown,
    Gauge.LEVERAGE: _leverage,
    Gauge.SESSION_LOSS: _session_loss,
}
