"""Answers on scenarios and windows: stress losses, how far a scenario must go, the book through a stretch of history.

Put together from stress.py, reverse_stress.py and replay.py, which say what they leave out; here names become scenarios
and windows, and what was left out becomes a warning of the answer. Slow to import, so only the worker may (sklearn).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.instrument import AssetClass
from engine.risk.case import Case
from engine.risk.holdings import Missing
from engine.risk.inquiry import (
    InquiryError,
    ReplayInquiry,
    ReverseInquiry,
    Stamp,
    StressInquiry,
    Unanswerable,
    Whose,
)
from engine.risk.replay import SHIPPED_WINDOWS, Replay, Window, days_window, replay
from engine.risk.reverse_stress import JointShock, ReverseStress, most_likely_shock, reverse_stress, target_loss
from engine.risk.scenarios import Scenario
from engine.risk.shrinkage import shrunk_covariance
from engine.risk.stress import GridLoss, ScenarioLoss, WorstCase, run_all, stress, worst_case
from engine.risk.stress_book import StressBook, book_of_holdings

OWN_WINDOW = "own"


@dataclass(frozen=True, slots=True, eq=False)
class StressAnswer:
    """Losses by scenario, in the order asked for; grids and replays where everything was asked for."""

    stamp: Stamp
    losses: tuple[ScenarioLoss, ...]
    worst: WorstCase | None
    grids: tuple[GridLoss, ...] = ()
    replays: tuple[Replay, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ReplayAnswer:
    """A book through one window."""

    stamp: Stamp
    replay: Replay
    book: StressBook


def stress_answer(case: Case, inquiry: StressInquiry) -> StressAnswer:
    """Raises InquiryError on unknown scenarios or strategies and on names given twice."""
    book = stress_book(case, inquiry.whose)
    names = scenarios_named(case, inquiry.names, "scenarios")
    asked = names if inquiry.names or inquiry.customs else case.assumptions.scenarios
    _check_names(asked, inquiry.customs)
    factor_map = case.assumptions.factor_map
    if not inquiry.run_all:
        losses = stress(book, asked, inquiry.customs, factor_map)
        stamp = stress_stamp(case, inquiry.whose, book, [w for one in losses for w in one.warnings])
        return StressAnswer(replace(stamp, unaffected=_unaffected(losses)), losses, worst_case(losses))
    if case.assumptions.prices is None:
        raise Unanswerable("no price history to replay windows of: give the worker one")
    report = run_all(book, case.assumptions.prices, asked, inquiry.customs, factor_map=factor_map)
    stamp = stress_stamp(case, inquiry.whose, book, report.warnings)
    stamp = replace(stamp, unaffected=_unaffected(report.scenarios))
    return StressAnswer(stamp, report.scenarios, report.worst, report.grid, report.replays)


def replay_answer(case: Case, inquiry: ReplayInquiry) -> ReplayAnswer:
    """Raises InquiryError on an unknown window or strategy, Unanswerable without prices."""
    prices = case.assumptions.prices
    if prices is None:
        raise Unanswerable("no price history to replay: give the worker one")
    window = _window(inquiry.window) if inquiry.dates is None else days_window(OWN_WINDOW, *inquiry.dates, prices)
    book = stress_book(case, replace(inquiry.whose, open_orders=False))
    found = replay(book, prices, window)
    return ReplayAnswer(stress_stamp(case, inquiry.whose, book, found.warnings), found, book)


def stress_book(case: Case, whose: Whose) -> StressBook:
    """The rows asked about, options at the marks of their underlyings. What can't be valued is in `left_out`."""
    book = book_of_holdings(case.holdings(whose), case.instruments, case.model, case.marks)
    return book if whose.open_orders else book.without_orders()


def scenarios_named(case: Case, names: Sequence[str], field: str) -> tuple[Scenario, ...]:
    """The model's scenarios with these names, in that order. Raises InquiryError."""
    known = {scenario.name: scenario for scenario in case.assumptions.scenarios}
    for index, name in enumerate(names):
        if name not in known:
            place = field if field == "scenario" else f"{field}[{index}]"
            raise InquiryError(place, f"no scenario {name!r}; known: {', '.join(known)}")
    return tuple(known[name] for name in names)


