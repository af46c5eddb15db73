"""Stores for tests: real servers on unix sockets, started once a session, emptied before each test, always ended.

Only fixtures of stores live here. The private Valkey comes from the wheel, so nothing is ever skipped; a
`redis-server` on PATH is tried too, where one is.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.embedded import EmbeddedStore
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog

REDIS_SERVER = shutil.which("redis-server")
SERVERS = ["valkey", "redis"] if REDIS_SERVER else ["valkey"]
PATIENT_S = 5.0  # a busy machine may hold a test's server up; only tests of time-outs want to be quick


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """The private Valkey of the session."""
    store = EmbeddedStore.start(tmp_path_factory.mktemp("valkey"))
    yield store
    store.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """The Redis on PATH, for the session. Ask for it only where REDIS_SERVER is there."""
    assert REDIS_SERVER
    store = EmbeddedStore.start(tmp_path_factory.mktemp("redis"), binary=Path(REDIS_SERVER))
    yield store
    store.stop()


@pytest.fixture
async def valkey_log(valkey: EmbeddedStore) -> AsyncIterator[RedisLog]:
    """An empty log on the private Valkey."""
    await empty(valkey)
    log = RedisLog(valkey.socket_path, socket_timeout_s=PATIENT_S)
    yield log
    await log.aclose()


@pytest.fixture
async def redis_log(redis_server: EmbeddedStore) -> AsyncIterator[RedisLog]:
    """An empty log on the Redis of this machine."""
    await empty(redis_server)
    log = RedisLog(redis_server.socket_path, socket_timeout_s=PATIENT_S)
    yield log
    await log.aclose()


@pytest.fixture
def store_clock() -> list[int]:
    """The memory log's time in microseconds, in a list of one, so that a test can turn it."""
    return [1_700_000_000_000_000]


@pytest.fixture
def memory_log(store_clock: list[int]) -> MemoryLog:
    return MemoryLog(lambda: store_clock[0])


async def empty(store: EmbeddedStore) -> None:
    async with Redis(unix_socket_path=str(store.socket_path)) as client:
        await client.flushall()
