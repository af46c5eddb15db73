"""What a check costs on a whole machine, beside what it is made of: an empty RPC of the same server and a bare append
to the same store; and how fast a stop is while orders crowd the gateway.

Prints one table (`pytest -s tests/benchmarks`); figures are for comparing within a run, nothing is asserted of them.
Small by default so that it can't rot; BENCH=full takes minutes. Client, server and store share the machine's cores.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.control import Scope, TradingState
from engine.records import Latch, Latched, encode
from gateway.log.account_log import Appended, Head
from gateway.log.redis import RedisLog
from riskgateway.v1 import control_pb2, risk_gateway_pb2, risk_gateway_pb2_grpc
from tests.e2e.configuration import SETTINGS, own_environment
from tests.e2e.desk import BUY, SELL, Desk, desk
from tests.e2e.machine import ROOT, Machine

FULL = os.environ.get("BENCH") == "full"
SEQUENTIAL = 4_000 if FULL else 150
CROWDED = 5_000 if FULL else 600  # all open until the end: more would make a book that nobody has
STOPS = 100 if FULL else 8
WARM_UP = 50
IN_FLIGHT = 64
RELEASE_EVERY = 50
PADDING = Latch(Scope("SCRATCH"), TradingState.REDUCE_ONLY, 0, "x" * 1_500)
"""Makes a record about as long as a decision with its checks, and one that the worker, who reads along, can fold."""
LOAD_TIMEOUT_S = 100.0

LIMITS = """
[[limit]]
measure = "order_quantity"
scope = "symbol"
limit = 1000

[[limit]]
measure = "order_value"
scope = "account"
limit = 60_000

[[limit]]
measure = "position"
scope = "symbol"
limit = 100_000
action = "reduce"

[[limit]]
measure = "gross_exposure"
scope = "sector"
limit = 2.0
unit = "equity"
action = "reduce"

[[limit]]
measure = "var_99"
scope = "account"
limit = 0.5
unit = "equity"

[[limit]]
measure = "es_95"
scope = "account"
limit = 0.5
unit = "equity"

[[limit]]
measure = "stress_loss"
scope = "account"
limit = 0.9
unit = "equity"
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table. Times in microseconds."""

    what: str
    times_us: Sequence[int]
    per_s: float

    def text(self, empty_us: float, append_us: float) -> str:
        p50, p99 = quantile(self.times_us, 0.5), quantile(self.times_us, 0.99)
        ratios = f"{p50 / empty_us:>10.1f}{p50 / append_us:>10.1f}"
        return f"{self.what:<42}{p50:>10,}{p99:>10,}{max(self.times_us):>10,}{self.per_s:>10,.0f}{ratios}"


HEADER = f"{'':<42}{'p50 µs':>10}{'p99 µs':>10}{'worst µs':>10}{'per s':>10}{'× empty':>10}{'× append':>10}"


def quantile(times_us: Sequence[int], share: float) -> int:
    ordered = sorted(times_us)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(SETTINGS + LIMITS, own_environment(), tmp_path_factory.mktemp("bench"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(600)
async def test_serving(machine: Machine) -> None:
    async with desk(machine, "BENCH") as mine:
        await mine.open()
        await mine.await_model()
        lines = [
            await empty_rpc(machine),
            await bare_append(machine),
            await checks_in_sequence(mine),
            await asyncio.to_thread(in_flight, "empty RPC", machine, ""),
            await asyncio.to_thread(in_flight, "CheckOrder", machine, mine.account),
            *await asyncio.to_thread(stops_in_flight, machine, mine),
        ]

        state = await mine.state()

    empty_us, append_us = (quantile(line.times_us, 0.5) for line in lines[:2])
    print("", HEADER, *(line.text(empty_us, append_us) for line in lines), sep="\n")
    assert state.counters.approvals > SEQUENTIAL and state.counters.active_breaches == 0
    assert state.trading_state == control_pb2.TRADING_STATE_ACTIVE


async def in_sequence(what: str, act: Callable[[int], Awaitable[object]], aside: Callable[[], Awaitable[None]]) -> Line:
    """`act`, one at a time; `aside` now and then, unmeasured."""
    for number in range(WARM_UP):
        await act(-1 - number)
    times_us: list[int] = []
    for number in range(SEQUENTIAL):
        started_ns = time.perf_counter_ns()
        await act(number)
        times_us.append((time.perf_counter_ns() - started_ns) // 1_000)
        if number % RELEASE_EVERY == 0:
            await aside()
    return Line(what, times_us, 1e6 * len(times_us) / sum(times_us))


async def nothing() -> None: ...


async def empty_rpc(machine: Machine) -> Line:
    async with grpc.aio.insecure_channel(machine.gateway) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs declare no methods
        request = health_pb2.HealthCheckRequest()
        return await in_sequence("empty RPC (health check)", lambda _: health.Check(request), nothing)


async def bare_append(machine: Machine) -> Line:
    """One record with one fsync, as the gateway's committer sends it, by a client of the store in this process."""
    log, record = RedisLog(machine.socket_path, socket_timeout_s=5.0), encode(Latched(time_us=0, latch=PADDING))
    head = Head(0, "")

    async def append(_: int) -> None:
        nonlocal head
        result = await log.append("SCRATCH", head, None, [record], decided_us, 3_600_000_000)
        assert isinstance(result, Appended), result
        head = result.head

    decided_us = await log.now_us()
    try:
        return await in_sequence("bare append (1 record, fsync)", append, nothing)
    finally:
        await log.aclose()


