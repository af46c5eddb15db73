"""American options: exact enough prices one by one from QuantLib, and a surface that revalues them in bulk.

Prices are those of the fixed-point method of Andersen, Lake and Offengenden ("High-performance American option
pricing", 2016; QuantLib's QdFpAmericanEngine, fast scheme: about 1e-7 of the strike). A surface holds the early
exercise premium, American less European, over moneyness and total volatility; the European part always comes from
pricing.py. For the worker alone: QuantLib is slow to import and keeps one global date, so no two threads may price at
once.
"""

from dataclasses import dataclass

import numpy as np
import QuantLib as ql
from numpy.typing import ArrayLike
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import brentq

from engine.instrument import VOLATILITY_MAX
from engine.risk.implied import TIME_VALUE_MIN, VOLATILITY_MIN, ImpliedFailure, ImpliedVolatility
from engine.risk.pricing import DAYS_A_YEAR, POINT, Floats, Greeks, checked_arguments, price_of_checked

_TODAY = ql.Date(1, 1, 2001)
"""Any date: time enters by scaling alone, so that the results never depend on QuantLib's calendar or clock."""

DEVIATION_MIN = 1e-6
"""Total volatility σ√T below which nothing is left to wait for: the better of exercising now and holding to the end."""

MONEYNESS_MAX = 7.0
"""|ln(S/K)| beyond which (a thousandfold) an option is that, too."""

SPOT_NODES = 129
DEVIATION_STEP_MAX = 1.25
"""Ratio of neighbouring nodes in σ√T."""

SPOT_FALL, SPOT_RISE = 0.5, 1.6
VOLATILITY_FALL, VOLATILITY_RISE, POINTS_RISE = 0.3, 1.5, 0.25
"""A surface covers moves of the spot to half and to 1.6 times of where it is made, of volatilities to 0.3 and to 1.5
times (and 25 points more). What lies outside is priced one by one, which is slow but exact."""

PROBES = 128
"""Points between the nodes, all over a surface, at which its error is measured; besides, all cells along the exercise
boundary are, where the premium bends and the error is largest."""

EXERCISED_WITHIN = 1e-6
"""Of the strike: a node worth no more than exercising it lies beyond the boundary; the pricer's own error is less."""


_GOLDEN = (5.0**0.5 - 1.0) / 2.0
_RATIO_MIN = float(np.exp(-MONEYNESS_MAX))


class EarlyExerciseError(ValueError):
    """No method here prices the option: a put with q < r < 0, or a call with r < q < 0, has two exercise boundaries."""


class _Pricer:
    """American prices on a strike of 1 for one right; every argument of the model is a quote that is set anew."""

    def __init__(self, sign: float) -> None:
        ql.Settings.instance().evaluationDate = _TODAY
        count, calendar = ql.Actual365Fixed(), ql.NullCalendar()
        self._spot, self._rate, self._yield, self._deviation = (ql.SimpleQuote(0.1) for _ in range(4))
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(self._spot),
            ql.YieldTermStructureHandle(ql.FlatForward(_TODAY, ql.QuoteHandle(self._yield), count)),
            ql.YieldTermStructureHandle(ql.FlatForward(_TODAY, ql.QuoteHandle(self._rate), count)),
            ql.BlackVolTermStructureHandle(
                ql.BlackConstantVol(_TODAY, calendar, ql.QuoteHandle(self._deviation), count)
            ),
        )
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if sign > 0 else ql.Option.Put, 1.0)
        self._option = ql.VanillaOption(payoff, ql.AmericanExercise(_TODAY, _TODAY + 365))
        self._option.setPricingEngine(ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.fastScheme()))
        self.sign = sign

    def price(self, spot: float, years: float, volatility: float, rate: float, carry: float) -> float:
        """On a strike of 1. The price depends on rT, qT and σ√T alone, so that one year stands for any time."""
        deviation = volatility * float(np.sqrt(years))
        held = _better_end(spot, years, deviation, rate, carry, self.sign)
        if deviation < DEVIATION_MIN or not abs(np.log(spot or 1e-300)) <= MONEYNESS_MAX:
            return held
        self._spot.setValue(spot)
        self._rate.setValue(rate * years)
        self._yield.setValue((rate - carry) * years)
        self._deviation.setValue(deviation)
        try:
            found = float(self._option.NPV())
        except RuntimeError as error:
            raise EarlyExerciseError(f"rate {rate:g}, carry {carry:g}: {error}") from error
        return max(found, held)


