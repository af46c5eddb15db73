"""Which open orders have to go when a bound, a mark or a position has moved: enough of them, no more, and no exit."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.account import AccountState, OpenOrder, book_key
from engine.decide import Terms, decide
from engine.limits import Limit, LimitMode
from engine.misfits import Misfit, misfits
from engine.records import ExecutionKind
from engine.utilisation import LimitUse, UseStatus, limit_uses
from tests.engine.books import Bench, benches
from tests.engine.builders import NOW_US, account, limits, report, reserve, row, stock, terms, universe
from tests.engine.builders import order as ordered

TWO = universe(stock("AAA"), stock("BBB"))
MARKS = {"AAA": 100.0, "BBB": 10.0}
Pile = tuple[str, str, int]


def names(found: list[Misfit]) -> list[str]:
    return [misfit.order.client_order_id for misfit in found]


def gone(state: AccountState, *rows: Limit) -> list[str]:
    return names(misfits(state, terms(TWO, limits(*rows)), NOW_US, ()))


# -- stories


def test_the_newest_orders_go_until_the_limit_fits() -> None:
    state = account(TWO, MARKS)
    for name in ("first", "second", "third"):
        reserve(state, name, "AAA", 40)

    assert gone(state, row("position", 120, "symbol")) == []
    assert gone(state, row("position", 119, "symbol")) == ["third"]
    assert gone(state, row("position", 60, "symbol")) == ["third", "second"]


def test_the_newest_go_first_whatever_their_symbol() -> None:
    state = account(TWO, MARKS)
    for name, symbol, lots in (("a1", "AAA", 10), ("b1", "BBB", 100), ("a2", "AAA", 10), ("b2", "BBB", 100)):
        reserve(state, name, symbol, lots)

    assert gone(state, row("gross_exposure", 3_999.0)) == ["b2"]
    assert sorted(gone(state, row("gross_exposure", 2_999.0))) == ["a2", "b2"]


def test_no_more_of_a_symbol_goes_because_another_needs_an_older_order_to() -> None:
    state = account(TWO, MARKS)
    for name, symbol in (("b1", "BBB"), ("b2", "BBB"), ("a1", "AAA"), ("a2", "AAA"), ("a3", "AAA")):
        reserve(state, name, symbol, 50 if symbol == "BBB" else 40)

    assert sorted(gone(state, row("position", 99, "symbol"))) == ["a3", "b2"]
    assert sorted(gone(state, row("position", 80, "symbol"), row("position", 50, "strategy"))) == ["a2", "a3", "b2"]


def test_what_is_used_up_sends_the_newest_home_and_no_exit() -> None:
    state = account(TWO, MARKS, positions={"BBB": 20})
    for name, symbol, lots in (("opens", "AAA", 5), ("closes", "BBB", -20), ("opens more", "AAA", 5)):
        reserve(state, name, symbol, lots)

    assert gone(state, row("traded_value", 1_200.0)) == []
    assert gone(state, row("traded_value", 1_199.0)) == ["opens more"]
    assert gone(state, row("traded_quantity", 5.0, "symbol")) == ["opens more"]
    assert sorted(gone(state, row("open_positions", 1.0))) == ["opens", "opens more"]
    assert gone(state, row("net_exposure", 1_000.0)) == ["opens more"]
    assert gone(state, row("open_orders", 1.0)) == []


def test_only_orders_that_add_to_what_is_over_go() -> None:
    state = account(TWO, MARKS, positions={"AAA": 50})
    for name, symbol, lots in (("more", "AAA", 60), ("other", "BBB", 60), ("less", "AAA", -20), ("newest", "BBB", 5)):
        reserve(state, name, symbol, lots)

    assert gone(state, row("position", 100, "symbol")) == ["more"]


def test_both_sides_go_where_both_are_over_and_no_more_of_either_than_must() -> None:
    state = account(TWO, MARKS)
    for at in range(3):
        reserve(state, f"buy{at}", "AAA", 50)
        reserve(state, f"sell{at}", "AAA", -50)

    assert sorted(gone(state, row("position", 100, "symbol"))) == ["buy2", "sell2"]


def test_what_closes_a_position_stays_though_nothing_fits_any_more() -> None:
    state = account(TWO, MARKS, positions={"AAA": 100})
    for name, lots in (("closes", -60), ("too much", -160), ("closes the rest", -40), ("more", 10)):
        reserve(state, name, "AAA", lots)

    assert sorted(gone(state, row("gross_exposure", 0.0))) == ["more", "too much"]


def test_a_strategys_exit_is_none_of_the_accounts_where_the_account_holds_nothing() -> None:
    state = account(TWO, MARKS, strategies={("mm", "AAA"): 100, ("rl", "AAA"): -100})
    reserve(state, "exit", "AAA", -100, "mm")

    assert gone(state, row("position", 0, "strategy", match="mm")) == []
    assert gone(state, row("position", 50, "symbol")) == ["exit"]


def test_what_goes_anyway_is_not_counted() -> None:
    state = account(TWO, MARKS)
    for name in ("old", "new"):
        reserve(state, name, "AAA", 60)
    under = terms(TWO, limits(row("position", 100, "symbol")))

    assert names(misfits(state, under, NOW_US, [state.orders["old"]])) == []
    assert state.book.buys[0] == 120


@pytest.mark.parametrize(
    "harmless",
    [
        row("position", 1, "symbol", action="warn"),
        row("position", 1, "symbol", mode=LimitMode.SHADOW),
        row("order_quantity", 1, "symbol"),
        row("order_rate", 0),
        row("mark_age", 0.0),
        row("var_95", 1e-9),
    ],
    ids=lambda r: f"{r.measure} {r.action} {r.mode}",
)
def test_nothing_goes_for_warnings_shadows_rates_and_what_cannot_be_evaluated(harmless: Limit) -> None:
    """No model is published, so VaR can't be evaluated; the attempts fill the rate."""
    state = account(TWO, MARKS)
    reserve(state, "one", "AAA", 50)

    assert gone(state, harmless) == []


