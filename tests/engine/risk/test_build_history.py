"""The day rows of a risk model: point in time, complete or visibly not, in the base currency; and betas.

Closes are random walks or written by hand, on the weekdays before SESSION.
"""

import time
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from engine.risk.build import build_model, slopes
from engine.risk.history import PriceHistory
from tests.engine.risk.builders import SESSION, book, history, instrument, levels, stock, walk, weekdays

DAYS = 300


def test_756_returns_come_from_the_last_757_closes_before_the_session() -> None:
    closes = levels(walk(999, seed=1))

    model = build_model(book(stock("A")), "set", history({"A": closes}), SESSION, built_time_us=5)

    assert model.n_days == 756 and model.returns.shape == (756 + 6, 1)
    assert model.returns[0, 0] == closes[-756] / closes[-757] - 1
    assert model.returns[755, 0] == closes[-1] / closes[-2] - 1
    assert model.dates[-1] == model.last_price_date == date(2024, 1, 1) and len(model.dates) == 756
    assert (model.session_date, model.built_time_us, model.instrument_set) == (SESSION, 5, "set")


def test_closes_of_the_session_and_later_cannot_matter() -> None:
    dates = (*weekdays(DAYS + 1), SESSION, date(2024, 1, 3))
    known = {name: levels(walk(DAYS, seed)) for name, seed in (("A", 1), ("B", 2))}
    index = levels(walk(DAYS, seed=3))
    model_of_future = [
        build_model(
            book(stock("A"), stock("B")),
            "set",
            history(
                {name: np.append(closes, future) for name, closes in known.items()},
                {"SP500": np.append(index, future)},
                dates,
            ),
            SESSION,
            built_time_us=0,
        ).hash
        for future in ([100.0, 101.0], [1e9, 1e-9], [np.nan, -1.0])
    ]
    past_only = build_model(book(stock("A"), stock("B")), "set", history(known, {"SP500": index}), SESSION, 0)

    assert set(model_of_future) == {past_only.hash}


def test_the_last_close_before_the_session_does_matter() -> None:
    closes = levels(walk(DAYS, seed=1))
    changed = np.append(closes[:-1], closes[-1] * 1.01)

    model, other = (build_model(book(stock("A")), "s", history({"A": c}), SESSION, 0) for c in (closes, changed))

    assert model.hash != other.hash


@pytest.mark.parametrize(
    ("row", "close", "reason"),
    [
        (3, np.nan, "A: no history: no close on 2022-11-10"),
        (3, 0.0, "A: no history: close 0 is not a price on 2022-11-10"),
        (3, -37.63, "A: no history: close -37.63 is not a price on 2022-11-10"),
        (3, np.inf, "A: no history: close inf is not a price on 2022-11-10"),
        (DAYS, np.nan, "A: no history: no close on 2024-01-01"),
    ],
)
def test_one_bad_close_leaves_its_symbol_without_history_and_the_others_untouched(
    row: int, close: float, reason: str
) -> None:
    bad = levels(walk(DAYS, seed=1))
    bad[row] = close
    good = levels(walk(DAYS, seed=2))

    model = build_model(book(stock("A"), stock("B")), "s", history({"A": bad, "B": good}), SESSION, 0, DAYS)

    assert model.has_history.tolist() == [False, True]
    assert np.isnan(model.returns[:DAYS, 0]).all()
    np.testing.assert_array_equal(model.returns[:DAYS, 1], good[1:] / good[:-1] - 1)
    assert reason in model.warnings


def test_a_symbol_without_any_close_has_no_history() -> None:
    model = build_model(book(stock("NEW")), "s", history({"A": levels(walk(DAYS, seed=1))}), SESSION, 0, DAYS)

    assert not model.has_history[0]
    assert "NEW: no history: no closes in the price history" in model.warnings


def test_a_declared_proxy_stands_in_and_says_so() -> None:
    old = levels(walk(DAYS, seed=1))
    young = np.concatenate((np.full(200, np.nan), old[200:]))

    model = build_model(book(stock("Y", proxy="OLD")), "s", history({"OLD": old, "Y": young}), SESSION, 0, DAYS)

    assert model.has_history.tolist() == [True]
    np.testing.assert_array_equal(model.returns[:DAYS, 0], old[1:] / old[:-1] - 1)
    assert any(warning.startswith("Y: history of its proxy OLD: no close on") for warning in model.warnings)


