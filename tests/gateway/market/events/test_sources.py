"""The sources of events, each against a local HTTP server with the shapes that its feed sends, and files.

Instants are told in UTC. A source gives all that it lists, or raises SourceError: there is no half calendar.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from engine.events import RANK_FILE, RANK_OFFICIAL, RANK_OFFICIAL_FILE, RANK_VENDOR, Event, EventPolicy, Feed, merged
from gateway.config import EventSettings
from gateway.market.events.bea import Bea
from gateway.market.events.bls import Bls
from gateway.market.events.fed import Fed
from gateway.market.events.files import IcsFile, IcsUrl, Shipped, TomlFile, toml_events
from gateway.market.events.finnhub import Finnhub
from gateway.market.events.fred import RELEASES, Fred
from gateway.market.events.hours import Hours, exchange, weekdays
from gateway.market.events.source import Source, SourceError, at, fetch
from gateway.market.events.sources import Sources, rank_of, ranks_of
from tests.gateway.market.events.feeding import Feeder, feeding

TODAY = date(2026, 7, 20)
HOURS = weekdays(TODAY, holidays=[date(2026, 9, 7)])
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def feeder() -> Iterator[Feeder]:
    with feeding() as running:
        yield running


def utc(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros / 1e6, UTC):%Y-%m-%d %H:%M}"


def told(events: Any) -> list[tuple[str, str, str, str]]:
    """Type, date, from and to."""
    return [(one.event_type, one.date, utc(one.earliest_us), utc(one.latest_us)) for one in events]


# --- Fed ----------------------------------------------------------------------------------------------------------


def fed_row(title: str, month: str, days: str, hour: str = "2:00 p.m.", kind: str = "FOMC") -> dict[str, str]:
    return {"title": title, "time": hour, "month": month, "days": days, "type": kind, "description": "Meeting"}


def fed(feeder: Feeder, *rows: dict[str, str]) -> list[Event]:
    feeder.body = BOM + json.dumps({"events": rows}).encode()
    return list(Fed(fetch, feeder.url).read())


def test_a_two_day_meetings_decision_is_on_its_last_day_at_two_eastern(feeder: Feeder) -> None:
    found = fed(
        feeder,
        fed_row("FOMC Meeting &mdash; Two-day meeting", "2026-10", "27, 28"),
        fed_row("FOMC Minutes", "2026-11", "18"),
        fed_row("FOMC Meeting", "2027-01", "26-27", hour=""),
        fed_row("H.4.1 release", "2026-10", "29", kind="Statistical release"),
    )

    assert told(found) == [
        ("fomc", "2026-10-28", "2026-10-28 18:00", "2026-10-28 18:00"),
        ("fomc_minutes", "2026-11-18", "2026-11-18 19:00", "2026-11-18 19:00"),
        ("fomc", "2027-01-27", "2027-01-27 19:00", "2027-01-27 19:00"),
    ]
    assert found[0].name == "FOMC Meeting — Two-day meeting"
    assert (found[0].source, found[0].official) == ("fed", True)


def test_a_meeting_over_the_end_of_a_month_ends_in_the_next(feeder: Feeder) -> None:
    assert told(fed(feeder, fed_row("FOMC Meeting", "2026-12", "31, 1")))[0][1] == "2027-01-01"


def test_a_speaker_without_an_hour_speaks_some_time_that_day(feeder: Feeder) -> None:
    (found,) = fed(feeder, fed_row("Speech &#8212; Governor A", "2026-10", "5", hour="", kind="Speeches"))

    assert told([found]) == [("fed_speaker", "2026-10-05", "2026-10-05 04:00", "2026-10-06 04:00")]
    assert found.uncertain


def test_a_meeting_that_is_moved_keeps_its_id(feeder: Feeder) -> None:
    (before,) = fed(feeder, fed_row("FOMC Meeting", "2026-10", "27, 28"))
    (after,) = fed(feeder, fed_row("FOMC Meeting", "2026-10", "28, 29"))

    read = Feed("fed", RANK_OFFICIAL, (before,), 1).read([after], 2)
    assert [(one.event_id, one.date) for one in read.events] == [(before.event_id, "2026-10-29")]


# --- BLS, and iCalendars ----------------------------------------------------------------------------------------------


def ics(*events: str) -> bytes:
    body = "".join(f"BEGIN:VEVENT\r\n{event}\r\nEND:VEVENT\r\n" for event in events)
    standard = "BEGIN:STANDARD\r\nDTSTART:19701101T020000\r\nEND:STANDARD"
    zone = f"BEGIN:VTIMEZONE\r\nTZID:US-Eastern\r\n{standard}\r\nEND:VTIMEZONE"
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{zone}\r\n{body}END:VCALENDAR\r\n".encode()


CPI = "UID:a\r\nDTSTART;TZID=US-Eastern:20260812T083000\r\nSUMMARY:Consumer Price Ind\r\n ex"


def bls(feeder: Feeder, *events: str) -> list[Event]:
    feeder.body = ics(*events)
    return list(Bls(fetch, feeder.url).read())


def test_folded_lines_and_zones_of_the_bureaus_own_are_read(feeder: Feeder) -> None:
    found = bls(
        feeder,
        CPI,
        "UID:b\r\nDTSTART;TZID=US-Eastern:20261204T083000\r\nSUMMARY:Employment Situation",
        "UID:c\r\nDTSTART;TZID=US-Eastern:20260820T100000\r\nSUMMARY:Real Earnings",
        "UID:d\r\nDTSTART;TZID=US-Eastern:20260820T100000\r\nSUMMARY:Metropolitan Area Employment Situation",
    )

    assert told(found) == [
        ("cpi", "2026-08-12", "2026-08-12 12:30", "2026-08-12 12:30"),
        ("nfp", "2026-12-04", "2026-12-04 13:30", "2026-12-04 13:30"),
    ]
    assert "python" not in feeder.agents[0].casefold()


@pytest.mark.parametrize(
    ("start", "instant"),
    [
        ("DTSTART:20260812T123000Z", "2026-08-12 12:30"),
        ("DTSTART:20260812T083000", "2026-08-12 12:30"),
        ("DTSTART;TZID=Nowhere/Unheard-of:20260812T083000", "2026-08-12 12:30"),
        ('DTSTART;TZID="Eastern Standard Time":20260812T083000', "2026-08-12 12:30"),
        ("DTSTART;TZID=/freeassociation.sourceforge.net/America/Chicago:20260812T073000", "2026-08-12 12:30"),
        ("DTSTART;TZID=Europe/Berlin:20260812T143000", "2026-08-12 12:30"),
    ],
)
def test_an_instant_is_found_whatever_the_zone_is_called(feeder: Feeder, start: str, instant: str) -> None:
    (found,) = bls(feeder, f"{start}\r\nSUMMARY:Consumer Price Index")

    assert utc(found.earliest_us) == instant


def test_a_day_without_an_hour_is_the_whole_day_and_an_event_called_off_is_cancelled(feeder: Feeder) -> None:
    (found,) = bls(feeder, "DTSTART;VALUE=DATE:20260812\r\nSTATUS:CANCELLED\r\nSUMMARY:Consumer Price Index")

    assert told([found]) == [("cpi", "2026-08-12", "2026-08-12 04:00", "2026-08-13 04:00")]
    assert (found.uncertain, found.cancelled) == (True, True)


def test_an_alarm_within_an_event_moves_it_not(feeder: Feeder) -> None:
    alarm = "BEGIN:VALARM\r\nDTSTART:20300101T000000Z\r\nSUMMARY:Alarm\r\nEND:VALARM"

    assert told(bls(feeder, f"{alarm}\r\n{CPI}"))[0][:2] == ("cpi", "2026-08-12")


def test_a_text_that_holds_a_colon_or_a_comma_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "own.ics"
    path.write_bytes(BOM + ics('UID:x\r\nDTSTART:20260812T123000Z\r\nSUMMARY;X="a:b":OPEC\\, Vienna: day 1'))

    (found,) = IcsFile(path, "own.ics").read()
    assert (found.name, found.event_type, found.event_id) == ("OPEC, Vienna: day 1", "macro", "own.ics:x")


def test_an_icalendar_is_served_too(feeder: Feeder) -> None:
    feeder.body = ics(CPI, "UID:y\r\nDTSTART:20260916T180000Z\r\nSUMMARY:FOMC Statement")

    assert [one.event_type for one in IcsUrl(fetch, feeder.url, "their").read()] == ["cpi", "fomc"]


# --- BEA, FRED, Finnhub -----------------------------------------------------------------------------------------------


def test_the_nations_releases_are_taken_once_each(feeder: Feeder) -> None:
    dates = ["2026-08-26T12:30:00+00:00", "2026-08-26T12:30:00+00:00", "2026-09-30T08:30:00-04:00"]
    feeder.body = json.dumps(
        {"Gross Domestic Product": {"release_dates": dates}, "GDP by State": {"release_dates": dates}, "note": "x"}
    ).encode()

    assert told(Bea(fetch, feeder.url).read()) == [
        ("gdp", "2026-08-26", "2026-08-26 12:30", "2026-08-26 12:30"),
        ("gdp", "2026-09-30", "2026-09-30 12:30", "2026-09-30 12:30"),
    ]


def test_freds_dates_have_no_hour_and_its_key_is_in_the_query_alone(feeder: Feeder) -> None:
    feeder.body = b'{"release_dates":[{"release_id":10,"date":"2026-08-12"},{"release_id":10,"date":"2026-01-14"}]}'

    found = Fred(fetch, "secret", TODAY, feeder.url).read()

    assert told(found)[0] == ("cpi", "2026-08-12", "2026-08-12 04:00", "2026-08-13 04:00")
    assert {one.event_type for one in found} == {"cpi", "nfp", "ppi", "gdp", "pce"}
    assert all(one.uncertain and not one.official for one in found)
    assert "release_id=10&" in feeder.asked[0] and "include_release_dates_with_no_data=true" in feeder.asked[0]
    feeder.status = 403
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 answered 403") as refused:
        Fred(fetch, "secret", TODAY, feeder.url).read()
    assert "secret" not in str(refused.value)


def finnhub(feeder: Feeder, *rows: dict[str, Any], hours: Hours = HOURS) -> list[Event]:
    feeder.body = json.dumps({"earningsCalendar": rows}).encode()
    return list(Finnhub(fetch, "secret", TODAY, date(2026, 8, 20), hours, feeder.url).read())


def row(day: str, hour: str | None, symbol: str = "AAPL") -> dict[str, Any]:
    return {"date": day, "hour": hour, "symbol": symbol, "quarter": 3, "year": 2026, "epsEstimate": 1.5}


@pytest.mark.parametrize(
    ("hour", "since", "until"),
    [
        ("bmo", "2026-07-29 20:00", "2026-07-30 13:30"),  # from the close before
        ("amc", "2026-07-30 20:00", "2026-07-31 13:30"),  # from that day's
        ("dmh", "2026-07-30 13:30", "2026-07-30 20:00"),
        ("", "2026-07-29 20:00", "2026-07-31 13:30"),  # both
        (None, "2026-07-29 20:00", "2026-07-31 13:30"),
        ("later", "2026-07-29 20:00", "2026-07-31 13:30"),
    ],
)
def test_earnings_are_between_a_close_and_an_open(feeder: Feeder, hour: str | None, since: str, until: str) -> None:
    (found,) = finnhub(feeder, row("2026-07-30", hour))

    assert told([found]) == [("earnings", "2026-07-30", since, until)]
    assert (found.symbols, found.uncertain) == (("AAPL",), hour not in ("bmo", "amc", "dmh"))


def test_earnings_over_a_weekend_and_a_holiday_begin_at_the_last_close(feeder: Feeder) -> None:
    after_labour_day, on_saturday = finnhub(feeder, row("2026-09-08", "bmo", "A"), row("2026-08-01", "amc", "B"))

    assert told([after_labour_day, on_saturday]) == [
        ("earnings", "2026-09-08", "2026-09-04 20:00", "2026-09-08 13:30"),
        ("earnings", "2026-08-01", "2026-07-31 20:00", "2026-08-03 13:30"),
    ]


def test_where_holidays_are_not_known_a_session_more_is_reckoned_with(feeder: Feeder) -> None:
    (found,) = finnhub(feeder, row("2026-09-08", "bmo"), hours=weekdays(TODAY))

    assert utc(found.earliest_us) == "2026-09-04 20:00"  # and not Labour Day's


def test_a_quarters_earnings_keep_their_id_when_they_move(feeder: Feeder) -> None:
    (before,), (after,) = finnhub(feeder, row("2026-07-30", "amc")), finnhub(feeder, row("2026-07-31", ""))

    assert before.event_id == after.event_id


# --- what goes wrong --------------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[str], Source]] = {
    "fed": lambda url: Fed(fetch, url),
    "bls": lambda url: Bls(fetch, url),
    "bea": lambda url: Bea(fetch, url),
    "fred": lambda url: Fred(fetch, "k", TODAY, url),
    "finnhub": lambda url: Finnhub(fetch, "k", TODAY, TODAY, HOURS, url),
    "ics": lambda url: IcsUrl(fetch, url, "ics"),
}
GOOD = {
    "fed": json.dumps({"events": [fed_row("FOMC Meeting", "2026-10", "28")]}).encode(),
    "bls": ics(CPI),
    "bea": b'{"Gross Domestic Product":{"release_dates":["2026-08-26T12:30:00+00:00"]}}',
    "fred": b'{"release_dates":[{"release_id":10,"date":"2026-08-12"}]}',
    "finnhub": json.dumps({"earningsCalendar": [row("2026-07-30", "amc")]}).encode(),
    "ics": ics(CPI),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_no_content(feeder: Feeder, name: str) -> None:
    feeder.body = BOM + GOOD[name]

    assert READERS[name](feeder.url).read()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("status", [403, 404, 429, 500])
def test_a_refusal_is_an_error_that_names_it(feeder: Feeder, name: str, status: int) -> None:
    feeder.status, feeder.body, feeder.headers = status, GOOD[name], {"Retry-After": "120"}

    with pytest.raises(SourceError, match=f"127.0.0.1 answered {status}") as refused:
        READERS[name](feeder.url).read()
    assert refused.value.retry_after_s == 120.0


@pytest.mark.parametrize("name", READERS)
def test_what_is_cut_off_anywhere_is_no_calendar(feeder: Feeder, name: str) -> None:
    for length in range(0, len(GOOD[name]) - 2, 7):
        feeder.body = GOOD[name][:length]
        with pytest.raises(SourceError):
            READERS[name](feeder.url).read()


def test_a_calendar_that_ends_between_two_events_is_cut_off(feeder: Feeder) -> None:
    whole = ics(CPI, "UID:b\r\nDTSTART;TZID=US-Eastern:20261204T083000\r\nSUMMARY:Employment Situation")
    feeder.body = whole[: whole.index(b"END:VEVENT") + len(b"END:VEVENT\r\n")]

    with pytest.raises(SourceError, match="cut off"):
        Bls(fetch, feeder.url).read()


def test_a_vendor_that_lacks_one_release_is_not_read() -> None:
    def answer(url: str) -> bytes:
        return b'{"release_dates":[]}' if "release_id=50" in url else GOOD["fred"]

    with pytest.raises(SourceError, match="'release_dates' is empty"):
        Fred(answer, "k", TODAY).read()


EMPTY = [
    ("fed", b'{"events":[]}'),
    ("bls", ics()),
    ("bea", b"{}"),
    ("fred", b'{"release_dates":[]}'),
    ("finnhub", b'{"earningsCalendar":[]}'),
    ("finnhub", b'{"earningsCalendar":null}'),
    ("ics", ics()),
    ("fed", b"[]"),
    ("bea", b'{"Gross Domestic Product":{"release_dates":["soon"]}}'),
    ("fred", b'{"release_dates":[{"date":"14 January"}]}'),
    ("finnhub", b'{"earningsCalendar":[{"date":"2026-07-30","hour":"amc"}]}'),
    ("fed", b'{"events":[{"title":"FOMC Meeting","month":"2026-13","days":"40","type":"FOMC"}]}'),
    ("bls", ics("DTSTART:soon\r\nSUMMARY:Consumer Price Index")),
    ("bls", b"<html>Access Denied</html>"),
]


@pytest.mark.parametrize(("name", "body"), EMPTY)
def test_an_empty_or_senseless_calendar_is_a_failure_and_no_calm(feeder: Feeder, name: str, body: bytes) -> None:
    feeder.body = body

    with pytest.raises(SourceError):
        READERS[name](feeder.url).read()


def test_nobody_there_is_an_error_too() -> None:
    with feeding() as gone:
        url = gone.url
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 can't be read"):
        Fed(fetch, url).read()


def test_more_than_a_calendar_can_be_is_not_read_to_its_end(feeder: Feeder) -> None:
    feeder.body = b"x" * 1_001

    with pytest.raises(SourceError, match="sent more than 1,000 bytes"):
        fetch(feeder.url, bytes_max=1_000)


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_shipped_calendar_holds_the_published_dates() -> None:
    found = Shipped(weekdays(date(2026, 11, 20))).read()
    by_type = {kind: [one for one in found if one.event_type == kind] for kind in ("fomc", "cpi", "nfp")}

    assert {kind: len(events) for kind, events in by_type.items()} == {"fomc": 16, "cpi": 12, "nfp": 12}
    assert sum(map(len, by_type.values())) == len(found)
    assert [utc(one.earliest_us) for one in by_type["fomc"]][7:9] == ["2026-12-09 19:00", "2027-01-27 19:00"]
    assert utc(by_type["cpi"][-1].earliest_us) == "2026-12-10 13:30"
    assert all(one.official and not one.uncertain for one in found)
    assert all(date.fromisoformat(one.date).weekday() == 2 for one in by_type["fomc"])  # Wednesdays


OWN = """
source = "the desk"
zone = "Europe/London"
[[event]]
type = "boe"
name = "Bank of England"
date = 2026-08-06
time = 12:00:00
factor = 0.4
before_minutes = 90
[[event]]
type = "earnings"
symbols = ["AAPL"]
date = 2026-07-30
hour = "amc"
gap = 0.08
[[event]]
type = "opec"
date = 2026-07-30
"""


def test_a_file_of_ones_own_says_when_what_and_how_tight() -> None:
    bank, results, opec = toml_events(OWN, "own.toml", HOURS)

    assert told([bank, results, opec]) == [
        ("boe", "2026-08-06", "2026-08-06 11:00", "2026-08-06 11:00"),
        ("earnings", "2026-07-30", "2026-07-30 20:00", "2026-07-31 13:30"),
        ("opec", "2026-07-30", "2026-07-29 23:00", "2026-07-30 23:00"),
    ]
    assert (bank.factor, bank.before_us, results.gap, opec.uncertain) == (0.4, 5_400_000_000, 0.08, True)


def test_results_beyond_the_known_sessions_are_within_days_of_their_date() -> None:
    (found,) = toml_events("[[event]]\ntype = 'earnings'\nsymbols = ['A']\ndate = 2020-01-15\nhour = 'amc'", "o", HOURS)

    assert told([found]) == [("earnings", "2020-01-15", "2020-01-11 05:00", "2020-01-20 05:00")]


def test_an_exchanges_half_days_and_holidays_are_its_calendars() -> None:
    hours = exchange(date(2026, 11, 20), "XNYS")

    assert [utc(at_us) for at_us in hours.span(date(2026, 11, 30), "bmo")] == ["2026-11-27 18:00", "2026-11-30 14:30"]
    assert [utc(at_us) for at_us in hours.span(date(2026, 11, 26), "")] == ["2026-11-25 21:00", "2026-11-27 14:30"]
    with pytest.raises(ValueError, match="NOPE"):
        exchange(date(2026, 11, 20), "NOPE")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[event]]\ntype = 'x'", r"event\[0\]: expected a `date`"),
        ("[[event]]\ntype = 'x'\ndate = '2026-01-01'", r"event\[0\]: expected a `date`"),
        ("[[event]]\ntype = 'x'\ndate = 2026-01-01\nhuor = 'amc'", r"event\[0\]: unknown key 'huor'"),
        ("[[event]]\ntype = 'x'\ndate = 2026-08-01\nhour = 'noon'", "hour: expected bmo, amc or dmh"),
        ("[[event]]\ntype = 'x'\ndate = 2026-08-01\nfactor = 1.5", "factor: expected a number above 0, at most 1"),
        ("[[event]]\ntype = 'x'\ndate = 2026-08-01\n[[event]]\ntype = 'x'\ndate = 2026-08-01", "give it an `id`"),
        ("[[events]]", "unknown key 'events'"),
        ("zone = 'Mars'", "unknown zone 'Mars'"),
        ("[[event", "no valid TOML"),
        ("", "lists no events"),
    ],
)
def test_a_mistake_in_a_file_is_named_and_nothing_of_it_taken(text: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        toml_events(text, "own.toml", HOURS)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for source in (TomlFile(tmp_path / "a.toml", HOURS, "a.toml"), IcsFile(tmp_path / "a.ics", "a.ics")):
        with pytest.raises(SourceError, match="can't be read"):
            source.read()


# --- all together -----------------------------------------------------------------------------------------------------


def test_the_bureau_moves_the_shipped_date_and_the_vendors(feeder: Feeder) -> None:
    official = bls(feeder, "UID:a\r\nDTSTART;TZID=US-Eastern:20260814T083000\r\nSUMMARY:Consumer Price Index")
    feeder.body = b'{"release_dates":[{"release_id":10,"date":"2026-08-12"}]}'
    fred = Fred(fetch, "k", TODAY, feeder.url)._of(10, RELEASES[10])
    feeds = [
        Feed("fred", RANK_VENDOR, tuple(fred), 1),
        Feed("shipped", RANK_OFFICIAL_FILE, tuple(Shipped(HOURS).read()), 1),
        Feed("bls", RANK_OFFICIAL, tuple(official), 1),
    ]

    of_august = [one for one in merged(feeds) if one.event_type == "cpi" and one.date.startswith("2026-08")]
    assert of_august == official


def test_sources_are_opened_by_name_and_say_what_they_lack(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    names = ("shipped", "fred", str(path), "https://example.org/a.ics")
    settings = EventSettings(sources=names, holidays=(date(2026, 9, 7),))
    sources = Sources(settings, {})

    assert ranks_of(settings) == tuple(
        zip(names, (RANK_OFFICIAL_FILE, RANK_VENDOR, RANK_FILE, RANK_VENDOR), strict=True)
    )
    assert rank_of("bls") == RANK_OFFICIAL
    assert len(sources.open(str(path), TODAY).read()) == 3
    assert sources.open("https://example.org/a.ics", TODAY).name == "https://example.org/a.ics"
    with pytest.raises(SourceError, match="FRED_API_KEY"):
        sources.open("fred", TODAY)
    assert sources.open("shipped", TODAY).read()


def test_the_policy_of_a_file_changes_what_it_names_alone() -> None:
    settings = EventSettings.model_validate(
        {"rules": {"cpi": {"before_minutes": 90, "factor": 0.25, "factors": {"var_99": 0.1}}, "opec": {"block": True}}}
    )

    policy, shipped = settings.policy, EventPolicy()
    assert policy.rules["fomc"] == shipped.rules["fomc"]
    assert (policy.rules["cpi"].before_us, policy.rules["cpi"].after_us) == (5_400_000_000, 1_800_000_000)
    assert (policy.rules["cpi"].factors["leverage"], policy.rules["cpi"].factors["var_99"]) == (0.25, 0.1)
    assert (policy.rules["opec"].block, policy.rules["opec"].factors) == (True, shipped.rules["macro"].factors)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"sources": ["blz"]}, "sources: expected shipped, fed, bls"),
        ({"sources": ["fed", "fed"]}, "must differ"),
        ({"rules": {"cpi": {"factor": 1.5}}}, "less than or equal to 1"),
        ({"rules": {"cpi": {"factors": {"var_98": 0.5}}}}, "unknown measure 'var_98', did you mean 'var_9"),
        ({"urls": {"fde": "http://x"}}, "unknown feed 'fde', did you mean 'fed'"),
        ({"horizon_days": 0.5}, "greater than or equal to 1"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        EventSettings.model_validate(given)


def test_eastern_hours_follow_summer_time() -> None:
    assert [utc(at(date(2026, month, 10), time(8, 30))) for month in (1, 7)] == ["2026-01-10 13:30", "2026-07-10 12:30"]
