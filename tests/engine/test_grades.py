"""Grades of a limit's use: told once on the way up, left only well below."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grades import HYSTERESIS, crossed, grade_of, graded
from engine.utilisation import LimitUse, UseStatus

GRADES = (0.7, 0.8, 0.9, 1.0)


def use(value: float | None, limit: float = 100.0, unit: str = "money", shadow: bool = False) -> LimitUse:
    return LimitUse("gross_exposure", "account:A", value, None, limit, unit, True, UseStatus.OK, shadow=shadow)


@pytest.mark.parametrize(
    ("before", "utilisation", "grade"),
    [
        (0.0, 0.69, 0.0),
        (0.0, 0.7, 0.7),
        (0.0, 0.95, 0.9),
        (0.0, 7.0, 1.0),
        (0.8, 0.79, 0.8),
        (0.8, 0.78, 0.8),
        (0.8, 0.7799, 0.7),
        (0.8, 0.685, 0.7),
        (0.8, 0.5, 0.0),
        (0.7, 0.79, 0.7),
        (1.0, 0.885, 0.9),
        (0.8, math.nan, 0.8),
        (0.0, math.inf, 1.0),
    ],
)
def test_a_grade_is_reached_at_its_threshold_and_left_two_hundredths_below(
    before: float, utilisation: float, grade: float
) -> None:
    assert grade_of(before, utilisation, GRADES) == grade


def test_without_grades_nothing_is_told() -> None:
    assert grade_of(0.9, 5.0, ()) == 0.0


@given(st.lists(st.floats(0.7801, 0.8199), min_size=1))
def test_a_use_that_hovers_about_a_threshold_crosses_it_once(walk: list[float]) -> None:
    grade, crossings = 0.7, 0
    for utilisation in walk:
        reached = grade_of(grade, utilisation, GRADES)
        crossings += reached > grade
        grade = reached

    assert crossings <= 1


@given(st.floats(0, 2), st.floats(0, 2))
def test_a_grade_is_never_more_than_the_use_and_its_slack(before: float, utilisation: float) -> None:
    grade = grade_of(before, utilisation, GRADES)

    assert grade <= utilisation + HYSTERESIS + 1e-12
    assert grade >= max((one for one in GRADES if one <= utilisation), default=0.0)


def test_uses_are_graded_against_the_last_time_and_each_crossing_is_told_once() -> None:
    first = graded([use(85.0)], {}, GRADES)
    known = {one.key: one.grade for one in first}
    second = graded([use(79.0)], known, GRADES)
    third = graded([use(91.0)], known, GRADES)

    assert [one.grade for one in (*first, *second, *third)] == [0.8, 0.8, 0.9]
    assert [len(crossed(uses, known)) for uses in (second, third)] == [0, 1]
    assert crossed(first, {}) == list(first)


def test_a_bound_of_nothing_is_full_with_anything_in_it() -> None:
    assert [one.grade for one in graded([use(0.0, 0.0), use(1.0, 0.0)], {}, GRADES)] == [0.0, 1.0]


@pytest.mark.parametrize("one", [use(99.0, unit="s"), use(99.0, unit="orders"), use(99.0, shadow=True)])
def test_ages_rates_and_shadows_are_not_graded(one: LimitUse) -> None:
    assert graded([one], {}, GRADES)[0].grade == 0.0


def test_a_use_that_cannot_be_told_keeps_its_grade() -> None:
    assert graded([use(None)], {use(None).key: 0.9}, GRADES)[0].grade == 0.9
