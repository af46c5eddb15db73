"""The paper broker: nothing appears or vanishes, limits are kept, cancels release only when confirmed."""

from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.demo.broker import Costs, Liquidity, PaperBroker, Report, ReportKind, Ticket

MONDAY = date(2020, 3, 9)
FREE = Costs(commission_bps=0.0, slippage_bps=0.0, slippage_of_move=0.0)
WHOLE = Liquidity(in_parts=0.0, resting_whole=1.0, fill_beats_cancel=0.0)
IN_PARTS = Liquidity(in_parts=1.0, cut_short=0.0, resting_whole=0.0, fill_beats_cancel=1.0)


def fills(reports: list[Report]) -> list[Report]:
    return [report for report in reports if report.kind is ReportKind.FILL]


def test_a_market_order_fills_at_the_close_plus_slippage_and_pays_commission() -> None:
    costs = Costs(commission_bps=10.0, slippage_bps=20.0, slippage_of_move=0.1)
    broker = PaperBroker("a", cash=10_000.0, seed=1, costs=costs, liquidity=WHOLE)
    broker.enter(Ticket("1", "AAPL", 1, 10), 0)

    (fill,) = broker.close_session(MONDAY, {"AAPL": 110.0}, {"AAPL": 100.0})

    # 20 bps and a tenth of the day's move of 10 % are 120 bps on 110
    assert fill.price == pytest.approx(110.0 * 1.012)
    assert fill.fee == pytest.approx(10 * 110.0 * 1.012 * 0.001)
    assert broker.cash == pytest.approx(10_000.0 - 10 * 110.0 * 1.012 * 1.001)
    assert broker.positions == {"AAPL": 10}
    assert not broker.open


def test_a_market_sell_gets_less_than_the_close() -> None:
    costs = Costs(slippage_bps=20.0, slippage_of_move=0.0)
    broker = PaperBroker("a", cash=0.0, seed=1, costs=costs, liquidity=WHOLE)
    broker.enter(Ticket("1", "AAPL", -1, 10), 0)

    (fill,) = broker.close_session(MONDAY, {"AAPL": 100.0}, {"AAPL": 100.0})

    assert fill.price == pytest.approx(99.8)
    assert broker.positions == {"AAPL": -10}


def test_a_market_order_in_two_parts_pays_more_for_the_second() -> None:
    broker = PaperBroker("a", cash=10_000.0, seed=1, liquidity=IN_PARTS)
    broker.enter(Ticket("1", "AAPL", 1, 10), 0)

    first, second = fills(broker.close_session(MONDAY, {"AAPL": 100.0}, {"AAPL": 100.0}))

    assert first.quantity + second.quantity == 10
    assert (first.cumulative, first.leaves) == (first.quantity, second.quantity)
    assert (second.cumulative, second.leaves) == (10, 0)
    assert 100.0 < first.price < second.price


def test_what_a_market_order_does_not_find_expires() -> None:
    liquidity = Liquidity(in_parts=1.0, cut_short=1.0)
    broker = PaperBroker("a", cash=10_000.0, seed=1, liquidity=liquidity)
    broker.enter(Ticket("1", "AAPL", 1, 10), 0)

    fill, end = broker.close_session(MONDAY, {"AAPL": 100.0}, {"AAPL": 100.0})

    assert end.kind is ReportKind.EXPIRED
    assert (end.cumulative, end.leaves) == (fill.quantity, 0)
    assert broker.positions == {"AAPL": fill.quantity}
    assert not broker.open


@pytest.mark.parametrize(
    ("sign", "close", "fills_at"),
    [(1, 99.0, 100.0), (1, 100.0, None), (1, 101.0, None), (-1, 101.0, 100.0), (-1, 100.0, None), (-1, 99.0, None)],
)
def test_a_resting_order_fills_at_its_limit_once_a_close_goes_through_it(
    sign: int, close: float, fills_at: float | None
) -> None:
    broker = PaperBroker("a", cash=10_000.0, seed=1, costs=FREE, liquidity=WHOLE)
    broker.enter(Ticket("1", "AAPL", sign, 10, limit_price=100.0), 0)

    reports = broker.close_session(MONDAY, {"AAPL": close}, {"AAPL": 100.0})

    assert [report.price for report in reports] == ([] if fills_at is None else [fills_at])
    assert len(broker.open) == (fills_at is None)


def test_a_resting_order_fills_in_part_and_goes_on_resting() -> None:
    broker = PaperBroker("a", cash=10_000.0, seed=1, liquidity=IN_PARTS)
    broker.enter(Ticket("1", "AAPL", 1, 10, limit_price=100.0), 0)

    (fill,) = broker.close_session(MONDAY, {"AAPL": 99.0}, {"AAPL": 100.0})

    assert 0 < fill.quantity < 10
    assert broker.open_shares("AAPL") == 10 - fill.quantity == fill.leaves