def _better_end(spot: float, years: float, deviation: float, rate: float, carry: float, sign: float) -> float:
    """The better of exercising now and holding a European option to the end; strike 1."""
    one, zero = np.ones(()), np.zeros(())
    held = price_of_checked(
        np.asarray(spot),
        one,
        one,
        np.asarray(deviation),
        zero + rate * years,
        zero + carry * years,
        zero + sign,
    )
    return max(sign * (spot - 1.0), float(held), 0.0)


def exercises_early(rate: float, carry: float, sign: float) -> bool:
    """Whether exercising early can pay at all: never a call without dividend, nor a put without interest."""
    dividend = rate - carry
    return not (dividend <= 0.0 <= rate) if sign > 0 else not (rate <= 0.0 <= dividend)


def american_price(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    volatility: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    sign: ArrayLike,
) -> Floats:
    """Prices of American options one by one, about 60 µs each; arguments, shape and units as pricing.price.

    At T = 0 the intrinsic value. Raises ValueError as there, and EarlyExerciseError (a ValueError).
    """
    arguments = _broadcast(spot, strike, years, volatility, rate, carry, sign)
    pricers = {1.0: _Pricer(1.0), -1.0: _Pricer(-1.0)}
    flat = (np.ravel(array) for array in arguments)
    prices = [k * pricers[w].price(s / k, t, v, r, b) for s, k, t, v, r, b, w in zip(*flat, strict=True)]
    return np.array(prices, dtype=np.float64).reshape(arguments[0].shape)


def american_greeks(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    volatility: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    sign: ArrayLike,
    on_future: ArrayLike,
) -> Greeks:
    """Price and Greeks of American options, units as pricing.Greeks, arguments as pricing.greeks.

    Central differences of american_price, steps of the spot within a tenth of the total volatility: to about 0.1 % of
    an at-the-money option's. At T = 0 price and delta are those of exercising, the others 0.
    """
    arguments = _broadcast(spot, strike, years, volatility, rate, carry, sign)
    future = np.ravel(np.broadcast_to(np.asarray(on_future, dtype=np.bool_), arguments[0].shape))
    pricers = {1.0: _Pricer(1.0), -1.0: _Pricer(-1.0)}
    columns = (np.ravel(array) for array in arguments)
    rows = [
        _greeks_of(pricers[w], s, k, t, v, r, b, bool(on))
        for s, k, t, v, r, b, w, on in zip(*columns, future, strict=True)
    ]
    table = np.array(rows, dtype=np.float64).reshape(*arguments[0].shape, 6)
    return Greeks(*(table[..., at].copy() for at in range(6)))


def _greeks_of(
    pricer: _Pricer, spot: float, strike: float, years: float, vol: float, rate: float, carry: float, future: bool
) -> tuple[float, float, float, float, float, float]:
    """price, delta, gamma, vega, theta, rho in the units of Greeks."""
    s, deviation = spot / strike, vol * float(np.sqrt(years))
    here = pricer.price(s, years, vol, rate, carry)
    if deviation < DEVIATION_MIN:
        exercised = pricer.sign if pricer.sign * (s - 1.0) > 0 else 0.5 * pricer.sign if s == 1.0 else 0.0
        return strike * here, exercised, 0.0, 0.0, 0.0, 0.0
    step = s * min(0.01, max(1e-4, 0.1 * deviation))
    up, down = (pricer.price(s + move, years, vol, rate, carry) for move in (step, -step))
    more, less = (pricer.price(s, years, vol * (1.0 + part), rate, carry) for part in (0.01, -0.01))
    later, sooner = (pricer.price(s, years * part, vol, rate, carry) for part in (0.995, 1.005))
    moved = [pricer.price(s, years, vol, rate + shift, carry if future else carry + shift) for shift in (0.001, -0.001)]
    return (
        strike * here,
        (up - down) / (2.0 * step),
        (up - 2.0 * here + down) / step**2 / strike,
        strike * (more - less) / (0.02 * vol) * POINT,
        strike * (later - sooner) / (0.01 * years) / DAYS_A_YEAR,
        strike * (moved[0] - moved[1]) / 0.002 * POINT,
    )


