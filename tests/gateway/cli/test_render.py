"""What a person reads, from messages alone: the text is asserted, colours are left out."""

from io import StringIO

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType

from gateway.cli import render
from riskgateway.v1 import (
    account_pb2,
    control_pb2,
    decision_pb2,
    limit_pb2,
    order_pb2,
    risk_admin_pb2,
    risk_gateway_pb2,
    risk_pb2,
)

ORDER = order_pb2.Order(
    account="ALPHA", strategy="MOM", symbol="AAPL", side=order_pb2.SIDE_BUY, quantity=1_000, limit_price=187.5
)
EVERYTHING = control_pb2.Scope()


def text_of(renderable: RenderableType) -> str:
    console = Console(file=StringIO(), width=220, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def reduced() -> risk_gateway_pb2.CheckOrderResponse:
    return risk_gateway_pb2.CheckOrderResponse(
        client_order_id="a-1",
        action=decision_pb2.ACTION_REDUCE,
        allowed=True,
        allowed_quantity=400,
        reason=decision_pb2.REASON_VAR,
        sequence=12,
        limit_set="abcdef0123456789",
        checks=[
            decision_pb2.CheckResult(
                measure="var_99",
                scope="account:ALPHA",
                before=0.03,
                after=0.062,
                warn=0.04,
                limit=0.05,
                unit="ratio",
                utilization=1.24,
                action=decision_pb2.ACTION_REDUCE,
                reason=decision_pb2.REASON_VAR,
                input_age=Duration(seconds=3, nanos=400_000_000),
                upper_bound=True,
                quantity_max=400,
            )
        ],
    )


def test_a_verdict_is_one_line_with_sign_order_quantity_reason_and_id() -> None:
    line = text_of(render.verdict_line(reduced(), ORDER))

    assert line == "◐ REDUCE  BUY 1,000 AAPL limit 187.5 for ALPHA/MOM · send 400 · VAR · id a-1\n"


def test_every_action_has_a_sign_of_its_own_beside_its_name() -> None:
    actions = [a for a in decision_pb2.Action.values() if a != decision_pb2.ACTION_UNSPECIFIED]

    signs = [text_of(render.verdict_line(risk_gateway_pb2.CheckOrderResponse(action=a), ORDER))[0] for a in actions]

    assert len(set(signs)) == len(actions) == 5


def test_an_action_of_a_newer_server_is_shown_as_unknown_and_not_as_allowed() -> None:
    assert text_of(render.verdict_line(risk_gateway_pb2.CheckOrderResponse(), ORDER)).startswith("? UNSPECIFIED")


def test_a_dry_run_says_that_nothing_is_reserved() -> None:
    dry = risk_gateway_pb2.CheckOrderResponse(client_order_id="a-1", action=decision_pb2.ACTION_ALLOW, allowed=True)

    assert text_of(render.verdict_line(dry, ORDER)).endswith("dry run, nothing reserved\n")


def test_the_tree_shows_movement_bound_use_age_and_what_would_fit() -> None:
    tree = text_of(render.verdict_tree(reduced(), ORDER))

    assert "◐ REDUCE  var_99 @ account:ALPHA: 3.00 % → ≤ 6.20 % of 5.00 %" in tree
    assert "124.00 % used · warns from 4.00 % · at most 400 · input 3.4 s old · VAR" in tree
    assert "limits abcdef01 · no risk model" in tree


def test_a_check_that_cant_be_computed_shows_no_number() -> None:
    check = decision_pb2.CheckResult(
        measure="var_99", scope="account:ALPHA", action=decision_pb2.ACTION_REJECT, unevaluable=True, message="no model"
    )
    refused = risk_gateway_pb2.CheckOrderResponse(action=decision_pb2.ACTION_REJECT, checks=[check])

    tree = text_of(render.verdict_tree(refused, ORDER))

    assert "var_99 @ account:ALPHA: can't be computed · unevaluable" in tree
    assert "no model" in tree


def test_a_bracket_in_a_text_from_outside_stays_a_bracket() -> None:
    loud = risk_gateway_pb2.CheckOrderResponse(action=decision_pb2.ACTION_HALT, message="[bold]stopped[/bold] by [x")

    assert "[bold]stopped[/bold] by [x" in text_of(render.verdict_line(loud, ORDER))


def test_amounts_are_written_in_their_unit() -> None:
    assert render.amount(0.0412, "ratio") == "4.12 %"
    assert render.amount(1_234_567.8, "USD") == "1,234,568 USD"
    assert render.amount(12.5, "USD") == "12.50 USD"
    assert render.amount(0.015, "quantity") == "0.015"
    assert render.amount(1_250, "quantity") == "1,250"
    assert render.amount(3, "orders") == "3 orders"
    assert render.amount(2.5, "seconds") == "2.5 s"


def test_ages_are_short() -> None:
    ages = [Duration(nanos=120_000_000), Duration(seconds=300), Duration(seconds=7_560), Duration(seconds=345_600)]

    assert [render.age(span) for span in ages] == ["120 ms", "5 min", "2.1 h", "4.0 d"]


def test_a_stop_tells_its_reach_what_may_still_fill_and_how_it_is_lifted() -> None:
    order = order_pb2.OpenOrder(
        account="ALPHA", client_order_id="a-7", symbol="KO", side=order_pb2.SIDE_SELL, quantity=50, leaves_quantity=20
    )
    response = risk_gateway_pb2.StopAllResponse(
        stop_epoch=9,
        acknowledged_partitions=1,
        trading_state=control_pb2.TRADING_STATE_HALTED,
        open_orders=[order],
        warnings=["orders of BETA could not be listed"],
    )

    shown = text_of(render.stopped(response, control_pb2.Scope(account="ALPHA"), "control at here"))

    assert "■ HALTED  account ALPHA · epoch 9, 1 partitions acknowledged" in shown
    assert "1 approved before it may still fill: cancel them at the broker." in shown
    assert "SELL 50 KO" in shown and "a-7" in shown
    assert "⚠ orders of BETA could not be listed" in shown
    assert "risk-gateway resume --account ALPHA --reason" in shown


def test_a_stop_without_open_orders_says_so() -> None:
    response = risk_gateway_pb2.StopAllResponse(trading_state=control_pb2.TRADING_STATE_HALTED)

    shown = text_of(render.stopped(response, EVERYTHING, "control"))

    assert "HALTED  everything" in shown
    assert "No order approved before it is open." in shown


def test_only_so_many_open_orders_are_listed_and_the_rest_is_counted() -> None:
    orders = [order_pb2.OpenOrder(client_order_id=f"n-{i}", side=order_pb2.SIDE_BUY) for i in range(60)]
    response = risk_gateway_pb2.StopAllResponse(open_orders=orders)

    shown = text_of(render.stopped(response, EVERYTHING, "control"))

    assert "60 approved before it may still fill, the first 50 shown" in shown
    assert "n-49" in shown and "n-50" not in shown


def test_a_resume_lists_what_still_restricts() -> None:
    wider = control_pb2.TradingStateCause(
        state=control_pb2.TRADING_STATE_HALTED, reason="fire", actor="alice", set_time=Timestamp(seconds=1_600_000_000)
    )
    response = risk_gateway_pb2.ResumeResponse(trading_state=control_pb2.TRADING_STATE_HALTED, causes=[wider])

    shown = text_of(render.resumed(response, control_pb2.Scope(account="ALPHA")))

    assert "Still in force:" in shown
    assert "■ HALTED  everything · fire · by alice · 2020-09-13 12:26:40.000 UTC" in shown


def test_an_account_shows_state_worth_the_three_drawdowns_and_limits_both_ways() -> None:
    state = account_pb2.RiskState(
        account="ALPHA",
        trading_state=control_pb2.TRADING_STATE_REDUCE_ONLY,
        session_date="2020-03-16",
        base_currency="USD",
        equity=1_000_000,
        session_pnl=-25_000,
        session_open_equity=1_025_000,
        drawdown=0.05,
        drawdown_session=0.024,
        drawdown_since_reset=0.03,
        limits=[
            limit_pb2.LimitUse(
                measure="var_99",
                scope="account:ALPHA",
                value=0.041,
                limit=0.05,
                headroom=0.009,
                utilization=0.82,
                unit="ratio",
                status=limit_pb2.LIMIT_STATUS_WARNED,
            ),
            limit_pb2.LimitUse(
                measure="order_value",
                scope="account:ALPHA",
                limit=250_000,
                unit="USD",
                status=limit_pb2.LIMIT_STATUS_OK,
            ),
        ],
    )

    shown = text_of(render.risk_state(state))

    assert shown.startswith("◐ REDUCE_ONLY  ALPHA · session 2020-03-16")
    assert "-25,000 USD" in shown and "-2.44 %" in shown
    assert [drop in shown for drop in ("5.00 %", "2.40 %", "3.00 %")] == [True] * 3
    assert "4.10 % (41,000 USD)" in shown and "0.90 % (9,000 USD)" in shown and "82.00 %" in shown
    assert "⚠ warned" in shown
    assert "250,000 USD (25.00 %)" in shown


def test_an_empty_account_reads_well() -> None:
    shown = text_of(render.risk_state(account_pb2.RiskState(account="ALPHA", base_currency="USD")))

    assert "no session is open" in shown
    assert "No limit is armed, so nothing trades." in shown
    assert "No open orders." in shown and "No positions." in shown and "No risk report yet" in shown
    assert "0.00 %" not in shown  # what was never computed is not zero


def test_positions_and_report_show_what_is_missing_as_missing() -> None:
    state = account_pb2.RiskState(
        account="ALPHA",
        base_currency="USD",
        positions=[account_pb2.Position(symbol="AAPL", quantity=-300, average_cost=180.25, open_buy_quantity=50)],
        report=risk_pb2.RiskReport(
            var_99=40_000,
            base_currency="USD",
            worst_stress=risk_pb2.StressLoss(name="COVID 2020", loss=210_000),
            n_observations=756,
            warnings=["XYZ has a short history"],
        ),
    )

    shown = text_of(render.risk_state(state))

    assert "-300" in shown and "180.25" in shown
    assert "VaR 95 –" in shown and "VaR 99 40,000 USD" in shown
    assert "worst stress 210,000 USD (COVID 2020)" in shown
    assert "⚠ XYZ has a short history" in shown


def test_a_suspicious_fill_is_recorded_and_flagged() -> None:
    result = risk_gateway_pb2.ExecutionResult(
        account="ALPHA", execution_id="e-1", sequence=31, flags=[risk_gateway_pb2.EXECUTION_FLAG_ORDER_UNKNOWN]
    )

    assert text_of(render.execution_line(result)) == ("✔ recorded at 31 · ALPHA · execution e-1 · ⚠ ORDER UNKNOWN\n")


def test_a_repeated_fill_says_that_nothing_changed() -> None:
    result = risk_gateway_pb2.ExecutionResult(account="ALPHA", execution_id="e-1", duplicate=True)

    assert "known already, nothing changed" in text_of(render.execution_line(result))


def test_differences_with_the_broker_are_listed() -> None:
    found = risk_admin_pb2.Difference(
        kind=risk_admin_pb2.DIFFERENCE_KIND_POSITION, symbol="AAPL", recorded=100, reported=90
    )

    shown = text_of(render.differences(risk_admin_pb2.ReconcilePositionsResponse(sequence=5, differences=[found])))

    assert "1 differences, now as reported" in shown
    assert "position" in shown and "100" in shown and "90" in shown


def test_health_names_port_and_state() -> None:
    assert text_of(render.health_line("control", "127.0.0.1:50052", "NOT_SERVING")) == (
        "✖ control  127.0.0.1:50052  not serving\n"
    )
