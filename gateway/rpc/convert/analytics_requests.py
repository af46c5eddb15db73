"""Requests of RiskAnalytics to inquiries. Every violation of a request is collected and named by its field.

What a scenario, a window or a strategy stands for is not known here: the analyst refuses those that do not exist.
"""

import math
from collections.abc import Mapping

from engine.risk.inquiry import (
    Copula,
    Family,
    Filter,
    GreeksInquiry,
    HorizonMethod,
    Mean,
    Method,
    ReplayInquiry,
    ReverseInquiry,
    StressInquiry,
    VarInquiry,
    Whose,
)
from engine.risk.scenarios import Scenario
from engine.risk.var import Quantile
from gateway.rpc.convert.form import Form
from riskgateway.v1 import risk_analytics_pb2, risk_pb2

CONFIDENCES_MAX = 10
HORIZON_DAYS_MAX = 20
PATHS_DEFAULT = 10_000
PATHS_MIN, PATHS_MAX = 1_000, 100_000
LOOKBACK_MIN, LOOKBACK_MAX = 60, 10_000
"""Days; a filter needs 60."""

DEGREES_MAX = 1_000.0
CUSTOM_SCENARIOS_MAX = 100
SHOCKS_MAX = 100
UNDERLYINGS_MAX = 1_000
SHOCK_MAX = 100.0
"""A hundredfold price: beyond it a shock is a slip of units."""

MULTIPLIER_MIN, MULTIPLIER_DEFAULT, MULTIPLIER_MAX = 0.01, 5.0, 100.0
LOSS_RATIO_DEFAULT = 0.10

_METHODS: Mapping[int, tuple[Method, ...]] = {
    risk_pb2.VAR_METHOD_UNSPECIFIED: ("historical",),
    risk_pb2.VAR_METHOD_HISTORICAL: ("historical",),
    risk_pb2.VAR_METHOD_PARAMETRIC: ("parametric",),
    risk_pb2.VAR_METHOD_MONTE_CARLO: ("monte_carlo",),
    risk_pb2.VAR_METHOD_FILTERED: ("filtered",),
    risk_pb2.VAR_METHOD_ALL: ("historical", "parametric", "monte_carlo", "filtered"),
}
_QUANTILES: Mapping[int, Quantile] = {
    risk_pb2.QUANTILE_METHOD_UNSPECIFIED: "order_statistic",
    risk_pb2.QUANTILE_METHOD_ORDER_STATISTIC: "order_statistic",
    risk_pb2.QUANTILE_METHOD_LINEAR: "linear",
}
_HORIZON_METHODS: Mapping[int, tuple[HorizonMethod, ...]] = {
    risk_pb2.HORIZON_METHOD_UNSPECIFIED: ("overlapping", "square_root"),
    risk_pb2.HORIZON_METHOD_OVERLAPPING: ("overlapping",),
    risk_pb2.HORIZON_METHOD_SQUARE_ROOT: ("square_root",),
}
_MEANS: Mapping[int, tuple[Mean | None]] = {
    risk_pb2.MEAN_METHOD_UNSPECIFIED: (None,),
    risk_pb2.MEAN_METHOD_ZERO: ("zero",),
    risk_pb2.MEAN_METHOD_SAMPLE: ("sample",),
}
_FAMILIES: Mapping[int, Family] = {
    risk_pb2.VAR_DISTRIBUTION_UNSPECIFIED: "gaussian",
    risk_pb2.VAR_DISTRIBUTION_GAUSSIAN: "gaussian",
    risk_pb2.VAR_DISTRIBUTION_STUDENT_T: "student_t",
    risk_pb2.VAR_DISTRIBUTION_CORNISH_FISHER: "cornish_fisher",
}
_FILTERS: Mapping[int, Filter] = {
    risk_pb2.VOLATILITY_FILTER_UNSPECIFIED: "ewma",
    risk_pb2.VOLATILITY_FILTER_EWMA: "ewma",
    risk_pb2.VOLATILITY_FILTER_GARCH: "garch",
}
_COPULAS: Mapping[int, Copula] = {
    risk_pb2.COPULA_FAMILY_UNSPECIFIED: "gaussian",
    risk_pb2.COPULA_FAMILY_GAUSSIAN: "gaussian",
    risk_pb2.COPULA_FAMILY_STUDENT_T: "student_t",
}
Asks = (
    risk_analytics_pb2.GetVarRequest
    | risk_analytics_pb2.GetStressRequest
    | risk_analytics_pb2.GetReverseStressRequest
    | risk_analytics_pb2.ReplayHistoryRequest
    | risk_analytics_pb2.GetGreeksRequest
)


