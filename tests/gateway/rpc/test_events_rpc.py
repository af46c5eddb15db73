"""ListEvents and UpsertEvent over a real server: what is entered stays, what is wrong is named, pages follow."""

from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.events import RANK_OFFICIAL, Event, EventPolicy, Feed, outlook
from gateway.market.events import kept
from gateway.rpc.backend import Backend
from gateway.rpc.convert.events import list_response, listing_of, outlook_message
from riskgateway.v1 import event_pb2, risk_admin_pb2
from tests.gateway.rpc.serving import Served

HOUR = 3_600_000_000


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def fomc(**fields: Any) -> event_pb2.Event:
    told: dict[str, Any] = {
        "event_id": "mine",
        "kind": event_pb2.EVENT_KIND_CENTRAL_BANK,
        "event_type": "fomc",
        "name": "FOMC decision",
        "event_time": moment("2023-11-15T19:00+00:00"),
    }
    return event_pb2.Event(**(told | fields))


async def enter(control: Served, event: event_pb2.Event, reason: str = "desk") -> risk_admin_pb2.UpsertEventResponse:
    return await control.admin.UpsertEvent(risk_admin_pb2.UpsertEventRequest(event=event, reason=reason))


async def listed(control: Served, **fields: Any) -> risk_admin_pb2.ListEventsResponse:
    return await control.admin.ListEvents(risk_admin_pb2.ListEventsRequest(**fields))


async def faults(control: Served, event: event_pb2.Event, reason: str = "desk") -> set[str]:
    """The fields that a refusal names."""
    try:
        await enter(control, event, reason)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # its stubs know no aio calls
        assert status is not None
        named = error_details_pb2.BadRequest()
        for detail in status.details:
            detail.Unpack(named)
        return {violation.field for violation in named.field_violations}
    return set()


async def test_an_entered_event_is_listed_with_its_rule_and_its_tightening(control: Served) -> None:
    told = await enter(control, fomc())
    (found,) = (await listed(control)).events

    assert (told.created, found.source, found.event_type) == (True, "manual", "fomc")
    assert (found.window_before.seconds, found.window_after.seconds) == (7200, 3600)
    assert (found.factor, found.gap, found.date) == (0.5, 0.03, "2023-11-15")
    assert (told.tightening.factor, told.tightening.measure) == (0.5, "")
    assert told.tightening.start_time.ToDatetime() == moment("2023-11-15T17:00+00:00")
    assert told.tightening.end_time.ToDatetime() == moment("2023-11-15T20:00+00:00")


async def test_one_of_the_same_id_is_changed_and_may_be_called_off(control: Served) -> None:
    await enter(control, fomc())
    again = await enter(control, fomc(cancelled=True, factor=0.25))

    assert not again.created and not again.HasField("tightening")
    assert [(one.cancelled, one.factor) for one in (await listed(control)).events] == [(True, 0.25)]


async def test_its_own_window_factor_and_gap_go_before_the_rules(control: Served) -> None:
    event = fomc(factor=0.1, gap=0.5, symbols=["AAPL"], time_uncertain=True)
    event.window_before.FromSeconds(0)
    event.window_after.FromSeconds(60)

    told = await enter(control, event)

    assert told.event.latest_time.ToDatetime() == moment("2023-11-16T19:00+00:00")
    assert (told.event.window_before.seconds, told.event.factor, told.event.gap) == (0, 0.1, 0.5)
    assert told.tightening.symbols == ["AAPL"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"event_id": ""}, {"event.event_id"}),
        ({"name": "x" * 201}, {"event.name"}),
        ({"kind": 0}, {"event.kind"}),
        ({"kind": 99}, {"event.kind"}),
        ({"factor": 1.5}, {"event.factor"}),
        ({"factor": -0.1}, {"event.factor"}),
        ({"factor": float("nan")}, {"event.factor"}),
        ({"gap": 2.0}, {"event.gap"}),
        ({"gap": float("nan")}, {"event.gap"}),
        ({"event_time": None}, {"event.event_time"}),
        ({"latest_time": moment("2023-11-15T18:00+00:00")}, {"event.latest_time"}),
        ({"symbols": [""]}, {"event.symbols[0]"}),
        ({"date": "15.11.2023"}, {"event.date"}),
        ({"event_id": "", "factor": 2.0}, {"event.event_id", "event.factor"}),
    ],
)
async def test_each_field_that_is_wrong_is_named_and_nothing_is_entered(
    control: Served, fields: dict[str, Any], named: set[str]
) -> None:
    assert await faults(control, fomc(**fields)) == named
    assert (await listed(control)).events == []


