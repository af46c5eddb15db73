"""The demo's verdict on itself: what the control cost, what it saved, and whether it kept its own promises.

Values and their printing. Both arms are measured alike, at the paper broker's books; nothing is left out for looking
bad, and what the data can't show is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from rich.console import Console
from rich.table import Table

from gateway.demo.backtest import ExceptionCount
from gateway.demo.desk import Desk
from gateway.demo.live import decisions_table
from gateway.demo.performance import (
    Day,
    Stretch,
    daily_pnl,
    forgone_and_avoided,
    months_of,
    total_return,
    worst_day,
    worst_drawdown,
    worst_stretch,
)
from gateway.demo.tally import Tally

UNLIKELY = 0.05
"""A count of exceptions less likely than this is called out of line with the promise."""

NOTES = (
    "The data set has daily closes only: orders are decided on the close before, and the next close stands for the "
    "next open. Resting orders fill at their limit when a close went beyond it.",
    "There are no volumes and no spreads in it: partial fills are drawn from the seed; slippage is 2 bps plus 2 % of "
    "the day's move, commission 1 bp. Interest and the cost of borrowing shares are left out on both sides.",
    "Prices are adjusted for splits and dividends: right for returns, no share counts of the day.",
    "The run without the gateway has no operator either: the stop counts as part of the control, for and against it.",
    "Forgone: the days on which the run without the gateway did better; avoided: those on which it did worse.",
    "One window with one crash; window, limits and trade sizes were set with it in view, so that every action occurs "
    "and the run stays short, not for return. A longer window favoured the gateway more; the next one may do anything.",
)


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One side of the comparison. Shares are decimals, money in dollars."""

    total_return: float
    costs: float
    """Commission and slippage."""
    worst_drawdown: float
    worst_day: Day
    days_over_limit: int
    """Account-sessions that opened with more VaR than the limit on it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same agent with the gateway and without."""

    agent: str
    controlled: ArmFigures
    free: ArmFigures
    forgone: float
    """Summed over the days on which the free run did better."""
    avoided: float
    """Summed over the days on which it did worse."""
    hurt: Stretch | None
    """The stretch in which the control cost most."""
    helped: Stretch | None
    """The stretch in which it saved most; the amount is positive."""
    months: tuple[tuple[str, float], ...]
    """What the control made (negative: cost) by month."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What a comparison is made from: one desk after the run, or all desks of one side together."""

    curve: tuple[float, ...]
    costs: float
    days_over_limit: int


@dataclass(frozen=True, slots=True)
class StopStory:
    """The operator's stop and the reconciled resume, as they happened."""

    date: date
    stop_epoch: int
    open_orders: int
    """Orders of the demo that the stop named as still able to fill."""
    refused: tuple[str, ...]
    """What the gateway said to orders sent after the stop, by account."""
    cancelled: int
    late_fills: int
    """Fills that reached the broker before the cancels."""
    differences: int
    """Between the gateway's books and the broker's, found by reconciling."""
    resume_epoch: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """The gateway's VaR and this program's own, on days without open orders (which the gateway counts at worst)."""

    compared: int
    largest_gap: float
    """As a share of equity."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it. `sound` is what a script should ask."""

    first: date
    last: date
    sessions: int
    seed: int
    accounts: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    together: Comparison
    exceptions: Mapping[str, tuple[ExceptionCount, ...]]
    """By agent, and "all"."""
    agreement: Agreement
    var_limit: float | None
    tally: Tally
    stop: StopStory | None
    active_counted: int
    """Active breaches as the gateway counted them."""
    active_recounted: int
    """The same recomputed from the log by code that shares nothing with the decision."""
    passive: int
    book_differences: int
    """Between the gateway's books and the broker's at the end."""

    @property
    def sound(self) -> bool:
        """No approval took a limit past its bound, and the books agree."""
        return self.active_counted == 0 and self.active_recounted == 0 and self.book_differences == 0

    def print(self, console: Console) -> None:
        console.print()
        console.rule(f"{self.sessions} sessions, {self.first} to {self.last}, seed {self.seed}")
        console.print(comparison_table((*self.comparisons, self.together), self.var_limit))
        console.print(effects_table((*self.comparisons, self.together)))
        console.print(exceptions_table(self.exceptions))
        console.print(_agreement_line(self.agreement), highlight=False)
        console.print(decisions_table(self.tally))
        for line in (*_not_order_lines(self.tally), *_stop_lines(self.stop), *_breach_lines(self)):
            console.print(line, highlight=False, markup=False)
        console.print("To be read with it:", highlight=False)
        for note in NOTES:
            console.print(f"  - {note}", highlight=False)


def arm_of(desk: Desk, days_over_limit: int) -> Arm:
    return Arm(tuple(desk.curve), desk.broker.fees_paid + desk.broker.slippage_paid, days_over_limit)


def together(arms: Sequence[Arm]) -> Arm:
    """All desks of one side as if they were one account."""
    curve = tuple(sum(points) for points in zip(*(arm.curve for arm in arms), strict=True))
    return Arm(curve, sum(arm.costs for arm in arms), sum(arm.days_over_limit for arm in arms))


