"""Which approvals may still be acted on: the newest control epoch seen of each account, and how long one holds.

A reply in flight when trading is stopped may still arrive: whoever has seen the stop must not act on it. Rules and
memory only, safe for threads. The gateway's epochs only grow; where its control history was lost and grows anew, a
client that remembers approves nothing until it is made again, which is the side to err on.
"""

import threading
from dataclasses import replace
from datetime import UTC, datetime

from gateway.client.attempts import World
from gateway.client.values import DROPPED, Verdict


class Freshness:
    """What one client has seen. Every epoch in an answer or on a stream is told to it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}
        self._wide_epoch, self._wide_s = 0, float("-inf")

    def saw(self, account: str, epoch: int) -> None:
        """An epoch of one account, from wherever."""
        with self._lock:
            self._newest[account] = max(epoch, self._newest.get(account, 0))

    def saw_of_all(self, epoch: int) -> None:
        """A stop or resume of all accounts has been answered just now. Its epoch is the highest of theirs, so it judges
        only what was asked before it: what is asked from here on is decided after it."""
        with self._lock:
            self._wide_epoch = max(epoch, self._wide_epoch)
            self._wide_s = self._world.monotonic_s()

    def as_of_now(self, verdict: Verdict) -> Verdict:
        """The verdict, or the same with its approval dropped where it has become old."""
        why = self._why_old(verdict) if verdict.allowed else ""
        return dropped(verdict, why) if why else verdict

    def _why_old(self, verdict: Verdict) -> str:
        with self._lock:
            newest = self._newest.get(verdict.order.account, 0)
            if verdict.asked_s < self._wide_s:
                newest = max(newest, self._wide_epoch)
        if verdict.epoch < newest:
            return (
                f"approved under epoch {verdict.epoch}, and epoch {newest} has been seen since: trading was stopped,"
                " resumed or given other limits meanwhile"
            )
        if verdict.valid_until is None:
            return ""
        held_s = (verdict.valid_until - verdict.decide_time).total_seconds()
        if self._world.monotonic_s() - verdict.asked_s >= held_s:
            return f"the approval held for {held_s:g} s, and they have passed since it was asked for"
        if verdict.replayed and datetime.fromtimestamp(self._world.wall_s(), UTC) >= verdict.valid_until:
            return f"the approval was made before and held until {verdict.valid_until.isoformat()}"
        return ""


def dropped(verdict: Verdict, why: str) -> Verdict:
    """The verdict without its approval."""
    reserved = "; what was approved stays reserved until it is reported as not sent" if verdict.sequence else ""
    return replace(
        verdict,
        allowed=False,
        quantity=0.0,
        action=DROPPED,
        reason=DROPPED,
        approval=b"",
        message=f"dropped: {why}{reserved}",
        dropped_because=why,
    )
