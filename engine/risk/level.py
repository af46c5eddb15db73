"""The levels of a report, LOW, MODERATE, HIGH and CRITICAL, and from where on each begins.

A gauge is a ratio with three thresholds. Thresholds are data, from the configuration, and travel with every answer.
Light to import, since the configuration reads it; a report is judged in verdict.py.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


class Level(enum.IntEnum):
    """Ordered: the higher, the worse."""

    LOW = 0
    MODERATE = 1
    HIGH = 2
    CRITICAL = 3


class Gauge(enum.StrEnum):
    """What is judged. All are ratios, 0 or more where there is a risk."""

    LIMIT = "limit_utilisation"
    """The largest value / limit of the armed limits, but for those on activity; one over its bound is 1 at least."""
    VAR_99 = "var_99"
    """One-day VaR at 99 % / equity."""
    STRESS = "stress"
    """The worst stress loss / equity."""
    DRAWDOWN = "drawdown"
    """1 - unit NAV / its high-water mark."""
    LEVERAGE = "leverage"
    """Gross exposure, open orders at their worst, / equity."""
    SESSION_LOSS = "session_loss"
    """Loss of the session / equity; 0 where there is a gain."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A gauge is at a level from its threshold on. Raises ValueError unless 0 < moderate <= high <= critical."""

    moderate: float
    high: float
    critical: float

    def __post_init__(self) -> None:
        named = {"moderate": self.moderate, "high": self.high, "critical": self.critical}
        for name, value in named.items():
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name}: expected a ratio above 0, got {value}")
        if not self.moderate <= self.high <= self.critical:
            raise ValueError(f"expected moderate <= high <= critical, got {', '.join(map(str, named.values()))}")

    def level(self, value: float) -> Level:
        """Of a ratio, which must not be NaN; infinite is CRITICAL."""
        if math.isnan(value):
            raise ValueError("value: expected a ratio, got NaN")
        if value >= self.critical:
            return Level.CRITICAL
        if value >= self.high:
            return Level.HIGH
        return Level.MODERATE if value >= self.moderate else Level.LOW


DEFAULT_THRESHOLDS: Mapping[Gauge, Thresholds] = {
    Gauge.LIMIT: Thresholds(0.60, 0.80, 1.00),
    Gauge.VAR_99: Thresholds(0.02, 0.04, 0.08),
    Gauge.STRESS: Thresholds(0.15, 0.30, 0.50),
    Gauge.DRAWDOWN: Thresholds(0.05, 0.10, 0.20),
    Gauge.LEVERAGE: Thresholds(1.50, 2.50, 4.00),
    Gauge.SESSION_LOSS: Thresholds(0.01, 0.02, 0.04),
}
"""A diversified, moderately leveraged book, as the balanced limits have it in mind."""


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """How a report is judged. Raises ValueError on a policy without gauges or a LOW `unevaluable`."""

    thresholds: Mapping[Gauge, Thresholds] = field(default_factory=lambda: DEFAULT_THRESHOLDS)
    unevaluable: Level = Level.HIGH
    """What a gauge counts as that has no value, where something is at stake."""

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise ValueError("thresholds: expected at least one gauge, got none")
        if self.unevaluable is Level.LOW:
            raise ValueError("unevaluable: expected moderate, high or critical: what is not known is not low")
