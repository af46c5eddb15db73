"""How long a decision takes: 20 armed limits, VaR and ES at 95 and 99 % over 756 days, six scenarios, a universe of
500 instruments, 50 positions, and every mark changed before each decision.

Small by default, so that it cannot rot; BENCH=full measures longer. It prints medians and asserts only what must be
true of the numbers on any machine: no time is asserted. OMP_NUM_THREADS=1 is what a gateway runs with.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from engine.account import AccountState
from engine.decide import Terms, decide
from engine.limits import Limit, LimitSet
from engine.order import Order
from engine.records import Valued
from tests.engine.builders import NOW_US, account, limits, model, order, row, stock, terms, universe, valued

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
            listed, self.marks, cash=10_000_000.0, strategies={("rl", s): lots for s, lots in positions.items()}
        )
        self.random = random

    def order(self, at: int) -> Order:
        symbol = HELD[at % len(HELD)]
        return order(symbol, quantity=10.0, client_order_id=f"o{at}", strategy="rl", limit_price=100.0)

    def moved(self) -> Valued:
        """A new mark for everything."""
        moves = 1.0 + self.random.normal(0.0, 0.001, len(self.marks))
        return valued({s: mark * move for (s, mark), move in zip(self.marks.items(), moves.tolist(), strict=True)})


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(ROWS)


def median_us(repeats: int, prepare: Callable[[int], object], act: Callable[[int], object]) -> float:
    taken = []
    for at in range(repeats):
        prepare(at)
        start = time.perf_counter_ns()
        act(at)
        taken.append(time.perf_counter_ns() - start)
    return float(np.median(taken)) / 1000.0


def test_a_decision_with_every_mark_changed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    state, under = desk.state, desk.terms
    asked = [desk.order(at) for at in range(REPEATS)]
    moves = [desk.moved() for _ in range(REPEATS)]
    first = decide(state, under, asked[0], NOW_US)
    assert len(first.checks) == len(ROWS) == 20
    assert first.action.allows

    outside = median_us(REPEATS, lambda at: state.apply(moves[at]), lambda at: decide(state, under, asked[at], NOW_US))

    def value_and_decide(at: int) -> None:
        state.apply(moves[at])
        decide(state, under, asked[at], NOW_US)

    inside = median_us(REPEATS, lambda at: None, value_and_decide)
    forked = median_us(REPEATS, lambda at: None, lambda at: state.fork())
    warm = median_us(REPEATS, lambda at: None, lambda at: decide(state, under, asked[at], NOW_US))
    with capsys.disabled():
        print(
            f"\ndecide, 20 limits, all marks new: {outside:.0f} µs; with the fold of Valued: {inside:.0f} µs; "
            f"same marks: {warm:.0f} µs; fork: {forked:.0f} µs (median of {REPEATS})"
        )
    assert min(outside, inside, forked, warm) > 0


def test_each_limit_by_itself(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for limit in ROWS:
        under = terms(desk.terms.instruments, limits(limit), desk.terms.model)
        taken = median_us(
            max(20, REPEATS // 20),
            lambda at: desk.state.apply(desk.moved()),
            lambda at, under=under: decide(desk.state, under, desk.order(at), NOW_US),  # type: ignore[misc]
        )
        lines.append(f"{limit.measure}/{limit.scope.value} {taken:.0f}")
    with capsys.disabled():
        print("\ndecide with one limit and the three that must be, all marks new, µs: " + ", ".join(lines))
    assert len(lines) == len(ROWS)
