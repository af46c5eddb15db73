"""Plays of what is no limit: stops, inputs that are missing or old, event days, retries, and a restart.

Stops, retries and the restart run through the committer and the log that serve orders, the rest through `decide` on a
fold. Each play is one function that tells what it expected and saw; nothing is shown here.
"""

from collections.abc import Mapping
from functools import partial

import msgspec

from engine.account import AccountState
from engine.control import Control, Scope, TradingState
from engine.decide import Terms, decide
from engine.enforcement import enforcement_due
from engine.limits import Breaker, LimitSet, Policy
from engine.order import Order
from engine.records import CalendarPlanned, Decided
from engine.risk.model import RiskModel
from engine.tightening import EVENT_BLACKOUT, tightened
from gateway.committer import Answer, Reading
from gateway.drill.paper import (
    ACCOUNT,
    MARKS,
    NOW_US,
    RETURNS,
    SECOND_US,
    SHARES,
    Desk,
    account,
    buy,
    desk,
    execution,
    limits,
    risk,
    row,
    sell,
    valued,
)
from gateway.drill.sighting import Play, Sighting
from gateway.errors import IdReused
from gateway.rpc.convert.form import Invalid
from gateway.rpc.convert.requests import resume_of
from riskgateway.v1 import risk_gateway_pb2

HOUR_US = 3600 * SECOND_US
OPERATOR, RANK, RANK_BELOW = "drill", 2, 1


def operation_plays() -> tuple[Play, ...]:
    return (
        *(
            Play(f"stop:{state.name.lower()}", f"a stop of everything, {state.name}", partial(_stop, state, reason))
            for state, reason in _STOPS.items()
        ),
        Play("stale_model", "a risk model that is too old", _stale_model),
        Play("missing_mark", "a mark that is missing, old or no number", _missing_mark),
        Play("event_day", "a blackout before an event, and bounds that it halves", _event_day),
        Play("retry", "the same order id sent again", _retry),
        Play("restart", "a new process on the same log", _restart),
    )


def _verdict(record: Decided) -> str:
    return f"{record.action.name} {record.reason.name}" if record.reason.name != "NONE" else record.action.name


# --- stops ---------------------------------------------------------------------------------------------------------

_STOPS: Mapping[TradingState, str] = {
    TradingState.REDUCE_ONLY: "REDUCE_ONLY",
    TradingState.CANCEL_ONLY: "CANCEL_ONLY",
    TradingState.HALTED: "TRADING_HALTED",
}


async def _stop(state: TradingState, reason: str) -> tuple[Sighting, ...]:
    """Ten AAA are held, and an order for one more was approved before the stop."""
    closes = "ALLOW" if state is TradingState.REDUCE_ONLY else f"HALT {reason}"
    async with desk(positions={"AAA": 10}) as paper:
        before = await paper.check(buy(name="before"))
        await paper.stopper.stop(Scope(), state, "drill", OPERATOR, RANK)
        opening = await paper.check(buy(name="opening"))
        closing = await paper.check(sell(quantity=5, name="closing"))
        retried = await paper.check(buy(name="before"))
        kept = await paper.stopper.resume(Scope(), "not by this rank", OPERATOR, RANK_BELOW)
        still = await paper.check(buy(name="still"))
        lifted = await paper.stopper.resume(Scope(), "the drill is over", OPERATOR, RANK)
        after = await paper.check(buy(name="after"))
    return (
        Sighting("order before the stop", "ALLOW", _verdict(before.decided)),
        Sighting("opening order", f"HALT {reason}", _verdict(opening.decided)),
        Sighting("closing order", closes, _verdict(closing.decided)),
        Sighting("retry of the order before", "HALT SUPERSEDED_BY_STOP", _verdict(retried.decided)),
        Sighting("resume without a reason", "refused: reason", _resume_without_reason()),
        Sighting("resume by a lower rank", "0 lifted, 1 kept", f"{len(kept.lifted)} lifted, {len(kept.refused)} kept"),
        Sighting("order after that", f"HALT {reason}", _verdict(still.decided)),
        Sighting("resume", "1 lifted, 0 kept", f"{len(lifted.lifted)} lifted, {len(lifted.refused)} kept"),
        Sighting("order after the resume", "ALLOW", _verdict(after.decided)),
    )


def _resume_without_reason() -> str:
    """How the contract takes a resume that says no reason: the check of the request, before anything is lifted."""
    try:
        resume_of(risk_gateway_pb2.ResumeRequest(account=ACCOUNT))
    except Invalid as error:
        return f"refused: {', '.join(violation[0] for violation in error.violations)}"
    return "accepted"


# --- inputs --------------------------------------------------------------------------------------------------------


def _judged(
    order: Order, armed: LimitSet, state: AccountState, model: RiskModel | None = None, now_us: int = NOW_US
) -> str:
    return _verdict(decide(state, Terms(Control(), armed, SHARES, model), order, now_us))


