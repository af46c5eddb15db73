"""Both clients against a real gateway, with a relay between them that fails: one id, one reservation, one clear end."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from gateway.client import AsyncRiskClient, CallFailed, Order, OutcomeUnknown, Patience, Report, RiskClient, Verdict
from gateway.rpc.backend import Backend
from riskgateway.v1 import order_pb2, risk_gateway_pb2
from tests.gateway.client.conftest import QUICK, Threaded
from tests.gateway.client.relay import Hang, Hold, LoseReply, Refuse, Relay
from tests.gateway.rpc.serving import ACCOUNT, Served

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


def asked(relay: Relay) -> list[order_pb2.Order]:
    return [risk_gateway_pb2.CheckOrderRequest.FromString(r).order for r in relay.requests("CheckOrder")]


# --- verdicts --------------------------------------------------------------------------------------------------------


async def test_an_order_is_allowed_and_says_all_that_is_known(risk: Any) -> None:
    verdict = await risk.buy("AAPL", 10, limit_price=100.0)

    assert verdict and isinstance(verdict, Verdict)
    assert (verdict.quantity, verdict.action, verdict.reason) == (10.0, "ALLOW", "NONE")
    assert verdict.sequence > 0 and verdict.epoch > 0 and verdict.approval
    assert (verdict.replayed, verdict.prior, verdict.valid_until, verdict.dropped_because) == (False, None, None, "")
    assert verdict.decide_time.tzinfo is UTC
    (position,) = [check for check in verdict.checks if check.measure == "position"]
    assert (position.scope, position.before, position.after, position.limit) == ("symbol:AAPL", 0.0, 10.0, 500.0)
    assert verdict.raw.account_version > 0


async def test_a_refusal_is_a_verdict_that_is_false(risk: Any) -> None:
    verdict = await risk.sell("AAPL", 2_000, limit_price=100.0)

    assert not verdict
    assert (verdict.quantity, verdict.action, verdict.reason) == (0.0, "REJECT", "ORDER_QUANTITY")
    assert verdict.message and verdict.approval == b""


async def test_terms_reach_the_gateway_as_they_were_said(risk: Any, relay: Relay) -> None:
    await risk.sell(
        "AAPL",
        10,
        stop_price=90.0,
        limit_price=89.5,
        time_in_force="gtc",
        reduce_only=True,
        valid_for_s=1.5,
        client_order_id="mine",
        trader_id="jo",
    )

    (order,) = asked(relay)
    assert (order.account, order.strategy, order.client_order_id, order.trader_id) == (ACCOUNT, "mm", "mine", "jo")
    assert (order.order_type, order.side) == (order_pb2.ORDER_TYPE_STOP_LIMIT, order_pb2.SIDE_SELL)
    assert (order.stop_price, order.limit_price, order.reduce_only) == (90.0, 89.5, True)
    assert order.time_in_force == order_pb2.TIME_IN_FORCE_GTC
    assert order.valid_for.ToMilliseconds() == 1_500


async def test_a_dry_run_reserves_nothing(risk: Any) -> None:
    verdict = await risk.check(risk.order("buy", "AAPL", 10), dry_run=True)

    assert verdict.allowed and (verdict.sequence, verdict.approval) == (0, b"")
    assert (await risk.risk_state()).open_orders == ()


async def test_a_basket_is_answered_leg_by_leg(risk: Any) -> None:
    fine, large = risk.order("buy", "AAPL", 10), risk.order("buy", "MSFT", 2_000)

    apart = await risk.check_orders([fine, large])
    together = await risk.check_orders([risk.order("buy", "AAPL", 10), large_again(risk)], all_or_none=True)

    assert not apart and [leg.allowed for leg in apart.verdicts] == [True, False]
    assert [leg.order for leg in apart.verdicts] == [fine, large]
    assert [leg.reason for leg in together.verdicts] == ["BASKET_LEG_REFUSED", "ORDER_QUANTITY"]
    assert await risk.check_orders([risk.order("buy", "AAPL", 1), risk.order("buy", "MSFT", 1)], all_or_none=True)


def large_again(risk: Any) -> Order:
    order: Order = risk.order("buy", "MSFT", 2_000)
    return order


async def test_what_is_no_side_or_time_in_force_is_refused_before_it_is_sent(risk: Any, relay: Relay) -> None:
    with pytest.raises(ValueError, match="side: expected one of buy, sell, sell_short, got 'long'"):
        await risk.check(risk.order("long", "AAPL", 1))
    with pytest.raises(ValueError, match="time_in_force: expected one of day"):
        await risk.buy("AAPL", 1, time_in_force="forever")

    assert relay.calls == []


# --- retries ---------------------------------------------------------------------------------------------------------


async def test_a_lost_reply_is_asked_for_again_under_the_same_id_and_reserves_once(risk: Any, relay: Relay) -> None:
    relay.fail("CheckOrder", LoseReply())

    verdict = await risk.buy("AAPL", 10, limit_price=100.0)

    assert verdict.allowed and verdict.replayed
    first, second = asked(relay)
    assert first == second and first.client_order_id == verdict.client_order_id
    state = await risk.risk_state()
    assert [order.leaves_quantity for order in state.open_orders] == [10.0]


@pytest.mark.parametrize(
    "fault",
    [Hang(), Refuse(UNAVAILABLE), Refuse(EXHAUSTED, "QUEUE_FULL"), Refuse(grpc.StatusCode.CANCELLED)],
    ids=["hangs", "unavailable", "full", "drained"],
)
async def test_what_passes_by_itself_is_waited_for(risk: Any, relay: Relay, fault: Any) -> None:
    relay.fail("CheckOrder", fault, fault)

    verdict = await risk.buy("AAPL", 10)

    assert verdict.allowed and not verdict.replayed
    assert len({order.client_order_id for order in asked(relay)}) == 1
    assert len(asked(relay)) == 3


async def test_the_gateway_says_when_to_come_again(risk: Any, relay: Relay) -> None:
    relay.fail("CheckOrder", Refuse(EXHAUSTED, "QUEUE_FULL", retry_ms=400))

    verdict = await risk.buy("AAPL", 10)

    assert verdict.allowed
    assert 0.4 <= relay.calls[1][2] - relay.calls[0][2] < QUICK.deadline_s
    assert max(relay.allowed_s) == pytest.approx(QUICK.attempt_s, abs=0.1)  # each attempt has a limit of its own

    relay.fail("CheckOrder", Refuse(EXHAUSTED, "QUEUE_FULL", retry_ms=60_000))
    with pytest.raises(CallFailed) as failed:
        await risk.buy("AAPL", 10)
    assert not isinstance(failed.value, OutcomeUnknown)
    assert failed.value.code is EXHAUSTED and len(relay.calls) == 3  # a minute is past the deadline: not tried again


async def test_a_deadline_without_an_answer_leaves_the_outcome_unknown_and_the_id_finds_out(
    risk: Any, relay: Relay
) -> None:
    relay.fail("CheckOrder", LoseReply(), *[Refuse(UNAVAILABLE)] * 500)
    order = risk.order("buy", "AAPL", 10, limit_price=100.0)

    with pytest.raises(OutcomeUnknown) as unknown:
        await risk.check(order)
    relay.heal()
    found = await risk.check(order)

    assert unknown.value.client_order_id == order.client_order_id
    assert "reservation may exist" in str(unknown.value) and order.client_order_id in str(unknown.value)
    assert found.allowed and found.replayed


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
async def test_a_refused_call_is_not_tried_again(risk: Any, relay: Relay, code: grpc.StatusCode) -> None:
    relay.fail("CheckOrder", Refuse(code))

    with pytest.raises(CallFailed) as failed:
        await risk.buy("AAPL", 10)

    assert failed.value.code is code and not isinstance(failed.value, OutcomeUnknown)
    assert len(relay.calls) == 1


async def test_a_malformed_order_names_its_fields(risk: Any) -> None:
    with pytest.raises(CallFailed) as failed:
        await risk.buy("AAPL", float("nan"), account="")

    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {field for field, _ in failed.value.fields} == {"order.account", "order.quantity"}
    assert failed.value.reason == "MALFORMED" and "order.quantity" in str(failed.value)


async def test_an_id_used_for_another_order_says_so(risk: Any) -> None:
    await risk.buy("AAPL", 10, client_order_id="twice")

    with pytest.raises(CallFailed, match="'twice' was used for another order") as failed:
        await risk.buy("AAPL", 11, client_order_id="twice")
    assert failed.value.reason == "ORDER_ID_REUSED"


async def test_nobody_there_is_said_as_such(gateway: Served, folder: Any) -> None:
    patience = Patience(deadline_s=0.3, backoff_first_s=0.01, backoff_max_s=0.02)
    with (
        RiskClient(f"unix:{folder / 'nobody'}", account=ACCOUNT, patience=patience) as client,
        pytest.raises(CallFailed, match=r"nobody answers at unix:.*, nothing was sent") as failed,
    ):
        await Threaded(client).buy("AAPL", 10)

    assert not isinstance(failed.value, OutcomeUnknown)


@pytest.mark.parametrize("address", ["localhost", "http://localhost:50051"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match=f"expected the gateway's address as HOST:PORT or unix:PATH, got '{address}'"):
        RiskClient(address)


async def test_the_token_goes_with_every_call(relay: Relay) -> None:
    with RiskClient(relay.address, account=ACCOUNT, token="secret", metadata=[("desk", "7")]) as client:
        await Threaded(client).risk_state()

    assert {"authorization": "Bearer secret", "desk": "7"}.items() <= relay.metadata[0].items()


async def test_an_address_that_no_name_server_knows_leaves_nothing_unknown(gateway: Served) -> None:
    patience = Patience(deadline_s=0.3, backoff_first_s=0.01, backoff_max_s=0.02)
    with (
        RiskClient("no.such.host..:1", account=ACCOUNT, patience=patience) as client,
        pytest.raises(CallFailed, match=r"no\.such\.host\.\.:1 can't be reached, nothing was sent") as failed,
    ):
        await Threaded(client).buy("AAPL", 10)

    assert not isinstance(failed.value, OutcomeUnknown)


async def test_a_client_closed_meanwhile_leaves_the_outcome_unknown_and_asks_nothing_more(
    risk: Any, relay: Relay, desk: AsyncRiskClient, blocking: RiskClient
) -> None:
    hold = Hold()
    relay.fail("CheckOrder", hold)
    asking = asyncio.create_task(risk.buy("AAPL", 10))
    await hold.replied.wait()

    await desk.aclose()
    await asyncio.to_thread(blocking.close)

    with pytest.raises(OutcomeUnknown, match="client is closed"):
        await asking
    with pytest.raises(CallFailed, match="client is closed") as failed:
        await risk.buy("AAPL", 10)
    assert not isinstance(failed.value, OutcomeUnknown) and len(relay.requests("CheckOrder")) == 1


# --- reports ---------------------------------------------------------------------------------------------------------


async def test_a_report_that_was_lost_is_told_again_and_counts_once(risk: Any, relay: Relay) -> None:
    verdict = await risk.buy("AAPL", 10, limit_price=100.0)
    relay.fail("ReportExecution", LoseReply())

    reported = await risk.report_fill(verdict, 4, 99.5, cumulative_quantity=4, leaves_quantity=6, fee=0.1)

    state = await risk.risk_state()
    assert reported.duplicate and reported.flags == ()
    assert [(p.symbol, p.quantity, p.average_cost) for p in state.positions] == [("AAPL", 4.0, 99.5)]
    assert [(order.state, order.leaves_quantity) for order in state.open_orders] == [("PARTIAL", 6.0)]


async def test_a_fill_told_twice_under_the_venues_id_counts_once(risk: Any) -> None:
    verdict = await risk.buy("AAPL", 10, limit_price=100.0)

    told = [await risk.report_fill(verdict, 4, 99.5, execution_id="venue-1") for _ in range(2)]

    assert [reported.duplicate for reported in told] == [False, True]
    assert [position.quantity for position in (await risk.risk_state()).positions] == [4.0]


@pytest.mark.parametrize("told", ["cancelled", "rejected", "expired", "not_sent"])
async def test_each_end_of_an_order_releases_it(risk: Any, told: str) -> None:
    verdict = await risk.buy("AAPL", 10, limit_price=100.0)
    await risk.report_working(verdict)
    await risk.report_cancel_requested(verdict)
    held = await risk.risk_state()

    await getattr(risk, f"report_{told}")(verdict.client_order_id, text="by the venue")

    assert [order.state for order in held.open_orders] == ["CANCEL_REQUESTED"]
    assert (await risk.risk_state()).open_orders == ()


async def test_reports_go_in_one_call_and_say_what_is_odd(risk: Any) -> None:
    verdict = await risk.buy("AAPL", 10, limit_price=100.0)
    fill = Report("fill", ACCOUNT, "unheard-of", "exec-1", 3, 101.0, strategy="mm", symbol="AAPL", side="buy")

    first, again = await risk.report([fill, fill])

    assert (first.duplicate, first.flags) == (False, ("ORDER_UNKNOWN",)) and first.message
    assert again.duplicate and again.execution_id == "exec-1"
    assert verdict.allowed and (await risk.risk_state()).trading_state == "REDUCE_ONLY"


async def test_an_execution_time_without_a_zone_is_refused(risk: Any) -> None:
    with pytest.raises(ValueError, match="execution_time: expected a datetime with a time zone"):
        await risk.report_fill("some", 1, 1.0, execution_time=datetime(2024, 1, 1))


# --- stops -----------------------------------------------------------------------------------------------------------


async def test_a_stop_lists_what_is_open_and_a_resume_lifts_it(risk: Any) -> None:
    held = await risk.buy("AAPL", 10, limit_price=100.0)

    stopped = await risk.stop_all("drill", account=ACCOUNT)
    refused = await risk.buy("AAPL", 1)
    state = await risk.risk_state()
    resumed = await risk.resume("drill is over", account=ACCOUNT)
    passed = await risk.buy("AAPL", 1)

    assert stopped.trading_state == "HALTED" and stopped.epoch > held.epoch
    assert [order.client_order_id for order in stopped.open_orders] == [held.client_order_id]
    assert (refused.action, refused.reason) == ("HALT", "TRADING_HALTED")
    assert [(cause.trading_state, cause.origin, cause.reason) for cause in state.causes] == [
        ("HALTED", "STOP", "drill")
    ]
    assert resumed.epoch > stopped.epoch and (resumed.trading_state, resumed.causes) == ("ACTIVE", ())
    assert passed.allowed


async def test_a_retry_across_a_stop_is_not_approved_and_says_what_was(risk: Any) -> None:
    order = risk.order("buy", "AAPL", 10, limit_price=100.0)
    first = await risk.check(order)
    await risk.stop_all(account=ACCOUNT)

    again = await risk.check(order)

    assert first.allowed and not again
    assert again.reason == "SUPERSEDED_BY_STOP"
    assert again.prior is not None and (again.prior.approved, again.prior.sequence) == (True, first.sequence)


async def test_a_stop_of_a_trader_stops_that_trader_and_a_heartbeat_tells_the_state(risk: Any) -> None:
    await risk.stop_all("late", trader="jo")
    refused = await risk.buy("AAPL", 10, limit_price=100.0, trader_id="jo")
    allowed = await risk.buy("AAPL", 10, limit_price=100.0, trader_id="al")
    await risk.resume("back", account="", trader="jo")
    again = await risk.buy("AAPL", 10, limit_price=100.0, trader_id="jo")
    alive = await risk.heartbeat()
    await risk.stop_all("enough")

    assert (refused.reason, bool(allowed), bool(again)) == ("TRADING_HALTED", True, True)
    assert (alive, await risk.heartbeat()) == ("ACTIVE", "HALTED")


async def test_headroom_is_told_for_both_sides(risk: Any) -> None:
    await risk.report_fill(await risk.buy("AAPL", 100), 100, 100.0)

    (aapl,) = await risk.headroom(["AAPL"])
    held = await risk.headroom()

    assert (aapl.symbol, aapl.max_buy, aapl.max_sell) == ("AAPL", 400.0, 600.0)
    assert (aapl.binding_buy, aapl.buy_reason) == ("position@symbol:AAPL", "POSITION")
    assert aapl.sequence > 0 and [row.symbol for row in held] == ["AAPL"]


async def test_a_reduce_only_stop_says_its_state(risk: Any, backend: Backend) -> None:
    stopped = await risk.stop_all("careful", account=ACCOUNT, symbol="AAPL", mode="reduce_only")

    assert stopped.trading_state == "REDUCE_ONLY"
    assert (await risk.buy("AAPL", 1)).reason == "REDUCE_ONLY"
    assert await risk.buy("MSFT", 1)


async def test_a_resume_whose_reply_was_lost_does_not_lift_a_stop_made_since(
    relay: Relay, control: Served, desk: AsyncRiskClient
) -> None:
    """It has no id by which the gateway could know it again, so it is not sent again."""
    await desk.stop_all("drill", account=ACCOUNT)
    hold = Hold()
    relay.fail("Resume", hold)
    patience = Patience(deadline_s=0.5, stop_deadline_s=0.5, attempt_s=0.2, backoff_first_s=0.01, backoff_max_s=0.02)

    async with AsyncRiskClient(relay.address, account=ACCOUNT, patience=patience) as client:
        resuming = asyncio.create_task(client.resume("drill is over", account=ACCOUNT))
        await hold.replied.wait()
        await desk.stop_all("this one is real", account=ACCOUNT)
        with pytest.raises(OutcomeUnknown, match="look at the trading state before you ask again"):
            await resuming

    state = await desk.risk_state()
    assert (state.trading_state, [cause.reason for cause in state.causes]) == ("HALTED", ["this one is real"])


async def test_a_resume_that_nobody_heard_is_tried_again(risk: Any, relay: Relay) -> None:
    await risk.stop_all("drill", account=ACCOUNT)
    with RiskClient(relay.address, account=ACCOUNT, patience=QUICK) as client:
        relay.fail("Resume", Refuse(EXHAUSTED, "QUEUE_FULL"))

        resumed = await Threaded(client).resume("drill is over", account=ACCOUNT)

    assert resumed.trading_state == "ACTIVE"
