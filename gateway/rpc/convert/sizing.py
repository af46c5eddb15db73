"""SizePosition's request and response. Every violation of a request is collected and named by its field.

Whether a method's own numbers are there is told here; what a symbol is, the analyst knows.
"""

from collections.abc import Mapping

from engine.order import Reason
from engine.risk.sizing_answers import SizeAnswer, SizeInquiry, SizingMethod
from gateway.rpc.convert.analytics import stamp_message
from gateway.rpc.convert.form import Form
from riskgateway.v1 import decision_pb2, order_pb2, risk_analytics_pb2

OTHERS_MAX = 100

_METHODS: Mapping[int, SizingMethod] = {
    risk_analytics_pb2.SizingMethod.Value(f"SIZING_METHOD_{method.name}"): method for method in SizingMethod
}
_REASONS = {reason: decision_pb2.Reason.Value(f"REASON_{reason.name}") for reason in Reason}

_NEEDED: Mapping[SizingMethod, tuple[str, ...]] = {
    SizingMethod.KELLY: (),
    SizingMethod.KELLY_BINARY: ("win_ratio", "loss_ratio"),
    SizingMethod.VOLATILITY_TARGET: ("target_volatility",),
    SizingMethod.FIXED_RISK: (),
    SizingMethod.FIXED_FRACTION: (),
    SizingMethod.RISK_BUDGET: ("risk_budget",),
    SizingMethod.KELLY_PORTFOLIO: (),
}
"""What has to be above 0."""


def size_inquiry(request: risk_analytics_pb2.SizePositionRequest) -> SizeInquiry:
    form = Form()
    method = form.choice("method", request.method, _METHODS, SizingMethod.KELLY)
    for field in _NEEDED[method]:
        form.positive(field, getattr(request, field))
    if method is SizingMethod.KELLY_BINARY and not 0.0 <= request.win_probability <= 1.0:
        form.wrong("win_probability", f"expected a number from 0 to 1, got {request.win_probability:g}")
    if method is SizingMethod.FIXED_RISK:
        _check_stop(form, request)
    inquiry = SizeInquiry(
        account=form.name("account", request.account),
        strategy=form.name("strategy", request.strategy, required=False),
        symbol=form.name("symbol", request.symbol),
        method=method,
        expected_return=form.signed("expected_return", request.expected_return),
        riskless_rate=form.signed("riskless_rate", request.riskless_rate),
        volatility=form.positive("volatility", request.volatility) if request.HasField("volatility") else None,
        win_probability=request.win_probability,
        win_ratio=request.win_ratio,
        loss_ratio=request.loss_ratio,
        target_volatility=request.target_volatility,
        loss_given_stop=request.loss_given_stop,
        average_true_range=request.average_true_range,
        stop_multiple=form.positive("stop_multiple", request.stop_multiple)
        if request.HasField("stop_multiple")
        else 2.0,
        risk_budget=request.risk_budget,
        fraction=_part(form, "fraction", request.fraction) if request.HasField("fraction") else None,
        confidence=_confidence(form, request),
        cap=form.positive("cap", request.cap) if request.HasField("cap") else 1.0,
        short_allowed=request.short_allowed,
        short_position=request.short_position,
        others=_others(form, request) if method is SizingMethod.KELLY_PORTFOLIO else None,
    )
    form.done()
    return inquiry


def _check_stop(form: Form, request: risk_analytics_pb2.SizePositionRequest) -> None:
    if request.average_true_range and request.loss_given_stop:
        form.wrong("average_true_range", "expected it or loss_given_stop, not both: each says where the stop is")
    elif request.average_true_range:
        form.positive("average_true_range", request.average_true_range)
    else:
        form.positive("loss_given_stop", request.loss_given_stop)


def _part(form: Form, field: str, value: float) -> float:
    if not 0.0 < value <= 1.0:
        form.wrong(field, f"expected a number above 0, at most 1, got {value:g}")
        return 1.0
    return value


def _confidence(form: Form, request: risk_analytics_pb2.SizePositionRequest) -> float:
    if request.HasField("confidence") and not 0.0 <= request.confidence <= 1.0:
        form.wrong("confidence", f"expected a number from 0 to 1, got {request.confidence:g}")
    return request.confidence if request.HasField("confidence") else 1.0


def _others(form: Form, request: risk_analytics_pb2.SizePositionRequest) -> dict[str, float]:
    form.count("others", len(request.others), 1, OTHERS_MAX)
    found: dict[str, float] = {}
    for index, other in enumerate(request.others):
        one = form.at("others", index)
        name = one.name("symbol", other.symbol)
        if name == request.symbol or name in found:
            one.wrong("symbol", f"expected each symbol once, got {name!r} again")
        found[name] = one.signed("expected_return", other.expected_return)
    return found


def size_response(answer: SizeAnswer) -> risk_analytics_pb2.SizePositionResponse:
    size = answer.lot_size
    side = order_pb2.SIDE_BUY if answer.wanted_lots > 0 else order_pb2.SIDE_SELL
    return risk_analytics_pb2.SizePositionResponse(
        stamp=stamp_message(answer.stamp),
        target_ratio=answer.target_ratio,
        full_ratio=answer.full_ratio,
        target_quantity=answer.target_lots * size,
        side=side if answer.wanted_lots else order_pb2.SIDE_UNSPECIFIED,
        order_quantity=answer.allowed_lots * size,
        reason=_REASONS[answer.reason],
        binding_measure=answer.binding,
        volatility=answer.volatility,
        weights=[risk_analytics_pb2.SizedWeight(symbol=symbol, target_ratio=ratio) for symbol, ratio in answer.weights],
        position_quantity=answer.held_lots * size,
        wanted_quantity=abs(answer.wanted_lots) * size,
    )
