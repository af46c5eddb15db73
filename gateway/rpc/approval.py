"""The token on an approval: proof for an adapter that this order, in this quantity, was allowed here and until when.

HMAC-SHA256 over the order's digest, the allowed lots, the control epoch and the expiry. It says nothing of what came
after: an adapter also drops approvals of a lower epoch than the newest that it has seen.
"""

import hmac
import struct
from dataclasses import dataclass

VERSION = 1
KEY_BYTES_MIN = 32
_BODY = struct.Struct(">B16sqqq")  # version, digest, lots, epoch, expiry in µs (0: never)
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Approval:
    """What a token vouches for."""

    digest: str
    """Of the order: `Order.digest`."""
    lots: int
    epoch: int
    expires_us: int | None
    """On the store's clock; None: never."""


class Approvals:
    """Signs and verifies. `key`: at least 32 random bytes, the same for every gateway and adapter."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"expected an approval key of at least {KEY_BYTES_MIN} bytes, got {len(key)}")
        self._key = key

    def sign(self, approval: Approval) -> bytes:
        body = _BODY.pack(
            VERSION, bytes.fromhex(approval.digest), approval.lots, approval.epoch, approval.expires_us or 0
        )
        return body + self._mac(body)

    def verify(self, token: bytes, digest: str, lots: int, epoch_min: int, now_us: int) -> str | None:
        """Why `lots` of the order with this digest may not be sent on this token, or None if they may."""
        approval = self.read(token)
        if approval is None:
            return "the token was not signed with this key"
        if approval.digest != digest:
            return "the token is of another order"
        if lots > approval.lots:
            return f"{lots} lots are more than the {approval.lots} approved"
        if approval.epoch < epoch_min:
            return f"approved at epoch {approval.epoch}, before a change at epoch {epoch_min}"
        if approval.expires_us is not None and now_us > approval.expires_us:
            return "the approval has expired"
        return None

    def read(self, token: bytes) -> Approval | None:
        """What a token vouches for; None unless it was signed with this key."""
        body, mac = token[: _BODY.size], token[_BODY.size :]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, self._mac(body)) or body[0] != VERSION:
            return None
        _, digest, lots, epoch, expires_us = _BODY.unpack(body)
        return Approval(digest.hex(), lots, epoch, expires_us or None)

    def seal(self, purpose: bytes, content: bytes) -> bytes:
        """A MAC over what is no approval, for another process that holds the key. Never one that an approval has."""
        return hmac.digest(self._mac(purpose), content, "sha256")

    def sealed(self, purpose: bytes, content: bytes, seal: bytes) -> bool:
        """Whether a holder of the key has sealed this."""
        return hmac.compare_digest(self.seal(purpose, content), seal)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")
