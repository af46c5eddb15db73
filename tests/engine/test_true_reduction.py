"""A true reduction is never trapped, and nothing else passes as one (P7, DESIGN.md: true reduction)."""

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.control import Control, Scope, Stop, TradingState
from engine.decide import decide
from engine.limits import Limit
from engine.measures import MEASURES
from engine.measures.measure import Family
from engine.order import Action, Order, Reason, Side
from engine.records import Decided
from engine.risk.model import RiskModel
from tests.engine.books import UNIVERSE, Bench, benches, lots_of
from tests.engine.builders import (
    NOW_US,
    account,
    approval,
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

ONE = universe(stock("AAA"))
PRICED = {"AAA": 100.0}
HOUR_US = 3_600_000_000

UNEVALUABLE: tuple[Limit, ...] = (
    row("var_95", 1.0),
    row("es_99", 1.0, action="halt"),
    row("stress_loss", 1.0, action="reduce"),
)
"""With no model published."""

BREACHED: tuple[Limit, ...] = (
    row("mark_age", 0.0),
    row("mark_spread", 0.0, "symbol"),
    row("mark_move", 0.0, "symbol", "halt"),
    row("order_rate", 0),
    row("position", 0, "symbol"),
    row("gross_exposure", 0, action="halt"),
    row("concentration", 0, action="reduce"),
    row("leverage", 0),
)


def reducing(state: AccountState, asked: Order, *rows: Limit, control: Control | None = None) -> Decided:
    return decide(state, terms(ONE, limits(*rows), None, control), asked, NOW_US + HOUR_US)


def reduce_only(scope: Scope | None = None) -> Control:
    return Control(epoch=1, stops=(Stop(scope or Scope(), TradingState.REDUCE_ONLY, 1, NOW_US, "ops"),))


limit_rows = st.lists(st.sampled_from(BREACHED + UNEVALUABLE), unique_by=lambda one: one.measure)


@settings(max_examples=150, deadline=None)
@given(
    position=st.integers(-20, 20).filter(bool),
    closing=st.integers(0, 20),
    opening=st.integers(0, 5),
    quantity=st.integers(1, 30),
    rows=limit_rows,
    stopped=st.sampled_from([None, Scope(), Scope("ALPHA"), Scope(symbol="AAA")]),
    price=st.sampled_from([0.0, 100.0]),
    cash=st.sampled_from([0.0, 1e6]),
)
def test_a_reduction_passes_whatever_is_breached_or_unknown_and_nothing_more_does(
    position: int,
    closing: int,
    opening: int,
    quantity: int,
    rows: list[Limit],
    stopped: Scope | None,
    price: float,
    cash: float,
) -> None:
    """One symbol, so every reduction lowers every measure; `closing` leaves are open already on the order's side."""
    state = account(ONE, {"AAA": price}, positions={"AAA": position}, cash=cash)
    sign = -1 if position > 0 else 1
    if closing:
        reserve(state, "closing", "AAA", sign * closing)
    if opening:
        reserve(state, "opening", "AAA", -sign * opening)
    asked = order(side=Side.SELL if sign < 0 else Side.BUY, quantity=quantity)

    record = reducing(state, asked, *rows, control=reduce_only(stopped) if stopped is not None else None)

    room = max(0, abs(position) - closing)
    if quantity <= room:
        assert (record.action, record.allowed_lots) == (Action.ALLOW, quantity)
    elif stopped is not None:
        assert record.allowed_lots == room
        assert record.action is (Action.REDUCE if room else Action.HALT)
    elif rows or price == 0.0:
        assert record.allowed_lots <= room


@pytest.mark.parametrize("limit", [*BREACHED, *UNEVALUABLE], ids=lambda one: one.measure)
def test_each_limit_that_passes_a_reduction_stops_the_same_order_without_a_position(limit: Limit) -> None:
    held, flat = account(ONE, PRICED, positions={"AAA": 6}), account(ONE, PRICED)
    for state in (held, flat):
        state.apply(valued({"AAA": quoted(101.0, 100.0, 102.0)}))

    closing, opening = (reducing(state, sell(quantity=5), limit) for state in (held, flat))

    assert closing.action is Action.ALLOW
    assert not opening.action.allows
    found = next(one for one in closing.checks if one.measure == limit.measure)
    assert found.reduction is (limit.measure != "position")  # whose short side a sale of 5 out of 6 never touches


FAT_FINGERS = (row("order_quantity", 4, "symbol"), row("order_value", 499))


@pytest.mark.parametrize("limit", FAT_FINGERS, ids=lambda one: one.measure)
def test_a_fat_finger_stops_a_reduction_too(limit: Limit) -> None:
    record = reducing(account(ONE, PRICED, positions={"AAA": 5}), sell(quantity=5), limit)

    assert record.action is Action.REJECT


def test_an_order_value_that_cannot_be_known_stops_no_reduction() -> None:
    record = reducing(account(ONE, {}, positions={"AAA": 5}), sell(quantity=5), row("order_value", 1))

    assert record.action is Action.ALLOW


@pytest.mark.parametrize("state", [TradingState.CANCEL_ONLY, TradingState.HALTED])
def test_cancel_only_and_halted_stop_a_reduction(state: TradingState) -> None:
    control = Control(epoch=1, stops=(Stop(Scope(), state, 1, NOW_US, "ops"),))

    record = reducing(account(ONE, PRICED, positions={"AAA": 5}), sell(quantity=5), control=control)

    assert (record.action, record.allowed_lots) == (Action.HALT, 0)


def test_an_instrument_that_is_not_permitted_stops_a_reduction() -> None:
    closed = universe(stock("AAA", tradeable=False))
    state = account(closed, PRICED, positions={"AAA": 5})

    record = decide(state, terms(closed), sell(quantity=5), NOW_US)

    assert record.reason is Reason.INSTRUMENT_NOT_PERMITTED


def test_a_second_closing_order_is_no_reduction_while_the_first_may_fill() -> None:
    state = account(ONE, PRICED, positions={"AAA": 5})
    state.apply(approval(sell(quantity=5, client_order_id="first"), 5))

    second = reducing(state, sell(quantity=1), control=reduce_only())

    assert (second.action, second.reason) == (Action.HALT, Reason.REDUCE_ONLY)


def test_an_order_larger_than_the_position_is_clipped_or_refused_where_it_is_all_or_none() -> None:
    state = account(ONE, PRICED, positions={"AAA": -5})

    clipped = reducing(state, order(quantity=7), control=reduce_only())
    refused = reducing(state, order(quantity=7, all_or_none=True), control=reduce_only())
    by_flag = decide(state, terms(ONE), order(quantity=7, reduce_only=True), NOW_US)

    assert (clipped.action, clipped.reason, clipped.allowed_lots) == (Action.REDUCE, Reason.REDUCE_ONLY, 5)
    assert (refused.action, refused.allowed_lots) == (Action.REJECT, 0)
    assert (by_flag.action, by_flag.reason, by_flag.allowed_lots) == (Action.REDUCE, Reason.REDUCE_ONLY_ORDER, 5)


def test_a_strategy_stop_is_judged_on_that_strategys_position() -> None:
    state = account(ONE, PRICED, strategies={("rl", "AAA"): 5, ("mm", "AAA"): -5})
    control = reduce_only(Scope("ALPHA", strategy="rl"))
    fresh = row("mark_age", 1e9)

    closing = reducing(state, sell(quantity=5, strategy="rl"), fresh, control=control)
    opening = reducing(state, order(quantity=1, strategy="rl"), fresh, control=control)
    elsewhere = reducing(state, sell(quantity=1, strategy="mm"), fresh, control=control)

    assert (closing.action, closing.allowed_lots) == (Action.ALLOW, 5)
    assert opening.action is Action.HALT
    assert elsewhere.action is Action.ALLOW


# --- portfolio measures: only what lowers them -----------------------------------------------------------------------

HEDGED = universe(stock("AAA"), stock("BBB"))
TOGETHER = model({"AAA": [-0.1, 0.1] * 10, "BBB": [-0.1, 0.1] * 10}, {"crash": {"AAA": -0.3, "BBB": -0.3}})


@pytest.mark.parametrize("measure", ["var_95", "es_95", "stress_loss"])
def test_selling_the_hedge_is_no_way_out_of_a_breached_portfolio_limit(measure: str) -> None:
    """Long AAA covers short BBB: closing it leaves the short open to the rise."""
    state = account(HEDGED, {"AAA": 100.0, "BBB": 100.0}, positions={"AAA": 8, "BBB": -10})
    under = terms(HEDGED, limits(row(measure, 1.0, unit="money")), TOGETHER)

    uncovering = decide(state, under, sell("AAA", 5), NOW_US)
    covering = decide(state, under, order("BBB", quantity=2), NOW_US)

    assert uncovering.action is Action.REJECT
    assert covering.action is Action.ALLOW


PORTFOLIO = ("gross_exposure", "concentration", "var_95", "var_99", "es_95", "es_99", "stress_loss")


@settings(max_examples=150, deadline=None)
@given(benches, st.sampled_from(PORTFOLIO), st.data())
def test_over_its_bound_a_portfolio_measure_passes_a_reduction_if_and_only_if_it_is_lowered(
    bench: Bench, measure: str, data: st.DataObject
) -> None:
    limit = row(measure, 0.0)
    reductions = [one for one in either_side_of_all() if bench.slow.room(limit, one)]
    assume(reductions)
    asked = data.draw(st.sampled_from(reductions))
    lots = data.draw(st.integers(1, bench.slow.room(limit, asked)))
    asked = msgspec.structs.replace(asked, quantity=lots * UNIVERSE.instruments[asked.symbol].lot_size)
    book = bench.slow.scope(limit, asked)
    now, then = bench.slow.standing(limit, book, asked.symbol), bench.slow.filled(limit, asked, lots)
    assume(bench.slow.read(limit, asked, lots)[1] > 1e-9 and abs(now - then) > 1e-9)
    grid_now, grid_then = grid_of_underlying(bench, asked)
    assume(abs(grid_now - grid_then) > 1e-9 or grid_now == grid_then)

    record = decide(bench.state, bench.terms(limits(limit)), asked, NOW_US)

    lowered = then < now and grid_then <= grid_now
    assert record.action is (Action.ALLOW if lowered else Action.REJECT)


def either_side_of_all() -> list[Order]:
    return [
        order(symbol, side, client_order_id="new") for symbol in UNIVERSE.instruments for side in (Side.BUY, Side.SELL)
    ]


def grid_of_underlying(bench: Bench, asked: Order) -> tuple[float, float]:
    """The worst loss over ±spot of the order's underlying in the whole account: now, and with the order filled."""
    underlying = UNIVERSE.instruments[asked.symbol].underlying or asked.symbol
    members = [s for s, one in UNIVERSE.instruments.items() if (one.underlying or s) == underlying]
    now, then = bench.slow.book(None, members), bench.slow.book(None, members)
    then.of(asked.symbol).position += asked.side.sign * lots_of(asked)
    return max(bench.slow.grid_losses(now)), max(bench.slow.grid_losses(then))


def test_selling_the_stock_that_covers_another_instrument_of_its_underlying_is_no_reduction() -> None:
    """Gross exposure would fall, but the ±spot loss of the pair would rise."""
    pair = universe(stock("AAA"), stock("AAX", underlying="AAA"))
    state = account(pair, {"AAA": 100.0, "AAX": 100.0}, positions={"AAA": 10, "AAX": -10})
    under = terms(pair, limits(row("gross_exposure", 1000.0)))

    uncovering = decide(state, under, sell("AAA", 5), NOW_US)
    alone = account(pair, {"AAA": 100.0, "AAX": 100.0}, positions={"AAA": 20})

    assert uncovering.action is Action.REJECT
    assert decide(alone, under, sell("AAA", 5), NOW_US).action is Action.ALLOW


def test_without_a_model_a_reduction_passes_a_tail_limit_unevaluated() -> None:
    missing: RiskModel | None = None
    state = account(ONE, PRICED, positions={"AAA": 5})

    record = decide(state, terms(ONE, limits(row("var_99", 0.0)), missing), sell(quantity=5), NOW_US)

    found = next(one for one in record.checks if one.measure == "var_99")
    assert (record.action, found.before, found.reduction) == (Action.ALLOW, None, True)
    assert "no risk model" in found.note


def test_every_measure_but_fat_fingers_knows_how_to_pass_a_reduction() -> None:
    strict = {one.name for one in MEASURES.values() if one.family is Family.FAT_FINGER}

    assert strict == {"order_quantity", "order_value", "price_collar"}
    assert all(one.filled for one in MEASURES.values() if one.family is Family.PORTFOLIO)
