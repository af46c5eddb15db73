"""The demo's own configuration: it loads, its limits can be armed, and every stock can be traded under them."""

from importlib import resources
from pathlib import Path

from engine.limits import LimitSet, check_rows, limit_set_from, reaches
from engine.measures import MEASURES
from gateway.config import Settings, load
from gateway.demo.run import REPUBLISH_S, var_bound
from gateway.market.sample import sample_instruments
from riskgateway.v1 import limit_pb2


def demo_settings() -> Settings:
    with resources.as_file(resources.files("gateway.demo") / "demo.toml") as path:
        return load(Path(path), {})


def demo_limits() -> LimitSet:
    settings = demo_settings()
    return limit_set_from(settings.limit_rows, settings.limits.policy)


def test_the_demo_feeds_its_own_sessions_on_the_sample_prices() -> None:
    settings = demo_settings()

    assert settings.mode == "demo"
    assert (settings.worker.sessions, settings.worker.prices, settings.worker.lookback_days) == ("feed", "sample", 756)


def test_its_limits_can_be_armed_and_reach_every_stock() -> None:
    limits = demo_limits()
    check_rows(limits, MEASURES)

    for instrument in sample_instruments().values():
        kinds = {MEASURES[row.measure].guards for row in limits.rows if reaches(row, "momentum", instrument)}
        assert {"size", "value", "position"} <= kinds


def test_closes_published_after_the_run_stay_fresh() -> None:
    assert demo_limits().policy.mark_age_max_s > 2 * REPUBLISH_S


def test_the_var_limit_is_that_of_the_account_in_equity() -> None:
    rows = [
        limit_pb2.Limit(measure="var_99", scope="strategy", limit=0.01, unit="equity"),
        limit_pb2.Limit(measure="var_99", scope="account", limit=50_000.0, unit="money"),
        limit_pb2.Limit(measure="var_95", scope="account", limit=0.02, unit="equity"),
        limit_pb2.Limit(measure="var_99", scope="account", limit=0.05, unit="equity"),
    ]

    assert var_bound(rows) == 0.05
    assert var_bound(rows[:3]) is None
