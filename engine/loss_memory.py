"""What an account's fold remembers so that losses can be told: values only, folded by `engine.account`.

Marks before the newest (a loss is confirmed over several), gains of closed sessions, P&L and peaks by control epoch (a
limit that halted counts from the Resume that lifted it), and where the drawdown breaker stands. What a loss is stands
in `engine.losses`, when the breaker moves in `engine.breaker`; no rule is here.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.records import BreakerMoved, BreakerStage, Rate

CONFIRMATIONS_MAX = 5
"""Marks over which a loss can be confirmed: the newest and those kept here. More would let a crash run for longer than
it takes to lose the day's limit again."""

PEAK_CONFIRMATIONS = 3
"""Marks over which a high-water mark that limits count from is confirmed: one mark that is too high must not leave a
drawdown behind that nobody had."""

WEEK_SESSIONS = 5
"""Sessions that a weekly loss adds up, the open one included."""

BASES_MAX = 64
"""Control epochs at whose first valuation P&L is kept: so many stops, resumes and armings of limits back."""

MOVES_MAX = 10
"""Transitions of the breaker kept for people to look at; all of them are in the log."""

ROLLS_MAX = 60
"""Sessions counted within a stage of the breaker: no cooldown lasts longer."""

Floats = NDArray[np.float64]
Gains = dict[tuple[str, str], float]
"""Realised and unrealised P&L in a session, by strategy and symbol, in base currency."""


def no_past(slots: int) -> Floats:
    """(CONFIRMATIONS_MAX − 1, slots) of symbols that never had a mark."""
    return np.zeros((CONFIRMATIONS_MAX - 1, slots))


def pushed(past: Floats, slots: Sequence[int], replaced: Floats, marks: Sequence[float]) -> Floats:
    """`past` once `marks` of some slots have taken the place of those in `replaced`: row 0 is the mark before the
    newest, row 1 the one before it; a symbol's first stands for those that it never had. Another array: forks share
    the old one."""
    past = past.copy()
    old = replaced[slots]
    past[1:, slots] = past[:-1, slots]
    past[0, slots] = old
    if not old.all():
        first = old == 0.0
        past[:, np.asarray(slots)[first]] = np.asarray(marks)[first]
    return past


def pushed_rates(past: Mapping[str, tuple[float, ...]], rates: Mapping[str, Rate]) -> dict[str, tuple[float, ...]]:
    """The same for exchange rates by currency, newest first: `rates` are those that get replaced."""
    renewed = {name: (one.rate, *past.get(name, ()))[: CONFIRMATIONS_MAX - 1] for name, one in rates.items()}
    return {**past, **renewed}


class LossBase(msgspec.Struct, frozen=True):
    """P&L of the session at the first valuation under a control epoch, and the highest NAV under it."""

    epoch: int
    session_date: str
    pnl: float
    gains: Gains
    peak: float
    """Confirmed; of the newest base as it was when it was made."""


def with_base(bases: tuple[LossBase, ...], base: LossBase) -> tuple[LossBase, ...]:
    """One base more; past BASES_MAX the oldest goes, and its peak counts for whoever asks since the next."""
    bases = (*bases, base)
    if len(bases) > BASES_MAX:
        oldest, second, *rest = bases
        bases = (msgspec.structs.replace(second, peak=max(oldest.peak, second.peak)), *rest)
    return bases


class BreakerState(msgspec.Struct, frozen=True):
    """Where the drawdown breaker stands."""

    stage: BreakerStage = BreakerStage.NORMAL
    peak: float = 0.0
    """Confirmed NAV that its drawdown counts from: the highest, at most since it began to recover; 0: none yet."""
    epoch: int = 0
    """Control epoch of the record that moved it to its stage."""
    sessions: int = 0
    """Opened since it is in its stage."""
    roll_epochs: tuple[int, ...] = ()
    """Control epochs of the first ROLLS_MAX of them."""
    cuts: dict[tuple[str, str], int] = {}
    """By strategy and symbol, to how many lots a position comes down, signed; until it was there once."""
    moves: tuple[BreakerMoved, ...] = ()
    """The latest, oldest first, at most MOVES_MAX."""

    def rolled(self, epoch: int) -> "BreakerState":
        """A session more."""
        if self.stage is BreakerStage.NORMAL:
            return self
        epochs = (*self.roll_epochs, epoch)[:ROLLS_MAX]
        return msgspec.structs.replace(self, sessions=self.sessions + 1, roll_epochs=epochs)

    def moved(self, record: BreakerMoved) -> "BreakerState":
        """In another stage. Cuts that are still due go on where it grew stricter, and are dropped where it did not."""
        goes_on = record.stage.strictness > record.before.strictness or record.stage is BreakerStage.COOLDOWN
        pending = self.cuts if goes_on else {}
        cuts = dict(pending)
        for cut in record.cuts:
            key = cut.strategy, cut.symbol
            known = pending.get(key)
            cuts[key] = cut.target if known is None else min(known, cut.target, key=abs)
        return BreakerState(
            stage=record.stage,
            peak=record.nav if record.rebases else self.peak,
            epoch=record.epoch,
            cuts=cuts,
            moves=(*self.moves[-MOVES_MAX + 1 :], record),
        )

    def raised(self, peak: float) -> "BreakerState":
        """With a higher peak, if it is one."""
        return msgspec.structs.replace(self, peak=peak) if peak > self.peak else self

    def without_reached(self, held: Mapping[tuple[str, str], int]) -> "BreakerState":
        """Without the cuts of positions that have come down to their target, or through it. `held`: lots by key."""
        left = {key: target for key, target in self.cuts.items() if _is_above(held.get(key, 0), target)}
        return self if len(left) == len(self.cuts) else msgspec.structs.replace(self, cuts=left)

    def split(self, symbol: str, new_units: int, old_units: int) -> "BreakerState":
        """With the targets of a symbol in lots after a split, rounded towards zero."""
        if not any(name == symbol for _, name in self.cuts):
            return self
        cuts = {
            key: int(math.copysign(abs(target) * new_units // old_units, target)) if key[1] == symbol else target
            for key, target in self.cuts.items()
        }
        return msgspec.structs.replace(self, cuts=cuts)


def _is_above(lots: int, target: int) -> bool:
    """Whether a position is still larger than its target. A target of 0 is of either side."""
    return lots * target >= 0 and abs(lots) > abs(target)
