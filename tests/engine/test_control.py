"""Stops and resumes: who is covered, what is strictest, who may lift what, and what stays void after it was lifted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control import (
    Control,
    Resumed,
    Scope,
    Stop,
    TradingState,
    decode_control,
    encode_control,
    resumed,
    stopped,
)

T = 1_700_000_000_000_000
FIRM, ACCOUNT, STRATEGY, SYMBOL = Scope(), Scope("A"), Scope("A", strategy="rl"), Scope(symbol="AAA")


def stop(
    control: Control, scope: Scope, state: TradingState = TradingState.HALTED, rank: int = 0, actor: str = "ops"
) -> Control:
    return stopped(control, Stop(scope, state, control.epoch + 1, T, actor, "drill", rank))


def resume(control: Control, scope: Scope, rank: int = 0) -> tuple[Control, tuple[Stop, ...], tuple[Stop, ...]]:
    return resumed(control, Resumed(scope, control.epoch + 1, T, "ops", "all clear", rank))


@pytest.mark.parametrize(
    ("scope", "reached"),
    [
        (FIRM, True),
        (ACCOUNT, True),
        (STRATEGY, True),
        (SYMBOL, True),
        (Scope("B"), False),
        (Scope("A", strategy="mm"), False),
        (Scope("A", symbol="BBB"), False),
        (Scope("B", symbol="AAA"), False),
    ],
)
def test_a_scope_reaches_the_orders_that_match_every_field_given(scope: Scope, reached: bool) -> None:
    assert scope.reaches("A", "rl", "AAA") is reached


@pytest.mark.parametrize(
    ("wide", "narrow"), [(FIRM, ACCOUNT), (FIRM, SYMBOL), (ACCOUNT, STRATEGY), (SYMBOL, Scope("A", symbol="AAA"))]
)
def test_a_wider_scope_covers_a_narrower_and_not_the_other_way(wide: Scope, narrow: Scope) -> None:
    assert wide.covers(narrow) and wide.covers(wide)
    assert not narrow.covers(wide)


def test_the_strictest_of_the_stops_in_force_wins() -> None:
    control = stop(stop(Control(), FIRM, TradingState.REDUCE_ONLY), SYMBOL, TradingState.CANCEL_ONLY)

    assert control.state_at("A", "rl", "AAA") is TradingState.CANCEL_ONLY
    assert control.state_at("A", "rl", "BBB") is TradingState.REDUCE_ONLY
    assert Control().state_at("A", "rl", "AAA") is TradingState.ACTIVE


def test_a_weaker_stop_of_the_same_scope_weakens_nothing() -> None:
    control = stop(stop(Control(), ACCOUNT, TradingState.HALTED, rank=2), ACCOUNT, TradingState.REDUCE_ONLY, rank=0)

    (standing,) = control.stops
    assert (standing.state, standing.rank, standing.epoch) == (TradingState.HALTED, 2, 2)


def test_a_resume_of_a_lower_scope_lifts_no_higher_stop_and_names_it() -> None:
    firm = stop(Control(), FIRM)

    for narrower in (ACCOUNT, STRATEGY, SYMBOL):
        after, lifted, refused = resume(firm, narrower, rank=9)
        assert (lifted, refused) == ((), firm.stops)
        assert after.state_at("A", "rl", "AAA") is TradingState.HALTED


def test_a_resume_of_a_lesser_rank_lifts_nothing() -> None:
    control = stop(Control(), ACCOUNT, rank=2)

    after, lifted, refused = resume(control, FIRM, rank=1)

    assert (lifted, refused) == ((), control.stops)
    assert after.state_at("A", "", "") is TradingState.HALTED


def test_a_covering_resume_of_the_same_rank_lifts_all_stops_in_its_scope() -> None:
    control = stop(stop(stop(Control(), ACCOUNT, rank=1), STRATEGY, rank=1), Scope("B"))

    after, lifted, refused = resume(control, ACCOUNT, rank=1)

    assert {one.scope for one in lifted} == {ACCOUNT, STRATEGY}
    assert refused == ()
    assert after.state_at("A", "rl", "AAA") is TradingState.ACTIVE
    assert after.state_at("B", "rl", "AAA") is TradingState.HALTED


def test_approvals_from_before_a_lifted_stop_stay_superseded() -> None:
    halted = stop(Control(epoch=4), ACCOUNT)
    after, _, _ = resume(halted, ACCOUNT)

    assert halted.stopped_since(4, "A", "rl", "AAA")
    assert after.stopped_since(4, "A", "rl", "AAA")
    assert not after.stopped_since(5, "A", "rl", "AAA")
    assert not after.stopped_since(4, "B", "rl", "AAA")


def test_of_several_lifted_stops_of_a_scope_the_newest_counts() -> None:
    control = Control()
    for _ in range(3):
        control, _, _ = resume(stop(control, ACCOUNT), ACCOUNT)

    assert [(one.scope, one.epoch) for one in control.lifted] == [(ACCOUNT, 5)]
    assert control.stopped_since(4, "A", "", "")


def test_a_resume_lifts_latches_of_lower_epochs_that_it_covers_only() -> None:
    control, _, _ = resume(Control(epoch=6), ACCOUNT)

    assert control.lifts(ACCOUNT, 6) and control.lifts(STRATEGY, 6)
    assert not control.lifts(ACCOUNT, 7)
    assert not control.lifts(FIRM, 6)
    assert not control.lifts(ACCOUNT, 6, rank=1)


def test_an_older_resume_is_forgotten_only_where_a_newer_one_does_all_that_it_did() -> None:
    control, _, _ = resume(Control(), ACCOUNT, rank=2)
    control, _, _ = resume(control, FIRM, rank=1)
    control, _, _ = resume(control, STRATEGY)

    assert [(one.scope, one.rank) for one in control.resumes] == [(ACCOUNT, 2), (FIRM, 1), (STRATEGY, 0)]
    control, _, _ = resume(control, FIRM, rank=2)
    assert [(one.scope, one.rank) for one in control.resumes] == [(FIRM, 2)]


def test_a_control_state_survives_its_encoding() -> None:
    control, _, _ = resume(stop(stop(Control(limit_set="abc"), FIRM, rank=1), STRATEGY), ACCOUNT)

    assert decode_control(encode_control(control)) == control
    assert decode_control(b"") == Control()


scopes = st.builds(
    Scope, st.sampled_from(["", "A", "B"]), st.sampled_from(["", "rl"]), st.sampled_from(["", "AAA", "BBB"])
)


@settings(max_examples=200, deadline=None)
@given(scopes, st.integers(1, 3), st.lists(st.tuples(scopes, st.integers(0, 3), st.booleans()), max_size=12))
def test_no_sequence_of_lower_scopes_or_ranks_ends_a_higher_stop(
    halted: Scope, rank: int, steps: list[tuple[Scope, int, bool]]
) -> None:
    control = stop(Control(), halted, rank=rank)
    for scope, other_rank, is_stop in steps:
        if is_stop:
            control = stop(control, scope, TradingState.REDUCE_ONLY, other_rank)
        elif not (scope.covers(halted) and other_rank >= rank):
            control, _, _ = resume(control, scope, other_rank)

    assert (
        control.state_at(halted.account or "A", halted.strategy or "rl", halted.symbol or "AAA") is TradingState.HALTED
    )
    assert control.epoch >= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(scopes, st.integers(0, 2), st.booleans()), max_size=12))
def test_what_was_ever_stopped_stays_superseded_for_older_approvals(steps: list[tuple[Scope, int, bool]]) -> None:
    control, stops = Control(), []
    for scope, rank, is_stop in steps:
        if is_stop:
            control = stop(control, scope, TradingState.CANCEL_ONLY, rank)
            stops.append((scope, control.epoch))
        else:
            control, _, _ = resume(control, scope, rank)

    for scope, epoch in stops:
        reached = scope.account or "A", scope.strategy or "rl", scope.symbol or "AAA"
        assert control.stopped_since(epoch - 1, *reached)
