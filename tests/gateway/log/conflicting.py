"""A log on which every k-th append meets a conflict, as it would with other writers about.

What it answers is what the protocol allows at any time: a Conflict that lacks nothing says "decide again".
"""

from collections.abc import Sequence
from typing import Any

from gateway.log.account_log import AccountLog, AppendResult, Conflict, ControlHead, Head, Page, partition_of


class EveryKthConflicts:
    """Delegates to `log`; an append that would be the k-th, 2k-th, … conflicts and appends nothing."""

    def __init__(self, log: AccountLog, k: int) -> None:
        self._log = log
        self._k = k
        self._appends = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(
        self,
        account: str,
        expect: Head,
        control: ControlHead | None,
        records: Sequence[bytes],
        decided_at_us: int,
        age_max_us: int,
    ) -> AppendResult:
        self._appends += 1
        present = await self._log.read(account, expect.seq, 1)
        if self._appends % self._k == 0 and isinstance(present, Page) and present.head == expect:
            in_force = await self._log.read_control(partition_of(account))
            return Conflict(expect, in_force.head, (), False, present.time_us)
        return await self._log.append(account, expect, control, records, decided_at_us, age_max_us)
