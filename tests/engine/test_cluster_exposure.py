"""Correlated instruments count as one exposure: hand-written numbers, and the clusters of engine.risk.correlation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import decide
from engine.headroom import headroom
from engine.limits import Limit
from engine.measures.cluster import cluster_of, joined_pairs
from engine.order import Action, Order, Reason
from engine.records import Decided
from engine.risk.correlation import CorrelationMatrix, threshold_clusters
from engine.risk.model import RiskModel
from engine.utilisation import limit_uses
from tests.engine.builders import NOW_US, account, limits, model, order, reserve, row, sell, stock, terms, universe

ALL = universe(*(stock(name) for name in ("AAA", "BBB", "CCC", "DDD")))
MARKS = {"AAA": 100.0, "BBB": 50.0, "CCC": 10.0, "DDD": 20.0}
ONE = [0.01, -0.01, 0.01, -0.01] * 10
OTHER = [0.01, 0.01, -0.01, -0.01] * 10
BETWEEN = [(one + other) / 2 for one, other in zip(ONE, OTHER, strict=True)]
"""Correlated by 1/√2 with either."""
STILL = 0.007
"""40 of them have a mean that is a rounding off: their deviations are not 0, and a correlation of them is noise."""
MODEL = model({"AAA": ONE, "BBB": [-r for r in ONE], "CCC": OTHER, "DDD": BETWEEN})


def judged(asked: Order, limit: Limit, state: AccountState, risk: RiskModel | None = MODEL, **policy: float) -> Decided:
    return decide(state, terms(ALL, limits(limit, **policy), risk), asked, NOW_US)


def values(asked: Order, state: AccountState, **policy: float) -> tuple[float, float]:
    record = judged(asked, row("cluster_exposure", 1e12, unit="money"), state, MODEL, **policy)
    found = next(one for one in record.checks if one.measure == "cluster_exposure")
    assert found.before is not None and found.after is not None
    return found.before, found.after


def test_what_moves_together_is_one_exposure_and_so_is_a_mirror_image() -> None:
    """1000 of AAA, 500 of its mirror, 400 of what has nothing to do with them."""
    state = account(ALL, MARKS, positions={"AAA": 10, "BBB": -10, "CCC": 40})

    assert values(order(quantity=2), state) == (1500.0, 1700.0)
    assert values(order("CCC", quantity=5), state) == (400.0, 450.0)


def test_an_order_that_joins_two_clusters_is_judged_on_both() -> None:
    """DDD is correlated with both by 0.707: it makes one of 1000 and 400, with itself 1500."""
    state = account(ALL, MARKS, positions={"AAA": 10, "CCC": 40})

    assert values(order("DDD", quantity=5), state) == (1000.0, 1500.0)
    assert values(order("DDD", quantity=5), state, cluster_correlation=0.72) == (0.0, 100.0)


def test_what_is_only_listed_joins_nobody() -> None:
    state = account(ALL, MARKS, positions={"AAA": 10, "CCC": 40})

    assert values(order("CCC", quantity=1), state) == (400.0, 410.0)


def test_open_orders_count_at_their_worst_end() -> None:
    state = account(ALL, MARKS, positions={"AAA": 10})
    reserve(state, "b", "BBB", 6)
    reserve(state, "s", "BBB", -8)

    assert values(order(quantity=1), state) == (1400.0, 1500.0)


@pytest.mark.parametrize(("asked", "lots"), [(order(quantity=9), 3), (sell("BBB", quantity=40), 6)])
def test_reduce_leaves_the_most_that_fits(asked: Order, lots: int) -> None:
    """1500 used of 1800: 3 of 100 more, or 6 of 50."""
    state = account(ALL, MARKS, positions={"AAA": 10, "BBB": -10})
    record = judged(asked, row("cluster_exposure", 1800, action="reduce", unit="money"), state)

    assert (record.action, record.allowed_lots, record.reason) == (Action.REDUCE, lots, Reason.CLUSTER_EXPOSURE)


def test_headroom_is_what_decide_allows() -> None:
    state = account(ALL, MARKS, positions={"AAA": 10, "BBB": -10})
    found = headroom(state, terms(ALL, limits(row("cluster_exposure", 1800, unit="money")), MODEL), "", "AAA", NOW_US)

    assert (found.buy.lots, found.sell.lots) == (3, 23)  # 10 closed, then 13 short beside 500
    assert found.buy.binding == "cluster_exposure@account:ALPHA"


def test_over_the_bound_what_sells_passes_and_a_hedge_does_not() -> None:
    state = account(ALL, MARKS, positions={"AAA": 10})
    limit = row("cluster_exposure", 500, unit="money")

    assert judged(sell(quantity=1), limit, state).action is Action.ALLOW
    assert judged(order("BBB"), limit, state).reason is Reason.CLUSTER_EXPOSURE
    assert judged(order("CCC"), limit, state).action is Action.ALLOW


@pytest.mark.parametrize(
    ("risk", "reason"),
    [
        (None, Reason.MODEL_MISSING),
        (model(dict.fromkeys(MARKS, ONE[:25])), Reason.HISTORY_MISSING),
        (model({"AAA": ONE, "BBB": [], "CCC": ONE, "DDD": ONE}), Reason.HISTORY_MISSING),
        (model(dict.fromkeys(MARKS, ONE), built_time_us=1), Reason.MODEL_STALE),
    ],
)
def test_without_days_nothing_opens_and_exits_pass(risk: RiskModel | None, reason: Reason) -> None:
    state = account(ALL, MARKS, positions={"BBB": 10})
    limit = row("cluster_exposure", 1e9, unit="money")

    assert judged(order(), limit, state, risk).reason is reason
    assert judged(order("BBB"), limit, state, risk).reason is reason
    assert judged(sell("BBB", quantity=10), limit, state, risk).action is Action.ALLOW


def test_the_standing_value_is_the_largest_cluster() -> None:
    state = account(ALL, MARKS, positions={"AAA": 2, "BBB": -2, "CCC": 40})
    uses = limit_uses(state, terms(ALL, limits(row("cluster_exposure", 0.5)), MODEL), NOW_US)

    (value,) = [use.value for use in uses if use.measure == "cluster_exposure"]
    assert value == pytest.approx(400.0 / state.equity())


def test_a_symbol_that_never_moves_is_alone() -> None:
    joined = joined_pairs(np.array([ONE, [STILL] * 40, ONE, [STILL] * 40]), 0.5)

    assert joined.tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


@given(st.integers(2, 8), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_clusters_are_those_of_the_risk_page_but_for_the_sign(n: int, threshold: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    series = chance.normal(0.0, 1.0, (60, n)) + chance.normal(0.0, 1.0, (60, 1)) * chance.choice([0.0, 1.0], n)
    sizes = np.abs(np.corrcoef(series, rowvar=False))
    if np.abs(sizes - threshold).min() < 1e-6:
        return
    matrix = CorrelationMatrix(tuple(map(str, range(n))), sizes, "sample", 0.0, 60, ())
    expected = {frozenset(map(int, names)) for names in threshold_clusters(matrix, threshold).members}

    joined, everyone = joined_pairs(np.ascontiguousarray(series.T), threshold), np.ones(n, dtype=np.bool_)

    found = {frozenset(np.flatnonzero(cluster_of(joined, start, everyone)).tolist()) for start in range(n)}
    assert found == expected


def test_equity_that_is_not_positive_refuses() -> None:
    state = account(ALL, MARKS, cash=-5_000.0, positions={"AAA": 10})

    record = judged(order(), row("cluster_exposure", 1e9), state)

    assert record.reason is Reason.EQUITY_NOT_POSITIVE
    assert math.isfinite(state.equity())
