"""A play for every measure: one row is armed, and an order or a state breaches it.

Each is played under every action that its row may have: without the row the order passes, WARN lets it pass and says
so, REJECT refuses it by the measure's own reason, REDUCE leaves what the row then allows, HALT refuses it and stops its
scope for the next order. A measure without a scene here fails its play ("not drilled"), so that none is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from engine.account import AccountState
from engine.control import Control
from engine.decide import Terms, decide
from engine.enforcement import enforcement_due
from engine.instrument import InstrumentSet, MarketPhase
from engine.limits import EVERY, NO_STOP_SCOPES, Breaker, Limit, LimitAction, Policy, faults_of
from engine.measures import MEASURES
from engine.measures.measure import Measure
from engine.order import Action, Order, Reason
from engine.records import CalendarPlanned, Decided, ExecutionKind, Quoted
from engine.risk.model import RiskModel
from engine.tightening import EVENT_BLACKOUT, tightened
from gateway.drill.paper import (
    CALL_MARKS,
    CALL_VALUES,
    MARKS,
    NOW_US,
    RETURNS,
    SECOND_US,
    SHARES,
    WITH_CALL,
    account,
    buy,
    limits,
    risk,
    row,
    sell,
    sent,
    share,
    told,
    universe,
    valued,
)
from gateway.drill.sighting import Play, Sighting

NOT_DRILLED = "not drilled"


@dataclass(frozen=True, slots=True)
class Scene:
    """An order that the row refuses in this state, and that nothing else refuses."""

    row: Limit
    order: Order
    state: AccountState = field(default_factory=account)
    instruments: InstrumentSet = SHARES
    model: RiskModel | None = None
    policy: Policy | None = None
    now_us: int = NOW_US

    def judged(self, armed: Limit | None, order: Order | None = None, state: AccountState | None = None) -> Decided:
        """The verdict under this row and no other that binds; None: under none, nor the breaker, which arms its own."""
        policy = self.policy if self.policy is not None else Policy()
        armed_set = limits(policy=msgspec.structs.replace(policy, breaker=None))
        if armed is not None:
            armed_set = limits(armed, policy=policy)
        faults = [str(fault) for fault in faults_of(armed_set, MEASURES)]
        assert not faults, f"the drill arms what can't be armed: {faults}"
        return decide(
            self.state if state is None else state,
            Terms(Control(), armed_set, self.instruments, self.model),
            self.order if order is None else order,
            self.now_us,
        )

    def under(self, action: LimitAction) -> Limit:
        return msgspec.structs.replace(self.row, action=action)


# --- the scenes ----------------------------------------------------------------------------------------------------


def _restricted() -> Scene:
    return Scene(row("restricted", 0, "symbol", match="AAA"), buy())


def _event_blackout() -> Scene:
    state = account()
    state.apply(CalendarPlanned(time_us=NOW_US, until_us=NOW_US + 3600 * SECOND_US))
    for record in tightened(state, "event:cpi", (EVENT_BLACKOUT,), 0.5, "CPI", NOW_US, 0):
        state.apply(record)
    return Scene(row("event_blackout", 0), buy(), state)


def _market_phase() -> Scene:
    halted = Quoted(100.0, None, None, NOW_US, MarketPhase.HALTED)
    return Scene(row("market_phase", 0, "symbol"), buy(), account(marks={**MARKS, "AAA": halted}))


def _mark_age() -> Scene:
    return Scene(row("mark_age", 2, "symbol"), buy(), now_us=NOW_US + 3 * SECOND_US, policy=Policy(mark_age_max_s=4.0))


def _mark_spread() -> Scene:
    wide = Quoted(100.0, 97.0, 103.0, NOW_US)
    return Scene(row("mark_spread", 0.05, "symbol"), buy(), account(marks={**MARKS, "AAA": wide}))


def _mark_move() -> Scene:
    state = account()
    state.apply(valued({"AAA": 120.0}))
    return Scene(row("mark_move", 0.1, "symbol"), buy(), state)


def _after_an_order(measure: str) -> Scene:
    """Of a bound of one, used up by an order in the other share."""
    state = account()
    sent(state, buy("BBB", name="earlier"))
    return Scene(row(measure, 1), buy(), state)


def _cancel_rate() -> Scene:
    state = account()
    for name in ("one", "two"):
        sent(state, buy("BBB", name=name))
        told(state, name, ExecutionKind.CANCEL_REQUESTED)
    return Scene(row("cancel_rate", 1), buy(), state)


def _modify_rate() -> Scene:
    state = account()
    sent(state, buy(quantity=10, name="first"))
    sent(state, buy(quantity=11, name="second", replaces_client_order_id="first"))
    return Scene(row("modify_rate", 1), buy(quantity=12, replaces_client_order_id="first"), state)


def _order_to_trade() -> Scene:
    state = account()
    for name in ("one", "two"):
        sent(state, buy("BBB", name=name))
    told(state, "one", quantity=1)
    return Scene(row("order_to_trade", 2), buy(), state)


def _after_a_fill(measure: str, action: str = "reject") -> Scene:
    state = account()
    sent(state, buy("BBB", name="earlier"))
    told(state, "earlier", quantity=1, price=50.0)
    return Scene(row(measure, 1, action=action), buy(), state)


def _venue_rejects() -> Scene:
    state = account()
    sent(state, buy("BBB", name="refused"))
    told(state, "refused", ExecutionKind.REJECTED)
    return Scene(row("venue_rejects", 0), buy(), state)


def _loss_streak() -> Scene:
    state = account()
    for order, price in ((buy(quantity=10, name="in"), 100.0), (sell(quantity=10, name="out"), 99.0)):
        sent(state, order)
        told(state, order.client_order_id, quantity=10, price=price)
    return Scene(row("loss_streak", 0), buy(), state)


def _agent_silence() -> Scene:
    state = account()
    sent(state, buy("BBB", name="works", strategy="rl"))
    silent = row("agent_silence", 4, "strategy", "halt")
    return Scene(silent, buy(strategy="rl"), state, now_us=NOW_US + 4 * SECOND_US + 1)


def _duplicate_order() -> Scene:
    state = account()
    sent(state, buy(name="earlier"))
    return Scene(row("duplicate_order", 1), buy(), state)


def _self_match() -> Scene:
    state = account()
    sent(state, sell(quantity=5, name="resting", strategy="maker", limit_price=101.0))
    return Scene(row("self_match", 0), buy(limit_price=101.0), state)


def _of_size(measure: str, bound: float, quantity: float, scope: str = "account", unit: str | None = None) -> Scene:
    """A flat account buys more of AAA than the bound leaves room for."""
    match = "AAA" if scope == "symbol" else EVERY
    return Scene(row(measure, bound, scope, unit=unit, match=match), buy(quantity=quantity), model=risk(RETURNS))


def _order_value() -> Scene:
    return Scene(row("order_value", 1000, "symbol", match="AAA"), buy(quantity=11, limit_price=100.0))


def _collar(measure: str, limit_price: float) -> Scene:
    return Scene(row(measure, 0.05), buy(limit_price=limit_price))


def _adv_share() -> Scene:
    traded = universe(share("AAA", average_daily_quantity=100.0), share("BBB"))
    return Scene(row("adv_share", 0.1), buy(quantity=11), account(traded), traded)


def _short_position() -> Scene:
    return Scene(row("short_position", 10, "symbol"), sell(quantity=11))


def _open_positions() -> Scene:
    return Scene(row("open_positions", 1), buy(), account(positions={"BBB": 1}))


def _beta_exposure() -> Scene:
    weighted = universe(share("AAA", beta=2.0), share("BBB"))
    return Scene(row("beta_exposure", 1000), buy(quantity=6), account(weighted), weighted)


def _cluster_exposure() -> Scene:
    """BBB moves against AAA day by day: both are one cluster."""
    held = account(positions={"BBB": 20})
    return Scene(row("cluster_exposure", 1000, unit="money"), buy(), held, model=risk(RETURNS))


def _margin() -> Scene:
    return Scene(row("margin", 1.0), buy(quantity=10_001, limit_price=100.0))


def _call(measure: str, bound: float) -> Scene:
    """Two calls: delta 50, gamma 200 per per cent, theta 5 a day and vega 30 a point each."""
    model = risk({symbol: [0.0] * 25 for symbol in CALL_MARKS}, calls=CALL_VALUES)
    return Scene(row(measure, bound), buy("CALL", 2), account(WITH_CALL, CALL_MARKS), WITH_CALL, model)


def _moved(mark: float) -> AccountState:
    """100 AAA bought at 100 and nothing else, marked three times: losses count once they are confirmed."""
    state = account(cash=0.0, positions={"AAA": 100})
    for _ in range(3):
        state.apply(valued({"AAA": mark}))
    return state


def _after_a_move(measure: str, mark: float) -> Scene:
    return Scene(row(measure, 0.02), buy(), _moved(mark))


def _drawdown_breaker() -> Scene:
    state, policy, armed = _moved(91.0), Policy(breaker=Breaker()), row("drawdown_breaker", 0)
    terms = Terms(Control(), limits(armed, policy=policy), SHARES, None)
    for record in enforcement_due(state, terms, NOW_US):
        state.apply(record)
    return Scene(armed, buy(), state, policy=policy)


def _risk_budget() -> Scene:
    return Scene(row("risk_budget", 0.1, "symbol"), buy(quantity=251), account(cash=100_000.0), model=risk(RETURNS))


def _strategy_correlation() -> Scene:
    """Short of what moves against AAA is as good as long of it."""
    held = account(positions={"BBB": -10}, strategy="other")
    bound = row("strategy_correlation", 0.8, "strategy")
    return Scene(bound, buy(strategy="one"), held, model=risk(RETURNS))


SCENES: dict[str, Callable[[], Scene]] = {
    "restricted": _restricted,
    "event_blackout": _event_blackout,
    "market_phase": _market_phase,
    "mark_age": _mark_age,
    "mark_spread": _mark_spread,
    "mark_move": _mark_move,
    "order_rate": partial(_after_an_order, "order_rate"),
    "cancel_rate": _cancel_rate,
    "modify_rate": _modify_rate,
    "order_to_trade": _order_to_trade,
    "session_orders": partial(_after_an_order, "session_orders"),
    "session_trades": partial(_after_a_fill, "session_trades"),
    "unattended_executions": partial(_after_a_fill, "unattended_executions", "halt"),
    "venue_rejects": _venue_rejects,
    "loss_streak": _loss_streak,
    "agent_silence": _agent_silence,
    "duplicate_order": _duplicate_order,
    "self_match": _self_match,
    "open_orders": partial(_after_an_order, "open_orders"),
    "order_quantity": partial(_of_size, "order_quantity", 10, 11, "symbol"),
    "order_value": _order_value,
    "price_collar": partial(_collar, "price_collar", 106.0),
    "price_collar_passive": partial(_collar, "price_collar_passive", 94.0),
    "adv_share": _adv_share,
    "traded_quantity": partial(_of_size, "traded_quantity", 10, 11, "symbol"),
    "traded_value": partial(_of_size, "traded_value", 1000, 11),
    "position": partial(_of_size, "position", 10, 11, "symbol"),
    "short_position": _short_position,
    "open_positions": _open_positions,
    "gross_exposure": partial(_of_size, "gross_exposure", 1000, 11),
    "net_exposure": partial(_of_size, "net_exposure", 1000, 11),
    "beta_exposure": _beta_exposure,
    "concentration": partial(_of_size, "concentration", 0.1, 1001),
    "cluster_exposure": _cluster_exposure,
    "leverage": partial(_of_size, "leverage", 1.0, 10_001),
    "margin": _margin,
    "delta_net": partial(_call, "delta_net", 9_999),
    "delta_underlying": partial(_call, "delta_underlying", 9_999),
    "gamma": partial(_call, "gamma", 399),
    "gamma_underlying": partial(_call, "gamma_underlying", 399),
    "theta_day": partial(_call, "theta_day", 9.9),
    "theta_day_underlying": partial(_call, "theta_day_underlying", 9.9),
    "vega": partial(_call, "vega", 59),
    "vega_underlying": partial(_call, "vega_underlying", 59),
    "daily_loss": partial(_after_a_move, "daily_loss", 97.0),
    "weekly_loss": partial(_after_a_move, "weekly_loss", 97.0),
    "drawdown": partial(_after_a_move, "drawdown", 97.0),
    "drawdown_breaker": _drawdown_breaker,
    "profit": partial(_after_a_move, "profit", 103.0),
    "var_95": partial(_of_size, "var_95", 1000, 501, unit="money"),
    "var_99": partial(_of_size, "var_99", 1000, 501, unit="money"),
    "es_95": partial(_of_size, "es_95", 1000, 501, unit="money"),
    "es_99": partial(_of_size, "es_99", 1000, 501, unit="money"),
    "stress_loss": partial(_of_size, "stress_loss", 1000, 34, unit="money"),
    "risk_budget": _risk_budget,
    "volatility": partial(_of_size, "volatility", 230, 10, unit="money"),
    "strategy_correlation": _strategy_correlation,
}
"""In the order of the measures."""


# --- playing them --------------------------------------------------------------------------------------------------


def limit_plays() -> tuple[Play, ...]:
    """One for each measure that can be armed, whether there is a scene for it or not."""
    return tuple(
        Play(f"limit:{name}", f"a breach of {name}", partial(_perform, measure, SCENES.get(name)))
        for name, measure in MEASURES.items()
    )


async def _perform(measure: Measure, made: Callable[[], Scene] | None) -> tuple[Sighting, ...]:
    return sightings_of(measure, made() if made is not None else None)


def sightings_of(measure: Measure, scene: Scene | None) -> tuple[Sighting, ...]:
    """What each action of the measure's row did in the scene."""
    if scene is None:
        return (Sighting("play", "a scene in which it is breached", NOT_DRILLED),)
    reason = measure.reason.name
    seen = [
        Sighting("without the row", "ALLOW", scene.judged(None).action.name),
        Sighting("action warn", f"WARN {reason}", _told(measure, scene.judged(scene.under(LimitAction.WARN)))),
    ]
    if not measure.halts:
        refused = scene.judged(scene.under(LimitAction.REJECT))
        seen.append(Sighting("action reject", f"REJECT {reason}", _told(measure, refused)))
    if measure.fit is not None and not measure.halts:
        seen.append(_reduced(scene))
    if scene.row.scope not in NO_STOP_SCOPES:
        seen += _halted(measure, scene)
    return tuple(seen)


