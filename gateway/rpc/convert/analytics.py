"""The analyst's answers as messages of RiskAnalytics. Nothing is computed but shares of equity and orders of rows.

Imports the modules that compute, for their types: only the worker's server may import this.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np

from engine.pnl import AccountPnl, Gains, ProfitAndLoss
from engine.report import ModelVerdict
from engine.risk.decomposition import Decomposition
from engine.risk.estimate import Model, VarEstimate
from engine.risk.greeks import GreekLine
from engine.risk.greeks_answers import GreeksAnswer
from engine.risk.heat_map import Cell, HeatMap
from engine.risk.horizon import UltraShortVar
from engine.risk.inquiry import Method, Stamp, ratio_of
from engine.risk.level import Level
from engine.risk.loss_answers import LossAnswer
from engine.risk.replay import Replay, ReplayPoint, ReplayStatus
from engine.risk.report_answers import ReportAnswer
from engine.risk.reverse_stress import JointShock
from engine.risk.stress import GridLoss, GridPoint, ScenarioLoss
from engine.risk.stress_answers import OWN_WINDOW, ReplayAnswer, ReverseAnswer, StressAnswer
from engine.risk.stress_book import LeftOut
from engine.risk.trend import Trend
from engine.risk.var_answers import Answered, Contributions, Reductions, VarAnswer
from engine.risk.verdict import Reading
from gateway.rpc.convert.losses import session_loss, status_message
from gateway.rpc.convert.portfolio import add_portfolio
from gateway.rpc.convert.responses import duration, known, timestamp
from gateway.rpc.convert.risk_state import limit_use, report_message
from riskgateway.v1 import order_pb2, risk_analytics_pb2, risk_pb2

_METHODS: Mapping[Method, "risk_pb2.VarMethod.ValueType"] = {
    "historical": risk_pb2.VAR_METHOD_HISTORICAL,
    "parametric": risk_pb2.VAR_METHOD_PARAMETRIC,
    "monte_carlo": risk_pb2.VAR_METHOD_MONTE_CARLO,
    "filtered": risk_pb2.VAR_METHOD_FILTERED,
}
_HORIZON_METHODS = {
    "overlapping": risk_pb2.HORIZON_METHOD_OVERLAPPING,
    "square_root": risk_pb2.HORIZON_METHOD_SQUARE_ROOT,
}
_QUANTILES = {
    "order_statistic": risk_pb2.QUANTILE_METHOD_ORDER_STATISTIC,
    "linear": risk_pb2.QUANTILE_METHOD_LINEAR,
    "closed_form": risk_pb2.QUANTILE_METHOD_CLOSED_FORM,
}
_MEANS = {"zero": risk_pb2.MEAN_METHOD_ZERO, "sample": risk_pb2.MEAN_METHOD_SAMPLE}
_DISTRIBUTIONS: Mapping[Model, "risk_pb2.VarDistribution.ValueType"] = {
    "gaussian": risk_pb2.VAR_DISTRIBUTION_GAUSSIAN,
    "student_t": risk_pb2.VAR_DISTRIBUTION_STUDENT_T,
    "cornish_fisher": risk_pb2.VAR_DISTRIBUTION_CORNISH_FISHER,
}
_FILTERS: Mapping[Model, "risk_pb2.VolatilityFilter.ValueType"] = {
    "ewma": risk_pb2.VOLATILITY_FILTER_EWMA,
    "garch": risk_pb2.VOLATILITY_FILTER_GARCH,
}
_COPULAS: Mapping[Model, "risk_pb2.CopulaFamily.ValueType"] = {
    "gaussian_copula": risk_pb2.COPULA_FAMILY_GAUSSIAN,
    "student_t_copula": risk_pb2.COPULA_FAMILY_STUDENT_T,
}
_ULTRA_SHORT = {
    "OK": risk_analytics_pb2.ULTRA_SHORT_STATUS_OK,
    "WARNING": risk_analytics_pb2.ULTRA_SHORT_STATUS_WARNING,
    "BREACHED": risk_analytics_pb2.ULTRA_SHORT_STATUS_BREACHED,
}
_REPLAYED = {
    ReplayStatus.COMPLETE: risk_analytics_pb2.REPLAY_STATUS_COMPLETE,
    ReplayStatus.PARTIAL: risk_analytics_pb2.REPLAY_STATUS_PARTIAL,
    ReplayStatus.NO_DATA: risk_analytics_pb2.REPLAY_STATUS_NO_DATA,
}
assert {*_DISTRIBUTIONS, *_FILTERS, *_COPULAS, "empirical"} == {*get_args(Model)}, "every model has its word"
_LEVELS = {
    Level.LOW: risk_pb2.RISK_LEVEL_LOW,
    Level.MODERATE: risk_pb2.RISK_LEVEL_MODERATE,
    Level.HIGH: risk_pb2.RISK_LEVEL_HIGH,
    Level.CRITICAL: risk_pb2.RISK_LEVEL_CRITICAL,
}


def stamp_message(stamp: Stamp, warnings: Sequence[str] = ()) -> risk_pb2.RiskStamp:
    """`warnings`: of the answer, after the stamp's own."""
    message = risk_pb2.RiskStamp(
        account=stamp.account,
        sequence=stamp.seq,
        compute_time=timestamp(stamp.time_us),
        risk_model=stamp.model,
        model_session_date=stamp.model_session,
        base_currency=stamp.base_currency,
        equity=stamp.equity,
        unaffected_positions=stamp.unaffected,
        warnings=tuple(dict.fromkeys((*stamp.warnings, *warnings))),
        strategy=stamp.strategy,
        last_price_date=stamp.last_price_date,
        open_orders_excluded=not stamp.open_orders,
    )
    if stamp.marks_oldest_us:
        message.mark_age.CopyFrom(duration(max(0, stamp.time_us - stamp.marks_oldest_us)))
    if stamp.model_built_us:
        message.model_age.CopyFrom(duration(max(0, stamp.time_us - stamp.model_built_us)))
    return message


