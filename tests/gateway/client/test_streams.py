"""Streams that break and come back: nothing told twice, nothing lost, nothing asked twice under another id."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

import grpc
import pytest

from gateway.client import (
    AsyncRiskClient,
    CallFailed,
    Disconnected,
    Heartbeat,
    Instruction,
    Order,
    OutcomeUnknown,
    RiskClient,
    RiskState,
    StateChange,
    Update,
    Verdict,
    World,
)
from gateway.client.streams import IN_FLIGHT_MAX
from gateway.rpc.backend import Backend
from gateway.worker.instructor import Instructor
from riskgateway.v1 import risk_gateway_pb2
from tests.gateway.client.conftest import QUICK
from tests.gateway.client.relay import Relay
from tests.gateway.rpc.serving import ACCOUNT, Served

ORDERS = 40
PATIENT_S = 10.0


class Following:
    """What a client's follower tells, awaited item by item; the blocking one follows in a thread of its own."""

    def __init__(self, client: Any, accounts: tuple[str, ...] | None = None) -> None:
        self._news: asyncio.Queue[Update | Exception] = asyncio.Queue()
        self._task = asyncio.create_task(self._follow(client, accounts))

    async def _follow(self, client: Any, accounts: tuple[str, ...] | None) -> None:
        if isinstance(client, AsyncRiskClient):
            async with aclosing(client.follow(accounts)) as updates:
                async for update in updates:
                    self._news.put_nowait(update)
            return
        await asyncio.to_thread(self._follow_in_thread, client.client, accounts, asyncio.get_running_loop())

    def _follow_in_thread(self, client: RiskClient, accounts: Any, loop: asyncio.AbstractEventLoop) -> None:
        with closing(client.follow(accounts)) as updates:  # type: ignore[type-var]  # it is a generator
            for update in updates:
                loop.call_soon_threadsafe(self._news.put_nowait, update)

    async def next(self, kind: type[Any]) -> Any:
        """The next news of this kind. Raises what the follower ended with."""
        while True:
            getting = asyncio.create_task(self._news.get())
            await asyncio.wait({getting, self._task}, timeout=PATIENT_S, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                assert self._task.done(), f"no {kind.__name__} came"
                self._task.result()
            update = getting.result()
            if isinstance(update, kind):
                return update

    async def through(self, kind: type[Any]) -> list[Any]:
        """All news up to and with the next of this kind."""
        news = [await self.next(object)]
        while not isinstance(news[-1], kind):
            news.append(await self.next(object))
        return news

    async def ended(self) -> None:
        """Returns when following has ended by itself. Raises what it ended with."""
        await asyncio.wait({self._task})
        self._task.result()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@pytest.fixture
async def following(risk: Any, blocking: RiskClient) -> AsyncIterator[Following]:
    follower = Following(risk)
    yield follower
    blocking.close()  # which ends the thread that follows
    await follower.end()


# --- risk states -----------------------------------------------------------------------------------------------------


async def test_a_snapshot_comes_first_then_what_changes_then_heartbeats(risk: Any, following: Following) -> None:
    snapshot = await following.next(RiskState)
    await risk.buy("AAPL", 10, limit_price=100.0)
    changed = await following.next(RiskState)
    while not changed.open_orders:
        changed = await following.next(RiskState)
    await risk.stop_all("drill", account=ACCOUNT)
    stopped = await following.next(StateChange)
    beat = await following.next(Heartbeat)

    assert snapshot.account == ACCOUNT and snapshot.sequence < changed.sequence
    assert (stopped.trading_state, stopped.reason, stopped.account) == ("HALTED", "drill", ACCOUNT)
    assert beat.store_available


async def test_a_cut_stream_comes_back_and_tells_nothing_twice(risk: Any, relay: Relay, following: Following) -> None:
    before = await following.next(RiskState)
    await following.next(Heartbeat)

    relay.cut()
    lost = await following.next(Disconnected)
    between = await following.through(Heartbeat)
    await risk.buy("AAPL", 10, limit_price=100.0)
    after = await following.next(RiskState)

    assert (lost.tries, "the stream was cut" in lost.problem) == (1, True)
    assert relay.dialled == ["StreamRiskState"] * 2
    assert not [news for news in between if isinstance(news, RiskState)]
    assert after.sequence > before.sequence


async def test_a_stream_that_falls_silent_is_dialled_again(relay: Relay, risk: Any, blocking: RiskClient) -> None:
    relay.mute = True
    following = Following(risk)
    lost = await following.next(Disconnected)
    relay.mute = False
    state = await following.next(RiskState)
    blocking.close()
    await following.end()

    assert "said nothing for 0.5 s" in lost.problem
    assert state.account == ACCOUNT


async def test_following_what_is_not_there_ends_with_the_reason(risk: Any) -> None:
    with pytest.raises(CallFailed) as failed:
        await Following(risk, ("NOBODY",)).next(RiskState)

    assert failed.value.code is grpc.StatusCode.NOT_FOUND and "'NOBODY' is not open" in str(failed.value)


async def test_a_follower_ends_with_its_client_and_is_not_taken_for_cancelled(
    risk: Any, desk: AsyncRiskClient, blocking: RiskClient
) -> None:
    following = Following(risk)
    await following.next(RiskState)

    await desk.aclose()
    await asyncio.to_thread(blocking.close)

    await asyncio.wait_for(following.ended(), PATIENT_S)


# --- orders ----------------------------------------------------------------------------------------------------------


async def streamed(risk: Any, orders: list[Order], cut_after: int = 0, relay: Relay | None = None) -> list[Verdict]:
    """The verdicts on a stream of orders, which is cut once after so many of them."""
    verdicts: list[Verdict] = []
    if isinstance(risk, AsyncRiskClient):
        async with aclosing(risk.check_stream(orders)) as stream:
            async for verdict in stream:
                verdicts.append(verdict)
                if relay is not None and len(verdicts) == cut_after:
                    relay.cut()
        return verdicts
    loop = asyncio.get_running_loop()

    def work() -> None:
        for verdict in risk.client.check_stream(iter(orders), in_flight=16):
            verdicts.append(verdict)
            if relay is not None and len(verdicts) == cut_after:
                loop.call_soon_threadsafe(relay.cut)

    await asyncio.to_thread(work)
    return verdicts


def some(risk: Any, n: int = ORDERS) -> list[Order]:
    return [risk.order("buy", "AAPL", 1, limit_price=100.0) for _ in range(n)]


async def test_a_stream_of_orders_is_answered_in_order(risk: Any) -> None:
    orders = some(risk)

    verdicts = await streamed(risk, orders)

    assert [verdict.order for verdict in verdicts] == orders
    assert all(verdict.allowed for verdict in verdicts)
    assert (await streamed(risk, [])) == []


async def test_a_stream_of_orders_that_is_cut_goes_on_where_it_was(risk: Any, relay: Relay) -> None:
    orders = some(risk)

    verdicts = await streamed(risk, orders, cut_after=10, relay=relay)
    state = await risk.risk_state()

    assert [verdict.order for verdict in verdicts] == orders
    assert all(verdict.allowed for verdict in verdicts)
    assert [order.client_order_id for order in state.open_orders] == [order.client_order_id for order in orders]
    assert relay.dialled.count("CheckOrderStream") >= 2


async def test_a_malformed_order_ends_a_stream_after_the_answers_before_it(risk: Any) -> None:
    orders = [*some(risk, 3), risk.order("buy", "AAPL", -1), *some(risk, 2)]
    verdicts: list[Verdict] = []

    with pytest.raises(CallFailed) as failed:
        if isinstance(risk, AsyncRiskClient):
            async for verdict in risk.check_stream(orders):
                verdicts.append(verdict)
        else:
            await asyncio.to_thread(lambda: verdicts.extend(risk.client.check_stream(orders)))

    assert len(verdicts) == 3 and failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.ids[0] == orders[3].client_order_id
    if len(failed.value.ids) > 1:  # those that were sent behind it may have been decided
        assert isinstance(failed.value, OutcomeUnknown)


async def test_a_stream_that_gets_no_answer_leaves_the_outcome_unknown(risk: Any, relay: Relay) -> None:
    relay.mute = True
    orders = some(risk, 3)

    with pytest.raises(OutcomeUnknown) as unknown:
        await streamed(risk, orders)

    assert unknown.value.ids == tuple(order.client_order_id for order in orders)


async def test_a_source_is_read_no_further_than_is_answered(desk: AsyncRiskClient, relay: Relay) -> None:
    relay.mute = True
    taken: list[Order] = []

    def endless() -> Iterator[Order]:
        while True:
            taken.append(desk.order("buy", "AAPL", 1))
            yield taken[-1]

    with pytest.raises(OutcomeUnknown):
        async for _ in desk.check_stream(endless()):
            pass
    assert len(taken) == IN_FLIGHT_MAX + 1


async def test_orders_that_come_slowly_are_answered_as_they_come(desk: AsyncRiskClient) -> None:
    answered: asyncio.Queue[Verdict] = asyncio.Queue()

    async def one_after_the_other() -> AsyncIterator[Order]:
        for _ in range(3):
            order = desk.order("buy", "AAPL", 1)
            yield order
            assert (await answered.get()).order == order

    async with aclosing(desk.check_stream(one_after_the_other())) as stream:
        async for verdict in stream:
            answered.put_nowait(verdict)


async def test_a_caller_who_takes_his_time_between_verdicts_loses_none(relay: Relay) -> None:
    now_s = [0.0]
    verdicts: list[Verdict] = []
    world = World(monotonic_s=lambda: now_s[0])

    async with (
        AsyncRiskClient(relay.address, account=ACCOUNT, patience=QUICK, world=world) as client,
        aclosing(client.check_stream(some(client, 5))) as stream,
    ):
        async for verdict in stream:
            verdicts.append(verdict)
            now_s[0] += 2.0 * QUICK.deadline_s  # at the venue, say
    assert [verdict.allowed for verdict in verdicts] == [True] * 5


async def test_orders_that_come_slowly_and_verdicts_that_are_taken_slowly_are_not_late(relay: Relay) -> None:
    now_s = [0.0]
    verdicts: list[Verdict] = []

    def one_by_one(client: RiskClient) -> Iterator[Order]:
        for order in some(client, 5):
            now_s[0] += 2.0 * QUICK.deadline_s
            yield order

    def work() -> None:
        world = World(monotonic_s=lambda: now_s[0])
        with RiskClient(relay.address, account=ACCOUNT, patience=QUICK, world=world) as client:
            for verdict in client.check_stream(one_by_one(client)):
                verdicts.append(verdict)
                now_s[0] += 2.0 * QUICK.deadline_s

    await asyncio.to_thread(work)
    assert [verdict.allowed for verdict in verdicts] == [True] * 5


async def test_an_order_that_is_none_ends_a_stream_by_its_name_after_the_answers_before_it(risk: Any) -> None:
    orders = [*some(risk, 3), risk.order("long", "AAPL", 1), *some(risk, 2)]
    verdicts: list[Verdict] = []

    with pytest.raises(ValueError, match="side: expected one of buy, sell, sell_short, got 'long'"):
        if isinstance(risk, AsyncRiskClient):
            async for verdict in risk.check_stream(orders):
                verdicts.append(verdict)
        else:
            await asyncio.to_thread(lambda: verdicts.extend(risk.client.check_stream(orders)))
    assert [verdict.order for verdict in verdicts] == orders[:3]


async def test_a_stream_of_orders_whose_client_is_closed_leaves_the_outcome_unknown(
    risk: Any, desk: AsyncRiskClient, blocking: RiskClient, relay: Relay
) -> None:
    relay.mute = True
    streaming = asyncio.create_task(streamed(risk, some(risk, 3)))
    async with asyncio.timeout(PATIENT_S):
        while "CheckOrderStream" not in relay.dialled:  # noqa: ASYNC110  - only a test waits for it
            await asyncio.sleep(0)

    await desk.aclose()
    await asyncio.to_thread(blocking.close)

    with pytest.raises(OutcomeUnknown, match="client is closed"):
        await streaming


async def test_what_breaks_the_source_of_orders_reaches_the_caller(risk: Any) -> None:
    def broken() -> Iterator[Order]:
        yield risk.order("buy", "AAPL", 1)
        raise LookupError("no more prices")

    with pytest.raises(LookupError, match="no more prices"):
        if isinstance(risk, AsyncRiskClient):
            async for _ in risk.check_stream(broken()):
                pass
        else:
            await asyncio.to_thread(lambda: list(risk.client.check_stream(broken())))


# --- instructions ----------------------------------------------------------------------------------------------------


async def instruct(backend: Backend, control: Served) -> None:
    """Stop the account, and have cancels instructed for what is open."""
    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=ACCOUNT))
    await Instructor(backend.accounts, backend.accounts.clock).judge(ACCOUNT)


