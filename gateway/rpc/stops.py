"""StopAll and Resume: served on the control port, and on the gateway's too.

What a stop is stands in `gateway.stopping`; here its caller is judged, it is kept going past the caller's deadline, and
what stands in its scope is told (`gateway.rpc.standing`). A stop that is in force is never turned into an error by what
comes after it.
"""

from engine.control import Scope, TradingState
from gateway.errors import UnknownAccount
from gateway.rpc.backend import Backend, Context
from gateway.rpc.caller import Caller
from gateway.rpc.convert import requests, responses
from gateway.rpc.peers import forwarded
from gateway.rpc.standing import ORDERS_MAX, instructed, standing
from gateway.stopping import StopOutcome, partitions_of
from riskgateway.v1 import control_pb2, risk_gateway_pb2, risk_gateway_pb2_grpc

LISTING_US = 500_000
"""The stop is in force already: its answer waits no longer than this for what it still has to say of the orders."""

INSTRUCTING_US = 5_000_000
"""Cancels that a busy account has not taken by then are the worker's."""

FORWARDED_S = 0.2
"""What another gateway could not complete is answered after this: its own caller waits for the answer."""


class Stops(risk_gateway_pb2_grpc.RiskGatewayServicer):
    """RiskGateway as the control port serves it: the stop and the resume."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def StopAll(
        self, request: risk_gateway_pb2.StopAllRequest, context: Context
    ) -> risk_gateway_pb2.StopAllResponse:
        passed_on = forwarded(request, context.invocation_metadata() or (), self._backend.approvals)
        if passed_on is not None:
            taken_on = self._backend.stopper.take_on(passed_on, FORWARDED_S)
            outcome = await self._backend.kept(taken_on, self._backend.deadlines.allowed_us(context))
            return self._in_force(outcome, passed_on.state)
        caller = self._backend.admit(context, "operator")
        scope, state, reason = requests.stop_of(request)
        allowed_us = self._backend.deadlines.allowed_us(context)
        return await self._backend.kept(self._stop(scope, state, reason, caller, request.flatten), allowed_us)

    async def _stop(
        self, scope: Scope, state: TradingState, reason: str, caller: Caller, flatten: bool
    ) -> risk_gateway_pb2.StopAllResponse:
        outcome = await self._backend.stopper.stop(scope, state, reason, caller.name, caller.rank, flatten)
        response = self._in_force(outcome, state)
        accounts = self._backend.accounts
        left = await standing(accounts, scope, accounts.clock.now_us() + LISTING_US)
        if flatten:  # its caller is told the orders
            left = await instructed(accounts, left, accounts.clock.now_us() + LISTING_US)
        else:  # cancels reach the execution engine by their stream: the answer need not wait for them
            self._backend.go_on(instructed(accounts, left, accounts.clock.now_us() + INSTRUCTING_US))
        found = left.open_orders(scope)
        response.open_orders.extend(found[:ORDERS_MAX])
        response.open_orders_truncated = len(found) > ORDERS_MAX
        own = left.flatten_orders(scope, self._backend.approvals) if flatten else []
        response.flatten_orders.extend(own[:ORDERS_MAX])
        response.flatten_orders_truncated = len(own) > ORDERS_MAX
        response.warnings.extend(left.problems)
        return response

    def _in_force(self, outcome: StopOutcome, state: TradingState) -> risk_gateway_pb2.StopAllResponse:
        return risk_gateway_pb2.StopAllResponse(
            stop_epoch=outcome.epoch,
            acknowledged_partitions=outcome.partitions,
            stop_time=responses.timestamp(self._backend.accounts.clock.now_us()),
            trading_state=responses.trading_state(state),
        )

    async def Resume(
        self, request: risk_gateway_pb2.ResumeRequest, context: Context
    ) -> risk_gateway_pb2.ResumeResponse:
        caller = self._backend.admit(context, "operator")
        scope, reason = requests.resume_of(request)
        allowed_us = self._backend.deadlines.allowed_us(context)
        return await self._backend.kept(
            self._resume(scope, reason, caller, self._backend.accounts.clock.now_us() + allowed_us), allowed_us
        )

    async def _resume(
        self, scope: Scope, reason: str, caller: Caller, deadline_us: int
    ) -> risk_gateway_pb2.ResumeResponse:
        outcome = await self._backend.stopper.resume(scope, reason, caller.name, caller.rank)
        resumed_us = self._backend.accounts.clock.now_us()
        held = [responses.stop_cause(stop) for stop in outcome.refused]
        state = max((stop.state for stop in outcome.refused if stop.scope.covers(scope)), default=TradingState.ACTIVE)
        if scope.account:
            latched, latched_state = await self._latched(scope, deadline_us)
            held, state = held + latched, max(state, latched_state)
        return risk_gateway_pb2.ResumeResponse(
            stop_epoch=outcome.epoch,
            acknowledged_partitions=len(partitions_of(scope)),
            resume_time=responses.timestamp(resumed_us),
            trading_state=responses.trading_state(state),
            causes=sorted(held, key=lambda cause: -cause.state),
        )

    async def _latched(
        self, scope: Scope, deadline_us: int
    ) -> tuple[list[control_pb2.TradingStateCause], TradingState]:
        """The account's own latches that the resume did not lift, and the strictest over the whole of its scope."""
        try:
            reading = await self._backend.accounts.read(scope.account, deadline_us)
        except UnknownAccount:
            return [], TradingState.ACTIVE
        state, control = reading.state, reading.terms.control
        held = [
            (latch, seq)
            for latch, seq in state.latches.values()
            if state.latch_holds(latch, seq, control) and _touch(latch.scope, scope)
        ]
        strictest = max((latch.state for latch, _ in held if latch.scope.covers(scope)), default=TradingState.ACTIVE)
        return [responses.latch_cause(latch, seq) for latch, seq in held], strictest


def _touch(one: Scope, other: Scope) -> bool:
    return one.covers(other) or other.covers(one)
