"""An order as the engine judges it, and the words of a verdict.

Quantities and prices are still the caller's numbers here; `decide` puts them on the grid of lots and ticks, because
being off the grid is a refusal that is logged and not an error of the call.
"""

import enum
import hashlib

import msgspec


class Side(enum.IntEnum):
    BUY = 1
    SELL = 2
    SELL_SHORT = 3

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1


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
    """The violated rule, in order of precedence: the verdict names the first. Numbers are those of the contract."""

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
    LIMIT_MISSING = 15
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
    MEASURE_NOT_FINITE = 26
    ORDER_RATE = 27
    ORDER_QUANTITY = 28
    ORDER_VALUE = 29
    POSITION = 30
    GROSS_EXPOSURE = 31
    CONCENTRATION = 32
    LEVERAGE = 33
    VAR = 34
    EXPECTED_SHORTFALL = 35
    STRESS_LOSS = 36
    BASKET_LEG_REFUSED = 37
    NOT_A_REDUCTION = 38


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
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


_ENCODER = msgspec.json.Encoder()


def digest_of(order: Order) -> str:
    """blake2b-16 over every field: the same id with another digest is another order (ALREADY_EXISTS)."""
    return hashlib.blake2b(_ENCODER.encode(order), digest_size=16).hexdigest()
