"""An account as it is asked about: the values that every answer of the risk analyst is computed from.

A case is taken at one moment and nothing of it changes any more. Here too: which rows are asked about, and what keeps a
figure over days from being computed. Answers are in the modules named after what is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.instrument import InstrumentSet
from engine.risk.factors import FactorMap
from engine.risk.gap import EventGap
from engine.risk.history import PriceHistory
from engine.risk.holdings import Holdings, Missing
from engine.risk.inquiry import InquiryError, Stamp, Unanswerable, Whose
from engine.risk.model import RiskModel
from engine.risk.options import OptionBook, book_of
from engine.risk.scenarios import SIX_SCENARIOS, Scenario

NAMED_MAX = 5
"""Symbols or strategies told one by one in a message; the rest is a number."""


@dataclass(frozen=True, slots=True, eq=False)
class Assumptions:
    """What the worker computes with, beside the account and the model."""

    scenarios: tuple[Scenario, ...] = SIX_SCENARIOS
    factor_map: FactorMap = field(default_factory=FactorMap)
    prices: PriceHistory | None = None
    gaps: tuple[EventGap, ...] | None = None
    """Through events to come; None: no calendar is followed."""
    ultra_short_limits: Mapping[int, float] = field(default_factory=dict)
    """On the account's ultra-short figures, by horizon in days 1, 3, 5, as shares of equity; empty: none."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """See the module. `account`: the holdings of all strategies; `strategies`: every one the account ever had, ""
    for the one without a name."""

    stamp: Stamp
    account: Holdings
    strategies: tuple[str, ...]
    model: RiskModel | None
    instruments: InstrumentSet
    assumptions: Assumptions
    quantities: NDArray[np.float64]
    """(n,) of the positions of `account`, signed, in units of quantity (lots × lot size)."""
    marks: Mapping[str, float]
    """Prices now by symbol, in the symbol's currency; of underlyings too that nobody holds."""
    rates: Mapping[str, float]
    """Base currency per unit of each currency; the base's own is 1."""
    session_pnl: float | None = None

    def holdings(self, whose: Whose) -> Holdings:
        """The rows asked about. Raises InquiryError on a strategy that the account never had: an answer of zero risk
        to a slip of the pen would be taken for one."""
        if whose.strategy is None:
            return self.account
        if whose.strategy not in self.strategies:
            known = ", ".join(sorted(filter(None, self.strategies))[:NAMED_MAX]) or "none"
            raise InquiryError("strategy", f"{whose.strategy!r} never had an order or a position here; known: {known}")
        return self.account.of_strategy(whose.strategy)

    def over_days(self, whose: Whose) -> tuple[Holdings, RiskModel]:
        """The rows asked about and the model, for figures over historical days. Raises Unanswerable where a mark, a
        rate or history is missing for one of them: a figure of the others would pass for the whole."""
        holdings, model = self.holdings(whose), self.need_model()
        if not holdings.over_days.all():
            missing = [symbol for symbol, known in zip(holdings.symbols, holdings.over_days, strict=True) if not known]
            raise Unanswerable(_why(holdings, missing))
        if not model.n_days:
            raise Unanswerable("the risk model has no days of history; give the worker a price history")
        return holdings, model

    def options(self) -> OptionBook | None:
        """The options that the model has valued; None where it has none. Raises Unanswerable where the instruments have
        changed since."""
        if self.model is None or not len(self.model.options):
            return None
        try:
            return book_of(self.model, self.instruments.instruments)
        except ValueError as error:
            raise Unanswerable(f"the risk model is of other instruments, a new one follows: {error}") from error

    def need_model(self) -> RiskModel:
        if self.model is None:
            raise Unanswerable("no risk model yet: the worker builds one when a session is open and prices are there")
        return self.model

    def notes(self, holdings: Holdings, *kinds: Missing) -> tuple[str, ...]:
        """What is said of gaps of these kinds among the rows asked about; of cash, whatever the rows."""
        asked = {*holdings.symbols}
        return tuple(
            gap.note
            for gap in holdings.gaps
            if gap.missing in kinds and (gap.missing is Missing.CASH or gap.symbol in asked)
        )


def _why(holdings: Holdings, symbols: list[str]) -> str:
    """The notes on these symbols that concern figures over days."""
    notes: Mapping[str, None] = dict.fromkeys(
        gap.note for gap in holdings.gaps if gap.symbol in symbols and gap.missing is not Missing.FACTOR
    )
    told = list(notes) or [f"{symbol} can't be valued or has no history" for symbol in dict.fromkeys(symbols)]
    more = f" (and {len(told) - NAMED_MAX} more)" if len(told) > NAMED_MAX else ""
    return "; ".join(told[:NAMED_MAX]) + more
