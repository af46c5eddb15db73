"""What a back end of the log promises, and the values it answers with.

An account's log is a chain: `hash_n = blake2b(hash_{n-1} ‖ record_n)`. Writers name the head they know, and the
store appends only if log and control still end there. The whole state a partition is controlled by (trading
states, limit set, tightenings) is one value with a head of its own. No Redis here, no business rule, no I/O.
All times are integer microseconds since the epoch on the store's clock.
"""

import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway.log.bulletin import Bulletin
    from gateway.log.tier import Tier

PARTITIONS = 64  # fixed for ever: it is part of every key
TAIL_RECORDS_MAX = 512  # eight batches of 64: one conflict usually catches a gateway up, and the reply stays small
HASH_BYTES = 16


def partition_of(account: str) -> int:
    """The partition, 0 to 63, that holds all keys of an account."""
    return zlib.crc32(account.encode()) % PARTITIONS


def content_hash(content: bytes) -> str:
    """32 hex digits that name an immutable blob."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).hexdigest()


def _link(previous: str, content: bytes) -> str:
    return content_hash(bytes.fromhex(previous) + content)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: the last record's sequence number (0: empty) and the chain's hash there ("" or 32 hex)."""

    seq: int
    hash: str

    def extend(self, records: Iterable[bytes]) -> "Head":
        """The head after these records; itself if there are none."""
        seq, chain = self.seq, self.hash
        for record in records:
            seq, chain = seq + 1, _link(chain, record)
        return Head(seq, chain)

    def encode(self) -> bytes:
        return b"%d:%s" % (self.seq, self.hash.encode())

    @classmethod
    def decode(cls, encoded: bytes | None) -> Self:
        """From "seq:hash"; None, an absent key, is the genesis."""
        seq, chain = (encoded or b"0:").decode().split(":")
        return cls(int(seq), chain)


@dataclass(frozen=True, slots=True)
class ControlHead:
    """Which control state is in force: an epoch that only grows, and the chained digest of all states up to it."""

    epoch: int
    digest: str

    def advance(self, epoch: int, state: bytes) -> "ControlHead":
        """The head after this state. An epoch that does not grow is a defect of the caller."""
        assert epoch > self.epoch, f"control epoch must grow: {self.epoch} -> {epoch}"
        return ControlHead(epoch, _link(self.digest, state))

    def encode(self) -> bytes:
        return b"%d:%s" % (self.epoch, self.digest.encode())

    @classmethod
    def decode(cls, encoded: bytes | None) -> Self:
        """From "epoch:digest"; None, an absent key, is the genesis."""
        epoch, digest = (encoded or b"0:").decode().split(":")
        return cls(int(epoch), digest)


GENESIS = Head(0, "")
CONTROL_GENESIS = ControlHead(0, "")


@dataclass(frozen=True, slots=True)
class Control:
    head: ControlHead
    state: bytes  # the whole control state; b"" at the genesis


class ControlChange(NamedTuple):
    epoch: int  # greater than the present one
    state: bytes
    record: bytes  # what the partition's control history says of it


NOTHING_KNOWN: Mapping[int, Control] = MappingProxyType({})

ChangeControl = Callable[[Control], ControlChange | None]
"""From the control in force to what shall follow, None if nothing has to. Called again whenever another was faster."""


@dataclass(frozen=True, slots=True)
class Appended:
    time_us: int
    head: Head


@dataclass(frozen=True, slots=True)
class Conflict:
    """The log does not end where the caller's state ends. Nothing was appended.

    `tail` holds what follows the caller's sequence number, oldest first, at most TAIL_RECORDS_MAX; `more` says that
    records beyond it exist. With an empty tail and `head` equal to the caller's, nothing is missing: decide again.
    """

    head: Head
    control: ControlHead
    tail: tuple[bytes, ...]
    more: bool
    time_us: int

    def diverged_from(self, known: Head) -> bool:
        """Whether the log is not a continuation of `known`: it went backwards or forked. Unsaid while `more`."""
        return not self.more and known.extend(self.tail) != self.head


@dataclass(frozen=True, slots=True)
class ControlMoved:
    """The caller decided under a control state that is no longer in force. Nothing was appended."""

    control: Control
    time_us: int


