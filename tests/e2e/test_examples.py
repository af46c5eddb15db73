"""What a new user copies: the README's lines and the Python examples, each run as it stands against a real machine."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from riskgateway.v1 import control_pb2
from tests.e2e.desk import PRICES, Desk
from tests.e2e.machine import ROOT, Machine

EXAMPLES = ROOT / "docs" / "examples"
KO = f"{PRICES['KO']:.2f}"
PATIENT_S = 60.0


def readme_code() -> str:
    """The README's Python that makes a client."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "RiskClient(" in block]
    return str(code)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=PATIENT_S, check=False)


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The example, which is ended with the test if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def lines_until(process: asyncio.subprocess.Process, last: str) -> list[str]:
    """What it prints, up to and with the line `last`."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(PATIENT_S):
        while last not in lines:
            line = await process.stdout.readline()
            assert line, f"it ended after {lines}"
            lines.append(line.decode().rstrip("\n"))
    return lines


async def test_the_readmes_lines_get_a_verdict(machine: Machine, own_desk: Desk) -> None:
    await own_desk.await_model()
    code = readme_code()
    assert len([line for line in code.splitlines() if line]) == 6
    assert '"127.0.0.1:50051"' in code and '"ALPHA"' in code

    code = code.replace("127.0.0.1:50051", machine.gateway).replace("ALPHA", own_desk.account)
    ran = await asyncio.to_thread(run, "-c", code)

    assert ran.returncode == 0, ran.stderr
    verdict, sent = ran.stdout.splitlines()
    assert verdict.startswith("ALLOW NONE") and sent.startswith("send 10.0 as ")


async def test_the_plain_loop_trades_within_its_limits(machine: Machine, own_desk: Desk) -> None:
    await own_desk.await_model()

    ran = await asyncio.to_thread(run, str(EXAMPLES / "plain_loop.py"), machine.gateway, own_desk.account, "KO", KO)
    state = await own_desk.state()

    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line for line in lines if line.startswith("target")] == [
        "target 100, position 100",
        "target 40, position 40",
        "target 700, position 500",
        "target 10000, position 500",
        "target 0, position 0",
    ]
    assert any(line.startswith("cut to 460: POSITION") for line in lines)
    assert any(line.startswith("not sent: REJECT ORDER_QUANTITY") for line in lines)
    assert list(state.open_orders) == [] and state.counters.active_breaches == 0


async def test_the_async_engine_does_what_it_is_instructed(machine: Machine, own_desk: Desk) -> None:
    await own_desk.await_model()
    example = str(EXAMPLES / "async_engine.py")

    async with running(example, machine.gateway, own_desk.account, "KO", KO) as engine:
        await lines_until(engine, "two orders rest; waiting to be stopped")
        working = await own_desk.state()
        await own_desk.stop(flatten=True, reason="drill")
        lines = await lines_until(engine, "halted and flat")
        status = await asyncio.wait_for(engine.wait(), PATIENT_S)
    state = await own_desk.state()

    assert [order.quantity for order in working.open_orders] == [20.0, 20.0]
    assert [position.quantity for position in working.positions] == [10.0]
    assert status == 0
    assert "trading is HALTED: drill" in lines
    assert len([line for line in lines if line.startswith("instructed: CANCEL")]) == 2
    assert len([line for line in lines if line.startswith("instructed: FLATTEN")]) == 1
    assert list(state.open_orders) == [] and not any(position.quantity for position in state.positions)
    assert state.trading_state == control_pb2.TRADING_STATE_HALTED


@pytest.mark.parametrize("name", ["plain_loop.py", "async_engine.py"])
def test_an_example_says_how_it_is_run(name: str) -> None:
    assert f"    python {name} 127.0.0.1:50051 ALPHA KO 63.50\n" in (EXAMPLES / name).read_text()
