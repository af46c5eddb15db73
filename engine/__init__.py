"""The pure core: it decides and computes from values.

Nothing in this package does I/O, reads a clock or the environment, or knows gRPC, Redis or asyncio. The same
functions serve the gateway, a replay of yesterday's log, a simulation and a test.
"""
