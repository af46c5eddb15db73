"""Caps on Greeks: delta, gamma, theta a day and vega, net over a scope and of the order's underlying.

Additive per lot, so that worst case is that of net exposure: each symbol ends in [P − S, P + B] by itself and the sum
in [Σ low, Σ high], of which the larger size counts. The units are those of NUMERICS: delta Δ·S, gamma 0.01·Γ·S² (the
change of that delta per 1 % of the underlying), theta per calendar day, vega per volatility point, all in base currency
at the underlying's mark now. The risk model's sensitivities hold while the underlying is near the spot that they were
computed at (engine.lot_values) and the model is fresh; what is no option has a delta only. No field of an order lifts
a cap.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from engine.account import Floats
from engine.limits import BOOK_SCOPES, Limit, ScopeKind, Unit
from engine.measures.exposure import scoped_views
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey
from engine.measures.net import EndSums, joined, room_for, size_of, weighted
from engine.order import Reason
from engine.risk.model import OptionColumns
from engine.view import GROUPINGS, View, mask_of

GAMMA_MOVE = 0.01
"""Gamma is told per move of the underlying by this share of its price."""


class PerLot(NamedTuple):
    """(slots,) each: what a lot adds to a Greek of the book, base currency, signed."""

    delta: Floats
    gamma: Floats
    theta: Floats
    vega: Floats


_Greek = Callable[[PerLot], Floats]


def greeks_per_lot(survey: Survey) -> PerLot:
    """Of all symbols of the account, cached until a mark, the model or the instruments change. 0 for an option that
    can't be valued: whoever has one at stake is refused by name (Survey.need_options)."""
    state, values = survey.state, survey.values
    cached: tuple[object, PerLot] | None = state.derived.get("greeks")
    if cached is not None and cached[0] is values:
        return cached[1]
    gamma, theta, vega = (np.zeros(len(state.slots)) for _ in range(3))
    if not values.linear and survey.model is not None:
        options = survey.model.options
        place_of = {int(place): at for at, place in enumerate(options.places)}
        for symbol, underlying in state.underlyings.items():
            slot = state.slots[symbol]
            if slot in values.faults:
                continue
            at = place_of[survey.model.column[symbol]]
            money = state.unit.item(slot) * state.prices.fx.item(slot)
            spot = state.prices.mark.item(state.slots[underlying])
            gamma[slot], theta[slot], vega[slot] = (money * one for one in _per_unit(options, at, spot))
    found = PerLot(values.delta, gamma, theta, vega)
    state.derived["greeks"] = (values, found)
    return found


def _per_unit(options: OptionColumns, at: int, spot: float) -> tuple[float, float, float]:
    """Gamma per 1 %, theta a day and vega a point of one unit, in the option's currency."""
    gamma = GAMMA_MOVE * options.gamma.item(at) * spot * spot
    return gamma, options.theta.item(at), options.vega.item(at)


def _need_fresh(survey: Survey, view: View, slot: int | None = None) -> None:
    """Raises Unevaluable where an option is at stake, or ordered, and the model that valued it is stale."""
    state = survey.state
    for symbol in state.underlyings:
        at = state.slots[symbol]
        if at == slot or view.stake.largest.item(at):
            survey.usable_model()
            return


def _sums(survey: Survey, view: View, per_lot: Floats, underlying: str | None) -> EndSums:
    if underlying is not None:
        per_lot = per_lot * mask_of(survey.state, survey.instruments, "underlying", underlying)
    return weighted(view, per_lot)


class Cap:
    """One Greek, net or of one underlying: the four functions of its measure."""

    def __init__(self, of: _Greek, by_underlying: bool) -> None:
        self.of, self.by_underlying = of, by_underlying

    def read(self, case: Case, armed: Armed) -> Reading:
        ends, per_lot = self._ends(case, armed)
        per = case.denominator(armed.unit)
        after = joined(ends, case.joining * per_lot)
        return size_of(ends) / per, size_of(after) / per, max(case.mark_age_us, case.model_age_us)

    def fit(self, case: Case, armed: Armed, bound: float) -> int:
        ends, per_lot = self._ends(case, armed)
        return room_for(ends, per_lot, bound * case.denominator(armed.unit))

    def filled(self, case: Case, armed: Armed) -> float:
        (low, high), per_lot = self._ends(case, armed)
        moved = case.joining * per_lot
        return size_of((low + moved, high + moved)) / case.denominator(armed.unit)

    def now(self, survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
        per = survey.denominator(row.unit or Unit.MONEY)
        for label, view in scoped_views(survey, row, account):
            _need_fresh(survey, view)
            per_lot = self.of(greeks_per_lot(survey))
            if not self.by_underlying:
                yield label, size_of(weighted(view, per_lot)) / per
                continue
            for name in survey.underlyings().names:
                size = size_of(_sums(survey, view, per_lot, name))
                if size:
                    yield f"{label} underlying:{name}", size / per

    def _ends(self, case: Case, armed: Armed) -> tuple[EndSums, float]:
        """The ends without the order, and what a lot of it adds, signed."""
        view = case.of(armed)
        case.delta_value()  # raises where the order's own symbol can't be valued
        _need_fresh(case, view, case.slot)
        per_lot = self.of(greeks_per_lot(case))
        underlying = GROUPINGS["underlying"](case.instruments, case.instrument) if self.by_underlying else None
        return _sums(case, view, per_lot, underlying), case.sign * per_lot.item(case.slot)


_NET_SCOPES = BOOK_SCOPES
"""The firm's, too: the size of a sum is at most the sum of the accounts' sizes."""

_UNDERLYING_SCOPES = frozenset({ScopeKind.FIRM, ScopeKind.ACCOUNT, ScopeKind.STRATEGY})


CAPS: dict[str, Cap] = {}
"""By the measure's name."""


def _measure(name: str, reason: Reason, of: _Greek, by_underlying: bool = False) -> Measure:
    cap = CAPS[name] = Cap(of, by_underlying)
    return Measure(
        name,
        reason,
        Family.PORTFOLIO,
        (Unit.MONEY, Unit.EQUITY),
        _UNDERLYING_SCOPES if by_underlying else _NET_SCOPES,
        cap.read,
        cap.fit,
        cap.filled,
        cap.now,
        is_sum=True,
    )


DELTA_NET = _measure("delta_net", Reason.DELTA, lambda one: one.delta)
DELTA_UNDERLYING = _measure("delta_underlying", Reason.DELTA, lambda one: one.delta, True)
GAMMA = _measure("gamma", Reason.GAMMA, lambda one: one.gamma)
GAMMA_UNDERLYING = _measure("gamma_underlying", Reason.GAMMA, lambda one: one.gamma, True)
THETA_DAY = _measure("theta_day", Reason.THETA, lambda one: one.theta)
THETA_DAY_UNDERLYING = _measure("theta_day_underlying", Reason.THETA, lambda one: one.theta, True)
VEGA = _measure("vega", Reason.VEGA, lambda one: one.vega)
VEGA_UNDERLYING = _measure("vega_underlying", Reason.VEGA, lambda one: one.vega, True)