def test_a_proxy_without_history_helps_nobody() -> None:
    young = np.full(DAYS + 1, np.nan)

    model = build_model(
        book(stock("Y", proxy="GONE")), "s", history({"A": levels(walk(DAYS, 1)), "Y": young}), SESSION, 0, DAYS
    )

    assert not model.has_history[0]
    assert any("proxy GONE: no closes in the price history" in warning for warning in model.warnings)


def test_a_short_history_is_used_and_said() -> None:
    model = build_model(book(stock("A")), "s", history({"A": levels(walk(DAYS, seed=1))}), SESSION, 0)

    assert (model.n_days, model.lookback_days) == (300, 756)
    assert model.has_history.all()
    assert "price history: 300 days of 756 asked for" in model.warnings


@pytest.mark.parametrize(("days", "enough"), [(250, True), (249, False), (1, False)])
def test_fewer_than_250_days_are_no_history_for_anybody(days: int, enough: bool) -> None:
    model = build_model(book(stock("A")), "s", history({"A": levels(walk(days, seed=1))}), SESSION, 0)

    assert model.n_days == days and model.has_history.tolist() == [enough]
    assert np.isfinite(model.returns[:days]).all() == enough


def test_not_even_cash_has_a_history_of_fewer_than_250_days() -> None:
    model = build_model(book(instrument("USD", "fx")), "s", history({"A": levels(walk(249, seed=1))}), SESSION, 0)

    assert not model.has_history.any()


def test_no_closes_at_all_still_give_the_scenarios() -> None:
    nothing = PriceHistory((), ("A",), np.empty((0, 1)))

    model = build_model(book(stock("A", factors={"SP500": 1.0})), "s", nothing, SESSION, 0)

    assert model.n_days == 0 and model.last_price_date == date.min
    assert not model.has_history.any() and model.has_factor.all()
    assert model.returns.min() == -0.30


def test_weekends_are_no_rows_and_a_day_that_one_symbol_lacks_is_one() -> None:
    friday, monday, tuesday = date(2023, 12, 29), date(2024, 1, 1), SESSION
    dates = (friday, date(2023, 12, 30), date(2023, 12, 31), monday, tuesday)
    closes = np.array([[1.0, 1.0], [np.nan, 2.0], [np.nan, 3.0], [np.nan, 4.0], [5.0, 5.0]])

    window = PriceHistory(dates, ("STOCK", "COIN"), closes).window(before=tuesday, rows=10)

    assert window.dates == (friday, monday)
    np.testing.assert_array_equal(window.closes, [[1.0, 1.0], [np.nan, 4.0]])


def test_a_day_without_any_close_is_a_holiday() -> None:
    closes = np.array([[1.0], [np.nan], [2.0]])

    window = PriceHistory(weekdays(3), ("A",), closes).window(before=SESSION, rows=10)

    assert window.closes.tolist() == [[1.0], [2.0]]


def test_a_foreign_stock_moves_with_its_price_and_its_currency_together() -> None:
    local, rate = walk(DAYS, seed=1), walk(DAYS, seed=2)
    prices = history({"PETR4": levels(local)}, {"USDBRL": levels(rate, 5.0)})

    model = build_model(book(instrument("PETR4", currency="BRL")), "s", prices, SESSION, 0, DAYS)

    np.testing.assert_allclose(model.returns[:DAYS, 0], (1 + local) / (1 + rate) - 1, atol=1e-12)


def test_a_rate_quoted_the_other_way_is_used_as_it_is() -> None:
    local, rate = walk(DAYS, seed=1), walk(DAYS, seed=2)
    prices = history({"SAP": levels(local)}, {"EURUSD": levels(rate, 1.1)})

    model = build_model(book(instrument("SAP", currency="EUR")), "s", prices, SESSION, 0, DAYS)

    np.testing.assert_allclose(model.returns[:DAYS, 0], (1 + local) * (1 + rate) - 1, atol=1e-12)


def test_a_foreign_future_and_a_pair_settle_only_their_gain_abroad() -> None:
    local, rate = walk(DAYS, seed=1), walk(DAYS, seed=2)
    instruments = book(instrument("IND", "future", "BRL"), instrument("USDBRL", "fx", "BRL"))
    prices = history({"IND": levels(local), "USDBRL": levels(rate, 5.0)})

    model = build_model(instruments, "s", prices, SESSION, 0, DAYS)

    np.testing.assert_allclose(model.returns[:DAYS, 0], local / (1 + rate), atol=1e-12)
    np.testing.assert_allclose(model.returns[:DAYS, 1], rate / (1 + rate), atol=1e-12)


