"""Fixtures: a real gateway over the memory log with an account that may trade, a relay before it, and the clients.

Stories that hold for both clients take `risk`, which is the one and then the other with the same way to be called.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.client import AsyncRiskClient, Patience, RiskClient, World
from tests.gateway.client.relay import Relay, relaying
from tests.gateway.rpc.serving import ACCOUNT, Served

QUICK = Patience(
    deadline_s=3.0, stop_deadline_s=3.0, attempt_s=0.5, silence_s=0.5, backoff_first_s=0.01, backoff_max_s=0.05
)
STEADY = World(chance=lambda: 0.0)


class Threaded:
    """RiskClient called as AsyncRiskClient is: each of its calls in a thread."""

    def __init__(self, client: RiskClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        if name in ("order", "as_of_now"):
            return method  # type: ignore[no-any-return]  # what getattr finds is a method

        async def called(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(method, *arguments, **named)

        return called


@pytest.fixture
async def relay(gateway: Served, folder: Path) -> AsyncIterator[Relay]:
    async with relaying(gateway.channel, folder) as running:
        yield running


@pytest.fixture
async def desk(relay: Relay, control: Served) -> AsyncIterator[AsyncRiskClient]:
    """The asynchronous client, through the relay."""
    async with AsyncRiskClient(
        relay.address, control=control.address, account=ACCOUNT, strategy="mm", patience=QUICK, world=STEADY
    ) as client:
        yield client


@pytest.fixture
async def blocking(relay: Relay, control: Served) -> AsyncIterator[RiskClient]:
    """The blocking client, through the relay. Its calls belong in a thread: the servers run on the test's loop."""
    with RiskClient(
        relay.address, control=control.address, account=ACCOUNT, strategy="mm", patience=QUICK, world=STEADY
    ) as client:
        yield client


@pytest.fixture(params=["asynchronous", "blocking"])
def risk(request: pytest.FixtureRequest, desk: AsyncRiskClient, blocking: RiskClient) -> Any:
    """The one client, then the other."""
    return desk if request.param == "asynchronous" else Threaded(blocking)
