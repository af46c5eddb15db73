"""`var`, `stress`, `reverse-stress`, `replay`, `greeks` and `report`: an account's risk, asked of the worker.

Thin: one question, one answer, shown by analytics_tables.py. The figures are the worker's; nothing is computed here.
"""

import enum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.arguments import (
    GATEWAY_ADDRESS,
    AddressOption,
    AnyStrategyOption,
    JsonOption,
    TokenOption,
    session_date,
    wire_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message
    from rich.console import RenderableType

    from gateway.cli.connection import Connection
    from riskgateway.v1.risk_analytics_pb2 import StressScenario

A = TypeVar("A", bound="Message")

CALL_TIMEOUT_S = 10.0
"""The longest that a gateway grants by default: figures of large books take their time."""


class MethodName(enum.StrEnum):
    HISTORICAL = "historical"
    PARAMETRIC = "parametric"
    MONTE_CARLO = "monte-carlo"
    FILTERED = "filtered"
    ALL = "all"


class DistributionName(enum.StrEnum):
    GAUSSIAN = "gaussian"
    STUDENT_T = "student-t"
    CORNISH_FISHER = "cornish-fisher"


class FilterName(enum.StrEnum):
    EWMA = "ewma"
    GARCH = "garch"


class CopulaName(enum.StrEnum):
    GAUSSIAN = "gaussian"
    STUDENT_T = "student-t"


AccountArgument = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="Account.", envvar="RISK_GATEWAY_ACCOUNT", show_default=False)
]
PositionsOption = Annotated[bool, typer.Option("--positions-only", help="Leave open orders out.")]


def _asked(
    address: str,
    token: str,
    as_json: bool,
    ask: "Callable[[Connection], A]",
    table: "Callable[[A], RenderableType]",
) -> None:
    from gateway.cli.connection import connected
    from gateway.cli.screen import show, show_json

    with connected(address, token) as connection:
        response = ask(connection)
    if as_json:
        show_json(response)
    else:
        show(table(response))


