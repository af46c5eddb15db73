"""The table of measures, in the order in which their reasons take precedence."""

from engine.measures.exposure import CONCENTRATION, GROSS_EXPOSURE, LEVERAGE, POSITION
from engine.measures.market import MARK_AGE, MARK_MOVE, MARK_SPREAD
from engine.measures.measure import Measure
from engine.measures.order import ORDER_QUANTITY, ORDER_RATE, ORDER_VALUE
from engine.measures.tail import ES_95, ES_99, STRESS_LOSS, VAR_95, VAR_99

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        MARK_AGE,
        MARK_SPREAD,
        MARK_MOVE,
        ORDER_RATE,
        ORDER_QUANTITY,
        ORDER_VALUE,
        POSITION,
        GROSS_EXPOSURE,
        CONCENTRATION,
        LEVERAGE,
        VAR_95,
        VAR_99,
        ES_95,
        ES_99,
        STRESS_LOSS,
    )
}
