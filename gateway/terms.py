"""Under what this process decides: the control state of each partition, and the blobs that it and the bulletin name.

Blobs are immutable and named by hash, so they are loaded once; a new limit set, instrument set or risk model replaces
the old one between two batches, never within one. Nothing is decided here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import structlog

from engine.control import Control, Stop, decode_control, encode_control, stopped
from engine.decide import Terms
from engine.instrument import InstrumentSet
from engine.limits import LimitSet
from engine.risk.model import RiskModel
from engine.risk.model import decode as decode_model
from gateway.errors import StoreRefused
from gateway.log.account_log import AccountLog, ControlChange, ControlHead
from gateway.log.account_log import Control as StoredControl

LOGGER = structlog.get_logger()
NO_LIMITS = LimitSet()
NO_INSTRUMENTS = InstrumentSet()


@dataclass(frozen=True, slots=True)
class InForce:
    """A partition's control state, decoded, with the stored one whose head proves it."""

    stored: StoredControl
    control: Control

    @property
    def head(self) -> ControlHead:
        return self.stored.head


class TermsShelf:
    """What is in force. `refresh` and the committers keep it current."""

    def __init__(self, log: AccountLog) -> None:
        self._log = log
        self._in_force: dict[int, InForce] = {}
        self._limits: dict[str, LimitSet] = {"": NO_LIMITS}
        self._shadows: dict[str, LimitSet | None] = {"": None}
        self._instruments: dict[str, InstrumentSet] = {"": NO_INSTRUMENTS}
        self._terms: dict[int, Terms] = {}
        self.model: RiskModel | None = None

    async def refresh(self, partitions: Iterable[int] | None = None) -> bool:
        """Read the control states of all partitions (or these) again. Whether any moved."""
        before = dict(self._in_force)
        if partitions is None:
            controls = dict(enumerate(await self._log.read_controls()))
        else:
            controls = {partition: await self._log.read_control(partition) for partition in partitions}
        for partition, stored in controls.items():
            held = before.get(partition)
            if held is not None and _went_back(held.head, stored.head):
                controls[partition] = await self._reassert(partition, held.control)
        moved = [await self.take(partition, control) for partition, control in controls.items()]
        return any(moved)

    async def _reassert(self, partition: int, known: Control) -> StoredControl:
        """The store has lost control states that it had acknowledged, a stop perhaps: put what is known here on top."""
        LOGGER.error("the store lost control states, what is known is put back", partition=partition, epoch=known.epoch)

        def change(stored: StoredControl) -> ControlChange | None:
            found = _decoded(partition, stored)
            is_newer = stored.head.epoch > known.epoch
            lost = _lost_stops(known, found) if is_newer else known.stops
            if is_newer and not lost:
                return None
            control = _merged(known, lost, found, max(stored.head.epoch, known.epoch) + 1)
            record = msgspec.json.encode({"reasserted": known.epoch})
            return ControlChange(control.epoch, encode_control(control), record)

        return await self._log.advance_control(partition, change)

    async def take(self, partition: int, stored: StoredControl) -> bool:
        """A control state that the store has told. Whether it is another than the one held. Where a stop that was held
        is neither in force in it nor lifted, the store has lost it, and it is put back first. Raises StoreUnavailable
        where that fails, and StoreRefused where this release can't read the state: the one held then stays."""
        control = _decoded(partition, stored)
        held = self._in_force.get(partition)
        while held is not None and held.head.epoch < stored.head.epoch and _lost_stops(held.control, control):
            stored = await self._reassert(partition, held.control)
            control = _decoded(partition, stored)
            held = self._in_force.get(partition)
        if held is not None and held.head.epoch >= stored.head.epoch:
            return False
        self._in_force[partition] = InForce(stored, control)
        self._terms.pop(partition, None)
        return True

    def control(self, partition: int) -> Control:
        held = self._in_force.get(partition)
        return held.control if held is not None else Control()

    def stored_controls(self) -> dict[int, StoredControl]:
        """The control states as last heard, for whoever changes them and need not read them first."""
        return {partition: held.stored for partition, held in self._in_force.items()}

    async def held_control(self, partition: int) -> InForce:
        """The control state of a partition as last heard; read now where none was."""
        if partition not in self._in_force:
            await self.refresh([partition])
        return self._in_force[partition]

    async def in_force(self, partition: int) -> tuple[ControlHead, Terms]:
        """The control head of a partition and what it stands for, every blob loaded."""
        in_force = await self.held_control(partition)
        await self._load_limit_set(in_force.control.limit_set)
        await self._load_shadow(in_force.control.shadow_limit_set)
        await self._load_instrument_set(in_force.control.instrument_set)
        terms = self.held(partition)
        if terms is None:  # another control state arrived while a blob was on its way
            return await self.in_force(partition)
        return self._in_force[partition].head, terms

    def held(self, partition: int) -> Terms | None:
        """What is in force as last heard, without asking the store; None where a blob of it is not loaded yet."""
        in_force = self._in_force.get(partition)
        if in_force is None:
            return None
        terms = self._terms.get(partition)
        if terms is not None and terms.control is in_force.control and terms.model is self.model:
            return terms
        limits = self._limits.get(in_force.control.limit_set)
        instruments = self._instruments.get(in_force.control.instrument_set)
        shadow_hash = in_force.control.shadow_limit_set
        if limits is None or instruments is None or shadow_hash not in self._shadows:
            return None
        shadow = self._shadows[shadow_hash]
        terms = self._terms[partition] = Terms(in_force.control, limits, instruments, self.model, shadow)
        return terms

    async def take_model(self, model_hash: str | None) -> bool:
        """Load the risk model that the bulletin points to, if it is another. A damaged one is refused and the old one
        kept: its age limits how long."""
        if not model_hash or (self.model is not None and self.model.hash == model_hash):
            return False
        blob = await self._log.get_blob(model_hash)
        if blob is None:
            LOGGER.error("risk model blob is missing", model=model_hash)
            return False
        try:
            self.model = decode_model(blob, model_hash)
        except ValueError as error:
            LOGGER.error("risk model can't be read", model=model_hash, problem=str(error))
            return False
        return True

    async def _load_limit_set(self, blob_hash: str) -> None:
        if blob_hash not in self._limits:
            blob = await self._blob(blob_hash, "limit set")
            try:
                self._limits[blob_hash] = LimitSet.decode(blob)
            except (ValueError, msgspec.MsgspecError) as error:
                raise _unreadable(f"limit set {blob_hash}", error) from error

    async def _load_shadow(self, blob_hash: str) -> None:
        """One that is missing or unreadable is left out: what has no effect may not keep an order from its answer."""
        if blob_hash not in self._shadows:
            try:
                self._shadows[blob_hash] = LimitSet.decode(await self._blob(blob_hash, "shadow limit set"))
            except (StoreRefused, ValueError, msgspec.MsgspecError) as error:
                LOGGER.error("the shadow limit set can't be read, none is evaluated", problem=str(error))
                self._shadows[blob_hash] = None

    async def _load_instrument_set(self, blob_hash: str) -> None:
        if blob_hash not in self._instruments:
            blob = await self._blob(blob_hash, "instrument set")
            try:
                self._instruments[blob_hash] = InstrumentSet.decode(blob)
            except (ValueError, msgspec.MsgspecError) as error:
                raise _unreadable(f"instrument set {blob_hash}", error) from error

    async def _blob(self, blob_hash: str, what: str) -> bytes:
        blob = await self._log.get_blob(blob_hash)
        if blob is None:
            raise StoreRefused(f"{what} {blob_hash} that control names is not in the store")
        return blob


