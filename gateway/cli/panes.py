"""The screen of `watch`: what a board knows, laid out for a terminal of a given size.

Every row is one line and every list is cut to the rows it gets, with how many were left out: what matters most is never
pushed off the screen by what matters less. Without a height nothing is cut. Renderables out, nothing printed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli import render
from gateway.cli.board import Board, alert_line, decided, holder, instruction_line, urgency
from riskgateway.v1 import account_pb2, limit_pb2, order_pb2

WIDE_COLUMNS = 140
"""From here on there is room for money beside per cent in every column, and for bars."""
CAUSES_MAX = 4
ALERTS_SHOWN = 3
PREFIX_CHARS_MIN = 6
"""A beginning that all accounts share is left out from this length on: the ends tell them apart."""
BAR_CHARS = 12
COUNTED = ("allowed", "warned", "reduced", "rejected", "halted")


@dataclass(frozen=True, slots=True)
class Look:
    """How rows are written, the same on the whole screen."""

    wide: bool
    several: bool
    """More than one account: each row names its own."""
    prefix: str
    """What all accounts' names begin with, if it is long."""
    currency: str
    """The base currency of all accounts; empty: they have several."""

    def name(self, account: str) -> str:
        return f"…{account[len(self.prefix) :]}" if self.prefix else account

    def holder(self, account: str, strategy: str) -> str:
        """Whose an order is, as far as the screen doesn't say so already."""
        return holder(self.name(account), strategy) if self.several else strategy

    def money(self, value: float | None, state: account_pb2.RiskState) -> str:
        return render.money(value, "" if self.currency else state.base_currency)


@dataclass(frozen=True, slots=True)
class Pane:
    """A list under a title. `build` makes it of the first n rows; `head_lines` stand above them."""

    title: str
    rows: int
    build: Callable[[int], RenderableType]
    head_lines: int = 0

    def parts(self, rows: int) -> list[RenderableType]:
        title = Text(self.title, style="bold")
        if rows < self.rows:
            title.append(f"  {rows} of {self.rows} shown", style="dim")
        return [Text(), _one_line(title), self.build(rows) if rows else Group(*[Text()] * self.head_lines)]


def screen(board: Board, now_s: float, width: int, height: int | None = None) -> Group:
    """All of it. One account is shown whole, several by an overview, with what is closest to a bound among them."""
    states = [board.states[name] for name in sorted(board.states)]
    head: list[RenderableType] = [connection_line(board, now_s)]
    head.extend(_one_line(alert_line(alert)) for alert in list(board.alerts)[-ALERTS_SHOWN:])
    if not states:
        return Group(*head, Text("" if board.problem else "No account is open.", style="dim"))
    look = _look(states, width)
    instructions = _instructions(states, look)
    panes = [_limits(states, look), *instructions, _decisions(states, look), _open_orders(states, look)]
    head_lines = len(head)
    if look.several:
        panes.insert(0, _overview(states, look))
    else:
        account = _account_head(states[0])
        head += [*account, Text(), _worth(states[0], look)]
        head_lines += len(account) + 1 + WORTH_LINES
    rows = [pane.rows for pane in panes]
    if height is not None:
        rows = shared(height - head_lines - sum(2 + pane.head_lines for pane in panes), rows)
    return Group(*head, *(part for pane, count in zip(panes, rows, strict=True) for part in pane.parts(count)))


def shared(available: int, wanted: Sequence[int]) -> list[int]:
    """How many rows each list gets of those there are: one each in turn, the first ones first, to none more than it
    wants."""
    given = [0] * len(wanted)
    while available > 0 and given != list(wanted):
        for index, want in enumerate(wanted):
            if given[index] < want and available > 0:
                given[index] += 1
                available -= 1
    return given


def _look(states: Sequence[account_pb2.RiskState], width: int) -> Look:
    names = [state.account for state in states]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in alike) if len(names) > 1 else ""
    currencies = {state.base_currency for state in states}
    return Look(
        wide=width >= WIDE_COLUMNS,
        several=len(states) > 1,
        prefix=prefix if len(prefix) >= PREFIX_CHARS_MIN and prefix not in names else "",
        currency=currencies.pop() if len(currencies) == 1 else "",
    )


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


# The head


def connection_line(board: Board, now_s: float) -> Text:
    """Whether what follows is current; red where it may not be."""
    warning = board.warning(now_s)
    if warning:
        return _one_line(Text(f"✖ {warning}", style="bold white on red"))
    heard = "" if board.heard_s is None else f" · heard {now_s - board.heard_s:.1f} s ago"
    return _one_line(Text(f"✔ {board.address}, the store answers{heard} · Ctrl-C ends", style="dim"))


