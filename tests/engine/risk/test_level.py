"""Levels of a report: from where on each begins, which gauge decides, and what is not known is not low."""

import math
from typing import Any

import msgspec
import pytest

from engine.report import RiskReport, StressLoss
from engine.risk.level import DEFAULT_THRESHOLDS, Gauge, Level, LevelPolicy, Thresholds
from engine.risk.verdict import verdict_on
from engine.utilisation import LimitUse, UseStatus

CALM = RiskReport(
    account="A",
    seq=1,
    time_us=1,
    equity=1_000_000.0,
    nav=1.0,
    drawdown=0.0,
    session_pnl=0.0,
    gross=100_000.0,
    net=100_000.0,
    var_99=2_000.0,
    worst_stress=StressLoss("COVID 2020", 30_000.0),
)


def report(**changes: Any) -> RiskReport:
    changed: RiskReport = msgspec.structs.replace(CALM, **changes)
    return changed


def use(value: float | None, limit: float = 10.0, measure: str = "leverage", **fields: Any) -> LimitUse:
    status = fields.pop("status", UseStatus.OK)
    return LimitUse(measure, "account:A", value, None, limit, "equity", True, status, **fields)


def test_a_calm_book_is_low_and_nothing_has_decided_it() -> None:
    verdict = verdict_on(CALM)

    assert verdict.level is Level.LOW
    assert verdict.decided_by == ()
    assert [reading.gauge for reading in verdict.readings] == list(DEFAULT_THRESHOLDS)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (0.0199, Level.LOW),
        (0.02, Level.MODERATE),
        (0.04, Level.HIGH),
        (0.08, Level.CRITICAL),
        (math.inf, Level.CRITICAL),
    ],
)
def test_a_level_begins_at_its_threshold(value: float, level: Level) -> None:
    assert Thresholds(0.02, 0.04, 0.08).level(value) is level


@pytest.mark.parametrize(
    ("changes", "gauge", "level"),
    [
        ({"var_99": 50_000.0}, Gauge.VAR_99, Level.HIGH),  # 5 % of equity
        ({"worst_stress": StressLoss("crash", 600_000.0)}, Gauge.STRESS, Level.CRITICAL),
        ({"drawdown": 0.06}, Gauge.DRAWDOWN, Level.MODERATE),
        ({"gross": 3_000_000.0}, Gauge.LEVERAGE, Level.HIGH),
        ({"session_pnl": -15_000.0}, Gauge.SESSION_LOSS, Level.MODERATE),
        ({"limits": (use(8.5),)}, Gauge.LIMIT, Level.HIGH),
    ],
)
def test_the_worst_gauge_decides(changes: dict[str, Any], gauge: Gauge, level: Level) -> None:
    verdict = verdict_on(report(**changes))

    assert (verdict.level, verdict.decided_by) == (level, (gauge,))


def test_gains_are_no_risk() -> None:
    verdict = verdict_on(report(session_pnl=500_000.0, var_99=-5.0, worst_stress=StressLoss("rally", -9.0)))

    assert verdict.level is Level.LOW


@pytest.mark.parametrize("missing", [{"var_99": None}, {"worst_stress": None}, {"drawdown": None}, {"gross": None}])
def test_what_can_not_be_computed_counts_as_the_policy_says(missing: dict[str, Any]) -> None:
    moderate = LevelPolicy(unevaluable=Level.MODERATE)

    assert verdict_on(report(**missing)).level is Level.HIGH
    assert verdict_on(report(**missing), moderate).level is Level.MODERATE
    assert any(reading.value is None and reading.note for reading in verdict_on(report(**missing)).readings)


def test_with_nothing_at_stake_missing_figures_are_none_to_worry_about() -> None:
    assert verdict_on(report(gross=0.0, var_99=None, worst_stress=None)).level is Level.LOW


def test_a_loss_without_equity_to_bear_it_is_critical() -> None:
    verdict = verdict_on(report(equity=-1.0))

    assert verdict.level is Level.CRITICAL
    assert {Gauge.VAR_99, Gauge.STRESS, Gauge.LEVERAGE} <= set(verdict.decided_by)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((use(3.0), use(7.0, measure="var_99")), 0.7),
        ((use(-3.0),), 0.0),
        ((use(9.9, shadow=True), use(1.0)), 0.1),
        ((use(9.9, measure="mark_age"), use(9.9, measure="order_rate")), 0.0),
        ((use(-0.5, limit=-1.0, status=UseStatus.BREACHED),), 1.0),
        ((use(12.0, status=UseStatus.BREACHED), use(None, status=UseStatus.UNEVALUABLE)), 1.2),
        ((use(5.0), use(None, status=UseStatus.UNEVALUABLE)), None),
        ((), 0.0),
    ],
)
def test_the_utilisation_is_that_of_the_tightest_armed_limit(
    limits: tuple[LimitUse, ...], expected: float | None
) -> None:
    (reading,) = [one for one in verdict_on(report(limits=limits)).readings if one.gauge is Gauge.LIMIT]

    assert reading.value == (None if expected is None else pytest.approx(expected))


def test_thresholds_and_policies_that_make_no_sense_are_refused() -> None:
    for given in ((0.0, 0.1, 0.2), (0.2, 0.1, 0.3), (0.1, 0.2, math.nan)):
        with pytest.raises(ValueError, match="expected"):
            Thresholds(*given)
    with pytest.raises(ValueError, match="not low"):
        LevelPolicy(unevaluable=Level.LOW)
    with pytest.raises(ValueError, match="at least one gauge"):
        LevelPolicy({})
    with pytest.raises(ValueError, match="NaN"):
        Thresholds(0.1, 0.2, 0.3).level(math.nan)
