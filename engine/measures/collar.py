"""Price collars: how far an order's price lies beyond the market, and how far from it (CHECKS 11).

The aggressive side is a fat finger: a buy priced over the market, a sell under it, fills at once and at that price, and
a reduction does so too. The passive side is a price that can't have been meant, and rests. No size mends either.
"""

from engine.limits import ScopeKind, Unit
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Unevaluable, refuse_missing_price
from engine.order import OrderType, Reason


def _reference(case: Case) -> float:
    """Mid, else the mark: the last trade, or the one side that is quoted. A crossed book has no mid to trust."""
    prices, slot = case.state.prices, case.slot
    mark: float = prices.mark.item(slot)
    if mark <= 0.0:
        refuse_missing_price(case.state, case.instrument.symbol)
    bid: float = prices.bid.item(slot)
    ask: float = prices.ask.item(slot)
    if not (bid and ask):
        return mark
    if bid > ask:
        raise Unevaluable(Reason.MARK_UNREASONABLE, f"{case.instrument.symbol} is crossed: bid {bid:g}, ask {ask:g}")
    return (bid + ask) / 2.0


def _stop(case: Case) -> float | None:
    stops = case.order.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    return case.order.stop_price if stops else None


def _market_met(case: Case) -> float:
    """Where the market is when the limit price begins to count: now, or where the stop sends the order, if that lies
    further on its side."""
    reference, stop = _reference(case), _stop(case)
    if stop is None:
        return reference
    return max(reference, stop) if case.sign > 0 else min(reference, stop)


def _beyond(case: Case, price: float, market: float) -> float:
    """By what share of the market a price is worse for the order: above 0 for a buy over it and a sell under it."""
    return case.sign * (price - market) / market


def _aggressive(case: Case, armed: Armed) -> Reading:
    """buy ≤ market·(1 + b), sell ≥ market·(1 − b). 0 for an order without a limit price: it has no price to be wrong,
    and `order_value` judges it at the worst one."""
    if case.order.limit_price is None:
        return 0.0, 0.0, 0
    return 0.0, max(0.0, _beyond(case, case.order.limit_price, _market_met(case))), case.own_age_us


def _passive(case: Case, armed: Armed) -> Reading:
    """The other way round for a limit price; for a stop price, how far the market has to go until it triggers."""
    apart = 0.0
    if case.order.limit_price is not None:
        apart = max(apart, -_beyond(case, case.order.limit_price, _market_met(case)))
    stop = _stop(case)
    if stop is not None:
        apart = max(apart, _beyond(case, stop, _reference(case)))
    return 0.0, apart, case.own_age_us


_ANY_BUT_FIRM = frozenset(ScopeKind) - {ScopeKind.FIRM}

PRICE_COLLAR = Measure(
    "price_collar", Reason.PRICE_COLLAR, Family.FAT_FINGER, (Unit.FRACTION,), _ANY_BUT_FIRM, _aggressive
)
PRICE_COLLAR_PASSIVE = Measure(
    "price_collar_passive", Reason.PRICE_COLLAR_PASSIVE, Family.INPUT, (Unit.FRACTION,), _ANY_BUT_FIRM, _passive
)
