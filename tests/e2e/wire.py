"""A wire to the store that a test can cut: a unix socket that passes everything on, or nothing and no word of it.

It runs in the test's own event loop. No test of anything in here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class Wire:
    """`cut` freezes it as a network does that drops every packet; `mend` drops what was connected, for a new start."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._whole = asyncio.Event()
        self._whole.set()
        self._connections: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        for connection in self._connections:
            connection.cancel()
        self._whole.set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            from_store, to_store = await asyncio.open_unix_connection(self._store)
            try:
                await asyncio.gather(self._pass(reader, to_store), self._pass(from_store, writer))
            finally:
                to_store.close()
        writer.close()
        self._connections.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def wire(store: Path, listen_at: Path) -> AsyncIterator[Wire]:
    """A wire from `listen_at` to the store's socket; ended with the `with`."""
    between = Wire(store)
    server = await asyncio.start_unix_server(between.connect, listen_at)
    try:
        yield between
    finally:
        between.mend()
        server.close()