async def test_a_reason_is_needed_and_no_window_goes_backwards(control: Served) -> None:
    backwards = fomc()
    backwards.window_before.FromSeconds(-1)

    assert await faults(control, fomc(), reason=" ") == {"reason"}
    assert await faults(control, backwards) == {"event.window_before"}


async def test_pages_follow_each_other_and_spans_and_symbols_choose(control: Served) -> None:
    for day in range(16, 21):
        when = moment(f"2023-11-{day}T19:00+00:00")
        await enter(control, fomc(event_id=f"e{day}", event_type=f"t{day}", event_time=when, symbols=[f"S{day}"]))

    first = await listed(control, page_size=3)
    second = await listed(control, page_size=3, page_token=first.next_page_token)
    some = await listed(control, start_time=moment("2023-11-17T00:00+00:00"), end_time=moment("2023-11-18T00:00+00:00"))

    assert [one.event_id for one in (*first.events, *second.events)] == [f"e{day}" for day in range(16, 21)]
    assert (second.next_page_token, [one.event_id for one in some.events]) == ("", ["e17"])
    assert [one.event_id for one in (await listed(control, symbol="S18")).events] == ["e18"]


@pytest.mark.parametrize("fields", [{"page_size": 1_001}, {"page_size": -1}, {"page_token": "next"}])
async def test_what_can_not_be_a_page_is_refused(control: Served, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await listed(control, **fields)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_sources_stand_beside_the_events_with_what_went_wrong(backend: Backend) -> None:
    at_us = 1_700_000_000_000_000
    event = Event("bls:cpi", "cpi", "CPI", at_us + HOUR, at_us + HOUR, "2023-11-14", source="bls", official=True)
    await kept.keep(backend.log.bulletin, Feed("bls", RANK_OFFICIAL, (event,), at_us).failed("answered 429", at_us))
    found = await kept.calendar(backend.log.bulletin, [("bls", RANK_OFFICIAL), ("fed", RANK_OFFICIAL)])
    later_us = at_us + 3 * 24 * HOUR

    told = list_response(found, EventPolicy(), listing_of(risk_admin_pb2.ListEventsRequest(), at_us), later_us)

    assert [(one.source, one.stale, one.message) for one in told.sources] == [
        ("bls", True, "answered 429"),
        ("fed", True, "never read"),
    ]
    assert told.events[0].official
    assert told.outlook.risk_level == "HIGH"


def test_the_outlook_is_told_as_it_is() -> None:
    at_us = 1_700_000_000_000_000
    event = Event("e", "earnings", "AAPL", at_us, at_us + HOUR, "2023-11-14", ("AAPL",), source="f", uncertain=True)

    told = outlook_message(outlook([event], [], EventPolicy(), at_us, ["AAPL"]))

    (coming,) = told.upcoming_events
    assert (coming.symbol, coming.event_type, coming.date, coming.days_until, coming.action) == (
        "AAPL",
        "earnings",
        "2023-11-14",
        0,
        "BLOCK_NEW_ENTRIES",
    )
    assert (told.risk_level, told.recommended_action, coming.time_uncertain) == ("HIGH", "BLOCK_NEW_ENTRIES", True)
