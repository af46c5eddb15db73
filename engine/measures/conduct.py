"""Measures of conduct: cancels, replacements, messages per trade, a session's counts, runs that want a person's eye
(CHECKS 16, 18, 19, 20 and 34).

They read what engine.conduct counts, within one account; nothing here stops a cancel, and none of it a true reduction.
What only a person ends (unattended executions) halts or warns; its count begins anew with the halt, so that a Resume
lets trade again.
"""

from collections.abc import Callable, Iterable
from typing import Any

from engine.account import NAMELESS
from engine.conduct import MARKERS, Attempts, Tally, kind_key, losing_streak
from engine.limits import IDENTITY_SCOPES, NO_STOP_SCOPES, Limit, ScopeKind, Unit
from engine.measures.measure import (
    MICROS,
    Armed,
    Case,
    Family,
    Measure,
    Now,
    Read,
    Reading,
    Survey,
    matches,
    scope_label,
    strategy_name,
)
from engine.order import Reason

Standing = Callable[[Survey, Limit, Tally], float]
"""What a limit's count is now, without any order."""


def _within(attempts: Attempts | None, survey: Survey, row: Limit) -> float:
    return 0.0 if attempts is None else float(attempts.since(survey.now_us - int(row.window_s * MICROS)))


def _cancels(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 16: cancels in the sliding window. No order is one, so that it refuses openings until they are fewer; the
    cancels themselves are facts, and always pass."""
    return _within(tally.cancelled, survey, row)


def _replacements(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 16: replacements tried in the sliding window, refused ones included."""
    return _within(tally.replaced, survey, row)


def _per_trade(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 16: orders tried and cancels of the session, per fill; per one where there is none yet."""
    return (tally.orders + tally.cancels) / max(1, tally.trades)


def _orders(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 18: orders tried in the session, refused ones included. Sessions are records: midnight rolls nothing."""
    return float(tally.orders)


def _trades(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 18: fills of the session."""
    return float(tally.trades)


def _executed(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 19 (RTS 6, 15(3)): orders that filled since a person last re-enabled the scope."""
    return float(tally.executed)


def _refused(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 20: orders in a row that the venue refused, within the window; one that it takes ends the run."""
    after_us = survey.now_us - int(row.window_s * MICROS)
    return float(sum(1 for at in tally.rejects if at > after_us))


def _lost(survey: Survey, row: Limit, tally: Tally) -> float:
    """CHECKS 34: see engine.conduct.losing_streak. The row's own limit says what locks: a tightening, which comes and
    goes, must not rewrite which losses did."""
    return float(losing_streak(tally.closed, row.limit, int(row.window_s * MICROS), survey.now_us))


def _read_of(standing: Standing, more: float) -> Read:
    """The reading of a count to which an order adds `more`."""

    def read(case: Case, armed: Armed) -> Reading:
        count = standing(case, armed.row, case.state.tally(armed.conduct_key))
        return count, count + more, 0

    return read


def _read_per_trade(case: Case, armed: Armed) -> Reading:
    tally = case.state.tally(armed.conduct_key)
    messages, trades = tally.orders + tally.cancels, max(1, tally.trades)
    return messages / trades, (messages + 1) / trades, 0


_read_replacements = _read_of(_replacements, 1.0)


def _read_modify_rate(case: Case, armed: Armed) -> Reading:
    """What replaces nothing reads 0: it is not held up by replacements."""
    return _read_replacements(case, armed) if case.order.replaces_client_order_id else (0.0, 0.0, 0)


def _now_of(standing: Standing) -> Now:
    """What the count is of each that a row reaches."""

    def now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
        for key, tally in survey.state.tallies.items():
            name = _named(row.scope, key, account)
            if name is not None and (row.scope is ScopeKind.ACCOUNT or matches(row, name)):
                yield f"{row.scope.value}:{strategy_name(name)}", standing(survey, row, tally)

    return now


def _named(scope: ScopeKind, key: str, account: str) -> str | None:
    """Whose key it is, of this kind of scope; None: it is of another."""
    if scope is ScopeKind.ACCOUNT:
        return account if key == "" else None
    if scope is ScopeKind.STRATEGY:
        return key if key and not key.startswith(MARKERS) else None
    prefix = kind_key(scope.value, "")
    return key.removeprefix(prefix) if key.startswith(prefix) else None


def _agent_silence(case: Case, armed: Armed) -> Reading:
    """CHECKS 42: seconds since the strategy's last sign of life before this order, where orders of it are open; else
    0. See engine.silence."""
    silence_s = _silence_s(case, case.order.strategy)
    return silence_s, silence_s, 0


def _silence_s(survey: Survey, strategy: str) -> float:
    state = survey.state
    return max(0, survey.now_us - state.heard_us(strategy)) / MICROS if state.has_open(strategy) else 0.0


def _agent_silence_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    for key in survey.state.books:
        if matches(row, key):
            silence_s = _silence_s(survey, "" if key == NAMELESS else key)
            yield scope_label(row.scope, account, key, None), silence_s


_COUNTED = IDENTITY_SCOPES | {ScopeKind.ACCOUNT, ScopeKind.STRATEGY, ScopeKind.SYMBOL}
_WEEK_S = 7 * 86_400.0
_RATE, _COUNT = (Unit.ORDERS,), (Unit.COUNT,)


def _counted(
    name: str, reason: Reason, units: tuple[Unit, ...], standing: Standing, read: Read, **fields: Any
) -> Measure:
    return Measure(name, reason, Family.INPUT, units, _COUNTED, read, now=_now_of(standing), **fields)


CANCEL_RATE = _counted("cancel_rate", Reason.CANCEL_RATE, _RATE, _cancels, _read_of(_cancels, 0.0))
MODIFY_RATE = Measure(  # no standing value: refused attempts take it over its bound, and plain orders pass it there
    "modify_rate", Reason.MODIFY_RATE, Family.INPUT, _RATE, _COUNTED, _read_modify_rate
)
ORDER_TO_TRADE = _counted("order_to_trade", Reason.ORDER_TO_TRADE, _COUNT, _per_trade, _read_per_trade)
SESSION_ORDERS = _counted("session_orders", Reason.SESSION_ORDERS, _COUNT, _orders, _read_of(_orders, 1.0))
SESSION_TRADES = _counted("session_trades", Reason.SESSION_TRADES, _COUNT, _trades, _read_of(_trades, 1.0))
UNATTENDED_EXECUTIONS = Measure(
    "unattended_executions",
    Reason.UNATTENDED_EXECUTIONS,
    Family.INPUT,
    _COUNT,
    _COUNTED - NO_STOP_SCOPES,
    _read_of(_executed, 1.0),
    now=_now_of(_executed),
    halts=True,
)
VENUE_REJECTS = _counted("venue_rejects", Reason.VENUE_REJECTS, _RATE, _refused, _read_of(_refused, 0.0))
LOSS_STREAK = _counted("loss_streak", Reason.LOSS_STREAK, _RATE, _lost, _read_of(_lost, 0.0), window_max_s=_WEEK_S)
AGENT_SILENCE = Measure(
    "agent_silence",
    Reason.AGENT_SILENCE,
    Family.INPUT,
    (Unit.SECONDS,),
    frozenset({ScopeKind.STRATEGY}),
    _agent_silence,
    now=_agent_silence_now,
    halts=True,
)
