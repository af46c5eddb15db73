"""Requests to engine values. Every reader takes a message and returns values that are safe to decide on, or raises
Invalid with all that is wrong with the message. Nothing here answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.account_events import (
    CorrectedFill,
    DividendPaidTold,
    DividendTold,
    PositionEvent,
    ReversalTold,
    SettlementTold,
    SplitTold,
)
from engine.control import NOBODY, Scope, TradingState
from engine.facts import Execution, Quote, StatedOrder, StatedPosition
from engine.instrument import (
    AssetClass,
    Instrument,
    InstrumentError,
    MarketPhase,
    OptionModel,
    OptionRight,
    OptionStyle,
    OptionTerms,
    check_instrument,
)
from engine.order import Order, OrderType, Side, TimeInForce
from engine.records import ExecutionKind, SettlementKind
from gateway.market.quotes import AHEAD_MAX_US
from gateway.rpc.convert.form import NUMBER_MAX, NUMBER_MIN, Form, Invalid, legible
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    execution_pb2,
    instrument_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
)

BASKET_ORDERS_MAX = 500
REPORTS_MAX = 500
HEADROOM_SYMBOLS_MAX = 500
STREAM_ACCOUNTS_MAX = 1_000
MARKS_MAX = 1_000
INSTRUMENTS_MAX = 5_000
POSITIONS_MAX = 10_000
"""Of one account told by its broker; beyond it the record would not be folded in a millisecond any more."""

_SIDES: dict[int, Side] = {
    order_pb2.SIDE_BUY: Side.BUY,
    order_pb2.SIDE_SELL: Side.SELL,
    order_pb2.SIDE_SELL_SHORT: Side.SELL_SHORT,
}
_ORDER_TYPES: dict[int, OrderType] = {
    order_pb2.ORDER_TYPE_MARKET: OrderType.MARKET,
    order_pb2.ORDER_TYPE_LIMIT: OrderType.LIMIT,
    order_pb2.ORDER_TYPE_STOP: OrderType.STOP,
    order_pb2.ORDER_TYPE_STOP_LIMIT: OrderType.STOP_LIMIT,
}
_TIMES_IN_FORCE: dict[int, TimeInForce] = {
    order_pb2.TIME_IN_FORCE_DAY: TimeInForce.DAY,
    order_pb2.TIME_IN_FORCE_GTC: TimeInForce.GTC,
    order_pb2.TIME_IN_FORCE_IOC: TimeInForce.IOC,
    order_pb2.TIME_IN_FORCE_FOK: TimeInForce.FOK,
    order_pb2.TIME_IN_FORCE_GTD: TimeInForce.GTD,
    order_pb2.TIME_IN_FORCE_AT_OPEN: TimeInForce.AT_OPEN,
    order_pb2.TIME_IN_FORCE_AT_CLOSE: TimeInForce.AT_CLOSE,
}
_KINDS: dict[int, str] = {
    execution_pb2.EXECUTION_KIND_WORKING: ExecutionKind.WORKING,
    execution_pb2.EXECUTION_KIND_FILL: ExecutionKind.FILL,
    execution_pb2.EXECUTION_KIND_CANCEL_REQUESTED: ExecutionKind.CANCEL_REQUESTED,
    execution_pb2.EXECUTION_KIND_CANCELLED: ExecutionKind.CANCELLED,
    execution_pb2.EXECUTION_KIND_REJECTED: ExecutionKind.REJECTED,
    execution_pb2.EXECUTION_KIND_EXPIRED: ExecutionKind.EXPIRED,
    execution_pb2.EXECUTION_KIND_NOT_SENT: ExecutionKind.NOT_SENT,
}
_ASSET_CLASSES: dict[int, AssetClass] = {
    instrument_pb2.ASSET_CLASS_EQUITY: AssetClass.EQUITY,
    instrument_pb2.ASSET_CLASS_FUTURE: AssetClass.FUTURE,
    instrument_pb2.ASSET_CLASS_FX: AssetClass.FX,
    instrument_pb2.ASSET_CLASS_CRYPTO: AssetClass.CRYPTO,
    instrument_pb2.ASSET_CLASS_BOND: AssetClass.BOND,
    instrument_pb2.ASSET_CLASS_CREDIT: AssetClass.CREDIT,
    instrument_pb2.ASSET_CLASS_OPTION: AssetClass.OPTION,
}
_RIGHTS: dict[int, OptionRight] = {
    instrument_pb2.OPTION_RIGHT_CALL: OptionRight.CALL,
    instrument_pb2.OPTION_RIGHT_PUT: OptionRight.PUT,
}
_STYLES: dict[int, OptionStyle] = {
    instrument_pb2.OPTION_STYLE_EUROPEAN: OptionStyle.EUROPEAN,
    instrument_pb2.OPTION_STYLE_AMERICAN: OptionStyle.AMERICAN,
}
_OPTION_MODELS: dict[int, OptionModel] = {
    instrument_pb2.OPTION_MODEL_BLACK_SCHOLES_MERTON: OptionModel.BLACK_SCHOLES_MERTON,
    instrument_pb2.OPTION_MODEL_BLACK_76: OptionModel.BLACK_76,
}
_PHASES: dict[int, MarketPhase] = {
    instrument_pb2.MARKET_PHASE_UNSPECIFIED: MarketPhase.UNKNOWN,
    instrument_pb2.MARKET_PHASE_PRE_OPEN: MarketPhase.PRE_OPEN,
    instrument_pb2.MARKET_PHASE_OPENING_AUCTION: MarketPhase.OPENING_AUCTION,
    instrument_pb2.MARKET_PHASE_CONTINUOUS: MarketPhase.CONTINUOUS,
    instrument_pb2.MARKET_PHASE_CLOSING_AUCTION: MarketPhase.CLOSING_AUCTION,
    instrument_pb2.MARKET_PHASE_HALTED: MarketPhase.HALTED,
    instrument_pb2.MARKET_PHASE_CLOSED: MarketPhase.CLOSED,
}
_STOP_MODES = {
    control_pb2.TRADING_STATE_UNSPECIFIED: TradingState.HALTED,
    control_pb2.TRADING_STATE_REDUCE_ONLY: TradingState.REDUCE_ONLY,
    control_pb2.TRADING_STATE_CANCEL_ONLY: TradingState.CANCEL_ONLY,
    control_pb2.TRADING_STATE_HALTED: TradingState.HALTED,
}
_CHECKS = frozenset({decision_pb2.CHECKS_UNSPECIFIED, decision_pb2.CHECKS_ALL, decision_pb2.CHECKS_BINDING})
_LIMIT_PRICED = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_STOP_PRICED = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


# --- orders ----------------------------------------------------------------------------------------------------------


def order_of(request: risk_gateway_pb2.CheckOrderRequest, path: str = "") -> Order:
    """The order asked about. `path`: what stands before the fields at fault, for a request among several."""
    form = Form(path)
    _need_checks(form, request.checks)
    if not request.HasField("order"):
        form.wrong("order", "required")
        raise Invalid(form.violations)
    order = _order(form.at("order"), request.order, request.all_or_none)
    form.done()
    return order


def orders_of(request: risk_gateway_pb2.CheckOrdersRequest) -> list[Order]:
    """The orders of a basket, 1 to 500, in the order given; of one account where it is all or none."""
    form = Form()
    _need_checks(form, request.checks)
    form.count("orders", len(request.orders), 1, BASKET_ORDERS_MAX)
    form.done()
    orders = [_order(form.at("orders", i), message, request.all_or_none) for i, message in enumerate(request.orders)]
    first: dict[tuple[str, str], int] = {}
    for i, order in enumerate(orders):
        earlier = first.setdefault((order.account, order.client_order_id), i)
        if earlier != i:
            form.at("orders", i).wrong("client_order_id", f"expected another than that of orders[{earlier}]")
        if request.all_or_none and order.account != orders[0].account:
            form.at("orders", i).wrong("account", "expected the account of orders[0]: all or none is of one account")
    form.done()
    return orders


def _need_checks(form: Form, checks: int) -> None:
    if checks not in _CHECKS:
        form.wrong("checks", f"expected one of the enum's named values, got unknown value {checks}")


def _order(form: Form, message: order_pb2.Order, all_or_none: bool) -> Order:
    order_type = form.choice("order_type", message.order_type, _ORDER_TYPES, OrderType.MARKET)
    return Order(
        account=form.name("account", message.account),
        client_order_id=form.identifier("client_order_id", message.client_order_id),
        symbol=form.name("symbol", message.symbol),
        side=form.choice("side", message.side, _SIDES, Side.BUY),
        quantity=form.positive("quantity", message.quantity),
        order_type=order_type,
        time_in_force=form.choice("time_in_force", message.time_in_force, _TIMES_IN_FORCE, TimeInForce.DAY),
        strategy=form.name("strategy", message.strategy, required=False),
        limit_price=_price(form, "limit_price", message, order_type, _LIMIT_PRICED),
        stop_price=_price(form, "stop_price", message, order_type, _STOP_PRICED),
        reduce_only=message.reduce_only,
        all_or_none=all_or_none,
        replaces_client_order_id=_replaced(form, message),
        valid_for_us=form.span("valid_for", message.valid_for) if message.HasField("valid_for") else None,
        algo_id=form.name("algo_id", message.algo_id, required=False),
        trader_id=form.name("trader_id", message.trader_id, required=False),
        desk_id=form.name("desk_id", message.desk_id, required=False),
        client_id=form.name("client_id", message.client_id, required=False),
        venue=form.name("venue", message.venue, required=False),
    )


def _price(
    form: Form, field: str, message: order_pb2.Order, order_type: OrderType, priced: frozenset[OrderType]
) -> float | None:
    given = (field == "limit_price" and message.HasField("limit_price")) or (
        field == "stop_price" and message.HasField("stop_price")
    )
    if message.order_type not in _ORDER_TYPES:
        return None  # refused already, and without a type nothing is known of its prices
    if not given:
        if order_type in priced:
            form.wrong(field, f"required for {order_type.name}")
        return None
    if order_type not in priced:
        form.wrong(field, f"expected none for {order_type.name}")
        return None
    return form.positive(field, message.limit_price if field == "limit_price" else message.stop_price)


def _replaced(form: Form, message: order_pb2.Order) -> str:
    replaced = form.name("replaces_client_order_id", message.replaces_client_order_id, required=False, chars_max=128)
    if replaced and replaced == message.client_order_id:
        form.wrong("replaces_client_order_id", "expected another order than the one sent")
    return replaced


# --- facts -----------------------------------------------------------------------------------------------------------


def executions_of(request: risk_gateway_pb2.ReportExecutionRequest) -> list[Execution]:
    """The reports, 1 to 500, in the order given."""
    form = Form()
    form.count("executions", len(request.executions), 1, REPORTS_MAX)
    form.done()
    executions = [_execution(form.at("executions", i), message) for i, message in enumerate(request.executions)]
    form.done()
    return executions


def _execution(form: Form, message: execution_pb2.Execution) -> Execution:
    kind = form.choice("kind", message.kind, _KINDS, ExecutionKind.WORKING)
    fills = kind == ExecutionKind.FILL
    if message.HasField("leaves_quantity"):
        form.not_negative("leaves_quantity", message.leaves_quantity)
    told = message.HasField("execution_time")
    time_us = form.moment("execution_time", message.execution_time) if told else 0
    form.name("venue_order_id", message.venue_order_id, required=False, chars_max=128)
    form.text("text", message.text)
    return Execution(
        account=form.name("account", message.account),
        execution_id=form.identifier("execution_id", message.execution_id),
        client_order_id=form.identifier("client_order_id", message.client_order_id),
        kind=kind,
        strategy=form.name("strategy", message.strategy, required=False),
        symbol=form.name("symbol", message.symbol, required=False),
        sign=_sign(form, message.side),
        last_quantity=form.positive("last_quantity", message.last_quantity) if fills else 0.0,
        last_price=form.positive("last_price", message.last_price) if fills else 0.0,
        cumulative_quantity=form.not_negative("cumulative_quantity", message.cumulative_quantity),
        fee=form.signed("fee", message.fee),
        fee_currency=form.currency("fee_currency", message.fee_currency, required=False),
        time_us=time_us,
    )


def _sign(form: Form, side: int) -> int:
    return form.choice("side", side, _SIDES, Side.BUY).sign if side else 0


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a broker says. `cash` and `open_orders` are None where it was not told."""

    account: str
    positions: tuple[StatedPosition, ...]
    cash: Mapping[str, float] | None
    open_orders: tuple[StatedOrder, ...] | None
    snapshot_us: int
    reason: str


