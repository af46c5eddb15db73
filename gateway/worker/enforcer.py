"""Has halts by losses, and the moves of the drawdown breaker, recorded when nobody sends an order.

What is due is `engine.enforcement`'s to say; here it is asked at the marks as they are heard of now, at most once in a
while, and appended by the account's committer, which asks again on the state as it then is: any number of workers halt
once. Marks that breach a limit for the first time are appended too, so that the next ones can confirm them. Nothing is
sent from here: what is to be cut is instructed by gateway/worker/instructor.py.
"""

import structlog

from engine.account import AccountState
from engine.decide import Terms
from engine.enforcement import enforcement_due, wants_marks
from engine.facts import observation, tracked_symbols
from engine.records import AnyRecord, BreakerMoved, Latched
from gateway.accounts import Accounts
from gateway.clock import StoreClock

LOGGER = structlog.get_logger()
APPEND_DEADLINE_US = 2_000_000

ENFORCE_S = 1.0
"""How long an account is left after its losses were looked at: marks that confirm a loss lie at least so far apart, so
that three of them outlast a bad one."""


class Enforcer:
    """See the module."""

    def __init__(self, accounts: Accounts, clock: StoreClock, interval_s: float = ENFORCE_S) -> None:
        self._accounts, self._clock, self._interval_us = accounts, clock, int(interval_s * 1e6)
        self._looked_us: dict[str, int] = {}

    async def enforce(self, account: str) -> None:
        """Record what is due in an account, if it is time. Raises what the accounts raise."""
        committer = self._accounts.latest(account)
        if committer is None or not committer.state.opened:
            return
        now_us, last_us = self._clock.now_us(), self._looked_us.get(account)
        if last_us is not None and 0 <= now_us - last_us < self._interval_us:
            return
        self._looked_us[account] = now_us
        _, terms = await self._accounts.shelf.in_force(committer.partition)
        if not self.build(committer.state, terms, now_us):
            return
        recorded = await self._accounts.record(account, self.build, self._clock.now_us() + APPEND_DEADLINE_US)
        for record in recorded.records:
            if isinstance(record, Latched):
                LOGGER.warning("halted by a loss", account=account, cause=record.latch.cause)
            elif isinstance(record, BreakerMoved):
                LOGGER.warning(
                    "drawdown breaker moved",
                    account=account,
                    before=record.before.value,
                    stage=record.stage.value,
                    drawdown=record.drawdown,
                )

    def build(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        """The marks of now and what they make due; nothing where neither has to be recorded."""
        valued = observation(state, self._accounts.quotes, tracked_symbols(state), now_us, terms.control.epoch)
        trial = state.fork()
        if valued is not None:
            trial.apply(valued)
        due = enforcement_due(trial, terms, now_us)
        if valued is None:
            return due
        return [valued, *due] if due or wants_marks(trial, terms, now_us) else []
