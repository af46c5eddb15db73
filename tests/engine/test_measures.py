"""The fast measures equal the slow reference, and no fills lose more than the worst case, in any row of the model."""

import itertools
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.decide import armed_limits, decide
from engine.limits import Limit, ScopeKind, reaches
from engine.measures import MEASURES
from engine.measures.measure import Case
from engine.order import Action, Order
from tests.engine.books import UNIVERSE, Bench, benches, lots_of, orders
from tests.engine.builders import NOW_US, WIDE, limits, row
from tests.engine.reference import Ends, SlowBook, label

PORTFOLIO = (
    "gross_exposure",
    "net_exposure",
    "beta_exposure",
    "concentration",
    "leverage",
    "var_95",
    "var_99",
    "es_95",
    "es_99",
    "stress_loss",
)
USED_UP = ("adv_share", "traded_quantity", "traded_value")
"""True reductions pass them, whatever their value."""

COUNTED = ("short_position", "open_orders", "open_positions")
READ = ("order_quantity", "order_value", "position", *COUNTED, *USED_UP, *PORTFOLIO)


def rows_of_every_scope(measures: tuple[str, ...], limit: float = WIDE, action: str = "reject") -> list[Limit]:
    """A row of each measure in each scope that it has but firm's."""
    return [
        row(name, limit, scope.value, action)
        for name in measures
        for scope in sorted(MEASURES[name].scopes - {ScopeKind.FIRM})
    ]


def test_the_table_of_measures_stands_in_the_order_in_which_reasons_take_precedence() -> None:
    ranks = [measure.reason.rank for measure in MEASURES.values()]

    assert ranks == sorted(ranks)


@settings(max_examples=120, deadline=None)
@given(benches, orders())
def test_every_measure_reads_what_the_reference_reads(bench: Bench, asked: Order) -> None:
    rows = rows_of_every_scope(READ)

    checks = decide(bench.state, bench.terms(limits(*rows)), asked, NOW_US).checks

    found = {(check.measure, check.scope): (check.before, check.after) for check in checks}
    instrument = UNIVERSE.instruments[asked.symbol]
    for one in rows:
        if reaches(one, asked.strategy, instrument, asked.identities):
            before, after = bench.slow.read(one, asked, lots_of(asked))
            read = found[one.measure, label(one, asked, instrument)]
            assert list(read) == pytest.approx([before, after], rel=1e-9, abs=1e-9), one


@settings(max_examples=60, deadline=None)
@given(benches, orders())
def test_a_measure_of_the_filled_order_is_the_references(bench: Bench, asked: Order) -> None:
    rows = rows_of_every_scope(("position", *PORTFOLIO))
    under = bench.terms(limits(*rows))
    instrument = UNIVERSE.instruments[asked.symbol]
    case = Case(bench.state, UNIVERSE, bench.risk, under.limits.policy, NOW_US, asked, instrument, lots_of(asked))

    for armed in armed_limits(bench.state, under, asked, instrument, NOW_US):
        if armed.measure.filled is not None:
            expected = bench.slow.filled(armed.row, asked, lots_of(asked))
            assert armed.measure.filled(case, armed) == pytest.approx(expected, rel=1e-9, abs=1e-9), armed.row


@settings(max_examples=60, deadline=None)
@given(benches, st.data())
def test_no_fills_of_the_open_orders_lose_more_than_the_worst_case(bench: Bench, data: st.DataObject) -> None:
    slow, risk = bench.slow, bench.risk
    worst = slow.book(None, UNIVERSE.instruments)
    opened = list(bench.state.orders.values())
    parts = [st.one_of(st.sampled_from([0, one.leaves]), st.integers(0, one.leaves)) for one in opened]
    corners = itertools.product(*([0, one.leaves] for one in opened))
    drawn = [data.draw(st.tuples(*parts))] if parts else []

    for fills in [*corners, *drawn]:
        landed = slow.book("none of these", UNIVERSE.instruments)
        for symbol, ends in worst.ends.items():
            landed.ends[symbol] = Ends(ends.position)
        for one, filled in zip(opened, fills, strict=True):
            landed.of(one.symbol).position += one.sign * filled
        assert_not_worse(bench, landed, worst)
    assert risk.n_rows == 27


def assert_not_worse(bench: Bench, landed: SlowBook, worst: SlowBook) -> None:
    slow = bench.slow
    for at in range(bench.risk.n_rows):
        assert slow.loss(landed, at) <= slow.loss(worst, at) + 1e-6
    for name in PORTFOLIO:
        one = row(name, WIDE)
        assert slow.standing(one, landed, "AAA") <= slow.standing(one, worst, "AAA") * (1 + 1e-12) + 1e-9


