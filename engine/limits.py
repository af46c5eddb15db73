"""Limits: rows of data, and the set that is armed.

A row is measure × scope × thresholds × action. This module validates a set as a whole and resolves, once per
(account, strategy, instrument), which rows reach an order and with what bound; what a measure computes stands in
`engine.measures`, what a breach does in `engine.decide`. A set is an immutable value named by its hash.
"""

import enum
import hashlib
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from engine.control import TradingState
from engine.instrument import AssetClass, Instrument
from engine.order import OrderType, TimeInForce

EVERY = "*"


class ScopeKind(enum.StrEnum):
    """Over what a limit adds up, and which orders it reaches."""

    FIRM = "firm"
    ACCOUNT = "account"
    STRATEGY = "strategy"
    ASSET_CLASS = "asset_class"
    SECTOR = "sector"
    SYMBOL = "symbol"


class Unit(enum.StrEnum):
    """What a value and its bound are counted in."""

    EQUITY = "equity"
    """A fraction of the account's equity."""
    MONEY = "money"
    """The account's base currency."""
    QUANTITY = "quantity"
    """Units of the instrument."""
    SECONDS = "s"
    ORDERS = "orders"
    FRACTION = "fraction"
    """Of a price."""


class LimitAction(enum.StrEnum):
    WARN = "warn"
    REDUCE = "reduce"
    REJECT = "reject"
    HALT = "halt"


class HaltState(enum.StrEnum):
    REDUCE_ONLY = "reduce_only"
    CANCEL_ONLY = "cancel_only"
    HALTED = "halted"

    @property
    def trading_state(self) -> TradingState:
        return TradingState[self.name]


class LimitError(ValueError):
    """A limit set that can't be armed; `path` names the row and field."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class Limit(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One limit. Within it: value ≤ limit. Warned: value ≥ warn."""

    measure: str
    scope: ScopeKind
    limit: float
    match: str = EVERY
    """Which strategy, asset class, sector or symbol; "*": each one by itself."""
    account: str = EVERY
    """Which account; "*": each one by itself, unless a row of its own names it."""
    warn: float | None = None
    unit: Unit | None = None
    """None: the measure's own."""
    action: LimitAction = LimitAction.REJECT
    window_s: float = 1.0
    """Rates only."""
    halt_state: HaltState = HaltState.REDUCE_ONLY
    open_orders: bool = True
    """Count open orders at worst case; False only where the action is warn."""
    allocation: dict[str, float] = {}
    """Firm limits: each account's share of the bound; shares add up to at most 1."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a limit set says beside its rows."""

    order_types: tuple[OrderType, ...] = tuple(OrderType)
    times_in_force: tuple[TimeInForce, ...] = tuple(TimeInForce)
    market_slippage: float = 0.01
    """A market buy is valued at ask × (1 + this), CHECKS 12."""
    mark_age_max_s: float = 5.0
    """Bound of the mark_age limit that is implied where the set has none."""
    valid_for_default_s: float | None = None
    """How long an approval holds whose order does not say; None: it never expires."""
    model_age_max_s: float = 26 * 3600.0
    """A risk model built longer ago than this decides nothing but true reductions."""
    model_price_lag_days_max: int = 7
    """How many calendar days the newest close in the risk model may lie before the session: a model built today from
    last month's prices is stale all the same. A week lets long weekends pass."""
    model_lag_sessions_max: int = 0
    """How many sessions the account may be ahead of the model's. 0: the model must be of the account's session."""


