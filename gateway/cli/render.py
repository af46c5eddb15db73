"""Messages of the contract as something to read: each function turns values into a rich renderable, and that is all.

Nothing is printed, asked or computed here that the gateway did not say; only money and shares of equity are converted
into each other for display. Meaning never hangs on colour alone: each action and state has its sign and its name.
Texts from outside go into `Text`, never into markup, so that a bracket in a reason stays a bracket.
"""

from __future__ import annotations  # the enums' ValueType exists for type checkers only

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    limit_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
    risk_pb2,
)

MISSING = "–"

ACTION_SIGNS = {
    decision_pb2.ACTION_ALLOW: ("✔", "green"),
    decision_pb2.ACTION_WARN: ("⚠", "yellow"),
    decision_pb2.ACTION_REDUCE: ("◐", "cyan"),
    decision_pb2.ACTION_REJECT: ("✖", "red"),
    decision_pb2.ACTION_HALT: ("■", "bold red"),
}
STATE_SIGNS = {
    control_pb2.TRADING_STATE_ACTIVE: ("✔", "green"),
    control_pb2.TRADING_STATE_REDUCE_ONLY: ("◐", "yellow"),
    control_pb2.TRADING_STATE_CANCEL_ONLY: ("▣", "yellow"),
    control_pb2.TRADING_STATE_HALTED: ("■", "bold red"),
}
STATUS_SIGNS = {
    limit_pb2.LIMIT_STATUS_OK: ("✔", "green"),
    limit_pb2.LIMIT_STATUS_WARNED: ("⚠", "yellow"),
    limit_pb2.LIMIT_STATUS_BREACHED: ("✖", "red"),
    limit_pb2.LIMIT_STATUS_UNEVALUABLE: ("?", "magenta"),
}
UNKNOWN_SIGN = ("?", "magenta")
DIFFERENCES_OF_QUANTITY = (risk_admin_pb2.DIFFERENCE_KIND_POSITION, risk_admin_pb2.DIFFERENCE_KIND_OPEN_ORDER)


# Numbers and names


def figure(message: Message, field: str) -> float | None:
    """An optional number of a message; None: the gateway couldn't compute it."""
    return float(getattr(message, field)) if message.HasField(field) else None


def quantity(value: float) -> str:
    """Units without trailing zeros: 1,250 or 0.015."""
    return f"{value:,.10g}" if abs(value) < 1e9 else f"{value:,.0f}"


def money(value: float | None, currency: str) -> str:
    """Whole units of currency from 1,000 on, else cents."""
    if value is None:
        return MISSING
    decimals = 0 if abs(value) >= 1_000 else 2
    return f"{value:,.{decimals}f} {currency}".rstrip()


def percent(ratio: float | None) -> str:
    """0.0412 as 4.12 %."""
    return MISSING if ratio is None else f"{ratio * 100:,.2f} %"


def amount(value: float, unit: str) -> str:
    """A value of a check in its unit: "quantity", "orders", "count", "rule", "seconds", "ratio" or a currency code."""
    if unit == "ratio":
        return percent(value)
    if unit == "seconds":
        return f"{value:,.3g} s"
    if unit == "orders":
        return f"{value:,.10g} orders"
    if unit == "rule":
        return "violated" if value > 0 else "kept"
    return quantity(value) if unit in ("quantity", "count", "") else money(value, unit)


def age(span: Duration) -> str:
    """A duration to about two digits: 120 ms, 3.4 s, 5 min, 2.1 h, 4.0 d."""
    seconds = span.seconds + span.nanos / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86_400 else f"{seconds / 86_400:.1f} d"


def moment(time: Timestamp) -> str:
    """UTC, to the millisecond."""
    return time.ToDatetime().isoformat(sep=" ", timespec="milliseconds") + " UTC"


def clock_time(time: Timestamp) -> str:
    """UTC, to the second, without the day."""
    return time.ToDatetime().strftime("%H:%M:%S")


SCOPE_KINDS = ("account", "strategy", "symbol", "algo", "trader", "desk")


def scope_name(scope: control_pb2.Scope) -> str:
    """What a stop or a resume reaches, in words."""
    named = ((kind, getattr(scope, kind)) for kind in SCOPE_KINDS)
    return ", ".join(f"{kind} {name}" for kind, name in named if name) or "everything"


