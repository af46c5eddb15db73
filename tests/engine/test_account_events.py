"""What happens to positions without an order: lots, cost, cash, equity and open orders after it, in numbers."""

import datetime
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.account_events import (
    CORRECTED,
    CorrectedFill,
    DividendPaidTold,
    DividendTold,
    PositionEvent,
    ReversalTold,
    SettlementTold,
    SplitTold,
    position_event,
)
from engine.control import TradingState
from engine.decide import decide
from engine.facts import Execution, FactError, Quote, executed, observation
from engine.instructions import due, planned_cuts
from engine.instrument import (
    AssetClass,
    Instrument,
    InstrumentSet,
    OptionModel,
    OptionRight,
    OptionStyle,
    OptionTerms,
)
from engine.order import Action, Reason
from engine.pnl import profit_and_loss
from engine.records import (
    AnyRecord,
    Executed,
    ExecutionKind,
    Reconciled,
    ReconciledPosition,
    SettlementKind,
    decode,
    encode,
)
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    SESSION,
    account,
    fill,
    future,
    limits,
    order,
    quoted,
    report,
    reserve,
    sell,
    stock,
    terms,
    universe,
    valued,
)
from tests.engine.test_instructions import stop

EXERCISE, ASSIGNMENT, EXPIRY = SettlementKind.EXERCISE, SettlementKind.ASSIGNMENT, SettlementKind.EXPIRY


def option(symbol: str, right: OptionRight, strike: float = 100.0, **fields: Any) -> Instrument:
    terms_ = OptionTerms(strike, right, OptionStyle.AMERICAN, OptionModel.BLACK_SCHOLES_MERTON)
    defaults: dict[str, Any] = {"multiplier": 100.0, "underlying": "AAA", "expiry": SESSION, "option": terms_}
    return Instrument(symbol, AssetClass.OPTION, "USD", 1.0, 0.01, **(defaults | fields))


ALL = universe(
    stock("AAA"),
    stock("BBB", lot_size=10.0),
    future("FUT", expiry=SESSION),
    option("CALL", OptionRight.CALL),
    option("PUT", OptionRight.PUT),
    option("INDEX", OptionRight.CALL, underlying="SPX"),
    option("ODD", OptionRight.CALL, multiplier=12.5),
)
MARKS = {"AAA": 100.0, "BBB": 10.0, "FUT": 50.0, "CALL": 5.0, "PUT": 5.0, "INDEX": 5.0, "ODD": 5.0}


def held(positions: dict[str, int] | None = None, **fields: Any) -> AccountState:
    return account(ALL, MARKS, positions=positions or {}, **fields)


def happen(
    state: AccountState, told: PositionEvent, event_id: str = "e1", instruments: InstrumentSet = ALL
) -> list[AnyRecord]:
    """Fold the event in, as it comes back from the log."""
    made = position_event(state, instruments, event_id, told, NOW_US, 0)
    for record in made:
        state.apply(decode(encode(record)))
    return made


def lots(state: AccountState, symbol: str, strategy: str = "") -> int:
    return state.holding(strategy, symbol).lots


def at(state: AccountState, **marks: float) -> None:
    state.apply(valued(marks, time_us=NOW_US + 1))


# --- splits


def test_a_split_doubles_lots_halves_cost_and_marks_and_moves_no_equity() -> None:
    state = held({"AAA": 7})
    at(state, AAA=120.0)
    equity, nav, unrealised = state.equity(), state.nav(), state.unrealised("", "AAA")

    happen(state, SplitTold("AAA", 2, 1))

    holding, slot = state.holding("", "AAA"), state.slots["AAA"]
    assert (holding.lots, holding.average_cost, holding.realised) == (14, 50.0, 0.0)
    assert state.prices.mark[slot] == 60.0 and state.prices.open_mark[slot] == 50.0
    assert (state.equity(), state.nav(), state.unrealised("", "AAA")) == (equity, nav, unrealised)
    assert state.book.lots[slot] == 14