async def first(instructions: AsyncIterator[Instruction], n: int) -> list[Instruction]:
    async with asyncio.timeout(PATIENT_S):
        return [await anext(instructions) for _ in range(n)]


async def outstanding(backend: Backend) -> dict[str, str]:
    """The statuses of the account's instructions, by order."""
    reading = await backend.accounts.read(ACCOUNT, backend.accounts.clock.now_us() + 1_000_000)
    return {entry.client_order_id: entry.status.name for entry in reading.state.instructions.values()}


async def until(backend: Backend, statuses: dict[str, str]) -> None:
    async with asyncio.timeout(PATIENT_S):
        while await outstanding(backend) != statuses:  # noqa: ASYNC110  - only a test waits for it
            await asyncio.sleep(0)


async def test_a_cancel_is_instructed_done_and_over(desk: AsyncRiskClient, backend: Backend, control: Served) -> None:
    verdict = await desk.buy("AAPL", 10, limit_price=100.0)
    await instruct(backend, control)

    async with desk.instructions() as instructions:
        (cancel,) = await first(aiter(instructions), 1)
        await instructions.received(cancel)
        await instructions.done(cancel)
        await until(backend, {verdict.client_order_id: "DONE"})
        await desk.report_cancelled(cancel.client_order_id)

    assert (cancel.kind, cancel.client_order_id, cancel.account) == ("CANCEL", verdict.client_order_id, ACCOUNT)
    assert cancel.epoch > verdict.epoch and not desk.as_of_now(verdict)  # the instruction told of the stop
    assert await outstanding(backend) == {}


