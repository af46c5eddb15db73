"""The screen of `watch`: it fits, it cuts what matters least, and it cuts no number."""

from io import StringIO

import pytest
from rich.console import Console

from gateway.cli.board import Board
from gateway.cli.panes import bar, screen, shared
from riskgateway.v1 import account_pb2, control_pb2, decision_pb2
from tests.gateway.cli.messages import heartbeat, instruction, news, open_order, recent, state, use


def board_of(*told: account_pb2.RiskState) -> Board:
    board = Board("here:1")
    for each in told:
        board.take(news(each), 0.0)
    return board


def lines_of(board: Board, width: int, height: int | None = None, now_s: float = 0.5) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    with console.capture() as captured:
        console.print(screen(board, now_s, width, height))
    return captured.get().splitlines()


def busy(account: str = "ALPHA") -> account_pb2.RiskState:
    """More of everything than a small terminal can show."""
    return state(
        account,
        limits=[use(f"measure_{n}", n / 40) for n in range(40)],
        recent_decisions=[recent(n, "REJECT", message="a long story " * 20) for n in range(1, 21)],
        open_orders=[open_order(n, account) for n in range(30)],
        instructions=[instruction(n) for n in range(12)],
    )


@pytest.mark.parametrize("accounts", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 45), (60, 40)])
def test_it_fills_the_terminal_and_no_more(accounts: int, width: int, height: int) -> None:
    lines = lines_of(board_of(*(busy(f"ACCOUNT-{n}") for n in range(accounts))), width, height)

    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_without_a_height_nothing_is_left_out() -> None:
    text = "\n".join(lines_of(board_of(busy()), 160))

    assert "shown" not in text
    assert all(f"measure_{n} " in text for n in range(40))
    assert text.count("partial") == 30


def test_what_is_left_out_is_said() -> None:
    text = "\n".join(lines_of(board_of(busy()), 80, 25))

    assert "Limits, the closest to their bounds first  3 of 40 shown" in text
    assert "measure_39 " in text  # the closest to its bound


def test_one_account_shows_what_it_is_worth_and_each_limit_in_money_and_per_cent() -> None:
    lines = lines_of(board_of(state(limits=[use("leverage", 0.5)])), 80)

    text = "\n".join(lines)
    for shown in (
        "equity 1,000,000 USD",
        "gross  500,000 (50.0%)",
        "net    -20,000 (-2.0%)",
        "drawdown 1.23 % peak",
        "0.45 % session",
        "0.67 % reset",
        "✔ leverage account 10.00 % 20.00 % 10.00 % (100,000) 50.00 %",
    ):
        assert shown in text, shown


def test_a_stop_stands_at_the_top_with_its_cause() -> None:
    cause = control_pb2.TradingStateCause(
        state=control_pb2.TRADING_STATE_HALTED,
        reason="fat finger",
        actor="ann",
        stop_epoch=4,
        set_time=state().state_time,
    )
    lines = lines_of(board_of(state(trading_state=control_pb2.TRADING_STATE_HALTED, causes=[cause])), 80, 24)

    assert lines[1].startswith("■ HALTED  ALPHA")
    assert lines[2].startswith("  ■ HALTED  everything · fat finger · by ann")


def test_figures_that_are_not_known_are_no_zeros() -> None:
    unknown = account_pb2.RiskState(account="ALPHA", base_currency="USD", limits=[use("var_99", 0.0, "UNEVALUABLE")])
    unknown.limits[0].ClearField("value")
    unknown.limits[0].ClearField("utilization")
    unknown.limits[0].ClearField("headroom")

    lines = lines_of(board_of(unknown), 80)

    assert "equity –" in "\n".join(lines)
    assert "? var_99 account    – 20.00 %        –      –" in "\n".join(lines)


def test_several_accounts_begin_with_an_overview_and_are_told_apart_by_their_ends() -> None:
    lines = lines_of(board_of(busy("DEMO-1120-MOMENTUM"), busy("DEMO-1120-REVERSION")), 80, 40)

    assert lines[2] == "2 accounts, USD"
    assert lines[4].startswith("✔ …MOMENTUM  1,000,000")
    assert any("for …REVERSION" in line for line in lines)


def test_a_name_that_is_the_beginning_of_another_is_kept_whole() -> None:
    lines = lines_of(board_of(state("ACCOUNT"), state("ACCOUNT-2")), 80)

    assert lines[4].startswith("✔ ACCOUNT ")


def test_accounts_of_several_currencies_name_theirs() -> None:
    lines = lines_of(board_of(state("A"), state("B", base_currency="EUR")), 80)

    assert lines[2] == "2 accounts"
    assert "1,000,000 USD" in lines[4] and "1,000,000 EUR" in lines[5]


def test_the_latest_decision_comes_first_and_tells_what_may_be_sent() -> None:
    reduced = recent(9, "REDUCE", allowed_quantity=4.0, reason=decision_pb2.REASON_VAR)
    lines = lines_of(board_of(state(recent_decisions=[recent(8), reduced])), 80)

    at = next(n for n, line in enumerate(lines) if line.startswith("Decisions"))
    assert lines[at + 1].startswith("12:00:09  ◐ REDUCE  BUY 10 AAPL · send 4 · VAR")
    assert lines[at + 2].startswith("12:00:08  ✔ ALLOW  BUY 10 AAPL")


def test_instructions_have_a_pane_only_where_there_are_any_and_the_escalated_come_first() -> None:
    waiting = state(instructions=[instruction(1), instruction(2, escalated=True)])

    text, quiet = "\n".join(lines_of(board_of(waiting), 80)), "\n".join(lines_of(board_of(state()), 80))

    assert "Instructions not yet carried out: 2" in text
    assert text.index("CANCEL o2 · unanswered, ESCALATED") < text.index("CANCEL o1 · unanswered · POSITION")
    assert "Instructions" not in quiet


def test_the_first_line_says_how_old_it_is_when_it_is_old() -> None:
    board = board_of(state())
    board.take(heartbeat(store_available=False), 3.0)

    assert lines_of(board, 80, now_s=15.0)[0] == "✖ THE STORE IS AWAY: no order is approved · as of 15 s ago"


def test_no_account_at_all_is_said() -> None:
    board = Board("here:1")
    board.take(heartbeat(), 0.0)

    assert lines_of(board, 80)[1] == "No account is open."


def test_texts_from_outside_are_never_markup() -> None:
    line = "\n".join(lines_of(board_of(state(recent_decisions=[recent(1, message="[red]not[/red] [/]")])), 80))

    assert "[red]not[/red] [/]" in line


@pytest.mark.parametrize(
    ("available", "wanted", "given"),
    [(10, [3, 3, 3], [3, 3, 3]), (4, [9, 1, 9], [2, 1, 1]), (0, [5], [0]), (-3, [5], [0]), (2, [5, 5, 5], [1, 1, 0])],
)
def test_rows_are_shared_in_turn(available: int, wanted: list[int], given: list[int]) -> None:
    assert shared(available, wanted) == given


@pytest.mark.parametrize(("used", "full"), [(-1.0, 0), (0.0, 0), (0.5, 6), (1.0, 12), (7.0, 12)])
def test_a_bar_is_full_at_the_bound(used: float, full: int) -> None:
    assert bar(used).count("█") == full
