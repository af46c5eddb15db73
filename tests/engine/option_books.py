"""Options on two stocks and a risk model that has valued them, for the tests of what reads Greeks.

AAA at 100 with a call and a put, BBB at 50 with a call, multipliers of 100; PER_UNIT in the order of the options. No
assertions here.
"""

import datetime
from dataclasses import replace

import numpy as np

from engine.instrument import AssetClass, Instrument, OptionModel, OptionRight, OptionStyle, OptionTerms
from engine.risk import model as risk_model
from engine.risk.model import OPTION_ARRAYS, RiskModel, option_columns
from tests.engine.builders import model, stock, universe


def option(symbol: str, right: OptionRight, underlying: str = "AAA", strike: float = 100.0) -> Instrument:
    contract = OptionTerms(strike, right, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON, volatility=0.2)
    expiry = datetime.date(2030, 1, 18)
    return Instrument(
        symbol, AssetClass.OPTION, "USD", 1.0, 0.01, 100.0, underlying=underlying, expiry=expiry, option=contract
    )


UNIVERSE = universe(
    stock("AAA"),
    stock("BBB"),
    option("CALL", OptionRight.CALL),
    option("PUT", OptionRight.PUT),
    option("BCALL", OptionRight.CALL, "BBB", 50.0),
)
MARKS = {"AAA": 100.0, "BBB": 50.0, "CALL": 5.0, "PUT": 4.0, "BCALL": 3.0}
PER_UNIT = {
    "reference": (100.0, 100.0, 50.0),
    "spot": (100.0, 100.0, 50.0),
    "price": (5.0, 4.0, 3.0),
    "delta": (0.5, -0.4, 0.6),
    "gamma": (0.02, 0.03, 0.04),
    "theta": (-0.05, -0.04, -0.02),
    "vega": (0.3, 0.2, 0.1),
}


def risk(**fields: object) -> RiskModel:
    plain = model({symbol: [0.0] * 25 for symbol in MARKS}, **fields)  # type: ignore[arg-type]
    values = dict.fromkeys(OPTION_ARRAYS, (0.0,) * 3) | PER_UNIT
    columns = option_columns(np.array([2, 3, 4]), np.array([values[name] for name in OPTION_ARRAYS]))
    grid = np.array([(-0.2, 0.2), (-0.2, 0.2), (-0.05, 0.18), (0.16, -0.04), (-0.05, 0.18)])
    return risk_model.decode(risk_model.encode(replace(plain, options=columns, grid=grid)))


RISK = risk()
