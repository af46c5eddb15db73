"""What machines of the tests are configured with: limits that a test can reach with an order or two.

Texts only. A test that needs another bound puts its own text together from these.
"""

import os

SETTINGS = """\
mode = "paper"

[worker]
prices = "sample"
sessions = "feed"

[limits]
mark_age_max_s = 3600
"""

LIMIT_ROWS = """
[[limit]]
measure = "order_quantity"
scope = "symbol"
limit = 1000
action = "reject"

[[limit]]
measure = "order_value"
scope = "account"
limit = 60_000
warn = 30_000
unit = "money"
action = "reject"

[[limit]]
measure = "position"
scope = "symbol"
limit = 500
action = "reduce"

# One order of more than 800 MSFT is a machine gone wild: its account stops trading MSFT.
[[limit]]
measure = "order_quantity"
scope = "symbol"
match = "MSFT"
limit = 800
action = "halt"

[[limit]]
measure = "var_99"
scope = "account"
limit = 0.08
unit = "equity"
action = "reject"

# An agent that may try twenty times an hour.
[[limit]]
measure = "order_rate"
scope = "strategy"
match = "patient"
limit = 20
window_s = 3600
action = "reject"
"""

CONFIGURATION = SETTINGS + LIMIT_ROWS


def own_environment() -> dict[str, str]:
    """This process' environment without what would configure a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RISK_GATEWAY_")}
