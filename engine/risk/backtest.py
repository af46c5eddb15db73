"""Whether a VaR model kept its word: the tests of a series of forecasts against what the book then made or lost.

Series in, verdicts out. Returns and forecasts are in one unit (money, or shares of the book), VaR and ES positive =
loss, each forecast made before its return was known; how forecasts are made stands in rolling.py. An exception is a
return strictly below -VaR. Every test says its statistic, p-value, verdict and number of observations; `validate` puts
them together, `tightening_factor` says what the limits on VaR and ES become. Too few days are UNTESTED, never a pass.
No scipy: the distributions needed have closed forms, and the gateway imports the worker that imports this.
"""

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

WARN_BELOW = 0.05
FAIL_BELOW = 0.01
"""p-values at which a model is doubted, and refused."""

BASEL_DAYS = 250
BASEL_CONFIDENCE = 0.99
BASEL_MULTIPLIERS = (1.50, 1.50, 1.50, 1.50, 1.50, 1.70, 1.76, 1.83, 1.88, 1.92, 2.00)
"""By exceptions in 250 days at 99 %, 10 or more at the end (Basel Committee, MAR99.22 with the multiplier of 2019)."""

YELLOW_FROM, RED_FROM = 0.95, 0.9999
"""Probability that a right model has at most as many exceptions, from which Basel's zones begin (MAR99)."""

Z2_WARN, Z2_FAIL = -0.70, -1.8
"""Acerbi and Székely's critical values at 5 % and 0.01 %, for 250 days and ES at 97.5 %: nearly the same for tails from
Student's t with 3 degrees of freedom to the normal distribution."""

EXPECTED_EXCEPTIONS_MIN = 1.0
"""Fewer days than this many expected exceptions take (100 at 99 %, 20 at 95 %) say nothing of a tail."""

_Z2_CELLS = 1 << 13
_NORMAL = NormalDist()

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]


class Verdict(enum.StrEnum):
    """In order of severity, but for UNTESTED, which is no word on the model at all."""

    UNTESTED = "UNTESTED"
    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


class Zone(enum.StrEnum):
    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class LikelihoodRatio:
    """A likelihood-ratio test: `statistic` is chi-square with `degrees_of_freedom` where the model is right."""

    name: str
    statistic: float
    p_value: float
    degrees_of_freedom: int
    n: int
    """Observations; of the test of independence, transitions."""
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, slots=True)
class TrafficLight:
    """Basel's traffic light. `zone` and `multiplier` are None where zones do not hold."""

    statistic: int
    """Exceptions."""
    p_value: float
    """Probability that a right model has at least as many."""
    n: int
    confidence: float
    zone: Zone | None
    multiplier: float | None
    """Of the capital requirement: 1.5 for a model that is not doubted."""
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, slots=True)
class ShortfallTest:
    """Acerbi and Székely's Z2: 0 is expected, negative means that losses were larger than VaR and ES said."""

    statistic: float
    p_value: float
    """Probability of a Z2 at most this, where the losses beyond VaR are normal."""
    n: int
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, slots=True)
class Validation:
    """All tests of one model at one confidence, and what follows from them. Tests are None where UNTESTED."""

    model: str
    confidence: float
    n: int
    exceptions: int
    expected: float
    kupiec: LikelihoodRatio | None
    independence: LikelihoodRatio | None
    coverage: LikelihoodRatio | None
    light: TrafficLight | None
    shortfall: ShortfallTest | None
    """None also where the model gives no ES."""
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why it is not PASS, the worst first; of a PASS what is to be known all the same."""


@dataclass(frozen=True, slots=True)
class TighteningRule:
    """What a verdict does to the limits on VaR and ES: factors above 0, at most 1. Raises ValueError on others."""

    failed: float = BASEL_MULTIPLIERS[0] / BASEL_MULTIPLIERS[-1]
    """Of a FAIL: by default 0.75, what Basel's red zone does."""
    warned: float = 1.0
    """Of a WARN, beside what its traffic light says: by default it is flagged alone."""
    by_light: bool = True
    """Whether a yellow or red light tightens by 1.5 / its multiplier (0.88 at 5 exceptions, 0.75 from 10 on)."""

    def __post_init__(self) -> None:
        for name in ("failed", "warned"):
            factor = getattr(self, name)
            if not 0.0 < factor <= 1.0:
                raise ValueError(f"{name}: expected a factor above 0, at most 1, got {factor}")


