"""One account's only writer in this process: takes what is queued, decides it, appends it, answers.

The loop: take up to BATCH_MAX queued items; decide them in order on a fork of the fold; append the records if log and
control still end where we know them to; on Appended the fork becomes the state and the callers are answered, on
anything else what was missing is folded in and the same items are decided again. What arrives meanwhile is the next
batch. No answer leaves before an Appended, not even of a replay: zero records verify just as well.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from engine.account import AccountState, Memo
from engine.control import Scope, TradingState
from engine.decide import Terms, decide, decide_basket, superseded
from engine.facts import FactError, listings, observation, tracked_symbols
from engine.order import Action, Order, Reason
from engine.records import (
    AnyRecord,
    BreakerMoved,
    Decided,
    Executed,
    Instructed,
    Latch,
    Latched,
    PoisonRecord,
    Reconciled,
    SessionOpened,
    decode,
    encode,
)
from gateway.clock import StoreClock
from gateway.errors import DeadlinePassed, IdReused, Overloaded, StoreError, StoreUnavailable, UnknownAccount
from gateway.log.account_log import (
    GENESIS,
    AccountLog,
    Aged,
    Appended,
    Conflict,
    ControlMoved,
    Head,
    Page,
    TooOld,
    partition_of,
)
from gateway.log.account_log import Control as StoredControl
from gateway.market.quotes import Quotes
from gateway.terms import TermsShelf

LOGGER = structlog.get_logger()

BATCH_MAX = 64
"""Orders decided and appended together: one round trip and one fsync for all."""

QUEUE_MAX = 4096
"""Items waiting for one account: at 64 a batch and a millisecond each, over a second's delay is refused at once."""

TURN_MAX_S = 0.1
"""The longest that a winner waits for others, whatever the store's clock makes of its turn."""

PATIENCE = 2
"""Races for the log that a batch may lose to others before it is halved, with each further one."""

AGE_MAX_US = 1_000_000
"""A decision older than this on the store's clock is not appended: the process was paused and its prices are old."""

PAGE_RECORDS = 1_000
RETRY_FIRST_S, RETRY_MAX_S = 0.01, 0.25
"""While the store is away it is asked again this often."""

STORE_AWAY_US = 300_000
"""An attempt finds out within this time that the store is away: who has less left after it could not be told so."""

Build = Callable[[AccountState, Terms, int], list[AnyRecord]]
"""(state, terms, now_us) → the records of a fact; none where it is known already."""


