"""`stop`, `resume`, `status` and `health`: what an operator types, first of all when things go wrong.

A stop is one command: it asks nothing, tries the control port, then the gateway's, and with --store or --data-dir needs
neither. A resume asks for the name of what it resumes, and for a reason.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.arguments import (
    CONTROL_ADDRESS,
    GATEWAY_ADDRESS,
    AccountOption,
    AddressOption,
    AnyAccountOption,
    AnyAlgoOption,
    AnyDeskOption,
    AnyStrategyOption,
    AnySymbolOption,
    AnyTraderOption,
    ControlOption,
    JsonOption,
    StopMode,
    TokenOption,
    wire_name,
)
from gateway.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from riskgateway.v1.control_pb2 import Scope
    from riskgateway.v1.risk_gateway_pb2 import StopAllRequest, StopAllResponse

TRY_ELSEWHERE = (ExitCode.UNAVAILABLE, ExitCode.TRY_AGAIN, ExitCode.DEFECT)
"""Failures of one port that say nothing of the other: a stop is repeated there, which is always safe."""

ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why, for the record.")]


def stop(
    account: AnyAccountOption = "",
    strategy: AnyStrategyOption = "",
    symbol: AnySymbolOption = "",
    algo: AnyAlgoOption = "",
    trader: AnyTraderOption = "",
    desk: AnyDeskOption = "",
    mode: Annotated[StopMode, typer.Option("--mode", help="What may still be done.")] = StopMode.HALTED,
    reason: ReasonOption = "",
    flatten: Annotated[bool, typer.Option("--flatten", help="Also make orders that close the positions.")] = False,
    store: Annotated[
        str, typer.Option("--store", metavar="URL", help="Write into this store, with every gateway dead.")
    ] = "",
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Write into this directory's store, started for it if need be.")
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Stop trading: everything, or what the options name. Asks nothing; in force everywhere once it has answered."""
    from gateway.cli import render
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import control_pb2, risk_gateway_pb2

    named = {
        "account": account,
        "strategy": strategy,
        "symbol": symbol,
        "algo": algo,
        "trader": trader,
        "desk": desk,
    }
    scope = control_pb2.Scope(**named)
    if store or data_dir is not None:
        if flatten or (store and data_dir is not None):
            raise typer.BadParameter("give one of --store and --data-dir, without --flatten, which needs a gateway")
        _stop_in_store(store, data_dir, scope, mode, reason)
        return
    request = risk_gateway_pb2.StopAllRequest(
        **named,
        mode=control_pb2.TradingState.Value(wire_name("TRADING_STATE", mode)),
        reason=reason,
        flatten=flatten,
    )
    response, served_by = stop_anywhere(request, control, address, token)
    if as_json:
        show_json(response)
    else:
        show(render.stopped(response, scope, served_by))


def stop_anywhere(request: "StopAllRequest", control: str, address: str, token: str) -> "tuple[StopAllResponse, str]":
    """The answer of the control port, else of the gateway's port; and whose it is."""
    from gateway.cli.screen import note

    try:
        return _stop_at(control, request, token), f"control at {control}"
    except Failure as failure:
        if failure.exit_code not in TRY_ELSEWHERE:
            raise
        note(f"⚠ {failure.message}; trying the gateway's port")
    try:
        return _stop_at(address, request, token), f"gateway at {address}"
    except Failure as failure:
        hint = (
            "NOTHING IS CONFIRMED AS STOPPED. With every gateway dead, write the stop into the store itself: "
            "risk-gateway stop --data-dir DIR, or --store URL."
        )
        raise Failure(failure.message, failure.exit_code, failure.details, hint) from failure


def _stop_at(address: str, request: "StopAllRequest", token: str) -> "StopAllResponse":
    from gateway.cli.connection import STOP_TIMEOUT_S, connected

    with connected(address, token) as connection:
        return connection.gateway.StopAll(request, timeout=STOP_TIMEOUT_S, metadata=connection.metadata)