BASEL_RULE = TighteningRule()


def exceptions(returns: ArrayLike, var: ArrayLike) -> Hits:
    """(n,) whether each return lies strictly below -VaR. Both (n,), in one unit. Raises ValueError where shapes differ
    or a number is not finite."""
    observed, forecast = _pair("var", returns, var)
    return np.asarray(observed < -forecast)


def kupiec(exception_count: int, n: int, confidence: float) -> LikelihoodRatio:
    """Proportion of failures: is the share of exceptions 1 - confidence? Chi-square with 1 degree of freedom.

    LR = -2 ln[(1-p)^(n-x) p^x / ((1-x/n)^(n-x) (x/n)^x)]; with no exception -2n ln(1-p). Kupiec, "Techniques for
    verifying the accuracy of risk measurement models" (1995). Raises ValueError on counts or a confidence that can't
    be.
    """
    tail = _tail(confidence)
    _check_count(exception_count, n)
    share = exception_count / n
    calm = n - exception_count
    observed = _times_log(exception_count, share) + _times_log(calm, 1.0 - share)
    expected = _times_log(exception_count, tail) + _times_log(calm, 1.0 - tail)
    return _likelihood_ratio("kupiec", 2.0 * (observed - expected), 1, n)


def independence(hits: ArrayLike) -> LikelihoodRatio:
    """Do exceptions come alone, or does one make the next likelier? Chi-square with 1 degree of freedom.

    From the n - 1 transitions of `hits` (n,): LR = -2 ln[L(pi) / L(pi_01, pi_11)] with 0 ln 0 = 0, so that empty cells
    count for nothing; without an exception it is 0. Christoffersen, "Evaluating interval forecasts" (1998). Raises
    ValueError where there are fewer than 2 observations.
    """
    hit = _hits(hits)
    before, after = hit[:-1], hit[1:]
    calm_calm, calm_hit = int((~before & ~after).sum()), int((~before & after).sum())
    hit_calm, hit_hit = int((before & ~after).sum()), int((before & after).sum())
    apart = _bernoulli(calm_hit, calm_calm) + _bernoulli(hit_hit, hit_calm)
    together = _bernoulli(calm_hit + hit_hit, calm_calm + hit_calm)
    note = "" if hit.any() else "no exception: nothing can cluster"
    return _likelihood_ratio("independence", 2.0 * (apart - together), 1, hit.size - 1, note)


def conditional_coverage(hits: ArrayLike, confidence: float) -> LikelihoodRatio:
    """The right share of exceptions, and independent: LR = LR_kupiec + LR_independence, chi-square with 2 degrees of
    freedom (Christoffersen 1998). `hits` (n,). Raises ValueError like both."""
    hit = _hits(hits)
    parts = kupiec(int(hit.sum()), hit.size, confidence), independence(hit)
    return _likelihood_ratio("conditional coverage", parts[0].statistic + parts[1].statistic, 2, hit.size)


def traffic_light(
    exception_count: int, n: int, confidence: float = BASEL_CONFIDENCE, overlapping: bool = False
) -> TrafficLight:
    """The zone of so many exceptions in `n` days, and the multiplier of the capital requirement.

    250 days at 99 %: Basel's table. Any other: yellow from the count at which a right model has at most so many with
    probability 0.95, red from 0.9999 (binomial); the multiplier rescales VaR to its coverage as Basel's does, by normal
    quantiles, 1.5·z(confidence) / z(1 - x/n), at most 2. `overlapping` windows share days, so their exceptions are not
    binomial: no zone. Raises ValueError on counts or a confidence that can't be.
    """
    tail = _tail(confidence)
    _check_count(exception_count, n)
    at_least = _at_least(exception_count, n, tail)
    if overlapping:
        note = "overlapping windows: their exceptions are not independent, and the zones do not hold"
        return TrafficLight(exception_count, at_least, n, confidence, None, None, Verdict.UNTESTED, note)
    at_most = 1.0 - _at_least(exception_count + 1, n, tail)
    zone = Zone.RED if at_most >= RED_FROM else Zone.YELLOW if at_most >= YELLOW_FROM else Zone.GREEN
    is_basel = n == BASEL_DAYS and math.isclose(confidence, BASEL_CONFIDENCE, abs_tol=1e-9)
    note = "" if is_basel else f"Basel's zones are for {BASEL_DAYS} days at 99 %; here by the same probabilities"
    if is_basel:
        multiplier = BASEL_MULTIPLIERS[min(exception_count, len(BASEL_MULTIPLIERS) - 1)]
    else:
        multiplier = _rescaled(exception_count / n, confidence, zone)
    return TrafficLight(exception_count, at_least, n, confidence, zone, multiplier, _OF_ZONE[zone], note)


