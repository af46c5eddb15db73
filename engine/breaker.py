"""The drawdown circuit breaker: when it moves from one stage to another, and what it does to bounds and positions.

Pure. A table of transitions; the first that holds is taken. The strictest level that the confirmed drawdown reaches
applies at once, also out of RECOVERING. L1 and L2 only scale, and go back by themselves; L3 closes everything and cools
down, and from there only a person's Resume, given after the cooldown, starts to recover, and rebases the breaker's peak
and nothing else. What it does are records: BreakerMoved with the cuts, and a Tightened on the bounds.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from engine.account import AccountState
from engine.control import Control, Scope
from engine.limits import Breaker, Policy
from engine.losses import fall_from
from engine.measures.measure import Survey, Unevaluable
from engine.order import Reason
from engine.records import AnyRecord, BreakerCut, BreakerMoved, BreakerPosition, BreakerStage
from engine.tightening import TAIL_MEASURES, tightened

DRAWDOWN_BREAKER = "drawdown_breaker"
"""Id of the tightening, and name of the measure."""

SCALED_MEASURES = (
    "gross_exposure",
    "net_exposure",
    "beta_exposure",
    "concentration",
    "cluster_exposure",
    "leverage",
    *TAIL_MEASURES,
    "stress_loss",
)
"""Whose bounds the breaker multiplies: how much is at stake and what it can lose."""

_S = BreakerStage


@dataclass(frozen=True, slots=True)
class Standing:
    """What a transition looks at."""

    drawdown: float
    """Confirmed, from the breaker's peak."""
    sessions: int = 0
    """Opened since the breaker is in its stage."""
    flat: bool = False
    """The account holds nothing."""
    resumed: bool = False
    """A Resume of the whole account came after the cooldown was over."""


Condition = Callable[[Breaker, Standing], bool]


def _reached(level: int) -> Condition:
    return lambda rule, at: at.drawdown >= rule.levels[level]


def _released(level: int) -> Condition:
    return lambda rule, at: at.drawdown < rule.releases[level]


def _recovered(rule: Breaker, at: Standing) -> bool:
    return at.sessions >= rule.recovering_sessions and at.drawdown < rule.recovery_drawdown


_LEVELS: tuple[tuple[Condition, BreakerStage], ...] = (
    (_reached(2), _S.L3),
    (_reached(1), _S.L2),
    (_reached(0), _S.L1),
)

TRANSITIONS: Mapping[BreakerStage, tuple[tuple[Condition, BreakerStage], ...]] = {
    _S.NORMAL: _LEVELS,
    _S.RECOVERING: (*_LEVELS, (_recovered, _S.NORMAL)),
    _S.L1: (*_LEVELS[:2], (_released(0), _S.NORMAL)),
    _S.L2: (*_LEVELS[:1], (_released(1), _S.L1)),
    _S.L3: ((lambda rule, at: at.flat or at.sessions >= 1, _S.COOLDOWN),),
    _S.COOLDOWN: ((lambda rule, at: at.resumed, _S.RECOVERING),),
}
"""By stage, in order of precedence."""


def next_stage(stage: BreakerStage, rule: Breaker, at: Standing) -> BreakerStage:
    """Where the breaker goes from a stage; the same stage where it stays. One that is no number moves nothing."""
    if math.isnan(at.drawdown):
        return stage
    return next((to for condition, to in TRANSITIONS[stage] if condition(rule, at)), stage)


def scale_of(stage: BreakerStage, rule: Breaker, sessions: int) -> float:
    """By what the bounds are multiplied: what a level's cut leaves, and from a Resume on a step more each session."""
    if stage is _S.NORMAL:
        return 1.0
    if stage is _S.RECOVERING:
        return min(1.0, (sessions + 1) / (rule.recovering_sessions + 1))
    return 1.0 - (rule.cuts[0] if stage is _S.L1 else rule.cuts[1])


def measured_stage(survey: Survey) -> BreakerStage:
    """The stage in the log, or L3 where the drawdown is already there and no worker has said so yet. Raises Unevaluable
    where the drawdown is not known."""
    breaker, rule = survey.state.breaker, survey.policy.breaker
    if rule is None:
        raise Unevaluable(Reason.MEASURE_NOT_FINITE, "no breaker is configured: limits.breaker says when it trips")
    if breaker.stage.opens_nothing:
        return breaker.stage
    return _S.L3 if fall_from(survey, breaker.peak) >= rule.levels[2] else breaker.stage


