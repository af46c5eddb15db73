"""The demo: three agents, or one's own, trade twenty real stocks through the crash of March 2020, every order through
the gateway.

`agents` says what an agent is, `own` finds others. `agents`, `broker`, `desk`, `tape`, `backtest` and `performance` are
pure; `run` alone talks to the servers, and only over gRPC, as any client would. Nothing here is used by the gateway.
"""
