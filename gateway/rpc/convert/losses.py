"""Losses and the drawdown breaker in the contract's words: GetLossHistory, and what RiskState tells of both.

Light: the gateway imports it too. Nothing is computed here.
"""

from engine.account import AccountState
from engine.breaker import scale_of
from engine.limits import Breaker
from engine.records import BreakerMoved, BreakerStage
from engine.risk.loss_answers import LossStatus
from engine.risk.loss_answers import SessionLoss as Told
from gateway.rpc.convert.form import Form
from gateway.rpc.convert.responses import known, timestamp
from riskgateway.v1 import account_pb2, limit_pb2, risk_analytics_pb2

SESSIONS_DEFAULT = 30
SESSIONS_MAX = 520

_STATUSES = {
    None: limit_pb2.LOSS_STATUS_UNSPECIFIED,
    LossStatus.OK: limit_pb2.LOSS_STATUS_OK,
    LossStatus.WARNING: limit_pb2.LOSS_STATUS_WARNING,
    LossStatus.UNEVALUABLE: limit_pb2.LOSS_STATUS_UNEVALUABLE,
    LossStatus.BREACHED: limit_pb2.LOSS_STATUS_BREACHED,
}
_STAGES = {
    stage: account_pb2.BreakerStage.Value(f"BREAKER_STAGE_{stage.name}")  # named alike in both
    for stage in BreakerStage
}


def loss_request(request: risk_analytics_pb2.GetLossHistoryRequest) -> tuple[str, int]:
    """(account, sessions)."""
    form = Form()
    account = form.name("account", request.account)
    form.count("sessions", request.sessions, 0, SESSIONS_MAX)
    form.done()
    return account, request.sessions or SESSIONS_DEFAULT


def status_message(status: LossStatus | None) -> "limit_pb2.LossStatus.ValueType":
    return _STATUSES[status]


def session_loss(one: Told) -> risk_analytics_pb2.SessionLoss:
    return risk_analytics_pb2.SessionLoss(
        session_date=one.date,
        open_equity=one.open_equity,
        equity=one.equity,
        flows=one.flows,
        pnl=one.pnl,
        daily_loss=one.daily_loss,
        weekly_loss=one.weekly_loss,
        open=one.open,
    )


def breaker_message(state: AccountState, rule: Breaker | None) -> account_pb2.DrawdownBreaker | None:
    """None where no breaker is armed."""
    if rule is None:
        return None
    breaker = state.breaker
    return account_pb2.DrawdownBreaker(
        stage=_STAGES[breaker.stage],
        peak=breaker.peak or None,
        scale=scale_of(breaker.stage, rule, breaker.sessions),
        sessions=breaker.sessions,
        moves=[_move(state, one) for one in breaker.moves],
    )


def _move(state: AccountState, moved: BreakerMoved) -> account_pb2.BreakerMove:
    targets = {(one.strategy, one.symbol): one.target for one in moved.cuts}
    return account_pb2.BreakerMove(
        move_time=timestamp(moved.time_us),
        before=_STAGES[moved.before],
        stage=_STAGES[moved.stage],
        drawdown=moved.drawdown,
        equity=moved.equity,
        session_pnl=known(moved.session_pnl),
        reason=moved.reason,
        positions=[
            account_pb2.BreakerPosition(
                strategy=one.strategy,
                symbol=one.symbol,
                quantity=one.lots * state.listed[one.symbol].lot_size,
                value=one.value,
                target_quantity=None
                if (target := targets.get((one.strategy, one.symbol))) is None
                else target * state.listed[one.symbol].lot_size,
            )
            for one in moved.positions
        ],
    )
