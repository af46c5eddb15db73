"""RiskGateway as the gateway's port serves it: check, report, stop, resume, follow.

Each handler admits its caller, has the request converted, asks the accounts, and has the answer converted. No call of
the store is made here: gRPC cancels handlers at the deadline.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from engine.account import AccountState
from engine.decide import trading_state
from engine.facts import Execution
from engine.order import Order
from engine.records import Executed
from gateway.committer import Answer
from gateway.errors import StoreUnavailable
from gateway.rpc.backend import Backend, Context
from gateway.rpc.convert import requests, responses
from gateway.rpc.convert.risk_state import risk_state
from gateway.rpc.facts import Reports, heartbeat_build
from gateway.rpc.headroom import headrooms
from gateway.rpc.instructions import InstructionStream, Sent
from gateway.rpc.order_stream import Answering, OrderStream
from gateway.rpc.stops import Stops
from gateway.rpc.stream import RiskStateStream, report_on
from gateway.stopping import StopUnderWay
from riskgateway.v1 import account_pb2, decision_pb2, risk_gateway_pb2


class RiskGateway(Stops):
    """All methods of the service."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._sent = Sent()

    async def CheckOrder(
        self, request: risk_gateway_pb2.CheckOrderRequest, context: Context
    ) -> risk_gateway_pb2.CheckOrderResponse:
        self._backend.admit(context, "trader")
        self._refuse_while_stopping()
        return await self._decided(request, requests.order_of(request), self._backend.deadline_us(context))

    async def _decided(
        self, request: risk_gateway_pb2.CheckOrderRequest, order: Order, deadline_us: int
    ) -> risk_gateway_pb2.CheckOrderResponse:
        (answer,) = await self._backend.accounts.check(
            [order], dry_run=request.dry_run, basket=False, deadline_us=deadline_us
        )
        self._refuse_while_stopping()
        return self._answered(answer, request.checks, request.dry_run)

    async def CheckOrders(
        self, request: risk_gateway_pb2.CheckOrdersRequest, context: Context
    ) -> risk_gateway_pb2.CheckOrdersResponse:
        self._backend.admit(context, "trader")
        self._refuse_while_stopping()
        orders = requests.orders_of(request)
        answers = await self._backend.accounts.check(
            orders,
            dry_run=request.dry_run,
            basket=request.all_or_none,
            deadline_us=self._backend.deadline_us(context),
        )
        self._refuse_while_stopping()
        return risk_gateway_pb2.CheckOrdersResponse(
            responses=[self._answered(answer, request.checks, request.dry_run) for answer in answers],
            all_allowed=all(responses.allowed_in_full(answer.decided) for answer in answers),
        )

    async def CheckOrderStream(
        self, request_iterator: AsyncIterator[risk_gateway_pb2.CheckOrderRequest], context: Context
    ) -> AsyncGenerator[risk_gateway_pb2.CheckOrderResponse, None]:
        self._backend.admit(context, "trader")
        async with contextlib.aclosing(OrderStream(self._backend, self._submit).answers(request_iterator)) as answers:
            async for answer in answers:
                yield answer

    def _submit(self, request: risk_gateway_pb2.CheckOrderRequest, index: int) -> Answering:
        """A request of a stream: each has the default deadline, whatever that of the stream is."""
        self._refuse_while_stopping()
        order = requests.order_of(request, f"requests[{index}].")
        deadline_us = self._backend.accounts.clock.now_us() + self._backend.deadlines.default_us
        return self._decided(request, order, deadline_us)

    async def GetHeadroom(
        self, request: risk_gateway_pb2.GetHeadroomRequest, context: Context
    ) -> risk_gateway_pb2.GetHeadroomResponse:
        self._backend.admit(context)
        self._refuse_while_stopping()
        account, strategy, symbols = requests.headroom_of(request)
        found = await headrooms(self._backend, account, strategy, symbols, self._backend.deadline_us(context))
        self._refuse_while_stopping()
        terms = found.reading.terms
        return risk_gateway_pb2.GetHeadroomResponse(
            headrooms=[responses.headroom(one, terms.instruments.get(one.symbol)) for one in found.of_symbols],
            account=account,
            sequence=found.reading.head.seq,
            stop_epoch=terms.control.epoch,
            state_time=responses.timestamp(found.now_us),
        )

    def _refuse_while_stopping(self) -> None:
        """A stop that was asked for here holds here, also where the store has not heard of it yet, and for orders too
        that were being decided when it came: an approval that is not answered is found by its id."""
        if self._backend.stopper.unfinished:
            raise StopUnderWay

    def _answered(
        self, answer: Answer, checks: "decision_pb2.Checks.ValueType", dry_run: bool
    ) -> risk_gateway_pb2.CheckOrderResponse:
        state = self._state_of(answer.decided.order.account)
        return responses.check_response(answer, state, checks, self._backend.approvals, dry_run)

    def _state_of(self, account: str) -> AccountState:
        committer = self._backend.accounts.latest(account)
        if committer is None or not committer.state.opened:
            raise StoreUnavailable(f"account {account} is being read again; the decision stands, ask again")
        return committer.state

    async def ReportExecution(
        self, request: risk_gateway_pb2.ReportExecutionRequest, context: Context
    ) -> risk_gateway_pb2.ReportExecutionResponse:
        self._backend.admit(context, "execution")
        executions = requests.executions_of(request)
        deadline_us = self._backend.deadline_us(context)
        by_account: dict[str, list[int]] = {}
        for index, execution in enumerate(executions):
            by_account.setdefault(execution.account, []).append(index)
        parts = await asyncio.gather(
            *(self._recorded(account, indices, executions, deadline_us) for account, indices in by_account.items())
        )
        results: dict[int, risk_gateway_pb2.ExecutionResult] = {}
        for indices, part in zip(by_account.values(), parts, strict=True):
            results.update(zip(indices, part, strict=True))
        return risk_gateway_pb2.ReportExecutionResponse(results=[results[i] for i in range(len(executions))])

    async def Heartbeat(
        self, request: risk_gateway_pb2.HeartbeatRequest, context: Context
    ) -> risk_gateway_pb2.HeartbeatResponse:
        self._backend.admit(context, "trader")
        account, strategy = requests.heartbeat_of(request)
        deadline_us = self._backend.deadline_us(context)
        await self._backend.accounts.record(account, heartbeat_build(strategy), deadline_us)
        reading = await self._backend.accounts.read(account, deadline_us)
        control = reading.terms.control
        return risk_gateway_pb2.HeartbeatResponse(
            trading_state=responses.trading_state(trading_state(reading.state, control, strategy, "")),
            stop_epoch=control.epoch,
            heard_time=responses.timestamp(reading.now_us),
        )

    async def _recorded(
        self, account: str, indices: Sequence[int], executions: Sequence[Execution], deadline_us: int
    ) -> list[risk_gateway_pb2.ExecutionResult]:
        """Record the reports of one account together, in the order given."""
        reports = Reports(account, [(index, executions[index]) for index in indices])
        recorded = await self._backend.accounts.record(account, reports.build, deadline_us)
        before = recorded.seq - len(recorded.records)
        results = []
        for index, place in zip(indices, reports.places, strict=True):
            record = recorded.records[place] if place is not None else None
            assert record is None or isinstance(record, Executed), "places point at executions"
            seq = before + place + 1 if place is not None else recorded.seq
            results.append(responses.execution_result(account, executions[index].execution_id, seq, record))
        return results

    async def GetRiskState(
        self, request: risk_gateway_pb2.GetRiskStateRequest, context: Context
    ) -> account_pb2.RiskState:
        self._backend.admit(context)
        account = requests.account_of(request)
        reading = await self._backend.accounts.read(account, self._backend.deadline_us(context))
        report = await report_on(self._backend, account, self._backend.deadlines.allowed_us(context))
        return risk_state(reading, report)

    async def StreamRiskState(
        self, request: risk_gateway_pb2.StreamRiskStateRequest, context: Context
    ) -> AsyncGenerator[risk_gateway_pb2.RiskStateUpdate, None]:
        self._backend.admit(context)
        stream = RiskStateStream(self._backend, requests.accounts_of(request))
        async with contextlib.aclosing(stream.updates()) as updates:
            async for update in updates:
                yield update

    async def StreamInstructions(
        self, request_iterator: AsyncIterator[risk_gateway_pb2.InstructionAck], context: Context
    ) -> AsyncGenerator[risk_gateway_pb2.Instruction, None]:
        self._backend.admit(context, "execution")
        stream = InstructionStream(self._backend, self._sent, request_iterator)
        async with contextlib.aclosing(stream.instructions()) as instructions:
            async for instruction in instructions:
                yield instruction