def loss_response(answer: LossAnswer) -> risk_analytics_pb2.GetLossHistoryResponse:
    return risk_analytics_pb2.GetLossHistoryResponse(
        stamp=stamp_message(answer.stamp),
        sessions=map(session_loss, answer.sessions),
        status=status_message(answer.status),
        limits=[limit_use(use, answer.stamp.base_currency) for use in answer.uses],
    )


def report_response(answer: ReportAnswer) -> risk_analytics_pb2.GetRiskReportResponse:
    verdict, stamp, report = answer.verdict, answer.stamp, answer.report
    message = risk_analytics_pb2.GetRiskReportResponse(
        report=report_message(answer.report, stamp.base_currency),
        stamp=stamp_message(stamp),
        report_age=duration(max(0, stamp.time_us - answer.report.time_us)),
        level=_LEVELS[verdict.level],
        level_gauges=verdict.decided_by,
        gauges=map(_gauge, verdict.readings),
        unevaluable_level=_LEVELS[answer.policy.unevaluable],
        profit_and_loss=_profit_and_loss(answer.pnl),
        trends=map(_trend, answer.trends),
        validations=map(_validation, report.validation),
        tightenings=[
            risk_analytics_pb2.LimitTightening(
                tightening_id=one.tightening_id,
                measures=one.measures,
                factor=one.factor,
                reason=one.reason,
                until_date=one.until,
            )
            for one in report.tightenings
        ],
    )
    if answer.heat is not None:
        message.heat_map.CopyFrom(_heat_map(answer.heat))
    add_portfolio(message, answer.portfolio)
    return message


def _profit_and_loss(pnl: ProfitAndLoss) -> risk_analytics_pb2.ProfitAndLoss:
    by_group = {
        "strategy": pnl.by_strategy,
        "asset_class": pnl.by_asset_class,
        "sector": pnl.by_sector,
        "symbol": pnl.by_symbol,
    }
    return risk_analytics_pb2.ProfitAndLoss(
        session=_account_gains(pnl.session),
        since_opening=_account_gains(pnl.since_opening),
        groups=[
            risk_analytics_pb2.GroupGains(
                grouping=grouping,
                label=group.name,
                session=_gains(group.session),
                since_opening=_gains(group.since_opening),
            )
            for grouping, groups in by_group.items()
            for group in groups
        ],
        drawdown=known(pnl.drawdowns.from_peak),
        drawdown_session=known(pnl.drawdowns.from_session_peak),
        drawdown_session_start=known(pnl.drawdowns.from_session_start),
        drawdown_since_reset=known(pnl.drawdowns.since_reset),
    )


