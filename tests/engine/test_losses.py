"""Loss limits: what counts, what confirms it, from where it counts after a Resume, and what halts without an order.

10,000 in equity unless told: 100 AAA at 50 and 50 BBB at 100, no cash, in session 2023-11-14. A fall of AAA by 1
costs 1 %.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import AccountState
from engine.control import Control, Resumed, Scope, TradingState
from engine.decide import Terms, decide
from engine.enforcement import enforcement_due, wants_marks
from engine.instrument import AssetClass
from engine.limits import Limit, LimitError, LimitMode, check_rows, limit_set_from
from engine.measures import MEASURES
from engine.order import Action, Order, Reason
from engine.records import (
    AnyRecord,
    CashFlowed,
    Check,
    Decided,
    Dividend,
    DividendShare,
    FeeCharged,
    Latched,
    SessionOpened,
    Split,
    SplitPosition,
    Valued,
    decode,
    encode,
)
from engine.risk.loss_answers import LossStatus, loss_status, session_losses
from engine.utilisation import LimitUse, limit_uses
from tests.engine.builders import (
    ACCOUNT,
    NOW_US,
    account,
    fill,
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

TWO = universe(stock("AAA", sector="Tech"), stock("BBB", sector="Energy", asset_class=AssetClass.CRYPTO))
DAILY = row("daily_loss", 0.02)


def held(strategies: Mapping[tuple[str, str], int] | None = None, cash: float = 0.0) -> AccountState:
    positions = strategies or {("a", "AAA"): 100, ("b", "BBB"): 50}
    return account(TWO, {"AAA": 50.0, "BBB": 100.0}, cash=cash, strategies=positions)


def marked(state: AccountState, symbol: str, *marks: float) -> AccountState:
    for mark in marks:
        state.apply(valued({symbol: mark}))
    return state


def crashed(state: AccountState, symbol: str = "AAA", mark: float = 47.0) -> AccountState:
    """Three marks say the same."""
    return marked(state, symbol, mark, mark, mark)


def tomorrow(state: AccountState, date: str = "2023-11-15", epoch: int = 0) -> AccountState:
    state.apply(SessionOpened(time_us=NOW_US, date=date, epoch=epoch))
    return state


def under(*rows: Limit, control: Control | None = None, **policy: Any) -> Terms:
    return terms(TWO, limits(*rows, **policy), control=control)


def judged(state: AccountState, *rows: Limit, asked: Order | None = None, **policy: Any) -> Decided:
    return decide(state, under(*rows, **policy), asked or order(strategy="a"), NOW_US)


def check_of(decided: Decided, measure: str) -> Check:
    return next(one for one in decided.checks if one.measure == measure)


def use(state: AccountState, *rows: Limit, control: Control | None = None, **policy: Any) -> LimitUse:
    (found,) = [
        one
        for one in limit_uses(state, under(*rows, control=control, **policy), NOW_US)
        if one.measure == rows[0].measure
    ]
    return found


def value(state: AccountState, *rows: Limit, **policy: Any) -> float:
    found = use(state, *rows, **policy).value
    assert found is not None
    return found


# --- what counts ----------------------------------------------------------------------------------------------------


def test_a_loss_over_the_limit_refuses_what_opens_and_lets_exits_pass() -> None:
    state = crashed(held())

    refused, exit_ = judged(state, DAILY), judged(state, DAILY, asked=sell(quantity=100, strategy="a"))

    assert (refused.action, refused.reason) == (Action.REJECT, Reason.DAILY_LOSS)
    check = check_of(refused, "daily_loss")
    assert check.before == check.after == pytest.approx(0.03)
    assert exit_.action is Action.ALLOW and check_of(exit_, "daily_loss").reduction


def test_at_the_limit_it_is_kept() -> None:
    assert judged(crashed(held(), mark=48.0), DAILY).action is Action.ALLOW


def test_the_unrealised_and_the_realised_part_of_a_loss_count_alike() -> None:
    """50 are sold at 47; the others are worth 47."""
    state = held()
    reserve(state, "out", "AAA", -50, "a")
    fill(state, "out", 50, 47.0)
    crashed(state)

    assert value(state, DAILY) == pytest.approx(0.03)


def test_only_losses_count_against_a_loss_limit() -> None:
    assert value(crashed(held(), mark=80.0), DAILY) == 0.0
    assert value(crashed(held(), mark=80.0), row("weekly_loss", 0.05)) == 0.0


def test_deposits_and_withdrawals_are_no_gain_and_no_loss() -> None:
    state = crashed(held(cash=0.0))
    state.apply(CashFlowed(time_us=NOW_US, event_id="in", amount=5_000.0, currency="USD"))
    assert value(state, DAILY) == pytest.approx(0.03)
    state.apply(CashFlowed(time_us=NOW_US, event_id="out", amount=-9_000.0, currency="USD"))
    assert value(state, DAILY) == pytest.approx(0.03)


def test_fees_are_a_loss_of_the_account() -> None:
    state = held(cash=1_000.0)
    state.apply(FeeCharged(time_us=NOW_US, event_id="fee", amount=110.0, currency="USD"))

    assert value(state, DAILY) == pytest.approx(0.01)
    assert value(state, row("daily_loss", 500.0, unit="money")) == pytest.approx(110.0)


def test_a_dividend_makes_up_for_the_fall_of_its_mark() -> None:
    state, limit = held(), row("daily_loss", 1.0, "strategy", match="a")
    assert value(state, limit) == 0.0

    shares = (DividendShare("a", 300.0),)
    state.apply(Dividend(time_us=NOW_US, event_id="paid", symbol="AAA", currency="USD", shares=shares))

    assert value(crashed(state, mark=47.0), limit) == 0.0
    assert value(crashed(state, mark=46.0), limit) == pytest.approx(0.01)


def test_each_scope_has_its_own_loss_over_the_equity_of_the_account() -> None:
    """A loses 300, B gains 100."""
    state = crashed(crashed(held()), "BBB", 102.0)

    rows = {
        "account": 0.02,
        "firm": 0.02,
        "strategy:a": 0.03,
        "strategy:b": 0.0,
        "asset_class:equity": 0.03,
        "asset_class:crypto": 0.0,
        "symbol:AAA": 0.03,
        "sector:Energy": 0.0,
    }
    for name, lost in rows.items():
        scope, _, match = name.partition(":")
        fields = {"match": match} if match else {}
        if scope == "firm":
            fields["allocation"] = {ACCOUNT: 1.0}  # type: ignore[assignment]
        assert value(state, row("daily_loss", 1.0, scope, **fields)) == pytest.approx(lost), name


def test_a_strategy_that_lost_is_stopped_and_the_other_is_not() -> None:
    state, limit = crashed(held()), row("daily_loss", 0.02, "strategy", "halt")

    decided = judged(state, limit)

    assert decided.action is Action.HALT
    assert [latch.scope for latch in decided.latches] == [Scope(ACCOUNT, strategy="a")]
    assert judged(state, limit, asked=order(strategy="b")).action is Action.ALLOW


# --- sessions -------------------------------------------------------------------------------------------------------


def test_the_next_session_starts_from_its_own_equity_and_a_date_alone_rolls_nothing() -> None:
    state = crashed(held())
    assert decide(state, under(DAILY), order(), NOW_US + 40 * 3600 * 1_000_000).reason in (
        Reason.DAILY_LOSS,
        Reason.MARK_STALE,
    )
    tomorrow(state)

    assert value(state, DAILY) == 0.0


def test_a_week_adds_five_sessions_and_then_forgets_the_first() -> None:
    """A loses 100 of 10,000 on the first day, nothing after."""
    state, weekly = crashed(held(), mark=49.0), row("weekly_loss", 0.05)
    lost = []
    for day in range(15, 21):
        lost.append(value(state, weekly))
        tomorrow(state, f"2023-11-{day}")

    assert lost == pytest.approx([0.01] * 5 + [0.0])


def test_a_week_nets_its_days_and_each_is_a_share_of_its_own_opening() -> None:
    """−5 % of 10,000, then +190 of 9,500."""
    state = tomorrow(crashed(held(), mark=45.0))
    crashed(state, mark=46.9)

    assert value(state, row("weekly_loss", 0.05)) == pytest.approx(0.05 - 190 / 9_500)
    assert value(state, row("weekly_loss", 1.0, "strategy", match="a")) == pytest.approx(0.05 - 190 / 9_500)
    assert value(state, row("weekly_loss", 1.0, unit="money")) == pytest.approx(310.0)


def test_a_session_that_ended_without_a_mark_leaves_the_week_unknown_and_refuses() -> None:
    """EUX is held; its rate is missing as the session ends."""
    world = universe(stock("AAA"), stock("BBB"))
    state = account(world, {"AAA": 50.0}, cash=0.0, positions={"AAA": 100})
    reserve(state, "in", "BBB", 10)
    fill(state, "in", 10, 100.0)
    tomorrow(state)
    state.apply(valued({"BBB": 100.0}))

    decided = decide(state, terms(world, limits(row("weekly_loss", 0.05))), order(), NOW_US)
    assert (decided.action, decided.reason) == (Action.REJECT, Reason.MEASURE_NOT_FINITE)
    assert "2023-11-14" in decided.message


def test_sessions_before_the_account_was_ever_valued_are_no_loss() -> None:
    state = account(TWO, {}, cash=0.0, positions={"AAA": 100})
    tomorrow(state)
    crashed(state, mark=50.0)

    assert value(state, row("weekly_loss", 0.05)) == 0.0


# --- confirmed over marks -------------------------------------------------------------------------------------------


def test_one_bad_tick_neither_refuses_nor_halts() -> None:
    state = marked(held(), "AAA", 5.0)

    assert value(state, DAILY) == 0.0
    assert judged(state, row("daily_loss", 0.02, action="halt")).action is Action.ALLOW
    assert value(marked(state, "AAA", 50.0, 50.0), DAILY) == 0.0


def test_a_bad_tick_is_not_confirmed_by_marks_of_other_symbols() -> None:
    state = marked(marked(held(), "AAA", 5.0), "BBB", 100.0, 100.0, 100.0, 100.0)

    assert value(state, DAILY) == 0.0


def test_a_loss_counts_from_its_third_mark_on_and_the_least_of_them_counts() -> None:
    state, lost = held(), []
    for mark in (46.0, 45.0, 47.0, 44.0):
        lost.append(value(marked(state, "AAA", mark), DAILY))

    assert lost == pytest.approx([0.0, 0.0, 0.03, 0.03])


@pytest.mark.parametrize(("marks", "lost"), [(1, 0.03), (2, 0.0)])
def test_how_many_marks_confirm_is_the_policys(marks: int, lost: float) -> None:
    assert value(marked(held(), "AAA", 47.0), DAILY, loss_confirmations=marks) == pytest.approx(lost)


def test_a_bad_rate_is_confirmed_like_a_bad_mark() -> None:
    world = universe(stock("EUX", currency="EUR"))
    state = account(world, {"EUX": 50.0}, cash={"USD": 0.0, "EUR": 5_000.0}, positions={"EUX": 100}, fx={"EUR": 1.0})
    armed = terms(world, limits(DAILY))
    for expected in (0.0, 0.0, 0.5, 0.5):
        state.apply(valued({}, {"EUR": 0.5}))
        (found,) = [one for one in limit_uses(state, armed, NOW_US) if one.measure == "daily_loss"]
        assert found.value == pytest.approx(expected)


def test_a_split_is_no_loss() -> None:
    state = held()
    state.apply(
        Split(
            time_us=NOW_US,
            event_id="s",
            symbol="AAA",
            new_units=2,
            old_units=1,
            positions=(SplitPosition("a", 200),),
        )
    )
    assert value(state, DAILY) == pytest.approx(0.0)
    assert value(crashed(state, mark=23.5), DAILY) == pytest.approx(0.03)


def test_a_loss_that_was_confirmed_stays_so_through_a_split() -> None:
    state = crashed(held())
    state.apply(
        Split(
            time_us=NOW_US, event_id="s", symbol="AAA", new_units=2, old_units=1, positions=(SplitPosition("a", 200),)
        )
    )

    assert value(state, DAILY) == pytest.approx(0.03)


def test_a_tick_that_is_too_high_leaves_no_drawdown_behind() -> None:
    state = marked(held(), "AAA", 500.0, 50.0, 50.0, 50.0)

    assert state.nav_peak > 5
    assert value(state, row("drawdown", 0.1)) == pytest.approx(0.0)


def test_a_drawdown_counts_from_the_confirmed_peak_over_sessions_and_not_from_deposits() -> None:
    """Up to 12,000, then a deposit as large, then down to 45 from 70."""
    state = tomorrow(crashed(held(), mark=70.0))
    state.apply(CashFlowed(time_us=NOW_US, event_id="in", amount=12_000.0, currency="USD"))
    crashed(state, mark=46.0)

    assert value(state, row("drawdown", 0.2)) == pytest.approx(2_400 / 24_000)


def test_a_profit_bound_counts_the_least_gain_and_no_loss() -> None:
    bound = row("profit", 0.02, action="halt")
    state = marked(held(), "AAA", 60.0)
    assert value(state, bound) == 0.0
    marked(state, "AAA", 55.0, 58.0)

    decided = judged(state, bound)
    assert (decided.action, decided.reason) == (Action.HALT, Reason.PROFIT)
    assert check_of(decided, "profit").after == pytest.approx(0.05)
    assert value(crashed(held()), bound) == 0.0


# --- what is missing never approves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["daily_loss", "weekly_loss", "drawdown", "profit"])
@pytest.mark.parametrize("missing", ["session", "mark", "valuation"])
def test_what_is_missing_refuses_what_opens(measure: str, missing: str) -> None:
    """A session that nobody opened, a held symbol without a mark, an account that was never valued."""
    if missing == "session" and measure == "drawdown":
        return
    marks = {"AAA": 50.0} if missing != "valuation" else {}
    state = account(
        TWO, marks, cash=1e6, positions={"AAA": 100}, session=None if missing == "session" else "2023-11-14"
    )
    if missing == "mark":
        reserve(state, "in", "BBB", 1)
        fill(state, "in", 1, 100.0)
    decided = judged(state, row(measure, 0.5, mode=LimitMode.ENFORCED))

    assert not decided.action.allows
    assert all(check.after is None for check in decided.checks if check.measure == measure)


@settings(max_examples=60, deadline=None)
@given(
    measure=st.sampled_from(["daily_loss", "weekly_loss", "drawdown", "profit"]),
    scope=st.sampled_from(["account", "strategy", "asset_class"]),
    bad=st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0]),
)
def test_no_senseless_mark_is_ever_an_approval(measure: str, scope: str, bad: float) -> None:
    state = held()
    for _ in range(3):
        state.apply(valued({"AAA": bad}))
    limit = row(measure, 0.5, "account" if measure == "drawdown" else scope)

    assert not judged(state, limit).action.allows


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["AAA", "BBB"]), st.integers(30, 120)), max_size=12), st.integers(1, 5))
def test_the_parts_add_up_to_the_whole_and_a_restart_forgets_nothing(
    marks: list[tuple[str, int]], confirmations: int
) -> None:
    """Read back from its records, the fold is the same; without fees, strategies are the account (slow reference)."""
    records: list[AnyRecord] = [valued({symbol: float(mark)}) for symbol, mark in marks]
    state, again = held(), held()
    for record in records:
        state.apply(record)
        again.apply(decode(encode(record)))
    quotes = {"AAA": [50.0], "BBB": [100.0]}
    for symbol, mark in marks:
        quotes[symbol].insert(0, float(mark))
    back = [[quotes[s][min(k, len(quotes[s]) - 1)] for s in ("AAA", "BBB")] for k in range(confirmations)]
    slow = {
        "account": min(10_000 - 100 * a - 50 * b for a, b in back),
        "strategy": min(5_000 - 100 * a for a, _ in back),
    }

    for scope, loss in slow.items():
        limit = row("daily_loss", 1e9, scope, unit="money", **({"match": "a"} if scope == "strategy" else {}))
        for one in (state, again):
            assert value(one, limit, loss_confirmations=confirmations) == pytest.approx(max(0.0, loss))


# --- halts without an order -----------------------------------------------------------------------------------------


HALT = row("daily_loss", 0.02, action="halt")


def resumed(epoch: int, scope: Scope | None = None) -> Control:
    return Control(epoch, resumes=(Resumed(scope or Scope(), epoch, NOW_US, "op", "seen"),))


def enforced(state: AccountState, *rows: Limit, control: Control | None = None, **policy: Any) -> list[Latched]:
    """What is due, folded in."""
    due = enforcement_due(state, under(*rows, control=control, **policy), NOW_US)
    for record in due:
        state.apply(record)
    return [record for record in due if isinstance(record, Latched)]


def test_a_confirmed_loss_halts_once_without_an_order() -> None:
    state = crashed(held())

    (latched,) = enforced(state, HALT)
    again = enforced(state, HALT)

    assert (latched.latch.scope, latched.latch.state) == (Scope(ACCOUNT), TradingState.REDUCE_ONLY)
    assert latched.latch.cause.startswith("daily_loss of account:ALPHA is 0.03")
    assert again == []
    assert judged(state, HALT).reason is Reason.REDUCE_ONLY


@pytest.mark.parametrize("action", ["warn", "reject"])
def test_what_only_warns_or_rejects_halts_nothing(action: str) -> None:
    assert enforced(crashed(held()), row("daily_loss", 0.02, action=action)) == []
    assert enforced(crashed(held()), row("daily_loss", 0.02, action="halt", mode=LimitMode.SHADOW)) == []


def test_an_unconfirmed_or_unknown_loss_halts_nothing() -> None:
    assert enforced(marked(held(), "AAA", 5.0), HALT) == []
    assert enforced(account(TWO, {}, positions={"AAA": 1}), HALT) == []


def test_marks_are_wanted_while_a_breach_is_not_confirmed() -> None:
    assert wants_marks(marked(held(), "AAA", 5.0), under(HALT), NOW_US)
    assert not wants_marks(held(), under(HALT), NOW_US)


def test_marks_are_wanted_once_after_the_resume_that_a_halt_counts_from() -> None:
    state = crashed(held())
    enforced(state, HALT)
    armed = under(row("daily_loss", 0.5, action="halt"), control=resumed(7))

    assert wants_marks(state, armed, NOW_US)
    state.apply(Valued(time_us=NOW_US, epoch=7))
    assert not wants_marks(state, armed, NOW_US)


def test_two_forks_of_one_state_see_their_own_marks() -> None:
    """Both are of the same version."""
    state, limit = held(), row("daily_loss", 1.0, "strategy", match="a")
    told = []
    for mark in (47.0, 46.0):
        fork = state.fork()
        told.append(value(crashed(fork, mark=mark), limit))

    assert told == pytest.approx([0.03, 0.04])


def test_a_resume_holds_until_as_much_is_lost_again() -> None:
    """3 % lost, resumed at −5 %, then 1.9 % more, then another 0.2 %."""
    state = crashed(held())
    enforced(state, HALT)
    crashed(state, mark=45.0)
    control = resumed(7)

    assert enforced(state, HALT, control=control) == []
    state.apply(Valued(time_us=NOW_US, epoch=7))
    assert use(state, HALT, control=control).value == 0.0
    crashed(state, mark=43.1)
    assert use(state, HALT, control=control).value == pytest.approx(0.019)
    assert enforced(state, HALT, control=control) == []
    crashed(state, mark=42.9)
    (latched,) = enforced(state, HALT, control=control)
    assert latched.latch.epoch == 7


def test_a_resume_rebases_nothing_but_the_halt_that_it_lifted() -> None:
    """A rejecting row counts the whole day, and so does a halting one whose halt was not lifted."""
    state, control = crashed(held()), resumed(7)
    state.apply(Valued(time_us=NOW_US, epoch=7))

    assert use(state, HALT, control=control).value == pytest.approx(0.03)
    enforced(state, HALT)
    assert use(state, DAILY, control=control).value == pytest.approx(0.03)


def test_a_resume_of_another_scope_lifts_and_rebases_nothing() -> None:
    state = crashed(held())
    enforced(state, HALT)
    control = resumed(7, Scope("OTHER"))

    assert use(state, HALT, control=control).value == pytest.approx(0.03)


def test_the_next_session_counts_in_full_after_a_resume_and_the_week_from_it() -> None:
    """3 % lost and resumed; the week goes on from there."""
    state, weekly = crashed(held()), row("weekly_loss", 0.02, action="halt")
    enforced(state, HALT, weekly)
    control = resumed(7)
    state.apply(Valued(time_us=NOW_US, epoch=7))
    crashed(state, mark=46.0)
    tomorrow(state, epoch=7)
    crashed(state, mark=45.0)

    assert use(state, HALT, control=control).value == pytest.approx(100 / 9_600)
    assert use(state, weekly, control=control).value == pytest.approx(100 / 10_000 + 100 / 9_600)
    assert use(state, row("weekly_loss", 0.02), control=control).value == pytest.approx(400 / 10_000 + 100 / 9_600)


def test_a_halt_at_the_drawdown_counts_from_the_peak_since_its_resume() -> None:
    state, deep = crashed(held(), mark=30.0), row("drawdown", 0.15, action="halt")
    assert len(enforced(state, deep)) == 1
    control = resumed(7)
    state.apply(Valued(time_us=NOW_US, epoch=7))

    assert use(state, deep, control=control).value == 0.0
    crashed(state, mark=22.0)
    assert use(state, deep, control=control).value == pytest.approx(0.1)


# --- history and status ---------------------------------------------------------------------------------------------


def test_the_history_is_newest_first_and_each_day_is_a_share_of_its_own_opening() -> None:
    """−5 % of 10,000 with 1,000 paid in after, then +210 of 10,500."""
    state = crashed(held(), mark=45.0)
    state.apply(CashFlowed(time_us=NOW_US, event_id="in", amount=1_000.0, currency="USD"))
    crashed(tomorrow(state), mark=47.1)

    today, before = session_losses(state, 30)

    assert (today.date, today.open, today.flows, before.open, before.flows) == ("2023-11-15", True, 0.0, False, 1_000.0)
    assert [before.open_equity, before.equity, before.pnl] == pytest.approx([10_000.0, 10_500.0, -500.0])
    assert [before.daily_loss, before.weekly_loss] == pytest.approx([0.05, 0.05])
    assert [today.pnl, today.daily_loss, today.weekly_loss] == pytest.approx([210.0, -0.02, 0.03])


def test_a_week_of_history_is_five_records_and_a_count_cuts_the_list() -> None:
    state = crashed(held(), mark=49.0)
    for day in range(15, 21):
        tomorrow(state, f"2023-11-{day}")

    told = session_losses(state, 2)

    assert [one.date for one in told] == ["2023-11-20", "2023-11-19"]
    assert [one.weekly_loss for one in session_losses(state, 30)] == pytest.approx(
        [0.0, 0.0, 0.01, 0.01, 0.01, 0.01, 0.01]
    )
    with pytest.raises(ValueError, match="sessions"):
        session_losses(state, 0)


def test_what_was_never_valued_is_not_told_as_zero() -> None:
    (told,) = session_losses(account(TWO, {}, positions={"AAA": 1}), 30)

    assert (told.open_equity, told.equity, told.pnl, told.daily_loss, told.weekly_loss) == (None,) * 5


@pytest.mark.parametrize(
    ("mark", "rows", "status"),
    [
        (48.5, (DAILY,), LossStatus.OK),
        (48.4, (DAILY,), LossStatus.WARNING),
        (48.0, (DAILY,), LossStatus.WARNING),
        (47.9, (DAILY,), LossStatus.BREACHED),
        (47.9, (row("daily_loss", 0.02, mode=LimitMode.SHADOW),), None),
        (49.4, (row("weekly_loss", 0.5, warn=0.006), DAILY), LossStatus.WARNING),
        (49.0, (row("gross_exposure", 1e9),), None),
    ],
)
def test_the_status_is_the_strictest_of_the_loss_limits(
    mark: float, rows: tuple[Limit, ...], status: LossStatus | None
) -> None:
    assert loss_status(limit_uses(crashed(held(), mark=mark), under(*rows), NOW_US)) is status


def test_a_loss_that_cannot_be_told_is_its_own_status() -> None:
    state = account(TWO, {}, positions={"AAA": 1})

    assert loss_status(limit_uses(state, under(DAILY), NOW_US)) is LossStatus.UNEVALUABLE


# --- sets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "policy", "path"),
    [
        ((row("drawdown", 0.1),), {"breaker": {}}, "limit[0].measure"),
        ((), {"loss_confirmations": 0}, "limits.loss_confirmations"),
        ((), {"loss_confirmations": 6}, "limits.loss_confirmations"),
        ((), {"breaker": {"levels": [0.05, 0.03, 0.08]}}, "limits.breaker.levels"),
        ((), {"breaker": {"releases": [0.03, 0.04]}}, "limits.breaker.releases"),
        ((), {"breaker": {"cuts": [0.5, 0.25]}}, "limits.breaker.cuts"),
        ((), {"breaker": {"cooldown_sessions": 0}}, "limits.breaker.cooldown_sessions"),
        ((), {"breaker": {"recovery_drawdown": 0.0}}, "limits.breaker.recovery_drawdown"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(
    rows: tuple[Limit, ...], policy: dict[str, object], path: str
) -> None:
    read = limit_set_from([], policy)
    with pytest.raises(LimitError) as refused:
        check_rows(read.__class__(rows, read.policy), MEASURES)
    assert refused.value.path == path


def test_rows_and_a_breaker_are_each_fine_alone() -> None:
    check_rows(limits(row("drawdown", 0.2, warn=0.1, action="halt")), MEASURES)
    check_rows(limit_set_from([], {"breaker": {}}), MEASURES)
