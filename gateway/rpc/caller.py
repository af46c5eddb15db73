"""Who calls, and what they may do.

A caller is a name with roles, known by a bearer token of which only the hash is kept. Without a token, someone on this
machine is an operator where no real money is at stake (demo, paper); everybody else is refused.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import unquote

import grpc.aio

Role = Literal["trader", "execution", "feed", "operator", "viewer"]
"""Trader: checks orders. Execution: reports. Feed: publishes marks. Operator: stops, resumes, the rest of RiskAdmin.
Viewer: reads, as everybody with any role may."""

ROLES: frozenset[Role] = frozenset(get_args(Role))
BEARER = "Bearer "
LOCAL_NAME = "local"
OPERATOR_RANK = 1
"""Of an operator's stops and resumes: a resume lifts stops of its own rank and below."""


class Unauthenticated(Exception):
    """No token where one is needed, or one that nobody has."""


class Denied(Exception):
    """The caller is known and lacks the role. `needed`: one of these would do."""

    def __init__(self, name: str, needed: frozenset[Role]) -> None:
        super().__init__(f"caller {name!r} needs the role {' or '.join(sorted(needed))}")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    roles: frozenset[Role]

    @property
    def rank(self) -> int:
        return OPERATOR_RANK if "operator" in self.roles else 0

    def need(self, *roles: Role) -> None:
        """Raises Denied unless the caller has one of the roles."""
        if self.roles.isdisjoint(roles):
            raise Denied(self.name, frozenset(roles))


@dataclass(frozen=True, slots=True)
class Known:
    """A caller and the SHA-256 of its token."""

    caller: Caller
    token_hash: bytes


def known(name: str, roles: Iterable[Role], token: str) -> Known:
    return Known(Caller(name, frozenset(roles)), hash_of(token))


def hash_of(token: str) -> bytes:
    """Tokens are long random strings, so a plain hash of them can't be guessed back."""
    return hashlib.sha256(token.encode()).digest()


class Callers:
    """Everyone who may connect. `local_operator`: in demo and paper someone on this machine needs no token."""

    def __init__(self, callers: Sequence[Known], local_operator: bool) -> None:
        self._known = tuple(callers)
        self._local = Caller(LOCAL_NAME, ROLES) if local_operator else None

    def of(self, context: "grpc.aio.ServicerContext[Any, Any]") -> Caller:
        """The caller of an RPC. Raises Unauthenticated."""
        return self.identify(dict(context.invocation_metadata() or ()), context.peer())

    def identify(self, metadata: Mapping[str, str | bytes], peer: str) -> Caller:
        """`peer` as gRPC names it. A wrong token is refused, also where none would have been needed."""
        authorization = metadata.get("authorization")
        if authorization is not None:
            return self._by_token(authorization)
        if self._local is not None and is_local(peer):
            return self._local
        raise Unauthenticated("expected the metadata 'authorization: Bearer <token>', got none")

    def _by_token(self, authorization: str | bytes) -> Caller:
        if not isinstance(authorization, str) or not authorization.startswith(BEARER):
            raise Unauthenticated("expected the metadata 'authorization: Bearer <token>', got another scheme")
        given = hash_of(authorization.removeprefix(BEARER).strip())
        found = [entry.caller for entry in self._known if hmac.compare_digest(entry.token_hash, given)]
        if not found:
            raise Unauthenticated("the token is not one of those configured")
        return found[0]


def is_local(peer: str) -> bool:
    """Whether gRPC's name of the other end is this machine: a unix socket, 127.0.0.0/8 or ::1."""
    scheme, _, address = unquote(peer).partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme == "ipv4":
        return address.startswith("127.")
    return scheme == "ipv6" and address.startswith(("[::1]:", "[::ffff:127."))