def acerbi_szekely(returns: ArrayLike, var: ArrayLike, es: ArrayLike, confidence: float) -> ShortfallTest:
    """Z2 = 1 - Σ loss_t·I_t / (n·a·ES_t) with a = 1 - confidence and I_t an exception: 0 expected.

    Acerbi and Székely, "Backtesting expected shortfall" (2014), their second test. WARN below -0.70, FAIL below -1.8:
    critical values for 250 days at 97.5 %; the p-value is for these days and this confidence, by the distribution of a
    binomial number of normal losses beyond VaR. All (n,), in one unit. Raises ValueError like `exceptions`, and where
    an ES is not above 0.
    """
    tail = _tail(confidence)
    observed, shortfall = _pair("es", returns, es)
    hit = exceptions(returns, var)
    if not (shortfall > 0.0).all():
        raise ValueError(f"es: expected numbers above 0, got {shortfall.min():g}")
    paid = float((-observed[hit] / shortfall[hit]).sum())
    statistic = 1.0 - paid / (observed.size * tail)
    verdict = Verdict.FAIL if statistic < Z2_FAIL else Verdict.WARN if statistic < Z2_WARN else Verdict.PASS
    published = observed.size == BASEL_DAYS and math.isclose(tail, 0.025, abs_tol=1e-9)
    note = "" if published else "judged by the critical values for 250 days at 97.5 %; the p-value is for these days"
    return ShortfallTest(statistic, _shortfall_p_value(paid, observed.size, tail), observed.size, verdict, note)


def days_needed(confidence: float) -> int:
    """The days below which a model is UNTESTED: 100 at 99 %, 20 at 95 %."""
    return math.ceil(EXPECTED_EXCEPTIONS_MIN / _tail(confidence) - 1e-9)


def validate(
    returns: ArrayLike,
    var: ArrayLike,
    es: ArrayLike | None,
    confidence: float,
    model: str = "",
    overlapping: bool = False,
) -> Validation:
    """Every test of one model, and the verdict with its reasons.

    FAIL: too many exceptions at 1 % (Kupiec), a red light, or Z2 below -1.8. WARN: any other test that refuses at 5 %,
    a yellow light, Z2 below -0.70; also too few exceptions and exceptions that cluster, since neither understates the
    loss on average. UNTESTED with fewer than `days_needed` days. The light is of the last 250 days, as Basel's is.
    `overlapping` windows make p-values too small: such a model is at most WARN. Raises ValueError like the tests.
    """
    hit = exceptions(returns, var)
    n, count, needed = int(hit.size), int(hit.sum()), days_needed(confidence)
    expected = n * _tail(confidence)
    if n < needed:
        reason = f"{n} days are too few to test {confidence:.4g}: {needed} are needed"
        return Validation(
            model, confidence, n, count, expected, None, None, None, None, None, Verdict.UNTESTED, (reason,)
        )
    pof, alone, both = kupiec(count, n, confidence), independence(hit), conditional_coverage(hit, confidence)
    recent = hit[-BASEL_DAYS:]
    light = traffic_light(int(recent.sum()), int(recent.size), confidence, overlapping)
    shortfall = None if es is None else acerbi_szekely(returns, var, es, confidence)
    found = _findings(count, expected, pof, alone, both, light, shortfall)
    if overlapping:
        found = [(min(verdict, Verdict.WARN, key=_SEVERITY.index), reason) for verdict, reason in found]
        found.append((Verdict.PASS, light.note))
    found.sort(key=lambda finding: -_SEVERITY.index(finding[0]))
    return Validation(
        model=model,
        confidence=confidence,
        n=n,
        exceptions=count,
        expected=expected,
        kupiec=pof,
        independence=alone,
        coverage=both,
        light=light,
        shortfall=shortfall,
        verdict=found[0][0] if found else Verdict.PASS,
        reasons=tuple(reason for _, reason in found),
    )


