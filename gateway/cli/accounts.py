"""What has to be told before anything trades: accounts, sessions, instruments, marks, and what the broker holds.

Thin wrappers of RiskAdmin for a first look and for small books; a real feed speaks gRPC itself. Values are checked by
the gateway, which names the field.
"""

import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.arguments import (
    CONTROL_ADDRESS,
    GATEWAY_ADDRESS,
    AccountOption,
    AddressOption,
    ControlOption,
    JsonOption,
    TokenOption,
    TypedPosition,
    position,
    session_date,
)
from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from riskgateway.v1.account_pb2 import PositionQuantity
    from riskgateway.v1.instrument_pb2 import Instrument, Mark
    from riskgateway.v1.risk_admin_pb2 import ReportAccountEventRequest, ReportAccountEventResponse

HOLD_EVERY_S = 1.0
"""How often `publish-mark --hold` repeats a mark: well under the usual largest age of 5 s."""

PositionsOption = Annotated[
    list[TypedPosition] | None,
    typer.Option(
        "--position", "-p", parser=position, metavar="[STRATEGY/]SYMBOL=QTY[@COST]", help="May be given several times."
    ),
]


def open_account(
    account: Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")],
    cash: Annotated[float, typer.Option(help="What it starts with.")],
    currency: Annotated[str, typer.Option(help="Its base currency.")] = "USD",
    positions: PositionsOption = None,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Open an account with cash and positions. Repeating it changes nothing."""
    from riskgateway.v1 import account_pb2, risk_admin_pb2

    opened = risk_admin_pb2.AccountOpened(
        base_currency=currency,
        cash=[account_pb2.CashBalance(currency=currency, amount=cash)],
        positions=_positions(positions),
    )
    request = risk_admin_pb2.ReportAccountEventRequest(account=account, event_id="opened", account_opened=opened)
    response = _report(request, control, token)
    _tell(response, as_json, f"account {account}: {_recorded(response, 'opened', 'was open already')}")


def open_session(
    account: AccountOption,
    date: Annotated[
        str | None, typer.Option("--date", parser=session_date, metavar="YYYY-MM-DD", help="Default: today, in UTC.")
    ] = None,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Begin an account's session. Daily counters and losses start anew."""
    from riskgateway.v1 import risk_admin_pb2

    session = date or datetime.now(UTC).date().isoformat()
    request = risk_admin_pb2.ReportAccountEventRequest(
        account=account,
        event_id=f"session:{session}",
        session_opened=risk_admin_pb2.SessionOpened(session_date=session),
    )
    response = _report(request, control, token)
    _tell(response, as_json, f"session {session} of {account}: {_recorded(response, 'open', 'was open already')}")


def register(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE.toml]", help="[[instrument]] tables with the contract's fields.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="The twenty US stocks of the sample prices.")] = False,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Register instruments, or change what may change of them."""
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from riskgateway.v1 import risk_admin_pb2

    if (path is None) != sample:
        raise typer.BadParameter("give a file or --sample")
    instruments = _sample_instruments() if path is None else _instruments_in(path)
    request = risk_admin_pb2.RegisterInstrumentsRequest(instruments=instruments)
    with connected(control, token) as connection:
        response = connection.admin.RegisterInstruments(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    counts = f"{response.added} added, {response.changed} changed, {response.unchanged} as they were"
    _tell(response, as_json, f"instruments: {counts} · set {response.instrument_set[:8]}")


def publish_mark(
    symbol: Annotated[str, typer.Argument()],
    price: Annotated[float, typer.Argument(help="Last price.")],
    bid: Annotated[float | None, typer.Option()] = None,
    ask: Annotated[float | None, typer.Option()] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Repeat it each second until Ctrl-C, so it stays fresh.")
    ] = False,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Publish a price by hand, seen now."""
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from riskgateway.v1 import instrument_pb2, risk_admin_pb2

    with connected(address, token) as connection:
        while True:
            mark = instrument_pb2.Mark(symbol=symbol, last=price, bid=bid, ask=ask)
            mark.mark_time.GetCurrentTime()
            requests = iter([risk_admin_pb2.PublishMarksRequest(marks=[mark])])
            response = connection.admin.PublishMarks(requests, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
            for refused in response.refused:
                raise Failure(f"mark of {refused.symbol} refused: {refused.message}", ExitCode.MALFORMED)
            _tell(response, as_json, f"mark {_prices(mark)} published")
            if not hold:
                return
            time.sleep(HOLD_EVERY_S)


def reconcile(
    account: AccountOption,
    positions: PositionsOption = None,
    flat: Annotated[bool, typer.Option("--flat", help="The broker holds no position at all.")] = False,
    cash: Annotated[float | None, typer.Option(help="What the broker says; without, the balance is kept.")] = None,
    currency: Annotated[str, typer.Option(help="Currency of --cash.")] = "USD",
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for the record.")] = "",
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Set an account to what the broker holds. A position that is not named is flat."""
    from gateway.cli import render
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import account_pb2, risk_admin_pb2

    if flat == bool(positions):
        raise typer.BadParameter("name every position with --position, or say --flat")
    request = risk_admin_pb2.ReconcilePositionsRequest(
        account=account,
        positions=_positions(positions),
        cash=[] if cash is None else [account_pb2.CashBalance(currency=currency, amount=cash)],
        reason=reason,
    )
    request.snapshot_time.GetCurrentTime()
    with connected(control, token) as connection:
        response = connection.admin.ReconcilePositions(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(render.differences(response))


def _report(request: "ReportAccountEventRequest", control: str, token: str) -> "ReportAccountEventResponse":
    from gateway.cli.connection import CALL_TIMEOUT_S, connected

    with connected(control, token) as connection:
        return connection.admin.ReportAccountEvent(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)


def _tell(response: "Message", as_json: bool, words: str) -> None:
    from rich.text import Text

    from gateway.cli.screen import show, show_json

    if as_json:
        show_json(response)
    else:
        show(Text(f"✔ {words}", style="green"))


def _recorded(response: "ReportAccountEventResponse", news: str, no_news: str) -> str:
    return f"{no_news}, nothing changed" if response.duplicate else f"{news} · recorded at {response.sequence}"


def _positions(typed: list[TypedPosition] | None) -> "list[PositionQuantity]":
    from riskgateway.v1 import account_pb2

    return [
        account_pb2.PositionQuantity(
            strategy=each.strategy, symbol=each.symbol, quantity=each.quantity, average_cost=each.average_cost
        )
        for each in typed or ()
    ]


def _prices(mark: "Mark") -> str:
    given = [(field.name, value) for field, value in mark.ListFields() if field.name in ("last", "bid", "ask")]
    return " ".join([mark.symbol, *(f"{name} {value:,.10g}" for name, value in given)])


def _sample_instruments() -> "list[Instrument]":
    from gateway.market.sample import sample_instruments
    from riskgateway.v1 import instrument_pb2

    return [
        instrument_pb2.Instrument(
            symbol=stock.symbol,
            asset_class=instrument_pb2.ASSET_CLASS_EQUITY,
            currency=stock.currency,
            lot_size=stock.lot_size,
            tick_size=stock.tick_size,
            sector=stock.sector,
            issuer=stock.issuer,
        )
        for stock in sample_instruments().values()
    ]


def _instruments_in(path: Path) -> "list[Instrument]":
    """The [[instrument]] tables of a file. Raises Failure naming the file, the table and what is wrong."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("instrument", [])
    except OSError as error:
        raise Failure(f"{path}: can't be read: {error.strerror}", ExitCode.USAGE) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Failure(f"{path}: not valid TOML: {error}", ExitCode.MALFORMED) from error
    if not isinstance(tables, list) or not tables:
        raise Failure(f"{path}: expected [[instrument]] tables, found none", ExitCode.MALFORMED)
    return [_instrument(table, f"{path}: instrument[{index}]") for index, table in enumerate(tables)]


def _instrument(table: dict[str, Any], where: str) -> "Instrument":
    """A table with the field names of the contract; the asset class by its short name, such as equity, and so the
    right, style and model in an option's table."""
    from google.protobuf.json_format import ParseDict, ParseError

    from riskgateway.v1 import instrument_pb2

    named = dict(table)
    if "asset_class" in named:
        named["asset_class"] = f"ASSET_CLASS_{str(named['asset_class']).upper()}"
    if isinstance(option := named.get("option"), dict):
        spelled = {key: f"OPTION_{key}_{option[key]}".upper() for key in ("right", "style", "model") if key in option}
        named["option"] = option | spelled
    try:
        return ParseDict(named, instrument_pb2.Instrument())
    except ParseError as error:
        raise Failure(f"{where}: {error}", ExitCode.MALFORMED) from error