async def checks_in_sequence(mine: Desk) -> Line:
    asked: list[str] = []

    async def check(number: int) -> None:
        order = mine.order("XOM", SELL if number % 2 else BUY, 1.0)
        verdict = await mine.check(order)
        assert verdict.allowed, verdict.message
        asked.append(order.client_order_id)

    async def release() -> None:
        while asked:
            await mine.cancel(asked.pop())

    line = await in_sequence("CheckOrder, one at a time", check, release)
    await release()
    return line


def load(machine: Machine, account: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.load", machine.gateway, account, str(IN_FLIGHT), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def report_of(crowd: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = crowd.communicate(timeout=LOAD_TIMEOUT_S)
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def in_flight(what: str, machine: Machine, account: str) -> Line:
    """Calls from a process of its own, so many at a time."""
    with load(machine, account, CROWDED) as crowd:
        said = report_of(crowd)
    assert set(said["actions"]) <= {"ACTION_ALLOW"}
    times_us = said["latencies_us"]
    return Line(f"{what}, {IN_FLIGHT} in flight", times_us, len(times_us) / said["took_s"])


def stops_in_flight(machine: Machine, mine: Desk) -> list[Line]:
    """StopAll and Resume of everything, of 64 partitions, from a process of its own; idle first, then crowded."""
    idle = stops(machine, "StopAll of everything, idle")
    with crowded(machine, mine):
        busy = stops(machine, f"StopAll of everything, {IN_FLIGHT} orders in flight")
    return [idle, busy]


@contextmanager
def crowded(machine: Machine, mine: Desk) -> Iterator[None]:
    with load(machine, mine.account, 0) as crowd:
        assert crowd.stdout is not None and crowd.stdout.readline()
        yield
        said = report_of(crowd)
    assert said["actions"].get("ACTION_HALT"), "no order met a stop: there was no crowd"


def stops(machine: Machine, what: str) -> Line:
    times_us: list[int] = []
    with grpc.insecure_channel(machine.control) as channel:
        control = risk_gateway_pb2_grpc.RiskGatewayStub(channel)
        for _ in range(STOPS):
            started_ns = time.perf_counter_ns()
            control.StopAll(risk_gateway_pb2.StopAllRequest(), timeout=10)
            times_us.append((time.perf_counter_ns() - started_ns) // 1_000)
            control.Resume(risk_gateway_pb2.ResumeRequest(reason="benchmark"), timeout=10)
    return Line(what, times_us, 1e6 * len(times_us) / sum(times_us))