class LimitSet(msgspec.Struct, frozen=True, dict=True):
    """The armed limits. Named by `hash`; `validate` before arming."""

    rows: tuple[Limit, ...] = ()
    policy: Policy = Policy()

    @cached_property
    def hash(self) -> str:
        """blake2b-16 of the canonical encoding, in hex."""
        return hashlib.blake2b(self.encode(), digest_size=16).hexdigest()

    def encode(self) -> bytes:
        return msgspec.json.encode(self, order="sorted")

    @staticmethod
    def decode(blob: bytes) -> "LimitSet":
        return msgspec.json.decode(blob, type=LimitSet)

    @property
    def implied(self) -> Limit:
        """The mark_age row that holds where the set has none of its own for an account: what is at stake must be
        valued at fresh marks, whatever else a set says of the age of some symbols."""
        return Limit("mark_age", ScopeKind.ACCOUNT, self.policy.mark_age_max_s)

    @cached_property
    def armed_rows(self) -> tuple[Limit, ...]:
        """All rows, with the implied one where it holds for some account."""
        held = any(_is_mark_age(row) and row.account == EVERY for row in self.rows)
        return self.rows if held else (*self.rows, self.implied)

    def rows_for(self, account: str) -> tuple[Limit, ...]:
        """The rows that hold for an account: a row that names it replaces the "*" rows alike but for that."""
        cache: dict[str, tuple[Limit, ...]] = self.__dict__.setdefault("_rows_for", {})
        found = cache.get(account)
        if found is None:
            found = tuple(_most_specific(self.rows, account))
            if not any(map(_is_mark_age, found)):
                found = (*found, self.implied)
            cache[account] = found
        return found


def _is_mark_age(row: Limit) -> bool:
    """Whether a row holds the marks of a whole account to an age, and does more than warn."""
    return row.measure == "mark_age" and row.scope is ScopeKind.ACCOUNT and row.action is not LimitAction.WARN


def _most_specific(rows: Iterable[Limit], account: str) -> Iterable[Limit]:
    mine = [row for row in rows if row.account in (EVERY, account)]
    named = {(row.measure, row.scope, row.match, row.action) for row in mine if row.account == account}
    return (r for r in mine if r.account == account or (r.measure, r.scope, r.match, r.action) not in named)


def share_of(row: Limit, account: str) -> float:
    """The part of the row's bound that is this account's: 1 but for firm limits, where an account without one has 0."""
    return row.allocation.get(account, 0.0) if row.scope is ScopeKind.FIRM else 1.0


def reaches(row: Limit, strategy: str, instrument: Instrument) -> bool:
    """Whether the row's scope holds an order of this strategy in this instrument."""
    subject = {
        ScopeKind.FIRM: EVERY,
        ScopeKind.ACCOUNT: EVERY,
        ScopeKind.STRATEGY: strategy,
        ScopeKind.ASSET_CLASS: str(instrument.asset_class),
        ScopeKind.SECTOR: instrument.sector,
        ScopeKind.SYMBOL: instrument.symbol,
    }[row.scope]
    return row.match in (EVERY, subject)


def limit_set_from(tables: Iterable[Mapping[str, Any]], policy: Mapping[str, Any] | None = None) -> LimitSet:
    """The set in a configuration's tables. Raises LimitError naming the row ("limit[3].warn") and what was expected."""
    rows = []
    for index, table in enumerate(tables):
        try:
            rows.append(msgspec.convert(dict(table), Limit))
        except msgspec.ValidationError as error:
            raise LimitError(f"limit[{index}]", str(error)) from error
    try:
        converted = msgspec.convert(_named_enums(dict(policy or {})), Policy)
    except msgspec.ValidationError as error:
        raise LimitError("limits", str(error)) from error
    return LimitSet(tuple(rows), converted)


def _named_enums(policy: dict[str, Any]) -> dict[str, Any]:
    """Order types and times in force are written by name in a file."""
    for field, kind in (("order_types", OrderType), ("times_in_force", TimeInForce)):
        for name in policy.get(field, ()):
            if str(name).upper() not in kind.__members__:
                raise LimitError(f"limits.{field}", f"unknown {name!r}; known: {', '.join(kind.__members__).lower()}")
        if field in policy:
            policy[field] = [int(kind[str(name).upper()]) for name in policy[field]]
    return policy


