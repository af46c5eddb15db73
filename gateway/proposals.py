"""Limit sets that are proposed, approved and rejected, and the history of those that were armed.

A proposal is a stored set and an entry in the control state where the order of armings is settled; approving it arms
its set in the step that marks it approved, so that it is approved once and never against another set than it was made
from. The rules of who may decide are `engine.proposals`'; how a set is armed everywhere is `registry`'s. Only control
does this.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from engine.control import Control, decode_control, encode_control
from engine.facts import FactError
from engine.limit_changes import SetChanges, changes, normal
from engine.limits import Limit, LimitSet, Policy, faults_of
from engine.measures import MEASURES
from engine.proposals import (
    Fault,
    Proposal,
    ProposalRefused,
    ProposalState,
    approved,
    found,
    need_approvable,
    proposal_id,
    proposed,
    rejected,
)
from gateway.errors import StoreRefused
from gateway.log.account_log import AccountLog, ControlChange
from gateway.log.account_log import Control as StoredControl
from gateway.registry import (
    SETTLED_IN,
    LimitSetMoved,
    Named,
    Why,
    arm_chosen,
    complete_arming,
    named_limit_set,
    said_rows,
    tell_changes,
)

HISTORY_PAGE = 1_000
LIMIT_SET_STARTS = b'{"policy":'
"""How the canonical encoding of every limit set begins: other blobs, instrument sets say, have hashes too."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal, and what it changes in the set that it was made from."""

    proposal: Proposal
    changes: SetChanges


class Arming(msgspec.Struct, frozen=True):
    """An entry of control's history that changed the limits in force or in shadow."""

    epoch: int
    limit_set: str
    previous_limit_set: str
    shadow_limit_set: str
    actor: str
    reason: str
    time_us: int
    proposal: str = ""
    proposed_by: str = ""


class _Recorded(msgspec.Struct, frozen=True):
    """What of a control record is read here; a record of something else names no `previous_limit_set`."""

    limit_set: str = ""
    previous_limit_set: str | None = None
    shadow_limit_set: str = ""
    actor: str = ""
    reason: str = ""
    time_us: int = 0
    proposal: str = ""
    proposed_by: str = ""


async def propose_limits(
    log: AccountLog, rows: Sequence[Limit], policy: Policy | None, expected: str, why: Why
) -> Proposed:
    """Put a set forward in place of the one in force; `policy` None: the one in force stays. The caller has validated
    them. Raises LimitSetMoved; FactError where the rows contradict that policy; ProposalRefused where nothing would
    change or too many wait; StoreError."""
    settled = decode_control((await log.read_control(SETTLED_IN)).state)
    before = await named_limit_set(log, settled.limit_set)
    if expected != before.hash:
        raise LimitSetMoved(expected, before.hash)
    after = normal(LimitSet(said_rows(rows, before), before.policy if policy is None else policy), MEASURES)
    made = changes(before, after, MEASURES)
    if not made:
        raise ProposalRefused(Fault.UNCHANGED, "the limits in force are these already")
    for fault in faults_of(after, MEASURES):
        raise FactError(fault.path, fault.problem)
    blob_hash, time_us = await log.put_blob(after.encode()), await log.now_us()
    name = proposal_id(settled.limit_set, blob_hash, why.actor, time_us)
    new = Proposal(name, blob_hash, settled.limit_set, why.actor, why.reason, time_us, made.loosened)

    def put_forward(stored: StoredControl) -> ControlChange | None:
        control = decode_control(stored.state)
        if control.limit_set != new.base:
            raise LimitSetMoved(new.base, control.limit_set)
        kept, _ = proposed(control.proposals, new)
        return _changed(stored, control, kept, new.id, "proposed", why, time_us)

    stored = await log.advance_control(SETTLED_IN, put_forward)
    _, standing = proposed(decode_control(stored.state).proposals, new)
    return Proposed(standing, made)


