"""Profit and loss of an account at its marks: realised and unrealised, by position and rolled up, adding up to equity.

Reads the fold, decides nothing. Money is in base currency, gains positive. A position's gain is counted from the first
equity that was known of the account, or of the session, so that a position brought in at an old cost brings no gain
along; what it has gained over its average cost stands beside it. The rows, less fees, plus `other` are exactly the
account's P&L: `other` is what exchange rates made of the cash held, and what a broker's reconciliation corrected.
What can't be known is None and says why in `warnings`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.account import AccountState, Baseline, Gain
from engine.control import Control, Resumed, Scope
from engine.instrument import InstrumentSet

UNREGISTERED = "(unregistered)"
UNLABELLED = "(none)"

_NOTHING = Gain()


@dataclass(frozen=True, slots=True)
class Gains:
    """Of one row over one span. None: a mark or a rate is missing, or the span has not begun."""

    realised: float | None
    unrealised: float | None

    @property
    def total(self) -> float | None:
        return None if self.realised is None or self.unrealised is None else self.realised + self.unrealised


@dataclass(frozen=True, slots=True)
class PositionPnl:
    """One strategy's position in a symbol, closed ones included."""

    strategy: str
    symbol: str
    asset_class: str
    sector: str
    quantity: float
    """In units of the instrument, signed."""
    average_cost: float
    value: float | None
    over_cost: float | None
    """Unrealised gain over the average cost, whenever the position came in."""
    session: Gains
    since_opening: Gains


@dataclass(frozen=True, slots=True)
class GroupPnl:
    """Positions of one strategy, sector, asset class or symbol, added up."""

    name: str
    session: Gains
    since_opening: Gains


@dataclass(frozen=True, slots=True)
class AccountPnl:
    """The account over one span: total = positions - fees + other, exactly. None where equity or a gain is missing."""

    total: float | None
    positions: Gains
    fees: float | None
    """Paid in the span, positive = cost."""
    other: float | None
    """Exchange rates on cash, and corrections by the broker; about 0 where the account has one currency and none of
    these."""


@dataclass(frozen=True, slots=True)
class AccountDrawdowns:
    """How far the unit NAV is below four heights, as shares of them, 0 or more; None where one is not known."""

    from_peak: float | None
    from_session_peak: float | None
    from_session_start: float | None
    since_reset: float | None
    """From the peak since the last Resume that covers the whole account; without one, since the account's opening. It
    starts with the first valuation after the Resume."""
    reset_time_us: int | None
    """When that Resume was; None: there was none."""


@dataclass(frozen=True, slots=True)
class ProfitAndLoss:
    account: str
    base_currency: str
    session_date: str
    """Empty: no session was opened."""
    session: AccountPnl
    since_opening: AccountPnl
    positions: tuple[PositionPnl, ...]
    by_strategy: tuple[GroupPnl, ...]
    by_asset_class: tuple[GroupPnl, ...]
    by_sector: tuple[GroupPnl, ...]
    by_symbol: tuple[GroupPnl, ...]
    """Groups by name; each of the four adds up to the account's `positions`."""
    drawdowns: AccountDrawdowns
    warnings: tuple[str, ...]


def profit_and_loss(state: AccountState, instruments: InstrumentSet, control: Control) -> ProfitAndLoss:
    """P&L of an opened account for its session and since its opening. `instruments` give sector and asset class,
    `control` the last Resume. Never fails on a state that the fold made; what is missing is None."""
    positions = tuple(_position(state, instruments, key) for key in sorted(state.holdings))
    session = state.session
    opening = state.opening_base
    earned = state.equity() - state.flows_total - opening.equity if opening is not None else math.nan
    return ProfitAndLoss(
        account=state.account,
        base_currency=state.base_currency,
        session_date=session.date if session is not None else "",
        session=_account(state, state.session_base, state.session_pnl(), [one.session for one in positions]),
        since_opening=_account(state, opening, earned, [one.since_opening for one in positions]),
        positions=positions,
        by_strategy=_grouped(positions, lambda one: one.strategy or UNLABELLED),
        by_asset_class=_grouped(positions, lambda one: one.asset_class),
        by_sector=_grouped(positions, lambda one: one.sector),
        by_symbol=_grouped(positions, lambda one: one.symbol),
        drawdowns=drawdowns(state, control),
        warnings=tuple(_warnings(state, positions)),
    )


