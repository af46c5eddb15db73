"""What one limit set changes in another: row by row, field by field, and whether it allows more than before.

Rows are paired by what they limit; a pair that differs, a row that is gone and a row that is new are changes. Whether
a change loosens is judged for every account that a row names and for one that none does, because a row that names an
account replaces the "*" row alike: a new row can allow more. Nothing is armed, printed or asked here.
"""

import enum
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from engine.limits import (
    EVERY,
    Breaker,
    HaltState,
    Limit,
    LimitAction,
    LimitSet,
    Policy,
    RegimeMethod,
    ScopeKind,
    Unit,
    alike,
    share_of,
)

MICROS = 1_000_000
UNNAMED = ""
"""Stands for an account that no row names."""

_MILDEST_FIRST = list(LimitAction)
_MILDEST_STATE_FIRST = list(HaltState)
_POLICY_SETS = ("order_types", "times_in_force", "identities_required")
_SPANS_S = ("mark_age_max_s", "valid_for_default_s", "model_age_max_s", "flatten_interval_s")
_LOOSER_WHEN_HIGHER = (
    "mark_age_max_s",
    "model_age_max_s",
    "model_price_lag_days_max",
    "model_lag_sessions_max",
    "underlying_move_max",
    "volatility_scale_min",
    "cluster_correlation",
    "loss_confirmations",
    "budget_var_limit",
)
_LOOSER_WHEN_LOWER = ("cash_haircut", "budget_confidence", "budget_headroom_min")

_PAIRED_BY: tuple[Callable[[Limit], tuple[object, ...]], ...] = (
    lambda row: row.key,
    lambda row: (row.measure, row.scope, row.match, row.account, row.action),
    lambda row: (row.measure, row.scope, row.match, row.account, row.mode),
    lambda row: (row.measure, row.scope, row.match, row.account),
)
"""The closest first: the same row, then the same row in another mode, then with another action, then both."""

Group = tuple[str, ScopeKind, str]
"""Measure, scope and match: rows of different groups never stand for each other."""

Pair = tuple[Limit | None, Limit | None]
"""A row before and after."""


class FieldChange(msgspec.Struct, frozen=True):
    """A field of a row or of the policy; the values as a person writes them, "" for none."""

    field: str
    before: str
    after: str


class LimitChange(msgspec.Struct, frozen=True):
    """A row that is new (no `previous`), gone (no `limit`) or different."""

    previous: Limit | None
    limit: Limit | None
    loosened: bool
    """An account may do more than before."""

    @property
    def row(self) -> Limit:
        row = self.limit or self.previous
        assert row is not None, "a change has a row before or after it"
        return row

    @property
    def fields(self) -> tuple[FieldChange, ...]:
        """What differs between both rows; nothing where there is only one."""
        if self.previous is None or self.limit is None:
            return ()
        return tuple(_field_changes(self.previous, self.limit))


class PolicyChange(msgspec.Struct, frozen=True):
    change: FieldChange
    loosened: bool


class SetChanges(msgspec.Struct, frozen=True):
    """All that differs between two sets."""

    rows: tuple[LimitChange, ...]
    policy: tuple[PolicyChange, ...]

    @property
    def loosened(self) -> bool:
        return any(row.loosened for row in self.rows) or any(field.loosened for field in self.policy)

    def __bool__(self) -> bool:
        return bool(self.rows or self.policy)


def normal(limit_set: LimitSet, measures: Mapping[str, Any]) -> LimitSet:
    """The same set as it is written in only one way: units said, whole microseconds, nothing said that isn't read. Two
    sets that say the same are equal then. `measures`: engine.measures.MEASURES; the set has been validated."""
    rows = tuple(_normal_row(row, measures) for row in limit_set.rows)
    policy = limit_set.policy
    spans = {name: _whole_micros(getattr(policy, name)) for name in _SPANS_S}
    types = {name: tuple(sorted(set(getattr(policy, name)))) for name in _POLICY_SETS}
    return LimitSet(rows, msgspec.structs.replace(policy, **spans, **types))


def _normal_row(row: Limit, measures: Mapping[str, Any]) -> Limit:
    unit = row.unit or measures[row.measure].units[0]
    return msgspec.structs.replace(
        row,
        unit=unit,
        window_s=_whole_micros(row.window_s) if unit is Unit.ORDERS else 1.0,
        halt_state=row.halt_state if row.action is LimitAction.HALT else HaltState.REDUCE_ONLY,
        allocation=dict(sorted(row.allocation.items())),
    )