def account_of(request: risk_analytics_pb2.GetRiskReportRequest) -> str:
    form = Form()
    account = form.name("account", request.account)
    form.done()
    return account


def var_inquiry(request: risk_analytics_pb2.GetVarRequest) -> VarInquiry:
    form = Form()
    asked = tuple(dict.fromkeys(method for value in request.methods for method in _methods(form, value)))
    inquiry = VarInquiry(
        whose=_whose(form, request, not request.open_orders_excluded),
        methods=asked or ("historical",),
        confidences=_confidences(form, request),
        horizon_days=_within(form, "horizon_days", request.horizon_days or 1, 1, HORIZON_DAYS_MAX),
        horizon_methods=form.choice("horizon_method", request.horizon_method, _HORIZON_METHODS, ("overlapping",)),
        quantile=form.choice("quantile_method", request.quantile_method, _QUANTILES, "order_statistic"),
        mean=form.choice("mean_method", request.mean_method, _MEANS, (None,))[0],
        family=form.choice("distribution", request.distribution, _FAMILIES, "gaussian"),
        filter=form.choice("filter", request.filter, _FILTERS, "ewma"),
        copula=form.choice("copula", request.copula, _COPULAS, "gaussian"),
        degrees_of_freedom=_degrees(form, request),
        n_paths=_paths(form, request.paths),
        lookback_days=_lookback(form, request.lookback_days),
        seed=_seed(form, request.seed),
        components=request.include_components,
        ultra_short=request.include_ultra_short,
    )
    form.done()
    return inquiry


def stress_inquiry(request: risk_analytics_pb2.GetStressRequest) -> StressInquiry:
    form = Form()
    form.count("custom_scenarios", len(request.custom_scenarios), 0, CUSTOM_SCENARIOS_MAX)
    inquiry = StressInquiry(
        whose=_whose(form, request, not request.open_orders_excluded),
        names=tuple(request.scenarios),
        customs=tuple(
            _scenario(form.at("custom_scenarios", index), custom)
            for index, custom in enumerate(request.custom_scenarios)
        ),
        run_all=request.run_all,
    )
    form.done()
    return inquiry


def reverse_inquiry(request: risk_analytics_pb2.GetReverseStressRequest) -> ReverseInquiry:
    form = Form()
    shape, target = request.WhichOneof("shape"), request.WhichOneof("target")
    scenario: str | Scenario | None = None
    if shape == "scenario":
        scenario = form.name("scenario", request.scenario)
    elif shape == "custom_scenario":
        scenario = _scenario(form.at("custom_scenario"), request.custom_scenario)
    highest = request.multiplier_max or MULTIPLIER_DEFAULT
    if not MULTIPLIER_MIN < highest <= MULTIPLIER_MAX:
        form.wrong(
            "multiplier_max", f"expected more than {MULTIPLIER_MIN:g}, at most {MULTIPLIER_MAX:g}, got {highest:g}"
        )
        highest = MULTIPLIER_DEFAULT
    inquiry = ReverseInquiry(
        whose=_whose(form, request, not request.open_orders_excluded),
        scenario=scenario,
        loss=form.positive("loss", request.loss) if target == "loss" else None,
        loss_ratio=form.positive("loss_ratio", request.loss_ratio) if target == "loss_ratio" else LOSS_RATIO_DEFAULT,
        multiplier_min=MULTIPLIER_MIN,
        multiplier_max=highest,
    )
    form.done()
    return inquiry


