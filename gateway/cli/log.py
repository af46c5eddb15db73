"""`log tail`: an account's log as it stands in the store, no gateway asked.

The log is read from its first record (or the snapshot that stands for the first ones), since only the whole chain of
hashes can be compared with the head: each run proves that what it shows is what was appended. Nothing is written.
"""

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gateway.cli.exits import ExitCode, Failure
from gateway.cli.serve import DATA_DIR

if TYPE_CHECKING:
    from engine.records import Decided
    from gateway.log.account_log import AccountLog, Head
    from riskgateway.v1.risk_gateway_pb2 import CheckOrderResponse

PAGE_RECORDS = 1_000
STORE_TIMEOUT_S = 5.0
"""Nothing waits for this reader but a person."""
DEFAULT_LINES = 50


class Entry(NamedTuple):
    """A record as the store has it, and the head of the log once it was appended."""

    head: "Head"
    raw: bytes


class ChainBroken(Exception):
    """Records and head don't belong together: the log was changed, cut or lost its end. The message says where."""


def tail(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name.")],
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, help=f"The last so many.  [default: {DEFAULT_LINES}, with --since all]"),
    ] = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="SEQ", min=1, help="From this sequence number on.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is appended, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The records as they are stored, one a line, with seq and hash.")
    ] = False,
    explain: Annotated[
        int | None, typer.Option("--explain", metavar="SEQ", min=1, help="Show every check of the decision there.")
    ] = None,
    store: Annotated[
        str, typer.Option("--store", "--redis-url", metavar="URL", help="Read this Redis or Valkey.")
    ] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help=f"Read this directory's store, started if need be.  [default: ./{DATA_DIR}]"),
    ] = None,
) -> None:
    """Show the end of an account's log, and prove its chain of hashes. Works with every gateway dead.

    Exit code 74 when the records and the head don't belong together.
    """
    from gateway.errors import StoreError

    if store and data_dir is not None:
        raise typer.BadParameter("give one of --store and --data-dir")
    if explain is not None and (follow or as_json):
        raise typer.BadParameter("--explain shows one decision: without --follow and --json")
    window = Window(since or 1, DEFAULT_LINES if lines is None and since is None else lines)
    try:
        with store_url(store, data_dir or DATA_DIR, follow) as url:
            if explain is not None:
                asyncio.run(_explain(url, account, explain))
            else:
                asyncio.run(_tail(url, account, window, follow, as_json))
    except StoreError as error:
        raise Failure(f"the log can't be read: {error}", ExitCode.UNAVAILABLE) from error
    except ChainBroken as broken:
        hint = "No gateway goes on from such a log. Keep the store as it is, and reconcile with the broker's positions."
        raise Failure(f"THE LOG OF {account} DOES NOT HOLD: {broken}", ExitCode.DAMAGED, hint=hint) from broken


class Window(NamedTuple):
    """Which records are shown: from a sequence number on, of those the last so many; None: all."""

    since: int
    last: int | None


@contextlib.contextmanager
def store_url(url: str, data_dir: Path, follow: bool) -> Iterator[str]:
    """Where the store answers. A dead private one is started for as long as this lasts, under the directory's lock."""
    from gateway.cli.screen import note
    from gateway.embedded import DataDirLock, EmbeddedStore, running_socket

    if url:
        yield _checked_url(url)
        return
    if not (data_dir / "valkey").is_dir():
        hint = "Say where it is: --data-dir DIR (that of serve; the demo's ends in /demo), or --store URL."
        raise Failure(f"{data_dir} holds no store: no gateway ever served from it", ExitCode.USAGE, hint=hint)
    socket = running_socket(data_dir)
    if socket is not None:
        yield f"unix://{socket}"
        return
    if follow:
        hint = f"Start it with risk-gateway serve --data-dir {data_dir}, or read it without --follow."
        raise Failure(f"nothing runs on {data_dir}, so nothing will be appended", ExitCode.UNAVAILABLE, hint=hint)
    with DataDirLock(data_dir):
        note(f"nothing runs on {data_dir}: its store is started to be read")
        private = EmbeddedStore.start(data_dir)
        try:
            yield f"unix://{private.socket_path}"
        finally:
            private.stop()


def _checked_url(url: str) -> str:
    """Raises Failure for what is no URL of a store, without repeating it: it may hold a password."""
    from redis.connection import parse_url

    try:
        parse_url(url)  # type: ignore[no-untyped-call]  # redis-py left it so
    except ValueError as error:
        hint = "For instance redis://HOST:6379, rediss://… or unix:///PATH."
        raise Failure(f"--store is no URL of a Redis or Valkey: {error}", ExitCode.USAGE, hint=hint) from error
    return url


@contextlib.asynccontextmanager
async def opened(url: str) -> "AsyncIterator[AccountLog]":
    from gateway.log.redis import RedisLog

    log = RedisLog(url, socket_timeout_s=STORE_TIMEOUT_S)
    try:
        yield log
    finally:
        await log.aclose()


# Reading


async def start_of(log: "AccountLog", account: str) -> "Head":
    """Where the kept records begin: at the first one, or after those that a snapshot stands for. Raises Failure where
    the account has no log."""
    from gateway.log.account_log import GENESIS, TooOld

    if (await log.heads([account]))[account] == GENESIS:
        known = sorted(await log.accounts())
        hint = f"Accounts here: {', '.join(known[:20])}" if known else "No account was ever opened in this store."
        raise Failure(f"no account {account} in this store", ExitCode.UNKNOWN_ACCOUNT, hint=hint)
    if not isinstance(await log.read(account, 0, 1), TooOld):
        return GENESIS
    snapshot = await log.latest_snapshot(account)
    if snapshot is None:
        raise ChainBroken("its first records are gone, and no snapshot stands for them")
    return snapshot.head


