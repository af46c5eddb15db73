"""`liquidate` and the progress in `status`, against a real gRPC server on a loopback port: what is asked and said."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gateway.cli import render
from gateway.cli.app import run
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    order_pb2,
    risk_analytics_pb2,
    risk_analytics_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
    risk_pb2,
)

Answer = risk_analytics_pb2.PlanLiquidationResponse
Slice = risk_analytics_pb2.LiquidationSlice
FIRST = Slice(
    strategy="mm", symbol="AAPL", side=order_pb2.SIDE_SELL, quantity=100.0, spread_cost=10.0, impact_cost=5.5,
    var_99=250.0, stress_loss=2_000.0,
)  # fmt: skip
SECOND = Slice(symbol="MSFT", side=order_pb2.SIDE_BUY, quantity=7.0, after=Duration(seconds=60))


@dataclass
class Desk:
    plan: Answer
    planned: list[risk_analytics_pb2.PlanLiquidationRequest] = field(default_factory=list)
    stopped: list[risk_gateway_pb2.StopAllRequest] = field(default_factory=list)
    address: str = ""


class Worker(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def PlanLiquidation(
        self, request: risk_analytics_pb2.PlanLiquidationRequest, context: grpc.ServicerContext
    ) -> Answer:
        self.desk.planned.append(request)
        return self.desk.plan


class Gateway(risk_gateway_pb2_grpc.RiskGatewayServicer):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def StopAll(
        self, request: risk_gateway_pb2.StopAllRequest, context: grpc.ServicerContext
    ) -> risk_gateway_pb2.StopAllResponse:
        self.desk.stopped.append(request)
        return risk_gateway_pb2.StopAllResponse(stop_epoch=3)


@pytest.fixture
def desk() -> Iterator[Desk]:
    stamp = risk_pb2.RiskStamp(account="ALPHA", sequence=9, base_currency="USD", warnings=["MSFT: no bid and ask"])
    found = Desk(Answer(stamp=stamp, slices=[FIRST, SECOND], value=15_000.0, var_99=400.0))
    server = grpc.server(futures.ThreadPoolExecutor(1))
    worker, gateway = Worker(found), Gateway(found)  # type: ignore[abstract]  # the bases answer UNIMPLEMENTED
    risk_analytics_pb2_grpc.add_RiskAnalyticsServicer_to_server(worker, server)
    risk_gateway_pb2_grpc.add_RiskGatewayServicer_to_server(gateway, server)
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None)


def ended(*argv: str) -> int | str | None:
    try:
        return run(argv)
    except SystemExit as end:
        return end.code


def test_a_dry_run_prints_the_plan_with_cost_and_risk_and_sends_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ("-a", "ALPHA", "--symbol", "AAPL", "--fraction", "0.5", "--dry-run", "--address", desk.address)
    assert ended("liquidate", *typed) == 0

    (asked,) = desk.planned
    assert (asked.account, asked.symbol, asked.strategy, asked.fraction) == ("ALPHA", "AAPL", "", 0.5)
    assert desk.stopped == []
    out = capsys.readouterr().out
    for words in ("nothing is sent", "100 AAPL of mm", "10.00", "5.50", "250.00", "2,000.00", "60 s", "7 MSFT"):
        assert words in out
    assert "2 orders close 15,000 USD, expected cost –" in out
    assert "⚠ MSFT: no bid and ask" in out


def test_it_is_a_stop_that_flattens(desk: Desk) -> None:
    typed = ("-a", "ALPHA", "-s", "mm", "-r", "enough", "--yes")
    assert ended("liquidate", *typed, "--address", desk.address, "--control", desk.address) == 0

    (asked,) = desk.stopped
    assert asked == risk_gateway_pb2.StopAllRequest(
        account="ALPHA", strategy="mm", mode=control_pb2.TRADING_STATE_HALTED, reason="enough", flatten=True
    )
    assert desk.planned == []


def test_a_part_can_only_be_planned(desk: Desk) -> None:
    assert ended("liquidate", "-a", "ALPHA", "--fraction", "0.5", "--yes", "--address", desk.address) == 2
    assert desk.stopped == []


def test_it_is_not_done_unasked(desk: Desk) -> None:
    argv = [sys.executable, "-m", "gateway", "liquidate", "-a", "ALPHA"]
    argv += ["--control", desk.address, "--address", desk.address]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    ended = subprocess.run(argv, input="BETA\n", env=paths, capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, desk.stopped) == (2, [])
    assert "This closes every position in" in ended.stderr and "Type ALPHA to liquidate" in ended.stderr


def test_status_tells_how_far_it_has_got() -> None:
    working = account_pb2.LiquidationProgress(
        strategy="mm", symbol="AAPL", planned_quantity=250, sent_quantity=200, filled_quantity=150, left_quantity=100,
        expected_cost=12.5, active=True,
    )  # fmt: skip
    done = account_pb2.LiquidationProgress(symbol="MSFT", planned_quantity=5, sent_quantity=5, filled_quantity=5)
    state = account_pb2.RiskState(base_currency="USD", liquidations=[working, done])

    (line,) = render.liquidation_lines(state)

    assert line.plain == "closing AAPL of mm: 150 of 250 filled, 100 left · 200 sent · expected cost 12.50 USD"
