"""What `watch` knows: the latest state of each account, what the stream and the store are doing, and what just changed.

Values in, values out: updates of the contract and the seconds at which they came go in; lines for people and the ages
of what is shown come out. No terminal, no connection and no clock here.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.text import Text

from gateway.cli import render
from riskgateway.v1 import account_pb2, control_pb2, limit_pb2, risk_gateway_pb2

SILENT_S = 3.0
"""A stream without news has a heartbeat each second: two that are missing are worth saying."""

ALERTS_MAX = 20

SEVERITY_STYLES = {
    risk_gateway_pb2.SEVERITY_NOTICE: "cyan",
    risk_gateway_pb2.SEVERITY_WARNING: "yellow",
    risk_gateway_pb2.SEVERITY_CRITICAL: "bold red",
}


@dataclass(slots=True)
class Board:
    """Fed by `take`, `lost` and `silent`; each returns what there is to say of it, a line a change."""

    address: str
    states: dict[str, account_pb2.RiskState] = field(default_factory=dict)
    alerts: deque[risk_gateway_pb2.Alert] = field(default_factory=lambda: deque(maxlen=ALERTS_MAX))
    store_away: bool = False
    problem: str = "connecting"
    """Why there is no stream; empty while there is one."""
    heard_s: float | None = None
    """When the stream last said anything; None: never."""
    current_s: float | None = None
    """When the states were last known to be current: the stream lived and the store answered."""
    _told: dict[str, control_pb2.TradingState.ValueType] = field(default_factory=dict)

    # --- what is heard -----------------------------------------------------------------------------------------------

    def take(self, update: risk_gateway_pb2.RiskStateUpdate, now_s: float) -> list[Text]:
        lines = self._connected_again(now_s)
        match update.WhichOneof("update"):
            case "risk_state":
                lines += self._store(True, now_s)
                lines += self._state(update.risk_state)
            case "trading_state_change":
                lines.append(self._change(update.trading_state_change))
            case "alert":
                self.alerts.append(update.alert)
                lines.append(alert_line(update.alert))
            case "heartbeat":
                lines += self._store(update.heartbeat.store_available, now_s)
        return lines

    def lost(self, problem: str) -> list[Text]:
        """There is no stream, and why."""
        if self.problem == problem:
            return []
        self.problem = problem
        return [Text(f"✖ no connection: {problem}", style="bold red")]

    def _connected_again(self, now_s: float) -> list[Text]:
        self.heard_s = now_s
        if not self.problem:
            return []
        self.problem = ""
        return [Text(f"✔ connected to {self.address}", style="green")]

    def _store(self, available: bool, now_s: float) -> list[Text]:
        was_away, self.store_away = self.store_away, not available
        if available:
            self.current_s = now_s
            return [Text("✔ the store answers again", style="green")] if was_away else []
        return [] if was_away else [Text("✖ the store is away: no order is approved", style="bold red")]

    def _state(self, state: account_pb2.RiskState) -> list[Text]:
        before = self.states.get(state.account)
        self.states[state.account] = state
        lines = []
        if self._told.get(state.account) != state.trading_state:
            lines += [state_line(state), *map(render.cause_line, state.causes)]
        elif before is None or worth_words(before) != worth_words(state):
            lines.append(state_line(state))
        self._told[state.account] = state.trading_state
        if before is None:
            return lines
        return [*lines, *_decisions(before, state), *_instructions(before, state), *_limits(before, state)]

    def _change(self, change: control_pb2.TradingStateChange) -> Text:
        if change.scope == control_pb2.Scope(account=change.scope.account):
            self._told[change.account] = change.trading_state
        line = Text(f"{render.clock_time(change.change_time)}  {change.account}  ")
        line.append_text(render.state_text(change.trading_state))
        line.append(f"  {render.scope_name(change.scope)} · {change.reason or 'no reason given'} · by {change.actor}")
        return line

    # --- how things are ----------------------------------------------------------------------------------------------

    def warning(self, now_s: float) -> str:
        """Why what is shown may be old, and how old it is; empty while it is current."""
        if self.problem:
            return f"NO CONNECTION: {self.problem}{self._as_of(self.current_s, now_s)} · trying again"
        if self.store_away:
            return f"THE STORE IS AWAY: no order is approved{self._as_of(self.current_s, now_s)}"
        if self.heard_s is not None and now_s - self.heard_s > SILENT_S:
            return f"SILENCE from {self.address}{self._as_of(self.heard_s, now_s)}"
        return ""

    @staticmethod
    def _as_of(since_s: float | None, now_s: float) -> str:
        return "" if since_s is None else f" · as of {now_s - since_s:.0f} s ago"


def alert_line(alert: risk_gateway_pb2.Alert) -> Text:
    where = " ".join(part for part in (alert.account, alert.scope) if part)
    severity = risk_gateway_pb2.Severity.Name(alert.severity).removeprefix("SEVERITY_")
    words = f"{render.clock_time(alert.alert_time)}  ! {severity}  {where} · {alert.kind} · {alert.message}"
    return Text(words, style=SEVERITY_STYLES.get(alert.severity, ""))


def state_line(state: account_pb2.RiskState) -> Text:
    """An account in one line."""
    line = Text(f"{render.clock_time(state.state_time)}  {state.account}  ")
    line.append_text(render.state_text(state.trading_state))
    line.append(f"  {worth_words(state)}")
    return line


def worth_words(state: account_pb2.RiskState) -> str:
    """What is worth a line when it changes."""
    return " · ".join(
        (
            f"session {state.session_date or 'none'}",
            f"equity {render.money(render.figure(state, 'equity'), state.base_currency)}",
            f"P&L {render.money(render.figure(state, 'session_pnl'), state.base_currency)}",
            f"drawdown {render.percent(render.figure(state, 'drawdown'))}",
            f"gross {render.money(render.figure(state, 'gross_exposure'), state.base_currency)}",
            f"{len(state.open_orders)} open orders",
        )
    )


def _decisions(before: account_pb2.RiskState, state: account_pb2.RiskState) -> Iterator[Text]:
    """The decisions since the state before, and how many of them the state no longer holds."""
    last = before.recent_decisions[-1].sequence if before.recent_decisions else 0
    fresh = [recent for recent in state.recent_decisions if recent.sequence > last]
    unseen = decided(state.counters) - decided(before.counters) - len(fresh)
    if unseen > 0:
        yield Text(f"          … {unseen} decisions of {state.account} more: risk-gateway log tail", style="dim")
    for recent in fresh:
        yield render.recent_line(recent, holder(state.account, recent.strategy))


def _instructions(before: account_pb2.RiskState, state: account_pb2.RiskState) -> Iterator[Text]:
    """The instructions that are new, or stand otherwise than before."""
    was = {found.instruction_id: (found.status, found.escalated) for found in before.instructions}
    for found in state.instructions:
        if was.get(found.instruction_id) != (found.status, found.escalated):
            yield instruction_line(found, state.account)


def instruction_line(found: account_pb2.OutstandingInstruction, account: str = "") -> Text:
    """What the execution engine has to do, and how far it is. `account`: where that is not plain already."""
    line = Text(f"{render.clock_time(found.instruct_time)}  ", style="dim")
    loud = "bold red" if found.escalated else "yellow"
    line.append(f"{found.kind.upper()} {found.client_order_id}", style=loud)
    line.append(f"{f' for {account}' if account else ''} · ")
    line.append(f"{found.status}{', ESCALATED' if found.escalated else ''}", style=loud)
    line.append(f" · {render.reason_name(found.reason)} · {found.message}")
    return line


def holder(account: str, strategy: str) -> str:
    return f"{account}/{strategy}" if strategy else account


def decided(counters: account_pb2.Counters) -> int:
    return counters.approvals + counters.rejected + counters.halted


def _limits(before: account_pb2.RiskState, state: account_pb2.RiskState) -> Iterator[Text]:
    """The limits that stand otherwise than before."""
    was = {(use.measure, use.scope): use.status for use in before.limits}
    for use in state.limits:
        status = was.get((use.measure, use.scope), limit_pb2.LIMIT_STATUS_OK)
        if use.status != status:
            yield limit_line(state, use)


def limit_line(state: account_pb2.RiskState, use: limit_pb2.LimitUse) -> Text:
    line = Text(f"{render.clock_time(state.state_time)}  {state.account}  ")
    line.append_text(render.limit_status(use))
    value, bound = render.figure(use, "value"), render.figure(use, "limit")
    shown = render.MISSING if value is None else render.amount(value, use.unit)
    of = "" if bound is None else f" of {render.amount(bound, use.unit)}"
    line.append(f"  {use.measure} @ {use.scope}: {shown}{of}{f' · {use.message}' if use.message else ''}")
    return line


def urgency(use: limit_pb2.LimitUse) -> tuple[bool, bool, float]:
    """Sorts what needs a look first: what can't be evaluated or is past its bound, then by how much is used. Ages of
    inputs come last: an account that nobody trades has old marks in its log, and new ones with its next order."""
    past = use.status in (limit_pb2.LIMIT_STATUS_BREACHED, limit_pb2.LIMIT_STATUS_UNEVALUABLE)
    return use.unit == "seconds", not past, -use.utilization
