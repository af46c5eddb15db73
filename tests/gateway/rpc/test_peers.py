"""A stop that the store has not heard, passed on between real servers: who is told, who believes it, and who is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from engine.control import Scope, TradingState, decode_control
from gateway.accounts import Accounts
from gateway.clock import StoreClock
from gateway.config import ServerSettings
from gateway.log.account_log import PARTITIONS, AccountLog, partition_of
from gateway.log.memory import MemoryLog
from gateway.pending_stops import PendingStop
from gateway.rpc.approval import Approvals
from gateway.rpc.backend import Backend, Deadlines
from gateway.rpc.caller import Callers, known
from gateway.rpc.peers import FORGOTTEN_US, HEADER, Peers, forwarded, others, pass_on, reachable_host
from gateway.stopping import Stopper
from riskgateway.v1 import decision_pb2, risk_gateway_pb2
from tests.gateway.faults import AwayInPart, CutOff
from tests.gateway.rpc.serving import ACCOUNT, KEY, QUICK, Served, open_for_trading, order, served

EVERYTHING = risk_gateway_pb2.StopAllRequest(reason="fire")
STOP = PendingStop("a1", Scope(), TradingState.HALTED, "fire", "ann", 1, tuple(range(PARTITIONS)), 5, 0)
TOKEN = (("authorization", "Bearer secret"),)


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the service, with its own connection to the store."""

    served: Served
    store: CutOff
    peers: Peers


@contextlib.asynccontextmanager
async def member(
    log: AccountLog, store_clock: list[int], folder: Path, control: bool = False, key: bytes = KEY
) -> AsyncIterator[Member]:
    """A gateway or a control process that knows nobody yet; callers need a token, also on this machine."""
    store, clock, approvals = CutOff(log), StoreClock(lambda: store_clock[0], store_clock[0]), Approvals(key)
    accounts, peers = Accounts(store, clock), Peers(store.bulletin, clock, approvals)
    stopper = Stopper(store, accounts.shelf, tell=peers.tell)
    await accounts.start()
    callers = Callers([known("ann", ["operator", "trader", "feed"], "secret")], local_operator=False)
    backend = Backend(store, accounts, stopper, callers, approvals, Deadlines(), QUICK)
    async with served(backend, folder, control) as running:
        yield Member(running, store, peers)
    await peers.aclose()
    await stopper.aclose()
    await accounts.aclose()


@pytest.fixture
async def gateway(memory_log: MemoryLog, store_clock: list[int], folder: Path) -> AsyncIterator[Member]:
    """Open for trading."""
    async with member(memory_log, store_clock, folder) as running:
        yield running


@pytest.fixture
async def control(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member
) -> AsyncIterator[Member]:
    """It knows the gateway, and nobody else."""
    async with member(memory_log, store_clock, folder, control=True) as running:
        running.peers.start("control", 1, [gateway.served.address])
        yield running


async def stopped(process: Member, request: risk_gateway_pb2.StopAllRequest = EVERYTHING) -> str:
    """Why the stop is incomplete."""
    with pytest.raises(grpc.aio.AioRpcError) as incomplete:
        await process.served.gateway.StopAll(request, metadata=TOKEN)
    assert incomplete.value.code() is grpc.StatusCode.UNAVAILABLE
    return incomplete.value.details() or ""


async def check(process: Member, client_order_id: str) -> risk_gateway_pb2.CheckOrderResponse:
    request = risk_gateway_pb2.CheckOrderRequest(order=order(client_order_id))
    response: risk_gateway_pb2.CheckOrderResponse = await process.served.gateway.CheckOrder(request, metadata=TOKEN)
    return response


async def open_account(log: MemoryLog, store_clock: list[int], folder: Path) -> None:
    accounts = Accounts(log, StoreClock(lambda: store_clock[0], store_clock[0]))
    await accounts.start()
    backend = Backend(log, accounts, Stopper(log), Callers([], True), Approvals(KEY), Deadlines(), QUICK)
    (folder / "opening").mkdir()
    async with served(backend, folder / "opening", control=True) as opening:
        await open_for_trading(opening.admin, backend)
    await accounts.aclose()


