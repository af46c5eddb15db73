"""The slow, obvious reference of every measure: plain floats, loops over symbols, rows and the two ends of each symbol.

It reads positions and open orders from the account's dicts, never from its arrays, takes marks from the caller, and
shares no line with engine/measures. Value at risk sorts; expected shortfall takes mass by mass off the worst losses.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.account import AccountState, OpenOrder
from engine.instrument import Instrument, InstrumentSet
from engine.limits import IDENTITY_SCOPES, Limit, ScopeKind, Unit
from engine.order import Order, OrderType
from engine.risk.model import RiskModel

CONFIDENCES = {"var_95": 0.95, "var_99": 0.99, "es_95": 0.95, "es_99": 0.99}


@dataclass
class Ends:
    """What a book holds of one symbol, in lots."""

    position: int = 0
    buys: int = 0
    sells: int = 0

    @property
    def high(self) -> int:
        return self.position + self.buys

    @property
    def low(self) -> int:
        return self.position - self.sells

    def largest(self) -> int:
        return max(abs(self.high), abs(self.low))


@dataclass
class SlowBook:
    """Positions and leaves by symbol, of the account or of one strategy, of some symbols or of all."""

    ends: dict[str, Ends] = field(default_factory=dict)

    def of(self, symbol: str) -> Ends:
        return self.ends.setdefault(symbol, Ends())


@dataclass(frozen=True)
class Slow:
    """A state with the prices and the model that it is measured at."""

    state: AccountState
    instruments: InstrumentSet
    marks: Mapping[str, float]
    fx: Mapping[str, float]
    model: RiskModel | None
    slippage: float = 0.01

    def lot_value(self, symbol: str) -> float:
        one = self.instruments.instruments[symbol]
        return self.marks[symbol] * one.lot_size * one.multiplier * self.fx.get(one.currency, 1.0)

    def equity(self) -> float:
        total = sum(amount * self.fx.get(currency, 1.0) for currency, amount in self.state.cash.items())
        for (_, symbol), holding in self.state.holdings.items():
            one = self.instruments.instruments[symbol]
            price = self.marks[symbol] - (holding.average_cost if one.asset_class == "future" else 0.0)
            total += holding.lots * one.lot_size * one.multiplier * price * self.fx.get(one.currency, 1.0)
        return total

    def book(self, strategy: str | None, symbols: Iterable[str]) -> SlowBook:
        wanted, book = set(symbols), SlowBook()
        for (name, symbol), holding in self.state.holdings.items():
            if symbol in wanted and strategy in (None, name):
                book.of(symbol).position += holding.lots
        for one in self.state.orders.values():
            if one.symbol in wanted and strategy in (None, one.strategy):
                ends = book.of(one.symbol)
                if one.sign > 0:
                    ends.buys += one.counted
                else:
                    ends.sells += one.counted
        return book

    def scope(self, row: Limit, order: Order) -> SlowBook:
        """The book that a row reads for an order; orders without a strategy have a book of their own."""
        mine = self.instruments.instruments[order.symbol]
        members = [s for s, one in self.instruments.instruments.items() if _together(row.scope, mine, one)]
        return self.book(order.strategy if row.scope is ScopeKind.STRATEGY else None, members)

    def per(self, row: Limit, default: Unit) -> float:
        return self.equity() if (row.unit or default) is Unit.EQUITY else 1.0

    def read(self, row: Limit, order: Order, lots: int) -> tuple[float, float]:
        """(value before, value after) of a row for an order of so many lots."""
        before, after = self.scope(row, order), self.scope(row, order)
        ends = after.of(order.symbol)
        if order.side.sign > 0:
            ends.buys += lots
        else:
            ends.sells += lots
        if row.measure == "order_quantity":
            return 0.0, lots * self.instruments.instruments[order.symbol].lot_size
        if row.measure == "order_value":
            return 0.0, lots * self.order_lot_value(order) / self.per(row, Unit.MONEY)
        if row.measure == "position":
            return self.position(before, order), self.position(after, order)
        if row.measure == "short_position":
            is_sell, size = order.side.sign < 0, self.instruments.instruments[order.symbol].lot_size
            short = [max(0, -book.of(order.symbol).low) * size if is_sell else 0.0 for book in (before, after)]
            return short[0], short[1]
        if row.measure == "adv_share":
            one = self.instruments.instruments[order.symbol]
            return 0.0, lots * one.lot_size / one.average_daily_quantity
        if row.measure == "open_orders":
            count = float(len(self.open_in_scope(row, order)))
            return count, count + 1.0
        if row.measure == "traded_quantity":
            size = self.instruments.instruments[order.symbol].lot_size
            open_lots = sum(one.leaves for one in self.open_in_scope(row, order) if one.symbol == order.symbol)
            return open_lots * size, (open_lots + lots) * size
        if row.measure == "traded_value":
            used = sum(one.leaves * self.lot_value(one.symbol) for one in self.open_in_scope(row, order))
            per = self.per(row, Unit.MONEY)
            return used / per, (used + lots * self.lot_value(order.symbol)) / per
        if row.measure == "open_positions":
            return self.positions(before), self.positions(after)
        return self.standing(row, before, order.symbol), self.standing(row, after, order.symbol)

    def open_in_scope(self, row: Limit, order: Order) -> list[OpenOrder]:
        """The open orders that a row adds up for an order; nothing was filled in the session."""
        mine, others = self.instruments.instruments[order.symbol], self.instruments.instruments
        together = [one for one in self.state.orders.values() if _together(row.scope, mine, others[one.symbol])]
        if row.scope in IDENTITY_SCOPES:
            own = f"\1{row.scope.value}:{order.identities[row.scope.value]}"
            return [one for one in together if own in one.identities]
        return [one for one in together if row.scope is not ScopeKind.STRATEGY or one.strategy == order.strategy]

    def positions(self, book: SlowBook) -> float:
        return float(sum(1 for ends in book.ends.values() if ends.largest() > 0))

    def beta(self, symbol: str) -> float:
        declared = self.instruments.instruments[symbol].beta
        assert self.model is not None
        return declared if declared is not None else float(self.model.betas[self.model.column[symbol]])

    def net(self, book: SlowBook, weight: Mapping[str, float]) -> float:
        """The larger size of the two sums, each symbol at the end that adds to it."""
        up = down = 0.0
        for symbol, ends in book.ends.items():
            values = [end * self.lot_value(symbol) * weight[symbol] for end in (ends.low, ends.high)]
            up, down = up + max(values), down + min(values)
        return max(abs(up), abs(down))

    def filled(self, row: Limit, order: Order, lots: int) -> float:
        """The row's value if the order were filled and all other open orders stayed as they are."""
        book = self.scope(row, order)
        book.of(order.symbol).position += order.side.sign * lots
        return self.standing(row, book, order.symbol)

    def standing(self, row: Limit, book: SlowBook, symbol: str) -> float:
        """A portfolio measure of a book."""
        if row.measure == "position":
            return book.of(symbol).largest() * self.instruments.instruments[symbol].lot_size
        in_money = row.measure in ("gross_exposure", "net_exposure", "beta_exposure")
        default = Unit.MONEY if in_money else Unit.EQUITY
        return self._money(row.measure, book, symbol) / self.per(row, default)

    def _money(self, measure: str, book: SlowBook, symbol: str) -> float:
        if measure in ("gross_exposure", "leverage"):
            return sum(ends.largest() * self.lot_value(name) for name, ends in book.ends.items())
        if measure == "concentration":
            issuer = _issuer(self.instruments.instruments[symbol])
            return sum(
                ends.largest() * self.lot_value(name)
                for name, ends in book.ends.items()
                if _issuer(self.instruments.instruments[name]) == issuer
            )
        if measure == "stress_loss":
            return self.stress(book)
        if measure == "net_exposure":
            return self.net(book, dict.fromkeys(book.ends, 1.0))
        if measure == "beta_exposure":
            return self.net(book, {name: self.beta(name) for name in book.ends})
        assert self.model is not None
        losses = [self.loss(book, at) for at in range(self.model.n_days)]
        confidence = CONFIDENCES[measure]
        return value_at_risk(losses, confidence) if measure.startswith("var") else shortfall(losses, confidence)

    def position(self, book: SlowBook, order: Order) -> float:
        ends = book.of(order.symbol)
        end = ends.high if order.side.sign > 0 else -ends.low
        return max(0, end) * self.instruments.instruments[order.symbol].lot_size

    def loss(self, book: SlowBook, at: int) -> float:
        """The worst loss in one row of the model: each symbol at the end that hurts more."""
        assert self.model is not None
        total = 0.0
        for symbol, ends in book.ends.items():
            moved = float(self.model.returns[at, self.model.column[symbol]])
            total += max(-end * self.lot_value(symbol) * moved for end in (ends.low, ends.high))
        return total

    def stress(self, book: SlowBook) -> float:
        assert self.model is not None
        rows = range(self.model.n_days, self.model.n_rows)
        return max([self.loss(book, at) for at in rows] + list(self.grid_losses(book)))

    def grid_losses(self, book: SlowBook) -> Iterable[float]:
        """The loss of each underlying at each point of its grid; an underlying with nothing at stake loses 0."""
        assert self.model is not None
        for underlying in {_underlying(one) for one in self.instruments.instruments.values()}:
            for point in range(self.model.grid.shape[1]):
                total = 0.0
                for symbol, ends in book.ends.items():
                    if _underlying(self.instruments.instruments[symbol]) == underlying:
                        moved = float(self.model.grid[self.model.column[symbol], point])
                        total += max(-end * self.lot_value(symbol) * moved for end in (ends.low, ends.high))
                yield total

    def order_lot_value(self, order: Order) -> float:
        """One lot at the highest price that the order can fill at; bid and ask are the mark here."""
        one = self.instruments.instruments[order.symbol]
        mark = self.marks[order.symbol]
        if order.side.sign > 0:
            price = order.limit_price if order.order_type is OrderType.LIMIT else mark * (1.0 + self.slippage)
        else:
            price = max(order.limit_price or 0.0, mark)
        assert price is not None
        return price * one.lot_size * one.multiplier * self.fx.get(one.currency, 1.0)

    def room(self, row: Limit, order: Order) -> int:
        """The most lots that truly reduce in the row's scope."""
        strategy = order.strategy if row.scope is ScopeKind.STRATEGY else None
        ends = self.book(strategy, [order.symbol]).of(order.symbol)
        if ends.position * order.side.sign >= 0:
            return 0
        return max(0, abs(ends.position) - (ends.buys if order.side.sign > 0 else ends.sells))


