"""What `backtest-var` tests: methods over prices, point in time, or the forecasts that stand in an account's log.

Turns what was typed into a book, days and forecasters, and calls engine/risk/rolling.py; no estimation and no test of
its own. A symbol without a close in the days asked for is an error or, where nobody named it, left out and named. Slow
to import (scikit-learn, arch): only the running command does.
"""

import asyncio
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from engine.account import AccountState, Session
from engine.model_validation import histories_of
from engine.records import PoisonRecord, decode
from engine.risk.backtest import exceptions, validate
from engine.risk.forecasters import ASKS, forecaster
from engine.risk.history import PriceHistory
from engine.risk.rolling import RollingBacktest, rolling_backtest
from gateway.cli.exits import ExitCode, Failure
from gateway.market.prices import PriceFileError, load_prices, sample_us_stocks

SHARE = "share of gross value"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be tested over prices. `positions` as typed, SYMBOL=VALUE; none: all symbols, equally weighted."""

    positions: tuple[str, ...]
    methods: tuple[str, ...]
    confidences: tuple[float, ...]
    lookback_days: int
    days: int
    until: date | None
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What was tested, in words, and how it came out."""

    title: str
    unit: str
    """Of returns, VaR and ES: SHARE, or a currency."""
    backtests: tuple[RollingBacktest, ...]
    notes: tuple[str, ...] = ()


# Over prices


def source(prices: Path | None, config: Path | None) -> tuple[PriceHistory, str]:
    """The closes, and what they are called. Raises Failure where they can't be read."""
    from gateway.cli.serve import loaded
    from gateway.market.history_files import MARKS, SAMPLE

    indices: tuple[str, ...] = ()
    if config is not None:
        worker = loaded(config, os.environ).worker
        if worker.prices == MARKS:
            hint = "Give --prices PATH, or --account NAME for the sessions that an account had."
            raise Failure(f"{config} names no price file: its closes come from marks", ExitCode.CONFIG, hint=hint)
        prices, indices = (None if worker.prices == SAMPLE else Path(worker.prices)), worker.indices
    try:
        return (
            (sample_us_stocks(), "the sample stocks") if prices is None else (load_prices(prices, indices), str(prices))
        )
    except PriceFileError as error:
        raise Failure(f"prices can't be used: {error}", ExitCode.CONFIG) from error


def of_prices(history: PriceHistory, name: str, asked: Asked) -> Outcome:
    """Every method at every confidence over the last days. Raises typer.BadParameter and Failure."""
    unknown = [method for method in asked.methods if method not in ASKS]
    if unknown:
        raise typer.BadParameter(f"unknown {unknown[0]!r}; known: {', '.join(ASKS)}", param_hint="--method")
    for confidence in asked.confidences:
        if not 0.5 < confidence < 1.0:
            raise typer.BadParameter(
                f"{confidence:g} is none; expected above 0.5 and below 1", param_hint="--confidence"
            )
    before = asked.until + timedelta(days=1) if asked.until is not None else date.max
    window = history.window(before, asked.lookback_days + asked.days + 1)
    if len(window.dates) <= asked.lookback_days + 1:
        problem = (
            f"{name}: {len(window.dates)} closes there; {asked.lookback_days} days before the first one tested need"
        )
        raise Failure(f"{problem} {asked.lookback_days + 2}", ExitCode.USAGE, hint="A shorter --lookback needs fewer.")
    held, notes = _book(window, asked.positions)
    symbols, values = tuple(held), np.array(list(held.values()))
    closes = window.closes[:, [window.symbols.index(symbol) for symbol in symbols]]
    returns, dates = closes[1:] / closes[:-1] - 1.0, window.dates[1:]
    weights = values / np.abs(values).sum()
    backtests, problems = _tested(returns, weights, dates, asked)
    count = f"{len(symbols)} symbol{'s' if len(symbols) > 1 else ''}"
    what = f"{count} of {name}, equally weighted" if not asked.positions else _named(held, name)
    first, last = dates[asked.lookback_days], dates[-1]
    return Outcome(f"{what} · {first} to {last}", SHARE, backtests, (*notes, *problems))


