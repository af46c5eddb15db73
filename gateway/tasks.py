"""Ending background tasks for good.

One function lives here, nothing of the trade. Until Python 3.12, `asyncio.wait_for` loses a cancellation that arrives
together with its result, and the Redis client waits for its sends with it: a task that was cancelled once may go on.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_S = 0.1


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks until they have ended. What they raised was theirs to log."""
    everyone = pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*everyone, return_exceptions=True)
