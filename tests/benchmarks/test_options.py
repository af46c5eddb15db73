"""How long options take: revaluation over 756 joint moves of spot and volatility against a plain loop, implied
volatilities, American options by their surfaces, and a whole risk model.

Small by default, so that it cannot rot; BENCH=full takes 10,000 options (the aim: European ones in under 2 s on one
core). It prints times and asserts only what must be true of the numbers: that fast and slow agree.
"""

import math
import os
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import TypeVar

import numpy as np
import pytest

from engine.instrument import Instrument
from engine.risk.american import american_price
from engine.risk.build import build_model
from engine.risk.implied import implied_volatility
from engine.risk.model import RiskModel
from engine.risk.options import OptionBook, book_of
from engine.risk.pricing import price
from tests.engine.risk.builders import SESSION, book, history, levels, option, stock, walk

FULL = os.environ.get("BENCH") == "full"
OPTIONS = 10_000 if FULL else 300
AMERICAN = 1_000 if FULL else 20
EXPIRIES = 12 if FULL else 2
DAYS = 756
UNDERLYINGS = tuple(f"U{at:02}" for at in range(20))
LOOPED = 40_000 if FULL else 4_000
"""Prices of the plain loop: its time for all of them is their number times the time of one."""

Result = TypeVar("Result")


def timed(what: str, run: Callable[[], Result]) -> tuple[Result, float]:
    started_s = time.perf_counter()
    result = run()
    took_s = time.perf_counter() - started_s
    print(f"{what:<72}{took_s * 1e3:>10.1f} ms")
    return result, took_s


