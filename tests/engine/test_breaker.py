"""The drawdown breaker: its table of transitions, what each does to bounds and positions, and who starts to recover.

1 AAA costs 0.01 % of the account: 100 AAA at 100, no cash, equity 10,000; a mark of 97 is a drawdown of 3 %.
"""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.account import AccountState
from engine.breaker import DRAWDOWN_BREAKER, Standing, next_stage, scale_of
from engine.control import Control, Resumed, Scope
from engine.decide import Terms, decide
from engine.enforcement import enforcement_due
from engine.instructions import due
from engine.limits import Breaker
from engine.order import Action, Reason
from engine.records import (
    AnyRecord,
    BreakerCut,
    BreakerMoved,
    BreakerPosition,
    BreakerStage,
    Executed,
    ExecutionKind,
    Instructed,
    InstructionKind,
    SessionOpened,
    decode,
    encode,
)
from engine.tightening import factor_on
from engine.utilisation import limit_uses
from tests.engine.builders import (
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

S = BreakerStage
RULE = Breaker()
ONE = universe(stock("AAA"), stock("BBB"))
GROSS = row("gross_exposure", 4.0, unit="equity")


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "at", "to"),
    [
        (S.NORMAL, Standing(0.0299), S.NORMAL),
        (S.NORMAL, Standing(0.03), S.L1),
        (S.NORMAL, Standing(0.05), S.L2),
        (S.NORMAL, Standing(0.08), S.L3),
        (S.L1, Standing(0.015), S.L1),
        (S.L1, Standing(0.0149), S.NORMAL),
        (S.L1, Standing(0.05), S.L2),
        (S.L1, Standing(0.2), S.L3),
        (S.L2, Standing(0.03), S.L2),
        (S.L2, Standing(0.0299), S.L1),
        (S.L2, Standing(0.001), S.L1),
        (S.L2, Standing(0.08), S.L3),
        (S.L3, Standing(0.0, resumed=True), S.L3),
        (S.L3, Standing(0.0, flat=True), S.COOLDOWN),
        (S.L3, Standing(0.09, sessions=1), S.COOLDOWN),
        (S.COOLDOWN, Standing(0.0, sessions=99, flat=True), S.COOLDOWN),
        (S.COOLDOWN, Standing(0.5, resumed=True), S.RECOVERING),
        (S.RECOVERING, Standing(0.0, sessions=2), S.RECOVERING),
        (S.RECOVERING, Standing(0.0, sessions=3), S.NORMAL),
        (S.RECOVERING, Standing(0.03, sessions=3), S.L1),
        (S.RECOVERING, Standing(0.05), S.L2),
        (S.RECOVERING, Standing(0.08), S.L3),
        (S.NORMAL, Standing(float("nan")), S.NORMAL),
        (S.COOLDOWN, Standing(float("nan"), resumed=True), S.COOLDOWN),
    ],
)
def test_the_first_transition_that_holds_is_taken(stage: S, at: Standing, to: S) -> None:
    assert next_stage(stage, RULE, at) is to


def test_recovering_ends_no_sooner_than_the_drawdown_is_below_its_threshold() -> None:
    strict = Breaker(recovery_drawdown=0.01)

    assert next_stage(S.RECOVERING, strict, Standing(0.01, sessions=9)) is S.RECOVERING
    assert next_stage(S.RECOVERING, strict, Standing(0.009, sessions=3)) is S.NORMAL


def test_bounds_shrink_by_the_cut_and_grow_back_a_step_a_session() -> None:
    assert [scale_of(stage, RULE, 0) for stage in (S.NORMAL, S.L1, S.L2, S.L3, S.COOLDOWN)] == [1, 0.75, 0.5, 0.5, 0.5]
    assert [scale_of(S.RECOVERING, RULE, sessions) for sessions in range(4)] == [0.25, 0.5, 0.75, 1.0]


# --- on an account ----------------------------------------------------------------------------------------------------


def held(lots: int = 100) -> AccountState:
    return account(ONE, {"AAA": 100.0, "BBB": 100.0}, cash=0.0, strategies={("a", "AAA"): lots})


def at(state: AccountState, mark: float) -> AccountState:
    """Three marks say the same."""
    for _ in range(3):
        state.apply(valued({"AAA": mark}))
    return state


def under(control: Control | None = None, rule: Breaker | None = RULE) -> Terms:
    return terms(ONE, limits(GROSS, breaker=rule), control=control)