def test_a_reverse_split_pays_what_makes_no_lot_in_cash() -> None:
    state = held({"AAA": 25})
    cash, equity = state.cash["USD"], state.equity()

    (record,) = happen(state, SplitTold("AAA", 1, 10))

    assert lots(state, "AAA") == 2
    assert state.cash["USD"] == cash + 0.5 * 1000.0
    assert state.equity() == pytest.approx(equity, abs=1e-6)
    assert "cash" in encode(record).decode()


def test_what_makes_no_lot_is_paid_at_the_price_told_and_the_rest_is_a_gain() -> None:
    state = held({"AAA": 25})

    happen(state, SplitTold("AAA", 1, 10, in_lieu_price=1200.0))

    assert state.holding("", "AAA").realised == pytest.approx(0.5 * (1200 - 1000))


def test_a_short_position_pays_its_part_of_a_lot() -> None:
    state = held({"AAA": -25})
    cash = state.cash["USD"]

    happen(state, SplitTold("AAA", 1, 10))

    assert (lots(state, "AAA"), state.cash["USD"]) == (-2, cash - 500.0)


def test_the_brokers_whole_lots_are_shared_out_among_strategies() -> None:
    state = held(strategies={("a", "AAA"): 5, ("b", "AAA"): 5})
    equity = state.equity()

    happen(state, SplitTold("AAA", 1, 10))

    assert sorted((lots(state, "AAA", "a"), lots(state, "AAA", "b"))) == [0, 1]
    assert state.equity() == pytest.approx(equity)
    assert state.cash["USD"] == pytest.approx(1_000_000.0), "the account as a whole is paid nothing"


def test_a_part_of_a_lot_without_a_price_is_refused_by_name() -> None:
    state = account(ALL, {}, positions={"AAA": 25})

    with pytest.raises(FactError, match=r"split\.in_lieu_price: needed"):
        happen(state, SplitTold("AAA", 1, 10))


def test_a_future_splits_without_cash_and_keeps_its_gain() -> None:
    state = held({"FUT": 4})
    at(state, FUT=60.0)
    equity = state.equity()

    happen(state, SplitTold("FUT", 2, 1))

    assert (lots(state, "FUT"), state.holding("", "FUT").average_cost) == (8, 25.0)
    assert state.equity() == pytest.approx(equity) and state.cash["USD"] == 1_000_000.0


def test_open_orders_are_counted_up_to_whole_lots() -> None:
    state = held({"AAA": 100})
    reserve(state, "buy", "AAA", 15, limit_price=100.0)
    reserve(state, "sell", "AAA", -20)
    fill(state, "sell", 5)

    happen(state, SplitTold("AAA", 1, 10))

    slot = state.slots["AAA"]
    assert state.book.interval(slot) == (9 - 2, 9 + 2)
    bought = state.orders["buy"]
    assert (bought.leaves, bought.limit_price) == (2, 1000.0)


def test_a_fill_after_a_split_takes_from_the_leaves_of_after() -> None:
    state = held()
    reserve(state, "buy", "AAA", 15)
    happen(state, SplitTold("AAA", 2, 1))

    fill(state, "buy", 30, price=50.0)

    assert "buy" not in state.orders and lots(state, "AAA") == 30
    assert state.book.interval(state.slots["AAA"]) == (30, 30)


def test_what_remembers_lots_or_marks_is_of_the_new_unit_too() -> None:
    """Marks of before, over which a loss is confirmed, and what a cut still has to close."""
    state = held({"AAA": 100, "BBB": 10})
    at(state, AAA=90.0)
    at(state, AAA=96.0)
    (cut,) = planned_cuts(state, terms(ALL), {("", "AAA"): 30}, (Reason.NONE, "level 1"), NOW_US)
    state.apply(cut)
    state.apply(report(state, cut.client_order_id, ExecutionKind.FILL, 10))
    state.apply(report(state, cut.client_order_id, ExecutionKind.CANCELLED))
    key = "", "AAA"
    state.breaker = msgspec.structs.replace(state.breaker, cuts={key: 70, ("", "BBB"): 5})

    happen(state, SplitTold("AAA", 2, 1))

    assert state.marks_back(1)[state.slots["AAA"]] == 45.0
    progress = state.liquidations[key]
    assert (progress.planned, progress.sent, progress.filled) == (60, 60, 20)
    assert state.breaker.cuts == {key: 140, ("", "BBB"): 5}


