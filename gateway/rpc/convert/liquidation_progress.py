"""How far the gateway's own orders have got in closing and cutting positions, for RiskState.

Read from the fold and its marks; what is left is costed as a plan would be (`engine.liquidation`). Nothing is planned.
"""

from collections.abc import Iterable

from engine.account import AccountState
from engine.decide import Terms
from engine.liquidation import expected_cost, goes_on
from engine.measures.measure import Survey
from gateway.rpc.convert.responses import timestamp
from riskgateway.v1 import account_pb2


def liquidations(state: AccountState, terms: Terms, now_us: int) -> Iterable[account_pb2.LiquidationProgress]:
    """By strategy and symbol, done ones included."""
    if not state.liquidations:
        return
    survey = Survey(state, terms.instruments, terms.model, terms.limits.policy, now_us)
    for (strategy, symbol), progress in sorted(state.liquidations.items()):
        held, lot_size = abs(state.holding(strategy, symbol).lots), state.listed[symbol].lot_size
        left = min(held, max(0, progress.planned - progress.filled)) if progress.is_cut else held
        yield account_pb2.LiquidationProgress(
            strategy=strategy,
            symbol=symbol,
            planned_quantity=progress.planned * lot_size,
            sent_quantity=progress.sent * lot_size,
            filled_quantity=progress.filled * lot_size,
            left_quantity=left * lot_size,
            expected_cost=expected_cost(survey, {symbol: left}),
            start_time=timestamp(progress.start_us),
            active=left > 0 and goes_on(state, terms.control, (strategy, symbol)),
        )
