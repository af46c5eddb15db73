"""StreamInstructions over real servers: nothing is lost, nothing comes twice but as a repeat, answers are records."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from engine.instructions import ANSWER_US, due
from engine.limits import Limit, LimitSet, ScopeKind
from engine.records import InstructionAnswered, InstructionStatus
from gateway.log.account_log import GENESIS
from gateway.log.memory import MemoryLog
from gateway.log.redis import RedisLog
from gateway.registry import arm_limits
from gateway.rpc.backend import Backend
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import (
    control_pb2,
    execution_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
)
from tests.gateway.faults import Away
from tests.gateway.rpc.serving import (
    ACCOUNT,
    LIMITS,
    UNHURRIED,
    Served,
    backend_over,
    busy,
    open_for_trading,
    opening,
    order,
    served,
)
from tests.gateway.world import records_of

RECEIVED = risk_gateway_pb2.INSTRUCTION_STATUS_RECEIVED
DONE = risk_gateway_pb2.INSTRUCTION_STATUS_DONE
FAILED = risk_gateway_pb2.INSTRUCTION_STATUS_FAILED
CANCEL = risk_gateway_pb2.INSTRUCTION_KIND_CANCEL
FLATTEN = risk_gateway_pb2.INSTRUCTION_KIND_FLATTEN
PATIENCE_S = 20.0


class Engine:
    """An execution engine's end of a stream."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def subscribe(self, *accounts: str) -> None:
        subscription = risk_gateway_pb2.InstructionSubscription(accounts=accounts)
        await self._call.write(risk_gateway_pb2.InstructionAck(subscription=subscription))

    async def say(self, instruction_id: str, status: "risk_gateway_pb2.InstructionStatus.ValueType") -> None:
        outcome = risk_gateway_pb2.InstructionOutcome(instruction_id=instruction_id, status=status, text="said")
        await self._call.write(risk_gateway_pb2.InstructionAck(outcome=outcome))

    async def say_no_more(self) -> None:
        await self._call.done_writing()

    async def next(self, count: int = 1) -> list[risk_gateway_pb2.Instruction]:
        async with asyncio.timeout(PATIENCE_S):
            return [await self._read() for _ in range(count)]

    async def _read(self) -> risk_gateway_pb2.Instruction:
        message = await self._call.read()
        assert isinstance(message, risk_gateway_pb2.Instruction), "the stream has ended"
        return message

    async def end(self) -> grpc.aio.AioRpcError:
        """Why the server ended the stream."""
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(PATIENCE_S):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
        return ended.value


@contextlib.asynccontextmanager
async def engine(gateway: Served, *accounts: str, subscribes: bool = True) -> AsyncIterator[Engine]:
    call = gateway.gateway.StreamInstructions()
    made = Engine(call)
    if subscribes:
        await made.subscribe(*accounts)
    try:
        yield made
    finally:
        call.cancel()


def ids(instructions: list[risk_gateway_pb2.Instruction]) -> list[str]:
    return [instruction.instruction_id for instruction in instructions]


def targets(instructions: list[risk_gateway_pb2.Instruction]) -> list[str]:
    return [instruction.client_order_id for instruction in instructions]


async def approved(gateway: Served, *names: str, account: str = ACCOUNT, **fields: Any) -> None:
    for name in names:
        asked = risk_gateway_pb2.CheckOrderRequest(order=order(name, 10.0, account=account, **fields))
        assert (await gateway.gateway.CheckOrder(asked)).allowed


def report(client_order_id: str, kind: "execution_pb2.ExecutionKind.ValueType", quantity: float = 0.0) -> Any:
    execution = execution_pb2.Execution(
        account=ACCOUNT,
        execution_id=f"{client_order_id} {kind}",
        client_order_id=client_order_id,
        kind=kind,
        last_quantity=quantity,
        last_price=100.0 if quantity else 0.0,
    )
    return risk_gateway_pb2.ReportExecutionRequest(executions=[execution])


async def halt(control: Served, **fields: Any) -> risk_gateway_pb2.StopAllResponse:
    return await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(reason="drill", **fields))


