"""What is armed everywhere: the limit set and the instrument set that control names.

Both are immutable blobs; arming one stores the blob first and then advances every partition's control head, so no
gateway can be told of a set that it can't load. Only the control process does this.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from engine.control import Control, decode_control, encode_control
from engine.facts import FactError
from engine.instrument import Instrument, InstrumentSet
from engine.limit_changes import LimitChange, SetChanges, changes, field_in_words, in_words, normal, row_name
from engine.limits import BREAKER_ROW, Limit, LimitSet, faults_of
from engine.measures import MEASURES
from gateway.errors import StoreError, StoreRefused, StoreUnavailable
from gateway.log.account_log import PARTITIONS, AccountLog, ControlChange
from gateway.log.account_log import Control as StoredControl

LOGGER = structlog.get_logger()
TOLD_MAX = 200
"""Changed rows that are logged one by one at an arming."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The outcome of RegisterInstruments, by symbol."""

    instrument_set: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]


async def register(log: AccountLog, instruments: Iterable[Instrument]) -> Registered:
    """Add instruments to the armed set, or change what may change of them. Raises InstrumentError, StoreUnavailable."""
    new = tuple(instruments)
    while True:
        registered = await _register_once(log, new)
        if registered is not None:
            return registered


async def _register_once(log: AccountLog, new: tuple[Instrument, ...]) -> Registered | None:
    """None where somebody else registered meanwhile: what they added must not be dropped."""
    names, held = await _armed_instruments(log)
    merged = held.with_added(new)
    unchanged = tuple(i.symbol for i in new if held.get(i.symbol) == i)
    changed = tuple(i.symbol for i in new if i.symbol in held.instruments and held.get(i.symbol) != i)
    added = tuple(i.symbol for i in new if i.symbol not in held.instruments)
    instrument_set = await log.put_blob(merged.encode())
    others: set[str] = set()

    def armed(control: Control) -> Control:
        if control.instrument_set in (*names, "", instrument_set):
            return msgspec.structs.replace(control, instrument_set=instrument_set)
        others.add(control.instrument_set)
        return control

    await _arm_everywhere(log, armed)
    return None if others else Registered(instrument_set, added, changed, unchanged)


async def _armed_instruments(log: AccountLog) -> tuple[list[str], InstrumentSet]:
    """The sets that partitions name, and all of them together, the one of the highest epoch on top: an interrupted
    registration leaves some with an older one."""
    controls = [(stored.head.epoch, decode_control(stored.state)) for stored in await log.read_controls()]
    epochs: dict[str, int] = {}
    for epoch, control in controls:
        if control.instrument_set:
            epochs[control.instrument_set] = max(epoch, epochs.get(control.instrument_set, 0))
    names = sorted(epochs, key=lambda name: epochs[name])
    merged = InstrumentSet()
    for name in names:
        blob = await log.get_blob(name)
        if blob is None:
            raise StoreRefused(f"instrument set {name} that control names is not in the store: restore it first")
        merged = merged.with_added(InstrumentSet.decode(blob).instruments.values())
    return names, merged


async def _arm_everywhere(log: AccountLog, armed: Callable[[Control], Control]) -> None:
    known = dict(enumerate(await log.read_controls()))
    common = max(stored.head.epoch for stored in known.values()) + 1

    def change(stored: StoredControl) -> ControlChange | None:
        control = decode_control(stored.state)
        after = armed(control)
        if after == control:
            return None
        after = msgspec.structs.replace(after, epoch=max(stored.head.epoch + 1, common))
        record = {"limit_set": after.limit_set, "instrument_set": after.instrument_set}
        return ControlChange(after.epoch, encode_control(after), msgspec.json.encode(record))

    _acknowledged(await log.advance_controls(range(PARTITIONS), change, known))


# --- limits -------------------------------------------------------------------------------------------------------

SETTLED_IN = 0
"""The partition in which the order of armings is settled: a set is armed there first, then everywhere. The others take
only a later arming than the one they have, so that two that overlap leave the same set everywhere."""


@dataclass(frozen=True, slots=True)
class Why:
    """What the history of control says of an arming."""

    actor: str
    reason: str
    proposal: str = ""
    """Id of the proposal that was approved, and who made it; empty: there was none."""
    proposed_by: str = ""


CONFIGURED = Why("configuration", "")


@dataclass(frozen=True, slots=True)
class LimitsArmed:
    """The outcome of UpdateLimits. Only validated: `epoch` and `partitions` are 0."""

    limit_set: str
    previous: str
    changes: tuple[LimitChange, ...]
    epoch: int = 0
    partitions: int = 0


class LimitSetMoved(Exception):
    """The set in force is not the one that a change was made from. Nothing was changed."""

    def __init__(self, expected: str, found: str) -> None:
        problem = f"the limit set in force is {found}, not {expected}: read it again and redo the change"
        super().__init__(problem)
        self.found = found


