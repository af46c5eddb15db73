"""What the services are served from: the accounts, the log, who calls, and how long a call may take.

Built by main, shared by all services of a server. Work that a client's deadline must not cut in half runs under `kept`.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc.aio

from engine.events import EventPolicy
from engine.records import PoisonRecord
from gateway.accounts import Accounts
from gateway.errors import DeadlinePassed, Overloaded, StoreError
from gateway.log.account_log import AccountLog
from gateway.rpc.approval import Approvals
from gateway.rpc.caller import Caller, Callers, Role
from gateway.stopping import Stopper

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

OF_ONE_ACCOUNT = (StoreError, DeadlinePassed, Overloaded, PoisonRecord)
"""What may keep one account from being read while all the others are well."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a call may take: what the client asks for, up to a maximum; the default where it asks for nothing."""

    default_us: int = 1_000_000
    max_us: int = 10_000_000

    def allowed_us(self, context: Context) -> int:
        remaining_s: float | None = context.time_remaining()
        if remaining_s is None:
            return self.default_us
        return max(0, min(int(remaining_s * 1_000_000), self.max_us))


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream of states is sent."""

    heartbeat_s: float = 1.0
    interval_s: float = 0.025
    """Least time between two states of an account to one reader: computing one takes about a millisecond."""
    reader_timeout_s: float = 30.0
    """A reader that takes nothing for so long is dropped."""


@dataclass(frozen=True, slots=True)
class Calendars:
    """Which sources of events are followed, and what is done around events."""

    policy: EventPolicy = field(default_factory=EventPolicy)
    ranks: tuple[tuple[str, int], ...] = ()
    """The sources, and whose word counts."""


@dataclass(frozen=True, slots=True)
class Backend:
    log: AccountLog
    accounts: Accounts
    stopper: Stopper
    callers: Callers
    approvals: Approvals
    deadlines: Deadlines = Deadlines()
    pace: Pace = Pace()
    calendars: Calendars = field(default_factory=Calendars)
    two_person: bool = False
    """Nobody changes limits alone: what one operator proposes another one approves."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server drains: endless streams then end."""
    running: "set[asyncio.Task[Any]]" = field(default_factory=set)
    streams: set[object] = field(default_factory=set)
    """The endless streams that are open, for metrics and for whoever waits until they have ended."""

    def admit(self, context: Context, *roles: Role) -> Caller:
        """The caller, who has one of the roles; any role will do where none is named."""
        caller = self.callers.of(context)
        if roles:
            caller.need(*roles)
        return caller

    def deadline_us(self, context: Context) -> int:
        """On the store's clock."""
        return self.accounts.clock.now_us() + self.deadlines.allowed_us(context)

    async def kept(self, work: Coroutine[Any, Any, T], allowed_us: int) -> T:
        """Await `work`, which goes on when the caller stops waiting. Raises DeadlinePassed when its time is up."""
        task = self.go_on(work)
        try:
            return await asyncio.wait_for(asyncio.shield(task), allowed_us / 1_000_000)
        except TimeoutError:
            raise DeadlinePassed("not finished by the deadline; it goes on, and repeating it is safe") from None

    def go_on(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin `work`, for which nobody waits; the server does when it drains."""
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self.running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: whoever waited has it, and where nobody did, nobody asks
