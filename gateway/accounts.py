"""All accounts that this process has loaded, and what keeps them current.

Requests go to the account's committer; wake-ups from the store bring in what other processes appended, posted or
stopped. Wake-ups are hints: whatever they miss, the next append finds out. Nothing is decided here.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import structlog

from engine.control import Control
from engine.order import Order
from engine.risk.model import RiskModel
from gateway.clock import StoreClock
from gateway.committer import Answer, Build, Check, Committer, Fact, Folded, Item, Read, Reading, Recorded
from gateway.errors import DeadlinePassed, IdReused, StoreError, StoreUnavailable
from gateway.log.account_log import GENESIS, AccountLog, Head, partition_of
from gateway.log.bulletin import AccountMoved, ControlMoved, Lagged, MarksMoved, ModelMoved, ReportMoved, Wake
from gateway.market.quotes import Quotes
from gateway.tasks import ended
from gateway.terms import TermsShelf

LOGGER = structlog.get_logger()
SWEEP_S = 1.0
"""A wake-up may be lost: heads and control states are compared this often."""

FEW_PARTITIONS = 8
"""Up to so many control states are read one by one; more, all in one round trip."""

CONFLATE_S = 0.02
"""What one account appends within this time is read together."""

RETRY_S = 0.1
LOADED_MAX = 2_000
"""Accounts held in memory; beyond these the longest unused go, but for those that somebody waits for. One whose day was
10,000 orders takes some 7 MB, and 0.2 s to fold again (measured)."""

AHEAD_MAX = 200
"""Accounts that a process which must answer for all of them at once loads before anybody asks."""

GRACE_US = 50_000
"""The committer answers its callers by their deadlines; the wait here ends this much later, should it not."""

T = TypeVar("T")


class Subscription:
    """What changed since it was last asked: one slot per subscriber, so that a slow one holds up nobody."""

    def __init__(self, accounts: Collection[str]) -> None:
        self.accounts = frozenset(accounts)
        self._changed: set[str] = set()
        self._woken = asyncio.Event()

    def wants(self, account: str) -> bool:
        return not self.accounts or account in self.accounts

    def offer(self, account: str) -> None:
        if self.wants(account):
            self._changed.add(account)
            self._woken.set()

    async def next(self, timeout_s: float) -> set[str]:
        """The accounts that changed, at once if there are any; none when the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        self._woken.clear()
        changed, self._changed = self._changed, set()
        return changed


