"""Reading the fields of a request: each reader returns a usable value and notes what was wrong with the given one.

All violations of a request are collected before it is refused, each with its field path as in the protos. What a
symbol or a price means is not known here: unknown symbols, off-lot and off-tick values are refusals of `decide`.
"""

import contextlib
import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

NAME_CHARS_MAX = 64
ID_CHARS_MAX = 128
TEXT_CHARS_MAX = 1_000
EVERY = "*"

NUMBER_MAX = 1e15
"""Larger quantities, prices and amounts are refused: sums and products of them must stay finite in float64."""

NUMBER_MIN = 1e-15
"""Smaller prices and steps are refused: what is divided by them must stay finite."""

SPAN_MAX_US = 366 * 24 * 3600 * 1_000_000
TIME_MAX_US = 253_402_300_800 * 1_000_000  # the year 10,000, where protobuf's Timestamp ends
NANOS = 1_000_000_000

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CURRENCY = re.compile(r"[A-Z0-9]{3,8}")

T = TypeVar("T")
Violation = tuple[str, str]
"""(field path as in the protos, what was expected and what was given)."""


class Invalid(ValueError):
    """A malformed request: repeated, it fails again. `violations` holds all that were found, at least one."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in violations))
        self.violations = tuple(violations)


class Form:
    """The fields of one message, under a path. `at` gives the form of a nested one; all share the violations."""

    __slots__ = ("_prefix", "violations")

    def __init__(self, prefix: str = "", violations: list[Violation] | None = None) -> None:
        self._prefix = prefix
        self.violations: list[Violation] = [] if violations is None else violations

    def at(self, name: str, index: int | None = None) -> "Form":
        place = name if index is None else f"{name}[{index}]"
        return Form(f"{self._prefix}{place}.", self.violations)

    def wrong(self, field: str, problem: str) -> None:
        self.violations.append((self._prefix + field, problem))

    def done(self) -> None:
        """Raises Invalid where anything was wrong."""
        if self.violations:
            raise Invalid(self.violations)

    # --- texts -------------------------------------------------------------------------------------------------------

    def name(self, field: str, value: str, required: bool = True, chars_max: int = NAME_CHARS_MAX) -> str:
        """A name: printable, without spaces at its ends, at most `chars_max` characters."""
        if not value:
            if required:
                self.wrong(field, f"required: expected 1 to {chars_max} characters, got none")
            return value
        if len(value) > chars_max:
            self.wrong(field, f"expected at most {chars_max} characters, got {len(value)}")
        elif not value.isprintable() or value != value.strip():
            self.wrong(field, "expected printable characters without spaces at the ends")
        elif value == EVERY:
            self.wrong(field, f"expected a name; {EVERY!r} stands for all in limits")
        return value

    def identifier(self, field: str, value: str) -> str:
        return self.name(field, value, chars_max=ID_CHARS_MAX)

    def text(self, field: str, value: str, required: bool = False) -> str:
        if required and not value.strip():
            self.wrong(field, f"required: expected 1 to {TEXT_CHARS_MAX} characters, got none")
        elif len(value) > TEXT_CHARS_MAX:
            self.wrong(field, f"expected at most {TEXT_CHARS_MAX} characters, got {len(value)}")
        elif not value.isprintable():
            self.wrong(field, "expected printable characters")
        return value

    def currency(self, field: str, value: str, required: bool = True) -> str:
        if (value or required) and not _CURRENCY.fullmatch(value):
            self.wrong(field, f"expected three to eight capital letters or digits such as 'USD', got {value[:20]!r}")
        return value

    def day(self, field: str, value: str) -> datetime.date:
        """A date in the form YYYY-MM-DD and no other that ISO 8601 knows."""
        if _DAY.fullmatch(value):
            with contextlib.suppress(ValueError):
                return datetime.date.fromisoformat(value)
        self.wrong(field, f"expected a date YYYY-MM-DD, got {value[:20]!r}")
        return datetime.date.min

    # --- numbers -----------------------------------------------------------------------------------------------------

    def positive(self, field: str, value: float) -> float:
        """Above 0, not so small or large that arithmetic with it would leave the finite numbers."""
        if not NUMBER_MIN <= value <= NUMBER_MAX:
            self.wrong(field, f"expected a number above 0 ({NUMBER_MIN:g} to {NUMBER_MAX:g}), got {value:g}")
            return 1.0
        return value

    def not_negative(self, field: str, value: float) -> float:
        if not 0.0 <= value <= NUMBER_MAX:
            self.wrong(field, f"expected a number from 0 to {NUMBER_MAX:g}, got {value:g}")
            return 0.0
        return value

    def signed(self, field: str, value: float) -> float:
        if not (math.isfinite(value) and abs(value) <= NUMBER_MAX):
            self.wrong(field, f"expected a finite number, at most {NUMBER_MAX:g} in size, got {value:g}")
            return 0.0
        return value

    def amount(self, field: str, value: float) -> float:
        """Signed and not 0."""
        if value == 0.0:
            self.wrong(field, "expected an amount, got 0")
        return self.signed(field, value)

    def choice(self, field: str, value: int, known: Mapping[int, T], default: T) -> T:
        """The engine's value for an enum's number; unspecified and unknown numbers are refused."""
        found = known.get(value)
        if found is None:
            given = "unspecified" if value == 0 else f"unknown value {value}"
            self.wrong(field, f"expected one of the enum's named values, got {given}")
            return default
        return found

    def count(self, field: str, given: int, least: int, most: int) -> None:
        if not least <= given <= most:
            self.wrong(field, f"expected {least} to {most:,} entries, got {given:,}")

    # --- times -------------------------------------------------------------------------------------------------------

    def moment(self, field: str, message: Timestamp) -> int:
        """Microseconds since the epoch, after it."""
        micros = message.seconds * 1_000_000 + message.nanos // 1_000
        if not (0 <= message.nanos < NANOS and 0 < micros < TIME_MAX_US):
            self.wrong(field, "expected a time after 1970 and before the year 10,000")
            return 1
        return micros

    def span(self, field: str, message: Duration) -> int:
        """Microseconds, above 0, at most 366 days."""
        micros = message.seconds * 1_000_000 + message.nanos // 1_000
        if not (0 <= message.nanos < NANOS and 0 < micros <= SPAN_MAX_US):
            self.wrong(field, "expected a duration of at least a microsecond, at most 366 days")
            return 1
        return micros


def legible(text: str) -> str:
    """A reason as it can be stored: whatever is not printable as a space, cut to length. For what is never refused."""
    return "".join(c if c.isprintable() else " " for c in text[:TEXT_CHARS_MAX])
