"""Approvals that nobody reports: when they become suspect, and when an account lets go of them by itself.

Pure. A suspect order is still counted, because whoever got the approval may have sent it. It is let go by a report, by
a broker's snapshot taken after its expiry, or, in accounts that have said so by a record of their own, once a delay has
passed on the store's clock: for execution engines that report nothing of what they never sent.
"""

from engine.account import AccountState, OpenOrder
from engine.records import AnyRecord, Released, ReleaseDelaySet

RELEASED_MAX = 1_000
"""Orders in one record: it is to stay small."""


def suspects(state: AccountState, now_us: int) -> list[OpenOrder]:
    """Approved, never reported, and past validity or session."""
    return [order for order in state.orders.values() if order.suspect(now_us)]


def release_delay_set(
    state: AccountState, event_id: str, delay_us: int | None, now_us: int, epoch: int
) -> list[AnyRecord]:
    """`delay_us` None: suspect orders are kept until somebody says what became of them."""
    if event_id in state.events:
        return []
    return [ReleaseDelaySet(time_us=now_us, epoch=epoch, event_id=event_id, delay_us=delay_us)]


def releases(state: AccountState, now_us: int, epoch: int) -> list[AnyRecord]:
    """What is to be let go now, oldest first; nothing in accounts that have set no delay."""
    delay_us = state.release_delay_us
    if delay_us is None:
        return []
    over = [order.client_order_id for order in suspects(state, now_us - delay_us)]
    return [Released(time_us=now_us, epoch=epoch, client_order_ids=tuple(over[:RELEASED_MAX]))] if over else []