def action_name(action: decision_pb2.Action.ValueType) -> str:
    return decision_pb2.Action.Name(action).removeprefix("ACTION_")


def reason_name(reason: decision_pb2.Reason.ValueType) -> str:
    return decision_pb2.Reason.Name(reason).removeprefix("REASON_")


def state_name(state: control_pb2.TradingState.ValueType) -> str:
    return control_pb2.TradingState.Name(state).removeprefix("TRADING_STATE_")


def side_name(side: order_pb2.Side.ValueType) -> str:
    return order_pb2.Side.Name(side).removeprefix("SIDE_").replace("_", " ")


def signed(sign: tuple[str, str], words: str) -> Text:
    return Text(f"{sign[0]} {words}", style=sign[1])


def action_text(action: decision_pb2.Action.ValueType) -> Text:
    return signed(ACTION_SIGNS.get(action, UNKNOWN_SIGN), action_name(action))


def state_text(state: control_pb2.TradingState.ValueType) -> Text:
    return signed(STATE_SIGNS.get(state, UNKNOWN_SIGN), state_name(state))


# Verdicts


def verdict_line(response: risk_gateway_pb2.CheckOrderResponse, order: order_pb2.Order) -> Text:
    """The verdict in one line: action, order, what may be sent, why, and the id to go on with."""
    line = action_text(response.action)
    line.append(f"  {order_words(order)}", style="bold")
    if response.action == decision_pb2.ACTION_REDUCE:
        line.append(f" · send {quantity(response.allowed_quantity)}", style="bold")
    if response.reason not in (decision_pb2.REASON_NONE, decision_pb2.REASON_UNSPECIFIED):
        line.append(f" · {reason_name(response.reason)}")
    if response.message:
        line.append(f" · {response.message}")
    line.append(f" · {_identity(response)}", style="dim")
    return line


def order_words(order: order_pb2.Order) -> str:
    """For instance BUY 100 AAPL limit 187.5 for ALPHA/MOMENTUM."""
    price = f" limit {order.limit_price:,.10g}" if order.HasField("limit_price") else ""
    stop = f" stop {order.stop_price:,.10g}" if order.HasField("stop_price") else ""
    holder = f"{order.account}/{order.strategy}" if order.strategy else order.account
    return f"{side_name(order.side)} {quantity(order.quantity)} {order.symbol}{price}{stop} for {holder}"


def recent_line(recent: account_pb2.RecentDecision, holder: str = "") -> Text:
    """A past decision in one line: when, action, order, what was approved if less, why. `holder`: for whom, if not
    plain from where it stands."""
    line = Text(f"{clock_time(recent.decide_time)}  ", style="dim")
    line.append_text(action_text(recent.action))
    price = f" limit {recent.limit_price:,.10g}" if recent.HasField("limit_price") else ""
    stop = f" stop {recent.stop_price:,.10g}" if recent.HasField("stop_price") else ""
    strategy = f" for {recent.strategy}" if recent.strategy else ""
    whose = f" for {holder}" if holder else strategy
    line.append(f"  {side_name(recent.side)} {quantity(recent.quantity)} {recent.symbol}{price}{stop}{whose}")
    if recent.action == decision_pb2.ACTION_REDUCE:
        line.append(f" · send {quantity(recent.allowed_quantity)}", style="bold")
    if recent.reason not in (decision_pb2.REASON_NONE, decision_pb2.REASON_UNSPECIFIED):
        line.append(f" · {reason_name(recent.reason)}")
    if recent.message:
        line.append(f" · {recent.message}")
    return line


def _identity(response: risk_gateway_pb2.CheckOrderResponse) -> str:
    if response.sequence == 0 and not response.replayed:
        return "dry run, nothing reserved"
    again = ", decided before" if response.replayed else ""
    return f"id {response.client_order_id}{again}"


