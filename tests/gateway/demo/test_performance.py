"""The summary's arithmetic against numbers worked out by hand."""

import math
from datetime import date, timedelta

import numpy as np
import pytest

from gateway.demo.backtest import ExceptionCount, Promise, book_var, count_exceptions, kupiec_ratio
from gateway.demo.performance import (
    Day,
    Stretch,
    forgone_and_avoided,
    months_of,
    total_return,
    worst_day,
    worst_drawdown,
    worst_stretch,
)
from gateway.demo.summary import Arm, compare, together, verdict_on

DATES = [date(2020, 2, 27) + timedelta(days=number) for number in range(5)]
CURVE = (100.0, 110.0, 99.0, 105.0, 84.0, 90.0)


def test_return_drawdown_and_worst_day_count_from_the_starting_capital() -> None:
    assert total_return(CURVE) == pytest.approx(-0.10)
    assert worst_drawdown(CURVE) == pytest.approx(1 - 84 / 110)
    assert worst_day(CURVE, DATES) == Day(DATES[3], 84 / 105 - 1)


def test_a_fall_from_the_first_day_on_is_a_drawdown() -> None:
    assert worst_drawdown((100.0, 90.0)) == pytest.approx(0.10)
    assert worst_drawdown((100.0, 101.0, 102.0)) == 0.0


def test_profit_forgone_and_loss_avoided_are_not_netted() -> None:
    controlled, free = (100.0, 101.0, 100.0, 102.0), (100.0, 104.0, 98.0, 99.0)

    # by day: free made 4, −6, 1; controlled 1, −1, 2
    assert forgone_and_avoided(controlled, free) == (3.0, 6.0)


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([1.0, -2.0, 1.0, -3.0, 5.0], Stretch(DATES[1], DATES[3], -4.0)),
        ([-1.0, 5.0, -2.0, 0.0, 0.0], Stretch(DATES[2], DATES[2], -2.0)),
        ([1.0, 0.0, 2.0, 0.0, 1.0], None),
    ],
)
def test_the_worst_stretch_is_the_run_of_days_with_the_lowest_sum(gains: list[float], expected: Stretch | None) -> None:
    assert worst_stretch(gains, DATES) == expected


def test_months_add_up_their_days() -> None:
    assert months_of([1.0, 2.0, 3.0, 4.0, 5.0], DATES) == [("2020-02", 6.0), ("2020-03", 9.0)]


def test_both_arms_are_compared_day_by_day_and_together() -> None:
    controlled = Arm((100.0, 101.0, 100.0, 102.0), costs=1.0, days_over_limit=0)
    free = Arm((100.0, 104.0, 98.0, 99.0), costs=2.0, days_over_limit=2)

    one = compare("agent", controlled, free, DATES[:3])
    both = compare("all", together([controlled, controlled]), together([free, free]), DATES[:3])

    assert one.controlled.total_return == pytest.approx(0.02)
    assert one.hurt == Stretch(DATES[0], DATES[0], -3.0)
    assert one.helped == Stretch(DATES[1], DATES[2], 6.0)
    assert (both.forgone, both.avoided) == (6.0, 12.0)
    assert both.free.days_over_limit == 4
    assert both.free.total_return == pytest.approx(one.free.total_return)


def test_only_a_loss_beyond_the_var_is_an_exception() -> None:
    promises = [Promise(5.0, -5.0), Promise(5.0, -5.01), Promise(5.0, 9.0), Promise(-1.0, 0.5), Promise(-1.0, 2.0)]

    # a negative VaR promises a gain of at least 1: half of it is an exception
    assert count_exceptions(promises, 0.95) == ExceptionCount(0.95, days=5, seen=2)


def test_kupiec_agrees_with_the_published_formula() -> None:
    # 250 days at 99 % with 6 exceptions: 2·(ln(0.976^244·0.024^6) − ln(0.99^244·0.01^6))
    by_hand = 2 * (244 * math.log(0.976) + 6 * math.log(0.024) - 244 * math.log(0.99) - 6 * math.log(0.01))

    assert kupiec_ratio(6, 250, 0.01) == pytest.approx(by_hand)
    assert ExceptionCount(0.99, 250, 6).p_value == pytest.approx(0.0594, abs=5e-4)  # LR 3.555, χ²(1)
    assert kupiec_ratio(0, 250, 0.01) == pytest.approx(-500 * math.log(0.99))
    assert ExceptionCount(0.99, 100, 1).p_value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("days", "seen", "verdict"),
    [(0, 0, "not measured"), (100, 5, "in line"), (100, 20, "broken: too many"), (300, 2, "too few: VaR too high")],
)
def test_a_count_is_called_what_it_is(days: int, seen: int, verdict: str) -> None:
    assert verdict_on(ExceptionCount(0.95, days, seen)) == verdict


def test_the_var_of_a_book_is_the_order_statistic_of_its_losses() -> None:
    returns = np.linspace(-0.10, 0.10, 101)
    closes = np.asarray(100.0 * np.cumprod(np.append(1.0, 1.0 + returns))[:, None], dtype=np.float64)
    last = float(closes[-1, 0])

    long = book_var(closes, ("A",), {"A": 10}, 0.95, 101)
    short = book_var(closes, ("A",), {"A": -10}, 0.95, 101)

    # ceil(0.05·101) = 6: the sixth worst of returns 0.002 apart is −0.090 either way round
    assert long == pytest.approx(10 * last * 0.09)
    assert short == pytest.approx(10 * last * 0.09)
    assert book_var(closes, ("A",), {}, 0.95, 101) == 0.0
