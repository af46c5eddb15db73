"""The analyst's answers on small books, against figures counted by hand or with numpy alone."""

import math
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.instrument import AssetClass, Instrument, InstrumentSet
from engine.risk.build import build_model
from engine.risk.case import Assumptions, Case
from engine.risk.gap import EventGap
from engine.risk.greeks_answers import greeks_answer
from engine.risk.history import PriceHistory
from engine.risk.holdings import Gap, Holdings, Missing
from engine.risk.inquiry import (
    GreeksInquiry,
    InquiryError,
    ReplayInquiry,
    ReverseInquiry,
    Stamp,
    StressInquiry,
    Unanswerable,
    VarInquiry,
    Whose,
)
from engine.risk.scenarios import Scenario
from engine.risk.stress_answers import replay_answer, reverse_answer, stress_answer
from engine.risk.var_answers import ultra_short_warnings, var_answer

DAYS = 300
ACCOUNT = Whose("A")
SESSION = date(2022, 1, 3)
MONEY = {("one", "AAA"): 1_000.0, ("two", "AAA"): -400.0, ("two", "BBB"): 2_000.0}
CRASH, RISE = Scenario("crash", {"AAA": -0.5, "BBB": -0.1}), Scenario("rise", {"AAA": 0.1})


def stock(symbol: str) -> Instrument:
    return msgspec.structs.replace(Instrument(symbol, AssetClass.EQUITY, "USD", 1.0, 0.01), sector=f"sector {symbol}")


INSTRUMENTS = InstrumentSet({symbol: stock(symbol) for symbol in ("AAA", "BBB", "NEW")})


def prices() -> PriceHistory:
    days = [SESSION - timedelta(days=back) for back in range(2 * DAYS, 0, -1)]
    days = [day for day in days if day.weekday() < 5][-DAYS - 1 :]
    moves = np.random.default_rng(3).normal(0.0, 0.01, (len(days), 2)) * np.array([2.0, 1.0])
    return PriceHistory(tuple(days), ("AAA", "BBB"), 100.0 * np.cumprod(1.0 + moves, axis=0))


def case(
    money: dict[tuple[str, str], float] = MONEY,
    buying: float = 0.0,
    equity: float | None = 10_000.0,
    instruments: InstrumentSet = INSTRUMENTS,
    built_us: int = 1,
) -> Case:
    """`money`: what the returns multiply, by strategy and symbol. `buying`: of AAA by strategy two, open."""
    history = prices()
    model = build_model(
        instruments.instruments,
        "set",
        history,
        SESSION,
        built_us,
        lookback_days=DAYS,
        scenarios=(CRASH, RISE),
        unmapped="zero",
    )
    held = np.array(list(money.values()))
    symbols = tuple(symbol for _, symbol in money)
    columns = np.array([model.column[symbol] for symbol in symbols], dtype=np.intp)
    high = held + np.array([buying if key == ("two", "AAA") else 0.0 for key in money])
    has_history = model.has_history[columns]
    holdings = Holdings(
        account="A",
        seq=7,
        base_currency="USD",
        strategies=tuple(strategy for strategy, _ in money),
        symbols=symbols,
        lots=held.astype(np.int64) // 100,
        low_lots=held.astype(np.int64) // 100,
        high_lots=high.astype(np.int64) // 100,
        values=held,
        held=held,
        low=held,
        high=high,
        columns=columns,
        has_history=has_history,
        has_factor=model.has_factor[columns],
        asset_classes=tuple(str(instruments.instruments[symbol].asset_class) for symbol in symbols),
        sectors=tuple(f"sector {symbol}" for symbol in symbols),
        issuers=symbols,
        underlyings=tuple(instruments.instruments[symbol].underlying or symbol for symbol in symbols),
        marks_oldest_us=1.0,
        gaps=tuple(
            Gap(symbol, Missing.HISTORY, f"{symbol} has too little price history and no proxy")
            for symbol, known in zip(symbols, has_history, strict=True)
            if not known
        ),
    )
    return Case(
        stamp=Stamp("A", None, 7, 1, "USD", equity),
        account=holdings,
        strategies=("", "one", "two", "gone"),
        model=model,
        instruments=instruments,
        assumptions=Assumptions((CRASH, RISE), prices=history),
        quantities=held / 100.0,
        marks={"AAA": 100.0, "BBB": 100.0, "NEW": 100.0},
        rates={"USD": 1.0},
        session_pnl=-12.0,
    )