def check_rows(limit_set: LimitSet, measures: Mapping[str, Any]) -> None:
    """Refuse a set that can't be armed. `measures`: engine.measures.MEASURES. Raises LimitError."""
    seen: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(limit_set.rows):
        _check_row(f"limit[{index}]", row, measures)
        key = (row.measure, row.scope, row.match, row.account, row.action)
        if key in seen:
            raise LimitError(f"limit[{index}]", f"same measure, scope, match, account and action as limit[{seen[key]}]")
        seen[key] = index
    for name in ("market_slippage", "mark_age_max_s", "model_age_max_s"):
        value = getattr(limit_set.policy, name)
        if not (math.isfinite(value) and value >= 0):
            raise LimitError(f"limits.{name}", f"expected a finite number, 0 or above, got {value}")
    lag = limit_set.policy.model_lag_sessions_max
    if lag < 0:
        raise LimitError("limits.model_lag_sessions_max", f"expected 0 or more sessions, got {lag}")


def _check_row(path: str, row: Limit, measures: Mapping[str, Any]) -> None:
    measure = measures.get(row.measure)
    if measure is None:
        raise LimitError(f"{path}.measure", f"unknown measure {row.measure!r}; known: {', '.join(sorted(measures))}")
    if not (math.isfinite(row.limit) and row.limit >= 0):
        raise LimitError(f"{path}.limit", f"expected a finite number, 0 or above, got {row.limit}")
    if row.warn is not None and not (math.isfinite(row.warn) and 0 <= row.warn <= row.limit):
        raise LimitError(f"{path}.warn", f"expected a number from 0 to the limit {row.limit}, got {row.warn}")
    if row.scope not in measure.scopes:
        expected = ", ".join(sorted(measure.scopes))
        raise LimitError(f"{path}.scope", f"{row.measure} has no scope {row.scope.value!r}; expected one of {expected}")
    if row.unit is not None and row.unit not in measure.units:
        raise LimitError(
            f"{path}.unit", f"{row.measure} is counted in {' or '.join(measure.units)}, not {row.unit.value}"
        )
    if row.action is LimitAction.REDUCE and measure.fit is None:
        raise LimitError(f"{path}.action", f"{row.measure} can't be met by a smaller order; use warn, reject or halt")
    if not row.open_orders and row.action is not LimitAction.WARN:
        raise LimitError(f"{path}.open_orders", "open orders may be left out of warnings only")
    if not (math.isfinite(row.window_s) and 0 < row.window_s <= 3600):
        raise LimitError(f"{path}.window_s", f"expected seconds above 0, at most 3600, got {row.window_s}")
    if row.scope is ScopeKind.ASSET_CLASS and row.match not in (EVERY, *AssetClass):
        raise LimitError(f"{path}.match", f"expected one of {', '.join(AssetClass)} or *, got {row.match!r}")
    if row.scope in (ScopeKind.FIRM, ScopeKind.ACCOUNT) and row.match != EVERY:
        problem = f"scope {row.scope.value} has nothing to match, got {row.match!r}; an account is named by `account`"
        raise LimitError(f"{path}.match", problem)
    for field in ("match", "account"):
        if not getattr(row, field).strip():
            raise LimitError(f"{path}.{field}", "expected a name or *, got none: the limit would reach nothing")
    if row.scope is ScopeKind.FIRM:
        _check_allocation(path, row)
    elif row.allocation:
        raise LimitError(f"{path}.allocation", "only firm limits are allocated to accounts")


def _check_allocation(path: str, row: Limit) -> None:
    if not row.allocation:
        raise LimitError(
            f"{path}.allocation", "a firm limit needs the share of each account, for instance {ALPHA = 0.6}"
        )
    for account, share in row.allocation.items():
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise LimitError(f"{path}.allocation.{account}", f"expected a share from 0 to 1, got {share}")
    total = math.fsum(row.allocation.values())
    if total > 1 + 1e-9:
        raise LimitError(f"{path}.allocation", f"shares add up to {total:g}; expected at most 1")