def reconciliation_of(request: risk_admin_pb2.ReconcilePositionsRequest, now_us: int) -> Reconciliation:
    form = Form()
    form.count("positions", len(request.positions), 0, POSITIONS_MAX)
    form.count("open_orders", len(request.open_orders), 0, POSITIONS_MAX)
    form.done()
    account = form.name("account", request.account)
    positions = _positions(form, request.positions)
    open_orders = _open_orders(form, request)
    snapshot_us = 0
    if not request.HasField("snapshot_time"):
        form.wrong("snapshot_time", "required")
    elif (snapshot_us := form.moment("snapshot_time", request.snapshot_time)) > now_us + AHEAD_MAX_US:
        form.wrong("snapshot_time", "expected a time that is not ahead of the store's clock")
    cash = _cash(form, request.cash) or None
    reason = form.text("reason", request.reason)
    form.done()
    return Reconciliation(account, positions, cash, open_orders, snapshot_us, reason)


def _open_orders(form: Form, request: risk_admin_pb2.ReconcilePositionsRequest) -> tuple[StatedOrder, ...] | None:
    if not request.has_open_orders:
        if request.open_orders:
            form.wrong("has_open_orders", "expected true where open_orders are given")
        return None
    stated: dict[str, StatedOrder] = {}
    for i, message in enumerate(request.open_orders):
        entry = form.at("open_orders", i)
        client_order_id = entry.identifier("client_order_id", message.client_order_id)
        if client_order_id in stated:
            entry.wrong("client_order_id", "expected another than those before it")
        stated[client_order_id] = StatedOrder(
            client_order_id=client_order_id,
            leaves_quantity=entry.not_negative("leaves_quantity", message.leaves_quantity),
            strategy=entry.name("strategy", message.strategy, required=False),
            symbol=entry.name("symbol", message.symbol, required=False),
            sign=_sign(entry, message.side),
        )
    return tuple(stated.values())


