"""The bulletin over Redis: a hash, a few keys, and pub/sub that outlives its connection.

Pub/sub forgets whoever is not connected, so each (re)connection starts with `Lagged`. A connection that answers
no ping is given up: a half-open one would look like a quiet market for ever.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from redis.asyncio.client import PubSub

from gateway.errors import StoreUnavailable
from gateway.log.account_log import PARTITIONS, partition_of
from gateway.log.bulletin import (
    CLOSES_KEPT_MAX,
    CONTROL_CHANNEL,
    MARKS_CHANNEL,
    MODEL_CHANNEL,
    Lagged,
    MarksMoved,
    ModelMoved,
    Wake,
    decode_control_wakes,
    decode_marks,
    decode_wake,
    encode_marks,
    report_wake,
)
from gateway.log.link import RedisLink

HEARTBEAT_S = 1.0  # silence after which a ping is sent; unanswered for as long again, the connection is dead
BACKOFF_MIN_S = 0.05
PEERS_KEY = "peers"
ANALYSTS_KEY = "analysts"
CLOSES_KEY = "closes"
EVENTS_KEY = "events"
FEEDS_KEY = "feeds"
BACKOFF_MAX_S = 1.0  # followers compare heads each second, so a longer pause would gain nothing


def account_key(account: str, part: str) -> str:
    return f"{{p{partition_of(account)}}}:a:{account}:{part}"


def closes_key(session: str) -> str:
    return f"{CLOSES_KEY}:{session}"


def wake_channel(partition: int) -> str:
    return f"{{p{partition}}}:wake"


class RedisBulletin:
    """A `Bulletin` on the Redis of a log."""

    def __init__(self, link: RedisLink, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._link = link
        self._heartbeat_s = heartbeat_s

    async def post_marks(self, marks: Mapping[str, bytes]) -> None:
        if not marks:
            return
        fields = [part for symbol, mark in marks.items() for part in (symbol, mark)]
        await self._link.all([("HSET", "marks", *fields), ("PUBLISH", MARKS_CHANNEL, encode_marks(marks))])

    async def marks(self) -> dict[str, bytes]:
        return {symbol.decode(): mark for symbol, mark in (await self._link.one("HGETALL", "marks")).items()}

    async def post_report(self, account: str, report: bytes) -> None:
        channel = wake_channel(partition_of(account))
        await self._link.all(
            [("SET", account_key(account, "report"), report), ("PUBLISH", channel, report_wake(account))]
        )

    async def report(self, account: str) -> bytes | None:
        report: bytes | None = await self._link.one("GET", account_key(account, "report"))
        return report

    async def post_model(self, model_hash: str) -> None:
        await self._link.all([("SET", "model", model_hash), ("PUBLISH", MODEL_CHANNEL, model_hash)])

    async def model(self) -> str | None:
        model_hash: bytes | None = await self._link.one("GET", "model")
        return model_hash.decode() if model_hash else None

    async def announce(self, address: str | None, now_us: int, since_us: int) -> frozenset[str]:
        noted = [("ZADD", PEERS_KEY, now_us, address)] if address is not None else []
        *_, seen = await self._link.all(
            [
                *noted,
                ("ZREMRANGEBYSCORE", PEERS_KEY, "-inf", f"({since_us}"),
                ("ZRANGE", PEERS_KEY, 0, -1),
            ]
        )
        return frozenset(name.decode(errors="replace") for name in seen)  # anybody may have written there

    async def post_analyst(self, card: bytes, now_us: int, since_us: int) -> None:
        await self._link.all(
            [("ZADD", ANALYSTS_KEY, now_us, card), ("ZREMRANGEBYSCORE", ANALYSTS_KEY, "-inf", f"({since_us}")]
        )

    async def analysts(self, since_us: int) -> tuple[bytes, ...]:
        return tuple(await self._link.one("ZREVRANGEBYSCORE", ANALYSTS_KEY, "+inf", since_us))

    async def keep_closes(self, session: str, closes: Mapping[str, bytes]) -> None:
        if not closes:
            return
        key = closes_key(session)
        notes = [("HSETNX", key, symbol, close) for symbol, close in closes.items()]
        *_, forgotten = await self._link.all(
            [*notes, ("ZADD", CLOSES_KEY, 0, session), ("ZRANGE", CLOSES_KEY, 0, -(CLOSES_KEPT_MAX + 1))]
        )
        names = [name.decode() for name in forgotten]
        if names:  # the index last: what is cut off between the two is found again
            await self._link.all([*(("DEL", closes_key(name)) for name in names), ("ZREM", CLOSES_KEY, *names)])

    async def closes(self, after: str) -> dict[str, dict[str, bytes]]:
        noted = await self._link.one("ZRANGEBYLEX", CLOSES_KEY, f"({after}" if after else "-", "+")
        sessions = [name.decode() for name in noted]
        if not sessions:
            return {}
        found = await self._link.all([("HGETALL", closes_key(session)) for session in sessions])
        return {
            session: {symbol.decode(): close for symbol, close in closes.items()}
            for session, closes in zip(sessions, found, strict=True)
        }

    async def keep_event(self, event_id: str, event: bytes) -> bool:
        return bool(await self._link.one("HSET", EVENTS_KEY, event_id, event))

    async def kept_events(self) -> dict[str, bytes]:
        return {name.decode(): event for name, event in (await self._link.one("HGETALL", EVENTS_KEY)).items()}

    async def keep_feed(self, source: str, feed: bytes) -> None:
        await self._link.one("HSET", FEEDS_KEY, source, feed)

    async def feeds(self) -> dict[str, bytes]:
        return {name.decode(): feed for name, feed in (await self._link.one("HGETALL", FEEDS_KEY)).items()}

    async def follow(self) -> AsyncGenerator[Wake, None]:
        backoff_s = BACKOFF_MIN_S
        while True:
            try:
                async with self._link.subscription() as pubsub:
                    await _subscribe(pubsub, self._heartbeat_s)
                    backoff_s = BACKOFF_MIN_S
                    yield Lagged()
                    while True:
                        for wake in _wakes(await _next_message(pubsub, self._heartbeat_s)):
                            yield wake
            except StoreUnavailable:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)


async def _subscribe(pubsub: PubSub, heartbeat_s: float) -> None:
    """Returns when every channel is confirmed: what is published from here on arrives."""
    channels = [*map(wake_channel, range(PARTITIONS)), MARKS_CHANNEL, MODEL_CHANNEL, CONTROL_CHANNEL]
    await pubsub.subscribe(*channels)
    for _ in channels:
        await _next_message(pubsub, heartbeat_s)


async def _next_message(pubsub: PubSub, heartbeat_s: float) -> dict[str, Any]:
    message: dict[str, Any] | None = await pubsub.get_message(timeout=heartbeat_s)
    if message is None:
        await pubsub.ping()
        message = await pubsub.get_message(timeout=heartbeat_s)
    if message is None:
        raise StoreUnavailable(f"no answer to a ping in {heartbeat_s} s")
    return message


def _wakes(message: dict[str, Any]) -> list[Wake]:
    if message["type"] != "message":
        return []
    channel, payload = message["channel"], message["data"]
    if channel == MARKS_CHANNEL.encode():
        return [MarksMoved(decode_marks(payload))]
    if channel == MODEL_CHANNEL.encode():
        return [ModelMoved(payload.decode())]
    if channel == CONTROL_CHANNEL.encode():
        return [*decode_control_wakes(payload)]
    return [decode_wake(payload)]
