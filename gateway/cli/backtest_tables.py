"""A VaR backtest as a table, as remarks below it, and as a CSV of every day. Values in, renderables and lines out."""

import csv
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from engine.risk.backtest import TrafficLight, Validation, Verdict, tightening_factor
from gateway.cli.backtest_subject import Outcome

STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.UNTESTED: "dim"}
UNKNOWN = "–"
CAPTION = "Basel's zones are for 250 days at 99 %; elsewhere by the same probabilities"
CSV_COLUMNS = ("date", "method", "confidence", "return", "var", "es", "exception")


def table(outcome: Outcome) -> Table:
    """A row for each method and confidence."""
    drawn = Table(title=outcome.title, title_justify="left", box=box.SIMPLE, header_style="bold")
    for name in ("method", "confidence"):
        drawn.add_column(name, no_wrap=True)
    for name in ("n", "expected", "exceptions", "Kupiec p", "independent p", "coverage p"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for name in ("Basel (last 250)", "Z2 (p)", "verdict"):
        drawn.add_column(name, no_wrap=True)
    if any(one.validation.light is not None and one.validation.light.note for one in outcome.backtests):
        drawn.caption, drawn.caption_justify = CAPTION, "left"
    for one in outcome.backtests:
        drawn.add_row(*_cells(one.validation))
    return drawn


def _cells(found: Validation) -> Iterator[str | Text]:
    yield found.model
    yield f"{found.confidence:.4g}"
    yield str(found.n)
    yield f"{found.expected:.1f}"
    yield str(found.exceptions)
    for test in (found.kupiec, found.independence, found.coverage):
        yield UNKNOWN if test is None else Text(_p_value(test.p_value), style=STYLES[test.verdict])
    yield UNKNOWN if found.light is None else _light(found.light)
    z2 = found.shortfall
    yield UNKNOWN if z2 is None else Text(f"{z2.statistic:+.2f} ({_p_value(z2.p_value)})", style=STYLES[z2.verdict])
    yield Text(str(found.verdict), style=STYLES[found.verdict])


def _p_value(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.0005 else "<0.001"


def _light(light: TrafficLight) -> Text:
    if light.zone is None or light.multiplier is None:
        return Text(UNKNOWN)
    return Text(f"{light.zone} {light.statistic}, ×{light.multiplier:.2f}", style=STYLES[light.verdict])


def remarks(outcome: Outcome) -> Iterator[str]:
    """Why a verdict is no PASS, what that would do to limits, and what is to be known of the figures."""
    for one in outcome.backtests:
        found = one.validation
        if found.verdict in (Verdict.WARN, Verdict.FAIL):
            factor = tightening_factor([found])
            tighter = f" · limits on VaR and ES × {factor:.2f}" if factor < 1.0 else ""
            yield f"{found.verdict} {found.model} at {found.confidence:.4g}: {'; '.join(found.reasons)}{tighter}"
        elif found.verdict is Verdict.UNTESTED:
            yield f"{found.verdict} {found.model}: {'; '.join(found.reasons)}"
    yield from (f"⚠ {note}" for note in outcome.notes)


def write_csv(path: Path, outcome: Outcome) -> None:
    """A line for each day, method and confidence. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for one in outcome.backtests:
            days = zip(one.dates, one.returns, one.var, one.es, one.hits, strict=True)
            for day, made, var, es, hit in days:
                writer.writerow(
                    (day.isoformat(), one.method, one.confidence, float(made), float(var), float(es), int(hit))
                )
