"""Every reason of the enum, in its order, with a story that `decide` answers by it (TigerBeetle's table).

A reason without a story fails here. What each check's trap is stands in tests of its own: `test_checks_*`.
"""

import datetime
from typing import Any

import pytest

from engine.account import AccountState
from engine.control import TradingState
from engine.enforcement import enforcement_due
from engine.instrument import (
    MarketPhase,
)
from engine.limits import Breaker, LimitSet
from engine.order import Action, OrderType, Reason, TimeInForce
from engine.records import CalendarPlanned, Decided, ExecutionKind, Quoted
from engine.tightening import EVENT_BLACKOUT, tightened
from tests.engine import option_books
from tests.engine.builders import (
    GUARDS,
    NOW_US,
    account,
    approval,
    fill,
    limits,
    model,
    order,
    quoted,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)
from tests.engine.judging import BBB, FLAT_MODEL, MARKS, SECOND_US, TWO, judged, stop

# --- one refusal for each reason, in the order of the enum ---------------------------------------------------------


def halted() -> Decided:
    return judged(order(), control=stop(TradingState.HALTED))


def cancel_only() -> Decided:
    return judged(order(), control=stop(TradingState.CANCEL_ONLY))


def reduce_only() -> Decided:
    return judged(order(), control=stop(TradingState.REDUCE_ONLY))


def unknown_instrument() -> Decided:
    return judged(order("ZZZ"))


def not_permitted() -> Decided:
    return judged(order(), instruments=universe(stock("AAA", tradeable=False), BBB))


def expired() -> Decided:
    return judged(order(), instruments=universe(stock("AAA", expiry=datetime.date(2023, 11, 13)), BBB))


def off_lot() -> Decided:
    return judged(order(quantity=1.5))


def off_tick() -> Decided:
    return judged(order(limit_price=100.005))


def order_type_not_permitted() -> Decided:
    return judged(order(), armed=limits(order_types=(OrderType.LIMIT,)))


def time_in_force_not_permitted() -> Decided:
    return judged(order(time_in_force=TimeInForce.GTC), armed=limits(times_in_force=(TimeInForce.DAY,)))


def reduce_only_order() -> Decided:
    return judged(order(reduce_only=True))


def replaced_order_unknown() -> Decided:
    return judged(order(replaces_client_order_id="never"))


def replaced_order_filled() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "old", "AAA", 10)
    fill(state, "old", 4)
    return judged(order(quantity=4, replaces_client_order_id="old"), state=state)


def short_sale_unmarked() -> Decided:
    state = account(TWO, MARKS, positions={"AAA": 10})
    reserve(state, "exit", "AAA", -7)
    return judged(sell(quantity=4), armed=limits(short_sales_marked=True), state=state)


def limit_missing() -> Decided:
    return judged(order(), armed=LimitSet(GUARDS[:2]))


def quantity_min() -> Decided:
    return judged(order(quantity=9), instruments=universe(stock("AAA", quantity_min=10.0), BBB))


def order_value_min() -> Decided:
    return judged(order(quantity=9), armed=limits(order_value_min=1000.0))


def restricted() -> Decided:
    return judged(order(), row("restricted", 0, "symbol", match="AAA"))


def market_phase() -> Decided:
    state = account(TWO, MARKS | {"AAA": Quoted(100.0, None, None, NOW_US - 60 * SECOND_US, MarketPhase.HALTED)})
    return judged(order(), row("market_phase", 0, "symbol"), state=state)


def beta_missing() -> Decided:
    return judged(order(), row("beta_exposure", 1e9))


def average_missing() -> Decided:
    return judged(order(), row("adv_share", 1.0))


def duplicate_order() -> Decided:
    state = account(TWO, MARKS)
    state.apply(approval(order(client_order_id="earlier"), 1))
    return judged(order(), row("duplicate_order", 1), state=state)


def open_orders() -> Decided:
    state = account(TWO, MARKS)
    state.apply(approval(order("BBB", client_order_id="earlier"), 1))
    return judged(order(), row("open_orders", 1), state=state)


def price_collar() -> Decided:
    return judged(order(limit_price=106.0), row("price_collar", 0.05))


def price_collar_passive() -> Decided:
    return judged(order(limit_price=94.0), row("price_collar_passive", 0.05))