async def test_a_control_process_that_is_cut_off_stops_a_gateway_that_is_not(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member, control: Member
) -> None:
    await open_account(memory_log, store_clock, folder)
    before = await check(gateway, "before")
    control.store.away = True

    why = await stopped(control)
    refused = await check(gateway, "after")

    assert before.allowed
    assert "64 of 64 partitions" in why and "told 1 of 1 other gateways directly" in why
    assert refused.reason == decision_pb2.REASON_TRADING_HALTED
    (told,) = decode_control((await memory_log.read_control(0)).state).stops
    assert (told.actor, told.reason, told.rank) == ("ann", "fire", 1)


async def test_what_the_gateway_has_carried_out_control_finds_done(
    memory_log: MemoryLog, gateway: Member, control: Member
) -> None:
    control.store.away = True
    await stopped(control)
    epochs = [stored.head.epoch for stored in await memory_log.read_controls()]

    control.store.away = False
    async with asyncio.timeout(10):
        while control.served.backend.stopper.unfinished:  # noqa: ASYNC110  - it tells nobody
            await asyncio.sleep(0)

    assert [stored.head.epoch for stored in await memory_log.read_controls()] == epochs


async def test_with_nobody_connected_every_gateway_that_was_told_approves_nothing(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member, control: Member
) -> None:
    await open_account(memory_log, store_clock, folder)
    control.store.away = gateway.store.away = True

    why = await stopped(control, risk_gateway_pb2.StopAllRequest(account="SOMEBODY", reason="fire"))
    gateway.store.away = False
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await check(gateway, "after")

    assert "told 1 of 1 other gateways directly" in why
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "a stop is being carried out" in (refused.value.details() or "")


async def test_an_order_that_was_being_decided_when_the_stop_came_is_not_approved(
    memory_log: MemoryLog, store_clock: list[int], folder: Path
) -> None:
    await open_account(memory_log, store_clock, folder)
    in_part = AwayInPart(memory_log, {partition_of("SOMEBODY")})
    async with member(in_part, store_clock, folder) as gateway:
        gateway.store.away = True
        asking = asyncio.create_task(check(gateway, "during"))
        await asyncio.wait([asking], timeout=0.05)
        await stopped(gateway, risk_gateway_pb2.StopAllRequest(account="SOMEBODY"))
        gateway.store.away = False

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asking

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "a stop is being carried out" in (refused.value.details() or "")


async def test_a_complete_stop_is_passed_on_to_nobody(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member, control: Member
) -> None:
    gateway.store.away = True

    await control.served.gateway.StopAll(EVERYTHING, metadata=TOKEN)

    assert not gateway.served.backend.stopper.unfinished


async def test_who_is_not_there_is_not_counted_as_told(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member
) -> None:
    async with member(memory_log, store_clock, folder, control=True) as control:
        nobody = f"unix:{folder / 'nobody'}"
        control.peers.start("control", 1, [gateway.served.address, nobody])
        control.store.away = True

        assert "told 1 of 2 other gateways directly" in await stopped(control)