def _positions(form: Form, messages: Sequence[account_pb2.PositionQuantity]) -> tuple[StatedPosition, ...]:
    positions: dict[tuple[str, str], StatedPosition] = {}
    for i, message in enumerate(messages):
        entry = form.at("positions", i)
        position = StatedPosition(
            symbol=entry.name("symbol", message.symbol),
            quantity=entry.signed("quantity", message.quantity),
            strategy=entry.name("strategy", message.strategy, required=False),
            average_cost=entry.positive("average_cost", message.average_cost)
            if message.HasField("average_cost")
            else None,
        )
        if (position.strategy, position.symbol) in positions:
            entry.wrong("symbol", "expected another strategy and symbol than those before it")
        positions[position.strategy, position.symbol] = position
    return tuple(positions.values())


def _cash(form: Form, messages: Sequence[account_pb2.CashBalance]) -> dict[str, float]:
    cash: dict[str, float] = {}
    for i, message in enumerate(messages):
        entry = form.at("cash", i)
        currency = entry.currency("currency", message.currency)
        if currency in cash:
            entry.wrong("currency", "expected another than those before it")
        cash[currency] = entry.signed("amount", message.amount)
    return cash


@dataclass(frozen=True, slots=True)
class Opening:
    base_currency: str
    cash: Mapping[str, float]
    positions: tuple[StatedPosition, ...]