async def statuses(backend: Backend, until: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """How far the instructions that are out are, once that fits."""
    with backend.accounts.subscribe(()) as subscription:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                committer = backend.accounts.latest(ACCOUNT)
                assert committer is not None
                found = {i.client_order_id: str(i.status) for i in committer.state.instructions.values()}
                if until(found):
                    return found
                await subscription.next(0.2)


# -- what is sent


async def test_a_halt_sends_the_cancels_of_its_scope_in_sequence(gateway: Served, control: Served) -> None:
    await approved(gateway, "A", "B")
    async with engine(gateway, ACCOUNT) as one:
        stop = await halt(control)
        sent = await one.next(2)

    assert targets(sent) == ["A", "B"]
    assert [(i.kind, i.account, i.repeats, i.stop_epoch) for i in sent] == [(CANCEL, ACCOUNT, 0, stop.stop_epoch)] * 2
    assert sent[0].sequence < sent[1].sequence
    assert "HALTED for everything by local" in sent[0].message
    assert sent[0].deadline_time.seconds - sent[0].instruct_time.seconds == ANSWER_US // 1_000_000
    assert [o.client_order_id for o in stop.open_orders] == ["A", "B"]


async def test_whoever_reconnects_misses_nothing_and_hears_nothing_twice_but_as_a_repeat(
    gateway: Served, control: Served
) -> None:
    await approved(gateway, "A", "B", "C", "D")
    await halt(control)
    async with engine(gateway) as one:
        first = await one.next(4)
        for name, status in zip(ids(first), (RECEIVED, DONE, FAILED), strict=False):
            await one.say(name, status)
        told = await statuses(gateway.backend, lambda found: "failed" in found.values())
    async with engine(gateway) as again:
        second = await again.next(2)
        await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_CANCELLED))
        left = await statuses(gateway.backend, lambda found: "A" not in found)

    assert told == {"A": "received", "B": "done", "C": "failed", "D": "unanswered"}
    assert ids(second) == [ids(first)[0], ids(first)[3]]
    assert [instruction.repeats for instruction in second] == [1, 1]
    assert left == {"B": "done", "C": "failed", "D": "unanswered"}


async def test_accounts_that_are_opened_later_are_heard_of(gateway: Served, control: Served) -> None:
    async with engine(gateway) as one:
        await control.admin.ReportAccountEvent(opening("BETA"))
        await approved(gateway, "A", account="BETA")
        await halt(control, account="BETA")
        (sent,) = await one.next()

    assert (sent.account, sent.client_order_id) == ("BETA", "A")


async def test_accounts_of_other_gateways_are_heard_of_however_busy_this_one_is(
    memory_log: MemoryLog, store_clock: list[int], gateway: Served, control: Served, tmp_path: Path
) -> None:
    await approved(gateway, "A")
    async with (
        backend_over(memory_log, store_clock, pace=UNHURRIED) as own,
        served(own, tmp_path) as here,
        engine(here) as one,
        busy(here),
    ):
        await halt(control, account=ACCOUNT)
        (first,) = await one.next()
        await control.admin.ReportAccountEvent(opening("BETA"))
        await approved(gateway, "B", account="BETA")
        await halt(control, account="BETA")
        (second,) = await one.next()

    assert [(i.account, i.client_order_id) for i in (first, second)] == [(ACCOUNT, "A"), ("BETA", "B")]


async def test_an_account_that_can_not_be_read_takes_no_instruction_from_the_others(
    memory_log: MemoryLog, gateway: Served, control: Served
) -> None:
    broken = "A BROKEN ONE"
    await memory_log.append(broken, GENESIS, None, [b"?"], 0, 0)
    await approved(gateway, "A")
    await halt(control)

    for asked in ((), (broken, ACCOUNT)):
        async with engine(gateway, *asked) as one:
            assert targets(await one.next()) == ["A"]
    async with engine(gateway, broken) as alone:
        assert (await alone.end()).code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_stop_says_of_many_accounts_that_it_can_not_list_only_how_many_more_they_are(
    memory_log: MemoryLog, gateway: Served, control: Served
) -> None:
    for number in range(150):
        await memory_log.append(f"BROKEN{number}", GENESIS, None, [b"?"], 0, 0)
    await until(lambda: len(control.backend.accounts.names) > 150)

    stop = await halt(control)

    assert len(stop.warnings) == 101
    assert stop.warnings[-1] == "and 50 more like these"


async def test_who_asked_for_an_account_hears_of_no_other(gateway: Served, control: Served) -> None:
    await control.admin.ReportAccountEvent(opening("BETA"))
    await approved(gateway, "A", account="BETA")
    await approved(gateway, "B")
    async with engine(gateway, ACCOUNT) as one:
        await halt(control)
        (sent,) = await one.next()

    assert (sent.account, sent.client_order_id) == (ACCOUNT, "B")


