"""A whole machine for a test: a real `serve` with its store, gateway, control process and worker, on ports of its own.

It is told nothing but a configuration, and asked nothing but its ports, its exit status and which processes it has.
Whatever a test does to it, `close` leaves no process behind. Waiting is bounded everywhere; where another process has
to end or come up and tells nobody, it is looked for again and again until the time is up.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
READY_S = 30.0  # a start takes two; a machine with two busy cores, more
END_S = 25.0
LOOK_AGAIN_S = 0.02
SUPERVISOR, STORE = "supervisor", "store"
ROLES = ("gateway", "control", "worker")
STORE_URL = "RISK_GATEWAY_STORE_URL"

CHANNEL_OPTIONS = (
    # What was killed is back in a second; the default back-off would look at it after several.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    command: str


class Machine:
    """One `serve` on one data directory. `start` may be called again after an end, however it came."""

    def __init__(self, configuration: str, environment: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir, self.config_path = folder / "data", folder / "risk-gateway.toml"
        self.output_path = folder / "serve.out"
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="rg-e2e-", dir="/tmp"))  # short: a socket's path is at most 103
        self.config_path.write_text(configuration)
        self.gateway_port, self.control_port = free_ports(2)
        self._environment = environment
        self._serve: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._seen: dict[int, str] = {}

    @property
    def gateway(self) -> str:
        return f"{HOST}:{self.gateway_port}"

    @property
    def control(self) -> str:
        return f"{HOST}:{self.control_port}"

    @property
    def socket_path(self) -> Path:
        return self.runtime_dir / "valkey.sock"

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    def log_of(self, role: str) -> str:
        return (self.data_dir / "logs" / f"{role}.log").read_text(errors="replace")

    # --- starting --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when both ports answer health checks and the worker runs."""
        self._serve = self._spawn(self.serve_command())
        try:
            self.await_ready()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}\n{self.logs()}") from error

    def await_ready(self) -> None:
        for target in (self.gateway, self.control):
            await_serving(target, self._serve)
        wait_until(lambda: all(self.find(role) for role in ROLES), READY_S, "not every process runs")
        self._seen |= {process.pid: process.command for process in self._tree()}

    def serve_command(self) -> list[str]:
        options = {
            "--config": self.config_path,
            "--data-dir": self.data_dir,
            "--gateway-port": self.gateway_port,
            "--control-port": self.control_port,
            "--runtime-dir": self.runtime_dir,
        }
        return risk_gateway("serve", *(str(part) for pair in options.items() for part in pair))

    def add_gateway(self) -> str:
        """One more gateway on the same store, as `serve --role gateway` would run on another machine; its address."""
        (port,) = free_ports(1)
        command = risk_gateway("serve", "--role", "gateway", "--config", str(self.config_path))
        command += ["--data-dir", str(self.data_dir), "--gateway-port", str(port)]
        process = self._spawn(command, {STORE_URL: f"unix://{self.socket_path}"})
        self._others.append(process)
        await_serving(f"{HOST}:{port}", process)
        return f"{HOST}:{port}"

    def add_control(self, data_dir: Path, store_socket: Path) -> str:
        """One more control process, which reaches the store by a socket of its own; its address."""
        (port,) = free_ports(1)
        command = risk_gateway("serve", "--role", "control", "--config", str(self.config_path))
        command += ["--data-dir", str(data_dir), "--control-port", str(port)]
        process = self._spawn(command, {STORE_URL: f"unix://{store_socket}"})
        self._others.append(process)
        await_serving(f"{HOST}:{port}", process)
        return f"{HOST}:{port}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the command line, to its end."""
        return subprocess.run(
            risk_gateway(*arguments), env={**self._environment}, cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    def _spawn(self, command: list[str], more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with self.output_path.open("ab") as output:
            return subprocess.Popen(
                command,
                env={**self._environment, **(more or {})},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    # --- its processes ---------------------------------------------------------------------------------------------

    def find(self, name: str) -> int | None:
        """The pid of "supervisor", "store", "gateway", "control" or "worker"; None if it does not run now."""
        if self._serve is None or self._serve.poll() is not None:
            return None
        if name == SUPERVISOR:
            return self._serve.pid
        children = [process for process in processes().values() if process.parent == self._serve.pid]
        if name == STORE:
            return next((child.pid for child in children if "--role" not in child.command), None)
        return next((child.pid for child in children if f"--role {name}" in child.command), None)

    def pid(self, name: str) -> int:
        pid = self.find(name)
        assert pid is not None, f"no {name} runs: {self.output}"
        return pid

    def send(self, name: str, number: signal.Signals) -> int:
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def kill(self, *names: str) -> list[int]:
        """SIGKILL, all of them found before the first is hit."""
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    def await_successor(self, name: str, of: int) -> int:
        """The pid of the process that was started in place of `of`."""
        wait_until(lambda: self.find(name) not in (None, of), READY_S, f"{name} {of} has no successor")
        return self.pid(name)

    def ask_to_end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal the supervisor as a terminal does: its whole process group."""
        os.killpg(self.pid(SUPERVISOR), number)

    def await_end(self) -> int:
        """The supervisor's exit status, once no process of this machine is left."""
        assert self._serve is not None
        status = self._serve.wait(END_S)
        wait_until(lambda: not self.orphans(), END_S, "processes were left behind")
        return status

    def orphans(self) -> list[str]:
        """What still runs of this machine once its supervisor is gone."""
        running = processes()
        left = {pid: running[pid].command for pid, command in self._seen.items() if _is(running.get(pid), command)}
        left |= {process.pid: process.command for process in running.values() if str(self.data_dir) in process.command}
        return [f"{pid} {command}" for pid, command in left.items()]

    def _tree(self) -> list[Process]:
        assert self._serve is not None
        return [p for p in processes().values() if self._serve.pid in (p.pid, p.parent)]

    def logs(self) -> str:
        folder = self.data_dir / "logs"
        paths = sorted(folder.glob("*.log")) if folder.exists() else []
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def close(self) -> None:
        """End everything, gently if it still can be, and fail if it could not."""
        hung = False
        for process in (*self._others, self._serve):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                hung |= not _ends(process, END_S)
        ended = _comes_true(lambda: not self.orphans(), END_S)
        left = self.orphans()
        for line in left:
            os.kill(int(line.split()[0]), signal.SIGKILL)
        shutil.rmtree(self.runtime_dir, ignore_errors=True)
        assert not hung, f"serve did not end on SIGTERM: {self.output}"
        assert ended, f"left behind: {left}"


def risk_gateway(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(n)]
    ports: list[int] = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


def await_serving(target: str, process: subprocess.Popen[bytes] | None, timeout_s: float = READY_S) -> None:
    """Returns when the health service there says SERVING."""
    with grpc.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs declare no methods
        deadline_s = time.monotonic() + timeout_s
        while True:
            ended = process is not None and process.poll() is not None
            assert not ended and time.monotonic() < deadline_s, f"{target} does not serve"
            try:
                reply = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return


def wait_until(condition: Callable[[], bool], timeout_s: float, problem: str) -> None:
    assert _comes_true(condition, timeout_s), f"{problem} after {timeout_s:g} s"


def _comes_true(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(LOOK_AGAIN_S)
    return True


def _ends(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _is(process: Process | None, command: str) -> bool:
    """Whether it is still that process, and no later one with its number."""
    return process is not None and process.command == command


def processes() -> dict[int, Process]:
    """Every process of this machine that is not a zombie, by pid."""
    found = _from_proc() if Path("/proc/self/stat").exists() else _from_ps()
    return {process.pid: process for process in found if process is not None}


def _from_proc() -> list[Process | None]:
    return [_read_proc(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read_proc(entry: Path) -> Process | None:
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended while it was being read
    return None if state == "Z" else Process(int(entry.name), int(parent), command)


def _from_ps() -> list[Process | None]:
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listing.stdout.splitlines()]
    return [Process(int(row[0]), int(row[1]), row[3]) for row in rows if len(row) == 4 and row[2][0] != "Z"]
