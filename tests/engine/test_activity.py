"""Counts and turnover: from the approval on, over strategies and groups, by session, and never in an exit's way."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import decide
from engine.limits import Limit, ScopeKind
from engine.order import Action, Order, Reason
from engine.records import AnyRecord, Decided, ExecutionKind, SessionOpened, decode, encode
from engine.utilisation import limit_uses
from tests.engine.builders import (
    NOW_US,
    account,
    fill,
    limits,
    order,
    report,
    reserve,
    row,
    sell,
    stock,
    terms,
    universe,
    valued,
)

ONES = universe(
    stock("AAA", sector="Tech", average_daily_quantity=100.0),
    stock("BBB", sector="Energy", lot_size=10.0),
    stock("EUX", sector="Energy", currency="EUR"),
)
MARKS = {"AAA": 100.0, "BBB": 5.0, "EUX": 50.0}
FX = {"EUR": 1.1}


def flat(**fields: object) -> AccountState:
    return account(ONES, MARKS, **({"fx": FX} | fields))  # type: ignore[arg-type]


def judged(asked: Order, *rows: Limit, state: AccountState) -> Decided:
    return decide(state, terms(ONES, limits(*rows)), asked, NOW_US)


def after(asked: Order, limit: Limit, state: AccountState) -> float | None:
    return next(one.after for one in judged(asked, limit, state=state).checks if one.measure == limit.measure)


def tomorrow(state: AccountState) -> None:
    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))


# --- open orders ----------------------------------------------------------------------------------------------------


def test_an_order_is_open_from_its_approval_on_until_it_has_ended() -> None:
    state, limit = flat(), row("open_orders", 2)
    reserve(state, "working", "AAA", 5)
    reserve(state, "in flight", "BBB", 5)
    full = judged(order(), limit, state=state)
    state.apply(report(state, "working", ExecutionKind.WORKING))
    fill(state, "working", 2)
    partly = judged(order(), limit, state=state)

    state.apply(report(state, "working", ExecutionKind.CANCELLED))

    assert (full.reason, partly.reason) == (Reason.OPEN_ORDERS, Reason.OPEN_ORDERS)
    assert judged(order(), limit, state=state).action is Action.ALLOW


def test_a_replacement_and_what_it_replaces_are_two_until_one_has_ended() -> None:
    state = flat()
    reserve(state, "old", "AAA", 5)
    reserve(state, "new", "AAA", 6, replaces_client_order_id="old")

    both = after(order(), row("open_orders", 9), state)
    state.apply(report(state, "old", ExecutionKind.CANCELLED))

    assert (both, after(order(), row("open_orders", 9), state)) == (3.0, 2.0)


def test_open_orders_never_keep_anybody_from_closing() -> None:
    state = flat(positions={"AAA": 5})
    reserve(state, "working", "BBB", 5)

    assert judged(sell(quantity=5), row("open_orders", 1), state=state).action is Action.ALLOW


# --- open positions -------------------------------------------------------------------------------------------------


def test_positions_are_counted_with_those_that_open_orders_may_make() -> None:
    state, limit = flat(positions={"AAA": 5}), row("open_positions", 2)
    reserve(state, "pending", "BBB", 5)

    third, more, out = (
        judged(one, limit, state=state) for one in (order("EUX"), order("BBB", quantity=50), sell(quantity=5))
    )

    assert (third.reason, more.action, out.action) == (Reason.OPEN_POSITIONS, Action.ALLOW, Action.ALLOW)


def test_over_the_bound_positions_are_closed_in_parts_and_not_added_to() -> None:
    state = flat(positions={"AAA": 5, "BBB": 5})

    part, more = (judged(one, row("open_positions", 1), state=state) for one in (sell(quantity=2), order(quantity=2)))

    assert (part.action, more.reason) == (Action.ALLOW, Reason.OPEN_POSITIONS)


# --- turnover -------------------------------------------------------------------------------------------------------


def test_fills_of_both_sides_add_up_with_what_is_open_and_with_this_order() -> None:
    state = flat()
    reserve(state, "bought", "AAA", 5)
    fill(state, "bought", 5, price=90.0)
    reserve(state, "sold", "AAA", -5)
    fill(state, "sold", 2, price=110.0)

    quantity, value = (after(order(quantity=4), row(name, 1e9), state) for name in ("traded_quantity", "traded_value"))

    assert quantity == 7 + 3 + 4
    assert value == 5 * 90 + 2 * 110 + (3 + 4) * 100


def test_turnover_begins_anew_with_the_session_and_what_is_open_carries_over() -> None:
    state = flat()
    reserve(state, "good till cancelled", "AAA", 10)
    fill(state, "good till cancelled", 4)
    limit = row("traded_quantity", 10, "symbol")
    assert judged(order(), limit, state=state).reason is Reason.TRADED_QUANTITY

    state.apply(valued({"AAA": 101.0}, time_us=NOW_US + 86_400_000_000))
    assert after(order(), limit, state) == 11.0
    tomorrow(state)

    assert after(order(), limit, state) == 7.0


def test_a_fill_in_another_currency_counts_at_the_rate_as_it_is() -> None:
    state = flat()
    reserve(state, "euros", "EUX", 10)
    fill(state, "euros", 10, price=60.0)
    state.apply(valued({}, {"EUR": 1.2}))

    assert after(order(), row("traded_value", 1e9), state) == pytest.approx(10 * 60 * 1.2 + 100)


def test_a_fill_without_a_rate_leaves_turnover_unknown_until_there_is_one() -> None:
    state = flat(fx={})
    reserve(state, "euros", "EUX", 10)
    fill(state, "euros", 10, price=60.0)
    reserve(state, "back", "EUX", -10)
    fill(state, "back", 10, price=60.0)
    limit = row("traded_value", 1e9, unit="money")

    blind = judged(order(), limit, state=state)
    state.apply(valued({}, {"EUR": 1.1}))

    assert blind.reason is Reason.FX_MISSING
    assert after(order(), limit, state) == pytest.approx(20 * 60 * 1.1 + 100)


@pytest.mark.parametrize("name", ["traded_quantity", "traded_value"])
def test_a_session_s_turnover_that_is_used_up_lets_exits_pass_and_reduces_what_opens(name: str) -> None:
    state = flat(positions={"AAA": 5})
    reserve(state, "one", "AAA", 10)
    fill(state, "one", 10)
    bound = 12.0 if name == "traded_quantity" else 1200.0

    more, out = (
        judged(one, row(name, bound, "account", "reduce"), state=state)
        for one in (order(quantity=4), sell(quantity=15))
    )

    assert (more.action, more.allowed_lots) == (Action.REDUCE, 2)
    assert (out.action, out.allowed_lots) == (Action.ALLOW, 15)


def test_a_share_of_the_day_is_of_the_order_alone_and_reduces_it() -> None:
    """A hundred a day."""
    limit = row("adv_share", 0.1, "symbol", "reduce")

    whole, part = (judged(order(quantity=count), limit, state=flat()) for count in (10, 25))
    out = judged(sell(quantity=25), limit, state=flat(positions={"AAA": 25}))

    assert (whole.action, part.action, part.allowed_lots) == (Action.ALLOW, Action.REDUCE, 10)
    assert out.action is Action.ALLOW


def test_without_a_known_day_nothing_opens_and_everything_closes() -> None:
    limit, state = row("adv_share", 0.1), flat(positions={"BBB": 5})

    assert judged(order("BBB", quantity=10), limit, state=state).reason is Reason.AVERAGE_DAILY_QUANTITY_MISSING
    assert judged(sell("BBB", quantity=50), limit, state=state).action is Action.ALLOW


# --- against a slow recount -----------------------------------------------------------------------------------------

NAMES, STRATEGIES = tuple(ONES.instruments), ("", "mm", "rl")


@st.composite
def histories(draw: st.DrawFn) -> tuple[AccountState, list[AnyRecord]]:
    """A state, and the records that made it: orders, fills, ends of orders, sessions."""
    state, records = flat(), []

    def add(record: AnyRecord) -> None:
        records.append(record)
        state.apply(record)

    for at in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(["order", "order", "fill", "fill", "cancel", "session"]))
        if kind == "order":
            fork = state.fork()
            count, name = draw(st.integers(-9, 9).filter(bool)), draw(st.sampled_from(NAMES))
            reserve(fork, f"o{at}", name, count, draw(st.sampled_from(STRATEGIES)))
            state = fork.settle()
        elif kind in ("fill", "cancel") and state.orders:
            name = draw(st.sampled_from(sorted(state.orders)))
            lots = draw(st.integers(1, state.orders[name].leaves)) if kind == "fill" else 0
            price = draw(st.sampled_from([4.0, 50.0, 110.0]))
            add(report(state, name, ExecutionKind.FILL if lots else ExecutionKind.CANCELLED, lots, price))
        elif kind == "session":
            add(SessionOpened(time_us=NOW_US, date=f"2024-01-{at + 1:02}"))
    return state, records


@settings(max_examples=150, deadline=None)
@given(histories())
def test_counts_and_turnover_are_what_the_records_add_up_to(history: tuple[AccountState, list[AnyRecord]]) -> None:
    state, records = history
    lots: dict[tuple[str, str], float] = defaultdict(float)
    value: dict[tuple[str, str], float] = defaultdict(float)
    for record in map(decode, map(encode, records)):
        if isinstance(record, SessionOpened):
            lots.clear()
            value.clear()
        elif getattr(record, "lots", 0):
            assert not isinstance(record, SessionOpened)
            one, key = ONES.instruments[record.symbol], (record.strategy, record.symbol)  # type: ignore[union-attr]
            lots[key] += record.lots * one.lot_size  # type: ignore[union-attr]
            value[key] += record.lots * record.price * one.unit * FX.get(one.currency, 1.0)  # type: ignore[union-attr]
    for order_ in state.orders.values():
        one, key = ONES.instruments[order_.symbol], (order_.strategy, order_.symbol)
        lots[key] += order_.leaves * one.lot_size
        value[key] += order_.leaves * MARKS[one.symbol] * one.unit * FX.get(one.currency, 1.0)
    open_keys = [(order_.strategy, order_.symbol) for order_ in state.orders.values()]

    rows = [
        row(n, 1e12, s) for n in ("open_orders", "traded_value") for s in ("account", "strategy", "sector", "symbol")
    ]
    rows += [row("traded_quantity", 1e12, "symbol"), row("traded_quantity", 1e12, "strategy")]
    for use in limit_uses(state, terms(ONES, limits(*rows)), NOW_US):
        members = [
            key for key in {*lots, *open_keys, *((s, n) for s in STRATEGIES for n in NAMES)} if _is_in(use.scope, key)
        ]
        if use.measure == "open_orders":
            assert use.value == sum(1 for key in open_keys if key in members)
        elif use.measure == "traded_value":
            assert use.value == pytest.approx(sum(value[key] for key in members))
        elif use.measure == "traded_quantity":
            assert use.value == pytest.approx(sum(lots[key] for key in members))


def _is_in(scope: str, key: tuple[str, str]) -> bool:
    strategy, symbol = key
    names = {
        ScopeKind.ACCOUNT: "ALPHA",
        ScopeKind.STRATEGY: strategy or "(none)",
        ScopeKind.SECTOR: ONES.instruments[symbol].sector,
        ScopeKind.SYMBOL: symbol,
    }
    return all(names[ScopeKind(kind)] == name for kind, _, name in (part.partition(":") for part in scope.split()))


@settings(max_examples=40, deadline=None)
@given(histories())
def test_a_fork_that_is_dropped_leaves_counts_and_turnover_alone(
    history: tuple[AccountState, list[AnyRecord]],
) -> None:
    state, _ = history
    rows = (row("open_orders", 1e9, "symbol"), row("traded_value", 1e9), row("traded_quantity", 1e9))
    under = terms(ONES, limits(*rows))
    before = limit_uses(state, under, NOW_US)

    trial = state.fork()
    reserve(trial, "another", "AAA", 3, "mm")
    fill(trial, "another", 2)
    tomorrow(trial)

    assert limit_uses(state, under, NOW_US) == before
