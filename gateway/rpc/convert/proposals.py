"""Proposals of limit sets and the history of armed ones, to and from the contract.

What a request asks for is read and checked here, and what the engine and the gateway know is told. Nothing is decided.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.limit_changes import field_in_words
from engine.proposals import Proposal, ProposalState
from gateway.proposals import Arming, Proposed
from gateway.rpc.convert.form import Form
from gateway.rpc.convert.limits import limit_changes
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import risk_admin_pb2

ARMINGS_MAX = 1_000
ARMINGS_DEFAULT = 50

_STATES = {state: risk_admin_pb2.ProposalState.Value(f"PROPOSAL_STATE_{state.name}") for state in ProposalState}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which proposal somebody decides, and why."""

    proposal_id: str
    reason: str


def verdict_of(request: risk_admin_pb2.ApproveLimitsRequest | risk_admin_pb2.RejectLimitsRequest) -> Verdict:
    """Raises Invalid naming every field at fault."""
    form = Form()
    verdict = Verdict(form.name("proposal_id", request.proposal_id), form.text("reason", request.reason, required=True))
    form.done()
    return verdict


def page_of(request: risk_admin_pb2.ListLimitSetsRequest) -> int:
    """How many armings are asked for. Raises Invalid."""
    form = Form()
    if not 0 <= request.page_size <= ARMINGS_MAX:
        form.wrong("page_size", f"expected 0 to {ARMINGS_MAX:,}, got {request.page_size}")
    form.done()
    return request.page_size or ARMINGS_DEFAULT


def set_asked_for(request: risk_admin_pb2.GetLimitsRequest) -> str:
    """The hash of a set that is asked for by name; empty: what is in force. Raises Invalid."""
    form = Form()
    name = form.name("limit_set", request.limit_set, required=False)
    if name and (request.account or request.shadow):
        form.wrong("limit_set", "expected none beside account or shadow: a set by its hash is told whole")
    form.done()
    return name


def proposal(told: Proposed) -> risk_admin_pb2.LimitProposal:
    message = decision(told.proposal)
    message.changes.extend(limit_changes(told.changes.rows))
    message.policy_changes.extend(field_in_words(field.change) for field in told.changes.policy)
    return message


def decision(one: Proposal) -> risk_admin_pb2.LimitProposal:
    """A proposal without what it changes."""
    return risk_admin_pb2.LimitProposal(
        proposal_id=one.id,
        limit_set=one.limit_set,
        base_limit_set=one.base,
        actor=one.actor,
        reason=one.reason,
        propose_time=timestamp(one.time_us),
        loosened=one.loosened,
        state=_STATES[one.state],
        decided_by=one.decided_by,
        decide_reason=one.decided_reason,
        decide_time=None if one.is_open else timestamp(one.decided_us),
        stop_epoch=one.epoch,
    )


def arming_list(entries: Iterable[Arming]) -> risk_admin_pb2.ListLimitSetsResponse:
    return risk_admin_pb2.ListLimitSetsResponse(armings=[_arming(one) for one in entries])


def _arming(one: Arming) -> risk_admin_pb2.LimitSetArming:
    return risk_admin_pb2.LimitSetArming(
        limit_set=one.limit_set,
        previous_limit_set=one.previous_limit_set,
        shadow_limit_set=one.shadow_limit_set,
        actor=one.actor,
        reason=one.reason,
        arm_time=timestamp(one.time_us),
        stop_epoch=one.epoch,
        proposal_id=one.proposal,
        proposed_by=one.proposed_by,
    )