Folded = Callable[[AccountState, AnyRecord], None]
"""Hears of a record right after it was folded in; must not change the state."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision as its caller gets it."""

    decided: Decided
    seq: int
    """Its place in the log; 0 for a dry run."""
    replayed: bool = False
    prior: Memo | None = None
    """The decision that this id got before a stop superseded it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact's place in the log. Without records it was known already."""

    seq: int
    records: tuple[AnyRecord, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """An account as of one verified moment. The state must not be changed."""

    state: AccountState
    head: Head
    terms: Terms
    now_us: int


@dataclass(slots=True, eq=False)
class Check:
    """Orders of this account to decide, in order; all or none if `basket`."""

    orders: Sequence[Order]
    dry_run: bool
    basket: bool
    deadline_us: int
    done: "asyncio.Future[list[Answer]]"


@dataclass(slots=True, eq=False)
class Fact:
    build: Build
    opens: bool
    deadline_us: int
    done: "asyncio.Future[Recorded]"


@dataclass(slots=True, eq=False)
class Read:
    deadline_us: int
    done: "asyncio.Future[Reading]"


Item = Check | Fact | Read


@dataclass(slots=True)
class _Trial:
    """A batch being decided: the fork, the records so far, and what each item will be answered."""

    state: AccountState
    terms: Terms
    now_us: int
    records: list[AnyRecord] = field(default_factory=list)
    answers: dict[Item, Callable[[], object]] = field(default_factory=dict)
    refused: dict[Item, Exception] = field(default_factory=dict)

    @property
    def turns_facts_away(self) -> bool:
        return any(isinstance(error, FactError) for error in self.refused.values())

    def add(self, record: AnyRecord) -> int:
        self.state.apply(record)
        self.records.append(record)
        return self.state.seq


class Committer:
    """See the module. Created by Accounts; `run` is its loop."""

    def __init__(
        self,
        account: str,
        log: AccountLog,
        shelf: TermsShelf,
        quotes: Quotes,
        clock: StoreClock,
        changed: Callable[[str], None],
        folded: Folded | None = None,
        known: Head = GENESIS,
    ) -> None:
        """`known`: where the log ended when this process last had the account loaded."""
        self.account = account
        self.partition = partition_of(account)
        self.state = AccountState(account)
        self.head = GENESIS
        self._log, self._shelf, self._quotes, self._clock, self._changed = log, shelf, quotes, clock, changed
        self._folded, self._known = folded, known
        self._queue: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._behind = True
        self._told_seq = 0
        self._serving = False
        self._lost_races = 0
        """How many appends in a row came too late, because others had appended."""
        self._poison: PoisonRecord | None = None
        self._lost: str | None = None
        """What the log has lost; kept until the halt that follows from it is in the log."""

    # --- what callers use ------------------------------------------------------------------------------------------

    def put(self, item: Item) -> None:
        """Queue an item. Raises Overloaded where too many wait."""
        if len(self._queue) >= QUEUE_MAX:
            raise Overloaded(f"account {self.account}: {QUEUE_MAX} requests are waiting")
        self._queue.append(item)
        self._arrived.set()

    def nudge(self, seq: int) -> None:
        """The log has been heard to reach `seq`: catch up, unless that was our own append, still on its way back."""
        self._told_seq = max(self._told_seq, seq)
        self._arrived.set()

    def doubt(self) -> None:
        """The log ends elsewhere than we think: read it."""
        self._behind = True
        self._arrived.set()

    @property
    def idle(self) -> bool:
        """Nobody waits for it, and it knows nothing that the log does not: a loss must not be forgotten before the
        halt for it is in the log."""
        return not (self._queue or self._serving or self._lost)

    # --- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. One of the two outermost loops: whatever fails here fails this account's callers, is logged
        and leaves the account closed until its log has been read again."""
        try:
            await self._run()
        finally:
            _fail(self._queue, _stopping())

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch = self._take()
            self._serving = True
            try:
                await self._serve(batch)
            except asyncio.CancelledError:
                _fail(batch, _stopping())
                raise
            except Exception as error:  # outermost loop: logged, fails this account closed
                LOGGER.exception("account could not be served", account=self.account)
                _fail(batch, error)
                self._forget()
            finally:
                self._serving = False
            if self._queue:
                self._arrived.set()

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        while self._queue and size < BATCH_MAX:
            item = self._queue.popleft()
            if item.done.done():
                continue
            size += len(item.orders) if isinstance(item, Check) else 1
            batch.append(item)
        return batch

    def _forget(self) -> None:
        self.state, self.head, self._behind, self._poison = AccountState(self.account), GENESIS, True, None

    async def _serve(self, batch: list[Item]) -> None:
        """Answer every item of the batch, whatever it takes until their deadlines."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                if self._behind or self.head.seq < self._told_seq:
                    await self._catch_up()
                batch = self._short(self._in_time(batch))
                if not batch or await self._take_turn(batch):
                    return
                wait_s = RETRY_FIRST_S
            except StoreError as error:
                batch = self._turn_away(batch, error, wait_s)
                if not batch:
                    return
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
                self._behind = True

    def _in_time(self, batch: list[Item]) -> list[Item]:
        now_us = self._clock.now_us()
        late = [item for item in batch if item.deadline_us <= now_us]
        _fail(late, DeadlinePassed("the deadline passed before a decision could be made; none was"))
        return [item for item in batch if item.deadline_us > now_us and not item.done.done()]

    def _turn_away(self, batch: list[Item], error: StoreError, wait_s: float) -> list[Item]:
        """Who has time for another try; the others, those who wait behind too, hear why there was no answer."""
        if not isinstance(error, StoreUnavailable):
            _fail(batch, error)
            return []
        until_us = self._clock.now_us() + int(wait_s * 1_000_000) + STORE_AWAY_US
        _fail([item for item in (*batch, *self._queue) if item.deadline_us <= until_us], error)
        return [item for item in batch if not item.done.done()]

    def _short(self, batch: list[Item]) -> list[Item]:
        """As much of a batch as is decided quickly enough to win against rivals: who keeps losing asks for less, until
        a single order is ahead of anybody's many. The rest goes back to the head of the queue."""
        count = max(1, BATCH_MAX >> max(0, self._lost_races - PATIENCE))
        self._queue.extendleft(reversed(batch[count:]))
        return batch[:count]

    async def _take_turn(self, batch: list[Item]) -> bool:
        """Decide and append once. Whether the batch is answered. Who has won against rivals lets as much time pass as
        its turn took: no process can keep the others out, and what arrives meanwhile makes a larger batch."""
        started_us = self._clock.now_us()
        answered = await self._attempt(batch)
        if answered and self._lost_races:
            self._lost_races = 0
            await asyncio.sleep(min(TURN_MAX_S, (self._clock.now_us() - started_us) / 1_000_000))
        return answered

    async def _attempt(self, batch: list[Item]) -> bool:
        """Decide and append once. Whether the batch is answered."""
        if self._poison is not None:
            _fail(batch, self._poison)
            return True
        control_head, terms = await self._shelf.in_force(self.partition)
        trial = self._decide(batch, terms)
        if trial.turns_facts_away and await self._shelf.refresh([self.partition]):
            return False  # facts are no reason for the store to tell news: what they name may just have been registered
        binding = control_head if _binding(batch, trial.records) else None
        encoded = [encode(record) for record in trial.records]
        result = await self._log.append(self.account, self.head, binding, encoded, trial.now_us, AGE_MAX_US)
        self._clock.observe(result.time_us)
        match result:
            case Appended(head=head):
                await self._settle(trial, head)
                return True
            case Conflict():
                await self._fold_tail(result)
                if result.control == binding and self._read_on(batch, terms, result):
                    return True
                self._lost_races += 1
            case ControlMoved(control=control):
                await self._follow_control(control)
            case TooOld():
                self._forget()
            case Aged():
                LOGGER.warning("a decision was too old to append and is made again", account=self.account)
        return False

    def _read_on(self, batch: Sequence[Item], terms: Terms, conflict: Conflict) -> bool:
        """Whether who only reads could be answered: the store has told where the log ends and what control is in force
        at one moment, and there is no race for who asks no more."""
        if self.head != conflict.head or not (self.state.opened and all(isinstance(item, Read) for item in batch)):
            return False
        reading = Reading(self.state, self.head, terms, conflict.time_us)
        for item in batch:
            if not item.done.done():
                item.done.set_result(reading)  # type: ignore[arg-type]
        return True

    async def _follow_control(self, control: StoredControl) -> None:
        if not await self._shelf.take(self.partition, control):
            await self._shelf.refresh([self.partition])

    # --- deciding --------------------------------------------------------------------------------------------------

    def _decide(self, batch: list[Item], terms: Terms) -> _Trial:
        trial = _Trial(self.state.fork(), terms, self._clock.now_us())
        self._observe(trial, batch)
        moved = False
        for item in batch:
            if moved and not isinstance(item, Fact):
                self._observe(trial, batch)
            moved = isinstance(item, Fact)
            try:
                trial.answers[item] = self._outcome(trial, item)
            except (FactError, IdReused, UnknownAccount) as error:
                trial.refused[item] = error
        return trial

    def _outcome(self, trial: _Trial, item: Item) -> Callable[[], object]:
        if isinstance(item, Fact):
            return self._recorded(trial, item)
        if not trial.state.opened:
            raise UnknownAccount(self.account)
        if isinstance(item, Read):
            return lambda: Reading(self.state, self.head, trial.terms, trial.now_us)
        return self._checked(trial, item)

    def _observe(self, trial: _Trial, batch: Sequence[Item]) -> None:
        """Bring the ordered symbols in, and the prices that have moved: `decide` reads marks from the fold only."""
        state = trial.state
        if not state.opened:
            return
        tracked = dict.fromkeys(tracked_symbols(state))
        for item in batch:
            for order in item.orders if isinstance(item, Check) else ():
                instrument = trial.terms.instruments.get(order.symbol)
                if instrument is not None:
                    epoch = trial.terms.control.epoch
                    for record in listings(state, trial.terms.instruments, instrument, trial.now_us, epoch):
                        trial.add(record)
                    tracked[order.symbol] = None
                    if state.underlyings.get(order.symbol) in state.slots:
                        tracked[state.underlyings[order.symbol]] = None
        valued = observation(state, self._quotes, tracked, trial.now_us, trial.terms.control.epoch)
        if valued is not None:
            trial.add(valued)

    def _recorded(self, trial: _Trial, item: Fact) -> Callable[[], object]:
        if not (trial.state.opened or item.opens):
            raise UnknownAccount(self.account)
        records = item.build(trial.state, trial.terms, trial.now_us)
        for record in records:
            trial.add(record)
        recorded = Recorded(trial.state.seq, tuple(records))
        return lambda: recorded

    def _checked(self, trial: _Trial, item: Check) -> Callable[[], object]:
        digests = [order.digest for order in item.orders]
        first: dict[str, str] = {}
        """Digests of the ids that are new."""
        for order, digest in zip(item.orders, digests, strict=True):
            memo = trial.state.memo(order.client_order_id, trial.now_us)
            if (memo.digest if memo is not None else first.setdefault(order.client_order_id, digest)) != digest:
                raise IdReused(order.client_order_id)
        state = trial.state.fork() if item.dry_run else trial.state
        if item.basket and (first or not item.orders):
            known = [order for order in item.orders if state.memo(order.client_order_id, trial.now_us) is not None]
            if known or len(first) < len(item.orders):
                raise IdReused((known or item.orders)[0].client_order_id)
            return self._checked_basket(trial, item, state)
        answers = [self._answer(trial, state, order, item.dry_run) for order in item.orders]
        return lambda: answers

    def _checked_basket(self, trial: _Trial, item: Check, state: AccountState) -> Callable[[], object]:
        decided = decide_basket(state, trial.terms, item.orders, trial.now_us)
        answers = [Answer(record, 0) if item.dry_run else Answer(record, trial.add(record)) for record in decided]
        return lambda: answers

    def _answer(self, trial: _Trial, state: AccountState, order: Order, dry_run: bool) -> Answer:
        memo = state.memo(order.client_order_id, trial.now_us)
        if memo is not None:
            return self._replay(trial, order, memo)
        record = decide(state, trial.terms, order, trial.now_us)
        if dry_run:
            state.apply(record)
            return Answer(record, 0)
        return Answer(record, trial.add(record))

    def _replay(self, trial: _Trial, order: Order, memo: Memo) -> Answer:
        """The same answer again; but an approval that a stop has overtaken is none any more."""
        stopped = memo.action.allows and superseded(trial.state, trial.terms.control, order, memo.seq, memo.epoch)
        if not stopped:
            return Answer(_from_memo(order, memo, trial.terms), memo.seq, replayed=True)
        message = (
            f"a stop came after this order was approved at sequence {memo.seq}: the approval is void, its reservation "
            "is held until the order is reported cancelled or not sent; send a new order under a new id after Resume"
        )
        halted = _from_memo(order, memo, trial.terms, Action.HALT, Reason.SUPERSEDED_BY_STOP, message)
        return Answer(halted, memo.seq, replayed=True, prior=memo)

    # --- settling --------------------------------------------------------------------------------------------------

    async def _settle(self, trial: _Trial, head: Head) -> None:
        self.state, self.head = trial.state.settle(), head
        if trial.records:
            self._changed(self.account)
        for item, error in trial.refused.items():
            _fail([item], error)
        for item, answer in trial.answers.items():
            if item.done.done():
                continue
            value = answer()
            if isinstance(item, Check) and any(a.replayed for a in value):  # type: ignore[attr-defined]
                value = [await self._in_full(a) for a in value]  # type: ignore[attr-defined]
            if not item.done.done():
                item.done.set_result(value)  # type: ignore[arg-type]

    async def _in_full(self, answer: Answer) -> Answer:
        """A replay with the checks of the record it repeats; without them where the record can't be read now."""
        if not answer.replayed or answer.prior is not None:
            return answer
        try:
            page = await self._log.read(self.account, answer.seq - 1, 1)
            record = None if isinstance(page, TooOld) or not page.records else decode(page.records[0])
        except (StoreError, PoisonRecord):
            return answer  # what stands in memory is true all the same, and those behind it wait for their answers
        return Answer(record, answer.seq, replayed=True) if isinstance(record, Decided) else answer

    # --- catching up -----------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        while self._poison is None:
            page = await self._log.read(self.account, self.head.seq, PAGE_RECORDS)
            self._clock.observe(page.time_us)
            if isinstance(page, TooOld):
                raise StoreUnavailable(f"account {self.account}: its log was trimmed behind what this release can load")
            if page.head.seq < self.head.seq or (not page.more and self.head.extend(page.records) != page.head):
                self._diverged(self.head, page.head)
                continue
            if not self._continues(page):
                self._diverged(self._known, page.head)
                continue
            self._fold(page.records)
            if page.more:
                continue
            if self._lost is None:
                self._behind, self._told_seq = False, self.head.seq
                return
            await self._halt_for(self._lost)

    def _continues(self, page: Page) -> bool:
        """Whether the log still leads through where it ended when this process knew the account before."""
        known, ahead = self._known, self._known.seq - self.head.seq
        if known == GENESIS or ahead <= 0:
            return True
        if ahead > len(page.records):
            return page.more
        return self.head.extend(page.records[:ahead]) == known

    async def _fold_tail(self, conflict: Conflict) -> None:
        if conflict.more or conflict.diverged_from(self.head):
            self._behind = True
            return
        self._fold(conflict.tail)

    def _fold(self, records: Sequence[bytes]) -> None:
        """Fold records that others appended, on a fork, so that a state once handed out never changes."""
        if not records:
            return
        state = self.state.fork()
        try:
            for data in records:
                record = decode(data)
                state.apply(record)
                if self._folded is not None:
                    self._folded(state, record)
        except PoisonRecord as error:
            LOGGER.error("poison record", account=self.account, seq=state.seq, problem=str(error))
            self._poison = error
            return
        self.state, self.head = state.settle(), self.head.extend(records)
        self._changed(self.account)

    def _diverged(self, ours: Head, theirs: Head) -> None:
        """The log went backwards or forked: the store has lost what it had acknowledged. Read it anew, and halt the
        account before anything is approved, until somebody has reconciled it with the broker."""
        self._known = GENESIS
        LOGGER.error("log diverged", account=self.account, ours=ours.encode(), theirs=theirs.encode())
        self._lost = f"the log ended at {ours.seq} and now at {theirs.seq}: records that were acknowledged are lost"
        self._forget()

    async def _halt_for(self, cause: str) -> None:
        """Append the halt if the log still ends where this state ends. Compares the control head, so that no Resume
        from before the halt can lift it."""
        held = await self._shelf.held_control(self.partition)
        latch = Latch(Scope(self.account), TradingState.HALTED, held.control.epoch, cause, True)
        now_us = self._clock.now_us()
        record = encode(Latched(time_us=now_us, epoch=latch.epoch, latch=latch))
        result = await self._log.append(self.account, self.head, held.head, [record], now_us, AGE_MAX_US)
        self._clock.observe(result.time_us)
        if isinstance(result, Appended):
            self._lost = None
        elif isinstance(result, ControlMoved):
            await self._follow_control(result.control)


def _binding(batch: Sequence[Item], records: Sequence[AnyRecord]) -> bool:
    """Whether the append has to compare the control head. Facts need not, but for those whose epoch counts: a Resume
    from before a latch, a reconciliation, a move of the breaker or the end of its cooldown must not lift what came
    after it; and what is instructed because of a stop must not come after its Resume."""
    return not all(isinstance(item, Fact) for item in batch) or any(
        isinstance(record, _OF_AN_EPOCH) or (isinstance(record, Executed) and record.latches) for record in records
    )


_OF_AN_EPOCH = (Latched, Reconciled, Instructed, BreakerMoved, SessionOpened)


def _from_memo(
    order: Order,
    memo: Memo,
    terms: Terms,
    action: Action | None = None,
    reason: Reason | None = None,
    message: str = "",
) -> Decided:
    return Decided(
        time_us=memo.time_us,
        epoch=memo.epoch if action is None else terms.control.epoch,
        order=order,
        digest=memo.digest,
        action=action or memo.action,
        reason=reason or memo.reason,
        message=message or "decided before; the checks of that decision are no longer in the log",
        lots=0,
        allowed_lots=memo.allowed_lots if action is None else 0,
        limit_set="",
        instrument_set="",
        risk_model="",
        expires_us=memo.expires_us,
    )


def _stopping() -> StoreUnavailable:
    return StoreUnavailable("this process is stopping; ask again with the same id")


def _fail(items: Iterable[Item], error: Exception) -> None:
    for item in items:
        if not item.done.done():
            item.done.set_exception(error)
