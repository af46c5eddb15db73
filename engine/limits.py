"""Limits: rows of data, and the set that is armed.

A row is measure × scope × thresholds × action. This module validates a set as a whole and resolves, once per
(account, strategy, instrument), which rows reach an order and with what bound; what a measure computes stands in
`engine.measures`, what a breach does in `engine.decide`. A set is an immutable value named by its hash.
"""

import difflib
import enum
import hashlib
import math
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import msgspec

from engine.control import TradingState
from engine.instrument import AssetClass, Instrument
from engine.loss_memory import CONFIRMATIONS_MAX, ROLLS_MAX
from engine.order import IDENTITIES, OrderType, TimeInForce

EVERY = "*"
NOTE_CHARS_MAX = 1_000


class ScopeKind(enum.StrEnum):
    """Over what a limit adds up, and which orders it reaches."""

    FIRM = "firm"
    ACCOUNT = "account"
    STRATEGY = "strategy"
    ASSET_CLASS = "asset_class"
    SECTOR = "sector"
    SYMBOL = "symbol"
    ALGO = "algo"
    TRADER = "trader"
    DESK = "desk"
    CLIENT = "client"
    VENUE = "venue"


IDENTITY_SCOPES = frozenset(ScopeKind(kind) for kind in IDENTITIES)
"""Whoever stands behind an order, within an account: of what is counted order by order. No position is kept by it."""

BOOK_SCOPES = frozenset(ScopeKind) - IDENTITY_SCOPES
"""Those that have positions of their own."""

NO_STOP_SCOPES = frozenset({ScopeKind.CLIENT, ScopeKind.VENUE})
"""No stop and no latch has these."""


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
    """Within a window."""
    FRACTION = "fraction"
    """Of a price, or of a day's quantity."""
    COUNT = "count"
    RULE = "rule"
    """1: violated, 0: kept."""


class LimitAction(enum.StrEnum):
    WARN = "warn"
    REDUCE = "reduce"
    REJECT = "reject"
    HALT = "halt"


class LimitMode(enum.StrEnum):
    """Whether a limit acts, or is only evaluated, listed and counted."""

    ENFORCED = "enforced"
    SHADOW = "shadow"


class HaltState(enum.StrEnum):
    REDUCE_ONLY = "reduce_only"
    CANCEL_ONLY = "cancel_only"
    HALTED = "halted"

    @property
    def trading_state(self) -> TradingState:
        return TradingState[self.name]


class RegimeMethod(enum.StrEnum):
    """By what the market's volatility regime is told (engine.risk.regime)."""

    OFF = "off"
    EWMA = "ewma"
    GARCH = "garch"
    MARKOV = "markov"


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
    """Firm limits: each account's share of the bound; shares add up to at most 1, and are the same in every firm limit
    of a measure."""
    mode: LimitMode = LimitMode.ENFORCED
    note: str = ""
    """Why the row exists, for people."""

    @property
    def is_hard(self) -> bool:
        """Whether a breach does more than warn."""
        return self.mode is LimitMode.ENFORCED and self.action is not LimitAction.WARN

    @property
    def is_shadow(self) -> bool:
        return self.mode is LimitMode.SHADOW

    @property
    def only_warns(self) -> bool:
        """Whether it has no bound beside its warning level: what a row without `limit` becomes."""
        return self.action is LimitAction.WARN and self.warn == self.limit

    @property
    def key(self) -> tuple[str, ScopeKind, str, str, LimitAction, LimitMode]:
        """What no two rows of a set have in common."""
        return self.measure, self.scope, self.match, self.account, self.action, self.mode


