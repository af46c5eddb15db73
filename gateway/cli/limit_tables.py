"""Limits, and what one set changes in another, as something to read: tables, and nothing else.

Nothing is printed or asked here. Texts from outside go into `Text`, never into markup.
"""

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from engine.limit_changes import LimitChange, PolicyChange, field_in_words, in_words, row_name
from gateway.cli.render import action_name, amount
from riskgateway.v1 import limit_pb2, risk_admin_pb2

NONE = "–"
LOOSENED = ("▲ more allowed", "yellow")
NOT_LOOSENED = ("", "")


def changes(rows: Sequence[LimitChange], policy: Sequence[PolicyChange]) -> RenderableType:
    """A line for each row and each field of the policy: what, old → new, whether it allows more."""
    table = Table(box=box.SIMPLE, header_style="bold")
    for column in ("limit", "old → new", ""):
        table.add_column(column, overflow="fold")
    for change in rows:
        table.add_row(Text(row_name(change.row)), Text(in_words(change)), Text(*_sign(change.loosened)))
    for field in policy:
        table.add_row(Text("[limits]"), Text(field_in_words(field.change)), Text(*_sign(field.loosened)))
    return table if rows or policy else Text("")


def _sign(loosened: bool) -> tuple[str, str]:
    return LOOSENED if loosened else NOT_LOOSENED


def limits(told: risk_admin_pb2.GetLimitsResponse) -> RenderableType:
    """The rows, with the shares of firm limits."""
    table = Table(box=box.SIMPLE, header_style="bold", caption=_caption(told), caption_justify="left")
    for column in ("measure", "scope", "match", "account"):
        table.add_column(column)
    for column in ("warn", "limit"):
        table.add_column(column, justify="right")
    for column in ("action", "note"):
        table.add_column(column)
    for row in told.limits:
        table.add_row(*(Text(cell) for cell in _cells(row)), style="dim" if _is_shadow(row) else "")
    for share in told.allocations:
        table.add_row(Text(share.measure), "share", "", Text(share.account), "", f"{share.share:.2%}", "", "")
    return table


def _cells(row: limit_pb2.Limit) -> tuple[str, ...]:
    warn, bound = (_bound(row, field) for field in ("warn", "limit"))
    latches = f" → {_state(row)}" if row.halt_state else ""
    action = f"{action_name(row.action)}{latches}{' (shadow)' if _is_shadow(row) else ''}"
    return row.measure, row.scope, row.match, row.account, warn, bound, action, row.note


def _bound(row: limit_pb2.Limit, field: str) -> str:
    if not row.HasField(field):  # type: ignore[arg-type]  # one of two literals
        return NONE
    value = float(getattr(row, field))
    if row.unit in ("equity", "fraction"):
        return f"{amount(value, 'ratio')}{' of equity' if row.unit == 'equity' else ''}"
    per = f" in {row.window.ToTimedelta().total_seconds():g} s" if row.HasField("window") else ""
    return amount(value, "" if row.unit == "money" else row.unit) + (" money" if row.unit == "money" else per)


def _state(row: limit_pb2.Limit) -> str:
    from riskgateway.v1 import control_pb2

    return control_pb2.TradingState.Name(row.halt_state).removeprefix("TRADING_STATE_")


def _is_shadow(row: limit_pb2.Limit) -> bool:
    return row.mode == limit_pb2.LIMIT_MODE_SHADOW


def _caption(told: risk_admin_pb2.GetLimitsResponse) -> Text:
    shadow = f" · shadow set {told.shadow_limit_set[:8]}" if told.shadow_limit_set else ""
    return Text(f"limits {told.limit_set[:8]} · epoch {told.stop_epoch}{shadow}")
