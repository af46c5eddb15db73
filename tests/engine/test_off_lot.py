"""Fills that are no whole number of lots: counted so that no position left behind is understated by more than its part
of a lot, and so that parts don't add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.control import Control, TradingState
from engine.facts import Execution, executed
from engine.records import Executed, ExecutionKind
from tests.engine.builders import ACCOUNT, NOW_US, account, reserve, stock, universe

ONE = universe(stock("AAA"))


def holding(lots: int) -> AccountState:
    return account(ONE, {"AAA": 100.0}, positions={"AAA": lots})


def told(
    state: AccountState, quantity: float, cumulative: float = 0.0, kind: str = ExecutionKind.FILL, name: str = "one"
) -> Executed:
    said = Execution(
        account=ACCOUNT,
        execution_id=f"x{state.seq}",
        client_order_id=name,
        kind=kind,
        last_quantity=quantity,
        last_price=100.0 if quantity else 0.0,
        cumulative_quantity=cumulative,
    )
    (record,) = executed(state, ONE, said, NOW_US, 0)
    state.apply(record)
    assert isinstance(record, Executed)
    return record


def position(state: AccountState) -> int:
    return int(state.book.lots[0])


@pytest.mark.parametrize(
    ("held", "side", "quantity", "left"),
    [
        (10, -1, 2.5, 8),  # 7.5 in truth
        (-10, 1, 2.5, -8),
        (10, 1, 2.5, 13),
        (-10, -1, 2.5, -13),
        (0, -1, 2.5, -3),
        (2, -1, 2.5, -1),  # −0.5: flat would understate it
        (2, -1, 1.5, 1),
        (1, -1, 0.25, 1),
    ],
)
def test_the_larger_position_is_left_behind(held: int, side: int, quantity: float, left: int) -> None:
    state = holding(held)
    reserve(state, "one", "AAA", side * 10)

    record = told(state, quantity)

    assert (position(state), record.flags, record.latches) == (left, ("off_lot",), ())


@given(st.integers(-12, 12), st.sampled_from([-1, 1]), st.floats(0.01, 12.0))
def test_no_position_is_understated(held: int, side: int, quantity: float) -> None:
    state = holding(held)
    reserve(state, "one", "AAA", side * 20)

    told(state, quantity)

    assert abs(position(state)) >= abs(held + side * quantity) - 1e-6
    assert abs(position(state) - (held + side * quantity)) < 1


def test_parts_of_a_lot_do_not_add_up_where_the_cumulative_quantity_is_told() -> None:
    state = holding(10)
    reserve(state, "one", "AAA", -5)

    seen = [(told(state, 1.25, cumulative).lots, position(state)) for cumulative in (1.25, 2.5, 3.75, 5.0)]

    assert seen == [(1, 9), (1, 8), (1, 7), (2, 5)]
    assert state.orders == {}


def test_a_part_of_a_lot_keeps_nothing_reserved_once_the_order_has_ended() -> None:
    state = holding(10)
    reserve(state, "one", "AAA", -5)
    told(state, 2.5, 2.5)
    assert (position(state), int(state.book.sells[0])) == (8, 3)

    told(state, 0.0, 2.5, ExecutionKind.CANCELLED)

    assert (state.orders, int(state.book.sells[0])) == ({}, 0)


def test_a_missing_part_of_a_lot_stays_reserved_as_a_whole_one() -> None:
    state = holding(10)
    reserve(state, "one", "AAA", -5)

    told(state, 0.0, 2.5, ExecutionKind.CANCELLED)

    assert int(state.book.sells[0]) == 3


def test_an_off_lot_fill_of_an_unknown_order_latches_as_any_other() -> None:
    state = holding(1)
    said = Execution(
        account=ACCOUNT,
        execution_id="x",
        client_order_id="never",
        kind="fill",
        symbol="AAA",
        sign=-1,
        last_quantity=0.25,
        last_price=100.0,
    )

    (record,) = executed(state, ONE, said, NOW_US, 0)
    state.apply(record)

    assert record.flags == ("unknown_order", "off_lot")  # type: ignore[union-attr]
    assert state.latched_state(Control(), "", "AAA") is TradingState.REDUCE_ONLY
