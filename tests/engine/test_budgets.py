"""Risk budgets: allocated, at order time, with open orders; loans between strategies; hand-written numbers and the
decomposition of the risk analyst as an oracle.

Twenty days, so that VaR at 95 % is the worst loss and a component is what was lost on that one day. AAA loses 10 % then
and BBB gains 4 %; on the day before BBB loses 6 % alone. Equity is 100,000 and 5 % of it are shared out: 5,000.
"""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from engine.account import AccountState
from engine.budgets import NEIGHBOURS_MAX, Lending, borrowed, budget_lent, day_weights
from engine.decide import Terms, decide
from engine.facts import FactError
from engine.limits import Limit, LimitSet, faults_of
from engine.measures import MEASURES
from engine.measures.budget import account_weights, components
from engine.measures.measure import Survey
from engine.order import Action, Order, Reason
from engine.records import BudgetLent, Decided, decode, encode
from engine.risk.decomposition import Positions, historical_decomposition
from engine.risk.model import RiskModel
from engine.risk.var import tail_count, value_at_risk
from engine.utilisation import limit_uses
from tests.engine.books import SYMBOLS, Bench, benches, lots_of, orders
from tests.engine.builders import NOW_US, account, limits, model, order, reserve, row, sell, stock, terms, universe

TWO = universe(stock("AAA"), stock("BBB", sector="Energy"))
MARKS = {"AAA": 100.0, "BBB": 50.0}
MODEL = model({"AAA": [0.0] * 18 + [0.0, -0.10], "BBB": [0.0] * 18 + [-0.06, 0.04]})
HOUR_US = 3_600_000_000
SHARES = (row("risk_budget", 0.3, "strategy", match="one"), row("risk_budget", 0.1, "strategy", match="two"))


def held(strategies: dict[tuple[str, str], int] | None = None) -> AccountState:
    """100,000 in all, whatever is held of it."""
    value = sum(lots * MARKS[symbol] for (_, symbol), lots in (strategies or {}).items())
    return account(TWO, MARKS, strategies=strategies, cash=100_000.0 - value)


def armed(*rows: Limit, risk: RiskModel | None = MODEL, **policy: Any) -> Terms:
    return terms(TWO, limits(*rows, **policy), risk)


def judged(state: AccountState, asked: Order, *rows: Limit, **fields: Any) -> Decided:
    return decide(state, armed(*rows, **fields), asked, NOW_US)


def read(state: AccountState, asked: Order, scope: str = "account", **policy: Any) -> tuple[float | None, float | None]:
    record = judged(state, asked, row("risk_budget", 1e9, scope), **policy)
    found = next(check for check in record.checks if check.measure == "risk_budget")
    return found.before, found.after


# --- what is allocated --------------------------------------------------------------------------------------------


def test_a_position_uses_what_it_lost_on_the_day_of_the_var() -> None:
    """10,000 of AAA lose 1,000 of the 5,000; 5,000 more lose 500."""
    assert read(held({("", "AAA"): 100}), order(quantity=50)) == pytest.approx((0.2, 0.3))


def test_a_hedge_uses_nothing_and_gives_nothing_back_to_the_total() -> None:
    """BBB gains 200 on that day: its component is negative, and the total stays at what AAA uses."""
    state = held({("", "AAA"): 100, ("", "BBB"): 100})

    assert read(state, order(quantity=50)) == pytest.approx((0.2, 0.3))
    assert read(state, order("BBB", quantity=20), "symbol") == pytest.approx((0.0, 0.0))


def test_the_order_may_move_the_day_that_counts() -> None:
    """20,000 of BBB lose 1,200 on the day before, more than AAA and BBB together on the last: then it is the VaR."""
    state = held({("", "AAA"): 100})

    assert read(state, order("BBB", quantity=400), "symbol") == pytest.approx((0.0, 0.24))
    assert read(state, order("BBB", quantity=400)) == pytest.approx((0.2, 0.24))


