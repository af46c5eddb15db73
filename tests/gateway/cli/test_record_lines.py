"""Records in words: each kind says what matters of it, and a kind without words of its own shows its fields."""

import pytest

from engine.control import Scope, TradingState
from engine.order import Reason
from engine.records import (
    AccountOpened,
    AnyRecord,
    CashFlowed,
    Executed,
    FeeCharged,
    Instructed,
    InstructionKind,
    Latch,
    Latched,
    Listed,
    Quoted,
    Rate,
    Reconciled,
    ReconciledPosition,
    SessionOpened,
    Valued,
)
from gateway.cli.record_lines import lot_sizes_in, record_line

NOON_US = 1_700_049_600_123_456
HELD = (ReconciledPosition("s", "AAA", 3),)
MARKS = {f"S{n}": Quoted(10.0 + n, None, None, NOON_US) for n in range(8)}
LATCH = Latch(Scope("ALPHA"), TradingState.REDUCE_ONLY, 3, "a fill that nothing covers")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (AccountOpened(time_us=NOON_US, event_id="e", base_currency="USD", cash={"USD": 1e6}), "1,000,000.00 USD · 0 "),
        (Listed(time_us=NOON_US, symbol="ES", unit=50, lot_size=1, tick_size=0.25, currency="USD",
                settles_variation=True),
         "ES in USD, lot 1, tick 0.25, settles variation"),
        (SessionOpened(time_us=NOON_US, date="2023-11-15"), "2023-11-15"),
        (Valued(time_us=NOON_US, marks=MARKS, fx={"EUR": Rate(1.1, NOON_US)}),
         "S0 10, S1 11, S2 12, S3 13, S4 14, S5 15 and 2 more · rates EUR 1.1"),
        (CashFlowed(time_us=NOON_US, event_id="e", amount=-500.0, currency="EUR"), "-500.00 EUR"),
        (FeeCharged(time_us=NOON_US, event_id="e", amount=3.0, currency="USD", strategy="s"), "3.00 USD for s"),
        (Reconciled(time_us=NOON_US, reason="", positions=HELD, open_orders={"a": 1}, differences=("AAA: 1, 3",)),
         "1 positions · 1 open orders · 1 differences: AAA: 1, 3 · no reason given"),
        (Instructed(time_us=NOON_US, instruction_id="i", kind=InstructionKind.CANCEL, client_order_id="o",
                    reason=Reason.POSITION, message="too much", deadline_us=NOON_US + 5_000_000),
         "instruction_id i · kind CANCEL · client_order_id o · reason POSITION · message too much"
         " · deadline 2023-11-15 12:00:05.123"),
        (Latched(time_us=NOON_US, latch=LATCH), "REDUCE_ONLY account ALPHA: a fill that nothing covers"),
        (Executed(time_us=NOON_US, execution_id="x", client_order_id="o", kind="fill", strategy="s", symbol="AAA",
                  sign=-1, lots=3, price=9.5, cumulative_lots=7, fee=0.5, fee_currency="USD", flags=("overfill",)),
         "fill sell AAA 30 at 9.5 · 70 filled so far · fee 0.50 USD · ⚠ overfill · id o · execution x"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)  # fmt: skip
def test_a_record_says_what_matters_of_it(record: AnyRecord, words: str) -> None:
    line = record_line(12, record, {"AAA": 10.0}).plain

    assert line.startswith("2023-11-15 12:00:00.123       12  e0 ")
    assert words in line


def test_lots_of_an_unknown_size_are_called_lots() -> None:
    fill = Executed(
        time_us=NOON_US,
        execution_id="x",
        client_order_id="o",
        kind="fill",
        strategy="",
        symbol="AAA",
        sign=1,
        lots=1_000,
        price=1.0,
    )

    assert "fill buy AAA 1,000 lots at 1" in record_line(1, fill, {}).plain


def test_the_sizes_of_lots_are_learnt_from_openings_and_listings() -> None:
    listed = Listed(time_us=NOON_US, symbol="AAA", unit=100, lot_size=100, tick_size=0.01, currency="USD")
    opened = AccountOpened(time_us=NOON_US, event_id="e", base_currency="USD", cash={}, listed=(listed,))

    assert lot_sizes_in(listed) == lot_sizes_in(opened) == {"AAA": 100}
