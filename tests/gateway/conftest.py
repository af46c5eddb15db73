"""Fixtures: the gateway's and control's servers over one memory log, and an account that may trade."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.log.memory import MemoryLog
from gateway.rpc.backend import Backend
from tests.gateway.rpc.serving import Served, backend_over, open_for_trading, served


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: paths of unix sockets end at 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="rg") as name:
        yield Path(name)


@pytest.fixture
async def backend(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[Backend]:
    async with backend_over(memory_log, store_clock) as built:
        yield built


@pytest.fixture
async def control(backend: Backend, folder: Path) -> AsyncIterator[Served]:
    async with served(backend, folder, control=True) as running:
        yield running


@pytest.fixture
async def gateway(backend: Backend, folder: Path, control: Served) -> AsyncIterator[Served]:
    """Open for trading."""
    await open_for_trading(control.admin, backend)
    async with served(backend, folder) as running:
        yield running
