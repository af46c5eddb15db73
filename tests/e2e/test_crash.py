"""P3: kill -9 of any process, or of all of them, in the middle of order flow, and nothing that was answered is lost.

Also what is near it: one serve to a data directory, an orderly end on SIGTERM and Ctrl-C, and a stop with all dead.
"""

import asyncio
import signal

import grpc
import pytest

from riskgateway.v1 import decision_pb2
from tests.e2e.conftest import MakeMachine
from tests.e2e.desk import HALTED, Desk, State, Verdict, desk
from tests.e2e.flow import OrderFlow
from tests.e2e.ledger import read_ledger
from tests.e2e.machine import ROLES, STORE, SUPERVISOR, Machine

RATE_MAX = 20
PEAK_PRICE = 70.0
REPLAYED_MAX = 40


async def set_the_scene(mine: Desk) -> State:
    """Something of everything that must not be forgotten; the state with it."""
    await mine.await_model()
    await mine.buy("KO", 100)
    await mine.mark(KO=PEAK_PRICE)
    await mine.check(mine.order("KO", quantity=1, client_order_id="at-the-peak"))
    await mine.mark(KO=63.5)
    reserved = await mine.check(mine.order("AAPL", quantity=400, client_order_id="reserved"))
    assert reserved.action == decision_pb2.ACTION_WARN
    wild = await mine.check(mine.order("MSFT", quantity=900))
    assert wild.action == decision_pb2.ACTION_HALT
    for _ in range(RATE_MAX):
        await mine.check(mine.order(quantity=1, strategy="patient"))
    await mine.stop(strategy="stopped")
    return await mine.state()


async def assert_nothing_forgotten(mine: Desk, before: State) -> None:
    """What the scene set, as the state tells it and as orders meet it."""
    now = await mine.state()
    assert before.high_water_mark > 1.0
    assert now.high_water_mark == before.high_water_mark
    assert list(now.causes) == list(before.causes)
    ids = {order.client_order_id for order in before.open_orders}
    assert [order for order in now.open_orders if order.client_order_id in ids] == list(before.open_orders)
    held = {("", "KO"): 100.0}
    assert {(p.strategy, p.symbol): p.quantity for p in now.positions if p.symbol != "XOM" and p.quantity} == held
    assert now.counters.active_breaches == 0

    assert await reason_of(mine, "KO", strategy="patient") == decision_pb2.REASON_ORDER_RATE
    assert await reason_of(mine, "KO", strategy="stopped") == decision_pb2.REASON_TRADING_HALTED
    assert await reason_of(mine, "MSFT") == decision_pb2.REASON_REDUCE_ONLY
    beside = await mine.check(mine.order("AAPL", quantity=200))
    assert (beside.action, beside.allowed_quantity) == (decision_pb2.ACTION_REDUCE, 100)


async def reason_of(mine: Desk, symbol: str, strategy: str = "") -> decision_pb2.Reason.ValueType:
    return (await mine.check(mine.order(symbol, quantity=1, strategy=strategy))).reason


