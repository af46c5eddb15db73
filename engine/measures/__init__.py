"""The table of measures, in the order in which their reasons take precedence."""

from engine.measures.activity import ADV_SHARE, OPEN_ORDERS, OPEN_POSITIONS, TRADED_QUANTITY, TRADED_VALUE
from engine.measures.collar import PRICE_COLLAR, PRICE_COLLAR_PASSIVE
from engine.measures.exposure import CONCENTRATION, GROSS_EXPOSURE, LEVERAGE, POSITION
from engine.measures.market import MARK_AGE, MARK_MOVE, MARK_SPREAD
from engine.measures.measure import Measure
from engine.measures.net import BETA_EXPOSURE, NET_EXPOSURE
from engine.measures.order import ORDER_QUANTITY, ORDER_RATE, ORDER_VALUE
from engine.measures.permission import DUPLICATE_ORDER, MARKET_PHASE, RESTRICTED
from engine.measures.short import SHORT_POSITION
from engine.measures.tail import ES_95, ES_99, STRESS_LOSS, VAR_95, VAR_99

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        RESTRICTED,
        MARKET_PHASE,
        MARK_AGE,
        MARK_SPREAD,
        MARK_MOVE,
        ORDER_RATE,
        DUPLICATE_ORDER,
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
        LEVERAGE,
        VAR_95,
        VAR_99,
        ES_95,
        ES_99,
        STRESS_LOSS,
    )
}