def test_a_price_from_before_a_split_is_not_believed() -> None:
    state = held({"AAA": 10})
    happen(state, SplitTold("AAA", 2, 1))
    old = Quote("AAA", 100.0, None, None, NOW_US)
    new = msgspec.structs.replace(quoted(51.0), time_us=NOW_US + 1)

    assert observation(state, {"AAA": old}, ["AAA"], NOW_US + 5, 0) is None
    later = observation(state, {"AAA": Quote("AAA", 51.0, None, None, new.time_us)}, ["AAA"], NOW_US + 5, 0)
    assert later is not None and later.marks["AAA"].mark == 51.0


def test_a_fill_from_before_a_split_latches() -> None:
    state = held()
    reserve(state, "buy", "AAA", 15)
    happen(state, SplitTold("AAA", 2, 1))
    late = Execution(
        account=ACCOUNT,
        execution_id="x",
        client_order_id="buy",
        kind=ExecutionKind.FILL,
        last_quantity=5.0,
        last_price=100.0,
        time_us=NOW_US - 1,
    )

    (record,) = executed(state, ALL, late, NOW_US + 5, 0)

    assert isinstance(record, Executed) and record.flags == ("before_split",)
    assert [latch.state for latch in record.latches] == [TradingState.REDUCE_ONLY]


def test_what_a_split_would_leave_wrong_is_refused_by_name() -> None:
    optioned = held({"CALL": 1})
    flattening = held({"AAA": 10})
    for record in due(flattening, terms(ALL, limits(), control=stop(flatten=True)), NOW_US):
        flattening.apply(record)

    for state, told, named in (
        (optioned, SplitTold("AAA", 2, 1), "options on AAA are held or open (CALL)"),
        (flattening, SplitTold("AAA", 2, 1), "own order"),
        (held(), SplitTold("ZZZ", 2, 1), "never held"),
        (held(), SplitTold("AAA", 1, 1), "another number"),
        (held(), SplitTold("AAA", 0, 1), "expected 1 to"),
        (held(), SplitTold("AAA", 2, -1), "expected 1 to"),
    ):
        with pytest.raises(FactError) as raised:
            happen(state, told)
        assert named in str(raised.value)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["", "a", "b", "c"]), st.integers(-500, 500), min_size=1),
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.5, 900.0),
)
def test_a_split_at_the_adjusted_mark_moves_no_equity_and_leaves_the_brokers_whole_lots(
    by_strategy: dict[str, int], many: int, per: int, mark: float
) -> None:
    if many == per:
        return
    state = held(strategies={(name, "AAA"): count for name, count in by_strategy.items()})
    at(state, AAA=mark)
    equity = state.equity()

    happen(state, SplitTold("AAA", many, per))

    total = sum(by_strategy.values()) * many
    assert state.book.lots[state.slots["AAA"]] == math.trunc(total / per)
    assert state.equity() == pytest.approx(equity, rel=1e-12, abs=1e-6)
    pnl = profit_and_loss(state, ALL, stop())
    assert pnl.since_opening.other == pytest.approx(0.0, abs=1e-5)


# --- dividends


def test_a_dividend_is_received_long_and_paid_short_and_is_the_positions_gain() -> None:
    state = held(strategies={("a", "BBB"): 5, ("b", "BBB"): -2})
    nav = state.nav()

    happen(state, DividendTold("BBB", 0.5))

    assert state.cash["USD"] == 1_000_000.0 + 30 * 0.5
    assert state.holding("a", "BBB").realised == 25.0
    assert state.holding("b", "BBB").realised == -10.0
    assert state.nav() > nav and state.flows_total == 0.0


