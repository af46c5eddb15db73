"""GetBudget's request and answer. Every violation of a request is collected and named by its field.

Whether a strategy is one of the account's the analyst knows. Loans are asked for in budget_loans.py.
"""

from engine.limits import ScopeKind
from engine.measures.measure import strategy_name
from engine.records import BudgetLent
from engine.risk.budget_answers import BudgetAnswer, BudgetInquiry, BudgetLine
from gateway.rpc.convert.analytics import stamp_message
from gateway.rpc.convert.form import Form
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import risk_analytics_pb2

CONTRIBUTIONS_MAX = 1_000


def budget_inquiry(request: risk_analytics_pb2.GetBudgetRequest) -> BudgetInquiry:
    form = Form()
    account = form.name("account", request.account)
    form.count("contributions", len(request.contributions), 0, CONTRIBUTIONS_MAX)
    given: dict[str, float] = {}
    for index, one in enumerate(request.contributions):
        entry = form.at("contributions", index)
        strategy = entry.name("strategy", one.strategy, required=False)
        if strategy in given:
            entry.wrong("strategy", "expected another than those before it")
        given[strategy] = entry.signed("component", one.component)
    form.done()
    return BudgetInquiry(account, given or None)


def budget_response(answer: BudgetAnswer) -> risk_analytics_pb2.GetBudgetResponse:
    total = answer.account
    return risk_analytics_pb2.GetBudgetResponse(
        stamp=stamp_message(answer.stamp),
        strategies=[
            risk_analytics_pb2.StrategyBudget(
                strategy=one.name, component=one.component, allocated=one.allocated, line=_line(one)
            )
            for one in answer.strategies
        ],
        var_limit=answer.var_limit,
        allocated=total.allocated,
        available=max(0.0, 1.0 - total.allocated),
        measure=f"var_{answer.confidence * 100:g}",
        total=_line(total),
        asset_classes=[_line(one) for one in answer.asset_classes],
        positions=[_line(one) for one in answer.positions],
        loans=[_loan(one) for one in answer.loans],
        confidence=answer.confidence,
        headroom_min=answer.headroom_min,
    )


def _line(line: BudgetLine) -> risk_analytics_pb2.BudgetLine:
    name = strategy_name(line.name) if line.kind is ScopeKind.STRATEGY else line.name
    return risk_analytics_pb2.BudgetLine(
        scope=f"{line.kind.value}:{name}",
        component=line.component,
        allocated=line.allocated,
        share=line.share,
        borrowed=line.borrowed,
        available=line.available,
        utilization=line.utilisation,
        can_add_risk=line.can_add_risk,
        paused=line.paused,
    )


def _loan(loan: BudgetLent) -> risk_analytics_pb2.BudgetLoan:
    return risk_analytics_pb2.BudgetLoan(
        loan_id=loan.loan_id,
        from_strategy=loan.giver,
        to_strategy=loan.taker,
        share=loan.share,
        end_time=timestamp(loan.until_us) if loan.until_us else None,
        actor=loan.actor,
        reason=loan.reason,
    )
