"""How long the worker's whole analysis of an account takes: three VaR methods at two confidences with 10,000 paths,
decomposition, stress, grid, reverse stress, replay of five windows and Greeks, over 50, 500 and 5,000 instruments.

Full: the first book of a new model, nothing kept. After a mark, after a fill: one row changed; all marks: every row.
Small by default, so that it cannot rot; BENCH=full measures 5,000 too and repeats more. It prints CPU and wall time on
one core (run with OMP_NUM_THREADS=1, as the service does) and asserts only what must be true of the numbers.
"""

import datetime
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from engine.account import AccountState
from engine.instrument import InstrumentSet
from engine.risk.analysis import Analysis, Bench, Subject
from engine.risk.build import build_model
from engine.risk.history import PriceHistory
from engine.risk.holdings import holdings_of
from engine.risk.model import RiskModel
from tests.engine.builders import NOW_US, SESSION, account, reserve, stock, universe, valued

IS_FULL = os.environ.get("BENCH") == "full"
SIZES = (50, 500, 5_000) if IS_FULL else (50, 500)
REPEATS = 50 if IS_FULL else 5


class Desk:
    """An account that holds every instrument, with open orders in one of 25, and 16 years of closes."""

    def __init__(self, n: int) -> None:
        random = np.random.default_rng(7)
        self.symbols = tuple(f"S{at:04}" for at in range(n))
        self.instruments: InstrumentSet = universe(
            *(stock(s, sector=f"sector {at % 10}") for at, s in enumerate(self.symbols))
        )
        days = [day for at in range(5_930) if (day := SESSION - datetime.timedelta(5_930 - at)).weekday() < 5]
        moves = random.standard_t(4, (len(days), n + 1)) * 0.007
        moves[:, :-1] += moves[:, [-1]]
        levels = 100.0 * np.exp(np.cumsum(moves, axis=0))
        self.prices = PriceHistory(tuple(days), self.symbols, levels[:, :-1], {"SP500": levels[:, -1]})
        self.model: RiskModel = build_model(
            self.instruments.instruments, self.instruments.hash, self.prices, SESSION, NOW_US
        )
        lots = {(f"strategy {at % 4}", s): int(random.integers(-300, 500)) or 1 for at, s in enumerate(self.symbols)}
        self.state: AccountState = account(
            self.instruments, dict.fromkeys(self.symbols, 100.0), cash=1e6, strategies=lots
        )
        for at in range(0, n, 25):
            reserve(self.state, f"o{at}", self.symbols[at], 10, strategy=f"strategy {at % 4}")
        self.marked = 0

    def subject(self) -> Subject:
        marks = dict(zip(self.state.slots, self.state.prices.mark.tolist(), strict=True))
        holdings = holdings_of(self.state, self.instruments, self.model)
        return Subject(holdings, NOW_US, self.state.equity(), marks, {"USD": 1.0})

    def first(self) -> Analysis:
        """On a bench that has kept nothing."""
        self.bench = Bench(self.model, self.instruments, self.prices)
        return self.again()

    def again(self) -> Analysis:
        return self.bench.analyse(self.subject())

    def mark(self) -> None:
        self.marked += 1
        symbol = self.symbols[self.marked % len(self.symbols)]
        self.state.apply(valued({symbol: 100.0 + self.marked / 100}))

    def order(self) -> None:
        self.marked += 1
        at = self.marked % len(self.symbols)
        reserve(self.state, f"more {self.marked}", self.symbols[at], 5, strategy=f"strategy {at % 4}")

    def mark_all(self) -> None:
        self.marked += 1
        self.state.apply(valued(dict.fromkeys(self.symbols, 100.0 + self.marked / 100)))


class Times(NamedTuple):
    """In milliseconds."""

    cpu_least: float
    cpu_median: float
    wall_median: float

    def __str__(self) -> str:
        return f"{self.cpu_median:8.1f} ms of CPU (least {self.cpu_least:.1f}, wall {self.wall_median:.1f})"


def timed(repeats: int, prepare: Callable[[], None], act: Callable[[], Analysis]) -> tuple[Times, Analysis]:
    taken: list[tuple[float, float]] = []
    for _ in range(repeats):
        prepare()
        cpu, wall = time.process_time(), time.perf_counter()
        found = act()
        taken.append(((time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3))
    cpus, walls = zip(*taken, strict=True)
    return Times(min(cpus), float(np.median(cpus)), float(np.median(walls))), found


def figures(found: Analysis) -> list[float]:
    return [*(one.var for one in found.estimates), *(one.loss for one in found.scenarios)]


def test_the_whole_analysis_and_its_refresh(capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for n in SIZES:
        desk = Desk(n)
        repeats = REPEATS if n < 5_000 else 3
        full, first = timed(1 if n >= 5_000 else 3, lambda: None, desk.first)
        desk.first()
        lines.append(f"{n:5} instruments, full        {full}")
        for name, change in (("a mark", desk.mark), ("an order", desk.order), ("all marks", desk.mark_all)):
            took, found = timed(repeats, change, desk.again)
            lines.append(f"{n:5} instruments, {name:9}   {took}")
        assert first.refused == found.refused == ()
        assert [one.method for one in found.estimates] == ["historical"] * 2 + ["parametric"] * 2 + ["monte_carlo"] * 2
        fresh = desk.first() if n < 5_000 else found
        assert figures(found) == pytest.approx(figures(fresh), rel=1e-9)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
