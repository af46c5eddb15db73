"""The least that may be sent in one order: the instrument's least quantity and the limit set's least value (CHECKS 10).

Pure. What a minimum means for an order, and that it never stands in the way of a true reduction, is `engine.decide`'s:
floors that block exits trap people in positions.
"""

import math
from dataclasses import dataclass

from engine.account import AccountState
from engine.instrument import GRID_SLACK, Instrument
from engine.limits import Policy
from engine.measures.measure import refuse_missing_price
from engine.order import Order, Reason


@dataclass(frozen=True, slots=True)
class Least:
    """The fewest lots of an order, the rule that says so, and the rule in words."""

    lots: int
    reason: Reason
    rule: str


def least_of(state: AccountState, policy: Policy, order: Order, instrument: Instrument) -> Least | None:
    """The stricter of both minima for an order of this symbol and price, of whatever size; None where there is none.

    Raises Unevaluable where the least value needs a mark or a rate that is missing.
    """
    found = _by_quantity(instrument) if instrument.quantity_min > 0.0 else None
    if policy.order_value_min > 0.0:
        by_value = _by_value(state, policy, order, instrument)
        found = by_value if found is None or by_value.lots > found.lots else found
    return found


def _by_quantity(instrument: Instrument) -> Least:
    lots = _at_least(instrument.quantity_min / instrument.lot_size)
    rule = f"the least quantity of {instrument.symbol}, {instrument.quantity_min:g}"
    return Least(lots, Reason.QUANTITY_MIN, rule)


def _by_value(state: AccountState, policy: Policy, order: Order, instrument: Instrument) -> Least:
    """At the order's own price, as venues judge it; a market order at the mark."""
    slot = state.slots[instrument.symbol]
    price = order.limit_price or order.stop_price or state.prices.mark.item(slot)
    value = price * instrument.unit * state.prices.fx.item(slot)
    if not value > 0.0:
        refuse_missing_price(state, instrument.symbol)
    lots = _at_least(policy.order_value_min / value)
    rule = f"the least value of an order, {policy.order_value_min:,.2f} {state.base_currency}"
    return Least(lots, Reason.ORDER_VALUE_MIN, rule)


def _at_least(lots: float) -> int:
    return max(1, math.ceil(lots * (1.0 - GRID_SLACK)))
