"""`headroom`: how much more of each symbol an account may buy and sell now, and what stands in the way of more.

Thin: one question, one table. The figures are the gateway's; nothing is added up or promised here.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import GATEWAY_ADDRESS, AddressOption, JsonOption, TokenOption

if TYPE_CHECKING:
    from rich.console import Group

    from riskgateway.v1.decision_pb2 import Reason
    from riskgateway.v1.risk_gateway_pb2 import GetHeadroomResponse


def headroom(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account.", envvar="RISK_GATEWAY_ACCOUNT")],
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help="Default: all that are held or have open orders.")
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", envvar="RISK_GATEWAY_STRATEGY", help="Who would trade.")
    ] = "",
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show the largest market orders that would be allowed now. Reserves nothing and promises nothing for later."""
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import risk_gateway_pb2

    request = risk_gateway_pb2.GetHeadroomRequest(account=account, strategy=strategy, symbols=symbols or [])
    with connected(address, token) as connection:
        response = connection.gateway.GetHeadroom(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(headroom_table(response, strategy))


def headroom_table(response: "GetHeadroomResponse", strategy: str) -> "Group":
    """A row for each symbol: what may be bought and sold, and what refuses one lot more of each."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from gateway.cli import render

    holder = f"{response.account}/{strategy}" if strategy else response.account
    head = Text(f"Headroom of {holder}", style="bold")
    head.append(f" · record {response.sequence}, epoch {response.stop_epoch}", style="dim")
    head.append(f" · {render.moment(response.state_time)}", style="dim")

    def most(quantity: float) -> Text:
        return Text(render.quantity(quantity), style="" if quantity else "red")

    def binding(measure: str, reason: "Reason.ValueType") -> Text:
        """The limit and, where its name does not say it, the reason."""
        name = render.reason_name(reason)
        return Text(f"{measure} · {name}" if measure and measure.split("@")[0].upper() != name else measure or name)

    if not response.headrooms:
        return Group(head, Text("Nothing is held and no order is open: name the symbols that you ask about."))
    table = Table("symbol", box=box.SIMPLE)
    for column in ("buy at most", "sell at most"):
        table.add_column(column, justify="right")
        table.add_column("then comes")
    for one in response.headrooms:
        table.add_row(
            Text(one.symbol),
            most(one.max_buy_quantity),
            binding(one.binding_measure, one.buy_reason),
            most(one.max_sell_quantity),
            binding(one.binding_sell_measure, one.sell_reason),
        )
    return Group(head, table)
