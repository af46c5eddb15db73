"""How positions are closed by orders of the gateway's own: in which order, in what slices, at what expected cost.

Pure. `engine.instructions` makes the orders, slice by slice, from what this says of the state as it then is: so a
partial fill, a price that moves or somebody's own trade is planned anew each time, and no plan is ever kept. A whole
plan is made here only to be shown, with its cost and the risk that is left after each slice. Nothing reads a limit.

A slice is at most a share of the instrument's average daily quantity, less where the quoted spread is wide; where that
quantity is not known, one order closes it all. Cost: half the quoted spread, and the square-root law of market impact
(Toth et al., "Anomalous price impact and the critical nature of liquidity in financial markets", Physical Review X 1,
021006, 2011): with Q of an average daily V closed, the price has moved against the seller by Y σ √(Q/V), so that all of
it has cost 2/3 Y σ √(Q/V) Q; a slice costs the difference that it makes, and all slices what one order would.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from engine.account import AccountState, Floats, OpenOrder, book_key
from engine.control import Control, Scope
from engine.decide import reduction_room
from engine.instrument import GRID_SLACK, InstrumentSet
from engine.limits import Policy
from engine.lot_values import LotValues
from engine.measures.measure import Survey, Unevaluable
from engine.risk.inquiry import Stamp
from engine.risk.model import RiskModel
from engine.risk.var import tail_count
from engine.view import Columns, largest

IMPACT = 1.0
"""Y of the square-root law: of order 1 in every market that it was measured in."""

TAIL = 0.95
"""Confidence of the expected shortfall whose parts rank the positions: of two years its tail is 25 to 38 days."""

SLICES_MAX = 1_000
"""Of a plan that is shown."""

FRACTION_SLACK = 1e-9
"""Of lots: a fraction of them that is whole but for rounding is not counted up."""

Place = tuple[str, str]
"""A strategy and a symbol."""


# --- what is sent -----------------------------------------------------------------------------------------------------


def slice_lots(state: AccountState, instruments: InstrumentSet, policy: Policy, symbol: str, lots: int) -> int:
    """Of `lots` > 0 to close, those of the next order: 1 or more."""
    share = _share_lots(state, instruments, policy, symbol)
    return lots if share is None else min(lots, max(1, math.floor(share * (1.0 + GRID_SLACK))))


def is_sliced(instruments: InstrumentSet, symbol: str) -> bool:
    """Whether orders in it are sliced, and so wait for each other."""
    instrument = instruments.get(symbol)
    return instrument is not None and instrument.average_daily_quantity > 0.0


def _share_lots(state: AccountState, instruments: InstrumentSet, policy: Policy, symbol: str) -> float | None:
    instrument = instruments.get(symbol)
    if instrument is None or instrument.average_daily_quantity <= 0.0:
        return None
    lots = policy.flatten_volume_share * instrument.average_daily_quantity / instrument.lot_size
    spread = spread_share(state, symbol)
    return lots if spread is None or spread <= policy.flatten_spread_max else lots * policy.flatten_spread_max / spread


def spread_share(state: AccountState, symbol: str) -> float | None:
    """The quoted spread of a listed symbol as a share of its mark; None where it has no quote, or a crossed one."""
    slot = state.slots[symbol]
    mark, bid, ask = (float(prices[slot]) for prices in (state.prices.mark, state.prices.bid, state.prices.ask))
    return (ask - bid) / mark if mark > 0.0 and 0.0 < bid <= ask else None


def next_lots(state: AccountState, instruments: InstrumentSet, policy: Policy, place: Place, lots: int) -> int:
    """Lots > 0 of the order that comes next of `lots` to close; 0: none is due, since the last one still works or was
    sent too short a while ago, on the clock of `state`."""
    if not is_sliced(instruments, place[1]):
        return lots
    progress = state.liquidations.get(place)
    if progress is not None and own_orders(state, place):
        return 0
    return slice_lots(state, instruments, policy, place[1], lots)


def waits(state: AccountState, instruments: InstrumentSet, policy: Policy, place: Place, now_us: int) -> bool:
    """Whether the interval since the last slice is not over."""
    progress = state.liquidations.get(place)
    if progress is None or not is_sliced(instruments, place[1]):
        return False
    return progress.last_us <= now_us < progress.last_us + int(policy.flatten_interval_s * 1e6)


def own_orders(state: AccountState, place: Place) -> list[OpenOrder]:
    """The gateway's own orders that may still fill there."""
    if not state.open_counts.get(place):
        return []
    return [one for one in state.orders.values() if one.own and (one.strategy, one.symbol) == place]


