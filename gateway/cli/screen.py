"""Where renderables and messages meet the terminal: consoles, JSON, and how a failure is shown.

Answers go to standard output, everything about how things went wrong to standard error. Nothing is decided here.
"""

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from gateway.cli.exits import Failure

if TYPE_CHECKING:
    from google.protobuf.message import Message

PIPE_WIDTH = 160
"""Columns where no terminal says how many: tables in a pipe or a log should not be cut at 80."""


def console(*, stderr: bool = False) -> Console:
    """A console on the present standard output or error."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def show(renderable: RenderableType) -> None:
    """Prints an answer. A single line is never broken: it may be grepped."""
    console().print(renderable, soft_wrap=isinstance(renderable, Text))


def show_json(message: "Message") -> None:
    """Prints a message as JSON with the field names of the contract; zeros and false are written out."""
    from google.protobuf.json_format import MessageToJson

    text = MessageToJson(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    console().print(text, markup=False, soft_wrap=True)


def note(words: str) -> None:
    """Prints what is not the answer itself."""
    console(stderr=True).print(Text(words), soft_wrap=True)


def complain(failure: Failure) -> None:
    """Prints a failure: the sentence, a line for each detail, what to do."""
    lines = Text(f"✖ {failure.message}", style="red")
    lines.append("".join(f"\n  {detail}" for detail in failure.details))
    if failure.hint:
        lines.append(f"\n{failure.hint}", style="default")
    console(stderr=True).print(lines, soft_wrap=True)
