"""The commands of `risk-gateway`, put together in the order in which `--help` shows them.

Only names and order live here. Modules of commands are light to import: what they need beyond typer they import when
they run, so that `--help` answers at once.
"""

from collections.abc import Sequence

import typer

from gateway.cli import (
    accounts,
    analytics,
    backtest,
    budget,
    configure,
    demo,
    drill,
    events,
    headroom,
    limits,
    liquidate,
    losses,
    operate,
    orders,
    proposals,
    serve,
    sizing,
    watch,
)
from gateway.cli import log as log_tail
from gateway.cli.exits import Failure

app = typer.Typer(
    help="Checks every order against limits before it reaches the market, and stops trading in one command.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # boxes around the help cost half of its 0.4 s
    pretty_exceptions_enable=False,  # a traceback is a defect, and is reported as Python shows it
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("drill")(drill.drill)
app.command("health")(operate.health)
app.command("check")(orders.check)
app.command("headroom")(headroom.headroom)
app.command("size")(sizing.size)
app.command("report-fill")(orders.report_fill)
app.command("stop")(operate.stop)
app.command("resume")(operate.resume)
app.command("liquidate")(liquidate.liquidate)
app.command("status")(operate.status)
app.command("watch")(watch.watch)
app.command("report")(analytics.report)
app.command("var")(analytics.var)
app.command("stress")(analytics.stress)
app.command("reverse-stress")(analytics.reverse_stress)
app.command("replay")(analytics.replay)
app.command("greeks")(analytics.greeks)
app.command("losses")(losses.losses)
app.command("open-account")(accounts.open_account)
app.command("open-session")(accounts.open_session)
app.command("register")(accounts.register)
app.command("publish-mark")(accounts.publish_mark)
app.command("reconcile")(accounts.reconcile)
app.command("events")(events.events)
app.command("event-set")(events.event_set)
app.command("backtest-var")(backtest.backtest_var)

log = typer.Typer(help="Read accounts' logs from the store.", no_args_is_help=True)
log.command("tail")(log_tail.tail)
app.add_typer(log, name="log")

config = typer.Typer(help="Write, check and describe the configuration file.", no_args_is_help=True)
config.command("init")(configure.init)
config.command("validate")(configure.validate)
config.command("diff")(limits.diff)
config.command("schema")(configure.schema)
app.add_typer(config, name="config")

risk_budget = typer.Typer(help="Show the risk budget, lend parts of it, pause strategies.", no_args_is_help=True)
risk_budget.command("show")(budget.show)
risk_budget.command("lend")(budget.lend)
risk_budget.command("end-loan")(budget.end_loan)
risk_budget.command("pause")(budget.pause)
risk_budget.command("resume")(budget.resume)
app.add_typer(risk_budget, name="budget")

limit_set = typer.Typer(help="Show the limits in force, and change them.", no_args_is_help=True)
limit_set.command("show")(limits.show)
limit_set.command("set")(limits.set_limits)
limit_set.command("propose")(proposals.propose)
limit_set.command("approve")(proposals.approve)
limit_set.command("reject")(proposals.reject)
limit_set.command("proposals")(proposals.proposals)
limit_set.command("history")(proposals.history)
limit_set.command("diff")(proposals.diff)
app.add_typer(limit_set, name="limits")


def run(argv: Sequence[str]) -> int:
    """Runs a command; its exit code. Raises SystemExit with it where typer ends the command itself."""
    try:
        app(args=list(argv), prog_name="risk-gateway")
    except Failure as failure:
        from gateway.cli.screen import complain

        complain(failure)
        return failure.exit_code
    return 0
