"""The account log over Redis ≥ 7.0 or Valkey: keys, three small scripts, and their replies as values.

All keys of an account and its control stand under one hash tag, so each script touches one slot of a Cluster.
No business rule, no retry of an append: what it answers goes to the committer. Only commands that Redis 7.0 has.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.errors import StoreError, StoreRefused, StoreUnavailable
from gateway.log.account_log import (
    NOTHING_KNOWN,
    PARTITIONS,
    TAIL_RECORDS_MAX,
    Aged,
    Appended,
    AppendResult,
    ChangeControl,
    Conflict,
    Control,
    ControlChange,
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
from gateway.log.bulletin import CONTROL_CHANNEL, account_wake, control_wakes
from gateway.log.link import CONNECTIONS_MAX, SOCKET_TIMEOUT_S, Call, RedisLink, Script
from gateway.log.redis_bulletin import HEARTBEAT_S, RedisBulletin, account_key, wake_channel
from gateway.log.tier import Tier, contradictions

CONTROL_ATTEMPTS_MAX = 64  # each lost one means that another writer's change went through; operators are not that many


def control_key(partition: int) -> str:
    return f"{{p{partition}}}:ctl"


def accounts_key(partition: int) -> str:
    return f"{{p{partition}}}:accounts"


class RedisLog:
    """An `AccountLog` on one Redis. `address`: a redis://, rediss:// or unix:// URL, or the path of a unix socket.

    `wait_replicas`: how many replicas must have an append, a control change or a snapshot before it counts; with
    fewer in time it raises StoreUnavailable, and the outcome is unknown. `heartbeat_s`: the silence after which a
    follower's connection is pinged; as long again without an answer, and it connects anew.
    """

    def __init__(
        self,
        address: str | Path,
        *,
        socket_timeout_s: float = SOCKET_TIMEOUT_S,
        connections_max: int = CONNECTIONS_MAX,
        wait_replicas: int = 0,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._link = RedisLink(
            address, socket_timeout_s=socket_timeout_s, connections_max=connections_max, wait_replicas=wait_replicas
        )
        self._append, self._advance, self._snapshot = (
            Script(Path(__file__).with_name(f"{action}.lua")) for action in ("append", "control", "snapshot")
        )
        self._bulletin = RedisBulletin(self._link, heartbeat_s)

    @property
    def bulletin(self) -> RedisBulletin:
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
        after = expect.extend(records)
        call = _append_call(account, expect, after, control, records, decided_at_us, age_max_us)
        match await self._link.run(self._append, call):
            case [b"ok", time_us]:
                return Appended(time_us, after)
            case [b"aged", time_us]:
                return Aged(time_us)
            case [b"control", time_us, head, state]:
                return ControlMoved(Control(ControlHead.decode(head), state), time_us)
            case [b"conflict", time_us, head, in_force, tail, snapshot_seq]:
                return _conflict(expect, Head.decode(head), in_force, tail, int(snapshot_seq), time_us)
            case reply:
                raise StoreRefused(f"unknown reply to an append: {reply!r}")

    async def read(self, account: str, after_seq: int, n: int) -> Page | TooOld:
        head_encoded, entries, snapshot_seq, time = await self._link.all(
            [
                ("GET", account_key(account, "head")),
                ("XRANGE", account_key(account, "log"), f"{after_seq + 1}-0", "+", "COUNT", n),
                ("HGET", account_key(account, "snap"), "seq"),
                ("TIME",),
            ]
        )
        head, time_us = Head.decode(head_encoded), _time_us(time)
        first_kept_seq = _seq(entries[0][0]) if entries else 0
        # What another appended between our first and second command lies beyond the head, and is cut off.
        records = [fields[b"r"] for entry, fields in entries if _seq(entry) <= head.seq]
        tail = tail_after(after_seq, first_kept_seq, head, records, int(snapshot_seq or 0), time_us)
        if isinstance(tail, TooOld):
            return tail
        return Page(after_seq + 1, tail[0], head, time_us, tail[1])

    async def heads(self, accounts: Collection[str]) -> dict[str, Head]:
        names = list(accounts)
        encoded = await self._link.all([("GET", account_key(name, "head")) for name in names])
        return {name: Head.decode(head) for name, head in zip(names, encoded, strict=True)}

    async def accounts(self, partition: int | None = None) -> set[str]:
        partitions = range(PARTITIONS) if partition is None else [partition]
        members = await self._link.all([("SMEMBERS", accounts_key(p)) for p in partitions])
        return {name.decode() for names in members for name in names}

    async def read_control(self, partition: int) -> Control:
        return (await self._read_controls([partition]))[0]

    async def read_controls(self) -> tuple[Control, ...]:
        return tuple(await self._read_controls(range(PARTITIONS)))

    async def advance_control(self, partition: int, change: ChangeControl) -> Control:
        outcome = (await self.advance_controls([partition], change))[partition]
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome

    async def advance_controls(
        self, partitions: Iterable[int], change: ChangeControl, known: Mapping[int, Control] = NOTHING_KNOWN
    ) -> dict[int, Control | StoreUnavailable]:
        open_partitions = list(partitions)
        outcomes: dict[int, Control | StoreUnavailable] = {}
        unknown = StoreUnavailable(f"others changed the control {CONTROL_ATTEMPTS_MAX} times meanwhile")
        try:
            controls = {p: known[p] for p in open_partitions if p in known}
            unread = [p for p in open_partitions if p not in known]
            if unread:
                controls.update(zip(unread, await self._read_controls(unread), strict=True))
            for _ in range(CONTROL_ATTEMPTS_MAX):
                controls = await self._advance_once(controls, change, outcomes)
                if not controls:
                    return outcomes
        except StoreUnavailable as error:
            unknown = error
        return {partition: outcomes.get(partition, unknown) for partition in open_partitions}

    async def control_history(self, partition: int, after_epoch: int, n: int) -> tuple[tuple[int, bytes], ...]:
        history = f"{control_key(partition)}:log"
        commands = [("XRANGE", history, f"{after_epoch + 1}-0", "+", "COUNT", n)]
        (entries,) = await self._link.all_durable(commands)  # a stop that is found here counts as acknowledged
        return tuple((_seq(entry), fields[b"r"]) for entry, fields in entries)

    async def snapshot(self, account: str, snapshot: Snapshot, archived_upto: int = 0) -> None:
        keys = (account_key(account, "snap"), account_key(account, "log"))
        fields = (snapshot.seq, snapshot.hash, snapshot.state_hash, snapshot.fold_version, snapshot.blob)
        await self._link.run(self._snapshot, Call(keys, (archived_upto, *fields)))

    async def latest_snapshot(self, account: str) -> Snapshot | None:
        kept = await self._link.one("HGETALL", account_key(account, "snap"))
        if not kept:
            return None
        return Snapshot(
            seq=int(kept[b"seq"]),
            hash=kept[b"hash"].decode(),
            state_hash=kept[b"state_hash"].decode(),
            fold_version=int(kept[b"fold_version"]),
            blob=kept[b"blob"],
        )

    async def put_blob(self, blob: bytes) -> str:
        name = content_hash(blob)
        await self._link.all_durable([("SET", f"blob:{name}", blob, "NX")])
        return name

    async def get_blob(self, blob_hash: str) -> bytes | None:
        blob: bytes | None = await self._link.one("GET", f"blob:{blob_hash}")
        return blob

    async def now_us(self) -> int:
        return _time_us(await self._link.one("TIME"))

    async def check_settings(self, tier: Tier) -> None:
        found = list(contradictions(tier, await self._link.settings()))
        if found:
            raise StoreRefused("the store's settings contradict the declared tier: " + "; ".join(found))

    async def aclose(self) -> None:
        await self._link.aclose()

    async def _read_controls(self, partitions: Iterable[int]) -> list[Control]:
        keys = [control_key(p) for p in partitions]
        replies = await self._link.all_durable([("MGET", key, f"{key}:state") for key in keys])
        return [_control(head, state) for head, state in replies]

    async def _advance_once(
        self, controls: dict[int, Control], change: ChangeControl, outcomes: dict[int, Control | StoreUnavailable]
    ) -> dict[int, Control]:
        """One round for all partitions: notes what is settled, returns what others changed meanwhile."""
        calls: dict[int, Call] = {}
        advanced: dict[int, Control] = {}
        for partition, control in controls.items():
            wanted = change(control)
            if wanted is None:
                outcomes[partition] = control
                continue
            advanced[partition] = Control(control.head.advance(wanted.epoch, wanted.state), wanted.state)
            calls[partition] = _control_call(partition, control.head, advanced[partition], wanted)
        if not calls:
            return {}
        moved: dict[int, Control] = {}
        for partition, reply in zip(calls, await self._link.run_each(self._advance, list(calls.values())), strict=True):
            match reply:
                case [b"ok"]:
                    outcomes[partition] = advanced[partition]
                case [b"moved", head, state]:
                    moved[partition] = _control(head, state)
                case StoreUnavailable():
                    outcomes[partition] = reply
                case StoreError():
                    raise reply
        await self._announce([(p, c.head.epoch) for p, c in advanced.items() if outcomes.get(p) is c])
        return moved

    async def _announce(self, epochs: list[tuple[int, int]]) -> None:
        """One message for all partitions that moved: a stop of everything would else wake every process 64 times. It
        is a hint: who misses it finds out at the next append, or within a second."""
        if epochs:
            with suppress(StoreUnavailable):
                await self._link.one("PUBLISH", CONTROL_CHANNEL, control_wakes(epochs))


def _append_call(
    account: str,
    expect: Head,
    after: Head,
    control: ControlHead | None,
    records: Sequence[bytes],
    decided_at_us: int,
    age_max_us: int,
) -> Call:
    partition = partition_of(account)
    keys = (
        account_key(account, "head"),
        account_key(account, "log"),
        control_key(partition),
        f"{control_key(partition)}:state",
        accounts_key(partition),
        account_key(account, "snap"),
    )
    expected = (expect.encode(), after.encode(), b"" if control is None else control.encode())
    bounds = (decided_at_us, age_max_us, TAIL_RECORDS_MAX)
    notice = (account, wake_channel(partition), account_wake(account, after.seq))
    return Call(keys, (*expected, *bounds, *notice, *records))


def _control_call(partition: int, expect: ControlHead, after: Control, wanted: ControlChange) -> Call:
    key, epoch = control_key(partition), after.head.epoch
    change = (expect.encode(), after.head.encode(), after.state, epoch, wanted.record)
    return Call((key, f"{key}:state", f"{key}:log"), change)


def _conflict(
    expect: Head, head: Head, control: bytes, entries: list[Any], snapshot_seq: int, time_us: int
) -> Conflict | TooOld:
    first_kept_seq = _seq(entries[0][0]) if entries else 0
    records = [fields[1] for _, fields in entries]
    tail = tail_after(expect.seq, first_kept_seq, head, records, snapshot_seq, time_us)
    if isinstance(tail, TooOld):
        return tail
    return Conflict(head, ControlHead.decode(control), tail[0], tail[1], time_us)


def _control(head: bytes | None, state: bytes | None) -> Control:
    return Control(ControlHead.decode(head), state or b"")


def _time_us(time: tuple[int, int]) -> int:
    seconds, microseconds = time
    return int(seconds) * 1_000_000 + int(microseconds)


def _seq(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
