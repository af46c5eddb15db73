"""Caps on Greeks at order time, net and by underlying, with hand-written numbers.

A stock at 100, a call and a put on it with a multiplier of 100, another stock at 50 with a call. Per unit the call has
delta 0.5, gamma 0.02, theta −0.05, vega 0.3, the put −0.4, 0.03, −0.04 and 0.2: per lot, in money, the call has delta
5,000, gamma 0.01 × 0.02 × 100² × 100 = 200, theta −5 and vega 30.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.decide import decide
from engine.headroom import headroom
from engine.limits import Limit
from engine.order import Action, Order, Reason, Side
from engine.records import Decided
from engine.risk.model import OPTION_ARRAYS, RiskModel, option_columns
from engine.utilisation import UseStatus, limit_uses
from tests.engine.builders import NOW_US, account, limits, model, order, reserve, row, sell, terms, valued
from tests.engine.option_books import MARKS, PER_UNIT, RISK, UNIVERSE, risk

NETS = ("delta_net", "gamma", "theta_day", "vega")
GREEKS = (*NETS, *(f"{name.removesuffix('_net')}_underlying" for name in NETS))


def held(positions: Mapping[str, int] | None = None, **marks: float) -> AccountState:
    return account(UNIVERSE, MARKS | marks, positions=positions)


def judged(state: AccountState, asked: Order, *rows: Limit, built: RiskModel | None = RISK) -> Decided:
    return decide(state, terms(UNIVERSE, limits(*rows), built), asked, NOW_US)


def read(state: AccountState, asked: Order, name: str, **fields: str) -> tuple[float | None, float | None]:
    record = judged(state, asked, row(name, 1e12, **fields))
    found = next(check for check in record.checks if check.measure == name)
    return found.before, found.after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("delta_net", 10_000, 15_000), ("gamma", 400, 600), ("theta_day", 10, 15), ("vega", 60, 90)],
)
def test_a_bought_call_adds_its_greeks(name: str, before: float, after: float) -> None:
    assert read(held({"CALL": 2}), order("CALL"), name) == pytest.approx((before, after))


def test_stock_has_a_delta_and_nothing_else() -> None:
    state = held({"AAA": 300})

    assert read(state, order(quantity=10), "delta_net") == pytest.approx((30_000, 31_000))
    assert [read(state, order(quantity=10), name) for name in NETS[1:]] == [(0.0, 0.0)] * 3


def test_gamma_follows_the_underlying_at_its_mark_now() -> None:
    """0.01 × 0.02 × 102² × 100."""
    assert read(held(AAA=102.0), order("CALL"), "gamma")[1] == pytest.approx(208.08)


def test_written_vega_is_as_much_as_bought_and_what_is_held_nets() -> None:
    written = order("PUT", Side.SELL_SHORT, 4.0)

    assert read(held(), written, "vega") == pytest.approx((0, 80))
    assert read(held({"CALL": 2}), written, "vega") == pytest.approx((60, 60))  # the short may not fill
    assert read(held({"CALL": 2, "PUT": -4}), order("CALL", quantity=2), "vega") == pytest.approx((20, 40))


def test_open_orders_count_at_their_worse_end_and_do_not_net() -> None:
    """Two calls held: 60. The open buy may make it 90, the open sell of the put 40: the larger is 90."""
    state = held({"CALL": 2})
    reserve(state, "buy", "CALL", 1)
    reserve(state, "sell", "PUT", -1)

    assert read(state, order("CALL"), "vega") == pytest.approx((90, 120))


def test_an_underlying_is_capped_by_itself() -> None:
    """Of BBB one call: 0.6 × 50 × 100; of AAA two: 10,000."""
    state = held({"CALL": 2, "BCALL": 1})

    assert read(state, order("CALL"), "delta_net") == pytest.approx((13_000, 18_000))
    assert read(state, order("CALL"), "delta_underlying") == pytest.approx((10_000, 15_000))
    assert read(state, order("BBB"), "delta_underlying") == pytest.approx((3_000, 3_050))


def test_over_the_cap_nothing_is_opened_and_what_closes_passes() -> None:
    state, cap = held({"CALL": 5}), row("vega", 100.0)

    more, less = judged(state, order("CALL"), cap), judged(state, sell("CALL"), cap)

    assert (more.action, more.reason) == (Action.REJECT, Reason.VEGA)
    assert less.action is Action.ALLOW


@pytest.mark.parametrize("name", GREEKS)
def test_what_has_none_of_a_greek_is_not_trapped_by_its_cap(name: str) -> None:
    """Stock has no vega: its sale can't lower it."""
    state, cap = held({"CALL": 5, "AAA": 300}), row(name, 1.0)
    armed = terms(UNIVERSE, limits(cap), RISK)

    assert judged(state, sell(quantity=300), cap).action is Action.ALLOW
    assert headroom(state, armed, "", "AAA", NOW_US).sell.lots == 300
    assert not judged(state, order(), cap).action.allows


def test_no_field_of_an_order_lifts_a_cap() -> None:
    eager = order("CALL", valid_for_us=1, algo_id="oracle", trader_id="boss", desk_id="top", all_or_none=True)

    assert judged(held({"CALL": 5}), eager, row("vega", 100.0)).reason is Reason.VEGA


def test_a_cap_cuts_an_order_to_what_fits() -> None:
    record = judged(held({"CALL": 2}), order("CALL", quantity=9), row("vega", 200.0, action="reduce"))

    assert (record.action, record.reason, record.allowed_lots) == (Action.REDUCE, Reason.VEGA, 4)


