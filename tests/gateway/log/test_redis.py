"""What only a server can do to a log: stall, die, come back, forget its scripts, lack replicas, be set up wrongly.

Each story has servers of its own where it harms them. None sleeps: it waits for what it needs to be true.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.embedded import EmbeddedStore
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.log.account_log import (
    CONTROL_GENESIS,
    GENESIS,
    PARTITIONS,
    Appended,
    Conflict,
    Control,
    ControlChange,
    Page,
    partition_of,
)
from gateway.log.bulletin import AccountMoved, Lagged
from gateway.log.redis import RedisLog
from gateway.log.redis_bulletin import PEERS_KEY
from gateway.log.tier import StoreSettings, Tier, contradictions
from tests.conftest import REDIS_SERVER, SERVERS

BINARIES = {"valkey": None, "redis": Path(REDIS_SERVER) if REDIS_SERVER else None}
QUICK_S = 0.25  # the default of production
StartStore = Callable[..., EmbeddedStore]


@pytest.fixture(params=SERVERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartStore]:
    """Starts a server of the test's own on a folder of that name; again on the same folder and socket for a restart."""
    with ExitStack() as stores:
        places = EmbeddedStore.start(tmp_path / "places", binary=BINARIES[request.param])  # lends a short folder
        stores.callback(places.stop)

        def start_store(name: str = "own") -> EmbeddedStore:
            runtime_dir = places.socket_path.parent / name
            store = EmbeddedStore.start(tmp_path / name, runtime_dir, binary=BINARIES[request.param])
            stores.callback(store.stop)
            return store

        yield start_store


UNHURRIED_S = 1.0
"""Four times a gateway's own patience: a busy machine may pause for as long as an order would wait."""


@asynccontextmanager
async def opened(store: EmbeddedStore, **options: float) -> AsyncIterator[RedisLog]:
    log = RedisLog(store.socket_path, **{"socket_timeout_s": UNHURRIED_S, **options})  # type: ignore[arg-type]
    yield log
    await log.aclose()


@asynccontextmanager
async def client_of(store: EmbeddedStore) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=str(store.socket_path)) as client:
        yield client


@contextmanager
def stalled(store: EmbeddedStore) -> Iterator[None]:
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


def killed(store: EmbeddedStore) -> None:
    os.kill(store.pid, signal.SIGKILL)
    store.stop()


async def append(log: RedisLog, record: bytes, account: str = "a") -> Appended | Conflict:
    result = await log.append(account, GENESIS, None, [record], 0, 0)
    assert isinstance(result, Appended | Conflict)
    return result


