"""Proposals of limits and the history of armed sets as something to read: tables, and nothing else.

Nothing is printed or asked here. Texts from outside go into `Text`, never into markup.
"""

from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli import limit_tables
from gateway.rpc.convert.limits import changes_of
from riskgateway.v1 import risk_admin_pb2

DIGITS = 8
NONE = "–"


def changes(proposal: risk_admin_pb2.LimitProposal) -> RenderableType:
    """What a proposal changes, row by row and beside the rows."""
    rows = limit_tables.changes(changes_of(proposal.changes), ())
    return Group(rows, *(Text(f"  [limits] {words}") for words in proposal.policy_changes))


def proposals(kept: risk_admin_pb2.ListProposalsResponse) -> RenderableType:
    """A block for each: who, when, why, what became of it; of those that wait also what they change."""
    return Group(*(_proposal(one, kept.limit_set) for one in kept.proposals))


def _proposal(one: risk_admin_pb2.LimitProposal, in_force: str) -> RenderableType:
    who_why = f"{one.actor} · {_when(one.propose_time)} · {one.reason}"
    head = f"{one.proposal_id} · limits {one.limit_set[:DIGITS]} · {who_why}"
    if one.state != risk_admin_pb2.PROPOSAL_STATE_OPEN:
        state = risk_admin_pb2.ProposalState.Name(one.state).removeprefix("PROPOSAL_STATE_").lower()
        return Text(f"{head}\n  {state} by {one.decided_by} · {_when(one.decide_time)} · {one.decide_reason}", "dim")
    if one.base_limit_set != in_force:
        return Text(f"{head}\n  made from {one.base_limit_set[:DIGITS]}, which is not in force: propose it anew")
    loosened = "\n  ▲ lets some account do more" if one.loosened else ""
    return Group(Text(f"{head}{loosened}"), changes(one))


def history(told: risk_admin_pb2.ListLimitSetsResponse) -> RenderableType:
    """A line for each arming."""
    table = Table(box=box.SIMPLE, header_style="bold")
    for column in ("armed", "limits", "before", "shadow", "by", "proposal", "reason"):
        table.add_column(column, overflow="fold")
    for one in told.armings:
        names = (one.limit_set, one.previous_limit_set, one.shadow_limit_set)
        by = f"{one.proposal_id[:DIGITS]} of {one.proposed_by}" if one.proposal_id else NONE
        cells = (_when(one.arm_time), *(name[:DIGITS] or NONE for name in names), one.actor, by, one.reason)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _when(time: Timestamp) -> str:
    return f"{time.ToDatetime():%Y-%m-%d %H:%M:%S}Z"
