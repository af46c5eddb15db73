"""P2, P5 and P6 on a whole machine, through its ports: stopping with several gateways, never an approval from what is
away or too old, and verdicts that can be computed again.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Self

import grpc
import pytest

from engine.decide import decide
from riskgateway.v1 import decision_pb2, order_pb2, risk_gateway_pb2
from tests.e2e.configuration import LIMIT_ROWS, SETTINGS
from tests.e2e.conftest import MakeMachine
from tests.e2e.desk import HALTED, REDUCE_ONLY, SELL, TIMEOUT_S, Desk, Verdict, desk
from tests.e2e.ledger import append_unreadable, read_ledger, read_terms
from tests.e2e.machine import STORE, Machine

IN_FLIGHT = 64
CYCLES = 5
DEADLINE_S = 1.5
AT_THE_PORT_S = 0.05  # orders for a frozen gateway need no longer to reach its socket
ANSWER_SLACK_S = 0.5  # the client's own share of a call, on a busy machine
NEXT_SESSION = "2022-12-29"

# What a model may be old: the engine's default is a day.
SHORT_LIVED = f"{SETTINGS}model_age_max_s = 4\n{LIMIT_ROWS}"


class Siege:
    """Two gateways and a bounded crowd of orders in flight on both; every answer with the times around it."""

    def __init__(self, desks: list[Desk]) -> None:
        self._desks = desks
        self._ending = False
        self._crowd: list[asyncio.Task[None]] = []
        self._progress = asyncio.Event()
        self.answers: list[tuple[float, float, Verdict]] = []

    async def __aenter__(self) -> Self:
        asks = (self._ask(self._desks[i % len(self._desks)], f"crowd-{i}") for i in range(IN_FLIGHT))
        self._crowd = [asyncio.create_task(ask) for ask in asks]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._ending = True
        await asyncio.gather(*self._crowd)

    async def goes_on(self) -> None:
        """Returns when twice as many more answers have come as are in flight: half of them were asked for since."""
        goal = len(self.answers) + 2 * IN_FLIGHT
        while len(self.answers) < goal:
            self._progress.clear()
            await asyncio.wait_for(self._progress.wait(), TIMEOUT_S)

    async def _ask(self, mine: Desk, strategy: str) -> None:
        while not self._ending:
            invoked_s = time.monotonic()
            verdict = await mine.check(mine.order("XOM", quantity=1, strategy=strategy))
            self.answers.append((invoked_s, time.monotonic(), verdict))
            self._progress.set()
            if verdict.allowed:
                await mine.cancel(verdict.client_order_id)


async def test_no_gateway_approves_after_a_stop_has_returned(machine: Machine) -> None:
    """P2, with two gateways on one account and 64 orders in flight, over and over."""
    other = await asyncio.to_thread(machine.add_gateway)
    async with desk(machine, "SIEGE") as here, desk(machine, "SIEGE", other) as there:
        await here.open()
        for mine in (here, there):
            await mine.await_model()
        closed: list[tuple[float, float]] = []
        async with Siege([here, there]) as siege:
            for _ in range(CYCLES):
                await siege.goes_on()
                await here.stop()
                stopped_s = time.monotonic()
                await siege.goes_on()
                closed.append((stopped_s, time.monotonic()))
                await here.resume()

        # Asked after the stop had returned and answered before the resume was asked for.
        between = [v for asked_s, told_s, v in siege.answers for a, b in closed if a <= asked_s and told_s <= b]
        assert len(between) >= CYCLES * IN_FLIGHT / 2
        assert {v.reason for v in between} == {decision_pb2.REASON_TRADING_HALTED}
        assert sum(v.allowed for _, _, v in siege.answers) > IN_FLIGHT
        ledger = await read_ledger(machine, "SIEGE")
        assert [v for _, _, v in siege.answers if not ledger.holds(v)] == []


async def test_a_gateway_that_could_not_hear_of_a_stop_approves_nothing(machine: Machine, own_desk: Desk) -> None:
    """Frozen while trading is stopped, with orders waiting at its port: it wakes up believing that all is well."""
    await own_desk.await_model()
    for _ in range(CYCLES):
        heard = await own_desk.check(own_desk.order("XOM", quantity=1))
        assert heard.allowed
        with frozen(machine, "gateway"):
            await own_desk.stop()
            asked = [asyncio.create_task(own_desk.check(own_desk.order("KO", quantity=1))) for _ in range(IN_FLIGHT)]
            await asyncio.wait(asked, timeout=AT_THE_PORT_S)
        verdicts = await asyncio.gather(*asked)

        assert {verdict.reason for verdict in verdicts} == {decision_pb2.REASON_TRADING_HALTED}
        await own_desk.resume()


async def test_reduce_only_lets_true_reductions_pass(own_desk: Desk) -> None:
    await own_desk.await_model()
    await own_desk.buy("KO", 100)

    await own_desk.stop(mode=REDUCE_ONLY)

    assert (await own_desk.check(own_desk.order("KO"))).reason == decision_pb2.REASON_REDUCE_ONLY
    assert (await own_desk.check(own_desk.order("AAPL", SELL))).reason == decision_pb2.REASON_REDUCE_ONLY
    reduction = await own_desk.check(own_desk.order("KO", SELL, 100))
    assert (reduction.allowed, reduction.allowed_quantity) == (True, 100)
    flip = await own_desk.check(own_desk.order("KO", SELL, 1))
    assert not flip.allowed


async def test_an_account_that_cannot_be_read_is_closed_and_stops_no_stop(machine: Machine, own_desk: Desk) -> None:
    await own_desk.await_model()
    async with desk(machine, "POISONED") as poisoned:
        await poisoned.open()
        await append_unreadable(machine, "POISONED")

        failure = await asyncio.gather(poisoned.check(poisoned.order()), return_exceptions=True)
        beside = await own_desk.check(own_desk.order())
        stopped = await own_desk.stop(account="")
        halted = await own_desk.check(own_desk.order())
        await own_desk.resume(account="")

    assert code_of(failure[0]) is grpc.StatusCode.FAILED_PRECONDITION
    assert beside.allowed
    assert stopped.acknowledged_partitions == 64
    assert beside.client_order_id in {order.client_order_id for order in stopped.open_orders}
    assert [warning for warning in stopped.warnings if "POISONED" in warning]
    assert halted.reason == decision_pb2.REASON_TRADING_HALTED


# --- P5 ---------------------------------------------------------------------------------------------------------------


@contextmanager
def frozen(machine: Machine, name: str) -> Iterator[None]:
    """SIGSTOP for the time of a `with`: a process that is there and does nothing."""
    machine.send(name, signal.SIGSTOP)
    try:
        yield
    finally:
        machine.send(name, signal.SIGCONT)


async def test_with_the_store_away_nothing_is_approved_and_the_answer_is_in_time(
    machine: Machine, own_desk: Desk
) -> None:
    await own_desk.await_model()
    approved = own_desk.order()
    assert (await own_desk.check(approved)).allowed

    fresh = [own_desk.order(quantity=1) for _ in range(8)]

    async with aclosing(own_desk.updates()) as updates:
        await anext(updates)
        with frozen(machine, STORE):
            asked_s = time.monotonic()
            calls = (own_desk.check(order, timeout_s=DEADLINE_S) for order in [*fresh, approved])
            failures = await asyncio.gather(*calls, return_exceptions=True)
            took_s = time.monotonic() - asked_s
            await next_of(updates, lambda update: update.HasField("heartbeat") and not update.heartbeat.store_available)
        await next_of(updates, lambda update: update.HasField("risk_state"))

    assert {code_of(failure) for failure in failures} == {grpc.StatusCode.UNAVAILABLE}
    assert took_s < DEADLINE_S + ANSWER_SLACK_S
    again = [await own_desk.insist(order) for order in [*fresh, approved]]
    assert all(verdict.allowed for verdict in again)
    assert again[-1].replayed


async def test_a_stop_that_the_store_has_not_heard_is_not_confirmed_and_goes_on_trying(
    machine: Machine, own_desk: Desk
) -> None:
    await own_desk.await_model()

    with frozen(machine, STORE), pytest.raises(grpc.aio.AioRpcError) as unconfirmed:
        await own_desk.stop()

    assert unconfirmed.value.code() is grpc.StatusCode.UNAVAILABLE
    state = await own_desk.await_state(lambda state: state.trading_state == HALTED)
    assert state.causes[0].scope.account == own_desk.account
    halted = await own_desk.insist(own_desk.order())  # the gateway was told directly, and may be at it still
    assert halted.reason == decision_pb2.REASON_TRADING_HALTED


async def next_of(
    updates: AsyncIterator[risk_gateway_pb2.RiskStateUpdate],
    condition: Callable[[risk_gateway_pb2.RiskStateUpdate], bool],
) -> None:
    """Returns with the first update for which the condition holds."""
    async for update in updates:
        if condition(update):
            return
    raise AssertionError("the stream ended")


def code_of(failure: object) -> grpc.StatusCode:
    assert isinstance(failure, grpc.aio.AioRpcError), failure
    return failure.code()


async def test_a_model_of_another_session_refuses_all_but_true_reductions(machine: Machine, own_desk: Desk) -> None:
    """The worker is frozen, so the new session has no model."""
    await own_desk.await_model()
    await own_desk.buy("KO", 100)

    with frozen(machine, "worker"):
        await own_desk.open_session(NEXT_SESSION)

        await assert_only_reductions_pass(own_desk)

    await own_desk.await_model(NEXT_SESSION)
    assert (await own_desk.check(own_desk.order("KO"))).allowed


async def test_a_dead_worker_lets_the_model_grow_old_and_a_new_one_brings_a_new_model(
    make_machine: MakeMachine,
) -> None:
    machine = make_machine(SHORT_LIVED)
    async with desk(machine, "AGED") as mine:
        await mine.open()
        await mine.await_model()
        await mine.buy("KO", 100)

        worker = machine.send("worker", signal.SIGSTOP)
        await until_refused(mine)
        await assert_only_reductions_pass(mine)
        machine.kill("worker")
        await asyncio.to_thread(machine.await_successor, "worker", worker)

        await until_allowed(mine)


async def assert_only_reductions_pass(mine: Desk) -> None:
    """With 100 KO held and no usable model. Every refusal names the model; leaves nothing open."""
    for order in (mine.order("KO"), mine.order("AAPL"), mine.order("AAPL", SELL), mine.order("KO", SELL, 101)):
        verdict = await mine.check(order)
        assert (verdict.action, verdict.reason) == (decision_pb2.ACTION_REJECT, decision_pb2.REASON_MODEL_STALE)
        assert [check.measure for check in verdict.checks if check.unevaluable] == ["var_99"]
    reduction = await mine.check(mine.order("KO", SELL, 40))
    assert reduction.allowed and reduction.true_reduction, reduction.message
    await mine.cancel(reduction.client_order_id)


async def until_refused(mine: Desk) -> None:
    """Asks without reserving until the model is too old; pytest's time limit is the bound."""
    while (await mine.check(mine.order("KO"), dry_run=True)).reason != decision_pb2.REASON_MODEL_STALE:
        pass