async def _stale_model() -> tuple[Sighting, ...]:
    armed, held = limits(row("var_95", 1e9, unit="money")), account(positions={"AAA": 10})
    old = risk(RETURNS, built_time_us=NOW_US - 27 * HOUR_US)
    return (
        Sighting("model built now", "ALLOW", _judged(buy(), armed, held, risk(RETURNS))),
        Sighting("model built 27 h ago", "REJECT MODEL_STALE", _judged(buy(), armed, held, old)),
        Sighting("closing order under it", "ALLOW", _judged(sell(quantity=10), armed, held, old)),
        Sighting("no model", "REJECT MODEL_MISSING", _judged(buy(), armed, held)),
    )


async def _missing_mark() -> tuple[Sighting, ...]:
    armed, held = limits(row("gross_exposure", 1e9)), {"AAA": 10}
    unmarked = account(marks={"BBB": 50.0}, positions=held)
    senseless = account(marks={**MARKS, "AAA": float("nan")}, positions=held)
    fresh = account(positions=held)
    late_us = NOW_US + 6 * SECOND_US
    return (
        Sighting("marked", "ALLOW", _judged(buy(), armed, fresh)),
        Sighting("no mark", "REJECT MARK_MISSING", _judged(buy(), armed, unmarked)),
        Sighting("closing order without a mark", "ALLOW", _judged(sell(quantity=10), armed, unmarked)),
        Sighting("mark of 6 s", "REJECT MARK_STALE", _judged(buy(), armed, fresh, now_us=late_us)),
        Sighting("mark that is no number", "REJECT MEASURE_NOT_FINITE", _judged(buy(), armed, senseless)),
    )


async def _event_day() -> tuple[Sighting, ...]:
    """From now on nothing opens for a minute; until the hour is over positions are bounded by half."""
    blackout, halved = limits(row("event_blackout", 0)), limits(row("position", 10, "symbol"))
    state, minute_us = account(positions={"BBB": 10}), NOW_US + 60 * SECOND_US
    unplanned = _judged(buy(), blackout, state)
    state.apply(CalendarPlanned(time_us=NOW_US, until_us=NOW_US + 2 * HOUR_US))
    for name, measure, until_us in (
        ("event:cpi:blackout", EVENT_BLACKOUT, minute_us),
        ("event:cpi", "position", NOW_US + HOUR_US),
    ):
        for record in tightened(state, name, (measure,), 0.5, "CPI", NOW_US, 0, from_us=NOW_US, until_us=until_us):
            state.apply(record)
    later = state.fork()
    later.apply(valued(MARKS, NOW_US + HOUR_US))
    return (
        Sighting("no calendar was read", "REJECT EVENTS_UNKNOWN", unplanned),
        Sighting("opening order in the blackout", "REJECT EVENT_BLACKOUT", _judged(buy(), blackout, state)),
        Sighting("closing order in the blackout", "ALLOW", _judged(sell("BBB", 10), blackout, state)),
        Sighting("opening order after it", "ALLOW", _judged(buy(), blackout, later, now_us=NOW_US + HOUR_US)),
        Sighting("5 within half of 10", "ALLOW", _judged(buy(quantity=5), halved, state)),
        Sighting("6 over half of 10", "REJECT POSITION", _judged(buy(quantity=6), halved, state)),
        Sighting("6 after the event", "ALLOW", _judged(buy(quantity=6), halved, later, now_us=NOW_US + HOUR_US)),
    )


# --- retries -------------------------------------------------------------------------------------------------------


async def _retry() -> tuple[Sighting, ...]:
    asked = buy(quantity=3, name="once")
    async with desk() as paper:
        first = await paper.check(asked)
        again = await paper.check(asked)
        reused = await _reuse(paper, msgspec.structs.replace(asked, quantity=4.0))
        await paper.restart()
        restarted = await paper.check(asked)
        state = (await paper.read()).state
    open_lots = {name: order.leaves for name, order in state.orders.items()}
    return (
        Sighting("first answer", "ALLOW 3 lots", f"{_verdict(first.decided)} {first.decided.allowed_lots} lots"),
        Sighting("same order, same id", f"{_said(first)}, replayed", _replayed(again)),
        Sighting("other order, same id", "refused", reused),
        Sighting("same id after a restart", f"{_said(first)}, replayed", _replayed(restarted)),
        Sighting("reserved", "{'once': 3}", str(open_lots)),
        Sighting("decisions in the log", "1", str(sum(state.decisions_by_action.values()))),
    )


def _said(answer: Answer) -> str:
    return f"{_verdict(answer.decided)} {answer.decided.allowed_lots} lots at {answer.seq}"


def _replayed(answer: Answer) -> str:
    return f"{_said(answer)}, {'replayed' if answer.replayed else 'decided anew'}"


async def _reuse(paper: Desk, other: Order) -> str:
    try:
        answer = await paper.check(other)
    except IdReused:
        return "refused"
    return _replayed(answer)


# --- restart -------------------------------------------------------------------------------------------------------