async def approve_limits(log: AccountLog, name: str, why: Why, two_person: bool) -> Proposed:
    """Arm the set of a proposal everywhere. Approving again what was approved completes its arming, and tells the same.
    Raises ProposalRefused; LimitSetMoved where another set is in force than it was made from; StoreError, after which
    some partitions may have it."""
    settled = decode_control((await log.read_control(SETTLED_IN)).state)
    proposal = found(settled.proposals, name)
    before, after = await named_limit_set(log, proposal.base), await named_limit_set(log, proposal.limit_set)
    made = changes(before, after, MEASURES)
    if proposal.state is ProposalState.APPROVED and proposal.decided_by == why.actor:
        await complete_arming(log)
        return Proposed(proposal, made)
    need_approvable(proposal, why.actor, two_person)
    _need_armable(after)
    await complete_arming(log)

    def chosen(control: Control) -> Named:
        need_approvable(found(control.proposals, name), why.actor, two_person)
        if control.limit_set != proposal.base:
            raise LimitSetMoved(proposal.base, control.limit_set)
        return Named(proposal.limit_set, control.shadow_limit_set, control.armed_file)

    def mark(control: Control, epoch: int, time_us: int) -> Control:
        kept = approved(control.proposals, name, why.actor, why.reason, time_us, epoch, two_person)
        return msgspec.structs.replace(control, proposals=kept, approved_limit_set=proposal.limit_set)

    told = Why(why.actor, why.reason, proposal.id, proposal.actor)
    await arm_chosen(log, chosen, told, mark)
    tell_changes("limits", after, made, told)
    decided = decode_control((await log.read_control(SETTLED_IN)).state)
    return Proposed(found(decided.proposals, name), made)


async def reject_limits(log: AccountLog, name: str, why: Why) -> Proposed:
    """Put a proposal aside. Raises ProposalRefused, StoreError."""
    time_us = await log.now_us()

    def put_aside(stored: StoredControl) -> ControlChange | None:
        control = decode_control(stored.state)
        kept = rejected(control.proposals, name, why.actor, why.reason, time_us)
        return _changed(stored, control, kept, name, "rejected", why, time_us)

    stored = await log.advance_control(SETTLED_IN, put_aside)
    aside = found(decode_control(stored.state).proposals, name)
    return Proposed(aside, await _changes_of(log, aside))


async def proposals(log: AccountLog) -> tuple[str, tuple[Proposed, ...]]:
    """(hash of the set in force, the proposals that are kept, those decided last at the end). Raises StoreError."""
    settled = decode_control((await log.read_control(SETTLED_IN)).state)
    return settled.limit_set, tuple([Proposed(one, await _changes_of(log, one)) for one in settled.proposals])


async def named_set(log: AccountLog, name: str) -> LimitSet:
    """A set by its hash, armed or not. Raises ProposalRefused(UNKNOWN), StoreError."""
    blob = await log.get_blob(name)
    if blob is None or not blob.startswith(LIMIT_SET_STARTS):
        raise ProposalRefused(Fault.UNKNOWN, f"no limit set {name!r} is in the store")
    return await named_limit_set(log, name)


async def armings(log: AccountLog, most: int) -> tuple[Arming, ...]:
    """The last armings of limits, oldest first, `most` at most. Raises StoreError."""
    kept: deque[Arming] = deque(maxlen=most)
    after = 0
    while entries := await log.control_history(SETTLED_IN, after, HISTORY_PAGE):
        for after, record in entries:
            said = msgspec.json.decode(record, type=_Recorded)
            if said.previous_limit_set is not None:
                kept.append(_arming(after, said.previous_limit_set, said))
    return tuple(kept)


def _arming(epoch: int, previous: str, said: _Recorded) -> Arming:
    return Arming(
        epoch,
        said.limit_set,
        previous,
        said.shadow_limit_set,
        said.actor,
        said.reason,
        said.time_us,
        said.proposal,
        said.proposed_by,
    )


async def _changes_of(log: AccountLog, proposal: Proposal) -> SetChanges:
    read = partial(named_limit_set, log)
    return changes(await read(proposal.base), await read(proposal.limit_set), MEASURES)


def _need_armable(after: LimitSet) -> None:
    """A set that an older release took may be none that this one evaluates."""
    for fault in faults_of(after, MEASURES):
        raise StoreRefused(f"this release can't arm limit set {after.hash}: {fault}")


def _changed(
    stored: StoredControl,
    control: Control,
    kept: tuple[Proposal, ...],
    name: str,
    became: str,
    why: Why,
    time_us: int,
) -> ControlChange | None:
    """Other proposals in the control state and nothing else; no change where they are as they were."""
    if kept == control.proposals:
        return None
    epoch = stored.head.epoch + 1
    after = msgspec.structs.replace(control, epoch=epoch, proposals=kept)
    record = {"proposal": name, "became": became, "actor": why.actor, "reason": why.reason, "time_us": time_us}
    return ControlChange(epoch, encode_control(after), msgspec.json.encode(record))