@dataclass(frozen=True, slots=True)
class SessionStart:
    date: str


@dataclass(frozen=True, slots=True)
class Flow:
    amount: float
    currency: str


@dataclass(frozen=True, slots=True)
class Charge:
    amount: float
    currency: str
    strategy: str


@dataclass(frozen=True, slots=True)
class Letting:
    """How long a suspect order is kept; None: until somebody says what became of it."""

    delay_us: int | None


AccountEvent = Opening | SessionStart | Flow | Charge | Letting | PositionEvent

_SETTLEMENTS: dict[int, SettlementKind] = {
    risk_admin_pb2.SETTLEMENT_KIND_EXERCISE: SettlementKind.EXERCISE,
    risk_admin_pb2.SETTLEMENT_KIND_ASSIGNMENT: SettlementKind.ASSIGNMENT,
    risk_admin_pb2.SETTLEMENT_KIND_EXPIRY: SettlementKind.EXPIRY,
}


def account_event_of(request: risk_admin_pb2.ReportAccountEventRequest) -> tuple[str, str, AccountEvent]:
    """(account, event id, what happened)."""
    form = Form()
    account = form.name("account", request.account)
    event_id = form.identifier("event_id", request.event_id)
    if request.HasField("event_time"):
        form.moment("event_time", request.event_time)
    event = _account_event(form, request)
    form.done()
    assert event is not None, "without an event the form has a violation"
    return account, event_id, event


