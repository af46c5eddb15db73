"""Answers of RiskAnalytics as something to read: tables, and nothing else.

Every answer begins with what it was computed from and ends with what to be careful about. Meaning never hangs on colour
alone. Texts from outside go into `Text`, never into markup.
"""

from __future__ import annotations  # the enums' ValueType exists for type checkers only

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli import render
from gateway.cli.portfolio_tables import portfolio
from gateway.cli.render import MISSING, figure, money, percent
from riskgateway.v1 import risk_analytics_pb2, risk_pb2

LEVEL_SIGNS = {
    risk_pb2.RISK_LEVEL_LOW: ("✔", "green"),
    risk_pb2.RISK_LEVEL_MODERATE: ("⚠", "yellow"),
    risk_pb2.RISK_LEVEL_HIGH: ("▲", "bold yellow"),
    risk_pb2.RISK_LEVEL_CRITICAL: ("■", "bold red"),
}
POSITIONS_MAX = 30
"""Rows of a table of positions; --json has all of them."""

GREEKS = (("delta", "Δ units"), ("dollar_delta", "Δ money"), ("gamma", "Γ 1 %"), ("vega", "vega"), ("theta", "Θ day"))
NOTHING_HELD = "Nothing is held and no order is open."


def value_at_risk(answer: risk_analytics_pb2.GetVarResponse) -> RenderableType:
    stamp, currency = answer.stamp, answer.stamp.base_currency
    table = _table("method", ("confidence", "horizon", "VaR", "of equity", "ES", "of equity", "behind it"), "how")
    for one in answer.estimates:
        table.add_row(
            Text(_method(one)),
            f"{one.confidence:.4g}",
            f"{one.horizon_days} d",
            money(one.value_at_risk, currency),
            percent(figure(one, "value_at_risk_ratio")),
            money(one.expected_shortfall, currency),
            percent(figure(one, "expected_shortfall_ratio")),
            _behind(one),
            Text(_how(one), style="dim"),
        )
    parts: list[RenderableType] = [_head("Value at risk", stamp), table]
    if answer.HasField("unified_value_at_risk"):
        parts.append(Text(f"Unified VaR (99 %, gaps counted): {money(answer.unified_value_at_risk, currency)}"))
    if answer.HasField("ultra_short"):
        parts.append(_ultra_short(answer.ultra_short, currency))
    if answer.components:
        parts += [_components(answer), _groups(answer)]
    return Group(*parts, *_warnings(stamp.warnings))


def _method(one: risk_pb2.VarEstimate) -> str:
    name = _name(risk_pb2.VarMethod, one.method, "VAR_METHOD_")
    if one.requested_method:
        return f"{name} (asked for {_name(risk_pb2.VarMethod, one.requested_method, 'VAR_METHOD_')})"
    return name


def _how(one: risk_pb2.VarEstimate) -> str:
    words = []
    if one.distribution:
        words.append(_name(risk_pb2.VarDistribution, one.distribution, "VAR_DISTRIBUTION_"))
    if one.filter:
        words.append(_name(risk_pb2.VolatilityFilter, one.filter, "VOLATILITY_FILTER_"))
    if one.copula:
        words.append(f"{_name(risk_pb2.CopulaFamily, one.copula, 'COPULA_FAMILY_')} copula")
    if one.HasField("degrees_of_freedom"):
        words.append(f"ν {one.degrees_of_freedom:.3g}")
    if one.horizon_days > 1:
        words.append(_name(risk_pb2.HorizonMethod, one.horizon_method, "HORIZON_METHOD_"))
    words.append(_name(risk_pb2.QuantileMethod, one.quantile_method, "QUANTILE_METHOD_"))
    words.append(f"mean {_name(risk_pb2.MeanMethod, one.mean_method, 'MEAN_METHOD_')}")
    return ", ".join(words)


def _behind(one: risk_pb2.VarEstimate) -> str:
    return f"{one.n_paths:,} paths" if one.n_paths else f"{one.n_observations:,} obs."


