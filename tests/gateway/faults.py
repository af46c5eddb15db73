"""Logs that misbehave as real stores do: each wraps a real log and breaks one thing, when told to.

Nothing here pretends to be a store of its own: what goes through, goes through to the log below.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.log.account_log import (
    CONTROL_GENESIS,
    GENESIS,
    NOTHING_KNOWN,
    AccountLog,
    Appended,
    AppendResult,
    ChangeControl,
    Control,
    ControlHead,
    Head,
)
from gateway.log.bulletin import Lagged, Wake
from gateway.log.memory import MemoryLog


class Wrapped:
    """Delegates to another log; the others override what they break."""

    def __init__(self, log: AccountLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(
        self,
        account: str,
        expect: Head,
        control: ControlHead | None,
        records: Sequence[bytes],
        decided_at_us: int,
        age_max_us: int,
    ) -> AppendResult:
        return await self._log.append(account, expect, control, records, decided_at_us, age_max_us)


class Counting(Wrapped):
    """Notes the size of each append that went through."""

    def __init__(self, log: AccountLog) -> None:
        super().__init__(log)
        self.appended: list[int] = []

    async def append(self, *arguments: Any) -> AppendResult:
        result = await super().append(*arguments)
        if isinstance(result, Appended):
            self.appended.append(len(arguments[3]))
        return result


class LosingReplies(Wrapped):
    """Appends, and loses the next `losses` replies to it."""

    losses = 0

    async def append(self, *arguments: Any) -> AppendResult:
        result = await super().append(*arguments)
        if self.losses and isinstance(result, Appended) and arguments[3]:
            self.losses -= 1
            raise StoreUnavailable("the reply was lost")
        return result


class LosingRequests(Wrapped):
    """The next `losses` appends get lost on their way to the store."""

    losses = 0

    async def append(self, *arguments: Any) -> AppendResult:
        if self.losses:
            self.losses -= 1
            raise StoreUnavailable("the request was lost")
        return await super().append(*arguments)


class Overtaken(Wrapped):
    """Others always append just before: `ahead` is done before each append."""

    def __init__(self, log: AccountLog, ahead: Callable[[], Awaitable[object]]) -> None:
        super().__init__(log)
        self._ahead = ahead

    async def append(self, *arguments: Any) -> AppendResult:
        await self._ahead()
        return await super().append(*arguments)


class Away(Wrapped):
    """Answers no request while `away`."""

    away = False

    async def append(self, *arguments: Any) -> AppendResult:
        self._refuse()
        return await super().append(*arguments)

    async def read(self, account: str, after_seq: int, n: int) -> Any:
        self._refuse()
        return await self._log.read(account, after_seq, n)

    def _refuse(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class PausedStops(Wrapped):
    """A process that pauses right before it changes the controls, until `ready`."""

    def __init__(self, log: AccountLog) -> None:
        super().__init__(log)
        self.asked, self.ready = asyncio.Event(), asyncio.Event()

    async def advance_controls(self, *arguments: Any) -> Any:
        self.asked.set()
        await self.ready.wait()
        return await self._log.advance_controls(*arguments)


class CutOff(Wrapped):
    """A process whose connection to the store, or to its bulletin, is gone while `away`: nothing that it asks is
    answered, and `refused` says that something was asked."""

    away = False

    def __init__(self, log: Any) -> None:
        super().__init__(log)
        self.refused = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        asked = super().__getattr__(name)
        return self._unless_away(asked) if iscoroutinefunction(asked) else asked

    async def append(self, *arguments: Any) -> AppendResult:
        result: AppendResult = await self._unless_away(super().append)(*arguments)
        return result

    async def advance_controls(
        self, partitions: Iterable[int], change: ChangeControl, known: Mapping[int, Control] = NOTHING_KNOWN
    ) -> dict[int, Control | StoreUnavailable]:
        if self.away:
            return {partition: StoreUnavailable("cut off") for partition in partitions}
        return await self._log.advance_controls(partitions, change, known)

    def _unless_away(self, asked: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*arguments: Any) -> Any:
            if self.away:
                self.refused.set()
                raise StoreUnavailable("cut off")
            return await asked(*arguments)

        return ask


class AwayInPart(Wrapped):
    """A store on several machines, of which those with the partitions in `away` do not answer."""

    def __init__(self, log: AccountLog, away: Iterable[int] = ()) -> None:
        super().__init__(log)
        self.away = set(away)
        self.complete = asyncio.Event()
        """Set once a change reached every partition that it was meant for."""

    async def advance_controls(
        self, partitions: Iterable[int], change: ChangeControl, known: Mapping[int, Control] = NOTHING_KNOWN
    ) -> dict[int, Control | StoreUnavailable]:
        asked = set(partitions)
        outcome = await self._log.advance_controls(asked - self.away, change, known)
        if not asked & self.away:
            self.complete.set()
        return outcome | {partition: StoreUnavailable("away") for partition in asked & self.away}


class Deaf(Wrapped):
    """Hears of nothing after its start but what its own requests bring back."""

    @property
    def bulletin(self) -> Any:
        return DeafBulletin(self._log)

    async def read_controls(self) -> Any:
        started, self.read_controls = await self._log.read_controls(), self._as_at_start  # type: ignore[method-assign]
        self._started = started
        return started

    async def _as_at_start(self) -> Any:
        return self._started


class DeafBulletin:
    """Follows nothing after the first reading of everything."""

    def __init__(self, log: AccountLog) -> None:
        self._bulletin = log.bulletin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bulletin, name)

    async def follow(self) -> AsyncGenerator[Wake, None]:
        yield Lagged()
        await asyncio.Event().wait()


class Yielding(Wrapped):
    """Lets others run while it works, as a store over a socket does."""

    async def append(self, *arguments: Any) -> AppendResult:
        for _ in range(10):
            await asyncio.sleep(0)
        return await super().append(*arguments)


class SlowBlobs(Wrapped):
    """Blobs come only while `ready` is set; `asked` says that one was asked for."""

    def __init__(self, log: AccountLog) -> None:
        super().__init__(log)
        self.ready, self.asked = asyncio.Event(), asyncio.Event()
        self.ready.set()

    async def get_blob(self, blob_hash: str) -> bytes | None:
        self.asked.set()
        await self.ready.wait()
        return await self._log.get_blob(blob_hash)


def lose_records(log: MemoryLog, account: str, keep: int, then: Sequence[bytes] = ()) -> None:
    """The store comes back with the first `keep` records of an account, and `then` where the others were."""
    kept = log._accounts[account]
    del kept.records[keep:]
    kept.records.extend(then)
    kept.head = GENESIS.extend(kept.records)


def lose_control(log: MemoryLog, partition: int, back_to: Control | None = None) -> None:
    """The store comes back with an older control state of a partition, by default that of the beginning."""
    log._controls[partition] = back_to or Control(CONTROL_GENESIS, b"")
