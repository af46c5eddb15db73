"""How long a decision takes: 20 armed limits, VaR and ES at 95 and 99 % over 756 days, six scenarios, a universe of
500 instruments, 50 positions, and every mark changed before each decision.

Small by default, so that it cannot rot; BENCH=full measures longer. It prints times and asserts only what must be true
of the numbers on any machine: no time is asserted. OMP_NUM_THREADS=1 is what a gateway runs with. "The arithmetic
alone" is what numpy can't be spared: the rest is the price of reading, judging and recording twenty limits.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import pytest

from engine.account import AccountState, Floats
from engine.decide import Terms, decide
from engine.limits import Limit, LimitSet
from engine.order import Order
from engine.records import Quoted, Valued
from engine.risk.model import RiskModel
from engine.view import columns_of
from tests.engine.builders import NOW_US, account, limits, model, order, quoted, row, stock, terms, universe, valued

REPEATS = 5_000 if os.environ.get("BENCH") == "full" else 200
SYMBOLS = tuple(f"S{at:03}" for at in range(500))
HELD = SYMBOLS[::10]
SECTORS = ("Tech", "Energy", "Health", "Banks", "Retail")

ROWS: tuple[Limit, ...] = (
    row("mark_age", 60.0),
    row("mark_spread", 0.05, "symbol"),
    row("mark_move", 0.5, "symbol"),
    row("order_rate", 100_000),
    row("order_rate", 100_000, "strategy"),
    row("order_quantity", 1e6, "symbol"),
    row("order_value", 1e8),
    row("position", 1e6, "symbol"),
    row("position", 1e6, "strategy"),
    row("gross_exposure", 1e9),
    row("gross_exposure", 1e9, "sector"),
    row("gross_exposure", 1e9, "strategy"),
    row("concentration", 0.9, warn=0.8),
    row("leverage", 4.0, warn=3.5),
    row("var_95", 0.9, warn=0.8, action="reduce"),
    row("var_99", 0.9, action="reduce"),
    row("es_95", 0.9, action="reduce"),
    row("es_99", 0.9),
    row("stress_loss", 0.9, warn=0.8),
    row("stress_loss", 0.9, "sector"),
)


def two_sided(marks: dict[str, float]) -> dict[str, Quoted]:
    return {symbol: quoted(mark, mark * 0.999, mark * 1.001) for symbol, mark in marks.items()}


class Desk:
    """The account, its terms, and an order and a valuation for each repeat."""

    def __init__(self, rows: tuple[Limit, ...]) -> None:
        random = np.random.default_rng(7)
        instruments = universe(*(stock(s, sector=SECTORS[at % 5]) for at, s in enumerate(SYMBOLS)))
        listed = universe(*(instruments.instruments[s] for s in HELD))
        columns = random.standard_t(4, (len(SYMBOLS), 756)) * 0.01
        shocks = {
            name: dict(zip(SYMBOLS, random.uniform(-0.3, 0.1, len(SYMBOLS)).tolist(), strict=True))
            for name in ("2008", "2013", "2020", "2022", "rates", "oil")
        }
        risk = model(dict(zip(SYMBOLS, columns.tolist(), strict=True)), shocks, grid=(-0.2, -0.1, 0.1, 0.2))
        positions = dict(zip(HELD, random.integers(-500, 500, len(HELD)).tolist(), strict=True))
        self.marks = dict(zip(HELD, random.uniform(20, 200, len(HELD)).tolist(), strict=True))
        self.armed: LimitSet = limits(*rows)
        self.terms: Terms = terms(instruments, self.armed, risk)
        self.state: AccountState = account(
            listed,
            two_sided(self.marks),
            cash=10_000_000.0,
            strategies={("rl", s): lots for s, lots in positions.items()},
        )
        self.random = random

    def order(self, at: int) -> Order:
        """As the committer hands it over: it has compared the order's digest with those of earlier ids."""
        symbol = HELD[at % len(HELD)]
        asked = order(symbol, quantity=10.0, client_order_id=f"o{at}", strategy="rl", limit_price=100.0)
        assert asked.digest
        return asked

    def moved(self) -> Valued:
        """A new mark for everything."""
        moves = 1.0 + self.random.normal(0.0, 0.001, len(self.marks))
        moved = {s: mark * move for (s, mark), move in zip(self.marks.items(), moves.tolist(), strict=True)}
        return valued(two_sided(moved))

    def arithmetic(self) -> Callable[[int], object]:
        """The numpy calls that VaR, ES, stress, exposure and the age of the marks can't do without, and nothing else:
        the book's losses, their tail without and with an order, the worst scenario and grid point, three sums."""
        columns = columns_of(self.state, cast(RiskModel, self.terms.model))
        ends, prices, days = self.state.book.ends(), self.state.prices, columns.days
        lots, grid, places = -ends.low, columns.grid.max(axis=1), np.array([days - 38, days - 8])

        def tail(losses: Floats) -> float:
            losses.partition(places)
            return float(sum(losses[days - 38 :].tolist()))

        def compute(at: int) -> object:
            values = self.state.unit_values()
            losses = (lots * values).dot(columns.returns)
            after = columns.falls[at % len(lots)] * -100.0 + losses
            tails = tail(losses[:days].copy()), tail(after[:days])
            sector = (lots * values).dot(columns.stress)
            grids = [np.maximum.reduce(grid * values) for _ in range(2)]
            gross = [ends.largest.dot(values).item() for _ in range(3)]
            oldest = np.minimum.reduce(np.minimum(prices.time_us, prices.fx_time_us))
            return tails, max(losses[days:].tolist()), max(after[days:].tolist()), sector, grids, gross, oldest

        return compute


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(ROWS)


