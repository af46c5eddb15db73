"""GetBudget's answer: the figures of the limit at order time, with shares, loans, pauses and what is left.

The book of tests/engine/test_budgets.py: 10,000 of AAA lose 1,000 on the day that counts, of 5,000 that are shared out.
"""

import pytest

from engine.account import AccountState
from engine.budgets import Lending, budget_lent
from engine.control import Control, Scope, Stop, TradingState
from engine.decide import Terms
from engine.limits import Limit
from engine.records import Tightened
from engine.risk.budget_answers import BudgetAnswer, BudgetInquiry, BudgetLine, budget_answer
from engine.risk.inquiry import InquiryError, Stamp, Unanswerable
from engine.risk.model import RiskModel
from engine.utilisation import limit_uses
from tests.engine.builders import ACCOUNT, NOW_US, account, limits, model, reserve, row, stock, terms, universe

TWO = universe(stock("AAA"), stock("BBB", sector="Energy"))
MARKS = {"AAA": 100.0, "BBB": 50.0}
MODEL = model({"AAA": [0.0] * 19 + [-0.10], "BBB": [0.0] * 18 + [-0.06, 0.04]})
ROWS = (
    row("risk_budget", 0.5, "strategy", match="one"),
    row("risk_budget", 0.2, "strategy", match="two"),
    row("risk_budget", 0.4, "symbol"),
)
STAMP = Stamp(
    account=ACCOUNT,
    strategy=None,
    seq=1,
    time_us=NOW_US,
    base_currency="USD",
    equity=100_000.0,
    model="m",
    model_session="2023-11-14",
    model_built_us=NOW_US,
    last_price_date="2023-11-13",
    marks_oldest_us=NOW_US,
    open_orders=True,
)


def held(strategies: dict[tuple[str, str], int]) -> AccountState:
    value = sum(lots * MARKS[symbol] for (_, symbol), lots in strategies.items())
    return account(TWO, MARKS, strategies=strategies, cash=100_000.0 - value)


BOOK = {("one", "AAA"): 100, ("two", "AAA"): 50, ("two", "BBB"): 100}


def told(
    state: AccountState, *rows: Limit, given: dict[str, float] | None = None, risk: RiskModel | None = MODEL
) -> BudgetAnswer:
    return answered(state, terms(TWO, limits(*(rows or ROWS)), risk), given)


def answered(state: AccountState, armed: Terms, given: dict[str, float] | None = None) -> BudgetAnswer:
    return budget_answer(state, armed, STAMP, BudgetInquiry(ACCOUNT, given), NOW_US)


def named(lines: tuple[BudgetLine, ...]) -> dict[str, BudgetLine]:
    return {line.name: line for line in lines}


def test_the_account_adds_up_what_its_positions_use() -> None:
    """AAA loses 1,500, BBB gains 200: VaR is 1,300, allocated are 1,500 of 5,000."""
    answer = told(held(BOOK))

    assert (answer.var_limit, answer.confidence) == (5_000.0, 0.95)
    assert answer.account.component == pytest.approx(1_300.0)
    assert answer.account.allocated == pytest.approx(0.3)
    assert answer.account.share == 1.0
    assert answer.account.available == pytest.approx(0.7)


def test_strategies_and_positions_stand_greatest_first_with_what_is_left() -> None:
    answer = told(held(BOOK))
    one, two = named(answer.strategies)["one"], named(answer.strategies)["two"]

    assert [line.name for line in answer.strategies] == ["one", "two"]
    assert (one.component, one.allocated, one.available) == pytest.approx((1_000.0, 0.2, 0.3))
    assert (two.component, two.allocated, two.utilisation) == pytest.approx((300.0, 0.1, 0.5))
    assert [(line.name, line.allocated) for line in answer.positions] == [("AAA", pytest.approx(0.3)), ("BBB", 0.0)]
    assert [line.allocated for line in answer.asset_classes] == [pytest.approx(0.3)]
    assert sum(line.component for line in answer.strategies) == pytest.approx(answer.account.component)


