"""The picture of a VaR backtest: what each day made, the VaR lines below it, and the days that went through them.

One panel a confidence, drawn without a display. Only the running command imports this: matplotlib is slow to import.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from engine.risk.rolling import RollingBacktest
from gateway.cli.backtest_subject import SHARE, Outcome

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:cyan", "tab:olive")
PANEL_INCHES = (13.0, 4.6)
DOTS_PER_INCH = 120


def draw(path: Path, outcome: Outcome) -> None:
    """Write the picture, PNG or SVG by the name's end. Raises OSError."""
    confidences = sorted({one.confidence for one in outcome.backtests})
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width, height * len(confidences)), layout="constrained")
    panels = figure.subplots(len(confidences), 1, sharex=True, squeeze=False)
    for panel, confidence in zip(panels[:, 0], confidences, strict=True):
        _panel(panel, [one for one in outcome.backtests if one.confidence == confidence], confidence, outcome.unit)
    figure.suptitle(outcome.title)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _panel(panel: Axes, backtests: list[RollingBacktest], confidence: float, unit: str) -> None:
    first = backtests[0]
    made = "return" if unit == SHARE else "gain"
    panel.bar(_days(first), first.returns, width=1.0, color="0.7", label=made)
    for one, colour in zip(backtests, COLOURS, strict=False):
        found = one.validation
        label = f"{one.method}: {found.exceptions} of {found.n} ({found.expected:.0f} expected), {found.verdict}"
        panel.plot(_days(one), -one.var, color=colour, linewidth=1.2, label=label)
    for place, (one, colour) in enumerate(zip(backtests, COLOURS, strict=False)):
        days = _days(one)[one.hits]
        ring = 12.0 + 18.0 * (len(backtests) - 1 - place)
        panel.scatter(
            days, one.returns[one.hits], s=ring, facecolors="none", edgecolors=colour, linewidths=1.0, zorder=3
        )
    panel.axhline(0.0, color="0.4", linewidth=0.6)
    panel.set_title(
        f"−VaR at {confidence:.4g}; a ring of a method's colour: the day lost more", fontsize=10, loc="left"
    )
    panel.yaxis.set_major_formatter(PercentFormatter(1.0) if unit == SHARE else FuncFormatter(lambda y, _: f"{y:,.0f}"))
    panel.set_ylabel(unit)
    panel.grid(alpha=0.25)
    panel.legend(fontsize=8, loc="upper left", ncols=2)


def _days(one: RollingBacktest) -> NDArray[np.datetime64]:
    return np.array(one.dates, dtype="datetime64[D]")