def test_open_orders_are_counted_at_their_worst() -> None:
    state = held({("", "AAA"): 100})
    reserve(state, "buy", "AAA", 50)
    reserve(state, "hedge", "BBB", 200)

    assert read(state, order(quantity=50)) == pytest.approx((0.3, 0.4))


@pytest.mark.parametrize(
    ("scope", "expected"), [("strategy", 0.3), ("symbol", 0.4), ("asset_class", 0.4), ("sector", 0.4), ("account", 0.4)]
)
def test_each_scope_adds_up_its_own_positions(scope: str, expected: float) -> None:
    state = held({("one", "AAA"): 100, ("two", "AAA"): 50})

    assert read(state, order(quantity=50, strategy="one"), scope)[1] == pytest.approx(expected)


def test_half_the_equity_shared_out_is_used_half_as_fast() -> None:
    assert read(held({("", "AAA"): 100}), order(quantity=50), budget_var_limit=0.10) == pytest.approx((0.1, 0.15))


def test_within_its_share_it_trades_past_it_nothing_but_what_closes() -> None:
    """20 % of 5,000 are the loss of 10,000 of AAA: 100 lots."""
    limit, state = row("risk_budget", 0.2, "symbol"), held({("", "AAA"): 90})

    fits, passes = judged(state, order(quantity=10), limit), judged(state, order(quantity=11), limit)
    out = judged(held({("", "AAA"): 200}), sell(quantity=50), limit)

    assert (fits.action, passes.reason, out.action) == (Action.ALLOW, Reason.RISK_BUDGET, Action.ALLOW)


def test_it_cuts_an_order_to_what_its_share_leaves() -> None:
    record = judged(held({("", "AAA"): 90}), order(quantity=50), row("risk_budget", 0.2, "symbol", "reduce"))

    assert (record.action, record.allowed_lots) == (Action.REDUCE, 10)


@pytest.mark.parametrize(
    ("risk", "reason"),
    [
        (None, Reason.MODEL_MISSING),
        (model({"AAA": [0.0] * 20, "BBB": []}), Reason.HISTORY_MISSING),
        (model({"AAA": [0.0] * 20, "BBB": [0.0] * 20}, built_time_us=NOW_US - 27 * HOUR_US), Reason.MODEL_STALE),
        (model({"AAA": [0.0] * 5, "BBB": [0.0] * 5}), Reason.HISTORY_MISSING),
    ],
)
def test_what_cannot_be_known_opens_nothing_and_lets_out(risk: RiskModel | None, reason: Reason) -> None:
    state, limit = held({("", "AAA"): 10}), row("risk_budget", 1e9)

    assert judged(state, order("BBB"), limit, risk=risk).reason is reason
    assert judged(state, sell(), limit, risk=risk).action is Action.ALLOW


def test_without_equity_there_is_no_budget() -> None:
    state = account(TWO, MARKS, cash=0.0)

    assert judged(state, order(), row("risk_budget", 1e9)).reason is Reason.EQUITY_NOT_POSITIVE


# --- the same figures by other ways --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(benches)
def test_components_are_those_of_the_risk_analyst(bench: Bench) -> None:
    state, risk = bench.state, bench.risk
    survey = Survey(state, bench.terms(limits()).instruments, risk, limits(budget_confidence=0.9).policy, NOW_US)
    view, columns, weights = account_weights(survey)
    positions = Positions.of(SYMBOLS, view.stake.low * 0 + _held(state), view.low, view.high)
    losses = view.losses(columns)[: columns.days]
    neighbours = min(tail_count(losses.size, 0.9) - 1, NEIGHBOURS_MAX)

    oracle = historical_decomposition(positions, risk.returns[: risk.n_days], 0.9, neighbours=neighbours)

    assert components(view, columns, weights) == pytest.approx(oracle.component, abs=1e-6)
    assert float(weights @ losses) == pytest.approx(value_at_risk(losses, 0.9), abs=1e-6)


