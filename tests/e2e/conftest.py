"""Machines for end-to-end tests: one that the tests of a module share, and ones of their own for those that kill.

Only fixtures live here; what a machine is stands in `machine`, what is said to it in `desk`.
"""

import re
import shutil
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.configuration import CONFIGURATION, own_environment
from tests.e2e.desk import Desk, desk
from tests.e2e.machine import Machine

MakeMachine = Callable[..., Machine]

NODE_TESTS = ["test_node_client.py", "test_node_example.py"]
collect_ignore = [] if shutil.which("node") and shutil.which("npm") else NODE_TESTS
"""The README's test command asks for no node; where there is none, there is nothing to say of it."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that serves, shared by the tests of a module: each opens an account of its own."""
    shared = Machine(CONFIGURATION, own_environment(), tmp_path_factory.mktemp("machine"))
    try:
        shared.start()
        yield shared
    finally:
        shared.close()


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[MakeMachine]:
    """Starts machines that end with the test: `make_machine()`, or with a configuration of its own."""
    made: list[Machine] = []

    def make(configuration: str = CONFIGURATION) -> Machine:
        made.append(Machine(configuration, own_environment(), tmp_path / f"machine-{len(made)}"))
        made[-1].start()
        return made[-1]

    yield make
    for machine in made:
        machine.close()


@pytest.fixture
async def own_desk(machine: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """An account of the test's own, open on the shared machine."""
    async with desk(machine, account_of(request.node.nodeid)) as mine:
        await mine.open()
        yield mine


def account_of(test: str) -> str:
    """A name of its own for each test, short enough for an account."""
    return (
        f"{re.sub('[^a-z]+', '-', test.rpartition('::')[2].removeprefix('test_'))[:40]}-{zlib.crc32(test.encode()):x}"
    )
