"""Limits of the firm, handed down: each account holds its share, and what all may have together is within the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide import decide
from engine.instrument import InstrumentSet
from engine.limits import LimitError, LimitSet, ScopeKind, Unit, check_rows, share_of
from engine.measures import MEASURES
from engine.order import Action
from engine.risk.model import RiskModel
from engine.utilisation import limit_uses
from tests.engine import option_books
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    account,
    fill,
    limits,
    model,
    order,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
)

AAA = universe(stock("AAA", beta=1.0))
FIRM = sorted(name for name, measure in MEASURES.items() if ScopeKind.FIRM in measure.scopes)
RISK = model({"AAA": [(at - 20) / 1000 for at in range(40)]}, {"crash": {"AAA": -0.3}})
ADDITIVE = {
    "daily_loss",
    "weekly_loss",
    "position",  # of a symbol: the sizes of sums are at most the sums of sizes, here and below
    "gross_exposure",
    "net_exposure",
    "beta_exposure",
    "concentration",
    "es_95",
    "es_99",
    "stress_loss",
    "volatility",
    "open_orders",
    "open_positions",
    "traded_quantity",
    "traded_value",
    "delta_net",
    "delta_underlying",
}
OF_OPTIONS = {f"{greek}{which}" for greek in ("gamma", "theta_day", "vega") for which in ("", "_underlying")}
"""Sums like the others; a stock has no part in them."""

shares = st.dictionaries(st.sampled_from("ABCDEF"), st.floats(0, 1), min_size=1)


def test_the_firm_has_limits_only_on_what_adds_up_over_accounts() -> None:
    assert set(FIRM) == ADDITIVE | OF_OPTIONS


def traded(name: str) -> tuple[InstrumentSet, dict[str, float], RiskModel, str]:
    """What an order takes of a measure: instruments, marks, model, symbol."""
    if name in OF_OPTIONS:
        return option_books.UNIVERSE, option_books.MARKS, option_books.RISK, "CALL"
    return AAA, {"AAA": 100.0}, RISK, "AAA"


@given(shares, st.floats(0, 1e9))
def test_what_all_accounts_may_have_is_never_more_than_the_firm_may(table: dict[str, float], bound: float) -> None:
    limit = row("gross_exposure", bound, "firm", allocation=table)

    try:
        check_rows(LimitSet((limit,)), MEASURES)
    except LimitError:
        assert sum(table.values()) > 1
        return
    bounds = [limit.limit * share_of(limit, name) for name in "ABCDEFG"]
    assert sum(bounds) <= bound * (1 + 1e-8)
    assert bounds[-1] == 0.0


@pytest.mark.parametrize("name", FIRM)
def test_an_account_without_a_share_opens_nothing_and_closes_everything(name: str) -> None:
    instruments, marks, risk, symbol = traded(name)
    state = account(instruments, marks, positions={symbol: 10})
    reserve(state, "bought", symbol, 2)
    fill(state, "bought", 2)
    limit = row(name, 1e9, "firm", allocation={"SOMEONE ELSE": 1.0})
    under = terms(instruments, limits(limit), risk)

    more, out = decide(state, under, order(symbol), NOW_US), decide(state, under, sell(symbol, quantity=12), NOW_US)

    assert (more.action, more.reason, out.action) == (Action.REJECT, MEASURES[name].reason, Action.ALLOW)
    assert {use.limit for use in limit_uses(state, under, NOW_US) if use.measure == name} == {0.0}


@pytest.mark.parametrize("name", [name for name in FIRM if MEASURES[name].fit is not None])
def test_an_account_is_held_to_its_share_and_reduced_to_it(name: str) -> None:
    """A tenth of a bound that is ten times as far as an account of its own would get."""
    instruments, marks, risk, symbol = traded(name)
    state = account(instruments, marks)
    unit = Unit.MONEY if Unit.MONEY in MEASURES[name].units else None
    mine = row(name, 900.0 if unit else 9.0, "account" if name != "position" else "symbol", "reduce", unit=unit)
    firm = row(name, mine.limit * 10, "firm", "reduce", unit=unit, allocation={ACCOUNT: 0.1, "OTHER": 0.9})

    alone, handed_down = (
        decide(state, terms(instruments, limits(one), risk), order(symbol, quantity=500_000), NOW_US)
        for one in (mine, firm)
    )

    assert alone.action is handed_down.action is Action.REDUCE
    assert alone.allowed_lots == handed_down.allowed_lots > 0
