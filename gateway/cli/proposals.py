"""`limits propose`, `approve`, `reject`, `proposals`, `history`, `diff`: limits that two people change, and their past.

What a proposal changes is always shown. Whether it may be made or approved is control's to say. Sets and proposals are
named by the first digits of their hashes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import CONTROL_ADDRESS, ControlOption, JsonOption, TokenOption
from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.cli.connection import Connection
    from riskgateway.v1.risk_admin_pb2 import ListProposalsResponse

ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; required, for the record.")]
ProposalArgument = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Its id, or how that begins.")]


def propose(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration: its [limits] and [[limit]] rows.")],
    reason: ReasonOption,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Put the limits of a file forward; they are armed once somebody approves them."""
    from gateway.cli import proposal_tables, screen
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from gateway.cli.limits import limits_told, sets_of
    from gateway.rpc.convert.limits import allocations, limit, policy
    from riskgateway.v1 import risk_admin_pb2

    wanted, _ = sets_of(path)
    with connected(control, token) as connection:
        request = risk_admin_pb2.ProposeLimitsRequest(
            limits=[limit(row) for row in wanted.rows],
            allocations=allocations(wanted.rows),
            policy=policy(wanted.policy),
            expected_limit_set=limits_told(connection).limit_set,
            reason=reason,
        )
        made = connection.admin.ProposeLimits(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        screen.show_json(made)
        return
    screen.show(proposal_tables.changes(made.proposal))
    name = made.proposal.proposal_id
    screen.note(f"✔ proposed; armed by: risk-gateway limits approve {name} --reason …")


def approve(
    proposal: ProposalArgument,
    reason: ReasonOption,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Arm what somebody proposed, everywhere."""
    from gateway.cli import proposal_tables, screen
    from gateway.cli.connection import STOP_TIMEOUT_S, connected
    from riskgateway.v1 import risk_admin_pb2

    with connected(control, token) as connection:
        request = risk_admin_pb2.ApproveLimitsRequest(proposal_id=_full_id(connection, proposal), reason=reason)
        armed = connection.admin.ApproveLimits(request, timeout=STOP_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        screen.show_json(armed)
        return
    made = armed.proposal
    screen.show(proposal_tables.changes(made))
    screen.note(f"✔ limits {made.limit_set[:8]} in force everywhere, approved by {made.decided_by}")


def reject(
    proposal: ProposalArgument,
    reason: ReasonOption,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Put a proposal aside."""
    from gateway.cli import screen
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from riskgateway.v1 import risk_admin_pb2

    with connected(control, token) as connection:
        request = risk_admin_pb2.RejectLimitsRequest(proposal_id=_full_id(connection, proposal), reason=reason)
        aside = connection.admin.RejectLimits(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        screen.show_json(aside)
        return
    screen.note(f"✔ proposal {aside.proposal.proposal_id} rejected by {aside.proposal.decided_by}")


def proposals(as_json: JsonOption = False, control: ControlOption = CONTROL_ADDRESS, token: TokenOption = "") -> None:
    """List what waits for approval, with what it changes, and what was decided last."""
    from gateway.cli import proposal_tables, screen
    from gateway.cli.connection import connected

    with connected(control, token) as connection:
        kept = _proposals(connection)
    if as_json:
        screen.show_json(kept)
    elif not kept.proposals:
        screen.note("nothing is proposed")
    else:
        screen.show(proposal_tables.proposals(kept))


def history(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000, help="The last so many.")] = 20,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """List which limit sets were armed: when, by whom, why. Oldest first."""
    from gateway.cli import proposal_tables, screen
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from riskgateway.v1 import risk_admin_pb2

    request = risk_admin_pb2.ListLimitSetsRequest(page_size=count)
    with connected(control, token) as connection:
        told = connection.admin.ListLimitSets(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        screen.show_json(told)
    elif not told.armings:
        screen.note("no limits were armed yet")
    else:
        screen.show(proposal_tables.history(told))


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A set in the history, by its first digits.")],
    new: Annotated[str, typer.Argument(metavar="[NEW]", help="Another; without: the one in force.")] = "",
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show what one armed set changed in another, old → new. Exit code 0: nothing; 1: something."""
    from engine.limit_changes import changes
    from engine.measures import MEASURES
    from gateway.cli import limit_tables, screen
    from gateway.cli.connection import connected
    from gateway.cli.limits import limits_told
    from gateway.rpc.convert.limits import limit_set_of

    with connected(control, token) as connection:
        known = _known_sets(connection)
        before = limits_told(connection, limit_set=_only_one(known, old, "limit set"))
        after = limits_told(connection, limit_set=_only_one(known, new, "limit set") if new else "")
    made = changes(limit_set_of(before), limit_set_of(after), MEASURES)
    if not made:
        screen.note("✔ both say the same")
        return
    screen.show(limit_tables.changes(made.rows, made.policy))
    raise typer.Exit(ExitCode.DIFFERENT)


def _proposals(connection: "Connection") -> "ListProposalsResponse":
    from gateway.cli.connection import CALL_TIMEOUT_S
    from riskgateway.v1 import risk_admin_pb2

    request = risk_admin_pb2.ListProposalsRequest()
    return connection.admin.ListProposals(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)


def _full_id(connection: "Connection", start: str) -> str:
    return _only_one((one.proposal_id for one in _proposals(connection).proposals), start, "proposal")


def _known_sets(connection: "Connection") -> set[str]:
    from gateway.cli.connection import CALL_TIMEOUT_S
    from riskgateway.v1 import risk_admin_pb2

    request = risk_admin_pb2.ListLimitSetsRequest(page_size=1_000)
    told = connection.admin.ListLimitSets(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    armed = {name for one in told.armings for name in (one.limit_set, one.previous_limit_set) if name}
    return armed | {one.limit_set for one in _proposals(connection).proposals}


def _only_one(names: "Iterable[str]", start: str, what: str) -> str:
    """The one that begins so. Raises Failure where none or several do."""
    fitting = sorted({name for name in names if start and name.startswith(start)})
    if len(fitting) == 1:
        return fitting[0]
    found = f"{len(fitting)} {what}s begin" if fitting else f"no {what} begins"
    raise Failure(f"{found} with {start!r}", ExitCode.USAGE, hint="See: risk-gateway limits history, proposals.")
