"""Who calls: tokens, roles, and who needs no token."""

import pytest

from gateway.rpc.approval import Approval, Approvals
from gateway.rpc.caller import ROLES, Callers, Denied, Unauthenticated, is_local, known
from gateway.rpc.convert.requests import order_of
from riskgateway.v1 import risk_gateway_pb2
from tests.gateway.rpc.serving import order

LOCAL = "ipv4:127.0.0.1:50000"
REMOTE = "ipv4:10.0.0.1:50000"
TRADER = known("bot", ["trader"], "token-of-bot")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (LOCAL, True),
        ("ipv4:127.8.9.1:1", True),
        ("ipv6:[::1]:1", True),
        ("ipv6:%5B::1%5D:1", True),
        ("ipv6:[::ffff:127.0.0.1]:1", True),
        ("unix:", True),
        ("unix:/run/gateway", True),
        (REMOTE, False),
        ("ipv4:1.127.0.0:1", False),
        ("ipv6:[::2]:1", False),
        ("ipv6:[fe80::1]:1", False),
        ("dns:unix:", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(peer: str, local: bool) -> None:
    assert is_local(peer) is local


def test_a_local_caller_without_a_token_is_everything_in_demo_and_paper() -> None:
    assert Callers([], local_operator=True).identify({}, LOCAL).roles == ROLES


def test_live_and_remote_callers_need_a_token() -> None:
    with pytest.raises(Unauthenticated):
        Callers([TRADER], local_operator=False).identify({}, LOCAL)
    with pytest.raises(Unauthenticated):
        Callers([TRADER], local_operator=True).identify({}, REMOTE)


def test_a_token_names_its_caller_wherever_it_comes_from() -> None:
    callers = Callers([known("other", ["viewer"], "another"), TRADER], local_operator=False)

    assert callers.identify({"authorization": "Bearer token-of-bot"}, REMOTE).name == "bot"


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer ", "", "Basic token-of-bot", "token-of-bot", b"Bearer token-of-bot"]
)
def test_a_wrong_token_is_refused_even_where_none_is_needed(authorization: str | bytes) -> None:
    with pytest.raises(Unauthenticated):
        Callers([TRADER], local_operator=True).identify({"authorization": authorization}, LOCAL)


def test_a_missing_role_is_named() -> None:
    with pytest.raises(Denied, match="'bot' needs the role operator"):
        TRADER.caller.need("operator")


def test_only_an_operator_outranks_others() -> None:
    assert known("op", ["operator"], "t").caller.rank > TRADER.caller.rank


def test_an_approval_holds_for_its_order_quantity_epoch_and_time() -> None:
    approvals = Approvals(b"k" * 32)
    digest = order_of(risk_gateway_pb2.CheckOrderRequest(order=order("A"))).digest
    token = approvals.sign(Approval(digest, 100, 7, 1_000))

    assert approvals.verify(token, digest, 100, 7, 1_000) is None
    assert approvals.verify(token, "00" * 16, 100, 7, 1_000) == "the token is of another order"
    assert approvals.verify(token, digest, 101, 7, 1_000) == "101 lots are more than the 100 approved"
    assert approvals.verify(token, digest, 100, 8, 1_000) == "approved at epoch 7, before a change at epoch 8"
    assert approvals.verify(token, digest, 100, 7, 1_001) == "the approval has expired"
    assert Approvals(b"x" * 32).verify(token, digest, 100, 7, 1_000) == "the token was not signed with this key"


def test_a_token_with_any_bit_changed_is_refused() -> None:
    approvals = Approvals(b"k" * 32)
    token = approvals.sign(Approval("00" * 16, 100, 7, None))

    for place in range(len(token)):
        changed = bytes([*token[:place], token[place] ^ 1, *token[place + 1 :]])
        assert approvals.read(changed) is None
    assert approvals.read(b"") is None
