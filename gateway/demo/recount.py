"""Counts active breaches from the log alone, sharing no code with the decisions that it audits.

It reads raw JSON records, folds them with its own arithmetic and computes every limit anew: a slow, plain second
opinion. After each approval it asks: is any hard limit past its bound at worst case, with the marks of that moment,
although the order was no true reduction? Each such approval is an active breach, a defect; there must be none.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.risk.model import RiskModel
from engine.risk.model import decode as decode_model
from gateway.log.account_log import AccountLog, TooOld

PAGE_RECORDS = 2_000
SLACK = 1e-9
"""Relative: the same sum in another order of floating-point additions."""

Row = dict[str, Any]
Vector = NDArray[np.float64]


@dataclass(slots=True)
class Recount:
    """What the log of some accounts says."""

    records: int = 0
    decisions: int = 0
    approvals: int = 0
    reductions: int = 0
    """Approvals past a bound that truly reduce: they pass by design."""
    active: list[str] = field(default_factory=list)
    """One line for each active breach."""


@dataclass(slots=True)
class _Open:
    strategy: str
    symbol: str
    sign: int
    held: int
    filled: int = 0
    reported: int = 0
    closing: bool = False

    @property
    def leaves(self) -> int:
        ceiling = min(self.reported, self.held) if self.closing else self.held
        return max(0, ceiling - self.filled)


class _Ledger:
    """An account as its log tells it."""

    def __init__(self) -> None:
        self.base = ""
        self.cash: dict[str, float] = {}
        self.listed: dict[str, Row] = {}
        self.lots: dict[tuple[str, str], int] = {}
        self.cost: dict[tuple[str, str], float] = {}
        self.open: dict[str, _Open] = {}
        self.quotes: dict[str, list[Any]] = {}
        self.rates: dict[str, list[Any]] = {}
        self.tried: list[tuple[int, str]] = []
        self.seen: set[str] = set()

    def fold(self, record: Row) -> None:
        kind = record["k"]
        if kind == "account_opened":
            self.base, self.cash = record["base_currency"], dict(record["cash"])
            for listed in record.get("listed", ()):
                self.listed[listed["symbol"]] = listed
            for strategy, symbol, lots, cost in (_opening(p) for p in record.get("positions", ())):
                self.lots[strategy, symbol], self.cost[strategy, symbol] = lots, cost
        elif kind == "listed":
            self.listed[record["symbol"]] = record
        elif kind == "valued":
            self.quotes.update(record.get("marks", {}))
            self.rates.update(record.get("fx", {}))
        elif kind == "decided":
            self._decided(record)
        elif kind == "executed":
            self._executed(record)
        elif kind == "cash_flowed":
            self._pay(record["currency"], record["amount"])
        elif kind == "fee_charged":
            self._pay(record["currency"], -record["amount"])
        elif kind == "reconciled":
            self._reconciled(record)

    def _pay(self, currency: str, amount: float) -> None:
        self.cash[currency or self.base] = self.cash.get(currency or self.base, 0.0) + amount

    def _decided(self, record: Row) -> None:
        order = record["order"]
        self.tried.append((record["time_us"], order.get("strategy", "")))
        if record["allowed_lots"]:
            sign = 1 if order["side"] == 1 else -1
            self.open[order["client_order_id"]] = _Open(
                order.get("strategy", ""), order["symbol"], sign, record["allowed_lots"]
            )

    def _executed(self, record: Row) -> None:
        lots, order = record.get("lots", 0), self.open.get(record["client_order_id"])
        if lots:
            self._fill(record["strategy"], record["symbol"], record["sign"] * lots, record["price"])
        self._pay(record.get("fee_currency", ""), -record.get("fee", 0.0))
        if order is None:
            return
        order.filled += lots
        order.reported = max(order.reported, record.get("cumulative_lots", 0), order.filled)
        order.closing |= record["kind"] in ("cancelled", "rejected", "expired", "not_sent")
        if order.leaves == 0:
            del self.open[record["client_order_id"]]

    def _fill(self, strategy: str, symbol: str, signed: int, price: float) -> None:
        listed, key = self.listed[symbol], (strategy, symbol)
        held, cost = self.lots.get(key, 0), self.cost.get(key, 0.0)
        if listed.get("settles_variation"):
            raise ValueError(f"{symbol} settles variation; the recount knows cash instruments only")
        self.lots[key], self.cost[key] = held + signed, cost
        self._pay(listed["currency"], -signed * listed["unit"] * price)

    def _reconciled(self, record: Row) -> None:
        self.lots = {(p["strategy"], p["symbol"]): p["lots"] for p in record["positions"]}
        if record.get("cash") is not None:
            self.cash = dict(record["cash"])
        if record.get("open_orders") is not None:
            told = record["open_orders"]
            self.open = {i: o for i, o in self.open.items() if i in told}

    # --- readings --------------------------------------------------------------------------------------------------

    def rate(self, currency: str) -> float:
        return 1.0 if currency == self.base else float(self.rates[currency][0])

    def unit_value(self, symbol: str) -> float:
        listed = self.listed[symbol]
        return float(self.quotes[symbol][0]) * float(listed["unit"]) * self.rate(listed["currency"])

    def interval(self, symbol: str, strategy: str | None) -> tuple[int, int]:
        low = high = sum(n for (s, y), n in self.lots.items() if y == symbol and strategy in (None, s))
        for order in self.open.values():
            if order.symbol == symbol and strategy in (None, order.strategy):
                if order.sign > 0:
                    high += order.leaves
                else:
                    low -= order.leaves
        return low, high

    def ends(self, strategy: str | None) -> dict[str, tuple[float, float]]:
        """Base currency at the two ends, of every symbol with anything at stake."""
        symbols = {symbol for (_, symbol), lots in self.lots.items() if lots} | {o.symbol for o in self.open.values()}
        found = {}
        for symbol in sorted(symbols):
            low, high = self.interval(symbol, strategy)
            if low or high:
                value = self.unit_value(symbol)
                found[symbol] = (low * value, high * value)
        return found

    def equity(self) -> float:
        cash = sum(amount * self.rate(currency) for currency, amount in self.cash.items() if amount)
        return cash + sum(lots * self.unit_value(symbol) for (_, symbol), lots in self.lots.items() if lots)


def _opening(position: Row) -> tuple[str, str, int, float]:
    return position["strategy"], position["symbol"], position["lots"], position["average_cost"]


class _Auditor:
    """Reads one account's log against the blobs that its decisions name."""

    def __init__(self, log: AccountLog, account: str, result: Recount) -> None:
        self._log, self._account, self._result = log, account, result
        self._blobs: dict[str, Any] = {}
        self._ledger = _Ledger()

    async def run(self) -> None:
        after = 0
        while True:
            page = await self._log.read(self._account, after, PAGE_RECORDS)
            if isinstance(page, TooOld):
                raise ValueError(f"{self._account}: the log is trimmed, it can't be recounted from its start")
            for data in page.records:
                await self._record(json.loads(data))
            after += len(page.records)
            if not page.more:
                return

    async def _record(self, record: Row) -> None:
        self._result.records += 1
        if record["k"] != "decided":
            self._ledger.fold(record)
            return
        self._result.decisions += 1
        order, lots = record["order"], record["allowed_lots"]
        reducible = {} if not lots else {s: self._room(order, s) for s in (None, order.get("strategy", ""))}
        self._ledger.fold(record)
        if not lots:
            return
        self._result.approvals += 1
        limits = await self._json(record["limit_set"])
        instruments = await self._json(record["instrument_set"])
        model = await self._model(record["risk_model"])
        for row in _rows_for(limits, self._account):
            self._audit(row, record, instruments, model, reducible)

    def _room(self, order: Row, strategy: str | None) -> int:
        """Lots of the order's side that would truly reduce, before it is counted."""
        sign = 1 if order["side"] == 1 else -1
        symbol = order["symbol"]
        position = sum(n for (s, y), n in self._ledger.lots.items() if y == symbol and strategy in (None, s))
        if position * sign >= 0:
            return 0
        low, high = self._ledger.interval(symbol, strategy)
        return abs(position) - (high - position if sign > 0 else position - low)

    def _audit(
        self, row: Row, record: Row, instruments: Row, model: RiskModel | None, reducible: dict[str | None, int]
    ) -> None:
        order = record["order"]
        if row["action"] == "warn" or not _reached(row, order, instruments[order["symbol"]]):
            return
        strategy = order.get("strategy", "") if row["scope"] == "strategy" else None
        reduces = record["allowed_lots"] <= reducible[strategy]
        for value, bound in self._values(row, record, instruments, model, strategy, reduces):
            if value <= bound + SLACK * max(1.0, abs(bound)):
                continue
            if reduces and row["measure"] not in ("order_quantity", "order_value"):
                self._result.reductions += 1
                continue
            self._result.active.append(
                f"{self._account} {order['client_order_id']}: {row['measure']} is {value:g}, limit {bound:g}"
            )

    def _values(
        self, row: Row, record: Row, instruments: Row, model: RiskModel | None, strategy: str | None, reduces: bool
    ) -> Iterator[tuple[float, float]]:
        """(value, bound) of a row after the approval; NaN never passes as within."""
        ledger, order = self._ledger, record["order"]
        measure, symbol = row["measure"], order["symbol"]
        share = row.get("allocation", {}).get(self._account, 0.0) if row["scope"] == "firm" else 1.0
        bound = row["limit"] * share
        lot = ledger.listed[symbol]["lot_size"]
        if measure == "order_quantity":
            yield record["allowed_lots"] * lot, bound
        elif measure == "order_rate":
            since = record["time_us"] - int(row.get("window_s", 1.0) * 1_000_000)
            mine = [t for t, s in ledger.tried if t > since and strategy in (None, s)]
            yield float(len(mine)), bound
        elif measure == "mark_age":
            yield (record["time_us"] - ledger.quotes[symbol][3]) / 1e6, bound
        elif measure == "position":
            low, high = ledger.interval(symbol, strategy)
            yield max(high if order["side"] == 1 else -low, 0) * lot, bound
        elif not (reduces and not (ledger.equity() > 0)):
            per = self._denominator(row)
            yield self._money(row, record, instruments, model, strategy) / per, bound

    def _denominator(self, row: Row) -> float:
        default = "money" if row["measure"] in ("order_value", "gross_exposure") else "equity"
        equity = self._ledger.equity()
        if (row.get("unit") or default) == "money":
            return 1.0
        return equity if equity > 0 else math.nan

    def _money(self, row: Row, record: Row, instruments: Row, model: RiskModel | None, strategy: str | None) -> float:
        ledger, order, measure = self._ledger, record["order"], row["measure"]
        ends = ledger.ends(strategy)
        group = {"asset_class": "asset_class", "sector": "sector", "symbol": "symbol"}.get(row["scope"])
        if group is not None:
            mine = _field(instruments[order["symbol"]], group)
            ends = {s: e for s, e in ends.items() if _field(instruments[s], group) == mine}
        if measure == "order_value":
            return self._order_value(record)
        if measure in ("gross_exposure", "leverage"):
            return sum(max(abs(low), abs(high)) for low, high in ends.values())
        if measure == "concentration":
            issuer = _field(instruments[order["symbol"]], "issuer")
            held = [e for s, e in ends.items() if _field(instruments[s], "issuer") == issuer]
            return sum(max(abs(low), abs(high)) for low, high in held)
        if model is None:
            return math.nan
        losses = _losses(ends, model)
        if measure == "stress_loss":
            return max([*losses[model.n_days :], *_grid(ends, model, instruments)])
        return _tail(measure, sorted(losses[: model.n_days], reverse=True))

    def _order_value(self, record: Row) -> float:
        order, ledger = record["order"], self._ledger
        mark, bid, ask = ledger.quotes[order["symbol"]][:3]
        limit, stop = order.get("limit_price") or 0.0, order.get("stop_price") or 0.0
        listed = ledger.listed[order["symbol"]]
        if order["side"] == 1:
            slippage = self._blobs[record["limit_set"]].get("policy", {}).get("market_slippage", 0.01)
            price = limit if order["order_type"] in (2, 4) else max(ask or mark, stop) * (1 + slippage)
        else:
            price = max(limit, bid or mark, stop)
        return float(record["allowed_lots"] * price * listed["unit"] * ledger.rate(listed["currency"]))

    async def _json(self, blob_hash: str) -> Any:
        if blob_hash not in self._blobs:
            blob = await self._log.get_blob(blob_hash)
            if blob is None:
                raise ValueError(f"blob {blob_hash} that a record names is not in the store")
            self._blobs[blob_hash] = json.loads(blob)
        return self._blobs[blob_hash]

    async def _model(self, blob_hash: str) -> RiskModel | None:
        if blob_hash and blob_hash not in self._blobs:
            blob = await self._log.get_blob(blob_hash)
            self._blobs[blob_hash] = None if blob is None else decode_model(blob, blob_hash)
        model: RiskModel | None = self._blobs.get(blob_hash)
        return model


