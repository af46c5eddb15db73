"""Keeps the processes of one machine alive, and ends them in the right order.

One thread, one `select`, no polling: signals, deaths and readiness all wake it. It starts the store, then the children,
each in its own session; restarts what dies, with backoff; gives up on what keeps dying; drains on SIGINT or SIGTERM.
Imports neither gRPC nor a store client, since it forks. What the children do, how a store is started, who holds the
lock on the data directory and how notices are shown is all the caller's. Children must call `lifeline.watch_parent`.
"""

import enum
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from gateway.errors import StoreError
from gateway.lifeline import LIFELINE_FD, READY_FD, READY_LINE

STORE = "store"
DRAIN_ORDER = ("gateway", "worker", "web", "control")
"""Control goes last but for the store, so that a stop can be said until the end. Names not in here go before it all."""

DEATHS_MAX = 5
"""So many deaths of one child within DEATHS_WINDOW_S end everything: what dies five times a minute is broken."""
DEATHS_WINDOW_S = 60.0
BACKOFF_FIRST_S = 0.1
"""Doubled with each death in the window: 0.1, 0.2, 0.4, 0.8 s. The fifth death ends it."""
LOG_TAIL_BYTES = 2_000
"""How much of its log is quoted when a child is given up: a traceback."""

# A second numeric thread would take the core that answers orders.
ONE_NUMERIC_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LATENCY_BOUND = ("gateway", "control")


class Store(Protocol):
    """A running store, such as `embedded.EmbeddedStore`: a child of this process, so that its death is signalled."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside, and over, the supervisor's own environment."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take."""

    ready_s: float = 60.0
    """From its start until a child serves; the embedded store may have to load gigabytes before."""
    grace_s: float = 10.0
    """From SIGTERM until SIGKILL, for each child."""


class NoticeKind(enum.StrEnum):
    STARTED = "started"
    READY = "ready"
    ALL_READY = "all ready"
    """The store runs and each child has announced itself. Once for each run."""
    NOT_READY = "not ready in time"
    DIED = "died"
    GIVEN_UP = "given up"
    DRAINING = "draining"
    KILLED = "killed"
    """It did not end within its grace."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened, to be shown. `name` is a child's or STORE, and empty when it concerns all."""

    kind: NoticeKind
    name: str = ""
    pid: int | None = None
    detail: str = ""


@dataclass(slots=True)
class Deaths:
    """How often something died lately, and so when it is started again."""

    times_s: deque[float] = field(default_factory=deque)

    def add(self, now_s: float) -> float | None:
        """The delay before the next start in seconds, or None when it has died too often."""
        self.times_s.append(now_s)
        while self.times_s[0] < now_s - DEATHS_WINDOW_S:
            self.times_s.popleft()
        if len(self.times_s) >= DEATHS_MAX:
            return None
        return BACKOFF_FIRST_S * 2.0 ** (len(self.times_s) - 1)


@dataclass(slots=True)
class Running:
    """A child's place: the process in it, if any, and what is due."""

    child: Child
    log_path: Path
    deaths: Deaths = field(default_factory=Deaths)
    process: subprocess.Popen[bytes] | None = None
    ready_fd: int | None = None
    is_ready: bool = False
    due_s: float | None = None
    """With a process: when it must be ready. Without: when it is started again."""