@dataclass(frozen=True, slots=True)
class TooOld:
    """What follows the caller's sequence number was trimmed: load the snapshot, then go on. Nothing was appended."""

    snapshot_seq: int  # 0: there is none
    time_us: int


@dataclass(frozen=True, slots=True)
class Aged:
    """The decision's time lies too far from the store's. Nothing was appended."""

    time_us: int


AppendResult = Appended | Conflict | ControlMoved | TooOld | Aged


@dataclass(frozen=True, slots=True)
class Page:
    """Records `first_seq`, `first_seq + 1`, … and the head at the same instant. A head below the caller's own
    sequence number, or a chain that does not lead to it, is a log that went backwards or forked."""

    first_seq: int
    records: tuple[bytes, ...]
    head: Head
    time_us: int
    more: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    seq: int
    hash: str  # of the log's chain at seq
    state_hash: str
    fold_version: int
    blob: bytes

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)


class AccountLog(Protocol):
    """A store of account logs. Every method may raise StoreUnavailable (a write's outcome is then unknown, and
    repeating it is safe) and StoreRefused."""

    @property
    def bulletin(self) -> "Bulletin":
        """The latest-wins values and wake-ups of the same store."""

    async def append(
        self,
        account: str,
        expect: Head,
        control: ControlHead | None,
        records: Sequence[bytes],
        decided_at_us: int,
        age_max_us: int,
    ) -> AppendResult:
        """Appends `records` if the log ends at `expect`, `control` is in force and the decision is fresh.

        Compared in that order. `control` None marks facts: neither control nor age is compared. Without records it
        verifies only. Fresh: `decided_at_us` lies at most `age_max_us` from the store's time, before or after it
        (after it, when the store's clock was set back). Repeating an append whose outcome is unknown either
        appends it or answers Conflict with one's own records in the tail.
        """

    async def read(self, account: str, after_seq: int, n: int) -> Page | TooOld:
        """Up to `n` records after `after_seq`, with the head of the same instant."""

    async def heads(self, accounts: Collection[str]) -> dict[str, Head]:
        """Where these logs end, one round trip; GENESIS for a log that does not exist."""

    async def accounts(self, partition: int | None = None) -> set[str]:
        """The accounts that have a log, of one partition or of all."""

    async def read_control(self, partition: int) -> Control:
        """The control in force."""

    async def read_controls(self) -> tuple[Control, ...]:
        """The control in force of each of the PARTITIONS, in one round trip."""

    async def advance_control(self, partition: int, change: ChangeControl) -> Control:
        """Compare-and-set until `change` has taken effect; what is in force then. Raises if that stays unknown."""

    async def advance_controls(
        self, partitions: Iterable[int], change: ChangeControl, known: Mapping[int, Control] = NOTHING_KNOWN
    ) -> dict[int, Control | StoreUnavailable]:
        """The same for many partitions at once, in about two round trips; one less for those whose control is `known`,
        if it still holds. Never raises StoreUnavailable: each partition has its own outcome, the control in force or
        why that is unknown."""

    async def control_history(self, partition: int, after_epoch: int, n: int) -> tuple[tuple[int, bytes], ...]:
        """Up to `n` (epoch, record) of the changes after an epoch, oldest first, each as durable as its own answer."""

    async def snapshot(self, account: str, snapshot: Snapshot, archived_upto: int = 0) -> None:
        """Keeps the snapshot unless a later one is kept, and trims what both it and the archive cover."""

    async def latest_snapshot(self, account: str) -> Snapshot | None: ...

    async def put_blob(self, blob: bytes) -> str:
        """Stores an immutable blob; the hash that names it."""

    async def get_blob(self, blob_hash: str) -> bytes | None: ...

    async def now_us(self) -> int:
        """The store's time."""

    async def check_settings(self, tier: "Tier") -> None:
        """Raises StoreRefused, naming each setting, when the store can't keep what the declared tier promises."""

    async def aclose(self) -> None: ...


def tail_after(
    seq: int, first_kept_seq: int, head: Head, records: Sequence[bytes], snapshot_seq: int, time_us: int
) -> tuple[tuple[bytes, ...], bool] | TooOld:
    """The records that follow `seq` as read from the store, and whether more exist; TooOld if the first are gone."""
    if head.seq > seq and first_kept_seq != seq + 1:
        return TooOld(snapshot_seq, time_us)
    return tuple(records), head.seq > seq + len(records)
