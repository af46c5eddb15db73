"""What the pages promise is what the code has: each measure in the README's table and in the reference, no other."""

import re
from pathlib import Path

import pytest

from engine.measures import MEASURES
from engine.order import Reason

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("page", "start", "end"),
    [("README.md", "## What can be limited", "## From your own code"), ("docs/limits.md", "| measure", "\n\n")],
)
def test_every_measure_has_its_place_in_the_table_of_limits(page: str, start: str, end: str) -> None:
    text = (ROOT / page).read_text()
    table = text[text.index(start) :]
    rows = [line.split("|") for line in table[: table.index(end)].splitlines() if line.startswith("| ")]
    column = 2 if page == "README.md" else 1

    named = [name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row[column])]

    assert sorted(name for name in named if name in MEASURES) == sorted(MEASURES)
    assert len(named) == len(set(named)) == len(MEASURES)


def test_every_reason_is_one_of_the_contract() -> None:
    contract = (ROOT / "protos/riskgateway/v1/decision.proto").read_text()

    assert {f"{name} = {value}" for name, value in re.findall(r"REASON_(\w+) = (\d+);", contract)} == {
        f"{reason.name} = {reason.value}" for reason in Reason
    } | {"UNSPECIFIED = 0"}