def _whole_micros(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * MICROS) / MICROS


def changes(before: LimitSet, after: LimitSet, measures: Mapping[str, Any]) -> SetChanges:
    """What `after` changes in `before`, implied rows included, in the order of `after`, then what is gone."""
    before, after = normal(before, measures), normal(after, measures)
    old, new = (tuple(_normal_row(row, measures) for row in one.armed_rows) for one in (before, after))
    pairs = [pair for pair in _paired(old, new) if pair[0] != pair[1]]
    loosened = _loosened(before, after, pairs)
    rows = tuple(LimitChange(was, now, index in loosened) for index, (was, now) in enumerate(pairs))
    return SetChanges(rows, tuple(_policy_changes(before.policy, after.policy)))


# --- pairs --------------------------------------------------------------------------------------------------------


def _paired(old: Sequence[Limit], new: Sequence[Limit]) -> list[Pair]:
    """Each row with the one that it was or became."""
    was: dict[int, Limit] = {}
    rest_old, rest_new = list(old), list(enumerate(new))
    for by in _PAIRED_BY:
        waiting: defaultdict[tuple[object, ...], list[Limit]] = defaultdict(list)
        for row in rest_old:
            waiting[by(row)].append(row)
        still_new = []
        for index, row in rest_new:
            if waiting[by(row)]:
                was[index] = waiting[by(row)].pop(0)
            else:
                still_new.append((index, row))
        rest_old, rest_new = [row for rows in waiting.values() for row in rows], still_new
    kept: list[Pair] = [(was.get(index), row) for index, row in enumerate(new)]
    return kept + [(row, None) for row in rest_old]


# --- what allows more ---------------------------------------------------------------------------------------------


def _loosened(before: LimitSet, after: LimitSet, pairs: Sequence[Pair]) -> set[int]:
    """The pairs for which an account may do more: a row that held for it holds no more, and nothing as strict does."""
    rows_before, rows_after = _by_group(before.rows), _by_group(after.rows)
    causes = _Causes(pairs)
    found: set[int] = set()
    for group in {_group(row) for pair in pairs for row in pair if row is not None}:
        were, are = rows_before.get(group, {}), rows_after.get(group, {})
        for account in _accounts(were, are):
            holding = _holding(are, after.policy, group, account)
            for row in _holding(were, before.policy, group, account):
                if row.is_hard and not any(_is_as_strict(now, row, account) for now in holding):
                    found.update(causes.of(row, account))
    return found


