"""The portfolio's part of a report as messages: returns, correlations, P&L by factor. Nothing is computed.

Imports the modules that compute, for their types: only the worker's server may import this.
"""

from engine.risk.portfolio_answers import Correlations, FactorGains, PortfolioMeasures, ReturnFigures
from riskgateway.v1 import risk_analytics_pb2


def add_portfolio(message: risk_analytics_pb2.GetRiskReportResponse, measures: PortfolioMeasures) -> None:
    message.account_returns.CopyFrom(_returns(measures.account))
    message.book_returns.CopyFrom(_returns(measures.book))
    message.asset_correlation.CopyFrom(_matrix(measures.assets))
    message.strategy_correlation.CopyFrom(_matrix(measures.strategies))
    message.factor_attribution.CopyFrom(_factors(measures.factors))


def _returns(figures: ReturnFigures) -> risk_analytics_pb2.ReturnFigures:
    dates, found, fit = figures.dates, figures.statistics, figures.fit
    message = risk_analytics_pb2.ReturnFigures(
        observations=len(dates), benchmark=figures.benchmark, warnings=figures.warnings
    )
    if dates:
        message.first_date, message.last_date = dates[0].isoformat(), dates[-1].isoformat()
    if found is not None:
        of_statistics = risk_analytics_pb2.ReturnFigures(
            mean=found.mean,
            volatility=found.volatility,
            downside_deviation=found.downside_deviation,
            skewness=found.skewness,
            kurtosis=found.kurtosis,
            worst=[
                risk_analytics_pb2.WorstStretch(
                    days=one.days,
                    loss=one.loss,
                    first_date=dates[one.first].isoformat(),
                    last_date=dates[one.last].isoformat(),
                )
                for one in found.worst
            ],
        )
        message.MergeFrom(of_statistics)
    if fit is not None:
        of_fit = risk_analytics_pb2.ReturnFigures(
            benchmark_observations=fit.n_observations,
            beta=fit.beta,
            alpha=fit.alpha,
            r_squared=fit.r_squared,
            residual_volatility=fit.residual_volatility,
        )
        message.MergeFrom(of_fit)
    return message


def _matrix(found: Correlations) -> risk_analytics_pb2.CorrelationMatrix:
    matrix = found.matrix
    if matrix is None:
        return risk_analytics_pb2.CorrelationMatrix(warnings=found.warnings)
    return risk_analytics_pb2.CorrelationMatrix(
        rows=[
            risk_analytics_pb2.CorrelationRow(name=name, correlations=row)
            for name, row in zip(matrix.names, matrix.matrix.tolist(), strict=True)
        ],
        observations=matrix.n_observations,
        constant=matrix.constant,
        mean=matrix.mean,
        warnings=found.warnings,
    )


def _factors(gains: FactorGains) -> risk_analytics_pb2.FactorAttribution:
    found = gains.attribution
    if found is None:
        return risk_analytics_pb2.FactorAttribution(warnings=gains.warnings)
    return risk_analytics_pb2.FactorAttribution(
        total=found.total,
        factors=[
            risk_analytics_pb2.FactorGain(factor=one.label, move=gains.moves[one.label], gain=one.pnl)
            for one in found.factors
        ],
        specific=found.specific,
        warnings=gains.warnings,
    )
