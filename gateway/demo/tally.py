"""What has been decided so far, and how each account stands against its limits: what the screen and the summary show.

Reads the contract's messages and keeps counts; sends nothing and prints nothing.
"""

from collections import Counter
from dataclasses import dataclass, field

from riskgateway.v1 import account_pb2, decision_pb2, risk_gateway_pb2

ACTIONS = ("ALLOW", "WARN", "REDUCE", "REJECT", "HALT")
"""Mildest first, as the columns of the tables."""

UNBOUND = "(within all limits)"


@dataclass(frozen=True, slots=True)
class Use:
    """A measure of the whole account against its bound, both in the limit's unit; None: can't be computed, or none."""

    value: float | None
    bound: float | None


@dataclass(slots=True)
class Tally:
    """Decisions by what bound them and by action."""

    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Keyed by (binding measure, action)."""
    not_orders: Counter[str] = field(default_factory=Counter)
    """What the gateway made no sense of, by its words: nothing was decided on those."""
    asked_shares: float = 0.0
    allowed_shares: float = 0.0

    def count(self, asked_shares: float, answer: risk_gateway_pb2.CheckOrderResponse) -> None:
        self.decisions[binding_measure(answer), action_name(answer)] += 1
        self.asked_shares += asked_shares
        self.allowed_shares += answer.allowed_quantity

    def by_action(self) -> Counter[str]:
        sums: Counter[str] = Counter()
        for (_, action), number in self.decisions.items():
            sums[action] += number
        return sums


def merged(tallies: list[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.decisions.update(tally.decisions)
        total.not_orders.update(tally.not_orders)
        total.asked_shares += tally.asked_shares
        total.allowed_shares += tally.allowed_shares
    return total


def action_name(answer: risk_gateway_pb2.CheckOrderResponse) -> str:
    return decision_pb2.Action.Name(answer.action).removeprefix("ACTION_")


def binding_measure(answer: risk_gateway_pb2.CheckOrderResponse) -> str:
    """The measure that decided: where several are as strict, the one whose reason the answer names, else the first.
    A refusal by a rule that is no limit (a stop, an unknown symbol) goes by its reason."""
    if answer.action == decision_pb2.ACTION_ALLOW:
        return UNBOUND
    strictest = [check for check in answer.checks if check.action > decision_pb2.ACTION_ALLOW and not check.shadow]
    named = [check for check in strictest if check.reason == answer.reason]
    if named and answer.reason != decision_pb2.REASON_NONE:
        return named[0].measure
    if strictest and answer.action != decision_pb2.ACTION_HALT:
        return max(strictest, key=lambda check: check.action).measure
    return decision_pb2.Reason.Name(answer.reason).removeprefix("REASON_").lower()


def use_of(state: account_pb2.RiskState, measure: str) -> Use:
    """The account's standing value of a measure, from the gateway's own evaluation of its limits."""
    for limit in state.limits:
        if limit.measure == measure and limit.scope.startswith("account:"):
            return Use(
                limit.value if limit.HasField("value") else None,
                limit.limit if limit.HasField("limit") else None,
            )
    return Use(None, None)
