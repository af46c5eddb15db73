"""Calendars from files: a TOML of one's own (and the shipped one, of the same shape), iCalendar files and URLs.

A TOML says where its dates come from and in which zone their hours are; each [[event]] has a type, a name and a date,
or the dates of several of its kind. A mistake in one refuses the file whole and names the place.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.events import DEFAULT_TYPE, MINUTE_US, RANK_FILE, RANK_OFFICIAL_FILE, RANK_VENDOR, Event
from gateway.market.events.bls import KINDS as RELEASES
from gateway.market.events.hours import Hours
from gateway.market.events.ics import Entry, entries
from gateway.market.events.source import EASTERN, Fetch, Kind, SourceError, all_day, at, kind_in, whole

SHIPPED = "shipped"
"""The name of the calendar that comes with the gateway."""

SHIPPED_FILE = "events/us_macro.toml"

CLOSED_MAX = timedelta(days=4)
"""No market is closed for longer, but in a crisis."""

KEYS = frozenset({"id", "type", "name", "date", "dates", "time", "hour", "symbols", "cancelled"})
POLICY_KEYS = frozenset({"before_minutes", "after_minutes", "factor", "gap"})
HOURS = ("bmo", "amc", "dmh", "")

KINDS = (*RELEASES, ("fomc minutes", Kind("fomc_minutes", "")), ("fomc", Kind("fomc", "")))
"""By the words of a title in an iCalendar file."""


@dataclass(frozen=True, slots=True)
class TomlFile:
    """See the module. `hours`: for events with an `hour` and no time."""

    path: Path
    hours: Hours
    name: str
    rank: int = RANK_FILE

    def read(self) -> Sequence[Event]:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{self.path.name} can't be read: {error}") from error
        return toml_events(text, self.name, self.hours)


@dataclass(frozen=True, slots=True)
class Shipped:
    """The calendar that comes with the gateway: dates that were published by who makes the events."""

    hours: Hours
    name: str = SHIPPED
    rank: int = RANK_OFFICIAL_FILE

    def read(self) -> Sequence[Event]:
        text = resources.files("gateway").joinpath(SHIPPED_FILE).read_text(encoding="utf-8")
        return toml_events(text, self.name, self.hours)


@dataclass(frozen=True, slots=True)
class IcsFile:
    """An iCalendar file."""

    path: Path
    name: str
    zone: ZoneInfo = EASTERN
    rank: int = RANK_FILE

    def read(self) -> Sequence[Event]:
        try:
            body = self.path.read_bytes()
        except OSError as error:
            raise SourceError(f"{self.path.name} can't be read: {error.strerror}") from error
        return whole([_of_entry(entry, self.name) for entry in entries(body, self.zone)])


@dataclass(frozen=True, slots=True)
class IcsUrl:
    """An iCalendar that somebody serves."""

    fetch: Fetch
    url: str
    name: str
    zone: ZoneInfo = EASTERN
    rank: int = RANK_VENDOR

    def read(self) -> Sequence[Event]:
        return whole([_of_entry(entry, self.name) for entry in entries(self.fetch(self.url), self.zone)])


def _of_entry(entry: Entry, source: str) -> Event:
    kind = kind_in(entry.summary, KINDS)
    event_type = kind.event_type if kind is not None else DEFAULT_TYPE
    return Event(
        event_id=f"{source}:{entry.uid or f'{event_type}:{entry.date}:{entry.summary[:60]}'}"[:128],
        event_type=event_type,
        name=entry.summary[:200] or event_type,
        earliest_us=entry.earliest_us,
        latest_us=entry.latest_us,
        date=entry.date.isoformat(),
        source=source,
        uncertain=entry.uncertain,
        cancelled=entry.cancelled,
    )


def toml_events(text: str, source: str, hours: Hours) -> Sequence[Event]:
    """The events of a TOML calendar. Raises SourceError, which names the event at fault by its place in the file."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"no valid TOML: {error}") from error
    unknown = set(table) - {"source", "zone", "official", "event"}
    if unknown:
        raise SourceError(f"unknown key {min(unknown)!r}, expected source, zone, official and [[event]]")
    try:
        zone = ZoneInfo(str(table.get("zone", "America/New_York")))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SourceError(f"zone: unknown zone {table.get('zone')!r}") from error
    rows = table.get("event", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError("event: expected [[event]] tables")
    found: dict[str, Event] = {}
    for place, row in enumerate(rows):
        try:
            for event in _events(row, source, zone, bool(table.get("official", False)), hours):
                if event.event_id in found:
                    raise ValueError(f"a second event of the id {event.event_id!r}; give it an `id`")
                found[event.event_id] = event
        except (ValueError, TypeError) as error:
            raise SourceError(f"event[{place}]: {error}") from error
    return whole(list(found.values()))


def _events(row: dict[str, Any], source: str, zone: ZoneInfo, official: bool, hours: Hours) -> list[Event]:
    unknown = set(row) - KEYS - POLICY_KEYS
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}, known are {', '.join(sorted(KEYS | POLICY_KEYS))}")
    days = row.get("dates", [row["date"]] if "date" in row else [])
    if not days or not all(type(day) is date for day in days):
        raise ValueError("expected a `date` such as 2026-12-09, or a list of `dates`")
    event_type, symbols = str(row.get("type", "")), tuple(row.get("symbols", ()))
    if not all(isinstance(symbol, str) and symbol for symbol in symbols):
        raise ValueError("symbols: expected a list of names")
    own = str(row.get("id", "")) or ":".join((source, event_type, *symbols))
    return [
        Event(
            event_id=own if "id" in row and len(days) == 1 else f"{own}:{day}",
            event_type=event_type,
            name=str(row.get("name", "")) or event_type,
            earliest_us=span[0],
            latest_us=span[1],
            date=day.isoformat(),
            symbols=symbols,
            source=source,
            official=official,
            cancelled=bool(row.get("cancelled", False)),
            uncertain="time" not in row and row.get("hour", "") == "",
            before_us=_minutes(row, "before_minutes"),
            after_us=_minutes(row, "after_minutes"),
            factor=row.get("factor"),
            gap=row.get("gap"),
        )
        for day in days
        for span in [_span(row, day, zone, event_type, hours)]
    ]


def _span(row: dict[str, Any], day: date, zone: ZoneInfo, event_type: str, hours: Hours) -> tuple[int, int]:
    moment, hour = row.get("time"), row.get("hour", "")
    if moment is not None:
        if not isinstance(moment, time):
            raise ValueError(f"time: expected a local time such as 14:00:00, got {moment!r}")
        return (at(day, moment, zone),) * 2
    if hour not in HOURS:
        raise ValueError(f"hour: expected bmo, amc or dmh, got {hour!r}")
    if not hour and event_type != "earnings":
        return all_day(day, zone)
    try:
        return hours.span(day, hour)
    except ValueError:  # longer ago or further ahead than sessions are known: no reason to refuse the others
        return all_day(day - CLOSED_MAX, zone)[0], all_day(day + CLOSED_MAX, zone)[1]


def _minutes(row: dict[str, Any], key: str) -> int | None:
    return round(float(row[key]) * MINUTE_US) if key in row else None
