"""The configuration: what is read, what wins, what the errors say. Files are real, the environment is a parameter."""

import json
import os
import re
import subprocess
import sys
from datetime import time
from pathlib import Path
from typing import Any

import pytest

from engine.limits import check_rows, limit_set_from
from engine.measures import MEASURES
from engine.risk.level import DEFAULT_THRESHOLDS, Gauge, Level, Thresholds
from gateway.config import (
    PRESET_POLICIES,
    CallerSettings,
    ConfigError,
    Settings,
    load,
    preset_rows,
    schema_text,
    template_text,
)
from gateway.machine import configured_limits, limit_problems

LIVE_CALLERS = '[[callers]]\nname = "alice"\nroles = ["operator"]\ntoken_env = "ALICE_TOKEN"\n'


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "risk-gateway.toml"


def problems_of(path: Path, text: str, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path, environment or {})
    return refused.value.problems


def test_without_a_file_the_defaults_hold() -> None:
    settings = load(None, {})

    assert (settings.mode, settings.server.gateway_port, settings.store.tier) == ("paper", 50051, "embedded")
    assert settings.worker.session_open_time == time(0, 0)
    assert settings.limit_rows == ()


def test_the_process_environment_is_not_read_behind_the_callers_back() -> None:
    program = "from gateway.config import Settings, load; print(Settings().mode, load(None, {}).mode)"
    environment = {**os.environ, "RISK_GATEWAY_MODE": "demo"}

    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert shown.stdout.split() == ["paper", "paper"]


def test_the_template_is_a_valid_configuration_whose_limits_the_engine_takes(config_file: Path) -> None:
    config_file.write_text(template_text())

    settings = load(config_file, {})

    limit_set = limit_set_from(settings.limit_rows, settings.limits.policy)
    check_rows(limit_set, MEASURES)
    assert {row.measure for row in limit_set.rows} >= {"order_quantity", "order_value", "position", "mark_age"}
    assert [row.limit for row in limit_set.rows if row.measure == "leverage"] == [2.0]


def test_the_values_shown_in_the_template_are_the_defaults(config_file: Path) -> None:
    sections = re.findall(r"^\[(?:server|worker)\]\n(?:# \w+ = .*\n)+", template_text(), flags=re.MULTILINE)
    config_file.write_text(re.sub(r"^# ", "", "".join(sections), flags=re.MULTILINE))

    shown, defaults = load(config_file, {}), load(None, {})

    assert shown.server.model_fields_set == set(type(shown.server).model_fields)
    assert shown.worker.model_fields_set == set(type(shown.worker).model_fields)
    assert (shown.server, shown.worker) == (defaults.server, defaults.worker)


def test_environment_overrides_the_file(config_file: Path) -> None:
    config_file.write_text('mode = "demo"\n[server]\ngateway_port = 6000\nhost = "127.0.0.2"\n')

    settings = load(config_file, {"RISK_GATEWAY_SERVER__GATEWAY_PORT": "7000", "RISK_GATEWAY_MODE": "paper"})

    assert settings.server.gateway_port == 7000
    assert settings.server.host == "127.0.0.2"
    assert settings.mode == "paper"


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_settings() -> None:
    settings = load(None, {"RISK_GATEWAY_PORT": "tcp://10.0.0.1:50051", "RISK_GATEWAY_SERVER_PORT": "x"})

    assert settings == load(None, {})


def test_misspelt_keys_are_refused_with_their_path_and_the_nearest_key(config_file: Path) -> None:
    found = problems_of(config_file, "[server]\ngatway_port = 1\n[[callers]]\nname='x'\nrols=[]\n")

    assert found[0] == "server.gatway_port: unknown key, did you mean 'gateway_port'?"
    assert "callers[0].rols: unknown key, did you mean 'roles'?" in found


def test_limits_in_the_environment_are_read_as_what_they_say(config_file: Path) -> None:
    config_file.write_text("")
    said = {"MARKET_SLIPPAGE": "0.25", "SHORT_SALES_MARKED": "true", "GRADES": "[0.5, 1.0]", "PRESET": "macro"}

    settings = load(config_file, {f"RISK_GATEWAY_LIMITS__{key}": text for key, text in said.items()})

    policy = limit_set_from((), settings.limits.policy).policy
    assert (policy.market_slippage, policy.short_sales_marked, policy.grades) == (0.25, True, (0.5, 1.0))
    assert settings.limits.preset == "macro"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-1", "much", '"0.25"', ""])