def _account_event(form: Form, request: risk_admin_pb2.ReportAccountEventRequest) -> AccountEvent | None:
    match request.WhichOneof("event"):
        case "account_opened":
            return _opening(form.at("account_opened"), request.account_opened)
        case "session_opened":
            day = form.at("session_opened").day("session_date", request.session_opened.session_date)
            return SessionStart(day.isoformat())
        case "cash_flow":
            flow = form.at("cash_flow")
            flow.text("text", request.cash_flow.text)
            amount = flow.amount("amount", request.cash_flow.amount)
            return Flow(amount, flow.currency("currency", request.cash_flow.currency))
        case "fee":
            fee = form.at("fee")
            fee.text("text", request.fee.text)
            return Charge(
                fee.amount("amount", request.fee.amount),
                fee.currency("currency", request.fee.currency),
                fee.name("strategy", request.fee.strategy, required=False),
            )
        case "release_delay":
            told, delay = form.at("release_delay"), request.release_delay
            return Letting(told.span("delay", delay.delay) if delay.HasField("delay") else None)
        case _:
            return _position_event(form, request)


def _position_event(form: Form, request: risk_admin_pb2.ReportAccountEventRequest) -> PositionEvent | None:
    match request.WhichOneof("event"):
        case "split":
            told, split = form.at("split"), request.split
            return SplitTold(
                told.name("symbol", split.symbol),
                split.new_units,
                split.old_units,
                told.positive("in_lieu_price", split.in_lieu_price) if split.HasField("in_lieu_price") else None,
            )
        case "dividend":
            told, dividend = form.at("dividend"), request.dividend
            amount = told.positive("amount", dividend.amount)
            return DividendTold(told.name("symbol", dividend.symbol), amount, dividend.accrued)
        case "dividend_paid":
            told = form.at("dividend_paid")
            return DividendPaidTold(told.identifier("accrual_event_id", request.dividend_paid.accrual_event_id))
        case "settlement":
            return _settlement(form.at("settlement"), request.settlement)
        case "fill_reversal":
            return _reversal(form.at("fill_reversal"), request.fill_reversal)
        case _:
            form.wrong("event", "required: expected one of its fields, such as account_opened or cash_flow")
            return None


def _settlement(form: Form, message: risk_admin_pb2.Settlement) -> SettlementTold:
    priced = message.HasField("settlement_price")
    return SettlementTold(
        kind=form.choice("kind", message.kind, _SETTLEMENTS, SettlementKind.EXPIRY),
        symbol=form.name("symbol", message.symbol),
        strategy=form.name("strategy", message.strategy, required=False),
        quantity=form.not_negative("quantity", message.quantity),
        settlement_price=form.not_negative("settlement_price", message.settlement_price) if priced else None,
    )


def _reversal(form: Form, message: risk_admin_pb2.FillReversal) -> ReversalTold:
    told, corrected = form.at("corrected"), message.corrected
    return ReversalTold(
        form.identifier("execution_id", message.execution_id),
        CorrectedFill(
            told.identifier("execution_id", corrected.execution_id),
            told.positive("quantity", corrected.quantity),
            told.positive("price", corrected.price),
        )
        if message.HasField("corrected")
        else None,
    )


def _opening(form: Form, message: risk_admin_pb2.AccountOpened) -> Opening:
    form.count("positions", len(message.positions), 0, POSITIONS_MAX)
    return Opening(
        form.currency("base_currency", message.base_currency),
        _cash(form, message.cash),
        _positions(form, message.positions[:POSITIONS_MAX]),
    )


# --- instruments and marks -------------------------------------------------------------------------------------------


