"""Tests of VaR models: published tables, scipy as oracle, a slow simulation, and what the verdicts add up to.

Series are made by hand: a return of -2 against a VaR of 1 is an exception, 0 is none.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from engine.risk.backtest import (
    Hits,
    TighteningRule,
    Verdict,
    Zone,
    acerbi_szekely,
    conditional_coverage,
    days_needed,
    exceptions,
    independence,
    kupiec,
    tightening_factor,
    traffic_light,
    validate,
)

HITS = st.integers(30, 400).flatmap(lambda n: arrays(np.bool_, n))


def series(hits: Hits, loss: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(returns, VaR 1, ES 2) with these exceptions."""
    return np.where(hits, -loss, 0.0), np.ones(hits.size), np.full(hits.size, 2.0)


def spread(n: int, count: int) -> Hits:
    """So many exceptions, as far apart as they can be."""
    hits = np.zeros(n, dtype=np.bool_)
    if count:
        hits[np.linspace(1, n - 2, count).astype(int)] = True
    return hits


# --- exceptions ----------------------------------------------------------------------------------------------------


def test_an_exception_is_a_return_strictly_below_minus_var() -> None:
    assert exceptions([-1.0, -1.0000001, 3.0, 0.7], [1.0, 1.0, 1.0, -0.6]).tolist() == [False, True, False, False]
    assert exceptions([0.5], [-0.6]).tolist() == [True]  # even the tail was to gain 0.6


