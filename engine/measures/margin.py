"""The measure of buying power: what positions and open orders require, of what there is (CHECKS 30).

required(positions and open orders at worst case, the order joined) + their fees and what they pay beyond the mark
≤ equity less haircuts on foreign cash. Nothing is booked: it is computed from what is open, so that a cancel, a reject
or a fill releases exactly once. Per symbol the worse end requires; offsets between symbols (covered calls, spreads)
are not taken. Initial margin: an instrument's own per lot (futures), else the policy's rate of value; a written option
as in `written_option_margin`, a bought one its premium.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from engine.account import AccountState, Floats, OpenOrder
from engine.instrument import Instrument, OptionRight, OptionTerms
from engine.limits import Limit, Policy, ScopeKind, Unit
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, Unevaluable, scope_label
from engine.order import OrderType, Reason
from engine.view import View

PAID_IN_FULL = 1.0
"""Rate of what the policy names neither by symbol nor by class: no loan is assumed."""

WRITTEN_OPTION_RATE = 0.2
"""Of the underlying, FINRA Rule 4210(f)(2)(E): equity options; half of it is the least."""

_FIT_SLACK = 1e-9
"""Lots: a room of 6.9999999999 lots is 7; decide tries the result again and gives up a lot where it is not."""


class PerLot(NamedTuple):
    """(slots,) each: base currency required of a lot."""

    long: Floats
    short: Floats
    fee: Floats


def written_option_margin(terms: OptionTerms, spot: float, rate: float = WRITTEN_OPTION_RATE) -> float:
    """What an uncovered written option requires beside its market value, per unit, in its currency.

    max(rate·S − out-of-the-money amount, rate/2·S of a call, rate/2·K of a put): FINRA Rule 4210(f)(2)(E), Cboe Margin
    Manual, short put or call. The option's market value is added there; here equity has it deducted already.
    """
    call = terms.right is OptionRight.CALL
    out_of_money = max(0.0, terms.strike - spot if call else spot - terms.strike)
    return max(rate * spot - out_of_money, rate / 2.0 * (spot if call else terms.strike))


def margin_per_lot(survey: Survey) -> PerLot:
    """Of all symbols of the account, cached until a mark, the policy or the instruments change."""
    state, values, policy = survey.state, survey.values, survey.policy
    cached: tuple[object, object, object, PerLot] | None = state.derived.get("margin")
    if (
        cached is not None
        and cached[0] is values
        and cached[1] is policy
        and cached[2] is survey.instruments
        and len(cached[3].long) == len(state.slots)
    ):
        return cached[3]
    marked = state.unit_values()
    long, short, fee = marked.copy(), marked.copy(), np.zeros(len(marked))
    for symbol, slot in state.slots.items():
        instrument = survey.instruments.get(symbol)
        if instrument is None:
            continue  # nobody knows its class any more: in full
        value = marked.item(slot)
        fee[slot] = value * _named(policy.fee_rates, instrument, 0.0)
        long[slot], short[slot] = _required(state, instrument, slot, value, policy)
    found = PerLot(long, short, fee)
    state.derived["margin"] = (values, policy, survey.instruments, found)
    return found


def _required(
    state: AccountState, instrument: Instrument, slot: int, value: float, policy: Policy
) -> tuple[float, float]:
    """Of a lot that is held, and of one that is sold short."""
    if instrument.option is not None:
        spot_slot = state.slots.get(instrument.underlying)
        spot = 0.0 if spot_slot is None else state.prices.mark.item(spot_slot)
        rate = _named(policy.margin_rates, instrument, WRITTEN_OPTION_RATE)
        per_unit = written_option_margin(instrument.option, spot, rate)
        return value, state.unit.item(slot) * per_unit * state.prices.fx.item(slot)
    if instrument.initial_margin > 0.0:
        return (instrument.initial_margin * state.prices.fx.item(slot),) * 2
    return (value * _named(policy.margin_rates, instrument, PAID_IN_FULL),) * 2


def _named(rates: dict[str, float], instrument: Instrument, otherwise: float) -> float:
    """The rate of a symbol, else of its class."""
    return rates.get(instrument.symbol, rates.get(str(instrument.asset_class), otherwise))


def buying_power(survey: Survey) -> float:
    """Equity less the haircut on foreign cash, held or owed, base currency. Raises Unevaluable where it is not above
    0."""
    state, haircut = survey.state, survey.policy.cash_haircut
    equity = survey.equity()
    foreign = math.fsum(
        abs(amount * state.rate_of(currency))
        for currency, amount in state.cash.items()
        if currency != state.base_currency
    )
    free = equity - haircut * foreign
    if not free > 0.0:
        note = f"equity less haircuts on foreign cash is {free:.2f} {state.base_currency}"
        raise Unevaluable(Reason.EQUITY_NOT_POSITIVE, note)
    return free


def required(view: View, per_lot: PerLot) -> float:
    """Σ of each symbol's worse end, base currency."""
    ends = np.maximum(view.stake.high * per_lot.long, -view.stake.low * per_lot.short)
    return float(ends.sum())