def verdict_tree(response: risk_gateway_pb2.CheckOrderResponse, order: order_pb2.Order) -> Tree:
    """The verdict with each armed check below it: measure, scope, before → after, bound, utilisation, age, action."""
    tree = Tree(verdict_line(response, order))
    for check in response.checks:
        branch = tree.add(_check_line(check))
        if check.message and check.action != decision_pb2.ACTION_ALLOW:
            branch.add(Text(check.message))
    if not response.checks:
        tree.add(Text("no check was made: a rule that comes before all limits decided", style="dim"))
    tree.add(Text(_basis(response), style="dim"))
    return tree


def _check_line(check: decision_pb2.CheckResult) -> Text:
    line = action_text(check.action)
    line.append(f"  {check.measure}", style="bold")
    line.append(f" @ {check.scope}: {_movement(check)}")
    for words in _circumstances(check):
        line.append(f" · {words}")
    return line


def _movement(check: decision_pb2.CheckResult) -> str:
    if check.unevaluable and not check.HasField("after"):
        return "can't be computed"
    before = amount(check.before, check.unit) if check.HasField("before") else MISSING
    after = amount(check.after, check.unit) if check.HasField("after") else MISSING
    bound = f" of {amount(check.limit, check.unit)}" if check.HasField("limit") else ""
    return f"{before} → {'≤ ' if check.upper_bound else ''}{after}{bound}"


def _circumstances(check: decision_pb2.CheckResult) -> Iterable[str]:
    if check.HasField("utilization"):
        yield f"{percent(check.utilization)} used"
    if check.HasField("warn"):
        yield f"warns from {amount(check.warn, check.unit)}"
    if check.HasField("quantity_max"):
        yield f"at most {quantity(check.quantity_max)}"
    if check.HasField("input_age"):
        yield f"input {age(check.input_age)} old"
    if check.unevaluable:
        yield "unevaluable"
    if check.true_reduction:
        yield "passes as a true reduction"
    if check.shadow:
        yield "shadow: has no effect"
    if check.reason not in (decision_pb2.REASON_NONE, decision_pb2.REASON_UNSPECIFIED):
        yield reason_name(check.reason)


def _basis(response: risk_gateway_pb2.CheckOrderResponse) -> str:
    """What the verdict was made from, so that it can be made again."""
    parts = [f"account version {response.account_version}", f"stop epoch {response.stop_epoch}"]
    hashes = (("limits", response.limit_set), ("risk model", response.risk_model))
    parts += [f"{name} {blob_hash[:8]}" if blob_hash else f"no {name}" for name, blob_hash in hashes]
    if response.session_date:
        parts.append(f"session {response.session_date}")
    if response.true_reduction:
        parts.append("true reduction")
    if response.HasField("valid_until"):
        parts.append(f"valid until {moment(response.valid_until)}")
    return " · ".join(parts)


# Stopping


def stopped(
    response: risk_gateway_pb2.StopAllResponse, scope: control_pb2.Scope, served_by: str, order_limit: int = 50
) -> Group:
    """What was stopped, what may still fill, and how it is lifted."""
    head = state_text(response.trading_state)
    head.append(f"  {scope_name(scope)}", style="bold")
    head.append(f" · epoch {response.stop_epoch}, {response.acknowledged_partitions} partitions acknowledged")
    head.append(f" · {moment(response.stop_time)} · by {served_by}", style="dim")
    parts: list[RenderableType] = [head]
    parts += [Text(f"⚠ {warning}", style="yellow") for warning in response.warnings]
    parts.append(_open_orders_left(response, order_limit))
    if response.flatten_orders:
        parts.append(Text("Send these to bring the positions in scope to zero:", style="bold"))
        parts.append(_flatten_table(response.flatten_orders[:order_limit]))
    parts.append(Text(f"Lift it with: risk-gateway resume{_scope_options(scope)} --reason '…'", style="dim"))
    return Group(*parts)


def _open_orders_left(response: risk_gateway_pb2.StopAllResponse, order_limit: int) -> RenderableType:
    count = len(response.open_orders)
    if count == 0:
        return Text("No order approved before it is open.")
    shown = f", the first {order_limit} shown" if count > order_limit else ""
    more = f"{count} or more" if response.open_orders_truncated else str(count)
    title = f"{more} approved before it may still fill{shown}: cancel them at the broker."
    return Group(Text(title, style="bold"), open_order_table(response.open_orders[:order_limit]))


