"""Events: windows, whose word counts, what stays when a source fails, and the tightenings that follow.

NOW_US is 2023-11-14 22:13:20 UTC. An hour is HOUR; events are told by the hours from now.
"""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.account import AccountState
from engine.events import (
    BLOCK_FACTOR,
    DAY_US,
    DEFAULT_RULES,
    EXPOSURES,
    MANUAL,
    MINUTE_US,
    RANK_FILE,
    RANK_OFFICIAL,
    RANK_VENDOR,
    Event,
    EventPolicy,
    EventRule,
    Feed,
    event_records,
    lifted,
    merged,
    outlook,
    planned,
    scaled,
    strictest,
    symbols_at_stake,
)
from engine.measures import MEASURES
from engine.records import CalendarPlanned, SessionOpened, Tightened, decode, encode
from engine.tightening import EVENT_BLACKOUT, factor_on
from tests.engine.builders import NOW_US, account, reserve, stock, universe

HOUR = 60 * MINUTE_US
RULE = EventRule(HOUR, HOUR // 2, {"leverage": 0.5, "var_99": 0.25}, block=True, gap=0.1)
POLICY = EventPolicy({"macro": EventRule(0, 0, {"leverage": 0.9}), "cpi": RULE}, 7 * DAY_US, 2 * DAY_US)
TODAY = "2023-11-14"


def event(name: str = "cpi", hours: float = 2.0, event_type: str = "cpi", **fields: Any) -> Event:
    at_us = NOW_US + int(hours * HOUR)
    given: dict[str, Any] = {"earliest_us": at_us, "latest_us": at_us, "date": TODAY, "source": "bls"}
    return Event(name, event_type, fields.pop("title", name), **(given | fields))


def feed(*events: Event, source: str = "bls", rank: int = RANK_OFFICIAL, success_us: int = NOW_US) -> Feed:
    return Feed(source, rank, tuple(events), success_us)


def opened() -> AccountState:
    return account(universe(stock("AAA"), stock("BBB")), {"AAA": 100.0, "BBB": 50.0})


def told(state: AccountState, *feeds: Feed, policy: EventPolicy = POLICY, now_us: int = NOW_US) -> list[Any]:
    """The records that are due, folded."""
    records = event_records(state, merged(feeds), feeds, policy, now_us, 7)
    for record in records:
        state.apply(decode(encode(record)))
    return records


# --- windows ------------------------------------------------------------------------------------------------------


def test_a_window_opens_before_an_event_and_closes_after_it() -> None:
    one = event(hours=2)

    assert POLICY.window(one) == (NOW_US + HOUR, NOW_US + int(2.5 * HOUR))


def test_an_unknown_hour_widens_the_window() -> None:
    one = event(hours=2, latest_us=NOW_US + 10 * HOUR, uncertain=True)

    assert POLICY.window(one) == (NOW_US + HOUR, NOW_US + int(10.5 * HOUR))


def test_a_type_without_a_rule_has_that_of_macro_days_and_an_events_own_terms_go_before() -> None:
    own = event(event_type="opec", before_us=HOUR, after_us=2 * HOUR, factor=0.3, gap=0.2)

    rule = POLICY.rule_of(own)
    assert (rule.factors, rule.gap) == ({"leverage": 0.3}, 0.2)
    assert POLICY.window(own) == (NOW_US + HOUR, NOW_US + 4 * HOUR)
    assert POLICY.rule_of(event(event_type="opec")).factors == {"leverage": 0.9}


def test_the_shipped_rules_name_measures_that_exist_and_never_loosen() -> None:
    for rule in DEFAULT_RULES.values():
        assert rule.factors.keys() <= MEASURES.keys()
        assert all(0.0 < factor < 1.0 for factor in rule.factors.values())


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_nothing_that_loosens_is_an_event_or_a_rule(factor: float) -> None:
    with pytest.raises(ValueError, match="factor: expected a number above 0, at most 1"):
        event(factor=factor)
    with pytest.raises(ValueError, match="leverage: factor: expected a number above 0, at most 1"):
        EventRule(factors={"leverage": factor})


@pytest.mark.parametrize("fields", [{"gap": 1.5}, {"gap": math.nan}, {"before_us": -1}, {"date": "soon"}])
def test_an_event_that_makes_no_sense_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|Invalid isoformat"):
        event(**fields)


def test_an_event_ends_no_earlier_than_it_begins() -> None:
    with pytest.raises(ValueError, match="earliest <= latest"):
        event(latest_us=NOW_US)


# --- whose word counts --------------------------------------------------------------------------------------------


def test_the_official_date_takes_the_vendors_place_and_an_operators_that_of_both() -> None:
    official = event("bls:cpi", date="2023-11-14")
    vendor = event("fred:cpi", hours=20, date="2023-11-15", source="fred")
    entered = event("mine", hours=30, date="2023-11-16", source=MANUAL)
    feeds = [feed(vendor, source="fred", rank=RANK_VENDOR), feed(official)]

    assert merged(feeds) == (official,)
    assert merged(feeds, [entered]) == (entered,)


def test_what_only_the_vendor_knows_of_stays() -> None:
    official = event("bls:cpi", date="2023-11-14")
    next_month = event("fred:cpi", hours=30 * 24, date="2023-12-14", source="fred")
    other_type = event("fred:nfp", event_type="nfp", source="fred")

    found = merged([feed(official), feed(next_month, other_type, source="fred", rank=RANK_VENDOR)])

    assert set(found) == {official, next_month, other_type}


def test_speakers_of_one_day_are_several_and_earnings_of_two_companies_too() -> None:
    speakers = [event(f"s{i}", event_type="fed_speaker", title=f"Governor {i}") for i in range(2)]
    results = [event(f"e{i}", event_type="earnings", symbols=(name,)) for i, name in enumerate(("AAA", "BBB"))]
    other = event("x", event_type="earnings", symbols=("AAA",), date="2023-11-20", source="vendor")

    found = merged([feed(*speakers, *results), feed(other, source="vendor", rank=RANK_VENDOR)])

    assert set(found) == {*speakers, *results}


def test_a_cancelled_event_hides_what_a_vendor_says_of_it() -> None:
    off = event("bls:cpi", cancelled=True)
    vendor = event("fred:cpi", source="fred")

    found = merged([feed(off), feed(vendor, source="fred", rank=RANK_VENDOR)])

    assert found == (off,)
    assert planned(found, POLICY, NOW_US) == ()


# --- a source that fails ------------------------------------------------------------------------------------------


def test_a_source_that_fails_keeps_its_events_and_grows_stale() -> None:
    good = feed(event())

    failed = good.failed("403 Forbidden", NOW_US + 3 * DAY_US)

    assert failed.events == good.events
    assert (failed.problem, failed.stale(NOW_US, POLICY), failed.stale(NOW_US + 3 * DAY_US, POLICY)) == (
        "403 Forbidden",
        False,
        True,
    )
    assert failed.read([event()], NOW_US + 3 * DAY_US).problem == ""


def test_what_a_feed_cuts_off_stays_and_what_it_moves_or_reaches_beyond_goes() -> None:
    cut_off = event("late", hours=24 * 60, date="2024-01-13")
    moved = event("moved", hours=24 * 30, date="2023-12-14")
    now_at = event("moved-to", hours=24 * 32, date="2023-12-16")
    dropped = event("dropped", event_type="gdp", hours=24 * 5, date="2023-11-19")
    beyond = event("beyond", event_type="gdp", hours=24 * 40, date="2023-12-24")

    read = feed(moved, cut_off, dropped).read([now_at, beyond], NOW_US)

    assert {one.event_id for one in read.events} == {"moved-to", "late", "beyond"}


def test_a_meeting_moved_to_an_earlier_day_takes_the_later_ones_place() -> None:
    read = feed(event("later", hours=24 * 32, date="2023-12-16")).read([event("earlier", date="2023-12-14")], NOW_US)

    assert [one.event_id for one in read.events] == ["earlier"]


def test_of_a_file_all_that_it_says_counts_and_nothing_else() -> None:
    own = feed(event("one"), event("two", event_type="gdp"), rank=RANK_FILE)

    assert [one.event_id for one in own.read([event("one")], NOW_US).events] == ["one"]


def test_an_event_of_the_same_id_is_moved() -> None:
    read = feed(event("bls:cpi:2023-11", hours=2)).read([event("bls:cpi:2023-11", hours=26)], NOW_US)

    assert [one.earliest_us for one in read.events] == [NOW_US + 26 * HOUR]


@given(st.lists(st.integers(0, 60), max_size=8), st.lists(st.integers(0, 60), max_size=8))
def test_whatever_a_feed_lists_next_nothing_after_its_last_date_is_forgotten(old: list[int], new: list[int]) -> None:
    def on(days: list[int], prefix: str) -> list[Event]:
        return [
            event(f"{prefix}{day}", event_type="other", title=f"{prefix}{day}", hours=24 * day + 1, date=_date(day))
            for day in set(days)
        ]

    read = feed(*on(old, "a")).read(on(new, "b"), NOW_US)

    ids = {one.event_id for one in read.events}
    assert {f"a{day}" for day in old if day > max(new, default=-1)} <= ids
    assert {f"b{day}" for day in new} <= ids


def _date(day: int) -> str:
    return f"2023-{11 + day // 30:02}-{1 + day % 30:02}" if day < 60 else "2024-01-01"


# --- tightenings --------------------------------------------------------------------------------------------------


def test_windows_are_in_the_log_ahead_of_time_and_hold_in_time_alone() -> None:
    state = opened()
    records = told(state, feed(event(hours=2)))

    assert [(one.factor, one.measures) for one in records if isinstance(one, Tightened)] == [
        (BLOCK_FACTOR, (EVENT_BLACKOUT,)),
        (0.25, ("var_99",)),
        (0.5, ("leverage",)),
    ]
    within = [factor_on(state.tightenings, "leverage", None, NOW_US + int(h * HOUR)) for h in (0, 0.99, 1, 2.4, 2.5)]
    assert within == [1.0, 1.0, 0.5, 0.5, 1.0]


def test_repeated_and_by_another_worker_nothing_is_due() -> None:
    state = opened()
    told(state, feed(event()))

    assert told(state, feed(event())) == []


def test_a_moved_event_tightens_its_new_window_and_no_more_its_old_one() -> None:
    state = opened()
    told(state, feed(event("cpi", hours=2)))
    told(state, feed(event("cpi", hours=48)))

    at = [factor_on(state.tightenings, "leverage", None, NOW_US + hours * HOUR) for hours in (2, 48)]
    assert at == [1.0, 0.5]


def test_a_source_that_fails_loosens_nothing() -> None:
    state, good = opened(), feed(event())
    told(state, good)

    assert told(state, good.failed("429 Too Many Requests", NOW_US)) == []
    assert told(state, good.read([event("next", hours=24 * 30, date="2023-12-14")], NOW_US)) != []  # reaches beyond it


def test_results_of_many_companies_in_one_window_are_one_record() -> None:
    at_us = NOW_US + 2 * HOUR
    both = [Event(f"e{s}", "cpi", s, at_us, at_us, TODAY, symbols=(s,), source="bls") for s in ("BBB", "AAA")]
    state = opened()
    records = told(state, feed(*both))

    assert [one.symbols for one in records if isinstance(one, Tightened)] == [("AAA", "BBB")] * 3


def missing_in(state: AccountState) -> tuple[str, ...]:
    return state.calendar.missing if state.calendar is not None else ("no calendar",)


def test_a_calendar_that_was_never_read_is_as_strict_as_its_strictest_rule_until_it_is() -> None:
    state, never = opened(), Feed("bls", RANK_OFFICIAL)
    told(state, never)
    held = {name: factor_on(state.tightenings, name, None, NOW_US + 365 * DAY_US) for name in ("leverage", "var_99")}
    assert held == {"leverage": 0.5, "var_99": 0.25}
    assert missing_in(state) == ("bls",)

    told(state, never.read([event(hours=48)], NOW_US))

    assert factor_on(state.tightenings, "leverage", None, NOW_US) == 1.0
    assert missing_in(state) == ()


def test_the_strictest_of_all_rules_is_taken_measure_by_measure() -> None:
    rules = {"macro": EventRule(factors=scaled(0.75)), "cpi": EventRule(factors={"leverage": 0.5})}

    found = {one.measures: one.factor for one in strictest(EventPolicy(rules), ["x"])}

    assert found[("leverage",)] == 0.5
    assert set(next(names for names, factor in found.items() if factor == 0.75)) == set(EXPOSURES) - {"leverage"}


def test_the_calendar_is_renewed_when_half_of_it_is_over() -> None:
    state, known = opened(), feed()
    (plan,) = told(state, known)
    assert isinstance(plan, CalendarPlanned) and plan.until_us == NOW_US + 7 * DAY_US

    assert told(state, known, now_us=NOW_US + 3 * DAY_US) == []
    (renewed,) = told(state, known, now_us=NOW_US + 4 * DAY_US)
    assert renewed.until_us == NOW_US + 11 * DAY_US


def test_windows_that_are_over_leave_the_state_without_a_record() -> None:
    state = opened()
    told(state, feed(event(hours=2)))
    later_us = NOW_US + 3 * HOUR

    assert [one for one in told(state, feed(), now_us=later_us) if isinstance(one, Tightened)] == []
    state.apply(SessionOpened(time_us=later_us, date="2023-11-15"))
    assert state.tightenings == ()


def test_without_any_source_what_events_tightened_is_lifted() -> None:
    state = opened()
    told(state, Feed("bls", RANK_OFFICIAL))

    for record in lifted(state, (), "why", NOW_US, 7):
        state.apply(record)

    assert state.tightenings == ()


def test_a_fork_that_is_dropped_plans_nothing_and_a_replay_of_the_log_the_same() -> None:
    state = opened()
    trial = state.fork()
    records = told(trial, feed(event()))
    assert (state.tightenings, state.calendar) == ((), None)

    for record in records:
        state.apply(record)
    assert (state.tightenings, state.calendar) == (trial.tightenings, trial.calendar)


# --- outlook ------------------------------------------------------------------------------------------------------


def test_the_outlook_names_what_reaches_the_account_and_when() -> None:
    coming = event("cpi", hours=26, date="2023-11-16")
    mine = event("aaa", event_type="earnings", hours=30, symbols=("AAA",), date="2023-11-16")
    others = event("bbb", event_type="earnings", hours=30, symbols=("BBB",), date="2023-11-16")

    found = outlook([coming, mine, others], [feed(coming)], POLICY, NOW_US, ["AAA"])

    assert [(one.symbol, one.event_type, one.date, one.days_until, one.action) for one in found.upcoming_events] == [
        ("*", "cpi", "2023-11-16", 2, "BLOCK_NEW_ENTRIES"),
        ("AAA", "earnings", "2023-11-16", 2, "TIGHTEN"),
    ]
    assert (found.risk_level, found.recommended_action) == ("LOW", "NONE")


def flattening(**fields: Any) -> EventPolicy:
    return EventPolicy({**POLICY.rules, "cpi": msgspec.structs.replace(RULE, flatten=True)})


@pytest.mark.parametrize(
    ("hours", "policy", "level", "action"),
    [
        (26.0, POLICY, "LOW", "NONE"),
        (20.0, POLICY, "MODERATE", "WATCH"),
        (0.5, POLICY, "HIGH", "BLOCK_NEW_ENTRIES"),
        (-0.4, POLICY, "HIGH", "BLOCK_NEW_ENTRIES"),
        (-0.5, POLICY, "LOW", "NONE"),
        (0.5, flattening(), "CRITICAL", "FLATTEN"),
        (20.0, flattening(), "MODERATE", "WATCH"),
    ],
)
def test_the_risk_level_and_what_to_do_follow_the_nearest_window(
    hours: float, policy: EventPolicy, level: str, action: str
) -> None:
    found = outlook([event(hours=hours)], [feed()], policy, NOW_US, None)

    assert (found.risk_level, found.recommended_action) == (level, action)


def test_of_several_open_windows_the_strictest_action_counts() -> None:
    both = [event("cpi", hours=0.5), event("talk", hours=0.0, event_type="fed_speaker")]

    found = outlook(both, [feed()], POLICY, NOW_US, None)

    assert [one.action for one in found.upcoming_events] == ["BLOCK_NEW_ENTRIES", "TIGHTEN"]
    assert found.recommended_action == "BLOCK_NEW_ENTRIES"


def test_a_calendar_that_was_never_read_is_a_high_risk_that_says_so() -> None:
    found = outlook([], [Feed("bls", RANK_OFFICIAL)], POLICY, NOW_US, None)

    assert found.risk_level == "HIGH"
    assert [(one.source, one.stale, one.message) for one in found.sources] == [("bls", True, "never read")]


def test_at_stake_is_what_is_held_or_ordered() -> None:
    two = universe(stock("AAA"), stock("BBB"), stock("CCC"))
    state = account(two, {"AAA": 100.0, "BBB": 50.0, "CCC": 1.0}, positions={"AAA": 1})
    reserve(state, "o", "BBB", 5)

    assert symbols_at_stake(state, two) == {"AAA", "BBB"}
