"""A client in another language, from the .proto files alone: it must find everything it needs on the two ports.

The test exists where Node is: a bare machine that runs the README's command has none and misses nothing of ours.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.machine import ROOT, Machine

FOLDER = Path(__file__).parent / "node"
PROTOS = ROOT / "protos"
STEPS = (
    "instruments, account, session and prices are taken, and told twice they change nothing",
    "the stream tells of the risk model and of the worker's report",
    "every action happens: ALLOW, WARN, REDUCE, REJECT, HALT",
    "the same id gets the same answer, with other contents ALREADY_EXISTS",
    "bad input is INVALID_ARGUMENT and each wrong field is named; an unknown account is NOT_FOUND",
    "a stop needs no reason, refuses what comes after it, takes back what came before it, and is on the stream",
    "a resume needs a reason; after it orders pass again, and what was stopped stays void",
    "headroom is what an order then gets, and one lot more does not",
    "a stream of orders is answered in order, and ends at a malformed one with what came before it answered",
    "a basket is one step; what became of it is reported, and reported twice it counts once",
    "a stop asks for a cancel, which is acknowledged, followed and reported",
    "limits change as a whole, against the set they were made from, and a wrong row is named",
    "what the broker holds is taken, and each difference told",
    "the worker's figures come through the gateway, and its errors with their details",
    "events are listed and checked; a position is sized within the limits",
    "the account's state has counted it all",
)


@pytest.fixture
def node() -> str:
    """Where it is; conftest leaves this file out where it is not."""
    found = shutil.which("node")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's folder with its packages installed, away from the tree."""
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--prefix", str(folder)]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert installed.returncode == 0, installed.stderr
    return folder


def test_node_client_trades_is_stopped_and_resumes(node: str, client: Path, machine: Machine) -> None:
    command = [node, str(client / "client.js"), machine.gateway, machine.control, str(PROTOS)]

    run = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
    assert run.stdout.splitlines() == [f"held: {step}" for step in STEPS]