def returns() -> Any:
    closes = prices().closes
    return closes[1:] / closes[:-1] - 1.0


# --- value at risk ----------------------------------------------------------------------------------------------------


def test_historical_var_is_the_third_worst_day_of_300_at_99_percent() -> None:
    losses = -returns() @ np.array([600.0, 2_000.0])

    answer = var_answer(case(), VarInquiry(ACCOUNT, confidences=(0.99,)))

    (found,) = answer.answered
    assert found.estimate.var == pytest.approx(np.sort(losses)[-3])
    assert found.estimate.n_observations == DAYS
    assert answer.unified == pytest.approx(found.estimate.var)


def test_open_orders_count_at_their_worse_end_unless_they_are_left_out() -> None:
    daily = returns()
    worst = -(daily[:, 1] * 2_000.0 + np.minimum(daily[:, 0] * 600.0, daily[:, 0] * 5_600.0))
    inquiry = VarInquiry(ACCOUNT, confidences=(0.99,))
    without = replace(inquiry, whose=replace(ACCOUNT, open_orders=False))

    with_orders = var_answer(case(buying=5_000.0), inquiry).answered[0].estimate.var
    positions_alone = var_answer(case(buying=5_000.0), without).answered[0].estimate.var

    assert with_orders == pytest.approx(np.sort(worst)[-3])
    assert positions_alone == pytest.approx(var_answer(case(), inquiry).answered[0].estimate.var)


def test_components_sum_to_the_parametric_estimate_beside_them() -> None:
    inquiry = VarInquiry(ACCOUNT, ("parametric", "historical"), (0.95, 0.99), components=True)

    answer = var_answer(case(), inquiry)

    found = answer.contributions
    by_method = {(one.estimate.method, one.estimate.confidence): one.estimate for one in answer.answered}
    assert found is not None and found.historical is not None
    assert found.main.component.sum() == pytest.approx(by_method["parametric", 0.99].var)
    assert found.main_shortfall.component.sum() == pytest.approx(by_method["parametric", 0.99].es)
    assert found.historical.component.sum() == pytest.approx(by_method["historical", 0.99].var)
    assert [group.label for group in found.main.groups["strategy"]] == ["two", "one"]


def test_a_strategy_is_asked_for_by_name_and_one_that_never_was_is_refused() -> None:
    losses = -returns() @ np.array([1_000.0, 0.0])

    one = var_answer(case(), VarInquiry(replace(ACCOUNT, strategy="one"), confidences=(0.99,)))

    assert one.answered[0].estimate.var == pytest.approx(np.sort(losses)[-3])
    with pytest.raises(InquiryError, match="never had an order or a position here; known: gone, one, two"):
        var_answer(case(), VarInquiry(replace(ACCOUNT, strategy="onee")))
    assert var_answer(case(), VarInquiry(replace(ACCOUNT, strategy="gone"))).answered[0].estimate.var == 0.0


def test_a_position_without_history_makes_the_figure_unanswerable_and_is_named() -> None:
    with pytest.raises(Unanswerable, match="NEW has too little price history"):
        var_answer(case({**MONEY, ("one", "NEW"): 5.0}), VarInquiry(ACCOUNT))


def test_without_a_model_there_is_no_figure() -> None:
    with pytest.raises(Unanswerable, match="no risk model yet"):
        var_answer(replace(case(), model=None), VarInquiry(ACCOUNT))


def test_the_same_state_simulates_the_same_figures_and_another_seed_others() -> None:
    inquiry = VarInquiry(ACCOUNT, ("monte_carlo",), (0.99,), n_paths=2_000)

    first, again = var_answer(case(), inquiry), var_answer(case(), inquiry)
    other = var_answer(case(), replace(inquiry, seed=123))

    assert first.answered == again.answered or first.answered[0].estimate == again.answered[0].estimate
    assert (first.answered[0].estimate.seed, other.answered[0].estimate.seed) == (7, 123)
    assert other.answered[0].estimate.var != first.answered[0].estimate.var