class Times(NamedTuple):
    """Of many repeats, in microseconds."""

    least: float
    tenth: float
    """Percentile: what a quiet machine does."""
    median: float

    def __str__(self) -> str:
        return f"{self.median:6.1f} (10th percentile {self.tenth:.1f}, least {self.least:.1f})"


def timed(repeats: int, prepare: Callable[[int], object], act: Callable[[int], object]) -> Times:
    taken = []
    for at in range(repeats):
        prepare(at)
        start = time.perf_counter_ns()
        act(at)
        taken.append(time.perf_counter_ns() - start)
    return Times(*(np.percentile(taken, (0, 10, 50)) / 1000.0).tolist())


def test_a_decision_with_every_mark_changed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    state, under = desk.state, desk.terms
    asked = [desk.order(at) for at in range(REPEATS)]
    moves = [desk.moved() for _ in range(REPEATS)]
    first = decide(state, under, asked[0], NOW_US)
    assert len(first.checks) == len(ROWS) == 20
    assert first.action.allows

    def revalue(at: int) -> None:
        state.apply(moves[at])

    def decide_one(at: int) -> None:
        decide(state, under, asked[at], NOW_US)

    def value_and_decide(at: int) -> None:
        state.apply(moves[at])
        decide(state, under, asked[at], NOW_US)

    trials: list[AccountState] = []

    def approve_another(at: int) -> None:
        state.apply(moves[at])
        trials[:] = [state.fork()]
        trials[0].apply(decide(state, under, desk.order(at + 1), NOW_US))

    measured = {
        "decide, 20 limits, all marks new": timed(REPEATS, revalue, decide_one),
        "of which the arithmetic alone": timed(REPEATS, revalue, desk.arithmetic()),
        "decide, the same marks": timed(REPEATS, lambda at: None, decide_one),
        "decide after an approval": timed(
            REPEATS, approve_another, lambda at: decide(trials[0], under, asked[at], NOW_US)
        ),
        "fold of Valued, then decide": timed(REPEATS, lambda at: None, value_and_decide),
        "fork": timed(REPEATS, lambda at: None, lambda at: state.fork()),
    }
    with capsys.disabled():
        lines = [f"  {name:<34}{times}" for name, times in measured.items()]
        print(f"\nµs, median of {REPEATS}:", *lines, sep="\n")
    assert min(times.least for times in measured.values()) > 0


def test_each_limit_by_itself(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for limit in ROWS:
        under = terms(desk.terms.instruments, limits(limit), desk.terms.model)
        taken = timed(
            max(20, REPEATS // 20),
            lambda at: desk.state.apply(desk.moved()),
            lambda at, under=under: decide(desk.state, under, desk.order(at), NOW_US),  # type: ignore[misc]
        )
        lines.append(f"{limit.measure}/{limit.scope.value} {taken.tenth:.0f}")
    with capsys.disabled():
        print(
            "\ndecide with one limit and the three that must be, all marks new, 10th percentile in µs: "
            + ", ".join(lines)
        )
    assert len(lines) == len(ROWS)