def _account_head(state: account_pb2.RiskState) -> list[RenderableType]:
    head = render.state_text(state.trading_state)
    head.append(f"  {state.account}", style="bold")
    head.append(f" · session {state.session_date}" if state.session_date else " · no session is open: nothing opens")
    counts = state.counters
    breaches = f" · breaches {counts.active_breaches} active, {counts.passive_breaches} passive"
    head.append(breaches, style="bold red" if counts.active_breaches else "")
    stamp = f" · {render.moment(state.state_time)}, version {state.sequence}, epoch {state.stop_epoch}"
    head.append(stamp, style="dim")
    causes = [_one_line(render.cause_line(cause)) for cause in state.causes[:CAUSES_MAX]]
    left = len(state.causes) - CAUSES_MAX
    return [_one_line(head), *causes, *([Text(f"  … {left} causes more", style="dim")] if left > 0 else [])]


WORTH_LINES = 3


def _worth(state: account_pb2.RiskState, look: Look) -> Table:
    table = Table.grid(padding=(0, 4 if look.wide else 2))
    for _ in range(3):
        table.add_column(no_wrap=True, overflow="ellipsis")
    report = state.report
    columns = (
        (
            ("equity", render.money(render.figure(state, "equity"), state.base_currency)),
            ("P&L", _both(state, render.figure(state, "session_pnl"))),
            ("cash", "  ".join(render.money(cash.amount, cash.currency) for cash in state.cash) or render.MISSING),
        ),
        (
            ("gross", _both(state, render.figure(state, "gross_exposure"))),
            ("net", _both(state, render.figure(state, "net_exposure"))),
            ("VaR 99", _both(state, render.figure(report, "var_99"))),
        ),
        (
            ("drawdown", f"{render.percent(render.figure(state, 'drawdown'))} peak"),
            ("", f"{render.percent(render.figure(state, 'drawdown_session'))} session"),
            ("", f"{render.percent(render.figure(state, 'drawdown_since_reset'))} reset"),
        ),
    )
    for row in zip(*columns, strict=True):
        named = zip(row, (7, 7, 9), strict=True)
        table.add_row(*(Text.assemble((f"{name:<{pad}}", "dim"), value) for (name, value), pad in named))
    return table


def _both(state: account_pb2.RiskState, value: float | None) -> str:
    """Money, and as a share of equity as far as that is known."""
    share = _share(state, value)
    return f"{render.money(value, '')} ({share})" if share else render.money(value, "")


def _share(state: account_pb2.RiskState, value: float | None) -> str:
    return "" if value is None or not state.equity > 0 else f"{value / state.equity:.1%}"


# The lists


def _table(texts: Sequence[str], numbers: Sequence[str], *, after: str = "") -> Table:
    """One line a row. What doesn't fit is cut from texts, never from numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for name in texts:
        table.add_column(_one_line(Text(name)))
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    if after:
        table.add_column(_one_line(Text(after)))
    return table


def _overview(states: Sequence[account_pb2.RiskState], look: Look) -> Pane:
    always = ("equity", "P&L", "drawdown", "gross")
    numbers = (*always, "net", "open", "decided", "breaches") if look.wide else (*always, "open")

    def build(rows: int) -> Table:
        table = _table(("account",), numbers, after="closest limit")
        for state in states[:rows]:
            cells = _overview_cells(state, look)
            name = state.account if look.wide else look.name(state.account)
            table.add_row(
                _sign(render.state_text(state.trading_state), look),
                _one_line(Text(name, style="bold")),
                *(Text(cells[column]) for column in numbers),
                _one_line(_closest(state)),
            )
        return table

    currency = f", {look.currency}" if look.currency else ""
    return Pane(f"{len(states)} accounts{currency}", len(states), build, head_lines=1)


def _overview_cells(state: account_pb2.RiskState, look: Look) -> dict[str, str]:
    counts = state.counters
    return {
        "equity": look.money(render.figure(state, "equity"), state),
        "P&L": look.money(render.figure(state, "session_pnl"), state),
        "drawdown": render.percent(render.figure(state, "drawdown")),
        "gross": _share(state, render.figure(state, "gross_exposure")) or render.MISSING,
        "net": _share(state, render.figure(state, "net_exposure")) or render.MISSING,
        "open": str(len(state.open_orders)),
        "decided": f"{decided(counts):,}",
        "breaches": f"{counts.active_breaches} a, {counts.passive_breaches} p",
    }


def _sign(signed: Text, look: Look) -> Text:
    """A sign with its name where there is room, else alone."""
    return signed if look.wide else Text(signed.plain[0], style=signed.style)


def _closest(state: account_pb2.RiskState) -> Text:
    if not state.limits:
        return Text("none armed: nothing trades", style="yellow")
    use = min(state.limits, key=urgency)
    status, used = render.limit_status(use), render.figure(use, "utilization")
    shown = render.MISSING if used is None else f"{used:.0%}"
    return Text(f"{status.plain[0]} {shown} {use.measure} {_scope(use, state)}", style=status.style)


def _limits(states: Sequence[account_pb2.RiskState], look: Look) -> Pane:
    uses = sorted(((state, use) for state in states for use in state.limits), key=lambda pair: urgency(pair[1]))
    texts = ("account", "limit", "scope") if look.several else ("limit", "scope")

    def build(rows: int) -> Table:
        table = _table(texts, ("used", "bound", "headroom", "used %"), after=" " if look.wide else "")
        for state, use in uses[:rows]:
            table.add_row(*_limit_cells(state, use, look))
        return table

    return Pane("Limits, the closest to their bounds first", len(uses), build, head_lines=1)


def _limit_cells(state: account_pb2.RiskState, use: limit_pb2.LimitUse, look: Look) -> Iterable[Text]:
    status = render.limit_status(use)
    style = status.style
    yield _sign(status, look)
    if look.several:
        yield _one_line(Text(look.name(state.account)))
    yield _one_line(Text(use.measure, style=style))
    yield _one_line(Text(_scope(use, state)))
    value, bound, room = (render.figure(use, field) for field in ("value", "limit", "headroom"))
    for number in (value, bound):
        yield Text(_amounts(number, use, state, look) if look.wide else _amount(number, use, look))
    yield Text(_amounts(room, use, state, look), style=style)
    yield Text(render.percent(render.figure(use, "utilization")), style=style)
    if look.wide:
        yield _one_line(Text(bar(use.utilization), style=style))


def _amount(value: float | None, use: limit_pb2.LimitUse, look: Look) -> str:
    if value is None:
        return render.MISSING
    return render.money(value, "") if use.unit == look.currency else render.amount(value, use.unit)


def _amounts(value: float | None, use: limit_pb2.LimitUse, state: account_pb2.RiskState, look: Look) -> str:
    """A share of equity in money too, and money as a share of equity, as far as equity is known."""
    shown = _amount(value, use, look)
    if value is None or not state.equity > 0:
        return shown
    if use.unit == "ratio":
        return f"{shown} ({look.money(value * state.equity, state)})"
    return f"{shown} ({_share(state, value)})" if use.unit == state.base_currency else shown


def bar(used: float) -> str:
    """How much of a bound is used, full at the bound and beyond it."""
    filled = round(min(max(used, 0.0), 1.0) * BAR_CHARS)
    return "█" * filled + "░" * (BAR_CHARS - filled)


def _scope(use: limit_pb2.LimitUse, state: account_pb2.RiskState) -> str:
    """Where a limit is applied, without the account's name."""
    whole = f"account:{state.account}"
    return "account" if use.scope == whole else use.scope.removeprefix(f"{whole} ")