def test_a_dividend_and_the_fall_of_the_mark_move_no_equity() -> None:
    state = held({"BBB": 5})
    equity = state.equity()

    happen(state, DividendTold("BBB", 0.5))
    at(state, BBB=9.5)

    assert state.equity() == equity


def test_an_accrued_dividend_is_equity_before_it_is_cash() -> None:
    state = held({"BBB": 5})
    equity = state.equity()

    happen(state, DividendTold("BBB", 0.5, accrued=True), "accrued")
    owed = state.equity(), state.equities_back()[1], state.cash["USD"]
    happen(state, DividendPaidTold("accrued"), "paid")

    assert owed == (equity + 25.0, equity + 25.0, 1_000_000.0)
    assert (state.equity(), state.cash["USD"]) == (equity + 25.0, 1_000_025.0)
    with pytest.raises(FactError, match="no accrued dividend"):
        happen(state, DividendPaidTold("accrued"), "paid again")


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (DividendTold("AAA", 1.0), "holds no AAA"),
        (DividendTold("FUT", 1.0), "pays no dividend"),
        (DividendTold("CALL", 1.0), "pays no dividend"),
        (DividendTold("BBB", math.nan), "above 0"),
        (DividendTold("BBB", -1.0), "above 0"),
    ],
)
def test_a_dividend_that_the_books_contradict_is_refused(told: DividendTold, named: str) -> None:
    with pytest.raises(FactError, match=named):
        happen(held({"BBB": 5, "FUT": 1, "CALL": 1}), told)


# --- exercise, assignment, expiry


@pytest.mark.parametrize(
    ("symbol", "position", "kind", "delivered", "cash"),
    [
        ("CALL", 2, EXERCISE, 200, -20_000.0),
        ("PUT", 2, EXERCISE, -200, 20_000.0),
        ("CALL", -2, ASSIGNMENT, -200, 20_000.0),
        ("PUT", -2, ASSIGNMENT, 200, -20_000.0),
    ],
)
def test_delivery_is_at_the_strike(
    symbol: str, position: int, kind: SettlementKind, delivered: int, cash: float
) -> None:
    state = held({symbol: position})

    happen(state, SettlementTold(kind, symbol))

    assert (lots(state, symbol), lots(state, "AAA")) == (0, delivered)
    assert state.cash["USD"] == 1_000_000.0 + cash
    assert state.holding("", "AAA").average_cost == 100.0
    assert state.holding("", symbol).realised == -position * 500.0


@pytest.mark.parametrize(("symbol", "spot"), [("CALL", 112.0), ("PUT", 88.0)])
def test_exercise_moves_the_intrinsic_value_and_no_equity(symbol: str, spot: float) -> None:
    state = held({symbol: 3})
    at(state, AAA=spot, **{symbol: 12.0})
    equity = state.equity()

    happen(state, SettlementTold(EXERCISE, symbol, quantity=2.0))

    assert lots(state, symbol) == 1
    assert state.equity() == equity
    assert state.unrealised("", "AAA") == 200 * 12.0


def test_settlement_in_cash_pays_the_intrinsic_value() -> None:
    state = held({"INDEX": 2})

    happen(state, SettlementTold(EXERCISE, "INDEX", settlement_price=107.0))

    assert (lots(state, "INDEX"), state.cash["USD"]) == (0, 1_000_000.0 + 2 * 100 * 7.0)


def test_a_future_expires_at_its_settlement_price() -> None:
    state = held({"FUT": 2})

    happen(state, SettlementTold(EXPIRY, "FUT", settlement_price=53.0))

    assert (lots(state, "FUT"), state.cash["USD"]) == (0, 1_000_000.0 + 2 * 50 * 3.0)
    assert state.equity() == 1_000_300.0


