"""Questions to a whole machine: through both ports, answered by its worker, also by the one that comes after it.

Figures are counted again here from the closes in the wheel, with numpy alone.
"""

import asyncio
import math
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.market.prices import sample_us_stocks
from riskgateway.v1 import risk_analytics_pb2, risk_analytics_pb2_grpc, risk_pb2
from tests.e2e.desk import PRICES, TIMEOUT_S, Desk
from tests.e2e.machine import Machine

HELD = {"KO": 400.0, "AAPL": 100.0, "XOM": 150.0}
SESSION_ROW = "2022-12-28"
LOOKBACK = 756


def stub(channel: grpc.aio.Channel) -> Any:
    return risk_analytics_pb2_grpc.RiskAnalyticsStub(channel)


async def holding(desk: Desk, gateway: grpc.aio.Channel) -> None:
    """An account with three positions, the model to judge them by, and a worker that answers."""
    await desk.await_model()
    await answered(gateway, risk_analytics_pb2.GetVarRequest(account=desk.account))
    for symbol, quantity in HELD.items():
        await desk.buy(symbol, quantity)


async def answered(
    channel: grpc.aio.Channel, request: risk_analytics_pb2.GetVarRequest
) -> risk_analytics_pb2.GetVarResponse:
    """The answer of a worker that is starting: asked again and again until there is one."""
    async with asyncio.timeout(60):
        while True:
            try:
                response: risk_analytics_pb2.GetVarResponse = await stub(channel).GetVar(request, timeout=TIMEOUT_S)
                return response
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION), error
                await asyncio.sleep(0.1)


def closes(symbols: list[str]) -> Any:
    """(757, n) up to the close before the session."""
    prices = sample_us_stocks()
    before = sum(1 for day in prices.dates if day.isoformat() < SESSION_ROW)
    columns = [prices.symbols.index(symbol) for symbol in symbols]
    return prices.closes[before - LOOKBACK - 1 : before, columns]


def money(symbols: list[str]) -> Any:
    return np.array([HELD[symbol] * PRICES[symbol] for symbol in symbols])


async def test_every_figure_of_an_account_through_both_ports(machine: Machine, own_desk: Desk) -> None:
    account, symbols = own_desk.account, sorted(HELD)
    levels = closes(symbols)
    losses = -(levels[1:] / levels[:-1] - 1.0) @ money(symbols)
    async with (
        grpc.aio.insecure_channel(machine.gateway) as gateway,
        grpc.aio.insecure_channel(machine.control) as control,
    ):
        await holding(own_desk, gateway)
        for channel in (gateway, control):
            var = await stub(channel).GetVar(
                risk_analytics_pb2.GetVarRequest(
                    account=account,
                    methods=[risk_pb2.VAR_METHOD_ALL],
                    include_components=True,
                    include_ultra_short=True,
                ),
                timeout=TIMEOUT_S,
            )
            by_method = {(one.method, one.confidence): one for one in var.estimates}
            historical = by_method[risk_pb2.VAR_METHOD_HISTORICAL, 0.99]
            parametric = by_method[risk_pb2.VAR_METHOD_PARAMETRIC, 0.99]
            assert len(by_method) == 8
            assert historical.value_at_risk == pytest.approx(np.sort(losses)[-8])
            assert historical.n_observations == LOOKBACK and historical.value_at_risk_ratio < 0.02
            assert by_method[risk_pb2.VAR_METHOD_MONTE_CARLO, 0.99].HasField("seed")
            assert math.fsum(one.component for one in var.components) == pytest.approx(parametric.value_at_risk)
            assert var.component_total == pytest.approx(parametric.value_at_risk)
            assert var.ultra_short.var_1d == pytest.approx(-historical.value_at_risk)
            assert var.stamp.model_session_date == SESSION_ROW and var.stamp.last_price_date == "2022-12-27"
            assert var.stamp.HasField("mark_age") and var.stamp.HasField("model_age")

            stress = await stub(channel).GetStress(
                risk_analytics_pb2.GetStressRequest(account=account, run_all=True), timeout=TIMEOUT_S
            )
            assert len(stress.results) == 6 and len(stress.replays) == 5 and len(stress.grids) == 3
            worst = max(stress.results, key=lambda one: one.stress_loss.loss)
            assert stress.worst_stress == worst.stress_loss
            assert math.fsum(one.loss for one in worst.contributions) == pytest.approx(worst.stress_loss.loss)

            reverse = await stub(channel).GetReverseStress(
                risk_analytics_pb2.GetReverseStressRequest(account=account, loss=1_000.0), timeout=TIMEOUT_S
            )
            assert reverse.reachable and reverse.scenario == stress.worst_stress.name
            assert reverse.multiplier * stress.worst_stress.loss == pytest.approx(1_000.0)
            assert reverse.most_likely.loss == pytest.approx(1_000.0)

            replay = await stub(channel).ReplayHistory(
                risk_analytics_pb2.ReplayHistoryRequest(account=account, window="2020"), timeout=TIMEOUT_S
            )
            assert replay.status == risk_analytics_pb2.REPLAY_STATUS_COMPLETE
            assert replay.days[-1].date == "2020-03-23" and len(replay.days) == 23
            assert math.fsum(one.pnl for one in replay.days) == pytest.approx(replay.days[-1].cumulative_pnl)

            report = await stub(channel).GetRiskReport(
                risk_analytics_pb2.GetRiskReportRequest(account=account), timeout=TIMEOUT_S
            )
            assert report.level == risk_pb2.RISK_LEVEL_HIGH and report.level_gauges == ["limit_utilisation"]
            assert {gauge.gauge for gauge in report.gauges} >= {"var_99", "stress", "leverage"}


async def test_what_can_not_be_asked_is_named(machine: Machine, own_desk: Desk) -> None:
    request = risk_analytics_pb2.GetStressRequest(account=own_desk.account, scenarios=["COVID 2020", "nothing"])
    async with grpc.aio.insecure_channel(machine.gateway) as gateway:
        await holding(own_desk, gateway)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub(gateway).GetStress(request, timeout=TIMEOUT_S)
        with pytest.raises(grpc.aio.AioRpcError) as mistyped:
            await stub(gateway).GetVar(
                risk_analytics_pb2.GetVarRequest(account=own_desk.account, strategy="momentun"), timeout=TIMEOUT_S
            )

    assert unknown.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "scenarios[1]" in (unknown.value.details() or "")
    assert mistyped.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "never had an order" in (mistyped.value.details() or "")


async def test_a_worker_that_is_killed_is_away_and_its_successor_answers(machine: Machine, own_desk: Desk) -> None:
    request = risk_analytics_pb2.GetVarRequest(account=own_desk.account)
    async with grpc.aio.insecure_channel(machine.gateway) as gateway:
        await holding(own_desk, gateway)
        before = await stub(gateway).GetVar(request, timeout=TIMEOUT_S)
        (killed,) = machine.kill("worker")
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await stub(gateway).GetVar(request, timeout=TIMEOUT_S)
        meanwhile = await own_desk.check(own_desk.order("KO", quantity=1.0))
        await asyncio.to_thread(machine.await_successor, "worker", killed)
        after = await answered(gateway, request)

    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "worker" in (away.value.details() or "") and "serve --role worker" in (away.value.details() or "")
    assert meanwhile.allowed
    assert after.estimates[0].n_observations == before.estimates[0].n_observations == LOOKBACK
