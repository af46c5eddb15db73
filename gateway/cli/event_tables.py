"""Events as something to read: tables, and nothing else.

Nothing is printed or asked here. Texts from outside go into `Text`, never into markup. Times are UTC.
"""

from datetime import UTC

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from riskgateway.v1 import event_pb2, risk_admin_pb2

SYMBOLS_SHOWN = 4
LEVELS = {"MODERATE": "yellow", "HIGH": "red", "CRITICAL": "bold red"}


def listed(told: risk_admin_pb2.ListEventsResponse) -> RenderableType:
    """The events, then how things stand, then the calendars."""
    if not told.events and not told.sources:
        return Text("no calendar of events is configured and nothing was entered: see [events] in the configuration")
    actions = {one.event_id: one.action for one in told.outlook.upcoming_events}
    table = Table(box=box.SIMPLE, header_style="bold")
    for column in ("when (UTC)", "type", "event", "reaches", "window", "bounds", "in its window", "source"):
        table.add_column(column, overflow="fold")
    for event in told.events:
        table.add_row(*_cells(event, actions), style="dim" if event.cancelled else "")
    more = [Text("There are more: --count")] if told.next_page_token else []
    return Group(table, *more, standing(told.outlook), *(source(one) for one in told.sources))


def _cells(event: event_pb2.Event, actions: dict[str, str]) -> tuple[Text, ...]:
    window = f"-{_minutes(event.window_before)} +{_minutes(event.window_after)}"
    return (
        Text(moment(event.event_time) + ("?" if event.time_uncertain else "")),
        Text(event.event_type),
        Text(event.name + (" (called off)" if event.cancelled else "")),
        Text(_reach(event)),
        Text(window),
        Text("–" if event.factor >= 1.0 else f"× {event.factor:g}"),
        Text(actions.get(event.event_id, "")),
        Text(event.source),
    )


def _reach(event: event_pb2.Event) -> str:
    shown = ", ".join(event.symbols[:SYMBOLS_SHOWN]) or "all"
    return shown + (f" and {len(event.symbols) - SYMBOLS_SHOWN} more" if len(event.symbols) > SYMBOLS_SHOWN else "")


def standing(outlook: event_pb2.EventOutlook) -> Text:
    text = Text("Event risk ")
    text.append(outlook.risk_level, style=LEVELS.get(outlook.risk_level, "green"))
    return text.append(f" · recommended: {outlook.recommended_action}")


def source(told: event_pb2.EventSource) -> Text:
    """One calendar: when it was last read, and what is wrong with it."""
    read = f"read {moment(told.success_time)}" if told.HasField("success_time") else "never read"
    wrong = " · ".join(part for part in ("STALE" if told.stale else "", told.message) if part)
    return Text(f"{told.source}: {read}{f' · {wrong}' if wrong else ''}", style="yellow" if wrong else "dim")


def entered(told: risk_admin_pb2.UpsertEventResponse) -> Text:
    event, tightening = told.event, told.tightening
    text = Text(f"✔ {'entered' if told.created else 'changed'}: {event.name}, {moment(event.event_time)} UTC")
    if told.HasField("tightening"):
        window = f"{moment(tightening.start_time)} to {moment(tightening.end_time)}"
        text.append(f" · bounds × {tightening.factor:g} from {window}")
    return text


def moment(told: Timestamp) -> str:
    return f"{told.ToDatetime(UTC):%Y-%m-%d %H:%M}"


def _minutes(span: Duration) -> str:
    return f"{span.ToMicroseconds() / 60e6:g} min"
