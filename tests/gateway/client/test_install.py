"""The client where grpcio and protobuf are installed and nothing else: all other packages are out of its reach.

The interpreter is fresh and refuses to find any other, so that no import can hide behind what is installed here.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import requires

from tests.e2e.machine import ROOT

ALLOWED = {"gateway", "google", "grpc", "riskgateway", "typing_extensions"}
NARROW = """
import importlib.abc, json, sys
sys.path[:0] = ["{root}", "{root}/protos"]

class Narrow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        inside = name.partition(".")[0]
        if inside in sys.stdlib_module_names or inside in {allowed} and not name.startswith("google.rpc"):
            return None
        raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Narrow())
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
ASK = """
from gateway.client import CallFailed, Patience, RiskClient
try:
    with RiskClient("unix:/nowhere", account="A", patience=Patience(deadline_s=0.2)) as risk:
        risk.buy("AAPL", 1)
except CallFailed as error:
    assert "nobody answers" in str(error), error
"""


def modules(code: str) -> set[str]:
    """What running the code there imports."""
    script = NARROW.format(root=ROOT, allowed=ALLOWED, code=code)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_client_imports_and_asks_with_grpcio_and_protobuf_alone() -> None:
    imported = modules(ASK)

    ours = {name for name in imported if name.startswith("gateway.")}
    assert ours and all(name == "gateway.client" or name.startswith("gateway.client.") for name in ours)
    foreign = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert {name for name in foreign if "cython" not in name} <= ALLOWED  # grpc's compiled parts make such themselves


def test_what_is_not_allowed_there_is_out_of_reach() -> None:
    """The test above can fail."""
    for module in ("numpy", "msgspec", "grpc_status", "google.rpc.status_pb2", "engine"):
        assert "is not installed here" in _error(f"import {module}")


def _error(code: str) -> str:
    script = NARROW.format(root=ROOT, allowed=ALLOWED, code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60).stderr


def test_the_base_install_asks_for_nothing_else() -> None:
    base = [name for name in requires("risk-gateway") or () if "extra ==" not in name]

    assert {re.split("[<>=]", name)[0] for name in base} == {"grpcio", "protobuf"}