def stress_stamp(case: Case, whose: Whose, book: StressBook, warnings: Sequence[str]) -> Stamp:
    """With what the book leaves out, what of the account is no row, and the warnings of the answer."""
    left_out = (f"{row.symbol} is not counted: {row.reason}" for row in book.left_out)
    notes = case.notes(case.holdings(whose), Missing.CASH)
    return replace(case.stamp, warnings=tuple(dict.fromkeys((*case.stamp.warnings, *left_out, *notes, *warnings))))


def _check_names(asked: Sequence[Scenario], customs: Sequence[Scenario]) -> None:
    taken = {scenario.name for scenario in asked}
    if len(taken) != len(asked):
        raise InquiryError("scenarios", "expected each name once")
    for index, custom in enumerate(customs):
        if custom.name in taken:
            raise InquiryError(f"custom_scenarios[{index}].name", f"{custom.name!r} is taken; choose another")
        taken.add(custom.name)


def _unaffected(losses: Sequence[ScenarioLoss]) -> tuple[str, ...]:
    """Rows at stake that no factor of any of the scenarios reaches, as strategy/symbol."""
    if not losses:
        return ()
    book = losses[0].book
    return tuple(
        f"{book.strategies[row]}/{book.instruments[row].symbol}"
        for row in book.at_stake.nonzero()[0].tolist()
        if not any(one.factors[row] for one in losses)
    )


def _window(name: str) -> Window:
    for window in SHIPPED_WINDOWS:
        if window.name == name:
            return window
    raise InquiryError("window", f"no window {name!r}; known: {', '.join(one.name for one in SHIPPED_WINDOWS)}")


@dataclass(frozen=True, slots=True, eq=False)
class ReverseAnswer:
    """How far one scenario has to be scaled, and the likeliest joint shock of all; None where it can't be had, the
    stamp's warnings say why."""

    stamp: Stamp
    found: ReverseStress
    likeliest: JointShock | None


def reverse_answer(case: Case, inquiry: ReverseInquiry) -> ReverseAnswer:
    """Raises InquiryError on an unknown scenario or strategy, Unanswerable where a share of equity is asked for and
    equity is not positive, or where there is no scenario to scale."""
    book, factor_map = stress_book(case, inquiry.whose), case.assumptions.factor_map
    target, scenario = _target(case, inquiry), _scenario(case, inquiry, book)
    found = reverse_stress(book, scenario, target, (inquiry.multiplier_min, inquiry.multiplier_max), factor_map)
    warnings = list(found.warnings)
    likeliest: JointShock | None = None
    try:
        likeliest = _likeliest(case, inquiry.whose, target)
        warnings += likeliest.warnings
    except (Unanswerable, ValueError) as missing:
        warnings.append(f"no most likely shock: {missing}")
    return ReverseAnswer(stress_stamp(case, inquiry.whose, book, warnings), found, likeliest)


def _target(case: Case, inquiry: ReverseInquiry) -> float:
    if inquiry.loss is not None:
        return inquiry.loss
    equity = case.stamp.equity_positive
    if equity is None:
        raise Unanswerable("equity is not positive or can't be computed: ask for a loss in money")
    return target_loss(equity, inquiry.loss_ratio)


def _scenario(case: Case, inquiry: ReverseInquiry, book: StressBook) -> Scenario:
    if isinstance(inquiry.scenario, Scenario):
        return inquiry.scenario
    if inquiry.scenario is not None:
        return scenarios_named(case, (inquiry.scenario,), "scenario")[0]
    known = case.assumptions.scenarios
    if not known:
        raise Unanswerable("no scenario is configured: ask for one of your own")
    losses = stress(book, known, factor_map=case.assumptions.factor_map)
    return max(zip(losses, known, strict=True), key=lambda pair: pair[0].loss)[1]


def _likeliest(case: Case, whose: Whose, target: float) -> JointShock:
    """Of the positions, open orders not counted: which of them fill is no move of a market. Raises Unanswerable,
    ValueError."""
    if any(asset_class == AssetClass.OPTION for asset_class in case.holdings(whose).asset_classes):
        raise Unanswerable("options are held, whose loss is not linear in a move")
    holdings, model = case.over_days(whose)
    held = holdings.by_symbol()
    held = held.taken(held.held != 0.0)
    if not len(held):
        raise Unanswerable("nothing is held")
    covariance, _ = shrunk_covariance(held.day_returns(model))
    return most_likely_shock(held.symbols, held.held, covariance, target)
