"""A strategy that has gone silent while orders of it work: the dead man's switch (CHECKS 42).

Pure. A sign of life is a CheckOrder, refused or not, or a Heartbeat; what the execution engine reports of its orders is
none. Without open orders there is nothing to cancel, and nobody has to say anything. The worker asks, once a second,
and the latch that it records is a limit's halt like any other: it stands until a person resumes.
"""

from collections.abc import Iterable

from engine.account import AccountState, book_key
from engine.control import Scope
from engine.decide import Terms
from engine.limits import Limit, LimitAction
from engine.measures.measure import Survey, strategy_name
from engine.records import AnyRecord, Heartbeat, Latch, Latched
from engine.utilisation import LimitUse, UseStatus, uses_of

MEASURE = "agent_silence"

APART_US = 1_000_000
"""Heartbeats closer than this to the last sign of life say nothing new, and are not recorded."""


def heartbeat(state: AccountState, strategy: str, now_us: int, epoch: int) -> list[AnyRecord]:
    """The record of a sign of life; none where no order of the strategy works, or one was just given."""
    if not state.has_open(strategy) or now_us - state.heard_us(strategy) < APART_US:
        return []
    return [Heartbeat(time_us=now_us, epoch=epoch, strategy=strategy)]


def watched(terms: Terms, account: str) -> bool:
    """Whether a limit of the account halts who is silent, so that time alone makes something due."""
    return any(map(_halts, terms.limits.rows_for(account)))


def fallen_silent(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
    """The latches of strategies that have been silent for longer than their limit; none where one is in force."""
    rows = [row for row in terms.limits.rows_for(state.account) if _halts(row)]
    if not rows:
        return []
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    keys = sorted(state.books, reverse=True)  # the nameless one last: a strategy may be called as it is labelled
    names = {f"strategy:{strategy_name(key)}": key for key in keys}
    latches = (
        Latch(_scope(state, names[use.scope]), row.halt_state.trading_state, terms.control.epoch, _told(use))
        for row, use in _breaches(survey, rows, state.account)
    )
    return [
        Latched(time_us=now_us, epoch=terms.control.epoch, latch=latch)
        for latch in latches
        if not _is_latched(state, terms, latch)
    ]


def _halts(row: Limit) -> bool:
    return row.measure == MEASURE and row.is_hard and row.action is LimitAction.HALT


def _breaches(survey: Survey, rows: Iterable[Limit], account: str) -> Iterable[tuple[Limit, LimitUse]]:
    return ((row, use) for row in rows for use in uses_of(survey, row, account) if use.status is UseStatus.BREACHED)


def _scope(state: AccountState, key: str) -> Scope:
    """Of a strategy by the key of its book; the one without a name can only be stopped with its account."""
    return Scope(state.account, "" if key == book_key("") else key)


def _told(use: LimitUse) -> str:
    return f"{use.scope} was silent for {use.value:.1f} s with open orders, limit {use.limit:g} s"


def _is_latched(state: AccountState, terms: Terms, latch: Latch) -> bool:
    known = state.latches.get((latch.scope, latch.state))
    return known is not None and state.latch_holds(*known, terms.control)