@pytest.mark.parametrize(
    ("returns", "var", "says"),
    [
        ([1.0, math.nan], [1.0, 1.0], "returns: expected finite"),
        ([1.0, 1.0], [1.0, math.inf], "var: expected finite"),
        ([1.0, 1.0], [1.0], "var: expected the shape"),
        ([], [], "returns: expected one dimension and at least 1"),
    ],
)
def test_what_is_no_series_is_refused_by_name(returns: list[float], var: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        exceptions(returns, var)


# --- Kupiec --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "n", "lowest", "highest"),
    [
        (0.99, 255, 1, 6),
        (0.99, 510, 2, 10),
        (0.99, 1000, 5, 16),
        (0.975, 255, 3, 11),
        (0.975, 510, 7, 20),
        (0.975, 1000, 16, 35),
        (0.95, 255, 7, 20),
        (0.95, 510, 17, 35),
        (0.95, 1000, 38, 64),
        (0.925, 255, 12, 27),
        (0.925, 510, 28, 50),
        (0.925, 1000, 60, 91),
        (0.90, 255, 17, 35),
        (0.90, 510, 39, 64),
        (0.90, 1000, 82, 119),
    ],
)
def test_kupiecs_table_of_nonrejection(confidence: float, n: int, lowest: int, highest: int) -> None:
    """Kupiec 1995, table 3, at 95 % (as in Jorion, Value at Risk, table 6-2), but for its "N < 7" of 255 at 99 %: no
    exception there is refused by the formula (LR 5.13)."""
    kept = [count for count in range(n // 4) if kupiec(count, n, confidence).verdict is Verdict.PASS]

    assert (kept[0], kept[-1], len(kept)) == (lowest, highest, highest - lowest + 1)


def test_no_exception_is_minus_two_n_times_the_log_of_the_confidence() -> None:
    found = kupiec(0, 250, 0.99)

    assert found.statistic == pytest.approx(-2 * 250 * math.log(0.99)) == pytest.approx(5.0252, abs=1e-4)
    assert (found.n, found.degrees_of_freedom, found.verdict) == (250, 1, Verdict.WARN)


@pytest.mark.parametrize(
    ("count", "n", "confidence"), [(7, 250, 0.99), (3, 250, 0.99), (20, 252, 0.95), (60, 756, 0.9)]
)
def test_kupiec_is_scipys_g_test_of_the_counts(count: int, n: int, confidence: float) -> None:
    expected = [n * (1 - confidence), n * confidence]
    oracle = stats.power_divergence([count, n - count], expected, lambda_="log-likelihood")

    found = kupiec(count, n, confidence)

    assert found.statistic == pytest.approx(oracle.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(oracle.pvalue, rel=1e-9)


# --- Christoffersen ------------------------------------------------------------------------------------------------


def test_exceptions_that_follow_one_another_are_not_independent() -> None:
    apart, together = spread(250, 6), np.zeros(250, dtype=np.bool_)
    together[100:106] = True

    assert independence(apart).verdict is Verdict.PASS
    assert independence(together).verdict is Verdict.FAIL
    assert independence(together).n == 249  # transitions


def test_independence_by_hand() -> None:
    """1 1 0 0 0 1 0 0: calm to calm 3, calm to hit 1, hit to calm 2, hit to hit 1; shares 1/4, 1/3 and 2/7."""
    hits = np.array([1, 1, 0, 0, 0, 1, 0, 0], dtype=np.bool_)
    apart = math.log(0.25) + 3 * math.log(0.75) + math.log(1 / 3) + 2 * math.log(2 / 3)
    together = 2 * math.log(2 / 7) + 5 * math.log(5 / 7)

    assert independence(hits).statistic == pytest.approx(2 * (apart - together))


@given(HITS)
def test_independence_is_scipys_g_test_of_the_table_of_transitions(hits: Hits) -> None:
    table = np.zeros((2, 2))
    np.add.at(table, (hits[:-1].astype(int), hits[1:].astype(int)), 1)

    found = independence(hits)

    if table.sum(axis=0).all() and table.sum(axis=1).all():
        oracle = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
        assert found.statistic == pytest.approx(oracle.statistic, rel=1e-6, abs=1e-9)
    else:
        assert found.statistic == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("at", [None, 0, 249])
def test_empty_cells_of_the_transitions_are_no_fault(at: int | None) -> None:
    hits = np.zeros(250, dtype=np.bool_)
    if at is not None:
        hits[at] = True

    found = independence(hits)

    assert math.isfinite(found.statistic) and found.verdict is Verdict.PASS
    assert found.note == ("no exception: nothing can cluster" if at is None else "")


@given(HITS)
def test_coverage_is_the_sum_of_both(hits: Hits) -> None:
    both = conditional_coverage(hits, 0.95)
    parts = kupiec(int(hits.sum()), hits.size, 0.95).statistic + independence(hits).statistic

    assert both.statistic == pytest.approx(parts)
    assert both.p_value == pytest.approx(stats.chi2.sf(parts, 2), rel=1e-9)


# --- Basel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "zone", "multiplier"),
    [
        (0, Zone.GREEN, 1.50),
        (4, Zone.GREEN, 1.50),
        (5, Zone.YELLOW, 1.70),
        (6, Zone.YELLOW, 1.76),
        (7, Zone.YELLOW, 1.83),
        (8, Zone.YELLOW, 1.88),
        (9, Zone.YELLOW, 1.92),
        (10, Zone.RED, 2.00),
        (23, Zone.RED, 2.00),
    ],
)
def test_basels_table(count: int, zone: Zone, multiplier: float) -> None:
    light = traffic_light(count, 250)

    assert (light.zone, light.multiplier, light.note) == (zone, multiplier, "")
    assert light.p_value == pytest.approx(stats.binom.sf(count - 1, 250, 0.01), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "greenest", "reddest"),
    [
        (250, 4, 10),
        (500, 8, 15),
        (1000, 14, 24),
    ],
)
def test_other_lengths_take_their_zones_from_the_same_probabilities(n: int, greenest: int, reddest: int) -> None:
    """Basel's own rule: yellow from the first count whose cumulative probability is at least 95 %, red from 99.99 %."""
    zones = [traffic_light(count, n).zone for count in range(40)]
    cumulative = stats.binom.cdf(np.arange(40), n, 0.01)

    assert (zones.index(Zone.YELLOW) - 1, zones.index(Zone.RED)) == (greenest, reddest)
    assert zones.index(Zone.YELLOW) == int(np.argmax(cumulative >= 0.95))
    assert zones.index(Zone.RED) == int(np.argmax(cumulative >= 0.9999))


@pytest.mark.parametrize(("count", "multiplier"), [(5, 1.70), (6, 1.76), (7, 1.83), (8, 1.88), (9, 1.92), (11, 2.00)])
def test_the_multiplier_of_other_lengths_comes_near_basels_at_its_own(count: int, multiplier: float) -> None:
    light = traffic_light(count, 251)

    assert light.multiplier == pytest.approx(multiplier, abs=0.025)
    assert light.note == "Basel's zones are for 250 days at 99 %; here by the same probabilities"


def test_overlapping_windows_have_no_zone() -> None:
    light = traffic_light(12, 250, overlapping=True)

    assert (light.zone, light.multiplier, light.verdict) == (None, None, Verdict.UNTESTED)
    assert "overlapping" in light.note


@pytest.mark.parametrize(("count", "n", "confidence"), [(-1, 250, 0.99), (251, 250, 0.99), (0, 0, 0.99), (1, 9, 1.0)])
def test_counts_that_cannot_be_are_refused(count: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        traffic_light(count, n, confidence)
    with pytest.raises(ValueError, match="expected"):
        kupiec(count, n, confidence)


# --- Acerbi and Székely --------------------------------------------------------------------------------------------


def test_z2_by_hand() -> None:
    """200 days at 95 % expect 10 exceptions of the size of ES; 12 of 1.5 times ES are 18 in place of 10."""
    returns, var, es = series(spread(200, 12), loss=3.0)

    assert acerbi_szekely(returns, var, es, 0.95).statistic == pytest.approx(1 - 12 * 1.5 / 10) == pytest.approx(-0.8)


def test_as_many_exceptions_as_expected_of_the_size_of_es_are_zero() -> None:
    assert acerbi_szekely(*series(spread(200, 10)), 0.95).statistic == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("count", "verdict"),
    [(10, Verdict.PASS), (17, Verdict.PASS), (18, Verdict.WARN), (28, Verdict.WARN), (29, Verdict.FAIL)],
)
def test_the_verdict_is_by_the_published_critical_values(count: int, verdict: Verdict) -> None:
    """Z2 = 1 - count / 10: -0.7 at 17 is not below -0.70, -1.8 at 28 is not below -1.8."""
    assert acerbi_szekely(*series(spread(200, count)), 0.95).verdict is verdict


@pytest.mark.parametrize(("z2", "published"), [(-0.70, 0.05), (-1.80, 0.0001)])
def test_the_p_values_at_the_published_critical_values_are_the_published_ones(z2: float, published: float) -> None:
    """Acerbi and Székely 2014, for 250 days at 97.5 %: one loss alone stands for all of Z2."""
    returns, var, es = np.zeros(250), np.ones(250), np.ones(250)
    returns[100] = -(1 - z2) * 250 * 0.025

    found = acerbi_szekely(returns, var, es, 0.975)

    assert found.statistic == pytest.approx(z2)
    assert found.p_value == pytest.approx(published, rel=0.06)
    assert found.note == ""


@pytest.mark.parametrize(("n", "confidence"), [(250, 0.99), (500, 0.95), (120, 0.975)])
def test_the_p_value_is_that_of_a_simulation_of_normal_days(n: int, confidence: float) -> None:
    random = np.random.default_rng(11)
    quantile = stats.norm.ppf(confidence)
    es = stats.norm.pdf(quantile) / (1 - confidence)
    days = random.standard_normal((20_000, n))
    simulated = 1 + np.where(days < -quantile, days, 0.0).sum(axis=1) / (n * (1 - confidence) * es)

    for at in np.quantile(simulated, [0.02, 0.1, 0.5]):
        returns = np.zeros(n)
        returns[0] = -(1 - at) * n * (1 - confidence) * es
        found = acerbi_szekely(returns, np.full(n, quantile), np.full(n, es), confidence)
        assert found.statistic == pytest.approx(at)
        assert found.p_value == pytest.approx((simulated <= at).mean(), abs=0.012)


def test_es_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="es: expected numbers above 0, got 0"):
        acerbi_szekely([0.0, 1.0], [1.0, 1.0], [1.0, 0.0], 0.5)


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_a_model_that_keeps_its_word_passes() -> None:
    found = validate(*series(spread(500, 5)), 0.99, "historical")

    assert (found.verdict, found.reasons) == (Verdict.PASS, ())
    assert (found.n, found.exceptions) == (500, 5)
    assert found.expected == pytest.approx(5.0)
    assert tightening_factor([found]) == 1.0


