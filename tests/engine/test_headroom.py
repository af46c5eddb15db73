"""Headroom is what `decide` would answer: all of it, and anything smaller, is allowed in full; one lot more is not."""

import datetime
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.control import Control, Scope, Stop, TradingState
from engine.decide import Terms, decide
from engine.headroom import Asked, Headroom, Room, headroom
from engine.instrument import LOTS_MAX
from engine.limits import Limit, LimitMode, LimitSet
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import Decided, Latch, Latched
from engine.risk.model import RiskModel
from tests.engine.books import UNIVERSE, models, names, states, symbols
from tests.engine.builders import (
    ACCOUNT,
    GUARDS,
    NOW_US,
    account,
    fill,
    limits,
    model,
    order,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)

SECOND_US = 1_000_000
ROWS = (
    row("order_quantity", 30, "symbol"),
    row("order_quantity", 45, action="reduce"),
    row("order_value", 4_000),
    row("order_value", 0.0005, unit="equity", action="halt"),
    row("order_rate", 4),
    row("order_rate", 2, "strategy"),
    row("mark_age", 6.0, "symbol"),
    row("mark_spread", 0.01, "symbol"),
    row("mark_move", 0.05, "sector", "halt"),
    row("position", 60, "symbol", "reduce"),
    row("position", 40, "strategy"),
    row("position", 10, "asset_class", "warn"),
    row("gross_exposure", 6_000, action="reduce"),
    row("gross_exposure", 4_000, "sector", "halt"),
    row("gross_exposure", 3_500, "strategy", warn=500),
    row("concentration", 3_000, unit="money"),
    row("net_exposure", 3_000),
    row("net_exposure", 0.0004, "sector", unit="equity"),
    row("beta_exposure", 2_500, action="reduce"),
    row("beta_exposure", 1_500, "strategy"),
    row("open_orders", 4),
    row("open_orders", 2, "symbol"),
    row("open_positions", 2, "strategy"),
    row("open_positions", 4),
    row("adv_share", 0.04, "symbol", "reduce"),
    row("traded_quantity", 30, "symbol", "reduce"),
    row("traded_quantity", 50, "strategy"),
    row("traded_value", 4_000, action="reduce"),
    row("traded_value", 0.0005, "sector", unit="equity"),
    row("price_collar", 0.01),
    row("price_collar_passive", 0.01),
    row("restricted", 0, "symbol", match="BBB"),
    row("market_phase", 0, "symbol", match="FUT"),
    row("duplicate_order", 1),
    row("leverage", 0.001),
    row("var_95", 900, unit="money", action="reduce"),
    row("var_99", 0.0003),
    row("var_95", 0.0001, "strategy"),
    row("es_95", 1_100, unit="money"),
    row("es_99", 0.0002, "strategy", "reduce"),
    row("stress_loss", 1_500, unit="money", action="reduce"),
    row("stress_loss", 1_200, "asset_class", unit="money"),
    row("gross_exposure", 30_000, "firm", allocation={ACCOUNT: 0.2}),
    row("gross_exposure", 100, "symbol", mode=LimitMode.SHADOW),
)
"""Equity is about 5 million, and every bound is in reach of a few dozen lots; many are over it from the start."""


@st.composite
def controls(draw: st.DrawFn) -> Control:
    scopes = st.sampled_from([Scope(), Scope(ACCOUNT), Scope(strategy="mm"), Scope(symbol="AAA")])
    modes = st.sampled_from([TradingState.REDUCE_ONLY, TradingState.REDUCE_ONLY, TradingState.HALTED])
    found = draw(st.lists(st.tuples(scopes, modes), max_size=2))
    return Control(3, tuple(Stop(scope, mode, 3, NOW_US, "ops") for scope, mode in found))


@st.composite
def situations(draw: st.DrawFn) -> tuple[AccountState, Terms, int]:
    """A book, limits and a risk model, as a rule usable; sometimes with what keeps a limit from being evaluated."""
    state, rows = draw(states()), draw(st.lists(st.sampled_from(ROWS), max_size=5, unique_by=row_key))
    if draw(st.integers(0, 5)) == 0:
        state.apply(valued({draw(symbols): draw(st.sampled_from([math.nan, 3.0, 900.0]))}))
    if draw(st.integers(0, 7)) == 0:
        latch = Latch(Scope(ACCOUNT, symbol=draw(symbols)), TradingState.REDUCE_ONLY, 3, "an overfill")
        state.apply(Latched(time_us=NOW_US, latch=latch))
    risk = draw(st.one_of(st.none(), *[models()] * 5))
    control = draw(st.one_of(*[st.just(Control())] * 3, controls()))
    age_us = draw(st.sampled_from([0, 0, 0, 0, 20 * SECOND_US]))
    return state, terms(UNIVERSE, limits(*rows), risk, control), NOW_US + age_us


