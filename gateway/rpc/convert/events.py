"""Events to and from the contract: what an operator enters, what a reader lists, what lies ahead.

What is wrong with an event that comes in is told all at once, field by field. What an event does is engine/events.py's.
"""

import contextlib
from dataclasses import dataclass
from datetime import UTC, date, datetime

from engine.events import (
    DAY_US,
    EXPOSURES,
    MANUAL,
    Event,
    EventOutlook,
    EventPolicy,
    SourceState,
    UpcomingEvent,
    outlook,
    source_state,
)
from gateway.market.events.kept import Calendar
from gateway.rpc.convert.form import SPAN_MAX_US, Form
from gateway.rpc.convert.responses import duration, timestamp
from riskgateway.v1 import event_pb2, limit_pb2, risk_admin_pb2

NAME_CHARS_MAX = 200
SYMBOLS_MAX = 1_000
PAGE_DEFAULT, PAGE_MAX = 100, 1_000

_KINDS = {
    "fomc": event_pb2.EVENT_KIND_CENTRAL_BANK,
    "fomc_minutes": event_pb2.EVENT_KIND_CENTRAL_BANK,
    "fed_speaker": event_pb2.EVENT_KIND_CENTRAL_BANK,
    "central_bank": event_pb2.EVENT_KIND_CENTRAL_BANK,
    "cpi": event_pb2.EVENT_KIND_RELEASE,
    "nfp": event_pb2.EVENT_KIND_RELEASE,
    "ppi": event_pb2.EVENT_KIND_RELEASE,
    "gdp": event_pb2.EVENT_KIND_RELEASE,
    "pce": event_pb2.EVENT_KIND_RELEASE,
    "macro": event_pb2.EVENT_KIND_RELEASE,
    "release": event_pb2.EVENT_KIND_RELEASE,
    "earnings": event_pb2.EVENT_KIND_EARNINGS,
    "market": event_pb2.EVENT_KIND_MARKET,
}
"""By type; any other is of kind OTHER."""

_TYPES: dict[int, str] = {
    event_pb2.EVENT_KIND_CENTRAL_BANK: "central_bank",
    event_pb2.EVENT_KIND_RELEASE: "release",
    event_pb2.EVENT_KIND_EARNINGS: "earnings",
    event_pb2.EVENT_KIND_MARKET: "market",
    event_pb2.EVENT_KIND_OTHER: "other",
}
"""Of an event that comes in without a type of its own."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Which events are asked for."""

    since_us: int
    until_us: int | None
    symbol: str
    size: int
    offset: int


def listing_of(request: risk_admin_pb2.ListEventsRequest, now_us: int) -> Listing:
    """Raises Invalid."""
    form = Form()
    since_us = form.moment("start_time", request.start_time) if request.HasField("start_time") else now_us
    until_us = form.moment("end_time", request.end_time) if request.HasField("end_time") else None
    if until_us is not None and until_us <= since_us:
        form.wrong("end_time", "expected a time after start_time")
    symbol = form.name("symbol", request.symbol, required=False)
    if not 0 <= request.page_size <= PAGE_MAX:
        form.wrong("page_size", f"expected 0 to {PAGE_MAX}, got {request.page_size}")
    offset = 0
    if request.page_token:
        if request.page_token.isdecimal() and len(request.page_token) < 10:
            offset = int(request.page_token)
        else:
            form.wrong("page_token", "expected the next_page_token of the answer before")
    form.done()
    return Listing(since_us, until_us, symbol, request.page_size or PAGE_DEFAULT, offset)


def list_response(
    calendar: Calendar, policy: EventPolicy, listing: Listing, now_us: int
) -> risk_admin_pb2.ListEventsResponse:
    events = calendar.events
    found = [event for event in events if _is_asked_for(event, policy, listing)]
    page = found[listing.offset : listing.offset + listing.size]
    more = len(found) > listing.offset + len(page)
    return risk_admin_pb2.ListEventsResponse(
        events=[event_message(event, policy) for event in page],
        sources=[_source(source_state(feed, now_us, policy)) for feed in calendar.feeds],
        next_page_token=str(listing.offset + len(page)) if more else "",
        outlook=outlook_message(outlook(events, calendar.feeds, policy, now_us, None)),
    )


def _is_asked_for(event: Event, policy: EventPolicy, listing: Listing) -> bool:
    since_us, until_us = policy.window(event)
    if until_us <= listing.since_us or (listing.until_us is not None and since_us >= listing.until_us):
        return False
    return not listing.symbol or not event.symbols or listing.symbol in event.symbols


def event_message(event: Event, policy: EventPolicy) -> event_pb2.Event:
    rule = policy.rule_of(event)
    message = event_pb2.Event(
        event_id=event.event_id,
        kind=_KINDS.get(event.event_type, event_pb2.EVENT_KIND_OTHER),
        name=event.name,
        event_time=timestamp(event.earliest_us),
        time_uncertain=event.uncertain,
        window_before=duration(rule.before_us),
        window_after=duration(rule.after_us),
        symbols=event.symbols,
        factor=min(rule.factors.values(), default=1.0),
        gap=rule.gap,
        source=event.source,
        official=event.official,
        cancelled=event.cancelled,
        event_type=event.event_type,
        date=event.date,
    )
    if event.latest_us != event.earliest_us:
        message.latest_time.CopyFrom(timestamp(event.latest_us))
    return message