async def _restart() -> tuple[Sighting, ...]:
    """The account has traded, lost, was halted, tightened and stopped; then its process dies."""
    async with desk(_LOSSES, positions={"AAA": 5_000}) as paper:
        await _trade_and_lose(paper)
        await paper.stopper.stop(Scope(strategy="s2"), TradingState.REDUCE_ONLY, "drill", OPERATOR, RANK)
        told, whole = _standing_now(await paper.read())
        await paper.restart()
        kept, whole_kept = _standing_now(await paper.read())
        refused = await paper.check(buy("BBB", name="after"))
    lost = tuple(Sighting(f"{name} to lose", "some", "none") for name in _WITNESSED if told[name] in _NOTHING)
    return (
        *lost,
        *(Sighting(name, value, kept[name]) for name, value in told.items()),
        Sighting("all else of the fold", "the same", _changed(whole, whole_kept)),
        Sighting("order under the latch", "HALT REDUCE_ONLY", _verdict(refused.decided)),
    )


_LOSSES = limits(
    row("drawdown_breaker", 0),
    row("position", 10, "symbol", "halt", match="BBB"),
    policy=Policy(breaker=Breaker()),
)
_WITNESSED = ("stops", "latches", "breaker", "counters", "tightenings", "open orders")
"""What the story must have set: kept where there was nothing to lose would prove nothing."""
_NOTHING = ("", "normal")


async def _trade_and_lose(paper: Desk) -> None:
    """A peak, a fill, an open order, a latch on BBB, a tightening, and a fall that moves the breaker."""
    for _ in range(3):
        await paper.note(valued({"AAA": 110.0}))
    for name in ("filled", "open"):
        await paper.check(buy(quantity=2, name=name))
    await paper.report(execution("filled", quantity=1, price=110.0))
    await paper.check(buy("BBB", 11, name="too much"))
    await paper.record(
        lambda state, terms, now_us: tightened(state, "drill", ("position",), 0.5, "drill", now_us, terms.control.epoch)
    )
    for _ in range(3):
        await paper.note(valued({"AAA": 98.0}))
    await paper.record(enforcement_due)


def _standing_now(reading: Reading) -> tuple[dict[str, str], dict[str, str]]:
    """As text at once: the next append moves what a reading looks at."""
    return standing(reading), _whole(reading.state)


def standing(reading: Reading) -> dict[str, str]:
    """What a restart must bring back, by name."""
    state, control = reading.state, reading.terms.control
    latches = [latch for latch, _ in state.latches.values()]
    cuts = ", ".join(f"{symbol} to {lots} lots" for (_, symbol), lots in sorted(state.breaker.cuts.items()))
    peaks = f"{state.nav_peak:.10g}, confirmed {state.peak_confirmed:.10g}"
    counters = {key: f"{one.orders} orders, {one.trades} trades" for key, one in sorted(state.tallies.items())}
    return {
        "log": f"{reading.head.seq} records",
        "stops": "; ".join(f"{stop.scope} {stop.state.name}" for stop in control.stops),
        "latches": "; ".join(f"{latch.scope} {latch.state.name}: {latch.cause}" for latch in latches),
        "breaker": f"{state.breaker.stage}{': ' + cuts if cuts else ''}",
        "counters": "; ".join(f"{_counted(key)}: {tally}" for key, tally in counters.items()),
        "decisions": ", ".join(f"{action.name} {n}" for action, n in sorted(state.decisions_by_action.items())),
        "high-water mark": peaks,
        "tightenings": "; ".join(f"{', '.join(one.measures)} × {one.factor:g}" for one in state.tightenings),
        "open orders": ", ".join(f"{name} {order.leaves}" for name, order in sorted(state.orders.items())),
        "positions": str({symbol: int(state.book.lots[slot]) for symbol, slot in sorted(state.slots.items())}),
        "cash and equity": f"{state.cash}, {state.equity():.10g}",
    }


def _counted(key: str) -> str:
    """Whose counter stands under a key (engine.conduct.scope_key), without the marks that keep names apart."""
    if not key:
        return "account"
    return key.lstrip("\0\1") or "no strategy"


def _whole(state: AccountState) -> dict[str, str]:
    """Everything that verdicts hang on, as text."""
    return {
        "latches": str(sorted((str(key), str(latch)) for key, latch in state.latches.items())),
        "breaker": str(state.breaker),
        "counters": str(sorted(state.tallies.items())),
        "bases": str(state.loss_bases),
        "peaks": str((state.nav_peak, state.epoch_peak, state.epoch_peaks, state.peak_confirmed, state.base_peak)),
        "sessions": str((state.session, state.sessions)),
        "tightenings": str((state.tightenings, state.calendar, state.loans)),
        "orders": str(sorted(state.orders.items())),
        "holdings": str(sorted(state.holdings.items())),
        "liquidations": str(sorted(state.liquidations.items())),
        "memos": str(sorted(state.memos.items())),
        "approvals": str(sorted((str(key), times) for key, times in state.approvals.items())),
        "halted by": str(sorted((str(key), seq) for key, seq in state.halted_by.items())),
        "lots": str((state.book.lots.tolist(), state.book.buys.tolist(), state.book.sells.tolist())),
        "flows": str((state.flows_total, state.fees_total, state.units, sorted(state.cash.items()))),
    }


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    changed = [name for name, text in before.items() if after[name] != text]
    return f"changed: {', '.join(changed)}" if changed else "the same"