class Breaker(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The drawdown circuit breaker (engine.breaker). Drawdowns are fractions of the peak, reached inclusive."""

    levels: tuple[float, float, float] = (0.03, 0.05, 0.08)
    """Drawdowns of L1, L2 and L3."""
    cuts: tuple[float, float] = (0.25, 0.5)
    """Parts of each position that are cut at L1 and L2; at L3 all is closed."""
    releases: tuple[float, float] = (0.015, 0.03)
    """Below the first L1 becomes NORMAL, below the second L2 becomes L1."""
    cooldown_sessions: int = 5
    """Sessions opened after L3 was left, before a Resume starts to recover."""
    recovering_sessions: int = 3
    """Sessions over which bounds grow back."""
    recovery_drawdown: float = 0.03
    """Since the Resume: at or above it the account does not leave RECOVERING."""


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
    underlying_move_max: float = 0.03
    """How far, as a fraction, an underlying may have moved since the risk model valued an option on it: beyond that the
    option opens no position until it is valued anew."""
    order_value_min: float = 0.0
    """Least value of an order in base currency, CHECKS 10; true reductions are exempt."""
    short_sales_marked: bool = False
    """Whether a sell of an equity that could lead the account below zero must be SELL_SHORT (Reg SHO 200(g))."""
    identities_required: tuple[str, ...] = ()
    """Kinds of those who stand behind an order (engine.order.IDENTITIES) that it must name: limits and stops by trader
    don't reach one that names none."""
    grades: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0)
    """Shares of a bound at which its use is told to a person, rising, CHECKS 43."""
    volatility_target: float | None = None
    """Volatility a year that the bounds on exposure are meant for: where a book of the account's composition, as large
    as its equity, moves more, they are multiplied by this over its volatility, CHECKS 37. None: they are not."""
    volatility_scale_min: float = 0.25
    """The least factor of `volatility_target`."""
    volatility_regime: RegimeMethod = RegimeMethod.OFF
    """By what the market's volatility regime is told, which tightens bounds on exposure and tails."""
    regime_factors: tuple[float, ...] = (0.75, 0.5)
    """Factors of the elevated and of the high regime."""
    loss_confirmations: int = 3
    """Over how many marks of each symbol a loss, a drawdown or a profit must hold before it counts."""
    breaker: Breaker | None = None
    """None: there is no drawdown breaker."""
    cluster_correlation: float = 0.7
    """Correlation of daily returns, in size, from which on instruments count as one in `cluster_exposure`."""
    margin_rates: dict[str, float] = {}
    """Initial margin as a share of value, by symbol or asset class, in `margin`; of a written option the share of its
    underlying (0.2 where not named). What is not named is paid in full."""
    fee_rates: dict[str, float] = {}
    """What trading costs as a share of the value, by symbol or asset class; not named: nothing."""
    cash_haircut: float = 0.0
    """Share by which cash in other currencies than the account's counts less, and debts in them more, in `margin`."""
    budget_var_limit: float = 0.05
    """The VaR that `risk_budget` shares out, as a share of equity."""
    budget_confidence: float = 0.95
    """Of that VaR."""
    greeks_cut_at: float | None = None
    """From how many times a cap on a Greek on positions are cut back to it, 1 or more; None: they are not."""
    budget_headroom_min: float = 0.05
    """Share of the budget that has to be left where risk may be added."""
    flatten_volume_share: float = 0.01
    """Of an instrument's average daily quantity: what one of the gateway's own flatten orders takes at most."""
    flatten_spread_max: float = 0.005
    """Of the mark: where the quoted spread is wider, such an order gets smaller in proportion."""
    flatten_interval_s: float = 60.0
    """From one such order in a position to the next."""


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
        rows = self.rows if held else (*self.rows, self.implied)
        return self._with_breaker(rows)

    def _with_breaker(self, rows: tuple[Limit, ...]) -> tuple[Limit, ...]:
        """Implied where the policy has a breaker, unless a row says what it does."""
        given = self.policy.breaker is None or any(row.measure == BREAKER_ROW.measure for row in rows)
        return rows if given else (*rows, BREAKER_ROW)

    @cached_property
    def by_identity(self) -> bool:
        """Whether it depends on who stands behind an order which rows reach it."""
        return any(row.scope in IDENTITY_SCOPES for row in self.rows)

    def rows_for(self, account: str) -> tuple[Limit, ...]:
        """The rows that hold for an account: a row that names it replaces the "*" rows alike but for that."""
        cache: dict[str, tuple[Limit, ...]] = self.__dict__.setdefault("_rows_for", {})
        found = cache.get(account)
        if found is None:
            found = tuple(_most_specific(self.rows, account))
            if not any(map(_is_mark_age, found)):
                found = (*found, self.implied)
            found = self._with_breaker(found)
            cache[account] = found
        return found


BREAKER_ROW = Limit("drawdown_breaker", ScopeKind.ACCOUNT, 0.0)
"""Implied where the policy has a breaker."""


