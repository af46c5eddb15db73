"""Volatility and strategy correlation at order time: hand-written numbers, and the worst of all fills by trying."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState, Floats
from engine.decide import decide
from engine.headroom import headroom
from engine.limits import Limit
from engine.measures.volatility import CORNERS_OPEN_MAX, worst_deviation
from engine.misfits import misfits
from engine.order import Action, Order, Reason
from engine.records import Decided
from engine.risk.model import RiskModel
from engine.utilisation import UseStatus, limit_uses
from tests.engine.builders import NOW_US, account, limits, model, order, reserve, row, sell, stock, terms, universe

THREE = universe(stock("AAA"), stock("BBB"), stock("CCC"))
MARKS = {"AAA": 100.0, "BBB": 50.0, "CCC": 10.0}
UP_DOWN = [0.01, -0.01] * 20
SLOW = [0.01, 0.01, -0.01, -0.01] * 10
MODEL = model({"AAA": UP_DOWN, "BBB": [-r for r in UP_DOWN], "CCC": SLOW})
"""BBB mirrors AAA; CCC has nothing to do with either."""

YEARLY = 0.01 * math.sqrt(40 / 39) * math.sqrt(252)
"""Of each of them: 40 days of 1 %, mean 0, ddof 1."""


def judged(asked: Order, limit: Limit, state: AccountState, risk: RiskModel | None = MODEL) -> Decided:
    return decide(state, terms(THREE, limits(limit), risk), asked, NOW_US)


def values(asked: Order, name: str, state: AccountState, scope: str = "account", **fields: str) -> tuple[float, float]:
    found = next(one for one in judged(asked, row(name, 1e12, scope, **fields), state).checks if one.measure == name)
    assert found.before is not None and found.after is not None
    return found.before, found.after


def money(asked: Order, state: AccountState) -> tuple[float, float]:
    return values(asked, "volatility", state, unit="money")


# --- volatility ---------------------------------------------------------------------------------------------------


def test_a_position_moves_by_its_value() -> None:
    """10 at 100 and 5 more."""
    state = account(THREE, MARKS, positions={"AAA": 10})

    assert money(order(quantity=5), state) == pytest.approx((1000 * YEARLY, 1500 * YEARLY))
    assert values(order(quantity=5), "volatility", state)[1] == pytest.approx(1500 * YEARLY / state.equity())


def test_uncorrelated_ones_add_in_squares_and_mirror_images_cancel_once_held() -> None:
    state = account(THREE, MARKS, positions={"AAA": 30, "CCC": 400})
    hedged = account(THREE, MARKS, positions={"AAA": 10, "BBB": 20})

    assert money(order(quantity=1), state)[0] == pytest.approx(5000 * YEARLY)  # 3000 and 4000
    assert money(order(quantity=1), hedged) == pytest.approx((0.0, 100 * YEARLY))


def test_open_orders_that_would_cancel_each_other_may_fill_alone() -> None:
    """Flat, 10 bought and 10 sold: one of them may fill. Row by row the worst loss of the two is the same every day,
    and its deviation next to nothing."""
    state = account(THREE, MARKS)
    reserve(state, "buy", "AAA", 10)
    reserve(state, "sell", "AAA", -10)

    assert money(order("CCC", quantity=1), state)[0] == pytest.approx(1000 * YEARLY)
    assert money(sell(quantity=5), state) == pytest.approx((1000 * YEARLY, 1500 * YEARLY))
    assert money(order(quantity=5), state) == pytest.approx((1000 * YEARLY, 1500 * YEARLY))


def test_another_model_is_read_anew() -> None:
    state, limit = account(THREE, MARKS, positions={"AAA": 10}), row("volatility", 1e9, unit="money")
    twice = model({"AAA": [2.0 * r for r in UP_DOWN], "BBB": UP_DOWN, "CCC": SLOW})

    first, second = (judged(sell(quantity=1), limit, state, risk).checks[-1].before for risk in (MODEL, twice))

    assert first == pytest.approx(1000 * YEARLY)
    assert second == pytest.approx(2000 * YEARLY)


def test_a_hedge_counts_once_it_is_filled_and_not_before() -> None:
    state = account(THREE, MARKS, positions={"AAA": 10})

    assert money(order("BBB", quantity=20), state) == pytest.approx((1000 * YEARLY, 1000 * YEARLY))


def test_reduce_leaves_the_most_that_fits() -> None:
    """1000 held; 1250 × YEARLY is the bound: 2 of 100 more."""
    state = account(THREE, MARKS, positions={"AAA": 10})
    record = judged(order(quantity=9), row("volatility", 1250 * YEARLY, action="reduce", unit="money"), state)

    assert (record.action, record.allowed_lots, record.reason) == (Action.REDUCE, 2, Reason.VOLATILITY)


def test_headroom_is_what_decide_allows() -> None:
    state = account(THREE, MARKS, positions={"AAA": 10})
    armed = terms(THREE, limits(row("volatility", 1250 * YEARLY, unit="money")), MODEL)

    found = headroom(state, armed, "", "AAA", NOW_US)

    assert (found.buy.lots, found.sell.lots) == (2, 22)
    assert found.buy.binding == "volatility@account:ALPHA"


def test_over_the_bound_what_sells_passes_and_what_buys_does_not() -> None:
    state = account(THREE, MARKS, positions={"AAA": 10})
    limit = row("volatility", 500 * YEARLY, unit="money")

    assert judged(sell(quantity=1), limit, state).action is Action.ALLOW
    assert judged(order("CCC"), limit, state).reason is Reason.VOLATILITY


def test_the_leg_of_a_hedge_that_raises_it_is_no_reduction() -> None:
    """Selling BBB, the mirror of AAA, makes the book move more."""
    state = account(THREE, MARKS, positions={"AAA": 10, "BBB": 10})

    assert judged(sell("BBB", quantity=5), row("volatility", 400 * YEARLY, unit="money"), state).reason is (
        Reason.VOLATILITY
    )


@pytest.mark.parametrize(
    ("risk", "reason"),
    [
        (None, Reason.MODEL_MISSING),
        (model({"AAA": UP_DOWN[:25], "BBB": UP_DOWN[:25], "CCC": SLOW[:25]}), Reason.HISTORY_MISSING),
        (model({"AAA": UP_DOWN, "BBB": [], "CCC": SLOW}), Reason.HISTORY_MISSING),
        (model({"AAA": UP_DOWN, "BBB": UP_DOWN, "CCC": SLOW}, built_time_us=1), Reason.MODEL_STALE),
    ],
)
@pytest.mark.parametrize("measure", ["volatility", "strategy_correlation"])
def test_without_days_nothing_opens_and_exits_pass(risk: RiskModel | None, reason: Reason, measure: str) -> None:
    state = account(THREE, MARKS, strategies={("A", "BBB"): 10, ("B", "AAA"): 5})
    limit = row(measure, 1e9, "strategy" if measure == "strategy_correlation" else "account")

    opening = judged(order("AAA", strategy="A"), limit, state, risk)
    closing = judged(sell("BBB", quantity=10, strategy="A"), limit, state, risk)

    assert (opening.action, opening.reason) == (Action.REJECT, reason)
    assert closing.action is Action.ALLOW


def test_the_standing_value_is_that_of_the_order_before_it() -> None:
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10, ("B", "CCC"): 50})
    reserve(state, "open", "AAA", 5, strategy="A")
    rows = (row("volatility", 1400 * YEARLY, "strategy", unit="money"),)

    uses = {use.scope: use for use in limit_uses(state, terms(THREE, limits(*rows), MODEL), NOW_US)}

    assert uses["strategy:A"].value == pytest.approx(1500 * YEARLY)
    assert uses["strategy:A"].status is UseStatus.BREACHED
    assert uses["strategy:B"].value == pytest.approx(500 * YEARLY)


def deviation(values: Floats, returns: Floats) -> float:
    return float(np.std(values @ returns, ddof=1))


boxes = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 5)), min_size=n, max_size=n),
        st.integers(0, 2**32 - 1),
    )
)


@given(boxes)
def test_no_fills_move_more_and_some_corner_moves_as_much(box: tuple[list[tuple[float, float]], int]) -> None:
    ends, seed = box
    chance = np.random.default_rng(seed)
    low = np.array([start for start, _ in ends])
    high = low + np.array([width for _, width in ends])
    returns = chance.normal(0.001, 0.02, (len(low), 35))

    worst = worst_deviation(low, high, returns)

    corners = [deviation(np.array(c), returns) for c in itertools.product(*zip(low, high, strict=True))]
    inside = deviation(low + (high - low) * chance.random(len(low)), returns)
    assert worst == pytest.approx(max(corners), rel=1e-9, abs=1e-12)
    assert inside <= worst * (1 + 1e-9) + 1e-12


@given(st.integers(0, 2**32 - 1))
def test_past_the_corners_it_is_a_bound_and_rises_with_each_order(seed: int) -> None:
    n = CORNERS_OPEN_MAX + 2
    chance = np.random.default_rng(seed)
    low, width = chance.normal(0, 1, n), chance.random(n) + 0.1
    returns = chance.normal(0.0, 0.02, (n, 40))
    opened = np.arange(n) < CORNERS_OPEN_MAX

    few = worst_deviation(low, low + np.where(opened, width, 0.0), returns)
    many = worst_deviation(low, low + width, returns)
    more = worst_deviation(low, low + width * 1.1, returns)

    sampled = max(deviation(low + width * chance.integers(0, 2, n), returns) for _ in range(50))
    assert few <= many <= more
    assert sampled <= many


def test_a_number_that_is_none_gives_none() -> None:
    ends = np.array([math.nan, 1.0])

    assert math.isnan(worst_deviation(ends, ends + 1.0, np.ones((2, 30))))


# --- strategy correlation -----------------------------------------------------------------------------------------

CAP = row("strategy_correlation", 0.8, "strategy")


def test_a_strategy_that_follows_another_is_refused_and_one_apart_is_not() -> None:
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10})

    follows, apart = order(strategy="B"), order("CCC", strategy="B")

    assert judged(follows, CAP, state).reason is Reason.STRATEGY_CORRELATION
    assert judged(apart, CAP, state).action is Action.ALLOW
    assert values(follows, "strategy_correlation", state, "strategy") == pytest.approx((0.0, 1.0))
    assert values(apart, "strategy_correlation", state, "strategy") == pytest.approx((0.0, 0.0), abs=1e-12)


def test_selling_short_turns_it_and_a_mirror_image_follows() -> None:
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10})

    assert values(sell(strategy="B"), "strategy_correlation", state, "strategy")[1] == 0.0
    assert values(sell("BBB", strategy="B"), "strategy_correlation", state, "strategy")[1] == pytest.approx(1.0)


def test_a_mixture_is_correlated_by_its_part() -> None:
    """300 in AAA and 400 in CCC: 3/5 of A's moves."""
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10, ("B", "CCC"): 40})
    asked = order(quantity=3, strategy="B")

    assert values(asked, "strategy_correlation", state, "strategy")[1] == pytest.approx(0.6)


