"""One's own agents: found by name, refused with a sentence before anything starts, played as written in the docs."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gateway.cli.app import run
from gateway.demo.agents import AGENTS, MakeAgent, Morning, Order, name_of, toward
from gateway.demo.broker import PaperBroker
from gateway.demo.desk import Desk, taken_by_any_broker
from gateway.demo.own import AgentError, agents_named, ask
from gateway.demo.twin import run_without_gateway
from gateway.log.redis import RedisLog
from tests.gateway.demo.builders import HISTORY_DAYS, SYMBOLS, prices, tape
from tests.gateway.demo.test_run import played, served

DOCS = Path(__file__).parents[3] / "docs" / "your-own-agent.md"
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a module where Python finds it, and forgets it with the test."""
    before = set(sys.modules)
    sys.path.insert(0, str(tmp_path))

    def written(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    yield written
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def documented() -> str:
    """The module that the docs show first."""
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def morning(**fields: object) -> Morning:
    values: dict[str, object] = {
        "date": date(2020, 3, 16),
        "number": 0,
        "symbols": ("AAA", "BBB"),
        "closes": np.array([[9.0, 21.0], [10.0, 20.0]]),
        "positions": {},
        "open_shares": {},
        "cash": 1_000.0,
        "equity": 1_000.0,
    }
    return Morning(**(values | fields))  # type: ignore[arg-type]


# --- found by name -------------------------------------------------------------------------------------------------


def test_own_agents_and_the_demos_are_found_by_name(write: Write) -> None:
    write("mine", "class Quiet:\n    name = 'quiet'\n    def orders(self, morning):\n        return ()\n")

    made = [make() for make in agents_named("mine:Quiet, momentum")]

    assert [name_of(agent) for agent in made] == ["quiet", "momentum"]


def test_without_a_name_an_agent_goes_by_its_class(write: Write) -> None:
    write("nameless", "class Quiet:\n    def orders(self, morning): ...\n")

    (make,) = agents_named("nameless:Quiet")

    assert name_of(make()) == "Quiet"


@pytest.mark.parametrize(
    ("text", "module", "said"),
    [
        ("momentums", "", "'momentums' names no agent; expected module:Class, or one of the demo's own: momentum, "),
        ("here:", "", "'here:' names no agent"),
        ("here:A", None, "no module here here or installed; expected here.py"),
        ("here:A", "class B: ...\nclass C: ...\n", "here has no A; it has B, C"),
        ("here:A", "from pathlib import Path\n", "here has no A; it has no classes"),
        ("here:A", "A = 3\n", "here:A is 3; expected a class"),
        (
            "here:A",
            "class A:\n  def __init__(self, seed): ...\n",
            "here:A is made without arguments, but it takes (seed)",
        ),
        ("here:A", "class A: ...\n", "here:A has no method orders: expected orders(self, morning)"),
        (
            "here:A",
            "class A:\n  def orders(self): ...\n",
            "here:A.orders: expected orders(self, morning), but it takes ()",
        ),
        ("here:A", "class A:\n  async def orders(self, m): ...\n", "here:A.orders is async"),
        ("here:A", "class A:\n  name = 'a b'\n  def orders(self, m): ...\n", "name 'a b'; expected 1 to 20 letters"),
        ("here:A,here:A", "class A:\n  def orders(self, m): ...\n", "two agents are named A"),
    ],
)
def test_what_can_t_be_an_agent_is_refused_with_what_was_expected(
    write: Write, text: str, module: str | None, said: str
) -> None:
    if module:
        write("here", module)

    with pytest.raises(AgentError) as refused:
        agents_named(text)

    assert said in str(refused.value)
    assert refused.value.trace == ()


@pytest.mark.parametrize(
    ("module", "said", "last"),
    [
        (
            "import nowhere_at_all\n",
            "here can't be imported: ModuleNotFoundError",
            "ModuleNotFoundError: No module named",
        ),
        ("x = 1 / 0\n", "here can't be imported: ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("class A\n", "here can't be imported: SyntaxError", "SyntaxError: expected ':'"),
        ("class A:\n  def __init__(self): 1 / 0\n", "here:A can't be made: ZeroDivisionError", "ZeroDivisionError"),
        ("raise SystemExit(0)\n", "here can't be imported: SystemExit", "SystemExit: 0"),
        ("class A:\n  def __init__(self): exit(3)\n", "here:A can't be made: SystemExit", "SystemExit: 3"),
    ],
)
def test_code_that_fails_before_the_run_is_told_with_its_own_traceback(
    write: Write, module: str, said: str, last: str
) -> None:
    write("here", module)

    with pytest.raises(AgentError) as refused:
        agents_named("here:A")

    assert said in str(refused.value)
    assert refused.value.trace[-1].startswith(last)
    assert any("here.py" in line for line in refused.value.trace)
    assert not any("gateway/demo" in line or "importlib" in line for line in refused.value.trace)


def test_an_agent_that_ends_the_program_ends_the_run_with_a_sentence(write: Write) -> None:
    write("quits", "class A:\n  def orders(self, morning):\n    raise SystemExit(0)\n")
    (make,) = agents_named("quits:A")

    with pytest.raises(AgentError, match="A failed in session 2020-03-16: SystemExit: 0") as ended:
        ask(make(), morning())
    assert any("quits.py" in line for line in ended.value.trace)


def test_the_command_refuses_before_it_starts_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["demo", "--agents", "nowhere_at_all:A", "--data-dir", str(tmp_path / "data")])

    assert code == 2
    assert "no module nowhere_at_all here or installed" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


# --- what an agent sees and says -----------------------------------------------------------------------------------


class Looks:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Morning] = []

    def orders(self, morning: Morning) -> list[Order]:
        self.seen.append(morning)
        return [Order("S00", 10), Order("S01", -5, limit_price=1e6)] if not morning.number else []