def entered_of(request: risk_admin_pb2.UpsertEventRequest) -> Event:
    """The event that an operator enters. Raises Invalid."""
    form = Form()
    reason = form.text("reason", request.reason, required=True)
    told, within = request.event, form.at("event")
    event_id = within.identifier("event_id", told.event_id)
    name = within.name("name", told.name, chars_max=NAME_CHARS_MAX)
    event_type = within.name("event_type", told.event_type, required=False)
    default_type = within.choice("kind", told.kind, _TYPES, "other")
    earliest_us = within.moment("event_time", told.event_time)
    latest_us = _latest(within, told, earliest_us)
    day = _day(within, told, earliest_us)
    within.count("symbols", len(told.symbols), 0, SYMBOLS_MAX)
    for index, symbol in enumerate(told.symbols):
        within.name(f"symbols[{index}]", symbol)
    if not 0.0 <= told.factor <= 1.0:
        within.wrong("factor", f"expected a number above 0, at most 1 (0: its type's rule), got {told.factor:g}")
    if not 0.0 <= told.gap <= 1.0:
        within.wrong("gap", f"expected a fraction of the price, 0 to 1, got {told.gap:g}")
    before_us, after_us = _window(within, told, "window_before"), _window(within, told, "window_after")
    form.done()
    return Event(
        event_id=event_id,
        event_type=event_type or default_type,
        name=name,
        earliest_us=earliest_us,
        latest_us=latest_us,
        date=day,
        symbols=tuple(dict.fromkeys(told.symbols)),
        source=MANUAL,
        official=told.official,
        cancelled=told.cancelled,
        uncertain=told.time_uncertain,
        before_us=before_us,
        after_us=after_us,
        factor=told.factor or None,
        gap=told.gap if told.HasField("gap") else None,
        reason=reason,
    )


def _latest(form: Form, told: event_pb2.Event, earliest_us: int) -> int:
    if told.HasField("latest_time"):
        latest_us = form.moment("latest_time", told.latest_time)
        if latest_us < earliest_us:
            form.wrong("latest_time", "expected no time before event_time")
        return max(latest_us, earliest_us)
    return earliest_us + DAY_US if told.time_uncertain else earliest_us


def _day(form: Form, told: event_pb2.Event, earliest_us: int) -> str:
    if told.date:
        return form.day("date", told.date).isoformat()
    with contextlib.suppress(OverflowError, ValueError):
        return datetime.fromtimestamp(earliest_us / 1e6, UTC).date().isoformat()
    return date.min.isoformat()


def _window(form: Form, told: event_pb2.Event, field: str) -> int | None:
    """0 is a span here, since the moment itself is in the window."""
    if not told.HasField("window_before" if field == "window_before" else "window_after"):
        return None
    span = told.window_before if field == "window_before" else told.window_after
    micros = span.seconds * 1_000_000 + span.nanos // 1_000
    if not 0 <= micros <= SPAN_MAX_US:
        form.wrong(field, "expected a duration of 0 or more, at most 366 days")
        return None
    return micros


def upsert_response(
    event: Event, created: bool, policy: EventPolicy, now_us: int
) -> risk_admin_pb2.UpsertEventResponse:
    """With the strictest tightening that it causes, whether its window is near or far."""
    message = risk_admin_pb2.UpsertEventResponse(event=event_message(event, policy), created=created)
    rule, (from_us, until_us) = policy.rule_of(event), policy.window(event)
    if not event.cancelled and until_us > now_us and any(factor < 1.0 for factor in rule.factors.values()):
        every = set(EXPOSURES) <= rule.factors.keys()
        measure, factor = min(rule.factors.items(), key=lambda item: (item[1], item[0]))
        message.tightening.CopyFrom(
            limit_pb2.Tightening(
                event_id=event.event_id,
                measure="" if every else measure,
                symbols=event.symbols,
                factor=factor,
                start_time=timestamp(max(0, from_us)),
                end_time=timestamp(until_us),
            )
        )
    return message


def outlook_message(found: EventOutlook) -> event_pb2.EventOutlook:
    return event_pb2.EventOutlook(
        upcoming_events=map(_upcoming, found.upcoming_events),
        risk_level=found.risk_level,
        recommended_action=found.recommended_action,
        sources=map(_source, found.sources),
    )


def _upcoming(event: UpcomingEvent) -> event_pb2.UpcomingEvent:
    return event_pb2.UpcomingEvent(
        symbol=event.symbol,
        event_type=event.event_type,
        date=event.date,
        days_until=event.days_until,
        action=event.action,
        event_id=event.event_id,
        name=event.name,
        event_time=timestamp(event.time_us),
        window_start_time=timestamp(max(0, event.from_us)),
        window_end_time=timestamp(event.until_us),
        time_uncertain=event.uncertain,
        source=event.source,
    )


def _source(state: SourceState) -> event_pb2.EventSource:
    message = event_pb2.EventSource(source=state.source, stale=state.stale, message=state.message)
    if state.success_us:
        message.success_time.CopyFrom(timestamp(state.success_us))
    return message
