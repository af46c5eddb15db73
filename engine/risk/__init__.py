"""Risk numbers as pure functions: price history, risk factors, scenarios, the risk model built from them, VaR and ES.

Values in, values out. No file, no clock, no randomness, no network here: the worker loads prices and decides when to
build; the hot path only reads the finished model. Signs: losses are positive, returns are simple (NUMERICS.md).
"""
