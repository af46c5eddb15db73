"""Events (central bank decisions, releases, earnings): what they are, whose word counts, what is done around them.

An event is known to happen between two instants, equal where its hour is known; what a source writes is turned into
instants at the border. From a policy follow the tightenings of a window, and the outlook that people read. Nothing is
fetched or appended here: gateway/market/events reads, gateway/worker/event_monitor.py appends. A source that fails, or
that no longer lists what it did, loosens nothing.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime

import msgspec

from engine.account import AccountState
from engine.instrument import InstrumentSet
from engine.records import AnyRecord, CalendarPlanned
from engine.tightening import EVENT_BLACKOUT, tightened

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000

MANUAL = "manual"
"""Source of what an operator entered."""

RANK_MANUAL, RANK_OFFICIAL, RANK_OFFICIAL_FILE, RANK_FILE, RANK_VENDOR = range(5)
"""Whose word counts where two sources tell of the same event: the lower."""

SAME_WITHIN_DAYS = {"fomc": 7, "cpi": 7, "nfp": 7, "ppi": 7, "gdp": 7, "pce": 7, "earnings": 14}
"""Two sources' events of a type (and symbol) this close are one event; of other types those of one day and name."""

ID_PREFIX = "event:"
MISSING_ID = f"{ID_PREFIX}missing"
"""Of the tightening that stands for a calendar that was never read."""

BLOCK_FACTOR = 1e-9
"""Of the tightenings of `event_blackout`: it says that the window blocks, and scales a bound of 0."""

EVENTS_MAX = 20_000
"""Of one source: a year of earnings of some 4,000 companies. More is no calendar."""

EXPOSURES = (
    "order_quantity",
    "order_value",
    "position",
    "short_position",
    "gross_exposure",
    "net_exposure",
    "beta_exposure",
    "concentration",
    "leverage",
    "var_95",
    "var_99",
    "es_95",
    "es_99",
    "stress_loss",
)
"""What a factor scales where a rule names no measures."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """It happens from `earliest_us` to `latest_us`: one instant, or all that its hour may be."""

    event_id: str
    event_type: str
    """`earnings`, `fomc`, `cpi`, `nfp`, `fed_speaker` or any other name in small letters."""
    name: str
    earliest_us: int
    latest_us: int
    date: str
    """ISO, where it happens."""
    symbols: tuple[str, ...] = ()
    """Empty: it reaches everything."""
    source: str = MANUAL
    official: bool = False
    cancelled: bool = False
    uncertain: bool = False
    """Its hour is not known."""
    before_us: int | None = None
    """This and the next three: in place of its type's rule."""
    after_us: int | None = None
    factor: float | None = None
    gap: float | None = None
    reason: str = ""
    """Why an operator entered it."""

    def __post_init__(self) -> None:
        if not self.event_id or not self.event_type:
            raise ValueError(f"event: expected an id and a type, got {self.event_id!r} and {self.event_type!r}")
        if not 0 < self.earliest_us <= self.latest_us:
            raise ValueError(f"{self.event_id}: expected 0 < earliest <= latest, got {self.earliest_us}")
        date.fromisoformat(self.date)
        for span in (self.before_us, self.after_us):
            if span is not None and span < 0:
                raise ValueError(f"{self.event_id}: expected a window of 0 or more, got {span}")
        _check_factor(self.event_id, self.factor)
        _check_gap(self.event_id, self.gap)


def _check_factor(what: str, factor: float | None) -> None:
    if factor is not None and not (math.isfinite(factor) and 0.0 < factor <= 1.0):
        raise ValueError(f"{what}: factor: expected a number above 0, at most 1, got {factor}")


def _check_gap(what: str, gap: float | None) -> None:
    if gap is not None and not (math.isfinite(gap) and 0.0 <= gap <= 1.0):
        raise ValueError(f"{what}: gap: expected a fraction of the price, 0 to 1, got {gap}")


