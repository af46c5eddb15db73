"""What more gateways bring, and what they cost each other: 1, 2 and 4 on one store, for one hot account that all
decide, and for as many accounts as gateways.

Ratios within one run: machine, store and load generators share the same few cores, so that the second table says less
about what more machines would do than the first says about contention. Small by default; BENCH=full takes minutes.
Nothing is asserted of the figures, but that every gateway got its orders decided and that the log holds.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.benchmarks.test_serving import LIMITS, LOAD_TIMEOUT_S, quantile
from tests.e2e.configuration import SETTINGS, own_environment
from tests.e2e.desk import desk
from tests.e2e.ledger import read_ledger
from tests.e2e.machine import ROOT, Machine

FULL = os.environ.get("BENCH") == "full"
ORDERS = 4_000 if FULL else 200
"""Of each run, all gateways together."""

IN_FLIGHT = 32
"""Of each run, all gateways together."""

COUNTS = (1, 2, 4) if FULL else (1, 2)
HEADER = f"{'':<34}{'per s':>8}{'p50 µs':>10}{'p99 µs':>10}{'worst µs':>10}   orders a second through each gateway"


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(SETTINGS + LIMITS, own_environment(), tmp_path_factory.mktemp("gateways"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(900)
async def test_more_gateways(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    gateways = [machine.gateway]
    while len(gateways) < max(COUNTS):
        gateways.append(await asyncio.to_thread(machine.add_gateway))
    names = [f"SPREAD{at}" for at in range(max(COUNTS))]
    async with AsyncExitStack() as stack:
        hot = await stack.enter_async_context(desk(machine, "HOT"))
        desks = [hot, *[await stack.enter_async_context(desk(machine, name)) for name in names]]
        for one in desks:
            await one.open()
        await hot.await_model()
        lines = []
        for count in COUNTS:
            lines.append(line(f"one hot account, {count} gateways", await crowds(gateways[:count], ["HOT"] * count)))
        for count in COUNTS:
            lines.append(line(f"an account for each of {count} gateways", await crowds(gateways[:count], names)))
        state = await hot.state()
    with capsys.disabled():
        print("", HEADER, *lines, sep="\n")
    assert state.counters.active_breaches == 0
    decided = sum(1 for _ in (await read_ledger(machine, "HOT")).decisions())
    assert decided == len(COUNTS) * (ORDERS // max(COUNTS) * max(COUNTS)), "an order was lost or decided twice"


async def crowds(gateways: Sequence[str], accounts: Sequence[str]) -> list[dict[str, Any]]:
    """What the load generators said: one for each gateway, all at once, the same work in all."""
    share, crowd = ORDERS // max(COUNTS) * max(COUNTS) // len(gateways), IN_FLIGHT // len(gateways)
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.load", gateway, account, str(crowd), str(share)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        for gateway, account in zip(gateways, accounts, strict=False)
    ]
    async with asyncio.timeout(LOAD_TIMEOUT_S):
        said = await asyncio.gather(*(one.communicate() for one in running))
    return [json.loads(output.splitlines()[-1]) for output, _ in said]


def line(what: str, said: Sequence[dict[str, Any]]) -> str:
    assert all(set(one["actions"]) <= {"ACTION_ALLOW"} for one in said), [one["actions"] for one in said]
    times_us = [time_us for one in said for time_us in one["latencies_us"]]
    each = [len(one["latencies_us"]) / one["took_s"] for one in said]
    total = len(times_us) / max(one["took_s"] for one in said)
    p50, p99 = quantile(times_us, 0.5), quantile(times_us, 0.99)
    shares = " ".join(f"{rate:,.0f}" for rate in each)
    return f"{what:<34}{total:>8,.0f}{p50:>10,}{p99:>10,}{max(times_us):>10,}   {shares}"