def test_a_price_that_is_no_number_takes_nothing_away() -> None:
    state = account(TWO, MARKS | {"AAA": float("inf")})
    reserve(state, "one", "AAA", 50)

    assert gone(state, row("gross_exposure", 1.0)) == []


def test_orders_that_the_venue_is_done_with_stay_and_count() -> None:
    state = account(TWO, MARKS)
    for name in ("works", "done"):
        reserve(state, name, "AAA", 60)
    state.apply(report(state, "done", ExecutionKind.CANCELLED, cumulative_lots=50))

    assert gone(state, row("position", 100, "symbol")) == ["works"]


def test_a_replacement_that_what_it_replaces_counts_for_stays_until_it_counts_itself() -> None:
    """Of a hundred and of the sixty that replace them the venue can fill a hundred."""
    venue = universe(stock("AAA", replaces_atomically=True))
    state = account(venue, {"AAA": 100.0})
    reserve(state, "old", "AAA", 100)
    smaller = ordered("AAA", quantity=60, client_order_id="new", replaces_client_order_id="old")
    state.apply(decide(state, terms(venue, limits()), smaller, NOW_US))
    reserve(state, "late", "AAA", 50)
    tight, tighter = (terms(venue, limits(row("position", bound, "symbol"))) for bound in (60, 59))

    assert sorted(names(misfits(state, tight, NOW_US, ()))) == ["late", "old"]
    after = without(state, [state.orders["old"], state.orders["late"]])
    assert names(misfits(after, tight, NOW_US, ())) == []
    assert names(misfits(after, tighter, NOW_US, ())) == ["new"]


def test_ten_thousand_orders_are_judged_at_once() -> None:
    state = account(TWO, MARKS)
    for at in range(10_000):
        reserve(state, f"o{at}", "AAA" if at % 2 else "BBB", 1)

    found = gone(state, row("position", 4_000, "symbol"))

    assert len(found) == 2_000
    assert set(found) == {f"o{at}" for at in range(8_000, 10_000)}


# -- properties