def row_key(limit: Limit) -> tuple[object, ...]:
    return limit.measure, limit.scope, limit.action


def market(symbol: str, side: Side, lots: int, strategy: str = "") -> Order:
    """Without an id: asked about and never sent, so that it is nobody's duplicate."""
    instrument = UNIVERSE.instruments.get(symbol)
    quantity = lots * (instrument.lot_size if instrument is not None else 1.0)
    return Order(ACCOUNT, "", symbol, side, quantity, OrderType.MARKET, TimeInForce.DAY, strategy)


def refuses_first(record: Decided) -> str:
    refusing = [one for one in record.checks if one.action > Action.WARN and not one.shadow]
    return f"{refusing[0].measure}@{refusing[0].scope}" if refusing else ""


@settings(max_examples=250, deadline=None)
@given(situation=situations(), strategy=names, symbol=symbols, data=st.data())
def test_headroom_is_what_would_be_allowed_in_full_and_not_a_lot_more(
    situation: tuple[AccountState, Terms, int], strategy: str, symbol: str, data: st.DataObject
) -> None:
    state, under, now_us = situation

    found = headroom(state, under, strategy, symbol, now_us)

    for side, room in ((Side.BUY, found.buy), (Side.SELL, found.sell)):
        smaller = data.draw(st.lists(st.integers(1, max(1, min(room.lots, 200))), min_size=3, max_size=3))
        for lots in {room.lots, *smaller} if room.lots else ():
            record = decide(state, under, market(symbol, side, lots, strategy), now_us)
            assert record.action <= Action.WARN and record.allowed_lots == lots
        refused = decide(state, under, market(symbol, side, room.lots + 1, strategy), now_us)
        assert refused.allowed_lots <= room.lots and refused.action > Action.WARN
        assert (room.reason, room.binding) == (refused.reason, refuses_first(refused))


@settings(max_examples=60, deadline=None)
@given(state=states(), risk=models(), bound=st.integers(1, 60), symbol=symbols, name=names)
def test_of_a_book_over_its_var_the_whole_of_the_headroom_reduces(
    state: AccountState, risk: RiskModel, bound: int, symbol: str, name: str
) -> None:
    """VaR is not convex: that a reduction passes says nothing of smaller ones. Each is tried."""
    under = terms(UNIVERSE, limits(row("var_95", bound, unit="money"), row("var_99", 1.5 * bound, unit="money")), risk)

    found = headroom(state, under, name, symbol, NOW_US)

    for side, room in ((Side.BUY, found.buy), (Side.SELL, found.sell)):
        for lots in range(1, min(room.lots, 120) + 1):
            assert decide(state, under, market(symbol, side, lots, name), NOW_US).allowed_lots == lots


# --- stories with hand-written numbers -----------------------------------------------------------------------------

AAA = stock("AAA")
ONE = universe(AAA, stock("BBB"))
AT_100 = {"AAA": 100.0, "BBB": 50.0}
SLOPED = model({"AAA": [(at - 20) / 1000 for at in range(40)], "BBB": [(at * 7 % 40 - 20) / 1500 for at in range(40)]})
HALTED = Stop(Scope(), TradingState.HALTED, 1, NOW_US, "ops")
REDUCING = Stop(Scope(), TradingState.REDUCE_ONLY, 1, NOW_US, "ops")


def of(
    *rows: Limit,
    state: AccountState | None = None,
    risk: RiskModel | None = None,
    control: Control | None = None,
    armed: LimitSet | None = None,
    symbol: str = "AAA",
    now_us: int = NOW_US,
) -> Headroom:
    held = state if state is not None else account(ONE, AT_100)
    return headroom(held, terms(ONE, armed or limits(*rows), risk, control), "", symbol, now_us)


def test_the_limit_that_ends_first_is_named_on_each_side() -> None:
    state = account(ONE, AT_100, positions={"AAA": 30})

    found = of(row("position", 50, "symbol"), row("order_quantity", 70), row("gross_exposure", 4_000), state=state)

    assert found.buy == Room(10, Reason.GROSS_EXPOSURE, "gross_exposure@account:ALPHA")
    assert found.sell == Room(70, Reason.ORDER_QUANTITY, "order_quantity@account:ALPHA")


def test_of_two_limits_that_end_together_the_first_by_precedence_is_named() -> None:
    found = of(row("leverage", 0.001), row("position", 10, "symbol"))

    assert found.buy == Room(10, Reason.POSITION, "position@symbol:AAA")


