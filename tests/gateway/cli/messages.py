"""Messages as a gateway would send them, in a line each, for tests of what is shown."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from riskgateway.v1 import account_pb2, control_pb2, decision_pb2, limit_pb2, order_pb2, risk_gateway_pb2

NOON = Timestamp(seconds=1_700_049_600)  # 2023-11-15 12:00:00 UTC


def state(account: str = "ALPHA", **fields: Any) -> account_pb2.RiskState:
    """An account that may trade, worth a million."""
    defaults: dict[str, Any] = {
        "sequence": 7,
        "state_time": NOON,
        "trading_state": control_pb2.TRADING_STATE_ACTIVE,
        "base_currency": "USD",
        "equity": 1_000_000.0,
        "session_date": "2023-11-15",
        "session_pnl": 1_234.0,
        "drawdown": 0.0123,
        "drawdown_session": 0.0045,
        "drawdown_since_reset": 0.0067,
        "gross_exposure": 500_000.0,
        "net_exposure": -20_000.0,
    }
    return account_pb2.RiskState(account=account, **(defaults | fields))


def use(measure: str, used: float, status: str = "OK", **fields: Any) -> limit_pb2.LimitUse:
    """A limit of 20 % of equity on the account, `used` of it."""
    defaults: dict[str, Any] = {
        "scope": "account:ALPHA",
        "value": 0.2 * used,
        "limit": 0.2,
        "unit": "ratio",
        "utilization": used,
        "headroom": 0.2 - 0.2 * used,
        "status": limit_pb2.LimitStatus.Value(f"LIMIT_STATUS_{status}"),
    }
    return limit_pb2.LimitUse(measure=measure, **(defaults | fields))


def recent(sequence: int, action: str = "ALLOW", **fields: Any) -> account_pb2.RecentDecision:
    """A decision on a buy of 10 AAPL."""
    defaults: dict[str, Any] = {
        "decide_time": Timestamp(seconds=NOON.seconds + sequence),
        "client_order_id": f"o{sequence}",
        "symbol": "AAPL",
        "side": order_pb2.SIDE_BUY,
        "quantity": 10.0,
        "action": decision_pb2.Action.Value(f"ACTION_{action}"),
        "reason": decision_pb2.REASON_NONE,
    }
    return account_pb2.RecentDecision(sequence=sequence, **(defaults | fields))


def open_order(number: int, account: str = "ALPHA") -> order_pb2.OpenOrder:
    return order_pb2.OpenOrder(
        account=account,
        client_order_id=f"o{number}",
        symbol="AAPL",
        side=order_pb2.SIDE_BUY,
        quantity=10.0,
        leaves_quantity=4.0,
        state=order_pb2.OPEN_ORDER_STATE_PARTIAL,
        approve_time=NOON,
    )


def instruction(number: int, **fields: Any) -> account_pb2.OutstandingInstruction:
    defaults: dict[str, Any] = {
        "kind": "cancel",
        "client_order_id": f"o{number}",
        "status": "unanswered",
        "reason": decision_pb2.REASON_POSITION,
        "message": "the limit is 5 now",
        "instruct_time": NOON,
    }
    return account_pb2.OutstandingInstruction(instruction_id=f"i{number}", **(defaults | fields))


def news(told: account_pb2.RiskState) -> risk_gateway_pb2.RiskStateUpdate:
    return risk_gateway_pb2.RiskStateUpdate(risk_state=told)


def heartbeat(store_available: bool = True) -> risk_gateway_pb2.RiskStateUpdate:
    return risk_gateway_pb2.RiskStateUpdate(heartbeat=risk_gateway_pb2.Heartbeat(store_available=store_available))
