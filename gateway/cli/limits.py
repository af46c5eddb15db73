"""`limits show`, `limits set` and `config diff`: what is armed, changing it, and what a file would change.

A change is always shown old → new before it is made. One that lets an account do more asks for that account's name, or
for `all`; one that tightens asks nothing. What is a change, and whether it loosens, is said by the control process, or
by the engine where two files are compared.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import CONTROL_ADDRESS, ControlOption, JsonOption, TokenOption
from gateway.cli.configure import CONFIG_NAME, warnings_of
from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from engine.limit_changes import LimitChange
    from engine.limits import LimitSet
    from gateway.cli.connection import Connection
    from riskgateway.v1.risk_admin_pb2 import GetLimitsResponse, UpdateLimitsRequest, UpdateLimitsResponse

EVERYBODY = "all"
"""What is typed to confirm a change that lets more than one account do more."""


def show(
    account: Annotated[str, typer.Option("--account", "-a", help="Only what holds for this account.")] = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="The set that is armed beside it, without effect.")] = False,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show the limits in force, row by row."""
    from gateway.cli import limit_tables
    from gateway.cli.connection import connected
    from gateway.cli.screen import note, show, show_json

    with connected(control, token) as connection:
        told = limits_told(connection, shadow, account)
    if as_json:
        show_json(told)
    elif not told.limit_set:
        note("no set is in shadow" if shadow else "no limits are armed: nothing trades")
    else:
        show(limit_tables.limits(told))


def set_limits(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file with [[limit]] rows, all of them.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; required, for the record.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; for scripts.")] = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Show it, and change nothing.")] = False,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Arm the rows of a file now, until the configuration's own change. Asks where somebody may do more than before."""
    from gateway.cli import limit_tables
    from gateway.cli.connection import connected
    from gateway.cli.screen import note, show, show_json
    from gateway.rpc.convert.limits import changes_of

    with connected(control, token) as connection:
        request = _update(path, limits_told(connection), reason)
        found = _answered(connection, request, validate_only=True)
        changes = changes_of(found.changes)
        if not as_json:
            show(limit_tables.changes(changes, ()))
        if not changes:
            note("✔ the limits in force are those of the file already")
        if not changes or validate_only:
            _end(found, as_json)
            return
        if not yes and any(change.loosened for change in changes):
            _confirm(changes)
        armed = _answered(connection, request, validate_only=False)
    was, now = armed.previous_limit_set[:8], armed.limit_set[:8]
    note(f"✔ limits {now} in force everywhere, in place of {was} · epoch {armed.stop_epoch}")
    note("They stay until the limits in the configuration file change.")
    if as_json:
        show_json(armed)


def _end(found: "UpdateLimitsResponse", as_json: bool) -> None:
    from gateway.cli.screen import show_json

    if as_json:
        show_json(found)


def _update(path: Path, told: "GetLimitsResponse", reason: str) -> "UpdateLimitsRequest":
    from gateway.cli.screen import note
    from gateway.cli.serve import loaded, unusable
    from gateway.config import ConfigError
    from gateway.machine import limits_of
    from gateway.rpc.convert.limits import allocations, limit
    from riskgateway.v1 import risk_admin_pb2

    settings = loaded(path, {})
    try:
        rows = limits_of(settings, str(path)).rows
    except ConfigError as error:
        raise unusable(error) from error
    for warning in warnings_of(settings.limit_rows):
        note(f"⚠ {warning}")
    if settings.limits.policy:
        note(f"⚠ left out, only the configuration file sets them: {', '.join(settings.limits.policy)}")
    return risk_admin_pb2.UpdateLimitsRequest(
        limits=[limit(row) for row in rows],
        allocations=allocations(rows),
        expected_limit_set=told.limit_set,
        reason=reason,
    )


def _answered(connection: "Connection", request: "UpdateLimitsRequest", validate_only: bool) -> "UpdateLimitsResponse":
    from gateway.cli.connection import STOP_TIMEOUT_S

    request.validate_only = validate_only
    return connection.admin.UpdateLimits(request, timeout=STOP_TIMEOUT_S, metadata=connection.metadata)


def _confirm(changes: "Sequence[LimitChange]") -> None:
    """Returns if the name is typed; else Failure. Asked on standard error, so that --json stays clean."""
    from gateway.cli.screen import note

    accounts = {change.row.account for change in changes if change.loosened}
    name = accounts.pop() if len(accounts) == 1 else EVERYBODY
    name = EVERYBODY if name == "*" else name
    note(f"This lets {'every account' if name == EVERYBODY else name} do more than before (▲). Type {name} to arm it.")
    try:
        typed = input()
    except EOFError as error:
        raise Failure("nobody to ask: nothing was armed", ExitCode.USAGE, hint="Scripts give --yes.") from error
    if typed.strip() != name:
        raise Failure(f"{typed.strip()!r} is not {name}: nothing was armed", ExitCode.USAGE)


def diff(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="The configuration.")] = Path(CONFIG_NAME),
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Another file, in place of what is in force.")
    ] = None,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show what the limits of a file change in those in force, old → new. Exit code 0: nothing; 1: something."""
    from engine.limit_changes import changes
    from engine.limits import LimitSet
    from engine.measures import MEASURES
    from gateway.cli import limit_tables
    from gateway.cli.connection import connected
    from gateway.cli.screen import note, show
    from gateway.rpc.convert.limits import limit_set_of

    after = sets_of(path)
    if against is not None:
        before = sets_of(against)
    else:
        with connected(control, token) as connection:
            in_force, in_shadow = limits_told(connection), limits_told(connection, shadow=True)
        before = limit_set_of(in_force), limit_set_of(in_shadow) if in_shadow.limit_set else None
    found = [
        (words, changes(old or LimitSet(), new or LimitSet(), MEASURES))
        for words, old, new in zip(("limits", "limits in shadow"), before, after, strict=True)
        if old is not None or new is not None
    ]
    for words, made in found:
        if made:
            note(f"{words}:")
            show(limit_tables.changes(made.rows, made.policy))
    origin = "what is in force" if against is None else str(against)
    if not any(made for _, made in found):
        note(f"✔ {path} arms the same limits as {origin}")
        return
    raise typer.Exit(ExitCode.DIFFERENT)


def sets_of(path: Path) -> "tuple[LimitSet, LimitSet | None]":
    """What `serve` would arm and put in shadow with this file, under the present environment."""
    from gateway.cli.serve import loaded, unusable
    from gateway.config import ConfigError
    from gateway.machine import configured_limits

    try:
        configured = configured_limits(loaded(path, os.environ))
    except ConfigError as error:
        raise unusable(error) from error
    return configured.limits, configured.shadow


def limits_told(
    connection: "Connection", shadow: bool = False, account: str = "", limit_set: str = ""
) -> "GetLimitsResponse":
    """The limits in force, those in shadow, or a set by its hash."""
    from gateway.cli.connection import CALL_TIMEOUT_S
    from riskgateway.v1 import risk_admin_pb2

    request = risk_admin_pb2.GetLimitsRequest(account=account, shadow=shadow, limit_set=limit_set)
    return connection.admin.GetLimits(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
