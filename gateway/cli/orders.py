"""`check` and `report-fill`: an order asked about, and what became of it at the venue.

Thin: arguments become a request, the answer is shown, its action becomes the exit code. No default here loosens
anything, and no order is ever made up or changed.
"""

from datetime import timedelta
from typing import Annotated
from uuid import uuid4

import typer

from gateway.cli.arguments import (
    GATEWAY_ADDRESS,
    AccountOption,
    AddressOption,
    JsonOption,
    OrderTypeName,
    ReportKind,
    SideName,
    TimeInForceName,
    TokenOption,
    duration,
    order_type,
    wire_name,
)
from gateway.cli.exits import ExitCode


def check(
    symbol: Annotated[str, typer.Argument(help="Symbol of a registered instrument.")],
    side: Annotated[SideName, typer.Argument(case_sensitive=False)],
    quantity: Annotated[float, typer.Argument(help="In units of the instrument.")],
    account: AccountOption,
    strategy: Annotated[str, typer.Option("--strategy", "-s", envvar="RISK_GATEWAY_STRATEGY")] = "",
    limit_price: Annotated[float | None, typer.Option(help="Makes it a limit order.")] = None,
    stop_price: Annotated[float | None, typer.Option(help="Makes it a stop order.")] = None,
    kind: Annotated[OrderTypeName | None, typer.Option("--type", help="Default: what the prices given imply.")] = None,
    time_in_force: Annotated[TimeInForceName, typer.Option("--tif")] = TimeInForceName.DAY,
    client_order_id: Annotated[str, typer.Option("--id", help="Client order id. Default: a random one.")] = "",
    valid_for: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="How long the approval holds, for instance 30s."),
    ] = None,
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Approve only what reduces a position.")] = False,
    all_or_none: Annotated[bool, typer.Option("--all-or-none", help="Refuse rather than allow in part.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and tell; record and reserve nothing.")] = False,
    explain: Annotated[bool, typer.Option("--explain", "-e", help="Show every check, computed exactly.")] = False,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Ask whether an order may be sent, and reserve for it if so.

    Exit code: 0 allowed as asked (ALLOW, WARN), 10 REDUCE, 20 REJECT, 21 HALT; 2, 65 to 78 when nothing was decided.
    """
    from gateway.cli import render
    from gateway.cli.connection import CALL_TIMEOUT_S, connected, naming
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import order_pb2, risk_gateway_pb2

    order = order_pb2.Order(
        account=account,
        strategy=strategy,
        client_order_id=client_order_id or uuid4().hex,
        symbol=symbol,
        side=order_pb2.Side.Value(wire_name("SIDE", side)),
        quantity=quantity,
        order_type=order_pb2.OrderType.Value(wire_name("ORDER_TYPE", kind or order_type(limit_price, stop_price))),
        limit_price=limit_price,
        stop_price=stop_price,
        time_in_force=order_pb2.TimeInForce.Value(wire_name("TIME_IN_FORCE", time_in_force)),
        reduce_only=reduce_only,
    )
    if valid_for is not None:
        order.valid_for.FromTimedelta(valid_for)
    request = risk_gateway_pb2.CheckOrderRequest(order=order, dry_run=dry_run, all_or_none=all_or_none, explain=explain)
    with naming(f"--id {order.client_order_id}"), connected(address, token) as connection:
        response = connection.gateway.CheckOrder(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(render.verdict_tree(response, order) if explain else render.verdict_line(response, order))
    raise typer.Exit(exit_code_of(response.action))


def exit_code_of(action: int) -> ExitCode:
    """What `check` ends with, by the decision's action."""
    from riskgateway.v1 import decision_pb2

    return {
        decision_pb2.ACTION_ALLOW: ExitCode.OK,
        decision_pb2.ACTION_WARN: ExitCode.OK,
        decision_pb2.ACTION_REDUCE: ExitCode.REDUCED,
        decision_pb2.ACTION_REJECT: ExitCode.REJECTED,
        decision_pb2.ACTION_HALT: ExitCode.HALTED,
    }.get(decision_pb2.Action.ValueType(action), ExitCode.DEFECT)


def report_fill(
    client_order_id: Annotated[str, typer.Argument(help="The order's client order id.")],
    account: AccountOption,
    quantity: Annotated[float | None, typer.Argument(help="Filled now, in units of the instrument.")] = None,
    price: Annotated[float | None, typer.Argument(help="Per unit, in the instrument's currency.")] = None,
    kind: Annotated[ReportKind, typer.Option("--kind", help="What happened.")] = ReportKind.FILL,
    execution_id: Annotated[str, typer.Option("--execution-id", help="Default: made up, and printed.")] = "",
    cumulative: Annotated[float, typer.Option(help="Filled so far in total, if the venue tells.")] = 0.0,
    leaves: Annotated[float | None, typer.Option(help="What the venue says is left.")] = None,
    fee: Annotated[float, typer.Option(help="Fee of this fill; negative is a rebate.")] = 0.0,
    fee_currency: Annotated[str, typer.Option(help="Default: the instrument's currency.")] = "",
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="Only for an order the gateway doesn't know.")] = "",
    symbol: Annotated[str, typer.Option("--symbol", help="Only for an order the gateway doesn't know.")] = "",
    side: Annotated[SideName | None, typer.Option("--side", help="Only for an order the gateway doesn't know.")] = None,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Report a fill, or what else the venue did. For cancels, rejects and so on: --kind, without QUANTITY and PRICE."""
    from gateway.cli import render
    from gateway.cli.connection import CALL_TIMEOUT_S, connected, naming
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import execution_pb2, order_pb2, risk_gateway_pb2

    if (kind is ReportKind.FILL) != (quantity is not None and price is not None):
        raise typer.BadParameter("a fill needs QUANTITY and PRICE, and nothing else has them")
    execution = execution_pb2.Execution(
        account=account,
        execution_id=execution_id or execution_id_for(client_order_id, kind, cumulative),
        client_order_id=client_order_id,
        kind=execution_pb2.ExecutionKind.Value(wire_name("EXECUTION_KIND", kind)),
        strategy=strategy,
        symbol=symbol,
        side=order_pb2.Side.Value(wire_name("SIDE", side)) if side else order_pb2.SIDE_UNSPECIFIED,
        last_quantity=quantity or 0.0,
        last_price=price or 0.0,
        cumulative_quantity=cumulative,
        leaves_quantity=leaves,
        fee=fee,
        fee_currency=fee_currency,
    )
    request = risk_gateway_pb2.ReportExecutionRequest(executions=[execution])
    with naming(f"--execution-id {execution.execution_id}"), connected(address, token) as connection:
        response = connection.gateway.ReportExecution(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
        return
    for result in response.results:
        show(render.execution_line(result))


def execution_id_for(client_order_id: str, kind: ReportKind, cumulative: float) -> str:
    """An id for a report that has none. The same report gives the same id as far as it can be told from another: two
    fills of equal size can't, unless the cumulative quantity is given, so those get a random one."""
    if kind is not ReportKind.FILL:
        return f"{client_order_id}:{kind}"
    return f"{client_order_id}:fill:{cumulative:.10g}" if cumulative else f"{client_order_id}:fill:{uuid4().hex[:12]}"