def _ultra_short(found: risk_analytics_pb2.UltraShortVar, currency: str) -> Text:
    status = _name(risk_analytics_pb2.UltraShortStatus, found.status, "ULTRA_SHORT_STATUS_")
    figures = " · ".join(
        f"{days} d {money(value, currency)}"
        for days, value in ((1, found.var_1d), (3, found.var_3d), (5, found.var_5d))
    )
    session = money(figure(found, "current_exposure"), currency)
    limits = ", ".join(f"{one.horizon_days} d {money(one.limit, currency)}" for one in found.limits) or "none"
    head = f"Ultra-short at {found.confidence:.4g} as P&L: {figures}"
    return Text(f"{head} · session so far {session} · {status} · limits {limits}")


def _components(answer: risk_analytics_pb2.GetVarResponse) -> RenderableType:
    currency = answer.stamp.base_currency
    table = _table("position", ("VaR component", "share", "ES component", "alone", "incremental"))
    for one in answer.components[:POSITIONS_MAX]:
        table.add_row(
            Text(_position(one.strategy, one.symbol)),
            money(one.component, currency),
            percent(figure(one, "share")),
            money(one.shortfall_component, currency),
            money(one.standalone, currency),
            money(one.incremental, currency),
        )
    method = _name(risk_pb2.VarMethod, answer.component_method, "VAR_METHOD_")
    total = f"sum {money(answer.component_total, currency)}, {method} at {answer.component_confidence:.4g}"
    table.caption = Text(f"{total}{_more(len(answer.components))}")
    return table


def _groups(answer: risk_analytics_pb2.GetVarResponse) -> RenderableType:
    currency = answer.stamp.base_currency
    table = _table("by", ("VaR component", "share", "alone", "positions"))
    for one in answer.groups:
        table.add_row(
            Text(f"{one.grouping} {one.label or '(none)'}"),
            money(one.component, currency),
            percent(figure(one, "share")),
            money(one.standalone, currency),
            f"{one.positions}",
        )
    return table


def stress(answer: risk_analytics_pb2.GetStressResponse) -> RenderableType:
    stamp, currency = answer.stamp, answer.stamp.base_currency
    table = _table("scenario", ("loss", "of equity", "unaffected"))
    worst = answer.worst_stress.name if answer.worst_stress.loss else ""
    for one in answer.results:
        loss = one.stress_loss
        table.add_row(
            Text(f"{loss.name}{'  ← worst' if loss.name == worst else ''}"),
            money(loss.loss, currency),
            percent(figure(loss, "loss_ratio")),
            f"{one.unaffected_positions} of {one.positions}",
        )
    parts: list[RenderableType] = [_head("Stress", stamp), table]
    found = next((one for one in answer.results if one.stress_loss.name == worst and one.contributions), None)
    parts.append(_contributions(found, currency) if found is not None else Text(NOTHING_HELD))
    if answer.grids:
        parts.append(_grids(answer.grids, currency))
    if answer.replays:
        parts.append(_replays(answer.replays, currency))
    return Group(*parts, *_warnings(stamp.warnings))


def _contributions(result: risk_analytics_pb2.StressResult, currency: str) -> RenderableType:
    table = _table("position", ("loss", "return"), "factors")
    for one in result.contributions[:POSITIONS_MAX]:
        table.add_row(
            Text(_position(one.strategy, one.symbol)),
            money(one.loss, currency),
            percent(figure(one, "instrument_return")),
            Text(", ".join(one.factors) or "none: unaffected", style="dim"),
        )
    table.caption = Text(f"{result.stress_loss.name}{_more(len(result.contributions))}")
    return table


def _grids(grids: Iterable[risk_analytics_pb2.UnderlyingGrid], currency: str) -> RenderableType:
    table = _table("underlying", ("worst loss", "at spot", "at volatility"))
    for one in grids:
        table.add_row(
            Text(one.underlying),
            money(one.worst.loss, currency),
            f"{one.worst.spot_shock:+.1%}",
            f"{one.worst.volatility_change * 100:+.0f} pt",
        )
    return table


