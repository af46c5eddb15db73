"""The analyst: answers questions about an account's risk from the worker's own view of it.

An account is read as of one verified moment on the event loop, and the figures are computed off it (in `executor`), so
that reports and open orders are never late for a question. A bounded number of questions waits. What is computed, and
what is refused, is said in engine/risk's *_answers.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TypeVar

import msgspec
import numpy as np
import structlog

from engine.account import NAMELESS, AccountState
from engine.facts import listings, observation, tracked_symbols
from engine.liquidation import PlanAnswer, PlanInquiry, ranked
from engine.pnl import profit_and_loss
from engine.report import RiskReport, decode_report
from engine.risk.budget_answers import BudgetAnswer, BudgetInquiry, budget_answer
from engine.risk.case import Assumptions, Case
from engine.risk.greeks_answers import GreeksAnswer, greeks_answer
from engine.risk.holdings import Holdings, holdings_of
from engine.risk.inquiry import (
    GreeksInquiry,
    ReplayInquiry,
    ReverseInquiry,
    Stamp,
    StressInquiry,
    Unanswerable,
    VarInquiry,
    Whose,
)
from engine.risk.level import LevelPolicy
from engine.risk.loss_answers import LOSS_MEASURES, LossAnswer, loss_status, session_losses
from engine.risk.portfolio_answers import BENCHMARK, portfolio_measures
from engine.risk.report_answers import ReportAnswer, heat_of, session_trends
from engine.risk.sizing_answers import SizeAnswer, SizeCase, SizeInquiry, size_answer, size_case
from engine.risk.stress_answers import (
    ReplayAnswer,
    ReverseAnswer,
    StressAnswer,
    replay_answer,
    reverse_answer,
    stress_answer,
)
from engine.risk.var_answers import Place, Ranking, VarAnswer, ultra_short_warnings, var_answer
from engine.risk.verdict import verdict_on
from engine.utilisation import limit_uses
from gateway.accounts import Accounts
from gateway.committer import Reading
from gateway.errors import DeadlinePassed, Overloaded
from gateway.worker.liquidator import plan_answer

LOGGER = structlog.get_logger()
WAITING_MAX = 32
"""Questions that are being answered or wait for it: each holds an account's vectors."""

T = TypeVar("T")


