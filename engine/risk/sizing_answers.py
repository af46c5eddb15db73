"""SizePosition: how large a strategy's position in a symbol should be, and how much of that the limits leave.

In two steps: `size_case` reads the account (its book, its headroom, the model's days) and is done where the state is
kept; `size_answer` computes from these values alone, anywhere. The formulas are engine/sizing.py's, the room is
engine/headroom.py's: nothing is reserved, and nothing promised for later. What is missing raises Unanswerable, an
argument that fits nothing here InquiryError.
"""

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from engine import sizing
from engine.account import AccountState, Floats, book_key
from engine.decide import Terms
from engine.headroom import Room, headroom
from engine.instrument import AssetClass
from engine.measures.measure import Survey, Unevaluable
from engine.measures.volatility import DAYS_A_YEAR, DEVIATION_DAYS_MIN
from engine.order import Reason
from engine.risk.inquiry import InquiryError, Stamp, Unanswerable
from engine.risk.var import value_at_risk


class SizingMethod(enum.StrEnum):
    KELLY = "kelly"
    KELLY_BINARY = "kelly_binary"
    VOLATILITY_TARGET = "volatility_target"
    FIXED_RISK = "fixed_risk"
    FIXED_FRACTION = "fixed_fraction"
    RISK_BUDGET = "risk_budget"
    KELLY_PORTFOLIO = "kelly_portfolio"


FRACTIONS: Mapping[SizingMethod, float] = {
    SizingMethod.KELLY: 0.5,
    SizingMethod.KELLY_BINARY: 0.5,
    SizingMethod.VOLATILITY_TARGET: 1.0,
    SizingMethod.FIXED_RISK: 0.01,
    SizingMethod.FIXED_FRACTION: 0.02,
    SizingMethod.RISK_BUDGET: 1.0,
    SizingMethod.KELLY_PORTFOLIO: 0.5,
}
"""Taken where none is asked for."""

VAR_CONFIDENCE = 0.99
"""Of the position's own VaR that a risk budget is held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeInquiry:
    """What is asked; rates, returns and volatilities per year as decimals. None: the default, or the model's."""

    account: str
    symbol: str
    method: SizingMethod
    strategy: str = ""
    expected_return: float = 0.0
    riskless_rate: float = 0.0
    volatility: float | None = None
    win_probability: float = 0.0
    win_ratio: float = 0.0
    loss_ratio: float = 0.0
    target_volatility: float = 0.0
    loss_given_stop: float = 0.0
    average_true_range: float = 0.0
    """In the instrument's currency, in place of `loss_given_stop` where above 0."""
    stop_multiple: float = 2.0
    risk_budget: float = 0.0
    fraction: float | None = None
    confidence: float = 1.0
    cap: float = 1.0
    short_allowed: bool = False
    short_position: bool = False
    """Aim at a short position; for the methods that know no edge."""
    others: Mapping[str, float] | None = None
    """KELLY_PORTFOLIO: expected returns of the other instruments."""


@dataclass(frozen=True, slots=True, eq=False)
class SizeCase:
    """An account and a symbol as they are asked about."""

    stamp: Stamp
    equity: float
    """Base currency, above 0."""
    price: float
    """The mark, in the instrument's currency."""
    lot_value: float
    """Of one lot at the mark, base currency."""
    lot_size: float
    held: int
    low: int
    """Lots of the strategy where all that is open to sell fills, and nothing else."""
    high: int
    buy: Room
    sell: Room
    is_option: bool
    days: Mapping[str, Floats]
    """(days,) daily P&L of each symbol, per unit of its value at the mark; only those whose days are known."""
    unknown: Mapping[str, str]
    """Why there are none for the others."""


@dataclass(frozen=True, slots=True)
class SizeAnswer:
    stamp: Stamp
    full_ratio: float
    """Share of equity before fraction, confidence and cap."""
    target_ratio: float
    target_lots: int
    held_lots: int
    wanted_lots: int
    """Of the order that would lead there, signed."""
    allowed_lots: int
    """What the limits leave of it, 0 or more."""
    lot_size: float
    reason: Reason
    """What left less than wanted; NONE: nothing did."""
    binding: str
    volatility: float
    """A year, as it was used; 0: none was."""
    weights: tuple[tuple[str, float], ...] = ()
    """KELLY_PORTFOLIO: every instrument's target, the symbol's own first."""


# --- reading the account ------------------------------------------------------------------------------------------


