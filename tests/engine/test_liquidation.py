"""In which order positions are closed, in what slices, how far that has got, and what it costs: in numbers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.account_events import ReversalTold, position_event
from engine.control import Control, Resumed, Scope, TradingState, resumed
from engine.decide import Terms, decide
from engine.instructions import RETRY_US, due, planned_cuts
from engine.limits import Policy
from engine.liquidation import (
    Costs,
    Plan,
    contributions_per_lot,
    cut_lots,
    expected_cost,
    plan,
    ranked,
    slice_lots,
)
from engine.measures.measure import Survey
from engine.order import Action, Reason
from engine.records import AnyRecord, ExecutionKind, Instructed, InstructionKind, decode, encode
from engine.risk.decomposition import Positions, historical_decomposition
from engine.risk.model import RiskModel
from engine.risk.var import expected_shortfall, value_at_risk
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    account,
    limits,
    model,
    quoted,
    report,
    reserve,
    sell,
    stock,
    terms,
    universe,
    valued,
)
from tests.engine.test_instructions import stop

LIQUID, THIN = stock("AAA", average_daily_quantity=10_000.0), stock("BBB", lot_size=10.0)
TWO = universe(LIQUID, THIN)
MARKS = {"AAA": quoted(100.0, 99.9, 100.1), "BBB": quoted(10.0)}
MINUTE_US = 60_000_000
WHY = Reason.NONE, "breaker at level 1"
RNG = np.random.default_rng(7)
RETURNS = {"AAA": list(RNG.normal(0.0, 0.01, 250)), "BBB": list(RNG.normal(0.0, 0.03, 250))}
RISK = model(RETURNS, {"crash": {"AAA": -0.2, "BBB": -0.3}})


def held(**positions: int) -> AccountState:
    return account(TWO, MARKS, positions=positions)


def armed(control: Control | None = None, risk: RiskModel | None = RISK, **policy: Any) -> Terms:
    return terms(TWO, limits(**policy), risk, control if control is not None else stop(flatten=True))


def instruct(state: AccountState, under: Terms, now_us: int = NOW_US) -> list[Instructed]:
    return fold(state, due(state, under, now_us))


def fold(state: AccountState, records: list[Any]) -> list[Instructed]:
    made: list[Instructed] = []
    for record in records:
        told: AnyRecord = decode(encode(record))
        state.apply(told)
        if isinstance(told, Instructed):
            made.append(told)
    return made


def sent(records: list[Instructed]) -> list[tuple[str, int]]:
    return [(record.order.symbol, record.lots) for record in records if record.order is not None]


def fills(state: AccountState, lots: int | None = None) -> None:
    for one in list(state.orders.values()):
        state.apply(report(state, one.client_order_id, ExecutionKind.FILL, one.leaves if lots is None else lots))


# --- slices


def test_a_slice_is_a_share_of_the_average_day() -> None:
    state = held(AAA=250)

    assert slice_lots(state, TWO, Policy(), "AAA", 250) == 100
    assert slice_lots(state, TWO, Policy(flatten_volume_share=0.005), "AAA", 250) == 50
    assert slice_lots(state, TWO, Policy(), "AAA", 30) == 30
    assert slice_lots(state, TWO, Policy(flatten_volume_share=1e-9), "AAA", 30) == 1, "it always goes on"


def test_an_unknown_average_day_is_closed_at_once() -> None:
    assert slice_lots(held(BBB=1_000_000), TWO, Policy(), "BBB", 1_000_000) == 1_000_000


@pytest.mark.parametrize(("bid", "ask", "lots"), [(99.75, 100.25, 100), (99.0, 101.0, 25), (101.0, 99.0, 100)])
def test_a_wide_spread_makes_slices_smaller_and_a_crossed_one_says_nothing(bid: float, ask: float, lots: int) -> None:
    state = held(AAA=250)
    state.apply(valued({"AAA": quoted(100.0, bid, ask)}))

    assert slice_lots(state, TWO, Policy(), "AAA", 250) == lots


def test_one_slice_works_at_a_time_and_the_next_waits_for_its_minute() -> None:
    state, under = held(AAA=250), armed()

    first = instruct(state, under)
    working = instruct(state, under, NOW_US + MINUTE_US)
    fills(state)
    early = instruct(state, under, NOW_US + MINUTE_US - 1)
    second = instruct(state, under, NOW_US + MINUTE_US)
    fills(state)
    third = instruct(state, under, NOW_US + 2 * MINUTE_US)
    fills(state)

    assert (sent(first), working, early) == ([("AAA", 100)], [], [])
    assert (sent(second), sent(third)) == ([("AAA", 100)], [("AAA", 50)])
    assert state.book.lots[state.slots["AAA"]] == 0
    assert instruct(state, under, NOW_US + 3 * MINUTE_US) == []


def test_what_fills_in_part_and_what_others_trade_is_planned_anew() -> None:
    state, under = held(AAA=250), armed()
    instruct(state, under)
    (own,) = state.orders
    state.apply(report(state, own, ExecutionKind.FILL, 40))
    state.apply(report(state, own, ExecutionKind.CANCELLED))
    reserve(state, "theirs", "AAA", -150)
    fills(state)

    again = instruct(state, under, NOW_US + MINUTE_US)

    assert sent(again) == [("AAA", 60)]
    progress = state.liquidations["", "AAA"]
    assert (progress.planned, progress.sent, progress.filled) == (100, 160, 40)


def test_a_wider_market_makes_the_next_slice_smaller() -> None:
    state, under = held(AAA=250), armed()
    instruct(state, under)
    fills(state)
    state.apply(valued({"AAA": quoted(80.0, 79.6, 80.4)}))

    assert sent(instruct(state, under, NOW_US + MINUTE_US)) == [("AAA", 50)]


def test_a_slice_that_the_venue_did_not_fill_waits_no_longer_than_the_next_would() -> None:
    state, under = held(AAA=250), armed(flatten_interval_s=0.0)
    instruct(state, under)
    (own,) = state.orders
    state.apply(report(state, own, ExecutionKind.REJECTED))

    assert instruct(state, under, NOW_US + RETRY_US - 1) == []
    assert sent(instruct(state, under, NOW_US + RETRY_US)) == [("AAA", 100)]


def test_a_bust_fill_of_a_slice_is_closed_again() -> None:
    state, under = held(AAA=250), armed()
    instruct(state, under)
    (own,) = state.orders
    state.apply(report(state, own, ExecutionKind.FILL, 60, execution_id="x"))

    fold(state, list(position_event(state, TWO, "bust", ReversalTold("x"), NOW_US, 0)))

    progress = state.liquidations["", "AAA"]
    assert (progress.sent, progress.filled, state.orders[own].leaves) == (100, 0, 100)
    fills(state)
    assert sent(instruct(state, under, NOW_US + MINUTE_US)) == [("AAA", 100)]
    assert state.liquidations["", "AAA"].planned == 250


def test_only_the_gateways_own_orders_pass_in_a_halt() -> None:
    state, under = held(AAA=50), armed()

    theirs = decide(state, under, sell("AAA", 10.0), NOW_US)
    own = instruct(state, under)

    assert (theirs.action, theirs.reason) == (Action.HALT, Reason.TRADING_HALTED)
    assert sent(own) == [("AAA", 50)] and [one.leaves for one in state.orders.values()] == [50]
    assert instruct(state, under) == [], "a halt asks to cancel no order of the gateway's own"


# --- order


def test_the_largest_contribution_goes_first_and_a_hedge_last() -> None:
    by_risk = account(TWO, MARKS, strategies={("long", "BBB"): 100, ("hedge", "BBB"): -50, ("long", "AAA"): 60})

    made = instruct(by_risk, armed())

    placed = [(record.order.strategy, record.order.symbol) for record in made if record.order is not None]
    assert placed == [("long", "BBB"), ("long", "AAA"), ("hedge", "BBB")]


def test_without_a_model_the_largest_exposure_goes_first() -> None:
    state = account(TWO, MARKS, strategies={("a", "AAA"): 10, ("b", "BBB"): -500, ("c", "BBB"): 5})
    places = list(state.holdings)

    assert ranked(state, TWO, None, Policy(), places, NOW_US) == [("b", "BBB"), ("a", "AAA"), ("c", "BBB")]


def test_positions_without_a_price_go_last_and_are_closed_all_the_same() -> None:
    state = account(TWO, {"AAA": 100.0}, positions={"AAA": 1, "BBB": 1_000})

    assert sent(instruct(state, armed())) == [("AAA", 1), ("BBB", 1_000)]


@settings(max_examples=50, deadline=None)
@given(st.integers(-300, 300), st.integers(-300, 300))
def test_contributions_are_eulers_and_those_of_the_decomposition(first: int, second: int) -> None:
    state = held(AAA=first, BBB=second)
    survey = Survey(state, TWO, RISK, Policy(), NOW_US)
    values = np.array([first * 100.0, second * 100.0])
    table = np.array([RETURNS["AAA"], RETURNS["BBB"]]).T

    parts = contributions_per_lot(survey) * np.array([first, second])

    assert parts.sum() == pytest.approx(expected_shortfall(-table @ values, 0.95), rel=1e-9, abs=1e-9)
    positions = Positions(("AAA", "BBB"), values, values, values, np.array([0, 1]))
    oracle = historical_decomposition(positions, table, 0.95, "es")
    assert parts == pytest.approx(oracle.component, rel=1e-9, abs=1e-9)


# --- cuts


def test_a_cut_takes_its_part_of_every_position_once_in_slices() -> None:
    state, under = held(AAA=1_000, BBB=-10), armed(Control())
    made = fold(state, list(planned_cuts(state, under, 0.25, WHY, NOW_US)))
    assert sorted(sent(made)) == [("AAA", 100), ("BBB", 3)]
    assert {record.kind for record in made} == {InstructionKind.CUT}

    for minute in range(1, 6):
        fills(state)
        instruct(state, under, NOW_US + minute * MINUTE_US)

    assert state.book.lots.tolist() == [750, -7]
    assert planned_cuts(state, under, 0.25, WHY, NOW_US) == [], "the same cause cuts once"
    assert planned_cuts(state, under, 0.25, (Reason.NONE, "breaker at level 2"), NOW_US)


def test_the_quantities_of_a_cut_may_be_given() -> None:
    state, under = held(AAA=50), armed(Control())

    made = planned_cuts(state, under, {("", "AAA"): 20, ("", "BBB"): 5}, WHY, NOW_US)

    assert sent(made) == [("AAA", 20)], "what is not held can't be cut"


def test_a_resume_ends_a_cut() -> None:
    state, under = held(AAA=1_000), armed(Control())
    fold(state, list(planned_cuts(state, under, 0.5, WHY, NOW_US)))
    fills(state)
    lifted, _, _ = resumed(Control(), Resumed(Scope(ACCOUNT), 9, NOW_US, "ann", "go on", 1))

    assert instruct(state, armed(lifted), NOW_US + MINUTE_US) == []
    assert sent(instruct(state, under, NOW_US + MINUTE_US)) == [("AAA", 100)]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, math.nan])
def test_a_fraction_out_of_range_cuts_nothing(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        planned_cuts(held(AAA=10), armed(), fraction, WHY, NOW_US)


@given(st.integers(-10_000, 10_000), st.floats(0.001, 1.0))
def test_a_cut_is_at_least_its_fraction_and_less_than_a_lot_more(lots: int, fraction: float) -> None:
    cut = cut_lots(lots, fraction)

    assert abs(lots) * fraction - 1e-6 <= cut <= abs(lots) * fraction + 1 and cut <= abs(lots)


@settings(max_examples=100, deadline=None)
@given(st.integers(-2_000, 2_000).filter(bool), st.lists(st.floats(0.0, 1.0), max_size=8))
def test_no_order_of_a_liquidation_ever_opens(position: int, parts: list[float]) -> None:
    """However much of each slice fills, the position shrinks towards zero and never crosses it."""
    state, under = held(AAA=position), armed()
    for minute, part in enumerate([*parts, 1.0]):
        before = int(state.book.lots[state.slots["AAA"]])
        instruct(state, under, NOW_US + minute * MINUTE_US)
        low, high = state.book.interval(state.slots["AAA"])
        assert min(0, before) <= low <= high <= max(0, before)
        for one in list(state.orders.values()):
            lots = int(one.leaves * part)
            if lots:
                state.apply(report(state, one.client_order_id, ExecutionKind.FILL, lots))
            if one.client_order_id in state.orders:
                state.apply(report(state, one.client_order_id, ExecutionKind.CANCELLED))
    progress = state.liquidations["", "AAA"]
    assert progress.filled <= progress.sent
    assert progress.filled + abs(int(state.book.lots[0])) == abs(position)


# --- what a plan shows


def shown(state: AccountState, scope: Scope | None = None, fraction: float = 1.0, **policy: Any) -> Plan:
    return plan(state, TWO, RISK, Policy(**policy), NOW_US, scope, fraction)


def test_a_plan_lists_its_slices_in_rounds_with_cost_and_risk() -> None:
    state = held(AAA=250, BBB=100)

    made = shown(state)

    assert [(one.symbol, one.lots, one.after_us // MINUTE_US) for one in made.slices] == [
        ("BBB", -100, 0),
        ("AAA", -100, 0),
        ("AAA", -100, 1),
        ("AAA", -50, 2),
    ]
    assert made.value == pytest.approx(250 * 100 + 100 * 100)
    assert (made.slices[-1].var_99, made.slices[-1].stress_loss) == pytest.approx((0.0, 0.0))
    losses = -np.array(RETURNS["AAA"]) * 25_000 - np.array(RETURNS["BBB"]) * 10_000
    assert made.var_99 == pytest.approx(value_at_risk(losses, 0.99))
    assert made.stress_loss == pytest.approx(0.2 * 25_000 + 0.3 * 10_000)
    assert made.slices[0].stress_loss == pytest.approx(0.2 * 25_000)
    assert not state.orders and not state.liquidations


def test_the_cost_is_half_the_spread_and_the_square_root_law() -> None:
    made = shown(held(AAA=250))

    sigma = float(np.std(RETURNS["AAA"], ddof=1))
    assert sum(one.spread_cost or 0.0 for one in made.slices) == pytest.approx(250 * 0.1)
    impact = 2 / 3 * sigma * 100 * math.sqrt(0.025) * 250
    assert sum(one.impact_cost or 0.0 for one in made.slices) == pytest.approx(impact)
    assert made.expected_cost == pytest.approx(25.0 + impact)
    assert made.warnings == ()


def test_a_cost_that_is_not_known_is_none_and_says_why() -> None:
    made = shown(held(AAA=250, BBB=1))

    assert made.expected_cost is None
    assert made.warnings == (
        "BBB: no bid and ask, so that the cost of the spread is not known",
        "BBB: average daily quantity unknown: one order, and no impact known",
    )


def test_a_risk_path_that_is_not_known_is_none_and_says_why() -> None:
    made = plan(held(AAA=50), TWO, None, Policy(), NOW_US)

    assert (made.var_99, made.slices[0].var_99, made.expected_cost) == (None, None, None)
    assert "risk path: no risk model is published" in made.warnings[0]
    assert "AAA: no history of its volatility" in made.warnings[1]


def test_a_plan_is_of_a_scope_and_a_part() -> None:
    state = account(TWO, MARKS, strategies={("a", "AAA"): 90, ("b", "AAA"): -30})

    made = shown(state, Scope(ACCOUNT, "b"), 0.5)

    assert [(one.strategy, one.lots) for one in made.slices] == [("b", 15)]


def test_a_plan_is_cut_off_and_says_so() -> None:
    made = shown(held(AAA=2_000), flatten_volume_share=1e-9)

    assert len(made.slices) == 1_000
    assert made.warnings == ("cut off after 1000 slices: 1000 lots are left",)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3_000), st.floats(0.0005, 0.5))
def test_slices_cost_together_what_one_order_would(lots: int, share: float) -> None:
    state = held(AAA=lots)
    whole = expected_cost(Survey(state, TWO, RISK, Policy(), NOW_US), {"AAA": lots})

    made = shown(state, flatten_volume_share=share)

    assert sum(abs(one.lots) for one in made.slices) == min(lots, sum(abs(one.lots) for one in made.slices))
    if sum(abs(one.lots) for one in made.slices) == lots:
        assert made.expected_cost == pytest.approx(whole, rel=1e-9)


def test_impact_grows_with_the_root_of_the_share() -> None:
    costs = Costs(Survey(held(AAA=1), TWO, RISK, Policy(), NOW_US))

    one, four = costs.of_impact("AAA", 0, 100), costs.of_impact("AAA", 0, 400)

    assert one is not None and four == pytest.approx(8 * one)


@settings(max_examples=60, deadline=None)
@given(st.integers(-500, 500).filter(bool), st.integers(-300, 300))
def test_the_plan_is_what_would_be_sent(first: int, second: int) -> None:
    state, under = held(AAA=first, BBB=second), armed()
    made = plan(state, TWO, RISK, under.limits.policy, NOW_US)
    rounds: dict[int, list[tuple[str, int]]] = {}
    for one in made.slices:
        rounds.setdefault(one.after_us, []).append((one.symbol, abs(one.lots)))

    for after_us, expected in rounds.items():
        assert sorted(sent(instruct(state, under, NOW_US + after_us))) == sorted(expected)
        fills(state)

    assert not state.book.lots.any() and TradingState.HALTED in {one.state for one in under.control.stops}