def test_a_requested_cancel_releases_nothing_until_the_close_confirms_it() -> None:
    broker = PaperBroker("a", cash=10_000.0, seed=1, liquidity=WHOLE)
    broker.enter(Ticket("1", "AAPL", 1, 10, limit_price=90.0), 0)

    asked = broker.request_cancel("1")
    still_open = broker.open_shares("AAPL")
    (end,) = broker.close_session(MONDAY, {"AAPL": 100.0}, {"AAPL": 100.0})

    assert (asked.kind, asked.leaves) == (ReportKind.CANCEL_REQUESTED, 10)
    assert still_open == 10
    assert (end.kind, end.cumulative, end.leaves) == (ReportKind.CANCELLED, 0, 0)
    assert not broker.open


def test_a_fill_may_come_before_the_cancel() -> None:
    broker = PaperBroker("a", cash=10_000.0, seed=1, liquidity=IN_PARTS)
    broker.enter(Ticket("1", "AAPL", 1, 10), 0)
    broker.request_cancel("1")

    fill, end = broker.close_session(MONDAY, {"AAPL": 100.0}, {"AAPL": 100.0})

    assert 0 < fill.quantity < 10
    assert (end.kind, end.cumulative) == (ReportKind.CANCELLED, fill.quantity)


def test_an_id_that_is_open_is_not_taken_twice() -> None:
    broker = PaperBroker("a", cash=0.0, seed=1)
    broker.enter(Ticket("1", "AAPL", 1, 10), 0)

    with pytest.raises(ValueError, match="open already"):
        broker.enter(Ticket("1", "AAPL", 1, 10), 0)


TICKETS = st.lists(
    st.tuples(
        st.sampled_from(["AAPL", "XOM"]),
        st.sampled_from([1, -1]),
        st.integers(1, 500),
        st.none() | st.floats(80.0, 120.0),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)
CLOSES = st.lists(st.tuples(st.floats(70.0, 130.0), st.floats(70.0, 130.0)), min_size=2, max_size=6)


@given(TICKETS, CLOSES, st.integers(0, 1000))
def test_cash_positions_and_leaves_are_what_the_reports_add_up_to(
    drawn: list[tuple[str, int, int, float | None, bool]], closes: list[tuple[float, float]], seed: int
) -> None:
    broker = PaperBroker("a", cash=1_000_000.0, seed=seed)
    tickets = {str(n): Ticket(str(n), s, sign, q, limit) for n, (s, sign, q, limit, _) in enumerate(drawn)}
    reports = [broker.enter(ticket, 0) for ticket in tickets.values()]
    reports += [broker.request_cancel(str(n)) for n, order in enumerate(drawn) if order[4]]
    for number in range(1, len(closes)):
        today, before = (dict(zip(("AAPL", "XOM"), closes[n], strict=True)) for n in (number, number - 1))
        reports += broker.close_session(MONDAY + timedelta(days=number), today, before)

    bought: Counter[str] = Counter()
    filled: Counter[str] = Counter()
    cash = 1_000_000.0
    for fill in fills(reports):
        ticket = tickets[fill.client_order_id]
        bought[fill.symbol] += fill.sign * fill.quantity
        filled[fill.client_order_id] += fill.quantity
        cash -= fill.sign * fill.quantity * fill.price + fill.fee
        assert fill.cumulative == filled[fill.client_order_id] <= ticket.quantity
        if ticket.limit_price is not None:
            assert fill.sign * (ticket.limit_price - fill.price) >= 0  # never worse than the limit
    assert broker.cash == pytest.approx(cash)
    assert broker.positions == {symbol: shares for symbol, shares in bought.items() if shares}
    for client_order_id, order in broker.open.items():
        assert order.leaves == tickets[client_order_id].quantity - filled[client_order_id] > 0
    ids = [report.report_id for report in reports]
    assert len(set(ids)) == len(ids)


def test_the_same_seed_gives_the_same_reports_whatever_else_is_ordered() -> None:
    def play(seed: int, others: int) -> list[Report]:
        broker = PaperBroker("a", cash=1e6, seed=seed)
        for number in range(others):
            broker.enter(Ticket(f"other-{number}", "XOM", 1, 50), 0)
        for number in range(20):
            broker.enter(Ticket(str(number), "AAPL", 1, 1000), 0)
        prices = {"AAPL": 100.0, "XOM": 50.0}
        return [report for report in broker.close_session(MONDAY, prices, prices) if report.symbol == "AAPL"]

    assert play(7, others=0) == play(7, others=3)
    assert play(7, others=0) != play(8, others=0)
