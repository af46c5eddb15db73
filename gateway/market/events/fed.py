"""The Federal Reserve's calendar (/json/calendar.json): meetings, minutes and speakers, in Eastern time.

A two-day meeting lists both days; the decision is on the last. The file begins with a byte order mark and has HTML
entities in its titles.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from engine.events import RANK_OFFICIAL, Event
from gateway.market.events.source import Fetch, SourceError, all_day, at, json_of, listed, whole

URL = "https://www.federalreserve.gov/json/calendar.json"

_TAG = re.compile(r"<[^>]*>")
_TYPES = {"speeches": "fed_speaker", "testimony": "fed_speaker", "discussions": "fed_speaker"}
"""By the feed's own `type`; of FOMC the title tells the decision from the minutes."""

MEETING_HOUR = time(14, 0)
"""Statements are released at 2 p.m. Eastern on the last day of a regular meeting."""


@dataclass(frozen=True, slots=True)
class Fed:
    """See the module."""

    fetch: Fetch
    url: str = URL
    name: str = "fed"
    rank: int = RANK_OFFICIAL

    def read(self) -> Sequence[Event]:
        rows = listed(json_of(self.fetch(self.url)), "events")
        found: dict[str, Event] = {}
        for row in rows:
            event = _event(row)
            if event is not None:
                found[event.event_id] = event
        return whole(list(found.values()))


def _event(row: dict[str, Any]) -> Event | None:
    """None of a kind that is not followed."""
    title = " ".join(_TAG.sub("", html.unescape(str(row.get("title", "")))).split())
    kind = str(row.get("type", "")).casefold()
    minutes = "minutes" in title.casefold()
    if kind == "fomc" or title.casefold().startswith("fomc"):
        event_type = "fomc_minutes" if minutes else "fomc" if "meeting" in title.casefold() else "macro"
    elif kind in _TYPES:
        event_type = _TYPES[kind]
    else:
        return None
    day = _last_day(row)
    hour = _hour(str(row.get("time", "")))
    if hour is None and event_type == "fomc":
        hour = MEETING_HOUR
    spoken = "" if event_type in ("fomc", "fomc_minutes") else f":{day.day}:{title[:60]}"
    earliest_us, latest_us = all_day(day) if hour is None else (at(day, hour),) * 2
    return Event(
        event_id=f"fed:{event_type}:{day:%Y-%m}{spoken}",
        event_type=event_type,
        name=title[:200] or event_type,
        earliest_us=earliest_us,
        latest_us=latest_us,
        date=day.isoformat(),
        source="fed",
        official=True,
        uncertain=hour is None,
    )


def _last_day(row: dict[str, Any]) -> date:
    """The last of `days` in `month`: "27, 28" and "27-28" are a meeting's two. Raises SourceError."""
    days = [int(day) for day in re.findall(r"\d{1,2}", str(row.get("days", "")))]
    month = re.fullmatch(r"(\d{4})-(\d{2})", str(row.get("month", "")))
    try:
        if month is None or not days:
            raise ValueError("no month or no day")
        year, number = int(month[1]), int(month[2])
        if len(days) > 1 and days[-1] < days[0]:  # a meeting over the end of a month
            year, number = (year + 1, 1) if number == 12 else (year, number + 1)
        return date(year, number, days[-1])
    except ValueError as error:
        raise SourceError(f"an event's days can't be read: {row.get('month')!r}, {row.get('days')!r}") from error


def _hour(told: str) -> time | None:
    """Of "2:00 p.m."; None where there is none."""
    cleaned = told.replace(".", "").strip().upper()
    for shape in ("%I:%M %p", "%I %p"):
        try:
            return datetime.strptime(cleaned, shape).time()
        except ValueError:
            continue
    return None