async def test_instructions_outlive_every_process_and_so_do_answers(
    valkey_log: RedisLog, store_clock: list[int], folder: Path
) -> None:
    """Each gateway is another one, with nothing but the store in common."""
    store_clock[0] = await valkey_log.now_us()
    async with backend_over(valkey_log, store_clock) as backend, served(backend, folder, control=True) as control:
        await open_for_trading(control.admin, backend)
        async with served(backend, folder) as gateway:
            await approved(gateway, "A", "B")
            await halt(control)
            async with engine(gateway) as one:
                first = await one.next(2)
                await one.say(ids(first)[0], DONE)
                await statuses(backend, lambda found: found["A"] == "done")
    async with backend_over(valkey_log, store_clock) as backend, served(backend, folder) as gateway:
        async with engine(gateway) as one:
            second = await one.next()
        answers = [r for r in await records_of(valkey_log, ACCOUNT) if isinstance(r, InstructionAnswered)]

    assert ids(second) == ids(first)[1:]
    assert [(a.instruction_id, a.status, a.text) for a in answers] == [(ids(first)[0], InstructionStatus.DONE, "said")]


async def test_two_gateways_send_the_same_and_record_what_is_said_to_either_once(
    memory_log: MemoryLog, store_clock: list[int], gateway: Served, control: Served, tmp_path: Path
) -> None:
    await approved(gateway, "A")
    async with backend_over(memory_log, store_clock) as other, served(other, tmp_path) as second:
        async with engine(gateway) as here, engine(second) as there:
            await halt(control)
            sent = [(await one.next())[0] for one in (here, there)]
            for one in (here, there):
                await one.say(sent[0].instruction_id, RECEIVED)
                await one.say(sent[0].instruction_id, DONE)
            await statuses(gateway.backend, lambda found: found == {"A": "done"})
            await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_CANCELLED))
            await statuses(other, lambda found: not found)
        answers = [r.status for r in await records_of(memory_log, ACCOUNT) if isinstance(r, InstructionAnswered)]

    assert sent[0].instruction_id == sent[1].instruction_id
    assert answers in (["received", "done"], ["done"])


async def test_a_slow_reader_gets_everything_in_sequence(gateway: Served, control: Served) -> None:
    """It reads nothing until all are instructed; they wait in the log and nowhere else."""
    names = [f"o{i}" for i in range(49)]
    await approved(gateway, *names)
    async with engine(gateway, ACCOUNT) as one:
        for name in names[:5]:
            await halt(control, symbol=f"none of {name}")
        await halt(control)
        sent = await one.next(len(names))

    assert targets(sent) == names
    assert len(set(ids(sent))) == len(names)


async def test_who_says_no_more_is_sent_instructions_all_the_same(gateway: Served, control: Served) -> None:
    await approved(gateway, "A")
    async with engine(gateway) as one:
        await one.say_no_more()
        await halt(control)

        assert targets(await one.next()) == ["A"]


# -- what is said


async def test_the_first_message_subscribes_and_no_other(gateway: Served) -> None:
    async with engine(gateway, subscribes=False) as early:
        await early.say("x", DONE)
        without = await early.end()
    async with engine(gateway) as twice:
        await twice.subscribe()
        again = await twice.end()
    async with engine(gateway, subscribes=False) as silent:
        await silent.say_no_more()
        nothing = await silent.end()

    assert {e.code() for e in (without, again, nothing)} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert "subscription" in (without.details() or "") and "outcome" in (again.details() or "")


async def test_an_account_that_nobody_opened_is_not_found(gateway: Served) -> None:
    async with engine(gateway, ACCOUNT, "NOBODY") as one:
        ended = await one.end()

    assert ended.code() is grpc.StatusCode.NOT_FOUND


async def test_an_answer_that_makes_no_sense_ends_the_stream_and_names_the_field(gateway: Served) -> None:
    async with engine(gateway) as one:
        await one.say("x", risk_gateway_pb2.INSTRUCTION_STATUS_UNSPECIFIED)
        ended = await one.end()

    assert ended.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "outcome.status" in (ended.details() or "")