def test_the_figures_are_those_of_the_limits() -> None:
    state = held(BOOK)
    reserve(state, "open", "BBB", -300, "one")
    rows = (*ROWS, row("risk_budget", 1.0))
    told_uses = limit_uses(state, terms(TWO, limits(*rows), MODEL), NOW_US)
    uses = {use.scope: use.value for use in told_uses if use.measure == "risk_budget"}
    answer = told(state, *rows)

    assert answer.account.allocated == pytest.approx(uses[f"account:{ACCOUNT}"])
    for line in answer.strategies:
        assert line.allocated == pytest.approx(uses[f"strategy:{line.name}"])
    assert named(answer.positions)["AAA"].allocated == pytest.approx(uses["symbol:AAA"])


def test_a_loan_is_told_on_both_sides() -> None:
    state = held(BOOK)
    asked = Lending(loan_id="L", giver="one", taker="two", share=0.3)
    for record in budget_lent(state, limits(*ROWS), asked, NOW_US, 0):
        state.apply(record)
    answer = told(state)
    one, two = named(answer.strategies)["one"], named(answer.strategies)["two"]

    assert (one.borrowed, one.available, one.can_add_risk) == (-0.3, 0.0, False)
    assert (two.borrowed, two.can_add_risk) == (0.3, True)
    assert two.available == pytest.approx(0.4)
    assert [loan.loan_id for loan in answer.loans] == ["L"]


@pytest.mark.parametrize(("lots", "adds"), [(189, True), (191, False)])
def test_risk_may_be_added_above_five_per_cent_of_headroom(lots: int, adds: bool) -> None:
    """Of 40 %, 2 % are left at 190 lots of AAA."""
    answer = told(held({("", "AAA"): lots}))

    assert named(answer.positions)["AAA"].can_add_risk is adds


def test_where_the_account_has_none_left_nobody_adds() -> None:
    answer = told(held({("one", "AAA"): 480}), row("risk_budget", 5.0, "strategy"))

    assert answer.account.can_add_risk is False
    assert answer.strategies[0].can_add_risk is False


def test_a_paused_strategy_adds_nothing() -> None:
    stop = Stop(Scope(ACCOUNT, strategy="one"), TradingState.REDUCE_ONLY, 3, NOW_US, "ops", "pause")
    answer = answered(held(BOOK), terms(TWO, limits(*ROWS), MODEL, Control(epoch=3, stops=(stop,))))
    lines = named(answer.strategies)

    assert (lines["one"].paused, lines["one"].can_add_risk) == (True, False)
    assert (lines["two"].paused, lines["two"].can_add_risk) == (False, True)


def test_a_tightening_shrinks_shares() -> None:
    state = held(BOOK)
    state.apply(
        Tightened(time_us=NOW_US, tightening_id="t", measures=("risk_budget",), factor=0.5, reason="a calm before")
    )

    assert named(told(state).strategies)["one"].share == 0.25


def test_a_caller_may_give_contributions_of_his_own() -> None:
    answer = told(held(BOOK), given={"one": 2_000.0, "two": -500.0})
    lines = named(answer.strategies)

    assert (answer.account.component, answer.account.allocated) == pytest.approx((1_500.0, 0.4))
    assert (lines["one"].allocated, lines["two"].allocated) == (0.4, 0.0)
    assert (answer.positions, answer.asset_classes) == ((), ())


def test_a_contribution_of_nobody_is_refused() -> None:
    with pytest.raises(InquiryError, match="'three' never had an order"):
        told(held(BOOK), given={"three": 1.0})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Unanswerable, match="no risk model"):
        told(held(BOOK), risk=None)


def test_an_empty_account_uses_nothing() -> None:
    answer = told(held({}))

    assert (answer.account.component, answer.account.allocated, answer.strategies) == (0.0, 0.0, ())
    assert answer.account.can_add_risk is True
