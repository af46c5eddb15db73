"""What a book loses in stress scenarios, on a ±spot × ±volatility grid of each underlying, and in replayed history.

The model's scenarios and the caller's own go the same way, so their figures compare. Losses are positive, in base
currency, at the worse end of each row where open orders count; they are those that the gateway decides by
(engine/view.py), here with what each position contributes and why. Scaling a scenario until it costs a given loss
belongs to reverse_stress.py, the walk through history to replay.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.instrument import AssetClass, Instrument
from engine.risk.build import VOLATILITY_SHOCKS, refined
from engine.risk.factors import GRID_SHOCKS, FactorKind, FactorMap, GridShocks, check_grid, grid_returns, grid_row
from engine.risk.history import PriceHistory
from engine.risk.options import volatility_shock
from engine.risk.replay import SHIPPED_WINDOWS, Replay, Window, replay
from engine.risk.scenarios import SIX_SCENARIOS, Scenario, check_scenarios
from engine.risk.stress_book import (
    REVALUATION_FAILED,
    Floats,
    LeftOut,
    Options,
    StressBook,
    left_out_warnings,
    reach_of,
    unrevalued,
)

OWN_SCENARIOS_MAX = 100
"""Of one request: enough for a grid of one's own, few enough for an answer at once."""

UNAFFECTED_SHARE_MAX = 0.5
"""With more of the positions unaffected a scenario says little of this book, and its result says so."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a row of the book loses in a scenario."""

    strategy: str
    symbol: str
    loss: float
    """Base currency, positive is a loss, at the worse end of its open orders."""
    instrument_return: float | None
    """In base currency, as a decimal; of an option P&L per unit over its price, None where it is worth nothing."""
    factors: tuple[str, ...]
    """That reach its price or volatility; empty: none does, and any loss is its currency's."""


@dataclass(frozen=True, slots=True, eq=False)
class ScenarioLoss:
    """The loss of a book in one scenario. `loss` is the exact sum of `position_losses`."""

    name: str
    loss: float
    book: StressBook
    position_losses: Floats
    """(n,) by row of the book; 0 in rows of `left_out`, which no sum counts."""
    returns: Floats
    """(n,) of each row, in base currency, per unit of its money; NaN in rows of `left_out`."""
    factors: tuple[tuple[str, ...], ...]
    """(n) the factors that reach each row."""
    positions: int
    """Rows with something at stake."""
    unaffected: int
    """Of them, those whose price no factor of the scenario reaches."""
    left_out: tuple[LeftOut, ...]
    """Rows at stake that can't be evaluated: `loss` is that of the others alone."""
    warnings: tuple[str, ...]

    @property
    def evaluated(self) -> bool:
        """Whether anything at stake could be evaluated, or nothing is at stake."""
        return self.positions == 0 or self.positions > len(self.left_out) - len(self.book.left_out)

    def contributions(self) -> tuple[Contribution, ...]:
        """Rows at stake that were evaluated, greatest loss first; their losses sum exactly to `loss`."""
        counted = np.flatnonzero(self.book.at_stake & np.isfinite(self.returns))
        order = counted[np.argsort(-self.position_losses[counted], kind="stable")].tolist()
        shown = instrument_returns(self.book, self.returns)
        return tuple(
            Contribution(
                strategy=self.book.strategies[row],
                symbol=self.book.instruments[row].symbol,
                loss=float(self.position_losses[row]),
                instrument_return=shown[row],
                factors=self.factors[row],
            )
            for row in order
        )

    def by_strategy(self) -> Mapping[str, float]:
        """The loss of each strategy of the book, in the order of the rows. They sum to `loss`, but for rounding."""
        losses: dict[str, list[float]] = {}
        for strategy, loss in zip(self.book.strategies, self.position_losses.tolist(), strict=True):
            losses.setdefault(strategy, []).append(loss)
        return {strategy: math.fsum(rows) for strategy, rows in losses.items()}


