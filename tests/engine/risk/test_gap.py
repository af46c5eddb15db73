"""Gap loss: the worst jump through an event, by hand, by a slow reference, and beside the quantiles of UVaR.

Money is 1,000 of AAA and -400 of BBB; the earnings of AAA gap 10 %, a release 3 % in everything.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.events import DAY_US, Event, EventPolicy, EventRule
from engine.risk.gap import EventGap, GapLoss, event_gaps, gap_loss, gap_rows, gap_size, overnight_gaps
from engine.risk.horizon import ultra_short_var

SYMBOLS = ("AAA", "BBB")
HELD = np.array([1_000.0, -400.0])
EARNINGS, RELEASE = EventGap("AAA earnings", 0.10, ("AAA",)), EventGap("CPI", 0.03)


def loss(*gaps: EventGap, low: np.ndarray = HELD, high: np.ndarray = HELD) -> GapLoss:
    found = gap_loss(gaps, SYMBOLS, low, high)
    assert found is not None
    return found


def test_a_gap_moves_the_symbols_of_its_event_either_way() -> None:
    assert gap_rows([EARNINGS, RELEASE], SYMBOLS).tolist() == [[-0.1, 0.0], [0.1, 0.0], [-0.03, -0.03], [0.03, 0.03]]


def test_the_worst_row_of_all_events_is_the_loss() -> None:
    assert loss(EARNINGS, RELEASE) == GapLoss("AAA earnings", -0.10, 100.0, ("AAA",))
    release = loss(RELEASE)
    assert (release.event, release.gap, release.symbols) == ("CPI", -0.03, SYMBOLS)
    assert release.loss == pytest.approx(18.0)  # 30 less the 12 of the short


def test_of_a_short_the_gap_up_is_the_loss() -> None:
    assert loss(EventGap("BBB earnings", 0.2, ("BBB",))) == GapLoss("BBB earnings", 0.2, 80.0, ("BBB",))


def test_open_orders_count_at_the_end_that_loses_more() -> None:
    low, high = np.array([-500.0, -400.0]), np.array([1_000.0, 100.0])

    assert loss(EARNINGS, low=low, high=high).loss == 100.0
    assert loss(RELEASE, low=low, high=high).loss == pytest.approx(33.0)  # down: 30 and 3; up: 15 and 12


@pytest.mark.parametrize(
    ("gaps", "held"), [((), HELD), ((EARNINGS,), np.zeros(2)), ((EventGap("CCC", 0.5, ("CCC",)),), HELD)]
)
def test_where_no_event_reaches_the_book_there_is_no_gap_loss(gaps: tuple[EventGap, ...], held: np.ndarray) -> None:
    assert gap_loss(gaps, SYMBOLS, held, held) is None


def test_options_are_revalued_and_never_guessed() -> None:
    """A put on AAA, worth 20 more per unit of its money when AAA is down a tenth, held 10 times."""
    symbols, held = ("AAA", "AAA P"), np.array([1_000.0, 10.0])
    options = np.array([False, True])

    elsewhere = EventGap("CCC earnings", 0.5, ("CCC",))
    pnl = {-0.1: 20.0, 0.0: 0.0, 0.1: -1.0}
    found = gap_loss(
        [EARNINGS, elsewhere], symbols, held, held, options, lambda rows: np.vectorize(pnl.get)(rows).astype(float)
    )

    assert found == GapLoss("AAA earnings", 0.1, -90.0, symbols)  # up: gains 100 less 10; down: gains 200 less 100
    with pytest.raises(ValueError, match="revalue: expected a revaluation of the options at stake"):
        gap_loss([EARNINGS], symbols, held, held, options)
    with pytest.raises(ValueError, match="revalue: expected"):
        gap_loss([EARNINGS], symbols, held, held, options, lambda rows: np.full((2, 1), np.nan))


@pytest.mark.parametrize(
    ("low", "high", "gap", "problem"),
    [
        ([1.0], [1.0], 0.1, "low: expected 2 finite numbers"),
        ([np.nan, 0.0], [1.0, 1.0], 0.1, "low: expected 2 finite numbers"),
        ([0.0, 0.0], [np.inf, 1.0], 0.1, "high: expected 2 finite numbers"),
        ([2.0, 0.0], [1.0, 1.0], 0.1, "low: expected none above high"),
        ([0.0, 0.0], [1.0, 1.0], np.nan, "gaps: expected fractions"),
        ([0.0, 0.0], [1.0, 1.0], 1.5, "gaps: expected fractions"),
    ],
)
def test_bad_input_is_named(low: list[float], high: list[float], gap: float, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        gap_loss([EventGap("x", gap)], SYMBOLS, np.array(low), np.array(high))


MONEY = arrays(np.float64, 3, elements=st.floats(-1e6, 1e6))
REACHES = st.lists(st.sampled_from(["A", "B", "C", "D"]), max_size=3)


@given(MONEY, MONEY, st.lists(st.tuples(st.floats(0.001, 1.0), REACHES), min_size=1, max_size=4))
def test_the_loss_is_that_of_a_slow_search_over_events_signs_and_ends(
    one: np.ndarray, other: np.ndarray, told: list[tuple[float, list[str]]]
) -> None:
    low, high = np.minimum(one, other), np.maximum(one, other)
    gaps = [EventGap(f"e{i}", gap, tuple(reach)) for i, (gap, reach) in enumerate(told)]
    slow: list[float] = []
    for gap in gaps:
        reached = [i for i, s in enumerate("ABC") if (not gap.symbols or s in gap.symbols) and (low[i] or high[i])]
        for sign in (-1.0, 1.0):
            if reached:
                slow.append(-sum(min(low[i] * sign * gap.gap, high[i] * sign * gap.gap) for i in reached))

    found = gap_loss(gaps, ("A", "B", "C"), low, high)

    assert (found is None) is (not slow)
    if found is not None:
        assert found.loss == pytest.approx(max(slow), rel=1e-12, abs=1e-9)
        doubled = gap_loss(gaps, ("A", "B", "C"), 2.0 * low, 2.0 * high)
        assert doubled is not None and doubled.loss == pytest.approx(2.0 * found.loss, rel=1e-12, abs=1e-9)


def test_events_to_come_give_their_rules_gaps() -> None:
    def event(name: str, day: int, **fields: object) -> Event:
        return Event(name, "cpi", name, day * DAY_US, day * DAY_US, "2023-11-14", **fields)  # type: ignore[arg-type]

    policy = EventPolicy({"macro": EventRule(), "cpi": EventRule(0, 0, gap=0.03)})
    events = [
        event("past", 1),
        event("mine", 5, symbols=("AAA",), gap=0.2),
        event("off", 5, cancelled=True),
        event("usual", 6),
        event("calm", 6, gap=0.0),
    ]

    assert event_gaps(events, policy, 3 * DAY_US) == (
        EventGap("mine 2023-11-14", 0.2, ("AAA",)),
        EventGap("usual 2023-11-14", 0.03),
    )


def test_overnight_gaps_are_from_a_close_to_the_next_open() -> None:
    assert overnight_gaps(np.array([100.0, 99.0, 110.0]), np.array([100.0, 100.0, 1.0])).tolist() == pytest.approx(
        [-0.01, 0.1]
    )
    with pytest.raises(ValueError, match="closes: expected one dimension of finite prices above 0"):
        overnight_gaps(np.ones(3), np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="as many as opens"):
        overnight_gaps(np.ones(3), np.ones(2))


def test_the_size_of_gaps_is_the_order_statistic_of_both_sides() -> None:
    gaps = np.concatenate([np.linspace(-0.099, 0.0, 100), [0.5]])

    assert gap_size(gaps) == pytest.approx(0.099)  # the second worst of 101 at 99 %
    assert gap_size(gaps, 0.95) == pytest.approx(0.095)  # the sixth
    with pytest.raises(ValueError, match="at least 60 finite numbers"):
        gap_size(gaps[:59])
    with pytest.raises(ValueError, match="at least 60 finite numbers"):
        gap_size(np.full(80, np.nan))


def test_a_gap_stands_beside_the_quantile_and_never_in_it() -> None:
    calm = {days: np.linspace(-10.0, 10.0, 300) for days in (1, 3, 5)}

    without, beside = ultra_short_var(calm, 0.0), ultra_short_var(calm, 0.0, loss(EARNINGS).loss)

    assert without.var_1d > -10.0
    assert (beside.var_1d, beside.var_3d, beside.gap_horizons_days) == (-100.0, -100.0, (1, 3, 5))
