"""A size for an account: the shares of sizing.py as lots, less what is held and open, and within the headroom."""

import math
from typing import Any

import numpy as np
import pytest

from engine.account import AccountState
from engine.limits import LimitSet
from engine.order import Reason
from engine.risk.inquiry import InquiryError, Stamp, Unanswerable
from engine.risk.model import RiskModel
from engine.risk.shrinkage import shrunk_covariance
from engine.risk.sizing_answers import SizeAnswer, SizeInquiry, SizingMethod, size_answer, size_case
from tests.engine.builders import ACCOUNT, NOW_US, account, limits, model, reserve, row, stock, terms, universe

TWO = universe(stock("AAA"), stock("BBB", lot_size=10.0))
MARKS = {"AAA": 100.0, "BBB": 50.0}
DAYS = 252
CHANCE = np.random.default_rng(3)
RETURNS = {"AAA": CHANCE.normal(0.0, 0.01, DAYS).tolist(), "BBB": CHANCE.normal(0.0, 0.02, DAYS).tolist()}
MODEL = model(RETURNS)
STAMP = Stamp(account=ACCOUNT, strategy="", seq=1, time_us=NOW_US, base_currency="USD", equity=None)


def sized(
    method: SizingMethod,
    state: AccountState | None = None,
    armed: LimitSet | None = None,
    risk: RiskModel | None = MODEL,
    **asked: Any,
) -> SizeAnswer:
    inquiry = SizeInquiry(account=ACCOUNT, method=method, **({"symbol": "AAA"} | asked))
    under = terms(TWO, armed, risk)
    case = size_case(state or account(TWO, MARKS), under, inquiry, STAMP, NOW_US)
    return size_answer(case, inquiry)


def yearly(symbol: str) -> float:
    return float(np.std(RETURNS[symbol], ddof=1)) * math.sqrt(252)


def test_half_kelly_of_a_million_is_bought_in_whole_lots() -> None:
    """0.04 over 0.2² is 1; half of it is 500,000: 5,000 at 100."""
    answer = sized(SizingMethod.KELLY, expected_return=0.06, riskless_rate=0.02, volatility=0.2)

    assert (answer.full_ratio, answer.target_ratio) == pytest.approx((1.0, 0.5))
    assert (answer.target_lots, answer.wanted_lots, answer.allowed_lots) == (5_000, 5_000, 5_000)
    assert (answer.reason, answer.binding, answer.volatility) == (Reason.NONE, "", 0.2)


def test_without_a_volatility_it_is_that_of_the_models_days() -> None:
    answer = sized(SizingMethod.VOLATILITY_TARGET, target_volatility=0.1)

    assert answer.volatility == pytest.approx(yearly("AAA"))
    assert answer.target_ratio == pytest.approx(0.1 / yearly("AAA"))


def test_no_edge_closes_what_is_held() -> None:
    held = account(TWO, MARKS, positions={"AAA": 30})
    answer = sized(SizingMethod.KELLY, held, expected_return=0.0, riskless_rate=0.02, volatility=0.2)

    assert (answer.target_lots, answer.held_lots, answer.wanted_lots, answer.allowed_lots) == (0, 30, -30, 30)


def test_what_is_held_and_open_counts_by_strategy() -> None:
    """2 % of about a million is 20,000: 200 of AAA, of which the strategy has 50 and 60 are on their way."""
    state = account(TWO, MARKS, strategies={("mm", "AAA"): 50, ("rl", "AAA"): 1_000}, cash=895_000.0)
    reserve(state, "open", "AAA", 60, strategy="mm")

    answer = sized(SizingMethod.FIXED_FRACTION, state, strategy="mm")

    assert state.equity() == 1_000_000.0
    assert (answer.target_lots, answer.held_lots, answer.wanted_lots) == (200, 50, 90)


def test_a_stop_is_a_share_of_the_price_or_so_many_true_ranges() -> None:
    by_share = sized(SizingMethod.FIXED_RISK, loss_given_stop=0.05)
    by_range = sized(SizingMethod.FIXED_RISK, average_true_range=2.5, stop_multiple=2.0)

    assert by_share.target_ratio == by_range.target_ratio == pytest.approx(0.2)  # 1 % over 5 %
    assert by_share.target_lots == 2_000


def test_a_budget_is_held_against_the_worst_days_of_the_side_aimed_at() -> None:
    """Of 252 days the third worst is the VaR at 99 %."""
    ordered = sorted(RETURNS["AAA"])

    long = sized(SizingMethod.RISK_BUDGET, risk_budget=0.01)
    short = sized(SizingMethod.RISK_BUDGET, risk_budget=0.01, short_position=True)

    assert long.target_ratio == pytest.approx(min(1.0, 0.01 / -ordered[2]))
    assert short.target_ratio == pytest.approx(-min(1.0, 0.01 / ordered[-3]))
    assert short.wanted_lots < 0