def test_too_many_exceptions_fail_and_say_why_worst_first() -> None:
    hits = spread(500, 20)

    found = validate(*series(hits, loss=1.5), 0.99)

    assert found.verdict is Verdict.FAIL
    assert found.reasons[0].startswith("VaR is too low: 20 exceptions where 5.0 were expected (Kupiec p = ")
    assert any(reason.startswith("Basel red zone: 10 exceptions in the last 250 days") for reason in found.reasons)


def test_the_light_is_of_the_last_250_days() -> None:
    hits = np.concatenate((spread(250, 12), spread(250, 0)))

    found = validate(*series(hits), 0.99)

    assert found.light is not None
    assert (found.light.n, found.light.statistic, found.light.zone) == (250, 0, Zone.GREEN)


def test_too_few_exceptions_are_flagged_and_never_fail_or_tighten() -> None:
    found = validate(*series(spread(1000, 0)), 0.99)

    assert found.kupiec is not None and found.kupiec.verdict is Verdict.FAIL
    assert found.verdict is Verdict.WARN
    assert found.reasons[0].startswith("VaR is too high: 0 exceptions where 10.0 were expected")
    assert tightening_factor([found]) == 1.0


def test_exceptions_that_cluster_are_a_warning() -> None:
    hits = np.zeros(1000, dtype=np.bool_)
    hits[600:610] = True

    found = validate(*series(hits), 0.99)

    assert found.verdict is Verdict.WARN
    assert any(reason.startswith("exceptions cluster") for reason in found.reasons)