async def entries(log: "AccountLog", account: str, start: "Head") -> AsyncIterator[Entry]:
    """Every record after `start`, up to the head. Raises ChainBroken where they don't lead from one to the other."""
    from gateway.log.account_log import TooOld

    head = start
    while True:
        page = await log.read(account, head.seq, PAGE_RECORDS)
        if isinstance(page, TooOld):
            raise ChainBroken(f"the records after {head.seq} are gone")
        if page.head.seq < head.seq:
            raise ChainBroken(f"it went backwards, from {head.seq} to {page.head.seq}")
        for raw in page.records:
            head = head.extend([raw])
            yield Entry(head, raw)
        if page.more:
            continue
        if head != page.head:
            said = f"{page.head.seq}:{page.head.hash[:16]}"
            raise ChainBroken(f"the records lead to {head.seq}:{head.hash[:16]}, the head says {said}")
        return


async def _tail(url: str, account: str, window: Window, follow: bool, as_json: bool) -> None:
    from gateway.cli.screen import note

    async with opened(url) as log:
        printer = Printer(as_json)
        start = await start_of(log, account)
        head = start
        shown: deque[Entry] = deque(maxlen=window.last)
        try:
            async for entry in entries(log, account, start):
                head = entry.head
                printer.learn(entry)
                if entry.head.seq >= window.since:
                    shown.append(entry)
        finally:
            for entry in shown:
                printer.show(entry)
        since = f"from {start.seq + 1} to" if start.seq else "up to"
        note(f"✔ the chain holds: records {since} {head.seq} lead to the head {head.hash[:16]}")
        if follow:
            await _until_interrupted(followed(log, account, head, printer.show))


async def followed(log: "AccountLog", account: str, head: "Head", show: Callable[[Entry], None]) -> None:
    """Show what is appended from here on, until cancelled. Wake-ups are hints: the log says what is new. Raises
    ChainBroken."""
    from gateway.cli.screen import note
    from gateway.errors import StoreUnavailable
    from gateway.log.bulletin import AccountMoved, Lagged

    async with contextlib.aclosing(log.bulletin.follow()) as wakes:
        async for wake in wakes:
            if not isinstance(wake, Lagged) and not (isinstance(wake, AccountMoved) and wake.account == account):
                continue
            try:
                async for entry in entries(log, account, head):
                    head = entry.head
                    show(entry)
            except StoreUnavailable as error:  # the follower hears when it is back
                note(f"⚠ {error}")


async def _until_interrupted(following: Coroutine[None, None, None]) -> None:
    """Ctrl-C is how following ends well."""
    task = asyncio.create_task(following)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Printer:
    """Entries on standard output: a line in words, or as they are stored."""

    def __init__(self, as_json: bool) -> None:
        from gateway.cli.screen import console

        self._as_json, self._out = as_json, console()
        self._lot_sizes: dict[str, float] = {}

    def learn(self, entry: Entry) -> None:
        """What later lines need to know of an entry."""
        from engine.records import PoisonRecord, decode
        from gateway.cli.record_lines import lot_sizes_in

        with contextlib.suppress(PoisonRecord):
            self._lot_sizes.update(lot_sizes_in(decode(entry.raw)))

    def show(self, entry: Entry) -> None:
        if self._as_json:
            print(json_line(entry), flush=True)
            return
        from engine.records import PoisonRecord, decode
        from gateway.cli.record_lines import lot_sizes_in, record_line, unreadable_line

        try:
            record = decode(entry.raw)
        except PoisonRecord:
            self._out.print(unreadable_line(entry.head.seq, entry.raw), soft_wrap=True)
            return
        self._lot_sizes.update(lot_sizes_in(record))
        self._out.print(record_line(entry.head.seq, record, self._lot_sizes), soft_wrap=True)


def json_line(entry: Entry) -> str:
    """The stored bytes, unchanged, beside the record's place and the chain's hash there."""
    record = entry.raw.decode(errors="replace")
    return f'{{"seq":{entry.head.seq},"hash":"{entry.head.hash}","record":{record}}}'


# One decision


async def _explain(url: str, account: str, seq: int) -> None:
    from gateway.cli.render import verdict_tree
    from gateway.cli.screen import show
    from gateway.rpc.convert.responses import asked_order

    async with opened(url) as log:
        answer, decided = await explained(log, account, seq)
    show(verdict_tree(answer, asked_order(decided.order)))


async def explained(log: "AccountLog", account: str, seq: int) -> "tuple[CheckOrderResponse, Decided]":
    """The decision at `seq` as its caller got it. Raises Failure where another kind of record stands there."""
    from engine.account import AccountState
    from engine.records import Decided, PoisonRecord, decode
    from gateway.cli.record_lines import kind_of
    from gateway.committer import Answer
    from gateway.rpc.convert.responses import check_response
    from riskgateway.v1 import decision_pb2

    start = await start_of(log, account)
    if start.seq:
        raise Failure(f"the first {start.seq} records are in the archive: the state there is not known", ExitCode.USAGE)
    state = AccountState(account)
    async for entry in entries(log, account, start):
        try:
            record = decode(entry.raw)
        except PoisonRecord as error:
            raise Failure(
                f"record {entry.head.seq} can't be read by this release: {error}", ExitCode.DAMAGED
            ) from error
        state.apply(record)
        if entry.head.seq < seq:
            continue
        if not isinstance(record, Decided):
            raise Failure(f"record {seq} is no decision but: {kind_of(record)}", ExitCode.USAGE)
        answer = Answer(record, seq)
        return check_response(answer, state, decision_pb2.CHECKS_ALL, None, dry_run=False), record
    raise Failure(f"the log of {account} ends before {seq}", ExitCode.USAGE)