def _replays(replays: Iterable[risk_analytics_pb2.ReplayLoss], currency: str) -> RenderableType:
    table = _table("window", ("worst P&L", "on", "covered"), "status")
    for one in replays:
        has_worst = one.HasField("worst_point")
        table.add_row(
            Text(one.window),
            money(one.worst_point.cumulative_pnl if has_worst else None, currency),
            one.worst_point.date if has_worst else MISSING,
            percent(figure(one, "covered_share")),
            Text(_name(risk_analytics_pb2.ReplayStatus, one.status, "REPLAY_STATUS_")),
        )
    return table


def reverse_stress(answer: risk_analytics_pb2.GetReverseStressResponse) -> RenderableType:
    stamp, currency = answer.stamp, answer.stamp.base_currency
    target = money(answer.target_loss, currency)
    if answer.reachable:
        found = Text(f"{answer.scenario} costs {target} at {answer.multiplier:.4g} times its shocks.")
    else:
        most = money(answer.loss_max, currency)
        found = Text(f"{answer.scenario} does not reach {target}: the most it costs is {most}.", style="green")
    parts: list[RenderableType] = [_head("Reverse stress", stamp), found]
    if answer.HasField("most_likely"):
        parts.append(_likeliest(answer.most_likely, currency))
    return Group(*parts, *_warnings(stamp.warnings))


def _likeliest(shock: risk_analytics_pb2.MostLikelyShock, currency: str) -> RenderableType:
    if not shock.shocks:
        return Text("No joint move of the instruments costs as much.")
    table = _table("instrument", ("move", "loss"))
    for one in shock.shocks[:POSITIONS_MAX]:
        table.add_row(Text(one.name), percent(one.shock), money(one.loss, currency))
    impossible = "" if shock.feasible else f" · impossible for {', '.join(shock.infeasible_symbols)}"
    far = f"the likeliest day that does: {shock.distance:.2f} standard deviations away{impossible}"
    table.caption = Text(f"{far}{_more(len(shock.shocks))}")
    return table


def replay(answer: risk_analytics_pb2.ReplayHistoryResponse) -> RenderableType:
    stamp, currency = answer.stamp, answer.stamp.base_currency
    parts: list[RenderableType] = [_head(f"Replay of {answer.window}", stamp)]
    status = _name(risk_analytics_pb2.ReplayStatus, answer.status, "REPLAY_STATUS_")
    if not answer.HasField("worst_point"):
        return Group(*parts, Text(f"No figure: {status}."), *_warnings(stamp.warnings))
    worst, last = answer.worst_point, answer.days[-1]
    parts.append(
        Text(
            f"Held from {answer.start_date} over {len(answer.days)} days to {last.date}: "
            f"{money(last.cumulative_pnl, currency)} at the end, {money(worst.cumulative_pnl, currency)} at worst on "
            f"{worst.date}, deepest fall {money(answer.max_drawdown, currency)}; {status}, "
            f"{percent(figure(answer, 'covered_share'))} of the book covered."
        )
    )
    if not answer.positions:
        parts.append(Text(NOTHING_HELD))
        return Group(*parts, *_warnings(stamp.warnings))
    table = _table("position", ("P&L at the worst point",))
    for one in answer.positions[:POSITIONS_MAX]:
        table.add_row(Text(_position(one.strategy, one.symbol)), money(one.pnl, currency))
    table.caption = Text(_more(len(answer.positions)).lstrip(" ·"))
    return Group(*parts, table, *_warnings(stamp.warnings))


