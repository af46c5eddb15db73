"""How high a limit's use has climbed: grades of its bound, told to a person once each on the way up (CHECKS 43).

Pure: the grade before and the use now give the grade. A grade is left only where the use falls HYSTERESIS below it, so
that a value that hovers about a threshold is told of once. Ages and rates are not graded: they come and go in seconds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engine.limits import Unit
from engine.utilisation import LimitUse, UseKey

HYSTERESIS = 0.02
"""Of the bound: 0.8 is left at 0.78."""

_UNGRADED = frozenset({Unit.SECONDS.value, Unit.ORDERS.value})


def grade_of(before: float, utilisation: float, grades: Sequence[float]) -> float:
    """The highest of `grades` (rising, above 0) that a use, as a share of its bound, has reached; 0 for none. One that
    was reached before is kept while the use is not HYSTERESIS below it. NaN tells nothing, and keeps the grade."""
    if math.isnan(utilisation):
        return before
    reached = (grade for grade in grades if utilisation >= grade - (HYSTERESIS if grade <= before else 0.0))
    return max(reached, default=0.0)


def utilisation_of(use: LimitUse) -> float:
    """value / limit; infinite over a bound of 0, NaN where the value can't be known."""
    if use.value is None:
        return math.nan
    if use.limit == 0.0:
        return math.inf if use.value > 0.0 else 0.0
    return use.value / use.limit


def graded(uses: Iterable[LimitUse], before: Mapping[UseKey, float], grades: Sequence[float]) -> tuple[LimitUse, ...]:
    """The uses with their grades; `before`: those of the last time, by `LimitUse.key`."""
    return tuple(msgspec.structs.replace(use, grade=_grade(use, before.get(use.key, 0.0), grades)) for use in uses)


def _grade(use: LimitUse, before: float, grades: Sequence[float]) -> float:
    if use.unit in _UNGRADED or use.shadow:
        return 0.0
    return grade_of(before, utilisation_of(use), grades)


def crossed(uses: Iterable[LimitUse], before: Mapping[UseKey, float]) -> list[LimitUse]:
    """The uses whose grade is higher than it was."""
    return [use for use in uses if use.grade > before.get(use.key, 0.0)]
