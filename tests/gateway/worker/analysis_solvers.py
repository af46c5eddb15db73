"""Solvers of analyses that the tests run in a pool's processes: one that a gate holds up, one that fails.

No assertions. What is slow waits for a named pipe that the test opens; nothing sleeps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.risk.analysis import Analysis, BenchSettings
from gateway.worker.refresh import AnalysisSolver, Question


@dataclass(frozen=True, slots=True)
class MakeGated:
    """Makes a solver of analyses that holds "slow" accounts up until their gate, a named pipe, is written to."""

    gate: Path

    def __call__(self) -> Callable[[Question], Analysis]:
        solver = AnalysisSolver(BenchSettings(n_paths=200))

        def gated(question: Question) -> Analysis:
            if question.subject.holdings.account == "slow":
                self.gate.read_text()
            return solver(question)

        return gated


def make_failing_for_alpha() -> Callable[[Question], Analysis]:
    solver = AnalysisSolver(BenchSettings(n_paths=200))

    def solve(question: Question) -> Analysis:
        if question.subject.holdings.account == "alpha":
            raise ValueError("of alpha nothing can be said")
        return solver(question)

    return solve
