"""The promises of `AccountLog` and `Bulletin`, one suite for every back end: memory, Valkey, Redis.

A story that names no server holds on all of them. What only a server can do (die, stall, forget its scripts)
is told in test_redis.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from hashlib import blake2b
from typing import cast

import pytest

from gateway.log.account_log import (
    CONTROL_GENESIS,
    GENESIS,
    PARTITIONS,
    TAIL_RECORDS_MAX,
    AccountLog,
    Aged,
    Appended,
    Conflict,
    Control,
    ControlChange,
    ControlMoved,
    Head,
    Page,
    Snapshot,
    TooOld,
    partition_of,
)
from gateway.log.bulletin import AccountMoved, Lagged, MarksMoved, ModelMoved, ReportMoved, Wake
from gateway.log.bulletin import ControlMoved as ControlWoke
from tests.conftest import SERVERS
from tests.gateway.log.conflicting import EveryKthConflicts

ACCOUNT = "alpha"
PARTITION = partition_of(ACCOUNT)
AGE_MAX_US = 60_000_000  # no test takes a minute


@pytest.fixture(params=["memory", *SERVERS])
def log(request: pytest.FixtureRequest) -> AccountLog:
    return cast(AccountLog, request.getfixturevalue(f"{request.param}_log"))


@pytest.fixture(params=[2, 3])
def conflicting(log: AccountLog, request: pytest.FixtureRequest) -> AccountLog:
    return cast(AccountLog, EveryKthConflicts(log, request.param))


async def append(log: AccountLog, expect: Head, *records: bytes, account: str = ACCOUNT) -> Head:
    result = await log.append(account, expect, None, records, 0, 0)
    assert isinstance(result, Appended)
    return result.head


async def read_all(log: AccountLog, account: str = ACCOUNT) -> Page:
    page = await log.read(account, 0, 100_000)
    assert isinstance(page, Page)
    return page


def counted(control: Control) -> ControlChange:
    """Adds one to the number that is the control state."""
    n = int(control.state or b"0") + 1
    return ControlChange(control.head.epoch + 1, b"%d" % n, b"counted to %d" % n)


# -- appending and reading


async def test_appended_records_are_read_back_in_order_with_a_chain_anyone_can_recompute(log: AccountLog) -> None:
    one = await append(log, GENESIS, b"opened")
    two = await append(log, one, b"bought", b"sold\x00\xff")

    page = await read_all(log)

    chain = b""
    for record in (b"opened", b"bought", b"sold\x00\xff"):
        chain = blake2b(chain + record, digest_size=16).digest()
    assert page.records == (b"opened", b"bought", b"sold\x00\xff")
    assert (page.first_seq, page.more) == (1, False)
    assert page.head == two == Head(3, chain.hex())


async def test_an_unknown_account_reads_as_empty(log: AccountLog) -> None:
    page = await read_all(log, "nobody")

    assert (page.records, page.head, page.more) == ((), GENESIS, False)
    assert await log.accounts() == set()


async def test_reading_in_pages_says_when_more_is_there(log: AccountLog) -> None:
    await append(log, GENESIS, b"1", b"2", b"3")

    first, second = await log.read(ACCOUNT, 0, 2), await log.read(ACCOUNT, 2, 2)

    assert isinstance(first, Page) and isinstance(second, Page)
    assert (first.first_seq, first.records, first.more) == (1, (b"1", b"2"), True)
    assert (second.first_seq, second.records, second.more) == (3, (b"3",), False)


async def test_a_writer_that_is_behind_gets_what_it_lacks(log: AccountLog) -> None:
    mine = await append(log, GENESIS, b"1")
    theirs = await append(log, mine, b"2", b"3")

    conflict = await log.append(ACCOUNT, mine, None, [b"4"], 0, 0)

    assert isinstance(conflict, Conflict)
    assert (conflict.tail, conflict.more, conflict.head) == ((b"2", b"3"), False, theirs)
    assert mine.extend(conflict.tail) == theirs
    assert not conflict.diverged_from(mine)
    assert (await read_all(log)).records == (b"1", b"2", b"3")


async def test_a_long_tail_comes_in_bounded_parts(log: AccountLog) -> None:
    end = await append(log, GENESIS, *(b"%d" % i for i in range(TAIL_RECORDS_MAX + 1)))

    conflict = await log.append(ACCOUNT, GENESIS, None, [b"mine"], 0, 0)

    assert isinstance(conflict, Conflict)
    assert (len(conflict.tail), conflict.more, conflict.head) == (TAIL_RECORDS_MAX, True, end)
    assert not conflict.diverged_from(GENESIS)


async def test_another_history_of_the_same_length_is_noticed(log: AccountLog) -> None:
    await append(log, GENESIS, b"theirs")
    fork = GENESIS.extend([b"mine"])

    conflict = await log.append(ACCOUNT, fork, None, [b"next"], 0, 0)

    assert isinstance(conflict, Conflict)
    assert conflict.tail == ()
    assert conflict.diverged_from(fork)


async def test_a_log_that_went_backwards_is_noticed(log: AccountLog) -> None:
    kept = await append(log, GENESIS, b"1")
    lost = kept.extend([b"2"])

    conflict = await log.append(ACCOUNT, lost, None, [b"3"], 0, 0)

    assert isinstance(conflict, Conflict)
    assert (conflict.head, conflict.tail) == (kept, ())
    assert conflict.diverged_from(lost)


async def test_sending_an_append_again_shows_its_own_records(log: AccountLog) -> None:
    await append(log, GENESIS, b"mine", b"too")

    again = await log.append(ACCOUNT, GENESIS, None, [b"mine", b"too"], 0, 0)

    assert isinstance(again, Conflict)
    assert again.tail == (b"mine", b"too")
    assert (await read_all(log)).head.seq == 2


async def test_an_append_without_records_verifies_and_writes_nothing(log: AccountLog) -> None:
    head = await append(log, GENESIS, b"1")

    same = await log.append(ACCOUNT, head, CONTROL_GENESIS, [], await log.now_us(), AGE_MAX_US)
    behind = await log.append(ACCOUNT, GENESIS, CONTROL_GENESIS, [], await log.now_us(), AGE_MAX_US)

    assert isinstance(same, Appended) and same.head == head
    assert isinstance(behind, Conflict) and behind.tail == (b"1",)
    assert (await read_all(log)).records == (b"1",)


async def test_an_append_without_records_makes_no_account(log: AccountLog) -> None:
    result = await log.append(ACCOUNT, GENESIS, None, [], 0, 0)

    assert isinstance(result, Appended) and result.head == GENESIS
    assert await log.accounts() == set()


async def test_accounts_of_any_name_are_listed_by_partition_and_kept_apart(log: AccountLog) -> None:
    names = {"a", "a:log", "{p1}:ctl", "Händler:7 €", "空"}
    for name in names:
        await append(log, GENESIS, name.encode(), account=name)

    assert await log.accounts() == names
    assert await log.accounts(partition_of("空")) == {n for n in names if partition_of(n) == partition_of("空")}
    for name in names:
        assert (await read_all(log, name)).records == (name.encode(),)


async def test_heads_of_many_accounts_come_at_once(log: AccountLog) -> None:
    head = await append(log, GENESIS, b"1")

    assert await log.heads([ACCOUNT, "nobody"]) == {ACCOUNT: head, "nobody": GENESIS}
    assert await log.heads([]) == {}


# -- control and age


async def test_a_decision_under_an_older_control_is_not_appended(log: AccountLog) -> None:
    control = await log.advance_control(PARTITION, counted)

    refused = await log.append(ACCOUNT, GENESIS, CONTROL_GENESIS, [b"1"], await log.now_us(), AGE_MAX_US)
    taken = await log.append(ACCOUNT, GENESIS, control.head, [b"1"], await log.now_us(), AGE_MAX_US)

    assert isinstance(refused, ControlMoved) and refused.control == control
    assert control.state == b"1"
    assert isinstance(taken, Appended)


async def test_another_control_of_the_same_epoch_is_noticed(log: AccountLog) -> None:
    await log.advance_control(PARTITION, counted)
    fork = CONTROL_GENESIS.advance(1, b"another state")

    result = await log.append(ACCOUNT, GENESIS, fork, [b"1"], await log.now_us(), AGE_MAX_US)

    assert isinstance(result, ControlMoved)


async def test_a_conflict_comes_before_control_and_names_the_control_in_force(log: AccountLog) -> None:
    await append(log, GENESIS, b"1")
    control = await log.advance_control(PARTITION, counted)

    result = await log.append(ACCOUNT, GENESIS, CONTROL_GENESIS, [b"2"], 0, 0)

    assert isinstance(result, Conflict)
    assert result.control == control.head


@pytest.mark.parametrize(("age_us", "appended"), [(5_000_000, True), (61_000_000, False), (-61_000_000, False)])
async def test_only_a_fresh_decision_is_appended(log: AccountLog, age_us: int, appended: bool) -> None:
    decided_at_us = await log.now_us() - age_us

    result = await log.append(ACCOUNT, GENESIS, CONTROL_GENESIS, [b"1"], decided_at_us, AGE_MAX_US)

    assert isinstance(result, Appended if appended else Aged)
    assert (await read_all(log)).head.seq == (1 if appended else 0)


async def test_a_fact_is_appended_however_old_and_whatever_the_control(log: AccountLog) -> None:
    await log.advance_control(PARTITION, counted)

    assert isinstance(await log.append(ACCOUNT, GENESIS, None, [b"fill"], 0, 0), Appended)


async def test_every_answer_carries_the_stores_time(log: AccountLog) -> None:
    before = await log.now_us()
    fact = await log.append(ACCOUNT, GENESIS, None, [b"1"], 0, 0)
    conflict = await log.append(ACCOUNT, GENESIS, None, [b"1"], 0, 0)
    aged = await log.append(ACCOUNT, fact.head, CONTROL_GENESIS, [], 0, 0) if isinstance(fact, Appended) else fact
    page = await log.read(ACCOUNT, 0, 1)

    assert before <= fact.time_us <= conflict.time_us <= aged.time_us <= page.time_us <= await log.now_us()


async def test_control_starts_at_the_genesis_everywhere(log: AccountLog) -> None:
    assert await log.read_controls() == (Control(CONTROL_GENESIS, b""),) * PARTITIONS


async def test_a_control_change_concerns_its_partition_only_and_is_in_its_history(log: AccountLog) -> None:
    await log.advance_control(7, counted)
    second = await log.advance_control(7, counted)

    controls = await log.read_controls()

    assert controls[7] == second == await log.read_control(7)
    assert second.head == CONTROL_GENESIS.advance(1, b"1").advance(2, b"2")
    assert [p for p, control in enumerate(controls) if control.head.epoch] == [7]
    assert await log.control_history(7, 0, 10) == ((1, b"counted to 1"), (2, b"counted to 2"))
    assert await log.control_history(7, 1, 10) == ((2, b"counted to 2"),)
    assert await log.control_history(7, 0, 1) == ((1, b"counted to 1"),)


async def test_no_control_change_is_lost_among_concurrent_ones(log: AccountLog) -> None:
    await asyncio.gather(*(log.advance_control(7, counted) for _ in range(12)))

    control = await log.read_control(7)
    history = await log.control_history(7, 0, 100)

    assert (control.state, control.head.epoch) == (b"12", 12)
    assert [epoch for epoch, _ in history] == list(range(1, 13))


async def test_a_change_with_nothing_to_do_leaves_the_control(log: AccountLog) -> None:
    control = await log.advance_control(7, counted)

    assert await log.advance_control(7, lambda _: None) == control
    assert await log.read_control(7) == control


async def test_an_epoch_that_does_not_grow_is_a_defect(log: AccountLog) -> None:
    await log.advance_control(7, counted)

    with pytest.raises(AssertionError, match="epoch must grow: 1 -> 1"):
        await log.advance_control(7, lambda control: ControlChange(1, b"", b""))


async def test_all_partitions_advance_together_also_those_that_others_change_meanwhile(log: AccountLog) -> None:
    everywhere = range(PARTITIONS)

    both = await asyncio.gather(log.advance_controls(everywhere, counted), log.advance_controls(everywhere, counted))

    assert all(set(outcomes) == set(everywhere) for outcomes in both)
    assert all(isinstance(outcome, Control) for outcomes in both for outcome in outcomes.values())
    assert {(control.head.epoch, control.state) for control in await log.read_controls()} == {(2, b"2")}


# -- a committer's loop on a log that conflicts


async def commit(log: AccountLog, account: str, decide: Callable[[int], bytes]) -> None:
    """What a committer does, in small: fold the tail, decide again, until it is appended."""
    known = GENESIS
    while True:
        in_force = (await log.read_control(partition_of(account))).head
        record = decide(known.seq)
        result = await log.append(account, known, in_force, [record], await log.now_us(), AGE_MAX_US)
        if isinstance(result, Appended):
            return
        if isinstance(result, Conflict):
            assert not result.diverged_from(known)
            known = known.extend(result.tail)


async def test_writers_that_retry_converge_and_lose_nothing(conflicting: AccountLog) -> None:
    def at(writer: int) -> Callable[[int], bytes]:
        return lambda seq: b"writer %d after %d" % (writer, seq)

    commits: list[Awaitable[None]] = [commit(conflicting, ACCOUNT, at(writer)) for writer in range(8)]
    await asyncio.gather(*commits, conflicting.advance_control(PARTITION, counted))

    page = await read_all(conflicting)

    assert {record.split()[1] for record in page.records} == {b"%d" % writer for writer in range(8)}
    assert [int(record.split()[3]) for record in page.records] == list(range(8))
    assert GENESIS.extend(page.records) == page.head


async def test_a_page_read_while_others_append_ends_at_its_head(log: AccountLog) -> None:
    async def write() -> None:
        head = GENESIS
        for i in range(100):
            head = await append(log, head, b"%d" % i)

    async def check() -> None:
        for _ in range(100):
            page = await read_all(log)
            assert GENESIS.extend(page.records) == page.head
            assert not page.more

    await asyncio.gather(write(), check())


# -- snapshots and trimming


async def snapshot_at(log: AccountLog, n: int, archived_upto: int) -> Snapshot:
    page = await read_all(log)
    head = GENESIS.extend(page.records[:n])
    snapshot = Snapshot(head.seq, head.hash, "5tate", 3, b"folded\x00")
    await log.snapshot(ACCOUNT, snapshot, archived_upto)
    return snapshot


async def test_the_latest_snapshot_is_kept(log: AccountLog) -> None:
    await append(log, GENESIS, b"1", b"2", b"3")
    assert await log.latest_snapshot(ACCOUNT) is None

    later = await snapshot_at(log, 2, archived_upto=0)
    await snapshot_at(log, 1, archived_upto=0)

    assert await log.latest_snapshot(ACCOUNT) == later
    assert later.head == GENESIS.extend([b"1", b"2"])
    assert (await read_all(log)).records == (b"1", b"2", b"3")


async def test_who_needs_what_was_trimmed_is_sent_to_the_snapshot(log: AccountLog) -> None:
    end = await append(log, GENESIS, b"1", b"2", b"3")
    snapshot = await snapshot_at(log, 2, archived_upto=2)

    read, appended = await log.read(ACCOUNT, 1, 10), await log.append(ACCOUNT, GENESIS, None, [b"x"], 0, 0)
    page = await log.read(ACCOUNT, snapshot.seq, 10)

    assert isinstance(read, TooOld) and read.snapshot_seq == 2
    assert isinstance(appended, TooOld) and appended.snapshot_seq == 2
    assert isinstance(page, Page) and page.records == (b"3",)
    assert snapshot.head.extend(page.records) == page.head == end


@pytest.mark.parametrize(("archived_upto", "first_kept_seq"), [(0, 1), (1, 2), (99, 3)])
async def test_only_what_snapshot_and_archive_both_cover_is_trimmed(
    log: AccountLog, archived_upto: int, first_kept_seq: int
) -> None:
    await append(log, GENESIS, b"1", b"2", b"3")

    await snapshot_at(log, 2, archived_upto)

    assert isinstance(await log.read(ACCOUNT, first_kept_seq - 1, 10), Page)
    assert first_kept_seq == 1 or isinstance(await log.read(ACCOUNT, first_kept_seq - 2, 10), TooOld)


async def test_a_wholly_trimmed_log_goes_on_where_it_was(log: AccountLog) -> None:
    head = await append(log, GENESIS, b"1", b"2")
    await snapshot_at(log, 2, archived_upto=2)

    after = await append(log, head, b"3")

    assert after == GENESIS.extend([b"1", b"2", b"3"])
    assert isinstance(await log.read(ACCOUNT, 0, 10), TooOld)
    page = await log.read(ACCOUNT, 2, 10)
    assert isinstance(page, Page) and page.records == (b"3",)


# -- blobs and the bulletin


async def test_a_blob_is_found_under_its_hash(log: AccountLog) -> None:
    name = await log.put_blob(b"limits\x00")

    assert name == blake2b(b"limits\x00", digest_size=16).hexdigest() == await log.put_blob(b"limits\x00")
    assert await log.get_blob(name) == b"limits\x00"
    assert await log.get_blob("0" * 32) is None


async def test_the_latest_mark_of_each_symbol_wins(log: AccountLog) -> None:
    await log.bulletin.post_marks({"AAPL": b"1", "€/$": b"2"})
    await log.bulletin.post_marks({"AAPL": b"3"})
    await log.bulletin.post_marks({})

    assert await log.bulletin.marks() == {"AAPL": b"3", "€/$": b"2"}


async def test_reports_and_the_model_are_kept(log: AccountLog) -> None:
    assert (await log.bulletin.report(ACCOUNT), await log.bulletin.model()) == (None, None)

    await log.bulletin.post_report(ACCOUNT, b"report")
    await log.bulletin.post_model("c0ffee")

    assert (await log.bulletin.report(ACCOUNT), await log.bulletin.model()) == (b"report", "c0ffee")


async def test_who_announced_itself_lately_is_known(log: AccountLog) -> None:
    await log.bulletin.announce("one:1", 100, 0)
    await log.bulletin.announce("two:2", 200, 0)
    await log.bulletin.announce("one:1", 300, 0)

    assert await log.bulletin.announce(None, 400, 200) == {"one:1", "two:2"}
    assert await log.bulletin.announce("three:3", 400, 201) == {"one:1", "three:3"}
    assert await log.bulletin.announce(None, 400, 0) == {"one:1", "three:3"}


async def test_the_analyst_who_was_noted_last_comes_first_and_the_longest_silent_is_forgotten(log: AccountLog) -> None:
    await log.bulletin.post_analyst(b"one", 100, 0)
    await log.bulletin.post_analyst(b"two", 200, 0)
    await log.bulletin.post_analyst(b"one", 300, 0)

    assert await log.bulletin.analysts(0) == (b"one", b"two")
    assert await log.bulletin.analysts(201) == (b"one",)
    await log.bulletin.post_analyst(b"three", 400, 300)
    assert await log.bulletin.analysts(0) == (b"three", b"one")


async def test_events_that_were_entered_stay_and_one_of_the_same_id_takes_their_place(log: AccountLog) -> None:
    news = [await log.bulletin.keep_event(name, event) for name, event in (("a", b"1"), ("b:é", b"2"), ("a", b"3"))]

    assert news == [True, True, False]
    assert await log.bulletin.kept_events() == {"a": b"3", "b:é": b"2"}


async def test_a_source_of_events_is_kept_by_its_name(log: AccountLog) -> None:
    assert await log.bulletin.feeds() == {}
    for name, feed in (("bls", b"1"), ("https://a/b.ics", b"2"), ("bls", b"3")):
        await log.bulletin.keep_feed(name, feed)

    assert await log.bulletin.feeds() == {"bls": b"3", "https://a/b.ics": b"2"}


async def take(wakes: AsyncIterator[Wake], n: int) -> list[Wake]:
    return [await asyncio.wait_for(anext(wakes), 10) for _ in range(n)]


async def test_a_follower_hears_of_everything_that_moves(log: AccountLog) -> None:
    async with aclosing(log.bulletin.follow()) as wakes:
        first = await take(wakes, 1)
        head = await append(log, GENESIS, b"1", b"2", account="desk:7")
        await log.append("desk:7", head, None, [], 0, 0)
        await log.advance_control(7, counted)
        await log.bulletin.post_report("5", b"report")
        await log.bulletin.post_marks({"AAPL": b"\x00:9"})
        await log.bulletin.post_model("c0ffee")
        heard = await take(wakes, 5)

    assert first == [Lagged()]
    assert heard == [
        AccountMoved("desk:7", 2),
        ControlWoke(7, 1),
        ReportMoved("5"),
        MarksMoved({"AAPL": b"\x00:9"}),
        ModelMoved("c0ffee"),
    ]


async def test_a_cancelled_follower_ends_at_once(log: AccountLog) -> None:
    wakes = log.bulletin.follow()
    assert await take(wakes, 1) == [Lagged()]
    waiting = asyncio.ensure_future(take(wakes, 1))
    await asyncio.wait([waiting], timeout=0.05)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(wakes)
