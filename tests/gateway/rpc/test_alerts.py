"""What a person is told on StreamRiskState: how full a limit is, once a grade. And market phases, mark to verdict."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from engine.events import RANK_OFFICIAL, Event, EventPolicy, EventRule, Feed, outlook
from engine.grades import graded
from engine.limits import Limit, LimitSet, ScopeKind
from engine.report import encode_report, risk_report
from engine.utilisation import LimitUse, UseStatus
from gateway.registry import arm_limits
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import decision_pb2, instrument_pb2, risk_admin_pb2, risk_gateway_pb2
from tests.gateway.rpc.serving import ACCOUNT, LIMITS, Served, order

PATIENCE_S = 20.0
GRADES = (0.7, 0.8, 0.9, 1.0)
Updates = AsyncIterator[risk_gateway_pb2.RiskStateUpdate]


async def reported(gateway: Served, value: float, grade: float = 0.0) -> None:
    """The worker's report, of one limit of 1,000 whose use had a grade before."""
    accounts, log = gateway.backend.accounts, gateway.backend.log
    reading = await accounts.read(ACCOUNT, accounts.clock.now_us() + 1_000_000)
    status = UseStatus.BREACHED if value > 1_000 else UseStatus.OK
    use = LimitUse("gross_exposure", f"account:{ACCOUNT}", value, None, 1_000.0, "money", True, status)
    limits = graded([use], {use.key: grade}, GRADES)
    report = risk_report(reading.state, reading.terms, accounts.clock.now_us())
    await log.bulletin.post_report(ACCOUNT, encode_report(msgspec.structs.replace(report, limits=limits)))


async def subscribed(gateway: Served) -> Updates:
    updates = gateway.gateway.StreamRiskState(risk_gateway_pb2.StreamRiskStateRequest(accounts=[ACCOUNT])).__aiter__()
    await anext(updates)
    return updates


async def alerts_until_the_next_state(updates: Updates) -> list[risk_gateway_pb2.Alert]:
    alerts = []
    async with asyncio.timeout(PATIENCE_S):
        async for update in updates:
            if update.WhichOneof("update") == "alert":
                alerts.append(update.alert)
            if update.WhichOneof("update") == "risk_state":
                return alerts
    raise AssertionError("the stream has ended")


async def test_a_limit_that_fills_up_is_told_of_at_each_grade_and_while_it_hovers_no_more(gateway: Served) -> None:
    updates, told = await subscribed(gateway), []
    for value, grade in ((800.0, 0.0), (785.0, 0.8), (810.0, 0.8), (1_001.0, 0.8), (600.0, 1.0), (850.0, 0.0)):
        await reported(gateway, value, grade)
        told.append(await alerts_until_the_next_state(updates))

    assert [len(alerts) for alerts in told] == [1, 0, 0, 1, 0, 1]
    eighty, full = told[0][0], told[3][0]
    assert (eighty.kind, eighty.account, eighty.scope) == ("limit_grade", ACCOUNT, f"account:{ACCOUNT}")
    assert eighty.message == "gross_exposure of account:ALPHA has reached 80% of its limit 1,000: it is 800 money"
    assert (eighty.severity, full.severity) == (risk_gateway_pb2.SEVERITY_WARNING, risk_gateway_pb2.SEVERITY_CRITICAL)


async def test_a_new_reader_hears_of_the_grades_that_stand(gateway: Served) -> None:
    first = await subscribed(gateway)
    await reported(gateway, 950.0)
    (told,) = await alerts_until_the_next_state(first)

    async with asyncio.timeout(PATIENCE_S):
        again = (await anext(await subscribed(gateway))).alert

    assert again.alert_id == told.alert_id != ""


HOUR = 3_600_000_000


async def foreseen(gateway: Served, hours: float, stale: bool = False) -> None:
    """The worker's report, of a release so far ahead, half an hour around which nothing is opened."""
    accounts, log = gateway.backend.accounts, gateway.backend.log
    now_us = accounts.clock.now_us()
    reading = await accounts.read(ACCOUNT, now_us + 1_000_000)
    policy = EventPolicy({"macro": EventRule(HOUR // 2, HOUR // 2, block=True)})
    at_us = now_us + int(hours * HOUR)
    feed = Feed("bls", RANK_OFFICIAL, success_us=1 if stale else now_us, problem="answered 403" if stale else "")
    events = [Event("cpi", "cpi", "CPI", at_us, at_us, "2023-11-14", source="bls")]
    report = risk_report(reading.state, reading.terms, now_us)
    seen = outlook(events, [feed], policy, now_us, None)
    await log.bulletin.post_report(ACCOUNT, encode_report(msgspec.structs.replace(report, events=seen, limits=())))


async def test_a_window_that_opens_and_a_calendar_that_grows_stale_are_told_once(gateway: Served) -> None:
    updates, told = await subscribed(gateway), []
    for hours, stale in ((2.0, False), (0.25, False), (0.2, False), (0.2, True), (0.1, True), (-1.0, False)):
        await foreseen(gateway, hours, stale)
        told.append(await alerts_until_the_next_state(updates))

    assert [[one.kind for one in alerts] for alerts in told] == [[], ["event_window"], [], ["event_source"], [], []]
    (opened,), (blind,) = told[1], told[3]
    assert opened.message == "CPI of 2023-11-14: its window is open, block new entries"
    assert (opened.severity, blind.severity) == (risk_gateway_pb2.SEVERITY_WARNING, risk_gateway_pb2.SEVERITY_WARNING)
    assert blind.message == "the calendar bls is stale, its last good events stay in force: answered 403"


async def test_a_halt_that_the_feed_tells_of_refuses_until_it_tells_that_it_is_over(gateway: Served) -> None:
    await arm_limits(gateway.backend.log, LimitSet((*LIMITS.rows, Limit("market_phase", ScopeKind.SYMBOL, 0.0))))
    reasons = []

    told = (
        instrument_pb2.MARKET_PHASE_HALTED,
        instrument_pb2.MARKET_PHASE_UNSPECIFIED,
        instrument_pb2.MARKET_PHASE_CONTINUOUS,
    )
    for at, phase in enumerate(told):
        now = timestamp(gateway.backend.accounts.clock.now_us())
        mark = instrument_pb2.Mark(symbol="AAPL", last=100.0, mark_time=now, phase=phase)
        await gateway.admin.PublishMarks(iter([risk_admin_pb2.PublishMarksRequest(marks=[mark])]))
        answer = await gateway.gateway.CheckOrder(risk_gateway_pb2.CheckOrderRequest(order=order(f"o{at}", 10.0)))
        reasons.append(answer.reason)

    phase_refused = decision_pb2.REASON_MARKET_PHASE
    assert reasons == [phase_refused, phase_refused, decision_pb2.REASON_NONE]
