"""The command line, `risk-gateway`: what a person types at a shell, and what they read there.

Commands are grouped by what they are for: `serve` and `demo` start things, `orders`, `operate` and `accounts` talk to
a running gateway over its gRPC contract alone, `configure` reads files. `connection` is the one place that dials and
that translates gRPC errors, `render` turns messages into text, `exits` lists the exit codes. Whatever is slow to import
(grpc, numpy, redis, pydantic) is imported inside the commands that need it.
"""

import sys


def main() -> None:
    """Runs the command in sys.argv and ends the process with its exit code (`gateway.cli.exits`)."""
    try:
        from gateway.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"risk-gateway needs {error.name}: install risk-gateway[server]")
    sys.exit(run(sys.argv[1:]))
