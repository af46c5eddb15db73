"""The background worker: builds the risk model for each session, refreshes each account's report, rolls sessions, and
has open orders judged again (gateway/worker/instructor.py).

It follows every account like a gateway does and appends like one (Valued when a high-water mark or a limit's status
moves without an order; SessionOpened where sessions roll by the clock). Nothing waits for it: when it is away the
reports and the model grow old, visibly, and armed risk limits refuse what is not a true reduction.
"""

import asyncio
import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec
import structlog

from engine.account import AccountState, book_key
from engine.decide import Terms
from engine.facts import FactError, Quote, observation, session_opened, tracked_symbols
from engine.grades import graded
from engine.instrument import InstrumentSet
from engine.limits import ScopeKind
from engine.records import AnyRecord, Decided, PoisonRecord
from engine.report import AnalysisSummary, decode_report, encode_report, risk_report
from engine.risk.backtest import BASEL_RULE, TighteningRule
from engine.risk.closes import Carried
from engine.risk.history import PriceHistory
from engine.risk.model import RiskModel
from engine.risk.model import encode as encode_model
from engine.utilisation import LimitUse, UseKey, UseStatus, limit_uses
from engine.view import issuer_of
from gateway.accounts import Accounts
from gateway.clock import StoreClock
from gateway.committer import Build, Committer
from gateway.errors import DeadlinePassed, Overloaded, StoreError, StoreRefused, UnknownAccount
from gateway.log.account_log import AccountLog, partition_of
from gateway.market.daily import DailyHistory
from gateway.tasks import ended
from gateway.worker.enforcer import Enforcer
from gateway.worker.event_monitor import EventMonitor
from gateway.worker.instructor import JUDGE_S, Instructor
from gateway.worker.model_builder import ModelBuilder
from gateway.worker.regime_monitor import RegimeMonitor
from gateway.worker.validator import Validator

LOGGER = structlog.get_logger()
APPEND_DEADLINE_US = 2_000_000

RETRY_S = 0.1

UNUSABLE = (ValueError, KeyError, ArithmeticError, msgspec.MsgspecError)
"""What numbers, names and bytes that nobody foresaw raise where they are computed with or decoded."""

OF_ONE_ACCOUNT = (*UNUSABLE, StoreError, DeadlinePassed, FactError, Overloaded, PoisonRecord, UnknownAccount)
"""Trouble that may be one account's alone: it is logged, and the others go on."""

CONFLATE_S = 0.05
"""Changes of one account within this time become one refresh: a report costs more than the order that caused it, and
the worker must not take a core from the gateway that is deciding the next one."""


@dataclass(frozen=True, slots=True)
class SessionRoll:
    """Sessions by the clock: a new one each weekday at `open_time` in `zone`, but on holidays. None: a feed reports
    them."""

    open_time: datetime.time
    zone: ZoneInfo
    holidays: frozenset[datetime.date] = frozenset()

    def date_at(self, now_us: int) -> datetime.date:
        """The session that is open at `now_us`; over the weekend, Friday's, and over a holiday that before it."""
        local = datetime.datetime.fromtimestamp(now_us / 1e6, self.zone)
        date = local.date() if local.time() >= self.open_time else local.date() - datetime.timedelta(days=1)
        while date.weekday() > 4 or date in self.holidays:
            date -= datetime.timedelta(days=1)
        return date


@dataclass(slots=True)
class Breaches:
    """What an account's limits looked like when last judged, and how often they were crossed, by cause."""

    standing: set[tuple[str, str, float]] = field(default_factory=set)
    active: int = 0
    passive: int = 0
    judged: tuple[LimitUse, ...] = ()
    grades: dict[UseKey, float] = field(default_factory=dict)
    """Of the last report."""

    def judge(self, uses: Iterable[LimitUse], approved: Callable[[LimitUse], bool] = lambda use: False) -> None:
        """Count the hard limits that are newly over their bound: ACTIVE (a defect) if an approval that was judged by
        that limit took them there, PASSIVE if prices, fills or a tightening did."""
        self.judged = tuple(uses)
        over = {use.key: use for use in self.judged if use.hard and use.status is UseStatus.BREACHED}
        crossed = [use for key, use in over.items() if key not in self.standing]
        active = sum(map(approved, crossed))
        self.active += active
        self.passive += len(crossed) - active
        self.standing = set(over)


class Analyses(Protocol):
    """What is computed after a report, elsewhere (gateway/worker/refresh.py, which is slow to import)."""

    def offer(
        self, state: AccountState, terms: Terms, quotes: Mapping[str, Quote], prices: PriceHistory, now_us: int
    ) -> None:
        """Have the account analysed as it is here, soon; never waits."""

    def summary(self, account: str) -> AnalysisSummary | None:
        """The gist of its latest analysis, if there is any."""


