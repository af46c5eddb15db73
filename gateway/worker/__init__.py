"""The worker: keeps the slow numbers fresh, away from the order path.

Loads and computes; publishes what it finds. It approves nothing, and the gateway must live with it being dead.
"""