def chain(count: int, style: str, names: tuple[str, ...]) -> list[Instrument]:
    """Strikes around 100, weekly expiries, both rights."""
    random = np.random.default_rng(11)
    strikes, volatilities = 100.0 * np.exp(random.normal(0.0, 0.2, count)), random.uniform(0.1, 0.8, count)
    return [
        option(
            f"{style}{at:05}",
            float(strikes[at]),
            "put" if at % 2 else "call",
            names[at % len(names)],
            SESSION + timedelta(days=14 + 7 * (at // len(names) % EXPIRIES)),
            style,
            volatility=float(volatilities[at]),
            dividend_yield=0.01,
        )
        for at in range(count)
    ]


def built(options: list[Instrument]) -> tuple[RiskModel, OptionBook]:
    closes = {name: levels(walk(DAYS, seed=at)) for at, name in enumerate(UNDERLYINGS)}
    prices = history(closes, {"SP500": levels(walk(DAYS, seed=99)), "VOL": 20 + 5 * np.sin(np.arange(DAYS + 1))})
    instruments = book(*(stock(name) for name in UNDERLYINGS), *options)
    marks = dict.fromkeys(UNDERLYINGS, 100.0)
    what = f"risk model with {len(options):,} options of {len(UNDERLYINGS)} underlyings, whole"
    model, _ = timed(what, lambda: build_model(instruments, "s", prices, SESSION, 0, marks=marks))
    assert model.has_history.all() and model.has_factor.all()
    return model, book_of(model, instruments)


def plain_price(
    spot: float, strike: float, years: float, volatility: float, rate: float, carry: float, sign: float
) -> float:
    """What a loop would call: math alone."""
    deviation = volatility * math.sqrt(years)
    d1 = (math.log(spot / strike) + carry * years) / deviation + 0.5 * deviation
    held = spot * math.exp((carry - rate) * years) * 0.5 * math.erfc(-sign * d1 / math.sqrt(2))
    paid = strike * math.exp(-rate * years) * 0.5 * math.erfc(-sign * (d1 - deviation) / math.sqrt(2))
    return sign * (held - paid)


def looped(found: OptionBook, moves: np.ndarray, changes: np.ndarray, of: np.ndarray) -> list[list[float]]:
    rows = moves.shape[1]
    return [
        [
            plain_price(
                found.spot.item(at) * (1.0 + moves.item(of.item(at), row)),
                found.strike.item(at),
                found.years.item(at),
                max(found.volatility.item(at) + changes.item(of.item(at), row), 0.01),
                found.rate.item(at),
                found.carry.item(at),
                found.sign.item(at),
            )
            for row in range(rows)
        ]
        for at in range(max(1, min(len(found), LOOPED // rows)))
    ]


def joint_moves() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    shape = (len(UNDERLYINGS), DAYS)
    return random.standard_t(4, shape) * 0.015, random.normal(0.0, 0.01, shape)


def followed(found: OptionBook) -> np.ndarray:
    return np.array([UNDERLYINGS.index(name) for name in found.underlyings], dtype=np.intp)


def test_european_options_revalued(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        _, found = built(chain(OPTIONS, "european", UNDERLYINGS))
        moves, changes = joint_moves()
        of = followed(found)
        what = f"{OPTIONS:,} European options over {DAYS} joint moves, spot and volatility"
        worth, fast_s = timed(what, lambda: found.values(moves, changes, of))
        timed("  the spot alone", lambda: found.values(moves, None, of))
        slow, slow_s = timed("  a plain loop over some of them", lambda: looped(found, moves, changes, of))
        per_price_s = slow_s / (len(slow) * DAYS)
        print(
            f"  the loop for all: {per_price_s * OPTIONS * DAYS:.1f} s, {per_price_s * OPTIONS * DAYS / fast_s:.0f} ×"
        )

    np.testing.assert_allclose(worth[: len(slow)], slow, atol=1e-10)


def test_implied_volatilities(capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(3)
    strike = 100.0 * np.exp(random.normal(0.0, 0.1, OPTIONS))
    volatility, sign = random.uniform(0.1, 0.8, OPTIONS), random.choice([-1.0, 1.0], OPTIONS)
    paid = price(100.0, strike, 0.5, volatility, 0.03, 0.01, sign)
    with capsys.disabled():
        print()
        what = f"{OPTIONS:,} implied volatilities"
        found, _ = timed(what, lambda: implied_volatility(paid, 100.0, strike, 0.5, 0.03, 0.01, sign))

    assert not found.failure.any()
    np.testing.assert_allclose(found.volatility, volatility, rtol=1e-8)


def test_american_options_revalued(capsys: pytest.CaptureFixture[str]) -> None:
    names = UNDERLYINGS if FULL else UNDERLYINGS[:2]
    with capsys.disabled():
        print()
        _, found = built(chain(AMERICAN, "american", names))
        moves, changes = joint_moves()
        of = followed(found)
        what = f"{AMERICAN:,} American options over {DAYS} joint moves, {len(found.surfaces)} surfaces"
        worth, fast_s = timed(what, lambda: found.values(moves, changes, of))
        rows = slice(0, 20)
        spot = found.spot[:20, None] * (1.0 + moves[of[:20], rows])
        volatility = np.maximum(found.volatility[:20, None] + changes[of[:20], rows], 0.01)
        columns = (found.years[:20, None], volatility, found.rate[:20, None], found.carry[:20, None])
        exact, slow_s = timed(
            f"  {spot.size} of them priced one by one",
            lambda: american_price(spot, found.strike[:20, None], *columns, found.sign[:20, None]),
        )
        error = (np.abs(worth[:20, rows] - exact) / found.strike[:20, None]).max()
        every = slow_s / spot.size * worth.size
        print(f"  one by one for all: {every:.1f} s, {every / fast_s:.0f} ×")
        print(f"  error stated {found.interpolation_error:.1e} of the strike, found {error:.1e}")

    assert error <= 2.0 * found.interpolation_error


def test_surfaces_are_shared_by_strikes() -> None:
    options = [
        option(f"P{k}", float(k), "put", "U00", date(2024, 3, 15), "american", volatility=0.3) for k in (90, 110)
    ]
    _, found = built(options)

    assert len(found.surfaces) == 1