def _stop_in_store(store: str, data_dir: Path | None, scope: "Scope", mode: StopMode, reason: str) -> None:
    from engine.control import Scope as EngineScope
    from engine.control import TradingState
    from gateway.cli import render
    from gateway.cli.screen import note
    from gateway.errors import StoreError
    from gateway.main import stop_directly

    if data_dir is not None and not (data_dir / "valkey").is_dir():
        raise Failure(f"{data_dir} holds no store: no gateway ever served from it", ExitCode.USAGE)
    reached = EngineScope(**{kind: getattr(scope, kind) for kind in render.SCOPE_KINDS})
    try:
        outcome = stop_directly(store or None, data_dir, reached, TradingState[mode.upper()], reason)
    except StoreError as error:
        raise Failure(f"NOT CONFIRMED AS STOPPED: {error}", ExitCode.UNAVAILABLE) from error
    state, where = mode.upper(), render.scope_name(scope)
    note(f"■ {state}  {where} · epoch {outcome.epoch}, {outcome.partitions} partitions · written into the store")
    note("Open orders are not listed without a gateway: cancel what works at the broker.")


def resume(
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why it may go on; required, for the record.")],
    account: AnyAccountOption = "",
    strategy: AnyStrategyOption = "",
    symbol: AnySymbolOption = "",
    algo: AnyAlgoOption = "",
    trader: AnyTraderOption = "",
    desk: AnyDeskOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; for scripts.")] = False,
    as_json: JsonOption = False,
    control: ControlOption = CONTROL_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Lift stops: all of them, or those in what the options name. Asks for the name of what is resumed."""
    from gateway.cli import render
    from gateway.cli.connection import STOP_TIMEOUT_S, connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import control_pb2, risk_gateway_pb2

    named = {
        "account": account,
        "strategy": strategy,
        "symbol": symbol,
        "algo": algo,
        "trader": trader,
        "desk": desk,
    }
    scope = control_pb2.Scope(**named)
    if not yes:
        name = next(filter(None, named.values()), "everything")
        confirm(f"This lets trading go on in: {render.scope_name(scope)}.", name, "resume")
    request = risk_gateway_pb2.ResumeRequest(**named, reason=reason)
    with connected(control, token) as connection:
        response = connection.gateway.Resume(request, timeout=STOP_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(response)
    else:
        show(render.resumed(response, scope))


def confirm(what: str, name: str, verb: str) -> None:
    """Returns if the name is typed; else Failure. Asked on standard error, so that --json stays clean."""
    from gateway.cli.screen import note

    note(f"{what} Type {name} to {verb}.")
    try:
        typed = input()
    except EOFError as error:
        raise Failure(f"nobody to ask: not {verb}d", ExitCode.USAGE, hint="Scripts give --yes.") from error
    if typed.strip() != name:
        raise Failure(f"{typed.strip()!r} is not {name}: not {verb}d", ExitCode.USAGE)


def status(
    account: AccountOption,
    as_json: JsonOption = False,
    address: AddressOption = GATEWAY_ADDRESS,
    token: TokenOption = "",
) -> None:
    """Show an account. May it trade, what is it worth, how close are its limits, what is open."""
    from gateway.cli import render
    from gateway.cli.connection import CALL_TIMEOUT_S, connected
    from gateway.cli.screen import show, show_json
    from riskgateway.v1 import risk_gateway_pb2

    request = risk_gateway_pb2.GetRiskStateRequest(account=account)
    with connected(address, token) as connection:
        state = connection.gateway.GetRiskState(request, timeout=CALL_TIMEOUT_S, metadata=connection.metadata)
    if as_json:
        show_json(state)
    else:
        show(render.risk_state(state))


def health(
    address: AddressOption = GATEWAY_ADDRESS, control: ControlOption = CONTROL_ADDRESS, token: TokenOption = ""
) -> None:
    """Ask both ports whether they serve. Exit code 0 if both do, else 69."""
    from gateway.cli import render
    from gateway.cli.connection import serving_status
    from gateway.cli.screen import show

    is_well = True
    for name, port in (("gateway", address), ("control", control)):
        try:
            said = serving_status(port, token)
        except Failure as failure:
            said = failure.message
        is_well = is_well and said == "SERVING"
        show(render.health_line(name, port, said))
    raise typer.Exit(ExitCode.OK if is_well else ExitCode.UNAVAILABLE)
