"""`liquidate`: close positions by orders of the gateway's own, or only show what that would send, cost and do to risk.

Thin: the plan is the worker's, and what sends is a stop that flattens. Nothing is planned or added up here.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import (
    CONTROL_ADDRESS,
    GATEWAY_ADDRESS,
    AccountOption,
    AddressOption,
    AnyStrategyOption,
    AnySymbolOption,
    ControlOption,
    JsonOption,
    StopMode,
    TokenOption,
    wire_name,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from riskgateway.v1.risk_analytics_pb2 import LiquidationSlice, PlanLiquidationResponse

CALL_TIMEOUT_S = 10.0
"""The longest that a gateway grants by default."""

SHOWN_MAX = 40
"""Slices on a screen; --json has all."""


def liquidate(
    account: AccountOption,
    strategy: AnyStrategyOption = "",
    symbol: AnySymbolOption = "",
    fraction: Annotated[float | None, typer.Option("--fraction", help="With --dry-run: this part of each.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, its cost and the risk; send nothing.")] = (
        False
    ),
    mode: Annotated[StopMode, typer.Option("--mode", help="What others may still do meanwhile.")] = StopMode.HALTED,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for the record.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; for scripts.")] = False,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Close an account's positions, sliced, the largest risk first: a stop that flattens. --dry-run shows the plan."""
    if dry_run:
        _show_plan(account, strategy, symbol, fraction, as_json, address, token)
        return
    if fraction is not None:
        raise typer.BadParameter("only a plan can be of a part: give --dry-run, or leave --fraction out")
    from gateway.cli import render
    from gateway.cli.operate import confirm, stop_anywhere
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import control_pb2, risk_gateway_pb2

    scope = control_pb2.Scope(account=account, strategy=strategy, symbol=symbol)
    if not yes:
        confirm(f"This closes every position in: {render.scope_name(scope)}.", account, "liquidate")
    request = risk_gateway_pb2.StopAllRequest(
        account=account,
        strategy=strategy,
        symbol=symbol,
        mode=control_pb2.TradingState.Value(wire_name("TRADING_STATE", mode)),
        reason=reason,
        flatten=True,
    )
    response, served_by = stop_anywhere(request, control, address, token)
    if as_json:
        show_json(response)
    else:
        show(render.stopped(response, scope, served_by))


def _show_plan(
    account: str, strategy: str, symbol: str, fraction: float | None, as_json: bool, address: str, token: str
) -> None:
    from gateway.cli.connection import connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.PlanLiquidationRequest(
        account=account, strategy=strategy, symbol=symbol, fraction=fraction
    )
    with connected(address, token) as connection:
        response = connection.analytics.PlanLiquidation(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(plan_lines(response))


def plan_lines(plan: "PlanLiquidationResponse") -> "RenderableType":
    """The slices with their cost and the risk that is left, then the totals and what is not known."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from gateway.cli import render

    stamp, currency = plan.stamp, plan.stamp.base_currency
    head = Text(f"Plan to liquidate {stamp.account}", style="bold")
    head.append(f" · record {stamp.sequence}, {render.moment(stamp.compute_time)} · nothing is sent", style="dim")
    if not plan.slices:
        return Group(head, Text("nothing to close"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("after", "order", "spread", "impact", "VaR 99 %", "stress"):
        table.add_column(name, justify="left" if name == "order" else "right")
    table.add_row("", "as it is", "", "", *(_amount(plan, field) for field in ("var_99", "stress_loss")))
    for one in plan.slices[:SHOWN_MAX]:
        costs = (_amount(one, field) for field in ("spread_cost", "impact_cost", "var_99", "stress_loss"))
        table.add_row(f"{one.after.ToTimedelta().total_seconds():g} s", _order(one), *costs)
    total = Text(f"{len(plan.slices)} orders close {render.money(plan.value, currency)}, expected cost ", style="bold")
    total.append(render.money(render.figure(plan, "expected_cost"), currency))
    lines: list[RenderableType] = [head, table, total]
    if len(plan.slices) > SHOWN_MAX:
        lines.insert(2, Text(f"and {len(plan.slices) - SHOWN_MAX} more; --json has all", style="dim"))
    model = f"in {currency}; spread: half of it; impact: 2/3 σ √(Q/ADV) Q; made anew after each fill and move"
    return Group(*lines, Text(model, style="dim"), *(Text(f"⚠ {one}", style="yellow") for one in stamp.warnings))


def _amount(message: "PlanLiquidationResponse | LiquidationSlice", field: str) -> str:
    from gateway.cli import render

    value = render.figure(message, field)
    return render.MISSING if value is None else f"{value:,.2f}"


def _order(one: "LiquidationSlice") -> str:
    from gateway.cli import render

    whose = f" of {one.strategy}" if one.strategy else ""
    return f"{render.side_name(one.side)} {render.quantity(one.quantity)} {one.symbol}{whose}"