class Stranger(grpc.GenericRpcHandler):
    """Somebody else's server, at an address that a gateway had."""

    def __init__(self, details: bytes) -> None:
        self._details = details

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def refuse(request: bytes, context: Any) -> None:
            trailers = (("grpc-status-details-bin", self._details),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no", trailers)

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.mark.parametrize("details", [b"", b"\xff\xff"])
async def test_a_stranger_at_a_gateways_address_is_not_counted_as_told(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member, details: bytes
) -> None:
    server, address = grpc.aio.server(), f"unix:{folder / 'stranger'}"
    server.add_generic_rpc_handlers((Stranger(details),))
    server.add_insecure_port(address)
    await server.start()
    async with member(memory_log, store_clock, folder, control=True) as control:
        control.peers.start("control", 1, [gateway.served.address, address])
        control.store.away = True

        assert "told 1 of 2 other gateways directly" in await stopped(control)
    await server.stop(0.0)


async def test_a_stop_is_believed_only_with_the_same_approval_key(
    memory_log: MemoryLog, store_clock: list[int], folder: Path, gateway: Member
) -> None:
    async with member(memory_log, store_clock, folder, control=True, key=b"x" * 32) as stranger:
        stranger.peers.start("stranger", 1, [gateway.served.address])
        stranger.store.away = True

        assert "told 0 of 1 other gateways directly" in await stopped(stranger)
        assert not gateway.served.backend.stopper.unfinished


@pytest.mark.parametrize("header", [b"", b"{}", b"\xff", b'{"id":"a1"}'])
async def test_a_made_up_header_is_refused(gateway: Member, header: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.served.gateway.StopAll(EVERYTHING, metadata=(*TOKEN, (HEADER, header)))

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not gateway.served.backend.stopper.unfinished


def test_a_stop_arrives_as_it_was_passed_on() -> None:
    stop = PendingStop(
        "a1",
        Scope("alpha", "s", "€/$", "vwap", "jane", "fx"),
        TradingState.REDUCE_ONLY,
        "a\u2028b € " + "c" * 2_000,
        "añn",
        2,
        (3,),
        5,
        4,
    )
    request, header = pass_on(stop, Approvals(KEY))

    arrived = forwarded(request, [(HEADER, header)], Approvals(KEY))

    assert arrived is not None
    assert arrived.reason.startswith("a") and len(arrived.reason) <= 1_000
    assert msgspec.structs.replace(arrived, reason="", missing=(3,)) == msgspec.structs.replace(stop, reason="")


def test_nothing_of_a_stop_can_be_changed_on_its_way() -> None:
    approvals = Approvals(KEY)
    request, header = pass_on(STOP, approvals)
    wider = risk_gateway_pb2.StopAllRequest(account=ACCOUNT, mode=request.mode, reason=request.reason)

    for changed, sealed in ((wider, header), (request, header.replace(b'"rank":1', b'"rank":9'))):
        with pytest.raises(Exception, match="approval key"):
            forwarded(changed, [(HEADER, sealed)], approvals)


# -- how others become known


async def announced(peers: Peers, *expected: str) -> None:
    async with asyncio.timeout(10):
        while peers.known != set(expected):  # noqa: ASYNC110  - it tells nobody whom it has heard of
            await asyncio.sleep(0.01)


async def test_processes_find_each_other_and_remember_each_other_without_the_store(
    memory_log: MemoryLog, store_clock: list[int]
) -> None:
    clock, approvals = StoreClock(lambda: store_clock[0], store_clock[0]), Approvals(KEY)
    bulletin: Any = CutOff(memory_log.bulletin)
    one, two = Peers(memory_log.bulletin, clock, approvals), Peers(bulletin, clock, approvals)
    hidden = Peers(memory_log.bulletin, clock, approvals)
    try:
        one.start("one", 50051)
        two.start("two", 50052, ["three:1"])
        hidden.start("", 50051)
        await announced(one, "two:50052")
        await announced(two, "one:50051", "three:1")
        await announced(hidden, "one:50051", "two:50052")

        bulletin.away = True
        await asyncio.wait_for(bulletin.refused.wait(), 10)
        store_clock[0] += FORGOTTEN_US + 1
        await announced(one)
        assert two.known == {"one:50051", "three:1"}
    finally:
        for peers in (one, two, hidden):
            await peers.aclose()


@pytest.mark.parametrize(
    ("settings", "reachable", "told"),
    [
        ({}, "127.0.0.1", {"127.0.0.1:50051", "127.0.0.1:50052"}),
        ({"host": "10.0.0.7", "peers": ("a:1",)}, "10.0.0.7", {"10.0.0.7:50051", "10.0.0.7:50052", "a:1"}),
        ({"host": "0.0.0.0"}, "", {"127.0.0.1:50051", "127.0.0.1:50052"}),
        ({"host": "0.0.0.0", "advertised_host": "gw1"}, "gw1", {"gw1:50051", "gw1:50052"}),
    ],
)
def test_where_a_process_is_found_is_configured(settings: dict[str, object], reachable: str, told: set[str]) -> None:
    server = ServerSettings.model_validate(settings)

    assert reachable_host(server) == reachable
    assert others(server, is_supervised=True) == told
    assert others(server, is_supervised=False) == set(server.peers)
