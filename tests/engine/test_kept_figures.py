"""What a state keeps of what was computed from it: an answer is that of a state that was just read from its log.

Ends, values at the marks, ages, the model found fit: all are kept until something moves them. Each story asks once,
moves one thing, and asks again.
"""

from collections.abc import Sequence

from hypothesis import given, settings

from engine.account import AccountState
from engine.decide import decide
from engine.limits import Limit
from engine.order import Order, Reason
from engine.records import AnyRecord, Decided, SessionOpened
from tests.engine.builders import (
    NOW_US,
    account,
    limits,
    model,
    order,
    quoted,
    reserve,
    row,
    stock,
    terms,
    universe,
    valued,
)
from tests.engine.test_account import flat, histories

SECOND_US = 1_000_000
TWO = universe(stock("AAA"), stock("BBB"))
RISK = model({"AAA": [0.01, -0.02] * 20, "BBB": [-0.03, 0.01] * 20})
WIDE: tuple[Limit, ...] = (
    row("mark_age", 3600.0),
    row("gross_exposure", 1e12, "strategy"),
    row("gross_exposure", 1e12, "symbol"),
    row("leverage", 1e6),
    row("open_positions", 1e6),
    row("traded_value", 1e12),
    row("net_exposure", 1e12),
    row("var_95", 1e6),
    row("stress_loss", 1e6),
)


UNDER = terms(TWO, limits(*WIDE, model_age_max_s=60.0), RISK)


def asked_of(state: AccountState, asked: Order, now_us: int = NOW_US) -> Decided:
    return decide(state, UNDER, asked, now_us)


def read_again(records: Sequence[AnyRecord]) -> AccountState:
    state = flat()
    for record in records:
        state.apply(record)
    return state


@settings(max_examples=30, deadline=None)
@given(histories())
def test_whatever_was_asked_on_the_way_the_answer_is_that_of_a_state_just_read(records: list[AnyRecord]) -> None:
    kept, probe = flat(), order("BBB", quantity=2.0, client_order_id="probe", strategy="mm")
    for at, record in enumerate(records, 1):
        kept.apply(record)
        now_us = kept.last_time_us

        assert asked_of(kept, probe, now_us) == asked_of(read_again(records[:at]), probe, now_us)


def test_a_model_that_grows_old_between_two_orders_is_told_as_stale() -> None:
    state = account(TWO, {"AAA": 100.0, "BBB": 50.0})

    assert asked_of(state, order(), NOW_US + 60 * SECOND_US).allowed_lots
    assert asked_of(state, order(), NOW_US + 61 * SECOND_US).reason is Reason.MODEL_STALE


def test_a_session_that_opens_between_two_orders_leaves_the_model_behind() -> None:
    state = account(TWO, {"AAA": 100.0, "BBB": 50.0})
    assert asked_of(state, order()).allowed_lots

    state.apply(SessionOpened(time_us=NOW_US, date="2023-11-15"))

    assert asked_of(state, order()).reason is Reason.MODEL_STALE


def test_a_symbol_that_was_just_listed_has_no_price_yet() -> None:
    state = account(universe(stock("AAA")), {"AAA": 100.0})
    assert asked_of(state, order()).allowed_lots

    listed = account(TWO, {"AAA": 100.0}).listed["BBB"]
    state.apply(listed)

    assert asked_of(state, order("BBB")).reason is Reason.MARK_MISSING


def test_the_age_is_that_of_the_oldest_mark_at_stake_now() -> None:
    state = account(TWO, {"AAA": 100.0, "BBB": quoted(50.0, time_us=NOW_US - 9 * SECOND_US)}, positions={"AAA": 1})

    def age_s(now_us: int) -> float | None:
        return next(check.after for check in asked_of(state, order(), now_us).checks if check.measure == "mark_age")

    assert age_s(NOW_US) == 0.0
    reserve(state, "o1", "BBB", 1)
    assert age_s(NOW_US) == 9.0
    state.apply(valued({"BBB": 50.0}))
    assert age_s(NOW_US + SECOND_US) == 1.0
