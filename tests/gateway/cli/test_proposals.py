"""`limits propose`, `approve`, `reject`, `proposals`, `history` and `diff` against a real control server."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.log.memory import MemoryLog
from tests.gateway.cli.test_limits import BASE, POSITION, SIZE, VALUE, Control, exit_code


@pytest.fixture
def control(memory_log: MemoryLog, store_clock: list[int]) -> Iterator[Control]:
    with tempfile.TemporaryDirectory(prefix="cli") as name, Control(memory_log, store_clock, Path(name)) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(SIZE + VALUE + POSITION.format(80))
    return path


def command(control: Control, *words: str) -> int:
    return exit_code("limits", *words, "--control", control.address)


def propose(control: Control, file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The id of the proposal."""
    assert command(control, "propose", str(file), "--reason", "desk asked", "--json") == 0
    return str(json.loads(capsys.readouterr().out)["proposal"]["proposal_id"])


def test_what_is_proposed_is_shown_and_armed_once_approved(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(control, "propose", str(file), "--reason", "desk asked") == 0
    said = capsys.readouterr()
    name = re.findall("limits approve ([0-9a-f]{12})", said.err)[0]
    waiting = control.position

    assert command(control, "approve", name[:6], "--reason", "fine") == 0

    assert "limit 100 → 80" in said.out
    assert (waiting, control.position) == (100, 80)
    assert "in force everywhere, approved by local" in capsys.readouterr().err


def test_policy_of_the_file_is_proposed_too(control: Control, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[limits]\nmarket_slippage = 0.25\n" + BASE)

    assert command(control, "propose", str(file), "--reason", "wide market") == 0

    assert "[limits] market_slippage 0.01 → 0.25" in capsys.readouterr().out


def test_proposals_are_listed_with_what_they_change_and_what_became_of_them(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = propose(control, file, capsys)
    command(control, "proposals")
    waiting = capsys.readouterr().out

    assert command(control, "reject", name, "--reason", "not now") == 0
    command(control, "proposals")

    assert name in waiting and "desk asked" in waiting and "limit 100 → 80" in waiting
    assert "rejected by local" in capsys.readouterr().out
    assert command(control, "approve", name, "--reason", "after all") == 65
    assert control.position == 100


def test_a_proposal_from_another_set_than_the_one_in_force_says_so(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    propose(control, file, capsys)
    control.arm(SIZE + VALUE + POSITION.format(90))

    command(control, "proposals")

    assert "not in force: propose it anew" in capsys.readouterr().out


def test_the_history_lists_armings_and_two_sets_are_compared(
    control: Control, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(control, "approve", propose(control, file, capsys), "--reason", "fine")
    capsys.readouterr()
    command(control, "history", "--json")
    first, last = json.loads(capsys.readouterr().out)["armings"]
    command(control, "history")
    shown = capsys.readouterr().out

    changed = command(control, "diff", first["limit_set"][:8])
    compared = capsys.readouterr().out
    same = command(control, "diff", last["limit_set"][:8], last["limit_set"])

    assert last["limit_set"][:8] in shown and "configuration" in shown and "fine" in shown
    assert (changed, same) == (1, 0)
    assert "limit 100 → 80" in compared


def test_what_no_set_or_proposal_begins_with_is_refused(control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(control, "diff", "xyz") == 2
    assert command(control, "approve", "xyz", "--reason", "fine") == 2

    assert "no proposal begins with 'xyz'" in capsys.readouterr().err


def test_nothing_proposed_says_so(control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(control, "proposals") == 0
    assert "nothing is proposed" in capsys.readouterr().err
