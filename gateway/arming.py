"""The limits of the configuration file, armed at the start of control and whenever the file changes after that.

Nothing is armed but a file that can be used as a whole: a bad one keeps the set in force and says why, key by key. What
UpdateLimits armed stays until the limits in the file are others. Only the limits are read again; what else changed
waits for the next start. The file is read in a thread, since a file system that hangs must not hold up a stop.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

import structlog

from engine.control import decode_control
from gateway.config import ConfigError, Settings, load
from gateway.errors import StoreError
from gateway.log.account_log import AccountLog
from gateway.machine import ConfiguredLimits, configured_limits
from gateway.registry import CONFIGURED, Why, arm_limits, armed_files, complete_arming, newest, pass_over, peoples_set

LOGGER = structlog.get_logger()

LOOK_S = 1.0
"""How often the file is looked at. A change is taken once two looks have found the same: an editor writes in steps, and
half a file can be valid with half of the limits."""

LOOKS_PER_COMPLETION = 15
"""How often partitions are looked for that an interrupted arming left with other limits."""


class ConfigFile:
    """A configuration file and those it names, as control has last used them. `path` None: there is none to follow."""

    def __init__(self, log: AccountLog, path: Path | None, settings: Settings, environment: Mapping[str, str]) -> None:
        self._log, self._path, self._settings, self._environment = log, path, settings, environment
        self._seen = ""
        """Digest of what was last used, or refused."""
        self._settling = ""
        """Digest of what the last look found, while it is another."""
        self._armed = configured_limits(settings)
        self._two_person = settings.limits.two_person
        """As control was started with it: a change of the file can't undo it."""
        self._unarmed: ConfiguredLimits | None = None
        """Limits that the store has not acknowledged yet."""

    async def arm_at_start(self) -> None:
        """Arm the limits of the settings where the last ones armed from a file were others, and those in force are not
        people's alone to change. Raises StoreUnavailable."""
        if await armed_files(self._log) != {self._armed.hash}:
            await self._arm(self._armed, CONFIGURED)
            return
        await complete_arming(self._log)
        in_force = newest(decode_control(stored.state) for stored in await self._log.read_controls()).limit_set
        if in_force == self._armed.limits.hash:
            LOGGER.info("limits in force: those of the configuration", limit_set=in_force)
        else:
            LOGGER.info("limits in force: those of the last UpdateLimits, until the file changes", limit_set=in_force)

    async def follow(self, asked: asyncio.Event, look_s: float = LOOK_S) -> None:
        """Look at the file every `look_s`, and at once when `asked`, for ever."""
        looks = 0
        while True:
            await self.look(at_once=await _set_within(asked, look_s))
            looks += 1
            if looks % LOOKS_PER_COMPLETION == 0:
                await self._complete()

    async def look(self, at_once: bool = False) -> None:
        """Take the file if it is another than at the last look but one. `at_once`: take it as it is, and say what came
        of it whatever that is."""
        if self._unarmed is not None:
            await self._take_limits(self._unarmed)
        if self._path is None:
            if at_once:
                LOGGER.warning("asked to read the configuration again, and there is no file: the gateway runs without")
            return
        found = await asyncio.to_thread(self._digest)
        if found == self._seen and not at_once:
            self._settling = ""
        elif found == self._settling or at_once:
            await self._take(self._path, found, at_once)
        else:
            self._settling = found

    async def _take(self, path: Path, found: str, at_once: bool) -> None:
        try:
            settings, configured = await asyncio.to_thread(self._read, path)
        except ConfigError as error:
            self._seen, self._settling = found, ""
            for problem in error.problems:
                LOGGER.error(
                    "the configuration can't be used, the limits in force stay", file=path.name, problem=problem
                )
            return
        if await asyncio.to_thread(self._digest) != found:
            self._settling = ""  # written to while it was read: look again
            return
        self._tell_the_rest(settings)
        self._settings = settings
        self._seen, self._settling = await asyncio.to_thread(self._digest), ""
        if configured.hash != self._armed.hash:
            await self._take_limits(configured)
        elif at_once:
            LOGGER.info("the configuration was read again, its limits are as before", file=path.name)

    async def _take_limits(self, configured: ConfiguredLimits) -> None:
        try:
            await self._arm(configured, Why("configuration", "the file changed"))
        except StoreError as error:
            self._unarmed = configured
            LOGGER.error("the limits of the file are not armed everywhere yet, it is tried again", problem=str(error))

    async def _arm(self, configured: ConfiguredLimits, why: Why) -> None:
        kept = await peoples_set(self._log, self._two_person)
        if kept:
            await pass_over(self._log, configured.hash)
            LOGGER.warning("the limits of the configuration are not armed: propose them", limit_set=kept)
        else:
            await arm_limits(self._log, configured.limits, configured.hash, configured.shadow, why)
        self._armed, self._unarmed = configured, None

    async def _complete(self) -> None:
        try:
            await complete_arming(self._log)
        except StoreError as error:
            LOGGER.warning("whether the same limits are armed everywhere is not known", problem=str(error))

    def _read(self, path: Path) -> tuple[Settings, ConfiguredLimits]:
        settings = load(path, self._environment)
        return settings, configured_limits(settings)

    def _digest(self) -> str:
        """Of the contents of the file and of the one with the shadow set that it named last."""
        digest = hashlib.blake2b(digest_size=16)
        for path in (self._path, self._settings.limits.shadow):
            digest.update(_contents(path))
        return digest.hexdigest()

    def _tell_the_rest(self, settings: Settings) -> None:
        changed = [
            name
            for name in Settings.model_fields
            if name not in ("limits", "limit") and getattr(settings, name) != getattr(self._settings, name)
        ]
        if changed:
            LOGGER.warning("changed in the configuration, in effect from the next start on", keys=", ".join(changed))


def _contents(path: Path | None) -> bytes:
    """What a file holds, in one way only; one that can't be read is like no other."""
    if path is None:
        return b"none;"
    try:
        contents = path.read_bytes()
    except OSError as error:
        return f"unreadable {error.errno};".encode()
    return f"{len(contents)};".encode() + contents


async def _set_within(asked: asyncio.Event, seconds: float) -> bool:
    """Whether it was set before the time was up; it is unset then."""
    try:
        await asyncio.wait_for(asked.wait(), seconds)
    except TimeoutError:
        return False
    asked.clear()
    return True
