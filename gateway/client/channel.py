"""Where a client connects to, and with what: addresses, credentials, gRPC's own settings.

Nothing is sent from here.
"""

from __future__ import annotations  # grpc's classes are generic for type checkers only

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

Metadata = tuple[tuple[str, str | bytes], ...]

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_http_proxy", 0),  # a proxy set for the web would swallow even loopback
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # a state may list thousands of orders
    # A gateway that was restarted is back within a second; gRPC's own back-off would look at it after several.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A dead connection is noticed within 20 s, also where nothing is sent; the server takes a ping each 10 s.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


WEB = ("http:", "https:")
"""Beginnings that gRPC would take for a part of the host's name, and look for it."""


@dataclass(frozen=True, slots=True)
class Dial:
    """How to connect. `address`: HOST:PORT or unix:PATH."""

    credentials: grpc.ChannelCredentials | None
    metadata: Metadata
    options: tuple[tuple[str, int | str], ...]

    def blocking(self, address: str) -> grpc.Channel:
        """Raises ValueError for what is no address."""
        _check(address)
        if self.credentials is None:
            return grpc.insecure_channel(address, options=self.options)
        return grpc.secure_channel(address, self.credentials, options=self.options)

    def asynchronous(self, address: str) -> grpc.aio.Channel:
        """Raises ValueError for what is no address."""
        _check(address)
        if self.credentials is None:
            return grpc.aio.insecure_channel(address, options=self.options)
        return grpc.aio.secure_channel(address, self.credentials, options=self.options)


def dial(
    token: str,
    credentials: grpc.ChannelCredentials | None,
    metadata: Sequence[tuple[str, str | bytes]],
    options: Sequence[tuple[str, int | str]],
) -> Dial:
    """`token`: sent as a bearer token with each call; empty: none. `options` come after ours and win."""
    bearer: Metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return Dial(credentials, (*bearer, *metadata), (*OPTIONS, *options))


def _check(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (address.startswith("unix:") or (port.isdecimal() and not host.startswith(WEB))):
        raise ValueError(f"expected the gateway's address as HOST:PORT or unix:PATH, got {address!r}")