class Accounts:
    """See the module. `start` before use, `aclose` at the end."""

    def __init__(
        self,
        log: AccountLog,
        clock: StoreClock,
        load_all: bool = False,
        folded: Folded | None = None,
        loaded_max: int = LOADED_MAX,
        ahead: bool = False,
    ) -> None:
        """`load_all`: follow every account there is (the worker), not only those that requests name, and drop none.
        `ahead`: follow the first AHEAD_MAX too (control: who stops everything is told at once of what is open).
        `folded` hears of every record that others appended, right after it was folded in."""
        self.log, self.clock = log, clock
        self.quotes = Quotes(log.bulletin)
        self.shelf = TermsShelf(log)
        self._load_all, self._folded, self._ahead_max = load_all, folded, AHEAD_MAX if ahead else 0
        self._loaded_max = loaded_max
        self._committers: dict[str, Committer] = {}
        """The longest unused first."""
        self._dropped: dict[str, Head] = {}
        """Where the logs of accounts that were dropped ended: one that has gone back since then is found out."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reports: dict[str, bytes] = {}
        self._subscriptions: set[Subscription] = set()
        self._following: list[asyncio.Task[None]] = []
        self._current = asyncio.Event()
        self._control_woken = asyncio.Event()
        self._account_woken = asyncio.Event()
        self._told: dict[str, int] = {}
        self.names: set[str] = set()
        """Every account that has a log, as far as this process has heard."""

    async def start(self) -> None:
        """Begin to follow the store; returns once everything has been read."""
        follow = (self._follow(), self._follow_control(), self._follow_accounts(), self._sweep())
        self._following = [asyncio.create_task(run) for run in follow]
        await self._current.wait()

    async def aclose(self) -> None:
        await ended([*self._following, *self._tasks.values()])
        await self.quotes.aclose()

    # --- what services use -----------------------------------------------------------------------------------------

    async def check(self, orders: Sequence[Order], *, dry_run: bool, basket: bool, deadline_us: int) -> list[Answer]:
        """Decide orders, in order and in one step per account; answers in the order of the requests. UnknownAccount:
        nothing was decided, nor where IdReused is for an id that this process has heard of. Any other error (see
        Committer) may come after other accounts' orders were decided."""
        by_account: dict[str, list[int]] = {}
        for index, order in enumerate(orders):
            by_account.setdefault(order.account, []).append(index)

        def item(own: Sequence[Order]) -> Callable[[asyncio.Future[list[Answer]]], Item]:
            return lambda done: Check(own, dry_run, basket, deadline_us, done)

        if len(by_account) > 1:
            await asyncio.gather(
                *(self._need_new(account, [orders[i] for i in own], deadline_us) for account, own in by_account.items())
            )
        parts = await asyncio.gather(
            *(
                self._ask(account, item([orders[i] for i in indices]), deadline_us)
                for account, indices in by_account.items()
            )
        )
        answers: dict[int, Answer] = {}
        for indices, part in zip(by_account.values(), parts, strict=True):
            answers.update(zip(indices, part, strict=True))
        return [answers[index] for index in range(len(orders))]

    async def _need_new(self, account: str, orders: Sequence[Order], deadline_us: int) -> None:
        """Raises UnknownAccount where nobody opened it, and IdReused where an id is known to stand for another order:
        neither ever changes back, so that this may be asked before the other accounts' orders are decided."""
        committer = self.latest(account)
        opened = committer is not None and committer.state.opened
        state = committer.state if committer is not None and opened else (await self.read(account, deadline_us)).state
        now_us = self.clock.now_us()
        for order in orders:
            memo = state.memo(order.client_order_id, now_us)
            if memo is not None and memo.digest != order.digest:
                raise IdReused(order.client_order_id)

    async def record(self, account: str, build: Build, deadline_us: int, *, opens: bool = False) -> Recorded:
        """Append the fact that `build` makes of the account's state. Only a fact that `opens` it may be an account's
        first."""
        return await self._ask(account, lambda done: Fact(build, opens, deadline_us, done), deadline_us)

    async def read(self, account: str, deadline_us: int) -> Reading:
        """The account as of one verified moment."""
        return await self._ask(account, lambda done: Read(deadline_us, done), deadline_us)

    def latest(self, account: str) -> Committer | None:
        """The committer of a loaded account, for readers that need no verified moment."""
        return self._committers.get(account)

    def report(self, account: str) -> bytes | None:
        """The worker's latest report on a loaded account."""
        return self._reports.get(account)

    def control(self, account: str) -> Control:
        """The control state of the account's partition, as last heard."""
        return self.shelf.control(partition_of(account))

    @property
    def model(self) -> RiskModel | None:
        return self.shelf.model

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(self._committers)

    @contextlib.contextmanager
    def subscribe(self, accounts: Collection[str]) -> Iterator[Subscription]:
        """Hear of changes to these accounts (all, if none is named)."""
        subscription = Subscription(accounts)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    # --- committers ------------------------------------------------------------------------------------------------

    async def _ask(self, account: str, item: "Callable[[asyncio.Future[T]], Item]", deadline_us: int) -> T:
        """Queue an item and wait for its answer. The wait may be cancelled, the item is not: what was appended stays
        appended, and its id finds it."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._committer(account).put(item(done))
        wait_s = max(0, deadline_us + GRACE_US - self.clock.now_us()) / 1_000_000
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(done)
        except TimeoutError:
            done.cancel()
            raise DeadlinePassed("no answer from the store before the deadline; ask again with the same id") from None
        finally:
            self._drop_unopened(account)

    def _committer(self, account: str) -> Committer:
        committer = self._committers.pop(account, None)
        if committer is None:
            known = self._dropped.pop(account, GENESIS)
            committer = Committer(
                account, self.log, self.shelf, self.quotes, self.clock, self._changed, self._folded, known
            )
            self._tasks[account] = asyncio.create_task(committer.run())
            if len(self._committers) >= self._loaded_max and not self._load_all:
                self._drop_unused()
        self._committers[account] = committer
        return committer

    def _drop_unused(self) -> None:
        """Forget the longest unused account that nobody waits for or follows: its log has all of it."""
        for account, committer in self._committers.items():
            if committer.idle and not any(s.wants(account) for s in self._subscriptions):
                self._dropped[account] = committer.head
                self._forget(account)
                return

    def _forget(self, account: str) -> None:
        del self._committers[account]
        self._reports.pop(account, None)
        self._tasks.pop(account).cancel()

    def _drop_unopened(self, account: str) -> None:
        """Names that nobody opened must not fill the memory."""
        committer = self._committers.get(account)
        if committer is not None and committer.idle and committer.head.seq == 0:
            self._forget(account)

    def _changed(self, account: str) -> None:
        for subscription in self._subscriptions:
            subscription.offer(account)

    def _changed_all(self) -> None:
        for account in self._committers:
            self._changed(account)

    # --- following the store ---------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """One of the two outermost loops: a failure is logged and everything is read again."""
        while True:
            try:
                async with contextlib.aclosing(self.log.bulletin.follow()) as wakes:
                    async for wake in wakes:
                        await self._hear(wake)
            except StoreError as error:
                LOGGER.warning("the store can't be followed", problem=str(error))
            except Exception:  # outermost loop: logged, then everything is read again
                LOGGER.exception("following the store failed")
            await asyncio.sleep(RETRY_S)

    async def _hear(self, wake: Wake) -> None:
        match wake:
            case AccountMoved(account=account, seq=seq):
                self.names.add(account)
                self._moved(account, seq)
            case ControlMoved(partition=partition, epoch=epoch):
                if self.shelf.control(partition).epoch < epoch:
                    self._control_woken.set()
                else:
                    self._changed_all()  # it was this process that moved it
            case MarksMoved(marks=marks):
                self.quotes.absorb(marks, self.clock.now_us())
            case ModelMoved(hash=model_hash):
                if await self.shelf.take_model(model_hash):
                    self._changed_all()
            case ReportMoved(account=account):
                await self._take_report(account)
            case Lagged():
                await self._read_all()

    async def _follow_control(self) -> None:
        """A stop of everything moves every partition: one read of all of them answers all of its wake-ups."""
        while True:
            await self._control_woken.wait()
            self._control_woken.clear()
            try:
                own = self._own_partitions()
                await self._refresh_control(own if len(own) <= FEW_PARTITIONS else None)
            except StoreError as error:
                LOGGER.warning("control states can't be read, the sweep tries again", problem=str(error))

    def _own_partitions(self) -> set[int]:
        """Those of the accounts that are loaded: of the others nobody here waits for news."""
        return {partition_of(account) for account in self._committers}

    async def _refresh_control(self, partitions: Collection[int] | None = None) -> None:
        """Load what new control states name before anybody is told of them, so that readers find it whole."""
        if not await self.shelf.refresh(partitions):
            return
        for own in self._own_partitions():
            await self.shelf.in_force(own)
        self._changed_all()

    def _moved(self, account: str, seq: int) -> None:
        if self._follows(account):
            self._told[account] = seq
            self._account_woken.set()

    def _follows(self, account: str) -> bool:
        return self._load_all or account in self._committers or len(self._committers) < self._ahead_max

    def _followed(self, account: str) -> Committer | None:
        """To be followed is not to be used: a loaded account keeps its place among those that are dropped."""
        loaded = self._committers.get(account)
        return loaded if loaded is not None or not self._follows(account) else self._committer(account)

    async def _follow_accounts(self) -> None:
        """Catch accounts up with what others appended, at most every CONFLATE_S: reading each record by itself would
        cost more than deciding it did."""
        while True:
            await self._account_woken.wait()
            self._account_woken.clear()
            told, self._told = self._told, {}
            for account, seq in told.items():
                committer = self._followed(account)
                if committer is not None and committer.head.seq < seq:
                    committer.nudge(seq)
            await asyncio.sleep(CONFLATE_S)

    async def _take_report(self, account: str) -> None:
        if self._load_all:
            return  # the worker wrote it
        if account not in self._committers or not any(s.wants(account) for s in self._subscriptions):
            self._reports.pop(account, None)  # whoever asks reads the newest
            return
        report = await self.log.bulletin.report(account)
        if report is not None:
            self._reports[account] = report
            self._changed(account)

    async def _read_all(self) -> None:
        self.clock.observe(await self.log.now_us())
        await self.shelf.refresh()
        self.quotes.absorb(await self.log.bulletin.marks(), self.clock.now_us())
        await self.shelf.take_model(await self.log.bulletin.model())
        self.names |= await self.log.accounts()
        await self._compare_heads()
        for account in self.loaded:
            await self._take_report(account)
        self._current.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._refresh_control()
                if await self.shelf.take_model(await self.log.bulletin.model()):
                    self._changed_all()
                await self._compare_heads()
            except StoreUnavailable as error:
                LOGGER.warning("the store does not answer", problem=str(error))
            except StoreError as error:
                LOGGER.error("the store refuses", problem=str(error))

    async def _compare_heads(self) -> None:
        crowded = len(self._committers) >= self._ahead_max
        names = self.loaded if crowded and not self._load_all else await self.log.accounts()
        for account, head in (await self.log.heads(names)).items():
            committer = self._followed(account)
            if committer is not None and committer.head != head:
                committer.doubt()