def _is_mark_age(row: Limit) -> bool:
    """Whether a row holds the marks of a whole account to an age, and does more than warn."""
    return row.measure == "mark_age" and row.scope is ScopeKind.ACCOUNT and row.is_hard


def _most_specific(rows: Iterable[Limit], account: str) -> Iterable[Limit]:
    mine = [row for row in rows if row.account in (EVERY, account)]
    named = {alike(row) for row in mine if row.account == account}
    return (row for row in mine if row.account == account or alike(row) not in named)


def alike(row: Limit) -> tuple[str, ScopeKind, str, LimitAction, LimitMode]:
    """What a row that names an account has in common with the "*" row that it replaces. A row in shadow never replaces
    one that acts."""
    return row.measure, row.scope, row.match, row.action, row.mode


def share_of(row: Limit, account: str) -> float:
    """The part of the row's bound that is this account's: 1 but for firm limits, where an account without one has 0."""
    return row.allocation.get(account, 0.0) if row.scope is ScopeKind.FIRM else 1.0


def reaches(
    row: Limit, strategy: str, instrument: Instrument, identities: Mapping[str, str] = MappingProxyType({})
) -> bool:
    """Whether the row's scope holds an order of this strategy in this instrument. `identities`: who stands behind it,
    by kind of scope; an order that names nobody of a kind is reached by no row of it."""
    if row.scope in IDENTITY_SCOPES:
        name = identities.get(row.scope.value, "")
        return name != "" and row.match in (EVERY, name)
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
            rows.append(msgspec.convert(_with_bound(table), Limit))
        except msgspec.ValidationError as error:
            raise _misread(f"limit[{index}]", error, Limit) from error
    try:
        converted = msgspec.convert(_named_enums(dict(policy or {})), Policy)
    except msgspec.ValidationError as error:
        raise _misread("limits", error, Policy) from error
    return LimitSet(tuple(rows), converted)