def implied_american(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    carry: ArrayLike,
    sign: ArrayLike,
    price_slack: ArrayLike = 0.0,
) -> ImpliedVolatility:
    """implied.implied_volatility for American options, one by one, to 1e-9. EarlyExerciseError likewise."""
    arguments = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (price, spot, strike, years, rate, carry, sign, price_slack))
    )
    pricers = {1.0: _Pricer(1.0), -1.0: _Pricer(-1.0)}
    columns = (np.ravel(array).tolist() for array in arguments)
    found = [_implied(pricers[w], p, s, k, t, r, b, slack) for p, s, k, t, r, b, w, slack in zip(*columns, strict=True)]
    shape = arguments[0].shape
    volatility = np.array([value for value, _ in found], dtype=np.float64)
    failure = np.array([why for _, why in found], dtype=np.uint8)
    return ImpliedVolatility(volatility.reshape(shape), failure.reshape(shape))


def _implied(
    pricer: _Pricer, paid: float, spot: float, strike: float, years: float, rate: float, carry: float, slack: float
) -> tuple[float, ImpliedFailure]:
    sign, nothing = pricer.sign, float("nan")
    if not (np.isfinite([paid, spot, strike, years, rate, carry]).all() and min(paid, spot, strike) > 0):
        return nothing, ImpliedFailure.NOT_A_PRICE
    if years <= 0:
        return nothing, ImpliedFailure.EXPIRED
    target, s = paid / strike, spot / strike
    if target <= _better_end(s, years, 0.0, rate, carry, sign) + max(slack / strike, TIME_VALUE_MIN * max(s, 1.0)):
        return nothing, ImpliedFailure.NO_TIME_VALUE
    ends = (s, s * float(np.exp((carry - rate) * years))) if sign > 0 else (1.0, float(np.exp(-rate * years)))
    if target >= max(ends):
        return nothing, ImpliedFailure.ABOVE_BOUND

    def excess(volatility: float) -> float:
        return pricer.price(s, years, volatility, rate, carry) - target

    if not excess(VOLATILITY_MIN) < 0 < excess(VOLATILITY_MAX):
        return nothing, ImpliedFailure.OUT_OF_RANGE
    return float(brentq(excess, VOLATILITY_MIN, VOLATILITY_MAX, xtol=1e-9)), ImpliedFailure.NONE


@dataclass(frozen=True, slots=True, eq=False)
class PremiumSurface:
    """Early exercise premium of one right, rate, carry and time, over spot plus strike, which bounds it on both sides;
    homogeneity makes it serve every strike. Bicubic between the nodes; `error` is the largest found between them, as a
    fraction of the strike."""

    years: float
    rate: float
    carry: float
    sign: float
    moneyness: Floats
    """Nodes of ln(S/K)/(σ√T), densest at the money."""
    deviation: Floats
    """Nodes of σ√T, each a constant ratio from the next."""
    spots: tuple[float, float]
    """The lowest and highest S/K that it covers."""
    error: float
    _spline: RectBivariateSpline | None
    """Over moneyness and ln(σ√T); None where exercising early never pays."""

    def price(self, spot: Floats, strike: Floats, volatility: Floats, european: Floats) -> Floats:
        """American prices, all of one shape; `european`: the European prices of the same. Points outside the nodes are
        priced one by one. Raises EarlyExerciseError."""
        value = np.maximum(european, self.sign * (spot - strike))
        if self._spline is None:
            return value
        ratio, deviation = spot / strike, volatility * np.sqrt(self.years)
        live = (deviation >= DEVIATION_MIN) & (ratio >= _RATIO_MIN) & (ratio <= 1.0 / _RATIO_MIN)
        inside = live & (ratio >= self.spots[0]) & (ratio <= self.spots[1])
        inside &= (deviation >= self.deviation[0]) & (deviation <= self.deviation[-1])
        premium = self._spline.ev(np.log(ratio[inside]) / deviation[inside], np.log(deviation[inside]))
        value[inside] = np.maximum(value[inside], european[inside] + (strike + spot)[inside] * premium)
        beyond = live & ~inside
        if beyond.any():
            value[beyond] = american_price(
                spot[beyond], strike[beyond], self.years, volatility[beyond], self.rate, self.carry, self.sign
            )
        return value