def _account_gains(found: AccountPnl) -> risk_analytics_pb2.AccountGains:
    return risk_analytics_pb2.AccountGains(
        total=known(found.total), positions=_gains(found.positions), fees=known(found.fees), other=known(found.other)
    )


def _gains(found: Gains) -> risk_analytics_pb2.Gains:
    return risk_analytics_pb2.Gains(realised=known(found.realised), unrealised=known(found.unrealised))


def _trend(trend: Trend) -> risk_analytics_pb2.FigureTrend:
    return risk_analytics_pb2.FigureTrend(
        figure=trend.figure,
        sessions=trend.n_sessions,
        missing=trend.n_missing,
        first=trend.first,
        last=trend.last,
        change=trend.change,
        change_session=trend.change_session,
        slope=trend.slope,
        percentile=trend.percentile,
    )


def _validation(verdict: ModelVerdict) -> risk_analytics_pb2.ModelValidation:
    return risk_analytics_pb2.ModelValidation(
        method=verdict.method,
        confidence=verdict.confidence,
        verdict=verdict.verdict,
        reasons=verdict.reasons,
        sessions=verdict.n,
        exceptions=verdict.exceptions,
        expected=verdict.expected,
        kupiec_p_value=known(verdict.kupiec_p_value),
        independence_p_value=known(verdict.independence_p_value),
        coverage_p_value=known(verdict.coverage_p_value),
        zone=verdict.zone,
        z2=known(verdict.z2),
    )


def _heat_map(table: HeatMap) -> risk_analytics_pb2.HeatMap:
    rows = zip(table.rows, table.cells, strict=True)
    return risk_analytics_pb2.HeatMap(
        measures=table.measures,
        units=table.units,
        rows=[risk_analytics_pb2.HeatRow(symbol=name, cells=map(_heat_cell, cells)) for name, cells in rows],
    )


def _heat_cell(cell: Cell) -> risk_analytics_pb2.HeatCell:
    return risk_analytics_pb2.HeatCell(
        value=cell.value,
        limit=cell.limit,
        share=cell.share,
        intensity=cell.intensity,
        level=risk_pb2.RISK_LEVEL_UNSPECIFIED if cell.level is None else _LEVELS[cell.level],
        note=cell.note,
    )


def _gauge(reading: Reading) -> risk_analytics_pb2.RiskGauge:
    return risk_analytics_pb2.RiskGauge(
        gauge=reading.gauge,
        value=reading.value,
        level=_LEVELS[reading.level],
        moderate_threshold=reading.thresholds.moderate,
        high_threshold=reading.thresholds.high,
        critical_threshold=reading.thresholds.critical,
        note=reading.note,
    )


# --- value at risk ----------------------------------------------------------------------------------------------------


def var_response(answer: VarAnswer) -> risk_analytics_pb2.GetVarResponse:
    stamp = answer.stamp
    message = risk_analytics_pb2.GetVarResponse(
        stamp=stamp_message(stamp, [w for one in answer.answered for w in one.estimate.warnings]),
        estimates=[_estimate(one, stamp) for one in answer.answered],
        unified_value_at_risk=answer.unified,
        gap_loss=None if answer.gap is None else answer.gap.loss,
    )
    if answer.contributions is not None:
        _add_contributions(message, answer.contributions)
    if answer.ultra_short is not None:
        message.ultra_short.CopyFrom(_ultra_short(answer.ultra_short, answer))
    return message


