"""Records of an account's log in words: one line each, for `log tail`.

Only what the record itself says, in units of the instrument where the log has told the size of a lot. A kind of record
that has no words of its own here shows its fields. Values in, text out.
"""

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.text import Text

from engine.control import Scope
from engine.order import Action
from engine.records import (
    AccountOpened,
    AnyRecord,
    BreakerMoved,
    CashFlowed,
    Decided,
    Executed,
    FeeCharged,
    Latch,
    Latched,
    Listed,
    Reconciled,
    SessionOpened,
    Valued,
)
from gateway.cli import render
from gateway.rpc.convert import responses
from riskgateway.v1 import decision_pb2, risk_gateway_pb2

MARKS_SHOWN = 6
KIND_CHARS = 20
MOMENTS = ("deadline_us", "from_us", "until_us")
"""Fields that hold one; others that end alike hold spans."""


def record_line(seq: int, record: AnyRecord, lot_sizes: Mapping[str, float]) -> Text:
    """When, where in the log, under which control epoch, what kind, and what."""
    line = Text(f"{time_words(record.time_us)}  {seq:>7}  e{record.epoch:<3} ", style="dim")
    line.append(f"{kind_of(record):<{KIND_CHARS}}  ", style="bold")
    line.append_text(_words(seq, record, lot_sizes))
    return line


def unreadable_line(seq: int, raw: bytes) -> Text:
    """A record that this release can't read, as it is."""
    return Text(
        f"{'':23}  {seq:>7}  {'unreadable here':<{KIND_CHARS + 7}}{raw.decode(errors='replace')}", style="magenta"
    )


def time_words(time_us: int) -> str:
    """UTC, to the millisecond."""
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}.{time_us // 1000 % 1000:03}"


def kind_of(record: AnyRecord) -> str:
    return str(record.__struct_config__.tag)


def lot_sizes_in(record: AnyRecord) -> dict[str, float]:
    """What a record tells of the sizes of lots."""
    match record:
        case Listed():
            return {record.symbol: record.lot_size}
        case AccountOpened():
            return {listed.symbol: listed.lot_size for listed in record.listed}
    return {}


def _words(seq: int, record: AnyRecord, lot_sizes: Mapping[str, float]) -> Text:
    match record:
        case Decided():
            return _decided(seq, record, lot_sizes)
        case Executed():
            return Text(_executed(record, lot_sizes))
        case Valued():
            return Text(_valued(record))
        case AccountOpened():
            cash = ", ".join(f"{amount:,.2f} {currency}" for currency, amount in record.cash.items())
            return Text(f"{cash or 'no cash'} · {len(record.positions)} positions · {record.base_currency}")
        case Listed():
            return Text(
                f"{record.symbol} in {record.currency}, lot {record.lot_size:g}, tick {record.tick_size:g}"
                f"{', settles variation' if record.settles_variation else ''}"
            )
        case SessionOpened():
            return Text(record.date)
        case CashFlowed():
            return Text(f"{record.amount:+,.2f} {record.currency}")
        case FeeCharged():
            return Text(f"{record.amount:,.2f} {record.currency}{f' for {record.strategy}' if record.strategy else ''}")
        case Reconciled():
            return Text(_reconciled(record))
        case BreakerMoved():
            moved = f"{record.before.name} → {record.stage.name} at a drawdown of {render.percent(record.drawdown)}"
            return Text(f"{moved}, {len(record.cuts)} of {len(record.positions)} positions cut")
        case Latched():
            return _latch(record.latch)
    return Text(_fields(record))


def _decided(seq: int, record: Decided, lot_sizes: Mapping[str, float]) -> Text:
    order = record.order
    lot_size = lot_sizes.get(order.symbol, 0.0)
    reduced = record.action is Action.REDUCE
    response = risk_gateway_pb2.CheckOrderResponse(
        client_order_id=order.client_order_id,
        action=decision_pb2.Action.Value(f"ACTION_{record.action.name}"),
        allowed_quantity=record.allowed_lots * lot_size if reduced else order.quantity,
        reason=decision_pb2.Reason.Value(f"REASON_{record.reason.name}"),
        message=record.message,
        sequence=seq,
    )
    line = render.verdict_line(response, responses.asked_order(order))
    for latch in record.latches:
        line.append(" · latches ")
        line.append_text(_latch(latch))
    return line


def _executed(record: Executed, lot_sizes: Mapping[str, float]) -> str:
    parts = [f"{record.kind.replace('_', ' ')} {'buy' if record.sign > 0 else 'sell'} {record.symbol}"]
    if record.lots:
        parts[0] += f" {_size(record.lots, record.symbol, lot_sizes)} at {record.price:,.10g}"
    if record.cumulative_lots:
        parts.append(f"{_size(record.cumulative_lots, record.symbol, lot_sizes)} filled so far")
    if record.fee:
        parts.append(f"fee {record.fee:,.2f} {record.fee_currency}".rstrip())
    parts += [f"⚠ {flag.replace('_', ' ')}" for flag in record.flags]
    parts += [f"latches {_latch(latch)}" for latch in record.latches]
    return " · ".join((*parts, f"id {record.client_order_id}", f"execution {record.execution_id}"))


def _size(lots: int, symbol: str, lot_sizes: Mapping[str, float]) -> str:
    lot_size = lot_sizes.get(symbol)
    return f"{lots:,} lots" if lot_size is None else render.quantity(lots * lot_size)


def _valued(record: Valued) -> str:
    marks = [f"{symbol} {quoted.mark:,.10g}" for symbol, quoted in record.marks.items()]
    more = f" and {len(marks) - MARKS_SHOWN} more" if len(marks) > MARKS_SHOWN else ""
    rates = [f"{currency} {rate.rate:,.10g}" for currency, rate in record.fx.items()]
    return ", ".join(marks[:MARKS_SHOWN]) + more + (f" · rates {', '.join(rates)}" if rates else "")


def _reconciled(record: Reconciled) -> str:
    parts = [f"{len(record.positions)} positions"]
    if record.cash is not None:
        parts.append(", ".join(f"{amount:,.2f} {currency}" for currency, amount in record.cash.items()))
    if record.open_orders is not None:
        parts.append(f"{len(record.open_orders)} open orders")
    if record.adopted:
        parts.append(f"{len(record.adopted)} adopted")
    parts.append(f"{len(record.differences)} differences{': ' if record.differences else ''}")
    parts[-1] += "; ".join(record.differences)
    return " · ".join((*parts, record.reason or "no reason given"))


def _latch(latch: Latch) -> Text:
    return Text(f"{latch.state.name} {_scope(latch.scope)}: {latch.cause}")


def _scope(scope: Scope) -> str:
    named = [(kind, getattr(scope, kind)) for kind in scope.__struct_fields__]
    return ", ".join(f"{kind} {name}" for kind, name in named if name) or "everything"


def _fields(record: AnyRecord) -> str:
    """Enums by their names and moments as such: a number in their place tells nobody anything."""
    left_out = ("time_us", "epoch")
    named = ((field.name, getattr(record, field.name), field.default) for field in msgspec.structs.fields(record))
    return " · ".join(
        f"{name.removesuffix('_us') if name in MOMENTS else name} {_value(name, value)}"
        for name, value, default in named
        if name not in left_out and value != default
    )


def _value(name: str, value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    return time_words(value) if name in MOMENTS else str(msgspec.to_builtins(value))
