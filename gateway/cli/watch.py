"""`watch`: accounts on a terminal, live, from the gateway's own stream.

Follows StreamRiskState, opens it again whenever it breaks, and says in red how old what it shows is. It only looks: it
takes no instruction and acknowledges none. Where no terminal is, each change is a line.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from gateway.cli.arguments import GATEWAY_ADDRESS, AddressOption, TokenOption
from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from gateway.cli.board import Board

RETRY_S = 0.5
RETRIED = (ExitCode.UNAVAILABLE, ExitCode.TRY_AGAIN, ExitCode.DEFECT)
"""A gateway that ends, starts or is too busy; it may be back. What else it says, it will say again."""
TICK_S = 1.0
"""Ages grow without news."""
PACE_S = 0.1
"""Nobody reads more than ten pictures a second."""
ONCE_TIMEOUT_S = 10.0


class View(Protocol):
    """Where what is known is shown. `lines`: what happened since it was shown last."""

    def show(self, board: "Board", lines: "list[Text]", now_s: float) -> None: ...


def watch(
    accounts: Annotated[
        list[str] | None, typer.Argument(metavar="ACCOUNT", help="Accounts; without: all, later ones included.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one screen and end.")] = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Watch accounts live: may they trade, what are they worth, how close are the limits, what was decided.

    Ctrl-C ends it. In a pipe or a log, each change is a line.
    """
    from gateway.cli.panes import screen
    from gateway.cli.screen import console

    out = console()
    watcher = Watcher(address, token, tuple(accounts or ()))
    if once:
        asyncio.run(watcher.first_states())
        out.print(screen(watcher.board, time.monotonic(), out.width))
        return
    raise typer.Exit(asyncio.run(_live(watcher, out)))


class Watcher:
    """Keeps a board current. `woken` is set whenever something changed."""

    def __init__(self, address: str, token: str, accounts: tuple[str, ...]) -> None:
        from gateway.cli.board import Board

        self.board = Board(address)
        self.woken = asyncio.Event()
        self._address, self._token, self._accounts = address, token, accounts
        self._lines: list[Text] = []

    def lines(self) -> "list[Text]":
        """What happened since the last call."""
        lines, self._lines = self._lines, []
        return lines

    async def first_states(self) -> None:
        """Returns when each account was heard of, with its alerts: the stream begins with them, and heartbeats or
        second states of accounts come after that. Raises Failure."""
        from gateway.cli.connection import risk_state_updates

        try:
            async with (
                asyncio.timeout(ONCE_TIMEOUT_S),
                contextlib.aclosing(risk_state_updates(self._address, self._token, self._accounts)) as updates,
            ):
                async for update in updates:
                    known = update.risk_state.account in self.board.states
                    self.board.take(update, time.monotonic())
                    if known or update.HasField("heartbeat"):
                        return
        except TimeoutError as error:
            raise Failure(f"{self._address} did not tell its accounts in time", ExitCode.TRY_AGAIN) from error

    async def follow(self) -> None:
        """Until cancelled. Raises Failure where the gateway refuses for good."""
        while True:
            try:
                await self._follow_once()
                self._note(self.board.lost("the stream ended"))
            except Failure as failure:
                if failure.exit_code not in RETRIED:
                    raise
                self._note(self.board.lost(failure.message))
            await asyncio.sleep(RETRY_S)

    async def _follow_once(self) -> None:
        from gateway.cli.connection import risk_state_updates

        async with contextlib.aclosing(risk_state_updates(self._address, self._token, self._accounts)) as updates:
            async for update in updates:
                self._note(self.board.take(update, time.monotonic()))

    def _note(self, lines: "list[Text]") -> None:
        self._lines += lines
        self.woken.set()


async def _live(watcher: Watcher, out: "Console") -> ExitCode:
    """Until a signal, whose exit code it is, or until following fails for good."""
    codes: list[ExitCode] = []

    def end(code: ExitCode) -> None:
        codes.append(code)
        watcher.woken.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, end, ExitCode.OK)
    loop.add_signal_handler(signal.SIGTERM, end, ExitCode.TERMINATED)
    loop.add_signal_handler(signal.SIGWINCH, watcher.woken.set)
    following = asyncio.create_task(watcher.follow())
    following.add_done_callback(lambda _: watcher.woken.set())
    try:
        with _view_on(out) as view:
            while not codes and not following.done():
                view.show(watcher.board, watcher.lines(), time.monotonic())
                await _news(watcher)
    finally:
        following.cancel()
        (outcome,) = await asyncio.gather(following, return_exceptions=True)
    if not codes and isinstance(outcome, BaseException):
        raise outcome
    return codes[0]


async def _news(watcher: Watcher) -> None:
    """Returns when there is something new to show, if only its age."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TICK_S):
            await watcher.woken.wait()
    watcher.woken.clear()
    await asyncio.sleep(PACE_S)


@contextlib.contextmanager
def _view_on(out: "Console") -> "Iterator[View]":
    """A picture that is drawn anew on a terminal, which is as it was afterwards; lines anywhere else."""
    if not out.is_terminal or out.is_dumb_terminal:
        yield LineView(out)
        return
    from rich.live import Live

    with Live(console=out, screen=True, auto_refresh=False) as live:
        yield ScreenView(out, live)


class LineView:
    """For logs and pipes: a line a change."""

    def __init__(self, out: "Console") -> None:
        self._out = out

    def show(self, board: "Board", lines: "list[Text]", now_s: float) -> None:
        for line in lines:
            self._out.print(line, soft_wrap=True)


class ScreenView:
    """For terminals: one picture of the size that the terminal has now."""

    def __init__(self, out: "Console", live: "Live") -> None:
        self._out, self._live = out, live

    def show(self, board: "Board", lines: "list[Text]", now_s: float) -> None:
        from gateway.cli.panes import screen

        width, height = self._out.size
        self._live.update(screen(board, now_s, width, height), refresh=True)