def test_a_longer_lookback_than_there_is_answers_by_another_method_under_its_name() -> None:
    answer = var_answer(case(), VarInquiry(ACCOUNT, confidences=(0.99,), lookback_days=500))

    (found,) = answer.answered
    assert (found.asked.method, found.estimate.method) == ("historical", "parametric")
    assert any("300 days of 500" in warning for warning in found.estimate.warnings)


def test_ultra_short_figures_are_of_compounded_windows_and_negative_for_a_loss() -> None:
    daily, held = returns(), np.array([600.0, 2_000.0])
    growth = np.cumprod(np.vstack((np.ones(2), 1.0 + daily)), axis=0)
    losses = -(growth[3:] / growth[:-3] - 1.0) @ held

    found = var_answer(case(), VarInquiry(ACCOUNT, ultra_short=True)).ultra_short

    assert found is not None
    assert found.var_3d == pytest.approx(-np.sort(losses)[-3])  # of 298 windows
    assert (found.current_exposure, found.status) == (-12.0, "OK")


def test_an_account_with_nothing_at_stake_has_nothing_to_lose() -> None:
    answer = var_answer(case({}), VarInquiry(ACCOUNT, ("historical", "parametric"), components=True))

    assert {one.estimate.var for one in answer.answered} == {0.0}
    assert answer.contributions is None
    assert math.copysign(1.0, answer.unified or 0.0) == 1.0


def test_a_gap_through_an_event_stands_beside_history_in_both_figures() -> None:
    """Net 600 of AAA and 2,000 of BBB: half of the latter is 1,000, more than any window lost."""
    quiet = case()
    asked = VarInquiry(ACCOUNT, ultra_short=True)
    gapped = replace(quiet, assumptions=replace(quiet.assumptions, gaps=(EventGap("BBB earnings", 0.5, ("BBB",)),)))

    without, found = var_answer(quiet, asked), var_answer(gapped, asked)

    assert found.gap is not None and without.gap is None
    assert found.gap.loss == found.unified == pytest.approx(1_000.0)
    assert found.ultra_short is not None and found.ultra_short.var_1d == pytest.approx(-1_000.0)
    assert without.unified is not None and without.unified < 1_000.0
    assert any("no calendar of events is followed" in one for one in without.stamp.warnings)
    assert not any("no calendar of events is followed" in one for one in found.stamp.warnings)


def judged(limits: dict[int, float], equity: float | None = 10_000.0) -> Case:
    """A gap of 1,000 is the figure of every horizon: half of 2,000 of BBB, 20 lots."""
    found = case(equity=equity)
    gaps = (EventGap("BBB earnings", 0.5, ("BBB",)),)
    return replace(found, assumptions=replace(found.assumptions, gaps=gaps, ultra_short_limits=limits))


@pytest.mark.parametrize(
    ("share", "status", "excess"),
    [(0.13, "OK", 0.0), (0.12, "WARNING", 0.0), (0.10, "WARNING", 0.0), (0.09, "BREACHED", 100.0)],
)
def test_ultra_short_figures_are_judged_by_limits_that_are_shares_of_equity(
    share: float, status: str, excess: float
) -> None:
    """1,000 of 1,300 are 77 %, of 1,200 83 %, of 1,000 all, of 900 too much."""
    answer = var_answer(judged({3: share}), VarInquiry(ACCOUNT, ultra_short=True))

    found = answer.ultra_short
    assert found is not None and found.status == status
    assert found.limits == {3: pytest.approx(share * 10_000.0)}
    assert found.excess == pytest.approx(excess)
    assert (answer.reductions is None) == (status != "BREACHED")
    assert sum("ultra-short VaR is" in one for one in answer.stamp.warnings) == (status != "OK")


