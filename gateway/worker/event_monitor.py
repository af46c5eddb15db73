"""Follows the calendars of events, and has their windows put into the accounts' logs ahead of time.

Each source is read in a thread when it is due; what it said last well is kept in the store, so that neither a restart
nor a source that fails forgets an event. What events mean is engine/events.py's; records are appended by an account's
committer, which asks once more on the state as it then is: any number of workers do this once. Where nothing is
configured and nothing was ever entered, nothing happens here.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog

from engine.account import AccountState
from engine.decide import Terms
from engine.events import (
    Event,
    EventOutlook,
    EventPolicy,
    Feed,
    event_records,
    lifted,
    outlook,
    symbols_at_stake,
)
from engine.records import AnyRecord, CalendarPlanned, Tightened
from engine.risk.gap import EventGap, event_gaps
from gateway.clock import StoreClock
from gateway.errors import StoreError
from gateway.log.bulletin import Bulletin
from gateway.market.events import kept
from gateway.market.events.source import Source, SourceError

LOGGER = structlog.get_logger()

LOOK_S = 5.0
"""How often the store is asked for events that were entered, or read by other workers."""

REFRESH_S = 3600.0
RETRY_S = 300.0
"""A source that failed is left alone for so long, or for as long as it asked."""

Open = Callable[[str, date], Source]


@dataclass(frozen=True, slots=True)
class _Settled:
    """On what nothing was due for an account."""

    calendar: kept.Calendar | None
    near: tuple[Event, ...]
    tightenings: tuple[Tightened, ...]
    plan: CalendarPlanned | None

    def same(self, other: "_Settled") -> bool:
        """By identity: all of it is immutable."""
        return (
            self.calendar is other.calendar
            and self.near is other.near
            and self.tightenings is other.tightenings
            and self.plan is other.plan
        )


class EventMonitor:
    """See the module. `look` before use, and from time to time; `run` does so."""

    def __init__(
        self,
        bulletin: Bulletin,
        clock: StoreClock,
        policy: EventPolicy,
        ranks: Sequence[tuple[str, int]],
        open_source: Open,
        refresh_s: float = REFRESH_S,
        look_s: float = LOOK_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """`ranks`: the names of the sources, and whose word counts. `refresh_s`: how often each is read."""
        self._bulletin, self._clock, self.policy = bulletin, clock, policy
        self._ranks, self._open = tuple(ranks), open_source
        self._refresh_us, self._look_s, self._retry_us = int(refresh_s * 1e6), look_s, int(retry_s * 1e6)
        self._calendar: kept.Calendar | None = None
        self._events: tuple[Event, ...] = ()
        self._near: tuple[Event, ...] = ()
        self._not_before_us: dict[str, int] = {}
        """When a source may be read again."""
        self._settled: dict[str, _Settled] = {}

    async def run(self) -> None:
        """Until cancelled; nothing that fails in it may end it."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                LOGGER.warning("events can't be kept or read back, it is tried again", problem=str(error))
            except Exception:  # outermost loop: logged, then tried again
                LOGGER.exception("following events failed")
            await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Read what the store keeps and the sources that are due, all at once; nothing counts before that is done: a
        source that is being read for the first time is not one that can't be. Raises StoreError, MsgspecError."""
        stored = await kept.calendar(self._bulletin, self._ranks)
        due = [feed for feed in stored.feeds if self._is_due(feed)]
        if due:
            await asyncio.gather(*(self._read(feed) for feed in due))
            stored = await kept.calendar(self._bulletin, self._ranks)
        self._take(stored)

    @property
    def events(self) -> tuple[Event, ...]:
        """All that are known, cancelled ones among them, earliest first."""
        return self._events

    def _take(self, found: kept.Calendar) -> None:
        if found != self._calendar:
            self._calendar, self._events = found, found.events
        now_us, horizon_us = self._clock.now_us(), self.policy.horizon_us
        windows = ((event, *self.policy.window(event)) for event in self._events)
        near = tuple(event for event, since, until in windows if until > now_us and since <= now_us + horizon_us)
        if near != self._near:
            self._near = near

    def _is_due(self, feed: Feed) -> bool:
        now_us = self._clock.now_us()
        if now_us < self._not_before_us.get(feed.source, 0):
            return False
        return feed.missing or now_us - feed.success_us >= self._refresh_us

    async def _read(self, feed: Feed) -> None:
        now_us = self._clock.now_us()
        today = datetime.fromtimestamp(now_us / 1e6, UTC).date()
        try:
            read = feed.read(await asyncio.to_thread(self._read_now, feed.source, today), now_us)
        except (SourceError, ValueError) as error:
            wish_us = int(error.retry_after_s * 1e6) if isinstance(error, SourceError) else 0
            self._not_before_us[feed.source] = now_us + max(self._retry_us, wish_us)
            if str(error) != feed.problem:
                LOGGER.error("a source of events can't be read", source=feed.source, problem=str(error))
            read = feed.failed(str(error), now_us)
        else:
            self._not_before_us[feed.source] = now_us + self._refresh_us
            if feed.problem or feed.missing:
                LOGGER.info("a source of events is read", source=feed.source, events=len(read.events))
        await kept.keep(self._bulletin, read)

    def _read_now(self, name: str, today: date) -> Sequence[Event]:
        return self._open(name, today).read()

    # --- accounts ----------------------------------------------------------------------------------------------------

    def due(self, state: AccountState, terms: Terms, now_us: int) -> bool:
        """Whether the account's log lacks something that is known of events."""
        settled, plan = self._settled.get(state.account), state.calendar
        seen = _Settled(self._calendar, self._near, state.tightenings, plan)
        if settled is not None and seen.same(settled) and not self._runs_out(plan, now_us):
            return False
        if self.build(state, terms, now_us):
            return True
        self._settled[state.account] = seen
        return False

    def _runs_out(self, plan: CalendarPlanned | None, now_us: int) -> bool:
        return plan is not None and plan.until_us < now_us + self.policy.horizon_us // 2

    def build(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        """What is due; nothing before the store was read."""
        if self._calendar is None:
            return []
        epoch = terms.control.epoch
        if not self._calendar.feeds and not self._calendar.entered:
            return lifted(state, (), "no events are configured", now_us, epoch)
        return event_records(state, self._near, self._calendar.feeds, self.policy, now_us, epoch)

    def outlook(self, state: AccountState, terms: Terms, now_us: int) -> EventOutlook | None:
        """What an account has ahead of it; None where no events are configured or entered."""
        found = self._calendar
        if found is None or not (found.feeds or found.entered):
            return None
        at_stake = symbols_at_stake(state, terms.instruments)
        return outlook(self._near, found.feeds, self.policy, now_us, at_stake)

    def gaps(self) -> tuple[EventGap, ...] | None:
        """The moves to be reckoned with through the events of the horizon; None where no calendar was read."""
        found = self._calendar
        if found is None or not (found.feeds or found.entered):
            return None
        return event_gaps(self._near, self.policy, self._clock.now_us())