def tightening_factor(validations: Iterable[Validation], rule: TighteningRule = BASEL_RULE) -> float:
    """By what the limits on VaR and ES are multiplied: the least that any of the verdicts asks for, never above 1.

    PASS and UNTESTED ask for nothing. By default as Basel adds to the capital of a doubted model: 1.5 / multiplier.
    """
    return min((_factor(one, rule) for one in validations), default=1.0)


def _factor(validation: Validation, rule: TighteningRule) -> float:
    if validation.verdict in (Verdict.PASS, Verdict.UNTESTED):
        return 1.0
    factor = rule.failed if validation.verdict is Verdict.FAIL else rule.warned
    light = validation.light
    if rule.by_light and light is not None and light.multiplier is not None:
        factor = min(factor, BASEL_MULTIPLIERS[0] / light.multiplier)
    return factor


_SEVERITY = (Verdict.UNTESTED, Verdict.PASS, Verdict.WARN, Verdict.FAIL)
_OF_ZONE = {Zone.GREEN: Verdict.PASS, Zone.YELLOW: Verdict.WARN, Zone.RED: Verdict.FAIL}


def _findings(
    count: int,
    expected: float,
    pof: LikelihoodRatio,
    alone: LikelihoodRatio,
    both: LikelihoodRatio,
    light: TrafficLight,
    shortfall: ShortfallTest | None,
) -> list[tuple[Verdict, str]]:
    """What speaks against a model, each with how much."""
    found: list[tuple[Verdict, str]] = []
    if pof.verdict is not Verdict.PASS:
        too_many = count > expected
        what = f"{count} exceptions where {expected:.1f} were expected (Kupiec p = {pof.p_value:.2g})"
        why = "VaR is too low" if too_many else "VaR is too high"
        found.append((pof.verdict if too_many else Verdict.WARN, f"{why}: {what}"))
    if light.zone in (Zone.YELLOW, Zone.RED):
        what = f"{light.statistic} exceptions in the last {light.n} days"
        found.append((light.verdict, f"Basel {light.zone} zone: {what}, multiplier {light.multiplier:.2f}"))
    if shortfall is not None and shortfall.verdict is not Verdict.PASS:
        found.append((shortfall.verdict, f"losses beyond VaR exceed ES: Z2 = {shortfall.statistic:.2f}"))
    if alone.verdict is not Verdict.PASS:
        found.append((Verdict.WARN, f"exceptions cluster or repel (Christoffersen p = {alone.p_value:.2g})"))
    elif both.verdict is not Verdict.PASS and pof.verdict is Verdict.PASS:
        found.append((Verdict.WARN, f"conditional coverage is refused (p = {both.p_value:.2g})"))
    return found


def _likelihood_ratio(name: str, statistic: float, freedom: int, n: int, note: str = "") -> LikelihoodRatio:
    statistic = max(0.0, statistic)  # a likelihood at its maximum may come out a rounding error below itself
    p_value = math.erfc(math.sqrt(statistic / 2.0)) if freedom == 1 else math.exp(-statistic / 2.0)
    verdict = Verdict.FAIL if p_value < FAIL_BELOW else Verdict.WARN if p_value < WARN_BELOW else Verdict.PASS
    return LikelihoodRatio(name, statistic, p_value, freedom, n, verdict, note)


def _bernoulli(hits: int, misses: int) -> float:
    """The log-likelihood of so many hits and misses at their own share; 0 of none."""
    n = hits + misses
    return _times_log(hits, hits / n) + _times_log(misses, misses / n) if n else 0.0


def _times_log(count: int, share: float) -> float:
    """count·ln(share), with 0 ln 0 = 0."""
    return count * math.log(share) if count else 0.0


