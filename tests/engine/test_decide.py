"""Decisions, in the order of the Reason enum: each refusal, its boundary, what takes precedence, and what follows."""

import datetime
from typing import Any

import pytest

from engine.control import Control, Lifted, Resumed, Scope, Stop, TradingState
from engine.decide import Terms, decide, decide_basket, superseded
from engine.instrument import AssetClass
from engine.limits import HaltState, Limit, LimitSet
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import encode
from tests.engine.builders import (
    ACCOUNT,
    GUARDS,
    NOW_US,
    account,
    future,
    limits,
    model,
    order,
    quoted,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)
from tests.engine.judging import AAA, BBB, FLAT_MODEL, MARKS, SECOND_US, TWO, check, judged, stop

# --- boundaries: equal to the limit passes, equal to the warning warns -----------------------------------------------


BOUNDARIES: tuple[tuple[Limit, float, float], ...] = (
    (row("order_quantity", 10, "symbol"), 10, 11),
    (row("order_value", 1010), 10, 11),  # a market buy is valued at 100 × 1.01
    (row("position", 10, "symbol"), 10, 11),
    (row("gross_exposure", 1000), 10, 11),
    (row("concentration", 0.001), 10, 11),
    (row("leverage", 0.001), 10, 11),
    (row("var_95", 20, unit="money"), 10, 11),
    (row("es_99", 20, unit="money"), 10, 11),
    (row("stress_loss", 300, unit="money"), 10, 11),
    (row("net_exposure", 1000), 10, 11),
    (row("traded_quantity", 10, "symbol"), 10, 11),
    (row("traded_value", 1000), 10, 11),
)


@pytest.mark.parametrize(("limit", "fits", "breaks"), BOUNDARIES, ids=[one.measure for one, _, _ in BOUNDARIES])
def test_a_value_equal_to_the_limit_is_within_it(limit: Limit, fits: float, breaks: float) -> None:
    assert judged(order(quantity=fits), limit).action is Action.ALLOW
    assert judged(order(quantity=breaks), limit).action is Action.REJECT


def test_a_value_equal_to_the_warning_warns_and_is_allowed_whole() -> None:
    limit = row("position", 10, "symbol", warn=8.0)

    below, at, over = (judged(order(quantity=count), limit) for count in (7, 8, 11))

    assert (below.action, at.action, over.action) == (Action.ALLOW, Action.WARN, Action.REJECT)
    assert (at.reason, at.allowed_lots) == (Reason.POSITION, 8)


def test_a_limit_that_only_warns_lets_everything_pass() -> None:
    record = judged(order(quantity=11), row("gross_exposure", 1000, action="warn"))

    assert (record.action, record.allowed_lots) == (Action.WARN, 11)


def test_a_rate_counts_the_attempts_of_its_window_refused_ones_too() -> None:
    state = account(TWO, MARKS)
    for at in range(3):
        refused = judged(order(quantity=0.5, client_order_id=f"r{at}"), state=state)
        assert refused.action is Action.REJECT
        state.apply(refused)
    limit = row("order_rate", 3, window_s=2.0)

    now = judged(order(), limit, state=state)
    at_the_edge = judged(order(), limit, state=state, now_us=NOW_US + 2 * SECOND_US)

    assert (now.reason, check(now, "order_rate").after) == (Reason.ORDER_RATE, 4.0)
    assert (at_the_edge.action, check(at_the_edge, "order_rate").after) == (Action.ALLOW, 1.0)


@pytest.mark.parametrize(
    ("quantity", "lot", "whole"), [(0.3, 0.1, 3), (0.7, 0.1, 7), (1.1, 0.1, 11), (0.35, 0.1, 0), (1e-9, 1.0, 0)]
)
def test_lots_are_counted_without_float_modulo(quantity: float, lot: float, whole: int) -> None:
    record = judged(order(quantity=quantity), instruments=universe(stock("AAA", lot_size=lot), BBB))

    assert (record.lots if record.action is Action.ALLOW else 0) == whole