def premium_surface(
    years: float, rate: float, carry: float, sign: float, spot_over_strike: Floats, volatility: Floats
) -> PremiumSurface:
    """The surface for options now at these ratios of spot to strike and volatilities, (n,) each, n ≥ 1, and for moves
    of SPOT_FALL to SPOT_RISE from there; takes about 0.2 s.

    Raises EarlyExerciseError, and ValueError where `years` is not above 0.
    """
    if not years > 0:
        raise ValueError(f"years: expected a number above 0, got {years}")
    root = float(np.sqrt(years))
    spots = float(np.min(spot_over_strike)) * SPOT_FALL, float(np.max(spot_over_strike)) * SPOT_RISE
    thin = max(VOLATILITY_FALL * float(np.min(volatility)) * root, 10.0 * DEVIATION_MIN)
    wide = (VOLATILITY_RISE * float(np.max(volatility)) + POINTS_RISE) * root
    deviations = np.geomspace(thin, wide, max(4, 1 + int(np.ceil(np.log(wide / thin) / np.log(DEVIATION_STEP_MAX)))))
    nearest, farthest = np.arcsinh(np.log(spots) / thin).tolist()
    moneyness = np.sinh(np.linspace(nearest, farthest, SPOT_NODES))
    if not exercises_early(rate, carry, sign):
        return PremiumSurface(years, rate, carry, sign, moneyness, deviations, spots, 0.0, None)
    pricer = _Pricer(sign)

    def premium(distance: float, deviation: float) -> tuple[float, bool]:
        """And whether exercising at once is worth as much."""
        bounded = min(max(distance * deviation, -2.0 * MONEYNESS_MAX), 2.0 * MONEYNESS_MAX)
        spot, volatility = float(np.exp(bounded)), deviation / root
        european = price_of_checked(*(np.asarray(x) for x in (spot, 1.0, years, volatility, rate, carry, sign)))
        american = pricer.price(spot, years, volatility, rate, carry)
        return (american - float(european)) / (1.0 + spot), american - sign * (spot - 1.0) < EXERCISED_WITHIN

    nodes = np.array([[premium(z, d) for d in deviations] for z in moneyness])
    spline = RectBivariateSpline(moneyness, np.log(deviations), nodes[:, :, 0])
    cells = _probed_cells(moneyness, deviations, spots, nodes[:, :, 1])
    error = 0.0
    for row, column in cells:
        z, d = 0.5 * (moneyness[row] + moneyness[row + 1]), np.sqrt(deviations[column] * deviations[column + 1])
        off = abs(float(spline.ev(z, np.log(d))) - premium(float(z), float(d))[0])
        error = max(error, off * (1.0 + float(np.exp(z * d))))
    return PremiumSurface(years, rate, carry, sign, moneyness, deviations, spots, error, spline)


def _probed_cells(
    moneyness: Floats, deviations: Floats, spots: tuple[float, float], exercised: Floats
) -> set[tuple[int, int]]:
    """The cells (row, column) at whose middles the error is measured, all within `spots`: those on the exercise
    boundary and beside it, and PROBES more, at each deviation where the golden ratio strides to: no gap is left."""
    cells: set[tuple[int, int]] = set()
    boundary = np.abs(np.diff(exercised, axis=0)) > 0
    for column in range(len(deviations) - 1):
        ends = np.searchsorted(moneyness, np.log(spots) / deviations[column], side="right")
        first, last = max(int(ends[0]) - 1, 0), min(int(ends[1]), len(moneyness) - 1)
        rows = {int(row) + step for row in np.flatnonzero(boundary[:, column]) for step in (-1, 0, 1)}
        for probe in range(PROBES * column // len(deviations), PROBES * (column + 1) // len(deviations)):
            rows.add(int(first + probe * _GOLDEN % 1.0 * (last - first)))
        cells |= {(row, column) for row in rows if first <= row < last}
    return cells


def _broadcast(*arguments: ArrayLike) -> list[Floats]:
    checked = checked_arguments(*arguments)
    return [np.array(array) for array in np.broadcast_arrays(*checked)]
