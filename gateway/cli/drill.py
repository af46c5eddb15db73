"""`drill`: makes each safeguard stop something on a paper account, and tells what was expected and what was seen.

Thin: the plays are `gateway.drill`'s, here they are chosen and shown. No gateway and no store is reached; what a drill
proves is that this installation's rules act, not that a running gateway has them armed, and the output says so.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import JsonOption
from gateway.cli.exits import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gateway.drill.sighting import Outcome, Play

GROUND = (
    "Played on a paper account with a log in memory. No running gateway or store was touched: which limits are armed "
    "there, `risk-gateway limits show` tells."
)

PlayOption = Annotated[
    list[str] | None,
    typer.Option(
        "--play", metavar="NAME", help="Only this, or all that a pattern such as 'limit:*' selects. Repeatable."
    ),
]


def drill(
    play: PlayOption = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the plays, and play none.")] = False,
    details: Annotated[bool, typer.Option("--details", help="Show each step, also of plays that passed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Breach every limit, stop, starve and restart a paper account; exit code 1 where one did not act as it must."""
    from gateway.cli.screen import console, show
    from gateway.drill.plays import all_plays, chosen, played

    try:
        plays = chosen(all_plays(), play or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--play") from error
    if listed:
        _tell_names(plays, as_json)
        return
    with _quiet():
        outcomes = asyncio.run(played(plays))
    if as_json:
        console().print(_json(outcomes), markup=False, soft_wrap=True)
    else:
        show(table(outcomes, details))
    if not all(outcome.passed for outcome in outcomes):
        raise typer.Exit(ExitCode.DIFFERENT)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the gateway logs of a drill is no part of its answer; errors still go to standard error."""
    import logging
    import sys

    import structlog

    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _tell_names(plays: "Sequence[Play]", as_json: bool) -> None:
    import json

    from rich.text import Text

    from gateway.cli.screen import console, show

    if as_json:
        named = [{"play": one.name, "about": one.about} for one in plays]
        console().print(json.dumps(named, indent=2), markup=False, soft_wrap=True)
        return
    width = max(len(one.name) for one in plays)
    show(Text("\n".join(f"{one.name:{width}}  {one.about}" for one in plays)))


def _json(outcomes: "Sequence[Outcome]") -> str:
    import json

    told = [
        {
            "play": outcome.play,
            "about": outcome.about,
            "passed": outcome.passed,
            "steps": [{**one._asdict(), "passed": one.passed} for one in outcome.sightings],
        }
        for outcome in outcomes
    ]
    passed = all(outcome.passed for outcome in outcomes)
    return json.dumps({"ground": GROUND, "passed": passed, "plays": told}, indent=2, ensure_ascii=False)


def table(outcomes: "Sequence[Outcome]", details: bool = False) -> "RenderableType":
    """A line a play; of those that failed, of stops and of the restart, a line a step; with `details`, of all."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("play", "step", "expected", "seen", ""):
        rows.add_column(name, overflow="fold")
    for outcome in outcomes:
        if outcome.passed and not details and outcome.play.startswith("limit:"):
            *_, last = outcome.sightings
            breach = next((one for one in outcome.sightings if one.step in BREACHES), last)
            rows.add_row(
                Text(outcome.play),
                Text(f"{breach.step} (and {len(outcome.sightings) - 1} more)"),
                Text(breach.expected),
                Text(breach.seen),
                _mark(True),
            )
            continue
        for place, one in enumerate(outcome.sightings):
            name = outcome.play if place == 0 else ""
            rows.add_row(Text(name), Text(one.step), Text(one.expected), Text(one.seen), _mark(one.passed))
    failed = [outcome.play for outcome in outcomes if not outcome.passed]
    told = f"{len(outcomes) - len(failed)} of {len(outcomes)} plays passed"
    summary = Text(f"{told}; failed: {', '.join(failed)}" if failed else told, style="bold red" if failed else "bold")
    return Group(rows, summary, Text(GROUND))


BREACHES = ("action reject", "action halt")
"""The step of a limit's play that is shown where only one is."""


def _mark(passed: bool) -> "RenderableType":
    from rich.text import Text

    return Text("PASS", style="green") if passed else Text("FAIL", style="bold red")
