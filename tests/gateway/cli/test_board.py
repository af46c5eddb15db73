"""What `watch` says of a stream: a line a change, and how old what it shows is."""

from gateway.cli.board import Board, urgency
from riskgateway.v1 import account_pb2, control_pb2, decision_pb2, risk_gateway_pb2
from tests.gateway.cli.messages import heartbeat, instruction, news, recent, state, use


def board(*told: account_pb2.RiskState) -> Board:
    """A board that heard of these at second 0."""
    made = Board("here:1")
    for each in told:
        made.take(news(each), 0.0)
    return made


def said(made: Board, update: risk_gateway_pb2.RiskStateUpdate) -> list[str]:
    return [line.plain for line in made.take(update, 0.0)]


def test_an_account_is_introduced_once_and_a_repetition_says_nothing() -> None:
    made = Board("here:1")

    first, again = said(made, news(state())), said(made, news(state(sequence=8)))

    assert first == [
        "✔ connected to here:1",
        "12:00:00  ALPHA  ✔ ACTIVE  session 2023-11-15 · equity 1,000,000 USD · P&L 1,234 USD"
        " · drawdown 1.23 % · gross 500,000 USD · 0 open orders",
    ]
    assert again == []


def test_each_new_decision_is_a_line_with_its_reason() -> None:
    made = board(state(recent_decisions=[recent(5)]))
    refused = recent(6, "REJECT", reason=decision_pb2.REASON_VAR, message="too much", strategy="mom")

    lines = said(made, news(state(recent_decisions=[recent(5), refused])))

    assert lines == ["12:00:06  ✖ REJECT  BUY 10 AAPL for ALPHA/mom · VAR · too much"]


def test_decisions_that_fell_out_between_two_states_are_counted() -> None:
    made = board(state(recent_decisions=[recent(5)], counters=account_pb2.Counters(approvals=1)))
    later = state(recent_decisions=[recent(9)], counters=account_pb2.Counters(approvals=3, rejected=2))

    assert said(made, news(later))[0].strip() == "… 3 decisions of ALPHA more: risk-gateway log tail"


def test_a_stop_is_told_once_with_who_and_why() -> None:
    made = board(state())
    halted = control_pb2.TRADING_STATE_HALTED
    change = control_pb2.TradingStateChange(
        account="ALPHA", trading_state=halted, reason="fat finger", actor="ann", change_time=state().state_time
    )

    told = said(made, risk_gateway_pb2.RiskStateUpdate(trading_state_change=change))
    after = said(made, news(state(trading_state=halted)))

    assert told == ["12:00:00  ALPHA  ■ HALTED  everything · fat finger · by ann"]
    assert after == []


def test_a_stop_that_came_while_the_stream_was_away_is_told_with_its_cause() -> None:
    made = board(state())
    cause = control_pb2.TradingStateCause(state=control_pb2.TRADING_STATE_HALTED, reason="why not", actor="bob")

    lines = said(made, news(state(trading_state=control_pb2.TRADING_STATE_HALTED, causes=[cause])))

    assert "■ HALTED" in lines[0]
    assert "why not · by bob" in lines[1]


def test_a_limit_that_stands_otherwise_than_before_is_a_line() -> None:
    made = board(state(limits=[use("leverage", 0.5)]))

    lines = said(made, news(state(limits=[use("leverage", 1.1, "BREACHED")])))

    assert lines == ["12:00:00  ALPHA  ✖ breached  leverage @ account:ALPHA: 22.00 % of 20.00 %"]


def test_an_instruction_is_told_and_told_again_when_it_is_escalated() -> None:
    made = board(state())

    first = said(made, news(state(instructions=[instruction(1)])))
    same = said(made, news(state(instructions=[instruction(1)])))
    louder = said(made, news(state(instructions=[instruction(1, escalated=True)])))

    assert first == ["12:00:00  CANCEL o1 for ALPHA · unanswered · POSITION · the limit is 5 now"]
    assert same == []
    assert "ESCALATED" in louder[0]


def test_nothing_is_old_while_heartbeats_come() -> None:
    made = board(state())
    made.take(heartbeat(), 59.0)

    assert made.warning(60.0) == ""


def test_without_a_store_the_age_is_that_of_the_last_time_it_answered() -> None:
    made = board(state())
    made.take(heartbeat(), 10.0)
    made.take(heartbeat(store_available=False), 21.0)
    made.take(heartbeat(store_available=False), 22.0)

    assert made.warning(22.0) == "THE STORE IS AWAY: no order is approved · as of 12 s ago"
    assert said(made, heartbeat()) == ["✔ the store answers again"]
    assert made.warning(0.0) == ""


def test_without_a_stream_it_says_why_and_how_old_it_is() -> None:
    made = board(state())

    first, again = made.lost("nobody answers at here:1"), made.lost("nobody answers at here:1")

    assert [line.plain for line in first] == ["✖ no connection: nobody answers at here:1"]
    assert again == []
    assert made.warning(12.0) == "NO CONNECTION: nobody answers at here:1 · as of 12 s ago · trying again"


def test_a_silent_stream_is_not_taken_for_a_quiet_market() -> None:
    assert board(state()).warning(4.0) == "SILENCE from here:1 · as of 4 s ago"


def test_what_is_past_its_bound_comes_first_and_ages_come_last() -> None:
    uses = [
        use("mark_age", 3.0, "BREACHED", unit="seconds"),
        use("leverage", 0.9, "WARNED"),
        use("var_99", 0.0, "UNEVALUABLE"),
        use("es_99", 0.95),
        use("position", 1.2, "BREACHED"),
    ]

    assert [each.measure for each in sorted(uses, key=urgency)] == [
        "position",
        "var_99",
        "es_99",
        "leverage",
        "mark_age",
    ]
