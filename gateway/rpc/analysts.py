"""Where the workers that answer RiskAnalytics are, and who asks them.

A worker puts its card (address and seal) into the bulletin each second; a gateway takes the newest card that a holder
of the approval key has sealed, and forgets a silent one. What is forwarded names its caller in a header that is sealed
too: no caller's token leaves the process that took it. Nothing is asked or answered here.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import get_args

import grpc.aio
import msgspec
import structlog

from gateway.clock import StoreClock
from gateway.errors import StoreError
from gateway.log.bulletin import Bulletin
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Context
from gateway.rpc.caller import Caller, Callers, Role, Unauthenticated
from gateway.tasks import ended

LOGGER = structlog.get_logger()
HEADER = "x-risk-caller-bin"
CALLER_PURPOSE = b"forwarded caller"
CARD_PURPOSE = b"analyst"

ANNOUNCE_S = 1.0
SILENT_US = 10_000_000
"""A worker that was not heard of for so long is asked no more: it ended, or hangs."""

LOOK_AGAIN_US = 500_000
"""So long a gateway takes the cards as it saw them last."""

PASSED_MAX_US = 60_000_000
"""A header older than that is nobody's: longer than any deadline, and than clocks of one store differ."""


class _Card(msgspec.Struct, frozen=True):
    address: str
    seal: bytes


class _PassedCaller(msgspec.Struct, frozen=True):
    """The header: who asked a gateway for what, and when."""

    name: str
    roles: tuple[str, ...]
    method: str
    time_us: int
    seal: bytes

    def content(self) -> bytes:
        return msgspec.json.encode((self.name, self.roles, self.method, self.time_us))


def card_of(address: str, approvals: Approvals) -> bytes:
    return msgspec.json.encode(_Card(address, approvals.seal(CARD_PURPOSE, address.encode())))


def address_on(card: bytes, approvals: Approvals) -> str | None:
    """Where the worker with this card is; None unless a holder of the key has sealed it: anybody who can write to the
    store could send callers elsewhere otherwise."""
    try:
        read = msgspec.json.decode(card, type=_Card)
    except (ValueError, msgspec.MsgspecError):
        return None
    return read.address if approvals.sealed(CARD_PURPOSE, read.address.encode(), read.seal) else None


def passed_caller(caller: Caller, method: str, now_us: int, approvals: Approvals) -> bytes:
    """The header's value: this caller asks for `method` ("GetVar") now."""
    unsealed = _PassedCaller(caller.name, tuple(sorted(caller.roles)), method, now_us, b"")
    seal = approvals.seal(CALLER_PURPOSE, unsealed.content())
    return msgspec.json.encode(msgspec.structs.replace(unsealed, seal=seal))


def caller_in(header: str | bytes, method: str, now_us: int, approvals: Approvals) -> Caller:
    """The caller that a gateway vouches for. Raises Unauthenticated."""
    try:
        passed = msgspec.json.decode(header, type=_PassedCaller)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Unauthenticated(f"the header {HEADER} is for gateways and workers: leave it out") from error
    if not approvals.sealed(CALLER_PURPOSE, passed.content(), passed.seal):
        raise Unauthenticated("a gateway with another approval key asks: give gateways and workers the same key_file")
    if passed.method != method or abs(now_us - passed.time_us) > PASSED_MAX_US:
        raise Unauthenticated(f"the header {HEADER} is of another call")
    known: frozenset[Role] = frozenset(role for role in get_args(Role) if role in passed.roles)
    return Caller(passed.name, known)


class Asked:
    """Who asks a worker: the caller that a gateway passed on, else whoever `callers` know."""

    def __init__(self, callers: Callers, clock: StoreClock, approvals: Approvals) -> None:
        self._callers, self._clock, self._approvals = callers, clock, approvals

    def admit(self, context: Context, method: str) -> Caller:
        """With any role, as for every RPC that reads. Raises Unauthenticated."""
        metadata: Mapping[str, str | bytes] = dict(context.invocation_metadata() or ())
        header = metadata.get(HEADER)
        if header is None:
            return self._callers.of(context)
        return caller_in(header, method, self._clock.now_us(), self._approvals)


class Announcer:
    """A worker that can be found. `start` once it listens, `aclose` at the end."""

    def __init__(self, bulletin: Bulletin, clock: StoreClock, approvals: Approvals) -> None:
        self._bulletin, self._clock, self._approvals = bulletin, clock, approvals
        self._announcing: set[asyncio.Task[None]] = set()

    def start(self, address: str) -> None:
        """Be found at `address`, in gRPC's words: host:port or unix:path."""
        self._announcing.add(asyncio.create_task(self._announce(card_of(address, self._approvals))))

    async def _announce(self, card: bytes) -> None:
        while True:
            now_us = self._clock.now_us()
            with contextlib.suppress(StoreError):  # the next second; readers keep what they saw until it is too old
                await self._bulletin.post_analyst(card, now_us, now_us - SILENT_US)
            await asyncio.sleep(ANNOUNCE_S)

    async def aclose(self) -> None:
        await ended([*self._announcing])


class Analysts:
    """The workers as a gateway knows them."""

    def __init__(self, bulletin: Bulletin, clock: StoreClock, approvals: Approvals) -> None:
        self._bulletin, self._clock, self._approvals = bulletin, clock, approvals
        self._known: tuple[str, ...] = ()
        self._looked_us: int | None = None
        self._strangers = False

    @property
    def strangers(self) -> bool:
        """A card was there that this process can't trust: sealed with another key."""
        return self._strangers

    async def addresses(self, anew: bool = False) -> tuple[str, ...]:
        """Newest first. `anew`: also where they were just looked up. While the store is away those last seen."""
        now_us, looked_us = self._clock.now_us(), self._looked_us
        if not anew and looked_us is not None and 0 <= now_us - looked_us < LOOK_AGAIN_US:
            return self._known
        try:
            cards = await self._bulletin.analysts(now_us - SILENT_US)
        except StoreError as error:
            LOGGER.warning("workers can't be looked up, those last seen are asked", problem=str(error))
            return self._known
        read = [address_on(card, self._approvals) for card in cards]
        self._known = tuple(address for address in read if address is not None)
        self._strangers, self._looked_us = None in read, now_us
        return self._known


class Lines:
    """Channels to workers, one for each address that is still known."""

    def __init__(self, options: tuple[tuple[str, int], ...]) -> None:
        self._options = options
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def to(self, address: str, known: tuple[str, ...]) -> grpc.aio.Channel:
        for gone in self._channels.keys() - {*known, address}:
            await self._channels.pop(gone).close(grace=None)
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=self._options)
        return self._channels[address]

    async def aclose(self) -> None:
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close(grace=None)