@pytest.mark.parametrize(
    ("price", "tick", "allowed"), [(0.3, 0.1, True), (100.1, 0.1, True), (100.15, 0.1, False), (0.0, 0.1, False)]
)
def test_ticks_are_counted_without_float_modulo(price: float, tick: float, allowed: bool) -> None:
    record = judged(order(limit_price=price), instruments=universe(stock("AAA", tick_size=tick), BBB))

    assert (record.action is Action.ALLOW) is allowed
    assert allowed or record.reason is Reason.TICK_SIZE


@pytest.mark.parametrize("senseless", [float("nan"), float("inf"), -5.0, 0.0])
def test_a_senseless_quantity_is_never_approved(senseless: float) -> None:
    record = judged(order(quantity=senseless))

    assert (record.action, record.reason, record.lots) == (Action.REJECT, Reason.LOT_SIZE, 0)


def test_a_good_till_date_order_needs_its_validity() -> None:
    without = judged(order(time_in_force=TimeInForce.GTD))
    with_it = judged(order(time_in_force=TimeInForce.GTD, valid_for_us=SECOND_US))

    assert without.reason is Reason.TIME_IN_FORCE_NOT_PERMITTED
    assert (with_it.action, with_it.expires_us) == (Action.ALLOW, NOW_US + SECOND_US)


# --- precedence ----------------------------------------------------------------------------------------------------


def test_the_first_violated_rule_is_named_and_the_strictest_action_wins() -> None:
    rows = (
        row("order_quantity", 10, "symbol"),
        row("position", 20, "symbol", "reduce"),
        row("gross_exposure", 1000, action="halt"),
        row("leverage", 1e-9, action="warn"),
    )

    record = judged(order(quantity=30), *rows)

    assert (record.action, record.reason, record.allowed_lots) == (Action.HALT, Reason.ORDER_QUANTITY, 0)
    by_measure = {one.measure: one.action for one in record.checks}
    assert by_measure == {
        "mark_age": Action.ALLOW,
        "order_quantity": Action.REJECT,
        "order_value": Action.ALLOW,
        "position": Action.REDUCE,
        "gross_exposure": Action.HALT,
        "leverage": Action.WARN,
    }


def test_a_halt_comes_before_everything_that_is_wrong_with_the_order() -> None:
    record = judged(order("ZZZ", quantity=0.5), control=stop(TradingState.HALTED))

    assert record.reason is Reason.TRADING_HALTED


def test_the_strictest_of_the_stops_that_reach_an_order_wins() -> None:
    stops = (
        Stop(Scope(symbol="AAA"), TradingState.HALTED, 2, NOW_US, "ops"),
        Stop(Scope(), TradingState.REDUCE_ONLY, 1, NOW_US, "ops"),
    )

    here = judged(order("AAA"), control=Control(epoch=2, stops=stops))
    there = judged(order("BBB"), control=Control(epoch=2, stops=stops))

    assert (here.reason, there.reason) == (Reason.TRADING_HALTED, Reason.REDUCE_ONLY)


def test_limits_that_only_warn_do_not_count_as_the_limits_without_which_nothing_trades() -> None:
    warns = (*GUARDS[:2], row("position", 10, "symbol", "warn"))

    record = judged(order(), armed=LimitSet(warns))

    assert record.reason is Reason.LIMIT_MISSING
    assert "position" in record.message


def test_a_limit_of_another_symbol_does_not_reach_this_one() -> None:
    record = judged(order("AAA"), armed=LimitSet((*GUARDS[:2], row("position", 10, "symbol", match="BBB"))))

    assert record.reason is Reason.LIMIT_MISSING


# --- REDUCE --------------------------------------------------------------------------------------------------------


def test_reduce_allows_the_largest_quantity_and_says_so() -> None:
    record = judged(order(quantity=30), row("position", 20, "symbol", "reduce"))

    assert (record.action, record.lots, record.allowed_lots) == (Action.REDUCE, 30, 20)
    assert "allowed: 20" in record.message


def test_reduce_takes_the_smallest_of_all_that_fit() -> None:
    rows = (row("position", 20, "symbol", "reduce"), row("stress_loss", 300, action="reduce", unit="money"))

    record = judged(order(quantity=30), *rows)

    assert (record.reason, record.allowed_lots) == (Reason.POSITION, 10)


