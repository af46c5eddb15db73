"""Proposals of limit sets: who may approve what, once, and how many are kept."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.proposals import (
    DECIDED_MAX,
    OPEN_MAX,
    Fault,
    Proposal,
    ProposalRefused,
    ProposalState,
    approved,
    found,
    need_named,
    need_one_person,
    proposal_id,
    proposed,
    rejected,
)

FIRST = Proposal("p1", "new", "old", "olga", "desk asked", 1_000)


def fault_of(kept: tuple[Proposal, ...], name: str, actor: str, two_person: bool = True) -> Fault:
    with pytest.raises(ProposalRefused) as refused:
        approved(kept, name, actor, "fine", 2_000, 7, two_person)
    return refused.value.fault


def test_another_person_approves_and_it_is_kept_who_when_and_at_which_epoch() -> None:
    (after,) = approved((FIRST,), "p1", "ivan", "fine", 2_000, 7, two_person=True)

    assert (after.state, after.decided_by, after.decided_reason) == (ProposalState.APPROVED, "ivan", "fine")
    assert (after.decided_us, after.epoch) == (2_000, 7)
    assert (after.actor, after.limit_set, after.base) == ("olga", "new", "old")


def test_who_proposed_may_approve_only_where_one_person_will_do() -> None:
    assert fault_of((FIRST,), "p1", "olga") is Fault.SAME_PERSON
    (after,) = approved((FIRST,), "p1", "olga", "fine", 2_000, 7, two_person=False)
    assert after.state is ProposalState.APPROVED


def test_what_was_decided_is_not_approved_again() -> None:
    taken = approved((FIRST,), "p1", "ivan", "fine", 2_000, 7, two_person=True)
    aside = rejected((FIRST,), "p1", "ivan", "no", 2_000)

    assert fault_of(taken, "p1", "ivan") is Fault.DECIDED
    assert fault_of(aside, "p1", "ivan") is Fault.DECIDED
    assert fault_of((FIRST,), "p2", "ivan") is Fault.UNKNOWN


def test_a_decided_proposal_is_told_before_the_same_person_is() -> None:
    """In the order of the faults."""
    assert fault_of(approved((FIRST,), "p1", "ivan", "fine", 2_000, 7, True), "p1", "olga") is Fault.DECIDED


def test_who_proposed_may_take_it_back_and_doing_so_twice_is_once() -> None:
    once = rejected((FIRST,), "p1", "olga", "a mistake", 2_000)

    assert found(once, "p1").state is ProposalState.REJECTED
    assert rejected(once, "p1", "ivan", "again", 3_000) == once


def test_what_was_approved_is_not_rejected() -> None:
    taken = approved((FIRST,), "p1", "ivan", "fine", 2_000, 7, two_person=True)

    with pytest.raises(ProposalRefused, match="was approved by ivan already"):
        rejected(taken, "p1", "olga", "no", 3_000)


def test_the_same_set_by_the_same_person_is_proposed_once_while_it_is_open() -> None:
    again = msgspec.structs.replace(FIRST, id="p2", time_us=5_000)
    by_another = msgspec.structs.replace(again, actor="ivan")

    assert proposed((FIRST,), again) == ((FIRST,), FIRST)
    assert proposed((FIRST,), by_another) == ((FIRST, by_another), by_another)
    aside = rejected((FIRST,), "p1", "olga", "no", 2_000)
    assert proposed(aside, again) == ((*aside, again), again)


def test_no_more_than_so_many_wait() -> None:
    kept = tuple(msgspec.structs.replace(FIRST, id=f"p{i}", limit_set=f"set {i}") for i in range(OPEN_MAX))
    more = msgspec.structs.replace(FIRST, id="more", limit_set="more")

    with pytest.raises(ProposalRefused) as refused:
        proposed(kept, more)

    assert refused.value.fault is Fault.TOO_MANY
    assert proposed(rejected(kept, "p3", "olga", "no", 2_000), more)[1] == more


def test_of_those_decided_the_last_are_kept() -> None:
    kept: tuple[Proposal, ...] = (FIRST,)
    for number in range(DECIDED_MAX + 1):
        name = f"d{number}"
        kept, _ = proposed(kept, msgspec.structs.replace(FIRST, id=name, limit_set=name))
        kept = rejected(kept, name, "ivan", "no", 2_000 + number)

    assert [one.id for one in kept] == ["p1", *(f"d{number}" for number in range(1, DECIDED_MAX + 1))]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["olga", "ivan"])), max_size=80))
def test_what_is_kept_stays_bounded_and_what_waits_is_never_forgotten(steps: list[tuple[bool, str]]) -> None:
    kept: tuple[Proposal, ...] = ()
    for number, (approves, actor) in enumerate(steps):
        name = f"p{number}"
        kept, _ = proposed(kept, Proposal(name, f"set {number}", "old", "olga", "why", number))
        if actor == "ivan":
            args = (kept, name, actor, "fine", number)
            kept = approved(*args, number, two_person=True) if approves else rejected(*args)
        elif sum(one.is_open for one in kept) >= OPEN_MAX:
            kept = rejected(kept, name, actor, "no", number)

    decided = [one for one in kept if not one.is_open]
    assert len(decided) <= DECIDED_MAX and len(kept) <= OPEN_MAX + DECIDED_MAX
    assert [one.time_us for one in decided] == sorted(one.time_us for one in decided)
    assert all(one.decided_by != one.actor for one in kept if one.state is ProposalState.APPROVED)


def test_names_differ_with_whatever_makes_a_proposal_another() -> None:
    told = ("old", "new", "olga", 1)
    others = [
        ("older", "new", "olga", 1),
        ("old", "newer", "olga", 1),
        ("old", "new", "ivan", 1),
        ("old", "new", "olga", 2),
    ]

    names = {proposal_id(*told), *(proposal_id(*other) for other in others)}

    assert len(names) == 5 and all(len(name) == 12 for name in names)


def test_where_two_people_change_limits_nobody_does_alone_or_without_a_name() -> None:
    need_one_person(two_person=False)
    need_named(is_named=False, two_person=False)
    need_named(is_named=True, two_person=True)
    with pytest.raises(ProposalRefused, match="ProposeLimits"):
        need_one_person(two_person=True)
    with pytest.raises(ProposalRefused, match="token"):
        need_named(is_named=False, two_person=True)
