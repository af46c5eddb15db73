"""VaR and ES of a loss vector: hand numbers, numpy and a slow reference as oracles, and the axioms as properties.

Only var.py is exercised. Losses are drawn bounded, so that float error stays far below the tolerances.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import integrate

from engine.risk.var import expected_shortfall, tail_count, value_at_risk

CONFIDENCES = st.sampled_from([0.9, 0.95, 0.975, 0.99])
LOSSES = st.integers(100, 300).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-1e4, 1e4)))
PAIRS = st.integers(100, 300).flatmap(lambda n: arrays(np.float64, (2, n), elements=st.floats(-1e4, 1e4)))
CLOSE = 1e-7

Losses = NDArray[np.float64]


def reference_tail(losses: list[float], confidence: float) -> tuple[float, float]:
    """VaR and ES by hand: walk down the sorted losses until exactly mass a·n is spent, in exact fractions."""
    mass = (1 - Fraction(str(confidence))) * len(losses)
    spent, total, last = Fraction(0), Fraction(0), 0.0
    for loss in sorted(losses, reverse=True):
        weight = min(Fraction(1), mass - spent)
        if weight == 0:
            break
        spent, total, last = spent + weight, total + weight * Fraction(loss), loss
    return last, float(total / mass)


@pytest.mark.parametrize(
    ("n", "confidence", "count"),
    [
        (756, 0.95, 38),
        (756, 0.99, 8),
        (100, 0.95, 5),
        (1000, 0.95, 50),
        (250, 0.99, 3),
        (1000, 0.99, 10),
        (10, 0.99, 1),
    ],
)
def test_the_tail_is_counted_without_the_float_error_of_one_minus_confidence(
    n: int, confidence: float, count: int
) -> None:
    assert tail_count(n, confidence) == count


def test_the_fifth_worst_of_a_hundred_is_the_var_at_95_percent() -> None:
    losses = np.arange(1.0, 101.0)

    assert value_at_risk(losses, 0.95) == 96.0
    assert value_at_risk(losses, 0.95, "linear") == pytest.approx(95.05)
    assert expected_shortfall(losses, 0.95) == pytest.approx(98.0)


def test_es_weighs_the_last_observation_by_the_part_of_it_inside_the_tail() -> None:
    losses = [10.0, 8.0, 4.0, *[0.0] * 22]  # 2.5 observations at 90 %

    assert value_at_risk(losses, 0.9) == 4.0
    assert expected_shortfall(losses, 0.9) == pytest.approx((10.0 + 8.0 + 0.5 * 4.0) / 2.5)


def test_a_tail_of_gains_is_a_negative_var() -> None:
    assert value_at_risk(np.full(100, -3.0), 0.99) == -3.0
    assert expected_shortfall(np.full(100, -3.0), 0.99) == -3.0


@pytest.mark.parametrize("n", [100, 101, 250, 756, 1000])
@pytest.mark.parametrize(("confidence", "tail"), [(0.95, 0.05), (0.99, 0.01), (0.975, 0.025)])
def test_the_order_statistic_is_numpys_inverted_cdf_of_the_returns(n: int, confidence: float, tail: float) -> None:
    losses = np.random.default_rng(n).standard_t(3, n)

    assert value_at_risk(losses, confidence) == -np.quantile(-losses, tail, method="inverted_cdf")
    assert value_at_risk(losses, confidence, "linear") == pytest.approx(-np.percentile(-losses, 100 * tail))


@pytest.mark.parametrize("confidence", [0.95, 0.975, 0.99])
def test_es_is_the_mean_of_the_quantiles_beyond_the_confidence(confidence: float) -> None:
    """Acerbi and Tasche: ES = 1/a · integral of VaR_u over the tail; here by quadrature over the step function."""
    losses = np.sort(np.random.default_rng(7).standard_t(4, 130))
    steps = np.arange(1, 130) / 130
    area, _ = integrate.quad(
        lambda u: losses[min(129, int(u * 130))], confidence, 1.0, points=steps[steps > confidence], limit=300
    )

    assert expected_shortfall(losses, confidence) == pytest.approx(area / (1 - confidence), rel=1e-6)


@given(LOSSES, CONFIDENCES)
def test_fast_equals_the_slow_reference(losses: Losses, confidence: float) -> None:
    var, es = reference_tail(losses.tolist(), confidence)

    assert value_at_risk(losses, confidence) == var
    assert expected_shortfall(losses, confidence) == pytest.approx(es, abs=CLOSE)


@given(LOSSES, CONFIDENCES)
def test_var_within_a_bound_means_fewer_losses_beyond_it_than_the_tail_holds(losses: Losses, confidence: float) -> None:
    var = value_at_risk(losses, confidence)
    count = tail_count(losses.size, confidence)

    assert (losses > var).sum() < count
    assert (losses > math.nextafter(var, -math.inf)).sum() >= count


@given(LOSSES, CONFIDENCES, st.floats(-1e3, 1e3))
def test_a_sure_loss_adds_itself(losses: Losses, confidence: float, sure: float) -> None:
    assert value_at_risk(losses + sure, confidence) == pytest.approx(
        value_at_risk(losses, confidence) + sure, abs=CLOSE
    )
    assert expected_shortfall(losses + sure, confidence) == pytest.approx(
        expected_shortfall(losses, confidence) + sure, abs=CLOSE
    )


@given(LOSSES, CONFIDENCES, st.floats(0.01, 100.0))
def test_a_book_of_twice_the_size_has_twice_the_risk(losses: Losses, confidence: float, size: float) -> None:
    assert value_at_risk(size * losses, confidence) == pytest.approx(
        size * value_at_risk(losses, confidence), abs=CLOSE
    )
    assert expected_shortfall(size * losses, confidence) == pytest.approx(
        size * expected_shortfall(losses, confidence), abs=CLOSE * 100
    )


@given(PAIRS, CONFIDENCES)
def test_es_of_two_books_together_is_no_more_than_of_both_apart(pair: Losses, confidence: float) -> None:
    together = expected_shortfall(pair[0] + pair[1], confidence)
    apart = expected_shortfall(pair[0], confidence) + expected_shortfall(pair[1], confidence)

    assert together <= apart + CLOSE


@given(LOSSES, CONFIDENCES)
def test_es_is_never_below_var_nor_above_the_worst_loss(losses: Losses, confidence: float) -> None:
    es = expected_shortfall(losses, confidence)

    assert value_at_risk(losses, confidence) <= es <= losses.max() + CLOSE


@pytest.mark.parametrize("risk", [value_at_risk, expected_shortfall])
@pytest.mark.parametrize(
    ("losses", "confidence", "message"),
    [
        ([], 0.95, "at least 1"),
        ([1.0] * 99, 0.99, "at least 100"),
        ([1.0] * 19, 0.95, "at least 20"),
        ([1.0] * 99 + [math.nan], 0.95, "NaN"),
        ([1.0] * 99 + [math.inf], 0.95, "infinity"),
        ([1.0] * 100, 95.0, "0.99 for 99 %"),
        ([1.0] * 100, 1.0, "below 1"),
        ([1.0] * 100, math.nan, "below 1"),
        ([[1.0] * 100], 0.95, "one dimension"),
    ],
)
def test_what_has_no_answer_is_refused(
    risk: Callable[[list[float], float], float], losses: list[float], confidence: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        risk(losses, confidence)


def test_an_unknown_quantile_is_refused() -> None:
    with pytest.raises(ValueError, match="order_statistic or linear"):
        value_at_risk([1.0] * 100, 0.95, "nearest")  # type: ignore[arg-type]