class Analyst:
    """See the module. `executor`: where figures are computed; it is the caller's to end."""

    def __init__(
        self,
        accounts: Accounts,
        executor: Executor,
        assumptions: Callable[[], Assumptions] = Assumptions,
        policy: LevelPolicy | None = None,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        """`assumptions`: asked anew for every question, since price files change."""
        self._accounts, self._executor, self._assumptions = accounts, executor, assumptions
        self._policy = policy or LevelPolicy()
        self._waiting, self._waiting_max = 0, waiting_max

    async def report(self, account: str, allowed_us: int) -> ReportAnswer:
        """The worker's latest report, judged. Raises Unanswerable where there is none yet."""
        accounts = self._accounts
        reading = await accounts.read(account, accounts.clock.now_us() + allowed_us)
        stored = await accounts.log.bulletin.report(account)
        if stored is None:
            raise Unanswerable(f"no report on {account} yet: the worker makes the first within seconds of its start")
        report, state = _decoded(stored), _valued(reading, accounts)
        pnl = profit_and_loss(state, reading.terms.instruments, reading.terms.control)
        trends = session_trends(state, report)
        verdict, policy = verdict_on(report, self._policy), self._policy
        ranking = _ranking(state, reading)
        index = accounts.quotes.get(BENCHMARK)

        def answer(case: Case) -> ReportAnswer:
            heat = heat_of(case, report, pnl, policy)
            told = ultra_short_warnings(case, ranking)
            warnings = tuple(dict.fromkeys((*case.stamp.warnings, *told, *report.warnings, *pnl.warnings)))
            stamp = replace(case.stamp, warnings=warnings)
            portfolio = portfolio_measures(case, state.sessions, state.session, pnl, index)
            return ReportAnswer(report, stamp, verdict, policy, pnl, trends, heat, portfolio)

        return await self._computed(Whose(account), allowed_us, answer)

    async def value_at_risk(self, inquiry: VarInquiry, allowed_us: int) -> VarAnswer:
        accounts, ranking = self._accounts, None
        if inquiry.ultra_short and self._assumptions().ultra_short_limits:
            reading = await accounts.read(inquiry.whose.account, accounts.clock.now_us() + allowed_us)
            ranking = _ranking(_valued(reading, accounts), reading)
        return await self._computed(inquiry.whose, allowed_us, lambda case: var_answer(case, inquiry, ranking))

    async def stress(self, inquiry: StressInquiry, allowed_us: int) -> StressAnswer:
        return await self._computed(inquiry.whose, allowed_us, lambda case: stress_answer(case, inquiry))

    async def reverse_stress(self, inquiry: ReverseInquiry, allowed_us: int) -> ReverseAnswer:
        return await self._computed(inquiry.whose, allowed_us, lambda case: reverse_answer(case, inquiry))

    async def replay(self, inquiry: ReplayInquiry, allowed_us: int) -> ReplayAnswer:
        return await self._computed(inquiry.whose, allowed_us, lambda case: replay_answer(case, inquiry))

    async def greeks(self, inquiry: GreeksInquiry, allowed_us: int) -> GreeksAnswer:
        return await self._computed(inquiry.whose, allowed_us, lambda case: greeks_answer(case, inquiry))

    async def size(self, inquiry: SizeInquiry, allowed_us: int) -> SizeAnswer:
        """The account is read here, on the loop: its headroom uses what is kept with its state. Some milliseconds."""
        accounts = self._accounts
        reading = await accounts.read(inquiry.account, accounts.clock.now_us() + allowed_us)
        found = _size_case_of(reading, accounts, inquiry, self._assumptions())
        return await self._computed(Whose(inquiry.account), allowed_us, lambda case: size_answer(found, inquiry))

    async def liquidation(self, inquiry: PlanInquiry, allowed_us: int) -> PlanAnswer:
        accounts = self._accounts
        reading = await accounts.read(inquiry.account, accounts.clock.now_us() + allowed_us)
        state = _valued(reading, accounts)
        return await self._computed(
            Whose(inquiry.account, open_orders=False),
            allowed_us,
            lambda case: plan_answer(state, reading.terms, case.stamp, inquiry, reading.now_us),
        )

    async def losses(self, account: str, sessions: int, allowed_us: int) -> LossAnswer:
        accounts = self._accounts
        reading = await accounts.read(account, accounts.clock.now_us() + allowed_us)
        state = _valued(reading, accounts)
        told, uses = session_losses(state, sessions), limit_uses(state, reading.terms, reading.now_us)
        uses = tuple(use for use in uses if use.measure in LOSS_MEASURES)
        return await self._computed(
            Whose(account, open_orders=False),
            allowed_us,
            lambda case: LossAnswer(case.stamp, loss_status(uses), uses, told),
        )

    async def budget(self, inquiry: BudgetInquiry, allowed_us: int) -> BudgetAnswer:
        accounts = self._accounts
        reading = await accounts.read(inquiry.account, accounts.clock.now_us() + allowed_us)
        state = _valued(reading, accounts)
        return await self._computed(
            Whose(inquiry.account),
            allowed_us,
            lambda case: budget_answer(state, reading.terms, case.stamp, inquiry, reading.now_us),
        )

    # --- how a question is answered ----------------------------------------------------------------------------------

    async def _computed(self, whose: Whose, allowed_us: int, answer: Callable[[Case], T]) -> T:
        """`answer` on the account's case, off the event loop. What has begun is not broken off: it ends unheard."""
        if self._waiting >= self._waiting_max:
            raise Overloaded(f"{self._waiting} questions are waiting for the worker already; ask again in a moment")
        self._waiting += 1
        try:
            until_us = self._accounts.clock.now_us() + allowed_us
            case = await self._case(whose, allowed_us)
            left_s = max(0, until_us - self._accounts.clock.now_us()) / 1e6
            computing = asyncio.get_running_loop().run_in_executor(self._executor, answer, case)
            return await asyncio.wait_for(computing, left_s)
        except TimeoutError:
            raise DeadlinePassed("not computed by the deadline; ask again with a longer one") from None
        except ValueError as error:  # what the computing modules raise on an input that they can't use, by its name
            LOGGER.warning("a question can't be answered", account=whose.account, problem=str(error))
            raise Unanswerable(str(error)) from error
        finally:
            self._waiting -= 1

    async def _case(self, whose: Whose, allowed_us: int) -> Case:
        accounts = self._accounts
        reading = await accounts.read(whose.account, accounts.clock.now_us() + allowed_us)
        return _case_of(reading, accounts, whose, self._assumptions())


def _case_of(reading: Reading, accounts: Accounts, whose: Whose, assumptions: Assumptions) -> Case:
    """The account at the newest marks, as vectors: nothing of it changes any more."""
    state, terms = _valued(reading, accounts), reading.terms
    model, equity, oldest_us = terms.model, state.equity(), state.oldest_price_us()
    holdings = holdings_of(state, terms.instruments, model)
    has_closes = model is not None and model.n_days > 0
    stamp = Stamp(
        account=state.account,
        strategy=whose.strategy,
        seq=reading.head.seq,
        time_us=reading.now_us,
        base_currency=state.base_currency,
        equity=equity if math.isfinite(equity) else None,
        model="" if model is None else model.hash,
        model_session="" if model is None else model.session_date.isoformat(),
        model_built_us=0 if model is None else model.built_time_us,
        last_price_date=model.last_price_date.isoformat() if model is not None and has_closes else "",
        marks_oldest_us=int(oldest_us) if math.isfinite(oldest_us) else 0,
        open_orders=whose.open_orders,
    )
    session_pnl = state.session_pnl()
    return Case(
        stamp=stamp,
        account=holdings,
        strategies=tuple(sorted("" if key == NAMELESS else key for key in state.books)),
        model=model,
        instruments=terms.instruments,
        assumptions=assumptions,
        quantities=np.array(
            [
                lots * state.listed[symbol].lot_size
                for symbol, lots in zip(holdings.symbols, holdings.lots.tolist(), strict=True)
            ],
            dtype=np.float64,
        ),
        marks=_marks(state, accounts, holdings),
        rates=_rates(state),
        session_pnl=session_pnl if math.isfinite(session_pnl) else None,
    )


def _ranking(state: AccountState, reading: Reading) -> Ranking:
    """As a liquidation takes them; what came to be held since `state`, a fork, was read comes last."""
    terms, now_us = reading.terms, reading.now_us

    def rank(places: Iterable[Place]) -> list[Place]:
        asked = list(places)
        known = [place for place in asked if place in state.holdings]
        first = ranked(state, terms.instruments, terms.model, terms.limits.policy, known, now_us)
        return [*first, *(place for place in asked if place not in state.holdings)]

    return rank


def _size_case_of(reading: Reading, accounts: Accounts, inquiry: SizeInquiry, assumptions: Assumptions) -> SizeCase:
    """At the newest marks, the symbol listed, as an order in it would find the account."""
    whose = Whose(inquiry.account, inquiry.strategy)
    stamp = _case_of(reading, accounts, whose, assumptions).stamp
    state = _valued(reading, accounts, inquiry.symbol)
    return size_case(state, reading.terms, inquiry, stamp, reading.now_us)


def _valued(reading: Reading, accounts: Accounts, symbol: str = "") -> AccountState:
    """At the marks as last heard, which need not be in the log yet; with `symbol` listed, if it is registered."""
    state, terms, epoch = reading.state.fork(), reading.terms, reading.terms.control.epoch
    instrument = terms.instruments.get(symbol)
    for record in listings(state, terms.instruments, instrument, reading.now_us, epoch) if instrument else ():
        state.apply(record)
    listed = (name for name in (symbol, instrument.underlying if instrument else "") if name in state.slots)
    tracked = dict.fromkeys((*tracked_symbols(state), *listed))
    valued = observation(state, accounts.quotes, tracked, reading.now_us, epoch)
    if valued is not None:
        state.apply(valued)
    return state


def _marks(state: AccountState, accounts: Accounts, holdings: Holdings) -> dict[str, float]:
    """As in the log; of underlyings that the account has nothing in, as last heard."""
    marks = {symbol: float(state.prices.mark[slot]) for symbol, slot in state.slots.items()}
    for underlying in holdings.underlyings:
        if not marks.get(underlying) and underlying in accounts.quotes:
            marks[underlying] = accounts.quotes[underlying].mark
    return {symbol: mark for symbol, mark in marks.items() if mark > 0.0}


def _rates(state: AccountState) -> dict[str, float]:
    known = {state.base_currency: 1.0, **{currency: rate.rate for currency, rate in state.rates.items()}}
    for symbol, slot in state.slots.items():
        if state.prices.fx[slot] > 0.0:
            known[state.listed[symbol].currency] = float(state.prices.fx[slot])
    return known


def _decoded(stored: bytes) -> RiskReport:
    try:
        return decode_report(stored)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Unanswerable(
            "another release wrote the last report; the worker makes a new one within seconds"
        ) from error
