"""`config init`, `config validate` and `config schema`: the file, before anything is started with it.

`problems_of` finds every fault at once: those of the settings, and those of each limit row on its own, since a person
who mistyped two keys wants to hear of both. Nothing is armed here.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from gateway.config import Settings

CONFIG_NAME = "risk-gateway.toml"
SHAPE = {"size": "order_quantity", "value": "order_value", "position": "position"}
"""What must be limited for anything to trade, and the measure that usually does it."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a configuration is worth. Without problems it can be used; warnings are for people."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    settings: "Settings | None"


def init(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to.")] = Path(CONFIG_NAME),
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite it if it exists.")] = False,
) -> None:
    """Write a commented configuration with a balanced set of limits to start from."""
    from gateway.cli.screen import note
    from gateway.config import template_text

    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(template_text())
    except FileExistsError as error:
        raise Failure(f"{path} exists", ExitCode.USAGE, hint="--force overwrites it.") from error
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror}", ExitCode.USAGE) from error
    note(f"✔ {path} written. Edit it, then: risk-gateway config validate {path}; risk-gateway serve --config {path}")


def validate(path: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a configuration with its limits, under the present environment. Exit code 0, or 78 with every problem."""
    from gateway.cli.screen import note

    findings = findings_of(path, os.environ)
    for warning in findings.warnings:
        note(f"⚠ {warning}")
    if findings.problems or findings.settings is None:
        count = len(findings.problems)
        raise Failure(f"{path}: {count} problem{'s' if count != 1 else ''}", ExitCode.CONFIG, findings.problems)
    settings = findings.settings
    note(f"✔ {path}: mode {settings.mode}, tier {settings.store.tier}, {len(settings.limit_rows)} limits")


def schema() -> None:
    """Print the JSON schema of the configuration, for editors and checks."""
    from gateway.config import schema_text

    typer.echo(schema_text(), nl=False)


def findings_of(path: Path, environment: Mapping[str, str]) -> Findings:
    """Every problem of a file, settings first, then limits in the order of their rows."""
    from gateway.config import ConfigError, load
    from gateway.machine import configured_limits, limit_problems

    try:
        settings = load(path, environment)
    except ConfigError as error:
        return Findings((*error.problems, *limit_problems(_rows_of(path), {})), (), None)
    try:
        configured_limits(settings)
    except ConfigError as error:
        named = "" if error.source == "limits" else f"{error.source}: "
        return Findings(tuple(f"{named}{problem}" for problem in error.problems), (), settings)
    return Findings((), warnings_of(settings.limit_rows), settings)


def _rows_of(path: Path) -> list[dict[str, Any]]:
    """The limit rows of a file whose settings can't be used; none where it is no TOML at all."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("limit", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []  # said already, by the same reading
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def warnings_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Where no size, value and position limit reaches an instrument, nothing trades in it: rarely what was meant."""
    from engine.measures import MEASURES

    acting = [row for row in rows if row.get("mode") != "shadow" and row.get("action") != "warn"]
    guarded = {MEASURES[row["measure"]].guards for row in acting}
    return tuple(
        f"no limit on {shape}, so nothing can trade: add a row with measure = {measure!r}, or preset = 'balanced'"
        for shape, measure in SHAPE.items()
        if shape not in guarded
    )