@dataclass(frozen=True, slots=True)
class Named:
    """What is named of limits in a control state."""

    limit_set: str
    shadow_limit_set: str
    armed_file: str

    @staticmethod
    def of(control: Control) -> "Named":
        return Named(control.limit_set, control.shadow_limit_set, control.armed_file)


async def arm_limits(
    log: AccountLog, limits: LimitSet, armed_file: str = "", shadow: LimitSet | None = None, why: Why = CONFIGURED
) -> str:
    """Arm a limit set everywhere, and one to be evaluated beside it; the hash of the first. The caller has validated
    both. Raises StoreUnavailable: some partitions may have them then, and arming them again completes it."""
    before = newest(decode_control(stored.state) for stored in await log.read_controls())
    blob_hash = await log.put_blob(limits.encode())
    shadow_hash = await log.put_blob(shadow.encode()) if shadow is not None else ""
    await arm_chosen(log, lambda _: Named(blob_hash, shadow_hash, armed_file), why)
    for words, old, new in (("limits", before.limit_set, limits), ("shadow limits", before.shadow_limit_set, shadow)):
        await _tell_armed(log, words, old, new or LimitSet(), why)
    return blob_hash


async def update_limits(
    log: AccountLog, rows: Iterable[Limit], expected: str, why: Why, validate_only: bool = False
) -> LimitsArmed:
    """Replace the rows of the set in force; its policy, the shadow set and the memory of the file stay. The caller has
    validated the rows. Raises LimitSetMoved; FactError where they contradict that policy; StoreUnavailable, after which
    some partitions may have them already."""
    settled = newest(decode_control(stored.state) for stored in await log.read_controls())
    before = await named_limit_set(log, settled.limit_set)
    after = normal(LimitSet(said_rows(rows, before), before.policy), MEASURES)
    if after == normal(before, MEASURES):
        after = before
    elif expected != before.hash:
        raise LimitSetMoved(expected, before.hash)
    for fault in faults_of(after, MEASURES):  # with the policy that stays, which the caller does not see
        raise FactError(fault.path, fault.problem)
    made = changes(before, after, MEASURES).rows
    if validate_only:
        return LimitsArmed(after.hash, before.hash, made)
    await complete_arming(log)
    blob_hash = await log.put_blob(after.encode())

    def replaced(control: Control) -> Named:
        if control.limit_set not in (settled.limit_set, blob_hash):
            raise LimitSetMoved(expected, control.limit_set)
        return Named(blob_hash, control.shadow_limit_set, control.armed_file)

    epoch = await arm_chosen(log, replaced, why)
    tell_changes("limits", after, SetChanges(made, ()), why)
    return LimitsArmed(blob_hash, before.hash, made, epoch, PARTITIONS)


def said_rows(rows: Iterable[Limit], before: LimitSet) -> tuple[Limit, ...]:
    """The rows without those that are implied anyhow: whoever reads the limits is told of them, and sends them back."""
    implied = normal(LimitSet((before.implied, BREAKER_ROW)), MEASURES).rows
    said = normal(before, MEASURES).rows
    return tuple(row for row in normal(LimitSet(tuple(rows)), MEASURES).rows if row not in implied or row in said)


async def named_limit_set(log: AccountLog, blob_hash: str) -> LimitSet:
    """The set of a hash; "" names the one without rows. Raises StoreRefused, StoreUnavailable."""
    if not blob_hash:
        return LimitSet()
    blob = await log.get_blob(blob_hash)
    if blob is None:
        raise StoreRefused(f"limit set {blob_hash} that control names is not in the store")
    try:
        return LimitSet.decode(blob)
    except (ValueError, msgspec.MsgspecError) as error:
        raise StoreRefused(f"this release can't read limit set {blob_hash}, another release armed it") from error


async def _tell_armed(log: AccountLog, words: str, old_hash: str, armed: LimitSet, why: Why) -> None:
    try:
        before = await named_limit_set(log, old_hash)
    except StoreError as error:  # what was armed is in force all the same
        LOGGER.warning(f"{words} armed, what they change is not known", limit_set=armed.hash, problem=str(error))
        return
    tell_changes(words, armed, changes(before, armed, MEASURES), why)


def tell_changes(words: str, armed: LimitSet, made: SetChanges, why: Why) -> None:
    """Old → new of every field, for the log."""
    if not made:
        return
    LOGGER.info(f"{words} armed", limit_set=armed.hash, rows=len(armed.rows), actor=why.actor, reason=why.reason)
    for change in made.rows[:TOLD_MAX]:
        LOGGER.info(f"{words} changed", limit=row_name(change.row), change=in_words(change), loosened=change.loosened)
    if len(made.rows) > TOLD_MAX:
        LOGGER.info(f"{words} changed", further_rows=len(made.rows) - TOLD_MAX)
    for field in made.policy:
        LOGGER.info(f"{words} changed", limit="[limits]", change=field_in_words(field.change), loosened=field.loosened)


