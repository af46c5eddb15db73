"""An approval that must not be acted on any more never comes out as one: overtaken by a stop, expired, or not ours."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import AsyncRiskClient, Patience, RiskError, StateChange, Verdict, World
from gateway.client.attempts import Asked
from gateway.client.desk import Desk
from gateway.log.account_log import partition_of
from riskgateway.v1 import control_pb2, decision_pb2, risk_gateway_pb2
from tests.gateway.client.relay import Hold, LoseReply, Relay
from tests.gateway.rpc.serving import ACCOUNT, Served, opening

DECIDED = datetime(2024, 1, 2, 15, 0, tzinfo=UTC)


class Clocks:
    """Two clocks that a test turns together."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.wall_ahead_s = 0.0

    def world(self) -> World:
        return World(monotonic_s=lambda: self.now_s, wall_s=lambda: DECIDED.timestamp() + self.wall())

    def wall(self) -> float:
        return self.now_s - 1_000.0 + self.wall_ahead_s


def desk_at(clocks: Clocks) -> Desk:
    return Desk("ALPHA", "mm", "", Patience(), clocks.world())


def stamp(moment: datetime) -> Timestamp:
    stamped = Timestamp()
    stamped.FromDatetime(moment.replace(tzinfo=None))
    return stamped


def approval(
    of: str, epoch: int, quantity: float = 10.0, valid_s: float | None = None, replayed: bool = False
) -> risk_gateway_pb2.CheckOrderResponse:
    return risk_gateway_pb2.CheckOrderResponse(
        client_order_id=of,
        action=decision_pb2.ACTION_ALLOW,
        allowed=True,
        allowed_quantity=quantity,
        reason=decision_pb2.REASON_NONE,
        stop_epoch=epoch,
        approval=b"token",
        sequence=7,
        replayed=replayed,
        decide_time=stamp(DECIDED),
        valid_until=None if valid_s is None else stamp(DECIDED + timedelta(seconds=valid_s)),
    )


def verdict_at(desk: Desk, response: risk_gateway_pb2.CheckOrderResponse, asked_s: float = 1_000.0) -> Verdict:
    order = desk.order("buy", "AAPL", 10, client_order_id=response.client_order_id)
    return desk.verdict(order, response, Asked(asked_s))


# --- the rules -------------------------------------------------------------------------------------------------------


def test_an_approval_of_the_newest_epoch_stands() -> None:
    desk = desk_at(Clocks())
    desk.freshness.saw("ALPHA", 5)

    assert verdict_at(desk, approval("a", 5)).allowed
    assert verdict_at(desk, approval("b", 6)).allowed


def test_an_approval_of_an_older_epoch_is_dropped_and_says_why() -> None:
    desk = desk_at(Clocks())
    desk.freshness.saw("ALPHA", 5)

    verdict = verdict_at(desk, approval("a", 4))

    assert not verdict
    assert (verdict.quantity, verdict.approval, verdict.action, verdict.reason) == (0.0, b"", "DROPPED", "DROPPED")
    assert "epoch 4" in verdict.dropped_because and "epoch 5" in verdict.dropped_because
    assert "reported as not sent" in verdict.message
    assert verdict.raw.approval == b"token" and verdict.sequence == 7


def test_every_answer_tells_of_its_epoch() -> None:
    desk = desk_at(Clocks())
    refusal = approval("a", 9)
    refusal.allowed, refusal.action = False, decision_pb2.ACTION_HALT
    verdict_at(desk, refusal)

    assert not verdict_at(desk, approval("b", 8))


def test_epochs_of_different_accounts_do_not_compare() -> None:
    desk = desk_at(Clocks())
    desk.freshness.saw("BETA", 50)

    assert verdict_at(desk, approval("a", 5)).allowed


def test_a_stop_of_everything_drops_what_was_asked_before_it_and_nothing_after() -> None:
    clocks = Clocks()
    desk = desk_at(clocks)
    clocks.now_s = 1_001.0
    desk.freshness.saw_of_all(9)

    assert not verdict_at(desk, approval("a", 8), asked_s=1_000.5)
    assert verdict_at(desk, approval("b", 8), asked_s=1_001.5).allowed  # another account's epoch was the highest


def test_an_approval_held_goes_when_a_stop_is_seen_or_its_time_is_up() -> None:
    clocks = Clocks()
    desk = desk_at(clocks)
    verdict = verdict_at(desk, approval("a", 5, valid_s=2.0))
    assert desk.freshness.as_of_now(verdict) is verdict

    clocks.now_s = 1_001.999
    assert desk.freshness.as_of_now(verdict).allowed
    clocks.now_s = 1_002.0
    assert "held for 2 s" in desk.freshness.as_of_now(verdict).dropped_because

    clocks.now_s = 1_000.0
    desk.freshness.saw("ALPHA", 6)
    assert not desk.freshness.as_of_now(verdict)


def test_an_approval_that_took_longer_than_it_holds_is_dropped() -> None:
    clocks = Clocks()
    clocks.now_s = 1_003.0

    assert not verdict_at(desk_at(clocks), approval("a", 5, valid_s=3.0), asked_s=1_000.0)


def test_a_replay_from_before_this_call_is_judged_by_the_wall_clock() -> None:
    clocks = Clocks()
    clocks.wall_ahead_s = 60.0

    assert verdict_at(desk_at(clocks), approval("a", 5, valid_s=30.0)).allowed  # decided in this call: our clock is off
    replayed = verdict_at(desk_at(clocks), approval("a", 5, valid_s=30.0, replayed=True))
    assert "made before" in replayed.dropped_because


