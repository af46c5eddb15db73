"""`size`: how large a position should be by a sizing rule, and how much of that the limits leave.

Thin: one question, one answer. The figures are the worker's; nothing is added up or promised here.
"""

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import GATEWAY_ADDRESS, AddressOption, JsonOption, TokenOption, wire_name

if TYPE_CHECKING:
    from rich.console import RenderableType

    from riskgateway.v1.risk_analytics_pb2 import SizePositionResponse

CALL_TIMEOUT_S = 10.0
"""The longest that a gateway grants by default."""


class MethodName(enum.StrEnum):
    KELLY = "kelly"
    KELLY_BINARY = "kelly-binary"
    VOLATILITY_TARGET = "volatility-target"
    FIXED_RISK = "fixed-risk"
    FIXED_FRACTION = "fixed-fraction"
    RISK_BUDGET = "risk-budget"
    KELLY_PORTFOLIO = "kelly-portfolio"


def size(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account.", envvar="RISK_GATEWAY_ACCOUNT")],
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="What to size.")],
    method: Annotated[MethodName, typer.Option("--method", "-m", help="The rule.")],
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", envvar="RISK_GATEWAY_STRATEGY", help="Who would trade.")
    ] = "",
    expected_return: Annotated[
        float, typer.Option("--return", metavar="RATE", help="Expected, a year, e.g. 0.12; kelly, kelly-portfolio.")
    ] = 0.0,
    riskless_rate: Annotated[float, typer.Option("--rate", help="Riskless rate a year; the same.")] = 0.0,
    volatility: Annotated[
        float | None, typer.Option("--volatility", help="A year, e.g. 0.2. Default: of the risk model's days.")
    ] = None,
    win_probability: Annotated[float, typer.Option("--win-probability", help="0 to 1; kelly-binary.")] = 0.0,
    win_ratio: Annotated[float, typer.Option("--win", help="Gain as a share of the stake; kelly-binary.")] = 0.0,
    loss_ratio: Annotated[float, typer.Option("--loss", help="Loss as a share of the stake; kelly-binary.")] = 0.0,
    target: Annotated[float, typer.Option("--target", help="Volatility a year; volatility-target.")] = 0.0,
    stop: Annotated[float, typer.Option("--stop", help="Distance as a share of the price; fixed-risk.")] = 0.0,
    atr: Annotated[float, typer.Option("--atr", help="Average true range in money, instead of --stop.")] = 0.0,
    atr_multiple: Annotated[float, typer.Option("--atr-multiple", help="Average true ranges to the stop.")] = 2.0,
    budget: Annotated[float, typer.Option("--budget", help="Share of equity its VaR may be; risk-budget.")] = 0.0,
    fraction: Annotated[
        float | None,
        typer.Option("--fraction", help="Part taken, or of equity risked. Default: Kelly 0.5, fixed 0.01 and 0.02."),
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="0 to 1; multiplies the size.")] = 1.0,
    cap: Annotated[float, typer.Option("--cap", help="Largest share of equity.")] = 1.0,
    short: Annotated[bool, typer.Option("--short", help="Allow a short size, and aim at one without an edge.")] = False,
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="SYMBOL=RETURN", help="Sized together; may be repeated; kelly-portfolio."),
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show how large a position should be by a rule, and the order that leads there within all limits."""
    from gateway.cli.connection import connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.SizePositionRequest(
        account=account,
        strategy=strategy,
        symbol=symbol,
        method=risk_analytics_pb2.SizingMethod.Value(wire_name("SIZING_METHOD", method)),
        expected_return=expected_return,
        riskless_rate=riskless_rate,
        volatility=volatility,
        win_probability=win_probability,
        win_ratio=win_ratio,
        loss_ratio=loss_ratio,
        target_volatility=target,
        loss_given_stop=stop,
        average_true_range=atr,
        stop_multiple=atr_multiple,
        risk_budget=budget,
        fraction=fraction,
        confidence=confidence,
        cap=cap,
        short_allowed=short,
        short_position=short,
        others=[
            risk_analytics_pb2.ExpectedReturn(symbol=name, expected_return=rate)
            for name, rate in map(expected, others or [])
        ],
    )
    with connected(address, token) as connection:
        response = connection.analytics.SizePosition(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(size_lines(response, symbol))


def expected(text: str) -> tuple[str, float]:
    """SYMBOL=RETURN. Raises typer.BadParameter."""
    name, _, given = text.rpartition("=")
    try:
        rate = float(given)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no expected return; expected SYMBOL=RETURN such as MSFT=0.08") from error
    if not name.strip():
        raise typer.BadParameter(f"{text!r} is no expected return; expected SYMBOL=RETURN such as MSFT=0.08")
    return name.strip(), rate


def size_lines(answer: "SizePositionResponse", symbol: str) -> "RenderableType":
    """The size, the order that leads there, and what stands in its way."""
    from rich.console import Group
    from rich.text import Text

    from gateway.cli import render
    from riskgateway.v1 import order_pb2

    stamp = answer.stamp
    holder = f"{stamp.account}/{stamp.strategy}" if stamp.strategy else stamp.account
    head = Text(f"Size of {symbol} in {holder}", style="bold")
    head.append(f" · record {stamp.sequence}, {render.moment(stamp.compute_time)}", style="dim")
    target = render.percent(answer.target_ratio)
    lines = [
        head,
        Text(f"aim at {render.quantity(answer.target_quantity)}, {target} of equity"),
        Text(f"  by the rule alone {render.percent(answer.full_ratio)}", style="dim"),
    ]
    if answer.volatility:
        lines.append(Text(f"  volatility a year {render.percent(answer.volatility)}", style="dim"))
    lines += [Text(f"  {one.symbol} {render.percent(one.target_ratio)} of equity") for one in answer.weights]
    lines.append(Text(f"held {render.quantity(answer.position_quantity)}"))
    if answer.side == order_pb2.SIDE_UNSPECIFIED:
        lines.append(Text("no order is needed"))
        return Group(*lines)
    side = render.side_name(answer.side)
    lines.append(Text(f"{side} {render.quantity(answer.order_quantity)}", style="bold"))
    if answer.order_quantity < answer.wanted_quantity:
        binding = f", {answer.binding_measure}" if answer.binding_measure else ""
        why = f"{render.reason_name(answer.reason)}{binding}"
        lines.append(Text(f"  of {render.quantity(answer.wanted_quantity)}: more is refused by {why}", style="yellow"))
    return Group(*lines)
