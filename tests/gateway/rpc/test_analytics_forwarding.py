"""Questions on the gateway's and control's port, answered by a worker: who is asked, who asks, and what comes back."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.report import encode_report, risk_report
from engine.risk.inquiry import InquiryError
from engine.risk.report_answers import ReportAnswer
from gateway.log.memory import MemoryLog
from gateway.rpc.analysts import (
    PASSED_MAX_US,
    SILENT_US,
    Analysts,
    address_on,
    caller_in,
    card_of,
    passed_caller,
)
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Backend
from gateway.rpc.caller import Caller, Unauthenticated, known
from gateway.rpc.forwarding import WAITING_MAX
from gateway.rpc.status import Unimplemented
from gateway.worker.analytics import Analyst
from riskgateway.v1 import risk_analytics_pb2, risk_analytics_pb2_grpc, risk_gateway_pb2, risk_pb2
from tests.gateway.rpc.analysing import analysing
from tests.gateway.rpc.serving import ACCOUNT, KEY, Served, backend_over, order, served

REPORT = risk_analytics_pb2.GetRiskReportRequest(account=ACCOUNT)
OTHER_KEY = b"o" * 32


async def post_report(backend: Backend) -> None:
    """As a worker does."""
    reading = await backend.accounts.read(ACCOUNT, backend.accounts.clock.now_us() + 5_000_000)
    report = risk_report(reading.state, reading.terms, reading.now_us)
    await backend.log.bulletin.post_report(ACCOUNT, encode_report(report))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Code, message and the details by kind of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]  # its stubs know no aio calls
    details: dict[str, Any] = {}
    for packed in status.details if status is not None else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            found = kind()
            if packed.Unpack(found):
                details[kind.__name__] = found
    return refused.value.code(), refused.value.details() or "", details


class Hanging(Analyst):
    """An analyst who begins to answer and never does."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.accounts, ThreadPoolExecutor(1))
        self.asked = asyncio.Event()
        self.n_asked = 0

    async def report(self, account: str, allowed_us: int) -> ReportAnswer:
        self.n_asked += 1
        self.asked.set()
        answer: asyncio.Future[ReportAnswer] = asyncio.get_running_loop().create_future()
        return await answer


class Complaining(Analyst):
    """An analyst who finds fault with an argument."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.accounts, ThreadPoolExecutor(1))

    async def report(self, account: str, allowed_us: int) -> ReportAnswer:
        raise InquiryError("scenarios[0]", "unknown")


class Lacking(Analyst):
    """An analyst of a release that does not know the question."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.accounts, ThreadPoolExecutor(1))

    async def report(self, account: str, allowed_us: int) -> ReportAnswer:
        raise Unimplemented("GetRiskReport is of a later release")


async def test_both_ports_pass_a_question_on_to_the_worker(
    backend: Backend, gateway: Served, control: Served, folder: Path
) -> None:
    await post_report(backend)
    async with analysing(backend, folder):
        through_gateway = await gateway.analytics.GetRiskReport(REPORT)
        through_control = await control.analytics.GetRiskReport(REPORT)

    assert through_gateway.report.account == ACCOUNT
    assert through_gateway.stamp.sequence == 2  # opened, and its session
    assert through_gateway.level == risk_pb2.RISK_LEVEL_LOW  # a million in cash
    assert through_control.level == through_gateway.level


async def test_without_a_worker_the_answer_is_that_there_is_none(gateway: Served) -> None:
    code, message, details = await refusal(gateway.analytics.GetRiskReport(REPORT))

    assert code is grpc.StatusCode.UNAVAILABLE
    assert "no worker answers questions" in message and "serve --role worker" in message
    assert details["ErrorInfo"].reason == "ANALYTICS_AWAY"
    assert "RetryInfo" in details


async def test_a_worker_that_has_ended_is_away_at_once_and_its_successor_is_found(
    backend: Backend, gateway: Served, folder: Path
) -> None:
    await post_report(backend)
    async with analysing(backend, folder):
        await gateway.analytics.GetRiskReport(REPORT)
    code, message, _ = await refusal(gateway.analytics.GetRiskReport(REPORT))
    async with analysing(backend, folder, name="successor"):
        answer = await gateway.analytics.GetRiskReport(REPORT)

    assert code is grpc.StatusCode.UNAVAILABLE
    assert "no worker answers, 1 tried" in message
    assert answer.report.account == ACCOUNT