def test_reduce_to_nothing_is_a_rejection() -> None:
    record = judged(order(quantity=30), row("gross_exposure", 99, action="reduce"))

    assert (record.action, record.allowed_lots) == (Action.REJECT, 0)


def test_all_or_none_turns_reduce_into_a_rejection() -> None:
    record = judged(order(quantity=30, all_or_none=True), row("position", 20, "symbol", "reduce"))

    assert (record.action, record.reason, record.allowed_lots) == (Action.REJECT, Reason.POSITION, 0)


def test_a_rejecting_limit_is_not_outvoted_by_one_that_reduces() -> None:
    record = judged(order(quantity=30), row("position", 20, "symbol", "reduce"), row("gross_exposure", 2500))

    assert (record.action, record.allowed_lots) == (Action.REJECT, 0)


def test_the_part_that_closes_is_allowed_where_the_whole_order_would_flip() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})

    record = judged(sell(quantity=15), row("gross_exposure", 500, action="reduce"), state=state)

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 10)


def test_a_fat_finger_cuts_a_reduction_too() -> None:
    rows = (row("gross_exposure", 500, action="reduce"), row("order_quantity", 7, "symbol", "reduce"))

    record = judged(sell(quantity=15), *rows, state=account(TWO, MARKS, positions={"AAA": 10}))

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 7)


# --- HALT ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "scope"),
    [
        (row("gross_exposure", 100, action="halt"), Scope(ACCOUNT)),
        (row("gross_exposure", 100, "strategy", "halt"), Scope(ACCOUNT, strategy="rl")),
        (row("gross_exposure", 100, "symbol", "halt"), Scope(ACCOUNT, symbol="AAA")),
    ],
)
def test_a_breach_of_a_halting_limit_latches_its_scope(limit: Limit, scope: Scope) -> None:
    state = account(TWO, MARKS, positions={"AAA": -1})
    asked = order(quantity=5, strategy="rl")

    record = judged(asked, limit, state=state)
    state.apply(record)
    again = judged(order(client_order_id="o2", strategy="rl", limit_price=1.0, quantity=9), state=state)
    closing = judged(order(client_order_id="o3", quantity=1), state=state)

    assert record.action is Action.HALT
    assert [(latch.scope, latch.state) for latch in record.latches] == [(scope, TradingState.REDUCE_ONLY)]
    assert again.allowed_lots <= 1
    assert closing.action is Action.ALLOW


def test_a_halting_limit_latches_the_state_that_it_names_until_a_resume() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    limit = row("gross_exposure", 100, action="halt", halt_state=HaltState.CANCEL_ONLY)
    state.apply(judged(order(quantity=5), limit, state=state, control=Control(epoch=4)))

    held = judged(sell(client_order_id="o2"), state=state, control=Control(epoch=4))
    earlier = Control(epoch=4, resumes=(Resumed(Scope(), 4, NOW_US, "ops", "ok"),))
    later = Control(epoch=5, resumes=(Resumed(Scope(), 5, NOW_US, "ops", "ok"),))

    assert (held.action, held.reason) == (Action.HALT, Reason.CANCEL_ONLY)
    assert judged(sell(client_order_id="o3"), state=state, control=earlier).reason is Reason.CANCEL_ONLY
    assert judged(sell(client_order_id="o4"), state=state, control=later).action is Action.ALLOW


def test_a_halting_limit_that_cannot_be_evaluated_rejects_and_latches_nothing() -> None:
    record = judged(order(), row("var_95", 1.0, action="halt"), risk=None)

    assert (record.action, record.latches) == (Action.REJECT, ())


def test_a_warning_that_cannot_be_evaluated_warns() -> None:
    record = judged(order(), row("var_95", 1.0, action="warn"), risk=None)

    assert (record.action, record.reason, record.allowed_lots) == (Action.WARN, Reason.MODEL_MISSING, 1)


