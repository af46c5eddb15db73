"""The worker: a model for each session, reports on every change, sessions by the clock; and life without it (P5).

Prices are a small made history; the store is the memory log, its clock turned by hand.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from engine.facts import Quote
from engine.limits import Limit, ScopeKind
from engine.order import Action, Reason
from engine.report import decode_report
from engine.risk.scenarios import SIX_SCENARIOS
from gateway.log.memory import MemoryLog
from gateway.registry import register
from gateway.worker.model_builder import ModelBuilder, ModelSettings
from gateway.worker.worker import SessionRoll
from tests.gateway.log.conflicting import EveryKthConflicts
from tests.gateway.worker.running import model_of, prices, report_of, working
from tests.gateway.world import (
    ACCOUNT,
    SESSION,
    Gateway,
    World,
    buy,
    limits,
    opening,
    report,
    sell,
    session,
    stock,
    world_on,
)

NEW_YORK = ZoneInfo("America/New_York")
VAR = Limit("var_95", ScopeKind.ACCOUNT, 1e9)


@pytest.fixture
async def world(memory_log: MemoryLog, store_clock: list[int]) -> AsyncIterator[World]:
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        await world.arm(limits(VAR))
        yield world


# -- the model


async def test_a_model_of_the_session_is_published_from_closes_before_it(world: World) -> None:
    gateway = await world.open()
    refused = await gateway.check(buy("without a model"))

    async with working(world):
        await model_of(gateway, SESSION)

    model = gateway.accounts.model
    assert refused.decided.reason is Reason.MODEL_MISSING
    assert model is not None and model.n_days == 260
    assert model.last_price_date < date.fromisoformat(SESSION)
    allowed = (await gateway.check(buy("with a model"))).decided
    assert (allowed.action, allowed.message) == (Action.ALLOW, "within all limits")


async def test_a_new_session_gets_a_new_model_and_no_request_is_dropped_meanwhile(world: World) -> None:
    gateway = await world.open()
    async with working(world):
        await model_of(gateway, SESSION)
        first = gateway.accounts.model
        asking = [asyncio.ensure_future(gateway.check(buy(f"o{i}"))) for i in range(50)]

        await gateway.record(session("2023-11-15"))
        await model_of(gateway, "2023-11-15")
        answers = await asyncio.gather(*asking)

    second = gateway.accounts.model
    assert first is not None and second is not None and first.hash != second.hash
    assert second.last_price_date == date.fromisoformat(SESSION)
    assert all(answer.decided.risk_model == first.hash for answer in answers if answer.decided.action.allows)
    assert (await gateway.check(buy("new"))).decided.risk_model == second.hash


async def test_between_a_new_session_and_its_model_only_reductions_pass(world: World) -> None:
    gateway = await world.open()
    async with working(world):
        await model_of(gateway, SESSION)
    await gateway.check(buy("one", 10))
    await gateway.report(report("x1", "one", "fill", 10))

    await gateway.record(session("2023-11-15"))
    more, less = await gateway.check(buy("more")), await gateway.check(sell("less", 10))

    assert more.decided.reason is Reason.MODEL_STALE
    assert less.decided.action is Action.ALLOW


async def test_a_model_that_nobody_renewed_decides_nothing_but_reductions(world: World, store_clock: list[int]) -> None:
    gateway = await world.open()
    async with working(world):
        await model_of(gateway, SESSION)
    await gateway.check(buy("one", 10))
    await gateway.report(report("x1", "one", "fill", 10))

    store_clock[0] += 27 * 3600 * 1_000_000
    quotes = gateway.accounts.quotes
    quotes.offer(Quote("AAA", 100.0, 100.0, 100.0, store_clock[0]), store_clock[0])
    more, less = await gateway.check(buy("more")), await gateway.check(sell("less", 10))

    assert more.decided.reason is Reason.MODEL_STALE
    assert less.decided.action is Action.ALLOW


async def test_new_instruments_get_a_new_model(world: World) -> None:
    gateway = await world.open()
    async with working(world, refresh_s=0.01):
        await model_of(gateway, SESSION)
        first = gateway.accounts.model

        registered = await register(world.log, [stock("CCC")])
        with gateway.accounts.subscribe(()) as subscription:
            async with asyncio.timeout(20):
                while gateway.accounts.model is first:
                    await gateway.check(buy("nudge"), dry_run=True)
                    await subscription.next(0.05)

    assert gateway.accounts.model is not None
    assert gateway.accounts.model.instrument_set == registered.instrument_set


# -- reports


async def test_a_report_follows_a_change(world: World) -> None:
    gateway = await world.open()
    async with working(world):
        await model_of(gateway, SESSION)
        await gateway.check(buy("one", 10))

        found = await report_of(gateway, lambda r: r.gross == 1_000.0)

    assert found.var_95 is not None and 0 < found.var_95 < 100
    assert (found.equity, found.n_observations) == (1_000_000.0, 260)
    assert {use.measure for use in found.limits} >= {"position", "var_95"}


async def test_a_limit_crossed_by_prices_is_a_passive_breach(world: World) -> None:
    await world.arm(limits(Limit("gross_exposure", ScopeKind.ACCOUNT, 1_000.0)))
    gateway = await world.open()
    async with working(world) as worker:
        await gateway.check(buy("one", 10))
        await report_of(gateway, lambda r: r.gross == 1_000.0)

        now_us = gateway.accounts.clock.now_us()
        for accounts in (worker.accounts, gateway.accounts):
            accounts.quotes.offer(Quote("AAA", 110.0, 110.0, 110.0, now_us), now_us)
        await gateway.read()
        found = await report_of(gateway, lambda r: bool(r.passive_breaches))

    assert (found.active_breaches, found.passive_breaches) == (0, 1)


async def test_approvals_are_no_breaches(world: World) -> None:
    gateway = await world.open()
    async with working(world):
        await model_of(gateway, SESSION)
        for i in range(12):
            await gateway.check(buy(f"o{i}", 9))

        found = await report_of(gateway, lambda r: r.gross == 9_900.0)

    assert (found.active_breaches, found.passive_breaches) == (0, 0)


async def test_an_account_that_nobody_can_read_does_not_end_the_worker(
    memory_log: MemoryLog, store_clock: list[int], world: World
) -> None:
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)
    await gateway.record(session(), "beta")
    head = (await gateway.read("beta")).head
    async with working(world, SessionRoll(time(9, 30), NEW_YORK)):
        await model_of(gateway, SESSION)
        await memory_log.append("beta", head, None, [b'{"k":"from the future"}'], 0, 0)
        store_clock[0] += 24 * 3600 * 1_000_000
        await gateway.check(buy("one", 10))

        await model_of(gateway, "2023-11-15")


async def test_a_session_without_a_model_takes_none_from_the_others(world: World) -> None:
    """No closes come before 1990: the account whose session that is gets no model, and the others keep theirs."""
    gateway = await world.open()
    await gateway.record(opening(), "beta", opens=True)
    async with working(world, refresh_s=0.01):
        await model_of(gateway, SESSION)
        await gateway.record(session("1990-01-02"), "beta")
        await gateway.record(session("2023-11-15"))

        await model_of(gateway, "2023-11-15")
        await gateway.check(buy("one", 10))
        found = await report_of(gateway, lambda r: r.gross == 1_000.0)

    assert found.var_95 is not None


async def test_a_model_that_cannot_be_built_leaves_the_worker_reporting(world: World) -> None:
    twice = ModelBuilder(prices(), ModelSettings(scenarios=(*SIX_SCENARIOS, *SIX_SCENARIOS)))
    gateway = await world.open()
    async with working(world, refresh_s=0.01, builder=twice):
        found = await report_of(gateway, lambda r: r.equity == 1_000_000.0)

    assert found.var_95 is None
    assert gateway.accounts.model is None


async def test_a_report_of_another_release_is_replaced(world: World) -> None:
    gateway = await world.open()
    await world.log.bulletin.post_report(ACCOUNT, b"from the future")

    def readable(encoded: bytes | None) -> bool:
        return encoded is not None and encoded != b"from the future"

    with gateway.accounts.subscribe([ACCOUNT]) as subscription:
        async with asyncio.timeout(20), working(world):
            while not readable(gateway.accounts.report(ACCOUNT)):
                await subscription.next(0.1)

    encoded = gateway.accounts.report(ACCOUNT)
    assert encoded is not None and decode_report(encoded).equity == 1_000_000.0


async def test_the_grade_of_a_limit_is_in_the_report_and_outlives_the_worker(world: World) -> None:
    """83 % of 1,200, then 78.3: still the grade that it was, for a worker that has just started too."""
    await world.arm(limits(Limit("gross_exposure", ScopeKind.ACCOUNT, 1_200.0)))
    gateway = await world.open()
    async with working(world, refresh_s=0.01):
        await gateway.check(buy("one", 10))
        await report_of(gateway, lambda r: [use.grade for use in r.limits if use.measure == "gross_exposure"] == [0.8])
        await world.mark("AAA", 94.0)
        await gateway.check(buy("nudge", 10), dry_run=True)
        before = await report_of(gateway, lambda r: r.gross == 940.0)

    await gateway.check(buy("off the lot", 0.5))
    async with working(world, refresh_s=0.01):
        found = await report_of(gateway, lambda r: r.seq > before.seq)

    assert [use.grade for use in found.limits if use.measure == "gross_exposure"] == [0.8]


async def test_a_model_is_renewed_within_a_session_that_lasts(world: World, store_clock: list[int]) -> None:
    """From Friday to Monday is longer than the age a model may have."""
    gateway = await world.open()
    async with working(world, refresh_s=0.01):
        await model_of(gateway, SESSION)
        for hours in range(7, 63, 7):
            store_clock[0] += 7 * 3600 * 1_000_000
            await renewed(gateway, store_clock[0])
            await world.mark("AAA", 100.0)
            await gateway.check(buy(f"nudge {hours}"), dry_run=True)
    gateway.accounts.quotes.offer(Quote("AAA", 100.0, 100.0, 100.0, store_clock[0]), store_clock[0])

    assert (await gateway.check(buy("on Monday"))).decided.action is Action.ALLOW


async def renewed(gateway: Gateway, now_us: int) -> None:
    with gateway.accounts.subscribe(()) as subscription:
        async with asyncio.timeout(20):
            while (model := gateway.accounts.model) is None or model.built_time_us < now_us:
                await subscription.next(0.1)
    assert model.session_date.isoformat() == SESSION


# -- sessions by the clock


@pytest.mark.parametrize(
    ("local", "session_date"),
    [
        ("2023-11-14T09:29:59", "2023-11-13"),
        ("2023-11-14T09:30:00", "2023-11-14"),
        ("2023-11-14T23:59:59", "2023-11-14"),
        ("2023-11-17T12:00:00", "2023-11-17"),
        ("2023-11-18T12:00:00", "2023-11-17"),
        ("2023-11-19T23:00:00", "2023-11-17"),
        ("2023-11-20T09:29:00", "2023-11-17"),
        ("2023-11-20T09:30:00", "2023-11-20"),
        ("2023-03-13T09:30:00", "2023-03-13"),
    ],
)
def test_the_session_is_of_the_last_weekday_that_has_opened(local: str, session_date: str) -> None:
    now = datetime.fromisoformat(local).replace(tzinfo=NEW_YORK)

    roll = SessionRoll(time(9, 30), NEW_YORK)

    assert roll.date_at(round(now.timestamp() * 1e6)).isoformat() == session_date


def test_the_session_is_of_its_own_zone() -> None:
    now_us = round(datetime(2023, 11, 14, 1, 0, tzinfo=ZoneInfo("UTC")).timestamp() * 1e6)

    assert SessionRoll(time(9, 0), ZoneInfo("Asia/Tokyo")).date_at(now_us).isoformat() == "2023-11-14"
    assert SessionRoll(time(9, 0), NEW_YORK).date_at(now_us).isoformat() == "2023-11-13"


def test_no_session_opens_on_a_holiday() -> None:
    """Thanksgiving 2023, a Thursday, and the Friday after it."""
    roll = SessionRoll(time(9, 30), NEW_YORK, frozenset([date(2023, 11, 23)]))
    noons = [datetime(2023, 11, day, 12, 0, tzinfo=NEW_YORK) for day in (22, 23, 24)]

    assert [roll.date_at(round(noon.timestamp() * 1e6)).day for noon in noons] == [22, 22, 24]


async def test_an_account_rolls_in_its_own_zone(memory_log: MemoryLog, store_clock: list[int]) -> None:
    """At 1:00 UTC on the 15th: Tokyo has opened, New York is still in the session of the 14th."""
    async with world_on(memory_log, lambda: store_clock[0]) as world:
        gateway = await world.gateway()
        for account in (ACCOUNT, "tokyo"):
            await gateway.record(opening(), account, opens=True)
        store_clock[0] = round(datetime(2023, 11, 15, 1, 0, tzinfo=ZoneInfo("UTC")).timestamp() * 1e6)
        rolls = {"tokyo": SessionRoll(time(9, 0), ZoneInfo("Asia/Tokyo"))}
        async with working(world, SessionRoll(time(9, 30), NEW_YORK), refresh_s=0.01, rolls=rolls):
            await model_of(gateway, "2023-11-15")
        sessions = [(await gateway.read(account)).state.session for account in (ACCOUNT, "tokyo")]

    assert [one.date if one is not None else "" for one in sessions] == ["2023-11-14", "2023-11-15"]


@pytest.mark.parametrize("conflicting", [False, True])
async def test_sessions_roll_by_the_clock_once(
    memory_log: MemoryLog, store_clock: list[int], conflicting: bool
) -> None:
    log = EveryKthConflicts(memory_log, 2) if conflicting else memory_log
    async with world_on(log, lambda: store_clock[0]) as world:
        gateway = await world.gateway()
        await gateway.record(opening(), opens=True)
        store_clock[0] = round(datetime(2023, 11, 14, 12, 0, tzinfo=NEW_YORK).timestamp() * 1e6)
        async with working(world, SessionRoll(time(9, 30), NEW_YORK), refresh_s=0.01):
            await model_of(gateway, "2023-11-14")
            store_clock[0] += 24 * 3600 * 1_000_000
            await gateway.check(buy("nudge"))
            await model_of(gateway, "2023-11-15")
        state = (await gateway.read()).state

    assert state.session is not None and state.session.date == "2023-11-15"
    assert [closed.date for closed in state.sessions] == ["2023-11-14"]
