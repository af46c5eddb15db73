"""Risk budgets: what a day in the tail counts for, and shares that one strategy lends another.

Of the VaR that a limit set shares out (Policy.budget_var_limit), allocated is max(0, component VaR) / that limit, per
position (NUMERICS.md, risk budget); the measure `risk_budget` holds it to the rows of a limit set. A loan moves a share
from one strategy's row to another's until it ends: what children have in all stays what it was. Loans are records of
the account's log (engine.records.BudgetLent), judged by the time of the decision, so that none outlives its end.
"""

import math
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.account import AccountState, Floats
from engine.facts import FactError
from engine.limits import EVERY, Limit, LimitSet, ScopeKind
from engine.records import AnyRecord, BudgetLent
from engine.risk.var import tail_count

MEASURE = "risk_budget"

NEIGHBOURS_MAX = 10
"""Order statistics to each side of the VaR that a component is averaged over: one day says little of a position. Fewer
where the tail is shorter."""

LOANS_MAX = 1_000
"""Loans that an account can have at once."""


def day_weights(losses: Floats, confidence: float) -> Floats:
    """(T,) what each day counts for in a component: weights @ losses is VaR (order statistic).

    Conditional expectation E[L_i | L ≈ VaR] over the order statistics next to it, triangular weights, scaled so that
    they sum to VaR (Hallerbach 1999; engine.risk.decomposition, which this equals). Where the average is of another
    sign, the one day of the VaR counts. Raises ValueError on losses that are no numbers or a confidence outside (0, 1).
    """
    if not np.isfinite(losses).all():
        raise ValueError("losses: expected finite numbers, got NaN or infinity")
    count = tail_count(losses.size, confidence)
    neighbours = min(count - 1, NEIGHBOURS_MAX)
    worst = _worst(losses, count + neighbours)
    var = losses.item(worst[count - 1])
    near = worst[count - 1 - neighbours :]
    triangle = neighbours + 1.0 - np.abs(np.arange(len(near)) - neighbours)
    triangle /= triangle.sum()
    mean = float(triangle @ losses[near])
    weights: Floats = np.zeros(losses.size)
    if neighbours and mean * var > 0.0:
        weights[near] = triangle * (var / mean)
        return weights
    at = losses == var
    weights[at] = 1.0 / at.sum()
    return weights


def _worst(losses: Floats, count: int) -> NDArray[np.intp]:
    """The places of the `count` worst losses, worst first, the earlier of equals first: a full sort for a tenth of its
    time."""
    count = min(count, losses.size)
    least = np.partition(losses, losses.size - count)[losses.size - count]
    (places,) = (losses >= least).nonzero()
    worst_first: NDArray[np.intp] = places[np.argsort(-losses[places], kind="stable")][:count]
    return worst_first


def in_force(loans: Iterable[BudgetLent], now_us: int) -> tuple[BudgetLent, ...]:
    """Those that have not ended at an instant."""
    return tuple(loan for loan in loans if not 0 < loan.until_us <= now_us)


def borrowed(loans: Iterable[BudgetLent], strategy: str, now_us: int) -> float:
    """The share that a strategy has of others, less what others have of it: below 0 for who lends more."""
    net = 0.0
    for loan in in_force(loans, now_us):
        net += loan.share * ((loan.taker == strategy) - (loan.giver == strategy))
    return net


class Lending(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants lent: `share` 0 ends the loan."""

    loan_id: str
    giver: str
    taker: str
    share: float
    until_us: int = 0
    """0: until it is ended."""
    actor: str = ""
    reason: str = ""


def budget_lent(state: AccountState, limits: LimitSet, asked: Lending, now_us: int, epoch: int) -> list[AnyRecord]:
    """The record of a loan, new or changed; nothing where it changes nothing. Raises FactError where it is malformed,
    where giver or taker have no `risk_budget` row that refuses, or the giver has not so much to lend."""
    _need_well_formed(asked, now_us)
    known = next((loan for loan in in_force(state.loans, now_us) if loan.loan_id == asked.loan_id), None)
    if asked.share == 0.0 and known is None:
        return []
    if known is not None and (known.giver, known.taker) != (asked.giver, asked.taker):
        raise FactError("loan_id", f"is a loan of {known.giver!r} to {known.taker!r}; end that one first", True)
    if known is not None and (known.share, known.until_us) == (asked.share, asked.until_us):
        return []
    others = tuple(loan for loan in in_force(state.loans, now_us) if loan.loan_id != asked.loan_id)
    if asked.share > 0.0:
        _need_backed(state, limits, others, asked, now_us)
    record = BudgetLent(
        time_us=now_us,
        epoch=epoch,
        loan_id=asked.loan_id,
        giver=asked.giver,
        taker=asked.taker,
        share=asked.share,
        until_us=asked.until_us,
        actor=asked.actor,
        reason=asked.reason,
    )
    return [record]


def _need_well_formed(asked: Lending, now_us: int) -> None:
    if not asked.loan_id.strip():
        raise FactError("loan_id", "expected a name, got none")
    if asked.giver == asked.taker:
        raise FactError("to_strategy", f"expected another strategy than {asked.giver!r}, which lends")
    if not (math.isfinite(asked.share) and 0.0 <= asked.share <= 1.0):
        raise FactError("share", f"expected a share of the budget from 0 to 1, got {asked.share}")
    if asked.until_us and asked.until_us <= now_us:
        raise FactError("end_time", "expected a time to come, or none")


def _need_backed(
    state: AccountState, limits: LimitSet, others: tuple[BudgetLent, ...], asked: Lending, now_us: int
) -> None:
    if len(others) >= LOANS_MAX:
        raise FactError("loan_id", f"the account has {LOANS_MAX} loans already; end one first", True)
    own = strategy_share(limits, state.account, asked.giver)
    for field, strategy, share in (
        ("from_strategy", asked.giver, own),
        ("to_strategy", asked.taker, strategy_share(limits, state.account, asked.taker)),
    ):
        if share is None:
            raise FactError(field, f"no {MEASURE} limit of scope strategy that refuses reaches {strategy!r}", True)
    has = (own or 0.0) + borrowed(others, asked.giver, now_us)
    if asked.share > has + 1e-9:
        raise FactError("share", f"{asked.giver!r} has {has:.4f} to lend, asked are {asked.share:.4f}", True)


def strategy_share(limits: LimitSet, account: str, strategy: str) -> float | None:
    """The least bound of the rows that hold a strategy to a budget; None where none does more than warn."""
    return min((row.limit for row in budget_rows(limits, account, strategy)), default=None)


def budget_rows(limits: LimitSet, account: str, strategy: str) -> tuple[Limit, ...]:
    """The rows of scope strategy that reach it and refuse."""
    return tuple(
        row
        for row in limits.rows_for(account)
        if row.measure == MEASURE and row.scope is ScopeKind.STRATEGY and row.is_hard and row.match in (EVERY, strategy)
    )
