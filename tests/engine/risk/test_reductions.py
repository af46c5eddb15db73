"""Which positions go first, and how far, on losses that are added up by hand."""

import numpy as np
import pytest

from engine.risk.reductions import Lots, Reduction, planned_reductions

LOTS = np.array([10, 20, -5])
LOSS_PER_LOT = np.array([4.0, 2.0, 3.0])
"""40 + 40 - 15 = 65: the third row hedges."""


def over(limit: float, lots: Lots) -> float:
    return max(0.0, float(lots @ LOSS_PER_LOT) - limit)


def test_the_first_goes_only_as_far_as_it_takes() -> None:
    """35 over 30, at 4 a lot: 8 lots free 32, so 9."""
    planned, left = planned_reductions(LOTS, [0, 1, 2], lambda lots: over(30.0, lots))

    assert (planned, left) == ((Reduction(0, -9, 0.0),), 0.0)


def test_a_hedge_stays_and_the_next_one_frees_the_rest() -> None:
    """55 over 10: the first frees 40, of the remaining 15 at 2 a lot 8 lots free 16."""
    planned, left = planned_reductions(LOTS, [0, 2, 1], lambda lots: over(10.0, lots))

    assert (planned, left) == ((Reduction(0, -10, 15.0), Reduction(1, -8, 0.0)), 0.0)


def test_a_short_position_is_bought_back() -> None:
    planned, _ = planned_reductions(np.array([-6]), [0], lambda lots: max(0.0, -3.0 * float(lots[0]) - 10.0))

    assert planned == (Reduction(0, 3, 0.0),)  # 18 lost, 9 with three lots left


def test_what_closing_cannot_free_is_said() -> None:
    """Beside the positions 100 are at stake in open orders. Once the first is closed, the rest frees no more."""
    planned, left = planned_reductions(LOTS, [0, 1, 2], lambda lots: over(30.0, lots) + 100.0)

    assert (planned, left) == ((Reduction(0, -10, 100.0),), 100.0)


def test_within_the_limit_nothing_is_planned() -> None:
    assert planned_reductions(LOTS, [0, 1, 2], lambda lots: over(65.0, lots)) == ((), 0.0)


def test_a_row_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="order: expected rows 0 to 2, got 3"):
        planned_reductions(LOTS, [3], lambda lots: over(1.0, lots))