def _book(window: PriceHistory, typed: Sequence[str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Value by symbol, and which symbols were left out."""
    gaps = {symbol: np.flatnonzero(~(window.closes[:, at] > 0.0)) for at, symbol in enumerate(window.symbols)}
    if typed:
        held = dict(_position(text) for text in typed)
        if len(held) < len(typed):
            raise typer.BadParameter("each symbol once", param_hint="--position")
        for symbol in held:
            _need_closes(window, gaps, symbol)
        return held, ()
    whole = [symbol for symbol, missing in gaps.items() if not missing.size]
    if not whole:
        raise Failure("no symbol has a close on every one of these days", ExitCode.USAGE, hint="Try fewer --days.")
    left = [symbol for symbol, missing in gaps.items() if missing.size]
    notes = (f"left out, they lack closes in these days: {', '.join(left)}",) if left else ()
    return dict.fromkeys(whole, 1.0), notes


def _need_closes(window: PriceHistory, gaps: dict[str, NDArray[np.intp]], symbol: str) -> None:
    missing = gaps.get(symbol)
    if missing is None:
        known = ", ".join(window.symbols[:30])
        raise typer.BadParameter(f"no closes of {symbol!r}; there are {known}", param_hint="--position")
    if missing.size:
        days = f"{missing.size} of the {len(window.dates)} days, first {window.dates[missing[0]]}"
        raise Failure(f"{symbol} has no close on {days}", ExitCode.USAGE, hint="Try fewer --days, or another --until.")


def _position(text: str) -> tuple[str, float]:
    symbol, found, amount = text.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = math.nan
    if not (symbol.strip() and found and math.isfinite(value) and value):
        problem = f"{text!r} is no position; expected SYMBOL=VALUE, for instance AAPL=50000 or KO=-20000"
        raise typer.BadParameter(problem, param_hint="--position")
    return symbol.strip(), value


def _named(held: dict[str, float], name: str) -> str:
    return f"{', '.join(f'{symbol} {value:+,.0f}' for symbol, value in held.items())} at prices of {name}"


def _tested(
    returns: Floats, weights: Floats, dates: Sequence[date], asked: Asked
) -> tuple[tuple[RollingBacktest, ...], tuple[str, ...]]:
    """The backtests; a method that can't answer for this book is a note and keeps nobody else from answering."""
    backtests: list[RollingBacktest] = []
    problems: list[str] = []
    for method in dict.fromkeys(asked.methods):
        try:
            found = rolling_backtest(
                returns,
                weights,
                method,
                forecaster(method, asked.seed),
                asked.confidences,
                asked.lookback_days,
                dates,
            )
        except ValueError as error:
            problems.append(f"{method} can't be tested: {error}")
            continue
        backtests += found
        problems += [f"{method}, {warning}" for warning in dict.fromkeys(w for one in found for w in one.warnings)]
    if not backtests:
        raise Failure("no method can be tested on these days", ExitCode.USAGE, tuple(problems))
    return tuple(backtests), tuple(problems)


# Over an account's sessions


def of_account(account: str, store: str, data_dir: Path) -> Outcome:
    """The forecasts in the account's log against its closed sessions. Raises Failure."""
    from gateway.cli.log import ChainBroken, store_url
    from gateway.errors import StoreError

    try:
        with store_url(store, data_dir, False) as url:
            state = asyncio.run(_folded(url, account))
    except StoreError as error:
        raise Failure(f"the log can't be read: {error}", ExitCode.UNAVAILABLE) from error
    except ChainBroken as broken:
        raise Failure(f"the log of {account} does not hold: {broken}", ExitCode.DAMAGED) from broken
    return of_sessions(account, state.base_currency, state.sessions)


async def _folded(url: str, account: str) -> AccountState:
    from gateway.cli.log import entries, opened, start_of

    async with opened(url) as log:
        start = await start_of(log, account)
        if start.seq:
            problem = f"the first {start.seq} records are in the archive: the sessions in them are not known"
            raise Failure(problem, ExitCode.USAGE)
        state = AccountState(account)
        async for entry in entries(log, account, start):
            try:
                state.apply(decode(entry.raw))
            except PoisonRecord as error:
                problem = f"record {entry.head.seq} can't be read by this release: {error}"
                raise Failure(problem, ExitCode.DAMAGED) from error
    return state


def of_sessions(account: str, currency: str, sessions: Sequence[Session]) -> Outcome:
    """Closed sessions with a forecast and something at risk: what their positions gained against what was forecast."""
    histories = histories_of(sessions)
    if not histories:
        forecast = sum(1 for session in sessions if session.forecast is not None)
        problem = f"{account} has no closed session that can be tested: {len(sessions)} closed, {forecast} of them"
        hint = "The worker records a forecast as each session begins; it needs something held then, and a risk model."
        raise Failure(f"{problem} with a forecast", ExitCode.USAGE, hint=hint)
    backtests = tuple(
        RollingBacktest(
            method=history.method,
            confidence=confidence,
            lookback_days=0,
            dates=history.dates,
            returns=history.held_pnl,
            var=var,
            es=history.es[confidence],
            hits=exceptions(history.held_pnl, var),
            validation=validate(history.held_pnl, var, history.es[confidence], confidence, history.method),
            warnings=(),
        )
        for history in histories
        for confidence, var in history.var.items()
    )
    tested, days = sum(len(history.dates) for history in histories), _days(histories[0].dates)
    notes = (f"{len(sessions) - tested} closed sessions without a forecast, or with nothing at risk, are left out",)
    title = f"{account}: what it held as each session began · {tested} sessions · {days}"
    return Outcome(title, currency, backtests, notes if tested < len(sessions) else ())


def _days(dates: Iterable[date]) -> str:
    every = sorted(dates)
    return f"{every[0]} to {every[-1]}"
