"""Calls by hand: `buf curl` knows no .proto of ours and learns the contract by reflection, on both ports.

buf comes from its wheel, with what pytest needs.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from tests.e2e.desk import Desk
from tests.e2e.machine import Machine

PACKAGE = "riskgateway.v1"


@pytest.fixture
def buf() -> str:
    """Beside the interpreter: it is among the test dependencies."""
    return str(Path(sys.executable).with_name("buf"))


def curl(buf: str, target: str, method: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [buf, "curl", "--http2-prior-knowledge", "--protocol", "grpc", f"http://{target}/{PACKAGE}.{method}"]
    return subprocess.run(
        [*command, "--data", json.dumps(request)], capture_output=True, text=True, timeout=30, check=False
    )


async def test_an_order_is_checked_by_reflection(buf: str, machine: Machine, own_desk: Desk) -> None:
    order = {
        "account": own_desk.account,
        "client_order_id": "by-hand",
        "symbol": "KO",
        "side": "SIDE_BUY",
        "quantity": 10,
        "order_type": "ORDER_TYPE_LIMIT",
        "limit_price": 63.5,
        "time_in_force": "TIME_IN_FORCE_DAY",
    }
    await own_desk.await_model()

    run = curl(buf, machine.gateway, "RiskGateway/CheckOrder", {"order": order})

    assert run.returncode == 0, run.stderr
    verdict = json.loads(run.stdout)
    assert (verdict["action"], verdict["reason"], verdict["allowedQuantity"]) == ("ACTION_ALLOW", "REASON_NONE", 10)


async def test_stop_and_resume_by_reflection(buf: str, machine: Machine, own_desk: Desk) -> None:
    scope = {"account": own_desk.account}

    stopped = curl(buf, machine.control, "RiskGateway/StopAll", scope)
    state = curl(buf, machine.gateway, "RiskGateway/GetRiskState", scope)
    resumed = curl(buf, machine.control, "RiskGateway/Resume", {**scope, "reason": "by hand"})

    assert json.loads(stopped.stdout)["tradingState"] == "TRADING_STATE_HALTED", stopped.stderr
    assert json.loads(state.stdout)["tradingState"] == "TRADING_STATE_HALTED", state.stderr
    assert json.loads(resumed.stdout)["tradingState"] == "TRADING_STATE_ACTIVE", resumed.stderr


def test_a_malformed_order_names_its_fields(buf: str, machine: Machine) -> None:
    run = curl(buf, machine.gateway, "RiskGateway/CheckOrder", {"order": {"account": "NOBODY"}})

    assert run.returncode != 0
    error = json.loads(run.stderr)
    assert error["code"] == "invalid_argument"
    (bad,) = [detail["value"] for detail in error["details"] if detail["type"] == "google.rpc.BadRequest"]
    violations = error_details_pb2.BadRequest.FromString(base64.b64decode(f"{bad}==")).field_violations
    assert {"order.symbol", "order.side"} <= {violation.field for violation in violations}