async def eventually(attempt: Callable[[], "asyncio.Future[object]"], within_s: float = 10) -> None:
    """Until the store serves again; the attempts' own time-outs are the pause."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            await attempt()
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline_s


async def test_a_forgotten_script_is_taught_again(start: StartStore) -> None:
    store = start()
    async with opened(store) as log, client_of(store) as client:
        await append(log, b"1", account="a")
        await log.advance_controls(range(PARTITIONS), lambda c: ControlChange(c.head.epoch + 1, b"1", b""))
        await client.script_flush()

        assert isinstance(await append(log, b"1", account="b"), Appended)
        await client.script_flush()
        outcomes = await log.advance_controls(range(PARTITIONS), lambda c: ControlChange(c.head.epoch + 1, b"2", b""))

    assert {c.head.epoch for c in outcomes.values() if isinstance(c, Control)} == {2}
    assert len(outcomes) == PARTITIONS


async def test_appends_to_many_accounts_share_few_connections(start: StartStore) -> None:
    store = start()
    async with opened(store, connections_max=3, socket_timeout_s=5.0) as log:
        results = await asyncio.gather(*(append(log, b"1", account=f"a{i}") for i in range(40)))
        assert len(await log.accounts()) == 40

    assert all(isinstance(result, Appended) for result in results)


async def test_a_stalled_store_is_unavailable_in_time_and_a_late_answer_is_nobody_elses(start: StartStore) -> None:
    store = start()
    async with opened(store, socket_timeout_s=QUICK_S) as log:
        await append(log, b"warm", account="other")
        with stalled(store):
            began_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await append(log, b"mine")
            waited_s = time.monotonic() - began_s

        again = await append(log, b"mine")
        page = await log.read("a", 0, 10)

    assert waited_s < 20 * QUICK_S
    assert isinstance(again, Appended) or again.tail == (b"mine",)
    assert isinstance(page, Page) and page.records == (b"mine",)


async def test_an_abandoned_append_leaves_no_answer_for_the_next_question(start: StartStore) -> None:
    store = start()
    async with opened(store, connections_max=1, socket_timeout_s=5.0) as log:
        await log.now_us()
        with stalled(store):
            abandoned = asyncio.ensure_future(append(log, b"1"))
            await asyncio.wait([abandoned], timeout=0.05)
            abandoned.cancel()
            await asyncio.wait([abandoned])

        time_us = await log.now_us()

    assert abs(time_us - time.time_ns() // 1000) < 60_000_000


async def test_a_dead_store_is_unavailable_and_what_it_acknowledged_is_there_when_it_is_back(start: StartStore) -> None:
    store = start()
    async with opened(store) as log:
        await append(log, b"1")
        stop = await log.advance_control(partition_of("a"), lambda c: ControlChange(1, b"stopped", b""))
        killed(store)

        with pytest.raises(StoreUnavailable):
            await append(log, b"2")
        with pytest.raises(StoreUnavailable):
            await log.read_controls()
        outcomes = await log.advance_controls([40, 41], lambda c: ControlChange(1, b"", b""))
        start()
        page = await log.read("a", 0, 10)

        assert isinstance(page, Page) and page.records == (b"1",)
        assert await log.read_control(partition_of("a")) == stop
        assert set(outcomes) == {40, 41}
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes.values())
        assert (await log.read_control(40)).head == CONTROL_GENESIS


async def test_a_follower_outlives_its_store_and_says_that_it_may_have_missed_something(start: StartStore) -> None:
    store = start()
    async with opened(store) as log, aclosing(log.bulletin.follow()) as wakes:
        assert await anext(wakes) == Lagged()
        killed(store)
        start()

        assert await asyncio.wait_for(anext(wakes), 10) == Lagged()
        await append(log, b"1")
        assert await asyncio.wait_for(anext(wakes), 10) == AccountMoved("a", 1)


async def test_a_follower_notices_a_connection_that_went_dead_without_a_word(start: StartStore) -> None:
    store = start()
    async with opened(store, heartbeat_s=0.05) as log, aclosing(log.bulletin.follow()) as wakes:
        assert await anext(wakes) == Lagged()
        with stalled(store):
            heard = asyncio.ensure_future(anext(wakes))
            await asyncio.wait([heard], timeout=0.3)  # longer than a heartbeat and a ping without an answer
            assert not heard.done()

        assert await asyncio.wait_for(heard, 10) == Lagged()


async def test_an_append_that_replicas_lack_does_not_count(start: StartStore) -> None:
    primary, replica = start("primary"), start("replica")
    await replicate(primary, replica)
    async with opened(primary, wait_replicas=1, socket_timeout_s=20.0) as patient:
        first = await append(patient, b"1")  # a busy machine's replica may need longer than an order would wait
        await patient.check_settings(Tier.REPLICATED)
    async with opened(primary, wait_replicas=1) as log, opened(primary, wait_replicas=1) as another:
        with stalled(replica):
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await log.append("a", first.head, None, [b"2"], 0, 0)
            after = first.head.extend([b"2"])
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await another.append("a", after, None, [], 0, 0)

        await eventually(lambda: asyncio.ensure_future(another.append("a", after, None, [], 0, 0)))
        assert isinstance(first, Appended)


async def test_a_control_change_that_replicas_lack_is_not_found_in_the_history(start: StartStore) -> None:
    """A stop that is found there counts as acknowledged."""
    primary, replica = start("primary"), start("replica")
    await replicate(primary, replica)
    async with opened(primary, wait_replicas=1, socket_timeout_s=20.0) as patient:
        armed = await patient.advance_control(7, lambda c: ControlChange(1, b"armed", b"arm"))
    async with opened(primary, wait_replicas=1) as log:
        with stalled(replica):
            outcome = await log.advance_controls([7], lambda c: ControlChange(2, b"stopped", b"stop"), {7: armed})
            assert isinstance(outcome[7], StoreUnavailable)
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await log.control_history(7, 1, 10)

        await eventually(lambda: asyncio.ensure_future(log.control_history(7, 1, 10)))
        assert await log.control_history(7, 1, 10) == ((2, b"stop"),)


async def replicate(primary: EmbeddedStore, replica: EmbeddedStore) -> None:
    """Replicas connect by TCP only, so the primary gets a port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with client_of(primary) as client, client_of(replica) as follower:
        await client.config_set("bind", "127.0.0.1")
        await client.config_set("port", port)
        await client.config_set("repl-diskless-sync-delay", 0)
        await follower.replicaof("127.0.0.1", port)
        await client.set("probe", "1")
        assert await client.wait(1, 10_000) == 1


