"""RiskClient: the gateway from code that blocks, one call at a time or from many threads.

What is asked, retried and dropped is decided in `desk`, `attempts` and `streams`; here it is sent, waited for, and
handed on. No gRPC exception leaves here.
"""

from __future__ import annotations  # grpc's callables are generic for type checkers only

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from gateway.client.attempts import Attempts, Backoff, Call, Patience, World
from gateway.client.channel import dial
from gateway.client.desk import Desk, Detail, Reached, Reportable
from gateway.client.status import CLOSED, Failure, failure_of
from gateway.client.streams import ENDED, Followed, Pipeline, silent
from gateway.client.values import (
    Basket,
    Headroom,
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


class RiskClient:
    """A connection to the gateway, for one account unless a call names another. Safe for threads; close it, or use
    `with`. Every call ends within `patience`, and is retried under the same ids until then."""

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
        """`control`: where stops and resumes go; None: to `address`, which serves them too. `credentials`: for TLS.
        Raises ValueError for what is no address."""
        self._desk = Desk(account, strategy, id_prefix, patience, world)
        self._dial = dial(token, credentials, metadata, options)
        self._addresses = {False: address, True: address if control is None else control}
        self._channels = {at: self._dial.blocking(at) for at in set(self._addresses.values())}
        self._stubs = {
            control: risk_gateway_pb2_grpc.RiskGatewayStub(self._channels[at])
            for control, at in self._addresses.items()
        }
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections and every stream on them; of a call that is under way the outcome is unknown."""
        self._closed.set()
        for channel in self._channels.values():
            channel.close()

    # --- orders ------------------------------------------------------------------------------------------------------

    def order(self, side: Side, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Order:
        """An order of this client's account under a new id; nothing is asked yet."""
        return self._desk.order(side, symbol, quantity, **terms)

    def buy(self, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Verdict:
        """May this be bought? See `check`."""
        return self.check(self.order("buy", symbol, quantity, **terms))

    def sell(self, symbol: str, quantity: float, **terms: Unpack[Terms]) -> Verdict:
        """May this be sold? See `check`."""
        return self.check(self.order("sell", symbol, quantity, **terms))

    def check(
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
        return self._ask(self._desk.check(order, dry_run, all_or_none, explain, detail))

    def check_orders(
        self,
        orders: Sequence[Order],
        *,
        all_or_none: bool = False,
        dry_run: bool = False,
        explain: bool = False,
        detail: Detail = "all",
    ) -> Basket:
        """Up to 500 orders in one step, each seeing the earlier ones. Errors as of `check`, for all of them."""
        return self._ask(self._desk.check_orders(orders, dry_run, all_or_none, explain, detail))

    def check_stream(
        self, orders: Iterable[Order], *, in_flight: int = 64, detail: Detail = "all"
    ) -> Iterator[Verdict]:
        """Verdicts in the order of the orders, which are sent ahead: an answer is handed out once `in_flight` orders
        wait or `orders` ends. Survives the loss of its connection. Errors as of `check`, with the ids of all orders
        without an answer; what `orders` raises comes after the answers to those before it. Close the iterator if you
        don't exhaust it. Raises ValueError where `in_flight` is less than 1."""
        if in_flight < 1:
            raise ValueError(f"in_flight: expected 1 or more, got {in_flight}")
        pipeline = Pipeline(self._desk, detail)
        source = _Source(orders)
        connection: _Connection | None = None
        try:
            while not (source.ended and pipeline.empty):
                while source.feed(pipeline, in_flight):
                    connection = connection or self._connect(pipeline)
                    connection.send(pipeline)
                if pipeline.empty:
                    continue
                connection = connection or self._connect(pipeline)
                answer = connection.answer(pipeline, source.ended)
                if isinstance(answer, Failure):
                    connection.close()
                    connection = None
                    self._closed.wait(pipeline.broken(answer, self._addresses[False]))
                    continue
                yield pipeline.answer(answer)
                pipeline.look()
        finally:
            if connection is not None:
                connection.close()
        source.raise_error()

    def _connect(self, pipeline: Pipeline) -> _Connection:
        try:
            return _Connection(self._stubs[False], self._dial.metadata, pipeline, self._desk)
        except ValueError:  # gRPC's word for a channel that is closed
            if self._closed.is_set():
                pipeline.broken(CLOSED, self._addresses[False])
            raise

    def as_of_now(self, verdict: Verdict) -> Verdict:
        """The verdict, or the same with its approval dropped where a newer epoch was seen or its time is up since. Asks
        nobody: look right before sending what waited."""
        return self._desk.freshness.as_of_now(verdict)

    def headroom(
        self, symbols: Sequence[str] = (), *, account: str | None = None, strategy: str | None = None
    ) -> tuple[Headroom, ...]:
        """The most that may be bought and sold now; of all symbols held or open where none is named. Advisory."""
        return self._ask(self._desk.headroom(symbols, account, strategy))

    def heartbeat(self, *, account: str | None = None, strategy: str | None = None) -> str:
        """A sign of life where a limit on `agent_silence` is armed; every check is one too. The trading state now."""
        return self._ask(self._desk.heartbeat(account, strategy))

    # --- reports -----------------------------------------------------------------------------------------------------

    def report_working(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue has acknowledged it."""
        return self._report(self._desk.report_of("working", order, **terms))

    def report_fill(self, order: Reportable, quantity: float, price: float, **terms: Unpack[ReportTerms]) -> Reported:
        """Filled, in part or whole. With the venue's own `execution_id` a fill told twice counts once, also after a
        restart."""
        return self._report(self._desk.report_of("fill", order, quantity, price, **terms))

    def report_cancel_requested(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """A cancel was sent; releases nothing."""
        return self._report(self._desk.report_of("cancel_requested", order, **terms))

    def report_cancelled(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue confirmed the cancel."""
        return self._report(self._desk.report_of("cancelled", order, **terms))

    def report_rejected(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue refused it."""
        return self._report(self._desk.report_of("rejected", order, **terms))

    def report_expired(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """The venue ended it."""
        return self._report(self._desk.report_of("expired", order, **terms))

    def report_not_sent(self, order: Reportable, **terms: Unpack[ReportTerms]) -> Reported:
        """It was approved, was not sent, and never will be."""
        return self._report(self._desk.report_of("not_sent", order, **terms))

    def report(self, reports: Sequence[Report]) -> tuple[Reported, ...]:
        """Up to 500 reports at once, recorded in the order given."""
        return self._ask(self._desk.report(reports))

    def _report(self, report: Report) -> Reported:
        (reported,) = self.report([report])
        return reported

    # --- states and stops --------------------------------------------------------------------------------------------

    def risk_state(self, account: str | None = None) -> RiskState:
        """The account now."""
        return self._ask(self._desk.risk_state(account))

    def stop_all(
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
        return self._ask(self._desk.stop_all(reason, scope, mode, flatten))

    def resume(
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
        return self._ask(self._desk.resume(reason, scope))

    def follow(self, accounts: Sequence[str] | None = None) -> Iterator[Update]:
        """States whole and as they change, stops, alerts and heartbeats of this client's account (or of those named,
        or of all that it may see), until the client is closed: a lost stream is told as Disconnected and dialled again.
        While it is followed, in a thread of its own, `check` knows of stops that others make. Raises CallFailed where
        dialling again is in vain. Close the iterator when done."""
        followed, patience = Followed(self._desk), self._desk.patience
        backoff = Backoff(patience, self._desk.world.chance)
        request = risk_gateway_pb2.StreamRiskStateRequest(accounts=self._desk.accounts(accounts))
        while not self._closed.is_set():
            with _Watched(
                self._stubs[False].StreamRiskState(request, metadata=self._dial.metadata), self._desk
            ) as call:
                while not isinstance(message := call.next(patience.silence_s), Failure):
                    backoff.reset()
                    update = followed.news(message)
                    if update is not None:
                        yield update
            if not self._closed.is_set():
                yield followed.broken(message, self._addresses[False])
                self._closed.wait(backoff.wait_s(message.retry_s))

    # --- the wire ----------------------------------------------------------------------------------------------------

    @property
    def stub(self) -> risk_gateway_pb2_grpc.RiskGatewayStub:
        """The generated stub, for whatever this client does not offer: without its deadlines, retries and rules."""
        return self._stubs[False]

    def _ask(self, call: Call[T]) -> T:
        attempts = Attempts(call, self._addresses[call.control], self._desk.patience, self._desk.world)
        method: Callable[..., Any] = getattr(self._stubs[call.control], call.method)
        while True:
            try:
                response = method(call.request, timeout=attempts.timeout_s(), metadata=self._dial.metadata)
            except grpc.RpcError as error:
                failure = failure_of(error)
            except ValueError:  # gRPC's word for a channel that is closed
                if not self._closed.is_set():
                    raise
                failure = CLOSED
            else:
                return call.read(response, attempts.asked)
            self._closed.wait(attempts.failed(failure))


class _Watched:
    """A call that streams answers, read with a limit: a thread of its own cancels it when a read takes longer."""

    def __init__(self, call: Any, desk: Desk) -> None:
        self._call, self._clock_s = call, desk.world.monotonic_s
        self._changed = threading.Condition()
        self._until_s: float | None = None
        self._silent = self._over = False
        threading.Thread(target=self._watch, daemon=True, name="risk-client-watch").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def next(self, limit_s: float) -> Any:
        """The next message, or the Failure that ended the stream; its own end is one too, and so is a silence."""
        self._expect(self._clock_s() + limit_s)
        try:
            return next(self._call, ENDED)
        except grpc.RpcError as error:
            return silent(limit_s) if self._silent else failure_of(error)
        finally:
            self._expect(None)

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._call.cancel()

    def _expect(self, until_s: float | None) -> None:
        with self._changed:
            self._until_s = until_s
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._over and not self._silent:
                left_s = None if self._until_s is None else self._until_s - self._clock_s()
                if left_s is None or left_s > 0.0:
                    self._changed.wait(left_s)
                else:
                    self._silent = True
        self._call.cancel()


class _Source:
    """The orders of a stream, from wherever the caller has them; what breaks them is kept until all are answered."""

    def __init__(self, orders: Iterable[Order]) -> None:
        self._orders = iter(orders)
        self._error: Exception | None = None
        self.ended = False

    def feed(self, pipeline: Pipeline, in_flight: int) -> bool:
        """Ask about one order more, where there is one and room for it."""
        if self.ended or pipeline.waiting >= in_flight:
            return False
        try:
            pipeline.ask(next(self._orders))
        except StopIteration:
            self.ended = True
        except Exception as error:  # noqa: BLE001  - the caller's code may raise anything; it gets it back
            self.ended, self._error = True, error
        pipeline.look()
        return not self.ended

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class _Connection:
    """One connection of a stream of orders: sends what the pipeline holds, from the first that has no answer."""

    def __init__(self, stub: Any, metadata: Any, pipeline: Pipeline, desk: Desk) -> None:
        self._requests: SimpleQueue[risk_gateway_pb2.CheckOrderRequest | None] = SimpleQueue()
        self._sent = pipeline.answered
        self._half_closed = False
        sending = iter(self._requests.get, None)
        self._call = _Watched(stub.CheckOrderStream(sending, metadata=metadata), desk)

    def send(self, pipeline: Pipeline) -> None:
        """All that waits and was not sent on this connection."""
        while self._sent < pipeline.asked:
            self._requests.put(pipeline.request(self._sent))
            self._sent += 1

    def answer(self, pipeline: Pipeline, ended: bool) -> Any:
        """The next answer, once all that waits has been sent; or the Failure that ended the connection."""
        self.send(pipeline)
        if ended and not self._half_closed:
            self._half_close()
        return self._call.next(max(0.0, pipeline.left_s()))

    def close(self) -> None:
        self._half_close()
        self._call.close()

    def _half_close(self) -> None:
        self._half_closed = True
        self._requests.put(None)
