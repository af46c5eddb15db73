"""Quotes on their way from the process that heard them to the others, whole."""

import msgspec
import pytest

from engine.facts import Quote
from engine.instrument import MarketPhase
from gateway.log.memory import MemoryLog
from gateway.market.quotes import Quotes

NOW_US = 1_700_000_000_000_000


@pytest.mark.parametrize("phase", list(MarketPhase))
async def test_what_one_process_heard_another_reads(memory_log: MemoryLog, phase: MarketPhase) -> None:
    heard, elsewhere = Quotes(memory_log.bulletin), Quotes(memory_log.bulletin)
    quote = Quote("AAA", 100.0, 99.0, None, NOW_US, phase)

    assert heard.offer(quote, NOW_US) is None
    await heard.flush()
    elsewhere.absorb(await memory_log.bulletin.marks(), NOW_US)
    await heard.aclose()

    assert elsewhere["AAA"] == quote


@pytest.mark.parametrize(
    ("stored", "phase"),
    [((100.0, None, None, NOW_US), MarketPhase.UNKNOWN), ((100.0, None, None, NOW_US, 99), MarketPhase.UNKNOWN)],
)
def test_a_quote_of_another_release_tells_what_this_one_knows(
    memory_log: MemoryLog, stored: tuple[object, ...], phase: MarketPhase
) -> None:
    quotes = Quotes(memory_log.bulletin)

    quotes.absorb({"AAA": msgspec.msgpack.encode(stored)}, NOW_US)

    assert quotes["AAA"] == Quote("AAA", 100.0, None, None, NOW_US, phase)


async def test_a_phase_that_changes_alone_is_news(memory_log: MemoryLog) -> None:
    quotes = Quotes(memory_log.bulletin)
    quotes.offer(Quote("AAA", 100.0, None, None, NOW_US, MarketPhase.CONTINUOUS), NOW_US)
    version = quotes.version

    quotes.offer(Quote("AAA", 100.0, None, None, NOW_US, MarketPhase.HALTED), NOW_US)
    await quotes.aclose()

    assert (quotes["AAA"].phase, quotes.version) == (MarketPhase.HALTED, version + 1)
