"""`log tail` on a real store: what it shows of a log, that it proves the chain, and what it says when that breaks."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.order import Reason
from gateway.cli.app import run
from gateway.cli.exits import ExitCode, Failure
from gateway.cli.log import ChainBroken, Entry, entries, explained, followed, start_of
from gateway.embedded import EmbeddedStore
from gateway.log.account_log import GENESIS, Head, Snapshot
from gateway.log.redis import RedisLog
from gateway.log.redis_bulletin import account_key
from riskgateway.v1 import decision_pb2
from tests.gateway.world import ACCOUNT, World, buy, report, world_on

PATIENCE_S = 20.0
LOG = account_key(ACCOUNT, "log")


async def traded(world: World) -> None:
    """An account with a fill of 10 and an order that was too large."""
    gateway = await world.open()
    await gateway.check(buy("small", 10.0))
    await gateway.check(buy("huge", 5_000.0))
    await gateway.report(report("x1", "small", "fill", 10.0))


@pytest.fixture
async def world(valkey_log: RedisLog) -> AsyncIterator[World]:
    async with world_on(valkey_log) as made:
        await traded(made)
        yield made


def exit_code(*argv: str) -> int:
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


async def tail(valkey: EmbeddedStore, *options: str) -> int:
    """The command, beside the loop that the test runs on."""
    return await asyncio.to_thread(
        exit_code, "log", "tail", ACCOUNT, "--store", f"unix://{valkey.socket_path}", *options
    )


async def stored(log: RedisLog) -> list[Entry]:
    return [entry async for entry in entries(log, ACCOUNT, GENESIS)]


async def changed(valkey: EmbeddedStore, old: bytes, new: bytes) -> None:
    """Somebody rewrote the log, and left its head alone."""
    async with Redis(unix_socket_path=str(valkey.socket_path)) as client:
        kept: Any = await client.xrange(LOG)
        await client.delete(LOG)
        for name, fields in kept:
            await client.xadd(LOG, {b"r": fields[b"r"].replace(old, new)}, id=name)


async def test_each_record_is_a_line_and_the_chain_is_said_to_hold(
    world: World, valkey: EmbeddedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await tail(valkey)

    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    kinds = [line[23:].split()[2] for line in lines]
    assert code == 0
    assert kinds[0] == "account_opened"
    assert {"session_opened", "listed", "valued", "decided", "executed"} <= set(kinds)
    assert [int(line[23:].split()[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert any("✔ ALLOW  BUY 10 AAA for alpha/s1" in line for line in lines)
    assert any("✖ REJECT  BUY 5,000 AAA for alpha/s1 · ORDER_QUANTITY" in line for line in lines)
    assert any("fill buy AAA 10 at 100 · id small · execution x1" in line for line in lines)
    head = (await world.log.heads([ACCOUNT]))[ACCOUNT]
    assert f"✔ the chain holds: records up to {head.seq} lead to the head {head.hash[:16]}" in shown.err


@pytest.mark.parametrize(
    ("options", "first", "count"),
    [(("-n", "2"), -2, 2), (("--since", "3"), 2, None), (("--since", "2", "-n", "1"), -1, 1)],
)
async def test_only_what_was_asked_for_is_shown(
    world: World,
    valkey: EmbeddedStore,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    first: int,
    count: int | None,
) -> None:
    await tail(valkey, *options)

    lines = capsys.readouterr().out.splitlines()
    every = range(1, (await world.log.heads([ACCOUNT]))[ACCOUNT].seq + 1)
    assert [int(line[23:].split()[0]) for line in lines] == list(every[first:])
    assert count is None or len(lines) == count


async def test_json_is_the_stored_record_beside_its_place_and_hash(
    world: World, valkey: EmbeddedStore, valkey_log: RedisLog, capsys: pytest.CaptureFixture[str]
) -> None:
    await tail(valkey, "--json", "--since", "1")

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = await stored(valkey_log)
    assert [line["record"] for line in lines] == [json.loads(entry.raw) for entry in expected]
    assert [Head(line["seq"], line["hash"]) for line in lines] == [entry.head for entry in expected]


async def test_a_record_that_was_changed_is_found_out(
    world: World, valkey: EmbeddedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    await changed(valkey, b'"quantity":5000.0', b'"quantity":50.0')

    code = await tail(valkey)

    shown = capsys.readouterr()
    assert code == ExitCode.DAMAGED
    assert "THE LOG OF alpha DOES NOT HOLD: the records lead to" in shown.err
    assert "the chain holds" not in shown.err
    assert "BUY 50 AAA" in shown.out  # what is there is shown all the same


@pytest.mark.parametrize("place", [2, -1], ids=["in the middle", "at the end"])
async def test_a_record_that_is_gone_is_found_out(
    world: World, valkey: EmbeddedStore, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Redis(unix_socket_path=str(valkey.socket_path)) as client:
        kept: Any = await client.xrange(LOG)
        await client.xdel(LOG, kept[place][0])

    assert await tail(valkey) == ExitCode.DAMAGED
    assert "DOES NOT HOLD" in capsys.readouterr().err


async def test_what_is_appended_is_shown_as_it_comes(world: World, valkey_log: RedisLog) -> None:
    gateway = await world.gateway()
    head = (await stored(valkey_log))[-1].head
    seen: asyncio.Queue[Entry] = asyncio.Queue()
    following = asyncio.create_task(followed(valkey_log, ACCOUNT, head, seen.put_nowait))

    answer = await gateway.check(buy("later", 1.0))

    async with asyncio.timeout(PATIENCE_S):
        while (entry := await seen.get()).head.seq < answer.seq:
            pass
    assert b'"client_order_id":"later"' in entry.raw
    assert entry.head == (await world.log.heads([ACCOUNT]))[ACCOUNT]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_log_that_goes_backwards_while_it_is_followed_is_said(
    world: World, valkey: EmbeddedStore, valkey_log: RedisLog
) -> None:
    ahead = Head((await stored(valkey_log))[-1].head.seq + 5, "00" * 16)

    with pytest.raises(ChainBroken, match="it went backwards"):
        await asyncio.wait_for(followed(valkey_log, ACCOUNT, ahead, lambda entry: None), PATIENCE_S)


async def test_a_decision_is_explained_as_its_caller_was_told(world: World, valkey_log: RedisLog) -> None:
    gateway = await world.gateway()
    answer = await gateway.check(buy("reasoned", 2_000.0))

    response, decided = await explained(valkey_log, ACCOUNT, answer.seq)

    assert decided == answer.decided
    assert (response.action, response.allowed, response.allowed_quantity) == (decision_pb2.ACTION_REJECT, False, 0.0)
    assert response.reason == decision_pb2.REASON_ORDER_QUANTITY
    assert [check.measure for check in response.checks] == [check.measure for check in answer.decided.checks]
    assert (response.sequence, response.session_date, response.limit_set) == (
        answer.seq,
        "2023-11-14",
        answer.decided.limit_set,
    )


async def test_an_approval_is_explained_without_a_token(world: World, valkey_log: RedisLog) -> None:
    gateway = await world.gateway()
    answer = await gateway.check(buy("fine", 2.0))

    response, _ = await explained(valkey_log, ACCOUNT, answer.seq)

    assert answer.decided.reason is Reason.NONE
    assert (response.allowed, response.allowed_quantity, response.approval) == (True, 2.0, b"")


async def test_explain_prints_the_tree_of_check_explain(
    world: World, valkey: EmbeddedStore, valkey_log: RedisLog, capsys: pytest.CaptureFixture[str]
) -> None:
    seq = next(entry.head.seq for entry in await stored(valkey_log) if b'"client_order_id":"huge"' in entry.raw)

    code = await tail(valkey, "--explain", str(seq))

    printed = capsys.readouterr().out
    assert code == 0
    assert printed.startswith("✖ REJECT  BUY 5,000 AAA for alpha/s1 · ORDER_QUANTITY")
    assert "├── ✖ REJECT  order_quantity @ account:alpha: 0 → 5,000 of 1,000" in printed


@pytest.mark.parametrize(("seq", "said"), [("1", "is no decision but: account_opened"), ("999", "ends before 999")])
async def test_only_a_decision_can_be_explained(
    world: World, valkey: EmbeddedStore, capsys: pytest.CaptureFixture[str], seq: str, said: str
) -> None:
    assert await tail(valkey, "--explain", seq) == ExitCode.USAGE
    assert said in capsys.readouterr().err


async def test_a_record_of_another_release_is_shown_as_it_is_and_not_guessed_at(
    world: World, valkey: EmbeddedStore, valkey_log: RedisLog, capsys: pytest.CaptureFixture[str]
) -> None:
    head = (await stored(valkey_log))[-1].head
    await valkey_log.append(ACCOUNT, head, None, [b'{"k":"from_the_future","time_us":1}'], 0, 0)

    code, explaining = await tail(valkey, "-n", "1"), await tail(valkey, "--explain", str(head.seq + 1))

    shown = capsys.readouterr()
    assert (code, explaining) == (0, ExitCode.DAMAGED)
    assert 'unreadable here            {"k":"from_the_future","time_us":1}' in shown.out
    assert "can't be read by this release" in shown.err


async def test_a_trimmed_log_is_proven_from_its_snapshot_on(
    world: World, valkey: EmbeddedStore, valkey_log: RedisLog, capsys: pytest.CaptureFixture[str]
) -> None:
    at = (await stored(valkey_log))[2].head
    await valkey_log.snapshot(ACCOUNT, Snapshot(at.seq, at.hash, "", 1, b"state"), archived_upto=at.seq)

    code = await tail(valkey)

    shown = capsys.readouterr()
    assert code == 0
    assert "the chain holds: records from 4 to" in shown.err
    assert shown.out[23:].split()[0] == "4"


async def test_an_account_that_has_no_log_is_told_with_those_that_have(world: World, valkey_log: RedisLog) -> None:
    with pytest.raises(Failure) as unknown:
        await start_of(valkey_log, "nobody")

    assert unknown.value.exit_code is ExitCode.UNKNOWN_ACCOUNT
    assert unknown.value.hint == "Accounts here: alpha"


def test_the_log_of_a_dead_store_can_be_read_but_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def lived(store: EmbeddedStore) -> None:
        log = RedisLog(store.socket_path, socket_timeout_s=5.0)
        async with world_on(log) as world:
            await traded(world)
        await log.aclose()

    store = EmbeddedStore.start(tmp_path)
    try:
        asyncio.run(lived(store))
    finally:
        store.stop()

    read = exit_code("log", "tail", ACCOUNT, "--data-dir", str(tmp_path), "-n", "3")
    follow = exit_code("log", "tail", ACCOUNT, "--data-dir", str(tmp_path), "--follow")

    shown = capsys.readouterr()
    assert (read, follow) == (0, ExitCode.UNAVAILABLE)
    assert "✖ REJECT  BUY 5,000 AAA" in shown.out
    assert "its store is started to be read" in shown.err and "the chain holds" in shown.err
    assert "nothing will be appended" in shown.err
    EmbeddedStore.start(tmp_path).stop()  # nothing was left running on it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data-dir", "{empty}"), "holds no store"),
        (("--data-dir", "{empty}", "--store", "redis://localhost"), "one of --store and --data-dir"),
        (("--explain", "3", "--json"), "without --follow and --json"),
        (("--store", "localhost:6379"), "--store is no URL of a Redis or Valkey"),
        (("--store", "redis://localhost:port"), "--store is no URL of a Redis or Valkey"),
    ],
)
def test_what_makes_no_sense_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert exit_code("log", "tail", ACCOUNT, *(option.format(empty=tmp_path) for option in options)) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_a_store_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = exit_code("log", "tail", ACCOUNT, "--store", f"unix://{tmp_path / 'nothing'}")

    assert code == ExitCode.UNAVAILABLE
    assert "the log can't be read" in capsys.readouterr().err
