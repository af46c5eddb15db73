"""An account's log as it stands in a machine's store, folded anew: the truth that answers are held against.

Reads the store itself, past every process of ours, and the engine's fold; what the gateway says of it is not asked.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from engine.account import AccountState
from engine.control import Control, Resumed, Stop, resumed, stopped
from engine.decide import Terms
from engine.instrument import InstrumentSet
from engine.limits import LimitSet
from engine.order import Action
from engine.records import AnyRecord, Decided, decode
from engine.risk.model import decode as decode_model
from gateway.log.account_log import Appended, Head, Page, partition_of
from gateway.log.redis import RedisLog
from riskgateway.v1 import decision_pb2
from tests.e2e.desk import Verdict
from tests.e2e.machine import Machine

PAGE_RECORDS = 5_000


class _Change(msgspec.Struct):
    """What a partition's control history says of one change."""

    stop: Stop | None = None
    resume: Resumed | None = None
    limit_set: str = ""
    instrument_set: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """All records of one account, in order."""

    account: str
    records: Sequence[AnyRecord]

    def decisions(self) -> Iterator[tuple[int, Decided]]:
        """(sequence, record) of each decision."""
        for seq, record in enumerate(self.records, 1):
            if isinstance(record, Decided):
                yield seq, record

    def counted(self) -> Counter[Action]:
        return Counter(record.action for _, record in self.decisions())

    def before(self, seq: int) -> AccountState:
        """The fold of what precedes the record `seq`."""
        state = AccountState(self.account)
        for record in self.records[: seq - 1]:
            state.apply(record)
        return state

    def state(self) -> AccountState:
        return self.before(len(self.records) + 1)

    def holds(self, verdict: Verdict) -> bool:
        """Whether the log has, at the place that the answer names, what the answer says."""
        if not 1 <= verdict.sequence <= len(self.records):
            return False
        record = self.records[verdict.sequence - 1]
        return (
            isinstance(record, Decided)
            and record.order.client_order_id == verdict.client_order_id
            and record.action.name == decision_pb2.Action.Name(verdict.action).removeprefix("ACTION_")
            and record.allowed_lots == verdict.allowed_quantity  # lots of one
        )


async def read_ledger(machine: Machine, account: str) -> Ledger:
    """The account's whole log, its chain verified."""
    encoded, _ = await read_encoded(machine, account)
    return Ledger(account, [decode(record) for record in encoded])


async def read_encoded(machine: Machine, account: str) -> tuple[list[bytes], Head]:
    """The account's whole log as it was written, its chain verified, and where it ends."""
    log = RedisLog(machine.socket_path, socket_timeout_s=5.0)
    try:
        encoded: list[bytes] = []
        head = Head(0, "")
        while True:
            page = await log.read(account, head.seq, PAGE_RECORDS)
            assert isinstance(page, Page), "the log was trimmed"
            encoded += page.records
            head = head.extend(page.records)
            if not page.more:
                assert head == page.head, "the chain does not lead to the head"
                return encoded, head
    finally:
        await log.aclose()


async def append_unreadable(machine: Machine, account: str) -> None:
    """A record that no release can read, as a defect or a hand in the store would leave it."""
    log = RedisLog(machine.socket_path, socket_timeout_s=5.0)
    try:
        head = (await log.heads([account]))[account]
        result = await log.append(account, head, None, [b"{"], await log.now_us(), 5_000_000)
        assert isinstance(result, Appended), result
    finally:
        await log.aclose()


async def read_terms(machine: Machine, account: str, record: Decided) -> Terms:
    """What a decision was made under: the control state of its epoch, folded from the partition's history, and the
    blobs that the record names by hash."""
    log = RedisLog(machine.socket_path, socket_timeout_s=5.0)
    try:
        control = Control()
        for epoch, entry in await log.control_history(partition_of(account), 0, PAGE_RECORDS):
            if epoch <= record.epoch:
                control = _changed(control, epoch, msgspec.json.decode(entry, type=_Change))
        names = (record.limit_set, record.instrument_set, record.risk_model, record.shadow_set)
        limits, instruments, model, shadow = [await log.get_blob(name) if name else None for name in names]
        assert limits is not None and instruments is not None, "a blob that the record names is gone"
        return Terms(
            control,
            LimitSet.decode(limits),
            InstrumentSet.decode(instruments),
            None if model is None else decode_model(model, record.risk_model),
            None if shadow is None else LimitSet.decode(shadow),
        )
    finally:
        await log.aclose()


def _changed(control: Control, epoch: int, change: _Change) -> Control:
    if change.stop is not None:
        return stopped(control, change.stop)
    if change.resume is not None:
        return resumed(control, change.resume)[0]
    return msgspec.structs.replace(
        control, epoch=epoch, limit_set=change.limit_set, instrument_set=change.instrument_set
    )
