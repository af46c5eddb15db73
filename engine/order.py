"""An order as the engine judges it, and the words of a verdict.

Quantities and prices are still the caller's numbers here; `decide` puts them on the grid of lots and ticks, because
being off the grid is a refusal that is logged and not an error of the call.
"""

import enum
import hashlib

import msgspec

from engine.control import NOBODY, Sender


class Side(enum.IntEnum):
    BUY = 1
    SELL = 2
    SELL_SHORT = 3

    sign: int
    """+1 buy, -1 sell."""

    def __new__(cls, value: int) -> "Side":
        side = int.__new__(cls, value)
        side._value_ = value
        side.sign = 1 if value == 1 else -1
        return side


class OrderType(enum.IntEnum):
    MARKET = 1
    LIMIT = 2
    STOP = 3
    STOP_LIMIT = 4


class TimeInForce(enum.IntEnum):
    DAY = 1
    GTC = 2
    IOC = 3
    FOK = 4
    GTD = 5
    AT_OPEN = 6
    AT_CLOSE = 7


class Action(enum.IntEnum):
    """What a verdict does, in order of strictness: the strictest of all checks wins."""

    ALLOW = 1
    WARN = 2
    REDUCE = 3
    REJECT = 4
    HALT = 5

    @property
    def allows(self) -> bool:
        return self <= Action.REDUCE


class Reason(enum.IntEnum):
    """The violated rule, in order of precedence: the verdict names the first. Numbers are those of the contract, and
    say nothing of precedence: that is `rank`."""

    rank: int
    """Place in the order of precedence, 0 first."""

    def __new__(cls, value: int) -> "Reason":
        reason = int.__new__(cls, value)
        reason._value_ = value
        reason.rank = len(cls.__members__)
        return reason

    NONE = 1
    SUPERSEDED_BY_STOP = 2
    TRADING_HALTED = 3
    CANCEL_ONLY = 4
    REDUCE_ONLY = 5
    INSTRUMENT_UNKNOWN = 6
    INSTRUMENT_NOT_PERMITTED = 7
    INSTRUMENT_EXPIRED = 8
    LOT_SIZE = 9
    TICK_SIZE = 10
    ORDER_TYPE_NOT_PERMITTED = 11
    TIME_IN_FORCE_NOT_PERMITTED = 12
    REDUCE_ONLY_ORDER = 13
    REPLACED_ORDER_UNKNOWN = 14
    REPLACED_ORDER_FILLED = 55
    IDENTITY_MISSING = 80
    SHORT_SALE_UNMARKED = 56
    LIMIT_MISSING = 15
    QUANTITY_MIN = 39
    ORDER_VALUE_MIN = 40
    RESTRICTED = 41
    EVENT_BLACKOUT = 100
    MARKET_PHASE = 42
    SESSION_MISSING = 16
    MARK_MISSING = 17
    MARK_STALE = 18
    MARK_UNREASONABLE = 19
    FX_MISSING = 20
    EQUITY_NOT_POSITIVE = 21
    MODEL_MISSING = 22
    MODEL_STALE = 23
    HISTORY_MISSING = 24
    FACTOR_MISSING = 25
    BETA_MISSING = 43
    AVERAGE_DAILY_QUANTITY_MISSING = 44
    EVENTS_UNKNOWN = 101
    MEASURE_NOT_FINITE = 26
    ORDER_RATE = 27
    CANCEL_RATE = 70
    MODIFY_RATE = 71
    ORDER_TO_TRADE = 72
    SESSION_ORDERS = 73
    SESSION_TRADES = 74
    UNATTENDED_EXECUTIONS = 75
    VENUE_REJECTS = 76
    LOSS_STREAK = 77
    AGENT_SILENCE = 78
    DUPLICATE_ORDER = 45
    SELF_MATCH = 79
    OPEN_ORDERS = 46
    ORDER_QUANTITY = 28
    ORDER_VALUE = 29
    PRICE_COLLAR = 47
    PRICE_COLLAR_PASSIVE = 48
    ADV_SHARE = 49
    TRADED_QUANTITY = 50
    TRADED_VALUE = 51
    POSITION = 30
    SHORT_POSITION = 57
    OPEN_POSITIONS = 52
    GROSS_EXPOSURE = 31
    NET_EXPOSURE = 53
    BETA_EXPOSURE = 54
    CONCENTRATION = 32
    CLUSTER_EXPOSURE = 106
    LEVERAGE = 33
    MARGIN = 90
    DELTA = 92
    GAMMA = 93
    THETA = 94
    VEGA = 95
    DAILY_LOSS = 60
    WEEKLY_LOSS = 61
    DRAWDOWN = 62
    DRAWDOWN_BREAKER = 63
    PROFIT = 64
    VAR = 34
    EXPECTED_SHORTFALL = 35
    STRESS_LOSS = 36
    RISK_BUDGET = 91
    VOLATILITY = 105
    STRATEGY_CORRELATION = 107
    BASKET_LEG_REFUSED = 37
    NOT_A_REDUCTION = 38


IDENTITIES = ("algo", "trader", "desk", "client", "venue")
"""Who stands behind an order, in the order of `Order.identity`."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """What somebody wants to do. Quantity > 0 in units of the instrument; prices in its currency."""

    account: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: float
    order_type: OrderType
    time_in_force: TimeInForce
    strategy: str = ""
    limit_price: float | None = None
    stop_price: float | None = None
    reduce_only: bool = False
    all_or_none: bool = False
    replaces_client_order_id: str = ""
    valid_for_us: int | None = None
    """How long the approval may be used; None: it never expires."""
    algo_id: str = ""
    trader_id: str = ""
    desk_id: str = ""
    client_id: str = ""
    venue: str = ""

    @property
    def is_identified(self) -> bool:
        """Whether it says who stands behind it."""
        return bool(self.trader_id or self.algo_id or self.desk_id or self.client_id or self.venue)

    @property
    def identity(self) -> tuple[str, str, str, str, str]:
        """Algorithm, trader, desk, client and venue; empty: not told."""
        return self.algo_id, self.trader_id, self.desk_id, self.client_id, self.venue

    @property
    def identities(self) -> dict[str, str]:
        """`identity` by kind."""
        return dict(zip(IDENTITIES, self.identity, strict=True))

    @property
    def sender(self) -> Sender:
        return Sender(self.algo_id, self.trader_id, self.desk_id) if self.is_identified else NOBODY

    @property
    def digest(self) -> str:
        """blake2b-16 over every field: the same id with another digest is another order (ALREADY_EXISTS)."""
        kept: str | None = self.__dict__.get("digest")  # functools.cached_property takes a lock in Python 3.11
        if kept is None:
            kept = self.__dict__["digest"] = hashlib.blake2b(_ENCODER.encode(self), digest_size=16).hexdigest()
        return kept


_ENCODER = msgspec.json.Encoder()
