"""Proposals of limits over a real server: two people, one arming, never against another set than was shown."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from engine.control import decode_control
from engine.limits import Limit, LimitSet, ScopeKind
from engine.proposals import ProposalRefused
from gateway.log.account_log import PARTITIONS
from gateway.log.memory import MemoryLog
from gateway.proposals import approve_limits, propose_limits, reject_limits
from gateway.registry import Why, arm_limits
from gateway.rpc.caller import known
from riskgateway.v1 import risk_admin_pb2, risk_gateway_pb2
from tests.gateway.faults import AwayInPart, Wrapped
from tests.gateway.rpc.serving import LIMITS, Served, backend_over, open_for_trading, order, served

OLGA, IVAN = "token-o", "token-i"
CALLERS = (
    known("olga", ["operator", "trader", "feed"], OLGA),
    known("ivan", ["operator"], IVAN),
    known("tom", ["trader"], "token-t"),
)


def as_caller(token: str) -> Any:
    return {"metadata": [("authorization", f"Bearer {token}")]}


@pytest.fixture
def store(memory_log: MemoryLog) -> AwayInPart:
    return AwayInPart(memory_log)


@pytest.fixture
async def two(store: AwayInPart, store_clock: list[int], folder: Path) -> AsyncIterator[Served]:
    """A control port where two people change limits, on a machine whose own people are operators too."""
    async with (
        backend_over(store, store_clock, CALLERS) as backend,
        served(dataclasses.replace(backend, two_person=True), folder, control=True) as control,
    ):
        await open_for_trading(control.admin, backend)
        yield control


async def told(control: Served) -> risk_admin_pb2.GetLimitsResponse:
    return await control.admin.GetLimits(risk_admin_pb2.GetLimitsRequest())


async def with_position(control: Served, position: float) -> risk_admin_pb2.ProposeLimitsRequest:
    in_force = await told(control)
    for row in in_force.limits:
        if row.measure == "position":
            row.limit = position
    return risk_admin_pb2.ProposeLimitsRequest(
        limits=in_force.limits, expected_limit_set=in_force.limit_set, reason="desk asked"
    )


async def propose(control: Served, position: float, token: str = OLGA) -> risk_admin_pb2.LimitProposal:
    request = await with_position(control, position)
    return (await control.admin.ProposeLimits(request, **as_caller(token))).proposal


def approving(proposal_id: str) -> risk_admin_pb2.ApproveLimitsRequest:
    return risk_admin_pb2.ApproveLimitsRequest(proposal_id=proposal_id, reason="looks right")


def rejecting(proposal_id: str) -> risk_admin_pb2.RejectLimitsRequest:
    return risk_admin_pb2.RejectLimitsRequest(proposal_id=proposal_id, reason="not now")


async def listed(control: Served) -> risk_admin_pb2.ListProposalsResponse:
    return await control.admin.ListProposals(risk_admin_pb2.ListProposalsRequest())


async def armed_in(control: Served) -> list[str]:
    return [decode_control(stored.state).limit_set for stored in await control.backend.log.read_controls()]


async def position_in_force(control: Served) -> float:
    return next(row.limit for row in (await told(control)).limits if row.measure == "position")


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """How a call ends. Asserted on where servers have ended: one that a failure leaves behind would hang the test."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_proposal_arms_nothing_until_another_person_approves_it(two: Served) -> None:
    before = await told(two)

    made = await propose(two, 450.0)
    waiting = await armed_in(two)
    answer = await two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN))

    assert waiting == [before.limit_set] * PARTITIONS
    assert (made.state, made.actor, made.base_limit_set) == (
        risk_admin_pb2.PROPOSAL_STATE_OPEN,
        "olga",
        before.limit_set,
    )
    (change,) = made.changes
    assert (change.previous.limit, change.limit.limit, change.loosened, made.loosened) == (500.0, 450.0, False, False)
    assert await armed_in(two) == [made.limit_set] * PARTITIONS
    assert (answer.proposal.state, answer.proposal.decided_by) == (risk_admin_pb2.PROPOSAL_STATE_APPROVED, "ivan")
    assert answer.acknowledged_partitions == PARTITIONS
    assert answer.proposal.stop_epoch == (await told(two)).stop_epoch


async def test_it_binds_orders_on_a_gateway_once_approved(two: Served, folder: Path) -> None:
    made = await propose(two, 450.0)
    async with served(two.backend, folder) as gateway:
        waiting = await allowed(gateway, "A", 451.0)
        await two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN))
        after = await allowed(gateway, "B", 1.0)

    assert (waiting, after) == (True, False)