def test_a_stop_after_an_approval_supersedes_it_even_once_lifted() -> None:
    state, asked = account(TWO, MARKS), order()
    lifted = Control(epoch=9, lifted=(Lifted(Scope(ACCOUNT), 5),))

    assert superseded(state, lifted, asked, 1, 4)
    assert not superseded(state, lifted, asked, 1, 5)


# --- prices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        (order(quantity=10), 10 * 102.0 * 1.02),
        (order(quantity=10, limit_price=90.0), 900.0),
        (order(quantity=10, limit_price=110.0), 1100.0),
        (order(quantity=10, order_type=OrderType.STOP, stop_price=105.0), 10 * 105.0 * 1.02),
        (order(quantity=10, order_type=OrderType.STOP_LIMIT, stop_price=105.0, limit_price=106.0), 1060.0),
        (sell(quantity=10), 980.0),
        (sell(quantity=10, limit_price=90.0), 980.0),
        (sell(quantity=10, limit_price=120.0), 1200.0),
        (order(side=Side.SELL_SHORT, quantity=10, limit_price=99.0), 990.0),
    ],
)
def test_an_order_is_valued_at_the_highest_price_it_can_fill_at(asked: Order, value: float) -> None:
    state = account(TWO, MARKS | {"AAA": quoted(100.0, 98.0, 102.0)})

    record = judged(asked, state=state, armed=limits(market_slippage=0.02))

    assert check(record, "order_value").after == pytest.approx(value)


def test_without_a_quote_the_mark_stands_in() -> None:
    record = judged(order(quantity=10))

    assert check(record, "order_value").after == pytest.approx(1010.0)


