"""How a command ends: its exit codes, and the exception that carries one with what a person should read.

The codes of a verdict are small and ours; those of failures are those of BSD's sysexits.h, so that scripts can tell
"refused" from "could not ask". Nothing is printed here.
"""

import enum


class ExitCode(enum.IntEnum):
    OK = 0
    """Done; of `check`: ALLOW or WARN, the order may be sent as asked."""
    DIFFERENT = 1
    """Of `config diff`: the two are not the same; of `drill`: what was seen is not what was expected."""
    USAGE = 2
    """Options or arguments make no sense."""
    REDUCED = 10
    """Allowed for less than asked."""
    REJECTED = 20
    HALTED = 21
    """Refused because trading is stopped, or was stopped by this decision."""
    MALFORMED = 65
    """The gateway can't make sense of the request, or its state doesn't allow it."""
    UNKNOWN_ACCOUNT = 67
    UNAVAILABLE = 69
    """Nobody answers, or the gateway can't serve."""
    DEFECT = 70
    """The gateway failed, or can't do this yet."""
    DAMAGED = 74
    """The store's own records contradict each other."""
    TRY_AGAIN = 75
    """Too slow or too busy. The outcome may be unknown; the same ids may be sent again."""
    NOT_PERMITTED = 77
    CONFIG = 78
    """The configuration can't be used."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class Failure(Exception):
    """A command can't do what was asked. `details`: a line a fault; `hint`: what to do about it."""

    def __init__(self, message: str, exit_code: ExitCode, details: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = details
        self.hint = hint
