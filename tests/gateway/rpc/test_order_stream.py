"""CheckOrderStream over a real server: in order, bounded, ended cleanly whoever ends it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rich

from gateway.log.account_log import AccountLog, AppendResult, partition_of
from gateway.log.memory import MemoryLog
from gateway.rpc.backend import Backend, Deadlines
from gateway.rpc.order_stream import IN_FLIGHT_MAX, OrderStream
from riskgateway.v1 import decision_pb2, risk_gateway_pb2
from riskgateway.v1.risk_gateway_pb2 import CheckOrderRequest, CheckOrderResponse
from tests.gateway.faults import AwayInPart, Wrapped
from tests.gateway.rpc.serving import ACCOUNT, Served, backend_over, open_for_trading, opening, order, served

SLOW = "SLOW"
LOOK_AGAIN_S = 0.01


class Holding(Wrapped):
    """Appends to the accounts in `held` wait until they are let go; `waiting` says that one does."""

    def __init__(self, log: AccountLog) -> None:
        super().__init__(log)
        self.held: set[str] = set()
        self.waiting, self.let_go = asyncio.Event(), asyncio.Event()

    async def append(self, *arguments: Any) -> AppendResult:
        if arguments[0] in self.held:
            self.waiting.set()
            await self.let_go.wait()
        return await super().append(*arguments)

    def release(self) -> None:
        self.held.clear()
        self.let_go.set()


@pytest.fixture
def holding(memory_log: MemoryLog) -> Holding:
    return Holding(memory_log)


@pytest.fixture
async def desk(holding: Holding, store_clock: list[int], folder: Path) -> AsyncIterator[Served]:
    """A gateway over a log that can be held up, with two accounts open for trading."""
    async with (
        backend_over(holding, store_clock) as backend,
        served(backend, folder, control=True) as control,
        served(backend, folder) as gateway,
    ):
        await open_for_trading(control.admin, backend)
        await control.admin.ReportAccountEvent(opening(SLOW))
        yield gateway
        holding.release()


def asked(client_order_id: str, quantity: float = 1.0, account: str = ACCOUNT, **fields: Any) -> CheckOrderRequest:
    return CheckOrderRequest(order=order(client_order_id, quantity, account=account), **fields)


def stream_of(desk: Served, requests: Iterable[CheckOrderRequest] | None = None, timeout: float | None = None) -> Any:
    """A stream that sends the requests and closes its half, or, without any given, waits to be written to."""
    return desk.gateway.CheckOrderStream(None if requests is None else iter(requests), timeout=timeout)


async def answered(call: Any) -> tuple[list[CheckOrderResponse], grpc.aio.AioRpcError | None]:
    """All answers of a stream, and the error that ended it, if one did."""
    answers: list[CheckOrderResponse] = []
    try:
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    except grpc.aio.AioRpcError as error:
        return answers, error
    return answers, None


def names(answers: Iterable[CheckOrderResponse]) -> list[str]:
    return [answer.client_order_id for answer in answers]


async def until(backend: Backend, holds: Callable[[], bool]) -> None:
    """Looks again whenever an account has changed, and now and then: a loop that only spins starves gRPC's thread."""
    with backend.accounts.subscribe(()) as subscription:
        while not holds():
            await subscription.next(LOOK_AGAIN_S)


def open_orders(desk: Served, account: str = ACCOUNT) -> list[str]:
    committer = desk.backend.accounts.latest(account)
    return list(committer.state.orders) if committer is not None else []


# --- answers -------------------------------------------------------------------------------------------------------


async def test_ten_thousand_orders_are_decided_and_answered_in_the_order_sent(desk: Served) -> None:
    ids = [f"o{at}" for at in range(10_000)]

    answers, error = await answered(stream_of(desk, (asked(name) for name in ids)))

    assert error is None
    assert names(answers) == ids
    places = [answer.sequence for answer in answers]
    assert places == sorted(places) and len(set(places)) == 10_000
    assert [answer.allowed for answer in answers] == [True] * 500 + [False] * 9_500
    assert answers[500].reason == decision_pb2.REASON_POSITION