def size_case(state: AccountState, terms: Terms, inquiry: SizeInquiry, stamp: Stamp, now_us: int) -> SizeCase:
    """`state` lists the symbol, at the newest marks. Raises Unanswerable, InquiryError."""
    symbol = inquiry.symbol
    instrument = terms.instruments.get(symbol)
    if instrument is None or symbol not in state.slots:
        raise InquiryError("symbol", f"{symbol!r} is not registered; operators add it with RegisterInstruments")
    for other in inquiry.others or {}:
        one = terms.instruments.get(other)
        if one is None or one.asset_class is AssetClass.OPTION:
            what = "is not registered" if one is None else "is an option, which mean and variance do not size"
            raise InquiryError("others", f"{other!r} {what}")
    slot = state.slots[symbol]
    lot_value, equity = state.at_marks().unit_values.item(slot), state.equity()
    if not (math.isfinite(lot_value) and lot_value > 0.0):
        raise Unanswerable(f"no mark, or no rate to {state.base_currency}, for {symbol}; publish one")
    if not (math.isfinite(equity) and equity > 0.0):
        raise Unanswerable(f"equity is {equity:.2f} {state.base_currency}: shares of it can't be taken")
    found = headroom(state, terms, inquiry.strategy, symbol, now_us)
    book = state.book_of(book_key(inquiry.strategy))
    low, high = book.interval(slot)
    days, unknown = _days(state, terms, inquiry, now_us)
    return SizeCase(
        stamp=stamp,
        equity=equity,
        price=state.prices.mark.item(slot),
        lot_value=lot_value,
        lot_size=instrument.lot_size,
        held=book.lots.item(slot),
        low=low,
        high=high,
        buy=found.buy,
        sell=found.sell,
        is_option=instrument.asset_class is AssetClass.OPTION,
        days=days,
        unknown=unknown,
    )


def _days(
    state: AccountState, terms: Terms, inquiry: SizeInquiry, now_us: int
) -> tuple[dict[str, Floats], dict[str, str]]:
    """What the model has of the symbols asked about, and why not of the others. An option's column is P&L per unit of
    a reference: it becomes a share of the option's own value."""
    asked = (inquiry.symbol, *(inquiry.others or {}))
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    try:
        model = survey.usable_model()
    except Unevaluable as missing:
        return {}, dict.fromkeys(asked, missing.note)
    days: dict[str, Floats] = {}
    unknown: dict[str, str] = {}
    for symbol in asked:
        at, slot = model.column.get(symbol), state.slots.get(symbol)
        if at is None or not model.has_history[at] or model.n_days < DEVIATION_DAYS_MIN:
            unknown[symbol] = f"{symbol} has too little price history in the risk model, and no proxy"
        elif slot is not None and slot in survey.values.faults:
            unknown[symbol] = survey.values.faults[slot].note
        else:
            column: Floats = model.returns[: model.n_days, at].copy()
            if slot is not None and not survey.values.linear:
                column *= survey.values.scenario.item(slot) / state.at_marks().unit_values.item(slot)
            days[symbol] = column
    return days, unknown


# --- computing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sized:
    full_ratio: float
    target_ratio: float
    volatility: float = 0.0
    weights: tuple[tuple[str, float], ...] = ()


def size_answer(case: SizeCase, inquiry: SizeInquiry) -> SizeAnswer:
    """Raises Unanswerable where days are missing, ValueError like engine.sizing on an argument out of range."""
    sized = _portfolio(case, inquiry) if inquiry.method is SizingMethod.KELLY_PORTFOLIO else _alone(case, inquiry)
    target = sizing.whole_lots(sized.target_ratio, case.equity, case.lot_value)
    wanted = sizing.order_lots(target, case.low, case.high)
    room = case.buy if wanted > 0 else case.sell
    allowed = min(abs(wanted), room.lots)
    cut = allowed < abs(wanted)
    return SizeAnswer(
        stamp=case.stamp,
        full_ratio=sized.full_ratio,
        target_ratio=sized.target_ratio,
        target_lots=target,
        held_lots=case.held,
        wanted_lots=wanted,
        allowed_lots=allowed,
        lot_size=case.lot_size,
        reason=room.reason if cut else Reason.NONE,
        binding=room.binding if cut else "",
        volatility=sized.volatility,
        weights=sized.weights,
    )


def _alone(case: SizeCase, inquiry: SizeInquiry) -> _Sized:
    volatility = _volatility(case, inquiry) if inquiry.method in _OF_VOLATILITY else 0.0
    full = _FULL[inquiry.method](case, inquiry, volatility)
    if inquiry.method not in _OF_EDGE and inquiry.short_position:
        full = -full
    target = sizing.scaled(full, _fraction(inquiry), inquiry.confidence, inquiry.cap)
    return _Sized(full, target, volatility)


