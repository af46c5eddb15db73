"""Net and beta exposure at the worse end, with hand-written numbers; the properties stand in test_measures."""

import pytest

from engine.account import AccountState
from engine.decide import decide
from engine.limits import Limit
from engine.order import Action, Order, Reason
from engine.records import Decided
from engine.risk.model import RiskModel
from tests.engine.builders import NOW_US, account, limits, model, order, reserve, row, sell, stock, terms, universe

TWO = universe(stock("AAA", beta=1.5), stock("BBB"))
MARKS = {"AAA": 100.0, "BBB": 50.0}
MODEL = model({"AAA": [0.0] * 20, "BBB": [0.0] * 20}, betas={"AAA": 9.0, "BBB": -0.5})


def judged(asked: Order, limit: Limit, state: AccountState, risk: RiskModel | None = MODEL) -> Decided:
    return decide(state, terms(TWO, limits(limit), risk), asked, NOW_US)


def values(asked: Order, name: str, state: AccountState) -> tuple[float | None, float | None]:
    found = next(one for one in judged(asked, row(name, 1e12), state).checks if one.measure == name)
    return found.before, found.after


def test_long_and_short_positions_net_and_open_orders_do_not() -> None:
    """+1000 and −750 are 250 net; the open sell may take it to −550, the open buy to 650: the larger is 650."""
    state = account(TWO, MARKS, positions={"AAA": 10, "BBB": -15})
    reserve(state, "sell", "AAA", -8)
    reserve(state, "buy", "BBB", 8)

    assert values(order(quantity=2), "net_exposure", state) == (650.0, 850.0)
    assert values(sell(quantity=2), "net_exposure", state) == (650.0, 750.0)


def test_beta_weighs_and_turns_the_side() -> None:
    """1.5 × 1000 long, and 750 short of what falls when the market rises: 375 more."""
    state = account(TWO, MARKS, positions={"AAA": 10, "BBB": -15})

    assert values(order(quantity=2), "beta_exposure", state) == (1875.0, 2175.0)
    assert values(sell("BBB", quantity=2), "beta_exposure", state) == (1875.0, 1925.0)
    assert values(order("BBB", quantity=2), "beta_exposure", state) == (1875.0, 1875.0)


def test_an_instruments_own_beta_needs_no_model_and_a_missing_one_refuses() -> None:
    state = account(TWO, MARKS)
    limit = row("beta_exposure", 1e9)
    strange = model({"AAA": [0.0] * 20, "BBB": [0.0] * 20})

    assert judged(order(), limit, state, None).action is Action.ALLOW
    assert judged(order("BBB"), limit, state, None).reason is Reason.MODEL_MISSING
    assert judged(order("BBB"), limit, state, strange).reason is Reason.BETA_MISSING


def test_a_missing_beta_of_what_is_held_refuses_all_and_lets_out() -> None:
    state = account(TWO, MARKS, positions={"BBB": 5})
    limit, strange = row("beta_exposure", 1e9), model({"AAA": [0.0] * 20, "BBB": [0.0] * 20})

    more, out = judged(order(), limit, state, strange), judged(sell("BBB", quantity=5), limit, state, strange)

    assert (more.reason, out.action) == (Reason.BETA_MISSING, Action.ALLOW)
    assert "BBB has no beta" in more.message


@pytest.mark.parametrize(
    ("asked", "lots"), [(order(quantity=20), 5), (sell(quantity=35), 25), (sell("BBB", quantity=60), 50)]
)
def test_each_side_is_cut_to_its_own_room(asked: Order, lots: int) -> None:
    """1000 long, and 1500 allowed either way."""
    state = account(TWO, MARKS, positions={"AAA": 10})
    record = judged(asked, row("net_exposure", 1500, action="reduce"), state)

    assert (record.action, record.allowed_lots) == (Action.REDUCE, lots)


def test_over_the_bound_what_lowers_it_passes_and_what_hedges_by_opening_does_not() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    limit = row("net_exposure", 500)

    closes, hedges = judged(sell(quantity=3), limit, state), judged(sell("BBB", quantity=3), limit, state)

    assert (closes.action, hedges.reason) == (Action.ALLOW, Reason.NET_EXPOSURE)


def test_what_has_no_beta_to_speak_of_is_not_trapped_by_the_bound() -> None:
    state, limit = account(TWO, MARKS, positions={"AAA": 10, "BBB": 10}), row("beta_exposure", 100.0)
    flat = model({"AAA": [0.0] * 20, "BBB": [0.0] * 20}, betas={"AAA": 9.0, "BBB": 0.0})

    assert judged(sell("BBB", quantity=10), limit, state, flat).action is Action.ALLOW
    assert judged(order("BBB"), limit, state, flat).reason is Reason.BETA_EXPOSURE


def test_closing_the_hedge_of_what_is_over_is_no_reduction() -> None:
    """−500 net of 400 allowed: selling the 500 that are long doubles it."""
    state = account(TWO, MARKS, positions={"AAA": 5, "BBB": -20})

    assert judged(sell(quantity=5), row("net_exposure", 400), state).reason is Reason.NET_EXPOSURE