def test_headroom_ends_where_the_cap_does() -> None:
    """x beside 400 of CCC is correlated by x/√(x² + 400²): 0.8 at 533."""
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10, ("B", "CCC"): 40})

    found = headroom(state, terms(THREE, limits(CAP), MODEL), "B", "AAA", NOW_US)

    assert found.buy.lots == 5
    assert (found.buy.reason, found.buy.binding) == (Reason.STRATEGY_CORRELATION, "strategy_correlation@strategy:B")


def test_a_part_of_an_order_may_follow_more_than_the_whole() -> None:
    """From short 400 of CCC to long 400 of it beside 300 of AAA: half-way nothing but AAA is left."""
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10, ("B", "AAA"): 3, ("B", "CCC"): -40})
    asked = order("CCC", quantity=80, strategy="B")

    assert values(asked, "strategy_correlation", state, "strategy") == pytest.approx((0.6, 1.0))


def test_open_orders_count_as_none_and_as_all_filled() -> None:
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10})
    reserve(state, "b", "AAA", 1, strategy="B")

    assert judged(order("CCC", quantity=1000, strategy="B"), CAP, state).reason is Reason.STRATEGY_CORRELATION


def test_over_the_cap_what_closes_passes_though_it_lowers_nothing() -> None:
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10, ("B", "AAA"): 4})

    assert judged(sell(quantity=2, strategy="B"), CAP, state).action is Action.ALLOW
    assert judged(order(quantity=2, strategy="B"), CAP, state).reason is Reason.STRATEGY_CORRELATION


