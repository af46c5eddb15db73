"""The supervisor with real processes and real signals: each test runs it as its own process and reads its notices.

Waiting is reading: a line of notices, or the end of a named pipe that children hold open. Nothing sleeps; a supervisor
that does not do what is expected runs into the time limit.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.supervisor import DEATHS_WINDOW_S, Deaths

pytestmark = pytest.mark.timeout(40)

SERVE = textwrap.dedent("""
    import json, os, sys
    from pathlib import Path
    from gateway.embedded import EmbeddedStore
    from gateway.supervisor import Child, Notice, Patience, Supervisor

    def tell(notice: Notice) -> None:
        print(json.dumps([notice.kind, notice.name, notice.pid, notice.detail]), flush=True)

    told = json.loads(sys.argv[1])
    data_dir = Path(told["data_dir"])
    children = [Child(name, (sys.executable, "-c", program)) for name, program in told["children"]]
    start_store = (lambda: EmbeddedStore.start(data_dir, Path(told["runtime_dir"]))) if told["store"] else None
    patience = Patience(told["ready_s"], told["grace_s"])
    sys.exit(Supervisor(children, data_dir, os.environ, tell, start_store, patience).run())
""")

READY = """
import os, signal, sys
from gateway.lifeline import announce_ready, watch_parent
watch_parent(os.environ)
"""
GOOD = READY + "announce_ready(os.environ)\nsignal.pause()\n"
STUBBORN = (
    READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nannounce_ready(os.environ)\nwhile True: signal.pause()\n"
)
DYING = READY + "print('out of luck', flush=True)\nsys.exit(3)\n"
SILENT = READY + "signal.pause()\n"


@dataclass
class Serving:
    """A running supervisor."""

    process: subprocess.Popen[str]
    data_dir: Path

    def next(self, kind: str, name: str = "") -> tuple[int | None, str]:
        """Reads on to the next such notice: its pid and detail."""
        seen = []
        for kind_seen, name_seen, pid, detail in self._notices():
            if (kind_seen, name_seen) == (kind, name):
                return pid, detail
            seen.append((kind_seen, name_seen, detail))
        raise AssertionError(f"ended without {kind!r} of {name!r}, but with {seen}")

    def pid_of_started(self, name: str) -> int:
        pid, _ = self.next("started", name)
        assert pid is not None
        return pid

    def rest(self) -> list[tuple[str, str]]:
        return [(kind, name) for kind, name, *_ in self._notices()]

    def log_of(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    def _notices(self) -> Iterator[tuple[str, str, int | None, str]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield tuple(json.loads(line))


class Stage:
    """Starts supervisors, and ends with the test those that still run."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.runtime_dir = tempfile.mkdtemp(prefix="rg-")  # a socket's path must be short
        self.started: list[subprocess.Popen[str]] = []

    def serve(
        self, *children: tuple[str, str], store: bool = False, ready_s: float = 30, grace_s: float = 30
    ) -> Serving:
        told = {
            "data_dir": str(self.data_dir),
            "runtime_dir": self.runtime_dir,
            "children": children,
            "store": store,
            "ready_s": ready_s,
            "grace_s": grace_s,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(told)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        self.started.append(process)
        return Serving(process, self.data_dir)

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        shutil.rmtree(self.runtime_dir)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.end()


def test_children_are_ready_when_all_have_announced_it(stage: Stage) -> None:
    serving = stage.serve(("gateway", GOOD), ("worker", GOOD))

    serving.next("all ready")

    serving.process.terminate()
    assert serving.process.wait() == 0


def test_a_killed_child_is_started_again(stage: Stage) -> None:
    serving = stage.serve(("gateway", GOOD), ("worker", GOOD))
    first_pid = serving.pid_of_started("gateway")
    serving.next("all ready")

    os.kill(first_pid, signal.SIGKILL)

    _, cause = serving.next("died", "gateway")
    assert cause == "killed by signal 9 (Killed); starts again in 0.1 s"
    assert serving.pid_of_started("gateway") != first_pid
    serving.next("ready", "gateway")


def test_a_child_that_keeps_dying_ends_everything_with_an_error_that_quotes_its_log(stage: Stage) -> None:
    serving = stage.serve(("gateway", GOOD), ("worker", DYING))

    _, words = serving.next("given up", "worker")

    assert words.startswith("died 5 times in 60 s") and "out of luck" in words
    assert ("ended", "gateway") in serving.rest()
    assert serving.process.wait() == os.EX_SOFTWARE
    assert serving.log_of("worker").count("out of luck") == 5


def test_deaths_are_forgiven_after_a_minute() -> None:
    deaths = Deaths()

    assert [deaths.add(float(now_s)) for now_s in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert deaths.add(2.5 + DEATHS_WINDOW_S) == 0.2
    assert [deaths.add(2.6 + DEATHS_WINDOW_S) for _ in range(3)] == [0.4, 0.8, None]


def test_children_drain_in_order_each_having_ended_before_the_next_is_told(stage: Stage) -> None:
    witness = stage.data_dir / "witness"
    last_words = textwrap.dedent(f"""
        def leave(*_):
            for word in ("told", "left"):
                with open({str(witness)!r}, "a") as out: out.write(f"{{NAME}} {{word}}\\n")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
    """)
    names = ("control", "web", "gateway", "worker")
    programs = [(n, READY + f"NAME = {n!r}\n{last_words}announce_ready(os.environ)\nsignal.pause()\n") for n in names]
    serving = stage.serve(*programs, store=True)
    serving.next("all ready")

    serving.process.send_signal(signal.SIGTERM)

    assert serving.process.wait() == 0
    told_and_left = [f"{name} {word}" for name in ("gateway", "worker", "web", "control") for word in ("told", "left")]
    assert witness.read_text().splitlines() == told_and_left
    assert serving.rest()[-1] == ("ended", "store")


def test_a_child_that_does_not_end_is_killed_after_its_grace(stage: Stage) -> None:
    serving = stage.serve(("gateway", STUBBORN), grace_s=0.2)
    serving.next("all ready")

    serving.process.terminate()

    serving.next("killed", "gateway")
    assert serving.process.wait() == 0


def test_a_second_interrupt_hurries(stage: Stage) -> None:
    serving = stage.serve(("gateway", STUBBORN), ("worker", STUBBORN), grace_s=10_000)
    serving.next("all ready")

    serving.process.send_signal(signal.SIGINT)
    serving.next("draining")
    serving.process.send_signal(signal.SIGINT)

    assert serving.rest() == [("killed", "gateway"), ("ended", "gateway"), ("killed", "worker"), ("ended", "worker")]
    assert serving.process.wait() == 0


def test_killing_the_supervisor_ends_its_children(stage: Stage) -> None:
    held = stage.data_dir / "held"
    os.mkfifo(held)
    holding = READY + f"pipe = open({str(held)!r}, 'w')\n"
    serving = stage.serve(
        ("gateway", holding + "announce_ready(os.environ)\nsignal.pause()\n"),
        (
            "worker",
            holding + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nannounce_ready(os.environ)\nsignal.pause()\n",
        ),
    )
    with held.open() as pipe:
        serving.next("all ready")

        serving.process.kill()

        assert pipe.read() == ""  # its end: nobody holds the other one any more


def test_a_killed_store_is_started_again_at_the_same_address(stage: Stage) -> None:
    serving = stage.serve(("gateway", GOOD), store=True)
    first_pid = serving.pid_of_started("store")
    serving.next("all ready")

    os.kill(first_pid, signal.SIGKILL)

    serving.next("died", "store")
    assert serving.pid_of_started("store") != first_pid
    assert [path.name for path in Path(stage.runtime_dir).iterdir()] == ["valkey.sock"]


def test_a_child_that_is_not_ready_in_time_is_killed_and_counts_as_dead(stage: Stage) -> None:
    serving = stage.serve(("gateway", SILENT), ready_s=0.05)

    serving.next("not ready in time", "gateway")
    serving.next("died", "gateway")


def test_only_the_latency_bound_children_are_kept_to_one_numeric_thread(stage: Stage) -> None:
    program = (
        READY + "print(os.environ.get('OMP_NUM_THREADS'), flush=True)\nannounce_ready(os.environ)\nsignal.pause()\n"
    )
    serving = stage.serve(("gateway", program), ("control", program), ("worker", program))

    serving.next("all ready")

    assert [serving.log_of(name).strip() for name in ("gateway", "control")] == ["1", "1"]
    assert serving.log_of("worker").strip() == os.environ.get("OMP_NUM_THREADS", "None")


def test_the_last_runs_log_is_kept(stage: Stage) -> None:
    logs = stage.data_dir / "logs"
    logs.mkdir()
    (logs / "gateway.log").write_text("yesterday")

    stage.serve(("gateway", GOOD)).next("all ready")

    assert (logs / "gateway.log.1").read_text() == "yesterday"
    assert (logs / "gateway.log").read_text() == ""


def test_children_live_in_sessions_of_their_own(stage: Stage) -> None:
    serving = stage.serve(("gateway", GOOD))

    pid = serving.pid_of_started("gateway")

    assert os.getsid(pid) == pid


def test_the_supervisor_imports_neither_grpc_nor_a_store_client() -> None:
    program = "import sys, gateway.supervisor, gateway.embedded; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {name for name in loaded if re.match(r"(grpc|google|redis|numpy)\b", name)}
