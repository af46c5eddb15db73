"""Price collars: the side that fills at once holds for everything, the side that rests lets exits through."""

import pytest

from engine.account import AccountState
from engine.decide import decide
from engine.order import Action, Order, OrderType, Reason
from engine.records import Check, Decided, Quoted
from tests.engine.builders import NOW_US, account, limits, order, quoted, row, sell, stock, terms, universe

AAA = universe(stock("AAA"))
COLLARS = (row("price_collar", 0.05), row("price_collar_passive", 0.2))


def at(mark: float | Quoted = 100.0, positions: dict[str, int] | None = None) -> AccountState:
    return account(AAA, {"AAA": mark}, positions=positions)


def judged(asked: Order, state: AccountState | None = None) -> Decided:
    return decide(state or at(), terms(AAA, limits(*COLLARS)), asked, NOW_US)


def values(record: Decided) -> tuple[float | None, float | None]:
    found: dict[str, Check] = {one.measure: one for one in record.checks}
    return found["price_collar"].after, found["price_collar_passive"].after


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (order(limit_price=105.0), Reason.NONE),
        (order(limit_price=105.01), Reason.PRICE_COLLAR),
        (order(limit_price=80.0), Reason.NONE),
        (order(limit_price=79.99), Reason.PRICE_COLLAR_PASSIVE),
        (sell(limit_price=95.0), Reason.NONE),
        (sell(limit_price=94.99), Reason.PRICE_COLLAR),
        (sell(limit_price=120.0), Reason.NONE),
        (sell(limit_price=120.01), Reason.PRICE_COLLAR_PASSIVE),
        (order(), Reason.NONE),
        (sell(), Reason.NONE),
    ],
)
def test_a_price_is_judged_on_its_side_and_the_collar_itself_is_within(asked: Order, reason: Reason) -> None:
    assert judged(asked).reason is reason


def test_the_reference_is_the_mid_and_not_the_last_price() -> None:
    wide = at(quoted(100.0, 98.0, 106.0))
    assert values(judged(order(limit_price=105.0), wide)) == pytest.approx((3 / 102, 0.0))


@pytest.mark.parametrize("quote", [quoted(100.0, None, 140.0), quoted(100.0, 60.0, None), quoted(100.0)])
def test_a_side_alone_is_no_mid_and_the_mark_stands_in(quote: Quoted) -> None:
    assert values(judged(order(limit_price=104.0), at(quote))) == pytest.approx((0.04, 0.0))


def test_a_crossed_book_is_no_reference_and_opens_nothing() -> None:
    crossed = at(quoted(100.0, 101.0, 99.0), {"AAA": 5})

    more, out = judged(order(limit_price=100.0), crossed), judged(sell(quantity=5, limit_price=100.0), crossed)

    assert (more.reason, out.action) == (Reason.MARK_UNREASONABLE, Action.ALLOW)
    assert "crossed: bid 101, ask 99" in more.message


def test_an_exit_may_rest_anywhere_and_may_not_be_given_away() -> None:
    held = at(positions={"AAA": 10})

    target = judged(sell(quantity=10, limit_price=200.0), held)
    given_away = judged(sell(quantity=10, limit_price=50.0), held)

    assert (target.action, given_away.reason) == (Action.ALLOW, Reason.PRICE_COLLAR)


@pytest.mark.parametrize(
    ("asked", "aggressive", "passive"),
    [
        # a buy stop above the market waits for it to come; then it is a market order, which has no price
        (order(order_type=OrderType.STOP, stop_price=130.0), 0.0, 0.3),
        (sell(order_type=OrderType.STOP, stop_price=70.0), 0.0, 0.3),
        # the limit counts from where the stop sends it
        (order(limit_price=133.9, order_type=OrderType.STOP_LIMIT, stop_price=130.0), 0.03, 0.3),
        (sell(limit_price=67.9, order_type=OrderType.STOP_LIMIT, stop_price=70.0), 0.03, 0.3),
        # a stop that the market has passed already sends it at once
        (order(limit_price=104.0, order_type=OrderType.STOP_LIMIT, stop_price=90.0), 0.04, 0.0),
        (sell(limit_price=96.0, order_type=OrderType.STOP_LIMIT, stop_price=110.0), 0.04, 0.0),
        # a limit on the near side of its stop rests where the market comes from
        (order(limit_price=104.0, order_type=OrderType.STOP_LIMIT, stop_price=130.0), 0.0, 0.3),
    ],
)
def test_a_stop_is_judged_by_how_far_it_is_and_its_limit_from_there(
    asked: Order, aggressive: float, passive: float
) -> None:
    assert values(judged(asked)) == pytest.approx((aggressive, passive))
