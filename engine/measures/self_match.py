"""Self-match: an order that would trade with an open order of the same account (CHECKS 21).

Within an account, whichever strategy the other order is of. Across accounts nothing is looked at: no gateway holds all
of them, and a limit of scope firm is refused. A true reduction passes, as it does by every limit that is no fat finger.
"""

from engine.account import OpenOrder
from engine.limits import ScopeKind, Unit
from engine.measures.measure import Armed, Case, Family, Measure, Reading
from engine.order import OrderType, Reason

_TRIGGERED = (OrderType.STOP, OrderType.STOP_LIMIT)


def _self_match(case: Case, armed: Armed) -> Reading:
    """1 where an open order of the other side, in the order's symbol, would meet its price."""
    return 0.0, 0.0 if _met(case) is None else 1.0, 0


def _met(case: Case) -> OpenOrder | None:
    """The oldest open order that it would meet."""
    for other in case.state.orders.values():
        if other.symbol == case.order.symbol and other.sign != case.sign and _rests(other) and _crosses(case, other):
            return other
    return None


def _rests(other: OpenOrder) -> bool:
    """Whether it may be in the venue's book: not while it waits for its trigger, nor once the venue is done with it."""
    return not other.closing and other.order_type not in _TRIGGERED


def _crosses(case: Case, other: OpenOrder) -> bool:
    """Whether the order's price reaches the other's. One without a limit price reaches any; a stop order is judged as
    what it becomes. An order whose price nobody told (one that a broker's snapshot brought) is reached by any."""
    price = case.order.limit_price
    if price is None or other.limit_price is None:
        return True
    return (price - other.limit_price) * case.sign >= 0.0


def _say(case: Case) -> str:
    other = _met(case)
    assert other is not None, "said of a breach only"
    return f"it would trade with {other.client_order_id}, an open order of the same account; cancel that one first"


SELF_MATCH = Measure(
    "self_match",
    Reason.SELF_MATCH,
    Family.INPUT,
    (Unit.RULE,),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL}),
    _self_match,
    say=_say,
)