async def test_a_slow_account_holds_up_the_answers_and_not_the_decisions_of_the_others(
    desk: Served, holding: Holding
) -> None:
    holding.held = {SLOW}
    call = stream_of(desk, [asked("slow", account=SLOW), asked("quick"), asked("last", account=SLOW)])
    first = asyncio.create_task(call.read())
    await until(desk.backend, lambda: open_orders(desk) == ["quick"])

    assert not first.done()
    holding.release()
    slow = await first  # one read at a time: of two that wait at once gRPC answers one
    answers, error = await answered(call)

    assert names([slow, *answers]) == ["slow", "quick", "last"]
    assert error is None


async def test_each_request_says_for_itself_how_it_is_answered(desk: Served) -> None:
    requests = [
        asked("dry", 100, dry_run=True),
        asked("whole", 600, all_or_none=True),
        asked("brief", 400, checks=decision_pb2.CHECKS_BINDING),
        asked("brief", 400, checks=decision_pb2.CHECKS_BINDING),
    ]

    (dry, whole, brief, again), error = await answered(stream_of(desk, requests))

    assert error is None
    assert (dry.allowed, dry.sequence, dry.approval) == (True, 0, b"")
    assert whole.action == decision_pb2.ACTION_REJECT
    assert [check.measure for check in brief.checks] == ["position"]
    assert (again.replayed, again.sequence) == (True, brief.sequence)
    assert open_orders(desk) == ["brief"]


async def test_a_client_that_has_sent_all_gets_all_its_answers(desk: Served, holding: Holding) -> None:
    holding.held = {ACCOUNT}
    call = stream_of(desk)
    for name in ("a", "b", "c"):
        await call.write(asked(name))
    await call.done_writing()
    await holding.waiting.wait()
    holding.release()

    answers, error = await answered(call)

    assert (names(answers), error) == (["a", "b", "c"], None)
    assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_without_orders_ends_well(desk: Served) -> None:
    assert await answered(stream_of(desk, [])) == ([], None)


# --- bounds --------------------------------------------------------------------------------------------------------


