"""`losses`: an account's P&L by session, and how it stands against its loss limits.

Thin: one question, one answer, shown as tables. The figures are the worker's; nothing is computed here.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import GATEWAY_ADDRESS, AddressOption, JsonOption, TokenOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from riskgateway.v1.risk_analytics_pb2 import GetLossHistoryResponse

CALL_TIMEOUT_S = 10.0
"""The longest that a gateway grants by default."""

AccountArgument = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="Account.", envvar="RISK_GATEWAY_ACCOUNT", show_default=False)
]


def losses(
    account: AccountArgument,
    sessions: Annotated[
        int, typer.Option("--sessions", "-n", min=1, max=520, help="How many, the open one included.")
    ] = 30,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show P&L by session, the daily and the weekly loss, and how the account stands against its loss limits."""
    from gateway.cli.connection import connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.GetLossHistoryRequest(account=account, sessions=sessions)
    with connected(address, token) as connection:
        response = connection.analytics.GetLossHistory(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(table(response))


def table(answer: "GetLossHistoryResponse") -> "RenderableType":
    """What there is to read of an answer, newest session first."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from gateway.cli.render import STATUS_SIGNS, UNKNOWN_SIGN, figure, money, percent
    from riskgateway.v1 import limit_pb2

    status = limit_pb2.LossStatus.Name(answer.status).removeprefix("LOSS_STATUS_")
    told = "no loss limit is armed" if answer.status == limit_pb2.LOSS_STATUS_UNSPECIFIED else status
    parts: list[RenderableType] = [Text(f"Losses of {answer.stamp.account}: {told}", style="bold")]
    for use in answer.limits:
        sign, style = STATUS_SIGNS.get(use.status, UNKNOWN_SIGN)
        value, limit = figure(use, "value"), figure(use, "limit")
        amounts = f"{percent(value)} of {percent(limit)}"
        if use.unit != "ratio":
            amounts = f"{money(value, use.unit)} of {money(limit, use.unit)}"
        parts.append(Text(f"{sign} {use.measure} of {use.scope}: {amounts} {use.message}".rstrip(), style=style))
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows.add_column("session")
    for name in ("opened with", "now or at the end", "flows", "P&L", "daily loss", "weekly loss"):
        rows.add_column(name, justify="right")
    currency = answer.stamp.base_currency
    for one in answer.sessions:
        rows.add_row(
            Text(f"{one.session_date}{' (open)' if one.open else ''}"),
            money(figure(one, "open_equity"), currency),
            money(figure(one, "equity"), currency),
            money(one.flows, currency),
            money(figure(one, "pnl"), currency),
            percent(figure(one, "daily_loss")),
            percent(figure(one, "weekly_loss")),
        )
    warnings = [Text(f"⚠ {warning}", style="yellow") for warning in answer.stamp.warnings]
    return Group(*parts, rows, *warnings)
