"""Commands against a real gRPC server on a loopback port: what they send, what they print, how they end.

The server is a small servicer of the generated code that answers what the test tells it to; it decides nothing, and
fails as a gateway would, with google.rpc details. What it leaves out is UNIMPLEMENTED, as in the generated base, which
type checkers take for abstract.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from datetime import date

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status

from gateway.cli.app import run
from gateway.cli.arguments import ReportKind
from gateway.cli.orders import execution_id_for
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_admin_pb2_grpc,
    risk_gateway_pb2,
    risk_gateway_pb2_grpc,
)


@dataclass
class Desk:
    """What the server was asked, and what it answers."""

    requests: list[object] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    action: decision_pb2.Action.ValueType = decision_pb2.ACTION_ALLOW
    failure: status_pb2.Status | None = None
    address: str = ""

    def asked(self, request: object, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.tokens += [str(value) for key, value in context.invocation_metadata() if key == "authorization"]
        if self.failure is not None:
            context.abort_with_status(rpc_status.to_status(self.failure))


class Gateway(risk_gateway_pb2_grpc.RiskGatewayServicer):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def CheckOrder(
        self, request: risk_gateway_pb2.CheckOrderRequest, context: grpc.ServicerContext
    ) -> risk_gateway_pb2.CheckOrderResponse:
        self._desk.asked(request, context)
        return risk_gateway_pb2.CheckOrderResponse(
            client_order_id=request.order.client_order_id, action=self._desk.action, sequence=3
        )

    def ReportExecution(
        self, request: risk_gateway_pb2.ReportExecutionRequest, context: grpc.ServicerContext
    ) -> risk_gateway_pb2.ReportExecutionResponse:
        self._desk.asked(request, context)
        execution = request.executions[0]
        result = risk_gateway_pb2.ExecutionResult(
            execution_id=execution.execution_id, account=execution.account, sequence=4
        )
        return risk_gateway_pb2.ReportExecutionResponse(results=[result])

    def StopAll(
        self, request: risk_gateway_pb2.StopAllRequest, context: grpc.ServicerContext
    ) -> risk_gateway_pb2.StopAllResponse:
        self._desk.asked(request, context)
        return risk_gateway_pb2.StopAllResponse(stop_epoch=2, acknowledged_partitions=64, trading_state=request.mode)

    def Resume(
        self, request: risk_gateway_pb2.ResumeRequest, context: grpc.ServicerContext
    ) -> risk_gateway_pb2.ResumeResponse:
        self._desk.asked(request, context)
        return risk_gateway_pb2.ResumeResponse(stop_epoch=3, trading_state=control_pb2.TRADING_STATE_ACTIVE)

    def GetRiskState(
        self, request: risk_gateway_pb2.GetRiskStateRequest, context: grpc.ServicerContext
    ) -> account_pb2.RiskState:
        self._desk.asked(request, context)
        return account_pb2.RiskState(account=request.account, base_currency="USD", equity=5.0)

    def GetHeadroom(
        self, request: risk_gateway_pb2.GetHeadroomRequest, context: grpc.ServicerContext
    ) -> risk_gateway_pb2.GetHeadroomResponse:
        self._desk.asked(request, context)
        headrooms = [
            risk_gateway_pb2.Headroom(
                symbol=symbol,
                max_buy_quantity=0.0,
                max_sell_quantity=1_250.0,
                binding_measure="var_99@account:ALPHA",
                binding_sell_measure="position@symbol:" + symbol,
                buy_reason=decision_pb2.REASON_MODEL_STALE,
                sell_reason=decision_pb2.REASON_POSITION,
            )
            for symbol in request.symbols
        ]
        return risk_gateway_pb2.GetHeadroomResponse(headrooms=headrooms, account=request.account, sequence=9)


class Admin(risk_admin_pb2_grpc.RiskAdminServicer):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def ReportAccountEvent(
        self, request: risk_admin_pb2.ReportAccountEventRequest, context: grpc.ServicerContext
    ) -> risk_admin_pb2.ReportAccountEventResponse:
        self._desk.asked(request, context)
        return risk_admin_pb2.ReportAccountEventResponse(sequence=1)

    def RegisterInstruments(
        self, request: risk_admin_pb2.RegisterInstrumentsRequest, context: grpc.ServicerContext
    ) -> risk_admin_pb2.RegisterInstrumentsResponse:
        self._desk.asked(request, context)
        return risk_admin_pb2.RegisterInstrumentsResponse(instrument_set="ab" * 16, added=len(request.instruments))

    def PublishMarks(
        self, request_iterator: Iterator[risk_admin_pb2.PublishMarksRequest], context: grpc.ServicerContext
    ) -> risk_admin_pb2.PublishMarksResponse:
        for request in request_iterator:
            self._desk.asked(request, context)
        return risk_admin_pb2.PublishMarksResponse(accepted=1)

    def ReconcilePositions(
        self, request: risk_admin_pb2.ReconcilePositionsRequest, context: grpc.ServicerContext
    ) -> risk_admin_pb2.ReconcilePositionsResponse:
        self._desk.asked(request, context)
        return risk_admin_pb2.ReconcilePositionsResponse(sequence=8)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    with futures.ThreadPoolExecutor(max_workers=2) as threads:
        server = grpc.server(threads)
        risk_gateway_pb2_grpc.add_RiskGatewayServicer_to_server(Gateway(desk), server)  # type: ignore[abstract]
        risk_admin_pb2_grpc.add_RiskAdminServicer_to_server(Admin(desk), server)  # type: ignore[abstract]
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        desk.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield desk
        server.stop(grace=None).wait()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, kept from others for as long as the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def exit_code(*argv: str) -> int:
    """How a command ends, whichever way it ends."""
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


def check(desk: Desk, *options: str) -> int:
    return exit_code("check", "AAPL", "buy", "100", "-a", "ALPHA", "--address", desk.address, *options)


def status_of(code: int, message: str, *violations: tuple[str, str]) -> status_pb2.Status:
    """A failure as a gateway sends it: with the fields at fault in its details."""
    status = status_pb2.Status(code=code, message=message)
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in violations]
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=fields))
        status.details.append(detail)
    return status


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (decision_pb2.ACTION_ALLOW, 0),
        (decision_pb2.ACTION_WARN, 0),
        (decision_pb2.ACTION_REDUCE, 10),
        (decision_pb2.ACTION_REJECT, 20),
        (decision_pb2.ACTION_HALT, 21),
        (decision_pb2.ACTION_UNSPECIFIED, 70),
    ],
)
def test_the_verdict_is_the_exit_code(desk: Desk, action: decision_pb2.Action.ValueType, code: int) -> None:
    desk.action = action

    assert check(desk) == code


def test_an_order_is_sent_as_typed(desk: Desk) -> None:
    options = ["--id", "a-1", "-s", "MOM", "--limit-price", "187.5", "--tif", "ioc", "--valid-for", "30s"]

    check(desk, *options, "--reduce-only", "--dry-run", "--explain", "--all-or-none")

    expected = order_pb2.Order(
        account="ALPHA",
        strategy="MOM",
        client_order_id="a-1",
        symbol="AAPL",
        side=order_pb2.SIDE_BUY,
        quantity=100,
        order_type=order_pb2.ORDER_TYPE_LIMIT,
        limit_price=187.5,
        time_in_force=order_pb2.TIME_IN_FORCE_IOC,
        reduce_only=True,
    )
    expected.valid_for.FromSeconds(30)
    assert desk.requests == [
        risk_gateway_pb2.CheckOrderRequest(order=expected, dry_run=True, explain=True, all_or_none=True)
    ]


def test_a_market_order_without_an_id_gets_a_random_one_that_is_printed(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    check(desk)
    check(desk)

    first, second = (request.order for request in desk.requests)  # type: ignore[attr-defined]
    assert first.order_type == order_pb2.ORDER_TYPE_MARKET and not first.HasField("limit_price")
    assert first.client_order_id != second.client_order_id
    assert first.client_order_id in capsys.readouterr().out


def test_json_is_the_message_with_its_zeros(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    check(desk, "--json", "--id", "a-1")

    said = json.loads(capsys.readouterr().out)
    assert (said["action"], said["client_order_id"], said["replayed"]) == ("ACTION_ALLOW", "a-1", False)


def test_the_made_up_id_is_told_where_the_outcome_is_unknown(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.failure = status_of(code_pb2.DEADLINE_EXCEEDED, "too slow")

    assert check(desk) == 75

    (request,) = desk.requests
    assert isinstance(request, risk_gateway_pb2.CheckOrderRequest)
    assert f"sent with --id {request.order.client_order_id}" in capsys.readouterr().err


def test_a_session_is_todays_where_no_date_is_given(desk: Desk) -> None:
    assert exit_code("open-session", "-a", "ALPHA", "--control", desk.address) == 0

    (request,) = desk.requests
    assert isinstance(request, risk_admin_pb2.ReportAccountEventRequest)
    assert date.fromisoformat(request.session_opened.session_date) >= date(2020, 1, 1)


def test_the_token_is_sent_as_bearer(desk: Desk) -> None:
    check(desk, "--token", "s3cret")

    assert desk.tokens == ["Bearer s3cret"]


def test_a_malformed_request_names_its_fields(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.failure = status_of(
        code_pb2.INVALID_ARGUMENT, "the request is malformed", ("order.quantity", "expected a number above 0, got nan")
    )

    assert check(desk) == 65
    said = capsys.readouterr().err
    assert "✖ the request is malformed\n  order.quantity: expected a number above 0, got nan" in said


@pytest.mark.parametrize(
    ("code", "ends_with", "hint"),
    [
        (code_pb2.NOT_FOUND, 67, "open-account"),
        (code_pb2.ALREADY_EXISTS, 65, "--id"),
        (code_pb2.PERMISSION_DENIED, 77, "RISK_GATEWAY_TOKEN"),
        (code_pb2.UNAUTHENTICATED, 77, "RISK_GATEWAY_TOKEN"),
        (code_pb2.DEADLINE_EXCEEDED, 75, "same ids"),
        (code_pb2.RESOURCE_EXHAUSTED, 75, "same ids"),
        (code_pb2.UNAVAILABLE, 69, "can't serve now: the store is away"),
        (code_pb2.INTERNAL, 70, "the store is away"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code_and_says_what_to_do(
    desk: Desk, capsys: pytest.CaptureFixture[str], code: int, ends_with: int, hint: str
) -> None:
    desk.failure = status_of(code, "the store is away")

    assert check(desk) == ends_with
    assert hint in capsys.readouterr().err


def test_where_nobody_listens_the_address_and_a_way_out_are_named(
    nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("check", "AAPL", "sell", "1", "-a", "ALPHA", "--address", nobody) == 69

    said = capsys.readouterr().err
    assert f"nobody answers at {nobody}" in said
    assert "risk-gateway serve" in said and "RISK_GATEWAY_ADDRESS" in said


@pytest.mark.parametrize(
    "argv",
    [
        ["check", "AAPL", "hold", "1", "-a", "ALPHA"],
        ["check", "AAPL", "buy", "many", "-a", "ALPHA"],
        ["check", "AAPL", "buy", "1", "-a", "ALPHA", "--valid-for", "soon"],
        ["check", "AAPL", "buy", "1", "-a", "ALPHA", "--address", "localhost"],
        ["report-fill", "a-1", "-a", "ALPHA"],
        ["report-fill", "a-1", "5", "10", "-a", "ALPHA", "--kind", "cancelled"],
        ["stop", "--store", "redis://here", "--data-dir", "there"],
        ["resume"],
        ["reconcile", "-a", "ALPHA"],
        ["register"],
        ["no-such-command"],
    ],
)
def test_nonsense_is_a_usage_error(argv: list[str]) -> None:
    assert exit_code(*argv) == 2


def test_a_stop_needs_nothing_but_its_name(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("stop", "--control", desk.address) == 0

    assert desk.requests == [risk_gateway_pb2.StopAllRequest(mode=control_pb2.TRADING_STATE_HALTED)]
    assert "■ HALTED  everything · epoch 2, 64 partitions acknowledged" in capsys.readouterr().out


def test_a_stop_goes_to_the_gateway_when_control_is_away(
    desk: Desk, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--account", "ALPHA", "--mode", "reduce_only", "--reason", "fire", "--flatten"]

    assert exit_code("stop", *options, "--control", nobody, "--address", desk.address) == 0

    expected = risk_gateway_pb2.StopAllRequest(
        account="ALPHA", mode=control_pb2.TRADING_STATE_REDUCE_ONLY, reason="fire", flatten=True
    )
    assert desk.requests == [expected]
    assert f"by gateway at {desk.address}" in capsys.readouterr().out


def test_a_stop_may_name_an_algorithm_a_trader_or_a_desk(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trader", "jane", "--desk", "rates", "--algo", "vwap"]

    assert exit_code("stop", *options, "--control", desk.address) == 0

    expected = risk_gateway_pb2.StopAllRequest(
        mode=control_pb2.TRADING_STATE_HALTED, trader="jane", desk="rates", algo="vwap"
    )
    assert desk.requests == [expected]
    assert "■ HALTED  algo vwap, trader jane, desk rates" in capsys.readouterr().out


def test_a_stop_that_is_refused_is_not_tried_elsewhere(desk: Desk) -> None:
    desk.failure = status_of(code_pb2.PERMISSION_DENIED, "a stop needs the role operator")

    assert exit_code("stop", "--control", desk.address, "--address", desk.address) == 77
    assert len(desk.requests) == 1


def test_a_stop_that_nobody_took_says_so_loudly(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("stop", "--control", nobody, "--address", nobody) == 69

    said = capsys.readouterr().err
    assert "NOTHING IS CONFIRMED AS STOPPED" in said and "--data-dir DIR" in said


def resume_typing(typed: str, desk: Desk, *options: str) -> subprocess.CompletedProcess[str]:
    """Resume as a person would, with a keyboard: its own process, since the question reads standard input."""
    argv = [sys.executable, "-c", "from gateway.cli import main; main()", "resume", "--control", desk.address, *options]
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    return subprocess.run(argv, input=typed, env=paths, capture_output=True, text=True, timeout=30, check=False)


def test_a_resume_asks_for_the_name_of_what_it_resumes(desk: Desk) -> None:
    ended = resume_typing("ALPHA\n", desk, "--account", "ALPHA", "--reason", "reconciled")

    assert "Type ALPHA to resume" in ended.stderr
    assert ended.returncode == 0
    assert desk.requests == [risk_gateway_pb2.ResumeRequest(account="ALPHA", reason="reconciled")]


@pytest.mark.parametrize("typed", ["alpha\n", "\n", ""])
def test_a_resume_that_is_not_confirmed_lifts_nothing(desk: Desk, typed: str) -> None:
    ended = resume_typing(typed, desk, "--account", "ALPHA", "--reason", "reconciled")

    assert ended.returncode == 2
    assert "not resumed" in ended.stderr
    assert desk.requests == []


def test_a_resume_of_everything_in_a_script_says_yes(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("resume", "--yes", "--reason", "drill over", "--control", desk.address) == 0

    assert "✔ ACTIVE  everything" in capsys.readouterr().out


def test_a_fill_is_reported_as_typed_and_its_id_printed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fee", "1.5", "--fee-currency", "USD", "--leaves", "0", "--address", desk.address]

    assert exit_code("report-fill", "a-1", "40", "187.5", "-a", "ALPHA", *options) == 0

    (request,) = desk.requests
    assert isinstance(request, risk_gateway_pb2.ReportExecutionRequest)
    (execution,) = request.executions
    assert (execution.last_quantity, execution.last_price, execution.fee) == (40, 187.5, 1.5)
    assert execution.HasField("leaves_quantity")
    assert execution.execution_id in capsys.readouterr().out


def test_made_up_execution_ids_never_swallow_a_second_fill_of_equal_size() -> None:
    fill = ReportKind.FILL

    assert execution_id_for("a-1", fill, 0.0) != execution_id_for("a-1", fill, 0.0)
    assert execution_id_for("a-1", fill, 40.0) == execution_id_for("a-1", fill, 40.0)
    assert execution_id_for("a-1", ReportKind.CANCELLED, 0.0) == "a-1:cancelled"


def test_status_shows_the_account(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", "-a", "ALPHA", "--address", desk.address) == 0

    assert "5.00 USD" in capsys.readouterr().out


def test_headroom_says_for_each_side_how_much_and_what_then_comes(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("headroom", "ALPHA", "AAPL", "[red]", "-s", "MOM", "--address", desk.address) == 0

    assert desk.requests == [
        risk_gateway_pb2.GetHeadroomRequest(account="ALPHA", strategy="MOM", symbols=["AAPL", "[red]"])
    ]
    said = capsys.readouterr().out
    assert "Headroom of ALPHA/MOM · record 9" in said
    row = next(line for line in said.splitlines() if "AAPL" in line)
    assert row.split() == ["AAPL", "0", "var_99@account:ALPHA", "·", "MODEL_STALE", "1,250", "position@symbol:AAPL"]
    assert "[red]" in said


def test_headroom_of_an_account_without_positions_says_what_to_do(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("headroom", "ALPHA", "--address", desk.address) == 0

    assert "name the symbols" in capsys.readouterr().out


def test_headroom_as_json_is_the_message(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("headroom", "ALPHA", "AAPL", "--json", "--address", desk.address) == 0

    (found,) = json.loads(capsys.readouterr().out)["headrooms"]
    assert (found["max_buy_quantity"], found["buy_reason"]) == (0.0, "REASON_MODEL_STALE")


def test_health_asks_both_ports(desk: Desk, nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("health", "--address", desk.address, "--control", desk.address) == 0
    assert exit_code("health", "--address", desk.address, "--control", nobody) == 69

    said = capsys.readouterr().out
    assert f"✔ gateway  {desk.address}  serving" in said
    assert f"✖ control  {nobody}  nobody answers" in said


def test_an_account_is_opened_with_cash_and_positions(desk: Desk) -> None:
    options = ["--cash", "1000000", "-p", "AAPL=100@180", "-p", "MOM/KO=-20", "--control", desk.address]

    assert exit_code("open-account", "ALPHA", *options) == 0

    opened = risk_admin_pb2.AccountOpened(
        base_currency="USD",
        cash=[account_pb2.CashBalance(currency="USD", amount=1_000_000)],
        positions=[
            account_pb2.PositionQuantity(symbol="AAPL", quantity=100, average_cost=180),
            account_pb2.PositionQuantity(strategy="MOM", symbol="KO", quantity=-20),
        ],
    )
    assert desk.requests == [
        risk_admin_pb2.ReportAccountEventRequest(account="ALPHA", event_id="opened", account_opened=opened)
    ]


def test_a_session_is_opened_under_an_id_of_its_own(desk: Desk) -> None:
    exit_code("open-session", "-a", "ALPHA", "--date", "2020-03-16", "--control", desk.address)

    session = risk_admin_pb2.SessionOpened(session_date="2020-03-16")
    assert desk.requests == [
        risk_admin_pb2.ReportAccountEventRequest(account="ALPHA", event_id="session:2020-03-16", session_opened=session)
    ]


def test_the_sample_registers_twenty_stocks(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("register", "--sample", "--control", desk.address) == 0

    assert "20 added" in capsys.readouterr().out


def test_instruments_of_a_file_are_registered_or_the_table_is_named(
    desk: Desk, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/instruments.toml"
    row = '[[instrument]]\nsymbol = "ES"\nasset_class = "future"\ncurrency = "USD"\nlot_size = 1\ntick_size = 0.25\n'
    with open(path, "w") as file:
        file.write(row + "multiplier = 50\n")
    assert exit_code("register", path, "--control", desk.address) == 0

    with open(path, "w") as file:
        file.write(row + row.replace("tick_size", "tik_size"))
    assert exit_code("register", path, "--control", desk.address) == 65

    assert "instrument[1]" in capsys.readouterr().err
    (request,) = desk.requests
    assert isinstance(request, risk_admin_pb2.RegisterInstrumentsRequest)
    assert request.instruments[0].multiplier == 50


def test_an_option_of_a_file_is_spelled_by_short_names(desk: Desk, tmp_path: object) -> None:
    path = f"{tmp_path}/options.toml"
    with open(path, "w") as file:
        file.write(
            '[[instrument]]\nsymbol = "SPY_P400"\nasset_class = "option"\ncurrency = "USD"\nlot_size = 1\n'
            'tick_size = 0.01\nmultiplier = 100\nunderlying = "SPY"\nexpiry_date = "2026-12-18"\n[instrument.option]\n'
            'strike = 400\nright = "put"\nstyle = "american"\nmodel = "black_scholes_merton"\nrate = 0.04\n'
        )
    assert exit_code("register", path, "--control", desk.address) == 0

    (request,) = desk.requests
    assert isinstance(request, risk_admin_pb2.RegisterInstrumentsRequest)
    (put,) = request.instruments
    assert (put.asset_class, put.option.right) == (
        instrument_pb2.ASSET_CLASS_OPTION,
        instrument_pb2.OPTION_RIGHT_PUT,
    )
    assert (put.option.style, put.option.rate) == (instrument_pb2.OPTION_STYLE_AMERICAN, 0.04)


def test_a_mark_is_stamped_now(desk: Desk) -> None:
    assert exit_code("publish-mark", "AAPL", "187.5", "--bid", "187.4", "--address", desk.address) == 0

    (request,) = desk.requests
    assert isinstance(request, risk_admin_pb2.PublishMarksRequest)
    (mark,) = request.marks
    assert (mark.last, mark.bid, mark.HasField("ask")) == (187.5, 187.4, False)
    assert abs(mark.mark_time.seconds - time.time()) < 60


def test_a_flat_broker_must_be_said(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("reconcile", "-a", "ALPHA", "--flat", "--control", desk.address) == 0

    assert "no differences" in capsys.readouterr().out


def fastest_of(n: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(n))


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from gateway.cli.app import run\n"
        "try: run(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpc', 'numpy', 'redis', 'pydantic', 'google'} & set(sys.modules)))\n"
    )
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}

    def seconds() -> float:
        started_s = time.perf_counter()
        shown = subprocess.run([sys.executable, "-c", program], env=paths, capture_output=True, text=True, check=True)
        assert shown.stdout.endswith("[]\n")
        return time.perf_counter() - started_s

    assert fastest_of(3, seconds) < 0.4
