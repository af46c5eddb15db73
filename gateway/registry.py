"""What is armed everywhere: the limit set and the instrument set that control names.

Both are immutable blobs; arming one stores the blob first and then advances every partition's control head, so no
gateway can be told of a set that it can't load. Only the control process does this.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from engine.control import Control, decode_control, encode_control
from engine.instrument import Instrument, InstrumentSet
from engine.limits import LimitSet
from gateway.errors import StoreUnavailable
from gateway.log.account_log import PARTITIONS, AccountLog, ControlChange
from gateway.log.account_log import Control as StoredControl


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
        if blob is not None:
            merged = merged.with_added(InstrumentSet.decode(blob).instruments.values())
    return names, merged


async def arm_limits(log: AccountLog, limits: LimitSet, armed_file: str = "") -> str:
    """Arm a limit set everywhere; its hash. The caller has validated it. Raises StoreUnavailable."""
    blob_hash = await log.put_blob(limits.encode())
    await _arm_everywhere(
        log, lambda control: msgspec.structs.replace(control, limit_set=blob_hash, armed_file=armed_file)
    )
    return blob_hash


async def armed_files(log: AccountLog) -> set[str]:
    """Hashes of the limits files that the partitions were last armed from; one, if all is well."""
    return {decode_control(stored.state).armed_file for stored in await log.read_controls()}


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

    outcome = await log.advance_controls(range(PARTITIONS), change, known)
    problems = [result for result in outcome.values() if isinstance(result, StoreUnavailable)]
    if problems:
        raise problems[0]
