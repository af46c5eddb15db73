"""What a caller of the client has to deal with, by what it has to do about it.

A refused order is no error: it is a `Verdict`. An error means that there is no verdict: either none was made
(`CallFailed`), or nobody can say yet (`OutcomeUnknown`). gRPC's own exceptions never leave the client.
"""

import grpc


class RiskError(Exception):
    """Anything that kept the gateway from answering, or the answer from being understood."""


class CallFailed(RiskError):
    """The call was refused or could not be made: it left nothing behind. Repeating it unchanged helps only where
    `code` is UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED."""

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        ids: tuple[str, ...] = (),
        reason: str = "",
        fields: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.ids = ids
        """Of the orders or reports that the call was about, in its order."""
        self.reason = reason
        """The gateway's word for it, e.g. "ORDER_ID_REUSED"; empty: it gave none."""
        self.fields = fields
        """(path of a field, what was expected of it), where the request was malformed."""


class OutcomeUnknown(CallFailed):
    """The time is up and no answer came: what was asked for may have happened. Asking again for the same thing with
    the same ids (`ids`, `client_order_id`) is safe and finds out. A stop and a resume have no ids: a stop may be made
    again; before a resume look at the trading state, since it lifts what was stopped meanwhile too."""

    @property
    def client_order_id(self) -> str:
        """The first of the ids: of the order, where one was asked about."""
        return self.ids[0] if self.ids else ""
