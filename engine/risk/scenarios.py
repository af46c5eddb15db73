"""Stress scenarios as data: a name, and a shock for each risk factor it moves.

Shocks are returns of a price, save for factors of another kind (factors.py): DI_PRE and UST_NOM, changes of a yield
(0.02 = 200 bp), and CDS_BR, a relative change of a spread (0.40 = 40 % wider). Users append their own. How a shock
reaches an instrument belongs to factors.py; which rows of the model they become belongs to build.py.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """One stress scenario. Raises ValueError on an empty name, no shock, or a shock that is not finite and above -1."""

    name: str
    shocks: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("scenario: expected a name, got none")
        if not self.shocks:
            raise ValueError(f"scenario {self.name!r}: expected at least one shock, got none")
        for factor, shock in self.shocks.items():
            if not (math.isfinite(shock) and shock > -1.0):
                raise ValueError(
                    f"scenario {self.name!r}: {factor}: expected a fraction above -1 (-0.25 for -25 %), got {shock}"
                )


SIX_SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "Taper Tantrum 2013",
        {"USDBRL": 0.15, "DI_PRE": 0.02, "NTN_B_REAL": -0.08, "IBOVESPA": -0.15, "UST_NOM": 0.01},
    ),
    Scenario("BR Crisis 2015", {"USDBRL": 0.30, "DI_PRE": 0.04, "NTN_B_REAL": -0.15, "IBOVESPA": -0.25}),
    Scenario("COVID 2020", {"USDBRL": 0.20, "DI_PRE": 0.02, "IBOVESPA": -0.35, "SP500": -0.30, "OIL": -0.50}),
    Scenario("Rate Shock 2022", {"USDBRL": 0.25, "DI_PRE": 0.05, "NTN_B_REAL": -0.12}),
    Scenario(
        "BR Fiscal Crisis",
        {"USDBRL": 0.25, "DI_PRE": 0.035, "NTN_B_REAL": -0.10, "IBOVESPA": -0.18, "CDS_BR": 0.40},
    ),
    Scenario(
        "Global Risk-Off",
        {
            "USDBRL": 0.20,
            "DI_PRE": 0.015,
            "IBOVESPA": -0.30,
            "SP500": -0.25,
            "OIL": -0.40,
            "UST_NOM": -0.005,
            "CDS_BR": 0.30,
        },
    ),
)


def check_scenarios(scenarios: Iterable[Scenario]) -> None:
    """Raise ValueError where two scenarios share a name: a limit or a report could not tell them apart."""
    seen: set[str] = set()
    for scenario in scenarios:
        if scenario.name in seen:
            raise ValueError(f"scenario {scenario.name!r}: expected each name once, got it twice")
        seen.add(scenario.name)
