"""The limits of the configuration file: armed at the start, followed while control runs, and never half of them."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine.control import Control, decode_control
from engine.limits import Limit, LimitSet, ScopeKind
from gateway.arming import ConfigFile
from gateway.config import load
from gateway.errors import StoreUnavailable
from gateway.log.account_log import AccountLog
from gateway.log.memory import MemoryLog
from gateway.machine import configured_limits
from gateway.main import limits_armed
from gateway.proposals import approve_limits, propose_limits
from gateway.registry import Why, update_limits
from tests.gateway.faults import AwayInPart, Wrapped

ROW = '[[limit]]\nmeasure = "position"\nscope = "symbol"\nlimit = {}\n'
LEVERAGE = '[[limit]]\nmeasure = "leverage"\nscope = "account"\nlimit = 2.0\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "risk-gateway.toml"
    file.write_text(ROW.format(100))
    return file


@pytest.fixture
def told() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def configured(log: AccountLog, path: Path) -> ConfigFile:
    """As control has it when it starts."""
    return ConfigFile(log, path, load(path, {}), {})


async def started(log: AccountLog, path: Path) -> ConfigFile:
    file = configured(log, path)
    await file.arm_at_start()
    await look_twice(file)
    return file


def write(path: Path, text: str) -> None:
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


async def look_twice(file: ConfigFile) -> None:
    """A change is taken at the second look that finds the same."""
    await file.look()
    await file.look()


async def controls(log: AccountLog) -> list[Control]:
    return [decode_control(stored.state) for stored in await log.read_controls()]


async def in_force(log: AccountLog) -> LimitSet:
    (blob_hash,) = {control.limit_set for control in await controls(log)}
    return LimitSet.decode(await log.get_blob(blob_hash) or b"")


async def epochs(log: AccountLog) -> set[int]:
    return {stored.head.epoch for stored in await log.read_controls()}


async def update(log: AccountLog, position: float) -> str:
    before = await in_force(log)
    rows = (Limit("position", ScopeKind.SYMBOL, position),)
    return (await update_limits(log, rows, before.hash, Why("olga", "for today"))).limit_set


async def test_the_limits_of_the_file_are_armed_at_the_start(memory_log: MemoryLog, path: Path) -> None:
    await started(memory_log, path)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [100]


async def test_a_changed_file_is_armed_and_told_old_to_new(memory_log: MemoryLog, path: Path, told: list[Any]) -> None:
    file = await started(memory_log, path)

    write(path, ROW.format(150) + LEVERAGE)
    await look_twice(file)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [150, 2.0]
    changes = {entry["limit"]: (entry["change"], entry["loosened"]) for entry in told[2:] if "change" in entry}
    assert changes == {
        "position of symbol *": ("limit 100 → 150", True),
        "leverage of account": ("new: limit 2, unit equity, action reject", False),
    }


async def test_a_file_that_is_still_being_written_is_not_armed(memory_log: MemoryLog, path: Path) -> None:
    """Half of a file may be valid, with half of the limits."""
    write(path, ROW.format(100) + LEVERAGE)
    file = await started(memory_log, path)

    write(path, ROW.format(100))
    await file.look()
    write(path, ROW.format(100) + LEVERAGE.replace("2.0", "1.5"))
    await file.look()
    half_way = [row.limit for row in (await in_force(memory_log)).rows]
    await file.look()

    assert half_way == [100, 2.0]
    assert [row.limit for row in (await in_force(memory_log)).rows] == [100, 1.5]


BAD_FILES = [
    (ROW.format(100) + LEVERAGE.replace("limit =", "limt ="), "limit[1].limt: unknown key, did you mean 'limit'?"),
    (ROW.format(-1), "limit[0].limit: expected a finite number, 0 or above, got -1.0"),
    (ROW.format(100) + "limit = 7\n", "limit[0].limit: given twice (line 5)"),
    ("[server\n", "not valid TOML"),
    ("[limits]\nmarket_slipage = 1\n", "limits.market_slipage: unknown key, did you mean 'market_slippage'?"),
    ('mode = "live"\n', "mode 'live' needs [[callers]]"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_FILES, ids=[problem.partition(":")[0] for _, problem in BAD_FILES])
async def test_a_bad_file_keeps_the_old_set_and_says_why_once(
    memory_log: MemoryLog, path: Path, told: list[Any], text: str, problem: str
) -> None:
    file = await started(memory_log, path)
    before = await epochs(memory_log)

    write(path, text)
    for _ in range(3):
        await look_twice(file)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [100]
    assert await epochs(memory_log) == before
    problems = [entry["problem"] for entry in told if entry["log_level"] == "error"]
    assert len([said for said in problems if problem in said]) == 1


async def test_a_file_that_is_gone_keeps_the_old_set_and_one_that_is_back_is_armed(
    memory_log: MemoryLog, path: Path, told: list[Any]
) -> None:
    file = await started(memory_log, path)

    remove(path)
    await look_twice(file)
    kept = await in_force(memory_log)
    write(path, ROW.format(50))
    await look_twice(file)

    assert [row.limit for row in kept.rows] == [100]
    assert "can't be read" in next(entry["problem"] for entry in told if entry["log_level"] == "error")
    assert [row.limit for row in (await in_force(memory_log)).rows] == [50]


async def test_what_update_limits_armed_stays_until_the_limits_in_the_file_change(
    memory_log: MemoryLog, path: Path
) -> None:
    file = await started(memory_log, path)
    updated = await update(memory_log, 70.0)

    write(path, "# only a remark\n" + ROW.format(100))
    await look_twice(file)
    after_a_remark = {control.limit_set for control in await controls(memory_log)}
    await started(memory_log, path)
    after_a_restart = {control.limit_set for control in await controls(memory_log)}
    write(path, ROW.format(101))
    await look_twice(file)

    assert after_a_remark == after_a_restart == {updated}
    assert [row.limit for row in (await in_force(memory_log)).rows] == [101]


async def test_a_file_that_changed_while_nothing_ran_is_armed_at_the_start(memory_log: MemoryLog, path: Path) -> None:
    await started(memory_log, path)
    await update(memory_log, 70.0)

    write(path, ROW.format(80))
    await started(memory_log, path)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [80]


async def test_a_file_that_changed_between_its_reading_and_the_first_look_is_armed(
    memory_log: MemoryLog, path: Path
) -> None:
    file = configured(memory_log, path)
    await file.arm_at_start()

    write(path, ROW.format(80))
    await look_twice(file)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [80]


async def test_asked_for_a_file_is_read_at_once_and_what_came_of_it_is_said(
    memory_log: MemoryLog, path: Path, told: list[Any]
) -> None:
    file = await started(memory_log, path)

    await file.look(at_once=True)
    write(path, ROW.format(80))
    await file.look(at_once=True)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [80]
    assert any("as before" in entry["event"] for entry in told)


class Acknowledging(Wrapped):
    """Tells when a change has reached all partitions but the one in which it was settled."""

    def __init__(self, log: AccountLog) -> None:
        super().__init__(log)
        self.armed = asyncio.Event()

    async def advance_controls(self, partitions: Iterable[int], *arguments: Any) -> Any:
        asked = list(partitions)
        outcome = await self._log.advance_controls(asked, *arguments)
        if len(asked) > 1:
            self.armed.set()
        return outcome


async def test_it_follows_the_file_when_asked_until_it_is_ended(memory_log: MemoryLog, path: Path) -> None:
    log, asked = Acknowledging(memory_log), asyncio.Event()
    file = await started(log, path)
    log.armed.clear()
    following = asyncio.create_task(file.follow(asked, look_s=3600.0))

    write(path, ROW.format(80))
    asked.set()
    await asyncio.wait_for(log.armed.wait(), 10)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [80]
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def test_what_else_changed_is_said_to_wait_for_the_next_start(
    memory_log: MemoryLog, path: Path, told: list[Any]
) -> None:
    file = await started(memory_log, path)

    write(path, "[server]\ngateway_port = 7000\n" + ROW.format(100))
    await look_twice(file)

    assert [entry["keys"] for entry in told if "next start" in entry["event"]] == ["server"]


async def test_limits_that_could_not_be_armed_everywhere_are_tried_again(
    memory_log: MemoryLog, path: Path, told: list[Any]
) -> None:
    in_part = AwayInPart(memory_log)
    file = await started(in_part, path)

    in_part.away = {5, 6}
    write(path, ROW.format(80))
    await look_twice(file)
    in_part.away = set()
    await file.look()

    assert [row.limit for row in (await in_force(memory_log)).rows] == [80]
    assert any("tried again" in entry["event"] for entry in told)


def with_shadow(path: Path, position: int) -> None:
    (path.parent / "stricter.toml").write_text(ROW.format(position))
    write(path, '[limits]\nshadow = "stricter.toml"\n' + ROW.format(100))


async def shadowed(log: AccountLog) -> list[float]:
    (blob_hash,) = {control.shadow_limit_set for control in await controls(log)}
    return [row.limit for row in LimitSet.decode(await log.get_blob(blob_hash) or b"").rows] if blob_hash else []


async def test_a_set_in_shadow_is_armed_followed_and_taken_out_again(memory_log: MemoryLog, path: Path) -> None:
    with_shadow(path, 10)
    file = await started(memory_log, path)
    at_start = await shadowed(memory_log)
    enforced = await in_force(memory_log)

    with_shadow(path, 20)
    await look_twice(file)
    changed = await shadowed(memory_log)
    write(path, ROW.format(100))
    await look_twice(file)

    assert (at_start, changed, await shadowed(memory_log)) == ([10], [20], [])
    assert enforced == await in_force(memory_log)


async def test_a_bad_set_in_shadow_keeps_both_as_they_are(memory_log: MemoryLog, path: Path, told: list[Any]) -> None:
    with_shadow(path, 10)
    file = await started(memory_log, path)

    with_shadow(path, -10)
    await look_twice(file)

    assert await shadowed(memory_log) == [10]
    assert any("limit[0].limit" in entry.get("problem", "") for entry in told)


def test_what_control_remembers_of_a_file_is_of_both_sets(path: Path) -> None:
    alone = configured_limits(load(path, {})).hash
    with_shadow(path, 10)
    beside = configured_limits(load(path, {})).hash
    with_shadow(path, 20)

    assert len({alone, beside, configured_limits(load(path, {})).hash}) == 3


TWO_PERSON = """
[[callers]]
name = "olga"
roles = ["operator"]
token_env = "OLGA"
[[callers]]
name = "ivan"
roles = ["operator"]
token_env = "IVAN"
[limits]
two_person = true
"""


async def test_where_two_people_change_limits_the_file_only_seeds_them(
    memory_log: MemoryLog, path: Path, told: list[Any]
) -> None:
    write(path, ROW.format(100) + TWO_PERSON)
    file = await started(memory_log, path)
    seeded = [row.limit for row in (await in_force(memory_log)).rows]

    write(path, ROW.format(150) + TWO_PERSON)
    await look_twice(file)
    while_it_runs = [row.limit for row in (await in_force(memory_log)).rows]
    await started(memory_log, path)
    after_a_restart = [row.limit for row in (await in_force(memory_log)).rows]

    assert seeded == while_it_runs == after_a_restart == [100]
    assert len([entry for entry in told if "propose them" in entry["event"]]) == 1


async def test_the_file_can_t_end_the_rule_of_two_people_while_control_runs(memory_log: MemoryLog, path: Path) -> None:
    write(path, ROW.format(100) + TWO_PERSON)
    file = await started(memory_log, path)

    write(path, ROW.format(150))
    await look_twice(file)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [100]


async def test_an_interrupted_seed_is_completed_and_opens_the_gateways(memory_log: MemoryLog, path: Path) -> None:
    write(path, ROW.format(100) + TWO_PERSON)
    in_part = AwayInPart(memory_log)
    in_part.away = {7, 8}
    with contextlib.suppress(StoreUnavailable):
        await started(in_part, path)
    in_part.away = set()

    await started(in_part, path)

    assert [row.limit for row in (await in_force(memory_log)).rows] == [100]
    await limits_armed(memory_log, configured_limits(load(path, {})).hash, 0.0)


async def approve(log: AccountLog, position: float) -> None:
    rows, before = (Limit("position", ScopeKind.SYMBOL, position),), await in_force(log)
    made = await propose_limits(log, rows, None, before.hash, Why("olga", "for good"))
    await approve_limits(log, made.proposal.id, Why("ivan", "fine"), two_person=True)


SLIPPAGE = {"RISK_GATEWAY_LIMITS__MARKET_SLIPPAGE": "0.5"}


async def test_the_environment_seeds_limits_and_never_takes_the_place_of_an_approved_set(
    memory_log: MemoryLog, path: Path
) -> None:
    first = {"RISK_GATEWAY_LIMITS__MARKET_SLIPPAGE": "0.25"}
    await ConfigFile(memory_log, path, load(path, first), first).arm_at_start()
    seeded = (await in_force(memory_log)).policy.market_slippage
    await approve(memory_log, 70.0)

    await ConfigFile(memory_log, path, load(path, SLIPPAGE), SLIPPAGE).arm_at_start()
    kept = await in_force(memory_log)

    assert seeded == kept.policy.market_slippage == 0.25
    assert [row.limit for row in kept.rows] == [70]
    await limits_armed(memory_log, configured_limits(load(path, SLIPPAGE)).hash, 0.0)


async def test_a_changed_file_takes_no_approved_sets_place_but_that_of_one_set_alone(
    memory_log: MemoryLog, path: Path
) -> None:
    file = await started(memory_log, path)
    await approve(memory_log, 70.0)
    write(path, ROW.format(150))
    await look_twice(file)
    approved = [row.limit for row in (await in_force(memory_log)).rows]

    await update(memory_log, 80.0)
    write(path, ROW.format(160))
    await look_twice(file)

    assert approved == [70]
    assert [row.limit for row in (await in_force(memory_log)).rows] == [160]