async def test_the_private_store_keeps_what_its_tier_promises(start: StartStore) -> None:
    async with opened(start()) as log:
        await log.check_settings(Tier.EMBEDDED)
        with pytest.raises(StoreRefused, match="wait_replicas"):
            await log.check_settings(Tier.REPLICATED)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendfsync", "everysec"),
        ("appendonly", "no"),
        ("maxmemory-policy", "allkeys-lru"),
        ("no-appendfsync-on-rewrite", "yes"),
    ],
)
async def test_a_store_set_up_to_forget_is_refused(start: StartStore, setting: str, value: str) -> None:
    store = start()
    async with opened(store) as log, client_of(store) as client:
        await client.config_set(setting, value)

        with pytest.raises(StoreRefused, match=f"{setting} '{value}' must be"):
            await log.check_settings(Tier.SINGLE)


async def test_a_full_store_takes_no_append_but_a_stop_and_keeps_log_and_head_together(start: StartStore) -> None:
    store = start()
    async with opened(store) as log, client_of(store) as client:
        await append(log, b"1")
        await client.config_set("maxmemory", 1)

        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await log.append("a", GENESIS.extend([b"1"]), None, [b"2"], 0, 0)
        stop = await log.advance_control(7, lambda c: ControlChange(1, b"stopped", b"by hand"))
        page = await log.read("a", 0, 10)

    assert stop.state == b"stopped"
    assert isinstance(page, Page)
    assert page.head == GENESIS.extend([b"1"]) == GENESIS.extend(page.records)


async def test_a_key_that_holds_something_else_is_refused_rather_than_retried(start: StartStore) -> None:
    store = start()
    async with opened(store) as log, client_of(store) as client:
        await client.set(f"{{p{partition_of('a')}}}:a:a:log", "not a stream")

        with pytest.raises(StoreRefused, match="WRONGTYPE"):
            await append(log, b"1")


GOOD = StoreSettings((7, 0, 15), "master", 1, "yes", "always", "noeviction", 1)


@pytest.mark.parametrize("tier", list(Tier))
def test_good_settings_contradict_no_tier(tier: Tier) -> None:
    assert list(contradictions(tier, GOOD)) == []


@pytest.mark.parametrize(
    ("tier", "settings", "named"),
    [
        (Tier.SINGLE, StoreSettings((6, 2, 14), "master", 0, "yes", "always", "noeviction", 0), "version 6.2.14"),
        (Tier.SINGLE, StoreSettings((7, 2), "slave", 0, "yes", "always", "noeviction", 0), "role 'slave'"),
        (Tier.SENTINEL, StoreSettings((7, 2), "master", 0, "no", "everysec", "noeviction", 0), "appendonly"),
        (Tier.REPLICATED, StoreSettings((7, 2), "master", 1, "yes", "always", "noeviction", 2), "1 replicas"),
        (Tier.REPLICATED, StoreSettings((7, 2), "master", 1, "yes", "everysec", "noeviction", 1), "appendfsync"),
    ],
)
def test_each_contradiction_is_named(tier: Tier, settings: StoreSettings, named: str) -> None:
    (contradiction,) = contradictions(tier, settings)

    assert contradiction.startswith(named)


def test_a_tier_without_wait_may_flush_each_second() -> None:
    settings = StoreSettings((7, 0, 15), "master", 1, "yes", "everysec", "noeviction", 0)

    assert list(contradictions(Tier.SENTINEL, settings)) == []


async def test_what_is_no_address_hides_nobody(valkey: EmbeddedStore, valkey_log: RedisLog) -> None:
    async with Redis(unix_socket_path=str(valkey.socket_path)) as stranger:
        await stranger.zadd(PEERS_KEY, {b"\xff": 400})

    assert "one:1" in await valkey_log.bulletin.announce("one:1", 400, 0)