def test_a_limit_in_the_environment_that_is_no_number_arms_nothing(text: str) -> None:
    with pytest.raises(ConfigError, match="market_slippage"):
        configured_limits(load(None, {"RISK_GATEWAY_LIMITS__MARKET_SLIPPAGE": text}))


def test_two_people_need_two_operators(config_file: Path) -> None:
    caller = '[[callers]]\nname = "{}"\nroles = ["{}"]\ntoken_env = "T"\n'
    two = "[limits]\ntwo_person = true\n"
    config_file.write_text(caller.format("olga", "operator") + caller.format("tom", "trader") + two)
    with pytest.raises(ConfigError, match="at least two of them with the role 'operator'"):
        load(config_file, {})

    config_file.write_text(caller.format("olga", "operator") + caller.format("ivan", "operator") + two)

    assert load(config_file, {}).limits.two_person


def test_misspelt_sections_are_refused_in_the_file_and_in_the_environment(config_file: Path) -> None:
    assert problems_of(config_file, "[wroker]\n") == ("wroker: unknown key, did you mean 'worker'?",)
    assert problems_of(config_file, "", {"RISK_GATEWAY_SERVR__HOST": "x"}) == (
        "RISK_GATEWAY_SERVR__HOST: unknown section, did you mean 'server'?",
    )


ROW = '[[limit]]\nmeasure = "position"\nscope = "symbol"\nlimit = 1\n'

GIVEN_TWICE = [
    ("[server]\ngateway_port = 1\ngateway_port = 2\n", "server.gateway_port: given twice (line 3)"),
    (ROW + ROW + "warn = 1\nwarn = 1", "limit[1].warn: given twice (line 10)"),
    ('mode = "paper"\nmode = "paper"\n', "mode: given twice (line 2)"),
    ("[store]\n[server]\n[store]\n", "store: this table stands in the file twice (line 3)"),
    (ROW + "allocation = {A = 0.1, A = 0.2}\n", "limit[0].allocation.A: given twice (line 5)"),
]


@pytest.mark.parametrize(("text", "problem"), GIVEN_TWICE, ids=[problem for _, problem in GIVEN_TWICE])
def test_a_key_that_is_given_twice_is_refused_with_its_path(config_file: Path, text: str, problem: str) -> None:
    assert problems_of(config_file, text) == (problem,)


def test_a_wrong_value_says_what_was_expected_and_where_it_came_from(config_file: Path) -> None:
    assert problems_of(config_file, 'mode = "liv"\n') == ("mode: expected 'demo', 'paper' or 'live', not 'liv'",)
    (problem,) = problems_of(config_file, "", {"RISK_GATEWAY_SERVER__CONTROL_PORT": "70000"})
    assert problem.startswith("server.control_port (set by RISK_GATEWAY_SERVER__CONTROL_PORT): expected less than")


