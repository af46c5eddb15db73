"""The list of all drills, and how they are played: one after the other, each on a paper account of its own."""

import fnmatch
from collections.abc import Iterable, Sequence

from gateway.drill.limit_plays import limit_plays
from gateway.drill.operation_plays import operation_plays
from gateway.drill.sighting import Outcome, Play


def all_plays() -> tuple[Play, ...]:
    return (*operation_plays(), *limit_plays())


def chosen(plays: Sequence[Play], patterns: Sequence[str]) -> tuple[Play, ...]:
    """Those that a name or a pattern such as `limit:*` selects, in the order of `plays`; all where none is given.
    Raises ValueError that names a pattern which selects nothing."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(play.name, pattern) for play in plays):
            raise ValueError(f"no play is called {pattern!r}; --list shows all")
    return tuple(
        play for play in plays if not patterns or any(fnmatch.fnmatchcase(play.name, pattern) for pattern in patterns)
    )


async def played(plays: Iterable[Play]) -> tuple[Outcome, ...]:
    return tuple([Outcome(play.name, play.about, await play.perform()) for play in plays])
