"""The Bureau of Labor Statistics' calendar (bls.ics): consumer and producer prices, employment. Eastern time.

It names its zone in a way of its own, folds its lines and refuses default user agents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.events import RANK_OFFICIAL, Event
from gateway.market.events.ics import Entry, entries
from gateway.market.events.source import EASTERN, Fetch, Kind, kind_in, whole

URL = "https://www.bls.gov/schedule/news_release/bls.ics"

KINDS = (
    ("consumer price index", Kind("cpi", "Consumer Price Index")),
    ("employment situation", Kind("nfp", "Employment Situation")),
    ("producer price index", Kind("ppi", "Producer Price Index")),
)


@dataclass(frozen=True, slots=True)
class Bls:
    """See the module."""

    fetch: Fetch
    url: str = URL
    name: str = "bls"
    rank: int = RANK_OFFICIAL

    def read(self) -> Sequence[Event]:
        found = [_event(entry) for entry in entries(self.fetch(self.url), EASTERN)]
        return whole([event for event in found if event is not None])


def _event(entry: Entry) -> Event | None:
    """None of a release that is not followed. One of a type comes out each month: a month's keeps its id when it is
    moved within it."""
    kind = kind_in(entry.summary, KINDS)
    if kind is None or "metropolitan" in entry.summary.casefold():
        return None
    return Event(
        event_id=f"bls:{kind.event_type}:{entry.uid or f'{entry.date:%Y-%m}'}",
        event_type=kind.event_type,
        name=entry.summary[:200],
        earliest_us=entry.earliest_us,
        latest_us=entry.latest_us,
        date=entry.date.isoformat(),
        source="bls",
        official=True,
        uncertain=entry.uncertain,
        cancelled=entry.cancelled,
    )
