"""Positions cut back to a cap on a Greek that they have passed by far: how much, of what, once, and when not.

The book of tests/engine/option_books.py: a lot of CALL has vega 30, of PUT 20, of BCALL 10. Cut from twice the cap on.
"""

import pytest

from engine.account import AccountState
from engine.control import Control, Scope, Stop, TradingState
from engine.decide import Terms
from engine.instructions import due
from engine.limits import Limit, faults_of
from engine.measures import MEASURES
from engine.order import Reason, Side
from engine.records import Instructed, InstructionKind, SessionOpened
from engine.risk.model import RiskModel
from tests.engine.builders import NOW_US, account, fill, limits, reserve, row, terms
from tests.engine.option_books import MARKS, RISK, UNIVERSE, risk

VEGA = row("vega", 100.0)


def held(*positions: tuple[str, str, int]) -> AccountState:
    return account(UNIVERSE, MARKS, strategies={(strategy, symbol): lots for strategy, symbol, lots in positions})


def armed(*rows: Limit, cut_at: float | None = 2.0, built: RiskModel = RISK, control: Control | None = None) -> Terms:
    return terms(UNIVERSE, limits(*(rows or (VEGA,)), greeks_cut_at=cut_at), built, control)


def cuts(state: AccountState, under: Terms | None = None) -> list[Instructed]:
    """The orders that are due now, folded."""
    made = [one for one in due(state, under or armed(), NOW_US) if isinstance(one, Instructed)]
    for one in made:
        state.apply(one)
    return made


def lots_of(made: list[Instructed]) -> dict[tuple[str, str], int]:
    return {(one.order.strategy, one.order.symbol): one.lots for one in made if one.order is not None}


def test_far_past_the_cap_positions_on_its_side_are_cut_in_proportion_to_reach_it() -> None:
    """7 × 30 + 5 × 20 − 3 × 10 = 280: 180 of the 310 on its side are 58 %, 5 of the 7 calls and 3 of the 5 puts."""
    made = cuts(held(("one", "CALL", 7), ("two", "PUT", 5), ("two", "BCALL", -3)))

    assert lots_of(made) == {("one", "CALL"): 5, ("two", "PUT"): 3}
    assert {one.kind for one in made} == {InstructionKind.CUT}
    assert {one.reason for one in made} == {Reason.VEGA}
    assert all(one.order is not None and one.order.side is Side.SELL and one.order.reduce_only for one in made)


def test_a_short_is_bought_back() -> None:
    (made,) = cuts(held(("one", "CALL", -7)))

    assert made.order is not None
    assert (made.order.side, made.lots) == (Side.BUY, 4)  # 110 of 210


@pytest.mark.parametrize(("lots", "cut_at"), [(6, 2.0), (7, 2.1), (7, None)])
def test_up_to_the_multiple_nothing_is_cut(lots: int, cut_at: float | None) -> None:
    """6 calls are 180; 7 are 210, which is 2.1 times the cap and not past it."""
    assert cuts(held(("one", "CALL", lots)), armed(cut_at=cut_at)) == []


def test_open_orders_are_no_positions() -> None:
    state = held(("one", "CALL", 3))
    reserve(state, "open", "CALL", 20, "one")

    assert [one.kind for one in cuts(state)] == [InstructionKind.CANCEL]
    assert cuts(state) == []  # while the cancel is under way


def test_a_cut_is_asked_for_once_a_session() -> None:
    state = held(("one", "CALL", 7))
    (first,) = cuts(state)
    assert cuts(state) == []
    fill(state, first.client_order_id, 4, 5.0)
    assert cuts(state) == []
    reserve(state, "more", "CALL", 9, "one")
    fill(state, "more", 9, 5.0)
    assert cuts(state) == []
    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))

    later = risk(session_date=RISK.session_date.replace(day=15))
    assert lots_of(cuts(state, armed(built=later))) == {("one", "CALL"): 9}  # 260 of 360: 8.7 of 12


def test_two_caps_take_turns_and_none_sells_what_the_other_is_selling() -> None:
    """Vega 210 of 100, gamma 1,400 of 250: vega's turn, 4 of 7 calls. With 9 more both are past again, 12 calls and
    gamma 2,400: its turn, 2,150 of it are 10.75 calls."""
    caps = armed(VEGA, row("gamma", 250.0))
    state = held(("one", "CALL", 7))
    (first,) = cuts(state, caps)
    meanwhile = cuts(state, caps)
    fill(state, first.client_order_id, first.lots, 5.0)
    reserve(state, "more", "CALL", 9, "one")
    fill(state, "more", 9, 5.0)
    (second,) = cuts(state, caps)

    assert (first.reason, first.lots, meanwhile) == (Reason.VEGA, 4, [])
    assert (second.reason, second.lots) == (Reason.GAMMA, 11)


def test_by_underlying_only_that_one_is_cut() -> None:
    made = cuts(held(("one", "CALL", 7), ("one", "BCALL", 5)), armed(row("vega_underlying", 100.0)))

    assert lots_of(made) == {("one", "CALL"): 4}


def test_of_a_strategy_only_its_own_are_cut() -> None:
    made = cuts(held(("one", "CALL", 7), ("two", "CALL", 3)), armed(row("vega", 100.0, "strategy")))

    assert lots_of(made) == {("one", "CALL"): 4}


@pytest.mark.parametrize("action", ["warn"])
def test_a_cap_that_only_warns_cuts_nothing(action: str) -> None:
    assert cuts(held(("one", "CALL", 9)), armed(row("vega", 100.0, action=action))) == []


def test_what_cannot_be_told_cuts_nothing() -> None:
    stale = risk(built_time_us=NOW_US - 27 * 3600 * 1_000_000)

    assert cuts(held(("one", "CALL", 9)), armed(built=stale)) == []


def test_where_nothing_may_trade_nothing_is_cut() -> None:
    stop = Stop(Scope(), TradingState.HALTED, 1, NOW_US, "ops", "drill")

    assert cuts(held(("one", "CALL", 9)), armed(control=Control(epoch=1, stops=(stop,)))) == []


@pytest.mark.parametrize("cut_at", [0.9, float("nan"), float("inf")])
def test_a_multiple_that_makes_no_sense_is_refused(cut_at: float) -> None:
    (fault,) = faults_of(limits(greeks_cut_at=cut_at), MEASURES)

    assert fault.path == "limits.greeks_cut_at"
