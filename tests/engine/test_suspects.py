"""Approvals that nobody reports: suspect past validity or session, counted all the same, let go by rule only."""

import msgspec
import pytest

from engine.account import AccountState
from engine.facts import Execution, executed, reconciled
from engine.order import TimeInForce
from engine.records import ExecutionKind, Released, SessionOpened
from engine.suspects import RELEASED_MAX, release_delay_set, releases, suspects
from tests.engine.builders import ACCOUNT, NOW_US, account, approval, order, report, reserve, stock, universe

ONE = universe(stock("AAA", replaces_atomically=True))
SECOND_US = 1_000_000
EXPIRY_US = NOW_US + SECOND_US


def flat(delay_us: int | None = None) -> AccountState:
    state = account(ONE, {"AAA": 100.0})
    if delay_us is not None:
        for record in release_delay_set(state, "delay", delay_us, NOW_US, 0):
            state.apply(record)
    return state


def names(state: AccountState, now_us: int) -> list[str]:
    return [one.client_order_id for one in suspects(state, now_us)]


def let_go(state: AccountState, now_us: int) -> list[str]:
    """What was let go, once it is folded."""
    made = releases(state, now_us, 0)
    for record in made:
        state.apply(record)
    return [name for record in made if isinstance(record, Released) for name in record.client_order_ids]


@pytest.mark.parametrize("lives", TimeInForce)
def test_an_unreported_order_for_a_session_is_suspect_once_the_next_one_opens(lives: TimeInForce) -> None:
    state = flat()
    reserve(state, "never", "AAA", 10, time_in_force=lives)
    reserve(state, "working", "AAA", 10, time_in_force=lives)
    state.apply(report(state, "working", ExecutionKind.WORKING))
    assert names(state, NOW_US + 1) == []

    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))

    lasts = lives in (TimeInForce.GTC, TimeInForce.GTD)
    assert names(state, NOW_US + 1) == ([] if lasts else ["never"])
    assert int(state.book.buys[0]) == 20


@pytest.mark.parametrize("kind", [ExecutionKind.WORKING, ExecutionKind.CANCEL_REQUESTED])
def test_whatever_is_reported_is_not_suspect(kind: str) -> None:
    state = flat(1)
    reserve(state, "one", "AAA", 10, valid_for_us=SECOND_US)
    assert names(state, EXPIRY_US + 1) == ["one"]

    state.apply(report(state, "one", kind))

    assert names(state, EXPIRY_US + 1) == []
    assert let_go(state, EXPIRY_US + 10) == []


def test_without_a_delay_nothing_is_let_go() -> None:
    state = flat()
    reserve(state, "one", "AAA", 10, valid_for_us=SECOND_US)

    assert let_go(state, EXPIRY_US + 10**12) == []


def test_a_suspect_is_let_go_once_and_only_after_the_delay() -> None:
    state = flat(5 * SECOND_US)
    reserve(state, "one", "AAA", 10, valid_for_us=SECOND_US)
    reserve(state, "lasting", "AAA", 7, time_in_force=TimeInForce.GTC)

    assert let_go(state, EXPIRY_US + 5 * SECOND_US) == []
    assert let_go(state, EXPIRY_US + 5 * SECOND_US + 1) == ["one"]
    assert (int(state.book.buys[0]), list(state.orders)) == (7, ["lasting"])
    assert let_go(state, EXPIRY_US + 10 * SECOND_US) == []


def test_a_fill_of_what_was_let_go_is_booked_late_and_latches() -> None:
    state = flat(1)
    reserve(state, "one", "AAA", 10, valid_for_us=SECOND_US)
    let_go(state, EXPIRY_US + 2)
    said = Execution(
        account=ACCOUNT, execution_id="x", client_order_id="one", kind="fill", last_quantity=10.0, last_price=100.0
    )

    (record,) = executed(state, ONE, said, EXPIRY_US + 3, 0)

    assert (record.flags, record.lots, len(record.latches)) == (("late",), 10, 1)  # type: ignore[union-attr]


def test_a_report_between_the_release_and_its_append_keeps_the_order() -> None:
    state = flat(1)
    reserve(state, "one", "AAA", 10, valid_for_us=SECOND_US)
    (made,) = releases(state, EXPIRY_US + 2, 0)
    state.apply(report(state, "one", ExecutionKind.WORKING))

    state.apply(made)

    assert int(state.book.buys[0]) == 10


@pytest.mark.parametrize(("suspect", "left"), [("old", 25), ("new", 10)])
def test_of_two_that_replace_one_another_what_stays_is_counted_whole(suspect: str, left: int) -> None:
    state = flat(1)
    ends: dict[str, int | None] = {"old": None, "new": None, suspect: SECOND_US}
    reserve(state, "old", "AAA", 10, valid_for_us=ends["old"])
    asked = order("AAA", quantity=25.0, client_order_id="new", replaces_client_order_id="old", valid_for_us=ends["new"])
    state.apply(msgspec.structs.replace(approval(asked, 25), atomic=True))
    assert int(state.book.buys[0]) == 25

    assert let_go(state, EXPIRY_US + 2) == [suspect]
    assert int(state.book.buys[0]) == left


def test_a_delay_is_set_once_per_event_and_can_be_taken_back() -> None:
    state = flat(1)
    assert release_delay_set(state, "delay", 9, NOW_US, 0) == []

    for record in release_delay_set(state, "no more", None, NOW_US, 0):
        state.apply(record)

    assert state.release_delay_us is None


def test_a_record_holds_no_more_than_its_share() -> None:
    state = flat(1)
    for at in range(RELEASED_MAX + 1):
        reserve(state, f"o{at}", "AAA", 1, valid_for_us=SECOND_US)

    assert len(let_go(state, EXPIRY_US + 2)) == RELEASED_MAX
    assert let_go(state, EXPIRY_US + 2) == [f"o{RELEASED_MAX}"]


def test_a_snapshot_lets_go_of_what_had_expired_and_not_of_what_may_still_be_sent() -> None:
    state = flat()
    reserve(state, "expired", "AAA", 10, valid_for_us=SECOND_US)
    reserve(state, "yesterday", "AAA", 7)
    state.apply(SessionOpened(time_us=NOW_US + 1, date="2023-11-15"))

    for record in reconciled(state, ONE, [], None, [], EXPIRY_US + 1, "eod", EXPIRY_US + 2, 0):
        state.apply(record)

    assert list(state.orders) == ["yesterday"]