@pytest.mark.parametrize("field", ["mark", "bid", "ask"])
@pytest.mark.parametrize("senseless", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_price_that_is_no_number_never_approves(field: str, senseless: float, side: Side) -> None:
    prices: dict[str, Any] = {"mark": 100.0, "bid": 99.0, "ask": 101.0} | {field: senseless}
    state = account(TWO, MARKS | {"AAA": quoted(**prices)})
    needed = field == "mark" or (field == "ask") == (side is Side.BUY)

    record = judged(order(side=side), row("leverage", 1.0), state=state)

    assert (record.action is Action.REJECT) is needed
    assert not needed or record.reason is Reason.MEASURE_NOT_FINITE


@pytest.mark.parametrize("cash", [float("nan"), float("inf")])
def test_equity_that_is_no_number_never_approves(cash: float) -> None:
    record = judged(order(), row("leverage", 1.0), state=account(TWO, MARKS, cash=cash))

    assert record.action is Action.REJECT


def test_a_mark_is_stale_after_the_implied_limit_and_not_at_it() -> None:
    at, after = (judged(order(), now_us=NOW_US + 5 * SECOND_US + extra) for extra in (0, 1))

    assert (at.action, after.reason) == (Action.ALLOW, Reason.MARK_STALE)
    assert check(at, "mark_age").input_age_us == 5 * SECOND_US


def test_a_stale_mark_of_another_position_is_the_accounts_business_but_not_the_symbols() -> None:
    state = account(TWO, MARKS, positions={"BBB": 1})
    state.apply(valued({"AAA": 100.0}, time_us=NOW_US + 9 * SECOND_US))

    of_account = judged(order(), state=state, now_us=NOW_US + 9 * SECOND_US)
    rows = row("mark_age", 5.0, "symbol"), row("mark_age", 60.0)
    of_symbol = judged(order(), *rows, state=state, now_us=NOW_US + 9 * SECOND_US)

    assert (of_account.reason, of_symbol.action) == (Reason.MARK_STALE, Action.ALLOW)


def test_a_missing_mark_of_another_position_stops_what_needs_it() -> None:
    state = account(TWO, {"AAA": 100.0}, positions={"BBB": 1})

    record = judged(order(), row("gross_exposure", 1e9), state=state)

    assert record.reason is Reason.MARK_MISSING
    assert "BBB" in record.message


def test_foreign_cash_without_a_rate_leaves_equity_unknown() -> None:
    record = judged(order(), row("leverage", 1.0), state=account(TWO, MARKS, cash={"USD": 1e6, "EUR": 1.0}))

    assert record.reason is Reason.FX_MISSING


def test_a_stale_rate_makes_a_mark_stale() -> None:
    instruments = universe(stock("AAA", currency="EUR"), BBB)
    state = account(instruments, MARKS, fx={"EUR": 1.1})
    state.apply(valued({"AAA": 100.0}, time_us=NOW_US + 9 * SECOND_US))

    record = judged(order(), instruments=instruments, state=state, now_us=NOW_US + 9 * SECOND_US)

    assert record.reason is Reason.MARK_STALE


def test_a_mark_too_far_from_the_sessions_open_is_unreasonable() -> None:
    state = account(TWO, MARKS)
    state.apply(valued({"AAA": 131.0}))

    record = judged(order(), row("mark_move", 0.3, "symbol"), state=state)

    assert record.reason is Reason.MARK_UNREASONABLE
    assert check(record, "mark_move").after == pytest.approx(0.31)


# --- the model -----------------------------------------------------------------------------------------------------


def test_a_model_of_another_session_is_stale_by_as_many_sessions_as_the_account_is_ahead() -> None:
    yesterdays = model({"AAA": [0.0] * 20}, session_date=datetime.date(2023, 11, 13))
    limit = row("var_95", 1.0)

    strict = judged(order(), limit, risk=yesterdays)
    lenient = judged(order(), armed=limits(limit, model_lag_sessions_max=1), risk=yesterdays)

    assert (strict.reason, lenient.action) == (Reason.MODEL_STALE, Action.ALLOW)


def test_a_model_in_another_currency_is_no_model() -> None:
    record = judged(order(), row("es_95", 1.0), risk=model({"AAA": [0.0] * 20}, base_currency="EUR"))

    assert record.reason is Reason.MODEL_MISSING


def test_a_model_ages_until_its_bound_inclusive() -> None:
    limit = row("var_95", 1.0)

    at = judged(order(), armed=limits(limit, model_age_max_s=60.0, mark_age_max_s=99.0), now_us=NOW_US + 60 * SECOND_US)
    after = judged(order(), armed=limits(limit, model_age_max_s=60.0, mark_age_max_s=99.0), now_us=NOW_US + 60_000_001)

    assert (at.action, after.reason) == (Action.ALLOW, Reason.MODEL_STALE)


@pytest.mark.parametrize("measure", ["var_95", "stress_loss"])
def test_a_position_that_the_model_does_not_know_stops_the_measure_for_all(measure: str) -> None:
    state = account(TWO, MARKS, positions={"BBB": 1})
    only_aaa = model({"AAA": [0.0] * 20}, {"crash": {"AAA": -0.1}})

    record = judged(order(), row(measure, 1.0), state=state, risk=only_aaa)

    assert record.reason in (Reason.HISTORY_MISSING, Reason.FACTOR_MISSING)
    assert "BBB" in record.message


# --- the record ----------------------------------------------------------------------------------------------------


def test_a_verdict_lists_every_armed_check_with_its_value_before_and_after() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    reserve(state, "open", "AAA", 5)

    record = judged(order(quantity=2), row("position", 100, "symbol", warn=50.0), state=state)

    found = check(record, "position")
    assert [one.measure for one in record.checks] == ["mark_age", "order_quantity", "order_value", "position"]
    assert (found.scope, found.before, found.after, found.warn, found.limit) == ("symbol:AAA", 15.0, 17.0, 50.0, 100.0)


def test_a_verdict_names_what_it_was_decided_from_and_can_be_decided_again() -> None:
    state = account(TWO, MARKS)
    armed = limits(row("var_99", 1.0))
    under = Terms(Control(epoch=7), armed, TWO, FLAT_MODEL)

    first, again = decide(state, under, order(), NOW_US), decide(state, under, order(), NOW_US)

    assert encode(first) == encode(again)
    assert (first.epoch, first.limit_set, first.instrument_set) == (7, armed.hash, TWO.hash)
    assert first.risk_model == FLAT_MODEL.hash


def test_another_instrument_set_regroups_what_is_cached() -> None:
    state = account(TWO, MARKS, positions={"BBB": 10})
    limit = row("gross_exposure", 1e9, "sector")
    judged(order(), limit, state=state)

    moved = universe(AAA, stock("BBB", sector="Energy"))
    record = judged(order(), limit, state=state, instruments=moved)

    assert check(record, "gross_exposure").after == 100.0


def test_firm_limits_hold_an_account_to_its_share() -> None:
    limit = row("gross_exposure", 10_000, "firm", allocation={ACCOUNT: 0.1})

    fits, breaks = judged(order(quantity=10), limit), judged(order(quantity=11), limit)
    other = judged(order(), row("gross_exposure", 10_000, "firm", allocation={"BETA": 1.0}))

    assert (fits.action, breaks.action, other.action) == (Action.ALLOW, Action.REJECT, Action.REJECT)


def test_a_row_that_names_the_account_replaces_the_one_for_every_account() -> None:
    rows = (row("gross_exposure", 100), row("gross_exposure", 1000, account=ACCOUNT))

    assert judged(order(quantity=10), *rows).action is Action.ALLOW
    assert judged(order(quantity=11), *rows).action is Action.REJECT


def test_futures_and_foreign_lots_count_with_multiplier_and_rate() -> None:
    instruments = universe(future("FUT"), stock("EUX", currency="EUR", lot_size=10.0, asset_class=AssetClass.CRYPTO))
    state = account(instruments, {"FUT": 20.0, "EUX": 5.0}, fx={"EUR": 1.2})
    limit = row("gross_exposure", 1e9)

    of_future = judged(order("FUT", quantity=3), limit, instruments=instruments, state=state)
    of_foreign = judged(order("EUX", quantity=20), limit, instruments=instruments, state=state)

    assert check(of_future, "gross_exposure").after == 3 * 50 * 20.0
    assert check(of_foreign, "gross_exposure").after == pytest.approx(20 * 5.0 * 1.2)


# --- baskets -------------------------------------------------------------------------------------------------------


def test_each_leg_of_a_basket_sees_those_before_it() -> None:
    under = terms(TWO, limits(row("gross_exposure", 1000)))
    legs = [order(quantity=6, client_order_id="a"), order("BBB", quantity=8, client_order_id="b")]

    decided = decide_basket(account(TWO, MARKS), under, legs, NOW_US)

    assert [one.action for one in decided] == [Action.ALLOW, Action.ALLOW]
    assert check(decided[1], "gross_exposure").before == 600.0


@pytest.mark.parametrize("action", ["reject", "reduce"])
def test_one_leg_that_does_not_fit_whole_refuses_the_basket(action: str) -> None:
    under = terms(TWO, limits(row("gross_exposure", 1000, action=action)))
    legs = [order(quantity=6, client_order_id="a"), order("BBB", quantity=9, client_order_id="b")]
    state = account(TWO, MARKS)

    decided = decide_basket(state, under, legs, NOW_US)

    assert [one.action for one in decided] == [Action.REJECT, Action.REJECT]
    assert [one.reason for one in decided] == [Reason.BASKET_LEG_REFUSED, Reason.GROSS_EXPOSURE]
    assert [one.allowed_lots for one in decided] == [0, 0]
    assert not state.orders


def test_a_model_without_days_leaves_var_unevaluable_also_for_an_empty_book() -> None:
    empty = model({"AAA": []}, {"crash": {"AAA": -0.3}})

    record = judged(order(), row("var_99", 0.5), risk=empty)

    assert record.reason is Reason.HISTORY_MISSING


def test_an_exit_with_a_part_that_flips_is_cut_to_the_exit_where_shortfall_is_over_its_bound_by_the_position() -> None:
    """Up to eight lots sold at worst case leave the shortfall as it is, over its bound: only closing lowers it."""
    instruments = universe(stock("AAA"))
    state = account(instruments, {"AAA": 100.0}, positions={"AAA": 4})
    risk = model({"AAA": [-0.2, 0.1, *[0.0] * 18]})
    armed = limits(row("es_95", 40.0, action="reduce", unit="money"))

    record = decide(state, terms(instruments, armed, risk), order(side=Side.SELL, quantity=13.0), NOW_US)

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 4)
