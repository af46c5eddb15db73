"""`budget show`, `lend`, `end-loan`, `pause` and `resume`: what of the risk budget is used, and by whom it may be.

Thin: figures are the worker's, loans are the account's log's. A pause is a stop of the strategy's scope with mode
reduce_only, and what lifts it is a resume of that scope: there is one mechanism for what may trade.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import (
    CONTROL_ADDRESS,
    GATEWAY_ADDRESS,
    AddressOption,
    ControlOption,
    JsonOption,
    StopMode,
    TokenOption,
    duration,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import RenderableType

    from riskgateway.v1.risk_analytics_pb2 import BudgetLine, BudgetLoan, GetBudgetResponse

CALL_TIMEOUT_S = 10.0
"""The longest that a gateway grants by default."""

POSITIONS_MAX = 30
"""Positions on a screen; --json has all."""

AccountArgument = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="Account.", envvar="RISK_GATEWAY_ACCOUNT", show_default=False)
]
StrategyArgument = Annotated[str, typer.Argument(metavar="STRATEGY", help="Strategy.", show_default=False)]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; required, for the record.")]


def show(
    account: AccountArgument,
    contributions: Annotated[
        list[str] | None,
        typer.Option(
            "--contribution",
            metavar="STRATEGY=MONEY",
            help="Contribution to VaR as you see it, in place of the model's; may be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show how much of the risk budget is used, by strategy, asset class and position, and what is left."""
    from gateway.cli import screen
    from gateway.cli.connection import connected
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.GetBudgetRequest(account=account)
    for text in contributions or ():
        strategy, money = _contribution(text)
        request.contributions.add(strategy=strategy, component=money)
    with connected(address, token) as connection:
        response = connection.analytics.GetBudget(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        screen.show_json(response)
    else:
        screen.show(budget_lines(response))


def lend(
    account: AccountArgument,
    loan_id: Annotated[str, typer.Option("--id", help="Of the loan: the same one again changes it.")],
    giver: Annotated[str, typer.Option("--from", metavar="STRATEGY", help="Whose share it is.")],
    taker: Annotated[str, typer.Option("--to", metavar="STRATEGY", help="Who gets it.")],
    share: Annotated[float, typer.Option("--share", help="Of the account's whole budget, e.g. 0.1.")],
    reason: ReasonOption,
    lasting: Annotated[
        timedelta | None,
        typer.Option(
            "--for", metavar="DURATION", help="How long, e.g. 2h or 5d; without: until ended.", parser=duration
        ),
    ] = None,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Lend a part of a strategy's risk budget to another, for a while or until it is ended."""
    end = None if lasting is None else _moment_after(lasting)
    _adjust(account, (loan_id, giver, taker, share), end, reason, as_json, control, token)


def end_loan(
    account: AccountArgument,
    loan_id: Annotated[str, typer.Option("--id", help="Of the loan.")],
    giver: Annotated[str, typer.Option("--from", metavar="STRATEGY", help="Whose share it is.")],
    taker: Annotated[str, typer.Option("--to", metavar="STRATEGY", help="Who has it.")],
    reason: ReasonOption,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """End a loan of risk budget now."""
    _adjust(account, (loan_id, giver, taker, 0.0), None, reason, as_json, control, token)


def pause(
    account: AccountArgument,
    strategy: StrategyArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for the record.")] = "",
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Let a strategy use none of its budget: a stop of it that leaves it only what reduces."""
    from gateway.cli.operate import stop

    stop(
        account=account,
        strategy=strategy,
        mode=StopMode.REDUCE_ONLY,
        reason=reason,
        as_json=as_json,
        address=address,
        control=control,
        token=token,
    )


def resume(
    account: AccountArgument,
    strategy: StrategyArgument,
    reason: ReasonOption,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; for scripts.")] = False,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Let a paused strategy use its budget again."""
    from gateway.cli import operate

    operate.resume(reason, account=account, strategy=strategy, yes=yes, as_json=as_json, control=control, token=token)


def _moment_after(span: timedelta) -> "Timestamp":
    from google.protobuf.timestamp_pb2 import Timestamp

    end = Timestamp()
    end.FromDatetime(datetime.now(UTC) + span)
    return end


def _contribution(text: str) -> tuple[str, float]:
    strategy, _, money = text.rpartition("=")
    try:
        return strategy, float(money)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no contribution; expected STRATEGY=MONEY") from error


def _adjust(
    account: str,
    loan: tuple[str, str, str, float],
    end: "Timestamp | None",
    reason: str,
    as_json: bool,
    control: str,
    token: str,
) -> None:
    from rich.text import Text

    from gateway.cli import screen
    from gateway.cli.connection import connected
    from riskgateway.v1 import risk_admin_pb2

    loan_id, giver, taker, share = loan
    request = risk_admin_pb2.AdjustBudgetRequest(
        account=account,
        loan_id=loan_id,
        from_strategy=giver,
        to_strategy=taker,
        share=share,
        end_time=end,
        reason=reason,
    )
    with connected(control, token) as connection:
        response = connection.admin.AdjustBudget(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        screen.show_json(response)
        return
    what = f"{giver} lends {taker} {share:.1%} of the budget" if share else f"loan {loan_id} has ended"
    screen.show(Text(f"{what}{' already' if response.duplicate else ''} · record {response.sequence}"))


def budget_lines(answer: "GetBudgetResponse") -> "RenderableType":
    """The account, then strategies, asset classes and positions, and the loans."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from gateway.cli import render

    stamp = answer.stamp
    head = Text(f"Risk budget of {stamp.account}", style="bold")
    limit = f"{render.money(answer.var_limit, stamp.base_currency)} of VaR at {answer.confidence:.4g}"
    head.append(f" · {limit} · record {stamp.sequence}", style="dim")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("scope")
    for name in ("VaR component", "allocated", "share", "borrowed", "available", "used"):
        table.add_column(name, justify="right")
    table.add_column("may add risk")
    strategies = [one.line for one in answer.strategies]
    for line in (answer.total, *strategies, *answer.asset_classes, *answer.positions[:POSITIONS_MAX]):
        table.add_row(*_cells(line, stamp.base_currency))
    more = len(answer.positions) - POSITIONS_MAX
    notes = [Text(f"and {more} more positions", style="dim")] if more > 0 else []
    warnings = [Text(f"⚠ {warning}", style="yellow") for warning in stamp.warnings]
    return Group(head, table, *notes, *_loans(answer.loans), *warnings)


def _cells(line: "BudgetLine", currency: str) -> "tuple[RenderableType, ...]":
    from rich.text import Text

    from gateway.cli.render import figure, money, percent

    word = "paused" if line.paused else "yes" if line.can_add_risk else "no"
    return (
        Text(line.scope),
        money(line.component, currency),
        percent(line.allocated),
        percent(figure(line, "share")),
        percent(line.borrowed) if line.borrowed else "",
        percent(figure(line, "available")),
        percent(figure(line, "utilization")),
        Text(word, style="green" if word == "yes" else "bold yellow"),
    )


def _loans(loans: "Iterable[BudgetLoan]") -> "Iterable[RenderableType]":
    from rich.text import Text

    from gateway.cli import render

    for loan in loans:
        until = f"until {render.moment(loan.end_time)}" if loan.HasField("end_time") else "until it is ended"
        words = f"{loan.from_strategy} lends {loan.to_strategy} {loan.share:.1%} {until}"
        yield Text(f"loan {loan.loan_id}: {words} · {loan.actor}: {loan.reason}")