def _instructions(states: Sequence[account_pb2.RiskState], look: Look) -> list[Pane]:
    """What the execution engine was asked to do and that is not over; no pane where there is nothing."""
    found = [(state, each) for state in states for each in state.instructions]
    found.sort(key=lambda pair: not pair[1].escalated)

    def build(rows: int) -> Group:
        shown = found[:rows]
        lines = (instruction_line(each, look.name(state.account) if look.several else "") for state, each in shown)
        return Group(*map(_one_line, lines))

    return [Pane(f"Instructions not yet carried out: {len(found)}", len(found), build)] if found else []


def _decisions(states: Sequence[account_pb2.RiskState], look: Look) -> Pane:
    recents = sorted(
        ((state, recent) for state in states for recent in state.recent_decisions),
        key=lambda pair: (pair[1].decide_time.ToNanoseconds(), pair[1].sequence),
        reverse=True,
    )

    def build(rows: int) -> Group:
        shown = recents[:rows]
        lines = (render.recent_line(recent, look.holder(state.account, recent.strategy)) for state, recent in shown)
        return Group(*map(_one_line, lines))

    counts = [sum(getattr(state.counters, name) for state in states) for name in COUNTED]
    totals = ", ".join(f"{count:,} {name}" for count, name in zip(counts, COUNTED, strict=True))
    return Pane(f"Decisions: {totals}", len(recents), build)


def _open_orders(states: Sequence[account_pb2.RiskState], look: Look) -> Pane:
    orders = [(state, order) for state in states for order in reversed(state.open_orders)]

    def build(rows: int) -> Group:
        return Group(*(_one_line(_open_order(state, order, look)) for state, order in orders[:rows]))

    return Pane(f"Open orders: {len(orders)}", len(orders), build)


def _open_order(state: account_pb2.RiskState, order: order_pb2.OpenOrder, look: Look) -> Text:
    price = f" limit {order.limit_price:,.10g}" if order.HasField("limit_price") else ""
    stands = order_pb2.OpenOrderState.Name(order.state).removeprefix("OPEN_ORDER_STATE_").lower().replace("_", " ")
    whose = look.holder(state.account, order.strategy)
    line = Text(f"{render.clock_time(order.approve_time)}  ", style="dim")
    line.append(f"{stands:<9}", style="yellow" if order.state == order_pb2.OPEN_ORDER_STATE_SUSPECT else "")
    line.append(f"  {render.side_name(order.side)} {render.quantity(order.quantity)} {order.symbol}{price}")
    line.append(f"{f' for {whose}' if whose else ''} · {render.quantity(order.leaves_quantity)} left")
    line.append(f" · {order.client_order_id}", style="dim")
    return line