def instruments_of(request: risk_admin_pb2.RegisterInstrumentsRequest) -> list[Instrument]:
    """The instruments to register, 1 to 5,000, each symbol once."""
    form = Form()
    form.count("instruments", len(request.instruments), 1, INSTRUMENTS_MAX)
    form.done()
    instruments: dict[str, Instrument] = {}
    for i, message in enumerate(request.instruments):
        entry = form.at("instruments", i)
        instrument = _instrument(entry, message)
        _note_contradiction(entry, instrument)
        if instrument.symbol in instruments:
            entry.wrong("symbol", "expected another than those before it")
        instruments[instrument.symbol] = instrument
    form.done()
    return list(instruments.values())


def _instrument(form: Form, message: instrument_pb2.Instrument) -> Instrument:
    expiry = form.day("expiry_date", message.expiry_date) if message.expiry_date else None
    return Instrument(
        symbol=form.name("symbol", message.symbol),
        asset_class=form.choice("asset_class", message.asset_class, _ASSET_CLASSES, AssetClass.EQUITY),
        currency=form.currency("currency", message.currency),
        lot_size=form.positive("lot_size", message.lot_size),
        tick_size=form.positive("tick_size", message.tick_size),
        multiplier=form.positive("multiplier", message.multiplier) if message.HasField("multiplier") else 1.0,
        sector=form.name("sector", message.sector, required=False) or "unassigned",
        issuer=form.name("issuer", message.issuer, required=False),
        underlying=form.name("underlying", message.underlying, required=False),
        duration=form.not_negative("duration", message.duration),
        spread_duration=form.not_negative("spread_duration", message.spread_duration),
        spread=form.not_negative("spread", message.spread),
        factors={
            form.name("factors", factor): form.signed(f"factors.{factor[:64]}", message.factors[factor])
            for factor in sorted(message.factors)
        },
        proxy=form.name("proxy", message.proxy, required=False),
        tradeable=message.tradeable if message.HasField("tradeable") else True,
        expiry=expiry,
        quantity_min=form.not_negative("quantity_min", message.quantity_min),
        average_daily_quantity=form.not_negative("average_daily_quantity", message.average_daily_quantity),
        beta=form.signed("beta", message.beta) if message.HasField("beta") else None,
        replaces_atomically=message.replaces_atomically,
        option=_option_terms(form.at("option"), message.option) if message.HasField("option") else None,
        initial_margin=form.not_negative("initial_margin", message.initial_margin),
    )


def _option_terms(form: Form, message: instrument_pb2.OptionTerms) -> OptionTerms:
    return OptionTerms(
        strike=form.positive("strike", message.strike),
        right=form.choice("right", message.right, _RIGHTS, OptionRight.CALL),
        style=form.choice("style", message.style, _STYLES, OptionStyle.EUROPEAN),
        model=form.choice("model", message.model, _OPTION_MODELS, OptionModel.BLACK_SCHOLES_MERTON),
        dividend_yield=form.signed("dividend_yield", message.dividend_yield),
        rate=form.signed("rate", message.rate) if message.HasField("rate") else None,
        volatility=form.positive("volatility", message.volatility) if message.HasField("volatility") else None,
    )


def _note_contradiction(form: Form, instrument: Instrument) -> None:
    """What single fields don't show, such as an option without terms. After other violations it may be their echo."""
    if form.violations:
        return
    try:
        check_instrument(instrument)
    except InstrumentError as error:
        form.wrong({"expiry": "expiry_date"}.get(error.field, error.field), error.expected)


def quote_of(message: instrument_pb2.Mark, now_us: int) -> Quote | str:
    """A mark as the engine takes it, or why it can't be used. Marks are refused one by one, never the whole message."""
    form = Form()
    form.name("symbol", message.symbol)
    prices = {name: getattr(message, name) for name in ("bid", "ask", "last") if message.HasField(name)}
    for name, price in prices.items():
        if not NUMBER_MIN <= price <= NUMBER_MAX:
            form.wrong(name, f"expected a price above 0 ({NUMBER_MIN:g} to {NUMBER_MAX:g}), got {price:g}")
    if not prices:
        form.wrong("bid", "expected at least one of bid, ask and last")
    phase = form.choice("phase", message.phase, _PHASES, MarketPhase.UNKNOWN)
    time_us = 0
    if not message.HasField("mark_time"):
        form.wrong("mark_time", "required")
    else:
        time_us = form.moment("mark_time", message.mark_time)
    if form.violations:
        return "; ".join(f"{field}: {problem}" for field, problem in form.violations)
    bid, ask, last = prices.get("bid"), prices.get("ask"), prices.get("last")
    mark = (bid + ask) / 2 if bid is not None and ask is not None else last or bid or ask
    assert mark is not None, "one of the three is given"
    return Quote(message.symbol, mark, bid, ask, _seen_us(time_us, now_us), phase)


