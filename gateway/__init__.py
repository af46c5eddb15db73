"""The gateway: everything that talks to the world (store, network, processes).

The rules of trading live in `engine`, which imports nothing from here.
Importing this package does nothing; `gateway.main` builds clocks, clients and servers.
"""
