"""Proposals of limit sets: who wants which set in place of which, and what became of it.

The pure rules of a change by two people: what is open, who may approve it, how many are kept. They stand in the control
state where the order of armings is settled, so that a proposal is approved in the same step that arms its set, once.
Sets are named by their hashes here; nothing is stored, armed or compared.
"""

import enum
import hashlib

import msgspec

OPEN_MAX = 20
"""Proposals that wait at a time: they travel with the control state, which every gateway reads."""

DECIDED_MAX = 20
"""Those that were decided last are kept, so that repeating an approval is answered as the first time; all of them stand
in the history of control."""

ID_DIGITS = 12


class ProposalState(enum.StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"


class Proposal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A set that somebody wants armed in place of `base`, the set in force when it was proposed."""

    id: str
    limit_set: str
    base: str
    actor: str
    reason: str
    time_us: int
    loosened: bool = False
    """Some account may do more under it than under `base`."""
    state: ProposalState = ProposalState.OPEN
    decided_by: str = ""
    decided_reason: str = ""
    decided_us: int = 0
    epoch: int = 0
    """Of its approval: the control epoch at which its set was armed."""

    @property
    def is_open(self) -> bool:
        return self.state is ProposalState.OPEN


class Fault(enum.StrEnum):
    """Why a proposal is not made or decided, in order of precedence."""

    TWO_PEOPLE = "two_people"
    UNNAMED = "unnamed"
    UNKNOWN = "unknown"
    DECIDED = "decided"
    SAME_PERSON = "same_person"
    UNCHANGED = "unchanged"
    TOO_MANY = "too_many"


class ProposalRefused(Exception):
    """Nothing was changed."""

    def __init__(self, fault: Fault, problem: str) -> None:
        super().__init__(problem)
        self.fault = fault


def need_one_person(two_person: bool) -> None:
    """Raises ProposalRefused(TWO_PEOPLE) where nobody may change limits alone."""
    if two_person:
        problem = "limits are changed by two people here: ProposeLimits, and ApproveLimits by another operator"
        raise ProposalRefused(Fault.TWO_PEOPLE, f"{problem} (risk-gateway limits propose)")


def need_named(is_named: bool, two_person: bool) -> None:
    """Raises ProposalRefused(UNNAMED) where two people are to be told apart and this one has no name of its own."""
    if two_person and not is_named:
        problem = "limits are changed by two people here: each of them needs a token of its own, in [[callers]]"
        raise ProposalRefused(Fault.UNNAMED, problem)


def proposed(kept: tuple[Proposal, ...], new: Proposal) -> tuple[tuple[Proposal, ...], Proposal]:
    """(`kept` with `new`, the proposal that stands for it): one that the same person made of the same sets and that is
    still open is not made again. Raises ProposalRefused(TOO_MANY)."""
    for one in kept:
        if one.is_open and (one.limit_set, one.base, one.actor) == (new.limit_set, new.base, new.actor):
            return kept, one
    waiting = sum(one.is_open for one in kept)
    if waiting >= OPEN_MAX:
        raise ProposalRefused(Fault.TOO_MANY, f"{waiting} proposals wait already: approve or reject some of them first")
    return (*kept, new), new


def found(kept: tuple[Proposal, ...], proposal_id: str) -> Proposal:
    """Raises ProposalRefused(UNKNOWN)."""
    for one in kept:
        if one.id == proposal_id:
            return one
    raise ProposalRefused(Fault.UNKNOWN, f"no proposal {proposal_id!r} is kept")


def need_approvable(proposal: Proposal, actor: str, two_person: bool) -> None:
    """Raises ProposalRefused(DECIDED or SAME_PERSON). `two_person`: whoever proposed a set can't approve it."""
    _need_open(proposal)
    if two_person and actor == proposal.actor:
        raise ProposalRefused(Fault.SAME_PERSON, f"{actor} proposed it: another operator has to approve it")


def approved(
    kept: tuple[Proposal, ...], proposal_id: str, actor: str, reason: str, time_us: int, epoch: int, two_person: bool
) -> tuple[Proposal, ...]:
    """`kept` after an approval. Raises ProposalRefused."""
    proposal = found(kept, proposal_id)
    need_approvable(proposal, actor, two_person)
    return _decided(kept, proposal, ProposalState.APPROVED, actor, reason, time_us, epoch)


def rejected(
    kept: tuple[Proposal, ...], proposal_id: str, actor: str, reason: str, time_us: int
) -> tuple[Proposal, ...]:
    """`kept` after a rejection, by whomever: who made a proposal may take it back. One that was rejected already stays
    as it is. Raises ProposalRefused(UNKNOWN or DECIDED)."""
    proposal = found(kept, proposal_id)
    if proposal.state is ProposalState.REJECTED:
        return kept
    _need_open(proposal)
    return _decided(kept, proposal, ProposalState.REJECTED, actor, reason, time_us, 0)


def proposal_id(base: str, limit_set: str, actor: str, time_us: int) -> str:
    """12 hex digits that name a proposal."""
    return hashlib.blake2b(f"{base}\n{limit_set}\n{actor}\n{time_us}".encode()).hexdigest()[:ID_DIGITS]


def _need_open(proposal: Proposal) -> None:
    if not proposal.is_open:
        problem = f"proposal {proposal.id} was {proposal.state} by {proposal.decided_by} already"
        raise ProposalRefused(Fault.DECIDED, problem)


def _decided(
    kept: tuple[Proposal, ...],
    proposal: Proposal,
    state: ProposalState,
    actor: str,
    reason: str,
    time_us: int,
    epoch: int,
) -> tuple[Proposal, ...]:
    """With what was decided last at the end, and the oldest decisions beyond DECIDED_MAX forgotten."""
    decided = msgspec.structs.replace(
        proposal, state=state, decided_by=actor, decided_reason=reason, decided_us=time_us, epoch=epoch
    )
    others = [one for one in kept if one.id != proposal.id]
    decisions = [one for one in (*others, decided) if not one.is_open][-DECIDED_MAX:]
    return (*(one for one in others if one.is_open), *decisions)
