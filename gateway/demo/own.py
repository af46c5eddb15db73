"""One's own agents: found by name, looked over before anything starts, and asked for orders.

What they do wrong becomes an AgentError with a sentence, and where their code raised, its own traceback without ours.
Whatever orders they make are for the gateway to judge and none of this file's business.
"""

import contextlib
import importlib
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType

from gateway.demo.agents import AGENTS, Agent, MakeAgent, Morning, Order, name_of

NAME = re.compile(r"[A-Za-z0-9_.-]{1,20}")
OURS = str(Path(__file__).parent)
EXPECTED = "expected orders(self, morning)"


class AgentError(Exception):
    """An agent can't be played. `trace`: the lines of its own traceback, where its code raised."""

    def __init__(self, message: str, trace: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.trace = trace


def agents_named(text: str) -> tuple[MakeAgent, ...]:
    """The agents of a list such as "my_module:MyAgent,momentum": own ones by module and class, the demo's by name.

    Modules are imported from wherever Python finds them. Each agent is made once to be looked over. Raises AgentError.
    """
    found = [_agent_named(part.strip()) for part in text.split(",")]
    names = [name_of(make()) for make in found]
    for name in names:
        if names.count(name) > 1:
            raise AgentError(f"two agents are named {name}: give one of them another `name`")
    return tuple(found)


def ask(agent: Agent, morning: Morning) -> list[Order]:
    """What an agent wants of this session. Raises AgentError, naming the session, where its code fails."""
    where = f"{name_of(agent)} failed in session {morning.date}"
    with _blamed(where):
        orders = list(agent.orders(morning))
    for order in orders:
        if not isinstance(order, Order):
            raise AgentError(f"{where}: orders returned {order!r}; expected gateway.demo.agents.Order")
    return orders


def _agent_named(text: str) -> MakeAgent:
    if text in AGENTS:
        return AGENTS[text]
    module_name, _, name = text.partition(":")
    if not module_name or not name.isidentifier():
        own = ", ".join(AGENTS)
        raise AgentError(f"{text!r} names no agent; expected module:Class, or one of the demo's own: {own}")
    module = _imported(module_name)
    make = getattr(module, name, None)
    if make is None:
        raise AgentError(f"{module_name} has no {name}; {_classes_of(module)}")
    return _looked_over(make, text)


@contextlib.contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Runs code of others, which may raise anything: told as `what` failed, with their own traceback."""
    try:
        yield
    except AgentError:
        raise
    except (Exception, SystemExit) as error:  # the one border to code that isn't ours
        raise AgentError(f"{what}: {_named(error)}", _own_trace(error)) from error


def _imported(name: str) -> ModuleType:
    with _blamed(f"{name} can't be imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # theirs: of what their module imports
            raise AgentError(f"no module {name} here or installed; expected {name.replace('.', '/')}.py") from error


def _classes_of(module: ModuleType) -> str:
    own = [name for name, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    return f"it has {', '.join(own)}" if own else "it has no classes"


def _looked_over(make: object, text: str) -> MakeAgent:
    """`make`, once an agent was made by it that can be asked."""
    if not callable(make):
        raise AgentError(f"{text} is {make!r}; expected a class, which is made anew for each run")
    _need_callable_with(make, 0, f"{text} is made without arguments")
    with _blamed(f"{text} can't be made"):
        agent = make()
    orders = getattr(agent, "orders", None)
    if not callable(orders):
        raise AgentError(f"{text} has no method orders: {EXPECTED}")
    if inspect.iscoroutinefunction(orders):
        raise AgentError(f"{text}.orders is async: {EXPECTED}, without async")
    _need_callable_with(orders, 1, f"{text}.orders: {EXPECTED}")
    if not NAME.fullmatch(name_of(agent)):
        raise AgentError(f"{text}: name {name_of(agent)!r}; expected 1 to 20 letters, digits, '_', '-' or '.'")
    return make


def _need_callable_with(function: object, count: int, expected: str) -> None:
    assert callable(function)
    signature = inspect.signature(function)
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise AgentError(f"{expected}, but it takes {signature}: {error}") from error


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _own_trace(error: BaseException) -> tuple[str, ...]:
    """The traceback from the first frame on that is not this package's or Python's own importing."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    return tuple(_lines(traceback.format_exception(type(error), error, trace)))


def _is_ours(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_code.co_filename
    return name.startswith((OURS, "<frozen importlib", importlib.__file__ or OURS))


def _lines(parts: Iterable[str]) -> Iterable[str]:
    for part in parts:
        yield from part.rstrip("\n").split("\n")