class EventRule(msgspec.Struct, frozen=True):
    """What is done from `before_us` before an event until `after_us` after it."""

    before_us: int = 30 * MINUTE_US
    after_us: int = 30 * MINUTE_US
    factors: dict[str, float] = {}
    """By measure, on bounds and warning levels: above 0, at most 1."""
    block: bool = False
    """Open nothing: by the measure event_blackout, where a row of it is armed."""
    alert: bool = True
    flatten: bool = False
    """Recommend that what is held is closed."""
    gap: float | None = None
    """A move to be reckoned with, as a fraction of the price, either way."""

    def __post_init__(self) -> None:
        if min(self.before_us, self.after_us) < 0:
            raise ValueError(f"before, after: expected 0 or more, got {self.before_us} and {self.after_us}")
        for measure, factor in self.factors.items():
            _check_factor(measure, factor)
        _check_gap("rule", self.gap)

    @property
    def action(self) -> str:
        """The strictest thing that it does."""
        if self.flatten:
            return "FLATTEN"
        if self.block:
            return "BLOCK_NEW_ENTRIES"
        return "TIGHTEN" if any(factor < 1.0 for factor in self.factors.values()) else "ALERT" if self.alert else "NONE"


def scaled(factor: float, measures: Iterable[str] = EXPOSURES) -> dict[str, float]:
    """The same factor on each measure."""
    return dict.fromkeys(measures, factor)


DEFAULT_TYPE = "macro"
"""Whose rule holds for a type that has none."""

DEFAULT_RULES: dict[str, EventRule] = {
    "fomc": EventRule(120 * MINUTE_US, 60 * MINUTE_US, scaled(0.5), block=True, gap=0.03),
    "cpi": EventRule(60 * MINUTE_US, 30 * MINUTE_US, scaled(0.5), block=True, gap=0.03),
    "nfp": EventRule(60 * MINUTE_US, 30 * MINUTE_US, scaled(0.5), block=True, gap=0.02),
    "earnings": EventRule(30 * MINUTE_US, 30 * MINUTE_US, scaled(0.5), block=True, gap=0.10),
    "fed_speaker": EventRule(15 * MINUTE_US, 30 * MINUTE_US, scaled(0.75)),
    DEFAULT_TYPE: EventRule(30 * MINUTE_US, 30 * MINUTE_US, scaled(0.75)),
}
"""Shipped: a desk's own belong in its configuration. The gaps are round figures, not estimates."""

_STRICTNESS = ("NONE", "ALERT", "TIGHTEN", "BLOCK_NEW_ENTRIES", "FLATTEN")


class EventPolicy(msgspec.Struct, frozen=True):
    """What is done around events of each type; DEFAULT_TYPE's rule must be among them."""

    rules: dict[str, EventRule] = msgspec.field(default_factory=lambda: dict(DEFAULT_RULES))
    horizon_us: int = 7 * DAY_US
    """How far ahead windows are put into the logs, so that they open with no worker there."""
    stale_after_us: int = 2 * DAY_US
    """A source that was not read well for so long is stale: visibly, and without effect on its events."""

    def __post_init__(self) -> None:
        if DEFAULT_TYPE not in self.rules:
            raise ValueError(f"rules: expected one of {DEFAULT_TYPE!r}, for types that have none")

    def rule_of(self, event: Event) -> EventRule:
        """Its type's, with what the event itself says in its place."""
        rule = self.rules.get(event.event_type, self.rules[DEFAULT_TYPE])
        factors = rule.factors if event.factor is None else scaled(event.factor, rule.factors or EXPOSURES)
        return msgspec.structs.replace(
            rule,
            before_us=rule.before_us if event.before_us is None else event.before_us,
            after_us=rule.after_us if event.after_us is None else event.after_us,
            factors=factors,
            gap=rule.gap if event.gap is None else event.gap,
        )

    def window(self, event: Event) -> tuple[int, int]:
        """From which instant, included, until which, excluded. An unknown hour widens it."""
        rule = self.rule_of(event)
        return event.earliest_us - rule.before_us, event.latest_us + max(1, rule.after_us)


# --- sources ------------------------------------------------------------------------------------------------------


