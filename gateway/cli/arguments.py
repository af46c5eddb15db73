"""What people type, turned into values: durations, positions, the choices of an order, and options many commands share.

Pure, and no wire types. A text that makes no sense raises typer.BadParameter, which names the option and ends with
exit code 2. Whether a number makes sense for an instrument is the gateway's to say.
"""

import enum
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

import typer

SECONDS_BY_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(?P<count>\d+(\.\d+)?)(?P<unit>ms|s|m|h|d)?")
POSITION = re.compile(r"((?P<strategy>[^/=@]*)/)?(?P<symbol>[^/=@]+)=(?P<quantity>[^@]+)(@(?P<cost>.+))?")

GATEWAY_ADDRESS = "127.0.0.1:50051"
CONTROL_ADDRESS = "127.0.0.1:50052"


class SideName(enum.StrEnum):
    BUY = "buy"
    SELL = "sell"
    SELL_SHORT = "sell-short"


class OrderTypeName(enum.StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop-limit"


class TimeInForceName(enum.StrEnum):
    """All but GTD: its end is a moment, which is clumsy to type."""

    DAY = "day"
    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    AT_OPEN = "at-open"
    AT_CLOSE = "at-close"


class StopMode(enum.StrEnum):
    HALTED = "halted"
    CANCEL_ONLY = "cancel_only"
    REDUCE_ONLY = "reduce_only"


class ReportKind(enum.StrEnum):
    """A confirmed replace is told as CANCELLED of the old order and WORKING of the new one."""

    FILL = "fill"
    WORKING = "working"
    CANCEL_REQUESTED = "cancel-requested"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    NOT_SENT = "not-sent"


def wire_name(prefix: str, choice: enum.StrEnum) -> str:
    """The protobuf name of a choice: ("SIDE", "sell-short") is SIDE_SELL_SHORT."""
    return f"{prefix}_{choice.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class TypedPosition:
    """A position as typed: [STRATEGY/]SYMBOL=QUANTITY[@AVERAGE_COST]; the quantity is signed, in units."""

    strategy: str
    symbol: str
    quantity: float
    average_cost: float | None


def duration(text: str) -> timedelta:
    """For instance 30s, 500ms, 5m, 1h or 2d; a bare number is seconds."""
    found = DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; expected something like 30s, 500ms, 5m or 1h")
    return timedelta(seconds=float(found["count"]) * SECONDS_BY_UNIT[found["unit"] or "s"])


def position(text: str) -> TypedPosition:
    """For instance AAPL=100, AAPL=-100@187.2 or MOMENTUM/AAPL=100."""
    found = POSITION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no position; expected [STRATEGY/]SYMBOL=QUANTITY[@AVERAGE_COST]")
    cost = _number(found["cost"]) if found["cost"] is not None else None
    return TypedPosition(found["strategy"] or "", found["symbol"], _number(found["quantity"]), cost)


def session_date(text: str) -> str:
    """A date as YYYY-MM-DD, unchanged."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no date; expected YYYY-MM-DD") from error


def order_type(limit_price: float | None, stop_price: float | None) -> OrderTypeName:
    """The type that the prices given imply."""
    if limit_price is not None:
        return OrderTypeName.LIMIT if stop_price is None else OrderTypeName.STOP_LIMIT
    return OrderTypeName.MARKET if stop_price is None else OrderTypeName.STOP


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no number") from error


AccountOption = Annotated[
    str, typer.Option("--account", "-a", envvar="RISK_GATEWAY_ACCOUNT", help="Account.", show_default=False)
]
AnyAccountOption = Annotated[str, typer.Option("--account", "-a", help="Only this account; without: all of them.")]
AnyStrategyOption = Annotated[str, typer.Option("--strategy", "-s", help="Only this strategy.")]
AnySymbolOption = Annotated[str, typer.Option("--symbol", help="Only this symbol.")]
AnyAlgoOption = Annotated[str, typer.Option("--algo", help="Only orders of this algorithm.")]
AnyTraderOption = Annotated[str, typer.Option("--trader", help="Only orders of this trader.")]
AnyDeskOption = Annotated[str, typer.Option("--desk", help="Only orders of this desk.")]
AddressOption = Annotated[
    str, typer.Option("--address", envvar="RISK_GATEWAY_ADDRESS", help="The gateway's HOST:PORT.", metavar="HOST:PORT")
]
ControlOption = Annotated[
    str,
    typer.Option(
        "--control", envvar="RISK_GATEWAY_CONTROL", help="The control process' HOST:PORT.", metavar="HOST:PORT"
    ),
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="RISK_GATEWAY_TOKEN",
        help="The caller's token; better given by the environment, where no process list shows it.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, as in the gRPC contract.")]