def instrument_returns(book: StressBook, returns: Floats) -> list[float | None]:
    """(n) what each instrument returned on its price, of (n,) returns per unit of money; None where it has no price."""
    shown: list[float | None] = returns.tolist()
    if book.options is not None:
        references, prices = book.options.references.tolist(), book.options.prices.tolist()
        for row, reference, price in zip(book.options.rows.tolist(), references, prices, strict=True):
            shown[row] = float(returns[row]) * reference / price if price > 0.0 else None
    return shown


def stress(
    book: StressBook,
    scenarios: Sequence[Scenario] = SIX_SCENARIOS,
    own: Sequence[Scenario] = (),
    factor_map: FactorMap | None = None,
) -> tuple[ScenarioLoss, ...]:
    """The loss of `book` in each of `scenarios` (the model's), then in each of the caller's `own`.

    Raises ValueError on more than OWN_SCENARIOS_MAX of one's own, on two scenarios of one name, on a change of an
    option's volatility that can only be meant in points, and where a revaluation answers in another shape. A row that
    can't be evaluated is left out visibly; one that no factor reaches loses what its currency does, and counts as
    unaffected.
    """
    if len(own) > OWN_SCENARIOS_MAX:
        raise ValueError(f"own: expected at most {OWN_SCENARIOS_MAX} scenarios, got {len(own)}")
    every = (*scenarios, *own)
    check_scenarios(every)
    for underlying in set() if book.options is None else {one.symbol for one in book.options.underlyings}:
        for scenario in every:
            volatility_shock(underlying, scenario.shocks)
    factor_map = factor_map or FactorMap()
    found: dict[str, ScenarioLoss] = {}
    for factors, alike in _by_factors(every).items():
        reach = reach_of(book, factors, factor_map)
        shocks = np.array([[scenario.shocks[factor] for scenario in alike] for factor in factors])
        returns = reach.returns(book, shocks)
        losses = book.losses(returns)
        for path, scenario in enumerate(alike):
            found[scenario.name] = _scenario_loss(
                scenario.name, book, losses[:, path], returns[:, path], reach.names, reach.unevaluable
            )
    return tuple(found[scenario.name] for scenario in every)


def _by_factors(scenarios: Sequence[Scenario]) -> Mapping[tuple[str, ...], list[Scenario]]:
    """Scenarios that shock the same factors: what reaches whom is found once for all of them."""
    groups: dict[tuple[str, ...], list[Scenario]] = {}
    for scenario in scenarios:
        groups.setdefault(tuple(sorted(scenario.shocks)), []).append(scenario)
    return groups


def _scenario_loss(
    name: str,
    book: StressBook,
    losses: Floats,
    returns: Floats,
    factors: tuple[tuple[str, ...], ...],
    unevaluable: Mapping[int, str],
) -> ScenarioLoss:
    at_stake = book.at_stake
    unknown = np.isnan(returns) | ~np.isfinite(losses)
    left_out = book.left_out + tuple(
        book.leaves_out(row, unevaluable.get(row, REVALUATION_FAILED))
        for row in np.flatnonzero(unknown & at_stake).tolist()
    )
    counted = np.where(unknown, 0.0, losses)
    reached = np.fromiter((bool(names) for names in factors), np.bool_, len(factors))
    positions, unaffected = int(at_stake.sum()), int((at_stake & ~reached & ~unknown).sum())
    return ScenarioLoss(
        name=name,
        loss=math.fsum(counted.tolist()),
        book=book,
        position_losses=counted,
        returns=np.where(unknown, np.nan, returns),
        factors=factors,
        positions=positions,
        unaffected=unaffected,
        left_out=left_out,
        warnings=tuple(_coverage_warnings(name, positions, unaffected, left_out)),
    )


