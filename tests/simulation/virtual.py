"""An event loop on virtual time: sleeping costs nothing, and the same seed gives the same run.

Only time is virtual; whatever waits for a real file or thread does not belong here.
"""

import asyncio
import selectors
from typing import Any

EPOCH_US = 1_700_000_000_000_000


class Stuck(AssertionError):
    """Every task waits for something that nobody will do."""


class _Jumping(selectors.SelectSelector):
    """Instead of waiting, moves the clock to when the wait would end."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Stuck("nothing is scheduled")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def time_us(self) -> int:
        """The store's clock of a simulation."""
        return EPOCH_US + round(self._jumping.now_s * 1e6)