class Feed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source as it stands: its last good events, and how its last attempt went."""

    source: str
    rank: int
    events: tuple[Event, ...] = ()
    success_us: int = 0
    """When it was last read well; 0: never."""
    tried_us: int = 0
    problem: str = ""
    """Of the last attempt; empty: none."""

    @property
    def missing(self) -> bool:
        """It was never read: nobody knows what it would say."""
        return not self.success_us

    def stale(self, now_us: int, policy: EventPolicy) -> bool:
        return now_us - self.success_us > policy.stale_after_us

    def failed(self, problem: str, now_us: int) -> "Feed":
        """Its events stay in force."""
        return msgspec.structs.replace(self, problem=problem, tried_us=now_us)

    def read(self, events: Sequence[Event], now_us: int) -> "Feed":
        """With what it lists now: all there is of a file, which is somebody's last word. Of a feed, an event that it
        lists no longer stays, unless it is over, or the source has moved it or reaches beyond it: what is only cut off
        is not called off. Raises ValueError on more than EVENTS_MAX."""
        if len(events) > EVENTS_MAX:
            raise ValueError(f"expected at most {EVENTS_MAX:,} events, got {len(events):,}")
        listed = {event.event_id: event for event in events}
        reach: dict[tuple[str, tuple[str, ...]], str] = {}
        for event in listed.values():
            key = event.event_type, event.symbols
            reach[key] = max(reach.get(key, ""), event.date)
        for old in () if self.rank in (RANK_OFFICIAL_FILE, RANK_FILE) else self.events:
            cut_off = old.date > reach.get((old.event_type, old.symbols), "")
            if old.event_id not in listed and old.latest_us > now_us and cut_off and not _moved(old, listed.values()):
                listed[old.event_id] = old
        in_order = tuple(sorted(listed.values(), key=lambda one: (one.earliest_us, one.event_id)))
        return msgspec.structs.replace(self, events=in_order, success_us=now_us, tried_us=now_us, problem="")


def _moved(old: Event, listed: Iterable[Event]) -> bool:
    """Whether a source lists an event in place of one that it listed before."""
    return any(_same(old, event) for event in listed)


def _same(one: Event, other: Event) -> bool:
    """Whether two events that are told apart are one, moved or told by two sources."""
    if one.event_type != other.event_type or one.symbols != other.symbols:
        return False
    days = SAME_WITHIN_DAYS.get(one.event_type)
    if days is None:
        return one.date == other.date and one.name.casefold() == other.name.casefold()
    return abs((date.fromisoformat(one.date) - date.fromisoformat(other.date)).days) <= days


def merged(feeds: Iterable[Feed], entered: Iterable[Event] = ()) -> tuple[Event, ...]:
    """All events, earliest first: of those that are one, the word of the better source. `entered` by operators go
    before all, by id too. Cancelled ones are among them, and hide what worse sources say of the same."""
    found: dict[str, Event] = {event.event_id: event for event in entered}
    alike: dict[tuple[str, tuple[str, ...]], list[Event]] = {}
    for event in found.values():
        alike.setdefault((event.event_type, event.symbols), []).append(event)
    for feed in sorted(feeds, key=lambda one: (one.rank, one.source)):
        new = [one for one in feed.events if one.event_id not in found and not _told(one, alike)]
        for event in new:
            found[event.event_id] = event
            alike.setdefault((event.event_type, event.symbols), []).append(event)
    return tuple(sorted(found.values(), key=lambda one: (one.earliest_us, one.event_id)))


def _told(event: Event, alike: Mapping[tuple[str, tuple[str, ...]], Sequence[Event]]) -> bool:
    """By a better source."""
    return any(_same(one, event) for one in alike.get((event.event_type, event.symbols), ()))


# --- tightenings --------------------------------------------------------------------------------------------------


class Planned(msgspec.Struct, frozen=True):
    """A tightening that shall be in an account's log."""

    tightening_id: str
    measures: tuple[str, ...]
    factor: float
    reason: str
    from_us: int = 0
    until_us: int = 0
    symbols: tuple[str, ...] = ()


def planned(events: Iterable[Event], policy: EventPolicy, now_us: int) -> tuple[Planned, ...]:
    """The tightenings of all windows that are open or open within the policy's horizon. Events of one type and window
    are one: as many symbols as they reach."""
    groups: dict[tuple[str, int, int, float, tuple[str, ...], bool], list[Event]] = {}
    for event in events:
        from_us, until_us = policy.window(event)
        if event.cancelled or until_us <= now_us or from_us > now_us + policy.horizon_us:
            continue
        for factor, measures in _by_factor(policy.rule_of(event)):
            key = event.event_type, from_us, until_us, factor, measures, bool(event.symbols)
            groups.setdefault(key, []).append(event)
    return tuple(_planned(*key, together) for key, together in sorted(groups.items()))


