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
        moved = [self.take(partition, control) for partition, control in controls.items()]
        return any(moved)

    async def _reassert(self, partition: int, known: Control) -> StoredControl:
        """The store has lost control states that it had acknowledged, a stop perhaps: put what is known here on top."""
        LOGGER.error("control went backwards, it is put back", partition=partition, epoch=known.epoch)

        def change(stored: StoredControl) -> ControlChange | None:
            if stored.head.epoch > known.epoch:
                return None
            control = _merged(known, decode_control(stored.state), max(stored.head.epoch, known.epoch) + 1)
            record = msgspec.json.encode({"reasserted": known.epoch})
            return ControlChange(control.epoch, encode_control(control), record)

        return await self._log.advance_control(partition, change)

    def take(self, partition: int, stored: StoredControl) -> bool:
        """A control state that the store has told. Whether it is another than the one held."""
        held = self._in_force.get(partition)
        if held is not None and held.head.epoch >= stored.head.epoch:
            return False
        self._in_force[partition] = InForce(stored, decode_control(stored.state))
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
        if limits is None or instruments is None:
            return None
        terms = self._terms[partition] = Terms(in_force.control, limits, instruments, self.model)
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
            self._limits[blob_hash] = LimitSet.decode(await self._blob(blob_hash, "limit set"))

    async def _load_instrument_set(self, blob_hash: str) -> None:
        if blob_hash not in self._instruments:
            self._instruments[blob_hash] = InstrumentSet.decode(await self._blob(blob_hash, "instrument set"))

    async def _blob(self, blob_hash: str, what: str) -> bytes:
        blob = await self._log.get_blob(blob_hash)
        if blob is None:
            raise StoreRefused(f"{what} {blob_hash} that control names is not in the store")
        return blob


def _went_back(known: ControlHead, stored: ControlHead) -> bool:
    """Whether what the store has, read after `known` was, does not continue it."""
    return stored.epoch < known.epoch or (stored.epoch == known.epoch and stored != known)


def _merged(known: Control, stored: Control, epoch: int) -> Control:
    """The higher epoch wins, but each side's stops stand; as new ones, so that they void what was approved between."""
    base = known if known.epoch >= stored.epoch else stored
    merged = msgspec.structs.replace(base, epoch=epoch, stops=())
    for stop in (*known.stops, *stored.stops):
        renewed: Stop = msgspec.structs.replace(stop, epoch=epoch)
        merged = stopped(merged, renewed)
    return merged