async def test_instructions_survive_a_cut_and_none_is_handed_on_twice(
    desk: AsyncRiskClient, backend: Backend, control: Served, relay: Relay
) -> None:
    one = await desk.buy("AAPL", 1, limit_price=100.0)
    two = await desk.buy("AAPL", 2, limit_price=100.0)
    await instruct(backend, control)

    async with desk.instructions() as instructions:
        reading = aiter(instructions)
        cancels = await first(reading, 2)
        relay.cut()
        later = asyncio.ensure_future(anext(reading))
        await instructions.done(cancels[0])  # perhaps on no connection at all
        await until(backend, {one.client_order_id: "DONE", two.client_order_id: "UNANSWERED"})
        await instructions.failed(cancels[1], "the venue is closed")
        await until(backend, {one.client_order_id: "DONE", two.client_order_id: "FAILED"})
        assert not later.done()
        later.cancel()
        await asyncio.wait({later})

    assert [cancel.client_order_id for cancel in cancels] == [one.client_order_id, two.client_order_id]


async def test_an_engine_that_starts_again_gets_what_is_outstanding(
    desk: AsyncRiskClient, backend: Backend, control: Served
) -> None:
    await desk.buy("AAPL", 1, limit_price=100.0)
    await instruct(backend, control)

    async with desk.instructions() as before:
        (cancel,) = await first(aiter(before), 1)
        await before.received(cancel)
    async with desk.instructions() as after:
        (again,) = await first(aiter(after), 1)

    assert again.instruction_id == cancel.instruction_id


async def test_instructions_of_what_is_not_there_end_with_the_reason(desk: AsyncRiskClient) -> None:
    async with desk.instructions(["NOBODY"]) as instructions:
        with pytest.raises(CallFailed, match="'NOBODY' is not open"):
            await first(aiter(instructions), 1)


async def test_instructions_end_with_their_client(desk: AsyncRiskClient, backend: Backend, control: Served) -> None:
    await desk.buy("AAPL", 1, limit_price=100.0)
    await instruct(backend, control)

    async with desk.instructions() as instructions:
        reading = aiter(instructions)
        await first(reading, 1)
        more = asyncio.ensure_future(anext(reading, None))
        await desk.aclose()

        assert await asyncio.wait_for(more, PATIENT_S) is None
