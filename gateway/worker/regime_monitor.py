"""Keeps each account's bounds as tight as the market's regime and the volatility of its own book ask for.

What is asked for stands in engine/risk/volatility.py, and how a regime is read in engine/risk/regime.py: one reading
for each risk model and method, made off the event loop. Any number of workers may do this: what is in the log already
is not appended again.
"""

import asyncio

import structlog

from engine.account import AccountState
from engine.decide import Terms
from engine.limits import RegimeMethod
from engine.records import AnyRecord
from engine.risk.model import RiskModel
from engine.risk.volatility import RegimeReading, market_returns, regime_tightening, target_tightening
from gateway.accounts import Accounts
from gateway.worker.marks_first import marks_first

LOGGER = structlog.get_logger()

READINGS_MAX = 16
"""Readings kept, the newest: of the models and methods that partitions may have armed at once."""


class RegimeMonitor:
    """See the module."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._readings: dict[tuple[str, RegimeMethod], RegimeReading] = {}

    async def look(self, terms: Terms) -> None:
        """Read the regime of the model in force, if the policy asks for it and it was not read yet."""
        model, method = terms.model, terms.limits.policy.volatility_regime
        if model is None or method is RegimeMethod.OFF or (model.hash, method) in self._readings:
            return
        reading = await asyncio.to_thread(_read, model, method)
        if len(self._readings) >= READINGS_MAX:
            del self._readings[next(iter(self._readings))]
        self._readings[model.hash, method] = reading
        LOGGER.info("volatility regime read", method=reading.method, score=reading.score, note=reading.note)

    def due(self, state: AccountState, terms: Terms, now_us: int) -> bool:
        """Whether the account's bounds are not as tight as asked for, at the marks of `state`."""
        return bool(self._records(state, terms, now_us))

    def build(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        """What is due, and before it the marks that it is computed from."""
        return marks_first(state, terms, self._accounts.quotes, now_us, self._records)

    def _records(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        model = "" if terms.model is None else terms.model.hash
        reading = self._readings.get((model, terms.limits.policy.volatility_regime))
        return [*regime_tightening(state, terms, reading, now_us), *target_tightening(state, terms, now_us)]


def _read(model: RiskModel, method: RegimeMethod) -> RegimeReading:
    from engine.risk.regime import regime_reading  # slow to import, and only where a policy asks for it

    try:
        return regime_reading(market_returns(model), method)
    except ValueError as error:
        return RegimeReading(method, None, None, str(error))