class Desk:
    """Decides when it is told to."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.go = asyncio.Event()

    async def submit(self, request: CheckOrderRequest, index: int) -> CheckOrderResponse:
        self.submitted.append(index)
        await self.go.wait()
        return CheckOrderResponse(client_order_id=request.order.client_order_id)


async def endless() -> AsyncIterator[CheckOrderRequest]:
    at = 0
    while True:
        yield asked(f"o{at}")
        at += 1


async def test_no_more_than_so_many_orders_are_in_flight(backend: Backend) -> None:
    desk = Desk()
    stream = OrderStream(backend, desk.submit)
    answers = stream.answers(endless())
    first = asyncio.ensure_future(anext(answers))
    await until(backend, lambda: len(desk.submitted) == IN_FLIGHT_MAX)
    for _ in range(10):
        await asyncio.sleep(0)

    assert len(desk.submitted) == IN_FLIGHT_MAX
    desk.go.set()
    assert (await first).client_order_id == "o0"
    for at in range(1, 2 * IN_FLIGHT_MAX):
        assert (await anext(answers)).client_order_id == f"o{at}"
    assert len(desk.submitted) <= 3 * IN_FLIGHT_MAX
    assert stream.in_flight <= IN_FLIGHT_MAX
    await answers.aclose()


async def test_the_deadline_is_each_order_s_and_not_the_stream_s(
    holding: Holding, store_clock: list[int], folder: Path
) -> None:
    async with backend_over(holding, store_clock) as backend:
        impatient = dataclasses.replace(backend, deadlines=Deadlines(default_us=50_000))
        async with served(backend, folder, control=True) as control, served(impatient, folder) as gateway:
            await open_for_trading(control.admin, backend)
            holding.held = {ACCOUNT}
            answers, error = await answered(stream_of(gateway, [asked("a")], timeout=60.0))
            holding.release()

    assert answers == [] and error is not None
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "ask again with the same id" in (error.details() or "")


# --- how it ends ---------------------------------------------------------------------------------------------------


async def test_a_malformed_request_ends_the_stream_after_the_answers_to_those_before_it(desk: Served) -> None:
    call = stream_of(desk, [asked("a"), asked("b"), asked("c", float("nan")), asked("d")])

    answers, error = await answered(call)

    assert names(answers) == ["a", "b"]
    assert error is not None and error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status, violations = await rich.from_call(call), error_details_pb2.BadRequest()
    assert status is not None and any(detail.Unpack(violations) for detail in status.details)
    assert [violation.field for violation in violations.field_violations] == ["requests[2].order.quantity"]
    assert open_orders(desk) == ["a", "b"]


async def test_an_order_that_cannot_be_decided_ends_the_stream_as_it_ends_a_call(desk: Served) -> None:
    reused, reused_error = await answered(stream_of(desk, [asked("a"), asked("a", 2.0)]))
    unknown, unknown_error = await answered(stream_of(desk, [asked("b"), asked("c", account="NOBODY"), asked("d")]))

    assert (names(reused), names(unknown)) == (["a"], ["b"])
    assert reused_error is not None and reused_error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert unknown_error is not None and unknown_error.code() is grpc.StatusCode.NOT_FOUND


async def test_what_was_submitted_is_decided_though_the_client_went_away_and_no_task_is_left(
    desk: Served, holding: Holding
) -> None:
    before = asyncio.all_tasks()
    holding.held = {ACCOUNT}
    call = stream_of(desk)
    for at in range(100):
        await call.write(asked(f"o{at}"))
    await holding.waiting.wait()
    (stream,) = desk.backend.streams
    assert isinstance(stream, OrderStream)
    await until(desk.backend, lambda: stream.in_flight == 100)

    call.cancel()
    await until(desk.backend, lambda: not desk.backend.streams)
    holding.release()
    await until(desk.backend, lambda: len(open_orders(desk)) == 100)

    await until(desk.backend, lambda: not names_of(asyncio.all_tasks() - before))


def names_of(tasks: Iterable[asyncio.Task[Any]]) -> set[str]:
    """What the tasks run; without gRPC's own, one of which always waits for the next call."""
    running = {getattr(task.get_coro(), "__qualname__", "") for task in tasks}
    return {name for name in running if not name.startswith("AioServer.")}


async def test_a_server_that_drains_answers_what_is_in_flight_and_reads_no_more(desk: Served, holding: Holding) -> None:
    holding.held = {ACCOUNT}
    call = stream_of(desk)
    await call.write(asked("a"))
    await call.write(asked("b"))
    (stream,) = await until_streams(desk.backend)
    await until(desk.backend, lambda: stream.in_flight == 2)
    draining = asyncio.create_task(desk.server.drain(5.0))
    await desk.backend.draining.wait()
    holding.release()

    answers, error = await answered(call)

    assert names(answers) == ["a", "b"]
    assert error is not None and error.code() is grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in (error.details() or "")
    await draining


async def until_streams(backend: Backend) -> list[OrderStream]:
    await until(backend, lambda: bool(backend.streams))
    return [stream for stream in backend.streams if isinstance(stream, OrderStream)]


async def test_while_a_stop_is_being_carried_out_here_nothing_is_decided(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    in_part = AwayInPart(memory_log)
    async with (
        backend_over(in_part, store_clock) as backend,
        served(backend, folder, control=True) as control,
        served(backend, folder) as gateway,
    ):
        await open_for_trading(control.admin, backend)
        call = stream_of(gateway)
        await call.write(asked("before"))
        assert (await call.read()).allowed
        in_part.away = {partition_of(ACCOUNT)}
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=ACCOUNT))

        await call.write(asked("after"))
        answers, error = await answered(call)
        assert open_orders(gateway) == ["before"]
        in_part.away = set()
        await asyncio.wait_for(in_part.complete.wait(), 10)

    assert answers == [] and error is not None
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "a stop is being carried out" in (error.details() or "")
