"""StreamInstructions: what an execution engine has to do, and what it says of it.

The account's log is the queue: whatever is out and not done is sent to every stream that subscribes, in sequence, and
what is instructed later follows as it is folded. A reader that is slow, or gone, loses nothing and holds up nobody.
Answers are records like all facts: those that came together are appended together. Nothing is instructed here.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from engine.account import AccountState, Instruction
from engine.decide import Terms
from engine.instructions import Outcome, account_of, answered
from engine.records import AnyRecord, InstructionStatus
from gateway.accounts import Subscription
from gateway.errors import DeadlinePassed, Draining, StoreError, UnknownAccount
from gateway.rpc.backend import OF_ONE_ACCOUNT, Backend
from gateway.rpc.convert import instructions as convert
from gateway.rpc.convert.form import Invalid
from gateway.tasks import ended
from riskgateway.v1 import risk_gateway_pb2

LOGGER = structlog.get_logger()
OUTCOMES_MAX = 1_000
"""Answers read ahead of the store: a reader that sends more waits."""

SENT_MAX = 100_000
"""Ids whose repeats are counted; of the oldest beyond it a repeat may say that it is the first."""

_UNDONE = (InstructionStatus.UNANSWERED, InstructionStatus.RECEIVED)
"""What is sent to a new stream: an engine may have ended after it said that it had received."""


class Sent:
    """How often this process sent each instruction."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def again(self, instruction_id: str) -> int:
        """Count once more; how often it was before."""
        before = self._counts.pop(instruction_id, 0)
        self._counts[instruction_id] = before + 1
        if len(self._counts) > SENT_MAX:
            self._counts.popitem(last=False)
        return before


@dataclass(slots=True)
class _Told:
    """What a stream has sent of an account: ids, and those that it sent again because they were escalated."""

    ids: set[str] = field(default_factory=set)
    escalated: set[str] = field(default_factory=set)