def adv_share() -> Decided:
    instruments = universe(stock("AAA", average_daily_quantity=100.0), BBB)
    return judged(order(quantity=11), row("adv_share", 0.1), instruments=instruments)


def traded_quantity() -> Decided:
    return judged(order(quantity=11), row("traded_quantity", 10, "symbol"))


def traded_value() -> Decided:
    return judged(order(quantity=11), row("traded_value", 1000))


def open_positions() -> Decided:
    return judged(order(), row("open_positions", 1), state=account(TWO, MARKS, positions={"BBB": 1}))


def net_exposure() -> Decided:
    return judged(order(quantity=11), row("net_exposure", 1000))


def beta_exposure() -> Decided:
    instruments = universe(stock("AAA", beta=2.0), BBB)
    return judged(order(quantity=6), row("beta_exposure", 1000), instruments=instruments)


def session_missing() -> Decided:
    return judged(order(), row("var_95", 1.0), state=account(TWO, MARKS, session=None))


def mark_missing() -> Decided:
    return judged(order(), state=account(TWO, {"BBB": 50.0}))


def mark_stale() -> Decided:
    return judged(order(), now_us=NOW_US + 5 * SECOND_US + 1)


def mark_unreasonable() -> Decided:
    state = account(TWO, MARKS | {"AAA": quoted(100.0, 97.0, 103.0)})
    return judged(order(), row("mark_spread", 0.05, "symbol"), state=state)


def fx_missing() -> Decided:
    instruments = universe(stock("AAA", currency="EUR"), BBB)
    return judged(order(), instruments=instruments, state=account(instruments, MARKS))


def equity_not_positive() -> Decided:
    return judged(order(), row("leverage", 2.0), state=account(TWO, MARKS, cash=0.0))


def model_missing() -> Decided:
    return judged(order(), row("var_95", 1.0), risk=None)


def model_stale() -> Decided:
    old = model({"AAA": [0.0] * 20}, built_time_us=NOW_US - 94_000 * SECOND_US)
    return judged(order(), row("var_95", 1.0), risk=old)


def history_missing() -> Decided:
    return judged(order(), row("var_95", 1.0), risk=model({"AAA": [], "BBB": [0.0] * 20}))


def factor_missing() -> Decided:
    return judged(order(), row("stress_loss", 1.0), risk=model({"AAA": [0.0] * 20}, {"crash": {"BBB": -0.1}}))


def not_finite() -> Decided:
    return judged(order(), row("gross_exposure", 1e9), state=account(TWO, MARKS | {"AAA": float("nan")}))


def order_rate() -> Decided:
    state = account(TWO, MARKS)
    state.apply(approval(order("BBB", client_order_id="earlier"), 1))
    return judged(order(), row("order_rate", 1), state=state)


def identity_missing() -> Decided:
    return judged(order(algo_id="vwap"), armed=limits(identities_required=("algo", "trader")))


def cancel_rate() -> Decided:
    state = account(TWO, MARKS)
    for name in ("c1", "c2"):
        reserve(state, name, "BBB", 1)
        state.apply(report(state, name, ExecutionKind.CANCEL_REQUESTED))
    return judged(order(), row("cancel_rate", 1), state=state)


def modify_rate() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "old", "AAA", 10)
    reserve(state, "newer", "AAA", 11, replaces_client_order_id="old")
    return judged(order(quantity=12, replaces_client_order_id="old"), row("modify_rate", 1), state=state)


def order_to_trade() -> Decided:
    state = account(TWO, MARKS)
    for name in ("o2", "o3"):
        reserve(state, name, "BBB", 1)
    fill(state, "o2", 1)
    return judged(order(), row("order_to_trade", 2), state=state)


def session_orders() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "earlier", "BBB", 1)
    return judged(order(), row("session_orders", 1), state=state)


def session_trades() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "earlier", "BBB", 1)
    fill(state, "earlier", 1)
    return judged(order(), row("session_trades", 1), state=state)


def unattended_executions() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "earlier", "BBB", 1)
    fill(state, "earlier", 1)
    return judged(order(), row("unattended_executions", 1, action="halt"), state=state)