def test_an_expiry_takes_every_strategys_lots_and_the_open_orders() -> None:
    state = held(strategies={("a", "CALL"): 2, ("b", "CALL"): -1})
    reserve(state, "more", "CALL", 3)
    at(state, AAA=90.0)

    happen(state, SettlementTold(EXPIRY, "CALL"))

    assert (lots(state, "CALL", "a"), lots(state, "CALL", "b"), dict(state.orders)) == (0, 0, {})
    assert state.book.interval(state.slots["CALL"]) == (0, 0)
    assert state.cash["USD"] == 1_000_000.0


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (SettlementTold(EXERCISE, "CALL", quantity=3.0), "more than the 2"),
        (SettlementTold(EXERCISE, "CALL", quantity=0.5), "no whole number of lots"),
        (SettlementTold(ASSIGNMENT, "CALL"), "is not short"),
        (SettlementTold(EXERCISE, "PUT"), "is not long"),
        (SettlementTold(EXERCISE, "AAA"), "is no option"),
        (SettlementTold(EXERCISE, "INDEX"), "SPX is no instrument"),
        (SettlementTold(EXERCISE, "ODD"), "no whole number of lots of AAA"),
        (SettlementTold(EXERCISE, "CALL", settlement_price=math.nan), "expected a finite number"),
        (SettlementTold(EXPIRY, "AAA"), "has no expiry"),
        (SettlementTold(EXPIRY, "FUT"), "is settled at it"),
        (SettlementTold(EXPIRY, "INDEX"), "no mark of SPX"),
        (SettlementTold(EXPIRY, "CALL"), "10 in the money"),
        (SettlementTold(EXPIRY, "CALL", quantity=1.0), "all that is held"),
    ],
)
def test_a_settlement_that_the_books_contradict_is_refused(told: SettlementTold, named: str) -> None:
    state = held({"CALL": 2, "PUT": -1, "INDEX": 1, "ODD": 1, "FUT": 1})
    at(state, AAA=110.0)

    with pytest.raises(FactError, match=named):
        happen(state, told)


def test_nothing_expires_before_its_day() -> None:
    later = universe(stock("AAA"), option("CALL", OptionRight.CALL, expiry=SESSION + datetime.timedelta(days=1)))
    state = account(later, {"AAA": 90.0, "CALL": 1.0}, positions={"CALL": 1})

    with pytest.raises(FactError, match="the session is"):
        happen(state, SettlementTold(EXPIRY, "CALL"), instruments=later)


# --- fills taken back


def traded(*fills: tuple[int, float], symbol: str = "AAA", keep: bool = False) -> AccountState:
    """Each fill is of an order of its own, "o0" with execution "x0"…; `keep`: one lot more is left open."""
    state = held()
    for place, (count, price) in enumerate(fills):
        more = (1 if count > 0 else -1) if keep else 0
        reserve(state, f"o{place}", symbol, count + more)
        fill(state, f"o{place}", abs(count), price, execution_id=f"x{place}", fee=1.0, fee_currency="USD")
    return state


def test_a_bust_opening_fill_leaves_what_the_others_made() -> None:
    state = traded((10, 90.0), (10, 100.0))

    happen(state, ReversalTold("x1"))

    holding = state.holding("", "AAA")
    assert (holding.lots, holding.average_cost, holding.realised) == (10, 90.0, 0.0)
    assert state.cash["USD"] == 1_000_000.0 - 900.0 - 1.0


def test_a_bust_closing_fill_takes_its_gain_back() -> None:
    state = traded((10, 90.0), (-4, 110.0))
    assert state.holding("", "AAA").realised == 80.0

    happen(state, ReversalTold("x1"))

    holding = state.holding("", "AAA")
    assert (holding.lots, holding.average_cost, holding.realised) == (10, 90.0, 0.0)