def test_nothing_working_is_cancelled_for_it() -> None:
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10})
    reserve(state, "b", "AAA", 5, strategy="B")
    armed = terms(THREE, limits(CAP), MODEL)

    assert [use.status for use in limit_uses(state, armed, NOW_US) if use.measure == CAP.measure] == [
        UseStatus.BREACHED,
        UseStatus.BREACHED,
    ]
    assert misfits(state, armed, NOW_US, ()) == []


def test_what_works_is_cancelled_where_volatility_no_longer_fits() -> None:
    state = account(THREE, MARKS, positions={"AAA": 10})
    reserve(state, "old", "AAA", 5)
    reserve(state, "new", "AAA", 5)
    limit = row("volatility", 1600 * YEARLY, unit="money")

    found = misfits(state, terms(THREE, limits(limit), MODEL), NOW_US, ())

    assert [(one.order.client_order_id, one.reason) for one in found] == [("new", Reason.VOLATILITY)]


def test_what_has_nothing_at_risk_is_correlated_with_nobody() -> None:
    """A's two legs cancel."""
    state = account(THREE, MARKS, strategies={("A", "AAA"): 10, ("A", "BBB"): 20})

    assert judged(order(strategy="B"), CAP, state).action is Action.ALLOW


def test_orders_without_a_strategy_are_one_too_and_the_kept_figures_follow_the_book() -> None:
    state = account(THREE, MARKS, positions={"AAA": 10})
    armed = terms(THREE, limits(CAP), MODEL)

    assert decide(state, armed, order(strategy="B"), NOW_US).reason is Reason.STRATEGY_CORRELATION
    fork = state.fork()
    reserve(fork, "sold", "AAA", -20)
    assert decide(fork, armed, sell("AAA", strategy="B"), NOW_US).reason is Reason.STRATEGY_CORRELATION
    assert decide(state, armed, sell("AAA", strategy="B"), NOW_US).action is Action.ALLOW
