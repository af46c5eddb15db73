"""Judges what works against what has moved, and has what is due instructed: cancels, flatten orders, escalations.

What is due is `engine.instructions`' to say; here it is asked again when an account, its terms or the marks of what it
holds have changed, at most once in a while, and appended by the account's committer, which asks once more on the state
as it then is: any number of workers instruct once. Nothing is sent from here.
"""

from dataclasses import dataclass

import structlog

from engine.account import AccountState
from engine.decide import Terms
from engine.facts import observation, tracked_symbols
from engine.instructions import RECORDS_MAX, due, overdue
from engine.liquidation import unfinished_cuts
from engine.records import Escalated
from engine.silence import watched
from engine.suspects import releases
from engine.tightening import changes_us
from gateway.accounts import Accounts
from gateway.clock import StoreClock

LOGGER = structlog.get_logger()
APPEND_DEADLINE_US = 2_000_000

JUDGE_S = 1.0
"""How long an account is left after it was judged."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """When, and on what, an account was last judged and nothing was due."""

    time_us: int
    seq: int
    terms: Terms


class Instructor:
    """See the module. `interval_s`: how long an account is left after it was judged."""

    def __init__(self, accounts: Accounts, clock: StoreClock, interval_s: float = JUDGE_S) -> None:
        self._accounts, self._clock, self.interval_s = accounts, clock, interval_s
        self._judged: dict[str, _Judged] = {}

    async def judge(self, account: str) -> None:
        """Instruct what is due in an account, if it is time. Raises what the accounts raise."""
        committer = self._accounts.latest(account)
        if committer is None or not committer.state.opened:
            return
        now_us, last = self._clock.now_us(), self._judged.get(account)
        if last is not None and 0 <= now_us - last.time_us < int(self.interval_s * 1e6):
            return
        _, terms = await self._accounts.shelf.in_force(committer.partition)
        state = committer.state
        if self._is_due(account, state, terms, now_us, last):
            await self._instruct(account)
            state = committer.state
        self._judged[account] = _Judged(now_us, state.seq, terms)

    def _is_due(self, account: str, state: AccountState, terms: Terms, now_us: int, last: _Judged | None) -> bool:
        """Asked on the marks as they are heard of now: what they change is not in the log yet."""
        cuts = any(unfinished_cuts(state, terms.control))
        flattens = any(stop.flatten for stop in terms.control.stops)
        capped = terms.limits.policy.greeks_cut_at is not None and bool(state.book.lots.any())
        if not (state.orders or state.instructions or cuts or flattens or capped):
            return False
        if overdue(state, terms.control.epoch, now_us) or releases(state, now_us, terms.control.epoch):
            return True
        valued = observation(state, self._accounts.quotes, tracked_symbols(state), now_us, terms.control.epoch)
        sliced = cuts or (flattens and bool(state.liquidations))
        waits = sliced or bool(state.unfilled_us) or watched(terms, account)  # time alone makes something due
        if last is not None and last.seq == state.seq and last.terms is terms and valued is None and not waits:
            return changes_us(state.tightenings, last.time_us) <= now_us and bool(due(state.fork(), terms, now_us))
        trial = state.fork()
        if valued is not None:
            trial.apply(valued)
        return bool(due(trial, terms, now_us))

    async def _instruct(self, account: str) -> None:
        """All that is due, an append at a time."""
        while True:
            recorded = await self._accounts.record(account, due, self._clock.now_us() + APPEND_DEADLINE_US)
            if recorded.records:
                late = sum(isinstance(record, Escalated) for record in recorded.records)
                LOGGER.warning("instructed", account=account, instructions=len(recorded.records) - late, escalated=late)
            if len(recorded.records) < RECORDS_MAX:
                return