async def allowed(gateway: Served, client_order_id: str, quantity: float) -> bool:
    request = risk_gateway_pb2.CheckOrderRequest(order=order(client_order_id, quantity))
    return (await gateway.gateway.CheckOrder(request)).allowed


async def test_nobody_changes_limits_alone(two: Served) -> None:
    made = await propose(two, 600.0)
    one = risk_admin_pb2.UpdateLimitsRequest()
    update = await with_position(two, 450.0)
    for field in ("limits", "expected_limit_set", "reason"):
        one.MergeFrom(risk_admin_pb2.UpdateLimitsRequest(**{field: getattr(update, field)}))

    codes = [
        await code_of(two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(OLGA))),
        await code_of(two.admin.ApproveLimits(approving(made.proposal_id))),
        await code_of(two.admin.ProposeLimits(await with_position(two, 450.0))),
        await code_of(two.admin.UpdateLimits(one, **as_caller(OLGA))),
    ]

    denied, precondition = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION
    assert codes == [denied, denied, denied, precondition]
    assert made.loosened
    assert await position_in_force(two) == 500.0
    one.validate_only = True
    assert len((await two.admin.UpdateLimits(one, **as_caller(OLGA))).changes) == 1


async def test_a_refused_update_names_what_to_use(two: Served) -> None:
    update = await with_position(two, 450.0)
    one = risk_admin_pb2.UpdateLimitsRequest(
        limits=update.limits, expected_limit_set=update.expected_limit_set, reason="quick"
    )

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await two.admin.UpdateLimits(one, **as_caller(OLGA))

    assert "ProposeLimits" in (refused.value.details() or "")


async def test_of_two_proposals_from_one_set_the_second_is_aborted(two: Served) -> None:
    first, second = await propose(two, 450.0), await propose(two, 600.0)
    await two.admin.ApproveLimits(approving(first.proposal_id), **as_caller(IVAN))

    code = await code_of(two.admin.ApproveLimits(approving(second.proposal_id), **as_caller(IVAN)))

    assert code is grpc.StatusCode.ABORTED
    assert await position_in_force(two) == 450.0
    kept = await listed(two)
    assert [one.proposal_id for one in kept.proposals] == [second.proposal_id, first.proposal_id]
    assert (kept.limit_set, kept.two_person) == (first.limit_set, True)


async def test_what_was_rejected_is_not_armed_and_the_proposer_may_take_it_back(two: Served) -> None:
    made = await propose(two, 450.0)

    aside = await two.admin.RejectLimits(rejecting(made.proposal_id), **as_caller(OLGA))
    again = await two.admin.RejectLimits(rejecting(made.proposal_id), **as_caller(OLGA))
    code = await code_of(two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN)))

    assert aside.proposal.state == again.proposal.state == risk_admin_pb2.PROPOSAL_STATE_REJECTED
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert await position_in_force(two) == 500.0


async def test_approving_again_after_a_partition_was_away_arms_the_rest(two: Served, store: AwayInPart) -> None:
    made = await propose(two, 450.0)
    store.away = {7, 8}
    first = await code_of(two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN)))
    store.away = set()

    answer = await two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN))

    assert first is grpc.StatusCode.UNAVAILABLE
    assert await armed_in(two) == [made.limit_set] * PARTITIONS
    assert answer.proposal.decided_by == "ivan"


class Overtaken(Wrapped):
    """Somebody rejects a proposal right before its approval is settled."""

    proposal_id = ""

    async def advance_controls(self, *arguments: Any) -> Any:
        if self.proposal_id:
            name, self.proposal_id = self.proposal_id, ""
            await reject_limits(self._log, name, Why("tess", "faster"))
        return await self._log.advance_controls(*arguments)


async def test_what_is_rejected_while_it_is_approved_is_not_armed(memory_log: MemoryLog) -> None:
    log = Overtaken(memory_log)
    before = await arm_limits(log, LIMITS)
    rows = (Limit("leverage", ScopeKind.ACCOUNT, 1.0),)
    made = await propose_limits(log, rows, None, before, Why("olga", "desk asked"))
    log.proposal_id = made.proposal.id

    with pytest.raises(ProposalRefused, match="rejected by tess"):
        await approve_limits(log, made.proposal.id, Why("ivan", "fine"), two_person=True)

    assert {decode_control(stored.state).limit_set for stored in await memory_log.read_controls()} == {before}


async def test_proposing_the_same_again_is_one_proposal(two: Served) -> None:
    first, again = await propose(two, 450.0), await propose(two, 450.0)

    assert first == again
    assert len((await listed(two)).proposals) == 1


