"""What stands in the scope of a stop once it is in force: the orders that may still fill, and the gateway's own that
flatten.

The cancels and flatten orders that the stop asks for are instructed here too; the worker makes whatever is left. An
account that can't be read or written takes nothing from the others.
"""

import asyncio
from dataclasses import dataclass

from engine.account import OpenOrder
from engine.control import Scope
from engine.instructions import RECORDS_MAX, due_on_stops
from gateway.accounts import Accounts
from gateway.committer import Reading
from gateway.errors import UnknownAccount
from gateway.rpc.approval import Approvals
from gateway.rpc.convert.instructions import flatten_orders
from gateway.rpc.convert.responses import open_order
from riskgateway.v1 import order_pb2, risk_gateway_pb2

ORDERS_MAX = 1_000
"""Listed in an answer; the streams carry all."""

PROBLEMS_MAX = 100
"""Told one by one in an answer: the caller must be able to take it, whatever 10,000 accounts have met with."""


@dataclass(frozen=True, slots=True)
class Standing:
    """`readings`: the accounts in scope as they were read last; `problems`: why there are no more of them, or why not
    all that is due was instructed."""

    readings: tuple[Reading, ...]
    problems: tuple[str, ...]

    def open_orders(self, scope: Scope) -> list[order_pb2.OpenOrder]:
        """In scope, approved before the stop, oldest first, at most one more than ORDERS_MAX."""
        found = [(order, reading) for reading in self.readings for order in _covered(reading, scope)]
        found.sort(key=lambda entry: (entry[0].time_us, entry[0].seq))
        return [open_order(reading.state, order, reading.now_us) for order, reading in found[: ORDERS_MAX + 1]]

    def flatten_orders(self, scope: Scope, approvals: Approvals) -> list[risk_gateway_pb2.FlattenOrder]:
        """In scope, oldest first within an account, at most one more than ORDERS_MAX."""
        found: list[risk_gateway_pb2.FlattenOrder] = []
        for reading in self.readings:
            found += flatten_orders(reading.state, scope, approvals, ORDERS_MAX + 1 - len(found))
        return found


def _covered(reading: Reading, scope: Scope) -> list[OpenOrder]:
    state, epoch = reading.state, reading.terms.control.epoch
    return [
        order
        for order in state.orders.values()
        if order.epoch < epoch
        and not order.own
        and scope.reaches(state.account, order.strategy, order.symbol, order.sender)
    ]


async def standing(accounts: Accounts, scope: Scope, until_us: int) -> Standing:
    """The accounts in scope. Never raises: the stop stands already."""
    names = [scope.account] if scope.account else sorted(accounts.names)
    read = await asyncio.gather(*(accounts.read(name, until_us) for name in names), return_exceptions=True)
    problems = [
        f"open orders of account {name} can't be listed: {type(outcome).__name__}"
        for name, outcome in zip(names, read, strict=True)
        if not isinstance(outcome, Reading | UnknownAccount)  # one without a first record has no orders
    ]
    return Standing(tuple(outcome for outcome in read if isinstance(outcome, Reading)), _few(problems))


async def instructed(accounts: Accounts, left: Standing, until_us: int) -> Standing:
    """The same with what the stops in force ask for instructed, as far as that is possible in the time given. Never
    raises."""
    readings, problems = list(left.readings), list(left.problems)
    told = await asyncio.gather(*(_instructed(accounts, r, until_us) for r in readings), return_exceptions=True)
    for place, outcome in enumerate(told):
        if isinstance(outcome, Reading):
            readings[place] = outcome
        else:
            problems.append(
                f"not all cancels and flatten orders of account {readings[place].state.account} are instructed yet, "
                f"the worker goes on: {type(outcome).__name__}"
            )
    return Standing(tuple(readings), _few(problems))


def _few(problems: list[str]) -> tuple[str, ...]:
    if len(problems) > PROBLEMS_MAX:
        problems[PROBLEMS_MAX:] = [f"and {len(problems) - PROBLEMS_MAX} more like these"]
    return tuple(problems)


async def _instructed(accounts: Accounts, reading: Reading, until_us: int) -> Reading:
    """The account with all instructed that stops ask for, an append at a time."""
    if not due_on_stops(reading.state, reading.terms, reading.now_us):
        return reading
    account = reading.state.account
    while len((await accounts.record(account, due_on_stops, until_us)).records) == RECORDS_MAX:
        pass
    return await accounts.read(account, until_us)
