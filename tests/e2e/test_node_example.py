"""The example in JavaScript, run as it stands. Where there is no node, conftest leaves this file out."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.desk import PRICES, Desk
from tests.e2e.machine import ROOT, Machine

FOLDER = ROOT / "docs" / "examples" / "node_client"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder with its packages installed, away from the tree."""
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--prefix", str(folder)]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert installed.returncode == 0, installed.stderr
    return folder


async def test_the_node_client_asks_and_reports(example: Path, machine: Machine, own_desk: Desk) -> None:
    await own_desk.await_model()
    node = shutil.which("node")
    assert node is not None
    command = [node, str(example / "client.js"), machine.gateway, own_desk.account, "KO", str(PRICES["KO"])]

    ran = await asyncio.to_thread(
        subprocess.run, [*command, str(ROOT / "protos")], capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["ACTION_ALLOW: 10 of 10 KO (REASON_NONE)", "holds 10 KO"]
    assert list((await own_desk.state()).open_orders) == []