def _by_factor(rule: EventRule) -> list[tuple[float, tuple[str, ...]]]:
    by_factor: dict[float, list[str]] = {}
    for measure, factor in sorted(rule.factors.items()):
        if factor < 1.0:
            by_factor.setdefault(factor, []).append(measure)
    found = [(factor, tuple(measures)) for factor, measures in by_factor.items()]
    return [*found, (BLOCK_FACTOR, (EVENT_BLACKOUT,))] if rule.block else found


def _planned(
    event_type: str,
    from_us: int,
    until_us: int,
    factor: float,
    measures: tuple[str, ...],
    by_symbol: bool,
    together: Sequence[Event],
) -> Planned:
    what = "block" if measures == (EVENT_BLACKOUT,) else f"{factor:g}"
    reach = "symbols" if by_symbol else "all"
    names = list(dict.fromkeys(event.name for event in together))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    symbols = tuple(sorted({symbol for event in together for symbol in event.symbols})) if by_symbol else ()
    return Planned(
        f"{ID_PREFIX}{event_type}:{from_us}:{until_us}:{reach}:{what}:{len(measures)}",
        measures,
        factor,
        f"{', '.join(names[:3])}{more}",
        from_us,
        until_us,
        symbols,
    )


def strictest(policy: EventPolicy, missing: Sequence[str]) -> tuple[Planned, ...]:
    """What stands in for a calendar that was never read: the least factor of all rules on each measure, on everything,
    until it is. `missing`: its sources."""
    least: dict[str, float] = {}
    for rule in policy.rules.values():
        for measure, factor in rule.factors.items():
            least[measure] = min(factor, least.get(measure, 1.0))
    by_factor = _by_factor(EventRule(factors=least))
    reason = f"events unknown: {', '.join(missing)} was never read"
    return tuple(Planned(f"{MISSING_ID}:{factor:g}", measures, factor, reason) for factor, measures in by_factor)


def event_records(
    state: AccountState,
    events: Iterable[Event],
    feeds: Iterable[Feed],
    policy: EventPolicy,
    now_us: int,
    epoch: int,
) -> list[AnyRecord]:
    """The records that bring an account's log to what is known of events: new tightenings, those that an event no
    longer asks for lifted, and until when windows are in the log. Nothing where they are there. Repeated, by any number
    of workers that know the same, nothing."""
    missing = tuple(sorted(feed.source for feed in feeds if feed.missing))
    wanted = {one.tightening_id: one for one in planned(events, policy, now_us)}
    if missing:
        wanted |= {one.tightening_id: one for one in strictest(policy, missing)}
    records: list[AnyRecord] = []
    for one in wanted.values():
        records += tightened(
            state,
            one.tightening_id,
            one.measures,
            one.factor,
            one.reason,
            now_us,
            epoch,
            from_us=one.from_us,
            until_us=one.until_us,
            symbols=one.symbols,
        )
    records += lifted(state, wanted, "called off, moved, or read again", now_us, epoch)
    plan = state.calendar
    if plan is None or plan.missing != missing or plan.until_us < now_us + policy.horizon_us // 2:
        until_us = now_us + policy.horizon_us
        records.append(CalendarPlanned(time_us=now_us, epoch=epoch, until_us=until_us, missing=missing))
    return records


def lifted(state: AccountState, wanted: Collection[str], why: str, now_us: int, epoch: int) -> list[AnyRecord]:
    """The records that lift the tightenings of events but for those of the ids `wanted`; none for windows that are
    over."""
    records: list[AnyRecord] = []
    for known in state.tightenings:
        over = 0 < known.until_us <= now_us
        if known.tightening_id.startswith(ID_PREFIX) and known.tightening_id not in wanted and not over:
            records += tightened(state, known.tightening_id, known.measures, 1.0, why, now_us, epoch)
    return records


# --- outlook ------------------------------------------------------------------------------------------------------


