"""The table of measures, in the order in which their reasons take precedence."""

from engine.measures.activity import ADV_SHARE, OPEN_ORDERS, OPEN_POSITIONS, TRADED_QUANTITY, TRADED_VALUE
from engine.measures.budget import RISK_BUDGET
from engine.measures.cluster import CLUSTER_EXPOSURE
from engine.measures.collar import PRICE_COLLAR, PRICE_COLLAR_PASSIVE
from engine.measures.conduct import (
    AGENT_SILENCE,
    CANCEL_RATE,
    LOSS_STREAK,
    MODIFY_RATE,
    ORDER_TO_TRADE,
    SESSION_ORDERS,
    SESSION_TRADES,
    UNATTENDED_EXECUTIONS,
    VENUE_REJECTS,
)
from engine.measures.events import EVENT_BLACKOUT
from engine.measures.exposure import CONCENTRATION, GROSS_EXPOSURE, LEVERAGE, POSITION
from engine.measures.greeks import (
    DELTA_NET,
    DELTA_UNDERLYING,
    GAMMA,
    GAMMA_UNDERLYING,
    THETA_DAY,
    THETA_DAY_UNDERLYING,
    VEGA,
    VEGA_UNDERLYING,
)
from engine.measures.loss import DAILY_LOSS, DRAWDOWN, DRAWDOWN_BREAKER, PROFIT, WEEKLY_LOSS
from engine.measures.margin import MARGIN
from engine.measures.market import MARK_AGE, MARK_MOVE, MARK_SPREAD
from engine.measures.measure import Measure
from engine.measures.net import BETA_EXPOSURE, NET_EXPOSURE
from engine.measures.order import ORDER_QUANTITY, ORDER_RATE, ORDER_VALUE
from engine.measures.permission import DUPLICATE_ORDER, MARKET_PHASE, RESTRICTED
from engine.measures.self_match import SELF_MATCH
from engine.measures.short import SHORT_POSITION
from engine.measures.tail import ES_95, ES_99, STRESS_LOSS, VAR_95, VAR_99
from engine.measures.volatility import STRATEGY_CORRELATION, VOLATILITY

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        RESTRICTED,
        EVENT_BLACKOUT,
        MARKET_PHASE,
        MARK_AGE,
        MARK_SPREAD,
        MARK_MOVE,
        ORDER_RATE,
        CANCEL_RATE,
        MODIFY_RATE,
        ORDER_TO_TRADE,
        SESSION_ORDERS,
        SESSION_TRADES,
        UNATTENDED_EXECUTIONS,
        VENUE_REJECTS,
        LOSS_STREAK,
        AGENT_SILENCE,
        DUPLICATE_ORDER,
        SELF_MATCH,
        OPEN_ORDERS,
        ORDER_QUANTITY,
        ORDER_VALUE,
        PRICE_COLLAR,
        PRICE_COLLAR_PASSIVE,
        ADV_SHARE,
        TRADED_QUANTITY,
        TRADED_VALUE,
        POSITION,
        SHORT_POSITION,
        OPEN_POSITIONS,
        GROSS_EXPOSURE,
        NET_EXPOSURE,
        BETA_EXPOSURE,
        CONCENTRATION,
        CLUSTER_EXPOSURE,
        LEVERAGE,
        MARGIN,
        DELTA_NET,
        DELTA_UNDERLYING,
        GAMMA,
        GAMMA_UNDERLYING,
        THETA_DAY,
        THETA_DAY_UNDERLYING,
        VEGA,
        VEGA_UNDERLYING,
        DAILY_LOSS,
        WEEKLY_LOSS,
        DRAWDOWN,
        DRAWDOWN_BREAKER,
        PROFIT,
        VAR_95,
        VAR_99,
        ES_95,
        ES_99,
        STRESS_LOSS,
        RISK_BUDGET,
        VOLATILITY,
        STRATEGY_CORRELATION,
    )
}
