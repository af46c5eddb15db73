"""Measures of direction: net exposure and beta-weighted net exposure (CHECKS 25).

Worst case: each symbol ends in [P − S, P + B] by itself, so that the sum ends in [Σ low, Σ high] and the measure is the
larger size of both; no buy is netted with a sell that may not fill. An order joins its side before it is judged.
"""

import math
from collections.abc import Iterable

import numpy as np

from engine.account import AccountState, Floats
from engine.instrument import InstrumentSet
from engine.limits import BOOK_SCOPES, Limit, Unit
from engine.measures.exposure import scoped_views
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, Unevaluable
from engine.order import Reason
from engine.view import View

_FIT_SLACK = 1e-9
"""Lots: a room of 6.9999999999 lots is 7; decide tries the result again and gives up a lot where it is not."""

EndSums = tuple[float, float]
"""Σ low and Σ high over a scope, base currency."""


def size_of(ends: EndSums) -> float:
    """max(|Σ low|, |Σ high|), since low ≤ high."""
    return max(ends[1], -ends[0])


def joined(ends: EndSums, moved: float) -> EndSums:
    """The ends once an order worth `moved`, of either sign, has joined its side."""
    return ends[0] + min(moved, 0.0), ends[1] + max(moved, 0.0)


def room_for(ends: EndSums, per_lot: float, bound: float) -> int:
    """The most lots worth `per_lot` each, of either sign, that keep the size within `bound`."""
    moved, other = (ends[1], -ends[0]) if per_lot > 0 else (-ends[0], ends[1])
    if max(moved, other) > bound:
        return 0
    lots = (bound - moved) / abs(per_lot) if per_lot else math.inf
    return int(lots + _FIT_SLACK) if math.isfinite(lots) else _NO_END


_NO_END = 2**62


# --- net exposure -------------------------------------------------------------------------------------------------


def _ends(view: View) -> EndSums:
    stake, values = view.stake, view.values
    if values.linear:
        return float(stake.low.dot(values.delta)), float(stake.high.dot(values.delta))
    return weighted(view, values.delta)


def _net(case: Case, armed: Armed) -> Reading:
    ends, per = _ends(case.of(armed)), case.equity() if armed.of_equity else 1.0
    moved = case.sign * case.joining * case.delta_value()
    return size_of(ends) / per, size_of(joined(ends, moved)) / per, case.mark_age_us


def _net_fit(case: Case, armed: Armed, bound: float) -> int:
    return room_for(_ends(case.of(armed)), case.sign * case.delta_value(), bound * case.denominator(armed.unit))


def _net_filled(case: Case, armed: Armed) -> float:
    low, high = _ends(case.of(armed))
    moved = case.sign * case.joining * case.delta_value()
    return size_of((low + moved, high + moved)) / case.denominator(armed.unit)


def _net_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    per = survey.denominator(row.unit or Unit.MONEY)
    for label, view in scoped_views(survey, row, account):
        yield label, size_of(_ends(view)) / per


# --- beta exposure ------------------------------------------------------------------------------------------------


def _betas(survey: Survey, view: View, slot: int | None = None) -> Floats:
    """(slots,) betas of what is at stake in a view, and of one slot: an instrument's own, else the risk model's; 0
    where nothing is at stake. Raises Unevaluable where one is missing."""
    needed = view.stake.largest > 0.0
    if slot is not None:
        needed[slot] = True
    betas = _declared(survey.state, survey.instruments)
    if np.isnan(betas[needed]).any():
        betas = np.where(np.isnan(betas), _modelled(survey), betas)
        missing = np.flatnonzero(np.isnan(betas) & needed)
        if len(missing):
            symbol = survey.state.symbol_at(int(missing[0]))
            note = f"{symbol} has no beta; register it with one, or give the risk model the prices of its index"
            raise Unevaluable(Reason.BETA_MISSING, note)
    found: Floats = np.where(needed, betas, 0.0)
    return found


def _declared(state: AccountState, instruments: InstrumentSet) -> Floats:
    """(slots,) NaN where an instrument says nothing of its own."""
    cached: tuple[InstrumentSet, Floats] | None = state.derived.get("betas")
    if cached is not None and cached[0] is instruments and len(cached[1]) == len(state.slots):
        return cached[1]
    betas = np.full(len(state.slots), np.nan)
    for symbol, slot in state.slots.items():
        instrument = instruments.get(symbol)
        if instrument is not None and instrument.beta is not None:
            betas[slot] = instrument.beta
    state.derived["betas"] = (instruments, betas)
    return betas


def _modelled(survey: Survey) -> Floats:
    model = survey.usable_model()
    places = [model.column.get(symbol) for symbol in survey.state.slots]
    return np.array([math.nan if place is None else model.betas[place] for place in places])


def _beta_ends(view: View, betas: Floats) -> EndSums:
    return weighted(view, betas * view.values.delta)


def weighted(view: View, weights: Floats) -> EndSums:
    """The ends where a lot of a symbol weighs so much, of either sign."""
    low, high = view.stake.low * weights, view.stake.high * weights
    return float(np.minimum(low, high).sum()), float(np.maximum(low, high).sum())


def _beta_of(case: Case, armed: Armed) -> tuple[EndSums, float]:
    """The ends without the order, and what a lot of it is worth in beta."""
    view = case.of(armed)
    betas = _betas(case, view, case.slot)
    return _beta_ends(view, betas), case.sign * case.delta_value() * betas.item(case.slot)


def _beta(case: Case, armed: Armed) -> Reading:
    ends, per_lot = _beta_of(case, armed)
    per = case.denominator(armed.unit)
    return (
        size_of(ends) / per,
        size_of(joined(ends, case.joining * per_lot)) / per,
        max(case.mark_age_us, case.model_age_us),
    )


def _beta_fit(case: Case, armed: Armed, bound: float) -> int:
    ends, per_lot = _beta_of(case, armed)
    return room_for(ends, per_lot, bound * case.denominator(armed.unit))


def _beta_filled(case: Case, armed: Armed) -> float:
    (low, high), per_lot = _beta_of(case, armed)
    moved = case.joining * per_lot
    return size_of((low + moved, high + moved)) / case.denominator(armed.unit)


def _beta_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    per = survey.denominator(row.unit or Unit.MONEY)
    for label, view in scoped_views(survey, row, account):
        yield label, size_of(_beta_ends(view, _betas(survey, view))) / per


_EACH = BOOK_SCOPES
"""The firm's, too: the size of a sum is at most the sum of the accounts' sizes."""

NET_EXPOSURE = Measure(
    "net_exposure",
    Reason.NET_EXPOSURE,
    Family.PORTFOLIO,
    (Unit.MONEY, Unit.EQUITY),
    _EACH,
    _net,
    _net_fit,
    _net_filled,
    _net_now,
)
BETA_EXPOSURE = Measure(
    "beta_exposure",
    Reason.BETA_EXPOSURE,
    Family.PORTFOLIO,
    (Unit.MONEY, Unit.EQUITY),
    _EACH,
    _beta,
    _beta_fit,
    _beta_filled,
    _beta_now,
    is_sum=True,
)
