"""What a source of events is, and how one is fetched over HTTP.

A source turns what it reads into `Event`s with instants, or raises SourceError: half a calendar is none, and an empty
one is taken for a failure, since no source of ours is ever without events. It keeps nothing and knows nothing of other
sources. Reading blocks: it is done in a thread.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from engine.events import Event

EASTERN = ZoneInfo("America/New_York")

TIMEOUT_S = 20.0
BYTES_MAX = 16 * 1024 * 1024
"""Of one answer: a year of all companies' earnings is about 2 MB."""

USER_AGENT = "risk-gateway/0.1 (event calendar; contact: the operator of this service)"
"""BLS and others refuse what calls itself a library."""


class SourceError(Exception):
    """A source could not be read whole. `retry_after_s`: how long it asked to be left alone."""

    def __init__(self, problem: str, retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class Source(Protocol):
    """A calendar. `rank`: whose word counts (engine.events.RANK_…)."""

    @property
    def name(self) -> str: ...

    @property
    def rank(self) -> int: ...

    def read(self) -> Sequence[Event]:
        """All that it lists. Raises SourceError."""
        ...


Fetch = Callable[[str], bytes]
"""What is at a URL. Raises SourceError."""


def fetch(url: str, timeout_s: float = TIMEOUT_S, bytes_max: int = BYTES_MAX) -> bytes:
    """The body of an answer 200. Raises SourceError, which names host and status and never the query: it holds keys."""
    where = urllib.parse.urlsplit(url).hostname or "?"
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, "Accept": "*/*"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            body: bytes = answer.read(bytes_max + 1)
    except urllib.error.HTTPError as error:
        waits = error.headers.get("Retry-After", "") if error.headers is not None else ""
        raise SourceError(f"{where} answered {error.code} {error.reason}", _seconds(waits)) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{where} can't be read: {getattr(error, 'reason', error)}") from error
    if len(body) > bytes_max:
        raise SourceError(f"{where} sent more than {bytes_max:,} bytes")
    return body


def _seconds(told: str) -> float:
    """Of a Retry-After in seconds; one that is a date, or none, is no wish."""
    return float(told) if told.isdecimal() else 0.0


def json_of(body: bytes) -> Any:
    """Raises SourceError on what is no JSON, cut off for instance. A byte order mark is none of its content."""
    try:
        return json.loads(body.decode("utf-8-sig"))
    except ValueError as error:
        raise SourceError(f"no JSON: {error}") from error


def listed(table: Any, key: str) -> list[dict[str, Any]]:
    """The objects in a list of an object. Raises SourceError where there is no such list, or nothing in it."""
    found = table.get(key) if isinstance(table, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise SourceError(f"expected a list {key!r} of objects")
    if not found:
        raise SourceError(f"the list {key!r} is empty")
    return found


def whole(events: Sequence[Event]) -> Sequence[Event]:
    """Raises SourceError where there are none."""
    if not events:
        raise SourceError("it lists no events that are known to this release")
    return events


def micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def at(day: date, hour: time, zone: ZoneInfo = EASTERN) -> int:
    """An hour of a day where it happens, in microseconds since the epoch."""
    return micros(datetime.combine(day, hour, zone))


def all_day(day: date, zone: ZoneInfo = EASTERN) -> tuple[int, int]:
    """A day where it happens, from its start to that of the next."""
    return at(day, time(0), zone), at(day + timedelta(days=1), time(0), zone)


def day_of(text: Any) -> date:
    """Of an ISO date. Raises SourceError."""
    try:
        return date.fromisoformat(str(text))
    except ValueError as error:
        raise SourceError(f"expected a date YYYY-MM-DD, got {str(text)[:40]!r}") from error


@dataclass(frozen=True, slots=True)
class Kind:
    """What a source calls a kind of event, and what it is called here."""

    event_type: str
    name: str


def kind_in(title: str, kinds: Sequence[tuple[str, Kind]]) -> Kind | None:
    """The first whose words are in a title, whatever their case."""
    lower = title.casefold()
    return next((kind for words, kind in kinds if words in lower), None)
