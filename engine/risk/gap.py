"""Gap loss: what a book loses where prices jump through an event, with no trade between.

Each event to come is two rows of scenario, its gap down and up on every symbol that it reaches; rows stand beside the
quantiles and never in them (NUMERICS.md, UVaR). A gap is a policy's round figure, or an estimate from a history of
overnight gaps. Options are revalued by whoever knows them. Pure; which events there are is engine/events.py's to say.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, EventPolicy
from engine.risk.var import value_at_risk

OVERNIGHTS_MIN = 60
"""Nights that a quantile of gaps needs: a quarter, so that one earnings night is among them."""

Floats = NDArray[np.float64]
Revalue = Callable[[Floats], Floats]
"""(rows, n_linear) returns of the linear columns to (rows, m) P&L of the option columns per unit of their money."""


@dataclass(frozen=True, slots=True)
class EventGap:
    """A move through an event, as a fraction of the price, either way."""

    name: str
    gap: float
    symbols: tuple[str, ...] = ()
    """Empty: all."""


@dataclass(frozen=True, slots=True)
class GapLoss:
    """The worst row. Money in base currency, positive = loss."""

    event: str
    gap: float
    """Signed: what prices do."""
    loss: float
    symbols: tuple[str, ...]
    """Those of the book that it reaches."""


def event_gaps(events: Iterable[Event], policy: EventPolicy, now_us: int) -> tuple[EventGap, ...]:
    """Of the events whose window is not over, called off, or without a gap in the policy's rules."""
    found = []
    for event in events:
        gap = policy.rule_of(event).gap
        if gap and not event.cancelled and policy.window(event)[1] > now_us:
            found.append(EventGap(f"{event.name} {event.date}", gap, event.symbols))
    return tuple(found)


def gap_rows(gaps: Sequence[EventGap], symbols: Sequence[str]) -> Floats:
    """(2 × events, n) returns of each symbol, an event's gap down and then up; 0 where it does not reach."""
    reached = np.array(
        [[not gap.symbols or symbol in gap.symbols for symbol in symbols] for gap in gaps], dtype=np.bool_
    ).reshape(len(gaps), len(symbols))
    sizes = np.array([gap.gap for gap in gaps])
    if not (np.isfinite(sizes).all() and (sizes >= 0.0).all() and (sizes <= 1.0).all()):
        raise ValueError("gaps: expected fractions of the price, 0 to 1")
    down = -sizes[:, None] * reached
    rows = np.empty((2 * len(gaps), len(symbols)))
    rows[0::2], rows[1::2] = down, -down
    return rows


def gap_loss(
    gaps: Sequence[EventGap],
    symbols: Sequence[str],
    low: Floats,
    high: Floats,
    is_option: NDArray[np.bool_] | None = None,
    revalue: Revalue | None = None,
) -> GapLoss | None:
    """The largest loss over all events, each symbol at the end of its open orders that loses more: max over rows of
    −Σ min(low·r, high·r). None where no event reaches anything at stake.

    `low`, `high` (n,): money in base currency by symbol, the ends that open orders can lead to. Of options, `is_option`
    (n,) True, the money is that of their reference and `revalue` gives its P&L; an event reaches an option through what
    it is written on. Raises ValueError on shapes, NaN, low above high, a gap outside 0 to 1, and on options at stake
    without a revaluation: no linear guess stands in for one.
    """
    _check_ends(symbols, low, high)
    options = np.zeros(len(symbols), dtype=np.bool_) if is_option is None else is_option
    if options.shape != (len(symbols),):
        raise ValueError(f"is_option: expected shape {(len(symbols),)}, got {options.shape}")
    at_stake = (low != 0.0) | (high != 0.0)
    if not gaps or not at_stake.any():
        return None
    rows = gap_rows(gaps, symbols)
    if (at_stake & options).any():
        rows[:, options] = _revalued(rows[:, ~options], int(options.sum()), revalue)
    else:
        rows[:, options] = 0.0
    moved = (rows != 0.0) & at_stake
    if not moved.any():
        return None
    losses = -np.minimum(low * rows, high * rows).sum(axis=1)
    losses[~moved.any(axis=1)] = -np.inf
    worst = int(losses.argmax())
    gap = gaps[worst // 2]
    reached = tuple(symbol for symbol, hit in zip(symbols, moved[worst], strict=True) if hit)
    return GapLoss(gap.name, gap.gap if worst % 2 else -gap.gap, float(losses[worst]), reached)


def _check_ends(symbols: Sequence[str], low: Floats, high: Floats) -> None:
    for name, ends in (("low", low), ("high", high)):
        if ends.shape != (len(symbols),) or not np.isfinite(ends).all():
            raise ValueError(f"{name}: expected {len(symbols)} finite numbers, got shape {ends.shape}")
    if (low > high).any():
        raise ValueError("low: expected none above high")


def _revalued(linear: Floats, n_options: int, revalue: Revalue | None) -> Floats:
    if revalue is None:
        raise ValueError("revalue: expected a revaluation of the options at stake, got none")
    pnl = revalue(linear)
    if pnl.shape != (len(linear), n_options) or not np.isfinite(pnl).all():
        raise ValueError(f"revalue: expected {(len(linear), n_options)} finite P&Ls, got shape {pnl.shape}")
    return pnl


def overnight_gaps(opens: Floats, closes: Floats) -> Floats:
    """(T − 1,) open_t / close_{t−1} − 1, oldest first, of (T,) prices above 0. Raises ValueError on others."""
    for name, prices in (("opens", opens), ("closes", closes)):
        if prices.ndim != 1 or not (np.isfinite(prices).all() and (prices > 0.0).all()):
            raise ValueError(f"{name}: expected one dimension of finite prices above 0, got shape {prices.shape}")
    if opens.shape != closes.shape or opens.size < 2:
        raise ValueError(f"closes: expected as many as opens, 2 or more, got {closes.size} and {opens.size}")
    gaps: Floats = opens[1:] / closes[:-1] - 1.0
    return gaps


def gap_size(gaps: Floats, confidence: float = 0.99) -> float:
    """The size of gap that this share of nights stays within, either way: of |gap| the order statistic that var.py
    takes. Raises ValueError on fewer than OVERNIGHTS_MIN nights, too few for the confidence, or NaN."""
    if gaps.ndim != 1 or gaps.size < OVERNIGHTS_MIN or not np.isfinite(gaps).all():
        raise ValueError(f"gaps: expected at least {OVERNIGHTS_MIN} finite numbers, got shape {gaps.shape}")
    return value_at_risk(np.abs(gaps), confidence)