async def test_what_is_said_beside_the_rows_is_proposed_too(two: Served) -> None:
    request, policy = await with_position(two, 500.0), (await told(two)).policy
    policy.market_slippage = 0.25
    request.policy.CopyFrom(policy)

    made = (await two.admin.ProposeLimits(request, **as_caller(OLGA))).proposal
    await two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN))

    assert list(made.policy_changes) == ["market_slippage 0.01 → 0.25"]
    assert (await told(two)).policy.market_slippage == 0.25


NOTHING_PROPOSED = [
    ("unchanged", {}, grpc.StatusCode.FAILED_PRECONDITION),
    ("another set in force", {"expected_limit_set": "f" * 32}, grpc.StatusCode.ABORTED),
    ("no reason", {"reason": ""}, grpc.StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("what", "fields", "code"), NOTHING_PROPOSED, ids=[one[0] for one in NOTHING_PROPOSED])
async def test_what_can_t_be_proposed_is_refused(
    two: Served, what: str, fields: dict[str, str], code: grpc.StatusCode
) -> None:
    request = await with_position(two, 500.0)
    for name, value in fields.items():
        setattr(request, name, value)

    assert await code_of(two.admin.ProposeLimits(request, **as_caller(OLGA))) is code
    assert not (await listed(two)).proposals


async def test_a_bad_row_is_named_and_nothing_waits(two: Served) -> None:
    request = await with_position(two, 450.0)
    request.limits[0].warn = request.limits[0].limit + 1

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await two.admin.ProposeLimits(request, **as_caller(OLGA))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "limits[0].warn" in (refused.value.details() or "")
    assert not (await listed(two)).proposals


async def test_an_unknown_proposal_is_not_found(two: Served) -> None:
    for call in (
        two.admin.ApproveLimits(approving("nobody"), **as_caller(IVAN)),
        two.admin.RejectLimits(rejecting("nobody"), **as_caller(IVAN)),
    ):
        assert await code_of(call) is grpc.StatusCode.NOT_FOUND


async def test_where_one_person_will_do_the_same_one_approves(gateway: Served, control: Served) -> None:
    made = (await control.admin.ProposeLimits(await with_position(control, 450.0))).proposal

    answer = await control.admin.ApproveLimits(approving(made.proposal_id))

    assert answer.proposal.decided_by == answer.proposal.actor == "local"
    assert await position_in_force(control) == 450.0


async def test_the_history_tells_each_arming_with_who_proposed_and_who_approved(two: Served) -> None:
    seeded = (await told(two)).limit_set
    made = await propose(two, 450.0)
    await two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN))
    await arm_limits(two.backend.log, LIMITS, "file")

    history = (await two.admin.ListLimitSets(risk_admin_pb2.ListLimitSetsRequest())).armings
    (last,) = (await two.admin.ListLimitSets(risk_admin_pb2.ListLimitSetsRequest(page_size=1))).armings

    assert [(one.limit_set, one.previous_limit_set, one.actor, one.proposed_by) for one in history] == [
        (seeded, "", "configuration", ""),
        (made.limit_set, seeded, "ivan", "olga"),
        (seeded, made.limit_set, "configuration", ""),
    ]
    assert (history[1].proposal_id, history[1].reason) == (made.proposal_id, "looks right")
    assert history[1].arm_time.seconds > 0 and history[1].stop_epoch > history[0].stop_epoch
    assert last == history[2]


async def test_a_set_is_told_by_its_hash_armed_or_not(two: Served) -> None:
    made = await propose(two, 450.0)
    by_hash = risk_admin_pb2.GetLimitsRequest(limit_set=made.limit_set)

    found = await two.admin.GetLimits(by_hash)
    by_hash.account = "ALPHA"

    assert next(row.limit for row in found.limits if row.measure == "position") == 450.0
    assert await code_of(two.admin.GetLimits(by_hash)) is grpc.StatusCode.INVALID_ARGUMENT
    state = decode_control((await two.backend.log.read_control(0)).state)
    for other in ("f" * 32, state.instrument_set):
        request = risk_admin_pb2.GetLimitsRequest(limit_set=other)
        assert await code_of(two.admin.GetLimits(request)) is grpc.StatusCode.NOT_FOUND


async def test_a_proposal_outlives_whatever_else_control_does(two: Served) -> None:
    """Another arming, a stop, instruments: all of them write the control state that it stands in."""
    made = await propose(two, 450.0)

    await arm_limits(two.backend.log, LimitSet((Limit("leverage", ScopeKind.ACCOUNT, 1.0),)))
    await two.gateway.StopAll(risk_gateway_pb2.StopAllRequest(reason="test"))
    await arm_limits(two.backend.log, LIMITS)
    await two.admin.ApproveLimits(approving(made.proposal_id), **as_caller(IVAN))

    assert await position_in_force(two) == 450.0
    assert decode_control((await two.backend.log.read_control(5)).state).stops
