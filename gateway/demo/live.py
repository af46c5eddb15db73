"""The demo while it runs: a progress bar and a live table on a terminal, plain lines anywhere else.

Shows what it is given and keeps nothing; all figures of accounts are the gateway's own, as streamed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.demo.tally import ACTIONS, Tally, Use, use_of
from gateway.demo.tape import Session
from riskgateway.v1 import account_pb2

LINE_EVERY_SESSIONS = 10
"""Without a terminal a line a session would bury what matters."""

REFRESHES_PER_SECOND = 8


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to show after a session. `states` by agent, the gateway's latest."""

    session: Session
    sessions: int
    tally: Tally
    states: Mapping[str, account_pb2.RiskState]


class Screen(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, moment: Moment) -> None:
        """A session is over."""
        ...

    def say(self, text: str, style: str = "") -> None:
        """Something that should stay readable."""
        ...


def screen_on(console: Console) -> Screen:
    return TerminalScreen(console) if console.is_terminal else PlainScreen(console)


class PlainScreen:
    """Lines for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, moment: Moment) -> None:
        done = moment.session.number + 1
        if done % LINE_EVERY_SESSIONS and done != moment.sessions:
            return
        by_action = moment.tally.by_action()
        decided = " ".join(f"{action} {by_action[action]}" for action in ACTIONS)
        self.say(f"{moment.session.date}  {done}/{moment.sessions} sessions  {decided}")
        for agent, state in moment.states.items():
            self.say(f"    {agent:<10} {_line(state)}")

    def say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class TerminalScreen:
    """One picture, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._live = Live(self._progress, console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, moment: Moment) -> None:
        self._progress.update(
            self._task,
            description=f"session {moment.session.date}",
            completed=moment.session.number + 1,
            total=moment.sessions,
        )
        self._live.update(Group(self._progress, accounts_table(moment.states), decisions_table(moment.tally)))

    def say(self, text: str, style: str = "") -> None:
        self._live.console.print(text, style=style, markup=False, highlight=False)


def accounts_table(states: Mapping[str, account_pb2.RiskState]) -> Table:
    """How each account stands, with VaR and worst stress against their limits."""
    table = Table(title="Accounts, as the gateway streams them", title_justify="left")
    table.add_column("agent")
    for column in ("equity", "drawdown", "gross", "net", "VaR 99 % / limit", "worst stress / limit", "open orders"):
        table.add_column(column, justify="right")
    table.add_column("breaches active / passive", justify="right")
    for agent, state in states.items():
        table.add_row(
            agent,
            _money(state.equity if state.HasField("equity") else None),
            _percent(state.drawdown if state.HasField("drawdown") else None),
            _of_equity(state, state.gross_exposure if state.HasField("gross_exposure") else None),
            _of_equity(state, state.net_exposure if state.HasField("net_exposure") else None),
            _against(use_of(state, "var_99")),
            _against(use_of(state, "stress_loss")),
            str(len(state.open_orders)),
            f"{state.counters.active_breaches} / {state.counters.passive_breaches}",
        )
    return table


def decisions_table(tally: Tally) -> Table:
    """Decisions by binding measure (rows) and action (columns), the most frequent first."""
    table = Table(title="Decisions by what bound them", title_justify="left")
    table.add_column("bound by")
    for action in ACTIONS:
        table.add_column(action, justify="right")
    by_measure: dict[str, int] = {}
    for (measure, _), number in tally.decisions.items():
        by_measure[measure] = by_measure.get(measure, 0) + number
    for measure in sorted(by_measure, key=lambda name: (-by_measure[name], name)):
        table.add_row(measure, *(str(tally.decisions[measure, action] or "") for action in ACTIONS))
    by_action = tally.by_action()
    table.add_section()
    table.add_row("all", *(str(by_action[action]) for action in ACTIONS))
    return table


def _line(state: account_pb2.RiskState) -> str:
    return (
        f"equity {_money(state.equity if state.HasField('equity') else None)}"
        f"  drawdown {_percent(state.drawdown if state.HasField('drawdown') else None)}"
        f"  gross {_of_equity(state, state.gross_exposure if state.HasField('gross_exposure') else None)}"
        f"  VaR99 {_against(use_of(state, 'var_99'))}  stress {_against(use_of(state, 'stress_loss'))}"
        f"  open {len(state.open_orders)}"
        f"  breaches {state.counters.active_breaches} active, {state.counters.passive_breaches} passive"
    )


def _money(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:,.0f}"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{share:.1%}"


def _of_equity(state: account_pb2.RiskState, amount: float | None) -> str:
    if amount is None or not state.HasField("equity") or state.equity <= 0:
        return "?"
    return f"{amount / state.equity:.0%}"


def _against(use: Use) -> str:
    """The demo's limits on VaR and stress are shares of equity."""
    bound = "no limit" if use.bound is None else f"{use.bound:.1%}"
    return f"{_percent(use.value)} / {bound}"
