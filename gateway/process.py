"""What every role of a service is built from."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import StoreClock
from gateway.config import Settings
from gateway.lifeline import announce_ready
from gateway.log.redis import RedisLog


@dataclass(frozen=True, slots=True)
class Process:
    """What every role is built from."""

    settings: Settings
    data_dir: Path | None
    environment: Mapping[str, str]
    log: RedisLog
    clock: StoreClock
    stop: asyncio.Event
    """Set when the process shall end."""
    reread: asyncio.Event
    """Set when the configuration shall be read again: only control does."""
    config_path: Path | None = None

    def ready(self) -> None:
        announce_ready(self.environment)
