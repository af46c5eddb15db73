"""The analytics commands against a real gRPC server on a loopback port: what they ask, print, and how they end.

The server is a small servicer of the generated code that answers what the test tells it to, and computes nothing.
"""

import json
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from gateway.cli.app import run
from riskgateway.v1 import limit_pb2, risk_analytics_pb2, risk_analytics_pb2_grpc, risk_pb2

ANSWERS = {
    "GetVar": risk_analytics_pb2.GetVarResponse,
    "GetStress": risk_analytics_pb2.GetStressResponse,
    "GetReverseStress": risk_analytics_pb2.GetReverseStressResponse,
    "ReplayHistory": risk_analytics_pb2.ReplayHistoryResponse,
    "GetGreeks": risk_analytics_pb2.GetGreeksResponse,
    "GetRiskReport": risk_analytics_pb2.GetRiskReportResponse,
    "GetLossHistory": risk_analytics_pb2.GetLossHistoryResponse,
}
STAMP = risk_pb2.RiskStamp(
    account="ALPHA",
    sequence=9,
    base_currency="USD",
    equity=1_000_000.0,
    model_session_date="2022-12-28",
    model_age=Duration(seconds=7_200),
    mark_age=Duration(seconds=3),
    last_price_date="2022-12-27",
    warnings=["mind the [gap]"],
)


@dataclass
class Worker:
    """What was asked, and what is answered."""

    answers: dict[str, Any] = field(default_factory=lambda: {name: kind(stamp=STAMP) for name, kind in ANSWERS.items()})
    requests: list[Any] = field(default_factory=list)
    failure: status_pb2.Status | None = None
    address: str = ""


def _answering(method: str) -> Any:
    def answer(self: "Analytics", request: Any, context: grpc.ServicerContext) -> Any:
        self.worker.requests.append(request)
        if self.worker.failure is not None:
            context.abort_with_status(rpc_status.to_status(self.worker.failure))
        return self.worker.answers[method]

    return answer


class Analytics(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    GetVar = _answering("GetVar")
    GetStress = _answering("GetStress")
    GetReverseStress = _answering("GetReverseStress")
    ReplayHistory = _answering("ReplayHistory")
    GetGreeks = _answering("GetGreeks")
    GetRiskReport = _answering("GetRiskReport")
    GetLossHistory = _answering("GetLossHistory")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service = Analytics(found)  # type: ignore[abstract]  # the base answers UNIMPLEMENTED
    risk_analytics_pb2_grpc.add_RiskAnalyticsServicer_to_server(service, server)
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None)


def ended(*argv: str) -> int | str | None:
    """The exit code of a command; typer itself ends those that it is done with."""
    try:
        return run(argv)
    except SystemExit as end:
        return end.code


def asked(worker: Worker, *argv: str) -> Any:
    """The request that a command which ends well sends."""
    assert ended(*argv, "--address", worker.address) == 0
    return worker.requests[-1]


def test_var_asks_for_every_method_with_components_unless_told(worker: Worker) -> None:
    blank = asked(worker, "var", "ALPHA")
    chosen = asked(
        worker,
        *("var", "ALPHA", "-m", "parametric", "-m", "monte-carlo", "-c", "0.975", "--horizon", "5", "-s", "momentum"),
        *(
            "--distribution",
            "student-t",
            "--copula",
            "student-t",
            "--filter",
            "garch",
            "--paths",
            "2000",
            "--seed",
            "5",
        ),
        *("--no-components", "--ultra-short", "--positions-only"),
    )

    assert list(blank.methods) == [risk_pb2.VAR_METHOD_ALL]
    assert blank.include_components and not blank.include_ultra_short
    assert list(chosen.methods) == [risk_pb2.VAR_METHOD_PARAMETRIC, risk_pb2.VAR_METHOD_MONTE_CARLO]
    assert (list(chosen.confidences), chosen.horizon_days, chosen.strategy) == ([0.975], 5, "momentum")
    assert chosen.distribution == risk_pb2.VAR_DISTRIBUTION_STUDENT_T
    assert (chosen.copula, chosen.filter) == (risk_pb2.COPULA_FAMILY_STUDENT_T, risk_pb2.VOLATILITY_FILTER_GARCH)
    assert (chosen.paths, chosen.seed, chosen.include_ultra_short, chosen.open_orders_excluded) == (2000, 5, True, True)
    assert not chosen.include_components


