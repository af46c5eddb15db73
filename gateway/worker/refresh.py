"""Whole analyses beside the light report: each account in a process of the pool, one at a time, the newest book wins.

`offer` never waits: a book that comes while its account is being analysed takes the place of the one that waits. The
light report, its stamp and the other accounts' analyses go on whatever one of them takes. What is computed is
engine/risk/analysis.py's; a process is told a model, its instruments and its prices once, and forgets the oldest.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from engine.account import AccountState
from engine.decide import Terms
from engine.facts import Quote
from engine.instrument import InstrumentSet
from engine.report import AnalysisSummary, StressLoss
from engine.risk.analysis import Analysis, Bench, BenchSettings, Subject
from engine.risk.history import PriceHistory
from engine.risk.holdings import holdings_of
from engine.risk.model import RiskModel
from gateway.tasks import ended
from gateway.worker.pool import Pool, Unsolved

LOGGER = structlog.get_logger()

PAUSE_S = 1.0
"""Between two analyses of one account: a table for people, and limits are checked at order time in any case."""

PAUSE_AFTER_FAILURE_S = 10.0

BENCHES_MAX = 2
"""Models that a process remembers: today's, and the one that takes its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Kit:
    """What subjects of many accounts are analysed with."""

    model: RiskModel
    instruments: InstrumentSet
    prices: PriceHistory

    @property
    def key(self) -> "Key":
        """New prices make a new model, so that its hash stands for them too."""
        return self.model.hash, self.instruments.hash


Key = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """`kit` None: the process was told it before, under this key."""

    subject: Subject
    key: Key
    kit: Kit | None


class AnalysisSolver:
    """Runs in the pool's processes."""

    def __init__(self, settings: BenchSettings) -> None:
        self._settings = settings
        self._kits: OrderedDict[Key, Kit] = OrderedDict()
        self._benches: dict[Key, Bench] = {}

    def __call__(self, question: Question) -> Analysis:
        """Raises KeyError where it was never told what to analyse with, ValueError where nothing comes of that."""
        if question.kit is not None:
            self._kits.setdefault(question.key, question.kit)
        self._kits.move_to_end(question.key)
        while len(self._kits) > BENCHES_MAX:
            forgotten, _ = self._kits.popitem(last=False)
            self._benches.pop(forgotten, None)
        bench = self._benches.get(question.key)
        if bench is None:
            kit = self._kits[question.key]
            bench = self._benches[question.key] = Bench(kit.model, kit.instruments, kit.prices, self._settings)
        return bench.analyse(question.subject)


@dataclass(frozen=True, slots=True)
class MakeSolver:
    """Makes the solver, in each process."""

    settings: BenchSettings

    def __call__(self) -> AnalysisSolver:
        return AnalysisSolver(self.settings)


