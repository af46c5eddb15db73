"""A paper broker for one account: takes orders, rests them, fills them in part, charges for it.

Pure and seeded: the same orders over the same closes give the same reports, whatever else happens around them. Only
closes are real, so all fills of a session happen around its close (see tape). Its books are the truth that the
gateway's are reconciled with; it knows no limits and no gateway.
"""

import enum
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

BASIS_POINT = 1e-4


class ReportKind(enum.Enum):
    WORKING = "working"
    FILL = "fill"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Ticket:
    """An order as sent. Quantities are whole shares; a limit makes it rest until cancelled, without one it is a market
    order for this session."""

    client_order_id: str
    symbol: str
    sign: int
    quantity: int
    limit_price: float | None = None

    def __post_init__(self) -> None:
        if self.quantity < 1 or self.sign not in (1, -1):
            raise ValueError(f"{self.client_order_id}: expected 1 share or more of sign 1 or -1")


@dataclass(frozen=True, slots=True)
class Report:
    """What the broker tells of an order. Quantities in shares, price and fee in dollars, 0 but for fills."""

    report_id: str
    client_order_id: str
    symbol: str
    sign: int
    kind: ReportKind
    cumulative: int
    leaves: int
    quantity: int = 0
    price: float = 0.0
    fee: float = 0.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What trading costs. There are no volumes and no spreads in the data, so these are assumptions."""

    commission_bps: float = 1.0
    """Of the traded value."""
    slippage_bps: float = 2.0
    """On top of (below) the close for market orders."""
    slippage_of_move: float = 0.02
    """More slippage, as a share of the day's move: 12 % down in a day costs another 24 bps."""


@dataclass(frozen=True, slots=True)
class Liquidity:
    """How much of an order a session takes, drawn for each order and session from the broker's seed."""

    in_parts: float = 0.35
    """Chance that a market order fills in two parts."""
    cut_short: float = 0.06
    """Chance that the second part is never filled, and the rest expires."""
    resting_whole: float = 0.6
    """Chance that a resting order whose limit was traded through fills whole; else a part of it does."""
    fill_beats_cancel: float = 0.3
    """Chance that an order which would have filled still fills in part before its cancel arrives."""


@dataclass(frozen=True, slots=True)
class Resting:
    """An order that may still fill."""

    ticket: Ticket
    entered_number: int
    """The session it came in, as counted by the tape."""
    filled: int = 0
    cancel_requested: bool = False
    reports: int = 0

    @property
    def leaves(self) -> int:
        return self.ticket.quantity - self.filled