def _flatten_table(orders: Sequence[risk_gateway_pb2.FlattenOrder]) -> Table:
    table = Table("account", "id", "order", box=box.SIMPLE)
    for flatten in orders:
        order = flatten.order
        table.add_row(Text(order.account), Text(order.client_order_id), Text(order_words(order)))
    return table


def resumed(response: risk_gateway_pb2.ResumeResponse, scope: control_pb2.Scope) -> Group:
    """What is in force after a resume, and why if it is not all that was asked for."""
    head = state_text(response.trading_state)
    head.append(f"  {scope_name(scope)}", style="bold")
    head.append(f" · epoch {response.stop_epoch}, {response.acknowledged_partitions} partitions acknowledged")
    head.append(f" · {moment(response.resume_time)}", style="dim")
    if not response.causes:
        return Group(head)
    return Group(head, Text("Still in force:", style="bold"), *map(cause_line, response.causes))


def cause_line(cause: control_pb2.TradingStateCause) -> Text:
    line = Text("  ")
    line.append_text(state_text(cause.state))
    line.append(f"  {scope_name(cause.scope)}")
    line.append(f" · {cause.reason or 'no reason given'} · by {cause.actor or 'unknown'}")
    when = f" · {moment(cause.set_time)}" if cause.HasField("set_time") else f" · record {cause.sequence}"
    line.append(when, style="dim")
    return line


def _scope_options(scope: control_pb2.Scope) -> str:
    named = [(f"--{kind}", getattr(scope, kind)) for kind in SCOPE_KINDS]
    return "".join(f" {option} {name}" for option, name in named if name)


# An account


def risk_state(state: account_pb2.RiskState) -> Group:
    """An account on one screen, what matters most first: may it trade, what is it worth, how close are the limits."""
    return Group(
        _trading_head(state),
        *map(cause_line, state.causes),
        Text(),
        _worth(state),
        Text(),
        _limits(state),
        _open_orders(state),
        *liquidation_lines(state),
        _decisions(state),
        _positions(state),
        _report(state),
        Text(_state_basis(state), style="dim"),
    )


def _trading_head(state: account_pb2.RiskState) -> Text:
    head = state_text(state.trading_state)
    head.append(f"  {state.account}", style="bold")
    head.append(f" · session {state.session_date}" if state.session_date else " · no session is open: nothing opens")
    return head


def _worth(state: account_pb2.RiskState) -> Table:
    currency = state.base_currency
    table = Table.grid(padding=(0, 3))

    def row(name: str, value: str, note: str = "") -> None:
        table.add_row(Text(name), Text(value, justify="right"), Text(note, style="dim"))

    def money_row(name: str, field: str, note: str = "") -> None:
        row(name, money(figure(state, field), currency), note)

    money_row("equity", "equity", "" if state.HasField("equity") else "a mark or rate is missing")
    money_row("P&L of the session", "session_pnl", _session_share(state))
    row("P&L realised", money(state.realised_pnl, currency))
    money_row("P&L unrealised", "unrealised_pnl")
    row("drawdown from peak", percent(figure(state, "drawdown")))
    row("drawdown of the session", percent(figure(state, "drawdown_session")))
    row("drawdown since reset", percent(figure(state, "drawdown_since_reset")))
    money_row("gross exposure", "gross_exposure", "worst case, open orders counted")
    money_row("net exposure", "net_exposure")
    row("cash", "  ".join(money(balance.amount, balance.currency) for balance in state.cash) or MISSING)
    return table


def _session_share(state: account_pb2.RiskState) -> str:
    if not state.HasField("session_pnl") or state.session_open_equity <= 0:
        return ""
    return percent(state.session_pnl / state.session_open_equity)


def _limits(state: account_pb2.RiskState) -> RenderableType:
    if not state.limits:
        return Text("No limit is armed, so nothing trades. See risk-gateway config init.", style="yellow")
    table = Table("limit", "scope", "", box=box.SIMPLE, title="Limits", title_justify="left")
    for column in ("used", "bound", "headroom", "used %"):
        table.add_column(column, justify="right")
    for use in state.limits:
        table.add_row(*_limit_row(use, state))
    return table