def cut_lots(lots: int, fraction: float) -> int:
    """Whole lots, counted up, that are `fraction` of a position. Raises ValueError unless 0 < fraction <= 1."""
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction: expected more than 0, at most 1, got {fraction}")
    return min(abs(lots), math.ceil(abs(lots) * fraction - FRACTION_SLACK))


def unfinished_cuts(state: AccountState, control: Control) -> Iterable[tuple[Place, int]]:
    """(place, lots left to cut) of the cuts that are not done: what neither filled nor works. A Resume that covers the
    place ends its cut."""
    for place, progress in state.liquidations.items():
        if not progress.is_cut or not goes_on(state, control, place):
            continue
        left = progress.planned - progress.filled - sum(order.leaves for order in own_orders(state, place))
        if left > 0:
            yield place, left


def goes_on(state: AccountState, control: Control, place: Place) -> bool:
    """Whether the latest liquidation there is still asked for: by a stop that flattens, or as a cut that no Resume has
    ended."""
    progress = state.liquidations.get(place)
    if progress is not None and progress.is_cut and not control.lifts(Scope(state.account, *place), progress.epoch):
        return True
    return any(stop.flatten and stop.scope.reaches(state.account, *place) for stop in control.stops)


def ranked(
    state: AccountState,
    instruments: InstrumentSet,
    model: RiskModel | None,
    policy: Policy,
    places: Iterable[Place],
    now_us: int,
) -> list[Place]:
    """`places` with the largest contribution to risk first, hedges last: parts of the expected shortfall at 95 %, which
    add up to it (Euler); where it can't be computed, by exposure. Equal ones by name."""
    known = list(places)
    if len(known) < 2:
        return known
    try:
        per_lot = contributions_per_lot(Survey(state, instruments, model, policy, now_us))
    except Unevaluable:
        per_lot = np.zeros(0)
    if not len(per_lot):
        per_lot = np.where(np.isfinite(state.unit_values()), state.unit_values(), 0.0)
        return sorted(known, key=lambda place: (-abs(_risk(state, per_lot, place)), place))
    return sorted(known, key=lambda place: (-_risk(state, per_lot, place), place))


def _risk(state: AccountState, per_lot: Floats, place: Place) -> float:
    return float(state.holding(*place).lots * per_lot[state.slots[place[1]]])


def contributions_per_lot(survey: Survey) -> Floats:
    """(slots,) what one more lot adds to the historical expected shortfall at 95 % of the positions, in base currency,
    positive = more loss: times the lots held they sum to it exactly. Raises Unevaluable."""
    columns, lots, values = _need_risk(survey)
    days = columns.days
    losses = -(lots * values.scenario) @ columns.returns[:, :days]
    mass = (1.0 - TAIL) * days
    tail = np.argsort(-losses, kind="stable")[: tail_count(days, TAIL)]
    weights = np.full(len(tail), 1.0 / mass)
    weights[-1] = (mass - (len(tail) - 1)) / mass
    per_lot: Floats = -(columns.returns[:, tail] @ weights) * values.scenario
    return per_lot


def _need_risk(survey: Survey) -> tuple[Columns, Floats, LotValues]:
    """What VaR of the positions alone is computed from. Raises Unevaluable, naming what is missing."""
    view, columns = survey.view("", None, open_orders=False), survey.columns()
    survey.need_history(view, columns)
    return columns, survey.state.book.lots.astype(np.float64), survey.values


