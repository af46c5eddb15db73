"""PlanLiquidation's request and response. Every violation of a request is collected and named by its field.

What is planned is the engine's; how far a liquidation has got is told by liquidation_progress.py.
"""

from engine.liquidation import PlanAnswer, PlanInquiry, Slice
from gateway.rpc.convert.analytics import stamp_message
from gateway.rpc.convert.form import Form
from gateway.rpc.convert.responses import duration
from riskgateway.v1 import order_pb2, risk_analytics_pb2


def plan_inquiry(request: risk_analytics_pb2.PlanLiquidationRequest) -> PlanInquiry:
    form = Form()
    fraction = form.positive("fraction", request.fraction) if request.HasField("fraction") else 1.0
    if fraction > 1.0:
        form.wrong("fraction", f"expected at most 1, got {fraction:g}")
    inquiry = PlanInquiry(
        form.name("account", request.account),
        form.name("strategy", request.strategy, required=False),
        form.name("symbol", request.symbol, required=False),
        fraction,
    )
    form.done()
    return inquiry


def plan_response(answer: PlanAnswer) -> risk_analytics_pb2.PlanLiquidationResponse:
    plan = answer.plan
    return risk_analytics_pb2.PlanLiquidationResponse(
        stamp=stamp_message(answer.stamp),
        slices=[_slice(one, answer.lot_sizes[one.symbol]) for one in plan.slices],
        value=plan.value,
        expected_cost=plan.expected_cost,
        var_99=plan.var_99,
        stress_loss=plan.stress_loss,
    )


def _slice(one: Slice, lot_size: float) -> risk_analytics_pb2.LiquidationSlice:
    return risk_analytics_pb2.LiquidationSlice(
        strategy=one.strategy,
        symbol=one.symbol,
        side=order_pb2.SIDE_BUY if one.lots > 0 else order_pb2.SIDE_SELL,
        quantity=abs(one.lots) * lot_size,
        after=duration(one.after_us),
        spread_cost=one.spread_cost,
        impact_cost=one.impact_cost,
        var_99=one.var_99,
        stress_loss=one.stress_loss,
    )
