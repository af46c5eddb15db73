"""Implied volatility of European options in bulk: what the formula of pricing.py has to be fed to give a price.

Solved on the out-of-the-money time value, where the price says most about the volatility, as a root between a
volatility too low and one too high (Chandrupatla's bracketing, scipy). A price that no volatility explains is an
explicit failure of its element, never a number. American options: american.py.
"""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

from engine.instrument import VOLATILITY_MAX
from engine.risk.pricing import Floats, price_of_checked

VOLATILITY_MIN = 1e-4
"""A hundredth of a point a year: less is no market's, and a price that implies it has no time value to speak of."""

TIME_VALUE_MIN = 1e-13
"""Of the forward: what is left of a price in float64 once the intrinsic value is taken off is noise below this."""


class ImpliedFailure(enum.IntEnum):
    """Why a price implies no volatility, in order of precedence."""

    NONE = 0
    NOT_A_PRICE = 1
    """The price, spot or strike is not a finite number above 0, or an input is NaN."""
    EXPIRED = 2
    """No time is left: any volatility gives the same price."""
    NO_TIME_VALUE = 3
    """At or below the discounted intrinsic value of the forward: an arbitrage, or a mark too coarse to tell."""
    ABOVE_BOUND = 4
    """At or above what the underlying (a call) or the strike (a put) is worth now: an arbitrage."""
    OUT_OF_RANGE = 5
    """It would take a volatility below VOLATILITY_MIN or above VOLATILITY_MAX."""


@dataclass(frozen=True, slots=True, eq=False)
class ImpliedVolatility:
    """One element per price."""

    volatility: Floats
    """A fraction a year; NaN where `failure` is not NONE."""
    failure: NDArray[np.uint8]
    """Values of ImpliedFailure."""


def implied_volatility(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    sign: ArrayLike,
    price_slack: ArrayLike = 0.0,
) -> ImpliedVolatility:
    """The volatilities at which European options have these prices; arguments broadcast and are those of pricing.price.

    `price_slack`, in the unit of the price: a time value no larger than this (half a tick, say) counts as none. To
    about 1e-12 relative where the time value is not small against the price. Raises ValueError where shapes don't fit.
    """
    given = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (price, spot, strike, years, rate, carry)))
    shape = given[0].shape
    paid, spot, strike, years, rate, carry = (np.ravel(array) for array in given)
    sign = np.ravel(np.broadcast_to(np.asarray(sign, dtype=np.float64), shape))
    slack = np.ravel(np.broadcast_to(np.asarray(price_slack, dtype=np.float64), shape))

    with np.errstate(all="ignore"):  # what is not a price is named below, element by element
        asset, cash = spot * np.exp((carry - rate) * years), strike * np.exp(-rate * years)
        intrinsic = np.maximum(sign * (asset - cash), 0.0)
        time_value = paid - intrinsic
        least = np.maximum(slack, TIME_VALUE_MIN * np.maximum(asset, cash))
        usable = np.isfinite(asset) & np.isfinite(cash) & (spot > 0) & (strike > 0) & (paid > 0) & np.isfinite(paid)
    failure = np.select(
        [~usable, ~(years > 0), ~(time_value > least), paid >= np.where(sign > 0, asset, cash)],
        [
            ImpliedFailure.NOT_A_PRICE,
            ImpliedFailure.EXPIRED,
            ImpliedFailure.NO_TIME_VALUE,
            ImpliedFailure.ABOVE_BOUND,
        ],
        ImpliedFailure.NONE,
    ).astype(np.uint8)
    volatility = np.full(len(paid), np.nan)
    asked = np.flatnonzero(failure == ImpliedFailure.NONE)
    if asked.size:
        moneyness = np.log(asset[asked] / cash[asked])
        scale = np.minimum(asset[asked], cash[asked])
        found = _total_deviation(moneyness, time_value[asked] / scale, years[asked])
        volatility[asked] = found / np.sqrt(years[asked])
        failure[asked[np.isnan(found)]] = ImpliedFailure.OUT_OF_RANGE
    return ImpliedVolatility(volatility.reshape(shape), failure.reshape(shape))


def _total_deviation(moneyness: Floats, time_value: Floats, years: Floats) -> Floats:
    """σ√T of out-of-the-money options, (n,), NaN where it is out of range.

    By symmetry each is a call on 1 at the strike e^|moneyness|, undiscounted, worth `time_value`. The logarithm of its
    price is solved for: it stays close to straight where the price itself vanishes.
    """
    strike, target = np.exp(np.abs(moneyness)), np.log(time_value)

    def excess(deviation: Floats, strike: Floats, target: Floats) -> Floats:
        ones, zeros = np.ones_like(deviation), np.zeros_like(deviation)
        with np.errstate(divide="ignore"):
            worth = np.log(price_of_checked(ones, strike, ones, deviation, zeros, zeros, ones))
        return np.maximum(worth, _LOG_TINY) - target

    low, high = VOLATILITY_MIN * np.sqrt(years), VOLATILITY_MAX * np.sqrt(years)
    inside = (excess(low, strike, target) < 0) & (excess(high, strike, target) > 0)
    found = np.full_like(strike, np.nan)
    if inside.any():
        arguments = (strike[inside], target[inside])
        root = elementwise.find_root(
            excess, (low[inside], high[inside]), args=arguments, tolerances={"xatol": 0.0, "xrtol": 1e-14}, maxiter=200
        )
        found[inside] = np.where(root.success, root.x, np.nan)
    return found


_LOG_TINY = float(np.log(np.finfo(np.float64).tiny))
"""In place of the logarithm of a price of 0, which no root could be bracketed with."""