# --- what is shown ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slice:
    """One order of a plan. Money in base currency; risk figures are of what is held after it, without open orders."""

    strategy: str
    symbol: str
    lots: int
    """> 0 buys."""
    after_us: int
    """Since the plan's start."""
    spread_cost: float | None
    """None: no quote."""
    impact_cost: float | None
    """None: average daily quantity or volatility unknown."""
    var_99: float | None
    stress_loss: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a flattening would send now. `warnings` say why a figure is None, and where it was cut off."""

    slices: tuple[Slice, ...]
    value: float
    var_99: float | None
    """Before the first slice, as `stress_loss`."""
    stress_loss: float | None
    warnings: tuple[str, ...]

    @property
    def expected_cost(self) -> float | None:
        """Of all slices; None where a part of it is not known."""
        parts = [cost for one in self.slices for cost in (one.spread_cost, one.impact_cost)]
        known = [part for part in parts if part is not None]
        return math.fsum(known) if len(known) == len(parts) else None


def plan(
    state: AccountState,
    instruments: InstrumentSet,
    model: RiskModel | None,
    policy: Policy,
    now_us: int,
    scope: Scope | None = None,
    fraction: float = 1.0,
) -> Plan:
    """The plan that closes `fraction` of each position in `scope`, None: of all, at the marks as they are. In rounds of
    one slice a position. Raises ValueError on a fraction that is not above 0, at most 1."""
    left = _to_close(state, scope, fraction)
    places = ranked(state, instruments, model, policy, left, now_us)
    survey = Survey(state, instruments, model, policy, now_us)
    path, cost = _RiskPath(survey), Costs(survey)
    warnings = list(path.warnings)
    done: dict[str, int] = dict.fromkeys((symbol for _, symbol in places), 0)
    var_99, stress_loss = path.figures()
    slices: list[Slice] = []
    turn = 0
    while any(left.values()) and len(slices) < SLICES_MAX:
        for place in (place for place in places if left[place]):
            if len(slices) == SLICES_MAX:
                break
            strategy, symbol = place
            lots = slice_lots(state, instruments, policy, symbol, left[place])
            sign = -1 if state.holding(*place).lots > 0 else 1
            path.move(symbol, sign * lots)
            spread, impact = cost.of_spread(symbol, lots), cost.of_impact(symbol, done[symbol], lots)
            after_us = turn * int(policy.flatten_interval_s * 1e6)
            slices.append(Slice(strategy, symbol, sign * lots, after_us, spread, impact, *path.figures()))
            left[place] -= lots
            done[symbol] += lots
        turn += 1
    warnings += cost.warnings(done)
    if any(left.values()):
        warnings.append(f"cut off after {SLICES_MAX} slices: {sum(left.values())} lots are left")
    values = np.abs(state.unit_values())
    value = math.fsum(abs(one.lots) * float(values[state.slots[one.symbol]]) for one in slices)
    return Plan(tuple(slices), value, var_99, stress_loss, tuple(dict.fromkeys(warnings)))


def _to_close(state: AccountState, scope: Scope | None, fraction: float) -> dict[Place, int]:
    """Lots > 0 to close by place: what open orders close already is not closed twice."""
    left: dict[Place, int] = {}
    for (strategy, symbol), holding in sorted(state.holdings.items()):
        lots = cut_lots(holding.lots, fraction)
        if scope is not None and not scope.reaches(state.account, strategy, symbol):
            continue
        room = reduction_room(state, book_key(strategy), state.slots[symbol], -1 if holding.lots > 0 else 1)
        if lots and room:
            left[strategy, symbol] = min(lots, room)
    return left


class Costs:
    """What closing lots is expected to cost, in base currency. Reads the marks of a survey."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._deviations: dict[str, float | None] = {}

    def of_spread(self, symbol: str, lots: int) -> float | None:
        """Half the quoted spread; None without a quote or a rate."""
        state = self._survey.state
        spread, value = spread_share(state, symbol), float(state.unit_values()[state.slots[symbol]])
        return None if spread is None or value <= 0.0 else abs(lots) * value * spread / 2.0

    def of_impact(self, symbol: str, done: int, lots: int) -> float | None:
        """What `lots` > 0 add where `done` were closed before; None without average daily quantity or volatility."""
        whole, before = self._impact(symbol, done + lots), self._impact(symbol, done)
        return None if whole is None or before is None else whole - before

    def _impact(self, symbol: str, lots: int) -> float | None:
        """2/3 Y σ √(Q/V) Q."""
        instrument, deviation = self._survey.instruments.get(symbol), self.deviation(symbol)
        if instrument is None or instrument.average_daily_quantity <= 0.0 or deviation is None:
            return None
        share = lots * instrument.lot_size / instrument.average_daily_quantity
        return 2.0 / 3.0 * IMPACT * deviation * math.sqrt(share) * lots

    def deviation(self, symbol: str) -> float | None:
        """Standard deviation of a lot's daily P&L, ddof 1; None where the model has no history of it."""
        if symbol not in self._deviations:
            self._deviations[symbol] = self._deviation(symbol)
        return self._deviations[symbol]

    def _deviation(self, symbol: str) -> float | None:
        survey = self._survey
        model, slot = survey.model, survey.state.slots[symbol]
        place = None if model is None else model.column.get(symbol)
        if model is None or place is None or not model.has_history[place] or model.n_days < 2:
            return None
        value = float(survey.values.scenario[slot])
        found = abs(value) * float(np.std(model.returns[: model.n_days, place], ddof=1))
        return found if math.isfinite(found) and value > 0.0 else None

    def warnings(self, symbols: Iterable[str]) -> list[str]:
        """Why the cost of one of these is not known, in full or in part."""
        told: list[str] = []
        for symbol in sorted(set(symbols)):
            instrument = self._survey.instruments.get(symbol)
            if self.of_spread(symbol, 1) is None:
                told.append(f"{symbol}: no bid and ask, so that the cost of the spread is not known")
            if instrument is None or instrument.average_daily_quantity <= 0.0:
                told.append(f"{symbol}: average daily quantity unknown: one order, and no impact known")
            elif self.deviation(symbol) is None:
                told.append(f"{symbol}: no history of its volatility, so that the impact is not known")
        return told