@settings(max_examples=120, deadline=None)
@given(
    benches, orders(), st.sampled_from(("order_quantity", "order_value", "position", *USED_UP, *PORTFOLIO)), st.data()
)
def test_reduce_allows_exactly_the_largest_quantity_that_fits(
    bench: Bench, asked: Order, measure: str, data: st.DataObject
) -> None:
    scopes = sorted(MEASURES[measure].scopes - {ScopeKind.FIRM})
    shape = row(measure, 0.0, data.draw(st.sampled_from(scopes)).value, "reduce")
    before, after = bench.slow.read(shape, asked, lots_of(asked))
    bound = max(0.0, before + data.draw(st.floats(-0.5, 1.2)) * (after - before))
    second = row("leverage", data.draw(st.floats(0.0, 0.02)), action="reduce")
    under = bench.terms(limits(row(measure, bound, shape.scope.value, "reduce"), second))

    verdict = decide(bench.state, under, asked, NOW_US)

    largest, surely = largest_by_trying(bench, asked, under.limits.rows[:2])
    if not math.isclose(largest, surely):
        return  # the bound lies within rounding of a whole number of lots: either is right
    closes = any(bench.slow.room(one, asked) for one in under.limits.rows[:2])
    if measure.startswith("var") and closes:  # VaR is not convex: of a reduction some quantity that lowers it is found
        assert verdict.allowed_lots <= largest
        return
    assert verdict.allowed_lots == largest
    expected = Action.REJECT if largest == 0 else Action.ALLOW if largest == lots_of(asked) else Action.REDUCE
    assert verdict.action is expected


@settings(max_examples=100, deadline=None)
@given(benches, orders(), st.sampled_from(("var_95", "var_99", "es_95", "es_99", "stress_loss")), st.floats(0.02, 0.98))
def test_the_closed_form_of_each_tail_is_the_largest_quantity_by_trying(
    bench: Bench, asked: Order, measure: str, part: float
) -> None:
    shape = row(measure, 0.0, unit="money")
    before, after = bench.slow.read(shape, asked, lots_of(asked))
    assume(bench.slow.room(shape, asked) == 0 and after > before + 1.0)
    limit = row(measure, max(0.0, before + part * (after - before)), unit="money", action="reduce")

    verdict = decide(bench.state, bench.terms(limits(limit)), asked, NOW_US)

    largest, surely = largest_by_trying(bench, asked, (limit,))
    assert surely <= verdict.allowed_lots <= largest


def largest_by_trying(bench: Bench, asked: Order, rows: tuple[Limit, ...]) -> tuple[int, int]:
    """Every lot from those asked for down to 1, by the reference, with a bound a hair too wide and one too tight."""
    instrument = UNIVERSE.instruments[asked.symbol]
    reaching = [one for one in rows if reaches(one, asked.strategy, instrument, asked.identities)]

    def largest(slack: float) -> int:
        for count in range(lots_of(asked), 0, -1):
            if all(passes(bench, one, asked, count, slack) for one in reaching):
                return count
        return 0

    return largest(1e-9), largest(-1e-9)


def passes(bench: Bench, one: Limit, asked: Order, count: int, slack: float) -> bool:
    """Within the bound, or a true reduction that lowers the measure and does not raise its underlying's grid loss."""
    slow = bench.slow
    if slow.read(one, asked, count)[1] <= one.limit * (1 + slack) + slack:
        return True
    if one.measure in ("order_quantity", "order_value") or count > slow.room(one, asked):
        return False
    if one.measure in USED_UP:
        return True
    book = slow.scope(one, asked)
    now = slow.standing(one, book, asked.symbol)
    return slow.filled(one, asked, count) < now * (1 + slack) + slack and not grid_rises(bench, asked, count, slack)


def grid_rises(bench: Bench, asked: Order, count: int, slack: float) -> bool:
    """Over ±spot, of the order's underlying's group in the whole account."""
    underlying = UNIVERSE.instruments[asked.symbol].underlying or asked.symbol
    members = [s for s, one in UNIVERSE.instruments.items() if (one.underlying or s) == underlying]
    now, then = bench.slow.book(None, members), bench.slow.book(None, members)
    then.of(asked.symbol).position += asked.side.sign * count
    worst_now, worst_then = max(bench.slow.grid_losses(now)), max(bench.slow.grid_losses(then))
    return worst_then > worst_now * (1 + max(slack, 1e-12)) + max(slack, 0)