def greeks(answer: risk_analytics_pb2.GetGreeksResponse) -> RenderableType:
    stamp, currency = answer.stamp, answer.stamp.base_currency
    head = _head("Greeks", stamp)
    if not answer.positions:
        return Group(head, Text("Nothing is held."), *_warnings(stamp.warnings))
    table = _table("", (*(name for _, name in GREEKS), "ρ point"))
    for group in answer.underlyings:
        table.add_row(Text(group.underlying, style="bold"), *_greeks(group.greeks, currency))
        for one in answer.positions:
            if one.underlying == group.underlying and one.symbol != group.underlying:
                name = Text(f"  {_position(one.strategy, one.symbol)}", style="dim")
                table.add_row(name, *_greeks(one.greeks, currency))
    total = _greeks(answer.total, currency)
    table.add_row(Text("total", style="bold"), MISSING, *total[1:])
    return Group(head, table, *_warnings(stamp.warnings))


def _greeks(of: risk_analytics_pb2.Greeks, currency: str) -> list[str]:
    delta, *rest = (getattr(of, field) for field, _ in (*GREEKS, ("rho", "")))
    return [render.quantity(round(delta, 4)), *(money(value, currency) for value in rest)]


def report(answer: risk_analytics_pb2.GetRiskReportResponse) -> RenderableType:
    stamp, figures, currency = answer.stamp, answer.report, answer.stamp.base_currency
    sign, style = LEVEL_SIGNS.get(answer.level, render.UNKNOWN_SIGN)
    level = Text(f"{sign} {_name(risk_pb2.RiskLevel, answer.level, 'RISK_LEVEL_').upper()}", style=style)
    if answer.level_gauges:
        level.append(f"  by {', '.join(answer.level_gauges)}", style="default")
    level.append(f"  · report {render.age(answer.report_age)} old", style="dim")
    parts: list[RenderableType] = [_head("Risk report", stamp), level, _gauges(answer.gauges)]
    parts.append(_figures(figures, answer.profit_and_loss, currency))
    if answer.trends:
        parts.append(_trends(answer.trends))
    if answer.validations:
        parts.append(_validations(answer.validations))
    for one in answer.tightenings:
        parts.append(
            Text(f"Tightened to {percent(one.factor)}: {', '.join(one.measures)}: {one.reason}", style="yellow")
        )
    parts.append(_heat_map(answer.heat_map) if answer.HasField("heat_map") else Text(NOTHING_HELD))
    parts += portfolio(answer)
    return Group(*parts, *_warnings(stamp.warnings))


def _gauges(gauges: Iterable[risk_analytics_pb2.RiskGauge]) -> RenderableType:
    table = _table("gauge", ("value", "moderate", "high", "critical"), "level", "")
    for one in gauges:
        sign, style = LEVEL_SIGNS.get(one.level, render.UNKNOWN_SIGN)
        table.add_row(
            Text(one.gauge),
            percent(figure(one, "value")),
            percent(one.moderate_threshold),
            percent(one.high_threshold),
            percent(one.critical_threshold),
            Text(f"{sign} {_name(risk_pb2.RiskLevel, one.level, 'RISK_LEVEL_')}", style=style),
            Text(one.note, style="dim"),
        )
    return table


def _figures(figures: risk_pb2.RiskReport, pnl: risk_analytics_pb2.ProfitAndLoss, currency: str) -> RenderableType:
    names = (("VaR 95", "var_95"), ("VaR 99", "var_99"), ("ES 95", "es_95"), ("ES 99", "es_99"))
    lines = [" · ".join(f"{name} {money(figure(figures, field), currency)}" for name, field in names)]
    if figures.HasField("worst_stress"):
        lines.append(f"worst stress {figures.worst_stress.name} {money(figures.worst_stress.loss, currency)}")
    session, opening = figure(pnl.session, "total"), figure(pnl.since_opening, "total")
    lines.append(f"P&L of the session {money(session, currency)} · since opening {money(opening, currency)}")
    lines.append(
        f"drawdown {percent(figure(pnl, 'drawdown'))} · of the session {percent(figure(pnl, 'drawdown_session'))}"
        f" · since reset {percent(figure(pnl, 'drawdown_since_reset'))}"
    )
    return Text("\n".join(lines))


