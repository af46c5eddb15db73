"""Attribution of P&L: hand numbers, a loop as reference, and that every cut sums to the total as a property."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.attribution import Part, attribute, attribute_factors

MONEY = st.floats(-1e9, 1e9)
SEEDS = st.integers(0, 10_000)


def test_positions_are_summed_by_every_label() -> None:
    attribution = attribute(
        [100.0, -30.0, 10.0, 20.0],
        {"strategy": ["trend", "trend", "carry", "carry"], "sector": ["tech", "oil", "tech", "oil"]},
    )

    assert (attribution.total, attribution.other) == (100.0, 0.0)
    assert attribution.cuts["strategy"] == (Part("trend", 70.0, 0.7), Part("carry", 30.0, 0.3))
    assert attribution.cuts["sector"] == (Part("tech", 110.0, 1.1), Part("oil", -10.0, -0.1))


def test_what_positions_do_not_explain_is_a_line_of_its_own() -> None:
    attribution = attribute([100.0, -30.0], {"symbol": ["A", "B"]}, total=60.0)

    assert (attribution.total, attribution.other) == (60.0, -10.0)
    assert sum(part.pnl for part in attribution.cuts["symbol"]) + attribution.other == 60.0


def test_a_total_of_nothing_has_no_shares() -> None:
    attribution = attribute([50.0, -50.0], {"symbol": ["A", "B"]})

    assert attribution.cuts["symbol"] == (Part("A", 50.0, None), Part("B", -50.0, None))


def test_no_positions_have_no_parts() -> None:
    assert attribute([], {"symbol": []}).cuts == {"symbol": ()}


@given(st.lists(st.tuples(MONEY, st.sampled_from("xyz"), st.sampled_from("pq")), min_size=1, max_size=30), MONEY)
def test_every_cut_and_the_rest_sum_to_the_total(rows: list[tuple[float, str, str]], total: float) -> None:
    pnl, sectors, strategies = zip(*rows, strict=True)

    attribution = attribute(pnl, {"sector": sectors, "strategy": strategies}, total)

    for cut in attribution.cuts.values():
        assert math.fsum((*(part.pnl for part in cut), attribution.other)) == pytest.approx(total, abs=1e-4)
        assert {part.label: part.pnl for part in cut} == pytest.approx(
            {label: math.fsum(p for p, *labels in rows if label in labels) for label in {part.label for part in cut}}
        )


def test_a_factors_pnl_is_value_times_sensitivity_times_move_and_the_rest_is_specific() -> None:
    """1000 of beta 1.2 in a fall of 5 % lose 60; they lost 50. 2000 of duration 4 at +1 % lose 80; they lost 90."""
    attribution = attribute_factors(
        values=[1000.0, 2000.0],
        sensitivities=[[1.2, 0.0], [0.0, -4.0]],
        moves=[-0.05, 0.01],
        pnl=[-50.0, -90.0],
        factors=["SP500", "UST_NOM"],
    )

    assert attribution.total == -140.0
    assert [part.label for part in attribution.factors] == ["SP500", "UST_NOM"]
    assert [part.pnl for part in attribution.factors] == pytest.approx([-60.0, -80.0])
    assert [part.share for part in attribution.factors] == pytest.approx([60 / 140, 80 / 140])
    assert attribution.position_specific == pytest.approx([10.0, -10.0])
    assert attribution.specific == pytest.approx(0.0)


def test_what_no_factor_reaches_is_specific() -> None:
    attribution = attribute_factors([1000.0], [[0.0]], [-0.05], [-70.0], ["SP500"])

    assert attribution.factors[0].pnl == 0.0
    assert attribution.specific == -70.0


@given(SEEDS)
def test_factors_and_specific_sum_to_the_total_over_days_of_changing_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, pnl = rng.normal(0, 1e5, (7, 4)), rng.normal(0, 1e3, (7, 4))
    sensitivities, moves = rng.normal(1, 1, (4, 3)), rng.normal(0, 0.01, (7, 3))

    attribution = attribute_factors(values, sensitivities, moves, pnl, ["f", "g", "h"])

    explained = {part.label: part.pnl for part in attribution.factors}
    for place, factor in enumerate(("f", "g", "h")):
        by_hand = sum(
            values[day, one] * sensitivities[one, place] * moves[day, place] for day in range(7) for one in range(4)
        )
        assert explained[factor] == pytest.approx(by_hand)
    assert sum(explained.values()) + attribution.specific == pytest.approx(attribution.total, abs=1e-6)
    assert attribution.total == pytest.approx(pnl.sum())
    by_position = attribution.position_factors.sum(axis=1) + attribution.position_specific
    assert by_position == pytest.approx(pnl.sum(axis=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pnl": [1.0, math.nan]}, "pnl: expected finite"),
        ({"pnl": [[1.0, 2.0]]}, "pnl: expected 1 dim"),
        ({"groupings": {"sector": ["x"]}}, "groupings.sector: expected 2 labels, got 1"),
        ({"total": math.inf}, "total"),
    ],
)
def test_pnl_that_is_not_known_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(**{"pnl": [1.0, 2.0], "groupings": {"sector": ["x", "y"]}, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1.0, math.nan]}, "values: expected finite"),
        ({"sensitivities": [[math.nan], [1.0]]}, "sensitivities: expected finite"),
        ({"sensitivities": [[1.0]]}, r"sensitivities: expected shape \(2, 1\)"),
        ({"moves": [0.1, 0.2]}, r"moves: expected shape \(1, 1\)"),
        ({"pnl": [1.0]}, r"pnl: expected shape \(1, 2\)"),
        (
            {"factors": ["f", "f"], "sensitivities": [[1.0, 1.0]] * 2, "moves": [0.1, 0.1]},
            "factors: expected each name once",
        ),
    ],
)
def test_factors_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {
        "values": [1.0, 2.0],
        "sensitivities": [[1.0], [1.0]],
        "moves": [0.1],
        "pnl": [0.1, 0.2],
        "factors": ["f"],
    }

    with pytest.raises(ValueError, match=message):
        attribute_factors(**{**fitting, **arguments})
