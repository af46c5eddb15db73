"""Follows StreamRiskState and wakes whoever waits for an account to get somewhere. No polling.

Keeps the latest state of each account only. A broken stream is opened again: it starts with a snapshot, so nothing is
missed by it.
"""

import asyncio
from collections.abc import Callable, Sequence

import grpc

from gateway.demo.client import RETRIED, DemoError
from riskgateway.v1 import account_pb2, risk_gateway_pb2, risk_gateway_pb2_grpc

WAIT_MAX_S = 20.0
"""A model takes a fraction of a second; past this the worker is not coming."""

RECONNECT_S = 0.2


class RiskStates:
    """The latest RiskState by account. `follow` must run beside whoever waits."""

    def __init__(self, gateway: "risk_gateway_pb2_grpc.RiskGatewayAsyncStub", accounts: Sequence[str]) -> None:
        self.latest: dict[str, account_pb2.RiskState] = {}
        self._gateway, self._accounts = gateway, tuple(accounts)
        self._news = asyncio.Condition()
        self._failure: DemoError | None = None
        self._ended = False

    async def follow(self) -> None:
        """Until cancelled, or until the server refuses the stream. However it ends, those who wait hear of it."""
        try:
            while self._failure is None:
                await self._read()
                await asyncio.sleep(RECONNECT_S)
        finally:
            async with self._news:
                self._ended = True
                self._news.notify_all()

    async def _read(self) -> None:
        request = risk_gateway_pb2.StreamRiskStateRequest(accounts=self._accounts)
        try:
            async for update in self._gateway.StreamRiskState(request, wait_for_ready=True):
                if update.WhichOneof("update") == "risk_state":
                    async with self._news:
                        self.latest[update.risk_state.account] = update.risk_state
                        self._news.notify_all()
        except grpc.aio.AioRpcError as error:
            if error.code() not in RETRIED:
                self._failure = DemoError(f"StreamRiskState: {error.code().name}: {error.details()}")

    async def until(
        self, account: str, there: Callable[[account_pb2.RiskState], bool], what: str
    ) -> account_pb2.RiskState:
        """The first state of the account that is `there`. Raises DemoError, naming `what` was waited for."""
        try:
            async with asyncio.timeout(WAIT_MAX_S), self._news:
                await self._news.wait_for(lambda: self._ended or self._is(account, there))
        except TimeoutError as error:
            problem = f"{account}: {what} did not come within {WAIT_MAX_S:.0f} s; does the worker run?"
            raise DemoError(problem) from error
        if self._ended:
            raise self._failure or DemoError("the stream of risk states ended")
        return self.latest[account]

    def _is(self, account: str, there: Callable[[account_pb2.RiskState], bool]) -> bool:
        state = self.latest.get(account)
        return state is not None and there(state)