def test_losses_beyond_es_fail_a_model_whose_count_is_right() -> None:
    found = validate(*series(spread(500, 5), loss=6.0), 0.99)

    assert found.verdict is Verdict.FAIL
    assert found.reasons == ("losses beyond VaR exceed ES: Z2 = -2.00",)


def test_too_few_days_are_untested_and_no_pass() -> None:
    found = validate(*series(spread(99, 5)), 0.99)

    assert (days_needed(0.99), days_needed(0.95)) == (100, 20)
    assert (found.verdict, found.kupiec, found.light) == (Verdict.UNTESTED, None, None)
    assert found.reasons == ("99 days are too few to test 0.99: 100 are needed",)
    assert tightening_factor([found]) == 1.0


def test_overlapping_windows_warn_at_most_and_say_so() -> None:
    found = validate(*series(spread(500, 40)), 0.99, overlapping=True)

    assert found.verdict is Verdict.WARN
    assert any("overlapping" in reason for reason in found.reasons)
    assert tightening_factor([found]) == 1.0


@pytest.mark.parametrize(
    ("count", "factor"), [(4, 1.0), (5, 1.5 / 1.70), (7, 1.5 / 1.83), (9, 0.75), (10, 0.75), (30, 0.75)]
)
def test_limits_tighten_as_basels_multiplier_grows(count: int, factor: float) -> None:
    """From 8 on Kupiec fails the model at 1 %, which asks for 0.75 by itself."""
    found = validate(*series(spread(250, count), loss=1.1), 0.99)

    assert tightening_factor([found]) == pytest.approx(factor)


def test_the_least_factor_of_all_models_counts_and_the_rule_is_configurable() -> None:
    good, bad = validate(*series(spread(500, 5)), 0.99), validate(*series(spread(500, 20)), 0.99)

    assert tightening_factor([]) == 1.0
    assert tightening_factor([good, bad]) == 0.75
    assert tightening_factor([good, bad], TighteningRule(failed=0.5)) == 0.5
    assert tightening_factor([bad], TighteningRule(failed=0.9, by_light=False)) == 0.9


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.01, math.nan])
def test_no_rule_loosens(factor: float) -> None:
    with pytest.raises(ValueError, match="failed: expected a factor above 0, at most 1"):
        TighteningRule(failed=factor)


@given(HITS, st.floats(1.01, 5.0))
def test_worse_losses_never_better_a_model(hits: Hits, loss: float) -> None:
    mild, harsh = (validate(*series(hits, size), 0.95) for size in (loss, loss * 1.5))

    assert tightening_factor([harsh]) <= tightening_factor([mild]) <= 1.0