async def assert_log_has(machine: Machine, mine: Desk, flow: OrderFlow) -> None:
    """Every answer is in the log where it says, once; the counters count the log; a retry gets the same answer."""
    now = await mine.state()
    ledger = await read_ledger(machine, mine.account)
    missing = [verdict for _, verdict in flow.answers if not ledger.holds(verdict)]
    assert missing == []
    ids = [record.order.client_order_id for _, record in ledger.decisions()]
    assert len(ids) == len(set(ids))
    counts = now.counters
    counted = {1: counts.allowed, 2: counts.warned, 3: counts.reduced, 4: counts.rejected, 5: counts.halted}
    assert {action: n for action, n in counted.items() if n} == ledger.counted()
    assert now.sequence == len(ledger.records)
    fold = ledger.state()
    assert {order.client_order_id for order in now.open_orders} == set(fold.orders)
    assert now.high_water_mark == fold.nav_peak
    for order, verdict in flow.answers[:: max(1, len(flow.answers) // REPLAYED_MAX)]:
        again = await mine.check(order)
        assert again.replayed and told(again) == told(verdict)


def told(verdict: Verdict) -> tuple[object, ...]:
    return verdict.sequence, verdict.action, verdict.reason, verdict.allowed_quantity, verdict.stop_epoch


@pytest.mark.parametrize("victim", [*ROLES, STORE])
async def test_a_process_killed_in_the_middle_of_order_flow_costs_nothing(
    machine: Machine, own_desk: Desk, victim: str
) -> None:
    before = await set_the_scene(own_desk)

    async with OrderFlow(own_desk) as flow:
        await flow.answered(60)
        (killed,) = machine.kill(victim)
        await asyncio.to_thread(machine.await_successor, victim, killed)
        await flow.answered(120)

    await assert_log_has(machine, own_desk, flow)
    await asyncio.to_thread(machine.await_ready)
    await assert_nothing_forgotten(own_desk, before)


@pytest.mark.parametrize("victims", [(SUPERVISOR,), (SUPERVISOR, STORE, *ROLES)], ids=["supervisor", "all-at-once"])
async def test_everything_dead_in_the_middle_of_order_flow_costs_nothing(
    make_machine: MakeMachine, victims: tuple[str, ...]
) -> None:
    machine = make_machine()
    async with desk(machine, "SURVIVOR") as mine:
        await mine.open()
        before = await set_the_scene(mine)

        async with OrderFlow(mine) as flow:
            await flow.answered(60)
            machine.kill(*victims)
            await asyncio.to_thread(machine.await_end)
            await asyncio.to_thread(machine.start)
            await flow.answered(120)

        await assert_log_has(machine, mine, flow)
        await assert_nothing_forgotten(mine, before)


async def test_a_stop_of_everything_survives_the_death_of_everything(make_machine: MakeMachine) -> None:
    machine = make_machine()
    async with desk(machine, "STOPPED") as mine:
        await mine.open()
        await mine.await_model()
        approved = mine.order()
        assert (await mine.check(approved)).allowed
        stopped = await mine.stop(account="", reason="the market is gone")

        machine.kill(SUPERVISOR, STORE, *ROLES)
        await asyncio.to_thread(machine.await_end)
        await asyncio.to_thread(machine.start)

        state = await mine.state()
        assert (state.trading_state, state.causes[0].reason) == (HALTED, "the market is gone")
        assert state.stop_epoch == stopped.stop_epoch
        assert await reason_of(mine, "KO") == decision_pb2.REASON_TRADING_HALTED
        assert (await mine.check(approved)).reason == decision_pb2.REASON_SUPERSEDED_BY_STOP
        await mine.resume(account="")
        assert await reason_of(mine, "KO") == decision_pb2.REASON_NONE


async def test_a_stop_can_be_said_with_everything_dead(make_machine: MakeMachine) -> None:
    machine = make_machine()
    async with desk(machine, "DEAD") as mine:
        await mine.open()
        await mine.await_model()
        assert await reason_of(mine, "KO") == decision_pb2.REASON_NONE
        machine.kill(SUPERVISOR, STORE, *ROLES)
        await asyncio.to_thread(machine.await_end)

        said = machine.run("stop", "--data-dir", str(machine.data_dir), "--account", "DEAD", "--reason", "all dead")
        assert said.returncode == 0, said.stderr
        assert machine.orphans() == []
        await asyncio.to_thread(machine.start)

        assert await reason_of(mine, "KO") == decision_pb2.REASON_TRADING_HALTED
        (cause,) = (await mine.state()).causes
        assert (cause.state, cause.reason) == (HALTED, "all dead")


def test_a_second_serve_on_the_same_data_directory_is_refused(machine: Machine) -> None:
    arguments = ("--config", str(machine.config_path), "--gateway-port", "0", "--control-port", "0")

    second = machine.run("serve", "--data-dir", str(machine.data_dir), *arguments)

    assert second.returncode not in (0, 1)
    said = " ".join(second.stderr.split())
    assert f"in use by process {machine.pid(SUPERVISOR)}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_orderly_end_answers_what_is_in_flight(make_machine: MakeMachine, number: signal.Signals) -> None:
    machine = make_machine()
    async with desk(machine, "ENDING") as mine:
        await mine.open()
        await mine.await_model()
        asked = [asyncio.create_task(mine.check(mine.order(quantity=1))) for _ in range(64)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)

        machine.ask_to_end(number)
        verdicts = await asyncio.gather(*asked)

        assert len({verdict.sequence for verdict in verdicts}) == 64
        assert await asyncio.to_thread(machine.await_end) == 0
        assert "Traceback" not in machine.output + machine.logs()


async def test_an_end_closes_streams_at_once(make_machine: MakeMachine) -> None:
    machine = make_machine()
    async with desk(machine, "FOLLOWED") as mine:
        await mine.open()
        followed = asyncio.create_task(mine.await_state(lambda state: False))
        await mine.await_state(lambda state: True)

        machine.ask_to_end()

        assert await asyncio.to_thread(machine.await_end) == 0
        (failure,) = await asyncio.gather(followed, return_exceptions=True)
        ended = isinstance(failure, AssertionError) or (
            isinstance(failure, grpc.aio.AioRpcError) and failure.code() is grpc.StatusCode.UNAVAILABLE
        )
        assert ended, failure
        assert "killed" not in machine.output.rpartition("draining")[2].lower()
