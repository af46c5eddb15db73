"""Short sales: what the locate allows with every open sell counted, and which sells must be marked (CHECKS 6)."""

import pytest

from engine.account import AccountState
from engine.decide import decide
from engine.headroom import headroom
from engine.instrument import AssetClass, InstrumentSet
from engine.limits import LimitSet
from engine.order import Action, Order, Reason, Side
from engine.records import ExecutionKind
from engine.utilisation import limit_uses
from tests.engine.builders import (
    NOW_US,
    account,
    fill,
    limits,
    order,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
)

ONE = universe(stock("AAA"))
LOCATE = limits(row("short_position", 100, "symbol", "reduce"))
MARKED = limits(short_sales_marked=True)


def holding(lots: int, *open_lots: int, instruments: InstrumentSet = ONE) -> AccountState:
    state = account(instruments, {"AAA": 100.0}, positions={"AAA": lots})
    for at, count in enumerate(open_lots):
        reserve(state, f"open{at}", "AAA", count)
    return state


def allowed(state: AccountState, asked: Order, armed: LimitSet, instruments: InstrumentSet = ONE) -> tuple[Reason, int]:
    record = decide(state, terms(instruments, armed), asked, NOW_US)
    return record.reason, record.allowed_lots


def test_open_sells_use_the_locate_up() -> None:
    assert allowed(holding(50, -60), sell(quantity=95), LOCATE) == (Reason.SHORT_POSITION, 90)
    assert allowed(holding(50), sell(quantity=150), LOCATE) == (Reason.NONE, 150)


def test_open_buys_give_no_locate_back_until_they_fill() -> None:
    state = holding(0, 500)
    assert allowed(state, sell(quantity=200), LOCATE) == (Reason.SHORT_POSITION, 100)

    fill(state, "open0", 100)
    assert allowed(state, sell(quantity=200), LOCATE) == (Reason.NONE, 200)


def test_a_lower_locate_stops_no_buy() -> None:
    state = holding(-150, -50)

    assert allowed(state, order(quantity=300), LOCATE) == (Reason.NONE, 300)
    assert allowed(state, sell(quantity=1), LOCATE) == (Reason.SHORT_POSITION, 0)


def test_what_is_short_at_worst_is_reported() -> None:
    (use,) = (
        one for one in limit_uses(holding(50, -60), terms(ONE, LOCATE), NOW_US) if one.measure == "short_position"
    )

    assert (use.scope, use.value, use.limit) == ("symbol:AAA", 10.0, 100.0)


@pytest.mark.parametrize(
    ("lots", "open_lots", "side", "quantity", "reason"),
    [
        (50, (), Side.SELL, 50, Reason.NONE),
        (50, (), Side.SELL, 51, Reason.SHORT_SALE_UNMARKED),
        (50, (-20,), Side.SELL, 31, Reason.SHORT_SALE_UNMARKED),  # the position alone would cover it
        (50, (-20,), Side.SELL, 30, Reason.NONE),
        (0, (500,), Side.SELL, 1, Reason.SHORT_SALE_UNMARKED),  # what may be bought yet is not owned
        (50, (), Side.SELL_SHORT, 51, Reason.NONE),
        (-50, (), Side.BUY, 500, Reason.NONE),
    ],
)
def test_a_sell_that_could_lead_below_zero_must_be_marked(
    lots: int, open_lots: tuple[int, ...], side: Side, quantity: float, reason: Reason
) -> None:
    state = holding(lots, *open_lots)

    assert allowed(state, order("AAA", side, quantity), MARKED)[0] is reason
    assert allowed(state, order("AAA", side, quantity), limits())[0] is Reason.NONE


def test_only_sells_of_equities_are_marked() -> None:
    coins = universe(stock("AAA", asset_class=AssetClass.CRYPTO))

    assert allowed(holding(0, instruments=coins), sell(quantity=5), MARKED, coins)[0] is Reason.NONE


def test_a_replaced_sell_needs_a_mark_for_what_it_adds_only() -> None:
    atomic = universe(stock("AAA", replaces_atomically=True))
    state = holding(100, -100, instruments=atomic)
    again = sell(quantity=100, replaces_client_order_id="open0", limit_price=99.0)

    assert allowed(state, again, MARKED, atomic) == (Reason.NONE, 100)
    assert allowed(state, again, MARKED)[0] is Reason.SHORT_SALE_UNMARKED  # in steps both may fill


def test_headroom_ends_where_a_sell_would_have_to_be_marked() -> None:
    state = holding(50, -20)

    assert headroom(state, terms(ONE, MARKED), "", "AAA", NOW_US).sell.lots == 30
    assert headroom(state, terms(ONE, LOCATE), "", "AAA", NOW_US).sell.lots == 130


def test_a_cancelled_sell_gives_its_locate_back() -> None:
    state = holding(0, -100)
    assert decide(state, terms(ONE, LOCATE), sell(quantity=1), NOW_US).action is Action.REJECT

    state.apply(report(state, "open0", ExecutionKind.CANCELLED))
    assert decide(state, terms(ONE, LOCATE), sell(quantity=100), NOW_US).action is Action.ALLOW