def _estimate(answered: Answered, stamp: Stamp) -> risk_pb2.VarEstimate:
    found, asked = answered.estimate, answered.asked
    return risk_pb2.VarEstimate(
        method=_METHODS[found.method],
        confidence=found.confidence,
        horizon_days=found.horizon_days,
        horizon_method=_HORIZON_METHODS[found.horizon_method],
        quantile_method=_QUANTILES[found.quantile],
        mean_method=_MEANS[found.mean],
        value_at_risk=found.var,
        expected_shortfall=found.es,
        value_at_risk_ratio=ratio_of(found.var, stamp),
        expected_shortfall_ratio=ratio_of(found.es, stamp),
        n_observations=found.n_observations,
        requested_method=_METHODS[asked.method] if asked.method != found.method else risk_pb2.VAR_METHOD_UNSPECIFIED,
        distribution=_distribution(found),
        filter=_FILTERS.get(found.model, risk_pb2.VOLATILITY_FILTER_UNSPECIFIED),
        copula=_COPULAS.get(found.model, risk_pb2.COPULA_FAMILY_UNSPECIFIED),
        degrees_of_freedom=found.degrees_of_freedom,
        seed=found.seed,
        warnings=found.warnings,
        n_paths=found.n_paths,
    )


def _distribution(found: VarEstimate) -> "risk_pb2.VarDistribution.ValueType":
    return _DISTRIBUTIONS.get(found.model, risk_pb2.VAR_DISTRIBUTION_UNSPECIFIED)


def _add_contributions(message: risk_analytics_pb2.GetVarResponse, found: Contributions) -> None:
    main = found.main
    message.component_total, message.shortfall_component_total = main.total, found.main_shortfall.total
    message.component_confidence, message.component_method = main.confidence, _METHODS[main.method]
    if main.sample_gap is not None:
        message.sample_gap = main.sample_gap
    if main.intensity is not None:
        message.shrinkage = main.intensity
    if found.historical is not None:
        message.historical_component_total = found.historical.total
    if found.historical_shortfall is not None:
        message.historical_shortfall_component_total = found.historical_shortfall.total
    message.components.extend(_components(found))
    for grouping, groups in main.groups.items():
        message.groups.extend(
            risk_analytics_pb2.VarGroup(
                grouping=grouping,
                label=group.label,
                positions=group.n_positions,
                component=group.component,
                share=group.share,
                standalone=group.standalone,
                incremental=group.incremental,
            )
            for group in groups
        )


def _components(found: Contributions) -> Iterable[risk_analytics_pb2.VarComponent]:
    """By position, the greatest component first."""
    holdings, main, shares = found.holdings, found.main, found.main.shares
    for row in np.argsort(-main.component, kind="stable").tolist():
        yield risk_analytics_pb2.VarComponent(
            strategy=holdings.strategies[row],
            symbol=holdings.symbols[row],
            component=main.component[row],
            marginal=main.marginal[row],
            standalone=main.standalone[row],
            incremental=main.incremental[row],
            share=None if shares is None else shares[row],
            shortfall_component=found.main_shortfall.component[row],
            historical_component=_component_of(found.historical, row),
            historical_shortfall_component=_component_of(found.historical_shortfall, row),
        )


def _component_of(decomposition: Decomposition | None, row: int) -> float | None:
    return None if decomposition is None else float(decomposition.component[row])


def _ultra_short(found: UltraShortVar, answer: VarAnswer) -> risk_analytics_pb2.UltraShortVar:
    reductions = answer.reductions
    return risk_analytics_pb2.UltraShortVar(
        var_1d=found.var_1d,
        var_3d=found.var_3d,
        var_5d=found.var_5d,
        confidence=found.confidence,
        current_exposure=answer.session_pnl,
        status=_ULTRA_SHORT[found.status],
        gap_horizons=found.gap_horizons_days,
        limits=[
            risk_analytics_pb2.UltraShortLimit(horizon_days=days, limit=limit)
            for days, limit in sorted(found.limits.items())
        ],
        excess=found.excess,
        reductions=() if reductions is None else _reductions(reductions),
        excess_left=0.0 if reductions is None else reductions.excess_left,
    )