def test_open_orders_count_on_their_side() -> None:
    state = account(ONE, AT_100)
    reserve(state, "working", "AAA", 20)

    found = of(row("position", 50, "symbol"), state=state)

    assert (found.buy.lots, found.sell.lots) == (30, 50)


def test_without_a_limit_in_reach_the_largest_order_there_is() -> None:
    found = of()

    assert found.buy == Room(LOTS_MAX, Reason.LOT_SIZE, "")
    assert found.sell == found.buy


def test_a_market_buy_is_valued_above_the_mark() -> None:
    found = of(row("order_value", 1_010))

    assert (found.buy.lots, found.sell.lots) == (10, 10)
    assert of(row("order_value", 1_009)).buy.lots == 9


@pytest.mark.parametrize("action", ["reject", "reduce", "halt"])
def test_whatever_a_breach_does_the_headroom_ends_before_it(action: str) -> None:
    assert of(row("position", 7, "symbol", action)).buy.lots == 7


def test_a_limit_that_only_warns_ends_nothing() -> None:
    assert of(row("gross_exposure", 500, action="warn"), row("position", 7, "symbol", warn=2)).buy.lots == 7


def test_a_limit_that_warns_or_shadows_is_not_the_one_that_binds() -> None:
    """All three speak of gross exposure, and are over their bounds at 8 lots."""
    warns = row("gross_exposure", 100, action="warn")
    shadow = row("gross_exposure", 200, mode=LimitMode.SHADOW)
    binds = row("gross_exposure", 700, "sector")

    assert of(warns, shadow, binds).buy == Room(7, Reason.GROSS_EXPOSURE, "gross_exposure@sector:unassigned")


def test_a_minimum_holds_back_what_is_smaller_and_no_exit() -> None:
    instruments = universe(stock("AAA", quantity_min=10.0))
    state = account(instruments, {"AAA": 100.0}, positions={"AAA": 4})

    wide, narrow = (
        headroom(state, terms(instruments, limits(row("position", bound, "symbol"))), "", "AAA", NOW_US)
        for bound in (30, 5)
    )

    assert wide.buy == Room(26, Reason.POSITION, "position@symbol:AAA")
    assert wide.sell == Room(34, Reason.POSITION, "position@symbol:AAA")
    assert narrow.buy == Room(0, Reason.POSITION, "position@symbol:AAA")
    assert narrow.sell == Room(4, Reason.QUANTITY_MIN, "")


def test_where_short_sales_are_marked_a_sell_ends_at_what_is_held() -> None:
    state = account(ONE, AT_100, positions={"AAA": 30})
    reserve(state, "selling", "AAA", -10)
    asked = Asked(state, terms(ONE, limits(short_sales_marked=True)), market("AAA", Side.SELL, 1), AAA, NOW_US)

    assert asked.room() == Room(20, Reason.SHORT_SALE_UNMARKED, "")
    assert set(asked.sizes) == {1, 20, 21}


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize("risk", ["usable", "missing"])
@pytest.mark.parametrize(
    "control", [Control(), Control(1, (Stop(Scope(), TradingState.REDUCE_ONLY, 1, NOW_US, "ops"),))]
)
def test_each_side_is_decided_at_three_sizes(side: Side, risk: str, control: Control) -> None:
    """One lot, the headroom, one lot more: the closed forms end where the limits do, and the rest is no search."""
    state = account(ONE, AT_100, positions={"AAA": 30})
    rows = [row("position", 50, "symbol"), row("es_95", 900, unit="money"), row("var_99", 800, unit="money")]
    under = terms(ONE, limits(*rows), SLOPED if risk == "usable" else None, control)
    asked = Asked(state, under, market("AAA", side, 1), AAA, NOW_US)

    room = asked.room()

    assert room.lots < 100
    assert set(asked.sizes) == {1, max(1, room.lots), room.lots + 1}


@pytest.mark.parametrize(
    ("control", "reason"),
    [(Control(1, (HALTED,)), Reason.TRADING_HALTED), (Control(1, (REDUCING,)), Reason.REDUCE_ONLY)],
)
def test_a_stop_leaves_what_it_lets_through(control: Control, reason: Reason) -> None:
    state = account(ONE, AT_100, positions={"AAA": 30})
    reserve(state, "closing", "AAA", -10)

    found = of(state=state, control=control)

    assert found.buy == Room(0, reason, "")
    assert found.sell == Room(20 if reason is Reason.REDUCE_ONLY else 0, reason, "")


def test_what_cannot_be_evaluated_leaves_only_true_reductions() -> None:
    state = account(ONE, AT_100, positions={"AAA": 30})

    found = of(row("var_99", 1.0), state=state)

    assert found.buy == Room(0, Reason.MODEL_MISSING, "var_99@account:ALPHA")
    assert found.sell == Room(30, Reason.MODEL_MISSING, "var_99@account:ALPHA")