def compare(agent: str, controlled: Arm, free: Arm, dates: Sequence[date]) -> Comparison:
    """Both arms over the same sessions; curves have one point more than `dates`."""
    forgone, avoided = forgone_and_avoided(controlled.curve, free.curve)
    pairs = zip(daily_pnl(controlled.curve), daily_pnl(free.curve), strict=True)
    gains = [with_gateway - without for with_gateway, without in pairs]
    helped = worst_stretch([-gain for gain in gains], dates)
    return Comparison(
        agent=agent,
        controlled=_figures(controlled, dates),
        free=_figures(free, dates),
        forgone=forgone,
        avoided=avoided,
        hurt=worst_stretch(gains, dates),
        helped=None if helped is None else Stretch(helped.first, helped.last, -helped.amount),
        months=tuple(months_of(gains, dates)),
    )


def _figures(arm: Arm, dates: Sequence[date]) -> ArmFigures:
    return ArmFigures(
        total_return=total_return(arm.curve),
        costs=arm.costs,
        worst_drawdown=worst_drawdown(arm.curve),
        worst_day=worst_day(arm.curve, dates),
        days_over_limit=arm.days_over_limit,
    )


def comparison_table(comparisons: Sequence[Comparison], var_limit: float | None) -> Table:
    over = "account-days over VaR limit" + ("" if var_limit is None else f" ({var_limit:.0%})")
    table = Table(title="The same agents, with the gateway and without", title_justify="left")
    table.add_column("agent")
    table.add_column("gateway")
    for column in ("return", "costs $", "worst drawdown", "worst day", over):
        table.add_column(column, justify="right")
    for comparison in comparisons:
        table.add_section()
        for name, figures in (("with", comparison.controlled), ("without", comparison.free)):
            table.add_row(
                comparison.agent if name == "with" else "",
                name,
                f"{figures.total_return:+.1%}",
                f"{figures.costs:,.0f}",
                f"{figures.worst_drawdown:.1%}",
                f"{figures.worst_day.amount:+.1%} on {figures.worst_day.date:%d %b}",
                str(figures.days_over_limit),
            )
    return table


def exceptions_table(exceptions: Mapping[str, Sequence[ExceptionCount]]) -> Table:
    table = Table(
        title="The gateway's VaR against what it promised (one day; resting orders counted at their worst)",
        title_justify="left",
    )
    table.add_column("agent")
    for column in ("confidence", "account-days", "exceptions expected", "seen", "p (Kupiec)"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for agent, counts in exceptions.items():
        for count in counts:
            table.add_row(
                agent,
                f"{count.confidence:.0%}",
                str(count.days),
                f"{count.expected:.1f}",
                str(count.seen),
                "< 0.001" if count.p_value < 0.001 else f"{count.p_value:.3f}",
                verdict_on(count),
            )
    return table


def verdict_on(count: ExceptionCount) -> str:
    """In line with the promise, or too many, or too few of them for it to be chance."""
    if count.days == 0:
        return "not measured"
    if count.p_value >= UNLIKELY:
        return "in line"
    return "broken: too many" if count.seen > count.expected else "too few: VaR too high"


def effects_table(comparisons: Sequence[Comparison]) -> Table:
    """What the control cost and saved: in sum, in its worst and best stretch, and by month."""
    table = Table(title="What the control did, with less without, in dollars", title_justify="left")
    table.add_column("agent")
    months = [month for month, _ in comparisons[0].months]
    for column in ("profit forgone", "loss avoided", "in all", "hurt most", "helped most", *months):
        table.add_column(column, justify="right")
    for comparison in comparisons:
        table.add_row(
            comparison.agent,
            f"{comparison.forgone:,.0f}",
            f"{comparison.avoided:,.0f}",
            f"{comparison.avoided - comparison.forgone:+,.0f}",
            _span(comparison.hurt),
            _span(comparison.helped),
            *(f"{gain:+,.0f}" for _, gain in comparison.months),
        )
    return table


def _span(stretch: Stretch | None) -> str:
    if stretch is None:
        return "never"
    return f"{stretch.amount:+,.0f}\n{stretch.first:%d %b} to {stretch.last:%d %b}"


def _agreement_line(agreement: Agreement) -> str:
    return (
        f"Recomputed here from the closes on {agreement.compared} account-days without open orders: the gateway's 99 % "
        f"VaR differs by at most {agreement.largest_gap:.1e} of equity."
    )


def _not_order_lines(tally: Tally) -> list[str]:
    counted = tally.not_orders.items()
    return [f"{count} times no order at all, so nothing was decided: {words}" for words, count in counted]


def _stop_lines(stop: StopStory | None) -> list[str]:
    if stop is None:
        return ["The operator's stop was not played: its date is not among the sessions."]
    return [
        f"Stop on {stop.date} (epoch {stop.stop_epoch}): {stop.open_orders} open orders named, {len(stop.refused)} "
        f"orders sent afterwards and refused, {stop.cancelled} cancelled at the broker, {stop.late_fills} fills came "
        f"before their cancel and were booked; reconciled with {stop.differences} differences; resumed at epoch "
        f"{stop.resume_epoch}.",
    ]


def _breach_lines(summary: Summary) -> list[str]:
    books = "agree" if summary.book_differences == 0 else f"DIFFER in {summary.book_differences} places"
    verdict = "none" if summary.active_recounted == 0 and summary.active_counted == 0 else "A DEFECT"
    return [
        f"Active breaches (an approval took a limit past its bound): {summary.active_counted} counted by the gateway, "
        f"{summary.active_recounted} recomputed from the log: {verdict}. Passive (prices moved): {summary.passive}.",
        f"At the end the gateway's books and the broker's {books}.",
    ]
