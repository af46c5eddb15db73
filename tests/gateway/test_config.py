"""The configuration: what is read, what wins, what the errors say. Files are real, the environment is a parameter."""

import json
import os
import re
import subprocess
import sys
from datetime import time
from pathlib import Path

import pytest

from engine.limits import check_rows, limit_set_from
from engine.measures import MEASURES
from gateway.config import CallerSettings, ConfigError, Settings, balanced_limit_rows, load, schema_text, template_text

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
    assert len(rows) == len(balanced_limit_rows())
    assert rows[0]["measure"] == "leverage"


def test_the_rest_of_the_limits_table_is_the_engines_policy(config_file: Path) -> None:
    config_file.write_text('[limits]\npreset = "balanced"\nmark_age_max_s = 2.5\n')

    assert load(config_file, {}).limits.policy == {"mark_age_max_s": 2.5}


def test_the_schema_describes_every_section() -> None:
    schema = json.loads(schema_text())

    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False