class Worker:
    """See the module."""

    def __init__(
        self,
        log: AccountLog,
        clock: StoreClock,
        builder: ModelBuilder,
        refresh_s: float,
        roll: SessionRoll | None,
        judge_s: float = JUDGE_S,
        tighten: TighteningRule | None = BASEL_RULE,
        daily: DailyHistory | None = None,
        analyses: Analyses | None = None,
        events: EventMonitor | None = None,
        rolls: Mapping[str, SessionRoll] = MappingProxyType({}),
    ) -> None:
        """`judge_s`: how long an account's open orders are left after they were judged. `tighten`: what a VaR model
        that fails does to the limits; None: it is flagged alone. `daily`: where closes come from when they are not the
        builder's for good. `analyses`: what is computed in other processes after a report; the caller's to end.
        `events`: None: no calendar is followed. `rolls`: by account, when its sessions open, where not by `roll`."""
        self.accounts = Accounts(log, clock, load_all=True, folded=self._folded)
        self._log, self._clock, self._builder, self._refresh_s, self._roll = log, clock, builder, refresh_s, roll
        self._daily, self.analyses, self.events, self._rolls = daily, analyses, events, rolls
        self._carried: Carried | None = None
        self._ended: dict[str, str] = {}
        """By account, the session whose end was noted last."""
        self._instructor = Instructor(self.accounts, clock, judge_s)
        self._enforcer = Enforcer(self.accounts, clock, judge_s)
        self._validator = Validator(self.accounts, tighten)
        self._regimes = RegimeMonitor(self.accounts)
        self._breaches: dict[str, Breaches] = {}
        self._published: RiskModel | None = None
        self._published_by = builder
        self._unbuildable: set[tuple[str, str]] = set()
        """(session, instrument set) that no model can be built of: trying again would give the same."""

    async def run(self) -> None:
        """Until cancelled: at once on a change, reports every `refresh_s` in any case, open orders judged every
        `judge_s` where a mark, a limit or the time may have made them due; the latter waits for no model and no report.
        The outermost loops of its process: nothing that fails in them may end them."""
        await self.accounts.start()
        if self._daily is not None:
            await self._daily.reload()
        beside = [asyncio.create_task(self._judge_all())]
        if self.events is not None:
            beside.append(asyncio.create_task(self.events.run()))
        try:
            await self._refresh_all()
        finally:
            await ended(beside)

    async def _judge_all(self) -> None:
        with self.accounts.subscribe(()) as subscription:
            while True:
                await subscription.next(self._instructor.interval_s)
                try:
                    for account in self.accounts.loaded:
                        await self._judge(account)
                except Exception:  # outermost loop: logged, then tried again
                    LOGGER.exception("judging open orders failed")
                    await asyncio.sleep(RETRY_S)
                await asyncio.sleep(CONFLATE_S)

    async def _refresh_all(self) -> None:
        with self.accounts.subscribe(()) as subscription:
            due_us = 0
            while True:
                wait_s = min((due_us - self._clock.now_us()) / 1e6, self._instructor.interval_s)
                changed = await subscription.next(max(0.0, wait_s))
                now_us = self._clock.now_us()
                everyone = now_us >= due_us
                if everyone:
                    due_us = now_us + int(self._refresh_s * 1e6)
                try:
                    await self._roll_sessions()
                    await self._note_closes()
                    await self._publish_model()
                    for account in self.accounts.loaded if everyone else changed:
                        await self._refresh(account, everyone)
                except StoreError as error:
                    LOGGER.warning("refresh failed, it is tried again", problem=str(error))
                except Exception:  # outermost loop: logged, then tried again
                    LOGGER.exception("refreshing failed")
                    await asyncio.sleep(RETRY_S)
                await asyncio.sleep(CONFLATE_S)

    async def aclose(self) -> None:
        await self.accounts.aclose()

    @property
    def history(self) -> PriceHistory:
        """The closes that models are built from now."""
        return self._builder.history

    # --- the model -------------------------------------------------------------------------------------------------

    async def _publish_model(self) -> None:
        """Build and publish the model for the newest session that has one, if that was not done yet for it, these
        instruments and these closes, or long ago."""
        instruments = await self._instruments()
        if instruments is None:
            return
        await self._carry_on(instruments)
        model = await self._newest_model(instruments)
        if model is None or model is self._published:
            return
        await self._log.bulletin.post_model(await self._log.put_blob(encode_model(model)))
        self._published, self._published_by = model, self._builder
        LOGGER.info("risk model published", session=str(model.session_date), model=model.hash, days=model.n_days)

    async def _carry_on(self, instruments: InstrumentSet) -> None:
        """Build from the closes as they are now."""
        if self._daily is None:
            return
        carried = await asyncio.to_thread(self._daily.carried, instruments.instruments)
        if carried is not self._carried:
            self._carried, self._builder = carried, self._builder.with_closes(carried)
            self._unbuildable.clear()

    async def _newest_model(self, instruments: InstrumentSet) -> RiskModel | None:
        """One account's session that no model can be built for must not keep the others without one."""
        for session in self._sessions():
            key = (session, instruments.hash)
            if key in self._unbuildable:
                continue
            try:
                return await self._model(datetime.date.fromisoformat(session), instruments)
            except UNUSABLE as error:
                self._unbuildable.add(key)
                LOGGER.error("no risk model can be built", session=session, problem=repr(error))
        return None

    async def _model(self, session: datetime.date, instruments: InstrumentSet) -> RiskModel:
        now_us = self._clock.now_us()
        held = self._published
        is_same = held is not None and (held.session_date, held.instrument_set) == (session, instruments.hash)
        is_same = is_same and self._builder is self._published_by
        marks = {symbol: quote.mark for symbol, quote in self.accounts.quotes.items()}
        if held is not None and is_same and not self._builder.is_stale(held, marks, now_us):
            return held
        return await asyncio.to_thread(
            self._builder.build, instruments.instruments, instruments.hash, session, now_us, marks
        )

    def _sessions(self) -> list[str]:
        """The sessions that are open, the one opened last by the store's clock first: dates may run anywhere in a
        replay of the past."""
        sessions = [committer.state.session for committer in self._committers() if committer.state.session is not None]
        sessions.sort(key=lambda session: (session.opened_us, session.date), reverse=True)
        return list(dict.fromkeys(session.date for session in sessions))

    async def _instruments(self) -> InstrumentSet | None:
        for committer in self._committers():
            try:
                _, terms = await self.accounts.shelf.in_force(committer.partition)
            except StoreRefused as error:
                LOGGER.warning("a partition's terms can't be read", account=committer.account, problem=str(error))
                continue
            if terms.instruments.instruments:
                return terms.instruments
        return None

    def _committers(self) -> list[Committer]:
        loaded = (self.accounts.latest(account) for account in self.accounts.loaded)
        return [committer for committer in loaded if committer is not None and committer.state.opened]

    # --- sessions by the clock -------------------------------------------------------------------------------------

    async def _roll_sessions(self) -> None:
        for committer in self._committers():
            roll = self._rolls.get(committer.account, self._roll)
            if roll is None:
                continue
            session, date = committer.state.session, roll.date_at(self._clock.now_us()).isoformat()
            if session is None or session.date < date:
                await self._append(committer.account, _opens(date))

    async def _note_closes(self) -> None:
        """The marks of each session that has ended become its closes. Of several that ended at once the last: marks are
        held of no earlier one."""
        if self._daily is None:
            return
        now_us = self._clock.now_us()
        self._daily.remember(self.accounts.quotes, now_us)
        for committer in self._committers():
            state = committer.state
            if state.session is None or not state.sessions:
                continue
            ended, closed_us = state.sessions[-1], state.session.opened_us
            if self._ended.get(committer.account) != ended.date and ended.opened_us:
                await self._daily.close(ended.date, ended.opened_us, closed_us, self.accounts.quotes)
            self._ended[committer.account] = ended.date
        await self._daily.look(now_us)

    async def _append(self, account: str, build: Build) -> None:
        try:
            await self.accounts.record(account, build, self._clock.now_us() + APPEND_DEADLINE_US)
        except OF_ONE_ACCOUNT as error:
            LOGGER.warning("account can't be appended to", account=account, problem=repr(error))

    # --- reports ---------------------------------------------------------------------------------------------------

    def _folded(self, state: AccountState, record: AnyRecord) -> None:
        """Judge each approval right where it stands in the log, before prices or fills can blur who did it."""
        if not (isinstance(record, Decided) and record.allowed_lots):
            return
        terms = self._terms(state.account)
        breaches = self._breaches.get(state.account)
        if terms is None or breaches is None or not _decided_under(record, terms):
            return
        instrument = terms.instruments.get(record.order.symbol)
        issuer = "" if instrument is None else issuer_of(terms.instruments, instrument)
        judged = {(c.measure, c.scope) for c in record.checks if not (c.reduction or reduces(state, record, c.scope))}
        judged |= {(measure, f"{scope} issuer:{issuer}") for measure, scope in judged}
        try:
            uses = limit_uses(state, terms, record.time_us)
        except UNUSABLE as error:  # the fold must go on
            LOGGER.error("an approval could not be judged", account=state.account, problem=repr(error))
            return
        breaches.judge(uses, lambda use: (use.measure, use.scope) in judged)

    def _terms(self, account: str) -> Terms | None:
        return self.accounts.shelf.held(partition_of(account))

    async def _remembered(self, account: str) -> Breaches:
        """The counts of the last report: a restart of the worker forgets none. They begin anew where the report is one
        that this release can't read."""
        stored = await self._log.bulletin.report(account)
        if stored is None:
            return Breaches()
        try:
            report = decode_report(stored)
        except UNUSABLE as error:
            LOGGER.warning(
                "the last report can't be read, breaches are counted anew", account=account, problem=str(error)
            )
            return Breaches()
        over = {use.key for use in report.limits if use.hard and use.status is UseStatus.BREACHED}
        grades = {use.key: use.grade for use in report.limits if use.grade}
        return Breaches(over, report.active_breaches, report.passive_breaches, grades=grades)

    async def _judge(self, account: str) -> None:
        try:
            await self._enforcer.enforce(account)
            await self._instructor.judge(account)
        except OF_ONE_ACCOUNT as error:
            LOGGER.warning("an account's open orders can't be judged", account=account, problem=repr(error))

    async def _refresh(self, account: str, timed: bool) -> None:
        try:
            await self._report(account, timed)
        except OF_ONE_ACCOUNT as error:
            LOGGER.warning("account can't be reported on", account=account, problem=repr(error))

    async def _report(self, account: str, timed: bool) -> None:
        committer = self.accounts.latest(account)
        if committer is None or not committer.state.opened:
            return
        _, terms = await self.accounts.shelf.in_force(committer.partition)
        now_us = self._clock.now_us()
        state = committer.state.fork()
        valued = observation(state, self.accounts.quotes, tracked_symbols(state), now_us, terms.control.epoch)
        if valued is not None:
            state.apply(valued)
        breaches = self._breaches.get(account)
        if breaches is None:
            breaches = self._breaches[account] = await self._remembered(account)
        before = {use.key: use.status for use in breaches.judged}
        report = risk_report(state, terms, now_us)
        breaches.judge(report.limits)
        limits = graded(report.limits, breaches.grades, terms.limits.policy.grades)
        breaches.grades = {use.key: use.grade for use in limits if use.grade}
        report = msgspec.structs.replace(
            report,
            limits=limits,
            active_breaches=breaches.active,
            passive_breaches=breaches.passive,
            validation=self._validator.verdicts(state),
            analysis=None if self.analyses is None else self.analyses.summary(account),
            events=None if self.events is None else self.events.outlook(state, terms, now_us),
        )
        await self._log.bulletin.post_report(account, encode_report(report))
        if self.analyses is not None:
            self.analyses.offer(state, terms, self.accounts.quotes, self.history, now_us)
        moved = {use.key: use.status for use in report.limits} != before
        if timed and valued is not None and (moved or state.nav_peak > committer.state.nav_peak):
            await self._append(account, _observe(self.accounts))
        if self._validator.due(state, terms, now_us):
            await self._append(account, self._validator.build)
        await self._regimes.look(terms)
        if self._regimes.due(state, terms, now_us):
            await self._append(account, self._regimes.build)
        if self.events is not None and self.events.due(committer.state, terms, now_us):
            await self._append(account, self.events.build)