def _told(measure: Measure, record: Decided) -> str:
    """Action and reason; told apart where the measure was not what spoke, or could not be evaluated."""
    evaluated = any(one.measure == measure.name and one.after is not None for one in record.checks)
    unheard = "" if evaluated else f" without a value of {measure.name}: {record.message}"
    return f"{record.action.name} {record.reason.name}{unheard}"


def _reduced(scene: Scene) -> Sighting:
    """What REDUCE leaves is less than asked and passes under REJECT, one lot more does not."""
    record = scene.judged(scene.under(LimitAction.REDUCE))
    left = record.allowed_lots
    if left >= record.lots:
        return Sighting("action reduce", "fewer lots than asked", f"{left} of {record.lots} lots")
    tried = {lots: _verdict_on(scene, lots) for lots in (left, left + 1) if lots}
    expected = {lots: Action.ALLOW if lots == left else Action.REJECT for lots in tried}
    return Sighting("action reduce", _sizes(expected), _sizes(tried))


def _verdict_on(scene: Scene, lots: int) -> Action:
    instrument = scene.instruments.instruments[scene.order.symbol]
    order = msgspec.structs.replace(scene.order, quantity=lots * instrument.lot_size)
    return scene.judged(scene.under(LimitAction.REJECT), order).action


def _sizes(verdicts: dict[int, Action]) -> str:
    return ", ".join(f"{lots} lots {action.name}" for lots, action in verdicts.items())


_STOPPED = (Reason.TRADING_HALTED, Reason.CANCEL_ONLY, Reason.REDUCE_ONLY)


def _halted(measure: Measure, scene: Scene) -> list[Sighting]:
    """HALT refuses the order, and its latch the next one, also with the row disarmed."""
    record = scene.judged(scene.under(LimitAction.HALT))
    state = scene.state.fork()
    state.apply(record)
    after = scene.judged(None, msgspec.structs.replace(scene.order, client_order_id="next"), state)
    stopped = after.action is Action.HALT and after.reason in _STOPPED
    return [
        Sighting("action halt", f"HALT {measure.reason.name}", _told(measure, record)),
        Sighting("next order", "stopped", "stopped" if stopped else f"{after.action.name} {after.reason.name}"),
    ]