@pytest.mark.parametrize("name", GREEKS)
def test_each_cap_bounds_headroom_to_what_decide_allows(name: str) -> None:
    state = held({"CALL": 2})
    one, two = (read(state, order("CALL", quantity=lots), name)[1] or 0.0 for lots in (1, 2))
    armed = terms(UNIVERSE, limits(row(name, (one + two) / 2)), RISK)

    room = headroom(state, armed, "", "CALL", NOW_US)

    assert room.buy.lots == 1


@pytest.mark.parametrize("name", GREEKS)
def test_what_cannot_be_valued_opens_nothing_and_lets_out(name: str) -> None:
    state, cap = held({"CALL": 2}), row(name, 1e12)
    stale = risk(built_time_us=NOW_US - 27 * 3600 * 1_000_000)

    assert judged(state, order("CALL"), cap, built=None).reason is Reason.MODEL_MISSING
    assert judged(state, order("CALL"), cap, built=stale).reason is Reason.MODEL_STALE
    assert judged(state, order("BBB"), cap, built=stale).reason is Reason.MODEL_STALE
    assert judged(held(AAA=110.0), order("CALL"), cap).reason is Reason.MODEL_STALE
    assert judged(state, sell("CALL"), cap, built=stale).action is Action.ALLOW


@pytest.mark.parametrize("name", GREEKS)
def test_a_first_order_in_what_cannot_be_valued_is_told_by_the_cap_itself(name: str) -> None:
    """Whatever else refuses it."""
    stale = risk(built_time_us=NOW_US - 27 * 3600 * 1_000_000)

    assert read(held(AAA=110.0), order("CALL"), name) == (None, None)
    record = judged(held(), order("CALL"), row(name, 1e12), built=stale)
    assert next(check for check in record.checks if check.measure == name).after is None


@pytest.mark.parametrize("name", GREEKS)
def test_options_that_nobody_holds_disturb_nobody(name: str) -> None:
    """They are listed, and the model has valued none."""
    unvalued = model({symbol: [0.0] * 25 for symbol in MARKS})

    assert judged(held({"AAA": 10}), order("BBB"), row(name, 1e12), built=unvalued).action is Action.ALLOW


def test_a_new_mark_is_seen_at_once() -> None:
    state = held({"CALL": 1})
    before = read(state, order("CALL"), "gamma")
    state.apply(valued({"AAA": 102.0}))

    assert before == pytest.approx((200.0, 400.0))
    assert read(state, order("CALL"), "gamma") == pytest.approx((208.08, 416.16))


@pytest.mark.parametrize("name", ["gamma", "theta_day", "vega"])
def test_a_greek_that_is_no_number_approves_nothing(name: str) -> None:
    values = dict.fromkeys(OPTION_ARRAYS, (0.0,) * 3) | PER_UNIT | {name.removesuffix("_day"): (np.nan,) * 3}
    columns = option_columns(np.array([2, 3, 4]), np.array([values[one] for one in OPTION_ARRAYS]))

    record = judged(held(), order("CALL"), row(name, 1e12), built=replace(RISK, options=columns))

    assert (record.action, record.reason) == (Action.REJECT, Reason.MEASURE_NOT_FINITE)


def test_the_report_tells_each_underlying() -> None:
    state = held({"CALL": 2, "BCALL": 1})
    armed = terms(UNIVERSE, limits(row("vega", 50.0), row("delta_underlying", 1e6)), RISK)

    uses = {use.scope: use for use in limit_uses(state, armed, NOW_US) if use.measure in GREEKS}

    assert uses["account:ALPHA"].value == pytest.approx(70)
    assert uses["account:ALPHA"].status is UseStatus.BREACHED
    assert uses["account:ALPHA underlying:AAA"].value == pytest.approx(10_000)
    assert uses["account:ALPHA underlying:BBB"].value == pytest.approx(3_000)


lots = st.integers(-20, 20)


@given(st.dictionaries(st.sampled_from(sorted(MARKS)), lots), st.lists(st.tuples(st.sampled_from(sorted(MARKS)), lots)))
def test_no_fills_of_the_open_orders_pass_the_worse_end(
    positions: dict[str, int], opened: list[tuple[str, int]]
) -> None:
    """The slow reference: every Greek of every subset of fills, added up by hand."""
    state = held(positions)
    for at, (symbol, count) in enumerate(one for one in opened[:5] if one[1]):
        reserve(state, f"open{at}", symbol, count)
    caps = limits(*(row(name, 1e15) for name in NETS))
    uses = {use.measure: use.value for use in limit_uses(state, terms(UNIVERSE, caps, RISK), NOW_US)}

    per_lot = {
        "AAA": (100.0, 0.0, 0.0, 0.0),
        "BBB": (50.0, 0.0, 0.0, 0.0),
        "CALL": (5_000.0, 200.0, -5.0, 30.0),
        "PUT": (-4_000.0, 300.0, -4.0, 20.0),
        "BCALL": (3_000.0, 100.0, -2.0, 10.0),
    }
    worst = [0.0] * 4
    orders = list(state.orders.values())
    for fills in range(2 ** len(orders)):
        book = dict(positions)
        for at, one in enumerate(orders):
            if fills >> at & 1:
                book[one.symbol] = book.get(one.symbol, 0) + one.sign * one.leaves
        sums = [sum(count * per_lot[symbol][greek] for symbol, count in book.items()) for greek in range(4)]
        worst = [max(most, abs(one)) for most, one in zip(worst, sums, strict=True)]

    assert [uses[name] for name in NETS] == pytest.approx(worst)
