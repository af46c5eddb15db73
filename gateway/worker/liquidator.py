"""Plans of a liquidation for whoever asks: what a flattening would send now, at which cost, down which path of risk.

The account is read by whoever calls, at the newest marks; the plan is `engine.liquidation`'s. Nothing is sent: that
is StopAll with `flatten`, whose orders `engine.instructions` makes slice by slice.
"""

from dataclasses import replace

from engine.account import AccountState
from engine.control import Scope
from engine.decide import Terms
from engine.liquidation import PlanAnswer, PlanInquiry, plan
from engine.risk.inquiry import InquiryError, Stamp


def plan_answer(state: AccountState, terms: Terms, stamp: Stamp, inquiry: PlanInquiry, now_us: int) -> PlanAnswer:
    """The plan for what the inquiry names of `state`, a fork that nobody else changes. Raises InquiryError where the
    account never had the symbol or the strategy."""
    if inquiry.symbol and inquiry.symbol not in state.slots:
        raise InquiryError("symbol", f"{state.account} never held or ordered {inquiry.symbol!r}")
    if inquiry.strategy and all(strategy != inquiry.strategy for strategy, _ in state.holdings):
        raise InquiryError("strategy", f"{state.account} has no position of strategy {inquiry.strategy!r}")
    scope = Scope(state.account, inquiry.strategy, inquiry.symbol)
    found = plan(state, terms.instruments, terms.model, terms.limits.policy, now_us, scope, inquiry.fraction)
    warnings = tuple(dict.fromkeys((*stamp.warnings, *found.warnings)))
    lot_sizes = {symbol: listed.lot_size for symbol, listed in state.listed.items()}
    return PlanAnswer(replace(stamp, warnings=warnings), found, lot_sizes)
