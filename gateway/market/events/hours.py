"""When a market opens and closes, for events that a calendar puts before, after or between: instants, nothing else.

Sessions come from a calendar of exchange-calendars by name. Where that is not installed every weekday that is no given
holiday counts; a holiday that is not given would let a window begin a session late, so that a window then begins at the
close of a session more before.
"""

import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from zoneinfo import ZoneInfo

from gateway.market.events.source import EASTERN, at, micros

SESSIONS_BEFORE, SESSIONS_AFTER = timedelta(days=40), timedelta(days=400)


@dataclass(frozen=True, slots=True)
class Hours:
    """Sessions of a market, oldest first, as (date, open, close)."""

    sessions: Sequence[tuple[date, int, int]]
    certain: bool = True
    """Whether holidays are known."""

    def span(self, day: date, hour: str) -> tuple[int, int]:
        """From and to which instant something happens that a calendar puts on a day `bmo` (before the open), `amc`
        (after the close), `dmh` (in the session) or anywhere: then from the close before to the open after. Raises
        ValueError where the sessions don't reach the day."""
        place = bisect.bisect_left(self.sessions, (day, 0, 0))
        back = 1 if self.certain else 2
        if not back <= place < len(self.sessions) - back:
            raise ValueError(f"{day}: expected a day within the known sessions")
        is_session = self.sessions[place][0] == day
        _, opens, closes = self.sessions[place]
        before = self.sessions[place - back][2]
        after = self.sessions[place + (back if is_session else back - 1)][1]
        if hour == "bmo":
            return before, opens
        if not is_session or hour not in ("amc", "dmh"):
            return before, after
        return (closes, after) if hour == "amc" else (opens, closes)


def weekdays(
    today: date,
    opens: time = time(9, 30),
    closes: time = time(16, 0),
    zone: ZoneInfo = EASTERN,
    holidays: Collection[date] = (),
) -> Hours:
    """Every weekday around today but for the holidays, which are all known where any is given."""
    first, days = today - SESSIONS_BEFORE, (SESSIONS_BEFORE + SESSIONS_AFTER).days
    dates = [first + timedelta(days=ahead) for ahead in range(days)]
    held = [day for day in dates if day.weekday() < 5 and day not in holidays]
    return Hours([(day, at(day, opens, zone), at(day, closes, zone)) for day in held], certain=bool(holidays))


def exchange(today: date, name: str) -> Hours:
    """The sessions of an exchange by its code, XNYS for instance, half days and holidays as they are. Raises
    ModuleNotFoundError where exchange-calendars is not installed, ValueError where it knows no such exchange."""
    import exchange_calendars  # slow to import: the worker's

    try:
        calendar = exchange_calendars.get_calendar(
            name, start=today - SESSIONS_BEFORE, end=today + SESSIONS_AFTER - timedelta(days=60)
        )
    except exchange_calendars.errors.CalendarError as error:
        raise ValueError(f"calendar: {error}") from error
    return Hours(
        [
            (day.date(), micros(calendar.session_open(day)), micros(calendar.session_close(day)))
            for day in calendar.sessions
        ]
    )


def hours_of(today: date, name: str, holidays: Collection[date] = ()) -> Hours:
    """The exchange's sessions where they are to be had, else weekdays. Raises ValueError on an unknown exchange."""
    try:
        return exchange(today, name)
    except ModuleNotFoundError:
        return weekdays(today, holidays=holidays)
