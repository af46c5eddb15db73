"""P&L by position, rolled up, and adding up to the account's: by hand, and after any history.

A position that was there at the start brings no gain along; what exchange rates make of cash is `other`.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.control import Control, Resumed, Scope
from engine.facts import listing
from engine.instrument import InstrumentSet
from engine.pnl import GroupPnl, PositionPnl, ProfitAndLoss, profit_and_loss
from engine.records import (
    AccountOpened,
    CashFlowed,
    FeeCharged,
    OpeningPosition,
    Reconciled,
    ReconciledPosition,
    SessionOpened,
)
from tests.engine.builders import NOW_US, account, future, report, reserve, stock, universe, valued

TWO = universe(stock("AAA", sector="Tech"), stock("BBB", sector="Energy"), future("FFF"))
MARKS = {"AAA": 100.0, "BBB": 50.0, "FFF": 20.0}
NO_STOP = Control()
EVERYTHING = Scope()


def told(state: AccountState, instruments: InstrumentSet = TWO, control: Control = NO_STOP) -> ProfitAndLoss:
    return profit_and_loss(state, instruments, control)


def traded(state: AccountState, symbol: str, lots: int, price: float, strategy: str = "") -> None:
    name = f"o{state.seq}"
    reserve(state, name, symbol, lots, strategy)
    state.apply(report(state, name, "fill", abs(lots), price))


def position(found: ProfitAndLoss, symbol: str, strategy: str = "") -> PositionPnl:
    return next(one for one in found.positions if (one.strategy, one.symbol) == (strategy, symbol))


def totals(groups: Sequence[GroupPnl]) -> dict[str, float | None]:
    return {one.name: one.session.total for one in groups}


def test_what_was_sold_is_realised_and_the_rest_is_not() -> None:
    """10 bought at 100, 4 sold at 110; the 6 left are worth 105."""
    state = account(TWO, MARKS)
    traded(state, "AAA", 10, 100.0)
    traded(state, "AAA", -4, 110.0)
    state.apply(valued({"AAA": 105.0}))

    found = told(state)
    held = position(found, "AAA")
    assert (held.quantity, held.average_cost, held.value, held.over_cost) == (6.0, 100.0, 630.0, 30.0)
    assert (held.session.realised, held.session.unrealised, held.session.total) == (40.0, 30.0, 70.0)
    assert (found.session.total, found.session.fees, found.session.other) == (70.0, 0.0, 0.0)
    assert state.session_pnl() == 70.0


def test_groups_add_up_strategies_sectors_classes_and_symbols() -> None:
    state = account(TWO, MARKS)
    traded(state, "AAA", 10, 100.0, "rl")
    traded(state, "AAA", -5, 100.0, "mm")
    traded(state, "BBB", 10, 50.0, "rl")
    traded(state, "FFF", 1, 20.0)
    state.apply(valued({"AAA": 103.0, "BBB": 49.0, "FFF": 21.0}))

    found = told(state)
    assert totals(found.by_strategy) == {"(none)": 50.0, "mm": -15.0, "rl": 20.0}
    assert totals(found.by_sector) == {"unassigned": 50.0, "Energy": -10.0, "Tech": 15.0}
    assert totals(found.by_asset_class) == {"equity": 5.0, "future": 50.0}
    assert totals(found.by_symbol) == {"AAA": 15.0, "BBB": -10.0, "FFF": 50.0}
    assert found.session.total == 55.0


def test_fees_and_flows_are_no_gain_of_a_position() -> None:
    state = account(TWO, MARKS)
    state.apply(FeeCharged(time_us=NOW_US, event_id="f", amount=7.0, currency="USD"))
    state.apply(CashFlowed(time_us=NOW_US, event_id="d", amount=500.0, currency="USD"))
    traded(state, "AAA", 1, 100.0)
    state.apply(valued({"AAA": 102.0}))

    found = told(state)
    assert (found.session.positions.total, found.session.fees, found.session.total) == (2.0, 7.0, -5.0)
    assert (found.session.other, found.since_opening.total) == (0.0, -5.0)


def test_a_position_brought_in_brings_no_gain_along() -> None:
    """10 AAA that cost 60 are worth 100 at the first mark, 101 now; 5 are sold there."""
    state = AccountState("ALPHA")
    listed = listing(state, TWO.instruments["AAA"], NOW_US, 0)
    assert listed is not None
    state.apply(
        AccountOpened(
            time_us=NOW_US,
            event_id="open",
            base_currency="USD",
            cash={"USD": 0.0},
            listed=(listed,),
            positions=(OpeningPosition("", "AAA", 10, 60.0),),
        )
    )
    state.apply(valued({"AAA": 100.0}))
    traded(state, "AAA", -5, 101.0)
    state.apply(valued({"AAA": 101.0}))

    found = told(state)
    held = position(found, "AAA")
    assert held.over_cost == 5 * 41.0
    assert (held.since_opening.realised, held.since_opening.unrealised) == (5 * 41.0, 5 * 41.0 - 10 * 40.0)
    assert (found.since_opening.total, found.since_opening.other) == (10.0, 0.0)
    assert found.session.total is None and "no session was opened for this account" in found.warnings


def test_a_session_counts_from_its_opening() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10})
    state.apply(valued({"AAA": 104.0}))
    traded(state, "AAA", -4, 104.0)
    state.apply(FeeCharged(time_us=NOW_US, event_id="f", amount=3.0, currency="USD"))
    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))
    traded(state, "AAA", -1, 105.0)
    state.apply(valued({"AAA": 106.0}))

    found = told(state)
    held = position(found, "AAA")
    assert (held.session.realised, held.session.unrealised) == (5.0, 5 * 6.0 - 6 * 4.0)
    assert (held.session.total, held.since_opening.total) == (11.0, 51.0)
    assert (found.session.total, found.session.fees) == (11.0, 0.0)
    assert (found.since_opening.total, found.since_opening.fees) == (48.0, 3.0)


def test_what_a_rate_makes_of_cash_is_other() -> None:
    """100 EUR of one's own buy 1 SSS at 100; EUR goes from 1.00 to 1.10, SSS to 110. The position gained 10 EUR at
    1.10, the capital 0.10 on each of 100 EUR."""
    instruments = universe(stock("SSS", currency="EUR"))
    state = account(instruments, {"SSS": 100.0}, cash={"EUR": 100.0}, fx={"EUR": 1.0})
    traded(state, "SSS", 1, 100.0)
    state.apply(valued({"SSS": 110.0}, {"EUR": 1.1}))

    found = told(state, instruments).session
    assert found.positions.total == pytest.approx(11.0)
    assert found.other == pytest.approx(10.0)
    assert found.total == pytest.approx(21.0)


def test_what_a_broker_corrects_is_other() -> None:
    state = account(TWO, MARKS, positions={"AAA": 10}, cash=0.0)
    corrected = (ReconciledPosition("", "AAA", 9, None),)
    state.apply(Reconciled(time_us=NOW_US, reason="broker", positions=corrected))

    found = told(state).session
    assert (found.positions.total, found.other, found.total) == (0.0, -100.0, -100.0)


def test_a_missing_mark_is_no_zero() -> None:
    state = account(TWO, {"AAA": 100.0}, positions={"AAA": 1, "BBB": 1})

    found = told(state)
    assert position(found, "BBB").over_cost is None
    assert (found.session.total, found.since_opening.total) == (None, None)
    assert "never valued: a mark or an exchange rate was missing since the account was opened" in found.warnings
    assert "BBB: no mark or no exchange rate, so that its gain is not known" in found.warnings


def test_a_session_that_opened_before_the_marks_counts_from_the_first_equity_known() -> None:
    state = account(TWO, {}, positions={"AAA": 2}, cash=0.0)
    assert told(state).session.total is None

    for mark in (90.0, 95.0):
        state.apply(valued({"AAA": mark}))

    found = told(state)
    assert (position(found, "AAA").session.total, found.session.total, found.session.other) == (10.0, 10.0, 0.0)


def test_positions_that_cancel_out_are_counted_from_their_first_marks_on() -> None:
    """The account needs no mark for them: its equity is known before what each strategy has is."""
    state = account(TWO, {"BBB": 50.0}, strategies={("a", "AAA"): 10, ("b", "AAA"): -10})
    unmarked = told(state)
    state.apply(valued({"AAA": 100.0}))
    state.apply(valued({"AAA": 103.0}))

    found = told(state)

    assert position(unmarked, "AAA", "a").session.total is None
    assert [position(found, "AAA", name).session.total for name in ("a", "b")] == [30.0, -30.0]
    assert [position(found, "AAA", name).since_opening.total for name in ("a", "b")] == [30.0, -30.0]


def test_one_position_without_a_mark_leaves_every_sum_that_it_is_part_of_unknown() -> None:
    state = account(TWO, {"AAA": 100.0, "FFF": 20.0}, positions={"AAA": 1})
    traded(state, "BBB", 1, 50.0, "rl")

    found = told(state)
    assert (found.session.positions.total, found.session.total) == (None, None)
    assert totals(found.by_strategy) == {"(none)": 0.0, "rl": None}
    assert totals(found.by_asset_class) == {"equity": None}


def test_an_instrument_that_nobody_registered_any_more_has_a_group_of_its_own() -> None:
    state = account(TWO, MARKS, positions={"AAA": 1})

    found = told(state, universe())
    assert [one.name for one in (*found.by_sector, *found.by_asset_class)] == ["(unregistered)", "(unregistered)"]


@settings(max_examples=60)
@given(st.data())
def test_rows_less_fees_and_other_are_exactly_the_account_and_other_is_nothing_in_one_currency(
    data: st.DataObject,
) -> None:
    state = account(TWO, MARKS, positions={"AAA": 5, "FFF": -2})
    for step in range(data.draw(st.integers(1, 15))):
        kind = data.draw(st.sampled_from(["trade", "mark", "fee", "flow", "session"]))
        if kind == "trade":
            symbol = data.draw(st.sampled_from(["AAA", "BBB", "FFF"]))
            lots = data.draw(st.integers(-9, 9).filter(bool))
            traded(
                state, symbol, lots, data.draw(st.sampled_from([19.0, 60.0, 101.5])), data.draw(st.sampled_from("ab"))
            )
        elif kind == "mark":
            state.apply(valued({s: data.draw(st.floats(5.0, 200.0)) for s in ("AAA", "BBB", "FFF")}))
        elif kind == "fee":
            state.apply(FeeCharged(time_us=NOW_US, event_id=f"f{step}", amount=1.25, currency="USD"))
        elif kind == "flow":
            state.apply(CashFlowed(time_us=NOW_US, event_id=f"d{step}", amount=100.0, currency="USD"))
        else:
            state.apply(SessionOpened(time_us=NOW_US, date=f"2024-01-{step + 1:02}"))

    found = told(state)
    for span, earned in ((found.session, state.session_pnl()), (found.since_opening, _earned(state))):
        rows = span.positions.total
        assert rows is not None and span.fees is not None and span.other is not None and span.total is not None
        assert rows - span.fees + span.other == pytest.approx(span.total, abs=1e-6)
        assert span.total == pytest.approx(earned, abs=1e-6)
        assert span.other == pytest.approx(0.0, abs=1e-6)
    for groups in (found.by_strategy, found.by_sector, found.by_asset_class, found.by_symbol):
        summed = sum(one.session.total or 0.0 for one in groups)
        assert summed == pytest.approx(found.session.positions.total, abs=1e-6)


def _earned(state: AccountState) -> float:
    """Equity less what it began with: 1,000,000, and 5 AAA at their cost of 100 (a future is worth its gain alone)."""
    return state.equity() - 1_000_500.0 - state.flows_total


# --- drawdowns -----------------------------------------------------------------------------------------------------


def resumed(epoch: int, scope: Scope = EVERYTHING) -> Control:
    resume = Resumed(scope=scope, epoch=epoch, time_us=NOW_US + epoch, actor="op", reason="done")
    return Control(epoch=epoch, resumes=(resume,))


def marked(state: AccountState, mark: float, epoch: int) -> None:
    record = valued({"AAA": mark})
    state.apply(type(record)(time_us=NOW_US, epoch=epoch, marks=record.marks))


def test_drawdown_from_the_peak_the_session_and_its_start() -> None:
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 10})
    state.apply(valued({"AAA": 125.0}))
    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))
    for mark in (80.0, 110.0, 100.0):
        state.apply(valued({"AAA": mark}))

    found = told(state).drawdowns
    assert found.from_peak == pytest.approx(0.2)
    assert found.from_session_peak == pytest.approx(0.2)
    assert found.from_session_start == pytest.approx(0.2)
    assert found.since_reset == pytest.approx(0.2)
    assert found.reset_time_us is None


def test_a_gain_is_no_fall() -> None:
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 10})
    state.apply(valued({"AAA": 110.0}))

    found = told(state).drawdowns
    assert (found.from_peak, found.from_session_peak, found.from_session_start) == (0.0, 0.0, 0.0)


def test_a_resume_of_the_account_starts_the_count_anew() -> None:
    """From 125 to 100 before the Resume at epoch 2; then 100, 110, 99."""
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 10})
    for mark, epoch in ((125.0, 0), (100.0, 1), (100.0, 2), (110.0, 2), (99.0, 3)):
        marked(state, mark, epoch)

    found = told(state, control=resumed(2, Scope("ALPHA"))).drawdowns
    assert found.from_peak == pytest.approx(1 - 99 / 125)
    assert found.since_reset == pytest.approx(0.1)
    assert found.reset_time_us == NOW_US + 2


def test_nothing_valued_since_a_resume_is_no_fall_since() -> None:
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 10})
    marked(state, 90.0, 1)

    assert told(state, control=resumed(2)).drawdowns.since_reset == 0.0


def test_a_resume_of_one_symbol_or_of_another_account_resets_nothing() -> None:
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 10})
    marked(state, 90.0, 5)

    for scope in (Scope("ALPHA", symbol="AAA"), Scope("BETA")):
        assert told(state, control=resumed(5, scope)).drawdowns.since_reset == pytest.approx(0.1)


def test_with_more_changes_of_control_than_are_kept_apart_a_fall_is_never_understated() -> None:
    state = account(TWO, MARKS, cash=0.0, positions={"AAA": 10})
    marked(state, 200.0, 1)
    for epoch in range(2, 200):
        marked(state, 100.0, epoch)

    assert state.nav_peak_since(0) == state.nav_peak == 2.0
    assert state.nav_peak_since(190) == 1.0
    assert len(state.epoch_peaks) == 64
    assert told(state, control=resumed(100)).drawdowns.since_reset == pytest.approx(0.5)