def var(
    account: AccountArgument,
    strategy: AnyStrategyOption = "",
    methods: Annotated[
        list[MethodName] | None, typer.Option("--method", "-m", help="May be repeated. Default: all.")
    ] = None,
    confidences: Annotated[
        list[float] | None, typer.Option("--confidence", "-c", help="May be repeated. Default: 0.95 and 0.99.")
    ] = None,
    horizon: Annotated[int, typer.Option("--horizon", metavar="DAYS", help="Trading days, 1 to 20.")] = 1,
    distribution: Annotated[
        DistributionName, typer.Option("--distribution", help="Of the parametric method.")
    ] = DistributionName.GAUSSIAN,
    volatility: Annotated[
        FilterName, typer.Option("--filter", help="Volatility of the filtered method.")
    ] = FilterName.EWMA,
    copula: Annotated[CopulaName, typer.Option("--copula", help="Dependence in Monte Carlo.")] = CopulaName.GAUSSIAN,
    paths: Annotated[int, typer.Option("--paths", help="Of Monte Carlo, 1,000 to 100,000.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of Monte Carlo; 0: the account's sequence.")] = 0,
    components: Annotated[
        bool, typer.Option("--components/--no-components", help="Also what each position contributes.")
    ] = True,
    ultra_short: Annotated[
        bool, typer.Option("--ultra-short", help="Also over 1, 3 and 5 days, gaps counted.")
    ] = False,
    positions_only: PositionsOption = False,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show value at risk and expected shortfall, by method, and what contributes to them."""
    from gateway.cli import analytics_tables as tables
    from riskgateway.v1 import risk_analytics_pb2, risk_pb2

    request = risk_analytics_pb2.GetVarRequest(
        account=account,
        strategy=strategy,
        confidences=confidences or [],
        horizon_days=horizon,
        methods=[risk_pb2.VarMethod.Value(wire_name("VAR_METHOD", one)) for one in methods or [MethodName.ALL]],
        open_orders_excluded=positions_only,
        include_components=components,
        include_ultra_short=ultra_short,
        distribution=risk_pb2.VarDistribution.Value(wire_name("VAR_DISTRIBUTION", distribution)),
        filter=risk_pb2.VolatilityFilter.Value(wire_name("VOLATILITY_FILTER", volatility)),
        copula=risk_pb2.CopulaFamily.Value(wire_name("COPULA_FAMILY", copula)),
        paths=paths,
        seed=seed,
    )
    _asked(
        address,
        token,
        as_json,
        lambda to: to.analytics.GetVar(request, timeout=CALL_TIMEOUT_S, metadata=to.metadata),
        tables.value_at_risk,
    )


def stress(
    account: AccountArgument,
    strategy: AnyStrategyOption = "",
    scenarios: Annotated[
        list[str] | None, typer.Option("--scenario", help="One of the model's; may be repeated. Default: all.")
    ] = None,
    shocks: Annotated[
        list[str] | None,
        typer.Option(
            "--shock", metavar="FACTOR=SHOCK", help="A scenario of one's own, e.g. SP500=-0.2; may be repeated."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also spot and volatility grids and replays.")] = False,
    positions_only: PositionsOption = False,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show losses in stress scenarios, and what each position contributes to the worst."""
    from gateway.cli import analytics_tables as tables
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.GetStressRequest(
        account=account,
        strategy=strategy,
        scenarios=scenarios or [],
        custom_scenarios=[_own_scenario(shocks)] if shocks else [],
        open_orders_excluded=positions_only,
        run_all=everything,
    )
    _asked(
        address,
        token,
        as_json,
        lambda to: to.analytics.GetStress(request, timeout=CALL_TIMEOUT_S, metadata=to.metadata),
        tables.stress,
    )


def reverse_stress(
    account: AccountArgument,
    strategy: AnyStrategyOption = "",
    scenario: Annotated[
        str, typer.Option("--scenario", help="One of the model's. Default: the one that costs most.")
    ] = "",
    shocks: Annotated[
        list[str] | None,
        typer.Option("--shock", metavar="FACTOR=SHOCK", help="Scale these instead; may be repeated."),
    ] = None,
    loss: Annotated[float | None, typer.Option("--loss", help="Loss to reach, in base currency.")] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Loss to reach, as a share of equity. Default: 0.1.")
    ] = None,
    most: Annotated[float, typer.Option("--multiplier-max", help="Largest multiplier to look at.")] = 5.0,
    positions_only: PositionsOption = False,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show how far a scenario must be scaled to cost a given loss, and the likeliest move that does."""
    if loss is not None and ratio is not None:
        raise typer.BadParameter("--loss and --ratio say the same thing: give one of them")
    if scenario and shocks:
        raise typer.BadParameter("--scenario and --shock each say what to scale: give one of them")
    from gateway.cli import analytics_tables as tables
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.GetReverseStressRequest(
        account=account, strategy=strategy, multiplier_max=most, open_orders_excluded=positions_only
    )
    if shocks:
        request.custom_scenario.CopyFrom(_own_scenario(shocks))
    elif scenario:
        request.scenario = scenario
    if loss is not None:
        request.loss = loss
    elif ratio is not None:
        request.loss_ratio = ratio
    _asked(
        address,
        token,
        as_json,
        lambda to: to.analytics.GetReverseStress(request, timeout=CALL_TIMEOUT_S, metadata=to.metadata),
        tables.reverse_stress,
    )


def replay(
    account: AccountArgument,
    window: Annotated[
        str | None, typer.Argument(metavar="[WINDOW]", help="2008, 2011, 2013, 2020 or 2022.", show_default=False)
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="First day instead, YYYY-MM-DD.", parser=session_date)
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Last day instead, YYYY-MM-DD.", parser=session_date)
    ] = None,
    strategy: AnyStrategyOption = "",
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Take today's positions, held unchanged, through a stretch of history."""
    if (window is None) == (start is None and end is None) or (start is None) != (end is None):
        raise typer.BadParameter("expected a window such as 2020, or both --from and --to")
    from gateway.cli import analytics_tables as tables
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.ReplayHistoryRequest(
        account=account, strategy=strategy, window=window or "", start_date=start or "", end_date=end or ""
    )
    _asked(
        address,
        token,
        as_json,
        lambda to: to.analytics.ReplayHistory(request, timeout=CALL_TIMEOUT_S, metadata=to.metadata),
        tables.replay,
    )


def greeks(
    account: AccountArgument,
    underlyings: Annotated[
        list[str] | None, typer.Argument(metavar="UNDERLYING", help="Only these.", show_default=False)
    ] = None,
    strategy: AnyStrategyOption = "",
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show delta, gamma, vega, theta and rho, by underlying and by position."""
    from gateway.cli import analytics_tables as tables
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.GetGreeksRequest(account=account, strategy=strategy, underlyings=underlyings or [])
    _asked(
        address,
        token,
        as_json,
        lambda to: to.analytics.GetGreeks(request, timeout=CALL_TIMEOUT_S, metadata=to.metadata),
        tables.greeks,
    )


def report(
    account: AccountArgument,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show the worker's report: level, figures, profit and loss, trends, heat map, and the portfolio as one."""
    from gateway.cli import analytics_tables as tables
    from riskgateway.v1 import risk_analytics_pb2

    request = risk_analytics_pb2.GetRiskReportRequest(account=account)
    _asked(
        address,
        token,
        as_json,
        lambda to: to.analytics.GetRiskReport(request, timeout=CALL_TIMEOUT_S, metadata=to.metadata),
        tables.report,
    )


def _own_scenario(shocks: list[str]) -> "StressScenario":
    """FACTOR=SHOCK texts as one scenario. Raises typer.BadParameter."""
    from riskgateway.v1 import risk_analytics_pb2

    read: dict[str, float] = {}
    for text in shocks:
        factor, _, given = text.partition("=")
        try:
            read[factor.strip()] = float(given)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is no shock; expected FACTOR=SHOCK such as SP500=-0.2") from error
        if not factor.strip():
            raise typer.BadParameter(f"{text!r} is no shock; expected FACTOR=SHOCK such as SP500=-0.2")
    return risk_analytics_pb2.StressScenario(name="own", shocks=read)
