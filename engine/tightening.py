"""Bounds that are tighter than their rows say, for an account and for now: by what each measure's are multiplied.

A tightening is a record of the account's log (engine.records.Tightened), so that every gateway, a replay and an audit
see the same bound. Factors never exceed 1 and combine by the minimum. Who tightens and why is decided elsewhere; what a
tighter bound does to an order is `engine.decide`'s, and what it does to open orders `engine.misfits`'.
"""

import math
from collections.abc import Iterable, Sequence

from engine.account import AccountState
from engine.instrument import Instrument
from engine.records import AnyRecord, Tightened

MODEL_VALIDATION = "model_validation"
"""Id of the tightening that a failing VaR model causes."""

TAIL_MEASURES = ("var_95", "var_99", "es_95", "es_99")
"""What is read from the VaR model's days."""


EVENT_BLACKOUT = "event_blackout"
"""The measure whose tightenings are windows in which nothing is opened (engine.measures.events)."""

FOREVER_US = 2**62


def holds(one: Tightened, now_us: int) -> bool:
    """Whether a tightening is in force at an instant, as far as instants are said of it."""
    return one.from_us <= now_us and not 0 < one.until_us <= now_us


def in_force(tightenings: Iterable[Tightened], now_us: int) -> tuple[Tightened, ...]:
    """Those that hold now, of those that are in the log ahead of their time."""
    return tuple(one for one in tightenings if holds(one, now_us))


def changes_us(tightenings: Iterable[Tightened], now_us: int) -> int:
    """The next instant at which others will hold than now; FOREVER_US: none is known."""
    instants = (instant for one in tightenings for instant in (one.from_us, one.until_us) if instant > now_us)
    return min(instants, default=FOREVER_US)


def selects(one: Tightened, instrument: Instrument | None) -> bool:
    """Whether a tightening reaches orders in an instrument; None: what is of no one instrument, such as an account."""
    if not one.symbols and not one.sectors:
        return True
    if instrument is None:
        return False
    named = (instrument.symbol, instrument.underlying, instrument.issuer)
    return instrument.sector in one.sectors or any(name in one.symbols for name in named if name)


def factor_on(
    tightenings: Sequence[Tightened],
    measure: str,
    instrument: Instrument | None = None,
    now_us: int | None = None,
    sector: str = "",
) -> float:
    """By what the bounds of a measure are multiplied: the least of all that name it, reach the instrument (None: no one
    in particular; or a sector as a whole) and hold at an instant (None: or will). 1 where none does."""
    return min(
        (
            one.factor
            for one in tightenings
            if measure in one.measures
            and (now_us is None or holds(one, now_us))
            and (selects(one, instrument) or (sector != "" and sector in one.sectors))
        ),
        default=1.0,
    )


def tightened(
    state: AccountState,
    tightening_id: str,
    measures: Sequence[str],
    factor: float,
    reason: str,
    now_us: int,
    epoch: int,
    until: str = "",
    *,
    from_us: int = 0,
    until_us: int = 0,
    symbols: Sequence[str] = (),
    sectors: Sequence[str] = (),
) -> list[AnyRecord]:
    """The record that puts a tightening in force in place of one of the same id, or lifts that (factor 1); nothing
    where it would change nothing. It may say ahead of time from and until which instant it holds, and whom it reaches
    (engine.records.Tightened). Raises ValueError on a factor that is not above 0 and at most 1."""
    if not (math.isfinite(factor) and 0.0 < factor <= 1.0):
        raise ValueError(f"factor: expected a number above 0, at most 1, got {factor}")
    known = next((one for one in state.tightenings if one.tightening_id == tightening_id), None)
    if known is None and factor == 1.0:
        return []
    record = Tightened(
        time_us=now_us,
        epoch=epoch,
        tightening_id=tightening_id,
        measures=tuple(measures),
        factor=factor,
        reason=reason,
        until=until,
        from_us=from_us,
        until_us=until_us,
        symbols=tuple(symbols),
        sectors=tuple(sectors),
    )
    if known is not None and _terms(known) == _terms(record):
        return []
    return [record]


def _terms(one: Tightened) -> tuple[object, ...]:
    """What one does, whoever said it, when, and why."""
    return one.factor, one.measures, one.until, one.from_us, one.until_us, one.symbols, one.sectors
