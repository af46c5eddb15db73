"""Solvers that the tests of the pool run in its processes: found there by name, in a module that is light to import.

No assertions. What blocks waits for something that never comes, or for a gate that the test opens; nothing sleeps.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path


class Remembering:
    """Answers with what it was asked before, and with its process."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, question: str) -> tuple[int, tuple[str, ...]]:
        self.heard.append(question)
        return os.getpid(), tuple(self.heard)


def capricious(question: str) -> str:
    """Does what the question says: "block", "die", "fail", "gate <named pipe>", or "announce <named pipe>": blocks
    once that was read."""
    what, _, path = question.partition(" ")
    if what == "announce":
        Path(path).write_text("computing")
    if what in ("announce", "block"):
        threading.Event().wait()
    if what == "die":
        os._exit(3)
    if what == "fail":
        raise ValueError("covariance: expected variances of 0 or more")
    if what == "gate":
        return Path(path).read_text()
    return f"{os.getpid()}"


def make_capricious() -> Callable[[str], str]:
    return capricious