def test_confidence_and_cap() -> None:
    asked: dict[str, Any] = {"expected_return": 0.22, "riskless_rate": 0.02, "volatility": 0.2}

    assert sized(SizingMethod.KELLY, **asked).target_ratio == 1.0  # 5 × 0.5, capped
    assert sized(SizingMethod.KELLY, **asked, confidence=0.1).target_ratio == pytest.approx(0.25)
    assert sized(SizingMethod.KELLY, **asked, cap=0.3).target_ratio == 0.3


def test_the_limits_bound_the_order_and_say_which() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    armed = limits(row("position", 100, "symbol"))
    answer = sized(SizingMethod.KELLY, state, armed, expected_return=0.06, riskless_rate=0.02, volatility=0.2)

    assert (answer.target_lots, answer.wanted_lots, answer.allowed_lots) == (5_005, 4_995, 90)
    assert (answer.reason, answer.binding) == (Reason.POSITION, "position@symbol:AAA")


def test_a_sale_is_bounded_by_what_may_be_sold() -> None:
    state = account(TWO, MARKS, positions={"AAA": 30})
    answer = sized(SizingMethod.FIXED_FRACTION, state, limits(row("position", 40, "symbol")), short_position=True)

    assert (answer.target_lots, answer.wanted_lots, answer.allowed_lots) == (-200, -230, 70)


def test_lots_of_ten_are_counted_as_lots() -> None:
    """2 % of a million over 500 a lot."""
    assert sized(SizingMethod.FIXED_FRACTION, symbol="BBB").target_lots == 40


def test_several_are_sized_on_the_shrunk_covariance() -> None:
    days = np.column_stack([RETURNS["AAA"], RETURNS["BBB"]])
    expected = np.linalg.solve(shrunk_covariance(days)[0] * 252, np.array([0.05, 0.03]) - 0.01)

    answer = sized(
        SizingMethod.KELLY_PORTFOLIO,
        expected_return=0.05,
        riskless_rate=0.01,
        others={"BBB": 0.03},
        fraction=0.1,
        cap=100.0,
        short_allowed=True,
    )

    assert [ratio for _, ratio in answer.weights] == pytest.approx((0.1 * expected).tolist())
    assert answer.target_ratio == answer.weights[0][1]
    assert answer.full_ratio == pytest.approx(expected[0])


def test_several_share_one_cap() -> None:
    asked: dict[str, Any] = {"expected_return": 0.5, "others": {"BBB": 0.5}, "cap": 0.6}
    answer = sized(SizingMethod.KELLY_PORTFOLIO, **asked)

    assert sum(ratio for _, ratio in answer.weights) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("asked", "state", "risk", "said"),
    [
        ({"method": SizingMethod.KELLY, "expected_return": 0.1}, {}, None, "no risk model is published"),
        ({"method": SizingMethod.RISK_BUDGET, "risk_budget": 0.1}, {}, model({"AAA": [0.01] * 20}), "too little"),
        ({"method": SizingMethod.KELLY}, {}, model({"AAA": [0.0] * 40, "BBB": [0.0] * 40}), "never moved"),
        ({"method": SizingMethod.FIXED_FRACTION}, {"marks": {"BBB": 1.0}}, MODEL, "no mark"),
        ({"method": SizingMethod.FIXED_FRACTION}, {"cash": -5.0}, MODEL, "equity is -5.00"),
        (
            {"method": SizingMethod.KELLY_PORTFOLIO, "others": {"BBB": 0.1}},
            {},
            model({"AAA": RETURNS["AAA"], "BBB": [0.0] * DAYS}),
            "BBB never moved",
        ),
    ],
)
def test_what_is_missing_gives_no_size(
    asked: dict[str, Any], state: dict[str, Any], risk: RiskModel | None, said: str
) -> None:
    found = account(TWO, state.pop("marks", MARKS), **state)

    with pytest.raises(Unanswerable, match=said):
        sized(asked["method"], found, risk=risk, **{name: asked[name] for name in asked if name != "method"})


def test_a_size_that_needs_no_days_needs_no_model() -> None:
    assert sized(SizingMethod.FIXED_FRACTION, risk=None).target_lots == 200


def test_names_that_nobody_registered_are_refused() -> None:
    with pytest.raises(InquiryError, match="'ZZZ' is not registered"):
        sized(SizingMethod.FIXED_FRACTION, symbol="ZZZ")
    with pytest.raises(InquiryError, match="others: 'ZZZ' is not registered"):
        sized(SizingMethod.KELLY_PORTFOLIO, others={"ZZZ": 0.1})