def test_var_shows_each_figure_with_how_it_was_made(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    estimate = risk_pb2.VarEstimate(
        method=risk_pb2.VAR_METHOD_PARAMETRIC,
        requested_method=risk_pb2.VAR_METHOD_HISTORICAL,
        confidence=0.99,
        horizon_days=5,
        horizon_method=risk_pb2.HORIZON_METHOD_SQUARE_ROOT,
        quantile_method=risk_pb2.QUANTILE_METHOD_CLOSED_FORM,
        mean_method=risk_pb2.MEAN_METHOD_ZERO,
        distribution=risk_pb2.VAR_DISTRIBUTION_GAUSSIAN,
        value_at_risk=43_210.0,
        expected_shortfall=50_000.0,
        value_at_risk_ratio=0.0432,
        n_observations=300,
    )
    component = risk_analytics_pb2.VarComponent(strategy="momentum", symbol="KO", component=43_210.0, share=1.0)
    worker.answers["GetVar"].estimates.append(estimate)
    worker.answers["GetVar"].components.append(component)

    asked(worker, "var", "ALPHA")

    shown = capsys.readouterr().out
    assert "parametric (asked for historical)" in shown and "43,210 USD" in shown and "4.32 %" in shown
    for words in ("gaussian", "square", "closed", "mean", "300 obs."):
        assert words in shown
    assert "momentum/KO" in shown and "100.00 %" in shown
    assert "closes to 2022-12-27" in shown and "marks up to 3.0 s old" in shown and "2.0 h old" in shown
    assert "⚠ mind the [gap]" in shown


def test_stress_takes_scenarios_by_name_and_one_of_ones_own(worker: Worker) -> None:
    request = asked(
        worker, "stress", "ALPHA", "--scenario", "COVID 2020", "--shock", "SP500=-0.2", "--shock", "OIL=0.4", "--all"
    )

    assert list(request.scenarios) == ["COVID 2020"]
    (own,) = request.custom_scenarios
    assert (own.name, dict(own.shocks)) == ("own", {"SP500": -0.2, "OIL": 0.4})
    assert request.run_all


def test_stress_points_at_the_worst_and_what_it_is_made_of(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    loss = risk_pb2.StressLoss(name="COVID 2020", loss=18_000.0, loss_ratio=0.018)
    contribution = risk_analytics_pb2.StressContribution(symbol="KO", loss=18_000.0, instrument_return=-0.2)
    result = risk_analytics_pb2.StressResult(stress_loss=loss, contributions=[contribution], positions=1)
    worker.answers["GetStress"].results.append(result)
    worker.answers["GetStress"].worst_stress.CopyFrom(loss)

    asked(worker, "stress", "ALPHA")

    shown = capsys.readouterr().out
    assert "COVID 2020  ← worst" in shown and "1.80 %" in shown and "-20.00 %" in shown
    assert "none: unaffected" in shown


@pytest.mark.parametrize("shock", ["SP500", "SP500=", "=0.1", "SP500=much"])
def test_a_shock_that_makes_no_sense_is_an_error_of_use(
    worker: Worker, shock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended("stress", "ALPHA", "--shock", shock, "--address", worker.address) == 2
    assert "expected FACTOR=SHOCK" in capsys.readouterr().err
    assert not worker.requests


def test_reverse_stress_asks_for_a_loss_in_money_or_as_a_share(worker: Worker) -> None:
    assert asked(worker, "reverse-stress", "ALPHA").WhichOneof("target") is None
    money = asked(worker, "reverse-stress", "ALPHA", "--loss", "5000", "--scenario", "COVID 2020")
    share = asked(worker, "reverse-stress", "ALPHA", "--ratio", "0.2", "--shock", "OIL=-0.4", "--multiplier-max", "3")

    assert (money.loss, money.scenario) == (5000.0, "COVID 2020")
    assert (share.loss_ratio, dict(share.custom_scenario.shocks), share.multiplier_max) == (0.2, {"OIL": -0.4}, 3.0)


@pytest.mark.parametrize(
    "argv",
    [
        ("reverse-stress", "ALPHA", "--loss", "1", "--ratio", "0.1"),
        ("reverse-stress", "ALPHA", "--scenario", "COVID 2020", "--shock", "OIL=-0.4"),
        ("replay", "ALPHA"),
        ("replay", "ALPHA", "2020", "--from", "2020-02-20", "--to", "2020-03-23"),
        ("replay", "ALPHA", "--from", "2020-02-20"),
        ("replay", "ALPHA", "--from", "yesterday", "--to", "2020-03-23"),
    ],
)
def test_arguments_that_contradict_each_other_are_an_error_of_use(worker: Worker, argv: tuple[str, ...]) -> None:
    assert ended(*argv, "--address", worker.address) == 2
    assert not worker.requests


def test_not_reachable_is_an_answer(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    answer = worker.answers["GetReverseStress"]
    answer.scenario, answer.target_loss, answer.loss_max = "Rate Shock 2022", 100_000.0, 60_436.0

    asked(worker, "reverse-stress", "ALPHA")

    said = "Rate Shock 2022 does not reach 100,000 USD: the most it costs is 60,436 USD."
    assert said in capsys.readouterr().out


def test_replay_takes_a_window_or_two_days(worker: Worker) -> None:
    assert asked(worker, "replay", "ALPHA", "2020").window == "2020"
    days = asked(worker, "replay", "ALPHA", "--from", "2020-02-20", "--to", "2020-03-23")
    assert (days.window, days.start_date, days.end_date) == ("", "2020-02-20", "2020-03-23")


def test_a_replay_without_data_shows_no_figure(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    worker.answers["ReplayHistory"].status = risk_analytics_pb2.REPLAY_STATUS_NO_DATA

    asked(worker, "replay", "ALPHA", "2008")

    shown = capsys.readouterr().out
    assert "No figure: no data." in shown and "0.00 USD" not in shown


def test_greeks_of_nothing_say_so(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(asked(worker, "greeks", "ALPHA", "AAPL").underlyings) == ["AAPL"]
    assert "Nothing is held." in capsys.readouterr().out


def test_losses_show_the_status_the_limits_and_each_session(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    use = limit_pb2.LimitUse(measure="daily_loss", scope="account:ALPHA", value=0.017, limit=0.02, unit="ratio")
    use.status = limit_pb2.LIMIT_STATUS_OK
    answer = worker.answers["GetLossHistory"]
    answer.status = limit_pb2.LOSS_STATUS_WARNING
    answer.limits.append(use)
    answer.sessions.add(session_date="2023-11-15", open_equity=10_000.0, equity=9_830.0, pnl=-170.0, open=True)
    answer.sessions[0].daily_loss = 0.017

    asked_for = asked(worker, "losses", "ALPHA", "--sessions", "5")

    shown = capsys.readouterr().out
    assert (asked_for.account, asked_for.sessions) == ("ALPHA", 5)
    assert "Losses of ALPHA: WARNING" in shown
    assert "daily_loss of account:ALPHA: 1.70 % of 2.00 %" in shown
    assert "2023-11-15 (open)" in shown and "-170.00 USD" in shown
    assert "–" in shown  # the weekly loss is not known
    assert "mind the [gap]" in shown


def test_a_report_states_its_level_what_decided_it_and_the_thresholds(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = worker.answers["GetRiskReport"]
    answer.level = risk_pb2.RISK_LEVEL_HIGH
    answer.level_gauges.append("var_99")
    answer.gauges.add(
        gauge="var_99",
        value=0.05,
        level=risk_pb2.RISK_LEVEL_HIGH,
        moderate_threshold=0.02,
        high_threshold=0.04,
        critical_threshold=0.08,
    )
    answer.gauges.add(gauge="stress", level=risk_pb2.RISK_LEVEL_HIGH, note="not computed")

    asked(worker, "report", "ALPHA")

    shown = capsys.readouterr().out
    assert "▲ HIGH  by var_99" in shown
    for words in ("5.00 %", "2.00 %", "4.00 %", "8.00 %", "not computed", "Nothing is held and no order is open."):
        assert words in shown


def test_a_report_shows_the_portfolio_as_one_and_what_it_lacks(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = worker.answers["GetRiskReport"]
    answer.account_returns.warnings.append("3 days of returns, statistics need 20")
    book = answer.book_returns
    book.observations, book.volatility, book.beta, book.benchmark = 260, 0.1234, 1.17, "SP500"
    answer.account_returns.benchmark = "SP500"
    book.worst.add(days=5, loss=0.0777, last_date="2020-03-16")
    answer.strategy_correlation.rows.add(name="momentum", correlations=[1.0, -0.25])
    answer.strategy_correlation.rows.add(name="", correlations=[-0.25, 1.0])
    answer.asset_correlation.warnings.append("a correlation needs two series")
    answer.factor_attribution.total, answer.factor_attribution.specific = 93.0, 33.0
    answer.factor_attribution.factors.add(factor="SP500", move=0.01, gain=60.0)

    asked(worker, "report", "ALPHA")

    shown = capsys.readouterr().out
    for words in ("12.34 %", "1.17", "-7.77 % to 2020-03-16", "-0.25", "(none)", "60.00 USD", "33.00 USD", "1.00 %"):
        assert words in shown
    assert "closed sessions: 3 days of returns, statistics need 20" in shown
    assert "correlation of assets: a correlation needs two series" in shown
    assert "0.00 %" not in shown


@pytest.mark.parametrize(
    "argv",
    [("var",), ("stress",), ("reverse-stress",), ("replay", "2020"), ("greeks",), ("report",)],
)
def test_json_is_the_answer_as_the_contract_has_it(
    worker: Worker, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    asked(worker, argv[0], "ALPHA", *argv[1:], "--json")

    told = json.loads(capsys.readouterr().out)
    assert (told["stamp"]["account"], told["stamp"]["last_price_date"]) == ("ALPHA", "2022-12-27")


def test_a_worker_that_is_away_is_told_with_what_to_do(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    worker.failure = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="no worker answers questions: start one")

    assert ended("var", "ALPHA", "--address", worker.address) == 69
    assert "no worker answers questions: start one" in capsys.readouterr().err
