"""The event monitor: calendars kept in the store, windows in the logs ahead of time, by any number of workers once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest

from engine.events import DAY_US, RANK_OFFICIAL, Event, EventPolicy, EventRule
from engine.limits import Limit, ScopeKind
from engine.order import Action, Reason
from engine.records import AnyRecord, CalendarPlanned, Tightened
from engine.report import RiskReport
from gateway.clock import StoreClock
from gateway.log.memory import MemoryLog
from gateway.market.events import kept
from gateway.market.events.source import Source, SourceError
from gateway.tasks import ended
from gateway.worker.event_monitor import EventMonitor
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from gateway.worker.worker import Worker
from tests.gateway.worker.running import prices, report_of
from tests.gateway.world import ACCOUNT, Gateway, World, buy, limits, records_of, sell, world_on

HOUR = 3_600_000_000
POLICY = EventPolicy(
    {"macro": EventRule(), "cpi": EventRule(HOUR, HOUR, {"position": 0.5}, block=True, gap=0.1)}, 7 * DAY_US, 2 * DAY_US
)
BLACKOUT = Limit("event_blackout", ScopeKind.ACCOUNT, 0.0)


@dataclass
class Told:
    """A source that says what a test has it say."""

    events: list[Event] = field(default_factory=list)
    problem: str = ""
    retry_after_s: float = 0.0
    reads: int = 0
    name: str = "bls"
    rank: int = RANK_OFFICIAL

    def open(self, name: str, today: date) -> Source:
        assert name == self.name
        return self

    def read(self) -> Sequence[Event]:
        self.reads += 1
        if self.problem:
            raise SourceError(self.problem, self.retry_after_s)
        return list(self.events)


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits(BLACKOUT))
        yield world


def cpi(now_us: int, hours: float, name: str = "cpi") -> Event:
    at_us = now_us + int(hours * HOUR)
    day = (date(2023, 11, 14) + timedelta(days=int(hours // 24))).isoformat()
    return Event(name, "cpi", "Consumer Price Index", at_us, at_us, day, source="bls", official=True)


async def monitor(world: World, source: Told, **fields: float) -> EventMonitor:
    ranks = [("bls", RANK_OFFICIAL)]
    return EventMonitor(world.log.bulletin, await world.clock(), POLICY, ranks, source.open, **fields)


@contextlib.asynccontextmanager
async def working(world: World, source: Told) -> AsyncIterator[Worker]:
    builder = ModelBuilder(prices(), ModelSettings(lookback_days=260, unmapped="zero"))
    events = await monitor(world, source, look_s=0.02)
    worker = Worker(world.log, await world.clock(), builder, 0.0, None, events=events)  # its clock stands still
    running = asyncio.create_task(worker.run())
    try:
        yield worker
        assert not running.done()
    finally:
        await ended([running])
        await worker.aclose()


async def until_planned(gateway: Gateway) -> None:
    await report_of(gateway, lambda one: one.events is not None)
    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        async with asyncio.timeout(20):
            while (await gateway.read()).state.calendar is None:
                await subscription.next(0.2)


async def event_records(world: World) -> list[AnyRecord]:
    return [one for one in await records_of(world.log) if isinstance(one, Tightened | CalendarPlanned)]


async def test_two_workers_put_a_window_into_the_log_once_ahead_of_its_time(
    world: World, store_clock: list[int]
) -> None:
    gateway = await world.open()
    source = Told([cpi(store_clock[0], 2)])

    async with working(world, source), working(world, source):
        await until_planned(gateway)
        before = await gateway.check(buy("before", 60))
        seen = await report_of(gateway, lambda one: one.events is not None and bool(one.events.upcoming_events))

    assert before.decided.action is Action.ALLOW
    assert seen.events is not None
    (coming,) = seen.events.upcoming_events
    assert (coming.symbol, coming.event_type, coming.action) == ("*", "cpi", "BLOCK_NEW_ENTRIES")
    assert (seen.events.risk_level, seen.events.recommended_action) == ("MODERATE", "WATCH")
    assert sorted(type(one).__name__ for one in await event_records(world)) == [
        "CalendarPlanned",
        "Tightened",
        "Tightened",
    ]

    store_clock[0] += int(1.5 * HOUR)  # with no worker there
    await world.mark("AAA", 100.0)
    opening, closing = await gateway.check(buy("open", 1)), await gateway.check(sell("out", 1))
    assert (opening.decided.reason, opening.decided.action) == (Reason.EVENT_BLACKOUT, Action.REJECT)
    assert closing.decided.reason is Reason.EVENT_BLACKOUT  # flat: it would open a short


async def test_without_any_calendar_an_armed_blackout_opens_nothing(world: World) -> None:
    gateway = await world.open()

    assert (await gateway.check(buy("one"))).decided.reason is Reason.EVENTS_UNKNOWN


async def test_a_source_that_fails_keeps_its_events_over_a_restart_and_is_seen_to(
    world: World, store_clock: list[int]
) -> None:
    good, bad = Told([cpi(store_clock[0], 30)]), Told(problem="127.0.0.1 answered 403 Forbidden")
    first = await monitor(world, good)
    await first.look()
    store_clock[0] += 3 * DAY_US // 24

    second = await monitor(world, bad, refresh_s=1.0)
    await second.look()

    assert second.events == first.events != ()
    found = await kept.calendar(world.log.bulletin, [("bls", RANK_OFFICIAL)])
    assert (found.feeds[0].problem, found.feeds[0].missing) == ("127.0.0.1 answered 403 Forbidden", False)


async def test_a_source_is_read_when_due_and_left_alone_as_long_as_it_asks(
    world: World, store_clock: list[int]
) -> None:
    source = Told([cpi(store_clock[0], 30)])
    watching = await monitor(world, source, refresh_s=3600.0, retry_s=60.0)
    await watching.look()
    await watching.look()
    assert source.reads == 1

    source.problem, source.retry_after_s = "429", 300.0
    for passed_s, reads in ((3600, 2), (299, 2), (1, 3)):
        store_clock[0] += passed_s * 1_000_000
        await watching.look()
        assert source.reads == reads


async def test_another_worker_that_read_it_is_enough(world: World, store_clock: list[int]) -> None:
    source = Told([cpi(store_clock[0], 30)])
    first, second = await monitor(world, source), await monitor(world, source)
    await first.look()
    await second.look()

    assert (source.reads, second.events) == (1, first.events)


async def test_a_meeting_that_moves_takes_its_window_along(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    source = Told([cpi(store_clock[0], 2)])
    watching = await monitor(world, source, refresh_s=1.0)
    await watching.look()
    await gateway.record(watching.build)
    source.events = [cpi(store_clock[0], 48)]
    store_clock[0] += 2_000_000
    await watching.look()
    await gateway.record(watching.build)

    state = (await gateway.read()).state
    assert {one.from_us for one in state.tightenings} == {source.events[0].earliest_us - HOUR}
    assert not watching.due(state, (await gateway.read()).terms, store_clock[0])


async def test_before_the_store_was_read_nothing_is_planned_or_lifted(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    earlier = await monitor(world, Told([cpi(store_clock[0], 2)]))
    await earlier.look()
    await gateway.record(earlier.build)
    watching = await monitor(world, Told())
    reading = await gateway.read()

    assert reading.state.tightenings != ()
    assert not watching.due(reading.state, reading.terms, reading.now_us)
    assert watching.outlook(reading.state, reading.terms, reading.now_us) is None
    assert watching.gaps() is None


async def test_what_was_not_due_before_the_store_was_read_is_due_after(world: World) -> None:
    gateway = await world.open()
    watching = await monitor(world, Told(problem="gone"))
    reading = await gateway.read()
    assert not watching.due(reading.state, reading.terms, reading.now_us)

    await watching.look()

    assert watching.due(reading.state, reading.terms, reading.now_us)


async def test_what_an_operator_entered_is_planned_without_any_source(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    watching = EventMonitor(world.log.bulletin, await world.clock(), POLICY, (), Told().open)
    await watching.look()
    reading = await gateway.read()
    assert watching.build(reading.state, reading.terms, reading.now_us) == []

    await kept.enter(world.log.bulletin, cpi(store_clock[0], 0.5, "mine"))
    await watching.look()
    await gateway.record(watching.build)

    assert (await gateway.check(buy("one"))).decided.reason is Reason.EVENT_BLACKOUT
    assert [(one.name, one.gap) for one in watching.gaps() or ()] == [("Consumer Price Index 2023-11-14", 0.1)]


async def test_once_nothing_is_configured_what_events_tightened_is_lifted(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    blind = await monitor(world, Told(problem="gone"))
    await blind.look()
    await gateway.record(blind.build)
    assert (await gateway.read()).state.tightenings != ()

    none = EventMonitor(world.log.bulletin, await world.clock(), POLICY, (), Told().open)
    await none.look()
    await gateway.record(none.build)

    assert (await gateway.read()).state.tightenings == ()


def unread(one: RiskReport) -> bool:
    return one.events is not None and one.events.risk_level == "HIGH"


async def test_a_calendar_that_can_never_be_read_is_strict_and_says_so(world: World) -> None:
    gateway = await world.open()

    async with working(world, Told(problem="no such host")):
        shown = await report_of(gateway, unread)
        await until_planned(gateway)
        verdict = (await gateway.check(buy("one"))).decided

    assert shown.events is not None
    assert [(one.source, one.stale, one.message) for one in shown.events.sources] == [("bls", True, "no such host")]
    assert verdict.reason is Reason.EVENTS_UNKNOWN
    assert [check.limit for check in verdict.checks if check.measure == "position"] == [50.0]


async def test_a_clock_of_the_store_decides_what_is_due(world: World) -> None:
    clock = StoreClock(lambda: 0, 1)
    source = Told([cpi(HOUR, 30)])
    watching = EventMonitor(world.log.bulletin, clock, POLICY, [("bls", RANK_OFFICIAL)], source.open)
    await watching.look()

    assert (await kept.calendar(world.log.bulletin, [("bls", RANK_OFFICIAL)])).feeds[0].success_us == 1