def test_a_future_that_is_bust_leaves_neither_gain_nor_variation() -> None:
    state = traded((10, 50.0), (-4, 55.0), symbol="FUT")

    happen(state, ReversalTold("x1"))

    assert state.holding("", "FUT").lots == 10
    assert state.cash["USD"] == 1_000_000.0 - 1.0
    assert state.equity() == 1_000_000.0 - 1.0


def test_a_bust_is_undone_once_whoever_tells_it() -> None:
    state = traded((10, 90.0))

    first, again = happen(state, ReversalTold("x0")), happen(state, ReversalTold("x0"))

    assert (len(first), again, lots(state, "AAA")) == (1, [], 0)
    with pytest.raises(FactError, match="taken back already"):
        happen(state, ReversalTold("x0"), "e2")


def test_what_is_bust_of_an_open_order_may_fill_again() -> None:
    state = traded((10, 90.0), keep=True)
    assert state.orders["o0"].leaves == 1

    happen(state, ReversalTold("x0"))

    assert (state.orders["o0"].leaves, state.orders["o0"].filled) == (11, 0)
    assert state.book.interval(state.slots["AAA"]) == (0, 11)
    assert state.turnovers[""].lots.sum() == 0.0


def test_a_bust_fill_of_a_replaced_order_may_fill_again_whichever_of_the_two_is_there() -> None:
    """A chain counts the fills of all: 30 of 100 filled, replaced by a total of 150, then the 30 are bust."""
    atomic = universe(stock("AAA", replaces_atomically=True))
    state = account(atomic, {"AAA": 100.0})
    reserve(state, "old", "AAA", 100)
    fill(state, "old", 30, execution_id="x0")
    asked = order("AAA", quantity=150, client_order_id="new", replaces_client_order_id="old")
    state.apply(decide(state, terms(atomic), asked, NOW_US))
    slot = state.slots["AAA"]
    assert state.book.interval(slot) == (30, 150)

    happen(state, ReversalTold("x0"), instruments=atomic)

    assert state.book.interval(slot) == (0, 150)
    state.apply(report(state, "old", ExecutionKind.CANCELLED))
    assert state.book.interval(slot) == (0, 150)
    fill(state, "new", 150)
    assert (dict(state.orders), state.chains, state.book.interval(slot)) == ({}, {}, (150, 150))


def test_a_split_adjusts_orders_that_replace_one_another() -> None:
    atomic = universe(stock("AAA", replaces_atomically=True))
    state = account(atomic, {"AAA": 100.0})
    reserve(state, "old", "AAA", 100)
    fill(state, "old", 30)
    asked = order("AAA", quantity=150, client_order_id="new", replaces_client_order_id="old")
    state.apply(decide(state, terms(atomic), asked, NOW_US))

    happen(state, SplitTold("AAA", 2, 1), instruments=atomic)

    slot = state.slots["AAA"]
    assert state.book.interval(slot) == (60, 300)
    state.apply(report(state, "new", ExecutionKind.REJECTED, cumulative_lots=0))
    assert state.book.interval(slot) == (60, 200)


def test_a_correction_puts_another_fill_in_its_place() -> None:
    state = traded((10, 90.0), keep=True)

    _, corrected = happen(state, ReversalTold("x0", CorrectedFill("x0c", 8.0, 91.0)))

    holding = state.holding("", "AAA")
    assert (holding.lots, holding.average_cost) == (8, 91.0)
    assert state.cash["USD"] == 1_000_000.0 - 728.0 - 1.0
    assert state.orders["o0"].leaves == 3
    assert isinstance(corrected, Executed) and corrected.flags == (CORRECTED,) and not corrected.latches
    happen(state, ReversalTold("x0c"), "bust after all")
    assert lots(state, "AAA") == 0