def drawdowns(state: AccountState, control: Control) -> AccountDrawdowns:
    """How far the NAV has fallen, from each height that it is measured from."""
    nav, session, resume = state.nav(), state.session, last_resume(state.account, control)
    peak = state.nav_peak if resume is None else state.nav_peak_since(resume.epoch)
    return AccountDrawdowns(
        from_peak=_fall(nav, state.nav_peak),
        from_session_peak=None if session is None else _fall(nav, session.nav_peak),
        from_session_start=None if session is None else _fall(nav, session.nav_open),
        since_reset=_fall(nav, peak),
        reset_time_us=None if resume is None else resume.time_us,
    )


def last_resume(account: str, control: Control) -> Resumed | None:
    """The newest Resume on record whose scope covers the whole account: drawdown since reset counts from it."""
    covering = (resume for resume in control.resumes if resume.scope.covers(Scope(account)))
    return max(covering, key=lambda resume: resume.epoch, default=None)


def _position(state: AccountState, instruments: InstrumentSet, key: tuple[str, str]) -> PositionPnl:
    strategy, symbol = key
    holding, instrument = state.holdings[key], instruments.get(symbol)
    slot, over_cost = state.slots[symbol], state.unrealised(strategy, symbol)
    value = holding.lots * state.unit_values().item(slot) if math.isfinite(over_cost) else math.nan
    now = Gain(holding.realised, over_cost)
    return PositionPnl(
        strategy=strategy,
        symbol=symbol,
        asset_class=UNREGISTERED if instrument is None else str(instrument.asset_class),
        sector=UNREGISTERED if instrument is None else instrument.sector or UNLABELLED,
        quantity=holding.lots * state.listed[symbol].lot_size,
        average_cost=holding.average_cost,
        value=_known(value),
        over_cost=_known(over_cost),
        session=_since(now, state.session_base, key),
        since_opening=_since(now, state.opening_base, key),
    )


def _since(now: Gain, base: Baseline | None, key: tuple[str, str]) -> Gains:
    if base is None:
        return Gains(None, None)
    then = base.gains.get(key, _NOTHING)
    return Gains(_known(now.realised - then.realised), _known(now.unrealised - then.unrealised))


def _account(state: AccountState, base: Baseline | None, total: float, gains: list[Gains]) -> AccountPnl:
    positions = _added(gains) if base is not None else Gains(None, None)
    if base is None:
        return AccountPnl(None, positions, None, None)
    fees, earned = state.fees_total - base.fees, positions.total
    known = math.isfinite(total) and earned is not None
    return AccountPnl(_known(total), positions, fees, total - earned + fees if known and earned is not None else None)


def _grouped(positions: Iterable[PositionPnl], name: Callable[[PositionPnl], str]) -> tuple[GroupPnl, ...]:
    members: dict[str, list[PositionPnl]] = {}
    for position in positions:
        members.setdefault(name(position), []).append(position)
    return tuple(
        GroupPnl(group, _added(one.session for one in own), _added(one.since_opening for one in own))
        for group, own in sorted(members.items())
    )


def _added(gains: Iterable[Gains]) -> Gains:
    """None as soon as one part is: a sum without it would be another number."""
    every = list(gains)
    return Gains(_sum(one.realised for one in every), _sum(one.unrealised for one in every))


def _sum(parts: Iterable[float | None]) -> float | None:
    every = list(parts)
    known = [part for part in every if part is not None]
    return math.fsum(known) if len(known) == len(every) else None


def _warnings(state: AccountState, positions: Iterable[PositionPnl]) -> Iterable[str]:
    if state.opening_base is None:
        yield "never valued: a mark or an exchange rate was missing since the account was opened"
    if state.session is None:
        yield "no session was opened for this account"
    elif state.session_base is None:
        yield f"session {state.session.date}: not valued yet"
    for symbol in sorted({one.symbol for one in positions if one.over_cost is None}):
        yield f"{symbol}: no mark or no exchange rate, so that its gain is not known"


def _fall(nav: float, height: float) -> float | None:
    return max(0.0, 1.0 - nav / height) if height > 0.0 and math.isfinite(nav) else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
