"""An account's state and the worker's report as one message: what GetRiskState answers and StreamRiskState sends."""

import math
from collections.abc import Iterable

from engine.account import AccountState, Holding
from engine.control import Control, Scope, TradingState
from engine.instrument import InstrumentSet
from engine.order import Action
from engine.pnl import drawdowns
from engine.report import RiskReport, exposures
from engine.report import StressLoss as ReportedLoss
from engine.risk.loss_answers import loss_status
from engine.utilisation import LimitUse, UseStatus, limit_uses
from gateway.committer import Reading
from gateway.rpc.convert.events import outlook_message
from gateway.rpc.convert.instructions import outstanding
from gateway.rpc.convert.liquidation_progress import liquidations
from gateway.rpc.convert.losses import breaker_message, status_message
from gateway.rpc.convert.responses import (
    duration,
    known,
    latch_cause,
    open_order,
    recent_decision,
    shadow_counts,
    stop_cause,
    timestamp,
    trading_state,
    unit_name,
)
from riskgateway.v1 import account_pb2, control_pb2, limit_pb2, risk_pb2

_USE_STATUSES = {
    UseStatus.OK: limit_pb2.LIMIT_STATUS_OK,
    UseStatus.WARNING: limit_pb2.LIMIT_STATUS_WARNED,
    UseStatus.BREACHED: limit_pb2.LIMIT_STATUS_BREACHED,
    UseStatus.UNEVALUABLE: limit_pb2.LIMIT_STATUS_UNEVALUABLE,
}
_VAR_METHODS = {"historical": risk_pb2.VAR_METHOD_HISTORICAL}
_QUANTILE_METHODS = {"order_statistic": risk_pb2.QUANTILE_METHOD_ORDER_STATISTIC}


def risk_state(reading: Reading, report: RiskReport | None) -> account_pb2.RiskState:
    """The account as of the reading; money in its base currency. The report keeps its own, older stamp."""
    state, terms, now_us = reading.state, reading.terms, reading.now_us
    session, model = state.session, terms.model
    exposed = exposures(state, terms, now_us)
    uses = limit_uses(state, terms, now_us)
    message = account_pb2.RiskState(
        account=state.account,
        sequence=reading.head.seq,
        head_hash=reading.head.hash,
        stop_epoch=terms.control.epoch,
        state_time=timestamp(now_us),
        trading_state=trading_state(account_state(state, terms.control)),
        causes=causes(state, terms.control),
        base_currency=state.base_currency,
        equity=known(state.equity()),
        cash=[
            account_pb2.CashBalance(currency=currency, amount=amount) for currency, amount in sorted(state.cash.items())
        ],
        nav=known(state.nav()),
        high_water_mark=state.nav_peak or None,
        drawdown=known(state.drawdown()),
        drawdown_session=_fall(state.nav(), session.nav_peak) if session is not None else None,
        drawdown_since_reset=drawdowns(state, terms.control).since_reset,
        session_date=session.date if session is not None else "",
        session_pnl=known(state.session_pnl()),
        realised_pnl=math.fsum(h.realised for h in state.holdings.values()) - state.fees_total,
        unrealised_pnl=known(math.fsum(_unrealised(state, key[1], h) for key, h in state.holdings.items() if h.lots)),
        gross_exposure=exposed[0] if exposed is not None else None,
        net_exposure=exposed[1] if exposed is not None else None,
        positions=_positions(state, terms.instruments, now_us),
        open_orders=[open_order(state, order, now_us) for order in state.orders.values()],
        limits=[limit_use(use, state.base_currency) for use in uses],
        loss_status=status_message(loss_status(uses)),
        breaker=breaker_message(state, terms.limits.policy.breaker),
        counters=_counters(state, report),
        risk_model=model.hash if model is not None else "",
        limit_set=terms.limits.hash,
        instrument_set=terms.instruments.hash,
        model_session_date=model.session_date.isoformat() if model is not None else "",
        session_open_equity=known(session.equity_open) if session is not None else None,
        session_flows=session.flows if session is not None else 0.0,
        shadow_by_action=shadow_counts(state),
        recent_decisions=[recent_decision(state, recent) for recent in state.recent],
        instructions=outstanding(state),
        liquidations=liquidations(state, terms, now_us),
        accrued_dividends=known(state.accrued_value()) if state.accruals else None,
    )
    if report is not None:
        message.report.CopyFrom(report_message(report, state.base_currency))
        if report.events is not None:
            message.events.CopyFrom(outlook_message(report.events))
    return message


def account_state(state: AccountState, control: Control) -> TradingState:
    """The strictest of the stops and latches that reach the whole account."""
    whole = Scope(state.account)
    stops = [stop.state for stop in control.stops if stop.scope.covers(whole)]
    latches = [
        latch.state
        for latch, seq in state.latches.values()
        if latch.scope.covers(whole) and state.latch_holds(latch, seq, control)
    ]
    return max((*stops, *latches), default=TradingState.ACTIVE)


def causes(state: AccountState, control: Control) -> list[control_pb2.TradingStateCause]:
    """Every stop and latch that reaches any part of the account, strictest first."""
    stops = [stop_cause(stop) for stop in control.stops if stop.scope.account in ("", state.account)]
    latches = [
        latch_cause(latch, seq) for latch, seq in state.latches.values() if state.latch_holds(latch, seq, control)
    ]
    return sorted((*stops, *latches), key=lambda cause: -cause.state)