def _coverage_warnings(name: str, positions: int, unaffected: int, left_out: Sequence[LeftOut]) -> list[str]:
    warnings = []
    if unaffected > UNAFFECTED_SHARE_MAX * positions:
        warnings.append(f"{name}: {unaffected} of {positions} positions are unaffected: it says little of this book")
    return [*warnings, *left_out_warnings(name, left_out)]


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One point of an underlying's grid."""

    spot_shock: float
    """In the kind of the underlying's class: a return, a change of yield, a relative change of spread."""
    volatility_change: float
    """Absolute: 0.10 is ten points."""
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class GridLoss:
    """The loss of all rows of one underlying at each point of its grid."""

    underlying: str
    kind: FactorKind
    spot_shocks: tuple[float, ...]
    """Rising, 0 among them."""
    volatility_changes: tuple[float, ...]
    losses: Floats
    """(spot shocks, volatility changes), in base currency."""
    worst: GridPoint
    left_out: tuple[LeftOut, ...]


def spot_volatility_grid(
    book: StressBook,
    grid: Mapping[AssetClass, GridShocks] = GRID_SHOCKS,
    volatility_changes: Sequence[float] = VOLATILITY_SHOCKS,
) -> tuple[GridLoss, ...]:
    """The losses of each underlying's group, greatest worst point first. Other underlyings and rates stand still.

    The moves are none and those of the risk model's grid (factors.grid_returns, and build.refined where options are
    held); only options feel volatility. Raises ValueError on a grid that fits not every class, and on volatility
    changes that are not finite or repeated.
    """
    grid = _with_none(grid if book.linear.all() else refined(grid))
    changes = _checked_changes(volatility_changes)
    faults = unrevalued(book)
    rows = [row for row in np.flatnonzero(book.at_stake).tolist() if row not in faults]
    moved = _moved(book)
    spot = _spot_returns(book, rows, moved, grid)
    returns = np.repeat(spot, len(changes), axis=1)
    if book.options is not None and len(book.options.rows):
        returns[book.options.rows] = _revalued_grid(book.options, spot, changes)
    losses = book.losses(returns)
    faults |= {row: REVALUATION_FAILED for row in rows if not np.isfinite(losses[row]).all()}
    groups: dict[str, list[int]] = {}
    for row in np.flatnonzero(book.at_stake).tolist():
        groups.setdefault(_group_name(book.instruments[row]), []).append(row)
    found = []
    for name, members in groups.items():
        left_out = tuple(book.leaves_out(row, faults[row]) for row in members if row in faults)
        counted = [row for row in members if row not in faults]
        if counted:
            shocks = grid_row(moved[counted[0]], grid)[1]
            found.append(_grid_loss(name, losses[counted].sum(axis=0), shocks, changes, left_out))
    return tuple(sorted(found, key=lambda one: -one.worst.loss))


def _checked_changes(volatility_changes: Sequence[float]) -> tuple[float, ...]:
    changes = tuple(sorted(volatility_changes))
    if not changes or len(set(changes)) != len(changes) or not all(math.isfinite(change) for change in changes):
        raise ValueError(f"volatility_changes: expected finite numbers, each once, got {tuple(volatility_changes)}")
    return changes


def _moved(book: StressBook) -> list[Instrument]:
    """The instrument whose spot moves each row."""
    moved = [book.underlyings.get(one.underlying, one) for one in book.instruments]
    if book.options is not None:
        for row, underlying in zip(book.options.rows.tolist(), book.options.underlyings, strict=True):
            moved[row] = underlying
    return moved


def _group_name(instrument: Instrument) -> str:
    return instrument.underlying or instrument.symbol


def _spot_returns(
    book: StressBook, rows: Sequence[int], moved: Sequence[Instrument], grid: Mapping[AssetClass, GridShocks]
) -> Floats:
    """(n, spot shocks) returns of what moves each of `rows`; NaN in the others."""
    returns = np.full((len(book), check_grid(grid)), np.nan)
    known: dict[str, tuple[float, ...]] = {}
    for row in rows:
        underlying = moved[row]
        if underlying.symbol not in known:
            known[underlying.symbol] = grid_returns(underlying, grid, book.base_currency)
        returns[row] = known[underlying.symbol]
    return returns


