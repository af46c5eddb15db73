"""One call's attempts: how long the next may take, whether there is a next, and what it means when there is none.

Rules and values only: no channel, no sleeping. Both clients ask here after each failure and do what they are told.
Retrying is safe because every attempt carries the same ids; the gateway answers repeats from its log.
"""

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from gateway.client.errors import CallFailed, OutcomeUnknown
from gateway.client.status import NO_SUCH_HOST, NOBODY_LISTENS, Failure

T = TypeVar("T")

RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,  # by a server that ends, never by us
    }
)
SETTLED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS})
"""Said of the very same request, these also say that no earlier attempt of it was recorded."""
UNHEARD = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED})
"""The attempt was turned away before anything of it was looked at."""
REFUSED = SETTLED | UNHEARD | {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED}
"""The attempt itself left nothing behind. Of any other code that can't be said."""
MALFORMED, QUEUE_FULL = "MALFORMED", "QUEUE_FULL"
"""Reasons by which nothing was done. Only with its reason can that be said of RESOURCE_EXHAUSTED: an answer that is too
large to receive has that code too."""


@dataclass(frozen=True, slots=True)
class World:
    """What the client takes from outside: two clocks, chance, new ids."""

    monotonic_s: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time
    """Seconds since 1970. Only the age of replayed approvals is judged by it."""
    chance: Callable[[], float] = random.random
    """0 up to 1."""
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the client waits, in seconds."""

    deadline_s: float = 5.0
    """For the answer to a call, all its attempts together."""
    stop_deadline_s: float = 10.0
    """The same for stops and resumes: the longest that a gateway accepts by default."""
    attempt_s: float = 2.0
    """For one attempt: twice what the gateway takes at most by itself."""
    silence_s: float = 5.0
    """A stream of updates that says nothing for so long is dialled again; a heartbeat is due each second."""
    backoff_first_s: float = 0.05
    backoff_max_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """When a call was first sent."""

    begun_s: float
    """On the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A call to be made, and how to read its answer."""

    method: str
    request: Any
    read: Callable[[Any, Asked], T]
    ids: tuple[str, ...] = ()
    leaves: str = ""
    """What may exist where the outcome is unknown, as a sentence; empty: the call only reads."""
    splits: bool = False
    """Each account in it is a step of its own: an error of one may leave the others done."""
    control: bool = False
    """It goes to the control port."""
    deadline_s: float | None = None
    """None: that of all calls."""
    repeatable: bool = True
    """False: no id tells a second attempt from another call, so there is none where the first may have been heard."""


class Backoff:
    """Waits that double up to a maximum, each shortened by chance by up to a half, so that clients spread out."""

    def __init__(self, patience: Patience, chance: Callable[[], float]) -> None:
        self._patience, self._chance = patience, chance
        self.tries = 0

    def wait_s(self, asked_s: float | None = None) -> float:
        """Before the next try. `asked_s`: what the server asks for, never undercut."""
        doubled_s = self._patience.backoff_first_s * 2.0 ** min(self.tries, 30)
        wait_s = min(doubled_s, self._patience.backoff_max_s) * (1.0 - self._chance() / 2.0)
        self.tries += 1
        return wait_s if asked_s is None else asked_s + wait_s

    def reset(self) -> None:
        self.tries = 0


class Attempts:
    """The attempts at one call, from the first on."""

    def __init__(self, call: Call[Any], address: str, patience: Patience, world: World) -> None:
        self._call, self._address, self._patience, self._world = call, address, patience, world
        self._deadline_s = patience.deadline_s if call.deadline_s is None else call.deadline_s
        self._backoff = Backoff(patience, world.chance)
        self._may_have_happened = False
        self.asked = Asked(world.monotonic_s())

    def timeout_s(self) -> float:
        """Of the next attempt, more than 0."""
        attempt_s = self._patience.attempt_s if self._call.repeatable else self._deadline_s
        return max(1e-3, min(attempt_s, self._left_s()))

    def failed(self, failure: Failure) -> float:
        """How long to wait before the next attempt, in seconds. Raises CallFailed or OutcomeUnknown where there is
        none."""
        self._may_have_happened |= may_have_happened(failure, self._call.splits)
        if failure.code not in RETRIED or (self._may_have_happened and not self._call.repeatable):
            raise self._end(failure)
        wait_s = self._backoff.wait_s(failure.retry_s)
        if wait_s >= self._left_s():
            raise self._end(failure)
        return wait_s

    def _left_s(self) -> float:
        return self.asked.begun_s + self._deadline_s - self._world.monotonic_s()

    def _end(self, failure: Failure) -> CallFailed:
        settled = failure.reason == MALFORMED or (failure.code in SETTLED and not self._call.splits)
        unknown = bool(self._call.leaves) and self._may_have_happened and not settled
        return ending(self._call.method, self._address, self._call.ids, failure, self._call.leaves if unknown else "")


def ending(method: str, address: str, ids: tuple[str, ...], failure: Failure, leaves: str) -> CallFailed:
    """The error that a call ends with. `leaves`: what may exist of it, and without ids what to do; empty: nothing."""
    message = f"{method}: {_sentence(failure, address)}"
    for field, problem in failure.fields:
        if problem not in failure.said:
            message += f"; {field}: {problem}"
    if not leaves:
        return CallFailed(message, failure.code, ids, failure.reason, failure.fields)
    message += f". {leaves}"
    if ids:
        message += f": ask again with the same ids ({_listed(ids)}) to find out"
    return OutcomeUnknown(message, failure.code, ids, failure.reason, failure.fields)


def may_have_happened(failure: Failure, splits: bool) -> bool:
    """Whether a failed attempt may have left something. `splits`: see Call."""
    if failure.never_sent or failure.reason in (MALFORMED, QUEUE_FULL):
        return False
    return failure.code not in (UNHEARD if splits else REFUSED)


def _sentence(failure: Failure, address: str) -> str:
    if failure.said.startswith(NO_SUCH_HOST):
        return f"{address} can't be reached, nothing was sent: {failure.said}"
    if failure.said.startswith(NOBODY_LISTENS):
        return f"nobody answers at {address}, nothing was sent"
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and not failure.reason:
        return f"{address} did not answer in time"
    return failure.said or f"{address} answered {failure.code.name} without saying why"


LISTED_MAX = 5


def _listed(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - LISTED_MAX} more" if len(ids) > LISTED_MAX else ""
    return ", ".join(ids[:LISTED_MAX]) + more