def _limit_row(use: limit_pb2.LimitUse, state: account_pb2.RiskState) -> list[Text]:
    figures = (both_ways(figure(use, field), use.unit, state) for field in ("value", "limit", "headroom"))
    used = Text(percent(figure(use, "utilization")))
    return [Text(use.measure), Text(use.scope), limit_status(use), *map(Text, figures), used]


def limit_status(use: limit_pb2.LimitUse) -> Text:
    """How a limit stands: sign and name."""
    status = limit_pb2.LimitStatus.Name(use.status).removeprefix("LIMIT_STATUS_").lower()
    shadow = " (shadow)" if use.mode == limit_pb2.LIMIT_MODE_SHADOW else ""
    return signed(STATUS_SIGNS.get(use.status, UNKNOWN_SIGN), status + shadow)


def both_ways(value: float | None, unit: str, state: account_pb2.RiskState) -> str:
    """A share of equity in money too, and money as a share of equity, as far as equity is known."""
    if value is None:
        return MISSING
    shown = amount(value, unit)
    if not state.HasField("equity") or state.equity <= 0:
        return shown
    if unit == "ratio":
        return f"{shown} ({money(value * state.equity, state.base_currency)})"
    return f"{shown} ({percent(value / state.equity)})" if unit == state.base_currency else shown


def _open_orders(state: account_pb2.RiskState) -> RenderableType:
    if not state.open_orders:
        return Text("No open orders.")
    return Group(Text("Open orders", style="italic"), open_order_table(state.open_orders))


def open_order_table(orders: Iterable[order_pb2.OpenOrder]) -> Table:
    """Orders of which something may still fill."""
    table = Table("account", "strategy", "id", "order", "state", box=box.SIMPLE)
    table.add_column("left", justify="right")
    for order in orders:
        price = f" limit {order.limit_price:,.10g}" if order.HasField("limit_price") else ""
        words = f"{side_name(order.side)} {quantity(order.quantity)} {order.symbol}{price}"
        stands = order_pb2.OpenOrderState.Name(order.state).removeprefix("OPEN_ORDER_STATE_").lower().replace("_", " ")
        cells = (order.account, order.strategy or MISSING, order.client_order_id, words, stands)
        table.add_row(*map(Text, cells), Text(quantity(order.leaves_quantity)))
    return table


def liquidation_lines(state: account_pb2.RiskState) -> Iterable[Text]:
    """A line for each position that the gateway's own orders are closing or cutting."""
    for one in state.liquidations:
        if one.active:
            whose = f" of {one.strategy}" if one.strategy else ""
            done = f"{quantity(one.filled_quantity)} of {quantity(one.planned_quantity)} filled"
            text = Text(f"closing {one.symbol}{whose}: {done}, {quantity(one.left_quantity)} left")
            text.append(f" · {quantity(one.sent_quantity)} sent", style="dim")
            cost = money(figure(one, "expected_cost"), state.base_currency)
            yield text.append(f" · expected cost {cost}", style="dim")


def _decisions(state: account_pb2.RiskState, most: int = 5) -> RenderableType:
    if not state.recent_decisions:
        return Text("No order was decided yet.")
    latest = list(state.recent_decisions)[: -most - 1 : -1]
    return Group(Text("Latest decisions", style="italic"), *map(recent_line, latest))


def _positions(state: account_pb2.RiskState) -> RenderableType:
    if not state.positions:
        return Text("No positions.")
    table = Table("strategy", "symbol", box=box.SIMPLE, title="Positions", title_justify="left")
    for column in ("quantity", "cost", "mark", "mark age", "value", "unrealised", "open buys", "open sells"):
        table.add_column(column, justify="right")
    for position in state.positions:
        table.add_row(*map(Text, _position_row(position, state.base_currency)))
    return table


def _position_row(position: account_pb2.Position, currency: str) -> list[str]:
    return [
        position.strategy or MISSING,
        position.symbol,
        quantity(position.quantity),
        f"{position.average_cost:,.10g}",
        f"{position.mark:,.10g}" if position.HasField("mark") else MISSING,
        age(position.mark_age) if position.HasField("mark_age") else MISSING,
        money(figure(position, "market_value"), currency),
        money(figure(position, "unrealised_pnl"), currency),
        quantity(position.open_buy_quantity),
        quantity(position.open_sell_quantity),
    ]


