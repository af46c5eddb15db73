"""What bound a decision, how it is counted, and how it is shown."""

import io

import pytest
from rich.console import Console

from gateway.demo.live import Moment, accounts_table, decisions_table, screen_on
from gateway.demo.run import values_before
from gateway.demo.tally import UNBOUND, Tally, Use, binding_measure, merged, use_of
from riskgateway.v1 import account_pb2, decision_pb2, limit_pb2, risk_gateway_pb2
from tests.gateway.demo.builders import prices, tape


def check(
    measure: str,
    action: decision_pb2.Action.ValueType,
    reason: decision_pb2.Reason.ValueType = decision_pb2.REASON_NONE,
    shadow: bool = False,
) -> decision_pb2.CheckResult:
    return decision_pb2.CheckResult(measure=measure, action=action, reason=reason, shadow=shadow)


def answer(
    action: decision_pb2.Action.ValueType,
    *checks: decision_pb2.CheckResult,
    reason: decision_pb2.Reason.ValueType = decision_pb2.REASON_NONE,
    allowed_quantity: float = 0.0,
) -> risk_gateway_pb2.CheckOrderResponse:
    return risk_gateway_pb2.CheckOrderResponse(
        action=action, checks=checks, reason=reason, allowed_quantity=allowed_quantity
    )


ALLOWED = answer(decision_pb2.ACTION_ALLOW, check("leverage", decision_pb2.ACTION_ALLOW), allowed_quantity=10.0)


@pytest.mark.parametrize(
    ("decided", "bound_by"),
    [
        (ALLOWED, UNBOUND),
        (answer(decision_pb2.ACTION_WARN, check("leverage", decision_pb2.ACTION_WARN)), "leverage"),
        (
            answer(
                decision_pb2.ACTION_REDUCE,
                check("leverage", decision_pb2.ACTION_WARN),
                check("var_99", decision_pb2.ACTION_REDUCE),
            ),
            "var_99",
        ),
        (
            answer(
                decision_pb2.ACTION_REJECT,
                check("leverage", decision_pb2.ACTION_REDUCE, decision_pb2.REASON_LEVERAGE),
                check("var_99", decision_pb2.ACTION_REDUCE, decision_pb2.REASON_VAR),
                reason=decision_pb2.REASON_VAR,
            ),
            "var_99",
        ),
        (
            answer(
                decision_pb2.ACTION_REDUCE,
                check("var_99", decision_pb2.ACTION_REJECT, shadow=True),
                check("es_99", decision_pb2.ACTION_REDUCE),
            ),
            "es_99",
        ),
        (answer(decision_pb2.ACTION_HALT, reason=decision_pb2.REASON_TRADING_HALTED), "trading_halted"),
        (answer(decision_pb2.ACTION_REJECT, reason=decision_pb2.REASON_MODEL_STALE), "model_stale"),
    ],
)
def test_a_decision_is_put_down_to_what_bound_it(decided: risk_gateway_pb2.CheckOrderResponse, bound_by: str) -> None:
    assert binding_measure(decided) == bound_by


def test_tallies_count_and_add_up() -> None:
    one, other = Tally(), Tally()
    one.count(10.0, ALLOWED)
    other.count(30.0, ALLOWED)
    other.count(5.0, answer(decision_pb2.ACTION_HALT, reason=decision_pb2.REASON_TRADING_HALTED))

    total = merged([one, other])

    assert total.decisions == {(UNBOUND, "ALLOW"): 2, ("trading_halted", "HALT"): 1}
    assert total.by_action() == {"ALLOW": 2, "HALT": 1}
    assert (total.asked_shares, total.allowed_shares) == (45.0, 20.0)


def state() -> account_pb2.RiskState:
    return account_pb2.RiskState(
        account="A",
        equity=1_000_000.0,
        gross_exposure=1_500_000.0,
        limits=[
            limit_pb2.LimitUse(measure="var_99", scope="strategy:momentum", value=0.5, limit=0.9),
            limit_pb2.LimitUse(measure="var_99", scope="account:A", value=0.041, limit=0.05),
            limit_pb2.LimitUse(measure="stress_loss", scope="account:A", limit=0.32, unevaluable=True),
        ],
        counters=account_pb2.Counters(passive_breaches=3),
    )


def test_a_use_is_that_of_the_whole_account_and_unknown_is_not_zero() -> None:
    assert use_of(state(), "var_99") == Use(0.041, 0.05)
    assert use_of(state(), "stress_loss") == Use(None, 0.32)
    assert use_of(state(), "es_99") == Use(None, None)


def printed(draw: object) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(draw)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_tables_show_figures_against_their_limits() -> None:
    tally = Tally()
    tally.count(10.0, ALLOWED)

    accounts = printed(accounts_table({"momentum": state()}))

    for shown in ("1,000,000", "150%", "4.1% / 5.0%", "? / 32.0%", "0 / 3"):
        assert shown in accounts
    assert UNBOUND in printed(decisions_table(tally))


def test_without_a_terminal_lines_are_printed_every_ten_sessions_and_at_the_end() -> None:
    played = tape(prices(sessions=12))
    console = Console(file=io.StringIO(), force_terminal=False, width=160)

    with screen_on(console) as screen:
        for session in played.sessions:
            screen.show(Moment(session, 12, Tally(), {"momentum": state()}))
        screen.say("stopped [by hand]")

    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split("  ")[1] for line in lines if "sessions" in line] == ["10/12 sessions", "12/12 sessions"]
    assert lines[-1] == "stopped [by hand]"


def test_on_a_terminal_the_picture_names_the_session_and_keeps_what_was_said() -> None:
    played = tape(prices(sessions=1))
    console = Console(file=io.StringIO(), force_terminal=True, width=160)

    with screen_on(console) as screen:
        screen.show(Moment(played.sessions[0], 1, Tally(), {"momentum": state()}))
        screen.say("stopped [by hand]")

    assert isinstance(console.file, io.StringIO)
    assert f"session {played.sessions[0].date}" in console.file.getvalue()
    assert "stopped [by hand]" in console.file.getvalue()


def test_a_probe_tells_the_accounts_measures_in_money_and_leaves_out_what_is_unknown() -> None:
    checks = [
        decision_pb2.CheckResult(measure="var_99", scope="account:A", before=0.04, unit="ratio"),
        decision_pb2.CheckResult(measure="stress_loss", scope="account:A", before=90_000.0, unit="USD"),
        decision_pb2.CheckResult(measure="es_99", scope="account:A", unit="ratio", unevaluable=True),
        decision_pb2.CheckResult(measure="var_99", scope="sector:Energy", before=0.9, unit="ratio"),
    ]

    told = values_before(answer(decision_pb2.ACTION_ALLOW, *checks), equity=500_000.0)

    assert told == {"var_99": 20_000.0, "stress_loss": 90_000.0}
