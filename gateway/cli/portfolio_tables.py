"""The portfolio's part of a report as something to read: returns, correlations, P&L by factor.

Every part ends with what it lacks, and says it is missing where it is. Texts from outside go into `Text`, never into
markup.
"""

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.render import MISSING, figure, money, percent
from riskgateway.v1 import risk_analytics_pb2

NAMELESS = "(none)"
"""A strategy without a name."""


def portfolio(answer: risk_analytics_pb2.GetRiskReportResponse) -> list[RenderableType]:
    """Nothing of a worker that does not tell."""
    if not answer.HasField("book_returns"):
        return []
    currency = answer.stamp.base_currency
    series = (("closed sessions", answer.account_returns), ("today's positions", answer.book_returns))
    return [
        _returns(series),
        *(_note(name, one.warnings) for name, one in series if one.warnings),
        *_correlation("assets", answer.asset_correlation),
        *_correlation("strategies", answer.strategy_correlation),
        *_factors(answer.factor_attribution, currency),
    ]


def _returns(series: Sequence[tuple[str, risk_analytics_pb2.ReturnFigures]]) -> RenderableType:
    table = _table("returns", [name for name, _ in series])
    every = [one for _, one in series]
    table.add_row("days", *(f"{one.observations}" for one in every))
    for name, field in (("volatility a year", "volatility"), ("downside a year", "downside_deviation")):
        table.add_row(name, *(percent(figure(one, field)) for one in every))
    for field in ("skewness", "kurtosis"):
        table.add_row(field, *(_plain(figure(one, field)) for one in every))
    for days in (1, 5, 10):
        table.add_row(f"worst {days} d", *(_worst(one, days) for one in every))
    benchmark = Text(f"beta to {every[0].benchmark}")
    table.add_row(benchmark, *(_plain(figure(one, "beta")) for one in every))
    table.add_row("alpha a year", *(percent(figure(one, "alpha")) for one in every))
    table.add_row("R²", *(_plain(figure(one, "r_squared")) for one in every))
    return table


def _worst(of: risk_analytics_pb2.ReturnFigures, days: int) -> str:
    """The loss as a change: -2.00 % to the day it ended on."""
    for one in of.worst:
        if one.days == days:
            return f"{percent(-one.loss)} to {one.last_date}"
    return MISSING


def _correlation(name: str, matrix: risk_analytics_pb2.CorrelationMatrix) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if matrix.rows:
        table = _table(f"correlation of {name}", [row.name or NAMELESS for row in matrix.rows])
        for row in matrix.rows:
            table.add_row(Text(row.name or NAMELESS), *(f"{one:.2f}" for one in row.correlations))
        mean = figure(matrix, "mean")
        table.caption = Text(f"{matrix.observations} days · mean of pairs {_plain(mean)}")
        parts.append(table)
    if matrix.warnings:
        parts.append(_note(f"correlation of {name}", matrix.warnings))
    return parts


def _factors(found: risk_analytics_pb2.FactorAttribution, currency: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if found.HasField("total"):
        table = _table("P&L of the session by factor", ["move", "P&L"])
        for one in found.factors:
            table.add_row(Text(one.factor), percent(one.move), money(one.gain, currency))
        table.add_row("specific", MISSING, money(found.specific, currency))
        table.add_row(Text("positions", style="bold"), MISSING, money(found.total, currency))
        parts.append(table)
    if found.warnings:
        parts.append(_note("P&L by factor", found.warnings))
    return parts


def _note(name: str, warnings: Sequence[str]) -> Text:
    return Text("\n".join(f"{name}: {warning}" for warning in warnings), style="dim")


def _plain(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _table(name: str, numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE, header_style="bold", caption_justify="left")
    table.add_column(name, overflow="fold")
    for column in numbers:
        table.add_column(Text(column), justify="right")
    return table