def _held(state: AccountState) -> Any:
    return state.book.lots * state.unit_values()


@settings(max_examples=60, deadline=None)
@given(benches, orders())
def test_before_and_after_are_those_of_the_books_without_and_with_the_order(bench: Bench, asked: Order) -> None:
    """Once it is open, an order's own `after` is what stands."""
    row_of = row("risk_budget", 1e15)
    check = next(
        one
        for one in decide(bench.state, bench.terms(limits(row_of)), asked, NOW_US).checks
        if one.measure == "risk_budget"
    )
    before = _standing(bench)
    reserve(bench.state, "then", asked.symbol, lots_of(asked) * asked.side.sign, asked.strategy)

    assert check.before == pytest.approx(before, abs=1e-9)
    assert check.after == pytest.approx(_standing(bench), abs=1e-9)


def _standing(bench: Bench) -> float | None:
    uses = limit_uses(bench.state, bench.terms(limits(row("risk_budget", 1e15))), NOW_US)
    return next(use.value for use in uses if use.measure == "risk_budget")


@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.99])
def test_weights_sum_to_the_var(confidence: float) -> None:
    losses = np.random.default_rng(7).normal(1.0, 3.0, 756)

    assert float(day_weights(losses, confidence) @ losses) == pytest.approx(value_at_risk(losses, confidence))


def test_weights_of_losses_about_zero_are_those_of_the_one_day() -> None:
    losses = np.array([0.0] * 50)

    assert day_weights(losses, 0.95).sum() == pytest.approx(1.0)


def test_weights_refuse_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="losses: expected finite"):
        day_weights(np.array([1.0, np.nan]), 0.95)


# --- lending ------------------------------------------------------------------------------------------------------


def lend(state: AccountState, share: float, armed_set: LimitSet | None = None, **fields: Any) -> list[Any]:
    like = Lending(loan_id="L1", giver="one", taker="two", share=share)
    asked = msgspec.structs.replace(like, **fields)
    records = budget_lent(state, armed_set or limits(*SHARES), asked, NOW_US, 0)
    for record in records:
        state.apply(record)
    return records


def test_a_loan_moves_a_share_from_one_to_the_other() -> None:
    """`two` may use 10 % and borrows 20: 150 lots of AAA are 30 %, one more is not; `one` has 10 % left."""
    state = held()
    lend(state, 0.2)

    assert judged(state, order(quantity=150, strategy="two"), *SHARES).action is Action.ALLOW
    assert judged(state, order(quantity=151, strategy="two"), *SHARES).reason is Reason.RISK_BUDGET
    assert judged(state, order(quantity=49, strategy="one"), *SHARES).action is Action.ALLOW
    assert judged(state, order(quantity=51, strategy="one"), *SHARES).reason is Reason.RISK_BUDGET


def test_a_loan_changes_nothing_of_the_account_or_a_symbol() -> None:
    state = held({("one", "AAA"): 100})
    lend(state, 0.2)

    for scope in ("account", "symbol", "asset_class"):
        assert read(state, order(quantity=50, strategy="one"), scope) == pytest.approx((0.2, 0.3))


def test_a_loan_ends_by_itself_to_the_microsecond() -> None:
    state = held()
    lend(state, 0.2, until_us=NOW_US + HOUR_US)
    big = order(quantity=150, strategy="two")
    wide = armed(*SHARES, row("mark_age", 1e9))

    assert decide(state, wide, big, NOW_US + HOUR_US - 1).action is Action.ALLOW
    assert decide(state, wide, big, NOW_US + HOUR_US).reason is Reason.RISK_BUDGET