def enforce(state: AccountState, control: Control | None = None, rule: Breaker | None = RULE) -> list[AnyRecord]:
    """What is due, as it is read back, folded in."""
    made = [decode(encode(record)) for record in enforcement_due(state, under(control, rule), NOW_US)]
    for record in made:
        state.apply(record)
    return made


def moves(records: list[AnyRecord]) -> list[BreakerMoved]:
    return [record for record in records if isinstance(record, BreakerMoved)]


def cuts(records: list[AnyRecord]) -> list[Instructed]:
    return [record for record in records if isinstance(record, Instructed)]


def settle(state: AccountState, price: float = 92.0) -> None:
    """The venue fills everything that the gateway itself has sent."""
    for one in [known for known in state.orders.values() if known.own]:
        fill(state, one.client_order_id, one.leaves, price)


def session(state: AccountState, day: int, epoch: int = 0) -> None:
    state.apply(SessionOpened(time_us=NOW_US, date=f"2023-12-{day:02}", epoch=epoch))


def resume(epoch: int) -> Control:
    return Control(epoch, resumes=(Resumed(Scope(), epoch, NOW_US, "op", "reviewed"),))


def test_a_level_is_a_record_of_what_stood_and_cuts_and_scales_once() -> None:
    state = at(held(), 97.0)

    made = enforce(state)

    (moved,) = moves(made)
    assert (moved.before, moved.stage, moved.drawdown) == (S.NORMAL, S.L1, 0.03)
    assert [moved.equity, moved.session_pnl] == pytest.approx([9_700.0, -300.0])
    assert moved.positions == (BreakerPosition("a", "AAA", 100, 9_700.0),)
    assert moved.cuts == (BreakerCut("a", "AAA", 75),)
    (cut,) = cuts(made)
    assert (cut.kind, cut.lots, cut.reason) == (InstructionKind.CUT, 25, Reason.DRAWDOWN_BREAKER)
    assert factor_on(state.tightenings, "var_99") == 0.75
    assert enforce(state) == []
    settle(state, 97.0)
    assert enforce(state) == [] and state.breaker.cuts == {}
    assert state.holding("a", "AAA").lots == 75


def test_the_scale_reaches_the_bounds_at_order_time() -> None:
    state = at(held(), 97.0)
    enforce(state)

    (use,) = [one for one in limit_uses(state, under(), NOW_US) if one.measure == "gross_exposure"]
    assert use.limit == 3.0


def test_a_deeper_level_cuts_what_is_held_then_and_counts_what_is_being_closed() -> None:
    """L1 has 25 of 100 out, unfilled; L2 wants 50 gone in all, so 25 more."""
    state = at(held(), 97.0)
    enforce(state)
    at(state, 95.0)

    (cut,) = cuts(enforce(state))

    assert cut.lots == 25
    settle(state, 95.0)
    assert state.holding("a", "AAA").lots == 50
    assert enforce(state) == []


def test_what_is_bought_after_a_cut_is_not_cut_again() -> None:
    state = at(held(), 97.0)
    enforce(state)
    settle(state, 97.0)
    reserve(state, "more", "AAA", 20, "a")
    fill(state, "more", 20, 97.0)

    assert enforce(state) == []


def test_a_short_position_is_cut_by_buying() -> None:
    state = account(ONE, {"AAA": 100.0, "BBB": 1.0}, cash=20_000.0, strategies={("a", "AAA"): -101})
    at(state, 104.0)

    (cut,) = cuts(enforce(state))

    assert cut.order is not None and cut.order.side.sign == 1
    assert cut.lots == 26  # a quarter of 101, counted up


def test_one_bad_tick_moves_nothing() -> None:
    state = held()
    state.apply(valued({"AAA": 50.0}))

    assert enforce(state) == []


def test_the_third_level_closes_all_and_cancels_and_only_exits_pass() -> None:
    state = held()
    reserve(state, "open", "BBB", 5, "b")
    at(state, 92.0)

    (cut,) = cuts(enforce(state))
    cancels = [one for one in due(state, under(), NOW_US) if isinstance(one, Instructed)]

    assert cut.lots == 100
    assert [(one.kind, one.client_order_id) for one in cancels] == [(InstructionKind.CANCEL, "open")]
    refused = decide(state, under(), order("BBB", client_order_id="n"), NOW_US)
    assert (refused.action, refused.reason) == (Action.REJECT, Reason.DRAWDOWN_BREAKER)
    assert [one.measure for one in refused.checks].count("drawdown_breaker") == 1