@pytest.mark.parametrize("quantity", [10.5, 0.0, -1.0, float("nan"), float("inf")])
def test_a_quantity_that_is_no_part_of_what_was_asked_for_is_dropped(quantity: float) -> None:
    assert not verdict_at(desk_at(Clocks()), approval("a", 5, quantity))


def test_the_answer_to_another_order_is_no_answer() -> None:
    desk = desk_at(Clocks())

    with pytest.raises(RiskError, match="asked about order 'a', got an answer about 'b'"):
        desk.verdict(desk.order("buy", "AAPL", 10, client_order_id="a"), approval("b", 5), Asked(1_000.0))


def test_a_dropped_leg_takes_an_all_or_none_basket_with_it() -> None:
    clocks = Clocks()
    desk = desk_at(clocks)
    orders = [desk.order("buy", "AAPL", 10, client_order_id=name) for name in ("a", "b")]
    response = risk_gateway_pb2.CheckOrdersResponse(responses=[approval("a", 5), approval("b", 5, quantity=11.0)])

    together = desk.check_orders(orders, False, True, False, "all").read(response, Asked(1_000.0))
    apart = desk.check_orders(orders, False, False, False, "all").read(response, Asked(1_000.0))

    assert [leg.allowed for leg in together.verdicts] == [False, False]
    assert "leg b of the basket" in together.verdicts[0].dropped_because
    assert [leg.allowed for leg in apart.verdicts] == [True, False]
    assert not together and not apart


@given(st.lists(st.tuples(st.sampled_from(["saw", "asked"]), st.integers(0, 6)), max_size=30))
def test_no_approval_under_the_newest_epoch_ever_comes_out(events: list[tuple[str, int]]) -> None:
    desk, newest = desk_at(Clocks()), 0
    for what, epoch in events:
        newest = max(newest, epoch)
        if what == "saw":
            desk.freshness.saw("ALPHA", epoch)
        else:
            assert verdict_at(desk, approval("a", epoch)).allowed == (epoch == newest)


# --- on the wire -----------------------------------------------------------------------------------------------------


async def seen(client: AsyncRiskClient, state: str) -> None:
    """Returns when the client's stream has told of a change to this trading state."""
    async with aclosing(client.follow()) as updates:
        async for update in updates:
            if isinstance(update, StateChange) and update.trading_state == state:
                return


async def test_an_approval_overtaken_by_a_stop_on_the_stream_is_dropped(
    desk: AsyncRiskClient, relay: Relay, control: Served
) -> None:
    """The reply is on its way when an operator stops: the stream is faster, and the approval no longer counts."""
    held = Hold()
    relay.fail("CheckOrder", held)
    following = asyncio.create_task(seen(desk, "HALTED"))
    asking = asyncio.create_task(desk.buy("AAPL", 10, limit_price=100.0))
    await held.replied.wait()

    await control.gateway.StopAll(risk_gateway_pb2.StopAllRequest(account=ACCOUNT))
    await following
    held.release.set()
    verdict = await asking

    assert verdict.raw.allowed and not verdict
    assert "epoch" in verdict.dropped_because


@pytest.mark.parametrize("account", [ACCOUNT, ""], ids=["of-the-account", "of-everything"])
async def test_an_approval_overtaken_by_a_stop_of_ones_own_is_dropped(risk: Any, relay: Relay, account: str) -> None:
    held = Hold()
    relay.fail("CheckOrder", held)
    asking = asyncio.create_task(risk.buy("AAPL", 10, limit_price=100.0))
    await held.replied.wait()

    stopped = await risk.stop_all(account=account)
    held.release.set()
    verdict = await asking
    released = await risk.report_not_sent(verdict)
    state = await risk.risk_state()

    assert not verdict and verdict.raw.allowed and verdict.epoch < stopped.epoch
    assert released.flags == () and state.open_orders == ()


async def test_a_resume_of_everything_lets_every_account_trade_again(risk: Any, backend: Any, control: Served) -> None:
    """Epochs differ by account: that of one may not silence the others."""
    other = next(name for name in map("B{}".format, range(100)) if partition_of(name) != partition_of(ACCOUNT))
    await control.admin.ReportAccountEvent(opening(other))
    for _ in range(3):
        await control.gateway.StopAll(
            risk_gateway_pb2.StopAllRequest(account=other, mode=control_pb2.TRADING_STATE_REDUCE_ONLY)
        )
    await risk.stop_all("everything")
    await risk.resume("all clear", account="")

    assert await risk.buy("AAPL", 1, limit_price=100.0)


async def test_an_approval_is_as_old_as_the_first_attempt_at_it(relay: Relay) -> None:
    """Its reply is lost, and the retry that finds it takes longer than it holds."""
    clocks, held = Clocks(), Hold()
    relay.fail("CheckOrder", LoseReply(), held)
    async with AsyncRiskClient(relay.address, account=ACCOUNT, world=clocks.world()) as client:
        asking = asyncio.create_task(client.buy("AAPL", 10, limit_price=100.0, valid_for_s=3.0))
        await held.replied.wait()
        clocks.now_s += 3.0
        held.release.set()
        verdict = await asking

    assert verdict.raw.allowed and "held for 3 s" in verdict.dropped_because
