"""`budget` against a real gRPC server on a loopback port: what it asks, and what it prints."""

import json
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.cli.app import run
from riskgateway.v1 import (
    control_pb2,
    risk_admin_pb2,
    risk_admin_pb2_grpc,
    risk_analytics_pb2,
    risk_analytics_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
    risk_pb2,
)

ANSWER = risk_analytics_pb2.GetBudgetResponse(
    stamp=risk_pb2.RiskStamp(account="ALPHA", sequence=9, base_currency="USD", warnings=["mind the [gap]"]),
    var_limit=50_000.0,
    allocated=0.3,
    available=0.7,
    confidence=0.95,
    total=risk_analytics_pb2.BudgetLine(
        scope="account:ALPHA", component=13_000.0, allocated=0.3, share=1.0, available=0.7, utilization=0.3
    ),
    strategies=[
        risk_analytics_pb2.StrategyBudget(
            strategy="one",
            component=10_000.0,
            allocated=0.2,
            line=risk_analytics_pb2.BudgetLine(
                scope="strategy:one", component=10_000.0, allocated=0.2, share=0.5, borrowed=-0.1, paused=True
            ),
        )
    ],
    positions=[risk_analytics_pb2.BudgetLine(scope="symbol:AAPL", component=15_000.0, can_add_risk=True)],
    loans=[
        risk_analytics_pb2.BudgetLoan(
            loan_id="L1",
            from_strategy="one",
            to_strategy="two",
            share=0.1,
            end_time=Timestamp(seconds=1_700_000_000),
            actor="ops",
            reason="quiet",
        )
    ],
)


@dataclass
class Desk:
    """What was asked, of all three services."""

    requests: list[Any] = field(default_factory=list)
    address: str = ""
    duplicate: bool = False


class Analytics(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def GetBudget(self, request: Any, context: grpc.ServicerContext) -> risk_analytics_pb2.GetBudgetResponse:
        self.desk.requests.append(request)
        return ANSWER


class Admin(risk_admin_pb2_grpc.RiskAdminServicer):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def AdjustBudget(self, request: Any, context: grpc.ServicerContext) -> risk_admin_pb2.AdjustBudgetResponse:
        self.desk.requests.append(request)
        return risk_admin_pb2.AdjustBudgetResponse(sequence=12, duplicate=self.desk.duplicate)


class Gateway(risk_gateway_pb2_grpc.RiskGatewayServicer):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def StopAll(self, request: Any, context: grpc.ServicerContext) -> risk_gateway_pb2.StopAllResponse:
        self.desk.requests.append(request)
        return risk_gateway_pb2.StopAllResponse()

    def Resume(self, request: Any, context: grpc.ServicerContext) -> risk_gateway_pb2.ResumeResponse:
        self.desk.requests.append(request)
        return risk_gateway_pb2.ResumeResponse()


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    analytics, admin, gateway = Analytics(found), Admin(found), Gateway(found)  # type: ignore[abstract]
    risk_analytics_pb2_grpc.add_RiskAnalyticsServicer_to_server(analytics, server)
    risk_admin_pb2_grpc.add_RiskAdminServicer_to_server(admin, server)
    risk_gateway_pb2_grpc.add_RiskGatewayServicer_to_server(gateway, server)
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


def asked(desk: Desk, *argv: str) -> Any:
    """The request that a command which ends well sends."""
    assert ended("budget", *argv) == 0
    return desk.requests[-1]


def test_show_prints_every_scope_and_who_may_add_risk(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    request = asked(desk, "show", "ALPHA", "--address", desk.address)
    said = " ".join(capsys.readouterr().out.split())

    assert (request.account, list(request.contributions)) == ("ALPHA", [])
    assert "account:ALPHA" in said and "30.00 %" in said and "100.00 %" in said
    assert "strategy:one" in said and "paused" in said
    assert "one lends two 10.0% until 2023-11-14 22:13:20.000 UTC · ops: quiet" in said
    assert "mind the [gap]" in said


def test_contributions_of_ones_own_are_sent(desk: Desk) -> None:
    request = asked(
        desk, "show", "ALPHA", "--contribution", "one=2000", "--contribution", "=-50", "--address", desk.address
    )

    assert [(one.strategy, one.component) for one in request.contributions] == [("one", 2000.0), ("", -50.0)]


def test_a_contribution_that_is_no_number_is_refused(desk: Desk) -> None:
    assert ended("budget", "show", "ALPHA", "--contribution", "one", "--address", desk.address) == 2
    assert desk.requests == []


def test_json_is_the_answer(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    asked(desk, "show", "ALPHA", "--json", "--address", desk.address)

    assert json.loads(capsys.readouterr().out)["total"]["scope"] == "account:ALPHA"


def test_a_loan_for_a_while_ends_then(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    before_s = time.time()
    request = asked(
        desk,
        *("lend", "ALPHA", "--id", "L1", "--from", "one", "--to", "two", "--share", "0.1", "--for", "2h"),
        *("--reason", "quiet", "--control", desk.address),
    )

    assert (request.account, request.loan_id, request.from_strategy, request.to_strategy) == (
        "ALPHA",
        "L1",
        "one",
        "two",
    )
    assert (request.share, request.reason) == (0.1, "quiet")
    assert before_s + 7_199 <= request.end_time.seconds <= time.time() + 7_200
    assert "one lends two 10.0% of the budget · record 12" in capsys.readouterr().out


def test_without_an_end_it_stays_until_it_is_ended(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ("--id", "L1", "--from", "one", "--to", "two", "--reason", "quiet", "--control", desk.address)
    lent = asked(desk, "lend", "ALPHA", "--share", "0.1", *pair)
    desk.duplicate = True
    over = asked(desk, "end-loan", "ALPHA", *pair)

    assert not lent.HasField("end_time")
    assert over.share == 0.0
    assert "loan L1 has ended already · record 12" in capsys.readouterr().out


def test_a_pause_is_a_stop_of_the_strategy_and_a_resume_lifts_it(desk: Desk) -> None:
    ports = ("--control", desk.address)
    stop = asked(desk, "pause", "ALPHA", "one", "--reason", "drawdown", *ports, "--address", desk.address)
    lifted = asked(desk, "resume", "ALPHA", "one", "--reason", "over", "--yes", *ports)

    assert (stop.account, stop.strategy, stop.mode) == ("ALPHA", "one", control_pb2.TRADING_STATE_REDUCE_ONLY)
    assert (lifted.account, lifted.strategy, lifted.reason) == ("ALPHA", "one", "over")
