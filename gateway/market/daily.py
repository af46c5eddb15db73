"""The daily history as it stands: the files, and the sessions that have closed since, from the last marks of each.

A session's close is the last mark that was made in it: one from before it opened is none. Closes are noted in the
store, a symbol's once, so that any number of workers and restarts add up to the same history; a row of a file for the
date takes their place. What joins, what is left out and what splits do is engine.risk.closes' to say.
"""

import asyncio
import datetime
from collections import deque
from collections.abc import Collection, Mapping

import msgspec
import structlog

from engine.facts import Quote
from engine.risk.closes import Carried, SessionCloses, carried_on, split_adjusted
from gateway.log.bulletin import Bulletin
from gateway.market.history_files import HistoryFiles

LOGGER = structlog.get_logger()

SNAPSHOTS_MAX = 10
SNAPSHOT_US = 1_000_000
"""The marks of the last ten seconds are remembered, one a second: a worker hears of a session's end a little later, and
marks of the next session may have come by then."""

LOOK_US = 2_000_000
"""How often the files are looked at."""

CLOSED = ""
"""The symbol under which the end of a session itself is noted, so that one without any close is known of too."""


class _Close(msgspec.Struct, array_like=True, frozen=True):
    close: float
    time_us: int


_DECODER = msgspec.msgpack.Decoder(_Close)


class DailyHistory:
    """See the module. `reload` before use."""

    def __init__(self, files: HistoryFiles, bulletin: Bulletin) -> None:
        self._files, self._bulletin = files, bulletin
        self._snapshots: deque[tuple[int, Mapping[str, Quote]]] = deque(maxlen=SNAPSHOTS_MAX)
        self._sessions: tuple[SessionCloses, ...] = ()
        self._noted: dict[str, set[str]] = {}
        """Symbols by session, as far as this process noted them."""
        self._looked_us = 0
        self._carried: tuple[object, Carried] | None = None
        self.version = 0
        """Grows with every change of files or closes."""

    @property
    def problem(self) -> str:
        """Why the files as they are now are not used; empty where they are."""
        return self._files.problem

    def remember(self, quotes: Mapping[str, Quote], now_us: int) -> None:
        """Take note of the latest marks; call it more often than SNAPSHOT_US."""
        if not self._snapshots or abs(now_us - self._snapshots[-1][0]) >= SNAPSHOT_US:
            self._snapshots.append((now_us, dict(quotes)))

    async def close(self, session: str, opened_us: int, closed_us: int, quotes: Mapping[str, Quote]) -> None:
        """Note the closes of a session that was open from and to these times. Raises StoreUnavailable where they could
        not be noted: call it again then. One that the files reach needs no note."""
        dates = self._files.loaded.history.dates
        if dates and session <= dates[-1].isoformat():
            return
        closes = self._closes(opened_us, closed_us, quotes)
        noted = self._noted.get(session)
        if noted is not None and noted >= closes.keys():
            return
        encoded = {symbol: msgspec.msgpack.encode(close) for symbol, close in closes.items()}
        await self._bulletin.keep_closes(session, {CLOSED: b"", **encoded})
        self._noted[session] = (noted or set()) | closes.keys()
        if closes:
            LOGGER.info("the marks of a session are its closes now", session=session, symbols=len(closes))
        else:
            LOGGER.warning("no mark was made in a session, the history has no close of it", session=session)
        await self.reload()

    def _closes(self, opened_us: int, closed_us: int, quotes: Mapping[str, Quote]) -> dict[str, _Close]:
        found: dict[str, _Close] = {}
        for marks in (quotes, *(marks for _, marks in reversed(self._snapshots))):
            for symbol, quote in marks.items():
                if opened_us <= quote.time_us <= closed_us and (
                    symbol not in found or found[symbol].time_us < quote.time_us
                ):
                    found[symbol] = _Close(quote.mark, quote.time_us)
        return found

    async def reload(self) -> None:
        """Read the closes that are noted of the sessions after the files' last date."""
        dates = self._files.loaded.history.dates
        noted = await self._bulletin.closes(dates[-1].isoformat() if dates else "")
        sessions = tuple(_session(session, closes) for session, closes in noted.items())
        if sessions != self._sessions:
            self._sessions = sessions
            self.version += 1

    async def look(self, now_us: int) -> None:
        """Read the files again if they changed, at most every LOOK_US. Raises StoreUnavailable."""
        if abs(now_us - self._looked_us) < LOOK_US:
            return
        self._looked_us = now_us
        if not await asyncio.to_thread(self._files.look):
            return
        if self._files.problem:
            LOGGER.error(
                "the price history can't be read again, the one that was read before is used",
                problem=self._files.problem,
            )
        else:
            LOGGER.info("price history read again", days=len(self._files.loaded.history.dates))
        self.version += 1
        await self.reload()

    def carried(self, wanted: Collection[str]) -> Carried:
        """The history, carried on, split-adjusted, with what a reader must know of it; the same value while nothing has
        changed. `wanted`: the symbols that trade. Takes as long as copying the history does."""
        key = (self.version, frozenset(wanted))
        if self._carried is None or self._carried[0] != key:
            loaded = self._files.loaded
            longer = carried_on(loaded.history, self._sessions, wanted)
            adjusted = split_adjusted(longer.history, loaded.splits) if loaded.splits else Carried(longer.history)
            problem = (f"price files changed and can't be read, older closes are used: {self._files.problem}",)
            warnings = (*longer.warnings, *adjusted.warnings, *(problem if self._files.problem else ()))
            self._carried = key, Carried(adjusted.history, warnings)
        return self._carried[1]


def _session(session: str, closes: Mapping[str, bytes]) -> SessionCloses:
    marks = {symbol: _DECODER.decode(close).close for symbol, close in closes.items() if symbol != CLOSED}
    return SessionCloses(datetime.date.fromisoformat(session), marks)