def test_over_an_ultra_short_limit_the_answer_says_what_would_go_first() -> None:
    """Each lot of BBB is 100 and loses 50 in the gap: 500 over the limit are freed by ten. AAA frees nothing of it."""
    asked = VarInquiry(ACCOUNT, ultra_short=True)
    of_aaa_first = [("one", "AAA"), ("two", "AAA"), ("two", "BBB")]

    largest, ordered = (var_answer(judged({1: 0.05}), asked, way) for way in (None, lambda _: of_aaa_first))

    for answer in (largest, ordered):
        assert answer.reductions is not None
        (one,) = answer.reductions.planned
        assert (one.row, one.lots, answer.reductions.quantities) == (2, -10, (10.0,))
        assert (one.excess_left, answer.reductions.excess_left) == (0.0, 0.0)
        assert (
            "ultra-short VaR is over its limit: 1 d 1,000 of 500 USD; to be reduced first: sell 10 BBB (two)"
            in answer.stamp.warnings
        )
    assert ultra_short_warnings(judged({1: 0.05})) == tuple(w for w in largest.stamp.warnings if "over its limit" in w)


def test_the_order_of_reductions_is_that_of_the_ranking() -> None:
    """Over one day AAA and BBB lose by history: with next to no limit all goes, hedges where they come last."""
    found = case()
    found = replace(found, assumptions=replace(found.assumptions, ultra_short_limits={1: 1e-6}))
    ways = [("two", "BBB"), ("one", "AAA"), ("two", "AAA")], [("one", "AAA"), ("two", "BBB"), ("two", "AAA")]

    rows = []
    for way in ways:
        answer = var_answer(found, VarInquiry(ACCOUNT, ultra_short=True), lambda _, way=way: way)  # type: ignore[misc]
        assert answer.reductions is not None
        rows.append([one.row for one in answer.reductions.planned])

    assert rows == [[2, 0, 1], [0, 2, 1]]


def test_ultra_short_limits_are_the_accounts_and_need_its_equity() -> None:
    of_strategy = var_answer(judged({1: 0.05}), VarInquiry(Whose("A", "two"), ultra_short=True))
    without = judged({1: 0.05}, equity=None)

    assert of_strategy.ultra_short is not None and of_strategy.ultra_short.limits == {}
    assert any("a strategy are not judged" in one for one in of_strategy.stamp.warnings)
    assert var_answer(without, VarInquiry(ACCOUNT, ultra_short=True)).ultra_short is None
    (warning,) = ultra_short_warnings(without)
    assert "limits are shares of equity" in warning
    assert ultra_short_warnings(case()) == ()


# --- stress -----------------------------------------------------------------------------------------------------------


def test_stress_losses_are_in_the_order_asked_for_and_customs_come_last() -> None:
    own = Scenario("mine", {"BBB": -0.2})

    answer = stress_answer(case(), StressInquiry(ACCOUNT, ("rise", "crash"), (own,)))

    assert [one.name for one in answer.losses] == ["rise", "crash", "mine"]
    assert [one.loss for one in answer.losses] == pytest.approx([-60.0, 500.0, 400.0])
    assert answer.worst is not None and answer.worst.name == "crash"


def test_customs_alone_leave_the_models_own_out_and_nothing_named_takes_them_all() -> None:
    own = Scenario("mine", {"BBB": -0.2})

    assert [one.name for one in stress_answer(case(), StressInquiry(ACCOUNT, (), (own,))).losses] == ["mine"]
    assert [one.name for one in stress_answer(case(), StressInquiry(ACCOUNT)).losses] == ["crash", "rise"]


def test_what_no_scenario_reaches_is_named() -> None:
    answer = stress_answer(case(), StressInquiry(ACCOUNT, ("rise",)))

    assert answer.stamp.unaffected == ("two/BBB",)
    assert stress_answer(case(), StressInquiry(ACCOUNT)).stamp.unaffected == ()  # the crash reaches all


