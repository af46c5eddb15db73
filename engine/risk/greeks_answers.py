"""The answer on Greeks: by position, by underlying and for the book, positions alone.

Figures are greeks.py's. Here they are split over strategies, which is exact: all of them are proportional to quantity.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from engine.risk.case import Case
from engine.risk.greeks import LINES, GreekLine, Unvalued, book_greeks
from engine.risk.inquiry import GreeksInquiry, Stamp
from engine.risk.options import OptionBook

_NONE = np.zeros(0)
NO_OPTIONS = OptionBook(
    symbols=(),
    underlyings=(),
    spot=_NONE,
    strike=_NONE,
    sign=_NONE,
    years=_NONE,
    rate=_NONE,
    carry=_NONE,
    volatility=_NONE,
    on_future=_NONE.astype(np.bool_),
    american=_NONE.astype(np.bool_),
)
"""Where no model has valued any: linear positions have Greeks all the same."""


@dataclass(frozen=True, slots=True)
class PositionLine:
    """One strategy's position; `line` bears its symbol's name."""

    strategy: str
    underlying: str
    line: GreekLine


@dataclass(frozen=True, slots=True)
class GreeksAnswer:
    """`left_out`: positions that no line counts."""

    stamp: Stamp
    positions: tuple[PositionLine, ...]
    underlyings: tuple[GreekLine, ...]
    total: GreekLine
    left_out: tuple[Unvalued, ...]


def greeks_answer(case: Case, inquiry: GreeksInquiry) -> GreeksAnswer:
    """Raises InquiryError on an unknown strategy, Unanswerable where the model is of other instruments."""
    asked = case.holdings(inquiry.whose)
    held = {(strategy, symbol): quantity for strategy, symbol, quantity in _held(case)}
    rows = [
        (strategy, symbol, underlying, held[strategy, symbol])
        for strategy, symbol, underlying in zip(asked.strategies, asked.symbols, asked.underlyings, strict=True)
        if held.get((strategy, symbol)) and (not inquiry.underlyings or underlying in inquiry.underlyings)
    ]
    options = case.options()
    per_unit = book_greeks(
        dict.fromkeys((symbol for _, symbol, _, _ in rows), 1.0),
        case.instruments.instruments,
        options if options is not None else NO_OPTIONS,
        case.marks,
        case.rates,
    )
    units = {line.name: line for line in per_unit.by_position}
    positions = tuple(
        PositionLine(strategy, underlying, _times(units[symbol], quantity))
        for strategy, symbol, underlying, quantity in rows
        if symbol in units
    )
    groups = sorted({one.underlying for one in positions})
    notes = [f"{one.symbol} is not counted: {one.reason}" for one in per_unit.left_out]
    return GreeksAnswer(
        stamp=replace(case.stamp, open_orders=False, warnings=(*case.stamp.warnings, *notes)),
        positions=positions,
        underlyings=tuple(_sum(name, (p.line for p in positions if p.underlying == name)) for name in groups),
        total=_sum("", (one.line for one in positions)),
        left_out=per_unit.left_out,
    )


def _held(case: Case) -> Iterable[tuple[str, str, float]]:
    account = case.account
    return zip(account.strategies, account.symbols, case.quantities.tolist(), strict=True)


def _times(line: GreekLine, quantity: float) -> GreekLine:
    return GreekLine(line.name, *(quantity * getattr(line, key) for key in LINES))


def _sum(name: str, lines: Iterable[GreekLine]) -> GreekLine:
    table = np.array([[getattr(line, key) for key in LINES] for line in lines]).reshape(-1, len(LINES))
    return GreekLine(name, *table.sum(axis=0).tolist())