class _RiskPath:
    """VaR and stress loss of the positions as slices take from them."""

    def __init__(self, survey: Survey) -> None:
        self._slots = survey.state.slots
        self._losses: Floats | None = None
        self.warnings: tuple[str, ...] = ()
        try:
            columns, lots, values = _need_risk(survey)
        except Unevaluable as missing:
            self.warnings = (f"risk path: {missing.note}",)
            return
        self._days, self._returns, self._values = columns.days, columns.returns, values.scenario
        self._losses = -(lots * values.scenario) @ columns.returns

    def move(self, symbol: str, lots: int) -> None:
        if self._losses is not None:
            slot = self._slots[symbol]
            self._losses = self._losses - lots * float(self._values[slot]) * self._returns[slot]

    def figures(self) -> tuple[float | None, float | None]:
        """(VaR at 99 %, the order statistic; the worst stress scenario's loss), positive = loss."""
        if self._losses is None:
            return None, None
        days = self._losses[: self._days]
        place = self._days - tail_count(self._days, 0.99)
        worst = largest(self._losses[self._days :])
        return float(np.partition(days, place)[place]), worst if math.isfinite(worst) else None


def expected_cost(survey: Survey, lots_by_symbol: Mapping[str, int]) -> float | None:
    """Of closing so many lots > 0 of each symbol now; None where a part is not known."""
    costs = Costs(survey)
    parts = [
        part
        for symbol, lots in lots_by_symbol.items()
        for part in (costs.of_spread(symbol, lots), costs.of_impact(symbol, 0, lots))
    ]
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None


@dataclass(frozen=True, slots=True)
class PlanInquiry:
    """What to plan for: "" for all strategies, or symbols; the part of each position."""

    account: str
    strategy: str = ""
    symbol: str = ""
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    stamp: Stamp
    plan: Plan
    lot_sizes: Mapping[str, float]