async def until_allowed(mine: Desk) -> None:
    while not (await mine.check(mine.order("KO"), dry_run=True)).allowed:
        pass


# --- P6 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def traded(own_desk: Desk) -> AsyncIterator[Desk]:
    """An account with verdicts of every action, from before, between and after stops."""
    await own_desk.await_model()
    await own_desk.buy("KO", 100)
    await own_desk.check(own_desk.order("AAPL", quantity=300))
    await own_desk.check(own_desk.order("AAPL", quantity=300))
    await own_desk.check(own_desk.order("AAPL", quantity=500))
    await own_desk.check(own_desk.order("MSFT", quantity=900))
    await own_desk.check(own_desk.order("MSFT", quantity=1))
    await own_desk.stop(strategy="quiet")
    await own_desk.check(own_desk.order("KO", strategy="quiet"))
    await own_desk.resume(strategy="quiet")
    await own_desk.mark(KO=61.0, AAPL=130.0)
    await own_desk.check(own_desk.order("KO", strategy="quiet"))
    await own_desk.check(own_desk.order("KO", SELL, 60, order_type=order_pb2.ORDER_TYPE_MARKET, limit_price=None))
    yield own_desk


async def test_each_verdict_can_be_computed_again_from_what_its_record_names(machine: Machine, traded: Desk) -> None:
    ledger = await read_ledger(machine, traded.account)

    again = [
        (
            record,
            decide(ledger.before(seq), await read_terms(machine, traded.account, record), record.order, record.time_us),
        )
        for seq, record in ledger.decisions()
    ]

    assert {record.action.name for record, _ in again} == {"ALLOW", "WARN", "REDUCE", "REJECT", "HALT"}
    for record, computed in again:
        assert computed == record