def test_the_message_names_the_file(config_file: Path) -> None:
    config_file.write_text("nonsense = 1\n")

    with pytest.raises(ConfigError, match=str(config_file)):
        load(config_file, {})


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.toml", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\ngateway_port = 1\ncontrol_port = 1\n", "must differ"),
        ("[server]\ndeadline_default_ms = 20000\n", "must not be above deadline_max_ms"),
        ('[store]\ntier = "single"\n', "tier 'single' needs redis_url"),
        ('[store]\nredis_url = "redis://h"\n', "the tier must be said"),
        ('[store]\nredis_url = "redis://h"\ntier = "replicated"\n', "needs at least 1"),
        ('[store]\nredis_url = "redis://h"\ntier = "single"\nwait_replicas = 1\n', "belongs to tier 'replicated'"),
        ('mode = "live"\n', "needs [[callers]]"),
        (LIVE_CALLERS + LIVE_CALLERS, "names must differ, repeated: alice"),
        ('[[callers]]\nname = "x"\nroles = ["king"]\ntoken_env = "X"\n', "not 'king'"),
        ('[[callers]]\nname = "x"\nroles = []\ntoken_env = "X"\n', "at least 1 item"),
        ('[[callers]]\nname = "x"\nroles = ["viewer"]\n', "exactly one of token_env and token_file"),
        ("[worker]\nlookback_days = 20\n", "greater than or equal to 250"),
        ("[worker]\nrefresh_s = nan\n", "finite number"),
        ('[worker]\nsession_zone = "Mars/Olympus"\n', "expected a time zone"),
        ('[worker]\nsession_open_time = "25:00"\n', "worker.session_open_time"),
        ('[[scenario]]\nname = "x"\nshocks = { OIL = inf }\n', "scenario[0].shocks.OIL: expected a finite number"),
        ('[[scenario]]\nname = "x"\nshocks = {}\n', "at least 1 item"),
        ('[[scenario]]\nname = "x"\nshocks = { OIL = -1.5 }\n', "scenario[0]: scenario 'x': OIL: expected a fraction"),
        ('[[scenario]]\nname = "COVID 2020"\nshocks = { OIL = -0.5 }\n', "scenario[0].name: 'COVID 2020' is a shipped"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config_file: Path, text: str, expected: str) -> None:
    found = problems_of(config_file, text)

    assert any(expected in problem for problem in found), found


def test_a_store_password_is_shown_neither_in_errors_nor_in_the_settings(config_file: Path) -> None:
    found = problems_of(config_file, "", {"RISK_GATEWAY_STORE__REDIS_URL": "http://:hunter2@h"})
    config_file.write_text('[store]\nredis_url = "redis://:hunter2@h"\ntier = "single"\n')

    assert found and "hunter2" not in "".join(found)
    assert "hunter2" not in repr(load(config_file, {}))


def test_live_mode_starts_with_an_operator(config_file: Path) -> None:
    config_file.write_text('mode = "live"\n' + LIVE_CALLERS)

    assert load(config_file, {}).callers[0].roles == ("operator",)


def test_relative_paths_start_at_the_files_folder(config_file: Path, tmp_path: Path) -> None:
    config_file.write_text(
        '[approval]\nkey_file = "keys/a"\n[worker]\nprices = "closes.csv"\n'
        '[[callers]]\nname = "oms"\nroles = ["execution"]\ntoken_file = "oms.token"\n'
    )

    settings = load(config_file, {})

    assert settings.approval.key_file == tmp_path / "keys/a"
    assert settings.worker.prices == str(tmp_path / "closes.csv")
    assert settings.callers[0].token_file == tmp_path / "oms.token"


def test_a_token_comes_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    by_variable = CallerSettings(name="a", roles=("viewer",), token_env="A_TOKEN")
    by_file = CallerSettings(name="b", roles=("viewer",), token_file=tmp_path / "token")

    assert by_variable.token({"A_TOKEN": "t0ken"}) == "t0ken"
    assert by_file.token({}) == "s3cret"
    with pytest.raises(ConfigError, match="A_TOKEN: expected the token of caller 'a'"):
        by_variable.token({})


def test_an_own_row_replaces_its_like_in_the_preset(config_file: Path) -> None:
    config_file.write_text(
        '[limits]\npreset = "balanced"\n[[limit]]\nmeasure = "leverage"\nscope = "account"\nlimit = 1.5\n'
    )

    rows = load(config_file, {}).limit_rows

    assert [row["limit"] for row in rows if row["measure"] == "leverage"] == [1.5]
    assert len(rows) == len(preset_rows("balanced"))
    assert rows[0]["measure"] == "leverage"


def test_the_rest_of_the_limits_table_is_the_engines_policy(config_file: Path) -> None:
    config_file.write_text('[limits]\npreset = "balanced"\nmark_age_max_s = 2.5\n')

    assert load(config_file, {}).limits.policy == {"mark_age_max_s": 2.5, "volatility_target": 0.12}


def test_what_the_file_says_of_all_limits_goes_before_what_a_preset_does(config_file: Path) -> None:
    config_file.write_text('[limits]\npreset = "aggressive"\nvolatility_target = 0.15\n')

    assert load(config_file, {}).limits.policy == {"volatility_target": 0.15}