def _reductions(found: Reductions) -> Iterable[risk_analytics_pb2.PlannedReduction]:
    for one, quantity in zip(found.planned, found.quantities, strict=True):
        yield risk_analytics_pb2.PlannedReduction(
            strategy=found.holdings.strategies[one.row],
            symbol=found.holdings.symbols[one.row],
            side=order_pb2.SIDE_BUY if one.lots > 0 else order_pb2.SIDE_SELL,
            quantity=quantity,
            excess_left=one.excess_left,
        )


# --- stress -----------------------------------------------------------------------------------------------------------


def stress_response(answer: StressAnswer) -> risk_analytics_pb2.GetStressResponse:
    stamp = answer.stamp
    message = risk_analytics_pb2.GetStressResponse(
        stamp=stamp_message(stamp),
        results=[_stress_result(one, stamp) for one in answer.losses],
        grids=map(_grid, answer.grids),
        replays=map(_replay_loss, answer.replays),
    )
    evaluated = [one for one in answer.losses if one.evaluated]
    if evaluated:
        message.worst_stress.CopyFrom(_stress_loss(max(evaluated, key=lambda one: one.loss), stamp))
    if answer.worst is not None:
        worst = answer.worst
        message.worst_case.CopyFrom(risk_analytics_pb2.WorstCase(kind=worst.kind, name=worst.name, loss=worst.loss))
    return message


def _stress_loss(one: ScenarioLoss, stamp: Stamp) -> risk_pb2.StressLoss:
    return risk_pb2.StressLoss(name=one.name, loss=one.loss, loss_ratio=ratio_of(one.loss, stamp))


def _stress_result(one: ScenarioLoss, stamp: Stamp) -> risk_analytics_pb2.StressResult:
    contributions = [
        risk_analytics_pb2.StressContribution(
            strategy=row.strategy,
            symbol=row.symbol,
            loss=row.loss,
            instrument_return=row.instrument_return,
            factor=row.factors[0] if row.factors else "",
            factors=row.factors,
        )
        for row in one.contributions()
    ]
    return risk_analytics_pb2.StressResult(
        stress_loss=_stress_loss(one, stamp),
        contributions=contributions,
        strategies=[
            risk_analytics_pb2.StrategyLoss(strategy=strategy, loss=loss)
            for strategy, loss in one.by_strategy().items()
        ],
        positions=one.positions,
        unaffected_positions=one.unaffected,
        left_out=_left_out(one.left_out),
    )


def _left_out(rows: Iterable[LeftOut]) -> list[risk_analytics_pb2.LeftOutPosition]:
    return [
        risk_analytics_pb2.LeftOutPosition(strategy=row.strategy, symbol=row.symbol, reason=row.reason) for row in rows
    ]


def _grid(one: GridLoss) -> risk_analytics_pb2.UnderlyingGrid:
    points = [
        GridPoint(spot, change, float(one.losses[at, place]))
        for at, spot in enumerate(one.spot_shocks)
        for place, change in enumerate(one.volatility_changes)
    ]
    return risk_analytics_pb2.UnderlyingGrid(
        underlying=one.underlying,
        points=map(_grid_point, points),
        worst=_grid_point(one.worst),
        left_out=_left_out(one.left_out),
    )


def _grid_point(point: GridPoint) -> risk_analytics_pb2.GridPoint:
    return risk_analytics_pb2.GridPoint(
        spot_shock=point.spot_shock, volatility_change=point.volatility_change, loss=point.loss
    )


def reverse_response(answer: ReverseAnswer) -> risk_analytics_pb2.GetReverseStressResponse:
    found = answer.found
    scan = zip(found.multipliers.tolist(), found.losses.tolist(), strict=True)
    message = risk_analytics_pb2.GetReverseStressResponse(
        stamp=stamp_message(answer.stamp),
        reachable=found.reachable,
        multiplier=found.multiplier,
        target_loss=found.target_loss,
        loss_max=found.loss_max,
        points=[risk_analytics_pb2.ReverseStressPoint(multiplier=at, loss=loss) for at, loss in scan],
        scenario=found.scenario,
        left_out=_left_out(found.left_out),
    )
    if answer.likeliest is not None:
        message.most_likely.CopyFrom(_most_likely(answer.likeliest))
    return message