def _rows_for(limits: Row, account: str) -> list[Row]:
    rows = [row for row in limits["rows"] if row.get("account", "*") in ("*", account)]
    own = {_kind(row) for row in rows if row.get("account", "*") == account}
    named = [row for row in rows if row.get("account", "*") == account or _kind(row) not in own]
    return [{"action": "reject", "match": "*", **row} for row in named]


def _kind(row: Row) -> tuple[Any, ...]:
    return row["measure"], row["scope"], row.get("match", "*"), row.get("action", "reject")


def _reached(row: Row, order: Row, instrument: Row) -> bool:
    subject = {
        "strategy": order.get("strategy", ""),
        "asset_class": instrument["asset_class"],
        "sector": _field(instrument, "sector"),
        "symbol": order["symbol"],
    }.get(row["scope"], "*")
    return row["match"] in ("*", subject)


def _field(instrument: Row, name: str) -> str:
    default = "unassigned" if name == "sector" else instrument["symbol"]
    return str(instrument.get(name) or default)


def _losses(ends: dict[str, tuple[float, float]], model: RiskModel) -> list[float]:
    total: Vector = np.zeros(model.n_rows)
    for symbol, (low, high) in ends.items():
        returns = model.returns[:, model.column[symbol]]
        total += np.minimum(low * returns, high * returns)
    return [-float(gain) for gain in total]


def _grid(ends: dict[str, tuple[float, float]], model: RiskModel, instruments: Row) -> list[float]:
    groups: dict[str, Vector] = {}
    for symbol, (low, high) in ends.items():
        points = model.grid[model.column[symbol]]
        underlying = _field(instruments[symbol], "underlying")
        gains = np.minimum(low * points, high * points)
        groups[underlying] = groups.get(underlying, np.zeros(len(points))) + gains
    return [-float(gains.min()) for gains in groups.values()]


def _tail(measure: str, worst_first: list[float]) -> float:
    tail = 0.05 if measure.endswith("95") else 0.01
    mass = tail * len(worst_first)
    count = math.ceil(mass - 1e-9)
    if measure.startswith("var"):
        return worst_first[count - 1]
    return (sum(worst_first[: count - 1]) + (mass - (count - 1)) * worst_first[count - 1]) / mass


async def recount(log: AccountLog, accounts: list[str]) -> Recount:
    """Audit the whole logs of these accounts. Raises ValueError where a log or a blob is not there whole."""
    result = Recount()
    for account in accounts:
        await _Auditor(log, account, result).run()
    return result
