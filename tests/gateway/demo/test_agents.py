"""The agents and their desks: they see no future, and ask for what leads to what they want."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.demo.agents import AGENTS, LongShort, MakeAgent, MeanReversion, Momentum, Order
from gateway.demo.broker import PaperBroker, Ticket
from gateway.demo.desk import Asked, Desk
from gateway.demo.twin import run_without_gateway
from tests.gateway.demo.builders import HISTORY_DAYS, prices, tape


def asked_by_session(make: MakeAgent, moved_from: int | None) -> list[list[Asked]]:
    """What the agent's desk asks for in each of 12 sessions, with all closes tripled from session `moved_from` on."""
    history = prices()
    closes = history.closes.copy()
    if moved_from is not None:
        closes[HISTORY_DAYS + 1 + moved_from :] *= np.linspace(1.0, 3.0, closes.shape[1])
    played = tape(replace(history, closes=closes))
    desk = Desk(make(), PaperBroker("agent", 1e6, seed=1))
    asked = []
    for session in played.sessions:
        asks = desk.asks(played, session)
        asked.append(asks)
        for ask in asks:
            desk.broker.enter(ask.ticket(ask.order.shares), session.number)
        desk.close(played, session)
    return asked


@pytest.mark.parametrize("moved_from", [4, 5])
@pytest.mark.parametrize("make", AGENTS.values(), ids=AGENTS)
def test_no_agent_sees_the_close_of_its_own_session_or_later(make: MakeAgent, moved_from: int) -> None:
    as_it_was, with_another_future = asked_by_session(make, None), asked_by_session(make, moved_from)

    last_unaware = moved_from + 1
    assert as_it_was[:last_unaware] == with_another_future[:last_unaware]
    assert as_it_was[last_unaware:] != with_another_future[last_unaware:]  # the change is seen, a session later
    assert any(as_it_was[:last_unaware])


@pytest.mark.parametrize("make", AGENTS.values(), ids=AGENTS)
def test_a_run_is_the_same_for_the_same_seed(make: MakeAgent) -> None:
    played = tape(prices())

    first, _ = run_without_gateway(make(), played, 1e6, 7, 0.99, HISTORY_DAYS)
    again, _ = run_without_gateway(make(), played, 1e6, 7, 0.99, HISTORY_DAYS)
    other, _ = run_without_gateway(make(), played, 1e6, 8, 0.99, HISTORY_DAYS)

    assert first.curve == again.curve
    assert first.curve != other.curve


def test_momentum_holds_the_strongest_and_nothing_short() -> None:
    closes = np.ones((130, 20)) * np.linspace(1.0, 1.0 + 0.01 * np.arange(20), 130)
    closes *= 1.0 + 0.001 * np.sin(np.arange(130))[:, None]  # some volatility, else its inverse is infinite

    wanted = Momentum(holdings=6, gross=1.4).weights(closes, 0)

    assert wanted is not None
    assert list(np.flatnonzero(wanted)) == [14, 15, 16, 17, 18, 19]
    assert wanted.sum() == pytest.approx(1.4)
    assert (wanted >= 0).all()


def test_momentum_leaves_its_book_alone_between_rebalances() -> None:
    assert Momentum(every_sessions=5).weights(prices().closes, 3) is None


def test_mean_reversion_buys_what_fell_and_sells_what_rose() -> None:
    closes = np.full((20, 3), 100.0)
    closes[-1] = [90.0, 100.0, 110.0]

    wanted = MeanReversion(deadband=1.0, weight_per_sigma=0.06, weight_max=0.18).weights(closes)

    # a single jump of 10 in 20 days is 4.25 standard deviations from the average: the cap holds
    assert wanted == pytest.approx([0.18, 0.0, -0.18])


def test_the_long_short_book_is_neutral_and_shrinks_when_volatility_rises() -> None:
    agent = LongShort(volatility_target=0.10, gross_max=100.0)
    calm, wild = prices(seed=3).closes, prices(seed=3).closes.copy()
    moves = calm[1:] / calm[:-1] - 1.0
    moves[-agent.volatility_days :] *= 2.0
    wild[1:] = wild[0] * np.cumprod(1.0 + moves, axis=0)

    quiet, loud = agent.weights(calm, 0), agent.weights(wild, 0)

    assert quiet is not None and loud is not None
    assert quiet.sum() == pytest.approx(0.0)
    assert np.abs(loud).sum() < np.abs(quiet).sum()


def test_orders_that_reduce_come_first_and_open_orders_count_as_held() -> None:
    played = tape(prices())
    desk = Desk(MeanReversion(), PaperBroker("reversion", 1e6, seed=1))
    session = played.sessions[0]
    first = desk.asks(played, session)
    for ask in first:
        desk.broker.enter(ask.ticket(ask.order.shares), session.number)

    assert first
    assert desk.asks(played, session) == []

    desk.broker.open.clear()
    held = first[-1].order
    desk.broker.positions[held.symbol] = -held.sign * 1_000
    assert desk.asks(played, session)[0].order.symbol == held.symbol


def test_limit_orders_wait_on_the_better_side_of_the_last_close_and_on_the_tick() -> None:
    played = tape(prices())
    session = played.sessions[0]
    desk = Desk(MeanReversion(), PaperBroker("reversion", 1e6, seed=1))

    for order in (ask.order for ask in desk.asks(played, session)):
        assert order.limit_price is not None
        assert order.sign * (played.opening(session)[order.symbol] - order.limit_price) > 0
        assert order.limit_price == round(order.limit_price, 2)


@pytest.mark.parametrize(
    ("held", "open_sell", "sold", "short"), [(10, 0, 10, False), (10, 5, 10, True), (0, 0, 1, True)]
)
def test_a_sell_that_leads_below_zero_is_marked_short(held: int, open_sell: int, sold: int, short: bool) -> None:
    broker = PaperBroker("a", 1e6, seed=1)
    broker.positions["S00"] = held
    if open_sell:
        broker.enter(Ticket("open", "S00", -1, open_sell, limit_price=99.0), 0)
    desk = Desk(MeanReversion(), broker)

    assert desk.sells_short(Order("S00", -sold)) is short