def reduces(state: AccountState, record: Decided, scope: str) -> bool:
    """Whether what was allowed truly reduces in a limit's scope. A check speaks of what was asked for: where REDUCE cut
    an order down to the part that closes, that part passes over a bound although its check says nothing of it.
    `state` counts the approval already."""
    order = record.order
    book = state.book_of(book_key(order.strategy) if scope.startswith(f"{ScopeKind.STRATEGY.value}:") else "")
    low, high = book.interval(state.slots[order.symbol])
    position = int(book.lots[state.slots[order.symbol]])
    return position < 0 and high <= 0 if order.side.sign > 0 else position > 0 and low >= 0


def _decided_under(record: Decided, terms: Terms) -> bool:
    """Whether an approval can be judged with what is in force now: an older one can't."""
    model = terms.model.hash if terms.model is not None else ""
    decided = (record.limit_set, record.instrument_set, record.risk_model)
    return decided == (terms.limits.hash, terms.instruments.hash, model)


def _opens(date: str) -> Build:
    def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        return session_opened(state, f"session-{date}", date, now_us, terms.control.epoch)

    return build


def _observe(accounts: Accounts) -> Build:
    def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        valued = observation(state, accounts.quotes, tracked_symbols(state), now_us, terms.control.epoch)
        return [] if valued is None else [valued]

    return build
