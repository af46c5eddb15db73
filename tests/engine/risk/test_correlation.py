"""Correlation and clusters: hand-made series, scipy and networks walked by hand as oracles."""

import itertools
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn.covariance import ledoit_wolf

from engine.risk.correlation import (
    Clusters,
    CorrelationMatrix,
    correlation_matrix,
    linkage_clusters,
    threshold_clusters,
)
from gateway.market.prices import sample_us_stocks

SEEDS = st.integers(0, 10_000)


def drawn(days: int, columns: int, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return 0.006 * rng.standard_normal((days, 1)) + 0.008 * rng.standard_normal((days, columns))


def names(count: int) -> list[str]:
    return [f"S{place}" for place in range(count)]


def given_matrix(correlations: dict[tuple[str, str], float], *labels: str) -> CorrelationMatrix:
    matrix = np.eye(len(labels))
    for (one, other), correlation in correlations.items():
        i, j = labels.index(one), labels.index(other)
        matrix[i, j] = matrix[j, i] = correlation
    return CorrelationMatrix(labels, matrix, "sample", 0.0, 756, ())


def reachable(matrix: NDArray[np.float64], threshold: float) -> set[frozenset[int]]:
    """Components by walking from each series over its edges."""
    found: set[frozenset[int]] = set()
    for start in range(len(matrix)):
        seen, frontier = {start}, [start]
        while frontier:
            one = frontier.pop()
            for other in range(len(matrix)):
                if other not in seen and matrix[one, other] >= threshold:
                    seen.add(other)
                    frontier.append(other)
        found.add(frozenset(seen))
    return found


def average_linkage(matrix: NDArray[np.float64], threshold: float) -> set[frozenset[int]]:
    """Merge the two clusters that correlate most on average, as long as that is at least the threshold."""
    clusters = [[place] for place in range(len(matrix))]
    while len(clusters) > 1:
        pairs = [(i, j) for i in range(len(clusters)) for j in range(i)]
        best = max(pairs, key=lambda pair: matrix[np.ix_(clusters[pair[0]], clusters[pair[1]])].mean())
        if matrix[np.ix_(clusters[best[0]], clusters[best[1]])].mean() < threshold:
            break
        clusters[best[1]] += clusters.pop(best[0])
    return {frozenset(cluster) for cluster in clusters}


def as_sets(clusters: Clusters) -> set[frozenset[int]]:
    return {frozenset(int(name.removeprefix("S")) for name in members) for members in clusters.members}


def test_series_that_move_together_apart_and_neither() -> None:
    up = np.array([0.01, -0.01, 0.01, -0.01])
    odd = np.array([0.01, 0.01, -0.01, -0.01])

    correlation = correlation_matrix(np.column_stack((up, 3 * up, -up, odd)), ["up", "more", "down", "odd"])

    assert correlation.of("up", "more") == pytest.approx(1.0)
    assert correlation.of("up", "down") == pytest.approx(-1.0)
    assert correlation.of("up", "odd") == pytest.approx(0.0)
    assert correlation.mean == pytest.approx((1 - 1 + 0 - 1 + 0 + 0) / 6)


@given(SEEDS)
def test_the_sample_correlation_is_pearsons(seed: int) -> None:
    series = drawn(60, 5, seed)

    correlation = correlation_matrix(series, names(5))

    for one, other in itertools.product(range(5), repeat=2):
        assert correlation.matrix[one, other] == pytest.approx(pearsonr(series[:, one], series[:, other]).statistic)
    assert (correlation.n_observations, correlation.intensity, correlation.warnings) == (60, 0.0, ())


@given(SEEDS)
def test_the_shrunk_correlation_is_that_of_the_shrunk_covariance(seed: int) -> None:
    series = drawn(60, 5, seed)
    covariance, intensity = ledoit_wolf(series)
    deviations = np.sqrt(np.diagonal(covariance))

    correlation = correlation_matrix(series, names(5), "shrunk")

    assert correlation.matrix == pytest.approx(covariance / np.outer(deviations, deviations))
    assert correlation.intensity == pytest.approx(intensity)


def test_strategies_correlate_by_their_pnl_whatever_their_size() -> None:
    pnl = drawn(100, 2)

    small = correlation_matrix(pnl, ["a", "b"]).of("a", "b")
    one_large = correlation_matrix(pnl * [1.0, 1e6], ["a", "b"]).of("a", "b")

    assert one_large == pytest.approx(small)


def test_what_never_moves_is_named_and_in_no_cluster() -> None:
    series = drawn(50, 3)
    series[:, 1] = 0.001

    correlation = correlation_matrix(series, ["a", "pegged", "c"])

    assert (correlation.names, correlation.constant) == (("a", "c"), ("pegged",))
    assert correlation.matrix.shape == (2, 2)
    assert "pegged" in correlation.warnings[0]
    assert threshold_clusters(correlation, -1.0) == Clusters((("a", "c"),), -1.0, ("pegged",))
    with pytest.raises(KeyError, match="pegged"):
        correlation.of("a", "pegged")


def test_a_few_days_are_mostly_chance() -> None:
    assert "29 days" in correlation_matrix(drawn(29, 2), names(2)).warnings[0]
    assert correlation_matrix(drawn(30, 2), names(2)).warnings == ()


def test_a_chain_joins_its_ends_by_threshold_but_not_by_average_linkage() -> None:
    """a-b 0.9, b-c 0.8, a-c 0.1: c averages 0.45 with {a, b}."""
    correlation = given_matrix({("a", "b"): 0.9, ("b", "c"): 0.8, ("a", "c"): 0.1}, "a", "b", "c", "d")

    assert threshold_clusters(correlation, 0.7).members == (("a", "b", "c"), ("d",))
    assert linkage_clusters(correlation, 0.7).members == (("a", "b"), ("c",), ("d",))
    assert linkage_clusters(correlation, 0.45).members == (("a", "b", "c"), ("d",))


def test_the_threshold_itself_is_correlated() -> None:
    correlation = given_matrix({("a", "b"): 0.7}, "a", "b")

    assert threshold_clusters(correlation, 0.7).members == (("a", "b"),)
    assert threshold_clusters(correlation, 0.70001).members == (("a",), ("b",))


def test_opposites_are_as_far_apart_as_can_be() -> None:
    correlation = given_matrix({("a", "b"): -0.95}, "a", "b")

    assert len(threshold_clusters(correlation, 0.5).members) == 2
    assert len(linkage_clusters(correlation, 0.5).members) == 2


@given(SEEDS, st.floats(-0.2, 0.9))
def test_clusters_equal_a_walk_and_a_merge_by_hand(seed: int, threshold: float) -> None:
    correlation = correlation_matrix(drawn(40, 8, seed), names(8))

    by_threshold, by_linkage = threshold_clusters(correlation, threshold), linkage_clusters(correlation, threshold)

    assert as_sets(by_threshold) == reachable(correlation.matrix, threshold)
    assert as_sets(by_linkage) == average_linkage(correlation.matrix, threshold)
    for clusters in (by_threshold, by_linkage):
        assert sorted(name for members in clusters.members for name in members) == names(8)
        sizes = [len(members) for members in clusters.members]
        assert sizes == sorted(sizes, reverse=True)


def test_the_oil_companies_and_the_banks_of_the_sample_find_each_other() -> None:
    window = sample_us_stocks().window(date(2020, 1, 1), 757)
    correlation = correlation_matrix(window.closes[1:] / window.closes[:-1] - 1.0, window.symbols)

    members = linkage_clusters(correlation, 0.6).members

    assert {"CVX", "XOM"} <= set(next(group for group in members if "XOM" in group))
    assert {"BAC", "JPM"} <= set(next(group for group in members if "JPM" in group))
    assert ("RRC",) in members


def test_a_single_series_is_a_cluster_of_its_own() -> None:
    correlation = correlation_matrix(drawn(50, 1), ["a"])

    assert correlation.mean is None
    assert threshold_clusters(correlation, 0.5).members == linkage_clusters(correlation, 0.5).members == (("a",),)


@pytest.mark.parametrize(
    ("series", "labels", "message"),
    [
        (drawn(2, 2), ["a", "b"], "at least 3 days"),
        (np.full((9, 2), np.nan), ["a", "b"], "NaN"),
        (drawn(9, 2), ["a"], "names: expected 2"),
        (drawn(9, 2), ["a", "a"], "each once"),
        (np.zeros((9, 2)), ["a", "b"], "at least one that moves"),
    ],
)
def test_what_has_no_correlation_is_refused(series: NDArray[np.float64], labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        correlation_matrix(series, labels)


def test_an_unknown_estimator_or_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="sample or shrunk"):
        correlation_matrix(drawn(9, 2), ["a", "b"], "robust")  # type: ignore[arg-type]
    for cluster in (threshold_clusters, linkage_clusters):
        with pytest.raises(ValueError, match="from -1 to 1"):
            cluster(given_matrix({}, "a", "b"), 1.1)
