"""Finnhub's earnings calendar (/api/v1/calendar/earnings): companies' results, before the open, after the close or in
the session; where its hour says nothing, somewhere between the close before and the open after.

A company's quarter keeps its id when the day is moved. The token is in the query: it is in no error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlencode

from engine.events import RANK_VENDOR, Event
from gateway.market.events.hours import Hours
from gateway.market.events.source import Fetch, SourceError, day_of, json_of, listed, whole

URL = "https://finnhub.io/api/v1/calendar/earnings"

_HOURS = {"bmo": "before the open", "amc": "after the close", "dmh": "in the session"}


@dataclass(frozen=True, slots=True)
class Finnhub:
    """See the module. `since`, `until`: the days that are asked for, which `hours` must reach."""

    fetch: Fetch
    token: str
    since: date
    until: date
    hours: Hours
    url: str = URL
    name: str = "finnhub"
    rank: int = RANK_VENDOR

    def read(self) -> Sequence[Event]:
        query = {"from": self.since.isoformat(), "to": self.until.isoformat(), "token": self.token}
        rows = listed(json_of(self.fetch(f"{self.url}?{urlencode(query)}")), "earningsCalendar")
        found: dict[str, Event] = {}
        for row in rows:
            event = _event(row, self.hours)
            found[event.event_id] = event
        return whole(list(found.values()))


def _event(row: dict[str, Any], hours: Hours) -> Event:
    symbol, day = str(row.get("symbol") or ""), day_of(row.get("date"))
    if not symbol:
        raise SourceError(f"earnings on {day} of no symbol")
    hour = str(row.get("hour") or "").casefold()
    try:
        earliest_us, latest_us = hours.span(day, hour)
    except ValueError as error:
        raise SourceError(f"{symbol}: {error}") from error
    quarter = f"{row.get('year')}q{row.get('quarter')}" if row.get("year") and row.get("quarter") else day.isoformat()
    return Event(
        event_id=f"finnhub:earnings:{symbol}:{quarter}",
        event_type="earnings",
        name=f"{symbol} earnings{', ' + _HOURS[hour] if hour in _HOURS else ''}",
        earliest_us=earliest_us,
        latest_us=latest_us,
        date=day.isoformat(),
        symbols=(symbol,),
        source="finnhub",
        uncertain=hour not in _HOURS,
    )
