"""`events` and `event-set`: what calendars say lies ahead, and entering an event by hand.

What an event does is said by the control process, in its configuration's rules.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import CONTROL_ADDRESS, ControlOption, JsonOption, TokenOption

if TYPE_CHECKING:
    from riskgateway.v1.event_pb2 import Event

KINDS = ("central_bank", "release", "earnings", "market", "other")


def events(
    symbol: Annotated[str, typer.Option("--symbol", help="Only those that reach this symbol.")] = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000, help="At most so many.")] = 20,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """List the events ahead, what is done around them, and how their calendars stand."""
    from gateway.cli import event_tables
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import risk_admin_pb2

    request = risk_admin_pb2.ListEventsRequest(symbol=symbol, page_size=count)
    with connected(control, token) as connection:
        told = connection.admin.ListEvents(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(told)
        return
    show(event_tables.listed(told))


def event_set(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Its id; one of the same id is changed.")],
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="When, ISO 8601 with its zone: 2026-12-09T19:00Z.")],
    name: Annotated[str, typer.Option("--name", help="Its name for people.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; required, for the record.")],
    kind: Annotated[str, typer.Option("--kind", help=f"One of {', '.join(KINDS)}.")] = "other",
    event_type: Annotated[str, typer.Option("--type", help="By which a rule is chosen: fomc, cpi, earnings…")] = "",
    symbols: Annotated[list[str] | None, typer.Option("--symbol", help="Reaches only this; may be repeated.")] = None,
    before_minutes: Annotated[float | None, typer.Option("--before", min=0, help="Minutes.")] = None,
    after_minutes: Annotated[float | None, typer.Option("--after", min=0, help="Minutes.")] = None,
    factor: Annotated[float, typer.Option("--factor", help="On bounds in its window; 0: its type's rule.")] = 0.0,
    gap: Annotated[float | None, typer.Option("--gap", help="Move to be reckoned with, a fraction.")] = None,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="It is called off.")] = False,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Enter an event, or change or call off one; it goes before what calendars say of it."""
    from gateway.cli import event_tables
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from gateway.cli.screen import note, show, show_json
    from riskgateway.v1 import event_pb2, risk_admin_pb2

    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r}: expected one of {', '.join(KINDS)}", param_hint="--kind")
    event = event_pb2.Event(
        event_id=event_id,
        kind=event_pb2.EventKind.Value(f"EVENT_KIND_{kind.upper()}"),
        name=name,
        symbols=symbols or [],
        factor=factor,
        gap=gap,
        cancelled=cancelled,
        event_type=event_type,
    )
    event.event_time.FromDatetime(_moment(at))
    _add_window(event, before_minutes, after_minutes)
    request = risk_admin_pb2.UpsertEventRequest(event=event, reason=reason)
    with connected(control, token) as connection:
        told = connection.admin.UpsertEvent(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(told)
        return
    show(event_tables.entered(told))
    note("It takes effect within seconds, where a worker runs.")


def _add_window(event: "Event", before_minutes: float | None, after_minutes: float | None) -> None:
    if before_minutes is not None:
        event.window_before.FromMicroseconds(round(before_minutes * 60e6))
    if after_minutes is not None:
        event.window_after.FromMicroseconds(round(after_minutes * 60e6))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time; expected 2026-12-09T19:00Z", param_hint="--at") from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; write Z for UTC, or +01:00", param_hint="--at")
    return moment.astimezone(UTC).replace(tzinfo=None)
