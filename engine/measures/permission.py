"""Measures of whether such an order may be sent now: restricted lists, market phases, duplicates (CHECKS 4, 5 and 7).

No size mends them. True reductions pass: who may not open a position, or finds the market closed, may still get out.
"""

from engine.instrument import MarketPhase
from engine.limits import ScopeKind, Unit
from engine.measures.measure import MICROS, Armed, Case, Family, Measure, Reading, Unevaluable
from engine.order import Reason, TimeInForce

_COLLECTED = {
    MarketPhase.PRE_OPEN: TimeInForce.AT_OPEN,
    MarketPhase.OPENING_AUCTION: TimeInForce.AT_OPEN,
    MarketPhase.CLOSING_AUCTION: TimeInForce.AT_CLOSE,
}
"""What is taken outside continuous trading, which takes everything; halted and closed markets take nothing."""

_PHASES = {int(phase): phase for phase in MarketPhase if phase is not MarketPhase.UNKNOWN}


def _restricted(case: Case, armed: Armed) -> Reading:
    """The row is the list: whatever it reaches may only be reduced."""
    return 0.0, 1.0, 0


def _say_restricted(case: Case) -> str:
    return f"{case.instrument.symbol} is restricted; positions in it may only be reduced"


def _market_phase(case: Case, armed: Armed) -> Reading:
    """1 where the phase that was told with the symbol's newest mark takes no such order. How old that may be is
    mark_age's to say; a phase that nobody told is no phase, and refuses."""
    phase = _phase(case)
    takes = phase is MarketPhase.CONTINUOUS or _COLLECTED.get(phase) is case.order.time_in_force
    return 0.0, 0.0 if takes else 1.0, case.own_age_us


def _phase(case: Case) -> MarketPhase:
    phase = _PHASES.get(int(case.state.prices.phase.item(case.slot)))
    if phase is None:
        note = f"no market phase of {case.instrument.symbol} was told; send it with its marks, as `phase`"
        raise Unevaluable(Reason.MARKET_PHASE, note)
    return phase


def _say_market_phase(case: Case) -> str:
    return f"{case.instrument.symbol} is {_phase(case).name}, which takes no {case.order.time_in_force.name} order"


def _duplicates(case: Case, armed: Armed) -> Reading:
    """Orders approved in the window that say the same under other ids, this one included. A retry of an id is answered
    before anything is decided, and is no duplicate; what was refused did nothing that could be done twice."""
    before = case.state.approved_alike(case.order, case.now_us - int(armed.row.window_s * MICROS))
    return float(before), float(before + 1), 0


_SYMBOLS = frozenset({ScopeKind.ASSET_CLASS, ScopeKind.SECTOR, ScopeKind.SYMBOL})

RESTRICTED = Measure(
    "restricted", Reason.RESTRICTED, Family.INPUT, (Unit.RULE,), _SYMBOLS, _restricted, say=_say_restricted
)
MARKET_PHASE = Measure(
    "market_phase", Reason.MARKET_PHASE, Family.INPUT, (Unit.RULE,), _SYMBOLS, _market_phase, say=_say_market_phase
)
DUPLICATE_ORDER = Measure(
    "duplicate_order",
    Reason.DUPLICATE_ORDER,
    Family.INPUT,
    (Unit.ORDERS,),
    _SYMBOLS | {ScopeKind.ACCOUNT, ScopeKind.STRATEGY},
    _duplicates,
)