class Supervisor:
    """Runs `children`, and the store that `start_store` starts, until told to end. `run` once, from the main thread.

    `start_store` is called again after the store has died and must then come back at the same address.
    `environment` is what children inherit; logs go to `data_dir`/logs/<name>.log, the last run's to <name>.log.1.
    """

    def __init__(
        self,
        children: Sequence[Child],
        data_dir: Path,
        environment: Mapping[str, str],
        notify: Callable[[Notice], None],
        start_store: Callable[[], Store] | None = None,
        patience: Patience = Patience(),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        logs = data_dir / "logs"
        self._places = [Running(child, logs / f"{child.name}.log") for child in children]
        self._environment = environment
        self._notify = notify
        self._start_store = start_store
        self._store: Store | None = None
        self._store_deaths = Deaths()
        self._store_due_s: float | None = None
        self._patience = patience
        self._clock_s = clock_s
        self._selector = selectors.DefaultSelector()
        self._lifeline_fd = -1
        self._stop_signals: list[int] = []
        self._has_given_up = False
        self._is_all_ready = False

    def run(self) -> int:
        """Returns an exit status: 0 after an orderly drain, EX_SOFTWARE (70) when something was given up.

        Raises StoreError if the store can't be started the first time, OSError if a child can't.
        """
        self._rotate_logs()
        with self._signals(), self._lifeline():
            try:
                self._open_store()
                for place in self._places:
                    self._start(place)
                while not self._stop_signals and not self._has_given_up:
                    self._wait(self._next_due_s())
                    self._reap()
                    self._act_on_what_is_due()
            finally:
                self._drain()
        return os.EX_SOFTWARE if self._has_given_up else os.EX_OK

    # What wakes it

    @contextmanager
    def _signals(self) -> Iterator[None]:
        wake_fd, signal_fd = os.pipe()
        os.set_blocking(wake_fd, False)
        os.set_blocking(signal_fd, False)
        before_fd = signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._on_stop_signal),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_stop_signal),
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, _only_wake),
        }
        self._selector.register(wake_fd, selectors.EVENT_READ, lambda: os.read(wake_fd, 512))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
            self._selector.close()
            os.close(wake_fd)
            os.close(signal_fd)

    @contextmanager
    def _lifeline(self) -> Iterator[None]:
        """Children hold the reading end; the writing end is here alone, so that it closes with this process."""
        self._lifeline_fd, held_fd = os.pipe()
        try:
            yield
        finally:
            os.close(self._lifeline_fd)
            os.close(held_fd)

    def _on_stop_signal(self, number: int, _: FrameType | None) -> None:
        self._stop_signals.append(number)

    def _wait(self, until_s: float | None) -> None:
        timeout_s = None if until_s is None else max(0.0, until_s - self._clock_s())
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def _next_due_s(self) -> float | None:
        due = [place.due_s for place in self._places] + [self._store_due_s]
        return min((due_s for due_s in due if due_s is not None), default=None)

    # Starting and restarting

    def _rotate_logs(self) -> None:
        for place in self._places:
            place.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if place.log_path.exists():
                place.log_path.replace(place.log_path.with_suffix(".log.1"))

    def _open_store(self) -> None:
        self._store_due_s = None
        if self._start_store is not None:
            self._store = self._start_store()
            self._notify(Notice(NoticeKind.STARTED, STORE, self._store.pid))

    def _start(self, place: Running) -> None:
        ready_fd, announce_fd = os.pipe()
        try:
            with place.log_path.open("ab") as log:
                place.process = subprocess.Popen(
                    place.child.argv,
                    env=self._environment_of(place.child, announce_fd),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(self._lifeline_fd, announce_fd),
                    start_new_session=True,
                )
        finally:
            os.close(announce_fd)
        place.ready_fd = ready_fd
        place.due_s = self._clock_s() + self._patience.ready_s
        self._selector.register(ready_fd, selectors.EVENT_READ, lambda: self._on_announced(place))
        self._notify(Notice(NoticeKind.STARTED, place.child.name, place.process.pid))

    def _environment_of(self, child: Child, announce_fd: int) -> dict[str, str]:
        return {
            "PYTHONUNBUFFERED": "1",  # the last words of what is killed belong in its log
            **self._environment,
            **(ONE_NUMERIC_THREAD if child.name in LATENCY_BOUND else {}),
            **child.env,
            LIFELINE_FD: str(self._lifeline_fd),
            READY_FD: str(announce_fd),
        }

    def _on_announced(self, place: Running) -> None:
        assert place.ready_fd is not None
        announced = os.read(place.ready_fd, len(READY_LINE)) == READY_LINE
        self._close_ready(place)
        if not announced or place.process is None:
            return  # closed by its death, or by mistake: then its time runs out
        place.is_ready, place.due_s = True, None
        self._notify(Notice(NoticeKind.READY, place.child.name, place.process.pid))
        if not self._is_all_ready and all(other.is_ready for other in self._places):
            self._is_all_ready = True
            self._notify(Notice(NoticeKind.ALL_READY))

    def _close_ready(self, place: Running) -> None:
        if place.ready_fd is not None:
            self._selector.unregister(place.ready_fd)
            os.close(place.ready_fd)
            place.ready_fd = None

    def _reap(self) -> None:
        for place in self._places:
            status = place.process.poll() if place.process else None
            if status is not None:
                self._clear(place)
                place.due_s = self._due_after_death(
                    place.child.name, place.deaths, _said(status), _tail(place.log_path)
                )
        store_status = self._store.poll() if self._store else None
        if store_status is not None:
            self._store = None
            self._store_due_s = self._due_after_death(STORE, self._store_deaths, _said(store_status))

    def _clear(self, place: Running) -> None:
        self._close_ready(place)
        place.process, place.is_ready, place.due_s = None, False, None

    def _due_after_death(self, name: str, deaths: Deaths, cause: str, last_words: str = "") -> float | None:
        now_s = self._clock_s()
        delay_s = deaths.add(now_s)
        if delay_s is not None:
            self._notify(Notice(NoticeKind.DIED, name, detail=f"{cause}; starts again in {delay_s:g} s"))
            return now_s + delay_s
        self._has_given_up = True
        self._notify(Notice(NoticeKind.DIED, name, detail=cause))
        times = f"died {DEATHS_MAX} times in {DEATHS_WINDOW_S:g} s"
        self._notify(Notice(NoticeKind.GIVEN_UP, name, detail=f"{times}\n{last_words}".rstrip()))
        return None

    def _act_on_what_is_due(self) -> None:
        now_s = self._clock_s()
        if self._store_due_s is not None and self._store_due_s <= now_s:
            self._reopen_store()
        for place in self._places:
            if place.due_s is None or place.due_s > now_s or self._has_given_up:
                continue
            if place.process is None:
                self._start(place)
            else:
                place.due_s = None
                self._notify(Notice(NoticeKind.NOT_READY, place.child.name, place.process.pid))
                os.killpg(place.process.pid, signal.SIGKILL)

    def _reopen_store(self) -> None:
        try:
            self._open_store()
        except StoreError as error:
            self._store_due_s = self._due_after_death(STORE, self._store_deaths, str(error))

    # Ending

    def _drain(self) -> None:
        stops_before = min(1, len(self._stop_signals))
        self._notify(Notice(NoticeKind.DRAINING, detail="a second signal kills at once" if stops_before else ""))
        for place in sorted(self._places, key=_drain_rank):
            if place.process is not None:
                place.process.terminate()
                self._await_end(place, place.process, stops_before)
                self._clear(place)
                self._notify(Notice(NoticeKind.ENDED, place.child.name))
        if self._store is not None:
            self._store.stop()
            self._notify(Notice(NoticeKind.ENDED, STORE))

    def _await_end(self, place: Running, process: subprocess.Popen[bytes], stops_before: int) -> None:
        deadline_s = self._clock_s() + self._patience.grace_s
        while process.poll() is None:
            if self._clock_s() >= deadline_s or len(self._stop_signals) > stops_before:
                os.killpg(process.pid, signal.SIGKILL)
                self._notify(Notice(NoticeKind.KILLED, place.child.name, process.pid))
                process.wait()
                return
            self._wait(deadline_s)


def _only_wake(_: int, __: FrameType | None) -> None:
    """A handler there must be, or the signal doesn't wake the `select`; what happened is found by looking."""


def _drain_rank(place: Running) -> int:
    name = place.child.name
    return DRAIN_ORDER.index(name) if name in DRAIN_ORDER else -1


def _said(status: int) -> str:
    return f"killed by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exit status {status}"


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace")