PATIENT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Bounds are drawn as parts of what a book amounts to, which has to be computed first: slow on a busy machine."""

SCOPES = {
    "position": ("symbol", "strategy", "sector"),
    "gross_exposure": ("account", "strategy", "sector"),
    "concentration": ("account", "strategy"),
    "leverage": ("account", "strategy"),
    "var_95": ("account", "strategy", "sector"),
    "es_99": ("account", "strategy"),
    "stress_loss": ("account", "strategy"),
}


@st.composite
def tight_rows(draw: st.DrawFn, bench: Bench, scopes: tuple[str, ...], most: int = 1) -> tuple[Limit, ...]:
    """Rows whose bound is a part of the largest value that they have now."""
    kinds = sorted((m, s) for m, allowed in SCOPES.items() for s in allowed if s in scopes)
    rows = []
    for measure, scope in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=most, unique=True)):
        loose = row(measure, 1e12, scope)
        uses = limit_uses(bench.state, bench.terms(limits(loose)), NOW_US)
        largest = max((use.value or 0.0 for use in uses if use.measure == measure), default=0.0)
        rows.append(row(measure, max(0.0, largest) * draw(st.floats(0.0, 1.1)), scope))
    return tuple(rows)


def without(state: AccountState, orders: list[OpenOrder]) -> AccountState:
    """The state once the orders are confirmed cancelled."""
    after = state.fork()
    for order in orders:
        after.apply(report(after, order.client_order_id, ExecutionKind.CANCELLED, cumulative_lots=order.filled))
    return after


def over(state: AccountState, under: Terms) -> dict[str, LimitUse]:
    uses = limit_uses(state, under, NOW_US)
    return {f"{u.measure} {u.scope}": u for u in uses if u.hard and u.status is UseStatus.BREACHED}


def exits(state: AccountState, by_strategy: bool) -> set[str]:
    """Open orders that, oldest first, close no more than is held."""
    room: dict[tuple[str, str, int], int] = {}
    found = set()
    for order in sorted(state.orders.values(), key=lambda order: order.seq):
        book = book_key(order.strategy) if by_strategy else ""
        held = int(state.book_of(book).lots[state.slots[order.symbol]])
        left = room.setdefault((book, order.symbol, order.sign), abs(held) if held * order.sign < 0 else 0)
        if order.leaves <= left:
            room[book, order.symbol, order.sign] = left - order.leaves
            found.add(order.client_order_id)
    return found


ACCOUNT_SCOPES = ("account", "symbol", "sector")


@PATIENT
@given(st.data(), benches, st.booleans())
def test_after_the_cancels_no_limit_is_over_but_by_what_is_no_open_order(
    data: st.DataObject, bench: Bench, by_strategy: bool
) -> None:
    rows = data.draw(tight_rows(bench, ("strategy",) if by_strategy else ACCOUNT_SCOPES, most=3))
    under, state = bench.terms(limits(*rows)), bench.state
    kept = exits(state, by_strategy)

    found = misfits(state, under, NOW_US, ())

    assert kept.isdisjoint(names(found))
    after = without(state, [misfit.order for misfit in found])
    bare = without(state, [order for order in state.orders.values() if order.client_order_id not in kept])
    least = over(bare, under)
    for name, use in over(after, under).items():
        assert name in least and use.value == pytest.approx(least[name].value, rel=1e-9)


@PATIENT
@given(st.data(), benches)
def test_of_each_pile_the_newest_go_and_none_that_could_have_stayed(data: st.DataObject, bench: Bench) -> None:
    """Giving the oldest of a pile back takes a limit past its bound, or past what the positions alone amount to."""
    rows = data.draw(tight_rows(bench, ACCOUNT_SCOPES))
    under, state = bench.terms(limits(*rows)), bench.state
    kept = exits(state, by_strategy=False)
    bare = without(state, [order for order in state.orders.values() if order.client_order_id not in kept])
    least = {f"{u.measure} {u.scope}": u.value or 0.0 for u in limit_uses(bare, under, NOW_US)}

    found = [misfit.order for misfit in misfits(state, under, NOW_US, ())]

    piles: dict[Pile, list[OpenOrder]] = {}
    for order in found:
        piles.setdefault((order.strategy, order.symbol, order.sign), []).append(order)
    for key, orders in piles.items():
        of_pile = [
            order
            for order in state.orders.values()
            if (order.strategy, order.symbol, order.sign) == key and order.client_order_id not in kept
        ]
        assert {o.seq for o in orders} == {o.seq for o in sorted(of_pile, key=lambda o: -o.seq)[: len(orders)]}
        oldest = min(orders, key=lambda order: order.seq)
        given_back = over(without(state, [order for order in found if order is not oldest]), under)
        assert any((use.value or 0.0) > least.get(name, 0.0) * (1 + 1e-12) for name, use in given_back.items())