def _most_likely(shock: JointShock) -> risk_analytics_pb2.MostLikelyShock:
    message = risk_analytics_pb2.MostLikelyShock(
        feasible=shock.feasible,
        loss=known(shock.loss) or 0.0,
        distance=known(shock.distance) or 0.0,
        plausibility=known(shock.plausibility) or 0.0,
        tail_probability=known(shock.tail_probability) or 0.0,
        infeasible_symbols=shock.infeasible,
    )
    if shock.shocks is not None and shock.contributions is not None:
        for place in np.argsort(-np.abs(shock.shocks), kind="stable").tolist():
            message.shocks.add(
                name=shock.names[place], shock=shock.shocks[place], loss=float(shock.contributions[place])
            )
    return message


# --- replay -----------------------------------------------------------------------------------------------------------


def replay_response(answer: ReplayAnswer) -> risk_analytics_pb2.ReplayHistoryResponse:
    found = answer.replay
    days = zip(found.dates, found.daily_pnl.tolist(), found.cumulative_pnl.tolist(), strict=True)
    message = risk_analytics_pb2.ReplayHistoryResponse(
        stamp=stamp_message(answer.stamp),
        days=[_replay_day(ReplayPoint(*day)) for day in days],
        max_drawdown=found.max_drawdown or 0.0,
        missing_symbols=dict.fromkeys(row.symbol for row in found.missing),
        status=_REPLAYED[found.status],
        window=found.window.name,
        window_source=found.window.source if found.window.name != OWN_WINDOW else "",
        start_date=found.start.isoformat() if found.start is not None else "",
        positions=_replay_positions(answer),
        left_out=_left_out(found.missing),
        covered_share=found.covered_share,
    )
    if found.worst is not None:
        message.worst_point.CopyFrom(_replay_day(found.worst))
    return message


def _replay_day(point: ReplayPoint) -> risk_analytics_pb2.ReplayDay:
    return risk_analytics_pb2.ReplayDay(date=point.date.isoformat(), pnl=point.pnl, cumulative_pnl=point.cumulative_pnl)


def _replay_positions(answer: ReplayAnswer) -> Iterable[risk_analytics_pb2.ReplayPosition]:
    pnl, book = answer.replay.position_pnl, answer.book
    for row in np.argsort(pnl, kind="stable").tolist():
        if np.isfinite(pnl[row]) and book.held[row] != 0.0:
            yield risk_analytics_pb2.ReplayPosition(
                strategy=book.strategies[row], symbol=book.instruments[row].symbol, pnl=pnl[row]
            )


def _replay_loss(found: Replay) -> risk_analytics_pb2.ReplayLoss:
    message = risk_analytics_pb2.ReplayLoss(
        window=found.window.name, status=_REPLAYED[found.status], covered_share=found.covered_share
    )
    if found.worst is not None:
        message.worst_point.CopyFrom(_replay_day(found.worst))
    return message


# --- Greeks -----------------------------------------------------------------------------------------------------------


def greeks_response(answer: GreeksAnswer) -> risk_analytics_pb2.GetGreeksResponse:
    total = _greeks(answer.total)
    total.delta = 0.0  # units of different underlyings
    return risk_analytics_pb2.GetGreeksResponse(
        stamp=stamp_message(answer.stamp),
        underlyings=[
            risk_analytics_pb2.UnderlyingGreeks(underlying=line.name, greeks=_greeks(line))
            for line in answer.underlyings
        ],
        positions=[
            risk_analytics_pb2.PositionGreeks(
                strategy=one.strategy, symbol=one.line.name, underlying=one.underlying, greeks=_greeks(one.line)
            )
            for one in answer.positions
        ],
        total=total,
        left_out=[risk_analytics_pb2.LeftOutPosition(symbol=one.symbol, reason=one.reason) for one in answer.left_out],
    )


def _greeks(line: GreekLine) -> risk_analytics_pb2.Greeks:
    return risk_analytics_pb2.Greeks(
        delta=line.delta,
        dollar_delta=line.dollar_delta,
        gamma=line.gamma_1pct,
        vega=line.vega,
        theta=line.theta,
        rho=line.rho,
    )