def breaker_due(survey: Survey, control: Control) -> list[AnyRecord]:
    """The records that move the breaker and scale the bounds as it then stands; none where all of that is in the log.
    Where the drawdown can't be told nothing is moved, and the measure refuses."""
    state, rule, now_us = survey.state, survey.policy.breaker, survey.now_us
    if rule is None:
        return tightened(state, DRAWDOWN_BREAKER, SCALED_MEASURES, 1.0, "no breaker is armed", now_us, control.epoch)
    moved = _moved(survey, control, rule)
    breaker = state.breaker if moved is None else state.breaker.moved(moved)
    scale, reason = scale_of(breaker.stage, rule, breaker.sessions), f"drawdown breaker at {breaker.stage.name}"
    scaled = tightened(state, DRAWDOWN_BREAKER, SCALED_MEASURES, scale, reason, now_us, control.epoch)
    return [*([moved] if moved is not None else []), *scaled]


def _moved(survey: Survey, control: Control, rule: Breaker) -> BreakerMoved | None:
    state = survey.state
    breaker = state.breaker
    try:
        drawdown = fall_from(survey, breaker.peak)
    except Unevaluable:
        return None
    resumed = _resumed(state, control, rule)
    at = Standing(drawdown, breaker.sessions, _is_flat(state), resumed)
    stage = next_stage(breaker.stage, rule, at)
    if stage is breaker.stage:
        return None
    pnl, count = state.session_pnl(), survey.policy.loss_confirmations
    return BreakerMoved(
        time_us=survey.now_us,
        epoch=control.epoch,
        before=breaker.stage,
        stage=stage,
        drawdown=drawdown,
        peak=breaker.peak,
        nav=float(state.equities_back()[:count].min()) / state.units,
        equity=state.equity(),
        session_pnl=pnl if math.isfinite(pnl) else None,
        reason=f"the drawdown is {drawdown:.2%} of a peak of {breaker.peak:.6g}",
        positions=tuple(_positions(state)),
        cuts=tuple(_cuts(state, breaker.stage, stage, rule)),
        rebases=stage is _S.RECOVERING,
    )


def _is_flat(state: AccountState) -> bool:
    """Nothing is held, and nothing works that nobody was asked to cancel."""
    working = any(not (one.closing or one.instruction_id) for one in state.orders.values())
    return not working and not any(one.lots for one in state.holdings.values())


def cuts_wanted(state: AccountState, control: Control, policy: Policy) -> tuple[dict[tuple[str, str], int], str]:
    """(lots to close by strategy and symbol, why) of the breaker's cuts that no order of the gateway's own is closing:
    down to what the trigger left of each position, once. None after a Resume that covers the position."""
    breaker = state.breaker
    if policy.breaker is None or not breaker.cuts or not breaker.moves:
        return {}, ""
    cut_by = next((one for one in reversed(breaker.moves) if one.cuts), breaker.moves[-1])
    wanted: dict[tuple[str, str], int] = {}
    for (strategy, symbol), target in breaker.cuts.items():
        held = state.holding(strategy, symbol).lots
        lots = abs(held) - abs(target) - _own_leaves(state, strategy, symbol)
        if lots > 0 and not control.lifts(Scope(state.account, strategy=strategy, symbol=symbol), cut_by.epoch):
            wanted[strategy, symbol] = lots
    return wanted, f"drawdown breaker at {cut_by.stage.name}: {cut_by.reason}"


def _own_leaves(state: AccountState, strategy: str, symbol: str) -> int:
    """What the gateway's own orders are closing already: they only reduce."""
    return sum(
        one.leaves for one in state.orders.values() if one.own and (one.strategy, one.symbol) == (strategy, symbol)
    )


def _resumed(state: AccountState, control: Control, rule: Breaker) -> bool:
    """Whether a Resume that covers the account came after the cooldown's last session had opened: one that was given
    before is no leave to trade later."""
    breaker = state.breaker
    if breaker.stage is not _S.COOLDOWN or len(breaker.roll_epochs) < rule.cooldown_sessions:
        return False
    cooled_epoch = breaker.roll_epochs[rule.cooldown_sessions - 1]
    return any(one.epoch > cooled_epoch and one.scope.covers(Scope(state.account)) for one in control.resumes)


def _positions(state: AccountState) -> Iterator[BreakerPosition]:
    values = state.unit_values()
    for (strategy, symbol), holding in sorted(state.holdings.items()):
        if holding.lots:
            value = holding.lots * values.item(state.slots[symbol])
            yield BreakerPosition(strategy, symbol, holding.lots, value)


def _cuts(state: AccountState, before: BreakerStage, stage: BreakerStage, rule: Breaker) -> Iterator[BreakerCut]:
    """Where the breaker grew stricter: what is left of each position, in whole lots, rounded towards zero."""
    part = {_S.L1: rule.cuts[0], _S.L2: rule.cuts[1], _S.L3: 1.0}.get(stage)
    if part is None or stage.strictness < before.strictness:
        return
    for (strategy, symbol), holding in sorted(state.holdings.items()):
        if holding.lots:
            left = math.floor(round(abs(holding.lots) * (1.0 - part), 9))
            yield BreakerCut(strategy, symbol, left if holding.lots > 0 else -left)