class InstructionStream:
    """One execution engine's stream."""

    def __init__(self, backend: Backend, sent: Sent, requests: AsyncIterator[risk_gateway_pb2.InstructionAck]) -> None:
        self._backend, self._sent, self._requests = backend, sent, requests
        self._accounts: tuple[str, ...] = ()
        """Those subscribed to; none: all."""
        self._told: dict[str, _Told] = {}
        self._unread: set[str] = set()
        """Accounts that could not be read the last time."""
        self._look_s = 0.0
        """When to look for newcomers again, on the loop's clock."""
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue(OUTCOMES_MAX)

    async def instructions(self) -> AsyncGenerator[risk_gateway_pb2.Instruction, None]:
        """Endless; raises Draining when the server drains, Invalid for a message that makes no sense, UnknownAccount
        where one that was asked for is not open, StoreError where an answer can't be recorded. One of several accounts
        that can't be read takes nothing from the others: it is tried again every second."""
        drained = asyncio.create_task(self._backend.draining.wait())
        tasks: list[asyncio.Task[Any]] = [drained]
        self._backend.streams.add(self)
        try:
            subscribing = asyncio.create_task(self._subscribed())
            tasks.append(subscribing)
            await asyncio.wait({subscribing, drained}, return_when=asyncio.FIRST_COMPLETED)
            _need_undrained(drained)
            self._accounts = subscribing.result()
            with self._backend.accounts.subscribe(self._accounts) as subscription:
                for account in self._accounts or await self._everyone():
                    for message in await self._first(account):
                        yield message
                tasks += [asyncio.create_task(self._listen()), asyncio.create_task(self._record())]
                while True:
                    for account in await self._news(subscription, tasks):
                        for message in await self._later(account):
                            yield message
                    await asyncio.sleep(self._backend.pace.interval_s)
        finally:
            self._backend.streams.discard(self)
            await ended(tasks)

    # --- what to send ------------------------------------------------------------------------------------------------

    async def _subscribed(self) -> tuple[str, ...]:
        async for message in self._requests:
            return convert.subscription_of(message)
        raise Invalid([("subscription", "required: expected as the first message, got none")])

    async def _everyone(self) -> list[str]:
        return sorted(await self._backend.kept(self._backend.log.accounts(), self._backend.deadlines.default_us))

    async def _news(self, subscription: Subscription, tasks: list["asyncio.Task[Any]"]) -> Iterable[str]:
        """The accounts to look at again. Raises what ended one of the tasks."""
        drained, listening, recording = tasks[0], tasks[-2], tasks[-1]
        waiting = asyncio.create_task(subscription.next(self._backend.pace.heartbeat_s))
        awaited = {waiting, drained, recording}
        if not listening.done():
            awaited.add(listening)
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            _need_undrained(drained)
            for task in (listening, recording):
                if task.done():
                    task.result()
            changed = waiting.result() if waiting.done() else set()
            return {*changed, *await self._newcomers()}
        finally:
            waiting.cancel()

    async def _newcomers(self) -> list[str]:
        """Accounts that were opened elsewhere and never asked for here, and those that could not be read; looked for
        once a heartbeat, however much else happens."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_s:
            return []
        self._look_s = now_s + self._backend.pace.heartbeat_s
        try:
            return [account for account in self._accounts or await self._everyone() if account not in self._told]
        except (StoreError, DeadlinePassed):
            return []

    async def _first(self, account: str) -> list[risk_gateway_pb2.Instruction]:
        """What is out, as of a verified moment. One that is not open is left out where all were asked for, one that
        can't be read where it is not the only one."""
        accounts = self._backend.accounts
        try:
            reading = await accounts.read(account, accounts.clock.now_us() + self._backend.deadlines.default_us)
        except UnknownAccount:
            if self._accounts:
                raise
            return []
        except OF_ONE_ACCOUNT as error:
            if self._accounts == (account,):
                raise
            if account not in self._unread:
                LOGGER.error("an account's instructions can't be read", account=account, problem=str(error))
            self._unread.add(account)
            return []
        self._unread.discard(account)
        self._told[account] = _Told()
        return self._new(reading.state)

    async def _later(self, account: str) -> list[risk_gateway_pb2.Instruction]:
        if account not in self._told:
            return await self._first(account)
        committer = self._backend.accounts.latest(account)
        return self._new(committer.state) if committer is not None and committer.state.opened else []

    def _new(self, state: AccountState) -> list[risk_gateway_pb2.Instruction]:
        """What is out and was not sent yet, oldest first, and once more what nobody answered in time."""
        told = self._told[state.account]
        new: list[Instruction] = []
        for found in state.instructions.values():
            is_first = found.status in _UNDONE and found.instruction_id not in told.ids
            is_late = bool(found.escalated_seq) and found.status is InstructionStatus.UNANSWERED
            if is_first or (is_late and found.instruction_id not in told.escalated):
                new.append(found)
            if is_late:
                told.escalated.add(found.instruction_id)
        told.ids = set(state.instructions)
        told.escalated &= told.ids
        approvals = self._backend.approvals
        return [convert.instruction(state, found, self._sent.again(found.instruction_id), approvals) for found in new]

    # --- what is said ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Until the engine says no more; it is sent instructions all the same."""
        async for message in self._requests:
            await self._outcomes.put(convert.outcome_of(message))

    async def _record(self) -> None:
        while True:
            outcomes = [await self._outcomes.get()]
            while not self._outcomes.empty():
                outcomes.append(self._outcomes.get_nowait())
            by_account: dict[str, list[Outcome]] = {}
            for outcome in outcomes:
                account = self._account_of(outcome.instruction_id)
                if account is not None:
                    by_account.setdefault(account, []).append(outcome)
            await asyncio.gather(*(self._answered(account, told) for account, told in by_account.items()))

    def _account_of(self, instruction_id: str) -> str | None:
        """Whose instruction it is; None if none of the stream's. Whether it is out, the account's fold knows."""
        account = account_of(instruction_id)
        if account in self._told:
            return account
        LOGGER.info("an answer to an instruction of another stream", instruction=instruction_id)
        return None

    async def _answered(self, account: str, outcomes: list[Outcome]) -> None:
        def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
            return answered(state, outcomes, terms.control.epoch, now_us)

        accounts, allowed_us = self._backend.accounts, self._backend.deadlines.max_us
        await self._backend.kept(accounts.record(account, build, accounts.clock.now_us() + allowed_us), allowed_us)


def _need_undrained(drained: "asyncio.Task[bool]") -> None:
    if drained.done():
        raise Draining("the server is shutting down; subscribe to another")
