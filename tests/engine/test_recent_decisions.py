"""What an account keeps of its latest decisions. That replays and forks keep the same stands in `test_account`."""

from engine.account import RECENT_MAX, AccountState
from engine.order import Action, Reason
from tests.engine.builders import account, approval, order, stock, universe

ONE = universe(stock("AAA"))


def decided_times(count: int) -> AccountState:
    """An account in which `count` orders of 5 were allowed, named o0, o1 and so on."""
    state = account(ONE, {"AAA": 100.0})
    for number in range(count):
        state.apply(approval(order(quantity=5.0, client_order_id=f"o{number}"), 5))
    return state


def test_a_decision_is_kept_with_its_place_in_the_log_and_its_reason() -> None:
    state = decided_times(1)

    (recent,) = state.recent
    assert (recent.seq, recent.order.client_order_id, recent.order.quantity) == (state.seq, "o0", 5.0)
    assert (recent.action, recent.reason, recent.allowed_lots) == (Action.ALLOW, Reason.NONE, 5)


def test_only_the_latest_are_kept_and_in_order() -> None:
    state = decided_times(RECENT_MAX + 3)

    assert [recent.order.client_order_id for recent in state.recent] == [f"o{n}" for n in range(3, RECENT_MAX + 3)]
    assert state.recent[-1].seq == state.seq
