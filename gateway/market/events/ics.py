"""iCalendar (RFC 5545), as far as calendars of events need it: unfolded lines, an event's own properties, its instant.

Only VEVENTs are read, without recurrence and alarms. A TZID that is no zone's name, which calendars have of their own
making, is taken for the zone that its last words name, or for the source's; what is only a date is a whole day.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.market.events.source import SourceError, all_day, micros

_ESCAPED = re.compile(r"\\([\\;,nN])")
_ZONES = {"us-eastern": "America/New_York", "eastern standard time": "America/New_York", "us/eastern": "US/Eastern"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A VEVENT."""

    uid: str
    summary: str
    earliest_us: int
    latest_us: int
    date: date
    uncertain: bool
    cancelled: bool


def entries(body: bytes, zone: ZoneInfo) -> list[Entry]:
    """The events of a calendar; times without a zone are in `zone`. Raises SourceError on none, or one cut off."""
    text = body.decode("utf-8-sig", errors="replace")
    lines = re.sub(r"(\r\n|\n|\r)[ \t]", "", text)
    rows = [line for line in re.split(r"\r\n|\n|\r", lines) if line]
    if not rows or rows[0].strip().upper() != "BEGIN:VCALENDAR":
        raise SourceError("expected an iCalendar file")
    if rows[-1].strip().upper() != "END:VCALENDAR":
        raise SourceError("the calendar is cut off")
    return [_entry(properties, zone) for properties in _events(rows)]


def _events(rows: list[str]) -> Iterator[Mapping[str, tuple[str, str]]]:
    """Of each VEVENT its own properties: name to (parameters, value)."""
    nested: list[str] = []
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        name, parameters, value = _property(row)
        if name == "BEGIN":
            nested.append(value.upper())
            if nested[-1] == "VEVENT":
                found = {}
        elif name == "END":
            if not nested or nested.pop() != value.upper():
                raise SourceError(f"the calendar's parts don't nest at END:{value}")
            if value.upper() == "VEVENT":
                yield found
        elif nested and nested[-1] == "VEVENT":
            found.setdefault(name, (parameters, value))


def _property(row: str) -> tuple[str, str, str]:
    """Name, parameters, value: the value starts at the first colon outside of quotes."""
    quoted = False
    for place, character in enumerate(row):
        quoted ^= character == '"'
        if character == ":" and not quoted:
            name, _, parameters = row[:place].partition(";")
            return name.upper(), parameters, row[place + 1 :]
    return row.upper(), "", ""


def _entry(properties: Mapping[str, tuple[str, str]], zone: ZoneInfo) -> Entry:
    parameters, value = properties.get("DTSTART", ("", ""))
    summary = _ESCAPED.sub(lambda match: " " if match[1] in "nN" else match[1], properties.get("SUMMARY", ("", ""))[1])
    cancelled = properties.get("STATUS", ("", ""))[1].strip().upper() == "CANCELLED"
    uid = properties.get("UID", ("", ""))[1].strip()
    try:
        if re.fullmatch(r"\d{8}", value):
            day = datetime.strptime(value, "%Y%m%d").date()
            return Entry(uid, summary.strip(), *all_day(day, zone), day, True, cancelled)
        moment = datetime.strptime(value.removesuffix("Z"), "%Y%m%dT%H%M%S")
    except ValueError as error:
        raise SourceError(f"{summary[:60]!r}: a DTSTART {value[:40]!r} can't be read") from error
    moment = moment.replace(tzinfo=UTC if value.endswith("Z") else _zone(parameters, zone))
    instant = micros(moment)
    return Entry(uid, summary.strip(), instant, instant, moment.astimezone(zone).date(), False, cancelled)


def _zone(parameters: str, otherwise: ZoneInfo) -> ZoneInfo:
    found = re.search(r'TZID="?([^";:]+)', parameters)
    told = found[1].strip() if found else ""
    names = (_ZONES.get(told.casefold(), told), "/".join(told.split("/")[-2:]))
    for name in names:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return otherwise
