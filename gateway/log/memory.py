"""The account log in this process' memory: for simulation, tests and the Gymnasium environment.

The same answers as the log over Redis, without durability. Nothing awaits between comparing and appending, which
is what makes each method one step. The clock is given and plays the store's.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.errors import StoreRefused, StoreUnavailable
from gateway.log.account_log import (
    CONTROL_GENESIS,
    GENESIS,
    NOTHING_KNOWN,
    PARTITIONS,
    TAIL_RECORDS_MAX,
    Aged,
    Appended,
    AppendResult,
    ChangeControl,
    Conflict,
    Control,
    ControlHead,
    ControlMoved,
    Head,
    Page,
    Snapshot,
    TooOld,
    content_hash,
    partition_of,
    tail_after,
)
from gateway.log.bulletin import CLOSES_KEPT_MAX, AccountMoved, Lagged, MarksMoved, ModelMoved, ReportMoved, Wake
from gateway.log.bulletin import ControlMoved as ControlWoke
from gateway.log.tier import Tier

WAKES_MAX = 10_000  # a follower this far behind reads everything again more cheaply than it catches up


class MemoryBulletin:
    """A `Bulletin` of one process."""

    def __init__(self) -> None:
        self._marks: dict[str, bytes] = {}
        self._reports: dict[str, bytes] = {}
        self._model: str | None = None
        self._seen_us: dict[str, int] = {}
        self._analysts_us: dict[bytes, int] = {}
        self._closes: dict[str, dict[str, bytes]] = {}
        self._events: dict[str, bytes] = {}
        self._feeds: dict[str, bytes] = {}
        self._followers: set[asyncio.Queue[Wake]] = set()

    async def post_marks(self, marks: Mapping[str, bytes]) -> None:
        if not marks:
            return
        self._marks.update(marks)
        self.wake(MarksMoved(dict(marks)))

    async def marks(self) -> dict[str, bytes]:
        return dict(self._marks)

    async def post_report(self, account: str, report: bytes) -> None:
        self._reports[account] = report
        self.wake(ReportMoved(account))

    async def report(self, account: str) -> bytes | None:
        return self._reports.get(account)

    async def post_model(self, model_hash: str) -> None:
        self._model = model_hash
        self.wake(ModelMoved(model_hash))

    async def model(self) -> str | None:
        return self._model

    async def announce(self, address: str | None, now_us: int, since_us: int) -> frozenset[str]:
        seen_us = self._seen_us | ({address: now_us} if address is not None else {})
        self._seen_us = {name: time_us for name, time_us in seen_us.items() if time_us >= since_us}
        return frozenset(self._seen_us)

    async def post_analyst(self, card: bytes, now_us: int, since_us: int) -> None:
        noted_us = self._analysts_us | {card: now_us}
        self._analysts_us = {card: time_us for card, time_us in noted_us.items() if time_us >= since_us}

    async def analysts(self, since_us: int) -> tuple[bytes, ...]:
        recent = [(time_us, card) for card, time_us in self._analysts_us.items() if time_us >= since_us]
        return tuple(card for _, card in sorted(recent, reverse=True))

    async def keep_closes(self, session: str, closes: Mapping[str, bytes]) -> None:
        if not closes:
            return
        self._closes[session] = {**closes, **self._closes.get(session, {})}
        for forgotten in sorted(self._closes)[:-CLOSES_KEPT_MAX]:
            del self._closes[forgotten]

    async def closes(self, after: str) -> dict[str, dict[str, bytes]]:
        return {session: dict(self._closes[session]) for session in sorted(self._closes) if session > after}

    async def keep_event(self, event_id: str, event: bytes) -> bool:
        is_new = event_id not in self._events
        self._events[event_id] = event
        return is_new

    async def kept_events(self) -> dict[str, bytes]:
        return dict(self._events)

    async def keep_feed(self, source: str, feed: bytes) -> None:
        self._feeds[source] = feed

    async def feeds(self) -> dict[str, bytes]:
        return dict(self._feeds)

    async def follow(self) -> AsyncGenerator[Wake, None]:
        wakes: asyncio.Queue[Wake] = asyncio.Queue(WAKES_MAX)
        wakes.put_nowait(Lagged())
        self._followers.add(wakes)
        try:
            while True:
                yield await wakes.get()
        finally:
            self._followers.discard(wakes)

    def wake(self, wake: Wake) -> None:
        for wakes in self._followers:
            if wakes.full():
                _empty(wakes)
                wakes.put_nowait(Lagged())
            wakes.put_nowait(wake)


def _empty(wakes: asyncio.Queue[Wake]) -> None:
    while not wakes.empty():
        wakes.get_nowait()


@dataclass(slots=True)
class _Account:
    head: Head = GENESIS
    records: list[bytes] = field(default_factory=list)
    trimmed_upto: int = 0
    snapshot: Snapshot | None = None

    def after(self, seq: int, n: int, time_us: int) -> tuple[tuple[bytes, ...], bool] | TooOld:
        start = max(seq - self.trimmed_upto, 0)
        records = self.records[start : start + n]
        first_kept_seq = max(seq, self.trimmed_upto) + 1 if records else 0
        snapshot_seq = self.snapshot.seq if self.snapshot else 0
        return tail_after(seq, first_kept_seq, self.head, records, snapshot_seq, time_us)


class MemoryLog:
    """An `AccountLog` without a server. `clock`: the store's time in microseconds since the epoch."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._bulletin = MemoryBulletin()
        self._accounts: dict[str, _Account] = {}
        self._controls = [Control(CONTROL_GENESIS, b"")] * PARTITIONS
        self._histories: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
        self._blobs: dict[str, bytes] = {}

    @property
    def bulletin(self) -> MemoryBulletin:
        return self._bulletin

    async def append(
        self,
        account: str,
        expect: Head,
        control: ControlHead | None,
        records: Sequence[bytes],
        decided_at_us: int,
        age_max_us: int,
    ) -> AppendResult:
        time_us = self._clock()
        kept = self._accounts.get(account, _Account())
        in_force = self._controls[partition_of(account)]
        if kept.head != expect:
            tail = kept.after(expect.seq, TAIL_RECORDS_MAX, time_us)
            return tail if isinstance(tail, TooOld) else Conflict(kept.head, in_force.head, *tail, time_us)
        if control is not None and control != in_force.head:
            return ControlMoved(in_force, time_us)
        if control is not None and abs(time_us - decided_at_us) > age_max_us:
            return Aged(time_us)
        if records:
            self._accounts[account] = kept
            kept.records.extend(records)
            kept.head = expect.extend(records)
            self._bulletin.wake(AccountMoved(account, kept.head.seq))
        return Appended(time_us, kept.head)

    async def read(self, account: str, after_seq: int, n: int) -> Page | TooOld:
        time_us = self._clock()
        kept = self._accounts.get(account, _Account())
        tail = kept.after(after_seq, n, time_us)
        if isinstance(tail, TooOld):
            return tail
        return Page(after_seq + 1, tail[0], kept.head, time_us, tail[1])

    async def heads(self, accounts: Collection[str]) -> dict[str, Head]:
        return {name: self._accounts[name].head if name in self._accounts else GENESIS for name in accounts}

    async def accounts(self, partition: int | None = None) -> set[str]:
        written = {name for name, kept in self._accounts.items() if kept.head.seq > 0}
        return {name for name in written if partition is None or partition_of(name) == partition}

    async def read_control(self, partition: int) -> Control:
        return self._controls[partition]

    async def read_controls(self) -> tuple[Control, ...]:
        return tuple(self._controls)

    async def advance_control(self, partition: int, change: ChangeControl) -> Control:
        present = self._controls[partition]
        wanted = change(present)
        if wanted is None:
            return present
        after = Control(present.head.advance(wanted.epoch, wanted.state), wanted.state)
        self._controls[partition] = after
        self._histories[partition].append((wanted.epoch, wanted.record))
        self._bulletin.wake(ControlWoke(partition, wanted.epoch))
        return after

    async def advance_controls(
        self, partitions: Iterable[int], change: ChangeControl, known: Mapping[int, Control] = NOTHING_KNOWN
    ) -> dict[int, Control | StoreUnavailable]:
        return {partition: await self.advance_control(partition, change) for partition in partitions}

    async def control_history(self, partition: int, after_epoch: int, n: int) -> tuple[tuple[int, bytes], ...]:
        return tuple(entry for entry in self._histories[partition] if entry[0] > after_epoch)[:n]

    async def snapshot(self, account: str, snapshot: Snapshot, archived_upto: int = 0) -> None:
        kept = self._accounts.setdefault(account, _Account())
        if kept.snapshot is None or snapshot.seq >= kept.snapshot.seq:
            kept.snapshot = snapshot
        trim = min(kept.snapshot.seq, archived_upto) - kept.trimmed_upto
        if trim > 0:
            del kept.records[:trim]
            kept.trimmed_upto += trim

    async def latest_snapshot(self, account: str) -> Snapshot | None:
        return self._accounts[account].snapshot if account in self._accounts else None

    async def put_blob(self, blob: bytes) -> str:
        name = content_hash(blob)
        self._blobs[name] = blob
        return name

    async def get_blob(self, blob_hash: str) -> bytes | None:
        return self._blobs.get(blob_hash)

    async def now_us(self) -> int:
        return self._clock()

    async def check_settings(self, tier: Tier) -> None:
        raise StoreRefused(f"memory forgets everything: it can't be tier {tier.value!r}")

    async def aclose(self) -> None:
        """Nothing to close."""