class PaperBroker:
    """One account at the broker."""

    def __init__(
        self,
        name: str,
        cash: float,
        seed: int,
        costs: Costs | None = None,
        liquidity: Liquidity | None = None,
    ) -> None:
        """`cash` in dollars; `name` and `seed` name the stream of draws."""
        self.cash = cash
        self.positions: dict[str, int] = {}
        """Signed shares by symbol, without zeros."""
        self.open: dict[str, Resting] = {}
        """By client order id, oldest first."""
        self.fees_paid = 0.0
        self.slippage_paid = 0.0
        """What market orders paid beyond the close."""
        self.traded_value = 0.0
        self._name, self._seed = name, seed
        self._costs, self._liquidity = costs or Costs(), liquidity or Liquidity()

    def equity(self, prices: Mapping[str, float]) -> float:
        return self.cash + sum(shares * prices[symbol] for symbol, shares in self.positions.items())

    def open_shares(self, symbol: str) -> int:
        """Signed shares that open orders in the symbol may still trade."""
        return sum(o.ticket.sign * o.leaves for o in self.open.values() if o.ticket.symbol == symbol)

    def open_sells(self, symbol: str) -> int:
        """Shares that open sells in the symbol may still sell."""
        orders = [o for o in self.open.values() if o.ticket.symbol == symbol and o.ticket.sign < 0]
        return sum(order.leaves for order in orders)

    def enter(self, ticket: Ticket, session_number: int) -> Report:
        """Take an order. Raises ValueError where its id was used for one that is open."""
        if ticket.client_order_id in self.open:
            raise ValueError(f"{ticket.client_order_id} is open already")
        order = Resting(ticket, session_number)
        self.open[ticket.client_order_id] = order
        return self._report(order, ReportKind.WORKING)

    def request_cancel(self, client_order_id: str) -> Report:
        """Ask for a cancel; it arrives with the session's close, and a fill may arrive before it."""
        order = replace(self.open[client_order_id], cancel_requested=True)
        self.open[client_order_id] = order
        return self._report(order, ReportKind.CANCEL_REQUESTED)

    def close_session(self, day: date, closes: Mapping[str, float], previous: Mapping[str, float]) -> list[Report]:
        """The session's fills, then what ended without: cancels, and market orders that found no more."""
        reports: list[Report] = []
        for client_order_id in list(self.open):
            ticket = self.open[client_order_id].ticket
            draws = random.Random(f"{self._seed}|{self._name}|{client_order_id}|{day}")
            close = closes[ticket.symbol]
            if ticket.limit_price is None:
                reports += self._fill_market(client_order_id, close, previous[ticket.symbol], draws)
            elif _traded_through(ticket.sign, ticket.limit_price, close):
                reports += self._fill_resting(client_order_id, ticket.limit_price, close, draws)
            reports += self._end(client_order_id)
        return reports

    def _fill_market(self, client_order_id: str, close: float, previous: float, draws: random.Random) -> list[Report]:
        order = self.open[client_order_id]
        parts = self._parts(order, draws)
        sign, reports = order.ticket.sign, []
        for number, quantity in enumerate(parts):
            slippage = self._slippage(close, previous) * (1 + number)
            price = close * (1 + sign * slippage)
            self.slippage_paid += quantity * close * slippage
            reports.append(self._fill(client_order_id, quantity, price))
        return reports

    def _parts(self, order: Resting, draws: random.Random) -> list[int]:
        if order.cancel_requested:
            return [_share(order.leaves, draws)] if draws.random() < self._liquidity.fill_beats_cancel else []
        if order.leaves < 2 or draws.random() >= self._liquidity.in_parts:
            return [order.leaves]
        first = _share(order.leaves, draws)
        return [first] if draws.random() < self._liquidity.cut_short else [first, order.leaves - first]

    def _slippage(self, close: float, previous: float) -> float:
        move = abs(close / previous - 1.0)
        return self._costs.slippage_bps * BASIS_POINT + self._costs.slippage_of_move * move

    def _fill_resting(self, client_order_id: str, limit: float, close: float, draws: random.Random) -> list[Report]:
        """At its limit and no better: the price went through it on its way to the close."""
        order = self.open[client_order_id]
        chance = self._liquidity.fill_beats_cancel if order.cancel_requested else 1.0
        if draws.random() >= chance:
            return []
        whole = not order.cancel_requested and draws.random() < self._liquidity.resting_whole
        return [self._fill(client_order_id, order.leaves if whole else _share(order.leaves, draws), limit)]

    def _fill(self, client_order_id: str, quantity: int, price: float) -> Report:
        order = self.open[client_order_id]
        ticket = order.ticket
        value = quantity * price
        fee = value * self._costs.commission_bps * BASIS_POINT
        self.cash -= ticket.sign * value
        self.cash -= fee
        self.fees_paid += fee
        self.traded_value += value
        shares = self.positions.pop(ticket.symbol, 0) + ticket.sign * quantity
        if shares:
            self.positions[ticket.symbol] = shares
        order = replace(order, filled=order.filled + quantity)
        self.open[client_order_id] = order
        report = self._report(order, ReportKind.FILL, quantity, price, fee)
        if order.leaves == 0:
            del self.open[client_order_id]
        return report

    def _end(self, client_order_id: str) -> list[Report]:
        order = self.open.get(client_order_id)
        if order is None:
            return []
        if order.cancel_requested:
            kind = ReportKind.CANCELLED
        elif order.ticket.limit_price is None:
            kind = ReportKind.EXPIRED
        else:
            return []
        del self.open[client_order_id]
        return [self._report(order, kind)]

    def _report(
        self, order: Resting, kind: ReportKind, quantity: int = 0, price: float = 0.0, fee: float = 0.0
    ) -> Report:
        """The order's next report; its id names the order and counts on."""
        ticket = order.ticket
        if ticket.client_order_id in self.open:
            self.open[ticket.client_order_id] = replace(order, reports=order.reports + 1)
        ended = kind in (ReportKind.CANCELLED, ReportKind.EXPIRED)
        return Report(
            report_id=f"{ticket.client_order_id}/{order.reports + 1}",
            client_order_id=ticket.client_order_id,
            symbol=ticket.symbol,
            sign=ticket.sign,
            kind=kind,
            cumulative=order.filled,
            leaves=0 if ended else order.leaves,
            quantity=quantity,
            price=price,
            fee=fee,
        )


def _traded_through(sign: int, limit: float, close: float) -> bool:
    """Beyond the limit and not just at it: at the limit others may stand before us."""
    return close < limit if sign > 0 else close > limit


def _share(leaves: int, draws: random.Random) -> int:
    """A part of the leaves, at least one share."""
    return max(1, math.floor(leaves * draws.uniform(0.3, 0.8)))
