"""StopAll and Resume: advancing the control head of every partition in scope.

A stop is done when every partition has acknowledged it. While one has not, this process approves nothing, goes on
trying until it has, has it written down so that a restart goes on too, and has the other gateways told to do the same.
No order is decided here, and none has to be: every approval is appended only under the control head that it was decided
under.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import structlog

from engine.control import Control, Resumed, Scope, Stop, TradingState, decode_control, encode_control, resumed, stopped
from gateway.errors import StoreError, StoreRefused, StoreUnavailable
from gateway.log.account_log import (
    NOTHING_KNOWN,
    PARTITIONS,
    AccountLog,
    ChangeControl,
    ControlChange,
    ControlHead,
    partition_of,
)
from gateway.log.account_log import Control as StoredControl
from gateway.pending_stops import PendingStop, PendingStops
from gateway.tasks import ended
from gateway.terms import TermsShelf

LOGGER = structlog.get_logger()
RETRY_S = 0.1
WATCH_S = 1.0
"""How often the data directory is looked into for stops that others wrote down: one listing of a folder."""

HISTORY_PAGE = 256

Tell = Callable[[PendingStop], Awaitable[str]]
"""Has every other gateway told of a stop, without the store; says how many of them were."""


class StopIncomplete(StoreUnavailable):
    """Some partitions have not acknowledged a stop yet; it is being tried on until they do."""

    def __init__(self, missing: Collection[int], problem: str, *measures: str) -> None:
        """`measures`: what is done about it beside trying on, in words."""
        self.missing = tuple(sorted(missing))
        named = "" if len(missing) == PARTITIONS else f" (partitions {', '.join(map(str, self.missing))})"
        self.state_of_affairs = (
            f"{len(missing)} of {PARTITIONS} partitions have not acknowledged the stop yet{named}: {problem}"
        )
        going_on = "it goes on trying, repeat StopAll to learn when it is complete"
        super().__init__("; ".join((self.state_of_affairs, *measures, going_on)))


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


@dataclass(slots=True)
class UnderWay:
    """A stop that is being carried out."""

    stop: PendingStop
    missing: set[int]
    task: asyncio.Task[int] | None = None

    def covers(self, stop: PendingStop) -> bool:
        """Whether carrying this one out brings everything into force that the other one still lacks."""
        own = self.stop
        at_least = own.state >= stop.state and own.rank >= stop.rank and own.flatten >= stop.flatten
        return own.scope == stop.scope and at_least and self.missing.issuperset(stop.missing)


def partitions_of(scope: Scope) -> tuple[int, ...]:
    return (partition_of(scope.account),) if scope.account else tuple(range(PARTITIONS))


class Stopper:
    """Stops and resumes over one log. `start` before serving, `aclose` at the end."""

    def __init__(
        self,
        log: AccountLog,
        shelf: TermsShelf | None = None,
        files: PendingStops | None = None,
        tell: Tell | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """`shelf`: the control states as this process last heard of them. A stop that need not read them first is
        sooner in force; where they are old, the store says so and the stop goes on from what it says. `files`: where
        incomplete stops are written down; without them a stop is tried on for as long as this process lives."""
        self._log, self._shelf, self._files, self._tell, self._new_id = log, shelf, files, tell, new_id
        self._trying: dict[str, UnderWay] = {}
        """By the stop's id. What is in here leaves it when it is complete, and for no other reason."""
        self._done: set[str] = set()
        self._unseen = False
        """Whether what others wrote down could not be looked for the last time."""
        self._filing = asyncio.Lock()
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def unfinished(self) -> bool:
        """Whether a stop is still being tried, or may be written down unseen: nothing may be approved or resumed
        meanwhile."""
        return bool(self._trying) or self._unseen

    async def start(self) -> None:
        """Go on with what is written down and not complete, and from now on with what is written down by others."""
        if self._files is not None:
            await self._take_up(self._files)
            self._watching.add(asyncio.create_task(self._watch(self._files)))

    async def _watch(self, files: PendingStops) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            await self._take_up(files)

    async def _take_up(self, files: PendingStops) -> None:
        for stop in await self._written_down(files):
            if stop.id in self._done:
                await asyncio.to_thread(files.discard, stop.id)
            elif stop.id not in self._trying:
                LOGGER.warning(
                    "a stop is written down as incomplete: it is carried out, nothing is approved meanwhile",
                    stop=stop.id,
                    scope=str(stop.scope),
                    reason=stop.reason,
                )
                self._carry(stop)

    async def _written_down(self, files: PendingStops) -> list[PendingStop]:
        """None where this process lacks the means to look, say descriptors: it looks again in a moment."""
        try:
            found = await asyncio.to_thread(files.read, frozenset(self._trying))
        except OSError as error:
            if not self._unseen:
                LOGGER.error("written stops can't be looked for: nothing is approved till then", problem=str(error))
            self._unseen = True
            return []
        self._unseen = False
        return found

    async def stop(
        self, scope: Scope, state: TradingState, reason: str, actor: str, rank: int, flatten: bool = False
    ) -> StopOutcome:
        """Returns when every partition in scope has acknowledged. Raises StopIncomplete, and goes on trying."""
        time_us = 0
        try:
            time_us = await self._log.now_us()
        except StoreError:
            LOGGER.warning("stopping without the store's time")

        known = await self._known(scope)
        partitions = partitions_of(scope)
        since = min((known[p].head.epoch for p in partitions), default=0) if len(known) == len(partitions) else 0
        stop = PendingStop(self._new_id(), scope, state, reason, actor, rank, partitions, time_us, since, flatten)
        acknowledged, problems = await self._put_in_force(stop, partitions, known)
        if problems:
            await self._go_on(msgspec.structs.replace(stop, missing=tuple(problems)), next(iter(problems.values())))
        return StopOutcome(max(acknowledged.values()), len(acknowledged), time_us)

    async def take_on(self, stop: PendingStop, patience_s: float) -> StopOutcome:
        """A stop that another gateway could not complete: from here on nothing is approved until it is complete.
        Raises StopIncomplete where that takes longer than `patience_s`, and goes on trying."""
        under_way = self._trying.get(stop.id) or self._carry(stop)
        assert under_way.task is not None, "what is under way has a task"
        await asyncio.wait({under_way.task}, timeout=patience_s)
        if under_way.task.done():
            return StopOutcome(under_way.task.result(), len(stop.missing), stop.time_us)
        kept = await self._write_down(stop)
        raise StopIncomplete(under_way.missing, "the store has not acknowledged what was passed on", kept)

    async def _go_on(self, stop: PendingStop, problem: StoreError) -> NoReturn:
        """A repetition joins what is under way: during an outage nobody counts how often StopAll is asked for."""
        joined = next((under_way.stop for under_way in self._trying.values() if under_way.covers(stop)), None)
        carried = joined or self._carry(stop).stop
        kept, told = await asyncio.gather(self._write_down(carried), self._told(carried))
        raise StopIncomplete(stop.missing, str(problem), told, kept)

    async def _told(self, stop: PendingStop) -> str:
        return await self._tell(stop) if self._tell is not None else "no other gateway is known"

    async def _write_down(self, stop: PendingStop) -> str:
        """Whether the stop outlives this process, in words."""
        if self._files is None:
            return "it is not written down (no data directory) and ends with this process"
        async with self._filing:
            if stop.id not in self._trying:
                return "it is complete by now"
            try:
                await asyncio.to_thread(self._files.write, stop)
            except OSError as error:
                LOGGER.error("a stop could not be written down, it ends with this process", problem=str(error))
                return "it could not be written down and ends with this process"
        return "it is written down and outlives a restart"

    async def _finish(self, stop: PendingStop) -> None:
        async with self._filing:
            if self._files is not None:
                await asyncio.to_thread(self._files.discard, stop.id)
            self._done.add(stop.id)
            del self._trying[stop.id]

    def _carry(self, stop: PendingStop) -> UnderWay:
        under_way = self._trying[stop.id] = UnderWay(stop, set(stop.missing))
        under_way.task = asyncio.create_task(self._carry_out(stop, under_way.missing))
        return under_way

    async def _carry_out(self, stop: PendingStop, missing: set[int]) -> int:
        """Try until every partition has acknowledged; the highest epoch. Nothing but that, and `aclose`, ends it."""
        highest, said = 0, ""
        while True:
            try:
                acknowledged, problem = await self._try_again(stop, missing)
            except Exception as error:  # outermost loop: logged, and a stop that fails must be tried again
                acknowledged, problem = {}, repr(error)
                if problem != said:
                    LOGGER.exception("carrying out a stop failed, it is tried again", stop=stop.id)
            highest = max(highest, *acknowledged.values(), 0)
            missing -= acknowledged.keys()
            if not missing:
                break
            if problem != said:
                LOGGER.error(
                    "a stop is incomplete, it is tried again", stop=stop.id, missing=len(missing), problem=problem
                )
                said = problem
            await asyncio.sleep(RETRY_S)
        LOGGER.warning("stop acknowledged by every partition", stop=stop.id)
        await self._finish(stop)
        return highest

    async def _try_again(self, stop: PendingStop, missing: Collection[int]) -> tuple[dict[int, int], str]:
        """(epoch by partition that has acknowledged, what keeps the others from it). A partition that had acknowledged
        already, whoever asked it, is not asked again: the stop may have been lifted since."""
        try:
            now_us = await self._log.now_us()
        except StoreError as error:
            return {}, str(error)
        partitions = sorted(missing)
        found = await asyncio.gather(*(self._looked_up(stop, partition) for partition in partitions))
        acknowledged = {p: epoch for p, epoch in zip(partitions, found, strict=True) if isinstance(epoch, int)}
        problems = {p: error for p, error in zip(partitions, found, strict=True) if isinstance(error, StoreError)}
        without = {p: stored for p, stored in zip(partitions, found, strict=True) if isinstance(stored, StoredControl)}
        if without:
            timed = stop if stop.time_us else msgspec.structs.replace(stop, time_us=now_us)
            more, refused = await self._put_in_force(timed, without, without, unmoved=True)
            acknowledged.update(more)
            problems.update(refused)
        return acknowledged, str(next(iter(problems.values()), ""))

    async def _looked_up(self, stop: PendingStop, partition: int) -> int | StoredControl | StoreError:
        """The epoch at which the partition acknowledged the stop, the control up to which it has not, or why that is
        unknown."""
        after = stop.since_epoch
        try:
            stored = await self._log.read_control(partition)
            while entries := await self._log.control_history(partition, after, HISTORY_PAGE):
                for after, record in entries:
                    if _id_of(record) == stop.id:
                        return after
        except StoreError as error:
            return error
        return stored

    async def _put_in_force(
        self,
        stop: PendingStop,
        partitions: Collection[int],
        known: Mapping[int, StoredControl],
        unmoved: bool = False,
    ) -> tuple[dict[int, int], dict[int, StoreError]]:
        """(epoch by partition that has acknowledged, why by partition that has not). `unmoved`: only where the control
        is still as `known`, because in what came since another process may have put it in force, or lifted it."""
        common, heads = common_epoch(known), {stored.head for stored in known.values()}
        moved: set[ControlHead] = set()

        def change(stored: StoredControl) -> ControlChange | None:
            if unmoved and stored.head not in heads:
                moved.add(stored.head)
                return None
            epoch = max(stored.head.epoch + 1, common)
            new = Stop(stop.scope, stop.state, epoch, stop.time_us, stop.actor, stop.reason, stop.rank, stop.flatten)
            return _change(stopped(_decoded(stored), new), {"stop": new, "id": stop.id})

        outcome: dict[int, StoredControl | StoreError] = {}
        try:
            outcome |= await self._advance(partitions, change, known)
        except StoreError as refusal:
            LOGGER.error("a stop is refused by the store, it is tried partition by partition", problem=str(refusal))
            for partition in partitions:  # one that this release can't read must not keep the others from stopping
                try:
                    outcome |= await self._advance([partition], change, NOTHING_KNOWN)
                except StoreError as error:
                    outcome[partition] = error
        passed_over = StoreUnavailable("others changed the control meanwhile")
        judged = {p: passed_over if _ends_in(result, moved) else result for p, result in outcome.items()}
        acknowledged = {p: result.head.epoch for p, result in judged.items() if isinstance(result, StoredControl)}
        return acknowledged, {p: result for p, result in judged.items() if isinstance(result, StoreError)}

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
        self, partitions: Iterable[int], change: ChangeControl, known: Mapping[int, StoredControl]
    ) -> dict[int, StoredControl | StoreUnavailable]:
        outcome = await self._log.advance_controls(partitions, change, known)
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
            control, gone, kept = resumed(_decoded(stored), resume)
            lifted.update({stop.scope: stop for stop in gone})
            refused.update({stop.scope: stop for stop in kept})
            return _change(control, {"resume": resume})

        outcome = await self._advance(partitions_of(scope), change, known)
        problems = [result for result in outcome.values() if isinstance(result, StoreUnavailable)]
        if problems:
            raise problems[0]
        epochs = [result.head.epoch for result in outcome.values() if isinstance(result, StoredControl)]
        return ResumeOutcome(max(epochs), tuple(lifted.values()), tuple(refused.values()))

    async def aclose(self) -> None:
        carrying = (under_way.task for under_way in self._trying.values() if under_way.task is not None)
        await ended([*self._watching, *carrying])


def common_epoch(known: Mapping[int, StoredControl]) -> int:
    """The epoch that a change of all these partitions gives each of them, but where one has moved on meanwhile."""
    return max((stored.head.epoch for stored in known.values()), default=0) + 1


def _change(control: Control, entry: dict[str, object]) -> ControlChange:
    return ControlChange(control.epoch, encode_control(control), msgspec.json.encode(entry))


def _decoded(stored: StoredControl) -> Control:
    """Raises StoreRefused where another release wrote what this one can't read."""
    try:
        return decode_control(stored.state)
    except (ValueError, msgspec.MsgspecError) as error:
        raise StoreRefused(f"this release can't read a control state of epoch {stored.head.epoch}: {error}") from error


def _ends_in(outcome: StoredControl | StoreError, heads: Collection[ControlHead]) -> bool:
    return isinstance(outcome, StoredControl) and outcome.head in heads


class _Entry(msgspec.Struct):
    id: str = ""


def _id_of(record: bytes) -> str:
    """The id of the stop that a record of the control history tells of; empty if it is of something else."""
    try:
        return msgspec.json.decode(record, type=_Entry).id
    except (ValueError, msgspec.MsgspecError):
        return ""