def _at_least(count: int, n: int, share: float) -> float:
    """P(X >= count) of a binomial(n, share): the terms away from the mean from `count` on, added up."""
    if count <= 0:
        return 1.0
    if count > n:
        return 0.0
    odds = share / (1.0 - share)
    if count > n * share:
        return _falling(count, n, share, lambda k: (n - k) / (k + 1) * odds, 1)
    return 1.0 - _falling(count - 1, n, share, lambda k: k / (n - k + 1) / odds, -1)


def _falling(count: int, n: int, share: float, ratio: Callable[[int], float], step: int) -> float:
    """The binomial probabilities of `count`, count + step … added up; `ratio`: of the next to that of k."""
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    term = math.exp(ways + count * math.log(share) + (n - count) * math.log1p(-share))
    total, k = 0.0, count
    while term > total * 1e-17 and 0 <= k <= n:
        total += term
        term *= ratio(k)
        k += step
    return min(1.0, total)


def _rescaled(share: float, confidence: float, zone: Zone) -> float:
    lowest, highest = BASEL_MULTIPLIERS[0], BASEL_MULTIPLIERS[-1]
    if zone is Zone.GREEN:
        return lowest
    if zone is Zone.RED or share >= 0.5:
        return highest
    rescaled = lowest * _NORMAL.inv_cdf(confidence) / _NORMAL.inv_cdf(1.0 - share)
    return min(highest, max(lowest, rescaled))


def _shortfall_p_value(paid: float, n: int, tail: float) -> float:
    """P(S >= paid) of S the sum, over a binomial(n, tail) number of days, of normal losses beyond VaR in units of ES.

    The n-fold convolution of one day's distribution on a grid, by the fast Fourier transform."""
    if paid <= 0.0:
        return 1.0
    quantile = _NORMAL.inv_cdf(1.0 - tail)
    density = _NORMAL.pdf(quantile)
    shortfall = density / tail
    square = (tail + quantile * density) / tail / shortfall**2
    deviation = math.sqrt(n * tail * (square - tail))
    span = n * tail + 14.0 * deviation + 30.0
    if paid >= span:
        return 0.0
    cell = span / _Z2_CELLS
    edges = np.maximum((np.arange(_Z2_CELLS + 1) - 0.5) * cell, quantile / shortfall)
    survival = np.array([math.erfc(edge) for edge in (edges * (shortfall / math.sqrt(2.0))).tolist()]) / (2.0 * tail)
    ratio = survival[:-1] - survival[1:]
    day = np.fft.rfft(ratio) * tail + (1.0 - tail)
    total = np.fft.irfft(day**n, _Z2_CELLS)
    return float(np.clip(total[math.ceil(paid / cell - 0.5) :].sum(), 0.0, 1.0))


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a number above 0 and below 1 (0.99 for 99 %), got {confidence}")
    return 1.0 - confidence


def _check_count(count: int, n: int) -> None:
    if n < 1:
        raise ValueError(f"n: expected at least 1 observation, got {n}")
    if not 0 <= count <= n:
        raise ValueError(f"exception_count: expected 0 to {n}, got {count}")


def _hits(hits: ArrayLike) -> Hits:
    hit = np.asarray(hits)
    if hit.ndim != 1 or hit.dtype != np.bool_:
        raise ValueError(f"hits: expected booleans in one dimension, got {hit.dtype} of shape {hit.shape}")
    if hit.size < 2:
        raise ValueError(f"hits: expected at least 2 observations, got {hit.size}")
    return hit


def _pair(name: str, returns: ArrayLike, forecasts: ArrayLike) -> tuple[Floats, Floats]:
    observed = np.asarray(returns, dtype=np.float64)
    forecast = np.asarray(forecasts, dtype=np.float64)
    if observed.ndim != 1 or observed.size < 1:
        raise ValueError(f"returns: expected one dimension and at least 1 observation, got shape {observed.shape}")
    if forecast.shape != observed.shape:
        raise ValueError(f"{name}: expected the shape of returns {observed.shape}, got {forecast.shape}")
    for of, numbers in (("returns", observed), (name, forecast)):
        if not np.isfinite(numbers).all():
            raise ValueError(f"{of}: expected finite numbers, got NaN or infinity")
    return observed, forecast
