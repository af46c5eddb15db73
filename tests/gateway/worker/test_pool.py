"""The pool of processes: answers, what is remembered, and processes that are slow, die, fail or lose their parent."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.worker.pool import Pool, Unsolved
from tests.gateway.worker.solvers import Remembering, make_capricious

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def pool() -> AsyncIterator[Pool[str, str]]:
    pool = Pool(make_capricious, size=2, patience_s=30.0)
    yield pool
    await pool.aclose()


def is_there(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


async def ask(pool: Pool[str, str], question: str, key: str = "alpha") -> str:
    return await pool.ask(key, lambda process: question)


async def test_a_process_remembers_what_it_was_asked_and_takes_the_same_key_again() -> None:
    pool = Pool(Remembering, size=2, patience_s=30.0)
    try:
        first, _ = await pool.ask("alpha", lambda process: "one")
        second, heard = await pool.ask("alpha", lambda process: "two")
        told: list[tuple[int, int]] = []
        await pool.ask("alpha", lambda process: told.append(process) or "three")  # type: ignore[func-returns-value]
    finally:
        await pool.aclose()

    assert first == second != os.getpid()
    assert heard == ("one", "two")
    assert told[0][1] == 1


async def test_while_one_is_slow_another_answers(pool: Pool[str, str], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow = asyncio.create_task(ask(pool, f"gate {gate}"))
    quick = [await ask(pool, "who", key) for key in ("alpha", "beta", "gamma")]

    assert not slow.done()
    assert len(set(quick)) == 1
    await asyncio.to_thread(gate.write_text, "at last")
    assert await slow == "at last"


async def test_what_takes_too_long_is_ended_and_replaced() -> None:
    pool = Pool(make_capricious, size=1, patience_s=30.0)
    try:
        before = await ask(pool, "who")
        pool.patience_s = 0.1
        with pytest.raises(Unsolved, match=r"not computed within 0\.1 s"):
            await ask(pool, "block")
        pool.patience_s = 30.0
        after = await ask(pool, "who")
    finally:
        await pool.aclose()

    assert before != after
    assert not is_there(before)


async def test_a_process_that_dies_fails_its_question_alone(pool: Pool[str, str]) -> None:
    with pytest.raises(Unsolved, match="has ended"):
        await ask(pool, "die")

    assert await ask(pool, "who")


async def test_what_the_solver_raises_is_told_and_ends_nothing(pool: Pool[str, str]) -> None:
    before = await ask(pool, "who")
    with pytest.raises(Unsolved, match="ValueError: covariance: expected variances"):
        await ask(pool, "fail")

    assert await ask(pool, "who") == before


async def test_closing_ends_a_process_that_computes(pool: Pool[str, str]) -> None:
    pid = await ask(pool, "who")
    blocked = asyncio.create_task(ask(pool, "block"))
    await asyncio.sleep(0)

    await pool.aclose()
    (outcome,) = await asyncio.gather(blocked, return_exceptions=True)

    assert isinstance(outcome, Unsolved)
    assert not is_there(pid)


def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to end them, and one that computes hears of no pipe."""
    script = """
import asyncio, os, signal, sys
from gateway.worker.pool import Pool
from tests.gateway.worker.solvers import make_capricious

async def main():
    pool = Pool(make_capricious, size=1, patience_s=30.0)
    print(await pool.ask("a", lambda process: "who"), flush=True)
    computing = asyncio.create_task(pool.ask("a", lambda process: f"announce {sys.argv[1]}"))
    await asyncio.to_thread(lambda: open(sys.argv[1]).read())
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(gate)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        rest, _ = parent.communicate(timeout=20)  # the child inherited the pipe: its end comes when the child is gone
        assert rest == ""

    assert not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()


async def test_a_pool_without_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="size: expected 1 process or more, got 0"):
        Pool(make_capricious, size=0, patience_s=1.0)