def newest(controls: Iterable[Control]) -> Control:
    """The control state whose limits were armed last, of the first partition where several have them."""
    return max(controls, key=lambda control: control.limits_epoch)


def agree(controls: Iterable[Control]) -> bool:
    """Whether the same limits are armed in all of them."""
    return len({Named.of(control) for control in controls}) <= 1


async def complete_arming(log: AccountLog) -> bool:
    """Arm the newest limits where an interrupted arming left partitions without them. Whether there were any."""
    controls = [decode_control(stored.state) for stored in await log.read_controls()]
    if agree(controls):
        return False
    last = newest(controls)

    def completed(control: Control) -> Named:
        return Named.of(last if control.limits_epoch <= last.limits_epoch else control)

    await arm_chosen(log, completed, Why("gateway", "completes an interrupted arming of limits"))
    return True


async def peoples_set(log: AccountLog, two_person: bool) -> str:
    """The set in force where it is people's alone to change: it was approved, or nobody may change limits alone (and
    the configuration is one person's). Empty: there is none, and a configuration may be armed."""
    settled = decode_control((await log.read_control(SETTLED_IN)).state)
    return settled.limit_set if two_person or settled.limit_set == settled.approved_limit_set else ""


async def pass_over(log: AccountLog, armed_file: str) -> None:
    """Note a configuration as seen without arming it. Raises StoreUnavailable."""

    def noted(control: Control) -> Named:
        return Named(control.limit_set, control.shadow_limit_set, armed_file)

    await complete_arming(log)
    await arm_chosen(log, noted, Why(CONFIGURED.actor, "passed over: the set in force is people's to change"))


async def armed_files(log: AccountLog) -> set[str]:
    """Hashes of the limits files that the partitions were last armed from; one, if all is well."""
    return {decode_control(stored.state).armed_file for stored in await log.read_controls()}


async def arm_chosen(
    log: AccountLog,
    chosen: Callable[[Control], Named],
    why: Why,
    mark: Callable[[Control, int, int], Control] | None = None,
) -> int:
    """Arm what is `chosen` from the settled control state; the epoch of the arming. Nothing is written where all
    partitions have it already. `mark`: what else changes in the settled state in the same step, from the state, the
    epoch and the time of the change."""
    known = dict(enumerate(await log.read_controls()))
    time_us = await log.now_us()
    common = max(stored.head.epoch for stored in known.values()) + 1
    everywhere = agree(decode_control(stored.state) for stored in known.values())

    def settle(stored: StoredControl) -> ControlChange | None:
        control = decode_control(stored.state)
        armed = chosen(control)
        if everywhere and armed == Named.of(control):
            return None
        epoch = max(stored.head.epoch + 1, common)
        marked = control if mark is None else mark(control, epoch, time_us)
        return _armed_change(marked, armed, epoch, epoch, why, time_us)

    settled = _acknowledged(await log.advance_controls([SETTLED_IN], settle, known))[0]
    leader = decode_control(settled.state)

    def follow(stored: StoredControl) -> ControlChange | None:
        control = decode_control(stored.state)
        if control.limits_epoch >= leader.limits_epoch:
            return None
        epoch = max(stored.head.epoch + 1, leader.epoch)
        return _armed_change(control, Named.of(leader), epoch, leader.limits_epoch, why, time_us)

    others = [partition for partition in range(PARTITIONS) if partition != SETTLED_IN]
    armed = _acknowledged(await log.advance_controls(others, follow, known))
    return max(stored.head.epoch for stored in (settled, *armed))


def _armed_change(
    control: Control, armed: Named, epoch: int, limits_epoch: int, why: Why, time_us: int
) -> ControlChange:
    after = msgspec.structs.replace(
        control,
        epoch=epoch,
        limit_set=armed.limit_set,
        shadow_limit_set=armed.shadow_limit_set,
        armed_file=armed.armed_file,
        limits_epoch=limits_epoch,
    )
    record = {
        "limit_set": after.limit_set,
        "previous_limit_set": control.limit_set,
        "shadow_limit_set": after.shadow_limit_set,
        "armed_file": after.armed_file,
        "actor": why.actor,
        "reason": why.reason,
        "time_us": time_us,
    }
    if why.proposal:
        record |= {"proposal": why.proposal, "proposed_by": why.proposed_by}
    return ControlChange(epoch, encode_control(after), msgspec.json.encode(record))


def _acknowledged(outcome: Mapping[int, StoredControl | StoreUnavailable]) -> list[StoredControl]:
    """The control states, in the order of the partitions. Raises StoreUnavailable where one did not acknowledge."""
    for result in outcome.values():
        if isinstance(result, StoreUnavailable):
            raise result
    return [result for _, result in sorted(outcome.items()) if isinstance(result, StoredControl)]
