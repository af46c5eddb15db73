"""Limits that change while a whole machine runs: by its file, by the command line, and by nothing that is wrong."""

import signal
from pathlib import Path

from riskgateway.v1 import decision_pb2
from tests.e2e.configuration import CONFIGURATION
from tests.e2e.conftest import MakeMachine
from tests.e2e.desk import Desk, desk
from tests.e2e.machine import READY_S, Machine, wait_until


def with_position(limit: int) -> str:
    return CONFIGURATION.replace("limit = 500\n", f"limit = {limit}\n")


def write(path: Path, text: str) -> None:
    path.write_text(text)


def await_log(machine: Machine, words: str, times: int = 1) -> None:
    wait_until(lambda: machine.log_of("control").count(words) >= times, READY_S, f"control never said {words!r}")


async def room(mine: Desk) -> float:
    """How much of 600 would be allowed."""
    return (await mine.check(mine.order("KO", quantity=600), dry_run=True)).allowed_quantity


async def test_a_changed_file_is_in_force_within_seconds_and_a_bad_one_changes_nothing(
    make_machine: MakeMachine,
) -> None:
    machine = make_machine()
    async with desk(machine, "HOT") as mine:
        await mine.open()
        await mine.await_model()
        before = await room(mine)

        write(machine.config_path, with_position(450))
        await_log(machine, "limit 500 → 450")
        changed = await room(mine)
        write(machine.config_path, with_position(400).replace("measure = ", "mesure = ", 1))
        await_log(machine, "limit[0].mesure: unknown key, did you mean")
        bad = await room(mine)
        write(machine.config_path, with_position(300))
        machine.send("control", signal.SIGHUP)
        await_log(machine, "limit 450 → 300")

        assert (before, changed, bad, await room(mine)) == (500, 450, 450, 300)


async def test_what_the_command_line_armed_survives_every_process_and_ends_with_the_next_file(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    machine = make_machine()
    lower = tmp_path / "lower.toml"
    write(lower, with_position(200))
    async with desk(machine, "SET") as mine:
        await mine.open()
        await mine.await_model()

        done = machine.run("limits", "set", str(lower), "--reason", "for today", "--control", machine.control)
        armed = await room(mine)
        machine.kill("control", "gateway")
        machine.await_ready()
        await_log(machine, "those of the last UpdateLimits")
        restarted = (await mine.insist(mine.order("KO", quantity=600))).allowed_quantity
        write(machine.config_path, with_position(350))
        await_log(machine, "limit 200 → 350")

        assert done.returncode == 0, done.stderr
        assert (armed, restarted) == (200, 200)
        assert (await mine.check(mine.order("KO", quantity=600))).action == decision_pb2.ACTION_REDUCE