def value_at_risk(losses: list[float], confidence: float) -> float:
    """The ceil(a·n)-th worst loss."""
    return sorted(losses, reverse=True)[math.ceil((1 - confidence) * len(losses) - 1e-9) - 1]


def shortfall(losses: list[float], confidence: float) -> float:
    """The average over exactly the mass a of the worst losses."""
    mass = (1 - confidence) * len(losses)
    left, total = mass, 0.0
    for loss in sorted(losses, reverse=True):
        weight = min(1.0, left)
        total += weight * loss
        left -= weight
        if left <= 0:
            break
    return total / mass


def label(row: Limit, order: Order, instrument: Instrument) -> str:
    names = {
        ScopeKind.FIRM: order.account,
        ScopeKind.ACCOUNT: order.account,
        ScopeKind.STRATEGY: order.strategy or "(none)",
        ScopeKind.ASSET_CLASS: str(instrument.asset_class),
        ScopeKind.SECTOR: instrument.sector,
        ScopeKind.SYMBOL: instrument.symbol,
        **{ScopeKind(kind): name for kind, name in order.identities.items()},
    }
    return f"{row.scope.value}:{names[row.scope]}"


def _together(scope: ScopeKind, mine: Instrument, other: Instrument) -> bool:
    """Whether a row of this scope that reaches an order in `mine` adds up `other` too."""
    if scope is ScopeKind.ASSET_CLASS:
        return mine.asset_class == other.asset_class
    if scope is ScopeKind.SECTOR:
        return mine.sector == other.sector
    return mine.symbol == other.symbol if scope is ScopeKind.SYMBOL else True


def _issuer(instrument: Instrument) -> str:
    return instrument.issuer or instrument.symbol


def _underlying(instrument: Instrument) -> str:
    return instrument.underlying or instrument.symbol
