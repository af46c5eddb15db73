"""The latest prices that this process has heard of, and their way to the others.

PublishMarks offers quotes here; at most every CONFLATE_S the changed ones are posted to the bulletin, where the other
processes hear of them. Latest wins: a quote that is older than the one held is dropped. Nothing here decides.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping

import msgspec

from engine.facts import Quote
from engine.instrument import MarketPhase
from gateway.errors import StoreError
from gateway.log.bulletin import Bulletin
from gateway.tasks import ended

CONFLATE_S = 0.05
"""Marks of one symbol within this time become one message: a feed of 1,000 ticks a second must not move every log."""

AHEAD_MAX_US = 1_000_000
"""A quote from further in the future than this has a wrong clock behind it."""


class _Stored(msgspec.Struct, array_like=True):
    mark: float
    bid: float | None
    ask: float | None
    time_us: int
    phase: int = 0


_DECODER = msgspec.msgpack.Decoder(_Stored)
_PHASES = {int(phase): phase for phase in MarketPhase}
"""A phase that only a newer release knows is, here, one that was not told."""


class Quotes(Mapping[str, Quote]):
    """Quotes by symbol (or currency pair). `version` grows with every change."""

    def __init__(self, bulletin: Bulletin) -> None:
        self._bulletin = bulletin
        self._latest: dict[str, Quote] = {}
        self._unposted: dict[str, Quote] = {}
        self._flushing: asyncio.Task[None] | None = None
        self.version = 0

    def __getitem__(self, symbol: str) -> Quote:
        return self._latest[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def offer(self, quote: Quote, now_us: int) -> str | None:
        """Take a quote in; why it was refused, if it was."""
        problem = refusal(quote, now_us)
        if problem is None and self._take(quote, now_us):
            self._unposted[quote.symbol] = quote
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.create_task(self._post_soon())
        return problem

    async def flush(self) -> None:
        """Returns when every quote offered before is posted. Raises StoreUnavailable where it could not be."""
        pending, self._unposted = self._unposted, {}
        if not pending:
            return
        try:
            await self._bulletin.post_marks({symbol: _encoded(quote) for symbol, quote in pending.items()})
        except StoreError:
            self._unposted = {**pending, **self._unposted}
            raise

    async def _post_soon(self) -> None:
        while self._unposted:
            await asyncio.sleep(CONFLATE_S)
            try:
                await self.flush()
            except StoreError:
                continue  # kept, and posted when the store is back; until then the marks elsewhere grow stale, visibly

    def absorb(self, marks: Mapping[str, bytes], now_us: int) -> None:
        """Take in what another process posted."""
        for symbol, encoded in marks.items():
            stored = _DECODER.decode(encoded)
            phase = _PHASES.get(stored.phase, MarketPhase.UNKNOWN)
            self._take(Quote(symbol, stored.mark, stored.bid, stored.ask, stored.time_us, phase), now_us)

    def _take(self, quote: Quote, now_us: int) -> bool:
        held = self._latest.get(quote.symbol)
        if held is not None and (quote == held or quote.time_us < held.time_us <= now_us + AHEAD_MAX_US):
            return False  # one held from the future, where the store's clock was set back, gives way to any other
        self._latest[quote.symbol] = quote
        self.version += 1
        return True

    async def aclose(self) -> None:
        if self._flushing is not None:
            await ended([self._flushing])


def refusal(quote: Quote, now_us: int) -> str | None:
    """Why a quote can't be used, or None."""
    for name, price in (("mark", quote.mark), ("bid", quote.bid), ("ask", quote.ask)):
        if price is not None and not (math.isfinite(price) and price > 0):
            return f"{name}: expected a finite price above 0, got {price}"
    if quote.bid is not None and quote.ask is not None and quote.bid > quote.ask:
        return f"crossed: bid {quote.bid:g} is above ask {quote.ask:g}"
    if quote.time_us > now_us + AHEAD_MAX_US:
        return f"mark_time: {(quote.time_us - now_us) / 1e6:.1f} s ahead of the store's clock"
    return None


def _encoded(quote: Quote) -> bytes:
    return msgspec.msgpack.encode(_Stored(quote.mark, quote.bid, quote.ask, quote.time_us, int(quote.phase)))