class _Causes:
    """Which pairs take a row from an account: one whose new row replaces it there, else its own."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._own = {was.key: index for index, (was, _) in enumerate(pairs) if was is not None}
        self._by_account: defaultdict[tuple[Group, str], list[tuple[int, Limit]]] = defaultdict(list)
        for index, (_, now) in enumerate(pairs):
            if now is not None:
                self._by_account[_group(now), now.account].append((index, now))

    def of(self, lost: Limit, account: str) -> list[int]:
        of_account = self._by_account[_group(lost), account]
        replacing = [index for index, now in of_account if alike(now) == alike(lost)]
        if replacing:
            return replacing
        own = self._own.get(lost.key)
        return [own] if own is not None else [index for index, _ in of_account]


def _group(row: Limit) -> Group:
    return row.measure, row.scope, row.match


def _by_group(rows: Iterable[Limit]) -> Mapping[Group, Mapping[str, Sequence[Limit]]]:
    """By what they limit, then by account."""
    groups: defaultdict[Group, defaultdict[str, list[Limit]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[_group(row)][row.account].append(row)
    return groups


def _accounts(*groups: Mapping[str, Sequence[Limit]]) -> set[str]:
    """All that are named or have a share, and one that is and has not."""
    accounts = {UNNAMED}
    for group in groups:
        accounts.update(account for account in group if account != EVERY)
        accounts.update(account for rows in group.values() for row in rows for account in row.allocation)
    return accounts


def _holding(rows: Mapping[str, Sequence[Limit]], policy: Policy, group: Group, account: str) -> list[Limit]:
    """The rows of a group that hold for an account."""
    reaching = LimitSet((*rows.get(EVERY, ()), *rows.get(account, ())), policy)
    return [row for row in reaching.rows_for(account) if _group(row) == group]


def _is_as_strict(now: Limit, was: Limit, account: str) -> bool:
    """Whether whatever breached `was` breaches `now`, with nothing milder to follow."""
    return (
        now.is_hard
        and (None in (now.unit, was.unit) or now.unit is was.unit)
        and now.limit * share_of(now, account) <= was.limit * share_of(was, account)
        and now.window_s >= was.window_s
        and _MILDEST_FIRST.index(now.action) >= _MILDEST_FIRST.index(was.action)
        and _MILDEST_STATE_FIRST.index(now.halt_state) >= _MILDEST_STATE_FIRST.index(was.halt_state)
    )


# --- in words -----------------------------------------------------------------------------------------------------


def row_name(row: Limit) -> str:
    """For instance "position of symbol AAPL, account ALPHA"."""
    match = f" {row.match}" if row.scope not in (ScopeKind.FIRM, ScopeKind.ACCOUNT) else ""
    account = f", account {row.account}" if row.account != EVERY else ""
    return f"{row.measure} of {row.scope}{match}{account}{' (shadow)' if row.is_shadow else ''}"


def in_words(change: LimitChange) -> str:
    """A change in one line: old → new per field."""
    if change.limit is None:
        return f"gone: {_row_in_words(change.row)}"
    if change.previous is None:
        return f"new: {_row_in_words(change.row)}"
    return ", ".join(map(field_in_words, change.fields))


def field_in_words(field: FieldChange) -> str:
    return f"{field.field} {field.before} → {field.after}"


def _row_in_words(row: Limit) -> str:
    said = [("limit", row.limit), ("warn", row.warn), ("unit", row.unit), ("action", row.action)]
    return ", ".join(f"{name} {_written(value)}" for name, value in said if value is not None)


def _field_changes(before: Limit, after: Limit) -> Iterator[FieldChange]:
    for field in Limit.__struct_fields__:
        was, now = (None if field == "limit" and row.only_warns else getattr(row, field) for row in (before, after))
        if was != now:
            yield FieldChange(field, _written(was), _written(now))


def _policy_changes(before: Policy, after: Policy) -> Iterator[PolicyChange]:
    for field in Policy.__struct_fields__:
        was, now = getattr(before, field), getattr(after, field)
        if was != now:
            yield PolicyChange(FieldChange(field, _written(was), _written(now)), _policy_loosened(field, was, now))


def _policy_loosened(field: str, was: Any, now: Any) -> bool:
    if field in ("order_types", "times_in_force"):
        return not set(now) <= set(was)
    if field == "identities_required":
        return not set(was) <= set(now)
    if field in ("market_slippage", "order_value_min", "short_sales_marked"):
        return bool(now < was)
    if field == "breaker":
        return was is not None and (now is None or _breaker_loosened(was, now))
    if field in ("volatility_target", "greeks_cut_at"):
        return was is not None and (now is None or now > was)
    if field == "volatility_regime":
        return bool(now is RegimeMethod.OFF)
    if field == "regime_factors":
        return any(after > before for before, after in zip(was, now, strict=False))
    if field in ("margin_rates", "fee_rates"):
        return _rates_loosened(was, now)
    if field in _LOOSER_WHEN_LOWER:
        return bool(now < was)
    return field in _LOOSER_WHEN_HIGHER and bool(now > was)


def _rates_loosened(was: dict[str, float], now: dict[str, float]) -> bool:
    """A rate that is lower, and any that comes or goes: what stands for it otherwise depends on the instrument."""
    return was.keys() != now.keys() or any(now[name] < rate for name, rate in was.items())


def _word(one: Any) -> str:
    if isinstance(one, enum.Enum):
        return one.name.lower()
    return one if isinstance(one, str) else f"{one:g}"


def _breaker_loosened(was: Breaker, now: Breaker) -> bool:
    """Whether it trips later, cuts less, or lets go sooner."""
    later = any(after > before for before, after in zip(was.levels, now.levels, strict=True))
    less = any(after < before for before, after in zip(was.cuts, now.cuts, strict=True))
    sooner = any(after > before for before, after in zip(was.releases, now.releases, strict=True))
    shorter = now.cooldown_sessions < was.cooldown_sessions or now.recovering_sessions < was.recovering_sessions
    return later or less or sooner or shorter or now.recovery_drawdown > was.recovery_drawdown


def _written(value: Any) -> str:
    """A value as a configuration would have it."""
    if isinstance(value, tuple):
        return " ".join(map(_word, value)) or "none"
    if isinstance(value, Breaker):
        return ", ".join(f"{name} {_written(getattr(value, name))}" for name in Breaker.__struct_fields__)
    if isinstance(value, dict):
        return " ".join(f"{account}={share:g}" for account, share in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:,.12g}"
    return "none" if value in (None, "") else str(value)