class UpcomingEvent(msgspec.Struct, frozen=True):
    """One event on one symbol, for people and for gates that size by it."""

    symbol: str
    """`*`: all."""
    event_type: str
    date: str
    days_until: int
    """Calendar days from today (UTC), 0 today or where its window is open."""
    action: str
    """What its rule does in its window: FLATTEN, BLOCK_NEW_ENTRIES, TIGHTEN, ALERT or NONE."""
    event_id: str
    name: str
    time_us: int
    from_us: int
    until_us: int
    uncertain: bool
    source: str
    alert: bool = True
    """Its rule asks to tell people when its window opens."""


class SourceState(msgspec.Struct, frozen=True):
    source: str
    success_us: int
    stale: bool
    message: str


class EventOutlook(msgspec.Struct, frozen=True):
    """What an account has ahead of it."""

    upcoming_events: tuple[UpcomingEvent, ...] = ()
    """Those whose window is open or opens within the horizon, earliest first, at most UPCOMING_MAX."""
    risk_level: str = "LOW"
    """LOW, MODERATE (an event within a day), HIGH (a window is open, or a calendar is missing), CRITICAL (a window is
    open whose rule recommends to flatten)."""
    recommended_action: str = "NONE"
    """The strictest action of the open windows; WATCH where the next opens within a day; else NONE."""
    sources: tuple[SourceState, ...] = ()


UPCOMING_MAX = 100


def outlook(
    events: Iterable[Event], feeds: Sequence[Feed], policy: EventPolicy, now_us: int, symbols: Iterable[str] | None
) -> EventOutlook:
    """Of events that reach any of `symbols`, and of those that reach everything; None: of all."""
    reached = None if symbols is None else frozenset(symbols)
    found = [one for event in events for one in _upcoming(event, policy, now_us, reached)]
    found.sort(key=lambda one: (one.from_us, one.event_id, one.symbol))
    open_now = [one.action for one in found if one.from_us <= now_us]
    soon = any(one.from_us <= now_us + DAY_US for one in found)
    missing = any(feed.missing for feed in feeds)
    action = max(open_now, key=_STRICTNESS.index, default="WATCH" if soon else "NONE")
    if "FLATTEN" in open_now:
        level = "CRITICAL"
    elif missing or any(_STRICTNESS.index(one) >= _STRICTNESS.index("TIGHTEN") for one in open_now):
        level = "HIGH"
    else:
        level = "MODERATE" if soon else "LOW"
    return EventOutlook(
        tuple(found[:UPCOMING_MAX]), level, action, tuple(source_state(feed, now_us, policy) for feed in feeds)
    )


def source_state(feed: Feed, now_us: int, policy: EventPolicy) -> SourceState:
    message = feed.problem or ("never read" if feed.missing else "")
    return SourceState(feed.source, feed.success_us, feed.stale(now_us, policy), message)


def _upcoming(
    event: Event, policy: EventPolicy, now_us: int, reached: frozenset[str] | None
) -> Iterable[UpcomingEvent]:
    from_us, until_us = policy.window(event)
    if event.cancelled or until_us <= now_us or from_us > now_us + policy.horizon_us:
        return
    symbols = event.symbols if reached is None else [one for one in event.symbols if one in reached]
    today = datetime.fromtimestamp(now_us / 1e6, UTC).date()
    days = 0 if from_us <= now_us else max(0, (date.fromisoformat(event.date) - today).days)
    for symbol in symbols if event.symbols else ("*",):
        yield UpcomingEvent(
            symbol=symbol,
            event_type=event.event_type,
            date=event.date,
            days_until=days,
            action=policy.rule_of(event).action,
            event_id=event.event_id,
            name=event.name,
            time_us=event.earliest_us,
            from_us=from_us,
            until_us=until_us,
            uncertain=event.uncertain,
            source=event.source,
            alert=policy.rule_of(event).alert,
        )


def symbols_at_stake(state: AccountState, instruments: InstrumentSet) -> frozenset[str]:
    """The symbols that an account holds or has orders in, with what options among them are written on."""
    active = {symbol for symbol, slot in state.slots.items() if any(state.book.interval(slot))}
    known = (instruments.get(symbol) for symbol in active)
    return frozenset(active | {one.underlying for one in known if one is not None and one.underlying})