def _kelly(case: SizeCase, inquiry: SizeInquiry, volatility: float) -> float:
    return sizing.kelly(inquiry.expected_return, inquiry.riskless_rate, volatility, inquiry.short_allowed)


def _kelly_binary(case: SizeCase, inquiry: SizeInquiry, volatility: float) -> float:
    return sizing.kelly_binary(inquiry.win_probability, inquiry.win_ratio, inquiry.loss_ratio, inquiry.short_allowed)


def _volatility_target(case: SizeCase, inquiry: SizeInquiry, volatility: float) -> float:
    return sizing.volatility_target(inquiry.target_volatility, volatility)


def _fixed_risk(case: SizeCase, inquiry: SizeInquiry, volatility: float) -> float:
    if inquiry.average_true_range:
        stop = sizing.stop_distance(inquiry.average_true_range, inquiry.stop_multiple, case.price)
        return sizing.fixed_risk(stop)
    return sizing.fixed_risk(inquiry.loss_given_stop)


def _fixed_fraction(case: SizeCase, inquiry: SizeInquiry, volatility: float) -> float:
    return 1.0


def _risk_budget(case: SizeCase, inquiry: SizeInquiry, volatility: float) -> float:
    """Against the VaR of the side that is aimed at: the worst days of a short position are the best of a long one."""
    days = _days_of(case, inquiry.symbol)
    unit_risk = value_at_risk(days if inquiry.short_position else -days, VAR_CONFIDENCE)
    if unit_risk <= 0.0:
        raise Unanswerable(f"the VaR of {inquiry.symbol} by itself is {unit_risk:g}: no budget is a size of it")
    return sizing.risk_budget(inquiry.risk_budget, unit_risk)


_FULL: Mapping[SizingMethod, Callable[[SizeCase, SizeInquiry, float], float]] = {
    SizingMethod.KELLY: _kelly,
    SizingMethod.KELLY_BINARY: _kelly_binary,
    SizingMethod.VOLATILITY_TARGET: _volatility_target,
    SizingMethod.FIXED_RISK: _fixed_risk,
    SizingMethod.FIXED_FRACTION: _fixed_fraction,
    SizingMethod.RISK_BUDGET: _risk_budget,
}
_OF_VOLATILITY = frozenset({SizingMethod.KELLY, SizingMethod.VOLATILITY_TARGET})
_OF_EDGE = frozenset({SizingMethod.KELLY, SizingMethod.KELLY_BINARY})


def _portfolio(case: SizeCase, inquiry: SizeInquiry) -> _Sized:
    """Kelly for the symbol and the others at once, on the shrunk covariance of the model's days."""
    from engine.risk.shrinkage import shrunk_covariance  # imports scikit-learn; only this method needs it

    if case.is_option:
        raise InquiryError("symbol", "options are not sized by their mean and variance; use another method")
    expected = {inquiry.symbol: inquiry.expected_return, **(inquiry.others or {})}
    days = np.column_stack([_days_of(case, symbol) for symbol in expected])
    moving = days.min(axis=0) < days.max(axis=0)
    if not moving.all():
        still = list(expected)[int(np.argmin(moving))]
        raise Unanswerable(f"{still} never moved in the risk model's days: it has no place in a covariance")
    covariance = shrunk_covariance(days)[0] * DAYS_A_YEAR
    excess = np.array(list(expected.values())) - inquiry.riskless_rate
    full = sizing.kelly_portfolio(excess, covariance, inquiry.short_allowed)
    targets = sizing.scaled_together(full, _fraction(inquiry), inquiry.confidence, inquiry.cap)
    weights = tuple(zip(expected, targets.tolist(), strict=True))
    return _Sized(float(full[0]), float(targets[0]), math.sqrt(covariance[0, 0]), weights)


def _fraction(inquiry: SizeInquiry) -> float:
    return FRACTIONS[inquiry.method] if inquiry.fraction is None else inquiry.fraction


def _volatility(case: SizeCase, inquiry: SizeInquiry) -> float:
    """As given, else of the model's days: standard deviation, ddof 1, × √252."""
    if inquiry.volatility is not None:
        return inquiry.volatility
    volatility = float(_days_of(case, inquiry.symbol).std(ddof=1)) * math.sqrt(DAYS_A_YEAR)
    if volatility <= 0.0:
        raise Unanswerable(f"{inquiry.symbol} never moved in the risk model's days; give a volatility")
    return volatility


def _days_of(case: SizeCase, symbol: str) -> Floats:
    if symbol not in case.days:
        raise Unanswerable(case.unknown[symbol])
    return case.days[symbol]
