"""What would be closed first to bring a loss back within its limit: advice to read, of which nothing is instructed.

Positions are taken in the order given (engine/liquidation.py ranks them by what they add to expected shortfall). Each
is closed whole until the excess is gone, the last one only as far as it takes. The excess is asked for anew after each,
so that a hedge whose closing would add to it stays.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reduction:
    """`row`: of the holdings."""

    row: int
    lots: int
    """Signed as the order that closes: below 0 sells."""
    excess_left: float
    """Money over the limit once this and those before it are closed, 0 at the end of a plan that suffices."""


def planned_reductions(
    lots: Lots, order: Iterable[int], excess_of: Callable[[Lots], float]
) -> tuple[tuple[Reduction, ...], float]:
    """The reductions in their order, and the excess that they leave: above 0 where closing is not enough.

    `lots` (n,): held, signed; `order`: rows, the first to close first; `excess_of`: money over the limit, 0
    within, with so many lots of each row kept. Lots of the last row are the fewest that a bisection finds to suffice.
    Raises ValueError on a row that is none of `lots`.
    """
    kept, planned = lots.copy(), list[Reduction]()
    left = excess_of(kept)
    for row in order:
        if not 0 <= row < lots.size:
            raise ValueError(f"order: expected rows 0 to {lots.size - 1}, got {row}")
        if left <= 0.0:
            break
        held = int(lots[row])
        if not held or not kept[row]:
            continue
        after = excess_of(_with(kept, row, 0))
        if after >= left:
            continue
        stays = _most_kept(kept, row, excess_of) if after <= 0.0 else 0
        kept[row] = stays
        left = excess_of(kept)
        planned.append(Reduction(row, stays - held, left))
    return tuple(planned), max(left, 0.0)


def _most_kept(kept: Lots, row: int, excess_of: Callable[[Lots], float]) -> int:
    """Signed lots of the row to keep, given that all of them are too many and none is few enough."""
    held = int(kept[row])
    sign, enough, too_many = (1 if held > 0 else -1), 0, abs(held)
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if excess_of(_with(kept, row, sign * middle)) <= 0.0:
            enough = middle
        else:
            too_many = middle
    return sign * enough


def _with(kept: Lots, row: int, lots: int) -> Lots:
    changed = kept.copy()
    changed[row] = lots
    return changed