def test_an_exit_passes_at_the_third_level() -> None:
    state = at(held(), 92.0)

    assert decide(state, under(), sell(quantity=100, strategy="a"), NOW_US).action.allows


def test_without_a_worker_the_third_level_refuses_all_the_same() -> None:
    refused = decide(at(held(), 92.0), under(), order(), NOW_US)

    assert refused.reason is Reason.DRAWDOWN_BREAKER


def test_what_an_exit_of_others_left_no_room_for_is_cut_once_it_is_gone() -> None:
    """A resting sell of 60 stands beside; then it is cancelled."""
    state = held()
    reserve(state, "far", "AAA", -60, "a", limit_price=200.0)
    at(state, 92.0)

    assert [one.lots for one in cuts(enforce(state))] == [40]
    cancels = [one for one in due(state, under(), NOW_US) if isinstance(one, Instructed)]
    assert [one.client_order_id for one in cancels if one.kind is InstructionKind.CANCEL] == ["far"]
    settle(state)
    state.apply(_cancelled(state, "far"))
    assert [one.lots for one in cuts(enforce(state))] == [60]
    settle(state)
    assert state.holding("a", "AAA").lots == 0


def _cancelled(state: AccountState, name: str) -> AnyRecord:
    known = state.orders[name]
    return Executed(
        time_us=NOW_US,
        execution_id=f"c-{name}",
        client_order_id=name,
        kind=ExecutionKind.CANCELLED,
        strategy=known.strategy,
        symbol=known.symbol,
        sign=known.sign,
    )


def test_a_missing_price_moves_nothing_and_opens_nothing() -> None:
    state = at(held(), 92.0)
    reserve(state, "in", "BBB", 1)
    fill(state, "in", 1, 100.0)
    state.prices.mark[state.slots["BBB"]] = 0.0
    state.price_version += 1
    state._revalued()

    assert enforce(state) == []
    assert decide(state, under(), order(), NOW_US).reason is Reason.MARK_MISSING


# --- cooldown and recovery --------------------------------------------------------------------------------------------


def cooling() -> AccountState:
    """Everything was closed at 92, in the session of the trigger."""
    state = at(held(), 92.0)
    enforce(state)
    settle(state)
    (moved,) = moves(enforce(state))
    assert moved.stage is S.COOLDOWN
    return state


def test_time_alone_never_ends_a_cooldown() -> None:
    state = cooling()
    for day in range(1, 31):
        session(state, day, epoch=3)
        assert moves(enforce(state, Control(3))) == []

    assert decide(state, under(Control(3)), order("BBB"), NOW_US).reason is Reason.DRAWDOWN_BREAKER


def test_a_resume_before_the_cooldown_is_over_is_no_leave_to_trade_later() -> None:
    state, early = cooling(), resume(4)
    for day in range(1, 9):
        session(state, day, epoch=4)
        assert moves(enforce(state, early)) == []


def test_a_resume_after_five_sessions_rebases_the_peak_and_nothing_else_and_bounds_grow_back() -> None:
    state = cooling()
    for day in range(1, 6):
        session(state, day, epoch=4)
    peak, control = state.peak_confirmed, resume(5)

    (moved,) = moves(enforce(state, control))

    assert (moved.stage, moved.rebases) == (S.RECOVERING, True)
    assert state.breaker.peak == pytest.approx(0.92) and state.peak_confirmed == peak
    scales = [factor_on(state.tightenings, "leverage")]
    for day in range(6, 9):
        session(state, day, epoch=5)
        made = enforce(state, control)
        scales.append(factor_on(state.tightenings, "leverage"))
    assert scales == [0.25, 0.5, 0.75, 1.0]
    assert [one.stage for one in moves(made)] == [S.NORMAL]
    assert [one.stage for one in state.breaker.moves] == [S.L3, S.COOLDOWN, S.RECOVERING, S.NORMAL]


def test_a_new_fall_while_recovering_applies_the_level_at_once() -> None:
    state = cooling()
    for day in range(1, 6):
        session(state, day, epoch=4)
    control = resume(5)
    enforce(state, control)
    reserve(state, "in", "AAA", 100, "a")
    fill(state, "in", 100, 92.0)
    at(state, 92.0 * 0.94)

    made = enforce(state, control)

    assert [one.stage for one in moves(made)] == [S.L2]
    assert [one.lots for one in cuts(made)] == [50]