def _seen_us(time_us: int, now_us: int) -> int:
    """The older of event and arrival time; one too far ahead is left as it is, so that it is refused as such."""
    return time_us if time_us > now_us + AHEAD_MAX_US else min(time_us, now_us)


# --- control, and who is asked about ---------------------------------------------------------------------------------


def stop_of(request: risk_gateway_pb2.StopAllRequest) -> tuple[Scope, TradingState, str]:
    """(scope, state, reason). A stop is refused for its scope or its mode only, never for its reason."""
    form = Form()
    scope = _scope(form, request)
    state = _STOP_MODES.get(request.mode, TradingState.ACTIVE)
    if state is TradingState.ACTIVE:
        form.wrong("mode", "expected REDUCE_ONLY, CANCEL_ONLY or HALTED; to lift a stop, call Resume")
    if request.flatten and scope.sender != NOBODY:
        form.wrong("flatten", "expected none with algo, trader or desk: positions are kept by strategy, not by these")
    form.done()
    return scope, state, legible(request.reason)


def heartbeat_of(request: risk_gateway_pb2.HeartbeatRequest) -> tuple[str, str]:
    """(account, strategy)."""
    form = Form()
    account = form.name("account", request.account)
    strategy = form.name("strategy", request.strategy, required=False)
    form.done()
    return account, strategy


def resume_of(request: risk_gateway_pb2.ResumeRequest) -> tuple[Scope, str]:
    """(scope, reason)."""
    form = Form()
    scope = _scope(form, request)
    reason = form.text("reason", request.reason, required=True)
    form.done()
    return scope, reason


def _scope(form: Form, request: risk_gateway_pb2.StopAllRequest | risk_gateway_pb2.ResumeRequest) -> Scope:
    return Scope(
        form.name("account", request.account, required=False),
        form.name("strategy", request.strategy, required=False),
        form.name("symbol", request.symbol, required=False),
        form.name("algo", request.algo, required=False),
        form.name("trader", request.trader, required=False),
        form.name("desk", request.desk, required=False),
    )


def account_of(request: risk_gateway_pb2.GetRiskStateRequest) -> str:
    form = Form()
    account = form.name("account", request.account)
    form.done()
    return account


def accounts_of(request: risk_gateway_pb2.StreamRiskStateRequest) -> tuple[str, ...]:
    """The accounts to follow, each once; none: all."""
    form = Form()
    form.count("accounts", len(request.accounts), 0, STREAM_ACCOUNTS_MAX)
    for i, account in enumerate(request.accounts[:STREAM_ACCOUNTS_MAX]):
        form.name(f"accounts[{i}]", account)
    form.done()
    return tuple(dict.fromkeys(request.accounts))


def limits_account_of(request: risk_admin_pb2.GetLimitsRequest) -> str:
    """The account whose limits are asked for; empty: all."""
    form = Form()
    account = form.name("account", request.account, required=False)
    form.done()
    return account


def headroom_of(request: risk_gateway_pb2.GetHeadroomRequest) -> tuple[str, str, tuple[str, ...]]:
    """(account, strategy, symbols as asked, none: all that are held or open)."""
    form = Form()
    account = form.name("account", request.account)
    strategy = form.name("strategy", request.strategy, required=False)
    form.count("symbols", len(request.symbols), 0, HEADROOM_SYMBOLS_MAX)
    for i, symbol in enumerate(request.symbols[:HEADROOM_SYMBOLS_MAX]):
        form.name(f"symbols[{i}]", symbol)
    form.done()
    return account, strategy, tuple(request.symbols)


def need_marks(request: risk_admin_pb2.PublishMarksRequest) -> None:
    """Raises Invalid unless the message holds 1 to 1,000 marks."""
    form = Form()
    form.count("marks", len(request.marks), 1, MARKS_MAX)
    form.done()
