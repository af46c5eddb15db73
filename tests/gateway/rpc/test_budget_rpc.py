"""AdjustBudget and GetBudget over real servers: an operator's loan, what it does to an order, and how it is told."""

from pathlib import Path

import grpc
import grpc.aio
import pytest

from engine.limits import Limit, LimitSet, ScopeKind
from gateway.registry import arm_limits
from gateway.rpc.backend import Backend
from gateway.rpc.convert.budget import budget_inquiry
from gateway.rpc.convert.budget_loans import lending_of
from gateway.rpc.convert.form import Invalid
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import risk_admin_pb2, risk_analytics_pb2
from tests.gateway.rpc.analysing import analysing
from tests.gateway.rpc.serving import ACCOUNT, LIMITS, Served

SHARES = (
    Limit("risk_budget", ScopeKind.STRATEGY, 0.3, match="one"),
    Limit("risk_budget", ScopeKind.STRATEGY, 0.1, match="two"),
)


def lending(**fields: object) -> risk_admin_pb2.AdjustBudgetRequest:
    asked = {"account": ACCOUNT, "loan_id": "L1", "from_strategy": "one", "to_strategy": "two", "share": 0.2}
    return risk_admin_pb2.AdjustBudgetRequest(**(asked | {"reason": "a quiet week"} | fields))  # type: ignore[arg-type]


@pytest.fixture
async def shared(backend: Backend, gateway: Served, control: Served) -> Served:
    """Control, with the account open and budgets armed."""
    await arm_limits(backend.log, LimitSet((*LIMITS.rows, *SHARES), LIMITS.policy))
    return control


async def test_a_loan_is_recorded_once(shared: Served) -> None:
    first = await shared.admin.AdjustBudget(lending())
    again = await shared.admin.AdjustBudget(lending())

    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.sequence == first.sequence


async def test_a_loan_stands_in_the_fold_with_who_and_why(shared: Served, backend: Backend) -> None:
    until_us = backend.accounts.clock.now_us() + 3_600_000_000
    await shared.admin.AdjustBudget(lending(end_time=timestamp(until_us)))

    reading = await backend.accounts.read(ACCOUNT, until_us)
    (loan,) = reading.state.loans

    assert (loan.giver, loan.taker, loan.share, loan.until_us, loan.reason) == (
        "one",
        "two",
        0.2,
        until_us,
        "a quiet week",
    )
    assert loan.actor


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"share": 0.31}, grpc.StatusCode.FAILED_PRECONDITION, "has 0.3000 to lend"),
        ({"from_strategy": "three"}, grpc.StatusCode.FAILED_PRECONDITION, "no risk_budget limit"),
        ({"share": 1.5}, grpc.StatusCode.INVALID_ARGUMENT, "from 0 to 1"),
        ({"to_strategy": "one"}, grpc.StatusCode.INVALID_ARGUMENT, "expected another strategy"),
        ({"reason": ""}, grpc.StatusCode.INVALID_ARGUMENT, "reason"),
        ({"account": "NOBODY"}, grpc.StatusCode.NOT_FOUND, "NOBODY"),
    ],
)
async def test_what_cannot_be_lent_is_refused(
    shared: Served, fields: dict[str, object], code: grpc.StatusCode, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shared.admin.AdjustBudget(lending(**fields))

    assert refused.value.code() is code
    assert said in (refused.value.details() or "")


async def test_without_a_model_the_budget_is_not_known(backend: Backend, gateway: Served, folder: Path) -> None:
    async with analysing(backend, folder):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.analytics.GetBudget(risk_analytics_pb2.GetBudgetRequest(account=ACCOUNT))

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "no risk model" in (refused.value.details() or "")


def test_contributions_are_checked_one_by_one() -> None:
    request = risk_analytics_pb2.GetBudgetRequest(
        contributions=[
            risk_analytics_pb2.RiskContribution(strategy="one", component=float("nan")),
            risk_analytics_pb2.RiskContribution(strategy="one", component=1.0),
        ]
    )

    with pytest.raises(Invalid) as caught:
        budget_inquiry(request)

    assert [field for field, _ in caught.value.violations] == [
        "account",
        "contributions[0].component",
        "contributions[1].strategy",
    ]


def test_every_fault_of_a_loan_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        lending_of(lending(account="", loan_id="", from_strategy="", to_strategy="", share=-1.0, reason=""), "ops")

    assert [field for field, _ in caught.value.violations] == [
        "account",
        "loan_id",
        "from_strategy",
        "to_strategy",
        "share",
        "reason",
    ]
