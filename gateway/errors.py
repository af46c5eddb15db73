"""What can go wrong around the store, in the gateway's own words.

Only exceptions live here: each means that no decision was made. A refusal of an order is a value and never
one of these. Foreign errors (redis, sockets) are translated into them once, where they appear, with `from`;
`rpc/status` alone maps them to gRPC codes.
"""


class StoreError(Exception):
    """Anything that keeps the store from doing its part."""


class StoreUnavailable(StoreError):
    """The store did not answer in time or can't serve now. The outcome of a write is unknown; trying again is safe."""


class StoreRefused(StoreError):
    """The store answers, but its settings, permissions or contents forbid to build on it. Trying again won't help."""


class StoreMissing(StoreError):
    """No server binary for the private store on this machine; a store of one's own is given by --redis-url."""


class StoreInUse(StoreError):
    """Another process holds the data directory; two stores on one directory would run, blind to each other."""


class DeadlinePassed(Exception):
    """The caller's deadline left no time for a decision. None was made, or its outcome is not known here: asking again
    with the same id is safe."""


class UnknownAccount(Exception):
    """No AccountOpened was ever recorded for it."""

    def __init__(self, account: str) -> None:
        super().__init__(f"account {account!r} is not open; operators open it with ReportAccountEvent")
        self.account = account


class IdReused(Exception):
    """A client_order_id came again with other contents."""

    def __init__(self, client_order_id: str) -> None:
        super().__init__(f"client_order_id {client_order_id!r} was used for another order; use a new id")
        self.client_order_id = client_order_id


class Overloaded(Exception):
    """An account's queue is full."""


class AnalyticsAway(Exception):
    """No worker can be reached that answers questions. The text says what to do."""


class Draining(Exception):
    """This process is shutting down and takes no new requests."""
