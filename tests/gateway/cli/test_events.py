"""`events` and `event-set` against a real control server: what is entered is listed, and bad times are told."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer

from gateway.cli.app import run
from gateway.cli.events import _moment
from gateway.rpc.backend import Backend
from tests.gateway.rpc.serving import served

SET = ("event-set", "mine", "--name", "Rate decision", "--kind", "central_bank", "--type", "fomc", "--reason", "desk")


def exit_code(argv: Sequence[str]) -> int:
    """How a command ends, whichever way it ends."""
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


async def typed(*argv: str) -> int:
    return await asyncio.to_thread(exit_code, argv)


async def test_an_event_is_entered_and_listed(
    backend: Backend, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(backend, folder, control=True) as control:
        at = ("--control", control.address)
        assert await typed("events", *at) == 0
        none = capsys.readouterr().out
        assert await typed(*SET, "--at", "2023-11-15T20:00+01:00", "--before", "90", "--symbol", "AAPL", *at) == 0
        entered = capsys.readouterr().out
        assert await typed("events", "--json", *at) == 0
        told = json.loads(capsys.readouterr().out)
        assert await typed("events", *at) == 0
        table = capsys.readouterr().out

    assert "no calendar of events is configured" in none
    assert "entered: Rate decision, 2023-11-15 19:00 UTC · bounds × 0.5 from 2023-11-15 17:30" in entered
    assert [(one["event_id"], one["symbols"], one["window_before"]) for one in told["events"]] == [
        ("mine", ["AAPL"], "5400s")
    ]
    assert "recommended: WATCH" in table and "MODERATE" in table


@pytest.mark.parametrize(("text", "problem"), [("tomorrow", "is no time"), ("2026-12-09T19:00", "has no zone")])
def test_a_time_without_a_zone_is_not_guessed(text: str, problem: str) -> None:
    moment: Callable[[str], object] = _moment
    with pytest.raises(typer.BadParameter, match=problem):
        moment(text)
