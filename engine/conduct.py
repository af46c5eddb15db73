"""How an account's orders are conducted: what was tried, cancelled, executed, refused by the venue, closed at a loss.

Counts by key (the account, a strategy, a symbol, whoever stands behind an order), as values that `engine.account` folds
out of the log. No limit is known here and nothing is judged: `engine.measures.conduct` reads these counts. What a
session counts begins anew with SessionOpened; what a person has to re-enable, with the halt that asks for one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from engine.order import IDENTITIES, Order

ATTEMPTS_MAX = 100_000
"""Attempts kept for rate limits, per account and per strategy: no rate limit may count further back."""

ATTEMPTS_HORIZON_US = 3600 * 1_000_000
"""The longest window of a rate limit."""

RUN_MAX = 100
"""Refusals of the venue, and closed trades, kept of a key: more than any streak that makes sense."""

TALLIES_MAX = 10_000
"""Keys counted apart: names are free text. Those that come later share one count, which can only be stricter."""

MARKERS = ("\1", "\2")
"""What keys begin with that are of no strategy; no strategy's name can."""

REST = "\2"
"""The key that names share once there are TALLIES_MAX."""


def kind_key(kind: str, name: str) -> str:
    """Under what is counted that belongs to a symbol or to whoever stands behind an order; no strategy can have it."""
    return f"\1{kind}:{name}"


def identity_keys(order: Order) -> tuple[str, ...]:
    """The keys of whoever stands behind an order; none for those that it does not name."""
    if not order.is_identified:
        return ()
    return tuple(kind_key(kind, name) for kind, name in zip(IDENTITIES, order.identity, strict=True) if name)


def scope_key(kind: str, book: str, symbol: str, identity: Mapping[str, str]) -> str:
    """The key that a limit of this kind of scope reads for an order; "" is the account's. `book`: the strategy's."""
    if kind == "strategy":
        return book
    if kind == "symbol":
        return kind_key(kind, symbol)
    return kind_key(kind, identity[kind]) if kind in identity else ""


class Attempts:
    """Times of what was tried. A value: one more makes another, which shares the list of times, knows how many are its
    own and cuts what a dropped fork left."""

    __slots__ = ("_count", "_times")

    def __init__(self, times: list[int] | None = None) -> None:
        self._times: list[int] = times if times is not None else []
        self._count = len(self._times)

    def with_one(self, time_us: int) -> "Attempts":
        times, count = self._times, self._count
        if len(times) > count:
            del times[count:]
        if count >= 2 * ATTEMPTS_MAX:
            times = times[count - ATTEMPTS_MAX :]
        times.append(time_us)
        return Attempts(times)

    def since(self, time_us: int) -> int:
        """How many lie strictly after `time_us`."""
        return self._count - bisect_right(self._times, time_us, 0, self._count)

    @property
    def latest_us(self) -> int:
        """When the last was; 0: none was."""
        return self._times[self._count - 1] if self._count else 0

    def recent(self) -> list[int]:
        return self._times[max(0, self._count - ATTEMPTS_MAX) : self._count]


class Closed(NamedTuple):
    """A trade that is over: a strategy's position in a symbol went to zero, or through it."""

    time_us: int
    lost: bool
    """It realised less than nothing, fees not counted; a gain that is no number counts as a loss."""


class Tally(msgspec.Struct, frozen=True):
    """What is counted under one key. A value: one more makes another."""

    orders: int = 0
    """Of the session: orders tried, refused ones and replacements too."""
    cancels: int = 0
    """Of the session: cancels asked for, or made without being asked for, but for what lapses by itself (IOC, FOK),
    gives way to a replacement, or goes because the gateway said so."""
    trades: int = 0
    """Of the session: fills."""
    executed: int = 0
    """Orders that filled, wholly or in part, since a person last re-enabled the key."""
    cancelled: Attempts | None = None
    """When each cancel was."""
    replaced: Attempts | None = None
    """When each replacement was tried."""
    rejects: tuple[int, ...] = ()
    """When the venue refused an order, since it last took one; the latest RUN_MAX."""
    closed: tuple[Closed, ...] = ()
    """Closed trades since a person last re-enabled the key, oldest first, the latest RUN_MAX."""

    def tried(self, time_us: int, replaces: bool) -> "Tally":
        return Tally(
            self.orders + 1,
            self.cancels,
            self.trades,
            self.executed,
            self.cancelled,
            _one_more(self.replaced, time_us) if replaces else self.replaced,
            self.rejects,
            self.closed,
        )

    def with_cancel(self, time_us: int) -> "Tally":
        cancelled = _one_more(self.cancelled, time_us)
        return msgspec.structs.replace(self, cancels=self.cancels + 1, cancelled=cancelled)

    def with_fill(self, is_first: bool) -> "Tally":
        """`is_first`: of its order."""
        return msgspec.structs.replace(self, trades=self.trades + 1, executed=self.executed + is_first, rejects=())

    def with_reject(self, time_us: int) -> "Tally":
        return msgspec.structs.replace(self, rejects=(*self.rejects[-RUN_MAX + 1 :], time_us))

    def with_closed(self, closed: Closed) -> "Tally":
        return msgspec.structs.replace(self, closed=(*self.closed[-RUN_MAX + 1 :], closed))

    def taken(self) -> "Tally":
        """The venue took an order: its refusals before are no run any more."""
        return msgspec.structs.replace(self, rejects=()) if self.rejects else self

    def rolled(self) -> "Tally":
        """At the open of another session."""
        return msgspec.structs.replace(self, orders=0, cancels=0, trades=0)

    def restarted(self, measure: str) -> "Tally":
        """After a halt that a person has to lift: what led to it must not lead to it again."""
        if measure == "unattended_executions":
            return msgspec.structs.replace(self, executed=0)
        if measure == "venue_rejects":
            return msgspec.structs.replace(self, rejects=())
        return msgspec.structs.replace(self, closed=()) if measure == "loss_streak" else self


def _one_more(attempts: Attempts | None, time_us: int) -> Attempts:
    return (attempts if attempts is not None else Attempts()).with_one(time_us)


NOTHING = Tally()
RESTARTING = frozenset({"unattended_executions", "venue_rejects", "loss_streak"})


def losing_streak(closed: Iterable[Closed], most: float, window_us: int, now_us: int) -> int:
    """How many trades in a row were closed at a loss, the latest within `window_us`; more than `most` while locked.

    The loss that makes them more than `most` within the window locks for as long as the window is. What closes while
    it is locked counts for nothing: a trade that is closed at a gain then neither unlocks nor locks again, and when the
    lock ends the count starts anew (CHECKS 34; freqtrade #7170 locks again on old losses)."""
    losses: list[int] = []
    locked_until_us = 0
    locked = 0
    for one in closed:
        if one.time_us < locked_until_us:
            continue
        losses = [at for at in losses if at > one.time_us - window_us] + [one.time_us] if one.lost else []
        if len(losses) > most:
            locked, locked_until_us, losses = len(losses), one.time_us + window_us, []
    if now_us < locked_until_us:
        return locked
    return sum(1 for at in losses if at > now_us - window_us)