def test_stale_marks_leave_only_true_reductions() -> None:
    state = account(ONE, AT_100, positions={"AAA": -4})

    found = of(state=state, now_us=NOW_US + 60 * SECOND_US)

    assert found.buy == Room(4, Reason.MARK_STALE, "mark_age@account:ALPHA")
    assert found.sell == Room(0, Reason.MARK_STALE, "mark_age@account:ALPHA")


def test_a_used_up_rate_leaves_only_true_reductions() -> None:
    state = account(ONE, AT_100)
    reserve(state, "first", "AAA", 5)
    fill(state, "first", 5)

    found = of(row("order_rate", 1), state=state)

    assert (found.buy.lots, found.sell.lots) == (0, 5)


def test_a_breached_limit_lets_the_part_through_that_lowers_it() -> None:
    state = account(ONE, AT_100, positions={"AAA": 30})

    found = of(row("gross_exposure", 2_000), state=state)

    assert (found.buy.lots, found.sell.lots) == (0, 30)
    assert found.sell.reason is Reason.GROSS_EXPOSURE


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tradeable": False}, Reason.INSTRUMENT_NOT_PERMITTED),
        ({"expiry": datetime.date(2023, 11, 13)}, Reason.INSTRUMENT_EXPIRED),
    ],
)
def test_what_may_not_be_traded_has_none(changed: dict[str, object], reason: Reason) -> None:
    instruments = universe(msgspec.structs.replace(AAA, **changed))
    state = account(instruments, {"AAA": 100.0}, positions={"AAA": 5})

    found = headroom(state, terms(instruments), "", "AAA", NOW_US)

    assert (found.buy, found.sell) == (Room(0, reason, ""), Room(0, reason, ""))


@pytest.mark.parametrize(
    ("armed", "symbol", "reason"),
    [
        (limits(), "ZZZ", Reason.INSTRUMENT_UNKNOWN),
        (limits(order_types=(OrderType.LIMIT,)), "AAA", Reason.ORDER_TYPE_NOT_PERMITTED),
        (limits(times_in_force=(TimeInForce.IOC,)), "AAA", Reason.TIME_IN_FORCE_NOT_PERMITTED),
        (LimitSet(GUARDS[:2]), "AAA", Reason.LIMIT_MISSING),
    ],
)
def test_where_a_rule_forbids_every_order_it_is_named(armed: LimitSet, symbol: str, reason: Reason) -> None:
    found = of(armed=armed, symbol=symbol)

    assert (found.buy, found.sell) == (Room(0, reason, ""), Room(0, reason, ""))


def test_a_reduction_that_raises_var_on_the_way_ends_the_headroom_there() -> None:
    """VaR at 95 % of 40 days is the second worst loss: 60 now. For q sold of AAA the three bad days lose 100 − q,
    60 − q/10 and 49 + 0.51·q: from 22 to 40 two of them lose 60 or more, before and after that only one does."""
    quiet = [0.0] * 37
    risk = model({"AAA": [-0.01, -0.001, 0.0051, *quiet], "BBB": [0.0, -0.01, -0.02, *quiet]})
    state = account(ONE, AT_100, positions={"AAA": 100, "BBB": 100})
    under = terms(ONE, limits(row("var_95", 1, unit="money")), risk)

    found = headroom(state, under, "", "AAA", NOW_US)

    assert found.sell == Room(21, Reason.VAR, "var_95@account:ALPHA")
    refused = [q for q in range(1, 101) if decide(state, under, sell(quantity=q), NOW_US).action > Action.WARN]
    assert refused == list(range(22, 41))


def test_nothing_of_the_state_is_changed() -> None:
    state = account(ONE, AT_100, positions={"AAA": 30})
    before = (state.seq, state.version, dict(state.orders), state.book.lots.tolist())

    of(row("gross_exposure", 4_000), state=state)

    assert (state.seq, state.version, dict(state.orders), state.book.lots.tolist()) == before


def test_the_order_that_is_asked_about_need_not_be_the_only_one_of_its_strategy() -> None:
    state = account(ONE, AT_100, strategies={("mm", "AAA"): 10})
    under = terms(ONE, limits(row("position", 25, "strategy")))

    mine, other = (headroom(state, under, name, "AAA", NOW_US) for name in ("mm", "rl"))

    assert (mine.buy.lots, mine.sell.lots) == (15, 35)
    assert (other.buy.lots, other.sell.lots) == (25, 25)
    assert decide(state, under, order(quantity=15, strategy="mm"), NOW_US).action is Action.ALLOW