def _fall(nav: float, peak: float) -> float | None:
    return known(1.0 - nav / peak) if peak > 0 else None


def _unrealised(state: AccountState, symbol: str, holding: Holding) -> float:
    """NaN where mark or rate is missing."""
    slot, prices = state.slots[symbol], state.prices
    if prices.mark[slot] == 0.0 or prices.fx[slot] == 0.0:
        return math.nan
    gain = (float(prices.mark[slot]) - holding.average_cost) * float(state.unit[slot]) * float(prices.fx[slot])
    return holding.lots * gain


def _positions(state: AccountState, instruments: InstrumentSet, now_us: int) -> Iterable[account_pb2.Position]:
    """Held, or with open orders; the open lots of a strategy are counted from its own orders."""
    opened: dict[tuple[str, str], list[int]] = {}
    for order in state.orders.values():
        sides = opened.setdefault((order.strategy, order.symbol), [0, 0])
        sides[0 if order.sign > 0 else 1] += order.counted
    held = {key for key, holding in state.holdings.items() if holding.lots}
    for strategy, symbol in sorted(held | opened.keys()):
        buys, sells = opened.get((strategy, symbol), (0, 0))
        yield _position(state, instruments, strategy, symbol, buys, sells, now_us)


def _position(
    state: AccountState, instruments: InstrumentSet, strategy: str, symbol: str, buys: int, sells: int, now_us: int
) -> account_pb2.Position:
    holding, listed, slot = state.holding(strategy, symbol), state.listed[symbol], state.slots[symbol]
    instrument = instruments.get(symbol)
    mark, unit_value = float(state.prices.mark[slot]), float(state.unit_values()[slot])
    message = account_pb2.Position(
        strategy=strategy,
        symbol=symbol,
        quantity=holding.lots * listed.lot_size,
        average_cost=holding.average_cost,
        mark=mark or None,
        market_value=holding.lots * unit_value if unit_value else None,
        open_buy_quantity=buys * listed.lot_size,
        open_sell_quantity=sells * listed.lot_size,
        unrealised_pnl=known(_unrealised(state, symbol, holding)),
        realised_pnl=holding.realised,
        currency=listed.currency,
        sector=instrument.sector if instrument is not None else "",
    )
    if mark:
        message.mark_age.CopyFrom(duration(max(0, now_us - int(state.prices.time_us[slot]))))
    return message


def limit_use(use: LimitUse, base_currency: str) -> limit_pb2.LimitUse:
    value = known(use.value)
    return limit_pb2.LimitUse(
        measure=use.measure,
        scope=use.scope,
        value=value,
        warn=use.warn,
        limit=use.limit,
        unit=unit_name(use.unit, base_currency),
        utilization=None if value is None or use.limit == 0 else value / use.limit,
        headroom=None if value is None else use.limit - value,
        status=_USE_STATUSES[use.status],
        unevaluable=use.status is UseStatus.UNEVALUABLE,
        message=use.note,
        hard=use.hard,
        mode=limit_pb2.LIMIT_MODE_SHADOW if use.shadow else limit_pb2.LIMIT_MODE_ENFORCED,
    )


def _counters(state: AccountState, report: RiskReport | None) -> account_pb2.Counters:
    count = {action: state.decisions_by_action.get(action, 0) for action in Action}
    return account_pb2.Counters(
        allowed=count[Action.ALLOW],
        warned=count[Action.WARN],
        reduced=count[Action.REDUCE],
        rejected=count[Action.REJECT],
        halted=count[Action.HALT],
        approvals=sum(n for action, n in count.items() if action.allows),
        active_breaches=report.active_breaches if report is not None else 0,
        passive_breaches=report.passive_breaches if report is not None else 0,
        fills=len(state.executions),
        instructions_outstanding=len(state.instructions),
        instructions_escalated=state.escalated_count,
    )


def report_message(report: RiskReport, base_currency: str) -> risk_pb2.RiskReport:
    message = risk_pb2.RiskReport(
        account=report.account,
        sequence=report.seq,
        report_time=timestamp(report.time_us),
        var_95=known(report.var_95),
        var_99=known(report.var_99),
        es_95=known(report.es_95),
        es_99=known(report.es_99),
        stress_losses=[_stress_loss(loss, report.equity) for loss in report.stress],
        n_observations=report.n_observations,
        method=_VAR_METHODS[report.method],
        quantile_method=_QUANTILE_METHODS[report.quantile],
        risk_model=report.model,
        model_session_date=report.model_session,
        unaffected_positions=report.unaffected_positions,
        warnings=report.warnings,
        base_currency=base_currency,
        equity=known(report.equity),
    )
    if report.worst_stress is not None:
        message.worst_stress.CopyFrom(_stress_loss(report.worst_stress, report.equity))
    return message


def _stress_loss(loss: ReportedLoss, equity: float | None) -> risk_pb2.StressLoss:
    ratio = loss.loss / equity if equity is not None and equity > 0 else None
    return risk_pb2.StressLoss(name=loss.name, loss=loss.loss, loss_ratio=ratio)