class Analyses:
    """See the module. `aclose` at the end; the pool is the caller's to end."""

    def __init__(
        self,
        pool: "Pool[Question, Analysis]",
        pause_s: float = PAUSE_S,
        pause_after_failure_s: float = PAUSE_AFTER_FAILURE_S,
    ) -> None:
        self._pool, self._pause_s, self._pause_after_failure_s = pool, pause_s, pause_after_failure_s
        self._waiting: dict[str, tuple[Subject, Kit]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._latest: dict[str, Analysis] = {}
        self._problems: dict[str, str] = {}
        self._told: dict[int, tuple[int, list[Key]]] = {}
        """By place of the pool: the generation of its process, and the keys of what it remembers, the newest last."""
        self._place: dict[str, int] = {}
        """By account, where it was analysed last."""

    def offer(
        self, state: AccountState, terms: Terms, quotes: Mapping[str, Quote], prices: PriceHistory, now_us: int
    ) -> None:
        """Have the account analysed as it is here, as soon as its turn comes. Without a risk model nothing is."""
        if terms.model is None:
            return
        kit = Kit(terms.model, terms.instruments, prices)
        self._waiting[state.account] = subject_of(state, terms, quotes, now_us), kit
        if state.account not in self._running:
            self._running[state.account] = asyncio.create_task(self._run(state.account))

    def latest(self, account: str) -> Analysis | None:
        return self._latest.get(account)

    def summary(self, account: str) -> AnalysisSummary | None:
        """The gist of the latest analysis; of one that never succeeded, why."""
        found, problem = self._latest.get(account), self._problems.get(account, "")
        if found is None:
            return AnalysisSummary(seq=0, time_us=0, model="", problem=problem) if problem else None
        return summary_of(found, problem)

    async def _run(self, account: str) -> None:
        """Until nothing waits for the account."""
        try:
            while (waiting := self._waiting.pop(account, None)) is not None:
                pause_s = self._pause_s
                try:
                    self._latest[account] = await self._pool.ask(account, partial(self._asked, *waiting))
                    self._problems.pop(account, None)
                except Unsolved as error:
                    LOGGER.warning("an account's risk could not be analysed", account=account, problem=str(error))
                    self._problems[account], pause_s = str(error), self._pause_after_failure_s
                    self._told.pop(
                        self._place.get(account, -1), None
                    )  # whether it took in what it was told is not known
                await asyncio.sleep(pause_s)
        finally:
            del self._running[account]

    def _asked(self, subject: Subject, kit: Kit, process: tuple[int, int]) -> Question:
        place, generation = process
        self._place[subject.holdings.account] = place
        known_generation, keys = self._told.get(place, (0, []))
        if known_generation != generation:
            keys = []
        is_known = kit.key in keys
        self._told[place] = generation, [*(key for key in keys if key != kit.key), kit.key][-BENCHES_MAX:]
        return Question(subject, kit.key, None if is_known else kit)

    async def aclose(self) -> None:
        await ended(self._running.values())


def summary_of(analysis: Analysis, problem: str = "") -> AnalysisSummary:
    """A figure that leaves a row out is none here: what it leaves out would not be beside it."""
    at_99 = [one for one in analysis.estimates if one.confidence == 0.99]
    worst, greeks = analysis.worst_scenario, analysis.greeks
    whole = [one for one in analysis.replays if not one.missing]
    replays = [StressLoss(one.name, -one.worst_pnl) for one in whole if one.worst_pnl is not None]
    delta, gamma, vega, theta = (None,) * 4 if greeks is None or greeks.left_out else greeks.net[1:5].tolist()
    return AnalysisSummary(
        seq=analysis.seq,
        time_us=analysis.time_us,
        model=analysis.model,
        var_99={one.method: one.var for one in at_99},
        es_99={one.method: one.es for one in at_99},
        worst_scenario=None if worst is None or worst.left_out else StressLoss(worst.name, worst.loss),
        reverse_multiplier=None if analysis.reverse is None else analysis.reverse.multiplier,
        worst_replay=max(replays, key=lambda one: one.loss, default=None),
        dollar_delta=delta,
        gamma_1pct=gamma,
        vega=vega,
        theta=theta,
        refused={one.figure: one.reason for one in analysis.refused},
        problem=problem,
    )


def subject_of(state: AccountState, terms: Terms, quotes: Mapping[str, Quote], now_us: int) -> Subject:
    """What is analysed of an account: its book at the marks of `state`. `quotes`: of the underlyings that it does not
    list."""
    marks = {symbol: quote.mark for symbol, quote in quotes.items()}
    marks |= {symbol: mark for symbol, mark in zip(state.slots, state.prices.mark.tolist(), strict=True) if mark > 0.0}
    rates = {currency: rate.rate for currency, rate in state.rates.items()}
    equity = state.equity()
    return Subject(
        holdings=holdings_of(state, terms.instruments, terms.model),
        time_us=now_us,
        equity=equity if math.isfinite(equity) else None,
        marks=marks,
        rates={**rates, state.base_currency: 1.0},
    )