def _went_back(known: ControlHead, stored: ControlHead) -> bool:
    """Whether what the store has, read after `known` was, does not continue it."""
    return stored.epoch < known.epoch or (stored.epoch == known.epoch and stored != known)


def _unreadable(what: str, error: Exception) -> StoreRefused:
    return StoreRefused(f"this release can't read the {what} that control names, another release armed it: {error}")


def _decoded(partition: int, stored: StoredControl) -> Control:
    """Raises StoreRefused where another release wrote what this one can't read."""
    try:
        return decode_control(stored.state)
    except (ValueError, msgspec.MsgspecError) as error:
        raise StoreRefused(f"this release can't read the control state of partition {partition}: {error}") from error


def _lost_stops(known: Control, stored: Control) -> tuple[Stop, ...]:
    """The stops of `known` that a later state neither has in force, at least as strict, nor says were lifted."""
    return tuple(
        stop
        for stop in known.stops
        if not any(_stands_for(found, stop) for found in stored.stops)
        and not any(gone.scope == stop.scope and gone.epoch >= stop.epoch for gone in stored.lifted)
    )


def _stands_for(found: Stop, stop: Stop) -> bool:
    at_least = found.epoch >= stop.epoch and found.state >= stop.state and found.rank >= stop.rank
    return found.scope == stop.scope and at_least


def _merged(known: Control, lost: Iterable[Stop], stored: Control, epoch: int) -> Control:
    """The higher epoch wins, but what was lost of `known` and the stops of `stored` stand; as new ones, so that they
    void what was approved between."""
    base = known if known.epoch >= stored.epoch else stored
    merged = msgspec.structs.replace(base, epoch=epoch, stops=())
    for stop in (*lost, *stored.stops):
        renewed: Stop = msgspec.structs.replace(stop, epoch=epoch)
        merged = stopped(merged, renewed)
    return merged