def venue_rejects() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "refused", "BBB", 1)
    state.apply(report(state, "refused", ExecutionKind.REJECTED))
    return judged(order(), row("venue_rejects", 0), state=state)


def loss_streak() -> Decided:
    state = account(TWO, MARKS)
    for name, lots, price in (("in", 10, 100.0), ("out", -10, 99.0)):
        reserve(state, name, "AAA", lots)
        fill(state, name, 10, price)
    return judged(order(), row("loss_streak", 0), state=state)


def agent_silence() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "works", "BBB", 1, strategy="rl")
    late = row("agent_silence", 4, "strategy", "halt")
    return judged(order(strategy="rl"), late, state=state, now_us=NOW_US + 4 * SECOND_US + 1)


def self_match() -> Decided:
    state = account(TWO, MARKS)
    reserve(state, "resting", "AAA", -5, "mm", limit_price=101.0)
    return judged(order(limit_price=101.0), row("self_match", 0), state=state)


def order_quantity() -> Decided:
    return judged(order(quantity=11), row("order_quantity", 10, "symbol"))


def order_value() -> Decided:
    return judged(order(quantity=11, limit_price=100.0), row("order_value", 1000))


def position() -> Decided:
    return judged(order(quantity=11), row("position", 10, "symbol"))


def short_position() -> Decided:
    return judged(sell(quantity=11), row("short_position", 10, "symbol"))


def gross_exposure() -> Decided:
    return judged(order(quantity=11), row("gross_exposure", 1000))


def concentration() -> Decided:
    return judged(order(quantity=1001), row("concentration", 0.1))


def cluster_exposure() -> Decided:
    """BBB is the mirror image of AAA."""
    state = account(TWO, MARKS, positions={"BBB": 20})
    return judged(order(), row("cluster_exposure", 1000, unit="money"), state=state)


def leverage() -> Decided:
    return judged(order(quantity=10_001), row("leverage", 1.0))


def margin() -> Decided:
    """A million pays for 10,000 at 100 and no more."""
    return judged(order(quantity=10_001, limit_price=100.0), row("margin", 1.0))


def delta() -> Decided:
    return judged(order(quantity=11), row("delta_net", 1000))


def greek(name: str, bound: float) -> Decided:
    state = account(option_books.UNIVERSE, option_books.MARKS)
    asked = order("CALL", quantity=2)
    return judged(asked, row(name, bound), state=state, instruments=option_books.UNIVERSE, risk=option_books.RISK)


def gamma() -> Decided:
    """200 a call."""
    return greek("gamma_underlying", 399.0)


def theta() -> Decided:
    """5 a call and day."""
    return greek("theta_day", 9.9)


def vega() -> Decided:
    """30 a call and point."""
    return greek("vega", 59.0)


def risk_budget() -> Decided:
    """2 % of 25,100 on the day of the VaR are 502, of a tenth of 5,000."""
    state = account(TWO, MARKS, cash=100_000.0)
    return judged(order(quantity=251), row("risk_budget", 0.1, "symbol"), state=state)


def var() -> Decided:
    return judged(order(quantity=501), row("var_95", 1000, unit="money"))


def expected_shortfall() -> Decided:
    return judged(order(quantity=501), row("es_95", 1000, unit="money"))


def event_blackout() -> Decided:
    state = account(TWO, MARKS)
    state.apply(CalendarPlanned(time_us=NOW_US, until_us=NOW_US + 3600 * SECOND_US))
    for record in tightened(state, "event:cpi", (EVENT_BLACKOUT,), 0.5, "CPI", NOW_US, 0):
        state.apply(record)
    return judged(order(), row("event_blackout", 0), state=state)


def events_unknown() -> Decided:
    return judged(order(), row("event_blackout", 0))


def moved(*marks: float) -> AccountState:
    """100 AAA bought at 100, and nothing else, marked three times at each."""
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 100})
    for mark in marks:
        for _ in range(3):
            state.apply(valued({"AAA": mark}))
    return state


def daily_loss() -> Decided:
    return judged(order(), row("daily_loss", 0.02), state=moved(97.0))


def weekly_loss() -> Decided:
    return judged(order(), row("weekly_loss", 0.02), state=moved(97.0))


def drawdown() -> Decided:
    return judged(order(), row("drawdown", 0.02), state=moved(97.0))