def test_a_morning_shows_what_is_held_and_open_and_no_close_of_the_day() -> None:
    agent, day = Looks(), tape(prices(sessions=2))
    run_without_gateway(agent, day, 1e6, 7, 0.99, HISTORY_DAYS)

    first, second = agent.seen
    assert (first.number, second.number) == (0, 1)
    assert first.closes.shape == (HISTORY_DAYS + 1, len(SYMBOLS))
    assert second.closes[-1].tolist() == day.closes[HISTORY_DAYS + 1].tolist()
    assert (dict(first.positions), dict(second.positions)) == ({}, {"S00": 10})
    assert dict(second.open_shares) == {"S01": -5}
    assert second.price("S00") == pytest.approx(float(day.closes[HISTORY_DAYS + 1, 0]))
    assert second.equity == pytest.approx(second.cash + 10 * second.price("S00"))


def test_what_an_agent_is_shown_can_t_be_changed() -> None:
    agent = Looks()
    run_without_gateway(agent, tape(prices(sessions=1)), 1e6, 7, 0.99, HISTORY_DAYS)

    with pytest.raises(ValueError, match="read-only"):
        agent.seen[0].closes[0, 0] = 1.0
    with pytest.raises(TypeError):
        agent.seen[0].positions["S00"] = 1  # type: ignore[index]


def test_orders_lead_from_what_is_held_and_open_to_the_weights() -> None:
    held = morning(positions={"BBB": 30}, open_shares={"AAA": 5})

    orders = toward(held, np.array([0.5, 0.2]))

    # 0.5 of 1,000 at 10 is 50, of which 5 are on their way; 0.2 at 20 is 10 of the 30 held: that one reduces, so first
    assert orders == [Order("BBB", -20.0), Order("AAA", 45.0)]


def test_small_changes_and_no_opinion_leave_the_book_as_it_is() -> None:
    assert toward(morning(positions={"AAA": 50}), np.array([0.51, 0.0])) == []
    assert toward(morning(), None) == []


def test_a_weight_that_is_no_number_becomes_an_order_that_is_none() -> None:
    (order,) = toward(morning(), np.array([np.nan, 0.0]))

    assert order.symbol == "AAA"
    assert np.isnan(order.quantity)


@pytest.mark.parametrize(
    ("symbol", "quantity", "limit", "said"),
    [(3, 1, None, "symbol"), ("AAA", "ten", None, "quantity"), ("AAA", 1, "cheap", "limit_price")],
)
def test_an_order_is_made_of_a_text_and_numbers(symbol: object, quantity: object, limit: object, said: str) -> None:
    with pytest.raises(TypeError, match=f"{said}: expected a"):
        Order(symbol, quantity, limit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "taken"),
    [
        (Order("AAA", 1), True),
        (Order("AAA", -3, 9.5), True),
        (Order("AAA", 0), False),
        (Order("AAA", 1.5), False),
        (Order("AAA", float("nan")), False),
        (Order("AAA", float("inf")), False),
        (Order("AAA", 1, float("nan")), False),
        (Order("AAA", 1, 0.0), False),
        (Order("CCC", 1), False),
    ],
)
def test_no_broker_takes_what_is_no_order(order: Order, taken: bool) -> None:
    assert taken_by_any_broker(order, ("AAA", "BBB")) is taken


