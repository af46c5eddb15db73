"""A real analyst behind a real server on a unix socket, found through the bulletin, for tests.

Only builders and the running of servers live here. Everything is ended with the test.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.rpc.analysts import Announcer, Asked
from gateway.rpc.analytics_server import AnalyticsServer
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Backend
from gateway.rpc.caller import Callers
from gateway.rpc.risk_analytics import Analyst as Knows
from gateway.worker.analytics import Analyst
from tests.gateway.rpc.serving import KEY


@contextlib.asynccontextmanager
async def analysing(
    backend: Backend, folder: Path, analyst: Knows | None = None, name: str = "worker", key: bytes = KEY
) -> AsyncIterator[AnalyticsServer]:
    """A worker's server that answers from the backend's own accounts, and gateways find it."""
    clock, approvals = backend.accounts.clock, Approvals(key)
    announcer = Announcer(backend.log.bulletin, clock, approvals)
    asked = Asked(Callers([], local_operator=False), clock, approvals)
    with ThreadPoolExecutor(max_workers=1) as executor:
        knows = analyst or Analyst(backend.accounts, executor)
        server = AnalyticsServer(knows, asked, backend.deadlines, announcer)
        address = f"unix:{folder / name}"
        await server.listen(address)
        announcer.start(address)
        await known_at(backend, address)
        try:
            yield server
        finally:
            await server.drain(0.0)


async def known_at(backend: Backend, address: str) -> None:
    """Returns once the card with this address is out: its announcement tells nobody."""
    async with asyncio.timeout(10):
        while not any(address.encode() in card for card in await backend.log.bulletin.analysts(0)):  # noqa: ASYNC110
            await asyncio.sleep(0)
