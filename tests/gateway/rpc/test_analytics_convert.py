"""Requests of RiskAnalytics as inquiries: what a blank one means, and each wrong field by its name."""

import datetime
import math
from typing import Any

import pytest

from engine.risk.inquiry import Whose
from engine.risk.scenarios import Scenario
from gateway.rpc.convert import analytics_requests as requests
from gateway.rpc.convert.form import Invalid
from riskgateway.v1 import risk_analytics_pb2, risk_pb2

Var, Stress = risk_analytics_pb2.GetVarRequest, risk_analytics_pb2.GetStressRequest
Reverse, Replay = risk_analytics_pb2.GetReverseStressRequest, risk_analytics_pb2.ReplayHistoryRequest
Own = risk_analytics_pb2.StressScenario


def test_a_blank_request_asks_for_what_the_contract_says() -> None:
    inquiry = requests.var_inquiry(Var(account="A"))

    assert inquiry.whose == Whose("A", None, open_orders=True)
    assert (inquiry.methods, inquiry.confidences, inquiry.horizon_days) == (("historical",), (0.95, 0.99), 1)
    assert (inquiry.quantile, inquiry.mean, inquiry.family, inquiry.filter) == (
        "order_statistic",
        None,
        "gaussian",
        "ewma",
    )
    assert (inquiry.n_paths, inquiry.seed, inquiry.lookback_days) == (10_000, None, None)


def test_all_is_every_method_once() -> None:
    methods = [risk_pb2.VAR_METHOD_FILTERED, risk_pb2.VAR_METHOD_ALL]

    assert requests.var_inquiry(Var(account="A", methods=methods)).methods == (
        "filtered",
        "historical",
        "parametric",
        "monte_carlo",
    )


def test_paths_come_in_pairs() -> None:
    assert requests.var_inquiry(Var(account="A", paths=1_001)).n_paths == 1_000


