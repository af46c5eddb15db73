"""Whose fault a breach is: an approval's, which is a defect, or that of prices and fills."""

import msgspec
import pytest

from engine.utilisation import LimitUse, UseStatus
from gateway.worker.worker import Breaches, reduces
from tests.engine.builders import NOW_US, account, approval, order, sell, stock, universe

ONE = universe(stock("AAA"))


def use(value: float, limit: float = 1.0) -> LimitUse:
    status = UseStatus.BREACHED if value > limit else UseStatus.OK
    return LimitUse("leverage", "account:A", value, None, limit, "equity", True, status)


def test_a_limit_that_an_approval_took_past_its_bound_is_an_active_breach_once() -> None:
    breaches = Breaches()

    breaches.judge([use(1.1)], lambda crossed: True)
    breaches.judge([use(1.2)], lambda crossed: True)

    assert (breaches.active, breaches.passive) == (1, 0)


def test_a_limit_that_prices_took_past_its_bound_is_a_passive_breach_each_time_it_crosses() -> None:
    breaches = Breaches()

    for value in (1.1, 0.9, 1.1):
        breaches.judge([use(value)])

    assert (breaches.active, breaches.passive) == (0, 2)


@pytest.mark.parametrize(("lots", "truly"), [(40, True), (100, True), (101, False)])
def test_what_was_allowed_reduces_if_it_closes_no_more_than_is_held(lots: int, truly: bool) -> None:
    state = account(ONE, {"AAA": 10.0}, strategies={("rl", "AAA"): 100, ("mm", "AAA"): 5})
    allowed = approval(sell(quantity=200, strategy="rl"), lots)
    state.apply(msgspec.structs.replace(allowed, time_us=NOW_US))

    assert reduces(state, allowed, "strategy:rl") is truly
    assert reduces(state, allowed, "account:A")


def test_a_buy_of_what_is_held_long_does_not_reduce() -> None:
    state = account(ONE, {"AAA": 10.0}, positions={"AAA": 100})
    allowed = approval(order(quantity=1), 1)
    state.apply(allowed)

    assert not reduces(state, allowed, "account:A")