def test_the_second_level_goes_back_over_the_first_by_itself_and_drops_what_is_not_cut() -> None:
    state = at(held(), 95.0)
    enforce(state)
    at(state, 99.0)

    made = [enforce(state) for _ in range(2)]

    assert [moves(records)[0].stage for records in made] == [S.L1, S.NORMAL]
    assert [cuts(records) for records in made] == [[], []]
    assert state.tightenings == () and state.breaker.cuts == {}


def test_a_row_without_a_breaker_approves_nothing() -> None:
    armed = terms(ONE, limits(GROSS, row("drawdown_breaker", 0.0)))

    assert decide(held(), armed, order(), NOW_US).reason is Reason.MEASURE_NOT_FINITE


def test_going_back_a_level_cuts_nothing() -> None:
    state = at(held(), 95.0)
    enforce(state)
    settle(state, 95.0)
    at(state, 102.0)

    made = enforce(state)

    assert [one.stage for one in moves(made)] == [S.L1] and cuts(made) == []


def test_a_disarmed_breaker_scales_and_cuts_nothing_more() -> None:
    state = at(held(), 97.0)
    enforce(state)

    (lifted,) = enforce(state, rule=None)

    assert getattr(lifted, "tightening_id", "") == DRAWDOWN_BREAKER
    assert state.tightenings == ()


def test_only_the_last_ten_moves_are_kept() -> None:
    state = at(held(), 97.0)
    (moved,) = moves(enforce(state))
    for _ in range(11):
        state.apply(moved)

    assert len(state.breaker.moves) == 10


# --- the machine ------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The slow reference: what a person with a pencil keeps."""

    stage: S = S.NORMAL
    sessions: int = 0
    resumed: bool = False


class BreakerMachine(RuleBasedStateMachine):
    """Any order of falls, rises, sessions and resumes."""

    @initialize()
    def open(self) -> None:
        self.state, self.model, self.epoch, self.day = held(), Model(), 1, 0
        self.control = Control(1)

    def _enforce(self) -> None:
        before = self.state.breaker.stage
        made = moves(enforce(self.state, self.control))
        after = self.state.breaker.stage
        assert len(made) <= 1
        if before is S.COOLDOWN and after is not S.COOLDOWN:
            assert self.model.resumed and self.model.sessions >= RULE.cooldown_sessions
            assert after is S.RECOVERING
        if before is S.L3:
            assert after in (S.L3, S.COOLDOWN)
        if after is not before:
            self.model = Model(after)

    @rule(mark=st.sampled_from([80.0, 90.0, 92.0, 94.0, 95.0, 96.0, 97.0, 98.0, 99.0, 100.0, 103.0]))
    def mark(self, mark: float) -> None:
        at(self.state, mark)
        self._enforce()

    @rule()
    def session(self) -> None:
        self.day += 1
        self.state.apply(SessionOpened(time_us=NOW_US, date=f"2024-{self.day:04}", epoch=self.epoch))
        self.model.sessions += 1
        self._enforce()

    @rule()
    def resume(self) -> None:
        self.epoch += 1
        self.control = resume(self.epoch)
        self.model.resumed |= self.model.sessions >= RULE.cooldown_sessions
        self._enforce()

    @precondition(lambda self: any(one.own for one in self.state.orders.values()))
    @rule()
    def venue_fills(self) -> None:
        settle(self.state, 92.0)
        self._enforce()

    @rule()
    def trades(self) -> None:
        asked = order("AAA", quantity=20, strategy="a", client_order_id=f"t{self.state.seq}")
        decided = decide(self.state, under(self.control), asked, NOW_US)
        if self.state.breaker.stage.opens_nothing:
            assert not decided.action.allows
        self.state.apply(decided)
        if decided.allowed_lots:
            fill(self.state, asked.client_order_id, decided.allowed_lots, float(self.state.prices.mark[0]))

    @invariant()
    def the_bounds_are_as_the_stage_says(self) -> None:
        breaker = self.state.breaker
        assert factor_on(self.state.tightenings, "leverage") == scale_of(breaker.stage, RULE, breaker.sessions)

    @invariant()
    def what_is_out_only_reduces(self) -> None:
        held_lots = self.state.holding("a", "AAA").lots
        own = sum(one.leaves for one in self.state.orders.values() if one.own)
        assert own <= max(0, held_lots)


BreakerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
