"""The files of incomplete stops: read as they were written, and a stop of everything where they can't be."""

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from engine.control import Scope, TradingState
from gateway.log.account_log import PARTITIONS, content_hash
from gateway.pending_stops import PendingStop, PendingStops

STOP = PendingStop("a1", Scope("alpha", symbol="€/$"), TradingState.REDUCE_ONLY, "why", "ann", 1, (3, 61), 17, 4)


@pytest.fixture
def files(tmp_path: Path) -> PendingStops:
    return PendingStops(tmp_path)


def test_what_one_process_writes_another_reads(tmp_path: Path, files: PendingStops) -> None:
    path = files.write(STOP)

    assert PendingStops(tmp_path).read() == [STOP]
    assert PendingStops(tmp_path).read(known={"a1"}) == []
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert [entry.name for entry in path.parent.iterdir()] == ["a1.json"]


def test_a_complete_stop_leaves_no_file(tmp_path: Path, files: PendingStops) -> None:
    path = files.write(STOP)

    files.discard("a1")
    files.discard("a1")

    assert files.read() == []
    assert list(path.parent.iterdir()) == []


def test_without_a_folder_nothing_is_pending(files: PendingStops) -> None:
    assert files.read() == []


def resealed(content: bytes) -> bytes:
    return content_hash(content).encode() + b"\n" + content + b"\n"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda written: b"",
    "cut off": lambda written: written[:-20],
    "a letter changed": lambda written: written.replace(b"alpha", b"alphb"),
    "another format": lambda written: resealed(b'{"id":"a1"}'),
    "of another stop": lambda written: resealed(written.splitlines()[1].replace(b'"a1"', b'"a2"')),
    "no partition": lambda written: resealed(written.splitlines()[1].replace(b"[3,61]", b"[]")),
    "no such partition": lambda written: resealed(written.splitlines()[1].replace(b"[3,61]", b"[64]")),
    "a stop to trade": lambda written: resealed(written.splitlines()[1].replace(b'"state":2', b'"state":1')),
    "not text": lambda written: b"\xff" * 100,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_stop_of_everything(
    files: PendingStops, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.write(STOP)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))

    (stop,) = files.read()

    assert (stop.id, stop.scope, stop.state) == ("a1", Scope(), TradingState.HALTED)
    assert stop.missing == tuple(range(PARTITIONS))
    assert str(path) in stop.reason
    said = capsys.readouterr().out
    assert str(path) in said and "StopAll" in said and "Resume" in said


def test_a_damaged_file_is_kept_aside_once_everything_is_stopped(files: PendingStops) -> None:
    path = files.write(STOP)
    path.write_bytes(b"?")
    files.read()

    files.discard("a1")

    assert [entry.name for entry in path.parent.iterdir()] == ["a1.damaged"]
    assert files.read() == []


def test_a_folder_that_can_not_be_read_is_a_stop_of_everything(tmp_path: Path) -> None:
    (tmp_path / "stops").write_text("no folder")

    (stop,) = PendingStops(tmp_path).read()

    assert (stop.scope, stop.state) == (Scope(), TradingState.HALTED)


def test_a_file_that_can_not_be_removed_is_not_carried_out_again(
    files: PendingStops, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.write(STOP)
    path.unlink()
    path.mkdir()  # root may remove any file, but nobody unlinks a folder

    files.discard("a1")

    assert files.read() == []
    assert str(path) in capsys.readouterr().out


def test_a_folder_that_can_not_be_read_is_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stops").write_text("no folder")
    files = PendingStops(tmp_path)
    (stop,) = files.read()

    assert files.read(known={stop.id}) == []
    files.discard(stop.id)
    assert files.read() == []

    assert capsys.readouterr().out.count("EVERYTHING is stopped") == 1


def test_processes_that_share_a_process_id_write_the_same_stop_at_once(tmp_path: Path) -> None:
    """Containers do, on one volume: a stop that is passed on is written down by all of them together."""
    shorter = msgspec.structs.replace(STOP, reason="why " * 200, missing=(3,))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(50):
            written = [pool.submit(PendingStops(tmp_path).write, stop) for stop in (STOP, shorter)]
            assert len({future.result() for future in written}) == 1
            (stop,) = PendingStops(tmp_path).read()
            assert stop in (STOP, shorter)
