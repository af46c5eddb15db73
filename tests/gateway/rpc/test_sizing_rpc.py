"""SizePosition over the wire: what is refused of a request, and an answer of a worker's analyst."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.order import Reason
from engine.risk.inquiry import Stamp
from engine.risk.sizing_answers import SizeAnswer, SizeInquiry, SizingMethod
from gateway.log.memory import MemoryLog
from gateway.rpc.convert.form import Invalid
from gateway.rpc.convert.sizing import size_inquiry, size_response
from gateway.worker.analytics import Analyst
from riskgateway.v1 import decision_pb2, order_pb2, risk_analytics_pb2
from tests.gateway.worker.running import model_of, working
from tests.gateway.world import ACCOUNT, SESSION, STRATEGY, World, buy, limits, world_on

Request = risk_analytics_pb2.SizePositionRequest
Other = risk_analytics_pb2.ExpectedReturn


def asked(method: str, **fields: Any) -> SizeInquiry:
    known: dict[str, Any] = {"account": "ALPHA", "symbol": "AAPL"}
    number = risk_analytics_pb2.SizingMethod.Value(f"SIZING_METHOD_{method}")
    return size_inquiry(Request(method=number, **(known | fields)))


def test_every_method_of_the_contract_is_one_of_the_engines() -> None:
    named = {name.removeprefix("SIZING_METHOD_") for name in risk_analytics_pb2.SizingMethod.keys()}  # noqa: SIM118

    assert named - {"UNSPECIFIED"} == {method.name for method in SizingMethod}


def test_what_is_left_out_takes_its_default() -> None:
    inquiry = asked("KELLY", expected_return=0.1)

    assert (inquiry.fraction, inquiry.volatility, inquiry.confidence, inquiry.cap) == (None, None, 1.0, 1.0)
    assert (inquiry.stop_multiple, inquiry.short_allowed, inquiry.others) == (2.0, False, None)


def test_what_is_given_arrives() -> None:
    inquiry = asked(
        "KELLY_PORTFOLIO",
        strategy="mm",
        expected_return=0.1,
        riskless_rate=0.02,
        volatility=0.3,
        fraction=0.25,
        confidence=0.0,
        cap=2.0,
        short_allowed=True,
        short_position=True,
        others=[Other(symbol="MSFT", expected_return=-0.05)],
    )

    assert inquiry == SizeInquiry(
        account="ALPHA",
        symbol="AAPL",
        method=SizingMethod.KELLY_PORTFOLIO,
        strategy="mm",
        expected_return=0.1,
        riskless_rate=0.02,
        volatility=0.3,
        fraction=0.25,
        confidence=0.0,
        cap=2.0,
        short_allowed=True,
        short_position=True,
        others={"MSFT": -0.05},
    )


@pytest.mark.parametrize(
    ("method", "fields", "wrong"),
    [
        ("UNSPECIFIED", {}, ["method"]),
        ("KELLY", {"account": "", "symbol": ""}, ["account", "symbol"]),
        (
            "KELLY",
            {"expected_return": float("nan"), "riskless_rate": float("inf")},
            ["expected_return", "riskless_rate"],
        ),
        ("KELLY", {"volatility": 0.0}, ["volatility"]),
        ("KELLY", {"fraction": 1.5, "confidence": -0.1, "cap": 0.0}, ["fraction", "confidence", "cap"]),
        ("KELLY_BINARY", {"win_probability": 2.0}, ["win_ratio", "loss_ratio", "win_probability"]),
        ("VOLATILITY_TARGET", {}, ["target_volatility"]),
        ("FIXED_RISK", {}, ["loss_given_stop"]),
        ("FIXED_RISK", {"loss_given_stop": 0.1, "average_true_range": 1.0}, ["average_true_range"]),
        ("FIXED_RISK", {"average_true_range": float("nan")}, ["average_true_range"]),
        ("RISK_BUDGET", {"risk_budget": -1.0}, ["risk_budget"]),
        ("KELLY_PORTFOLIO", {}, ["others"]),
        ("KELLY_PORTFOLIO", {"others": [Other(symbol="AAPL")]}, ["others[0].symbol"]),
        ("KELLY_PORTFOLIO", {"others": [Other(symbol="MSFT"), Other(symbol="MSFT")]}, ["others[1].symbol"]),
    ],
)
def test_all_that_is_wrong_is_named_at_once(method: str, fields: dict[str, Any], wrong: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        asked(method, **fields)

    assert sorted(field for field, _ in refused.value.violations) == sorted(wrong)


def test_an_answer_that_the_limits_cut_says_so() -> None:
    answer = SizeAnswer(
        stamp=Stamp(account="ALPHA", strategy="mm", seq=7, time_us=1, base_currency="USD", equity=1e6),
        full_ratio=-2.0,
        target_ratio=-1.0,
        target_lots=-100,
        held_lots=5,
        wanted_lots=-105,
        allowed_lots=30,
        lot_size=0.5,
        reason=Reason.VOLATILITY,
        binding="volatility@account:ALPHA",
        volatility=0.2,
        weights=(("AAPL", -1.0),),
    )

    message = size_response(answer)

    assert (message.target_quantity, message.order_quantity, message.wanted_quantity) == (-50.0, 15.0, 52.5)
    assert (message.side, message.reason) == (order_pb2.SIDE_SELL, decision_pb2.REASON_VOLATILITY)
    assert (message.position_quantity, message.stamp.sequence, message.weights[0].symbol) == (2.5, 7, "AAPL")


@pytest.fixture
async def world(memory_log: MemoryLog) -> AsyncIterator[World]:
    async with world_on(memory_log) as running:
        await running.arm(limits())
        yield running


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


async def test_a_worker_sizes_what_the_account_never_traded_within_its_limits(
    world: World, executor: ThreadPoolExecutor
) -> None:
    """2 % of a million is 200 of BBB at 100; the position limit leaves 100. Of AAA 40 are on their way."""
    gateway = await world.open()
    await world.mark("BBB", 100.0)
    async with working(world) as worker:
        await model_of(gateway, SESSION)
        await gateway.check(buy("first", 40.0))
        analyst = Analyst(worker.accounts, executor)

        def of(symbol: str) -> SizeInquiry:
            return SizeInquiry(account=ACCOUNT, strategy=STRATEGY, symbol=symbol, method=SizingMethod.FIXED_FRACTION)

        new, open_already = await analyst.size(of("BBB"), 20_000_000), await analyst.size(of("AAA"), 20_000_000)

    assert (new.target_lots, new.wanted_lots, new.allowed_lots) == (200, 200, 100)
    assert (new.reason, new.binding) == (Reason.POSITION, "position@symbol:BBB")
    assert (open_already.wanted_lots, open_already.allowed_lots) == (160, 60)
    assert new.stamp.strategy == STRATEGY and new.stamp.model
