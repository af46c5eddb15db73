"""A bounded number of processes that compute for the worker, each one question at a time.

A process is spawned when it is first needed, keeps between questions what its `Solver` remembers, and ends with the
process that asked, however that ends. One that takes longer than a question may, or that dies, is replaced and the
question fails: the next one finds a fresh process. What is computed is the solver's; no asyncio runs in the children.
"""

import asyncio
import contextlib
import multiprocessing
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import parent_process
from typing import Any, Generic, Protocol, TypeVar, cast

CONTEXT = multiprocessing.get_context("spawn")
"""Never a fork: the parent has threads of gRPC's and of ours."""

JOIN_S = 5.0
"""How long a killed process may take to be gone; the kernel needs milliseconds."""

QuestionT = TypeVar("QuestionT", contravariant=True)
AnswerT = TypeVar("AnswerT", covariant=True)
Q = TypeVar("Q")
A = TypeVar("A")


class Solver(Protocol[QuestionT, AnswerT]):
    """Lives in a process of the pool; may remember what it has computed. What it raises fails the question."""

    def __call__(self, question: QuestionT, /) -> AnswerT: ...


class Unsolved(Exception):
    """A question has no answer: it took too long, its process died, or the solver failed; the text says which."""


@dataclass(slots=True, eq=False)
class _Place:
    """Where a process of the pool runs, or will."""

    process: SpawnProcess | None = None
    pipe: "Connection[Any, Any] | None" = None
    busy: bool = False
    generation: int = 0
    """Of its process: another one remembers nothing of what was asked before."""


@dataclass(frozen=True, slots=True)
class _Failed:
    problem: str


@dataclass(slots=True)
class Pool(Generic[Q, A]):
    """See the module. `make` is called in each process to make its solver: a function of a module, by name.

    Not for use from several event loops. `aclose` at the end.
    """

    make: Callable[[], Solver[Q, A]]
    size: int
    patience_s: float
    """How long a question may take."""
    _places: list[_Place] = field(init=False)
    _free: asyncio.Condition = field(init=False, default_factory=asyncio.Condition)
    _threads: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected 1 process or more, got {self.size}")
        self._places = [_Place() for _ in range(self.size)]
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="pool")

    async def ask(self, key: str, question: Callable[[tuple[int, int]], Q]) -> A:
        """The answer, once a process is free: the one that `key` was given to before, if it is. `question` is made when
        it is known which process takes it, from (place, generation): what that one has been told need not be told
        again. Raises Unsolved."""
        place = await self._taken(key)
        try:
            try:
                generation = self._started(place).generation
            except OSError as error:
                raise Unsolved(f"no process can be started: {error}") from error
            return await self._answered(place, question((self._places.index(place), generation)))
        finally:
            await self._released(place)

    async def _taken(self, key: str) -> _Place:
        preferred = self._places[zlib.crc32(key.encode()) % self.size]
        async with self._free:
            await self._free.wait_for(lambda: any(not place.busy for place in self._places))
            place = preferred if not preferred.busy else next(one for one in self._places if not one.busy)
            place.busy = True
        return place

    async def _released(self, place: _Place) -> None:
        async with self._free:
            place.busy = False
            self._free.notify()

    def _started(self, place: _Place) -> _Place:
        if place.process is None or not place.process.is_alive():
            _ended(place)
            ours, theirs = CONTEXT.Pipe()
            place.process = CONTEXT.Process(target=_solve, args=(self.make, theirs), name="analyses", daemon=True)
            place.process.start()
            theirs.close()
            place.pipe = ours
            place.generation += 1
        return place

    async def _answered(self, place: _Place, question: Q) -> A:
        """In a thread, since a pipe blocks; killing the process ends the wait."""
        pipe = place.pipe
        assert pipe is not None, "a place that was started has a pipe"
        asking = asyncio.get_running_loop().run_in_executor(self._threads, _exchanged, pipe, question)
        try:
            answer = await asyncio.wait_for(asyncio.shield(asking), self.patience_s)
        except TimeoutError:
            await self._killed(place, asking)
            raise Unsolved(f"not computed within {self.patience_s:g} s; the process was replaced") from None
        except asyncio.CancelledError:
            await self._killed(place, asking)
            raise
        except (EOFError, OSError) as error:
            _ended(place)
            raise Unsolved(f"the process that computed it has ended: {error!r}") from error
        if isinstance(answer, _Failed):
            raise Unsolved(answer.problem)
        return cast(A, answer)

    async def _killed(self, place: _Place, asking: "asyncio.Future[Any]") -> None:
        _ended(place)
        with contextlib.suppress(EOFError, OSError):
            await asking

    async def aclose(self) -> None:
        """End every process, also one that is computing."""
        for place in self._places:
            _ended(place)
        await asyncio.to_thread(self._threads.shutdown)


def _ended(place: _Place) -> None:
    """Leaves no process behind. The pipe is closed by whoever reads it last."""
    if place.process is not None:
        place.process.kill()
        place.process.join(JOIN_S)
        place.process = None
    place.pipe = None


def _exchanged(pipe: "Connection[Any, Any]", question: object) -> Any:
    pipe.send(question)
    return pipe.recv()


def _solve(make: Callable[[], Solver[Any, Any]], pipe: "Connection[Any, Any]") -> None:
    """A process of the pool: answers until the pipe ends."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    solver = make()
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(_solved(solver, question))


def _solved(solver: Solver[Any, Any], question: object) -> object:
    try:
        return solver(question)
    except Exception as error:  # noqa: BLE001 - the outermost loop of this process: the asker is told and logs it
        return _Failed(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """Ends this process at once when the one that started it is gone, killed or not: nothing it holds is kept."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(os.EX_UNAVAILABLE)