async def test_an_answer_to_what_is_over_is_harmless(gateway: Served, control: Served) -> None:
    await approved(gateway, "A", "B")
    async with engine(gateway) as one:
        await halt(control)
        first, second = await one.next(2)
        await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_CANCELLED))
        for name in (first.instruction_id, "never heard of", second.instruction_id):
            await one.say(name, DONE)

        assert await statuses(gateway.backend, lambda found: found.get("B") == "done") == {"B": "done"}


async def test_an_answer_that_cannot_be_recorded_ends_the_stream_and_may_be_repeated(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    store = Away(memory_log)
    async with (
        backend_over(store, store_clock) as backend,
        served(backend, folder, control=True) as control,
        served(backend, folder) as gateway,
    ):
        await open_for_trading(control.admin, backend)
        await approved(gateway, "A")
        await halt(control)
        async with engine(gateway) as one:
            (sent,) = await one.next()
            store.away = True
            await one.say(sent.instruction_id, DONE)
            store_clock[0] += 20_000_000
            ended = await one.end()
        store.away = False
        async with engine(gateway) as one:
            (again,) = await one.next()
            await one.say(again.instruction_id, DONE)
            told = await statuses(backend, lambda found: found["A"] == "done")

    assert ended.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert (again.instruction_id, again.repeats, told) == (sent.instruction_id, 1, {"A": "done"})


# -- how a stream ends


async def test_draining_ends_streams_also_before_they_have_subscribed(gateway: Served) -> None:
    async with engine(gateway) as one, engine(gateway, subscribes=False) as other:
        await until(lambda: len(gateway.backend.streams) == 2)
        draining = asyncio.create_task(gateway.server.drain(5.0))
        ended = [await one.end(), await other.end()]
        await draining

    assert [e.code() for e in ended] == [grpc.StatusCode.UNAVAILABLE] * 2


async def test_a_cancelled_stream_leaves_nothing_running(gateway: Served) -> None:
    before = asyncio.all_tasks()
    async with engine(gateway) as one:
        await one.say("x", DONE)
        await until(lambda: bool(gateway.backend.streams))
        running = ours(before)

    await until(lambda: not (gateway.backend.streams or ours(before)))
    assert {"Event.wait"} <= running


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  - the backend is no place for an event that only a test waits for
            await asyncio.sleep(0)


def ours(before: set["asyncio.Task[Any]"]) -> set[str]:
    """What runs for a stream and did not before: its own tasks, and its wait for the server to drain."""
    new = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks() - before)
    return {name for name in new if name.startswith("InstructionStream") or name == "Event.wait"}


# -- flatten


async def test_a_stop_that_flattens_answers_with_the_orders_that_it_sends_and_their_fills_are_booked(
    gateway: Served, control: Served
) -> None:
    await approved(gateway, "A")
    await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_FILL, 10.0))
    async with engine(gateway) as one:
        stop = await halt(control, flatten=True)
        (sent,) = await one.next()
        await one.say(sent.instruction_id, DONE)
        await statuses(gateway.backend, lambda found: not found)
    own = sent.flatten_order.order
    filled = await gateway.gateway.ReportExecution(report(own.client_order_id, execution_pb2.EXECUTION_KIND_FILL, 10.0))

    assert list(stop.flatten_orders) == [sent.flatten_order] and not stop.flatten_orders_truncated
    assert list(stop.warnings) == []
    assert (sent.kind, own.strategy, own.side, own.quantity) == (FLATTEN, "momentum", order_pb2.SIDE_SELL, 10.0)
    assert (own.order_type, own.reduce_only) == (order_pb2.ORDER_TYPE_MARKET, True)
    approval = gateway.backend.approvals.read(sent.flatten_order.approval)
    assert approval is not None and (approval.lots, approval.epoch) == (10, stop.stop_epoch)
    assert list(filled.results[0].flags) == []
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    assert (list(state.positions), list(state.open_orders)) == ([], [])
    assert state.trading_state == control_pb2.TRADING_STATE_HALTED


@pytest.mark.parametrize("mode", [control_pb2.TRADING_STATE_HALTED, control_pb2.TRADING_STATE_REDUCE_ONLY])
async def test_nobody_is_allowed_an_order_of_the_gateways_own(
    gateway: Served, control: Served, mode: "control_pb2.TradingState.ValueType"
) -> None:
    """Its id is easily guessed: who asks under it must not hear that it was allowed before."""
    await approved(gateway, "A")
    await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_FILL, 10.0))
    stop = await halt(control, flatten=True, mode=mode)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=stop.flatten_orders[0].order))

    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_repeating_a_stop_that_flattens_makes_no_second_order(gateway: Served, control: Served) -> None:
    await approved(gateway, "A")
    await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_FILL, 10.0))

    first, second = await halt(control, flatten=True), await halt(control, flatten=True)

    assert list(first.flatten_orders) == list(second.flatten_orders) != []