async def test_an_error_of_the_worker_comes_back_with_its_details(
    backend: Backend, gateway: Served, folder: Path
) -> None:
    async with analysing(backend, folder, Complaining(backend)):
        code, message, details = await refusal(gateway.analytics.GetRiskReport(REPORT))

    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "scenarios[0]: unknown")
    (violation,) = details["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("scenarios[0]", "unknown")


async def test_malformed_unknown_and_missing_are_told_apart(backend: Backend, gateway: Served, folder: Path) -> None:
    nameless, unknown = risk_analytics_pb2.GetRiskReportRequest(), risk_analytics_pb2.GetRiskReportRequest(account="X")
    async with analysing(backend, folder):
        malformed = await refusal(gateway.analytics.GetRiskReport(nameless))
        missing = await refusal(gateway.analytics.GetRiskReport(unknown))
        too_early = await refusal(gateway.analytics.GetRiskReport(REPORT))

    assert malformed[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in malformed[2]["BadRequest"].field_violations] == ["account"]
    assert missing[0] is grpc.StatusCode.NOT_FOUND
    assert too_early[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert "no report on ALPHA yet" in too_early[1]


async def test_a_worker_that_hangs_costs_the_caller_its_deadline_and_an_order_nothing(
    backend: Backend, gateway: Served, folder: Path
) -> None:
    hanging = Hanging(backend)
    async with analysing(backend, folder, hanging):
        asking = asyncio.create_task(refusal(gateway.analytics.GetRiskReport(REPORT, timeout=0.5)))
        await hanging.asked.wait()
        checked = await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order("meanwhile")))
        code, _, _ = await asking

    assert checked.allowed
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_only_so_many_questions_wait(backend: Backend, gateway: Served, folder: Path) -> None:
    hanging = Hanging(backend)
    async with analysing(backend, folder, hanging):
        waiting = [asyncio.ensure_future(gateway.analytics.GetRiskReport(REPORT)) for _ in range(WAITING_MAX)]
        while hanging.n_asked < WAITING_MAX:  # noqa: ASYNC110  - it tells of the first alone
            await asyncio.sleep(0)
        code, message, details = await refusal(gateway.analytics.GetRiskReport(REPORT))
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{WAITING_MAX} calls wait" in message
    assert details["ErrorInfo"].reason == "QUEUE_FULL"


async def test_what_the_worker_has_not_built_is_unimplemented_here_too(
    backend: Backend, gateway: Served, folder: Path
) -> None:
    async with analysing(backend, folder, Lacking(backend)):
        code, message, details = await refusal(gateway.analytics.GetRiskReport(REPORT))

    assert (code, message) == (grpc.StatusCode.UNIMPLEMENTED, "GetRiskReport is of a later release")
    assert details["ErrorInfo"].reason == "UNIMPLEMENTED"


# --- who asks ---------------------------------------------------------------------------------------------------------


async def test_a_viewer_may_ask_and_nobody_without_a_token(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, backend: Backend, gateway: Served
) -> None:
    await post_report(backend)
    viewer = known("eve", ["viewer"], "secret")
    (folder / "strict").mkdir()
    async with (
        backend_over(memory_log, store_clock, [viewer], local_operator=False) as strict,
        served(strict, folder / "strict") as running,
        analysing(backend, folder),
    ):
        answer = await running.analytics.GetRiskReport(REPORT, metadata=(("authorization", "Bearer secret"),))
        code, _, _ = await refusal(running.analytics.GetRiskReport(REPORT))

    assert answer.report.account == ACCOUNT
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_the_worker_itself_answers_nobody_who_brings_neither_token_nor_seal(
    backend: Backend, gateway: Served, folder: Path
) -> None:
    async with analysing(backend, folder), grpc.aio.insecure_channel(f"unix:{folder / 'worker'}") as channel:
        direct: risk_analytics_pb2_grpc.RiskAnalyticsAsyncStub = risk_analytics_pb2_grpc.RiskAnalyticsStub(channel)
        code, _, _ = await refusal(direct.GetRiskReport(REPORT))

    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_worker_with_another_key_is_not_asked(backend: Backend, gateway: Served, folder: Path) -> None:
    async with analysing(backend, folder, key=OTHER_KEY):
        code, message, _ = await refusal(gateway.analytics.GetRiskReport(REPORT))

    assert code is grpc.StatusCode.UNAVAILABLE
    assert "another approval key" in message


def test_a_card_is_believed_only_with_the_seal_of_its_address() -> None:
    approvals = Approvals(KEY)
    card = card_of("10.0.0.1:7", approvals)

    assert address_on(card, approvals) == "10.0.0.1:7"
    assert address_on(card.replace(b"10.0.0.1", b"10.0.0.9"), approvals) is None
    assert address_on(card, Approvals(OTHER_KEY)) is None
    assert address_on(b"not a card", approvals) is None


def test_a_passed_caller_holds_for_its_own_call_and_a_minute() -> None:
    approvals, eve = Approvals(KEY), Caller("eve", frozenset({"viewer", "trader"}))
    header = passed_caller(eve, "GetVar", 100, approvals)

    assert caller_in(header, "GetVar", 100 + PASSED_MAX_US, approvals) == eve
    for method, now_us in (("GetStress", 100), ("GetVar", 101 + PASSED_MAX_US)):
        with pytest.raises(Unauthenticated, match="another call"):
            caller_in(header, method, now_us, approvals)
    with pytest.raises(Unauthenticated, match="another approval key"):
        caller_in(header.replace(b"trader", b"operator"), "GetVar", 100, approvals)
    with pytest.raises(Unauthenticated, match="leave it out"):
        caller_in(b"{", "GetVar", 100, approvals)


async def test_a_silent_worker_is_forgotten_and_the_one_heard_last_is_asked_first(
    memory_log: MemoryLog, backend: Backend, store_clock: list[int]
) -> None:
    bulletin, clock, approvals = memory_log.bulletin, backend.accounts.clock, Approvals(KEY)
    now_us = store_clock[0]
    analysts = Analysts(bulletin, clock, approvals)
    await bulletin.post_analyst(card_of("silent:1", approvals), now_us - SILENT_US - 1, 0)
    await bulletin.post_analyst(card_of("older:1", approvals), now_us - 2, 0)
    await bulletin.post_analyst(card_of("newest:1", approvals), now_us - 1, 0)

    assert await analysts.addresses() == ("newest:1", "older:1")