def open_costs(survey: Survey, per_lot: PerLot) -> float:
    """Fees of the open orders, and what they may pay beyond the mark when they fill, base currency."""
    state = survey.state
    key = state.version, survey.policy, per_lot.fee
    cached: tuple[tuple[object, ...], float] | None = state.derived.get("open_costs")
    if cached is not None and cached[0][0] == key[0] and cached[0][1] is key[1] and cached[0][2] is key[2]:
        return cached[1]
    costs = math.fsum(order.counted * _order_cost(survey, per_lot, order) for order in state.orders.values())
    state.derived["open_costs"] = (key, costs)
    return costs


def _order_cost(survey: Survey, per_lot: PerLot, order: OpenOrder) -> float:
    slot = survey.state.slots[order.symbol]
    return per_lot.fee.item(slot) + beyond_mark(survey, slot, order.sign, order.order_type, order.limit_price)


def beyond_mark(survey: Survey, slot: int, sign: int, order_type: OrderType, limit_price: float | None) -> float:
    """What a lot loses against the mark where it fills at its worst price, base currency: a limit order at its limit,
    any other at the far side with the policy's slippage."""
    state, slippage = survey.state, survey.policy.market_slippage
    mark = state.prices.mark.item(slot)
    if limit_price is not None and order_type in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        worst = limit_price
    elif sign > 0:
        worst = (state.prices.ask.item(slot) or mark) * (1.0 + slippage)
    else:
        worst = (state.prices.bid.item(slot) or mark) * (1.0 - slippage)
    lost = sign * (worst - mark)
    return 0.0 if lost <= 0.0 else lost * state.unit.item(slot) * state.prices.fx.item(slot)  # NaN stays one


class _Weighed(NamedTuple):
    """An account without the order, and what a lot of the order costs beside its margin."""

    others: float
    """Required of the other symbols, and the costs of what is open."""
    long: float
    """Of a lot of the order's symbol, held; `short`: sold short."""
    short: float
    cost: float
    divisor: float
    """Buying power, or 1 where the row counts money."""

    def required(self, low: int, high: int) -> float:
        return self.others + max(high * self.long, -low * self.short)


def _weighed(case: Case, armed: Armed) -> _Weighed:
    view = case.of(armed)
    case.delta_value()  # raises where the order's own symbol can't be valued
    per_lot, slot, order = margin_per_lot(case), case.slot, case.order
    long, short = per_lot.long.item(slot), per_lot.short.item(slot)
    own = max(view.stake.high.item(slot) * long, -view.stake.low.item(slot) * short)
    others = required(view, per_lot) - own + (open_costs(case, per_lot) if view.open_orders else 0.0)
    cost = per_lot.fee.item(slot) + beyond_mark(case, slot, case.sign, order.order_type, order.limit_price)
    divisor = buying_power(case) if armed.unit is Unit.FRACTION else 1.0
    return _Weighed(others, long, short, cost, divisor)


def _ends(case: Case, view: View) -> tuple[int, int]:
    """The lowest and highest position in the order's symbol without it, lots."""
    return int(view.stake.low.item(case.slot)), int(view.stake.high.item(case.slot))


def _margin(case: Case, armed: Armed) -> Reading:
    weighed, view = _weighed(case, armed), case.of(armed)
    before = weighed.required(*_ends(case, view))
    after = weighed.required(*case.ends(view.book, view.open_orders)) + case.joining * weighed.cost
    return before / weighed.divisor, after / weighed.divisor, case.mark_age_us


def _margin_fit(case: Case, armed: Armed, bound: float) -> int:
    """The most lots: the order moves one end, and costs beside."""
    weighed = _weighed(case, armed)
    low, high = _ends(case, case.of(armed))
    room = bound * weighed.divisor - weighed.others
    long, short = weighed.long, weighed.short
    moved, per_lot, still = (high, long, -low * short) if case.sign > 0 else (-low, short, high * long)
    by_end = (room - moved * per_lot) / (per_lot + weighed.cost) if per_lot + weighed.cost > 0.0 else math.inf
    by_cost = (room - still) / weighed.cost if weighed.cost > 0.0 else math.inf if still <= room else 0.0
    lots = min(by_end, by_cost)
    return case.joining if lots >= case.joining else max(0, int(lots + _FIT_SLACK))


def _margin_filled(case: Case, armed: Armed) -> float:
    """What is paid for the exit itself is not what it requires."""
    weighed = _weighed(case, armed)
    return weighed.required(*case.ends_filled(case.of(armed).book)) / weighed.divisor


def _margin_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    view, per_lot = survey.view("", None, row.open_orders), margin_per_lot(survey)
    money = required(view, per_lot) + (open_costs(survey, per_lot) if row.open_orders else 0.0)
    divisor = buying_power(survey) if (row.unit or Unit.FRACTION) is Unit.FRACTION else 1.0
    yield scope_label(row.scope, account, "", None), money / divisor


MARGIN = Measure(
    "margin",
    Reason.MARGIN,
    Family.PORTFOLIO,
    (Unit.FRACTION, Unit.MONEY),
    frozenset({ScopeKind.ACCOUNT}),
    _margin,
    _margin_fit,
    _margin_filled,
    _margin_now,
)
