"""Drills: what stops orders is made to stop one, on a paper account with a log of its own in memory.

`paper` holds the paper account's instruments, model and log, `limit_plays` a play for every measure, `operation_plays`
those of stops, inputs, retries and restarts, `plays` the list of all. Nothing here reaches a running gateway or a
store. The verdicts come from the engine and the committer that serve orders; nothing is decided here.
"""
