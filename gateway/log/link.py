"""One gateway's connection to Redis or Valkey: a pool, pipelines, scripts, and the table of what can go wrong.

Knows the wire and nothing of logs. The library retries nothing: the committer does, since only it knows what a
repetition means. No exception of the library leaves this file; after a timeout or a cancellation the library drops
the connection, so an answer that comes late is never taken for the next one's.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.exceptions as foreign
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import StoreError, StoreRefused, StoreUnavailable
from gateway.log.tier import StoreSettings

SOCKET_TIMEOUT_S = 0.25  # some hundred times an append with fsync, and it leaves an order's deadline time to say so
CONNECTIONS_MAX = 16  # accounts whose appends run at the same time; Redis runs them one by one anyway
WAIT_SHARE = 0.5  # of the socket timeout goes to WAIT, which ends up to 0.1 s late (the server's hz): before our own
BARRIER_CHANNEL = "barrier"  # nobody listens

Command = tuple[Any, ...]

# Replies by which the server says that it can't serve now. Any other error reply is about what we asked or stored.
UNAVAILABLE_CODES = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN"}
)
UNAVAILABLE = (
    foreign.BusyLoadingError,
    foreign.ClusterDownError,
    foreign.ConnectionError,
    foreign.MasterDownError,
    foreign.OutOfMemoryError,
    foreign.ReadOnlyError,
    foreign.TimeoutError,
    foreign.TryAgainError,
    OSError,
)


def translated(error: Exception) -> StoreError:
    """Our name for an error of the library's."""
    reply = str(error)
    if isinstance(error, UNAVAILABLE) or reply.partition(" ")[0] in UNAVAILABLE_CODES:
        return StoreUnavailable(f"the store does not serve: {reply}")
    return StoreRefused(f"the store refused: {reply}")


@contextmanager
def translating() -> Iterator[None]:
    try:
        yield
    except (foreign.RedisError, OSError) as error:
        raise translated(error) from error


class Script:
    """A Lua script and the name Redis gives it."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script."""

    keys: tuple[str, ...]
    arguments: tuple[bytes | str | int, ...]

    def by_sha(self, script: Script) -> Command:
        return ("EVALSHA", script.sha, len(self.keys), *self.keys, *self.arguments)

    def by_text(self, script: Script) -> Command:
        return ("EVAL", script.text, len(self.keys), *self.keys, *self.arguments)


def _url(address: str | Path) -> str:
    text = str(address)
    return f"unix://{text}" if text.startswith("/") else text


class RedisLink:
    """Commands to one Redis. `address`: a redis://, rediss:// or unix:// URL, or the path of a unix socket.

    Opens connections when they are first needed; `aclose` ends them.
    """

    def __init__(
        self,
        address: str | Path,
        *,
        socket_timeout_s: float = SOCKET_TIMEOUT_S,
        connections_max: int = CONNECTIONS_MAX,
        wait_replicas: int = 0,
    ) -> None:
        self._options: dict[str, Any] = {
            "socket_timeout": socket_timeout_s,
            "socket_connect_timeout": socket_timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,  # saves CLIENT SETINFO, a round trip a connection
        }
        self._url = _url(address)
        self._wait_replicas = wait_replicas
        self._wait_ms = max(1, round(socket_timeout_s * WAIT_SHARE * 1000))
        pool = BlockingConnectionPool.from_url(
            self._url, max_connections=connections_max, timeout=socket_timeout_s, **self._options
        )
        self._client = Redis.from_pool(pool)

    async def one(self, *command: Any) -> Any:
        """One command's reply."""
        with translating():
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py left it so

    async def all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies of a pipeline, in one round trip. An error among them raises."""
        return _without_errors(await self._pipeline(commands))

    async def all_durable(self, commands: Sequence[Command]) -> list[Any]:
        """The same, once the replicas that are waited for have all that the replies depend on."""
        return _without_errors(await self._durable(commands))

    async def run(self, script: Script, call: Call) -> Any:
        """One run's reply, durably."""
        (reply,) = await self.run_each(script, [call])
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def run_each(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Each run's reply, durably, or the StoreError in its place. In one round trip; two when the server forgot
        the script, which EVAL teaches it again."""
        replies = await self._durable([call.by_sha(script) for call in calls])
        forgotten = [i for i, reply in enumerate(replies) if isinstance(reply, foreign.NoScriptError)]
        if forgotten:
            again = await self._durable([calls[i].by_text(script) for i in forgotten])
            for i, reply in zip(forgotten, again, strict=True):
                replies[i] = reply
        return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[PubSub]:
        """A pub/sub connection of its own: a subscribed one can't serve commands, and must not use the pool up."""
        pool = ConnectionPool.from_url(self._url, max_connections=1, **self._options)
        client = Redis.from_pool(pool)
        try:
            with translating():
                async with client.pubsub() as pubsub:
                    yield pubsub
        finally:
            await client.aclose()

    async def settings(self) -> StoreSettings:
        """What the server says of itself. StoreRefused where it does not let us read that."""
        server, replication, *configured = await self.all(
            [
                ("INFO", "server"),
                ("INFO", "replication"),
                ("CONFIG GET", "appendonly"),
                ("CONFIG GET", "appendfsync"),
                ("CONFIG GET", "maxmemory-policy"),
                ("CONFIG GET", "no-appendfsync-on-rewrite"),
            ]
        )
        values: dict[str, str] = {}
        for setting in configured:
            values |= _as_text(setting)
        return StoreSettings(
            version=tuple(int(part) for part in str(server["redis_version"]).split(".")),
            role=str(replication["role"]),
            replicas_connected=int(replication.get("connected_slaves", 0)),
            appendonly=values.get("appendonly", ""),
            appendfsync=values.get("appendfsync", ""),
            maxmemory_policy=values.get("maxmemory-policy", ""),
            wait_replicas=self._wait_replicas,
            no_appendfsync_on_rewrite=values.get("no-appendfsync-on-rewrite", "no"),
        )

    async def aclose(self) -> None:
        with translating():
            await self._client.aclose()

    async def _durable(self, commands: Sequence[Command]) -> list[Any]:
        if not self._wait_replicas:
            return await self._pipeline(commands)
        # Valkey's WAIT covers only what this connection wrote. A verifying append or a read writes nothing and yet
        # depends on what others wrote; a PUBLISH is replicated, costs no fsync, and brings those before it along.
        barrier = [("PUBLISH", BARRIER_CHANNEL, b""), ("WAIT", self._wait_replicas, self._wait_ms)]
        *replies, published, reached = await self._pipeline([*commands, *barrier])
        _without_errors([published, reached])
        if reached < self._wait_replicas:
            raise StoreUnavailable(f"{reached} of {self._wait_replicas} replicas acknowledged in {self._wait_ms} ms")
        return replies

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        # No MULTI: Redis 7.0 refuses even reads in one when its memory is full.
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        with translating():
            return await pipeline.execute(raise_on_error=False)


def _without_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise translated(reply) from reply
    return replies


def _as_text(setting: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in setting.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
