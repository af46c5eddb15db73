"""StopAll and Resume: served on the control port, and on the gateway's too.

What a stop is stands in `gateway.stopping`; here its caller is judged, it is kept going past the caller's deadline, and
the orders that may still fill are listed. A stop that is in force is never turned into an error by what comes after it.
"""

import asyncio
from collections.abc import Iterable

from engine.account import AccountState, OpenOrder
from engine.control import Scope, TradingState
from gateway.committer import Reading
from gateway.errors import UnknownAccount
from gateway.rpc.backend import Backend, Context
from gateway.rpc.caller import Caller
from gateway.rpc.convert import requests, responses
from gateway.stopping import partitions_of
from riskgateway.v1 import control_pb2, order_pb2, risk_gateway_pb2, risk_gateway_pb2_grpc

OPEN_ORDERS_MAX = 1_000
LISTING_US = 500_000
"""The stop is in force already: its answer waits no longer than this for the list of open orders."""


class Stops(risk_gateway_pb2_grpc.RiskGatewayServicer):
    """RiskGateway as the control port serves it: the stop and the resume."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def StopAll(
        self, request: risk_gateway_pb2.StopAllRequest, context: Context
    ) -> risk_gateway_pb2.StopAllResponse:
        caller = self._backend.admit(context, "operator")
        scope, state, reason = requests.stop_of(request)
        allowed_us = self._backend.deadlines.allowed_us(context)
        return await self._backend.kept(self._stop(scope, state, reason, caller, request.flatten), allowed_us)

    async def _stop(
        self, scope: Scope, state: TradingState, reason: str, caller: Caller, flatten: bool
    ) -> risk_gateway_pb2.StopAllResponse:
        outcome = await self._backend.stopper.stop(scope, state, reason, caller.name, caller.rank)
        stopped_us = self._backend.accounts.clock.now_us()
        found, warnings = await self._open_orders(scope)
        if flatten:
            warnings.append("no flatten orders were made: this release makes none; the stop itself is in force")
        return risk_gateway_pb2.StopAllResponse(
            stop_epoch=outcome.epoch,
            acknowledged_partitions=outcome.partitions,
            stop_time=responses.timestamp(stopped_us),
            open_orders=found[:OPEN_ORDERS_MAX],
            open_orders_truncated=len(found) > OPEN_ORDERS_MAX,
            trading_state=responses.trading_state(state),
            warnings=warnings,
        )

    async def _open_orders(self, scope: Scope) -> tuple[list[order_pb2.OpenOrder], list[str]]:
        """(the orders in scope approved before the stop, oldest first, at most one too many; why some are missing)."""
        accounts = self._backend.accounts
        until_us = accounts.clock.now_us() + LISTING_US
        names = [scope.account] if scope.account else sorted(accounts.names)
        reads = (accounts.read(name, until_us) for name in names)
        outcomes = await asyncio.gather(*reads, return_exceptions=True)  # one unreadable account, and all others count
        found: list[tuple[OpenOrder, Reading]] = []
        warnings: list[str] = []
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, Reading):
                found += [(order, outcome) for order in _covered(outcome, scope)]
            elif not isinstance(outcome, UnknownAccount):  # one without a first record has no orders
                warnings.append(f"open orders of account {name} can't be listed: {type(outcome).__name__}")
        found.sort(key=lambda entry: (entry[0].time_us, entry[0].seq))
        told = found[: OPEN_ORDERS_MAX + 1]
        return [responses.open_order(reading.state, order, reading.now_us) for order, reading in told], warnings

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


def _covered(reading: Reading, scope: Scope) -> Iterable[OpenOrder]:
    """Open orders in scope that were approved under an earlier epoch than the stop's."""
    state: AccountState = reading.state
    epoch = reading.terms.control.epoch
    return (
        order
        for order in state.orders.values()
        if order.epoch < epoch and scope.reaches(state.account, order.strategy, order.symbol)
    )
