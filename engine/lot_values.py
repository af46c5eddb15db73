"""What one lot of each symbol is worth, in base currency, by slot: to the exposures, to the scenarios, to direction.

For everything but options these are one and the same, the value at the mark. An option counts by its delta in exposures
and by full revaluation in scenarios; both come from the risk model, which priced it at a spot that the underlying must
still be near. An option that can't be valued so is a fault of its slot: whoever reads a book with it in is told why.
"""

from collections.abc import Mapping
from typing import NamedTuple

from engine.account import AccountState, AtMarks, Floats
from engine.instrument import InstrumentSet
from engine.limits import Policy
from engine.order import Reason
from engine.risk.model import RiskModel

DELTA_FLOOR = 0.1
"""A bought option counts at least this part of its underlying, a written one all of it (CHECKS 9, CME's floor)."""


class Fault(NamedTuple):
    """Why an option can't be valued."""

    reason: Reason
    note: str


class OptionValues(NamedTuple):
    """(slots,) each; see the module. Of an account with options: without any, `AtMarks` says the same of itself."""

    scenario: Floats
    """What the risk model's returns multiply."""
    long: Floats
    """Exposure of a lot that is held."""
    short: Floats
    """Exposure of a lot that is sold short."""
    delta: Floats
    """Signed: what a lot adds to net exposure."""
    faults: Mapping[int, Fault]
    """By slot, of options; their values are 0."""
    linear: bool = False
    """No option is among the symbols."""


LotValues = AtMarks | OptionValues


def lot_values(state: AccountState, instruments: InstrumentSet, model: RiskModel | None, policy: Policy) -> LotValues:
    """Of all symbols of the account, cached until a mark, the model or the instruments change."""
    marked = state.at_marks()
    if not state.underlyings:
        return marked
    key = state.price_version, len(state.slots), instruments, model, policy.underlying_move_max
    cached: tuple[object, OptionValues] | None = state.derived.get("lot_values")
    if cached is not None and cached[0] == key:
        return cached[1]
    found = _with_options(state, instruments, model, policy, marked.unit_values)
    state.derived["lot_values"] = (key, found)
    return found


def _with_options(
    state: AccountState, instruments: InstrumentSet, model: RiskModel | None, policy: Policy, marked: Floats
) -> OptionValues:
    scenario, long, short, delta = (marked.copy() for _ in range(4))
    faults: dict[int, Fault] = {}
    place_of = {} if model is None else {int(place): at for at, place in enumerate(model.options.places)}
    for symbol, underlying in state.underlyings.items():
        slot = state.slots[symbol]
        scenario[slot] = long[slot] = short[slot] = delta[slot] = 0.0
        at = place_of.get(-1 if model is None else model.column.get(symbol, -1))
        spot = _spot(state, underlying)
        fault = _fault(symbol, underlying, spot, model, at, policy)
        if fault is not None or model is None or at is None:
            faults[slot] = fault or Fault(Reason.MODEL_MISSING, "no risk model is published; is the worker running?")
            continue
        options, unit = model.options, state.unit.item(slot)
        per_unit = unit * spot * state.prices.fx.item(slot)
        scenario[slot] = unit * options.reference.item(at)
        delta[slot] = per_unit * options.delta.item(at)
        long[slot] = per_unit * max(abs(options.delta.item(at)), DELTA_FLOOR)
        short[slot] = per_unit
    return OptionValues(scenario, long, short, delta, faults)


def _spot(state: AccountState, underlying: str) -> float:
    """Its mark, 0 where there is none."""
    slot = state.slots.get(underlying)
    return 0.0 if slot is None else state.prices.mark.item(slot)


def _fault(
    symbol: str, underlying: str, spot: float, model: RiskModel | None, at: int | None, policy: Policy
) -> Fault | None:
    if spot <= 0.0:
        return Fault(Reason.MARK_MISSING, f"no mark for {underlying}, which {symbol} is written on; publish one")
    if model is None:
        return Fault(Reason.MODEL_MISSING, "no risk model is published; is the worker running?")
    if at is None or not model.options.valued[at]:
        return Fault(Reason.MODEL_MISSING, f"the risk model could not value {symbol}; its warnings say why")
    at_build = model.options.spot.item(at)
    moved = abs(spot / at_build - 1.0)
    if moved > policy.underlying_move_max:
        note = (
            f"{underlying} has moved {moved:.1%} since the risk model valued {symbol}, allowed are "
            f"{policy.underlying_move_max:.1%}; the worker values it anew"
        )
        return Fault(Reason.MODEL_STALE, note)
    return None
