"""What the store keeps of events: what operators entered, and each source with its last good events.

The one place that encodes them. Whoever serves events and whoever plans by them reads the same.
"""

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from engine.events import Event, Feed, merged
from gateway.log.bulletin import Bulletin

_ENCODER = msgspec.msgpack.Encoder()
_EVENTS: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_FEEDS: msgspec.msgpack.Decoder[Feed] = msgspec.msgpack.Decoder(Feed)


@dataclass(frozen=True, slots=True)
class Calendar:
    """As it stands in the store."""

    feeds: tuple[Feed, ...] = ()
    """Of the sources asked for, those never read among them, in their order."""
    entered: tuple[Event, ...] = ()

    @property
    def events(self) -> tuple[Event, ...]:
        return merged(self.feeds, self.entered)


async def calendar(bulletin: Bulletin, ranks: Collection[tuple[str, int]]) -> Calendar:
    """`ranks`: the sources that are configured, and whose word counts. Raises StoreError, and msgspec.MsgspecError on
    what this release can't read."""
    kept, entered = await bulletin.feeds(), await bulletin.kept_events()
    feeds = [_FEEDS.decode(kept[name]) if name in kept else Feed(name, rank) for name, rank in ranks]
    return Calendar(tuple(feeds), tuple(_EVENTS.decode(event) for event in entered.values()))


async def enter(bulletin: Bulletin, event: Event) -> bool:
    """Keep what an operator entered; whether its id is new. Raises StoreError."""
    return await bulletin.keep_event(event.event_id, _ENCODER.encode(event))


async def keep(bulletin: Bulletin, feed: Feed) -> None:
    """Raises StoreError."""
    await bulletin.keep_feed(feed.source, _ENCODER.encode(feed))
