"""FRED's release dates (/fred/release/dates), a request a release: a vendor of others' dates, without an hour.

The dates of releases to come need `include_release_dates_with_no_data`. The API key is in the query: it is in no error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from engine.events import RANK_VENDOR, Event
from gateway.market.events.source import Fetch, Kind, all_day, day_of, json_of, listed, whole

URL = "https://api.stlouisfed.org/fred/release/dates"

RELEASES = {
    10: Kind("cpi", "Consumer Price Index"),
    50: Kind("nfp", "Employment Situation"),
    46: Kind("ppi", "Producer Price Index"),
    53: Kind("gdp", "Gross Domestic Product"),
    54: Kind("pce", "Personal Income and Outlays"),
}


@dataclass(frozen=True, slots=True)
class Fred:
    """See the module. `since`: older dates are not asked for."""

    fetch: Fetch
    key: str
    since: date
    url: str = URL
    name: str = "fred"
    rank: int = RANK_VENDOR

    def read(self) -> Sequence[Event]:
        return whole([event for release, kind in RELEASES.items() for event in self._of(release, kind)])

    def _of(self, release: int, kind: Kind) -> list[Event]:
        query = {
            "release_id": release,
            "file_type": "json",
            "include_release_dates_with_no_data": "true",
            "realtime_start": self.since.isoformat(),
            "realtime_end": "9999-12-31",
            "api_key": self.key,
        }
        rows = listed(json_of(self.fetch(f"{self.url}?{urlencode(query)}")), "release_dates")
        days = {day_of(row.get("date")) for row in rows}
        return [_event(kind, day) for day in sorted(days) if day >= self.since]


def _event(kind: Kind, day: date) -> Event:
    earliest_us, latest_us = all_day(day)
    return Event(
        event_id=f"fred:{kind.event_type}:{day}",
        event_type=kind.event_type,
        name=kind.name,
        earliest_us=earliest_us,
        latest_us=latest_us,
        date=day.isoformat(),
        source="fred",
        uncertain=True,
    )
