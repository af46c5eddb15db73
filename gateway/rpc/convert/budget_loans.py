"""AdjustBudget's request. Every violation of it is collected and named by its field.

Light: control imports it. Whether a strategy has a budget, and how much of it can be lent, engine.budgets knows.
"""

from engine.budgets import Lending
from gateway.rpc.convert.form import Form
from riskgateway.v1 import risk_admin_pb2


def lending_of(request: risk_admin_pb2.AdjustBudgetRequest, actor: str) -> tuple[str, Lending]:
    """(account, the loan asked for by `actor`)."""
    form = Form()
    account = form.name("account", request.account)
    lending = Lending(
        loan_id=form.identifier("loan_id", request.loan_id),
        giver=form.name("from_strategy", request.from_strategy),
        taker=form.name("to_strategy", request.to_strategy),
        share=form.not_negative("share", request.share),
        until_us=form.moment("end_time", request.end_time) if request.HasField("end_time") else 0,
        actor=actor,
        reason=form.text("reason", request.reason, required=True),
    )
    form.done()
    return account, lending