def test_what_cannot_be_taken_back_is_refused_by_name() -> None:
    reconciled = traded((10, 90.0))
    reconciled.apply(
        Reconciled(time_us=NOW_US, reason="", positions=(ReconciledPosition("", "AAA", 10),), snapshot_us=NOW_US)
    )
    split = traded((10, 90.0))
    happen(split, SplitTold("AAA", 2, 1), "split")

    for state, told, named in (
        (traded(), ReversalTold("x0"), "is no fill booked here"),
        (reconciled, ReversalTold("x0"), "reconciled after"),
        (split, ReversalTold("x0"), "was split after"),
        (traded((1, 9.0)), ReversalTold("x0", CorrectedFill("x0", 1.0, 9.0)), "an id of its own"),
        (traded((1, 9.0)), ReversalTold("x0", CorrectedFill("y", 0.5, 9.0)), "no whole number"),
        (traded((1, 9.0)), ReversalTold("x0", CorrectedFill("y", 1.0, math.nan)), "above 0"),
    ):
        with pytest.raises(FactError) as raised:
            happen(state, told)
        assert named in str(raised.value)


fills = st.lists(st.tuples(st.integers(-30, 30).filter(bool), st.integers(1, 200).map(float)), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(fills, st.integers(0, 5), st.sampled_from(["AAA", "FUT"]))
def test_equity_is_as_if_the_bust_fill_had_never_been(told: list[tuple[int, float]], place: int, symbol: str) -> None:
    place %= len(told)
    state = traded(*told, symbol=symbol)
    never = traded(*(one for at, one in enumerate(told) if at != place), symbol=symbol)

    happen(state, ReversalTold(f"x{place}"))

    assert lots(state, symbol) == lots(never, symbol)
    assert state.equity() == pytest.approx(never.equity(), abs=1e-6)
    assert state.book.interval(state.slots[symbol]) == never.book.interval(never.slots[symbol])
    assert state.holding("", symbol).average_cost >= 0.0
    pnl = profit_and_loss(state, ALL, stop())
    assert pnl.since_opening.other == pytest.approx(0.0, abs=1e-5)


# --- all of them


EVENTS: tuple[PositionEvent, ...] = (
    SplitTold("BBB", 2, 1),
    DividendTold("BBB", 0.5),
    DividendTold("BBB", 0.5, accrued=True),
    SettlementTold(EXERCISE, "CALL"),
    SettlementTold(ASSIGNMENT, "PUT"),
    SettlementTold(EXPIRY, "FUT", settlement_price=51.0),
    ReversalTold("x0"),
)


@pytest.mark.parametrize("told", EVENTS)
def test_an_event_is_folded_once_by_its_id_and_a_dropped_fork_leaves_nothing(told: PositionEvent) -> None:
    state = held({"BBB": 5, "CALL": 1, "PUT": -1, "FUT": 2})
    reserve(state, "o0", "AAA", 10)
    fill(state, "o0", 10, execution_id="x0")
    before = state.equity(), dict(state.cash), dict(state.holdings), dict(state.accruals), dict(state.adjusted_us)

    happen(state.fork(), told)

    assert before == (
        state.equity(),
        dict(state.cash),
        dict(state.holdings),
        dict(state.accruals),
        dict(state.adjusted_us),
    )
    kept = state.fork()
    assert happen(kept, told)
    state = kept.settle()
    assert happen(state, told) == []


@pytest.mark.parametrize("told", EVENTS)
def test_an_open_order_is_judged_on_what_an_event_has_left(told: PositionEvent) -> None:
    """After any of them the fold still answers: a sale of what is held is decided, and no order of a NaN is allowed."""
    state = held({"BBB": 5, "CALL": 1, "PUT": -1, "FUT": 2})
    reserve(state, "o0", "AAA", 10)
    fill(state, "o0", 10, execution_id="x0")
    happen(state, told)

    sold = decide(state, terms(ALL), sell("BBB", 10.0, client_order_id="s"), NOW_US)
    broken = decide(state, terms(ALL), order("BBB", quantity=math.nan, client_order_id="n"), NOW_US)

    assert (sold.action, broken.action) == (Action.ALLOW, Action.REJECT)
