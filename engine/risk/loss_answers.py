"""The answer of GetLossHistory: losses by session, and how an account stands against its loss limits.

Pure, on values. A day's loss is a share of the equity that its session opened with; a week's is the sum of the last
five records'. What can't be known is None. The figures of the history are at the newest marks; those that limits count
are confirmed over several (engine.losses), and so is the status.
"""

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.account import AccountState, Session
from engine.grades import utilisation_of
from engine.loss_memory import WEEK_SESSIONS
from engine.risk.inquiry import Stamp
from engine.utilisation import LimitUse, UseStatus

LOSS_MEASURES = ("daily_loss", "weekly_loss")

WARNING_SHARE = 0.8
"""Of a loss limit: from here on its status is a warning, whatever warning level the row has."""


class LossStatus(enum.IntEnum):
    """How an account stands against its loss limits, in order of strictness: the strictest of all rows is told."""

    OK = 1
    WARNING = 2
    UNEVALUABLE = 3
    BREACHED = 4


@dataclass(frozen=True, slots=True)
class SessionLoss:
    """One session. Money in base currency."""

    date: str
    open_equity: float | None
    equity: float | None
    flows: float
    pnl: float | None
    daily_loss: float | None
    """Share of the opening equity, positive is a loss; None: it is not known, or that equity was not above 0."""
    weekly_loss: float | None
    """Sum of the last five daily losses; None: one of them is."""
    open: bool = False


@dataclass(frozen=True, slots=True)
class LossAnswer:
    stamp: Stamp
    status: LossStatus | None
    """None: no loss limit is armed."""
    uses: tuple[LimitUse, ...]
    """Of the loss limits."""
    sessions: tuple[SessionLoss, ...]
    """Newest first."""


def loss_status(uses: Iterable[LimitUse]) -> LossStatus | None:
    """The strictest of the daily and weekly loss limits, those in shadow left out; None where none is armed."""
    told = [_status(use) for use in uses if use.measure in LOSS_MEASURES and not use.shadow]
    return max(told, default=None)


def _status(use: LimitUse) -> LossStatus:
    if use.status is UseStatus.UNEVALUABLE:
        return LossStatus.UNEVALUABLE
    if use.status is UseStatus.BREACHED:
        return LossStatus.BREACHED
    warned = use.status is UseStatus.WARNING or utilisation_of(use) >= WARNING_SHARE
    return LossStatus.WARNING if warned else LossStatus.OK


def session_losses(state: AccountState, count: int) -> tuple[SessionLoss, ...]:
    """The last `count` sessions, newest first, the open one included, at the state's marks. `count` is 1 or more, else
    ValueError."""
    if count < 1:
        raise ValueError(f"sessions: expected 1 or more, got {count}")
    open_now = state.session
    closed = state.sessions[-(count + WEEK_SESSIONS) :]
    rows = [(one, one.pnl, one.equity_close) for one in closed]
    if open_now is not None:
        rows.append((open_now, state.session_pnl(), state.equity()))
    daily = [_share(session, pnl) for session, pnl, _ in rows]
    if len(closed) == len(state.sessions):
        for at, (session, _, _) in enumerate(rows):
            if math.isfinite(session.equity_open):
                break
            daily[at] = 0.0  # before the account was ever valued there was nothing to lose
    told = [
        _session_loss(session, pnl, equity, daily, at, session is open_now)
        for at, (session, pnl, equity) in enumerate(rows)
    ]
    return tuple(reversed(told[-count:]))


def _session_loss(
    session: Session, pnl: float, equity: float, daily: Sequence[float], at: int, is_open: bool
) -> SessionLoss:
    return SessionLoss(
        date=session.date,
        open_equity=_known(session.equity_open),
        equity=_known(equity),
        flows=session.flows,
        pnl=_known(pnl),
        daily_loss=_known(daily[at]) if math.isfinite(pnl) else None,
        weekly_loss=_known(sum(daily[max(0, at - WEEK_SESSIONS + 1) : at + 1])) if math.isfinite(pnl) else None,
        open=is_open,
    )


def _share(session: Session, pnl: float) -> float:
    return -pnl / session.equity_open if session.equity_open > 0.0 else math.nan


def _known(value: float) -> float | None:
    return value + 0.0 if math.isfinite(value) else None
