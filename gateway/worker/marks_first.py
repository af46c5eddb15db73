"""Facts that follow from the marks: what is due at the newest ones, with these marks in front of it in the log."""

from collections.abc import Mapping

from engine.account import AccountState
from engine.decide import Terms
from engine.facts import Quote, observation, tracked_symbols
from engine.records import AnyRecord
from gateway.committer import Build


def marks_first(
    state: AccountState, terms: Terms, quotes: Mapping[str, Quote], now_us: int, due: Build
) -> list[AnyRecord]:
    """What `due` makes of the account at the newest marks, after the record of them; nothing where nothing is due."""
    valued = observation(state, quotes, tracked_symbols(state), now_us, terms.control.epoch)
    trial = state.fork()
    if valued is not None:
        trial.apply(valued)
    records = due(trial, terms, now_us)
    return [*([valued] if valued is not None else []), *records] if records else []
