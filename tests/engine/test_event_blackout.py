"""event_blackout: nothing is opened in an event's window, or where nobody knows of events; exits pass. And tightenings
that hold from and until an instant, or for some symbols alone, at order time, in the report and for working orders.

10,000 in cash, AAA at 100 and BBB at 50.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import decide
from engine.headroom import headroom
from engine.instrument import InstrumentSet
from engine.misfits import misfits
from engine.order import Action, Order, Reason
from engine.records import CalendarPlanned, Decided
from engine.report import risk_report
from engine.tightening import EVENT_BLACKOUT, changes_us, tightened
from engine.utilisation import UseStatus, limit_uses
from tests.engine.builders import NOW_US, account, limits, order, reserve, row, sell, stock, terms, universe

TWO = universe(stock("AAA", sector="Tech", issuer="Alpha"), stock("BBB", sector="Energy"))
MARKS = {"AAA": 100.0, "BBB": 50.0}
HOUR = 3_600_000_000
BLACKOUT = row("event_blackout", 0)
DAY = 24 * HOUR


def held(plan: CalendarPlanned | None = None, **positions: int) -> AccountState:
    state = account(TWO, MARKS, cash=10_000.0, positions=positions)
    state.apply(plan if plan is not None else CalendarPlanned(time_us=NOW_US, until_us=NOW_US + 7 * DAY))
    return state


def window(
    state: AccountState,
    measures: tuple[str, ...] = (EVENT_BLACKOUT,),
    hours: tuple[float, float] = (1.0, 2.0),
    factor: float = 0.5,
    name: str = "event:cpi",
    symbols: tuple[str, ...] = (),
    sectors: tuple[str, ...] = (),
) -> None:
    from_us, until_us = (NOW_US + int(at * HOUR) for at in hours)
    for record in tightened(
        state,
        name,
        measures,
        factor,
        "Consumer Price Index",
        NOW_US,
        0,
        from_us=from_us,
        until_us=until_us,
        symbols=symbols,
        sectors=sectors,
    ):
        state.apply(record)


def at(state: AccountState, asked: Order, hours: float, *rows: object, instruments: InstrumentSet = TWO) -> Decided:
    under = terms(instruments, limits(*(rows or (BLACKOUT,)), mark_age_max_s=1e6))  # type: ignore[arg-type]
    return decide(state, under, asked, NOW_US + int(hours * HOUR))


def test_in_the_window_nothing_is_opened_and_what_is_held_may_be_closed() -> None:
    state = held(AAA=10)
    window(state)

    buy, out, flip = (at(state, one, 1.5) for one in (order(), sell(quantity=10), sell(quantity=11)))

    assert (buy.action, buy.reason) == (Action.REJECT, Reason.EVENT_BLACKOUT)
    assert buy.message == (
        "event_blackout of account:ALPHA: AAA opens nothing until 2023-11-15 00:13 UTC: Consumer Price Index"
    )
    assert (out.action, flip.reason) == (Action.ALLOW, Reason.EVENT_BLACKOUT)
    assert [(one.before, one.after, one.reduction) for one in out.checks if one.measure == "event_blackout"] == [
        (1.0, 1.0, True)
    ]


@pytest.mark.parametrize(("hours", "allowed"), [(0.0, True), (0.999, True), (1.0, False), (1.999, False), (2.0, True)])
def test_the_window_holds_from_its_start_until_its_end_without_any_record(hours: float, allowed: bool) -> None:
    state = held()
    window(state)
    at(state, order(), 0.5)  # what was resolved before the window must not outlive it

    assert at(state, order(), hours).action.allows is allowed


def test_earnings_of_one_company_close_its_symbol_what_it_issued_and_its_options_alone() -> None:
    state = held()
    window(state, symbols=("Alpha",))

    assert at(state, order("AAA"), 1.5).reason is Reason.EVENT_BLACKOUT
    assert at(state, order("BBB"), 1.5).action is Action.ALLOW


def test_a_sector_is_reached_by_its_name() -> None:
    state = held()
    window(state, sectors=("Energy",))

    assert at(state, order("AAA"), 1.5).action is Action.ALLOW
    assert at(state, order("BBB"), 1.5).reason is Reason.EVENT_BLACKOUT


NOBODY = "no calendar of events was ever read for this account; configure [events] and see that the worker runs"


@pytest.mark.parametrize(
    ("plan", "note"),
    [
        (CalendarPlanned(time_us=NOW_US, until_us=NOW_US + HOUR), "events are known up to 2023-11-14 23:13 UTC only"),
        (CalendarPlanned(time_us=NOW_US, until_us=NOW_US + DAY, missing=("bls",)), "events of bls were never read"),
        (None, NOBODY),
    ],
)
def test_where_nobody_knows_of_events_nothing_is_opened_and_exits_pass(plan: CalendarPlanned | None, note: str) -> None:
    state = account(TWO, MARKS, cash=10_000.0, positions={"AAA": 10})
    if plan is not None:
        state.apply(plan)

    opening, closing = at(state, order(), 1.5), at(state, sell(quantity=10), 1.5)

    assert (opening.action, opening.reason) == (Action.REJECT, Reason.EVENTS_UNKNOWN)
    assert opening.message == f"event_blackout of account:ALPHA can't be evaluated: {note}"
    assert closing.action is Action.ALLOW


@settings(max_examples=60, deadline=None)
@given(
    hours=st.floats(0, 200),
    until=st.one_of(st.none(), st.floats(-10, 200)),
    missing=st.booleans(),
    bought=st.integers(1, 10),
)
def test_no_calendar_that_is_over_missing_or_incomplete_lets_anything_be_opened(
    hours: float, until: float | None, missing: bool, bought: int
) -> None:
    state = account(TWO, MARKS, cash=10_000.0)
    if until is not None:
        end_us = NOW_US + int(until * HOUR)
        state.apply(CalendarPlanned(time_us=NOW_US, until_us=end_us, missing=("bls",) if missing else ()))
    window(state)

    verdict = at(state, order(quantity=bought), hours)

    known = until is not None and not missing and NOW_US + int(hours * HOUR) < NOW_US + int(until * HOUR)
    in_window = 1 <= int(hours * HOUR) / HOUR < 2
    assert verdict.action.allows is (known and not in_window)


def test_the_report_tells_whether_anything_may_be_opened() -> None:
    state = held(AAA=10)
    window(state)
    under = terms(TWO, limits(BLACKOUT, row("event_blackout", 0, "symbol"), mark_age_max_s=1e6))

    def uses(hours: float) -> dict[str, tuple[float | None, UseStatus]]:
        found = limit_uses(state, under, NOW_US + int(hours * HOUR))
        return {use.scope: (use.value, use.status) for use in found if use.measure == "event_blackout"}

    assert uses(0.5)["account:ALPHA"] == (0.0, UseStatus.OK)
    assert uses(1.5) == {
        "account:ALPHA": (1.0, UseStatus.BREACHED),
        "symbol:AAA": (1.0, UseStatus.BREACHED),
        "symbol:BBB": (1.0, UseStatus.BREACHED),
    }


# --- tightenings of other measures, by instants and selectors ---------------------------------------------------------


def leverage(state: AccountState, hours: float, symbol: str = "AAA") -> float:
    record = at(state, order(symbol), hours, row("leverage", 2.0))
    (check,) = [one for one in record.checks if one.measure == "leverage"]
    return check.limit


def test_a_bound_is_tight_in_the_window_alone_and_headroom_and_report_agree() -> None:
    state = held()
    window(state, ("leverage",))
    under = terms(TWO, limits(row("leverage", 2.0), mark_age_max_s=1e6))

    def most(hours: float) -> int:
        return headroom(state, under, "", "AAA", NOW_US + int(hours * HOUR)).buy.lots

    assert [leverage(state, hours) for hours in (0.5, 1.0, 1.5, 2.0)] == [2.0, 1.0, 1.0, 2.0]
    assert [most(hours) for hours in (0.5, 1.5)] == [200, 100]
    for hours, bound in ((0.5, 2.0), (1.5, 1.0)):
        report = risk_report(state, under, NOW_US + int(hours * HOUR))
        assert [use.limit for use in report.limits if use.measure == "leverage"] == [bound]
        assert len(report.tightenings) == (1 if bound == 1.0 else 0)


def test_one_on_a_symbol_binds_its_orders_and_its_own_rows() -> None:
    state = held()
    window(state, ("leverage", "gross_exposure"), symbols=("AAA",))
    under = terms(
        TWO, limits(row("gross_exposure", 5_000.0, "symbol"), row("gross_exposure", 9_000.0), mark_age_max_s=1e6)
    )

    assert [leverage(state, 1.5, symbol) for symbol in ("AAA", "BBB")] == [1.0, 2.0]
    uses = {
        use.scope: use.limit
        for use in limit_uses(state, under, NOW_US + int(1.5 * HOUR))
        if use.measure == "gross_exposure"
    }
    assert uses == {"symbol:AAA": 2_500.0, "symbol:BBB": 5_000.0, "account:ALPHA": 9_000.0}


def test_one_on_a_sector_binds_the_row_of_the_sector() -> None:
    state = held()
    window(state, ("gross_exposure",), sectors=("Tech",))
    under = terms(TWO, limits(row("gross_exposure", 5_000.0, "sector"), mark_age_max_s=1e6))

    uses = {
        use.scope: use.limit
        for use in limit_uses(state, under, NOW_US + int(1.5 * HOUR))
        if use.measure == "gross_exposure"
    }
    assert uses == {"sector:Tech": 2_500.0, "sector:Energy": 5_000.0}


def test_working_orders_no_longer_fit_once_the_window_opens() -> None:
    state = held()
    reserve(state, "first", "AAA", 40)
    reserve(state, "second", "AAA", 40)
    window(state, ("gross_exposure",), symbols=("AAA",))
    under = terms(TWO, limits(row("gross_exposure", 9_000.0, "symbol"), mark_age_max_s=1e6))

    assert misfits(state, under, NOW_US, ()) == []
    assert [one.order.client_order_id for one in misfits(state, under, NOW_US + int(1.5 * HOUR), ())] == ["second"]


def test_the_next_change_is_the_nearest_start_or_end_to_come() -> None:
    state = held()
    window(state, hours=(1.0, 2.0))
    window(state, hours=(1.5, 3.0), name="event:other")

    changes = [(changes_us(state.tightenings, NOW_US + int(h * HOUR)) - NOW_US) / HOUR for h in (0, 1, 1.5, 2)]
    assert changes == [1.0, 1.5, 2.0, 3.0]
    assert changes_us(state.tightenings, NOW_US + 3 * HOUR) > NOW_US + 1000 * DAY
