"""Prices and Greeks of European options: one vectorised formula for Black-Scholes-Merton and Black-76.

The generalised Black-Scholes formula with cost of carry b (Haug, "The Complete Guide to Option Pricing Formulas", 2nd
ed. 2007, section 1.1.6): b = r - q on a spot with dividend yield q, b = 0 on a future. Arrays broadcast; there is no
loop over options. Time is a year fraction ACT/365F from instants; an expiry is a date and falls on EXPIRY_TIME of it.
American options belong to american.py, the inverse to implied.py, instruments and books to options.py and greeks.py.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

EXPIRY_TIME = time(21, 0, tzinfo=UTC)
"""When an option ends on its date: the close of New York in winter and of São Paulo, the later of the two in summer. An
hour too late ages nothing that counts; an hour too early would call a live option dead."""

YEAR_US = 365 * 24 * 3600 * 1_000_000
"""ACT/365F."""

DAYS_A_YEAR = 365.0
POINT = 0.01
"""One volatility point, one percentage point."""

_ROOT_TWO_PI = float(np.sqrt(2.0 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class Greeks:
    """Price and sensitivities per unit, each of one shape, in the option's currency."""

    price: Floats
    delta: Floats
    """Units of the underlying per unit."""
    gamma: Floats
    """Change of delta per 1 of the underlying's price."""
    vega: Floats
    """Change of price per volatility point (0.01)."""
    theta: Floats
    """Change of price per calendar day, spot and volatility unchanged: as a rule negative."""
    rho: Floats
    """Change of price per percentage point (0.01) of the rate; on a spot the dividend yield stays, on a future it is
    the discount alone."""


def expiry_us(expiry: date) -> int:
    """When an option of this date ends, in microseconds since the epoch: EXPIRY_TIME."""
    return int(datetime.combine(expiry, EXPIRY_TIME).timestamp()) * 1_000_000


def years_to(expiry: date, now_us: int) -> float:
    """Years from an instant to the end of an option, ACT/365F; below 0 once it is over."""
    return (expiry_us(expiry) - now_us) / YEAR_US


def price(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    volatility: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    sign: ArrayLike,
) -> Floats:
    """Prices of European options, in the unit of `spot` and `strike`, of the shape that the arguments broadcast to.

    w·(S·e^((b-r)T)·N(w·d1) - K·e^(-rT)·N(w·d2)), d1 = (ln(S/K) + bT)/(σ√T) + σ√T/2, d2 = d1 - σ√T, w = `sign`: +1 for a
    call, -1 for a put. `spot` 0 or above (0: worth nothing, for good), `strike` above 0, `years` and `volatility` 0 or
    above (either 0: what the forward is worth in the money, discounted; at T = 0 the intrinsic value), `rate` and
    `carry` continuously compounded fractions a year. Raises ValueError naming the argument that is not so.
    """
    spot, strike, years, volatility, rate, carry, sign = checked_arguments(
        spot, strike, years, volatility, rate, carry, sign
    )
    shape = np.broadcast(spot, strike, years, volatility, rate, carry, sign).shape
    return price_of_checked(np.broadcast_to(spot, shape), strike, years, volatility, rate, carry, sign)


def price_of_checked(
    spot: Floats, strike: Floats, years: Floats, volatility: Floats, rate: Floats, carry: Floats, sign: Floats
) -> Floats:
    """`price` without its checks, for inner loops over arguments that were checked once; `spot` has the shape that all
    of them broadcast to."""
    deviation = volatility * np.sqrt(years)
    d1, d2 = _distances(spot, strike, years, carry, deviation)
    d1 *= sign
    d2 *= sign
    value: Floats = ndtr(d1, out=d1)
    value *= spot * (sign * np.exp((carry - rate) * years))
    paid = ndtr(d2, out=d2)
    paid *= sign * strike * np.exp(-rate * years)
    value -= paid
    return np.maximum(value, 0.0, out=value)


def greeks(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    volatility: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    sign: ArrayLike,
    on_future: ArrayLike,
) -> Greeks:
    """Price and Greeks of European options; arguments and errors as of `price`.

    `on_future`: whether a change of the rate leaves the carry alone (Black-76) or moves it along (a spot, whose
    dividend yield stays). Closed forms of Haug, chapter 2. At T = 0 (or volatility 0): delta is that of what the option
    has become (w or 0, half at the money), gamma and vega are 0, and at T = 0 theta and rho too.
    """
    spot, strike, years, volatility, rate, carry, sign = checked_arguments(
        spot, strike, years, volatility, rate, carry, sign
    )
    future = np.asarray(on_future, dtype=np.bool_)
    deviation = volatility * np.sqrt(years)
    d1, d2 = _distances(spot, strike, years, carry, deviation)
    grown, discount = np.exp((carry - rate) * years), np.exp(-rate * years)
    held, paid = sign * spot * grown * ndtr(sign * d1), sign * strike * discount * ndtr(sign * d2)
    value = np.maximum(held - paid, 0.0)
    density = np.exp(-0.5 * d1 * d1) / _ROOT_TWO_PI
    with np.errstate(divide="ignore", invalid="ignore"):
        gamma = np.where((deviation > 0) & (spot > 0), grown * density / (spot * deviation), 0.0)
        decay = np.where(deviation > 0, spot * grown * density * volatility / (2.0 * np.sqrt(years)), 0.0)
    vega = spot * grown * density * np.sqrt(years)
    theta = np.where(years > 0, -decay - (carry - rate) * held - rate * paid, 0.0)
    shape = np.broadcast(value, rate, future).shape

    def full(values: Floats) -> Floats:
        return np.broadcast_to(values, shape).copy()

    return Greeks(
        price=full(value),
        delta=full(sign * grown * ndtr(sign * d1)),
        gamma=full(gamma),
        vega=full(np.where(deviation > 0, vega, 0.0) * POINT),
        theta=full(theta / DAYS_A_YEAR),
        rho=full(np.where(future, -years * value, years * paid) * POINT),
    )


def _distances(spot: Floats, strike: Floats, years: Floats, carry: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """d1 and d2, arrays of their own. Where nothing can deviate, ±infinity on either side of the strike, 0 on it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        forward = np.log(spot / strike) + carry * years
        middle = forward / deviation
        if not deviation.all():
            middle = np.where(deviation > 0, middle, np.where(forward == 0, 0.0, np.copysign(np.inf, forward)))
    half = 0.5 * deviation
    return np.asarray(middle + half), np.asarray(middle - half)


_LEAST = {"strike": "above 0", "spot": "0 or above", "years": "0 or above", "volatility": "0 or above"}


def checked_arguments(*arguments: ArrayLike) -> tuple[Floats, ...]:
    """The arguments of `price`, in its order, as arrays. Raises ValueError as it does."""
    names = ("spot", "strike", "years", "volatility", "rate", "carry", "sign")
    arrays = tuple(np.asarray(argument, dtype=np.float64) for argument in arguments)
    for name, array in zip(names, arrays, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        if name in _LEAST and ((array < 0).any() or (name == "strike" and not array.all())):
            raise ValueError(f"{name}: expected numbers {_LEAST[name]}, got {float(array.min())}")
    if not (np.abs(arrays[-1]) == 1.0).all():
        raise ValueError("sign: expected +1 for calls and -1 for puts")
    np.broadcast(*arrays)  # raises ValueError where shapes don't fit
    return arrays
