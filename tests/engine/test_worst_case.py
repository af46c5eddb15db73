"""P1: whichever of the allowed orders fill, wholly or in part, no hard limit is taken past its bound by one of them.

A state machine submits orders of several strategies and lets any of them fill, in part, be cancelled, rejected or fill
late, at constant marks. After each step the reference reads every limit on the actual positions and at worst case.
A true reduction may leave a limit over its bound; then that limit is excused until it is within it again.
"""

import msgspec
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.account import AccountState
from engine.decide import Terms, decide
from engine.limits import Limit, reaches
from engine.order import Action, Order
from engine.records import ExecutionKind
from engine.risk.model import RiskModel
from tests.engine.books import FX, MARKS, STRATEGIES, UNIVERSE, models, orders
from tests.engine.builders import NOW_US, account, fill, limits, order, report, row, terms
from tests.engine.reference import Slow, label

HARD = (
    row("position", 60, "symbol", "reduce"),
    row("position", 40, "strategy"),
    row("gross_exposure", 6_000, action="reduce"),
    row("gross_exposure", 4_000, "sector"),
    row("gross_exposure", 3_500, "strategy", "reduce"),
    row("concentration", 3_000, unit="money"),
    row("leverage", 0.001),
    row("var_95", 900, unit="money", action="reduce"),
    row("var_99", 0.0003),
    row("es_95", 1_100, unit="money"),
    row("es_99", 0.0002, "strategy", "reduce"),
    row("stress_loss", 1_500, unit="money", action="reduce"),
    row("stress_loss", 1_200, "asset_class", unit="money"),
)
"""Equity is about 5 million and every bound is in reach of a few orders."""

FEW = ("AAA", "AA2", "EUX", "FUT")
"""Few symbols, so that orders meet."""

PROBES: tuple[Order, ...] = tuple(
    order(symbol, strategy=strategy) for symbol in UNIVERSE.instruments for strategy in STRATEGIES
)
"""One order for each book that a limit may read."""


class Trading(RuleBasedStateMachine):
    @initialize(risk=models(), rows=st.lists(st.sampled_from(HARD), min_size=1, max_size=4, unique_by=id))
    def open(self, risk: RiskModel, rows: list[Limit]) -> None:
        """A few limits at a time: each is then the one that binds in some run."""
        self.rows = rows
        self.state: AccountState = account(UNIVERSE, MARKS, fx=FX, cash={"USD": 5_000_000.0, "EUR": 1000.0})
        self.risk = risk
        self.terms: Terms = terms(UNIVERSE, limits(*rows, market_slippage=0.0), risk)
        self.excused: set[tuple[str, str]] = set()
        self.count = 0

    @rule(asked=st.lists(orders(lots_max=40, among=FEW), min_size=1, max_size=4), all_or_none=st.booleans())
    def submit(self, asked: list[Order], all_or_none: bool) -> None:
        for one in asked:
            self.count += 1
            named = msgspec.structs.replace(one, client_order_id=f"w{self.count}", all_or_none=all_or_none)
            record = decide(self.state, self.terms, named, NOW_US)
            self.state.apply(record)
            assert record.action.allows == (record.allowed_lots > 0)
            assert record.action is not Action.REDUCE or not all_or_none
            if record.allowed_lots:
                before = self.before_it(named)
                self.excused |= passed_as_reduction(before, self.terms, named, record.allowed_lots)

    def before_it(self, named: Order) -> AccountState:
        """The state that the last order was decided in."""
        earlier = self.state.fork()
        earlier.apply(report(earlier, named.client_order_id, ExecutionKind.NOT_SENT))
        return earlier

    @precondition(lambda self: self.state.orders)
    @rule(data=st.data())
    def fill_some(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.state.orders)))
        lots = data.draw(st.integers(1, self.state.orders[name].leaves))
        fill(self.state, name, lots, MARKS[self.state.orders[name].symbol])

    @precondition(lambda self: self.state.orders)
    @rule(data=st.data())
    def fill_whole(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.state.orders)))
        one = self.state.orders[name]
        fill(self.state, name, one.leaves, MARKS[one.symbol])

    @precondition(lambda self: self.state.orders)
    @rule(data=st.data(), kind=st.sampled_from([ExecutionKind.CANCELLED, ExecutionKind.REJECTED]))
    def end(self, data: st.DataObject, kind: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.state.orders)))
        self.state.apply(report(self.state, name, kind))

    @precondition(lambda self: any(not one.closing for one in self.state.orders.values()))
    @rule(data=st.data())
    def cancel_before_its_last_fill_is_reported(self, data: st.DataObject) -> None:
        working = sorted(name for name, one in self.state.orders.items() if not one.closing)
        name = data.draw(st.sampled_from(working))
        one = self.state.orders[name]
        late = data.draw(st.integers(1, one.leaves))
        self.state.apply(report(self.state, name, ExecutionKind.CANCELLED, cumulative_lots=one.filled + late))
        assert self.state.orders[name].leaves == late

    @invariant()
    def no_limit_is_past_its_bound(self) -> None:
        if not hasattr(self, "state"):
            return
        worst = Slow(self.state, UNIVERSE, MARKS, FX, self.risk)
        landed = Slow(without_orders(self.state), UNIVERSE, MARKS, FX, self.risk)
        over: set[tuple[str, str]] = set()
        for limit, probe in readings(self.rows):
            key = limit.measure, label(limit, probe, UNIVERSE.instruments[probe.symbol])
            at_worst = worst.standing(limit, worst.scope(limit, probe), probe.symbol)
            actual = landed.standing(limit, landed.scope(limit, probe), probe.symbol)
            assert actual <= at_worst * (1 + 1e-9) + 1e-9
            if at_worst > limit.limit * (1 + 1e-9):
                over.add(key)
        assert over <= self.excused
        self.excused &= over


def readings(rows: list[Limit]) -> list[tuple[Limit, Order]]:
    """Each limit with one order for each book that it reads."""
    found: dict[tuple[str, str, str], tuple[Limit, Order]] = {}
    for limit in rows:
        for probe in PROBES:
            instrument = UNIVERSE.instruments[probe.symbol]
            per_symbol = probe.symbol if limit.measure in ("position", "concentration") else ""
            if reaches(limit, probe.strategy, instrument, probe.identities):
                found.setdefault((limit.measure, label(limit, probe, instrument), per_symbol), (limit, probe))
    return list(found.values())


def without_orders(state: AccountState) -> AccountState:
    landed = state.fork()
    for name in list(landed.orders):
        landed.apply(report(landed, name, ExecutionKind.REJECTED, cumulative_lots=0))
    landed.orders.clear()
    return landed


def passed_as_reduction(before: AccountState, under: Terms, asked: Order, lots: int) -> set[tuple[str, str]]:
    """The limits that the order passed as a true reduction, decided at the size that was allowed."""
    size = UNIVERSE.instruments[asked.symbol].lot_size
    sized = msgspec.structs.replace(asked, client_order_id="sized", quantity=lots * size)
    record = decide(before, under, sized, NOW_US)
    assert record.allowed_lots == lots
    return {(one.measure, one.scope) for one in record.checks if one.reduction}


TestTrading = Trading.TestCase
TestTrading.settings = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking these books takes longer than a test may
)