def _with_none(grid: Mapping[AssetClass, GridShocks]) -> Mapping[AssetClass, GridShocks]:
    """`grid` with its shocks rising, and no move among them."""
    check_grid(grid)
    return {one: replace(row, shocks=tuple(sorted({*row.shocks, 0.0}))) for one, row in grid.items()}


def _revalued_grid(options: Options, spot: Floats, changes: tuple[float, ...]) -> Floats:
    """(m, spot shocks × changes), the changes of one spot shock side by side. Not at stake: as if nothing moved."""
    moves = np.repeat(np.nan_to_num(spot[options.rows]), len(changes), axis=1)
    volatilities = np.tile(np.array(changes), (len(options.rows), spot.shape[1]))
    return options.returns(moves, volatilities, np.zeros_like(moves))


def _grid_loss(
    name: str, losses: Floats, shocks: GridShocks, changes: tuple[float, ...], left_out: tuple[LeftOut, ...]
) -> GridLoss:
    table = losses.reshape(len(shocks.shocks), len(changes))
    at, change = divmod(int(table.argmax()), len(changes))
    return GridLoss(
        underlying=name,
        kind=shocks.kind,
        spot_shocks=shocks.shocks,
        volatility_changes=changes,
        losses=table,
        worst=GridPoint(shocks.shocks[at], changes[change], float(table[at, change])),
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The greatest loss of a report, and where it was found."""

    kind: str
    """"scenario", "grid" or "replay"."""
    name: str
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class StressReport:
    """Scenarios, grids and replays of one book."""

    scenarios: tuple[ScenarioLoss, ...]
    grid: tuple[GridLoss, ...]
    replays: tuple[Replay, ...]
    worst: WorstCase | None
    """Over all three, replays at their worst cumulative point; None where nothing could be evaluated."""
    warnings: tuple[str, ...]


def run_all(
    book: StressBook,
    prices: PriceHistory,
    scenarios: Sequence[Scenario] = SIX_SCENARIOS,
    own: Sequence[Scenario] = (),
    windows: Sequence[Window] = SHIPPED_WINDOWS,
    factor_map: FactorMap | None = None,
    grid: Mapping[AssetClass, GridShocks] = GRID_SHOCKS,
    volatility_changes: Sequence[float] = VOLATILITY_SHOCKS,
) -> StressReport:
    """All scenarios, the grid of each underlying and the replay of each window. Raises ValueError as they do."""
    losses = stress(book, scenarios, own, factor_map)
    grids = spot_volatility_grid(book, grid, volatility_changes)
    replays = tuple(replay(book, prices, window) for window in windows)
    warnings = [warning for loss in losses for warning in loss.warnings]
    warnings += [
        f"grid of {one.underlying}: counts no {row.symbol}: {row.reason}" for one in grids for row in one.left_out
    ]
    warnings += [warning for one in replays for warning in one.warnings]
    return StressReport(losses, grids, replays, worst_case(losses, grids, replays), tuple(dict.fromkeys(warnings)))


def worst_case(
    scenarios: Sequence[ScenarioLoss], grids: Sequence[GridLoss] = (), replays: Sequence[Replay] = ()
) -> WorstCase | None:
    """The greatest loss of them all, the first of equals; a gain where even the worst of them is one."""
    found = [WorstCase("scenario", one.name, one.loss) for one in scenarios if one.evaluated]
    found += [WorstCase("grid", one.underlying, one.worst.loss) for one in grids]
    found += [
        WorstCase("replay", one.window.name, -one.worst.cumulative_pnl) for one in replays if one.worst is not None
    ]
    return max(found, key=lambda one: one.loss, default=None)
