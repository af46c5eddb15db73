"""The control state: who may trade at all, and under which limit and instrument set.

One value per partition, advanced by compare-and-set under a growing epoch; this module holds the value and its pure
transitions, never how it is stored. Stops latch: only a covering Resume by an equal or higher rank lifts them.
"""

import enum
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from engine.proposals import Proposal


class TradingState(enum.IntEnum):
    """In order of strictness; the strictest of all scopes that reach an order wins."""

    ACTIVE = 1
    REDUCE_ONLY = 2
    CANCEL_ONLY = 3
    HALTED = 4


class Sender(NamedTuple):
    """Who stands behind an order, as its caller says; empty: not told."""

    algo: str = ""
    trader: str = ""
    desk: str = ""


NOBODY = Sender()
"""Stands behind positions, which are kept by strategy, and behind orders that name nobody."""


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a stop or a resume reaches: the orders that match every field given. All empty: everything."""

    account: str = ""
    strategy: str = ""
    symbol: str = ""
    algo: str = ""
    trader: str = ""
    desk: str = ""

    def reaches(self, account: str, strategy: str, symbol: str, sender: Sender = NOBODY) -> bool:
        return (
            (not self.account or self.account == account)
            and (not self.strategy or self.strategy == strategy)
            and (not self.symbol or self.symbol == symbol)
            and (not self.algo or self.algo == sender.algo)
            and (not self.trader or self.trader == sender.trader)
            and (not self.desk or self.desk == sender.desk)
        )

    def covers(self, other: "Scope") -> bool:
        """Whether everything that `other` reaches is reached by this scope too."""
        return self.reaches(other.account, other.strategy, other.symbol, other.sender)

    @property
    def sender(self) -> Sender:
        return Sender(self.algo, self.trader, self.desk)

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name in self.__struct_fields__ if (value := getattr(self, name))]
        return ", ".join(parts) or "everything"


class Stop(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stop in force. `epoch` is the control epoch that it created."""

    scope: Scope
    state: TradingState
    epoch: int
    time_us: int
    actor: str
    reason: str = ""
    rank: int = 0
    """Rank of the actor's role; a Resume needs at least this."""
    flatten: bool = False
    """While it is in force, the gateway's own orders bring the positions in scope to zero."""


class Lifted(msgspec.Struct, frozen=True):
    """A stop that was resumed: approvals of lower epochs in its scope stay superseded for ever."""

    scope: Scope
    epoch: int


class Resumed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Resume: it lifts limit halts (latches of an account's log) of lower epochs that its scope covers."""

    scope: Scope
    epoch: int
    time_us: int
    actor: str
    reason: str
    rank: int = 0


class Control(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole control state of a partition."""

    epoch: int = 0
    stops: tuple[Stop, ...] = ()
    lifted: tuple[Lifted, ...] = ()
    resumes: tuple[Resumed, ...] = ()
    limit_set: str = ""
    """Content hash of the armed limit set; empty: none, and nothing trades."""
    instrument_set: str = ""
    armed_file: str = ""
    """Hash of the last limits file that control armed; a restart re-arms only a file that changed since."""
    shadow_limit_set: str = ""
    """Content hash of a whole set that is evaluated beside the armed one, without effect; empty: none."""
    limits_epoch: int = 0
    """Which arming of limits this partition has: the epoch that it had where the order of armings is settled."""
    proposals: tuple[Proposal, ...] = ()
    """Limit sets that wait for approval, and those decided last; only where the order of armings is settled."""
    approved_limit_set: str = ""
    """The set that was approved last, there too; while it is in force, no configuration takes its place."""

    def state_at(self, account: str, strategy: str, symbol: str, sender: Sender = NOBODY) -> TradingState:
        """The strictest stop in force that reaches such an order."""
        strictest = TradingState.ACTIVE
        for stop in self.stops:
            if stop.state > strictest and stop.scope.reaches(account, strategy, symbol, sender):
                strictest = stop.state
        return strictest

    def stops_at(self, account: str, strategy: str, symbol: str, sender: Sender = NOBODY) -> tuple[Stop, ...]:
        return tuple(stop for stop in self.stops if stop.scope.reaches(account, strategy, symbol, sender))

    def stopped_since(self, epoch: int, account: str, strategy: str, symbol: str, sender: Sender = NOBODY) -> bool:
        """Whether a stop, in force or lifted, reached such an order after `epoch`."""
        ended: tuple[Stop | Lifted, ...] = (*self.stops, *self.lifted)
        return any(s.epoch > epoch and s.scope.reaches(account, strategy, symbol, sender) for s in ended)

    def lifts(self, scope: Scope, epoch: int, rank: int = 0) -> bool:
        """Whether a Resume of a higher epoch than `epoch` covers `scope`."""
        return any(r.epoch > epoch and r.rank >= rank and r.scope.covers(scope) for r in self.resumes)


def encode_control(control: Control) -> bytes:
    return msgspec.json.encode(control)


def decode_control(state: bytes) -> Control:
    """The control state from its stored form; b"" is the state before the first change."""
    return msgspec.json.decode(state, type=Control) if state else Control()


def stopped(control: Control, stop: Stop) -> Control:
    """`control` with `stop` in force. Of two stops of one scope the newer stands, with the stricter state and
    the higher rank of both; if one of them flattens, it does."""
    kept, new = [], stop
    for old in control.stops:
        if old.scope == stop.scope:
            new = msgspec.structs.replace(
                new,
                state=max(old.state, new.state),
                rank=max(old.rank, new.rank),
                flatten=old.flatten or new.flatten,
            )
        else:
            kept.append(old)
    return msgspec.structs.replace(control, epoch=stop.epoch, stops=(*kept, new))


def resumed(control: Control, resume: Resumed) -> tuple[Control, tuple[Stop, ...], tuple[Stop, ...]]:
    """(`control` after `resume`, the stops that it lifted, those in its scope that it may not lift)."""
    lifted: list[Stop] = []
    kept: list[Stop] = []
    for stop in control.stops:
        covered = resume.scope.covers(stop.scope)
        (lifted if covered and resume.rank >= stop.rank else kept).append(stop)
    refused = tuple(s for s in kept if resume.scope.covers(s.scope) or s.scope.covers(resume.scope))
    after = msgspec.structs.replace(
        control,
        epoch=resume.epoch,
        stops=tuple(kept),
        lifted=_newest_by_scope((*control.lifted, *(Lifted(s.scope, s.epoch) for s in lifted))),
        resumes=_newest_resumes((*control.resumes, resume)),
    )
    return after, tuple(lifted), refused


def _newest_by_scope(lifted: Iterable[Lifted]) -> tuple[Lifted, ...]:
    newest: dict[Scope, Lifted] = {}
    for entry in lifted:
        known = newest.get(entry.scope)
        if known is None or entry.epoch > known.epoch:
            newest[entry.scope] = entry
    return tuple(newest.values())


def _newest_resumes(resumes: tuple[Resumed, ...]) -> tuple[Resumed, ...]:
    """Without those that a newer resume of at least the same rank covers: they lift nothing that it does not."""
    kept: list[Resumed] = []
    for resume in reversed(resumes):
        if not any(newer.scope.covers(resume.scope) and newer.rank >= resume.rank for newer in kept):
            kept.append(resume)
    return tuple(reversed(kept))