def _trends(trends: Iterable[risk_analytics_pb2.FigureTrend]) -> RenderableType:
    table = _table("trend", ("sessions", "last", "change", "slope", "percentile"))
    for one in trends:
        scale = percent if one.figure == "drawdown" else _plain
        table.add_row(
            Text(one.figure),
            f"{one.sessions}",
            scale(one.last),
            scale(one.change),
            scale(figure(one, "slope")),
            percent(figure(one, "percentile")),
        )
    return table


def _plain(value: float | None) -> str:
    return money(value, "")


def _validations(found: Iterable[risk_analytics_pb2.ModelValidation]) -> RenderableType:
    table = _table("model", ("confidence", "sessions", "exceptions", "expected"), "zone", "verdict")
    for one in found:
        table.add_row(
            Text(one.method),
            f"{one.confidence:.4g}",
            f"{one.sessions}",
            f"{one.exceptions}",
            f"{one.expected:.1f}",
            Text(one.zone or MISSING),
            Text(f"{one.verdict}{': ' + one.reasons[0] if one.reasons else ''}"),
        )
    return table


def _heat_map(table: risk_analytics_pb2.HeatMap) -> RenderableType:
    shown = _table("position", [f"{name} ({unit})" for name, unit in zip(table.measures, table.units, strict=True)])
    for row in table.rows[:POSITIONS_MAX]:
        cells = zip(row.cells, table.units, strict=True)
        shown.add_row(Text(row.symbol), *(_heat_cell(cell, unit) for cell, unit in cells))
    shown.caption = Text(f"hottest first{_more(len(table.rows))}")
    return shown


def _heat_cell(cell: risk_analytics_pb2.HeatCell, unit: str) -> Text:
    if not cell.HasField("value"):
        return Text(MISSING, style="magenta")
    is_ratio = unit in ("equity", "fraction", "ratio")
    words = percent(cell.value) if is_ratio else _plain(cell.value)
    if not cell.HasField("share"):
        return Text(words)
    sign, style = LEVEL_SIGNS.get(cell.level, render.UNKNOWN_SIGN)
    return Text(f"{words} {sign} {cell.share:.0%}", style=style)


# --- what all answers share -------------------------------------------------------------------------------------------


def _head(title: str, stamp: risk_pb2.RiskStamp) -> Text:
    holder = f"{stamp.account}/{stamp.strategy}" if stamp.HasField("strategy") else stamp.account
    head = Text(f"{title} of {holder}", style="bold")
    words = [f"record {stamp.sequence}", render.moment(stamp.compute_time)]
    if stamp.HasField("equity"):
        words.append(f"equity {money(stamp.equity, stamp.base_currency)}")
    head.append(" · " + " · ".join(words), style="dim")
    inputs = []
    if stamp.HasField("mark_age"):
        inputs.append(f"marks up to {render.age(stamp.mark_age)} old")
    if stamp.HasField("model_age"):
        closes = f", closes to {stamp.last_price_date}" if stamp.last_price_date else ""
        inputs.append(f"model of {stamp.model_session_date}, {render.age(stamp.model_age)} old{closes}")
    if stamp.open_orders_excluded:
        inputs.append("positions only")
    if inputs:
        head.append("\n" + " · ".join(inputs), style="dim")
    return head


def _warnings(warnings: Sequence[str]) -> list[RenderableType]:
    return [Text("\n".join(f"⚠ {warning}" for warning in warnings), style="yellow")] if warnings else []


def _table(name: str, numbers: Iterable[str], *words: str) -> Table:
    table = Table(box=box.SIMPLE, header_style="bold", caption_justify="left")
    table.add_column(name, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    for column in words:
        table.add_column(column, overflow="fold")
    return table


def _position(strategy: str, symbol: str) -> str:
    return f"{strategy}/{symbol}" if strategy else symbol


def _more(count: int) -> str:
    return f" · {count - POSITIONS_MAX} more in --json" if count > POSITIONS_MAX else ""


def _name(kind: object, value: int, prefix: str) -> str:
    """An enum's value in small words."""
    return str(kind.Name(value)).removeprefix(prefix).lower().replace("_", " ")  # type: ignore[attr-defined]
