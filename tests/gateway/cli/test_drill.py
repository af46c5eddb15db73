"""`drill`: every play passes on the rules as they are, and fails where a rule does not act or was not drilled."""

import ast
import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import gateway.drill
from engine.limits import LimitAction
from engine.measures import MEASURES
from engine.order import Reason
from gateway.cli.app import run
from gateway.drill.limit_plays import NOT_DRILLED, SCENES, limit_plays, sightings_of
from gateway.drill.operation_plays import operation_plays
from gateway.drill.paper import account, buy, desk, row
from gateway.drill.plays import all_plays, chosen, played
from gateway.drill.sighting import Outcome, Play, Sighting


def exit_code(*argv: str) -> int:
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


def failures(outcome: Outcome) -> list[Sighting]:
    return [one for one in outcome.sightings if not one.passed]


@pytest.mark.parametrize("play", limit_plays(), ids=[play.name for play in limit_plays()])
def test_a_breached_limit_acts_as_its_action_says(play: Play) -> None:
    (outcome,) = asyncio.run(played([play]))

    assert failures(outcome) == []
    assert outcome.passed


@pytest.mark.parametrize("play", operation_plays(), ids=[play.name for play in operation_plays()])
def test_stops_inputs_retries_and_the_restart_go_as_they_must(play: Play) -> None:
    (outcome,) = asyncio.run(played([play]))

    assert failures(outcome) == []
    assert outcome.passed


def test_there_is_a_play_for_every_measure_and_a_scene_for_no_other() -> None:
    assert [play.name for play in limit_plays()] == [f"limit:{name}" for name in MEASURES]
    assert set(SCENES) <= set(MEASURES)


def test_a_measure_without_a_scene_fails() -> None:
    seen = sightings_of(MEASURES["position"], None)

    assert [one.seen for one in seen] == [NOT_DRILLED]
    assert not Outcome("limit:position", "", seen).passed


def test_a_play_that_showed_nothing_fails() -> None:
    assert not Outcome("empty", "", ()).passed


def test_a_limit_that_lets_a_breach_pass_fails() -> None:
    scene = SCENES["position"]()
    loose = replace(scene, row=msgspec.structs.replace(scene.row, limit=11.0))

    steps = [one.step for one in sightings_of(MEASURES["position"], loose) if not one.passed]

    assert steps == ["action warn", "action reject", "action reduce", "action halt", "next order"]


def test_a_limit_that_gives_anothers_reason_fails() -> None:
    misnamed = replace(MEASURES["position"], reason=Reason.LEVERAGE)

    told = [one.seen for one in sightings_of(misnamed, SCENES["position"]()) if not one.passed]

    assert told == ["WARN POSITION", "REJECT POSITION", "HALT POSITION"]


def test_a_refusal_for_a_missing_input_is_no_breach() -> None:
    """A mark that is missing makes position-by-value limits refuse, by which nothing is shown of their bounds."""
    scene = replace(SCENES["gross_exposure"](), state=account(marks={"BBB": 50.0}))

    told = [one.seen for one in sightings_of(MEASURES["gross_exposure"], scene) if one.step == "action reject"]

    assert told[0].startswith("REJECT MARK_MISSING without a value of gross_exposure")


def test_an_order_that_is_refused_anyway_shows_nothing_of_a_limit() -> None:
    scene = replace(SCENES["position"](), order=buy(quantity=1.5))

    without = sightings_of(MEASURES["position"], scene)[0]

    assert (without.expected, without.seen) == ("ALLOW", "REJECT")


def test_no_row_is_drilled_that_could_not_be_armed() -> None:
    scene = replace(SCENES["position"](), row=row("position", 10, "firm"))

    with pytest.raises(AssertionError, match=r"limit\[0\].allocation"):
        scene.judged(scene.under(LimitAction.REJECT))


async def test_a_drill_reaches_no_other_account_than_its_own() -> None:
    async with desk() as paper:
        assert paper.accounts.loaded == ("drill",)
        assert await paper.log.accounts() == {"drill"}


def test_the_drill_imports_no_test() -> None:
    for file in Path(gateway.drill.__file__).parent.glob("*.py"):
        names = [
            node.module or "" for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
        ]

        assert not [name for name in names if name.startswith("tests")], file


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_tells_each_play_and_that_nothing_real_was_touched(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("drill", "--play", "retry", "--play", "limit:position") == 0

    told = capsys.readouterr().out
    assert "limit:position" in told
    assert "2 of 2 plays passed" in told
    assert "No running gateway or store was touched" in told
    assert "FAIL" not in told


def test_a_failed_play_ends_with_exit_code_1_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """By its own process, in which a measure is armed that has no scene."""
    story = (
        "import sys\n"
        "from gateway.drill import limit_plays\n"
        "del limit_plays.SCENES['leverage']\n"
        "from gateway.cli.app import run\n"
        "sys.exit(run(['drill', '--play', 'limit:le*', '--play', 'limit:margin']))\n"
    )

    ended = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, check=False)

    assert ended.returncode == 1, ended.stderr
    assert "1 of 2 plays passed; failed: limit:leverage" in ended.stdout
    assert "not drilled" in ended.stdout


def test_json_holds_every_step_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("drill", "--play", "stop:halted", "--json") == 0

    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    (play,) = told["plays"]
    assert play["steps"][2] == {
        "step": "closing order",
        "expected": "HALT TRADING_HALTED",
        "seen": "HALT TRADING_HALTED",
        "passed": True,
    }


def test_the_list_names_all_and_plays_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("drill", "--list") == 0

    named = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert named == [play.name for play in all_plays()]


def test_an_unknown_play_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("drill", "--play", "nope") == 2

    assert "no play is called 'nope'" in capsys.readouterr().err


def test_a_pattern_chooses_in_the_order_of_the_list() -> None:
    assert [play.name for play in chosen(all_plays(), ["stop:*", "retry"])] == [
        "stop:reduce_only",
        "stop:cancel_only",
        "stop:halted",
        "retry",
    ]