Rung = tuple[float | None, float, float | None]
"""Warned from, bound, halted beyond."""


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (
            "conservative",
            {
                "leverage": (1.3, 1.5, None),
                "concentration": (0.08, 0.10, None),
                "drawdown": (0.08, 0.12, 0.15),
                "volatility": (None, 0.15, None),
                "var_95": (0.024, 0.03, None),
                "strategy_correlation": (None, 0.70, None),
            },
        ),
        (
            "balanced",
            {
                "leverage": (1.8, 2.0, None),
                "concentration": (0.15, 0.20, None),
                "drawdown": (0.10, 0.15, 0.20),
                "volatility": (None, 0.20, None),
                "var_95": (0.04, 0.05, None),
                "strategy_correlation": (None, 0.80, None),
            },
        ),
        (
            "aggressive",
            {
                "leverage": (3.6, 4.0, None),
                "concentration": (0.20, 0.25, None),
                "drawdown": (0.15, 0.20, 0.25),
                "var_95": (0.064, 0.08, None),
            },
        ),
        (
            "macro",
            {
                "var_95": (0.024, 0.03, None),
                "var_99": (0.04, 0.05, None),
                "concentration": (0.2, 0.25, None),
                "risk_budget": (None, 0.20, None),
            },
        ),
    ],
)
def test_presets_are_what_their_names_promise(preset: str, expected: dict[str, Rung]) -> None:
    rows = preset_rows(preset)
    found = {measure: _rung([row for row in rows if row["measure"] == measure]) for measure in expected}

    assert found == expected
    assert limit_problems(rows, PRESET_POLICIES.get(preset, {})) == ()


def _rung(rows: list[dict[str, Any]]) -> Rung:
    halting = next((row["limit"] for row in rows if row["action"] == "halt"), None)
    first = next(row for row in rows if row["action"] != "halt" or len(rows) == 1)
    return first.get("warn"), first["limit"], halting


def test_the_template_arms_the_balanced_preset(config_file: Path) -> None:
    config_file.write_text(template_text())
    written = load(config_file, {})

    assert {_named(row) for row in written.limit_rows} == {_named(row) for row in preset_rows("balanced")}
    assert written.limits.policy["volatility_target"] == PRESET_POLICIES["balanced"]["volatility_target"]


def _named(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["measure"], row["scope"], row["limit"], row.get("warn"), row["action"]


def test_the_schema_describes_every_section() -> None:
    schema = json.loads(schema_text())

    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False


def test_levels_of_the_report_are_the_shipped_ones_but_for_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "risk-gateway.toml"
    path.write_text('[report]\nunevaluable = "critical"\n[report.levels]\nvar_99 = [0.01, 0.02, 0.03]\n')

    policy = load(path, {}).report.policy

    assert policy.thresholds[Gauge.VAR_99] == Thresholds(0.01, 0.02, 0.03)
    assert policy.thresholds[Gauge.DRAWDOWN] == DEFAULT_THRESHOLDS[Gauge.DRAWDOWN]
    assert policy.unevaluable is Level.CRITICAL


def test_ultra_short_limits_are_shares_of_equity_by_days(tmp_path: Path) -> None:
    path = tmp_path / "risk-gateway.toml"
    path.write_text("[report]\nultra_short_limits = {1 = 0.05, 5 = 0.10}\n")

    assert load(path, {}).report.ultra_short_limits == {1: 0.05, 5: 0.10}
    assert load(None, {}).report.ultra_short_limits == {}


@pytest.mark.parametrize(
    ("text", "words"), [("{2 = 0.05}", "expected 1, 3 or 5 days, got 2"), ("{1 = 0.0}", "greater than 0")]
)
def test_an_ultra_short_limit_that_makes_no_sense_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "risk-gateway.toml"
    path.write_text(f"[report]\nultra_short_limits = {text}\n")

    with pytest.raises(ConfigError, match=words):
        load(path, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("var_99 = [0.03, 0.02, 0.04]", "report.levels.var_99"),
        ("var_98 = [0.01, 0.02, 0.03]", "report.levels.var_98"),
        ("var_99 = [0.01, 0.02]", "report.levels.var_99"),
    ],
)
def test_levels_that_make_no_sense_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "risk-gateway.toml"
    path.write_text(f"[report.levels]\n{text}\n")

    with pytest.raises(ConfigError, match=words):
        load(path, {})
