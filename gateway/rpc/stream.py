"""StreamRiskState: a snapshot of each account, then what changed, latest wins; with what a person should know.

A reader holds no queue: what changed while it was slow is one set of names, and each name stands for the state as it is
when it is sent. A second without news sends a heartbeat that says whether the store answers.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

import msgspec
import structlog

from engine.account import AccountState
from engine.control import Control, Resumed, Stop, TradingState
from engine.grades import crossed
from engine.report import RiskReport, decode_report
from engine.suspects import suspects
from engine.utilisation import UseKey
from gateway.accounts import Subscription
from gateway.committer import Reading
from gateway.errors import DeadlinePassed, Draining, StoreError, UnknownAccount
from gateway.rpc.backend import OF_ONE_ACCOUNT, Backend
from gateway.rpc.convert import responses
from gateway.rpc.convert.risk_state import account_state, risk_state
from riskgateway.v1 import account_pb2, control_pb2, risk_gateway_pb2

LOGGER = structlog.get_logger()
PULSE_US = 500_000
"""A store that has not answered by then counts as away."""


@dataclass(slots=True)
class _Seen:
    """What a reader has been told of an account's trading state."""

    epoch: int
    seq: int
    state: TradingState
    unevaluable: set[tuple[str, str]] = field(default_factory=set)
    """Hard limits, by measure and scope, that could not be judged while orders worked."""
    grades: dict[UseKey, float] = field(default_factory=dict)
    """How high the worker's last report that the reader was told of had graded each limit's use."""
    suspects: set[str] = field(default_factory=set)
    """Approvals that nobody reported, by client order id."""
    windows: set[tuple[str, str]] = field(default_factory=set)
    """Windows of events that are open, by event and symbol."""
    calendars: set[str] = field(default_factory=set)
    """Sources of events that are stale or were never read."""


async def report_on(backend: Backend, account: str, allowed_us: int) -> RiskReport | None:
    """The worker's latest report; asked of the store where none was heard of since the account was loaded.
    None where there is none that this release can read."""
    report = backend.accounts.report(account)
    if report is None:
        report = await backend.kept(backend.log.bulletin.report(account), allowed_us)
    if report is None:
        return None
    try:
        return decode_report(report)
    except (ValueError, msgspec.MsgspecError) as error:  # another release's; the next one of the worker replaces it
        LOGGER.warning("the worker's report can't be read", account=account, problem=str(error))
        return None