# -- what people are told


async def test_the_state_shows_what_is_out_and_a_person_is_called_when_nobody_answers(
    gateway: Served, control: Served, store_clock: list[int]
) -> None:
    await approved(gateway, "A")
    await halt(control)
    updates = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT])).__aiter__()
    before = (await anext(updates)).risk_state
    accounts = gateway.backend.accounts

    store_clock[0] += ANSWER_US + 1
    await accounts.record(ACCOUNT, due, accounts.clock.now_us() + 1_000_000)
    alert = await alert_of(updates)
    state = await gateway.gateway.GetRiskState(risk_gateway_pb2.GetRiskStateRequest(account=ACCOUNT))
    later = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT])).__aiter__()
    repeated = await alert_of(later)

    assert [(i.kind, i.client_order_id, i.status, i.escalated) for i in before.instructions] == [
        ("cancel", "A", "unanswered", False)
    ]
    assert (before.counters.instructions_outstanding, before.counters.instructions_escalated) == (1, 0)
    assert (alert.kind, alert.severity) == ("instruction_unanswered", risk_gateway_pb2.SEVERITY_CRITICAL)
    assert (alert.account, "order A" in alert.message) == (ACCOUNT, True)
    assert (state.counters.instructions_escalated, state.instructions[0].escalated) == (1, True)
    assert repeated == alert


async def test_people_are_told_once_of_a_limit_that_cannot_be_judged_while_orders_work(gateway: Served) -> None:
    """No model is published, so VaR can't be evaluated; a second change of the account tells nothing again."""
    await approved(gateway, "A")
    updates = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT])).__aiter__()
    await anext(updates)

    await arm_limits(gateway.backend.log, LimitSet((*LIMITS.rows, Limit("var_95", ScopeKind.ACCOUNT, 1.0))))
    alert = await alert_of(updates)
    await gateway.gateway.ReportExecution(report("A", execution_pb2.EXECUTION_KIND_WORKING))
    kinds = [(await anext(updates)).WhichOneof("update") for _ in range(4)]

    assert (alert.kind, alert.severity) == ("limit_unevaluable", risk_gateway_pb2.SEVERITY_WARNING)
    assert (alert.account, alert.scope) == (ACCOUNT, "account:*")
    assert "no risk model is published" in alert.message
    assert "risk_state" in kinds and "alert" not in kinds


async def alert_of(updates: AsyncIterator[risk_gateway_pb2.RiskStateUpdate]) -> risk_gateway_pb2.Alert:
    async with asyncio.timeout(PATIENCE_S):
        async for update in updates:
            if update.WhichOneof("update") == "alert":
                return update.alert
    raise AssertionError("the stream has ended")


async def test_what_nobody_answered_is_sent_once_more_on_the_same_stream(
    gateway: Served, control: Served, store_clock: list[int]
) -> None:
    await approved(gateway, "A")
    accounts = gateway.backend.accounts
    async with engine(gateway) as one:
        await halt(control)
        (first,) = await one.next()
        for _ in range(2):
            store_clock[0] += ANSWER_US + 1
            await accounts.record(ACCOUNT, due, accounts.clock.now_us() + 1_000_000)
        (again,) = await one.next()
        await approved_elsewhere(control, gateway)
        (other,) = await one.next()

    assert (again.instruction_id, again.repeats) == (first.instruction_id, 1)
    assert other.account == "BETA"


async def approved_elsewhere(control: Served, gateway: Served) -> None:
    """Something else to send, so that what is not sent is seen to be missing."""
    await control.gateway.Resume(risk_gateway_pb2.ResumeRequest(reason="over"))
    await control.admin.ReportAccountEvent(opening("BETA"))
    await mark_again(gateway)
    await approved(gateway, "B", account="BETA")
    await halt(control, account="BETA")


async def mark_again(gateway: Served) -> None:
    now = timestamp(gateway.backend.accounts.clock.now_us())
    mark = instrument_pb2.Mark(symbol="AAPL", last=100.0, mark_time=now)
    await gateway.admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=[mark])]))
