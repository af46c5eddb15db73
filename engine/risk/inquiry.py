"""What can be asked of the risk analyst, and what every answer says of itself.

Values only: the border makes inquiries, the worker answers them (the *_answers modules). An inquiry is well formed by
itself; what it names (a scenario, a strategy) may still be unknown, which is an InquiryError, and what it needs may be
missing, which is Unanswerable. Light to import: the computing modules are not.
"""

import datetime
import math
from dataclasses import dataclass
from typing import Literal

from engine.risk.scenarios import Scenario
from engine.risk.var import Quantile


class InquiryError(Exception):
    """An argument that makes no sense for this account or model. `field`: its path in the contract."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class Unanswerable(Exception):
    """A mark, a rate, history or the risk model is missing; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Whose:
    """The book that is asked about. `strategy` None: the whole account; "" is the strategy without a name."""

    account: str
    strategy: str | None = None
    open_orders: bool = True


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer was computed from, and how old that is."""

    account: str
    strategy: str | None
    seq: int
    time_us: int
    base_currency: str
    equity: float | None
    model: str = ""
    model_session: str = ""
    model_built_us: int = 0
    """0: no model."""
    last_price_date: str = ""
    """Date of the newest close in the model; empty: none."""
    marks_oldest_us: int = 0
    """Time of the oldest mark or rate that the book is valued at; 0: none is."""
    open_orders: bool = True
    unaffected: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def equity_positive(self) -> float | None:
        """What ratios are taken of; None where there is none to take."""
        return self.equity if self.equity is not None and self.equity > 0.0 else None


def ratio_of(amount: float, stamp: Stamp) -> float | None:
    """A share of equity; None where equity is not positive or not known, or the amount no number."""
    equity = stamp.equity_positive
    return None if equity is None or not math.isfinite(amount) else amount / equity


# The same names as in estimate.py and what it calls, which are slow to import.
Method = Literal["historical", "parametric", "monte_carlo", "filtered"]
HorizonMethod = Literal["overlapping", "square_root"]
Mean = Literal["zero", "sample"]
Family = Literal["gaussian", "student_t", "cornish_fisher"]
Filter = Literal["ewma", "garch"]
Copula = Literal["gaussian", "student_t"]
Window = tuple[datetime.date, datetime.date]


@dataclass(frozen=True, slots=True)
class StressInquiry:
    """`names`: scenarios of the model; with neither names nor customs: all of the model's."""

    whose: Whose
    names: tuple[str, ...] = ()
    customs: tuple[Scenario, ...] = ()
    run_all: bool = False
    """Also the grid of each underlying and the replay of each shipped window."""


@dataclass(frozen=True, slots=True)
class ReplayInquiry:
    """`window`: a shipped one by name; else `dates`, first and last included."""

    whose: Whose
    window: str = ""
    dates: Window | None = None


@dataclass(frozen=True, slots=True)
class GreeksInquiry:
    """`underlyings`: only these; none: all."""

    whose: Whose
    underlyings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class VarInquiry:
    """`mean` None: zero up to five days for closed forms and simulations (estimate.py says of which). `seed` None: the
    account's sequence, so that the same state gives the same figures. `lookback_days` None: all of the model's."""

    whose: Whose
    methods: tuple[Method, ...] = ("historical",)
    confidences: tuple[float, ...] = (0.95, 0.99)
    horizon_days: int = 1
    horizon_methods: tuple[HorizonMethod, ...] = ("overlapping", "square_root")
    quantile: Quantile = "order_statistic"
    mean: Mean | None = None
    family: Family = "gaussian"
    filter: Filter = "ewma"
    copula: Copula = "gaussian"
    degrees_of_freedom: float | None = None
    n_paths: int = 10_000
    lookback_days: int | None = None
    seed: int | None = None
    components: bool = False
    ultra_short: bool = False


@dataclass(frozen=True, slots=True)
class ReverseInquiry:
    """`scenario`: a name of the model's, or one of the caller's; None: the model's that costs most. The loss to reach
    in base currency, else as a share of equity."""

    whose: Whose
    scenario: str | Scenario | None = None
    loss: float | None = None
    loss_ratio: float = 0.10
    multiplier_min: float = 0.01
    multiplier_max: float = 5.0
