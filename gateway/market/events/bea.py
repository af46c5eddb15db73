"""The Bureau of Economic Analysis' release dates (release_dates.json): output and personal income, in UTC.

Dates come more than once, and with releases of states and counties beside the nation's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from engine.events import RANK_OFFICIAL, Event
from gateway.market.events.source import EASTERN, Fetch, SourceError, json_of, micros, whole

URL = "https://apps.bea.gov/API/signup/release_dates.json"

TYPES = {"gross domestic product": "gdp", "personal income and outlays": "pce"}


@dataclass(frozen=True, slots=True)
class Bea:
    """See the module."""

    fetch: Fetch
    url: str = URL
    name: str = "bea"
    rank: int = RANK_OFFICIAL

    def read(self) -> Sequence[Event]:
        table = json_of(self.fetch(self.url))
        if not isinstance(table, dict):
            raise SourceError("expected an object of releases")
        found: dict[str, Event] = {}
        for release, told in table.items():
            event_type = TYPES.get(str(release).casefold())
            if event_type is None:
                continue
            dates = told.get("release_dates") if isinstance(told, dict) else None
            if not isinstance(dates, list):
                raise SourceError(f"{release}: expected a list 'release_dates'")
            for moment in dates:
                event = _event(str(release), event_type, moment)
                found[event.event_id] = event
        return whole(list(found.values()))


def _event(release: str, event_type: str, told: object) -> Event:
    try:
        moment = datetime.fromisoformat(str(told))
    except ValueError as error:
        raise SourceError(f"{release}: expected a time, got {str(told)[:40]!r}") from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    day = moment.astimezone(EASTERN).date()
    return Event(
        event_id=f"bea:{event_type}:{day}",
        event_type=event_type,
        name=release,
        earliest_us=micros(moment),
        latest_us=micros(moment),
        date=day.isoformat(),
        source="bea",
        official=True,
    )
