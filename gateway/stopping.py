"""StopAll and Resume: advancing the control head of every partition in scope.

A stop is done when every partition has acknowledged it; while one has not, it goes on trying here until it does, also
after its caller was told UNAVAILABLE. No order is decided here, and none has to be: every approval is appended only
under the control head that it was decided under.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from engine.control import Control, Resumed, Scope, Stop, TradingState, decode_control, encode_control, resumed, stopped
from gateway.errors import StoreError, StoreUnavailable
from gateway.log.account_log import NOTHING_KNOWN, PARTITIONS, AccountLog, ChangeControl, ControlChange, partition_of
from gateway.log.account_log import Control as StoredControl
from gateway.tasks import ended
from gateway.terms import TermsShelf

LOGGER = structlog.get_logger()
RETRY_S = 0.1


class StopIncomplete(StoreUnavailable):
    """Some partitions have not acknowledged a stop yet; it is being tried on until they do."""

    def __init__(self, missing: Collection[int], problem: str) -> None:
        self.missing = tuple(sorted(missing))
        self.state_of_affairs = (
            f"{len(missing)} of {PARTITIONS} partitions have not acknowledged the stop yet "
            f"(partitions {', '.join(map(str, self.missing))}): {problem}"
        )
        super().__init__(f"{self.state_of_affairs}; it goes on trying, repeat StopAll to learn when it is complete")


class StopUnderWay(StoreUnavailable):
    """This process was told to stop and has not everybody's acknowledgement: it approves nothing meanwhile."""

    def __init__(self) -> None:
        super().__init__("a stop is being carried out; ask again with the same ids when it is complete")


@dataclass(frozen=True, slots=True)
class StopOutcome:
    epoch: int
    """The highest epoch that the stop created."""
    partitions: int
    time_us: int


@dataclass(frozen=True, slots=True)
class ResumeOutcome:
    epoch: int
    lifted: tuple[Stop, ...]
    refused: tuple[Stop, ...]
    """In the scope of the resume, and still in force: of a wider scope, or set by a higher rank."""


def partitions_of(scope: Scope) -> tuple[int, ...]:
    return (partition_of(scope.account),) if scope.account else tuple(range(PARTITIONS))


class Stopper:
    """Stops and resumes over one log. Keeps unacknowledged stops going; `aclose` ends that."""

    def __init__(self, log: AccountLog, shelf: TermsShelf | None = None) -> None:
        """`shelf`: the control states as this process last heard of them. A stop that need not read them first is
        sooner in force; where they are old, the store says so and the stop goes on from what it says."""
        self._log, self._shelf = log, shelf
        self._trying: set[asyncio.Task[None]] = set()

    @property
    def unfinished(self) -> bool:
        """Whether a stop is still being tried: nothing may be resumed or served as healthy meanwhile."""
        return bool(self._trying)

    async def stop(self, scope: Scope, state: TradingState, reason: str, actor: str, rank: int) -> StopOutcome:
        """Returns when every partition in scope has acknowledged. Raises StopIncomplete, and goes on trying."""
        time_us = 0
        try:
            time_us = await self._log.now_us()
        except StoreError:
            LOGGER.warning("stopping without the store's time")

        known = await self._known(scope)
        common = common_epoch(known)

        def change(stored: StoredControl) -> ControlChange:
            control = decode_control(stored.state)
            epoch = max(stored.head.epoch + 1, common)
            stop = Stop(scope, state, epoch, time_us, actor, reason, rank)
            return _change(stopped(control, stop), {"stop": stop})

        outcome = await self._advance(scope, change, known)
        missing = {p: result for p, result in outcome.items() if isinstance(result, StoreUnavailable)}
        if missing:
            self._keep_trying(tuple(missing), change)
            raise StopIncomplete(missing.keys(), str(next(iter(missing.values()))))
        epochs = [result.head.epoch for result in outcome.values() if isinstance(result, StoredControl)]
        return StopOutcome(max(epochs), len(epochs), time_us)

    async def _known(self, scope: Scope) -> Mapping[int, StoredControl]:
        """The control states in scope as last heard, else as the store has them now; none where it does not answer."""
        try:
            known = (
                self._shelf.stored_controls()
                if self._shelf is not None
                else dict(enumerate(await self._log.read_controls()))
            )
        except StoreError:
            return NOTHING_KNOWN  # a change reads what it is not told, partition by partition
        return {partition: known[partition] for partition in partitions_of(scope) if partition in known}

    async def _advance(
        self, scope: Scope, change: ChangeControl, known: Mapping[int, StoredControl]
    ) -> dict[int, StoredControl | StoreUnavailable]:
        outcome = await self._log.advance_controls(partitions_of(scope), change, known)
        if self._shelf is not None:
            for partition, result in outcome.items():
                if isinstance(result, StoredControl):
                    await self._remember(self._shelf, partition, result)
        return outcome

    async def _remember(self, shelf: TermsShelf, partition: int, stored: StoredControl) -> None:
        try:
            await shelf.take(partition, stored)
        except StoreError as error:  # what was changed is in force all the same; the sweep takes it in
            LOGGER.warning("a control state could not be taken in", partition=partition, problem=str(error))

    def _keep_trying(self, missing: tuple[int, ...], change: ChangeControl) -> None:
        task = asyncio.create_task(self._until_acknowledged(missing, change))
        self._trying.add(task)
        task.add_done_callback(self._trying.discard)

    async def _until_acknowledged(self, missing: tuple[int, ...], change: ChangeControl) -> None:
        while missing:
            await asyncio.sleep(RETRY_S)
            try:
                outcome = await self._log.advance_controls(missing, change)
            except StoreError as error:
                LOGGER.error("stop refused by the store, it is tried again", problem=str(error))
                continue
            missing = tuple(p for p, result in outcome.items() if isinstance(result, StoreUnavailable))
        LOGGER.warning("stop acknowledged by every partition")

    async def resume(self, scope: Scope, reason: str, actor: str, rank: int) -> ResumeOutcome:
        """Lift the stops that `scope` covers, and the accounts' own latches in it. Raises StoreUnavailable where a
        partition did not acknowledge: it then stays stopped."""
        if self.unfinished:
            raise StoreUnavailable("a stop is not yet acknowledged by every partition; resume when it is")
        time_us = await self._log.now_us()
        lifted: dict[Scope, Stop] = {}
        refused: dict[Scope, Stop] = {}
        known = await self._known(scope)
        common = common_epoch(known)

        def change(stored: StoredControl) -> ControlChange:
            resume = Resumed(scope, max(stored.head.epoch + 1, common), time_us, actor, reason, rank)
            control, gone, kept = resumed(decode_control(stored.state), resume)
            lifted.update({stop.scope: stop for stop in gone})
            refused.update({stop.scope: stop for stop in kept})
            return _change(control, {"resume": resume})

        outcome = await self._advance(scope, change, known)
        problems = [result for result in outcome.values() if isinstance(result, StoreUnavailable)]
        if problems:
            raise problems[0]
        epochs = [result.head.epoch for result in outcome.values() if isinstance(result, StoredControl)]
        return ResumeOutcome(max(epochs), tuple(lifted.values()), tuple(refused.values()))

    async def aclose(self) -> None:
        await ended(self._trying)


def common_epoch(known: Mapping[int, StoredControl]) -> int:
    """The epoch that a change of all these partitions gives each of them, but where one has moved on meanwhile."""
    return max((stored.head.epoch for stored in known.values()), default=0) + 1


def _change(control: Control, entry: dict[str, object]) -> ControlChange:
    return ControlChange(control.epoch, encode_control(control), msgspec.json.encode(entry))