def _report(state: account_pb2.RiskState) -> RenderableType:
    if not state.HasField("report"):
        return Text("No risk report yet: the worker makes one within seconds once it has prices.", style="dim")
    report = state.report
    line = Text("Risk  ", style="italic")
    for name, field in (("VaR 95", "var_95"), ("VaR 99", "var_99"), ("ES 95", "es_95"), ("ES 99", "es_99")):
        line.append(f"{name} {money(figure(report, field), report.base_currency)}   ")
    if report.HasField("worst_stress"):
        line.append(f"worst stress {money(report.worst_stress.loss, report.base_currency)}")
        line.append(f" ({report.worst_stress.name})")
    return Group(line, *(Text(f"⚠ {warning}", style="yellow") for warning in report.warnings), Text(_stamp(report)))


def _stamp(report: risk_pb2.RiskReport) -> str:
    model = f"model of session {report.model_session_date}" if report.model_session_date else "no risk model"
    return f"one day, {report.n_observations} days of history, {model}, {moment(report.report_time)}"


def _state_basis(state: account_pb2.RiskState) -> str:
    counts = state.counters
    decided = (
        f"{counts.allowed} allowed, {counts.warned} warned, {counts.reduced} reduced, "
        f"{counts.rejected} rejected, {counts.halted} halted, {counts.fills} fills"
    )
    breaches = f"breaches: {counts.active_breaches} active, {counts.passive_breaches} passive"
    stamp = f"version {state.sequence}, epoch {state.stop_epoch}, {moment(state.state_time)}"
    return f"{decided} · {breaches} · {_in_shadow(state)}{stamp}"


def _in_shadow(state: account_pb2.RiskState) -> str:
    """What limits in shadow would have done; nothing where there are none."""
    counts = (f"{one.measure} {action_name(one.action)} {one.checks}" for one in state.shadow_by_action)
    said = ", ".join(counts)
    return f"in shadow: {said} · " if said else ""


# Facts


def execution_line(result: risk_gateway_pb2.ExecutionResult) -> Text:
    """What became of a report; flags are loud, since such a report is recorded all the same."""
    if result.duplicate:
        return Text(f"✔ known already, nothing changed · {result.account} · execution {result.execution_id}")
    line = Text(f"✔ recorded at {result.sequence} · {result.account} · execution {result.execution_id}", style="green")
    for flag in result.flags:
        name = risk_gateway_pb2.ExecutionFlag.Name(flag).removeprefix("EXECUTION_FLAG_").replace("_", " ")
        line.append(f" · ⚠ {name}", style="bold yellow")
    if result.message:
        line.append(f" · {result.message}", style="yellow")
    return line


def differences(response: risk_admin_pb2.ReconcilePositionsResponse) -> RenderableType:
    """Where the gateway's record and the broker's differed."""
    if not response.differences:
        return Text(f"✔ no differences, recorded at {response.sequence}", style="green")
    table = Table("what", "strategy", "symbol", "order", box=box.SIMPLE)
    for column in ("recorded", "reported"):
        table.add_column(column, justify="right")
    for found in response.differences:
        kind = risk_admin_pb2.DifferenceKind.Name(found.kind).removeprefix("DIFFERENCE_KIND_").lower().replace("_", " ")
        shown = quantity if found.kind in DIFFERENCES_OF_QUANTITY else lambda value: money(value, "")
        names = (kind, found.strategy or MISSING, found.symbol, found.client_order_id or MISSING)
        table.add_row(*map(Text, names), Text(shown(found.recorded)), Text(shown(found.reported)))
    count = len(response.differences)
    head = Text(f"⚠ {count} differences, now as reported, recorded at {response.sequence}", style="yellow")
    return Group(head, table)


def health_line(name: str, address: str, status: str) -> Text:
    """One port's health; SERVING is well."""
    sign = ("✔", "green") if status == "SERVING" else ("✖", "red")
    return signed(sign, f"{name:<8} {address}  {status.lower().replace('_', ' ')}")