@pytest.mark.parametrize(
    ("inquiry", "field"),
    [
        (StressInquiry(ACCOUNT, ("crash", "crush")), "scenarios[1]"),
        (StressInquiry(ACCOUNT, ("crash", "crash")), "scenarios"),
        (StressInquiry(ACCOUNT, ("crash",), (CRASH,)), "custom_scenarios[0].name"),
    ],
)
def test_a_wrong_name_is_refused_by_its_place(inquiry: StressInquiry, field: str) -> None:
    with pytest.raises(InquiryError) as refused:
        stress_answer(case(), inquiry)

    assert refused.value.field == field


def test_everything_at_once_holds_grids_and_the_shipped_windows() -> None:
    answer = stress_answer(case(), StressInquiry(ACCOUNT, run_all=True))

    assert {one.underlying for one in answer.grids} == {"AAA", "BBB"}
    assert [one.window.name for one in answer.replays] == ["2008", "2011", "2013", "2020", "2022"]


def test_half_of_the_crash_costs_half_of_its_loss() -> None:
    answer = reverse_answer(case(), ReverseInquiry(ACCOUNT, loss=250.0))

    assert answer.found.scenario == "crash"  # it costs most
    assert answer.found.multiplier == pytest.approx(0.5)
    likeliest = answer.likeliest
    assert likeliest is not None and likeliest.loss == pytest.approx(250.0)
    covariance_free = np.array([600.0, 2_000.0]) @ np.asarray(likeliest.shocks)
    assert covariance_free == pytest.approx(-250.0)


def test_the_target_is_a_tenth_of_equity_unless_told_and_not_reachable_is_an_answer() -> None:
    answer = reverse_answer(case(equity=50_000.0), ReverseInquiry(ACCOUNT, "rise"))

    assert answer.found.target_loss == 5_000.0
    assert not answer.found.reachable and answer.found.multiplier is None
    with pytest.raises(Unanswerable, match="equity is not positive"):
        reverse_answer(case(equity=-1.0), ReverseInquiry(ACCOUNT, "rise"))


def test_a_replay_is_the_book_held_unchanged() -> None:
    closes, days = prices().closes, prices().dates
    expected = (closes[20] / closes[9] - 1.0) @ np.array([600.0, 2_000.0])

    answer = replay_answer(case(), ReplayInquiry(ACCOUNT, dates=(days[10], days[20])))

    assert answer.replay.dates == days[10:21]
    assert answer.replay.cumulative_pnl[-1] == pytest.approx(expected)
    with pytest.raises(InquiryError, match="no window '1987'; known: 2008"):
        replay_answer(case(), ReplayInquiry(ACCOUNT, "1987"))


def test_a_window_without_prices_is_no_data_and_no_zero() -> None:
    answer = replay_answer(case(), ReplayInquiry(ACCOUNT, "2008"))

    assert (answer.replay.status, answer.replay.worst) == ("no data", None)
    assert answer.stamp.warnings


# --- Greeks -----------------------------------------------------------------------------------------------------------


def test_linear_positions_have_a_delta_of_one_by_strategy_and_by_underlying() -> None:
    answer = greeks_answer(case(), GreeksInquiry(ACCOUNT))

    assert [(one.strategy, one.line.name, one.line.delta) for one in answer.positions] == [
        ("one", "AAA", 10.0),
        ("two", "AAA", -4.0),
        ("two", "BBB", 20.0),
    ]
    assert [(line.name, line.delta, line.dollar_delta) for line in answer.underlyings] == [
        ("AAA", 6.0, 600.0),
        ("BBB", 20.0, 2_000.0),
    ]
    assert answer.total.dollar_delta == 2_600.0


def test_only_the_underlyings_asked_for_and_what_has_no_mark_is_named() -> None:
    unmarked = replace(case(), marks={"AAA": 100.0})

    assert {one.underlying for one in greeks_answer(case(), GreeksInquiry(ACCOUNT, frozenset({"BBB"}))).positions} == {
        "BBB"
    }
    answer = greeks_answer(unmarked, GreeksInquiry(ACCOUNT))
    assert [one.symbol for one in answer.left_out] == ["BBB"]
    assert "BBB is not counted: no mark" in answer.stamp.warnings
    assert answer.total.dollar_delta == 600.0
