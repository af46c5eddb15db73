"""The demo: three agents trade twenty real stocks through the crash of March 2020, every order through the gateway.

`agents`, `broker`, `desk`, `tape`, `backtest` and `performance` are pure; `run` alone talks to the servers, and only
over gRPC, as any client would. Nothing here is used by the gateway itself.
"""
