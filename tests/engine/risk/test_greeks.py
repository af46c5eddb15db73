"""Greeks of a book: additive, in the units of NUMERICS, at the marks of now, with the unvalued named."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from engine.instrument import Instrument
from engine.risk.greeks import LINES, BookGreeks, book_greeks
from engine.risk.options import OptionBook, OptionMarket, value_options
from engine.risk.pricing import greeks, price
from tests.engine.risk.builders import book, instrument, option, stock

NOW_US = 1_704_153_600_000_000  # 2024-01-02 00:00 UTC
YEARS = 182.875 / 365
CALL = option("A_C", 100.0, volatility=0.2)
CALL_100 = Instrument(**{field: getattr(CALL, field) for field in CALL.__struct_fields__} | {"multiplier": 100.0})
PUT_B = option("B_P", 50.0, "put", underlying="B", volatility=0.3, currency="EUR")
INSTRUMENTS = book(
    stock("A"),
    CALL_100,
    option("A_P", 90.0, "put", expiry=date(2024, 3, 15), volatility=0.25),
    instrument("A_FUT", "future", underlying="A", multiplier=50.0),
    stock("B", currency="EUR"),
    PUT_B,
)


def valued(spots: dict[str, float]) -> OptionBook:
    options = [one for one in INSTRUMENTS.values() if one.option is not None]
    return value_options(options, INSTRUMENTS, OptionMarket(NOW_US, spots, {}, date(2023, 12, 29), {})).book


BOOK = valued({"A": 100.0, "B": 50.0})
MARKS = {"A": 100.0, "B": 50.0, "A_FUT": 101.0}


def of(quantities: dict[str, float], marks: dict[str, float] = MARKS, **rates: float) -> BookGreeks:
    return book_greeks(quantities, INSTRUMENTS, BOOK, marks, {"USD": 1.0, "EUR": 1.1} | rates)


def values(line: Any) -> list[float]:
    return [getattr(line, name) for name in LINES]


def test_one_option_by_hand() -> None:
    unit = greeks(100.0, 100.0, YEARS, 0.2, 0.03, 0.03, 1.0, False)
    (line,) = of({"A_C": 3.0}).by_position

    by_hand = [
        300 * unit.delta,
        300 * unit.delta * 100.0,
        0.01 * 300 * unit.gamma * 100.0**2,
        300 * unit.vega,
        300 * unit.theta,
        300 * unit.rho,
    ]
    assert values(line) == pytest.approx([float(value) for value in by_hand], rel=1e-12)


def test_linear_instruments_have_a_delta_of_one() -> None:
    found = of({"A": -20.0, "A_FUT": 2.0, "B": 10.0})

    assert [values(line) for line in found.by_position] == [
        [-20.0, -2_000.0, 0, 0, 0, 0],
        [100.0, 10_100.0, 0, 0, 0, 0],
        [10.0, pytest.approx(550.0), 0, 0, 0, 0],
    ]
    assert [line.name for line in found.by_underlying] == ["A", "B"]
    assert values(found.by_underlying[0]) == [80.0, 8_100.0, 0, 0, 0, 0]


def test_foreign_greeks_are_in_base_currency_but_for_the_units() -> None:
    (dear,), (par,) = of({"B_P": 7.0}).by_position, of({"B_P": 7.0}, EUR=1.0).by_position

    assert dear.delta == par.delta
    assert values(dear)[1:] == pytest.approx([1.1 * value for value in values(par)[1:]])


def test_groups_and_the_net_are_sums() -> None:
    quantities = {"A": 100.0, "A_C": -4.0, "A_P": 250.0, "A_FUT": -1.0, "B": 60.0, "B_P": 80.0}
    found = of(quantities)

    table = np.array([values(line) for line in found.by_position])
    np.testing.assert_allclose(values(found.net), table.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(values(found.by_underlying[0]), table[:4].sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(values(found.by_underlying[1]), table[4:].sum(axis=0), rtol=1e-12)
    doubled = of({symbol: 2 * quantity for symbol, quantity in quantities.items()})
    np.testing.assert_allclose(values(doubled.net), 2 * np.array(values(found.net)), rtol=1e-12)
    assert found.left_out == ()


def test_they_follow_every_mark() -> None:
    """Dollar delta and gamma say what a move of 1 % brings: the revalued option agrees to third order."""
    before, after = of({"A_C": 1.0}), of({"A_C": 1.0}, MARKS | {"A": 101.0})

    now, then = (100 * float(price(spot, 100.0, YEARS, 0.2, 0.03, 0.03, 1.0)) for spot in (100.0, 101.0))
    expansion = 0.01 * before.net.dollar_delta + 0.5 * 0.01 * before.net.gamma_1pct
    assert then - now == pytest.approx(expansion, abs=0.02)
    assert after.net.delta == pytest.approx(before.net.delta + before.net.gamma_1pct / 100.0, abs=0.05)
    assert after.net.delta != before.net.delta


def test_what_is_not_counted_is_named() -> None:
    no_terms = option("A_X", 100.0)
    found = book_greeks(
        {"A_X": 1.0, "A": 1.0, "GONE": 2.0, "B": 3.0, "A_FUT": 1.0},
        INSTRUMENTS | {"A_X": no_terms},
        BOOK,
        {"A": 100.0, "A_FUT": 0.0, "B": 50.0},
        {"USD": 1.0},
    )

    assert {one.symbol: one.reason for one in found.left_out} == {
        "A_X": "the option could not be valued; the model's warnings say why",
        "GONE": "not in the instrument set",
        "B": "no exchange rate of EUR",
        "A_FUT": "no mark",
    }
    assert values(found.net) == [1.0, 100.0, 0, 0, 0, 0]


def test_nothing_held_is_no_risk() -> None:
    assert values(of({}).net) == [0.0] * 6 and of({}).by_underlying == ()


def test_a_quantity_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quantities\.A: expected"):
        of({"A": float("nan")})