def replay_inquiry(request: risk_analytics_pb2.ReplayHistoryRequest) -> ReplayInquiry:
    form = Form()
    whose = _whose(form, request, open_orders=False)
    if request.window:
        if request.start_date or request.end_date:
            form.wrong("window", "expected a window or two dates, not both")
        inquiry = ReplayInquiry(whose, form.name("window", request.window))
    else:
        first, last = form.day("start_date", request.start_date), form.day("end_date", request.end_date)
        if last < first and not form.violations:
            form.wrong("end_date", f"expected {first} or later, got {last}")
        inquiry = ReplayInquiry(whose, dates=(first, last))
    form.done()
    return inquiry


def greeks_inquiry(request: risk_analytics_pb2.GetGreeksRequest) -> GreeksInquiry:
    form = Form()
    form.count("underlyings", len(request.underlyings), 0, UNDERLYINGS_MAX)
    names = [form.name(f"underlyings[{index}]", name) for index, name in enumerate(request.underlyings)]
    inquiry = GreeksInquiry(_whose(form, request, open_orders=False), frozenset(names))
    form.done()
    return inquiry


def _whose(form: Form, request: Asks, open_orders: bool) -> Whose:
    strategy = form.name("strategy", request.strategy, required=False)
    return Whose(form.name("account", request.account), strategy or None, open_orders)


def _scenario(form: Form, custom: risk_analytics_pb2.StressScenario) -> Scenario:
    """A stand-in where it can't be one: the violations are noted."""
    before = len(form.violations)
    name = form.name("name", custom.name)
    form.count("shocks", len(custom.shocks), 1, SHOCKS_MAX)
    for factor, shock in custom.shocks.items():
        field = f"shocks[{factor}]"
        form.name(field, factor)
        if not (math.isfinite(shock) and -1.0 < shock <= SHOCK_MAX):
            form.wrong(field, f"expected a number above -1, at most {SHOCK_MAX:g} (-0.25 for -25 %), got {shock:g}")
    if len(form.violations) > before:
        return Scenario("-", {"-": 0.0})
    return Scenario(name, dict(custom.shocks))


def _methods(form: Form, value: int) -> tuple[Method, ...]:
    return form.choice("methods", value, _METHODS, ("historical",))


def _confidences(form: Form, request: risk_analytics_pb2.GetVarRequest) -> tuple[float, ...]:
    form.count("confidences", len(request.confidences), 0, CONFIDENCES_MAX)
    for index, confidence in enumerate(request.confidences):
        if not 0.5 < confidence < 1.0:
            problem = f"expected more than 0.5 and less than 1 (0.99 for 99 %), got {confidence:g}"
            form.wrong(f"confidences[{index}]", problem)
    return tuple(dict.fromkeys(request.confidences)) or (0.95, 0.99)


def _within(form: Form, field: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        form.wrong(field, f"expected {least:,} to {most:,}, got {value:,}")
        return least
    return value


def _degrees(form: Form, request: risk_analytics_pb2.GetVarRequest) -> float | None:
    if not request.HasField("degrees_of_freedom"):
        return None
    given = request.degrees_of_freedom
    if not 2.0 < given <= DEGREES_MAX:
        form.wrong("degrees_of_freedom", f"expected more than 2, at most {DEGREES_MAX:,.0f}, got {given:g}")
        return None
    return given


def _paths(form: Form, given: int) -> int:
    """Even: each path has its mirror image."""
    if given == 0:
        return PATHS_DEFAULT
    return _within(form, "paths", given, PATHS_MIN, PATHS_MAX) // 2 * 2


def _lookback(form: Form, given: int) -> int | None:
    return None if given == 0 else _within(form, "lookback_days", given, LOOKBACK_MIN, LOOKBACK_MAX)


def _seed(form: Form, given: int) -> int | None:
    if given < 0:
        form.wrong("seed", f"expected 0 or more, got {given}")
    return given if given > 0 else None