def drawdown_breaker() -> Decided:
    state = moved(91.0)
    armed = limits(row("drawdown_breaker", 0), breaker=Breaker())
    for record in enforcement_due(state, terms(TWO, armed, FLAT_MODEL), NOW_US):
        state.apply(record)
    return judged(order(), armed=armed, state=state)


def profit() -> Decided:
    return judged(order(), row("profit", 0.02), state=moved(103.0))


def stress_loss() -> Decided:
    return judged(order(quantity=34), row("stress_loss", 1000, unit="money"))


def volatility() -> Decided:
    """1.5 % a day of 1,000 are some 240 a year."""
    return judged(order(quantity=10), row("volatility", 230, unit="money"))


def strategy_correlation() -> Decided:
    """Short of AAA's mirror image is long of it."""
    state = account(TWO, MARKS, strategies={("other", "BBB"): -10})
    return judged(order(strategy="one"), row("strategy_correlation", 0.8, "strategy"), state=state)


REFUSALS: tuple[tuple[Reason, Any, Action], ...] = (
    (Reason.TRADING_HALTED, halted, Action.HALT),
    (Reason.CANCEL_ONLY, cancel_only, Action.HALT),
    (Reason.REDUCE_ONLY, reduce_only, Action.HALT),
    (Reason.INSTRUMENT_UNKNOWN, unknown_instrument, Action.REJECT),
    (Reason.INSTRUMENT_NOT_PERMITTED, not_permitted, Action.REJECT),
    (Reason.INSTRUMENT_EXPIRED, expired, Action.REJECT),
    (Reason.LOT_SIZE, off_lot, Action.REJECT),
    (Reason.TICK_SIZE, off_tick, Action.REJECT),
    (Reason.ORDER_TYPE_NOT_PERMITTED, order_type_not_permitted, Action.REJECT),
    (Reason.TIME_IN_FORCE_NOT_PERMITTED, time_in_force_not_permitted, Action.REJECT),
    (Reason.REDUCE_ONLY_ORDER, reduce_only_order, Action.REJECT),
    (Reason.REPLACED_ORDER_UNKNOWN, replaced_order_unknown, Action.REJECT),
    (Reason.REPLACED_ORDER_FILLED, replaced_order_filled, Action.REJECT),
    (Reason.IDENTITY_MISSING, identity_missing, Action.REJECT),
    (Reason.SHORT_SALE_UNMARKED, short_sale_unmarked, Action.REJECT),
    (Reason.LIMIT_MISSING, limit_missing, Action.REJECT),
    (Reason.QUANTITY_MIN, quantity_min, Action.REJECT),
    (Reason.ORDER_VALUE_MIN, order_value_min, Action.REJECT),
    (Reason.RESTRICTED, restricted, Action.REJECT),
    (Reason.EVENT_BLACKOUT, event_blackout, Action.REJECT),
    (Reason.MARKET_PHASE, market_phase, Action.REJECT),
    (Reason.SESSION_MISSING, session_missing, Action.REJECT),
    (Reason.MARK_MISSING, mark_missing, Action.REJECT),
    (Reason.MARK_STALE, mark_stale, Action.REJECT),
    (Reason.MARK_UNREASONABLE, mark_unreasonable, Action.REJECT),
    (Reason.FX_MISSING, fx_missing, Action.REJECT),
    (Reason.EQUITY_NOT_POSITIVE, equity_not_positive, Action.REJECT),
    (Reason.MODEL_MISSING, model_missing, Action.REJECT),
    (Reason.MODEL_STALE, model_stale, Action.REJECT),
    (Reason.HISTORY_MISSING, history_missing, Action.REJECT),
    (Reason.FACTOR_MISSING, factor_missing, Action.REJECT),
    (Reason.BETA_MISSING, beta_missing, Action.REJECT),
    (Reason.AVERAGE_DAILY_QUANTITY_MISSING, average_missing, Action.REJECT),
    (Reason.EVENTS_UNKNOWN, events_unknown, Action.REJECT),
    (Reason.MEASURE_NOT_FINITE, not_finite, Action.REJECT),
    (Reason.ORDER_RATE, order_rate, Action.REJECT),
    (Reason.CANCEL_RATE, cancel_rate, Action.REJECT),
    (Reason.MODIFY_RATE, modify_rate, Action.REJECT),
    (Reason.ORDER_TO_TRADE, order_to_trade, Action.REJECT),
    (Reason.SESSION_ORDERS, session_orders, Action.REJECT),
    (Reason.SESSION_TRADES, session_trades, Action.REJECT),
    (Reason.UNATTENDED_EXECUTIONS, unattended_executions, Action.HALT),
    (Reason.VENUE_REJECTS, venue_rejects, Action.REJECT),
    (Reason.LOSS_STREAK, loss_streak, Action.REJECT),
    (Reason.AGENT_SILENCE, agent_silence, Action.HALT),
    (Reason.DUPLICATE_ORDER, duplicate_order, Action.REJECT),
    (Reason.SELF_MATCH, self_match, Action.REJECT),
    (Reason.OPEN_ORDERS, open_orders, Action.REJECT),
    (Reason.ORDER_QUANTITY, order_quantity, Action.REJECT),
    (Reason.ORDER_VALUE, order_value, Action.REJECT),
    (Reason.PRICE_COLLAR, price_collar, Action.REJECT),
    (Reason.PRICE_COLLAR_PASSIVE, price_collar_passive, Action.REJECT),
    (Reason.ADV_SHARE, adv_share, Action.REJECT),
    (Reason.TRADED_QUANTITY, traded_quantity, Action.REJECT),
    (Reason.TRADED_VALUE, traded_value, Action.REJECT),
    (Reason.POSITION, position, Action.REJECT),
    (Reason.SHORT_POSITION, short_position, Action.REJECT),
    (Reason.OPEN_POSITIONS, open_positions, Action.REJECT),
    (Reason.GROSS_EXPOSURE, gross_exposure, Action.REJECT),
    (Reason.NET_EXPOSURE, net_exposure, Action.REJECT),
    (Reason.BETA_EXPOSURE, beta_exposure, Action.REJECT),
    (Reason.CONCENTRATION, concentration, Action.REJECT),
    (Reason.CLUSTER_EXPOSURE, cluster_exposure, Action.REJECT),
    (Reason.LEVERAGE, leverage, Action.REJECT),
    (Reason.MARGIN, margin, Action.REJECT),
    (Reason.DELTA, delta, Action.REJECT),
    (Reason.GAMMA, gamma, Action.REJECT),
    (Reason.THETA, theta, Action.REJECT),
    (Reason.VEGA, vega, Action.REJECT),
    (Reason.DAILY_LOSS, daily_loss, Action.REJECT),
    (Reason.WEEKLY_LOSS, weekly_loss, Action.REJECT),
    (Reason.DRAWDOWN, drawdown, Action.REJECT),
    (Reason.DRAWDOWN_BREAKER, drawdown_breaker, Action.REJECT),
    (Reason.PROFIT, profit, Action.REJECT),
    (Reason.VAR, var, Action.REJECT),
    (Reason.EXPECTED_SHORTFALL, expected_shortfall, Action.REJECT),
    (Reason.STRESS_LOSS, stress_loss, Action.REJECT),
    (Reason.RISK_BUDGET, risk_budget, Action.REJECT),
    (Reason.VOLATILITY, volatility, Action.REJECT),
    (Reason.STRATEGY_CORRELATION, strategy_correlation, Action.REJECT),
)

ELSEWHERE = {
    Reason.NONE,
    Reason.SUPERSEDED_BY_STOP,
    Reason.BASKET_LEG_REFUSED,
    Reason.NOT_A_REDUCTION,
}
"""Reasons that `decide` itself does not give: a replay's, a basket's, and those for what is not built."""


@pytest.mark.parametrize(("reason", "story", "action"), REFUSALS, ids=[reason.name for reason, _, _ in REFUSALS])
def test_a_refusal_names_the_rule_and_reserves_nothing(reason: Reason, story: Any, action: Action) -> None:
    record = story()

    assert (record.action, record.reason, record.allowed_lots) == (action, reason, 0)
    assert record.message


def test_the_table_of_refusals_has_every_reason_in_the_order_of_the_enum() -> None:
    tabled = [reason for reason, _, _ in REFUSALS]

    assert tabled == [reason for reason in Reason if reason not in ELSEWHERE]