def test_the_choices_of_var_are_taken_as_given() -> None:
    inquiry = requests.var_inquiry(
        Var(
            account="A",
            strategy="s",
            open_orders_excluded=True,
            horizon_method=risk_pb2.HORIZON_METHOD_SQUARE_ROOT,
            mean_method=risk_pb2.MEAN_METHOD_SAMPLE,
            quantile_method=risk_pb2.QUANTILE_METHOD_LINEAR,
            distribution=risk_pb2.VAR_DISTRIBUTION_STUDENT_T,
            filter=risk_pb2.VOLATILITY_FILTER_GARCH,
            copula=risk_pb2.COPULA_FAMILY_STUDENT_T,
            degrees_of_freedom=4.0,
            seed=9,
            lookback_days=500,
        )
    )

    assert inquiry.whose == Whose("A", "s", open_orders=False)
    assert (inquiry.horizon_methods, inquiry.mean, inquiry.quantile) == (("square_root",), "sample", "linear")
    assert (inquiry.family, inquiry.filter, inquiry.copula) == ("student_t", "garch", "student_t")
    assert (inquiry.degrees_of_freedom, inquiry.seed, inquiry.lookback_days) == (4.0, 9, 500)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"account": ""}, "account"),
        ({"strategy": " s"}, "strategy"),
        ({"confidences": [0.99, 0.5]}, "confidences[1]"),
        ({"confidences": [1.0]}, "confidences[0]"),
        ({"confidences": [math.nan]}, "confidences[0]"),
        ({"confidences": [0.9] * 11}, "confidences"),
        ({"horizon_days": 21}, "horizon_days"),
        ({"horizon_days": -1}, "horizon_days"),
        ({"methods": [77]}, "methods"),
        ({"quantile_method": risk_pb2.QUANTILE_METHOD_CLOSED_FORM}, "quantile_method"),
        ({"distribution": 77}, "distribution"),
        ({"degrees_of_freedom": 2.0}, "degrees_of_freedom"),
        ({"degrees_of_freedom": math.nan}, "degrees_of_freedom"),
        ({"paths": 999}, "paths"),
        ({"paths": 100_001}, "paths"),
        ({"lookback_days": 59}, "lookback_days"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_field_of_var_is_named(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        requests.var_inquiry(Var(**{"account": "A", **fields}))

    assert [field for field, _ in refused.value.violations] == [wrong]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        requests.var_inquiry(Var(confidences=[0.1], paths=1))

    assert {field for field, _ in refused.value.violations} == {"account", "confidences[0]", "paths"}


def test_scenarios_of_ones_own_are_taken() -> None:
    inquiry = requests.stress_inquiry(Stress(account="A", custom_scenarios=[Own(name="mine", shocks={"OIL": 0.4})]))

    assert inquiry.customs == (Scenario("mine", {"OIL": 0.4}),)


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        (Own(shocks={"OIL": 0.4}), "custom_scenarios[0].name"),
        (Own(name="mine"), "custom_scenarios[0].shocks"),
        (Own(name="mine", shocks={"OIL": -1.0}), "custom_scenarios[0].shocks[OIL]"),
        (Own(name="mine", shocks={"OIL": math.nan}), "custom_scenarios[0].shocks[OIL]"),
        (Own(name="mine", shocks={"OIL": 101.0}), "custom_scenarios[0].shocks[OIL]"),
        (Own(name="mine", shocks={"": 0.1}), "custom_scenarios[0].shocks[]"),
    ],
)
def test_a_wrong_scenario_is_named(own: risk_analytics_pb2.StressScenario, wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        requests.stress_inquiry(Stress(account="A", custom_scenarios=[own]))

    assert [field for field, _ in refused.value.violations] == [wrong]


def test_more_than_a_hundred_scenarios_of_ones_own_are_refused() -> None:
    customs = [Own(name=f"mine {number}", shocks={"OIL": 0.1}) for number in range(101)]

    with pytest.raises(Invalid, match="custom_scenarios: expected 0 to 100 entries, got 101"):
        requests.stress_inquiry(Stress(account="A", custom_scenarios=customs))


def test_a_tenth_of_equity_is_the_loss_to_reach_unless_told() -> None:
    blank = requests.reverse_inquiry(Reverse(account="A"))

    assert (blank.scenario, blank.loss, blank.loss_ratio) == (None, None, 0.10)
    assert (blank.multiplier_min, blank.multiplier_max) == (0.01, 5.0)
    assert requests.reverse_inquiry(Reverse(account="A", loss=5.0)).loss == 5.0
    own = requests.reverse_inquiry(Reverse(account="A", custom_scenario=Own(name="mine", shocks={"OIL": 0.1})))
    assert own.scenario == Scenario("mine", {"OIL": 0.1})


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"loss": 0.0}, "loss"),
        ({"loss": -5.0}, "loss"),
        ({"loss_ratio": math.nan}, "loss_ratio"),
        ({"multiplier_max": 0.01}, "multiplier_max"),
        ({"multiplier_max": 101.0}, "multiplier_max"),
        ({"multiplier_max": math.nan}, "multiplier_max"),
        ({"scenario": ""}, "scenario"),
    ],
)
def test_a_wrong_field_of_reverse_stress_is_named(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        requests.reverse_inquiry(Reverse(account="A", **fields))

    assert [field for field, _ in refused.value.violations] == [wrong]


def test_a_replay_is_of_a_window_or_of_two_days() -> None:
    days = requests.replay_inquiry(Replay(account="A", start_date="2020-02-20", end_date="2020-03-23"))

    assert days.dates == (datetime.date(2020, 2, 20), datetime.date(2020, 3, 23))
    assert requests.replay_inquiry(Replay(account="A", window="2020")).window == "2020"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"start_date": "2020-02-30", "end_date": "2020-03-23"}, "start_date"),
        ({"start_date": "2020-03-23", "end_date": "2020-03-22"}, "end_date"),
        ({"window": "2020", "start_date": "2020-02-20"}, "window"),
        ({"start_date": "2020-02-20"}, "end_date"),
    ],
)
def test_a_wrong_stretch_is_named(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid) as refused:
        requests.replay_inquiry(Replay(account="A", **fields))

    assert [field for field, _ in refused.value.violations] == [wrong]


def test_greeks_may_be_of_some_underlyings() -> None:
    request = risk_analytics_pb2.GetGreeksRequest(account="A", underlyings=["AAPL", "AAPL"])

    assert requests.greeks_inquiry(request).underlyings == {"AAPL"}
    with pytest.raises(Invalid, match="underlyings"):
        requests.greeks_inquiry(risk_analytics_pb2.GetGreeksRequest(account="A", underlyings=[""]))
