"""Where a key stands that a TOML file gives twice, as `limit[2].warn` with its line.

The parser of the standard library tells the line alone. Read line by line, since a file with such a fault can't be
parsed; what is not found so is told as the parser says it. Nothing is validated here.
"""

import re
from collections import Counter

_TWICE = re.compile(
    r"(?:Cannot overwrite a value|Cannot declare .* twice|Duplicate inline table key '(?P<inner>.*)') \(at (?P<at>.*)\)"
)
_LINE = re.compile(r"line (?P<number>\d+)")
_HEADER = re.compile(r"\s*(?P<opening>\[\[?)\s*(?P<table>[^\[\]]+?)\s*\]")
_KEY = re.compile(r"\s*(?P<key>[\w.\"'-]+)\s*=")


def given_twice(text: str, said: str) -> str | None:
    """The sentence about a key or table of `text` that is given twice; None where the parser `said` something else."""
    found = _TWICE.match(said)
    if found is None:
        return None
    lines = text.rstrip().splitlines()
    line = _LINE.match(found["at"])
    number = int(line["number"]) if line else len(lines)
    place = _place(lines[: number - 1])
    at_fault = lines[number - 1]
    header, key = _HEADER.match(at_fault), _KEY.match(at_fault)
    if header is not None:
        return f"{header['table']}: this table stands in the file twice (line {number})"
    inner = f".{found['inner']}" if found["inner"] else ""
    return None if key is None else f"{place}{key['key']}{inner}: given twice (line {number})"


def _place(lines: list[str]) -> str:
    """The path of the table that goes on after these lines, with a dot; "" at the top of a file."""
    place, rows = "", Counter[str]()
    for line in lines:
        header = _HEADER.match(line)
        if header is not None:
            table, is_row = header["table"], header["opening"] == "[["
            place = f"{table}[{rows[table]}]." if is_row else f"{table}."
            rows[table] += 1
    return place