class RiskStateStream:
    """One reader's stream. `accounts` empty: all, later ones included."""

    def __init__(self, backend: Backend, accounts: tuple[str, ...]) -> None:
        self._backend, self._accounts = backend, accounts
        self._seen: dict[str, _Seen] = {}
        self._unread: set[str] = set()
        """Accounts that could not be read the last time."""
        self._look_s = 0.0
        """When to look for what no change tells of again, on the loop's clock."""

    async def updates(self) -> AsyncGenerator[risk_gateway_pb2.RiskStateUpdate, None]:
        """Endless; raises Draining when the server drains, UnknownAccount where one that was asked for is not open."""
        drained = asyncio.create_task(self._backend.draining.wait())
        self._backend.streams.add(self)
        try:
            with self._backend.accounts.subscribe(self._accounts) as subscription:
                for account in self._accounts or await self._everyone():
                    async for update in self._snapshot(account):
                        yield update
                while True:
                    changed = await self._news(subscription, drained)
                    if not changed:
                        yield await self._heartbeat()
                    for account in {*changed, *await self._untold()}:
                        async for update in self._news_of(account):
                            yield update
                    await asyncio.sleep(self._backend.pace.interval_s)
        finally:
            self._backend.streams.discard(self)
            drained.cancel()

    async def _everyone(self) -> list[str]:
        return sorted(await self._backend.kept(self._backend.log.accounts(), self._backend.deadlines.default_us))

    async def _untold(self) -> list[str]:
        """Accounts with news that no change tells of; looked for once a heartbeat, however much else happens."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_s:
            return []
        self._look_s = now_s + self._backend.pace.heartbeat_s
        return [*await self._newcomers(), *self._aged()]

    async def _newcomers(self) -> list[str]:
        """Accounts that were opened elsewhere and never asked for here; whoever asked for names has them all."""
        if self._accounts:
            return []
        try:
            return [account for account in await self._everyone() if account not in self._seen]
        except (StoreError, DeadlinePassed):
            return []

    def _aged(self) -> list[str]:
        """Accounts in which time alone has made an approval suspect that the reader was not told of."""
        now_us = self._backend.accounts.clock.now_us()
        latest = {account: self._backend.accounts.latest(account) for account in self._seen}
        return [
            account
            for account, committer in latest.items()
            if committer is not None and not self._suspects(committer.state, now_us) <= self._seen[account].suspects
        ]

    async def _news(self, subscription: Subscription, drained: "asyncio.Task[bool]") -> set[str]:
        waiting = asyncio.create_task(subscription.next(self._backend.pace.heartbeat_s))
        try:
            await asyncio.wait({waiting, drained}, return_when=asyncio.FIRST_COMPLETED)
            if drained.done():
                raise Draining("the server is shutting down; subscribe to another")
            return await waiting
        finally:
            waiting.cancel()

    async def _news_of(self, account: str) -> AsyncGenerator[risk_gateway_pb2.RiskStateUpdate, None]:
        if account not in self._seen:
            try:
                async for update in self._snapshot(account):
                    yield update
            except OF_ONE_ACCOUNT:
                return  # it is still unseen, and asked for again
            return
        committer = self._backend.accounts.latest(account)
        if committer is None or not committer.state.opened:
            return
        terms = self._backend.accounts.shelf.held(committer.partition)
        if terms is None:
            return
        reading = Reading(committer.state, committer.head, terms, self._backend.accounts.clock.now_us())
        seen_seq = self._seen[account].seq
        for change in self._changes(account, reading):
            yield risk_gateway_pb2.RiskStateUpdate(trading_state_change=change)
        for escalation in reading.state.escalations:
            if escalation.seq > seen_seq:
                yield _alert(responses.escalation_alert(account, escalation))
        update, report = await self._state(account, reading)
        for alert in (*self._newly_unevaluable(update.risk_state), *self._newly_graded(account, report)):
            yield _alert(alert)
        for alert in self._newly_suspect(account, reading.state, reading.now_us):
            yield _alert(alert)
        for alert in self._newly_of_events(account, report):
            yield _alert(alert)
        yield update

    async def _snapshot(self, account: str) -> AsyncGenerator[risk_gateway_pb2.RiskStateUpdate, None]:
        """The account as of a verified moment. One that is not open, or can't be read, is left out where all were asked
        for."""
        accounts = self._backend.accounts
        try:
            reading = await accounts.read(account, accounts.clock.now_us() + self._backend.deadlines.default_us)
        except UnknownAccount:
            if self._accounts:
                raise
            return
        except OF_ONE_ACCOUNT as error:
            if self._accounts:
                raise
            if account not in self._unread:
                LOGGER.error("an account's state can't be read", account=account, problem=str(error))
            self._unread.add(account)
            return
        self._unread.discard(account)
        control = reading.terms.control
        self._seen[account] = _Seen(control.epoch, reading.state.seq, account_state(reading.state, control))
        update, report = await self._state(account, reading)
        yield update
        for escalation in reading.state.escalations:
            if escalation.instruction_id in reading.state.instructions:
                yield _alert(responses.escalation_alert(account, escalation))
        for alert in (*self._newly_unevaluable(update.risk_state), *self._newly_graded(account, report)):
            yield _alert(alert)
        for alert in self._newly_suspect(account, reading.state, reading.now_us):
            yield _alert(alert)
        for alert in self._newly_of_events(account, report):
            yield _alert(alert)

    async def _state(
        self, account: str, reading: Reading
    ) -> tuple[risk_gateway_pb2.RiskStateUpdate, RiskReport | None]:
        report = await report_on(self._backend, account, self._backend.deadlines.default_us)
        return risk_gateway_pb2.RiskStateUpdate(risk_state=risk_state(reading, report)), report

    def _changes(self, account: str, reading: Reading) -> Iterable[control_pb2.TradingStateChange]:
        """What happened to the trading state since the reader was last told, in order."""
        seen, state, control = self._seen[account], reading.state, reading.terms.control
        now = account_state(state, control)
        for change in _control_changes(control, account, seen.epoch):
            after = change.state if isinstance(change, Stop) else now
            yield responses.state_change(account, change, seen.state, after)
            seen.state = after
        for latch, seq in state.latches.values():
            if seq > seen.seq:
                yield responses.latch_change(account, latch, seen.state, control.epoch, state.last_time_us)
        self._seen[account] = _Seen(control.epoch, state.seq, now, seen.unevaluable, seen.grades, seen.suspects)
        self._seen[account].windows, self._seen[account].calendars = seen.windows, seen.calendars

    def _newly_unevaluable(self, state: account_pb2.RiskState) -> Iterable[risk_gateway_pb2.Alert]:
        """Limits that can't be judged, of an account whose orders work on under them, each told once."""
        working = bool(state.open_orders)
        blind = {(use.measure, use.scope): use for use in state.limits if working and use.hard and use.unevaluable}
        seen = self._seen[state.account]
        new = [use for key, use in blind.items() if key not in seen.unevaluable]
        seen.unevaluable = set(blind)
        return [responses.unevaluable_alert(state, use) for use in new]

    def _newly_graded(self, account: str, report: RiskReport | None) -> Iterable[risk_gateway_pb2.Alert]:
        """Limits whose use has climbed to a higher grade since the reader was last told; a new reader hears of those
        that stand there."""
        if report is None:
            return []
        seen = self._seen[account]
        higher = crossed(report.limits, seen.grades)
        seen.grades = {use.key: use.grade for use in report.limits if use.grade}
        return [responses.grade_alert(report, use) for use in higher]

    def _newly_of_events(self, account: str, report: RiskReport | None) -> Iterable[risk_gateway_pb2.Alert]:
        """Windows of events that have opened, and calendars that are not what they should be, each told once."""
        if report is None or report.events is None:
            return []
        seen, told = self._seen[account], report.events
        opened = [one for one in told.upcoming_events if one.alert and one.from_us <= report.time_us]
        blind = [one for one in told.sources if one.stale]
        alerts = [
            *(responses.event_alert(report, one) for one in opened if (one.event_id, one.symbol) not in seen.windows),
            *(responses.calendar_alert(report, one) for one in blind if one.source not in seen.calendars),
        ]
        seen.windows = {(one.event_id, one.symbol) for one in opened}
        seen.calendars = {one.source for one in blind}
        return alerts

    @staticmethod
    def _suspects(state: AccountState, now_us: int) -> set[str]:
        return {order.client_order_id for order in suspects(state, now_us)}

    def _newly_suspect(self, account: str, state: AccountState, now_us: int) -> Iterable[risk_gateway_pb2.Alert]:
        """Approvals that nobody reported, each told once."""
        seen, now = self._seen[account], self._suspects(state, now_us)
        new = [order for name, order in state.orders.items() if name in now - seen.suspects]
        seen.suspects = now
        return [responses.suspect_alert(account, order, state.listed[order.symbol].lot_size, now_us) for order in new]

    async def _heartbeat(self) -> risk_gateway_pb2.RiskStateUpdate:
        heartbeat = risk_gateway_pb2.Heartbeat()
        try:
            now_us = await self._backend.kept(self._backend.log.now_us(), PULSE_US)
            heartbeat.server_time.CopyFrom(responses.timestamp(now_us))
            heartbeat.store_available = True
        except (StoreError, DeadlinePassed):
            heartbeat.store_available = False
        return risk_gateway_pb2.RiskStateUpdate(heartbeat=heartbeat)


def _alert(alert: risk_gateway_pb2.Alert) -> risk_gateway_pb2.RiskStateUpdate:
    return risk_gateway_pb2.RiskStateUpdate(alert=alert)


def _control_changes(control: Control, account: str, after_epoch: int) -> list[Stop | Resumed]:
    changes: tuple[Stop | Resumed, ...] = (*control.stops, *control.resumes)
    reaching = [change for change in changes if change.epoch > after_epoch and change.scope.account in ("", account)]
    return sorted(reaching, key=lambda change: change.epoch)
