"""Stops that not every partition has acknowledged, kept as files of the data directory, so that they outlive a process.

One file a stop: written whole or not at all, on the disk before its writer goes on, removed when the stop is complete.
A file that can't be read counts as a stop of everything. Nothing is carried out here: no store, no asyncio.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

from engine.control import Scope, TradingState
from gateway.log.account_log import PARTITIONS, content_hash

LOGGER = structlog.get_logger()
SUFFIX = ".json"
OPERATOR_RANK = 1

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this process lacks at the moment, which says nothing of what is written down."""

Partition = Annotated[int, msgspec.Meta(ge=0, lt=PARTITIONS)]


class PendingStop(msgspec.Struct, frozen=True):
    """A stop, and which partitions are still to acknowledge it."""

    id: str
    """In the control history of each partition that has acknowledged, whoever asked it to."""
    scope: Scope
    state: TradingState
    reason: str
    actor: str
    rank: int
    missing: Annotated[tuple[Partition, ...], msgspec.Meta(min_length=1)]
    time_us: int = 0
    """0 where the store did not tell the time when it was asked for: it is then the time at which it takes effect."""
    since_epoch: int = 0
    """No partition has acknowledged it in this epoch or an earlier one."""
    flatten: bool = False
    """Whether it asks for the positions in scope to be brought to zero."""

    def __post_init__(self) -> None:
        if self.state is TradingState.ACTIVE:
            raise ValueError("expected a state that restricts trading")


class PendingStops:
    """The files of one data directory. Every process that serves from it reads them, and may write and remove them."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.absolute() / "stops"
        self._incidents = 0
        """Grows when the folder is read: if it can't be read again later, that is another stop."""
        self._damaged: set[str] = set()
        self._unremovable: set[str] = set()

    def path(self, stop_id: str) -> Path:
        return self._folder / f"{stop_id}{SUFFIX}"

    def write(self, stop: PendingStop) -> Path:
        """Returns when the file is on the disk. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, content = self.path(stop.id), msgspec.json.encode(stop)
        descriptor, name = tempfile.mkstemp(".draft", f"{stop.id}.", self._folder)  # containers share process ids
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content_hash(content).encode() + b"\n" + content + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        _sync(self._folder)
        _sync(self._folder.parent)
        return path

    def read(self, known: Collection[str] = ()) -> list[PendingStop]:
        """What is written down but for what is `known` by id. Whatever can't be read is a stop of everything; raises
        OSError only where this process has no means left to look, see SHORTAGES."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            names = []
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            stop_id = f"unreadable-{os.getpid()}-{id(self)}-{self._incidents}"
            is_new = stop_id not in known and stop_id not in self._unremovable
            return [self._unread(self._folder, stop_id, error)] if is_new else []
        self._incidents += 1
        ids = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
        found = (self._read(stop_id) for stop_id in ids if stop_id not in known and stop_id not in self._unremovable)
        return [stop for stop in found if stop is not None]

    def discard(self, stop_id: str) -> None:
        """The stop is complete: its file goes; a damaged one stays under another name, to be looked at."""
        path = self.path(stop_id)
        try:
            if stop_id in self._damaged:
                path.replace(path.with_suffix(".damaged"))
            else:
                path.unlink()
            _sync(self._folder)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            self._unremovable.add(stop_id)
            LOGGER.error(
                "a stop is complete, and its file can't be removed: remove it", file=str(path), problem=str(error)
            )

    def _read(self, stop_id: str) -> PendingStop | None:
        path = self.path(stop_id)
        try:
            written_hash, _, rest = path.read_bytes().partition(b"\n")
            content = rest.removesuffix(b"\n")
            if written_hash != content_hash(content).encode():
                raise ValueError("its contents are not what was written")
            stop = msgspec.json.decode(content, type=PendingStop)
            if stop.id != stop_id:
                raise ValueError(f"it holds the stop {stop.id}")
        except FileNotFoundError:
            return None  # it was completed between the listing and here
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            if isinstance(error, OSError) and error.errno in SHORTAGES:
                raise
            self._damaged.add(stop_id)
            return self._unread(path, stop_id, error)
        return stop

    def _unread(self, path: Path, stop_id: str, error: Exception) -> PendingStop:
        LOGGER.error(
            "a stop was written down and can't be read: EVERYTHING is stopped instead. Say again with StopAll what"
            " shall stay stopped, then Resume the rest; the file is renamed to .damaged when the stop is complete",
            file=str(path),
            problem=str(error),
        )
        return PendingStop(
            stop_id,
            Scope(),
            TradingState.HALTED,
            f"the stop written down in {path} can't be read: everything is stopped instead",
            "damaged stop file",
            OPERATOR_RANK,
            tuple(range(PARTITIONS)),
        )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
