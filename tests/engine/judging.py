"""The verdict on one order, for the tests of `decide`: by default of a flat account with a million, under wide guards.

No assertions here, and no limits but those that a test gives.
"""

from engine.account import AccountState
from engine.control import Control, Scope, Stop, TradingState
from engine.decide import decide
from engine.instrument import InstrumentSet
from engine.limits import Limit, LimitSet
from engine.order import Order
from engine.records import Check, Decided
from engine.risk.model import RiskModel
from tests.engine.builders import NOW_US, account, limits, model, stock, terms, universe

SECOND_US = 1_000_000
AAA, BBB = stock("AAA"), stock("BBB")
TWO = universe(AAA, BBB)
MARKS = {"AAA": 100.0, "BBB": 50.0}
FLAT_MODEL = model({"AAA": [-0.02, 0.01] * 50, "BBB": [0.01, -0.01] * 50}, {"crash": {"AAA": -0.3, "BBB": -0.2}})


def judged(
    asked: Order,
    *rows: Limit,
    state: AccountState | None = None,
    instruments: InstrumentSet = TWO,
    risk: RiskModel | None = FLAT_MODEL,
    control: Control | None = None,
    armed: LimitSet | None = None,
    now_us: int = NOW_US,
) -> Decided:
    """The verdict, by default for a flat account with a million."""
    held = state if state is not None else account(instruments, MARKS)
    return decide(held, terms(instruments, armed or limits(*rows), risk, control), asked, now_us)


def stop(state: TradingState, scope: Scope | None = None, epoch: int = 1) -> Control:
    return Control(epoch=epoch, stops=(Stop(scope or Scope(), state, epoch, NOW_US, "ops", "drill"),))


def check(record: Decided, measure: str) -> Check:
    return next(one for one in record.checks if one.measure == measure)
