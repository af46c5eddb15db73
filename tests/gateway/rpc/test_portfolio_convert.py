"""The portfolio's part of a report on the wire: each figure in its field, and none where there is none."""

from datetime import date

import numpy as np
import pytest

from engine.risk.attribution import attribute_factors
from engine.risk.correlation import correlation_matrix
from engine.risk.portfolio import benchmark_fit, portfolio_statistics
from engine.risk.portfolio_answers import Correlations, FactorGains, PortfolioMeasures, ReturnFigures
from gateway.rpc.convert.portfolio import add_portfolio
from riskgateway.v1 import risk_analytics_pb2

RETURNS = [0.01, -0.03, -0.01, 0.02, 0.015]
DATES = tuple(date(2024, 1, day) for day in range(1, 6))
NO_RETURNS = ReturnFigures((), None, None, "SP500", ("none",))


def sent(measures: PortfolioMeasures) -> risk_analytics_pb2.GetRiskReportResponse:
    """As it arrives at the other end."""
    message = risk_analytics_pb2.GetRiskReportResponse()
    add_portfolio(message, measures)
    return risk_analytics_pb2.GetRiskReportResponse.FromString(message.SerializeToString())


def test_every_figure_arrives() -> None:
    statistics = portfolio_statistics(RETURNS)
    fit = benchmark_fit(RETURNS, [0.02, -0.01, -0.02, 0.01, 0.0])
    series = np.column_stack((RETURNS, RETURNS[::-1], np.zeros(5)))
    matrix = correlation_matrix(series, ("AAA", "BBB", "FLAT"))
    gains = attribute_factors([1_000.0], [[2.0]], [0.01], [50.0], ("SP500",))

    arrived = sent(
        PortfolioMeasures(
            account=NO_RETURNS,
            book=ReturnFigures(DATES, statistics, fit, "SP500", ("five days",)),
            assets=Correlations(matrix, ("few",)),
            strategies=Correlations(None, ("one",)),
            factors=FactorGains(gains, {"SP500": 0.01}, ("specific",)),
        )
    )

    book = arrived.book_returns
    assert (book.observations, book.first_date, book.last_date) == (5, "2024-01-01", "2024-01-05")
    assert [book.mean, book.volatility, book.downside_deviation, book.skewness, book.kurtosis] == [
        statistics.mean,
        statistics.volatility,
        statistics.downside_deviation,
        statistics.skewness,
        statistics.kurtosis,
    ]
    assert [(one.days, one.first_date, one.last_date) for one in book.worst] == [
        (1, "2024-01-02", "2024-01-02"),
        (5, "2024-01-01", "2024-01-05"),
    ]
    assert book.worst[0].loss == pytest.approx(0.03)
    assert (book.benchmark, book.benchmark_observations) == ("SP500", 5)
    assert (book.beta, book.alpha, book.r_squared) == (fit.beta, fit.alpha, fit.r_squared)
    assert (book.residual_volatility, list(book.warnings)) == (fit.residual_volatility, ["five days"])
    rows = arrived.asset_correlation.rows
    assert [row.name for row in rows] == ["AAA", "BBB"]
    assert [list(row.correlations) for row in rows] == matrix.matrix.tolist()
    assert (arrived.asset_correlation.observations, list(arrived.asset_correlation.constant)) == (5, ["FLAT"])
    assert (arrived.asset_correlation.mean, list(arrived.asset_correlation.warnings)) == (matrix.mean, ["few"])
    factors = arrived.factor_attribution
    assert [(one.factor, one.move) for one in factors.factors] == [("SP500", 0.01)]
    assert [factors.factors[0].gain, factors.total, factors.specific] == pytest.approx([20.0, 50.0, 30.0])
    assert list(factors.warnings) == ["specific"]


def test_what_is_not_known_is_absent_and_says_why() -> None:
    unknown = Correlations(None, ("one",))

    arrived = sent(PortfolioMeasures(NO_RETURNS, NO_RETURNS, unknown, unknown, FactorGains(None, {}, ("no mark",))))

    assert {field.name for field, _ in arrived.account_returns.ListFields()} == {"benchmark", "warnings"}
    assert list(arrived.account_returns.warnings) == ["none"]
    assert not arrived.strategy_correlation.rows and not arrived.strategy_correlation.HasField("mean")
    assert not arrived.factor_attribution.HasField("total") and not arrived.factor_attribution.HasField("specific")
    assert list(arrived.factor_attribution.warnings) == ["no mark"]