_MISREAD = re.compile(r"(?P<said>.*?)(?: - at `\$\.?(?P<place>.*)`)?")
_FIELD = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<name>.*)`")


def _misread(path: str, error: msgspec.ValidationError, of: type[msgspec.Struct]) -> LimitError:
    """What msgspec says of a table, with the path of the key in front."""
    found = _MISREAD.fullmatch(str(error))
    said, place = (found["said"], found["place"] or "") if found else (str(error), "")
    named = _FIELD.fullmatch(said)
    if named is None:
        known = _names_known(of, place)
        expected = f", expected one of {', '.join(known)}" if known else ""
        return LimitError(f"{path}.{place}" if place else path, f"{said[:1].lower()}{said[1:]}{expected}")
    place = f"{path}.{place}.{named['name']}" if place else f"{path}.{named['name']}"
    if named["what"].startswith("missing"):
        return LimitError(place, "required, but missing")
    return LimitError(place, f"unknown key{nearest(named['name'], of.__struct_fields__)}")


def _names_known(of: type[msgspec.Struct], field: str) -> list[str]:
    """What may be written in a field that holds one of several names; nothing where it holds anything else."""
    kind = typing.get_type_hints(of).get(field)
    kinds = [part for part in (kind, *typing.get_args(kind)) if isinstance(part, type) and issubclass(part, enum.Enum)]
    return [str(member.value) for part in kinds for member in part]


def nearest(key: str, known: Sequence[str]) -> str:
    """What may have been meant by a key that nobody knows."""
    found = difflib.get_close_matches(key, known, n=1)
    return f", did you mean {found[0]!r}?" if found else f", expected one of {', '.join(known)}"


def _with_bound(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without `limit` only warns, from `warn` on."""
    warns_only = "limit" not in table and "warn" in table and table.get("action", "warn") == "warn"
    return {**table, "limit": table["warn"], "action": "warn"} if warns_only else dict(table)


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
    """Refuse a set that can't be armed. `measures`: engine.measures.MEASURES. Raises LimitError, the first fault."""
    for fault in faults_of(limit_set, measures):
        raise fault


def faults_of(limit_set: LimitSet, measures: Mapping[str, Any]) -> Iterator[LimitError]:
    """Why a set can't be armed: the first fault of each row, in their order, then those of the policy."""
    first: dict[tuple[object, ...], int] = {}
    first_of_firm: dict[str, int] = {}
    for index, row in enumerate(limit_set.rows):
        path = f"limit[{index}]"
        try:
            _check_row(path, row, measures)
            _check_distinct(path, row, first)
            _check_ladder(path, row, limit_set.rows)
            _check_shares(path, row, limit_set.rows, first_of_firm)
            _check_children(path, row, limit_set.rows)
        except LimitError as fault:
            yield fault
        first.setdefault(row.key, index)
        if row.scope is ScopeKind.FIRM:
            first_of_firm.setdefault(row.measure, index)
    yield from _policy_faults(limit_set.policy)
    yield from _loss_faults(limit_set)


def _check_distinct(path: str, row: Limit, first: Mapping[tuple[object, ...], int]) -> None:
    if row.key in first:
        raise LimitError(path, f"same measure, scope, match, account, action and mode as limit[{first[row.key]}]")


def _check_ladder(path: str, row: Limit, rows: Sequence[Limit]) -> None:
    """What halts comes after what does less: of rows alike but for their action, a halt below the rejection would leave
    that without a meaning, and whoever wrote them meant something else."""
    if row.action is not LimitAction.HALT:
        return
    place = _but_for_action(row)
    for index, other in enumerate(rows):
        if other.limit > row.limit and other.action is not LimitAction.HALT and _but_for_action(other) == place:
            problem = f"expected {other.limit:g} or more: limit[{index}] does less ({other.action}) and comes first"
            raise LimitError(f"{path}.limit", problem)


def _but_for_action(row: Limit) -> tuple[object, ...]:
    return row.measure, row.scope, row.match, row.account, row.mode, row.unit


def _check_shares(path: str, row: Limit, rows: Sequence[Limit], first_of_firm: Mapping[str, int]) -> None:
    """The contract tells shares by measure."""
    other = first_of_firm.get(row.measure) if row.scope is ScopeKind.FIRM else None
    if other is not None and rows[other].allocation != row.allocation:
        problem = f"expected the shares of limit[{other}], the other firm limit of {row.measure}"
        raise LimitError(f"{path}.allocation", problem)


def _check_children(path: str, row: Limit, rows: Sequence[Limit]) -> None:
    """What the strategies of an account are given of its risk budget adds up to no more than it has: with each of them
    at its bound the account would be over its own."""
    if row.measure != "risk_budget" or row.scope is not ScopeKind.ACCOUNT or not row.is_hard:
        return
    named = [
        one
        for one in rows
        if one.measure == row.measure and one.scope is ScopeKind.STRATEGY and one.match != EVERY and one.is_hard
    ]
    of_account = [one for one in named if row.account in (EVERY, one.account) or one.account == EVERY]
    for account in {one.account for one in of_account}:
        bounds: dict[str, float] = {}
        for one in of_account:
            if one.account in (EVERY, account):
                bounds[one.match] = min(one.limit, bounds.get(one.match, math.inf))
        total = math.fsum(bounds.values())
        if total > row.limit + 1e-9:
            problem = f"{row.limit:g} is less than the {total:g} that its strategies {', '.join(sorted(bounds))} have"
            raise LimitError(f"{path}.limit", f"expected at least the sum of its strategies' budgets: {problem}")


def _policy_faults(policy: Policy) -> Iterator[LimitError]:
    for name in ("market_slippage", "mark_age_max_s", "model_age_max_s", "underlying_move_max", "order_value_min"):
        value = getattr(policy, name)
        if not (math.isfinite(value) and value >= 0):
            yield LimitError(f"limits.{name}", f"expected a finite number, 0 or above, got {value}")
    for name, unit in (("model_price_lag_days_max", "days"), ("model_lag_sessions_max", "sessions")):
        value = getattr(policy, name)
        if value < 0:
            yield LimitError(f"limits.{name}", f"expected 0 or more {unit}, got {value}")
    if any(not (math.isfinite(grade) and grade > 0) for grade in policy.grades) or list(policy.grades) != sorted(
        set(policy.grades)
    ):
        yield LimitError("limits.grades", f"expected rising numbers above 0, got {list(policy.grades)}")
    for kind in policy.identities_required:
        if kind not in IDENTITIES:
            yield LimitError("limits.identities_required", f"expected some of {', '.join(IDENTITIES)}, got {kind!r}")
    yield from _volatility_faults(policy)
    yield from _margin_faults(policy)
    for name in ("flatten_volume_share", "flatten_spread_max"):
        value = getattr(policy, name)
        if not (math.isfinite(value) and value > 0):
            yield LimitError(f"limits.{name}", f"expected a finite number above 0, got {value}")
    if not (math.isfinite(policy.flatten_interval_s) and policy.flatten_interval_s >= 0):
        problem = f"expected a finite number, 0 or above, got {policy.flatten_interval_s}"
        yield LimitError("limits.flatten_interval_s", problem)
    valid_for_s = policy.valid_for_default_s
    if valid_for_s is not None and not (math.isfinite(valid_for_s) and valid_for_s > 0):
        yield LimitError("limits.valid_for_default_s", f"expected a finite number above 0, got {valid_for_s}")


def _loss_faults(limit_set: LimitSet) -> Iterator[LimitError]:
    """A set acts on drawdowns by a breaker or by rows, never by both: they would cut each other short."""
    policy = limit_set.policy
    if not 1 <= policy.loss_confirmations <= CONFIRMATIONS_MAX:
        problem = f"expected marks from 1 to {CONFIRMATIONS_MAX}, got {policy.loss_confirmations}"
        yield LimitError("limits.loss_confirmations", problem)
    for index, row in enumerate(limit_set.rows):
        if row.measure == "drawdown" and policy.breaker is not None and not row.is_shadow:
            yield LimitError(f"limit[{index}].measure", "expected drawdown rows or limits.breaker, got both")
    if policy.breaker is not None:
        yield from _breaker_faults(policy.breaker)


def _breaker_faults(breaker: Breaker) -> Iterator[LimitError]:
    path, levels, cuts, releases = "limits.breaker", breaker.levels, breaker.cuts, breaker.releases
    if not 0.0 < levels[0] < levels[1] < levels[2] < 1.0:
        yield LimitError(f"{path}.levels", f"expected three rising numbers between 0 and 1, got {list(levels)}")
    if not 0.0 < cuts[0] < cuts[1] < 1.0:
        yield LimitError(f"{path}.cuts", f"expected two rising numbers between 0 and 1, got {list(cuts)}")
    if not (0.0 < releases[0] < levels[0] and releases[0] < releases[1] < levels[1]):
        problem = f"expected two rising numbers, each below its level {list(levels[:2])}, got {list(releases)}"
        yield LimitError(f"{path}.releases", problem)
    for name, least in (("cooldown_sessions", 1), ("recovering_sessions", 0)):
        count = getattr(breaker, name)
        if not least <= count <= ROLLS_MAX:
            yield LimitError(f"{path}.{name}", f"expected {least} to {ROLLS_MAX} sessions, got {count}")
    if not 0.0 < breaker.recovery_drawdown <= levels[0]:
        problem = f"expected a number above 0, at most the first level {levels[0]}, got {breaker.recovery_drawdown}"
        yield LimitError(f"{path}.recovery_drawdown", problem)


def _margin_faults(policy: Policy) -> Iterator[LimitError]:
    for name, rates in (("margin_rates", policy.margin_rates), ("fee_rates", policy.fee_rates)):
        for named, rate in rates.items():
            if not (math.isfinite(rate) and rate >= 0 and named.strip()):
                problem = f"expected a finite number, 0 or above, for a symbol or an asset class, got {rate}"
                yield LimitError(f"limits.{name}.{named}", problem)
    for name in ("cash_haircut", "budget_headroom_min"):
        value = getattr(policy, name)
        if not 0.0 <= value <= 1.0:
            yield LimitError(f"limits.{name}", f"expected a number from 0 to 1, got {value}")
    if not (math.isfinite(policy.budget_var_limit) and policy.budget_var_limit > 0):
        yield LimitError("limits.budget_var_limit", f"expected a finite number above 0, got {policy.budget_var_limit}")
    cut_at = policy.greeks_cut_at
    if cut_at is not None and not 1.0 <= cut_at < math.inf:
        yield LimitError("limits.greeks_cut_at", f"expected a finite number, 1 or above, got {cut_at}")
    if not 0.5 < policy.budget_confidence < 1.0:
        problem = f"expected more than 0.5 and less than 1 (0.95 for 95 %), got {policy.budget_confidence}"
        yield LimitError("limits.budget_confidence", problem)


def _volatility_faults(policy: Policy) -> Iterator[LimitError]:
    target = policy.volatility_target
    if target is not None and not (math.isfinite(target) and target > 0):
        yield LimitError("limits.volatility_target", f"expected a finite number above 0, got {target}")
    for name in ("volatility_scale_min", "cluster_correlation"):
        value = getattr(policy, name)
        if not 0.0 < value <= 1.0:
            yield LimitError(f"limits.{name}", f"expected a number above 0, at most 1, got {value}")
    factors = policy.regime_factors
    if len(factors) != 2 or not 1.0 >= factors[0] >= factors[1] > 0.0:
        problem = "expected two numbers above 0, at most 1, of the elevated and the high regime, the second no larger"
        yield LimitError("limits.regime_factors", f"{problem}, got {list(factors)}")


def _check_row(path: str, row: Limit, measures: Mapping[str, Any]) -> None:
    measure = measures.get(row.measure)
    if measure is None:
        raise LimitError(f"{path}.measure", f"unknown measure {row.measure!r}; known: {', '.join(sorted(measures))}")
    if not (math.isfinite(row.limit) and row.limit >= 0):
        raise LimitError(f"{path}.limit", f"expected a finite number, 0 or above, got {row.limit}")
    if row.warn is not None and not (math.isfinite(row.warn) and 0 <= row.warn <= row.limit):
        raise LimitError(f"{path}.warn", f"expected a number from 0 to the limit {row.limit}, got {row.warn}")
    if row.scope not in measure.scopes:
        raise LimitError(f"{path}.scope", _no_scope(row, measure.scopes))
    if row.action is LimitAction.HALT and row.scope in NO_STOP_SCOPES:
        raise LimitError(f"{path}.action", f"no stop has scope {row.scope.value}; use warn or reject")
    if measure.halts and row.action not in (LimitAction.WARN, LimitAction.HALT):
        raise LimitError(f"{path}.action", f"{row.measure} is ended by a person's Resume alone; use warn or halt")
    if row.unit is not None and row.unit not in measure.units:
        raise LimitError(
            f"{path}.unit", f"{row.measure} is counted in {' or '.join(measure.units)}, not {row.unit.value}"
        )
    if measure.units[0] is Unit.RULE and row.limit != 0:
        raise LimitError(f"{path}.limit", f"expected 0, got {row.limit:g}: {row.measure} is kept or violated")
    if measure.units[0] is Unit.RULE and row.warn is not None:
        raise LimitError(f"{path}.warn", f"expected none: {row.measure} is kept or violated; action warn warns")
    if row.action is LimitAction.REDUCE and measure.fit is None:
        raise LimitError(f"{path}.action", f"{row.measure} can't be met by a smaller order; use warn, reject or halt")
    if not row.open_orders and row.action is not LimitAction.WARN:
        raise LimitError(f"{path}.open_orders", "open orders may be left out of warnings only")
    if not (math.isfinite(row.window_s) and 0 < row.window_s <= measure.window_max_s):
        most = f"at most {measure.window_max_s:g}, got {row.window_s}"
        raise LimitError(f"{path}.window_s", f"expected seconds above 0, {most}")
    if row.scope is ScopeKind.ASSET_CLASS and row.match not in (EVERY, *AssetClass):
        raise LimitError(f"{path}.match", f"expected one of {', '.join(AssetClass)} or *, got {row.match!r}")
    if row.scope in (ScopeKind.FIRM, ScopeKind.ACCOUNT) and row.match != EVERY:
        problem = f"scope {row.scope.value} has nothing to match, got {row.match!r}; an account is named by `account`"
        raise LimitError(f"{path}.match", problem)
    for field in ("match", "account"):
        if not getattr(row, field).strip():
            raise LimitError(f"{path}.{field}", "expected a name or *, got none: the limit would reach nothing")
    if len(row.note) > NOTE_CHARS_MAX:
        raise LimitError(f"{path}.note", f"expected at most {NOTE_CHARS_MAX} characters, got {len(row.note)}")
    if row.scope is ScopeKind.FIRM:
        _check_allocation(path, row)
    elif row.allocation:
        raise LimitError(f"{path}.allocation", "only firm limits are allocated to accounts")


def _no_scope(row: Limit, known: Iterable[ScopeKind]) -> str:
    expected = f"expected one of {', '.join(sorted(known))}"
    why = f": positions are not kept by {row.scope.value}" if row.scope in IDENTITY_SCOPES else ""
    return f"{row.measure} has no scope {row.scope.value!r}{why}; {expected}"


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
