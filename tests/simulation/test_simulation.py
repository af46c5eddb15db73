"""Many seeded runs, none of which the checker may object to; and mutants, each of which it must object to.

SEEDS=5000 runs that many, SEED=17 runs one alone. A failing seed stands in the failure.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from engine.account import AccountState, Memo, OpenOrder
from engine.decide import Terms
from engine.order import Action, Order, Reason
from engine.records import Executed, ExecutionKind
from gateway.accounts import Accounts
from gateway.committer import Answer, Check, Committer, Item, _from_memo, _Trial
from gateway.log.account_log import AccountLog, AppendResult, Page
from gateway.log.memory import MemoryLog
from tests.gateway.faults import Wrapped, lose_records
from tests.gateway.world import ACCOUNT, World, buy, report, world_on
from tests.simulation.checker import History, objections
from tests.simulation.simulation import BOUND_LOTS, Settings, simulate
from tests.simulation.virtual import VirtualLoop

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else range(int(os.environ.get("SEEDS", "30")))
MUTANT_SEEDS = range(60)
"""A mutant that none of so many runs gives away is not caught."""


@pytest.mark.parametrize("seed", SEEDS)
def test_no_run_breaks_a_promise(seed: int) -> None:
    assert simulate(seed, Settings()).objections() == []


def test_a_run_does_things_worth_judging() -> None:
    runs = [simulate(seed, Settings()) for seed in range(8)]

    answers = [c.answer for run in runs for c in run.history.checked if c.answer is not None]
    assert {answer.decided.action for answer in answers} >= {Action.ALLOW, Action.REJECT, Action.HALT}
    assert {answer.decided.reason for answer in answers} >= {Reason.SUPERSEDED_BY_STOP, Reason.TRADING_HALTED}
    assert any(checked.answer is None for run in runs for checked in run.history.checked)
    assert any(answer.replayed and answer.decided.action.allows for answer in answers)
    assert sum(len(run.history.stopped) for run in runs) > 8


def test_the_same_seed_gives_the_same_run() -> None:
    assert simulate(5, Settings()).records == simulate(5, Settings()).records


# -- mutants: each breaks one rule of the committer, the log or the fold


class WithoutControlCompare(Wrapped):
    async def append(self, account: str, expect: Any, control: Any, records: Any, at: int, age: int) -> AppendResult:
        return await self._log.append(account, expect, None, records, at, age)


class ReplyingBeforeOk(Committer):
    def _decide(self, batch: list[Item], terms: Terms) -> _Trial:
        trial = super()._decide(batch, terms)
        for item, answer in trial.answers.items():
            if isinstance(item, Check) and not item.done.done():
                item.done.set_result(answer())  # type: ignore[arg-type]
        return trial


class ReplayingWhileStopped(Committer):
    def _replay(self, trial: _Trial, order: Order, memo: Memo) -> Answer:
        return Answer(_from_memo(order, memo, trial.terms), memo.seq, replayed=True)


class ReleasingState(AccountState):
    def fork(self) -> AccountState:
        copy = super().fork()
        copy.__class__ = ReleasingState
        return copy

    def _follow(self, order: OpenOrder, record: Executed) -> None:
        if record.kind == ExecutionKind.CANCEL_REQUESTED:
            record = msgspec.structs.replace(record, kind=ExecutionKind.CANCELLED)
        super()._follow(order, record)


class ReleasingOnCancelRequest(Committer):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state = ReleasingState(self.account)


def accounts_with(committer: type[Committer]) -> type[Accounts]:
    class Mutants(Accounts):
        def _committer(self, account: str) -> Committer:
            if account not in self._committers:
                mutant = committer(account, self.log, self.shelf, self.quotes, self.clock, self._changed, self._folded)
                self._committers[account] = mutant
                self._tasks[account] = asyncio.create_task(mutant.run())
            return self._committers[account]

    return Mutants


@pytest.mark.parametrize(
    ("mutation", "words"),
    [
        (Settings(make_log=WithoutControlCompare), "after a stop"),
        (Settings(make_accounts=accounts_with(ReplyingBeforeOk)), "its place"),
        (Settings(make_accounts=accounts_with(ReplayingWhileStopped)), "after a stop"),
        (Settings(make_accounts=accounts_with(ReleasingOnCancelRequest)), "could end anywhere"),
    ],
    ids=["no control compare", "reply before Ok", "replay while stopped", "release on cancel request"],
)
def test_the_checker_objects_to_a_mutant(mutation: Settings, words: str) -> None:
    found = (objection for seed in MUTANT_SEEDS for objection in simulate(seed, mutation).objections())

    assert any(words in objection for objection in found)


# -- a log that goes backwards


class ComparingVersionsOnly(Wrapped):
    """Takes any head of the right sequence number for the right one."""

    async def append(self, account: str, expect: Any, control: Any, records: Any, at: int, age: int) -> AppendResult:
        present = await self._log.heads([account])
        if present[account].seq == expect.seq:
            expect = present[account]
        return await self._log.append(account, expect, control, records, at, age)


async def _approve_on_a_fork(log: AccountLog, world: World, memory: MemoryLog) -> list[str]:
    """A release of 100 lots is acknowledged and lost; a stranger brings the log back to the same length."""
    history = History()
    gateway = await world.gateway(log)

    async def ask(name: str, quantity: float) -> None:
        checked = history.invoke(buy(name, quantity))
        history.answered(checked, await gateway.check(checked.order))

    await ask("held", 100)
    await gateway.report(report("x", "held", "cancelled"))
    kept = (await gateway.read()).head.seq - 1
    lose_records(memory, ACCOUNT, kept)
    stranger = await world.gateway()
    await stranger.check(buy("stranger", 1_000_000))
    await world.crash(stranger)
    await ask("again", 100)
    page = await memory.read(ACCOUNT, 0, 1_000)
    assert isinstance(page, Page)
    return objections(page.records, page.head, history, BOUND_LOTS, kept)


@pytest.mark.parametrize(("mutant", "objects"), [(False, False), (True, True)])
def test_a_fork_of_the_same_length_is_built_on_only_by_who_compares_versions(mutant: bool, objects: bool) -> None:
    async def run(loop: VirtualLoop) -> list[str]:
        memory = MemoryLog(loop.time_us)
        async with world_on(memory, loop.time_us) as world:
            await world.crash(await world.open())
            log: AccountLog = ComparingVersionsOnly(memory) if mutant else memory
            return await _approve_on_a_fork(log, world, memory)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        found: Sequence[str] = runner.run(run(loop))

    assert any("could end anywhere" in objection for objection in found) == objects
