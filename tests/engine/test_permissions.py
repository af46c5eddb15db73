"""Restricted lists, market phases, duplicates and minima: what may not be sent, and the exits that they never trap."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import account as account_module
from engine.account import AccountState
from engine.decide import decide
from engine.facts import Quote, observation
from engine.headroom import headroom
from engine.instrument import MarketPhase
from engine.limits import Limit, LimitMode
from engine.order import Action, Order, OrderType, Reason, Side, TimeInForce
from engine.records import Decided, Quoted, Valued, decode, encode
from tests.engine.builders import (
    NOW_US,
    account,
    approval,
    limits,
    order,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)

SECOND_US = 1_000_000
MARKS = {"AAA": 100.0, "BBB": 50.0}
TWO = universe(stock("AAA", sector="Tech"), stock("BBB", sector="Energy"))
PHASES = [phase for phase in MarketPhase if phase is not MarketPhase.UNKNOWN]


def judged(
    asked: Order, *rows: Limit, state: AccountState | None = None, now_us: int = NOW_US, **policy: float
) -> Decided:
    held = state if state is not None else account(TWO, MARKS)
    return decide(held, terms(TWO, limits(*rows, **policy)), asked, now_us)


# --- restricted lists -----------------------------------------------------------------------------------------------


def test_a_restricted_symbol_may_be_sold_out_of_and_not_bought_or_flipped() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    listed = row("restricted", 0, "symbol", match="AAA")

    more, out, through = (judged(one, listed, state=state) for one in (order(), sell(quantity=10), sell(quantity=11)))

    assert (more.reason, more.message) == (
        Reason.RESTRICTED,
        "restricted of symbol:AAA: AAA is restricted; positions in it may only be reduced",
    )
    assert (out.action, through.reason) == (Action.ALLOW, Reason.RESTRICTED)
    assert judged(order("BBB"), listed, state=state).action is Action.ALLOW


def test_a_whole_sector_is_restricted_and_a_list_in_shadow_only_says_so() -> None:
    assert judged(order("BBB"), row("restricted", 0, "sector", match="Energy")).reason is Reason.RESTRICTED

    shadow = judged(order("BBB"), row("restricted", 0, "sector", match="Energy", mode=LimitMode.SHADOW))

    assert shadow.action is Action.ALLOW
    assert [one.reason for one in shadow.checks if one.shadow] == [Reason.RESTRICTED]


# --- market phases --------------------------------------------------------------------------------------------------


def in_phase(phase: int, positions: dict[str, int] | None = None, time_us: int = NOW_US) -> AccountState:
    return account(TWO, MARKS | {"AAA": Quoted(100.0, None, None, time_us, phase)}, positions=positions)


PHASE = row("market_phase", 0, "symbol")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("time_in_force", list(TimeInForce))
def test_outside_continuous_trading_only_what_an_auction_collects_passes(
    phase: MarketPhase, time_in_force: TimeInForce
) -> None:
    record = judged(order(time_in_force=time_in_force, valid_for_us=1), PHASE, state=in_phase(phase))

    collected = {
        MarketPhase.PRE_OPEN: TimeInForce.AT_OPEN,
        MarketPhase.OPENING_AUCTION: TimeInForce.AT_OPEN,
        MarketPhase.CLOSING_AUCTION: TimeInForce.AT_CLOSE,
    }
    passes = phase is MarketPhase.CONTINUOUS or collected.get(phase) is time_in_force
    assert record.reason is (Reason.NONE if passes else Reason.MARKET_PHASE)


@pytest.mark.parametrize("phase", [MarketPhase.UNKNOWN, 99])
def test_a_phase_that_nobody_told_or_nobody_knows_opens_nothing_and_closes(phase: int) -> None:
    state = in_phase(phase, {"AAA": 5})

    more, out = judged(order(), PHASE, state=state), judged(sell(quantity=5), PHASE, state=state)

    assert (more.action, more.reason, more.checks[0].after) == (Action.REJECT, Reason.MARKET_PHASE, None)
    assert "no market phase of AAA was told" in more.message
    assert out.action is Action.ALLOW


def test_a_halt_is_named_as_one_although_the_price_is_stale_too() -> None:
    """A halted symbol has no news: that its mark is old says nothing of the feed."""
    halted = judged(order(), PHASE, state=in_phase(MarketPhase.HALTED, time_us=NOW_US - 60 * SECOND_US))
    stale = judged(order(), PHASE, state=in_phase(MarketPhase.CONTINUOUS, time_us=NOW_US - 60 * SECOND_US))

    assert (halted.reason, stale.reason) == (Reason.MARKET_PHASE, Reason.MARK_STALE)
    assert halted.message == "market_phase of symbol:AAA: AAA is HALTED, which takes no DAY order"


def test_a_phase_that_changes_at_an_unchanged_price_is_observed() -> None:
    state = in_phase(MarketPhase.CONTINUOUS)
    halted = Quote("AAA", 100.0, None, None, NOW_US, MarketPhase.HALTED)

    record = observation(state, {"AAA": halted}, ["AAA"], NOW_US, 0)

    assert record is not None and record.marks["AAA"].phase == MarketPhase.HALTED
    state.apply(record)
    assert observation(state, {"AAA": halted}, ["AAA"], NOW_US, 0) is None


@pytest.mark.parametrize("phase", PHASES)
def test_no_phase_traps_an_exit(phase: MarketPhase) -> None:
    assert judged(sell(quantity=5), PHASE, state=in_phase(phase, {"AAA": 5})).action is Action.ALLOW


def test_a_mark_without_a_phase_takes_back_what_was_told() -> None:
    state = in_phase(MarketPhase.CONTINUOUS)
    state.apply(valued({"AAA": 101.0}))

    assert judged(order(), PHASE, state=state).reason is Reason.MARKET_PHASE


def test_a_mark_of_a_log_that_knew_no_phases_is_read_as_one_that_told_none() -> None:
    record = valued({"AAA": Quoted(100.0, None, None, NOW_US, MarketPhase.HALTED)})
    found = decode(encode(record).replace(b",5]", b"]"))

    assert decode(encode(record)) == record
    assert isinstance(found, Valued) and found.marks == {"AAA": Quoted(100.0, None, None, NOW_US)}


# --- duplicates -----------------------------------------------------------------------------------------------------

TWICE = row("duplicate_order", 2, window_s=2.0)


def approved(state: AccountState, name: str, lots: int = 1, time_us: int = NOW_US, **fields: Any) -> None:
    state.apply(approval(order(client_order_id=name, quantity=float(lots), **fields), lots, time_us))


def test_the_same_order_under_other_ids_is_let_through_as_often_as_the_limit_says() -> None:
    state = account(TWO, MARKS)
    approved(state, "one")
    second = judged(order(client_order_id="two"), TWICE, state=state)
    approved(state, "two")

    third = judged(order(client_order_id="three"), TWICE, state=state)
    later = judged(order(client_order_id="three"), TWICE, state=state, now_us=NOW_US + 2 * SECOND_US)

    assert (second.action, third.reason, later.action) == (Action.ALLOW, Reason.DUPLICATE_ORDER, Action.ALLOW)
    assert (third.checks[1].measure, third.checks[1].before, third.checks[1].after) == ("duplicate_order", 2.0, 3.0)


@pytest.mark.parametrize(
    "other",
    [
        {"symbol": "BBB"},
        {"side": Side.SELL},
        {"quantity": 2.0},
        {"strategy": "rl"},
        {"limit_price": 100.0},
        {"order_type": OrderType.STOP, "stop_price": 120.0},
        {"replaces_client_order_id": "one"},
    ],
)
def test_an_order_that_differs_in_anything_but_its_id_is_none(other: dict[str, Any]) -> None:
    state = account(TWO, MARKS)
    approved(state, "one")
    asked = order(**({"client_order_id": "two"} | other))

    assert judged(asked, row("duplicate_order", 1), state=state).reason is not Reason.DUPLICATE_ORDER


def test_an_order_that_was_refused_is_done_again_once_it_fits() -> None:
    state = account(TWO, MARKS)
    state.apply(judged(order(client_order_id="one"), row("restricted", 0, "symbol", match="AAA"), state=state))

    assert judged(order(client_order_id="two"), row("duplicate_order", 1), state=state).action is Action.ALLOW


def test_a_slice_that_closes_is_no_duplicate_of_the_one_before() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    reserve(state, "one", "AAA", -5)

    record = judged(sell(quantity=5, client_order_id="two"), row("duplicate_order", 1), state=state)

    assert (record.action, record.checks[1].reduction) == (Action.ALLOW, True)


def test_what_a_dropped_fork_approved_is_no_duplicate_and_a_settled_one_s_is() -> None:
    state = account(TWO, MARKS)
    dropped = state.fork()
    approved(dropped, "one")
    asked = order(client_order_id="two")
    assert judged(asked, row("duplicate_order", 1), state=dropped).reason is Reason.DUPLICATE_ORDER
    assert judged(asked, row("duplicate_order", 1), state=state).action is Action.ALLOW

    kept = state.fork()
    approved(kept, "one")
    kept = kept.settle()

    assert judged(asked, row("duplicate_order", 1), state=kept).reason is Reason.DUPLICATE_ORDER


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4_000)), max_size=60))
def test_within_the_longest_window_every_approval_is_remembered(
    asked: list[tuple[int, int]],
) -> None:
    state = account(TWO, MARKS)
    now_us, told = NOW_US, []
    for at, (lots, wait_s) in enumerate(asked):
        now_us += wait_s * SECOND_US
        fork = state.fork()
        approved(fork, f"o{at}", lots, now_us)
        state = fork.settle()
        told.append((lots, now_us))

    for lots in (1, 2, 3):
        alike = sum(1 for count, at_us in told if count == lots and at_us > now_us - 3600 * SECOND_US)
        assert state.approved_alike(order(quantity=float(lots)), now_us - 3600 * SECOND_US) == alike


def test_approvals_that_no_window_reaches_any_more_are_forgotten() -> None:
    state = account(TWO, MARKS)
    for at in range(200):
        approved(state, f"o{at}", at + 1)
    later_us = NOW_US + 3601 * SECOND_US

    for at in range(10):
        fork = state.fork()
        approved(fork, f"later{at}", 500, later_us)
        state = fork.settle()

    assert len(state.approvals) == 1
    assert state.approved_alike(order(quantity=500.0), later_us - SECOND_US) == 10


def test_only_the_latest_approvals_of_an_order_are_remembered() -> None:
    state = account(TWO, MARKS)
    for at in range(150):
        approved(state, f"o{at}")

    assert state.approved_alike(order(), 0) == account_module.APPROVALS_ALIKE_MAX == 100


def test_headroom_is_asked_about_and_sent_by_nobody() -> None:
    state = account(TWO, MARKS)
    approved(state, "one")

    under = terms(TWO, limits(row("duplicate_order", 1), row("position", 7, "symbol")))

    found = headroom(state, under, "", "AAA", NOW_US)

    assert found.buy.lots == 6


# --- minima ---------------------------------------------------------------------------------------------------------

MINIMAL = universe(stock("AAA", quantity_min=10.0, lot_size=0.5), stock("BBB"))


def minimal(
    asked: Order, *rows: Limit, positions: dict[str, int] | None = None, without: str = "", **policy: float
) -> Decided:
    """AAA trades in lots of 0.5 from 10 on; `without`: the symbol that has no mark."""
    marks = {symbol: mark for symbol, mark in MARKS.items() if symbol != without}
    return decide(account(MINIMAL, marks, positions=positions), terms(MINIMAL, limits(*rows, **policy)), asked, NOW_US)


def test_below_the_least_quantity_only_what_reduces_passes() -> None:
    assert minimal(order(quantity=9.5)).reason is Reason.QUANTITY_MIN
    assert minimal(order(quantity=10.0)).action is Action.ALLOW

    out = minimal(sell(quantity=1.5), positions={"AAA": 3})
    through = minimal(sell(quantity=2.0), positions={"AAA": 3})

    assert (out.action, through.reason) == (Action.ALLOW, Reason.QUANTITY_MIN)
    assert "2 is below the least quantity of AAA, 10" in through.message


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        (order("BBB", quantity=20), True),
        (order("BBB", quantity=19), False),
        (order("BBB", quantity=20, limit_price=49.0), False),
        (order("BBB", quantity=10, limit_price=100.0), True),
        (order("BBB", quantity=10, order_type=OrderType.STOP, stop_price=100.0), True),
    ],
)
def test_the_least_value_is_judged_at_the_orders_own_price_else_at_the_mark(asked: Order, passes: bool) -> None:
    record = minimal(asked, order_value_min=1000.0)

    assert record.reason is (Reason.NONE if passes else Reason.ORDER_VALUE_MIN)


def test_a_least_value_that_cannot_be_told_refuses_and_lets_out() -> None:
    opening = minimal(order("BBB", quantity=1e6), without="BBB", order_value_min=1000.0)
    closing = minimal(sell("BBB", quantity=3), positions={"BBB": 3}, without="BBB", order_value_min=1000.0)

    assert (opening.reason, closing.action) == (Reason.MARK_MISSING, Action.ALLOW)


def test_a_limit_that_leaves_less_than_the_minimum_leaves_what_closes_or_nothing() -> None:
    """10.5 may be sold to end at 9 short; of 20 that are wanted, room for 9.5 is not worth sending."""
    short = row("position", 8.0, "symbol", "reduce")

    nothing = minimal(sell(quantity=20.0), short)
    closes = minimal(sell(quantity=20.0), short, positions={"AAA": 3})

    assert (nothing.action, nothing.reason, nothing.allowed_lots) == (Action.REJECT, Reason.POSITION, 0)
    assert nothing.message.endswith(
        "of what is left, 8 is below the least quantity of AAA, 10; only what reduces the position may be smaller"
    )
    assert (closes.action, closes.allowed_lots) == (Action.REDUCE, 3)


@pytest.mark.parametrize(
    ("held", "bound", "bought", "sold", "why_sold"),
    [
        (0, 50.0, 100, 100, Reason.POSITION),
        (0, 9.5, 0, 0, Reason.POSITION),
        (3, 50.0, 97, 103, Reason.POSITION),
        (3, 8.0, 0, 3, Reason.QUANTITY_MIN),
    ],
)
def test_headroom_starts_at_the_minimum(held: int, bound: float, bought: int, sold: int, why_sold: Reason) -> None:
    state = account(MINIMAL, MARKS, positions={"AAA": held})
    under = terms(MINIMAL, limits(row("position", bound, "symbol")))

    found = headroom(state, under, "", "AAA", NOW_US)

    assert (found.buy.lots, found.sell.lots, found.sell.reason) == (bought, sold, why_sold)
    for asked, room in ((order, found.buy), (sell, found.sell)):
        sizes = [lots for lots in range(1, 120) if decide(state, under, asked(quantity=lots / 2), NOW_US).action.allows]
        assert max(sizes, default=0) == room.lots