def test_a_loan_is_ended_by_hand_and_survives_a_restart_until_then() -> None:
    """A restart folds the same bytes."""
    state, again = held(), held()
    for record in (*lend(state, 0.2), *lend(state, 0.1)):
        again.apply(decode(encode(record)))

    assert again.loans == state.loans
    assert [loan.share for loan in state.loans] == [0.1]
    assert borrowed(state.loans, "two", NOW_US) == pytest.approx(0.1)
    lend(state, 0.0)
    assert state.loans == ()


def test_loans_leave_a_forks_parent_alone() -> None:
    state = held()
    lend(state.fork(), 0.2)

    assert state.loans == ()


def test_the_same_loan_twice_is_one_record() -> None:
    state = held()

    assert (len(lend(state, 0.2)), len(lend(state, 0.2)), len(lend(held(), 0.0))) == (1, 0, 0)


def test_nobody_lends_more_than_he_has() -> None:
    state = held()
    lend(state, 0.2)

    with pytest.raises(FactError, match=r"'one' has 0.1000 to lend, asked are 0.1100"):
        lend(state, 0.11, loan_id="L2")
    lend(state, 0.3)  # in its place, and no more than 30 % in all
    lend(state, 0.4, loan_id="back", giver="two", taker="one")  # what it borrowed and its own


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"loan_id": " "}, "loan_id"),
        ({"taker": "one"}, "to_strategy"),
        ({"share": float("nan")}, "share"),
        ({"share": -0.1}, "share"),
        ({"until_us": NOW_US}, "end_time"),
        ({"giver": "three"}, "from_strategy"),
        ({"taker": "three"}, "to_strategy"),
    ],
)
def test_a_loan_that_makes_no_sense_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FactError) as caught:
        lend(held(), **({"share": 0.1} | fields))

    assert caught.value.field == field


def test_a_loan_of_another_pair_keeps_its_id() -> None:
    state = held()
    lend(state, 0.1)

    with pytest.raises(FactError, match="end that one first"):
        lend(state, 0.1, giver="two", taker="one")


def test_the_report_counts_loans_too() -> None:
    state = held({("one", "AAA"): 50, ("two", "AAA"): 50})
    lend(state, 0.2)

    uses = limit_uses(state, armed(*SHARES), NOW_US)

    found = {use.scope: use.value for use in uses if use.measure == "risk_budget"}
    assert found == {"strategy:one": pytest.approx(0.3), "strategy:two": pytest.approx(-0.1)}


def test_the_record_says_who_and_why() -> None:
    (record,) = lend(held(), 0.2, actor="ops", reason="quiet week")

    assert isinstance(record, BudgetLent)
    assert (record.actor, record.reason) == ("ops", "quiet week")


# --- what a limit set may say -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parent", "children", "fits"), [(1.0, (0.6, 0.4), True), (0.9, (0.6, 0.4), False)])
def test_children_have_no_more_than_their_parent(parent: float, children: tuple[float, float], fits: bool) -> None:
    rows = [row("risk_budget", share, "strategy", match=name) for name, share in zip("ab", children, strict=True)]
    faults = [str(fault) for fault in faults_of(limits(row("risk_budget", parent), *rows), MEASURES)]

    assert (not faults) is fits
    assert fits or "0.9 is less than the 1 that its strategies a, b have" in faults[0]


def test_warnings_and_other_accounts_are_not_added_up() -> None:
    shares = (
        row("risk_budget", 0.9, "strategy", match="a", account="ALPHA"),
        row("risk_budget", 0.9, "strategy", match="b", account="BETA"),
        row("risk_budget", 0.9, "strategy", "warn", match="c"),
    )

    assert not list(faults_of(limits(row("risk_budget", 1.0), *shares), MEASURES))


@pytest.mark.parametrize(
    "policy",
    [
        {"budget_var_limit": 0.0},
        {"budget_var_limit": float("nan")},
        {"budget_confidence": 0.5},
        {"budget_headroom_min": 2},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    (fault,) = faults_of(limits(**policy), MEASURES)

    assert fault.path == f"limits.{next(iter(policy))}"
