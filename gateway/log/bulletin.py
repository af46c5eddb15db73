"""Values where the latest wins, and wake-ups: what speeds readers up, never what is true.

Marks, the worker's reports and the pointer to the current risk model can be lost and come again. A wake-up is a
hint that something moved; who depends on it compares heads as well. No business meaning here, and no Redis.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

MARKS_CHANNEL = "marks"
MODEL_CHANNEL = "model"
CONTROL_CHANNEL = "control"

CLOSES_KEPT_MAX = 1_100
"""Sessions whose closes are kept: more than a risk model's lookback of three years, and some hundred bytes a symbol."""


@dataclass(frozen=True, slots=True)
class AccountMoved:
    account: str
    seq: int


@dataclass(frozen=True, slots=True)
class ControlMoved:
    partition: int
    epoch: int


@dataclass(frozen=True, slots=True)
class MarksMoved:
    marks: Mapping[str, bytes]  # only those that changed


@dataclass(frozen=True, slots=True)
class ModelMoved:
    hash: str


@dataclass(frozen=True, slots=True)
class ReportMoved:
    account: str


@dataclass(frozen=True, slots=True)
class Lagged:
    """Wake-ups may have been missed: read everything again. The first one of every `follow`."""


Wake = AccountMoved | ControlMoved | MarksMoved | ModelMoved | ReportMoved | Lagged


class Bulletin(Protocol):
    """Every method may raise StoreUnavailable, but for `follow`, which waits for the store, and StoreRefused."""

    async def post_marks(self, marks: Mapping[str, bytes]) -> None:
        """Sets these symbols' marks and wakes the followers; other symbols keep theirs."""

    async def marks(self) -> dict[str, bytes]: ...

    async def post_report(self, account: str, report: bytes) -> None: ...

    async def report(self, account: str) -> bytes | None: ...

    async def post_model(self, model_hash: str) -> None:
        """Points to the blob that is the current risk model."""

    async def model(self) -> str | None: ...

    async def announce(self, address: str | None, now_us: int, since_us: int) -> frozenset[str]:
        """Notes that a process which takes stops was at `address` (None: nothing) at `now_us`; the addresses noted
        since `since_us`. Earlier ones are forgotten."""

    async def post_analyst(self, card: bytes, now_us: int, since_us: int) -> None:
        """Notes that a worker which answers questions had this card out at `now_us`; those not noted since `since_us`
        are forgotten."""

    async def analysts(self, since_us: int) -> tuple[bytes, ...]:
        """The cards noted since then, the one noted last first."""
        ...

    async def keep_closes(self, session: str, closes: Mapping[str, bytes]) -> None:
        """Notes the closes of a session (an ISO date) by symbol. A symbol's that is noted already stays: any number of
        workers note them once. As durable as the log; the oldest sessions beyond CLOSES_KEPT_MAX are forgotten."""

    async def closes(self, after: str) -> dict[str, dict[str, bytes]]:
        """The closes noted of the sessions after a date ("" for all), by session, oldest first, and symbol."""

    async def keep_event(self, event_id: str, event: bytes) -> bool:
        """Notes an event that an operator entered, in place of one of the same id; whether it is new. As durable as the
        log."""
        ...

    async def kept_events(self) -> dict[str, bytes]:
        """Those noted, by id."""
        ...

    async def keep_feed(self, source: str, feed: bytes) -> None:
        """Notes how a source of events stands, with its last good events. As durable as the log."""

    async def feeds(self) -> dict[str, bytes]:
        """Those noted, by source."""
        ...

    def follow(self) -> AsyncGenerator[Wake, None]:
        """Wake-ups from now on, until closed (`contextlib.aclosing`) or cancelled. Lagged comes first, and again
        whenever the store was away."""


def account_wake(account: str, seq: int) -> bytes:
    return f"{account}:{seq}".encode()


def report_wake(account: str) -> bytes:
    return f"{account}:report".encode()


def control_wakes(epochs: Sequence[tuple[int, int]]) -> bytes:
    """(partition, epoch) of each partition whose control moved."""
    return msgspec.msgpack.encode(epochs)


def decode_control_wakes(payload: bytes) -> list[ControlMoved]:
    epochs = msgspec.msgpack.decode(payload, type=list[tuple[int, int]])
    return [ControlMoved(partition, epoch) for partition, epoch in epochs]


def decode_wake(payload: bytes) -> AccountMoved | ReportMoved:
    """Parsed from the right, since an account's name may hold colons. ValueError if it is none of ours."""
    account, _, what = payload.decode().rpartition(":")
    return ReportMoved(account) if what == "report" else AccountMoved(account, int(what))


def encode_marks(marks: Mapping[str, bytes]) -> bytes:
    return msgspec.msgpack.encode(marks)


def decode_marks(payload: bytes) -> dict[str, bytes]:
    return msgspec.msgpack.decode(payload, type=dict[str, bytes])
