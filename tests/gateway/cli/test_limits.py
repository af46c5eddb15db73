"""`limits show`, `limits set` and `config diff` against a real control server: what they show, ask and arm."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.control import decode_control
from engine.limits import LimitSet
from gateway.cli.app import run
from gateway.config import load
from gateway.log.memory import MemoryLog
from gateway.machine import configured_limits
from gateway.registry import arm_limits
from tests.gateway.rpc.serving import backend_over, served

SIZE = '[[limit]]\nmeasure = "order_quantity"\nscope = "symbol"\nlimit = 50\n'
VALUE = '[[limit]]\nmeasure = "order_value"\nscope = "account"\nlimit = 1_000_000\n'
POSITION = '[[limit]]\nmeasure = "position"\nscope = "symbol"\nlimit = {}\nwarn = 10\n'
BASE = SIZE + VALUE + POSITION.format(100)


class Control:
    """A control server on a thread of its own, over a memory log, with the limits of BASE armed."""

    def __init__(self, log: MemoryLog, store_clock: list[int], folder: Path) -> None:
        self._log, self._store_clock, self._folder = log, store_clock, folder
        self.address = f"unix:{folder / 'control'}"
        self._loop = asyncio.new_event_loop()
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "Control":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> None:
        async with backend_over(self._log, self._store_clock) as backend, served(backend, self._folder, control=True):
            await self._arm(BASE)
            self._ready.set()
            await self._end.wait()

    async def _arm(self, text: str, shadow: str = "") -> None:
        beside = _set(self._folder, shadow) if shadow else None
        await arm_limits(self._log, _set(self._folder, text), "file", beside)

    def arm(self, text: str, shadow: str = "") -> None:
        asyncio.run_coroutine_threadsafe(self._arm(text, shadow), self._loop).result(30)

    @property
    def position(self) -> float:
        """The bound in force."""
        return asyncio.run_coroutine_threadsafe(self._position(), self._loop).result(30)

    async def _position(self) -> float:
        (blob_hash,) = {decode_control(stored.state).limit_set for stored in await self._log.read_controls()}
        rows = LimitSet.decode(await self._log.get_blob(blob_hash) or b"").rows
        return next(row.limit for row in rows if row.measure == "position")


def _set(folder: Path, text: str) -> LimitSet:
    path = folder / "armed.toml"
    path.write_text(text)
    return configured_limits(load(path, {})).limits


@pytest.fixture
def control(memory_log: MemoryLog, store_clock: list[int]) -> Iterator[Control]:
    with tempfile.TemporaryDirectory(prefix="cli") as name, Control(memory_log, store_clock, Path(name)) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "limits.toml"


def exit_code(*argv: str) -> int:
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


def set_limits(control: Control, file: Path, *options: str) -> int:
    return exit_code("limits", "set", str(file), "--reason", "desk asked", "--control", control.address, *options)


def typed(control: Control, file: Path, typed: str) -> subprocess.CompletedProcess[str]:
    """The same as a person would, with a keyboard: its own process, since the question reads standard input."""
    argv = [sys.executable, "-m", "gateway", "limits", "set", str(file), "-r", "why", "--control", control.address]
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(argv, input=typed, env=paths, capture_output=True, text=True, timeout=30, check=False)


def test_the_limits_in_force_are_shown(control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("limits", "show", "--control", control.address) == 0

    shown = capsys.readouterr().out
    assert "order_quantity" in shown and "1,000,000 money" in shown and "mark_age" in shown


def test_a_lower_limit_is_armed_without_a_question(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SIZE + VALUE + POSITION.format(80))

    assert set_limits(control, file) == 0

    assert control.position == 80
    said = capsys.readouterr()
    assert "limit 100 → 80" in said.out and "more allowed" not in said.out
    assert "in force everywhere" in said.err


def test_a_higher_limit_is_armed_once_all_is_typed(control: Control, file: Path) -> None:
    file.write_text(SIZE + VALUE + POSITION.format(120))

    for text in ("", "yes\n", "ALPHA\n"):
        assert typed(control, file, text).returncode == 2
        assert control.position == 100
    done = typed(control, file, "all\n")

    assert done.returncode == 0 and control.position == 120
    assert "▲ more allowed" in done.stdout and "Type all to arm it" in done.stderr


def test_a_higher_limit_of_one_account_asks_for_its_name(control: Control, file: Path) -> None:
    file.write_text(BASE + POSITION.format(120) + 'account = "ALPHA"\n')

    refused, done = typed(control, file, "all\n"), typed(control, file, "ALPHA\n")

    assert (refused.returncode, done.returncode) == (2, 0)
    assert "Type ALPHA to arm it" in refused.stderr


def test_scripts_are_not_asked(control: Control, file: Path) -> None:
    file.write_text(SIZE + VALUE + POSITION.format(120))

    assert set_limits(control, file, "--yes") == 0
    assert control.position == 120


def test_validating_only_shows_it_and_changes_nothing(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SIZE + VALUE + POSITION.format(120))

    assert set_limits(control, file, "--validate-only", "--json") == 0

    answer = json.loads(capsys.readouterr().out)
    assert (answer["changes"][0]["loosened"], answer["acknowledged_partitions"]) == (True, 0)
    assert control.position == 100


def test_a_bad_file_is_refused_row_by_row_before_anything_is_sent(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SIZE + VALUE.replace("limit =", "limt =") + POSITION.format(5))

    assert set_limits(control, file) == 78

    said = capsys.readouterr().err
    assert "limit[1].limt: unknown key" in said and "limit[2].warn: expected a number from 0 to the limit 5" in said


def test_what_only_the_configuration_file_sets_is_said_to_be_left_out(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[limits]\nmarket_slippage = 0.5\n" + BASE)

    assert set_limits(control, file) == 0
    assert "left out, only the configuration file sets them: market_slippage" in capsys.readouterr().err


def test_a_file_like_what_is_in_force_differs_in_nothing(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(BASE)

    assert exit_code("config", "diff", str(file), "--control", control.address) == 0
    assert "arms the same limits as what is in force" in capsys.readouterr().err


def test_what_a_file_would_change_is_shown_old_to_new(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[limits]\nmarket_slippage = 0.5\n" + SIZE + VALUE + POSITION.format(120))

    assert exit_code("config", "diff", str(file), "--control", control.address) == 1

    shown = capsys.readouterr().out
    assert "limit 100 → 120" in shown and "market_slippage 0.01 → 0.5" in shown


def test_a_set_in_shadow_is_compared_and_shown_too(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control.arm(BASE, shadow=POSITION.format(40))
    (file.parent / "next.toml").write_text(POSITION.format(30))
    file.write_text('[limits]\nshadow = "next.toml"\n' + BASE)

    assert exit_code("config", "diff", str(file), "--control", control.address) == 1
    compared = capsys.readouterr()
    assert exit_code("limits", "show", "--shadow", "--control", control.address) == 0

    assert "limits in shadow:" in compared.err and "limit 40 → 30" in compared.out
    assert "40" in capsys.readouterr().out


def test_two_files_are_compared_without_any_gateway(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = file.with_name("other.toml")
    other.write_text(BASE)
    file.write_text(SIZE + VALUE + POSITION.format(90))

    assert exit_code("config", "diff", str(file), "--against", str(other)) == 1
    assert "limit 100 → 90" in capsys.readouterr().out
