"""What ties a process to its supervisor: one pipe tells of the supervisor's death, another tells it of readiness.

The names of the two file descriptors travel in the environment. A process that was started by hand has neither, watches
nobody and announces to nobody. No signals, no children, no logging here.
"""

import os
import threading
from collections.abc import Callable, Mapping

LIFELINE_FD = "RISK_GATEWAY_LIFELINE_FD"
READY_FD = "RISK_GATEWAY_READY_FD"
READY_LINE = b"ready\n"


def end_at_once() -> None:
    """Ends the process without any cleaning up: whoever would have cared is gone, and every promise is in the store."""
    os._exit(os.EX_UNAVAILABLE)


def watch_parent(environment: Mapping[str, str], on_death: Callable[[], None] = end_at_once) -> bool:
    """Calls `on_death`, from a thread of its own, once the supervisor is gone, however it went.

    False if there is no supervisor to watch. Call it once, early: a process that never does is left behind.
    """
    if LIFELINE_FD not in environment:
        return False
    lifeline = int(environment[LIFELINE_FD])
    os.set_inheritable(lifeline, False)
    threading.Thread(target=_await_end, args=(lifeline, on_death), name="lifeline", daemon=True).start()
    return True


def announce_ready(environment: Mapping[str, str]) -> bool:
    """Tells the supervisor, once, that this process serves. False if there is none, or if it is gone."""
    if READY_FD not in environment:
        return False
    try:
        with open(int(environment[READY_FD]), "wb", buffering=0) as ready:
            ready.write(READY_LINE)
    except BrokenPipeError:  # the lifeline says the same, and acts on it
        return False
    return True


def _await_end(lifeline: int, on_death: Callable[[], None]) -> None:
    while os.read(lifeline, 1):
        pass
    on_death()
