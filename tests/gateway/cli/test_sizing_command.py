"""`size` against a real gRPC server on a loopback port: what it asks, and what it prints."""

import json
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import pytest

from gateway.cli.app import run
from riskgateway.v1 import decision_pb2, order_pb2, risk_analytics_pb2, risk_analytics_pb2_grpc, risk_pb2

Answer = risk_analytics_pb2.SizePositionResponse
Request = risk_analytics_pb2.SizePositionRequest


@dataclass
class Worker:
    """What was asked, and what is answered."""

    answer: Answer
    requests: list[Request] = field(default_factory=list)
    address: str = ""


class Sizing(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def SizePosition(self, request: Request, context: grpc.ServicerContext) -> Answer:
        self.worker.requests.append(request)
        return self.worker.answer


@pytest.fixture
def worker() -> Iterator[Worker]:
    stamp = risk_pb2.RiskStamp(account="ALPHA", strategy="mm", sequence=9, base_currency="USD", equity=1e6)
    found = Worker(
        Answer(
            stamp=stamp,
            target_ratio=0.5,
            full_ratio=1.0,
            target_quantity=5_000.0,
            side=order_pb2.SIDE_BUY,
            order_quantity=90.0,
            wanted_quantity=4_990.0,
            position_quantity=10.0,
            reason=decision_pb2.REASON_POSITION,
            binding_measure="position@symbol:AAPL",
            volatility=0.2,
        )
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    service = Sizing(found)  # type: ignore[abstract]  # the base answers UNIMPLEMENTED
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


def test_it_asks_for_what_was_typed(worker: Worker) -> None:
    typed = ("--return", "0.1", "--rate", "0.02", "--fraction", "0.25", "--with", "MSFT=0.08", "--short", "-s", "mm")
    assert ended("size", "ALPHA", "AAPL", "-m", "kelly-portfolio", *typed, "--address", worker.address) == 0

    (asked,) = worker.requests
    assert asked == Request(
        account="ALPHA",
        strategy="mm",
        symbol="AAPL",
        method=risk_analytics_pb2.SIZING_METHOD_KELLY_PORTFOLIO,
        expected_return=0.1,
        riskless_rate=0.02,
        fraction=0.25,
        confidence=1.0,
        cap=1.0,
        stop_multiple=2.0,
        short_allowed=True,
        short_position=True,
        others=[risk_analytics_pb2.ExpectedReturn(symbol="MSFT", expected_return=0.08)],
    )


def test_it_shows_the_size_the_order_and_what_refuses_more(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("size", "ALPHA", "AAPL", "-m", "kelly", "--address", worker.address) == 0

    shown = capsys.readouterr().out
    assert "Size of AAPL in ALPHA/mm · record 9" in shown
    assert "aim at 5,000, 50.00 % of equity" in shown
    assert "BUY 90\n" in shown
    assert "of 4,990: more is refused by POSITION, position@symbol:AAPL" in shown


def test_where_nothing_is_to_be_done_it_says_so(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    worker.answer = Answer(stamp=worker.answer.stamp)

    assert ended("size", "ALPHA", "AAPL", "-m", "kelly", "--address", worker.address) == 0
    assert "no order is needed" in capsys.readouterr().out


def test_json_is_the_answer_as_the_contract_has_it(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("size", "ALPHA", "AAPL", "-m", "kelly", "--json", "--address", worker.address) == 0

    assert json.loads(capsys.readouterr().out)["binding_measure"] == "position@symbol:AAPL"


def test_what_is_no_return_is_refused_before_anybody_is_asked(worker: Worker) -> None:
    assert ended("size", "ALPHA", "AAPL", "-m", "kelly-portfolio", "--with", "MSFT", "--address", worker.address) == 2
    assert not worker.requests
