"""The client library: ask the gateway before trading, report after, follow, stop.

It needs grpcio and protobuf alone and imports nothing else of this project but the generated messages. `RiskClient`
blocks, `AsyncRiskClient` is for asyncio; both retry under the same ids within a deadline, and drop approvals that must
not be acted on any more. A refusal is a `Verdict`; an exception is a `RiskError`.

    with RiskClient("127.0.0.1:50051", account="ALPHA", strategy="mm") as risk:
        verdict = risk.buy("AAPL", 10, limit_price=131)
        if verdict:
            send(verdict.quantity, verdict.approval)
"""

from gateway.client.asynchronous import AsyncRiskClient, Instructions
from gateway.client.attempts import Patience, World
from gateway.client.blocking import RiskClient
from gateway.client.errors import CallFailed, OutcomeUnknown, RiskError
from gateway.client.values import (
    Alert,
    Basket,
    Cause,
    Check,
    Disconnected,
    FlattenOrder,
    Headroom,
    Heartbeat,
    Instruction,
    LimitUse,
    OpenOrder,
    Order,
    Position,
    Prior,
    Report,
    Reported,
    Resumed,
    RiskState,
    Side,
    StateChange,
    Stopped,
    Update,
    Verdict,
)

__all__ = [
    "Alert",
    "AsyncRiskClient",
    "Basket",
    "CallFailed",
    "Cause",
    "Check",
    "Disconnected",
    "FlattenOrder",
    "Headroom",
    "Heartbeat",
    "Instruction",
    "Instructions",
    "LimitUse",
    "OpenOrder",
    "Order",
    "OutcomeUnknown",
    "Patience",
    "Position",
    "Prior",
    "Report",
    "Reported",
    "Resumed",
    "RiskClient",
    "RiskError",
    "RiskState",
    "Side",
    "StateChange",
    "Stopped",
    "Update",
    "Verdict",
    "World",
]