def test_foreign_cash_needs_no_closes_but_a_rate() -> None:
    rate = walk(DAYS, seed=2)
    instruments = book(instrument("BRL", "fx", "BRL"), instrument("EUR", "fx", "EUR"), instrument("USD", "fx", "USD"))

    model = build_model(instruments, "s", history({"USDBRL": levels(rate, 5.0)}), SESSION, 0, DAYS)

    np.testing.assert_allclose(model.returns[:DAYS, model.column["BRL"]], 1 / (1 + rate) - 1, atol=1e-12)
    assert not model.has_history[model.column["EUR"]]
    assert (model.returns[:DAYS, model.column["USD"]] == 0).all()


def test_a_foreign_stock_without_a_rate_has_no_history() -> None:
    model = build_model(
        book(instrument("SAP", currency="EUR")), "s", history({"SAP": levels(walk(DAYS, 1))}), SESSION, 0, DAYS
    )

    assert not model.has_history[0]
    assert "SAP: no history: no faultless exchange rate USDEUR or EURUSD" in model.warnings


def test_betas_are_least_squares_slopes() -> None:
    index, own = walk(DAYS, seed=1), walk(DAYS, seed=2)
    shares = np.array([1.3 * index + own, -0.5 * index, 2.0 * index + 0.01])

    betas = slopes(shares, index)

    np.testing.assert_allclose(betas, [np.polyfit(index, share, 1)[0] for share in shares], rtol=1e-9)
    np.testing.assert_allclose(betas[0], np.cov(shares[0], index, ddof=1)[0, 1] / np.var(index, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(betas[1:], [-0.5, 2.0], rtol=1e-9)


def test_a_beta_is_of_the_lookback_only() -> None:
    index = walk(2 * DAYS, seed=1)
    share = np.concatenate((3.0 * index[:DAYS], 0.7 * index[DAYS:]))
    prices = history({"A": levels(share)}, {"SP500": levels(index)})

    model = build_model(book(stock("A"), stock("B")), "s", prices, SESSION, 0, DAYS)

    assert model.betas[0] == pytest.approx(0.7)
    assert np.isnan(model.betas[1])


def test_a_jump_and_stale_closes_are_reported() -> None:
    jump, stale = walk(DAYS, seed=1), walk(DAYS, seed=2)
    jump[10] = -2 / 3
    stale[:100] = 0.0

    model = build_model(
        book(stock("RRC"), stock("OLD")), "s", history({"RRC": levels(jump), "OLD": levels(stale)}), SESSION, 0, DAYS
    )

    assert model.has_history.all()
    assert "RRC: a day of -66.7%: expected adjusted closes, is it a split?" in model.warnings
    assert "OLD: close unchanged on 33% of the days: its VaR is too low" in model.warnings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dates": tuple(reversed(weekdays(2)))}, "dates: expected each once and rising"),
        ({"dates": (SESSION, SESSION)}, "dates: expected each once and rising"),
        ({"symbols": ("A", "A"), "closes": np.ones((2, 2))}, "symbols: expected each once"),
        ({"closes": np.ones((3, 1))}, "closes: expected shape"),
        ({"indices": {"SP500": np.ones(3)}}, "indices.SP500: expected shape"),
    ],
)
def test_a_history_that_contradicts_itself_is_refused(fields: dict[str, object], message: str) -> None:
    sound = PriceHistory(weekdays(2), ("A",), np.ones((2, 1)))

    with pytest.raises(ValueError, match=message):
        replace(sound, **fields)  # type: ignore[arg-type]


def test_a_lookback_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="lookback_days"):
        build_model(book(stock("A")), "s", history({"A": np.ones(2)}), SESSION, 0, lookback_days=0)


def test_500_symbols_build_well_within_the_refresh() -> None:
    closes = {f"S{place:03}": levels(walk(756, seed=place)) for place in range(500)}
    prices = history(closes, {"SP500": levels(walk(756, seed=999))})
    instruments = book(*(stock(symbol) for symbol in closes))

    elapsed_s = []
    for _ in range(3):
        start_s = time.perf_counter()
        build_model(instruments, "s", prices, SESSION, 0)
        elapsed_s.append(time.perf_counter() - start_s)

    assert min(elapsed_s) < 0.25  # about 0.05 s; the bound leaves room for a busy machine
