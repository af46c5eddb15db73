"""What reported facts become on the account's state: the `build` functions that a committer calls, again after each
conflict.

A report that can't be recorded raises FactError with the field's path in the request; the records of `engine.facts` are
bounded here, since what is folded can never be taken back.
"""

from collections.abc import Callable, Sequence

import msgspec

from engine import facts
from engine.account import AccountState
from engine.account_events import position_event
from engine.budgets import Lending, budget_lent
from engine.decide import Terms
from engine.facts import Execution, FactError
from engine.instrument import LOTS_MAX
from engine.records import AccountOpened, AnyRecord, Executed, Reconciled, Settled, Split
from engine.silence import heartbeat
from engine.suspects import release_delay_set
from gateway.errors import UnknownAccount
from gateway.rpc.convert import responses
from gateway.rpc.convert.requests import AccountEvent, Charge, Flow, Letting, Opening, Reconciliation, SessionStart
from riskgateway.v1 import risk_admin_pb2


class Reports:
    """Execution reports of one account, with their places in the request."""

    def __init__(self, account: str, executions: Sequence[tuple[int, Execution]]) -> None:
        self._account, self._executions = account, executions
        self.places: list[int | None] = []
        """For each report, in order: which of the records it became; None for a duplicate."""

    def build(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        """All of their records; each report sees what the earlier ones did."""
        _need_open(state)
        trial = state.fork()
        records: list[AnyRecord] = []
        self.places = []
        for index, execution in self._executions:
            try:
                made = facts.executed(trial, terms.instruments, _priced(trial, terms, execution), now_us, _epoch(terms))
                _need_bounded(made)
            except FactError as error:
                raise FactError(f"executions[{index}].{error.field}", error.problem, error.precondition) from error
            for record in made:
                trial.apply(record)
            records += made
            self.places.append(len(records) - 1 if made else None)
        return records


def _priced(state: AccountState, terms: Terms, execution: Execution) -> Execution:
    """A fee without a currency is in that of the instrument."""
    if not execution.fee or execution.fee_currency:
        return execution
    order = state.orders.get(execution.client_order_id)
    symbol = order.symbol if order is not None else execution.symbol
    known = state.listed.get(symbol) or terms.instruments.get(symbol)
    return execution if known is None else msgspec.structs.replace(execution, fee_currency=known.currency)


class Broker:
    """A reconciliation, and the differences that it found."""

    def __init__(self, told: Reconciliation) -> None:
        self._told = told
        self.differences: list[risk_admin_pb2.Difference] = []

    def build(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        _need_open(state)
        told = self._told
        records = facts.reconciled(
            state,
            terms.instruments,
            told.positions,
            told.cash,
            told.open_orders,
            told.snapshot_us,
            told.reason,
            now_us,
            _epoch(terms),
        )
        _need_bounded(records)
        lot_sizes = {symbol: instrument.lot_size for symbol, instrument in terms.instruments.instruments.items()}
        self.differences = list(responses.differences(state, told, lot_sizes))
        return records


def event_build(event_id: str, event: AccountEvent) -> Callable[[AccountState, Terms, int], list[AnyRecord]]:
    """The fact of an account event; none where the id, or the session, is known already."""

    def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        if isinstance(event, Opening):
            return _opened(state, terms, event_id, event, now_us)
        _need_open(state)
        if event_id in state.events:
            return []
        match event:
            case SessionStart(date=date):
                return facts.session_opened(state, event_id, date, now_us, _epoch(terms))
            case Flow(amount=amount, currency=currency):
                return facts.cash_flowed(state, event_id, amount, currency, now_us, _epoch(terms))
            case Charge(amount=amount, currency=currency, strategy=strategy):
                return facts.fee_charged(state, event_id, amount, currency, strategy, now_us, _epoch(terms))
            case Letting(delay_us=delay_us):
                return release_delay_set(state, event_id, delay_us, now_us, _epoch(terms))
            case _:
                records = position_event(state, terms.instruments, event_id, event, now_us, _epoch(terms))
                _need_bounded(records)
                return records

    return build


def lending_build(lending: Lending) -> Callable[[AccountState, Terms, int], list[AnyRecord]]:
    """The record of a loan of risk budget, where it is none already."""

    def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        _need_open(state)
        return budget_lent(state, terms.limits, lending, now_us, _epoch(terms))

    return build


def heartbeat_build(strategy: str) -> Callable[[AccountState, Terms, int], list[AnyRecord]]:
    """The record of a sign of life, where it says anything."""

    def build(state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        _need_open(state)
        return heartbeat(state, strategy, now_us, _epoch(terms))

    return build


def _opened(state: AccountState, terms: Terms, event_id: str, event: Opening, now_us: int) -> list[AnyRecord]:
    records = facts.account_opened(
        state,
        terms.instruments,
        event_id,
        event.base_currency,
        event.cash,
        event.positions,
        now_us,
        _epoch(terms),
    )
    _need_bounded(records)
    return records


def _epoch(terms: Terms) -> int:
    return terms.control.epoch


def _need_open(state: AccountState) -> None:
    if not state.opened:
        raise UnknownAccount(state.account)


def _need_bounded(records: Sequence[AnyRecord]) -> None:
    """Lots beyond LOTS_MAX would leave the integers that the fold counts in."""
    for record in records:
        match record:
            case Executed(lots=lots, cumulative_lots=cumulative):
                _need("last_quantity", lots)
                _need("cumulative_quantity", cumulative)
            case AccountOpened(positions=positions) | Reconciled(positions=positions):
                for position in positions:
                    _need("positions.quantity", position.lots)
            case Split(positions=after, open_orders=leaves_after):
                for lots in (*(position.lots for position in after), *leaves_after.values()):
                    _need("split.new_units", lots)
            case Settled(moves=moves):
                for move in moves:
                    _need("settlement.quantity", move.lots)
        if isinstance(record, Reconciled):
            adopted = [order.lots for order in record.adopted]
            for leaves in (*(record.open_orders or {}).values(), *adopted):
                _need("open_orders.leaves_quantity", leaves)


def _need(field: str, lots: int) -> None:
    if abs(lots) > LOTS_MAX:
        raise FactError(field, f"expected at most {LOTS_MAX:,} lots, got {lots:,}")