def test_two_orders_in_a_symbol_have_ids_of_their_own() -> None:
    class Twice:
        def orders(self, morning: Morning) -> list[Order]:
            return [Order("S00", 1), Order("S01", 1), Order("S00", 2), Order("S00", 3)]

    day = tape(prices(sessions=1))
    asked = Desk(Twice(), PaperBroker("twice", 1e6, 7)).asks(day, day.sessions[0])

    names = [each.client_order_id.removeprefix(str(day.sessions[0].date)) for each in asked]
    assert names == ["-S00", "-S01", "-S00-2", "-S00-3"]


# --- played --------------------------------------------------------------------------------------------------------


async def test_the_agent_of_the_docs_plays_as_written(write: Write, valkey_log: RedisLog, tmp_path: Path) -> None:
    write("my_agent", documented())
    console = Console(file=io.StringIO(), width=160)

    async with served(valkey_log, tmp_path) as targets:
        summary = await played(valkey_log, targets, console, "own", agents_named("my_agent:BuyTheDip,longshort"))

    assert summary.sound
    assert summary.accounts == ("DEMO-own-BUYTHEDIP", "DEMO-own-LONGSHORT")
    assert len(documented().splitlines()) <= 16
    assert sum(summary.tally.by_action().values()) > 10
    assert summary.comparisons[0].agent == "BuyTheDip"
    assert summary.comparisons[0].controlled.costs > 0


NONSENSE = """
from gateway.demo.agents import Order

class Nonsense:
    def orders(self, morning):
        nan = float("nan")
        return [Order("AAPL", nan), Order("AAPL", 10, nan), Order("NOPE", 5), Order("AAPL", 1.5), Order("AAPL", 7)]
"""


async def test_wrong_orders_get_the_gateways_verdicts_and_the_run_goes_on(
    write: Write, valkey_log: RedisLog, tmp_path: Path
) -> None:
    write("wrong", NONSENSE)
    console = Console(file=io.StringIO(), width=200)

    async with served(valkey_log, tmp_path) as targets:
        summary = await played(valkey_log, targets, console, "own", agents_named("wrong:Nonsense"))
        summary.print(console)

    decisions = summary.tally.decisions
    assert (decisions["instrument_unknown", "REJECT"], decisions["lot_size", "REJECT"]) == (4, 4)
    assert sorted(summary.tally.not_orders.values()) == [4, 4]
    assert summary.comparisons[0].free.costs > 0  # the one right order was sent in both runs
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("is no order: CheckOrder: INVALID_ARGUMENT: order.quantity: expected a number above 0") == 1
    assert "4 times no order at all, so nothing was decided: CheckOrder: INVALID_ARGUMENT: order.limit_price" in text


FAILS_LATER = """
class Fails:
    def __init__(self):
        self.mornings = 0

    def orders(self, morning):
        self.mornings += 1
        return self.divided(3 - self.mornings)

    def divided(self, by):
        return [] if 1 / by else []
"""


async def test_code_that_fails_in_a_session_ends_the_run_with_its_own_traceback(
    write: Write, valkey_log: RedisLog, tmp_path: Path
) -> None:
    write("fails", FAILS_LATER)

    async with served(valkey_log, tmp_path) as targets:
        with pytest.raises(AgentError) as failed:
            await played(valkey_log, targets, Console(file=io.StringIO()), "own", agents_named("fails:Fails"))

    assert str(failed.value) == "Fails failed in session 2020-03-16: ZeroDivisionError: division by zero"
    frames = [line.strip() for line in failed.value.trace if line.strip().startswith("File")]
    assert [frame.rpartition(", in ")[2] for frame in frames] == ["orders", "divided"]


@pytest.mark.parametrize("returned", ["[1]", "['AAPL']", "3", "None"])
async def test_what_is_returned_instead_of_orders_is_named(write: Write, returned: str) -> None:
    write("odd", f"class Odd:\n  def orders(self, morning): return {returned}\n")
    day = tape(prices(sessions=1))
    (make,) = agents_named("odd:Odd")

    with pytest.raises(AgentError, match=f"Odd failed in session {day.sessions[0].date}"):
        run_without_gateway(make(), day, 1e6, 7, 0.99, HISTORY_DAYS)


async def test_each_run_has_an_agent_of_its_own(valkey_log: RedisLog, tmp_path: Path) -> None:
    made: list[Looks] = []

    def make() -> Looks:
        made.append(Looks())
        return made[-1]

    makes: list[MakeAgent] = [make, AGENTS["momentum"]]
    async with served(valkey_log, tmp_path) as targets:
        await played(valkey_log, targets, Console(file=io.StringIO()), "own", makes)

    assert [len(agent.seen) for agent in made] == [4, 4]
