"""`backtest-var`: VaR methods held against real days: prices from a file, or an account's own closed sessions.

Thin: what was asked for, and where the answer goes. What is tested stands in backtest_subject.py, which is slow to
import, as backtest_plot.py is: nothing of either is imported before the command runs.
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.arguments import session_date
from gateway.cli.exits import ExitCode, Failure
from gateway.cli.serve import DATA_DIR

METHODS_DEFAULT = ("historical", "gaussian", "student_t", "filtered_ewma")
CONFIDENCES_DEFAULT = (0.95, 0.99)
DAYS_DEFAULT = 1_000
LOOKBACK_DAYS_DEFAULT = 756
PLOT_DEFAULT = Path("backtest-var.png")
PLOT_KINDS = (".png", ".svg")


def backtest_var(
    account: Annotated[
        str, typer.Option("--account", "-a", help="Test the forecasts in this account's log, and no price file.")
    ] = "",
    sample: Annotated[
        bool, typer.Option("--sample", help="20 US stocks, 1990 to 2022; also without any source.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="PATH", help="Daily closes: a file or a folder of them.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="The prices of this configuration.")
    ] = None,
    positions: Annotated[
        list[str] | None,
        typer.Option(
            "--position", "-p", metavar="SYMBOL=VALUE", help="Signed, in money. Without: all, equally weighted."
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help=f"Repeat for several.  [default: {', '.join(METHODS_DEFAULT)}]"),
    ] = None,
    confidences: Annotated[
        list[float] | None, typer.Option("--confidence", help="Repeat for several.  [default: 0.95, 0.99]")
    ] = None,
    lookback_days: Annotated[
        int, typer.Option("--lookback", min=2, help="Days that each forecast is made from.")
    ] = LOOKBACK_DAYS_DEFAULT,
    days: Annotated[int, typer.Option("--days", min=1, help="Days to test, the last there are.")] = DAYS_DEFAULT,
    until: Annotated[
        str | None, typer.Option("--until", parser=session_date, metavar="YYYY-MM-DD", help="The last day to test.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of monte_carlo.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help=f"A .png or .svg.  [default: ./{PLOT_DEFAULT}]")
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Write no picture.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every day, method by method.")
    ] = None,
    store: Annotated[
        str, typer.Option("--store", "--redis-url", metavar="URL", help="With --account: read this Redis or Valkey.")
    ] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help=f"With --account: read its store.  [default: ./{DATA_DIR}]"),
    ] = None,
) -> None:
    """Hold VaR forecasts against what happened: Kupiec, Christoffersen, Basel's traffic light, Acerbi-Szekely."""
    target = None if no_plot else plot or PLOT_DEFAULT
    if target is not None and target.suffix.lower() not in PLOT_KINDS:
        raise typer.BadParameter(f"{target} is no {' or '.join(PLOT_KINDS)} file", param_hint="--plot")
    if sum(map(bool, (account, sample, prices, config))) > 1:
        raise typer.BadParameter("give one of --account, --sample, --prices and --config")
    _refuse_misplaced(bool(account), over_prices=(positions, methods, confidences, until), over_log=(store, data_dir))

    from gateway.cli import backtest_subject, backtest_tables
    from gateway.cli.screen import note, show

    if account:
        outcome = backtest_subject.of_account(account, store, data_dir or DATA_DIR)
    else:
        history, source = backtest_subject.source(prices, config)
        asked = backtest_subject.Asked(
            positions=tuple(positions or ()),
            methods=tuple(methods or METHODS_DEFAULT),
            confidences=tuple(confidences or CONFIDENCES_DEFAULT),
            lookback_days=lookback_days,
            days=days,
            until=date.fromisoformat(until) if until else None,
            seed=seed,
        )
        outcome = backtest_subject.of_prices(history, source, asked)
    show(backtest_tables.table(outcome))
    for line in backtest_tables.remarks(outcome):
        note(line)
    if csv is not None:
        _written(csv, lambda: backtest_tables.write_csv(csv, outcome))
        note(f"✔ every day of it: {csv}")
    if target is not None:
        from gateway.cli.backtest_plot import draw

        _written(target, lambda: draw(target, outcome))
        note(f"✔ picture: {target}")


def _refuse_misplaced(is_account: bool, over_prices: tuple[object, ...], over_log: tuple[object, ...]) -> None:
    if is_account and any(over_prices):
        raise typer.BadParameter(
            "--account tests the forecasts in its log: without --position, --method, --confidence and --until"
        )
    if not is_account and any(over_log):
        raise typer.BadParameter("--store and --data-dir say where the log of --account is")


def _written(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror or error}", ExitCode.USAGE) from error
