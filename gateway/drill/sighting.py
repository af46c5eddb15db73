"""What a drill expects and what it saw, step by step. Values only: nothing is played or shown here."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple


class Sighting(NamedTuple):
    """One step of a play."""

    step: str
    expected: str
    seen: str

    @property
    def passed(self) -> bool:
        return self.expected == self.seen


@dataclass(frozen=True, slots=True)
class Play:
    """`perform`: plays it on a paper account of its own."""

    name: str
    about: str
    perform: Callable[[], Awaitable[tuple[Sighting, ...]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    play: str
    about: str
    sightings: tuple[Sighting, ...]

    @property
    def passed(self) -> bool:
        """A play that showed nothing has proved nothing."""
        return bool(self.sightings) and all(one.passed for one in self.sightings)
