"""AsyncRiskClient: the gateway from asyncio, with all that RiskClient has and an engine's instructions.

What is asked, retried and dropped is decided in `desk`, `attempts` and `streams`; here it is sent, awaited, and handed
on. No gRPC exception leaves here, and cancelling a task of the caller's cancels its call.
"""

from __future__ import annotations  # grpc's callables are generic for type checkers only

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from gateway.client.attempts import Attempts, Backoff, Call, Patience, World
from gateway.client.channel import Metadata, dial
from gateway.client.desk import Desk, Detail, Reached, Reportable
from gateway.client.status import CLOSED, Failure, failure_of
from gateway.client.streams import ENDED, IN_FLIGHT_MAX, Followed, Pipeline, Taken, silent
from gateway.client.values import (
    Basket,
    Headroom,
    Instruction,
    InstructionStatus,
    Order,
    Report,
    Reported,
    ReportTerms,
    Resumed,
    RiskState,
    Side,
    StopMode,
    Stopped,
    Terms,
    Update,
    Verdict,
)
from riskgateway.v1 import risk_gateway_pb2, risk_gateway_pb2_grpc

T = TypeVar("T")
CUT_OFF = Failure(grpc.StatusCode.CANCELLED, "the client was closed meanwhile")


class AsyncRiskClient:
    """A connection to the gateway, for one account unless a call names another. Made and used on one event loop; close
    it, or use `async with`. Every call ends within `patience`, and is retried under the same ids until then."""

    def __init__(
        self,
        address: str,
        *,
        account: str = "",
        strategy: str = "",
        control: str | None = None,
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        id_prefix: str = "",
        patience: Patience = Patience(),  # noqa: B008  - frozen
        world: World = World(),  # noqa: B008  - frozen
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        """As of RiskClient."""
        self._desk = Desk(account, strategy, id_prefix, patience, world)
        self._dial = dial(token, credentials, metadata, options)
        self._addresses = {False: address, True: address if control is None else control}
        self._channels = {at: self._dial.asynchronous(at) for at in set(self._addresses.values())}
        self._stubs: dict[bool, risk_gateway_pb2_grpc.RiskGatewayAsyncStub] = {
            control: risk_gateway_pb2_grpc.RiskGatewayStub(self._channels[at])
            for control, at in self._addresses.items()
        }
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the connections and every stream on them; of a call that is under way the outcome is unknown."""
        self._closed = True
        for channel in self._channels.values():
            await channel.close()

    # --- orders ------------------------------------------------------------------------------------------------------

    def order(self, side: Side, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Order:
        """An order of this client's account under a new id; nothing is asked yet."""
        return self._desk.order(side, symbol, quantity, **terms)

    async def buy(self, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Verdict:
        """May this be bought? See `check`."""
        return await self.check(self.order("buy", symbol, quantity, **terms))

    async def sell(self, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Verdict:
        """May this be sold? See `check`."""
        return await self.check(self.order("sell", symbol, quantity, **terms))

    async def check(
        self,
        order: Order,
        *,
        dry_run: bool = False,
        all_or_none: bool = False,
        explain: bool = False,
        detail: Detail = "all",
    ) -> Verdict:
        """The gateway's verdict, with its approval dropped where it must not be acted on any more. Asking again with
        the same order is safe. Raises CallFailed where there is none and OutcomeUnknown where that can't be said."""
        return await self._ask(self._desk.check(order, dry_run, all_or_none, explain, detail))

    async def check_orders(
        self,
        orders: Sequence[Order],
        *,
        all_or_none: bool = False,
        dry_run: bool = False,
        explain: bool = False,
        detail: Detail = "all",
    ) -> Basket:
        """Up to 500 orders in one step, each seeing the earlier ones. Errors as of `check`, for all of them."""
        return await self._ask(self._desk.check_orders(orders, dry_run, all_or_none, explain, detail))

    async def check_stream(
        self, orders: AsyncIterable[Order] | Iterable[Order], *, detail: Detail = "all"
    ) -> AsyncGenerator[Verdict, None]:
        """Verdicts in the order of the orders, each as soon as it is there; at most 256 orders are under way. Survives
        the loss of its connection. Errors as of `check`, with the ids of all orders without an answer; what `orders`
        raises comes after the answers to those before it. To be closed (`contextlib.aclosing`) if it is not
        exhausted."""
        feed = _Feed(Pipeline(self._desk, detail), orders)
        pipeline = feed.pipeline
        try:
            while not feed.finished:
                try:
                    call = self._stubs[False].CheckOrderStream(metadata=self._dial.metadata)
                except grpc.aio.UsageError:
                    pipeline.broken(CLOSED, self._addresses[False])
                    raise
                sending = asyncio.create_task(feed.send(call))
                try:
                    while not isinstance(answer := await feed.answer(call), Failure):
                        yield pipeline.answer(answer)
                        pipeline.look()
                        feed.moved.set()
                finally:
                    sending.cancel()
                    call.cancel()
                if not feed.finished:
                    await asyncio.sleep(pipeline.broken(answer, self._addresses[False]))
            feed.source_ended()
        finally:
            feed.close()

    def as_of_now(self, verdict: Verdict) -> Verdict:
        """The verdict, or the same with its approval dropped where a newer epoch was seen or its time is up since. Asks
        nobody: look right before sending what waited."""
        return self._desk.freshness.as_of_now(verdict)

    async def headroom(
        self, symbols: Sequence[str] = (), *, account: str | None = None, strategy: str | None = None
    ) -> tuple[Headroom, ...]:
        """The most that may be bought and sold now; of all symbols held or open where none is named. Advisory."""
        return await self._ask(self._desk.headroom(symbols, account, strategy))

    async def heartbeat(self, *, account: str | None = None, strategy: str | None = None) -> str:
        """A sign of life where a limit on `agent_silence` is armed; every check is one too. The trading state now."""
        return await self._ask(self._desk.heartbeat(account, strategy))

    # --- reports -----------------------------------------------------------------------------------------------------

    async def report_working(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue has acknowledged it."""
        return await self._report(self._desk.report_of("working", order, **terms))

    async def report_fill(
        self, order: Reportable, quantity: float, price: float, **terms: Unpack[ReportTerms]
    ) -> Reported:
        """Filled, in part or whole. With the venue's own `execution_id` a fill told twice counts once, also after a
        restart."""
        return await self._report(self._desk.report_of("fill", order, quantity, price, **terms))

    async def report_cancel_requested(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """A cancel was sent; releases nothing."""
        return await self._report(self._desk.report_of("cancel_requested", order, **terms))

    async def report_cancelled(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue confirmed the cancel."""
        return await self._report(self._desk.report_of("cancelled", order, **terms))

    async def report_rejected(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue refused it."""
        return await self._report(self._desk.report_of("rejected", order, **terms))

    async def report_expired(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue ended it."""
        return await self._report(self._desk.report_of("expired", order, **terms))

    async def report_not_sent(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """It was approved, was not sent, and never will be."""
        return await self._report(self._desk.report_of("not_sent", order, **terms))

    async def report(self, reports: Sequence[Report]) -> tuple[Reported, ...]:
        """Up to 500 reports at once, recorded in the order given."""
        return await self._ask(self._desk.report(reports))

    async def _report(self, report: Report) -> Reported:
        (reported,) = await self.report([report])
        return reported

    # --- states, stops, instructions ---------------------------------------------------------------------------------

    async def risk_state(self, account: str | None = None) -> RiskState:
        """The account now."""
        return await self._ask(self._desk.risk_state(account))

    async def stop_all(
        self,
        reason: str = "",
        *,
        account: str = "",
        strategy: str = "",
        symbol: str = "",
        mode: StopMode = "halted",
        flatten: bool = False,
        algo: str = "",
        trader: str = "",
        desk: str = "",
    ) -> Stopped:
        """Stop trading in a scope; with nothing named **everything, of everybody**. When it returns the stop is in
        force on every gateway. OutcomeUnknown: not yet on all of them, and they go on trying; call it again."""
        scope = Reached(account, strategy, symbol, algo, trader, desk)
        return await self._ask(self._desk.stop_all(reason, scope, mode, flatten))

    async def resume(
        self,
        reason: str,
        *,
        account: str,
        strategy: str = "",
        symbol: str = "",
        algo: str = "",
        trader: str = "",
        desk: str = "",
    ) -> Resumed:
        """Lift stops in a scope, as an operator; `account=""` is every account."""
        scope = Reached(account, strategy, symbol, algo, trader, desk)
        return await self._ask(self._desk.resume(reason, scope))

    async def follow(self, accounts: Sequence[str] | None = None) -> AsyncGenerator[Update, None]:
        """States whole and as they change, stops, alerts and heartbeats of this client's account (or of those named,
        or of all that it may see), until the client is closed: a lost stream is told as Disconnected and dialled again.
        While it is followed `check` knows of stops that others make. Raises CallFailed where dialling again is in vain.
        To be closed (`contextlib.aclosing`)."""
        followed, patience = Followed(self._desk), self._desk.patience
        backoff = Backoff(patience, self._desk.world.chance)
        request = risk_gateway_pb2.StreamRiskStateRequest(accounts=self._desk.accounts(accounts))
        while True:
            try:
                call = self._stubs[False].StreamRiskState(request, metadata=self._dial.metadata)
            except grpc.aio.UsageError:
                return  # the client is closed
            try:
                while not isinstance(message := await _next(call, patience.silence_s), Failure):
                    backoff.reset()
                    update = followed.news(message)
                    if update is not None:
                        yield update
            finally:
                call.cancel()
            if self._closed:
                return
            yield followed.broken(message, self._addresses[False])
            await asyncio.sleep(backoff.wait_s(message.retry_s))

    def instructions(self, accounts: Sequence[str] | None = None) -> Instructions:
        """What this account's execution engine (or that of the accounts named, or of all that it may see) has to do."""
        return Instructions(
            self._stubs[False], self._dial.metadata, self._desk, self._addresses[False], self._desk.accounts(accounts)
        )

    # --- the wire ----------------------------------------------------------------------------------------------------

    @property
    def stub(self) -> risk_gateway_pb2_grpc.RiskGatewayAsyncStub:
        """The generated stub, for whatever this client does not offer: without its deadlines, retries and rules."""
        return self._stubs[False]

    async def _ask(self, call: Call[T]) -> T:
        attempts = Attempts(call, self._addresses[call.control], self._desk.patience, self._desk.world)
        method: Callable[..., Any] = getattr(self._stubs[call.control], call.method)
        while True:
            try:
                response = await method(call.request, timeout=attempts.timeout_s(), metadata=self._dial.metadata)
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
            except grpc.aio.UsageError:
                failure = CLOSED
            except asyncio.CancelledError:
                if not self._closed or _is_cancelled():
                    raise
                failure = CUT_OFF
            else:
                return call.read(response, attempts.asked)
            await asyncio.sleep(attempts.failed(failure))


class Instructions:
    """`async with … as instructions`, `async for instruction in instructions`: each is handed on once, until the client
    is closed. Answer each: `received` when it is taken on, then `done` or `failed`. Reconnects; an answer that was lost
    on the way is given again when its instruction comes again. After a restart of the engine what is outstanding comes
    anew."""

    def __init__(
        self,
        stub: risk_gateway_pb2_grpc.RiskGatewayAsyncStub,
        metadata: Metadata,
        desk: Desk,
        address: str,
        accounts: tuple[str, ...],
    ) -> None:
        self._stub, self._metadata, self._address = stub, metadata, address
        self._subscription = risk_gateway_pb2.InstructionSubscription(accounts=accounts)
        self._taken = Taken(desk)
        self._backoff = Backoff(desk.patience, desk.world.chance)
        self._writing = asyncio.Lock()
        self._call: Any = None
        self._reading = self._read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Instruction]:
        return self._reading

    async def aclose(self) -> None:
        await self._reading.aclose()

    async def received(self, instruction: Instruction) -> None:
        """Taken on: it is not repeated, and the time for its effect runs."""
        await self._answer(instruction, "received", "")

    async def done(self, instruction: Instruction, text: str = "") -> None:
        """Sent to the venue; reports tell the rest."""
        await self._answer(instruction, "done", text)

    async def failed(self, instruction: Instruction, text: str) -> None:
        """Cannot be done, and why: it is escalated at once."""
        await self._answer(instruction, "failed", text)

    async def _answer(self, instruction: Instruction, status: InstructionStatus, text: str) -> None:
        outcome = self._taken.answer(instruction.instruction_id, status, text)
        if self._call is not None:
            await self._write(self._call, risk_gateway_pb2.InstructionAck(outcome=outcome))

    async def _write(self, call: Any, message: risk_gateway_pb2.InstructionAck) -> None:
        """A lost connection is for the reader to find; what was to be written is written again after it."""
        async with self._writing:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(message)

    async def _read(self) -> AsyncGenerator[Instruction, None]:
        while True:
            try:
                call = self._call = self._stub.StreamInstructions(metadata=self._metadata)
            except grpc.aio.UsageError:
                return  # the client is closed
            try:
                await self._write(call, risk_gateway_pb2.InstructionAck(subscription=self._subscription))
                while not isinstance(message := await _next(call, None), Failure):
                    self._backoff.reset()
                    instruction = self._taken.first(message)
                    if instruction is not None:
                        yield instruction
                        continue
                    answered = self._taken.answered(message.instruction_id)
                    if answered is not None:
                        await self._write(call, risk_gateway_pb2.InstructionAck(outcome=answered))
            finally:
                self._call = None
                call.cancel()
            self._taken.broken(message, self._address)
            await asyncio.sleep(self._backoff.wait_s(message.retry_s))


class _Feed:
    """The orders of a stream on their way into its connections: read once, by one task, however many there are."""

    def __init__(self, pipeline: Pipeline, orders: AsyncIterable[Order] | Iterable[Order]) -> None:
        self.pipeline = pipeline
        self.moved = asyncio.Event()
        """Something was asked or answered, or the orders ended."""
        self._source: asyncio.Task[Any] = asyncio.create_task(self._take(orders))

    @property
    def finished(self) -> bool:
        return self._source.done() and self.pipeline.empty

    def source_ended(self) -> None:
        """Raises what the orders ended with, if it was an error."""
        self._source.result()

    def close(self) -> None:
        self._source.cancel()

    async def _take(self, orders: AsyncIterable[Order] | Iterable[Order]) -> None:
        try:
            async for order in _each(orders):
                while self.pipeline.waiting >= IN_FLIGHT_MAX:
                    await self._move()
                self.pipeline.ask(order)
                self.moved.set()
        finally:
            asyncio.get_running_loop().call_soon(self.moved.set)  # once this task counts as done

    async def _move(self) -> None:
        self.moved.clear()
        await self.moved.wait()

    async def send(self, call: Any) -> None:
        """Writes what waits, from the first without an answer, and what comes; ends with the connection or the
        orders."""
        place = self.pipeline.answered
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader finds it too
            while True:
                while place < self.pipeline.asked:
                    await call.write(self.pipeline.request(place))
                    place += 1
                if self._source.done():
                    await call.done_writing()
                    return
                await self._move()

    async def answer(self, call: Any) -> Any:
        """The next answer, or the Failure that ended the connection; one where the first order waits too long too."""
        reading: asyncio.Task[Any] = asyncio.create_task(_next(call, None))
        try:
            while not reading.done():
                if self.finished:
                    return ENDED
                left_s = self.pipeline.left_s()
                if left_s <= 0.0:
                    return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "")
                waited_for = {reading} if self._source.done() else {reading, self._source}
                await asyncio.wait(waited_for, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            return reading.result()
        finally:
            reading.cancel()


async def _each(orders: AsyncIterable[Order] | Iterable[Order]) -> AsyncGenerator[Order, None]:
    if isinstance(orders, AsyncIterable):
        async for order in orders:
            yield order
    else:
        for order in orders:
            yield order


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task: a call that ends with its channel raises CancelledError too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _next(call: Any, silence_s: float | None) -> Any:
    """The next message of a stream, or the Failure that ended it; its own end is one too, and so are a silence and the
    client's being closed."""
    try:
        message = await asyncio.wait_for(call.read(), silence_s)
    except TimeoutError:
        assert silence_s is not None, "without a limit there is none to exceed"
        return silent(silence_s)
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    except asyncio.CancelledError:
        if _is_cancelled() or not call.cancelled():
            raise
        return CUT_OFF
    return ENDED if message is grpc.aio.EOF else message
